"""Reconciliation: exactly the differences of two sets come out, in few bytes, and what was lost is repaired."""

from __future__ import annotations

import json
import logging
import random
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from struct import iter_unpack
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

import replication.differences as differences
import vstore
from replication.differences import Row, Sum, Walk, respond
from replication.frames import (
    FRAME_BYTES,
    MOST_BYTES,
    Found,
    Item,
    Listed,
    Sums,
    Wanted,
    Writer,
    read,
    separator,
)
from replication.handshake import checkpoint_name, link_of
from replication.lease import Lease
from replication.pull import pull, take
from replication.pulled import Pulled
from replication.reconcile import Heads, Reconciled, equal, looks, reconcile
from replication.sync import sync
from tests.acceptance.command import vstore as run
from vstore import Store
from vstore.batch import Purge
from vstore.errors import ConfigurationError, InvalidToken, Unavailable
from vstore.handle import Handle
from vstore.plan import knowledge_of
from vstore.ranges import ABOVE, KeyRange
from vstore.sql import statements as sql


class Memory:
    """A side that is two lists: what the SQL one is measured against."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.all = sorted(rows)
        self.keys = [key for key, _ in self.all]
        lanes = (
            zip(*iter_unpack(">4I", b"".join([each for _, each in self.all])), strict=True) if self.all else [()] * 4
        )
        self.totals = [list(accumulate(lane, initial=0)) for lane in lanes]

    def sums(self, ranges: Sequence[KeyRange]) -> list[Sum]:
        places = [self.places(keys) for keys in ranges]
        return [Sum(end - start, *[lane[end] - lane[start] for lane in self.totals]) for start, end in places]

    def rows(self, keys: KeyRange, limit: int) -> list[Row]:
        start, end = self.places(keys)
        return self.all[start : min(end, start + limit)]

    def bounds(self, keys: KeyRange, count: int, pieces: int) -> list[str]:
        start, end = self.places(keys)
        found: list[str] = []
        for n in range(1, pieces):
            at = start + (end - start) * n // pieces
            bound = separator(self.keys[at - 1], self.keys[at])
            if keys.low < bound < keys.high and bound not in found:
                found.append(bound)
        return found

    def places(self, keys: KeyRange) -> tuple[int, int]:
        return bisect_left(self.keys, keys.low), bisect_left(self.keys, keys.high)


class Broken(Memory):
    """A side that adds up by XOR."""

    def sums(self, ranges: Sequence[KeyRange]) -> list[Sum]:
        found = []
        for keys in ranges:
            lanes = [0] * 4
            rows = self.rows(keys, 1 << 62)
            for _, each in rows:
                lanes = [a ^ b for a, b in zip(lanes, *iter_unpack(">4I", each), strict=True)]
            found.append(Sum(len(rows), *lanes))
        return found


def compared(ours: Memory, theirs: Memory, limit: int = FRAME_BYTES) -> tuple[set[Row], set[Row], Walk]:
    """What comes out: the rows that `ours` lacks, those that only it has, and the walk."""

    def answer(frame: bytes) -> bytes:
        return respond(frame, theirs, limit)

    walk = Walk(ours, answer, limit=limit)
    lacking: set[Row] = set()
    surplus: set[Row] = set()
    upto = ""
    for batch in walk.batches():
        lacking |= {(key, each) for key, found in batch.lacking.items() for each in found}
        surplus |= {(key, each) for key, found in batch.surplus.items() for each in found}
        assert batch.upto >= upto
        upto = batch.upto
    assert upto == ABOVE
    return lacking, surplus, walk


def element(what: Any) -> bytes:
    return sha256(repr(what).encode()).digest()[:16]


def numbered(count: int, seed: int = 1) -> list[Row]:
    blob = random.Random(seed).randbytes(16 * count)
    return [(f"user:{n:08d}", blob[16 * n : 16 * n + 16]) for n in range(count)]


# Two sets

KEYS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)


@settings(max_examples=150)
@given(
    st.sets(
        st.tuples(st.one_of(st.sampled_from(["a", "ab", "b", "\U0010ffff"]), KEYS), st.integers(0, 60)), max_size=150
    ),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 200, 1_000, FRAME_BYTES]),
    st.sampled_from([3, 40, differences.PAGE_ROWS]),
)
def test_exactly_the_symmetric_difference_comes_out(
    base: set[tuple[str, int]], some: random.Random, limit: int, page: int
) -> None:
    """Any two sets, some keys with many siblings; whatever frames are bounded by and however long a page is."""
    rows = sorted((key, element((key, n))) for key, n in base)
    share = some.choice([0.0, 0.05, 0.5, 1.0])
    ours = {row for row in rows if some.random() >= share}
    theirs = {row for row in rows if some.random() >= some.choice([0.0, share])}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differences, "PAGE_ROWS", page)
        patch.setattr(differences, "READ_ROWS", some.choice([33, 60, 4_096]))
        lacking, surplus, _walk = compared(Memory(ours), Memory(theirs), limit)

    assert lacking == theirs - ours
    assert surplus == ours - theirs


@pytest.mark.parametrize("seed", range(40))
def test_it_comes_out_of_larger_sets_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of elements; one key has more than a page of them, or a side has almost none; in small frames."""
    some = random.Random(seed)
    monkeypatch.setattr(differences, "PAGE_ROWS", some.choice([3, 20]))
    monkeypatch.setattr(differences, "READ_ROWS", some.choice([33, 100, 4_096]))
    count = some.choice([40, 150, 600])
    keys = some.choice([1, 2, 10, count])
    rows = [(f"k{some.randrange(keys)}", element(n)) for n in range(count)]
    few, most = set(some.sample(rows, some.randrange(20))), {row for row in rows if some.random() < 0.95}
    ours, theirs = some.choice([(few, most), (most, few), (most, {row for row in rows if some.random() < 0.95})])

    lacking, surplus, _walk = compared(Memory(ours), Memory(theirs), some.choice([1, 300, 2_000, FRAME_BYTES]))

    assert lacking == theirs - ours
    assert surplus == ours - theirs


