"""The command line: what commands print, how they end, and how they behave among other programs."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

import vstore as library
from tests.acceptance.command import finished, process, values, vstore
from vstore import extension
from vstore.cli import main, program


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a store can be made; on SQLite, since the command line is the same on every database."""
    return f"sqlite:///{tmp_path / 'app.db'}"


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_document_is_put_read_changed_and_deleted(url: str) -> None:
    """What a command wrote is shown as its rev; what it read, as one line of JSON."""
    [first] = values(vstore("put", "posts", "a", '{"title": "Hé", "n": 1}', store=url))
    [second] = values(vstore("put", "posts", "a", '{"title": "Hé", "n": 2}', store=url))
    read = vstore("get", "posts", "a", store=url)
    [gone] = values(vstore("delete", "posts", "a", store=url))
    after = vstore("get", "posts", "a", store=url)

    assert (first["key"], first["rev"][:2], first["deleted"], first["siblings"]) == ("a", "1-", False, 1)
    assert second["rev"].startswith("2-")
    assert read.stdout == '{"title":"Hé","n":2}\n'
    assert (gone["rev"][:2], gone["deleted"]) == ("3-", True)
    assert (after.exit_code, after.stdout) == (program.NOT_FOUND, "")
    assert after.stderr.startswith("vstore: 'a' in 'posts': nothing live is stored under it.")


