"""A copy is a second replica: every version of the original, none of its actors, and ready to be written on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vstore
from replication import sync
from vstore import Context, Store, copying
from vstore.copying import Copied

Urls = Callable[[str], str]
PAIRS = [
    (["sqlite"], ["sqlite", "sqlite"]),
    (["sqlite", "sqlite", "sqlite"], ["postgresql"]),
    (["postgresql"], ["mariadb"]),
    (["mariadb"], ["sqlite"]),
    (["sqlite", "mariadb"], ["postgresql", "sqlite"]),
]


class Crash(Exception):
    """What a test raises where a process would have died."""


@pytest.fixture
def original(tmp_path: Path) -> Iterator[Store]:
    """A store of one file that has seen some use."""
    with vstore.open(f"sqlite:///{tmp_path / 'original.db'}") as store:
        fill(store)
        yield store


def fill(store: Store) -> None:
    """Two collections: history, siblings, tombstones, stubs, and a large body that is stored compressed."""
    posts = store["posts"]
    for n in range(1, 6):
        posts["edited"] = {"n": n}
    posts["rivals"] = {"title": "Hello"}
    posts.put("rivals", {"title": "Hi"}, context=Context("rivals"))
    posts["gone"] = {"n": 1}
    del posts["gone"]
    posts.put_many((f"k{n}", {"n": n}) for n in range(100))
    posts.prune(keep_last=3)
    store.collection("notes", codec="zlib+json")["long"] = "long " * 1000
    store.create("narrow", partitions=2)["a"] = 1
    store.set_checkpoint("import:posts", 17)


def told(store: Store) -> dict[str, Any]:
    """Everything a reader can learn of a store, but for who its actors are."""
    found: dict[str, Any] = {}
    for name in store:
        posts = store[name]
        for change in posts.changes(full=True):
            found[name, change.key, change.rev] = (change.deleted, change.stamp)
        for key in {change.key for change in posts.changes()}:
            document = posts.read(key, on_conflict="winner", deleted=True)
            siblings = [(sibling.rev, sibling.value) for sibling in document.siblings]
            history = {version.rev: version.value for version in posts.history(key)}
            found[name, key] = (document.rev, document.value, document.context, siblings, history)
    return found


def heads(store: Store) -> dict[tuple[str, str], Any]:
    """Every document with its siblings and context."""
    return {
        (name, change.key): store[name].read(change.key, on_conflict="winner", deleted=True)
        for name in store
        for change in store[name].changes()
    }


def rows(store: Store) -> set[tuple[Any, ...]]:
    """The lineage of every version, stubs too."""
    found = set()
    for shard in store.shards:
        for _id, *row in shard.database.read().text(
            "SELECT id, rev, deleted, stub, parents, dots, clock, stamp, codec FROM vs_version"
        ):
            found.add(tuple(row))
    return found


def actors(store: Store) -> set[str]:
    """Who writes in a store."""
    return {row[0] for shard in store.shards for row in shard.database.read().text("SELECT actor FROM vs_partition")}


@pytest.mark.parametrize(("kinds", "others"), PAIRS, ids=str)
def test_a_copy_tells_all_that_the_original_tells(kinds: list[str], others: list[str], fresh_url: Urls) -> None:
    """From one number and kind of shards to another: heads, history and the past are equal, and the actors are not."""
    urls = [fresh_url(kind) for kind in others]
    with vstore.open(*[fresh_url(kind) for kind in kinds]) as store:
        fill(store)
        moment = store["posts"].read("edited").stamp - 1

        copied = store.copy(*urls)

        with vstore.open(*urls) as twin:
            assert copied.store == twin.id != store.id
            assert copied.versions == 5 + 2 + 2 + 100 + 1 + 1
            assert rows(twin) == rows(store)
            assert told(twin) == told(store)
            assert dict(twin["posts"].at(moment).items(on_conflict="skip")) == dict(
                store["posts"].at(moment).items(on_conflict="skip")
            )
            assert twin["narrow"].snapshot().len_estimate() == 1
            assert [len(twin.handle(name).owners) for name in twin] == [2, 64, 64]  # type: ignore[union-attr]
            assert actors(twin).isdisjoint(actors(store))
            assert twin.checkpoint("import:posts") is None
            assert twin.checkpoint("copy") is None
            assert list(twin.check()) == []


def test_what_both_write_after_a_copy_are_siblings(original: Store, tmp_path: Path) -> None:
    """The same document is edited on both sides; a sync finds two versions of which neither saw the other."""
    url = f"sqlite:///{tmp_path / 'twin.db'}"
    original.copy(url)
    with vstore.open(url) as twin:
        original["posts"]["edited"] = {"n": "here"}
        twin["posts"]["edited"] = {"n": "there"}
        twin["posts"]["k1"] = {"n": "only there"}

        sync(original, twin)

        for store in (original, twin):
            found = store["posts"].read("edited", on_conflict="winner").siblings
            assert sorted(sibling.value["n"] for sibling in found) == ["here", "there"]
            assert store["posts"]["k1"] == {"n": "only there"}
            assert list(store.check()) == []
        assert told(original) == told(twin)


def test_a_fresh_copy_has_nothing_to_sync(original: Store, tmp_path: Path) -> None:
    """It knows everything that the original knows: not one row moves."""
    url = f"sqlite:///{tmp_path / 'twin.db'}"
    original.copy(url)

    with vstore.open(url) as twin:
        report = sync(original, twin)

    assert "0 rows to the second, 0 to the first" in str(report)


@pytest.mark.parametrize("place", [0, 1, 2, 5])
def test_an_interrupted_copy_goes_on(
    place: int, engine: str, fresh_url: Urls, original: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies before a batch; meanwhile the original is edited; the second call brings all of it and nothing twice."""
    urls = [fresh_url(engine), fresh_url("sqlite")]
    monkeypatch.setattr(copying, "BATCH_ROWS", 20)
    with monkeypatch.context() as patch:
        send, calls = copying._send, [0]

        def dying(*arguments: Any) -> None:
            calls[0] += 1
            if calls[0] > place:
                raise Crash
            send(*arguments)

        patch.setattr(copying, "_send", dying)
        with pytest.raises(Crash):
            original.copy(*urls)
    original["posts"]["edited"] = {"n": "meanwhile"}

    original.copy(*urls)

    with vstore.open(*urls) as twin:
        sync(original, twin)  # what was written meanwhile to a partition that was there already
        assert rows(twin) == rows(original)
        assert told(twin) == told(original)
        assert twin["posts"]["edited"] == {"n": "meanwhile"}
        assert list(twin.check()) == []


