"""Queries: what is asked of documents, put together step by step, and asked when it is iterated over.

    adults = query(people).where(F.age >= 18)
    adults.select("name", age_in_months=F.age * 12).order_by("-age_in_months").limit(10)
    adults.group_by(F.city).aggregate(n=Count(), oldest=Max(F.age)).where(F.n > 100).order_by("-n")

A query is a value: every step gives a new one, and each iteration reads its
source again. Rows are dicts in the order of the columns; a column that is
missing in a document is missing in its row. Without `select` and `group_by` the
rows are the documents, as (key, value).

A query with groups has two halves. Before `group_by` and `aggregate`, F is the
document; after them, F is a row of groups and figures:

    documents ─► where ─► group_by, aggregate ─► where ─► select ─► order_by ─► offset, limit

Keeps out: how it is read (`plan`), and what is done with a document (`code`).
"""

from __future__ import annotations

import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from zlib import crc32

from mapreduce.engine import OnError, execute
from mapreduce.errors import NotOneRow
from mapreduce.executors import Executor
from mapreduce.executors.inline import Inline
from mapreduce.job import MEMORY, check_limits, check_policies
from mapreduce.partial import Skipped
from mapreduce.progress import ProgressFunction, Teller
from mapreduce.query.aggregate import Aggregate, Figure, figure
from mapreduce.query.code import Order, group_values
from mapreduce.query.fields import About, Expression, Function, Path, about, operand, path, steps
from mapreduce.query.meaning import MISSING
from mapreduce.query.plan import Choice, Plan, choice, described, order_text
from mapreduce.query.selection import Reader, Selection, Sorting
from mapreduce.reducers import Reducer
from mapreduce.reducers.sums import Count
from mapreduce.result import Counters, Result
from mapreduce.splits import cut, several
from mapreduce.work import Work
from vstore.errors import ConfigurationError
from vstore.ranges import KeyRange
from vstore.reading import OnConflict

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Column = tuple[str, Expression]


@dataclass(frozen=True, eq=False)
class Options:
    """How a query is to be run, which changes nothing of its rows; and what is done with conflicts and errors."""

    workers: int | None = None
    executor: Executor | Any = None
    on_conflict: OnConflict = "winner"
    on_error: OnError = "raise"
    memory: int = MEMORY
    deadline: float | None = None
    progress: bool | ProgressFunction | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """What a query asks. `by` and `figures` are None while there are no groups."""

    where: Expression | None = None
    columns: tuple[Column, ...] | None = None
    by: tuple[Column, ...] | None = None
    figures: tuple[tuple[str, Figure], ...] | None = None
    having: Expression | None = None
    shown: tuple[Column, ...] | None = None
    order: tuple[Any, ...] = ()
    limit: int | None = None
    offset: int = 0
    after: str | None = None

    @property
    def grouped(self) -> bool:
        return self.by is not None or self.figures is not None


class Found(NamedTuple):
    """A row, and its place in the order if there is one."""

    place: bytes | None
    row: Any


class Cursor(NamedTuple):
    """The last row that was read: its place in the order, and how many rows of that very place have been read.

    Rows share a place where several sources have documents of the same key.
    """

    place: bytes
    rows: int


def query(
    over: Any,
    *,
    workers: int | None = None,
    executor: Executor | Any = None,
    on_conflict: Literal["winner", "skip", "raise"] = "winner",
    on_error: Literal["raise", "skip"] = "raise",
    memory: int = MEMORY,
    deadline: float | None = None,
    progress: bool | ProgressFunction | None = None,
) -> Query:
    """A query over documents, to be refined by its methods.

    Args:
        over: what `run` takes: a collection, one with a prefix, a snapshot,
            `posts.at(moment)`, a history scan (whose rows are versions), a list
            of these, a mapping of documents, or an iterable of (key, value)
            pairs. An iterator can be read once only.
        workers: processes; by default as many as pay, by the estimate that
            `explain` shows.
        executor: another place for the work, such as `Dask("tcp://…")`.
        on_conflict: "winner", "skip" or "raise", for documents with several
            live siblings.
        on_error: "skip" leaves out documents that cannot be decoded, and counts
            them; "raise" ends the query.
        memory: bytes that groups, or rows to be sorted, may take in each process
            before they go to disk.
        deadline: seconds after which reading the rows is given up.
        progress: True shows it on stderr, if that is a terminal; a function
            gets a `Progress`.

    Raises:
        ConfigurationError: an argument cannot be used.
    """
    check_policies(on_conflict, on_error)
    check_limits(memory, deadline)
    if workers is not None and workers < 1:
        raise ConfigurationError(f"workers= is {workers}; at least one is needed. Nothing was run.")
    return Query(over, Options(workers, executor, on_conflict, on_error, memory, deadline, progress))


