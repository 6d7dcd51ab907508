"""A part of a collection as a value that travels to another process and is read there.

A slice says where the database is, how bodies are decoded, and which `Part` of
the collection is meant; the part carries the positions it is exact at, so a
slice can be read again and gives the same documents. What the parts are is for
those who make them: heads at a position, the past, every version.

A process that reads many slices of one database makes its engine and compiles
its statements once. Connections are closed with the last slice that is being
read, so a worker that waits for work holds on to no file and no server.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from vstore.codecs import Codec, codec
from vstore.decoding import Decoding, Pair, Plain, Row
from vstore.reading import Reading
from vstore.sql.database import Database


class Part(Protocol):
    """Some documents of a collection in one database, at one moment that it names by positions. Small, picklable."""

    @property
    def moment(self) -> str:
        """The past moment that it is of, for messages; empty for the present."""

    def pages(self, database: Database, reading: Reading | None) -> Iterator[list[Row] | Plain]:
        """The rows, a page of at most 2,000 at a time; without a reading, (id, kind, key) will do."""

    def rev_of(self, database: Database, key: str) -> str | None:
        """The rev that `pages` has of a key of the collection, None if it has none."""


class Decoders:
    """Codecs by the name stored with a row, each made once."""

    def __init__(self, allow_pickle: bool = False, max_body_bytes: int | None = None) -> None:
        """How permissive they are; the body limit is the codecs' own default if None."""
        self._settings: dict[str, Any] = {"allow_pickle": allow_pickle}
        if max_body_bytes is not None:
            self._settings["max_body_bytes"] = max_body_bytes
        self._made: dict[str, Codec] = {}

    def named(self, name: str) -> Codec:
        """The codec that wrote rows under this name."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = codec(name, **self._settings)
        return found


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a collection that any process can read: where the database is, and what to read of it."""

    url: str = field(repr=False)  # it may hold a password
    database: str  # the same without it
    name: str
    part: Part
    codecs: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""

    def __str__(self) -> str:
        within = f" under {self.prefix!r}" if self.prefix else ""
        return f"{self.part} of {self.name!r}{within} in {self.database}"

    def batches(self, reading: Reading) -> Iterator[list[Pair]]:
        """Every document of the slice as (key, value), in lists of at most 2,000, over a connection of this process.

        Raises:
            Conflict, CodecError: as the reading says.
            HistoryPruned: a body that the slice needs has been pruned since it was cut.
        """
        with _opened(self.url) as database:
            decoding = Decoding(
                reading, database, self.name, Decoders(**self.codecs).named, self.prefix, self.part.moment
            )
            yield from decoding.batches(self.part.pages(database, reading))

    def rev_of(self, key: str) -> str | None:
        """The rev of the document that the slice has under a key: the winner's among siblings. None if it has none."""
        with _opened(self.url) as database:
            return self.part.rev_of(database, self.prefix + key)


@dataclass
class _Shared:
    """A database of this process, and how many of its slices are being read."""

    database: Database
    readers: int = 0


_databases: dict[str, _Shared] = {}
_lock = threading.RLock()  # the collector may end a forgotten reading in the middle of another's beginning


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    """This process's database of a URL. Its connections are closed with the last that is open.

    Measured for a slice of 20,000 documents, which takes 25 ms: 0.9 ms to make
    an engine and compile four statements, 0.3 ms to connect (PostgreSQL: 3.9 and
    2.2). Kept connections would save those 0.3 ms, and read on in a file that
    has been deleted and made anew.
    """
    with _lock:
        shared = _databases.get(url) or _databases.setdefault(url, _Shared(Database(url)))
        shared.readers += 1
    try:
        yield shared.database
    finally:
        with _lock:
            shared.readers -= 1
            if not shared.readers:
                shared.database.distrust_idle()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _databases.clear()  # those that the parent reads are not read here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
