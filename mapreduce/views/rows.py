"""Reading a view: ranges of rows and their reductions, as questions to one state of its trees.

    bounds ─► pieces of the tree ─► rows, or groups folded from rows and partials

A reading sees one state, the one at its first row, and holds no transaction while
its reader thinks: the first RESULTS_AHEAD results are made at once, and what
others need is copied, packed as it is, to a spool in memory or, past SPOOL_BYTES,
in a temporary file.

Groups are exact keys, or arrays by their first elements. A node whose rows are all
in one group and in the range is taken by its partial.
"""

from __future__ import annotations

import base64
import tempfile
import weakref
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from msgspec import msgpack

from mapreduce.ordered import decode, encode, upper
from mapreduce.views.emitted import document_of
from mapreduce.views.nodes import Nodes, Root
from mapreduce.views.reduction import Reduction, refused
from mapreduce.views.tree import Bounds, Leaf, Whole, pieces
from vstore.errors import ConfigurationError, InvalidToken
from vstore.sql.database import Connection
from vstore.tokens import content_of, text_of

RESULTS_AHEAD = 1_000
SPOOL_BYTES = 16 * 1024 * 1024

ABOVE = b"\xff"  # after an encoded key: above all positions with that key

Group = tuple[Any, bytes, bytes]
"""A key, and the bounds of the positions that belong to it."""


class Row(NamedTuple):
    """A row of a view: the key and value that the map function yielded, and the document that it is from.

    A reduced row has the group's key and reduced value, and None for the document.
    """

    key: Any
    value: Any
    id: str | None


class _Unset:
    """Not given, where None is a key."""

    def __repr__(self) -> str:
        return "…"


UNSET: Any = _Unset()


@dataclass(frozen=True)
class Question:
    """What is asked of a view: checked, and in bytes."""

    ranges: tuple[Bounds, ...]
    reverse: bool
    limit: int | None
    group_level: int | None  # None: rows; 0: all in one; -1: exact keys; n: arrays by their first n elements
    cursor: Cursor | None


class Cursor(NamedTuple):
    """A place to go on from: in which range, and the bound there."""

    range: int
    bound: bytes

    @classmethod
    def parse(cls, text: str, reverse: bool, ranges: int) -> Cursor:
        """From what `after` gave. Raises InvalidToken if it is none, or of another order."""
        try:
            form, down, number, bound = content_of(text)
            made = cls(number, base64.b64decode(bound))
            if form != 1 or type(number) is not int or not 0 <= number < ranges or made.text(down) != text:
                raise ValueError("not as it was given out")
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidToken(
                f"after={str(text)[:40]!r} is not a cursor of this question. Nothing was read. Take `after` of the "
                f"rows that come before, and ask the same question."
            ) from error
        if bool(down) != reverse:
            raise InvalidToken("after= is of the other order. Nothing was read. Ask with the same reverse=.")
        return made

    def text(self, reverse: bool) -> str:
        """As it is given out."""
        return text_of([1, int(reverse), self.range, base64.b64encode(self.bound).decode()])


def question(
    *,
    key: Any = UNSET,
    keys: Sequence[Any] | None = None,
    start: Any = UNSET,
    end: Any = UNSET,
    inclusive_end: bool = True,
    reverse: bool = False,
    limit: int | None = None,
    after: str | None = None,
    group: bool = False,
    group_level: int | None = None,
    reduce: bool | None = None,
) -> Question:
    """The arguments of `View.rows`, checked. Raises ConfigurationError, InvalidToken; TypeError for what is no key."""
    given = [name for name, value in (("key", key), ("start/end", (start, end))) if _is_given(value)]
    given += ["keys"] if keys is not None else []
    if len(given) > 1:
        raise ConfigurationError(f"rows() with {' and '.join(given)} refused: give one of them. Nothing was read.")
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ConfigurationError(f"limit={limit!r} refused: a number of rows from 0 on. Nothing was read.")
    if group_level is not None and (type(group_level) is not int or group_level < 0):
        raise ConfigurationError(f"group_level={group_level!r} refused: a number from 0 on. Nothing was read.")
    if reduce is False and (group or group_level is not None):
        raise ConfigurationError("rows() with group and reduce=False refused: groups are reduced. Nothing was read.")
    if key is not UNSET:
        ranges = [_of_key(key)]
    elif keys is not None:
        ranges = [_of_key(each) for each in (reversed(keys) if reverse else keys)]
    else:
        ranges = [_between(start, end, inclusive_end, reverse)]
    level = -1 if group and group_level is None else group_level
    if level is None and reduce:
        level = 0
    if level == 0 and keys is not None:
        ranges = sorted(set(ranges), reverse=reverse)  # one group, merged in the order of keys
    cursor = None if after is None else Cursor.parse(after, reverse, len(ranges))
    if cursor is not None and level == 0:
        raise ConfigurationError("after= with a single reduced row refused. Nothing was read.")
    return Question(tuple(ranges), reverse, limit, level, cursor)


