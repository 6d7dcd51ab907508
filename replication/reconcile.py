"""Whether two replicas hold the same, whatever their feeds say; and what the target lacks, brought to it.

A feed tells what has changed, and believes that what it told has arrived. It
cannot see a lost page, a row deleted by hand, a replica that was set back. So
once in a while, at the first contact and after any doubt, the heads themselves
are compared, batch by batch:

    heads         what each side has                    sums and rows of ranges, or all of some keys
    differences   which heads only one of them has      in few bytes, whoever is at the other end
    verdicts      what that means                       by what both sides know
    pull, repair  what the target lacks, brought to it

Repairs go the ordinary way, through `Shard.apply`, where the rules of
`vstore.document` decide once more: a wrong verdict costs a comparison.

Source: docs/consistency.md, "Reconciliation".
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from replication.differences import Batch, Walk, respond
from replication.handshake import place
from replication.heads import Heads, element_at, looks
from replication.lease import Lease
from replication.pull import take
from replication.pulled import Pulled
from replication.repair import Repair
from replication.verdicts import Look, Verdict, of_ours, of_theirs
from vstore.clock import Knowledge
from vstore.document import knows
from vstore.errors import ConfigurationError
from vstore.fingerprint import element_bytes
from vstore.handle import Handle, place_of
from vstore.plan import knowledge_in, set_checkpoint
from vstore.ranges import ABOVE, KeyRange
from vstore.shard import Shard
from vstore.sql import statements as sql
from vstore.sql.lineages import heads_of
from vstore.sql.statements import chunks

log = logging.getLogger("replication")

NOTE_SECONDS = 5.0
"""How often it is noted, while nothing is repaired, how far a reconciliation has got."""

BARE_ROWS = 10_000
"""How many heads without a version one reconciliation looks after."""

SHOWN_KEYS = 10


@dataclass(slots=True)
class Reconciled:
    """What a reconciliation found and did.

    Attributes:
        theirs, ours: heads that only the source had, or only the target, when they were first looked at.
        differences: documents that ought not to have differed, since the feed had been pulled. An alarm.
        keys: some of these.
        frames, frame_bytes: what was said, both ways together.
        repaired: what the target took and forgot.
        began: the source's feeds and positions when it began, or when the interrupted one began that it went on
            with: what was committed later may be missing.
        after: below this key everything is done.
        finished: False if it was stopped.
    """

    theirs: int = 0
    ours: int = 0
    differences: int = 0
    keys: list[str] = field(default_factory=list)
    frames: int = 0
    frame_bytes: int = 0
    repaired: Pulled = field(default_factory=Pulled)
    began: list[tuple[str, int]] = field(default_factory=list)
    after: str = ""
    finished: bool = False


def reconcile(
    source: Handle,
    target: Handle,
    *,
    first: bool = False,
    catch_up: Callable[[], object] | None = None,
    on_batch: Callable[[Reconciled], None] | None = None,
    stop: threading.Event | None = None,
    dry_run: bool = False,
    lease: Lease | None = None,
) -> Reconciled:
    """Compares the heads of a collection at two replicas, and repairs the target.

    It costs a scan of the heads of each, and O(d log n) bytes for d differences.
    Interrupted at any moment, it goes on from the key that it had noted in the
    target, unless the source's feeds are others by then.

    Args:
        first: of a first contact, where any difference is in order: they are
            taken at once, and are no alarm.
        catch_up: pulls the feed to its end. Called before differences are looked
            at again, so that what was on its way is not taken for lost. Without
            it what the target never heard of is taken and is no alarm.
        on_batch: told how far it is, after each exchange.
        stop: set, it ends after the batch under way.
        dry_run: find and count, change nothing.
        lease: of the link, kept by the caller; else one is taken for each repair.

    Returns:
        What was found. If there are differences that should not be, they are
        logged as a warning as well.

    Raises:
        ConfigurationError: the two have different numbers of partitions.
        InvalidToken: an answer cannot be read. What was repaired stays.
        LeaseHeld: there is something to repair, and somebody else replicates the same link.
        Unavailable: a database failed. What was repaired stays; go on later.
    """
    if source.partitions != target.partitions:
        raise ConfigurationError(
            f"{source.name!r} has {source.partitions} partitions and {target.name!r} {target.partitions}: they cannot "
            f"be compared. Nothing was changed. Export one and import it into a collection with as many partitions."
        )
    note = _Note(source, target)
    done = Reconciled(began=source.positions())
    if not dry_run:
        note.resume(done)
    judge = _Judge(source, target, done, lease, catch_up, first=first, dry_run=dry_run)
    peer = Heads(source)
    walk = Walk(Heads(target), lambda frame: respond(frame, peer), KeyRange(done.after))
    try:
        if not first and not done.after:
            judge.bare()
        for batch in walk.batches():
            done.frames, done.frame_bytes = walk.frames, walk.frame_bytes
            repaired = judge.batch(batch)
            done.after = batch.upto
            if not dry_run and batch.upto < ABOVE:
                note.write(done, at_once=repaired)
            if on_batch is not None:
                on_batch(done)
            if stop is not None and stop.is_set():
                break
        done.finished = done.after == ABOVE
        if done.finished and not dry_run:
            note.clear()
    finally:
        _tell(source, target, done, dry_run=dry_run)
    return done


class _Judge:
    """Judges differences batch by batch, and has the target repaired."""

    def __init__(
        self,
        source: Handle,
        target: Handle,
        done: Reconciled,
        lease: Lease | None,
        catch_up: Callable[[], object] | None,
        *,
        first: bool,
        dry_run: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._done = done
        self._lease = lease
        self._repair = Repair(source, target, lease)
        self._catch_up = catch_up
        self._first = first
        self._alarming = {Verdict.LOST, Verdict.LOST_THERE}
        if catch_up is not None and not first:  # else it may be on its way
            self._alarming.add(Verdict.MISSED)
        self._dry_run = dry_run
        self._knowledge: dict[int, Knowledge] = {}  # of the source, by partition, when it was first asked for

    def batch(self, batch: Batch) -> bool:
        """Looks at some differences once more, and repairs those that are left; whether anything was."""
        self._done.theirs += sum(map(len, batch.lacking.values()))
        self._done.ours += sum(map(len, batch.surplus.values()))
        if not batch:
            return False
        taken: dict[str, None] = {}
        forget: dict[str, list[str]] = {}
        doubtful = self._known_there(batch.surplus)
        if self._first:  # they have only just met, so what the source has and the target lacks is simply to be taken
            taken |= dict.fromkeys(batch.lacking)
        else:
            doubtful |= batch.lacking.keys()
            if self._catch_up is not None and doubtful:
                self._catch_up()
        # The source before the target: what it had when it was looked at, and the target has not afterwards, it lacks.
        theirs = looks(self._source, doubtful)
        ours = looks(self._target, doubtful)
        for key in sorted(doubtful):
            here = ours[key]
            verdicts = _verdicts(key, here, theirs[key], batch)
            found = set(verdicts.values())
            if Verdict.MISSED in found or Verdict.LOST in found:
                taken[key] = None
            if Verdict.FORGET in found:
                forget[key] = [rev for rev, verdict in verdicts.items() if verdict is Verdict.FORGET]
            if found & self._alarming:
                self._alarm(key)
            lost = [rev for rev, verdict in verdicts.items() if verdict is Verdict.LOST and rev in here.versions]
            if lost and not self._dry_run:
                self._done.repaired += self._repair.unearth(key, lost)
        if self._dry_run or not (taken or forget):
            return False
        self._done.repaired += self._repair.forget(forget, theirs)
        if taken:
            self._take(list(taken))
        return True

    def _known_there(self, surplus: Mapping[str, set[bytes]]) -> set[str]:
        """Of the keys that have more heads here, those of which the source knows one. It never heard of most."""
        found = set()
        for part, keys in self._target.by_part(surplus).items():
            if part not in self._knowledge:
                there = place(self._source, part)
                with there.shard.database.snapshot() as connection:
                    self._knowledge[part] = knowledge_in(connection, there.partition)
            here = place(self._target, part)
            heads = heads_of(here.shard.database.ask, here.definition.id, keys)
            found |= {key for key in keys if any(knows(self._knowledge[part], head) for head in heads[key].values())}
        return found

    def bare(self) -> None:
        """Heads of the target without a version, of which the source has the version: they are taken anew."""
        bare: dict[str, list[tuple[int, bytes]]] = {}
        for shard, definition, start, end in self._target.runs():
            bounds = place_of(definition.base + start, 0), place_of(definition.base + end, 0)
            keys = [key for [key] in shard.database.ask(sql.BARE_HEADS, (*bounds, BARE_ROWS))]
            for chunk in chunks(keys):
                for key, id_, *lanes in shard.database.ask(sql.BARE_ELEMENTS(len(chunk)), [definition.id, *chunk]):
                    bare.setdefault(key, []).append((id_, element_bytes(lanes)))
        if not bare:
            return
        theirs = looks(self._source, bare)
        taken = []
        for key, found in bare.items():
            self._alarm(key)
            there = {element_at(key, version) for version in theirs[key].heads.values()}
            ids = [id_ for id_, each in found if each in there]
            if not ids:
                log.error("%r of %s has lost its row, and the source has not got it.", key, self._target.name)
                continue
            taken.append(key)
            if not self._dry_run:
                self._repair.discard(key, ids)
        if taken and not self._dry_run:
            self._take(taken)

    def _take(self, keys: Sequence[str]) -> None:
        self._done.repaired += take(self._source, self._target, keys, lease=self._lease)

    def _alarm(self, key: str) -> None:
        self._done.differences += 1
        if len(self._done.keys) < SHOWN_KEYS:
            self._done.keys.append(key)


class _Note:
    """How far a reconciliation has got, in the target: it is written after the repairs that it stands for."""

    def __init__(self, source: Handle, target: Handle) -> None:
        self._shard: Shard = target.shards[0]
        self._name = f"reconcile:{source.uid}:{target.uid}"
        self._next = time.monotonic() + NOTE_SECONDS

    def resume(self, done: Reconciled) -> None:
        """Goes on from the note, if the source's feeds are still those of it."""
        rows = self._shard.database.ask(sql.CHECKPOINT, (self._name,))
        if not rows:
            return
        note = json.loads(rows[0][0])
        began = [(str(feed), int(seq)) for feed, seq in note["began"]]
        if len(began) == len(done.began) and all(
            feed == now and seq <= reached for (feed, seq), (now, reached) in zip(began, done.began, strict=True)
        ):
            done.began, done.after = began, note["after"]

    def write(self, done: Reconciled, *, at_once: bool) -> None:
        """Notes the key below which everything is done."""
        if at_once or time.monotonic() >= self._next:
            self._next = time.monotonic() + NOTE_SECONDS
            with self._shard.transaction():
                text = json.dumps({"after": done.after, "began": done.began})
                set_checkpoint(self._shard.database.read(), self._name, text)

    def clear(self) -> None:
        """The next one begins at the beginning."""
        if self._shard.database.ask(sql.CHECKPOINT, (self._name,)):
            with self._shard.transaction():
                self._shard.database.read().run(sql.DROP_CHECKPOINT, (self._name,))


def _verdicts(key: str, here: Look, there: Look, batch: Batch) -> dict[str, Verdict]:
    """The verdict on each head of a key, by rev: on those of the source, and on those that only the target had."""
    verdicts = {
        version.rev: of_theirs(version, here, there, seen=element_at(key, version) in batch.lacking.get(key, ()))
        for version in there.heads.values()
    }
    for version in here.heads.values():
        if element_at(key, version) in batch.surplus.get(key, ()):
            verdicts.setdefault(version.rev, of_ours(version, here, there))
    return verdicts


def _tell(source: Handle, target: Handle, done: Reconciled, *, dry_run: bool) -> None:
    if done.differences:
        log.warning(
            "%s: %d documents of %r differed from those of %s although its feed had been pulled (%s). %s Run "
            "`vstore check` on both.",
            target.shards[0].database.name,
            done.differences,
            target.name,
            source.shards[0].database.name,
            ", ".join(map(repr, done.keys)),
            "Nothing was changed." if dry_run else f"{done.repaired.rows} rows were taken.",
        )
