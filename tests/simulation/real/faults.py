"""What a database can do to its client: a thin layer at the connection that fails, loses and kills on request.

A `Fault` is armed on a `Wire`, one for each database, and strikes at the nth
statement or COMMIT from then on. It raises what the driver would raise, below
the code that translates drivers' errors, so all of that code is under test:

    refused, full, busy     the statement fails, the connection stays
    cut                     the connection is gone, and the transaction with it
    cut at commit           so is the COMMIT, which never arrived
    doubt                   the COMMIT was done, and its answer is lost
    killed                  the process ends here: nothing after this is executed
    killed at commit        ... just before the COMMIT
    killed after commit     ... just after it, before anyone was told

A wire also tells its owner of each COMMIT that was really done, which is all
that the oracle believes; and it is where other clients get in between two
statements of a reader, as they would in another thread or process.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from vstore.sql.database import Connection, Database

Kind = Literal[
    "refused", "full", "busy", "cut", "cut at commit", "doubt", "killed", "killed at commit", "killed after commit"
]

KINDS: tuple[Kind, ...] = (
    "refused",
    "full",
    "busy",
    "cut",
    "cut at commit",
    "doubt",
    "killed",
    "killed at commit",
    "killed after commit",
)
_ENDS = frozenset({"BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"})  # of a transaction, either end
AT_COMMIT = frozenset({"cut at commit", "doubt", "killed at commit", "killed after commit"})

_CODES = {"refused": "SQLITE_IOERR", "full": "SQLITE_FULL", "busy": "SQLITE_BUSY"}


class Killed(BaseException):
    """The process of a replica ended. No error of the product: nothing may catch it."""


@dataclass(slots=True)
class Fault:
    """What will happen, and at how many statements from now (COMMITs, for the kinds that strike at those)."""

    kind: Kind
    left: int
    writes_only: bool = False


class Wire:
    """One database as seen from outside of its client: what is under way, and what is to go wrong."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.struck: Kind | None = None
        self.dead = False
        self.writing = False  # between BEGIN IMMEDIATE and its end
        self.wrote = False
        self.touched: set[str] = set()  # tables that statements have been about, until somebody takes them off
        self.on_commit: Callable[[], None] = lambda: None
        self.on_rollback: Callable[[], None] = lambda: None
        self.between: Callable[[], None] | None = None  # called before statements outside of write transactions
        self.raw: list[sqlite3.Connection] = []

    def arm(self, fault: Fault) -> None:
        """Makes a fault happen; `disarm` tells whether it did."""
        self.fault, self.struck = fault, None

    def disarm(self) -> Kind | None:
        """Takes back a fault that has not struck; the kind of the one that has."""
        struck, self.fault, self.struck = self.struck, None, None
        return struck

    def kill(self) -> None:
        """Closes what the process had open, without a word: SQLite rolls back."""
        self.dead = True
        for connection in self.raw:
            _end(connection)
        self.raw.clear()
        self.writing = self.wrote = False

    def transactions(self) -> int:
        """How many are open."""
        return sum(_in_transaction(connection) for connection in self.raw)

    def execute(self, cursor: sqlite3.Cursor, sql: str, rows: int, do: Callable[..., Any], given: Any) -> Any:
        """Runs one statement, `do(cursor, sql, given)`, unless something happens to it."""
        if self.dead:
            raise Killed
        if sql not in _ENDS:
            if self.between is not None and not self.writing:
                self.between()
            if self.fault is None:  # as nearly always: a schedule has thousands of statements
                done = do(cursor, sql, given)
                if self.writing and rows:
                    self._note(sql)
                return done
        commit = sql == "COMMIT" and self.writing
        kind = None if sql == "ROLLBACK" else self._strikes(commit)
        if kind is not None:
            self._strike(kind)
        if kind in ("refused", "full", "busy"):
            error = sqlite3.OperationalError(f"simulated: {kind}")
            error.sqlite_errorname = _CODES[kind]
            raise error
        if kind in ("cut", "cut at commit"):
            _end(cursor.connection)
            raise _gone()
        if kind in ("killed", "killed at commit"):
            raise Killed
        done = do(cursor, sql, given)
        if sql == "BEGIN IMMEDIATE":
            self.writing, self.wrote = True, False
        elif commit:
            wrote, self.writing, self.wrote = self.wrote, False, False
            if wrote:
                self.on_commit()
        elif sql == "ROLLBACK" and self.writing:
            self.writing = self.wrote = False
            self.on_rollback()
        elif self.writing and rows:
            self._note(sql)
        if kind == "doubt":
            _end(cursor.connection)
            raise _gone()
        if kind == "killed after commit":
            self.dead = True
            raise Killed
        return done

    def _note(self, sql: str) -> None:
        table = _changed(sql)
        if table:
            self.touched.add(table)
            self.wrote = self.wrote or table not in _ASIDE

    def _strikes(self, commit: bool) -> Kind | None:
        fault = self.fault
        if fault is None or (fault.kind in AT_COMMIT) != commit or (fault.writes_only and not self.writing):
            return None
        fault.left -= 1
        return fault.kind if fault.left <= 0 else None

    def _strike(self, kind: Kind) -> None:
        self.fault, self.struck = None, kind
        if kind in ("killed", "killed at commit"):
            self.dead = True
        if kind in ("cut", "cut at commit"):
            self.writing = self.wrote = False
            self.on_rollback()


