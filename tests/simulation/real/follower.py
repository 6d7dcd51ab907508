"""A reader of a replica's feed who reads now and then: 18 nothing is missed, 19 all comes in order.

One follows the compacted feed and has to end with the present heads, whatever
happened in between; one follows the full feed and has to be given each version
once. A token is refused only where the feed is another one.
"""

from __future__ import annotations

from tests.simulation.oracle import Broken
from vstore.collection import Collection
from vstore.errors import InvalidToken

from .mirror import State


class Follower:
    """One reader of one replica."""

    def __init__(self, name: str, *, full: bool) -> None:
        self.name = name
        self.full = full
        self._begin()

    def _begin(self) -> None:
        self._token: str | None = None
        self._feeds: list[str] = []
        self._reached: dict[int, int] = {}
        self.seen: dict[tuple[str, str], int] = {}
        self._shown: dict[str, tuple[str, ...]] = {}  # what there was of a key when it was last told of

    def read(self, docs: Collection, state: State) -> int:
        """Reads to the end; how many changes there were. `state` is what the file holds."""
        feeds = [counter.feed for counter in state.counters]
        try:
            changes = docs.changes(self._token, full=self.full)
        except InvalidToken as error:
            behind = any(each.seq < self._reached.get(each.part, 0) for each in state.counters)
            if feeds == self._feeds and not behind:  # a file that was set back has the old feed until it is written
                raise Broken(21, f"{self.name}: the feed is the same, and its token was refused: {error}") from error
            self._begin()
            changes = docs.changes(full=self.full)
        else:
            if self._token is not None and feeds != self._feeds:
                raise Broken(21, f"{self.name}: another feed took the token of an earlier one")
        count = 0
        told: set[str] = set()
        for change in changes:
            count += 1
            if change.seq < self._reached.get(change.part, 0):
                raise Broken(19, f"{self.name}: {change} came after {self._reached[change.part]}")
            self._reached[change.part] = change.seq
            told.add(change.key)
            if change.rev:
                again = self.seen.get((change.key, change.rev))
                if self.full and again is not None and not self._moved(state, change.key, change.rev, change.seq):
                    raise Broken(18, f"{self.name}: {change} came twice, first at {again}")
                self.seen[change.key, change.rev] = change.seq
        self._token, self._feeds = changes.since, feeds
        self._shown |= {key: state.heads(key) for key in told}
        self._complete(state)
        return count

    def _moved(self, state: State, key: str, rev: str, seq: int) -> bool:
        """Whether the version is there now under a later place: its body came, was erased, or it came back."""
        version = state.entry(key).versions.get(rev)
        return version is not None and version.id & ((1 << 40) - 1) == seq

    def _complete(self, state: State) -> None:
        for key in state.entries.keys() | self._shown.keys():
            shown = self._shown.get(key, ())
            if not self.full and state.heads(key) != shown:
                raise Broken(18, f"{self.name} was told of {key} when it was {shown}, and it is {state.heads(key)}")
        for key, entry in state.entries.items():
            wanted = entry.versions if self.full else entry.heads
            for rev, version in wanted.items():
                if not version.stub and (key, rev) not in self.seen:
                    raise Broken(18, f"{self.name} has read all of the feed, and {rev} of {key} was not in it")
