"""What a handshake finds out: first contacts, feeds that are others, ghosts, and replicas that missed a purge."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import replication.feed
import replication.pull
import vstore
from replication import sync
from replication.feed import Feed
from replication.handshake import meet, pending, standings
from replication.pull import Pulled
from tests.replication.links import Pair, events, handle_of, pulled, versions
from vstore import Store
from vstore.batch import Purge
from vstore.partition import part_of


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """Both with the collection, in 2 partitions."""
    for store in pair:
        store.create("notes", partitions=2)
    return pair


def purge(store: Store, *keys: str) -> None:
    """Forgets deleted documents as if every replica had acknowledged all that this store knows."""
    handle = handle_of(store)
    shard, definition = handle.shards[0], handle.definitions[0]
    for part, stands in enumerate(standings(handle)):
        shard.apply(definition, [Purge(part, [key for key in keys if part_of(key, 2) == part], dict(stands.bases))])


def actors(store: Store) -> list[str]:
    return [each.actor for each in standings(handle_of(store))]


class Backup:
    """A database and its state folder as they are when it is made, so that nothing in them tells when they are back."""

    def __init__(self, path: Path, state: Path) -> None:
        self._path, self._state = path, state
        self._bytes = path.read_bytes()
        shutil.copytree(state, f"{state}-saved")

    def restore(self) -> None:
        """Puts both back where they were, the database into the same inode."""
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._path.write_bytes(self._bytes)
        shutil.rmtree(self._state)
        shutil.copytree(f"{self._state}-saved", self._state)


def test_pending_says_how_much_there_is_to_take(pair: Pair) -> None:
    """Commits that were not taken, of all, and whether the two have met."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(10)})

    before = pending(handle_of(a), handle_of(b))
    pulled(a, b)
    a["notes"]["k1"] = "edited"
    after = pending(handle_of(a), handle_of(b))

    assert (before.commits, before.of, before.met) == (10, 10, False)
    assert (after.commits, after.of, after.met) == (1, 11, True)


