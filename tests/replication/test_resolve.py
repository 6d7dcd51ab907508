"""`Settler`: conflicts settled by a resolver that may be wrong, slow, random or broken, at any number of replicas."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vstore
from replication import sync
from replication.lease import Lease
from replication.pull import pull
from replication.resolve import Settler
from vstore import DELETE, KEEP, Collection, Context, Store
from vstore.codecs.json_codec import JsonCodec
from vstore.conflicts import unsettled
from vstore.document import Version
from vstore.history import versions_of
from vstore.resolvers import Resolver, Sibling, Siblings, counter, decide, fields, identity, json3, last_write, winner
from vstore.sql.database import Connection
from vstore.sql.statements import Statement

BASE = {"title": "base", "n": 0}


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Callable[[int], list[Collection]]]:
    """Makes so many empty stores on SQLite; of each the collection `notes`."""
    with ExitStack() as opened:

        def make(count: int) -> list[Collection]:
            urls = [f"sqlite:///{tmp_path / f'replica {n}.db'}" for n in range(count)]
            return [opened.enter_context(vstore.open(url))["notes"] for url in urls]

        yield make


@pytest.fixture
def notes(store: Store) -> Collection:
    """An empty collection on each kind of database."""
    return store["notes"]


def meet(sites: Sequence[Collection]) -> None:
    """Every replica has everything afterwards."""
    for _ in range(2):
        for site in sites[1:]:
            sync(sites[0], site)


def take(source: Collection, target: Collection) -> None:
    """The target takes what the source has."""
    there, here = source.store.handle(source.name), target.store.handle(target.name)
    assert there is not None
    assert here is not None
    pull(there, here)


def versions(notes: Collection, key: str = "k") -> dict[str, Version]:
    """Every version of a document, by rev."""
    handle = notes.store.handle(notes.name)
    assert handle is not None
    return versions_of(handle, key)


def rivals(notes: Collection, key: str, *values: Any, base: Any = BASE) -> None:
    """A document that was BASE, and that several have changed without seeing each other."""
    seen = notes.put(key, base).context
    for value in values:
        notes.put(key, value, context=seen)


def first_seen(notes: Collection) -> Context:
    """What those had seen who changed the document first."""
    return list(notes.history("k"))[-1].context


class Clock:
    """A clock that stands until it is set forward."""

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.us


# --- replicas that settle for themselves -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_replicas_that_settle_in_lock_step_make_one_version(
    replicas: Callable[[int], list[Collection]], count: int
) -> None:
    """Each edits its own field of one document. All settle at the same moment, before any hears of another's merge."""
    sites = replicas(count)
    sites[0]["k"] = dict.fromkeys(map(str, range(count)), 0)
    meet(sites)
    for n, site in enumerate(sites):
        site.modify("k", lambda value, n=n: {**value, str(n): 1})
    meet(sites)

    outcomes = [Settler(site, json3).settle(["k"]) for site in sites]
    before = [site.read("k").rev for site in sites]
    meet(sites)

    assert [outcome.resolved for outcome in outcomes] == [["k"]] * count
    assert len(set(before)) == 1
    assert [len(versions(site)) for site in sites] == [1 + count + 1] * count
    assert [site["k"] for site in sites] == [dict.fromkeys(map(str, range(count)), 1)] * count
    assert not any(Settler(site, json3).settle(["k"]) for site in sites)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_random_resolver_costs_one_version_for_each_replica_and_ends(
    replicas: Callable[[int], list[Collection]], count: int
) -> None:
    """Each replica merges in another way; of these one is taken by all, and nobody is asked again."""
    sites = replicas(count)
    sites[0]["k"] = "base"
    meet(sites)
    for n, site in enumerate(sites):
        site["k"] = n
    meet(sites)
    answers = iter(range(100, 1_000))

    asked = [Settler(site, lambda conflict: next(answers)).settle(["k"]).asked for site in sites]
    meet(sites)
    merges = {rev: version for rev, version in versions(sites[0]).items() if version.kind}
    again = [Settler(site, lambda conflict: next(answers)).settle(["k"]) for site in sites]
    meet(sites)

    assert asked == [1] * count
    assert len(merges) == count
    assert [(outcome.resolved, outcome.asked) for outcome in again] == [(["k"], 0)] * count
    assert [len(versions(site)) for site in sites] == [1 + count + count + 1] * count
    assert {site["k"] for site in sites} == {sites[0].version("k", max(merges)).value}
    assert not any(site.read("k").conflicted for site in sites)


