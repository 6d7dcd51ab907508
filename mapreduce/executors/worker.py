"""The life of a worker process: say hello, work for one job after the other, end when nothing comes.

    worker                         owner
      │ ─── READY ───────────────►  │   within a time limit
      │ ◄── greeting ────────────── │   for each job: surroundings and function
      │ ─── READY ───────────────►  │   or the worker ends, being of no use for this job
      │ ◄── task ────────────────── │
      │ ─── (done, result) ──────►  │   or (failed, Failure), and so on
      │ ◄── END ─────────────────── │   then idle, for a minute at most

A job must find the worker as if it were a new one. So each brings the program's
environment, module path and working directory of the moment; what it defined is
forgotten after it; and a worker that cannot be made as new, because a module it
has imported has changed or it holds threads or too much memory, ends instead.

Nothing here waits for anything but the owner, and the worker ends with it: when
the pipe ends, or at once if the owner is killed while a task is worked on.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import resource
import site
import sys
import sysconfig
import threading
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter, time_ns
from typing import Any

from multiprocess.connection import wait
from multiprocess.process import parent_process

from mapreduce.executors import worked
from mapreduce.executors.failure import Failure
from mapreduce.executors.shipping import Home, living_in, packed, unpacked, unpacked_function
from mapreduce.sizes import resident_bytes

READY = b"ready"
END = b"end"
IDLE_BYTES = 1 << 30  # resident after a job; what Python does not give back would stay taken for as long as it idles
OWN_THREADS = 2  # the main one, and the one that watches the owner


@dataclass(frozen=True)
class Greeting:
    """What a job brings along besides its tasks: the program as it is at this moment, and the function."""

    environment: dict[str, str]
    path: list[str]
    folder: str | None
    function: bytes

    @classmethod
    def of(cls, function: bytes) -> Greeting:
        """From this process. `folder` is None if the working directory has been deleted."""
        try:
            folder = os.getcwd()
        except OSError:
            folder = None
        return cls(dict(os.environ), list(sys.path), folder, function)


def serve(connection: Any, idle_seconds: float) -> None:
    """Work for the owner at the other end of the connection, until it wants no more or nothing for `idle_seconds`."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    main = vars(sys.modules["__main__"])
    before = dict(main)
    imported = _Imported()
    gc.freeze()  # what was there before any job is never garbage, so a collection after a job need not look at it
    with suppress(EOFError, ConnectionError):  # the owner is gone or wants no more
        connection.send_bytes(READY)
        while connection.poll(idle_seconds):
            greeting: Greeting = pickle.loads(connection.recv_bytes())
            if imported.outdated(greeting):
                return
            started_ns = time_ns()
            _surround(greeting)
            connection.send_bytes(READY)
            with living_in(Home(main)):
                _job(connection, greeting.function)
            main.clear()
            main.update(before)
            imported.note(greeting, started_ns)
            gc.collect()
            if threading.active_count() > OWN_THREADS or (resident_bytes() or _peak_bytes()) > IDLE_BYTES:
                return


def _job(connection: Any, function: bytes) -> None:
    work = None
    while (data := connection.recv_bytes()) != END:
        try:
            work = work or unpacked_function(function)
            task = unpacked(data, "a task")
            started = perf_counter()
            result = worked(work, task)
            answer = packed((True, result, perf_counter() - started), "a result")
        except BaseException as error:  # SystemExit too: the owner raises it, as if the work were done there
            answer = packed((False, Failure.of(error), 0.0), "a failure")
        for stream in (sys.stdout, sys.stderr):  # what the function has printed is out before the job is done
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        connection.send_bytes(answer)


def _surround(greeting: Greeting) -> None:
    # The fork server keeps the environment of the moment it was started, and a worker that of its last job. What the
    # program has set since, such as a store's URL or password, has to be sent.
    os.environ.clear()
    os.environ.update(greeting.environment)
    sys.path[:] = greeting.path
    if greeting.folder is not None:
        with suppress(OSError):
            os.chdir(greeting.folder)
    importlib.invalidate_caches()  # they do not see a module that was written since


class _Imported:
    """The modules that jobs have imported here, and whether a new worker would import the same.

    Those of the standard library and of installed packages are taken not to
    change while a program runs, nor those that were there before the first job.
    """

    def __init__(self) -> None:
        self._known = set(sys.modules)
        self._stamps: dict[str, tuple[int, int] | None] = {}
        self._found_by: tuple[list[str], str | None] | None = None

    def note(self, greeting: Greeting, started_ns: int) -> None:
        """After a job: remember the files of what it has imported."""
        new = sys.modules.keys() - self._known
        self._known |= new
        files = {getattr(sys.modules[name], "__file__", None) for name in new}
        for file in files:
            if isinstance(file, str) and not file.startswith(_installed()):
                stamp = _stamp(file)
                # A file that was written after the job began may have been so after it was imported.
                self._stamps[file] = stamp if stamp and stamp[0] < started_ns else None
        if self._stamps:
            self._found_by = self._where(greeting)

    def outdated(self, greeting: Greeting) -> bool:
        """Before a job: whether a file has changed, or modules would be looked for elsewhere."""
        return bool(self._stamps) and (
            self._found_by != self._where(greeting)
            or any(stamp is None or stamp != _stamp(file) for file, stamp in self._stamps.items())
        )

    @staticmethod
    def _where(greeting: Greeting) -> tuple[list[str], str | None]:
        relative = any(not os.path.isabs(folder) for folder in greeting.path)
        return greeting.path, greeting.folder if relative else None


def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {site.getusersitepackages()}
    return tuple(folder + os.sep for folder in folders)


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _end_with_owner() -> None:
    # The pipe is looked at only between two tasks, and a task may take hours for which nobody is waiting any more.
    wait([parent_process().sentinel])
    os._exit(1)
