"""`python -m tests.replication.ring`: the ring for as long as you like, one seed after the other until one fails."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.conftest import SERVERS
from tests.replication.ring.chaos import Ring
from tests.replication.ring.servers import servers

SHOWN = 20
"""How many findings are printed."""


def main(arguments: list[str] | None = None) -> int:
    """0 if all held. What is left of a run in which something did not is kept, and its folder printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.replication.ring", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long each storm lasts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first storm (default: %(default)s)")
    parser.add_argument(
        "--storms", type=int, default=1, help="how many, each with the next seed (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    for seed in range(options.seed, options.seed + options.storms):
        folder = Path(tempfile.mkdtemp(prefix=f"vstore-ring-{seed}-"))
        os.environ["VSTORE_STATE"] = str(folder / "state")
        with servers(SERVERS) as found:
            outcome = Ring(folder, found, seed).run(options.seconds)
        print(f"seed {seed}: {dict(outcome.faults)}")
        print(f"  {dict(outcome.operations)}, healed after {outcome.heal_seconds:.1f} s", flush=True)
        if outcome.findings:
            print("\n".join(["", *outcome.findings[:SHOWN], "", f"{len(outcome.findings)} findings; see {folder}."]))
            return 1
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
