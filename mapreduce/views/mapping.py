"""A slice of the documents, mapped: what a worker does in the build of a view.

The rows, the documents' sources and the errors each come back as sorted runs of
packed entries, so that the one who writes them need not look inside, and a merge
of all runs is all that is left to sort.

    slice ── map ──► rows ── sort ── pack ──► run 0
                     sources ─────────────► run 1
                     errors ──────────────► run 2
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from mapreduce.views.emitted import MapFunction, error_of, rows_of, source_of
from mapreduce.views.nodes import NODE_BYTES, Item, packed
from mapreduce.views.source import conflict
from vstore.reading import OnConflict, Reading
from vstore.slices import Slice

ROWS, SOURCES, ERRORS = 0, 1, 2
TREES = (ROWS, SOURCES, ERRORS)

RUN_ROWS = 200_000
"""A worker holds so many rows before it sorts and packs them."""

CHUNK_ROWS = 1_000

_position = itemgetter(0)


@dataclass
class Part:
    """What a slice came to: its number, and runs as (tree, packed entries)."""

    number: int
    documents: int = 0
    runs: list[tuple[int, list[bytes]]] = field(default_factory=list)


@dataclass(frozen=True)
class Mapping:
    """The work of a build, as a value that travels."""

    map: MapFunction
    on_conflict: OnConflict

    def __call__(self, task: tuple[int, Slice]) -> Part:
        """One slice."""
        number, part = task
        made = Part(number)
        rows: list[Item] = []
        sources: list[Item] = []
        errors: list[Item] = []
        reading = Reading(
            "winner",
            versions=self.on_conflict == "raise",
            undecodable=lambda key, _rev, error: errors.append(error_of(key, error)),
        )
        if self.on_conflict == "skip":
            reading.on_conflict = "skip"
        function = self.map
        for batch in part.batches(reading):
            made.documents += len(batch)
            for key, value in batch:
                try:
                    if reading.versions:
                        if value.conflicted:
                            raise conflict(key)
                        value = value.value
                    found = rows_of(function, key, value)
                except Exception as error:  # whatever a user's function raises
                    errors.append(error_of(key, error))
                    continue
                if found:
                    rows += found
                    sources.append(source_of(key, found))
            if len(rows) > RUN_ROWS:
                made.runs += _runs(rows, sources, errors)
                rows, sources, errors = [], [], []
        made.documents += len(errors)
        made.runs += _runs(rows, sources, errors)
        return made


def _runs(*trees: list[Item]) -> Iterator[tuple[int, list[bytes]]]:
    for tree, items in enumerate(trees):
        if items:
            items.sort(key=_position)
            yield tree, list(chunked(items))


def chunked(items: list[Item]) -> Iterator[bytes]:
    """Sorted entries, packed some at a time."""
    for start in range(0, len(items), CHUNK_ROWS):
        yield from _chunk(items[start : start + CHUNK_ROWS])


def _chunk(items: list[Item]) -> Iterator[bytes]:
    data = packed(0, list(zip(*items, strict=True)))
    if len(data) > 4 * NODE_BYTES and len(items) > 1:
        yield from _chunk(items[: len(items) // 2])
        yield from _chunk(items[len(items) // 2 :])
    else:
        yield data


def merged(runs: Iterable[Iterator[list[Item]]]) -> Iterator[list[Item]]:
    """The entries of sorted runs, sorted, in lists.

    Each round takes from every run what is not above the lowest end of what is
    at hand, and sorts that: runs in a row, which sorting in C merges faster
    than a heap in Python does.
    """
    waiting: list[tuple[list[Item], Iterator[list[Item]]]] = []
    for run in runs:
        first = next(run, None)
        if first:
            waiting.append((first, run))
    while waiting:
        bound = min(items[-1][0] for items, _ in waiting)
        taken: list[Item] = []
        left: list[tuple[list[Item], Iterator[list[Item]]]] = []
        for items, run in waiting:
            at = bisect_right(items, bound, key=_position) if items[-1][0] > bound else len(items)
            taken += items[:at]
            rest: list[Item] | None = items[at:] or next(run, None)
            if rest:
                left.append((rest, run))
        taken.sort(key=_position)
        yield taken
        waiting = left
