"""Where the splits of a job are worked on: in this process, in others, on other machines.

An executor knows nothing of documents, keys or reducers. It is given one
function and many tasks, and gives back one outcome per task. What a task comes
to may also stay where it was made, for later tasks to use:

    run(work, tasks)                     task ── work ──► result, brought here
    run(work, tasks, keep=True)          task ── work ──► summary, brought here
                                                     └──► data ─ Kept
    run(work, [Using(task, kept), …])    task, data ── work ──► result, brought here

Sibling modules implement `Executor`; `testing.py` is the suite they all pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

from mapreduce.errors import DeadlineExceeded
from vstore.errors import ConfigurationError

# Reading, decoding and mapping a document takes 3 to 6 µs for ordinary functions, so that many are 0.3 s or more of
# work, about what the first worker processes of a program take to start.
PARALLEL_DOCUMENTS = 100_000


@dataclass(frozen=True)
class Kept:
    """Data that a task has left where it was worked on; alive as long as this is.

    `held` is the executor's own: the data itself, or what stands for it.
    """

    held: Any
    index: int | None = None

    def part(self, index: int) -> Kept:
        """One element of data that is a list, as data of its own: only it moves when it is used."""
        return replace(self, index=index)


@dataclass(frozen=True)
class Using:
    """A task that needs kept data: `work(task, [data, …])` is called where the work is done.

    All of `kept` comes from earlier runs of the same executor.
    """

    task: Any
    kept: tuple[Kept, ...]


@dataclass(frozen=True)
class Outcome:
    """What one task came to.

    `number` counts the tasks from 0 in the order they were given. `seconds` is
    how long the work itself took, without waiting and travelling.
    """

    number: int
    result: Any
    attempts: int = 1
    seconds: float = 0.0


class Executor(Protocol):
    """The contract:

    - Every task gives exactly one outcome, in any order. A task may run more
      than once, when its worker died; the result that counts is one of them.
    - `work` may be a lambda or a closure; it is sent to a worker once, not with
      every task. Tasks and results are picklable values. What a run leaves in
      the function or its globals is not there in the next run.
    - Tasks are taken from the iterable as workers come free, in the thread that
      iterates over the outcomes, so an endless iterable is no trouble. What the
      iterable raises is raised there.
    - What `work` raises is raised where the outcomes are read, with its type,
      arguments and cause, and with the worker's traceback as a note; if it
      cannot be pickled, as `TaskError` with its text. No outcome follows.
    - A task that keeps ending workers is not tried again: `WorkerLost`.
    - Once the outcomes are exhausted, have raised or are closed, nothing that
      was started for them is left running.
    - Several runs may be under way at once, in one thread or in many.
    """

    @property
    def workers(self) -> int:
        """How many tasks run at the same time; the input is cut accordingly."""

    @property
    def local(self) -> bool:
        """Whether the workers have this machine's disk, so that tasks may pass files on."""

    def run(
        self,
        work: Callable[..., Any],
        tasks: Iterable[Any],
        *,
        keep: bool = False,
        deadline: float | None = None,
    ) -> Generator[Outcome, None, None]:
        """The outcomes of `work(task)` for every task. Nothing starts before the first is asked for.

        Args:
            work: called with a task; with `(task, [data, …])` if the task is `Using`.
            tasks: any number of picklable values.
            keep: `work` returns `(summary, data)`, and an outcome's result is
                `(summary, kept)`: the data stays where it is until every `Kept`
                of it is gone. In local executors it travels to this process,
                so there it should be small, such as the paths of files.
            deadline: a moment of `time.monotonic()`.

        Raises:
            DeadlineExceeded: the deadline passed before the last outcome. What
                was being worked on has been ended; where the work is done in
                this process, it is noticed between two tasks.
        """

    def fetch(self, kept: Kept) -> Any:
        """The data of a `Kept`, brought here."""


def chosen(workers: int | None, documents_estimate: int | None, executor: Any = None) -> Executor:
    """The executor for a job: the one given, or processes, or none if their start would not pay.

    Args:
        workers: how many; by default all cores, or all threads of a cluster.
        documents_estimate: about how many documents there are; None if only reading them would tell.
        executor: an `Executor`, or a `distributed.Client`.

    Raises:
        ConfigurationError: `workers` or `executor` cannot be used.
    """
    # Processes are imported when they are needed: `multiprocess` and dill take 40 ms, which a small job or an import of
    # this package should not pay.
    if workers is not None and workers < 1:
        raise ConfigurationError(f"workers= is {workers}; at least one is needed. Nothing was run.")
    if executor is not None:
        return _given(executor, workers)
    from mapreduce.executors.inline import Inline

    count = workers or _cores()
    if count == 1:
        return Inline()
    from mapreduce.executors.processes import Processes, may_start_processes

    if workers is None and not may_start_processes():
        return Inline()
    if workers is None and (documents_estimate is None or documents_estimate < PARALLEL_DOCUMENTS):
        from mapreduce.executors.gradual import Gradual

        return Gradual(Processes(count))
    return Processes(count)


def _given(executor: Any, workers: int | None) -> Executor:
    if type(executor).__module__.partition(".")[0] == "distributed":
        from mapreduce.executors.dask import Dask

        return Dask(executor, workers)
    if not all(hasattr(executor, name) for name in ("run", "fetch", "workers", "local")):
        raise ConfigurationError(
            f"executor= cannot be {type(executor).__name__}: pass Dask('tcp://…'), a distributed.Client or another "
            f"mapreduce.executors.Executor. Nothing was run."
        )
    if workers is not None and workers != executor.workers:
        raise ConfigurationError(
            f"workers= is {workers}, and executor= has {executor.workers}: give one of them. Nothing was run."
        )
    return executor  # type: ignore[no-any-return]


def used(kept: Kept) -> Any:
    """The data of a `Kept` that holds it itself; for executors on this machine."""
    return kept.held if kept.index is None else kept.held[kept.index]


def worked(work: Callable[..., Any], task: Any) -> Any:
    """The task worked on, here; data that it uses is at hand."""
    if isinstance(task, Using):
        return work(task.task, [used(kept) for kept in task.kept])
    return work(task)


def kept(result: Any) -> tuple[Any, Kept]:
    """The `(summary, data)` of a task that keeps its data on this machine, as the outcome has it."""
    summary, data = result
    return summary, Kept(data)


def described(task: Any) -> str:
    """What a task calls itself, in brackets for a message; nothing if it has no `__str__` of its own."""
    if isinstance(task, Using):
        task = task.task
    # Not repr, which dataclasses make of all their fields: a slice may well hold a URL with a password.
    own: Any = type(task).__str__
    return "" if own is object.__str__ else f" ({task})"


def late(deadline: float | None) -> bool:
    """Whether this moment of `time.monotonic()` has come."""
    return deadline is not None and monotonic() >= deadline


def deadline_exceeded(done: int, under_way: int = 0) -> DeadlineExceeded:
    """The error for a run that is ended by its deadline."""
    ended = f", and the {under_way} being worked on were ended" if under_way else ""
    return DeadlineExceeded(
        f"the deadline passed when {done} splits were done; others were left{ended}. Nothing was stored. Allow more "
        f"time, or more workers."
    )


def _cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
