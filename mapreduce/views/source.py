"""The documents a view is of: its collection as parts to map, as changes to take in, and as values.

A token names a position in every partition. The slices of a token are the same
whenever they are made, so a build that was interrupted goes on where it was. The
changes after a token are keys, and what is then read of them is the present: a
key that changes again in between comes again, so a view ends up right however it
interleaves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vstore.collection import Collection
from vstore.errors import NotFound, StoreError, Unavailable
from vstore.handle import Handle, place_of, seq_of
from vstore.ranges import key_range
from vstore.reading import OnConflict
from vstore.scan import HeadsAt, count_heads
from vstore.since import feeds_of, positions_in, token_of
from vstore.slices import Slice
from vstore.snapshot import cut
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

PAGE_ROWS = 200

SPLIT_DOCUMENTS = 20_000
SLICES = 256


@dataclass(frozen=True)
class Lag:
    """What a view has not taken in yet: how many commits, and for how long the oldest has waited."""

    pending: int = 0
    seconds: float = 0.0


class Source:
    """A collection, or the keys of it that begin with a prefix."""

    def __init__(self, collection: Collection, on_conflict: OnConflict) -> None:
        """`on_conflict` as for reading: "winner", "skip" or "raise" which here makes an error of the document."""
        self.collection = collection
        self.on_conflict = on_conflict

    def handle(self) -> Handle | None:
        """The collection as it is now; None if there is none."""
        return self.collection.store.handle(self.collection.name)

    def needed(self) -> Handle:
        """The collection as it is now. Raises NotFound if there is none."""
        handle = self.handle()
        if handle is None:
            raise NotFound(
                f"there is no collection {self.collection.name!r}, or no more. Nothing was done. Its first write "
                f"creates it."
            )
        return handle

    def now(self) -> tuple[str, int, int]:
        """A token of this moment, about how many documents there are, and into how many slices to cut them."""
        handle = self.needed()
        reached = handle.positions()
        token = token_of(False, feeds_of(reached), [seq for _feed, seq in reached])
        parts = self._parts(handle, token)
        if self.collection.prefix and all(part.chosen(database).by_key for database, part in parts):
            return token, sum(count_heads(database, part.collection, part.keys) for database, part in parts), 0
        estimate = sum(seq for _feed, seq in reached)
        return token, estimate, max(1, min(SLICES, estimate // SPLIT_DOCUMENTS, handle.partitions))

    def slices(self, token: str, count: int) -> list[Slice]:
        """The documents at a token, always in the same parts. A count of 0 is one part for each shard, by key.

        Raises InvalidToken if the collection was restored, moved or set back since.
        """
        handle = self.needed()
        parts = self._parts(handle, token)
        if count == 0:
            parts = [(database, replace(part, by_key=True)) for database, part in parts]
        return cut(handle, self.collection.prefix, parts, max(count, 1))

    def changes(self, token: str, upto: Sequence[int] | None = None) -> Changed:
        """The keys that have changed since a token, now or `upto` where an earlier one was. Raises InvalidToken."""
        return Changed(self.needed(), self.collection.prefix, token, upto)

    def values(self, keys: list[str]) -> tuple[dict[str, Any], dict[str, Exception]]:
        """The present values of those of the keys that are live, and why some could not be read."""
        on_conflict = "skip" if self.on_conflict == "raise" else self.on_conflict
        failed: dict[str, Exception] = {}
        try:
            found = self.collection.get_many(keys, on_conflict=on_conflict)
        except Unavailable:
            raise
        except StoreError:  # one of them: which?
            values: dict[str, Any] = {}
            for key in keys:
                try:
                    values.update(self.collection.get_many([key], on_conflict=on_conflict))
                except Unavailable:
                    raise
                except StoreError as error:
                    failed[key] = error
            return values, failed
        if self.on_conflict == "raise":
            missing = set(found.missing)
            for key in keys:
                if key not in found and key not in missing:
                    failed[key] = conflict(key)
        return found, failed

    def _parts(self, handle: Handle, token: str) -> list[tuple[Any, HeadsAt]]:
        reached = handle.positions()
        at = positions_in(token, False, feeds_of(reached), [seq for _feed, seq in reached])
        keys = key_range(self.collection.prefix)
        return [
            (
                shard.database,
                HeadsAt(definition.id, {definition.base + part: at[part] for part in range(first, end)}, keys),
            )
            for shard, definition, first, end in handle.runs()
        ]


class Changed:
    """The keys that have changed since a token, in lists; `since` is the token after the last list.

    `reached` is where it ends: commits that come while it is read are for the next one.
    """

    def __init__(self, handle: Handle, prefix: str, token: str, upto: Sequence[int] | None) -> None:
        self._handle = handle
        self._prefix = prefix
        now = handle.positions()
        self._feeds = feeds_of(now)
        reached = [seq for _feed, seq in now]
        self._positions = positions_in(token, False, self._feeds, reached)
        self._began = sum(self._positions)
        self.reached = reached if upto is None else upto

    @property
    def since(self) -> str:
        """The token after what was read."""
        return token_of(False, self._feeds, self._positions)

    @property
    def passed(self) -> int:
        """How many commits have been read so far."""
        return sum(self._positions) - self._began

    def pages(self, most: int = PAGE_ROWS) -> Iterator[list[str]]:
        """Keys, about `most` at a time; those that only moved in the order of commits, too. Ends when there is no more.

        A key may come more than once.
        """
        page: list[str] = []
        for shard, definition, first, end in self._handle.runs():
            for part in range(first, end):
                while self._positions[part] < self.reached[part]:
                    partition = definition.base + part
                    top = place_of(partition, self.reached[part])
                    bounds = place_of(partition, self._positions[part]), top, PAGE_ROWS
                    heads = [(row[0], row[2]) for row in shard.database.ask(sql.KEYS_BY_ID, bounds)]
                    # A head that learnt more of its past may have ended a rival, and then no head is new.
                    events = [(row[0], row[1]) for row in shard.database.ask(sql.EVENTS_BY_ID, bounds)]
                    for rows in (heads, events):
                        if len(rows) == PAGE_ROWS:
                            top = min(top, rows[-1][0])
                    page += [
                        key[len(self._prefix) :]
                        for id_, key in (*heads, *events)
                        if id_ <= top and key and key.startswith(self._prefix)  # what is purged leaves no key
                    ]
                    self._positions[part] = seq_of(top)
                    if len(page) >= most:
                        yield page
                        page = []
        if page:
            yield page

    def lag(self) -> Lag:
        """How much there is still to read: commits, superseded ones too, and the seconds since the first of them."""
        pending = 0
        oldest = None
        for shard, definition, first, end in self._handle.runs():
            for part in range(first, end):
                if self.reached[part] > self._positions[part]:
                    pending += self.reached[part] - self._positions[part]
                    partition = definition.base + part
                    bounds = place_of(partition, self._positions[part]), place_of(partition, self.reached[part]), 1
                    for _key, _body, *lineage in shard.database.ask(sql.VERSIONS_BY_ID, bounds):
                        stamp = version_of(lineage).stamp
                        oldest = stamp if oldest is None else min(oldest, stamp)
        return Lag(pending, max(0.0, time.time() - oldest / 1_000_000) if oldest is not None else 0.0)


def conflict(key: str) -> StoreError:
    """The error of a document in a view that was told to take none with siblings."""
    return StoreError(f"{key!r} has several live siblings, and the view has on_conflict='raise'. Settle it: resolve().")
