"""Reading heads as they were at one instant, however long the reading takes.

The instant is a position in each partition's commit order. Versions are never
changed, so what was there at a position can be read at any later time: a page at
a time, with no transaction held open between pages. A key that has not changed
since the position has its present heads; for the few that have, what was there is
computed from their versions up to the position. Two orders:

    by id     rows come as they were committed: the fastest, for whole collections.
              A row moves when its key changes, so changed keys come at the end,
              each once: the first change after the position says whether the page
              with the row was read before or after that.
    by key    through the index, up to some times as dear for each row: for small ranges.
              Keys never move, so a changed key is computed in its place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import ClassVar

from vstore.decoding import HEADS, Plain, Row, plain
from vstore.document import Version, heads_among, winner_first
from vstore.handle import partition_of, place_of, seq_of
from vstore.ranges import KeyRange, next_key
from vstore.reading import Reading
from vstore.sql import statements as sql
from vstore.sql.database import Connection, Database
from vstore.sql.rows import version_of
from vstore.sql.schema import LIVE, RIVAL
from vstore.sql.statements import chunks

CHUNK_ROWS = 2_000
WHOLE_ROWS = 256
FIRST_ROWS = 64
CHUNK_BYTES = 4 * 1024 * 1024
"""A chunk has at most 2,000 rows and, going by the one before, about 4 MiB of bodies; the first is small.

Of whole documents that are decoded together it has fewer: beyond some hundred
kilobytes they leave the processor's cache before they are used, which costs as
much as decoding them.
"""

BY_KEY_COST = 4
"""A row by key is taken to cost as much as so many by id.

