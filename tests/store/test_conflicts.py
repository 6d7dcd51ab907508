"""Siblings: seen, listed, read as one is told to, and settled."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import vstore
from vstore import DELETE, KEEP, Collection, Conflict, Context, NotFound, ResolverError, Siblings, Store
from vstore.resolvers import json3, keep, last_write, winner


@pytest.fixture
def posts(store: Store) -> Collection:
    """An empty collection on each kind of database."""
    return store["posts"]


def quarrel(posts: Collection, key: str, *values: Any, base: Any = None) -> None:
    """Makes siblings of these values, edits of one base if there is one."""
    seen = Context(key)
    if base is not None:
        seen = posts.put(key, base).context
    for value in values:
        posts.put(key, value, context=seen)


def shown(document: vstore.Document) -> set[Any]:
    """The values of the siblings."""
    return {sibling.value for sibling in document.siblings}


def test_a_conflict_is_raised_with_all_that_is_needed_to_settle_it(posts: Collection) -> None:
    """The siblings in winner order, and the context that replaces all of them; the message says what to do."""
    quarrel(posts, "k", "a", "b", "c")

    with pytest.raises(Conflict, match=r"'k' in 'posts' has 3 live siblings.*resolve\('k'") as refused:
        posts["k"]

    document = refused.value.document
    assert document is not None
    assert shown(document) == {"a", "b", "c"}
    assert [sibling.rev for sibling in document.siblings] == sorted(document.context.revs, reverse=True)
    assert document.siblings[0].value == document.value
    assert not posts.put("k", "settled", context=document.context).conflicted


def test_every_way_of_reading_treats_a_conflict_as_it_is_told(posts: Collection) -> None:
    """raise, winner or skip; by default raise. `in`, len and keys count the document: it is there."""
    posts["peace"] = 0
    quarrel(posts, "war", 1, 2)
    first = posts.read("war", on_conflict="winner").value

    for refused in (
        lambda: posts.get("war"),
        lambda: posts.read("war"),
        lambda: posts.read("war", on_conflict="raise"),
        lambda: posts.setdefault("war", 3),
        lambda: posts.pop("war"),
        lambda: posts.modify("war", lambda value: value),
        lambda: posts.edit("war").__enter__(),
        lambda: list(posts.items()),
        lambda: list(posts.values(on_conflict="raise")),
        lambda: list(posts.snapshot().items()),
        lambda: posts.snapshot()["war"],
        lambda: posts.get_many(["war"]),
    ):
        with pytest.raises(Conflict, match="'war'") as refusal:
            refused()
        assert refusal.value.document is not None
        assert shown(refusal.value.document) == {1, 2}
    assert dict(posts.items(on_conflict="winner")) == {"peace": 0, "war": first}
    assert sorted(posts.values(on_conflict="winner")) == sorted([0, first])
    assert dict(posts.items(on_conflict="skip")) == {"peace": 0}
    assert "war" in posts
    assert len(posts) == 2
    assert set(posts) == {"peace", "war"}


def test_a_misspelt_choice_does_not_hide_a_conflict(posts: Collection) -> None:
    """What is not understood is taken as the strictest."""
    quarrel(posts, "war", 1, 2)

    with pytest.raises(Conflict):
        list(posts.items(on_conflict="winer"))  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        posts.read("war", on_conflict="winer")  # type: ignore[arg-type]


def test_deleting_a_conflicted_document_deletes_all_siblings(posts: Collection) -> None:
    """No reader has to settle what is to go."""
    quarrel(posts, "k", 1, 2)

    assert posts.delete("k").deleted
    assert "k" not in posts
    assert list(posts.conflicts()) == []


def test_conflicts_lists_every_document_that_needs_settling(posts: Collection) -> None:
    """And not those with equal siblings, or one live sibling beside tombstones. Many, so that there are pages."""
    posts.put_many({f"quiet{n}": n for n in range(50)})
    for n in range(30):
        quarrel(posts, f"war{n:02d}", {"n": n}, {"n": -n - 1})
    quarrel(posts, "equal", 1, 1)
    seen = posts.put("survivor", 1).context
    posts.put("survivor", 2, context=seen)
    posts.delete("survivor", context=seen)

    found = list(posts.conflicts())

    assert sorted(document.key for document in found) == [f"war{n:02d}" for n in range(30)]
    assert all(document.conflicted for document in found)


def test_listing_conflicts_reads_only_them(local: Store) -> None:
    """A collection of 5,000 documents and one with none besides the conflicts cost the same number of rows."""
    read = []
    for name, size in (("small", 0), ("large", 5_000)):
        posts = local[name]
        posts.put_many({f"q{n}": n for n in range(size)})
        for n in range(5):
            quarrel(posts, f"war{n}", 1, 2)
        with counted_rows(local) as rows:
            assert len(list(posts.conflicts())) == 5
        read.append(sum(rows))

    assert read[0] == read[1]


class counted_rows:  # noqa: N801  # reads as a statement
    """Counts the rows of every query on a store's first shard inside the block."""

    def __init__(self, store: Store) -> None:
        self._connection = store.shards[0].database.read()
        self._rows: list[int] = []

    def __enter__(self) -> list[int]:
        kind = type(self._connection)
        self._patch = pytest.MonkeyPatch()
        original = kind.rows

        def counting(connection: Any, *args: Any) -> list[Any]:
            found = original(connection, *args)
            self._rows.append(len(found))
            return found

        self._patch.setattr(kind, "rows", counting)
        return self._rows

    def __exit__(self, *error: Any) -> None:
        self._patch.undo()


