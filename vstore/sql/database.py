"""One SQL database: connections, transactions, and the one place where driver errors become ours.

SQLAlchemy gives the pool, the dialects and the texts of statements; the rows
themselves go straight between the driver and us, since that is where a store
spends its time. Every connection is in autocommit mode and transactions are
begun by name, so what is open is what the code says.

    read()          this thread's own connection, each statement for itself
    snapshot()      several statements that see one state
    transaction()   a write transaction; nested use joins the one that is open
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from sqlalchemy import ClauseElement, create_engine, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from vstore.errors import ConfigurationError, Corrupt, StoreError, Unavailable
from vstore.sql.dialects import LOCK_SECONDS, Dialect, dialect_of
from vstore.sql.statements import Statement

Row = Sequence[Any]

IDLE = 8
"""How many connections without a transaction are kept for the next one."""

FORK_SECONDS = 10.0
"""How long a fork waits for other threads to end what they are doing in an SQLite file."""


class Connection:
    """A driver's connection that speaks statements and raises our errors.

    `broken` says that it is gone, `failed` that a statement has failed, after
    which databases differ in what is left of a transaction. `held` counts the
    blocks and statements that are under way.
    """

    __slots__ = ("__weakref__", "_cursor", "_database", "_fairy", "broken", "era", "failed", "held")

    def __init__(self, database: Database) -> None:
        self._database = database
        self.era = database.era
        self.broken = self.failed = False
        self.held = 0
        database.connections.add(weakref.ref(self, database.connections.discard))
        if database.closed:
            raise ConfigurationError(f"{database.name} is closed. Nothing was done. Open the store again.")
        if database.carried:
            raise Unavailable(
                f"{database.name}: this process was forked while its parent was in the middle of a transaction there, "
                f"and SQLite cannot be used after that. Nothing was done. Fork outside of transactions, or spawn."
            )
        try:
            with database.calling():
                self._fairy = database.engine.raw_connection()
                self._cursor = self._fairy.cursor()
        except database.driver_errors as error:
            raise database.translated(error, "connect") from error
        except DBAPIError as error:  # the first one asks the server what it is, and a failure there comes wrapped
            cause = error.orig or error
            raise database.translated(cause, "connect") from cause

    def rows(self, statement: Statement, params: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        sql, arrange = self._database.compiled(statement)
        self.hold()
        try:
            self._cursor.execute(sql, arrange(params) if arrange else params)
            return self._cursor.fetchall()  # type: ignore[return-value]
        except self._database.driver_errors as error:
            raise self._failed(error, statement.name) from error
        finally:
            self.held -= 1

    def run(self, statement: Statement, params: Sequence[Any] = ()) -> int:
        """Runs a statement that changes rows; how many it changed."""
        sql, arrange = self._database.compiled(statement)
        self.hold()
        try:
            self._cursor.execute(sql, arrange(params) if arrange else params)
            return self._cursor.rowcount
        except self._database.driver_errors as error:
            raise self._failed(error, statement.name) from error
        finally:
            self.held -= 1

    def run_many(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> None:
        """Runs a statement once for each row, in the driver's fastest way."""
        if not rows:
            return
        sql, arrange = self._database.compiled(statement)
        self.hold()
        try:
            if len(rows) == 1:
                self._cursor.execute(sql, arrange(rows[0]) if arrange else rows[0])
            else:
                self._cursor.executemany(sql, [arrange(row) for row in rows] if arrange else rows)
        except self._database.driver_errors as error:
            failure = self._failed(error, statement.name)
            raise (self._database.too_large(rows) if self.broken else None) or failure from error
        finally:
            self.held -= 1

    def text(self, sql: str) -> list[Any]:
        """Runs a text of a dialect, such as BEGIN; its rows if it has any."""
        self.hold()
        try:
            self._cursor.execute(sql)
            return self._cursor.fetchall() if self._cursor.description else []  # type: ignore[return-value]
        except self._database.driver_errors as error:
            raise self._failed(error, sql) from error
        finally:
            self.held -= 1

    def overwrite(self) -> None:
        """What is removed from now on shall not be found in the database's files either, where it can do that."""
        for text in self._database.dialect.wipe:
            self.text(text)

    def hold(self) -> None:
        """Begins something that a fork has to wait for; it ends with `held -= 1`."""
        self.held += 1
        # The mark comes first, and a fork announces itself before it looks for marks: one of the two sees the other.
        while self._database.forking and self.held == 1 and threading.get_ident() != self._database.forking:
            self.held = 0
            time.sleep(0.001)
            self.held = 1
        if self.broken:
            self.held -= 1
            raise Unavailable(f"{self._database.name}: this connection was closed. Nothing was done. Try again.")

    @property
    def inherited(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return self in _inherited

    def roll_back(self) -> None:
        """Ends the transaction without its changes, whatever state it is in."""
        if not self.broken and not self.inherited:
            try:
                self.text("ROLLBACK")
            except StoreError:
                self.broken = True  # what is thrown away is rolled back by the database

    def close(self) -> None:
        """Gives the connection back, or throws it away if it broke."""
        with contextlib.suppress(Exception), self._database.calling():
            if self.inherited or not self._fairy.is_valid:
                return  # the parent uses it, or it is closed
            if self.broken or self.era != self._database.era:
                # SQLite keeps its file open for a statement that is still held, and a traceback may hold this object.
                del self._cursor
                self._fairy.invalidate()
            else:
                self._cursor.close()
                self._fairy.close()

    __del__ = close  # when a thread ends, so does its connection

    def discard(self) -> None:
        """Closes the driver's connection at once."""
        self.broken = True
        self.close()

    def _failed(self, error: BaseException, doing: str) -> StoreError:
        self.failed = True
        if not self.broken and self._database.disconnected(error, self._fairy):
            self.broken = True
            self._database.distrust_idle()
        return self._database.translated(error, doing)


class Database:
    """One SQL database as a shard uses it. Threads and forked children may share it."""

    def __init__(self, url: str, *, durability: str = "full") -> None:
        """Connects to nothing yet.

        Args:
            url: `sqlite:///file.db`, `postgresql://…`, `mariadb://…`, with or
                without a driver's name.
            durability: `full`, or `relaxed` to let the last commits be lost
                when the machine (not only the process) fails.

        Raises:
            ConfigurationError: the URL is not understood, or its driver is not installed.
        """
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise ConfigurationError(
                f"{url!r} is not a URL of a database. Nothing was opened. Use sqlite:///file.db, postgresql://… or "
                f"mariadb://…"
            ) from error
        self.dialect: Dialect = dialect_of(parsed.drivername)
        if "+" not in parsed.drivername and self.dialect.driver:
            parsed = parsed.set(drivername=f"{self.dialect.name}+{self.dialect.driver}")
        self.url = parsed
        # A relative path means the folder of this moment, to the engine as well.
        self._absolute = os.path.abspath(parsed.database or "")
        self.durability = durability
        self.closed = False
        self.engine = self._engine(parsed)
        self.driver_errors: tuple[type[BaseException], ...] = (self.engine.dialect.dbapi.Error,)  # type: ignore[union-attr]
        self._texts: dict[Statement, tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]] | None]] = {}
        self._local = threading.local()
        self.connections: set[weakref.ref[Connection]] = set()  # a list of it is made in one step; of a WeakSet not
        self.era = 0  # connections of an earlier one are not used again
        self._idle: list[Connection] = []
        self.calls: set[object] = set()
        self.forking = 0  # the thread that is about to fork
        self.carried = False
        _open_databases.add(weakref.ref(self, _open_databases.discard))

    def __repr__(self) -> str:
        return f"<Database {self.name}>"

    @property
    def name(self) -> str:
        """The URL without its password: for messages."""
        return self.url.render_as_string(hide_password=True)

    @property
    def address(self) -> str:
        """The URL with its password, as another process needs it. Good in any working directory."""
        url = self.url
        if self.path and not self._by_uri:
            url = url.set(database=self._absolute)
        return url.render_as_string(hide_password=False)

    @property
    def path(self) -> str | None:
        """The file of an SQLite database; also of one that is named by a URI of SQLite's own, `file:…?immutable=1`."""
        if self.dialect.name != "sqlite":
            return None
        named = self.url.database
        return unquote(named.removeprefix("file:").removeprefix("//")) if self._by_uri and named else named

    @property
    def _by_uri(self) -> bool:
        return (self.url.database or "").startswith("file:")

    def read(self) -> Connection:
        """This thread's connection: the open transaction's if there is one. Do not close it."""
        local = self._local
        connection: Connection | None = getattr(local, "writing", None) or getattr(local, "reading", None)
        if connection is None or connection.broken:
            if connection is not None:
                connection.close()
            connection = local.reading = Connection(self)
        return connection

    def ask(self, statement: Statement, params: Sequence[Any] = ()) -> list[Any]:
        """The rows of one query on this thread's connection; asked again if the connection had gone away meanwhile."""
        connection = self.read()
        try:
            return connection.rows(statement, params)
        except Unavailable:
            if not connection.broken or self.in_transaction:
                raise
        return self.read().rows(statement, params)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection whose queries all see one state. Keep it short: it holds back the database's cleaning."""
        writing = getattr(self._local, "writing", None)
        if writing is not None:
            yield writing
            return
        connection = self._begun(self.dialect.begin_read)
        try:
            yield connection
            connection.text("COMMIT")
        except BaseException as error:
            connection.broken = connection.broken or not isinstance(error, Exception)
            connection.roll_back()
            raise
        finally:
            connection.held -= 1
            self._give_back(connection)

    @contextlib.contextmanager
    def transaction(self, before_commit: Callable[[], None] | None = None) -> Iterator[Connection]:
        """A write transaction, durable when the block has ended. Nested in the same thread, it joins the outer one.

        Raises:
            Unavailable: with `outcome_unknown` if the connection was lost at
                COMMIT; any other error means that nothing was written.
        """
        outer = getattr(self._local, "writing", None)
        if outer is not None:
            yield outer
            return
        connection = self._begun(self.dialect.begin_write)
        self._local.writing = connection
        try:
            yield connection
            if connection.inherited:
                raise Unavailable(
                    f"{self.name}: this process was forked inside of this transaction, which is the parent's to end. "
                    f"Nothing was written here."
                )
            if before_commit is not None and not connection.failed:
                before_commit()
            self._commit(connection)
        except BaseException as error:
            # After an interrupt half an answer may be left to read, so such a connection is not used again.
            connection.broken = connection.broken or not isinstance(error, Exception)
            connection.roll_back()
            raise
        finally:
            self._local.writing = None
            connection.held -= 1
            self._give_back(connection)

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside `transaction()`."""
        return getattr(self._local, "writing", None) is not None

    @property
    def kind(self) -> tuple[Any, ...]:
        """Databases that agree in it understand the same texts."""
        dialect = self.engine.dialect
        return dialect.name, dialect.driver, dialect.server_version_info

    def compiled(self, statement: Statement) -> tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]] | None]:
        """The statement's text here, and how its parameters must be arranged if not as they come."""
        found = self._texts.get(statement)
        if found is None:
            found = statement.texts.get(self.kind)
            if found is None:
                found = statement.texts[self.kind] = self._compile(statement)
            self._texts[statement] = found
        return found

    def translated(self, error: BaseException, doing: str) -> StoreError:
        """A driver's exception as one of ours."""
        code = self.dialect.code(error)
        where = f"{self.name} ({doing}): {' '.join(str(error).split()).rstrip('.')}"  # some say it on several lines
        if code in self.dialect.full:
            return Unavailable(
                f"the disk is full: {where}. Nothing of this batch was written, all that was acknowledged before is "
                f"safe. Free some space and try again."
            )
        if code in self.dialect.damaged:
            return Corrupt(f"the database reports damage: {where}. Run `vstore check`, restore a backup or a replica.")
        if code in self.dialect.busy:
            return Unavailable(f"others held their locks too long: {where}. Nothing was written. Try again.")
        return Unavailable(f"the database refused: {where}. Nothing was written.")

    def too_large(self, rows: Sequence[Sequence[Any]]) -> ConfigurationError | None:
        """Why a server hung up, if it did so because a row is larger than it accepts."""
        body_bytes = max((len(value) for row in rows for value in row if isinstance(value, bytes)), default=0)
        if not self.dialect.packet or body_bytes < 100_000:
            return None
        connection = Connection(self)
        try:
            packet_bytes = int(connection.text(self.dialect.packet)[0][0])
        finally:
            connection.close()
        if 2 * body_bytes < packet_bytes:
            return None
        return ConfigurationError(
            f"{self.name} refuses a body of {body_bytes:,} bytes: it is sent as twice as many, and the server's "
            f"max_allowed_packet is {packet_bytes:,}. Nothing of this batch was written. Raise it in the server's "
            f"configuration (48M for the largest body), or lower max_body_bytes."
        )

    def disconnected(self, error: BaseException, fairy: Any) -> bool:
        """Whether the error means that the connection is gone."""
        return bool(self.engine.dialect.is_disconnect(error, fairy, None))  # type: ignore[arg-type]

    def is_busy(self, error: BaseException) -> bool:
        """Whether one of our errors came from locks held by others: repeat the transaction."""
        return error.__cause__ is not None and self.dialect.code(error.__cause__) in self.dialect.busy

    def wipe(self) -> None:
        """Lets go of the database's own copies of what was overwritten, as far as no reader is in them."""
        with contextlib.suppress(StoreError):
            for text in self.dialect.wiped:
                self.read().text(text)

    def vacuum(self) -> None:
        """Writes the tables of bodies anew, without what was removed from them. Writers wait meanwhile.

        Raises:
            Unavailable: others held their locks too long. Nothing was changed.
        """
        for text in self.dialect.vacuum:
            self.read().text(text)

    def close(self) -> None:
        """Closes every connection, for good."""
        self.closed = True
        for name in ("reading", "writing"):
            connection = getattr(self._local, name, None)
            if connection is not None:
                connection.close()
        self._local = threading.local()
        self._close_idle()

    def distrust_idle(self) -> None:
        """After a connection was lost: those made before are likely to be lost too."""
        self.era += 1
        self._close_idle()

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """A call into the driver that no connection is held for yet, or any more. A fork waits for it."""
        call = object()
        self.calls.add(call)
        while self.forking and threading.get_ident() != self.forking:
            self.calls.discard(call)
            time.sleep(0.001)
            self.calls.add(call)
        try:
            yield
        finally:
            self.calls.discard(call)

    def before_fork(self) -> None:
        """Closes every connection to an SQLite file, once the other threads have ended what they are doing.

        SQLite keeps its locks in the process's memory. A child that inherits
        them believes that it holds what only its parent holds, and the parent
        then deletes the log that the child writes to; and a lock inside the
        library that a thread holds during a call is held in the child for ever.
        Whatever is still in the middle of a transaction stays open, and the
        child may not use the file.
        Source: sqlite.org/howtocorrupt.html, 2.6.
        """
        self.forking = threading.get_ident()
        if self.path is None:
            return
        own = getattr(self._local, "writing", None)
        deadline = time.monotonic() + FORK_SECONDS
        while (self.calls or any(c.held and c is not own for c in self._alive())) and time.monotonic() < deadline:
            time.sleep(0.001)
        for connection in self._alive():
            if connection.held:
                self.carried = True
            else:
                connection.discard()
        self.era += 1
        self.engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Lets the other threads go on; they connect again."""
        self.forking = 0
        self.carried = False

    def after_fork_in_child(self) -> None:
        """The parent's connections are not ours to use or to close."""
        self.forking = 0
        _inherited.update(self._alive())
        _inherited_pools.append(self.engine.pool)
        self.connections = set()
        self._idle = []
        self.calls = set()
        self._local = threading.local()
        self.engine.dispose(close=False)

    def _alive(self) -> list[Connection]:
        return [connection for reference in list(self.connections) if (connection := reference()) is not None]

    def _ready(self) -> Connection:
        """A connection that has just ended another transaction, or a new one."""
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while self._idle and not self.closed and not self.carried:
                connection = self._idle.pop()
                if not connection.broken and connection.era == self.era:
                    return connection
        return Connection(self)

    def _give_back(self, connection: Connection) -> None:
        """Keeps what has ended its transaction well. The pool's own way there and back takes 25 µs, a small put 150."""
        spent = connection.broken or connection.failed or connection.inherited or connection.era != self.era
        if spent or len(self._idle) >= IDLE:
            connection.close()
        else:
            self._idle.append(connection)
            if self.closed:  # meanwhile
                self._close_idle()

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        with self.calling():
            self.engine.dispose()

    def _begun(self, begin: Sequence[str]) -> Connection:
        """A held connection with a transaction begun; all that is left idle may have died with the server."""
        for attempt in (1, 2):
            connection = self._ready()
            try:
                connection.hold()
                for text in begin:
                    connection.text(text)
            except BaseException as error:
                lost = connection.broken and isinstance(error, Exception)
                connection.held = 0
                connection.discard()  # and what it has begun with it
                if attempt == 2 or not lost:
                    raise
            else:
                return connection
        raise AssertionError("unreachable")

    def _commit(self, connection: Connection) -> None:
        if connection.failed:
            # PostgreSQL would answer COMMIT with a silent ROLLBACK, and MariaDB might have rolled back half way.
            raise Unavailable(
                f"{self.name}: a statement of this transaction had failed, so all of it was rolled back. Nothing was "
                f"written. Repeat the whole transaction."
            )
        try:
            connection.text("COMMIT")
        except Unavailable as error:
            if connection.broken:
                raise Unavailable(
                    f"the connection was lost at COMMIT, so whether the batch was written is not known: {error}. "
                    f"Repeat the call with the same context: what is there already stays one version.",
                    outcome_unknown=True,
                ) from error.__cause__
            raise

    def _engine(self, url: URL) -> Engine:
        try:
            engine = create_engine(
                url,
                paramstyle=self.dialect.paramstyle,
                poolclass=QueuePool,
                pool_size=IDLE,
                max_overflow=-1,
                connect_args={name: v for name, v in self.dialect.connect_args.items() if name not in url.query},
                pool_reset_on_return=None,  # transactions are ended by name
            )
        except (ImportError, NoSuchModuleError) as error:
            extra = f" Install it: pip install 'vstore[{self.dialect.extra}]'." if self.dialect.extra else ""
            raise ConfigurationError(f"the driver for {url.drivername} is not installed: {error}.{extra}") from error
        setup = self.dialect.on_connect[self.durability]

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _record: Any) -> None:
            if self.dialect.bound is not None:
                self.dialect.bound(connection)
            cursor = connection.cursor()
            for text in setup:
                self._set_up(cursor, text)
            cursor.close()

        return engine

    def _set_up(self, cursor: Any, text: str) -> None:
        # Of two that make a new SQLite file a WAL at once, one is told "locked" without the wait that was asked for.
        give_up_at = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                cursor.execute(text)
                return
            except self.driver_errors as error:
                if self.dialect.code(error) not in self.dialect.busy or time.monotonic() >= give_up_at:
                    raise
                time.sleep(0.01)

    def _compile(self, statement: Statement) -> tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]] | None]:
        if statement.listed is not None and self.dialect.name == "postgresql":
            return self._compile_listed(statement, statement.listed)
        compiled = statement.clause.compile(
            dialect=self.engine.dialect,
            column_keys=list(statement.params) if statement.clause.is_dml else None,
        )
        order = compiled.positiontup or []  # type: ignore[attr-defined]
        if order == list(statement.params):
            return str(compiled), None
        fixed = compiled.params
        places = [
            (statement.params.index(name), None) if name in statement.params else (-1, fixed[name]) for name in order
        ]
        return str(compiled), lambda row: tuple([row[at] if at >= 0 else value for at, value in places])

    def _compile_listed(
        self, statement: Statement, clause: ClauseElement
    ) -> tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]]]:
        compiled = clause.compile(dialect=self.engine.dialect)
        start = statement.scalars
        places = [
            slice(start, None) if name == "keys" else statement.params.index(name)
            for name in compiled.positiontup or []  # type: ignore[attr-defined]
        ]
        return str(compiled), lambda row: tuple([row[at] for at in places])


_open_databases: set[weakref.ref[Database]] = set()
_inherited: set[Connection] = set()  # kept, so that nothing closes them
_inherited_pools: list[Any] = []


def _databases() -> list[Database]:
    return [database for reference in list(_open_databases) if (database := reference()) is not None]


def _before_fork() -> None:
    for database in _databases():
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in _databases():
        database.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for database in _databases():
        database.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
