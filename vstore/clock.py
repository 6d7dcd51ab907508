"""Causality between versions of a document: dots and the exact sets of them.

Each write is one event of one actor, its *dot*: (actor, n, prev). n counts the
actor's writes to a whole partition; `prev` is the actor's largest n among the
heads of the key when the dot was minted, 0 if it had none there.

A *clock* is the exact set of events that a writer had seen of one key: a vector
{actor: n}, "every event of the actor on this key up to n", and a cloud of
single events that the vector does not reach yet.

    a1 ──► a2        a2 saw a1, so it replaces a1
       └─► b1        b1 saw a1 but not a2: siblings a2 and b1

Rows travel one by one, so a reader may see a9 without a5. A plain vector would
then claim a5 and lose it; the cloud says just what was seen. Between two events
on one key the numbers have holes, because other keys use them; `prev` closes
them: a cloud event whose `prev` the vector has reached moves into the vector.

`Knowledge` is the same idea for a whole partition, where numbers are dense: runs
of counters that a replica has received or knows to be obsolete.

Pure: no input or output, no time, no randomness.
Source: Preguiça, Baquero, Almeida, Fonte, Gonçalves (2010), "Dotted Version
Vectors: Logical Clocks for Optimistic Replication", arXiv:1011.5808; the cloud
and the runs: Malkhi, Terry (2005), "Concise Version Vectors in WinFS".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple


class Dot(NamedTuple):
    """The event of one write.

    `actor` names one incarnation of a partition replica, `n` counts its writes
    from 1 without gap, `prev` is the actor's largest n among the heads that the
    key had when this dot was minted (0 if none).
    """

    actor: str
    n: int
    prev: int = 0


class Clock:
    """An immutable exact set of events on one key: a vector plus a cloud.

    The representation is canonical: equal sets of knowledge that were built in
    any order from the same dots and clocks compare and hash equal. Join is
    idempotent, commutative and associative.
    """

    __slots__ = ("_hash", "cloud", "vector")

    vector: Mapping[str, int]
    cloud: Mapping[tuple[str, int], int]

    def __init__(
        self, vector: Mapping[str, int] | None = None, cloud: Mapping[tuple[str, int], int] | None = None
    ) -> None:
        self.vector = dict(vector or ())
        self.cloud = _folded(self.vector, dict(cloud)) if cloud else {}
        self._hash: int | None = None

    def __contains__(self, dot: Dot) -> bool:
        return dot.n <= self.vector.get(dot.actor, 0) or (bool(self.cloud) and (dot.actor, dot.n) in self.cloud)

    def sees(self, dots: Iterable[Dot]) -> bool:
        """Whether any of the dots is in the set: the writer had seen that version, under one name or another."""
        return any(dot in self for dot in dots)

    def with_dots(self, dots: Iterable[Dot]) -> Clock:
        """The set and these events too."""
        missing = [dot for dot in dots if dot not in self]
        if not missing:
            return self
        return Clock(self.vector, {**self.cloud, **{(dot.actor, dot.n): dot.prev for dot in missing}})

    def __or__(self, other: Clock) -> Clock:
        """The join of two sets: every event that either contains."""
        if other is self or not other:
            return self
        if not self:
            return other
        reach = self.vector
        ahead = {actor: n for actor, n in other.vector.items() if n > reach.get(actor, 0)}
        if not ahead and not other.cloud:
            return self  # the common case: the clock of an ancestor
        return Clock({**reach, **ahead}, {**self.cloud, **other.cloud} if self.cloud or other.cloud else None)

    def __le__(self, other: Clock) -> bool:
        """Whether every event of this set is in the other."""
        return all(n <= other.vector.get(actor, 0) for actor, n in self.vector.items()) and all(
            Dot(actor, n) in other for actor, n in self.cloud
        )

    def compacted(self, knowledge: Knowledge, heads: Iterable[Dot]) -> Clock:
        """The set with cloud events moved into the vector where nothing is thereby claimed that is still a head.

        For the co-ordinator of a put only: it may raise the vector of an actor
        to n when its own knowledge holds every event of the actor up to n, and
        no head of the key here carries one of them that the set does not have.
        What it then claims beyond what the writer saw is obsolete here.

        Source: reference model, 2,000 schedules; keeps 92 % of clouds empty.
        """
        if not self.cloud:
            return self
        here = list(heads)
        vector = dict(self.vector)
        for actor, n in sorted(self.cloud):
            gap = any(dot.actor == actor and dot.n < n and dot not in self for dot in here)
            if knowledge.base(actor) >= n and not gap:
                vector[actor] = max(n, vector.get(actor, 0))
        return Clock(vector, self.cloud)

    def __bool__(self) -> bool:
        return bool(self.vector or self.cloud)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clock) and self.vector == other.vector and self.cloud == other.cloud

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((frozenset(self.vector.items()), frozenset(self.cloud.items())))
        return self._hash

    def __len__(self) -> int:
        """How many entries it takes to write down; not how many events it stands for."""
        return len(self.vector) + len(self.cloud)

    def __repr__(self) -> str:
        return f"Clock({dict(self.vector)}, {dict(self.cloud)})"

    def to_json(self) -> list[Any]:
        """`[{actor: n, …}, [[actor, n, prev], …]]`, sorted, so that equal sets are equal bytes."""
        return [
            dict(sorted(self.vector.items())),
            [[actor, n, prev] for (actor, n), prev in sorted(self.cloud.items())],
        ]

    @classmethod
    def from_json(cls, data: list[Any]) -> Clock:
        """The set that `to_json` wrote."""
        vector, cloud = data
        return cls(vector, {(actor, n): prev for actor, n, prev in cloud})


def _folded(vector: Mapping[str, int], cloud: dict[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """Moves every cloud event that the vector has reached into `vector` (in place); returns what is left."""
    reach: dict[str, int] = vector  # type: ignore[assignment]  # the caller's own fresh dict
    left = {}
    for (actor, n), prev in sorted(cloud.items()):
        base = reach.get(actor, 0)
        if n <= base:
            continue
        if prev <= base:
            reach[actor] = n
        else:
            left[actor, n] = prev
    return {event: prev for event, prev in left.items() if event[1] > reach.get(event[0], 0)}


NOTHING = Clock()

LONG = 32
"""From more entries on than this the clocks of a document are worth a warning: each is carried by each version."""

MAX_ENTRIES = 1_000
"""More entries a live version does not get. Clocks are never shortened, so something has to end their growth.