def test_no_frame_is_larger_than_its_bound_and_the_rest_is_continued() -> None:
    """20,000 against 18,000 with 3,000 differences, both ways in frames of 4 KiB."""
    some = random.Random(2)
    rows = numbered(20_000)
    ours = Memory(row for row in rows if some.random() > 0.05)
    theirs = Memory(row for row in rows if some.random() > 0.1)
    sizes: list[int] = []

    def answer(frame: bytes) -> bytes:
        reply = respond(frame, theirs, 8_192)
        sizes.extend((len(frame), len(reply)))
        return reply

    walk = Walk(ours, answer, limit=8_192)
    found = {key for batch in walk.batches() for key in {*batch.lacking, *batch.surplus}}

    assert found == {key for key, _ in set(ours.all) ^ set(theirs.all)}
    assert max(sizes) <= 8_192
    assert len(sizes) == walk.frames > 20


def test_a_million_documents_cost_what_they_may() -> None:
    """1 difference within 4 KiB, 100 within 150 KiB, none in one question; both ways together."""
    rows = numbered(1_000_000)
    theirs = Memory(rows)
    some = random.Random(3)
    changed = some.sample(range(len(rows)), 100)

    sizes = {}
    for count in (0, 1, 100):
        mine = list(rows)
        for n in changed[:count]:
            mine[n] = mine[n][0], element(n)
        ours = Memory(mine) if count else theirs
        lacking, surplus, walk = compared(ours, theirs)
        assert len(lacking) == len(surplus) == count
        sizes[count] = walk.frame_bytes
        assert walk.frames <= 10

    assert sizes[0] < 64
    assert sizes[1] <= 4 * 1024
    assert sizes[100] <= 150 * 1024


def test_differences_that_lie_together_cost_little() -> None:
    """The last 100 written under rising keys: 100 scattered ones cost twenty times as much."""
    rows = numbered(200_000)

    lacking, _surplus, walk = compared(Memory(rows[:-100]), Memory(rows))

    assert lacking == set(rows[-100:])
    assert walk.frame_bytes < 8 * 1024


def test_an_empty_side_gets_pages_in_the_order_of_keys() -> None:
    """The bootstrap of a replica: memory holds one page, and the position rises with each."""
    rows = numbered(30_000)
    theirs = Memory(rows)
    walk = Walk(Memory([]), lambda frame: respond(frame, theirs))

    batches = [(list(batch.lacking), batch.upto) for batch in walk.batches()]

    assert [key for keys, _ in batches for key in keys] == [key for key, _ in rows]
    assert max(len(keys) for keys, _ in batches) <= 3 * differences.PAGE_ROWS
    assert all(key < upto for keys, upto in batches for key in keys)


def test_the_walk_may_begin_at_any_key() -> None:
    rows = numbered(5_000)
    theirs = Memory(rows)
    walk = Walk(Memory(rows[:100]), lambda frame: respond(frame, theirs), KeyRange("user:00004000"))

    found = {key for batch in walk.batches() for key in batch.lacking}

    assert found == {key for key, _ in rows[4_000:]}


