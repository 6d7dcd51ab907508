"""Reading a whole collection as it was at one instant, however long the reading takes.

A `Snapshot` is a position in each partition's commit order. Versions are never
changed, so what was there at a position can be read at any later time: rows come
in commit order, a chunk at a time, with no transaction held open between chunks.

A key that has not changed since the position has its present heads. For the few
that have, what was there is computed from their versions up to the position; each
is yielded once, since its first change after the position says whether the chunk
with its row was read before or after that.

A `Slice` is a run of partitions of a snapshot, as a value that travels to another
process and opens its own connection there.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import Any, Literal

from vstore.codecs import Codec, codec
from vstore.document import Document, Version, heads_among, winner_first
from vstore.errors import Conflict, HistoryPruned, InvalidKey, NotFound
from vstore.handle import Handle, document_of, partition_of, place_of, unprefixed
from vstore.resolvers import DELETE
from vstore.sql import statements as sql
from vstore.sql.database import Connection, Database
from vstore.sql.rows import version_of
from vstore.sql.schema import LIVE, RIVAL
from vstore.sql.statements import chunks

CHUNK_ROWS = 2_000
FIRST_ROWS = 64
CHUNK_BYTES = 4 * 1024 * 1024
"""A chunk has at most 2,000 rows and, going by the one before, about 4 MiB of bodies; the first is small."""

ALL_ROWS = 1 << 62

OnConflict = Literal["raise", "winner", "skip"]
Row = tuple[int, int, str, Any, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of partitions in one database, each with the position up to which it is read."""

    collection: int
    positions: Mapping[int, int]

    @property
    def ends(self) -> tuple[int, int]:
        """The ids below and at the end of what may be read."""
        low, high = min(self.positions), max(self.positions)
        return place_of(low, 0), place_of(high, self.positions[high])


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a snapshot that another process can read: where the database is, and what to read of it."""

    url: str = field(repr=False)  # it may hold a password
    name: str
    run: Run
    codecs: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""

    def documents(self, on_conflict: OnConflict = "winner") -> Iterator[tuple[str, Any]]:
        """Every live document of the slice as (key, value), over a connection of this process.

        Args:
            on_conflict: for documents with several live siblings: raise
                Conflict, yield the winner, or skip them.
        """
        decoders = Decoders(**self.codecs)
        database = Database(self.url)  # its own, and closed: a worker may live longer than the file does
        try:
            yield from documents(database, self.run, decoders.named, self.name, on_conflict, self.prefix)
        finally:
            database.close()


class AsItWas(Mapping[str, Any]):
    """A read-only mapping of a collection at another time than now: what its kinds have in common."""

    @abstractmethod
    def read(self, key: str) -> Document:
        """The document then, siblings or a tombstone included. Raises NotFound if there had been none."""

    @abstractmethod
    def rows(self, on_conflict: OnConflict | None = None) -> Iterator[tuple[str, Any]]:
        """What `items` iterates over."""

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        try:
            return not self.read(key).deleted
        except (NotFound, InvalidKey):
            return False

    def items(self, *, on_conflict: OnConflict | None = None) -> Items:
        """Every live document then as (key, value), in the order of iteration."""
        return Items(self, on_conflict)

    def values(self, *, on_conflict: OnConflict | None = None) -> Values:
        """The values of `items`, in the same order."""
        return Values(self, on_conflict)


class Snapshot(AsItWas):
    """A collection as it was when the snapshot was taken. Costs nothing to keep; a prune may make parts unreadable."""

    def __init__(self, handle: Handle, prefix: str = "") -> None:
        """Takes the snapshot: one small query for each shard."""
        self._handle = handle
        self._prefix = prefix
        self._runs = []
        reached = handle.positions()
        for shard, definition, first, end in handle.runs():
            positions = {definition.base + part: reached[part][1] for part in range(first, end)}
            self._runs.append((shard.database, Run(definition.id, positions)))

    def __getitem__(self, key: str) -> Any:
        """The value then. Raises NotFound if there was none, Conflict if there were several live siblings."""
        document = self.read(key)
        if document.deleted:
            raise NotFound(f"{key!r} in {self._handle.name!r} was deleted at the snapshot.")
        if document.conflicted:
            raise Conflict(f"{key!r} in {self._handle.name!r} had several live siblings. read() shows them.", document)
        return document.value

    def __iter__(self) -> Iterator[str]:
        cut = len(self._prefix)
        for database, run in self._runs:
            for page in _scan(database, run, self._prefix, bodies=False):
                for row in page:
                    yield row[2][cut:]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def rows(
        self, on_conflict: OnConflict | None = None, settle: Callable[[Document], Any] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """What `items` iterates over.

        Args:
            settle: without `on_conflict`, gives the value of a document with
                several live siblings, or DELETE to leave it out.
        """
        for database, run in self._runs:
            yield from documents(
                database,
                run,
                self._handle.codec_named,
                self._handle.name,
                on_conflict or "raise",
                self._prefix,
                settle if on_conflict is None else None,
            )

    def read(self, key: str) -> Document:
        """The document at the snapshot: its siblings if there are several, the tombstone if it was deleted.

        Raises:
            NotFound: nothing had been written under the key.
            HistoryPruned: what was there has been pruned since.
        """
        full = self._prefix + key
        shard, definition, part = self._handle.place(full)
        for database, run in self._runs:
            if database is shard.database:
                partition = definition.base + part
                upto = {full: place_of(partition, run.positions[partition])}
                with database.snapshot() as connection:
                    heads = _heads_at(connection, run, [full], upto, bodies=True)
                if heads:
                    return unprefixed(self._handle.document(full, heads[0][1]), len(self._prefix))
        raise NotFound(f"{key!r} in {self._handle.name!r}: nothing was stored under it at the snapshot.")

    def slices(self, count: int) -> Sequence[Slice]:
        """The snapshot cut into about `count` parts of whole partitions, for other processes to read."""
        total = sum(len(run.positions) for _, run in self._runs)
        found = []
        for database, run in self._runs:
            partitions = sorted(run.positions)
            pieces = max(1, min(len(partitions), round(count * len(partitions) / total)))
            for n in range(pieces):
                part = partitions[n * len(partitions) // pieces : (n + 1) * len(partitions) // pieces]
                found.append(
                    Slice(
                        database.url.render_as_string(hide_password=False),
                        self._handle.name,
                        Run(run.collection, {partition: run.positions[partition] for partition in part}),
                        self._handle.codec_settings,
                        self._prefix,
                    )
                )
        return found

    def len_estimate(self) -> int:
        """About how many versions were ever committed: an upper bound of the documents, at no cost."""
        return sum(sum(run.positions.values()) for _, run in self._runs)


class Items(ItemsView[str, Any]):
    """The documents of a mapping that streams them."""

    def __init__(self, mapping: Any, on_conflict: OnConflict | None = None) -> None:
        """Over a mapping with `rows`."""
        super().__init__(mapping)
        self._on_conflict = on_conflict

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping.rows(self._on_conflict)  # type: ignore[attr-defined, no-any-return]


class Values(ValuesView[Any]):
    """Their values."""

    def __init__(self, mapping: Any, on_conflict: OnConflict | None = None) -> None:
        """Over a mapping with `rows`."""
        super().__init__(mapping)
        self._on_conflict = on_conflict

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.rows(self._on_conflict))  # type: ignore[attr-defined]

    def __contains__(self, value: object) -> bool:
        return any(value == other for other in self)


class Decoders:
    """Codecs by the name stored with a row, each made once."""

    def __init__(self, allow_pickle: bool = False, max_body_bytes: int | None = None) -> None:
        """How permissive they are; the body limit is the codecs' own default if None."""
        self._settings: dict[str, Any] = {"allow_pickle": allow_pickle}
        if max_body_bytes is not None:
            self._settings["max_body_bytes"] = max_body_bytes
        self._made: dict[str, Codec] = {}

    def named(self, name: str) -> Codec:
        """The codec that wrote rows under this name."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = codec(name, **self._settings)
        return found


def documents(
    database: Database,
    run: Run,
    codec_named: Callable[[str], Codec],
    name: str,
    on_conflict: OnConflict,
    prefix: str = "",
    settle: Callable[[Document], Any] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Every live document of a run as (key without the prefix, value)."""
    cut = len(prefix)
    last, decode = "", codec_named("json").decode
    for page in _scan(database, run, prefix, bodies=True):
        for _id, state, key, writer, body in page:
            if state != LIVE:
                document = unprefixed(document_of(key, writer, name, codec_named), cut)
                value = document.value
                if document.conflicted and on_conflict != "winner":
                    if on_conflict == "skip":
                        continue
                    if settle is None:
                        revs = ", ".join(sibling.rev for sibling in document.siblings)
                        raise Conflict(
                            f"{document.key!r} in {name!r} has {len(document.siblings)} live siblings ({revs}). "
                            f"Settle it with resolve(), or say on_conflict='winner' or 'skip'.",
                            document,
                        )
                    value = settle(document)
                if value is not DELETE:
                    yield document.key, value
                continue
            if body is None:
                raise HistoryPruned(
                    f"the version of {key!r} in {name!r} that was there when the snapshot was taken has been pruned "
                    f"since. Nothing was changed. Take another snapshot."
                )
            if writer != last:
                last, decode = writer, codec_named(writer).decode
            yield key[cut:] if cut else key, decode(body)


