"""Worker processes are kept for the next job, which finds them as if they were new."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from mapreduce import Sum, close_workers, run
from mapreduce.executors import pool, processes, shipping
from mapreduce.executors.pool import Worker
from mapreduce.executors.processes import Processes
from mapreduce.executors.testing import is_running

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _no_workers() -> Iterator[None]:
    close_workers()
    yield
    close_workers()


def process(n: int) -> int:
    import os

    return os.getpid()


def pids(workers: int = 2, tasks: int = 2) -> set[int]:
    """The processes that worked for a run of tasks."""
    return results(process, range(tasks), workers)


def results(work: Any, tasks: Any, workers: int = 1) -> set[Any]:
    return {outcome.result for outcome in Processes(workers).run(work, tasks)}


def idle() -> set[int]:
    return {int(worker.process.pid) for worker in pool._idle}


def ended(process: int) -> bool:
    """Waits until it is, and not long."""
    limit = monotonic() + 20
    while is_running(process):
        if monotonic() > limit:
            return False
        sleep(0.01)
    return True


# reuse


def test_the_next_run_has_the_same_workers() -> None:
    first = pids(workers=1)

    assert pids(workers=1) == first == idle()


def test_two_runs_at_once_have_different_workers() -> None:
    one = Processes(1).run(process, range(2))
    other = Processes(1).run(process, range(2))

    assert next(one).result != next(other).result
    one.close()
    other.close()


def test_workers_that_are_still_busy_are_not_kept() -> None:
    """After an error and after a reader that had enough; the others of the run are kept."""

    def work(n: int) -> int:
        import os

        while n:
            pass
        return os.getpid()

    outcomes = Processes(2).run(work, [0, 1])
    free = next(outcomes).result
    outcomes.close()

    assert idle() == {free}


def test_close_workers_ends_those_that_idle(tmp_path: Path) -> None:
    found = pids()

    close_workers()

    assert [worker for worker in found if is_running(worker)] == []
    assert idle() == set()
    assert pids().isdisjoint(found)


def test_workers_end_when_nothing_has_come_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.05)
    (worker,) = pids(workers=1)

    assert ended(worker)
    assert results(process, [1]) != {worker}  # and the job that would have had it has another


def test_no_more_than_so_many_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST_IDLE", 1)
    held = [Worker(30.0), Worker(30.0)]
    one, other = Processes(1).run(process, [1]), Processes(1).run(process, [1])
    used = {next(one).result, next(other).result}
    list(one), list(other)

    assert len(idle()) == 1
    assert idle() < used
    for worker in held:
        worker.end()


def test_a_killed_idle_worker_is_replaced_and_no_attempt_is_counted() -> None:
    """Killed before it is asked for, and killed between that and its task."""
    (first,) = pids(workers=1)
    os.kill(first, signal.SIGKILL)

    (outcome,) = Processes(1).run(process, [1])

    assert outcome.attempts == 1
    assert outcome.result != first


def test_an_idle_worker_that_ends_as_it_is_given_a_job_is_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = pids(workers=1)
    os.kill(first, signal.SIGKILL)
    monkeypatch.setattr(Worker, "alive", True)  # its end has not been noticed yet

    (outcome,) = Processes(1).run(process, [1])

    assert outcome.attempts == 1
    assert outcome.result != first


def test_the_function_is_packed_once_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    packings: list[Any] = []

    def counted(work: Any) -> bytes:
        packings.append(work)
        return shipping.packed_function(work)

    monkeypatch.setattr(processes, "packed_function", counted)

    assert pids(workers=2, tasks=4)
    assert len(packings) == 1


def test_no_more_workers_are_started_than_there_are_tasks() -> None:
    assert len(pids(workers=50, tasks=2)) <= 2
    assert len(idle()) <= 2


# as if it were new


def test_the_environment_the_folder_and_the_path_are_those_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set, and taken away again, after the worker had started."""

    def surroundings(n: int) -> tuple[Any, ...]:
        import os
        import sys

        return os.getpid(), os.environ.get("OF_THE_MOMENT"), os.getcwd(), "/of/the/moment" in sys.path

    ((worker, *before),) = results(surroundings, [1])
    with monkeypatch.context() as patch:
        patch.setenv("OF_THE_MOMENT", "set")
        patch.chdir(tmp_path)
        patch.syspath_prepend("/of/the/moment")
        changed = results(surroundings, [1])

    assert before == [None, os.getcwd(), False]
    assert changed == {(worker, "set", str(tmp_path), True)}
    assert results(surroundings, [1]) == {(worker, *before)}


