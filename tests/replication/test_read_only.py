"""A source that can only be read: opening it, and pulling from it, asks for nothing more."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

import vstore
from replication.pull import Pulled
from tests.conftest import administer
from tests.replication.links import pulled
from vstore import ConfigurationError, Store

NOBODY = 65534

SERVER_KINDS = [
    pytest.param("postgresql", marks=pytest.mark.postgres),
    pytest.param("mariadb", marks=pytest.mark.mariadb),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may look into and only its owner may write."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """As somebody who can read a folder and not write it."""
    if os.geteuid() != 0:
        os.chmod(folder, 0o555)
        yield
        os.chmod(folder, 0o755)
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_in_a_folder_that_cannot_be_written_is_read_as_immutable(
    folder: Path, local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup on a read-only disk, say. Without the word, the error says how to say it."""
    with vstore.open(f"sqlite:///{folder / 'source.db'}") as source:
        source["notes"].put_many({f"k{n}": n for n in range(50)})
    with vstore.open(f"sqlite:///{folder / 'source.db'}") as source:
        source["notes"]["k1"] = "edited"
    monkeypatch.setenv("VSTORE_STATE", str(folder / "none"))
    local.create("notes")

    with without_rights(folder):
        with pytest.raises(ConfigurationError, match="immutable=1&uri=true"):
            vstore.open(f"sqlite:///{folder / 'source.db'}", create=False)
        source = vstore.open(f"sqlite:///file:{folder / 'source.db'}?immutable=1&uri=true", create=False)
        shown = dict(source["notes"])
    with source:
        report = pulled(source, local)

        assert report.compared == 50
        assert dict(local["notes"]) == shown
        assert pulled(source, local) == Pulled()
    assert os.listdir(folder) == ["source.db"]


@pytest.fixture
def reader(request: pytest.FixtureRequest, fresh_url: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """A store on a server, and its URL for a user who may SELECT and nothing else."""
    kind = request.param
    url = make_url(fresh_url(kind))
    user = f"vs_reader_{secrets.token_hex(4)}"
    owner = url.render_as_string(hide_password=False)
    with vstore.open(owner) as store:
        store["notes"].put_many({f"k{n}": {"n": n} for n in range(50)})
    if kind == "postgresql":
        administer(kind, f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
        from sqlalchemy import create_engine, text

        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}"))
        engine.dispose()
    else:
        administer(kind, f"CREATE USER {user}@'%' IDENTIFIED BY 'x'")
        administer(kind, f"GRANT SELECT ON {url.database}.* TO {user}@'%'")
    yield owner, url.set(username=user, password="x").render_as_string(hide_password=False)
    if kind == "postgresql":
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"DROP OWNED BY {user}"))
        engine.dispose()
        administer(kind, f"DROP ROLE {user}")
    else:
        administer(kind, f"DROP USER {user}@'%'")


@pytest.mark.parametrize("reader", SERVER_KINDS, indirect=True)
def test_a_user_who_may_only_select_can_pull(reader: tuple[str, str], local: Store) -> None:
    """First everything, then what changed, then nothing; the source cannot be told, and that is no error."""
    owner, url = reader
    local.create("notes")
    with vstore.open(owner) as writer, vstore.open(url, create=False) as source:
        first = pulled(source, local)
        writer["notes"]["k1"] = "edited"
        del writer["notes"]["k2"]
        second = pulled(source, local)

        assert (first.new, second.new) == (50, 2)
        assert dict(local["notes"]) == dict(writer["notes"])
        assert pulled(source, local) == Pulled()
        with pytest.raises(vstore.Unavailable):
            source["notes"]["k3"] = "no"
