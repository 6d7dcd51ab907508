"""Clocks grow with the actors that have written a document: that is said in time, and ends at a limit with an error."""

from __future__ import annotations

import logging

import pytest

from tests.replication.links import handle_of, pulled
from vstore import ClockTooLong, Context, Store
from vstore.batch import Put
from vstore.clock import LONG, MAX_ENTRIES, Clock
from vstore.shard import Request


def seen(key: str, entries: int) -> Context:
    """What somebody has seen who read a document after so many actors had written it."""
    return Context(key, Clock({f"{n:016x}": 1 for n in range(entries)}))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of long clocks."""
    return [each.getMessage() for each in caplog.records if "entries" in each.getMessage()]


def longest(store: Store) -> int:
    """The entries of the longest clock, as `stats` counts them."""
    return int(store.stats()["notes"]["longest_clock"])


def test_a_write_whose_clock_would_be_too_long_is_refused_and_nothing_is_written(store: Store) -> None:
    """The document stays as it was, and so do all others; a clock is never shortened instead."""
    notes = store["notes"]
    notes.put("k", 1, context=seen("k", MAX_ENTRIES - 1))
    before = notes.read("k")

    with pytest.raises(ClockTooLong, match=r"1,001 entries, and 1,000 are the most. Nothing was written"):
        notes["k"] = 2  # it has seen the entries before and the dot of that
    with pytest.raises(ClockTooLong):
        notes.put_many({"a": 1, "k": 2})
    notes["b"] = 3

    assert notes.read("k") == before
    assert before.context.seen.vector.keys() > seen("k", MAX_ENTRIES - 1).seen.vector.keys()
    assert dict(notes) == {"k": 1, "b": 3}
    assert longest(store) == MAX_ENTRIES - 1
    assert list(store.check()) == []


def test_a_refused_write_does_not_take_those_beside_it_down(local: Store) -> None:
    """Writes that wait share a transaction; one of them is refused in it, and the others are made without it."""
    notes = local["notes"]
    notes.put("k", 1, context=seen("k", MAX_ENTRIES - 1))
    shard, definition, _part = handle_of(local).place("k")
    works = [notes_put(local, key) for key in ("a", "k", "b")]
    with shard._writer:  # so all of them wait for one place
        requests = [Request(definition, [work], {}, True) for work in works]
        shard._queue += requests
        shard._commit(shard._next_group())

    assert [type(request.error) for request in requests] == [type(None), ClockTooLong, type(None)]
    assert dict(notes) == {"k": 1, "a": 0, "b": 0}


def test_deleting_is_never_refused_and_after_a_purge_the_clock_is_empty_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out that the error names, for a document that twenty actors have written."""
    monkeypatch.setattr("vstore.shard.LONG", 8)
    monkeypatch.setattr("vstore.shard.MAX_ENTRIES", 20)
    notes = store["notes"]
    notes["k"] = 0
    shard, definition, part = handle_of(store).place("k")
    for n in range(1, 20):
        shard.renew_actors(definition, [part])
        notes["k"] = n
    shard.renew_actors(definition, [part])
    with pytest.raises(ClockTooLong, match="21 entries, and 20 are the most"):
        notes["k"] = 20
    before = dict(notes), longest(store)

    del notes["k"]
    with pytest.raises(ClockTooLong):
        notes["k"] = 20  # it would have seen what the tombstone has seen
    purged = notes.purge(grace_days=0)
    notes["k"] = 20

    assert before == ({"k": 19}, 19)
    assert purged.purged == 1
    assert longest(store) == 0
    assert dict(notes) == {"k": 20}
    assert list(store.check()) == []


def test_a_long_clock_is_said_once_for_each_doubling(local: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Not at each write: of a hundred documents with such a clock one is named."""
    caplog.set_level(logging.WARNING, logger="vstore")
    notes = local["notes"]

    notes.put("short", 1, context=seen("short", LONG - 1))  # and its dot
    before = warnings(caplog)
    for n in range(20):
        notes.put(f"k{n}", 1, context=seen(f"k{n}", LONG + n))
    notes["k0"] = 2
    once = warnings(caplog)
    notes.put("longer", 1, context=seen("longer", 2 * LONG + 3))
    local["others"].put("k", 1, context=seen("k", LONG))

    assert before == []
    assert ["the clock of 'k0' in 'notes' has 33 entries" in each for each in once] == [True]
    assert ["'longer'" in each for each in warnings(caplog)] == [False, True, False]
    assert "in 'others'" in warnings(caplog)[2]


def test_stats_count_the_actors_that_each_partition_knows(store: Store, local: Store) -> None:
    """Its own, those that it had before, and those of others, each by itself in each partition that it wrote in."""
    for each in (store, local):
        each.create("notes", partitions=2)
    store["notes"].put_many({"a": 1, "b": 2, "c": 3, "d": 4})
    handle = handle_of(store)
    alone = store.stats()["notes"]["actors"]
    handle.shards[0].renew_actors(handle.definitions[0], [0, 1])
    unused = store.stats()["notes"]["actors"]
    store["notes"]["a"] = 5
    renewed = store.stats()["notes"]["actors"]
    pulled(store, local)
    local["notes"]["a"] = 6
    pulled(local, store)

    assert (alone, unused, renewed) == (2, 2, 3)
    assert [each.stats()["notes"]["actors"] for each in (store, local)] == [4, 4]


def notes_put(store: Store, key: str) -> Put:
    """A put as a shard gets it."""
    _shard, _definition, part = handle_of(store).place(key)
    return Put(key, part, store["notes"].content(0))
