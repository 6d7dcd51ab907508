"""The trees of views, apart from any database: their shape, their partial reductions, and what is read of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.reducers.sums import Sum
from mapreduce.views import nodes
from mapreduce.views.mapping import merged
from mapreduce.views.nodes import Item, Nodes, Root, unpacked
from mapreduce.views.reduction import Reduction
from mapreduce.views.tree import Bounds, Leaf, Tree, Whole, pieces, values_at
from vstore.errors import Corrupt


class InMemory(Nodes):
    """Nodes in a dict; how many were loaded and written."""

    def __init__(self) -> None:
        self.last = 0
        self.data: dict[int, bytes] = {}
        self.loaded = self.written = 0

    def load(self, numbers: Sequence[int]) -> list[bytes]:
        self.loaded += len(numbers)
        return [self.data[number] for number in numbers]

    def add(self, data: bytes) -> int:
        self.written += 1
        self.last += 1
        self.data[self.last] = data
        return self.last

    def drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            del self.data[number]


SUM = Reduction(Sum())


def row(position: bytes, value: int) -> Item:
    return position, 2, None, value


def rows_in(store: InMemory, root: Root) -> list[tuple[bytes, int]]:
    """Every row in order, after checking every promise of the tree's shape."""
    seen = set()

    def below(number: int, top: bool) -> tuple[list[tuple[Any, ...]], Any]:
        seen.add(number)
        level, columns = unpacked(store.data[number])
        most = nodes.FANOUT if level else nodes.LEAF_ROWS
        length = len(columns[0])
        assert 0 < length <= most
        assert top or length >= most // 4 or len(store.data[number]) > nodes.NODE_BYTES // 4
        items = list(zip(*columns, strict=True))
        if level == 0:
            return items, SUM.of_rows(columns[2], columns[3])
        assert not top or length > 1
        found: list[tuple[Any, ...]] = []
        for first, cut, child, count, partial in items:
            under, expected = below(child, False)
            assert (first, cut) == under[0][:2]
            assert (count, partial) == (len(under), expected)
            found += under
        return found, SUM.of_partials(columns[4])

    found = below(root.node, True)[0] if root.node else []
    assert seen == set(store.data), "a node that nothing refers to"
    assert len(found) == root.count
    positions = [each[0] for each in found]
    assert positions == sorted(set(positions))
    return [(each[0], each[3]) for each in found]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "LEAF_ROWS", 8)
    monkeypatch.setattr(nodes, "FANOUT", 8)


positions = st.integers(0, 400).map(lambda n: b"%03d" % n)
contents = st.dictionaries(positions, st.integers(-9, 9), max_size=300)
changes = st.lists(st.tuples(st.lists(positions, max_size=200), contents), max_size=6)


@given(contents, changes, positions, st.none() | positions)
def test_a_tree_is_the_sorted_rows_whatever_happened(
    first: dict[bytes, int], steps: list[tuple[list[bytes], dict[bytes, int]]], low: bytes, high: bytes | None
) -> None:
    """Built, then changed by batches of any size; its shape, its partials, and every way to read it."""
    store = InMemory()
    tree = Tree(store, SUM)
    model = dict(first)
    built = sorted(model.items())
    [*_, root] = tree.built([row(*each) for each in built[n : n + 20]] for n in range(0, len(built), 20))
    assert rows_in(store, root) == built

    for removed, added in steps:
        gone = sorted({each for each in removed if each in model} | (added.keys() & model.keys()))
        root = tree.changed(root, gone, [row(*each) for each in sorted(added.items())])
        for each in gone:
            del model[each]
        model |= added
        assert rows_in(store, root) == sorted(model.items())

    inside = [each for each in sorted(model.items()) if each[0] >= low and (high is None or each[0] < high)]
    for reverse in (False, True):
        found = []
        for piece in pieces(store, root, Bounds(low, high), reverse=reverse):
            assert isinstance(piece, Leaf)
            part = list(zip(piece.positions, piece.values, strict=True))
            found += part[::-1] if reverse else part
        assert found == (inside[::-1] if reverse else inside)
        total = 0
        for each in pieces(store, root, Bounds(low, high), lambda first, cut: None, reverse=reverse):
            total += sum(each.partials if isinstance(each, Whole) else each.values)
        assert total == sum(value for _, value in inside)
    wanted = sorted({*[b"%03d" % n for n in range(0, 400, 7)], b"", b"~"})
    assert values_at(store, root, wanted) == {each: model[each] for each in wanted if each in model}