def test_a_value_comes_from_the_line_a_file_or_stdin(url: str, tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    file.write_text('["file"]')

    values(vstore("put", "posts", "a", "null", store=url))
    values(vstore("put", "posts", "b", f"@{file}", store=url))
    values(vstore("put", "posts", "c", "-", store=url, stdin="-1.5e3\n"))

    assert values(vstore("get", "posts", "a", "b", "c", store=url)) == [
        {"key": "a", "doc": None},
        {"key": "b", "doc": ["file"]},
        {"key": "c", "doc": -1500.0},
    ]


def test_of_several_keys_those_that_are_there_are_printed_before_the_error(url: str) -> None:
    values(vstore("put", "posts", "b", "2", store=url))

    result = vstore("get", "posts", "a", "b", store=url)

    assert (result.exit_code, result.stdout) == (program.NOT_FOUND, '{"key":"b","doc":2}\n')
    assert "vstore: 'a' in 'posts'" in result.stderr


def test_meta_gives_what_a_careful_writer_hands_back(url: str) -> None:
    """The context keeps a rival as a sibling; the condition refuses instead, and says what the document is at."""
    [first] = values(vstore("put", "posts", "a", "1", store=url))
    [meta] = values(vstore("get", "posts", "a", "--meta", store=url))
    values(vstore("put", "posts", "a", "2", "--context", meta["context"], store=url))

    [rival] = values(vstore("put", "posts", "a", "3", "--context", meta["context"], store=url))
    refused = vstore("put", "posts", "a", "4", "--match", first["rev"], store=url)
    absent = vstore("put", "posts", "a", "4", "--match", "absent", store=url)
    read = vstore("get", "posts", "a", store=url)
    [both] = values(vstore("get", "posts", "a", "--meta", store=url))

    assert (meta["rev"], meta["value"], meta["parents"]) == (first["rev"], 1, [])
    assert rival["siblings"] == 2
    assert [refused.exit_code, absent.exit_code, read.exit_code] == [program.CONFLICT] * 3
    assert refused.stderr.startswith(f"vstore: put of 'a' refused: match= asked for {first['rev']}")
    assert sorted(sibling["value"] for sibling in both["siblings"]) == [2, 3]


def test_keys_are_listed_in_order_by_prefix_range_and_number(url: str) -> None:
    with library.open(url) as store:
        store["posts"].put_many((key, 0) for key in ("b1", "a1", "b3", "ä", "b2"))

    assert vstore("keys", "posts", store=url).stdout == "a1\nb1\nb2\nb3\nä\n"
    assert vstore("keys", "posts", "--prefix", "b", "--reverse", "--limit", "2", store=url).stdout == "b3\nb2\n"
    assert values(vstore("keys", "posts", "--start", "b1", "--end", "b3", "--json", store=url)) == ["b1", "b2"]


def test_a_key_with_control_characters_does_not_reach_a_terminal_as_it_is(url: str) -> None:
    """Somebody else's document could otherwise clear the screen, or add a line to the list."""
    with library.open(url) as store:
        store["posts"]["\x1b[2Jx\ny"] = 0

    assert vstore("keys", "posts", store=url).stdout == '"\\u001b[2Jx\\ny"\n'


# --- the past --------------------------------------------------------------------------------------------------------


def test_history_diff_and_revert_name_versions_by_generation_or_beginning(url: str) -> None:
    revs = [
        values(vstore("put", "posts", "a", text, store=url))[0]["rev"] for text in ('{"n":1}', '{"n":2}', '{"n":3}')
    ]

    history = values(vstore("history", "posts", "a", "--json", store=url))
    patch = values(vstore("diff", "posts", "a", "1", revs[2][:9], "--json", store=url))
    people = vstore("diff", "posts", "a", store=url).stdout.splitlines()
    [reverted] = values(vstore("revert", "posts", "a", "1", store=url))
    unknown = vstore("diff", "posts", "a", "9", store=url)

    assert [(each["rev"], each["value"]) for each in history] == [(revs[n], {"n": n + 1}) for n in (2, 1, 0)]
    assert patch == [[{"op": "replace", "path": "/n", "value": 3}]]
    assert people[0].startswith(f"--- a {revs[1]} 20")
    assert people[1].startswith(f"+++ a {revs[2]} 20")
    assert people[3:] == [" {", '-  "n": 2', '+  "n": 3', " }"]
    assert reverted["rev"].startswith("4-")
    assert vstore("get", "posts", "a", store=url).stdout == '{"n":1}\n'
    assert vstore("get", "posts", "a", "--rev", "2", store=url).stdout == '{"n":2}\n'
    assert unknown.exit_code == program.NOT_FOUND


def test_a_beginning_that_several_revs_have_is_a_usage_error(url: str) -> None:
    """Two siblings have the same generation."""
    with library.open(url) as store:
        for number in (1, 2):
            store["posts"].put("a", number, context=library.Context("a"))

    result = vstore("diff", "posts", "a", "1", store=url)

    assert result.exit_code == program.USAGE
    assert "'1' is the beginning of 2 revs of 'a'" in result.stderr


def test_the_past_of_a_key_and_of_a_collection(url: str) -> None:
    lines = b'{"at":1000,"key":"a","doc":1}\n{"at":2000,"key":"b","doc":2}\n{"at":3000,"key":"a","deleted":true}\n'
    values(vstore("import", "posts", "-", "--json", store=url, stdin=lines))

    assert vstore("at", "posts", "1970-01-01T00:40Z", "a", store=url).stdout == "1\n"
    assert values(vstore("at", "posts", "1970-01-01T00:40Z", store=url)) == [
        {"key": "a", "doc": 1},
        {"key": "b", "doc": 2},
    ]
    assert values(vstore("at", "posts", "1970-01-02", store=url)) == [{"key": "b", "doc": 2}]
    assert vstore("at", "posts", "1970-01-02", "a", store=url).exit_code == program.NOT_FOUND
    assert vstore("at", "posts", "tomorrow", store=url).exit_code == program.USAGE


# --- conflicts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rivals(url: str) -> str:
    """A store with a document of two siblings that edited different fields of one base, and another at peace."""
    with library.open(url) as store:
        posts = store["posts"]
        posts["peace"] = 1
        posts["a"] = {"title": "T", "n": 0}
        base = posts.read("a").context
        posts.put("a", {"title": "T", "n": 1}, context=base)
        posts.put("a", {"title": "U", "n": 0}, context=base)
    return url


def test_conflicts_are_listed_with_their_siblings_and_settled_by_a_merge(rivals: str) -> None:
    [listed] = values(vstore("conflicts", "posts", "--json", store=rivals))
    [settled] = values(vstore("resolve", "posts", "a", "--resolver", "json3", store=rivals))

    assert listed["key"] == "a"
    assert sorted(sibling["value"]["title"] for sibling in listed["siblings"]) == ["T", "U"]
    assert settled["siblings"] == 1
    assert values(vstore("get", "posts", "a", store=rivals)) == [{"title": "U", "n": 1}]
    assert vstore("conflicts", "posts", store=rivals).stdout == ""


def test_a_conflict_is_settled_by_a_value_a_sibling_or_a_delete(rivals: str) -> None:
    [listed] = values(vstore("conflicts", "posts", "--json", store=rivals))
    chosen = listed["siblings"][1]

    values(vstore("resolve", "posts", "a", "--rev", chosen["rev"], store=rivals))
    assert values(vstore("get", "posts", "a", store=rivals)) == [chosen["value"]]

    values(vstore("resolve", "posts", "a", "[]", store=rivals))
    assert vstore("get", "posts", "a", store=rivals).stdout == "[]\n"

    values(vstore("resolve", "posts", "a", "--delete", store=rivals))
    assert vstore("get", "posts", "a", store=rivals).exit_code == program.NOT_FOUND


def test_a_function_from_a_file_settles_everything(rivals: str, tmp_path: Path) -> None:
    file = tmp_path / "settling.py"
    file.write_text("def longest(conflict): return {'titles': sorted(s.value['title'] for s in conflict.siblings)}")

    values(vstore("resolve", "posts", "--all", "--resolver", f"{file}:longest", store=rivals))

    assert values(vstore("get", "posts", "a", store=rivals)) == [{"titles": ["T", "U"]}]


def test_siblings_that_a_resolver_keeps_are_reported_as_a_conflict(rivals: str) -> None:
    result = vstore("resolve", "posts", "--all", "--resolver", "keep", store=rivals)

    assert result.exit_code == program.CONFLICT
    assert result.stderr == (
        "vstore: 1 document left with siblings: the resolver kept them. Nothing was lost.\n"
        "vstore: See `vstore conflicts COLLECTION`, and settle with `vstore resolve COLLECTION KEY …`.\n"
    )


def test_why_a_resolver_did_not_settle_a_document_is_shown_until_it_is_settled(rivals: str, tmp_path: Path) -> None:
    """One fails on this document and settles the others; another keeps it. Both stand beside the siblings."""
    file = tmp_path / "failing.py"
    file.write_text("def most(conflict): return {'best': conflict.base_value['best']}")
    with library.open(rivals) as store:
        base = store["posts"].put("b", {"best": 1}).context
        for value in (2, 3):
            store["posts"].put("b", {"best": value}, context=base)

    failed = vstore("resolve", "posts", "--all", "--resolver", f"{file}:most", store=rivals)
    kept = vstore("resolve", "posts", "a", "--resolver", "keep", store=rivals)
    listed = vstore("conflicts", "posts", store=rivals).stdout
    [as_json] = values(vstore("conflicts", "posts", "--json", store=rivals))

    assert (failed.exit_code, kept.exit_code) == (program.CONFLICT, program.CONFLICT)
    assert "resolver failing:most failed on 'a': KeyError: 'best'" in failed.stderr
    assert "1 document left with siblings: the resolver failed on them" in failed.stderr
    assert values(vstore("get", "posts", "b", store=rivals)) == [{"best": 1}]
    assert re.search(r"^  failing:most: KeyError: 'best' \(since 20", listed, re.MULTILINE)
    assert re.search(r"^  keep: kept them \(since 20", listed, re.MULTILINE)
    assert [(each["resolver"], each["reason"], each["tries"]) for each in as_json["unsettled"]] == [
        ("failing:most", "KeyError: 'best'", 1),
        ("keep", "kept them", 1),
    ]
    vstore("put", "posts", "a", "1", store=rivals)
    assert vstore("conflicts", "posts", store=rivals).stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["resolve", "posts", "a"],
        ["resolve", "posts", "a", "1", "--delete"],
        ["resolve", "posts", "--all", "--delete"],
        ["resolve", "posts", "--resolver", "json3"],
        ["resolve", "posts", "a", "--resolver", "best"],
    ],
)
def test_a_resolve_that_does_not_say_one_thing_is_a_usage_error(rivals: str, arguments: list[str]) -> None:
    assert vstore(*arguments, store=rivals).exit_code == program.USAGE
    assert values(vstore("conflicts", "posts", "--json", store=rivals)) != []


