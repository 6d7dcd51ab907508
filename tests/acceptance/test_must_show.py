"""The main job on the real data: whole histories imported, a store over three kinds of database, two replicas; jobs
whose input is another job's result, a question over all versions, a view. Where the data is: `tests.data`.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import vstore
from mapreduce import Count, Last, Sum, TopK, run, view
from replication import sync
from tests.data import FIRES, PACKAGES, imported, lines, needs_data
from vstore import Store
from vstore.cli import main
from vstore.resolvers import json3

pytestmark = needs_data


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


# --- MapReduce -------------------------------------------------------------------------------------------------------


def needed(_key: str, package: Any) -> Iterator[tuple[str, None]]:
    """Each package that this one depends on, once, however many constraints it states."""
    for name in {each["name"] for each in package.get("depends", [])}:
        yield name, None


def dependents(packages: dict[str, Any]) -> dict[str, list[str]]:
    """Who depends on each package, in plain Python. Of a package that is not in the file too: some are virtual."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for key in sorted(packages):
        for name, _ in needed(key, packages[key]):
            found[name].append(key)
    return dict(found)


def test_who_depends_on_a_package_is_a_view(tmp_path: Path) -> None:
    """Built from 63,666 packages, and true again after some were changed, deleted and added."""
    url = f"sqlite:///{tmp_path / 'packages.db'}"
    imported([url], "packages", PACKAGES)
    plain = {row["key"]: row["doc"] for row in lines(PACKAGES)}
    expected = dependents(plain)

    with vstore.open(url) as store:
        packages = store["packages"]
        reverse = view(packages, "reverse_dependencies", map=needed, reduce=Count())
        one = [row.id for row in reverse.rows(key="libsodium23")]
        everything: defaultdict[str, list[str]] = defaultdict(list)
        for row in reverse.rows():
            everything[row.key].append(row.id)
        most = sorted(((row.value, row.key) for row in reverse.rows(group=True)), reverse=True)[:3]
        total = reverse.value()

        packages["0ad"] = plain["0ad"] = {**plain["0ad"], "depends": [{"name": "new-engine"}]}
        packages["new-engine"] = plain["new-engine"] = {"package": "new-engine", "depends": [{"name": "libc6"}]}
        del packages["libsodium-dev"], plain["libsodium-dev"]
        changed = dependents(plain)
        asked = ["0ad-data", "libc6", "libsodium23", "new-engine"]
        after = {name: [row.id for row in reverse.rows(key=name)] for name in asked}
        counts = {row.key: row.value for row in reverse.rows(keys=asked, group=True)}

    assert {"0ad", "libsodium-dev"} <= set(one)
    assert one == expected["libsodium23"]
    assert everything == expected
    assert most[0] == (len(expected["libc6"]), "libc6")
    assert most == sorted(((len(keys), name) for name, keys in expected.items()), reverse=True)[:3]
    assert total == sum(map(len, expected.values()))
    assert after == {name: changed.get(name, []) for name in asked}
    assert counts == {name: len(changed[name]) for name in asked if name in changed}
    assert after["new-engine"] == ["0ad"]
    assert "libsodium-dev" not in after["libsodium23"]


def closure(graph: dict[str, list[Any]], name: str) -> set[str]:
    """A package and everything it needs, directly or not. What is not in the graph is virtual, and needs nothing."""
    reached, todo = {name}, [name]
    while todo:
        for other in graph[todo.pop()][1]:
            if other in graph and other not in reached:
                reached.add(other)
                todo.append(other)
    return reached


def test_the_ten_largest_packages_with_all_they_need_are_a_chain_of_jobs(tmp_path: Path) -> None:
    """Size: installed kilobytes summed over the closure of depends, each package once; of virtual packages nothing.

    The first job makes a graph of the packages; the second runs over its result
    and takes the whole of it along, as each closure may need any part; the third
    runs over that one's result.
    """

    def edges(key: str, package: Any) -> Iterator[tuple[str, list[Any]]]:
        depends = sorted({each["name"] for each in package.get("depends", [])})
        yield key, [package.get("installed_size_kib", 0), depends]

    url = f"sqlite:///{tmp_path / 'packages.db'}"
    imported([url], "packages", PACKAGES)
    with vstore.open(url) as store:
        wanted = ["installed_size_kib", "depends"]
        graph = run(over=store["packages"], map=edges, reduce=lambda _key, found: found[0], fields=wanted, workers=2)
        nodes = dict(graph)
        sizes = run(
            over=graph,
            map=lambda key, _node: [(key, sum(nodes[each][0] for each in closure(nodes, key)))],
            reduce=Sum(),
            workers=2,
        )
        top = run(over=sizes, map=lambda key, size: [("top", [size, key])], reduce=TopK(10), workers=2)

    plain: dict[str, list[Any]] = {}
    for row in lines(PACKAGES):
        depends = {each["name"] for each in row["doc"].get("depends", [])}
        plain[row["key"]] = [row["doc"].get("installed_size_kib", 0), sorted(depends)]
    totals = {name: sum(plain[each][0] for each in closure(plain, name)) for name in plain}
    assert len(graph) == len(sizes) == 63_666
    assert dict(sizes) == totals
    assert top["top"] == sorted(([size, name] for name, size in totals.items()), reverse=True)[:10]
    assert top["top"][0] == [7_169_633, "texlive-full"]


def test_acres_burned_per_county_over_time_come_from_the_history_scan(url: str) -> None:
    """Of each fire the last figure it was reported with in a month, counted in full for each county it burned in.

    All versions are read, since today's documents know only the end of a fire,
    and those of fires that have left the list know nothing. The oracle reads the
    file.
    """
    imported([url], "fires", FIRES)

    def reports(key: str, version: vstore.Document) -> Iterator[tuple[list[str], tuple[int, list[Any]]]]:
        if not version.deleted and version.value["AcresBurned"] is not None:
            month = time.strftime("%Y-%m", time.gmtime(version.stamp // 1_000_000))
            yield [month, key], (version.stamp, [version.value["AcresBurned"], version.value["Counties"]])

    def counties(key: list[str], report: list[Any]) -> Iterator[tuple[list[str], float]]:
        for county in report[1]:
            yield [county, key[0]], report[0]

    with vstore.open(url) as store:
        fires = store["fires"]
        last = run(over=fires.history_scan(), map=reports, reduce=Last(), workers=2)
        burned = {tuple(key): acres for key, acres in run(over=last, map=counties, reduce=Sum(), workers=2)}

    newest: dict[tuple[str, str], tuple[float, list[str]]] = {}
    for row in lines(FIRES):  # in the order of time
        if not row.get("deleted") and row["doc"]["AcresBurned"] is not None:
            month = time.strftime("%Y-%m", time.gmtime(row["at"]))
            newest[month, row["key"]] = row["doc"]["AcresBurned"], row["doc"]["Counties"]
    expected: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for (month, _fire), (acres, names) in newest.items():
        for county in names:
            expected[county, month].append(acres)
    assert last.counters.documents == 4_307
    assert burned == {place: math.fsum(found) for place, found in expected.items()}
    assert [burned["Siskiyou", month] for month in ("2021-06", "2021-07", "2021-08")] == [17_709, 35_733, 85]
    assert list(burned) == sorted(burned)  # by county, then by month: in the order of the result
