"""Reducers that keep the ends: Min, Max and TopK by the collation of values, First and Last by their stamps.

Which of several equal values is kept depends neither on the order of the input
nor on where it was split: see `mapreduce.reducers.ranks`.

Pure: no input or output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from mapreduce.reducers.ranks import ahead, form, rank, ranked
from vstore.errors import ConfigurationError

Held: TypeAlias = tuple[Any, ...]
"""Nothing, or what is kept so far."""


@dataclass(frozen=True)
class Min:
    """The lowest value: null < false < true < numbers < strings < arrays < objects. None of nothing.

    Raises from `add`:
        TypeError: a value is no JSON value.
        ValueError: it is NaN or infinite.
    """

    of: Any = None

    def zero(self) -> Held:
        return ()

    def add(self, acc: Held, value: Any, /) -> Held:
        if not acc:
            return (ranked(value, "Min()"),)
        return (value,) if ahead(value, acc[0], "Min()", highest=False) else acc

    def merge(self, a: Held, b: Held, /) -> Held:
        return self.add(a, b[0]) if b else a

    def finish(self, acc: Held, /) -> Any:
        return acc[0] if acc else None


@dataclass(frozen=True)
class Max:
    """The highest value; otherwise as Min."""

    of: Any = None

    def zero(self) -> Held:
        return ()

    def add(self, acc: Held, value: Any, /) -> Held:
        if not acc:
            return (ranked(value, "Max()"),)
        return (value,) if ahead(value, acc[0], "Max()", highest=True) else acc

    def merge(self, a: Held, b: Held, /) -> Held:
        return self.add(a, b[0]) if b else a

    def finish(self, acc: Held, /) -> Any:
        return acc[0] if acc else None


@dataclass(frozen=True)
class TopK:
    """The `k` highest values as a list, highest first; equal ones each count. Values as for Min.

    A value such as `(score, name)` ranks by its score, then by its name.
    An accumulator holds at most 4 k + 64 values.

    Raises:
        ConfigurationError: `k` is no integer of at least 1.
    """

    k: int
    of: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or isinstance(self.k, bool) or self.k < 1:
            raise ConfigurationError(f"TopK(k) is given {self.k!r}; k is how many to keep, an integer of at least 1.")

    def zero(self) -> list[Any]:
        return []

    def add(self, acc: list[Any], value: Any, /) -> list[Any]:
        acc.append(ranked(value, "TopK()"))
        return self._pruned(acc)

    def merge(self, a: list[Any], b: list[Any], /) -> list[Any]:
        a += b
        return self._pruned(a)

    def finish(self, acc: list[Any], /) -> list[Any]:
        return self._highest(acc)

    def _pruned(self, acc: list[Any]) -> list[Any]:
        if len(acc) > 4 * self.k + 64:  # seldom, so that a value costs little more than the append
            acc[:] = self._highest(acc)
        return acc

    def _highest(self, values: list[Any]) -> list[Any]:
        kinds = {*map(type, values)}
        if kinds in ({int}, {str}, {float}):  # their own order is the collation; of equals only zeros look different
            highest = sorted(values, reverse=True)[: self.k]
            if kinds != {float} or 0.0 not in highest:
                return highest
        by_form = sorted(values, key=form)
        return sorted(by_form, key=lambda value: rank(value, "TopK()"), reverse=True)[: self.k]


@dataclass(frozen=True)
class First:
    """Of values `(stamp, value)`: the value with the lowest stamp; of several such, the lowest value. None of nothing.

    Both rank as for Min; values are compared only where stamps are equal. In a
    query, `by` says where the stamp is.

    Raises from `add`:
        TypeError: a value is no pair, or what is to be compared is no JSON value.
        ValueError: it is NaN or infinite.
    """

    of: Any = None
    by: Any = None

    def zero(self) -> Held:
        return ()

    def add(self, acc: Held, value: Any, /) -> Held:
        return _stamped(acc, value, "First()", highest=False)

    def merge(self, a: Held, b: Held, /) -> Held:
        return self.add(a, b) if b else a

    def finish(self, acc: Held, /) -> Any:
        return acc[1] if acc else None


@dataclass(frozen=True)
class Last:
    """Of values `(stamp, value)`: the value with the highest stamp; of several such, the highest value.

    Otherwise as First.
    """

    of: Any = None
    by: Any = None

    def zero(self) -> Held:
        return ()

    def add(self, acc: Held, value: Any, /) -> Held:
        return _stamped(acc, value, "Last()", highest=True)

    def merge(self, a: Held, b: Held, /) -> Held:
        return self.add(a, b) if b else a

    def finish(self, acc: Held, /) -> Any:
        return acc[1] if acc else None


def _stamped(acc: Held, pair: Any, reducer: str, *, highest: bool) -> Held:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{reducer} takes values (stamp, value), and was given {pair!r} of type {type(pair).__name__}")
    stamp, value = pair
    if not acc:
        return ranked(stamp, reducer), value
    held, kept = acc
    kind = type(stamp)
    if kind is type(held) and (kind is int or kind is str) and stamp != held:
        return (stamp, value) if (held < stamp) is highest else acc
    first, second = rank(stamp, reducer), rank(held, reducer)
    if first == second:  # only then are the values compared, which may be whole documents
        first, second = rank(value, reducer), rank(kept, reducer)
    if first != second:
        return (stamp, value) if (second < first) is highest else acc
    return (stamp, value) if (form(value), form(stamp)) < (form(kept), form(held)) else acc