def _scan(database: Database, run: Run, prefix: str, *, bodies: bool) -> Iterator[list[Row]]:
    """Pages of every key of a run that was live at its positions.

    A row is (id, LIVE, key, codec, body), or (id, RIVAL, key, heads, None)
    for several siblings; without `bodies` only its first three are meant.
    """
    after, top = run.ends
    low, high = min(run.positions), max(run.positions) + 1
    reached: Mapping[int, int] = run.positions  # how far each partition has been searched for changes
    changed: dict[str, int] = {}  # keys that changed after the position, and the id of their first change
    ends: list[int] = []  # for each chunk: the last id it covers, and how far the partitions were when it was read
    read_at: list[Mapping[int, int]] = []
    statement = sql.LIVE_BY_ID if bodies else sql.KEYS_BY_ID
    limit = min(FIRST_ROWS, CHUNK_ROWS) if bodies else CHUNK_ROWS
    more = True
    while more:
        with database.snapshot() as connection:
            # Rows first, positions second: what replaced a row before it was read is then among the changes, even in a
            # transaction() of the caller, where each query sees what others have committed by then.
            rows = connection.rows(statement, (after, top, limit))
            rivals = {row[2] for row in rows if row[1] == RIVAL and row[2] not in changed}
            siblings = dict(_heads_at(connection, run, sorted(rivals), None, bodies=bodies)) if rivals else {}
            now = {row[0]: row[1] for row in connection.rows(sql.POSITIONS, (low, high))}
            _note_changes(connection, reached, now, changed)
        more = len(rows) == limit
        if bodies:
            limit = next_limit(limit, sum([len(row[4]) for row in rows if row[4]]), CHUNK_ROWS)
        start, after = after, rows[-1][0] if more else top
        ends.append(after)
        read_at.append(now)
        reached = now
        page = [row for row in rows if row[1] == LIVE]
        if changed:
            page = [row for row in page if row[2] not in changed]
        if prefix:
            page = [row for row in page if row[2].startswith(prefix)]
        yield page
        if siblings:  # each key once, in the chunk that has its first live head
            yield [
                row
                for key, heads in siblings.items()
                for row in _row(key, heads)
                if row[0] > start and key not in changed and key.startswith(prefix)
            ]
    # What is left are the keys that had changed by the time the chunk with their row was read.
    for chunk in chunks([key for key in changed if key.startswith(prefix)]):
        keys = list(dict.fromkeys(chunk))
        upto = {
            key: place_of(partition, run.positions[partition])
            for key in keys
            for partition in [partition_of(changed[key])]
        }
        with database.snapshot() as connection:
            found = _heads_at(connection, run, keys, upto, bodies=bodies)
        yield [
            row
            for key, heads in found
            for row in _row(key, heads)
            if changed[key] <= place_of(partition_of(row[0]), read_at[bisect_left(ends, row[0])][partition_of(row[0])])
        ]


