"""Replication on the real data: a history of four years kept whole at both ends, and real conflicts by the thousand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice, pairwise
from typing import Any

import pytest

import vstore
from benchmarks.replication.packages import RIVALS, story
from replication import sync
from tests.data import FIRES, PACKAGES, imported, lines, needs_data
from tests.replication.states import heads_of, knowledge_of
from vstore.resolvers import json3

DOCUMENTS = 12_000
"""Of the 63,666 packages; `python -m benchmarks.replication` takes all."""

pytestmark = [needs_data, pytest.mark.postgres, pytest.mark.mariadb, pytest.mark.xdist_group("heavy")]


@pytest.mark.timeout(600)
def test_the_history_of_the_fires_is_the_same_everywhere(fresh_url: Callable[[str], str]) -> None:
    """4,307 versions of 402 documents, handed on from one kind of database to the next, and to the first kind again.

    The file itself, replayed in plain Python, is the oracle: of all histories, and at both ends at 50 moments. Of the
    servers between them `tests/acceptance/test_must_show.py` asks as many.
    """
    urls = [fresh_url(kind) for kind in ("sqlite", "postgresql", "mariadb", "sqlite")]
    imported(urls[:1], "fires", FIRES)
    rows = list(lines(FIRES))
    counts = Counter(row["key"] for row in rows)
    chosen = random.Random(20201008)
    moments = [chosen.randrange(rows[0]["at"] - 86_400, rows[-1]["at"] + 86_400) for _ in range(50)]

    with ExitStack() as stack:
        stores = [stack.enter_context(vstore.open(url)) for url in urls]
        links = list(pairwise(stores))
        moved = [sync(one, other, history="all").to_b.new for one, other in links]
        again = [sync(one, other, history="all") for one, other in links]
        findings = [str(finding) for store in stores for finding in store.check()]
        histories = [{key: list(map(_version, store["fires"].history(key))) for key in counts} for store in stores]
        ends = stores[0]["fires"], stores[-1]["fires"]
        shown = [[dict(fires.at(moment * 1_000_000).items()) for moment in moments] for fires in ends]

    assert moved == [4_307] * 3
    assert not any(again)
    assert findings == []
    assert {key: len(versions) for key, versions in histories[0].items()} == counts
    assert all(history == histories[0] for history in histories)
    for n, moment in enumerate(moments):
        replayed = _replayed(rows, moment)
        assert all(at[n] == replayed for at in shown), f"at {moment}"


@pytest.mark.timeout(600)
def test_a_thousand_real_conflicts_lose_no_edit_and_invent_none(fresh_url: Callable[[str], str]) -> None:
    """Packages on four SQLite shards and two PostgreSQL ones, edited at both; `json3` settles; a log is the oracle."""
    packages = {row["key"]: row["doc"] for row in islice(lines(PACKAGES), DOCUMENTS)}
    told = story(packages)
    with (
        vstore.open(*(fresh_url("sqlite") for _ in range(4))) as a,
        vstore.open(*(fresh_url("postgresql") for _ in range(2))) as b,
    ):
        sides = {"a": a["packages"], "b": b["packages"]}
        a["packages"].put_many(packages)
        first = sync(a, b)
        false_conflicts = 0
        for turn in told.turns:
            for edit in turn:
                edit.apply(sides[edit.side])
            false_conflicts += sync(a, b).conflicts
        for edit in told.at_once:
            edit.apply(sides[edit.side])

        sync(a, b)
        siblings = [
            {document.key: sorted(each.rev for each in document.siblings) for document in side.conflicts()}
            for side in sides.values()
        ]
        settled = sync(a, b, json3)
        again = sync(a, b, json3)
        found = [dict(side.items()) for side in sides.values()]

        assert first.to_b.new == DOCUMENTS
        assert false_conflicts == 0
        assert sorted(siblings[0]) == sorted(told.rivals)
        assert siblings[0] == siblings[1]
        assert {len(revs) for revs in siblings[0].values()} == {2}
        assert (sorted(settled.resolved), settled.conflicts) == (sorted(told.rivals), 0)
        assert len(told.rivals) == RIVALS
        assert not again
        assert heads_of(a) == heads_of(b)
        assert knowledge_of(a) == knowledge_of(b)
        truth = told.truth(packages)
        for side in found:
            assert side.keys() == truth.keys()
            assert [key for key in truth if side[key] != truth[key]] == []


def _version(version: vstore.Document) -> tuple[Any, ...]:
    return version.rev, version.stamp, version.deleted, version.parents, version.value


def _replayed(rows: Sequence[dict[str, Any]], moment: int) -> dict[str, Any]:
    """What the file shows at a moment, in seconds."""
    shown: dict[str, Any] = {}
    for row in rows:
        if row["at"] <= moment:
            shown.pop(row["key"], None)
            if not row.get("deleted"):
                shown[row["key"]] = row["doc"]
    return shown