# --- the feed and the store ------------------------------------------------------------------------------------------


def test_the_feed_goes_on_from_the_token_that_it_ended_with(url: str) -> None:
    values(vstore("put", "posts", "a", "1", store=url))
    *before, end = values(vstore("changes", "posts", "--json", store=url))
    values(vstore("put", "posts", "a", "2", store=url))

    *after, _ = values(vstore("changes", "posts", "--json", "--values", "--since", end["since"], store=url))
    wrong = vstore("changes", "posts", "--full", "--since", end["since"], store=url)

    assert [change["key"] for change in before] == ["a"]
    assert [(change["key"], change["value"], change["deleted"]) for change in after] == [("a", 2, False)]
    assert wrong.exit_code == program.ERROR
    assert "token of the compacted feed" in wrong.stderr


def test_prune_counts_first_and_then_lets_go(url: str) -> None:
    for number in range(4):
        values(vstore("put", "posts", "a", str(number), store=url))

    [planned] = values(vstore("prune", "posts", "--keep-last", "1", "--dry-run", "--json", store=url))
    [done] = values(vstore("prune", "posts", "--keep-last", "1", "--json", store=url))

    assert (planned["pruned"], planned["kept"], planned["dry_run"]) == (3, 1, True)
    assert (done["pruned"], done["kept"]) == (3, 1)
    assert [each["value"] for each in values(vstore("history", "posts", "a", "--json", store=url))] == [3]
    assert vstore("prune", "posts", store=url).exit_code == program.USAGE


