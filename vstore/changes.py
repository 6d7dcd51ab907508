"""The change feed: what was committed since a token, complete and in order for each partition.

    compacted   the present heads by the commit that made them: the latest state
    full        every version that is still here, by its commit

Both count one and the same order, the partition's: a writer locks the counter row
before anything else, so a reader who has seen seq n will never meet a smaller one
later. A token is a position in every partition; it names the feeds that it
belongs to, and after a restore, a copy or a move it is refused instead of misread.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from vstore.document import Version
from vstore.errors import InvalidToken
from vstore.handle import Handle, place_of, seq_of
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

PAGE_ROWS = 1_000
POLL_SECONDS = 0.5
"""How long a follower waits before it asks for commits of other processes. Those of its own process wake it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One version in the feed. `part` and `seq` are its place; `value` is there only if the feed was asked for it."""

    key: str
    rev: str
    deleted: bool
    stamp: int
    part: int
    seq: int
    value: Any = None


class News:
    """Wakes those who follow feeds in this process: it has committed something."""

    def __init__(self) -> None:
        self._told = threading.Condition()
        self.number = 0

    def tell(self) -> None:
        """Something was committed."""
        with self._told:
            self.number += 1
            self._told.notify_all()

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
        self._feeds = _digest(now)
        reached = [seq for _feed, seq in now]
        self._positions = [0] * len(reached) if since is None else _parsed(since, full, self._feeds, reached)
        self._rows = self._walk()

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        return next(self._rows)

    @property
    def since(self) -> str:
        """The token: opaque, printable, for this collection of this store only."""
        return _token(self._full, self._feeds, self._positions)

    def _walk(self) -> Iterator[Change]:
        idle_since = time.monotonic()
        while True:
            news = self._news.number  # before looking, so that a commit in between ends the wait below
            now = self._handle.positions()
            reached = [seq for _feed, seq in now]
            if _digest(now) != self._feeds or any(map(int.__lt__, reached, self._positions)):
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
            for row in rows:
                key, body, *lineage = row if self._full else row[1:]
                version = version_of(lineage, body)
                self._positions[part] = seq_of(version.id)
                if key.startswith(self._prefix) and not (self._full and version.stub):
                    yield self._change(key[len(self._prefix) :], version, part)
            if len(rows) < PAGE_ROWS:
                self._positions[part] = reached

    def _change(self, key: str, version: Version, part: int) -> Change:
        value = self._handle.value(version, key) if self._values else None
        return Change(key, version.rev, version.deleted, version.stamp, part, seq_of(version.id), value)


def _token(full: bool, feeds: str, positions: list[int]) -> str:
    text = json.dumps([1, int(full), feeds, positions], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _digest(now: list[tuple[str, int]]) -> str:
    return blake2b(" ".join(feed for feed, _seq in now).encode(), digest_size=12).hexdigest()


def _parsed(token: str, full: bool, feeds: str, reached: list[int]) -> list[int]:
    advice = "Nothing was read. Start without `since` and take the new feed's token."
    try:
        _form, was_full, was_feeds, positions = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if not all(type(position) is int and position >= 0 for position in positions):
            raise ValueError("a position is a count")
        if token != _token(was_full, was_feeds, positions):  # there is one text for a token
            raise ValueError("not as it was given out")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidToken(f"since={token[:40]!r} is not a token of a change feed. {advice}") from error
    if bool(was_full) != full:
        raise InvalidToken(
            f"since= is a token of the {'full' if was_full else 'compacted'} feed, and this is the other. {advice}"
        )
    if was_feeds != feeds or len(positions) != len(reached):
        raise InvalidToken(
            "since= belongs to another feed: of another collection or store, or from before this one was restored, "
            f"copied or moved. {advice}"
        )
    if any(position > now for position, now in zip(positions, reached, strict=True)):
        raise InvalidToken(f"since= is ahead of this feed: the database was set back to an older state. {advice}")
    return list(positions)
