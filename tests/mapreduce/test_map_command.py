"""`vstore map` over a store: which documents, how it runs, and where the groups go."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import vstore as library
from tests.acceptance.command import process, values, vstore
from vstore.cli import program

pytestmark = pytest.mark.timeout(120)

JOBS = """
import time

def sections(key, value): yield value["section"], value["size"]
def fields(key, value): yield sorted(value.keys()), 1
def sizes(key, value): yield "all", 1000 // value["size"]
def versions(key, version): yield key, 1
def slowly(key, value):
    print("started", flush=True)
    time.sleep(60)
    yield key, 1
def joined(key, values): return "+".join(map(str, sorted(values)))
def failing(key, values): return values[7]
"""
PACKAGES = {
    "chess": {"section": "games", "size": 300, "text": "x"},
    "doom": {"section": "games", "size": 12_000, "text": "x"},
    "gcc": {"section": "devel", "size": 90_000, "text": "x"},
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    with library.open(url) as store:
        store["packages"].put_many(PACKAGES)
    return url


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / f"jobs_{tmp_path.name}.py"  # modules are imported once per name
    path.write_text(JOBS)
    return str(path)


@pytest.mark.parametrize(
    ("reduce", "games"),
    [
        ("sum", 12_300),
        ("mean", 6_150.0),
        ("top:1", [12_000]),
        ("distinct~", 2),
        ("quantiles:0,1", [300.0, 12_000.0]),
        ("{jobs}:joined", "300+12000"),
    ],
)
def test_groups_are_reduced_by_name_or_by_a_function(url: str, jobs: str, reduce: str, games: object) -> None:
    result = vstore("map", f"{jobs}:sections", "--reduce", reduce.format(jobs=jobs), "--json", store=url)

    assert {row["key"]: row["value"] for row in values(result)}["games"] == games


def test_stats_are_printed_as_an_object(url: str, jobs: str) -> None:
    [devel, _games] = values(vstore("map", f"{jobs}:sections", "--reduce", "stats", "--json", store=url))

    assert (devel["value"]["count"], devel["value"]["max"]) == (1, 90_000)


def test_only_documents_for_which_the_condition_is_true(url: str, jobs: str) -> None:
    assert values(vstore("map", f"{jobs}:sections", "--where", "size < 20000", "--json", store=url)) == [
        {"key": "games", "value": 12_300}
    ]


def test_a_function_with_declared_fields_is_given_these(url: str, jobs: str) -> None:
    result = vstore("map", f"{jobs}:fields", "--fields", "section, size", "--json", store=url)
    wrong = vstore("map", f"{jobs}:fields", "--fields", "size * 2", "--json", store=url)

    assert values(result) == [{"key": ["section", "size"], "value": 3}]
    assert (wrong.exit_code, wrong.stdout) == (program.USAGE, "")
    assert "--fields takes paths such as author.name, and 'size * 2' is none" in wrong.stderr


def test_keys_are_chosen_by_prefix_and_range_and_versions_by_history(url: str, jobs: str) -> None:
    with library.open(url) as store:
        store["packages"]["doom"] = {"section": "games", "size": 1}

    def keys(*options: str) -> dict[str, int]:
        return {row["key"]: row["value"] for row in values(vstore("map", *options, "--json", store=url))}

    assert keys(f"{jobs}:versions", "--prefix", "d") == {"doom": 1}
    assert keys(f"{jobs}:versions", "--start", "d", "--end", "gcc") == {"doom": 1}
    assert keys(f"{jobs}:versions", "--history") == {"chess": 1, "doom": 2, "gcc": 1}
    assert keys(f"{jobs}:versions", "--history", "--prefix", "d", "--where", "size > 1") == {"doom": 1}


def test_a_document_that_fails_ends_the_job_or_is_named_and_left_out(url: str, jobs: str) -> None:
    """Its rev is named too, so that exactly that version can be looked at."""
    with library.open(url) as store:
        store["packages"]["empty"] = {"section": "games", "size": 0}
        rev = store["packages"].read("empty").rev

    failed = vstore("map", f"{jobs}:sizes", store=url)
    skipped = vstore("map", f"{jobs}:sizes", "--on-error", "skip", "--json", store=url)

    assert (failed.exit_code, failed.stdout) == (program.ERROR, "")
    assert "empty" in failed.stderr
    assert "ZeroDivisionError" in failed.stderr
    assert values(skipped) == [{"key": "all", "value": 3}]
    assert f"vstore: skipped empty ({rev}): ZeroDivisionError" in skipped.stderr
    assert "1 skipped" in skipped.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_line_of_a_function_that_fails_is_shown(url: str, jobs: str, workers: str) -> None:
    """Once, whether it failed in this process or in a worker."""
    with library.open(url) as store:
        store["packages"]["empty"] = {"section": "games", "size": 0}

    mapped = vstore("map", f"{jobs}:sizes", "--workers", workers, store=url)
    reduced = vstore("map", f"{jobs}:sections", "--reduce", f"{jobs}:failing", "--workers", workers, store=url)
    spilled = vstore(
        *("map", f"{jobs}:sections", "--reduce", f"{jobs}:failing", "--workers", workers, "--memory", "1"), store=url
    )

    lines = (
        (mapped, 'yield "all", 1000 // value["size"]'),
        (reduced, "return values[7]"),
        (spilled, "return values[7]"),
    )
    for failed, line in lines:
        assert failed.exit_code == program.ERROR
        assert failed.stderr.count(line) == 1
        assert "Traceback (most recent call last)" in failed.stderr


def test_documents_with_siblings_are_counted(url: str, jobs: str) -> None:
    with library.open(url) as store:
        store["packages"].put("gcc", {"section": "devel", "size": 1}, context=library.Context("gcc"))

    winner = vstore("map", f"{jobs}:sections", "--reduce", "count", store=url)
    skipped = vstore("map", f"{jobs}:sections", "--reduce", "count", "--on-conflict", "skip", store=url)

    assert winner.stdout == "devel\t1\ngames\t2\n"
    assert "1 document with siblings read as their winner" in winner.stderr
    assert skipped.stdout == "games\t2\n"
    assert "1 document with siblings left out" in skipped.stderr


def test_groups_are_stored_in_a_collection_instead(url: str, jobs: str) -> None:
    """Run again over what has changed, it replaces what it stored."""
    first = vstore("map", f"{jobs}:sections", "packages", "--into", "sizes", store=url)
    vstore("delete", "packages", "gcc", store=url)
    second = vstore("map", f"{jobs}:sections", "packages", "--into", "sizes", store=url)

    assert (first.exit_code, first.stdout) == (0, "")
    assert "3 documents, 3 pairs, 2 keys" in first.stderr
    assert "into 'sizes'" in first.stderr
    assert second.exit_code == 0
    with library.open(url) as store:
        assert {key: value for key, value in store["sizes"].items() if not key.startswith("_")} == {"games": 12_300}


def test_a_job_that_takes_too_long_is_given_up(url: str, jobs: str) -> None:
    result = vstore("map", f"{jobs}:slowly", "--deadline", "0.5", "--workers", "2", store=url)

    assert result.exit_code == program.ERROR
    assert "deadline" in result.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_the_job_and_its_workers(url: str, jobs: str, workers: str) -> None:
    arguments = ["map", f"{jobs}:slowly", "packages", "--workers", workers, "--store", url]
    with process(*arguments, start_new_session=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith(b"started")  # two of them at once, maybe
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=60)

    assert running.returncode == program.INTERRUPTED
    assert err.decode().splitlines()[-1] == "vstore: interrupted"
    for _ in range(600):  # the forkserver ends by itself, when nobody holds its other end
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("processes of the job are left")