def test_a_flipped_bit_is_found_and_has_an_exit_code_of_its_own(url: str) -> None:
    values(vstore("put", "posts", "a", '{"n": 1}', store=url))
    sound = vstore("check", store=url)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE vs_version SET body = CAST('{\"n\":3}' AS BLOB)")

    damaged = vstore("check", "--json", store=url)

    assert (sound.exit_code, sound.stdout) == (program.OK, "")
    assert damaged.exit_code == program.DAMAGE
    assert [json.loads(line)["key"] for line in damaged.stdout.splitlines()] == ["a"]


def test_a_copy_is_a_replica_with_history_that_syncs_both_ways(url: str, tmp_path: Path) -> None:
    twin = f"sqlite:///{tmp_path / 'twin.db'}"
    for number in (1, 2):
        values(vstore("put", "posts", "a", str(number), store=url))

    [copied] = values(vstore("copy", "--to", twin, "--json", store=url))
    values(vstore("put", "posts", "b", '"there"', store=twin))
    values(vstore("put", "posts", "a", "3", store=url))
    first = vstore("sync", "--with", twin, store=url)
    second = vstore("sync", "--with", twin, store=url)

    assert copied["versions"] == 2
    assert first.stdout == "posts: sent 1 row, received 1\n"
    assert second.stdout == "posts: nothing to do\n"
    assert vstore("get", "posts", "b", store=url).stdout == '"there"\n'
    assert [each["value"] for each in values(vstore("history", "posts", "a", "--json", store=twin))] == [3, 2, 1]


def test_map_runs_a_function_from_a_file_over_the_present_and_the_past(url: str, tmp_path: Path) -> None:
    file = tmp_path / "counting.py"
    file.write_text("def parity(key, value): yield value % 2, 1\n")
    lines = b'{"at":1000,"key":"a","doc":1}\n{"at":2000,"key":"b","doc":2}\n{"at":2000,"key":"c","doc":3}\n'
    values(vstore("import", "numbers", "-", "--json", store=url, stdin=lines))

    now = vstore("map", f"{file}:parity", "numbers", store=url)
    then = vstore("map", f"{file}:parity", "numbers", "--at", "1970-01-01T00:20Z", "--json", store=url)

    assert now.stdout == "0\t1\n1\t2\n"
    assert values(then) == [{"key": 1, "value": 1}]


