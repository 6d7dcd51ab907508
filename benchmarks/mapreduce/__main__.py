"""`python -m benchmarks.mapreduce`: jobs, queries and views beside a raw loop, DuckDB and PostgreSQL, in one run."""

from __future__ import annotations

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.mapreduce.documents import prepared
from benchmarks.mapreduce.lines import Choice, lines
from benchmarks.report import machine, printed


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints; the exit code says nothing about the budgets, which are for people to read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mapreduce", description=__doc__)
    parser.add_argument("--docs", type=int, default=1_000_000, help="documents (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that a median is made of (default: %(default)s)")
    parser.add_argument("--server", metavar="URL", help="a PostgreSQL server to compare with (default: left out)")
    parser.add_argument("--keys", action="store_true", help="the job with 20 keys for each document too; minutes")
    parser.add_argument("--dask", action="store_true", help="the same job on a Dask cluster on this machine too")
    parser.add_argument("--folder", type=Path, help="where documents are kept for the next run (default: nowhere)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vstore-benchmark-", dir=options.folder) as name:
        temporary = Path(name)
        made = prepared(options.folder or temporary, options.docs)
        for line in machine(temporary):
            print(line)
        print(f"          {', '.join(f'{package} {version(package)}' for package in ('msgspec', 'duckdb'))}")
        print(f"settings  {options.docs:,} documents of about 500 bytes, {options.rounds} rounds, medians")
        print()
        choice = Choice(options.rounds, options.server, options.keys, options.dask)
        found = list(printed(lines(made, temporary, choice)))
        missed = [line.work for line in found if line.met is False]
        print()
        print(f"{len(missed)} of {sum(line.met is not None for line in found)} budgets not met{':' * bool(missed)}")
        for work in missed:
            print(f"  {work}")


if __name__ == "__main__":
    main()
