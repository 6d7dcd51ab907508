"""Every example runs, as a reader would run it; each checks by itself that what it shows is so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def _run(path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", path, *arguments], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_says_what_it_does(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that is not its own, without arguments, and it leaves nothing behind."""
    monkeypatch.chdir(tmp_path)

    assert _run(path)

    assert list(tmp_path.glob("*.db*")) == []


def test_a_store_that_is_deleted_when_it_is_closed_leaves_no_proof_behind(tmp_path: Path) -> None:
    """This example opens `sqlite://`, which nobody can open again."""
    _run(next(path for path in EXAMPLES if path.name == "time_travel.py"))

    assert list((tmp_path / "state").rglob("*.proof")) == []


@pytest.mark.postgres
@pytest.mark.mariadb
def test_the_sharded_example_runs_on_three_kinds_of_database(fresh_url: Callable[[str], str]) -> None:
    """One shard on each."""
    path = next(path for path in EXAMPLES if path.name == "sharded.py")

    printed = _run(path, *map(fresh_url, ("sqlite", "postgresql", "mariadb")))

    assert "postgresql" in printed
    assert "mariadb" in printed
