"""The whole case: all packages on four SQLite shards and two of another kind, 1,000 real conflicts, `json3`.

What each step takes, and whether the end is what the edit log says; if not,
nothing is printed, since a fast wrong answer is worth nothing.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import vstore
from benchmarks.databases import Fresh
from benchmarks.replication.packages import RIVALS, story
from benchmarks.report import Line
from replication import sync
from vstore.resolvers import json3


def lines(packages: Path, files: Fresh, fresh: Fresh) -> Iterator[Line]:
    """Each step beside the same by hand, where there is such a thing."""
    with gzip.open(packages, "rt", encoding="utf-8") as file:
        documents = {row["key"]: row["doc"] for row in map(json.loads, file)}
    told = story(documents, min(RIVALS, len(documents) // 5))
    with ExitStack() as stack:
        a, by_hand, b = (
            stack.enter_context(vstore.open(*(each().render_as_string(hide_password=False) for _ in range(shards))))
            for each, shards in ((files, 4), (fresh, 2), (fresh, 2))
        )
        sides = {"a": a["packages"], "b": b["packages"]}
        a["packages"].put_many(documents)
        put = _seconds(lambda: by_hand["packages"].put_many(documents))
        moved = _seconds(lambda: sync(a, b))
        yield Line(f"packages: {len(documents):,} to 2 shards (raw: put_many)", put, moved, "s", f"{moved / put:.2f} ×")
        for turn in told.turns:
            for edit in turn:
                edit.apply(sides[edit.side])
            assert sync(a, b).conflicts == 0, "a conflict between edits of which one saw the other"
        began = time.perf_counter()
        for edit in told.at_once:
            edit.apply(sides[edit.side])
        edited = time.perf_counter() - began
        synced = _seconds(lambda: sync(a, b))
        work = f"packages: {len(told.at_once):,} edits at both (raw: making them)"
        yield Line(work, edited, synced, "s", f"{synced / edited:.2f} ×")
        found = {document.key for document in a["packages"].conflicts()}
        assert found == set(told.rivals), f"{len(found ^ set(told.rivals))} conflicts are false or missing"
        settled = _seconds(lambda: sync(a, b, json3))
        yield Line(f"packages: {len(told.rivals):,} conflicts settled", None, settled, "s", f"{settled:.1f} s")
        truth = told.truth(documents)
        for side in sides.values():
            assert dict(side.items()) == truth, "an edit was lost"


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
