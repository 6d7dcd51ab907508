"""`vstore map`: functions from files, data on stdout and talk on stderr."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from mapreduce.commands.map import print_groups, reducer_named
from mapreduce.commands.options import size
from mapreduce.extension import extension
from mapreduce.reducers.extremes import TopK
from mapreduce.reducers.sums import Sum
from vstore.cli.functions import loaded

pytestmark = pytest.mark.timeout(60)

JOBS = """
def words(key, value):
    for word in value["text"].split():
        yield word, 1

def longest(key, values): return max(values)
def narrow(key): yield key, 1
number = 5
"""
POSTS = {"p1": {"text": "b a"}, "p2": {"text": "a"}}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / f"jobs_{tmp_path.name}.py"  # modules are imported once per name
    path.write_text(JOBS)
    return str(path)


@pytest.mark.parametrize("workers", [None, 2])
def test_groups_are_printed_in_key_order(file: str, workers: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    """With two workers, too, which import the file for themselves."""
    print_groups(POSTS, loaded(f"{file}:words", ("key", "value")), Sum(), as_json=False, workers=workers)

    out, err = capsys.readouterr()
    assert out == "a\t2\nb\t1\n"
    assert err.startswith("2 documents, 3 pairs, 2 keys in ")


def test_json_lines(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    reducer = reducer_named(f"{file}:longest")

    print_groups(POSTS, loaded(f"{file}:words", ("key", "value")), reducer, as_json=True, workers=1)

    assert capsys.readouterr().out == '{"key":"a","value":1}\n{"key":"b","value":1}\n'


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("words", "is not FILE:FUNCTION"),
        ("nowhere.py:words", "nowhere.py is not a Python file"),
        ("{file}:absent", "has no function 'absent'"),
        ("{file}:number", "has no function 'number'"),
        ("{file}:narrow", r"narrow\(key\) .* cannot be called as narrow\(key, value\)"),
    ],
)
def test_a_function_that_cannot_be_used_is_a_usage_error(file: str, place: str, complaint: str) -> None:
    with pytest.raises(click.UsageError, match=complaint) as caught:
        loaded(place.format(file=file), ("key", "value"))
    assert caught.value.exit_code == 2


def test_a_file_that_raises_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "jobs_that_raise.py"
    path.write_text("1 / 0")

    with pytest.raises(click.UsageError, match=r"cannot be imported: ZeroDivisionError"):
        loaded(f"{path}:words", ("key", "value"))


def test_a_file_named_like_another_module_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "json.py"
    path.write_text(JOBS)

    with pytest.raises(click.UsageError, match=r"taken by .*Rename the file"):
        loaded(f"{path}:words", ("key", "value"))


def test_an_unknown_reducer_is_a_usage_error() -> None:
    assert reducer_named("sum") == Sum()
    assert reducer_named("top:3") == TopK(3)
    with pytest.raises(
        click.UsageError, match="--reduce: there is no reducer 'median'; known are sum, .*FILE.py:function"
    ):
        reducer_named("median")
    with pytest.raises(click.UsageError, match="no number"):
        reducer_named("top:many")


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [
        ("1", 1),
        ("512k", 524_288),
        ("1.5 MiB", 1_572_864),
        ("2GB", 2_147_483_648),
        pytest.param("9" * 400, int("9" * 400), id="huge"),
    ],
)
def test_sizes_are_typed_with_their_unit(given: str, bytes_: int) -> None:
    assert size(given) == bytes_


@pytest.mark.parametrize("given", ["", "0", "many", "-1M", "5T", "1 M B"])
def test_what_is_no_size_is_a_usage_error(given: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size; write bytes, or 512K, 256M, 2G"):
        size(given)


def test_the_extension_offers_its_commands() -> None:
    assert {"map", "query"} <= {command.name for command in extension.commands()}
