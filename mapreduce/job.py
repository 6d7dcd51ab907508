"""A job: what to do with each document and with the values of each key.

The job is a value that travels to the workers once. Documents flow through it
without a Python call per pair of ours: one generator calls the map function, and
what that yields is chained into the loop of the reducer's folder.

    documents ─► where ─► map ─► chain ─► folder.take
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from mapreduce.collation import Identity
from mapreduce.reducers import Folder, Groups, Identify, Pairs, Reducer, folder
from mapreduce.reducers.collect import Collect
from mapreduce.splits import Document
from mapreduce.work import DocumentFolder
from vstore.errors import ConfigurationError
from vstore.reading import Reading

if TYPE_CHECKING:
    from mapreduce.engine import OnError
    from mapreduce.executors import Executor
    from mapreduce.progress import ProgressFunction
    from mapreduce.query.fields import Expression
    from mapreduce.query.records import Fields
    from mapreduce.result import Result

MapFunction: TypeAlias = Callable[[Any, Any], Iterable[tuple[Any, Any]]]
ReduceFunction: TypeAlias = Callable[[Any, list[Any]], Any]
CombineFunction: TypeAlias = Callable[[Any, list[Any]], Any]
WhereFunction: TypeAlias = Callable[[Any, Any], bool]
Kept: TypeAlias = Callable[[list[Document]], list[Document]]

ON_CONFLICT = ("winner", "skip", "raise")
ON_ERROR = ("raise", "skip")
COMBINED_VALUES = 1_000  # of one key, before they are combined: so many lists are short, and the calls are few

MEMORY = 256 * 1024 * 1024


def check_policies(on_conflict: str, on_error: str) -> None:
    """Refuses names that no policy has, with ConfigurationError."""
    for option, value, known in (("on_conflict", on_conflict, ON_CONFLICT), ("on_error", on_error, ON_ERROR)):
        if value not in known:
            raise ConfigurationError(f"{option}= is {value!r}; known are {', '.join(known)}. Nothing was run.")


def check_limits(memory: int, deadline: float | None) -> None:
    """Refuses limits that nothing can keep, with ConfigurationError."""
    if memory < 1:
        raise ConfigurationError(f"memory= is {memory}; pass a number of bytes. Nothing was run.")
    if deadline is not None and not deadline > 0:  # nor NaN
        raise ConfigurationError(f"deadline= is {deadline}; pass seconds above 0. Nothing was run.")


@dataclass(frozen=True, eq=False)
class Job:
    """What to do, apart from where the documents come from and which processes do it.

    A value: it can be run many times, over different sources, sent to other
    processes, and given a name, which error messages then show. All functions
    must be pure, and must not change the documents: a split may be read, and a
    document mapped, more than once.

    Args:
        map: `map(key, value)` yields or returns (key, value) pairs.
        reduce: a reducer, such as `Sum()`, or a function `reduce(key, values)`.
        combine: for a reduce function: `combine(key, values) -> value` makes one
            value of several in the workers, before they are sent. The reduce
            function must not mind whether it gets the values or, in the same
            order, combined ones in place of some of them, which may be combined
            again. A sum may be combined so; a mean may not.
        fields: names or paths of fields, such as "author.name" or `F.author.name`.
            Only these are decoded, and the functions get a `Record` of them.
        where: which documents are mapped: an expression of `F`, or a function
            `where(key, value)`.
        on_conflict: "winner", "skip" or "raise", for documents with several
            live siblings.
        on_error: "raise", or "skip" to leave out documents that cannot be
            decoded or on which a function fails, all of their pairs; they are
            counted, and the first hundred listed in `result.skipped`.
        name: of the job.

    Raises:
        ConfigurationError: a part is not what the job needs.
    """

    map: MapFunction
    reduce: Reducer | ReduceFunction
    combine: CombineFunction | None = None
    fields: Iterable[Any] | None = None
    where: Expression | WhereFunction | None = None
    on_conflict: str = "winner"
    on_error: OnError = "raise"
    name: str | None = None

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
        if self.combine is not None and (isinstance(self.reduce, Reducer) or not callable(self.combine)):
            raise ConfigurationError(
                f"combine= is {self.combine!r} and reduce= {self.reduce!r}: combine= is a function of (key, values) "
                f"beside a reduce function; reducers such as Sum() combine by themselves."
            )
        if self.fields is not None:
            if isinstance(self.fields, str) or not isinstance(self.fields, Iterable):
                raise ConfigurationError(f"fields= is {self.fields!r}; pass a list of names or paths.")
            object.__setattr__(self, "fields", tuple(self.fields))
            _ = self._shape  # so that a path which is none is refused here
        if self.where is not None and self._expression is None and not callable(self.where):
            raise ConfigurationError(
                f"where= is {self.where!r}; pass an expression such as F.year > 2020, or a function where(key, value)."
            )
        check_policies(self.on_conflict, self.on_error)

    def run(
        self,
        *,
        over: Any,
        workers: int | None = None,
        executor: Executor | Any = None,
        memory: int = MEMORY,
        deadline: float | None = None,
        progress: bool | ProgressFunction | None = None,
        into: Any = None,
    ) -> Result:
        """Do this job over some documents. The arguments, and what is raised: `mapreduce.run`."""
        from mapreduce.engine import execute

        if into is not None:
            from mapreduce.into import check, store

            check(into)
        result = execute(
            self,
            over,
            workers=workers,
            executor=executor,
            memory=memory,
            deadline=deadline,
            on_error=self.on_error,
            progress=progress,
            name=self.name,
        )
        if into is not None:
            try:
                store(result, into)
            except BaseException:
                result.close()  # at once: the error holds it
                raise
        return result

    @cached_property
    def reducer(self) -> Reducer:
        """The monoid behind `reduce`."""
        return self.reduce if isinstance(self.reduce, Reducer) else Collect()

    def reading(self) -> Reading:
        """How a slice is read for this job."""
        reading = Reading(on_conflict=self.on_conflict, shape=self._shape)  # type: ignore[arg-type]
        if self._expression is not None:
            from mapreduce.query.prefilter import holding

            reading.holding = holding(self._expression)
        return reading

    def folder(self, identify: Identify, /) -> DocumentFolder:
        """The groups of this job while they are made."""
        if self.combine is not None:
            groups: Folder = Combining(self.combine, identify)
        else:
            groups = folder(self.reducer, identify)
        return Mapped(self.map, self._kept, groups)

    def finish(self, key: Any, acc: Any, /) -> Any:
        """The value of one group for the reader."""
        value = self.reducer.finish(acc)
        return value if self._function is None else self._function(key, value)

    @cached_property
    def _function(self) -> ReduceFunction | None:
        """`reduce`, if it is a function. Cached: whether something is a reducer takes ten times as long as a sum."""
        return None if isinstance(self.reduce, Reducer) else self.reduce

    @property
    def _expression(self) -> Expression | None:
        """`where`, if it is an expression."""
        if type(self.where).__module__.partition(".")[0] != "mapreduce":
            return None  # and the module of expressions need not be loaded
        from mapreduce.query.fields import Expression

        return self.where if isinstance(self.where, Expression) else None

    @cached_property
    def _shape(self) -> Fields | None:
        if self.fields is None:
            return None
        from mapreduce.query.fields import paths
        from mapreduce.query.records import Fields

        return Fields([*self.fields, *(paths(self._expression) if self._expression is not None else ())])

    @cached_property
    def _kept(self) -> Kept | None:
        """Those of a batch for which `where` is true."""
        if self._expression is not None:
            from mapreduce.query.code import kept

            return kept(self._expression, self._shape)
        if self.where is not None:
            where: Any = self.where
            return lambda documents: [document for document in documents if where(*document)]
        return None

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled stays here; whoever gets the job compiles it once.
        return {part.name: self.__dict__[part.name] for part in fields(self)}


class Mapped:
    """A folder of documents: the pairs that the map function yields for them go into a folder of pairs."""

    def __init__(self, map: MapFunction, kept: Kept | None, groups: Folder) -> None:
        self._map = map
        self._kept = kept
        self._folder = groups

    def take(self, documents: list[Document], /) -> int:
        """Fold in the pairs of these documents."""
        if self._kept is not None:
            documents = self._kept(documents)
        return self._folder.take(chain.from_iterable(_mapped(self._map, documents)))

    @property
    def groups(self) -> Groups:
        return self._folder.groups

    def __len__(self) -> int:
        return len(self._folder)


def _mapped(map: MapFunction, documents: list[Document]) -> Iterator[Pairs]:
    # As fast as starmap within 10 ns. But starmap takes a StopIteration that the map function lets out for the end of
    # the documents, and drops the rest without a word; from a generator it comes out as a RuntimeError.
    for key, value in documents:
        yield map(key, value)


class Combining:
    """The folder of a reduce function with `combine`: lists of values that are kept short."""

    def __init__(self, combine: CombineFunction, identify: Identify) -> None:
        self._combine = combine
        self._identify = identify
        self._keys: dict[Identity, Any] = {}  # those whose identity would not give them back
        self._lists: defaultdict[Identity, list[Any]] = defaultdict(list)

    def take(self, pairs: Pairs, /) -> int:
        """Fold in every pair."""
        lists, identify = self._lists, self._identify
        count = 0
        for key, value in pairs:
            kind = type(key)
            if kind is not str and kind is not int:
                found = identify(key)
                if type(found) is tuple:
                    self._keys.setdefault(found, key)
                key = found
            values = lists[key]
            values.append(value)
            if len(values) >= COMBINED_VALUES:
                self._shorten(key, values)
            count += 1
        return count

    @property
    def groups(self) -> Groups:
        for found, values in self._lists.items():
            if len(values) > 1:
                self._shorten(found, values)
        return dict(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def _shorten(self, found: Identity, values: list[Any]) -> None:
        values[:] = [self._combine(self._keys[found] if type(found) is tuple else found, list(values))]
