"""What a difference between two replicas is: one side ahead of the other, or damage.

Two sets of heads differ all the time, since writes go on and travel late. Which
of the differences ought not to be there follows from what both sides know:

    the target never heard of it                             take it
    it knows it, and has nothing in its place                rows were lost there: take it
    it has something that replaces it, or has purged it      nothing to do here
    the source knows of a head here, and lacks it:
        purged there, and the target did not know            forget it
        not purged                                           rows were lost there: it takes them when it pulls

Pure: no input or output.
Source: docs/consistency.md, "Reconciliation".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from vstore.clock import Knowledge
from vstore.document import Version, ancestors_of, knows


class Verdict(Enum):
    """What a difference is."""

    NOTHING = "one side is ahead, or both will agree on it"
    MISSED = "the target never heard of it"
    LOST = "the target knew it, and has nothing in its place"
    FORGET = "the source has purged it, and the target did not know"
    LOST_THERE = "the source knew it, and has nothing in its place"


@dataclass(frozen=True, slots=True)
class Look:
    """What one side has of one key, and knows in its partition, at one instant."""

    heads: Mapping[str, Version]
    versions: Mapping[str, Version]
    known: Knowledge
    forgotten: Mapping[str, int]

    def replaces(self, version: Version) -> bool:
        """Whether a head here has seen the version, or descends from it."""
        return any(
            head.clock.sees(version.dots) or version.rev in ancestors_of(head.rev, self.versions)
            for head in self.heads.values()
            if head.rev != version.rev
        )


def of_theirs(version: Version, here: Look, there: Look, *, seen: bool) -> Verdict:
    """The verdict on a head of the source.

    Args:
        seen: it was there before the feed was pulled for the last time.
    """
    mine = here.heads.get(version.rev)
    if mine is not None:
        grown = set(version.dots) <= set(mine.dots) and version.clock <= mine.clock
        return Verdict.NOTHING if grown or not seen else Verdict.MISSED
    if here.replaces(version):
        return Verdict.NOTHING
    stored = here.versions.get(version.rev)
    if not knows(here.known, version) and (stored is None or not knows(here.known, stored)):
        return Verdict.MISSED if seen else Verdict.NOTHING
    forgotten = any(dot.n <= here.forgotten.get(dot.actor, 0) for dot in version.dots)
    if forgotten and (version.deleted or not there.known.covers(here.forgotten)):
        return Verdict.NOTHING  # purged here; the other side has not heard of it, or has not got round to it
    return Verdict.LOST


def of_ours(version: Version, here: Look, there: Look) -> Verdict:
    """The verdict on a head of the target that was there before the source was looked at."""
    if version.rev in there.heads or there.replaces(version) or not knows(there.known, version):
        return Verdict.NOTHING
    if all(dot.n <= there.forgotten.get(dot.actor, 0) for dot in version.dots):
        if not here.known.covers(there.forgotten):
            return Verdict.FORGET
        if version.deleted:
            return Verdict.NOTHING
    return Verdict.LOST_THERE
