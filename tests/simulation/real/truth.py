"""Real stores compared with the oracle, at every commit that a database really did.

The oracle is told what was asked of a shard (puts with what their writer had
read, rows received) and only after the COMMIT was done, whatever the caller was
told about it. What the file holds then is read past the code under test.

The invariants of `tests.simulation.invariants` are checked for each key that
changed, and in addition:

    8   the same put is never two versions, also not when its answer was lost (25)
    11  numbers of an actor rise without gap, and each names a version
    13  a purge is downward closed, and takes nothing that a registered replica lacks
    20  a checkpoint is not ahead of what its target has
    0   nothing is raised or logged that nobody has caused

Where a disk was set back with the proofs on it, a dot may name two versions, and
dots and clocks prove nothing any more: of `ghosts` only 2 and 3 are asked, by
the names of the versions alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from tests.simulation.invariants import Checker
from tests.simulation.oracle import Broken, Lineage, Oracle, View
from vstore.batch import Purge, Put, Receive
from vstore.clock import Knowledge
from vstore.document import Entry, Version, is_marked

from .mirror import State, part_of

if TYPE_CHECKING:
    from .site import Site


@dataclass(frozen=True, slots=True)
class _Face:
    """One key's partition of a file, as the checker wants to see a replica."""

    entries: Mapping[str, Entry]
    knowledge: Knowledge
    forgotten: Mapping[str, int]


@dataclass(slots=True, eq=False)
class Asked:
    """Works that a shard was asked to do, and which of their puts have become versions."""

    works: Sequence[Put | Receive | Purge]
    made: dict[int, str] = field(default_factory=dict)


class Over(Exception):
    """What follows proves nothing, so the schedule ends here."""


