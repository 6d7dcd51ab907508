"""Partitions in which little has changed are read and written together, and each keeps its own place in its feed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import replication.batches
import replication.feed
import vstore
from replication import Filter, sync
from replication.pull import Progress, pull
from tests.replication.links import handle_of
from tests.replication.states import heads_of, knowledge_of
from vstore import Store
from vstore.partition import part_of
from vstore.sql.database import Connection

PARTS = 16


@pytest.mark.parametrize("seed", range(6))
def test_a_pull_that_is_cut_anywhere_claims_no_more_than_it_has(
    fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Pages end for their rows, for their bytes and at partitions; a stop comes after any batch.

    Whatever the target then says that it knows of a partition as a whole, it has.
    """
    _pull_in_pieces(fresh_url, monkeypatch, seed)


def test_the_schedules_find_a_claim_that_comes_too_early(
    fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a page that claims all partitions it began with, and not those that it ended, they fail."""
    monkeypatch.setattr(replication.feed, "_ended", lambda spans, _last: list(spans))

    with pytest.raises(AssertionError, match="claimed and not there"):
        for seed in range(6):
            _pull_in_pieces(fresh_url, monkeypatch, seed)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_a_change_in_every_partition_costs_few_statements(
    fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """All 64 partitions, one document each: read at once, and written in one transaction."""
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(fresh_url(kind)) as target:
        source["notes"].put_many({f"k{n}": n for n in range(600)})
        for _ in range(3):
            sync(source, target)
        keys = {part_of(f"k{n}", 64): f"k{n}" for n in range(600)}
        source["notes"].put_many(dict.fromkeys(keys.values(), "changed"))
        asked: Counter[str] = Counter()
        for name in ("rows", "run", "run_many", "text"):
            monkeypatch.setattr(Connection, name, _counted(getattr(Connection, name), asked))

        moved = pull(handle_of(source), handle_of(target))

        assert (len(keys), moved.rows, moved.new) == (64, 64, 64)
        assert max(asked.values()) < 70, asked


def test_a_feed_that_is_another_one_meanwhile_keeps_up_only_its_partition(
    fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of many partitions gets a new actor after the handshake: the others are read, and then this one anew."""
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(fresh_url("sqlite")) as target:
        source.create("notes", partitions=PARTS).put_many({f"k{n}": n for n in range(100)})
        there = handle_of(source)
        pages = replication.feed.Feed.pages
        renewed = []

        def renewing(self: replication.feed.Feed, *given: Any) -> Any:
            if not renewed:
                renewed.append(there.shards[0].renew_actors(there.definitions[0], [3]))
            return pages(self, *given)

        monkeypatch.setattr(replication.feed.Feed, "pages", renewing)

        sync(source["notes"], target["notes"])

        assert len(renewed) == 1
        assert heads_of(target) == heads_of(source)
        assert knowledge_of(target) == knowledge_of(source)


def test_a_range_of_keys_of_many_partitions_is_read_together(fresh_url: Callable[[str], str]) -> None:
    """A filter by prefix takes what it wants from each of them; then what was changed and what was purged."""
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(fresh_url("sqlite")) as target:
        notes = source.create("notes", partitions=PARTS)
        notes.put_many({f"{side}/{n}": n for n in range(40) for side in "ab"})
        sync(source, target, filter=Filter(prefix="a/"))
        notes.put_many({f"{side}/{n}": -n for n in range(0, 40, 2) for side in "ab"})
        del notes["a/1"]

        sync(source, target, filter=Filter(prefix="a/"))

        assert dict(target["notes"]) == {f"a/{n}": -n if n % 2 == 0 else n for n in range(40) if n != 1}


def _check_claims(source: Store, target: Store, where: str) -> None:
    theirs, ours = knowledge_of(source), knowledge_of(target)
    held, wanted = heads_of(target), heads_of(source)
    for key, heads in wanted.items():
        place = "notes", part_of(key, PARTS)
        if set(theirs[place]) <= set(ours[place]):
            assert held.get(key) == heads, f"{where}: {key} is claimed and not there"


def _pull_in_pieces(fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(replication.feed, "FIRST_ROWS", chance.choice([1, 8, 40]))
    monkeypatch.setattr(replication.feed, "PAGE_ROWS", chance.choice([8, 40, 1000]))
    monkeypatch.setattr(replication.feed, "PAGE_BYTES", chance.choice([1, 500, 3_000, 1 << 20]))
    monkeypatch.setattr(replication.batches, "PAGE_ROWS", chance.choice([8, 40, 1000]))
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(fresh_url("sqlite")) as target:
        notes = source.create("notes", partitions=PARTS)
        target.create("notes", partitions=PARTS)
        for round_ in range(6):
            for _ in range(chance.choice([5, 60])):
                key = f"k{chance.randrange(80)}"
                if chance.random() < 0.2 and key in notes:
                    del notes[key]
                else:
                    notes[key] = {"n": chance.random(), "text": "x" * chance.randrange(200)}
            stop = threading.Event()
            pull(handle_of(source), handle_of(target), stop=stop, on_batch=_after(chance.randrange(1, 5), stop))
            _check_claims(source, target, f"seed {seed}, round {round_}")

        pull(handle_of(source), handle_of(target))

        assert heads_of(target) == heads_of(source)
        again = pull(handle_of(source), handle_of(target))
        assert (again.compared, again.rows) == (0, 0)


def _after(batches: int, stop: threading.Event) -> Callable[[Progress], None]:
    """Sets the event after so many batches."""
    left = iter(range(batches - 1))

    def told(_progress: Progress) -> None:
        if next(left, None) is None:
            stop.set()

    return told


def _counted(run: Callable[..., Any], asked: Counter[str]) -> Callable[..., Any]:
    def counted(connection: Connection, *given: Any) -> Any:
        asked[connection._database.name] += 1
        return run(connection, *given)

    return counted