def _is_given(value: Any) -> bool:
    return any(each is not UNSET for each in value) if type(value) is tuple else value is not UNSET


def _of_key(key: Any) -> Bounds:
    low = encode(key)
    return Bounds(low, low + ABOVE)


def _between(start: Any, end: Any, inclusive_end: bool, reverse: bool) -> Bounds:
    """As CouchDB has it: reading begins at `start`, so that of a reversed range it is the upper end."""
    first = None if start is UNSET else encode(start)
    last = None if end is UNSET else encode(end)
    if first is not None and last is not None and (first < last if reverse else first > last):
        raise ConfigurationError(
            f"rows(start={start!r}, end={end!r}, reverse={reverse}) refused: reading begins at start, so it would find "
            f"nothing. Nothing was read. Exchange the two, or the order."
        )
    if reverse:
        low = b"" if last is None else last if inclusive_end else last + ABOVE
        return Bounds(low, None if first is None else first + ABOVE)
    high = None if last is None else last + ABOVE if inclusive_end else last
    return Bounds(first or b"", high)


class Answer:
    """The results to a question, made from one state: rows with the cursor after each."""

    def __init__(
        self,
        connection: Connection,
        build: int,
        root: Root,
        asked: Question,
        reduction: Reduction | None,
        partials: bool,
    ) -> None:
        """Reads what is needed through a connection of a snapshot; nothing afterwards.

        Args:
            partials: whether the nodes' partials are of this reduction.
        """
        self._asked = asked
        self._reduction = reduction
        self._partials = partials
        self._root = root
        self._last: Group = (None, b"", b"")
        self._feed = _Feed(self._read(Nodes(connection, build)))
        results = islice(self._results(), asked.limit)
        self._ahead = list(islice(results, RESULTS_AHEAD))
        self._rest: Iterator[tuple[Row, Cursor]] = iter(())
        if len(self._ahead) == RESULTS_AHEAD and asked.limit != RESULTS_AHEAD:
            self._feed.keep()
            self._rest = results

    def __iter__(self) -> Iterator[tuple[Row, Cursor]]:
        yield from self._ahead
        yield from self._rest

    # --- from the trees ----------------------------------------------------------------------------------------------

    def _read(self, store: Nodes) -> Iterator[tuple[int, Leaf | Whole]]:
        asked = self._asked
        for number, bounds in enumerate(asked.ranges):
            if asked.cursor is not None:
                if number < asked.cursor.range:
                    continue
                if number == asked.cursor.range:
                    bounds = _after(bounds, asked.cursor.bound, asked.reverse)
            group_end = None
            if self._partials and asked.group_level is not None:
                group_end = self._group_end
            for piece in pieces(store, self._root, bounds, group_end, reverse=asked.reverse):
                yield number, piece

    def _group_end(self, first: bytes, cut: int) -> bytes | None:
        return None if self._asked.group_level == 0 else self._group(first, cut)[2]

    # --- to results --------------------------------------------------------------------------------------------------

    def _results(self) -> Iterator[tuple[Row, Cursor]]:
        return self._rows() if self._asked.group_level is None else self._groups()

    def _rows(self) -> Iterator[tuple[Row, Cursor]]:
        reverse = self._asked.reverse
        for number, leaf in self._feed:
            assert isinstance(leaf, Leaf)
            rows = list(zip(*leaf, strict=True))
            for position, cut, key, value in reversed(rows) if reverse else rows:
                bound = position if reverse else position + b"\x00"
                yield Row(key, value, document_of(position, cut)), Cursor(number, bound)

    def _groups(self) -> Iterator[tuple[Row, Cursor]]:
        reduction = self._reduction
        assert reduction is not None
        reverse = self._asked.reverse
        at: int | None = None
        group: Group | None = None
        acc: Any = None
        for number, piece in self._feed:
            for first, cut, part in self._parts(piece, reverse):
                if group is None or (number != at and group[1]) or not group[1] <= first < group[2]:
                    if group is not None and at is not None:
                        yield self._result(at, group, acc)
                    at, group = number, self._group(first, cut)
                    acc = self._of(part, group[0])
                    continue
                more = self._of(part, group[0])
                try:
                    acc = reduction.merge(more, acc) if reverse else reduction.merge(acc, more)
                except Exception as error:
                    raise refused(group[0], error) from error
        if group is not None and at is not None:
            yield self._result(at, group, acc)

    def _parts(self, piece: Leaf | Whole, reverse: bool) -> Iterator[tuple[bytes, int, Leaf | Whole]]:
        """A piece by groups: a first position and its cut, and what is of its group from there on."""
        if isinstance(piece, Whole):
            yield piece.first, piece.cut, piece
            return
        found = []
        start = 0
        while start < len(piece.positions):
            group = self._group(piece.positions[start], piece.cuts[start])
            stop = len(piece.positions)
            if piece.positions[-1] >= group[2]:
                stop = bisect_left(piece.positions, group[2], start)
            part = piece.part(start, stop)
            found.append((piece.positions[start], piece.cuts[start], part))
            start = stop
        yield from reversed(found) if reverse else found

    def _of(self, part: Leaf | Whole, key: Any) -> Any:
        assert self._reduction is not None
        try:
            if isinstance(part, Whole):
                return self._reduction.merged(part.partials)
            return self._reduction.fold(part.keys, part.values)
        except Exception as error:
            raise refused(key, error) from error

    def _group(self, position: bytes, cut: int) -> Group:
        """The group of a position; neighbours are mostly of the same."""
        if not self._last[1] <= position < self._last[2]:
            self._last = self._group_anew(position, cut)
        return self._last

    def _group_anew(self, position: bytes, cut: int) -> Group:
        level = self._asked.group_level
        if level == 0:
            return None, b"", ABOVE
        whole = position[:cut]
        key = decode(whole)
        if level is not None and level > 0 and isinstance(key, list) and len(key) >= level:
            key = key[:level]
            return key, encode(key), upper(key)
        return key, whole, whole + ABOVE

    def _result(self, number: int, group: Group, acc: Any) -> tuple[Row, Cursor]:
        assert self._reduction is not None
        key, low, high = group
        try:
            value = self._reduction.finish(key, acc)
        except Exception as error:
            raise refused(key, error) from error
        return Row(key, value, None), Cursor(number, low if self._asked.reverse else high)


