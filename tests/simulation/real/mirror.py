"""What is in a database file, read past the code under test: plain SQL on a connection of its own.

Only the texts of single rows are read with the product's own reader; which rows
there are, and which of them are heads, nobody is asked.

At a commit the tables that it touched are read, and compared with what was read
before: what has not changed is the same object, so that nobody looks twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from vstore import partition
from vstore.clock import Knowledge
from vstore.document import Entry, Version
from vstore.sql.rows import LINEAGE, version_of

_READ = {
    "vs_version": f"SELECT key, body, {', '.join(LINEAGE)} FROM vs_version ORDER BY id",
    "vs_head": "SELECT key, id, lane0, lane1, lane2, lane3 FROM vs_head ORDER BY key, id",
    "vs_partition": "SELECT id, part, actor, ctr, seq, feed FROM vs_partition ORDER BY part",
    "vs_knowledge": "SELECT partition, actor, lo, hi FROM vs_knowledge",
    "vs_forgotten": "SELECT partition, actor, base FROM vs_forgotten",
    "vs_checkpoint": "SELECT name, value FROM vs_checkpoint",
    "vs_parked": "SELECT key, rev FROM vs_parked WHERE kind = 'row'",
}

_Row = tuple[Any, ...]
part_of = lru_cache(maxsize=1_000)(partition.part_of)


@lru_cache(maxsize=50_000)
def _version(row: _Row) -> Version:
    _key, body, *lineage = row
    return version_of(lineage, body)


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
    """One collection of one file at one moment. Never changed."""

    partitions: int
    entries: dict[str, Entry]
    counters: list[Counter]
    knowledge: list[Knowledge]
    forgotten: list[dict[str, int]]
    lanes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)  # keys whose head rows have no version
    checkpoints: dict[str, str] = field(default_factory=dict)
    parked: set[tuple[str, str]] = field(default_factory=set)  # see Mirror.parked

    def entry(self, key: str) -> Entry:
        return self.entries.get(key) or _NOTHING

    def known(self, key: str) -> Knowledge:
        return self.knowledge[part_of(key, self.partitions)]

    def forgets(self, key: str) -> dict[str, int]:
        return self.forgotten[part_of(key, self.partitions)]

    def heads(self, key: str) -> tuple[str, ...]:
        return tuple(sorted(self.entry(key).heads))


_NOTHING = Entry()


class Mirror:
    """Looks into one file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        self._rows: dict[str, list[_Row]] = {}
        self._of_keys: dict[str, tuple[list[_Row], list[_Row], Entry, list[tuple[int, ...]], bool]] = {}
        self._of_parts: dict[int, tuple[list[_Row], Knowledge]] = {}

    def close(self) -> None:
        self._connection.close()

    def state(self, touched: Container[str] = frozenset(_READ)) -> State:
        """Everything, in one snapshot. Tables that were not `touched` since the last look are as they were."""
        run = self._connection.execute
        run("BEGIN")
        try:
            for table, query in _READ.items():
                if table in touched:
                    self._rows[table] = run(query).fetchall()
        finally:
            run("COMMIT")
        counters = [Counter(*row) for row in self._rows["vs_partition"]]
        versions, heads = _by_key(self._rows["vs_version"]), _by_key(self._rows["vs_head"])
        knowledge, forgotten = self._rows["vs_knowledge"], self._rows["vs_forgotten"]
        checkpoints, parked = dict(self._rows["vs_checkpoint"]), set(self._rows["vs_parked"])
        state = State(len(counters), {}, counters, [], [], checkpoints=checkpoints, parked=parked)
        for counter in counters:
            state.knowledge.append(self._knowledge(counter, [row for row in knowledge if row[0] == counter.id]))
            state.forgotten.append({actor: base for of, actor, base in forgotten if of == counter.id})
        for key, rows in versions.items():
            state.entries[key], lanes, astray = self._entry(key, rows, heads.pop(key, []))
            if lanes:
                state.lanes[key] = lanes
            if astray:
                state.strays.append(key)
        state.strays += heads
        return state

    def _entry(self, key: str, rows: list[_Row], heads: list[_Row]) -> tuple[Entry, list[tuple[int, ...]], bool]:
        before = self._of_keys.get(key)
        if before is None or before[0] != rows or before[1] != heads:
            found = [_version(row) for row in rows]
            by_id = {version.id: version for version in found}
            shown = [by_id[id_] for _key, id_, *_lanes in heads if id_ in by_id]
            entry = Entry({head.rev: head for head in shown}, {version.rev: version for version in found})
            lanes = [tuple(four) for _key, id_, *four in heads if id_ in by_id]
            before = self._of_keys[key] = (rows, heads, entry, lanes, len(shown) < len(heads))
        return before[2:]

    def _knowledge(self, counter: Counter, rows: list[_Row]) -> Knowledge:
        rows = [row[1:] for row in rows]
        if counter.ctr:
            rows.insert(0, (counter.actor, 1, counter.ctr))
        before = self._of_parts.get(counter.id)
        if before is None or before[0] != rows:
            knowledge = Knowledge()
            for actor, lo, hi in rows:
                knowledge.add(actor, lo, hi)
            before = self._of_parts[counter.id] = (rows, knowledge)
        return before[1]

    def registered(self) -> set[str]:
        """The ids of the full replicas that are registered here."""
        return {uid for (uid,) in self._connection.execute("SELECT replica FROM vs_replica WHERE role = 'full'")}

    def parked(self) -> set[tuple[str, str]]:
        """(key, rev) of the rows that wait, of whatever link."""
        return set(self._connection.execute(_READ["vs_parked"]))

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


def _by_key(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found
