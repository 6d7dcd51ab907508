"""What each reducer makes of values. That all of them keep the laws of monoids: tests/conformance/test_reducers.py."""

from __future__ import annotations

import importlib.util
import math
import pickle
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import reduce
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.accumulators import restored, stored
from mapreduce.collation import identity
from mapreduce.reducers import Adding, Reducer, folder
from mapreduce.reducers.collect import Collect
from mapreduce.reducers.distinct import Distinct
from mapreduce.reducers.exact import expansion
from mapreduce.reducers.extremes import First, Last, Max, Min, TopK
from mapreduce.reducers.names import KNOWN, reducer_named
from mapreduce.reducers.quantiles import Quantiles
from mapreduce.reducers.sums import FLOATS_FOLDED, FLOATS_KEPT, Count, Mean, Stats, Sum, Summary, Summing
from vstore.errors import ConfigurationError

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(st.integers() | FLOATS | st.booleans(), max_size=30)
INF, NAN = math.inf, math.nan


def accumulated(reducer: Reducer, values: Sequence[Any]) -> Any:
    return reduce(reducer.add, values, reducer.zero())


def finished(reducer: Reducer, values: Sequence[Any]) -> Any:
    return reducer.finish(accumulated(reducer, values))


def split_at_random(reducer: Reducer, values: Sequence[Any], chance: random.Random) -> Any:
    """The accumulator of the values in any order, cut into parts that are merged in any grouping."""
    shuffled = [*values]
    chance.shuffle(shuffled)
    cuts = [0, *sorted(chance.randrange(len(shuffled) + 1) for _ in range(chance.randrange(6))), len(shuffled)]
    parts = [accumulated(reducer, shuffled[a:b]) for a, b in pairwise(cuts)]
    while len(parts) > 1:
        place = chance.randrange(len(parts) - 1)
        parts[place : place + 2] = [reducer.merge(parts[place], restored(stored(parts[place + 1])))]
    return parts[0]


# -- folders


def test_a_folder_takes_pairs_many_times() -> None:
    """Each time it says how many pairs there were; its groups are all of them."""
    counting = folder(Count(), identity)

    assert counting.take(iter([("a", 0), ("b", 0)])) == 2
    assert counting.groups == {"a": 1, "b": 1}
    assert counting.take([("a", 0), (1, 0), (1.0, 0)]) == 3

    assert counting.groups == {"a": 2, "b": 1, 1: 2}
    assert len(counting) == 3


@pytest.mark.parametrize("reducer", [Sum(), Count(), Collect(), Mean()])
def test_a_folder_keeps_what_came_before_an_error(reducer: Reducer) -> None:
    """The source of pairs fails in the middle; the pairs before it count once, and more can follow."""

    def failing() -> Any:
        yield "a", 1
        yield "b", 2.5
        raise ZeroDivisionError

    folding = folder(reducer, identity)
    with pytest.raises(ZeroDivisionError):
        folding.take(failing())
    folding.take([("a", 4)])

    assert {key: reducer.finish(acc) for key, acc in folding.groups.items()} == {
        "a": finished(reducer, [1, 4]),
        "b": finished(reducer, [2.5]),
    }


def test_a_refused_value_makes_no_group() -> None:
    for folding in (folder(Sum(), identity), Adding(Sum(), identity)):
        with pytest.raises(TypeError):
            folding.take([("a", 1), ("b", "text")])

        assert folding.groups == {"a": 1}


def test_a_key_that_is_neither_text_nor_int_is_identified() -> None:
    asked = []

    def identify(key: Any) -> Any:
        asked.append(key)
        return identity(key)

    for reducer in (Sum(), Count(), Collect(), Max()):
        folding = folder(reducer, identify)
        folding.take([("a", 1), (1, 1), (None, 1), ((2,), 1), (True, 1)])

        assert list(folding.groups) == ["a", 1, (0,), (5, (3, 2)), (2,)]
    assert asked == [None, (2,), True] * 4


def test_collected_values_may_be_changed_by_who_reads_them() -> None:
    acc = accumulated(Collect(), [3, 1])

    Collect().finish(acc).clear()

    assert Collect().finish(acc) == [3, 1]


