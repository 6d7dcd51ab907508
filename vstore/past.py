"""A collection as it was shown at a moment.

"At a moment" is by stamp: of the versions stamped by then, those that none of
the others supersedes. So every replica that holds the same versions shows the
same past, however late they arrived. Definition: docs/consistency.md, "Time travel".

One reading sees one state all the same: of the versions that had arrived when it
began, by their position in each partition.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from vstore.decoding import HEADS, Decoding, Pair, Row
from vstore.document import Document, Version, heads_among
from vstore.errors import Conflict, HistoryPruned, NotFound
from vstore.handle import Handle, partition_of, place_of, unprefixed
from vstore.hlc import iso
from vstore.ranges import KeyRange, key_range, next_key
from vstore.reading import OnConflict, Reading
from vstore.scan import bodies_of, estimate, quantiles
from vstore.shard import Definition
from vstore.slices import Slice
from vstore.snapshot import AsItWas, cut
from vstore.sql import statements as sql
from vstore.sql.database import Connection, Database
from vstore.sql.rows import version_of
from vstore.sql.schema import LIVE, SEQ_BITS

PAGE_KEYS = 200
MAX_SEQ = (1 << SEQ_BITS) - 1


@dataclass(frozen=True, slots=True)
class HeadsThen:
    """The heads at a moment among the versions that had come by a position: a `vstore.slices.Part`, in key order."""

    collection: int
    name: str
    positions: Mapping[int, int]
    keys: KeyRange
    moment_us: int

    def __str__(self) -> str:
        return f"keys from {self.keys.low!r} at {self.moment}"

    @property
    def moment(self) -> str:
        """The moment as text."""
        return iso(self.moment_us)

    def pages(self, database: Database, reading: Reading | None) -> Iterator[list[Row]]:
        """Every key that was live at the moment, once."""
        low: str | None = self.keys.low
        while low is not None:
            with database.snapshot() as connection:
                bounds = self.collection, low, self.keys.high, PAGE_KEYS
                keys = [row[0] for row in connection.rows(sql.VERSION_KEYS_BETWEEN, bounds)]
                found = self.heads(connection, keys, bodies=reading is not None)
            low = next_key(keys[-1]) if len(keys) == PAGE_KEYS else None
            if reading is not None:
                reading.body_bytes += sum([len(head.body or b"") for _key, heads in found for head in heads])
            yield [row for key, heads in found for row in _row(key, heads, reading)]

    def rev_of(self, database: Database, key: str) -> str | None:
        """The winner's rev at the moment."""
        with database.snapshot() as connection:
            found = self.heads(connection, [key], bodies=False)
        heads = found[0][1] if found else []
        return heads[0].rev if heads and not heads[0].deleted else None

    def pieces(self, database: Database, count: int) -> list[HeadsThen]:
        """The same in at most so many parts of about equal size."""
        return [replace(self, keys=keys) for keys in quantiles(database, self.collection, self.keys, count)]

    def heads(
        self, connection: Connection, keys: Sequence[str], *, bodies: bool = True
    ) -> list[tuple[str, list[Version]]]:
        """The heads of each key at the moment, in winner order, of those that had any; in key order.

        Raises:
            HistoryPruned: the body of one is not here.
        """
        rows: list[tuple[str, Version]] = []
        for chunk in sql.chunks(keys):
            for key, *lineage in connection.rows(sql.VERSIONS(len(chunk)), [self.collection, *chunk]):
                rows.append((key, version_of(lineage)))
        rows.sort(key=itemgetter(0))
        found = []
        for key, group in groupby(rows, key=itemgetter(0)):
            then = {
                version.rev: version
                for version in self._here([version for _key, version in group])
                if version.stamp <= self.moment_us
            }
            if then:
                found.append((key, heads_among(then)))
        for key, heads in found:
            for head in heads:
                if head.stub and not head.deleted:
                    raise HistoryPruned(
                        f"{key!r} in {self.name!r} was at {head.rev} at {self.moment}, which "
                        f"has been pruned. Nothing was changed. Raise the retention to keep more from now on."
                    )
        if not bodies:
            return found
        fetched = bodies_of(connection, [head.id for _, heads in found for head in heads if not head.deleted])
        return [(key, [head._replace(body=fetched.get(head.id)) for head in heads]) for key, heads in found]

    def _here(self, versions: list[Version]) -> list[Version]:
        """Those of the versions of a key that had come by the positions."""
        here, later = [], {}
        for version in versions:
            partition = partition_of(version.id)
            if version.id <= place_of(partition, self.positions.get(partition, 0)):
                here.append(version)
            else:
                later[version.rev] = version
        # A body that came later moved its version; what descends from it says that it was here before, without a body.
        below = [parent for version in here for parent in version.parents] if later else []
        while below:
            moved = later.pop(below.pop(), None)
            if moved is not None:
                here.append(moved.as_stub)
                below += moved.parents
        return here


