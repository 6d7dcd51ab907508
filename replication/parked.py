"""Rows that a target could not take: put aside with the reason, so that the rest goes on, and tried again later.

A row is parked when the target's database refuses it alone (too large, say), or
when its content is not what its rev stands for, so that damage does not spread.
The target does not claim to know its dot: for every purpose but this one it is a
row that has not come yet. Each pull that finds it due tries it again, at growing
distances, and forgets about it once it has arrived or is no head of the source
any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from replication.handshake import Place, link_of, place
from vstore.backoff import waited_seconds
from vstore.clock import Knowledge
from vstore.document import Version
from vstore.handle import Handle
from vstore.partition import part_of
from vstore.sql import statements as sql

KIND = "row"

REASON_CHARACTERS = 2_000

RETRY_SECONDS = 1.0
LONGEST_SECONDS = 3_600.0
"""How long after it was parked a row is first tried again, and each time twice as long, up to the longest."""


@dataclass(frozen=True, slots=True)
class Parked:
    """One row that waits. `since_us` is when it was first refused, `tries` how often it was."""

    key: str
    rev: str
    reason: str
    since_us: int
    tries: int
    link: str

    @property
    def name(self) -> str:
        """What names it in the table, beside its key."""
        return f"{self.link}:{self.rev}"

    def is_due(self, now_us: int) -> bool:
        """Whether it is time to try it again."""
        return now_us >= self.since_us + waited_seconds(self.tries, RETRY_SECONDS, LONGEST_SECONDS) * 1_000_000


def parked(target: Handle) -> list[Parked]:
    """All rows that wait in a replica, from whatever source."""
    found = []
    for shard, definition, _first, _end in target.runs():
        for key, name, rev, reason, since, tries in shard.database.ask(sql.PARKED, (definition.id, KIND)):
            found.append(Parked(key, rev, reason, since, tries, name.rpartition(":")[0]))
    return found


class Parking:
    """The parked rows of one link, as a pull deals with them."""

    def __init__(self, source: Handle, target: Handle, mode: str, now_us: Callable[[], int]) -> None:
        """Reads them: one small query for each shard of the target."""
        self._target = target
        self._link = link_of(source, target, mode)
        self._now_us = now_us
        found = parked(target)
        self.rows = {(each.key, each.rev): each for each in found if each.link == self._link}
        self._before = [
            each for each in found if each.link != self._link and each.link.startswith(link_of(source, target))
        ]
        self._waiting: defaultdict[int, dict[tuple[str, str], Version]] = defaultdict(dict)
        self.count = 0
        """How many this pull has parked, those that it found parked not counted."""

    def look_again(self) -> None:
        """A comparison of the two has parked rows as well: from now on they are known to wait here too."""
        before = len(self.rows)
        self.rows |= {(each.key, each.rev): each for each in parked(self._target) if each.link == self._link}
        self.count += len(self.rows) - before

    def due(self) -> list[Parked]:
        """Those that it is time to try again."""
        now = self._now_us()
        return [each for each in self.rows.values() if each.is_due(now)]

    def keys(self, parts: Iterable[int]) -> list[str]:
        """The keys of those in some partitions."""
        wanted = set(parts)
        return sorted({key for key, _rev in self.rows if part_of(key, self._target.partitions) in wanted})

    def note(self, key: str, version: Version) -> None:
        """A row that still waits: it must not be claimed."""
        self._waiting[part_of(key, self._target.partitions)][key, version.rev] = version

    def park(self, here: Place, rows: Sequence[tuple[str, Version, str]]) -> None:
        """Puts rows of a partition aside, each with its key and the reason. Durable when it returns."""
        if not rows:
            return
        now = self._now_us()
        found = {}
        for key, version, reason in rows:
            said = reason.replace("\0", "�")[:REASON_CHARACTERS]  # a driver may say anything, and quote the row
            before = self.rows.get((key, version.rev))
            since, tries = (before.since_us, before.tries + 1) if before else (now, 1)
            self.count += before is None
            self.rows[key, version.rev] = Parked(key, version.rev, said, since, tries, self._link)
            self.note(key, version)
            named = here.definition.id, KIND, key, self.rows[key, version.rev].name
            found[named] = (*named, version.rev, said, since, tries)
        with here.shard.transaction():
            connection = here.shard.database.read()
            connection.run_many(sql.UNPARK, list(found))
            connection.run_many(sql.PARK, list(found.values()))

    def release(self, key: str, rev: str) -> None:
        """Forgets about a row that has arrived, or that nobody has any more."""
        gone = self.rows.pop((key, rev), None)
        if gone is None:
            return
        here = place(self._target, part_of(key, self._target.partitions))
        self._waiting[here.part].pop((key, rev), None)
        with here.shard.transaction():
            here.shard.database.read().run(sql.UNPARK, (here.definition.id, KIND, key, gone.name))

    def tidy(self) -> None:
        """Forgets about rows that another filter or history of the same two has left, and that are known here now."""
        for each in self._before:
            here = place(self._target, part_of(each.key, self._target.partitions))
            with here.shard.transaction():
                connection = here.shard.database.read()
                rows = connection.rows(sql.VERSION, (here.definition.id, each.key, each.rev))
                if rows:
                    connection.run(sql.UNPARK, (here.definition.id, KIND, each.key, each.name))
        self._before = []

    def without(self, part: int, known: Knowledge) -> Knowledge:
        """What may be claimed of a source's knowledge: all but the rows that wait, and what they had seen.

        What such a row has replaced is replaced nowhere here yet, and another
        source may still have it.
        """
        waiting = self._waiting.get(part)
        if not waiting:
            return known
        claimed = known.copy()
        for version in waiting.values():
            for actor, n in version.clock.vector.items():
                claimed.remove(actor, 1, n)
            for event in [*(dot[:2] for dot in version.dots), *version.clock.cloud]:
                claimed.remove(*event)
        return claimed
