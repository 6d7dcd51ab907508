"""Reconciliation: what was lost is found, told from what is on its way, and repaired."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

import replication.differences as differences
import vstore
from replication.handshake import checkpoint_name, link_of
from replication.heads import Heads, looks
from replication.lease import Lease
from replication.pull import pull, take
from replication.pulled import Pulled
from replication.reconcile import Reconciled, reconcile
from replication.sync import sync
from tests.acceptance.command import vstore as run
from tests.replication.links import Pair, handle_of
from tests.replication.sides import Memory
from vstore import Store
from vstore.batch import Purge
from vstore.errors import ConfigurationError, Unavailable
from vstore.handle import Handle
from vstore.plan import knowledge_in
from vstore.ranges import ABOVE, KeyRange
from vstore.sql import statements as sql


def both(a: Store, b: Store) -> tuple[Handle, Handle]:
    return handle_of(a), handle_of(b)


def ask(store: Store, statement: str, **params: Any) -> int:
    """Does something to every database of a store behind its back; how many rows changed."""
    changed = 0
    for shard in store.shards:
        engine = create_engine(shard.database.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            changed += connection.execute(text(statement), params).rowcount
        engine.dispose()
    return changed


def equal(source: Handle, target: Handle) -> bool:
    """Whether two replicas hold the same heads and know the same of their past."""
    return Heads(source).sums([KeyRange()]) == Heads(target).sums([KeyRange()])


def lose(store: Store, key: str, *tables: str) -> None:
    """Deletes the rows of a key by hand."""
    for table in tables:
        name = "`key`" if "mariadb" in store.shards[0].database.name else "key"
        assert ask(store, f"DELETE FROM {table} WHERE {name} = :key", key=key)


def test_the_database_adds_up_what_the_rows_say(
    engine: str, fresh_url: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums, rows and bounds by SQL are those of the same rows in memory; over one shard, over three of two kinds."""
    some = random.Random(6)
    keys = ["a", "A", "a ", "ä", "a\U0001f600", "\U0010ffff", "a\x01", "é" * 300]
    keys += [f"k{some.random()}" for _ in range(300)]
    for urls in ([fresh_url(engine)], [fresh_url(engine), fresh_url("sqlite"), fresh_url(engine)]):
        with vstore.open(*urls) as store:
            store["notes"].put_many({key: some.random() for key in keys})
            for n in range(60):
                store["notes"].put("a", n, context=vstore.Context("a"))
            handle = handle_of(store)
            side = Heads(handle)
            memory = Memory(side.rows(KeyRange(), 1 << 40))
            cuts = ["", "A", "a", "a ", "a!", "ab", "k0.5", "k0.9", "\U0010ffff", ABOVE]
            ranges = [KeyRange(low, high) for low in cuts for high in cuts if low < high]

            assert memory.keys == sorted([*keys, *["a"] * 60])
            assert side.sums(ranges) == memory.sums(ranges)
            assert [sorted(side.rows(keys, 1 << 40)) for keys in ranges] == [
                memory.rows(keys, 1 << 40) for keys in ranges
            ]
            for keys_of in ranges:
                [total] = side.sums([keys_of])
                bounds = side.bounds(keys_of, total.heads, 16)
                assert bounds == sorted(set(bounds))
                assert all(keys_of.low < bound < keys_of.high for bound in bounds)
                assert not bounds or total.heads > 1
            assert len(side.bounds(KeyRange(), len(memory.keys), 16)) >= 10