def _row(key: str, heads: list[Version], reading: Reading | None) -> list[Row]:
    if all(head.deleted for head in heads):
        return []
    if len(heads) == 1 and not (reading is not None and reading.versions):
        return [(heads[0].id, LIVE, key, heads[0].codec, heads[0].body)]
    return [(heads[0].id, HEADS, key, heads, None)]


class Past(AsItWas):
    """A collection as it was shown at a moment: a read-only mapping, exact, computed as it is read."""

    def __init__(
        self, handle: Handle, moment_us: int, prefix: str = "", start: str | None = None, end: str | None = None
    ) -> None:
        """Nothing is read yet. Raises ValueError for a moment outside the years 1 to 9999, as nanoseconds would be."""
        iso(moment_us)
        self._handle = handle
        self._prefix = prefix
        self._keys = key_range(prefix, start, end)
        self.moment_us = moment_us

    def __repr__(self) -> str:
        return f"<{self._handle.name!r} at {iso(self.moment_us)}>"

    def read(self, key: str) -> Document:
        """The document at the moment: its siblings if there were several, the tombstone if it was deleted.

        Raises:
            NotFound: nothing had been recorded under `key` by then.
            HistoryPruned: retention has removed versions the answer needs.

        Reads one shard. Cost grows with the versions of `key`.
        """
        full = self._prefix + key if isinstance(key, str) else key  # what is no text is for `place` to refuse
        shard, definition, part = self._handle.place(full)
        with shard.database.snapshot() as connection:
            then = self._then(definition, {definition.base + part: MAX_SEQ})
            found = then.heads(connection, [full]) if full in self._keys else []
        if not found:
            raise NotFound(
                f"{key!r} in {self._handle.name!r}: nothing had been stored under it by {iso(self.moment_us)}."
            )
        return unprefixed(self._handle.document(*found[0]), len(self._prefix))

    def __getitem__(self, key: str) -> Any:
        """The value at the moment.

        Raises:
            NotFound: there was no live document.
            Conflict: there were several live siblings.
        """
        document = self.read(key)
        if document.deleted:
            raise NotFound(f"{key!r} in {self._handle.name!r} was deleted at {iso(self.moment_us)}.")
        if document.conflicted:
            raise Conflict(
                f"{key!r} in {self._handle.name!r} had {len(document.siblings)} live siblings at "
                f"{iso(self.moment_us)}. read() shows them.",
                document,
            )
        return document.value

    def documents(self) -> Iterator[Document]:
        """Every live document at the moment with its siblings, in key order, streamed.

        Reads the lineage of every version that is here, and the bodies of those
        that were heads.
        """
        return (document for _key, document in self._pairs(Reading(versions=True)))

    def rows(self, on_conflict: OnConflict | None = None) -> Iterator[Pair]:
        """What `items` iterates over."""
        return self._pairs(Reading(on_conflict or "raise"))

    def __iter__(self) -> Iterator[str]:
        cut = len(self._prefix)
        streams = [part.pages(database, None) for database, part in self._parts()]
        return heapq.merge(*[(row[2][cut:] for page in pages for row in page) for pages in streams])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def slices(self, count: int) -> Sequence[Slice]:
        """The past cut into about `count` parts for other processes to read, each exact however often it is.

        What arrives from now on with an older stamp is in none of them.
        """
        return cut(self._handle, self._prefix, self._parts(), count)

    def len_estimate(self) -> int:
        """An upper bound of the documents: how many versions were ever committed, or keys of a prefix; cheap."""
        return sum(estimate(database, part.collection, part.positions, part.keys) for database, part in self._parts())

    def _parts(self) -> list[tuple[Database, HeadsThen]]:
        reached = self._handle.positions()
        return [
            (
                shard.database,
                self._then(definition, {definition.base + part: reached[part][1] for part in range(first, end)}),
            )
            for shard, definition, first, end in self._handle.runs()
        ]

    def _then(self, definition: Definition, positions: Mapping[int, int]) -> HeadsThen:
        return HeadsThen(definition.id, self._handle.name, positions, self._keys, self.moment_us)

    def _pairs(self, reading: Reading) -> Iterator[Pair]:
        """Over all shards, in key order."""
        streams = []
        for database, part in self._parts():
            decoding = Decoding(
                reading, database, self._handle.name, self._handle.codec_named, self._prefix, part.moment
            )
            batches = decoding.batches(part.pages(database, reading))
            streams.append(pair for batch in batches for pair in batch)
        return heapq.merge(*streams, key=itemgetter(0))
