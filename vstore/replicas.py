"""The registry of replicas: who has acknowledged what, and so what may be forgotten.

A deleted document may be forgotten once every replica that could bring it back
has learnt of its end. So each partition notes, for every other full replica,
the events that it has acknowledged; the least of all of these and of what is
known here is *stable*:

    known here        a:9  b:7  c:4
    known at Bo       a:9  b:5  c:4         seen yesterday
    known at Cy       a:6  b:7              seen 120 days ago: expired, does not count
    stable            a:9  b:5  c:4

Whoever has pulled all of a replica is noted there with what it knows then. The
notes travel along every link in both directions, and the newest of a replica
wins, so replicas that never meet count too. A filtered replica is listed and
holds nothing back: it claims nothing.

The registry is for thrift, not for safety. What was forgotten does not come back
from a replica that was never noted, has expired, or was restored from a backup:
it knows less than was forgotten, and that is asked at every handshake.

Source: docs/consistency.md, "Forgetting"; reference model of the project.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakKeyDictionary

from vstore.errors import ConfigurationError, NotFound, StoreError
from vstore.handle import Handle
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.database import Connection, Database
from vstore.sql.statements import chunks

FULL: Final = "full"
FILTERED: Final = "filtered"
RETIRED: Final = "retired"

EXPIRE_DAYS = 90.0
"""After how long without a word a replica counts no more, where the collection does not say."""

DAY_US = 86_400_000_000

REFRESH_US = DAY_US
"""A note that would say nothing new is written again after so long: who only listens is alive too."""

REFUSED_SECONDS = 600.0
"""How long a database that refused a note is not bothered with another: each is a line in a server's log."""

_refused: WeakKeyDictionary[Database, float] = WeakKeyDictionary()
"""When, by the monotonic clock of this process."""


@dataclass(frozen=True, slots=True)
class Note:
    """What one replica has acknowledged of one partition, as it travels between registries.

    `known` has for each actor the n up to which the replica knows every event;
    `seen` is when it said so, in microseconds since 1970 UTC.
    """

    replica: str
    part: int
    role: str
    name: str
    known: Mapping[str, int]
    seen: int


@dataclass(frozen=True, slots=True)
class Replica:
    """Another replica of a collection, as far as this one has heard.

    `seen` is when it last acknowledged anything, in microseconds since 1970 UTC;
    `behind` how many of the events known here it has not acknowledged, and
    `known` what it has, by partition. One that has `expired` counts no more.
    """

    id: str
    name: str
    role: str
    seen: int
    behind: int
    expired: bool
    known: Mapping[int, Mapping[str, int]] = field(repr=False)

    @property
    def counts(self) -> bool:
        """Whether nothing may be forgotten that it does not know of."""
        return self.role == FULL and not self.expired

    @property
    def holds_back(self) -> bool:
        """Whether there is something that only waits for this one, or for others like it."""
        return self.counts and self.behind > 0


@dataclass(frozen=True, slots=True)
class Registry:
    """What is known here by partition, and who else has acknowledged what."""

    known: Sequence[Mapping[str, int]]
    replicas: Sequence[Replica]

    def stable(self, part: int) -> dict[str, int]:
        """For each actor up to which of its events everyone who counts knows all that happened in a partition."""
        least = dict(self.known[part])
        for each in self.replicas:
            if each.counts:
                theirs = each.known.get(part, {})
                least = {actor: n for actor, mine in least.items() if (n := min(mine, theirs.get(actor, 0)))}
        return least


def exchange(source: Handle, target: Handle, role: str = FULL, *, moved: bool = True, now_us: int | None = None) -> int:
    """What two replicas tell each other at the end of a complete pull: how far the target is, and who else there is.

    Args:
        role: FILTERED after a pull through a filter: the target is listed at the
            source, holds nothing back, and says nothing of others.
        moved: False if there was nothing to do: then the target speaks of itself
            only once a day, to say that it is alive.

    Returns:
        How many notes were written. None are where nothing changed, nor in a
        registry that cannot be written: a source needs to give reading rights
        only, but then the target does not count there, and its return after a
        purge is that of a stranger.

    Cost: one small query for each shard of both, two more of the target if something moved.
    """
    if source.uid == target.uid:  # a copied file, which still has the name of its original: nobody notes himself
        return 0
    now_us = _now_us() if now_us is None else now_us
    there, here = noted(source), noted(target)
    own = [note for (uid, _part), note in there.items() if uid == target.uid]
    told: list[Note] = []
    if moved or now_us - max([note.seen for note in own], default=0) >= REFRESH_US:
        told = _claims(source, target, role, own, now_us)
    if role == FULL:
        told += _news(source, [note for note in here.values() if note.replica != target.uid], there, now_us)
    written = _try_to_write(source, told)
    if role == FULL and _role(here, source.uid) != FILTERED:
        written += join(target, there.values(), here, now_us=now_us)
    return written


