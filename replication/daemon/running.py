"""The daemon as a process: its socket, its signals, and its end within ten seconds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import FrameType

from replication.daemon import logs
from replication.daemon.config import Config
from replication.daemon.control import Control
from replication.daemon.supervisor import STOP_SECONDS, Supervisor
from vstore.cli.output import counted
from vstore.errors import ConfigurationError

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

log = logging.getLogger("replication")

END_SECONDS = 9.5
"""After how long it ends whatever its threads are waiting for: systemd and users are told ten."""


def run(config: Config) -> None:
    """Replicates until SIGTERM, SIGINT or `vstore replicator stop`.

    Raises:
        ConfigurationError: another daemon has the socket, or the port of the
            metrics is taken. Nothing was done.
    """
    settings = config.settings
    logs.set_up(settings.log_format, settings.log_level)
    _raise_limit_of_files()
    wishes = _Wishes()
    supervisor = Supervisor(config)
    with ExitStack() as open_:
        control = Control(settings.socket, supervisor, wishes.stop)
        open_.callback(control.close)
        if settings.metrics is not None:
            from replication.daemon.metrics import Metrics

            metrics = Metrics(*settings.metrics, supervisor.statuses)
            open_.callback(metrics.close)
            log.info("metrics at http://%s:%d/metrics", settings.metrics[0], metrics.port)
        with wishes.heard():
            supervisor.start()
            log.info(
                "started: %s on %s",
                counted(len(supervisor.statuses()), "replication"),
                counted(settings.threads, "thread"),
                extra={"socket": str(settings.socket)},
            )
            while not wishes.ended:
                if wishes.next() == "reload":
                    with contextlib.suppress(ConfigurationError):  # which is in the log
                        supervisor.reload()
            _ends_in_time(END_SECONDS)
            began = time.monotonic()
            log.info("ending")
            if not supervisor.stop(STOP_SECONDS):
                control.close()
                _end_now()
            log.info("ended after %.1f s", time.monotonic() - began)


class _Wishes:
    """What signals and the socket ask for. A second signal to end is obeyed as Python does it, at once."""

    def __init__(self) -> None:
        self.ended = False
        self._reload = False
        self._told = threading.Event()

    def stop(self) -> None:
        self.ended = True
        self._told.set()

    def next(self) -> str:
        """The next wish, as soon as there is one."""
        self._told.wait()
        self._told.clear()
        wish, self._reload = "reload" if self._reload and not self.ended else "stop", False
        return wish

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Signals are wishes inside of the block."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, *_RELOADS)}

        def stop(number: int, frame: FrameType | None) -> None:
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, before[each])
            self.stop()

        def reload(number: int, frame: FrameType | None) -> None:
            self._reload = True
            self._told.set()

        for number in before:
            signal.signal(number, reload if number in _RELOADS else stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


_RELOADS = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []


def _raise_limit_of_files() -> None:
    """Each store has a few open files for each thread, and the usual limit is meant for programs with less."""
    if resource is not None:
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _ends_in_time(seconds: float) -> None:
    timer = threading.Timer(seconds, _end_now)
    timer.daemon = True
    timer.start()


def _end_now() -> None:
    """Ends the process though a thread waits for its database. A batch is written as a whole or not at all."""
    log.warning("a database does not answer: ended without waiting for it; nothing is lost")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(0)