@lru_cache(maxsize=2_000)
def _changed(sql: str) -> str:
    """The table that a statement changes; empty if it changes none."""
    found = _CHANGES.match(sql)
    assert found or not _CHANGE.search(sql), f"which table does this change? {sql}"
    return found[1] if found else ""


_CHANGE = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b")
_CHANGES = re.compile(r"(?:INSERT (?:OR \w+ )?INTO|UPDATE|DELETE FROM) (\w+)")
_ASIDE = frozenset({"vs_lease", "vs_replica", "vs_parked", "vs_actor", "vs_meta", "vs_collection"})
"""Tables that replicas are not compared by."""


def _in_transaction(connection: sqlite3.Connection) -> bool:
    try:
        return connection.in_transaction
    except sqlite3.ProgrammingError:  # closed
        return False


def _end(connection: sqlite3.Connection) -> None:
    # Closed while a cursor is still held somewhere, in a traceback say, SQLite would keep the transaction and its lock.
    try:
        connection.rollback()
        connection.close()
    except sqlite3.ProgrammingError:
        pass  # it is closed


def _gone() -> sqlite3.ProgrammingError:
    """What SQLAlchemy takes for a lost connection to SQLite."""
    return sqlite3.ProgrammingError("Cannot operate on a closed database.")


class _Cursor(sqlite3.Cursor):
    """The driver's cursor behind a wire."""

    wire: Wire

    def execute(self, sql: str, params: Any = ()) -> Any:
        return self.wire.execute(self, sql, 1, sqlite3.Cursor.execute, params)

    def executemany(self, sql: str, rows: Any) -> Any:
        return self.wire.execute(self, sql, len(rows), sqlite3.Cursor.executemany, rows)


class WiredConnection(Connection):
    """In the place of `vstore.sql.database.Connection` while a world is simulated."""

    __slots__ = ()

    def __init__(self, database: Database) -> None:
        wire = wires.get(database.path or "")
        if wire is not None and wire.dead:
            raise Killed
        super().__init__(database)
        if wire is not None:
            raw: Any = self._fairy.dbapi_connection
            if raw not in wire.raw:
                wire.raw.append(raw)
            self._cursor = raw.cursor(_Cursor)
            self._cursor.wire = wire


wires: dict[str, Wire] = {}
"""The wire of each database file; files without one are left alone."""
