"""Quantiles: the values at given ranks, within an error that does not grow with the input.

Pure: no input or output, except that the sketch draws random bits of its own.
Source: Karnin, Lang, Liberty (2016), "Optimal Quantile Approximation in
Streams", arXiv:1603.05346, as in Apache DataSketches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from mapreduce.reducers.sketches import WAITING, require
from vstore.errors import ConfigurationError


@dataclass(frozen=True)
class Quantiles:
    """The numbers at the ranks `points`, each between 0 (the least) and 1 (the largest), as a list of floats.

    The answer for a point p is a number of the input such that p of the input is
    at or below it. Up to `k` numbers it is exact. Beyond, its rank is off by at
    most 0.7 % of the input, for k = 400, with 99 % probability, however the
    input was split; the error is about 2.7 / k, and an accumulator holds some
    3 k numbers. The sketch (KLL) draws random numbers, so beyond `k` numbers two
    runs can differ within the error. Of nothing, each point gives None.

    Needs the extra `sketches`.

    Raises:
        ConfigurationError: a point or `k` (8 to 65,535) is out of range, or
            datasketches is not installed.

    Raises from `add`:
        TypeError: a value is neither int nor float.
        ValueError: it is NaN or infinite, also as the nearest float of an int.
    """

    points: Sequence[float] = (0.25, 0.5, 0.75)
    of: Any = None
    k: int = 400

    def __post_init__(self) -> None:
        require("Quantiles()")
        points = self.points
        if not isinstance(points, (list, tuple)) or not points or not all(map(_is_point, points)):
            raise ConfigurationError(
                f"Quantiles(points=) is {points!r}; points are one or more numbers from 0 to 1, such as (0.5, 0.9)."
            )
        if not isinstance(self.k, int) or not 8 <= self.k <= 65_535:
            raise ConfigurationError(f"Quantiles(k=) is {self.k!r}; k is an integer from 8 to 65,535.")
        object.__setattr__(self, "points", tuple(points))

    def zero(self) -> list[Any]:
        return [b"", []]  # a stored sketch, none at first, and numbers that wait to go into it

    def add(self, acc: list[Any], value: float, /) -> list[Any]:
        if not isinstance(value, (int, float)):
            raise TypeError(f"Quantiles() takes int and float, and was given {value!r} of type {type(value).__name__}")
        try:
            number = float(value) + 0.0  # of the two zeros, 0.0
        except OverflowError:
            number = float("inf")
        if not isfinite(number):
            raise ValueError(f"Quantiles() needs finite floats, and was given {value!r}")
        acc[1].append(number)
        return self._folded(acc)

    def merge(self, a: list[Any], b: list[Any], /) -> list[Any]:
        if b[0]:
            a[0] = self._joined(a[0], b[0]) if a[0] else b[0]
        a[1] += b[1]
        return self._folded(a)

    def finish(self, acc: list[Any], /) -> list[float | None]:
        sketch = self._sketch(acc)
        if sketch.is_empty():
            return [None] * len(self.points)
        return [float(number) for number in sketch.get_quantiles(list(self.points), True)]

    def _folded(self, acc: list[Any]) -> list[Any]:
        if len(acc[1]) > WAITING:
            acc[0] = self._sketch(acc).serialize()
            acc[1].clear()
        return acc

    def _sketch(self, acc: list[Any]) -> Any:
        from datasketches import kll_doubles_sketch

        sketch = kll_doubles_sketch.deserialize(acc[0]) if acc[0] else kll_doubles_sketch(self.k)
        for number in acc[1]:
            sketch.update(number)
        return sketch

    def _joined(self, a: bytes, b: bytes) -> bytes:
        from datasketches import kll_doubles_sketch

        sketch = kll_doubles_sketch.deserialize(a)
        sketch.merge(kll_doubles_sketch.deserialize(b))
        joined: bytes = sketch.serialize()
        return joined


def _is_point(point: Any) -> bool:
    return isinstance(point, (int, float)) and not isinstance(point, bool) and 0 <= point <= 1
