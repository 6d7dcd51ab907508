"""`sync`: two stores, or two collections, brought to the same state, both ways.

A pull in each direction, and then, if there is a resolver, the conflicts are
settled at one side and the settlements pulled by the other. The rev of a merge
follows from what was merged, so sides that resolve by themselves agree as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from replication.pull import Pulled, pull
from vstore.collection import Collection
from vstore.errors import ConfigurationError
from vstore.resolvers import Resolver
from vstore.store import Store


@dataclass(slots=True)
class Report:
    """What a sync did: rows moved to each side, and conflicts.

    `to_a` and `to_b` count what each side took; `resolved` are keys that the
    resolver settled, `conflicts` how many documents still have siblings that
    differ. Truthy if anything moved.
    """

    to_a: Pulled = field(default_factory=Pulled)
    to_b: Pulled = field(default_factory=Pulled)
    resolved: list[str] = field(default_factory=list)
    conflicts: int = 0

    def __bool__(self) -> bool:
        return bool(self.to_a.rows or self.to_b.rows or self.resolved)

    def __str__(self) -> str:
        return (
            f"{self.to_b.rows} rows to the second, {self.to_a.rows} to the first, "
            f"{len(self.resolved)} conflicts resolved, {self.conflicts} left"
        )


def sync(
    a: Store | Collection,
    b: Store | Collection,
    resolver: Resolver | None = None,
    *,
    progress: Callable[[str, Report], None] | None = None,
) -> Report:
    """Brings two replicas together: afterwards both hold every version that is a head at either.

    Args:
        a, b: two stores (every collection of either, by name) or two collections.
        resolver: settles documents with several live siblings; without one they
            stay as they are, the same siblings at both.
        progress: called with a collection's name after each.

    Returns:
        What moved. A second call with nothing new moves nothing, and costs one
        small query for each shard.

    Raises:
        ConfigurationError: the two are one, are of different kinds, or differ in
            their number of partitions. Nothing was moved.
        Corrupt: an actor was cloned. The batch that showed it was not written.
        ResolverError: the resolver failed on a document. All else was moved.
        Unavailable: a database failed. What has been moved stays, and the next
            call goes on from there.
    """
    report = Report()
    for one, other in _pairs(a, b):
        _sync_collection(one, other, resolver, report)
        if progress is not None:
            progress(one.name, report)
    return report


def _sync_collection(a: Collection, b: Collection, resolver: Resolver | None, report: Report) -> None:
    handle_a, handle_b = a.store.handle(a.name), b.store.handle(b.name)
    if handle_a is None and handle_b is None:
        return
    if handle_a is None:
        assert handle_b is not None
        a.store.create(a.name, partitions=handle_b.partitions)
        handle_a = a.store.handle(a.name)
    elif handle_b is None:
        b.store.create(b.name, partitions=handle_a.partitions)
        handle_b = b.store.handle(b.name)
    assert handle_a is not None
    assert handle_b is not None
    if handle_a.partitions != handle_b.partitions:
        raise ConfigurationError(
            f"{a.name!r} has {handle_a.partitions} partitions and {b.name!r} {handle_b.partitions}, so their feeds do "
            f"not match. Nothing was moved. Export one and import it into a collection with as many partitions."
        )
    report.to_b += pull(handle_a, handle_b)
    report.to_a += pull(handle_b, handle_a)
    if resolver is not None:
        for document in a.conflicts():
            if not a.resolve(document.key, resolver).conflicted:
                report.resolved.append(document.key)
        report.to_b += pull(handle_a, handle_b)
        report.to_a += pull(handle_b, handle_a)
    report.conflicts += sum(1 for _ in a.conflicts())


def _pairs(a: Store | Collection, b: Store | Collection) -> list[tuple[Collection, Collection]]:
    if isinstance(a, Store) and isinstance(b, Store):
        _refuse_same(a, b, "")
        return [(a[name], b[name]) for name in sorted({*a.collections(), *b.collections()})]
    if isinstance(a, Collection) and isinstance(b, Collection):
        if a.name == b.name:
            _refuse_same(a.store, b.store, a.name)
        for each in (a, b):
            if each.prefix:
                raise ConfigurationError(
                    f"sync() of {each.name!r} under {each.prefix!r} refused: a part of a collection cannot be synced. "
                    f"Nothing was moved. Sync the whole collection."
                )
        return [(a, b)]
    raise ConfigurationError(
        f"sync() of a {type(a).__name__} with a {type(b).__name__} refused: pass two stores or two collections. "
        f"Nothing was moved."
    )


def _refuse_same(a: Store, b: Store, name: str) -> None:
    # A copied file has the same ids as its original until it is written; what proves actors tells them apart.
    if {shard.proof.name for shard in a.shards} & {shard.proof.name for shard in b.shards}:
        raise ConfigurationError(
            f"sync() of {a!r}{f' {name!r}' if name else ''} with itself refused: both are the same databases. Nothing "
            f"was moved. Give the URLs of two replicas."
        )
