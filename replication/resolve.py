"""`Settler`: conflicts settled where they arrive or in the background, by a resolver that is not trusted.

    siblings ──► noted, and not due? ──────────────────────────────► left
        ├──────► all made by resolvers of the same writes? ─► one of them ─┐
        └──────► the resolver, with a time limit ─► a value ─┬─────────────┴─► merge
                                                             └─ KEEP, or it failed ─► noted, left

The rev of a merge follows from what was merged, so replicas that settle the same
siblings alike have made one version. Where they do not, because a resolver is
random or not the same everywhere, its merges become siblings; of these one is
taken and nobody is asked, so a conflict costs each replica few versions and ends.

Whatever a resolver does, siblings that it did not settle stay as they were, with
the reason noted beside them. It is not asked about the same ones again before
its identity has changed or some time has passed, longer each time.

Source: docs/consistency.md, "Conflicts".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from replication.lease import Lease, LeaseHeld, now_us
from vstore.canonical import winner_key
from vstore.collection import Collection
from vstore.conflicts import (
    agreed,
    forget,
    keys_in_conflict,
    note,
    noted,
    presented,
    unsettled,
)
from vstore.document import Document, Version
from vstore.errors import (
    HistoryPruned,
    InvalidDocument,
    NotFound,
    PreconditionFailed,
    ResolverError,
    StaleMap,
    StoreError,
    Unavailable,
)
from vstore.handle import Handle
from vstore.history import versions_of
from vstore.limited import CALL_SECONDS, Busy, Limited
from vstore.resolvers import KEEP, Resolver, decide, identity, needs_base

ATTEMPTS = 10
"""How often a document that others keep changing is tried before it is left for the next time."""


@dataclass(slots=True)
class Settled:
    """What became of conflicts: the keys that are settled now, and of those that are not, why.

    `asked` counts calls of the resolver. `elsewhere` names who is at it already,
    if that is why nothing was done here. Truthy if something was settled.
    """

    resolved: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    elsewhere: str = ""

    def __bool__(self) -> bool:
        return bool(self.resolved)


class Settler:
    """Settles the conflicts of one collection by one resolver, and contains what the resolver does."""

    def __init__(
        self,
        collection: Collection,
        resolver: Resolver,
        *,
        seconds: float | None = CALL_SECONDS,
        others: Sequence[Collection] = (),
        now_us: Callable[[], int] = now_us,
    ) -> None:
        """Does nothing yet.

        Args:
            seconds: how long the resolver may think about one document; then it
                is left alone in its thread, and is asked nothing else before it
                has come back. None: no limit, and no thread.
            others: replicas of the collection that are asked for a common
                ancestor whose body is not here.
        """
        self.collection = collection
        self.name = identity(resolver)
        self._needs_base = needs_base(resolver)
        self._resolver = resolver if seconds is None else Limited(resolver, seconds)
        self._others = tuple(others)
        self._now_us = now_us

    def __repr__(self) -> str:
        return f"<Settler {self.name} of {self.collection!r}>"

    def settle(self, keys: Iterable[str]) -> Settled:
        """Settles those of the documents that are in conflict. Call it with what has arrived.

        Raises:
            Unavailable: the database failed. What was settled before stays.
        """
        outcome = Settled()
        for key in keys:
            self._settle(key, outcome)
        return outcome

    def background(self, stop: threading.Event | None = None) -> Settled:
        """One pass over all conflicts of the collection, one process at a time. Costs what there are of them.

        Args:
            stop: ends the pass after the document under way.

        Raises:
            Unavailable: the database failed. What was settled before stays.
        """
        outcome = Settled()
        handle = self._handle
        if handle is None:
            return outcome
        prefix = self.collection.prefix
        left_before = set(unsettled(handle, prefix))
        lease = Lease(f"settle:{handle.uid}:{self.name}", now_us=self._now_us)
        try:
            for full in keys_in_conflict(handle, prefix):
                if stop is not None and stop.is_set():
                    return outcome
                lease.fence(handle.shards[0])  # the first takes it, the others renew it now and then
                self._settle(full[len(prefix) :], outcome)
            for full in left_before:  # of documents that somebody else has settled
                if full[len(prefix) :] not in outcome.left:
                    forget(handle, full)
        except LeaseHeld as held:
            outcome.elsewhere = str(held)
        finally:
            lease.release()
        return outcome

    # --- one document ------------------------------------------------------------------------------------------------

    @property
    def _handle(self) -> Handle | None:
        return self.collection.store.handle(self.collection.name)

    def _settle(self, key: str, outcome: Settled) -> None:
        handle = self._handle
        if handle is None:
            return
        full = self.collection.prefix + key
        for _attempt in range(ATTEMPTS):
            try:
                document = self.collection.read(key, on_conflict="winner", deleted=True)
            except NotFound:  # purged meanwhile
                return
            if not document.conflicted:
                return
            try:
                answer = self._answer(handle, full, document, outcome)
                if answer is not KEEP:
                    self.collection.settle(document, answer, by=self.name)
                    outcome.resolved.append(key)
                return
            except (PreconditionFailed, HistoryPruned, NotFound, StaleMap):
                continue  # it has changed meanwhile
            except Unavailable:
                raise
            except StoreError as error:
                self._leave(handle, full, document, _reason(error), outcome, asked=not isinstance(error, Busy))
                return
        outcome.left[key] = f"others kept changing it: {ATTEMPTS} attempts were too late"

    def _answer(self, handle: Handle, full: str, document: Document, outcome: Settled) -> Any:
        """What shall replace the siblings; KEEP if they are left, which has been noted then."""
        versions = versions_of(handle, full)
        live = [rev for rev in document.context.revs if rev in versions and not versions[rev].deleted]
        alike = agreed(live, versions)
        if alike:
            return self._one_of(document, alike, versions)
        before = noted(handle, full, document, self.name)
        if before is not None and not before.is_due(self._now_us()):
            outcome.left[document.key] = before.reason
            return KEEP
        others = [(there, full) for there in self._replicas()]
        case = presented(handle, full, document, self._resolver, versions=versions, others=others)
        if case.lacking and self._needs_base:
            # An answer without it would depend on which replica gives it, and a counter would count from 0. As long as
            # it costs no call to look again, nothing is to be waited for.
            self._leave(handle, full, document, case.lacking, outcome, asked=case.asked)
            return KEEP
        outcome.asked += 1
        answer = KEEP if case.kept else decide(self._resolver, case.siblings)
        if answer is KEEP:
            self._leave(handle, full, document, case.kept or "kept them", outcome)
        return answer

    def _replicas(self) -> Iterator[Handle]:
        for other in self._others:
            with suppress(StoreError):  # one that is away cannot help
                there = other.store.handle(other.name)
                if there is not None:
                    yield there

    def _one_of(self, document: Document, alike: Sequence[str], versions: dict[str, Version]) -> Any:
        """The value of one of several merges of the same writes, the same at every replica."""
        values = {rev: self.collection.version(document.key, rev).value for rev in alike}
        if len({frozenset(versions[rev].parents) for rev in alike}) == 1:
            return values[max(alike, key=lambda rev: winner_key(False, rev))]
        # Merges of merges: replicas that meet in a ring have made different ones. By winner order, which is as good
        # as random here, they might go on making others of these; the greatest content is the same in any order.
        return max(values.values(), key=lambda value: sha256(self.collection.content(value).identity or b"").digest())

    def _leave(
        self, handle: Handle, full: str, document: Document, reason: str, outcome: Settled, *, asked: bool = True
    ) -> None:
        """Says and notes why siblings stay."""
        outcome.left[document.key] = reason
        note(handle, full, document, self.name, reason, self._now_us(), asked=asked)


def _reason(error: StoreError) -> str:
    if isinstance(error, InvalidDocument):
        return f"returned what cannot be stored: {error}"
    return error.reason if isinstance(error, ResolverError) else str(error)
