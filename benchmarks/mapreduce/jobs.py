"""The three jobs as vstore does them: plain functions, declared fields, queries; in one process and in several.

    A   group by one field, sum another: 40 groups
    B   count the words of a text: 100,000 of them in a million documents
    C   filter on two fields, give three: about 2 % of the documents

Every contestant of a job gives the same answer, in a form that can be compared: A and B a dict, C a sorted list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import vstore
from mapreduce import Count, F, Sum, query, run

Contestant = Callable[[], Any]

COUNTRY = "FR"
SINCE = 2024


def by_shop(_key: str, order: Any) -> Iterator[tuple[str, int]]:
    """Job A, as anyone would write it."""
    yield order["shop"], order["cents"]


def words(_key: str, order: Any) -> Iterator[tuple[str, int]]:
    """Job B."""
    for word in order["text"].split():
        yield word, 1


def chosen(key: str, order: Any) -> Iterator[tuple[str, list[Any]]]:
    """Job C."""
    if order["country"] == COUNTRY and order["year"] >= SINCE:
        yield key, [order["number"], order["cents"]]


def first(_key: str, values: list[Any]) -> Any:
    """The reduce function of job C: each key comes once."""
    return values[0]


def functions(orders: vstore.Collection, workers: int) -> dict[str, Contestant]:
    """Functions over whole documents."""
    return {
        "A": lambda: dict(run(over=orders, map=by_shop, reduce=Sum(), workers=workers)),
        "B": lambda: dict(run(over=orders, map=words, reduce=Count(), workers=workers)),
        "C": lambda: [(key, *rest) for key, rest in run(over=orders, map=chosen, reduce=first, workers=workers)],
    }


def by_shop_field(_key: str, order: Any) -> Iterator[tuple[str, int]]:
    """Job A over a record."""
    yield order.shop, order.cents


def words_field(_key: str, order: Any) -> Iterator[tuple[str, int]]:
    """Job B over a record."""
    for word in order.text.split():
        yield word, 1


def chosen_field(key: str, order: Any) -> Iterator[tuple[str, list[Any]]]:
    """Job C over a record."""
    if order.country == COUNTRY and order.year >= SINCE:
        yield key, [order.number, order.cents]


def fields(orders: vstore.Collection, workers: int) -> dict[str, Contestant]:
    """Functions over records of the named fields; nothing else is decoded."""
    named = {"A": ["shop", "cents"], "B": ["text"], "C": ["country", "year", "number", "cents"]}
    return {
        "A": lambda: dict(run(over=orders, map=by_shop_field, reduce=Sum(), fields=named["A"], workers=workers)),
        "B": lambda: dict(run(over=orders, map=words_field, reduce=Count(), fields=named["B"], workers=workers)),
        "C": lambda: [
            (key, *rest)
            for key, rest in run(over=orders, map=chosen_field, reduce=first, fields=named["C"], workers=workers)
        ],
    }


def queries(orders: vstore.Collection, workers: int) -> dict[str, Contestant]:
    """No functions: all that is done is declared. Job B needs one, so it is not here."""
    grouped = query(orders, workers=workers).group_by(F.shop).aggregate(cents=Sum(F.cents))
    found = (
        query(orders, workers=workers).where((F.country == COUNTRY) & (F.year >= SINCE)).select(F.id, F.number, F.cents)
    )
    return {
        "A": lambda: {row["shop"]: row["cents"] for row in grouped},
        "C": lambda: sorted(tuple(row.values()) for row in found),
    }
