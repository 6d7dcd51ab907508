"""The life of a worker process: say hello, receive the function, work on tasks until the pipe ends.

    worker                         owner
      │ ─── READY ───────────────►  │   within a time limit
      │ ◄── environment, function ─ │   once
      │ ◄── task ────────────────── │
      │ ─── (done, result) ──────►  │   or (failed, Failure), and so on

Nothing here waits for anything but the owner, and the worker ends with it: when
the pipe ends, or at once if the owner is killed while a task is worked on.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from typing import Any

from multiprocess.connection import wait
from multiprocess.process import parent_process

from mapreduce.executors.failure import Failure
from mapreduce.executors.shipping import packed, unpacked, unpacked_function

READY = b"ready"


def serve(connection: Any) -> None:
    """Work for the owner at the other end of the connection."""
    # A terminal sends Ctrl-C to every process of its group. The owner handles it, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_owner, daemon=True).start()
    try:
        connection.send_bytes(READY)
        environment, function = pickle.loads(connection.recv_bytes())
        # The fork server keeps the environment of the moment it was started. What the program has set since, such as a
        # store's URL or password, has to be sent.
        os.environ.clear()
        os.environ.update(environment)
        work = None
        while True:
            task = connection.recv_bytes()
            try:
                work = work or unpacked_function(function)
                answer = packed((True, work(unpacked(task, "a task"))), "a result")
            except BaseException as error:  # SystemExit too: the owner raises it, as if the work were done there
                answer = packed((False, Failure.of(error)), "a failure")
            connection.send_bytes(answer)
    except (EOFError, ConnectionError):
        return  # the owner is gone or wants no more


def _end_with_owner() -> None:
    # The pipe is looked at only between two tasks, and a task may take hours for which nobody is waiting any more.
    wait([parent_process().sentinel])
    os._exit(1)
