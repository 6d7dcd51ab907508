"""`vstore import` and `export`: every form, bad lines, repeating, resuming, and a kill at any moment."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

import vstore as library
from tests.acceptance.command import finished, process, values, vstore
from vstore.cli import program

FIRES = [
    {"at": 1600000000, "key": "oak", "doc": {"acres": 10}},
    {"at": 1600000000.5, "key": "elm", "doc": {"acres": 1}},
    {"at": 1600003600, "key": "oak", "doc": {"acres": 90}},
    {"at": 1600007200, "key": "elm", "deleted": True},
    {"at": 1600010800, "key": "elm", "doc": {"acres": 1}},
]


def text_of(lines: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def imported(store: str, *arguments: str, stdin: bytes | None = None) -> tuple[int, int, int]:
    """Inserted, unchanged and failed of an import of one file."""
    result = vstore("import", *arguments, "--json", store=store, stdin=stdin)
    counts = json.loads(result.stdout)
    return counts["inserted"], counts["unchanged"], counts["failed"]


def histories(*urls: str, collection: str = "c") -> dict[str, list[Any]]:
    """The values of every version of every key, oldest first; None for a tombstone."""
    with library.open(*urls, create=False) as store:
        documents = store[collection]
        keys = {change.key for change in documents.changes(full=True)}
        return {key: [version.value for version in documents.history(key)][::-1] for key in keys}


@pytest.fixture
def app(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'app.db'}"


# --- the forms -------------------------------------------------------------------------------------------------------


def test_lines_with_times_rebuild_history_and_export_gives_them_back(url: str) -> None:
    """On each kind of database: every version, its time, and the deletes."""
    text = text_of(FIRES)

    assert imported(url, "fires", "-", stdin=text) == (5, 0, 0)
    [elm] = values(vstore("at", "fires", "2020-09-13T13:30:00Z", "elm", store=url))
    history = values(vstore("history", "fires", "elm", "--json", store=url))
    exported = values(vstore("export", "fires", "--history", store=url))

    assert elm == {"acres": 1}
    assert [(each["stamp"], each["deleted"]) for each in history] == [
        (1600010800_000_000, False),
        (1600007200_000_000, True),
        (1600000000_500_000, False),
    ]
    assert exported == [FIRES[1], FIRES[3], FIRES[4], FIRES[0], FIRES[2]]  # key by key, in order of time


def test_an_export_is_imported_into_an_equal_collection(app: str, tmp_path: Path) -> None:
    with library.open(app) as store:
        store["c"].put_many((f"k{number}", {"n": number, "é": [1.0, None, "\u2028"]}) for number in range(300))
        for number in range(0, 300, 3):
            store["c"][f"k{number}"] = {"n": -number}
        store["c"].delete_many(f"k{number}" for number in range(0, 300, 7))
    now, then = tmp_path / "now.jsonl", tmp_path / "then.jsonl"
    now.write_bytes(vstore("export", "c", store=app).stdout_bytes)
    then.write_bytes(vstore("export", "c", "--history", store=app).stdout_bytes)
    other, whole = f"sqlite:///{tmp_path / 'other.db'}", f"sqlite:///{tmp_path / 'whole.db'}"

    assert imported(other, "c", str(now)) == (257, 0, 0)
    assert imported(whole, "c", str(then)) == (443, 0, 0)

    with library.open(app) as one, library.open(other) as two:
        assert dict(one["c"].items()) == dict(two["c"].items())
    assert histories(whole) == histories(app)


def test_an_export_of_siblings_says_which_it_shows(app: str) -> None:
    with library.open(app) as store:
        for number in (1, 2):
            store["c"].put("a", number, context=library.Context("a"))

    winner = vstore("export", "c", store=app)
    both = vstore("export", "c", "--history", store=app)

    assert len(winner.stdout.splitlines()) == 1
    assert winner.stderr == "vstore: 1 document has siblings; their winner was exported\n"
    assert sorted(json.loads(line)["doc"] for line in both.stdout.splitlines()) == [1, 2]
    assert both.stderr == "vstore: 1 document has siblings; their versions are in order of time\n"


def test_a_key_field_makes_each_line_a_document(app: str) -> None:
    assert imported(app, "c", "-", "--key", "id", stdin=b'\xef\xbb\xbf{"id":7,"n":1}\n\n  \n{"id":"x"}') == (2, 0, 0)

    assert histories(app) == {"7": [{"id": 7, "n": 1}], "x": [{"id": "x"}]}


def test_the_same_lines_are_one_file_however_compressed_and_named(app: str, tmp_path: Path) -> None:
    """What a file is compressed with shows in its bytes, and what has been imported in its lines."""
    text = text_of({"key": "a", "doc": number % 3} for number in range(7))
    plain, gz, zst = tmp_path / "a.jsonl", tmp_path / "b.gz", tmp_path / "no-ending"
    plain.write_bytes(text)
    gz.write_bytes(gzip.compress(text[:40]) + gzip.compress(text[40:]))
    zst.write_bytes(zstandard.compress(text))

    assert imported(app, "c", str(zst)) == (7, 0, 0)
    assert imported(app, "c", str(gz)) == (0, 7, 0)
    assert imported(app, "c", str(plain)) == (0, 7, 0)
    assert imported(app, "zst", "-", stdin=zstandard.compress(text)) == (7, 0, 0)
    assert imported(app, "gz", "-", stdin=gzip.compress(text)) == (7, 0, 0)


# --- bad lines -------------------------------------------------------------------------------------------------------

BAD = b'{"key":"a","doc":1}\n{"key":"b"\n{"key":"c","doc":3}\n{"key":"","doc":4}\n{"key":"e","doc":5}\n'


def test_a_bad_line_stops_the_import_and_is_named(app: str, tmp_path: Path) -> None:
    """What is before it is imported, what is after it is not; and the exit code says that something is wrong."""
    file = tmp_path / "bad.jsonl"
    file.write_bytes(BAD)

    result = vstore("import", "c", str(file), store=app)

    assert result.exit_code == program.ERROR
    assert result.stderr.startswith(f"vstore: {file}, line 2: text refused: it is no JSON document")
    assert result.stdout.splitlines()[0].startswith(f"{file}: 1 inserted, 0 unchanged, 1 failed in ")
    assert result.stdout.splitlines()[1:] == [
        "  failed lines: 2",
        "  stopped at line 2: what is before it is imported; --on-error skip goes on",
    ]
    assert histories(app) == {"a": [1]}


def test_bad_lines_are_skipped_when_told_and_counted_again_when_repeated(app: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(BAD)
    vstore("import", "c", str(file), store=app)

    first = vstore("import", "c", str(file), "--on-error", "skip", "--json", store=app)
    second = vstore("import", "c", str(file), "--on-error", "skip", "--json", store=app)

    assert (first.exit_code, second.exit_code) == (program.ERROR, program.ERROR)
    counts, again = json.loads(first.stdout), json.loads(second.stdout)
    assert (counts["inserted"], counts["unchanged"], counts["failed"], counts["failed_lines"]) == (2, 1, 2, [2, 4])
    assert (again["inserted"], again["unchanged"], again["failed"], again["failed_lines"]) == (0, 3, 2, [2, 4])
    assert "line 4: key '' refused" in first.stderr
    assert histories(app) == {"a": [1], "c": [3], "e": [5]}


def test_a_line_that_was_repaired_is_taken_up_where_the_import_had_stopped(app: str, tmp_path: Path) -> None:
    """70,000 bytes of one key, changing to and fro, before the bad line: comparing alone would write them anew."""
    file = tmp_path / "file.jsonl"
    good = [{"key": "a", "doc": [number % 2, "x" * 100]} for number in range(600)]
    file.write_bytes(text_of(good) + b"oops\n")
    assert imported(app, "c", str(file)) == (600, 0, 1)

    file.write_bytes(text_of(good) + b'{"key":"b","doc":1}\n')

    assert imported(app, "c", str(file)) == (1, 600, 0)
    assert {key: len(history) for key, history in histories(app).items()} == {"a": 600, "b": 1}


def test_a_version_older_than_what_is_there_is_refused(app: str) -> None:
    """Written on top it would be what `at` shows for moments that had another."""
    assert imported(app, "c", "-", stdin=b'{"at":2000,"key":"a","doc":2}') == (1, 0, 0)

    result = vstore(
        "import", "c", "-", store=app, stdin=b'{"at":1000,"key":"a","doc":1}\n{"at":3000,"key":"a","doc":3}'
    )

    assert result.exit_code == program.ERROR
    assert (
        "line 1: its time is 1970-01-01T00:16:40.000000Z, and 'a' has a version of 1970-01-01T00:33:20" in result.stderr
    )
    assert histories(app) == {"a": [2]}


def test_a_name_twice_is_refused_when_strict(app: str) -> None:
    text = b'{"key":"a","doc":{"n":1,"n":2}}'

    assert imported(app, "c", "-", "--strict", stdin=text) == (0, 0, 1)
    assert imported(app, "c", "-", stdin=text) == (1, 0, 0)


@pytest.mark.parametrize("cut", [20, -9])
def test_a_file_that_is_cut_off_is_an_error_and_its_rest_comes_later(app: str, tmp_path: Path, cut: int) -> None:
    """In the middle, and in the check sum at its end."""
    whole = gzip.compress(
        text_of({"key": f"k{number}", "doc": random.Random(number).random()} for number in range(500))
    )
    file = tmp_path / "file.gz"
    file.write_bytes(whole[:cut])

    broken = vstore("import", "c", str(file), store=app)
    file.write_bytes(whole)

    assert broken.exit_code == program.ERROR
    assert f"vstore: {file} is damaged after line " in broken.stderr
    assert imported(app, "c", str(file))[2] == 0
    assert len(histories(app)) == 500


def test_a_misspelt_file_leaves_no_new_store_behind(tmp_path: Path) -> None:
    result = vstore("import", "c", str(tmp_path / "absent.jsonl"), store=f"sqlite:///{tmp_path / 'new.db'}")

    assert result.exit_code == program.ERROR
    assert "absent.jsonl cannot be read: No such file or directory. Nothing was imported." in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there(app: str, tmp_path: Path) -> None:
    result = vstore("import", "c", str(tmp_path / "none.jsonl"), store=app)

    assert result.exit_code == program.ERROR
    assert "none.jsonl cannot be read: No such file or directory. Nothing was imported." in result.stderr


# --- again and again -------------------------------------------------------------------------------------------------


def test_importing_again_makes_no_new_versions(app: str, tmp_path: Path) -> None:
    """From a file and from a pipe; from the pipe only by comparing, so a document that is as it was stays so."""
    file = tmp_path / "fires.jsonl"
    file.write_bytes(text_of(FIRES))
    now = text_of({"key": f"k{number}", "doc": {"n": number}} for number in range(5))

    assert imported(app, "c", str(file)) == (5, 0, 0)
    assert imported(app, "c", str(file)) == (0, 5, 0)
    assert imported(app, "c", str(file), "--again") == (0, 5, 0)
    assert imported(app, "c", "-", stdin=text_of(FIRES)) == (0, 5, 0)
    assert imported(app, "c", "-", stdin=now) == (5, 0, 0)
    assert imported(app, "c", "-", stdin=now) == (0, 5, 0)
    assert sum(map(len, histories(app).values())) == 10


def test_equal_means_exactly_equal(app: str) -> None:
    """1, 1.0, true and "1" are four values; the order of an object's names is nothing."""
    text = b'{"key":"a","doc":{"x":1,"y":2}}\n{"key":"a","doc":{"y":2,"x":1}}\n{"key":"a","doc":{"y":2,"x":1.0}}\n'
    values = b'{"key":"b","doc":1}\n{"key":"b","doc":true}\n{"key":"b","doc":"1"}\n{"key":"b","doc":null}\n'
    deletes = b'{"key":"b","deleted":true}\n' * 2

    assert imported(app, "c", "-", stdin=text) == (2, 1, 0)
    assert imported(app, "c", "-", stdin=values + deletes) == (
        5,
        1,
        0,
    )


