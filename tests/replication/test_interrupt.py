"""A pull that ends in the middle goes on from its checkpoint: at most one batch is done again, nothing is lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy.engine import make_url

import replication.batches
import replication.feed
import replication.parked
import vstore
from replication.pull import Progress, Pulled
from tests.faults.proxy import Proxy
from tests.replication.links import handle_of, pulled
from tests.replication.puller import Life
from vstore import Store, StoreError
from vstore.shard import Shard

SEED = 20261121
BATCH = 20

SERVER_KINDS = [
    pytest.param("postgresql", marks=pytest.mark.postgres),
    pytest.param("mariadb", marks=pytest.mark.mariadb),
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of twenty rows."""
    monkeypatch.setattr(replication.feed, "PAGE_ROWS", BATCH)
    monkeypatch.setattr(replication.batches, "PAGE_ROWS", BATCH)


def fill(store: Store, documents: int) -> None:
    """Documents that were edited, deleted and brought into conflict."""
    store.create("notes", partitions=2)
    notes = store["notes"]
    notes.put_many({f"k{n}": {"n": n} for n in range(documents)})
    notes.put_many({f"k{n}": {"n": n, "edited": True} for n in range(0, documents, 3)})
    notes.delete_many([f"k{n}" for n in range(0, documents, 7)])
    for n in range(0, documents, 11):
        notes.put(f"k{n}", "rival", context=vstore.Context(f"k{n}"))


def heads(store: Store) -> dict[str, list[str]]:
    """The heads of every document."""
    found: dict[str, list[str]] = {}
    for change in store["notes"].changes():
        found.setdefault(change.key, []).append(change.rev)
    return {key: sorted(revs) for key, revs in found.items()}


def test_a_killed_pull_goes_on_where_it_was(engine: str, fresh_url: Callable[[str], str]) -> None:
    """kill -9 after some batches, again and again; the next process has at most one batch to do twice."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    source_url, target_url = fresh_url("sqlite"), fresh_url(engine)
    with vstore.open(source_url) as source, vstore.open(target_url) as target:
        fill(source, 400)
        target.create("notes", partitions=2)
        told = 0
        for _life in range(40):
            rows, ended = Life(source_url, target_url, BATCH).killed(chance.randrange(1, 6))
            told += rows
            if ended:
                break

        rest = pulled(source, target)

        stored = sum(_stored(target))
        assert rest.rows <= BATCH * 3  # a batch of which it could not tell any more, with stubs
        assert heads(target) == heads(source)
        assert stored == sum(_wanted(source))
        assert list(target.check()) == []
        assert pulled(source, target) == Pulled()


@pytest.mark.parametrize("kind", SERVER_KINDS)
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_lost_connection_is_an_error_and_no_loss(
    kind: str, side: str, fresh_url: Callable[[str], str], small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wire to one of the two is cut every so often; pulls are repeated until one gets through.

    A row whose every attempt was cut is put aside, and is due at once here.
    """
    monkeypatch.setattr(replication.parked, "RETRY_SECONDS", 0.0)
    url = make_url(fresh_url(kind))
    proxy = Proxy(url.host or "127.0.0.1", url.port or {"postgresql": 5432, "mariadb": 3306}[kind])
    behind = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
    other = fresh_url("sqlite")
    urls = (behind, other) if side == "source" else (other, behind)
    direct = url.render_as_string(hide_password=False) if side == "source" else other
    try:
        with vstore.open(urls[0]) as source, vstore.open(urls[1]) as target, vstore.open(direct) as writer:
            fill(writer, 300)
            target.create("notes", partitions=2)
            failures = 0
            done = threading.Event()
            cutter = threading.Thread(target=_cut_again_and_again, args=(proxy, done))
            cutter.start()
            while failures < 3:
                try:
                    pulled(source, target)
                except StoreError:
                    failures += 1
                else:
                    writer["notes"].put_many({f"k{n}": {"n": n, "again": failures} for n in range(0, 300, 2)})
            done.set()
            cutter.join()

            pulled(source, target)

            assert heads(target) == heads(source)
            assert list(target.check()) == []
            assert pulled(source, target).rows == 0
    finally:
        proxy.close()


