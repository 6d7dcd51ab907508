"""Snapshot scans are exact: whatever is written while they read, they give what was there when they began.

A scan reads a chunk at a time and holds nothing in between, so a test that takes
a few documents, writes, and takes the rest has chosen the interleaving. Inside of
a chunk the writes come between two queries. The oracle knows nothing of scans,
clocks or heads: of the version rows up to a position, those that are nobody's
parent are what was there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import pytest

import vstore
from tests.lives import LIVES
from vstore import Collection, Context, Document, NotFound, Snapshot, Store, scan
from vstore.handle import partition_of, seq_of
from vstore.reading import Reading
from vstore.scan import HeadsAt
from vstore.slices import Slice
from vstore.sql import statements as sql
from vstore.sql.database import Connection
from vstore.sql.rows import version_of
from vstore.sql.statements import Statement

SEED = 20261122
KEYS = ["a", "b", "c", "d", "e", "f", "deleted", "never"]
CHUNK_ROWS = 2
QUERIES = 25
"""In the middle of how many of a scan's queries something happens; as rivals pile up, scans get longer than that."""

State = dict[str, list[str]]
"""The live values of each key, sorted; equal siblings once."""


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few documents cross many chunks."""
    monkeypatch.setattr(scan, "CHUNK_ROWS", CHUNK_ROWS)


@pytest.fixture(params=["by id", "by key"])
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What to read, in each of the two orders: all by id, and a range by key."""
    if request.param == "by id":
        return {}
    monkeypatch.setattr(scan, "BY_KEY_COST", 1)
    return {"start": "a", "end": "f"}


def within(state: State, bounds: dict[str, str]) -> State:
    """The keys of a range."""
    return {key: values for key, values in state.items() if not bounds or bounds["start"] <= key < bounds["end"]}


# --- the oracle ------------------------------------------------------------------------------------------------------


def there(store: Store, positions: dict[int, int] | None = None) -> State:
    """What a store of one collection held when its partitions were at these seqs; None is now."""
    revs: dict[str, dict[str, tuple[tuple[str, ...], str | None]]] = {}
    for shard in store.shards:
        for _collection, key, body, *lineage in shard.database.ask(sql.ROWS_BY_ID, (0, 1 << 62, 1_000_000)):
            version = version_of(lineage, body)
            if positions is None or seq_of(version.id) <= positions[partition_of(version.id)]:
                value = None if version.deleted else json.loads(bytes(body))
                revs.setdefault(key, {})[version.rev] = version.parents, value
    found = {}
    for key, versions in revs.items():
        replaced = {parent for parents, _value in versions.values() for parent in parents}
        live = {value for rev, (_parents, value) in versions.items() if rev not in replaced and value is not None}
        if live:
            found[key] = sorted(live)
    return found


def positions_of(snapshot: Snapshot) -> dict[int, int]:
    """The seq of each partition that a snapshot was taken at."""
    return {partition: seq for _database, part in snapshot._parts for partition, seq in part.positions.items()}


def positions_of_slice(part: Slice) -> dict[int, int]:
    """The same of a slice."""
    assert isinstance(part.part, HeadsAt)
    return dict(part.part.positions)


# --- what is compared with it ----------------------------------------------------------------------------------------


def all_of(document: Document) -> list[str]:
    """For `settle`: every sibling."""
    return sorted(sibling.value for sibling in document.siblings)


def state(rows: Iterable[tuple[str, Any]]) -> State:
    """What a scan gave. No key may come twice."""
    found: State = {}
    for key, value in rows:
        assert key not in found, f"{key!r} came twice"
        found[key] = value if isinstance(value, list) else [value]
    return found


# --- what happens meanwhile ------------------------------------------------------------------------------------------

_numbers = itertools.count()


def put(posts: Collection, key: str) -> None:
    """Supersedes all that is there: it settles rivals, and brings back what was deleted."""
    posts[key] = f"put {next(_numbers)}"