def test_what_was_deleted_since_comes_back_only_when_asked_again(app: str, tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.write_bytes(text_of([{"key": "a", "doc": 1}, {"key": "b", "doc": 2}]))
    imported(app, "c", str(file))
    values(vstore("delete", "c", "a", store=app))

    repeated = vstore("import", "c", str(file), store=app)

    assert "0 inserted, 2 unchanged" in repeated.stdout
    assert "2 of the unchanged were imported before; --again compares them with the store" in repeated.stdout
    assert imported(app, "c", str(file), "--again") == (1, 1, 0)


def test_siblings_are_settled_by_a_line_even_if_it_equals_one_of_them(app: str) -> None:
    with library.open(app) as store:
        for number in (1, 2):
            store["c"].put("a", number, context=library.Context("a"))

    assert imported(app, "c", "-", stdin=b'{"key":"a","doc":2}') == (1, 0, 0)
    assert vstore("get", "c", "a", store=app).stdout == "2\n"


def test_a_file_that_has_grown_goes_on_where_it_ended(app: str, tmp_path: Path) -> None:
    """A log: its versions change to and fro, so that comparing would write each of them again."""
    file = tmp_path / "log.jsonl"
    lines = [{"key": "a", "doc": [number % 2, "x" * 100]} for number in range(700)]
    file.write_bytes(text_of(lines))
    assert imported(app, "c", str(file)) == (700, 0, 0)

    file.write_bytes(text_of([*lines, {"key": "a", "doc": "new"}]))

    assert imported(app, "c", str(file)) == (1, 700, 0)
    assert len(histories(app)["a"]) == 701


def test_another_file_that_begins_alike_is_not_taken_for_the_same(app: str, tmp_path: Path) -> None:
    """Equal names, sizes and first 200 kB; one letter differs near the end. It has to arrive."""
    file = tmp_path / "daily.jsonl"
    lines = [{"key": f"k{number}", "doc": "x" * 200} for number in range(1_000)]
    file.write_bytes(text_of(lines))
    assert imported(app, "c", str(file)) == (1_000, 0, 0)

    lines[990] = {"key": "k990", "doc": "x" * 199 + "y"}
    file.write_bytes(text_of(lines))

    assert imported(app, "c", str(file)) == (1, 999, 0)
    assert vstore("get", "c", "k990", store=app).stdout[-3:] == 'y"\n'


# --- killed ----------------------------------------------------------------------------------------------------------

KILLED = """
import contextlib, os, signal, sys
from vstore.cli import main
from vstore.ndjson import imports
from vstore.shard import Shard

moment, after, transaction = int(sys.argv[1]), sys.argv[2] == "after", Shard.transaction
commits = 0

@contextlib.contextmanager
def transaction_and_die(shard):  # the shards of a batch commit one after the other
    global commits
    with transaction(shard):
        yield
        commits += 1
        if commits == moment and not after:
            os.kill(os.getpid(), signal.SIGKILL)
    if commits == moment:
        os.kill(os.getpid(), signal.SIGKILL)

Shard.transaction = transaction_and_die
imports.BATCH_LINES = 10
main(sys.argv[3:])
"""


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_loses_and_doubles_nothing(tmp_path: Path, moment: int, when: str) -> None:
    """Two shards, ten lines in a batch; keys come again and again and change to and fro. Killed with SIGKILL before or
    after the n-th commit, so that one shard may have a batch and the other not. Then simply imported again."""
    generator = random.Random(4711)
    rows = [{"key": f"k{generator.randrange(6)}", "doc": generator.randrange(2)} for _ in range(60)]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(text_of(rows))
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("one", "two")]
    command = ["import", "c", str(file), "--quiet", "--store", urls[0], "--store", urls[1]]
    expected: dict[str, list[int]] = {}
    for row in rows:
        history = expected.setdefault(row["key"], [])
        if not history or history[-1] != row["doc"]:
            history.append(row["doc"])

    killed = subprocess.run([sys.executable, "-c", KILLED, str(moment), when, *command], check=False)
    resumed, _, complaint = finished(*command)

    assert (killed.returncode, resumed, complaint) == (-signal.SIGKILL, 0, b"")
    assert histories(*urls) == expected


