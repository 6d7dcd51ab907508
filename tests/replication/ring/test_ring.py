"""The ring, for as long as a test may take; longer with VSTORE_RING_SECONDS, otherwise with VSTORE_RING_SEED.

`VSTORE_RING_SECONDS=600 VSTORE_RING_SEED=7 python -m pytest -n 0 tests/replication/ring/test_ring.py`, or without
pytest, seed after seed: `python -m tests.replication.ring --seconds 600 --seed 7`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import SERVERS, require_server
from tests.replication.ring.chaos import HEAL_SECONDS, Ring
from tests.replication.ring.servers import installed, servers

SECONDS = float(os.environ.get("VSTORE_RING_SECONDS", "40"))
SEED = int(os.environ.get("VSTORE_RING_SEED", "20261121"))


@pytest.mark.postgres
@pytest.mark.mariadb
@pytest.mark.xdist_group("heavy")
@pytest.mark.timeout(SECONDS + HEAL_SECONDS + 240)
def test_a_ring_of_daemons_loses_nothing_whatever_breaks(tmp_path: Path) -> None:
    """Six writers at three kinds of database; daemons, writers, servers and wires fail at random; then all is mended.

    The servers are this test's own. Where they cannot be started, connections to
    the shared ones are cut instead, and the test says in the end that it was not
    the whole.
    """
    missing = [kind for kind in ("postgresql", "mariadb") if not installed(kind)]
    for kind in missing:
        require_server(kind)
    print(f"seed {SEED}, {SECONDS:g} s")

    with servers(SERVERS) as found:
        outcome = Ring(tmp_path, found, SEED).run(SECONDS)

    print(dict(outcome.faults), dict(outcome.operations), f"healed after {outcome.heal_seconds:.1f} s")
    assert outcome.findings[:20] == []
    for kind in ("add", "union", "cas"):
        assert outcome.operations[f"{kind} ok"] > SECONDS
    assert outcome.faults.total() > SECONDS / 2
    if missing:
        pytest.skip(f"it held, but no server of {missing} could be started here, so none of them was killed")
