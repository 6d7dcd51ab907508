"""Two replicators of one link: one works, the other is told who does, and a late one writes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

import replication.feed
import vstore
from replication.feed import Feed
from replication.lease import Lease, LeaseHeld, _host
from replication.pull import Pulled
from tests.replication.links import Pair, handle_of, pulled
from vstore import Store, Unavailable
from vstore.shard import Shard
from vstore.sql import statements as sql

SECOND = 1_000_000


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """A source on SQLite, and a target on each kind of database in turn."""
    target, source = pair
    for store in pair:
        store.create("notes", partitions=1)
    source["notes"].put_many({f"k{n}": n for n in range(20)})
    return source, target


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.us = 1_000 * SECOND

    def __call__(self) -> int:
        return self.us


def link(pair: Pair) -> str:
    """The name of the link's lease."""
    from replication.handshake import link_of

    return link_of(handle_of(pair[0]), handle_of(pair[1]))


def held(store: Store) -> list[tuple[str, int, int]]:
    """What the target has written of its leases: holder, token, until."""
    shard = store.shards[0]
    with shard.transaction():
        rows = shard.database.read().text("SELECT holder, token, until FROM vs_lease")
    return [tuple(row) for row in rows]


def test_the_second_replicator_is_told_who_holds_the_lease(pair: Pair) -> None:
    """It wrote nothing, and can pull once the first has given the lease back."""
    watch = Watch()
    first = Lease(link(pair), holder="office/daemon", now_us=watch)
    second = Lease(link(pair), holder="laptop/daemon", now_us=watch)
    first.fence(pair[1].shards[0])

    with pytest.raises(LeaseHeld, match="office/daemon") as told:
        pulled(*pair, lease=second)
    nothing = len(pair[1]["notes"])
    first.release()
    report = pulled(*pair, lease=second)

    assert isinstance(told.value, Unavailable)
    assert nothing == 0
    assert report.new == 20


def test_a_lease_that_is_kept_is_renewed_and_one_that_is_over_is_taken(pair: Pair) -> None:
    """Renewed it lasts; after half a minute without a word somebody else has it."""
    watch = Watch()
    shard = pair[1].shards[0]
    first = Lease(link(pair), holder="first", now_us=watch)
    second = Lease(link(pair), holder="second", now_us=watch)

    name, token = first.fence(shard)
    watch.us += 20 * SECOND
    assert first.fence(shard) == (name, token)
    watch.us += 20 * SECOND
    with pytest.raises(LeaseHeld, match="first"):
        second.fence(shard)
    watch.us += 20 * SECOND

    assert second.fence(shard) == (name, token + 1)
    with pytest.raises(LeaseHeld, match="second"):
        first.fence(shard)


def test_a_lease_from_a_clock_that_has_jumped_holds_nobody_up(pair: Pair) -> None:
    """An hour ahead it took the lease; nobody has to wait for that hour, and what it writes afterwards is refused."""
    watch, ahead = Watch(), Watch()
    ahead.us += 3_600 * SECOND
    shard = pair[1].shards[0]
    first = Lease(link(pair), holder="ahead", now_us=ahead)
    second = Lease(link(pair), holder="right", now_us=watch)

    _name, old = first.fence(shard)
    _name, new = second.fence(shard)

    assert new == old + 1
    assert [holder for holder, _token, _until in held(pair[1])] == ["right"]


def test_a_replicator_that_was_away_for_too_long_writes_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops in the middle, somebody else takes over and goes on; when it wakes up, the fence keeps it out."""
    monkeypatch.setattr(replication.feed, "PAGE_ROWS", 10)
    source, target = pair
    watch = Watch()
    sleeper = Lease(link(pair), holder="sleeper", now_us=watch)
    compared = Feed._compared
    pages: list[int] = []

    def slow(*args: object) -> object:
        page = compared(*args)  # type: ignore[arg-type]
        pages.append(len(pages))
        if len(pages) == 2:
            # Asleep: its own watch stands still, the one of the world goes on.
            other = Lease(link(pair), holder="other", now_us=lambda: watch.us + 60 * SECOND)
            other.fence(target.shards[0])
        return page

    monkeypatch.setattr(Feed, "_compared", slow)
    with pytest.raises(Unavailable, match="taken over"):
        pulled(source, target, lease=sleeper)
    monkeypatch.setattr(Feed, "_compared", compared)

    assert len(target["notes"]) == 0
    assert held(target)[0][0] == "other"


def test_who_was_killed_holds_nobody_up(pair: Pair) -> None:
    """The holder's process is no more on this host, so its lease counts no more."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead = Lease(link(pair), holder=f"{_host()}/{child}/00")
    dead.fence(pair[1].shards[0])

    report = pulled(*pair)

    assert report.new == 20


def test_a_lease_that_could_not_be_given_back_holds_up_nobody_here(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target went away in the middle of a pull, and with it the chance to say so. It is back: pull again."""
    source, target = pair
    with monkeypatch.context() as away:

        def gone(*_args: object, **_options: object) -> object:
            raise Unavailable("the target went away")

        def fenced(lease: Lease, shard: Shard) -> tuple[str, int]:
            found = fence(lease, shard)
            away.setattr(Shard, "transaction", gone)
            away.setattr(Shard, "apply", gone)
            return found

        fence = Lease.fence
        away.setattr(Lease, "fence", fenced)
        with pytest.raises(Unavailable, match="went away"):
            pulled(source, target)
    left = held(target)

    report = pulled(source, target)

    assert left[0][2] > 0
    assert report.new == 20


def test_nothing_to_do_takes_no_lease_and_writes_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for the time of the question, however many documents there are."""
    source, target = pair
    pulled(source, target)
    before = held(target), handle_of(target).positions()
    asked: list[str] = []
    rows, run = vstore.sql.database.Connection.rows, vstore.sql.database.Connection.run
    monkeypatch.setattr(vstore.sql.database.Connection, "rows", lambda *a: asked.append(a[1].name) or rows(*a))
    monkeypatch.setattr(vstore.sql.database.Connection, "run", lambda *a: asked.append("!") or run(*a))

    assert pulled(source, target) == Pulled()

    assert "!" not in asked
    assert len(asked) < 20  # of two shards
    assert (held(target), handle_of(target).positions()) == before


def test_of_two_at_once_each_row_is_moved_once(pair: Pair) -> None:
    """Ten threads pull the same link; those that come while one is at it are told so."""
    source, target = pair
    reports: list[Pulled] = []
    refused: list[LeaseHeld] = []

    def work() -> None:
        try:
            reports.append(pulled(source, target))
        except LeaseHeld as error:
            refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(report.rows for report in reports) == 20
    assert len(reports) + len(refused) == 10
    assert dict(target["notes"]) == dict(source["notes"])


def test_a_lease_is_in_every_database_that_is_written(fresh_url: Callable[[str], str]) -> None:
    """A target of two shards: one that works in the first only would be overtaken in the other."""
    with (
        vstore.open(fresh_url("sqlite")) as source,
        vstore.open(fresh_url("sqlite"), fresh_url("sqlite")) as target,
    ):
        source["notes"].put_many({f"k{n}": n for n in range(200)})
        target.create("notes")

        pulled(source, target)

        for shard in target.shards:
            assert [row[1] for row in shard.database.ask(sql.LOCK_LEASE, (link((source, target)),))] == [1]