def _after(bounds: Bounds, bound: bytes, reverse: bool) -> Bounds:
    if reverse:
        return Bounds(bounds.low, bound if bounds.high is None else min(bound, bounds.high))
    return Bounds(max(bound, bounds.low), bounds.high)


class _Feed:
    """Pieces as they are read, until they are kept; then from where they are kept."""

    def __init__(self, source: Iterator[tuple[int, Leaf | Whole]]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[tuple[int, Leaf | Whole]]:
        while True:
            piece = next(self._source, None)  # asked each time: `keep` exchanges it
            if piece is None:
                return
            yield piece

    def keep(self) -> None:
        """Copies all that is left to a spool."""
        spool = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115  # closed by its reader, or when he is gone
        weakref.finalize(self, spool.close)
        for number, piece in self._source:
            data = msgpack.encode([number, isinstance(piece, Whole), *piece])
            spool.write(len(data).to_bytes(8))
            spool.write(data)
        spool.seek(0)
        self._source = _spooled(spool)


def _spooled(spool: Any) -> Iterator[tuple[int, Leaf | Whole]]:
    with spool:
        while head := spool.read(8):
            number, whole, *columns = msgpack.decode(spool.read(int.from_bytes(head)))
            yield number, Whole(*columns) if whole else Leaf(*columns)
