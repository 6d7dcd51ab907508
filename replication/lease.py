"""The right to write into a target for one link, held by one replicator at a time.

A lease is a row in each database of the target that is written. Its token rises
with each new holder, and every transaction of the holder checks its token there:
so one who was away for too long, and believes that he still holds the lease,
writes nothing. Clocks decide only how early somebody may try to take over.

Source: Burrows (2006), "The Chubby lock service"; the token is its sequencer.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from vstore.errors import StoreError, Unavailable
from vstore.shard import Shard
from vstore.sql import statements as sql

LEASE_SECONDS = 30.0
"""How long a holder may say nothing before others take over."""


_active: set[tuple[str, str]] = set()
"""The leases that this process has: name and holder."""

MOST_LEASES = 10
"""A lease that ends later than in so many of its spans is believed no more."""


class LeaseHeld(Unavailable):
    """Somebody else replicates the same link. Nothing was written; he goes on with it."""


def now_us() -> int:
    """The wall clock, microseconds since 1970 UTC."""
    return time.time_ns() // 1000


class Lease:
    """One holder's lease under a name, on any number of shards.

    Hand one to several pulls of a link to keep it between them; each renews it.
    """

    def __init__(
        self,
        name: str,
        *,
        holder: str = "",
        seconds: float = LEASE_SECONDS,
        now_us: Callable[[], int] = now_us,
    ) -> None:
        """Takes nothing yet.

        Args:
            name: of the link; at most 255 characters of ASCII.
            holder: who is named to others, and who may go on at once where a
                lease of this name was not given back, with a new token; else
                this host and process, and nobody else.
        """
        self.name = name
        self.holder = holder or new_holder()
        self._lasting_us = int(seconds * 1_000_000)
        self.now_us = now_us
        self._held: dict[int, tuple[Shard, int, int]] = {}  # by the shard's identity: shard, token, until

    def fence(self, shard: Shard) -> tuple[str, int]:
        """The name and the token for `Receive.fence`; takes the lease there first, or renews it when a third is over.

        Raises:
            LeaseHeld: somebody else holds it, or took it over meanwhile.
            Unavailable: the database failed.
        """
        held = self._held.get(id(shard))
        if held is not None and self.now_us() < held[2] - self._lasting_us * 2 // 3:
            return self.name, held[1]
        ours = None if held is None else held[1]
        _active.add((self.name, self.holder))  # before it can be seen in the database
        try:
            try:
                token = self._take(shard, ours)
            except LeaseHeld:
                raise
            except Unavailable:
                token = self._take(shard, ours)  # two that are the first ever to ask both insert, and one is refused
        except BaseException:
            if not self._held:
                _active.discard((self.name, self.holder))
            raise
        self._held[id(shard)] = shard, token, self.now_us() + self._lasting_us
        return self.name, token

    def release(self) -> None:
        """Gives it back everywhere, so that nobody has to wait for its end. A database that fails is left alone."""
        for shard, token, _until in self._held.values():
            with suppress(StoreError), shard.transaction():
                connection = shard.database.read()
                if [row[1] for row in connection.rows(sql.LOCK_LEASE, (self.name,))] == [token]:
                    connection.run(sql.SET_LEASE, ("", token, 0, self.name))
        self._held.clear()
        _active.discard(
            (self.name, self.holder)
        )  # also where it could not be given back: who asks here next need not wait

    def _take(self, shard: Shard, ours: int | None) -> int:
        """The token under which the lease is ours on a shard from now on."""
        now = self.now_us()
        with shard.transaction():
            connection = shard.database.read()
            rows = connection.rows(sql.LOCK_LEASE, (self.name,))
            if not rows:
                connection.run(sql.ADD_LEASE, (self.name, self.holder, 1, now + self._lasting_us))
                return 1
            [(holder, token, until)] = rows
            if token != ours:
                # Somebody else has had it since; he may be done with it by now. One that ends later than any lease
                # lasts was written by a clock that has jumped; whoever is wrong, the token keeps the two apart.
                lives = now < until <= now + MOST_LEASES * max(self._lasting_us, int(LEASE_SECONDS * 1_000_000))
                if lives and holder != self.holder and not _is_gone(self.name, holder):
                    raise LeaseHeld(
                        f"{shard.database.name} is being replicated into by {holder}, whose lease {self.name} ends in "
                        f"{(until - now) / 1_000_000:.0f} s unless he renews it. Nothing was written. Leave it to him, "
                        f"or stop him first."
                    )
                token += 1
            connection.run(sql.SET_LEASE, (self.holder, token, now + self._lasting_us, self.name))
            return int(token)


def new_holder() -> str:
    """A name for a holder: this host, this process, and something that nobody else has."""
    return f"{_host()}/{os.getpid()}/{secrets.token_hex(4)}"


def _host() -> str:
    return platform.node().encode("ascii", "replace").decode().replace("/", "_")[:100] or "unknown"


def _is_gone(name: str, holder: str) -> bool:
    """Whether a holder was a process of this host that is no more, or one of ours that has let go of its lease.

    Then nobody has to wait for it to end. Should it be wrong, in another process namespace say, the fence still keeps
    the two apart.
    """
    host, _, rest = holder.partition("/")
    pid = rest.partition("/")[0]
    if host != _host() or not pid.isdecimal():
        return False
    if int(pid) == os.getpid():
        return (name, holder) not in _active
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is there and not ours, or no number of a process
        return False
    return False
