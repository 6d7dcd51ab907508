"""Every version: of one document, newest first, or of a whole collection, as they were committed.

A version never changes and its id is its place in the order of commits, so a scan
of all of them needs no more than to stop where the partitions were when it began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vstore.decoding import ALONE, Decoding, Pair, Row
from vstore.document import Document, Version, context_of
from vstore.errors import NotFound
from vstore.handle import Handle, partition_of, place_of, shown
from vstore.ranges import KeyRange, key_range
from vstore.reading import Reading
from vstore.scan import CHUNK_ROWS, FIRST_ROWS, bodies_of, ends_of, next_limit, parted
from vstore.slices import Slice
from vstore.snapshot import cut
from vstore.sql import lineages
from vstore.sql import statements as sql
from vstore.sql.database import Database
from vstore.sql.rows import version_of


def versions_of(handle: Handle, key: str) -> dict[str, Version]:
    """Every version of a key that this store holds, by rev, without bodies."""
    shard, definition, _part = handle.place(key)
    return lineages.versions_of(shard.database.ask, definition.id, [key])[key]


def version_at(handle: Handle, key: str, rev: str) -> Version:
    """One version with its body.

    Raises:
        NotFound: the key has no such version here.
    """
    shard, definition, _part = handle.place(key)
    rows = shard.database.ask(sql.VERSION, (definition.id, key, rev))
    if not rows:
        raise NotFound(f"{key!r} in {handle.name!r} has no version {rev} here. history() lists those it has.")
    return version_of(rows[0][1:], rows[0][0])


def history(handle: Handle, key: str) -> Iterator[Document]:
    """Every version of a document that still has its body, newest first: by stamp, then as committed here.

    Raises:
        NotFound: nothing was ever stored under the key. Raised at once, before the first is asked for.

    Reads one shard. Cost grows with the versions of `key`, not with the store.
    """
    versions = versions_of(handle, key)
    if not versions:
        raise NotFound(f"{key!r} in {handle.name!r}: nothing was ever stored under it.")
    return _newest_first(handle, key, versions)


def _newest_first(handle: Handle, key: str, versions: Mapping[str, Version]) -> Iterator[Document]:
    shard, _definition, _part = handle.place(key)
    newest = sorted(versions.values(), key=lambda version: (version.stamp, version.id), reverse=True)
    kept = [version for version in newest if not version.stub]
    for start in range(0, len(kept), 100):
        page = kept[start : start + 100]
        ids = [version.id for version in page if not version.deleted]
        with shard.database.snapshot() as connection:
            bodies = bodies_of(connection, ids)
        for version in page:
            if version.deleted or bodies.get(version.id) is not None:  # else it has been pruned since
                value = handle.value(version._replace(body=bodies.get(version.id)), key)
                yield shown(key, version, context_of(key, [version]), value)


@dataclass(frozen=True, slots=True)
class VersionsAt:
    """Every version that a run of partitions in one database had at a position in each: a `vstore.slices.Part`.

    Stamped from `since_us` on and before `until_us`, where they are given.
    """

    collection: int
    positions: Mapping[int, int]
    keys: KeyRange
    since_us: int | None = None
    until_us: int | None = None
    moment: ClassVar[str] = ""

    def __str__(self) -> str:
        return f"history of partitions {min(self.positions)} to {max(self.positions)}"

    def pages(self, database: Database, reading: Reading | None) -> Iterator[list[Row]]:
        """Each version that still has its body, and each tombstone, by id."""
        after, top = ends_of(self.positions)
        limit = FIRST_ROWS
        while after < top:
            with database.snapshot() as connection:
                found = connection.rows(sql.VERSIONS_BY_ID, (after, top, limit))
            after = found[-1][2] if len(found) == limit else top
            body_bytes = sum([len(row[1]) for row in found if row[1]])
            if reading is not None:
                reading.body_bytes += body_bytes
            limit = next_limit(limit, body_bytes, CHUNK_ROWS)
            page: list[Row] = []
            for key, body, *lineage in found:
                if key in self.keys:
                    version = version_of(lineage, body)
                    if self._holds(version):
                        page.append((version.id, ALONE, key, version, None))
            yield page

    def rev_of(self, database: Database, key: str) -> str | None:
        """None: there may be several of a key, and each comes as a Document with its rev."""
        return None

    def pieces(self, database: Database, count: int) -> list[VersionsAt]:
        """The same in at most so many parts of about equal size."""
        return [replace(self, positions=positions) for positions in parted(self.positions, count)]

    def _holds(self, version: Version) -> bool:
        partition = partition_of(version.id)
        return (
            not version.stub
            and version.id <= place_of(partition, self.positions[partition])
            and (self.since_us is None or version.stamp >= self.since_us)
            and (self.until_us is None or version.stamp < self.until_us)
        )


class HistoryScan:
    """Every version of a collection, for questions over time: what was there when the scan was made, and no more.

    Iterating gives (key, Document), in the order of commits in each partition:
    versions that still have their body, and tombstones, whose value is None.
    What has been pruned is left out. A job reads it in parts:

        run(over=posts.history_scan(), map=lambda key, document: [(document.stamp // DAY_US, 1)], reduce=Sum())
    """

    def __init__(
        self,
        handle: Handle,
        prefix: str = "",
        since_us: int | None = None,
        until_us: int | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> None:
        """One small query for each shard."""
        self._handle = handle
        self._prefix = prefix
        reached = handle.positions()
        self._parts = [
            (
                shard.database,
                VersionsAt(
                    definition.id,
                    {definition.base + part: reached[part][1] for part in range(first, last)},
                    key_range(prefix, start, end),
                    since_us,
                    until_us,
                ),
            )
            for shard, definition, first, last in handle.runs()
        ]

    def __iter__(self) -> Iterator[Pair]:
        for database, part in self._parts:
            reading = Reading(versions=True)
            decoding = Decoding(reading, database, self._handle.name, self._handle.codec_named, self._prefix)
            for batch in decoding.batches(part.pages(database, reading)):
                yield from batch

    def slices(self, count: int) -> Sequence[Slice]:
        """The scan cut into about `count` parts for other processes to read; their values are always Documents."""
        return cut(self._handle, self._prefix, self._parts, count)

    def len_estimate(self) -> int:
        """How many versions were ever committed: an upper bound, at no cost."""
        return sum(sum(part.positions.values()) for _database, part in self._parts)
