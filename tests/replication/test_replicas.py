"""The registry of replicas: who is noted where, what that proves, and that idle replicas write nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

import vstore
from replication import Filter, sync
from tests.replication.links import handle_of, pulled
from vstore import NotFound, Store, replicas
from vstore.cli.program import main
from vstore.replicas import DAY_US, Note
from vstore.sql import statements as sql

Opener = Callable[..., Store]


@pytest.fixture
def opened(fresh_url: Callable[[str], str]) -> Iterator[Opener]:
    """Opens new stores with a collection `notes`, of SQLite unless said otherwise."""
    with ExitStack() as stack:

        def new(*kinds: str) -> Store:
            store = stack.enter_context(vstore.open(*[fresh_url(kind) for kind in kinds or ("sqlite",)]))
            store.create("notes", partitions=4)
            return store

        yield new


def noted(store: Store, other: Store) -> list[Note]:
    """What a store has noted of another."""
    uid = handle_of(other).uid
    found = replicas.noted(handle_of(store)).values()
    return sorted((note for note in found if note.replica == uid), key=lambda note: note.part)


def joined(store: Store, notes: list[Note], now_us: int) -> int:
    """How many of the notes a store takes over."""
    return replicas.join(handle_of(store), notes, replicas.noted(handle_of(store)), now_us=now_us)


def ids(store: Store) -> set[str]:
    """The replicas that a store has heard of."""
    return {each.id for each in store["notes"].replicas()}


def uids(*stores: Store) -> set[str]:
    return {handle_of(store).uid for store in stores}


def stable(store: Store) -> list[dict[str, int]]:
    """The stability vector of each partition."""
    registry = replicas.registry(handle_of(store))
    return [registry.stable(part) for part in range(4)]


def test_whoever_has_pulled_all_is_noted_with_all_that_it_knows(engine: str, opened: Opener) -> None:
    """On each kind of database, over two shards: its knowledge, its address, the time."""
    a, b = opened(engine, "sqlite"), opened()
    a["notes"].put_many({f"k{n}": n for n in range(40)})
    before_us = time.time_ns() // 1000

    pulled(a, b)

    [bo] = a["notes"].replicas()
    assert (bo.id, bo.role, bo.behind, bo.expired, bo.holds_back) == (handle_of(b).uid, "full", 0, False, False)
    assert bo.name == b.shards[0].database.name
    assert before_us <= bo.seen <= time.time_ns() // 1000
    assert [note.known for note in noted(a, b)] == replicas.known(handle_of(b)) == stable(a)
    assert b["notes"].replicas() == []  # it has given nothing to anyone


def test_how_far_one_is_behind_are_the_events_that_it_has_not_acknowledged(opened: Opener) -> None:
    """Its own count for nothing that it has not told; each pull brings it up to date."""
    a, b = opened(), opened()
    sync(a, b)
    a["notes"].put_many({f"k{n}": n for n in range(10)})
    sync(a, b)
    a["notes"]["k1"] = "edited"
    del a["notes"]["k2"]

    [behind] = a["notes"].replicas()
    sync(a, b)
    [level] = a["notes"].replicas()

    assert (behind.behind, behind.holds_back) == (2, True)
    assert (level.behind, level.holds_back) == (0, False)


def test_a_sync_with_nothing_to_do_writes_nothing(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a note nor a time; the registries of both have settled by the second one."""
    a, b = opened(), opened()
    a["notes"].put_many({f"k{n}": n for n in range(10)})
    sync(a, b)
    sync(a, b)
    before = [replicas.noted(handle_of(store)) for store in (a, b)]
    ran: list[str] = []
    for name in ("run", "run_many"):
        whole = getattr(vstore.sql.database.Connection, name)
        monkeypatch.setattr(
            vstore.sql.database.Connection,
            name,
            lambda self, statement, *rest, whole=whole: ran.append(statement.name) or whole(self, statement, *rest),
        )

    sync(a, b)
    wrote = replicas.exchange(handle_of(a), handle_of(b))

    assert (ran, wrote) == ([], 0)
    assert [replicas.noted(handle_of(store)) for store in (a, b)] == before