def test_pairs_of_equal_elements_are_seen_which_an_xor_would_not() -> None:
    """Two documents have one element here and two have another there: under XOR both are nothing."""
    rows = numbered(100)
    ours = [*rows, ("x", element(1)), ("y", element(1))]
    theirs = [*rows, ("x", element(2)), ("y", element(2))]

    lacking, surplus, _walk = compared(Memory(ours), Memory(theirs))
    blind = compared(Broken(ours), Broken(theirs))

    assert (lacking, surplus) == (set(theirs) - set(ours), set(ours) - set(theirs))
    assert blind[:2] == (set(), set())


def test_a_side_that_changes_under_the_walk_ends_it_all_the_same() -> None:
    """Writers do not wait. What changed meanwhile may or may not come out; all else does."""
    some = random.Random(4)
    rows = numbered(20_000)
    lost = set(rows[5_000:20_000:500])
    theirs = Memory(rows)
    ours = Memory(set(rows) - lost)

    def answer(frame: bytes) -> bytes:
        nonlocal theirs
        theirs = Memory([*theirs.all, *[(f"new:{some.random()}", some.randbytes(16)) for _ in range(50)]])
        return respond(frame, theirs)

    found = {key for batch in Walk(ours, answer).batches() for key in batch.lacking}

    assert {key for key, _ in lost} <= found


# Frames


def frame(*items: Item, upto: str = "") -> bytes:
    writer = Writer()
    for item in items:
        assert writer.add(item)
    return writer.frame(upto)


@given(st.lists(KEYS, min_size=4, max_size=9, unique=True), st.randoms(use_true_random=False))
def test_a_frame_is_read_as_it_was_written(keys: list[str], some: random.Random) -> None:
    a, b, *rest, c = sorted(keys)
    each = tuple(some.randbytes(16) for _ in range(3))
    items: list[Item] = [
        Sums(("", a, b), (some.randbytes(12), some.randbytes(12))),
        Found(b, c, tuple((key, some.randbytes(16)) for key in [b, b, *rest]), each),
        Listed(c, ABOVE, each) if some.random() < 0.5 else Wanted(c, ABOVE, each),
    ]

    assert read(frame(*items, upto=a)) == (items, a)


def raw(version: Any = 1, upto: Any = "", *items: Any) -> bytes:
    return msgspec.msgpack.encode([version, upto, list(items)])


@pytest.mark.parametrize(
    ("given_frame", "problem"),
    [
        (b"", "truncated"),
        (b"\x00", "array"),
        (raw(2), "version 2"),
        (raw(1, 7), "Expected `str`"),
        (raw(1, "a\0"), "ends at what is no key"),
        (raw(1, "", [9, b"\0\0", ["a", "b"], b""]), "unknown kind"),
        (raw(1, "", [1, b"\0\0", ["b", "a"], b""]), "ends before it begins"),
        (raw(1, "", [1, b"\0\5", ["a", "b"], b""]), "shares more"),
        (raw(1, "", [1, b"\0", ["a"], b""]), "no range"),
        (raw(1, "", [1, b"\0\0", ["a", "b"], b"123"]), "cut in the middle"),
        (raw(1, "", [1, b"\0\0", ["a", "b\0"], b""]), "a key is none"),
        (raw(1, "", [1, b"\0\0", ["a", "b" * 2_000], b""]), "a key is none"),
        (raw(1, "", [0, b"\0\0", ["a", "b"], b"x" * 24]), "one fingerprint for each range"),
        (raw(1, "", [0, b"\0\0\0", ["a", "c", "b"], b"x" * 24]), "not in order"),
        (raw(1, "", [3, b"\0\0\0", ["a", "b", "c"], b"x" * 16]), "not in its range"),
        (raw(1, "", [3, b"\0\0", ["a", "b"], b"x" * 16]), "one key for each element"),
        (raw(1, "", [1, b"\0\0", ["a", "c"], b""], [1, b"\0\0", ["b", "d"], b""]), "overlap"),
        (raw(1, "", [1, b"\0\0", ["a", "b"], b"", b"x" * 16]), "belong to another kind"),
        (b"\x93\x01\xa0\xdd\xff\xff\xff\xff", "truncated"),
        (b"x" * (MOST_BYTES + 1), "longer than"),
    ],
)
def test_what_is_no_frame_is_refused(given_frame: bytes, problem: str) -> None:
    with pytest.raises(InvalidToken, match=problem) as caught:
        respond(given_frame, Memory(numbered(100)))

    assert "Nothing was changed" in str(caught.value)


