"""A job sees the state of its start, however much is written meanwhile, across shards and on every database."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vstore
from mapreduce import Job, Sum

pytestmark = pytest.mark.timeout(180)

KEYS = 6_000


def groups(key: str, value: dict[str, Any]) -> Iterator[tuple[Any, int]]:
    yield value["group"], value["n"]
    yield ["documents", value["round"]], 1


JOB = Job(groups, Sum())


def plain(documents: Any) -> Counter[str]:
    """The job in a few lines of Python, keys by their text."""
    found: Counter[str] = Counter()
    for key, value in documents:
        for group, n in groups(key, value):
            found[repr(group)] += n
    return found


class Writer:
    """Changes, deletes and adds documents as fast as it can, from a thread of its own."""

    def __init__(self, collection: vstore.Collection) -> None:
        self.collection = collection
        self.rounds = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.write)

    def write(self) -> None:
        step = 0
        while not self.ended.is_set():
            step += 1
            first = step * 937 % KEYS
            keys = [f"{n % KEYS:05d}" for n in range(first, first + 60)]
            self.collection.put_many({key: {"group": "new", "n": 1, "round": step} for key in keys[:40]})
            self.collection.delete_many(keys[40:])
            self.collection.put_many(
                {f"added {step} {n}": {"group": "added", "n": n, "round": step} for n in range(20)}
            )
            self.rounds += 1

    def wait(self, rounds: int) -> None:
        """Until it has written so many rounds."""
        while self.rounds < rounds:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def __enter__(self) -> Writer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_under_concurrent_writers_equals_the_snapshot_at_its_start(
    engine: str, fresh_url: Callable[[str], str], workers: int
) -> None:
    """Two shards, and a writer that never rests; jobs are run until it has written during some."""
    urls = [fresh_url(engine), fresh_url(engine)]
    with vstore.open(*urls) as store, vstore.open(*urls) as other:
        posts = store["posts"]
        posts.put_many({f"{n:05d}": {"group": f"g{n % 7}", "n": n, "round": 0} for n in range(KEYS)})
        expected = plain(posts.items(on_conflict="winner"))
        snapshot = posts.snapshot()

        with Writer(other["posts"]) as writer:
            writer.wait(5)
            written = writer.rounds
            while writer.rounds < written + 3:
                result = JOB.run(over=snapshot, workers=workers, memory=20_000)

                assert {repr(key): value for key, value in result} == expected
                assert result.counters.documents == KEYS
        assert plain(posts.items(on_conflict="winner")) != expected


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_written_after_the_start_is_not_seen(
    engine: str, fresh_url: Callable[[str], str], workers: int, tmp_path: Path
) -> None:
    """The job is over the collection itself; the first document that is mapped changes, deletes and adds hundreds."""
    urls = [fresh_url(engine), fresh_url(engine)]
    marker = str(tmp_path / "written")

    def meddling(key: str, value: dict[str, Any]) -> Iterator[tuple[Any, int]]:
        import os

        import vstore

        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            with vstore.open(*urls) as store:
                own = store["posts"]
                own.put_many({f"{n:05d}": {"group": "new", "n": 1, "round": 1} for n in range(0, 900, 3)})
                own.delete_many([f"{n:05d}" for n in range(1, 900, 3)])
                own.put_many({f"added {n}": {"group": "added", "n": 1, "round": 1} for n in range(300)})
        yield value["group"], value["n"]
        yield ["documents", value["round"]], 1

    with vstore.open(*urls) as store:
        posts = store["posts"]
        posts.put_many({f"{n:05d}": {"group": f"g{n % 7}", "n": n, "round": 0} for n in range(KEYS)})
        expected = plain(posts.items(on_conflict="winner"))

        result = Job(meddling, Sum()).run(over=posts, workers=workers)

        assert {repr(key): value for key, value in result} == expected
        assert plain(posts.items(on_conflict="winner"))["'added'"] == 300


def test_a_past_moment_and_the_history_are_sources_too(store: vstore.Store) -> None:
    posts = store["posts"]
    posts.put_many({f"{n:03d}": {"group": "old", "n": 1, "round": 0} for n in range(200)})
    moment = max(posts.read(f"{n:03d}").stamp for n in range(200))
    posts.put_many({f"{n:03d}": {"group": "new", "n": 1, "round": 1} for n in range(0, 200, 2)})
    posts.delete("001")

    then = JOB.run(over=posts.at(moment), workers=2)
    now = JOB.run(over=posts, workers=2)
    versions = Job(lambda key, version: [(version.deleted, 1)], Sum()).run(over=posts.history_scan(), workers=2)
    some = JOB.run(over=posts.prefixed("00"), workers=2)

    assert list(then) == [("old", 200), (["documents", 0], 200)]
    assert list(now) == [("new", 100), ("old", 99), (["documents", 0], 99), (["documents", 1], 100)]
    assert list(versions) == [(False, 300), (True, 1)]
    assert list(some) == [("new", 5), ("old", 4), (["documents", 0], 4), (["documents", 1], 5)]


def test_a_document_that_fails_is_named_with_the_rev_that_was_read(store: vstore.Store) -> None:
    """It has been written over since; the snapshot's version is meant."""
    posts = store["posts"]
    posts["good"] = {"group": "g", "n": 1, "round": 0}
    posts["bad"] = {"n": 1}
    rev = posts.read("bad").rev
    snapshot = posts.snapshot()
    posts["bad"] = {"group": "g", "n": 1, "round": 1}

    result = Job(groups, Sum(), on_error="skip").run(over=snapshot)

    assert [(skipped.key, skipped.rev, skipped.error) for skipped in result.skipped] == [
        ("bad", rev, "KeyError: 'group'")
    ]
    assert JOB.run(over=posts.prefixed("ba"))["g"] == 1
