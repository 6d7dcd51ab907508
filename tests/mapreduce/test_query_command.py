"""`vstore query`: what is asked on a command line, and what it prints for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vstore as library
from mapreduce.commands import formats
from mapreduce.commands.formats import fitted, width
from tests.acceptance.command import finished, process, values, vstore
from vstore.cli import program

pytestmark = pytest.mark.timeout(120)

PACKAGES = {
    "chess": {"section": "games", "size": 300, "tags": ["board", "cli"], "by": {"name": "Ann"}},
    "doom": {"section": "games", "size": 12_000, "tags": ["3d"], "by": {"name": "Bob"}, "note": 'it\'s "loud", really'},
    "gcc": {"section": "devel", "size": 90_000, "tags": [], "by": None, "note": None},
    "vim": {"section": "editors", "size": 3_000.5, "by": {"name": "Ann"}},
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    with library.open(url) as store:
        store["packages"].put_many(PACKAGES)
    return url


def on_a_terminal(*arguments: str, columns: int = 80) -> list[str]:
    """The command as a process whose stdout is a terminal of so many columns: the lines it printed."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "24"}
    with subprocess.Popen(
        [sys.executable, "-m", "vstore", *arguments], stdout=theirs, stderr=subprocess.PIPE, env=environment
    ) as running:
        os.close(theirs)
        printed = b""
        try:
            while piece := os.read(ours, 65536):
                printed += piece
        except OSError:  # how Linux says that nobody has the other end any more
            pass
        assert running.stderr is not None
        told = running.stderr.read().decode()
    os.close(ours)
    assert running.returncode == 0, told
    return printed.decode().splitlines()


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_documents_for_which_the_expression_is_true_are_printed_as_other_commands_print_them(url: str) -> None:
    """Stdout is data; how much was read is on stderr."""
    result = vstore("query", 'section == "games" and size > 10000', "packages", store=url)

    assert values(result) == [{"key": "doom", "doc": PACKAGES["doom"]}]
    assert result.stderr.startswith("2 documents, 1 row in ")  # the database left out the others


def test_columns_are_paths_and_calculations(url: str) -> None:
    """What a document has not is not in its row; null is."""
    rows = values(
        vstore(
            *("query", "size > 1000", "--select", "@key, by.name as author", "--select", "size * 2 as double, note"),
            *("--order-by", "@key"),
            store=url,
        )
    )

    assert rows == [
        {"@key": "doom", "author": "Bob", "double": 24_000, "note": 'it\'s "loud", really'},
        {"@key": "gcc", "double": 180_000, "note": None},
        {"@key": "vim", "author": "Ann", "double": 6_001.0},
    ]


def test_groups_and_their_figures(url: str) -> None:
    """Figures are named after what they are, unless they are given a name."""
    rows = values(
        vstore(
            *("query", "--group-by", "section", "--count", "--sum", "size", "--mean", "size as average"),
            *("--min", "size", "--max", "size", "--aggregate", "top(1, by.name) as who, distinct(tags)"),
            *("--order-by", "-count,section", "packages"),
            store=url,
        )
    )

    assert rows == [
        {"section": "games", "count": 2, "sum(size)": 12_300, "average": 6_150.0, "min(size)": 300,
         "max(size)": 12_000, "who": ["Bob"], "distinct(tags)": 2},
        {"section": "devel", "count": 1, "sum(size)": 90_000, "average": 90_000.0, "min(size)": 90_000,
         "max(size)": 90_000, "who": [], "distinct(tags)": 1},
        {"section": "editors", "count": 1, "sum(size)": 3_000.5, "average": 3_000.5, "min(size)": 3_000.5,
         "max(size)": 3_000.5, "who": ["Ann"], "distinct(tags)": 0},
    ]  # fmt: skip


