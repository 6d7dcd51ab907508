"""The benchmarks run and print every line of the budget. How fast things are is not tested: it is the machine's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import main

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