# --- resolvers -------------------------------------------------------------------------------------------------------


def test_the_nearest_resolver_counts(tmp_path: Path) -> None:
    """That of the call before the collection's, that before the store's."""
    url = f"sqlite:///{tmp_path}/r.db"
    with vstore.open(url, resolver=lambda conflict: "store's") as store:
        quarrel(store["posts"], "k", 1, 2)
        posts = store.collection("posts", resolver=lambda conflict: "collection's")

        assert store["posts"]["k"] == "store's"
        assert posts["k"] == "collection's"
        assert posts.prefixed("")["k"] == "collection's"
        assert posts.resolve("k", lambda conflict: "call's").value == "call's"


def test_a_resolver_decides_what_is_read_and_writes_nothing(posts: Collection) -> None:
    """Reads show its value, in every way, until somebody settles the document."""
    quarrel(posts, "k", 1, 2)
    posts["other"] = 0
    summed = posts.store.collection("posts", resolver=lambda conflict: sum(s.value for s in conflict.siblings))

    assert summed["k"] == summed.get("k") == summed.read("k").value == 3
    assert len(summed.read("k").siblings) == 2
    assert dict(summed.items()) == {"k": 3, "other": 0}
    assert list(summed) == list(dict(summed.items()))
    assert summed.get_many(["k"]) == {"k": 3}
    assert summed.setdefault("k", 9) == 3
    assert shown(summed.read("k", on_conflict="winner")) == {1, 2}
    with pytest.raises(Conflict):
        summed.read("k", on_conflict="raise")
    with pytest.raises(Conflict):
        dict(summed.items(on_conflict="raise"))
    assert dict(summed.items(on_conflict="skip")) == {"other": 0}
    assert len(list(posts.history("k"))) == 2
    assert [document.key for document in summed.conflicts()] == ["k"]
    assert summed.modify("k", lambda value: value + 1).value == 4  # this settles it
    assert list(posts.conflicts()) == []


def test_items_with_a_resolver_are_those_of_the_moment_it_began(posts: Collection) -> None:
    """A conflict that is settled, and one that arises, while the iteration goes on change nothing that it yields."""
    posts.put_many({f"k{n}": n for n in range(5)})
    quarrel(posts, "war", 10, 20)
    largest = posts.store.collection("posts", resolver=lambda conflict: max(s.value for s in conflict.siblings))

    found = []
    for item in largest.items():
        if not found:
            posts["war"] = "settled"
            posts.put("k1", 100, context=Context("k1"))
            posts.put("k2", 100, context=Context("k2"))
        found.append(item)

    assert sorted(found) == [("k0", 0), ("k1", 1), ("k2", 2), ("k3", 3), ("k4", 4), ("war", 20)]


