"""The keys of a collection: a view as of a dict, and ranges of it in the order of bytes.

Sorted keys are merged over the shards, a page at a time from the index, each
page as it is then.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, KeysView
from typing import TYPE_CHECKING

from vstore.handle import Handle
from vstore.ranges import KeyRange, key_range, next_key
from vstore.shard import Definition, Shard
from vstore.snapshot import Snapshot
from vstore.sql import statements as sql

if TYPE_CHECKING:
    from vstore.collection import Collection  # which hands itself over

PAGE_KEYS = 1_000


class Keys(KeysView[str]):
    """The keys of a collection, or a range of them."""

    _mapping: Collection

    def __init__(
        self,
        collection: Collection,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
    ) -> None:
        """For `Collection.keys`."""
        super().__init__(collection)
        self._range = prefix, start, end, reverse

    def __iter__(self) -> Iterator[str]:
        handle = self._mapping._handle()
        if handle is None:
            return iter(())
        within = self._mapping.prefix
        prefix, start, end, reverse = self._range
        if self._range == ("", None, None, False):
            return iter(Snapshot(handle, within))
        keys = key_range(within, start, end) & key_range(within + prefix)
        return (key[len(within) :] for key in sorted_keys(handle, keys, reverse))

    def __contains__(self, key: object) -> bool:
        prefix, start, end, _reverse = self._range
        return (
            isinstance(key, str)
            and key.startswith(prefix)
            and (start is None or key >= start)
            and (end is None or key < end)
            and key in self._mapping
        )

    def __len__(self) -> int:
        return len(self._mapping) if self._range == ("", None, None, False) else sum(1 for _ in self)


def sorted_keys(handle: Handle, keys: KeyRange, reverse: bool = False) -> Iterator[str]:
    """The live keys of a range from all shards, in the order of bytes or against it."""
    streams = [_of_shard(shard, definition, keys, reverse) for shard, definition, _first, _end in handle.runs()]
    return heapq.merge(*streams, reverse=reverse)


def _of_shard(shard: Shard, definition: Definition, keys: KeyRange, reverse: bool) -> Iterator[str]:
    low, high = keys.low, keys.high
    statement = sql.KEYS_BACK if reverse else sql.KEYS
    while True:
        page = [row[0] for row in shard.database.ask(statement, (definition.id, low, high, PAGE_KEYS))]
        yield from page
        if len(page) < PAGE_KEYS:
            return
        if reverse:
            high = page[-1]
        else:
            low = next_key(page[-1])
