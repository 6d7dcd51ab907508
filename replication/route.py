"""The way between two ends: which collections, in which directions, and one pass over one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from replication import handshake
from replication import parked as parking
from replication.handshake import Handshake, Pending, link_of, meet
from replication.lease import Lease
from replication.pull import pull
from replication.pulled import Progress, Pulled
from replication.resolve import Settler
from replication.scope import Scope
from vstore.collection import Collection
from vstore.errors import ConfigurationError
from vstore.handle import Handle
from vstore.resolvers import Resolver
from vstore.sql import statements as sql
from vstore.store import Store

Position = tuple[str, int]
"""The feed of a partition, and the seq of its last commit."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A collection at both ends."""

    source: Collection
    target: Collection

    @property
    def name(self) -> str:
        """Its name at the target."""
        return self.target.name


def check(source: Store | Collection, target: Store | Collection) -> None:
    """Refuses ends that are not two of a kind, or are one.

    Raises:
        ConfigurationError: they are not. Nothing was moved.
    """
    if isinstance(source, Store) is not isinstance(target, Store):
        raise ConfigurationError(
            f"a replication from a {type(source).__name__} to a {type(target).__name__} refused: give two stores or "
            f"two collections. Nothing was moved."
        )
    for each in (source, target):
        if isinstance(each, Collection) and each.prefix:
            raise ConfigurationError(
                f"{each.name!r} under {each.prefix!r} cannot be an end of a replication. Nothing was moved. Give the "
                f"whole collection, and Filter(prefix={each.prefix!r})."
            )
    ends = [each.store if isinstance(each, Collection) else each for each in (source, target)]
    apart = isinstance(source, Collection) and isinstance(target, Collection) and source.name != target.name
    # A copied file has the same ids as its original until it is written; what proves actors tells them apart.
    shared = {shard.proof.name for shard in ends[0].shards} & {shard.proof.name for shard in ends[1].shards}
    if shared and not apart:
        name = " ".join(shard.database.name for shard in ends[0].shards)
        raise ConfigurationError(
            f"a replication of {name} with itself refused: both ends are the same databases. Nothing was moved. "
            f"Give the URLs of two replicas."
        )


def pairs(
    source: Store | Collection, target: Store | Collection, names: Sequence[str] | None, *, both: bool
) -> list[Pair]:
    """The collections to go over: those of the names that exist, or all that the source has, or either if both."""
    if isinstance(source, Collection) and isinstance(target, Collection):
        return [Pair(source, target)]
    assert isinstance(source, Store)
    assert isinstance(target, Store)
    known = {*source.collections(), *(target.collections() if both else ())}
    return [Pair(source[name], target[name]) for name in sorted(known if names is None else known & set(names))]


def take(
    pair: Pair,
    *,
    scope: Scope,
    both: bool,
    reconcile: bool,
    told: Callable[[Pulled], None],
    halt: threading.Event,
    holder: str,
    conflicts: Callable[[list[str]], None],
) -> None:
    """Brings one collection of the target up to the source, and of the source to the target if both.

    Args:
        reconcile: compare both ends in full as well.
        told: what moved, after each batch.
        halt: once it is set, this returns after the batch under way.
        holder: in whose name leases are held. Who has lost a target in the middle could not give his back, and goes
            on by that name.
        conflicts: told which documents of the target have several live siblings after a batch.

    Raises:
        ConfigurationError, LeaseHeld, Unavailable, NotFound: as `pull`.
    """
    source, target = handles(pair, both=both)
    if source is None or target is None:
        return

    def one_way(source: Handle, target: Handle, met: Handshake | None) -> Pulled:
        if halt.is_set():
            return Pulled()
        heard = conflicts if target.uid == ends[1] else None
        return _pulled(source, target, scope, reconcile, told, halt, holder, heard, met)

    ends = source.uid, target.uid
    if both:
        there_and_back(source, target, one_way)
    else:
        one_way(source, target, None)