def test_replicas_of_any_engines_and_shards_compare_directly(
    engine: str, fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shard against three of several kinds: equal after a sync; then just what differs is found and taken.

    Ranges are split by the database here, as those of a million are.
    """
    monkeypatch.setattr(differences, "READ_ROWS", 40)
    with ExitStack() as stack:
        a = stack.enter_context(vstore.open(fresh_url("sqlite")))
        b = stack.enter_context(vstore.open(fresh_url(engine), fresh_url("sqlite"), fresh_url(engine)))
        a["notes"].put_many({f"key {n:04d}": n for n in range(900)})
        sync(a, b)
        source, target = both(a, b)
        assert equal(source, target)
        for n in (7, 400, 401, 899):
            a["notes"][f"key {n:04d}"] = "edited"
        a["notes"]["new"] = 1
        b["notes"]["ahead"] = 2
        assert not equal(source, target)

        done = reconcile(source, target, first=True)

        assert (done.theirs, done.ours, done.repaired.new, done.differences, done.finished) == (5, 5, 5, 0, True)
        assert dict(b["notes"]) == {**dict(a["notes"]), "ahead": 2}
        reconcile(target, source, first=True)
        assert equal(source, target)
        assert dict(a["notes"]) == dict(b["notes"])


@pytest.mark.parametrize("tables", [["vs_head"], ["vs_version"], ["vs_head", "vs_version"]])
def test_rows_deleted_by_hand_come_back(pair: Pair, tables: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """At the target. The feed sees nothing; the reconciliation does, says so, repairs it, and then is quiet."""
    a, b = pair[::-1]
    a["notes"].put_many({f"k{n}": n for n in range(300)})
    a["notes"]["k7"] = "edited"
    sync(a, b)
    lose(b, "k7", *tables)
    source, target = both(a, b)
    assert not pull(source, target).rows

    with caplog.at_level(logging.WARNING, "replication"):
        done = reconcile(source, target, catch_up=lambda: pull(source, target, reconcile="never"))

    assert (done.differences, done.keys, done.repaired.new) == (1, ["k7"], 1)
    assert "1 documents of 'notes' differed" in caplog.text
    assert b["notes"]["k7"] == "edited"
    assert dict(b["notes"]) == dict(a["notes"])
    assert equal(source, target)
    assert reconcile(source, target).differences == 0
    if tables == ["vs_head"]:
        assert list(b.check()) == []
    b["notes"]["k7"] = "written again"
    sync(a, b)
    assert a["notes"]["k7"] == "written again"
    assert equal(source, target)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("met", ["before", "in the feed", "never"])
def test_a_row_that_comes_back_keeps_the_names_that_only_it_had(pair: Pair, met: str, pruned: bool) -> None:
    """Both make the same edit, so it is one version with two dots, and the head row of one of the two is lost.

    The source has not heard of the other name, and the target may not have heard of the source's either. The body may
    be lost with the head.
    """
    a, b = pair[::-1]
    a["notes"].put_many({f"k{n}": n for n in range(30)})
    sync(a, b)
    a["notes"]["k7"] = "edited"
    b["notes"]["k7"] = "edited"
    source, target = both(a, b)
    if met == "before":
        pull(source, target)
    lose(b, "k7", "vs_head")
    if pruned:
        rev = a["notes"].read("k7").rev
        assert ask(b, "UPDATE vs_version SET stub = 1, codec = '', body = NULL WHERE rev = :rev", rev=rev) == 1

    caught_up = (lambda: pull(source, target, reconcile="never")) if met == "in the feed" else None
    done = reconcile(source, target, catch_up=caught_up)

    assert (done.differences, done.keys) == (1, ["k7"])
    assert b["notes"]["k7"] == "edited"
    assert list(b.check()) == []
    [head] = looks(target, ["k7"])["k7"].heads.values()
    assert len(head.dots) == 2
    assert reconcile(source, target).differences == 0
    sync(a, b)
    assert equal(source, target)
    assert list(a.check()) == []


@pytest.mark.parametrize("tables", [["vs_head"], ["vs_version"]])
def test_nothing_is_repaired_under_a_lease_that_another_has(pair: Pair, tables: list[str]) -> None:
    """Who believes to hold it was away for too long, and somebody took over: what is left here is still there."""
    a, b = pair[::-1]
    a["notes"].put_many({f"k{n}": n for n in range(30)})
    sync(a, b)
    lose(b, "k7", *tables)
    source, target = both(a, b)
    mine, theirs = overtaken(source, target)
    before = Heads(target).sums([KeyRange()])

    with pytest.raises(Unavailable, match="taken over by another"):
        reconcile(source, target, lease=mine)

    assert Heads(target).sums([KeyRange()]) == before
    theirs.release()
    assert reconcile(source, target).differences == 1
    assert b["notes"]["k7"] == 7


def overtaken(source: Handle, target: Handle) -> tuple[Lease, Lease]:
    """A lease whose holder believes that he has it, and the one of him who has it."""
    mine, theirs = (Lease(link_of(source, target), holder="either") for _ in range(2))
    for lease in (mine, theirs):
        for shard in target.shards:
            lease.fence(shard)
    return mine, theirs


def test_what_the_feed_has_skipped_is_found(pair: Pair) -> None:
    """The target believes that it was given a document: its checkpoint is past it. No pull will ever bring it."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    source, target = both(a, b)
    a["notes"]["skipped"] = 1
    part = source.place("skipped")[2]
    feed, seq = source.positions()[part]
    b.set_checkpoint(checkpoint_name(source, target, part), {"feed": feed, "seq": seq})
    assert not pull(source, target).rows

    pulled = pull(source, target, reconcile="always")

    assert (pulled.differences, pulled.new) == (1, 1)
    assert b["notes"]["skipped"] == 1
    assert pull(source, target, reconcile="always").differences == 0


def test_what_the_source_has_lost_is_an_alarm_and_comes_back_when_it_pulls(pair: Pair) -> None:
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    lose(a, "k7", "vs_head", "vs_version")
    source, target = both(a, b)

    done = reconcile(source, target)

    assert (done.differences, done.repaired, done.ours) == (1, Pulled(), 1)
    assert b["notes"]["k7"] == 7
    assert pull(target, source, reconcile="always").differences == 1
    assert a["notes"]["k7"] == 7
    assert equal(source, target)


def test_a_live_document_below_what_was_forgotten_is_no_purged_one(pair: Pair) -> None:
    """Both know of a purge; then each loses another document of the same age. None must be taken for purged."""
    a, b = pair
    a.create("notes", partitions=1)  # so that what may be forgotten covers them all
    a["notes"].put_many({f"k{n}": n for n in range(64)})
    del a["notes"]["k1"]
    sync(a, b)
    forget(a, "k1")
    forget(b, "k1")
    source, target = both(a, b)
    lose(b, "k7", "vs_head", "vs_version")
    lose(a, "k9", "vs_head", "vs_version")

    done = reconcile(source, target)

    assert sorted(done.keys) == ["k7", "k9"]
    assert (b["notes"]["k7"], b["notes"]["k9"]) == (7, 9)
    assert "k1" not in b["notes"]
    reconcile(target, source)
    assert a["notes"]["k9"] == 9
    assert equal(source, target)


def test_what_the_source_has_lost_stays_though_a_rival_of_it_comes(pair: Pair) -> None:
    """The row that it lost is as old as others that were purged, and the same key has a new one."""
    a, b = pair
    a.create("notes", partitions=1)
    a["notes"].put_many({"k": "old", "gone": 1})
    del a["notes"]["gone"]
    sync(a, b)
    forget(a, "gone")
    forget(b, "gone")
    lose(a, "k", "vs_head", "vs_version")
    a["notes"]["k"] = "new"

    for first in (True, False):
        reconcile(*both(a, b), first=first)

        siblings = b["notes"].read("k", on_conflict="winner").siblings
        assert {sibling.value for sibling in siblings} == {"old", "new"}


def test_the_same_edit_made_twice_is_another_element_until_both_know(pair: Pair) -> None:
    """One rev under two dots. Who compared revs alone would call them equal, and a later edit could be a conflict."""
    a, b = pair
    a["notes"]["k"] = 1
    sync(a, b)
    a["notes"]["k"] = 2
    b["notes"]["k"] = 2
    source, target = both(a, b)
    assert a["notes"].read("k").rev == b["notes"].read("k").rev

    assert not equal(source, target)
    assert reconcile(source, target).repaired.rows == 1
    assert reconcile(target, source).repaired.rows == 1

    assert equal(source, target)
    a["notes"]["k"] = 3
    sync(a, b)
    assert dict(b["notes"]) == {"k": 3}


# No false alarm


def test_what_is_on_its_way_is_no_difference(pair: Pair) -> None:
    """Written and not pulled when it is first looked at; and written after that, while the feed is pulled."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    source, target = both(a, b)
    a["notes"]["k7"] = "on its way"
    a["notes"]["new"] = "on its way"

    def catch_up() -> None:
        pull(source, target, reconcile="never")
        a["notes"]["k8"] = "later"
        a["notes"]["k7"] = "later still"

    done = reconcile(source, target, catch_up=catch_up)

    assert done.theirs == 2
    assert (done.differences, done.repaired) == (0, Pulled())
    assert b["notes"]["k7"] == "on its way"


def test_a_target_that_is_ahead_differs_from_nothing(pair: Pair) -> None:
    """Edits, deletes, new documents and conflicts that the source has not pulled yet."""
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    b["notes"]["k1"] = "edited"
    b["notes"]["new"] = 1
    b["notes"].put("k2", "rival", context=vstore.Context("k2"))
    del b["notes"]["k3"]
    source, target = both(a, b)
    before = dict(b["notes"].items(on_conflict="winner"))

    done = reconcile(source, target)

    assert (done.ours, done.differences, done.repaired) == (4, 0, Pulled())
    assert dict(b["notes"].items(on_conflict="winner")) == before


# What was purged


def forget(store: Store, key: str) -> None:
    """Purges a deleted key, as if every replica had acknowledged all that this one knows."""
    handle = handle_of(store)
    shard, definition, part = handle.place(key)
    with shard.database.snapshot() as connection:
        known = knowledge_in(connection, definition.base + part)
    [purged] = shard.apply(definition, [Purge(part, [key], known.bases())])
    assert purged.keys == [key]


def test_a_tombstone_that_one_side_has_purged_is_neither_sent_nor_counted(pair: Pair) -> None:
    a, b = pair
    a["notes"].put_many({"k": 1, "other": 2})
    del a["notes"]["k"]
    sync(a, b)
    forget(a, "k")
    source, target = both(a, b)
    assert not equal(source, target)

    for one, other in ((source, target), (target, source)):
        done = reconcile(one, other)
        assert (done.theirs + done.ours, done.differences, done.repaired) == (1, 0, Pulled())
    assert Heads(source).sums([KeyRange()])[0].heads == 1


def test_a_stale_target_forgets_what_the_source_has_purged(pair: Pair) -> None:
    """It slept through the delete and the purge. Its document does not come back, here or there."""
    a, b = pair
    a["notes"].put_many({"k": 1, "other": 2})
    sync(a, b)
    del a["notes"]["k"]
    forget(a, "k")
    source, target = both(a, b)

    there = reconcile(target, source)
    assert (there.differences, there.repaired.new, there.theirs) == (0, 0, 1)
    assert "k" not in a["notes"]
    here = reconcile(source, target)

    assert (here.differences, here.repaired.forgotten) == (0, 1)
    assert dict(b["notes"]) == dict(a["notes"]) == {"other": 2}
    assert equal(source, target)


def test_nothing_is_forgotten_under_a_lease_that_another_has(pair: Pair) -> None:
    a, b = pair[::-1]
    a["notes"].put_many({"k": 1, "other": 2})
    sync(a, b)
    del a["notes"]["k"]
    forget(a, "k")
    source, target = both(a, b)
    mine, theirs = overtaken(source, target)

    with pytest.raises(Unavailable, match="taken over by another"):
        reconcile(source, target, lease=mine)

    assert b["notes"]["k"] == 1
    theirs.release()
    assert reconcile(source, target).repaired.forgotten == 1


def test_an_edit_that_the_source_never_saw_survives_its_purge(pair: Pair) -> None:
    a, b = pair
    a["notes"]["k"] = 1
    sync(a, b)
    del a["notes"]["k"]
    forget(a, "k")
    b["notes"]["k"] = "edited meanwhile"
    source, target = both(a, b)

    assert reconcile(source, target).repaired.forgotten == 0
    reconcile(target, source, first=True)

    assert dict(a["notes"]) == dict(b["notes"]) == {"k": "edited meanwhile"}


# Interrupted, and begun anew


def interrupted(source: Handle, target: Handle, batches: int) -> Reconciled:
    """A first contact that is stopped after so many batches."""
    stop = threading.Event()
    seen = []

    def count(done: Reconciled) -> None:
        seen.append(done.after)
        if len(seen) == batches:
            stop.set()

    return reconcile(source, target, first=True, on_batch=count, stop=stop)


def test_an_interrupted_bootstrap_goes_on_where_it_was(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after a page, then killed in the middle of one: nothing before the noted key is looked at again."""
    a, b = pair
    a["notes"].put_many({f"k{n:04d}": n for n in range(3_000)})
    b.create("notes")
    source, target = both(a, b)
    began = source.positions()

    first = interrupted(source, target, 3)
    assert not first.finished
    a["notes"]["k0001"] = "written after the beginning"

    def killed(*args: Any, **settings: Any) -> Pulled:
        raise Unavailable("the database is gone")

    monkeypatch.setattr("replication.reconcile.take", killed)
    with pytest.raises(Unavailable):
        reconcile(source, target, first=True)
    taken: list[str] = []

    def watched(source: Handle, target: Handle, keys: Sequence[str], **settings: Any) -> Pulled:
        taken.extend(keys)
        return take(source, target, keys, **settings)

    monkeypatch.setattr("replication.reconcile.take", watched)
    done = reconcile(source, target, first=True)

    assert done.finished
    assert done.began == began != source.positions()
    assert 0 < len(taken) < 3_000
    assert min(taken) >= first.after > "k0500"
    assert {**dict(b["notes"]), "k0001": 1} == {**dict(a["notes"]), "k0001": 1}
    assert b.shards[0].database.ask(sql.CHECKPOINT, (f"reconcile:{source.uid}:{target.uid}",)) == []


def test_a_note_of_other_feeds_is_not_believed(pair: Pair) -> None:
    a, b = pair
    a["notes"].put_many({f"k{n:04d}": n for n in range(3_000)})
    b.create("notes")
    source, target = both(a, b)
    assert interrupted(source, target, 3).after > "k0500"
    shard, definition, _part = source.place("k0001")
    shard.renew_actors(definition, range(source.partitions))

    begun = interrupted(source, target, 1)

    assert begun.after < "k0500" or begun.theirs == 0
    assert begun.began == source.positions()


def test_a_replica_made_by_copy_costs_a_question(tmp_path: Path, pair: Pair, fresh_url: Callable[[str], str]) -> None:
    """It has everything under one name and another actor: the first contact finds what was written since."""
    a, _ = pair
    a["notes"].put_many({f"k{n:04d}": n for n in range(2_000)})
    a["notes"]["k0003"] = "edited"
    target_url = fresh_url("sqlite")
    a.copy(target_url)
    with vstore.open(target_url) as b:
        source, target = both(a, b)
        assert equal(source, target)
        idle = reconcile(source, target, first=True)
        assert (idle.frames, idle.theirs, idle.ours) == (2, 0, 0)
        a["notes"]["k0005"] = "later"

        done = reconcile(source, target, first=True)

        assert (done.theirs, done.ours, done.repaired.rows) == (1, 1, 1)
        assert done.frame_bytes < 2_048


def test_a_dry_run_changes_nothing(pair: Pair) -> None:
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(100)})
    sync(a, b)
    lose(b, "k7", "vs_head")
    lose(b, "k8", "vs_version")
    source, target = both(a, b)

    done = reconcile(source, target, dry_run=True)

    assert sorted(done.keys) == ["k7", "k8"]
    assert done.repaired == Pulled()
    assert reconcile(source, target, dry_run=True).differences == 2
    assert b.shards[0].database.ask(sql.CHECKPOINT, (f"reconcile:{source.uid}:{target.uid}",)) == []