def test_a_frame_with_changed_bytes_is_refused_or_answered_and_nothing_else() -> None:
    some = random.Random(5)
    side = Memory(numbered(3_000))
    frames = [
        frame(Sums(("", "user:00001", ABOVE), (b"x" * 12, b"y" * 12))),
        frame(Listed("user:0000012", "user:0000014", (b"z" * 16,))),
        frame(Wanted("user:0000012", "user:0000014", tuple(each for _, each in side.all[125:130]))),
    ]
    answered = refused = 0
    for _ in range(2_000):
        damaged = bytearray(some.choice(frames))
        for _ in range(some.randrange(1, 4)):
            damaged[some.randrange(len(damaged))] = some.randrange(256)
        try:
            respond(bytes(damaged[: some.randrange(len(damaged)) or None]), side)
            answered += 1
        except InvalidToken:
            refused += 1

    assert answered + refused == 2_000
    assert answered
    assert refused > answered


@pytest.mark.parametrize(
    "answer",
    [
        frame(Sums(("a", "b"), (b"x" * 12,)), upto="a"),  # goes back
        frame(Wanted("user:000001", "user:000002", ())),  # a question
        frame(Found("user:000001", "user:000002", ())),  # an answer to a list, and none was sent
        frame(upto=""),
    ],
)
def test_an_answer_to_something_else_is_refused_or_means_equal(answer: bytes) -> None:
    walk = Walk(Memory(numbered(1_000)), lambda _frame: answer, KeyRange("user:00000100"))

    if read(answer) == ([], ""):
        assert [len(batch) for batch in walk.batches()] == [0]
        return
    with pytest.raises(InvalidToken, match="Nothing was changed"):
        list(walk.batches())


def test_an_answer_may_not_be_a_question_or_hold_an_answer_to_us() -> None:
    with pytest.raises(InvalidToken, match="has an answer in it"):
        respond(frame(Found("a", "b", ())), Memory([]))


@given(KEYS, KEYS)
def test_a_separator_is_above_the_one_and_not_above_the_other(one: str, other: str) -> None:
    below, above = sorted([one, other])

    found = separator(below, above)

    assert below < found <= above or below == above == found
    assert len(found) <= len(above)


# Two stores

Pair = tuple[Store, Store]


@pytest.fixture
def pair(url: str, fresh_url: Callable[[str], str]) -> Iterator[Pair]:
    """A store on each kind of database in turn, and another on SQLite."""
    with vstore.open(url) as one, vstore.open(fresh_url("sqlite")) as other:
        yield one, other


def handles(*stores: Store) -> list[Handle]:
    found = [store.handle("notes") for store in stores]
    assert all(handle is not None for handle in found)
    return found  # type: ignore[return-value]


def both(a: Store, b: Store) -> tuple[Handle, Handle]:
    return tuple(handles(a, b))  # type: ignore[return-value]