@pytest.mark.parametrize("at", ["before", "after", "late"])
@pytest.mark.parametrize("kind", SERVER_KINDS)
def test_a_lost_answer_to_commit_is_found_out(kind: str, at: str, fresh_url: Callable[[str], str], small: None) -> None:
    """Whether the target has written the batch or not, the pull goes on, and nothing is there twice."""
    url = make_url(fresh_url(kind))
    proxy = Proxy(url.host or "127.0.0.1", url.port or {"postgresql": 5432, "mariadb": 3306}[kind])
    try:
        with (
            vstore.open(fresh_url("sqlite")) as source,
            vstore.open(url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)) as target,
        ):
            fill(source, 200)
            target.create("notes", partitions=2)
            seen: list[int] = []

            def lose(progress: Progress) -> None:
                seen.append(progress.pulled.rows)
                if len(seen) == 2:
                    proxy.at_commit = at  # type: ignore[assignment]

            report = pulled(source, target, on_batch=lose)

            assert report.rows == sum(_wanted(source)) == sum(_stored(target))
            assert heads(target) == heads(source)
            assert report.parked == 0
    finally:
        proxy.close()


def test_a_stop_ends_after_the_batch_under_way(fresh_url: Callable[[str], str], small: None) -> None:
    """What it had compared is written; the next pull goes on."""
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(fresh_url("sqlite")) as target:
        fill(source, 300)
        target.create("notes", partitions=2)
        stop = threading.Event()

        first = pulled(source, target, stop=stop, on_batch=lambda progress: stop.set())
        known = _claims(target, source)
        second = pulled(source, target)

        assert 0 < first.rows <= 3 * BATCH
        assert known == 0
        assert first.rows + second.rows == sum(_wanted(source))
        assert heads(target) == heads(source)


def test_progress_counts_down_to_nothing(fresh_url: Callable[[str], str], small: None) -> None:
    """For a bar on a screen: what is still to come, of how much."""
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(fresh_url("sqlite")) as target:
        fill(source, 300)
        target.create("notes", partitions=2)
        seen: list[Progress] = []

        pulled(source, target, on_batch=seen.append)

        assert [each.pending for each in seen] == sorted((each.pending for each in seen), reverse=True)
        assert seen[-1].pending == 0
        assert {each.of for each in seen} == {sum(seq for _feed, seq in handle_of(source).positions())}


def test_slow_batches_become_smaller(fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that takes 10 ms for a row gets at most 50 of them at a time, and others get to write in between."""
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(fresh_url("sqlite")) as target:
        source.create("notes", partitions=1).put_many({f"k{n}": n for n in range(1_500)})
        target.create("notes", partitions=1)
        sizes: list[int] = []
        apply = Shard.apply
        clock = [0.0]

        def slow(shard: Shard, definition: object, works: object, *rest: object) -> object:
            rows = sum(len(work.rows) for work in works)  # type: ignore[attr-defined]
            sizes.append(rows)
            clock[0] += rows * 0.01
            return apply(shard, definition, works, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(Shard, "apply", slow)
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        pulled(source, target)

        assert sum(sizes) == 1_500
        assert sizes[0] == 256
        assert max(sizes[1:]) <= 50
        assert len(target["notes"]) == 1_500


@pytest.mark.parametrize("replicas", [3, 5])
def test_in_a_ring_each_version_moves_to_each_replica_once(fresh_url: Callable[[str], str], replicas: int) -> None:
    """Everybody pulls from a neighbour, and what was written here comes back only to be compared."""
    stores = [vstore.open(fresh_url("sqlite")) for _ in range(replicas)]
    try:
        for n, store in enumerate(stores):
            store.create("notes", partitions=2).put_many({f"{n}-{m}": m for m in range(30)})
            store["notes"]["shared"] = n
        moved = Pulled()
        for _round in range(replicas + 1):
            for n, store in enumerate(stores):
                moved += pulled(stores[n - 1], store)

        assert moved.rows == 31 * replicas * (replicas - 1)
        assert all(heads(store) == heads(stores[0]) for store in stores)
        assert all(pulled(stores[n - 1], store) == Pulled() for n, store in enumerate(stores))
    finally:
        for store in stores:
            store.close()


def _cut_again_and_again(proxy: Proxy, done: threading.Event) -> None:
    chance = random.Random(SEED)
    while not done.wait(chance.uniform(0.005, 0.06)):
        proxy.cut()


def _stored(store: Store) -> list[int]:
    return [stats["versions"] for stats in store.stats().values()]


def _wanted(store: Store) -> list[int]:
    """Heads and the stubs of their ancestors: here, every version there is."""
    return [stats["versions"] for stats in store.stats().values()]


def _claims(store: Store, other: Store) -> int:
    """In how many partitions a store claims to know all of another's own events."""
    from replication.handshake import standings

    pairs = zip(standings(handle_of(store)), standings(handle_of(other)), strict=True)
    return sum(ours.covers({theirs.actor: theirs.ctr}) for ours, theirs in pairs)
