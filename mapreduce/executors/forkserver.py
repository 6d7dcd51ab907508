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
from typing import Any

from multiprocess import context, popen_forkserver, process, reduction, spawn, util
from multiprocess.connection import wait
from multiprocess.forkserver import ForkServer, read_signed

PRELOADED = ["vstore", "mapreduce.executors.worker"]

_servers: dict[int, Any] = {}  # by process, since a program that forks must not talk to its parent's server


def _server() -> Any:
    if os.getpid() not in _servers:
        _servers.clear()
        server = ForkServer()
        server.set_forkserver_preload(PRELOADED)
        _servers[os.getpid()] = server
    return _servers[os.getpid()]


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
        self.sentinel, to_child = _server().connect_to_new_process(self._fds)
        held_open = os.dup(to_child)  # the child takes its end for the end of its parent
        self.finalizer = util.Finalize(self, util.close_fds, (held_open, self.sentinel))
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

    @staticmethod
    def _Popen(child: Any) -> Any:  # noqa: N802  # the name that multiprocess calls
        return _Popen(child)
