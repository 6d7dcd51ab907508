"""A process that does one thing and prints the most memory it had, in MiB: `python -m benchmarks.memory WORK URL N`."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import vstore
from benchmarks.documents import documents


def main(work: str, url: str, count: int) -> None:
    """Does the work and prints its peak."""
    with vstore.open(url) as store:
        orders = store["orders"]
        if work == "put_many":
            orders.put_many(documents(count))
        else:
            found = sum(1 for _ in orders.items())
            assert found == count, f"{found} of {count} documents found"
    print(f"{peak_kib() / 1024:.1f}")


def peak_kib() -> int:
    """The most memory that this process has had."""
    # Linux hands the parent's ru_maxrss on to a new program, so there the kernel's own high-water mark is read.
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
