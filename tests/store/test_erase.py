"""Erasure: what a document was is gone everywhere, and causality stays as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import vstore
from mapreduce import view
from replication import sync
from replication.pull import pull
from vstore import Collection, Context, HistoryPruned, NotFound, Store
from vstore.cli.program import main
from vstore.handle import Handle

SECRET = "MARIE CURIE"


@pytest.fixture
def posts(store: Store) -> Collection:
    """Three versions of `a`, on each kind of database; `b` is a neighbour."""
    posts = store["posts"]
    for value in (SECRET, {"name": SECRET}, [SECRET, 2]):
        posts["a"] = value
    posts["b"] = "stays"
    return posts


@pytest.fixture
def stores(fresh_url: Callable[[str], str]) -> Iterator[Callable[..., Store]]:
    """Opens new stores, of SQLite unless said otherwise."""
    with ExitStack() as stack:
        yield lambda kind="sqlite": stack.enter_context(vstore.open(fresh_url(kind)))


def handle_of(store: Store) -> Handle:
    handle = store.handle("posts")
    assert handle is not None
    return handle


def bodies(store: Store, key: str) -> list[Any]:
    """What is left in a database of each version of a document: the body, or None."""
    handle = handle_of(store)
    shard, definition, _part = handle.place(key)
    statement = vstore.sql.statements.VERSION
    rows = shard.database.ask(vstore.sql.statements.VERSIONS(1), (definition.id, key))
    return [shard.database.ask(statement, (definition.id, key, row[2]))[0][0] for row in rows]


def test_nothing_of_an_erased_document_can_be_read_any_more(posts: Collection) -> None:
    """Not as it is, as it was, at a moment, in the history, by a scan of all history, or in the feed."""
    revs = [version.rev for version in posts.history("a")]
    then_us = time.time_ns() // 1000 + 1

    tombstone = posts.erase("a")

    assert (tombstone.deleted, tombstone.value, tombstone.parents) == (True, None, (revs[0],))
    assert posts.read("a", deleted=True).rev == tombstone.rev
    assert "a" not in posts
    assert [version.rev for version in posts.history("a")] == [tombstone.rev]
    for rev in revs:
        with pytest.raises(HistoryPruned):
            posts.version("a", rev)
    with pytest.raises(HistoryPruned):
        posts.at(then_us)["a"]
    assert [key for key, version in posts.history_scan() if not version.deleted] == ["b"]
    told = [change for change in posts.changes(full=True, values=True) if change.key == "a"]
    assert {(change.value, change.deleted) for change in told} <= {(None, True), (None, False)}
    assert SECRET not in repr(told)
    assert bodies(posts.store, "a") == [None] * 4
    assert posts["b"] == "stays"
    assert list(posts.store.check()) == []


def test_followers_of_the_feed_hear_of_the_erasure(posts: Collection) -> None:
    """Those of heads as of a delete; those of every version also that what they may have kept is to go."""
    for full, kinds in ((False, [""]), (True, ["", "erase"])):
        key = f"k{full}"
        posts[key] = SECRET
        list(feed := posts.changes(full=full))
        posts.erase(key)

        told = list(posts.changes(feed.since, full=full))

        assert [(change.key, change.kind) for change in told] == [(key, kind) for kind in kinds]
        assert told[0].deleted


def test_a_view_forgets_what_was_erased(store: Store) -> None:
    """As for any delete: its rows go with the next update."""
    posts = store["posts"]
    posts.put_many({"a": SECRET, "b": "other"})
    names = view(posts, "names", map=lambda key, value: [(value, key)])
    before = [row.key for row in names.rows()]

    posts.erase("a")

    assert sorted(before) == sorted([SECRET, "other"])
    assert [row.key for row in names.rows()] == ["other"]


def test_a_deleted_document_can_be_erased(posts: Collection) -> None:
    """The delete kept its history; the erasure takes it."""
    del posts["a"]

    posts.erase("a")

    assert bodies(posts.store, "a") == [None] * 5
    assert "a" not in posts
    assert list(posts.store.check()) == []


def test_an_erasure_settles_a_conflict_by_taking_all_its_siblings(posts: Collection) -> None:
    """None of them is left, and the document is at peace."""
    posts.put("a", SECRET + " II", context=Context("a"))

    tombstone = posts.erase("a")

    assert len(tombstone.parents) == 2
    assert bodies(posts.store, "a") == [None] * 5
    assert list(posts.conflicts()) == []
    assert list(posts.store.check()) == []


def test_an_erased_document_may_be_written_again_and_erased_again(posts: Collection) -> None:
    """The new content stays until then; what was erased before does not return by it."""
    posts.erase("a")
    posts["a"] = "new"

    assert posts["a"] == "new"
    assert [version.value for version in posts.history("a")] == ["new", None]
    posts.erase("a")
    assert [body for body in bodies(posts.store, "a") if body] == []


def test_what_never_was_cannot_be_erased(posts: Collection) -> None:
    with pytest.raises(NotFound):
        posts.erase("never")
    assert "never" not in list(posts.keys(start=""))


def test_an_erased_document_can_be_purged(posts: Collection) -> None:
    """Then not even its place in history is left."""
    posts.erase("a")

    done = posts.purge(grace_days=0)

    assert (done.purged, done.versions) == (1, 4)
    assert bodies(posts.store, "a") == []
    assert list(posts.store.check()) == []


def test_an_erasure_within_a_transaction_is_undone_with_it(posts: Collection) -> None:
    """All or nothing, as every write."""
    with pytest.raises(RuntimeError), posts.store.transaction():
        posts.erase("a")
        raise RuntimeError
    kept = posts["a"]
    with posts.store.transaction():
        posts.erase("a")

    assert kept == [SECRET, 2]
    assert bodies(posts.store, "a") == [None] * 4


# --- at other replicas -----------------------------------------------------------------------------------------------


def test_an_erasure_reaches_every_replica_and_takes_the_bodies_there(
    posts: Collection, stores: Callable[..., Store]
) -> None:
    """One had all versions, one the last and stubs of the others; one only hears of it from the second."""
    a, whole, heads, third = posts.store, stores(), stores(), stores()
    whole["posts"], heads["posts"].keys()
    sync(a, heads)
    whole.create("posts")
    pull(handle_of(a), handle_of(whole), history="all")
    sync(heads, third)
    had = [[body is not None for body in bodies(store, "a")].count(True) for store in (whole, heads, third)]

    posts.erase("a")
    sync(a, heads)
    pull(handle_of(a), handle_of(whole), history="all")
    sync(heads, third)

    assert had == [3, 1, 1]
    for store in (a, whole, heads, third):
        assert [body for body in bodies(store, "a") if body] == []
        assert dict(store["posts"]) == {"b": "stays"}
        assert store["posts"].read("a", deleted=True).rev == posts.read("a", deleted=True).rev
        assert list(store.check()) == []
    assert not any(sync(a, store) for store in (whole, heads, third))


def test_a_replica_that_has_not_heard_of_it_does_not_bring_the_bodies_back(
    posts: Collection, stores: Callable[..., Store]
) -> None:
    """It has all of the history, and gives all of it away: to one that erased, and to one that heard of that."""
    a, other, late = posts.store, stores(), stores()
    for store in (other, late):
        store.create("posts")
        pull(handle_of(a), handle_of(store), history="all")
    posts.erase("a")
    pull(handle_of(a), handle_of(other), history="all")

    for store in (a, other):
        pull(handle_of(late), handle_of(store), history="all")
        assert [body for body in bodies(store, "a") if body] == []
    assert len([body for body in bodies(late, "a") if body]) == 3
    pull(handle_of(other), handle_of(late), history="all")

    for store in (a, other, late):
        assert [body for body in bodies(store, "a") if body] == []
        assert dict(store["posts"]) == {"b": "stays"}
        assert list(store.check()) == []


def test_a_new_replica_that_meets_the_old_one_first_loses_the_bodies_when_it_hears(
    posts: Collection, stores: Callable[..., Store]
) -> None:
    """Whatever comes first: the rows or the word."""
    a, late, new = posts.store, stores(), stores()
    for store in (late, new):
        store.create("posts")
    pull(handle_of(a), handle_of(late), history="all")
    posts.erase("a")
    pull(handle_of(late), handle_of(new), history="all")

    pull(handle_of(a), handle_of(new), history="all")
    pull(handle_of(late), handle_of(new), history="all")

    assert [body for body in bodies(new, "a") if body] == []
    assert list(new.check()) == []


def test_an_edit_that_the_erasure_had_not_seen_survives(posts: Collection, stores: Callable[..., Store]) -> None:
    """Made elsewhere meanwhile: it is a live document, and what it was made of is gone all the same."""
    a, b = posts.store, stores()
    sync(a, b)
    b["posts"]["a"] = "edited meanwhile"
    posts.erase("a")

    sync(a, b)

    for store in (a, b):
        assert store["posts"]["a"] == "edited meanwhile"
        assert [body for body in bodies(store, "a") if body] == [b'"edited meanwhile"']
        assert list(store.check()) == []
    posts.erase("a")
    sync(a, b)
    assert [body for store in (a, b) for body in bodies(store, "a") if body] == []


def test_a_delete_and_an_erasure_of_the_same_state_are_one_version_that_erases(
    posts: Collection, stores: Callable[..., Store]
) -> None:
    """Made apart, they have one rev; the erasure wins wherever they meet."""
    a, b, c = posts.store, stores(), stores()
    c.create("posts")
    sync(a, b)
    del b["posts"]["a"]
    pull(handle_of(b), handle_of(c))
    posts.erase("a")

    sync(a, b)
    sync(b, c)

    for store in (a, b, c):
        assert [body for body in bodies(store, "a") if body] == []
        assert list(store.check()) == []
    assert not sync(a, b)


# --- in the files ----------------------------------------------------------------------------------------------------


def found_in(folder: Path, what: bytes) -> list[str]:
    """The files in a folder that have these bytes."""
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and what in path.read_bytes()]


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_the_bytes_are_gone_from_an_sqlite_file_and_its_log(tmp_path: Path, inside: bool) -> None:
    """While the store is open, and after it was closed."""
    folder = tmp_path / "data"
    folder.mkdir()
    with vstore.open(f"sqlite:///{folder / 'a.db'}") as store:
        posts = store["posts"]
        posts.put_many({f"k{n}": "x" * 400 for n in range(50)})
        for n in range(5):
            posts["a"] = {"name": SECRET, "n": n, "more": "y" * 9_000 * n}
        before = found_in(folder, SECRET.encode())

        if inside:
            with store.transaction():
                posts.erase("a")
        else:
            posts.erase("a")
        opened = found_in(folder, SECRET.encode()), found_in(folder, b"y" * 100)
    assert before
    assert opened == ([], [])
    assert found_in(folder, SECRET.encode()) == []


def test_the_bytes_are_gone_from_a_replicas_file_too(tmp_path: Path) -> None:
    """There the erasure came by a sync."""
    folder = tmp_path / "data"
    folder.mkdir()
    with vstore.open(f"sqlite:///{folder / 'a.db'}") as a, vstore.open(f"sqlite:///{folder / 'b.db'}") as b:
        a["posts"]["a"] = {"name": SECRET}
        sync(a, b)
        a["posts"].erase("a")
        here = found_in(folder, SECRET.encode())
        sync(a, b)

        assert here == ["b.db-wal"] or "b.db" in here
        assert found_in(folder, SECRET.encode()) == []


def test_a_vacuum_takes_what_sqlite_left_in_pages_that_were_split(tmp_path: Path) -> None:
    """A history of many writes in between: of some of them an erasure alone would leave copies."""
    folder = tmp_path / "data"
    folder.mkdir()
    with vstore.open(f"sqlite:///{folder / 'a.db'}") as store:
        posts = store["posts"]
        for n in range(40):
            posts.put_many({f"k{(n * 37 + m * 11) % 300}": "x" * ((n * 131 + m * 977) % 2_000) for m in range(30)})
            posts["a"] = f"{SECRET} {n} " + "y" * (n * 613 % 3_000)
        posts.erase("a")

        store.vacuum()

        assert found_in(folder, SECRET.encode()) == []
        assert list(store.check()) == []


def test_the_command_asks_erases_and_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    """Several keys at once; without --yes it asks, and a no changes nothing."""
    folder = tmp_path / "data"
    folder.mkdir()
    url = f"sqlite:///{folder / 'a.db'}"
    with vstore.open(url) as store:
        store["posts"].put_many({"a": SECRET, "b": SECRET, "c": "stays"})

    refused = CliRunner().invoke(main, ["erase", "posts", "a", "--store", url], input="n\n")
    kept = found_in(folder, SECRET.encode())
    done = CliRunner().invoke(main, ["erase", "posts", "a", "b", "--yes", "--store", url])
    missing = CliRunner().invoke(main, ["erase", "posts", "nothing", "--yes", "--store", url])

    assert (refused.exit_code, done.exit_code, missing.exit_code) == (130, 0, 3)
    assert "Erase 1 document of 'posts' with all history?" in refused.stderr
    assert kept
    assert done.stdout.count('"deleted":true') == 2
    assert found_in(folder, SECRET.encode()) == []
    with vstore.open(url) as store:
        assert dict(store["posts"]) == {"c": "stays"}
