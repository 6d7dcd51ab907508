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
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from multiprocess import process
from multiprocess.connection import Pipe, wait

from mapreduce.errors import StartError, WorkerLost
from mapreduce.executors import Outcome, Task
from mapreduce.executors.forkserver import WorkerProcess
from mapreduce.executors.shipping import packed, packed_function, unpacked
from mapreduce.executors.worker import READY, serve

ATTEMPTS = 2  # one worker may die of anything; the second death on the same task is taken for the task's doing
FAREWELL_SECONDS = 5.0  # for idle workers to flush what they printed and exit


def may_start_processes() -> bool:
    """Whether this process is allowed children; the workers of a pool, ours included, are not."""
    return not process.current_process().daemon


@dataclass(frozen=True)
class Processes:
    """At most `workers` processes per run, started as there are tasks for them.

    A worker that does not report within `start_seconds` ends the run with
    `StartError`.
    """

    workers: int
    start_seconds: float = 60.0

    def run(self, work: Callable[[Task], Any], tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        if not may_start_processes():
            raise StartError(
                "worker processes cannot be started here: this is itself a daemonic worker process, which may not "
                "have children. Nothing was run. Use workers=1."
            )
        queue = _Queue(tasks)
        greeting = None
        crew: list[_Worker] = []
        finished: list[Outcome] = []
        try:
            while True:
                for worker in crew:
                    if worker.idle and (assignment := queue.next()):
                        worker.give(assignment)
                while len(crew) < self.workers and (assignment := queue.next()):
                    greeting = greeting or pickle.dumps((dict(os.environ), packed_function(work)))
                    crew.append(_Worker(greeting, assignment, self.start_seconds))
                # Only now, when their workers have new tasks: what the reader does with them is then no idle time.
                yield from finished
                if all(worker.idle for worker in crew):
                    break
                finished = []
                for worker in _ready(crew):
                    try:
                        if outcome := worker.receive():
                            finished.append(outcome)
                    except _Lost:
                        crew.remove(worker)
                        queue.repeat(worker.bury())
            for worker in crew:
                worker.dismiss()
            for worker in crew:
                worker.process.join(FAREWELL_SECONDS)
        finally:
            for worker in crew:
                worker.end()


@dataclass
class _Assignment:
    """A task in hand, packed once however often it is sent."""

    number: int
    name: str
    data: bytes
    attempts: int = 0


class _Queue:
    """The tasks to do: first those to repeat, then fresh ones."""

    def __init__(self, tasks: Iterable[Any]) -> None:
        self._fresh = self._packed(tasks)
        self._repeated: deque[_Assignment] = deque()

    def next(self) -> _Assignment | None:
        return self._repeated.popleft() if self._repeated else next(self._fresh, None)

    def repeat(self, assignment: _Assignment | None) -> None:
        if assignment:
            self._repeated.append(assignment)

    @staticmethod
    def _packed(tasks: Iterable[Any]) -> Iterator[_Assignment]:
        for number, task in enumerate(tasks):
            name = f"split {number}{_description(task)}"
            yield _Assignment(number, name, packed(task, name))


class _Lost(Exception):
    """The worker's process has ended, or its pipe has."""


class _Worker:
    """One process, its pipe, and the task it has."""

    def __init__(self, greeting: bytes, assignment: _Assignment, start_seconds: float) -> None:
        self._greeting = greeting
        self._assignment: _Assignment | None = assignment
        self.starting = True
        self.give_up_at = monotonic() + start_seconds
        self.connection, far_end = Pipe()
        self.process = WorkerProcess(serve, (far_end,), start_seconds)
        try:
            self.process.start()
        except (OSError, EOFError) as error:
            self.connection.close()
            raise StartError(
                f"a worker process could not be started: {type(error).__name__}: {error}. Use workers=1 to run in "
                f"this process."
            ) from error
        finally:
            far_end.close()  # so that the pipe ends when the worker does

    @property
    def idle(self) -> bool:
        return self._assignment is None

    def give(self, assignment: _Assignment) -> None:
        """Send a task. Should the worker be dead, the loss is noticed when its answer is waited for."""
        self._assignment = assignment
        with suppress(OSError):
            self.connection.send_bytes(assignment.data)

    def receive(self) -> Outcome | None:
        """The outcome of the task, or None for the worker's hello.

        Raises:
            _Lost: the worker ended without an answer.
            Exception: what the work raised.
        """
        try:
            if not self.connection.poll():
                raise _Lost
            data = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise _Lost from error
        assignment = self._assignment
        if self.starting:
            assert data == READY, data
            self.starting = False
            try:
                self.connection.send_bytes(self._greeting)
            except OSError as error:
                raise _Lost from error
            if assignment:
                self.give(assignment)
            return None
        assert assignment is not None, "a worker answers only what it was asked"
        self._assignment = None
        succeeded, value = unpacked(data, f"the result of {assignment.name}")
        if not succeeded:
            raise value.exception()
        return Outcome(assignment.number, value, assignment.attempts + 1)

    def bury(self) -> _Assignment | None:
        """The task that is to be repeated after the worker was lost.

        Raises:
            StartError: the worker had not even reported.
            WorkerLost: its task has now ended as many workers as are allowed.
        """
        self.end()
        cause = _cause(self.process.exitcode)
        if self.starting:
            raise StartError(
                f"a worker process ended before it was ready ({cause}). What it printed tells why, most often a "
                f"module that cannot be imported. Use workers=1 to run in this process."
            )
        assignment = self._assignment
        if assignment:
            assignment.attempts += 1
            if assignment.attempts >= ATTEMPTS:
                raise WorkerLost(
                    f"{assignment.name} ended {assignment.attempts} worker processes, the last one {cause}. "
                    f"Nothing was stored. A crash in compiled code or a lack of memory are the usual reasons; "
                    f"workers=1 with a debugger shows the place."
                )
        return assignment

    def dismiss(self) -> None:
        """Let the worker end by itself."""
        self.connection.close()

    def end(self) -> None:
        """End the worker now; it only reads, and holds nothing that would need an orderly end."""
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _ready(crew: list[_Worker]) -> list[_Worker]:
    """The workers that have something to say or have died; waits for one.

    Raises:
        StartError: a worker's time to report is up.
    """
    starting = [worker.give_up_at for worker in crew if worker.starting]
    timeout = max(0.0, min(starting) - monotonic()) if starting else None
    events = set(wait([item for worker in crew for item in (worker.connection, worker.process.sentinel)], timeout))
    if not events:
        raise StartError(
            "a worker process did not report in time. Nothing it was given has been run. Use workers=1 to run in this "
            "process."
        )
    return [worker for worker in crew if worker.connection in events or worker.process.sentinel in events]


def _description(task: Any) -> str:
    # Not repr, which dataclasses make of all their fields: a slice may well hold a URL with a password.
    own: Any = type(task).__str__
    return "" if own is object.__str__ else f" ({task})"


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"by {signal.Signals(-exit_code).name}"
    return f"with exit code {exit_code}"
