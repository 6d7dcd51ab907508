"""What a shard is asked to do in one transaction: local writes and rows from elsewhere, as values.

A put is a batch of one. Replication brings `Receive`, everybody else `Put`; both
end in `Shard.apply`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from vstore.clock import Knowledge
from vstore.document import Content, Context, Version


class Absent(Enum):
    """The type of ABSENT."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT
"""`match=ABSENT`: write only if there is no live document."""

Match = str | Context | Absent
"""What must hold for a write: the one live rev, a context that covers every head, or no live document."""


class Put(NamedTuple):
    """One write of a document.

    `context` None means all that this replica holds of the key. `stamp` None
    means now; imports of history give the time of the original.
    """

    key: str
    part: int
    content: Content
    context: Context | None = None
    match: Match | None = None
    stamp: int | None = None


@dataclass(frozen=True, slots=True)
class Receive:
    """Rows of one partition from another replica, and what they prove.

    `rows` maps keys to versions, full or stubs, in any order. `knowledge` is
    joined: pass it only with the end of a complete enumeration. `checkpoints`
    are written in the same transaction, so they are never ahead of the data, and
    only if those in `expects` are still what the sender had found.

    Attributes:
        history: rows that are superseded here are kept with their bodies.
        forgotten: for each actor up to which of its events the sender may have
            purged deleted keys; joined together with `knowledge`.
        forget: by key, heads here that the sender knows of, does not hold and has
            nothing in place of. They go if all their dots are in `forgotten`, and
            a key without heads goes as a whole.
        left: keys that have left the filter of this replica: heads that a stub
            among the rows supersedes are given up, and may come back one day.
        bases: for each actor up to where the sender knew all of its events. If it
            did not know all that was forgotten here by now, what it has of that does
            not come back.
        fence: a lease by name, and the token that it must still have.
    """

    part: int
    rows: Mapping[str, Sequence[Version]]
    knowledge: Knowledge | None = None
    checkpoints: Mapping[str, str] | None = None
    expects: Mapping[str, str | None] | None = None
    history: bool = False
    forgotten: Mapping[str, int] | None = None
    forget: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left: Sequence[str] = ()
    bases: Mapping[str, int] | None = None
    fence: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Purge:
    """Deleted documents of one partition to be forgotten, as far as it is proven that they may be.

    A key goes if all its heads are tombstones, and every dot of every version
    of it is at or below that of its actor in `stable`: every replica that counts
    has acknowledged all of them.
    """

    part: int
    keys: Sequence[str]
    stable: Mapping[str, int]


class Written(NamedTuple):
    """What became of a put: the version, whether it is new, and all heads of the key after it."""

    version: Version
    new: bool
    heads: list[Version]


class Arrived(NamedTuple):
    """What became of a receive, in rows: new here, grown, known to be obsolete; of the new, those known before.

    `forgotten` and `left` count documents that were given up, `revived` edits of
    forgotten ones, `collided` dots that named two versions; `conflicted` are the
    keys of the receive that have several live heads now.
    """

    inserted: int
    grown: int
    obsolete: int
    unexplained: int
    forgotten: int = 0
    left: int = 0
    revived: int = 0
    collided: int = 0
    conflicted: Sequence[str] = ()


class Purged(NamedTuple):
    """What became of a purge: the keys that are gone."""

    keys: list[str]