def test_several_shards_are_made_found_in_any_order_and_not_confused(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("one", "two")]
    [made] = values(vstore("init", "--store", urls[0], "--store", urls[1]))
    values(vstore("put", "posts", "a", "1", "--store", urls[0], "--store", urls[1]))

    turned = vstore("get", "posts", "a", "--store", urls[1], "--store", urls[0])
    half = vstore("get", "posts", "a", "--store", urls[0])

    assert made["shards"] == urls
    assert turned.stdout == "1\n"
    assert half.exit_code == program.ERROR
    assert "has 2 shards, and 1 database was given" in half.stderr


def test_collections_are_created_renamed_and_dropped(url: str) -> None:
    assert vstore("collections", "create", "posts", "--partitions", "8", store=url).exit_code == 0
    values(vstore("put", "posts", "a", "1", store=url))
    assert vstore("collections", "rename", "posts", "articles", store=url).exit_code == 0
    assert values(vstore("collections", "--json", store=url)) == [{"collection": "articles", "documents": 1}]

    unsure = vstore("collections", "drop", "articles", store=url, stdin="n\n")
    assert unsure.exit_code == program.INTERRUPTED
    assert vstore("collections", store=url).stdout == "articles\n"

    assert vstore("collections", "drop", "articles", "--yes", store=url).exit_code == 0
    assert vstore("collections", store=url).stdout == ""


def test_statistics_for_people_and_for_programs(url: str) -> None:
    for value in ("[1,2]", "[3]"):
        values(vstore("put", "posts", "a", value, store=url))

    table = vstore("stats", store=url).stdout.splitlines()
    [counts] = values(vstore("stats", "posts", "--json", store=url))

    assert table[0].split() == [
        "collection",
        "documents",
        "tombstones",
        "conflicts",
        "versions",
        "stubs",
        "body",
        "bytes",
        "longest",
        "clock",
        "actors",
    ]
    assert table[1].split() == ["posts", "1", "0", "0", "2", "0", "8", "1", "1"]
    assert counts == {
        "collection": "posts",
        "documents": 1,
        "tombstones": 0,
        "conflicts": 0,
        "versions": 2,
        "stubs": 0,
        "body_bytes": 8,
        "longest_clock": 1,
        "actors": 1,
    }


# --- which store, which collection -----------------------------------------------------------------------------------


def test_the_store_is_the_one_given_else_the_environment_s_else_vstore_db(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = "sqlite:///other.db"
    values(vstore("put", "posts", "a", '"default"'))
    values(vstore("put", "posts", "a", '"given"', store=url))
    monkeypatch.setenv("VSTORE_STORE", other)
    values(vstore("put", "posts", "a", '"environment"'))

    assert (tmp_path / "vstore.db").exists()
    assert vstore("get", "posts", "a").stdout == '"environment"\n'
    assert vstore("get", "posts", "a", store=url).stdout == '"given"\n'
    monkeypatch.delenv("VSTORE_STORE")
    assert vstore("get", "posts", "a").stdout == '"default"\n'


def test_reading_makes_no_store_and_no_collection(url: str) -> None:
    """A mistyped URL shall not leave an empty file that the next command takes for a store."""
    missing = vstore("get", "posts", "a", store=url)
    assert missing.exit_code == program.NOT_FOUND
    assert not Path(url.removeprefix("sqlite:///")).exists()

    values(vstore("init", store=url))
    assert vstore("keys", "posts", store=url).exit_code == program.NOT_FOUND
    assert vstore("collections", store=url).stdout == ""


def test_the_collection_may_be_left_out_where_there_is_just_one(url: str) -> None:
    values(vstore("init", store=url))
    none = vstore("keys", store=url)
    values(vstore("put", "posts", "a", "1", store=url))
    one = vstore("keys", store=url)
    values(vstore("put", "notes", "b", "1", store=url))
    two = vstore("keys", store=url)

    assert (none.exit_code, one.stdout, two.exit_code) == (program.NOT_FOUND, "a\n", program.USAGE)
    assert "the store has 2 collections, name one of them: notes, posts" in two.stderr


# --- as a program among others ---------------------------------------------------------------------------------------


def test_exit_codes_of_the_process_and_no_traceback(url: str) -> None:
    """0 ok, 1 error, 2 usage, 3 not found, 4 conflict; the message is on stderr, in one line or a few."""
    assert finished("put", "posts", "a", "1", "--store", url)[0] == 0
    codes = [
        finished("put", "posts", "a", "{", "--store", url),
        finished("put", "posts", "--store", url),
        finished("get", "posts", "b", "--store", url),
        finished("put", "posts", "a", "2", "--match", "absent", "--store", url),
    ]

    assert [code for code, _, _ in codes] == [1, 2, 3, 4]
    for _, out, err in codes:
        assert out == b""
        assert b"Traceback" not in err
        assert 0 < len(err.splitlines()) <= 4


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(url: str) -> None:
    """`vstore keys posts | head -1`: more than a pipe holds is still to be written when head goes away."""
    with library.open(url) as store:
        store["posts"].put_many((f"{number:020}", 0) for number in range(10_000))

    with process("keys", "posts", "--store", url) as running:
        first = running.stdout.readline()
        running.stdout.close()
        complaint = running.stderr.read()

    assert (first, running.returncode, complaint) == (b"00000000000000000000\n", 0, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "--version", "keys --help", "stats"])