def noted(handle: Handle) -> dict[tuple[str, int], Note]:
    """All that has been noted here, by replica and partition. One small query for each shard."""
    found = {}
    for shard, definition, first, end in handle.runs():
        for row in shard.database.ask(sql.REPLICAS, (definition.base + first, definition.base + end)):
            note = _note_of(row, definition)
            found[note.replica, note.part] = note
    return found


def join(handle: Handle, notes: Iterable[Note], here: Mapping[tuple[str, int], Note], *, now_us: int) -> int:
    """Takes over notes of another replica that are newer than those `noted` here; how many.

    A replica takes none of itself, and none that is of the future: a clock that
    was wrong somewhere shall not make a replica immortal. Where this registry
    cannot be written nothing is, and it is tried again with the next pull.
    """
    return _try_to_write(handle, _news(handle, notes, here, now_us))


def registry(handle: Handle, *, expire_after_days: float | None = None, now_us: int | None = None) -> Registry:
    """What is known here, and who has acknowledged how much of it.

    Args:
        expire_after_days: instead of the collection's own.

    Raises:
        ConfigurationError: a replica cannot expire before it is seen.

    Three small queries for each shard.
    """
    now_us = _now_us() if now_us is None else now_us
    days = expire_days(handle) if expire_after_days is None else _checked(expire_after_days)
    # What others acknowledged first, then what is known here: the other way round, a note might name more.
    by_replica: dict[str, list[Note]] = {}
    for note in noted(handle).values():
        by_replica.setdefault(note.replica, []).append(note)
    mine = known(handle)
    found = []
    for uid, theirs in by_replica.items():
        newest = max(theirs, key=_seen)
        if newest.role == RETIRED:
            continue
        acknowledged = {note.part: note.known for note in theirs if note.role == FULL}
        behind = 0
        if newest.role == FULL:
            behind = sum(
                max(0, n - acknowledged.get(part, {}).get(actor, 0))
                for part, bases in enumerate(mine)
                for actor, n in bases.items()
            )
        expired = _is_expired(newest.seen, days, now_us)
        found.append(Replica(uid, newest.name, newest.role, newest.seen, behind, expired, acknowledged))
    return Registry(mine, sorted(found, key=lambda each: (each.name, each.id)))


def registered(handle: Handle, *, expire_after_days: float | None = None, now_us: int | None = None) -> list[Replica]:
    """Every replica that has been heard of and was not retired, by name."""
    return list(registry(handle, expire_after_days=expire_after_days, now_us=now_us).replicas)


def retire(handle: Handle, uid: str, *, now_us: int | None = None) -> Replica:
    """Says that a replica is gone for good: it holds nothing back any more, here and wherever the note travels.

    Args:
        uid: its id, or a beginning of it that no other has.

    Returns:
        What it had been. If it comes back after all, it is noted anew, and what
        it has of forgotten documents does not return.

    Raises:
        NotFound: no such replica is registered. Nothing was changed.
    """
    now_us = _now_us() if now_us is None else now_us
    fitting = [each for each in registered(handle, now_us=now_us) if each.id.startswith(uid)] if uid else []
    if len(fitting) != 1:
        problem = "is the beginning of several ids" if fitting else "is no replica that is registered"
        raise NotFound(f"{uid!r} {problem} in {handle.name!r}. Nothing was changed. `vstore replicas` lists them.")
    gone = fitting[0]
    _write(
        handle,
        [
            replace(note, role=RETIRED, seen=max(now_us, note.seen + 1))
            for note in noted(handle).values()
            if note.replica == gone.id
        ],
    )
    return gone


def known(handle: Handle) -> list[dict[str, int]]:
    """For each partition and actor the n up to which every event is known here. Two small queries for each shard."""
    found: list[dict[str, int]] = [{} for _ in range(handle.partitions)]
    for shard, definition, first, end in handle.runs():
        bounds = definition.base + first, definition.base + end
        with shard.database.snapshot() as connection:
            for id_, actor, n in connection.rows(sql.BASES, bounds):
                found[id_ - definition.base][actor] = n
            for id_, actor, n in connection.rows(sql.COUNTERS, bounds):
                if n:
                    found[id_ - definition.base][actor] = n
    return found


def expire_days(handle: Handle) -> float:
    """After how many days without a word a replica of the collection counts no more."""
    return float(handle.definitions[0].options.get("expire_days", EXPIRE_DAYS))


def _checked(days: float) -> float:
    if not days >= 0 or math.isnan(days):
        raise ConfigurationError(f"{days!r} days refused: a replica expires after 0 days or more. Nothing was changed.")
    return days


def _is_expired(seen_us: int, days: float, now_us: int) -> bool:
    return now_us - seen_us > days * DAY_US


