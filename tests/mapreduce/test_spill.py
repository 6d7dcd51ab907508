"""Sorted runs on disk: in order, exact, bounded, and gone when nobody needs them."""

from __future__ import annotations

import gc
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce import Collect, Count, JobError, Sum, TaskError, run
from mapreduce.collation import identity, sort_key
from mapreduce.errors import DeadlineExceeded
from mapreduce.executors.pool import close_workers
from mapreduce.executors.processes import Processes
from mapreduce.runs import Reader, in_order, place, written
from mapreduce.shuffle import edges, merged, ranges
from mapreduce.sizes import deep_bytes, groups_bytes
from mapreduce.spills import GRACE_SECONDS, SpillDirectory, sweep
from mapreduce.splits import Batch
from tests.mapreduce.sources import Apart, Numbers, Parts, numbers
from tests.mapreduce.test_engine import KEYS
from vstore.errors import Unavailable
from vstore.reading import Reading

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def files(folder: Path) -> list[str]:
    """Everything in it, and in the directories in it, but no locks."""
    return [path.name for path in folder.rglob("*") if path.name != "owner.lock"]


# runs


@given(st.lists(KEYS, max_size=40))
def test_identities_sort_as_their_keys_do(keys: list[Any]) -> None:
    names = {identity(key): key for key in keys}

    ordered = [found for members in in_order(names) for found in members]

    assert ordered == sorted(names, key=lambda found: sort_key(names[found]))
    assert ordered == sorted(names, key=place)


VALUES = [3, 2**80, 0.5, "text", None, [1, {"a": ()}], (1, 2), {1, 2}, b"bytes", bytearray(b"array"), True]


@given(st.lists(st.tuples(KEYS, st.sampled_from(VALUES)), max_size=40))
def test_what_is_written_is_read_again_with_every_type(pairs: list[Any]) -> None:
    names = {identity(key): key for key, _ in pairs}
    groups = {identity(key): value for key, value in pairs}

    run = written(io.BytesIO(), None, groups, {found: key for found, key in names.items() if type(found) is tuple})
    assert run.content is not None
    reader = Reader(run.content)
    blocks = [reader.block(number) for number in range(len(reader.index))]

    found = [(key, value) for block in blocks for key, value in zip(block.keys, block.values, strict=True)]
    assert repr(found) == repr([(key, groups[key]) for members in in_order(groups) for key in members])
    assert run.groups == len(groups)
    for block in blocks:
        assert all(repr(name) == repr(names[key]) for key, name in block.names.items())
        assert set(block.names) == {key for key in block.keys if type(key) is tuple}


class Money(float):
    """What a program may use for numbers: a float with a type that must not be lost."""


class Name(str):
    """And for keys."""

    __slots__ = ()


def test_types_that_only_look_plain_come_back_as_they_are() -> None:
    """The fast format would take these for float and str."""

    for groups in ({"a": Money(2.5), "b": 1}, {"a": 1, Name("b"): 1}):
        run = written(io.BytesIO(), None, groups, {})
        block = Reader(run.content or b"").block(0)

        assert [type(value) for value in block.values] == [type(value) for value in groups.values()]
        assert [type(key) for key in block.keys] == [type(key) for key in groups]


@given(st.lists(st.dictionaries(st.integers(0, 400), st.integers(), max_size=300), max_size=6), st.integers(1, 9))
def test_buckets_hold_every_key_once_and_runs_meet_in_their_order(runs: list[dict[int, int]], workers: int) -> None:
    contents = [written(io.BytesIO(), None, {key: [value] for key, value in run.items()}, {}) for run in runs]
    readers = [Reader(run.content or b"") for run in contents]

    found = [
        (key, groups[key])
        for low, high in ranges(edges(contents, workers))
        for keys, groups, _ in merged(readers, low, high, Collect(), 2_000)
        for key in keys
    ]

    everything = sorted({key for run in runs for key in run})
    assert found == [(key, [run[key] for run in runs if key in run]) for key in everything]


