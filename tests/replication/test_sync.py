"""`sync` between real databases: what it promises to two replicas, and to many."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import replication.batches
import replication.feed
import vstore
from replication import PartialSync, sync
from replication.feed import Feed
from replication.lease import LeaseHeld
from tests.replication.links import Pair, heads
from tests.replication.states import knowledge_of
from tests.simulation.oracle import Lineage
from vstore import DELETE, ConfigurationError, Context, Store, StoreError
from vstore.resolvers import Siblings, json3
from vstore.shard import Shard


def test_what_either_side_has_is_at_both_afterwards(pair: Pair) -> None:
    """New documents on both sides, of two collections."""
    a, b = pair
    a["notes"].put_many({"x": 1, "y": [2]})
    b["notes"]["z"] = {"n": 3}
    b["tasks"]["t"] = "four"

    report = sync(a, b)

    assert dict(a["notes"]) == dict(b["notes"]) == {"x": 1, "y": [2], "z": {"n": 3}}
    assert dict(a["tasks"]) == dict(b["tasks"]) == {"t": "four"}
    assert (report.to_a.new, report.to_b.new, report.conflicts) == (2, 2, 0)


def test_a_second_sync_moves_nothing_and_asks_little(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was synced before: new documents, edits, deletes, conflicts.

    The second compares what the first brought, and moves none of it; from the
    third on it is a few statements for each shard.
    """
    a, b = pair
    a["notes"].put_many({f"k{n}": n for n in range(300)})
    sync(a, b)
    a["notes"]["k1"] = "edited"
    del b["notes"]["k2"]
    a["notes"]["k3"], b["notes"]["k3"] = "here", "there"
    sync(a, b)
    second = sync(a, b)
    asked = []
    rows = vstore.sql.database.Connection.rows
    monkeypatch.setattr(vstore.sql.database.Connection, "rows", lambda *args: asked.append(args[1].name) or rows(*args))

    report = sync(a, b)

    assert not second
    assert not report
    assert (report.to_a.compared, report.to_b.compared, report.conflicts) == (0, 0, 1)
    assert len(asked) < 20


def test_edits_on_both_sides_become_the_same_siblings_at_both(pair: Pair) -> None:
    """Both edit what both have read; neither edit is lost, and both sides show the same winner."""
    a, b = pair
    a["notes"]["k"] = {"title": "base"}
    sync(a, b)
    a["notes"]["k"] = {"title": "from a"}
    b["notes"]["k"] = {"title": "from b"}

    report = sync(a, b)

    shown = [store["notes"].read("k", on_conflict="winner") for store in pair]
    assert [sibling.value["title"] for sibling in shown[0].siblings] == [
        sibling.value["title"] for sibling in shown[1].siblings
    ]
    assert {sibling.value["title"] for sibling in shown[0].siblings} == {"from a", "from b"}
    assert report.conflicts == 1


def test_a_resolver_gets_the_base_and_its_answer_is_one_version_at_both(pair: Pair) -> None:
    """Different fields were edited, so the three-way merge keeps both edits."""
    a, b = pair
    a["notes"]["k"] = {"title": "base", "n": 1}
    sync(a, b)
    a["notes"]["k"] = {"title": "new", "n": 1}
    b["notes"]["k"] = {"title": "base", "n": 2}

    report = sync(a, b, json3)

    assert report.resolved == ["k"]
    assert a["notes"]["k"] == b["notes"]["k"] == {"title": "new", "n": 2}
    assert a["notes"].read("k").rev == b["notes"].read("k").rev
    assert not sync(a, b, json3)


def test_both_sides_may_settle_by_themselves(pair: Pair) -> None:
    """The same merge of the same parents is the same version, wherever and whenever it is made."""
    a, b = pair
    a["notes"]["k"] = {"n": 1}
    sync(a, b)
    a["notes"]["k"], b["notes"]["k"] = {"n": 1, "a": 1}, {"n": 1, "b": 1}
    sync(a, b)
    a["notes"].resolve("k", json3)
    b["notes"].resolve("k", json3)

    report = sync(a, b)

    documents = [store["notes"].read("k") for store in pair]
    assert documents[0] == documents[1]
    assert documents[0].value == {"n": 1, "a": 1, "b": 1}
    assert report.conflicts == 0
    assert not sync(a, b)


