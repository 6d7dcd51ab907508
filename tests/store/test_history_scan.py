"""The history scan: every version that a collection has, once, and nothing that comes while it is read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vstore
from tests.store.past import Past
from vstore import Collection, Context, Document, NotFound, Store, history
from vstore.handle import partition_of, seq_of
from vstore.reading import Reading
from vstore.slices import Slice

NOON_US = 1_793_534_400_000_000  # 2026-11-01T12:00:00Z
KEYS = ["a/1", "a/2", "b", "\u00e9"]

_names = itertools.count(1)

Step = tuple[str, int, bool, bool]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(KEYS), st.sampled_from([0, 1, 1_000]), st.booleans(), st.sampled_from([False, False, True])
    ),
    min_size=1,
    max_size=20,
)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few versions cross many pages."""
    monkeypatch.setattr(history, "CHUNK_ROWS", 3)
    monkeypatch.setattr(history, "FIRST_ROWS", 2)


def replay(posts: Collection, steps: Sequence[Step]) -> Past:
    """Random writes, some by writers who had seen nothing, some deletions, and what they were."""
    past = Past(posts)
    stamp = NOON_US
    for number, (key, after, blind, delete) in enumerate(steps):
        stamp += after
        past.write(key, number, stamp, seen=[] if blind else None, delete=delete and not blind)
    return past


def shown(pairs: Sequence[tuple[str, Document]]) -> list[tuple[str, str, Any, bool, int]]:
    """What versions are, sorted by key and rev."""
    return sorted((key, found.rev, found.value, found.deleted, found.stamp) for key, found in pairs)


def read(parts: Sequence[Slice], reading: Reading | None = None) -> list[tuple[str, Any]]:
    """All that some slices give, in their order."""
    return [pair for part in parts for batch in part.batches(reading or Reading()) for pair in batch]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=STEPS, later=STEPS, count=st.integers(1, 5), bounds=st.tuples(st.integers(0, 3_000), st.integers(0, 3_000))
)
def test_every_version_comes_once_whatever_is_written_meanwhile(
    store: Store, steps: list[Step], later: list[Step], count: int, bounds: tuple[int, int]
) -> None:
    """Iterated and in slices, of all and of a prefix, of all times and of some; others write after the first."""
    name = f"c{next(_names)}"
    posts = store.create(name, partitions=4)
    past = replay(posts, steps)
    since, until = (NOON_US + offset for offset in sorted(bounds))
    all_of = sorted((v.key, v.rev, None if v.deleted else v.value, v.deleted, v.stamp) for v in past.versions)
    some = [version for version in all_of if since <= version[4] < until]
    view = [(key[2:], *rest) for key, *rest in all_of if key.startswith("a/")]
    scans = [posts.history_scan(), posts.history_scan(since, until), posts.prefixed("a/").history_scan()]
    parts = [scan.slices(count) for scan in scans]

    begun = iter(scans[0])
    first = [next(begun)]
    for number, (key, _after, _blind, _delete) in enumerate(later):
        posts.put(key, f"later {number}", context=Context(key))

    assert shown(first + list(begun)) == all_of
    for scan, slices, expected in zip(scans, parts, (all_of, some, view), strict=True):
        assert shown(list(scan)) == expected
        assert shown(read(slices)) == expected
        assert scan.len_estimate() >= len(expected)
    store.drop(name)


def test_versions_come_as_they_were_committed_in_each_partition(store: Store) -> None:
    """By the place that each was given."""
    posts = store.create("posts", partitions=2)
    for n in range(30):
        posts[f"k{n % 7}"] = n
    places = {
        (key, version.value): (partition_of(row[0]), seq_of(row[0]))
        for shard in store.shards
        for key, version in posts.history_scan()
        for row in shard.database.ask(vstore.sql.statements.VERSION, (1, key, version.rev))
        for row in [(row[1],)]
    }

    found = [places[key, version.value] for key, version in posts.history_scan()]

    assert found == sorted(found)
    assert len(found) == 30


