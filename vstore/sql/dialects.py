"""The few places where SQLite, PostgreSQL and MariaDB differ.

A dialect is a value: texts that begin transactions, what to run on a new
connection, which driver errors may pass if the call is repeated, and what names
the server outside of our tables (the evidence that nothing was restored).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vstore.errors import ConfigurationError

LOCK_SECONDS = 30
"""How long a transaction waits for the locks of others."""

ANSWER_SECONDS = 300
"""How long a server that is connected may say nothing before it counts as gone: longer than any of our statements."""


class Cursor(Protocol):
    """What is used of a DBAPI cursor."""

    def execute(self, sql: str, params: Any = ..., /) -> Any: ...
    def fetchall(self) -> Any: ...


@dataclass(frozen=True)
class Dialect:
    """How one kind of database is spoken to."""

    name: str
    driver: str
    extra: str
    paramstyle: str
    begin_write: tuple[str, ...]
    begin_read: tuple[str, ...]
    on_connect: Mapping[str, tuple[str, ...]]
    identity: str
    packet: str = ""
    connect_args: Mapping[str, Any] = field(default_factory=dict)
    bound: Callable[[Any], None] | None = None
    busy: frozenset[str] = frozenset()
    full: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()
    wipe: tuple[str, ...] = ()  # before something is removed that shall not be found in the files either
    wiped: tuple[str, ...] = ()  # once that is committed
    vacuum: tuple[str, ...] = ()  # writes the tables anew without what was removed
    round_rows: int = 500  # see vstore.shard.Shard._perform; on a server each round costs three round trips

    def code(self, error: BaseException) -> str:
        """The driver's error code, as text: SQLite's name, PostgreSQL's SQLSTATE, MariaDB's number."""
        for attribute in ("sqlite_errorname", "sqlstate"):
            code = getattr(error, attribute, None)
            if code:
                return str(code)
        return str(error.args[0]) if error.args else ""


SQLITE = Dialect(
    name="sqlite",
    driver="",
    extra="",
    paramstyle="qmark",
    begin_write=("BEGIN IMMEDIATE",),  # a plain BEGIN that upgrades later fails with "locked" in spite of the time-out
    begin_read=("BEGIN",),
    on_connect={
        "full": ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA cache_size=-16000"),
        "relaxed": ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", "PRAGMA cache_size=-16000"),
    },
    identity="",  # a file: see vstore.identity.file_identity
    connect_args={"isolation_level": None, "timeout": float(LOCK_SECONDS), "check_same_thread": False},
    busy=frozenset(
        {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY", "SQLITE_BUSY_TIMEOUT"}
    ),
    full=frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"}),
    damaged=frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CORRUPT_INDEX", "SQLITE_CORRUPT_VTAB"}),
    wipe=("PRAGMA secure_delete=ON",),
    # The log still has the pages as they were. Who reads in it now is waited for, but not for long.
    wiped=(
        "PRAGMA busy_timeout=2000",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        f"PRAGMA busy_timeout={LOCK_SECONDS * 1000}",
    ),
    vacuum=("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"),
    round_rows=50,
)


def _bounded(connection: Any) -> None:
    """psycopg waits for ever for a server that keeps its connection and does not answer: this ends it."""
    wait = connection.wait

    def within(waiting: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        heard = time.monotonic()
        try:
            wanted = next(waiting)
            while True:
                ready = yield wanted  # nothing after each tenth of a second in which nothing came
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > ANSWER_SECONDS:
                    connection.pgconn.finish()
                    raise type(connection).OperationalError(f"the server has said nothing for {ANSWER_SECONDS} s")
                wanted = waiting.send(ready)
        except StopIteration as end:
            return end.value

    connection.wait = lambda waiting, *rest, **named: wait(within(waiting), *rest, **named)


# Whatever we ask for in order, an index has in that order. While a young table has no statistics, PostgreSQL sorts all
# that is left of it for each page of a scan instead: 40 ms of 20,000 documents, against 3. Where it has to sort after
# all, it takes the plan for so dear that it compiles it first: 130 ms for 64 rows.
_PLANS = "SET enable_sort = off; SET jit = off"

POSTGRESQL = Dialect(
    name="postgresql",
    driver="psycopg",
    extra="postgres",
    paramstyle="format",
    begin_write=("BEGIN ISOLATION LEVEL READ COMMITTED",),
    begin_read=("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",),
    on_connect=dict.fromkeys(
        ("full", "relaxed"),  # a server that forgets commits cannot tell us that it did: full durability always
        (f"SET synchronous_commit = on; {_PLANS}; SET lock_timeout = '{LOCK_SECONDS}s'",),
    ),
    # The file behind the counter table is another one after a dump was restored, the timeline after a
    # point-in-time recovery, the system identifier on another cluster.
    identity=(
        "SELECT s.system_identifier::text || ':' || c.timeline_id || ':' || d.oid || ':' "
        "|| pg_relation_filenode('vs_partition'::regclass) "
        "FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d WHERE d.datname = current_database()"
    ),
    connect_args={"autocommit": True, "connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 30_000},
    bound=_bounded,
    busy=frozenset({"40001", "40P01", "55P03"}),
    full=frozenset({"53100"}),
    damaged=frozenset({"XX001", "XX002"}),
    vacuum=("VACUUM FULL vs_version",),
)

MARIADB = Dialect(
    name="mariadb",
    driver="pymysql",
    extra="mariadb",
    paramstyle="format",
    begin_write=("START TRANSACTION",),
    begin_read=("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"),
    on_connect=dict.fromkeys(
        ("full", "relaxed"),  # how InnoDB flushes is the server's setting, not the session's
        (
            # READ COMMITTED: a REPEATABLE READ snapshot may be older than the lock on the counter row.
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES'",
            "SET NAMES utf8mb4 COLLATE utf8mb4_nopad_bin",
            f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}",
        ),
    ),
    identity=(
        "SELECT CONCAT(@@hostname, ':', @@datadir, ':', @@server_id, ':', DATABASE(), ':', "
        "(SELECT UNIX_TIMESTAMP(create_time) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = 'vs_partition'))"
    ),
    packet="SELECT @@max_allowed_packet",  # above it the server hangs up, and the driver sends two digits for a byte
    connect_args={"autocommit": True, "charset": "utf8mb4", "connect_timeout": 10, "read_timeout": ANSWER_SECONDS},
    busy=frozenset({"1205", "1213", "1020"}),
    full=frozenset({"1021", "1114", "1041"}),
    damaged=frozenset({"1034", "1035", "126", "127"}),
    vacuum=("OPTIMIZE TABLE vs_version",),
)

_KINDS = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "postgres": POSTGRESQL, "mysql": MARIADB, "mariadb": MARIADB}


def dialect_of(scheme: str) -> Dialect:
    """The dialect for the scheme of a URL, with or without a driver (`postgresql`, `mariadb+pymysql`).

    Raises:
        ConfigurationError: no such kind of database is supported.
    """
    kind = _KINDS.get(scheme.partition("+")[0])
    if kind is None:
        raise ConfigurationError(
            f"{scheme!r} is not a kind of database vstore knows. Nothing was opened. "
            f"Use sqlite:///file.db, postgresql://… or mariadb://…"
        )
    return kind


def machine_id() -> str:
    """What names this machine across boots; empty where the system does not say."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(path, encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            continue
    return os.uname().nodename if hasattr(os, "uname") else ""