def test_columns_of_groups_are_selected_as_those_of_documents_are(url: str) -> None:
    """By their names, which need not be expressions, and in calculations; what is not shown can still be sorted by."""
    asked = ["query", "--group-by", "section, by.name", "--count", "--sum", "size", "--sum", "size as all"]

    by_name = vstore(*asked, "--select", "sum(size), by.name", "--order-by", "-count,section,by.name", store=url)
    made = vstore(*asked, "--select", "by.name as who, all / count as each", "--order-by", "each", store=url)
    quoted = vstore(*asked, "--select", "by.name + section as both", store=url)

    assert [list(row.items()) for row in values(by_name)] == [
        [("sum(size)", 90_000)],
        [("sum(size)", 3_000.5), ("by.name", "Ann")],
        [("sum(size)", 300), ("by.name", "Ann")],
        [("sum(size)", 12_000), ("by.name", "Bob")],
    ]
    assert values(made) == [
        {"who": "Ann", "each": 300.0},
        {"who": "Ann", "each": 3_000.5},
        {"who": "Bob", "each": 12_000.0},
        {"each": 90_000.0},
    ]
    assert "In calculations it is written `by.name`." in quoted.stderr


def test_figures_of_all_documents_are_one_row(url: str) -> None:
    assert values(vstore("query", "--count", "--sum", "size", store=url)) == [{"count": 4, "sum(size)": 105_300.5}]
    assert values(vstore("query", "exists(tags)", "--count", store=url)) == [{"count": 3}]
    assert values(vstore("query", "false", "--count", "--max", "size", store=url)) == [{"count": 0, "max(size)": None}]


def test_rows_are_sorted_by_columns_and_by_expressions(url: str) -> None:
    def keys(*order: str) -> list[str]:
        return [row["@key"] for row in values(vstore("query", "--select", "@key,section", *order, store=url))]

    assert keys("--order-by", "-@key") == ["vim", "gcc", "doom", "chess"]
    assert keys("--order-by", "section,-@key") == ["gcc", "vim", "doom", "chess"]
    assert keys("--order-by", "-size") == ["gcc", "doom", "vim", "chess"]
    assert keys("--order-by", "length(@key), @key") == ["gcc", "vim", "doom", "chess"]
    assert keys("--order-by", "-size", "--limit", "1") == ["gcc"]
    assert keys("--order-by", "-size", "--offset", "1", "--limit", "2") == ["doom", "vim"]


def test_a_page_says_where_the_next_one_begins(url: str) -> None:
    """On stderr; the last page, which is not full, says nothing."""
    page = ["query", "--select", "@key", "--order-by", "-size", "--limit", "3"]

    first = vstore(*page, store=url)
    cursor = first.stderr.strip().rpartition("--after ")[2]
    second = vstore(*page, "--after", cursor, store=url)

    assert [row["@key"] for row in values(first)] == ["gcc", "doom", "vim"]
    assert [row["@key"] for row in values(second)] == ["chess"]
    assert "--after" not in second.stderr


def test_a_single_argument_is_the_collection_if_there_is_one_of_that_name(url: str) -> None:
    with library.open(url) as store:
        store["size"]["a"] = 1

    assert values(vstore("query", "size", store=url)) == [{"key": "a", "doc": 1}]
    assert values(vstore("query", "size", "packages", store=url)) == []  # a condition: no size is true
    assert "name one of them: packages, size" in vstore("query", "size > 1", store=url).stderr


def test_a_collection_that_is_misspelt_is_said_to_be_read_as_a_condition(url: str) -> None:
    """A name alone is also a condition, whether that field is true; its count of 0 looks like an empty collection."""
    misspelt, meant = (vstore("query", asked, "--count", store=url) for asked in ("pakages", "size > 1000"))

    assert values(misspelt) == [{"count": 0}]
    assert "vstore: there is no collection 'pakages'; read as a condition: where pakages is true\n" in misspelt.stderr
    assert "no collection" not in meant.stderr


def test_no_rows_at_all_are_a_limit_like_any_other(url: str) -> None:
    assert values(vstore("query", "--limit", "0", "packages", store=url)) == []
    assert vstore("query", "--limit", "0", "--csv", "--select", "size", "packages", store=url).stdout == "size\n"
    assert values(vstore("query", "--limit", "0", "--count", "packages", store=url)) == []