def test_globals_of_a_job_are_not_there_in_the_next() -> None:
    """What its functions define in the main module of the worker."""

    def leave(n: int) -> int:
        import __main__

        __main__.left_behind = n
        globals()["left_behind_too"] = n
        return n

    def find(n: int) -> tuple[bool, bool]:
        import __main__

        return hasattr(__main__, "left_behind"), "left_behind_too" in globals()

    results(leave, [1])

    assert results(find, [1]) == {(False, False)}


def test_a_changed_module_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook whose author edits a module between two jobs: a worker that has the old one is not used."""
    module = tmp_path / "edited_by_the_author.py"
    monkeypatch.syspath_prepend(str(tmp_path))

    def work(n: int) -> tuple[int, int]:
        import os

        import edited_by_the_author  # type: ignore[import-not-found]

        return edited_by_the_author.FACTOR, os.getpid()

    module.write_text("FACTOR = 1\n")
    os.utime(module, ns=(1, 1))  # long before the job
    ((first, worker),) = results(work, [1])
    ((same, same_worker),) = results(work, [1])
    module.write_text("FACTOR = 2222\n")
    ((second, other_worker),) = results(work, [1])

    assert (first, same, second) == (1, 1, 2222)
    assert worker == same_worker != other_worker


def test_a_worker_that_has_got_threads_is_not_kept() -> None:
    """They would go on working in the next job."""

    def work(n: int) -> int:
        import os
        import threading

        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return os.getpid()

    (worker,) = results(work, [1])

    assert ended(worker)
    assert results(process, [1]) != {worker}


# with their owner


def test_a_fork_of_the_program_has_workers_of_its_own() -> None:
    """It neither takes nor ends those of its parent."""
    parents = pids(workers=1)
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:  # no pytest here: whatever happens, it ends at once
        try:
            os.write(writer, str(pids(workers=1).isdisjoint(parents)).encode())
            close_workers()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        answer = answers.read()
    os.waitpid(child, 0)

    assert answer == "True"
    assert pids(workers=1) == parents


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit(1)", "os._exit(2)"])
def test_idle_workers_end_with_their_program(ending: str, tmp_path: Path) -> None:
    program = f"""
import os, signal
from mapreduce.executors.processes import Processes
print(*(outcome.result for outcome in Processes(2).run(lambda n: os.getpid(), range(2))), flush=True)
{ending}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)

    workers = [int(text) for text in done.stdout.split()]
    assert len(workers) == 2
    assert all(map(ended, workers))
    assert done.stderr == ""


def test_a_run_that_is_dropped_in_the_middle_ends_its_workers() -> None:
    def work(n: int) -> int:
        import os

        while n > 1:
            pass
        return os.getpid()

    outcomes = Processes(2).run(work, [0, 2])
    free = next(outcomes).result
    busy = next(int(worker.process.pid) for worker in pool._workers if worker.process.pid != free and worker.alive)
    del outcomes
    gc.collect()

    assert ended(busy)


def test_jobs_in_daemon_threads_share_the_pool() -> None:
    """One after the other, from different threads."""
    found: list[set[int]] = []

    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(pids(workers=1)), daemon=True)
        thread.start()
        thread.join()

    assert found[0] == found[1]


def test_jobs_of_one_program_use_the_pool() -> None:
    """`run` with workers, twice."""

    def by_process(key: int, value: int) -> Iterator[tuple[int, int]]:
        import os

        yield os.getpid(), 1

    documents = [(n, n) for n in range(10)]
    first = dict(run(over=documents, map=by_process, reduce=Sum(), workers=2))
    second = dict(run(over=documents, map=by_process, reduce=Sum(), workers=2))

    assert sum(first.values()) == sum(second.values()) == 10
    assert first.keys() | second.keys() <= idle()
    assert len(idle()) <= 2