def test_of_several_merges_of_the_same_parents_the_winner_is_taken(
    replicas: Callable[[int], list[Collection]],
) -> None:
    """The one that readers were shown before."""
    one, other = replicas(2)
    rivals(one, "k", "a", "b")
    meet([one, other])
    Settler(one, lambda conflict: "first").settle(["k"])
    Settler(other, lambda conflict: "second").settle(["k"])
    meet([one, other])
    shown = one.read("k", on_conflict="winner").value

    Settler(one, lambda conflict: pytest.fail("asked")).settle(["k"])

    assert one["k"] == shown
    assert len(one.read("k").parents) == 2


def test_an_edit_beside_a_merge_is_never_passed_over(replicas: Callable[[int], list[Collection]]) -> None:
    """One replica merges; at the other somebody settles the same siblings by hand. The resolver is asked.

    What it is given as their base is what it makes of the two that both came from.
    """
    one, other = replicas(2)
    rivals(one, "k", "a", "b")
    meet([one, other])
    joined: list[tuple[list[Any], Any]] = []

    def join(conflict: Siblings) -> Any:
        values = sorted(sibling.value for sibling in conflict.siblings)
        joined.append((values, conflict.base_value))
        return "+".join(values)

    Settler(one, join).settle(["k"])
    other.resolve("k", "by hand")
    meet([one, other])
    joined.clear()

    outcome = Settler(one, join).settle(["k"])

    assert outcome.asked == 1
    assert joined == [(["a", "b"], BASE), (["a+b", "by hand"], "a+b")]
    assert one["k"] == "a+b+by hand"


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(3))
def test_random_resolvers_in_a_ring_come_to_rest(
    replicas: Callable[[int], list[Collection]], count: int, seed: int
) -> None:
    """All at once each takes what its neighbour had, and settles. Nobody sees the same siblings as anybody else."""
    sites = replicas(count)
    sites[0]["k"] = "base"
    meet(sites)
    for n, site in enumerate(sites):
        site["k"] = n
    dice = random.Random(seed)
    asked = 0
    before: list[set[str]] = []

    for _round in range(4 * count):
        now = [set(versions(site)) for site in sites]
        if now == before:
            break
        before = now
        for n, site in enumerate(sites):
            take(sites[n - 1], site)
        for site in sites:
            asked += Settler(site, lambda conflict: dice.random()).settle(["k"]).asked
    else:
        pytest.fail("they go on making versions of each other's")

    assert asked <= count * (count - 1)  # each call unites what the replica had not united before
    assert len({repr(site.read("k").value) for site in sites}) == 1
    assert not any(site.read("k").conflicted for site in sites)


def test_what_two_live_replicas_merged_at_different_moments_is_merged_again(
    replicas: Callable[[int], list[Collection]],
) -> None:
    """A criss-cross: one has merged a1 and b1, the other a1 and b2. Every count is counted once.

    base ─┬─► a1 ─┬─────► m (a1, b1) at one
          └─► b1 ─┴► b2 ─► m' (a1, b2) at the other
    """
    one, other, third = replicas(3)
    add = fields({"/n": counter}, default=json3)
    one["k"] = {"n": 0}
    meet([one, other, third])
    one.modify("k", lambda value: {"n": value["n"] + 1, "a": 1})
    other.modify("k", lambda value: {"n": value["n"] + 10, "b": 1})
    take(one, third)  # as it was before one settles
    take(other, one)
    Settler(one, add).settle("k")
    other.modify("k", lambda value: {**value, "n": value["n"] + 100, "b": 2})
    take(third, other)
    Settler(other, add).settle("k")
    assert (one["k"], other["k"]) == ({"n": 11, "a": 1, "b": 1}, {"n": 111, "a": 1, "b": 2})

    meet([one, other])
    outcomes = [Settler(site, add, others=[one, other]).settle("k") for site in (one, other)]
    meet([one, other, third])

    assert [outcome.resolved for outcome in outcomes] == [["k"], ["k"]]
    assert [site["k"] for site in (one, other, third)] == [{"n": 111, "a": 1, "b": 2}] * 3
    assert len({site.read("k").rev for site in (one, other, third)}) == 1