def test_collections_cut_into_other_partitions_are_refused(local: Store, fresh_url: Callable[[str], str]) -> None:
    with vstore.open(fresh_url("sqlite")) as other:
        local.create("notes", partitions=64)
        other.create("notes", partitions=32)
        with pytest.raises(ConfigurationError, match="64 partitions and 'notes' 32"):
            reconcile(*both(local, other))


def test_the_command_says_what_differed(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("a", "b")]
    with vstore.open(urls[0]) as a, vstore.open(urls[1]) as b:
        a["notes"].put_many({f"k{n}": n for n in range(100)})
        sync(a, b)
        lose(b, "k7", "vs_head")
        a["notes"]["new"] = 1
    ends = ["--store", urls[1], "--with", urls[0]]

    looked = run("reconcile", *ends, "--dry-run", "--json")
    done = run("reconcile", "notes", *ends)
    again = run("reconcile", *ends, "--json")
    itself = run("reconcile", "--store", urls[1], "--with", urls[1])

    found = json.loads(looked.stdout)
    assert (found["collection"], found["differences"], found["keys"]) == ("notes", 1, ["k7"])
    assert (looked.exit_code, done.exit_code) == (5, 0)
    assert "1 document differed" in done.stdout
    assert "both ends are the same databases" in itself.output
    assert json.loads(again.stdout)["differences"] == 0
    with vstore.open(urls[1]) as b:
        assert b["notes"]["k7"] == 7
