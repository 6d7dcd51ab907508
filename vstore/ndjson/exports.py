"""A collection as lines that `imports` reads back.

    now        each live document
    moment     each as it was shown then
    history    each version in order of time, key by key, with its time

A history in lines is a single line of time for each key: concurrent versions
stand one after the other. Replicas are made with `vstore copy` and `vstore sync`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from vstore.collection import Collection
from vstore.document import Version
from vstore.handle import Handle
from vstore.ndjson.lines import Line, text_of
from vstore.scan import bodies_of
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

PAGE_KEYS = 100
_BODIES = 100


@dataclass(slots=True)
class Exported:
    """How many lines were made, and what they do not show.

    `conflicts` are keys with several live siblings, of which one line shows the
    winner or all stand in order of time; `pruned` are versions without a body.
    """

    lines: int = 0
    conflicts: int = 0
    pruned: int = 0


def documents(collection: Collection, count: Exported, moment: Any = None) -> Iterator[bytes]:
    """A line for each live document, now (in storage order) or at a moment (in key order); `count` keeps the count.

    Raises NotFound if there is no such collection.
    """
    if moment is None:
        # Siblings are counted first: those that appear meanwhile are not in the snapshot either way.
        count.conflicts = sum(1 for _ in collection.conflicts())
        for key, value in collection.snapshot().items(on_conflict="winner"):
            count.lines += 1
            yield text_of(Line(key, value, False, None))
        return
    for document in collection.at(moment).documents():
        count.lines += 1
        count.conflicts += document.conflicted
        yield text_of(Line(document.key, document.value, False, None))


def history(collection: Collection, count: Exported) -> Iterator[bytes]:
    """A line for each version that still has its body, key by key, oldest first; `count` keeps the count.

    Each page of keys is as it is when it is read. Memory is that of the lineage of 100 keys.
    """
    handle = collection.store.handle(collection.name)
    if handle is None:
        collection.snapshot()  # raises NotFound
        return
    shards = [_versions(handle, shard, definition, count) for shard, definition, _first, _end in handle.runs()]
    for line in heapq.merge(*shards, key=lambda line: line.key.encode()):
        count.lines += 1
        yield text_of(line)


def _versions(handle: Handle, shard: Shard, definition: Definition, count: Exported) -> Iterator[Line]:
    after = ""
    while True:
        keys = [row[0] for row in shard.database.ask(sql.VERSION_KEYS, (definition.id, after, PAGE_KEYS))]
        rows: list[tuple[str, Version]] = []
        for chunk in sql.chunks(keys):
            found = shard.database.ask(sql.VERSIONS(len(chunk)), [definition.id, *chunk])
            rows += [(key, version_of(lineage)) for key, *lineage in found]
        rows.sort(key=lambda row: (row[0].encode(), row[1].stamp, row[1].id))
        for key, group in groupby(rows, key=itemgetter(0)):
            yield from _lines(handle, shard, key, [version for _, version in group], count)
        if len(keys) < PAGE_KEYS:
            return
        after = keys[-1]


def _lines(handle: Handle, shard: Shard, key: str, versions: list[Version], count: Exported) -> Iterator[Line]:
    parents = {parent for version in versions for parent in version.parents}
    count.conflicts += sum(version.rev not in parents for version in versions) > 1
    for start in range(0, len(versions), _BODIES):
        page = versions[start : start + _BODIES]
        ids = [version.id for version in page if not version.deleted and not version.stub]
        with shard.database.snapshot() as connection:
            bodies = bodies_of(connection, ids)
        for version in page:
            body = bodies.get(version.id)
            if version.deleted:
                yield Line(key, None, True, version.stamp)
            elif body is None:
                count.pruned += 1
            else:
                yield Line(key, handle.codec_named(version.codec).decode(body), False, version.stamp)
