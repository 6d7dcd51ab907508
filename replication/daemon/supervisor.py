"""Many replications on few threads, from the start of the daemon to its end.

Each thread takes the replication that has been due for longest, and gives it one
turn. A turn that has much to do ends after TURN_SECONDS if others wait, and goes
on where it was. Replications whose ends do not answer never hold all threads: those
that have failed leave one to the others, and for a turn of which nothing was heard
for SILENT_SECONDS another thread steps in until it has ended.

A signal or `stop` ends the turns after their batch; whoever does not manage that
within STOP_SECONDS, because a database does not answer, is left: a batch is
written as a whole or not at all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from replication.daemon.config import Config, Replication, config_of, shown
from replication.daemon.stores import Stores
from replication.replicator import Replicator, Status
from vstore.cli.output import counted
from vstore.errors import ConfigurationError, NotFound

log = logging.getLogger("replication")

TURN_SECONDS = 5.0
STOP_SECONDS = 8.0
SILENT_SECONDS = 20.0
"""How long a turn may get nowhere before its thread is not counted on, and its status says so."""

WATCH_SECONDS = 1.0
"""How often it is looked for such turns."""


@dataclass(eq=False)
class _Job:
    """A replication: when it is due on the clock of `time.monotonic`, and whether a thread has it."""

    definition: Replication
    replicator: Replicator
    source: str
    target: str
    due: float = 0.0
    running: bool = False
    failing: bool = False
    called: bool = False


class Supervisor:
    """The replications of one configuration."""

    def __init__(self, config: Config) -> None:
        """Begins nothing yet, and opens nothing."""
        self.config = config
        self._stores = Stores(config.settings.state)
        self._changed = threading.Condition()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._jobs: dict[str, _Job] = {}
        for definition in config.replications:
            self._add(definition)

    def start(self) -> None:
        """Starts the threads."""
        with self._changed:
            for _number in range(self.config.settings.threads):
                self._hire()
        threading.Thread(target=self._watch, name="replication-watch", daemon=True).start()

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """Ends all turns after their batch, and closes the stores; whether that was done within so many seconds."""
        until = time.monotonic() + seconds
        with self._changed:
            self._stopping = True
            jobs = list(self._jobs.values())
            self._changed.notify_all()
        for job in jobs:
            job.replicator.stop(0)
        threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            return False
        self._stores.close()
        return True

    # --- what others ask and tell ------------------------------------------------------------------------------------

    def statuses(self, name: str | None = None) -> list[Status]:
        """How the replications stand, in the order of the file; or one of them.

        Raises:
            NotFound: there is none of that name.
        """
        return [self._status(job) for job in self._named(name)]

    def pause(self, name: str | None = None) -> None:
        """Pauses one, or all. Raises NotFound if there is none of that name."""
        for job in self._named(name):
            job.replicator.pause()

    def resume(self, name: str | None = None) -> None:
        """Lets one or all go on. Raises NotFound if there is none of that name."""
        for job in self._named(name):
            job.replicator.resume()

    def reload(self) -> None:
        """Reads the file again: what is new begins, what is gone or has changed ends or begins anew, the rest goes on.

        What the daemon itself is set to, and the code of Python files, stays as
        it was when it started.

        Raises:
            ConfigurationError: the file has mistakes, which are logged as well.
                Nothing was changed.
        """
        try:
            config = config_of(self.config.path)
        except ConfigurationError as error:
            for line in str(error).splitlines():
                log.error("not reloaded: %s", line)
            raise
        if config.settings != self.config.settings:
            log.warning("settings in [replicator] take effect when the daemon is started again")
        wanted = {each.name: each for each in config.replications}
        with self._changed:
            for name, job in list(self._jobs.items()):
                if wanted.get(name) != job.definition:
                    del self._jobs[name]
                    job.replicator.stop(0)
                    log.info("%s: ended by a reload", name, extra={"replication": name})
            kept = self._jobs
            self._jobs = {}
            for definition in config.replications:
                if definition.name in kept:
                    self._jobs[definition.name] = kept[definition.name]
                else:
                    self._add(definition)
            self.config = Config(config.path, self.config.settings, config.replications)
            self._changed.notify_all()
        log.info("reloaded: %s", counted(len(wanted), "replication"))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _status(self, job: _Job) -> Status:
        status = job.replicator.status
        status = replace(status, source=status.source or job.source, target=status.target or job.target)
        if status.state == "stopped" and not self._stopping:
            status = replace(status, state="catching up")  # its first turn has not got as far as to open both ends
        silent = time.monotonic() - job.replicator.heard_at
        if not job.running or silent < SILENT_SECONDS or status.error:
            return status
        error = f"nothing heard for {silent:.0f} s: one end does not answer, or a comparison in full takes its time"
        return replace(status, state="failing", error=error, error_at=time.time_ns() // 1000)

    def _silent(self) -> int:
        """How many threads have a turn that gets nowhere."""
        now = time.monotonic()
        return sum(job.running and now - job.replicator.heard_at > SILENT_SECONDS for job in self._jobs.values())

    def _hire(self) -> None:
        thread = threading.Thread(target=self._work, name=f"replication-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        """Puts a thread in the place of each that is held up."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=WATCH_SECONDS)
                if self._stopping:
                    return
                while len(self._threads) - self._silent() < self.config.settings.threads:
                    self._hire()

    def _add(self, definition: Replication) -> None:
        if not definition.enabled:
            return
        job: _Job

        def wake() -> None:
            with self._changed:
                job.due, job.called = 0.0, True
                self._changed.notify()

        replicator = Replicator(
            self._stores.lender(definition.source, create=False),
            self._stores.lender(definition.target, create=definition.create),
            live=True,
            both=definition.both,
            filter=definition.filter,
            resolver=definition.resolver,
            history=definition.history,
            collections=definition.collections,
            name=definition.name,
            poll_seconds=definition.poll_seconds,
            reconcile_seconds=definition.reconcile_seconds,
            wake=wake,
        )
        job = self._jobs[definition.name] = _Job(
            definition, replicator, shown(definition.source), shown(definition.target)
        )

    def _named(self, name: str | None) -> list[_Job]:
        with self._changed:
            if name is None:
                return list(self._jobs.values())
            if name not in self._jobs:
                raise NotFound(f"there is no replication {name!r}. There are: {', '.join(self._jobs) or 'none'}.")
            return [self._jobs[name]]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            began = time.monotonic()
            wait = job.replicator.turn(self._enough(began))
            with self._changed:
                job.running = False
                job.failing = bool(job.replicator.status.error)
                job.due = 0.0 if job.called else time.monotonic() + wait
                self._changed.notify()

    def _enough(self, began: float) -> Callable[[], bool]:
        return lambda: time.monotonic() - began > TURN_SECONDS and self._others_wait()

    def _others_wait(self) -> bool:
        now = time.monotonic()
        with self._changed:
            return any(not job.running and job.due <= now for job in self._jobs.values())

    def _next(self) -> _Job | None:
        """The job whose turn it is, as soon as there is one; None at the end."""
        with self._changed:
            while not self._stopping:
                if len(self._threads) - self._silent() > self.config.settings.threads:
                    self._threads.remove(threading.current_thread())  # one that was held up has come back
                    return None
                now = time.monotonic()
                idle = [job for job in self._jobs.values() if not job.running]
                failing = sum(job.running and job.failing for job in self._jobs.values())
                if failing >= max(1, len(self._threads) - 1):
                    idle = [job for job in idle if not job.failing]
                job = min(idle, key=lambda each: each.due, default=None)
                if job is not None and job.due <= now:
                    job.running, job.called = True, False
                    return job
                self._changed.wait(None if job is None else job.due - now)
            return None
