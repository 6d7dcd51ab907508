"""What a view makes of the values of many rows: its `reduce`, and the partial results that its nodes keep.

A reducer (zero, add, merge, finish) has partials: `tree` keeps one for each node,
and a range merges those instead of reading its rows. A plain function
`reduce(key, values)` has none, since its result for a part says nothing about the
whole; it is handed all values of a group.

A partial that cannot be had is left out, and then those who need it read what is
below: it is larger than PARTIAL_BYTES (as with Collect), or the reducer refuses a
row, which is an error of the question and not of the view.

Pure: no input or output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from mapreduce import reducers
from mapreduce.accumulators import restored, stored
from mapreduce.collation import identity
from mapreduce.errors import ReduceError
from mapreduce.reducers import Folding, Reducer, folder
from mapreduce.reducers.collect import Collect
from mapreduce.reducers.names import NAMED, PARAMETRIC, reducer_named
from mapreduce.views.nodes import plain
from vstore.errors import ConfigurationError

PARTIAL_BYTES = 4 * 1024
"""A larger partial is not kept: each change would write it again in every node above."""

Reduce: TypeAlias = Reducer | Callable[[Any, list[Any]], Any]

NONE, FUNCTION, OTHER = "", "function", "reducer"


class Reduction:
    """The `reduce` of a view."""

    def __init__(self, reduce: Reduce | str) -> None:
        """A reducer, the name of one, or a function `reduce(key, values)`.

        Raises:
            ConfigurationError: it is none of these.
        """
        if isinstance(reduce, str):
            reduce = reducer_named(reduce)
        if isinstance(reduce, type):
            raise ConfigurationError(
                f"reduce= is the class {reduce.__name__}; pass an instance, {reduce.__name__}(). Nothing was done."
            )
        self.function: Callable[[Any, list[Any]], Any] | None = None
        if isinstance(reduce, Reducer):
            self.reducer = reduce
        elif callable(reduce):
            self.reducer, self.function = Collect(), reduce
        else:
            raise ConfigurationError(
                f"reduce= is {reduce!r}; pass a reducer (zero, add, merge, finish) such as Sum(), its name, or a "
                f"function reduce(key, values). Nothing was done."
            )
        self.given = reduce
        self._of = getattr(self.reducer, "of", None)
        self._loops = isinstance(self.reducer, Folding)

    def fold(self, keys: Sequence[Any], values: Sequence[Any]) -> Any:
        """The accumulator of the values of some rows. Raises what the reducer raises."""
        if self._of is not None:
            values = self._chosen(keys, values)
        if self._loops:
            made = folder(self.reducer, identity)
            made.take([(0, value) for value in values])
            return made.groups.get(0, self.reducer.zero())
        add, acc = self.reducer.add, self.reducer.zero()
        for value in values:
            acc = add(acc, value)
        return acc

    def merge(self, a: Any, b: Any) -> Any:
        """The accumulator of the rows of `a` followed by those of `b`. Either may change."""
        return self.reducer.merge(a, b)

    def finish(self, key: Any, acc: Any) -> Any:
        """What a reader sees of a group."""
        value = self.reducer.finish(acc)
        return value if self.function is None else self.function(key, value)

    @property
    def reads(self) -> bool:
        """Whether it makes partials."""
        return self.function is None

    def of_rows(self, keys: Sequence[Any], values: Sequence[Any]) -> Any:
        """The partial of a leaf; None if there is none. Keys may be packed still."""
        if self.function is not None:
            return None
        try:
            return _kept(self.fold(keys if self._of is None else [plain(key) for key in keys], values))
        except Exception:  # whatever the reducer says of a value; a reader who needs it meets the row and says which
            return None

    def of_partials(self, partials: Sequence[Any]) -> Any:
        """The partial of a node, from those below; None if there is none."""
        if self.function is not None or None in partials:
            return None
        try:
            return _kept(self.merged(partials))
        except Exception:
            return None

    def merged(self, partials: Sequence[Any]) -> Any:
        """The accumulator of neighbours, from left to right; it may then be changed. Raises what the reducer raises."""
        merge = self.reducer.merge
        acc = _restored(partials[0])
        for partial in partials[1:]:
            acc = merge(acc, _restored(partial))
        return acc

    def _chosen(self, keys: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        from mapreduce.query.meaning import MISSING

        of: Any = self._of

        found = [of.evaluate(key, value) for key, value in zip(keys, values, strict=True)]
        return [value for value in found if value is not MISSING]


def _restored(partial: Any) -> Any:
    return restored(partial) if type(partial) is bytes else partial


def described(reduction: Reduction | None) -> str:
    """A reducer as text: of a built-in one enough to make it again."""
    if reduction is None:
        return NONE
    if reduction.function is not None:
        return FUNCTION
    made = reduction.reducer
    if type(made) in _built_in() and is_dataclass(made) and getattr(made, "of", None) is None:
        settings = {field.name: getattr(made, field.name) for field in fields(made) if field.name != "of"}
        return json.dumps([type(made).__name__, settings])
    return OTHER


def redescribed(text: str) -> Reduction | None:
    """The reduction that was described; None for none, and for those that only their program has."""
    if text in (NONE, FUNCTION, OTHER):
        return None
    name, settings = json.loads(text)
    kind = next(kind for kind in _built_in() if kind.__name__ == name)
    return Reduction(kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}))


def refused(key: Any, error: Exception) -> ReduceError:
    """What a reader is told whose group the reducer does not take."""
    return ReduceError(
        f"reducing the rows of {key!r} failed: {type(error).__name__}: {error}. The rows are as they were, and can be "
        f"read with reduce=False.",
        key=key,
    )


def _kept(acc: Any) -> Any:
    kind = type(acc)
    if kind is int:
        return acc if -(2**63) <= acc < 2**63 else stored(acc)
    if kind is float:
        return acc
    data = stored(acc)
    return data if len(data) <= PARTIAL_BYTES else None


def _built_in() -> set[type]:
    made = [make() for name, make in NAMED.items() if not name.endswith("~")]  # which is one of the others again
    return {type(reducer) for reducer in [*made, PARAMETRIC["top"]("1")] if isinstance(reducer, reducers.Reducer)}
