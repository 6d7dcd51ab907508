"""A job with twenty times as many keys as documents: what does not fit into memory goes through sorted runs on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import vstore
from mapreduce import Count, run

KEYS = 20
"""Keys of each document: 20 million for a million documents."""


def scattered(_key: str, order: Any) -> Iterator[tuple[str, int]]:
    """Keys that no two documents share, in no order: multiplying by an odd number maps 32 bits one to one."""
    for number in range(order.number * KEYS, (order.number + 1) * KEYS):
        yield f"{number * 2_654_435_761 % 2**32:08x}", 1


def many_keys(orders: vstore.Collection, workers: int = 2) -> None:
    """Runs it, and reads the whole result: every key is there once, in order."""
    result = run(over=orders, map=scattered, reduce=Count(), fields=["number"], workers=workers)
    before, count = "", 0
    for key, n in result:
        assert before < key, f"{before} came before {key}"
        assert n == 1, f"{key} was counted {n} times"
        before = key
        count += 1
    assert count == len(orders) * KEYS, f"{count} keys of {len(orders)} documents"
    result.close()
