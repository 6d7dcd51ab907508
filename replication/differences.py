"""The differences of two sets of heads, found by comparing ranges of keys: O(d log n) bytes for d of them.

    asking (the target)                            answering (the source)
    fingerprint of everything           ──►        equal: done; else
                                        ◄──        fingerprints of 16 ranges of it
    of 16 ranges of each that differs   ──►
               …                                   at 32 elements or fewer: the list of them
    the elements of it that I lack      ──►
                                        ◄──        their keys

Each side splits in its turn. The answering side remembers nothing between frames,
and the asking side only what it has still to ask, in the order of keys: so at any
time there is a key below which everything is done. Frames are bounded; what an
answer has no room for is asked again.

A fingerprint is a hash of the number of elements and of the sums of their lanes,
never of an XOR, under which pairs of equal elements would vanish. Two sets that
differ and have one fingerprint: 1 in 2^96. Not against an adversary, who could
look for one; peers trust each other (docs/consistency.md).

Pure but for what a `Side` does. Source: Meyer (2022), "Range-Based Set
Reconciliation", arXiv:2212.13567.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from struct import Struct
from typing import NamedTuple, Protocol

from replication.frames import (
    ELEMENT_BYTES,
    FINGERPRINT_BYTES,
    FRAME_BYTES,
    Found,
    Item,
    Listed,
    Sums,
    Wanted,
    Writer,
    read,
)
from vstore.errors import InvalidToken
from vstore.fingerprint import lanes_of
from vstore.partition import MAX_KEY_BYTES
from vstore.ranges import KeyRange, next_key, separator

BRANCHES = 16
"""Into how many ranges one is split. Two send half the bytes in four times the messages; 64 send more."""

LIST_ROWS = 32
"""A range of so many elements, or fewer, is sent as the list of them."""

READ_ROWS = 4_096
"""A range of so many is read and split here, in a millisecond or two; a larger one by the database."""

PAGE_ROWS = 1_000
"""How many elements of a long range are compared at a time."""

_COUNTED = Struct(">5Q")

Row = tuple[str, bytes]
"""A key, and the element of a head of it: 16 bytes."""


class Sum(NamedTuple):
    """How many elements a range has, and the exact sum of each of their four lanes."""

    heads: int = 0
    lane0: int = 0
    lane1: int = 0
    lane2: int = 0
    lane3: int = 0

    def plus(self, other: Sequence[int]) -> Sum:
        """The sum of two ranges, or of two shards."""
        return Sum(*[a + b for a, b in zip(self, other, strict=True)])

    @property
    def fingerprint(self) -> bytes:
        """12 bytes that differ if the elements do."""
        return sha256(_COUNTED.pack(*self)).digest()[:FINGERPRINT_BYTES]


class Side(Protocol):
    """A set of elements in the order of keys. It may change between calls."""

    def sums(self, ranges: Sequence[KeyRange]) -> list[Sum]:
        """The sum of each range."""
        ...

    def rows(self, keys: KeyRange, limit: int) -> list[Row]:
        """The first so many elements of a range, in the order of keys, and those of one key in any order."""
        ...

    def bounds(self, keys: KeyRange, count: int, pieces: int) -> list[str]:
        """Keys inside a range of so many elements that cut it into about so many pieces of about equal size, in order.

        Fewer, or none, if many elements share a key.
        """
        ...


@dataclass(slots=True)
class Batch:
    """Some of the differences: keys, and the elements of each that one side lacks.

    `lacking` are those of the answering side, which the asking side lacks, and
    `surplus` those of the asking side. Below `upto` everything is done: in this
    batch, or in one before.
    """

    lacking: dict[str, set[bytes]] = field(default_factory=dict)
    surplus: dict[str, set[bytes]] = field(default_factory=dict)
    upto: str = ""

    def __len__(self) -> int:
        return len(self.lacking) + len(self.surplus)


# --- the answering side ----------------------------------------------------------------------------------------------


def respond(frame: bytes, side: Side, limit: int = FRAME_BYTES) -> bytes:
    """The answer to a frame. Nothing is remembered, and nothing is changed.

    Raises:
        InvalidToken: it is no frame of this protocol, or not one that asks.
    """
    items, _upto = read(frame)
    answer = Writer(limit)
    for item in items:
        if isinstance(item, Found):
            raise InvalidToken("a frame that asks has an answer in it. Nothing was changed. Compare again.")
        replies = narrowed(item, side) if isinstance(item, Sums) else _found(item, side, limit)
        for reply in replies:
            if not answer.add(reply):
                return answer.frame(reply.low)
            if isinstance(reply, Found) and reply.high < item.high:
                return answer.frame(reply.high)  # a page of it; the rest is for the next frame
    return answer.frame()


def _found(item: Listed | Wanted, side: Side, limit: int) -> Iterator[Found]:
    """The keys that a list of the other side, or its question, is answered with: a page of them, if any."""
    rows, high = _page(side, KeyRange(item.low, item.high))
    theirs = set(item.elements)
    here = {element for _, element in rows}
    lacking = sorted(row for row in rows if (row[1] in theirs) == isinstance(item, Wanted))
    surplus = () if isinstance(item, Wanted) else tuple([each for each in item.elements if each not in here])
    room = limit - ELEMENT_BYTES * len(surplus) - 4 * MAX_KEY_BYTES
    for n, (key, _element) in enumerate(lacking):
        room -= len(key.encode()) + ELEMENT_BYTES + 4
        if room < 0 and n and key != lacking[n - 1][0]:
            lacking, high = lacking[:n], key
            break
    if lacking or surplus or high < item.high:
        yield Found(item.low, high, tuple(lacking), surplus)


# --- both ------------------------------------------------------------------------------------------------------------


def narrowed(item: Sums, side: Side) -> Iterator[Sums | Listed]:
    """What a side has in those ranges where its fingerprint is another: sums of smaller ranges, or a list."""
    for start in range(0, len(item.prints), BRANCHES):
        prints = item.prints[start : start + BRANCHES]
        ranges = [KeyRange(low, high) for low, high in pairwise(item.bounds[start : start + len(prints) + 1])]
        for keys, theirs, ours in zip(ranges, prints, side.sums(ranges), strict=True):
            if ours.fingerprint != theirs:
                yield _split(side, keys, ours.heads)


def told(side: Side, keys: KeyRange) -> Sums | Listed:
    """What a side has in a range, as one fingerprint or, if it is little, as a list."""
    rows = side.rows(keys, LIST_ROWS + 1)
    if len(rows) <= LIST_ROWS:
        return _listed(keys, rows)
    [ours] = side.sums([keys])
    return Sums((keys.low, keys.high), (ours.fingerprint,))


def _split(side: Side, keys: KeyRange, count: int) -> Sums | Listed:
    if count <= READ_ROWS:
        rows = side.rows(keys, READ_ROWS + 1)
        if len(rows) <= LIST_ROWS:
            return _listed(keys, rows)
        if len(rows) <= READ_ROWS:
            return _split_rows(keys, rows)
        count = len(rows)  # it has grown meanwhile
    bounds = side.bounds(keys, count, BRANCHES)
    if not bounds:
        return _listed(keys, side.rows(keys, 1 << 62))
    ends = (keys.low, *bounds, keys.high)
    sums = side.sums([KeyRange(low, high) for low, high in pairwise(ends)])
    return Sums(ends, tuple([each.fingerprint for each in sums]))


def _split_rows(keys: KeyRange, rows: Sequence[Row]) -> Sums | Listed:
    """A range whose elements have been read, in pieces of about equal size; one key is never cut."""
    size = max(len(rows) / BRANCHES, LIST_ROWS / 4)
    ends = [keys.low]
    total, sums = Sum(), []
    for n, (key, element) in enumerate(rows):
        if n >= size * len(ends) and key != rows[n - 1][0]:
            ends.append(separator(rows[n - 1][0], key))
            sums.append(total)
            total = Sum()
        total = total.plus((1, *lanes_of(element)))
    if not sums:
        return _listed(keys, rows)
    return Sums((*ends, keys.high), tuple([each.fingerprint for each in (*sums, total)]))


def _listed(keys: KeyRange, rows: Sequence[Row]) -> Listed:
    return Listed(keys.low, keys.high, tuple(sorted(element for _, element in rows)))


def _page(side: Side, keys: KeyRange) -> tuple[list[Row], str]:
    """The elements of the first keys of a range, and up to where they are all of them."""
    rows = side.rows(keys, PAGE_ROWS + 1)
    if len(rows) <= PAGE_ROWS:
        return rows, keys.high
    last = rows[-1][0]
    whole = [row for row in rows if row[0] != last]
    if whole:
        return whole, last
    high = min(next_key(last), keys.high)
    return side.rows(KeyRange(keys.low, high), 1 << 62), high


# --- the asking side -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Heard:
    """An item of the other side that has not been looked at yet; it gives something to do from `low` on."""

    item: Item
    low: str


@dataclass(slots=True)
class Walk:
    """The asking side: what is still to be asked, and how much has been said.

    `_todo` is in the order of keys, the last item first: what is to be asked, and
    what was heard and is looked at when its turn comes.
    """

    side: Side
    ask: Callable[[bytes], bytes]
    keys: KeyRange = field(default_factory=KeyRange)
    limit: int = FRAME_BYTES
    frames: int = 0
    frame_bytes: int = 0
    _todo: list[Item | _Heard] = field(default_factory=list)

    def batches(self, rows: int = PAGE_ROWS) -> Iterator[Batch]:
        """All differences in about the order of keys, about so many at a time; at least one batch for each frame.

        Raises:
            InvalidToken: an answer is none. What was found before is right.
        """
        self._todo = [told(self.side, self.keys)]
        batch = Batch()
        while self._todo:
            frame = Writer(self.limit)
            sent: list[Item] = []
            while self._todo and len(batch) < rows:
                item = self._todo.pop()
                if isinstance(item, _Heard):
                    self._todo += reversed(self._looked_at(item, batch))
                elif frame.add(item):
                    sent.append(item)
                else:
                    self._todo.append(item)
                    break
            if sent:
                self._exchange(frame.frame(), sent)
            batch.upto = self._todo[-1].low if self._todo else self.keys.high
            yield batch
            batch = Batch()

    def _exchange(self, frame: bytes, sent: Sequence[Item]) -> None:
        answer = self.ask(frame)
        self.frames += 2
        self.frame_bytes += len(frame) + len(answer)
        items, upto = read(answer)
        _check(items, sent, upto)
        if upto:
            self._todo += reversed([self._rest(item, upto) for item in sent if item.high > upto])
        self._todo += reversed([_Heard(item, item.low) for item in items])

    def _rest(self, item: Item, upto: str) -> Item:
        """What is still to be asked of an item that was answered up to a key, or not at all."""
        if item.low >= upto:
            return item
        if isinstance(item, Wanted):
            return Wanted(upto, item.high, item.elements)
        if isinstance(item, Sums) and upto in item.bounds:
            at = item.bounds.index(upto)
            return Sums(item.bounds[at:], item.prints[at:])
        return told(self.side, KeyRange(upto, item.high))

    def _looked_at(self, heard: _Heard, batch: Batch) -> list[Item | _Heard]:
        """Notes the differences that an item of the other side shows; what is to be done next because of it."""
        item = heard.item
        if isinstance(item, Sums):
            return list(narrowed(item, self.side))
        keys = KeyRange(item.low, item.high)
        if isinstance(item, Found):
            for key, element in item.lacking:
                batch.lacking.setdefault(key, set()).add(element)
            surplus = set(item.surplus)
            while surplus and keys.low < keys.high:
                rows, high = _page(self.side, keys)
                for key, element in rows:
                    if element in surplus:
                        batch.surplus.setdefault(key, set()).add(element)
                keys = KeyRange(high, keys.high)
            return []
        assert isinstance(item, Listed)
        rows, high = _page(self.side, keys)
        theirs = set(item.elements)
        for key, element in rows:
            if element not in theirs:
                batch.surplus.setdefault(key, set()).add(element)
        left = tuple(sorted(theirs - {element for _, element in rows}))
        if high < keys.high:  # far more is here than there: page by page
            return [_Heard(Listed(high, item.high, left), heard.low)]
        return [Wanted(heard.low, item.high, left)] if left else []


def _check(items: Sequence[Item], sent: Sequence[Item], upto: str) -> None:
    """Accepts an answer that answers what was asked and gets on, or raises InvalidToken."""
    if upto and (not sent[0].low < upto < sent[-1].high or (items and items[-1].high > upto)):
        raise InvalidToken(
            "the peer's answer has not got on with what was asked. Nothing was changed because of it. Compare again."
        )
    asked = iter(sent)
    question = next(asked)
    for item in items:
        while item.high > question.high:
            following = next(asked, None)
            if following is None:
                break
            question = following
        inside = question.low <= item.low and item.high <= question.high
        if not inside or isinstance(item, Wanted) or isinstance(item, Found) == isinstance(question, Sums):
            raise InvalidToken(
                f"the peer's answer is about keys from {item.low[:60]!r} on, or of a kind, that was not asked for. "
                f"Nothing was changed because of it. Compare again."
            )
