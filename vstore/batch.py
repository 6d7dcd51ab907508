"""What a shard is asked to do in one transaction: local writes and rows from elsewhere, as values.

A put is a batch of one. Replication brings `Receive`, everybody else `Put`; both
end in `Shard.apply`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """

    part: int
    rows: Mapping[str, Sequence[Version]]
    knowledge: Knowledge | None = None
    checkpoints: Mapping[str, str] | None = None
    expects: Mapping[str, str | None] | None = None


class Written(NamedTuple):
    """What became of a put: the version, whether it is new, and all heads of the key after it."""

    version: Version
    new: bool
    heads: list[Version]


class Arrived(NamedTuple):
    """What became of a receive, in rows: new here, grown, known to be obsolete; of the new, those known before."""

    inserted: int
    grown: int
    obsolete: int
    unexplained: int
