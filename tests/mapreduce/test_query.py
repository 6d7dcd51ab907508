"""Queries as their users meet them: what can be asked, which rows come, and what is said about them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vstore
from mapreduce import (
    Collect,
    Count,
    Doc,
    F,
    First,
    Last,
    MapError,
    Max,
    Mean,
    Min,
    NotOneRow,
    Query,
    Sum,
    TopK,
    query,
)
from mapreduce.errors import DeadlineExceeded
from mapreduce.query import selection
from vstore import Store
from vstore.errors import ConfigurationError, Conflict

ORDERS = {
    "o1": {"country": "FR", "total": 10, "lines": [{"item": "tea", "n": 2}, {"item": "cup", "n": 1}], "paid": True},
    "o2": {"country": "DE", "total": 2.5, "lines": [{"item": "tea", "n": 5}], "paid": False},
    "o3": {"country": "FR", "total": 7, "lines": [], "note": None},
    "o4": {"country": None, "total": "12"},
    "o5": {"total": 1},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with vstore.open(f"sqlite:///{tmp_path}/a.db") as store:
        yield store


@pytest.fixture
def orders(store: Store) -> Any:
    collection = store["orders"]
    collection.put_many(ORDERS)
    return collection


# rows


def test_without_columns_the_rows_are_the_documents(orders: Any) -> None:
    """As (key, value), like those of `items()`."""
    rows = list(query(orders).where(F.total > 5, F.country == "FR"))

    assert sorted(rows) == [("o1", ORDERS["o1"]), ("o3", ORDERS["o3"])]


def test_selected_columns_are_dicts_in_the_order_of_the_columns(orders: Any) -> None:
    """Text and paths name columns, expressions have a name given; what is missing in a document is so in the row."""
    asked = query(orders).select("country", F.lines[0].item, key=Doc.key, items="lines[*].item", double=F.total * 2)

    assert asked.columns == ["country", "lines[0].item", "key", "items", "double"]
    assert sorted(map(list, map(dict.items, asked)), key=str) == [
        [("country", "DE"), ("lines[0].item", "tea"), ("key", "o2"), ("items", ["tea"]), ("double", 5.0)],
        [("country", "FR"), ("key", "o3"), ("items", []), ("double", 14)],
        [("country", "FR"), ("lines[0].item", "tea"), ("key", "o1"), ("items", ["tea", "cup"]), ("double", 20)],
        [("country", None), ("key", "o4")],
        [("key", "o5"), ("double", 2)],
    ]


def test_wheres_add_up_and_a_query_is_a_value(orders: Any) -> None:
    """Each step makes a new query; the one before is as it was, and can be read again."""
    french = query(orders).where(F.country == "FR")
    cheap = french.where(F.total < 10)

    assert [key for key, _ in cheap] == ["o3"]
    assert sorted(key for key, _ in french) == ["o1", "o3"]
    assert sorted(key for key, _ in french) == ["o1", "o3"]

    orders["o6"] = {"country": "FR", "total": 0}

    assert sorted(key for key, _ in cheap) == ["o3", "o6"]


def test_the_same_query_runs_over_documents_in_memory() -> None:
    """A mapping, pairs, and an iterator that is read once."""
    for over in (ORDERS, list(ORDERS.items()), iter(ORDERS.items())):
        assert [row["key"] for row in query(over).where(F.lines.any(F.n > 4)).select(Doc.key)] == ["o2"]


def test_several_collections_are_read_as_one(store: Store, orders: Any) -> None:
    store["more"]["o9"] = {"country": "FR"}

    asked = query([orders, store["more"]]).where(F.country == "FR")

    assert sorted(key for key, _ in asked) == ["o1", "o3", "o9"]
    assert asked.count() == 3
    assert query([orders, store["more"]]).count() == 6


def test_a_query_over_the_past_and_over_every_version(orders: Any) -> None:
    """`at` gives the documents of a moment; a history scan gives Documents, tombstones too."""
    before = orders.read("o5").stamp
    orders["o5"] = {"total": 2}
    del orders["o5"]

    assert query(orders.at(before)).where(Doc.key == "o5").select("total").one() == {"total": 1}
    versions = query(orders.history_scan()).where(Doc.key == "o5").order_by(Doc.stamp)
    assert list(versions.select("total", Doc.deleted)) == [
        {"total": 1, "deleted": False},
        {"total": 2, "deleted": False},
        {"deleted": True},
    ]
    assert [document.value for _, document in versions] == [{"total": 1}, {"total": 2}, None]
    latest = query(orders.history_scan()).where(~Doc.deleted).group_by(key=Doc.key).aggregate(last=Last(F.total))
    assert latest.where(F.key == "o5").one() == {"key": "o5", "last": 2}


def test_the_version_of_a_document_can_be_asked_for(orders: Any) -> None:
    rows = query(orders).where(F.paid).select(Doc.rev, Doc.stamp, Doc.deleted)

    document = orders.read("o1")
    assert rows.one() == {"rev": document.rev, "stamp": document.stamp, "deleted": False}
    orders["o2"] = {"total": 3}
    assert query(orders).aggregate(last=Last("total")).one() == {"last": 3}
    assert query(orders).order_by(-Doc.stamp).first()[0] == "o2"


def test_of_rivals_the_winner_is_queried_or_none(orders: Any) -> None:
    """Two writers did not see each other."""
    seen = orders.read("o1").context
    orders.put("o1", {"country": "XX"}, context=seen)
    orders.put("o1", {"country": "YY"}, context=seen)
    winner = orders.read("o1", on_conflict="winner").value["country"]
    asked = query(orders).where(Doc.key == "o1").select("country")

    assert asked.one() == {"country": winner}
    assert asked.counters is not None
    assert asked.counters.conflicts == 1
    assert query(orders, on_conflict="skip").count() == 4
    with pytest.raises(Conflict):
        list(query(orders, on_conflict="raise"))


# order


def test_rows_come_in_order_and_ties_by_key() -> None:
    """Missing first, then null and so on as the collation has it; numbers before strings."""
    asked = query(ORDERS)

    assert [row["key"] for row in asked.order_by("total").select(Doc.key)] == ["o5", "o2", "o3", "o1", "o4"]
    assert [row["key"] for row in asked.order_by("-total").select(Doc.key)] == ["o4", "o1", "o3", "o2", "o5"]
    assert [row["key"] for row in asked.order_by(F.country, -F.total).select(Doc.key)] == ["o5", "o4", "o2", "o1", "o3"]
    assert [key for key, _ in asked.order_by("-paid")] == ["o1", "o2", "o3", "o4", "o5"]
    assert [key for key, _ in asked.order_by("-paid").limit(2).offset(1)] == ["o2", "o3"]


def test_an_order_may_go_by_a_column(orders: Any) -> None:
    asked = query(orders).where(F.total.is_type("number")).select(Doc.key, twice=F.total * 2).order_by("-twice")

    assert [row["twice"] for row in asked] == [20, 14, 5.0, 2]


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_a_cursor_goes_on_where_the_last_page_ended(limit: int) -> None:
    """Nothing twice and nothing missed, though documents come and go between the pages."""
    documents = {f"k{n:04}": {"n": n % 10} for n in range(1_500)}
    asked = query(documents).order_by("-n").select(Doc.key).limit(limit)
    whole = [row["key"] for row in asked.limit(None)]

    pages, cursor = [], None
    while page := list(now := asked.after(cursor)):
        pages += [row["key"] for row in page]
        cursor = now.cursor
        documents.pop(pages[-1])  # what has been read may go
        if len(pages) > 20 * limit:
            break

    assert pages == whole[: len(pages)]


def test_pages_over_several_collections_have_documents_of_one_key(store: Store) -> None:
    """k1 is in both, at the same place of the order: neither is lost between two pages, nor read twice."""
    for name in ("orders", "returns"):
        store[name].put_many({f"k{n}": {"in": name, "n": n // 2} for n in range(4)})
    asked = query([store["orders"], store["returns"]]).order_by("-n").select(Doc.key, "in").limit(3)

    rows: list[Any] = []
    cursor: str | None = None
    while page := list(step := asked.after(cursor)):
        rows += page
        cursor = step.cursor

    assert [(row["key"], row["in"]) for row in rows] == [
        (key, name) for key in ("k2", "k3", "k0", "k1") for name in ("orders", "returns")
    ]


def test_columns_may_be_called_as_python_likes_its_own() -> None:
    """`vstore query ... --select 'n as self'` names columns as its user pleases."""
    asked = query({"a": {"n": 1}})

    assert asked.select(**{"self": F.n, "columns": F.n, "-n": -F.n}).order_by("-n").one() == {
        "self": 1,
        "columns": 1,
        "-n": -1,
    }
    assert asked.group_by(self=F.n).aggregate(figures=Count()).one() == {"self": 1, "figures": 1}
    assert asked.aggregate(self=Count()).one() == {"self": 1}


def test_a_limit_may_be_of_any_size() -> None:
    assert len(list(query(ORDERS).limit(10**20))) == 5
    assert list(query(ORDERS).offset(10**20)) == []
    assert len(list(query(ORDERS).order_by("total").limit(10**20))) == 5
    nothing = query(ORDERS).limit(0)
    assert list(nothing) == []
    assert nothing.counters is not None
    assert nothing.counters.documents == 0


def test_conditions_on_the_key_read_a_range_of_keys(store: Store, orders: Any) -> None:
    """Which is seen from how much is read; a collection with a prefix has keys without it."""
    asked = query(orders).where(Doc.key.between("o2", "o3"))

    assert sorted(key for key, _ in asked) == ["o2", "o3"]
    assert asked.counters is not None
    assert asked.counters.documents == 2
    assert "keys from 'o2' on, before 'o3\\x01'" in str(asked.explain())
    assert query(orders.prefixed("o")).where(Doc.key == "4").select("total").one() == {"total": "12"}
    both = query([orders, store["orders"].prefixed("o")]).where(Doc.key.startswith("o"))
    assert both.count() == 5
    assert both.explain().documents == 5
    assert asked.aggregate(n=Count()).one() == {"n": 2}
    assert query(orders).where(Doc.key > "x", Doc.key < "a").count() == 0
    assert query(ORDERS).where(Doc.key == "o1").explain().keys.whole  # no database is asked


def test_a_cursor_is_of_an_order() -> None:
    asked = query(ORDERS).order_by("total")
    asked.first()

    with pytest.raises(ConfigurationError, match="needs an order"):
        list(query(ORDERS).after(asked.cursor))
    with pytest.raises(ConfigurationError, match="no cursor of this order"):
        list(query(ORDERS).order_by("-total").after(asked.cursor))
    with pytest.raises(ConfigurationError, match="no cursor of this order"):
        list(asked.after("nonsense"))


def test_more_rows_than_memory_are_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    documents = ((f"k{n * 7919 % 30_000:05}", {"n": n, "text": "x" * 100}) for n in range(30_000))
    asked = query(documents, memory=1_000_000).order_by(Doc.key).select(Doc.key)

    keys = [row["key"] for row in asked]

    assert keys == [f"k{n:05}" for n in range(30_000)]
    assert asked.counters is not None
    assert asked.counters.spills > 1
    assert list(tmp_path.glob("vstore-job-*")) == []


# few rows


def test_first_one_and_count(orders: Any) -> None:
    asked = query(orders).where(F.country == "FR")

    assert asked.where(F.paid).one() == ("o1", ORDERS["o1"])
    assert asked.order_by("total").first() == ("o3", ORDERS["o3"])
    assert asked.where(F.total > 100).first() is None
    with pytest.raises(NotOneRow, match="none"):
        asked.where(F.total > 100).one()
    with pytest.raises(NotOneRow, match="more than one"):
        asked.one()
    assert (asked.count(), asked.limit(1).count(), asked.offset(1).count(), asked.offset(5).count()) == (2, 1, 1, 0)
    assert query(orders).count() == 5
    assert query(orders, on_conflict="raise").count() == 5
    assert query(orders).group_by("country").count() == 4
    assert asked.order_by("total").after(_cursor(asked.order_by("total").limit(1))).count() == 1


def _cursor(asked: Query) -> str | None:
    list(asked)
    return asked.cursor


def test_counting_everything_decodes_nothing(store: Store, orders: Any, tmp_path: Path) -> None:
    """A body that cannot be decoded does not matter, until it is asked for."""
    _damage(tmp_path / "a.db", "o2")

    assert query(orders).count() == 5
    with pytest.raises(MapError, match="o2"):
        query(orders).where(F.total > 5).count()


def test_a_limit_ends_the_reading_early() -> None:
    """Of an endless source only what is needed is read."""
    read = []

    def numbers() -> Iterator[tuple[int, Any]]:
        for number in range(10**9):
            read.append(number)
            yield number, {"n": number}

    assert list(query(numbers()).where(F.n % 1000 == 999).select("n").limit(2)) == [{"n": 999}, {"n": 1999}]
    assert len(read) < 10_000


# groups


def test_groups_and_their_figures(orders: Any) -> None:
    """Null is a group, and so are the documents without a value, whose row lacks the column."""
    asked = (
        query(orders)
        .group_by("country")
        .aggregate(n=Count(), paid=Count(F.paid), sum=Sum(F.total), top=TopK(1, "total"))
    )

    assert asked.columns == ["country", "n", "paid", "sum", "top"]
    assert list(asked) == [
        {"n": 1, "paid": 0, "sum": 1, "top": [1]},
        {"country": None, "n": 1, "paid": 0, "sum": 0, "top": ["12"]},
        {"country": "DE", "n": 1, "paid": 1, "sum": 2.5, "top": [2.5]},
        {"country": "FR", "n": 2, "paid": 1, "sum": 17, "top": [10]},
    ]


def test_figures_leave_out_what_they_cannot_use() -> None:
    """Missing and null always; of sums and means also what is no number, booleans too."""
    documents = [(n, {"x": x}) for n, x in enumerate([1, 2.5, None, "7", True, [1]])]

    row = query([*documents, ("none", {})]).aggregate(
        n=Count(), x=Count(F.x), sum=Sum(F.x), mean=Mean(F.x), min=Min(F.x), max=Max(F.x), all=Collect(F.x)
    )

    assert row.one() == {
        "n": 7,
        "x": 5,
        "sum": 3.5,
        "mean": 1.75,
        "min": True,
        "max": [1],
        "all": [1, 2.5, "7", True, [1]],
    }


def test_of_no_documents_there_is_one_row_of_figures_and_no_group() -> None:
    nothing = query({})

    assert list(nothing.aggregate(n=Count(), sum=Sum(F.x), max=Max(F.x))) == [{"n": 0, "sum": 0, "max": None}]
    assert list(nothing.group_by("x").aggregate(n=Count())) == []


def test_groups_without_figures_are_the_different_values() -> None:
    assert list(query(ORDERS).where(F.country.is_type("string")).group_by(F.country)) == [
        {"country": "DE"},
        {"country": "FR"},
    ]


def test_values_that_are_the_same_are_one_group() -> None:
    """1 and 1.0, in any place; but true is no number, and null is not missing."""
    values = [1, 1.0, True, None, [1, {"a": 1}], [1.0, {"a": 1.0}], "1"]

    rows = query(enumerate([*({"x": value} for value in values), {}])).group_by("x", two=F.x).aggregate(n=Count())

    assert list(rows) == [
        {"n": 1},
        {"x": None, "two": None, "n": 1},
        {"x": True, "two": True, "n": 1},
        {"x": 1, "two": 1, "n": 2},
        {"x": "1", "two": "1", "n": 1},
        {"x": [1, {"a": 1}], "two": [1, {"a": 1}], "n": 2},
    ]


def test_groups_are_filtered_selected_and_sorted_by_their_columns() -> None:
    groups = query(ORDERS).group_by(F.country).aggregate(n=Count(), sum=Sum(F.total))

    assert list(groups.where(F.n > 1)) == [{"country": "FR", "n": 2, "sum": 17}]
    assert list(groups.where(F.country.exists()).order_by("-sum").limit(2)) == [
        {"country": "FR", "n": 2, "sum": 17},
        {"country": "DE", "n": 1, "sum": 2.5},
    ]
    mean = groups.where(F.sum > 0).select("country", mean=F.sum / F.n).order_by("-mean")
    assert list(mean) == [{"country": "FR", "mean": 8.5}, {"country": "DE", "mean": 2.5}, {"mean": 1.0}]
    assert [row.get("n") for row in groups.order_by(-F.n, "country")] == [2, 1, 1, 1]
    page = groups.order_by("n").limit(2)
    assert [*page, *groups.order_by("n").after(_cursor(page))] == list(groups.order_by("n"))


def test_the_first_and_last_by_a_field() -> None:
    documents = {"a": {"at": 2, "v": "x"}, "b": {"at": 1, "v": "y"}, "c": {"v": "z"}}

    row = query(documents).aggregate(first=First("v", by="at"), last=Last(F.v, by=F.at), unknown=Last(F.v)).one()

    assert row == {"first": "y", "last": "x", "unknown": None}  # only a store has stamps


def test_many_groups_go_to_disk() -> None:
    documents = ((n, {"x": f"group {n % 20_000}", "n": 1}) for n in range(40_000))
    asked = query(documents, memory=1_000_000, workers=1).group_by("x").aggregate(n=Sum(F.n))

    assert sum(row["n"] == 2 for row in asked) == 20_000
    assert asked.counters is not None
    assert asked.counters.spills > 1


# what is said


def test_counters_tell_what_was_read(orders: Any) -> None:
    asked = query(orders).where(F.total > 5).select("total")
    assert asked.counters is None

    rows = list(asked)

    assert asked.counters is not None
    assert (asked.counters.documents, asked.counters.pairs, len(rows)) == (5, 3, 3)
    assert asked.counters.bytes > 100


def test_an_explanation_says_what_will_run(orders: Any) -> None:
    """Which fields are decoded, what the database leaves out, where it runs."""
    asked = query(orders).where(F.country == "FR", F.address.city.exists()).select("total", "address")

    plan = asked.order_by("total").limit(3).explain()

    assert plan.fields == ("country", "total", "address")
    assert plan.holding == ((b'"address":',), (b'"city":',), (b'"FR"',))
    assert plan.documents == 5
    assert plan.workers == 1
    assert plan.seconds is not None
    text = str(plan)
    assert "decodes   country, total, address" in text
    assert 'bodies without "FR"' in text
    assert "order by F.total (the lowest are kept)" in text
    assert "in this process" in text
    assert query(orders).explain().fields is None
    assert "whole documents" in str(query(orders).explain())
    assert query(ORDERS).select("total").explain().fields is None  # they are decoded already
    assert query(orders, workers=2).explain().workers == 2
    assert query(orders).group_by("country").aggregate(n=Count()).explain().fields == ("country",)


def test_large_collections_are_read_in_parallel_and_small_ones_here() -> None:
    class Source:
        """As large as it says."""

        def __init__(self, length: int) -> None:
            self.length = length

        def slices(self, count: int) -> list[Any]:
            raise AssertionError("nothing is read")

        def len_estimate(self) -> int:
            return self.length

    def workers(length: int, refined: Any = lambda asked: asked) -> int:
        return int(refined(query(Source(length))).explain().workers)

    assert workers(1_000, lambda asked: asked.select("a")) == 1
    assert workers(10_000_000, lambda asked: asked.select("a")) > 1 or _cores() == 1
    assert workers(10_000_000, lambda asked: asked.group_by("a")) > 1 or _cores() == 1
    # Sending whole documents costs more than decoding them here, so only a few are sent.
    assert workers(10_000_000) == 1
    assert workers(10_000_000, lambda asked: asked.where(F.n > 3)) == 1
    assert workers(10_000_000, lambda asked: asked.order_by("n").limit(10)) > 1 or _cores() == 1
    assert workers(10_000_000, lambda asked: asked.order_by("n").limit(10_000_000)) == 1


def _cores() -> int:
    from mapreduce.executors import _cores

    return _cores()


# errors


def test_a_document_that_cannot_be_decoded_is_named_or_left_out(store: Store, orders: Any, tmp_path: Path) -> None:
    rev = orders.read("o2").rev
    _damage(tmp_path / "a.db", "o2")

    for workers in (1, 2):
        for asked in (query(orders, workers=workers), query(orders, workers=workers).select("total")):
            with pytest.raises(MapError, match="'o2'") as caught:
                list(asked)
            assert (caught.value.key, caught.value.rev) == ("o2", rev)
        asked = query(orders, workers=workers, on_error="skip").select(Doc.key)
        assert sorted(row["key"] for row in asked) == ["o1", "o3", "o4", "o5"]
        assert asked.counters is not None
        assert asked.counters.skipped == 1
        assert [(skipped.key, skipped.rev) for skipped in asked.skipped] == [("o2", rev)]


def test_a_value_that_has_no_place_in_an_order_is_named_or_left_out() -> None:
    """Sets are no JSON; documents in memory may hold them."""
    documents = {"good": {"x": 1}, "bad": {"x": {1, 2}}, "better": {"x": 2}}

    for asked in (
        query(documents).order_by("x"),
        query(documents).order_by("x").limit(2),
        query(documents).group_by("x"),
    ):
        with pytest.raises(MapError, match="'bad'.*set"):
            list(asked)
    assert [key for key, _ in query(documents, on_error="skip").order_by("-x").limit(5)] == ["better", "good"]
    assert list(query(documents, on_error="skip").group_by("x")) == [{"x": 1}, {"x": 2}]


def test_a_deadline_ends_the_reading() -> None:
    """The rows before are good; then it says so."""

    def endless() -> Iterator[tuple[int, Any]]:
        number = 0
        while True:
            yield number, {}
            number += 1

    with pytest.raises(DeadlineExceeded):
        for _ in query(endless(), deadline=0.05):
            pass


@pytest.mark.parametrize(
    "misuse",
    [
        lambda asked: asked.where(lambda key, value: True),
        lambda asked: asked.where(True),
        lambda asked: asked.select(F.a + 1),
        lambda asked: asked.select("a", "a"),
        lambda asked: asked.select("a", a=F.b),
        lambda asked: asked.select("a..b"),
        lambda asked: asked.group_by(),
        lambda asked: asked.group_by("a").group_by("b"),
        lambda asked: asked.select("a").group_by("b"),
        lambda asked: asked.aggregate(),
        lambda asked: asked.aggregate(n=Count),
        lambda asked: asked.aggregate(n=3),
        lambda asked: asked.aggregate(n=Sum()),
        lambda asked: asked.aggregate(n=Count()).aggregate(m=Count()),
        lambda asked: asked.select("a").aggregate(m=Count()),
        lambda asked: asked.group_by("n").aggregate(n=Count()),
        lambda asked: asked.group_by("n").where(Doc.key == "x"),
        lambda asked: asked.group_by("n").order_by(Doc.key),
        lambda asked: asked.group_by("n").select(Doc.key),
        lambda asked: asked.order_by(),
        lambda asked: asked.order_by(3),
        lambda asked: asked.limit(-1),
        lambda asked: asked.limit("3"),
        lambda asked: asked.offset(-1),
        lambda asked: query({}, workers=0),
        lambda asked: query({}, on_conflict="first"),
        lambda asked: query({}, on_error="ignore"),
        lambda asked: query({}, deadline=0),
        lambda asked: query({}, deadline=float("nan")),
        lambda asked: query({}, memory=0),
        lambda asked: list(query(3)),
        lambda asked: list(query("text")),
        lambda asked: list(asked.group_by("n").order_by("m")),
    ],
)
def test_what_cannot_be_asked_is_refused(misuse: Any) -> None:
    with pytest.raises(ConfigurationError):
        misuse(query(ORDERS))


# parallel


@pytest.fixture
def many(store: Store) -> Any:
    collection = store["many"]
    collection.put_many((f"k{n:05}", {"n": n, "text": "x" * 50}) for n in range(6_000))
    return collection


def test_rows_of_two_workers_come_in_the_order_of_the_splits(many: Any) -> None:
    here = [row["n"] for row in query(many, workers=1).where(F.n % 2 == 0).select("n")]
    there = query(many, workers=2).where(F.n % 2 == 0).select("n")

    assert len(here) == 3_000
    assert [row["n"] for row in there] == here
    assert there.counters is not None
    assert there.counters.splits > 2
    assert there.counters.documents == 6_000
    assert [row["n"] for row in there.limit(10).offset(5)] == here[5:15]


def test_a_split_with_more_rows_than_can_be_sent_is_read_here(many: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "ROWS_BYTES", 1)
    asked = query(many, workers=2).where(F.n >= 0)

    assert sorted(value["n"] for _, value in asked) == list(range(6_000))
    assert asked.counters is not None
    assert asked.counters.documents == 6_000


def test_reading_may_stop_in_the_middle(many: Any) -> None:
    """The iterator is closed, and so are connections and splits that were begun."""
    for workers in (1, 2):
        rows = iter(query(many, workers=workers).select("n"))
        next(rows)
        rows.close()  # type: ignore[attr-defined]

    assert query(many).count() == 6_000


def test_all_rows_are_of_one_moment(many: Any) -> None:
    """Documents written while the rows are read are not among them."""
    rows = iter(query(many).select("n"))
    next(rows)
    many.put_many((f"k{n:05}", {"n": -1}) for n in range(6_000))

    assert all(row["n"] >= 0 for row in rows)


def test_progress_is_told(many: Any) -> None:
    """Of the documents, once: groups that are sorted afterwards are no second task."""
    refinements: list[Any] = [
        lambda asked: asked.select("n"),
        lambda asked: asked.group_by("n"),
        lambda asked: asked.group_by("n").where(F.n < 3).order_by("-n"),
    ]
    for refine in refinements:
        seen: list[Any] = []
        list(refine(query(many, progress=seen.append)))
        assert seen[-1].documents == 6_000


def test_a_condition_of_hundreds_of_parts_travels_to_workers(many: Any) -> None:
    condition = F.n == 0
    for number in range(400):
        condition = condition | ((F.n == 10 * number) & (F.text != ""))

    asked = query(many, workers=2).where(condition)

    assert asked.count() == 400
    assert asked.aggregate(n=Count()).one() == {"n": 400}


@pytest.mark.parametrize("first", ["mapreduce.query.fields", "mapreduce.query.query", "mapreduce"])
def test_query_is_a_function_whatever_was_imported_before(first: str) -> None:
    """The function and the package of its code have one name."""
    code = f"import {first}; from mapreduce import query, F; print(query({{'k': {{'a': 1}}}}).where(F.a == 1).count())"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "1\n"


def _damage(path: Path, key: str) -> None:
    """Overwrites a body by hand, as a failing disk might."""
    with sqlite3.connect(path) as database:
        database.execute("UPDATE vs_version SET body = x'7b' WHERE key = ? AND deleted = 0", (key,))
    database.close()
