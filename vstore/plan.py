"""What one transaction of a shard has read and is about to write, and the writing of it.

    Partition   a locked counter row, what it knows and may have forgotten
    Held        one key: its entry, and what the rules have made of it
    Plan        all of them; `write` puts the difference into the database

Nothing here decides anything: that is for `vstore.document` and `vstore.receiving`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from vstore.clock import Knowledge
from vstore.document import ERASE, Entry, Version
from vstore.identity import Proof
from vstore.sql import statements as sql
from vstore.sql.database import Connection
from vstore.sql.rows import clock_text, dots_text, element_of, version_row
from vstore.sql.schema import LIVE, RIVAL, SEQ_BITS, TOMBSTONE
from vstore.sql.statements import chunks

BLOTTED = "the document was erased or purged, and with it what was said here"


@dataclass(slots=True)
class Partition:
    """A locked counter row, and what the transaction makes of it."""

    id: int
    part: int
    actor: str
    ctr: int
    seq: int
    status: str
    feed: str
    changed: bool = False
    known: Knowledge | None = None
    runs: frozenset[tuple[str, int, int]] = frozenset()
    vector: dict[str, int] | None = None

    @property
    def next_place(self) -> int:
        """The next place in the partition's commit order, as a version id."""
        return self.id << SEQ_BITS | self.seq + 1

    def place(self) -> int:
        """Takes the next place."""
        self.seq += 1
        self.changed = True
        return self.id << SEQ_BITS | self.seq

    def knowledge(self, connection: Connection) -> Knowledge:
        """What the partition knows; changes to it are written at the end of the transaction."""
        if self.known is None:
            self.known = knowledge_of(connection, self.id, self.actor, self.ctr)
            self.runs = frozenset(self.known)
        return self.known

    def own_actors(self, connection: Connection) -> set[str]:
        """The actor and those that it had before: of what they did it always knows all."""
        return {self.actor, *(actor for actor, _final in connection.rows(sql.ACTORS_OF, (self.id,)))}

    def forgotten(self, connection: Connection) -> dict[str, int]:
        """For each actor up to which of its events deleted keys may have been purged here."""
        if self.vector is None:
            self.vector = forgotten_of(connection, self.id)
        return self.vector

    def join_forgotten(self, connection: Connection, vector: Mapping[str, int]) -> None:
        """Raises that to the vector, where it is not as far already."""
        forgotten = self.forgotten(connection)
        for actor, n in vector.items():
            if n > forgotten.get(actor, 0):
                connection.run(sql.DROP_FORGOTTEN, (self.id, actor))
                connection.run(sql.ADD_FORGOTTEN, (self.id, actor, n))
                forgotten[actor] = n