def test_keys_are_chosen_by_range_and_prefix_in_the_present_and_the_past(url: str) -> None:
    """A range of the past is the same range."""
    with library.open(url) as store:
        moment = store["packages"].read("vim").stamp
        store["packages"]["chess-2"] = {"size": 1}
        del store["packages"]["doom"]

    def keys(*options: str) -> list[str]:
        return sorted(row["key"] for row in values(vstore("query", *options, store=url)))

    assert keys("--prefix", "c") == ["chess", "chess-2"]
    assert keys("--start", "chess-2", "--end", "vim") == ["chess-2", "gcc"]
    assert keys("--start", "d", "--prefix", "c") == []
    assert keys("--at", str(moment)) == ["chess", "doom", "gcc", "vim"]
    assert keys("--at", str(moment), "--prefix", "c", "size > 1") == ["chess"]
    assert keys("--history", "--prefix", "do") == ["doom", "doom"]


def test_history_has_every_version_with_its_time(url: str) -> None:
    with library.open(url) as store:
        packages = store["packages"]
        packages["chess"] = {"section": "games", "size": 400}
        rev = packages.read("chess").rev
        del packages["chess"]

    versions = values(vstore("query", '@key == "chess"', "packages", "--history", store=url))
    grown = vstore(
        "query", "@deleted == false and size > 300", "packages", "--history", "--select", "@rev,size", store=url
    )

    assert [(each["deleted"], each.get("doc", {}).get("size")) for each in versions] == [
        (False, 300),
        (False, 400),
        (True, None),
    ]
    assert {"key", "rev", "time", "stamp", "deleted", "doc"} == versions[1].keys()
    assert {"@rev": rev, "size": 400} in values(grown)


