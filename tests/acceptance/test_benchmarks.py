"""The benchmarks run and print every line of the budget. How fast things are is not tested: it is the machine's."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.mapreduce import documents as made_up
from benchmarks.mapreduce.__main__ import main as mapreduce
from benchmarks.mapreduce.contest import contest
from benchmarks.replication.__main__ import main as replication
from benchmarks.replication.packages import story

LINES = [
    "put_many, batches of 1,000",
    "put of a new document, a durable transaction each",
    "put of a new version of one (raw: replaced)",
    "put by 8 threads (raw: vstore, one thread)",
    "get",
    "items() of everything",
    "get, 20 versions each (raw: vstore, 1)",
    "items(), 20 versions each (raw: vstore, 1)",
    "open of an existing store",
    "import, open, first read, in a new process",
    "vstore get, as a command",
    "memory, put_many of 40 documents (raw: 4)",
    "memory, items of 40 documents (raw: 4)",
]


def test_the_benchmarks_print_every_line_of_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Someone runs them with next to nothing to do, and reads what each line cost and which budgets were met."""
    main(["--docs", "40", "--rounds", "1", "--folder", str(tmp_path)])

    printed = capsys.readouterr().out
    for work in LINES:
        assert re.search(rf"^{re.escape(work)} {{2,}}.*\d (×|ms|MiB)( |$)", printed, re.MULTILINE), work
    assert re.search(r"^\d+ of 12 budgets not met", printed, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []  # nothing is left on the disk that was measured


JOBS = [
    "a job of 100 documents, warm workers (raw: new ones)",
    *(
        f"{job}: {name}"
        for job in ("A group and sum", "B count words", "C filter")
        for name in (
            "functions, 1 worker",
            "functions, 2 workers",
            "fields, 1 worker",
            "fields, 2 workers",
            "query, 1 worker",
            "query, 2 workers",
            "DuckDB, 2 threads",
            "query, 2 workers (raw: DuckDB)",
        )
        if job != "B count words" or not name.startswith("query")  # a query has no loop over words
    ),
    "memory of the largest process, A functions, 2 workers",
    "memory of the largest process, B functions, 2 workers",
    "memory of the largest process, C functions, 2 workers",
    "memory of the largest process, A query, 2 workers",
    "memory of the largest process, C query, 2 workers",
    "8,000 distinct keys, 2 workers",
    "8,000 distinct keys, 2 workers: the largest process",
    "view of 400 documents, built (raw: executemany)",
    "view, updated after 400 changes",
    "view, reduced grouped by country, 400 rows",
    "view, reduced over a range, 400 rows",
]


def test_the_benchmarks_of_mapreduce_print_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With next to nothing to do; what was made of the documents stays for the next run, all else is gone."""
    pytest.importorskip("duckdb", reason="needs the extra `bench`")

    mapreduce(["--docs", "400", "--rounds", "1", "--keys", "--folder", str(tmp_path)])

    printed = capsys.readouterr().out
    for work in JOBS:
        assert re.search(rf"^{re.escape(work)} {{2,}}.*\d (×|ms|MiB|s)( |$)", printed, re.MULTILINE), work
    assert re.search(r"^\d+ of 1\d budgets not met", printed, re.MULTILINE)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "state") == ["documents-400"]


LINKS = [
    "SQLite: new replica of 300 (raw: put_many)",
    "SQLite: memory, a replica of 300 (raw: 30)",
    "SQLite: sync of 1,000 changes (raw: of 100)",
    "SQLite: sync of 10,000 changes (raw: of 1,000)",
    "SQLite: sync with nothing to do",
    "SQLite: the same, statements of the shard with most",
    "SQLite: compared in full, 0 differ",
    "SQLite: compared in full, 1 differ",
    "SQLite: compared in full, 100 differ",
    "SQLite: compared in full, 1,000 differ",
    "packages: 100 to 2 shards (raw: put_many)",
    "packages: 97 edits at both (raw: making them)",
    "packages: 20 conflicts settled",
]


def test_the_benchmarks_of_replication_print_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With next to nothing to do, and packages that are made up; nothing is left on the disk."""
    packages = tmp_path / "packages.jsonl.gz"
    with gzip.open(packages, "wt", encoding="utf-8") as file:
        for n in range(100):
            doc = {"package": f"p{n}", "version": "1", "section": "misc", "priority": "optional", "description": "?"}
            file.write(json.dumps({"key": f"p{n}", "doc": doc}) + "\n")
    folder = tmp_path / "disk"
    folder.mkdir()

    replication(["--documents", "300", "--folder", str(folder), "--packages", str(packages)])

    printed = capsys.readouterr().out
    for work in LINKS:
        assert re.search(rf"^{re.escape(work)} {{2,}}.*\d (×|ms|MiB|B|s)( |$)", printed, re.MULTILINE), work
    assert re.search(r"^\d+ of 8 budgets not met", printed, re.MULTILINE)
    assert list(folder.iterdir()) == []


def test_the_truth_of_the_packages_is_every_edit_and_nothing_else() -> None:
    """The oracle of a thousand conflicts, by itself: fields of both sides, deletes but where an edit rescued."""
    packages = {f"p{n:03d}": {"package": n, "homepage": "?"} for n in range(200)}
    told = story(packages, rivals=20)

    truth = told.truth(packages)

    deleted = {edit.key for edit in told.log if edit.changes is None}
    rescued = {edit.key for edit in told.log if edit.key in deleted and edit.changes is not None}
    assert len(told.rivals) == 20
    assert packages.keys() - truth.keys() == deleted - rescued
    assert len(deleted - rescued) == 2
    assert len(rescued) == 1
    for key in told.rivals:
        assert truth[key]["checked"] == {"by": "a"}
        assert truth[key]["section"].endswith("/b")
    touched = {edit.key for edit in told.log}
    assert all(truth[key] == packages[key] for key in packages.keys() - touched)
    assert all(truth[key]["package"] == packages[key]["package"] for key in truth)


def test_documents_are_made_once_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run finds the documents of the one before; those of a run that was interrupted are made anew."""
    monkeypatch.setenv("VSTORE_STATE", "")  # put back afterwards: the benchmark sets it for the processes it starts
    made = made_up.prepared(tmp_path, 30)
    lines = made.ndjson.read_bytes()
    made.ndjson.write_bytes(b"as it was left")

    again = made_up.prepared(tmp_path, 30).ndjson.read_bytes()
    (made.folder / "finished").unlink()
    anew = made_up.prepared(tmp_path, 30).ndjson.read_bytes()

    assert again == b"as it was left"
    assert anew == lines
    assert lines.count(b"\n") == 30


def test_contestants_that_disagree_are_not_timed() -> None:
    """A fast wrong answer cannot win: everybody answers once before the first round."""
    with pytest.raises(AssertionError, match=r"wrong and right differ: \[\('a', 2, 1\)\]"):
        contest({"right": lambda: {"a": 1}, "wrong": lambda: {"a": 2}}, 1)


def test_the_documents_are_the_same_in_every_run() -> None:
    """The seed is fixed, and more documents begin with the same ones."""
    few, more = list(made_up.documents(3)), list(made_up.documents(5))

    assert few == more[:3]
    assert few[0][0] == "order-000000000"
    assert len(few[0][1]) == 10
    assert len(few[0][1]["text"].split()) == 44
