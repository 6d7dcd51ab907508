"""The change feed: what was committed since a token, complete and in order for each partition.

    compacted   the present heads by the commit that made them, or made them the
                heads they are: the latest state
    full        every version that is still here, by its commit

Both count one and the same order, the partition's: a writer locks the counter row
before anything else, so a reader who has seen seq n will never meet a smaller one
later. How far one has read is a token, see `vstore.since`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from vstore.document import Version
from vstore.errors import InvalidToken
from vstore.handle import Handle, place_of, seq_of
from vstore.shard import Definition, Shard
from vstore.since import feeds_of, positions_in, token_of
from vstore.sql import statements as sql
from vstore.sql.rows import version_of
from vstore.sql.statements import chunks

PAGE_ROWS = 1_000
POLL_SECONDS = 0.5
"""How long a follower waits before it asks for commits of other processes. Those of its own process wake it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One version in the feed. `part` and `seq` are its place; `value` is there only if the feed was asked for it.

    A document that is no more without a new version of it comes as `deleted`
    with no `rev`, and `kind` says why: "purge", or "filter" where it has left the
    filter of this replica. In the full feed "erase" says that an erasure has
    taken bodies of the key's history, and "revived" that the version just before
    is an edit of a document that had been forgotten here.
    """

    key: str
    rev: str
    deleted: bool
    stamp: int
    part: int
    seq: int
    value: Any = None
    kind: str = ""


class News:
    """Wakes those who follow feeds in this process: it has committed something."""

    def __init__(self) -> None:
        self._told = threading.Condition()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self.number = 0

    def tell(self) -> None:
        """Something was committed."""
        with self._told:
            self.number += 1
            self._told.notify_all()
        for wake in self._listeners:
            wake()

    def listen(self, wake: Callable[[], None]) -> None:
        """Calls a function after each commit, from the thread that committed: it must be quick and must not raise.

        Given twice it is still called once.
        """
        with self._told:
            if wake not in self._listeners:
                self._listeners += (wake,)

    def unlisten(self, wake: Callable[[], None]) -> None:
        """Ends that, if it was so."""
        with self._told:
            self._listeners = tuple(each for each in self._listeners if each != wake)

    def wait(self, number: int, seconds: float) -> None:
        """Until there is later news than `number`, or so long."""
        with self._told:
            self._told.wait_for(lambda: self.number != number, seconds)


class Changes:
    """An iterator over changes. `since` resumes after the last change that was yielded."""

    def __init__(
        self,
        handle: Handle,
        since: str | None = None,
        *,
        full: bool = False,
        values: bool = False,
        prefix: str = "",
        follow: bool = False,
        idle_seconds: float | None = None,
        news: News | None = None,
    ) -> None:
        """A feed from a token on, or from the beginning.

        Args:
            full: every version instead of the present heads.
            follow: wait for more instead of ending.
            idle_seconds: when following, end after so long without a change.
            news: told of each commit of this process.

        Raises:
            InvalidToken: `since` is no token, is of the other form, or belongs
                to another feed. Nothing was skipped: start without it.
        """
        self._handle = handle
        self._full = full
        self._values = values
        self._prefix = prefix
        self._follow = follow
        self._idle_seconds = idle_seconds
        self._news = news or News()
        now = handle.positions()
        self._feeds = feeds_of(now)
        reached = [seq for _feed, seq in now]
        self._positions = [0] * len(reached) if since is None else positions_in(since, full, self._feeds, reached)
        self._rows = self._walk()

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        return next(self._rows)

    @property
    def since(self) -> str:
        """The token: opaque, printable, for this collection of this store only."""
        return token_of(self._full, self._feeds, self._positions)

    def _walk(self) -> Iterator[Change]:
        idle_since = time.monotonic()
        while True:
            news = self._news.number  # before looking, so that a commit in between ends the wait below
            now = self._handle.positions()
            reached = [seq for _feed, seq in now]
            if feeds_of(now) != self._feeds or any(map(int.__lt__, reached, self._positions)):
                raise InvalidToken(
                    f"the feed of {self._handle.name!r} was replaced while it was read: the database was restored "
                    f"or got a new actor. Read it again from the beginning."
                )
            caught_up = reached == self._positions
            if caught_up and not self._follow:
                return
            for shard, definition, first, end in self._handle.runs():
                for part in range(first, end):
                    if reached[part] > self._positions[part]:
                        for change in self._partition(shard, definition, part, reached[part]):
                            yield change
                            idle_since = time.monotonic()
            left = POLL_SECONDS
            if self._follow and self._idle_seconds is not None:
                # Asked after commits too: a view of a few keys is idle while others write beside it.
                left = min(left, idle_since + self._idle_seconds - time.monotonic())
                if left <= 0:
                    return
            if caught_up:
                self._news.wait(news, left)

    def _partition(self, shard: Shard, definition: Definition, part: int, reached: int) -> Iterator[Change]:
        partition = definition.base + part
        statement = sql.VERSIONS_BY_ID if self._full else sql.HEADS_BY_ID
        top = place_of(partition, reached)
        while self._positions[part] < reached:
            bounds = place_of(partition, self._positions[part]), top, PAGE_ROWS
            rows = shard.database.ask(statement, bounds)
            found: list[_Told] = []
            for row in rows:
                key, body, *lineage = row if self._full else row[1:]
                version = version_of(lineage, body)
                found.append((version.id, key, version, ""))
            end = found[-1][0] if len(rows) == PAGE_ROWS else top
            told, end = (_events if self._full else _grown)(shard, definition, bounds[0], end)
            if told:
                found = sorted([each for each in found + told if each[0] <= end], key=itemgetter(0))
            for place, key, version_or_none, kind in found:
                self._positions[part] = seq_of(place)
                if not key.startswith(self._prefix):
                    continue
                if version_or_none is None:
                    yield Change(key[len(self._prefix) :], "", kind in _GONE, 0, part, seq_of(place), None, kind)
                elif not (self._full and version_or_none.stub):
                    yield self._change(key[len(self._prefix) :], version_or_none, part, seq_of(place))
            self._positions[part] = seq_of(end)

    def _change(self, key: str, version: Version, part: int, seq: int) -> Change:
        value = self._handle.value(version, key) if self._values else None
        return Change(key, version.rev, version.deleted, version.stamp, part, seq, value)


_Told = tuple[int, str, Version | None, str]
"""What the feed tells: its place, the key, and a version or the kind of an event."""


def _grown(shard: Shard, definition: Definition, after: int, end: int) -> tuple[list[_Told], int]:
    """The heads that learnt more of their past up to an id, each where it did, and the id up to which that is all.

    A rival may be superseded by that, so that another head is the winner, and
    no head is new. Those that changed again come where they did that. So do the
    keys that have no head any more.
    """
    events, end = _page(shard, after, end)
    grown = {key: id_ for id_, key, kind in events if kind == "grown"}
    gone = {key: (id_, kind) for id_, key, kind in events if kind in _GONE}
    found: list[_Told] = []
    for chunk in chunks(list(grown | gone)):
        for key, body, *lineage in shard.database.ask(sql.HEADS_WITH_BODY(len(chunk)), [definition.id, *chunk]):
            version = version_of(lineage, body)
            gone.pop(key, None)
            if version.id < grown.get(key, 0):
                found.append((grown[key], key, version, ""))
    return found + [(id_, key, None, kind) for key, (id_, kind) in gone.items()], end


def _events(shard: Shard, _definition: Definition, after: int, end: int) -> tuple[list[_Told], int]:
    """What happened up to an id without a new version, and the id up to which that is all."""
    events, end = _page(shard, after, end)
    return [(id_, key, None, kind) for id_, key, kind in events if kind in (*_GONE, "erase", "revived")], end


def _page(shard: Shard, after: int, end: int) -> tuple[list[Any], int]:
    events = shard.database.ask(sql.EVENTS_BY_ID, (after, end, PAGE_ROWS))
    return events, events[-1][0] if len(events) == PAGE_ROWS else end


_GONE = ("purge", "filter")
