"""A job: what to do with each document and with the values of each key.

The job is a value that travels to the workers once; `partial` is the work that
they do per split. Documents flow through it without a Python call per pair of
ours: C iterators call the map function and chain what it yields into the
reducer's loop.

    slice.documents ─► starmap(map) ─► chain ─► fold ─► Partial
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, starmap
from typing import Any, TypeAlias

from mapreduce.errors import MapError
from mapreduce.partial import Partial
from mapreduce.reducers import Collect, Reducer, fold
from mapreduce.splits import Document, Slice
from vstore.errors import ConfigurationError

MapFunction: TypeAlias = Callable[[Any, Any], Iterable[tuple[Any, Any]]]
ReduceFunction: TypeAlias = Callable[[Any, list[Any]], Any]

ON_CONFLICT = ("winner", "skip", "raise")


@dataclass(frozen=True)
class Job:
    """What to do, apart from where the documents come from and which processes do it.

    Both functions must be pure: a split may be read more than once.

    Raises:
        ConfigurationError: a part is not what the job needs.
    """

    map: MapFunction
    reduce: Reducer | ReduceFunction
    on_conflict: str = "winner"

    def __post_init__(self) -> None:
        if not callable(self.map):
            raise ConfigurationError(f"map= is {self.map!r}; pass a function map(key, value) that yields pairs.")
        if isinstance(self.reduce, type):
            raise ConfigurationError(
                f"reduce= is the class {self.reduce.__name__}; pass an instance, {self.reduce.__name__}()."
            )
        if not isinstance(self.reduce, Reducer) and not callable(self.reduce):
            raise ConfigurationError(
                f"reduce= is {self.reduce!r}; pass a reducer (zero, add, merge, finish), such as Sum(), or a function "
                f"reduce(key, values)."
            )
        if self.on_conflict not in ON_CONFLICT:
            raise ConfigurationError(f"on_conflict= is {self.on_conflict!r}; known are {', '.join(ON_CONFLICT)}.")

    @property
    def reducer(self) -> Reducer:
        """The monoid behind `reduce`."""
        return self.reduce if isinstance(self.reduce, Reducer) else Collect()

    def finish(self, key: Any, acc: Any) -> Any:
        """The value of one group for the reader."""
        value = self.reducer.finish(acc)
        return value if isinstance(self.reduce, Reducer) else self.reduce(key, value)

    def partial(self, part: Slice) -> Partial:
        """The groups of one slice.

        Raises:
            MapError: the map function, or the reducer's `add`, failed on a
                document; the original exception is its cause.

        An error of the source itself passes through unchanged.
        """
        result = Partial()
        source = part.documents(self.on_conflict)
        reading = _Reading()
        pairs = chain.from_iterable(starmap(self.map, reading.through(source)))
        try:
            result.groups, result.pairs = fold(self.reducer, pairs, result.identify)
            if not reading.exhausted:
                # starmap takes a StopIteration that the map function lets out for the end of the documents, and the
                # rest would be dropped without a word.
                raise RuntimeError("the map function raised StopIteration")
        except Exception as error:
            if reading.document is None:
                raise
            raise _map_error(reading.document, error) from error
        finally:
            if isinstance(source, Generator):
                source.close()  # at once and not with the garbage: it may hold a connection
        result.documents = reading.count
        return result


class _Reading:
    """The documents on their way to the map function, and which of them it has at the moment."""

    def __init__(self) -> None:
        self.document: Document | None = None
        self.count = 0
        self.exhausted = False

    def through(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The same documents. Between two of them `document` is None, so an error is then the source's own."""
        count = 0
        for document in documents:
            self.document = document
            yield document
            self.document = None
            count += 1
        self.count = count
        self.exhausted = True


def _map_error(document: Document, error: Exception) -> MapError:
    key = document[0]
    return MapError(
        f"the job failed on document {key!r}: {type(error).__name__}: {error}. Nothing was stored; the original "
        f"traceback is in .traceback.",
        key=key,
        traceback="".join(traceback.format_exception(error)),
    )