def delete(posts: Collection, key: str) -> None:
    """Leaves a tombstone, if there is anything."""
    with contextlib.suppress(NotFound):
        posts.delete(key)


def delete_and_create(posts: Collection, key: str) -> None:
    """A key that is there before and after, and was not in between."""
    delete(posts, key)
    put(posts, key)


def rival(posts: Collection, key: str) -> None:
    """Somebody who had seen nothing writes: a sibling."""
    posts.put(key, f"rival {next(_numbers)}", context=Context(key))


CHANGES: list[Callable[[Collection, str], None]] = [put, delete, delete_and_create, rival]


def settled(store: Store, partitions: int = 2) -> Collection:
    """A collection with six documents, of which two have rivals far behind them in storage order, and a tombstone."""
    posts = store.create("posts", partitions=partitions)
    for key in KEYS[:-1]:
        put(posts, key)
    posts.delete("deleted")
    rival(posts, "a")
    rival(posts, "d")
    return posts


@pytest.mark.parametrize("partitions", [1, 4])
def test_what_is_written_between_chunks_is_not_in_the_scan(
    store: Store, partitions: int, bounds: dict[str, str]
) -> None:
    """After any number of documents were taken, any key is put, deleted, made again or gets a rival; then the rest."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    posts = settled(store, partitions)
    cases = list(itertools.product(CHANGES, KEYS, range(len(KEYS))))

    for change, key, taken in chance.sample(cases, 100):
        expected = within(there(store), bounds)
        snapshot = posts.snapshot(**bounds)
        rows = snapshot.rows(settle=all_of)
        assert snapshot._chosen()[0][1].by_key == bool(bounds)
        first = list(itertools.islice(rows, taken))
        change(posts, key)

        assert state(itertools.chain(first, rows)) == expected, f"{change.__name__} {key!r} after {taken} documents"


class Meanwhile:
    """Lets something happen in the middle of a scan, right after its n-th query."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Counts the queries of every connection."""
        self._left = 0
        self._happen: Callable[[], object] = int
        ask = Connection.rows

        def rows(connection: Connection, statement: Statement, params: Sequence[Any] = ()) -> list[Any]:
            found = ask(connection, statement, params)
            self._left -= 1
            if self._left == 0:
                self._happen()
            return found

        monkeypatch.setattr(Connection, "rows", rows)

    def scan(self, snapshot: Snapshot, query: int, happen: Callable[[], object]) -> State | None:
        """What a snapshot gives; None if it takes fewer queries than that."""
        self._left, self._happen = query, happen
        found = state(snapshot.rows(settle=all_of))
        happened = self._left <= 0
        self._left = 0
        return found if happened else None

    def read(self, part: Slice, reading: Reading, query: int, happen: Callable[[], object]) -> dict[str, Any]:
        """What a slice gives; if it takes fewer queries than that, nothing happens."""
        self._left, self._happen = query, happen
        pairs = [pair for batch in part.batches(reading) for pair in batch]
        self._left = 0
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)


def test_what_is_written_inside_of_a_chunk_is_not_in_the_scan(
    store: Store, monkeypatch: pytest.MonkeyPatch, bounds: dict[str, str]
) -> None:
    """A change of any kind right after each query of the scan: of positions, of changes, of rows, of siblings."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    posts = settled(store)
    meanwhile = Meanwhile(monkeypatch)

    for change in CHANGES * 2:
        for query in range(1, QUERIES):
            key, expected = chance.choice(KEYS), within(there(store), bounds)
            found = meanwhile.scan(posts.snapshot(**bounds), query, partial(change, posts, key))
            if found is None:
                break

            assert found == expected, f"{change.__name__} {key!r} after query {query}"
        assert query > 6  # several chunks


@pytest.mark.parametrize(
    "kind", [pytest.param("postgresql", marks=pytest.mark.postgres), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_a_scan_inside_of_a_transaction_is_exact_too(
    kind: str, fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, bounds: dict[str, str]
) -> None:
    """Queries of a write transaction see what others commit in between, so the order of the queries has to do it."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    url = fresh_url(kind)
    with vstore.open(url) as store, vstore.open(url) as other:
        posts = settled(store)
        meanwhile = Meanwhile(monkeypatch)
        for change in CHANGES * 2:
            for query in range(1, QUERIES):
                key, expected = chance.choice(KEYS), within(there(store), bounds)
                with store.transaction():
                    found = meanwhile.scan(posts.snapshot(**bounds), query, partial(change, other["posts"], key))
                if found is None:
                    break

                assert found == expected, f"{change.__name__} {key!r} after query {query}"
            assert query > 6  # several chunks