def _claims(source: Handle, target: Handle, role: str, noted: Sequence[Note], now_us: int) -> list[Note]:
    """What the target has to say of itself at a source that has noted this of it."""
    claims: list[Mapping[str, int]] = [{}]
    if role == FULL:
        claims = list(known(target))
    else:
        newest = max(noted, key=_seen, default=None)
        if newest is not None and newest.role == FULL and not _is_expired(newest.seen, expire_days(source), now_us):
            return []  # it has another link, without a filter
    before = {note.part: note for note in noted}
    found = []
    for part, claimed in enumerate(claims):
        old = before.get(part)
        if old is None:
            # Nothing has happened there yet, and what is not noted is not acknowledged; but one note there has to be.
            if claimed or part == 0:
                found.append(Note(target.uid, part, role, _name(target), claimed, now_us))
        elif (old.role, old.known) != (role, claimed) or now_us - old.seen >= REFRESH_US:
            found.append(Note(target.uid, part, role, _name(target), claimed, max(now_us, old.seen + 1)))
    return found


def _news(handle: Handle, notes: Iterable[Note], here: Mapping[tuple[str, int], Note], now_us: int) -> list[Note]:
    """Those of the notes that a registry is to take."""
    found = []
    for each in notes:
        if each.replica == handle.uid or not 0 <= each.part < handle.partitions:
            continue
        note = each if each.seen <= now_us else replace(each, seen=now_us)
        if _is_news(note, here.get((note.replica, note.part))):
            found.append(note)
    return found


def _role(here: Mapping[tuple[str, int], Note], uid: str) -> str:
    """What a replica was when it was last heard of; empty if it never was."""
    newest = max([note for (each, _part), note in here.items() if each == uid], key=_seen, default=None)
    return "" if newest is None else newest.role


def _seen(note: Note) -> int:
    return note.seen


def _is_news(note: Note, before: Note | None) -> bool:
    """Whether a note from elsewhere takes the place of the one here."""
    if before is None:
        return True
    differs = (note.role, note.known) != (before.role, before.known)
    # One that only says "still alive" waits for a day, or registries would write at every pull for ever.
    return note.seen > before.seen + (0 if differs else REFRESH_US - 1)


def _now_us() -> int:
    return time.time_ns() // 1000


def _name(handle: Handle) -> str:
    """What people call a replica: the URLs of its shards, without passwords and settings."""
    return " ".join(shard.database.name.partition("?")[0] for shard in handle.shards)


def _note_of(row: Sequence[object], definition: Definition) -> Note:
    uid, partition, role, name, text, seen = row
    bases = {actor: int(n) for actor, _, n in [entry.partition(":") for entry in str(text).split()]}
    return Note(str(uid), int(str(partition)) - definition.base, str(role), str(name), bases, int(str(seen)))


def _try_to_write(handle: Handle, notes: Sequence[Note]) -> int:
    """Writes if there is anything, and if that is allowed and possible; how many."""
    now = time.monotonic()
    if not notes or any(now - _refused.get(shard.database, -math.inf) < REFUSED_SECONDS for shard in handle.shards):
        return 0
    try:
        return _write(handle, notes)
    except StoreError as error:
        if not any(shard.database.is_busy(error) for shard in handle.shards):
            _refused.update(dict.fromkeys((shard.database for shard in handle.shards), now))
        return 0


def _write(handle: Handle, notes: Sequence[Note]) -> int:
    written = 0
    for shard, definition, first, end in handle.runs():
        group = [note for note in notes if first <= note.part < end]
        if group:
            written += _write_to(shard, definition, group)
    return written


def _write_to(shard: Shard, definition: Definition, notes: Sequence[Note]) -> int:
    with shard.transaction():
        connection = shard.database.read()
        there = _lock(connection, [definition.base + note.part for note in notes])
        before = {
            (uid, partition - definition.base): seen
            for uid, partition, *_rest, seen in connection.rows(
                sql.REPLICAS, (definition.base, definition.base + definition.partitions)
            )
        }
        notes = [
            note
            for note in notes
            if definition.base + note.part in there and note.seen > before.get((note.replica, note.part), -1)
        ]
        connection.run_many(sql.DROP_REPLICA, [(note.replica, definition.base + note.part) for note in notes])
        rows = [
            (
                note.replica,
                definition.base + note.part,
                note.role,
                note.name,
                " ".join(f"{actor}:{n}" for actor, n in sorted(note.known.items())),
                note.seen,
            )
            for note in notes
        ]
        connection.run_many(sql.ADD_REPLICA, rows)
    return len(notes)


def _lock(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of the counter rows that there are, locked, as every writer does: a collection may be dropped meanwhile."""
    found: set[int] = set()
    for chunk in chunks(sorted(set(ids))):
        found.update(row[0] for row in connection.rows(sql.LOCK_PARTITIONS(len(chunk)), chunk))
    return found
