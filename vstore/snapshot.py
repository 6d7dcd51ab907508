"""A collection at another time than now, as a read-only mapping; and the one that needs no history: a snapshot.

A snapshot is the positions that the partitions had when it was taken. It holds
nothing open and costs nothing to keep; `vstore.scan` reads what was there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from itertools import chain
from typing import Any, cast

from vstore.decoding import Decoding, Pair, Row
from vstore.document import Document
from vstore.errors import Conflict, InvalidKey, NotFound
from vstore.handle import Handle, unprefixed
from vstore.ranges import key_range
from vstore.reading import OnConflict, Reading
from vstore.scan import HeadsAt, estimate
from vstore.since import feeds_of, positions_in, token_of
from vstore.slices import Slice
from vstore.sql.database import Database


class AsItWas(Mapping[str, Any]):
    """A read-only mapping of a collection at another time than now: what its kinds have in common."""

    @abstractmethod
    def read(self, key: str) -> Document:
        """The document then, siblings or a tombstone included. Raises NotFound if there had been none."""

    @abstractmethod
    def rows(self, on_conflict: OnConflict | None = None) -> Iterator[Pair]:
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

    def __init__(
        self,
        handle: Handle,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        since: str | None = None,
    ) -> None:
        """Takes the snapshot: one small query for each shard.

        Args:
            since: the `since` of an earlier snapshot, which is then made again.
                It is always cut into runs of partitions, so that the same count
                gives the same slices each time.

        Raises:
            InvalidToken: `since` is no token, or belongs to another feed.
        """
        self._handle = handle
        self._prefix = prefix
        self._keys = key_range(prefix, start, end)
        self._parts: list[tuple[Database, HeadsAt]] = []
        reached = handle.positions()
        self._feeds = feeds_of(reached)
        self._positions = [seq for _feed, seq in reached]
        if since is not None:
            self._positions = positions_in(since, False, self._feeds, self._positions)
        for shard, definition, first, last in handle.runs():
            positions = {definition.base + part: self._positions[part] for part in range(first, last)}
            self._parts.append((shard.database, HeadsAt(definition.id, positions, self._keys)))
        self._choice = None if since is None else self._parts

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
        for database, part in self._chosen():
            for page in part.pages(database, None):
                for _id, _kind, key, *_rest in cast("list[Row]", page):  # nothing is decoded without a reading
                    yield key[cut:]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def rows(
        self, on_conflict: OnConflict | None = None, settle: Callable[[Document], Any] | None = None
    ) -> Iterator[Pair]:
        """What `items` iterates over.

        Args:
            settle: without `on_conflict`, gives the value of a document with
                several live siblings, or DELETE to leave it out.
        """
        reading = Reading(on_conflict or "raise")
        return chain.from_iterable(self._batches(reading, settle if on_conflict is None else None))

    def read(self, key: str) -> Document:
        """The document at the snapshot: its siblings if there are several, the tombstone if it was deleted.

        Raises:
            NotFound: nothing had been written under the key.
            HistoryPruned: what was there has been pruned since.
        """
        full = self._prefix + key if isinstance(key, str) else key  # what is no text is for `place` to refuse
        shard, _definition, _part = self._handle.place(full)
        for database, part in self._parts:
            if database is shard.database and full in self._keys:
                heads = part.heads(database, full)
                if heads:
                    return unprefixed(self._handle.document(full, heads), len(self._prefix))
        raise NotFound(f"{key!r} in {self._handle.name!r}: nothing was stored under it at the snapshot.")

    def slices(self, count: int) -> Sequence[Slice]:
        """The snapshot cut into about `count` parts for other processes to read, each exact however often it is."""
        return cut(self._handle, self._prefix, self._chosen(), count)

    def len_estimate(self) -> int:
        """An upper bound of the documents: how many versions were ever committed, or heads in a range; cheap."""
        return sum(estimate(database, part.collection, part.positions, part.keys) for database, part in self._parts)

    @property
    def since(self) -> str:
        """The token with which `changes(since=...)` goes on where the snapshot ends: nothing missed, nothing twice."""
        return token_of(False, self._feeds, self._positions)

    def _chosen(self) -> list[tuple[Database, HeadsAt]]:
        """The parts in the order in which they are read, chosen once: keys and values come in the same."""
        if self._choice is None:
            self._choice = [(database, part.chosen(database)) for database, part in self._parts]
        return self._choice

    def _batches(self, reading: Reading, settle: Callable[[Document], Any] | None) -> Iterator[list[Pair]]:
        for database, part in self._chosen():
            decoding = Decoding(
                reading, database, self._handle.name, self._handle.codec_named, self._prefix, settle=settle
            )
            yield from decoding.batches(part.pages(database, reading))


def cut(handle: Handle, prefix: str, parts: Sequence[tuple[Database, Any]], count: int) -> list[Slice]:
    """Parts on several shards as about `count` slices, by how many partitions each shard has.

    A part has `pieces`, which cuts it into several.
    """
    total = sum(len(part.positions) for _, part in parts)
    return [
        Slice(
            database.address,
            database.name,
            handle.name,
            piece,
            handle.codec_settings,
            prefix,
        )
        for database, part in parts
        for piece in part.pieces(database, max(1, round(count * len(part.positions) / total)))
    ]


class Items(ItemsView[str, Any]):
    """The documents of a mapping that streams them."""

    def __init__(self, mapping: Any, on_conflict: OnConflict | None = None) -> None:
        """Over a mapping with `rows`."""
        super().__init__(mapping)
        self._on_conflict = on_conflict

    def __iter__(self) -> Iterator[Pair]:
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