@dataclass(eq=False)
class Query:
    """A question to documents; see the module, and `query`.

    Nothing is read until the rows are asked for, by iterating or by `count`,
    `first`, `one` and the `to_...` methods. Reading again asks again: over a
    collection it then sees what was written meanwhile, and over a snapshot the
    same. One reading is exact: all its rows are of one moment.

    After an iteration, or a part of one, `counters` says what was read and
    `skipped` which documents were left out. With an order, `cursor` is the place
    of the last row, for `after`.

    Raised while reading: what `run` raises. Rows that came before are good.
    """

    _over: Any
    _options: Options = field(default_factory=Options)
    _asked: Asked = field(default_factory=Asked)

    def __post_init__(self) -> None:
        self.counters: Counters | None = None
        self.skipped: list[Skipped] = []
        self._cursor: Cursor | None = None

    # what is asked

    def where(self, *conditions: Expression) -> Query:
        """Only documents for which all conditions hold; after `group_by` or `aggregate`, only such groups.

        Several calls add up. Conditions are expressions of `F`, `where(F.paid, F.year > 2020)`.
        """
        found = self._asked.having if self._asked.grouped else self._asked.where
        for condition in conditions:
            if not isinstance(condition, Expression):
                raise ConfigurationError(
                    f"where() is given {condition!r}; pass conditions such as F.year > 2020. For a Python function use "
                    f"run(where=...)."
                )
            found = condition if found is None else found & condition
        if self._asked.grouped:
            _no_documents(found)
            return self._with(having=found)
        return self._with(where=found)

    def select(self, /, *columns: Any, **named: Any) -> Query:
        """The columns of the rows: paths, as `F.a.b` or "a.b", which are their names too; and `name=expression`.

        After `group_by` and `aggregate` it chooses among their columns. Several
        calls add up.
        """
        grouped = self._asked.grouped
        read = _column_of_group if grouped else _path
        found = [(_name(column), read(column)) for column in columns]
        found += [
            (name, read(column) if isinstance(column, str) else operand(column)) for name, column in named.items()
        ]
        asked = (*((self._asked.shown if grouped else self._asked.columns) or ()), *found)
        _different(name for name, _ in asked)
        if grouped:
            for _, expression in found:
                _no_documents(expression)
            return self._with(shown=asked)
        return self._with(columns=asked)

    def group_by(self, /, *columns: Any, **named: Any) -> Query:
        """One row for each different combination of these values: paths, or `name=expression`.

        Values are the same as in comparisons: 1 and 1.0 are one group. Documents
        without a value are a group of their own, whose row lacks the column.
        """
        if self._asked.columns is not None or self._asked.grouped:
            raise ConfigurationError(
                "group_by() comes once, before aggregate(), and not after select(): the columns of groups are what "
                "they are grouped by, and their figures."
            )
        by = [(_name(column), _path(column)) for column in columns]
        by += [(name, _path(column)) for name, column in named.items()]
        if not by:
            raise ConfigurationError("group_by() is given nothing; for one row over all documents use aggregate().")
        _different(name for name, _ in by)
        return self._with(by=tuple(by))

    def aggregate(self, /, **figures: Reducer) -> Query:
        """Figures of each group, or without `group_by` of all documents in one row: `n=Count(), score=Mean(F.score)`.

        Values that are missing or null are left out; of sums, means and the like
        also everything that is no number. `Count()` counts documents, and
        `Count(F.x)` those with a value. `First` and `Last` go by `Doc.stamp`
        unless their `by` says otherwise. Of no values a sum is 0, and most others
        are None.
        """
        if self._asked.columns is not None or self._asked.figures is not None:
            raise ConfigurationError("aggregate() comes once, and not after select().")
        if not figures:
            raise ConfigurationError("aggregate() is given nothing; pass figures, such as n=Count().")
        found = tuple((name, figure(name, reducer)) for name, reducer in figures.items())
        _different([*(name for name, _ in self._asked.by or ()), *figures])
        return self._with(figures=found)

    def order_by(self, *order: Any) -> Query:
        """Rows sorted: by columns' names or paths, "-n" or -F.n for the highest first; several calls add up.

        Missing comes before null, then as in comparisons. Ties are sorted by the
        document's key, or by the group, so the order is always the same. With
        `limit`, only that many rows are held; without, the engine sorts, on disk
        if need be.
        """
        if not order:
            raise ConfigurationError("order_by() is given nothing; pass columns, such as '-n' or F.name.")
        for item in order:
            if not isinstance(item, str | Expression):
                raise ConfigurationError(f"order_by() is given {item!r}; pass columns, such as '-n' or F.name.")
            if self._asked.grouped and isinstance(item, Expression):
                _no_documents(item)
        return self._with(order=(*self._asked.order, *order))

    def limit(self, rows: int | None) -> Query:
        """At most so many rows; None for all."""
        if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 0):
            raise ConfigurationError(f"limit() is given {rows!r}; pass a number of rows, or None.")
        return self._with(limit=rows)

    def offset(self, rows: int) -> Query:
        """Without the first so many rows. Large offsets cost as much as the rows; `after` does not."""
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
            raise ConfigurationError(f"offset() is given {rows!r}; pass a number of rows.")
        return self._with(offset=rows)

    def after(self, cursor: str | None) -> Query:
        """Only rows beyond a place in the order, which `cursor` had after rows of the same order were read.

        Also right when documents were written or deleted meanwhile. None is the
        beginning.
        """
        return self._with(after=cursor)

    # what comes of it

    def __iter__(self) -> Iterator[Any]:
        """The rows, read as they are asked for."""
        last = self._after()
        for found in self._found(last):
            if found.place is not None:
                same = last is not None and found.place == last.place
                self._cursor = last = Cursor(found.place, 1 + (last.rows if last is not None and same else 0))
            yield found.row

    @property
    def columns(self) -> list[str] | None:
        """The names of the columns in their order; None if the rows are documents."""
        asked = self._asked
        if asked.grouped:
            if asked.shown is not None:
                return [name for name, _ in asked.shown]
            return [*(name for name, _ in asked.by or ()), *(name for name, _ in asked.figures or ())]
        return None if asked.columns is None else [name for name, _ in asked.columns]

    @property
    def cursor(self) -> str | None:
        """The place of the last row that was read, to go on with `after`; None without an order."""
        if self._cursor is None:
            return None
        place, rows = self._cursor
        return urlsafe_b64encode(self._order_mark() + rows.to_bytes(4) + place).decode()

    def count(self) -> int:
        """How many rows there are. Without conditions and groups, from the keys alone."""
        asked = self._asked
        if asked.grouped or asked.after is not None:
            return sum(1 for _ in self)
        if asked.where is None and self._options.on_conflict == "winner" and self._sized:
            rows = sum(map(len, self._over)) if several(self._over) else len(self._over)
        else:
            plain = Asked(where=asked.where, figures=(("n", figure("n", Count())),))
            counting = Query(self._over, self._options, plain)
            rows = next(iter(counting))["n"]
            self.counters, self.skipped = counting.counters, counting.skipped
        rows = max(0, rows - asked.offset)
        return rows if asked.limit is None else min(rows, asked.limit)

    def first(self) -> Any:
        """The first row, or None if there is none."""
        return next(iter(self._rows_of(1)), None)

    def one(self) -> Any:
        """The only row.

        Raises:
            NotOneRow: there is none, or more than one.
        """
        rows = self._rows_of(2)
        if len(rows) != 1:
            found = "none" if not rows else "more than one"
            raise NotOneRow(
                f"exactly one row was expected, and there is {found}: {self!r}. first() takes what there is."
            )
        return rows[0]

    def explain(self) -> Plan:
        """What reading the rows will do, and about how long it takes. Nothing is read but an estimate of the size."""
        return described(self._choice(), self._over, self._steps())

    def to_arrow(self, **options: Any) -> pyarrow.Table:
        """All rows as a `pyarrow.Table`; see `mapreduce.query.frames`."""
        from mapreduce.query import frames

        return frames.to_arrow(self._framed(), self.columns, **options)

    def to_pandas(self, **options: Any) -> pandas.DataFrame:
        """All rows as a `pandas.DataFrame`; see `mapreduce.query.frames`."""
        from mapreduce.query import frames

        return frames.to_pandas(self._framed(), self.columns, **options)

    def to_polars(self, **options: Any) -> polars.DataFrame:
        """All rows as a `polars.DataFrame`; see `mapreduce.query.frames`."""
        from mapreduce.query import frames

        return frames.to_polars(self._framed(), self.columns, **options)

    def __repr__(self) -> str:
        return f"<Query over {type(self._over).__name__}: {'; '.join(self._steps()) or 'all documents'}>"

    # how it comes

    def _with(self, **asked: Any) -> Query:
        return Query(self._over, self._options, replace(self._asked, **asked))

    @property
    def _sized(self) -> bool:
        sources: Iterable[Any] = self._over if several(self._over) else (self._over,)
        return all(isinstance(source, Sized) for source in sources)

    def _rows_of(self, most: int) -> list[Any]:
        limit = self._asked.limit
        some = self._with(limit=most if limit is None else min(limit, most))
        rows = list(some)
        self.counters, self.skipped, self._cursor = some.counters, some.skipped, some._cursor
        return rows

    def _framed(self) -> Iterable[Any]:
        return self if self.columns is not None else iter(self)  # (key, value) pairs are read as documents

    def _choice(self) -> Choice:
        asked, options = self._asked, self._options
        looked_at: list[Expression] | None = None
        if asked.grouped:
            looked_at = [expression for _, expression in asked.by or ()]
            looked_at += [expression for _, figure in asked.figures or () for expression in figure.expressions]
        elif asked.columns is not None:
            looked_at = [expression for _, expression in asked.columns] + [by for by, _ in self._order()]
        sent = 0 if asked.grouped else self._wanted
        return choice(self._over, asked.where, looked_at, sent, options.workers, options.executor)

    def _found(self, after: Cursor | None) -> Iterator[Found]:
        asked = self._asked
        self.counters, self.skipped, self._cursor = NOTHING, [], None
        order = self._order()
        if asked.grouped:
            return self._groups(order, after)
        made = self._choice()
        selection = Selection(
            asked.where,
            None if asked.columns is None else tuple(expression for _, expression in asked.columns),
            order or None,
            None if after is None else after.place,
            None,
            made.fields,
            made.holding,
            made.versions or any(about(by) - {"key"} for by, _ in order),
            self._options.on_conflict,
        )
        rows = self._rows(selection, made, self._options, after)
        return rows if asked.columns is None else _dicts([name for name, _ in asked.columns], rows)

    def _groups(self, order: Order, after: Cursor | None) -> Iterator[Found]:
        asked, options, made = self._asked, self._options, self._choice()
        started = monotonic()
        by, figures = asked.by or (), asked.figures or ()
        work = Aggregate(
            asked.where,
            tuple(expression for _, expression in by),
            tuple(figure for _, figure in figures),
            made.fields,
            made.holding,
            made.versions,
            options.on_conflict,
        )
        with closing(self._result(work, made, options)) as result:
            names = [*(name for name, _ in by), *(name for name, _ in figures)]
            groups: Iterable[Any] = result
            if not by and not len(result):
                groups = [([], work.reducer.finish(work.reducer.zero()))]  # of no documents there are figures, too
            pairs = ((key, _row(names, [*group_values(key), *values])) for key, values in groups)
            if asked.having is None and asked.shown is None and not order:
                yield from self._limited(Found(None, row) for _, row in pairs)
                return
            shown = None if asked.shown is None else tuple(expression for _, expression in asked.shown)
            here = Choice(pairs, KeyRange(), Inline(), None, (), False, None, None)
            left = None if options.deadline is None else max(options.deadline - (monotonic() - started), 1e-9)
            rest = replace(options, deadline=left, progress=None)
            kept = (self.counters, self.skipped)
            place = None if after is None else after.place
            rows = self._rows(Selection(asked.having, shown, order or None, place), here, rest, after)
            if asked.shown is not None:
                rows = _dicts([name for name, _ in asked.shown], rows)
            else:
                rows = (Found(place, row) for place, (_, row) in rows)
            for found in rows:
                self.counters, self.skipped = kept
                yield found
            self.counters, self.skipped = kept

    @property
    def _wanted(self) -> int | None:
        """How many rows in all, those of the offset included."""
        asked = self._asked
        return None if asked.limit is None else min(asked.offset + asked.limit, sys.maxsize)

    def _limited(self, rows: Iterator[Found]) -> Iterator[Found]:
        return islice(rows, min(self._asked.offset, sys.maxsize), self._wanted)

    def _rows(self, selection: Selection, made: Choice, options: Options, after: Cursor | None) -> Iterator[Found]:
        """The rows of a selection that are wanted, in its order."""
        known = 0 if after is None else after.rows
        if selection.order is None or self._few:
            keep = None if self._wanted is None else self._wanted + known
            rows = self._read(replace(selection, keep=keep), made, options)
        else:
            rows = self._sorted(selection, made, options)
        return self._limited(rows if after is None else _beyond(after, rows))

    @property
    def _few(self) -> bool:
        """Whether the wanted rows can be held."""
        return self._wanted is not None and self._wanted <= HELD_ROWS

    def _result(self, work: Work, made: Choice, options: Options) -> Result:
        """What the engine makes of some work, counted."""
        result = execute(
            work,
            made.over,
            executor=made.executor,
            memory=options.memory,
            deadline=options.deadline,
            on_error=options.on_error,
            progress=options.progress,
        )
        self.counters, self.skipped = result.counters, result.skipped
        return result

    def _sorted(self, selection: Selection, made: Choice, options: Options) -> Iterator[Found]:
        work = Sorting(**{name: value for name, value in vars(selection).items() if name != "code"})
        with closing(self._result(work, made, options)) as result:
            for place, rows in result:
                for row in rows:
                    yield Found(place.encode("latin-1"), row)

    def _read(self, selection: Selection, made: Choice, options: Options) -> Iterator[Found]:
        splits = cut(made.over, made.executor.workers)
        reader = Reader(
            selection,
            made.executor,
            options.on_error == "skip",
            None if options.deadline is None else monotonic() + options.deadline,
            Teller(options.progress, made.documents, len(splits) if isinstance(splits, Sequence) else None),
        )
        ordered = selection.order is not None
        try:
            with closing(reader.rows(splits)) as rows:
                for row in rows:
                    yield Found(*row) if ordered else Found(None, row)
        finally:
            self.counters, self.skipped = reader.counters(), reader.total.skips

    def _order(self) -> Order:
        """What rows are sorted by, with names looked up."""
        asked = self._asked
        named = dict((asked.shown if asked.grouped else asked.columns) or ())
        if asked.grouped:
            made = [*(name for name, _ in asked.by or ()), *(name for name, _ in asked.figures or ())]
            named = {**{name: Path((name,)) for name in made}, **named}
        found = []
        for item in asked.order:
            if isinstance(item, Function) and item.name == "negative":
                found.append((item.subject, True))
            elif isinstance(item, Expression):
                found.append((item, False))
            else:
                name, down = (item[1:], True) if item.startswith("-") and item not in named else (item, False)
                if name not in named and asked.grouped:
                    raise ConfigurationError(f"order_by({item!r}) names no column; there are {', '.join(named)}.")
                found.append((named[name] if name in named else path(name), down))
        return found

    def _order_mark(self) -> bytes:
        text = order_text([*self._order(), *((by, False) for _, by in self._asked.by or ())])
        return crc32(text.encode()).to_bytes(4)

    def _after(self) -> Cursor | None:
        cursor = self._asked.after
        if cursor is None:
            return None
        if not self._asked.order:
            raise ConfigurationError("after() needs an order: add order_by(Doc.key), for example. Nothing was read.")
        try:
            data = urlsafe_b64decode(cursor)
        except (Base64Error, ValueError, TypeError):
            data = b""
        if len(data) < 8 or data[:4] != self._order_mark():
            raise ConfigurationError(
                f"after({cursor!r}) is no cursor of this order; take it from the `cursor` of a query with the same "
                f"order_by(). Nothing was read."
            )
        return Cursor(data[8:], int.from_bytes(data[4:8]))

    def _steps(self) -> list[str]:
        asked = self._asked
        found = [] if asked.where is None else [f"where {asked.where!r}"]
        if asked.by is not None:
            found.append(f"group by {_columns(asked.by)}")
        if asked.figures is not None:
            found.append(f"aggregate {', '.join(f'{name} = {figure.reducer!r}' for name, figure in asked.figures)}")
        found += [] if asked.having is None else [f"where {asked.having!r}"]
        chosen = asked.shown if asked.grouped else asked.columns
        if chosen is not None:
            found.append(f"select {_columns(chosen)}")
        if asked.order:
            how = "the lowest are kept" if self._few else "sorted, on disk if need be"
            found.append(f"order by {order_text(self._order())} ({how})")
        found += [f"after {asked.after}"] if asked.after is not None else []
        found += [f"offset {asked.offset}"] if asked.offset else []
        return [*found, *([f"limit {asked.limit}"] if asked.limit is not None else [])]


