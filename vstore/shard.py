"""One database of a store: the only place that mints a dot, and the only one that accepts somebody else's.

Every change is one transaction of the same shape: lock the counter rows of the
partitions it touches, read the heads of its keys, let the rules of
`vstore.document` decide, write the difference. The lock comes first, so commits
of a partition have an order, and readers of a feed can trust it:

    lock partition ─► heads ─► successor / receive ─► versions, heads, counter ─► commit

Threads that write at the same time share a transaction: all line up, whoever
gets the writer's place commits everything that is waiting, and the rest find
their work done. A request stays in the line until it is done, so whatever stops
the thread that works for others, the next one goes on.

Source of the order (lock, then read): docs/consistency.md, "The feed".
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from vstore import witness
from vstore.batch import ABSENT, Arrived, Match, Purge, Put, Receive, Written
from vstore.clock import LONG, MAX_ENTRIES
from vstore.document import ERASE, Context, Entry, Version, context_of, erase, successor
from vstore.errors import ClockTooLong, PreconditionFailed, StaleMap, StoreError, Unavailable, Unwitnessed
from vstore.hlc import HybridClock
from vstore.identity import Proof
from vstore.plan import Held, Partition, Plan, write_knowledge
from vstore.receiving import arrive, exposes, purge, refuse_moved
from vstore.sql import statements as sql
from vstore.sql.database import Connection, Database
from vstore.sql.rows import version_of
from vstore.sql.statements import chunks

log = logging.getLogger("vstore")

ATTEMPTS = 8
"""How often a transaction that lost a lock is repeated before the caller hears of it."""

GROUP_ROWS = 5_000
"""How many waiting writes share one transaction at most."""

BUSY_SECONDS = 30.0
"""How long a transaction that loses locks is repeated at most: one lock may take as long as this to be lost."""

ASKING_SECONDS = 10.0
"""How long the database is asked what became of a commit whose answer was lost."""

_UNSEEN = Context("")

Work = Put | Receive | Purge


@dataclass(frozen=True, slots=True)
class Definition:
    """A collection as one shard has it. `base + part` is the id of a partition's counter row."""

    id: int
    name: str
    partitions: int
    options: Mapping[str, Any]
    base: int


@dataclass(slots=True, eq=False)
class Request:
    """Work of one caller, all or nothing, and its outcome."""

    definition: Definition
    works: Sequence[Work]
    checkpoints: Mapping[str, str]
    outcomes: bool
    results: list[Any] = field(default_factory=list)
    revs: list[str] = field(default_factory=list)  # for each work done, the rev it made that a repeat would not find
    error: BaseException | None = None
    done: bool = False