def test_once_a_day_a_replica_says_that_it_is_alive(opened: Opener) -> None:
    """Else one that has nothing to tell for 90 days would count for lost."""
    a, b = opened(), opened()
    a["notes"]["k"] = 1
    pulled(a, b)
    soon, later = [min(note.seen for note in noted(a, b)) + us for us in (DAY_US - 1, DAY_US)]
    told = [
        replicas.exchange(handle_of(a), handle_of(b), moved=False, now_us=now_us) for now_us in (soon, later, later)
    ]

    assert told == [0, len(noted(a, b)), 0]
    assert {note.seen for note in noted(a, b)} == {later}


def test_replicas_that_never_meet_count_too(opened: Opener) -> None:
    """A line: a and c know each other through b. A delete at a is not stable before c has it."""
    a, b, c = opened(), opened(), opened()
    a["notes"]["k"] = 1
    for _ in range(2):
        sync(a, b)
        sync(b, c)
    del a["notes"]["k"]
    sync(a, b)

    met = ids(a), ids(b), ids(c)
    early = a["notes"].purge(grace_days=0)
    sync(b, c)
    sync(a, b)
    late = a["notes"].purge(grace_days=0)

    assert met == (uids(b, c), uids(a, c), uids(a, b))
    assert early.purged == 0
    assert handle_of(c).uid in {holder.id for holder in early.holders}
    assert late.purged == 1


def test_in_a_one_way_ring_everybody_hears_of_everybody(opened: Opener) -> None:
    """Each pulls from the one before it, and nobody is ever asked the other way."""
    ring = [opened() for _ in range(4)]
    for n in range(3):
        ring[0]["notes"]["k"] = n
        for source, target in zip(ring, [*ring[1:], ring[0]], strict=True):
            pulled(source, target)

    assert [ids(store) for store in ring] == [uids(*ring) - uids(store) for store in ring]


def test_a_filtered_replica_is_listed_and_holds_nothing_back(opened: Opener) -> None:
    """Nor does whoever has pulled all of it: that is not all there is."""
    a, part, below = opened(), opened(), opened()
    a["notes"].put_many({"x/1": 1, "y/1": 1})
    pulled(a, part, filter=Filter(prefix="x/"))
    pulled(part, below)
    del a["notes"]["x/1"]

    pulled(part, a)
    done = a["notes"].purge(grace_days=0)

    [listed] = a["notes"].replicas()
    assert (listed.id, listed.role, listed.counts, listed.behind) == (handle_of(part).uid, "filtered", False, 0)
    assert (done.purged, done.holders) == (1, ())


def test_a_filter_beside_a_whole_link_does_not_make_a_replica_a_filtered_one(opened: Opener) -> None:
    """It has pulled all by one link, and some by another: what it acknowledged still counts."""
    a, b = opened(), opened()
    a["notes"].put_many({"x/1": 1, "y/1": 1})
    pulled(a, b)
    a["notes"]["x/1"] = 2
    pulled(a, b, filter=Filter(prefix="x/"))

    [bo] = a["notes"].replicas()

    assert (bo.role, bo.behind) == ("full", 1)


def test_the_newest_note_of_a_replica_wins_wherever_it_comes_from(opened: Opener) -> None:
    """An older one that arrives later changes nothing; a replica takes none about itself."""
    a, b = opened(), opened()
    a["notes"]["k"] = 1
    sync(a, b)
    [*notes] = noted(a, b)
    older = [replace(note, known={}, seen=note.seen - 1) for note in notes]
    newer = [replace(note, known={"x": 1}, seen=note.seen + 1) for note in notes]
    of_self = [replace(note, replica=handle_of(a).uid) for note in notes]
    now_us = notes[0].seen + 10

    taken = [joined(a, each, now_us) for each in (older, of_self, newer, newer)]

    assert taken == [0, 0, len(notes), 0]
    assert {tuple(note.known.items()) for note in noted(a, b)} == {(("x", 1),)}
    assert noted(a, a) == []