def test_a_deleted_document_stays_deleted_and_an_edit_survives_a_concurrent_delete(pair: Pair) -> None:
    """A delete that saw everything wins; one that had not seen the edit does not."""
    a, b = pair
    a["notes"].put_many({"gone": 1, "kept": 1})
    sync(a, b)
    del a["notes"]["gone"]
    del a["notes"]["kept"]
    b["notes"]["kept"] = 2

    sync(a, b)

    assert dict(a["notes"]) == dict(b["notes"]) == {"kept": 2}
    assert sync(a, b).conflicts == 0


def test_a_context_read_at_one_replica_is_good_at_the_other(pair: Pair) -> None:
    """A client reads at a, and writes at b, which has not heard of it yet."""
    a, b = pair
    a["notes"]["k"] = "old"
    seen = a["notes"].read("k").context

    b["notes"].put("k", "new", context=str(seen))
    sync(a, b)

    assert a["notes"]["k"] == b["notes"]["k"] == "new"


def test_documents_keep_the_base_of_a_merge_over_several_edits(pair: Pair) -> None:
    """Each side edits three times; the ancestors in between travel as stubs, so the base is found."""
    a, b = pair
    a["notes"]["k"] = {"n": 0}
    sync(a, b)
    for n in range(1, 4):
        a["notes"]["k"] = {"n": 0, "a": n}
        b["notes"]["k"] = {"n": 0, "b": n}
    seen: list[Siblings] = []

    def remember(conflict: Siblings) -> Any:
        seen.append(conflict)
        return json3(conflict)

    sync(a, b, remember)

    assert seen[0].base is not None
    assert seen[0].base.value == {"n": 0}
    assert b["notes"]["k"] == {"n": 0, "a": 3, "b": 3}


def test_a_resolver_may_delete(pair: Pair) -> None:
    """DELETE settles a conflict as a tombstone at both."""
    a, b = pair
    a["notes"]["k"], b["notes"]["k"] = 1, 2

    report = sync(a, b, lambda _conflict: DELETE)

    assert report.resolved == ["k"]
    assert "k" not in a["notes"]
    assert "k" not in b["notes"]
    assert not sync(a, b)


def test_an_interrupted_sync_goes_on_and_loses_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target fails after its second transaction. What was written stays; the rest comes with the next call."""
    a, b = pair
    monkeypatch.setattr(replication.batches, "PAGE_ROWS", 50)
    monkeypatch.setattr(replication.feed, "PAGE_ROWS", 50)
    a["notes"].put_many({f"k{n}": n for n in range(400)})
    a["notes"].put_many({f"k{n}": -n for n in range(100)})
    apply, calls = Shard.apply, []

    def failing(self: Shard, *args: Any) -> Any:
        calls.append(self)
        if len(calls) == 3:
            raise vstore.Unavailable("the network was cut")
        return apply(self, *args)

    b.create("notes")
    monkeypatch.setattr(Shard, "apply", failing)
    with pytest.raises(vstore.Unavailable):
        sync(a, b)
    monkeypatch.setattr(Shard, "apply", apply)
    there = len(b["notes"])

    report = sync(a, b)

    assert 0 < there < 400
    assert report.to_b.compared == 400 - there
    assert dict(a["notes"]) == dict(b["notes"])


def test_a_document_that_moves_in_the_feed_during_a_sync_is_not_skipped(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source edits a document that the pull has not reached yet.

    Its old head is gone before its page is read and its new one lies behind the
    position at the start. The target may not claim to know it without having it.
    """
    a, b = pair
    monkeypatch.setattr(replication.feed, "PAGE_ROWS", 1)
    a.create("notes", partitions=1).put_many({"k1": 1, "k2": 2, "k3": 3})
    pages = _before_page(monkeypatch, 1, lambda: a["notes"].put("k2", "moved"))

    sync(a, b)

    assert len(pages) > 1
    assert dict(b["notes"]) == {"k1": 1, "k2": "moved", "k3": 3}


