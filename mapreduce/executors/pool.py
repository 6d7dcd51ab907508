"""Worker processes as their owner sees them, and those that wait for the next job.

    started ──► working ──► idle ──► working …     by the same or any other run of this program
       └─ READY    └─ error, deadline: killed
                            └─ a minute: ends by itself

Starting a worker takes 0.1 to 0.4 s and a job may take less, so a run gives its
workers back. The pool is one per program and has no settings: every job brings
along what it needs (`worker`).
"""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from time import monotonic

from multiprocess.connection import Pipe

from mapreduce.errors import StartError, WorkerLost
from mapreduce.executors import Outcome
from mapreduce.executors.forkserver import WorkerProcess
from mapreduce.executors.shipping import Home, living_in, unpacked
from mapreduce.executors.worker import END, READY, serve

IDLE_SECONDS = 60.0
MOST_IDLE = 64  # for a program that runs many jobs at once; further workers end after their job
ATTEMPTS = 2  # one worker may die of anything; the second death on the same task is taken for the task's doing
FAREWELL_SECONDS = 5.0  # for idle workers to exit


@dataclass
class Assignment:
    """A task in hand, packed once however often it is sent."""

    number: int
    name: str
    data: bytes
    attempts: int = 0


class Lost(Exception):
    """The worker's process has ended, or its pipe has."""


class Worker:
    """One process, its pipe, and the task it has.

    It belongs to the process that started it: a fork of that one has no workers.
    Should all references be lost, it ends by itself when its pipe is collected.
    """

    def __init__(self, start_seconds: float) -> None:
        self._assignment: Assignment | None = None
        self._greeting = b""
        self._home = Home()
        self._owner = os.getpid()
        self._up = False  # it has said its first READY
        self._proven = False  # it has accepted a job
        self.starting = True  # it has not yet accepted this job
        self.give_up_at = monotonic() + start_seconds
        self.connection, far_end = Pipe()
        self.process = WorkerProcess(serve, (far_end, IDLE_SECONDS), start_seconds)
        try:
            self.process.start()
        except BaseException as error:
            self.connection.close()
            if not isinstance(error, OSError | EOFError):
                raise
            raise StartError(
                f"a worker process could not be started: {type(error).__name__}: {error}. Use workers=1 to run in "
                f"this process."
            ) from error
        finally:
            far_end.close()  # so that the pipe ends when the worker does
        _workers.add(self)

    @property
    def alive(self) -> bool:
        """Whether it may be given a job; it can still end before it accepts one."""
        return bool(self.process.is_alive())

    @property
    def idle(self) -> bool:
        return self._assignment is None

    def begin(self, greeting: bytes, home: Home, assignment: Assignment, give_up_at: float) -> None:
        """Give it a job with a first task. Results are unpacked in `home`."""
        self._greeting, self._home, self._assignment = greeting, home, assignment
        self.starting, self.give_up_at = True, give_up_at
        if self._up:
            self._send(greeting)

    def give(self, assignment: Assignment) -> None:
        """Send a task."""
        self._assignment = assignment
        self._send(assignment.data)

    def receive(self) -> Outcome | None:
        """The outcome of the task, or None if the worker said no more than that it is ready.

        Raises:
            Lost: the worker ended without an answer.
            Exception: what the work raised.
        """
        try:
            if not self.connection.poll():
                raise Lost
            data = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise Lost from error
        assignment = self._assignment
        assert assignment is not None, "a worker answers only what it was asked"
        if self.starting:
            assert data == READY, data
            if not self._up:
                self._up = True
                self._send(self._greeting)
            else:
                self.starting, self._proven = False, True
                self.give(assignment)
            return None
        self._assignment = None
        with living_in(self._home):
            succeeded, value, seconds = unpacked(data, f"the result of {assignment.name}")
            if not succeeded:
                raise value.exception()
        return Outcome(assignment.number, value, assignment.attempts + 1, seconds)

    def bury(self) -> Assignment | None:
        """The task that is to be repeated after the worker was lost.

        A worker that had idled may end before it accepts a job, of age or because
        a module has changed; that is no attempt at the task.

        Raises:
            StartError: a new worker had not even reported.
            WorkerLost: its task has now ended as many workers as are allowed.
        """
        self.end()
        cause = _cause(self.process.exitcode)
        if self.starting and not self._proven:
            raise StartError(
                f"a worker process ended before it was ready ({cause}). What it printed tells why, most often a "
                f"module that cannot be imported. Use workers=1 to run in this process."
            )
        assignment = self._assignment
        if assignment and not self.starting:
            assignment.attempts += 1
            if assignment.attempts >= ATTEMPTS:
                raise WorkerLost(
                    f"{assignment.name} ended {assignment.attempts} worker processes, the last one {cause}. "
                    f"Nothing was stored. A crash in compiled code or a lack of memory are the usual reasons; "
                    f"workers=1 with a debugger shows the place."
                )
        return assignment

    def release(self) -> None:
        """After a run: back to the pool if it idles, ended if it is still at work."""
        if self._owner != os.getpid():
            return
        if not self.idle or self.starting:
            self.end()
            return
        self._greeting, self._home = b"", Home()
        self._send(END)
        with _lock:
            if len(_idle) < MOST_IDLE:
                _idle.append(self)
                return
        self.dismiss()

    def dismiss(self) -> None:
        """Let the worker end by itself."""
        self.connection.close()

    def end(self) -> None:
        """End the worker now; it only reads, and holds nothing that would need an orderly end."""
        if self._owner != os.getpid():
            return
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def abandon(self) -> None:
        """In a fork of the owner: keep nothing open by which the worker tells that its owner lives."""
        self.connection.close()
        self.process.abandon()

    def _send(self, data: bytes) -> None:
        # Should the worker be dead, the loss is noticed when its answer is waited for, or when it is borrowed again.
        with suppress(OSError):
            self.connection.send_bytes(data)


_lock = Lock()
_idle: list[Worker] = []  # the one that idles for the shortest time comes last and is taken first
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def borrowed(start_seconds: float) -> Worker:
    """A worker that idles, or a new one.

    Raises:
        StartError: a new one could not be started.
    """
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.alive:
                return worker
            worker.end()
    return Worker(start_seconds)


def close_workers() -> None:
    """End the worker processes that wait for the next job, and return when they are gone.

    They end by themselves a minute after their last job, and with the program.
    Jobs that are running keep their workers.
    """
    with _lock:
        gone, _idle[:] = list(_idle), []
    for worker in gone:
        worker.dismiss()
    for worker in gone:
        worker.process.join(FAREWELL_SECONDS)
        worker.end()


def _forget_the_workers_of_the_parent() -> None:
    global _lock
    _lock = Lock()  # another thread may have held it
    _idle.clear()
    for worker in list(_workers):
        worker.abandon()


atexit.register(close_workers)
os.register_at_fork(after_in_child=_forget_the_workers_of_the_parent)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"by {signal.Signals(-exit_code).name}"
    return f"with exit code {exit_code}"
