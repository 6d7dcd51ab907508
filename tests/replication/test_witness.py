"""Stores that write only once a peer was asked whether they had been set back: `require_witness=True`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import vstore
from replication import Replicator, sync
from replication.handshake import meet, standings, vouch
from replication.replicator import LOOK_SECONDS
from tests.replication.links import handle_of, pulled
from vstore import Store, Unwitnessed
from vstore.shard import Shard

Pair = tuple[str, Store]


@pytest.fixture
def pair(url: str, fresh_url: Callable[[str], str]) -> Iterator[Pair]:
    """The URL of a store on each kind of database in turn, which has written, and a peer that has all of it."""
    with vstore.open(fresh_url("sqlite")) as peer:
        with vstore.open(url) as store:
            for each in (store, peer):
                each.create("notes", partitions=2)
            store["notes"].put_many({"a": 1, "b": 1})
            sync(store, peer)
        yield url, peer


def actors(store: Store) -> list[str]:
    return [each.actor for each in standings(handle_of(store))]


def writes(store: Store) -> bool:
    """Whether a write is accepted."""
    try:
        store["notes"]["a"] = 2
    except Unwitnessed:
        return False
    return True


def test_nothing_is_written_until_a_peer_was_asked(pair: Pair) -> None:
    """Puts and deletes of every kind are refused, and say what to do. Reading goes on."""
    url, peer = pair
    with vstore.open(url, require_witness=True) as store:
        notes = store["notes"]
        with pytest.raises(Unwitnessed, match="Nothing was written. Sync the collection with a replica"):
            notes["a"] = 2
        with pytest.raises(Unwitnessed):
            del notes["a"]
        with pytest.raises(Unwitnessed):
            notes.put_many({"a": 2, "c": 2})
        with store.transaction(), pytest.raises(Unwitnessed):
            notes["a"] = 2
        before = dict(notes)
        old = actors(store)

        sync(store, peer)
        notes["a"] = 2

        assert before == {"a": 1, "b": 1}
        assert dict(notes) == {"a": 2, "b": 1}
        assert actors(store) == old
        assert list(store.check()) == []


def test_what_peers_have_written_is_received_all_the_while(pair: Pair) -> None:
    """A pull into the store asks the peer, and takes what it has."""
    url, peer = pair
    peer["notes"]["b"] = "theirs"
    with vstore.open(url, require_witness=True) as store:
        refused = not writes(store)
        pulled(peer, store)

        assert refused
        assert store["notes"]["b"] == "theirs"
        assert writes(store)


def test_a_replicator_of_another_process_is_a_witness_for_all_who_wait(pair: Pair) -> None:
    """Two writers and a replicator, each with the database opened for itself."""
    url, peer = pair
    with (
        vstore.open(url, require_witness=True) as one,
        vstore.open(url, require_witness=True) as two,
        vstore.open(url) as replicators,
    ):
        before = [writes(one), writes(two)]
        sync(replicators, peer)

        assert before == [False, False]
        assert [writes(one), writes(two)] == [True, True]


def test_a_live_replicator_that_has_nothing_to_do_meets_the_peer_now_and_then(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two such meetings it asks for positions alone, and these say nothing."""
    url, peer = pair
    with vstore.open(url) as ends:
        replicator = Replicator(ends, peer, live=True)
        replicator.turn()
        with vstore.open(url, require_witness=True) as store:
            replicator.turn()
            between = writes(store)
            now = time.monotonic
            monkeypatch.setattr(time, "monotonic", lambda: now() + LOOK_SECONDS)
            replicator.turn()

            assert not between
            assert writes(store)


def test_each_opening_needs_a_witness_of_its_own(pair: Pair) -> None:
    """What a peer said to an earlier opening is in every backup made since, and proves nothing."""
    url, peer = pair
    with vstore.open(url, require_witness=True) as store:
        sync(store, peer)
        assert writes(store)
    with vstore.open(url, require_witness=True) as store:
        assert not writes(store)
        sync(peer, store)
        assert writes(store)


