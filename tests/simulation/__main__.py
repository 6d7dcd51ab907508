"""Schedules of the real code for as long as one likes, one process for each core.

    python -m tests.simulation --minutes 60 --first-seed 1000000
    python -m tests.simulation --seed 4711          one schedule, step by step

Every seed is another history; a failure prints its seed and every step, and the
rest goes on. Ends with 1 if any failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from itertools import count, islice, takewhile

from .oracle import Broken
from .real.schedule import run, story_of_failure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--first-seed", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, help="only this one; prints its steps")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.seed is not None:
        try:
            print(run(given.seed).story())
        except Broken as broken:
            print(broken)
            return 1
        return 0
    end = time.monotonic() + 60 * given.minutes
    seeds = takewhile(lambda _: time.monotonic() < end, count(given.first_seed))
    failed: list[int] = []
    done = 0
    with multiprocessing.get_context("spawn").Pool(given.processes, maxtasksperchild=500) as pool:
        # In rounds, as a pool takes all that it can get at once, and time shall decide.
        rounds = iter(lambda: list(islice(seeds, 50 * given.processes)), [])
        for seed, story in (told for seeds_ in rounds for told in pool.imap_unordered(story_of_failure, seeds_)):
            done += 1
            if story:
                failed.append(seed)
                print(f"seed {seed} fails. Again: python -m tests.simulation --seed {seed}\n{story}\n", flush=True)
    print(f"{done:,} schedules from {given.first_seed:,} on, {len(failed)} failed: {sorted(failed)[:50]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
