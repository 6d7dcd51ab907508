"""What was deleted and forgotten stays so, whoever comes back; and no edit that nobody had seen is lost for it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import vstore
from replication import Filter, sync
from replication.pull import pull
from tests.replication.links import events, handle_of, pulled, versions
from tests.replication.states import heads_of
from vstore import Context, Store
from vstore.plan import forgotten_of
from vstore.purging import Purged
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

Opener = Callable[..., Store]


@pytest.fixture
def opened(fresh_url: Callable[[str], str]) -> Iterator[Opener]:
    """Opens new stores with a collection `notes`, of SQLite unless said otherwise."""
    with ExitStack() as stack:

        def new(kind: str = "sqlite") -> Store:
            store = stack.enter_context(vstore.open(fresh_url(kind)))
            store.create("notes", partitions=4)
            return store

        yield new


def purged(store: Store) -> Purged:
    """All that may be forgotten now."""
    return store["notes"].purge(grace_days=0)


def forgets(store: Store, *absent: Store) -> Purged:
    """Forgets what it can without those that are away, as once they have expired."""
    for other in absent:
        uid = handle_of(other).uid
        if any(each.id == uid for each in store["notes"].replicas()):
            store["notes"].retire_replica(uid)
    return purged(store)


def deleted_and_forgotten(a: Store, b: Store, away: Store) -> None:
    """All three had `k` and `other`; then `away` was away, and the others deleted and forgot `k`."""
    a["notes"].put_many({"k": "old", "other": 1})
    for _ in range(2):
        sync(a, b)
        sync(a, away)
    del a["notes"]["k"]
    for _ in range(2):
        sync(a, b)
    assert forgets(a, away).purged == 1
    for _ in range(2):
        sync(a, b)
    assert [versions(store, "k") for store in (a, b)] == [{}, {}]


def all_agree(*stores: Store) -> None:
    """Equal heads, sound databases, and nothing more to do."""
    for store in stores:
        assert list(store.check()) == []
        assert heads_of(store) == heads_of(stores[0])
    assert not any(sync(stores[0], store) for store in stores[1:])


def test_a_document_that_was_forgotten_does_not_come_back_with_an_old_replica(engine: str, opened: Opener) -> None:
    """On each kind of database: neither at those who forgot it, nor is it left at the one that returns."""
    a, b, away = opened(engine), opened(), opened()
    deleted_and_forgotten(a, b, away)

    report = sync(a, away)
    sync(a, b)
    sync(b, away)

    assert (report.to_b.forgotten, report.to_a.unexplained, report.to_a.revived) == (1, 0, 0)
    assert [dict(store["notes"]) for store in (a, b, away)] == [{"other": 1}] * 3
    assert [versions(store, "k") for store in (a, b, away)] == [{}] * 3
    assert ("k", "purge") in events(away)
    all_agree(a, b, away)


@pytest.mark.parametrize("first", ["it pulls", "it is pulled"])
def test_it_does_not_matter_which_way_the_old_replica_speaks_first(opened: Opener, first: str) -> None:
    """Nor whether to the one that purged, or to one that heard of it."""
    a, b, away = opened(), opened(), opened()
    deleted_and_forgotten(a, b, away)

    if first == "it pulls":
        pulled(b, away)
        pulled(away, a)
    else:
        pulled(away, b)
        pulled(b, away)
    for _ in range(2):
        sync(a, b)
        sync(b, away)

    assert [dict(store["notes"]) for store in (a, b, away)] == [{"other": 1}] * 3
    all_agree(a, b, away)


def test_an_edit_of_a_forgotten_document_is_kept_and_marked(engine: str, opened: Opener) -> None:
    """Whoever was away had edited it: that is no copy of what was deleted, but news. It lives, everywhere."""
    a, b, away = opened(engine), opened(), opened()
    deleted_and_forgotten(a, b, away)
    away["notes"]["k"] = "edited while away"

    report = sync(a, away)
    onward = sync(a, b)

    assert (report.to_a.revived, report.to_a.unexplained, onward.to_b.revived) == (1, 0, 1)
    assert [store["notes"]["k"] for store in (a, b, away)] == ["edited while away"] * 3
    assert [("k", "revived") in events(store) for store in (a, b, away)] == [True, True, False]
    assert [(each.kind, each.deleted) for each in a["notes"].changes(full=True) if each.key == "k"][-2:] == [
        ("", False),
        ("revived", False),
    ]
    assert [version.value for version in a["notes"].history("k")] == ["edited while away"]
    sync(b, away)
    all_agree(a, b, away)


def test_a_revived_document_is_like_any_other(opened: Opener) -> None:
    """It can be edited on both sides, deleted and forgotten again."""
    a, b, away = opened(), opened(), opened()
    deleted_and_forgotten(a, b, away)
    away["notes"]["k"] = "edited while away"
    for _ in range(2):
        sync(a, away)
        sync(a, b)
    a["notes"]["k"], b["notes"]["k"] = "here", "there"
    sync(a, b)
    siblings = {each.value for each in a["notes"].read("k", on_conflict="winner").siblings}

    del b["notes"]["k"]
    for _ in range(3):
        sync(a, b)
        sync(a, away)
    done = [purged(store).purged for store in (a, b, away)]
    for _ in range(2):
        sync(a, b)
        sync(a, away)

    assert siblings == {"here", "there"}
    assert max(done) == 1
    assert [versions(store, "k") for store in (a, b, away)] == [{}] * 3
    all_agree(a, b, away)


def test_a_new_document_under_a_forgotten_key_has_nothing_to_do_with_the_old(opened: Opener) -> None:
    """The old copy does not become its sibling; an edit of the old one does."""
    a, b, away = opened(), opened(), opened()
    deleted_and_forgotten(a, b, away)
    late = opened()
    pulled(away, late)
    late["notes"]["k"] = "edited while away"
    a["notes"]["k"] = "new"

    sync(a, away)
    alone = [store["notes"]["k"] for store in (a, away)]
    sync(a, late)

    assert alone == ["new", "new"]
    assert {each.value for each in a["notes"].read("k", on_conflict="winner").siblings} == {"new", "edited while away"}


def test_a_restored_backup_brings_nothing_back(opened: Opener, tmp_path: Path) -> None:
    """The backup is from before the delete, and the replica had acknowledged the delete since."""
    a = opened()
    path, saved = tmp_path / "b.db", tmp_path / "saved.db"
    with vstore.open(f"sqlite:///{path}") as b:
        b.create("notes", partitions=4)
        a["notes"].put_many({"k": "old", "other": 1})
        sync(a, b)
    shutil.copy(path, saved)
    with vstore.open(f"sqlite:///{path}") as b:
        del a["notes"]["k"]
        sync(a, b)
        sync(a, b)
    assert purged(a).purged == 1
    shutil.copy(saved, path)

    with vstore.open(f"sqlite:///{path}") as b:
        was = b["notes"]["k"]
        b["notes"]["mine"] = "written after the restore"
        for _ in range(2):
            sync(a, b)

        assert was == "old"
        assert dict(a["notes"]) == dict(b["notes"]) == {"other": 1, "mine": "written after the restore"}
        all_agree(a, b)


def test_a_replica_that_purged_and_was_set_back_agrees_again(opened: Opener, tmp_path: Path) -> None:
    """The other way round: the one that forgot is restored to a time when it had not."""
    b = opened()
    path, saved = tmp_path / "a.db", tmp_path / "saved.db"
    with vstore.open(f"sqlite:///{path}") as a:
        a.create("notes", partitions=4)
        a["notes"].put_many({"k": "old", "other": 1})
        sync(a, b)
    shutil.copy(path, saved)
    with vstore.open(f"sqlite:///{path}") as a:
        del a["notes"]["k"]
        for _ in range(2):
            sync(a, b)
        assert purged(a).purged == 1
        for _ in range(2):
            sync(a, b)
        assert versions(b, "k") == {}
    shutil.copy(saved, path)

    with vstore.open(f"sqlite:///{path}") as a:
        for _ in range(2):
            sync(a, b)

        assert dict(a["notes"]) == dict(b["notes"]) == {"other": 1}
        all_agree(a, b)


def test_a_replica_that_expired_is_not_waited_for_and_brings_nothing_back(opened: Opener) -> None:
    """By the collection's own policy, and not by an operator."""
    a, away = opened(), opened()
    a["notes"].put_many({"k": "old", "other": 1})
    sync(a, away)
    del a["notes"]["k"]
    waiting = purged(a)
    a["notes"].set_expire_days(0)
    gone = purged(a)
    a["notes"].set_expire_days(90)

    sync(a, away)
    sync(a, away)

    assert (waiting.purged, [holder.id for holder in waiting.holders]) == (0, [handle_of(away).uid])
    assert (gone.purged, gone.expired) == (1, (away.shards[0].database.name,))
    assert dict(a["notes"]) == dict(away["notes"]) == {"other": 1}
    assert [(each.id, each.counts) for each in a["notes"].replicas()] == [(handle_of(away).uid, True)]
    all_agree(a, away)