def test_a_note_from_the_future_makes_no_replica_immortal(opened: Opener) -> None:
    """A wrong clock somewhere: the note counts as of now, and what the replica says itself wins over it."""
    a, b = opened(), opened()
    a["notes"]["k"] = 1
    sync(a, b)
    now_us = max(note.seen for note in noted(a, b)) + 10
    future = [replace(note, known={}, seen=now_us + 10_000 * DAY_US) for note in noted(a, b)]

    joined(a, future, now_us)
    misled = max(note.seen for note in noted(a, b))
    replicas.exchange(handle_of(a), handle_of(b), now_us=now_us)

    assert misled == now_us
    assert [note.known for note in noted(a, b) if note.known] == [k for k in replicas.known(handle_of(b)) if k]


def test_a_replica_that_was_set_back_is_noted_as_it_is(opened: Opener) -> None:
    """What it acknowledged once and has lost is no proof any more, though its clock says the same."""
    a, b = opened(), opened()
    a["notes"]["k"] = 1
    sync(a, b)
    a["notes"]["k"] = 2
    sync(a, b)
    before = noted(a, b)
    shard = handle_of(b).shards[0]
    with shard.transaction():  # as a restored backup would be: the knowledge of then
        connection = shard.database.read()
        for id_, actor, n in connection.rows(sql.BASES, (0, 1 << 30)):
            connection.run(sql.FORGET_RUN, (id_, actor, 1))
            connection.run(sql.ADD_RUN, (id_, actor, 1, n - 1))

    replicas.exchange(handle_of(a), handle_of(b), now_us=min(note.seen for note in before))

    told = {note.part: note for note in noted(a, b)}
    [(was, now)] = [(note, told[note.part]) for note in before if note.known]
    assert list(was.known.values()) == [2]
    assert list(now.known.values()) == [1]
    assert now.seen > was.seen
    assert a["notes"].replicas()[0].behind == 1


def test_a_retired_replica_is_gone_everywhere_and_may_come_back(opened: Opener) -> None:
    """The word travels; notes of before do not bring it back, but the replica itself does."""
    a, b, c = opened(), opened(), opened()
    a["notes"]["k"] = 1
    for _ in range(2):
        sync(a, b)
        sync(a, c)
    gone = a["notes"].retire_replica(handle_of(c).uid[:6])
    a["notes"]["k"] = 2
    sync(a, b)
    sync(a, b)

    after = ids(a), ids(b)
    sync(a, c)

    assert gone.id == handle_of(c).uid
    assert after == (uids(b), uids(a))
    assert ids(a) == uids(b, c)


def test_only_one_that_is_registered_can_be_retired(opened: Opener) -> None:
    a, b = opened(), opened()
    a["notes"]["k"] = 1
    sync(a, b)

    for unknown in ("", "zz", handle_of(a).uid):
        with pytest.raises(NotFound, match="Nothing was changed"):
            a["notes"].retire_replica(unknown)
    assert ids(a) == uids(b)


def test_a_source_that_cannot_be_written_is_no_error(fresh_url: Callable[[str], str], opened: Opener) -> None:
    """A login that may only read: the pull succeeds, and the replica is not registered."""
    url = fresh_url("postgresql")
    b = opened()
    with vstore.open(url) as a:
        a.create("notes", partitions=4)["k"] = 1
    with vstore.open(f"{url}?options=-c%20default_transaction_read_only%3Don", create=False) as reading:
        done = pulled(reading, b)
        wrote = replicas.exchange(handle_of(reading), handle_of(b))
        asked = []
        reading.shards[0].transaction = lambda: asked.append("again")  # type: ignore[method-assign]
        pulled(reading, b)

        assert (done.new, wrote, asked) == (1, 0, [])
        assert b["notes"]["k"] == 1
        assert reading["notes"].replicas() == []


def test_a_dropped_collection_takes_its_registry_with_it(engine: str, opened: Opener) -> None:
    """Of another collection nothing is touched; the new one of the same name begins with nobody."""
    a, b = opened(engine), opened()
    a["other"]["k"] = a["notes"]["k"] = 1
    sync(a, b)
    a.drop("notes")
    a["notes"]["k"] = 2

    assert a["notes"].replicas() == []
    assert len(a["other"].replicas()) == 1
    rows = a.shards[0].database.ask(sql.REPLICAS, (0, 1 << 30))
    assert {row[1] for row in rows} <= {row[0] for row in a.shards[0].database.ask(sql.ALL_PARTITIONS)}