Measured with 200,000 documents in memory, put in random order: 1.8 to 2.9 on
SQLite, 1.1 on PostgreSQL and MariaDB. Beyond memory it is more.
"""

ALL_ROWS = 1 << 62


@dataclass(frozen=True, slots=True)
class HeadsAt:
    """The live heads of a run of partitions in one database, at a position in each: a `vstore.slices.Part`.

    Of `keys` only; `by_key` says in which of the two orders.
    """

    collection: int
    positions: Mapping[int, int]
    keys: KeyRange
    by_key: bool = False
    moment: ClassVar[str] = ""

    def __str__(self) -> str:
        if self.by_key:
            return f"keys from {self.keys.low!r}"
        return f"partitions {min(self.positions)} to {max(self.positions)}"

    def pages(self, database: Database, reading: Reading | None) -> Iterator[list[Row] | Plain]:
        """Every key that was live at the positions, once. Without a reading, only (id, kind, key) is meant."""
        return self._by_key(database, reading) if self.by_key else self._by_id(database, reading)

    def heads(self, database: Database, key: str, *, bodies: bool = True) -> list[Version]:
        """The heads of one key at the positions, tombstones too, in winner order; none if it had not been written."""
        with database.snapshot() as connection:
            found = self._heads(connection, [key], former=True, bodies=bodies)
        return found[0][1] if found else []

    def rev_of(self, database: Database, key: str) -> str | None:
        """The winner's rev at the positions."""
        heads = self.heads(database, key, bodies=False)
        return heads[0].rev if heads and not heads[0].deleted else None

    def chosen(self, database: Database) -> HeadsAt:
        """The same in the cheaper order. Counts in an index, no further than the answer needs."""
        if self.keys.whole:
            return self
        most = sum(self.positions.values()) // BY_KEY_COST + 1  # more there cannot be that are worth it
        inside = count_heads(database, self.collection, self.keys, most)
        if inside >= most:
            return self
        wanted = inside * BY_KEY_COST + 1
        whole = int(database.ask(sql.COUNT_IDS, (*ends_of(self.positions), wanted))[0][0])
        return replace(self, by_key=True) if whole >= wanted else self

    def pieces(self, database: Database, count: int) -> list[HeadsAt]:
        """The same in at most so many parts of about equal size."""
        if self.by_key:
            return [replace(self, keys=keys) for keys in quantiles(database, self.collection, self.keys, count)]
        return [replace(self, positions=positions) for positions in parted(self.positions, count)]

    # --- by id -------------------------------------------------------------------------------------------------------

    def _by_id(self, database: Database, reading: Reading | None) -> Iterator[list[Row] | Plain]:
        after, top = ends_of(self.positions)
        keys = self.keys
        reached = self.positions  # how far each partition has been searched for changes
        changed: dict[str, int] = {}  # keys that changed after the position, and the id of their first change
        ends: list[int] = []  # for each chunk: the last id it covers, and how far the partitions were when it was read
        read_at: list[Mapping[int, int]] = []
        limit = CHUNK_ROWS if reading is None else min(FIRST_ROWS, CHUNK_ROWS)
        # On servers the smaller pages cost more round trips than joining saves, and MariaDB cuts off what is too long.
        joining = database.dialect.name == "sqlite"
        while after < top:
            with database.snapshot() as connection:
                # Rows first, positions second: what replaced a row before it was read is then among the changes, even
                # in a transaction() of the caller, where each query sees what others have committed by then.
                joined = _joined_by_id(connection, after, top, limit, reading) if joining else None
                if joined is None:
                    joining = False  # what does not join is not tried again: many such pages would be read twice
                    rows, end, body_bytes = _rows_by_id(connection, after, top, limit, reading)
                else:
                    ready, rows, end, body_bytes = joined
                rivals = {row[2] for row in rows if row[1] == RIVAL and row[2] not in changed and row[2] in keys}
                siblings = self._heads(connection, rivals, former=False, bodies=reading is not None)
                reached = self._note_changes(connection, reached, changed)
            start, after = after, end
            ends.append(end)
            read_at.append(reached)
            if reading is not None:
                reading.body_bytes += body_bytes
                most = WHOLE_ROWS if joining and reading.shape is None else CHUNK_ROWS
                limit = next_limit(limit, body_bytes, min(most, CHUNK_ROWS))
            if joined is None:
                page = [row for row in rows if row[1] == LIVE]
                if changed:
                    page = [row for row in page if row[2] not in changed]
                if not keys.whole:
                    page = [row for row in page if row[2] in keys]
                yield _shaped(page, reading)
            else:
                if changed or not keys.whole:
                    ready = Plain(pair for pair in ready if pair[0] not in changed and pair[0] in keys)
                yield ready
            if siblings:  # each key once, in the chunk that has its first live head
                yield [
                    row
                    for key, heads in siblings
                    for row in _row(key, heads, reading)
                    if row[0] > start and key not in changed
                ]
        # What is left are the keys that had changed by the time the chunk with their row was read.
        for chunk in chunks([key for key in changed if key in keys]):
            with database.snapshot() as connection:
                found = self._heads(connection, set(chunk), former=True, bodies=reading is not None)
            yield [
                row
                for key, heads in found
                for row in _row(key, heads, reading)
                if changed[key]
                <= place_of(partition_of(row[0]), read_at[bisect_left(ends, row[0])][partition_of(row[0])])
            ]

    # --- by key ------------------------------------------------------------------------------------------------------

    def _by_key(self, database: Database, reading: Reading | None) -> Iterator[list[Row]]:
        low: str | None = self.keys.low
        reached = self.positions
        changed: dict[str, int] = {}
        limit = CHUNK_ROWS if reading is None else min(FIRST_ROWS, CHUNK_ROWS)
        while low is not None:
            with database.snapshot() as connection:
                rows, body_bytes = self._rows_by_key(connection, low, limit, reading)
                full = len(rows) == limit
                # Of several heads one row says too little, and of the last key there may be more than were read.
                several = {row[2] for row in rows if row[1] == RIVAL} | ({rows[-1][2]} if full else set())
                several = {key for key in several if key not in changed}
                siblings = self._heads(connection, several, former=False, bodies=reading is not None)
                reached = self._note_changes(connection, reached, changed)
                moved = {row[2] for row in rows if row[2] in changed} if changed else set()
                former = self._heads(connection, moved, former=True, bodies=reading is not None)
            if reading is not None:
                reading.body_bytes += body_bytes
                limit = next_limit(limit, body_bytes, CHUNK_ROWS)
            low = next_key(rows[-1][2]) if full else None
            page = _shaped([row for row in rows if row[1] == LIVE], reading)
            if several or moved:
                page = [row for row in page if row[2] not in several and row[2] not in changed]
                page += [row for key, heads in siblings if key not in changed for row in _row(key, heads, reading)]
                page += [row for key, heads in former for row in _row(key, heads, reading)]
                page.sort(key=_key)
            yield page

    def _rows_by_key(
        self, connection: Connection, low: str, limit: int, reading: Reading | None
    ) -> tuple[list[Row], int]:
        bounds = self.collection, low, self.keys.high, limit
        if reading is None:
            return connection.rows(sql.HEADS_BY_KEY, bounds), 0
        if reading.versions:
            return _with_versions(connection.rows(sql.VERSIONS_BY_KEY, bounds))
        rows = connection.rows(sql.LIVE_BY_KEY, bounds)
        return rows, sum([len(row[4]) for row in rows if row[4]])

    # --- what both need ----------------------------------------------------------------------------------------------

    def _note_changes(
        self, connection: Connection, reached: Mapping[int, int], changed: dict[str, int]
    ) -> Mapping[int, int]:
        """Adds every key with a version since `reached`, or with a head that has learnt more; how far that goes."""
        bounds = min(self.positions), max(self.positions) + 1
        now = {row[0]: row[1] for row in connection.rows(sql.POSITIONS, bounds)}
        for partition, seq in now.items():
            if seq > reached.get(partition, seq):
                new = place_of(partition, reached[partition]), place_of(partition, seq)
                firsts = dict(connection.rows(sql.FIRST_CHANGES, new))
                for id_, key, kind in connection.rows(sql.EVENTS_BY_ID, (*new, ALL_ROWS)):
                    if kind != "purged":  # that only fills a place
                        firsts[key] = min(id_, firsts.get(key, id_))
                for key, first in firsts.items():
                    changed.setdefault(key, first)
        return now

    def _heads(
        self, connection: Connection, keys: Collection[str], *, former: bool, bodies: bool
    ) -> list[tuple[str, list[Version]]]:
        """The heads of keys, tombstones too: the present ones, or those at the positions."""
        versions: dict[str, dict[str, Version]] = {}
        statement = sql.VERSIONS if former else sql.HEADS
        for chunk in chunks(sorted(keys)):
            for key, *lineage in connection.rows(statement(len(chunk)), [self.collection, *chunk]):
                version = version_of(lineage if former else lineage[1:])
                if not former or seq_of(version.id) <= self.positions.get(partition_of(version.id), -1):
                    versions.setdefault(key, {})[version.rev] = version
        heads = [
            (key, heads_among(found) if former else winner_first(found.values())) for key, found in versions.items()
        ]
        if not bodies:
            return heads
        fetched = bodies_of(connection, [head.id for _, found in heads for head in found if not head.stub])
        return [(key, [head._replace(body=fetched.get(head.id)) for head in found]) for key, found in heads]


