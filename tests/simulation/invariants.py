"""What must hold: the replicas compared with the oracle.

Each has a number, by which failures name it. At every step, for every replica and
key that changed, `Checker.entry`:

     2  heads are maximal among what the replica has received
     3  no lost update, 6 no resurrected delete, 7 an edit survives a delete it
        did not see: everything maximal is a head, unless something anywhere
        has truly replaced it
     4  no false conflict: no head is an ancestor of another
     5  no phantom dominance: a put removes just what its writer had read
     8  repeats change nothing
     9  nor do order and grouping: heads and knowledge come out the same
    10  clocks hold every ancestor, and nothing else that matters; one form
    11  a dot names one version, numbers rise without gap
    12  whatever is known is a head, or something here has replaced it
    15  all agree on the winner

and after healing `converged`: 1 convergence, 2 to 7 without "unless" and 14
quiescence. 13, 18 to 22 and what a purge adds are looked at in `real/truth.py`; here a
tombstone may be missing where it may have been purged, and is then as good as held.

The "unless" is the price of small clocks, and is real: `prev` is taken from the
heads and a put compacts its clock, so it may claim an event that its writer had
not seen, if that is obsolete at the co-ordinator. The claim travels alone: a
replica may drop the obsolete version before what replaced it arrives. Nothing is
lost as long as that is somewhere. What was purged is obsolete in the same way: the next
root of the key has a dot that follows on no head, and so claims its actor's earlier ones.

The other excuse, for 2 and 4: the same edit was born in two places under two
dots, a client read something newer at the one and wrote at the other. Its clock
has the first dot, the replica knows the edit by the second, and the versions in
between are not here. The first sync that brings either name mends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from vstore.clock import Clock, Dot, Knowledge
from vstore.document import Entry, Version, winner_first

from .oracle import Broken, Lineage, Oracle
from .replica import Replica


class Face(Protocol):
    """What is looked at of a replica: the model's `Replica`, or a database file as it was found.

    `forgotten` says up to which event of each actor deleted keys may be gone here.
    """

    @property
    def entries(self) -> Mapping[str, Entry]: ...
    @property
    def knowledge(self) -> Knowledge: ...
    @property
    def forgotten(self) -> Mapping[str, int]: ...


class Checker:
    """Compares replicas with the oracle; remembers which clocks it has looked at."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self._clocks: dict[tuple[str, str], Clock] = {}

    def entry(self, name: str, replica: Face, key: str) -> None:
        """One key at one replica, after it may have changed."""
        lineage = self.oracle[key]
        entry = replica.entries[key]
        heads = set(entry.heads)
        view = lineage.view(name)
        below = set().union(*(lineage.ancestors[rev] for rev in heads))
        for rev in heads - view.truth:
            if rev not in below:
                raise Broken(2, f"{name}/{key} shows {rev}, which it never received, or has received a successor of")
            if not _untold(lineage, entry, rev):
                raise Broken(4, f"false conflict at {name}/{key}: {rev} is an ancestor of another head")
        forgotten = within(lineage, replica.forgotten, lineage.deleted)
        for rev in view.truth - heads - lineage.superseded - forgotten:
            kind = "tombstone" if rev in lineage.deleted else "update"
            raise Broken(3, f"{name}/{key} has received {rev} and nothing replaced it, but it is no head: lost {kind}")
        for rev, head in entry.heads.items():
            if entry.versions.get(rev) is not head or head.stub:
                raise Broken(2, f"{name}/{key}: the head {rev} is not the version stored, or has no body")
            self._head(name, key, lineage, head)
        if heads:
            shown = winner_first(entry.heads.values())[0].rev
            if shown != lineage.winner(heads):
                raise Broken(15, f"{name}/{key} shows {shown} of {sorted(heads)}")
        # Of what was below a purged tombstone its dots are enough: the tombstone itself may never have come here.
        buried = set().union(*(lineage.ancestors[rev] for rev in lineage.forgotten))
        covered = heads | below | within(lineage, replica.forgotten, buried)
        self._known(name, replica.knowledge, key, entry, covered, forgotten)

    def knowledge(self, name: str, replica: Replica) -> None:
        """All keys at one replica, after knowledge was joined."""
        for key in self.oracle:
            self.entry(name, replica, key)

    def _head(self, name: str, key: str, lineage: Lineage, head: Version) -> None:
        if self._clocks.get((key, head.rev)) is head.clock:
            return
        self._clocks[key, head.rev] = head.clock
        past = lineage.ancestors[head.rev]
        obsolete = lineage.superseded | lineage.forgotten
        for dot in head.dots:
            if lineage.names.get(dot[:2]) != head.rev:
                raise Broken(11, f"{dot} at {name}/{key} is a dot of {head.rev} and of {lineage.names.get(dot[:2])}")
        for rev in past:
            if not any(Dot(*event) in head.clock for event in lineage.events[rev]):
                raise Broken(10, f"the clock of {head.rev} at {name}/{key} lacks its ancestor {rev}")
        for event, rev in lineage.names.items():
            if rev not in past | obsolete and rev != head.rev and Dot(*event) in head.clock:
                raise Broken(10, f"the clock of {head.rev} at {name}/{key} claims {rev}, which nothing has replaced")
        again = Clock.from_json(head.clock.to_json())
        if again != head.clock or again.to_json() != head.clock.to_json():
            raise Broken(10, f"the clock of {head.rev} at {name}/{key} is not in canonical form: {head.clock}")

    def _known(
        self, name: str, knowledge: Knowledge, key: str, entry: Entry, covered: set[str], forgotten: set[str]
    ) -> None:
        lineage = self.oracle[key]
        suspects = {rev for event, rev in lineage.names.items() if rev not in covered and Dot(*event) in knowledge}
        if not suspects:
            return
        # Not below a head: what replaced it may have been dropped in turn, here or where the knowledge came from, by a
        # version whose small clock claims that.
        claimed = set(entry.versions) | forgotten
        for version in entry.versions.values():
            claimed |= {rev for event, rev in lineage.names.items() if Dot(*event) in version.clock}
        for rev in suspects - claimed.union(*(lineage.ancestors[each] for each in claimed)):
            raise Broken(12, f"{name} claims to know {rev} of {key}, but has neither it nor what replaced it")


