"""The laws of reducers as tests, for your own reducers too: a subclass gives a reducer and values for it.

    class TestLongest(ReducerSuite):
        def reducer(self) -> Reducer:
            return Longest()

        def values(self) -> SearchStrategy[Any]:
            return strategies.text()

hypothesis draws the values and where to split them; pytest collects the subclass.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy

from mapreduce.accumulators import restored, stored
from mapreduce.collation import identity
from mapreduce.reducers import Adding, Reducer, folder

KEYS = st.sampled_from(["a", "b", 1, 1.0, 2.5, True, None, [1], (1,)])
# Each subclass runs the tests written here, which is what this health check warns of.
LAW = settings(max_examples=50, suppress_health_check=[HealthCheck.differing_executors])


class ReducerSuite:
    """Promises of every reducer; `same` says which results count as equal."""

    plain = True  # whether accumulators are plain data, which views need

    def reducer(self) -> Reducer:
        raise NotImplementedError

    def values(self) -> SearchStrategy[Any]:
        raise NotImplementedError

    def same(self, one: Any, other: Any) -> bool:
        return bool(one == other)

    def of(self, values: Sequence[Any]) -> Any:
        """A fresh accumulator of these values."""
        reducer = self.reducer()
        return reduce(reducer.add, values, reducer.zero())

    def finished(self, values: Sequence[Any]) -> Any:
        """What the reader gets of these values in one pass."""
        return self.reducer().finish(self.of(values))

    def drawn(self, data: DataObject, most: int = 20) -> list[Any]:
        return data.draw(st.lists(self.values(), max_size=most), label="values")

    def parts(self, data: DataObject, values: list[Any]) -> list[list[Any]]:
        """The values in order, split anywhere; some parts are empty."""
        cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=4).map(sorted), label="cuts")
        return [values[start:stop] for start, stop in pairwise([0, *cuts, len(values)])]

    @LAW
    @given(data=st.data())
    def test_merging_is_associative(self, data: DataObject) -> None:
        reducer = self.reducer()
        first, second, third = (self.drawn(data) for _ in range(3))

        left = reducer.merge(reducer.merge(self.of(first), self.of(second)), self.of(third))
        right = reducer.merge(self.of(first), reducer.merge(self.of(second), self.of(third)))

        assert self.same(reducer.finish(left), reducer.finish(right))

    @LAW
    @given(data=st.data())
    def test_zero_is_neutral_on_either_side(self, data: DataObject) -> None:
        reducer, values = self.reducer(), self.drawn(data)

        assert self.same(reducer.finish(reducer.merge(reducer.zero(), self.of(values))), self.finished(values))
        assert self.same(reducer.finish(reducer.merge(self.of(values), reducer.zero())), self.finished(values))

    @LAW
    @given(data=st.data())
    def test_any_split_gives_what_one_pass_gives(self, data: DataObject) -> None:
        """Parts are merged with a neighbour, in any order, until one is left."""
        reducer, values = self.reducer(), self.drawn(data, most=60)

        accumulators = [self.of(part) for part in self.parts(data, values)]
        while len(accumulators) > 1:
            place = data.draw(st.integers(0, len(accumulators) - 2), label="merged")
            accumulators[place : place + 2] = [reducer.merge(*accumulators[place : place + 2])]

        assert self.same(reducer.finish(accumulators[0]), self.finished(values))

    @LAW
    @given(data=st.data())
    def test_a_split_goes_on_where_it_was_merged(self, data: DataObject) -> None:
        """`add` after `merge`, as in a view whose run of rows grows."""
        reducer = self.reducer()
        first, second, third = (self.drawn(data) for _ in range(3))

        acc = reduce(reducer.add, third, reducer.merge(self.of(first), self.of(second)))

        assert self.same(reducer.finish(acc), self.finished([*first, *second, *third]))

    @LAW
    @given(data=st.data())
    def test_its_folder_does_what_add_does(self, data: DataObject) -> None:
        """However the pairs are handed over, and whatever was asked of it in between."""
        reducer = self.reducer()
        pairs = data.draw(st.lists(st.tuples(KEYS, self.values()), max_size=40), label="pairs")
        plain, own = Adding(reducer, identity), folder(reducer, identity)

        plain.take(pairs)
        for part in self.parts(data, pairs):
            assert own.take(iter(part)) == len(part)
            assert len(own) == len(own.groups)

        assert [repr(key) for key in own.groups] == [repr(key) for key in plain.groups]  # the form 1 or 1.0 is kept
        for key, acc in plain.groups.items():
            assert self.same(reducer.finish(own.groups[key]), reducer.finish(acc))

    @LAW
    @given(data=st.data())
    def test_finishing_changes_nothing(self, data: DataObject) -> None:
        reducer = self.reducer()
        first, second = self.drawn(data), self.drawn(data)
        acc = self.of(first)

        assert self.same(reducer.finish(acc), reducer.finish(acc))
        assert self.same(reducer.finish(reduce(reducer.add, second, acc)), self.finished([*first, *second]))

    @LAW
    @given(data=st.data())
    def test_accumulators_travel_and_are_kept(self, data: DataObject) -> None:
        """To another process by pickle, to the database of a view as plain data; there they go on."""
        reducer = self.reducer()
        first, second = self.drawn(data), self.drawn(data)

        def travelled(acc: Any) -> Any:
            acc = pickle.loads(pickle.dumps(acc, protocol=5))
            return restored(stored(acc)) if self.plain else acc

        acc = reducer.merge(travelled(self.of(first)), travelled(self.of(second)))

        assert self.same(reducer.finish(travelled(acc)), self.finished([*first, *second]))
