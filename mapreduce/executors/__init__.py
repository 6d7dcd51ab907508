"""Where the splits of a job are worked on: in this process, in others, on other machines.

An executor knows nothing of documents, keys or reducers. It is given one
function and many tasks, and gives back one outcome per task.

Sibling modules implement `Executor`; `testing.py` is the suite they all pass.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")


@dataclass(frozen=True)
class Outcome:
    """What one task came to. `number` counts the tasks from 0 in the order they were given."""

    number: int
    result: Any
    attempts: int = 1


class Executor(Protocol):
    """The contract:

    - Every task gives exactly one outcome, in any order. A task may run more
      than once, when its worker died; the result that counts is one of them.
    - `work` may be a lambda or a closure; it is sent to a worker once, not with
      every task. Tasks and results are picklable values.
    - Tasks are taken from the iterable as workers come free, in the thread that
      iterates over the outcomes, so an endless iterable is no trouble. What the
      iterable raises is raised there.
    - What `work` raises is raised where the outcomes are read, with its type,
      arguments and cause, and with the worker's traceback as a note; if it
      cannot be pickled, as `TaskError` with its text. No outcome follows.
    - A task that has ended two workers is not tried again: `WorkerLost`.
    - Once the outcomes are exhausted, have raised or are closed, nothing that
      was started for them is left running.
    - An executor has no state between runs and may be used by several threads.
    """

    @property
    def workers(self) -> int:
        """How many tasks run at the same time; the input is cut accordingly."""

    def run(self, work: Callable[[Task], Any], tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        """The outcomes of `work(task)` for every task. Nothing starts before the first is asked for."""