def test_a_merge_holds_a_few_blocks_of_each_run_and_not_the_runs() -> None:
    """Ten runs of 20,000 groups, of which a twentieth may be held."""
    contents = [written(io.BytesIO(), None, dict.fromkeys(range(n, 200_000, 10), 1), {}) for n in range(10)]
    weight = sum(run.weight for run in contents)

    sizes = [
        len(keys)
        for keys, _, _ in merged([Reader(run.content or b"") for run in contents], None, None, Sum(), weight // 20)
    ]

    assert sum(sizes) == 200_000
    assert max(sizes) < 200_000 // 8


def test_buckets_are_of_about_the_same_size_when_keys_are_not_spread_evenly() -> None:
    """Most keys lie close together, and the runs have different parts of them."""
    keys = [*range(50_000), *range(10**6, 10**9, 10**7)]
    contents = [written(io.BytesIO(), None, dict.fromkeys(keys[n::3], 1), {}) for n in range(3)]

    cuts = ranges(edges(contents, workers=2))

    readers = [Reader(run.content or b"") for run in contents]
    sizes = [sum(len(keys) for keys, _, _ in merged(readers, low, high, Sum(), 1 << 28)) for low, high in cuts]
    assert len(sizes) == 8
    assert max(sizes) < 2 * 50_100 // 8


def test_a_bucket_reads_little_more_than_its_own_blocks() -> None:
    run = written(io.BytesIO(), None, dict.fromkeys(range(20_000), 1), {})
    reader = Reader(run.content or b"")

    part = Reader(reader.part(place(5_000), place(6_000)))

    groups = sum(entry.groups for entry in part.index)
    assert 1_000 <= groups <= 1_000 + 2 * reader.index[0].groups
    assert groups < 2_000


# sizes


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("x" * 1_000, 1_000, 1_100),
        ([b"x" * 1_000] * 10_000, 10_000_000, 11_000_000),
        ({"a": ["x" * 100] * 10}, 1_500, 3_000),
        (SpillDirectory(), 100, 2_000),
    ],
)
def test_sizes_are_estimated_all_the_way_down(value: Any, least: int, most: int) -> None:
    assert least <= deep_bytes(value) <= most


def test_the_size_of_groups_follows_from_some_of_them() -> None:
    groups = {f"{n:09d}": ["x" * 400] for n in range(1_000)}

    assert 500_000 < groups_bytes(groups) < 900_000


# memory


def test_groups_are_written_to_disk_when_they_grow_past_the_memory(temporary: Path) -> None:
    """2,000 groups of 4 kB with 500 kB of memory, in one split: about a dozen runs, and never more in memory."""
    result = run(
        over=numbers(4_000, 4_000),
        map=lambda key, n: [(n % 2_000, f"{n:04d}" * 500)],
        reduce=lambda key, values: [value[:4] for value in values],
        memory=1_000_000,
        workers=1,
    )

    assert list(result) == [(n, [f"{n:04d}", f"{n + 2_000}"]) for n in range(2_000)]
    assert 10 < result.counters.spills < 60


def test_documents_with_many_pairs_are_taken_a_few_at_a_time(temporary: Path) -> None:
    """One batch of 400 documents with 1,000 keys each is fifty times the memory."""
    over = Parts([Batch([(n, n) for n in range(400)])])

    result = run(
        over=over,
        map=lambda key, n: [(n * 1_000 + m, 1) for m in range(1_000)],
        reduce=Sum(),
        memory=2_000_000,
        workers=1,
    )

    assert len(result) == 400_000
    assert result.counters.spills >= 8  # of at most 64 documents


def test_one_huge_group_is_noticed_by_the_memory_of_the_process(temporary: Path) -> None:
    """A sample of the groups does not show it: small ones came before it, and come after it all the time.

    In a fresh worker, since one with much freed memory need not grow for it.
    """

    def skewed(key: int, n: int) -> Iterator[tuple[Any, Any]]:
        if n > 100:
            yield "huge", f"{n:05d}" * 1_000
        yield n, 1

    close_workers()

    result = run(
        over=numbers(5_000, 5_000),
        map=skewed,
        reduce=lambda k, v: len(v),
        memory=8_000_000,
        executor=Processes(1),
    )

    assert result.counters.spills > 1
    assert (result["huge"], len(result)) == (4_899, 5_001)


