"""The main job on the real data: whole histories imported, a store over three kinds of database, two replicas.

The data files are large and do not ship with the project. They are looked for in
$VSTORE_DATA, else in `../shared/data` beside the project; without them these
tests are skipped and say so.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import vstore
from mapreduce import Sum, run
from replication import sync
from vstore import Store
from vstore.cli import main
from vstore.resolvers import json3

DATA = Path(os.environ.get("VSTORE_DATA", Path(__file__).parents[3] / "shared" / "data"))
FIRES = DATA / "ca-fires-history.jsonl.gz"
PACKAGES = DATA / "debian-packages.jsonl.gz"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data files in {DATA}; set VSTORE_DATA")


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def imported(store_url: list[str], collection: str, path: Path) -> None:
    options = [option for url in store_url for option in ("--store", url)]
    result = CliRunner().invoke(main, ["import", collection, str(path), *options, "--quiet"])
    assert result.exit_code == 0, result.output


def test_the_history_of_the_fires_is_kept_exactly(url: str) -> None:
    """4,307 versions of 402 documents over four years; the file itself, replayed in plain Python, is the oracle."""
    imported([url], "fires", FIRES)
    rows = list(lines(FIRES))
    counts = Counter(row["key"] for row in rows)
    chosen = random.Random(20201008)
    moments = [chosen.randrange(rows[0]["at"] - 86_400, rows[-1]["at"] + 86_400) for _ in range(50)]

    with vstore.open(url) as store:
        fires = store["fires"]
        stats = store.stats()["fires"]
        histories = {key: sum(1 for _ in fires.history(key)) for key in counts}
        shown = {moment: dict(fires.at(moment * 1_000_000).items()) for moment in moments}

    assert (stats["documents"] + stats["tombstones"], stats["versions"]) == (402, 4_307)
    assert histories == counts
    for moment in moments:
        replayed: dict[str, Any] = {}
        for row in rows:
            if row["at"] <= moment:
                replayed.pop(row["key"], None)
                if not row.get("deleted"):
                    replayed[row["key"]] = row["doc"]
        assert shown[moment] == replayed, f"at {moment}"


def test_importing_the_history_again_makes_no_new_version(tmp_path: Path) -> None:
    """Whether the checkpoint is believed or not."""
    url = f"sqlite:///{tmp_path / 'fires.db'}"
    imported([url], "fires", FIRES)

    imported([url], "fires", FIRES)
    again = CliRunner().invoke(main, ["import", "fires", str(FIRES), "--store", url, "--quiet", "--again"])

    assert again.exit_code == 0, again.output
    with vstore.open(url) as store:
        assert store.stats()["fires"]["versions"] == 4_307


@pytest.mark.postgres
@pytest.mark.mariadb
@pytest.mark.timeout(600)
def test_packages_on_four_shards_are_counted_as_plain_python_does(fresh_url: Callable[[str], str]) -> None:
    """63,666 documents on two SQLite files, a PostgreSQL and a MariaDB database; sections counted over all cores."""
    urls = [fresh_url("sqlite"), fresh_url("sqlite"), fresh_url("postgresql"), fresh_url("mariadb")]
    imported(urls, "packages", PACKAGES)
    packages: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for row in lines(PACKAGES):
        packages[row["doc"]["section"]] += 1
        size[row["doc"]["section"]] += row["doc"].get("installed_size_kib", 0)

    with vstore.open(*urls) as store:
        collection = store["packages"]
        counted = dict(run(over=collection, map=lambda _key, doc: [(doc["section"], 1)], reduce=Sum(), workers=2))
        summed = dict(
            run(
                over=collection,
                map=lambda _key, doc: [(doc["section"], doc.get("installed_size_kib", 0))],
                reduce=Sum(),
                workers=2,
            )
        )
        shards = Counter(store.shard_of("packages", key) for key in collection)

    assert counted == packages
    assert summed == size
    assert len(shards) == 4
    assert min(shards.values()) > 15_000


@pytest.mark.timeout(600)
def test_two_replicas_find_exactly_the_true_siblings_and_settle_alike(tmp_path: Path) -> None:
    """2,000 edits on each side, 300 of them on the same keys; then one callback decides, and nothing more moves."""
    with (
        vstore.open(f"sqlite:///{tmp_path / 'a.db'}") as a,
        vstore.open(f"sqlite:///{tmp_path / 'b.db'}") as b,
    ):
        keys = []
        a["packages"].put_many(_remembering(keys))
        first = sync(a, b)
        chosen = random.Random(300)
        edited = chosen.sample(keys, 3_700)
        both, only_a, only_b = edited[:300], edited[300:2_000], edited[2_000:]
        for key in both + only_a:
            a["packages"].modify(key, lambda doc: {**doc, "edited": {**doc.get("edited", {}), "a": 1}})
        for key in both + only_b:
            b["packages"].modify(key, lambda doc: {**doc, "edited": {**doc.get("edited", {}), "b": 2}})

        second = sync(a, b)
        siblings = {document.key: _contents(document) for document in a["packages"].conflicts()}
        siblings_b = {document.key: _contents(document) for document in b["packages"].conflicts()}
        settled = sync(a, b, json3)
        again = sync(a, b, json3)

        assert first.to_b.new == len(keys)
        assert (second.to_a.new, second.to_b.new) == (2_000, 2_000)
        assert sorted(siblings) == sorted(both)
        assert siblings == siblings_b
        assert all(set(found) == {'{"a": 1}', '{"b": 2}'} for found in siblings.values())
        assert (sorted(settled.resolved), settled.conflicts) == (sorted(both), 0)
        assert not again
        assert _revs(a) == _revs(b)
        assert all(a["packages"][key]["edited"] == {"a": 1, "b": 2} for key in both)
        assert all(a["packages"][key]["edited"] == {"a": 1} for key in only_a)
        assert all(a["packages"][key]["edited"] == {"b": 2} for key in only_b)


def _remembering(keys: list[str]) -> Iterator[tuple[str, Any]]:
    for row in lines(PACKAGES):
        keys.append(row["key"])
        yield row["key"], row["doc"]


def _contents(document: vstore.Document) -> list[str]:
    return [json.dumps(sibling.value["edited"]) for sibling in document.siblings]


def _revs(store: Store) -> dict[str, str]:
    return {change.key: change.rev for change in store["packages"].changes()}
