"""What tests of pulls share."""

from __future__ import annotations

from typing import Any

from replication.pull import Pulled, pull
from vstore import Store
from vstore.handle import Handle
from vstore.history import versions_of
from vstore.sql import statements as sql
from vstore.sql.lineages import heads_of

NAME = "notes"

Pair = tuple[Store, Store]


def handle_of(store: Store) -> Handle:
    """The collection as a pull sees it."""
    handle = store.handle(NAME)
    assert handle is not None
    return handle


def pulled(source: Store, target: Store, **options: Any) -> Pulled:
    """One pull of the collection."""
    return pull(handle_of(source), handle_of(target), **options)


def events(store: Store) -> list[tuple[str, str]]:
    """Keys and kinds of all events of the collection's first shard."""
    shard = handle_of(store).shards[0]
    return [(key, kind) for _id, key, kind in shard.database.ask(sql.EVENTS_BY_ID, (0, 1 << 62, 10_000))]


def versions(store: Store, key: str) -> dict[str, bool]:
    """Every version that a store has of a document: by rev, whether it is a stub."""
    return {rev: version.stub for rev, version in versions_of(handle_of(store), key).items()}


def heads(store: Store, key: str) -> set[str]:
    """The revs of a document that no other supersedes."""
    shard, definition, _part = handle_of(store).place(key)
    return set(heads_of(shard.database.ask, definition.id, [key])[key])