def there_and_back(
    a: Handle, b: Handle, one_way: Callable[[Handle, Handle, Handshake | None], Pulled]
) -> tuple[Pulled, Pulled]:
    """One handshake and a pull each way, by `one_way(source, target, met)`: what moved to b, and to a."""
    met = meet(a, b)
    to_b = one_way(a, b, met)
    # The handshake serves the way back as well, unless the way there has changed what it says.
    to_a = one_way(b, a, Handshake(met.target, met.source) if to_b == Pulled() else None)
    if to_a.collided or to_a.ghosts:
        # One side has become somebody else on the way back, and what it has to say since the other has not heard.
        to_b += one_way(a, b, None)
    return to_b, to_a


def _pulled(
    source: Handle,
    target: Handle,
    scope: Scope,
    reconcile: bool,
    told: Callable[[Pulled], None],
    halt: threading.Event,
    holder: str,
    conflicts: Callable[[list[str]], None] | None,
    met: Handshake | None,
) -> Pulled:
    before = Pulled()
    lease = Lease(link_of(source, target), holder=holder)

    def on_batch(progress: Progress) -> None:
        nonlocal before
        moved, before = progress.pulled - before, progress.pulled
        told(moved)

    try:
        total = pull(
            source,
            target,
            filter=scope.filter,
            history=scope.history,
            on_batch=on_batch,
            stop=halt,
            lease=lease,
            reconcile="always" if reconcile else "auto",
            conflicts=conflicts,
            met=met,
        )
    finally:
        lease.release()
    told(total - before)
    return total


def positions(pair: Pair, *, both: bool) -> list[Position]:
    """Where a collection stands at the source, and at the target if both. One small query for each shard."""
    ends = (pair.source, pair.target) if both else (pair.source,)
    found = [end.store.handle(end.name) for end in ends]
    return [place for handle in found if handle is not None for place in (*handle.positions(), (handle.uid, 0))]


def settle(
    pair: Pair, resolver: Resolver, keys: Sequence[str] | None = None, *, stop: threading.Event | None = None
) -> list[str]:
    """Settles conflicts that the target has, of some keys or all of them; the keys that are settled.

    Raises:
        Unavailable: the database failed. What was settled before stays.
    """
    settler = Settler(pair.target, resolver, others=[pair.source])
    return (settler.background(stop) if keys is None else settler.settle(keys)).resolved


def pending(pairs: Sequence[Pair], scope: Scope, *, both: bool) -> Pending:
    """How many commits have not been taken, of how many, and whether everything was taken once."""
    commits = of = 0
    met = True
    for pair in pairs:
        source, target = pair.source.store.handle(pair.source.name), pair.target.store.handle(pair.target.name)
        for here, there in ((source, target), (target, source)) if both else ((source, target),):
            if here is None:
                continue
            if there is None:
                found = Pending(sum(seq for _feed, seq in here.positions()), 0, False)
                found = Pending(found.commits, found.commits, not found.commits)
            else:
                found = handshake.pending(here, there, scope.mode)
            commits, of, met = commits + found.commits, of + found.of, met and found.met
    return Pending(commits, of, met)


def conflicts(pairs: Sequence[Pair]) -> int:
    """How many documents of the target have rivals. Asks an index."""
    return sum(
        shard.database.ask(sql.COUNT_RIVALS, (definition.id,))[0][0]
        for handle in _targets(pairs)
        for shard, definition, _first, _end in handle.runs()
    )


def parked(pairs: Sequence[Pair]) -> int:
    """How many rows the target could not take."""
    return sum(len(parking.parked(handle)) for handle in _targets(pairs))


def _targets(pairs: Sequence[Pair]) -> list[Handle]:
    found = (pair.target.store.handle(pair.target.name) for pair in pairs)
    return [handle for handle in found if handle is not None]


def handles(pair: Pair, *, both: bool) -> tuple[Handle | None, Handle | None]:
    """The collection at both ends, created at the target where it has none, and at the source if both."""
    source = pair.source.store.handle(pair.source.name)
    target = pair.target.store.handle(pair.target.name)
    if source is not None and target is None:
        target = _created(pair.target, source.partitions)
    elif target is not None and source is None and both:
        source = _created(pair.source, target.partitions)
    return source, target


def _created(collection: Collection, partitions: int) -> Handle | None:
    with suppress(ConfigurationError):  # somebody has made it meanwhile; whether it fits is for the handshake to say
        collection.store.create(collection.name, partitions=partitions)
    return collection.store.handle(collection.name)
