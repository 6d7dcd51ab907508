"""The rows of a query, from documents: filtered, cut to their columns, and in order.

Rows stream: of a source that is read here, a batch at a time; of splits that
workers read, in the order of the splits, a few of them ahead of the reader. With
an order and a limit each split gives its best rows only. With an order and no
limit the rows are sorted by the engine, which has disk for it.

A split whose rows take too much memory to be sent as one is read here instead.

Errors and documents to skip are the engine's affair: a batch on which the code
fails is given to it again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from time import monotonic, perf_counter
from typing import Any

from mapreduce.collation import Identity
from mapreduce.errors import DeadlineExceeded
from mapreduce.executors import Executor
from mapreduce.executors.inline import Inline
from mapreduce.mapping import MapSplit
from mapreduce.partial import Counted, Partial
from mapreduce.progress import Teller
from mapreduce.query import code
from mapreduce.query.fields import Expression
from mapreduce.query.prefilter import Holding
from mapreduce.query.records import Fields
from mapreduce.reducers import Groups, Identify
from mapreduce.reducers.collect import Collect
from mapreduce.result import Counters
from mapreduce.spills import SpillDirectory
from mapreduce.splits import Document, Slice
from vstore.reading import OnConflict, Reading

ROWS_BYTES = 64 * 1024 * 1024  # of one split, in the memory of a worker: more are not sent, but read here
WINDOW = 4  # splits given out at a time for each worker: what a slow one can make wait in memory


@dataclass(frozen=True, eq=False)
class Selection:
    """`Work`: the rows of the documents for which `where` holds.

    One group has them all, as a list. With `order` a row stands behind its place.
    `keep` is how many of them are wanted: the first, or in order the lowest.
    """

    where: Expression | None
    columns: tuple[Expression, ...] | None
    order: code.Order | None = None
    after: bytes | None = None
    keep: int | None = None
    fields: Fields | None = None
    holding: Holding = ()
    versions: bool = False
    on_conflict: OnConflict = "winner"

    @property
    def reducer(self) -> Collect:
        return Collect()

    def reading(self) -> Reading:
        return Reading(self.on_conflict, self.fields, self.holding, self.versions)

    def folder(self, identify: Identify, /) -> Selected | Placed:
        return Selected(self)

    def finish(self, key: Any, acc: Any, /) -> Any:
        return acc

    @cached_property
    def code(self) -> Any:
        """The function from batches to rows."""
        return code.rows(self.where, self.columns, self.order, self.after, self.fields)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "code"}


class Selected:
    """The rows of some documents, while they are found."""

    def __init__(self, selection: Selection) -> None:
        """None yet."""
        self._code = selection.code
        self._keep = selection.keep
        self._ordered = selection.order is not None
        self._last: bytes | None = None  # the place of the last row that is wanted, when enough have been seen
        self.rows: list[Any] = []

    def take(self, documents: list[Document], /) -> int:
        """Adds the rows of the documents, if they are wanted."""
        keep, rows = self._keep, self.rows
        if keep is None:
            found = self._code(documents)
            rows += found
        elif not self._ordered:
            if len(rows) >= keep:
                return 0
            found = self._code(documents)
            rows += found[: keep - len(rows)]
        else:
            found = self._code(documents)
            last = self._last
            rows += found if last is None else [row for row in found if row[0] < last]
            if len(rows) > 2 * keep + 1000:
                self._cut()
        return len(found)

    def _cut(self) -> None:
        self.rows.sort(key=_place)
        del self.rows[self._keep :]
        if self.rows and len(self.rows) == self._keep:
            self._last = self.rows[-1][0]

    @property
    def groups(self) -> Groups:
        """All rows in one group."""
        if self._ordered and self._keep is not None:
            self._cut()
        return {0: self.rows} if self.rows else {}

    def __len__(self) -> int:
        return 1 if self.rows else 0


@dataclass(frozen=True, eq=False)
class Sorting(Selection):
    """`Work`: a group for each place, so that the engine's result has the rows in their order."""

    def folder(self, identify: Identify, /) -> Placed:
        return Placed(self)


class Placed:
    """Rows by their place. As text, since keys are JSON: characters up to 255 sort as the bytes."""

    def __init__(self, selection: Selection) -> None:
        """None yet."""
        self._code = selection.code
        self.groups: dict[Identity, list[Any]] = {}

    def take(self, documents: list[Document], /) -> int:
        """Adds the rows of the documents."""
        found = self._code(documents)
        for place, row in found:
            self.groups.setdefault(place.decode("latin-1"), []).append(row)
        return len(found)

    def __len__(self) -> int:
        return len(self.groups)


def _place(row: Any) -> bytes:
    return row[0]  # type: ignore[no-any-return]


