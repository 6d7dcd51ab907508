"""What all tests share: fresh databases on every engine, and a state directory of their own.

PostgreSQL and MariaDB are found by VSTORE_TEST_POSTGRESQL and VSTORE_TEST_MARIADB,
or on this machine's usual ports. Where a server does not answer, its tests are
skipped and say so; with CI set they fail instead, since there nothing that the
machine has may be skipped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import vstore
from tests.databases import Databases
from vstore import Store

# In CI the examples are the same each time, so that a change is judged by what it changes; elsewhere they are new ones.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("new", deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "new")

# PyMySQL reads the system's certificates at every connect, for TLS that it then does not verify: 45 ms of CPU, and the
# tests connect thousands of times. Processes that they start inherit it.
os.environ["SSL_CERT_FILE"] = os.devnull

SERVERS = {
    "postgresql": os.environ.get("VSTORE_TEST_POSTGRESQL", "postgresql+psycopg://127.0.0.1/postgres"),
    "mariadb": os.environ.get("VSTORE_TEST_MARIADB", "mariadb+pymysql://root@127.0.0.1/"),
}
ENGINES = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.postgres),
    pytest.param("mariadb", marks=pytest.mark.mariadb),
]


_databases = Databases(SERVERS)


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """A test leaves its process as it found it; else what fails is another test, and only in some orders.

    Set up before all others of a test and torn down after them, so that what they put back counts as put back.
    """
    before = process()
    yield
    left = changed(before, process())
    assert not left, f"the test has changed what the tests after it see (before, after): {left}"


@pytest.fixture(autouse=True)
def _own_state(_nothing_stays: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs of actors go to the test's own folder, as if it were a machine of its own."""
    monkeypatch.setenv("VSTORE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("VSTORE_STORE", raising=False)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The databases of this worker."""
    yield _databases
    _databases.close()


@pytest.fixture
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> Iterator[Callable[[str], str]]:
    """Makes a blank database of a kind and gives its URL; after the test it is gone, or blank again."""
    new = request.node.get_closest_marker("new_database") is not None
    with contextlib.ExitStack() as lent:

        def make(kind: str) -> str:
            if kind == "sqlite":
                return f"sqlite:///{tmp_path / f'vs_test_{secrets.token_hex(6)}'}.db"
            require_server(kind)
            return lent.enter_context(databases.lent(kind, new=new))

        yield make


@pytest.fixture
def url(engine: str, fresh_url: Callable[[str], str]) -> str:
    """The URL of a blank database, on each kind in turn."""
    return fresh_url(engine)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store, on each kind of database in turn."""
    with vstore.open(url) as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Store]:
    """An empty store on SQLite, for tests of what is the same everywhere."""
    with vstore.open(f"sqlite:///{tmp_path / 'local.db'}") as opened:
        yield opened


def require_server(kind: str) -> None:
    """Skips the test, loudly, if there is no such server; fails it in CI."""
    problem = _problem(kind)
    if problem is None:
        return
    message = f"no {kind} server at {SERVERS[kind]}: {problem}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def administer(kind: str, statement: str) -> None:
    """Runs one statement on the server itself."""
    _databases.administer(kind, statement)


def process() -> dict[str, Any]:
    """What of this process the code under test looks at, and a test could leave changed."""
    found: dict[str, Any] = {"the working directory": os.getcwd()}
    for name in ("vstore", "mapreduce", "replication"):
        logger = logging.getLogger(name)
        # pytest listens to loggers that do not propagate, until a phase of the test has ended.
        handlers = [handler for handler in logger.handlers if type(handler).__module__ != "_pytest.logging"]
        found[f"the logger {name}"] = (logger.level, logger.propagate, logger.disabled, handlers)
    for number in (signal.SIGINT, signal.SIGTERM):
        found[number.name] = signal.getsignal(number)
    for name, value in os.environ.items():
        if name not in ("PYTEST_CURRENT_TEST", "_RJEM_MALLOC_CONF"):  # polars sets it when it is first imported
            found[f"${name}"] = value
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, as it was and as it is."""
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


@cache
def _problem(kind: str) -> str | None:
    try:
        administer(kind, "SELECT 1")
    except Exception as error:  # whatever keeps it from answering
        return str(error).splitlines()[0]
    return None
