"""Makes the tables of a shard, and brings those of an older format up to this one.

Steps are numbered, go forward only, and can be repeated from anywhere: MariaDB
commits each DDL statement by itself, so a step may have been half done. The row
`format` in `vs_meta` is written last; until then the database counts as blank.
A database of a later format is refused, since what it means is not known here.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import ClauseElement
from sqlalchemy.schema import CreateIndex, CreateTable

from vstore.errors import ConfigurationError, Corrupt, SchemaMismatch, StoreError, Unavailable
from vstore.fingerprint import element
from vstore.sql import statements as sql
from vstore.sql.database import Connection, Database
from vstore.sql.schema import FORMAT, complete

log = logging.getLogger("vstore")

Step = Callable[[Database, Connection], None]

PAGE_ROWS = 1_000


def _replication(database: Database, connection: Connection) -> None:
    """Format 2: what replication keeps; the kind of a version; the element of each head."""
    dialect = database.engine.dialect
    tables = complete().tables
    exists = "" if database.dialect.name == "sqlite" else "IF NOT EXISTS "  # there DDL is a part of the transaction
    columns = [("vs_version", "kind", "''"), *[("vs_head", f"lane{n}", "0") for n in range(4)]]
    for table, name, default in columns:
        kind = tables[table].c[name].type.compile(dialect=dialect)
        connection.text(f"ALTER TABLE {table} ADD COLUMN {exists}{name} {kind} DEFAULT {default} NOT NULL")
    for table in ("vs_forgotten", "vs_replica", "vs_lease", "vs_parked"):
        connection.text(str(CreateTable(tables[table], if_not_exists=True).compile(dialect=dialect)))
    after = 0
    while rows := connection.rows(sql.HEAD_TEXTS, (after, PAGE_ROWS)):
        lanes = [(*element(key, *texts), collection, key, id_) for id_, collection, key, *texts in rows]
        connection.run_many(sql.SET_LANES, lanes)
        after = rows[-1][0]


STEPS: Mapping[int, Step] = {2: _replication}
"""The step that leads from the format before to each number above 1."""

_EXISTS = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'vs_meta'",
    # Not to_regclass(): it may answer from a cache that was filled before we waited for the one who made the table.
    "postgresql": "SELECT 1 FROM pg_class WHERE relname = 'vs_meta' AND pg_table_is_visible(oid)",
    "mariadb": "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'vs_meta'",
}
_ALONE = {
    "sqlite": (["BEGIN IMMEDIATE"], ["COMMIT"], ["ROLLBACK"]),
    # A lock for the transaction: two CREATE TABLE IF NOT EXISTS at once fail on PostgreSQL.
    "postgresql": (["BEGIN", "SELECT pg_advisory_xact_lock(7670734)"], ["COMMIT"], ["ROLLBACK"]),
    # DDL ends transactions here, so the lock is the session's; and names of locks are the server's, not the database's.
    "mariadb": (
        ["SELECT GET_LOCK(CONCAT('vstore.', MD5(DATABASE())), 60)"],
        ["SELECT RELEASE_LOCK(CONCAT('vstore.', MD5(DATABASE())))"],
        ["SELECT RELEASE_LOCK(CONCAT('vstore.', MD5(DATABASE())))"],
    ),
}
"""How a migration begins to be alone in the database, ends, and gives up."""


def meta_of(database: Database) -> dict[str, str]:
    """What the database says of itself; empty if it is blank.

    Raises:
        SchemaMismatch: it has a format that this program does not read. Nothing was changed.
        ConfigurationError: it is no database, or a file that cannot be opened at all.
        Unavailable: others hold its locks, or its server cannot be reached.
    """
    try:
        connection = database.read()
        if not connection.text(_EXISTS[database.dialect.name]):
            return {}
        found = dict(connection.rows(sql.META))
    except Corrupt as error:
        if database.dialect.name == "sqlite" and database.dialect.code(error.__cause__ or error) == "SQLITE_NOTADB":
            raise ConfigurationError(
                f"{database.name} is a file, and no SQLite database. Nothing was changed. Give the path of a store, or "
                f"one where there is no file yet."
            ) from error.__cause__
        raise
    except Unavailable as error:
        if database.is_busy(error):
            raise
        if database.path is None:  # a server may be back soon; what it refuses for good, its own words tell
            said = " ".join(str(error.__cause__).split()).rstrip(".?")  # some say it on several lines, or ask
            raise Unavailable(
                f"{database.name} cannot be reached: {said}. Nothing was changed. Try again, or correct the URL if "
                f"that is what it says."
            ) from error.__cause__
        advice = ""
        if database.dialect.code(error.__cause__ or error).startswith("SQLITE_READONLY"):
            # SQLite wants to keep its index of the log beside the file, be it only to read.
            advice = (
                " Where neither the file nor its folder can be written, and nobody else writes it either, read it as "
                "sqlite:///file:/its/path.db?immutable=1&uri=true."
            )
        raise ConfigurationError(
            f"{database.name} cannot be opened: {error.__cause__}. Nothing was changed.{advice}"
        ) from error
    if "format" not in found:
        return {}
    if int(found["format"]) > FORMAT:
        raise SchemaMismatch(
            f"{database.name} has format {found['format']}, this vstore reads up to {FORMAT}. Nothing was changed. "
            f"Upgrade vstore here, or export with the newer one and import."
        )
    return found


def prepare(database: Database, first_meta: Callable[[], Mapping[str, str]]) -> dict[str, str]:
    """Creates or upgrades the tables where needed; what the database then says of itself.

    Args:
        first_meta: asked for a blank database only: what to write into it.

    Raises:
        Unavailable: another process has been at it for a minute. Nothing was changed.
    """
    found = meta_of(database)
    if found and int(found["format"]) == FORMAT:
        return found
    begin, end, give_up = _ALONE[database.dialect.name]
    connection = database.read()
    for text in begin:
        if [tuple(row) for row in connection.text(text)] == [(0,)]:  # GET_LOCK timed out
            raise Unavailable(f"another process is at the tables of {database.name}. Nothing was changed. Try again.")
    try:
        found = dict(connection.rows(sql.META)) if connection.text(_EXISTS[database.dialect.name]) else {}
        if "format" not in found:
            _create(database, connection)
            connection.run(sql.CLEAR_META)  # what a crash left there belongs to no store
            connection.run_many(sql.SET_META, list(first_meta().items()))
            connection.run(sql.SET_META, ("format", str(FORMAT)))
        for number in range(int(found.get("format", FORMAT)) + 1, FORMAT + 1):
            log.info("%s is brought from format %d to %d", database.name, number - 1, number)
            STEPS[number](database, connection)
            connection.run(sql.CHANGE_META, (str(number), "format"))
    except BaseException:
        for text in give_up:
            with contextlib.suppress(StoreError):  # the connection may be gone, and the lock with it
                connection.text(text)
        raise
    for text in end:
        connection.text(text)
    return dict(connection.rows(sql.META))


def _create(database: Database, connection: Connection) -> None:
    texts = _created.get(database.kind)
    if texts is None:
        texts = _created[database.kind] = list(_creation(database))
    for text in texts:
        connection.text(text)


_created: dict[tuple[Any, ...], list[str]] = {}
"""Texts by the kind of database: to compile them takes longer than SQLite takes to run them."""


def _creation(database: Database) -> Iterator[str]:
    for table in complete().sorted_tables:
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        clauses: list[ClauseElement] = [CreateTable(table, if_not_exists=True)]
        for clause in clauses + [CreateIndex(index, if_not_exists=True) for index in indexes]:
            yield str(clause.compile(dialect=database.engine.dialect))
