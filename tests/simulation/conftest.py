"""How many schedules are simulated: `pytest tests/simulation --schedules 100000 --first-seed 1000000`.

That many of the pure rules, and as many of the real code, which are a hundred
times slower: name `tests/simulation/test_simulation.py` or `tests/simulation/real`.

pytest learns the options only when this folder is named on the command line; a
run of all tests takes the defaults, or VSTORE_SCHEDULES and VSTORE_FIRST_SEED.
"""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

SCHEDULES = {"seeds": 2_000, "real_seeds": 3_000}
CHUNKS = {"seeds": 8, "real_seeds": 24}  # more than cores, so that the workers of xdist finish together


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--schedules", type=int, help="schedules to simulate (default 2,000, and 3,000 of the real code)")
    group.addoption("--first-seed", type=int, help="seed of the first schedule (default 0); each next one is 1 more")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, chunks in CHUNKS.items():
        if fixture in metafunc.fixturenames:
            count = _setting(metafunc.config, "--schedules", "VSTORE_SCHEDULES", SCHEDULES[fixture])
            first = _setting(metafunc.config, "--first-seed", "VSTORE_FIRST_SEED", 0)
            bounds = [first + count * chunk // chunks for chunk in range(chunks + 1)]
            ranges = [range(a, b) for a, b in pairwise(bounds) if a < b]
            metafunc.parametrize(fixture, ranges, ids=[f"{seeds[0]}-{seeds[-1]}" for seeds in ranges])


def _setting(config: pytest.Config, option: str, variable: str, default: int) -> int:
    value = config.getoption(option, None)
    return int(os.environ.get(variable, default)) if value is None else int(value)