def test_slices_are_exact_however_their_reader_wants_them(
    store: Store, monkeypatch: pytest.MonkeyPatch, bounds: dict[str, str]
) -> None:
    """With versions, and with a hint of what to leave out, which leaves out nothing that holds it."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    posts = settled(store)
    meanwhile = Meanwhile(monkeypatch)

    for change in CHANGES:
        for query in range(1, QUERIES):
            key, expected = chance.choice(KEYS), within(there(store), bounds)
            [part] = posts.snapshot(**bounds).slices(1)
            hinted = posts.snapshot(**bounds).slices(1)[0]

            versions = meanwhile.read(part, Reading(versions=True), query, partial(change, posts, key))
            assert {key: all_of(document) for key, document in versions.items()} == expected, f"after query {query}"

            expected = within(there(store, positions_of_slice(hinted)), bounds)
            some = meanwhile.read(hinted, Reading(holding=((b"rival",),)), query, partial(change, posts, key))
            assert {key for key, values in expected.items() if any("rival" in value for value in values)} <= some.keys()
            assert all(value in expected[key] for key, value in some.items()), f"after query {query}"


def test_rivals_whose_heads_are_in_different_chunks_come_once(store: Store) -> None:
    """Three heads of one key, in the first, the middle and the last chunk; settled after each number of documents."""
    posts = store.create("posts", partitions=1)
    for taken in range(8):
        posts.clear()
        for key in ["k", "b", "c", "d", "e", "f", "g"]:
            posts[key] = key
            if key in "dg":
                posts.put("k", f"k beside {key}", context=Context("k"))
        rows = posts.snapshot().rows(settle=all_of)
        first = list(itertools.islice(rows, taken))
        posts["k"] = "settled"

        found = state(itertools.chain(first, rows))

        assert found.pop("k") == ["k", "k beside d", "k beside g"]
        assert found == {"b": ["b"], "c": ["c"], "d": ["d"], "e": ["e"], "f": ["f"], "g": ["g"]}


def test_items_of_a_prefix_are_those_of_when_the_iteration_began(store: Store) -> None:
    """In a view of some keys: one is changed, one deleted, one made; the same happens to keys outside of it."""
    posts = store.create("posts", partitions=4)
    posts.put_many({f"{year}/{n}": n for year in (2025, 2026) for n in range(6)})
    view = posts.prefixed("2026/")

    items, keys = iter(view.items()), iter(view.snapshot())
    first, first_key = [next(items)], [next(keys)]
    for year in (2025, 2026):
        for n in range(6):
            posts[f"{year}/{n}"] = "later"
        posts.delete(f"{year}/3")
        posts[f"{year}/new"] = "later"

    assert dict(first + list(items)) == {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "5": 5}
    assert sorted(first_key + list(keys)) == ["0", "1", "2", "3", "4", "5"]
    assert dict(view.items()) == {
        "0": "later", "1": "later", "2": "later", "4": "later", "5": "later", "new": "later"
    }  # fmt: skip


def test_a_snapshot_reads_single_documents_as_they_were(store: Store) -> None:
    """Long after: a changed, a deleted, a settled and a new document, each by its key."""
    posts = store.create("posts", partitions=2)
    posts.put_many({"changed": 1, "deleted": 1, "settled": 1})
    posts.put("settled", 2, context=Context("settled"))
    snapshot = posts.snapshot()
    posts.put_many({"changed": 2, "settled": 3, "new": 1})
    posts.delete("deleted")

    assert snapshot["changed"] == 1
    assert snapshot["deleted"] == 1
    assert sorted(sibling.value for sibling in snapshot.read("settled").siblings) == [1, 2]
    with pytest.raises(NotFound):
        snapshot["new"]
    assert sorted(snapshot) == ["changed", "deleted", "settled"]
    assert len(snapshot) == 3


def churn(posts: Collection, seed: int, stop: threading.Event) -> None:
    """Changes documents at random until told to stop."""
    chance = random.Random(seed)
    while not stop.is_set():
        chance.choice(CHANGES)(posts, f"{chance.choice('xy')}/{chance.randrange(20)}")
        stop.wait(chance.uniform(0, 0.005))


def read_slice(part: Slice) -> list[tuple[str, Any]]:
    """What another process does with a slice."""
    scan.CHUNK_ROWS = CHUNK_ROWS
    return [pair for batch in part.batches(Reading()) for pair in batch]


@pytest.mark.parametrize(
    "kinds",
    [
        ["sqlite"],
        pytest.param(["postgresql"], marks=pytest.mark.postgres),
        pytest.param(["mariadb"], marks=pytest.mark.mariadb),
        pytest.param(["sqlite", "postgresql", "sqlite"], marks=pytest.mark.postgres),
    ],
    ids="+".join,
)
def test_scans_and_slices_are_exact_while_others_write(
    kinds: list[str], fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads change everything; each round reads a snapshot, its keys, a view, and slices in another process.

    The view is read by key. What the feed tells from a snapshot on makes the present of it.
    """
    print(f"seed {SEED}")
    monkeypatch.setattr(scan, "BY_KEY_COST", 1)
    urls = [fresh_url(kind) for kind in kinds]
    stop = threading.Event()
    with vstore.open(*urls) as store, ProcessPoolExecutor(1, mp_context=LIVES) as elsewhere:
        posts = store.create("posts", partitions=8)
        posts.put_many({f"{letter}/{n}": "before" for letter in "xy" for n in range(20)})
        threads = [threading.Thread(target=churn, args=(posts, SEED + n, stop)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in range(8):
                snapshot, view = posts.snapshot(), posts.prefixed("x/").snapshot()
                sliced = elsewhere.map(read_slice, snapshot.slices(3))
                viewed_elsewhere = elsewhere.map(read_slice, view.slices(3))
                again = dict(posts.snapshot(since=snapshot.since).items(on_conflict="winner"))
                found, keys = state(snapshot.rows(settle=all_of)), sorted(snapshot)
                viewed = state(view.rows(settle=all_of))
                winners = dict(snapshot.items(on_conflict="winner"))
                part = sorted(itertools.chain.from_iterable(sliced))

                expected = there(store, positions_of(snapshot))
                assert found == expected, f"round {number}"
                assert keys == sorted(expected)
                assert part == sorted(winners.items())
                assert again == winners
                assert winners.keys() == expected.keys()
                assert all(value in expected[key] for key, value in winners.items())
                expected = there(store, positions_of(view))
                assert viewed == {key[2:]: values for key, values in expected.items() if key.startswith("x/")}
                assert sorted(itertools.chain.from_iterable(viewed_elsewhere)) == sorted(
                    view.items(on_conflict="winner")
                )
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert there(store) != expected  # they did write
        posts["x/0"] = "after"  # under the prefix too, where they may not have since
        for taken, source in ((snapshot, posts), (view, posts.prefixed("x/"))):
            kept = dict(taken.items(on_conflict="winner"))
            news = {change.key for change in source.changes(since=taken.since)}
            found = source.get_many(news, on_conflict="winner")
            kept = {key: value for key, value in kept.items() if key not in found.missing} | found
            assert kept == dict(source.items(on_conflict="winner"))
            assert 0 < len(news) <= 40
