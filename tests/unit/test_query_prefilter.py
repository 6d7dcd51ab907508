"""The keys, and the bytes of a body, that are necessary for a condition to hold."""

from __future__ import annotations

import pytest

from mapreduce.query.fields import Doc, Expression, F
from mapreduce.query.prefilter import Holding, holding, keys
from vstore.ranges import KeyRange


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (F.a == "x", ((b'"x"',),)),
        ("x" == F.a.b[0], ((b'"x"',),)),  # noqa: SIM300
        (F.a == 'é"\n', ((b'"\xc3\xa9\\"\\n"',),)),
        (F.a.startswith('é"'), ((b'"\xc3\xa9\\"',),)),
        (F.a.isin(["x", "y"]), ((b'"x"', b'"y"'),)),
        (F.tags.any() == "x", ((b'"x"',),)),
        (F.lines.any((F.item == "x") & (F.n > 3)), ((b'"x"',),)),
        (F.a.b.exists(), ((b'"a":',), (b'"b":',))),
        ((F.a == "x") & (F.b == "longer") & (F.n > 3), ((b'"longer"',), (b'"x"',))),
        ((F.a == "x") | (F.b == "y"), ((b'"x"', b'"y"'),)),
        ((F.a == "x") & ((F.b == "y") | (F.c == "z")), ((b'"x"',), (b'"y"', b'"z"'))),
        # nothing certain
        (~(F.a == "x"), ()),
        (F.a != "x", ()),
        (F.a > "x", ()),
        (F.a == 3, ()),
        (F.a == None, ()),  # noqa: E711
        (F.a.isin(["x", 3]), ()),
        (F.a.isin([]), ()),
        (F.a.startswith(""), ()),
        (F.a == "\ud800", ()),
        ((F.a == "x") | (F.n > 3), ()),
        (F.tags.all() == "x", ()),
        (F.tags[:] == "x", ()),
        (F.tags[:].exists(), ()),
        (F.a.lower() == "x", ()),
        (Doc.key == "x", ()),
        (F.a.matches("x"), ()),
        (F.a.isin([f"value {n}" for n in range(100)]), ()),
    ],
    ids=lambda value: repr(value) if isinstance(value, Expression) else "",
)
def test_the_strings_of_a_condition_are_in_the_body(condition: Expression, found: Holding) -> None:
    """Only what every matching body has, in any of its places."""
    assert holding(condition) == found


def test_no_condition_asks_for_nothing() -> None:
    assert holding(None) == ()


@pytest.mark.parametrize(
    ("condition", "low", "high"),
    [
        (Doc.key == "b", "b", "b\x01"),
        ("b" <= Doc.key, "b", None),  # noqa: SIM300
        ((Doc.key >= "b") & (Doc.key < "d") & (F.n > 3), "b", "d"),
        (Doc.key.between("b", "d"), "b", "d\x01"),
        (Doc.key.startswith("app/"), "app/", "app0"),
        (Doc.key.isin(["c", "a", 7]), "a", "c\x01"),
        ((Doc.key == "d") | (Doc.key == "b"), "b", "d\x01"),
        # nothing certain
        ((Doc.key == "d") | (F.n > 3), "", None),
        (~(Doc.key == "d"), "", None),
        (Doc.key != "d", "", None),
        (Doc.key > 3, "", None),
        (Doc.key.lower() == "d", "", None),
        (F.tags.any(Doc.key == "d"), "", None),
        (Doc.key == "\ud800", "", None),
        (Doc.key.startswith("\ud800"), "", None),
    ],
    ids=lambda value: repr(value) if isinstance(value, Expression) else "",
)
def test_the_keys_of_a_condition_are_in_a_range(condition: Expression, low: str, high: str | None) -> None:
    """Only as much as is certain of every matching document; a range holds its low end and not its high one."""
    assert keys(condition) == (KeyRange(low) if high is None else KeyRange(low, high))
