"""Rows and whole collections as Arrow, pandas and polars tables.

A table wants one type for each column, and documents promise none. So the
source is read once: its rows go to a temporary file as they come while the
kinds of their values are united, and when all have been seen the columns are
made from the file, batch by batch. A later row never fails an earlier guess.

    kinds met in one place             column
    ────────────────────────────────   ─────────────────────────────────────────
    only null, or nothing              null
    booleans                           bool
    integers from -2^63 to 2^63 - 1    int64
    floats; floats and integers that
    a double holds exactly             double
    strings                            large_string
    arrays                             list of what their elements are together
    objects, up to 200 names in all    struct, a field for each name
    anything else: other mixtures,
    larger integers, only empty        large_string that holds JSON, marked by
    objects, 30 levels deep, names     the field's metadata {"vstore": "json"}
    with a NUL in objects

Null stays null. What an object lacks is null, too: only queries tell missing
and null apart. So is a float that is not finite where a column holds JSON,
which has no word for it; no document has one, but a sum may.

Keeps out: what the rows mean. Queries bring dicts, collections documents.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from itertools import chain, islice
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias
from weakref import finalize

from mapreduce.errors import JobError
from mapreduce.jsontext import json_text
from mapreduce.splits import Sliceable, cut
from vstore.document import Document
from vstore.errors import ConfigurationError
from vstore.reading import Reading

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

BATCH_ROWS = 10_000  # 5 MB of ordinary documents, and enough of them that the work for each batch does not count
COLUMNS = 5_000  # more come from names that are data; a table of them would be mostly holes
NAMES = 200
LEVELS = 30  # readers of Arrow give up at 64
IN_MEMORY_BYTES = 32 * 1024 * 1024  # a smaller result never touches the disk

EXACT = 2**53
JSON = {b"vstore": b"json"}

Row: TypeAlias = Mapping[str, Any]


# --- what users call -------------------------------------------------------------------------------------------------


def to_arrow(
    over: Any,
    columns: Sequence[str] | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
    on_conflict: Literal["winner", "skip", "raise"] = "winner",
) -> pyarrow.Table:
    """All rows as one `pyarrow.Table`, in batches of `batch_rows`; see the module for the types of its columns.

    Args:
        over: a query, whose rows it has; anything else that `query` takes,
            such as a collection, a snapshot or `posts.at(moment)`, whose
            documents it has: the column `key`, then a column for each name at
            the top of a document, in the order of first sight; or an iterable
            of rows, which are dicts. A document's own field `key` is in the
            column `doc.key`, and one that is no object in the column `doc`. A
            history scan has `rev`, `stamp` and `deleted` after `key`, and
            fields with one of these names have `doc.` before it.
        columns: these only, in this order. One that no row has is null.
        batch_rows: how many rows are turned at a time.
        on_conflict: for documents; a query says it itself.

    Raises:
        ConfigurationError: pyarrow is not installed, or there are more than
            5,000 columns. Nothing was changed.
        JobError: a document in memory holds what JSON has no word for.

    Memory is that of the table, one batch, and 32 MiB; a larger source is kept
    in a temporary file meanwhile.
    """
    arrow = _arrow("to_arrow")
    with arrow_batches(over, columns, batch_rows=batch_rows, on_conflict=on_conflict) as reader:
        return arrow.Table.from_batches(list(reader), reader.schema)


def arrow_batches(
    over: Any,
    columns: Sequence[str] | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
    on_conflict: Literal["winner", "skip", "raise"] = "winner",
) -> pyarrow.RecordBatchReader:
    """The same table a batch at a time, for a writer of Parquet or another database; arguments as `to_arrow`.

    All batches have the schema of the reader. The source has been read to its
    end when this returns; its rows wait in a temporary file, which goes with
    the reader. Memory is one batch and 32 MiB however many rows there are.
    """
    arrow = _arrow("arrow_batches")
    if batch_rows < 1:
        raise ConfigurationError(f"batch_rows= is {batch_rows}; at least one is needed. Nothing was read.")
    from mapreduce.query.query import Query  # which has methods that need this module

    if isinstance(columns, str):
        raise ConfigurationError(f"columns= is {columns!r}; pass a list of names. Nothing was read.")
    spool = _Spool(over.columns if columns is None and isinstance(over, Query) else columns)
    rows = iter(_rows(over, on_conflict))
    while batch := list(islice(rows, batch_rows)):
        spool.take(batch)
    with _unsayable():
        schema = arrow.schema([_field(name, kind) for name, kind in spool.kinds.items()])
    return arrow.RecordBatchReader.from_batches(schema, _made(spool, schema))


def to_pandas(
    over: Any,
    columns: Sequence[str] | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
    on_conflict: Literal["winner", "skip", "raise"] = "winner",
) -> pandas.DataFrame:
    """All rows as a `pandas.DataFrame`; arguments and columns as `to_arrow`.

    Integers and booleans are of pandas' types that know null (Int64, boolean),
    whether there is one or not: its plain integers would become floats. Arrays
    and objects are Python values.

    Raises:
        ConfigurationError: pandas or pyarrow is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise _missing("to_pandas", "pandas") from error
    arrow = _arrow("to_pandas", "pandas")
    table = to_arrow(over, columns, batch_rows=batch_rows, on_conflict=on_conflict)
    exact = {arrow.int64(): pandas.Int64Dtype(), arrow.bool_(): pandas.BooleanDtype()}
    frame = table.to_pandas(types_mapper=exact.get)
    for place, field in enumerate(table.schema):
        if arrow.types.is_nested(
            field.type
        ):  # Arrow makes numpy arrays, and floats of integers that have a null beside
            frame.isetitem(place, pandas.Series(table.column(place).to_pylist(), dtype=object))
    return frame


