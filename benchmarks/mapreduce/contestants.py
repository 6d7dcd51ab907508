"""Everybody who takes part, by name; each with the jobs it can do."""

from __future__ import annotations

import vstore
from benchmarks.mapreduce import jobs, others
from benchmarks.mapreduce.documents import Prepared

RAW = "raw"
DUCKDB = f"DuckDB, {others.THREADS} threads"
POSTGRESQL = "PostgreSQL jsonb"


def ours(kind: str, workers: int) -> str:
    """The name of vstore's way of that kind with so many workers."""
    return f"{kind}, {workers} worker{'s' * (workers > 1)}"


def contestants(made: Prepared, orders: vstore.Collection) -> dict[str, dict[str, jobs.Contestant]]:
    """All but the server's, which needs one."""
    kinds = {"functions": jobs.functions, "fields": jobs.fields, "query": jobs.queries}
    return {
        RAW: others.raw(made),
        **{ours(kind, workers): make(orders, workers) for kind, make in kinds.items() for workers in (1, 2)},
        DUCKDB: others.duckdb(made),
    }
