"""Running a job: cut the input, let an executor do the splits, merge what comes back.

    over ─ cut ─► splits ─ executor ─► partials ─ merge, in split order ─► Result

Partials are merged in the order of their splits, whatever order they arrive in:
so the result does not depend on timing, and reducers need not be commutative.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from time import perf_counter
from typing import Any

from mapreduce.executors import Executor
from mapreduce.executors.inline import Inline
from mapreduce.job import Job, MapFunction, ReduceFunction
from mapreduce.partial import Partial
from mapreduce.reducers import Reducer
from mapreduce.result import Counters, Result
from mapreduce.splits import Slice, cut, length_estimate
from vstore.errors import ConfigurationError

# Reading, decoding and mapping a document takes 3 to 6 µs for ordinary functions, so that many are 0.3 s or more of
# work, about what the first worker processes of a program take to start.
PARALLEL_DOCUMENTS = 100_000


def run(
    *,
    over: Any,
    map: MapFunction,
    reduce: Reducer | ReduceFunction,
    workers: int | None = None,
    on_conflict: str = "winner",
) -> Result:
    """What `reduce` makes of the values that `map` yields for each key, over all documents.

    The job is done when this returns; only `finish`, or the reduce function, is
    called as the result is read.

    Args:
        over: a collection, a snapshot or anything else that is `Sliceable`; a
            mapping of documents; or an iterable of (key, value) pairs, which
            are read here and sent to the workers.
        map: `map(key, value)` yields or returns (key, value) pairs. Lambdas and
            closures travel. Keys are JSON values.
        reduce: a reducer, such as `Sum()`, or a function `reduce(key, values)`.
        workers: processes; 1 runs everything in this one. By default all cores,
            unless the input is so small that starting them would not pay.
        on_conflict: "winner", "skip" or "raise", for documents with several
            live siblings.

    Raises:
        ConfigurationError: an argument cannot be used; nothing was run.
        MapError: the map function failed; carries the document's key.
        WorkerLost: a split ended its worker repeatedly.
        TaskError: the functions or what they yield cannot travel to or from a
            worker process; `workers=1` needs no travel.
        StartError: worker processes did not start.

    Reads an exact snapshot if `over` is one or makes one. Memory grows with the
    number of distinct keys, and for a reduce function with the number of pairs.
    """
    job = Job(map, reduce, on_conflict)
    if workers is not None and workers < 1:
        raise ConfigurationError(f"workers= is {workers}; at least one is needed. Nothing was run.")
    executor = _executor(workers, length_estimate(over))
    return execute(job, cut(over, executor.workers), executor)


def execute(job: Job, splits: Iterable[Slice], executor: Executor) -> Result:
    """The job over these splits, in this executor."""
    started = perf_counter()
    merged = Partial()
    early: dict[int, Partial] = {}  # arrived before a split that comes first
    position = retries = 0
    with closing(executor.run(job.partial, splits)) as outcomes:
        for outcome in outcomes:
            retries += outcome.attempts - 1
            early[outcome.number] = outcome.result
            while position in early:
                merged.absorb(early.pop(position), job.reducer)
                position += 1
    return Result(
        job, merged, Counters(merged.documents, merged.pairs, position, retries, seconds=perf_counter() - started)
    )


def _executor(workers: int | None, documents: int | None) -> Executor:
    # Processes are imported when they are needed: `multiprocess` and dill take 40 ms, which a small job or an import of
    # this package should not pay.
    count = workers or _cores()
    if count == 1:
        return Inline()
    from mapreduce.executors.processes import Processes, may_start_processes

    if workers is None and not may_start_processes():
        return Inline()
    if workers is None and (documents is None or documents < PARALLEL_DOCUMENTS):
        from mapreduce.executors.gradual import Gradual

        return Gradual(Processes(count))
    return Processes(count)


def _cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
