"""Every executor keeps the same promises."""

from __future__ import annotations

import pytest

from mapreduce.executors import Executor
from mapreduce.executors.gradual import Gradual
from mapreduce.executors.inline import Inline
from mapreduce.executors.processes import Processes
from mapreduce.executors.testing import ExecutorSuite, WorkerSuite

pytestmark = pytest.mark.timeout(60)


class TestInline(ExecutorSuite):
    def executor(self) -> Executor:
        return Inline()


class TestProcesses(WorkerSuite):
    def executor(self) -> Executor:
        return Processes(workers=2)


class TestOneProcess(WorkerSuite):
    def executor(self) -> Executor:
        return Processes(workers=1)


class TestGradual(ExecutorSuite):
    """Between the two: the first task here, the others in processes."""

    def executor(self) -> Executor:
        return Gradual(Processes(workers=2), patience_seconds=0)
