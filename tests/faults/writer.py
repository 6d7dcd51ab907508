"""A process that writes and tells each acknowledged write to its parent, until it is killed.

What it must have told and what the store then holds differ by at most one write
for each of its threads: the one that was under way.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import vstore
from tests.lives import LIVES
from vstore import NotFound, Store
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

THREADS = 3
BATCH_KEYS = 20

Wrote = tuple[str, Any]
"""A key and what was stored under it; None for a delete."""


def write_until_killed(urls: Sequence[str], state: str, seed: int, told: Connection) -> None:
    """Puts, deletes and batches from several threads, each with keys of its own."""
    store = vstore.open(*urls, state=state)
    lock = threading.Lock()

    def tell(*wrote: Wrote) -> None:
        with lock:
            told.send(wrote)

    threads = [
        threading.Thread(target=_write, args=(store, f"t{n}", random.Random(seed * 100 + n), tell))
        for n in range(THREADS)
    ]
    tell()  # ready
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _write(store: Store, name: str, chance: random.Random, tell: Any) -> None:
    posts = store["posts"]
    n = 0
    while True:
        n += 1
        value = f"{os.getpid()}-{name}-{n}"
        kind = chance.random()
        if kind < 0.3:
            batch = [(f"{name}-batch-{m}", value) for m in range(BATCH_KEYS)]
            posts.put_many(batch)
            tell(*batch)
        elif kind < 0.45:
            key = f"{name}-key-{chance.randrange(3)}"
            try:
                posts.delete(key)
            except NotFound:
                continue
            tell((key, None))
        else:
            key = f"{name}-key-{chance.randrange(3)}"
            posts[key] = value
            tell((key, value))


class Life:
    """One such process, from its first write to its end."""

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        """Starts it, and returns when it has begun to write."""
        self._told, theirs = LIVES.Pipe(duplex=False)
        self._process = LIVES.Process(target=write_until_killed, args=(urls, os.environ["VSTORE_STATE"], seed, theirs))
        self._process.start()
        theirs.close()
        self._told.recv()
        self._acknowledged: list[Wrote] = []
        self._heard = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def await_writes(self, count: int) -> None:
        """Returns once so many writes have been acknowledged, however slow the machine is."""
        with self._heard:
            assert self._heard.wait_for(lambda: self._ended or len(self._acknowledged) >= count, timeout=60)
            assert not self._ended, "the writer ended by itself"

    def killed(self) -> dict[str, list[Any]]:
        """Kills it; what it had been told is stored, in order, for each key."""
        os.kill(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        self._reader.join()
        self._told.close()
        written: dict[str, list[Any]] = defaultdict(list)
        for key, value in self._acknowledged:
            written[key].append(value)
        return written

    def _read(self) -> None:
        try:
            while True:
                wrote = self._told.recv()
                with self._heard:
                    self._acknowledged.extend(wrote)
                    self._heard.notify_all()
        except (EOFError, OSError):  # killed, perhaps in the middle of a message
            with self._heard:
                self._ended = True
                self._heard.notify_all()


def recorded(store: Store, name: str = "posts") -> dict[str, list[Any]]:
    """Every value that a collection ever stored, in commit order for each key; None for deletes."""
    for shard in store.shards:
        with shard.database.transaction() as connection:
            connection.rows(sql.LOCK_ALL_PARTITIONS)  # the server may still be at the last wish of a killed client
    found: dict[str, list[Any]] = defaultdict(list)
    if name in store:
        for change in store[name].changes(full=True, values=True):
            found[change.key].append(change.value)
    return found


def dots(store: Store) -> Iterator[tuple[tuple[str, int], tuple[str, str]]]:
    """Every dot that a store knows of, and the key and rev of the version it names."""
    for shard in store.shards:
        for key, _body, *lineage in shard.database.ask(sql.VERSIONS_BY_ID, (0, 1 << 62, 1_000_000)):
            version = version_of(lineage)
            for dot in version.dots:
                yield (dot.actor, dot.n), (key, version.rev)
