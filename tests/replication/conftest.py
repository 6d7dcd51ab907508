"""Two stores that are to meet, as most tests of replication want them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import vstore
from tests.replication.links import Pair


@pytest.fixture
def pair(url: str, fresh_url: Callable[[str], str]) -> Iterator[Pair]:
    """A store on each kind of database in turn, and another on SQLite."""
    with vstore.open(url) as one, vstore.open(fresh_url("sqlite")) as other:
        yield one, other