def test_explain_says_how_and_runs_nothing(url: str) -> None:
    result = vstore("query", 'section == "games"', "packages", "--select", "size", "--explain", store=url)

    assert result.exit_code == 0
    assert "section" in result.stdout
    assert "doom" not in result.stdout


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["section = = 1", "packages"], "expected a path, a value or '(', and found '='"),
        (["--select", "a,", "packages"], "--select: this cannot be read: expected a path"),
        (["--sum", "a b"], "--sum: this cannot be read"),
        (["--aggregate", "meen(a)"], "--aggregate: this cannot be read: expected one of"),
        (["--order-by", "a ="], "--order-by: this cannot be read"),
        (["--select", "a", "--count"], "--select: groups have no column 'a', but count."),
        (["--select", "@key", "--count"], "--select: groups are no documents and have no @key."),
        (["--order-by", "-@stamp", "--count"], "--order-by: groups are no documents and have no @stamp."),
        (["--select", "section, section", "--group-by", "section", "--count"], "there are two columns 'section'"),
        (["--group-by", "a"], "--group-by wants a figure for each group"),
        (["--select", "a, b as a"], "there are two columns 'a'"),
        (["--json", "--csv"], "give one of --format, --json and --csv"),
        (["--history", "--at", "2026-01-01"], "Give one of them"),
        (
            ["--group-by", "section", "--count", "--order-by", "-size"],
            "groups have no column 'size', but section, count.",
        ),
        (["--order-by", "size desc"], "- before it turns it round: -price."),
        (["packages", "size > 3"], "the expression comes first: vstore query 'size > 3' packages"),
        (["--after", "abc"], "--after goes on in an order"),
        (["--limit", "-1"], "--limit"),
        (["--deadline", "0"], "--deadline"),
        (["--memory", "lots"], "is no size"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(url: str, arguments: list[str], complaint: str) -> None:
    result = vstore("query", *arguments, store=url)

    assert (result.exit_code, result.stdout) == (program.USAGE, "")
    assert complaint in result.stderr


def test_an_error_in_an_expression_shows_the_place(url: str) -> None:
    code, out, err = finished("query", "section nad size > 3", "packages", "--store", url)

    assert (code, out) == (program.USAGE, b"")
    assert "and found 'nad'. Did you mean 'and'? Nothing was run.\n" in err.decode()
    assert err.decode().endswith("\n  section nad size > 3\n          ^^^\n")


def test_what_is_not_there_is_not_found(url: str) -> None:
    assert vstore("query", "true", "pakages", store=url).exit_code == program.NOT_FOUND


# --- conflicts and errors --------------------------------------------------------------------------------------------


def test_conflicts_are_counted_and_handled_as_told(url: str) -> None:
    with library.open(url) as store:
        store["packages"].put("vim", {"size": 1}, context=library.Context("vim"))

    winner = vstore("query", "--count", store=url)
    skipped = vstore("query", "--count", "--on-conflict", "skip", store=url)
    refused = vstore("query", "--count", "--on-conflict", "raise", store=url)

    assert values(winner) == [{"count": 4}]
    assert "1 document with siblings read as their winner" in winner.stderr
    assert values(skipped) == [{"count": 3}]
    assert "1 document with siblings left out" in skipped.stderr
    assert refused.exit_code == program.CONFLICT


# --- formats ---------------------------------------------------------------------------------------------------------


def test_csv_has_a_header_and_can_be_read_back(url: str) -> None:
    """Quotes, commas and line ends are in quotes; arrays and objects are JSON; missing and null are nothing."""
    with library.open(url) as store:
        store["packages"]["odd"] = {"note": "two\nlines, é", "size": True, "by": [1, {"a": None}]}

    result = vstore("query", "--select", "@key,note,size,by", "--order-by", "@key", "--csv", store=url)

    assert result.exit_code == 0
    assert list(csv.reader(io.StringIO(result.stdout))) == [
        ["@key", "note", "size", "by"],
        ["chess", "", "300", '{"name":"Ann"}'],
        ["doom", 'it\'s "loud", really', "12000", '{"name":"Bob"}'],
        ["gcc", "", "90000", ""],
        ["odd", "two\nlines, é", "true", '[1,{"a":null}]'],
        ["vim", "", "3000.5", '{"name":"Ann"}'],
    ]
    assert result.stdout_bytes.splitlines(keepends=True)[0] == b"@key,note,size,by\n"


def test_a_table_is_aligned_and_numbers_are_on_the_right(url: str) -> None:
    """Null is shown, and what is missing is not."""
    result = vstore("query", "--select", "@key,size,note,by.name", "--order-by", "@key", "--format", "table", store=url)

    assert result.stdout.splitlines() == [
        "@key     size  note                 by.name",
        "chess     300                       Ann",
        'doom    12000  it\'s "loud", really  Bob',
        "gcc     90000  null",
        "vim    3000.5                       Ann",
    ]


def test_a_terminal_gets_a_table_no_wider_than_it_is(url: str) -> None:
    """The widest text gives way, whole documents too; numbers and narrow columns stay."""
    wide = on_a_terminal("query", "--select", "@key,size,note", "--order-by", "@key", "--store", url, columns=32)
    documents = on_a_terminal("query", "--store", url, "--order-by", "@key", columns=40)

    assert wide == [
        "@key     size  note",
        "chess     300",
        'doom    12000  it\'s "loud", rea…',
        "gcc     90000  null",
        "vim    3000.5",
    ]
    assert documents[:2] == ["key    doc", 'chess  {"section":"games","size":300,"t…']
    assert max(map(len, documents)) == 40


def test_control_characters_do_not_reach_a_terminal(url: str) -> None:
    with library.open(url) as store:
        store["packages"]["evil"] = {"note": "\x1b[2J\x9b\n", "by": {"\x9b": 1}}

    result = vstore("query", "--prefix", "e", "--select", "note,by", "--format", "table", store=url)

    assert result.stdout.splitlines()[1] == '"\\u001b[2J\\u009b\\n"  "{\\"\\u009b\\":1}"'


def test_a_table_measures_its_first_rows_and_streams_the_rest(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A later row that is longer is printed whole where no terminal cuts it."""
    monkeypatch.setattr(formats, "MEASURED_ROWS", 2)

    lines = vstore("query", "--select", "section,size", "--order-by", "-size", "--format", "table", store=url).stdout

    assert lines.splitlines() == [
        "section   size",
        "devel    90000",
        "games    12000",
        "editors  3000.5",
        "games      300",
    ]


def test_a_number_is_never_cut() -> None:
    """A part of it would be another number."""
    assert formats._line(["123456", "abcdef"], [3, 3], [True, False], cut=True) == "123456  ab…"
    assert formats._line(["123456", "abcdef"], [3, 3], [True, False], cut=False) == "123456  abcdef"


def test_wide_characters_take_two_places() -> None:
    assert [width(each) for each in ("abc", "é", "e\u0301", "日本", "")] == [3, 1, 1, 4, 0]


@pytest.mark.parametrize(
    ("widths", "room", "found"),
    [
        ([5, 9], 20, [5, 9]),
        ([30, 40, 10], 60, [25, 25, 10]),
        ([100, 9], 40, [31, 9]),
        ([100, 9], 10, [8, 8]),
        ([3, 4], 2, [3, 4]),
        ([11, 11, 11], 31, [10, 10, 10]),
    ],
)
def test_the_widest_columns_give_way_first(widths: list[int], room: int, found: list[int]) -> None:
    assert fitted(widths, room, [False] * len(widths)) == found


def test_columns_of_numbers_do_not_give_way() -> None:
    assert fitted([20, 20], 30, [True, False]) == [20, 10]


def test_numbers_that_json_libraries_do_not_have_are_printed(url: str) -> None:
    """The sum of integers of 64 bits may have more."""
    with library.open(url) as store:
        store["packages"].update({key: {"big": 2**63 - 1} for key in ("x", "y", "z")})

    assert vstore("query", "--sum", "big as n", store=url).stdout == '{"n":27670116110564327421}\n'
    [row] = values(vstore("query", "--aggregate", "s = stats(big)", store=url))
    assert (row["s"]["count"], row["s"]["sum"]) == (3, 27670116110564327421)


def test_what_is_not_finite_is_null_beside_an_integer_of_any_size(url: str) -> None:
    """The json module would write Infinity, which no reader of JSON knows."""
    with library.open(url) as store:
        store["packages"].update({key: {"big": 2**63 - 1, "far": 1e308} for key in ("x", "y", "z")})

    for figures in (["--sum", "far as f"], ["--sum", "far as f, big as n"]):
        assert '"f":null' in vstore("query", *figures, store=url).stdout


# --- among other programs --------------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_ends_the_query_quietly(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    with library.open(url) as store:
        store["numbers"].put_many((f"{n:06}", {"text": "x" * 200}) for n in range(20_000))

    with process("query", "true", "numbers", "--store", url) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        first = running.stdout.readline()
        running.stdout.close()
        err = running.stderr.read()

    assert json.loads(first)["doc"] == {"text": "x" * 200}
    assert (running.returncode, err) == (0, b"")


@pytest.mark.parametrize("arguments", [["get", "packages", "vim"], ["keys"], ["query", "--help"], ["map", "--help"]])
def test_commands_do_not_wait_for_modules_they_do_not_need(url: str, arguments: list[str]) -> None:
    """`vstore get` is to answer before anyone has noticed."""
    store = [] if "--help" in arguments else ["--store", url]
    code = (
        "import sys; from vstore.cli import main; main.main(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code, *arguments, *store], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert "vstore.cli.program" in loaded
    heavy = {"mapreduce.engine", "mapreduce.query.fields", "mapreduce.views.tables", "msgspec", "multiprocess", "dill"}
    assert not loaded & {*heavy, "pyarrow", "pandas", "polars", "distributed", "datasketches"}
    assert "--help" in arguments or "mapreduce" not in loaded
