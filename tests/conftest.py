"""What all tests share: fresh databases on every engine, and a state directory of their own.

PostgreSQL and MariaDB are found by VSTORE_TEST_POSTGRESQL and VSTORE_TEST_MARIADB,
or on this machine's usual ports. Where a server does not answer, its tests are
skipped and say so; with CI set they fail instead, since there nothing that the
machine has may be skipped.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

import vstore
from vstore import Store

# In CI the examples are the same each time, so that a change is judged by what it changes; elsewhere they are new ones.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("new", deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "new")

SERVERS = {
    "postgresql": os.environ.get("VSTORE_TEST_POSTGRESQL", "postgresql+psycopg://127.0.0.1/postgres"),
    "mariadb": os.environ.get("VSTORE_TEST_MARIADB", "mariadb+pymysql://root@127.0.0.1/"),
}
ENGINES = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.postgres),
    pytest.param("mariadb", marks=pytest.mark.mariadb),
]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs of actors go to the test's own folder, as if it were a machine of its own."""
    monkeypatch.setenv("VSTORE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("VSTORE_STORE", raising=False)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn."""
    return str(request.param)


@pytest.fixture
def fresh_url(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes a blank database of a kind and gives its URL; it is dropped after the test."""
    made: list[tuple[str, str]] = []

    def make(kind: str) -> str:
        name = f"vs_test_{secrets.token_hex(6)}"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / name}.db"
        require_server(kind)
        administer(kind, f"CREATE DATABASE {name}")
        made.append((kind, name))
        return make_url(SERVERS[kind]).set(database=name).render_as_string(hide_password=False)

    yield make
    for kind, name in made:
        administer(kind, f"DROP DATABASE IF EXISTS {name}{' WITH (FORCE)' if kind == 'postgresql' else ''}")


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
    engine = create_engine(SERVERS[kind], isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@cache
def _problem(kind: str) -> str | None:
    try:
        administer(kind, "SELECT 1")
    except Exception as error:  # whatever keeps it from answering
        return str(error).splitlines()[0]
    return None
