"""The conformance suite of executors: a subclass gives `executor`, and pytest runs every promise of the contract.

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
from typing import Any

import pytest

from mapreduce.errors import MapError, TaskError, WorkerLost
from mapreduce.executors import Executor


class ExecutorSuite:
    """Promises of every executor."""

    def executor(self) -> Executor:
        raise NotImplementedError

    def results(self, work: Callable[[Any], Any], tasks: Any) -> dict[int, Any]:
        with closing(self.executor().run(work, tasks)) as outcomes:
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


class WorkerSuite(ExecutorSuite):
    """Further promises of executors whose work runs in other processes on this machine."""

    def test_a_result_that_cannot_travel_is_an_error(self) -> None:
        with pytest.raises(TaskError, match=r"result.*workers=1"):
            self.results(lambda n: (i for i in range(n)), [3])

    def test_a_function_that_cannot_travel_is_an_error(self) -> None:
        held = (i for i in range(3))
        with pytest.raises(TaskError, match="Nothing was run"):
            self.results(lambda n: next(held), [3])

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