@pytest.mark.parametrize("executor", [Processes(2), Apart()], ids=lambda executor: type(executor).__name__)
def test_many_groups_of_small_splits_do_not_pile_up_in_the_client(temporary: Path, executor: Any) -> None:
    """Each split has few enough groups to be sent; all together they are too many."""
    over = Parts([*numbers(30_000, 100).parts, *numbers(100, 100).parts])

    result = run(over=over, map=lambda k, n: [(n, [n])], reduce=Collect(), memory=800_000, executor=executor)

    assert [key for key, _ in result] == list(range(30_000))
    assert (result[7], result[29_999]) == ([[7], [7]], [[29_999]])
    assert result.counters.spills > 10


# files


def spilling(**more: Any) -> Any:
    return run(**{"over": numbers(4_000, 500), "map": lambda k, n: [(n, n)], "reduce": Sum(), "memory": 10_000, **more})


@pytest.mark.parametrize("workers", [1, 2])
def test_files_are_removed_with_the_result(temporary: Path, workers: int) -> None:
    """Closed, or no longer used; and an iterator that is still read keeps it."""
    with spilling(workers=workers) as result:
        assert len(files(temporary)) >= len(result._groups._segments)
        segments = result._groups
    assert files(temporary) == []
    del segments

    groups = iter(spilling(workers=workers))
    gc.collect()
    assert sum(1 for _ in groups) == 4_000
    del groups
    gc.collect()
    assert files(temporary) == []


def test_only_the_result_is_left_on_disk(temporary: Path) -> None:
    """The runs that went into it are gone: no more files than the result has segments."""
    result = spilling(workers=2)

    assert result.counters.spills > 20
    assert len(files(temporary)) <= 1 + 8


def failing_at_the_end(key: int, n: int) -> Any:
    if n == 3_999:
        raise ValueError("the last one")
    return [(n, n)]


class Interrupted(Numbers):
    """A slice whose reader presses Ctrl-C near its end."""

    def batches(self, reading: Reading) -> Iterator[list[Any]]:
        yield from super().batches(reading)
        raise KeyboardInterrupt


class Broken(Numbers):
    """A slice whose database goes away near its end."""

    def batches(self, reading: Reading) -> Iterator[list[Any]]:
        yield from super().batches(reading)
        raise Unavailable("the database went away")


def late(key: int, n: int) -> Any:
    if n > 500:
        time.sleep(0.01)
    return [(n, n)]


def undivided(key: int, values: list[int]) -> Any:
    return 1 // (3_999 - key)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (JobError, {"map": failing_at_the_end}),
        (JobError, {"reduce": undivided}),
        (KeyboardInterrupt, {"over": Parts([Interrupted(0, 4_000)])}),
        (Unavailable, {"over": Parts([Broken(0, 4_000)])}),
        (DeadlineExceeded, {"map": late, "deadline": 0.5}),
    ],
    ids=["map", "reduce", "Ctrl-C", "source", "deadline"],
)
def test_files_are_removed_when_the_job_fails(
    temporary: Path, workers: int, error: type[BaseException], arguments: dict[str, Any]
) -> None:
    with pytest.raises(error) as caught:
        spilling(workers=workers, **arguments)

    assert list(temporary.iterdir()) == []  # although the traceback is still held
    assert caught.tb is not None


def test_ctrl_c_in_the_program_removes_files_and_workers(temporary: Path) -> None:
    """A program in the middle of a job gets the signal of the terminal."""
    program = (
        "import os, sys, tempfile, time\n"
        "from mapreduce import Sum, run\n"
        "run(over=[(0, 0)], map=lambda key, n: [(key, n)], reduce=Sum(), workers=2)\n"  # sockets: a short path
        f"tempfile.tempdir = {str(temporary)!r}\n"
        "def map(key, n):\n"
        "    if n == 900:\n"
        f"        open(os.path.join({str(temporary)!r}, f'worker {{os.getpid()}}'), 'w').close()\n"
        "        time.sleep(60)\n"
        "    yield n, n\n"
        "run(over=[(n, n) for n in range(1000)], map=map, reduce=Sum(), workers=2, memory=1000)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    while not (started := list(temporary.glob("worker *"))):
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.01)
    worker = int(started[0].name.split()[1])

    child.send_signal(signal.SIGINT)

    assert "KeyboardInterrupt" in child.communicate(timeout=30)[1]
    assert [path.name for path in temporary.iterdir()] == [started[0].name]
    with pytest.raises(ProcessLookupError):
        for _ in range(1_000):
            os.kill(worker, 0)
            time.sleep(0.01)