def ask(store: Store, statement: str, **params: Any) -> int:
    """Does something to every database of a store behind its back; how many rows changed."""
    changed = 0
    for shard in store.shards:
        engine = create_engine(shard.database.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            changed += connection.execute(text(statement), params).rowcount
        engine.dispose()
    return changed


def lose(store: Store, key: str, *tables: str) -> None:
    """Deletes the rows of a key by hand."""
    for table in tables:
        name = "`key`" if "mariadb" in store.shards[0].database.name else "key"
        assert ask(store, f"DELETE FROM {table} WHERE {name} = :key", key=key)


def test_the_database_adds_up_what_the_rows_say(
    engine: str, fresh_url: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums, rows and bounds by SQL are those of the same rows in memory; over one shard, over three of two kinds."""
    some = random.Random(6)
    keys = ["a", "A", "a ", "ä", "a\U0001f600", "\U0010ffff", "a\x01", "é" * 300]
    keys += [f"k{some.random()}" for _ in range(300)]
    for urls in ([fresh_url(engine)], [fresh_url(engine), fresh_url("sqlite"), fresh_url(engine)]):
        with vstore.open(*urls) as store:
            store["notes"].put_many({key: some.random() for key in keys})
            for n in range(60):
                store["notes"].put("a", n, context=vstore.Context("a"))
            [handle] = handles(store)
            side = Heads(handle)
            memory = Memory(side.rows(KeyRange(), 1 << 40))
            cuts = ["", "A", "a", "a ", "a!", "ab", "k0.5", "k0.9", "\U0010ffff", ABOVE]
            ranges = [KeyRange(low, high) for low in cuts for high in cuts if low < high]

            assert memory.keys == sorted([*keys, *["a"] * 60])
            assert side.sums(ranges) == memory.sums(ranges)
            assert [sorted(side.rows(keys, 1 << 40)) for keys in ranges] == [
                memory.rows(keys, 1 << 40) for keys in ranges
            ]
            for keys_of in ranges:
                [total] = side.sums([keys_of])
                bounds = side.bounds(keys_of, total.heads, 16)
                assert bounds == sorted(set(bounds))
                assert all(keys_of.low < bound < keys_of.high for bound in bounds)
                assert not bounds or total.heads > 1
            assert len(side.bounds(KeyRange(), len(memory.keys), 16)) >= 10


def test_replicas_of_any_engines_and_shards_compare_directly(
    engine: str, fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shard against three of several kinds: equal after a sync; then just what differs is found and taken.

    Ranges are split by the database here, as those of a million are.
    """
    monkeypatch.setattr(differences, "READ_ROWS", 40)
    with ExitStack() as stack:
        a = stack.enter_context(vstore.open(fresh_url("sqlite")))
        b = stack.enter_context(vstore.open(fresh_url(engine), fresh_url("sqlite"), fresh_url(engine)))
        a["notes"].put_many({f"key {n:04d}": n for n in range(900)})
        sync(a, b)
        source, target = both(a, b)
        assert equal(source, target)
        for n in (7, 400, 401, 899):
            a["notes"][f"key {n:04d}"] = "edited"
        a["notes"]["new"] = 1
        b["notes"]["ahead"] = 2
        assert not equal(source, target)

        done = reconcile(source, target, first=True)

        assert (done.theirs, done.ours, done.repaired.new, done.differences, done.finished) == (5, 5, 5, 0, True)
        assert dict(b["notes"]) == {**dict(a["notes"]), "ahead": 2}
        reconcile(target, source, first=True)
        assert equal(source, target)
        assert dict(a["notes"]) == dict(b["notes"])


@pytest.mark.parametrize("tables", [["vs_head"], ["vs_version"], ["vs_head", "vs_version"]])
def test_rows_deleted_by_hand_come_back(pair: Pair, tables: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """At the target. The feed sees nothing; the reconciliation does, says so, repairs it, and then is quiet."""
    a, b = pair[::-1]
    a["notes"].put_many({f"k{n}": n for n in range(300)})
    a["notes"]["k7"] = "edited"
    sync(a, b)
    lose(b, "k7", *tables)
    source, target = both(a, b)
    assert not pull(source, target).rows

    with caplog.at_level(logging.WARNING, "replication"):
        done = reconcile(source, target, catch_up=lambda: pull(source, target, reconcile="never"))

    assert (done.differences, done.keys, done.repaired.new) == (1, ["k7"], 1)
    assert "1 documents of 'notes' differed" in caplog.text
    assert b["notes"]["k7"] == "edited"
    assert dict(b["notes"]) == dict(a["notes"])
    assert equal(source, target)
    assert reconcile(source, target).differences == 0
    if tables == ["vs_head"]:
        assert list(b.check()) == []
    b["notes"]["k7"] = "written again"
    sync(a, b)
    assert a["notes"]["k7"] == "written again"
    assert equal(source, target)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("met", ["before", "in the feed", "never"])
def test_a_row_that_comes_back_keeps_the_names_that_only_it_had(pair: Pair, met: str, pruned: bool) -> None:
    """Both make the same edit, so it is one version with two dots, and the head row of one of the two is lost.

    The source has not heard of the other name, and the target may not have heard of the source's either. The body may
    be lost with the head.
    """
    a, b = pair[::-1]
    a["notes"].put_many({f"k{n}": n for n in range(30)})
    sync(a, b)
    a["notes"]["k7"] = "edited"
    b["notes"]["k7"] = "edited"
    source, target = both(a, b)
    if met == "before":
        pull(source, target)
    lose(b, "k7", "vs_head")
    if pruned:
        rev = a["notes"].read("k7").rev
        assert ask(b, "UPDATE vs_version SET stub = 1, codec = '', body = NULL WHERE rev = :rev", rev=rev) == 1

    caught_up = (lambda: pull(source, target, reconcile="never")) if met == "in the feed" else None
    done = reconcile(source, target, catch_up=caught_up)

    assert (done.differences, done.keys) == (1, ["k7"])
    assert b["notes"]["k7"] == "edited"
    assert list(b.check()) == []
    [head] = looks(target, ["k7"])["k7"].heads.values()
    assert len(head.dots) == 2
    assert reconcile(source, target).differences == 0
    sync(a, b)
    assert equal(source, target)
    assert list(a.check()) == []


@pytest.mark.parametrize("tables", [["vs_head"], ["vs_version"]])
def test_nothing_is_repaired_under_a_lease_that_another_has(pair: Pair, tables: list[str]) -> None:
    """Who believes to hold it was away for too long, and somebody took over: what is left here is still there."""
    a, b = pair[::-1]
    a["notes"].put_many({f"k{n}": n for n in range(30)})
    sync(a, b)
    lose(b, "k7", *tables)
    source, target = both(a, b)
    mine, theirs = overtaken(source, target)
    before = Heads(target).sums([KeyRange()])

    with pytest.raises(Unavailable, match="taken over by another"):
        reconcile(source, target, lease=mine)

    assert Heads(target).sums([KeyRange()]) == before
    theirs.release()
    assert reconcile(source, target).differences == 1
    assert b["notes"]["k7"] == 7


def overtaken(source: Handle, target: Handle) -> tuple[Lease, Lease]:
    """A lease whose holder believes that he has it, and the one of him who has it."""
    mine, theirs = (Lease(link_of(source, target), holder="either") for _ in range(2))
    for lease in (mine, theirs):
        for shard in target.shards:
            lease.fence(shard)
    return mine, theirs


def test_what_the_feed_has_skipped_is_found(pair: Pair) -> None:
    """The target believes that it was given a document: its checkpoint is past it. No pull will ever bring it."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    source, target = both(a, b)
    a["notes"]["skipped"] = 1
    part = source.place("skipped")[2]
    feed, seq = source.positions()[part]
    b.set_checkpoint(checkpoint_name(source, target, part), {"feed": feed, "seq": seq})
    assert not pull(source, target).rows

    pulled = pull(source, target, reconcile="always")

    assert (pulled.differences, pulled.new) == (1, 1)
    assert b["notes"]["skipped"] == 1
    assert pull(source, target, reconcile="always").differences == 0


def test_what_the_source_has_lost_is_an_alarm_and_comes_back_when_it_pulls(pair: Pair) -> None:
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    lose(a, "k7", "vs_head", "vs_version")
    source, target = both(a, b)

    done = reconcile(source, target)

    assert (done.differences, done.repaired, done.ours) == (1, Pulled(), 1)
    assert b["notes"]["k7"] == 7
    assert pull(target, source, reconcile="always").differences == 1
    assert a["notes"]["k7"] == 7
    assert equal(source, target)


def test_a_live_document_below_what_was_forgotten_is_no_purged_one(pair: Pair) -> None:
    """Both know of a purge; then each loses another document of the same age. None must be taken for purged."""
    a, b = pair
    a.create("notes", partitions=1)  # so that what may be forgotten covers them all
    a["notes"].put_many({f"k{n}": n for n in range(64)})
    del a["notes"]["k1"]
    sync(a, b)
    forget(a, "k1")
    forget(b, "k1")
    source, target = both(a, b)
    lose(b, "k7", "vs_head", "vs_version")
    lose(a, "k9", "vs_head", "vs_version")

    done = reconcile(source, target)

    assert sorted(done.keys) == ["k7", "k9"]
    assert (b["notes"]["k7"], b["notes"]["k9"]) == (7, 9)
    assert "k1" not in b["notes"]
    reconcile(target, source)
    assert a["notes"]["k9"] == 9
    assert equal(source, target)


def test_what_the_source_has_lost_stays_though_a_rival_of_it_comes(pair: Pair) -> None:
    """The row that it lost is as old as others that were purged, and the same key has a new one."""
    a, b = pair
    a.create("notes", partitions=1)
    a["notes"].put_many({"k": "old", "gone": 1})
    del a["notes"]["gone"]
    sync(a, b)
    forget(a, "gone")
    forget(b, "gone")
    lose(a, "k", "vs_head", "vs_version")
    a["notes"]["k"] = "new"

    for first in (True, False):
        reconcile(*both(a, b), first=first)

        siblings = b["notes"].read("k", on_conflict="winner").siblings
        assert {sibling.value for sibling in siblings} == {"old", "new"}


def test_the_same_edit_made_twice_is_another_element_until_both_know(pair: Pair) -> None:
    """One rev under two dots. Who compared revs alone would call them equal, and a later edit could be a conflict."""
    a, b = pair
    a["notes"]["k"] = 1
    sync(a, b)
    a["notes"]["k"] = 2
    b["notes"]["k"] = 2
    source, target = both(a, b)
    assert a["notes"].read("k").rev == b["notes"].read("k").rev

    assert not equal(source, target)
    assert reconcile(source, target).repaired.rows == 1
    assert reconcile(target, source).repaired.rows == 1

    assert equal(source, target)
    a["notes"]["k"] = 3
    sync(a, b)
    assert dict(b["notes"]) == {"k": 3}


# No false alarm


def test_what_is_on_its_way_is_no_difference(pair: Pair) -> None:
    """Written and not pulled when it is first looked at; and written after that, while the feed is pulled."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    source, target = both(a, b)
    a["notes"]["k7"] = "on its way"
    a["notes"]["new"] = "on its way"

    def catch_up() -> None:
        pull(source, target, reconcile="never")
        a["notes"]["k8"] = "later"
        a["notes"]["k7"] = "later still"

    done = reconcile(source, target, catch_up=catch_up)

    assert done.theirs == 2
    assert (done.differences, done.repaired) == (0, Pulled())
    assert b["notes"]["k7"] == "on its way"


def test_a_target_that_is_ahead_differs_from_nothing(pair: Pair) -> None:
    """Edits, deletes, new documents and conflicts that the source has not pulled yet."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    b["notes"]["k1"] = "edited"
    b["notes"]["new"] = 1
    b["notes"].put("k2", "rival", context=vstore.Context("k2"))
    del b["notes"]["k3"]
    source, target = both(a, b)
    before = dict(b["notes"].items(on_conflict="winner"))

    done = reconcile(source, target)

    assert (done.ours, done.differences, done.repaired) == (4, 0, Pulled())
    assert dict(b["notes"].items(on_conflict="winner")) == before


# What was purged


def forget(store: Store, key: str) -> None:
    """Purges a deleted key, as if every replica had acknowledged all that this one knows."""
    [handle] = handles(store)
    shard, definition, part = handle.place(key)
    with shard.database.snapshot() as connection:
        [row] = connection.rows(sql.PARTITION, (definition.base + part,))
        known = knowledge_of(connection, row[0], row[3], row[4])
    [purged] = shard.apply(definition, [Purge(part, [key], known.bases())])
    assert purged.keys == [key]


def test_a_tombstone_that_one_side_has_purged_is_neither_sent_nor_counted(pair: Pair) -> None:
    a, b = pair
    a["notes"].put_many({"k": 1, "other": 2})
    del a["notes"]["k"]
    sync(a, b)
    forget(a, "k")
    source, target = both(a, b)
    assert not equal(source, target)

    for one, other in ((source, target), (target, source)):
        done = reconcile(one, other)
        assert (done.theirs + done.ours, done.differences, done.repaired) == (1, 0, Pulled())
    assert Heads(source).sums([KeyRange()])[0].heads == 1


def test_a_stale_target_forgets_what_the_source_has_purged(pair: Pair) -> None:
    """It slept through the delete and the purge. Its document does not come back, here or there."""
    a, b = pair
    a["notes"].put_many({"k": 1, "other": 2})
    sync(a, b)
    del a["notes"]["k"]
    forget(a, "k")
    source, target = both(a, b)

    there = reconcile(target, source)
    assert (there.differences, there.repaired.new, there.theirs) == (0, 0, 1)
    assert "k" not in a["notes"]
    here = reconcile(source, target)

    assert (here.differences, here.repaired.forgotten) == (0, 1)
    assert dict(b["notes"]) == dict(a["notes"]) == {"other": 2}
    assert equal(source, target)


def test_nothing_is_forgotten_under_a_lease_that_another_has(pair: Pair) -> None:
    a, b = pair[::-1]
    a["notes"].put_many({"k": 1, "other": 2})
    sync(a, b)
    del a["notes"]["k"]
    forget(a, "k")
    source, target = both(a, b)
    mine, theirs = overtaken(source, target)

    with pytest.raises(Unavailable, match="taken over by another"):
        reconcile(source, target, lease=mine)

    assert b["notes"]["k"] == 1
    theirs.release()
    assert reconcile(source, target).repaired.forgotten == 1


def test_an_edit_that_the_source_never_saw_survives_its_purge(pair: Pair) -> None:
    a, b = pair
    a["notes"]["k"] = 1
    sync(a, b)
    del a["notes"]["k"]
    forget(a, "k")
    b["notes"]["k"] = "edited meanwhile"
    source, target = both(a, b)

    assert reconcile(source, target).repaired.forgotten == 0
    reconcile(target, source, first=True)

    assert dict(a["notes"]) == dict(b["notes"]) == {"k": "edited meanwhile"}


# Interrupted, and begun anew


def interrupted(source: Handle, target: Handle, batches: int) -> Reconciled:
    """A first contact that is stopped after so many batches."""
    stop = threading.Event()
    seen = []

    def count(done: Reconciled) -> None:
        seen.append(done.after)
        if len(seen) == batches:
            stop.set()

    return reconcile(source, target, first=True, on_batch=count, stop=stop)


def test_an_interrupted_bootstrap_goes_on_where_it_was(pair: Pair) -> None:
    """Stopped after a page, then killed in the middle of one: nothing before the noted key is looked at again."""
    a, b = pair
    a["notes"].put_many({f"k{n:04d}": n for n in range(3_000)})
    b.create("notes")
    source, target = both(a, b)
    began = source.positions()

    first = interrupted(source, target, 3)
    assert not first.finished
    a["notes"]["k0001"] = "written after the beginning"

    def killed(*args: Any) -> Pulled:
        raise Unavailable("the database is gone")

    with pytest.raises(Unavailable):
        reconcile(source, target, first=True, take=killed)
    taken: list[str] = []

    def watched(source: Handle, target: Handle, keys: Sequence[str]) -> Pulled:
        taken.extend(keys)
        return take(source, target, keys)

    done = reconcile(source, target, first=True, take=watched)

    assert done.finished
    assert done.began == began != source.positions()
    assert 0 < len(taken) < 3_000
    assert min(taken) >= first.after > "k0500"
    assert {**dict(b["notes"]), "k0001": 1} == {**dict(a["notes"]), "k0001": 1}
    assert b.shards[0].database.ask(sql.CHECKPOINT, (f"reconcile:{source.uid}:{target.uid}",)) == []


def test_a_note_of_other_feeds_is_not_believed(pair: Pair) -> None:
    a, b = pair
    a["notes"].put_many({f"k{n:04d}": n for n in range(3_000)})
    b.create("notes")
    source, target = both(a, b)
    assert interrupted(source, target, 3).after > "k0500"
    shard, definition, _part = source.place("k0001")
    shard.renew_actors(definition, range(source.partitions))

    begun = interrupted(source, target, 1)

    assert begun.after < "k0500" or begun.theirs == 0
    assert begun.began == source.positions()


def test_a_replica_made_by_copy_costs_a_question(tmp_path: Path, pair: Pair, fresh_url: Callable[[str], str]) -> None:
    """It has everything under one name and another actor: the first contact finds what was written since."""
    a, _ = pair
    a["notes"].put_many({f"k{n:04d}": n for n in range(2_000)})
    a["notes"]["k0003"] = "edited"
    target_url = fresh_url("sqlite")
    a.copy(target_url)
    with vstore.open(target_url) as b:
        source, target = both(a, b)
        assert equal(source, target)
        idle = reconcile(source, target, first=True)
        assert (idle.frames, idle.theirs, idle.ours) == (2, 0, 0)
        a["notes"]["k0005"] = "later"

        done = reconcile(source, target, first=True)

        assert (done.theirs, done.ours, done.repaired.rows) == (1, 1, 1)
        assert done.frame_bytes < 2_048


def test_a_dry_run_changes_nothing(pair: Pair) -> None:
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    lose(b, "k7", "vs_head")
    lose(b, "k8", "vs_version")
    source, target = both(a, b)

    done = reconcile(source, target, dry_run=True)

    assert sorted(done.keys) == ["k7", "k8"]
    assert done.repaired == Pulled()
    assert reconcile(source, target, dry_run=True).differences == 2
    assert b.shards[0].database.ask(sql.CHECKPOINT, (f"reconcile:{source.uid}:{target.uid}",)) == []


def test_collections_cut_into_other_partitions_are_refused(local: Store, fresh_url: Callable[[str], str]) -> None:
    with vstore.open(fresh_url("sqlite")) as other:
        local.create("notes", partitions=64)
        other.create("notes", partitions=32)
        with pytest.raises(ConfigurationError, match="64 partitions and 'notes' 32"):
            reconcile(*both(local, other))


def test_the_command_says_what_differed(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("a", "b")]
    with vstore.open(urls[0]) as a, vstore.open(urls[1]) as b:
        a["notes"].put_many({f"k{n}": n for n in range(100)})
        sync(a, b)
        lose(b, "k7", "vs_head")
        a["notes"]["new"] = 1
    ends = ["--store", urls[1], "--with", urls[0]]

    looked = run("reconcile", *ends, "--dry-run", "--json")
    done = run("reconcile", "notes", *ends)
    again = run("reconcile", *ends, "--json")
    itself = run("reconcile", "--store", urls[1], "--with", urls[1])

    found = json.loads(looked.stdout)
    assert (found["collection"], found["differences"], found["keys"]) == ("notes", 1, ["k7"])
    assert (looked.exit_code, done.exit_code) == (5, 0)
    assert "1 document differed" in done.stdout
    assert "both ends are the same databases" in itself.output
    assert json.loads(again.stdout)["differences"] == 0
    with vstore.open(urls[1]) as b:
        assert b["notes"]["k7"] == 7
