"""Who builds a view: one at a time, and whoever dies is followed by another.

A lease ends by itself after LEASE_SECONDS, and is renewed by a thread while the
build lives. A builder of this machine that is gone need not be waited for. Clocks
may differ and processes may sleep, so each transaction of a build checks that it
is still its owner's: a lease saves work, that check keeps the view right.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from hashlib import blake2b

from mapreduce.views import tables
from vstore.errors import StoreError
from vstore.sql.database import Database
from vstore.sql.dialects import machine_id

LEASE_SECONDS = 30.0

_own: set[str] = set()


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def until_us() -> int:
    """When a lease that is taken now ends."""
    return now_us() + int(LEASE_SECONDS * 1_000_000)


def is_held(owner: str, lease_us: int) -> bool:
    """Whether a build is somebody's: the lease has not ended, and the owner is not known to be gone."""
    if not owner or lease_us < now_us():
        return False
    machine, pid, _word = owner.split(":")
    if machine != _machine():
        return True
    if int(pid) == os.getpid():
        return owner in _own
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def owner() -> Iterator[str]:
    """A name for a builder of this process, which counts as alive inside the block."""
    name = f"{_machine()}:{os.getpid()}:{secrets.token_hex(6)}"
    _own.add(name)
    try:
        yield name
    finally:
        _own.discard(name)


@contextlib.contextmanager
def renewed(database: Database, build: int, name: str) -> Iterator[None]:
    """Keeps the lease of a build while the block runs, however long a single slice takes."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(LEASE_SECONDS / 3):
            with contextlib.suppress(StoreError):  # the build will notice
                database.read().run(tables.LEASE, (until_us(), build, name))

    thread = threading.Thread(target=renew, name="vstore-view-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _machine() -> str:
    # With the host's name: containers may share the machine's id, and do not see each other's processes.
    return blake2b(f"{machine_id()} {socket.gethostname()}".encode(), digest_size=8).hexdigest()