def test_pruned_versions_are_left_out_and_tombstones_are_not(store: Store) -> None:
    """What is left is what `history` shows of each key."""
    posts = store["posts"]
    for n in range(4):
        posts.put_many({"a": n, "b": n})
    posts.delete("b")
    posts.prune(keep_last=2)

    found = read(posts.history_scan().slices(3))

    assert shown(found) == shown([(key, version) for key in ("a", "b") for version in posts.history(key)])
    assert [(key, version.value) for key, version in found if version.deleted] == [("b", None)]


def test_documents_are_decoded_in_the_readers_shape(store: Store) -> None:
    """The value of each; a tombstone has none, and no shape is asked for it."""

    class Numbers:
        def decode(self, data: bytes) -> int:
            return len(data)

        def convert(self, value: Any) -> int:
            return -len(value)

    posts = store["posts"]
    posts["a"] = [1]
    store.collection("posts", codec="zlib+json")["a"] = [0] * 2_000
    posts.delete("a")
    reading = Reading(shape=Numbers())

    found = [(document.value, document.deleted) for _key, document in read(posts.history_scan().slices(1), reading)]

    assert found == [(3, False), (-2_000, False), (None, True)]
    assert reading.body_bytes > 3


def test_a_version_that_cannot_be_decoded_is_told(local: Store) -> None:
    """By its own rev, among several of a key."""
    posts = local["posts"]
    for n in range(3):
        posts["k"] = n
    middle = list(posts.history("k"))[1].rev
    connection = local.shards[0].database.engine.raw_connection()
    connection.cursor().execute("UPDATE vs_version SET body = ? WHERE rev = ?", (b"{", middle))
    connection.commit()
    connection.close()
    told: list[tuple[str, str]] = []
    reading = Reading(undecodable=lambda key, rev, _error: told.append((key, rev)))

    assert [document.value for _key, document in read(posts.history_scan().slices(1), reading)] == [0, 2]
    assert told == [("k", middle)]


def test_moments_are_given_as_at_takes_them(local: Store) -> None:
    """Text, and what is no moment is refused before anything is read."""
    posts = local["posts"]
    posts["a"] = 1

    assert [key for key, _version in posts.history_scan(since="2026-01-01T00:00:00Z")] == ["a"]
    assert list(posts.history_scan(until="2026-01-01T00:00:00Z")) == []
    with pytest.raises(ValueError, match="yesterday"):
        posts.history_scan(since="yesterday")
    with pytest.raises(NotFound, match="no collection 'none'"):
        local["none"].history_scan()


def test_versions_on_several_databases_are_all_there(fresh_url: Callable[[str], str]) -> None:
    """Slices of each."""
    with vstore.open(*(fresh_url("sqlite") for _ in range(3))) as store:
        posts = store["posts"]
        for n in range(3):
            posts.put_many({f"k{m}": n for m in range(20)})
        scan = posts.history_scan()

        assert len(read(scan.slices(6))) == len(list(scan)) == 60


def test_a_range_of_keys_has_its_past_and_its_versions(store: Store) -> None:
    """Keys a, b and c; each is written twice, and only the middle of the alphabet is asked for."""
    posts = store["posts"]
    posts.put_many({"a": 1, "b": 1, "c": 1})
    moment = posts.read("c").stamp
    posts.put_many({"a": 2, "b": 2, "c": 2})

    past = posts.at(moment, start="b", end="c")

    assert dict(past.items()) == {"b": 1}
    assert "a" not in past
    assert [key for part in past.slices(3) for batch in part.batches(Reading()) for key, _ in batch] == ["b"]
    assert [(key, version.value) for key, version in posts.history_scan(start="b", end="c")] == [("b", 1), ("b", 2)]


def test_half_a_character_bounds_no_range(store: Store) -> None:
    store["posts"]["a"] = 1

    with pytest.raises(vstore.ConfigurationError, match="half a character"):
        store["posts"].snapshot(start="\udcff")
