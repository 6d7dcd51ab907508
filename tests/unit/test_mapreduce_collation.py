"""The order and the sameness of map keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.collation import identity, sort_key

KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


def test_types_sort_in_one_fixed_order() -> None:
    ascending: list[Any] = [
        *(None, False, True),
        *(-(10**30), -1.5, 0, 0.5, 1, 2**53, 2**53 + 1, 1e300),
        *("", "A", "a", "aa", "b", "é", "\U0001f600"),
        *([], [None], [1], [1, 0], [2], ["a"], [[]]),
        *({}, {"a": 1}, {"a": 1, "b": 0}, {"a": 2}, {"b": 0}),
    ]

    shuffled = ascending[::-1]

    assert sorted(shuffled, key=sort_key) == ascending


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, True, False),
        (0, False, False),
        ([1], [True], False),
        ({"a": 0}, {"a": False}, False),
        (1, 1.0, True),
        ([1], (1.0,), True),
        (0.0, -0.0, True),
        (2**53, 2**53 + 1, False),
        (float(2**53), 2**53 + 1, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (None, "null", False),
        ((5,), [5], True),
    ],
)
def test_what_is_one_group_and_what_is_two(one: Any, other: Any, same: bool) -> None:
    assert (identity(one) == identity(other)) is same
    assert (sort_key(one) == sort_key(other)) is same


@given(KEYS, KEYS)
def test_identities_are_equal_exactly_if_neither_key_sorts_first(one: Any, other: Any) -> None:
    same = not (sort_key(one) < sort_key(other) or sort_key(other) < sort_key(one))

    assert (identity(one) == identity(other)) is same
    if same:
        assert hash(identity(one)) == hash(identity(other))


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ([float("-inf")], ValueError),
        (b"bytes", TypeError),
        ({1: "a"}, TypeError),
        ({"set"}, TypeError),
    ],
)
def test_a_key_that_is_no_json_value_is_refused(key: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        identity(key)
