"""Real stores and the real replicator: every invariant holds at every commit of every schedule."""

from __future__ import annotations

import pytest

from tests.simulation.oracle import Broken

from .faults import KINDS
from .schedule import run


@pytest.mark.timeout(0)  # as long as the number of schedules needs
def test_real_replicas_always_hold_the_truth_whatever_happens_to_them(real_seeds: range) -> None:
    """Clients write blindly, late and elsewhere; processes die, links flap, files are set back, copied and damaged."""
    for seed in real_seeds:
        try:
            run(seed)
        except Broken as broken:
            pytest.fail(
                f"seed {seed} fails. Replay it: python -m tests.simulation --seed {seed}\n{broken}", pytrace=False
            )


def test_a_seed_always_makes_the_same_world() -> None:
    """A failure that its seed does not bring back could not be mended."""
    stories = [run(seed).story() for seed in (11, 12, 11, 12)]

    assert stories[:2] == stories[2:]
    assert all(len(story.splitlines()) > 20 for story in stories)


def test_what_the_schedules_are_made_of_happens() -> None:
    """A kind of step or of fault that never comes about would prove nothing."""
    simulations = [run(seed) for seed in range(120)]

    kinds = {kind.__name__ for kind in simulations[0].kinds}
    happened = {kind for simulation in simulations for kind in simulation.counts}
    struck = {kind for simulation in simulations for kind in simulation.struck}
    assert kinds - happened == set()
    assert set(KINDS) - struck == set()
    assert sum(simulation.truth.purged for simulation in simulations) > 10
    assert sum(simulation.truth.over for simulation in simulations) < 8  # those that end early
