"""One collection of a target brought up to a source: the rows that it lacks, and what they prove.

For each partition the target keeps a checkpoint: the source's feed id and the
position up to which it has taken everything. From there on it reads the source's
present heads in commit order, leaves out what it has, and receives the rest with
stubs of the ancestors that it does not know. Rows, knowledge and checkpoint are
one transaction of the target, so a checkpoint is never ahead of the data.

The source's knowledge is joined with the page that reaches the end of its feed:
only who was given everything may claim to know everything.

Source: docs/consistency.md, "Sync"; the rules are those of `vstore.document`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vstore.batch import Receive
from vstore.clock import Knowledge
from vstore.document import Version, knows
from vstore.handle import Handle, place_of, seq_of
from vstore.scan import CHUNK_BYTES, FIRST_ROWS, next_limit
from vstore.shard import Definition, Shard, knowledge_of
from vstore.sql import statements as sql
from vstore.sql.database import Connection
from vstore.sql.rows import version_of
from vstore.sql.statements import chunks

BATCH_ROWS = 1_000
"""How many heads are compared at a time, and about how many rows one transaction of the target takes."""


@dataclass(slots=True)
class Pulled:
    """What a pull moved.

    `rows` counts versions and stubs that the target took, `new` those it had
    not, `obsolete` those that it knew to be superseded, `unexplained` those of
    the new ones that it ought to have had (an actor was cloned, or rows were
    lost: see the log), and `compared` the heads that were looked at.
    """

    compared: int = 0
    rows: int = 0
    new: int = 0
    obsolete: int = 0
    unexplained: int = 0

    def __add__(self, other: Pulled) -> Pulled:
        return Pulled(
            self.compared + other.compared,
            self.rows + other.rows,
            self.new + other.new,
            self.obsolete + other.obsolete,
            self.unexplained + other.unexplained,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """One partition of a collection in one store."""

    shard: Shard
    definition: Definition
    part: int

    @property
    def partition(self) -> int:
        """The id of its counter row."""
        return self.definition.base + self.part


@dataclass(frozen=True, slots=True)
class _Taken:
    """How far the target has taken a partition of the source: whose feed, up to where, and the note that says so."""

    feed: str = ""
    seq: int = 0
    note: str | None = None


@dataclass(slots=True)
class _Waiting:
    """Receives that will share the next transaction of one target shard."""

    definition: Definition
    works: list[Receive] = field(default_factory=list)
    rows: int = 0
    body_bytes: int = 0


def pull(source: Handle, target: Handle) -> Pulled:
    """Takes into `target` what `source` has and it has not.

    Repeating it moves nothing, and costs one small query for each shard. It can
    be interrupted anywhere, and goes on from the last batch that was written.

    Raises:
        Corrupt: an actor of one store was cloned in the other. The batch that
            showed it was not written.
        Unavailable: a database failed, or another sync of the same two is under
            way. What was written before stays; sync again.
    """
    total = Pulled()
    waiting: dict[int, _Waiting] = {}
    reached = source.positions()
    taken = _checkpoints(source, target)
    for part, (feed, seq) in enumerate(reached):
        if (taken[part].feed, taken[part].seq) == (feed, seq):
            continue
        there, here = _place(source, part), _place(target, part)
        since = taken[part].seq if taken[part].feed == feed and taken[part].seq <= seq else 0
        queue = waiting.setdefault(id(here.shard), _Waiting(here.definition))
        for work, compared in _missing(there, here, _Taken(feed, since, taken[part].note), _name(source, target, part)):
            total.compared += compared
            queue.works.append(work)
            queue.rows += sum(map(len, work.rows.values()))
            queue.body_bytes += sum(len(row.body or b"") for rows in work.rows.values() for row in rows)
            if queue.rows >= BATCH_ROWS or queue.body_bytes >= CHUNK_BYTES:
                total += _flush(here.shard, queue)
    for shard in target.shards:
        if id(shard) in waiting:
            total += _flush(shard, waiting[id(shard)])
    return total


def _missing(there: Place, here: Place, taken: _Taken, name: str) -> Iterator[tuple[Receive, int]]:
    """What one partition lacks, in works for the target, and how many heads were compared for each."""
    note, feed, limit = taken.note, taken.feed, min(FIRST_ROWS, BATCH_ROWS)
    after = place_of(there.partition, taken.seq)
    done = False
    while not done:
        with there.shard.database.snapshot() as connection:
            [row] = connection.rows(sql.PARTITION, (there.partition,))
            _id, _collection, _part, actor, ctr, seq, _epoch, _status, now = row
            if now != feed:
                return  # the source became somebody else meanwhile: the next sync begins with its new feed
            top = place_of(there.partition, seq)
            rows = connection.rows(sql.HEADS_BY_ID, (after, top, limit))
            last = rows[-1][3] if len(rows) == limit else top
            limit = next_limit(limit, sum(len(row[2] or b"") for row in rows), BATCH_ROWS)
            events = connection.rows(sql.EVENTS_BY_ID, (after, last, BATCH_ROWS))
            if len(events) == BATCH_ROWS:
                last = min(last, events[-1][0])
            heads: dict[str, dict[str, Version]] = {}
            for _state, key, body, *lineage in rows:
                version = version_of(lineage, body)
                if version.id <= last:
                    heads.setdefault(key, {})[version.rev] = version
            _add_grown(connection, there, [key for id_, key, _kind in events if id_ <= last], heads)
            wanted = _wanted(connection, there, here, heads)
            done = last == top
            # Only with the page that reaches the end of the feed, and as it was then. Up to any earlier position
            # is not everything: a head that moved behind it meanwhile would be claimed and never given.
            claimed = knowledge_of(connection, there.partition, actor, ctr) if done else None
        after = last
        text = json.dumps({"feed": feed, "seq": seq_of(last)})
        yield (
            Receive(here.part, wanted, claimed, {name: text}, {name: note}),
            sum(map(len, heads.values())),
        )
        note = text


def _add_grown(connection: Connection, there: Place, keys: Sequence[str], heads: dict[str, dict[str, Version]]) -> None:
    """Heads that learnt more of their past since: the same version, with more dots or a larger clock."""
    for chunk in chunks(list(dict.fromkeys(keys))):
        for key, body, *lineage in connection.rows(sql.HEADS_WITH_BODY(len(chunk)), [there.definition.id, *chunk]):
            version = version_of(lineage, body)
            heads.setdefault(key, {})[version.rev] = version


def _wanted(
    source: Connection, there: Place, here: Place, heads: Mapping[str, Mapping[str, Version]]
) -> dict[str, list[Version]]:
    """The rows that the target has to be given: heads it lacks, and stubs of their ancestors."""
    with here.shard.database.snapshot() as target:
        [row] = target.rows(sql.PARTITION, (here.partition,))
        known = knowledge_of(target, here.partition, row[3], row[4])
        held = _held(target, here, [key for key, found in heads.items() if _met(known, found.values())])
    wanted = {
        key: rows
        for key, found in heads.items()
        for rows in [[head for head in found.values() if not _has(held.get(key, {}), head)]]
        if rows
    }
    with_past = [key for key, rows in wanted.items() if any(row.parents for row in rows)]
    for chunk in chunks(with_past):
        versions: dict[str, dict[str, Version]] = {}
        for key, *lineage in source.rows(sql.VERSIONS(len(chunk)), [there.definition.id, *chunk]):
            version = version_of(lineage)
            versions.setdefault(key, {})[version.rev] = version
        for key, found_versions in versions.items():
            wanted[key] = stubs(wanted[key], found_versions, known) + wanted[key]
    return wanted


def stubs(heads: Sequence[Version], versions: Mapping[str, Version], known: Knowledge) -> list[Version]:
    """The ancestors of heads as stubs, as far down as the target has a dot of them to learn. Oldest first."""
    found: dict[str, Version] = {}
    frontier = [parent for head in heads for parent in head.parents]
    while frontier:
        version = versions.get(frontier.pop())
        if version is None or version.rev in found or all(dot in known for dot in version.dots):
            continue
        found[version.rev] = version.as_stub
        frontier.extend(version.parents)
    given = {head.rev for head in heads}
    return [version for rev, version in reversed(found.items()) if rev not in given]


def _met(known: Knowledge, heads: Iterable[Version]) -> bool:
    """Whether the target may hold something of a key: it knows a dot of a head, or a head has a past."""
    return any(head.parents or knows(known, head) for head in heads)


def _held(target: Connection, here: Place, keys: Sequence[str]) -> dict[str, dict[str, Version]]:
    held: dict[str, dict[str, Version]] = {}
    for chunk in chunks(keys):
        for key, *lineage in target.rows(sql.VERSIONS(len(chunk)), [here.definition.id, *chunk]):
            version = version_of(lineage)
            held.setdefault(key, {})[version.rev] = version
    return held


def _has(held: Mapping[str, Version], head: Version) -> bool:
    """Whether a head would teach the target nothing: neither a version, nor a dot, nor a part of its past."""
    stored = held.get(head.rev)
    return (
        stored is not None
        and not stored.stub
        and set(head.dots) <= set(stored.dots)
        and head.clock <= stored.clock
        and stored.stamp <= head.stamp
    )


def _flush(shard: Shard, queue: _Waiting) -> Pulled:
    works, queue.works, queue.rows, queue.body_bytes = queue.works, [], 0, 0
    pulled = Pulled(rows=sum(len(rows) for work in works for rows in work.rows.values()))
    for arrived in shard.apply(queue.definition, works):
        pulled.new += arrived.inserted
        pulled.obsolete += arrived.obsolete
        pulled.unexplained += arrived.unexplained
    return pulled


def _place(handle: Handle, part: int) -> Place:
    owner = handle.owners[part]
    return Place(handle.shards[owner], handle.definitions[owner], part)


def _name(source: Handle, target: Handle, part: int) -> str:
    """The checkpoint's name: whose feed the target has taken, partition by partition."""
    return f"sync:{source.uid}:{target.uid}:{part}"


def _checkpoints(source: Handle, target: Handle) -> list[_Taken]:
    """How far the target has taken each partition."""
    notes: dict[str, str] = {}
    for shard in target.shards:
        rows: list[tuple[str, str]] = shard.database.ask(sql.CHECKPOINTS)
        notes.update(rows)
    found = []
    for part in range(source.partitions):
        note = notes.get(_name(source, target, part))
        found.append(_Taken(**json.loads(note), note=note) if note else _Taken())
    return found