# -- sums


@given(NUMBERS)
def test_a_sum_is_the_true_sum_rounded_once(values: list[float]) -> None:
    exact = sum(map(Fraction, values), Fraction())
    total = finished(Sum(), values)

    if not any(isinstance(value, float) for value in values):
        assert total == exact
        assert type(total) is int
    else:
        assert total == nearest(exact)
        assert type(total) is float


def nearest(exact: Fraction) -> float:
    try:
        return float(exact)
    except OverflowError:
        return INF if exact > 0 else -INF


def test_many_floats_of_one_key_stay_few_and_exact() -> None:
    values = [0.1] * (3 * FLOATS_FOLDED) + [1e300, -1e300]
    expected = math.fsum([0.1] * (3 * FLOATS_FOLDED))
    folding = Summing(identity)

    folding.take(("k", value) for value in values)

    assert len(folding._floats["k"]) < FLOATS_FOLDED
    assert len(folding.groups["k"][1]) <= 3
    assert Sum().finish(folding.groups["k"]) == expected
    assert len(accumulated(Sum(), values)[1]) <= FLOATS_KEPT + 1
    assert finished(Sum(), values) == expected
    assert len(accumulated(Mean(), values)[2]) <= FLOATS_KEPT + 1
    assert finished(Mean(), values) == float(sum(map(Fraction, values)) / len(values))


def test_a_sum_may_leave_the_range_of_floats_in_between() -> None:
    assert finished(Sum(), [1.5e308, 1.5e308, -1.5e308]) == 1.5e308
    assert finished(Sum(), [1.5e308, 1.5e308]) == INF
    assert finished(Sum(), [-1.5e308, -1.5e308, 1]) == -INF
    assert finished(Sum(), [10**400, 0.5]) == INF


def test_infinities_and_nan_add_as_floats_do() -> None:
    for reducer in (Sum(), Mean()):
        assert finished(reducer, [INF, 1, 2.5]) == INF
        assert finished(reducer, [1.5e308, 1.5e308, -INF]) == -INF
        assert math.isnan(finished(reducer, [INF, -INF]))
        assert math.isnan(finished(reducer, [INF, NAN, 1.0]))
        assert math.isnan(
            reducer.finish(reducer.merge(accumulated(reducer, [NAN]), accumulated(reducer, [1.0, 1e308, 1e308])))
        )


@given(st.lists(FLOATS, max_size=20), st.randoms(use_true_random=False))
def test_an_expansion_depends_on_the_sum_alone(floats: list[float], random: Any) -> None:
    shuffled = floats[:]
    random.shuffle(shuffled)

    assert expansion(floats) == expansion(shuffled) == expansion(list(expansion(floats)))
    assert sum(map(Fraction, expansion(floats)), Fraction()) == sum(map(Fraction, floats), Fraction())


@given(NUMBERS)
def test_a_mean_is_the_true_mean_rounded_once(values: list[float]) -> None:
    """Not the rounded sum divided, and a float also for integers."""
    mean = finished(Mean(), values)

    if not values:
        assert mean is None
    else:
        assert type(mean) is float
        assert mean == nearest(sum(map(Fraction, values), Fraction()) / len(values))


def test_a_mean_does_not_overflow_where_its_sum_does() -> None:
    assert finished(Mean(), [1.5e308, 1.5e308]) == 1.5e308
    assert finished(Mean(), [10**400, -(10**400), 3]) == 1.0


# -- stats


def test_stats_of_a_textbook_example() -> None:
    summary = finished(Stats(), [2, 4, 4, 4, 5, 5, 7, 9])

    assert summary == Summary(
        count=8,
        sum=40,
        min=2,
        max=9,
        mean=5.0,
        variance=4.0,
        deviation=2.0,
        sample_variance=32 / 7,
        sample_deviation=math.sqrt(32 / 7),
    )
    assert type(summary.sum) is int
    assert asdict(summary)["deviation"] == 2.0


