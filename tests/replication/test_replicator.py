"""`Replicator`: what it promises to a program that runs one, on real databases and with real threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

import replication.replicator
import replication.route
import vstore
from replication import Replicator, Status
from replication.daemon.stores import Stores
from replication.filters import Filter
from replication.lease import LeaseHeld
from tests.replication.links import Pair
from vstore import ConfigurationError, NotFound, Store, StoreError, Unavailable
from vstore.resolvers import json3


@pytest.fixture
def pair(fresh_url: Callable[[str], str]) -> Iterator[Pair]:
    """Two stores on SQLite."""
    with vstore.open(fresh_url("sqlite")) as one, vstore.open(fresh_url("sqlite")) as other:
        yield one, other


def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    """Waits for something that another thread does, however slow the machine is."""
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "it did not happen"
        threading.Event().wait(0.01)


def steady(low: float, high: float) -> float:
    """Stands in for `random.uniform`: the longest wait."""
    return high


# --- one pass --------------------------------------------------------------------------------------------------------


def test_a_pass_brings_the_target_up_to_the_source_on_every_engine(url: str, fresh_url: Callable[[str], str]) -> None:
    """One way: what the target has of its own stays there."""
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(url) as target:
        source["notes"].put_many({f"k{n}": {"n": n} for n in range(50)})
        source["tasks"]["t"] = 1
        target["notes"]["own"] = True

        status = Replicator(source, target, name="up").run()
        again = Replicator(source, target).run()

        assert len(target["notes"]) == 51
        assert target["tasks"]["t"] == 1
        assert "own" not in source["notes"]
        assert (status.name, status.state, status.new, status.pending, status.error) == ("up", "idle", 51, 0, "")
        assert status.lag_seconds == 0
        assert status.progress == 1
        assert (again.rows, again.state) == (0, "idle")


def test_both_takes_each_way(pair: Pair) -> None:
    a, b = pair
    a["notes"]["from a"] = 1
    b["notes"]["from b"] = 2
    b["only b"]["k"] = 3

    Replicator(a, b, both=True).run()

    assert dict(a["notes"]) == dict(b["notes"]) == {"from a": 1, "from b": 2}
    assert a["only b"]["k"] == 3


def test_only_the_collections_that_are_named(pair: Pair) -> None:
    """Names that the source has not yet are no error: it may get them."""
    a, b = pair
    a["notes"]["k"] = a["tasks"]["k"] = 1

    Replicator(a, b, collections=["tasks", "later"]).run()

    assert b.collections() == ["tasks"]


def test_a_collection_by_itself_and_under_another_name(pair: Pair) -> None:
    a, b = pair
    a["notes"]["k"] = 1

    Replicator(a["notes"], b["copy"]).run()

    assert dict(b["copy"]) == {"k": 1}


def test_a_filter_and_a_history_are_what_the_pull_is_given(pair: Pair) -> None:
    """A filtered replica has what the filter wants; a full history has every version."""
    a, b = pair
    a["notes"]["fr/1"] = 1
    a["notes"]["fr/1"] = 2
    a["notes"]["de/1"] = 3

    Replicator(a, b, filter=Filter(prefix="fr/")).run()
    filtered = dict(b["notes"])
    Replicator(a["notes"], b["all"], history="all").run()

    assert filtered == {"fr/1": 2}
    assert [version.value for version in b["all"].history("fr/1")] == [2, 1]


def test_conflicts_are_settled_at_the_target(pair: Pair) -> None:
    """Without a resolver they are counted, with one they are gone."""
    a, b = pair
    a["notes"]["k"] = {"n": 1}
    Replicator(a, b).run()
    a["notes"]["k"], b["notes"]["k"] = {"n": 1, "a": 1}, {"n": 1, "b": 1}

    left = Replicator(a, b).run()
    settled = Replicator(a, b, resolver=json3).run()

    assert (left.conflicts, left.resolved) == (1, 0)
    assert (settled.conflicts, settled.resolved) == (0, 1)
    assert b["notes"]["k"] == {"n": 1, "a": 1, "b": 1}


def test_both_ways_what_was_settled_at_the_target_is_at_the_source_after_one_pass(pair: Pair) -> None:
    a, b = pair
    a["notes"]["k"] = {"n": 1}
    Replicator(a, b).run()
    a["notes"]["k"], b["notes"]["k"] = {"n": 1, "a": 1}, {"n": 1, "b": 1}

    status = Replicator(a, b, both=True, resolver=json3).run()

    assert status.resolved == 1
    assert a["notes"]["k"] == b["notes"]["k"] == {"n": 1, "a": 1, "b": 1}


def test_an_error_of_a_single_pass_is_raised_and_shown(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    a["notes"]["k"] = 1
    monkeypatch.setattr(replication.route, "take", refuse(Unavailable("gone away.")))
    replicator = Replicator(a, b)

    with pytest.raises(Unavailable, match="gone away"):
        replicator.run()

    assert (replicator.status.state, replicator.status.error) == ("failing", "gone away.")
    assert replicator.status.error_at is not None


@pytest.mark.parametrize(
    "ends",
    [
        lambda a, b: (a, a),
        lambda a, b: (a["notes"], a["notes"]),
        lambda a, b: (a, b["notes"]),
        lambda a, b: (a["notes"], b),
        lambda a, b: (a["notes"].prefixed("x/"), b["notes"]),
        lambda a, b: (a["notes"], lambda: b),
    ],
)
def test_ends_that_are_not_two_of_a_kind_are_refused(pair: Pair, ends: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Nothing was (moved|done)"):
        Replicator(*ends(*pair))


def test_a_status_is_a_value(pair: Pair) -> None:
    """Who asked for it may keep it."""
    a, b = pair
    replicator = Replicator(a, b, name="n")
    before = replicator.status
    a["notes"]["k"] = 1
    replicator.run()

    assert before == Status("n", before.source, before.target, since=before.since, lag_seconds=before.lag_seconds)
    assert replicator.status.rows == 1
    with pytest.raises(FrozenInstanceError):
        before.rows = 1  # type: ignore[misc]


# --- live ------------------------------------------------------------------------------------------------------------


def test_live_a_commit_of_this_process_arrives_at_once(pair: Pair) -> None:
    """It does not wait for the poll, which is an hour away."""
    a, b = pair
    with Replicator(a, b, live=True, poll_seconds=3600) as replicator:
        until(lambda: replicator.status.state == "idle")
        a["notes"]["k"] = 1

        until(lambda: b["notes"].get("k") == 1)
        until(lambda: replicator.status.state == "idle")

    assert replicator.status.state == "stopped"
    a["notes"]["after"] = 1
    assert "after" not in b["notes"]


def test_live_a_commit_of_another_process_arrives_with_the_poll(pair: Pair) -> None:
    """Another opening of the store stands in for the other process: it has news of its own."""
    a, b = pair
    with (
        vstore.open(a.shards[0].database.address) as elsewhere,
        Replicator(a, b, live=True, poll_seconds=0.05) as replicator,
    ):
        until(lambda: replicator.status.state == "idle")
        elsewhere["notes"]["k"] = 1

        until(lambda: b["notes"].get("k") == 1)


def test_live_a_collection_that_is_made_later_is_taken(pair: Pair) -> None:
    a, b = pair
    with Replicator(a, b, live=True, poll_seconds=0.05) as replicator:
        until(lambda: replicator.status.state == "idle")
        a["new"]["k"] = 1

        until(lambda: "new" in b and b["new"].get("k") == 1)


def test_a_chain_passes_on_what_it_gets(pair: Pair, fresh_url: Callable[[str], str]) -> None:
    """What the first writes into the middle wakes the second."""
    a, b = pair
    with (
        vstore.open(fresh_url("sqlite")) as c,
        Replicator(a, b, live=True, poll_seconds=3600) as first,
        Replicator(b, c, live=True, poll_seconds=3600) as second,
    ):
        until(lambda: first.status.state == second.status.state == "idle")
        a["notes"]["k"] = 1

        until(lambda: c["notes"].get("k") == 1)


def test_both_ways_live_comes_to_rest(pair: Pair) -> None:
    """What it writes itself wakes it once more, and then there is nothing to do."""
    a, b = pair
    with Replicator(a, b, live=True, both=True, poll_seconds=3600) as replicator:
        a["notes"]["k"] = 1
        b["notes"]["l"] = 2
        until(lambda: len(a["notes"]) == len(b["notes"]) == 2)
        until(lambda: replicator.status.state == "idle")
        threading.Event().wait(0.3)
        turns = replicator.status.turns
        threading.Event().wait(0.3)

        assert replicator.status.turns == turns


def test_paused_it_counts_what_waits_and_takes_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    monkeypatch.setattr(replication.replicator, "COUNTED_SECONDS", 0.05)
    with Replicator(a, b, live=True, poll_seconds=0.05) as replicator:
        until(lambda: replicator.status.state == "idle")
        replicator.pause()
        until(lambda: replicator.status.state == "paused")
        a["notes"].put_many({f"k{n}": n for n in range(3)})

        until(lambda: replicator.status.pending == 3)
        assert "notes" not in b
        assert replicator.status.lag_seconds > 0
        replicator.resume()
        until(lambda: len(b["notes"]) == 3)
        until(lambda: replicator.status.state == "idle")


def test_stop_is_heard_while_it_waits_and_it_can_be_started_again(pair: Pair) -> None:
    a, b = pair
    replicator = Replicator(a, b, live=True, poll_seconds=3600)
    replicator.start()
    replicator.start()  # it runs already
    until(lambda: replicator.status.state == "idle")

    assert replicator.stop(5)
    assert replicator.stop(5)
    assert replicator.status.state == "stopped"
    a["notes"]["k"] = 1
    replicator.start()
    until(lambda: b["notes"].get("k") == 1)
    assert replicator.stop(5)


def test_started_without_live_it_ends_by_itself(pair: Pair) -> None:
    a, b = pair
    a["notes"]["k"] = 1
    replicator = Replicator(a, b)
    replicator.start()

    until(lambda: b["notes"].get("k") == 1)
    until(lambda: replicator.status.state == "idle")
    assert replicator.stop(5)


def test_stopped_in_the_middle_it_ends_after_the_batch_and_the_next_goes_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20,000 documents it had taken some; whoever comes next takes the others, and none again but one batch."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(20_000)})
    replicator = Replicator(a, b, live=True)
    add = replicator._add
    monkeypatch.setattr(replicator, "_add", lambda moved: (add(moved), replicator._halt.set() or stop.set()))
    stop = threading.Event()
    replicator.start()
    assert stop.wait(30)
    assert replicator.stop(10)
    taken = len(b["notes"])

    status = Replicator(a, b).run()

    assert 0 < taken < 20_000
    assert len(b["notes"]) == 20_000
    assert status.new == 20_000 - taken
    assert status.rows <= 20_000 - taken + 2_000


# --- errors ----------------------------------------------------------------------------------------------------------


def refuse(error: Exception) -> Callable[..., Any]:
    """A function that raises an error."""

    def raising(*args: Any, **named: Any) -> Any:
        raise error

    return raising


def test_an_end_that_does_not_answer_is_tried_at_growing_distances(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second, two, four, up to a minute; then the first success begins anew."""
    a, b = pair
    a["notes"]["k"] = 1
    monkeypatch.setattr("random.uniform", steady)
    replicator = Replicator(a, b, live=True, poll_seconds=1.0)
    with monkeypatch.context() as broken:
        broken.setattr(replication.route, "take", refuse(Unavailable("gone away.")))

        assert [replicator.turn() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]

    assert (replicator.status.state, replicator.status.errors) == ("failing", 8)
    assert replicator.turn() == pytest.approx(1.1)
    assert (replicator.status.state, replicator.status.error, replicator.status.errors) == ("idle", "", 8)
    a["notes"]["l"] = 2
    with monkeypatch.context() as broken:
        broken.setattr(replication.route, "take", refuse(Unavailable("gone away.")))

        assert replicator.turn() == 1


