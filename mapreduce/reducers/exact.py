"""Exact sums of numbers, so that neither order nor grouping can change a result.

Integers are exact by nature. Floats are held as an *expansion*: a short list of
floats whose exact sum is the sum of all.

    0.1 + 0.2 + 0.3   ─►   (0.6, -2.2e-17)

Pure: no input or output.
Source: Shewchuk (1997), "Adaptive Precision Floating-Point Arithmetic and Fast
Robust Geometric Predicates".
"""

from __future__ import annotations

from fractions import Fraction
from math import fsum, inf, isfinite, isnan, nan
from sys import float_info
from typing import Any, TypeAlias

Total: TypeAlias = int | tuple[int, tuple[float, ...]]
"""An exact sum: the integers as an integer and, once a float came, floats beside it."""


def integer(value: Any, reducer: str) -> int:
    """A number that is no float, as an integer: True counts as 1.

    Raises:
        TypeError: it is no number; `reducer` says in the message who was given it.
    """
    if not isinstance(value, int):
        raise TypeError(f"{reducer} adds int and float, and was given {value!r} of type {type(value).__name__}")
    return int(value)


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


def rounded(number: int, floats: tuple[float, ...]) -> float:
    """The float nearest to an integer plus an expansion."""
    if not all(map(isfinite, floats)):
        return sum(floats)
    first = floats[0] if floats else 0.0
    if not number and abs(first) < float_info.max:
        return first  # an expansion starts with its rounded sum
    return nearest(fraction(number, floats))


def fraction(number: int, floats: tuple[float, ...]) -> Fraction:
    """An integer plus finite floats, exactly."""
    return number + sum(map(Fraction, floats), Fraction())


def nearest(exact: Fraction) -> float:
    """The float nearest to a fraction; an infinity beyond the range of floats."""
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