def test_stats_of_nothing_and_of_one() -> None:
    assert finished(Stats(), []) == Summary(0, 0, None, None, None, None, None, None, None)
    assert finished(Stats(), [2.5]) == Summary(1, 2.5, 2.5, 2.5, 2.5, 0.0, 0.0, None, None)


@given(NUMBERS.filter(len), st.randoms(use_true_random=False))
def test_stats_are_the_true_figures_rounded_once(values: list[float], chance: random.Random) -> None:
    """In any order and any split: the same to the last bit."""
    exact = [*map(Fraction, values)]
    mean = sum(exact, Fraction()) / len(exact)
    spread = sum(((value - mean) ** 2 for value in exact), Fraction())

    summary = finished(Stats(), values)

    assert repr(Stats().finish(split_at_random(Stats(), values, chance))) == repr(summary)
    assert summary.count == len(values)
    assert repr(summary.sum) == repr(finished(Sum(), values))
    assert (summary.min, summary.max) == (min(values), max(values))
    assert summary.mean == nearest(mean)
    assert summary.variance == nearest(spread / len(exact))
    if len(exact) > 1:
        assert summary.sample_variance == nearest(spread / (len(exact) - 1))
        assert summary.sample_deviation == pytest.approx(root(spread / (len(exact) - 1)), rel=3e-16)
    assert summary.deviation == pytest.approx(root(spread / len(exact)), rel=3e-16)


def root(square: Fraction) -> float:
    """By another way: Newton's steps on fractions from a start that is not far off."""
    if not square:
        return 0.0
    guess = Fraction(2) ** ((square.numerator.bit_length() - square.denominator.bit_length()) // 2)
    for _ in range(8):
        guess = ((guess + square / guess) / 2).limit_denominator(10**400)
    return nearest(guess)


def test_stats_of_close_numbers_far_from_zero_lose_nothing() -> None:
    """The sum of squares in floats would leave no digit of this variance."""
    assert finished(Stats(), [1e9 + 1, 1e9 + 2, 1e9 + 3]).variance == pytest.approx(2 / 3, rel=1e-15)
    assert finished(Stats(), [1e200, 3e200]).deviation == 1e200  # although its square is no float
    assert finished(Stats(), [1e-200, 3e-200]).deviation == 1e-200


def test_stats_shows_the_plainer_of_equal_numbers() -> None:
    for values in permutations([1, 1.0, True]):
        summary = finished(Stats(), values)
        assert (repr(summary.min), repr(summary.max)) == ("1", "1")
    for values in permutations([0.0, -0.0]):
        assert repr(finished(Stats(), values).min) == "0.0"


# -- ends


def test_the_lowest_and_the_highest_go_by_collation() -> None:
    values = ["b", 10, None, [1], {"a": 1}, 9.5, "ä", True]

    assert finished(Min(), values) is None
    assert finished(Max(), values) == {"a": 1}
    assert finished(Min(), values[:2]) == 10
    assert finished(Max(), values[:2]) == "b"
    assert finished(Min(), [10, 9.5, 2**53 + 1, float(2**53)]) == 9.5
    assert finished(Max(), [float(2**53), 2**53 + 1]) == 2**53 + 1
    assert finished(Max(), [True, 0]) == 0
    assert finished(TopK(3), values) == [{"a": 1}, [1], "ä"]
    assert (finished(Min(), []), finished(Max(), []), finished(TopK(3), [])) == (None, None, [])


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0, 1], "1"),
        ([-0.0, 0.0, 0], "0"),
        ([-0.0, 0.0], "0.0"),
        ([(1, 2), [1, 2], [1.0, 2]], "(1, 2)"),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], "{'a': 1, 'b': 2}"),
    ],
)
def test_of_equal_values_the_plainest_is_kept_whatever_the_order(values: list[Any], shown: str) -> None:
    for order in permutations(values):
        assert repr(finished(Min(), order)) == shown
        assert repr(finished(Max(), order)) == shown
        assert repr(finished(TopK(1), order)) == f"[{shown}]"
        assert repr(finished(First(), [(5, value) for value in order])) == shown
        assert repr(finished(Last(), [(5, value) for value in order])) == shown