def test_a_resolver_may_say_that_the_document_is_to_go(posts: Collection) -> None:
    """Readers are shown nothing, and those who write go on from there, without end neither."""
    quarrel(posts, "k", 1, 2)
    gone = posts.store.collection("posts", resolver=lambda conflict: DELETE)

    assert gone.get("k") is None
    assert gone.pop("k", "default") == "default"
    assert dict(gone.items()) == {}
    assert gone.get_many(["k"]).missing == ["k"]
    for refused in (lambda: gone["k"], lambda: gone.read("k"), lambda: gone.modify("k", lambda value: value)):
        with pytest.raises(NotFound):
            refused()
    assert len(list(posts.history("k"))) == 2
    assert gone.modify("k", lambda value: [*value, 1], default=[]).value == [1]
    quarrel(posts, "j", 1, 2)
    assert gone.setdefault("j", "new") == "new"
    quarrel(posts, "i", 1, 2)
    with gone.edit("i", default={}) as value:
        value["n"] = 1
    assert (posts["i"], posts["j"], posts["k"]) == ({"n": 1}, "new", [1])
    quarrel(posts, "h", 1, 2)
    assert gone.resolve("h").deleted


def test_a_resolver_that_keeps_leaves_the_conflict(posts: Collection) -> None:
    """A read raises, resolve() returns the document as it is."""
    quarrel(posts, "k", 1, 2)
    keeping = posts.store.collection("posts", resolver=keep)

    with pytest.raises(Conflict):
        keeping["k"]
    with pytest.raises(Conflict):
        dict(keeping.items())
    assert shown(keeping.resolve("k")) == {1, 2}
    assert shown(posts.resolve("k", KEEP)) == {1, 2}
    assert len(list(posts.history("k"))) == 2


@pytest.mark.parametrize(
    "resolver",
    [
        lambda conflict: 1 / 0,
        lambda conflict: {1, 2},
        lambda conflict: conflict.siblings[0],
        lambda conflict: {"n": float("nan")},
        lambda conflict: {"a": (1, 2)},
        lambda conflict: [object()],
        lambda conflict, more: 1,
    ],
)
def test_a_resolver_that_fails_changes_nothing(local: Store, resolver: Any) -> None:
    """Whether it raises or returns what is no document; on reading and on settling alike."""
    posts = local["posts"]
    quarrel(posts, "k", 1, 2)
    broken = local.collection("posts", resolver=resolver)

    for refused in (
        lambda: broken["k"],
        lambda: broken.read("k"),
        lambda: dict(broken.items()),
        lambda: broken.get_many(["k"]),
        lambda: broken.modify("k", lambda value: 3),
        lambda: broken.resolve("k"),
        lambda: posts.resolve("k", resolver),
    ):
        with pytest.raises(ResolverError, match=r"'k'.*2 siblings are as they were"):
            refused()
    assert shown(posts.read("k", on_conflict="winner")) == {1, 2}


def test_what_a_resolver_gets_and_gives_is_not_shared(local: Store) -> None:
    """It may ruin the siblings, and change later what it returned."""
    posts = local["posts"]
    quarrel(posts, "k", {"n": [1]}, {"n": [2]})
    mine: list[Any] = []

    def ruin(conflict: Siblings) -> Any:
        for sibling in conflict.siblings:
            sibling.value.clear()
        return mine

    careless = local.collection("posts", resolver=ruin)
    careless["k"].append("reader's")
    assert careless["k"] == []
    assert mine == []
    document = careless.read("k")
    assert [sibling.value for sibling in document.siblings] != [{}, {}]
    settled = careless.resolve("k")
    mine.append("resolver's")
    assert settled.value == []
    assert posts["k"] == []


def test_the_built_in_resolvers_settle(posts: Collection) -> None:
    """By winner order, by time, and by merging."""
    base = {"title": "t", "tags": ["x"], "n": 0}
    quarrel(posts, "k", {**base, "title": "new"}, {**base, "n": 5}, base=base)
    document = posts.read("k", on_conflict="winner")

    def read_with(resolver: Any) -> Any:
        return posts.store.collection("posts", resolver=resolver)["k"]

    assert read_with(winner) == document.value
    assert read_with(last_write) == {**base, "n": 5}
    assert read_with(json3) == {"title": "new", "tags": ["x"], "n": 5}
    assert posts.resolve("k", json3).value == {"title": "new", "tags": ["x"], "n": 5}


