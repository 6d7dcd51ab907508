"""A collection across the shards of a store: where each key is, and how values become rows.

The one value that the services (scan, history, changes, retention, check) are
handed: it knows the shards and the definition on each, and nothing of users.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vstore.codecs import Codec
from vstore.document import Context, Document, Version, context_of, winner_first
from vstore.errors import HistoryPruned
from vstore.partition import PartitionMap, check_key, part_of
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.schema import SEQ_BITS


@dataclass(frozen=True, slots=True)
class Handle:
    """A collection as the services see it.

    `definitions` has one entry for each of `shards`, in the order of the map.
    `codec_named` finds the codec that wrote a row, and `codec_settings` lets
    another process make the same ones.
    """

    name: str
    uid: str
    partitions: int
    map: PartitionMap
    shards: tuple[Shard, ...]
    definitions: tuple[Definition, ...]
    codec_named: Callable[[str], Codec]
    codec_settings: Mapping[str, Any]
    owners: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        owners = tuple(self.map.shard_of(part, self.partitions) for part in range(self.partitions))
        object.__setattr__(self, "owners", owners)

    def place(self, key: str) -> tuple[Shard, Definition, int]:
        """The shard of a key, the collection there, and the key's partition.

        Raises:
            InvalidKey: it is no key.
        """
        check_key(key)
        part = part_of(key, self.partitions)
        owner = self.owners[part]
        return self.shards[owner], self.definitions[owner], part

    def by_part(self, keys: Iterable[str]) -> dict[int, list[str]]:
        """The keys by partition, each once, in the order given."""
        found: defaultdict[int, list[str]] = defaultdict(list)
        for key in dict.fromkeys(keys):
            found[part_of(key, self.partitions)].append(key)
        return dict(found)

    def runs(self) -> list[tuple[Shard, Definition, int, int]]:
        """For each shard the contiguous run of partitions it holds: (shard, definition, first part, end)."""
        found = []
        for index, (shard, definition) in enumerate(zip(self.shards, self.definitions, strict=True)):
            parts = [part for part, owner in enumerate(self.owners) if owner == index]
            if parts:
                found.append((shard, definition, parts[0], parts[-1] + 1))
        return found

    def positions(self) -> list[tuple[str, int]]:
        """For each partition its feed id and the seq of its last commit. One small query for each shard."""
        found = [("", 0)] * self.partitions
        for shard, definition, first, end in self.runs():
            bounds = definition.base + first, definition.base + end
            for id_, seq, feed in shard.database.ask(sql.POSITIONS, bounds):
                found[id_ - definition.base] = feed, seq
        return found

    def value(self, version: Version, key: str) -> Any:
        """The value of a version, decoded afresh; None for a tombstone.

        Raises:
            HistoryPruned: the body is gone.
        """
        return value_of(version, key, self.name, self.codec_named)

    def document(self, key: str, heads: Sequence[Version]) -> Document:
        """The winner among heads as readers see it; see `document_of`."""
        return document_of(key, heads, self.name, self.codec_named)


def value_of(version: Version, key: str, collection: str, codec_named: Callable[[str], Codec]) -> Any:
    """The value of a version, decoded afresh; None for a tombstone.

    Raises:
        HistoryPruned: the body is gone.
    """
    if version.deleted:
        return None
    if version.body is None:
        raise HistoryPruned(
            f"version {version.rev} of {key!r} in {collection!r} has been pruned: its place in history is known, its "
            f"body is gone. Nothing was changed. Raise the retention to keep more from now on."
        )
    return codec_named(version.codec).decode(version.body)


def document_of(key: str, heads: Sequence[Version], collection: str, codec_named: Callable[[str], Codec]) -> Document:
    """The winner among heads as readers see it, with its live siblings; identical ones are shown once.

    Raises:
        HistoryPruned: the body of one is gone.
    """
    ordered = winner_first(heads)
    context = context_of(key, ordered)
    live = []
    seen = set()
    for head in ordered:
        if head.deleted:
            continue
        value = value_of(head, key, collection, codec_named)
        if len(ordered) > 1:
            # Siblings with the same content differ in nothing that a reader could choose between.
            identity = codec_named(head.codec).identity(value)
            if identity in seen:
                continue
            seen.add(identity)
        live.append(shown(key, head, context, value))
    if not live:
        return shown(key, ordered[0], context, None)
    first = live[0]
    return Document(key, first.value, first.rev, first.parents, False, first.stamp, context, tuple(live))


def shown(key: str, version: Version, context: Context, value: Any) -> Document:
    """One version as a document without siblings."""
    return Document(key, value, version.rev, version.parents, version.deleted, version.stamp, context)


def unprefixed(document: Document, cut: int) -> Document:
    """The document and its siblings under their key without its first characters."""
    if not cut:
        return document
    siblings = tuple(replace(sibling, key=sibling.key[cut:]) for sibling in document.siblings)
    return replace(document, key=document.key[cut:], siblings=siblings)


def seq_of(id_: int) -> int:
    """The place in its partition's commit order that a version id stands for."""
    return id_ & ((1 << SEQ_BITS) - 1)


def partition_of(id_: int) -> int:
    """The partition's counter row that a version id belongs to."""
    return id_ >> SEQ_BITS


def place_of(partition: int, seq: int) -> int:
    """The version id of a place in a partition's commit order."""
    return partition << SEQ_BITS | seq
