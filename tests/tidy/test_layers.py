"""The layers of `pyproject.toml` hold: imports point down, and the core is pure."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_imports_point_down_the_written_layers() -> None:
    """import-linter reads the contracts and every import of the three packages."""
    linter = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


def test_the_layers_in_the_docs_are_those_of_the_contract() -> None:
    """docs/architecture.md has a table with a row for each layer of vstore, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["vstore"])
    table = (ROOT / "docs" / "architecture.md").read_text().split("| Layer | Does |")[1].split("\n\n")[0]

    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines()[2:]]

    assert rows == [layer.split(" | ") for layer in layers]
