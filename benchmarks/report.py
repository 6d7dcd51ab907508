"""How a ratio is measured and shown.

Absolute times say more about a machine and its other users than about a
program. So two ways of doing the same work take turns, round by round, on the
same disk, and each round gives one ratio; the median of them is the result.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

Work = Callable[[int], int]
"""Does the work of one round, given its number from 0; how many units (documents, calls) it did."""


@dataclass(frozen=True)
class Line:
    """One result: two medians to compare, what the budget speaks of, and whether it is met (None: it has no budget)."""

    work: str
    left: float | None
    right: float
    unit: str
    value: str
    budget: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        left = "" if self.left is None else f"{self.left:,.1f}"
        verdict = {True: "met", False: "NOT MET", None: ""}[self.met]
        return (
            f"{self.work:<58}{left:>10}{self.right:>10,.1f} {self.unit:<4}{self.value:>9}  {self.budget:<9} {verdict}"
        ).rstrip()


HEADING = f"{'':<58}{'raw':>10}{'vstore':>10} {'':<4}{'result':>9}  budget"


def slower(work: str, raw: Work, ours: Work, rounds: int, at_most: float | None = None) -> Line:
    """How many times longer `ours` takes than `raw` for one unit of the same work."""
    pairs = _in_turns(raw, ours, rounds)
    ratio = median(b / a for a, b in pairs)
    met = None if at_most is None else ratio <= at_most
    return _line(work, pairs, f"{ratio:.2f} ×", "" if at_most is None else f"≤ {at_most:g} ×", met)


def faster(work: str, slow: Work, fast: Work, rounds: int, at_least: float) -> Line:
    """How many times as many units `fast` does in the time of one of `slow`."""
    pairs = _in_turns(slow, fast, rounds)
    ratio = median(a / b for a, b in pairs)
    return _line(work, pairs, f"{ratio:.2f} ×", f"≥ {at_least:g} ×", ratio >= at_least)


def lasting(work: str, raw: Work | None, ours: Work, rounds: int, below_ms: float) -> Line:
    """How long `ours` takes. `raw`, if there is one, tells how much of that is the machine's."""
    pairs = _in_turns(raw or ours, ours, rounds)
    took_ms = median(b for _, b in pairs) * 1e3
    left = None if raw is None else median(a for a, _ in pairs) * 1e3
    return Line(work, left, took_ms, "ms", f"{took_ms:.0f} ms", f"< {below_ms:g} ms", took_ms < below_ms)


def _in_turns(one: Work, other: Work, rounds: int) -> Sequence[tuple[float, float]]:
    """Seconds for a unit of each, round by round; who goes first alternates, as the second finds warmer caches."""
    pairs = []
    for number in range(rounds):
        if number % 2 == 0:
            a, b = _timed(one, number), _timed(other, number)
        else:
            b, a = _timed(other, number), _timed(one, number)
        pairs.append((a, b))
    return pairs


def _timed(work: Work, number: int) -> float:
    gc.collect()
    start = time.perf_counter()
    units = work(number)
    return (time.perf_counter() - start) / units


def _line(work: str, pairs: Sequence[tuple[float, float]], value: str, budget: str, met: bool | None) -> Line:
    return Line(work, median(a for a, _ in pairs) * 1e6, median(b for _, b in pairs) * 1e6, "µs", value, budget, met)


def machine(folder: Path) -> Iterator[str]:
    """What the numbers depend on besides the code."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    yield f"machine   {_processor()}, {os.cpu_count()} cores{load}, {platform.system()} {platform.machine()}"
    yield f"folder    {folder}, {_file_system(folder)}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("vstore", "SQLAlchemy", "orjson"))
    yield f"versions  Python {platform.python_version()}, {packages}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _file_system(folder: Path) -> str:
    """Its kind: on tmpfs a durable commit costs nothing, and the ratios of single puts are others."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "file system unknown"
    kinds = {point: kind for _device, point, kind, *_ in map(str.split, mounts.read_text().splitlines())}
    place = folder.resolve()
    return next(kinds[str(each)] for each in (place, *place.parents) if str(each) in kinds)


def printed(lines: Iterable[Line]) -> Iterator[Line]:
    """The lines, each shown as soon as it is there."""
    print(HEADING)
    for line in lines:
        print(line, flush=True)
        yield line