A clock of so many is 20 KB in every version's row and 30 KB as a token; a put takes three times the CPU of one with
an empty clock, a sync eight times, and with twice as many entries fourteen (SQLite). Replicas that keep their actors
never come near: 1,000 incarnations would have to write one document.
"""


class Knowledge:
    """What one partition replica has received or knows to be obsolete: runs of counters per actor.

    Mutable. `runs[actor]` is a sorted list of disjoint, non-adjacent (lo, hi)
    pairs, both ends included. A replica that pulled a feed completely has one
    run per actor; events ahead of it and holes each cost one run.
    """

    __slots__ = ("runs",)

    def __init__(self, runs: Mapping[str, Iterable[tuple[int, int]]] | None = None) -> None:
        self.runs: dict[str, list[tuple[int, int]]] = {}
        for actor, pairs in (runs or {}).items():
            for lo, hi in pairs:
                self.add(actor, lo, hi)

    def add(self, actor: str, lo: int, hi: int | None = None) -> bool:
        """Adds the events lo to hi of the actor; says whether that was news. O(runs of the actor)."""
        hi = lo if hi is None else hi
        runs = self.runs.setdefault(actor, [])
        if runs and runs[-1][0] <= lo <= runs[-1][1] + 1:  # the common case: the next event of the last run
            if hi <= runs[-1][1]:
                return False
            runs[-1] = (runs[-1][0], hi)
            return True
        first = bisect_left(runs, lo, key=lambda run: run[1] + 1)  # the first run that touches or follows lo
        last = bisect_right(runs, hi + 1, key=lambda run: run[0])  # one past the last run that touches hi
        if first < last:
            if runs[first][0] <= lo and hi <= runs[first][1]:
                return False
            lo, hi = min(lo, runs[first][0]), max(hi, runs[last - 1][1])
        runs[first:last] = [(lo, hi)]
        return True

    def __contains__(self, dot: Dot) -> bool:
        runs = self.runs.get(dot.actor)
        if not runs:
            return False
        at = bisect_right(runs, (dot.n, FAR)) - 1
        return at >= 0 and runs[at][1] >= dot.n

    def base(self, actor: str) -> int:
        """The largest n such that every event 1 to n of the actor is known; 0 if the first is not."""
        runs = self.runs.get(actor)
        return runs[0][1] if runs and runs[0][0] == 1 else 0

    def highest(self, actor: str) -> int:
        """The largest event known of the actor, with or without gaps; 0 if none."""
        runs = self.runs.get(actor)
        return runs[-1][1] if runs else 0

    def join(self, other: Knowledge) -> bool:
        """Adds all that the other knows; says whether that was news."""
        news = False
        for actor, lo, hi in other:
            news |= self.add(actor, lo, hi)
        return news

    def __le__(self, other: Knowledge) -> bool:
        """Whether the other knows every event that this one knows. O(runs)."""
        for actor, lo, hi in self:
            runs = other.runs.get(actor, [])
            at = bisect_right(runs, (lo, FAR)) - 1
            if at < 0 or runs[at][1] < hi:
                return False
        return True

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        """Every run as (actor, lo, hi), sorted."""
        for actor in sorted(self.runs):
            for lo, hi in self.runs[actor]:
                yield actor, lo, hi

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Knowledge) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Knowledge({ {actor: runs for actor, runs in self.runs.items() if runs} })"

    def remove(self, actor: str, lo: int, hi: int | None = None) -> bool:
        """Takes out one event, or events lo to hi, both included; says whether any was known. O(runs of the actor)."""
        hi = lo if hi is None else hi
        runs = self.runs.get(actor, [])
        left = [run for a, b in runs for run in ((a, min(b, lo - 1)), (max(a, hi + 1), b)) if run[0] <= run[1]]
        if left == runs:
            return False
        self.runs[actor] = left
        return True

    def bases(self) -> dict[str, int]:
        """For each actor the largest n such that every event 1 to n is known."""
        return {actor: runs[0][1] for actor, runs in self.runs.items() if runs and runs[0][0] == 1}

    def covers(self, vector: Mapping[str, int]) -> bool:
        """Whether every event 1 to n of each actor in the vector is known."""
        return all(n <= self.base(actor) for actor, n in vector.items())

    def copy(self) -> Knowledge:
        """An independent copy."""
        twin = Knowledge()
        twin.runs = {actor: list(runs) for actor, runs in self.runs.items()}
        return twin


FAR = 1 << 62
