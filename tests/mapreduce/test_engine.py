"""Jobs give the result of plain Python, however they are cut, wherever they run, however little memory they have."""

from __future__ import annotations

import gc
import io
import os
import pickle
import re
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce import Collect, Count, DeadlineExceeded, Job, JobError, MapError, Progress, ReduceError, Sum, run
from mapreduce.collation import identity, sort_key
from mapreduce.engine import execute
from mapreduce.executors.inline import Inline
from mapreduce.executors.processes import Processes
from mapreduce.executors.shipping import packed_function, unpacked_function
from mapreduce.progress import duration
from mapreduce.query.fields import F
from mapreduce.splits import Batch
from tests.mapreduce.sources import Apart, Numbers, Parts, numbers, parts_of
from vstore.errors import ConfigurationError
from vstore.reading import Reading

pytestmark = pytest.mark.timeout(120)

KEYS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 1.0, -2.0, 2**53, 2**53 + 1, 2.0**53, 10**30, -(10**30)])
    | st.text(alphabet="ab\u00e9\U0001f600", max_size=2),
    lambda keys: st.lists(keys, max_size=2) | st.dictionaries(st.sampled_from("ab"), keys, max_size=2),
    max_leaves=4,
)
VALUES = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.lists(st.lists(st.tuples(KEYS, VALUES), max_size=5), max_size=30)
EDGES = st.lists(st.integers(0, 30), max_size=6)


def joined(key: Any, values: list[Any]) -> list[Any]:
    """Says what it got and in which order."""
    return [part for value in values for part in (value if isinstance(value, list) else [value])]


def exact(values: list[Any]) -> Any:
    reducer = Sum()
    total = reducer.zero()
    for value in values:
        total = reducer.add(total, value)
    return reducer.finish(total)


JOBS: dict[str, tuple[dict[str, Any], Any]] = {
    "sum": ({"reduce": Sum()}, exact),
    "count": ({"reduce": Count()}, len),
    "collect": ({"reduce": Collect()}, list),
    "function": ({"reduce": lambda key, values: list(values)}, list),
    "combined": ({"reduce": joined, "combine": joined}, list),
}


