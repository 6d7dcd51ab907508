"""MapReduce over versioned documents: real Python functions, all cores.

    from mapreduce import Sum, run

    def words(key, value):
        for word in value["text"].split():
            yield word, 1

    for word, n in run(over=posts, map=words, reduce=Sum()): ...

The laws of reducers: `mapreduce.reducers`. What can be read in parallel:
`mapreduce.splits`. Where work is done: `mapreduce.executors`.

Names are imported when they are used: a program that only runs queries does not
wait for views to load, nor a command for either.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapreduce.engine import run
    from mapreduce.errors import (
        DeadlineExceeded,
        InvalidExpression,
        JobError,
        MapError,
        NotOneRow,
        ReduceError,
        StartError,
        TaskError,
        WorkerLost,
    )
    from mapreduce.executors.dask import Dask
    from mapreduce.executors.pool import close_workers
    from mapreduce.job import Job
    from mapreduce.partial import Skipped
    from mapreduce.progress import Progress
    from mapreduce.query.fields import Doc, Expression, F
    from mapreduce.query.frames import arrow_batches, to_arrow, to_pandas, to_polars
    from mapreduce.query.meaning import MISSING
    from mapreduce.query.plan import Plan
    from mapreduce.query.query import Query, query
    from mapreduce.query.records import Record
    from mapreduce.reducers.collect import Collect
    from mapreduce.reducers.distinct import Distinct
    from mapreduce.reducers.extremes import First, Last, Max, Min, TopK
    from mapreduce.reducers.quantiles import Quantiles
    from mapreduce.reducers.sums import Count, Mean, Stats, Sum, Summary
    from mapreduce.result import Counters, Result
    from mapreduce.views.declared import declare_view
    from mapreduce.views.emitted import ViewError
    from mapreduce.views.fresh import keep_fresh
    from mapreduce.views.rows import Row
    from mapreduce.views.view import Rows, View, ViewStatus, drop_view, view, views

# One line for each name, in the order of __all__: where it is.
_HOMES = {
    "F": "mapreduce.query.fields",
    "MISSING": "mapreduce.query.meaning",
    "Collect": "mapreduce.reducers.collect",
    "Count": "mapreduce.reducers.sums",
    "Counters": "mapreduce.result",
    "Dask": "mapreduce.executors.dask",
    "DeadlineExceeded": "mapreduce.errors",
    "Distinct": "mapreduce.reducers.distinct",
    "Doc": "mapreduce.query.fields",
    "Expression": "mapreduce.query.fields",
    "First": "mapreduce.reducers.extremes",
    "InvalidExpression": "mapreduce.errors",
    "Job": "mapreduce.job",
    "JobError": "mapreduce.errors",
    "Last": "mapreduce.reducers.extremes",
    "MapError": "mapreduce.errors",
    "Max": "mapreduce.reducers.extremes",
    "Mean": "mapreduce.reducers.sums",
    "Min": "mapreduce.reducers.extremes",
    "NotOneRow": "mapreduce.errors",
    "Plan": "mapreduce.query.plan",
    "Progress": "mapreduce.progress",
    "Quantiles": "mapreduce.reducers.quantiles",
    "Query": "mapreduce.query.query",
    "Record": "mapreduce.query.records",
    "ReduceError": "mapreduce.errors",
    "Result": "mapreduce.result",
    "Row": "mapreduce.views.rows",
    "Rows": "mapreduce.views.view",
    "Skipped": "mapreduce.partial",
    "StartError": "mapreduce.errors",
    "Stats": "mapreduce.reducers.sums",
    "Sum": "mapreduce.reducers.sums",
    "Summary": "mapreduce.reducers.sums",
    "TaskError": "mapreduce.errors",
    "TopK": "mapreduce.reducers.extremes",
    "View": "mapreduce.views.view",
    "ViewError": "mapreduce.views.emitted",
    "ViewStatus": "mapreduce.views.view",
    "WorkerLost": "mapreduce.errors",
    "arrow_batches": "mapreduce.query.frames",
    "close_workers": "mapreduce.executors.pool",
    "declare_view": "mapreduce.views.declared",
    "drop_view": "mapreduce.views.view",
    "keep_fresh": "mapreduce.views.fresh",
    "query": "mapreduce.query.query",
    "run": "mapreduce.engine",
    "to_arrow": "mapreduce.query.frames",
    "to_pandas": "mapreduce.query.frames",
    "to_polars": "mapreduce.query.frames",
    "view": "mapreduce.views.view",
    "views": "mapreduce.views.view",
}

__all__ = [
    "MISSING",
    "Collect",
    "Count",
    "Counters",
    "Dask",
    "DeadlineExceeded",
    "Distinct",
    "Doc",
    "Expression",
    "F",
    "First",
    "InvalidExpression",
    "Job",
    "JobError",
    "Last",
    "MapError",
    "Max",
    "Mean",
    "Min",
    "NotOneRow",
    "Plan",
    "Progress",
    "Quantiles",
    "Query",
    "Record",
    "ReduceError",
    "Result",
    "Row",
    "Rows",
    "Skipped",
    "StartError",
    "Stats",
    "Sum",
    "Summary",
    "TaskError",
    "TopK",
    "View",
    "ViewError",
    "ViewStatus",
    "WorkerLost",
    "arrow_batches",
    "close_workers",
    "declare_view",
    "drop_view",
    "keep_fresh",
    "query",
    "run",
    "to_arrow",
    "to_pandas",
    "to_polars",
    "view",
    "views",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mapreduce' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found  # so that this is asked once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
