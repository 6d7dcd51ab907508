"""How a ratio is measured and shown.

Absolute times say more about a machine and its other users than about a
program. So two ways of doing the same work take turns, round by round, on the
same disk, and each round gives one ratio; the median of them is the result.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

Work = Callable[[int], int]
"""Does the work of a round, given its number from 0; how many units (documents, calls) it did."""


@dataclass(frozen=True)
class Line:
    """One result. `raw` and `ours` are medians in `unit`; `value` is what the budget speaks of.

    `within` is None for a line that has no budget and is there to explain others.
    """

    work: str
    raw: float | None
    ours: float
    unit: str
    value: str
    budget: str
    within: bool | None

    def __str__(self) -> str:
        raw = "" if self.raw is None else f"{self.raw:,.1f}"
        verdict = {True: "met", False: "NOT MET", None: ""}[self.within]
        return f"{self.work:<52}{raw:>10}{self.ours:>10,.1f}  {self.unit:<7}{self.value:>8}  {self.budget:<9} {verdict}"


HEADING = f"{'':<52}{'raw':>10}{'vstore':>10}  {'':<7}{'':>8}  {'budget':<9}"


def compared(work: str, raw: Work, ours: Work, rounds: int, at_most: float | None) -> Line:
    """A line for two ways of doing the same work: how much longer ours takes for a unit of it, at the median."""
    times: list[tuple[float, float]] = []
    for number in range(rounds):
        first, second = (raw, ours) if number % 2 == 0 else (ours, raw)  # neither always finds the warmer caches
        a, b = timed(first, number), timed(second, number)
        times.append((a, b) if first is raw else (b, a))
    ratio = statistics.median(b / a for a, b in times)
    return Line(
        work,
        statistics.median(a for a, _ in times) * 1e6,
        statistics.median(b for _, b in times) * 1e6,
        "µs",
        f"{ratio:.2f} ×",
        "" if at_most is None else f"≤ {at_most:g} ×",
        None if at_most is None else ratio <= at_most,
    )


def absolute(work: str, raw: Work | None, ours: Work, rounds: int, at_most_ms: float | None) -> Line:
    """A line for work whose budget is a time. `raw` is there to tell how much of it is the machine's."""
    raws, times = [], []
    for number in range(rounds):
        if raw is not None:
            raws.append(timed(raw, number) * 1e3)
        times.append(timed(ours, number) * 1e3)
    median = statistics.median(times)
    return Line(
        work,
        statistics.median(raws) if raws else None,
        median,
        "ms",
        f"{median:.0f} ms",
        "" if at_most_ms is None else f"< {at_most_ms:g} ms",
        None if at_most_ms is None else median < at_most_ms,
    )


def timed(work: Work, number: int) -> float:
    """Seconds for each unit of one round."""
    gc.collect()
    start = time.perf_counter()
    units = work(number)
    return (time.perf_counter() - start) / units


def machine(folder: Path) -> Iterator[str]:
    """What the numbers depend on besides the code."""
    model = platform.processor() or platform.machine()
    names = Path("/proc/cpuinfo")
    if names.exists():
        found = [line.partition(": ")[2] for line in names.read_text().splitlines() if line.startswith("model name")]
        model = found[0] if found else model
    yield f"machine    {model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.platform()}"
    yield f"folder     {folder} ({_file_system(folder)})"
    packages = ", ".join(f"{name} {version(name)}" for name in ("vstore", "SQLAlchemy", "orjson"))
    yield f"versions   Python {platform.python_version()}, {packages}"


def table(lines: Iterable[Line]) -> Iterator[str]:
    """The lines under their heading, each as soon as it is there."""
    yield HEADING
    yield from map(str, lines)


def _file_system(folder: Path) -> str:
    """The kind of file system a folder is on: on tmpfs a durable commit costs nothing, and no ratio means much."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "file system unknown"
    kinds = {fields[1]: fields[2] for fields in map(str.split, mounts.read_text().splitlines())}
    place = folder.resolve()
    return next(kinds[str(each)] for each in (place, *place.parents) if str(each) in kinds)