def test_a_purge_reaches_the_others_by_the_feed_and_those_behind_them(opened: Opener) -> None:
    """A line of four: only the first purges, and nobody meets anyone but a neighbour."""
    line = [opened() for _ in range(4)]
    line[0]["notes"].put_many({"k": "old", "other": 1})
    pairs = list(pairwise(line))
    for _ in range(4):
        for one, other in pairs:
            sync(one, other)
    del line[0]["notes"]["k"]
    for _ in range(4):
        for one, other in pairs:
            sync(one, other)
    done = purged(line[0])
    for one, other in pairs:
        sync(one, other)

    assert done.purged == 1
    assert [versions(store, "k") for store in line] == [{}] * 4
    assert [("k", "purge") in events(store) for store in line] == [True] * 4
    assert not any(sync(one, other) for one, other in pairs)
    all_agree(*line)


def test_one_who_never_heard_of_the_delete_is_told_of_the_purge_alone(opened: Opener) -> None:
    """It was away for the delete and for the purge, and had acknowledged neither."""
    a, away = opened(), opened()
    a["notes"].put_many({"k": "old", "other": 1})
    pulled(a, away)
    del a["notes"]["k"]
    forgets(a, away)

    done = pulled(a, away)

    assert done.forgotten == 1
    assert versions(away, "k") == {}
    all_agree(a, away)


