"""Work in this process: no start-up, nothing has to travel, and a debugger sees the user's function."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from mapreduce.executors import Kept, Outcome, deadline_exceeded, kept, late, used, worked


@dataclass(frozen=True)
class Inline:
    """One task after the other, where the outcomes are read. Exceptions are the user's own."""

    workers: int = 1
    local: bool = True

    def run(
        self, work: Callable[..., Any], tasks: Iterable[Any], *, keep: bool = False, deadline: float | None = None
    ) -> Generator[Outcome, None, None]:
        for number, task in enumerate(tasks):
            if late(deadline):
                raise deadline_exceeded(number)
            started = perf_counter()
            result = worked(work, task)
            seconds = perf_counter() - started
            yield Outcome(number, kept(result) if keep else result, seconds=seconds)

    def fetch(self, kept: Kept) -> Any:
        return used(kept)
