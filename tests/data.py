"""The real data that some tests run on: whole histories, and many documents.

The files are large and do not ship with the project. They are looked for in
$VSTORE_DATA, else in `../shared/data` beside the project; without them the tests
that need them are skipped and say so.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vstore.cli import main

DATA = Path(os.environ.get("VSTORE_DATA", Path(__file__).parents[2] / "shared" / "data"))
FIRES = DATA / "ca-fires-history.jsonl.gz"
PACKAGES = DATA / "debian-packages.jsonl.gz"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data files in {DATA}; set VSTORE_DATA")


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file: key, doc, and in a history at (in seconds) and deleted."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def imported(store_url: list[str], collection: str, path: Path) -> None:
    """Imports a file into a store, as a user would."""
    options = [option for url in store_url for option in ("--store", url)]
    result = CliRunner().invoke(main, ["import", collection, str(path), *options, "--quiet"])
    assert result.exit_code == 0, result.output
