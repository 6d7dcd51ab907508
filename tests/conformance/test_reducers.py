"""Every reducer keeps the laws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mapreduce.reducers import Reducer, distinct, quantiles
from mapreduce.reducers.collect import Collect
from mapreduce.reducers.distinct import Distinct
from mapreduce.reducers.extremes import First, Last, Max, Min, TopK
from mapreduce.reducers.quantiles import Quantiles
from mapreduce.reducers.sums import Count, Mean, Stats, Sum
from mapreduce.reducers.testing import ReducerSuite

FINITE = st.integers(-3, 3) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
FEW = st.sampled_from([0, 0.0, -0.0, 1, 1.0, True, 2**60, float(2**60), "", "a", None, [1], (1,), [1.0], {}])
JSON = FEW | st.recursive(
    st.none() | FINITE | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module", autouse=True)
def _sketches_at_once() -> Iterator[None]:
    """Few values wait before they go into a sketch, so that short lists meet both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "WAITING", 3)
        patch.setattr(quantiles, "WAITING", 3)
        yield


class Laws(ReducerSuite):
    """With results that are alike to the last bit and in form."""

    def values(self) -> SearchStrategy[Any]:
        return JSON

    def same(self, one: Any, other: Any) -> bool:
        return repr(one) == repr(other)


class TestCount(Laws):
    def reducer(self) -> Reducer:
        return Count()


class TestCollect(Laws):
    def reducer(self) -> Reducer:
        return Collect()


class TestSum(Laws):
    def reducer(self) -> Reducer:
        return Sum()

    def values(self) -> SearchStrategy[Any]:
        return FINITE | st.floats()


class TestMean(Laws):
    def reducer(self) -> Reducer:
        return Mean()

    def values(self) -> SearchStrategy[Any]:
        return FINITE | st.floats()


class TestStats(Laws):
    def reducer(self) -> Reducer:
        return Stats()

    def values(self) -> SearchStrategy[Any]:
        return FINITE


class TestMin(Laws):
    def reducer(self) -> Reducer:
        return Min()


class TestMax(Laws):
    def reducer(self) -> Reducer:
        return Max()


class TestTopK(Laws):
    def reducer(self) -> Reducer:
        return TopK(3)


class TestFirst(Laws):
    def reducer(self) -> Reducer:
        return First()

    def values(self) -> SearchStrategy[Any]:
        return st.tuples(st.integers(0, 3) | FEW, JSON)


class TestLast(TestFirst):
    def reducer(self) -> Reducer:
        return Last()


class TestDistinct(Laws):
    def reducer(self) -> Reducer:
        return Distinct()


class TestDistinctByEstimate(Laws):
    def reducer(self) -> Reducer:
        return Distinct(exact=False)


class TestQuantiles(Laws):
    """With fewer numbers than `k`, where the results are exact."""

    def reducer(self) -> Reducer:
        return Quantiles((0, 0.1, 0.5, 0.9, 1))

    def values(self) -> SearchStrategy[Any]:
        return st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False)