def plain(documents: list[list[tuple[Any, Any]]], finish: Any) -> list[tuple[Any, Any]]:
    """The job in a few lines of Python."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    names: dict[Any, Any] = {}
    for pairs in documents:
        for key, value in pairs:
            groups[identity(key)].append(value)
            names.setdefault(identity(key), key)
    order = sorted(groups, key=lambda found: sort_key(names[found]))
    return [(names[found], finish(groups[found])) for found in order]


def check(documents: list[Any], edges: list[int], name: str, memory: int, executor: Any) -> None:
    options, finish = JOBS[name]
    expected = plain(documents, finish)
    over = parts_of(list(enumerate(documents)), edges)
    job = Job(lambda key, pairs: pairs, **options)

    result = job.run(over=over, executor=executor, memory=memory)

    assert repr(list(result)) == repr(expected)  # by repr, where 1 and 1.0 and True differ
    assert repr(list(reversed(result))) == repr(expected[::-1])
    assert repr([result[key] for key, _ in expected]) == repr([value for _, value in expected])
    assert (len(result), "none such" in result, result.get({"z": 1}, 7)) == (len(expected), False, 7)
    assert result.counters.documents == len(documents)
    assert result.counters.pairs == sum(map(len, documents))
    again = run(
        over=result, map=lambda key, value: [(key, value)], reduce=lambda key, values: values, executor=executor
    )
    assert repr(list(again)) == repr([(key, [value]) for key, value in expected])


@settings(max_examples=150)
@given(DOCUMENTS, EDGES, st.sampled_from(sorted(JOBS)), st.sampled_from([1, 700, 5_000, 1 << 28]))
def test_any_split_and_any_memory_give_the_result_of_plain_python(
    documents: list[Any], edges: list[int], name: str, memory: int
) -> None:
    check(documents, edges, name, memory, Inline())


@settings(max_examples=80)
@given(DOCUMENTS, EDGES, st.sampled_from(sorted(JOBS)), st.sampled_from([1, 5_000, 1 << 28]), st.booleans())
def test_workers_that_share_no_disk_give_the_result_of_plain_python(
    documents: list[Any], edges: list[int], name: str, memory: int, backwards: bool
) -> None:
    check(documents, edges, name, memory, Apart(backwards=backwards))


@settings(max_examples=25)
@given(DOCUMENTS, EDGES, st.sampled_from(sorted(JOBS)), st.sampled_from([1, 5_000, 1 << 28]))
def test_processes_give_the_result_of_plain_python(
    documents: list[Any], edges: list[int], name: str, memory: int
) -> None:
    check(documents, edges, name, memory, Processes(2))


@pytest.mark.parametrize("executor", [Inline(), Processes(2), Apart()], ids=lambda executor: type(executor).__name__)
def test_many_keys_are_counted_exactly(executor: Any) -> None:
    """60,000 documents with 50,000 keys, of which a third come twice, in splits that have too many to be sent."""
    result = run(
        over=numbers(60_000, 30_000),
        map=lambda key, n: [(f"key {n * 7_919 % 50_000}", 1), (n * 7_919 % 50_000, 2)],
        reduce=Sum(),
        executor=executor,
        memory=2_000_000,
    )

    expected = dict.fromkeys(range(50_000), 1)
    for n in range(50_000, 60_000):
        expected[n * 7_919 % 50_000] += 1
    strings = sorted((f"key {key}", value) for key, value in expected.items())
    assert list(result) == [(key, 2 * value) for key, value in sorted(expected.items())] + strings
    assert (result.counters.documents, result.counters.pairs) == (60_000, 120_000)
    assert result.counters.spills > 3


def test_data_between_workers_that_share_no_disk_does_not_pass_through_the_client() -> None:
    """What is sent are descriptions; what is fetched is the result, a segment at a time."""
    executor = Apart()

    result = run(over=numbers(80_000, 40_000), map=lambda k, n: [(n % 30_000, n)], reduce=Sum(), executor=executor)

    assert len(result) == 30_000
    assert executor.fetched == []
    assert max(executor.sent) < 5_000
    assert sum(1 for _ in result) == 30_000
    assert len(executor.fetched) > 1
    assert max(executor.fetched) < 200_000  # of about 30,000 groups of 10 bytes


@pytest.mark.parametrize("memory", [1, 1 << 28])
def test_partials_that_arrive_early_are_merged_in_the_order_of_their_splits(memory: int) -> None:
    """Every outcome comes before those of the splits before it; in memory, or as runs of the workers."""
    result = run(
        over=numbers(120, 10),
        map=lambda key, n: [("all", n)],
        reduce=lambda key, values: values,
        executor=Apart(),
        memory=memory,
    )

    assert result["all"] == list(range(120))


# what may be read


def test_several_sources_are_read_one_after_the_other() -> None:
    first, second = numbers(20, 5), Parts([Numbers(100, 110)])

    for workers in (1, 2):
        result = run(over=[first, second], map=lambda k, n: [("n", n)], reduce=lambda k, v: v, workers=workers)

        assert result["n"] == [*range(20), *range(100, 110)]
        assert result.counters.documents == 30


def test_sources_among_other_things_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="holds Parts where.*Several sources are passed as a list"):
        run(over=[numbers(10, 5), {1: 1}], map=lambda k, n: [(n, 1)], reduce=Count(), workers=1)


def test_documents_of_a_store_are_read_under_their_keys(local: Any) -> None:
    """As `history` gives them: what is mapped is the Document with its rev and stamp."""
    notes = local["notes"]
    for n in range(3):
        notes["a"] = {"n": n}

    result = run(over=notes.history("a"), map=lambda key, version: [(key, version.value["n"])], reduce=lambda k, v: v)

    assert list(result) == [("a", [2, 1, 0])]


def test_only_declared_fields_are_decoded_and_where_sees_what_it_needs(local: Any) -> None:
    notes = local["notes"]
    notes.put_many({f"{n}": {"a": n, "b": {"c": n % 3, "d": 1}, "e": "x" * n} for n in range(30)})

    def shape(key: str, value: Any) -> Iterator[tuple[Any, Any]]:
        yield (sorted(value.keys()), "e" in value), value.a

    for condition in (F.b.c == 1, None):
        for workers in (1, 2):
            result = run(over=notes, map=shape, reduce=Sum(), fields=["a"], where=condition, workers=workers)

            assert list(result) == ([((["a", "b"], False), 145)] if condition is not None else [((["a"], False), 435)])


def test_where_is_an_expression_or_a_function() -> None:
    documents = [(n, {"n": n}) for n in range(10)]

    for condition in (F.n > 6, lambda key, value: value["n"] > 6):
        result = run(over=documents, map=lambda key, value: [("n", value["n"])], reduce=Collect(), where=condition)

        assert result["n"] == [7, 8, 9]
        assert (result.counters.documents, result.counters.pairs) == (10, 3)


# combine


def test_combine_keeps_the_lists_of_a_reduce_function_short() -> None:
    """100,000 values of one key: the reduce function gets a handful, and what is sent is small."""
    lengths: list[int] = []

    def total(key: str, values: list[int]) -> int:
        lengths.append(len(values))
        return sum(values)

    executor = Apart()
    result = run(
        over=numbers(100_000, 20_000),
        map=lambda key, n: [("all", n)],
        reduce=total,
        combine=lambda key, values: sum(values),
        executor=executor,
    )

    assert list(result) == [("all", 4_999_950_000)]
    assert lengths == [5]


def test_combine_gets_the_key_as_it_was_yielded() -> None:
    lengths: list[int] = []

    def named(key: Any, values: list[Any]) -> Any:
        assert key == ("x", [1])
        lengths.append(len(values))
        return sum(values)

    result = run(over=numbers(5_000, 10), map=lambda k, n: [(("x", [1]), n)], reduce=named, combine=named, workers=1)

    assert list(result) == [(("x", [1]), 12_497_500)]
    assert max(lengths) == 1_000


# errors


def picky(key: int, n: int) -> Iterator[tuple[str, Any]]:
    yield "seen", n
    if n % 17 == 16:
        raise ValueError(f"no {n}")
    yield "kept", "text" if n == 40 else n


@pytest.mark.parametrize("executor", [Inline(), Processes(2), Apart()], ids=lambda executor: type(executor).__name__)
def test_a_failing_document_is_named_with_its_rev(executor: Any) -> None:
    with pytest.raises(MapError, match=r"document 16, rev 1-16: ValueError: no 16. Nothing was stored") as caught:
        run(over=numbers(30, 50), map=picky, reduce=Count(), executor=executor)

    assert (caught.value.key, caught.value.rev) == (16, "1-16")
    assert "in picky" in caught.value.traceback


@pytest.mark.parametrize("memory", [1, 1 << 28])
@pytest.mark.parametrize("executor", [Inline(), Processes(2), Apart()], ids=lambda executor: type(executor).__name__)
def test_skipped_documents_leave_no_trace_in_the_groups(executor: Any, memory: int) -> None:
    """Five fail in the map function after a pair; of one the reducer refuses the second pair."""
    job = Job(picky, Sum(), on_error="skip")

    result = job.run(over=numbers(100, 30), executor=executor, memory=memory)

    bad = [16, 33, 40, 50, 67, 84]
    assert [(document.key, document.rev) for document in result.skipped] == [(n, f"1-{n}") for n in bad]
    assert dict(result) == {"seen": sum(set(range(100)) - set(bad)), "kept": sum(set(range(100)) - set(bad))}
    assert (result.counters.documents, result.counters.skipped, result.counters.pairs) == (100, 6, 188)
    assert result.skipped[0].error == "ValueError: no 16"
    assert "in picky" in result.skipped[0].traceback
    assert "Sum() adds int and float" in result.skipped[2].error


def test_keys_of_skipped_documents_leave_no_trace_either() -> None:
    """A list and a tuple are the same key, shown as it came first: from a document that counts."""

    def failing_first(key: int, n: int) -> Iterator[Any]:
        yield (["a"] if n == 0 else ("a",)), n
        if n == 0:
            raise ValueError

    result = run(over=numbers(20, 20), map=failing_first, reduce=Sum(), on_error="skip", workers=1)

    assert repr(list(result)) == "[(('a',), 190)]"


def test_only_the_first_hundred_skipped_documents_are_listed() -> None:
    def failing(key: int, n: int) -> Any:
        raise ValueError

    for executor in (Inline(), Apart()):
        result = run(over=numbers(250, 20), map=failing, reduce=Sum(), on_error="skip", executor=executor)

        assert [document.key for document in result.skipped] == list(range(100))
        assert (result.counters.skipped, len(result)) == (250, 0)


class Damaged(Numbers):
    """A slice with a body that cannot be decoded."""

    def batches(self, reading: Reading) -> Iterator[list[Any]]:
        assert reading.undecodable is not None
        yield [(1, 1)]
        try:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        except UnicodeDecodeError as error:
            reading.undecodable("2", "3-abc", error)
        yield [(3, 3)]


def test_a_body_that_cannot_be_decoded_is_named_or_skipped() -> None:
    over = Parts([Damaged(0, 4)])
    job = Job(lambda key, n: [("n", n)], Sum())

    with pytest.raises(MapError, match=r"'2' cannot be decoded, rev 3-abc: UnicodeDecodeError") as caught:
        job.run(over=over, workers=1)
    assert (caught.value.key, caught.value.rev) == ("2", "3-abc")

    result = run(over=over, map=job.map, reduce=Sum(), on_error="skip", workers=1)
    assert dict(result) == {"n": 4}
    assert [(document.key, document.rev) for document in result.skipped] == [("2", "3-abc")]
    assert (result.counters.documents, result.counters.skipped) == (3, 1)


def test_documents_at_hand_that_do_not_fit_the_shape_are_skipped_too() -> None:
    """As bodies of a store are that cannot be decoded."""

    class Halves:
        def decode(self, data: bytes) -> Any:
            raise AssertionError

        def convert(self, value: int) -> int:
            if value % 2:
                raise ValueError(f"{value} is odd")
            return value // 2

    class Halving:
        reducer = Sum()

        def reading(self) -> Reading:
            return Reading(shape=Halves())

        def folder(self, identify: Any) -> Any:
            return Job(lambda key, n: [("n", n)], Sum()).folder(identify)

        def finish(self, key: Any, acc: Any) -> Any:
            return acc

    result = execute(Halving(), [(n, n) for n in range(6)], workers=1, on_error="skip")

    assert dict(result) == {"n": 3}
    assert [(document.key, document.error) for document in result.skipped] == [
        (1, "ValueError: 1 is odd"),
        (3, "ValueError: 3 is odd"),
        (5, "ValueError: 5 is odd"),
    ]
    with pytest.raises(MapError, match="document 1 cannot be decoded: ValueError: 1 is odd"):
        execute(Halving(), [(n, n) for n in range(6)], workers=1)


def test_a_failure_that_does_not_happen_again_names_what_it_can() -> None:
    """An impure function fails once: the documents it may have been are told, and no other is blamed."""
    calls = []

    def moody(key: int, n: int) -> list[Any]:
        calls.append(n)
        if len(calls) == 5:
            raise ValueError("only now")
        return []

    with pytest.raises(
        MapError, match=r"one of the 10 documents from 0 to 9: ValueError: only now.*not pure"
    ) as caught:
        run(over=numbers(10, 10), map=moody, reduce=Sum(), workers=1)
    assert caught.value.key is None


def test_a_map_function_that_raises_stop_iteration_drops_no_document() -> None:
    def stopping(key: int, n: int) -> Any:
        return [("n", n)] if n != 7 else next(iter(()))

    with pytest.raises(MapError, match="StopIteration") as caught:
        run(over=numbers(8, 8), map=stopping, reduce=Sum(), workers=1)
    assert caught.value.key == 7
    assert run(over=numbers(20, 20), map=stopping, reduce=Sum(), workers=1, on_error="skip")["n"] == 190 - 7


@pytest.mark.parametrize("memory", [1, 1 << 28])
def test_a_group_that_cannot_be_merged_is_named(memory: int) -> None:
    class Texts(Collect):
        def merge(self, a: Any, b: Any, /) -> Any:
            raise ValueError("never twice")

    with pytest.raises(ReduceError, match=r"merging the group \['a'\] failed: ValueError: never twice") as caught:
        run(over=numbers(40, 20), map=lambda k, n: [(["a"], n)], reduce=Texts(), executor=Apart(), memory=memory)
    assert caught.value.key == ["a"]


def test_a_group_that_cannot_be_reduced_in_a_worker_is_named() -> None:
    def fussy(key: int, values: list[int]) -> int:
        return 1 // (key - 20)

    with pytest.raises(ReduceError, match=r"reducing the group 20 failed: ZeroDivisionError") as caught:
        run(over=numbers(40, 20), map=lambda k, n: [(n, n)], reduce=fussy, memory=1, workers=2)
    assert caught.value.key == 20


# deadline, progress, counters


@pytest.mark.parametrize("executor", [Inline(), Processes(2)], ids=lambda executor: type(executor).__name__)
def test_a_deadline_ends_the_job(executor: Any) -> None:
    """The map function would go on for a minute; what ends the job is a look at the clock between two batches."""

    def slow(key: int, n: int) -> Iterator[Any]:
        import time

        time.sleep(0.03)
        yield "n", n

    with pytest.raises(DeadlineExceeded, match="Nothing was stored"):
        run(over=numbers(2_000, 1_000), map=slow, reduce=Sum(), executor=executor, deadline=0.2)


def test_progress_is_told_to_a_function() -> None:
    told: list[Progress] = []

    class Counted(Parts):
        def len_estimate(self) -> int:
            return 50

    run(
        over=Counted(numbers(50, 10).parts),
        map=lambda k, n: [("n", n)],
        reduce=Sum(),
        executor=Processes(1),
        progress=told.append,
    )

    assert [(progress.documents, progress.splits_done) for progress in told] == [
        *((10 * n, n) for n in range(1, 6)),
        (50, 5),
    ]
    assert {(progress.estimate, progress.splits) for progress in told} == {(50, 5)}
    assert told[-1].remaining_seconds == 0.0
    assert told[0].remaining_seconds == pytest.approx(told[0].seconds * 4)
    assert told[0].rate == pytest.approx(10 / told[0].seconds)


def test_progress_in_this_process_ends_with_all_documents() -> None:
    told: list[Progress] = []

    run(over=((n, n) for n in range(50)), map=lambda k, n: [("n", n)], reduce=Sum(), workers=1, progress=told.append)

    assert (told[-1].documents, told[-1].splits_done, told[-1].splits, told[-1].estimate) == (50, 1, 1, None)


def test_counters_of_a_job_over_a_store_are_exact(local: Any) -> None:
    notes = local["notes"]
    notes.put_many({f"{n:03d}": {"n": n} for n in range(200)})
    size = sum(len(b'{"n":%d}' % n) for n in range(200))

    for workers in (1, 2):
        counters = run(over=notes, map=lambda key, value: [("n", 1)] * 3, reduce=Sum(), workers=workers).counters

        assert (counters.documents, counters.pairs, counters.bytes) == (200, 600, size)
        assert (counters.spills, counters.retries, counters.skipped, counters.conflicts) == (0, 0, 0, 0)
        assert len(counters.split_seconds) == counters.splits
        assert sum(counters.split_seconds) > 0


def test_a_worker_killed_while_it_spills_counts_nothing_twice(tmp_path: Path) -> None:
    """Its runs are on disk when it dies; the ones of the repetition are the ones that count."""
    marker = str(tmp_path / "killed once")

    def deadly(key: int, n: int) -> Iterator[tuple[int, int]]:
        if n == 390 and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        yield n % 100, 1

    result = run(over=numbers(800, 400), map=deadly, reduce=Sum(), workers=2, memory=2_000)

    assert list(result) == [(n, 8) for n in range(100)]
    assert (result.counters.documents, result.counters.pairs, result.counters.retries) == (800, 800, 1)
    assert result.counters.spills > 8


# the job as a value, the result as a source


def test_a_job_is_a_value_that_can_be_kept_sent_and_named() -> None:
    factor = 3
    job = Job(lambda key, n: [("n", factor * n)], Sum(), where=F > 4, name="tripled")

    again = unpacked_function(packed_function(job))

    assert dict(job.run(over=numbers(10, 5), workers=1)) == {"n": 105}
    assert dict(again.run(over=numbers(10, 5), workers=1)) == {"n": 105}
    assert dict(job.run(over=numbers(10, 5), workers=2)) == {"n": 105}  # after it has been used here
    assert (again.name, pickle.loads(pickle.dumps(Job(picky, Sum(), name="p"))).name) == ("tripled", "p")
    with pytest.raises(AttributeError):
        job.name = "other"  # type: ignore[misc]
    with pytest.raises(MapError) as caught:
        Job(picky, Sum(), name="fussy").run(over=numbers(50, 50), workers=1)
    assert caught.value.__notes__ == ["The job was 'fussy'."]


@pytest.mark.parametrize("memory", [1, 1 << 28])
def test_a_result_is_the_source_of_another_job(memory: int) -> None:
    """How many numbers below 100 have how many divisors: 1 has one, and there are 25 primes."""
    divisors = run(
        over=numbers(100, 30),
        map=lambda key, n: [(m, 1) for m in range(n, 100, n)] if n else [],
        reduce=Sum(),
        memory=memory,
    )
    for workers in (1, 2):
        found = run(over=divisors, map=lambda n, many: [(many, n)], reduce=Count(), workers=workers, memory=memory)

        assert dict(found) == {1: 1, 2: 25, 3: 4, 4: 32, 5: 2, 6: 16, 7: 1, 8: 10, 9: 1, 10: 2, 12: 5}


def test_a_closed_result_says_so() -> None:
    with run(over=numbers(10, 5), map=lambda key, n: [(n, n)], reduce=Sum(), workers=1) as result:
        assert result[3] == 3
    result.close()

    with pytest.raises(JobError, match="has been closed"):
        list(result)
    assert result.counters.documents == 10
    assert "closed" in repr(result)


@pytest.mark.parametrize("memory", [1 << 28, 1_000])
@pytest.mark.parametrize("key", [lambda n: n, lambda n: [n]])
def test_a_result_that_is_closed_while_it_is_read_says_so_too(memory: int, key: Callable[[int], Any]) -> None:
    """In memory it looked like a reduce function that fails, in files like a disk that does."""
    result = run(over=numbers(10_000, 5_000), map=lambda _, n: [(key(n), n)], reduce=Sum(), workers=1, memory=memory)
    reader = iter(result)
    assert next(reader) == (key(0), 0)

    result.close()

    with pytest.raises(JobError, match="has been closed"):
        list(reader)


@pytest.mark.parametrize("executor", [Inline(), Apart()])
def test_a_result_that_is_closed_between_two_of_its_segments_says_so(executor: Any) -> None:
    result = run(over=numbers(10_000, 5_000), map=lambda _, n: [(n, n)], reduce=Sum(), executor=executor, memory=50_000)
    read = 0

    with pytest.raises(JobError, match="has been closed"):
        for _ in result:
            read += 1
            if read == 1:
                result.close()


def test_a_function_that_changes_its_documents_gets_no_other_document_blamed() -> None:
    """Document 64 is the first of its batch; when that was tried again it had lost its field, and it was named."""

    def taking(key: int, document: dict[str, int]) -> list[tuple[int, int]]:
        n = document.pop("n")
        return [(n, 1 // (777 - n))]

    documents = {n: {"n": n} for n in range(2_000)}

    with pytest.raises(MapError, match=r"not pure.*must not change its documents") as failure:
        run(over=documents, map=taking, reduce=Sum(), workers=1)
    assert failure.value.key is None
    assert isinstance(failure.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    "arguments",
    [
        {"memory": 0},
        {"deadline": 0},
        {"progress": "yes"},
        {"on_error": "ignore"},
        {"combine": lambda key, values: 1},  # beside Sum()
        {"fields": "a"},
        {"fields": 3},
        {"where": 3},
        {"executor": "dask"},
        {"over": [{"a": 1}]},
        {"into": "totals"},
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        run(**{"over": [(1, 1)], "map": lambda k, v: [], "reduce": Sum(), **arguments})


def test_work_of_any_kind_can_be_executed() -> None:
    """A query's aggregate is no Job: all that is asked of it is the protocol."""

    class Longest:
        reducer = Collect()

        def reading(self) -> Reading:
            return Reading()

        def folder(self, identify: Any) -> Any:
            return Job(lambda key, n: [(n % 3, n)], Collect()).folder(identify)

        def finish(self, key: Any, acc: list[int]) -> int:
            return max(acc)

    assert dict(execute(Longest(), Parts([Batch([(n, n) for n in range(20)])]), workers=1)) == {0: 18, 1: 19, 2: 17}


