"""What tests of pulls share."""

from __future__ import annotations

from typing import Any

from replication.pull import Pulled, pull
from vstore import Store
from vstore.handle import Handle
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

NAME = "notes"


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
    shard, definition, _part = handle_of(store).place(key)
    rows = [version_of(row[1:]) for row in shard.database.ask(sql.VERSIONS(1), (definition.id, key))]
    return {version.rev: version.stub for version in rows}