def test_a_first_contact_of_two_that_have_much_compares_ranges(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file was copied, and each copy edited. Only the edits are looked at, and then only the feed."""
    monkeypatch.setattr(replication.pull, "RECONCILE_ROWS", 100)
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(400)})
    sync(a, b)
    for store in pair:  # as if they had never met: what remembers it is gone
        store.shards[0].database.read().text("DELETE FROM vs_checkpoint")
    a["notes"].put_many({"k1": "a", "k2": "a"})
    b["notes"].put_many({"k2": "b", "k3": "b"})

    report = sync(a, b)
    again = sync(a, b)

    assert report.to_b.compared + report.to_a.compared < 40
    assert report.to_b.differences == report.to_a.differences == 0
    assert dict(a["notes"].items(on_conflict="winner")) == dict(b["notes"].items(on_conflict="winner"))
    assert report.conflicts == 1
    assert not again
    assert again.to_a.compared < 20
    assert not sync(a, b)
    for one, other in (pair, pair[::-1]):
        for ours, theirs in zip(standings(handle_of(one)), standings(handle_of(other)), strict=True):
            assert ours.covers({theirs.actor: theirs.ctr})


def test_a_feed_that_is_another_one_is_read_from_its_beginning(pair: Pair) -> None:
    """The source got new actors and feeds; nothing is taken twice and nothing is missed."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(20)})
    pulled(a, b)
    handle = handle_of(a)
    handle.shards[0].renew_actors(handle.definitions[0], [0, 1])
    a["notes"]["k5"] = "after"

    report = pulled(a, b)

    assert (report.compared, report.rows) == (20, 1)
    assert dict(b["notes"]) == dict(a["notes"])
    assert pulled(a, b) == Pulled()


def test_a_feed_that_is_replaced_while_it_is_read_is_met_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source crashed and came back with another actor in the middle of a pull, which still comes to its end."""
    monkeypatch.setattr(replication.feed, "PAGE_ROWS", 5)
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(30)})
    handle = handle_of(a)
    compared = Feed._compared
    pages: list[int] = []

    def crashing(*args: Any) -> Any:
        pages.append(1)
        if len(pages) == 3:
            crash = threading.Thread(target=handle.shards[0].renew_actors, args=(handle.definitions[0], [0, 1]))
            crash.start()
            crash.join()
        return compared(*args)

    monkeypatch.setattr(Feed, "_compared", crashing)
    pulled(a, b)

    assert dict(b["notes"]) == dict(a["notes"])
    assert pulled(a, b) == Pulled()


def test_a_target_that_was_set_back_becomes_somebody_else_before_it_takes_anything(
    tmp_path: Path, fresh_url: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """Database and state folder were restored together, so nothing here tells. The peer does."""
    path, state = tmp_path / "b.db", tmp_path / "b-state"
    with vstore.open(fresh_url("sqlite")) as a:
        a.create("notes", partitions=1)
        with vstore.open(f"sqlite:///{path}", state=state) as b:
            b.create("notes", partitions=1)["k"] = "before"
        backup = Backup(path, state)
        with vstore.open(f"sqlite:///{path}", state=state) as b:
            b["notes"]["lost"] = "after the backup"
            pulled(b, a)
        backup.restore()
        with vstore.open(f"sqlite:///{path}", state=state) as b, caplog.at_level(logging.ERROR, "replication"):
            old = actors(b)

            report = pulled(a, b)
            b["notes"]["new"] = "one more"
            pulled(b, a)

            assert report.ghosts == 1
            assert "was set back" in caplog.text
            assert old != actors(b)
            assert (
                dict(a["notes"])
                == dict(b["notes"])
                == {
                    "k": "before",
                    "lost": "after the backup",
                    "new": "one more",
                }
            )


def test_a_source_that_was_set_back_is_fenced(tmp_path: Path, fresh_url: Callable[[str], str]) -> None:
    """The target knows more of the source's actor than the source: it must not mint those events again."""
    path, state = tmp_path / "a.db", tmp_path / "a-state"
    with vstore.open(fresh_url("sqlite")) as b:
        b.create("notes", partitions=1)
        with vstore.open(f"sqlite:///{path}", state=state) as a:
            a.create("notes", partitions=1)["k"] = "before"
        backup = Backup(path, state)
        with vstore.open(f"sqlite:///{path}", state=state) as a:
            a["notes"]["x"] = "after the backup"
            pulled(a, b)
        backup.restore()
        with vstore.open(f"sqlite:///{path}", state=state) as a:
            report = pulled(a, b)
            a["notes"]["y"] = "written by the ghost"
            second = sync(a, b)

            assert report.ghosts == 1
            assert second.to_b.collided == second.to_b.unexplained == 0
            assert (
                dict(a["notes"])
                == dict(b["notes"])
                == {
                    "k": "before",
                    "x": "after the backup",
                    "y": "written by the ghost",
                }
            )


def test_a_purge_at_the_source_is_one_at_the_target(pair: Pair) -> None:
    """The deleted document and its past are forgotten at both; others are untouched."""
    a, b = pair
    a["notes"].put_many({"gone": 1, "kept": 2})
    a["notes"]["gone"] = 3
    pulled(a, b)
    del a["notes"]["gone"]
    pulled(a, b)
    purge(a, "gone")

    report = pulled(a, b)

    assert report.forgotten == 1
    assert versions(a, "gone") == versions(b, "gone") == {}
    assert ("gone", "purge") in events(b)
    assert dict(b["notes"]) == {"kept": 2}
    assert pulled(a, b) == Pulled()
    assert list(b.check()) == []


def test_who_was_away_during_a_purge_gives_up_what_was_forgotten(pair: Pair) -> None:
    """It still has the document alive. Its edit of another deleted one, which nobody had seen, is kept."""
    a, b = pair
    a["notes"].put_many({"gone": 1, "edited": 1, "kept": 1})
    sync(a, b)
    a["notes"].delete_many(["gone", "edited"])
    purge(a, "gone", "edited")
    b["notes"]["edited"] = 2

    report = sync(a, b)
    again = sync(a, b)

    assert dict(a["notes"]) == dict(b["notes"]) == {"edited": 2, "kept": 1}
    assert report.to_b.forgotten == 1
    assert report.to_a.revived == 1
    assert report.to_a.unexplained == report.to_b.unexplained == 0
    assert not again
    assert not sync(a, b)


def test_a_stale_source_does_not_bring_back_what_was_purged_here(pair: Pair) -> None:
    """Pulled from before it has heard of anything: what it has of it is obsolete."""
    a, b = pair
    a["notes"].put_many({"gone": 1, "kept": 1})
    sync(a, b)
    del a["notes"]["gone"]
    purge(a, "gone")
    b["notes"]["new"] = 1
    b.shards[0].database.read().text("DELETE FROM vs_checkpoint")
    a.shards[0].database.read().text("DELETE FROM vs_checkpoint")

    report = pulled(b, a)

    assert set(a["notes"]) == {"kept", "new"}
    assert (report.obsolete, report.unexplained) == (1, 0)


def test_a_purge_between_handshake_and_batch_counts(pair: Pair) -> None:
    """The stale source was asked, then the document was purged here, then its rows arrive."""
    a, b = pair
    a["notes"].put_many({"gone": 1, "kept": 1})
    sync(a, b)
    del a["notes"]["gone"]
    b["notes"]["new"] = 1
    b.shards[0].database.read().text("DELETE FROM vs_checkpoint")
    a.shards[0].database.read().text("DELETE FROM vs_checkpoint")
    met = meet(handle_of(b), handle_of(a))
    purge(a, "gone")

    report = pulled(b, a, met=met)

    assert set(a["notes"]) == {"kept", "new"}
    assert report.unexplained == 0


def test_a_purged_key_is_free_for_a_new_document(pair: Pair) -> None:
    """Made again at the source, it is a document like any other at the target."""
    a, b = pair
    a["notes"]["k"] = 1
    pulled(a, b)
    del a["notes"]["k"]
    purge(a, "k")
    a["notes"]["k"] = "again"

    pulled(a, b)

    assert b["notes"]["k"] == "again"
    assert len(versions(b, "k")) == 1
    assert pulled(a, b) == Pulled()


def test_reconciling_always_finds_a_row_that_was_lost(pair: Pair) -> None:
    """A page of the target was lost. The feed does not know; a comparison does, and calls it a difference."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(50)})
    pulled(a, b)
    read = b.shards[0].database.read()
    [(lost,)] = read.text("SELECT id FROM vs_version WHERE key = 'k7'")
    read.text(f"DELETE FROM vs_version WHERE id = {lost}")
    read.text(f"DELETE FROM vs_head WHERE id = {lost}")

    silent = pulled(a, b)
    report = pulled(a, b, reconcile="always")
    healthy = pulled(a, b, reconcile="always")

    assert silent == Pulled()
    assert report.differences == 1
    assert b["notes"]["k7"] == 7
    assert healthy.differences == 0
