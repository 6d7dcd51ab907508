"""Reducers: how the values of one key become one value.

A reducer is a monoid. Workers fold the values of their split with `add`, the
engine joins the splits with `merge`, always in the order of the splits, and the
reader gets `finish`. So `merge` has to be associative, with `zero` neutral; it
need not be commutative.

    split 1   zero ─ add ─ add ─┐
    split 2   zero ─ add ───────┴ merge ── finish

A plain function `reduce(key, values)` works too: `Collect` keeps every value for
it, so nothing is combined before it crosses the process border.

`fold` is the same as calling `add` for every pair, in one loop: a Python call
per pair would cost more than the addition (measured: 1.2 to 1.5 times the whole
job). A reducer of your own does not need it.

Pure: no input or output.
Source: Shewchuk (1997), "Adaptive Precision Floating-Point Arithmetic and Fast
Robust Geometric Predicates", for sums of floats as short exact expansions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import fsum, inf, isfinite, isnan, nan
from sys import float_info
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mapreduce.collation import Identity

Pairs: TypeAlias = Iterable[tuple[Any, Any]]
Groups: TypeAlias = dict[Identity, Any]
Identify: TypeAlias = Callable[[Any], Identity]


@runtime_checkable
class Reducer(Protocol):
    """What a reducer promises; see the module for the laws.

    Accumulators travel between processes, so they must be picklable. `add` and
    `merge` may change and return their first argument; `finish` may be called
    more than once and must not change its argument.
    """

    def zero(self) -> Any:
        """A fresh accumulator of no values."""

    def add(self, acc: Any, value: Any, /) -> Any:
        """The accumulator with one more value at its end."""

    def merge(self, a: Any, b: Any, /) -> Any:
        """The accumulator of the values of `a` followed by those of `b`."""

    def finish(self, acc: Any, /) -> Any:
        """The value shown to the reader."""


@runtime_checkable
class Folding(Protocol):
    """A reducer that brings its own loop."""

    def fold(self, pairs: Pairs, identify: Identify, /) -> tuple[Groups, int]:
        """Accumulators by identity of key, in order of first sight, and the number of pairs.

        A key whose type is str or int is its own identity; every other has to
        go through `identify`, which also notes the key itself.
        """


def fold(reducer: Reducer, pairs: Pairs, identify: Identify) -> tuple[Groups, int]:
    """Every pair added to the accumulator of its key, by the reducer's own loop if it has one."""
    if isinstance(reducer, Folding):
        return reducer.fold(pairs, identify)
    zero, add = reducer.zero, reducer.add
    groups: Groups = {}
    count = 0
    for key, value in pairs:
        kind = type(key)
        if kind is not str and kind is not int:
            key = identify(key)
        groups[key] = add(groups[key] if key in groups else zero(), value)
        count += 1
    return groups, count


@dataclass(frozen=True)
class Collect:
    """Every value, in order: what a plain function `reduce(key, values)` is given."""

    def zero(self) -> list[Any]:
        return []

    def add(self, acc: list[Any], value: Any, /) -> list[Any]:
        acc.append(value)
        return acc

    def merge(self, a: list[Any], b: list[Any], /) -> list[Any]:
        a += b
        return a

    def finish(self, acc: list[Any], /) -> list[Any]:
        return list(acc)  # a copy: the function may sort or empty it, and the result can be read again

    def fold(self, pairs: Pairs, identify: Identify, /) -> tuple[Groups, int]:
        groups: defaultdict[Identity, list[Any]] = defaultdict(list)
        count = 0
        for key, value in pairs:
            kind = type(key)
            if kind is not str and kind is not int:
                key = identify(key)
            groups[key].append(value)
            count += 1
        return dict(groups), count


@dataclass(frozen=True)
class Count:
    """How many pairs have the key; the values are not looked at."""

    def zero(self) -> int:
        return 0

    def add(self, acc: int, value: Any, /) -> int:
        return acc + 1

    def merge(self, a: int, b: int, /) -> int:
        return a + b

    def finish(self, acc: int, /) -> int:
        return acc

    def fold(self, pairs: Pairs, identify: Identify, /) -> tuple[Groups, int]:
        groups: defaultdict[Identity, int] = defaultdict(int)
        for key, _ in pairs:
            kind = type(key)
            if kind is not str and kind is not int:
                key = identify(key)
            groups[key] += 1
        return dict(groups), sum(groups.values())


