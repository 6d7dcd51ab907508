"""What tests are lent on a server is blank, whatever the test before them did there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, text

import vstore
from tests.conftest import SERVERS, require_server
from tests.databases import Databases


@pytest.fixture
def databases() -> Iterator[Databases]:
    found = Databases(SERVERS)
    yield found
    found.close()


@pytest.fixture(
    params=[
        pytest.param(kind, marks=getattr(pytest.mark, {"postgresql": "postgres"}.get(kind, kind))) for kind in SERVERS
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    require_server(request.param)
    return str(request.param)


def used(databases: Databases, kind: str, use: Callable[[str], object]) -> str:
    """A database is lent, used and given back; its URL."""
    with databases.lent(kind, new=False) as url:
        use(url)
    return url


def run(*statements: str) -> Callable[[str], None]:
    def use(url: str) -> None:
        engine = create_engine(url)
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    return use


def test_a_database_that_comes_back_is_blank_for_the_next_test(databases: Databases, kind: str) -> None:
    """Its documents, its store and a table that is not ours are gone, and who had stayed connected is thrown out."""
    left: list[vstore.Store] = []

    def use(url: str) -> None:
        run("CREATE TABLE other (n INTEGER)")(url)
        left.append(vstore.open(url))
        left[0]["posts"]["a"] = 1

    first = used(databases, kind, use)

    with databases.lent(kind, new=False) as url:
        with pytest.raises(vstore.NotFound):
            vstore.open(url, create=False)
        run("CREATE TABLE other (n INTEGER)")(url)
        with vstore.open(url) as store:
            assert store.collections() == []
            assert store.id != left[0].id
    assert url == first
    left[0].close()


@pytest.mark.parametrize("change", ["ALTER TABLE vs_head DROP COLUMN lane3", "DROP TABLE vs_lease"])
def test_a_database_whose_tables_were_changed_is_not_lent_again(databases: Databases, kind: str, change: str) -> None:
    """Nor is one that the test has dropped."""
    changed = used(databases, kind, run(change))
    dropped = used(databases, kind, lambda url: databases.administer(kind, f"DROP DATABASE {url.rpartition('/')[2]}"))

    assert used(databases, kind, lambda url: None) not in {changed, dropped}


def test_a_new_database_has_no_tables_and_is_not_lent_again(databases: Databases, kind: str) -> None:
    """For tests of making tables."""
    with databases.lent(kind, new=True) as new:
        run("CREATE TABLE vs_lease (n INTEGER)")(new)  # it would be there already

    assert used(databases, kind, lambda url: None) != new