class Shard:
    """A database, and the rules by which it changes. Any number of threads may use one."""

    def __init__(
        self,
        database: Database,
        shard_id: str,
        proof: Proof,
        *,
        distrusted: bool = False,
        identity: str = "",
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        """A shard over an opened database.

        Args:
            distrusted: the database is not what it was when its actors were
                last used (a restored dump, another server): all get new ones.
            identity: what names it apart from its tables, to be noted with them.
        """
        self.database = database
        self.id = shard_id
        self.proof = proof
        self.clock = HybridClock()
        self.on_commit: Callable[[], None] = lambda: None
        self._distrusted = distrusted
        self._identity = identity
        self._now_us = now_us
        self._new_id = new_id
        self._queue: list[Request] = []
        self._queue_lock = threading.Lock()
        self._writer = threading.RLock()
        self._doubts: dict[tuple[int, str, bytes | None], str] = {}
        self._long: dict[int, int] = {}  # by collection, how many entries of a clock are said aloud next
        self._demand: int | None = None  # which witness has to come before an old actor mints, if one is required
        self._witnessed: set[int] = set()  # collections that it has come for
        self._young: set[str] = set()  # actors made since it was required: nobody can know more of them than we do
        self._open: Plan | None = None  # of the transaction() that holds the writer's place
        self._committing: tuple[list[Request], Plan] | None = None  # until it is known what became of it

    def apply(
        self,
        definition: Definition,
        works: Sequence[Work],
        checkpoints: Mapping[str, str] | None = None,
        *,
        outcomes: bool = True,
    ) -> list[Any]:
        """Does the works in order in one transaction; durable when it returns.

        Args:
            checkpoints: JSON texts by name, written in the same transaction, so
                they are never ahead of the works nor behind them.
            outcomes: False for a caller who does not look at them. Keeping those
                of a batch alive is a fifth of its time (see `_perform`).

        Returns:
            `Written` for each Put, `Arrived` for each Receive, `Purged` for each
            Purge; or nothing.

        Raises:
            PreconditionFailed: `match` of the one Put does not hold. Nothing was written.
            ClockTooLong: a clock has more entries than are allowed. Nothing was written.
            StaleMap: a partition is not active here. Nothing was written.
            Unwitnessed: a witness is required for a Put and has not come. Nothing was written.
            Unavailable: the database failed; `outcome_unknown` says whether
                something may have been written after all.
        """
        request = Request(definition, works, checkpoints or {}, outcomes)
        if self.database.in_transaction:  # of this thread: it has the writer's place already
            with self.database.transaction() as connection:
                self._join(connection, request)
            return _outcome(request)
        with self._queue_lock:
            self._queue.append(request)
        try:
            with self._writer:
                while not request.done:
                    if not self._settle(Unavailable("the thread that wrote for this one was interrupted at COMMIT.")):
                        self._commit(self._next_group())
        finally:
            request.done = True  # after an interrupt too: nobody shall do it later
        return _outcome(request)

    def transaction(self) -> _Transaction:
        """All that this thread writes to the shard inside the block, in one transaction."""
        return _Transaction(self)

    def recognise(self, identity: str) -> None:
        """Says what the server calls itself now: if it is another than before, a dump was restored under us."""
        if identity != self._identity:
            self._identity = identity
            self._distrusted = True

    def require_witness(self) -> None:
        """From now on no actor mints that this database has now, until a handshake has asked a peer about it."""
        with self.transaction():
            self._demand = witness.demand(self.database.read(), secrets.token_hex(8))

    def introduce(self, partition: int, actor: str) -> None:
        """Says that a partition has a new actor, made just now in the open transaction."""
        self.proof.note(partition, actor, 0)
        self._young.add(actor)

    def renew_actors(self, definition: Definition, parts: Iterable[int]) -> None:
        """Gives partitions new actors and feeds: somebody knows more of the present ones than they know themselves."""
        with self.transaction():
            connection, plan = self.database.read(), self._open
            assert plan is not None  # of this transaction
            renewed = Plan()
            self._lock(connection, {definition.base + part for part in parts}, renewed)
            for id_, partition in renewed.partitions.items():
                if id_ in renewed.proven:  # else it has got a new one just now
                    self._reincarnate(connection, partition)
            renewed.write_counters(connection)
            plan.join(renewed)

    def after_fork(self) -> None:
        """In a forked child: locks that a thread of the parent may have held are made anew."""
        self._queue = []
        self._queue_lock = threading.Lock()
        self._writer = threading.RLock()
        self._open = self._committing = None
        self.clock = HybridClock()
        self.proof.after_fork()

    # --- group commit ------------------------------------------------------------------------------------------------

    def _next_group(self) -> list[Request]:
        """Those who wait longest, as many as go into one transaction."""
        with self._queue_lock:
            self._queue = [request for request in self._queue if not request.done]
            rows = 0
            size = 0
            for request in self._queue:
                alone = bool(request.works) and not isinstance(request.works[0], Put)
                if size and (alone or rows + len(request.works) > GROUP_ROWS):
                    break  # a receive that is refused must not take others down with it
                size += 1
                rows += len(request.works)
                if alone:
                    break
            return self._queue[:size]

    def _commit(self, group: list[Request]) -> None:
        """Commits a group. Every request in it is done afterwards, unless an interrupt gets through."""
        began = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            attempted = _Attempt(self)
            try:
                with attempted as (connection, plan):
                    self._perform(connection, group, plan)
                    self._committing = group, plan
            except Unavailable as error:
                if error.outcome_unknown:
                    if self._settle(error):
                        return
                else:
                    self._retract(attempted.plan)
                    busy = self.database.is_busy(error)
                    if not busy or attempt == ATTEMPTS or time.monotonic() - began > BUSY_SECONDS:
                        self._fail(group, error, together=busy or (attempted.lost and not self._answers()))
                        return
                time.sleep(random.uniform(0, 0.002 * 2**attempt))  # jitter, not a secret
            except Exception as error:
                self._retract(attempted.plan)
                self._fail(group, error, together=False)
                return
            else:
                self._finish(group)
                return
        self._fail(
            group,
            Unavailable(f"{self.database.name} lost the answer to each of {ATTEMPTS} commits. Nothing was written."),
            together=True,
        )

    def _settle(self, error: Unavailable) -> bool:
        """Finds out what became of a commit whose answer is missing. False if it was not written: do it again."""
        if self._committing is None:
            return False
        group, plan = self._committing
        written = self._outcome_of(plan)
        if written:
            self._finish(group)
        elif written is None:
            self._doubts.update(_doubtful(group))
            self._committing = None
            self._end(group, Unavailable(str(error), outcome_unknown=True))
        else:
            self._retract(plan)
        return written is not False

    def _finish(self, group: Iterable[Request]) -> None:
        for request in group:
            request.done = True
        wiped = self._committing is not None and self._committing[1].wiped
        self._committing = None
        if wiped:
            self.database.wipe()
        self.on_commit()

    def _fail(self, group: list[Request], error: Exception, *, together: bool) -> None:
        """Ends a group that was rolled back; what went wrong with one of them may be no matter to the others."""
        if together or len(group) == 1:
            self._end(group, error)
            return
        for request in group:
            if not request.done:
                self._commit([request])

    def _end(self, group: Iterable[Request], error: Exception) -> None:
        for request in group:
            request.error = error
            request.done = True

    def _answers(self) -> bool:
        """Whether the database is there: then a lost connection was the fault of one request, say a too large row."""
        try:
            self.database.ask(sql.META)
        except StoreError:
            return False
        return True

    def _retract(self, plan: Plan) -> None:
        """Tells the proof that a commit it was told of did not happen."""
        self._committing = None
        for id_, (actor, seq) in plan.proven.items():
            self.proof.note(id_, actor, seq)

    def _outcome_of(self, plan: Plan) -> bool | None:
        """Whether a commit whose answer was lost took place; None while the database cannot be asked."""
        if not plan.places and not plan.checkpoints:
            return False  # only lineage and knowledge: doing it again changes nothing
        partition = next(iter(plan.partitions))
        deadline = time.monotonic() + ASKING_SECONDS
        pause = 0.05
        while True:
            try:
                with self.database.transaction() as connection:
                    # The lost transaction held this lock. Who gets it knows that the other has ended, one way or the
                    # other; without it, its COMMIT might still be on its way.
                    connection.rows(sql.LOCK_PARTITIONS(1), (partition,))
                    return plan.is_in(connection)
            except Unavailable:
                if time.monotonic() > deadline:
                    return None
                time.sleep(pause)
                pause = min(1.0, 2 * pause)

    # --- one transaction ---------------------------------------------------------------------------------------------

    def _join(self, connection: Connection, request: Request) -> None:
        """Does a request as a part of the open transaction of this thread."""
        plan = Plan()
        try:
            self._perform(connection, [request], plan)
        except (StaleMap, Unwitnessed):
            raise  # before anything was written
        except BaseException:
            connection.failed = True  # it may be half done, so the rest must not be committed either
            raise
        if self._open is not None:
            self._open.join(plan)

    def _perform(self, connection: Connection, group: Sequence[Request], plan: Plan) -> None:
        """Everything between BEGIN and COMMIT."""
        whole = self._open if self._open is not None else plan
        if self._distrusted and not whole.renewed:
            self._reincarnate_all(connection)
            whole.renewed = True
        self._lock(
            connection, {request.definition.base + work.part for request in group for work in request.works}, plan
        )
        if self._demand is not None:
            for request in group:
                self._await_witness(connection, request, plan, self._demand)
        for request in group:
            request.results = []
            request.revs = []
            request.error = None
        received = [(request, work) for request in group for work in request.works if isinstance(work, Receive)]
        if received:
            refuse_moved(connection, [work for _request, work in received], self.database.name)
            plan.learn(connection, [request.definition.base + work.part for request, work in received])
        # Read, decided and written some at a time, so that few objects live long: with the 1,000 of a batch at once, a
        # third of the time of put_many on SQLite went into full runs of the garbage collector (32 µs a document; in
        # rounds of 50, without outcomes, 20).
        works = ((request, work) for request in group for work in request.works)
        while round_ := list(islice(works, self.database.dialect.round_rows)):
            self._hold(connection, round_, plan)
            for request, work in round_:
                if request.error is None:
                    self._do(connection, request, work, plan)
            plan.write(connection)
        for request in group:
            if request.error is None:
                plan.checkpoints.update(request.checkpoints)
        plan.write_counters(connection)

    def _do(self, connection: Connection, request: Request, work: Work, plan: Plan) -> None:
        definition = request.definition
        partition = plan.partitions[definition.base + work.part]
        if isinstance(work, Receive):
            request.results.append(self._receive(connection, definition, partition, work, plan))
            request.revs.append("")
            return
        if isinstance(work, Purge):
            request.results.append(purge(connection, partition, plan.held[definition.id], work))
            request.revs.append("")
            return
        try:
            version, new = self._put(connection, definition, partition, work, plan)
        except PreconditionFailed as error:
            request.error = error
            return
        request.revs.append(version.rev if new and (work.context is None or not version.parents) else "")
        if request.outcomes:
            heads = plan.held[definition.id][work.key].entry.heads
            request.results.append(Written(version, new, list(heads.values())))

    def _lock(self, connection: Connection, ids: set[int], plan: Plan) -> None:
        """Locks the counter rows, and gives new actors to those partitions whose actor is not proven."""
        found = plan.partitions
        for chunk in chunks(sorted(ids)):
            for row in connection.rows(sql.LOCK_PARTITIONS(len(chunk)), chunk):
                id_, _collection, part, actor, ctr, seq, _epoch, status, feed = row
                found[id_] = Partition(id_, part, actor, ctr, seq, status, feed)
        for id_ in ids:
            partition = found.get(id_)
            if partition is None or partition.status != "active":
                raise StaleMap(
                    f"partition {id_} in {self.database.name} is {partition.status if partition else 'gone'}, not "
                    f"active. Nothing was written. Open the store again to read its partition map, and retry."
                )
        for id_ in ids:
            partition = found[id_]
            ours = self._open.partitions.get(id_) if self._open else None  # not committed yet, so not noted yet
            if ours is not None and (ours.actor, ours.seq) == (partition.actor, partition.seq):
                partition.changed = ours.changed
            elif self.proof.confirms(id_, partition.actor, partition.seq):
                plan.proven[id_] = partition.actor, partition.seq
            else:
                self._reincarnate(connection, partition)

    def _hold(self, connection: Connection, works: Iterable[tuple[Request, Work]], plan: Plan) -> None:
        """Reads the heads of every key of the works, and all versions of keys that receive."""
        plan.held = {}
        for request, work in works:
            partition = request.definition.base + work.part
            found = plan.held.setdefault(request.definition.id, {})
            if isinstance(work, Put):
                keys: Iterable[str] = [work.key]
            elif isinstance(work, Purge):
                keys = work.keys
            else:
                keys = [*work.rows, *work.forget]
            whole = not isinstance(work, Put) or work.content.kind == ERASE
            for key in keys:
                held = found.get(key)
                if held is None:
                    held = found[key] = Held(Entry(), partition)
                held.whole = held.whole or whole
        for collection, found in plan.held.items():
            # A partition that has never had a commit holds nothing.
            stored = [key for key, held in found.items() if plan.partitions[held.partition].seq]
            self._hold_whole(connection, collection, [key for key in stored if found[key].whole], found)
            # What has no version has no head: most of what a new replica receives.
            stored = [key for key in stored if not found[key].whole or found[key].entry.versions]
            for chunk in chunks(stored):
                for key, state, *lineage in connection.rows(sql.HEADS(len(chunk)), [collection, *chunk]):
                    held = found[key]
                    version = held.entry.versions.setdefault(lineage[1], version_of(lineage))
                    held.entry.heads[version.rev] = version
                    held.stored[version.rev] = (version.id, state)

    def _hold_whole(self, connection: Connection, collection: int, keys: list[str], held: dict[str, Held]) -> None:
        for key in keys:
            held[key].whole = True
        for chunk in chunks(keys):  # keys without heads too: they may have stubs
            for key, *lineage in connection.rows(sql.VERSIONS(len(chunk)), [collection, *chunk]):
                version = version_of(lineage)
                held[key].entry.versions.setdefault(version.rev, version)

    def _put(
        self, connection: Connection, definition: Definition, partition: Partition, put: Put, plan: Plan
    ) -> tuple[Version, bool]:
        """The version that a put made or found, and whether it is new."""
        held = plan.held[definition.id][put.key]
        entry = held.entry
        if put.match is not None:
            _require(put.match, put.key, entry)
        context = put.context
        if context is None:
            context = context_of(put.key, entry.heads.values()) if entry.heads else _UNSEEN
        elif not held.whole and context.revs and set(context.revs) != entry.heads.keys():
            # Whoever did not read just these heads may be repeating an edit that was made and replaced already.
            self._hold_whole(connection, definition.id, [put.key], plan.held[definition.id])
        if self._doubts and (put.context is None or not context.revs):
            known = self._doubted(connection, definition, put, entry)
            if known is not None:
                return known, False
        stamp = put.stamp
        if stamp is None:
            stamp = self.clock.tick(self._now_us(), max([head.stamp for head in entry.heads.values()], default=0))
        version, new = successor(
            entry,
            context,
            put.content,
            actor=partition.actor,
            n=partition.ctr + 1,
            stamp=stamp,
            knowledge=lambda: partition.knowledge(connection),
            id=partition.next_place,
        )
        if new:
            if version.entries > LONG:
                self._weigh(definition, put.key, version)
            partition.ctr += 1
            partition.place()
            held.inserted.append(version)
            if partition.known is not None:
                partition.known.add(partition.actor, partition.ctr)
            if version.kind == ERASE:
                self._erase(held)
        return version, new

    def _weigh(self, definition: Definition, key: str, version: Version) -> None:
        """Refuses a version whose clock is too long, and says aloud that one is long: once for each doubling."""
        if version.entries > MAX_ENTRIES and not version.deleted:
            raise ClockTooLong(
                f"{version.rev} of {key!r} refused: its clock and dots have {version.entries:,} entries, and "
                f"{MAX_ENTRIES:,} are the most. Nothing was written. As many actors have written the document; where "
                f'no proofs are kept there is a new one at each start (docs/consistency.md, "Actors"). Delete the '
                f"document, which is never refused, purge it once all replicas know that, and put it again; or put it "
                f"under another key."
            )
        if version.entries > self._long.get(definition.id, LONG):
            self._long[definition.id] = 2 * version.entries
            log.warning(
                "%s: the clock of %r in %r has %d entries, one for each actor that has written it, and each of its "
                "versions carries them. At %d writes are refused. Actors should last: "
                'see docs/consistency.md, "Actors".',
                self.database.name,
                key,
                definition.name,
                version.entries,
                MAX_ENTRIES,
            )

    def _erase(self, held: Held) -> None:
        """Takes the bodies that a tombstone of an erasure takes with it."""
        bared = erase(held.entry)
        fresh = {version.rev: place for place, version in enumerate(held.inserted)}
        for version in bared:
            if version.rev in fresh:
                held.inserted[fresh[version.rev]] = version
            else:
                held.bared.append(version.id)
        held.events.append("erase")

    def _receive(
        self, connection: Connection, definition: Definition, partition: Partition, work: Receive, plan: Plan
    ) -> Arrived:
        if exposes(work, partition):
            self._reincarnate(connection, partition)  # before anything else is minted
        arrived, is_doubtful = arrive(
            connection,
            partition,
            plan.held[definition.id],
            work,
            observe=lambda stamp: self.clock.observe(stamp, self._now_us()),
            weigh=lambda key, version: self._weigh(definition, key, version),
            database=self.database.name,
        )
        plan.checkpoints.update(work.checkpoints or {})
        if is_doubtful:
            self._reincarnate(connection, partition)  # it may have used numbers twice: its feed is read anew
        return arrived

    def _await_witness(self, connection: Connection, request: Request, plan: Plan, demand: int) -> None:
        """Refuses to mint by an actor that was here at opening, until a peer has been asked about it."""
        definition = request.definition
        if definition.id in self._witnessed:
            return
        actors = {plan.partitions[definition.base + work.part].actor for work in request.works if isinstance(work, Put)}
        if actors <= self._young:
            return
        if witness.answered(connection, definition.id) < demand:
            raise Unwitnessed(
                f"a write to {definition.name!r} in {self.database.name} refused: the store was opened with "
                f"require_witness, and no peer has been asked since whether it was set back. Nothing was written. Sync "
                f"the collection with a replica, or wait until its replicator has met one, and repeat the call."
            )
        self._witnessed.add(definition.id)

    # --- knowledge and actors ----------------------------------------------------------------------------------------

    def _reincarnate(self, connection: Connection, partition: Partition) -> None:
        """Gives the partition a new actor and feed, and remembers all that the old actor did."""
        log.info("partition %d of %s gets a new actor after %s", partition.id, self.database.name, partition.actor)
        write_knowledge(connection, [partition])  # what an earlier work of the transaction has learnt
        if partition.ctr:
            connection.run(sql.RETIRE_ACTOR, (partition.actor, partition.id, partition.ctr, self._now_us()))
            connection.run(sql.ADD_RUN, (partition.id, partition.actor, 1, partition.ctr))
        partition.actor, partition.feed, partition.ctr = self._new_id(), self._new_id(), 0
        self._young.add(partition.actor)
        partition.known = None
        partition.changed = True
        connection.run(sql.REINCARNATE, (partition.actor, 0, partition.feed, partition.id))

    def _reincarnate_all(self, connection: Connection) -> None:
        """After the database was restored or moved: every actor of it has to be a new one."""
        for row in connection.rows(sql.LOCK_ALL_PARTITIONS):
            id_, _collection, part, actor, ctr, seq, _epoch, status, feed = row
            self._reincarnate(connection, Partition(id_, part, actor, ctr, seq, status, feed))
        connection.run(sql.CHANGE_META, (self._identity, "identity"))

    def _doubted(self, connection: Connection, definition: Definition, put: Put, entry: Entry) -> Version | None:
        """The version of an earlier call for the same put whose answer was lost, if it was written."""
        rev = self._doubts.pop((definition.id, put.key, put.content.identity), None)
        if rev is None or (put.context is None and rev not in entry.heads):
            return None  # replaced since: to put the value again is to want it back
        rows = connection.rows(sql.VERSION, (definition.id, put.key, rev))  # a root is salted by its dot: nobody else's
        return version_of(rows[0][1:], rows[0][0]) if rows else None


class _Attempt:
    """A write transaction that notes its proof just before it commits."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.plan = Plan()
        self.connection: Connection | None = None
        self._transaction = shard.database.transaction(lambda: self.plan.note(shard.proof))

    def __enter__(self) -> tuple[Connection, Plan]:
        self.connection = self._transaction.__enter__()
        return self.connection, self.plan

    @property
    def lost(self) -> bool:
        return self.connection is None or self.connection.broken

    def __exit__(self, *error: Any) -> bool | None:
        ended = self._transaction.__exit__(*error)
        if error[0] is None and self.plan.renewed:
            self._shard._distrusted = False  # a new identity was written with the new actors
        return ended


class _Transaction:
    """The writer's place and an open transaction, for one thread; inside another of the same thread, a part of it."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._attempt = _Attempt(shard)
        self._writer = shard._writer
        self._joined = False

    def __enter__(self) -> None:
        self._joined = self._shard.database.in_transaction
        if self._joined:
            return
        self._writer.acquire()
        try:
            _connection, self._shard._open = self._attempt.__enter__()
        except BaseException:
            self._writer.release()
            raise

    def __exit__(self, *error: Any) -> None:
        if self._joined:
            return
        shard, plan = self._shard, self._attempt.plan
        try:
            try:
                self._attempt.__exit__(*error)
            except Unavailable as failure:
                if not failure.outcome_unknown or not plan.places:
                    raise
                written = shard._outcome_of(plan)
                if written is None:
                    raise
                if not written:
                    raise Unavailable(
                        f"{shard.database.name}: the connection was lost at COMMIT, and the transaction was rolled "
                        f"back. Nothing was written. Repeat the whole transaction."
                    ) from failure
        except Unavailable as failure:
            if not failure.outcome_unknown:
                shard._retract(plan)
            raise
        finally:
            shard._open = None
            self._writer.release()
        if error[0] is None:
            if plan.wiped:
                shard.database.wipe()
            shard.on_commit()


def _doubtful(group: Iterable[Request]) -> Iterator[tuple[tuple[int, str, bytes | None], str]]:
    """The new versions of a group that a repeated call would make again: whose they are, and their revs.

    An edit with a context has the same rev each time, and needs no memory.
    """
    for request in group:
        for work, rev in zip(request.works, request.revs, strict=False):
            if isinstance(work, Put) and rev:
                yield (request.definition.id, work.key, work.content.identity), rev


def _outcome(request: Request) -> list[Any]:
    if request.error is not None:
        raise request.error
    return request.results


def _require(match: Match, key: str, entry: Entry) -> None:
    """Accepts the state of a key for a conditional write, or raises PreconditionFailed."""
    live = [head.rev for head in entry.heads.values() if not head.deleted]
    if match is ABSENT:
        if not live:
            return
        wanted = "no live document"
    elif isinstance(match, Context):
        unseen = [
            head.rev for head in entry.heads.values() if head.rev not in match.revs and not match.seen.sees(head.dots)
        ]
        if not unseen:
            return
        wanted = f"nothing newer than {', '.join(match.revs) or 'nothing'}"
    else:
        if live == [match] or (not live and match in entry.heads):
            return
        wanted = str(match)
    raise PreconditionFailed(
        f"put of {key!r} refused: match= asked for {wanted}, and the document is at "
        f"{', '.join(sorted(live, reverse=True)) or 'no live version'}. Nothing was written. Read it again and decide, "
        f"or use modify()."
    )


def definition_of(row: Sequence[Any]) -> Definition:
    """A collection from its row."""
    id_, name, partitions, options, base = row
    return Definition(id_, name, partitions, json.loads(options), base)