def test_splits_with_many_groups_are_done_several_at_a_time() -> None:
    """So that fewer partials have to be brought together; what is told of progress are splits all the same."""
    told: list[Progress] = []

    result = run(
        over=numbers(6_000, 100),
        map=lambda key, n: [(n * 60 + m, 1) for m in range(60)],
        reduce=Sum(),
        executor=Processes(2),
        progress=told.append,
    )

    assert [key for key, _ in result] == list(range(360_000))
    assert result.counters.splits < 40
    assert len(result.counters.split_seconds) == result.counters.splits
    assert (told[-1].splits_done, told[-1].splits, told[-1].documents) == (60, 60, 6_000)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_garbage_is_collected_as_before_when_the_job_is_done_or_has_failed() -> None:
    before = gc.get_threshold()
    inside: list[Any] = []

    def watching(key: int, n: int) -> Iterator[Any]:
        inside.append(gc.get_threshold())
        if n == 1:
            run(over=[(0, 0)], map=watching, reduce=Sum(), workers=1)  # a job in a job
            inside.append(gc.get_threshold())
        yield "n", 1 // (n - 3)

    run(over=[(0, 0), (1, 1)], map=watching, reduce=Sum(), workers=1)
    assert gc.get_threshold() == before
    with pytest.raises(MapError):
        run(over=[(3, 3)], map=watching, reduce=Sum(), workers=1)

    assert gc.get_threshold() == before
    assert {threshold[0] for threshold in inside} == {50_000}


