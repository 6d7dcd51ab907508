"""What two replicas of a collection tell each other before anything moves: where each partition stands.

For each partition its feed and position, its actor and counter, how far it knows
every actor and what it may have forgotten; and how far the target has taken the
source. Two small queries for each shard and one more for each of the target's,
however many documents there are. From that follows what there is to do:

    nothing            the target's checkpoint is at the source's position
    the ordinary feed  it is behind on the same feed
    a first contact    there is none, the feed is another one, or it went back
    a ghost            somebody knows more of an actor than its own counter says
    a stale replica    it does not know all that the other may have forgotten

Source: docs/consistency.md, "Sync".
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from vstore import witness
from vstore.errors import ConfigurationError, StoreError
from vstore.handle import Handle
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql


@dataclass(frozen=True, slots=True)
class Place:
    """One partition of a collection in one store."""

    shard: Shard
    definition: Definition
    part: int

    @property
    def partition(self) -> int:
        """The id of its counter row."""
        return self.definition.base + self.part


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one partition replica stands.

    `bases` has, for each actor it knows, up to which event without a gap, and
    `highest` up to which at all; both with its own. `forgotten` is up to where
    deleted keys may have been purged.
    """

    actor: str
    ctr: int
    seq: int
    feed: str
    bases: Mapping[str, int]
    highest: Mapping[str, int]
    forgotten: Mapping[str, int]

    def covers(self, vector: Mapping[str, int]) -> bool:
        """Whether it knows every event that the vector names."""
        return all(n <= self.bases.get(actor, 0) for actor, n in vector.items())

    def exposes(self, other: Standing) -> bool:
        """Whether it knows more of the other's actor than the other itself: that one was set back, and is a ghost."""
        return self.highest.get(other.actor, 0) > other.ctr


@dataclass(frozen=True, slots=True)
class Taken:
    """How far the target has taken a partition of the source: whose feed, up to where, and the note that says so."""

    feed: str = ""
    seq: int = 0
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Handshake:
    """Both sides, partition by partition. The source was asked first.

    `demands` are those for a witness that either had before anybody was asked.
    """

    source: tuple[Standing, ...]
    target: tuple[Standing, ...]
    demands: tuple[Demand, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """A shard whose writers wait until a peer of the collection has been asked; see `vstore.witness`."""

    handle: Handle
    shard: Shard
    definition: Definition
    text: str


@dataclass(frozen=True, slots=True)
class Pending:
    """What a target has not taken yet: `commits` of the source out of `of`. `met` unless this is a first contact."""

    commits: int
    of: int
    met: bool


def meet(source: Handle, target: Handle) -> Handshake:
    """Asks both sides where they stand.

    Raises:
        ConfigurationError: they differ in the number of partitions.
        Unavailable: one does not answer.
    """
    if source.partitions != target.partitions:
        raise ConfigurationError(
            f"{source.name!r} has {source.partitions} partitions and {target.name!r} {target.partitions}, so their "
            f"feeds do not match. Nothing was moved. Export one and import it into a collection with as many "
            f"partitions."
        )
    demands = (*_demands(source), *_demands(target))  # first: who demands later than this is not answered by it
    return Handshake(standings(source), standings(target), demands)


def vouch(met: Handshake, source: Handle, target: Handle) -> None:
    """Answers those who wait for a witness, unless they have been set back and nobody could give them new actors.

    Where nothing may be written nobody writes who waits.
    """
    exposed = set()
    for s, t in zip(met.source, met.target, strict=True):
        exposed |= {handle.uid for handle, ghost in ((source, t.exposes(s)), (target, s.exposes(t))) if ghost}
    for each in met.demands:
        if each.handle.uid not in exposed:
            with suppress(StoreError), each.shard.transaction():
                witness.answer(each.shard.database.read(), each.definition.id, each.text)


def _demands(handle: Handle) -> list[Demand]:
    """Who waits for a witness. One small query for each shard."""
    found = []
    for shard, definition, _first, _end in handle.runs():
        text = witness.outstanding(shard.database, definition.id)
        if text:
            found.append(Demand(handle, shard, definition, text))
    return found


def standings(handle: Handle) -> tuple[Standing, ...]:
    """Where each partition of a replica stands. Two small queries for each shard."""
    found: dict[int, Standing] = {}
    for shard, definition, first, end in handle.runs():
        bounds = definition.base + first, definition.base + end
        bases: defaultdict[int, dict[str, int]] = defaultdict(dict)
        highest: defaultdict[int, dict[str, int]] = defaultdict(dict)
        forgotten: defaultdict[int, dict[str, int]] = defaultdict(dict)
        # Counters last, and no transaction: all of it only grows, and nobody is harmed by one who knows more of his own
        # doing than of what he has heard.
        for id_, actor, base, most in shard.database.ask(sql.KNOWN_IN, bounds):
            if most is None:
                forgotten[id_][actor] = base
            else:
                bases[id_][actor], highest[id_][actor] = base, most
        for id_, actor, ctr, seq, feed in shard.database.ask(sql.STANDINGS, bounds):
            bases[id_][actor] = highest[id_][actor] = ctr
            found[id_ - definition.base] = Standing(actor, ctr, seq, feed, bases[id_], highest[id_], forgotten[id_])
    return tuple(found[part] for part in range(handle.partitions))


def pending(source: Handle, target: Handle, mode: str = "") -> Pending:
    """How many commits of the source the target has not taken. One small query for each shard."""
    commits = of = 0
    met = True
    before = checkpoints(source, target, mode)  # first: else they may be ahead of the positions
    for (feed, seq), taken in zip(source.positions(), before, strict=True):
        of += seq
        follows = taken.feed == feed and taken.seq <= seq
        commits += seq - taken.seq if follows else seq
        met = met and (follows or not seq)
    return Pending(commits, of, met)


def place(handle: Handle, part: int) -> Place:
    """Where a replica has a partition."""
    owner = handle.owners[part]
    return Place(handle.shards[owner], handle.definitions[owner], part)


def link_of(source: Handle, target: Handle, mode: str = "") -> str:
    """The name of a link: of its lease, and the beginning of those of its checkpoints.

    Args:
        mode: tells apart what else decides which rows travel: the filter, the history.
    """
    return f"sync:{source.uid}:{target.uid}" + (f":{mode}" if mode else "")


def checkpoint_name(source: Handle, target: Handle, part: int, mode: str = "") -> str:
    """The name under which a target notes how far it has taken a partition of a source."""
    return f"{link_of(source, target)}:{part}" + (f":{mode}" if mode else "")


def checkpoints(source: Handle, target: Handle, mode: str = "") -> list[Taken]:
    """How far the target has taken each partition."""
    link = link_of(source, target)
    notes: dict[str, str] = {}
    for shard in target.shards:
        notes.update(shard.database.ask(sql.CHECKPOINTS_AMONG, (f"{link}:", f"{link};")))  # all that begin with "link:"
    found = []
    for part in range(source.partitions):
        note = notes.get(checkpoint_name(source, target, part, mode))
        found.append(Taken(**json.loads(note), note=note) if note else Taken())
    return found
