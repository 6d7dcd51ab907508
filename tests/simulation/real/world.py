"""A small world: its time, its chance, its machines, and what they call each other.

Everything that the code under test takes from outside comes from here while a
world is `installed`: the wall clock of each machine (skewed, jumping, frozen),
time that only passes when statements run or someone sleeps, random bytes and
jitter of the seed, the identity of files. So a seed always makes the same world.

Blank stores are made once per process and copied, since making tables takes
longer than most of what a schedule does with them.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any

import replication.lease
import vstore.sql.database
import vstore.store
from vstore import Store
from vstore.document import Version
from vstore.sql.dialects import SQLITE
from vstore.sql.rows import version_of

from . import faults

BEGAN_US = 1_800_000_000_000_000
STATEMENT_US = 150
STORES = 9
"""How many blank stores there are: as many replicas as a schedule can have, with copies."""

COLLECTION = "docs"

LOCK_SECONDS = 0.2
"""There is one thread, so a lock that is held is never given back: what waits for it is a failure."""


class Time:
    """The `time` module of the world: passes with statements and sleeps; `time_ns` is the clock on the wall."""

    def __init__(self) -> None:
        self.passed_us = 0
        self.skew_us: dict[str, int] = {}
        self.frozen: dict[str, int] = {}
        self.where = ""  # the machine whose wall clock is looked at

    def pass_us(self, us: int) -> None:
        self.passed_us += us

    def wall_us(self, where: str) -> int:
        """What the clock on the wall of a machine says."""
        if where in self.frozen:
            return self.frozen[where]
        return BEGAN_US + self.passed_us + self.skew_us.get(where, 0)

    def time_ns(self) -> int:
        return self.wall_us(self.where) * 1000

    def time(self) -> float:
        return self.wall_us(self.where) / 1e6

    def monotonic(self) -> float:
        return self.passed_us / 1e6

    perf_counter = monotonic

    def monotonic_ns(self) -> int:
        return self.passed_us * 1000

    perf_counter_ns = monotonic_ns

    def sleep(self, seconds: float) -> None:
        self.passed_us += max(0, round(seconds * 1e6))

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Chance:
    """The `random` and `secrets` modules of the world."""

    def __init__(self, source: Random) -> None:
        self._source = source

    def token_hex(self, nbytes: int = 32) -> str:
        return self.token_bytes(nbytes).hex()

    def token_bytes(self, nbytes: int = 32) -> bytes:
        return self._source.randbytes(nbytes)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._source, name, None)
        return getattr(secrets, name) if found is None else found


class Processes:
    """The `os` and `platform` modules, for those who ask which process they are and whether another is still there."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self.begun: dict[str, int] = {}  # by machine

    def begin(self, where: str) -> None:
        """The process of a machine has ended, and another begins."""
        self.begun[where] = self.begun.get(where, 0) + 1

    def getpid(self) -> int:
        return self.begun.get(self._time.where, 0)

    def node(self) -> str:
        return self._time.where

    def kill(self, pid: int, _signal: int) -> None:
        if pid != self.getpid():
            raise ProcessLookupError(pid)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class World:
    """One schedule's folder, time and chance."""

    def __init__(self, seed: int) -> None:
        self.time = Time()
        self.processes = Processes(self.time)
        self.chance = Chance(Random(f"chance {seed}"))
        self.folder = Path(tempfile.mkdtemp(prefix="vstore-sim-", dir=roomy()))
        self.inodes: dict[str, str] = {}
        self.said: list[str] = []  # warnings and errors of the product's log

    def identity(self, path: str) -> str:
        """In the place of `vstore.identity.file_identity`: real inodes are used again, and differ between runs."""
        return self.inodes[str(path)]

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def roomy() -> str:
    """Where files cost nothing: crashes are simulated, so nothing has to reach a disk."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() and os.access(shm, os.W_OK) else tempfile.gettempdir()


class _Listener(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.INFO)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(f"{record.levelname} {record.getMessage()}")


@contextlib.contextmanager
def installed(world: World) -> Iterator[None]:
    """Inside, the code under test lives in the world."""
    before: list[tuple[Any, str, Any]] = []

    def put(holder: Any, name: str, value: Any) -> None:
        before.append((holder, name, getattr(holder, name)))
        setattr(holder, name, value)

    places = {id(time): world.time, id(random): world.chance, id(secrets): world.chance}
    for module in _ours():
        for name in ("time", "random", "secrets"):
            found = places.get(id(getattr(module, name, None)))
            if found is not None:
                put(module, name, found)
        if getattr(module, "version_of", None) is version_of:
            put(module, "version_of", _version_once)
    put(vstore.sql.database, "Connection", faults.WiredConnection)
    put(vstore.store, "file_identity", world.identity)
    patience = SQLITE.connect_args["timeout"]
    SQLITE.connect_args["timeout"] = LOCK_SECONDS  # type: ignore[index]
    put(replication.lease, "os", world.processes)
    put(replication.lease, "platform", world.processes)
    listener = _Listener(world.said)
    logs = [logging.getLogger(name) for name in ("vstore", "replication")]
    for log in logs:
        put(log, "propagate", False)
        put(log, "level", logging.INFO)
        log.addHandler(listener)
        log.manager._clear_cache()
    try:
        yield
    finally:
        SQLITE.connect_args["timeout"] = patience  # type: ignore[index]
        for log in logs:
            log.removeHandler(listener)
        for holder, name, value in reversed(before):
            setattr(holder, name, value)
        faults.wires.clear()


def _ours() -> list[Any]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("vstore", "replication") and module is not None
    ]


@lru_cache(maxsize=20_000)
def _parsed(row: tuple[Any, ...], body: bytes | None) -> Version:
    return version_of(row, body)


def _version_once(row: Sequence[Any], body: bytes | None = None) -> Version:
    """In the place of `version_of`: a version is a value, and replicas read the same few rows thousands of times."""
    return _parsed(tuple(row), body)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for cycles of garbage, which would come at moments that depend on what the process did before.

    It also looks at all that is imported, again and again.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@cache
def blank_stores(partitions: int) -> tuple[bytes, ...]:
    """Files of stores with one empty collection, each of its own identity."""
    found = []
    world = World(partitions)
    try:
        with installed(world):
            for number in range(STORES):
                path = world.folder / f"blank-{number}.db"
                world.inodes[str(path)] = f"blank {number}"
                with Store(f"sqlite:///{path}", state=world.folder / "state") as store:
                    store.create(COLLECTION, partitions=partitions)
                found.append(path.read_bytes())
    finally:
        world.close()
    return tuple(found)