NOTHING = Counters(0, 0, 0, 0, 0, 0, 0, 0, 0.0, ())

HELD_ROWS = 100_000  # that are kept in memory for an order with a limit; more are sorted by the engine


def _row(names: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not MISSING}


def _beyond(after: Cursor, rows: Iterator[Found]) -> Iterator[Found]:
    """Rows from the place of the cursor on, without those there that were read before it."""
    known = after.rows
    for found in rows:
        if found.place == after.place and known:
            known -= 1
        else:
            yield found


def _dicts(names: Sequence[str], rows: Iterator[Found]) -> Iterator[Found]:
    return (Found(place, _row(names, row)) for place, row in rows)


def _path(column: Any) -> Expression:
    return path(column) if isinstance(column, str) else operand(column)


def _column_of_group(column: Any) -> Expression:
    return Path((column,)) if isinstance(column, str) else operand(column)


def _name(column: Any) -> str:
    """The name of a column that is given without one."""
    if isinstance(column, str):
        return column
    if isinstance(column, About):
        return column.field
    if isinstance(column, Path):
        only = steps(column)
        return only[0] if len(only) == 1 and isinstance(only[0], str) else str(column) or "value"
    raise ConfigurationError(f"the column {column!r} needs a name: name=...")


def _different(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(f"two columns are called {name!r}; name one of them otherwise: name=...")
        seen.add(name)


def _no_documents(expression: Expression | None) -> None:
    if expression is not None and about(expression):
        raise ConfigurationError(
            f"{expression!r} looks at documents, and after group_by() or aggregate() the rows are groups. Put such a "
            f"where() before it."
        )


def _columns(columns: Sequence[Column]) -> str:
    return ", ".join(name if name in (str(by), repr(by)) else f"{name} = {by!r}" for name, by in columns)
