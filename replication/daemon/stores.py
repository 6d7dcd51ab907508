"""The stores of a process that lives long: opened when they are needed, once for all that use them.

A store is lent for a turn at a time. One that failed is opened anew for the next
turn, as soon as nobody uses it; and so is one whose SQLite file is another file by
now, for a connection goes on with a file that was moved away or deleted, and
whatever is written there is lost.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from vstore.errors import StoreError
from vstore.identity import file_identity
from vstore.store import Store

Urls = tuple[str, ...]

REMEMBERED = 5
"""How much longer than it took, the failure to open a store is believed without another attempt."""

QUICK_SECONDS = 1.0
"""A failure that takes no longer is not remembered at all."""


@dataclass(eq=False)
class _Opened:
    """An open store, the files that it was opened on, and how many use it. `doubtful`: it failed."""

    store: Store
    files: dict[str, str]
    users: int = 0
    doubtful: bool = False

    @property
    def current(self) -> bool:
        return not self.doubtful and all(_identity(path) == identity for path, identity in self.files.items())


@dataclass(eq=False)
class _Place:
    """Where a store is, and the one that is lent. The lock is held while it is opened: one attempt at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: _Opened | None = None
    refusal: StoreError | None = None
    refused_until: float = 0.0


class Stores:
    """Open stores by the URLs of their shards."""

    def __init__(self, state: Path | None = None) -> None:
        self._state = state
        self._places: dict[Urls, _Place] = {}
        self._lock = threading.Lock()
        self._closed = False

    def lender(self, urls: Urls, *, create: bool) -> Callable[[], AbstractContextManager[Store]]:
        """A function that lends the store of these URLs; see `lent`."""
        return lambda: self.lent(urls, create=create)

    @contextlib.contextmanager
    def lent(self, urls: Urls, *, create: bool) -> Iterator[Store]:
        """The store, for a block. An error that leaves the block is held against it.

        Args:
            create: make it if it is not there.

        Raises:
            NotFound: it is not there.
            ConfigurationError, Unavailable: as `vstore.open`.
        """
        opened = self._taken(urls, create)
        try:
            yield opened.store
        except StoreError:
            opened.doubtful = True
            raise
        finally:
            self._give_back(opened, urls)

    def close(self) -> None:
        """Closes all that nobody uses, and the others when they are given back."""
        with self._lock:
            self._closed = True
            places, self._places = self._places, {}
        for place in places.values():
            if place.opened is not None and not place.opened.users:
                place.opened.store.close()

    def _taken(self, urls: Urls, create: bool) -> _Opened:
        with self._lock:
            place = self._places.setdefault(tuple(sorted(urls)), _Place())
        with place.lock:
            opened = place.opened
            if opened is None or not opened.current:
                if opened is not None:
                    opened.doubtful = True
                    place.opened = None
                    self._close_unused(opened)
                store = self._opened(place, urls, create)
                paths = [shard.database.path for shard in store.shards]
                opened = place.opened = _Opened(store, {path: _identity(path) for path in paths if path is not None})
            with self._lock:
                opened.users += 1
            return opened

    def _opened(self, place: _Place, urls: Urls, create: bool) -> Store:
        # Many replications may share an end, and one that is away can take ten seconds to say so. If each asked for
        # itself, all threads would be waiting there, and the replications between other ends with them.
        began = time.monotonic()
        if place.refusal is not None and began < place.refused_until:
            raise place.refusal.with_traceback(None)
        try:
            return Store(*urls, create=create, state=self._state)
        except StoreError as error:
            ended = time.monotonic()
            if ended - began > QUICK_SECONDS:
                place.refusal, place.refused_until = error, ended + REMEMBERED * (ended - began)
            raise

    def _give_back(self, opened: _Opened, urls: Urls) -> None:
        with self._lock:
            opened.users -= 1
            last = not opened.users and (opened.doubtful or self._closed)
            place = self._places.get(tuple(sorted(urls)))
            if last and place is not None and place.opened is opened:
                place.opened = None
        if last:
            opened.store.close()

    def _close_unused(self, opened: _Opened) -> None:
        with self._lock:
            unused = not opened.users
        if unused:
            opened.store.close()


def _identity(path: str) -> str:
    try:
        return file_identity(path)
    except OSError:
        return ""