def test_a_handshake_that_began_before_the_opening_answers_nothing(pair: Pair) -> None:
    """A replicator asked the peer; then the database was restored and opened; then the replicator went on."""
    url, peer = pair
    with vstore.open(url) as replicators:
        with vstore.open(url, require_witness=True):
            early = meet(handle_of(replicators), handle_of(peer))
        backup = "DELETE FROM vs_checkpoint WHERE name LIKE 'witness:%'"  # made before anybody had demanded anything
        replicators.shards[0].database.read().text(backup)
        with vstore.open(url, require_witness=True) as store:
            vouch(early, handle_of(replicators), handle_of(peer))
            refused = not writes(store)
            vouch(meet(handle_of(replicators), handle_of(peer)), handle_of(replicators), handle_of(peer))

            assert refused
            assert writes(store)


def test_actors_that_are_new_need_no_witness(pair: Pair) -> None:
    """Nobody can know more of what was made a moment ago: of new collections, and where no proof is found."""
    url, _peer = pair
    with vstore.open(url, require_witness=True) as store:
        store["others"]["a"] = 1
        handle = handle_of(store)
        handle.shards[0].renew_actors(handle.definitions[0], [0, 1])

        assert writes(store)
        assert store["others"]["a"] == 1


def set_back(path: Path, state: Path, peer: Store) -> None:
    """A file that was restored together with its proofs; the peer has what was written after the backup."""
    url, kept = f"sqlite:///{path}", path.parent / "backup"
    peer.create("notes", partitions=1)
    with vstore.open(url, state=state) as store:
        store.create("notes", partitions=1)["k"] = "before"
    shutil.copytree(state, kept)
    backup = path.read_bytes()
    with vstore.open(url, state=state) as store:
        store["notes"]["lost"] = "after the backup"
        pulled(store, peer)
    path.write_bytes(backup)  # in place: it is the same file
    shutil.rmtree(state)
    shutil.copytree(kept, state)


def test_a_restored_backup_asks_before_it_writes_and_then_writes_as_somebody_else(
    tmp_path: Path, fresh_url: Callable[[str], str]
) -> None:
    """Database and proofs went back together: only the peer can tell."""
    path, state = tmp_path / "b.db", tmp_path / "state"
    with vstore.open(fresh_url("sqlite")) as peer:
        set_back(path, state, peer)
        with vstore.open(f"sqlite:///{path}", state=state, require_witness=True) as store:
            old = actors(store)
            with pytest.raises(Unwitnessed):
                store["notes"]["lost"] = "too early"
            report = sync(store, peer)
            store["notes"]["new"] = "one more"
            last = sync(store, peer)

            assert report.to_a.ghosts + report.to_b.ghosts == 1
            assert last.to_b.collided == last.to_b.unexplained == 0
            assert actors(store) != old
            expected = {"k": "before", "lost": "after the backup", "new": "one more"}
            assert dict(store["notes"]) == dict(peer["notes"]) == expected
            assert [list(each.check()) for each in (store, peer)] == [[], []]


def test_without_the_rule_it_uses_a_dot_twice(
    tmp_path: Path, fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same story with the rule switched off: the dot of what was lost names another version too."""
    monkeypatch.setattr(Shard, "_await_witness", lambda *_args: None)
    path, state = tmp_path / "b.db", tmp_path / "state"
    with vstore.open(fresh_url("sqlite")) as peer:
        set_back(path, state, peer)
        with vstore.open(f"sqlite:///{path}", state=state, require_witness=True) as store:
            store["notes"]["lost"] = "too early"
            report = sync(store, peer)

            assert report.to_a.collided + report.to_b.collided > 0


def test_who_was_set_back_and_has_not_got_a_new_actor_goes_on_waiting(pair: Pair) -> None:
    """A replicator finds a ghost that it may not change: what it has asked is no answer."""
    url, peer = pair
    with vstore.open(url, require_witness=True) as store:
        for actor in actors(store):
            peer.shards[0].database.read().text(f"UPDATE vs_knowledge SET hi = 99 WHERE actor = '{actor}'")

        vouch(meet(handle_of(store), handle_of(peer)), handle_of(store), handle_of(peer))
        refused = not writes(store)
        sync(store, peer)

        assert refused
        assert writes(store)
