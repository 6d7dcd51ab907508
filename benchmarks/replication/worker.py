"""One piece of work alone in a process, since memory is a process's: `python -m benchmarks.replication.worker WORK …`.

    put_many URL COUNT       so many documents into a new store
    sync SOURCE TARGET       one to the other, both ways

It prints the seconds that it took and the most memory the process had, in MiB.
The documents are made while the clock stands still.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import islice

import vstore
from benchmarks.documents import documents
from benchmarks.memory import peak_kib
from replication import sync

MADE = 20_000
"""How many documents are made before they are written."""


@dataclass(frozen=True)
class Use:
    """What a piece of work took."""

    seconds: float
    peak_mib: float


def measured(*work: str) -> Use:
    """The work, done in a new process."""
    command = [sys.executable, "-m", "benchmarks.replication.worker", *work]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak_mib = map(float, done.stdout.split())
    return Use(seconds, peak_mib)


def main(work: str, url: str, other: str) -> None:
    """Does the work and prints what it took."""
    seconds = put_many(url, int(other)) if work == "put_many" else synced(url, other)
    print(f"{seconds:.3f} {peak_kib() / 1024:.1f}")


def put_many(url: str, count: int) -> float:
    """Seconds to write so many documents."""
    seconds = 0.0
    made = documents(count)
    with vstore.open(url) as store:
        while some := list(islice(made, MADE)):
            began = time.perf_counter()
            store["orders"].put_many(some)
            seconds += time.perf_counter() - began
    return seconds


def synced(url: str, other: str) -> float:
    """Seconds to make the two equal."""
    with vstore.open(url) as source, vstore.open(other) as target:
        began = time.perf_counter()
        sync(source["orders"], target["orders"])
        return time.perf_counter() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