def test_a_copy_is_made_while_the_original_is_written(original: Store, tmp_path: Path) -> None:
    """Each batch is followed by an edit, so partitions are behind or ahead of each other; a sync brings the rest."""
    url = f"sqlite:///{tmp_path / 'twin.db'}"
    edits = iter(range(1000))

    def edit(_copied: Copied) -> None:
        original["posts"].put_many((f"k{n}", {"edit": next(edits)}) for n in range(0, 100, 9))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "BATCH_ROWS", 20)
        original.copy(url, progress=edit)

    with vstore.open(url) as twin:
        assert list(twin.check()) == []
        sync(original, twin)  # brings the heads, and of what came between only who was before whom
        assert heads(twin) == heads(original)
        assert {row[0] for row in rows(twin)} == {row[0] for row in rows(original)}


def test_batches_are_bounded_in_bytes(tmp_path: Path) -> None:
    """Twenty documents of a megabyte in one partition: pages of eight, and a batch ends with the page that fills it."""
    sizes: list[int] = []
    with vstore.open(f"sqlite:///{tmp_path / 'large.db'}") as store:
        store.create("large", partitions=1).put_many((f"k{n}", "x" * 1_000_000) for n in range(20))

        store.copy(f"sqlite:///{tmp_path / 'twin.db'}", progress=lambda copied: sizes.append(copied.body_bytes))

    assert sizes == [16 * 1_000_002, 20 * 1_000_002]


def test_databases_that_are_not_blank_are_refused_and_left_alone(original: Store, tmp_path: Path) -> None:
    """Another store, a finished copy, a copy of something else, and the original itself."""
    other, twin = f"sqlite:///{tmp_path / 'other.db'}", f"sqlite:///{tmp_path / 'twin.db'}"
    original.copy(twin)
    with vstore.open(other) as store:
        store["letters"]["a"] = 1
    with vstore.open(f"sqlite:///{tmp_path / 'half.db'}") as half:
        half.set_checkpoint("copy", "0123456789abcdef")

    refusals = {
        other: "is a store with 1 collections already",
        twin: "is a store with 3 collections already",
        f"sqlite:///{tmp_path / 'half.db'}": "is an unfinished copy of store 0123456789abcdef",
        original.shards[0].database.name: "is the store that was to be copied",
    }
    for url, message in refusals.items():
        with pytest.raises(vstore.ConfigurationError, match=message):
            original.copy(url)

    with vstore.open(other) as store:
        assert list(store) == ["letters"]
    with vstore.open(twin) as store:
        assert told(store) == told(original)


def test_an_unfinished_copy_whose_original_has_changed_its_collections_is_refused(
    original: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection was renamed after the copy died: what is in the copy under the old name would stay for ever."""
    url = f"sqlite:///{tmp_path / 'twin.db'}"

    def dying(*arguments: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_send", dying)
        with pytest.raises(Crash):
            original.copy(url)
    original.rename("posts", "articles")

    with pytest.raises(vstore.ConfigurationError, match="a collection 'posts', which its original has no more"):
        original.copy(url)
