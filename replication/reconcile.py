"""Whether two replicas hold the same, whatever their feeds say; and what the target lacks, brought to it.

A feed tells what has changed, and believes that what it told has arrived. It
cannot see a lost page, a row deleted by hand, a replica that was set back. So
once in a while, at the first contact and after any doubt, the heads themselves
are compared (`replication.differences`), and whatever differs is judged by what
both sides know:

    the target never heard of it                             take it
    it knows it, and has nothing in its place                rows were lost there: take it
    it has something that replaces it, or has purged it      nothing to do here
    the source knows of a head here, and lacks it:
        purged there, and the target did not know            forget it
        not purged                                           rows were lost there: it takes them when it pulls

Repairs go the ordinary way, through `Shard.apply`, where the rules of
`vstore.document` decide once more: a wrong verdict costs a comparison.

Source: docs/consistency.md, "Reconciliation".
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

from replication.differences import Batch, Row, Sum, Walk, respond
from replication.frames import separator
from replication.handshake import link_of, place
from replication.lease import Lease
from replication.pull import take as present
from replication.pulled import Pulled
from vstore.batch import Arrived, Receive
from vstore.clock import Knowledge
from vstore.document import Version, ancestors_of, knows, united
from vstore.errors import ConfigurationError
from vstore.fingerprint import element, element_bytes
from vstore.handle import Handle, place_of
from vstore.partition import part_of
from vstore.plan import forgotten_of, knowledge_of, set_checkpoint
from vstore.ranges import ABOVE, KeyRange, next_key
from vstore.shard import Shard
from vstore.sql import statements as sql
from vstore.sql.rows import clock_text, dots_text, version_of
from vstore.sql.statements import chunks

log = logging.getLogger("replication")

RANGES = 16
"""How many ranges one statement sums at most."""

NOTE_SECONDS = 5.0
"""How often it is noted, while nothing is repaired, how far a reconciliation has got."""

BARE_ROWS = 10_000
"""How many heads without a version one reconciliation looks after."""

SHOWN_KEYS = 10

Take = Callable[[Handle, Handle, Sequence[str]], Pulled]
"""Brings the present heads of some keys from a source to a target."""


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


class Heads:
    """The elements of a collection's heads, over all its shards: a `replication.differences.Side`."""

    def __init__(self, handle: Handle) -> None:
        self._runs = [(shard.database, definition.id) for shard, definition, _first, _end in handle.runs()]

    def sums(self, ranges: Sequence[KeyRange]) -> list[Sum]:
        """The sum of each range. A scan of its heads: 1 M take 0.1 to 0.3 s."""
        found = [Sum()] * len(ranges)
        for start in range(0, len(ranges), RANGES):
            some = ranges[start : start + RANGES]
            size = 1 if len(some) == 1 else RANGES
            bounds = [bound for keys in some for bound in (keys.low, keys.high)] + ["", ""] * (size - len(some))
            for database, collection in self._runs:
                for n, *sums in database.ask(sql.SUMS(size), [collection, *bounds]):
                    if n < len(some):
                        found[start + n] = found[start + n].plus([int(each or 0) for each in sums])
        return found

    def rows(self, keys: KeyRange, limit: int) -> list[Row]:
        """The first elements of a range in the order of keys."""
        found = [
            (key, element_bytes(lanes))
            for database, collection in self._runs
            for key, *lanes in database.ask(sql.ELEMENTS, (collection, keys.low, keys.high, limit))
        ]
        if len(self._runs) > 1:
            found.sort()
        return found[:limit]

    def bounds(self, keys: KeyRange, count: int, pieces: int) -> list[str]:
        """Keys that cut a range into pieces, equal on the shard that has most of it: keys are spread by a hash."""
        database, collection = self._runs[0]
        if len(self._runs) > 1:
            counts = [int(d.ask(sql.COUNT_RANGE, (c, keys.low, keys.high))[0][0]) for d, c in self._runs]
            count = max(counts)
            database, collection = self._runs[counts.index(count)]
        step = max(1, count // pieces)
        found: list[str] = []
        low = keys.low
        while len(found) < pieces - 1:
            rows = database.ask(sql.NEIGHBOURS_AT, (collection, low, keys.high, step - 1))
            if len(rows) < 2:
                break
            bound = separator(rows[0][0], rows[1][0])
            if bound <= low:
                bound = next_key(rows[1][0])  # the siblings of one key fill a piece
            if bound >= keys.high:
                break
            found.append(bound)
            low = bound
        return found


def equal(source: Handle, target: Handle) -> bool:
    """Whether two replicas hold the same heads and know the same of their past.

    One statement for each shard, which reads its heads and nothing else: for
    1 M documents 0.1 to 0.3 s. Who writes meanwhile makes them differ.
    """
    [theirs], [ours] = Heads(source).sums([KeyRange()]), Heads(target).sums([KeyRange()])
    return theirs == ours


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
    take: Take | None = None,
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
        take: how rows are brought, as `replication.pull.take` does, which it is if it is not given.

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
    take = take or partial(present, lease=lease)
    repair = _Repair(source, target, done, take, lease, catch_up, first=first, dry_run=dry_run)
    peer = Heads(source)
    walk = Walk(Heads(target), lambda frame: respond(frame, peer), KeyRange(done.after))
    try:
        if not first and not done.after:
            repair.bare()
        for batch in walk.batches():
            done.frames, done.frame_bytes = walk.frames, walk.frame_bytes
            repaired = repair.batch(batch)
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


class Verdict(Enum):
    """What a difference is."""

    NOTHING = "one side is ahead, or both will agree on it"
    MISSED = "the target never heard of it"
    LOST = "the target knew it, and has nothing in its place"
    FORGET = "the source has purged it, and the target did not know"
    LOST_THERE = "the source knew it, and has nothing in its place"


@dataclass(frozen=True, slots=True)
class Look:
    """What one side has of one key, and knows in its partition, at one instant."""

    heads: Mapping[str, Version]
    versions: Mapping[str, Version]
    known: Knowledge
    forgotten: Mapping[str, int]

    def replaces(self, version: Version) -> bool:
        """Whether a head here has seen the version, or descends from it."""
        return any(
            head.clock.sees(version.dots) or version.rev in ancestors_of(head.rev, self.versions)
            for head in self.heads.values()
            if head.rev != version.rev
        )


def of_theirs(version: Version, here: Look, there: Look, *, seen: bool) -> Verdict:
    """The verdict on a head of the source.

    Args:
        seen: it was there before the feed was pulled for the last time.
    """
    mine = here.heads.get(version.rev)
    if mine is not None:
        grown = set(version.dots) <= set(mine.dots) and version.clock <= mine.clock
        return Verdict.NOTHING if grown or not seen else Verdict.MISSED
    if here.replaces(version):
        return Verdict.NOTHING
    stored = here.versions.get(version.rev)
    if not knows(here.known, version) and (stored is None or not knows(here.known, stored)):
        return Verdict.MISSED if seen else Verdict.NOTHING
    forgotten = any(dot.n <= here.forgotten.get(dot.actor, 0) for dot in version.dots)
    if forgotten and (version.deleted or not there.known.covers(here.forgotten)):
        return Verdict.NOTHING  # purged here; the other side has not heard of it, or has not got round to it
    return Verdict.LOST


def of_ours(version: Version, here: Look, there: Look) -> Verdict:
    """The verdict on a head of the target that was there before the source was looked at."""
    if version.rev in there.heads or there.replaces(version) or not knows(there.known, version):
        return Verdict.NOTHING
    if all(dot.n <= there.forgotten.get(dot.actor, 0) for dot in version.dots):
        if not here.known.covers(there.forgotten):
            return Verdict.FORGET
        if version.deleted:
            return Verdict.NOTHING
    return Verdict.LOST_THERE


class _Repair:
    """Judges differences batch by batch, and repairs the target."""

    def __init__(
        self,
        source: Handle,
        target: Handle,
        done: Reconciled,
        take: Take,
        lease: Lease | None,
        catch_up: Callable[[], object] | None,
        *,
        first: bool,
        dry_run: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._done = done
        self._take = take
        self._lease = lease
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
            here, there = ours[key], theirs[key]
            verdicts = {
                version.rev: of_theirs(version, here, there, seen=_element(key, version) in batch.lacking.get(key, ()))
                for version in there.heads.values()
            }
            for version in here.heads.values():
                if _element(key, version) in batch.surplus.get(key, ()):
                    verdicts.setdefault(version.rev, of_ours(version, here, there))
            found = set(verdicts.values())
            if Verdict.MISSED in found or Verdict.LOST in found:
                taken[key] = None
            if Verdict.FORGET in found:
                forget[key] = [rev for rev, verdict in verdicts.items() if verdict is Verdict.FORGET]
            if found & self._alarming:
                self._alarm(key)
            lost = [rev for rev, verdict in verdicts.items() if verdict is Verdict.LOST and rev in here.versions]
            if lost and not self._dry_run:
                self._unearth(key, lost)
        if self._dry_run or not (taken or forget):
            return False
        self._forget(forget, theirs)
        if taken:
            self._done.repaired += self._take(self._source, self._target, list(taken))
        return True

    def _known_there(self, surplus: Mapping[str, set[bytes]]) -> set[str]:
        """Of the keys that have more heads here, those of which the source knows one. It never heard of most."""
        found = set()
        for part, keys in _by_part(self._target, surplus).items():
            known = self._knowledge.get(part)
            if known is None:
                there = place(self._source, part)
                with there.shard.database.snapshot() as connection:
                    [row] = connection.rows(sql.PARTITION, (there.partition,))
                    known = self._knowledge[part] = knowledge_of(connection, there.partition, row[3], row[4])
            here = place(self._target, part)
            for chunk in chunks(keys):
                for key, _state, *lineage in here.shard.database.ask(
                    sql.HEADS(len(chunk)), [here.definition.id, *chunk]
                ):
                    if knows(known, version_of(lineage)):
                        found.add(key)
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
            there = {_element(key, version) for version in theirs[key].heads.values()}
            ids = [id_ for id_, each in found if each in there]
            if not ids:
                log.error("%r of %s has lost its row, and the source has not got it.", key, self._target.name)
                continue
            taken.append(key)
            if not self._dry_run:
                with self._locked(key):
                    self._drop(key, ids)
        if taken and not self._dry_run:
            self._done.repaired += self._take(self._source, self._target, taken)

    def _alarm(self, key: str) -> None:
        self._done.differences += 1
        if len(self._done.keys) < SHOWN_KEYS:
            self._done.keys.append(key)

    def _forget(self, forget: Mapping[str, list[str]], theirs: Mapping[str, Look]) -> None:
        """Lets the target forget heads that the source has purged."""
        works: dict[int, list[Receive]] = defaultdict(list)
        for part, keys in _by_part(self._target, forget).items():
            forgotten = theirs[keys[0]].forgotten
            work = Receive(part, {}, forgotten=forgotten, forget={key: forget[key] for key in keys})
            works[self._target.owners[part]].append(work)
        for owner, some in works.items():
            shard = self._target.shards[owner]
            with self._fence(shard) as fence:
                fenced = [replace(work, fence=fence) for work in some]
                for arrived in shard.apply(self._target.definitions[owner], fenced):
                    self._done.repaired.forgotten += arrived.forgotten

    def _unearth(self, key: str, revs: Sequence[str]) -> None:
        """Makes heads again of rows that ought to be and are not, as what they are at the source.

        What is stored here may have names that the source has not heard of yet. So it goes, since a row that stays is
        taken for superseded, and in the same transaction it comes anew with all its names, united with the source's.
        """
        there = self._source.place(key)
        rows = there[0].database.ask(sql.HEADS_WITH_BODY(1), (there[1].id, key))
        theirs = [version_of(lineage, body) for _key, body, *lineage in rows]
        with self._locked(key) as take_in:
            here = looks(self._target, [key])[key]
            found: dict[int, Version] = {}
            for version in theirs:
                stored = here.versions.get(version.rev)
                if version.rev not in revs or version.rev in here.heads or stored is None:
                    continue
                # Its body is the source's, as its own may be pruned, or lost with what is lost here.
                whole = united(stored.as_stub, version)
                purged = version.deleted and any(dot.n <= here.forgotten.get(dot.actor, 0) for dot in whole.dots)
                if not (version.stub or purged or here.replaces(whole)):
                    found[stored.id] = whole
            self._drop(key, list(found))
            arrived = take_in(list(found.values()))
        self._done.repaired += Pulled(
            rows=len(found),
            new=arrived.inserted,
            unexplained=arrived.unexplained,
            collided=arrived.collided,
            body_bytes=sum(len(version.body or b"") for version in found.values()),
        )

    @contextmanager
    def _locked(self, key: str) -> Iterator[Callable[[Sequence[Version]], Arrived]]:
        """A transaction of the target with the partition of a key locked; it is given what takes in rows of the key.

        Only while the lease of the link is ours: else somebody else repairs the same, and nothing is written.
        """
        shard, definition, part = self._target.place(key)
        with self._fence(shard) as fence, shard.transaction():

            def take_in(rows: Sequence[Version]) -> Arrived:
                work = Receive(part, {key: rows} if rows else {}, fence=fence)
                [arrived] = shard.apply(definition, [work])
                assert isinstance(arrived, Arrived)
                return arrived

            take_in([])
            yield take_in

    @contextmanager
    def _fence(self, shard: Shard) -> Iterator[tuple[str, int]]:
        """The lease that a transaction has to have, and gives back unless it is the caller's."""
        lease = self._lease or Lease(link_of(self._source, self._target))
        try:
            yield lease.fence(shard)
        finally:
            if self._lease is None:
                lease.release()

    def _drop(self, key: str, ids: Sequence[int]) -> None:
        """Removes rows by place. An event says that they have moved, so that no place of the feed is empty."""
        shard, definition, _part = self._target.place(key)
        connection = shard.database.read()
        for chunk in chunks(ids):
            connection.run(sql.DROP_HEADS_AT(len(chunk)), chunk)
            connection.run(sql.DROP_VERSIONS_AT(len(chunk)), chunk)
        empty = [id_ for id_ in ids if not connection.rows(sql.EVENTS_BY_ID, (id_ - 1, id_, 1))]
        connection.run_many(sql.ADD_EVENT, [(id_, definition.id, key, "moved") for id_ in empty])


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


def looks(handle: Handle, keys: Iterable[str]) -> dict[str, Look]:
    """What a replica has of some keys. Keys of one shard are seen at one instant."""
    found: dict[str, Look] = {}
    by_owner: dict[int, dict[int, list[str]]] = defaultdict(dict)
    for part, some in _by_part(handle, keys).items():
        by_owner[handle.owners[part]][part] = some
    for owner, parts in by_owner.items():
        definition = handle.definitions[owner]
        with handle.shards[owner].database.snapshot() as connection:
            wanted = [key for some in parts.values() for key in some]
            heads: dict[str, dict[str, Version]] = defaultdict(dict)
            versions: dict[str, dict[str, Version]] = defaultdict(dict)
            for chunk in chunks(wanted):
                for key, _state, *lineage in connection.rows(sql.HEADS(len(chunk)), [definition.id, *chunk]):
                    version = version_of(lineage)
                    heads[key][version.rev] = version
                for key, *lineage in connection.rows(sql.VERSIONS(len(chunk)), [definition.id, *chunk]):
                    version = version_of(lineage)
                    versions[key][version.rev] = version
            for part, some in parts.items():
                [row] = connection.rows(sql.PARTITION, (definition.base + part,))
                known = knowledge_of(connection, definition.base + part, row[3], row[4])
                forgotten = forgotten_of(connection, definition.base + part)
                found |= {key: Look(heads.get(key, {}), versions.get(key, {}), known, forgotten) for key in some}
    return found


def _by_part(handle: Handle, keys: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for key in keys:
        found.setdefault(part_of(key, handle.partitions), []).append(key)
    return found


def _element(key: str, version: Version) -> bytes:
    return element_bytes(element(key, version.rev, dots_text(version.dots), clock_text(version.clock), version.kind))


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
