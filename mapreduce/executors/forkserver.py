"""Worker processes that are forked from a clean server and never run the user's main module.

`multiprocess` runs the main module again in every child, to find the functions
defined there. For a script without a main guard that starts the script over, for
a program read from stdin it fails, and its pool then respawns dying children for
ever. Here functions travel by value (`shipping`), so children need no main
module, and scripts, stdin and the interactive prompt all work.

A server of our own, because `multiprocess` has one per program, and what is
preloaded there is the program's choice. Forking from the server and not from the
program: a fork of a program with threads and open SQLite connections is unsafe,
and one with much memory is slow.
"""

from __future__ import annotations

import io
import os
import signal
from typing import Any

from multiprocess import context, popen_forkserver, process, reduction, spawn, util
from multiprocess.connection import wait
from multiprocess.forkserver import ForkServer, read_signed

PRELOADED = ["vstore", "mapreduce.executors.worker"]

_server = ForkServer()
_server.set_forkserver_preload(PRELOADED)


def _forget_the_server_of_the_parent() -> None:
    global _server
    if _server._forkserver_alive_fd is not None:
        os.close(_server._forkserver_alive_fd)  # else the server would outlive the program that it serves
    _server = ForkServer()
    _server.set_forkserver_preload(PRELOADED)


os.register_at_fork(after_in_child=_forget_the_server_of_the_parent)


class _Popen(popen_forkserver.Popen):  # type: ignore[misc]  # multiprocess is untyped
    def _launch(self, child: Any) -> None:
        # As in the parent class, but for three things: no main module, our own server, and a limit to the wait for the
        # child, which would be endless if a preloaded module blocks.
        preparation = spawn.get_preparation_data(child.name)
        preparation.pop("init_main_from_name", None)
        preparation.pop("init_main_from_path", None)
        buffer = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(child, buffer)
        finally:
            context.set_spawning_popen(None)
        # A terminal sends Ctrl-C to every process of its group. The program handles it and ends its workers; these, and
        # the server from its first moment, inherit that they do not hear it, so only the program prints a traceback.
        # Blocked and not ignored: any thread may do that, and it concerns no other.
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.sentinel, to_child = _server.connect_to_new_process(self._fds)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        held_open = os.dup(to_child)  # the child takes its end for the end of its parent
        self.descriptors = (held_open, self.sentinel)
        self.finalizer = util.Finalize(self, util.close_fds, self.descriptors)
        with open(to_child, "wb", closefd=True) as pipe:
            pipe.write(buffer.getbuffer())
        if not wait([self.sentinel], child.start_seconds):
            raise TimeoutError(f"the fork server did not answer within {child.start_seconds} s")
        self.pid = read_signed(self.sentinel)


class WorkerProcess(process.BaseProcess):  # type: ignore[misc]  # multiprocess is untyped
    """A process from our fork server; ends with the program that started it.

    `start` raises `OSError`, `TimeoutError` or `EOFError` if there is no process
    after `start_seconds`.
    """

    _start_method = "forkserver"

    def __init__(self, target: Any, arguments: tuple[Any, ...], start_seconds: float) -> None:
        super().__init__(target=target, args=arguments, name="mapreduce-worker", daemon=True)
        self.start_seconds = start_seconds

    def start(self) -> None:
        super().start()
        # Its owner sees to its end. `multiprocess` would end it at the exit of every fork of this program too, and by
        # asking after all children take the exit code that the owner waits for.
        process._children.discard(self)

    def abandon(self) -> None:
        """For a fork of the owner: let go of the process, which knows by these descriptors that its owner lives."""
        util.close_fds(*self._popen.descriptors)

    @staticmethod
    def _Popen(child: Any) -> Any:  # noqa: N802  # the name that multiprocess calls
        return _Popen(child)