def test_a_replica_that_registers_late_brings_nothing_back(opened: Opener) -> None:
    """It has its copies from another, and nobody here has ever heard of it."""
    a, b, away = opened(), opened(), opened()
    a["notes"].put_many({"k": "old", "other": 1})
    sync(a, away)
    late = opened()
    pulled(away, late)
    pulled(a, b)
    del a["notes"]["k"]
    a["notes"].retire_replica(handle_of(away).uid)
    for _ in range(2):
        sync(a, b)
    assert purged(a).purged == 1

    for other in (b, late, b):
        sync(a, other)
    sync(b, late)

    assert [dict(store["notes"]) for store in (a, b, late)] == [{"other": 1}] * 3
    all_agree(a, b, late)


def test_a_third_one_that_had_forgotten_what_it_never_held_warns_the_next(opened: Opener) -> None:
    """`b` met `a` after the purge: it has nothing of `k`, and no place in its feed tells. `away` hears even so."""
    a, away = opened(), opened()
    a["notes"].put_many({"k": "old"})
    pulled(a, away)
    del a["notes"]["k"]
    assert forgets(a, away).purged == 1
    b = opened()
    sync(a, b)

    sync(b, away)

    assert dict(b["notes"]) == dict(away["notes"]) == {}
    all_agree(b, away, a)


def test_a_filtered_replica_drops_what_was_forgotten(opened: Opener) -> None:
    """Nobody waited for it, and it had the document."""
    a, part = opened(), opened()
    a["notes"].put_many({"x/k": "old", "x/other": 1, "y": 2})
    only = Filter(prefix="x/")
    pulled(a, part, filter=only)
    del a["notes"]["x/k"]
    assert purged(a).purged == 1

    pulled(a, part, filter=only)
    pulled(part, a)

    assert dict(part["notes"]) == {"x/other": 1}
    assert dict(a["notes"]) == {"x/other": 1, "y": 2}
    assert [list(store.check()) for store in (a, part)] == [[], []]


def test_history_does_not_come_back_either(opened: Opener) -> None:
    """A replica with all versions returns, and gives all that it has."""
    a, away = opened(), opened()
    for n in range(3):
        a["notes"]["k"] = n
    pull(handle_of(a), handle_of(away), history="all")
    del a["notes"]["k"]
    forgets(a, away)

    pull(handle_of(away), handle_of(a), history="all")

    assert versions(a, "k") == {}
    pull(handle_of(a), handle_of(away), history="all")
    assert versions(away, "k") == {}
    all_agree(a, away)


def test_who_knows_the_delete_needs_no_second_look(opened: Opener) -> None:
    """It has acknowledged all that was forgotten, so it is no stale replica, whatever else it lacks."""
    a, b = opened(), opened()
    a["notes"]["k"] = "old"
    sync(a, b)
    del a["notes"]["k"]
    sync(a, b)
    a["notes"].put_many({f"k{n}": n for n in range(50)})
    assert purged(a).purged == 1

    for shard, definition, first, end in handle_of(a).runs():
        for part in range(first, end):
            forgotten = forgotten_of(shard.database.read(), definition.base + part)
            known = vstore.replicas.known(handle_of(b))[part]
            assert all(n <= known.get(actor, 0) for actor, n in forgotten.items())


# --- against an oracle -----------------------------------------------------------------------------------------------


