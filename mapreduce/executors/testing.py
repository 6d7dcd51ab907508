"""The conformance suites of executors: a subclass gives `executor`, and pytest runs every promise of the contract.

    class TestProcesses(WorkerSuite):
        def executor(self) -> Executor:
            return Processes(workers=2)

Functions here refer to no globals of this module, so they travel like a user's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import pytest

from mapreduce.errors import DeadlineExceeded, MapError, TaskError, WorkerLost
from mapreduce.executors import Executor, Using


class ExecutorSuite:
    """Promises of every executor."""

    def executor(self) -> Executor:
        raise NotImplementedError

    def results(self, work: Callable[[Any], Any], tasks: Any) -> dict[int, Any]:
        return self.results_of(self.executor(), work, tasks)

    def results_of(self, executor: Executor, work: Callable[..., Any], tasks: Any) -> dict[int, Any]:
        with closing(executor.run(work, tasks)) as outcomes:
            pairs = [(outcome.number, outcome.result) for outcome in outcomes]
        assert len(dict(pairs)) == len(pairs), "an outcome came twice"
        return dict(pairs)

    def test_every_task_gives_one_outcome_under_its_number(self) -> None:
        assert self.results(lambda n: n * n, range(20)) == {n: n * n for n in range(20)}

    def test_no_tasks_give_no_outcomes(self) -> None:
        assert self.results(lambda n: n, []) == {}

    def test_closures_travel(self) -> None:
        """With what they enclose, a function that calls itself, and two that call each other."""
        factor = 3

        def even(n: int) -> bool:
            return n == 0 or odd(n - 1)

        def odd(n: int) -> bool:
            return n != 0 and even(n - 1)

        def factorial(n: int) -> int:
            return 1 if n < 2 else n * factorial(n - 1)

        assert self.results(lambda n: (factor * n, even(n), factorial(n)), [4, 5]) == {
            0: (12, True, 24),
            1: (15, False, 120),
        }

    def test_large_tasks_and_results_fit_through(self) -> None:
        text = "x" * 3_000_000

        assert self.results(lambda task: task + "y", [text, text]) == {0: text + "y", 1: text + "y"}

    def test_tasks_are_taken_as_workers_come_free(self) -> None:
        """An endless supply of tasks: only as many are taken as are worked on."""
        taken = []

        def supply() -> Iterator[int]:
            for n in count():
                taken.append(n)
                yield n

        with closing(self.executor().run(lambda n: n, supply())) as outcomes:
            list(islice(outcomes, 10))

        assert len(taken) <= 10 + 3 * self.executor().workers

    def test_what_the_supply_of_tasks_raises_is_raised(self) -> None:
        def supply() -> Iterator[int]:
            yield 1
            raise LookupError("the source is gone")

        with pytest.raises(LookupError, match="the source is gone"):
            self.results(lambda n: n, supply())

    def test_what_the_work_raises_is_raised_with_its_traceback(self) -> None:
        """The original type and arguments, and somewhere the name of the function that raised."""

        def naughty(n: int) -> int:
            raise ValueError("no", n)

        with pytest.raises(ValueError, match="no") as caught:
            self.results(naughty, [7])

        assert caught.value.args == ("no", 7)
        frames = [entry.name for entry in caught.traceback]
        assert "naughty" in frames or "in naughty" in "".join(caught.value.__notes__)

    def test_the_cause_of_an_exception_arrives_too(self) -> None:
        def naughty(n: int) -> int:
            try:
                return int("seven")
            except ValueError as error:
                raise MapError("failed", key=n, traceback="text") from error

        with pytest.raises(MapError) as caught:
            self.results(naughty, [7])

        assert (caught.value.key, caught.value.traceback) == (7, "text")
        assert isinstance(caught.value.__cause__, ValueError)

    def test_an_exception_that_cannot_be_pickled_is_reported_all_the_same(self) -> None:
        def naughty(n: int) -> int:
            class LocalError(Exception):
                def __init__(self, one: int, two: int) -> None:
                    super().__init__("unusual")

            raise LocalError(1, 2)

        with pytest.raises(Exception, match="unusual"):
            self.results(naughty, [7])

    def test_an_executor_can_be_used_again_after_an_error(self) -> None:
        executor = self.executor()
        with pytest.raises(ZeroDivisionError):
            list(executor.run(lambda n: 1 // n, [1, 0]))

        assert [outcome.result for outcome in executor.run(lambda n: n, [5])] == [5]

    def test_kept_data_can_be_fetched(self) -> None:
        """Whole or in part, and as often as it is wanted."""
        executor = self.executor()

        outcomes = list(executor.run(lambda n: (n, [n * 10, {"n": n}]), [1, 2], keep=True))

        assert sorted(outcome.result[0] for outcome in outcomes) == [1, 2]
        for n, kept in (outcome.result for outcome in outcomes):
            assert executor.fetch(kept) == [n * 10, {"n": n}]
            assert executor.fetch(kept.part(1)) == {"n": n}
            assert executor.fetch(kept) == [n * 10, {"n": n}]

    def test_kept_data_is_used_by_later_tasks(self) -> None:
        """As map tasks keep buckets, and a reduce task uses one bucket of each; data that is no list is used whole."""
        executor = self.executor()
        first = dict(outcome.result for outcome in executor.run(lambda n: (n, [n, -n]), [1, 2], keep=True))
        whole = [outcome.result[1] for outcome in executor.run(lambda text: (None, text), ["abc"], keep=True)]
        tasks = [
            Using("plus", (first[1].part(0), first[2].part(0))),
            Using("minus", (first[1].part(1), first[2].part(1))),
            Using("all", (first[2], whole[0])),
            Using("none", ()),
        ]

        results = self.results_of(executor, lambda task, data: (task, data), tasks)

        assert results == {
            0: ("plus", [1, 2]),
            1: ("minus", [-1, -2]),
            2: ("all", [[2, -2], "abc"]),
            3: ("none", []),
        }

    def test_kept_data_is_made_from_kept_data(self) -> None:
        executor = self.executor()
        ((_, first),) = [outcome.result for outcome in executor.run(lambda n: (n, [n]), [4], keep=True)]

        def longer(task: str, data: list[list[int]]) -> tuple[int, list[int]]:
            return len(data[0]), [*data[0], 5]

        ((size, second),) = [outcome.result for outcome in executor.run(longer, [Using("more", (first,))], keep=True)]

        assert (size, executor.fetch(second), executor.fetch(first)) == (1, [4, 5], [4])

    def test_what_work_raises_with_keep_is_raised(self) -> None:
        with pytest.raises(ZeroDivisionError):
            list(self.executor().run(lambda n: (n, 1 // n), [0], keep=True))

    def test_a_deadline_ends_a_run(self) -> None:
        """Some tasks are done by then, many are not."""

        def slow(n: int) -> int:
            import time

            time.sleep(0.02)
            return n

        outcomes = self.executor().run(slow, count(), deadline=monotonic() + 0.5)

        with pytest.raises(DeadlineExceeded, match="Nothing was stored"):
            list(outcomes)

    def test_a_deadline_that_has_passed_is_noticed(self) -> None:
        with pytest.raises(DeadlineExceeded):
            list(self.executor().run(lambda n: n, [1], deadline=monotonic() - 1))

    @pytest.mark.parametrize("seconds", [100.0, 1e9, 1e300, float("inf")])
    def test_a_distant_deadline_is_none(self, seconds: float) -> None:
        outcomes = list(self.executor().run(lambda n: n, [1, 2], deadline=monotonic() + seconds))

        assert sorted(outcome.result for outcome in outcomes) == [1, 2]

    def test_the_time_of_the_work_is_told(self) -> None:
        def slow(n: int) -> int:
            import time

            time.sleep(0.05)
            return n

        (outcome,) = self.executor().run(slow, [1])

        assert outcome.seconds >= 0.05
        assert outcome.attempts == 1

    def test_two_threads_have_runs_at_once(self) -> None:
        executor = self.executor()
        found: dict[int, list[int]] = {}

        def job(factor: int) -> None:
            found[factor] = sorted(outcome.result for outcome in executor.run(lambda n: n * factor, range(10)))

        threads = [Thread(target=job, args=(factor,)) for factor in (1, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert found == {1: list(range(10)), 100: list(range(0, 1000, 100))}

    def test_a_run_goes_on_while_another_one_begins(self) -> None:
        """In one thread: a job whose documents are what another one gives."""
        executor = self.executor()

        with closing(executor.run(lambda n: n + 1, range(5))) as inner:
            results = self.results_of(executor, lambda n: n * 2, (outcome.result for outcome in inner))

        assert sorted(results.values()) == [2, 4, 6, 8, 10]

    def test_many_runs_follow_each_other(self) -> None:
        executor = self.executor()

        for factor in range(20):
            assert sorted(outcome.result for outcome in executor.run(lambda n: n * factor, [1, 2])) == [  # noqa: B023
                factor,
                2 * factor,
            ]


class TravelSuite(ExecutorSuite):
    """Further promises of executors whose work is done in other processes, wherever they are."""

    def test_a_result_that_cannot_travel_is_an_error(self) -> None:
        with pytest.raises(TaskError, match=r"result.*workers=1"):
            self.results(lambda n: (i for i in range(n)), [3])

    def test_a_function_that_cannot_travel_is_an_error(self) -> None:
        held = (i for i in range(3))
        with pytest.raises(TaskError, match="Nothing was run"):
            self.results(lambda n: next(held), [3])

    def test_the_work_is_done_in_other_processes(self) -> None:
        def work(n: int) -> int:
            import os

            return os.getpid()

        assert os.getpid() not in self.results(work, range(6)).values()

    def test_the_end_of_the_program_asked_for_in_the_work_is_raised_here(self) -> None:
        def work(n: int) -> int:
            import sys

            sys.exit(3)

        with pytest.raises(SystemExit) as caught:
            self.results(work, [1])

        assert caught.value.code == 3

    def test_what_a_run_leaves_in_its_function_is_not_there_in_the_next(self) -> None:
        """Nor is it there in the program that sent the function."""
        executor = self.executor()
        seen: list[int] = []

        def work(n: int) -> int:
            seen.append(n)
            return len(seen)

        for _ in range(3):
            assert 1 in self.results_of(executor, work, range(3)).values()
        assert seen == []

    def test_much_data_in_a_function_arrives(self) -> None:
        """More than fits into one message of a cluster, and what is one list stays one."""
        names = {n: [f"name {n}"] * 3 for n in range(60_000)}
        again = names[7]
        blob = os.urandom(9_000_000)

        def work(n: int) -> tuple[int, bool, int]:
            return len(names), names[7] is again, len(blob)

        assert set(self.results(work, range(3)).values()) == {(60_000, True, 9_000_000)}

    def test_the_work_of_a_lost_worker_is_repeated(self, tmp_path: Path) -> None:
        """Task 3 kills its worker the first time, as the system does when memory runs out."""
        marker = str(tmp_path / "killed once")

        def work(n: int) -> int:
            import os
            import signal

            if n == 3 and not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return n

        assert self.results(work, range(8)) == {n: n for n in range(8)}
        assert os.path.exists(marker)

    def test_a_task_that_keeps_ending_workers_is_given_up(self) -> None:
        def work(n: int) -> int:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
            return n

        with pytest.raises(WorkerLost, match=r"split 0.*Nothing was stored"):
            self.results(work, [1])


class WorkerSuite(TravelSuite):
    """Further promises of executors whose workers are processes of their own on this machine."""

    def test_a_lost_worker_is_replaced_and_its_task_repeated(self, tmp_path: Path) -> None:
        """Task 3 kills its worker the first time, as the system does when memory runs out."""
        marker = str(tmp_path / "killed once")

        def work(n: int) -> int:
            import os
            import signal

            if n == 3 and not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return n

        outcomes = list(self.executor().run(work, range(8)))

        assert sorted((outcome.number, outcome.result) for outcome in outcomes) == [(n, n) for n in range(8)]
        assert {outcome.number: outcome.attempts for outcome in outcomes}[3] == 2

    def test_a_task_that_ends_two_workers_is_given_up(self) -> None:

        def work(task: str) -> str:
            import os
            import signal

            if task == "poison":
                os.kill(os.getpid(), signal.SIGKILL)
            return task

        with pytest.raises(WorkerLost, match=r"split 1 \(poison\) ended 2 worker.*SIGKILL"):
            self.results(work, ["good", "poison", "good"])

    def test_closing_the_outcomes_ends_the_workers(self, tmp_path: Path) -> None:
        """Workers are busy for ever when the reader closes; afterwards none is left."""
        folder = str(tmp_path)

        def work(n: int) -> int:
            import os
            import time

            open(os.path.join(folder, str(os.getpid())), "w").close()
            while n:
                time.sleep(1)
            return n

        with closing(self.executor().run(work, [0, 1, 1, 1])) as outcomes:
            assert next(outcomes).number == 0

        assert [path.name for path in tmp_path.iterdir() if is_running(int(path.name))] == []


def is_running(process: int) -> bool:
    """Whether a process exists and is no mere zombie; for Linux and macOS."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