@dataclass(slots=True)
class Held:
    """One key inside a transaction: its entry, the head rows as they were, and what is to be written."""

    entry: Entry
    partition: int
    stored: dict[str, tuple[int, int]] = field(default_factory=dict)
    inserted: list[Version] = field(default_factory=list)
    grown: dict[str, Version] = field(default_factory=dict)
    moved: list[int] = field(default_factory=list)  # ids that stubs had which now have their body
    bared: list[int] = field(default_factory=list)  # ids of versions that an erasure took the body of
    purged: list[int] = field(default_factory=list)  # ids of versions that are gone for good
    events: list[str] = field(default_factory=list)  # kinds of what else the feed has to tell of the key
    whole: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether the document was erased or purged: then nothing that quotes it stays either."""
        return not {"erase", "purge"}.isdisjoint(self.events) or any(each.kind == ERASE for each in self.inserted)

    @property
    def is_touched(self) -> bool:
        return bool(self.inserted or self.grown or self.moved or self.bared or self.purged or self.events)


class Plan:
    """What one transaction is about to write."""

    __slots__ = ("checkpoints", "held", "partitions", "places", "proven", "renewed", "wiped")

    def __init__(self) -> None:
        self.partitions: dict[int, Partition] = {}
        self.proven: dict[int, tuple[str, int]] = {}  # actor and seq before, where the proof confirmed them
        self.held: dict[int, dict[str, Held]] = {}
        self.places: list[tuple[int, str]] = []  # of the new versions: id and rev
        self.renewed = False  # every partition of the shard got a new actor
        self.wiped = False  # something was erased that shall be gone from the files too
        self.checkpoints: dict[str, str] = {}

    def join(self, later: Plan) -> None:
        """Takes in what the same transaction did next."""
        self.partitions.update(later.partitions)
        self.proven = {**later.proven, **self.proven}
        self.places += later.places
        self.wiped |= later.wiped
        self.checkpoints.update(later.checkpoints)

    def is_in(self, connection: Connection) -> bool:
        """Whether the database has what the transaction wrote.

        All of it is looked at: another client of a server writes under the same
        actor, and may have put one of the same versions into the same place.
        """
        wanted = dict(self.places)
        found: dict[int, str] = {}
        for chunk in chunks(list(wanted)):
            found.update(connection.rows(sql.REVS_AT(len(chunk)), chunk))
        notes = {name: connection.rows(sql.CHECKPOINT, (name,)) for name in self.checkpoints}
        noted = {name: rows[0][0] for name, rows in notes.items() if rows}
        return found == wanted and noted == self.checkpoints

    def note(self, proof: Proof) -> None:
        """Tells the proof where the partitions will be."""
        for partition in self.partitions.values():
            if partition.changed:
                proof.note(partition.id, partition.actor, partition.seq)

    def write(self, connection: Connection) -> None:
        """Writes the difference between what was read of the round's keys and what the rules made of it."""
        versions, moves, drops, adds, states, lanes, events, lineages = [], [], [], [], [], [], [], []
        bared: list[tuple[int]] = []
        gone: list[tuple[str, int, str]] = []
        purged: list[int] = []
        for collection, keys in self.held.items():
            for key, held in keys.items():
                if not held.is_touched:
                    continue
                heads = held.entry.heads
                lives = LIVE if len(heads) == 1 or sum(not head.deleted for head in heads.values()) == 1 else RIVAL
                for rev, (id_, state) in held.stored.items():
                    head = heads.get(rev)
                    if head is None:
                        drops.append(id_)
                        continue
                    wanted = TOMBSTONE if head.deleted else lives
                    if wanted != state:
                        states.append((wanted, collection, key, id_))
                    if rev in held.grown:  # followers of the feed have to hear that the same head knows more
                        lanes.append((*element_of(key, head), collection, key, id_))
                        held.events.append("grown")
                for rev, head in heads.items():
                    if rev not in held.stored:
                        state = TOMBSTONE if head.deleted else lives
                        adds.append((collection, key, head.id, state, *element_of(key, head)))
                versions += [version_row(version.id, collection, key, version) for version in held.inserted]
                for version in held.grown.values():
                    lineages.append(
                        (
                            " ".join(version.parents),
                            dots_text(version.dots),
                            clock_text(version.clock),
                            version.stamp,
                            version.kind,
                            version.id,
                        )
                    )
                gone += [(BLOTTED, collection, key)] * held.is_gone
                moves += [(id_,) for id_ in held.moved]
                bared += [(id_,) for id_ in held.bared]
                purged += held.purged
                # So that no place is empty. Of what was purged not even the key is left there.
                events += [(id_, collection, key, "moved") for id_ in held.moved]
                events += [(id_, collection, "", "purged") for id_ in held.purged]
                partition = self.partitions[held.partition]
                events += [(partition.place(), collection, key, kind) for kind in held.events]
        versions.sort()
        self.places += [(row[0], row[3]) for row in versions]
        connection.run_many(sql.MOVE_VERSION, moves)
        connection.run_many(sql.ADD_VERSION, versions)
        connection.run_many(sql.GROW_LINEAGE, lineages)
        if any("erase" in held.events for keys in self.held.values() for held in keys.values()):
            self.wiped = True
            connection.overwrite()
        connection.run_many(sql.PRUNE_BODY, bared)
        connection.run_many(sql.BLOT_PARKED, gone)  # it may quote the document; but what waits goes on waiting
        for chunk in chunks(purged):
            connection.run(sql.DROP_VERSIONS_AT(len(chunk)), chunk)
        for chunk in chunks(drops):
            connection.run(sql.DROP_HEADS_AT(len(chunk)), chunk)
        connection.run_many(sql.ADD_HEAD, adds)
        connection.run_many(sql.SET_STATE, states)
        connection.run_many(sql.SET_LANES, lanes)
        connection.run_many(sql.ADD_EVENT, events)

    def write_counters(self, connection: Connection) -> None:
        """Writes what is said once for the whole transaction."""
        for names in chunks(list(self.checkpoints)):
            connection.run(sql.DROP_CHECKPOINTS(len(names)), names)
        connection.run_many(sql.ADD_CHECKPOINT, list(self.checkpoints.items()))
        write_knowledge(connection, self.partitions.values())
        for some in chunks([partition for partition in self.partitions.values() if partition.changed]):
            advances = [[each.id for each in some], [each.ctr for each in some], [each.seq for each in some]]
            connection.run(sql.ADVANCE(len(some)), list(chain.from_iterable(advances)))

    def learn(self, connection: Connection, ids: Iterable[int]) -> None:
        """Reads what partitions know and may have forgotten, of all of them at once."""
        wanted = [self.partitions[id_] for id_ in dict.fromkeys(ids)]
        known = knowledge_of_each(connection, {each.id: (each.actor, each.ctr) for each in wanted})
        forgotten = forgotten_of_each(connection, [each.id for each in wanted])
        for each in wanted:
            each.known, each.runs, each.vector = known[each.id], frozenset(known[each.id]), forgotten[each.id]


