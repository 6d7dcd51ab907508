"""With any rule of the real code turned off, the simulation of the real code fails: it would notice the rule's loss.

Rules of `vstore.document` and `vstore.clock` alone are turned off in
`tests/simulation/test_mutations.py`, which drives the same functions a hundred
times faster. Here are those that live in stores, pulls, purges and proofs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import replication.feed
from replication.batches import Batches
from replication.feed import Feed, Page
from replication.handshake import Place
from replication.pull import _Pull
from replication.scope import Scope
from tests.simulation.oracle import Broken
from vstore import document, receiving, shard
from vstore.batch import Receive
from vstore.document import Version
from vstore.identity import Proof
from vstore.plan import Held, Partition, knowledge_in, set_checkpoint
from vstore.replicas import Registry

from .schedule import run

Patch = Callable[[pytest.MonkeyPatch], None]

SEEDS = 150  # the rarest fault shows at about every thirtieth of these

pages, add, settle = Feed.pages, Batches.add, document._settle


def knowledge_at_any_page(patch: pytest.MonkeyPatch) -> None:
    """The source's knowledge comes with each page, and not only with the one that ends where its feed ends."""

    def claiming(feed: Feed, *args: Any, **named: Any) -> Iterator[tuple[int, Page]]:
        for part, page in pages(feed, *args, **named):
            if page.claimed is None:
                with feed._there.shard.database.snapshot() as connection:
                    page.claimed = knowledge_in(connection, feed._there.definition.base + part)
            yield part, page

    patch.setattr(Feed, "pages", claiming)


def checkpoint_ahead(patch: pytest.MonkeyPatch) -> None:
    """The checkpoint is written in a transaction of its own, before the rows."""

    def noted_first(batches: Batches, here: Place, page: Page, work: Receive) -> None:
        if work.checkpoints:
            with here.shard.transaction():
                for name, text in work.checkpoints.items():
                    set_checkpoint(here.shard.database.read(), name, text)
        add(batches, here, page, replace(work, checkpoints=None, expects=None))

    patch.setattr(Batches, "add", noted_first)


def one_checkpoint_for_all_filters(patch: pytest.MonkeyPatch) -> None:
    """Another filter goes on where the one before it had got to."""
    patch.setattr(Scope, "mode", property(lambda scope: "" if scope.filter is None else "filtered"))


def rows_skipped_by_rev(patch: pytest.MonkeyPatch) -> None:
    """A version that the target has stays at home, whatever else it would have told."""

    def has(held: Mapping[str, Version], row: Version) -> bool:
        stored = held.get(row.rev)
        return stored is not None and (row.stub or not stored.stub)

    patch.setattr(replication.feed, "_has", has)


def purge_at_any_time(patch: pytest.MonkeyPatch) -> None:
    """What is known here may be forgotten, whoever else knows of it."""
    patch.setattr(Registry, "stable", lambda registry, part: dict(registry.known[part]))


def nothing_is_remembered_as_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A purge leaves no trace but what is known."""
    patch.setattr(Partition, "join_forgotten", lambda *args: None)


def purge_by_age(patch: pytest.MonkeyPatch) -> None:
    """Tombstones go when they are old, nothing says that they did, and a known row that is absent is taken."""
    purge_at_any_time(patch)
    nothing_is_remembered_as_forgotten(patch)
    patch.setattr(document, "knows", lambda knowledge, row: False)


def stale_targets_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    """A target that does not know all that the source has forgotten keeps what it has of that."""
    patch.setattr(_Pull, "_forget", lambda *args: None)
    patch.setattr(Feed, "_forgettable", lambda *args: {})


def purge_leaves_history(patch: pytest.MonkeyPatch) -> None:
    """A purge takes the heads and leaves what is below them; heads are computed from all there is."""

    def purge_key(held: Held) -> None:
        held.purged += [head.id for head in held.entry.heads.values()]
        for rev in held.entry.heads:
            del held.entry.versions[rev]
        held.entry.heads.clear()
        held.events.append("purge")

    patch.setattr(receiving, "purge_key", purge_key)


def any_proof_will_do(patch: pytest.MonkeyPatch) -> None:
    """A restored or copied file goes on under the name that it had."""
    patch.setattr(Proof, "confirms", lambda *args: True)


def collisions_absorbed(patch: pytest.MonkeyPatch) -> None:
    """A dot that names two versions goes on naming both: whoever has seen the one has seen the other."""
    patch.setattr(document, "_unmixed", lambda row, versions, collided: (row, []))


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """A replicator whose lease was taken over writes all the same."""
    patch.setattr(shard, "refuse_moved", lambda *args: None)


@dataclass(frozen=True)
class Mutation:
    """A rule turned off, the invariants of which one breaks first, and the kind of schedules that show it.

    `seed` is known to fail and so is tried first: the schedules before it need not be simulated in every run.
    """

    patch: Patch
    breaks: set[int]
    often: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


SMALL = {"batch_rows": 1}
PURGES = {"purge": 12, "restore": 2}
DELETES = {"deletes": 0.5}

MUTATIONS = {
    "knowledge joined at any page": Mutation(knowledge_at_any_page, {12, 1, 3}, settings=SMALL),
    "checkpoint ahead of the data": Mutation(
        checkpoint_ahead,
        {20, 1, 3},
        settings={"batch_rows": 3, "fault_rate": 0.5, "fault_kinds": ["killed", "cut", "killed at commit"]},
    ),
    "filter change reuses the checkpoint": Mutation(
        one_checkpoint_for_all_filters, {21, 29}, {"change_filter": 6}, {"filter_one": True}, seed=11
    ),
    "rows skipped by rev": Mutation(rows_skipped_by_rev, {1, 10, 12, 14}, {"write_stale": 6, "repeat": 8}, seed=1),
    "purge at any time": Mutation(purge_at_any_time, {13}, PURGES, DELETES),
    "purge by age without the knowledge rule": Mutation(
        purge_by_age, {2, 3, 6, 12}, PURGES, {**DELETES, "expiries": (0,)}
    ),
    "forgotten knowledge is not kept": Mutation(nothing_is_remembered_as_forgotten, {3, 12}, PURGES, DELETES),
    "stale targets are not asked": Mutation(stale_targets_are_not_asked, {1, 2, 3, 6, 12}, PURGES, DELETES, seed=13),
    "purge leaves history": Mutation(purge_leaves_history, {13}, PURGES, DELETES),
    "same actor after a restored backup or in a copy": Mutation(
        any_proof_will_do, {11}, {"restore": 4, "copy_file": 4}
    ),
    "a collision is absorbed": Mutation(collisions_absorbed, {1, 3}, settings={"ghosts": True}, seed=70),
    "the fence of a lease is ignored": Mutation(no_fence, {20}, settings={"rivals": True, "batch_rows": 1}, seed=12),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_without_the_rule_the_simulation_of_the_real_code_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own way to break: an invariant that breaks for another reason would prove nothing."""
    mutation = MUTATIONS[name]
    mutation.patch(monkeypatch)

    broken = first_failure(mutation)

    assert broken is not None, f"{SEEDS} schedules pass without the rule"
    assert broken.invariant in mutation.breaks, broken


def first_failure(mutation: Mutation) -> Broken | None:
    """What the first seed that fails says."""
    for seed in (mutation.seed, *range(SEEDS)):
        try:
            run(seed, often=mutation.often, **mutation.settings)
        except Broken as broken:
            return broken
    return None