def _joined_by_id(
    connection: Connection, after: int, top: int, limit: int, reading: Reading | None
) -> tuple[Plain, list[Row], int, int] | None:
    """As `_rows_by_id`, with the live ones decoded and rows of the others; None if one of them cannot be joined."""
    if reading is None or reading.versions or any(reading.holding):
        return None
    if reading.shape is not None and not hasattr(reading.shape, "decode_list"):
        return None
    found, end = _window(connection, after, top, limit)
    count, keys, bodies = connection.rows(sql.JOINED, (after, end))[0]
    others = connection.rows(sql.OTHERS_BY_ID, (after, end)) if count < found else []
    if count + len(others) < found:
        return None
    if not count:
        return Plain(), others, end, 0
    page = plain(reading, count, keys, bodies)
    return None if page is None else (page, others, end, len(bodies) - (count - 1))


def _window(connection: Connection, after: int, top: int, limit: int) -> tuple[int, int]:
    """How many heads there are from an id on, of so many at most, and the id up to which these are all."""
    found, last = connection.rows(sql.WINDOW, (after, top, limit))[0]
    return found, last if found == limit else top


def _rows_by_id(
    connection: Connection, after: int, top: int, limit: int, reading: Reading | None
) -> tuple[list[Row], int, int]:
    """The rows of so many heads at most from an id on, the id up to which that is all, and the bytes of the bodies."""
    bounds = after, top, limit
    if reading is None:
        rows: list[Row] = connection.rows(sql.KEYS_BY_ID, bounds)
        body_bytes = 0
    elif reading.versions:
        rows, body_bytes = _with_versions(connection.rows(sql.HEADS_BY_ID, bounds))
    elif any(reading.holding):
        # So many heads are looked at, not found: what holds nothing of it does not keep one statement busy for ever.
        _found, end = _window(connection, *bounds)
        sizes = tuple([len(alternative) for alternative in reading.holding if alternative])
        rows = connection.rows(sql.LIVE_HOLDING(sizes), (after, end, *chain.from_iterable(reading.holding)))
        return rows, end, sum([len(row[4]) for row in rows if row[4]])
    else:
        rows = connection.rows(sql.LIVE_BY_ID, bounds)
        body_bytes = sum([len(row[4]) for row in rows if row[4]])
    return rows, rows[-1][0] if len(rows) == limit else top, body_bytes


