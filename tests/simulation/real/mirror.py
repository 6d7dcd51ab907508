"""What is in a database file, read past the code under test: plain SQL on a connection of its own.

Only the texts of single rows are read with the product's own reader; which rows
there are, and which of them are heads, nobody is asked.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vstore.clock import Knowledge
from vstore.document import Entry, Version
from vstore.partition import part_of
from vstore.sql.rows import LINEAGE, version_of

_VERSIONS = f"SELECT key, body, {', '.join(LINEAGE)} FROM vs_version ORDER BY id"
_HEADS = "SELECT key, id, state, lane0, lane1, lane2, lane3 FROM vs_head ORDER BY key, id"
_PARTITIONS = "SELECT id, part, actor, ctr, seq, feed FROM vs_partition ORDER BY part"


@lru_cache(maxsize=50_000)
def _version(row: tuple[object, ...], body: bytes | None) -> Version:
    return version_of(row, body)


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter row."""

    id: int
    part: int
    actor: str
    ctr: int
    seq: int
    feed: str


@dataclass(slots=True)
class State:
    """One collection of one file at one moment."""

    partitions: int
    entries: dict[str, Entry]
    counters: list[Counter]
    knowledge: list[Knowledge]
    forgotten: list[dict[str, int]]
    lanes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)  # keys whose head rows have no version

    def entry(self, key: str) -> Entry:
        return self.entries.get(key) or Entry()

    def known(self, key: str) -> Knowledge:
        return self.knowledge[part_of(key, self.partitions)]

    def forgets(self, key: str) -> dict[str, int]:
        return self.forgotten[part_of(key, self.partitions)]

    def heads(self, key: str) -> tuple[str, ...]:
        return tuple(sorted(self.entry(key).heads))


class Mirror:
    """Looks into one file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    def close(self) -> None:
        self._connection.close()

    def state(self) -> State:
        """Everything, in one snapshot."""
        run = self._connection.execute
        run("BEGIN")
        try:
            counters = [Counter(*row) for row in run(_PARTITIONS)]
            by_id = {counter.id: counter.part for counter in counters}
            entries: dict[str, Entry] = {}
            places: dict[tuple[str, int], Version] = {}
            for key, body, *row in run(_VERSIONS):
                version = _version(tuple(row), body)
                entries.setdefault(key, Entry()).versions[version.rev] = version
                places[key, version.id] = version
            lanes: dict[str, list[tuple[int, ...]]] = {}
            strays = []
            for key, id_, _state, *four in run(_HEADS):
                head = places.get((key, id_))
                if head is None:
                    strays.append(key)
                    continue
                entries[key].heads[head.rev] = head
                lanes.setdefault(key, []).append(tuple(four))
            knowledge = [Knowledge({counter.actor: [(1, counter.ctr)]} if counter.ctr else {}) for counter in counters]
            for partition, actor, lo, hi in run("SELECT partition, actor, lo, hi FROM vs_knowledge"):
                knowledge[by_id[partition]].add(actor, lo, hi)
            forgotten: list[dict[str, int]] = [{} for _ in counters]
            for partition, actor, base in run("SELECT partition, actor, base FROM vs_forgotten"):
                forgotten[by_id[partition]][actor] = base
        finally:
            run("COMMIT")
        return State(len(counters), entries, counters, knowledge, forgotten, lanes, strays)

    def checkpoints(self) -> dict[str, str]:
        return dict(self._connection.execute("SELECT name, value FROM vs_checkpoint"))

    def registered(self) -> set[str]:
        """The ids of the full replicas that are registered here."""
        return {uid for (uid,) in self._connection.execute("SELECT replica FROM vs_replica WHERE role = 'full'")}

    def parked(self) -> set[tuple[str, str]]:
        """(key, rev) of the rows that wait, of whatever link."""
        return set(self._connection.execute("SELECT key, rev FROM vs_parked WHERE kind = 'row'"))

    def lease(self, name: str) -> int:
        """The token of a lease; 0 if it was never taken."""
        found = self._connection.execute("SELECT token FROM vs_lease WHERE name = ?", (name,)).fetchall()
        return int(found[0][0]) if found else 0

    def events(self) -> list[tuple[int, str, str]]:
        """(id, key, kind) of all events, in order."""
        return list(self._connection.execute("SELECT id, key, kind FROM vs_event ORDER BY id"))

    def dump(self) -> bytes:
        """The file as a backup tool would copy it, log included."""
        return self._connection.serialize()
