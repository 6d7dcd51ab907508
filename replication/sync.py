"""`sync`: two stores, or two collections, brought to the same state, both ways.

One handshake and a pull in each direction, and then, if there is a resolver, the
conflicts are settled at one side and the settlements pulled by the other. The rev
of a merge follows from what was merged, so sides that resolve by themselves agree
as well. Of two stores, a collection that fails does not keep up the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from replication import route
from replication.filters import Filter
from replication.handshake import Handshake
from replication.lease import LeaseHeld
from replication.pull import pull
from replication.pulled import Progress, Pulled
from replication.resolve import Settler
from replication.scope import History, Scope
from vstore.collection import Collection
from vstore.errors import StoreError, Unavailable
from vstore.handle import Handle
from vstore.resolvers import Resolver
from vstore.store import Store


@dataclass(slots=True)
class Report:
    """What a sync did: rows moved to each side, and conflicts.

    `to_a` and `to_b` count what each side took; `resolved` are keys that the
    resolver settled, `unsettled` those that it did not, with the reasons, and
    `conflicts` how many documents still have siblings that differ. Truthy if
    anything moved.
    """

    to_a: Pulled = field(default_factory=Pulled)
    to_b: Pulled = field(default_factory=Pulled)
    resolved: list[str] = field(default_factory=list)
    unsettled: dict[str, str] = field(default_factory=dict)
    conflicts: int = 0

    def __bool__(self) -> bool:
        return bool(self.to_a.rows or self.to_b.rows or self.resolved)

    def __str__(self) -> str:
        return (
            f"{self.to_b.rows} rows to the second, {self.to_a.rows} to the first, "
            f"{len(self.resolved)} conflicts resolved, {self.conflicts} left"
        )


class PartialSync(StoreError):
    """Some collections of two stores could not be synced; the others were.

    `failed` has the error of each by name, `report` what was done all the same.
    The next sync goes on from there.
    """

    def __init__(self, message: str, failed: Mapping[str, StoreError], report: Report) -> None:
        super().__init__(message)
        self.failed = failed
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.failed, self.report)


def sync(
    a: Store | Collection,
    b: Store | Collection,
    resolver: Resolver | None = None,
    *,
    filter: Filter | None = None,
    history: History = "heads",
    progress: Callable[[str, Report], None] | None = None,
    on_batch: Callable[[Progress], None] | None = None,
) -> Report:
    """Brings two replicas together: afterwards both hold every version that is a head at either.

    Args:
        a, b: two stores (every collection of either, by name) or two collections.
        resolver: settles documents with several live siblings; without one they
            stay as they are, the same siblings at both. What it fails on stays
            too, and the report says why.
        filter: only documents that it wants travel, either way.
        history: "all" brings every version that either side still has, and not
            only heads; a moment in microseconds since 1970 UTC, those since then.
        progress: called with a collection's name after each.
        on_batch: told after each transaction at either side how far that way is.

    Returns:
        What moved. A second call with nothing new moves nothing, and costs a
        few small queries for each shard.

    Raises:
        ConfigurationError: the two are one, are of different kinds, or differ in
            their number of partitions. Nothing was moved.
        LeaseHeld: somebody else is replicating the same two.
        Unavailable: a database failed. What has been moved stays, and the next
            call goes on from there.
        PartialSync: of two stores, collections failed for another reason than
            that a database did: all others have been synced.
    """
    route.check(a, b)
    report = Report()
    pairs = {pair.source.name: pair for pair in route.pairs(a, b, None, both=True)}

    def sync_collection(name: str) -> None:
        _sync_collection(pairs[name], resolver, report, Scope(filter, history), on_batch)
        if progress is not None:
            progress(name, report)

    if isinstance(a, Collection):
        sync_collection(a.name)
    else:
        one_by_one(list(pairs), sync_collection, report)
    return report


def one_by_one(names: Sequence[str], work: Callable[[str], None], report: Report | None = None) -> None:
    """Does the work for each collection; the error of one does not keep up the others.

    Args:
        report: what the work has done, for the error.

    Raises:
        Unavailable: a database failed, so the others would only wait as long for
            the same. Notes say what had failed before.
        PartialSync: the work failed for some of them, for other reasons.
    """
    failed: dict[str, StoreError] = {}
    for name in names:
        try:
            work(name)
        except StoreError as error:
            if isinstance(error, Unavailable) and not isinstance(error, LeaseHeld):
                for other, earlier in failed.items():
                    error.add_note(f"Before that, {other!r} could not be synced: {earlier}")
                raise
            failed[name] = error
    if failed:
        causes = "\n".join(f"{name!r}: {error}" for name, error in failed.items())
        raise PartialSync(
            f"{len(failed)} of {len(names)} collections could not be synced; all that could be done for the others is "
            f"done.\n{causes}",
            failed,
            report or Report(),
        ) from next(iter(failed.values()))


def _sync_collection(
    pair: route.Pair,
    resolver: Resolver | None,
    report: Report,
    scope: Scope,
    on_batch: Callable[[Progress], None] | None,
) -> None:
    handle_a, handle_b = route.handles(pair, both=True)
    if handle_a is None or handle_b is None:
        return

    def one_way(source: Handle, target: Handle, met: Handshake | None) -> Pulled:
        return pull(source, target, filter=scope.filter, history=scope.history, on_batch=on_batch, met=met)

    def both_ways() -> None:
        to_b, to_a = route.there_and_back(handle_a, handle_b, one_way)
        report.to_b += to_b
        report.to_a += to_a

    both_ways()
    if resolver is not None:
        a, b = pair.source, pair.target
        settled = Settler(a, resolver, others=[b]).settle(document.key for document in a.conflicts())
        report.resolved += settled.resolved
        report.unsettled |= settled.left
        both_ways()
    report.conflicts += sum(1 for _ in pair.source.conflicts())
