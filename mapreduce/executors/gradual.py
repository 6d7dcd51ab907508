"""Work of unknown size: it begins in this process, and moves to others if it goes on.

How long a job takes cannot be told from the number of its documents, since the
map function may do anything. So a small input, or one of unknown length, is
begun here: if it is soon done, no process was started for nothing; if not, the
tasks that are left are worth the start.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from mapreduce.executors import Executor, Kept, Outcome
from mapreduce.executors.inline import Inline


@dataclass(frozen=True)
class Gradual:
    """Tasks run in this process for `patience_seconds`; the ones left after that in `later`, which is local."""

    later: Executor
    patience_seconds: float = 0.3  # about the time that the first workers of a program take to start

    @property
    def workers(self) -> int:
        return self.later.workers

    @property
    def local(self) -> bool:
        return self.later.local

    def run(
        self, work: Callable[..., Any], tasks: Iterable[Any], *, keep: bool = False, deadline: float | None = None
    ) -> Generator[Outcome, None, None]:
        waiting = iter(tasks)
        impatient_at = monotonic() + self.patience_seconds
        done = 0
        for outcome in Inline().run(work, waiting, keep=keep, deadline=deadline):
            done += 1
            yield outcome
            if monotonic() >= impatient_at:
                break
        else:
            return
        with closing(self.later.run(work, waiting, keep=keep, deadline=deadline)) as outcomes:
            for outcome in outcomes:
                yield replace(outcome, number=done + outcome.number)

    def fetch(self, kept: Kept) -> Any:
        return self.later.fetch(kept)
