"""Lookups by key: what is stored now under keys that the caller names.

Ranges of keys are read by `vstore.keys`, whole collections at one instant by
`vstore.scan`. Keys are those of the collection, whatever a view of it calls them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vstore.document import Content, Version
from vstore.errors import StoreError
from vstore.handle import Handle
from vstore.scan import bodies_of
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.rows import version_of
from vstore.sql.schema import TOMBSTONE
from vstore.sql.statements import chunks


def values_at(handle: Handle, key: str) -> list[Any]:
    """The heads of a key as (state, codec, body): the path of every plain read."""
    shard, definition, _part = handle.place(key)
    try:
        return shard.database.read().rows(sql.VALUE, (definition.id, key))
    except StoreError:  # perhaps a connection that died while it was idle
        return shard.database.ask(sql.VALUE, (definition.id, key))


def live_values(handle: Handle, keys: Iterable[str]) -> dict[str, list[tuple[str, bytes]]]:
    """The live heads of those of the keys that have any, as (codec, body).

    One query for each shard and some hundred keys; shards one after another.
    """
    found: dict[str, list[tuple[str, bytes]]] = {}
    for shard, definition, group in _by_shard(handle, keys):
        for chunk in chunks(group):
            for key, state, codec, body in shard.database.ask(sql.VALUES(len(chunk)), [definition.id, *chunk]):
                if state != TOMBSTONE:
                    found.setdefault(key, []).append((codec, body))
    return found


def live_among(handle: Handle, keys: Iterable[str]) -> set[str]:
    """Those of the keys that have a live document."""
    found: set[str] = set()
    for shard, definition, group in _by_shard(handle, keys):
        for chunk in chunks(group):
            rows = shard.database.ask(sql.STATES(len(chunk)), [definition.id, *chunk])
            found.update(key for key, state in rows if state != TOMBSTONE)
    return found


def is_live(handle: Handle, key: str) -> bool:
    """Whether a key has a live document. Raises InvalidKey for what is none."""
    shard, definition, _part = handle.place(key)
    return any(state != TOMBSTONE for (state,) in shard.database.ask(sql.STATE, (definition.id, key)))


def count_live(handle: Handle) -> int:
    """How many live documents there are, by an index."""
    total: int = 0
    for shard, definition, _first, _end in handle.runs():
        with shard.database.snapshot() as connection:
            for statement in (sql.COUNT_LIVE, sql.COUNT_RIVALS):
                total += connection.rows(statement, (definition.id,))[0][0]
    return total


def heads_at(handle: Handle, key: str) -> list[Version]:
    """The heads of a key with their bodies, tombstones too."""
    shard, definition, _part = handle.place(key)
    rows = shard.database.ask(sql.HEADS_WITH_BODY(1), (definition.id, key))
    return [version_of(lineage, body) for _key, body, *lineage in rows]


def with_bodies(handle: Handle, key: str, heads: Sequence[Version], written: Version, put: Content) -> list[Version]:
    """The heads after a put, each with its body: that of what was put is at hand, those of siblings are read."""
    unread = [head.id for head in heads if head.rev != written.rev and not head.deleted and head.body is None]
    bodies: dict[int, bytes | None] = {}
    if unread:
        shard, _definition, _part = handle.place(key)
        with shard.database.snapshot() as connection:
            bodies = bodies_of(connection, unread)
    # With its codec: what was put again may be stored in another form, and it is the same value.
    heads = [head._replace(codec=put.codec, body=put.body) if head.rev == written.rev else head for head in heads]
    # One without a body now was superseded since, and pruned: no sibling any more.
    found = [head if head.deleted else head._replace(body=head.body or bodies.get(head.id)) for head in heads]
    return [head for head in found if head.deleted or head.body is not None]


def _by_shard(handle: Handle, keys: Iterable[str]) -> list[tuple[Shard, Definition, list[str]]]:
    groups: dict[int, tuple[Shard, Definition, list[str]]] = {}
    for key in keys:
        shard, definition, _part = handle.place(key)
        groups.setdefault(id(shard), (shard, definition, []))[2].append(key)
    return list(groups.values())
