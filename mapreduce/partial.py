"""What some of the input comes to: its groups, combined, and how much was read.

Groups are held by the identity of their key. A string or number is its own
identity; for every other key `names` has the key as it was first yielded. Groups
that are too many to be sent or held are in sorted runs instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mapreduce.collation import Identity, identity
from mapreduce.errors import ReduceError
from mapreduce.reducers import Groups, Reducer
from mapreduce.runs import Run

SKIPPED_LISTED = 100


class Skipped(NamedTuple):
    """A document that a job has left out, because a function failed on it or it could not be decoded."""

    key: Any
    rev: str | None
    error: str
    traceback: str


@dataclass
class Counted:
    """What was read. What a lost worker had counted is not in it."""

    documents: int = 0
    pairs: int = 0
    bytes: int = 0
    conflicts: int = 0
    spills: int = 0
    skipped: int = 0
    skips: list[Skipped] = field(default_factory=list)  # the first of them

    def count(self, later: Counted) -> None:
        """Add what was counted in the documents that follow these."""
        self.documents += later.documents
        self.pairs += later.pairs
        self.bytes += later.bytes
        self.conflicts += later.conflicts
        self.spills += later.spills
        self.skipped += later.skipped
        self.skips = (self.skips + later.skips)[:SKIPPED_LISTED]

    def skip(self, document: Skipped) -> None:
        """Count a document that is left out."""
        self.skipped += 1
        if len(self.skips) < SKIPPED_LISTED:
            self.skips.append(document)


@dataclass
class Partial:
    """The accumulators of some documents: in `groups`, in order of first sight, or all of them in `runs`."""

    groups: Groups = field(default_factory=dict)
    names: dict[Identity, Any] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    counted: Counted = field(default_factory=Counted)
    seconds: float = 0.0

    def identify(self, key: Any) -> Identity:
        """The key's identity; the key itself is noted where the identity would not give it back."""
        found = identity(key)
        if type(found) is tuple:
            self.names.setdefault(found, key)
        return found

    def key(self, found: Identity) -> Any:
        """The key as it was first yielded."""
        return self.names[found] if type(found) is tuple else found

    def absorb(self, later: Partial, reducer: Reducer) -> None:
        """Take in the groups of the documents that follow these.

        Raises:
            ReduceError: the reducer's `merge` failed; this partial is then of no further use.
        """
        join(self.groups, self.names, later.groups, later.names, reducer)


def join(
    groups: Groups, names: dict[Identity, Any], later: Groups, later_names: dict[Identity, Any], reducer: Reducer
) -> None:
    """Merge the later groups into the earlier ones; a key keeps the form in which it came first.

    Raises:
        ReduceError: the reducer's `merge` failed; the earlier groups are then of no further use.
    """
    merge = reducer.merge
    for found, acc in later.items():
        if found not in groups:
            groups[found] = acc
            continue
        try:
            groups[found] = merge(groups[found], acc)
        except Exception as error:
            key = later_names[found] if type(found) is tuple else found
            raise ReduceError(
                f"merging the group {key!r} failed: {type(error).__name__}: {error}. Nothing was stored.", key=key
            ) from error
    for found, key in later_names.items():
        names.setdefault(found, key)