def test_a_copy_begins_with_an_empty_registry_and_is_registered_by_its_first_sync(
    opened: Opener, fresh_url: Callable[[str], str]
) -> None:
    """As long as it never syncs it is a backup, which nobody waits for."""
    a, b = opened(), opened()
    a["notes"]["k"] = 1
    sync(a, b)
    url = fresh_url("sqlite")
    a.copy(url)

    with vstore.open(url) as copied:
        begun = ids(copied), ids(a)
        sync(a, copied)
        sync(a, copied)

        assert begun == (set(), uids(b))
        assert ids(a) == uids(b, copied)
        assert ids(copied) == uids(a, b)


def test_a_copy_knows_what_its_original_has_forgotten(opened: Opener, fresh_url: Callable[[str], str]) -> None:
    """Else an old replica would bring a deleted document back through it."""
    a, old = opened(), opened()
    a["notes"]["k"] = 1
    pulled(a, old)
    del a["notes"]["k"]
    a["notes"].retire_replica(handle_of(old).uid)
    assert a["notes"].purge(grace_days=0).purged == 1
    url = fresh_url("sqlite")
    a.copy(url)

    with vstore.open(url) as copied:
        sync(old, copied)

        assert dict(copied["notes"]) == dict(old["notes"]) == {}
        assert list(copied.check()) == []


# --- the command -----------------------------------------------------------------------------------------------------


def ran(store: Store, *words: str) -> Any:
    return CliRunner().invoke(main, [*words, "--store", store.shards[0].database.address], standalone_mode=True)


def test_the_command_says_who_is_how_far_and_who_holds_back(opened: Opener) -> None:
    """A column for each, and the same as JSON."""
    a, b, c = opened(), opened(), opened()
    a["notes"]["k"] = 1
    pulled(a, b)
    pulled(a, c, filter=Filter(prefix="x"))
    a["notes"]["k"] = 2

    told = ran(a, "replicas", "notes").stdout.splitlines()
    lines = [json.loads(line) for line in ran(a, "replicas", "--json").stdout.splitlines()]

    assert told[0].split() == ["collection", "replica", "role", "seen", "behind", "where"]
    assert [row.split()[:3] for row in told[1:]] == [["notes", line["replica"], line["role"]] for line in lines]
    by_id = {line["replica"]: line for line in lines}
    full = by_id[handle_of(b).uid]
    assert (full["collection"], full["behind"], full["holds_back"], full["expired"]) == ("notes", 1, True, False)
    assert "holds back purge" in next(row for row in told if full["replica"] in row)
    assert by_id[handle_of(c).uid]["behind"] is None


def test_the_command_retires_and_purge_names_who_is_waited_for(opened: Opener) -> None:
    """First the purge says who holds it back; then nobody does."""
    a, b = opened(), opened()
    a["notes"]["k"] = 1
    pulled(a, b)
    del a["notes"]["k"]

    held = ran(a, "purge", "notes", "--grace-days", "0").stdout
    retired = ran(a, "replicas", "--retire", handle_of(b).uid)
    foreseen = ran(a, "purge", "notes", "--grace-days", "0", "--dry-run").stdout
    done = ran(a, "purge", "notes", "--grace-days", "0", "--json").stdout
    again = ran(a, "replicas", "--retire", handle_of(b).uid)

    assert held.splitlines()[:2] == ["0 deleted documents forgotten, 0 versions", "1 wait for replicas:"]
    assert f"1 for {b.shards[0].database.name}, 1 events behind" in held
    assert retired.exit_code == 0
    assert foreseen == "1 deleted document would be forgotten, 2 versions\n"
    assert json.loads(done)["purged"] == 1
    assert (again.exit_code, "Nothing was changed" in again.stderr) == (3, True)


def test_the_command_remembers_an_expiry(opened: Opener) -> None:
    """For the collection named, from then on."""
    a, b = opened(), opened()
    a["notes"]["k"] = 1
    pulled(a, b)

    before = ran(a, "replicas", "notes").stdout
    after = ran(a, "replicas", "notes", "--expire-days", "0").stdout

    assert "expired" not in before
    assert "expired" in after
    assert "expired" in ran(a, "replicas").stdout
