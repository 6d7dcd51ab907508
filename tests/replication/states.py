"""All of a replica that replication is to make equal, in a form that can be compared."""

from __future__ import annotations

from vstore import Store
from vstore.plan import knowledge_in
from vstore.sql import statements as sql
from vstore.sql.rows import clock_text, dots_text, version_of


def heads_of(store: Store) -> dict[str, frozenset[str]]:
    """Of each key the versions that no other supersedes, with their events and their past."""
    found: dict[str, set[str]] = {}
    for shard in store.shards:
        for _state, key, body, *lineage in shard.database.ask(sql.HEADS_BY_ID, (0, 1 << 62, 10_000_000)):
            head = version_of(lineage, body)
            found.setdefault(key, set()).add(f"{head.rev} ({dots_text(head.dots)}) after {clock_text(head.clock)}")
    return {key: frozenset(heads) for key, heads in found.items()}


def knowledge_of(store: Store) -> dict[tuple[str, int], list[tuple[str, int, int]]]:
    """Which events each partition of each collection knows, as runs of an actor."""
    found = {}
    for name in store.collections():
        handle = store.handle(name)
        assert handle is not None
        for shard, definition, first, end in handle.runs():
            with shard.database.snapshot() as connection:
                for part in range(first, end):
                    found[name, part] = sorted(knowledge_in(connection, definition.base + part))
    return found