def to_polars(
    over: Any,
    columns: Sequence[str] | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
    on_conflict: Literal["winner", "skip", "raise"] = "winner",
) -> polars.DataFrame:
    """All rows as a `polars.DataFrame`; arguments and columns as `to_arrow`.

    Raises:
        ConfigurationError: polars or pyarrow is not installed.
        JobError: the name of a column has a NUL.
    """
    try:
        import polars
    except ImportError as error:
        raise _missing("to_polars", "polars") from error
    _arrow("to_polars", "polars")
    table = to_arrow(over, columns, batch_rows=batch_rows, on_conflict=on_conflict)
    for name in table.column_names:
        if "\0" in name:  # Arrow hands over names as strings of C, which end there
            raise JobError(f"polars cannot have a column {name!r}. No table was made. Name it otherwise in a query.")
    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)  # a Series comes of an array, and this is a table
    return frame


# --- rows ------------------------------------------------------------------------------------------------------------


def _rows(over: Any, on_conflict: Literal["winner", "skip", "raise"]) -> Iterable[Row]:
    if isinstance(over, Mapping | Sliceable) or not isinstance(over, Iterable):
        return _documents(over, on_conflict)
    some = iter(over)
    for first in some:  # a query gives rows, or documents if it has no columns
        if isinstance(first, Sliceable):  # several collections
            return _documents(over, on_conflict)
        rows: Iterable[Any] = chain((first,), some)
        return rows if isinstance(first, Mapping) else _documents(rows, on_conflict)
    return ()


def _documents(over: Any, on_conflict: Literal["winner", "skip", "raise"]) -> Iterator[Row]:
    for part in cut(over, 1):
        for batch in part.batches(Reading(on_conflict=on_conflict)):
            for key, value in batch:
                if isinstance(value, Document):
                    own = {"key": key, "rev": value.rev, "stamp": value.stamp, "deleted": value.deleted}
                    yield _spread(own, value.value)
                else:
                    yield _spread({"key": key}, value)


def _spread(own: dict[str, Any], value: Any) -> Row:
    if isinstance(value, dict):
        if own.keys().isdisjoint(value):
            return own | value
        renamed: dict[str, str] = {}
        for name in own.keys() & value.keys():
            renamed[name] = f"doc.{name}"
            while renamed[name] in value:
                renamed[name] = f"doc.{renamed[name]}"
        members: dict[str, Any] = value
        return own | {renamed.get(name, name): each for name, each in members.items()}
    return own if value is None else own | {"doc": value}


