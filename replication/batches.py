"""What waits for the next transaction of the target, and what becomes of rows that it refuses.

Pages of many partitions share a transaction of each shard, up to a number of
rows that follows from how long the last ones took. What a database refuses while
it is there otherwise (a packet too large, a value it cannot take) is sent again
in halves, until the rest is in and one row stands alone: that one is parked.

    refused:   1 … 1000   ─►   1 … 500 in,   501 … 1000 refused   ─►   …   ─►   733 parked
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from replication.feed import FIRST_ROWS, PAGE_BYTES, PAGE_ROWS, Page
from replication.handshake import Place
from replication.lease import Lease
from replication.parked import Parking
from replication.pulled import Pulled
from vstore.batch import Arrived, Receive
from vstore.document import Version
from vstore.errors import ClockTooLong, ConfigurationError, StoreError, Unavailable
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql

log = logging.getLogger("replication")

APPLY_SECONDS = 0.25
"""How long a transaction of the target should take: readers and writers there wait for it."""

LEAST_ROWS = 50

TRIPS = 20
"""How many round trips a transaction makes, about. What they take is not the rows' fault: fewer rows need as many."""


@dataclass(slots=True)
class _Waiting:
    """Receives that will share the next transaction of one shard."""

    shard: Shard
    definition: Definition
    works: list[Receive] = field(default_factory=list)
    rows: int = 0
    body_bytes: int = 0


class Batches:
    """The transactions of one pull, one shard of the target at a time."""

    def __init__(
        self,
        parking: Parking,
        lease: Lease,
        moved: Callable[[Pulled, Sequence[Receive], list[str]], None],
    ) -> None:
        """Nothing waits yet.

        Args:
            lease: whose fence each transaction has to pass.
            moved: told after each transaction what it moved, what was in it, and which keys are in conflict now.
        """
        self._parking = parking
        self._lease = lease
        self._moved = moved
        self._waiting: dict[int, _Waiting] = {}
        self._trips: dict[int, float] = {}  # by the shard's identity: what a round trip takes
        self.rows = FIRST_ROWS
        """How many rows the next transaction should have."""

    def add(self, here: Place, page: Page, work: Receive) -> None:
        """Lets a page's work wait; commits what waits for its shard once that is enough."""
        self._park(here, page.spoilt)
        waiting = self._waiting.setdefault(id(here.shard), _Waiting(here.shard, here.definition))
        waiting.works.append(work)
        waiting.rows += page.size
        waiting.body_bytes += page.body_bytes
        if waiting.rows >= min(self.rows, PAGE_ROWS) or waiting.body_bytes >= PAGE_BYTES:
            self._commit(waiting)

    def flush(self) -> None:
        """Commits all that waits."""
        for waiting in self._waiting.values():
            if waiting.works:
                self._commit(waiting)

    def _commit(self, waiting: _Waiting) -> None:
        works, waiting.works, waiting.rows, waiting.body_bytes = waiting.works, [], 0, 0
        most = APPLY_SECONDS + TRIPS * self._trip(waiting.shard)
        began = time.monotonic()
        rows = sum(len(rows) for work in works for rows in work.rows.values())
        self._apply(waiting.shard, waiting.definition, works, again=True)
        taken = time.monotonic() - began
        if taken > most:
            self.rows = max(LEAST_ROWS, int(min(rows, self.rows) * most / taken))
        else:
            self.rows = min(PAGE_ROWS, 2 * self.rows)

    def _trip(self, shard: Shard) -> float:
        if id(shard) not in self._trips:
            began = time.monotonic()
            shard.database.ask(sql.META)
            self._trips[id(shard)] = time.monotonic() - began
        return self._trips[id(shard)]

    def _apply(self, shard: Shard, definition: Definition, works: list[Receive], *, again: bool) -> None:
        """Commits works in order, in as few transactions as the database lets us.

        Args:
            again: try once more before the works are split.
        """
        fence = self._lease.fence(shard)
        given = [
            replace(
                work,
                fence=fence,
                knowledge=None if work.knowledge is None else self._parking.without(work.part, work.knowledge),
            )
            for work in works
        ]
        try:
            arrived = shard.apply(definition, given)
        except Exception as error:
            if not _is_refusal(shard, error):
                raise
            if again:
                self._apply(shard, definition, works, again=False)
                return
            reason = str(error)
        else:
            self._count(works, arrived)
            return
        halves = _halves(works)
        if halves is not None:
            for half in halves:
                self._apply(shard, definition, half, again=False)
            return
        [work] = works
        if not work.rows:
            raise Unavailable(f"{shard.database.name} refuses a batch without rows: {reason}")
        [(key, [row])] = work.rows.items()
        self._park(Place(shard, definition, work.part), [(key, row, reason)])
        self._apply(shard, definition, [replace(work, rows={}, left=())], again=True)

    def _park(self, here: Place, rows: Sequence[tuple[str, Version, str]]) -> None:
        for key, row, reason in rows[:1]:
            others = f", and {len(rows) - 1} others of this page" if len(rows) > 1 else ""
            log.warning("%s: %s of %r is put aside%s: %s", here.shard.database.name, row.rev, key, others, reason)
        self._parking.park(here, rows)

    def _count(self, works: Sequence[Receive], arrived: Sequence[Arrived]) -> None:
        rows = [row for work in works for found in work.rows.values() for row in found]
        pulled = Pulled(rows=len(rows), body_bytes=sum(len(row.body) for row in rows if row.body is not None))
        conflicted: list[str] = []
        for each in arrived:
            pulled.new += each.inserted
            pulled.obsolete += each.obsolete
            pulled.unexplained += each.unexplained
            pulled.forgotten += each.forgotten
            pulled.left += each.left
            pulled.revived += each.revived
            pulled.collided += each.collided
            conflicted += each.conflicted
        self._moved(pulled, works, conflicted)


def _halves(works: list[Receive]) -> tuple[list[Receive], list[Receive]] | None:
    """The works in two parts, to be done one after the other; None if there is no more than one row.

    What is said once, the checkpoint and what the source knows, comes with the end.
    """
    if len(works) > 1:
        middle = len(works) // 2
        return works[:middle], works[middle:]
    [work] = works
    if sum(map(len, work.rows.values())) < 2:
        return None
    if len(work.rows) > 1:
        keys = list(work.rows)
        cut = keys[: len(keys) // 2]
        first = {key: work.rows[key] for key in cut}
        second = {key: rows for key, rows in work.rows.items() if key not in first}
    else:
        [(key, rows)] = work.rows.items()
        first, second = {key: rows[: len(rows) // 2]}, {key: rows[len(rows) // 2 :]}
    before = replace(
        work,
        rows=first,
        knowledge=None,
        checkpoints=None,
        forget={},
        left=[key for key in work.left if key in first and key not in second],
    )
    return [before], [replace(work, rows=second, left=[key for key in work.left if key in second])]


def _is_refusal(shard: Shard, error: Exception) -> bool:
    """Whether the database is there, has done nothing, and does not want just these rows."""
    if isinstance(error, Unavailable):
        cause = error.__cause__
        if cause is None or error.outcome_unknown or shard.database.is_busy(error):
            return False
        if shard.database.dialect.code(cause) in shard.database.dialect.full:
            return False
    elif isinstance(error, StoreError) and not isinstance(error, ClockTooLong | ConfigurationError):
        return False
    try:
        shard.database.ask(sql.META)
    except StoreError:
        return False
    return True
