"""Every way to run a query gives what plain Python gives: random documents, random expressions.

Plain Python is `Expression.holds` and `evaluate` over the whole documents, as
tests/unit/test_query_meaning.py pins them down. Against it run the generated
code, partial decoding, prefilters, worker processes and a store.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vstore
from mapreduce.collation import identity
from mapreduce.query import code
from mapreduce.query.aggregate import Figure
from mapreduce.query.code import group_key
from mapreduce.query.fields import (
    Arithmetic,
    Comparison,
    Doc,
    Expression,
    F,
    Function,
    Logic,
    Not,
    Path,
    Quantified,
    literal,
    paths,
)
from mapreduce.query.meaning import MISSING
from mapreduce.query.prefilter import holding
from mapreduce.query.query import query
from mapreduce.query.records import Fields
from mapreduce.reducers.collect import Collect
from mapreduce.reducers.extremes import First, Max, Min, TopK
from mapreduce.reducers.sums import Count, Mean, Stats, Sum

NAMES = ["a", "b", "get", "x y", 'q"']
SCALARS = [None, True, False, 0, 1, 2, -1, 1.0, 0.0, -0.0, 2.5, "", "x", "xy", 'é"q', 2**53 + 1, 2.0**53, 2**63]


class Chance:
    """Documents and expressions from a source of randomness, so that one generator serves hypothesis and the store."""

    def __init__(self, random: random.Random) -> None:
        self.random = random

    def value(self, depth: int = 0) -> Any:
        kind = self.random.random()
        if depth < 3 and kind < 0.25:
            return {self.random.choice(NAMES): self.value(depth + 1) for _ in range(self.random.randint(0, 3))}
        if depth < 3 and kind < 0.45:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        return self.random.choice(SCALARS)

    def document(self) -> Any:
        if self.random.random() < 0.1:
            return self.value()
        return {name: self.value(1) for name in NAMES if self.random.random() < 0.8}

    def path(self) -> Path:
        path = F
        for _ in range(self.random.randint(0 if self.random.random() < 0.1 else 1, 3)):
            kind = self.random.random()
            path = path[
                self.random.choice(NAMES) if kind < 0.7 else self.random.randint(-2, 2) if kind < 0.85 else slice(None)
            ]
        return path

    def expression(self, depth: int = 0) -> Expression:
        kind = self.random.random()
        if depth > 4 or kind < 0.4:
            return self.path()
        if kind < 0.5:
            return literal(self.value(2))
        if kind < 0.65:
            sign = self.random.choice(["+", "-", "*", "/", "//", "%"])
            return Arithmetic(sign, self.expression(depth + 1), self.expression(depth + 1))
        if kind < 0.75:
            return Function(self.random.choice(["lower", "length", "negative"]), self.expression(depth + 1))
        if kind < 0.8:
            return Doc.key
        return self.condition(depth + 1)

    def condition(self, depth: int = 0) -> Expression:
        kind = self.random.random()
        if depth > 4 or kind < 0.45:
            sign = self.random.choice(["==", "==", "!=", "<", "<=", ">", ">="])
            sides = [
                self.expression(depth + 1),
                self.random.choice([literal(self.value(2)), self.expression(depth + 1)]),
            ]
            self.random.shuffle(sides)
            return Comparison(sign, *sides)
        if kind < 0.52:
            return self.path().isin([self.value(2) for _ in range(3)])
        if kind < 0.57:
            return self.path().startswith(self.random.choice(["", "x", "é"]))
        if kind < 0.6:
            return self.expression(depth + 1).matches("^x|y$")
        if kind < 0.65:
            return self.path().exists()
        if kind < 0.68:
            return self.path().is_type(
                *self.random.sample(["null", "boolean", "integer", "string", "array", "object"], 2)
            )
        if kind < 0.78:
            subject = self.path() if self.random.random() < 0.9 else self.expression(depth + 1)
            return Quantified(subject, self.condition(depth + 1), self.random.random() < 0.4)
        if kind < 0.9:
            return Logic(self.random.choice("&|"), self.condition(depth + 1), self.condition(depth + 1))
        return Not(self.condition(depth + 1))

    def figures(self) -> dict[str, Any]:
        """Some aggregates, several of them of the same value."""
        of = [self.expression(2) for _ in range(2)]
        made: list[Callable[[Any], Any]] = [Sum, Mean, Min, Max, Count, Collect, Stats, lambda of: TopK(2, of)]
        found = {f"f{n}": self.random.choice(made)(self.random.choice(of)) for n in range(4)}
        return {"n": Count(), "first": First(of[0], by=Doc.key), **found}


chances = st.randoms(use_true_random=False).map(Chance)


@settings(max_examples=300)
@given(chances)
def test_generated_code_and_records_mean_what_the_expression_means(chance: Chance) -> None:
    """Filters and columns, over whole documents and over records of just the fields they need."""
    where, column = chance.condition(), chance.expression()
    documents = [(f"k{n}", chance.document()) for n in range(8)]
    expected = [pair for pair in documents if where.holds(*pair)]
    values = [(column.evaluate(*pair),) for pair in expected]
    fields = Fields([*paths(where), *paths(column)])
    records = [(key, fields.decode(orjson.dumps(value))) for key, value in documents]

    assert repr(records) == repr([(key, fields.convert(value)) for key, value in documents])
    assert code.kept(where)(documents) == expected
    assert [key for key, _ in code.kept(where, fields)(records)] == [key for key, _ in expected]
    assert repr(code.rows(where, [column])(documents)) == repr(values)
    assert repr(code.rows(where, [column], fields=fields)(records)) == repr(values)


@settings(max_examples=300)
@given(chances)
def test_a_prefilter_leaves_out_no_document_for_which_the_condition_holds(chance: Chance) -> None:
    where = chance.condition()
    wanted = holding(where)

    for _ in range(10 if wanted else 0):
        document = chance.document()
        body = orjson.dumps(document)
        assert not where.holds("k", document) or all(any(text in body for text in one) for one in wanted)


def test_expressions_as_deep_as_they_may_be_can_be_compiled() -> None:
    """Python allows 200 brackets inside one another."""
    deep: Expression = F.a
    for _ in range(198):
        deep = Function("negative", deep)
    condition = F.a == 1
    for number in range(3_000):
        condition = condition | (F.b == number)
    for number in range(90):
        condition = (condition | (F.c == number)) & ~(F.d == number)
    path = F
    document: Any = 1
    for _ in range(100):
        path, document = path.a, {"a": document}

    assert code.rows(condition, [deep])([("k", {"a": 2, "b": 2_999}), ("l", {"a": 2})]) == [(2,)]
    assert code.rows(path == 1, [path])([("k", document)]) == [(1,)]
    fields = Fields([path])
    assert code.rows(path == 1, [path], fields=fields)([("k", fields.convert(document))]) == [(1,)]


def grouped(documents: list[tuple[str, Any]], where: Expression, by: list[Expression], figures: dict[str, Any]) -> Any:
    """Groups and figures by plain Python: rows by the identity of their group."""
    groups: dict[Any, tuple[list[Any], dict[str, Any]]] = {}
    for key, value in documents:
        if not where.holds(key, value):
            continue
        group = [expression.evaluate(key, value) for expression in by]
        found = groups.setdefault(
            identity(group_key(group)), (group, {name: figure.zero() for name, figure in figures.items()})
        )[1]
        for name, figure in figures.items():
            given = True if figure.of is None else figure.of.evaluate(key, value)
            if given is None or given is MISSING:
                continue
            if isinstance(figure, Sum | Mean | Stats) and (
                isinstance(given, bool) or not isinstance(given, int | float)
            ):
                continue
            found[name] = figure.add(found[name], (key, given) if isinstance(figure, First) else given)
    rows = []
    for found in sorted(groups):
        group, accumulators = groups[found]
        named = {f"g{n}": value for n, value in enumerate(group) if value is not MISSING}
        rows.append({**named, **{name: figure.finish(accumulators[name]) for name, figure in figures.items()}})
    return rows


@settings(max_examples=150)
@given(chances)
def test_groups_and_figures_are_those_of_plain_python(chance: Chance) -> None:
    documents = [(f"k{n}", chance.document()) for n in range(20)]
    where, by = chance.condition(), [chance.expression(3) for _ in range(chance.random.randint(1, 2))]
    figures = chance.figures()
    expected = grouped(documents, where, by, figures)
    named = {f"g{n}": expression for n, expression in enumerate(by)}

    rows = list(query(documents, workers=1).where(where).group_by(**named).aggregate(**figures))

    assert repr(rows) == repr(expected)


def test_floats_do_not_pile_up_while_they_are_summed() -> None:
    """They wait for a long exact sum, though not for the end: a group would else hold every number it has seen."""
    figures = [Figure(Sum(), F.x, None), Figure(Mean(), F.x, None)]
    groups = code.Grouped(code.Grouping(None, [F.g], figures, None), identity)

    for start in range(0, 60_000, 1_000):
        groups.take([(n, {"g": n % 3, "x": 0.1}) for n in range(start, start + 1_000)])

    assert sum(len(state[groups._code.floats[0]]) for state in groups._states.values()) < 10_000
    totals, means = zip(*groups.groups.values(), strict=True)
    assert [Sum().finish(total) for total in totals] == [2000.0, 2000.0, 2000.0]
    assert [Mean().finish(mean) for mean in means] == [0.1, 0.1, 0.1]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One collection of random documents, some compressed, some updated and deleted; and what is in it."""
    folder = tmp_path_factory.mktemp("paths")
    patch = pytest.MonkeyPatch()
    patch.setenv("VSTORE_STATE", str(folder / "state"))
    chance = Chance(random.Random(20_261_121))
    with vstore.open(f"sqlite:///{folder}/a.db", f"sqlite:///{folder}/b.db") as store:
        posts = store.collection("posts", codec="zlib+json")
        posts.put_many((f"k{number}", chance.document()) for number in range(1_500))
        posts.put_many(
            (f"big{number}", {**dict.fromkeys(NAMES, chance.value(1)), "z": "z" * 2_000}) for number in range(40)
        )
        posts.put_many((f"k{number}", chance.document()) for number in range(0, 300, 2))
        posts.delete_many(f"k{number}" for number in range(0, 300, 7))
        yield posts, list(posts.items())
    patch.undo()