def _row(key: str, heads: Sequence[Version]) -> list[Row]:
    """The row of a key with these heads, if it is live."""
    live = [head for head in heads if not head.deleted]
    if not live:
        return []
    first = min(head.id for head in live)
    if len(live) == 1:
        return [(first, LIVE, key, live[0].codec, live[0].body)]
    return [(first, RIVAL, key, heads, None)]


def _note_changes(
    connection: Connection, reached: Mapping[int, int], now: Mapping[int, int], changed: dict[str, int]
) -> None:
    """Adds to `changed` every key with a version committed since `reached`, or with a head that has learnt more."""
    for partition, seq in now.items():
        if seq > reached.get(partition, seq):
            bounds = place_of(partition, reached[partition]), place_of(partition, seq)
            firsts = dict(connection.rows(sql.FIRST_CHANGES, bounds))
            for id_, key, _kind in connection.rows(sql.EVENTS_BY_ID, (*bounds, ALL_ROWS)):
                firsts[key] = min(id_, firsts.get(key, id_))
            for key, first in firsts.items():
                changed.setdefault(key, first)


def _heads_at(
    connection: Connection, run: Run, keys: Sequence[str], upto: Mapping[str, int] | None, *, bodies: bool
) -> list[tuple[str, list[Version]]]:
    """The heads of keys, tombstones too: the present ones, or those when only versions up to an id existed."""
    versions: dict[str, dict[str, Version]] = {}
    for chunk in chunks(keys):
        if upto is None:
            for key, _state, *lineage in connection.rows(sql.HEADS(len(chunk)), [run.collection, *chunk]):
                version = version_of(lineage)
                versions.setdefault(key, {})[version.rev] = version
        else:
            for key, *lineage in connection.rows(sql.VERSIONS(len(chunk)), [run.collection, *chunk]):
                version = version_of(lineage)
                if version.id <= upto[key]:
                    versions.setdefault(key, {})[version.rev] = version
    heads = [
        (key, heads_among(found) if upto is not None else winner_first(found.values()))
        for key, found in versions.items()
    ]
    if not bodies:
        return heads
    fetched = bodies_of(connection, [head.id for _, found in heads for head in found if not head.stub])
    return [(key, [head._replace(body=fetched.get(head.id)) for head in found]) for key, found in heads]


def next_limit(limit: int, body_bytes: int, most: int) -> int:
    """How many rows to read next, if the last `limit` had so many bytes: at least 1, at most eight times as many."""
    return max(1, min(most, 8 * limit, limit * CHUNK_BYTES // max(body_bytes, 1)))


def bodies_of(connection: Connection, ids: Sequence[int]) -> dict[int, bytes | None]:
    """The bodies of versions by id."""
    found: dict[int, bytes | None] = {}
    for chunk in chunks(ids):
        found.update(connection.rows(sql.BODIES(len(chunk)), chunk))
    return found
