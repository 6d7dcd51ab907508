"""Database servers of a test's own: made in a temporary folder, on a free port of this machine, to be killed.

The servers that other tests share are never touched. Where the programs are not
installed, `installed` says so, and the ring cuts connections only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

START_SECONDS = 60


class Server(Protocol):
    """A database server, as the ring uses one."""

    host: str
    port: int

    def database(self) -> str:
        """Makes a blank database; its URL."""
        ...

    def kill(self) -> None:
        """Ends it at once, in the middle of whatever it does."""
        ...

    def start(self) -> None:
        """Starts it, if it is not running; returns when it answers."""
        ...

    def close(self) -> None:
        """Ends it and leaves nothing behind."""
        ...


class Private:
    """A server whose processes are ours."""

    def __init__(self, account: str, made: list[str], run: list[str], url: str) -> None:
        """Makes its folder and starts it.

        Args:
            account: who it runs as if we are root, whom servers refuse.
            made: the command that makes the data; `{folder}` in it is ours.
            run: the command that runs it, with `{folder}` and `{port}`.
            url: the address of its administrator, with `{port}`.
        """
        # Not in the test's own folder: that one is closed to other accounts.
        self._folder = Path(tempfile.mkdtemp(prefix="vstore-ring-"))
        self._account = account if os.geteuid() == 0 else None
        if self._account:
            entry = pwd.getpwnam(self._account)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.host = "127.0.0.1"
        self._run = [part.format(folder=self._folder, port=self.port) for part in run]
        self._url: URL = make_url(url.format(port=self.port))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            making = self._spawn([part.format(folder=self._folder, port=self.port) for part in made])
            if making.wait(START_SECONDS):
                raise RuntimeError(f"{made[0]} failed: {self.log()}")
            self.start()
        except BaseException:
            self.close()
            raise

    def database(self) -> str:
        name = f"ring_{secrets.token_hex(4)}"
        self._administer(f"CREATE DATABASE {name}")
        return self._url.set(database=name).render_as_string(hide_password=False)

    def kill(self) -> None:
        """All its processes, or those that are left would keep the next one from starting."""
        if self._process is None:
            return
        for pid in [self._process.pid, *_children(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def start(self) -> None:
        if self._process is None:
            self._process = self._spawn(self._run)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._administer("SELECT 1")
            except Exception:  # not yet
                if self._process.poll() is not None:
                    # Killed processes may take a moment to go, and the new one does not wait for them.
                    self._process = self._spawn(self._run)
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self) -> str:
        """What it has said."""
        return (self._folder / "log").read_text(errors="replace")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                user=self._account,
                group=None if self._account is None else pwd.getpwnam(self._account).pw_gid,
                extra_groups=None if self._account is None else [],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def _administer(self, statement: str) -> None:
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


def postgresql() -> Private:
    """A new PostgreSQL server. Its flushes are left on: they are what it recovers from."""
    programs = _folder_of("initdb")
    make = "initdb -D {folder}/data -U postgres -A trust -E UTF8 --no-locale --no-sync"
    run = "postgres -D {folder}/data -k {folder} -p {port} -c listen_addresses=127.0.0.1 -c shared_buffers=32MB"
    return Private(
        "postgres",
        f"{programs}/{make}".split(),
        f"{programs}/{run}".split(),
        "postgresql+psycopg://postgres@127.0.0.1:{port}/postgres",
    )


def mariadb() -> Private:
    """A new MariaDB server. Its flushes are left on."""
    account = " --user=mysql" if os.geteuid() == 0 else ""
    data = f"--no-defaults --datadir={{folder}}/data{account}"
    make = f"{data} --auth-root-authentication-method=normal --skip-test-db"
    run = f"{data} --socket={{folder}}/socket --pid-file={{folder}}/pid --port={{port}} --bind-address=127.0.0.1"
    return Private(
        "mysql",
        [_program("mariadb-install-db"), *make.split()],
        [_program("mariadbd"), *run.split(), "--innodb-buffer-pool-size=32M"],
        "mariadb+pymysql://root@127.0.0.1:{port}/",
    )


class Shared:
    """A server that others use too: its connections to our databases are ended, and nothing else."""

    def __init__(self, url: str) -> None:
        """At the address of an administrator."""
        self._url = make_url(url)
        self.host = self._url.host or "127.0.0.1"
        self.port = self._url.port or {"postgresql": 5432}.get(self._url.get_backend_name(), 3306)
        self._names: list[str] = []

    def database(self) -> str:
        name = f"vs_ring_{secrets.token_hex(4)}"
        self._rows(f"CREATE DATABASE {name}")
        self._names.append(name)
        return self._url.set(database=name).render_as_string(hide_password=False)

    def kill(self) -> None:
        for name in self._names:
            if self._url.get_backend_name() == "postgresql":
                self._rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            else:
                for (session,) in self._rows(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
                    with contextlib.suppress(Exception):  # it has gone by itself
                        self._rows(f"KILL CONNECTION {session}")

    def start(self) -> None:
        pass

    def close(self) -> None:
        forced = " WITH (FORCE)" if self._url.get_backend_name() == "postgresql" else ""
        for name in self._names:
            self._rows(f"DROP DATABASE IF EXISTS {name}{forced}")

    def _rows(self, statement: str) -> list[tuple[int]]:
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.execute(text(statement))
                return [(row[0],) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()


def installed(kind: str) -> bool:
    """Whether a server of that kind can be started here."""
    try:
        if kind == "postgresql":
            pwd.getpwnam("postgres") if os.geteuid() == 0 else None
            return bool(_folder_of("initdb"))
        pwd.getpwnam("mysql") if os.geteuid() == 0 else None
        return bool(_program("mariadb-install-db") and _program("mariadbd"))
    except (FileNotFoundError, KeyError):
        return False


@contextlib.contextmanager
def servers(addresses: Mapping[str, str]) -> Iterator[dict[str, Server]]:
    """A PostgreSQL and a MariaDB server: of our own where that can be, else those at the addresses."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Server] = {}
        for kind, start in (("postgresql", postgresql), ("mariadb", mariadb)):
            found[kind] = start() if installed(kind) else Shared(addresses[kind])
            stack.callback(found[kind].close)
        yield found


def _folder_of(program: str) -> Path:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[-3]))
    return (places[-1] if places else Path(_program(program))).parent


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError(name)
    return found


def _children(pid: int) -> list[int]:
    """The processes that one has started, as the kernel tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found
