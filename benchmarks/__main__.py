"""`python -m benchmarks`: every budget of the store as a ratio, in one run."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.databases import scratch
from benchmarks.report import machine, printed
from benchmarks.store import Sizes, lines
from vstore.sql.dialects import dialect_of


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints; the exit code says nothing about the budgets, which are for people to read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--docs", type=int, default=50_000, help="documents written and read (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that a median is made of (default: %(default)s)")
    parser.add_argument("--server", metavar="URL", help="a server to make databases on (default: SQLite files)")
    parser.add_argument("--folder", type=Path, help="where files go: a disk, not tmpfs (default: the temporary folder)")
    parser.add_argument("--full", action="store_true", help="measure memory with 1,000,000 documents, not with --docs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vstore-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        os.environ["VSTORE_STATE"] = str(folder / "state")  # of this process and those it starts
        dialect = dialect_of((options.server or "sqlite").partition(":")[0])
        for line in machine(folder):
            print(line)
        print(f"settings  {dialect.name}, {'; '.join(dialect.on_connect['full'])}")
        print(f"          {options.docs:,} documents of about 500 bytes, {options.rounds} rounds, medians")
        print()
        with scratch(folder, options.server) as fresh:
            memory = 1_000_000 if options.full else options.docs
            found = list(printed(lines(fresh, Sizes(options.docs, memory, options.rounds))))
        missed = [line.work for line in found if line.met is False]
        print()
        print(f"{len(missed)} of {sum(line.met is not None for line in found)} budgets not met{':' * bool(missed)}")
        for work in missed:
            print(f"  {work}")


if __name__ == "__main__":
    main()
