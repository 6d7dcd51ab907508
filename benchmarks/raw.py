"""What vstore is measured against: the least code that keeps JSON under a key, on the bare driver.

One table (key, body), one connection, and the same settings for durability as
vstore's own connections. No versions, no causality, no shards: the difference
is the price of those.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy.engine import URL

from vstore.sql.dialects import Dialect, dialect_of


@dataclass(frozen=True)
class _Texts:
    """The statements, as each database spells them."""

    create: str
    insert: str
    replace: str
    select: str


_TEXTS = {
    "sqlite": _Texts(
        "CREATE TABLE IF NOT EXISTS raw (key TEXT PRIMARY KEY, body BLOB NOT NULL)",
        "INSERT INTO raw VALUES (?, ?)",
        "INSERT INTO raw VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body",
        "SELECT body FROM raw WHERE key = ?",
    ),
    "postgresql": _Texts(
        'CREATE TABLE IF NOT EXISTS raw (key TEXT COLLATE "C" PRIMARY KEY, body BYTEA NOT NULL)',
        "INSERT INTO raw VALUES (%s, %s)",
        "INSERT INTO raw VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET body = excluded.body",
        "SELECT body FROM raw WHERE key = %s",
    ),
    "mariadb": _Texts(
        "CREATE TABLE IF NOT EXISTS raw "
        "(`key` VARCHAR(255) COLLATE utf8mb4_nopad_bin PRIMARY KEY, body LONGBLOB NOT NULL)",
        "INSERT INTO raw VALUES (%s, %s)",
        "INSERT INTO raw VALUES (%s, %s) ON DUPLICATE KEY UPDATE body = VALUES(body)",
        "SELECT body FROM raw WHERE `key` = %s",
    ),
}


class Raw:
    """A table of JSON under keys."""

    def __init__(self, url: URL) -> None:
        """Connects as vstore does, and makes the table if there is none."""
        dialect = dialect_of(url.drivername)
        self._texts = _TEXTS[dialect.name]
        self._begin = dialect.begin_write[0]
        self._connection = _connect(url, dialect)
        self._cursor = self._connection.cursor()
        for text in (*dialect.on_connect["full"], self._texts.create):
            self._cursor.execute(text)

    def put_many(self, documents: Iterable[tuple[str, Any]]) -> None:
        """One durable transaction with all of them."""
        rows = [(key, orjson.dumps(value)) for key, value in documents]
        self._cursor.execute(self._begin)
        self._cursor.executemany(self._texts.insert, rows)
        self._cursor.execute("COMMIT")

    def put(self, key: str, value: Any) -> None:
        """One durable transaction with one new document."""
        self._write(self._texts.insert, key, value)

    def replace(self, key: str, value: Any) -> None:
        """One durable transaction with one document that may be there already."""
        self._write(self._texts.replace, key, value)

    def get(self, key: str) -> Any:
        """The document under a key."""
        self._cursor.execute(self._texts.select, (key,))
        return orjson.loads(self._cursor.fetchone()[0])

    def items(self) -> Iterator[tuple[str, Any]]:
        """Every document."""
        self._cursor.execute("SELECT * FROM raw")
        for key, body in self._cursor:
            yield key, orjson.loads(body)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _write(self, statement: str, key: str, value: Any) -> None:
        self._cursor.execute(self._begin)
        self._cursor.execute(statement, (key, orjson.dumps(value)))
        self._cursor.execute("COMMIT")


def _connect(url: URL, dialect: Dialect) -> Any:
    settings = dict(dialect.connect_args)
    if dialect.name == "sqlite":
        return sqlite3.connect(str(url.database), **settings)
    where = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    settings |= {name: value for name, value in where.items() if value is not None}
    if dialect.name == "postgresql":
        import psycopg

        return psycopg.connect(dbname=url.database, **settings)
    import pymysql

    return pymysql.connect(database=url.database, **settings)