@given(st.lists(st.integers(-20, 20) | st.floats(-20, 20), max_size=300), st.integers(1, 5), st.randoms())
def test_the_k_highest_are_the_head_of_the_sorted_values(values: list[float], k: int, chance: random.Random) -> None:
    top = finished(TopK(k), values)

    assert top == sorted(values, reverse=True)[:k]
    assert repr(TopK(k).finish(split_at_random(TopK(k), values, chance))) == repr(top)


def test_an_accumulator_of_the_k_highest_stays_small() -> None:
    acc = accumulated(TopK(2), range(10_000))

    assert len(acc) <= 4 * 2 + 64
    assert TopK(2).finish(acc) == [9999, 9998]


def test_first_and_last_go_by_stamp_then_by_value() -> None:
    values = [(5, "e"), (3, "c"), (9, "i"), (3, "a"), (9, "z"), [3.0, "b"]]

    for order in permutations(values):
        assert finished(First(), order) == "a"
        assert finished(Last(), order) == "z"
    assert finished(First(), []) is None
    assert finished(Last(), [(None, "x")]) == "x"


def test_first_and_last_compare_values_only_where_stamps_are_equal() -> None:
    """So a value may be anything as long as stamps differ."""
    one, other = object(), object()

    assert finished(First(), [(2, one), (1, other)]) is other
    with pytest.raises(TypeError, match=r"First\(\) compares JSON values"):
        finished(First(), [(1, one), (1, other)])


# -- distinct


def test_distinct_counts_values_as_keys_are_told_apart() -> None:
    values = [1, 1.0, True, "1", "", [1], (1,), [True], None, 0, False, {"a": 1, "b": 2}, {"b": 2, "a": 1}]

    assert finished(Distinct(), values) == 10
    assert finished(Distinct(exact=False), values) == 10
    assert finished(Distinct(), []) == finished(Distinct(exact=False), []) == 0


