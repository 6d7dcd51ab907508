"""One collection of a target brought up to a source: the rows that it lacks, and what they prove.

    handshake ─► nothing to do, or a lease
              ─► rows that were parked, once more
              ─► for each partition that is behind: its feed from the checkpoint on
              ─► an acknowledgement to the source

Rows, knowledge and checkpoint are one transaction of the target, so a checkpoint
is never ahead of the data, and a pull that ends anywhere goes on from the last
one. The source is only read, but for the acknowledgement, which it may refuse.

Where there is no checkpoint to go on from (a first contact, a feed that is
another one or went back), the feed is read from its beginning, or, if both sides
have much, `replication.reconcile` finds what differs. A target that does not know
all that the source may have forgotten gives up what the source has forgotten
before it may claim to know what the source knows.

Source: docs/consistency.md, "Sync"; the rules are those of `vstore.document`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Literal

from replication import handshake
from replication.batches import Batches
from replication.feed import PAGE_ROWS, Feed
from replication.filters import Filter
from replication.handshake import Handshake, Standing, Taken, meet, place, standings, vouch
from replication.lease import Lease, now_us
from replication.parked import Parked, Parking
from replication.pulled import Progress, Pulled
from replication.scope import EVERYTHING, History, Scope
from vstore.batch import Receive
from vstore.errors import StoreError
from vstore.handle import Handle, place_of, seq_of
from vstore.partition import part_of
from vstore.replicas import FILTERED, FULL, exchange
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

log = logging.getLogger("replication")

RECONCILE_ROWS = 5_000
"""From so many commits on, a first contact of two replicas that both have documents compares ranges and not rows."""

AGAIN = 3
"""How often one pull begins again with feeds that were replaced while it read them."""

Reconcile = Literal["auto", "always", "never"]


def pull(
    source: Handle,
    target: Handle,
    *,
    filter: Filter | None = None,
    history: History = "heads",
    on_batch: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    lease: Lease | None = None,
    reconcile: Reconcile = "auto",
    conflicts: Callable[[list[str]], None] | None = None,
    met: Handshake | None = None,
) -> Pulled:
    """Takes into `target` what `source` has and it has not.

    Args:
        filter: only these documents; such a target never claims to know all that the source knows.
        history: heads with stubs of their ancestors; "all" versions that the
            source still has; or those since a moment, in microseconds since 1970 UTC.
        on_batch: told after each transaction of the target.
        stop: once it is set, the pull ends after the batch under way.
        lease: kept by the caller between pulls of the same link; else one is
            taken for as long as there is something to do.
        reconcile: "always" compares everything afterwards, and counts what differs as `differences`.
        conflicts: told which documents have several live siblings after a batch.
        met: a handshake of just now.

    Returns:
        What moved. A call with nothing new moves nothing, writes nothing, and
        costs a few small queries for each shard.

    Raises:
        ConfigurationError: the two differ in their number of partitions. Nothing was moved.
        LeaseHeld: somebody else replicates the same link.
        Unavailable: a database failed. What was written before stays; pull again.
        NotFound: the collection was dropped at the source meanwhile.

    Memory is flat: a page of the source, and what waits for one transaction of each shard of the target.
    """
    work = _Pull(source, target, Scope(filter, history), on_batch, stop, lease, conflicts)
    return work.run(reconcile, met)


def take(source: Handle, target: Handle, keys: Sequence[str], *, lease: Lease | None = None) -> Pulled:
    """Fetches the present heads of some keys, with stubs of the ancestors that the target lacks.

    What the target holds of them and the source has forgotten, it forgets as well. Durable when it returns.

    Raises:
        Unavailable: a database failed. What was written before stays.
    """
    work = _Pull(source, target, EVERYTHING, None, None, lease, None)
    return work.take(keys)


class _Pull:
    """One pull: what it is about, and what it has moved so far."""

    def __init__(
        self,
        source: Handle,
        target: Handle,
        scope: Scope,
        on_batch: Callable[[Progress], None] | None,
        stop: threading.Event | None,
        lease: Lease | None,
        conflicts: Callable[[list[str]], None] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._scope = scope
        self._on_batch = on_batch or (lambda progress: None)
        self._stop = stop or threading.Event()
        self._given = lease
        self._lease = lease or Lease(handshake.link_of(source, target))
        self._conflicts = conflicts or (lambda keys: None)
        self._parking = Parking(source, target, scope.mode, lease.now_us if lease is not None else now_us)
        self._batches = Batches(self._parking, self._lease, self._moved)
        self._total = Pulled()
        self._ahead: dict[int, int] = {}
        self._reached: dict[int, int] = {}

    def run(self, reconcile: Reconcile, met: Handshake | None) -> Pulled:
        met = self._unmasked(met or meet(self._source, self._target))
        vouch(met, self._source, self._target)
        todo = self._behind(met, self._checkpoints())
        due = self._parking.due()
        if not todo and not due and reconcile != "always":
            self._acknowledge(moved=False)
            return self._total
        try:
            parts = set(todo) | {part_of(each.key, self._target.partitions) for each in due}
            for part in sorted(parts):
                self._lease.fence(place(self._target, part).shard)
            taken = self._checkpoints()
            if any(at.feed == s.feed and at.seq > s.seq for at, s in zip(taken, met.source, strict=True)):
                met = meet(self._source, self._target)  # somebody else has gone on before the lease was ours
            parts = set(self._behind(met, taken))
            parts |= self._retried(met, due)
            complete = self._follow(met, taken, sorted(parts), reconcile)
            for _again in range(AGAIN):
                if complete or self._stop.is_set():
                    break
                # A feed of the source became another one under our eyes, as after a crash there: meet it once more.
                met, taken = self._unmasked(meet(self._source, self._target)), self._checkpoints()
                complete = self._follow(met, taken, self._behind(met, taken), reconcile)
            if complete:
                self._parking.tidy()
                self._acknowledge(moved=True)
            if reconcile == "always" and complete and self._scope.filter is None:
                self._reconcile()
        finally:
            self._total.parked = self._parking.count
            if self._given is None:
                self._lease.release()
        return self._total

    def take(self, keys: Sequence[str]) -> Pulled:
        met = meet(self._source, self._target)
        try:
            for part, wanted in sorted(self._target.by_part(keys).items()):
                here = place(self._target, part)
                feed = Feed(self._source, place(self._source, part), here, self._scope)
                for page in feed.present(wanted, forget=True):
                    if met.target[part].covers(page.forgotten):
                        page.forget = {}  # the target has forgotten all that itself: what it still has was lost there
                    self._total.compared += page.compared
                    work = Receive(
                        part, page.rows, forgotten=page.forgotten, forget=page.forget, bases=met.source[part].bases
                    )
                    self._batches.add(here, page, work)
            self._batches.flush()
        finally:
            self._total.parked = self._parking.count
            if self._given is None:
                self._lease.release()
        return self._total

    # --- the handshake -----------------------------------------------------------------------------------------------

    def _unmasked(self, met: Handshake) -> Handshake:
        """The handshake once no side is a ghost: one whose actor others have seen do more than it knows of itself."""
        if not any(s.exposes(t) or t.exposes(s) for s, t in zip(met.source, met.target, strict=True)):
            return met
        # Each is asked after its witness, who may otherwise have learnt meanwhile what the other has done since.
        theirs, ours = standings(self._source), standings(self._target)
        later = standings(self._source)
        for handle, ghosts in (
            (self._target, [part for part, t in enumerate(ours) if theirs[part].exposes(t)]),
            (self._source, [part for part, s in enumerate(later) if ours[part].exposes(s)]),
        ):
            for part in ghosts:
                there = place(handle, part)
                log.error(
                    "%s: partition %d of %r was set back to an older state: a peer knows later events of its actor. It "
                    "gets a new actor; what is missing comes back by replication.",
                    there.shard.database.name,
                    part,
                    handle.name,
                )
                self._total.ghosts += 1
                try:
                    there.shard.renew_actors(there.definition, [part])
                except StoreError as error:
                    if handle is self._target:
                        raise
                    log.warning("%s cannot be given a new actor: %s", there.shard.database.name, error)
        return meet(self._source, self._target)

    def _checkpoints(self) -> list[Taken]:
        return handshake.checkpoints(self._source, self._target, self._scope.mode)

    def _behind(self, met: Handshake, taken: Sequence[Taken]) -> list[int]:
        """The partitions whose feed has moved since the target took it."""
        return [
            part
            for part, (at, stands) in enumerate(zip(taken, met.source, strict=True))
            if ((at.feed, at.seq) != (stands.feed, stands.seq) and (stands.seq or at.feed))
            # A replica may have forgotten what it never had, and then its feed does not move.
            or (self._scope.filter is None and not met.target[part].covers(stands.forgotten))
            # Nor does it when a replica learns that what others did is obsolete. Parked rows keep the target from it.
            or (
                self._scope.filter is None
                and not met.target[part].covers(stands.bases)
                and not self._parking.keys([part])
            )
        ]

    def _follow(self, met: Handshake, taken: Sequence[Taken], parts: Sequence[int], reconcile: Reconcile) -> bool:
        """Brings partitions up to the source; says whether all of them got there."""
        since = {part: _since(taken[part], met.source[part]) for part in parts}
        strangers = [part for part, seq in since.items() if seq is None and met.target[part].seq]
        if (
            reconcile != "never"
            and self._scope == EVERYTHING
            and sum(met.source[part].seq for part in strangers) > RECONCILE_ROWS
        ):
            positions = self._introduced()
            if positions is None:
                return False
            since |= {part: _since(positions[part], met.source[part]) for part in strangers}
        for part in parts:
            self._ahead[part] = met.source[part].seq
            self._reached[part] = since[part] or 0
        whole = set(parts)
        for _shards, some in groupby(
            sorted(parts), lambda part: (self._source.owners[part], self._target.owners[part])
        ):
            whole -= self._follow_some(met, {part: since[part] or 0 for part in some}, taken)
            if self._stop.is_set():
                break
        self._batches.flush()
        return not whole and not self._stop.is_set()

    def _follow_some(self, met: Handshake, since: Mapping[int, int], taken: Sequence[Taken]) -> set[int]:
        """Brings partitions up to the source that share a shard at both ends; those of which all was taken."""
        some = list(since)
        feed = Feed(self._source, place(self._source, some[0]), place(self._target, some[0]), self._scope)
        names = {part: handshake.checkpoint_name(self._source, self._target, part, self._scope.mode) for part in some}
        notes = {part: taken[part].note for part in some}
        whole = self._scope.filter is None
        for key, found in feed.held(self._parking.keys(some)).items():
            for rev in [rev for each, rev in list(self._parking.rows) if each == key]:
                if rev in found:
                    self._parking.note(key, found[rev])
                else:
                    self._parking.release(key, rev)
        for part in some:
            if whole and met.target[part].seq and not met.target[part].covers(met.source[part].forgotten):
                self._forget(part, met.source[part])
        complete: set[int] = set()
        starts = {part: (met.source[part].feed, since[part]) for part in some}
        for part, page in feed.pages(starts, lambda: self._batches.rows):
            text = json.dumps({"feed": met.source[part].feed, "seq": seq_of(page.last)})
            work = Receive(
                part,
                page.rows,
                page.claimed if whole else None,
                {names[part]: text},
                {names[part]: notes[part]},
                history=self._scope.keeps_history,
                forgotten=page.forgotten,
                forget=page.forget,
                left=page.left,
                bases=met.source[part].bases,
            )
            notes[part] = text
            self._total.compared += page.compared
            self._batches.add(place(self._target, part), page, work)
            if page.claimed is not None:
                complete.add(part)
            if self._stop.is_set():
                break
        return complete

    def _forget(self, part: int, stands: Standing) -> None:
        """Gives up what the source has forgotten: of all the heads here, those that lie in it and are not there.

        A replica that was away while others purged would else bring back what they deleted, once it claims to know
        what they know.
        """
        here = place(self._target, part)
        feed = Feed(self._source, place(self._source, part), here, self._scope)
        after, top = place_of(here.partition, 0), place_of(here.partition + 1, 0)
        while True:
            rows = here.shard.database.ask(sql.LEAN_HEADS[False], (after, top, PAGE_ROWS))
            keys = []
            for _state, key, _size, *lineage in rows:
                version = version_of(lineage)
                after = version.id
                if all(dot.n <= stands.forgotten.get(dot.actor, 0) for dot in version.dots):
                    keys.append(key)
            for page in feed.forgotten(list(dict.fromkeys(keys))):
                self._batches.add(here, page, Receive(part, {}, forgotten=page.forgotten, forget=page.forget))
            if len(rows) < PAGE_ROWS:
                return

    # --- rows that wait, and doubts ----------------------------------------------------------------------------------

    def _retried(self, met: Handshake, due: Sequence[Parked]) -> set[int]:
        """Tries parked rows again; the partitions of those that arrived, whose claims have to be made anew."""
        changed = set()
        for part, keys in self._target.by_part([each.key for each in due]).items():
            here = place(self._target, part)
            feed = Feed(self._source, place(self._source, part), here, self._scope)
            for page in feed.present(keys):
                work = Receive(part, page.rows, history=self._scope.keeps_history, bases=met.source[part].bases)
                self._total.compared += page.compared
                self._batches.add(here, page, work)
                self._batches.flush()
                for each in due:
                    if each.key not in page.held:
                        continue
                    now = self._parking.rows[each.key, each.rev]
                    if each.rev not in page.held[each.key] or now.tries == each.tries:  # gone there, or arrived here
                        self._parking.release(each.key, each.rev)
                        changed.add(part)
        return changed

    def _introduced(self) -> list[Taken] | None:
        """A first contact of replicas that both have much: what differs is found and taken.

        From where the feeds go on, since then; nothing if it was stopped before its end.
        """
        from replication.reconcile import reconcile  # it stands on this module

        done = reconcile(self._source, self._target, first=True, stop=self._stop, lease=self._lease)
        self._total += done.repaired
        self._parking.look_again()  # what was refused there must not be claimed here
        return [Taken(feed, seq) for feed, seq in done.began] if done.finished else None

    def _reconcile(self) -> None:
        from replication.reconcile import reconcile

        def catch_up() -> Pulled:
            again = pull(self._source, self._target, lease=self._lease, reconcile="never", stop=self._stop)
            self._total += again
            return again

        done = reconcile(self._source, self._target, catch_up=catch_up, stop=self._stop, lease=self._lease)
        self._total += done.repaired
        self._total.differences += done.differences
        self._parking.look_again()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _acknowledge(self, moved: bool) -> None:
        """Tells the source how far the target is, if it may be written, and hears from it who else is."""
        with suppress(StoreError):
            exchange(self._source, self._target, FULL if self._scope.filter is None else FILTERED, moved=moved)

    def _moved(self, pulled: Pulled, works: Sequence[Receive], conflicted: list[str]) -> None:
        self._total += pulled
        for work in works:
            for text in (work.checkpoints or {}).values():
                self._reached[work.part] = json.loads(text)["seq"]
        of = sum(self._ahead.values())
        ahead = sum(max(0, seq - self._reached.get(part, 0)) for part, seq in self._ahead.items())
        if conflicted:
            self._conflicts(conflicted)
        self._on_batch(Progress(replace(self._total), ahead, of))


def _since(taken: Taken, stands: Standing) -> int | None:
    """The position from which the feed is to be read; None if what was taken is of no use for that."""
    return taken.seq if taken.feed == stands.feed and taken.seq <= stands.seq else None
