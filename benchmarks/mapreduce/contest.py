"""Several ways of doing the same work, in turns.

Before anything is timed, everybody has answered once, and the answers are equal;
so a fast wrong answer cannot win, and nobody pays for a cold cache. Then all of
them run in each round, each round beginning with another one; a ratio is made
within a round, and the median of the rounds is the result.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.report import Line


@dataclass(frozen=True)
class Times:
    """Seconds of each contestant, round by round."""

    seconds: Mapping[str, Sequence[float]]

    def faster(self, work: str, name: str, than: str, at_least: float | None = None) -> Line:
        """How many times `name` does the work in the time that `than` needs."""
        ratio = median(a / b for a, b in zip(self.seconds[than], self.seconds[name], strict=True))
        met = None if at_least is None else ratio >= at_least
        return self._line(work, name, than, ratio, "" if at_least is None else f"≥ {at_least:g} ×", met)

    def slower(self, work: str, name: str, than: str, at_most: float | None = None) -> Line:
        """How many times longer `name` takes than `than`."""
        ratio = median(b / a for a, b in zip(self.seconds[than], self.seconds[name], strict=True))
        met = None if at_most is None else ratio <= at_most
        return self._line(work, name, than, ratio, "" if at_most is None else f"≤ {at_most:g} ×", met)

    def _line(self, work: str, name: str, than: str, ratio: float, budget: str, met: bool | None) -> Line:
        left, right = (median(self.seconds[each]) * 1e3 for each in (than, name))
        return Line(work, left, right, "ms", f"{ratio:.2f} ×", budget, met)


def contest(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> Times:
    """Everybody's times.

    Raises:
        AssertionError: two of them gave different answers; nothing was timed.
    """
    names = list(contestants)
    answers = ((name, contestants[name]()) for name in names)
    first, expected = next(answers)
    for name, answer in answers:
        assert answer == expected, f"{name} and {first} differ: {_difference(answer, expected)}"
    del expected
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(timed(contestants[name]))
    return Times(seconds)


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes, without the garbage of whoever came before."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _difference(answer: Any, expected: Any) -> str:
    if type(answer) is not type(expected) or len(answer) != len(expected):
        return f"{type(answer).__name__} of {len(answer)} and {type(expected).__name__} of {len(expected)}"
    if isinstance(answer, dict):
        return f"{[(key, answer.get(key), value) for key, value in expected.items() if answer.get(key) != value][:3]}"
    return f"{[pair for pair in zip(answer, expected, strict=True) if pair[0] != pair[1]][:3]}"