def test_two_syncs_of_the_same_replicas_do_not_interleave(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is in the middle, the other is told who holds the lease; nothing is moved twice."""
    a, b = pair
    a.create("notes", partitions=1).put_many({"k1": 1, "k2": 2})
    refused: list[BaseException] = []

    def rival() -> None:
        with pytest.raises(LeaseHeld) as told:
            sync(a["notes"], b["notes"])
        refused.append(told.value)

    _before_page(monkeypatch, 1, rival)

    report = sync(a, b)

    assert f"/{os.getpid()}/" in str(refused[0])
    assert report.to_b.new == 2
    assert dict(b["notes"]) == {"k1": 1, "k2": 2}
    sync(a, b)
    assert not sync(a, b)


def test_stores_with_different_numbers_of_shards_sync(fresh_url: Callable[[str], str]) -> None:
    """Three SQLite shards with one."""
    with (
        vstore.open(*(fresh_url("sqlite") for _ in range(3))) as a,
        vstore.open(fresh_url("sqlite")) as b,
    ):
        a["notes"].put_many({f"a{n}": n for n in range(100)})
        b["notes"].put_many({f"b{n}": n for n in range(100)})

        sync(a, b)

        assert dict(a["notes"]) == dict(b["notes"])
        assert len(a["notes"]) == 200
        assert not sync(a, b)


def test_replicas_that_differ_in_partitions_are_refused(pair: Pair) -> None:
    """Nothing is moved."""
    a, b = pair
    a.create("notes", partitions=64)["k"] = 1
    b.create("notes", partitions=16)

    with pytest.raises(ConfigurationError, match="64 partitions and 'notes' 16"):
        sync(a["notes"], b["notes"])

    assert len(b["notes"]) == 0


def test_a_collection_that_fails_does_not_keep_up_the_others(pair: Pair) -> None:
    """Of three collections the second and the third do not fit; the error names both, and what was done."""
    a, b = pair
    a["notes"]["k"] = 1
    for name in ("plans", "tasks"):
        a.create(name, partitions=64)["k"] = 1
        b.create(name, partitions=16)
    b["words"]["w"] = 2

    with pytest.raises(PartialSync) as told:
        sync(a, b)

    assert {name: type(error) for name, error in told.value.failed.items()} == {
        "plans": ConfigurationError,
        "tasks": ConfigurationError,
    }
    assert "2 of 4 collections" in str(told.value)
    assert "'tasks': 'tasks' has 64 partitions" in str(told.value)
    assert (told.value.report.to_b.new, told.value.report.to_a.new) == (1, 1)
    assert b["notes"]["k"] == 1
    assert a["words"]["w"] == 2
    copied = pickle.loads(pickle.dumps(told.value))
    assert (str(copied), copied.report) == (str(told.value), told.value.report)


def test_a_database_that_fails_ends_a_sync_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collections after it would only wait as long for the same; what had failed before it is told as well."""
    a, b = pair
    a.create("notes", partitions=64)["k"] = 1
    b.create("notes", partitions=16)
    a["tasks"]["t"] = 1
    a["words"]["w"] = 2

    def failing(*_args: Any) -> Any:
        raise vstore.Unavailable("the network was cut")

    with monkeypatch.context() as broken, pytest.raises(vstore.Unavailable, match="the network was cut") as told:
        broken.setattr(Shard, "apply", failing)
        sync(a, b)

    assert ["'notes' could not be synced" in note for note in told.value.__notes__] == [True]
    assert "words" not in b


def test_a_store_is_not_synced_with_itself(local: Store) -> None:
    """Nor a store with a collection."""
    local["notes"]["k"] = 1

    with pytest.raises(ConfigurationError, match="same databases"):
        sync(local, local)
    with pytest.raises(ConfigurationError, match="same databases"):
        sync(local["notes"], local["notes"])
    with pytest.raises(ConfigurationError, match="two stores or two collections"):
        sync(local, local["notes"])  # type: ignore[arg-type]


def test_a_store_is_known_under_another_spelling_of_its_url(tmp_path: Path) -> None:
    """A link to the file is the same store; nothing would be moved, and nobody told."""
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    with (
        vstore.open(f"sqlite:///{tmp_path / 'real.db'}") as one,
        vstore.open(f"sqlite:///{tmp_path / 'link.db'}") as other,
    ):
        one["notes"]["k"] = 1

        with pytest.raises(ConfigurationError, match="same databases"):
            sync(one, other)
        with pytest.raises(ConfigurationError, match="same databases"):
            sync(one["notes"], other["notes"])


def test_a_part_of_a_collection_is_refused(pair: Pair) -> None:
    """A prefixed view stands for its documents, and a sync would move all of them."""
    a, b = pair
    a["notes"]["2026/x"] = 1

    with pytest.raises(ConfigurationError, match="under '2026/' cannot be an end"):
        sync(a["notes"].prefixed("2026/"), b["notes"])

    assert "notes" not in b


def test_collections_of_one_store_may_be_synced(local: Store) -> None:
    """A collection and its working copy, side by side."""
    local["notes"]["k"] = 1

    sync(local["notes"], local["draft"])
    local["draft"]["k"] = 2
    sync(local["notes"], local["draft"])

    assert local["notes"]["k"] == 2


@pytest.mark.parametrize("seed", range(8))
def test_three_replicas_in_a_random_schedule_show_the_truth(fresh_url: Callable[[str], str], seed: int) -> None:
    """Blind, stale and plain writes, deletes, and syncs of random pairs; the oracle knows only who had read what."""
    chosen = random.Random(seed)
    keys = ["x", "y", "z"]
    truth = {key: Lineage() for key in keys}
    with ExitStack() as stack:
        stores = [stack.enter_context(vstore.open(fresh_url("sqlite"))) for _ in range(3)]
        for store in stores:
            store.create("notes", partitions=2)
        contexts: dict[str, list[Context]] = {key: [Context(key)] for key in keys}

        for step in range(60):
            store = chosen.choice(stores)
            key = chosen.choice(keys)
            if chosen.random() < 0.3:
                other = chosen.choice([each for each in stores if each is not store])
                sync(store, other)
            else:
                _write(store, key, chosen, step, contexts[key], truth[key])
        for one in stores * 2:
            for other in stores:
                if one is not other:
                    sync(one, other)

        for store in stores:
            for key in keys:
                together = truth[key].ancestors.keys() - truth[key].superseded
                assert heads(store, key) == together, f"seed {seed}: {key}"
        assert knowledge_of(stores[0]) == knowledge_of(stores[1]) == knowledge_of(stores[2])
        assert not any(sync(one, other) for one in stores for other in stores if one is not other)


def _before_page(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], Any]) -> list[int]:
    """Acts once, while a pull compares its page of that number; the list grows by each page."""
    pages: list[int] = []
    compared = Feed._compared

    def hooked(*args: Any) -> Any:
        pages.append(len(pages) + 1)
        result = compared(*args)
        if pages[-1] == number:
            act()
        return result

    monkeypatch.setattr(Feed, "_compared", hooked)
    return pages


def _write(store: Store, key: str, chosen: random.Random, step: int, contexts: list[Context], truth: Lineage) -> None:
    notes = store["notes"]
    try:
        now = notes.read(key, on_conflict="winner", deleted=True).context
    except StoreError:
        now = Context(key)
    contexts.append(now)
    context = chosen.choice([now, now, now, chosen.choice(contexts)])
    body = None if chosen.random() < 0.2 else chosen.choice([step, "same"])
    before = heads(store, key)
    if body is None:
        notes.delete(key, context=context)
    else:
        notes.put(key, body, context=context)
    for rev in heads(store, key) - before:
        if rev not in truth.ancestors:
            truth.write(rev, (rev, 1), context.revs, None if body is None else repr(body).encode())
