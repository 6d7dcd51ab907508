"""A view over all the documents: building it, keeping it fresh, asking it.

It is made on a copy of the store, since documents are changed here.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import orjson

import vstore
from benchmarks.mapreduce.contest import timed
from benchmarks.mapreduce.documents import COUNTRIES, Prepared, documents
from benchmarks.report import Line
from mapreduce import Sum, View, view
from mapreduce.ordered import encode

CHANGES = 1_000


def cents(_key: str, order: Any) -> Iterator[tuple[list[Any], int]]:
    """One row for each document; two levels to group by."""
    yield [order["country"], order["number"]], order["cents"]


def lines(made: Prepared, folder: Path, rounds: int) -> Iterator[Line]:
    """Every line about views."""
    copy = folder / "copy.db"
    shutil.copyfile(made.database, copy)
    with vstore.open(f"sqlite:///{copy}") as store:
        orders = store["orders"]
        # In every partition, before the view is built: the first write to a copied file makes new actors, and so new
        # feeds, whereupon a view rightly starts anew.
        _change(orders, made.count, 0)
        by_country = view(orders, "by_country", map=cents, reduce=Sum())
        yield _build(made, folder, by_country)
        yield _update(orders, by_country, made.count, rounds)
        yield from _questions(by_country, orders, made.count, rounds)


def _build(made: Prepared, folder: Path, by_country: View) -> Line:
    """The raw side writes the rows, encoded beforehand, in one transaction; it reads, maps and sorts nothing."""
    rows = [
        (encode(row_key), key, orjson.dumps(value))
        for key, order in documents(made.count)
        for row_key, value in cents(key, order)
    ]
    with closing(sqlite3.connect(folder / "rows.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE row (key BLOB, document TEXT, value TEXT, PRIMARY KEY (key, document)) WITHOUT ROWID"
        )

        def write() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO row VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")

        raw = made.count / timed(write)
    rows.clear()
    ours = made.count / timed(by_country.update)
    met = None if made.count < 1_000_000 else ours >= 60_000
    return Line(
        f"view of {made.count:,} documents, built (raw: executemany)",
        raw,
        ours,
        "/s",
        f"{raw / ours:.2f} ×",
        "≥ 60,000/s",
        met,
    )


def _update(orders: vstore.Collection, by_country: View, count: int, rounds: int) -> Line:
    """Each round changes other documents; only the update is timed."""
    took = []
    for number in range(rounds):
        changes = _change(orders, count, number + 1)
        took.append(timed(by_country.update))
    return _milliseconds(f"view, updated after {changes:,} changes", took, 500)


def _change(orders: vstore.Collection, count: int, number: int) -> int:
    """Changes a thousand documents all over the collection; how many."""
    keys = [f"order-{(each * 7919 + number) % count:09d}" for each in range(min(CHANGES, count))]
    orders.put_many({key: {**value, "cents": value["cents"] + 1} for key, value in orders.get_many(keys).items()})
    return len(keys)


def _questions(by_country: View, orders: vstore.Collection, count: int, rounds: int) -> Iterator[Line]:
    """Over all the rows, and over a third of one country's."""
    sums = dict.fromkeys(COUNTRIES, 0)
    low, high = count // 3, count * 2 // 3
    between = 0
    for order in orders.values():
        sums[order["country"]] += order["cents"]
        if order["country"] == "FR" and low <= order["number"] < high:
            between += order["cents"]

    def grouped() -> Any:
        return {row.key[0]: row.value for row in by_country.rows(group_level=1, update="never")}

    def ranged() -> Any:
        return by_country.value(start=["FR", low], end=["FR", high], inclusive_end=False, update="never")

    assert grouped() == {country: total for country, total in sums.items() if total}
    assert (ranged() or 0) == between
    for work, question in (("grouped by country", grouped), ("over a range", ranged)):
        took = []
        for _ in range(rounds * 5):
            started = perf_counter()
            question()
            took.append(perf_counter() - started)
        yield _milliseconds(f"view, reduced {work}, {count:,} rows", took, 5)


def _milliseconds(work: str, seconds: list[float], at_most: float) -> Line:
    took = median(seconds) * 1e3
    return Line(work, None, took, "ms", f"{took:.1f} ms", f"≤ {at_most:g} ms", took <= at_most)
