"""Which databases make a store: found out, made, or refused before anything is written.

Databases are told apart by what is in them, so URLs may come in any order, but
they must be all shards of one store and nothing else. Where a partition lives is
in a numbered map that every shard holds a copy of.

A store is made one database after another, and each step can be taken by anyone:
the first database in the order of addresses decides which store it becomes, and
the id of a shard follows from the store's id and the shard's address. So two
processes that make a store at once make the same one, and one that comes after a
crash goes on where it ended.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

from vstore.canonical import VERSION as CANONICAL
from vstore.errors import ConfigurationError, NotFound, StoreError
from vstore.partition import PartitionMap
from vstore.sql import statements as sql
from vstore.sql.database import Database
from vstore.sql.migrate import meta_of, prepare

Assembled = tuple[str, PartitionMap, list[tuple[str, Database]]]


def assembled(databases: Sequence[Database], *, create: bool) -> Assembled:
    """The store that the databases make: its id, its map, and the shards with their ids in the map's order.

    Blank databases become a new store. If the making of one ended early, it is
    finished, as long as no collection has been created.

    Raises:
        NotFound: all are blank and `create` is False.
        ConfigurationError: they are not exactly the shards of one store.
        SchemaMismatch, Unavailable: as `prepare`.
        Nothing is changed by a refusal.
    """
    _refuse_repeats(databases)
    metas: list[Mapping[str, str]] = [_meta(database, create) for database in databases]
    if not any(metas) and not create:
        raise NotFound(
            f"there is no store at {', '.join(database.name for database in databases)}. Nothing was created. Make one "
            f"with vstore.open(…) or `vstore init`."
        )
    if all(metas) or not create:
        if not all(metas) or not _is_whole(metas):
            _refuse(databases, metas)
        for database in databases:
            prepare(database, dict)
    else:
        metas = _made(databases, metas)
    partition_map = _newest_map(metas)
    found = {meta["shard"]: database for database, meta in zip(databases, metas, strict=True)}
    return metas[0]["store"], partition_map, [(shard, found[shard]) for shard in partition_map.shards]


def server_identity(database: Database) -> str:
    """What a database server says of itself outside of our tables; empty if it does not let us ask."""
    try:
        return str(database.read().text(database.dialect.identity)[0][0])
    except (StoreError, IndexError):
        return ""


def _made(databases: Sequence[Database], metas: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Makes the blank ones into the shards that are missing; what all of them then say of themselves."""
    plan = next((meta for meta in metas if meta), None)
    if plan is None:
        # A store id is drawn here, and it counts only if nobody else was faster.
        plan = _prepared(min(databases, key=_address), databases, secrets.token_hex(8))
        metas = [_meta(database, create=True) for database in databases]
    partition_map = PartitionMap.from_json(plan["map"])
    planned = [
        meta or {"store": plan["store"], "shard": _shard_id(plan["store"], database), "map": plan["map"]}
        for database, meta in zip(databases, metas, strict=True)
    ]
    if not _is_whole(planned):
        _refuse(databases, metas)
    started = [database for database, meta in zip(databases, metas, strict=True) if meta]
    if not all(metas) and any(database.read().rows(sql.COLLECTIONS) for database in started):
        now = [_meta(database, create=True) for database in databases]
        if now == list(metas):  # a blank database never takes the place of one that may have had documents
            _refuse(databases, metas)
        return _made(databases, now)  # another process has gone on meanwhile
    return [_prepared(database, databases, plan["store"], partition_map) for database in databases]


def _prepared(
    database: Database, databases: Sequence[Database], store: str, partition_map: PartitionMap | None = None
) -> dict[str, str]:
    """What a database says of itself once it has its tables: what is said here, if it was blank."""
    partition_map = partition_map or PartitionMap(1, tuple(_shard_id(store, each) for each in databases))
    before = meta_of(database)
    meta = prepare(
        database,
        lambda: {
            "canonical": CANONICAL,
            "store": store,
            "shard": _shard_id(store, database),
            "map": partition_map.to_json(),
            "identity": "",
            "last": "0 0",
        },
    )
    if not before and database.path is None:
        # Only now, since the server names the tables' files too. Until it is here, all actors get new names.
        database.read().run(sql.CHANGE_META, (server_identity(database), "identity"))
    return meta


def _shard_id(store: str, database: Database) -> str:
    return blake2b(f"{store} {_address(database)}".encode(), digest_size=8).hexdigest()


def _address(database: Database) -> str:
    """What tells a database from others; a file by its real path, a server's by the URL without the user."""
    if database.path is not None:
        return f"sqlite {os.path.realpath(database.path)}"
    url = database.url.set(drivername=database.dialect.name, username=None, password=None)
    return url.render_as_string()


def _meta(database: Database, create: bool) -> dict[str, str]:
    if database.path is not None and not Path(database.path).exists():
        if create and not Path(database.path).resolve().parent.is_dir():
            raise ConfigurationError(f"{database.name}: there is no folder for it. Nothing was created. Make it first.")
        return {}
    return meta_of(database)


def _newest_map(metas: Sequence[Mapping[str, str]]) -> PartitionMap:
    return max((PartitionMap.from_json(meta["map"]) for meta in metas if meta), key=lambda found: found.number)


def _is_whole(metas: Sequence[Mapping[str, str]]) -> bool:
    """Whether these are all shards of one store, each once."""
    shards = sorted(meta["shard"] for meta in metas)
    return len({meta["store"] for meta in metas}) == 1 and shards == sorted(_newest_map(metas).shards)


def _refuse_repeats(databases: Sequence[Database]) -> None:
    addresses: dict[str, Database] = {}
    for database in databases:
        if addresses.setdefault(_address(database), database) is not database:
            raise ConfigurationError(
                f"{database.name} was given twice. Nothing was opened. Each shard is a database of its own."
            )


def _refuse(databases: Sequence[Database], metas: Sequence[Mapping[str, str]]) -> NoReturn:
    """Says why these databases are not a store."""
    known = [(database.name, meta) for database, meta in zip(databases, metas, strict=True) if meta]
    stores = {meta["store"] for _, meta in known}
    if len(stores) > 1:
        raise ConfigurationError(
            f"these databases belong to {len(stores)} different stores: "
            + ", ".join(f"{name} to {meta['store']}" for name, meta in known)
            + ". Nothing was opened or changed. Open each store by its own URLs; sync() brings stores together."
        )
    by_shard: dict[str, str] = {}
    for name, meta in known:
        twin = by_shard.setdefault(meta["shard"], name)
        if twin != name:
            raise ConfigurationError(
                f"{twin} and {name} are the same shard: one is a copy of the other. Nothing was opened or changed. "
                f"Leave one out; replicas are made with `vstore copy`."
            )
    shards = _newest_map(metas).shards
    blank = [database.name for database, meta in zip(databases, metas, strict=True) if not meta]
    missing = len(set(shards) - by_shard.keys())
    raise ConfigurationError(
        f"store {stores.pop()} has {len(shards)} shard{'s' if len(shards) > 1 else ''}, and {len(databases)} "
        f"database{'s were' if len(databases) > 1 else ' was'} given: {len(by_shard)} of its shards, {missing} missing"
        f"{', and blank: ' + ', '.join(blank) if blank else ''}. Nothing was opened or changed. Give the URL of every "
        f"shard and no other, in any order."
    )
