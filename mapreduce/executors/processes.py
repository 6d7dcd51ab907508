"""Work in processes of our own: one pipe each, and their ends are watched.

`multiprocess.Pool` never reports a task whose worker was killed, and
`concurrent.futures` gives up the whole pool. Here the task of a lost worker is
given to a new one, and a task that has ended two is reported.

    owner ── pipe ──► worker 1   one task at a time; a round trip is 40 µs
          ── pipe ──► worker 2   and a task milliseconds, so no queue is needed
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from multiprocess import process
from multiprocess.connection import wait

from mapreduce.errors import StartError
from mapreduce.executors import Kept, Outcome, deadline_exceeded, described, kept, late, used
from mapreduce.executors.pool import Assignment, Lost, Worker, borrowed
from mapreduce.executors.shipping import Home, packed, packed_function
from mapreduce.executors.worker import Greeting

LONGEST_WAIT_SECONDS = 3600.0  # the system's calls take no timeout of months


def may_start_processes() -> bool:
    """Whether this process is allowed children; the workers of a pool, ours included, are not."""
    return not process.current_process().daemon


@dataclass(frozen=True)
class Processes:
    """At most `workers` processes per run, borrowed from the program's pool or started as there are tasks for them.

    A worker that does not report within `start_seconds` ends the run with
    `StartError`. `pool.close_workers` ends the ones that idle.
    """

    workers: int
    start_seconds: float = 60.0

    @property
    def local(self) -> bool:
        return True

    def run(
        self, work: Callable[..., Any], tasks: Iterable[Any], *, keep: bool = False, deadline: float | None = None
    ) -> Generator[Outcome, None, None]:
        if not may_start_processes():
            raise StartError(
                "worker processes cannot be started here: this is itself a daemonic worker process, which may not "
                "have children. Nothing was run. Use workers=1."
            )
        owner = os.getpid()
        queue = _Queue(tasks)
        greeting = b""
        home = Home.of_program()
        crew: list[Worker] = []
        finished: list[Outcome] = []
        done = 0
        try:
            while True:
                for worker in crew:
                    if worker.idle and (assignment := queue.next()):
                        worker.give(assignment)
                # Not while one has something to say: it may be free for the task that another would be started for.
                while len(crew) < self.workers and not _heard(crew) and (assignment := queue.next()):
                    greeting = greeting or pickle.dumps(Greeting.of(packed_function(work)))
                    limit = self.start_seconds if deadline is None else deadline - monotonic()
                    try:
                        crew.append(borrowed(max(0.0, min(self.start_seconds, limit))))
                    except StartError:
                        if late(deadline):
                            raise deadline_exceeded(done, len(crew)) from None
                        raise
                    crew[-1].begin(greeting, home, assignment, monotonic() + self.start_seconds)
                # Only now, when their workers have new tasks: what the reader does with them is then no idle time.
                for outcome in finished:
                    done += 1
                    yield replace(outcome, result=kept(outcome.result)) if keep else outcome
                    if os.getpid() != owner:
                        raise StartError(
                            "this process was forked from one that runs a job, and has none of its workers. The job "
                            "goes on there; here, run it anew."
                        )
                if all(worker.idle for worker in crew):
                    return
                finished = []
                for worker in _ready(crew, deadline, done):
                    try:
                        if received := worker.receive():
                            finished.append(received)
                    except Lost:
                        crew.remove(worker)
                        queue.repeat(worker.bury())
        finally:
            for worker in crew:
                worker.release()

    def fetch(self, kept: Kept) -> Any:
        return used(kept)


class _Queue:
    """The tasks to do: first those to repeat, then fresh ones."""

    def __init__(self, tasks: Iterable[Any]) -> None:
        self._fresh = self._packed(tasks)
        self._repeated: deque[Assignment] = deque()

    def next(self) -> Assignment | None:
        return self._repeated.popleft() if self._repeated else next(self._fresh, None)

    def repeat(self, assignment: Assignment | None) -> None:
        if assignment:
            self._repeated.append(assignment)

    @staticmethod
    def _packed(tasks: Iterable[Any]) -> Iterator[Assignment]:
        for number, task in enumerate(tasks):
            name = f"split {number}{described(task)}"
            yield Assignment(number, name, packed(task, name))


def _heard(crew: list[Worker]) -> bool:
    return bool(crew) and bool(wait([worker.connection for worker in crew], 0))


def _ready(crew: list[Worker], deadline: float | None, done: int) -> list[Worker]:
    """The workers that have something to say or have died; waits for one.

    Raises:
        DeadlineExceeded: the time for the job is up.
        StartError: a worker's time to report is up.
    """
    limits = [worker.give_up_at for worker in crew if worker.starting]
    if deadline is not None:
        limits.append(deadline)
    timeout = min(max(0.0, min(limits) - monotonic()), LONGEST_WAIT_SECONDS) if limits else None
    events = set(wait([item for worker in crew for item in (worker.connection, worker.process.sentinel)], timeout))
    if late(deadline):
        raise deadline_exceeded(done, sum(not worker.idle for worker in crew))
    if not events and any(worker.starting and monotonic() >= worker.give_up_at for worker in crew):
        raise StartError(
            "a worker process did not report in time. Nothing it was given has been run. Use workers=1 to run in this "
            "process."
        )
    return [worker for worker in crew if worker.connection in events or worker.process.sentinel in events]