def test_a_merge_is_given_the_common_ancestor(posts: Collection) -> None:
    """The lowest one: what both had read, not what was before."""
    posts["k"] = "ancient"
    common = posts.put("k", "common")
    one = posts.put("k", "one", context=common.context)
    posts.put("k", "one, edited", context=one.context)
    posts.put("k", "other", context=common.context)
    given: list[Siblings] = []

    posts.resolve("k", lambda conflict: given.append(conflict) or KEEP)

    [conflict] = given
    assert conflict.base is not None
    assert (conflict.base.value, conflict.base.rev, conflict.base.stamp) == ("common", common.rev, common.stamp)
    assert {sibling.value for sibling in conflict.siblings} == {"one, edited", "other"}


def test_without_one_common_ancestor_there_is_no_base(posts: Collection) -> None:
    """Created twice; or a criss-cross, where each of two versions is an ancestor of both siblings."""
    given: list[Siblings] = []

    def note(conflict: Siblings) -> Any:
        given.append(conflict)
        return KEEP

    quarrel(posts, "twice", 1, 2)
    posts.resolve("twice", note)
    root = posts.put("cross", "root")
    left = posts.put("cross", "left", context=root.context)
    posts.put("cross", "right", context=root.context)
    both = posts.read("cross", on_conflict="winner").context
    posts.put("cross", "merged so", context=both)
    posts.put("cross", "merged otherwise", context=both)
    posts.resolve("cross", note)

    assert left.value == "left"
    assert [conflict.base for conflict in given] == [None, None]
    assert {sibling.value for sibling in given[1].siblings} == {"merged so", "merged otherwise"}


def test_a_base_that_was_deleted_is_shown_as_such(posts: Collection) -> None:
    """Both wrote on top of one tombstone."""
    posts["k"] = 1
    seen = posts.delete("k").context
    posts.put("k", 2, context=seen)
    posts.put("k", 3, context=seen)
    given: list[Siblings] = []

    posts.resolve("k", lambda conflict: given.append(conflict) or KEEP)

    assert given[0].base is not None
    assert given[0].base.deleted
    assert given[0].base.value is None


def test_resolve_takes_a_value_delete_or_nothing(posts: Collection) -> None:
    """None is a value. A value is stored in any case, a resolver is asked only if there is something to decide."""
    quarrel(posts, "k", 1, 2)
    assert posts.resolve("k", None).value is None
    assert not posts.resolve("k", None).conflicted
    assert posts.resolve("k", lambda conflict: 1 / 0).value is None
    quarrel(posts, "k", 1, 2)
    assert posts.resolve("k", DELETE).deleted
    with pytest.raises(Conflict, match="needs an answer"):
        posts.resolve("k")
    with pytest.raises(NotFound):
        posts.resolve("never", 1)


def test_replicas_that_settle_alike_make_the_same_version(
    fresh_url: Callable[[str], str], url: str, tmp_path: Path
) -> None:
    """Two stores hold the same siblings; each resolves by itself; there is nothing left to sync."""
    with vstore.open(url) as one, vstore.open(fresh_url("sqlite"), state=tmp_path / "other") as other:
        from replication import sync

        quarrel(one["posts"], "k", {"a": 1}, {"a": 2, "b": 0}, base={"a": 0, "b": 0})
        sync(one["posts"], other["posts"])

        here = one["posts"].resolve("k", last_write)
        there = other["posts"].resolve("k", last_write)

        assert here.rev == there.rev
        sync(one["posts"], other["posts"])
        assert one["posts"].read("k").context.revs == other["posts"].read("k").context.revs == (here.rev,)


def test_a_resolver_is_asked_again_when_another_sibling_came_meanwhile(posts: Collection) -> None:
    """What it decides about is all that there is."""
    quarrel(posts, "k", 1, 2)
    asked = []

    def slow(conflict: Siblings) -> Any:
        asked.append({sibling.value for sibling in conflict.siblings})
        if len(asked) == 1:
            posts.put("k", 3, context=Context("k"))
        return sum(sibling.value for sibling in conflict.siblings)

    assert posts.resolve("k", slow).value == 6
    assert asked == [{1, 2}, {1, 2, 3}]


def test_eight_writers_with_one_old_context_make_eight_siblings(posts: Collection) -> None:
    """At the same time, and none of them is lost."""
    posts["k"] = "base"
    seen = posts.read("k").context

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: posts.put("k", n, context=seen), range(8)))

    assert shown(posts.read("k", on_conflict="winner")) == set(range(8))
    assert posts.resolve("k", lambda conflict: sorted(s.value for s in conflict.siblings)).value == list(range(8))
