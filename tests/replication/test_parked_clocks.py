"""Rows whose clock is too long for the target: put aside with the reason, like any that it cannot take."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import replication.parked
import vstore
from replication.parked import parked
from replication.pull import Pulled
from tests.replication.links import handle_of, pulled
from vstore import ClockTooLong, Context, Store
from vstore.clock import Clock

Pair = tuple[Store, Store]


@pytest.fixture
def pair(url: str, fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A source on SQLite, and a target on each kind of database in turn; what is parked is tried again at once."""
    monkeypatch.setattr(replication.parked, "RETRY_SECONDS", 0.0)
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(url) as target:
        for store in (source, target):
            store.create("notes", partitions=2)
        yield source, target


def write_by_many(store: Store, key: str, actors: int) -> None:
    """Writes a document again and again, each time as a new actor."""
    shard, definition, part = handle_of(store).place(key)
    for n in range(actors):
        shard.renew_actors(definition, [part])
        store["notes"][key] = n


def test_a_row_whose_clock_is_too_long_is_parked_and_the_rest_goes_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target allows less than the source, as another release might. Once it allows as much the row is taken."""
    source, target = pair
    source["notes"].put_many({f"k{n}": n for n in range(30)})
    write_by_many(source, "long", 11)
    with monkeypatch.context() as there:
        there.setattr("vstore.shard.LONG", 8)
        there.setattr("vstore.receiving.LONG", 8)
        there.setattr("vstore.shard.MAX_ENTRIES", 10)
        report = pulled(source, target)
        [each] = parked(handle_of(target))
        again = pulled(source, target)
    shown = dict(target["notes"])

    last = pulled(source, target)

    assert (report.new, report.parked, again.new) == (30 + 10, 1, 0)  # with stubs of the versions below it
    assert (each.key, "11 entries, and 10 are the most" in each.reason) == ("long", True)
    assert shown == {f"k{n}": n for n in range(30)}
    assert (last.new, parked(handle_of(target))) == (1, [])
    assert dict(target["notes"]) == dict(source["notes"])
    assert pulled(source, target) == Pulled()
    assert list(target.check()) == []


def test_deleted_and_purged_at_both_ends_it_begins_anew(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out that the reason names: the tombstone is taken, whatever its clock."""
    source, target = pair
    write_by_many(source, "long", 11)
    for module in ("shard", "receiving"):
        monkeypatch.setattr(f"vstore.{module}.LONG", 8)
    monkeypatch.setattr("vstore.shard.MAX_ENTRIES", 10)
    pulled(source, target)
    waiting = [each.key for each in parked(handle_of(target))]
    with pytest.raises(ClockTooLong):
        source["notes"]["long"] = "more"

    del source["notes"]["long"]
    pulled(source, target)
    left = parked(handle_of(target))
    pulled(target, source)
    purged = [store["notes"].purge(grace_days=0).purged for store in pair]
    source["notes"]["long"] = "anew"
    pulled(source, target)

    assert (waiting, left) == (["long"], [])
    assert purged == [1, 1]
    assert dict(source["notes"]) == dict(target["notes"]) == {"long": "anew"}
    assert [list(store.check()) for store in pair] == [[], []]


def test_what_is_here_and_would_grow_too_long_is_left_as_it_is(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same edit was made at both by writers who had seen different things; what they saw together is too much."""
    here, there = pair
    here["notes"]["k"] = 1
    pulled(here, there)
    root = here["notes"].read("k")
    for store, first in ((here, 0), (there, 100)):
        seen = Clock({f"{n:016x}": 1 for n in range(first, first + 10)})
        store["notes"].put("k", 2, context=Context("k", root.context.seen | seen, root.context.revs))
    before = here["notes"].read("k")
    with monkeypatch.context() as low:
        low.setattr("vstore.receiving.LONG", 8)
        low.setattr("vstore.shard.MAX_ENTRIES", 20)
        report = pulled(there, here)
    kept = here["notes"].read("k")

    pulled(there, here)

    assert report.parked == 1
    assert kept == before
    grown = here["notes"].read("k")
    assert (grown.rev, len(grown.context.seen.vector)) == (before.rev, 22)
    assert [list(store.check()) for store in pair] == [[], []]
