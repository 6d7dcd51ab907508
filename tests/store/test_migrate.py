"""A store of format 1 becomes one of format 2 when it is opened, on every database, and misses nothing."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import create_engine, text

import vstore
from vstore.errors import StoreError

pytestmark = pytest.mark.new_database

NEW_TABLES = ("vs_forgotten", "vs_replica", "vs_lease", "vs_parked")
NEW_COLUMNS = [("vs_version", "kind"), *[("vs_head", f"lane{n}") for n in range(4)]]


def set_back(url: str) -> None:
    """Makes of a store what the program of format 1 would have left."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for table in NEW_TABLES:
            connection.execute(text(f"DROP TABLE {table}"))
        for table, column in NEW_COLUMNS:
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(text("UPDATE vs_meta SET value = '1' WHERE name = 'format'"))
    engine.dispose()


def formats(url: str) -> str:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT value FROM vs_meta WHERE name = 'format'")).scalar_one()
    engine.dispose()
    return str(found)


@pytest.fixture
def old(url: str) -> str:
    """A store of format 1 with 2,500 documents: more than a page of heads."""
    with vstore.open(url) as store:
        store["posts"].put_many((f"post-{n}", {"n": n}) for n in range(2_500))
        store["posts"]["post-1"] = {"n": "again"}
        del store["posts"]["post-2"]
    set_back(url)
    return url


def test_a_store_of_format_1_is_brought_up_when_it_is_opened(old: str) -> None:
    """`check` compares the element of every head with what the write path would have stored."""
    with vstore.open(old) as store:
        assert list(map(str, store.check())) == []
        assert len(store["posts"]) == 2_499
        store["posts"]["post-3"] = {"n": "after"}
        assert list(map(str, store.check())) == []
    assert formats(old) == "2"


def test_a_migration_that_was_interrupted_is_done_again(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On MariaDB half of it is there for good: the second attempt goes on from anything."""
    from vstore.sql import migrate

    def interrupted(*_args: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "element", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vstore.open(old)
    assert formats(old) == "1"

    with vstore.open(old) as store:
        assert list(map(str, store.check())) == []


def test_an_old_program_refuses_the_new_format(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vstore.sql import migrate

    vstore.open(url).close()
    monkeypatch.setattr(migrate, "FORMAT", 1)

    with pytest.raises(StoreError, match="has format 2, this vstore reads up to 1"):
        vstore.open(url)


def test_a_migration_says_that_it_takes_place(old: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="vstore"):
        vstore.open(old).close()

    assert "is brought from format 1 to 2" in caplog.text
