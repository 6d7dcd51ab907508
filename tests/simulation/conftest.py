"""How many schedules are simulated: `pytest tests/simulation --schedules 100000 --first-seed 1000000`.

pytest learns the options only when this folder is named on the command line; a
run of all tests takes the defaults, or VSTORE_SCHEDULES and VSTORE_FIRST_SEED.
"""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

SCHEDULES = 2_000
CHUNKS = 8  # more than cores, so that the workers of xdist finish together


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--schedules", type=int, help=f"schedules to simulate (default {SCHEDULES})")
    group.addoption("--first-seed", type=int, help="seed of the first schedule (default 0); each next one is 1 more")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" in metafunc.fixturenames:
        count = _setting(metafunc.config, "--schedules", "VSTORE_SCHEDULES", SCHEDULES)
        first = _setting(metafunc.config, "--first-seed", "VSTORE_FIRST_SEED", 0)
        bounds = [first + count * chunk // CHUNKS for chunk in range(CHUNKS + 1)]
        chunks = [range(a, b) for a, b in pairwise(bounds) if a < b]
        metafunc.parametrize("seeds", chunks, ids=[f"{seeds[0]}-{seeds[-1]}" for seeds in chunks])


def _setting(config: pytest.Config, option: str, variable: str, default: int) -> int:
    value = config.getoption(option, None)
    return int(os.environ.get(variable, default)) if value is None else int(value)
