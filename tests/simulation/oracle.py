"""What is true: every version with the exact set of its ancestors, in plain Python sets.

The simulator tells the oracle who wrote what after having read which versions,
and which versions reached which replica. From that alone follows what each
replica ought to show:

    ancestors(v) = what its writer had read, and the ancestors of that
    truth(R)     = the maximal elements of what R has received

It uses no clocks, dots or stored parents, so it cannot share a mistake with the
code that it judges. It never forgets: a version that a restored backup lost is
still an ancestor of what was written on top of it.

Pure, and independent of vstore: revs and (actor, n) pairs are opaque values.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

Event = tuple[str, int]


class Broken(AssertionError):
    """An invariant does not hold; `invariant` is its number in `tests.simulation.invariants`."""

    def __init__(self, invariant: int, text: str) -> None:
        super().__init__(text)
        self.invariant = invariant


@dataclass(slots=True)
class View:
    """What one replica has received of one key; `truth` and `below` follow from `seen` and are kept with it."""

    seen: set[str] = field(default_factory=set)
    below: set[str] = field(default_factory=set)
    truth: set[str] = field(default_factory=set)

    def copy(self) -> View:
        return View(set(self.seen), set(self.below), set(self.truth))


class Lineage:
    """The versions of one key."""

    def __init__(self) -> None:
        self.parents: dict[str, frozenset[str]] = {}  # what the writer had read
        self.ancestors: dict[str, frozenset[str]] = {}
        self.deleted: set[str] = set()
        self.superseded: set[str] = set()  # some version anywhere was written on top of it
        self.forgotten: set[str] = set()  # a tombstone that was purged somewhere
        self.names: dict[Event, str] = {}
        self.events: dict[str, set[Event]] = {}
        self.views: dict[str, View] = {}
        self._edits: dict[tuple[frozenset[str], bytes | None], str] = {}

    def write(self, rev: str, event: Event, read: Iterable[str], body: bytes | None) -> None:
        """Records an acknowledged version; the same edit born again is the version there is, with one more event."""
        read = frozenset(read)
        if read and self._edits.setdefault((read, body), rev) != rev:
            raise Broken(8, f"the same edit of {sorted(read)} is {self._edits[read, body]} and {rev}")
        if rev in self.ancestors and not read:
            raise Broken(3, f"the creation {event} took the name of another version, {rev}")
        past = read.union(*(self.ancestors[parent] for parent in read))
        self.parents[rev] = read
        if self.ancestors.setdefault(rev, past) != past:
            raise Broken(8, f"{rev} names two edits with different ancestors")
        if body is None:
            self.deleted.add(rev)
        self.superseded |= past
        self.names[event] = rev
        self.events.setdefault(rev, set()).add(event)

    def edit(self, read: Iterable[str], body: bytes | None) -> str | None:
        """The version that this edit of these versions is, if it was ever written."""
        return self._edits.get((frozenset(read), body))

    def receive(self, replica: str, rev: str) -> None:
        """Records that the version reached the replica in full."""
        view = self.view(replica)
        if rev in view.seen:
            return
        past = self.ancestors[rev]
        view.seen.add(rev)
        view.below |= past
        view.truth -= past
        if rev not in view.below:
            view.truth.add(rev)

    def view(self, replica: str) -> View:
        return self.views.setdefault(replica, View())

    def reachable(self, revs: Iterable[str], through: Container[str]) -> set[str]:
        """The ancestors that can be found by someone who has the parents only of the versions in `through`."""
        found: set[str] = set()
        frontier = [rev for rev in revs if rev in through]
        while frontier:
            news = self.parents[frontier.pop()] - found
            found |= news
            frontier.extend(rev for rev in news if rev in through)
        return found

    def received_anywhere(self, replicas: Iterable[str]) -> View:
        """What the replicas have received together."""
        together = View()
        for replica in replicas:
            together.seen |= self.view(replica).seen
            together.below |= self.view(replica).below
        together.truth = together.seen - together.below
        return together

    def winner(self, revs: Iterable[str]) -> str:
        """The version shown first: live before deleted, then the longer history, then the signature."""
        return max(revs, key=lambda rev: (rev not in self.deleted, int(rev.split("-")[0]), rev.split("-")[1]))


class Oracle:
    """The lineages of all keys, and the counters of all actors."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.lineages = {key: Lineage() for key in keys}
        self._counters: dict[str, int] = {}

    def __getitem__(self, key: str) -> Lineage:
        return self.lineages[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.lineages)

    def write(self, key: str, rev: str, event: Event, read: Iterable[str], body: bytes | None) -> None:
        """Records an acknowledged put that minted `event`."""
        actor, n = event
        if n != self._counters.get(actor, 0) + 1:
            raise Broken(11, f"the write after ({actor}, {self._counters.get(actor, 0)}) is ({actor}, {n})")
        self._counters[actor] = n
        self.lineages[key].write(rev, event, read, body)

    def remembered(self, replica: str) -> dict[str, View]:
        """What the replica has received by now: goes into a backup of it."""
        return {key: lineage.view(replica).copy() for key, lineage in self.lineages.items()}

    def recall(self, replica: str, remembered: dict[str, View]) -> None:
        """The replica is a backup, or a copy: it has received what that had."""
        for key, view in remembered.items():
            self.lineages[key].views[replica] = view.copy()
