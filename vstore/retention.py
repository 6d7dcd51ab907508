"""What of the past is kept: the rule, and applying it.

A pruned version loses its body and keeps its place: rev, parents, dots and clock
stay as a stub, so causality is as exact as before and only the content is gone.
Never pruned are heads, tombstones (they have no body, and replicas need them) and
common ancestors of heads, which a merge needs as its base.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from vstore.document import Version, ancestors_of
from vstore.errors import ConfigurationError
from vstore.handle import Handle
from vstore.partition import part_of
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.lineages import heads_of, versions_of

PAGE_KEYS = 200


@dataclass(frozen=True, slots=True)
class Pruned:
    """How far a prune has got: keys looked at, versions that lost their body, and those that kept it."""

    keys: int = 0
    pruned: int = 0
    kept: int = 0


def prune(
    handle: Handle,
    *,
    keep_last: int | None,
    keep_days: float | None,
    dry_run: bool = False,
    progress: Callable[[Pruned], None] | None = None,
    prefix: str = "",
    now_us: int | None = None,
) -> Pruned:
    """Applies a rule to every document, in small transactions; see `Collection.prune`.

    Raises:
        ConfigurationError: no rule was given, or one that keeps less than nothing.
    """
    if keep_last is None and keep_days is None:
        raise ConfigurationError("prune() needs keep_last= or keep_days=. Nothing was pruned.")
    if (keep_last is not None and keep_last < 1) or (keep_days is not None and not 0 <= keep_days < math.inf):
        raise ConfigurationError(
            f"keep_last={keep_last!r}, keep_days={keep_days!r} refused: keep at least 1 version, and 0 days or more. "
            f"Nothing was pruned."
        )
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    oldest_us = None if keep_days is None else now_us - round(keep_days * 86_400_000_000)
    total = Pruned()
    for shard, definition, _first, _end in handle.runs():
        after, first = prefix, True
        while True:
            statement = sql.VERSION_KEYS_FROM if first else sql.VERSION_KEYS
            bounds = definition.id, after, PAGE_KEYS
            page = [row[0] for row in shard.database.ask(statement, bounds)]
            keys = [key for key in page if key.startswith(prefix)]
            if keys:
                parts = {part_of(key, handle.partitions) for key in keys}
                total = _prune_page(shard, definition, keys, parts, keep_last, oldest_us, dry_run, total)
                if progress is not None:
                    progress(total)
            if len(keys) < PAGE_KEYS:
                break
            after, first = page[-1], False
    return total


def prunable(
    versions: Mapping[str, Version], heads: set[str], keep_last: int | None, oldest_us: int | None
) -> list[Version]:
    """The versions of one key that a rule lets go of. Pure."""
    pinned = heads | common_ancestors(heads, versions)
    newest = sorted(versions.values(), key=lambda version: (version.stamp, version.id), reverse=True)
    return [
        version
        for place, version in enumerate(newest)
        if version.rev not in pinned
        and not version.deleted
        and not version.stub
        and (keep_last is None or place >= keep_last)
        and (oldest_us is None or version.stamp < oldest_us)
    ]


def common_ancestors(heads: set[str], versions: Mapping[str, Version]) -> set[str]:
    """The lowest common ancestors of every two or more of the heads: any of them may be a merge's base. Pure.

    Of the versions that the same heads descend from, those that none of the
    others descends from. O(heads × versions).
    """
    reached: defaultdict[str, set[str]] = defaultdict(set)
    for head in heads:
        for rev in ancestors_of(head, versions):
            reached[rev].add(head)
    # What lies between two versions with the same heads has these heads too: who has a descendant has a child.
    above = {
        parent
        for rev, found in reached.items()
        if rev in versions
        for parent in versions[rev].parents
        if reached[parent] == found
    }
    return {rev for rev, found in reached.items() if len(found) > 1 and rev not in above}


def _prune_page(
    shard: Shard,
    definition: Definition,
    keys: list[str],
    parts: set[int],
    keep_last: int | None,
    oldest_us: int | None,
    dry_run: bool,
    total: Pruned,
) -> Pruned:
    with shard.transaction():
        connection = shard.database.read()
        # As a writer does, here or in another process: so no head can appear that would need one of these as its base.
        for ids in sql.chunks(sorted(definition.base + part for part in parts)):
            connection.rows(sql.LOCK_PARTITIONS(len(ids)), ids)
        versions = versions_of(connection.rows, definition.id, keys)
        heads = heads_of(connection.rows, definition.id, keys)
        gone = [version for key in keys for version in prunable(versions[key], set(heads[key]), keep_last, oldest_us)]
        if not dry_run:
            connection.run_many(sql.PRUNE_BODY, [(version.id,) for version in gone])
    full = sum(not version.stub and not version.deleted for found in versions.values() for version in found.values())
    return replace(
        total, keys=total.keys + len(keys), pruned=total.pruned + len(gone), kept=total.kept + full - len(gone)
    )