@pytest.mark.parametrize("count", [0, 10, 256, 257, 1500, 1535, 1536, 1537, 1600, 2000, 5000])
def test_an_estimated_count_is_the_same_number_however_the_input_was_split(count: int) -> None:
    """Around the sizes where a sketch changes its form, and with values that are in several parts."""
    chance = random.Random(count)
    values = [f"value {n}" for n in range(count)]
    reducer = Distinct(exact=False)
    estimate = finished(reducer, values)

    assert abs(estimate - count) <= 0.04 * count
    for _ in range(12):
        repeated = [*values, *chance.sample(values, count // 3)]
        assert reducer.finish(split_at_random(reducer, repeated, chance)) == estimate


def test_a_large_estimate_is_within_five_standard_errors_in_bounded_memory() -> None:
    reducer = Distinct(exact=False)
    acc = accumulated(reducer, range(100_000))

    assert abs(reducer.finish(acc) - 100_000) < 5 * 0.0082 * 100_000
    assert len(stored(acc)) < 24_000


# -- quantiles


def test_quantiles_of_few_numbers_are_exact() -> None:
    """The least number such that so much of the input is at or below it."""
    assert finished(Quantiles((0, 0.25, 0.5, 0.75, 1)), [5, 1, 4, 2, 3]) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert finished(Quantiles((0.5, 0.51)), [10, 20]) == [10.0, 20.0]
    assert finished(Quantiles([0.5]), [7, True]) == [1.0]
    assert repr(finished(Quantiles([0.5]), [-0.0])) == "[0.0]"
    assert finished(Quantiles(), []) == [None, None, None]


@pytest.mark.parametrize("shape", ["rising", "falling", "mixed", "few values"])
def test_quantiles_of_many_numbers_keep_their_rank_error_under_any_split(shape: str) -> None:
    """Three times the error that one answer in a hundred exceeds, so that the sketch's random numbers cannot matter."""
    n, k = 20_000, 100
    chance = random.Random(shape)
    numbers = {
        "rising": [*range(n)],
        "falling": [*range(n, 0, -1)],
        "mixed": [chance.lognormvariate(0, 3) for _ in range(n)],
        "few values": [chance.randrange(7) for _ in range(n)],
    }[shape]
    points = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
    reducer = Quantiles(points, k=k)
    ordered = sorted(numbers)

    for acc in (accumulated(reducer, numbers), split_at_random(reducer, numbers, chance)):
        answers = reducer.finish(acc)

        for point, answer in zip(points, answers, strict=True):
            assert answer in ordered
            below = sum(number < answer for number in ordered) / n
            at_or_below = sum(number <= answer for number in ordered) / n
            assert below - 3 * 2.7 / k <= point <= at_or_below + 3 * 2.7 / k
        assert len(stored(acc)) < 10_000


# -- refusals


@dataclass(frozen=True)
class Odd:
    """No JSON value."""


@pytest.mark.parametrize(
    ("reducer", "value", "message"),
    [
        (Sum(), "1", r"Sum\(\) adds int and float, and was given '1' of type str"),
        (Sum(), None, r"Sum\(\) adds int and float, and was given None of type NoneType"),
        (Sum(), 1j, r"Sum\(\) adds int and float"),
        (Mean(), [1], r"Mean\(\) adds int and float, and was given \[1\] of type list"),
        (Stats(), "1", r"Stats\(\) adds int and float, and was given '1' of type str"),
        (Min(), Odd(), r"Min\(\) compares JSON values .* given Odd\(\) of type Odd"),
        (Max(), b"", r"Max\(\) compares JSON values .* given b'' of type bytes"),
        (TopK(1), {1: 2}, r"TopK\(\) compares JSON values .* given \{1: 2\} of type dict"),
        (First(), 5, r"First\(\) takes values \(stamp, value\), and was given 5 of type int"),
        (Last(), (1, 2, 3), r"Last\(\) takes values \(stamp, value\), and was given \(1, 2, 3\) of type tuple"),
        (Last(), (Odd(), 2), r"Last\(\) compares JSON values"),
        (Distinct(), Odd(), r"Distinct\(\) takes JSON values .* given Odd\(\) of type Odd"),
        (Distinct(exact=False), Odd(), r"Distinct\(\) takes JSON values .* given Odd\(\) of type Odd"),
        (Quantiles(), "1", r"Quantiles\(\) takes int and float, and was given '1' of type str"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_name(reducer: Reducer, value: Any, message: str) -> None:
    """By `add`, be it the first value or a later one, and by the folder."""
    good = (1, 1) if isinstance(reducer, First | Last) else 1
    with pytest.raises(TypeError, match=message):
        reducer.add(reducer.zero(), value)
    with pytest.raises(TypeError, match=message):
        reducer.add(reducer.add(reducer.zero(), good), value)
    with pytest.raises(TypeError, match=message):
        folder(reducer, identity).take([("k", good), ("k", value)])


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize(
    "reducer", [Stats(), Min(), Max(), TopK(2), First(), Last(), Distinct(), Distinct(exact=False), Quantiles()]
)
def test_what_is_no_finite_number_is_refused_where_numbers_are_compared(reducer: Reducer, number: float) -> None:
    values = [(number, 1), (1.5, 1)] if isinstance(reducer, First | Last) else [number, 1.5]

    for value in (values, values[::-1]):
        with pytest.raises(ValueError, match=r"\(\) (needs|compares|takes) .*finite"):
            accumulated(reducer, value)


def test_an_integer_beyond_floats_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="needs finite floats"):
        Quantiles().add(Quantiles().zero(), 10**400)


@pytest.mark.parametrize("k", [0, -1, 1.5, "10", True])
def test_how_many_to_keep_is_a_positive_integer(k: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"TopK\(k\) is given"):
        TopK(k)


@pytest.mark.parametrize("points", [(), 0.5, (1.5,), (-0.1,), ("0.5",), (True,), (NAN,)])
def test_points_lie_between_nought_and_one(points: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Quantiles\(points=\) is"):
        Quantiles(points)


@pytest.mark.parametrize("k", [7, 65_536, 100.0])
def test_the_size_of_a_sketch_is_in_range(k: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Quantiles\(k=\) is"):
        Quantiles(k=k)


def test_a_missing_library_is_named_where_the_reducer_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a worker, and not for reducers that do without."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "mapreduce.reducers.sketches.find_spec", lambda name: None if name == "datasketches" else find_spec(name)
    )

    with pytest.raises(ConfigurationError, match=r"Quantiles\(\) needs .* pip install 'vstore\[sketches\]'"):
        Quantiles()
    with pytest.raises(ConfigurationError, match=r"Distinct\(exact=False\) needs .* pip install 'vstore\[sketches\]'"):
        Distinct(exact=False)
    assert finished(Distinct(), [1, 1]) == 1


# -- reducers as values


@pytest.mark.parametrize("text", KNOWN)
def test_reducers_are_equal_hashable_values_that_travel(text: str) -> None:
    reducer = reducer_named(text)

    assert reducer == reducer_named(text)
    assert hash(reducer) == hash(reducer_named(text))
    assert pickle.loads(pickle.dumps(reducer)) == reducer
    assert isinstance(reducer, Reducer)


@pytest.mark.parametrize(
    ("text", "reducer"),
    [
        ("sum", Sum()),
        ("count", Count()),
        ("min", Min()),
        ("max", Max()),
        ("mean", Mean()),
        ("stats", Stats()),
        ("top:10", TopK(10)),
        ("collect", Collect()),
        ("distinct", Distinct()),
        ("distinct~", Distinct(exact=False)),
        ("quantiles", Quantiles()),
        ("quantiles:0.5,0.9", Quantiles((0.5, 0.9))),
        ("first", First()),
        ("last", Last()),
    ],
)
def test_reducers_have_names_for_command_lines(text: str, reducer: Reducer) -> None:
    assert reducer_named(text) == reducer


@pytest.mark.parametrize("text", ["", "avg", "top", "sum:1", "Sum", "distinct~:3"])
def test_an_unknown_name_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"known are sum, count, .*, top:10, quantiles:0.5,0.9"):
        reducer_named(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top:ten", "has the parameter 'ten', which is no number; write it as in top:10"),
        ("top:0", "TopK"),
        ("quantiles:0.5;0.9", "write it as in quantiles:0.5,0.9"),
        ("quantiles:50", "numbers from 0 to 1"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        reducer_named(text)


# -- accumulators in databases


def test_an_accumulator_of_plain_data_is_stored_and_comes_back() -> None:
    acc = [None, True, 2**80, 1.5, "text", b"bytes", (1, [2]), {3, (4,)}, frozenset({5}), {"a": {6: 7}}]

    assert restored(stored(acc)) == acc


@pytest.mark.parametrize("part", [Odd(), Odd, len, 1j, Fraction(1, 2)])
def test_what_is_not_plain_data_is_not_stored(part: Any) -> None:
    with pytest.raises(TypeError, match="an accumulator to be stored holds .* of type"):
        stored([1, {"deep": [part]}])


@pytest.mark.parametrize("value", [Odd(), len, print, Fraction(1, 2), st.integers])
def test_bytes_that_name_code_run_none_of_it(value: Any) -> None:
    """A pickle that somebody else has put into the database."""
    with pytest.raises(ValueError, match=r"cannot be read \(UnpicklingError: it asks for .*, and may hold only None"):
        restored(pickle.dumps(value))


@pytest.mark.parametrize("data", [b"", b"\x80\x05", b"no pickle", stored([1, 2, 3])[:-2]])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        restored(data)


def test_a_subclass_with_an_add_of_its_own_is_not_folded_as_its_parent() -> None:
    class Double(Sum):
        def add(self, acc: Any, value: Any, /) -> Any:
            return super().add(acc, 2 * value)

    class Named(Sum):
        """Nothing of its own."""

    groups = folder(Double(), lambda key: key)
    groups.take([("a", 1), ("a", 2)])

    assert Double().finish(groups.groups["a"]) == 6
    assert isinstance(groups, Adding)
    assert not isinstance(folder(Named(), lambda key: key), Adding)
