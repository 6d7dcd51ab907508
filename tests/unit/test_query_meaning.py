"""What expressions mean: one line of the table in `mapreduce.query.meaning` after the other."""

from __future__ import annotations

import pickle
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.collation import sort_key
from mapreduce.query.fields import Doc, Expression, F
from mapreduce.query.meaning import MISSING, compared
from vstore.document import Context, Document

DOCUMENT = {
    "n": 3,
    "one": 1,
    "real": 1.0,
    "big": 2**53 + 1,
    "yes": True,
    "no": False,
    "null": None,
    "text": "Überall",
    "tags": ["a", "b"],
    "none": [],
    "lines": [{"n": 1, "sub": [{"x": 1}, {"x": 2}]}, {"n": 5, "sub": [{"x": 3}]}, {"m": 0}, 7],
    "inner": {"a": {"b": 1}, "list": [[1, 2], [3]]},
    "odd": date(2026, 1, 1),
    "huge": 10**400,
}

VALUES: list[tuple[Expression, Any]] = [
    (F.n, 3),
    (F.inner.a.b, 1),
    (F.inner.a.c, MISSING),
    (F.n.a, MISSING),
    (F.absent.a.b, MISSING),
    (F.null, None),
    (F.null.a, MISSING),
    (F.tags[0], "a"),
    (F.tags[-1], "b"),
    (F.tags[2], MISSING),
    (F.tags[-3], MISSING),
    (F.text[0], MISSING),
    (F.tags[:], ["a", "b"]),
    (F.none[:], []),
    (F.n[:], MISSING),
    (F.lines[:].n, [1, 5]),
    (F.lines[:].sub[:].x, [1, 2, 3]),
    (F.lines[:].sub, [[{"x": 1}, {"x": 2}], [{"x": 3}]]),
    (F.inner.list[:][:], [1, 2, 3]),
    (F.inner.list[:][0], [1, 3]),
    (Doc.key, "k"),
    (Doc.rev, MISSING),
    (F.n + 1, 4),
    (F.n - 1.5, 1.5),
    (2 * F.n, 6),
    (F.n / 2, 1.5),
    (F.n // 2, 1),
    (F.n % 2, 1),
    (-F.n, -3),
    (F.text + "!", "Überall!"),
    (F.n / 0, MISSING),
    (F.n % 0, MISSING),
    (F.n // 0, MISSING),
    (F.n + F.yes, MISSING),
    (F.n + F.null, MISSING),
    (F.n + F.absent, MISSING),
    (F.text * 2, MISSING),
    (F.tags + F.tags, MISSING),
    (-F.text, MISSING),
    (-F.yes, MISSING),
    (F.huge + 0.5, MISSING),
    (F.huge / 3, MISSING),
    (F.real * 1e308 * 10, MISSING),
    (F.text.lower(), "überall"),
    (F.n.lower(), MISSING),
    (F.text.length(), 7),
    (F.lines.length(), 4),
    (F.inner.length(), 2),
    (F.n.length(), MISSING),
    (F.n > 2, True),
]


@pytest.mark.parametrize(("expression", "value"), VALUES, ids=[repr(expression) for expression, _ in VALUES])
def test_a_value(expression: Expression, value: Any) -> None:
    found = expression.evaluate("k", DOCUMENT)

    assert (type(found), found) == (type(value), value)


HOLD: list[Expression] = [
    F.n == 3,
    F.one == F.real,
    F.one == 1.0,
    F.big > 2.0**53,  # a float could not tell them apart
    F.n != 4,
    F.n != "3",
    F.null == None,  # noqa: E711
    F.null != 0,
    F.tags == ["a", "b"],
    F.inner.a == {"b": 1.0},
    # across types: null < false < true < numbers < strings < arrays < objects
    F.null < F.no,
    F.no < F.yes,
    F.yes < F.n,
    F.n < F.text,
    F.text < F.tags,
    F.tags < F.inner,
    F.null <= None,
    F.n.between(3, 3),
    F.n.isin(["x", 3.0]),
    F.null.isin([None]),
    F.text.startswith("Über"),
    F.text.matches("all$"),
    F.text.matches("(?i)ÜBER"),
    F.null.exists(),
    F.null.is_null(),
    F.n.is_type("integer"),
    F.n.is_type("number"),
    F.real.is_type("number"),
    F.yes.is_type("boolean", "null"),
    F.tags.is_type("array"),
    F.inner.is_type("object"),
    F.odd.exists(),
    F.odd != 3,
    F.tags.any() == "b",
    F.tags.all() < "c",
    F.none.all(F.x == 1),
    F.lines.any(F.n > 4),
    F.lines[:].sub[:].any(F.x == 3),
    F.lines[:].n.all() > 0,
    F.lines.any(F.sub.any(F.x == 3) & (Doc.key == "k")),
    F.yes,
    ~F.no,
    ~F.n,  # what is not true
    ~(F.absent == 3),
    (F.n == 3) & F.yes,
    (F.n == 4) | F.yes,
]

HOLD_NOT: list[Expression] = [
    F.yes == 1,
    F.no == 0,
    F.one == F.yes,
    F.null == F.absent,
    F.absent == None,  # noqa: E711
    F.absent != 3,
    F.absent < 3,
    F.absent >= 3,
    F.n != 3.0,
    F.big == 2.0**53,
    F.absent.exists(),
    F.absent.is_null(),
    F.n.is_null(),
    F.real.is_type("integer"),
    F.yes.is_type("number"),
    F.odd.is_type("string", "object"),
    F.odd == F.odd,
    F.odd < 3,
    F.n.startswith("3"),
    F.n.matches("3"),
    F.absent.isin([None]),
    F.none.any(F.exists()),
    F.n.any(F == 3),
    F.n.all(F == 3),
    F.tags.any(F == "c"),
    F.n,  # a number is no condition that holds
    F.text,
    F.n & F.yes,
    F.n | F.text,
]


@pytest.mark.parametrize("condition", HOLD, ids=repr)
def test_a_condition_that_holds(condition: Expression) -> None:
    assert condition.holds("k", DOCUMENT)


@pytest.mark.parametrize("condition", HOLD_NOT, ids=repr)
def test_a_condition_that_does_not_hold(condition: Expression) -> None:
    assert not condition.holds("k", DOCUMENT)


def test_missing_is_itself_in_every_process() -> None:
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert not MISSING
    assert MISSING is not None
    assert repr(MISSING) == "MISSING"


def test_a_version_has_a_rev_and_a_stamp_and_a_tombstone_no_value() -> None:
    """History scans give Documents instead of plain values."""
    written = _document({"n": 1}, stamp=5, deleted=False)
    deleted = _document(None, stamp=6, deleted=True)

    assert ((F.n == 1) & (Doc.stamp == 5) & (Doc.rev == "1-a") & ~Doc.deleted).holds("k", written)
    assert (Doc.deleted & ~F.exists() & (Doc.key == "k")).holds("k", deleted)


def _document(value: Any, stamp: int, deleted: bool) -> Document:
    return Document(key="k", value=value, rev="1-a", parents=(), deleted=deleted, stamp=stamp, context=Context("k"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON)
def test_comparisons_follow_the_collation(a: Any, b: Any) -> None:
    """The same order as map keys and view keys have."""
    one, other = sort_key(a), sort_key(b)

    assert compared(a, b) == (one > other) - (one < other)
    assert compared(a, a) == 0
