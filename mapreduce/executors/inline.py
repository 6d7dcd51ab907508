"""Work in this process: no start-up, nothing has to travel, and a debugger sees the user's function."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from mapreduce.executors import Outcome, Task


@dataclass(frozen=True)
class Inline:
    """One task after the other, where the outcomes are read. Exceptions are the user's own."""

    workers: int = 1

    def run(self, work: Callable[[Task], Any], tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        for number, task in enumerate(tasks):
            yield Outcome(number, work(task))