def converged(replicas: Mapping[str, Replica], oracle: Oracle) -> None:
    """After all have synced until quiet: they show the same, and it is the truth."""
    (first, one), *others = replicas.items()
    for name, other in others:
        if other.knowledge != one.knowledge:
            raise Broken(1, f"{first} knows {one.knowledge}, {name} knows {other.knowledge}")
        for key in oracle:
            if shown(one, key) != shown(other, key):
                raise Broken(1, f"{key} is {shown(one, key)} at {first}, {shown(other, key)} at {name}")
    for key in oracle:
        lineage = oracle[key]
        everything = lineage.received_anywhere(replicas)
        heads = set(one.entries[key].heads)
        # An excuse now needs a version that was acknowledged, but existed only in a file that a backup has overwritten:
        # whatever it replaced is gone with it, or comes back as a sibling when a client repeats the edit.
        lost = lineage.ancestors.keys() - everything.seen
        for rev in heads - everything.truth:
            replaced = any(rev in lineage.ancestors[gone] for gone in lost)
            if not replaced or not all(_untold(lineage, replica.entries[key], rev) for replica in replicas.values()):
                raise Broken(4, f"after healing {key} shows {rev}, which has been replaced")
        for rev in everything.truth - heads:
            if not any(rev in lineage.ancestors[gone] for gone in lost):
                invariant = 6 if rev in lineage.deleted else 3
                raise Broken(invariant, f"after healing {key} does not show {rev}, which nothing has replaced")


def shown(replica: Replica, key: str) -> list[tuple[str, tuple[Dot, ...], Clock, bytes | None]]:
    """The heads of one key, to compare replicas. Not their stamps, which differ where an edit was born twice."""
    return [(head.rev, head.dots, head.clock, head.body) for head in winner_first(replica.entries[key].heads.values())]


def within(lineage: Lineage, forgotten: Mapping[str, int], revs: Iterable[str]) -> set[str]:
    """Those of the versions that a replica where so much is forgotten may have purged."""
    return {rev for rev in revs if any(n <= forgotten.get(actor, 0) for actor, n in lineage.events.get(rev, ()))}


def _untold(lineage: Lineage, entry: Entry, rev: str) -> bool:
    """Whether nothing here tells that another head has replaced this one: the other excuse above."""
    head = entry.heads[rev]
    return (
        {dot[:2] for dot in head.dots} < lineage.events[rev]
        and not any(other.clock.sees(head.dots) for other in entry.heads.values() if other is not head)
        and rev not in lineage.reachable(entry.heads, entry.versions)
    )
