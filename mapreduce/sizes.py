"""How much memory groups take, by a sample of them: `sys.getsizeof`, all the way down.

An estimate. It is wrong where a few accumulators are much larger than the rest;
so whoever relies on it also watches the process as a whole (`resident_bytes`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

GROUP_BYTES = 110  # of an entry in a dictionary, with the empty room of its table and a place in a list to sort
SAMPLED = 16
INSIDE = 64  # of the elements of a large container are looked at


def mean_bytes(values: Sequence[Any]) -> int:
    """The mean size of the values, by some from the start, the middle and the end."""
    count = len(values)
    if count <= 3 * SAMPLED:
        sample: Sequence[Any] = values
    else:
        middle = count // 2
        sample = [*values[:SAMPLED], *values[middle : middle + SAMPLED], *values[-SAMPLED:]]
    return sum(map(deep_bytes, sample)) // max(1, len(sample))


def groups_bytes(groups: Mapping[Any, Any]) -> int:
    """The size of all groups, by some that came first and some that came last."""
    count = len(groups)
    first, last = islice(groups.items(), SAMPLED), islice(reversed(groups.items()), SAMPLED)  # type: ignore[call-overload]
    sample = [*first, *last]
    if not sample:
        return 0
    return count * (GROUP_BYTES + sum(deep_bytes(key) + deep_bytes(acc) for key, acc in sample) // len(sample))


def deep_bytes(value: Any, depth: int = 6) -> int:
    """About the size of a value with all that is in it."""
    size = sys.getsizeof(value)
    if depth == 0 or isinstance(value, str | bytes | int | float | bool | None):
        return size
    if isinstance(value, dict):
        return size + _inside([*islice(value.items(), INSIDE)], len(value), depth)
    if isinstance(value, list | tuple | set | frozenset):
        return size + _inside([*islice(value, INSIDE)], len(value), depth)
    inside = getattr(value, "__dict__", None)
    if isinstance(inside, dict):
        return size + deep_bytes(inside, depth - 1)
    return size


def _inside(sample: list[Any], count: int, depth: int) -> int:
    return sum(deep_bytes(value, depth - 1) for value in sample) * count // len(sample) if sample else 0


def resident_bytes() -> int:
    """The memory this process has at the moment; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
