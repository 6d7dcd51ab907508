"""What one split comes to: its groups, combined, and how much was read.

Groups are held by the identity of their key. A string or number is its own
identity; for every other key `names` has the key as it was first yielded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mapreduce.collation import Identity, identity
from mapreduce.errors import ReduceError
from mapreduce.reducers import Groups, Reducer


@dataclass
class Partial:
    """The accumulators of some documents, by identity of key in order of first sight."""

    groups: Groups = field(default_factory=dict)
    names: dict[Identity, Any] = field(default_factory=dict)
    documents: int = 0
    pairs: int = 0

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
        groups, merge = self.groups, reducer.merge
        for found, acc in later.groups.items():
            if found not in groups:
                groups[found] = acc
                continue
            try:
                groups[found] = merge(groups[found], acc)
            except Exception as error:
                raise ReduceError(
                    f"merging the group {later.key(found)!r} failed: {type(error).__name__}: {error}. "
                    f"Nothing was stored.",
                    key=later.key(found),
                ) from error
        for found, key in later.names.items():
            self.names.setdefault(found, key)
        self.documents += later.documents
        self.pairs += later.pairs
