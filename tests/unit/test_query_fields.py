"""F and Doc: what can be written, what it says, and what is refused."""

from __future__ import annotations

import copy
import pickle
from datetime import date
from typing import Any

import pytest

from mapreduce.query.fields import Doc, Expression, F, Literal, Path, about, operand, path, paths, steps
from vstore.errors import ConfigurationError

EXPRESSIONS = [
    (F.a.b, "F.a.b"),
    (F["strange name"].items[0][-1], "F['strange name'].items[0][-1]"),
    (F["length"]["_id"], "F['length']['_id']"),
    (F.tags[:].name, "F.tags[:].name"),
    (F, "F"),
    (F.a == 1, "F.a == 1"),
    (1 < F.a, "F.a > 1"),  # noqa: SIM300  # Python turns it round
    (F.a.between(1, 2), "(F.a >= 1) & (F.a <= 2)"),
    (F.a.isin([1, "x"]), "F.a.isin([1, 'x'])"),
    (F.a.startswith("x"), "F.a.startswith('x')"),
    (F.a.matches("^x"), "F.a.matches('^x')"),
    (F.a.exists(), "F.a.exists()"),
    (F.a.is_null(), "F.a.is_null()"),
    (F.a.is_type("string", "null"), "F.a.is_type('string', 'null')"),
    (F.a.any(F.b > 3), "F.a.any(F.b > 3)"),
    (F.a.any() == "x", "F.a.any(F == 'x')"),
    (F.a.all() <= 3, "F.a.all(F <= 3)"),
    (F.a.any().startswith("x"), "F.a.any(F.startswith('x'))"),
    ((F.a == 1) & (F.b == 2) | ~F.c, "(F.a == 1) & (F.b == 2) | ~F.c"),
    ((F.a == 1) & ((F.b == 2) | ~(F.c == 3)), "(F.a == 1) & ((F.b == 2) | ~(F.c == 3))"),
    ((F.a + 1) * 2 - -F.b // 3, "(F.a + 1) * 2 - -F.b // 3"),
    (10 - (F.a - 1), "10 - (F.a - 1)"),
    ((F.a + F.b).length(), "(F.a + F.b).length()"),
    (F.a.lower() != "x", "F.a.lower() != 'x'"),
    (Doc.key == "x", "Doc.key == 'x'"),
]


@pytest.mark.parametrize(("expression", "text"), EXPRESSIONS, ids=[text for _, text in EXPRESSIONS])
def test_an_expression_says_how_it_is_written(expression: Expression, text: str) -> None:
    """The text, read as Python, makes the same expression; so do a pickle and a copy."""
    assert repr(expression) == text
    assert repr(eval(text, {"F": F, "Doc": Doc})) == text
    assert repr(pickle.loads(pickle.dumps(expression))) == text
    assert repr(copy.deepcopy(expression)) == text


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a", F.a),
        ("a.b", F.a.b),
        ("a[0].b[-1]", F.a[0].b[-1]),
        ("tags[*]", F.tags[:]),
        ("a[*][*].b", F.a[:][:].b),
        ('a["strange name"]', F.a["strange name"]),
        ('"x.y"."q\\"r"', F["x.y"]['q"r']),
        ("installed-size", F["installed-size"]),
        ("strange name", F["strange name"]),
        ("[0].a", F[0].a),
    ],
)
def test_a_path_is_read_from_text_and_written_as_text(text: str, steps: Path) -> None:
    """What `str` writes, `path` reads."""
    assert repr(path(text)) == repr(steps)
    assert repr(path(str(steps))) == repr(steps)


@pytest.mark.parametrize("text", ["", "a..b", ".a", "a.", "a[", "a[x]", "a]b", '"a', "a[0]b", "a[1.5]", 7])
def test_a_text_that_is_no_path_is_refused(text: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no path"):
        path(text)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: bool(F.a == 1),
        lambda: F.a == 1 and F.b == 2,
        lambda: 1 < F.a < 3,
        lambda: not F.a,
        lambda: "x" in F.tags,
        lambda: list(F.tags),
        lambda: bool(F.tags.any()),
    ],
    ids=["bool", "and", "chain", "not", "in", "iteration", "any alone"],
)
def test_what_python_cannot_pass_on_to_an_expression_raises(misuse: Any) -> None:
    """`and` would silently drop the first condition, and iterating over a path would never end."""
    with pytest.raises(TypeError, match="&|any|iterated|comparison"):
        misuse()


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: F.a == date(2026, 1, 1),
        lambda: F.a == {1: 2},
        lambda: F.a == float("nan"),
        lambda: F.a.isin("abc"),
        lambda: F.a.is_type("text"),
        lambda: F.a.is_type(),
        lambda: F.a.startswith(3),  # type: ignore[arg-type]
        lambda: F.a.matches("("),
        lambda: F.a[1:2],
        lambda: F[1.5],  # type: ignore[index]
        lambda: F.a & F.b.any(),
    ],
)
def test_what_no_document_can_hold_is_refused_when_it_is_written(misuse: Any) -> None:
    with pytest.raises(ConfigurationError):
        misuse()


def test_fields_with_an_underscore_are_named_with_brackets() -> None:
    """Python and its tools ask objects for many such names, and would get a path."""
    with pytest.raises(AttributeError, match="write F\\['_id'\\]"):
        F._id  # noqa: B018

    assert repr(F["_id"]) == "F['_id']"


def test_an_expression_tells_what_it_looks_at() -> None:
    """Paths inside `any` begin at the elements; of an array alone, all elements are looked at."""
    expression = (F.a.b == F.c) & F.lines.any((F.n > 3) & (Doc.rev == "x")) | F.tags.any(Doc.key == "k")

    assert list(map(str, paths(expression))) == ["a.b", "c", "lines[*].n", "tags[*]"]
    assert about(expression) == {"key", "rev"}


def test_a_literal_is_an_operand_as_it_is() -> None:
    """A tuple is the array that JSON would make of it."""
    found = operand((1, 2))

    assert isinstance(found, Literal)
    assert found.value == [1, 2]
    assert operand(F) is F


def test_a_condition_may_join_thousands_and_not_be_nested_without_end() -> None:
    """What a program writes in a loop, `a | b | c | ...`, is one level; Python's stack bounds what is really nested."""
    long = F.a == 0
    for number in range(3_000):
        long = long | (F.a == number)
    deep: Expression = F.a
    for _ in range(198):
        deep = -deep
    nested = F.a == 0
    for number in range(99):
        nested = (nested | (F.b == number)) & (F.c == number)

    assert long.holds("k", {"a": 2_999})
    assert not long.holds("k", {"a": 3_000})
    assert repr(long).count(" | ") == 3_000
    for expression in (long, deep, nested):
        assert repr(pickle.loads(pickle.dumps(expression))) == repr(expression)
        assert paths(expression)
        assert about(expression) == set()
    with pytest.raises(ConfigurationError, match="200 levels"):
        for _ in range(3):
            deep = -deep
    with pytest.raises(ConfigurationError, match="200 levels"):
        for _ in range(2):
            nested = (nested | (F.b == 1)) & (F.c == 1)


def test_a_path_has_an_end() -> None:
    path = F
    for _ in range(100):
        path = path.a

    with pytest.raises(ConfigurationError, match="100 steps"):
        path.a  # noqa: B018
    within: Expression = F == 1
    for _ in range(150):
        within = F.a.any(within)
    assert [len(steps(path)) for path in paths(within)] == [100]  # what it leads to has the rest
