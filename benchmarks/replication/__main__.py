"""`python -m benchmarks.replication`: replicas made, kept up to date and compared, as ratios, in one run."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.databases import scratch
from benchmarks.replication import case, links
from benchmarks.report import Line, machine, printed
from vstore.sql.dialects import dialect_of


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints; the exit code says nothing about the budgets, which are for people to read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000, help="in a store (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds that a median is made of (default: %(default)s)")
    parser.add_argument(
        "--server", action="append", default=[], metavar="URL", help="a server to replicate to as well; may be repeated"
    )
    parser.add_argument(
        "--server-documents", type=int, default=100_000, help="documents for a server (default: %(default)s)"
    )
    parser.add_argument("--packages", type=Path, metavar="FILE", help="debian-packages.jsonl.gz (default: left out)")
    parser.add_argument("--folder", type=Path, help="where files go: a disk, not tmpfs (default: the temporary folder)")
    options = parser.parse_args(arguments)
    with _unalarmed(), tempfile.TemporaryDirectory(prefix="vstore-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        os.environ["VSTORE_STATE"] = str(folder / "state")  # of this process and those it starts
        for line in machine(folder):
            print(line)
        print(f"settings  {options.documents:,} documents of about 500 bytes, {options.rounds} rounds, medians")
        print()
        found = list(printed(_lines(options, folder)))
        missed = [line.work for line in found if line.met is False]
        print()
        print(f"{len(missed)} of {sum(line.met is not None for line in found)} budgets not met{':' * bool(missed)}")
        for work in missed:
            print(f"  {work}")


def _lines(options: argparse.Namespace, folder: Path) -> Iterator[Line]:
    with scratch(folder, None) as files:
        yield from links.lines("SQLite", files, files, options.documents, options.rounds)
        for server in options.server:
            title = TITLES[dialect_of(server.partition(":")[0]).name]
            with scratch(folder, server) as fresh:
                yield from links.lines(title, files, fresh, options.server_documents, options.rounds)
        if options.packages is not None:
            server = next((each for each in options.server if each.startswith("postgres")), None)
            with scratch(folder, server) if server else contextlib.nullcontext(files) as fresh:
                yield from case.lines(options.packages, files, fresh)


@contextlib.contextmanager
def _unalarmed() -> Iterator[None]:
    """Inside, differences without a cause are not warned of: they are made here on purpose."""
    log = logging.getLogger("replication")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


TITLES = {"postgresql": "PostgreSQL", "mariadb": "MariaDB"}


if __name__ == "__main__":
    main()