@pytest.mark.parametrize("seed", range(12))
def test_counters_are_exact_whoever_merges_what_and_when(
    replicas: Callable[[int], list[Collection]], seed: int
) -> None:
    """Two to four replicas add to one counter, take from each other and settle in random order; then they come to rest.

    Each adds a power of ten of its own, so the digits of the sum tell what was lost and what was counted twice.
    """
    dice = random.Random(seed)
    count = 2 + seed % 3
    add = fields({"/n": counter}, default=json3)
    sites = [site.store.collection("notes", resolver=add) for site in replicas(count)]
    for site in sites:
        site.store.create("notes", partitions=1)
    sites[0]["k"] = {"n": 0}
    for site in sites[1:]:
        take(sites[0], site)

    def settle(site: Collection) -> bool:
        return bool(Settler(site, add, others=[each for each in sites if each is not site], seconds=None).settle("k"))

    added = 0
    for _ in range(14):
        site, other = dice.sample(sites, 2)
        match dice.choice(["add", "add", "take", "take", "take", "settle"]):
            case "add":
                step = 10 ** len(str(added)) if added else 1
                site.modify("k", lambda value, step=step: {"n": value["n"] + step})
                added += step
            case "take":
                take(other, site)
            case "settle":
                settle(site)
    for _ in range(3):
        for site in sites:
            for other in sites:
                if site is not other:
                    take(other, site)
        settled = [settle(site) for site in sites]

    assert [site.read("k", on_conflict="raise").value for site in sites] == [{"n": added}] * count
    assert not any(settled)


def test_siblings_of_different_bases_are_merged_in_pairs(local: Store) -> None:
    """Two edited what the third had not read yet: what they share is no change of each of them."""
    notes = local["notes"]
    old = notes.put("k", {"n": 0}).context
    new = notes.put("k", {"n": 5}).context
    for value, context in (({"n": 6}, new), ({"n": 7}, new), ({"n": 100}, old)):
        notes.put("k", value, context=context)
    given: list[tuple[Any, list[Any]]] = []

    def spied(conflict: Siblings) -> Any:
        given.append((conflict.base_value["n"], sorted(sibling.value["n"] for sibling in conflict.siblings)))
        return fields({"/n": counter})(conflict)

    assert Settler(notes, spied).settle("k").resolved == ["k"]
    assert given == [(5, [6, 7]), (0, [8, 100])]
    assert notes["k"] == {"n": 108}
    assert len(notes.read("k").parents) == 3


@pytest.mark.parametrize("answer", [KEEP, DELETE])
def test_a_pair_that_is_kept_or_deleted_leaves_or_deletes_all(local: Store, answer: Any) -> None:
    """A document is never half resolved. One that is to be deleted is looked at as a whole before."""
    notes = local["notes"]
    old = notes.put("k", 0).context
    new = notes.put("k", 5).context
    for value, context in ((6, new), (7, new), (100, old)):
        notes.put("k", value, context=context)
    given: list[list[int]] = []

    outcome = Settler(notes, lambda c: given.append(sorted(s.value for s in c.siblings)) or answer).settle("k")

    if answer is KEEP:
        assert outcome.left == {"k": "kept some of them"}
        assert (given, len(notes.read("k", on_conflict="winner").siblings)) == ([[6, 7]], 3)
    else:
        assert given == [[6, 7], [6, 7, 100]]
        assert "k" not in notes


# --- what a resolver may do wrong ------------------------------------------------------------------------------------


def raises(conflict: Siblings) -> Any:
    raise ZeroDivisionError("by accident")


def exits(conflict: Siblings) -> Any:
    raise SystemExit(3)


def returns_a_set(conflict: Siblings) -> Any:
    return {1, 2}


def returns_nan(conflict: Siblings) -> Any:
    return {"n": float("nan")}


def ruins(conflict: Siblings) -> Any:
    for sibling in conflict.siblings:
        sibling.value.clear()
    return KEEP