Total: TypeAlias = int | tuple[int, tuple[float, ...]]
"""An exact sum: the integers as an integer and, once a float came, the floats as an expansion."""

FLOATS_KEPT = 1024  # floats of one key before they are made an expansion: 32 KiB, and fsum runs at C speed over them


@dataclass(frozen=True)
class Sum:
    """The exact sum of numbers, rounded once at the end.

    Integers only: an int. With any float: the float nearest to the true sum, as
    `math.fsum`, whatever the order and wherever the input was split; beyond the
    range of floats an infinity. Infinities and NaN add as in float arithmetic.
    A value that is neither int nor float is refused with TypeError.
    """

    def zero(self) -> Total:
        return 0

    def add(self, acc: Total, value: float, /) -> Total:
        return self.merge(acc, total_of(value))

    def merge(self, a: Total, b: Total, /) -> Total:
        if isinstance(a, int):
            if isinstance(b, int):
                return a + b
            return a + b[0], b[1]
        if isinstance(b, int):
            return a[0] + b, a[1]
        return a[0] + b[0], expansion([*a[1], *b[1]])

    def finish(self, acc: Total, /) -> int | float:
        return acc if isinstance(acc, int) else rounded(*acc)

    def fold(self, pairs: Pairs, identify: Identify, /) -> tuple[Groups, int]:
        integers: defaultdict[Identity, int] = defaultdict(int)
        floats: dict[Identity, list[float]] = {}
        count = 0
        for key, value in pairs:
            kind = type(key)
            if kind is not str and kind is not int:
                key = identify(key)
            if type(value) is int:
                integers[key] += value
            elif isinstance(value, float):
                seen = floats.get(key)
                if seen is None:
                    integers[key] += 0  # keeps the order, and the form 1 or 1.0, of the key's first pair
                    floats[key] = [value]
                else:
                    seen.append(value)
                    if len(seen) >= FLOATS_KEPT:
                        seen[:] = expansion(seen)
            else:
                integers[key] += _integer(value)
            count += 1
        groups: Groups = dict(integers)
        for key, seen in floats.items():
            groups[key] = integers[key], expansion(seen)
        return groups, count


def total_of(value: float) -> Total:
    """One number as an exact sum."""
    return (0, expansion([value])) if isinstance(value, float) else _integer(value)


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"Sum() adds int and float, and was given {value!r} of type {type(value).__name__}")
    return int(value)  # True counts as 1


def expansion(floats: list[float]) -> tuple[float, ...]:
    """The shortest list of floats with exactly the same sum: the rounded sum, the rounded rest, and so on.

    It depends on the exact sum alone, so neither order nor grouping can change
    it. Usually two or three floats, at most about forty. A sum with an infinity
    or NaN keeps only these, each once.
    """
    parts: list[float] = []
    rest = list(floats)
    try:
        while part := fsum(rest):
            if not isfinite(part):
                return _special(floats)
            parts.append(part)
            rest.append(-part)
    except ValueError:  # fsum met both infinities
        return _special(floats)
    except OverflowError:  # a partial sum left the range of floats; the whole sum may be back in it
        return _special(floats) or _wide_expansion(sum(map(Fraction, floats), Fraction()))
    return tuple(parts)


def rounded(integer: int, floats: tuple[float, ...]) -> float:
    """The float nearest to an integer plus an expansion."""
    if not all(map(isfinite, floats)):
        return sum(floats)
    first = floats[0] if floats else 0.0
    if not integer and abs(first) < float_info.max:
        return first  # an expansion starts with its rounded sum
    exact = integer + sum(map(Fraction, floats), Fraction())
    try:
        return float(exact)
    except OverflowError:
        return inf if exact > 0 else -inf


def _special(floats: list[float]) -> tuple[float, ...]:
    return tuple(value for value in (inf, -inf) if value in floats) + ((nan,) if any(map(isnan, floats)) else ())


def _wide_expansion(rest: Fraction) -> tuple[float, ...]:
    """An expansion by exact fractions: a thousand times slower than fsum, and never out of range."""
    parts: list[float] = []
    while rest:
        try:
            part = float(rest)
        except OverflowError:
            part = float_info.max if rest > 0 else -float_info.max
        parts.append(part)
        rest -= Fraction(part)
    return tuple(parts)
