"""What a pull moved, in numbers.

Pure: no input or output.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Pulled:
    """What a pull moved; `+` adds, `-` gives what came since.

    Attributes:
        compared: rows of the source that were looked at.
        rows, body_bytes: versions and stubs that the target took, and the bytes of their bodies.
        new: of the rows, those that it had not.
        obsolete: those that it knew to be superseded.
        unexplained: of the new, those that it ought to have had (see the log: an
            actor was cloned, or rows were lost there).
        forgotten: documents that it forgot, as the source had.
        left: documents that left its filter.
        revived: edits of documents that it had forgotten.
        collided: dots that turned out to name two versions.
        parked: rows that were put aside, see `replication.parked`.
        differences: found by a reconciliation that should have found none.
        ghosts: partitions of either side that had been set back, and have new actors.
    """

    compared: int = 0
    rows: int = 0
    new: int = 0
    obsolete: int = 0
    unexplained: int = 0
    body_bytes: int = 0
    forgotten: int = 0
    left: int = 0
    revived: int = 0
    collided: int = 0
    parked: int = 0
    differences: int = 0
    ghosts: int = 0

    def __add__(self, other: Pulled) -> Pulled:
        return Pulled(*[getattr(self, each.name) + getattr(other, each.name) for each in fields(self)])

    def __sub__(self, earlier: Pulled) -> Pulled:
        return Pulled(*[getattr(self, each.name) - getattr(earlier, each.name) for each in fields(self)])


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull has got, after a batch: what it moved, and of how many commits how many are still to come."""

    pulled: Pulled
    pending: int
    of: int
