"""A tree of nodes: entries in order, with the partial reduction of whatever is below a node.

    root    [────────┬─────────]      each entry: first position, rows below, partial reduction
    inner   [───┬────] [───┬───]
    leaf    [rows][rows][rows][rows]

A change rewrites the leaves that it touches and the nodes above them. Partials are
merged from left to right, so a reducer need not commute; and a range of positions
takes in whole nodes by their partial, so that it reads two nodes of each level at
most and not its rows.

Nodes have between a quarter of LEAF_ROWS (or FANOUT) entries and all of them, the
root fewer; a node of large entries has as few as its bytes allow.

Knows nothing of documents, keys or SQL. Nodes are given by `mapreduce.views.nodes`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from mapreduce.views import nodes
from mapreduce.views.nodes import Columns, Item, Nodes, Root, opened, packed, plain, unpacked
from vstore.errors import Corrupt

AHEAD = 64
"""How many nodes are read at once at most, when all of them are needed in turn."""


class Partials(Protocol):
    """How a tree makes partial reductions: each is a number, bytes, or None for none."""

    @property
    def reads(self) -> bool:
        """Whether it looks at values; if not, they are not unpacked for it."""

    def of_rows(self, keys: Sequence[Any], values: Sequence[Any]) -> Any:
        """Of the rows of a leaf. Keys may be packed still."""

    def of_partials(self, partials: Sequence[Any]) -> Any:
        """Of neighbours, from left to right."""


class Plain:
    """A tree without partial reductions."""

    reads = False

    def of_rows(self, keys: Sequence[Any], values: Sequence[Any]) -> None:
        """None."""

    def of_partials(self, partials: Sequence[Any]) -> None:
        """None."""


PLAIN = Plain()

Below: TypeAlias = tuple[Any, ...] | Columns
"""Of a node below another: its entry there if it stays as it is, or its columns if it is to be written."""


class Tree:
    """Changes to the trees of a build."""

    def __init__(self, store: Nodes, partials: Partials = PLAIN) -> None:
        """Over its nodes. What changes is written when `store` is flushed."""
        self._store = store
        self._partials = partials

    def changed(self, root: Root, removals: Sequence[bytes], additions: Sequence[Item]) -> Root:
        """The tree without the rows at some positions, and with others.

        Args:
            removals: positions, sorted; each has a row.
            additions: rows, sorted by position; where there is one already, that has to be among the removals.

        Raises:
            Corrupt: a row to remove is missing, or one to add is there. Nothing must be committed.
        """
        if not removals and not additions:
            return root
        level, columns = self._taken([root.node])[0] if root.node else (0, [[], [], [], []])
        columns = self._apply(level, columns, removals, additions)
        return self._rooted(level, columns, root.count - len(removals) + len(additions))

    def built(self, batches: Iterable[list[Item]]) -> Iterator[Root]:
        """A new tree of rows that come sorted, in batches. Yields a root without node after each, and then the root.

        Nodes are filled to three quarters, so that the first changes do not split
        them all.
        """
        waiting: list[Columns] = [[[], [], [], []]]
        count = 0
        for batch in batches:
            _extend(waiting[0], zip(*batch, strict=True))
            count += len(batch)
            self._rise(waiting)
            yield Root(0, count)
        for level in range(len(waiting) - 1):
            _extend(waiting[level + 1], self._written(level, waiting[level]))
        yield self._rooted(len(waiting) - 1, waiting[-1], count)

    def _rise(self, waiting: list[Columns]) -> None:
        level = 0
        while level < len(waiting):
            columns = waiting[level]
            size = (nodes.FANOUT if level else nodes.LEAF_ROWS) * 3 // 4
            whole = (len(columns[0]) - size) // size  # the last is held back: what is left at the end is not too small
            if whole > 0:
                if level + 1 == len(waiting):
                    waiting.append([[], [], [], [], []])
                for n in range(whole):
                    _extend(waiting[level + 1], self._packed(level, _sliced(columns, n * size, (n + 1) * size)))
                waiting[level] = _sliced(columns, whole * size, len(columns[0]))
            level += 1

    def _rooted(self, level: int, columns: Columns, count: int) -> Root:
        while len(columns[0]) > 1 or level == 0:
            entries = self._written(level, columns)
            if len(entries[0]) == 0:
                return Root()
            if len(entries[0]) == 1:
                return Root(entries[2][0], count)
            level, columns = level + 1, entries
        if not columns[0]:
            return Root()
        number = columns[2][0]  # a root with one node below is none
        while True:
            level, columns = self._opened([number])[0]
            if level == 0 or len(columns[0]) > 1:
                return Root(number, count)
            self._store.drop([number])
            number = columns[2][0]

    def _apply(self, level: int, columns: Columns, removals: Sequence[bytes], additions: Sequence[Item]) -> Columns:
        """The columns of a node after the changes: of any length."""
        if level == 0:
            _change(columns, removals, additions)
            return columns
        firsts = columns[0]
        places = [addition[0] for addition in additions]
        touched: list[tuple[int, Sequence[bytes], Sequence[Item]]] = []
        r = a = 0
        while r < len(removals) or a < len(places):
            least = min([*removals[r : r + 1], *places[a : a + 1]])
            child = max(bisect_right(firsts, least) - 1, 0)
            to_r, to_a = len(removals), len(places)
            if child + 1 < len(firsts):
                to_r, to_a = bisect_left(removals, firsts[child + 1], r), bisect_left(places, firsts[child + 1], a)
            touched.append((child, removals[r:to_r], additions[a:to_a]))
            r, a = to_r, to_a
        below: list[Below] = list(zip(*columns, strict=True))
        for start in range(0, len(touched), AHEAD):
            batch = touched[start : start + AHEAD]
            taken = self._taken([columns[2][child] for child, _, _ in batch])
            for (child, gone, new), (lower, inside) in zip(batch, taken, strict=True):
                below[child] = self._apply(lower, inside, gone, new)
        return self._joined(level - 1, below)

    def _joined(self, level: int, below: Sequence[Below]) -> Columns:
        """The entries for nodes of a level: some stay as they are, some are to be written and may be too small."""
        least = (nodes.FANOUT if level else nodes.LEAF_ROWS) // 4
        found: Columns = [[], [], [], [], []]
        pending: Columns = []  # of a node that would be too small alone: it joins the next one
        for each in below:
            if isinstance(each, tuple):
                if not pending:
                    for column, value in zip(found, each, strict=True):
                        column.append(value)
                    continue
                each = self._taken([each[2]])[0][1]
            together = self._beside(level, pending, each)
            pending = []
            if len(together[0]) < least and not self._is_large(level, together):
                pending = together if together[0] else []
            else:
                _extend(found, self._written(level, together))
        if pending:
            if found[0]:  # the last one: it joins the one before
                last = [column.pop() for column in found]
                pending = self._beside(level, self._taken([last[2]])[0][1], pending)
            _extend(found, self._written(level, pending))
        return found

    def _beside(self, level: int, left: Columns, right: Columns) -> Columns:
        """The columns of two neighbours in one. Of a node with one entry, what is below may be too small as well."""
        if not left or not left[0]:
            return right
        if not right[0]:
            return left
        if not level or (len(left[0]) > 1 and len(right[0]) > 1):
            return [a + b for a, b in zip(left, right, strict=True)]
        below: list[Below] = []
        for side in (left, right):
            below += [self._taken([side[2][0]])[0][1]] if len(side[0]) == 1 else list(zip(*side, strict=True))
        return self._joined(level - 1, below)

    def _opened(self, numbers: Sequence[int]) -> list[tuple[int, Columns]]:
        return [opened(data, values=self._partials.reads) for data in self._store.load(numbers)]

    def _taken(self, numbers: Sequence[int]) -> list[tuple[int, Columns]]:
        """The levels and columns of nodes that are then no more."""
        found = self._opened(numbers)
        self._store.drop(numbers)
        return found

    def _is_large(self, level: int, columns: Columns) -> bool:
        return len(packed(level, columns)) >= nodes.NODE_BYTES // 4

    def _written(self, level: int, columns: Columns) -> Columns:
        """Adds nodes with these columns, as many as they need; the entries for the level above."""
        most = nodes.FANOUT if level else nodes.LEAF_ROWS
        length = len(columns[0])
        pieces = -(-length // most)
        found: Columns = [[], [], [], [], []]
        for n in range(pieces):
            part = columns if pieces == 1 else _sliced(columns, n * length // pieces, (n + 1) * length // pieces)
            _extend(found, self._packed(level, part))
        return found

    def _packed(self, level: int, columns: Columns) -> Columns:
        data = packed(level, columns)
        length = len(columns[0])
        if len(data) > nodes.NODE_BYTES and length > 1:
            left = self._packed(level, _sliced(columns, 0, length // 2))
            _extend(left, self._packed(level, _sliced(columns, length // 2, length)))
            return left
        if level == 0:
            count, partial = length, self._partials.of_rows(columns[2], columns[3])
        else:
            count, partial = sum(columns[3]), self._partials.of_partials(columns[4])
        return [[columns[0][0]], [columns[1][0]], [self._store.add(data)], [count], [partial]]


def _sliced(columns: Columns, start: int, stop: int) -> Columns:
    return [column[start:stop] for column in columns]


def _extend(columns: Columns, more: Iterable[Iterable[Any]]) -> None:
    for column, values in zip(columns, more, strict=False):  # of no rows there are no columns either
        column.extend(values)


def _change(columns: Columns, removals: Sequence[bytes], additions: Sequence[Item]) -> None:
    """Takes rows out of the columns of a leaf, and puts others in."""
    positions = columns[0]
    for position in removals:
        at = bisect_left(positions, position)
        if at == len(positions) or positions[at] != position:
            raise Corrupt(_DIFFERS)
        for column in columns:
            del column[at]
    if len(additions) > len(positions) // 4:
        _extend(columns, zip(*additions, strict=True))
        order = sorted(range(len(positions)), key=positions.__getitem__)
        columns[:] = [[column[n] for n in order] for column in columns]
        if len(set(columns[0])) != len(order):
            raise Corrupt(_DIFFERS)
        return
    for addition in additions:
        at = bisect_left(positions, addition[0])
        if at < len(positions) and positions[at] == addition[0]:
            raise Corrupt(_DIFFERS)
        for column, value in zip(columns, addition, strict=True):
            column.insert(at, value)


_DIFFERS = (
    "the rows of a view differ from what it noted of their documents. Nothing was changed. rebuild() makes it anew "
    "from its documents."
)


# --- reading ---------------------------------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """Rows of one leaf in a range, ascending: their columns."""

    positions: list[bytes]
    cuts: list[int]
    keys: list[Any]
    values: list[Any]

    def part(self, start: int, stop: int) -> Leaf:
        """Some of the rows."""
        positions, cuts, keys, values = self
        return Leaf(positions[start:stop], cuts[start:stop], keys[start:stop], values[start:stop])


class Whole(NamedTuple):
    """Neighbouring nodes whose rows are all in the range and in one group, by their partials."""

    first: bytes
    cut: int
    partials: list[Any]


class Bounds(NamedTuple):
    """Positions from `low` on, up to `high`, which is not among them; None for no end."""

    low: bytes = b""
    high: bytes | None = None


GroupEnd = Callable[[bytes, int], bytes | None]
"""The bound above all positions in the group of one, which is given with its cut; None if the group has no end."""


def pieces(
    store: Nodes, root: Root, bounds: Bounds, group_end: GroupEnd | None = None, *, reverse: bool = False
) -> Iterator[Leaf | Whole]:
    """What is in a range, in order or in reverse: leaves, and for groups whole nodes by their partials."""
    if root.node:
        yield from _pieces(store, [root.node], [None], bounds, group_end, reverse)


def _pieces(
    store: Nodes,
    numbers: list[int],
    ends: list[bytes | None],
    bounds: Bounds,
    group_end: GroupEnd | None,
    reverse: bool,
) -> Iterator[Leaf | Whole]:
    """Of some neighbours; `ends` are the first positions after each, as far as they are known."""
    size = 2  # at first, since a reader may want the first rows only
    at = 0
    while at < len(numbers):
        for n, data in enumerate(store.load(numbers[at : at + size]), at):
            level, columns = unpacked(data)
            if level == 0:
                leaf = _cut(Leaf(*columns), bounds)
                if leaf.positions:
                    yield leaf
            else:
                yield from _inner(store, columns, ends[n], bounds, group_end, reverse)
        at += size
        size = min(2 * size, AHEAD)


def _inner(
    store: Nodes,
    columns: Columns,
    end: bytes | None,
    bounds: Bounds,
    group_end: GroupEnd | None,
    reverse: bool,
) -> Iterator[Leaf | Whole]:
    firsts, cuts, numbers, _counts, partials = columns
    low, high = bounds
    n = max(bisect_right(firsts, low) - 1, 0)
    stop = len(firsts) if high is None else bisect_left(firsts, high)
    parts: list[Whole | tuple[list[int], list[bytes | None]]] = []
    down: tuple[list[int], list[bytes | None]] = [], []
    while n < stop:
        to = n
        if group_end is not None and firsts[n] >= low:
            to = _inside(firsts, n, end, group_end(firsts[n], cuts[n]), high)
            if None in partials[n:to]:
                to = partials.index(None, n)
        if to > n:
            if down[0]:
                parts.append(down)
                down = [], []
            parts.append(Whole(firsts[n], cuts[n], partials[n:to]))
            n = to
        else:
            down[0].append(numbers[n])
            down[1].append(firsts[n + 1] if n + 1 < len(firsts) else end)
            n += 1
    if down[0]:
        parts.append(down)
    for part in reversed(parts) if reverse else parts:
        if isinstance(part, Whole):
            yield part
        elif reverse:
            yield from _pieces(store, part[0][::-1], part[1][::-1], bounds, group_end, reverse)
        else:
            yield from _pieces(store, part[0], part[1], bounds, group_end, reverse)


def _inside(firsts: list[bytes], n: int, end: bytes | None, group_high: bytes | None, high: bytes | None) -> int:
    """After the last of the nodes from n on that end before both bounds."""
    if group_high is None or (high is not None and high < group_high):
        group_high = high
    if group_high is None or (end is not None and end <= group_high):
        return len(firsts)
    return max(bisect_right(firsts, group_high) - 1, n)


def _cut(leaf: Leaf, bounds: Bounds) -> Leaf:
    positions = leaf.positions
    start = bisect_left(positions, bounds.low) if positions[0] < bounds.low else 0
    stop = len(positions)
    if bounds.high is not None and positions[-1] >= bounds.high:
        stop = bisect_left(positions, bounds.high)
    if start == 0 and stop == len(positions):
        return leaf
    return leaf.part(start, stop)


def values_at(store: Nodes, root: Root, positions: Sequence[bytes]) -> dict[bytes, Any]:
    """The values at some positions (sorted), where there are any."""
    found: dict[bytes, Any] = {}
    level_wanted: list[tuple[int, Sequence[bytes]]] = [(root.node, positions)] if root.node and positions else []
    while level_wanted:
        below: list[tuple[int, Sequence[bytes]]] = []
        for start in range(0, len(level_wanted), AHEAD):
            batch = level_wanted[start : start + AHEAD]
            for (_number, wanted), data in zip(batch, store.load([number for number, _ in batch]), strict=True):
                level, (firsts, *rest) = opened(data, values=False)
                if level == 0:
                    values = rest[-1]
                    for position in wanted:
                        at = bisect_left(firsts, position)
                        if at < len(firsts) and firsts[at] == position:
                            found[position] = plain(values[at])
                    continue
                numbers = rest[1]
                at = 0
                while at < len(wanted):
                    child = max(bisect_right(firsts, wanted[at]) - 1, 0)
                    to = bisect_left(wanted, firsts[child + 1], at) if child + 1 < len(firsts) else len(wanted)
                    below.append((numbers[child], wanted[at:to]))
                    at = to
        level_wanted = below
    return found