def test_progress_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    run(over=[(n, n) for n in range(50)], map=lambda k, n: [("n", n)], reduce=Sum(), workers=1, progress=True)

    *written, last = terminal.getvalue().split("\r")
    assert re.fullmatch(r"50 of about 50 documents, [\d,]+/s *\n", last), terminal.getvalue()
    assert all("\n" not in line for line in written)


def test_progress_is_not_written_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    run(over=[(1, 1)], map=lambda k, n: [("n", n)], reduce=Sum(), workers=1, progress=True)

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (754, "12:34"), (3_723, "1:02:03")])
def test_a_time_span_is_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert (
        str(Progress(1_000, 2_000, 1, 2, seconds))
        == f"1,000 of about 2,000 documents, {1_000 / seconds:,.0f}/s, {text} left"
    )


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan")])
def test_a_deadline_that_is_no_time_is_refused(deadline: float) -> None:
    with pytest.raises(ConfigurationError, match="Nothing was run"):
        run(over={"a": 1}, map=lambda key, n: [(key, n)], reduce=Sum(), deadline=deadline)


def test_progress_in_no_time_at_all_tells_nothing_of_the_rest() -> None:
    """A clock may stand still between two readings."""
    assert Progress(documents=1, estimate=10, splits_done=0, splits=None, seconds=0.0).remaining_seconds is None