def test_it_says_that_it_works_again_after_a_resume_too(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To resume is to try again at once, and not to forget that something was wrong."""
    a, b = pair
    a["notes"]["k"] = 1
    replicator = Replicator(a, b, name="home")

    with monkeypatch.context() as broken:
        broken.setattr(replication.route, "take", refuse(Unavailable("gone away.")))
        replicator.turn()
    replicator.resume()
    with caplog.at_level("INFO", logger="replication"):
        replicator.turn()

    assert [record.message for record in caplog.records if "again" in record.message] == ["home: it works again"]
    assert b["notes"]["k"] == 1


def test_distances_are_spread_so_that_many_do_not_come_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    a["notes"]["k"] = 1
    monkeypatch.setattr(replication.route, "take", refuse(Unavailable("gone away.")))

    waits = {Replicator(a, b, live=True).turn() for _ in range(20)}

    assert len(waits) > 10
    assert all(0.5 <= wait <= 1 for wait in waits)


@pytest.mark.parametrize("error", [StoreError("wrong."), ValueError("a mistake of ours")])
def test_any_other_error_is_shown_and_tried_again_after_a_minute(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has it once, not once a minute."""
    a, b = pair
    a["notes"]["k"] = 1
    monkeypatch.setattr("random.uniform", steady)
    replicator = Replicator(a, b, live=True, name="n")
    with monkeypatch.context() as broken:
        broken.setattr(replication.route, "take", refuse(error))

        assert [replicator.turn(), replicator.turn()] == [60, 60]

    assert str(error) in replicator.status.error
    assert len([record for record in caplog.records if str(error) in record.getMessage()]) == 1
    replicator.turn()
    assert replicator.status.state == "idle"


def test_news_do_not_shorten_the_wait_after_an_error_but_resume_does(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    a["notes"]["k"] = 1
    called: list[int] = []
    replicator = Replicator(a, b, live=True, wake=lambda: called.append(1))
    with monkeypatch.context() as broken:
        broken.setattr(replication.route, "take", refuse(Unavailable("gone away.")))
        replicator.turn()

    a["notes"]["l"] = 1
    assert not called
    replicator.resume()
    assert called
    replicator.turn()
    called.clear()
    a["notes"]["m"] = 1
    assert called


def test_a_collection_that_fails_does_not_keep_up_the_others(pair: Pair) -> None:
    """One has another number of partitions at the target."""
    a, b = pair
    a.create("a", partitions=16)
    b.create("a", partitions=32)
    a["a"]["k"] = a["b"]["k"] = 1
    replicator = Replicator(a, b, live=True)

    replicator.turn()

    assert b["b"]["k"] == 1
    assert replicator.status.state == "failing"
    assert "16 partitions" in replicator.status.error


def test_a_source_that_is_not_there_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never makes one itself: an empty source would be a mistake that nobody sees."""
    monkeypatch.setattr("random.uniform", lambda low, high: 0.05)
    path = tmp_path / "source.db"
    with vstore.open(f"sqlite:///{tmp_path}/target.db") as target:
        replicator = Replicator(
            lambda: vstore.open(f"sqlite:///{path}", create=False), lender(target), live=True, poll_seconds=0.05
        )
        with replicator:
            until(lambda: replicator.status.errors >= 3)
            assert "there is no store at" in replicator.status.error
            assert not path.exists()

            with vstore.open(f"sqlite:///{path}") as source:
                source["notes"]["k"] = 1
            until(lambda: target["notes"].get("k") == 1)
            until(lambda: replicator.status.state == "idle")


def test_while_another_replicator_has_the_link_it_waits_and_is_not_failing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    a["notes"]["k"] = 1
    monkeypatch.setattr("random.uniform", steady)
    replicator = Replicator(a, b, live=True)
    with monkeypatch.context() as held:
        held.setattr(replication.route, "take", refuse(LeaseHeld("by somebody else.")))

        assert replicator.turn() == 5

    assert (replicator.status.state, replicator.status.errors) == ("bootstrapping", 0)
    replicator.turn()
    assert replicator.status.state == "idle"


# --- taking turns ----------------------------------------------------------------------------------------------------


def test_a_turn_that_is_long_enough_leaves_the_rest_for_the_next(pair: Pair) -> None:
    """For those who have few threads and many replicators."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(10_000)})
    replicator = Replicator(a, b, live=True)

    wait = replicator.turn(lambda: True)
    taken, status = len(b["notes"]), replicator.status
    while replicator.status.state != "idle":
        replicator.turn(lambda: True)

    assert wait == 0
    assert 0 < taken < 10_000
    assert (status.state, status.pending) == ("bootstrapping", 10_000 - taken)
    assert status.progress == pytest.approx(taken / 10_000, abs=0.01)
    assert len(b["notes"]) == 10_000


def test_an_interrupted_first_pass_is_still_the_first_for_the_next_replicator(pair: Pair) -> None:
    """And once it has ended, later ones catch up."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(10_000)})
    Replicator(a, b, live=True).turn(lambda: True)
    second = Replicator(a, b, live=True)

    second.turn(lambda: True)
    between = second.status
    while second.status.state != "idle":
        second.turn(lambda: True)
    third = Replicator(a, b, live=True)
    a["notes"].put_many({f"k{n}": n for n in range(10_000)})
    third.turn(lambda: True)

    assert between.state == "bootstrapping"
    assert 0 < between.progress < 1
    assert (third.status.state, third.status.progress) == ("catching up", 1)


def test_an_idle_poll_asks_for_positions_and_nothing_else(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question for each shard and collection of the source; the ends meet in full only now and then."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    replicator = Replicator(a, b, live=True)
    while replicator.status.state != "idle":
        replicator.turn()
    replicator.turn()
    asked: list[str] = []
    rows = vstore.sql.database.Connection.rows
    monkeypatch.setattr(vstore.sql.database.Connection, "rows", lambda *args: asked.append(args[1].name) or rows(*args))

    replicator.turn()
    idle = list(asked)
    a["notes"]["k"] = 1
    replicator.turn()
    monkeypatch.setattr(replication.replicator, "LOOK_SECONDS", -1.0)
    replicator._quiet.clear()
    replicator.turn()
    asked.clear()
    replicator.turn()

    assert len(idle) <= 4
    assert b["notes"]["k"] == 1
    assert len(asked) > 6


@pytest.mark.parametrize("due", [True, False])
def test_both_ends_are_compared_in_full_now_and_then(pair: Pair, monkeypatch: pytest.MonkeyPatch, due: bool) -> None:
    """When it is time, every collection once."""
    a, b = pair
    a["notes"]["k"] = a["tasks"]["k"] = 1
    asked: list[tuple[str, bool]] = []
    take = replication.route.take

    def noted(pair: replication.route.Pair, **named: Any) -> None:
        asked.append((pair.name, named["reconcile"]))
        take(pair, **named)

    monkeypatch.setattr(replication.route, "take", noted)
    monkeypatch.setattr("random.uniform", steady)
    replicator = Replicator(a, b, live=True, reconcile_seconds=0.0001 if due else 3600)
    threading.Event().wait(0.01)
    replicator.turn()
    replicator._reconcile_at = time.monotonic() + 3600
    replicator._quiet.clear()
    replicator.turn()

    assert asked == [("notes", due), ("tasks", due), ("notes", False), ("tasks", False)]


# --- stores that are lent --------------------------------------------------------------------------------------------


def lender(store: Store) -> Callable[[], Any]:
    """Lends a store that stays open."""

    @contextmanager
    def lent() -> Iterator[Store]:
        yield store

    return lent


def test_a_store_is_opened_once_for_all_that_use_it(tmp_path: Path) -> None:
    """And closed at the end."""
    url = f"sqlite:///{tmp_path}/a.db"
    stores = Stores()
    with stores.lent((url,), create=True) as one, stores.lent((url,), create=False) as other:
        assert one is other
    with stores.lent((url,), create=False) as again:
        assert again is one
    stores.close()

    assert one.shards[0].database.closed


def test_a_store_that_failed_is_opened_anew_when_nobody_uses_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    stores = Stores()
    with stores.lent((url,), create=True) as one:
        with pytest.raises(Unavailable), stores.lent((url,), create=False):
            raise Unavailable("gone")
        assert not one.shards[0].database.closed
    with stores.lent((url,), create=False) as other:
        assert other is not one
    stores.close()

    assert one.shards[0].database.closed
    assert other.shards[0].database.closed


def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    """A connection would go on with the old one, which is deleted, and whatever it wrote would be lost."""
    urls = (f"sqlite:///{tmp_path}/a.db",)
    stores = Stores()
    with stores.lent(urls, create=True) as one:
        one["notes"]["k"] = "old"
    for file in tmp_path.glob("a.db*"):
        file.unlink()
    with pytest.raises(NotFound), stores.lent(urls, create=False):
        pass
    with vstore.open(*urls) as new:
        new["notes"]["k"] = "new"

    with stores.lent(urls, create=False) as other:
        assert other["notes"]["k"] == "new"
    stores.close()


def test_a_store_that_takes_long_to_say_no_is_not_asked_by_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all threads would wait there, and replications between other stores with them."""
    attempts = []

    class Slow(Store):
        def __init__(self, *urls: str, **settings: Any) -> None:
            attempts.append(urls)
            threading.Event().wait(0.2)
            raise Unavailable("no answer.")

    monkeypatch.setattr("replication.daemon.stores.Store", Slow)
    monkeypatch.setattr("replication.daemon.stores.QUICK_SECONDS", 0.1)
    stores = Stores()
    for _ in range(3):
        with pytest.raises(Unavailable), stores.lent(("sqlite:///a.db",), create=False):
            pass

    assert len(attempts) == 1