def test_what_a_killed_program_leaves_is_swept_by_the_next_job(temporary: Path) -> None:
    """And what a living one has, or one that has just begun, is not."""
    program = (
        "import os, signal, sys\n"
        "from mapreduce.spills import SpillDirectory\n"
        "spills = SpillDirectory(sys.argv[1])\n"
        "print(spills.path, flush=True)\n"
        "if len(sys.argv) > 2: sys.stdin.read()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    start = [sys.executable, "-c", program, str(temporary)]
    dead = Path(subprocess.run(start, capture_output=True, text=True, check=False).stdout.strip())
    fresh = Path(subprocess.run(start, capture_output=True, text=True, check=False).stdout.strip())
    alive = subprocess.Popen([*start, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert alive.stdout is not None
    living = Path(alive.stdout.readline().strip())
    own = SpillDirectory()
    mine = Path(own.path)
    for path in (dead, living, mine):
        os.utime(path, (time.time() - 2 * GRACE_SECONDS,) * 2)
    foreign = temporary / "vstore-job-link"
    foreign.symlink_to(temporary)

    sweep(str(temporary))

    assert [path.exists() for path in (dead, fresh, living, mine, foreign)] == [False, True, True, True, True]
    assert not (temporary / "owner.lock").exists()  # nothing is opened behind a link
    alive.kill()
    alive.communicate()
    own.remove()
    assert not mine.exists()


def test_a_forked_child_removes_nothing_of_its_parent(temporary: Path) -> None:
    spills = SpillDirectory()
    path = Path(spills.path)

    child = os.fork()
    if child == 0:
        try:
            spills.remove()
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert path.exists()


def test_a_disk_that_is_full_is_named(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(SpillDirectory, "file", lambda self: (Full(os.devnull, "w"), f"{self.path}/full.run"))

    with pytest.raises(JobError, match=r"could not be written to .*full.run.*No space left.*Set TMPDIR"):
        spilling(workers=1)
    assert list(temporary.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")

    with pytest.raises(JobError, match=r"no directory for sorted runs could be made in /proc/none.*Set TMPDIR"):
        spilling(workers=1)


def test_a_directory_that_is_cleaned_away_during_the_job_is_named(temporary: Path) -> None:
    """By somebody who tidies up the directory for temporary files."""

    def tidied(key: int, n: int) -> list[tuple[int, int]]:
        if n == 3_000:
            for path in temporary.iterdir():
                shutil.rmtree(path)
        return [(n, 1)]

    with pytest.raises(JobError, match=r"no file for a sorted run could be made in .*vstore-job-.*Set TMPDIR"):
        run(over=numbers(4_000, 4_000), map=tidied, reduce=Count(), workers=1, memory=1_000)


def test_a_result_whose_files_are_gone_says_so(temporary: Path) -> None:
    """A copy of it, in another process perhaps, does not keep the files."""
    result = spilling(workers=1)
    copy = pickle.loads(pickle.dumps(result))
    assert list(copy) == list(result)

    result.close()

    with pytest.raises(JobError, match=r"is not there.*has been closed.*another machine"):
        list(copy)


def test_a_small_job_in_this_process_makes_no_directory(temporary: Path) -> None:
    result = run(over=Parts([Batch([(1, 1)])]), map=lambda k, n: [(n, n)], reduce=Count(), workers=1)

    assert dict(result) == {1: 1}
    assert list(temporary.iterdir()) == []


def test_values_that_cannot_be_written_are_an_error_only_when_they_have_to_be() -> None:
    def job(memory: int) -> Any:
        return run(
            over=numbers(100, 100),
            map=lambda key, n: [("k", (i for i in range(3)))],
            reduce=lambda key, values: len(values),
            memory=memory,
            workers=1,
        )

    assert dict(job(1 << 28)) == {"k": 100}
    with pytest.raises(TaskError, match=r"cannot be written to disk: .*generator.*memory="):
        job(1_000)