@given(contents, st.integers(1, 3))
def test_groups_are_whole_nodes_and_the_leaves_at_their_ends(model: dict[bytes, int], length: int) -> None:
    """Rows grouped by the first characters of their positions, from partials and leaves, against plain Python."""
    store = InMemory()
    root = Tree(store, SUM).changed(Root(), [], [row(*each) for each in sorted(model.items())])
    expected: dict[bytes, int] = {}
    for position, value in model.items():
        expected[position[:length]] = expected.get(position[:length], 0) + value

    for reverse in (False, True):
        found: dict[bytes, int] = {}
        for piece in pieces(store, root, Bounds(), lambda first, cut: first[:length] + b"~", reverse=reverse):
            if isinstance(piece, Whole):
                found[piece.first[:length]] = found.get(piece.first[:length], 0) + sum(piece.partials)
            else:
                for position, value in zip(piece.positions, piece.values, strict=True):
                    found[position[:length]] = found.get(position[:length], 0) + value
        assert found == expected


def test_a_change_costs_its_leaves_and_a_range_two_of_each_level() -> None:
    """Ten thousand rows, one changed; then the sum of nearly all of them."""
    store = InMemory()
    tree = Tree(store, SUM)
    root = tree.changed(Root(), [], [row(b"%05d" % n, 1) for n in range(10_000)])
    store.loaded = store.written = 0

    root = tree.changed(root, [b"05000"], [row(b"05000", 2)])
    assert (store.loaded, store.written) == (5, 5)  # one node of each level

    store.loaded = 0
    found = list(pieces(store, root, Bounds(b"00100", b"09900"), lambda first, cut: None))
    assert store.loaded <= 9
    assert sum(sum(each.partials if isinstance(each, Whole) else each.values) for each in found) == 9_801


def test_large_values_make_small_nodes() -> None:
    """A node is bounded in bytes too, unless it has one row only."""
    store = InMemory()
    tree = Tree(store)
    large = "x" * (nodes.NODE_BYTES // 3)

    root = tree.changed(Root(), [], [(b"%02d" % n, 2, None, large) for n in range(20)])
    root = tree.changed(root, [b"05"], [(b"05", 2, None, large * 9)])

    sizes = sorted(len(data) for data in store.data.values())
    assert sizes[-1] > nodes.NODE_BYTES  # that of one row
    assert sizes[-2] <= nodes.NODE_BYTES
    assert len(values_at(store, root, [b"%02d" % n for n in range(20)])) == 20


@pytest.mark.parametrize(
    ("removals", "additions"), [([b"x"], []), ([], [row(b"005", 1)]), ([], [row(b"%03d" % n, 1) for n in range(50)])]
)
def test_a_tree_that_differs_from_what_was_noted_is_damage(removals: list[bytes], additions: list[Item]) -> None:
    """A row to take out that is not there, or one to put in that is: never a silent mix."""
    store = InMemory()
    tree = Tree(store)
    root = tree.changed(Root(), [], [row(b"%03d" % n, 1) for n in range(20)])

    with pytest.raises(Corrupt, match="rebuild"):
        tree.changed(root, removals, additions)


@given(st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=60), max_size=8), st.integers(1, 20))
def test_runs_are_merged_in_order(runs: list[list[int]], size: int) -> None:
    """However long each of them is and however they are cut."""
    sorted_runs = [[row(b"%03d" % n, n) for n in sorted(run)] for run in runs]
    streams = [iter([run[n : n + size] for n in range(0, len(run), size)]) for run in sorted_runs]

    found = [item for batch in merged(streams) for item in batch]

    assert [item[3] for item in found] == sorted(n for run in runs for n in run)
