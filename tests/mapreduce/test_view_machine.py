"""A view against plain Python, whatever is written, deleted, in conflict, updated, rebuilt or read meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import vstore
from mapreduce import Sum, view
from mapreduce.collation import sort_key
from mapreduce.views import mapping, nodes, rows, source, update
from mapreduce.views.nodes import Nodes, unpacked
from mapreduce.views.states import build_of, view_of
from replication import sync
from vstore import NotFound

KEYS = [f"k{n}" for n in range(12)]
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", "ab", 0.5, 2**60])
row_keys = scalars | st.lists(scalars, max_size=3)
bodies = st.fixed_dictionaries({"rows": st.lists(st.tuples(row_keys, st.integers(-9, 9)).map(list), max_size=6)})
documents = bodies | st.just({"fails": True})


def pairs(key: str, value: Any) -> Iterator[tuple[Any, Any]]:
    """What the document lists."""
    yield from value["rows"]


def expected(values: dict[str, Any]) -> list[tuple[Any, Any, str]]:
    """The rows of a view, by plain Python."""
    found = [
        (row_key, n, key) for key, value in sorted(values.items()) if "rows" in value for row_key, n in value["rows"]
    ]
    return sorted(found, key=lambda row: (sort_key(row[0]), row[2]))


class ViewMachine(RuleBasedStateMachine):
    """One collection with a replica, and its view."""

    contexts: Bundle[Any] = Bundle("contexts")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = vstore.open(f"sqlite:///{self.folder.name}/a.db", state=f"{self.folder.name}/state")
        self.other = vstore.open(f"sqlite:///{self.folder.name}/b.db", state=f"{self.folder.name}/state")
        self.documents = self.store["d"]
        self.view = view(self.documents, "v", map=pairs, reduce=Sum(), workers=1)

    @rule(key=st.sampled_from(KEYS), value=documents)
    def put(self, key: str, value: Any) -> None:
        self.documents[key] = value

    @rule(values=st.dictionaries(st.integers(0, 300).map(str), bodies, min_size=1, max_size=60))
    def put_many(self, values: dict[str, Any]) -> None:
        self.documents.put_many(values)

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        try:
            self.documents.delete(key)
        except NotFound:
            return

    @rule(target=contexts, key=st.sampled_from(KEYS))
    def read(self, key: str) -> Any:
        try:
            return key, self.documents.read(key, on_conflict="winner", deleted=True).context
        except NotFound:
            return key, None

    @rule(seen=contexts, value=documents)
    def put_as_one_who_had_read_before(self, seen: Any, value: Any) -> None:
        key, context = seen
        self.documents.put(key, value, context=context)

    @rule(key=st.sampled_from(KEYS), value=documents)
    def put_elsewhere(self, key: str, value: Any) -> None:
        self.other["d"][key] = value

    @rule()
    def exchange(self) -> None:
        self.other["d"].setdefault("there", {"rows": []})
        self.documents.setdefault("here", {"rows": []})
        sync(self.documents, self.other["d"])

    @rule()
    def update(self) -> None:
        self.view.update()

    @rule()
    def rebuild(self) -> None:
        if self.store.handle("d") is not None:
            self.view.rebuild()

    @rule(bounds=st.tuples(row_keys, row_keys), reverse=st.booleans(), inclusive=st.booleans())
    def a_range_is_what_plain_python_finds(self, bounds: tuple[Any, Any], reverse: bool, inclusive: bool) -> None:
        low, high = sorted(bounds, key=sort_key)
        start, end = (high, low) if reverse else (low, high)

        def inside(row: tuple[Any, Any, str]) -> bool:
            place = sort_key(row[0])
            if place == sort_key(end):
                return inclusive
            return sort_key(low) <= place <= sort_key(high)

        found = [row for row in self.rows() if inside(row)]
        asked = {"start": start, "end": end, "inclusive_end": inclusive}

        assert [tuple(row) for row in self.view.rows(**asked, reverse=reverse)] == (found[::-1] if reverse else found)
        if not reverse:
            assert self.view.value(**asked) == sum(row[1] for row in found)

    @rule(level=st.integers(1, 3), reverse=st.booleans())
    def groups_are_what_plain_python_finds(self, level: int, reverse: bool) -> None:
        def group(row: tuple[Any, Any, str]) -> Any:
            return sort_key(row[0][:level] if isinstance(row[0], list) else row[0])

        found = [sum(row[1] for row in each) for _, each in groupby(self.rows(), key=group)]

        values = [row.value for row in self.view.rows(group_level=level, reverse=reverse)]
        assert values == (found[::-1] if reverse else found)
        exact = [sum(row[1] for row in each) for _, each in groupby(self.rows(), key=lambda row: sort_key(row[0]))]
        assert [row.value for row in self.view.rows(group=True)] == exact

    def values(self) -> dict[str, Any]:
        return dict(self.documents.items(on_conflict="winner"))

    def rows(self) -> list[tuple[Any, Any, str]]:
        return expected(self.values())

    @invariant()
    def the_trees_hold_what_they_say(self) -> None:
        """Counts, first positions and partials of every node; no node is left over."""
        definition = self.view._definition
        id_ = definition.id
        if id_ is None or not self.view._exists():
            return
        connection = definition.database.read()
        found = view_of(connection, id_)
        serving = build_of(connection, found.serving) if found is not None else None
        if serving is None:
            return
        store = Nodes(connection, serving.id)

        def below(number: int) -> tuple[list[bytes], Any]:
            level, columns = unpacked(store.load([number])[0])
            if not level:
                return columns[0], sum(columns[3]) if columns[3] and isinstance(columns[3][0], int) else None
            positions: list[bytes] = []
            for first, child, count, partial in zip(columns[0], *columns[2:], strict=True):
                under, total = below(child)
                assert (under[0], len(under), total) == (first, count, partial)
                positions += under
            return positions, sum(columns[4]) if None not in columns[4] else None

        for root in (serving.row_root, serving.source_root, serving.error_root):
            positions = below(root.node)[0] if root.node else []
            assert positions == sorted(set(positions))
            assert len(positions) == root.count

    def teardown(self) -> None:
        if hasattr(self, "view"):
            assert [tuple(row) for row in self.view.rows()] == self.rows()
            assert sorted(error.id for error in self.view.errors()) == sorted(
                key for key, value in self.values().items() if "rows" not in value
            )
            self.store.close()
            self.other.close()
            self.folder.cleanup()


def test_a_view_is_what_plain_python_makes_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small nodes and batches, so that few documents meet every way that trees change."""
    for module, name, value in (
        (nodes, "LEAF_ROWS", 4),
        (nodes, "FANOUT", 4),
        (mapping, "CHUNK_ROWS", 3),
        (mapping, "RUN_ROWS", 5),
        (update, "BATCH_DOCUMENTS", 7),
        (update, "VALUES", 3),
        (source, "SPLIT_DOCUMENTS", 10),
        (rows, "RESULTS_AHEAD", 5),
    ):
        monkeypatch.setattr(module, name, value)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        ViewMachine,
        settings=settings(
            max_examples=int(os.environ.get("VIEW_EXAMPLES", "30")), stateful_step_count=25, deadline=None
        ),
    )
