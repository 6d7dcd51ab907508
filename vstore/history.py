"""The past of a document and of a collection: every version, and what was shown at a moment.

"At a moment" is by stamp: of the versions stamped by then, those that none of
the others supersedes. So every replica that holds the same versions shows the
same past, however late they arrived. Definition: docs/consistency.md, "Time travel".
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from vstore.document import Document, Version, common_ancestor, context_of, heads_among
from vstore.errors import Conflict, HistoryPruned, NotFound
from vstore.handle import Handle, shown, unprefixed
from vstore.hlc import iso
from vstore.scan import AsItWas, OnConflict, bodies_of
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.database import Connection
from vstore.sql.rows import version_of

PAGE_KEYS = 200


def versions_of(handle: Handle, key: str) -> dict[str, Version]:
    """Every version of a key that this store holds, by rev, without bodies."""
    shard, definition, _part = handle.place(key)
    rows = shard.database.ask(sql.VERSIONS(1), (definition.id, key))
    return {version.rev: version for version in (version_of(row[1:]) for row in rows)}


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


def base_of(handle: Handle, key: str, revs: Sequence[str]) -> Version | None:
    """The common ancestor of versions with its body, or None if there is not exactly one or it was pruned."""
    base = common_ancestor(revs, versions_of(handle, key))
    if base is None:
        return None
    found = version_at(handle, key, base.rev)
    return None if found.stub else found  # pruned between the two reads: the siblings have been settled since


class Past(AsItWas):
    """A collection as it was shown at a moment: a read-only mapping, exact, computed as it is read."""

    def __init__(self, handle: Handle, moment_us: int, prefix: str = "") -> None:
        """Nothing is read yet. Raises ValueError for a moment outside the years 1 to 9999, as nanoseconds would be."""
        iso(moment_us)
        self._handle = handle
        self._prefix = prefix
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
        shard, definition, _part = self._handle.place(full)
        with shard.database.snapshot() as connection:
            found = self._heads(connection, definition, [full])
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

        Reads the lineage of every version stamped by then, and the bodies of
        those that were heads.
        """
        streams = [self._shard_documents(shard, definition) for shard, definition, _first, _end in self._handle.runs()]
        return heapq.merge(*streams, key=lambda document: document.key)

    def rows(self, on_conflict: OnConflict | None = None) -> Iterator[tuple[str, Any]]:
        """What `items` iterates over."""
        for document in self.documents():
            if document.conflicted and on_conflict != "winner":
                if on_conflict == "skip":
                    continue
                raise Conflict(
                    f"{document.key!r} in {self._handle.name!r} had {len(document.siblings)} live siblings at "
                    f"{iso(self.moment_us)}. Say on_conflict='winner' or 'skip', or use documents().",
                    document,
                )
            yield document.key, document.value

    def __iter__(self) -> Iterator[str]:
        return (document.key for document in self.documents())

    def __len__(self) -> int:
        return sum(1 for _ in self.documents())

    def _shard_documents(self, shard: Shard, definition: Definition) -> Iterator[Document]:
        after = self._prefix
        first = True
        while True:
            with shard.database.snapshot() as connection:
                statement = sql.VERSION_KEYS_FROM if first else sql.VERSION_KEYS
                keys = [row[0] for row in connection.rows(statement, (definition.id, after, PAGE_KEYS))]
                inside = [key for key in keys if key.startswith(self._prefix)]
                found = self._heads(connection, definition, inside)
            for key, heads in found:
                document = self._handle.document(key, heads)
                if not document.deleted:
                    yield unprefixed(document, len(self._prefix))
            if len(inside) < PAGE_KEYS:
                return
            after, first = keys[-1], False

    def _heads(
        self, connection: Connection, definition: Definition, keys: Sequence[str]
    ) -> list[tuple[str, list[Version]]]:
        """The heads of each key among the versions stamped by the moment, with bodies, in key order."""
        rows: list[tuple[str, Version]] = []
        for chunk in sql.chunks(keys):
            for key, *lineage in connection.rows(sql.VERSIONS(len(chunk)), [definition.id, *chunk]):
                version = version_of(lineage)
                if version.stamp <= self.moment_us:
                    rows.append((key, version))
        rows.sort(key=lambda row: row[0].encode())
        heads = [
            (key, heads_among({version.rev: version for _, version in group}))
            for key, group in groupby(rows, key=lambda row: row[0])
        ]
        for key, found in heads:
            for head in found:
                if head.stub and not head.deleted:
                    raise HistoryPruned(
                        f"{key!r} in {self._handle.name!r} was at {head.rev} at {iso(self.moment_us)}, which "
                        f"has been pruned. Nothing was changed. Raise the retention to keep more from now on."
                    )
        bodies = bodies_of(connection, [head.id for _, found in heads for head in found if not head.deleted])
        return [(key, [head._replace(body=bodies.get(head.id)) for head in found]) for key, found in heads]