def write_knowledge(connection: Connection, partitions: Iterable[Partition]) -> None:
    """Writes what a transaction has learnt so far in some partitions."""
    gone: list[tuple[int, str, int]] = []
    new: list[tuple[int, str, int, int]] = []
    for each in partitions:
        if each.known is None:
            continue
        runs, before = frozenset(each.known), each.runs
        gone += [(each.id, actor, lo) for actor, lo, _ in sorted(before - runs) if actor != each.actor]
        new += [(each.id, *run) for run in sorted(runs - before) if run[0] != each.actor]
    connection.run_many(sql.FORGET_RUN, gone)
    connection.run_many(sql.ADD_RUN, new)


def knowledge_of_each(connection: Connection, partitions: Mapping[int, tuple[str, int]]) -> dict[int, Knowledge]:
    """`knowledge_of` for many partitions by id, each with its actor and counter."""
    found = {id_: Knowledge() for id_ in partitions}
    for chunk in chunks(list(partitions)):
        for id_, *run in connection.rows(sql.KNOWLEDGE_OF(len(chunk)), chunk):
            found[id_].add(*run)
    for id_, (actor, ctr) in partitions.items():
        if ctr:
            found[id_].add(actor, 1, ctr)
    return found


def forgotten_of_each(connection: Connection, partitions: Sequence[int]) -> dict[int, dict[str, int]]:
    """`forgotten_of` for many partitions."""
    found: dict[int, dict[str, int]] = {id_: {} for id_ in partitions}
    for chunk in chunks(partitions):
        for id_, actor, base in connection.rows(sql.FORGOTTEN_OF(len(chunk)), chunk):
            found[id_][actor] = base
    return found


def knowledge_of(connection: Connection, partition: int, actor: str, ctr: int) -> Knowledge:
    """What a partition replica has received or knows to be obsolete; its own events are in its counter row."""
    return knowledge_of_each(connection, {partition: (actor, ctr)})[partition]


def knowledge_in(connection: Connection, partition: int) -> Knowledge:
    """The same of a partition whose counter row has not been read."""
    [(_id, _collection, _part, actor, ctr, *_)] = connection.rows(sql.PARTITION, (partition,))
    return knowledge_of(connection, partition, actor, ctr)


def forgotten_of(connection: Connection, partition: int) -> dict[str, int]:
    """For each actor up to which of its events deleted keys may have been purged from a partition."""
    return forgotten_of_each(connection, [partition])[partition]


def set_checkpoint(connection: Connection, name: str, value: str) -> None:
    """Replaces a checkpoint inside the caller's transaction."""
    connection.run(sql.DROP_CHECKPOINT, (name,))
    connection.run(sql.ADD_CHECKPOINT, (name, value))
