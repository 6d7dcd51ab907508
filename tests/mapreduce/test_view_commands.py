"""`vstore views` and `vstore view`, the files that declare views, and keeping them fresh."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

import vstore
from mapreduce import keep_fresh, view
from mapreduce.views.declared import declarations
from mapreduce.views.fresh import Kept
from tests.acceptance.command import values
from tests.acceptance.command import vstore as command
from vstore import ConfigurationError, Store

FUNCTIONS = """
def pairs(key, value):
    yield [value["place"], key], value["n"]

def total(key, values):
    return sum(values)
"""
PYTHON = """
from mapreduce import declare_view

@declare_view("d", name="by_place", reduce="sum")
def declared_pairs(key, value):
    yield [value["place"], key], value["n"]
"""
TOML = """
[by_place]
collection = "d"
map = "view_functions.py:pairs"
reduce = "sum"
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with three documents."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with vstore.open(url) as store:
        store["d"].put_many({"a": {"place": "x", "n": 1}, "b": {"place": "y", "n": 2}, "c": {"place": "x", "n": 4}})
    return url


@pytest.fixture(params=["python", "toml"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same view, declared in each way."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("view_functions", "declaring"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if request.param == "python":
        path = tmp_path / "declaring.py"
        path.write_text(PYTHON)
    else:
        path = tmp_path / "declaring.toml"
        path.write_text(TOML)
        (tmp_path / "view_functions.py").write_text(FUNCTIONS)
    return str(path)


def test_declared_views_are_listed_updated_and_read(url: str, file: str) -> None:
    """Absent at first, then built, then read with their functions and without."""
    [absent] = values(command("views", "--views", file, "--json", store=url))
    assert (absent["name"], absent["state"]) == ("by_place", "absent")

    [status] = values(command("views", "--views", file, "--update", "--json", store=url))
    assert (status["state"], status["rows"], status["pending"]) == ("serving", 3, 0)
    groups = values(command("view", "by_place", "--views", file, "--group-level", "1", "--json", store=url))
    assert groups == [{"key": ["x"], "value": 5}, {"key": ["y"], "value": 2}]
    plain = command("view", "by_place", "--start", '["x", "b"]', "--end", '["y", {}]', store=url)
    assert plain.stdout == '["x","c"]\t4\tc\n["y","b"]\t2\tb\n'
    assert values(command("view", "by_place", "--reduce", "--json", store=url)) == [{"key": None, "value": 7}]


def test_a_view_is_read_page_by_page(url: str, file: str) -> None:
    """The cursor comes last, and --after goes on there."""
    command("views", "--views", file, "--update", store=url)

    *rows, end = values(command("view", "by_place", "--limit", "2", "--json", store=url))
    more = values(command("view", "by_place", "--after", end["after"], "--json", store=url))

    assert [row["id"] for row in rows + more] == ["a", "c", "b"]


def test_documents_that_fail_are_shown(url: str, file: str) -> None:
    """With what was raised."""
    with vstore.open(url) as store:
        store["d"]["bad"] = {}
    command("views", "--views", file, "--update", store=url)

    found = values(command("view", "by_place", "--errors", "--json", store=url))

    assert [(each["id"], each["error"]) for each in found] == [("bad", "KeyError: 'place'")]


def test_a_view_is_dropped(url: str, file: str) -> None:
    """And then there is none of that name: exit 3."""
    command("views", "--views", file, "--update", store=url)

    assert command("views", "d", "--drop", "by_place", store=url).exit_code == 0
    assert command("view", "by_place", store=url).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["views", "--update"], "--views FILE"),
        (["views", "--drop", "x"], "COLLECTION"),
        (["views", "--views", "nothing.py"], "no file"),
        (["view", "v", "--key", "[1"], "no JSON"),
    ],
)
def test_mistakes_in_the_command_line_exit_with_two(url: str, arguments: list[str], says: str) -> None:
    """Before anything is done."""
    result = command(*arguments, store=url)

    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[v\n", "line 1"),
        ('[v]\ncollection = "d"\n', "has no map"),
        ('[v]\ncollection = "d"\nmap = "nothing.py:f"\n', "line 3"),
        ('[w]\n[v]\ncollection = "d"\nmaps = "x"\n', "w"),
        ('[v]\ncollection = "d"\nmap = "view_functions.py:pairs"\nreduce = "sums"\n', "line 4"),
        ('[v]\ncollection = 1\nmap = "view_functions.py:pairs"\n', "line 2"),
        ('[v]\ncollection = "d"\nmap = "view_functions.py:pairs"\non_conflict = "x"\n', "on_conflict"),
        ("v = 1\n", "no table"),
        ("", "declares no views"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    """The line where that can be told."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "view_functions", raising=False)
    (tmp_path / "view_functions.py").write_text(FUNCTIONS)
    path = tmp_path / "views.toml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=says):
        declarations(path)


def test_declared_views_are_kept_fresh_until_told_to_stop(local: Store, file: str) -> None:
    """A build at first, then each commit; the one who waits is told."""
    local["d"]["a"] = {"place": "x", "n": 1}
    stop, told = threading.Event(), threading.Event()
    kept: list[Kept] = []

    def tell(each: Kept) -> None:
        kept.append(each)
        told.set()

    thread = threading.Thread(target=keep_fresh, args=(local, declarations(file)), kwargs={"stop": stop, "told": tell})
    thread.start()
    reader = view(local["d"], "by_place")
    n = 0
    while not told.is_set():  # what is written before the build is done comes with it
        n += 1
        local["d"][f"b{n}"] = {"place": "y", "n": n}
        told.wait(0.1)
    stop.set()
    thread.join(timeout=60)

    assert not thread.is_alive()
    assert kept[0].error is None
    assert kept[0].documents >= 1
    assert len(list(reader.rows(update="never"))) >= 2