@dataclass
class Reader:
    """One reading of the rows of a selection; counts as it goes."""

    selection: Selection
    executor: Executor
    skipping: bool
    deadline: float | None  # of time.monotonic()
    teller: Teller
    total: Counted = field(default_factory=Counted)
    retries: int = 0
    seconds: list[float] = field(default_factory=list)
    spills: SpillDirectory = field(default_factory=SpillDirectory)
    started: float = field(default_factory=perf_counter)

    def rows(self, splits: Sequence[Slice] | Iterator[Slice]) -> Generator[Any, None, None]:
        """The rows: with an order and a limit those of all splits, merged; else in the order of the splits.

        Raises what `run` raises. Ends what it started when it is closed.
        """
        done = False
        try:
            if self.selection.order is not None:
                yield from self._lowest(splits)
            else:
                for rows in self._batches(splits):
                    yield from rows
            done = True
        finally:
            self.teller.end(done)
            self.spills.remove()

    def counters(self) -> Counters:
        """What was done so far."""
        return Counters.of(self.total, self.seconds, self.retries, perf_counter() - self.started)

    def _lowest(self, splits: Sequence[Slice] | Iterator[Slice]) -> Iterator[Any]:
        keep = self.selection.keep
        best: list[Any] = []
        waiting: list[Any] = []
        for rows in self._batches(splits):
            waiting += rows
            if keep is not None and len(waiting) > keep + 1000:
                best, waiting = sorted(best + waiting, key=_place)[:keep], []
        yield from sorted(best + waiting, key=_place)[:keep]

    def _batches(self, splits: Sequence[Slice] | Iterator[Slice]) -> Iterator[list[Any]]:
        if isinstance(self.executor, Inline):
            for part in splits:
                yield from self._here(part)
            return
        rest = iter(splits)
        # A few splits at a time, since those that are done early wait in memory for their turn.
        while window := list(islice(rest, WINDOW * self.executor.workers)):
            yield from self._there(window)

    def _there(self, window: list[Slice]) -> Iterator[list[Any]]:
        """The rows of some splits that workers read, in the order of the splits."""
        early: dict[int, Partial] = {}
        position = 0
        with closing(self.executor.run(self._task(ROWS_BYTES), window, deadline=self.deadline)) as outcomes:
            for outcome in outcomes:
                early[outcome.number] = outcome.result if self.executor.local else outcome.result[0]
                self.retries += outcome.attempts - 1
                while position in early:
                    found = early.pop(position)
                    if found.runs:
                        yield from self._here(window[position])
                    else:
                        self._count(found)
                        yield found.groups.get(0, [])
                    position += 1

    def _here(self, part: Slice) -> Iterator[list[Any]]:
        """The rows of one split that is read in this process, batch by batch."""
        reading = self.selection.reading()
        reading.undecodable = partial(self._undecodable, part)
        rows = self.selection.code
        started, documents = perf_counter(), 0
        batches = part.batches(reading)
        try:
            for batch in batches:
                if self.deadline is not None and monotonic() >= self.deadline:
                    raise DeadlineExceeded(
                        "the deadline of the query passed. The rows that came before are good. Allow more time, or "
                        "more workers."
                    )
                try:
                    found = rows(batch)
                except Exception:
                    found = self._again(_Again(part, batch))
                else:
                    self.total.documents += len(batch)
                    self.total.pairs += len(found)
                documents += len(batch)
                self.teller.read(len(batch))
                if found:
                    yield found
        finally:
            close = getattr(batches, "close", None)
            if close:
                close()
            self.total.bytes += reading.body_bytes
            self.total.conflicts += reading.conflicts
            self.seconds.append(perf_counter() - started)
            self.teller.split(documents)

    def _again(self, part: _Again) -> list[Any]:
        """The rows of a batch on which something failed, by the engine: it names the document, or leaves it out."""
        found = self._task(1 << 62, here=True)(part)
        self.total.count(found.counted)
        return found.groups.get(0, [])  # type: ignore[no-any-return]

    def _undecodable(self, part: Slice, key: str, rev: str, error: Exception) -> None:
        self._again(_Again(part, [], (key, rev, error)))

    def _count(self, found: Partial) -> None:
        self.total.count(found.counted)
        self.seconds.append(found.seconds)
        self.teller.split(found.counted.documents)

    def _task(self, memory: int, here: bool = False) -> MapSplit:
        # Workers that do not share this disk return what they would have spilled, which then is left alone.
        far = not here and not self.executor.local
        deadline = None if far else self.deadline
        return MapSplit(self.selection, memory, self.skipping, None, self.spills, keep=far, deadline=deadline)


@dataclass(frozen=True)
class _Again:
    """A slice of one batch that was read before, or of one document that could not be decoded."""

    part: Any
    batch: list[Document]
    undecodable: tuple[str, str, Exception] | None = None

    def batches(self, reading: Reading) -> Iterator[list[Document]]:
        if self.undecodable is not None and reading.undecodable is not None:
            reading.undecodable(*self.undecodable)
        if self.batch:
            yield self.batch

    def rev_of(self, key: Any) -> str | None:
        rev_of = getattr(self.part, "rev_of", None)
        return None if rev_of is None else rev_of(key)