@pytest.mark.parametrize(
    ("resolver", "reason"),
    [
        (raises, "ZeroDivisionError: by accident"),
        (exits, "SystemExit: 3"),
        (returns_a_set, "returned a set"),
        (returns_nan, "returned what cannot be stored"),
        (ruins, "kept them"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_resolver_that_fails_is_contained(local: Store, resolver: Resolver, reason: str) -> None:
    """Siblings stay, the reason is noted, the others are settled all the same, and it is not asked about it again."""
    notes = local["notes"]
    rivals(notes, "a", {"n": 1}, {"n": 2})
    rivals(notes, "b", {"n": 3}, {"n": 4})
    calls: list[str] = []

    def partly(conflict: Siblings) -> Any:
        calls.append(conflict.key)
        return "settled" if conflict.key == "b" else resolver(conflict)

    outcome = Settler(notes, partly).settle(["a", "b"])
    again = Settler(notes, partly).settle(["a", "b"])

    assert outcome.resolved == ["b"]
    assert outcome.left["a"].startswith(reason)
    assert (again.resolved, again.left, again.asked) == ([], outcome.left, 0)
    assert calls == ["a", "b"]
    document = notes.read("a", on_conflict="winner")
    assert sorted(sibling.value["n"] for sibling in document.siblings) == [1, 2]
    [why] = notes.unsettled(document)
    assert why.reason.startswith(reason)
    assert (why.tries, why.resolver) == (1, identity(partly))


def test_a_resolver_that_never_returns_is_left_alone_and_asked_nothing_else(local: Store) -> None:
    """One thread hangs, and no second one is begun, by another settler of the process neither."""
    notes = local["notes"]
    for key in "abc":
        rivals(notes, key, 1, 2)
    enough = threading.Event()
    begun: list[str] = []

    def hangs(conflict: Siblings) -> Any:
        begun.append(conflict.key)
        enough.wait(60)
        return 3

    try:
        outcome = Settler(notes, hangs, seconds=0.05).settle("ab")
        later = Settler(notes, hangs, seconds=0.05).settle("c")
        assert outcome.left == {
            "a": "took longer than 0.05 s",
            "b": "not asked: it is still busy with 'a', which takes longer than 0.05 s",
        }
        assert later.left["c"].startswith("not asked: it is still busy with 'a'")
        assert begun == ["a"]
        assert {key: tries for key, [tries] in noted(notes, "tries").items()} == {"a": 1, "b": 0, "c": 0}
    finally:
        enough.set()
        for thread in threading.enumerate():
            if thread.name == f"resolver {identity(hangs)}":
                thread.join()

    assert Settler(notes, hangs).settle("abc").resolved == ["b", "c"]  # and of a it is too early to ask again
    assert notes.read("a", on_conflict="winner").conflicted


def noted(notes: Collection, name: str) -> dict[str, list[Any]]:
    """One column of the notes, by key."""
    handle = notes.store.handle(notes.name)
    assert handle is not None
    return {key: [getattr(each, name) for each in found] for key, found in unsettled(handle).items()}


def test_it_is_asked_again_when_siblings_or_resolver_have_changed_or_time_has_passed(notes: Collection) -> None:
    """And each time it fails, the pause is twice as long."""
    clock = Clock()
    calls: list[int] = []

    class Stubborn:
        version = 1

        def __call__(self, conflict: Siblings, /) -> Any:
            calls.append(len(conflict.siblings))
            return KEEP

    stubborn = Stubborn()

    def asked() -> int:
        return Settler(notes, stubborn, now_us=clock).settle(["k"]).asked

    rivals(notes, "k", 1, 2)
    assert [asked(), asked()] == [1, 0]
    notes.put("k", 3, context=first_seen(notes))
    assert [asked(), asked()] == [1, 0]
    stubborn.version = 2
    assert [asked(), asked()] == [1, 0]
    assert noted(notes, "tries") == {"k": [1]}
    clock.us += 60_000_000
    assert [asked(), asked()] == [1, 0]
    clock.us += 60_000_000
    assert asked() == 0
    clock.us += 60_000_000
    assert asked() == 1
    assert calls == [2, 3, 3, 3, 3]
    assert noted(notes, "tries") == {"k": [3]}


def test_what_is_settled_is_noted_no_more(notes: Collection) -> None:
    """By the resolver itself, by resolve(), or by anybody's put, of which the background hears."""
    for key in "abc":
        rivals(notes, key, 1, 2)
    Settler(notes, raises).settle("abc")
    assert sorted(noted(notes, "reason")) == ["a", "b", "c"]

    Settler(notes, winner).settle("a")
    notes.resolve("b", "by hand")
    notes["c"] = "by somebody who knows of nothing"

    assert sorted(noted(notes, "reason")) == ["c"]
    assert notes.unsettled(notes.read("c")) == []
    Settler(notes, winner).background()
    assert noted(notes, "reason") == {}


def test_a_document_that_changes_while_the_resolver_thinks_is_looked_at_again(notes: Collection) -> None:
    """What it decided about is not what is there; the newcomer is not lost."""
    rivals(notes, "k", 1, 2)
    calls: list[list[int]] = []

    def slow(conflict: Siblings) -> Any:
        calls.append(sorted(sibling.value for sibling in conflict.siblings))
        if len(calls) == 1:
            notes.put("k", 3, context=first_seen(notes))
        return sum(calls[-1])

    assert Settler(notes, slow, seconds=None).settle(["k"]).resolved == ["k"]
    assert notes["k"] == 6
    assert calls == [[1, 2], [1, 2, 3]]


def test_a_merge_is_marked_and_what_a_person_wrote_is_not(notes: Collection) -> None:
    """By resolve() as by a settler; a value that is given is nobody's merge. A tombstone may be one."""
    for key in "abcd":
        rivals(notes, key, 1, 2)

    Settler(notes, last_write).settle("a")
    notes.resolve("b", last_write)
    notes.resolve("c", 3)
    Settler(notes, lambda conflict: DELETE).settle("d")

    kinds = {key: [each.kind for each in versions(notes, key).values() if each.kind] for key in "abcd"}
    assert kinds["a"] == kinds["b"] == ["merge:last_write"]
    assert kinds["c"] == []
    assert kinds["d"] == [f"merge:{identity(lambda conflict: DELETE)}"]
    assert "d" not in notes


def test_the_mark_travels(replicas: Callable[[int], list[Collection]]) -> None:
    """It is a part of the version."""
    one, other = replicas(2)
    rivals(one, "k", 1, 2)
    Settler(one, winner).settle("k")

    sync(one, other)

    assert [each.kind for each in versions(other).values() if each.kind] == ["merge:winner"]


# --- the base --------------------------------------------------------------------------------------------------------


def test_a_base_that_is_not_here_is_taken_from_another_replica(replicas: Callable[[int], list[Collection]]) -> None:
    """A replica that took heads only does not know what they come from. Alone it leaves them, and says why."""
    one, other = replicas(2)
    rivals(one, "k", {"n": 7}, {"n": 8}, base={"n": 5})
    sync(one, other)
    add = fields({"/n": counter}, default=json3)

    alone = Settler(other, add).settle("k")
    helped = Settler(other, add, others=[one]).settle("k")

    assert "their common ancestor 1-" in alone.left["k"]
    assert (alone.asked, alone.resolved) == (0, [])
    assert helped.resolved == ["k"]
    assert other["k"] == {"n": 10}
    assert noted(other, "reason") == {}


def test_another_replica_that_is_away_does_not_stop_the_rest(
    replicas: Callable[[int], list[Collection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document whose base it has is left; the others are settled."""
    one, other = replicas(2)
    rivals(one, "k", {"n": 7}, {"n": 8}, base={"n": 5})
    sync(one, other)
    rivals(other, "mine", {"n": 1}, {"m": 1}, base={})

    def gone(*_: Any) -> Any:
        raise vstore.Unavailable("the other one does not answer")

    for name in ("ask", "read", "snapshot"):
        monkeypatch.setattr(one.store.shards[0].database, name, gone)

    outcome = Settler(other, json3, others=[one]).settle(["k", "mine"])

    assert outcome.resolved == ["mine"]
    assert "their common ancestor" in outcome.left["k"]


def test_readers_and_writers_are_not_shown_a_guess(replicas: Callable[[int], list[Collection]]) -> None:
    """Where the base is not here a counter would count from 0, and who goes on from there would make it last.

    resolve() is told to decide with what there is.
    """
    one, other = replicas(2)
    rivals(one, "k", {"n": 7}, {"n": 8}, base={"n": 5})
    sync(one, other)
    add = fields({"/n": counter}, default=json3)
    adding = other.store.collection("notes", resolver=add)

    for refused in (
        lambda: adding["k"],
        lambda: dict(adding.items()),
        lambda: adding.modify("k", lambda value: {"n": value["n"] + 1}),
    ):
        with pytest.raises(vstore.Conflict):
            refused()
    assert one.store.collection("notes", resolver=add)["k"] == {"n": 10}
    assert other.resolve("k", add).value == {"n": 15}


def test_a_resolver_that_needs_no_base_settles_without(replicas: Callable[[int], list[Collection]]) -> None:
    """As winner and last_write; a function of one's own says so."""
    one, other = replicas(2)
    for key in "ab":
        rivals(one, key, 7, 8)
    sync(one, other)

    def largest(conflict: Siblings) -> Any:
        return max(sibling.value for sibling in conflict.siblings)

    largest.needs_base = False  # type: ignore[attr-defined]

    assert Settler(other, last_write).settle("a").resolved == ["a"]
    assert Settler(other, largest).settle("b").resolved == ["b"]
    assert (other["a"], other["b"]) == (8, 8)


# --- in the background -----------------------------------------------------------------------------------------------


def test_one_process_at_a_time_works_in_the_background(notes: Collection) -> None:
    """The other says who it is, and leaves everything to it. A lease that was given back is free."""
    rivals(notes, "k", 1, 2)
    handle = notes.store.handle(notes.name)
    assert handle is not None
    settler = Settler(notes, winner)
    theirs = Lease(f"settle:{handle.uid}:winner", holder="elsewhere/1/x")
    theirs.fence(handle.shards[0])

    refused = settler.background()
    theirs.release()
    done = settler.background()
    idle = settler.background()

    assert "elsewhere/1/x" in refused.elsewhere
    assert (refused.resolved, done.resolved, done.elsewhere) == ([], ["k"], "")
    assert (idle.resolved, idle.left) == ([], {})


def test_the_background_stops_when_it_is_told(local: Store) -> None:
    """After the document under way."""
    notes = local["notes"]
    for key in "abc":
        rivals(notes, key, 1, 2)
    stop = threading.Event()

    def last(conflict: Siblings) -> Any:
        stop.set()
        return 3

    assert Settler(notes, last).background(stop).resolved == ["a"]


def test_a_view_settles_its_own(local: Store) -> None:
    """Keys are those of the view; the rest of the collection stays as it is."""
    notes = local["notes"]
    for key in ("a/1", "a/2", "b/1"):
        rivals(notes, key, 1, 2)

    outcome = Settler(notes.prefixed("a/"), winner).background()

    assert outcome.resolved == ["1", "2"]
    assert [document.key for document in notes.conflicts()] == ["b/1"]


def test_a_pass_over_conflicts_costs_what_there_are_of_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three among ten documents and among 10,000: the same statements."""
    monkeypatch.setattr("vstore.store.DEFINITION_SECONDS", 600)  # else a slow machine reads the definition once more
    sent: list[str] = []
    costs = {}

    def spied(name: str) -> Any:
        plain = getattr(Connection, name)

        def method(self: Connection, statement: Statement, params: Sequence[Any] = ()) -> Any:
            sent.append(statement.name)
            return plain(self, statement, params)

        return method

    for count in (10, 10_000):
        notes = store[f"of {count}"]
        notes.put_many({f"calm {n:05}": n for n in range(count)})
        for key in ("a", "calm 00005 too", "z"):
            rivals(notes, key, {"a": 1}, {"b": 1}, base={})
        store.handle(notes.name)
        with monkeypatch.context() as spying:
            for name in ("rows", "run", "run_many"):
                spying.setattr(Connection, name, spied(name))
            listed = [document.key for document in notes.conflicts()]
            outcome = Settler(notes, json3).background()
        assert listed == ["a", "calm 00005 too", "z"]
        assert outcome.resolved == listed
        costs[count] = sorted(sent)
        sent.clear()

    assert costs[10] == costs[10_000]
    assert len(costs[10_000]) < 80


# --- laws ------------------------------------------------------------------------------------------------------------

some_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.tuples(some_json, st.integers(0, 3)), min_size=2, max_size=3), st.none() | some_json)
def test_the_same_siblings_in_any_order_give_the_same_bytes(siblings: list[tuple[Any, int]], base: Any) -> None:
    """Every built-in resolver that answers; and one of one's own that looks at the first."""
    codec = JsonCodec(10_000)
    ancestor = None if base is None else Sibling("1-00", base, False, 0)
    given_siblings = [Sibling(f"2-{n:02x}", value, False, stamp) for n, (value, stamp) in enumerate(siblings)]
    for resolver in (winner, last_write, json3, fields({"/a": counter}), lambda conflict: conflict.siblings[0].value):
        answers = set()
        for order in permutations(given_siblings):
            answer = decide(resolver, Siblings("k", order, ancestor))
            answers.add(b"keep" if answer is KEEP else codec.encode(answer)[1])
        assert len(answers) == 1
