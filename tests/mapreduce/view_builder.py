"""A process that builds or updates a view and may be killed at any of its writes; what `test_view_kill` starts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import vstore
from mapreduce import Sum, view
from mapreduce.views import mapping, nodes
from mapreduce.views.view import View
from vstore import Store
from vstore.sql.database import Connection, Database

DOCUMENTS = 600


def small_nodes() -> None:
    """So that few documents make deep trees and many transactions."""
    nodes.LEAF_ROWS = nodes.FANOUT = 8
    nodes.WRITE_BYTES = 10_000
    mapping.CHUNK_ROWS = 20
    mapping.RUN_ROWS = 100
    from mapreduce.views import build, source, update

    build.WRITE_BYTES = 10_000
    build.MERGED_RUNS = 10
    source.SPLIT_DOCUMENTS = 50
    update.BATCH_DOCUMENTS = 40
    update.VALUES = 20


def pairs(key: str, value: Any) -> Iterator[tuple[Any, Any]]:
    """Two rows for each document; one in fifty fails."""
    if value["n"] % 50 == 49:
        raise ValueError("an unlucky number")
    yield [value["n"] % 7, value["n"]], value["n"]
    yield "all", 1


def view_of(store: Store) -> View:
    """The view that is built and updated."""
    return view(store["d"], "v", map=pairs, reduce=Sum(), workers=1)


def kill_at(transactions: int) -> None:
    """Ends this process, without a word, in the middle of the write transaction of this number, or after it."""
    left = transactions
    real_commit = Database._commit

    def commit(self: Database, connection: Connection) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real_commit(self, connection)
        if left == 1 and transactions % 2:  # just after the one before
            os.kill(os.getpid(), signal.SIGKILL)

    Database._commit = commit  # type: ignore[method-assign]


def build(url: str, state: str, transaction: int, what: str) -> None:
    """What the process does: "build", "update" or "rebuild", until it is killed at that transaction."""
    small_nodes()
    with vstore.open(url, state=state) as opened:
        made = view_of(opened)
        kill_at(transaction)
        if what == "rebuild":
            made.rebuild()
        made.update()