class Truth:
    """The oracle, and what was found out about each replica."""

    def __init__(self, keys: Sequence[str], partitions: int) -> None:
        self.oracle = Oracle(keys)
        self.checker = Checker(self.oracle)
        self.partitions = partitions
        self.purged = 0
        self.over = False
        self.ghosts = False
        self.absorbed: set[str] = set()
        self.sites: list[Site] = []
        self.filtered: set[str] = set()

    def begin(self, site: Site) -> None:
        """A replica appears."""
        self.sites.append(site)
        for key in self.oracle:
            self.oracle[key].view(site.name)

    def committed(self, name: str, asked: Sequence[Asked], before: State, after: State, *, sound: bool = True) -> None:
        """A transaction of the replica became durable. What a damaged file holds says nothing."""
        receives = [work for each in asked for work in each.works if isinstance(work, Receive)]
        for work in receives:
            self._fenced(name, work)
            for key, rows in work.rows.items():
                lineage = self.oracle[key]
                for row in rows:
                    if row.rev not in lineage.ancestors:
                        raise Broken(3, f"{name} received {row.rev} of {key}, which nobody wrote")
                    if not row.stub:
                        self._refuse_twin(lineage, row, after.forgets(key))
                        lineage.receive(name, row.rev)
        self._minted(name, asked, before, after)
        if not sound:
            return
        self._forgot(name, asked, before, after)
        changed = [key for key in self.oracle if _differ(before, after, key)]
        if after.strays:
            raise Broken(2, f"head rows of {name} have no version: {after.strays}")
        for key in changed:
            self.look(name, after, key)

    def look(self, name: str, state: State, key: str) -> None:
        """One key of one replica."""
        entry = state.entry(key)
        if self.ghosts:
            self._haunted(name, entry, key)
            return
        # A tombstone that was forgotten elsewhere is given up here too, beside other heads as well. A filtered replica
        # gives up everything that was, and claims nothing of it.
        lineage = self.oracle[key]
        gone = lineage.forgotten if name in self.filtered else lineage.forgotten & lineage.deleted
        lineage.view(name).truth -= gone - entry.heads.keys()
        self.checker.entry(name, _Face({key: entry}, state.known(key), state.forgets(key)), key)

    def _haunted(self, name: str, entry: Entry, key: str) -> None:
        """Nothing is shown that nobody wrote, and no collision absorbs: a conflict too many is the price of a dot.

        Where only one of the two versions of a dot has been, nobody could know better: it is lost if something
        that was written on top of the other came, and the other did not. It is `absorbed`, once for all. If the
        other comes after all, it is a head again, unless it was pruned meanwhile: then there is nothing to show.
        """
        lineage = self.oracle[key]
        view = lineage.view(name)
        if entry.heads.keys() - view.seen:
            raise Broken(2, f"{name}/{key} shows {entry.heads.keys() - view.seen}, which it never received")
        for rev in view.truth - entry.heads.keys() - lineage.superseded:
            pruned = rev in self.absorbed and rev in entry.versions and entry.versions[rev].stub
            if not self._is_rival(lineage, rev) or (_is_told(entry, rev) and not pruned):
                raise Broken(3, f"{name}/{key} has received {rev} and nothing replaced it, but it is no head")
            self.absorbed.add(rev)

    def _is_rival(self, lineage: Lineage, rev: str) -> bool:
        """Whether some dot of the version names another one too."""
        return any(lineage.events[rev] & events for other, events in lineage.events.items() if other != rev)

    def look_at_all(self, name: str, state: State) -> None:
        for key in self.oracle:
            self.look(name, state, key)

    def checkpoints(self, name: str, state: State) -> None:
        """20: what a checkpoint says was taken, is known here or parked.

        Not asked of links with a filter, which take what they want, nor where a feed may have gone back in time, nor
        of what somebody has purged: who hears of that gives it up, and knows it no more until the end of that pull.
        """
        if self.ghosts:
            return
        # A copy that has not written yet is at an earlier position of its original's feed: the furthest counts.
        counters = [(counter.seq, counter, source) for source in self.sites for counter in source.state.counters]
        feeds = {
            counter.feed: (source, counter.part) for _, counter, source in sorted(counters, key=lambda each: each[0])
        }
        for note, text in state.checkpoints.items():
            taken = _taken(note, text)
            if taken is None or taken[0] not in feeds:
                continue
            (source, part), upto = feeds[taken[0]], taken[1]
            for key, entry in source.state.entries.items():
                if part_of(key, self.partitions) != part:
                    continue
                for head in entry.heads.values():
                    seq = head.id & ((1 << 40) - 1)
                    if seq > upto or (key, head.rev) in state.parked:
                        continue
                    if not any(dot in state.known(key) for dot in head.dots) and head.rev not in self._buried(key):
                        raise Broken(
                            20,
                            f"{name} has taken {source.name} up to {upto}, and does not know {head.rev} of {key}, "
                            f"which is at {seq}",
                        )

    # What a transaction did

    def _minted(self, name: str, asked: Sequence[Asked], before: State, after: State) -> None:
        for was, now in zip(before.counters, after.counters, strict=True):
            first = was.ctr + 1 if was.actor == now.actor else 1
            for n in range(first, now.ctr + 1):
                self._wrote(name, asked, before, after, (now.actor, n), now.part)

    def _wrote(
        self, name: str, asked: Sequence[Asked], before: State, after: State, event: tuple[str, int], part: int
    ) -> None:
        found = [
            (key, version)
            for key, entry in after.entries.items()
            for version in entry.versions.values()
            if any(dot[:2] == event for dot in version.dots)
        ]
        if len(found) != 1:
            raise Broken(11, f"{event} of {name} names {len(found)} versions: {found}")
        [(key, version)] = found
        if part_of(key, self.partitions) != part:
            raise Broken(11, f"{event} of partition {part} of {name} is in {key}, of another partition")
        puts = [
            (each, index, work)
            for each in asked
            for index, work in enumerate(each.works)
            if isinstance(work, Put) and work.key == key
        ]
        if len(puts) != 1:
            raise Broken(0, f"{name} wrote {version.rev} of {key}, and {len(puts)} puts asked for it")
        [(each, index, put)] = puts
        if each.made.setdefault(index, version.rev) != version.rev:
            raise Broken(25, f"one put of {key} at {name} became two versions, {each.made[index]} and {version.rev}")
        read = before.heads(key) if put.context is None else put.context.revs
        lineage = self.oracle[key]
        if lineage.forgotten and version.rev in lineage.ancestors:
            # An edit from before a purge, made once more: nobody can tell any more that it was deleted with the rest.
            # The grace time of a purge is there for that, and this simulation's has none: what follows proves nothing.
            self.over = True
        if not self.ghosts:
            self.oracle.write(key, version.rev, event, read, put.content.identity)
        elif read or version.rev not in lineage.ancestors:  # a root may be born twice, of one dot: it is one version
            lineage.write(version.rev, event, read, put.content.identity)
        lineage.receive(name, version.rev)
        removed = set(before.heads(key)) - set(after.heads(key))
        phantoms = removed - lineage.ancestors[version.rev] - lineage.superseded - lineage.forgotten
        if phantoms:
            raise Broken(5, f"the put of {version.rev} at {name} removed {phantoms}, which its writer had not read")

    def _refuse_twin(self, lineage: Lineage, row: Version, forgotten: Mapping[str, int]) -> None:
        """The same edit, born elsewhere under another name, of something that was forgotten here.

        Nobody here can tell any more that it is the same one: it counts as an edit
        that the purge had not seen, and is kept. To the oracle it is below the purge.
        """
        buried = lineage.forgotten.union(*(lineage.ancestors[rev] for rev in lineage.forgotten))
        if row.rev in buried and forgotten and not any(dot.n <= forgotten.get(dot.actor, 0) for dot in row.dots):
            self.over = True
            raise Over

    def _fenced(self, name: str, work: Receive) -> None:
        """Who receives under a lease holds it at the moment of the commit."""
        if work.fence is not None:
            [here] = [site for site in self.sites if site.name == name]
            lease, token = work.fence
            if here.mirror.lease(lease) != token:
                raise Broken(20, f"{name} was written under {lease} by someone who holds it no more")

    def _forgot(self, name: str, asked: Sequence[Asked], before: State, after: State) -> None:
        """13: keys that lost all their heads."""
        for key, entry in before.entries.items():
            if not entry.heads or after.entry(key).heads:
                continue
            if after.entry(key).versions and name not in self.filtered:  # what leaves a filter leaves its stub
                raise Broken(13, f"{name} purged {key}, and {sorted(after.entry(key).versions)} of it are still there")
            live = [head.rev for head in entry.heads.values() if not head.deleted]
            lost = [rev for rev in live if rev not in self.oracle[key].superseded]
            if lost:
                raise Broken(3, f"{name} purged {key} with live heads that nothing replaced: {lost}")
            if name in self.filtered and after.entry(key).versions:
                continue
            self.purged += 1
            if any(isinstance(work, Purge) for each in asked for work in each.works):
                self._proven(name, key, entry)
            self.oracle[key].forgotten |= {head.rev for head in entry.heads.values() if head.deleted}
            self._refuse_twins_elsewhere(name, key, after)

    def _refuse_twins_elsewhere(self, name: str, key: str, after: State) -> None:
        """An edit below the purge that is a head elsewhere, born there once more, of which nobody here knows.

        Only where a replica counts no more (it has expired) can it be unheard of. Its edit is one that the purge had
        not seen, and is kept there; here the same version is below the purge. What follows proves nothing.
        """
        buried = self._buried(key)
        known = after.known(key)
        self.over |= any(
            head.rev in buried and not any(dot in known for dot in head.dots)
            for site in self.sites
            if site.name != name
            for head in site.state.entry(key).heads.values()
        )

    def _buried(self, key: str) -> set[str]:
        """The revs of a key that somebody has purged, and of what was below them."""
        lineage = self.oracle[key]
        return lineage.forgotten.union(*(lineage.ancestors[rev] for rev in lineage.forgotten))

    def _proven(self, name: str, key: str, entry: Entry) -> None:
        """13: whoever is registered and not expired knows all of what is purged."""
        [here] = [site for site in self.sites if site.name == name]
        registered = here.mirror.registered() if here.purging_all else set()
        for site in self.sites:
            if site is not here and site.uid in registered and site.original:
                lacked = [
                    dot
                    for version in entry.versions.values()
                    for dot in version.dots
                    if dot not in site.state.known(key)
                ]
                if lacked:
                    raise Broken(13, f"{name} purged {key}, and {site.name} does not know {lacked} of it")

    # Backups

    def remembered(self, name: str) -> dict[str, View]:
        return self.oracle.remembered(name)

    def recall(self, name: str, remembered: dict[str, View], state: State) -> None:
        self.oracle.recall(name, remembered)
        self.look_at_all(name, state)


def _is_told(entry: Entry, rev: str) -> bool:
    """Whether the rows of a key tell that some dot of a version names another one too."""
    if rev not in entry.versions:
        return False
    others = {dot[:2] for other, version in entry.versions.items() if other != rev for dot in version.dots}
    return is_marked(entry.versions[rev]) or any(dot[:2] in others for dot in entry.versions[rev].dots)


def _differ(before: State, after: State, key: str) -> bool:
    """Whether a key, or what is known of its partition, changed. What did not is mostly the same object still."""
    return any(
        was is not now and was != now
        for was, now in (
            (before.entry(key), after.entry(key)),
            (before.known(key), after.known(key)),
            (before.forgets(key), after.forgets(key)),
        )
    )


@lru_cache(maxsize=10_000)
def _taken(note: str, text: str) -> tuple[str, int] | None:
    """The feed that a checkpoint is of, and up to where it says that all was taken; None for other checkpoints."""
    words = note.split(":")
    if words[0] != "sync" or len(words) != 4:
        return None
    taken = json.loads(text)
    return taken["feed"], taken["seq"]