def _plain(values: list[Any]) -> list[Any]:
    """The values with objects for the dataclasses that some reducers make, such as Stats."""
    if any(map(is_dataclass, set(map(type, values)))):
        return [asdict(value) if is_dataclass(type(value)) else value for value in values]
    return values


# --- kinds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What values in one place have been. `integer` and `number` fit into a double, `wide` into 64 bits."""

    name: Literal["null", "boolean", "integer", "wide", "float", "string", "array", "object", "json"]
    item: Kind | None = None
    """Of an array: its elements."""
    names: tuple[tuple[str, Kind], ...] = ()
    """Of an object: its members in the order of first sight."""


NULL, BOOLEAN, INTEGER, WIDE, FLOAT, STRING, ANY = (
    Kind("null"),
    Kind("boolean"),
    Kind("integer"),
    Kind("wide"),
    Kind("float"),
    Kind("string"),
    Kind("json"),
)
_NUMBERS = {frozenset({INTEGER, WIDE}): WIDE, frozenset({INTEGER, FLOAT}): FLOAT}


def kind_of(values: Sequence[Any], level: int = 0) -> Kind:
    """What these values are together. A column at a time, so that most of it runs at the speed of C."""
    types = set(map(type, values))
    if level > LEVELS:
        return ANY if types - {type(None)} else NULL
    kind = NULL
    for type_ in types - {type(None)}:
        some = values if len(types) == 1 else [value for value in values if type(value) is type_]
        kind = united(kind, _kind_of(type_, some, level))
        if kind is ANY:
            break
    return kind


def _kind_of(type_: type, values: Sequence[Any], level: int) -> Kind:
    if type_ is str:
        return STRING
    if type_ is bool:
        return BOOLEAN
    if type_ is float:
        return FLOAT
    if type_ is int:
        low, high = min(values), max(values)
        if low >= -EXACT and high <= EXACT:
            return INTEGER
        return WIDE if low >= -(2**63) and high < 2**63 else ANY
    if type_ in (list, tuple):
        return Kind("array", kind_of([each for value in values for each in value], level + 1))
    if type_ is dict:
        members: dict[Any, list[Any]] = {}
        for value in values:
            for name, each in value.items():
                members.setdefault(name, []).append(each)
        # Names are handed to other libraries as strings of C, which end at a NUL.
        if len(members) > NAMES or not all(type(name) is str and "\0" not in name for name in members):
            return ANY
        return Kind("object", names=tuple((name, kind_of(some, level + 1)) for name, some in members.items()))
    return ANY


def united(a: Kind, b: Kind) -> Kind:
    """What values of both kinds are together. The order of names is that of `a`, then what `b` adds."""
    if a == b or b.name == "null":
        return a
    if a.name == "null":
        return b
    if a.name == b.name == "array":
        assert a.item is not None
        assert b.item is not None
        return Kind("array", united(a.item, b.item))
    if a.name == b.name == "object":
        names = dict(a.names)
        for name, kind in b.names:
            names[name] = united(names[name], kind) if name in names else kind
        return Kind("object", names=tuple(names.items())) if len(names) <= NAMES else ANY
    return _NUMBERS.get(frozenset({a, b}), ANY)


# --- arrays ----------------------------------------------------------------------------------------------------------


def _field(name: str, kind: Kind) -> pyarrow.Field:
    import pyarrow

    return pyarrow.field(name, _type(kind), metadata=JSON if _as_json(kind) else None)


def _type(kind: Kind) -> pyarrow.DataType:
    import pyarrow

    match kind.name:
        case "null":
            return pyarrow.null()
        case "boolean":
            return pyarrow.bool_()
        case "integer" | "wide":
            return pyarrow.int64()
        case "float":
            return pyarrow.float64()
        case "array":
            assert kind.item is not None
            return pyarrow.list_(_field("item", kind.item))
        case "object" if kind.names:
            return pyarrow.struct([_field(name, each) for name, each in kind.names])
    # The large one, since a batch of large documents may pass the 2 GiB that the other can address.
    return pyarrow.large_string()


