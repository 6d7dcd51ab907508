"""Random histories end well: every invariant holds at every step of every schedule."""

from __future__ import annotations

import re

import pytest

from .oracle import Broken
from .replica import Rules
from .simulator import Simulation, run


@pytest.mark.timeout(0)  # as long as the number of schedules needs
def test_replicas_always_show_the_truth_whatever_happens_between_them(seeds: range) -> None:
    """Clients write blindly, late and elsewhere; rows get lost; files are restored and copied. See simulator.py."""
    for seed in seeds:
        try:
            run(seed)
        except Broken as broken:
            again = f"pytest tests/simulation/test_simulation.py -n 0 --schedules 1 --first-seed {seed}"
            pytest.fail(f"seed {seed} fails. Replay it: {again}\n{broken}", pytrace=False)


def test_a_seed_always_takes_the_same_steps() -> None:
    """A failure that its seed does not bring back could not be mended."""
    stories = []
    for _ in range(2):
        simulation = Simulation(17, None, Rules())
        for _ in range(100):
            simulation.step()
        stories.append(simulation.story())

    assert stories[0] == stories[1]
    assert len(stories[0].splitlines()) > 50


def test_a_failure_tells_its_seed_and_every_step() -> None:
    """Two copies of a file go on under one name; the report must be enough to replay and to understand."""
    with pytest.raises(Broken) as caught:
        run_many(range(200), Rules(new_actor_in_copy=False))

    assert re.search(r"\nseed \d+, step \d+:\n   1 ", str(caught.value))
    assert "copy_file" in str(caught.value)


def run_many(seeds: range, rules: Rules) -> None:
    for seed in seeds:
        run(seed, rules=rules)
