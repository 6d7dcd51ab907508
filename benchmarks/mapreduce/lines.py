"""Every line that is printed, measured one after another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import vstore
from benchmarks.databases import scratch
from benchmarks.mapreduce import jobs, others, views
from benchmarks.mapreduce.contest import Times, contest, timed
from benchmarks.mapreduce.contestants import DUCKDB, POSTGRESQL, RAW, contestants, ours
from benchmarks.mapreduce.documents import Prepared
from benchmarks.mapreduce.keys import KEYS
from benchmarks.mapreduce.memory import measured
from benchmarks.report import Line
from mapreduce import Sum, run
from mapreduce.executors.pool import close_workers

TITLES = {"A": "group and sum", "B": "count words", "C": "filter"}
FASTER = {("A", ours("functions", 2)): 1.6, ("A", ours("query", 2)): 3.0}
"""Budgets: how many times as fast as the raw loop."""
DECLARED = {"A": ours("query", 2), "C": ours("query", 2)}
"""What is held against DuckDB."""


@dataclass(frozen=True)
class Choice:
    """What to measure besides the jobs and the views."""

    rounds: int
    server: str | None = None
    keys: bool = False
    dask: bool = False


def lines(made: Prepared, folder: Path, choice: Choice) -> Iterator[Line]:
    """All of them. `folder` is for what is thrown away afterwards."""
    with vstore.open(made.url, create=False) as store:
        orders = store["orders"]
        assert len(orders) == made.count, f"{made.database} has {len(orders)} documents; remove its folder"
        yield _start(choice.rounds)
        yield from _jobs(made, orders, folder, choice)
        if choice.dask:
            yield _dask(orders, choice.rounds)
    close_workers()  # the memory that they have is not for what follows
    yield from _memory(made)
    if choice.keys:
        yield from _keys(made)
    yield from views.lines(made, folder, choice.rounds)


def _start(rounds: int) -> Line:
    """The same small job: in new worker processes, and in those of the job before."""

    def job() -> None:
        found = run(over=[(n, {"n": n}) for n in range(100)], map=lambda _, v: [(0, v["n"])], reduce=Sum(), workers=2)
        assert dict(found) == {0: 4950}

    cold, warm = [], []
    for _ in range(rounds):
        close_workers()
        cold.append(timed(job))
        warm.append(timed(job))
    left, right = median(cold) * 1e3, median(warm) * 1e3
    return Line("a job of 100 documents, warm workers (raw: new ones)", left, right, "ms", f"{right:.0f} ms")


def _jobs(made: Prepared, orders: vstore.Collection, folder: Path, choice: Choice) -> Iterator[Line]:
    with contextlib.ExitStack() as stack:
        everybody = contestants(made, orders)
        if choice.server is not None:
            fresh = stack.enter_context(scratch(folder, choice.server))
            everybody[POSTGRESQL] = stack.enter_context(others.postgresql(made, fresh))
        for job, title in TITLES.items():
            times = contest({name: works[job] for name, works in everybody.items() if job in works}, choice.rounds)
            yield from _compared(f"{job} {title}", job, times)


def _compared(title: str, job: str, times: Times) -> Iterator[Line]:
    for name in times.seconds:
        if name != RAW:
            yield times.faster(f"{title}: {name}", name, than=RAW, at_least=FASTER.get((job, name)))
    if job in DECLARED:
        yield times.slower(f"{title}: {DECLARED[job]} (raw: DuckDB)", DECLARED[job], than=DUCKDB, at_most=2)


def _dask(orders: vstore.Collection, rounds: int) -> Line:
    """A cluster of two single-threaded processes, started before: what its scheduler costs."""
    from distributed import Client, LocalCluster

    from mapreduce.executors.dask import Dask

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:

        def on_dask() -> dict[str, int]:
            return dict(run(over=orders, map=jobs.by_shop, reduce=Sum(), executor=Dask(client)))

        times = contest({"here": jobs.functions(orders, 2)["A"], "Dask": on_dask}, rounds)
    return times.slower("A group and sum: functions, Dask (raw: 2 workers)", "Dask", than="here")


def _memory(made: Prepared) -> Iterator[Line]:
    raw = {job: measured(made, f"{job} {RAW}").peak_mib for job in TITLES}
    for job, name in [*((job, ours("functions", 2)) for job in TITLES), *DECLARED.items()]:
        left, right = raw[job], measured(made, f"{job} {name}").peak_mib
        yield Line(
            f"memory of the largest process, {job} {name}",
            left,
            right,
            "MiB",
            f"{right:.0f} MiB",
            "≤ 300 MiB",
            right <= 300,
        )


def _keys(made: Prepared) -> Iterator[Line]:
    use = measured(made, "keys")
    work = f"{made.count * KEYS:,} distinct keys, 2 workers"
    yield Line(work, None, use.seconds, "s", f"{use.seconds:.0f} s")
    yield Line(
        f"{work}: the largest process",
        None,
        use.peak_mib,
        "MiB",
        f"{use.peak_mib:.0f} MiB",
        "≤ 500 MiB",
        use.peak_mib <= 500,
    )