def test_a_kill_in_a_history_loses_and_doubles_nothing_without_a_checkpoint_either(tmp_path: Path) -> None:
    """From a pipe nothing is remembered; times tell what is there."""
    rows = [{"at": 1_600_000_000 + number // 3, "key": f"k{number % 4}", "doc": number} for number in range(60)]
    url = f"sqlite:///{tmp_path / 'app.db'}"
    command = ["import", "c", "-", "--quiet", "--store", url]

    killed = subprocess.run([sys.executable, "-c", KILLED, "3", "after", *command], input=text_of(rows), check=False)
    resumed, _, complaint = finished(*command, stdin=text_of(rows))

    assert (killed.returncode, resumed, complaint) == (-signal.SIGKILL, 0, b"")
    assert histories(url) == {f"k{key}": list(range(key, 60, 4)) for key in range(4)}


# --- at once ---------------------------------------------------------------------------------------------------------


STARTED = """
import sys
from vstore.cli import main
from vstore.ndjson import imports

imports.BATCH_LINES = 20
resumed = imports._Import._resumed

def resumed_and_waiting(self, again):
    found = resumed(self, again)
    print("looked", flush=True)
    sys.stdin.readline()
    return found

imports._Import._resumed = resumed_and_waiting
main(sys.argv[1:])
"""


def started(*command: str) -> subprocess.Popen[bytes]:
    """An import that has looked how far an earlier one was, and goes on when its stdin is closed."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen([sys.executable, "-c", STARTED, *command], **pipes)  # type: ignore[call-overload]
    assert running.stdout.readline() == b"looked\n"
    return running  # type: ignore[no-any-return]


def test_two_imports_of_one_file_at_once_make_each_version_once(url: str, tmp_path: Path) -> None:
    """Both begin before the other has written, and keys come twice, so that a line which is read after its successor
    was written would look new. One of them goes on, the other is told; repeating it finds everything there."""
    file = tmp_path / "rows.jsonl"
    file.write_bytes(text_of({"key": f"k{number % 60}", "doc": number} for number in range(120)))
    command = ["import", "c", str(file), "--quiet", "--store", url]
    with library.open(url) as store:
        store.create("c")

    with started(*command) as one, started(*command) as two:
        one.stdin.close()
        two.stdin.close()
        complaints = one.stderr.read() + two.stderr.read()
    repeated = finished(*command)

    assert sorted([one.returncode, two.returncode]) == [program.OK, program.ERROR]
    assert b"is being imported by somebody else at the same time, who goes on." in complaints
    assert repeated == (0, b"", b"")
    assert histories(url) == {f"k{key}": [key, key + 60] for key in range(60)}


def test_two_imports_of_equal_lines_from_pipes_make_each_version_once(url: str) -> None:
    """Nothing is remembered of a pipe, so both go to the end; the second finds what the first has written."""
    text = text_of({"key": f"k{number}", "doc": number} for number in range(100))
    command = ["import", "c", "-", "--json", "--store", url]
    with library.open(url) as store:
        store.create("c")

    with process(*command) as first, process(*command) as second:
        for each in (first, second):
            each.stdin.write(text)
            each.stdin.close()
        counts = [json.loads(each.stdout.read()) for each in (first, second)]

    assert sum(each["inserted"] for each in counts) == 100
    assert sum(each["unchanged"] for each in counts) == 100
    assert histories(url) == {f"k{number}": [number] for number in range(100)}


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_for_machines_is_json_on_stderr_and_quiet_says_nothing(
    app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch tells how far it is; how often that is shown is the clock's business, which stands still here."""
    from vstore.cli.output import Talk

    monkeypatch.setattr(Talk, "due", True)
    file = tmp_path / "file.jsonl"
    file.write_bytes(text_of({"key": f"k{number}", "doc": 0} for number in range(2_500)))

    shown = vstore("import", "a", str(file), "--progress", "json", store=app)
    words = vstore("import", "b", str(file), store=app)
    quiet = vstore("import", "c", str(file), "--quiet", store=app)

    assert [json.loads(line)["line"] for line in shown.stderr.splitlines()] == [1000, 2000]
    assert [line.split(" lines")[0] for line in words.stderr.splitlines()] == [f"{file}: 1,000", f"{file}: 2,000"]
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_a_report_for_programs(app: str) -> None:
    result = vstore("import", "c", "-", "--json", store=app, stdin=b'{"key":"a","doc":1}\nx\n')

    counts = json.loads(result.stdout)
    assert counts.pop("seconds") >= 0
    assert counts == {
        "file": "-",
        "line": 1,
        "inserted": 1,
        "unchanged": 0,
        "known": 0,
        "failed": 1,
        "failed_lines": [2],
        "stopped_at": 2,
    }
