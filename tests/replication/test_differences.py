"""The differences of two sets: exactly these come out, in few bytes, and a frame that is none is refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256
from struct import iter_unpack
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replication.differences as differences
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
)
from tests.replication.sides import Memory
from vstore.errors import InvalidToken
from vstore.ranges import ABOVE, KeyRange, separator


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
