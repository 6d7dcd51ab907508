"""Blank databases for one run, of whatever kind; gone at the end."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import URL

Fresh = Callable[[], URL]


@contextlib.contextmanager
def scratch(folder: Path, server: str | None) -> Iterator[Fresh]:
    """A function that makes a blank database: an SQLite file in the folder, or a database on the server."""
    if server is None:
        numbers = iter(range(10**6))
        yield lambda: make_url(f"sqlite:///{folder / f'benchmark-{next(numbers)}.db'}")
        return
    url = make_url(server)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    made: list[str] = []

    def fresh() -> URL:
        made.append(f"vstore_benchmark_{secrets.token_hex(4)}")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {made[-1]}"))
        return url.set(database=made[-1])

    try:
        yield fresh
    finally:
        with engine.connect() as connection:
            for name in made:
                connection.execute(text(f"DROP DATABASE {name}"))
        engine.dispose()
