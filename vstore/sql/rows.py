"""A version as columns, and back. The texts are a grammar in docs/storage-format.md and never change meaning.

parents  = [ rev *( " " rev ) ]                 winner first
dots     = dot *( " " dot )                     dot   = actor ":" n ":" prev
clock    = [ entry *( " " entry ) ]             entry = actor ":" n            vector
                                                      / actor ":" n ":" prev   cloud
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vstore.clock import NOTHING, Clock, Dot
from vstore.document import Version
from vstore.errors import Corrupt
from vstore.fingerprint import Lanes, element

LINEAGE = ("id", "rev", "deleted", "stub", "parents", "dots", "clock", "stamp", "codec", "kind")
"""The columns that `version_of` reads, in its order; `body` may follow."""


def version_of(row: Sequence[Any], body: bytes | None = None) -> Version:
    """The version in a row of LINEAGE columns.

    Raises:
        Corrupt: parents, dots or clock are not what this module writes.
    """
    id_, rev, deleted, stub, parents, dots, clock, stamp, codec, kind = row
    try:
        return Version(
            rev,
            tuple(parents.split()),
            bool(deleted),
            tuple([Dot(a, int(n), int(prev)) for a, n, prev in [dot.split(":") for dot in dots.split()]]),
            clock_of(clock) if clock else NOTHING,
            stamp,
            codec,
            body,
            bool(stub),
            id_,
            kind,
        )
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise Corrupt(
            f"the row of version {rev} (id {id_}) has parents, dots or a clock that cannot be read: {error}. Nothing "
            f"was changed. `vstore check` names the document."
        ) from error


def clock_of(text: str) -> Clock:
    """The clock that `clock_text` wrote."""
    vector = {}
    cloud = {}
    for entry in text.split():
        parts = entry.split(":")
        if len(parts) == 2:
            vector[parts[0]] = int(parts[1])
        else:
            cloud[parts[0], int(parts[1])] = int(parts[2])
    return Clock(vector, cloud)


def clock_text(clock: Clock) -> str:
    """A clock as text: equal clocks are equal texts."""
    if not clock:
        return ""
    entries = [f"{actor}:{n}" for actor, n in sorted(clock.vector.items())]
    if clock.cloud:
        entries += [f"{actor}:{n}:{prev}" for (actor, n), prev in sorted(clock.cloud.items())]
    return " ".join(entries)


def dots_text(dots: Sequence[Dot]) -> str:
    """Dots as text."""
    return " ".join([f"{actor}:{n}:{prev}" for actor, n, prev in dots])


def element_of(key: str, head: Version) -> Lanes:
    """The element of a head, see `vstore.fingerprint`."""
    return element(key, head.rev, dots_text(head.dots), clock_text(head.clock), head.kind)


def version_row(id_: int, collection: int, key: str, version: Version) -> tuple[Any, ...]:
    """The whole row, in the order of the table's columns."""
    return (
        id_,
        collection,
        key,
        version.rev,
        int(version.deleted),
        int(version.stub),
        " ".join(version.parents),
        dots_text(version.dots),
        clock_text(version.clock),
        version.stamp,
        version.codec,
        version.kind,
        version.body,
    )
