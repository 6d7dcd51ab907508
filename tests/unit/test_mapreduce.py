"""Jobs: the same result from any split and any executor, and errors that name the document."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce import Count, Job, MapError, ReduceError, Sum, TaskError, WorkerLost, run
from mapreduce.collation import identity, sort_key
from mapreduce.engine import execute
from mapreduce.executors import Executor
from mapreduce.executors.gradual import Gradual
from mapreduce.executors.inline import Inline
from mapreduce.executors.processes import Processes
from mapreduce.splits import Batch, Slice, cut
from vstore.errors import ConfigurationError, Unavailable

pytestmark = pytest.mark.timeout(60)

TEXTS = [("d1", {"text": "a b a"}), ("d2", {"text": "b c"}), ("d3", {"text": ""}), ("d4", {"text": "a"})]


def words(key: str, value: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for word in value["text"].split():
        yield word, 1


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_words_are_counted(workers: int | None) -> None:
    def words(key: str, value: dict[str, Any]) -> Iterator[tuple[str, int]]:
        for word in value["text"].split():
            yield word, 1

    result = run(over=TEXTS, map=words, reduce=Sum(), workers=workers)

    assert list(result) == [("a", 3), ("b", 2), ("c", 1)]
    assert list(result) == [("a", 3), ("b", 2), ("c", 1)]  # again
    assert dict(result) == {"a": 3, "b": 2, "c": 1}
    assert (result["b"], result.get("z"), "z" in result, len(result)) == (2, None, False, 3)
    assert (result.counters.documents, result.counters.pairs, result.counters.retries) == (4, 6, 0)


def test_a_mapping_of_documents_is_read_by_its_items() -> None:
    assert dict(run(over=dict(TEXTS), map=words, reduce=Count())) == {"a": 3, "b": 2, "c": 1}


def test_an_iterator_of_unknown_length_is_read_once() -> None:
    assert dict(run(over=iter(TEXTS), map=words, reduce=Count(), workers=2)) == {"a": 3, "b": 2, "c": 1}


def test_a_plain_function_gets_the_values_in_the_order_of_the_documents() -> None:
    documents = [(str(n), n) for n in range(50)]

    def spoil(key: bool, values: list[int]) -> tuple[int, ...]:
        found = tuple(values)
        values.clear()
        return found

    for workers in (1, 2):
        result = run(over=documents, map=lambda key, n: [(n % 2 == 0, n)], reduce=spoil, workers=workers)

        assert list(result) == [(False, tuple(range(1, 50, 2))), (True, tuple(range(0, 50, 2)))]
        assert result[True] == tuple(range(0, 50, 2))  # spoil emptied its copy


def test_keys_of_every_type_are_kept_as_they_were_yielded() -> None:
    keys = [{"b": [1]}, "s", ("t", True), [1], 1, True, None, 0.5]

    result = run(over=enumerate(keys), map=lambda n, key: [(key, n)], reduce=Sum(), workers=2)

    assert list(result) == [
        *((None, 6), (True, 5), (0.5, 7), (1, 4), ("s", 1), ([1], 3), (("t", True), 2), ({"b": [1]}, 0))
    ]
    assert (result[True], result[1], result[1.0], result[["t", True]]) == (5, 4, 4, 2)
    with pytest.raises(KeyError):
        result[False]


JOBS: dict[str, tuple[Any, Callable[[list[Any]], Any]]] = {
    "sum": (Sum(), lambda values: _exact_sum(values)),
    "count": (Count(), len),
    "plain": (lambda key, values: list(values), list),
}


def _exact_sum(values: list[float]) -> float:
    return Sum().finish(sum_of(values))


def sum_of(values: list[float]) -> Any:
    total: Any = Sum().zero()
    for value in values:
        total = Sum().add(total, value)
    return total


KEYS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.5, "a", "b"]) | st.lists(st.just(1))
PAIRS = st.lists(st.tuples(KEYS, st.integers() | st.floats(allow_nan=False, allow_infinity=False)), max_size=4)


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=12), st.lists(st.integers(0, 12), max_size=4), st.sampled_from(sorted(JOBS)))
def test_any_split_gives_the_result_of_plain_python(documents: list[Any], cuts: list[int], name: str) -> None:
    check(documents, cuts, name, Inline())


@settings(deadline=None, max_examples=15)
@given(st.lists(PAIRS, max_size=12), st.lists(st.integers(0, 12), max_size=4), st.sampled_from(sorted(JOBS)))
def test_processes_give_the_result_of_plain_python(documents: list[Any], cuts: list[int], name: str) -> None:
    check(documents, cuts, name, Processes(workers=2))
    check(documents, cuts, name, Gradual(Processes(workers=2), patience_seconds=0))


@dataclass
class Parts:
    """A source that is cut as it says."""

    parts: list[Slice]

    def slices(self, count: int) -> list[Slice]:
        return self.parts

    def len_estimate(self) -> int:
        return 0


def check(documents: list[Any], cuts: list[int], name: str, executor: Executor) -> None:
    numbered = list(enumerate(documents))
    edges = [0, *sorted(min(edge, len(numbered)) for edge in cuts), len(numbered)]
    splits = [Batch(numbered[start:end]) for start, end in pairwise(edges) if start < end]
    reducer, plain = JOBS[name]
    groups: dict[Any, list[Any]] = defaultdict(list)
    names: dict[Any, Any] = {}
    for pairs in documents:
        for key, value in pairs:
            groups[identity(key)].append(value)
            names.setdefault(identity(key), key)
    expected = sorted(((names[found], plain(values)) for found, values in groups.items()), key=lambda p: sort_key(p[0]))

    result = execute(Job(lambda key, pairs: pairs, reducer), Parts(splits), executor=executor)

    assert repr(list(result)) == repr(expected)  # by repr, where 1 and 1.0 and True differ
    assert result.counters.documents == len(documents)
    assert result.counters.pairs == sum(map(len, documents))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_map_function_names_the_document_and_shows_its_own_traceback(workers: int) -> None:
    def picky(key: str, value: int) -> Iterator[tuple[str, int]]:
        yield "seen", 10 // value

    with pytest.raises(MapError, match=r"document 'k7': ZeroDivisionError: .*Nothing was stored") as caught:
        run(over=[(f"k{n}", 7 - n) for n in range(20)], map=picky, reduce=Sum(), workers=workers)

    assert caught.value.key == "k7"
    assert "in picky" in caught.value.traceback
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "in picky" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda key, value: [("k", "no number")], "adds int and float"),
        (lambda key, value: [(float("nan"), 1)], "nan"),
        (lambda key, value: [(object(), 1)], "map key"),
        (lambda key, value: [1], "unpack"),
        (lambda key, value: None, "not iterable"),
        (lambda key: [], "positional argument"),
        (lambda key, value: next(iter(())), "StopIteration"),
    ],
)
def test_whatever_a_map_function_gets_wrong_names_the_document(function: Any, what: str) -> None:
    with pytest.raises(MapError, match=what) as caught:
        run(over=[("d", 1), ("e", 1)], map=function, reduce=Sum())

    assert caught.value.key == "d"


def test_an_exception_of_the_source_arrives_unchanged() -> None:
    def source() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise Unavailable("the database went away")

    for workers in (1, 2):
        with pytest.raises(Unavailable, match="went away"):
            run(over=source(), map=lambda key, value: [(key, value)], reduce=Sum(), workers=workers)


def test_a_failing_reduce_function_names_the_group() -> None:
    result = run(over=[("a", 1), ("b", 0)], map=lambda key, value: [(key, value)], reduce=lambda key, vs: 1 // vs[0])

    assert result["a"] == 1
    with pytest.raises(ReduceError, match=r"group 'b' failed: ZeroDivisionError") as caught:
        dict(result)
    assert caught.value.key == "b"


def test_a_worker_killed_once_changes_nothing_but_the_retries(tmp_path: Any) -> None:
    marker = str(tmp_path / "killed once")

    def deadly(key: int, value: int) -> Iterator[tuple[str, int]]:
        import os
        import signal

        if key == 70 and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        yield "n", value

    result = run(over=[(n, 1) for n in range(100)], map=deadly, reduce=Sum(), workers=2)

    assert dict(result) == {"n": 100}
    assert (result.counters.documents, result.counters.retries) == (100, 1)


def test_a_poison_split_is_named() -> None:
    def deadly(key: int, value: int) -> Iterator[tuple[str, int]]:
        import os
        import signal

        if key == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        yield "n", value

    with pytest.raises(
        WorkerLost, match=r"split 5 \(batch of 13 documents from 65 to 77\) ended 2 worker processes.*SIGKILL"
    ):
        run(over=[(n, 1) for n in range(100)], map=deadly, reduce=Sum(), workers=2)


def test_the_fields_of_a_slice_stay_out_of_messages() -> None:
    """A slice knows how to connect, and its generated repr would print the password."""

    @dataclass
    class Secretive:
        url: str  # and a class inside a function cannot be pickled

    with pytest.raises(TaskError, match="split 0 cannot be sent") as caught:
        execute(Job(words, Sum()), Parts([Secretive("sql://u:pass@h")]), executor=Processes(1))  # type: ignore[list-item]
    assert "pass@" not in str(caught.value)


def test_values_that_cannot_travel_are_an_error_in_processes_only() -> None:
    def job(workers: int) -> list[Any]:
        return list(
            run(
                over=[("a", 1)],
                map=lambda key, value: [(key, (i for i in range(3)))],
                reduce=lambda key, values: len(values),
                workers=workers,
            )
        )

    assert job(1) == [("a", 1)]
    with pytest.raises(TaskError, match="workers=1"):
        job(2)


def test_a_source_is_cut_into_more_slices_than_workers_and_read_where_the_work_is() -> None:
    asked: list[int] = []

    class Numbers:
        def slices(self, count: int) -> list[Batch]:
            asked.append(count)
            return [Batch([(n, n)]) for n in range(count)]

        def len_estimate(self) -> int:
            return 100_000

    result = run(over=Numbers(), map=lambda key, n: [("sum", n)], reduce=Sum(), workers=2)

    assert asked == [8]
    assert (result["sum"], result.counters.splits) == (28, 8)
    assert [len(list(cut(Numbers(), workers))) for workers in (1, 2)] == [5, 8]


@pytest.mark.parametrize(
    "arguments",
    [
        {"over": 5},
        {"over": "text"},
        {"over": [{"a": 1, "b": 2}]},
        {"map": None},
        {"reduce": Sum},
        {"reduce": 3},
        {"workers": 0},
        {"on_conflict": "perhaps"},
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        run(**{"over": TEXTS, "map": words, "reduce": Sum(), **arguments})


def test_importing_the_package_loads_no_process_machinery() -> None:
    code = "import mapreduce, sys; print([m for m in ('multiprocess', 'dill', 'click') if m in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed == "[]\n"