@dataclass
class Truth:
    """Who wrote what having read which versions: so what is on top of what, in plain sets."""

    ancestors: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def wrote(self, key: str, rev: str, read: frozenset[str], value: Any) -> None:
        known = self.ancestors.setdefault(key, {})
        known[rev] = known.get(rev, frozenset()) | read.union(*(known[each] for each in read))
        self.values[rev] = value

    def live(self) -> dict[str, set[Any]]:
        """Of each key the values that nobody has written over or deleted."""
        found = {}
        for key, known in self.ancestors.items():
            below = frozenset().union(*known.values())
            values = {self.values[rev] for rev in known.keys() - below if self.values[rev] is not None}
            if values:
                found[key] = values
        return found


class World:
    """Three replicas and what happens to them, at random."""

    def __init__(self, stores: list[Store], chosen: random.Random) -> None:
        self.stores = stores
        self.chosen = chosen
        self.truth = Truth()
        self.contexts: list[Context] = []
        self.counts = {"purged": 0, "revived": 0, "unexplained": 0, "forgotten": 0}
        self.number = 0

    def step(self) -> None:
        """A write, a sync or a pull of two, a purge, or a purge that does not wait for one of the others."""
        store, other = self.chosen.sample(self.stores, 2)
        dice = self.chosen.random()
        if dice < 0.55:
            self.write(store)
        elif dice < 0.75:
            self.note(pulled(store, other))
        elif dice < 0.85:
            self.meet(store, other)
        elif dice < 0.95:
            self.counts["purged"] += purged(store).purged
        else:
            self.counts["purged"] += forgets(store, *(each for each in self.stores if each is not store)).purged

    def write(self, store: Store) -> None:
        """An edit or a delete, of what is there now or of what somebody read anywhere long ago."""
        notes = store["notes"]
        key = self.chosen.choice("abc")
        heads = self.heads(store, key)
        context = Context(key)
        if heads:
            context = notes.read(key, on_conflict="winner", deleted=True).context
            self.contexts.append(context)
        old = [each for each in self.contexts if each.key == key]
        if old and self.chosen.random() < 0.25:
            context = self.chosen.choice(old)
        elif self.chosen.random() < 0.05:
            context = Context(key)
        self.number += 1
        value = None if context.revs and self.chosen.random() < 0.5 else self.number
        before = set(versions(store, key))
        if value is None:
            notes.delete(key, context=context)
        else:
            notes.put(key, value, context=context)
        for rev in set(versions(store, key)) - before:
            self.truth.wrote(key, rev, frozenset(context.revs), value)

    def meet(self, one: Store, other: Store) -> None:
        report = sync(one, other)
        self.note(report.to_a)
        self.note(report.to_b)

    def note(self, moved: Any) -> None:
        for name in ("revived", "unexplained", "forgotten"):
            self.counts[name] += getattr(moved, name)

    def heads(self, store: Store, key: str) -> list[str]:
        shard, definition, _part = handle_of(store).place(key)
        return [version_of(row[2:]).rev for row in shard.database.ask(sql.HEADS(1), (definition.id, key))]

    def shown(self, store: Store) -> dict[str, set[Any]]:
        documents = {key: store["notes"].read(key, on_conflict="winner") for key in store["notes"]}
        return {key: {each.value for each in found.siblings} for key, found in documents.items()}

    def heal(self) -> int:
        """Everybody meets everybody until nothing moves; how many rounds that took."""
        for rounds in range(1, 8):
            moved = 0
            for one, other in ((0, 1), (1, 2), (0, 2)):
                report = sync(self.stores[one], self.stores[other])
                self.note(report.to_a)
                self.note(report.to_b)
                moved += report.to_a.rows + report.to_b.rows + report.to_a.forgotten + report.to_b.forgotten
            if not moved:
                return rounds
        raise AssertionError("rows move for ever")


@pytest.mark.parametrize("seed", range(20))
def test_no_deleted_document_returns_and_no_live_edit_is_lost(opened: Opener, seed: int) -> None:
    """Random histories of three replicas with purges at any time, some of which do not wait for the others."""
    world = World([opened() for _ in range(3)], random.Random(seed))
    for _ in range(3):
        for _ in range(30):
            world.step()
        world.heal()

        expected = world.truth.live()
        for store in world.stores:
            assert world.shown(store) == expected, f"seed {seed}: {world.counts}"
    for store in world.stores:
        assert list(store.check()) == [], f"seed {seed}"
    assert world.counts["unexplained"] == 0, f"seed {seed}: {world.counts}"


def test_the_random_histories_have_in_them_what_they_are_about(opened: Opener) -> None:
    """Purges, documents that are forgotten because another had forgotten them, and edits that live on."""
    total = dict.fromkeys(("purged", "revived", "forgotten"), 0)
    for seed in range(4):
        world = World([opened() for _ in range(3)], random.Random(seed))
        for _ in range(90):
            world.step()
        world.heal()
        for name in total:
            total[name] += world.counts[name]

    assert all(total.values()), total
