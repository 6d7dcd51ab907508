"""kill -9 at any moment: what was acknowledged is there, what was not is there whole or not at all."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

import vstore
from tests.faults.writer import BATCH_KEYS, THREADS, Life, recorded

SEED = 20261121
ROUNDS = 10


@pytest.mark.parametrize("shards", [1, 2])
def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_no_half_batch(
    engine: str, shards: int, fresh_url: Callable[[str], str]
) -> None:
    """Ten times: three threads put, delete and send batches until kill -9; then the store is read and goes on."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    urls = [fresh_url(engine) for _ in range(shards)]
    before: dict[str, list[object]] = {}

    for number in range(ROUNDS // shards):
        life = Life(urls, SEED + number)
        life.await_writes(chance.randrange(20, 60))
        threading.Event().wait(chance.uniform(0, 0.02))
        acknowledged = life.killed()

        with vstore.open(*urls) as store:
            after = recorded(store)
            for key in after.keys() | acknowledged.keys():
                new = after[key][len(before.get(key, [])) :]
                told = acknowledged[key]
                assert new[: len(told)] == told, f"{key}: told {told}, stored {new}"
                assert len(new) <= len(told) + 1, f"{key}: told {told}, stored {new}"
            for thread in range(THREADS):
                batches: dict[int, set[tuple[object, ...]]] = {}
                for n in range(BATCH_KEYS):
                    key = f"t{thread}-batch-{n}"
                    batches.setdefault(store.shard_of("posts", key), set()).add(tuple(after[key]))
                assert all(len(stories) == 1 for stories in batches.values()), "half a batch"
            assert list(store.check()) == []
            store["posts"]["between"] = number
        before = after

    assert sum(map(len, before.values())) > 50  # they did write
