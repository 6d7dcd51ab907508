"""The collections of a store: each has one definition on every shard, and they change as one.

The first shard has the last word. Whoever changes a definition is alone at it: a
lock on the first shard is held until the end, and the first thing done is to
finish what a crash has left:

    create   the first shard comes last, so that others see all of it or nothing;
             what has no documents and is not known to the first shard is dropped
    rename   the first shard comes first; the others follow by uid
    drop     the first shard notes the intention, then all forget, itself the last

Ids are never given out again, so whoever still believes in a dropped collection
finds nothing, and not somebody else's rows.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence

from vstore.errors import ConfigurationError
from vstore.shard import Definition, Shard, definition_of
from vstore.sql import statements as sql
from vstore.sql.database import Connection


def names(shards: Sequence[Shard]) -> list[str]:
    """The names of all collections, sorted."""
    return sorted(definition.name for definition in definitions(shards[0]).values() if not is_dropped(definition))


def found(shards: Sequence[Shard], name: str) -> list[Definition] | None:
    """The definition on each shard; None if there is no such collection.

    Raises:
        ConfigurationError: a shard does not have it.
    """
    first = _named(definitions(shards[0]), name)
    if first is None:
        return None
    on_each = [first]
    for shard in shards[1:]:
        definition = definitions(shard).get(uid_of(first))
        if definition is None:
            if _named(definitions(shards[0]), name) != first:
                return found(shards, name)  # it was dropped while we looked
            raise ConfigurationError(
                f"collection {name!r} is missing in {shard.database.name}, so a part of its documents is not here. "
                f"Nothing was changed. Restore that database."
            )
        on_each.append(definition)
    return on_each


def create(shards: Sequence[Shard], name: str, partitions: int) -> bool:
    """Creates a collection; False if there is one of that name."""
    first, *others = shards
    options = json.dumps({"uid": secrets.token_hex(8)})
    with _alone(shards, name) as known:
        if _named(known, name) is not None:
            return False
        for shard in reversed(others):
            with shard.transaction():
                _define(shard, name, partitions, options)
        _define(first, name, partitions, options)
    return True


def rename(shards: Sequence[Shard], old: str, new: str) -> bool:
    """Gives a collection another name; False if there is none called `old`.

    Raises:
        ConfigurationError: there is one called `new`. Nothing was changed.
    """
    with _alone(shards, new) as known:
        definition = _named(known, old)
        if definition is None:
            return False
        if _named(known, new) is not None:
            raise ConfigurationError(f"a collection {new!r} exists already. Nothing was changed.")
        _call(shards[0], definition, new)
    with _alone(shards):
        return True


def drop(shards: Sequence[Shard], name: str) -> bool:
    """Deletes a collection with all its rows; False if there is none."""
    with _alone(shards) as known:
        definition = _named(known, name)
        if definition is None:
            return False
        options = json.dumps({**definition.options, "dropped": True})
        shards[0].database.read().run(sql.SET_OPTIONS, (options, definition.id))
    with _alone(shards):
        return True


def set_option(shards: Sequence[Shard], name: str, option: str, value: object) -> bool:
    """Changes one option of a collection, on the first shard, which has the last word; False if there is none."""
    with _alone(shards) as known:
        definition = _named(known, name)
        if definition is None:
            return False
        options = json.dumps({**definition.options, option: value})
        shards[0].database.read().run(sql.SET_OPTIONS, (options, definition.id))
    return True


def definitions(shard: Shard) -> dict[str, Definition]:
    """What a shard has, by uid: also what is half made or half dropped."""
    return _by_uid(shard.database.ask(sql.COLLECTIONS))


def is_dropped(definition: Definition) -> bool:
    """Whether the collection only waits for its rows to be deleted."""
    return "dropped" in definition.options


def uid_of(definition: Definition) -> str:
    """What names a collection on every shard of its store, whatever it is called."""
    return str(definition.options["uid"])


@contextlib.contextmanager
def _alone(shards: Sequence[Shard], name: str = "") -> Iterator[Mapping[str, Definition]]:
    """A transaction of the first shard that no other process changes definitions in; those it has, by uid.

    Args:
        name: one that is about to be used.
    """
    first, *others = shards
    if others and any(shard.database.in_transaction for shard in shards):
        raise ConfigurationError(
            f"collections cannot be created, renamed or dropped inside transaction(): it is of one shard, and they are "
            f"on all {len(shards)}. Nothing was changed. Do it before."
        )
    with first.transaction():
        connection = first.database.read()
        connection.rows(sql.LOCK_META, ("last",))
        known = _read(connection)
        for uid, definition in list(known.items()):
            if is_dropped(definition):
                for shard in others:
                    _forget(shard, uid)
                _drop(connection, known.pop(uid))
        for shard in others:
            for uid, definition in definitions(shard).items():
                if uid not in known:
                    _forget_half_made(shard, uid, definition.name == name)
                elif known[uid].name != definition.name:
                    _call(shard, definition, known[uid].name)
        yield known


def _call(shard: Shard, definition: Definition, name: str) -> None:
    with shard.transaction():
        shard.database.read().run(sql.RENAME_COLLECTION, (name, definition.id))


def _forget_half_made(shard: Shard, uid: str, in_the_way: bool) -> None:
    definition = definitions(shard)[uid]
    if not any(seq for _id, _collection, _part, _actor, _ctr, seq, *_ in _partitions(shard, definition)):
        _forget(shard, uid)
    elif in_the_way:
        raise ConfigurationError(
            f"collection {definition.name!r} has documents in {shard.database.name}, and the first shard does not know "
            f"it: was that one restored from an older backup? Nothing was changed. Restore both to one time."
        )


def _forget(shard: Shard, uid: str) -> None:
    with shard.transaction():
        connection = shard.database.read()
        definition = _read(connection).get(uid)
        if definition is not None:
            _drop(connection, definition)


def _drop(connection: Connection, definition: Definition) -> None:
    # Partitions first: this waits for writers that hold one, and their rows are seen by what follows.
    for statement in (
        sql.DROP_PARTITIONS,
        sql.DROP_HEADS,
        sql.DROP_EVENTS,
        sql.DROP_PARKED,
        sql.DROP_VERSIONS,
        sql.DROP_COLLECTION,
    ):
        connection.run(statement, (definition.id,))
    for statement in (sql.DROP_KNOWLEDGE, sql.DROP_ALL_FORGOTTEN, sql.DROP_REPLICAS, sql.DROP_ACTORS):
        connection.run(statement, (definition.base, definition.base + definition.partitions))


def _define(shard: Shard, name: str, partitions: int, options: str) -> None:
    connection = shard.database.read()
    [(last,)] = connection.rows(sql.LOCK_META, ("last",))
    last_collection, last_partition = map(int, last.split())
    id_, base = last_collection + 1, last_partition + 1
    rows = [
        (base + part, id_, part, secrets.token_hex(8), 0, 0, 1, "active", secrets.token_hex(8))
        for part in range(partitions)
    ]
    connection.run(sql.ADD_COLLECTION, (id_, name, partitions, options, base))
    connection.run_many(sql.ADD_PARTITION, rows)
    connection.run(sql.CHANGE_META, (f"{id_} {base + partitions - 1}", "last"))
    for row in rows:
        shard.introduce(row[0], row[3])


def _named(definitions: Mapping[str, Definition], name: str) -> Definition | None:
    return next((each for each in definitions.values() if each.name == name and not is_dropped(each)), None)


def _read(connection: Connection) -> dict[str, Definition]:
    return _by_uid(connection.rows(sql.COLLECTIONS))


def _by_uid(rows: Sequence[Sequence[object]]) -> dict[str, Definition]:
    return {uid_of(definition): definition for definition in map(definition_of, rows)}


def _partitions(shard: Shard, definition: Definition) -> list[Sequence[object]]:
    return shard.database.ask(sql.PARTITIONS_OF, (definition.id,))
