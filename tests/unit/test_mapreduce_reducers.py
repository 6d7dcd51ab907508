"""Reducers are monoids, and sums are exact."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.collation import identity
from mapreduce.reducers import FLOATS_KEPT, Collect, Count, Reducer, Sum, expansion, fold

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(st.integers() | FLOATS | st.booleans(), max_size=30)


def accumulated(reducer: Reducer, values: list[Any]) -> Any:
    return reduce(reducer.add, values, reducer.zero())


@given(NUMBERS, NUMBERS, NUMBERS)
@pytest.mark.parametrize("reducer", [Sum(), Count(), Collect()])
def test_merging_parts_in_any_grouping_equals_adding_everything(
    reducer: Reducer, first: list[Any], second: list[Any], third: list[Any]
) -> None:
    def part(values: list[Any]) -> Any:
        return accumulated(reducer, values)

    whole = part(first + second + third)

    assert reducer.merge(reducer.merge(part(first), part(second)), part(third)) == whole
    assert reducer.merge(part(first), reducer.merge(part(second), part(third))) == whole
    assert reducer.merge(reducer.zero(), part(first)) == part(first)
    assert reducer.merge(part(first), reducer.zero()) == part(first)


@given(st.lists(st.tuples(st.sampled_from(["a", 1, 1.0, 2]), st.integers() | FLOATS), max_size=40))
@pytest.mark.parametrize("reducer", [Sum(), Count(), Collect()])
def test_the_reducers_own_loop_equals_adding_pair_by_pair(reducer: Reducer, pairs: list[tuple[Any, Any]]) -> None:
    expected: dict[Any, Any] = {}
    for key, value in pairs:
        expected[key] = reducer.add(expected[key] if key in expected else reducer.zero(), value)

    groups, count = fold(reducer, pairs, identity)

    assert groups == expected
    assert [repr(key) for key in groups] == [repr(key) for key in expected]  # the form of the first pair is kept
    assert count == len(pairs)


@given(NUMBERS)
def test_a_sum_is_the_true_sum_rounded_once(values: list[float]) -> None:
    exact = sum(map(Fraction, values), Fraction())
    total = Sum().finish(accumulated(Sum(), values))

    if not any(isinstance(value, float) for value in values):
        assert total == exact
        assert type(total) is int
    else:
        try:
            assert total == float(exact)
        except OverflowError:
            assert total == (math.inf if exact > 0 else -math.inf)
        assert type(total) is float


def test_many_floats_of_one_key_stay_few_and_exact() -> None:
    pairs = [("k", 0.1)] * (3 * FLOATS_KEPT) + [("k", 1e300), ("k", -1e300)]

    groups, _ = fold(Sum(), pairs, identity)

    assert len(groups["k"][1]) <= 3
    assert Sum().finish(groups["k"]) == math.fsum([0.1] * (3 * FLOATS_KEPT))


def test_a_sum_may_leave_the_range_of_floats_in_between() -> None:
    assert Sum().finish(accumulated(Sum(), [1.5e308, 1.5e308, -1.5e308])) == 1.5e308
    assert Sum().finish(accumulated(Sum(), [1.5e308, 1.5e308])) == math.inf
    assert Sum().finish(accumulated(Sum(), [-1.5e308, -1.5e308, 1])) == -math.inf
    assert Sum().finish(accumulated(Sum(), [10**400, 0.5])) == math.inf


def test_infinities_and_nan_add_as_floats_do() -> None:
    inf, nan = math.inf, math.nan

    assert Sum().finish(accumulated(Sum(), [inf, 1, 2.5])) == inf
    assert math.isnan(Sum().finish(accumulated(Sum(), [inf, -inf])))
    assert math.isnan(Sum().finish(accumulated(Sum(), [inf, nan, 1.0])))
    assert math.isnan(Sum().finish(Sum().merge(accumulated(Sum(), [nan]), accumulated(Sum(), [1.0, 1e308, 1e308]))))


@given(st.lists(FLOATS, max_size=20), st.randoms(use_true_random=False))
def test_an_expansion_depends_on_the_sum_alone(floats: list[float], random: Any) -> None:
    shuffled = floats[:]
    random.shuffle(shuffled)

    assert expansion(floats) == expansion(shuffled) == expansion(list(expansion(floats)))
    assert sum(map(Fraction, expansion(floats)), Fraction()) == sum(map(Fraction, floats), Fraction())


@pytest.mark.parametrize("value", ["1", None, [1], 1j])
def test_a_sum_refuses_what_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match=r"Sum\(\) adds int and float"):
        fold(Sum(), [("k", value)], identity)
    with pytest.raises(TypeError, match=r"Sum\(\) adds int and float"):
        Sum().add(0, value)