@pytest.mark.parametrize("seed", range(12))
def test_every_way_to_read_a_store_gives_the_same_rows(stored: Any, seed: int) -> None:
    """One process and two, fields and whole documents, prefilters, compressed bodies; sorted, and in groups."""
    posts, documents = stored
    chance = Chance(random.Random(seed))
    where = chance.condition() & (F.a == "x") if seed % 3 == 0 else chance.condition()
    columns = {"key": Doc.key, "c": chance.expression()}
    by, figures = chance.expression(3), chance.figures()
    expected = [
        {name: value for name, column in columns.items() if (value := column.evaluate(*pair)) is not MISSING}
        for pair in documents
        if where.holds(*pair)
    ]
    expected.sort(key=lambda row: row["key"])

    for workers in (1, 2):
        asked = query(posts, workers=workers).where(where)
        rows = asked.select(**columns)
        assert repr(sorted(rows, key=lambda row: row["key"])) == repr(expected)
        assert repr(list(rows.order_by("key"))) == repr(expected)
        assert repr(list(rows.order_by("key").limit(7).offset(2))) == repr(expected[2:9])
        assert sorted(key for key, _ in asked) == [row["key"] for row in expected]
        assert asked.count() == len(expected)
        groups = list(asked.group_by(g0=by).aggregate(**figures))
        unordered = [name for name, figure in figures.items() if isinstance(figure, Collect)]
        plain = grouped(documents, where, [by], figures)
        for row in (*groups, *plain):
            for name in unordered:
                row[name] = sorted(map(repr, row[name]))
        assert repr(groups) == repr(plain)
