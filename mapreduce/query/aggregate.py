"""The groups of a query as work for the engine.

Each split is folded by code made for the query; what comes back for a group is
one accumulator per figure, and the reducers merge and finish them.

    documents ─► where, group, add (one loop) ─► [acc, acc, …] per group ─ engine ─► rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mapreduce.query.code import NUMERIC, Grouped, Grouping
from mapreduce.query.fields import Doc, Expression, F, operand, path
from mapreduce.query.prefilter import Holding
from mapreduce.query.records import Fields
from mapreduce.reducers import Identify, Reducer
from mapreduce.reducers.extremes import First, Last, Max, Min, TopK
from mapreduce.reducers.sums import Count
from vstore.errors import ConfigurationError
from vstore.reading import OnConflict, Reading

STAMPED = (First, Last)
NEEDY = (*NUMERIC, *STAMPED, Min, Max, TopK)
"""Reducers that make no sense of whole documents."""


class Figure(NamedTuple):
    """A reducer, the value it is given of each document (None: it counts documents), and for some the stamp."""

    reducer: Reducer
    of: Expression | None
    by: Expression | None

    @property
    def expressions(self) -> list[Expression]:
        """What is looked at in documents."""
        return [expression for expression in (self.of, self.by) if expression is not None]


def figure(name: str, reducer: Any) -> Figure:
    """What one argument of `aggregate` asks for.

    Raises:
        ConfigurationError: it is no reducer, or does not say of what.
    """
    if isinstance(reducer, type) or not isinstance(reducer, Reducer):
        hint = f"{reducer.__name__}()" if isinstance(reducer, type) else "Sum(F.price)"
        raise ConfigurationError(f"aggregate({name}=...) is given {reducer!r}; pass a reducer, such as {hint}.")
    of, by = getattr(reducer, "of", None), getattr(reducer, "by", None)
    if of is None:
        if isinstance(reducer, NEEDY):
            kind = type(reducer).__name__
            raise ConfigurationError(f"aggregate({name}={kind}()) does not say of what; write {kind}(of=F.price).")
        return Figure(reducer, None if isinstance(reducer, Count) else F, None)
    stamp = None
    if isinstance(reducer, STAMPED):
        stamp = Doc.stamp if by is None else _named(by)
    return Figure(reducer, _named(of), stamp)


def _named(value: Any) -> Expression:
    return path(value) if isinstance(value, str) else operand(value)


@dataclass(frozen=True)
class Figures:
    """The reducer of all figures of a group together: a list of their accumulators."""

    reducers: tuple[Reducer, ...]

    def zero(self) -> list[Any]:
        return [reducer.zero() for reducer in self.reducers]

    def add(self, acc: list[Any], value: Sequence[Any], /) -> list[Any]:
        return [reducer.add(one, part) for reducer, one, part in zip(self.reducers, acc, value, strict=True)]

    def merge(self, a: list[Any], b: list[Any], /) -> list[Any]:
        return [reducer.merge(one, other) for reducer, one, other in zip(self.reducers, a, b, strict=True)]

    def finish(self, acc: list[Any], /) -> list[Any]:
        return [reducer.finish(one) for reducer, one in zip(self.reducers, acc, strict=True)]


@dataclass(frozen=True, eq=False)
class Aggregate:
    """`Work`: the figures of each group of the documents for which `where` holds.

    Keys are those of `code.group_key`. A value that is missing or null is left
    out of a figure, and so is one that is no number out of a sum, mean, ....
    """

    where: Expression | None
    by: tuple[Expression, ...]
    figures: tuple[Figure, ...]
    fields: Fields | None = None
    holding: Holding = ()
    versions: bool = False
    on_conflict: OnConflict = "winner"

    @property
    def reducer(self) -> Figures:
        return Figures(tuple(figure.reducer for figure in self.figures))

    def reading(self) -> Reading:
        return Reading(self.on_conflict, self.fields, self.holding, self.versions)

    def folder(self, identify: Identify, /) -> Grouped:
        return Grouped(self._code, identify)

    def finish(self, key: Any, acc: Any, /) -> list[Any]:
        return self.reducer.finish(acc)

    @cached_property
    def _code(self) -> Grouping:
        return Grouping(self.where, self.by, self.figures, self.fields)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_code"}
