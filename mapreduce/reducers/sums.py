"""Reducers that count and add: Count, Sum, Mean, Stats. All are exact and round once, at the end.

Floats wait in a buffer and are made an expansion when it is full, because one
long `math.fsum` runs at the speed of C.

Pure: no input or output.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, isqrt
from typing import Any

from mapreduce.collation import Identity
from mapreduce.reducers import Groups, Identify, Pairs
from mapreduce.reducers.exact import Total, expansion, fraction, integer, nearest, rounded
from mapreduce.reducers.ranks import ahead

FLOATS_FOLDED = 1024  # floats of one key in a folder before they are made an expansion: 32 KiB
FLOATS_KEPT = 64  # the same in an accumulator, which may be sent or stored as it is


@dataclass(frozen=True)
class Count:
    """How many pairs have the key; the values are not looked at.

    In a query, `Count()` counts documents and `Count(of=...)` those that have a value there.
    """

    of: Any = None

    def zero(self) -> int:
        return 0

    def add(self, acc: int, value: Any, /) -> int:
        return acc + 1

    def merge(self, a: int, b: int, /) -> int:
        return a + b

    def finish(self, acc: int, /) -> int:
        return acc

    def folder(self, identify: Identify, /) -> Counting:
        return Counting(identify)


class Counting:
    """The folder of Count."""

    def __init__(self, identify: Identify) -> None:
        self._identify = identify
        self._counts: defaultdict[Identity, int] = defaultdict(int)

    def take(self, pairs: Pairs, /) -> int:
        counts, identify = self._counts, self._identify
        count = 0
        for key, _ in pairs:
            kind = type(key)
            if kind is not str and kind is not int:
                key = identify(key)
            counts[key] += 1
            count += 1
        return count

    @property
    def groups(self) -> Groups:
        return dict(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


@dataclass(frozen=True)
class Sum:
    """The exact sum of numbers, rounded once at the end.

    Integers only: an int. With any float: the float nearest to the true sum, as
    `math.fsum`, whatever the order and wherever the input was split; beyond the
    range of floats an infinity. Infinities and NaN add as in float arithmetic.
    A value that is neither int nor float is refused with TypeError. Of nothing: 0.
    """

    of: Any = None

    def zero(self) -> Total:
        return 0

    def add(self, acc: Total, value: float, /) -> Total:
        if isinstance(value, float):
            number, floats = (acc, ()) if isinstance(acc, int) else acc
            return number, (*floats, value) if len(floats) < FLOATS_KEPT else expansion([*floats, value])
        if type(value) is not int:
            value = integer(value, "Sum()")
        return acc + value if isinstance(acc, int) else (acc[0] + value, acc[1])

    def merge(self, a: Total, b: Total, /) -> Total:
        if isinstance(a, int):
            if isinstance(b, int):
                return a + b
            return a + b[0], b[1]
        if isinstance(b, int):
            return a[0] + b, a[1]
        return a[0] + b[0], expansion([*a[1], *b[1]])

    def finish(self, acc: Total, /) -> int | float:
        return acc if isinstance(acc, int) else rounded(acc[0], expansion(list(acc[1])))

    def folder(self, identify: Identify, /) -> Summing:
        return Summing(identify)


class Summing:
    """The folder of Sum."""

    def __init__(self, identify: Identify) -> None:
        self._identify = identify
        self._integers: defaultdict[Identity, int] = defaultdict(int)
        self._floats: dict[Identity, list[float]] = {}

    def take(self, pairs: Pairs, /) -> int:
        integers, floats, identify = self._integers, self._floats, self._identify
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
                    if len(seen) >= FLOATS_FOLDED:
                        seen[:] = expansion(seen)
            else:
                value = integer(value, "Sum()")  # first, so that a refused value makes no group
                integers[key] += value
            count += 1
        return count

    @property
    def groups(self) -> Groups:
        groups: Groups = dict(self._integers)
        for key, seen in self._floats.items():
            groups[key] = groups[key], expansion(seen)
        return groups

    def __len__(self) -> int:
        return len(self._integers)


@dataclass(frozen=True)
class Mean:
    """The exact sum of numbers divided by how many there are, rounded once: a float. None of nothing.

    Values as for Sum.
    """

    of: Any = None

    def zero(self) -> list[Any]:
        return [0, 0, []]  # how many, the integers' sum, floats

    def add(self, acc: list[Any], value: float, /) -> list[Any]:
        if isinstance(value, float):
            floats = acc[2]
            floats.append(value)
            if len(floats) > FLOATS_KEPT:
                floats[:] = expansion(floats)
        else:
            acc[1] += value if type(value) is int else integer(value, "Mean()")
        acc[0] += 1
        return acc

    def merge(self, a: list[Any], b: list[Any], /) -> list[Any]:
        a[0] += b[0]
        a[1] += b[1]
        a[2] += b[2]
        if len(a[2]) > FLOATS_KEPT:
            a[2][:] = expansion(a[2])
        return a

    def finish(self, acc: list[Any], /) -> float | None:
        count, number, floats = acc
        if not count:
            return None
        if not all(map(isfinite, floats)):
            return rounded(0, expansion(floats))
        return nearest(fraction(number, expansion(floats)) / count)


@dataclass(frozen=True)
class Summary:
    """What `Stats` makes of some numbers; `dataclasses.asdict` makes a dict of it, for JSON.

    Of no numbers, everything but `count` and `sum` is None. The variance and
    standard deviation of a sample divide by count - 1 and are None for one number.
    """

    count: int
    sum: int | float
    min: int | float | None
    max: int | float | None
    mean: float | None
    variance: float | None
    deviation: float | None
    sample_variance: float | None
    sample_deviation: float | None


@dataclass(frozen=True)
class Stats:
    """Count, sum, least, largest, mean, variance and standard deviation of finite numbers, as a `Summary`.

    Each figure is computed from exact sums and rounded once, so any split of the
    input gives the identical result. The sum is an int if all numbers are.

    Raises from `add`:
        TypeError: a value is neither int nor float.
        ValueError: it is NaN or infinite.
    """

    # Every float is an integer divided by a power of two. With the largest such power met as common denominator, the
    # sums of the numbers and of their squares are integers, and the accumulator depends on the set of numbers alone.
    # Expansions as in Sum would need the square of a float as two floats, which cannot be had near the ends of the
    # range of floats.

    of: Any = None

    def zero(self) -> list[Any]:
        return [0, 0, 0, 0, None, None, False]  # count, power, sum, sum of squares, least, largest, any float?

    def add(self, acc: list[Any], value: float, /) -> list[Any]:
        if isinstance(value, float):
            if not isfinite(value):
                raise ValueError(f"Stats() needs finite numbers, and was given {value!r}")
            numerator, denominator = value.as_integer_ratio()
            return _added(acc, 1, denominator.bit_length() - 1, numerator, numerator * numerator, value, value, True)
        value = integer(value, "Stats()")
        return _added(acc, 1, 0, value, value * value, value, value, False)

    def merge(self, a: list[Any], b: list[Any], /) -> list[Any]:
        return _added(a, *b) if b[0] else a

    def finish(self, acc: list[Any], /) -> Summary:
        count, power, total, squares, least, largest, real = acc
        if not count:
            return Summary(0, 0, None, None, None, None, None, None, None)
        exact = Fraction(total, 1 << power)
        spread = Fraction(count * squares - total * total, count << 2 * power)  # sum of squared distances to the mean
        variance = spread / count
        sample = spread / (count - 1) if count > 1 else None
        return Summary(
            count=count,
            sum=nearest(exact) if real else total,
            min=least,
            max=largest,
            mean=nearest(exact / count),
            variance=nearest(variance),
            deviation=_root(variance),
            sample_variance=None if sample is None else nearest(sample),
            sample_deviation=None if sample is None else _root(sample),
        )


def _added(
    acc: list[Any], count: int, power: int, total: int, squares: int, least: float, largest: float, real: bool
) -> list[Any]:
    if not acc[0]:
        acc[:] = count, power, total, squares, least, largest, real
        return acc
    shift = acc[1] - power
    if shift > 0:
        total <<= shift
        squares <<= 2 * shift
    elif shift < 0:
        acc[1] = power
        acc[2] <<= -shift
        acc[3] <<= -2 * shift
    acc[0] += count
    acc[2] += total
    acc[3] += squares
    if least < acc[4] or (least == acc[4] and ahead(least, acc[4], "Stats()", highest=False)):
        acc[4] = least
    if largest > acc[5] or (largest == acc[5] and ahead(largest, acc[5], "Stats()", highest=True)):
        acc[5] = largest
    acc[6] = acc[6] or real
    return acc


def _root(square: Fraction) -> float:
    """The square root, from 64 correct bits, also where `square` itself is out of their range."""
    if not square:
        return 0.0
    half = 64 - (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    scaled = square * Fraction(4) ** half  # about 128 bits before the point
    return nearest(isqrt(scaled.numerator // scaled.denominator) / Fraction(2) ** half)