def test_a_stdout_that_cannot_be_written_has_no_traceback(url: str, command: str, unbuffered: str) -> None:
    """A reader who is gone is fine, and so is a stdout that is closed; a full disk is an error, and named."""
    values(vstore("put", "posts", "a", "1", store=url))
    program_ = f'"{sys.executable}" -m vstore {command}'
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "VSTORE_STORE": url}

    def ends(how: str) -> tuple[int, str]:
        done = subprocess.run(["bash", "-c", how], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    gone = ends(f"set -o pipefail; {program_} | true")
    closed = ends(f"{program_} >&-")
    full = ends(f"{program_} >/dev/full")

    assert gone == closed == (0, "")
    assert full == (1, "vstore: stdout cannot be written: No space left on device.\n")


def test_a_temporary_store_and_urls_with_commas_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a command writes into the one would be gone when it ends; the other is no URL of a database."""
    monkeypatch.chdir(tmp_path)
    temporary = vstore("put", "posts", "a", "1", store="sqlite://")
    monkeypatch.setenv("VSTORE_STORE", "sqlite:///a.db,sqlite:///b.db")
    commas = vstore("put", "posts", "a", "1")

    assert (temporary.exit_code, commas.exit_code) == (program.ERROR, program.ERROR)
    assert temporary.stderr.startswith("vstore: sqlite:// is a temporary store, which would be gone")
    assert "Separate them by blanks in $VSTORE_STORE" in commas.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_says_what_to_do_on_a_command_line(rivals: str) -> None:
    """The message is the library's; the last line is for the shell."""
    read = vstore("get", "posts", "a", store=rivals)
    absent = vstore("put", "posts", "a", "9", "--match", "absent", store=rivals)
    wrong = vstore("put", "posts", "a", "9", "--match", "9-zz", store=rivals)

    assert (read.exit_code, absent.exit_code, wrong.exit_code) == (program.CONFLICT, program.CONFLICT, program.ERROR)
    assert read.stderr.splitlines()[-1] == (
        "vstore: See `vstore conflicts COLLECTION`, and settle with `vstore resolve COLLECTION KEY …`."
    )
    assert absent.stderr.splitlines()[-1] == "vstore: See what is there: `vstore get COLLECTION KEY --meta`."
    assert wrong.stderr.startswith("vstore: --match '9-zz' is neither a rev nor a context. Nothing was written.")


def test_a_value_with_a_name_twice_is_refused(url: str) -> None:
    values(vstore("put", "posts", "a", "1", store=url))

    refused = vstore("put", "posts", "a", '{"x": [{"n": 1, "n": 2}]}', store=url)

    assert refused.exit_code == program.ERROR
    assert "the name 'n' twice" in refused.stderr
    assert vstore("get", "posts", "a", store=url).stdout == "1\n"


def test_commands_that_print_json_lines_anyway_accept_the_option(url: str) -> None:
    values(vstore("put", "posts", "a", "1", store=url))

    for command in (["get", "posts", "a"], ["at", "posts", "2200-01-01"], ["export", "posts"]):
        assert values(vstore(*command, "--json", store=url)) == values(vstore(*command, store=url)) != []


def test_an_interrupted_follower_says_where_it_was(url: str) -> None:
    """Ctrl-C while it waits for more: exit 130, and the token for the next run is the last line."""
    values(vstore("put", "posts", "a", "1", store=url))

    with process("changes", "posts", "--follow", "--json", "--store", url) as running:
        first = json.loads(running.stdout.readline())  # it is flushed at once, so the follower is waiting by now
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read().splitlines()
        complaint = running.stderr.read()

    assert first["key"] == "a"
    assert running.returncode == program.INTERRUPTED
    assert complaint == b"\nvstore: interrupted\n"  # first the line that shows ^C ends
    assert values(vstore("changes", "posts", "--json", "--since", json.loads(rest[-1])["since"], store=url))[:-1] == []


def test_get_imports_nothing_that_it_does_not_need(url: str) -> None:
    """It has to answer in a quarter of a second, most of which is importing."""
    values(vstore("put", "posts", "a", "1", store=url))
    script = f"""
import sys
from vstore.cli import main
main(["get", "posts", "a", "--store", {url!r}], standalone_mode=False)
sys.stdout.flush()
print(*sorted(name for name in sys.modules if name.startswith(
    ("mapreduce", "replication", "multiprocess", "dill", "jsonpatch", "sqlalchemy.dialects.p", "sqlalchemy.dialects.m",
     "vstore.ndjson", "vstore.extension", "psycopg", "pymysql")
)))
"""

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "1\n\n"


def test_every_command_explains_itself() -> None:
    """The help page lists what vstore promises, extensions included, and each command has a page of its own."""
    documents = ["put", "get", "delete", "history", "diff", "revert", "keys", "at", "conflicts", "resolve", "changes"]
    stores = ["init", "import", "export", "prune", "check", "copy", "stats", "collections", "sync", "map", "demo"]

    page = vstore("--help")

    assert page.exit_code == 0
    for name in documents + stores:
        assert f"\n  {name} " in page.stdout
        assert vstore(name, "--help").stdout.startswith(f"Usage: vstore {name} ")


# --- extensions ------------------------------------------------------------------------------------------------------


class Greeting:
    """An extension as a package would have it."""

    def commands(self) -> list[click.Command]:
        return [click.Command("greet", callback=lambda: click.echo("hello")), click.Command("get")]


GREETING = Greeting()


def test_a_broken_extension_is_reported_and_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """One is not installed any more, one is no extension, and one works and may not replace a command of ours."""
    entries = [
        EntryPoint("absent", "no_such_package:extension", extension.GROUP),
        EntryPoint("greeting", f"{__name__}:GREETING", extension.GROUP),
        EntryPoint("wrong", "json:dumps", extension.GROUP),
    ]
    monkeypatch.setattr(extension, "entry_points", lambda group: entries)
    monkeypatch.setattr(main, "_extended", None)

    greeted = vstore("greet")
    put = vstore("put", "posts", "a", "1", store=url)
    read = vstore("get", "posts", "a", store=url)

    assert (greeted.exit_code, greeted.stdout) == (0, "hello\n")
    assert "the extension 'absent' is left out: ModuleNotFoundError" in greeted.stderr
    assert "the extension 'wrong' is left out: TypeError: json:dumps has no commands()" in greeted.stderr
    assert (put.stderr, read.stdout) == ("", "1\n")
    monkeypatch.setattr(main, "_extended", None)


def test_a_resolver_that_hangs_is_left_alone(rivals: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs a command the time that it is given, once, and not the evening."""
    monkeypatch.setattr("vstore.limited.Limited.__init__.__defaults__", (0.1,))
    file = tmp_path / "hanging.py"
    file.write_text("import threading\n\ndef hang(conflict):\n    threading.Event().wait(20)\n")

    result = vstore("resolve", "posts", "--all", "--resolver", f"{file}:hang", store=rivals)

    assert result.exit_code == program.CONFLICT
    assert "took longer than 0.1 s" in result.stderr