def _with_versions(found: Sequence[Sequence[object]]) -> tuple[list[Row], int]:
    """Rows of (state, key, body, lineage) as rows of heads, still with the state for a kind; and the bytes."""
    rows = []
    body_bytes = 0
    for state, key, body, *lineage in found:
        version = version_of(lineage, body)  # type: ignore[arg-type]
        rows.append((version.id, state, key, [version], None))
        body_bytes += len(body or b"")  # type: ignore[arg-type]
    return rows, body_bytes  # type: ignore[return-value]


def _shaped(page: list[Row], reading: Reading | None) -> list[Row]:
    """Rows of the only live head of a key, in the form that the reading wants."""
    if reading is not None and reading.versions:
        return [(id_, HEADS, key, heads, None) for id_, _state, key, heads, _body in page]
    return page


def _row(key: str, heads: list[Version], reading: Reading | None) -> list[Row]:
    """The row of a key with these heads, if it is live."""
    live = [head for head in heads if not head.deleted]
    if not live:
        return []
    first = min(head.id for head in live)
    if reading is not None:
        reading.body_bytes += sum([len(head.body) for head in live if head.body])
    if len(live) == 1 and not (reading is not None and reading.versions):
        return [(first, LIVE, key, live[0].codec, live[0].body)]
    return [(first, HEADS, key, heads, None)]


def _key(row: Row) -> str:
    return row[2]


def ends_of(positions: Mapping[int, int]) -> tuple[int, int]:
    """The ids below and at the end of a run of partitions up to these positions."""
    low, high = min(positions), max(positions)
    return place_of(low, 0), place_of(high, positions[high])


def parted(positions: Mapping[int, int], count: int) -> list[dict[int, int]]:
    """A run of partitions in at most so many runs of about as many."""
    partitions = sorted(positions)
    count = min(len(partitions), count)
    cuts = [n * len(partitions) // count for n in range(count + 1)]
    return [{partition: positions[partition] for partition in partitions[a:b]} for a, b in pairwise(cuts)]


def count_heads(database: Database, collection: int, keys: KeyRange, most: int = ALL_ROWS) -> int:
    """How many heads a range of keys has now, tombstones too; counted up to `most`, in an index."""
    return int(database.ask(sql.COUNT_KEYS, (collection, keys.low, keys.high, most))[0][0])


def estimate(database: Database, collection: int, positions: Mapping[int, int], keys: KeyRange) -> int:
    """An upper bound of the keys ever written: at no cost how many versions were, or by an index those in a range."""
    versions = sum(positions.values())
    return versions if keys.whole else min(versions, count_heads(database, collection, keys))


def quantiles(database: Database, collection: int, keys: KeyRange, count: int) -> list[KeyRange]:
    """A range cut into at most so many with about equally many heads. Counts its heads twice, in an index."""
    inside = count_heads(database, collection, keys)
    step = max(1, -(-inside // count))
    cuts = [keys.low]
    while len(cuts) < count:
        found = database.ask(sql.KEY_AT, (collection, cuts[-1], keys.high, step))
        if not found:
            break
        cuts.append(max(found[0][0], next_key(cuts[-1])))  # a key with very many heads is a range of its own
    return [KeyRange(low, high) for low, high in pairwise([*cuts, keys.high])]


def next_limit(limit: int, body_bytes: int, most: int) -> int:
    """How many rows to read next, if the last `limit` had so many bytes: at least 1, at most eight times as many."""
    return max(1, min(most, 8 * limit, limit * CHUNK_BYTES // max(body_bytes, 1)))


def bodies_of(connection: Connection, ids: Sequence[int]) -> dict[int, bytes | None]:
    """The bodies of versions by id."""
    found: dict[int, bytes | None] = {}
    for chunk in chunks(ids):
        found.update(connection.rows(sql.BODIES(len(chunk)), chunk))
    return found
