"""Databases on the servers for tests: made once for a worker, and blanked between its tests.

To make a database and its tables and to drop it again costs a server more than most
tests do in it: half a second on MariaDB, a third of one on PostgreSQL. So a database
is handed on, and the next test finds the tables with no row in them, which a store
takes for blank: its format is the row that is written last. What a test did to the
tables themselves is not undone; such a database is dropped. Tests that are about
making tables ask for new databases, in which nothing has ever been.

Keeps out: which test gets which kind (`tests/conftest.py`).
"""

from __future__ import annotations

import contextlib
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from vstore.sql.schema import complete

MANY_ROWS = 10_000
"""With more of them to delete a database is dropped instead: what is left of them would slow the tests after it."""

_TABLES = {
    "postgresql": "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    "mariadb": "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
}
_SCHEMA = {
    "postgresql": (
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef "
        "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1, a.attnum",
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    ),
    "mariadb": (
        "SELECT table_name, column_name, column_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_schema = DATABASE() ORDER BY 1, ordinal_position",
        "SELECT table_name, index_name, column_name FROM information_schema.statistics "
        "WHERE table_schema = DATABASE() ORDER BY 1, 2, seq_in_index",
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
    ),
}
_OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mariadb": "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}
_END = {"postgresql": "SELECT pg_terminate_backend({}, 5000)", "mariadb": "KILL {}"}


class Databases:
    """Those of one worker. What it has made is gone when it is closed."""

    def __init__(self, servers: Mapping[str, str]) -> None:
        """Connects to nothing yet.

        Args:
            servers: the URL of the administrator by the kind of server.
        """
        self._servers = {kind: make_url(url) for kind, url in servers.items()}
        self._engines: dict[str, Engine] = {}
        self._blank: dict[str, list[str]] = defaultdict(list)
        self._schemas: dict[str, Any] = {}

    @contextlib.contextmanager
    def lent(self, kind: str, *, new: bool) -> Iterator[str]:
        """The URL of a blank database that nobody else uses meanwhile; `new` if it must never have had tables."""
        if new:
            name = self._made(kind)
        elif self._blank[kind]:
            name = self._blank[kind].pop()
        else:
            name = self._prepared(kind)
        blank = False
        try:
            yield self._servers[kind].set(database=name).render_as_string(hide_password=False)
            blank = not new and self._blanked(kind, name)
        finally:
            if blank:
                self._blank[kind].append(name)
            else:
                self._drop(kind, name)

    def administer(self, kind: str, statement: str) -> None:
        """Runs one statement on the server itself."""
        if kind not in self._engines:
            self._engines[kind] = _engine(self._servers[kind].render_as_string(hide_password=False))
        with self._engines[kind].connect() as connection:
            connection.execute(text(statement))

    def close(self) -> None:
        for kind, names in self._blank.items():
            for name in names:
                self._drop(kind, name)
        self._blank.clear()

    def _made(self, kind: str) -> str:
        name = f"vs_test_{secrets.token_hex(6)}"
        self.administer(kind, f"CREATE DATABASE {name}")
        return name

    def _prepared(self, kind: str) -> str:
        name = self._made(kind)
        with self._connected(kind, name) as connection:
            complete().create_all(connection)
            self._schemas.setdefault(kind, _schema(kind, connection))
        return name

    def _blanked(self, kind: str, name: str) -> bool:
        """Whether it is blank now. Whoever is still connected is thrown out, as when a database is dropped."""
        try:
            with self._connected(kind, name) as connection:
                for (session,) in connection.execute(text(_OTHERS[kind])).all():
                    with contextlib.suppress(DBAPIError):  # it has ended by itself meanwhile
                        connection.execute(text(_END[kind].format(session)))
                ours = complete().tables
                for (table,) in connection.execute(text(_TABLES[kind])).all():
                    if table not in ours:
                        connection.execute(text(f"DROP TABLE {table}"))
                if _schema(kind, connection) != self._schemas[kind]:
                    return False
                connection.execute(text("BEGIN"))
                deleted = sum(connection.execute(text(f"DELETE FROM {table}")).rowcount for table in ours)
                connection.execute(text("COMMIT"))
                return deleted <= MANY_ROWS
        except DBAPIError:  # the test has made it unusable, or dropped it
            return False

    def _drop(self, kind: str, name: str) -> None:
        self.administer(kind, f"DROP DATABASE IF EXISTS {name}{' WITH (FORCE)' if kind == 'postgresql' else ''}")

    @contextlib.contextmanager
    def _connected(self, kind: str, name: str) -> Iterator[Connection]:
        engine = _engine(self._servers[kind].set(database=name).render_as_string(hide_password=False))
        with engine.connect() as connection:
            yield connection


def _engine(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


def _schema(kind: str, connection: Connection) -> Any:
    return [connection.execute(text(query)).all() for query in _SCHEMA[kind]]
