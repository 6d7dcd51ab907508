"""JSON Patch: exact round trips, refusals that say where, and the diff for people."""

from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vstore.errors import InvalidDocument
from vstore.merge import same
from vstore.patch import apply, diff, lines

SCALARS = st.none() | st.booleans() | st.sampled_from([0, 1, 2, 0.0, -0.0, 1.0, 2**53 + 1, "", "1", "x", "\u2028"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "0", "-", "c/d", "~1", ""]), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_a_diff_is_rfc_6902_operations() -> None:
    old = {"title": "Hello", "tags": ["a", "b"], "n": 1}
    new = {"title": "Hi", "tags": ["a", "c", "b"], "by": "Ann"}

    operations = diff(old, new)

    assert sorted(operations, key=lambda each: str(each["path"])) == [
        {"op": "add", "path": "/by", "value": "Ann"},
        {"op": "remove", "path": "/n"},
        {"op": "add", "path": "/tags/1", "value": "c"},
        {"op": "replace", "path": "/title", "value": "Hi"},
    ]
    assert apply(old, operations) == new


@pytest.mark.parametrize(("old", "new"), [(1, 1.0), (1, True), (0, False), (0.0, -0.0), (2**53, 2**53 + 1)])
def test_a_change_that_python_hardly_sees_is_in_the_diff(old: Any, new: Any) -> None:
    for before, after in [(old, new), ({"n": old}, {"n": new}), ([[old], old], [[new], old])]:
        assert same(apply(before, diff(before, after)), after)


def test_values_that_are_the_same_have_an_empty_diff() -> None:
    assert diff({"a": [1, 2.0], "b": None}, {"b": None, "a": [1, 2.0]}) == []


@settings(max_examples=500, deadline=None)
@given(VALUES, VALUES)
def test_applying_a_diff_gives_exactly_the_new_value_and_changes_neither(old: Any, new: Any) -> None:
    before = repr((old, new))

    assert same(apply(old, diff(old, new)), new)
    assert repr((old, new)) == before


class _Broken:
    """Stands in for a version of the library whose patch is incomplete, or does not apply."""

    def __init__(self, *operations: dict[str, Any]) -> None:
        self.patch = list(operations)


def test_what_the_library_misses_is_replaced_at_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonpatch, "make_patch", lambda old, new: _Broken())

    assert diff({"a/b": [1, {"n": 0.0}], "c": 1}, {"a/b": [1, {"n": -0.0}], "c": {}}) == [
        {"op": "replace", "path": "/a~1b/1/n", "value": -0.0},
        {"op": "replace", "path": "/c", "value": {}},
    ]


def test_a_library_patch_that_does_not_apply_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonpatch, "make_patch", lambda old, new: _Broken({"op": "remove", "path": "/none"}))

    assert diff({"a": 1}, {"a": 2}) == [{"op": "replace", "path": "/a", "value": 2}]


def test_values_at_the_nesting_limit_have_a_diff() -> None:
    old, new = 1, 1.0
    for _ in range(100):
        old, new = {"d": [old]}, {"d": [new]}  # type: ignore[assignment]

    assert diff(old, new) == [{"op": "replace", "path": "/d/0" * 100, "value": 1.0}]
    assert len(list(lines(old, new))) == 2 + 1 + 8


def test_a_patch_applies_whole_or_not_at_all() -> None:
    value = {"n": 1, "list": [1]}
    patch: list[dict[str, Any]] = [
        {"op": "replace", "path": "/n", "value": 2},
        {"op": "add", "path": "/list/-", "value": 2},
        {"op": "remove", "path": "/gone"},
    ]

    with pytest.raises(InvalidDocument, match=r"operation 2 \(remove /gone\).*Nothing was changed") as caught:
        apply(value, patch)

    assert caught.value.path == "/gone"
    assert value == {"n": 1, "list": [1]}
    assert apply(value, patch[:2]) == {"n": 2, "list": [1, 2]}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/n", "value": True},
        {"op": "grow", "path": "/n"},
        {"op": "add", "path": "/n"},
        {"op": "add", "path": "n", "value": 1},
        {"op": "add", "path": 7, "value": 1},
        {"op": "replace", "path": "/n/x", "value": 1},
        {"op": "add", "path": "/list/x", "value": 1},
        {"op": "move", "path": "/n"},
        {"path": "/n"},
        "remove",
        None,
    ],
)
def test_an_operation_that_cannot_be_applied_is_an_invalid_document(operation: Any) -> None:
    with pytest.raises(InvalidDocument, match="operation 0"):
        apply({"n": 1, "list": []}, [operation])


def test_a_patch_may_replace_the_whole_value() -> None:
    patch: list[dict[str, Any]] = [
        {"op": "replace", "path": "", "value": [1]},
        {"op": "add", "path": "/0", "value": 0},
    ]

    assert apply({"n": 1}, patch) == [0, 1]
    assert patch[0]["value"] == [1]  # the result does not share it


def test_lines_show_people_what_changed() -> None:
    assert list(lines({"b": 1, "a": "é"}, {"a": "é", "b": 1.0})) == [
        "--- old",
        "+++ new",
        "@@ -1,4 +1,4 @@",
        " {",
        '   "a": "é",',
        '-  "b": 1',
        '+  "b": 1.0',
        " }",
    ]


def test_lines_are_empty_for_the_same_value_and_whole_for_odd_characters() -> None:
    assert list(lines({"a": 1, "b": 2}, {"b": 2, "a": 1})) == []
    assert list(lines("x", "x\u2028y")) == ["--- old", "+++ new", "@@ -1 +1 @@", '-"x"', '+"x\u2028y"']
