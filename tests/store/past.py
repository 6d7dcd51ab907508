"""What happened to a collection, in plain sets: the oracle of history and time travel.

Every version with the exact set of its ancestors. What was shown at a moment are
the maximal elements of the versions stamped by then. No clocks, no dots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vstore import Collection, Context, Document
from vstore.batch import Put
from vstore.document import Content


@dataclass
class Recorded:
    """One version: its place in the order of commits is its index."""

    key: str
    value: Any
    deleted: bool
    stamp: int
    rev: str
    ancestors: frozenset[int]


@dataclass
class Past:
    """Writes to a collection at given times, and remembers what they were."""

    posts: Collection
    versions: list[Recorded] = field(default_factory=list)

    def write(self, key: str, value: Any, stamp: int, seen: Iterable[int] | None = None, delete: bool = False) -> None:
        """A write by someone who had seen these versions of the key; None is all that is there.

        With several seen, their contexts are joined by a read of just them, so
        they have to be heads; one may be any version.
        """
        seen = self.heads(key) if seen is None else set(seen)
        context = self._context(key, seen)
        content = Content(None) if delete else self.posts.content(value)
        handle = self.posts.store.handle(self.posts.name, create=True)
        assert handle is not None
        shard, definition, part = handle.place(key)
        [written] = self.posts.store.write(handle, [(shard, definition, Put(key, part, content, context, None, stamp))])
        if written.new:
            above = frozenset(seen).union(*(self.versions[index].ancestors for index in seen))
            self.versions.append(Recorded(key, value, delete, stamp, written.version.rev, above))

    def heads(self, key: str, moment: float = float("inf")) -> set[int]:
        """The versions of a key that nobody had replaced by a moment."""
        then = {index: v for index, v in enumerate(self.versions) if v.key == key and v.stamp <= moment}
        return set(then).difference(*(version.ancestors for version in then.values()))

    def shown(self, moment: float = float("inf")) -> dict[str, set[Any]]:
        """The live siblings of every live document at a moment."""
        found = {
            key: {self.versions[index].value for index in self.heads(key, moment) if not self.versions[index].deleted}
            for key in {version.key for version in self.versions}
        }
        return {key: values for key, values in found.items() if values}

    def history(self, key: str) -> list[Recorded]:
        """All versions of a key, newest first."""
        here = [(v.stamp, index, v) for index, v in enumerate(self.versions) if v.key == key]
        return [version for _stamp, _index, version in sorted(here, reverse=True, key=lambda entry: entry[:2])]

    def _context(self, key: str, seen: set[int]) -> Context:
        if not seen:
            return Context(key)
        documents = [self.posts.version(key, self.versions[index].rev) for index in sorted(seen)]
        if len(documents) == 1:
            return documents[0].context
        joined = self.posts.read(key, on_conflict="winner", deleted=True).context
        assert set(joined.revs) == {document.rev for document in documents}
        return joined


def siblings(documents: Iterable[Document]) -> dict[str, set[Any]]:
    """What documents show, in the oracle's form."""
    return {document.key: {sibling.value for sibling in document.siblings} for document in documents}
