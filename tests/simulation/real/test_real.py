"""Real stores and the real replicator: every invariant holds at every commit of every schedule."""

from __future__ import annotations

import pytest

from tests.simulation.oracle import Broken

from .faults import KINDS
from .schedule import run


@pytest.mark.timeout(0)  # as long as the number of schedules needs
def test_real_replicas_always_hold_the_truth_whatever_happens_to_them(real_seeds: range) -> None:
    """Clients write blindly, late and elsewhere; processes die, links flap, files are set back, copied and damaged."""
    ended_early = 0
    for seed in real_seeds:
        try:
            ended_early += run(seed).truth.over
        except Broken as broken:
            pytest.fail(
                f"seed {seed} fails. Replay it: python -m tests.simulation --seed {seed}\n{broken}", pytrace=False
            )
    assert ended_early < 8 + len(real_seeds) / 20, "too many prove nothing after some step"


@pytest.mark.parametrize("seed", [600_060, 720_020])
def test_schedules_that_failed_hold(seed: int) -> None:
    """Of those above the range that every run takes; most who failed have become a story."""
    run(seed)


def test_a_seed_always_makes_the_same_world() -> None:
    """A failure that its seed does not bring back could not be mended."""
    stories = [run(seed).story() for seed in (11, 12, 11, 12)]

    assert stories[:2] == stories[2:]
    assert all(len(story.splitlines()) > 20 for story in stories)


SHOWING = (1, 5, 8, 12, 16, 22, 40, 45, 63, 75, 80, 88)
"""Schedules that have everything between them: looked at first, and others only if these have changed."""


def test_what_the_schedules_are_made_of_happens() -> None:
    """A kind of step or of fault that never comes about would prove nothing."""
    wanted = {*KINDS, "look_at_view", "set_back"}  # and all that every schedule may have
    happened: set[str] = set()
    purged = 0
    for seed in dict.fromkeys((*SHOWING, *range(120))):
        simulation = run(seed)
        wanted |= {kind.__name__ for kind in simulation.kinds}
        happened |= simulation.counts.keys() | simulation.struck.keys()
        purged += simulation.truth.purged
        if wanted <= happened and purged > 10:
            break

    assert wanted - happened == set()
    assert purged > 10
