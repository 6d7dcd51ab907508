"""What else one would take for the three jobs, over the same documents.

raw          one process: sqlite3, orjson and a dict over the rows of the very store; no versions, no rivals
DuckDB       SQL over the documents as lines of JSON, two threads
PostgreSQL   SQL over a table of jsonb, with the server's own settings
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import orjson

from benchmarks.mapreduce.documents import Prepared
from benchmarks.mapreduce.jobs import COUNTRY, SINCE, Contestant

THREADS = 2


def raw(made: Prepared) -> dict[str, Contestant]:
    """The fastest honest loop. Each document has one version, so the heads need not be asked."""

    def bodies() -> Iterator[bytes]:
        with contextlib.closing(sqlite3.connect(made.database)) as connection:
            for (body,) in connection.execute("SELECT body FROM vs_version"):
                yield body

    def sums() -> dict[str, int]:
        groups: defaultdict[str, int] = defaultdict(int)
        loads = orjson.loads
        for body in bodies():
            order = loads(body)
            groups[order["shop"]] += order["cents"]
        return dict(groups)

    def counts() -> dict[str, int]:
        groups: defaultdict[str, int] = defaultdict(int)
        loads = orjson.loads
        for body in bodies():
            for word in loads(body)["text"].split():
                groups[word] += 1
        return dict(groups)

    def found() -> list[tuple[Any, ...]]:
        rows = []
        loads = orjson.loads
        for body in bodies():
            order = loads(body)
            if order["country"] == COUNTRY and order["year"] >= SINCE:
                rows.append((order["id"], order["number"], order["cents"]))
        return sorted(rows)

    return {"A": sums, "B": counts, "C": found}


def duckdb(made: Prepared) -> dict[str, Contestant]:
    """DuckDB finds the types itself: it is told nothing that vstore is not told."""
    import duckdb as engine

    def asked(statement: str, **values: Any) -> list[tuple[Any, ...]]:
        with engine.connect(config={"threads": THREADS}) as connection:
            return connection.execute(statement, {"file": str(made.ndjson), **values}).fetchall()

    return {
        "A": lambda: dict(asked("SELECT shop, CAST(sum(cents) AS BIGINT) FROM read_ndjson($file) GROUP BY shop")),
        "B": lambda: dict(
            asked(
                "SELECT word, count(*) FROM (SELECT unnest(string_split(text, ' ')) AS word FROM read_ndjson($file)) "
                "GROUP BY word"
            )
        ),
        "C": lambda: asked(
            "SELECT id, number, cents FROM read_ndjson($file) WHERE country = $country AND year >= $since ORDER BY id",
            country=COUNTRY,
            since=SINCE,
        ),
    }


@contextlib.contextmanager
def postgresql(made: Prepared, fresh: Callable[[], Any]) -> Iterator[dict[str, Contestant]]:
    """A database of its own on the server, filled with the same documents."""
    import psycopg

    url = fresh()
    settings = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    with psycopg.connect(
        dbname=url.database, **{name: value for name, value in settings.items() if value is not None}
    ) as connection:
        connection.autocommit = True
        connection.execute("CREATE TABLE orders (body jsonb)")
        with connection.cursor() as cursor, cursor.copy("COPY orders FROM STDIN") as copy:
            for line in _lines(made.ndjson):
                copy.write_row((line,))
        connection.execute("VACUUM ANALYZE orders")

        def asked(statement: LiteralString, **values: Any) -> list[tuple[Any, ...]]:
            return connection.execute(statement, values).fetchall()

        yield {
            "A": lambda: dict(
                asked("SELECT body->>'shop', sum((body->'cents')::bigint)::bigint FROM orders GROUP BY 1")
            ),
            "C": lambda: asked(
                "SELECT body->>'id', (body->'number')::bigint, (body->'cents')::bigint FROM orders "
                "WHERE body->>'country' = %(country)s AND (body->'year')::int >= %(since)s ORDER BY body->>'id'",
                country=COUNTRY,
                since=SINCE,
            ),
        }


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from file
