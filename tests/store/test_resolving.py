"""Resolvers at work: what readers and writers of a conflicted document are given, and what happens meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import vstore
from vstore import (
    DELETE,
    KEEP,
    Collection,
    ConfigurationError,
    Conflict,
    Context,
    NotFound,
    PreconditionFailed,
    ResolverError,
    Siblings,
    Store,
)
from vstore.canonical import revision
from vstore.history import versions_of
from vstore.resolvers import identity, json3, last_write, winner
from vstore.shard import Shard


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

    found: list[tuple[str, Any]] = []
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


# --- at a write ------------------------------------------------------------------------------------------------------


def test_a_put_that_leaves_rivals_may_be_merged_at_once(posts: Collection) -> None:
    """The version that was put and the merge are there together; the first is in history, the second is marked.

    Whoever settles the same siblings later, elsewhere, makes the same version.
    """
    merging = posts.store.collection("posts", resolver=json3)
    base = {"title": "t", "n": 0}
    seen = posts.put("k", base).context
    posts.put("k", {**base, "n": 1}, context=seen)

    merged = merging.put("k", {**base, "title": "new"}, context=seen, on_conflict="resolve")

    assert merged.value == posts["k"] == {"title": "new", "n": 1}
    assert not merged.conflicted
    assert len(merged.parents) == 2
    values = [version.value for version in posts.history("k")]
    assert values[0] == {"title": "new", "n": 1}
    assert {"title": "new", "n": 0} in values
    assert len(values) == 4
    assert kinds(posts, "k") == ["merge:json3"]
    signed = revision(3, False, merged.parents, posts.content(merged.value).identity)
    assert merged.rev == signed


def kinds(posts: Collection, key: str) -> list[str]:
    """Those of its versions that are marked."""
    handle = posts.store.handle(posts.name)
    assert handle is not None
    return [version.kind for version in versions_of(handle, key).values() if version.kind]


def test_a_put_and_its_merge_are_one_transaction(posts: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody ever sees the siblings, and the resolver is not asked while others wait for the lock."""
    asked: list[bool] = []
    database = posts.store.shards[0].database

    def total(conflict: Siblings) -> Any:
        asked.append(database.in_transaction)
        return sum(sibling.value for sibling in conflict.siblings)

    merging = posts.store.collection("posts", resolver=total)
    seen = posts.put("k", 0).context
    posts.put("k", 1, context=seen)
    commits: list[Any] = []
    apply = Shard.apply
    monkeypatch.setattr(Shard, "apply", lambda *args, **more: commits.append(len(args[2])) or apply(*args, **more))

    assert merging.put("k", 2, context=seen, on_conflict="resolve").value == 3
    assert commits == [2]
    assert asked == [False]


def test_a_put_that_leaves_no_rivals_asks_nobody(posts: Collection) -> None:
    """With a fresh context, without one, repeated, or equal to what is there."""
    never = posts.store.collection("posts", resolver=lambda conflict: pytest.fail("asked"))

    seen = never.put("k", 1, on_conflict="resolve").context
    seen = never.put("k", 2, context=seen, on_conflict="resolve").context
    old = posts.read("k").context
    posts.put("k", 3, context=old)
    assert never.put("k", 3, context=old, on_conflict="resolve").value == 3
    quarrel(posts, "k", 4)
    assert never.put("k", 5, on_conflict="resolve").value == 5
    assert kinds(posts, "k") == []


def test_a_put_with_its_merge_may_be_repeated(posts: Collection) -> None:
    """After an unknown outcome, say: nothing new is made."""
    merging = posts.store.collection("posts", resolver=lambda conflict: sorted(s.value for s in conflict.siblings))
    seen = posts.put("k", 0).context
    posts.put("k", 1, context=seen)

    first = merging.put("k", 2, context=seen, on_conflict="resolve")
    second = merging.put("k", 2, context=str(seen), on_conflict="resolve")

    assert (second.value, second.rev) == ([1, 2], first.rev)
    assert len(list(posts.history("k"))) == 4


def test_a_blind_put_is_merged_in_a_transaction_of_its_own(posts: Collection) -> None:
    """A root is named by its dot, which nobody knows before it is written."""
    merging = posts.store.collection("posts", resolver=lambda conflict: sorted(s.value for s in conflict.siblings))
    posts["k"] = 1

    assert merging.put("k", 2, context=Context("k"), on_conflict="resolve").value == [1, 2]


def test_a_write_is_kept_whatever_the_resolver_does(posts: Collection) -> None:
    """It raises or keeps them: what was put is a sibling, and the reason is noted."""
    for key, resolver, reason in (
        ("a", lambda conflict: 1 / 0, "ZeroDivisionError: division by zero"),
        ("b", lambda conflict: KEEP, "kept them"),
        ("c", lambda conflict: {"n": float("inf")}, "returned what cannot be stored"),
    ):
        merging = posts.store.collection("posts", resolver=resolver)
        seen = posts.put(key, 0).context
        posts.put(key, 1, context=seen)

        left = merging.put(key, 2, context=seen, on_conflict="resolve")

        assert left.conflicted
        assert shown(left) == {1, 2}
        [why] = posts.unsettled(posts.read(key, on_conflict="winner"))
        assert why.reason.startswith(reason)
        assert why.resolver == identity(resolver)


def test_a_rival_that_comes_while_the_merge_is_prepared_is_merged_too(posts: Collection) -> None:
    """The transaction would not hold, so the resolver is asked again."""
    asked: list[list[int]] = []

    def slow(conflict: Siblings) -> Any:
        asked.append(sorted(sibling.value for sibling in conflict.siblings))
        if len(asked) == 1:
            posts.put("k", 3, context=seen)
        return sum(asked[-1])

    seen = posts.put("k", 0).context
    posts.put("k", 1, context=seen)

    merged = posts.store.collection("posts", resolver=slow).put("k", 2, context=seen, on_conflict="resolve")

    assert merged.value == 6
    assert asked == [[1, 2], [1, 2, 3]]


def test_to_resolve_at_a_write_takes_a_resolver(posts: Collection) -> None:
    with pytest.raises(ConfigurationError, match="the collection has no resolver. Nothing was written"):
        posts.put("k", 1, on_conflict="resolve")
    assert "k" not in posts


def test_settling_a_document_as_it_was_read_is_refused_when_it_has_changed(posts: Collection) -> None:
    """What came since is not superseded."""
    quarrel(posts, "k", 1, 2)
    document = posts.read("k", on_conflict="winner")
    posts.put("k", 3, context=Context("k"))

    with pytest.raises(PreconditionFailed):
        posts.settle(document, "settled")
    assert shown(posts.read("k", on_conflict="winner")) == {1, 2, 3}
    assert posts.settle(posts.read("k", on_conflict="winner"), DELETE, by="me@2").deleted
    assert kinds(posts, "k") == ["merge:me@2"]