def _as_json(kind: Kind) -> bool:
    return kind.name == "json" or (kind.name == "object" and not kind.names)


def _array(values: Sequence[Any], kind: Kind) -> pyarrow.Array:
    import pyarrow

    type_ = _type(kind)
    if _as_json(kind):
        return pyarrow.array([None if value is None else _json(value) for value in values], type_)
    if kind.name == "array":
        assert kind.item is not None
        offsets = [0]
        for value in values:
            offsets.append(offsets[-1] + (0 if value is None else len(value)))
        inside = _array([each for value in values if value is not None for each in value], kind.item)
        mask = pyarrow.array([value is None for value in values], pyarrow.bool_())
        return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), inside, type_, mask=mask)
    if kind.name == "object":
        members = [
            _array([None if value is None else value.get(name) for value in values], each) for name, each in kind.names
        ]
        mask = pyarrow.array([value is None for value in values], pyarrow.bool_())
        return pyarrow.StructArray.from_arrays(members, fields=list(type_), mask=mask)
    return pyarrow.array(values, type_)


def _json(value: Any) -> str:
    try:
        return json_text(value)
    except (TypeError, ValueError) as error:
        raise JobError(
            f"a table cannot hold {value!r:.80}: {error}. No table was made. Turn it into a JSON value."
        ) from error


def _made(spool: _Spool, schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow

    for rows, columns in spool.batches():
        with _unsayable():
            arrays = [
                _array(columns[name], kind) if name in columns else pyarrow.nulls(rows, _type(kind))
                for name, kind in spool.kinds.items()
            ]
        yield pyarrow.record_batch(arrays, schema=schema)


@contextmanager
def _unsayable() -> Iterator[None]:
    """Names the text that cannot be had as UTF-8."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise JobError(
            f"a table cannot hold {error.object!r:.80}: {error.reason}. No table was made. Leave it out with columns=."
        ) from error


class _Spool:
    """Rows on their way to a table: kept by columns, and the kinds of what they hold."""

    def __init__(self, columns: Sequence[str] | None) -> None:
        self.kinds: dict[str, Kind] = dict.fromkeys(columns or (), NULL)
        self._chosen = columns is not None
        # Pickle, because it keeps every value as it is at the speed of C. Only this process knows the file, which has
        # no name.
        self._file: IO[bytes] = SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115  # for as long as the batches
        finalize(self, self._file.close)

    def take(self, rows: list[Row]) -> None:
        names = self.kinds if self._chosen else dict.fromkeys(chain.from_iterable(rows))
        if len(self.kinds.keys() | names) > COLUMNS:
            raise ConfigurationError(
                f"the rows have more than {COLUMNS:,} columns. No table was made. Name those you want with columns=, "
                f"or select in a query."
            )
        for name in names:
            if not isinstance(name, str):
                raise JobError(f"a table cannot hold {name!r:.80} as the name of a column. No table was made.")
        columns = {name: _plain([row.get(name) for row in rows]) for name in names}
        for name, values in columns.items():
            self.kinds[name] = united(self.kinds.get(name, NULL), kind_of(values))
        pickle.dump((len(rows), columns), self._file, protocol=5)

    def batches(self) -> Iterator[tuple[int, dict[str, list[Any]]]]:
        end = self._file.tell()
        self._file.seek(0)
        while self._file.tell() < end:
            yield pickle.load(self._file)


# --- libraries -------------------------------------------------------------------------------------------------------


def _arrow(function: str, extra: str = "arrow") -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise _missing(function, extra, "pyarrow") from error
    return pyarrow


def _missing(function: str, extra: str, library: str | None = None) -> ConfigurationError:
    return ConfigurationError(
        f"{function}() needs {library or extra}, which is not installed. Nothing was read. Install it with "
        f"`pip install 'vstore[{extra}]'`."
    )
