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
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from vstore.errors import ConfigurationError, Corrupt, StoreError, Unavailable
from vstore.sql.dialects import Dialect, dialect_of
from vstore.sql.statements import Statement

Row = Sequence[Any]


class Connection:
    """A driver's connection that speaks statements and raises our errors."""

    __slots__ = ("_cursor", "_database", "_fairy", "broken")

    def __init__(self, database: Database) -> None:
        self._database = database
        try:
            self._fairy = database.engine.raw_connection()
            self._cursor = self._fairy.cursor()
        except database.driver_errors as error:
            raise database.translated(error, "connect") from error
        self.broken = False

    def rows(self, statement: Statement, params: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        sql, arrange = self._database.compiled(statement)
        try:
            self._cursor.execute(sql, arrange(params) if arrange else params)
            return self._cursor.fetchall()  # type: ignore[return-value]
        except self._database.driver_errors as error:
            raise self._failed(error, statement.name) from error

    def run(self, statement: Statement, params: Sequence[Any] = ()) -> int:
        """Runs a statement that changes rows; how many it changed."""
        sql, arrange = self._database.compiled(statement)
        try:
            self._cursor.execute(sql, arrange(params) if arrange else params)
            return self._cursor.rowcount
        except self._database.driver_errors as error:
            raise self._failed(error, statement.name) from error

    def run_many(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> None:
        """Runs a statement once for each row, in the driver's fastest way."""
        if not rows:
            return
        sql, arrange = self._database.compiled(statement)
        try:
            if len(rows) == 1:
                self._cursor.execute(sql, arrange(rows[0]) if arrange else rows[0])
            else:
                self._cursor.executemany(sql, [arrange(row) for row in rows] if arrange else rows)
        except self._database.driver_errors as error:
            raise self._failed(error, statement.name) from error

    def text(self, sql: str) -> list[Any]:
        """Runs a text of a dialect, such as BEGIN; its rows if it has any."""
        try:
            self._cursor.execute(sql)
            return self._cursor.fetchall() if self._cursor.description else []  # type: ignore[return-value]
        except self._database.driver_errors as error:
            raise self._failed(error, sql) from error

    def close(self) -> None:
        """Gives the connection back, or throws it away if it broke."""
        with contextlib.suppress(Exception):
            if self.broken:
                self._fairy.invalidate()
            else:
                self._cursor.close()
                self._fairy.close()

    def _failed(self, error: BaseException, doing: str) -> StoreError:
        self.broken = self.broken or self._database.disconnected(error, self._fairy)
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
        self.durability = durability
        self.engine = self._engine(parsed)
        self.driver_errors: tuple[type[BaseException], ...] = (self.engine.dialect.dbapi.Error,)  # type: ignore[union-attr]
        self._texts: dict[str, tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]] | None]] = {}
        self._local = threading.local()
        self._pid = os.getpid()
        _open_databases.add(self)

    def __repr__(self) -> str:
        return f"<Database {self.name}>"

    @property
    def name(self) -> str:
        """The URL without its password: for messages."""
        return self.url.render_as_string(hide_password=True)

    @property
    def path(self) -> str | None:
        """The file of an SQLite database."""
        return self.url.database if self.dialect.name == "sqlite" else None

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
        connection = Connection(self)
        try:
            for text in self.dialect.begin_read:
                connection.text(text)
            yield connection
            connection.text("COMMIT")
        except BaseException:
            if not connection.broken:
                with contextlib.suppress(StoreError):
                    connection.text("ROLLBACK")
            raise
        finally:
            connection.close()

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
        connection = self._begun()
        self._local.writing = connection
        try:
            yield connection
            if before_commit is not None:
                before_commit()
            self._commit(connection)
        except BaseException:
            if not connection.broken:
                try:
                    connection.text("ROLLBACK")
                except StoreError:
                    connection.broken = True
            raise
        finally:
            self._local.writing = None
            connection.close()

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside `transaction()`."""
        return getattr(self._local, "writing", None) is not None

    def compiled(self, statement: Statement) -> tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]] | None]:
        """The statement's text here, and how its parameters must be arranged if not as they come."""
        key = statement.name if not statement.params else f"{statement.name}/{len(statement.params)}"
        found = self._texts.get(key)
        if found is None:
            found = self._texts[key] = self._compile(statement)
        return found

    def translated(self, error: BaseException, doing: str) -> StoreError:
        """A driver's exception as one of ours."""
        code = self.dialect.code(error)
        where = f"{self.name} ({doing}): {str(error).strip()}"
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

    def disconnected(self, error: BaseException, fairy: Any) -> bool:
        """Whether the error means that the connection is gone."""
        return bool(self.engine.dialect.is_disconnect(error, fairy, None))  # type: ignore[arg-type]

    def is_busy(self, error: BaseException) -> bool:
        """Whether one of our errors came from locks held by others: repeat the transaction."""
        return error.__cause__ is not None and self.dialect.code(error.__cause__) in self.dialect.busy

    def close(self) -> None:
        """Closes every connection."""
        for name in ("reading", "writing"):
            connection = getattr(self._local, name, None)
            if connection is not None:
                connection.close()
        self._local = threading.local()
        self.engine.dispose()

    def forget_connections(self) -> None:
        """After a fork: the parent's connections are not ours to use or to close."""
        self._local = threading.local()
        self.engine.dispose(close=False)
        self._pid = os.getpid()

    def _begun(self) -> Connection:
        for attempt in (1, 2):  # a pooled connection may have died with the server's last restart
            connection = Connection(self)
            try:
                for text in self.dialect.begin_write:
                    connection.text(text)
            except StoreError:
                connection.close()
                if attempt == 2 or not connection.broken:
                    raise
            else:
                return connection
        raise AssertionError("unreachable")

    def _commit(self, connection: Connection) -> None:
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
                pool_size=8,
                max_overflow=-1,
                connect_args=dict(self.dialect.connect_args),
                pool_reset_on_return=None,  # transactions are ended by name
            )
        except (ImportError, NoSuchModuleError) as error:
            extra = f" Install it: pip install 'vstore[{self.dialect.extra}]'." if self.dialect.extra else ""
            raise ConfigurationError(f"the driver for {url.drivername} is not installed: {error}.{extra}") from error
        setup = self.dialect.on_connect[self.durability]

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            for text in setup:
                cursor.execute(text)
            cursor.close()

        return engine

    def _compile(self, statement: Statement) -> tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]] | None]:
        compiled = statement.clause.compile(
            dialect=self.engine.dialect,
            column_keys=list(statement.params) if statement.clause.is_dml else None,  # type: ignore[attr-defined]
        )
        order = compiled.positiontup or []  # type: ignore[attr-defined]
        if order == list(statement.params):
            return str(compiled), None
        fixed = compiled.params
        places = [
            (statement.params.index(name), None) if name in statement.params else (-1, fixed[name]) for name in order
        ]
        return str(compiled), lambda row: tuple([row[at] if at >= 0 else value for at, value in places])


_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _after_fork() -> None:
    for database in list(_open_databases):
        database.forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def iterate(pages: Iterable[Sequence[Any]]) -> Iterator[Any]:
    """The rows of pages, one by one."""
    for page in pages:
        yield from page
