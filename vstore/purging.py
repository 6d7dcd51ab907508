"""Forgetting deleted documents for good: by proof, never by age.

A tombstone is there for replicas that have not heard of the delete. Once all of
them have, it says nothing to anyone, and the document goes as a whole: its heads
and every version and stub below them, in one transaction.

    all heads are tombstones                     nothing live is lost
    every event of the key is stable             everyone who counts knows all of it
    the tombstones are older than a grace time   for replicas that nobody counts

Stable is what `vstore.replicas` proves. What a head has seen must be stable too:
an event that only its clock remembers could otherwise arrive late somewhere as
news. The partition then remembers up to which events it has forgotten, so an old
copy that turns up is known for what it is.

The rule is asked twice: here without a lock, so that nobody waits while most keys
are left alone, and again by the shard under it.

Source: docs/consistency.md, "Forgetting"; reference model of the project.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vstore.batch import Purge
from vstore.document import Entry, Version
from vstore.errors import ConfigurationError
from vstore.handle import Handle
from vstore.partition import part_of
from vstore.replicas import DAY_US, Registry, registry
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.lineages import heads_of, versions_of

GRACE_DAYS = 7.0
PAGE_KEYS = 200


@dataclass(frozen=True, slots=True)
class Holder:
    """A replica that holds back a purge: how many keys wait for it, and how many events it has yet to acknowledge.

    `seen` is when it last acknowledged anything, in microseconds since 1970 UTC.
    This replica itself may be one, with an empty name: where rows were parked,
    or have come ahead of others, there are events that it does not know.
    """

    id: str
    name: str
    keys: int
    behind: int
    seen: int


@dataclass(frozen=True, slots=True)
class Purged:
    """How far a purge has got: deleted documents looked at, those forgotten, and those that stay.

    `versions` counts rows that went with them. Of those that stay, `young` are
    within the grace time, and `held` wait for the `holders`, most keys first.
    `expired` names replicas that were not asked any more.
    """

    keys: int = 0
    purged: int = 0
    versions: int = 0
    young: int = 0
    held: int = 0
    holders: tuple[Holder, ...] = ()
    expired: tuple[str, ...] = ()


@dataclass(slots=True)
class _Waiting:
    """For how many keys each replica is waited for. The empty id is this one's."""

    registry: Registry
    keys: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def note(self, part: int, events: Mapping[str, int]) -> None:
        """Counts a key for everybody who does not know all of its events."""
        knowers = [("", self.registry.known[part])]
        knowers += [(each.id, each.known.get(part, {})) for each in self.registry.replicas if each.counts]
        for uid, known in knowers:
            if any(n > known.get(actor, 0) for actor, n in events.items()):
                self.keys[uid] += 1

    def holders(self) -> tuple[Holder, ...]:
        found = [
            Holder(each.id, each.name, self.keys[each.id], each.behind, each.seen)
            for each in self.registry.replicas
            if each.id in self.keys
        ]
        if "" in self.keys:
            found.append(Holder("", "", self.keys[""], 0, 0))
        return tuple(sorted(found, key=lambda holder: (-holder.keys, holder.id)))


def purge(
    handle: Handle,
    *,
    grace_days: float = GRACE_DAYS,
    expire_days: float | None = None,
    dry_run: bool = False,
    progress: Callable[[Purged], None] | None = None,
    prefix: str = "",
    now_us: int | None = None,
) -> Purged:
    """Forgets deleted documents, in small transactions; see `Collection.purge`.

    Raises:
        ConfigurationError: grace or expiry of less than nothing. Nothing was purged.
    """
    if not 0 <= grace_days < math.inf:
        raise ConfigurationError(f"grace_days={grace_days!r} refused: give 0 days or more. Nothing was purged.")
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    standing = registry(handle, expire_after_days=expire_days, now_us=now_us)
    waiting = _Waiting(standing)
    total = Purged(expired=tuple(each.name for each in standing.replicas if each.expired))
    for shard, definition, _first, _end in handle.runs():
        for keys in _pages(shard, definition, prefix):
            oldest_us = now_us - round(grace_days * DAY_US)
            total = _purge_page(shard, definition, keys, waiting, oldest_us, dry_run, total)
            if progress is not None:
                progress(total)
    return total


def events_of(versions: Iterable[Version]) -> dict[str, int]:
    """For each actor the last event that any of the versions is or has seen. Pure."""
    last: dict[str, int] = {}
    for version in versions:
        events = [(dot.actor, dot.n) for dot in version.dots]
        for actor, n in [*events, *version.clock.vector.items(), *version.clock.cloud]:
            if n > last.get(actor, 0):
                last[actor] = n
    return last


def _pages(shard: Shard, definition: Definition, prefix: str) -> Iterator[list[str]]:
    """The keys that have a tombstone, some at a time."""
    after, statement = prefix, sql.TOMBSTONES_FROM
    while True:
        page = [row[0] for row in shard.database.ask(statement, (definition.id, after, PAGE_KEYS))]
        keys = [key for key in page if key.startswith(prefix)]
        if keys:
            yield keys
        if len(keys) < PAGE_KEYS:
            return
        after, statement = page[-1], sql.TOMBSTONES


def _deleted(shard: Shard, definition: Definition, keys: Sequence[str]) -> dict[str, Entry]:
    """Those of the keys that are deleted, and what there is of each, as it was at one instant."""
    with shard.database.snapshot() as connection:
        heads = heads_of(connection.rows, definition.id, keys)
        versions = versions_of(connection.rows, definition.id, keys)
    entries = {key: Entry(heads[key], versions[key]) for key in keys}
    return {
        key: entry
        for key, entry in entries.items()
        if entry.heads and all(head.deleted for head in entry.heads.values())
    }


def _purge_page(
    shard: Shard,
    definition: Definition,
    keys: Sequence[str],
    waiting: _Waiting,
    oldest_us: int,
    dry_run: bool,
    total: Purged,
) -> Purged:
    deleted = _deleted(shard, definition, keys)
    young = held = 0
    ready: defaultdict[int, list[str]] = defaultdict(list)
    needed: defaultdict[int, dict[str, int]] = defaultdict(dict)
    stables: dict[int, dict[str, int]] = {}
    for key, entry in deleted.items():
        part = part_of(key, definition.partitions)
        if part not in stables:
            stables[part] = waiting.registry.stable(part)
        events = events_of(entry.versions.values())
        if max(head.stamp for head in entry.heads.values()) > oldest_us:
            young += 1
        elif any(n > stables[part].get(actor, 0) for actor, n in events.items()):
            held += 1
            waiting.note(part, events)
        else:
            ready[part].append(key)
            for actor, n in events.items():
                needed[part][actor] = max(n, needed[part].get(actor, 0))
    # Not all that is stable, but just as much as these keys take: whoever knows that need not enumerate again.
    works = [Purge(part, keys, needed[part]) for part, keys in ready.items()]
    gone = [key for work in works for key in work.keys]
    if works and not dry_run:
        gone = [key for outcome in shard.apply(definition, works) for key in outcome.keys]
    return replace(
        total,
        keys=total.keys + len(deleted),
        purged=total.purged + len(gone),
        versions=total.versions + sum(len(deleted[key].versions) for key in gone),
        young=total.young + young,
        held=total.held + held,
        holders=waiting.holders(),
    )
