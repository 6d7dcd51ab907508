"""The most memory that any process of one job had: `python -m benchmarks.mapreduce.memory FOLDER DOCS WORK`.

A fresh process does the work, and while it does, looks at itself and at every
process below it. The kernel keeps each one's high-water mark, so looking now and
then misses only what grew in the last moment before a process ended.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import vstore
from benchmarks.mapreduce.documents import Prepared, prepared

LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Use:
    """What one piece of work took, alone in new processes."""

    peak_mib: float  # of the largest process
    seconds: float


def measured(made: Prepared, work: str) -> Use:
    """The work, done in a new process. `work` is "A raw" or "B functions, 2 workers", or "keys"."""
    command = [sys.executable, "-m", "benchmarks.mapreduce.memory", str(made.folder.parent), str(made.count), work]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    peak, seconds = done.stdout.split()
    return Use(float(peak), float(seconds))


def main(folder: str, count: str, work: str) -> None:
    """Does the work and prints the peak in MiB, and the seconds."""
    from benchmarks.mapreduce.contestants import contestants
    from benchmarks.mapreduce.keys import many_keys

    made = prepared(Path(folder), int(count))
    job, _, name = work.partition(" ")
    with vstore.open(made.url) as store, _Watch() as watch:
        started = perf_counter()
        if job == "keys":
            many_keys(store["orders"])
        else:
            contestants(made, store["orders"])[name][job]()
        seconds = perf_counter() - started
    print(f"{watch.peak_kib / 1024:.1f} {seconds:.2f}")


class _Watch(threading.Thread):
    """Looks until it is told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_kib = 0
        self._ended = threading.Event()

    def __enter__(self) -> _Watch:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self.join()
        self._look()

    def run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak_kib = max([self.peak_kib, *_peaks_kib()])


def _peaks_kib() -> Iterator[int]:
    """Of this process and all below it."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    peaks: dict[int, int] = {}
    me = 0
    for path in [*Path("/proc").glob("[0-9]*/status"), Path("/proc/self/status")]:
        try:
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if "VmHWM" in fields:  # not a thread of the kernel
            me = int(fields["Pid"])
            children[int(fields["PPid"])].append(me)
            peaks[me] = int(fields["VmHWM"].split()[0])
    todo = [me]  # the last one was /proc/self
    while todo:
        pid = todo.pop()
        yield peaks[pid]
        todo += children.pop(pid, [])


if __name__ == "__main__":
    main(*sys.argv[1:])
