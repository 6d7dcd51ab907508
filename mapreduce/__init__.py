"""MapReduce over versioned documents: real Python functions, all cores.

    from mapreduce import Sum, run

    def words(key, value):
        for word in value["text"].split():
            yield word, 1

    for word, n in run(over=posts, map=words, reduce=Sum()): ...

The laws of reducers: `mapreduce.reducers`. What can be read in parallel:
`mapreduce.splits`. Where work is done: `mapreduce.executors`.
"""

from __future__ import annotations

from mapreduce.engine import run
from mapreduce.errors import JobError, MapError, ReduceError, StartError, TaskError, WorkerLost
from mapreduce.job import Job
from mapreduce.reducers import Count, Sum
from mapreduce.result import Result

__all__ = [
    "Count",
    "Job",
    "JobError",
    "MapError",
    "ReduceError",
    "Result",
    "StartError",
    "Sum",
    "TaskError",
    "WorkerLost",
    "run",
]
