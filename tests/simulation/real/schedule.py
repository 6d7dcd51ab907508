"""Random histories of real replicas: what clients, the network, operators and fate do to them.

One seed is one history of some dozen steps over 2 to 7 replicas, connected as a
ring, a star, a line, a tree or all with all. Steps go through the public API;
any of them may be hit by a fault of `faults.py`, or have other steps happen in
its middle, between two statements. Then faults stop, and everything has to
converge within a bound of rounds:

    run(seed) ──► steps ──► Store, Collection, pull, … ──► SQLite ──► Truth, at every commit
              ──► heal  ──► every link until quiet ──► all equal, nothing lost, nothing left to do

Each run draws how common every kind of step is, and a quarter of them not at all.
One thread; all randomness is Random(seed), so a seed always takes the same steps.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise, permutations
from random import Random
from types import MappingProxyType
from typing import Any

import orjson

import replication.batches
import replication.feed
from mapreduce import view
from replication import Filter, Replicator, sync
from replication.lease import LeaseHeld
from replication.pull import Pulled, pull
from replication.resolve import Settler
from tests.simulation.invariants import within
from tests.simulation.oracle import Broken
from vstore import Conflict, Context, NotFound, PreconditionFailed
from vstore.clock import Dot
from vstore.document import Entry, context_of, winner_first
from vstore.errors import StoreError, Unavailable
from vstore.resolvers import Resolver, Siblings, keep, winner
from vstore.shard import Shard

from . import site as sites_
from .faults import KINDS, Fault, Killed
from .site import Backup, Site, apply
from .truth import Over, Truth
from .world import World, blank_stores, installed, uncollected

STEPS = (20, 35, 55, 85)
BODIES: tuple[Mapping[str, Any], ...] = ({"n": 0}, {"n": 1})  # few, so that the same edit is often born in two places
MEMORY = 10
VIEWED = 0.1
"""How many schedules look at views: to build one costs as much as all the rest of a schedule."""

HAUNTED = 0.08
"""How many schedules have disks that are set back or cloned, proofs and all: they are of a kind of their own."""


@dataclass(frozen=True, slots=True)
class Read:
    """What a client remembers of a read: the token, and the heads there were."""

    key: str
    context: Context


@dataclass(frozen=True, slots=True)
class Write:
    """What a client remembers of a put, to repeat it when it is in doubt."""

    read: Read
    value: Mapping[str, Any] | None


def run(seed: int, *, often: Mapping[str, float] = MappingProxyType({}), **settings: Any) -> Simulation:
    """Simulates one history.

    Args:
        often: kinds of steps by name, and how much more often than usual they come.
        settings: attributes of the simulation, instead of what the seed draws.

    Raises:
        Broken: an invariant does not hold. The message has the seed and every step up to there.
    """
    for partitions in (1, 2):
        blank_stores(partitions)  # made once, in a world of their own
    with ExitStack() as stack:
        world = World(seed)
        stack.callback(world.close)
        stack.enter_context(installed(world))
        stack.enter_context(uncollected())
        stack.enter_context(replaced(Shard, "apply", apply))
        simulation = Simulation(seed, world)
        stack.callback(simulation.close)
        for number, kind in enumerate(simulation.kinds):
            simulation.weights[number] += often.get(kind.__name__, 0)
        if settings.pop("filter_one", False) and not simulation.filters and len(simulation.sites) > 1:
            simulation.filter_one()
        if settings.pop("rivals", False):
            simulation.make_rivals()
        if settings.pop("ghosts", simulation.is_haunted):
            simulation.make_ghosts()
        for name, value in settings.items():
            setattr(simulation, name, value)
        try:
            for _ in range(simulation.steps):
                simulation.step()
                if simulation.truth.over:
                    return simulation
            simulation.heal()
        except Over:
            return simulation
        except Broken as error:
            raise Broken(error.invariant, f"invariant {error.invariant}: {error}\n{simulation.where()}") from error
        except Exception as error:
            raise Broken(0, f"{traceback.format_exc()}\n{simulation.where()}") from error
    return simulation


def story_of_failure(seed: int) -> tuple[int, str]:
    """The seed, and what went wrong with it; nothing if nothing did. For processes of a pool."""
    try:
        run(seed)
    except Broken as broken:
        return seed, str(broken)
    return seed, ""


@contextlib.contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


class Simulation:
    """The replicas, the clients and the network of one run."""

    def __init__(self, seed: int, world: World) -> None:
        self.seed = seed
        self.world = world
        self.random = random = Random(seed)
        self.trace: list[str] = []
        self.partitions = random.choice((1, 1, 2))
        self.steps = random.choice(STEPS)
        self.keys = [f"k{i}" for i in range(random.choice((1, 1, 2, 3)))]
        self.truth = Truth(self.keys, self.partitions)
        self.lost_versions = 0  # deleted past the product: `check` would find them, and in copies of the file too
        self.sites: dict[str, Site] = {}
        self.reads: list[Read] = []
        self.writes: list[Write] = []
        self.backups: dict[str, list[Backup]] = {}
        self.counts: dict[str, int] = {}
        self.struck: dict[str, int] = {}
        self._happened: list[str] = []
        self._depth = 0
        self._moved_on = False
        for _ in range(random.choice((2, 2, 3, 3, 4, 5, 7))):
            self._add(blank_stores(self.partitions)[len(self.sites)])
        self.links = self._topology()
        self.filters: dict[str, Filter] = {}
        if len(self.sites) > 2 and random.random() < 0.25:
            self.filter_one()
        self.histories: dict[str, Any] = {name: "all" for name in self.sites if random.random() < 0.15}
        self.resolvers: dict[str, Resolver] = {}
        if random.random() < 0.4:
            alike = self._resolver() if random.random() < 0.5 else None
            self.resolvers = {name: alike or self._resolver() for name in self.sites}
        self.on_arrival = random.random() < 0.5
        self.reconcile_rows = random.choice((5_000, 5_000, 0))
        self.down: set[tuple[str, str]] = set()
        self.has_views = Random(f"views {seed}").random() < VIEWED
        kinds: dict[Callable[[str], str | None], float] = {
            self.write: 6,
            self.write_plain: 2,
            self.write_blind: 1,
            self.write_stale: 3,
            self.write_partial: 1.5,
            self.write_many: 1,
            self.modify: 1,
            self.repeat: 2,
            self.resolve: 1,
            self.settle: 1.5,
            self.pull: 8,
            self.sync: 5,
            self.follow: 1.5,
            self.prune: 1,
            self.purge: 2,
            self.erase: 0.4,
            self.retire: 0.3,
            self.end_process: 0.7,
            self.back_up: 1,
            self.restore: 0.6,
            self.copy_file: 0.25,
            self.cut_links: 0.5,
            self.mend_links: 0.5,
            self.change_clock: 0.3,
            self.reconcile: 0.4,
            self.damage: 0.3,
            self.rot: 0.2,
            self.replicate: 1.5,
            self.change_filter: 0.5,
        }
        if self.has_views:
            kinds[self.look_at_view] = 2
        essential = (self.write, self.sync, self.pull)
        self.kinds = list(kinds)
        self.weights = [
            weight * (1 if kind in essential else random.choice((0, 0.5, 1, 3))) for kind, weight in kinds.items()
        ]
        self.deletes = random.choice((0, 0.1, 0.3))
        self.fault_rate = random.choice((0, 0, 0.2, 0.5))
        self.fault_kinds = random.sample(KINDS, random.randint(1, len(KINDS)))
        self.between_rate = random.choice((0, 0, 0.2, 0.5))
        self.batch_rows = random.choice((1, 2, 3, 1000))
        self.lose_one = random.random() < 0.2
        self.healing = False
        self.clock_changed = False
        self.is_haunted = Random(f"haunted {seed}").random() < HAUNTED
        self.expiries: tuple[float | None, ...] = (None, None, None, 0.0001, 0)
        self.meanwhile = [self.write, self.write, self.write_stale, self.pull, self.prune, self.sync]

    def close(self) -> None:
        for site in self.sites.values():
            site.destroy()
        sites_.by_path.clear()

    def where(self) -> str:
        """The seed and the steps, for a failure's report."""
        return f"seed {self.seed}, step {len(self.trace)}:\n{self.story()}"

    def story(self) -> str:
        return "\n".join(f"{number:4} {line}" for number, line in enumerate(self.trace, 1))

    # Steps, faults and what happens in between

    def step(self) -> None:
        """One random step."""
        self.world.time.pass_us(self.random.choice((1_000, 50_000, 3_000_000)))
        kind = self.random.choices(self.kinds, self.weights)[0]
        name = self._any_name()
        self._perform(kind, name)

    def _perform(self, kind: Callable[[str], str | None], name: str) -> None:
        """A step, with what may go wrong in it."""
        self.world.time.where = name
        line = len(self.trace)
        margin = "  " * self._depth
        self.trace.append(f"{margin}{kind.__name__} {name}")  # in case it raises
        with self._faults(name) as struck:
            try:
                told = kind(name)
            except Killed:
                told = "killed"
            except LeaseHeld as error:
                told = f"not now: {error}"
            except Unavailable as error:
                if not struck() and not self._moved_on:
                    raise Broken(0, f"{kind.__name__} {name} failed and nothing was wrong: {error}") from error
                told = f"failed: {error}"
        if self._happened:
            told = f"{told} [{', '.join(self._happened)}]"
            self._happened.clear()
        for site in self.sites.values():
            site.raise_broken()
        for site in list(self.sites.values()):
            if site.wire.dead:
                site.kill()
                site.open()
                told = f"{told}; {site.name} starts again"
            elif not self._depth and site.wire.transactions():
                raise Broken(0, f"{kind.__name__} {name} left a transaction open at {site.name}")
        if told is None:
            if len(self.trace) == line + 1:
                self.trace.pop()
        else:
            self.trace[line] = f"{margin}{kind.__name__} {name}: {told}".replace(str(self.world.folder), "")
            self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1

    @contextlib.contextmanager
    def _faults(self, name: str) -> Iterator[Callable[[], bool]]:
        """Perhaps arms a fault at some replica, and lets others in between statements."""
        armed: list[Site] = []
        self._moved_on = False
        if self._depth == 0 and self.random.random() < self.fault_rate:
            site = self.sites[name if self.random.random() < 0.7 else self._any_name()]
            kind = self.random.choice(self.fault_kinds)
            writes = kind not in ("cut",) and self.random.random() < 0.5
            commits = kind in ("cut at commit", "doubt", "killed at commit", "killed after commit")
            left = self.random.choice((1, 1, 2, 3)) if commits else int(2 ** self.random.uniform(0, 4.5))
            site.wire.arm(Fault(kind, left, writes))
            armed.append(site)
        if self._depth == 0 and self.random.random() < self.between_rate:
            left = [int(2 ** self.random.uniform(0, 6)) for _ in range(self.random.choice((1, 1, 2, 4)))]
            for site in self.sites.values():
                site.wire.between = lambda: self._between(left)

        def struck() -> bool:
            return any(site.wire.struck for site in armed)

        try:
            yield struck
        finally:
            for site in armed:
                kind_ = site.wire.disarm()
                if kind_ is not None:
                    self._happened.append(f"{kind_} at {site.name}")
                    self.struck[kind_] = self.struck.get(kind_, 0) + 1
            if self._depth == 0:
                for site in self.sites.values():
                    site.wire.between = None

    def _between(self, left: list[int]) -> None:
        """Between two statements of a step: now and then other steps happen."""
        if self._depth or not left or not all(site.idle for site in self.sites.values()):
            return
        left[0] -= 1
        if left[0] > 0:
            return
        del left[0]
        kind = self.random.choice(self.meanwhile)
        if self.random.random() < 0.3:
            self.world.time.pass_us(40_000_000)  # a lease may have been taken over
        suspended = [(site, site.wire.fault) for site in self.sites.values()]
        where = self.world.time.where
        for site, _ in suspended:
            site.wire.fault = None
        self._depth += 1
        try:
            self._perform(kind, self._any_name())
        finally:
            self._depth -= 1
            self._moved_on = True
            self.world.time.where = where
            for site, fault in suspended:
                site.wire.fault = fault

    # Clients

    def write(self, name: str) -> str | None:
        """A client reads here and writes on top of it."""
        key = self._any_key()
        return self._put(name, Write(self._read(name, key), self._value()))

    def write_plain(self, name: str) -> str | None:
        """A client writes without having read: it supersedes all that this replica has."""
        site, key, value = self.sites[name], self._any_key(), self._value()
        if value is None:
            try:
                site.docs.delete(key)
            except NotFound:
                return f"nothing to delete at {key}"
        else:
            site.docs[key] = value
        return f"{_told(value)} to {key}"

    def write_blind(self, name: str) -> str | None:
        """A client creates a document without having looked whether there is one."""
        key = self._any_key()
        return self._put(name, Write(Read(key, Context(key)), self._value()))

    def write_stale(self, name: str) -> str | None:
        """A client writes on top of what it read some time ago, perhaps at another replica."""
        return self._put(name, Write(self.random.choice(self.reads), self._value())) if self.reads else None

    def write_partial(self, name: str) -> str | None:
        """A client writes on top of some of the siblings only."""
        key = self._any_key()
        heads = self.sites[name].state.entry(key).heads
        if len(heads) < 2:
            return None
        some = self.random.sample(sorted(heads), self.random.randint(1, len(heads) - 1))
        read = Read(key, context_of(key, [heads[rev] for rev in some]))
        return self._put(name, Write(read, self._value()))

    def write_many(self, name: str) -> str | None:
        """Several documents in one transaction."""
        values = {key: self.random.choice(BODIES) for key in self.keys}
        self.sites[name].docs.put_many(values)
        return f"{values}"

    def modify(self, name: str) -> str | None:
        """Read-modify-write, or compare-and-set on a rev."""
        key, value = self._any_key(), self.random.choice(BODIES)
        try:
            document = self.sites[name].docs.modify(key, lambda _: value, default=None)
        except Conflict as conflict:
            return f"{key} is in conflict: {type(conflict).__name__}"
        return f"{key} to {_told(value)} is {document.rev}"

    def repeat(self, name: str) -> str | None:
        """A client repeats a put whose outcome it does not know, perhaps at another replica."""
        return self._put(name, self.random.choice(self.writes)) if self.writes else None

    def resolve(self, name: str) -> str | None:
        """A client settles the siblings that are seen here."""
        key = self._any_key()
        site = self.sites[name]
        if len(site.state.heads(key)) < 2:
            return None
        try:
            document = site.docs.resolve(key, lambda conflict: conflict.siblings[0].value)
        except NotFound:
            return f"{key} is deleted"
        return f"{key} to {document.rev}"

    def settle(self, name: str) -> str | None:
        """The automatic resolver of this replica looks at all conflicts."""
        if name not in self.resolvers:
            return None
        settled = self._settler(name).background()
        return f"{settled.resolved}, left {sorted(settled.left)}"

    def follow(self, name: str) -> str | None:
        """The readers of this replica's feeds read on."""
        site = self.sites[name]
        with self._undisturbed():
            changes = [follower.read(site.docs, site.state) for follower in site.followers]
        return f"{changes} changes"

    # Network

    def pull(self, name: str) -> str | None:
        """The replica pulls from a neighbour."""
        source = self._neighbour(name)
        if source is None:
            return None
        return f"from {source}: {_moved(self._pull(source, name))}"

    def sync(self, name: str) -> str | None:
        """Two neighbours sync, both ways."""
        source = self._neighbour(name)
        if source is None or (name, source) in self.down:
            return None
        if name in self.filters or source in self.filters:
            return None
        report = sync(self.sites[name].docs, self.sites[source].docs)
        return f"with {source}: here {_moved(report.to_a)}, there {_moved(report.to_b)}"

    def replicate(self, name: str) -> str | None:
        """A pass of a replicator, one way or both."""
        source = self._neighbour(name)
        if source is None:
            return None
        filtered = {name, source} & self.filters.keys()
        both = not filtered and (name, source) not in self.down and self.random.random() < 0.5
        replicator = Replicator(
            self.sites[source].docs,
            self.sites[name].docs,
            both=both,
            filter=self.filters.get(name),
            history=self.histories.get(name, "heads"),
            reconcile_seconds=None,
        )
        with self._small_pages():
            status = replicator.run()
        return f"from {source}{' and back' if both else ''}: rows {status.rows} new {status.new} left {status.left}"

    def reconcile(self, name: str) -> str | None:
        """The replica compares all it has with a neighbour, and repairs what differs."""
        source = self._neighbour(name)
        if source is None or name in self.filters or source in self.filters:
            return None
        with self._small_pages():
            return (
                f"with {source}: {_moved(pull(self.sites[source].handle, self.sites[name].handle, reconcile='always'))}"
            )

    def change_filter(self, name: str) -> str | None:
        """A filtered replica wants other documents from now on."""
        if not self.filters or self._depth:
            return None
        name = self.random.choice(list(self.filters))
        source = self._neighbour(name)
        before, self.filters[name] = self.filters[name], self._filter()
        if source is None:
            return f"{name}: {_wanted(before)} to {_wanted(self.filters[name])}"
        with self._undisturbed():
            pulled = self._pull(source, name)
            self.sites[name].raise_broken()
        for key in self.keys:
            there, here = self.sites[source].state.entry(key), self.sites[name].state.entry(key)
            missing = {rev for rev, head in there.heads.items() if not head.deleted} - here.versions.keys()
            if missing and self._wants(name, key, there):
                raise Broken(21, f"{name} has taken {_wanted(self.filters[name])} of {source}, and lacks {missing}")
        return f"{name}: {_wanted(before)} to {_wanted(self.filters[name])}, {_moved(pulled)}"

    def cut_links(self, name: str) -> str | None:
        """Some links fail, some of them in one direction only."""
        up = sorted(self.links - self.down)
        if not up:
            return None
        some = self.random.sample(up, self.random.randint(1, len(up)))
        self.down |= set(some)
        return f"{some}"

    def mend_links(self, name: str) -> str | None:
        """Some of them come back, in another order."""
        if not self.down:
            return None
        some = self.random.sample(sorted(self.down), self.random.randint(1, len(self.down)))
        self.down -= set(some)
        return f"{some}"

    # Operators, machines

    def prune(self, name: str) -> str | None:
        """Retention drops the bodies of old versions."""
        if self.random.random() < 0.5:
            pruned = self.sites[name].docs.prune(keep_last=self.random.choice((1, 1, 2)))
        else:
            pruned = self.sites[name].docs.prune(keep_days=0)
        self.truth.look_at_all(name, self.sites[name].state)
        return f"{pruned.pruned}" if pruned.pruned else None

    def purge(self, name: str) -> str | None:
        """What everybody knows to be deleted is forgotten."""
        site = self.sites[name]
        expire = self.random.choice(self.expiries)
        site.purging_all = expire is None and not any(self.world.time.skew_us.values())
        try:
            purged = site.docs.purge(grace_days=0, expire_days=expire)
        finally:
            site.purging_all = False
        if not purged.keys:
            return None
        waits = f", {purged.held} wait for {[holder.name[-6:-3] for holder in purged.holders]}" if purged.held else ""
        return f"{purged.purged} of {purged.keys}{waits}{f', expired {len(purged.expired)}' * bool(purged.expired)}"

    def erase(self, name: str) -> str | None:
        """A document is deleted with the bodies of its history."""
        key = self._any_key()
        try:
            self.sites[name].docs.erase(key)
        except NotFound:
            return None
        return key

    def retire(self, name: str) -> str | None:
        """Somebody says that a replica is gone for good."""
        replicas = self.sites[name].docs.replicas()
        if not replicas:
            return None
        gone = self.random.choice(replicas)
        self.sites[name].docs.retire_replica(gone.id)
        return gone.name[-6:-3]

    def damage(self, name: str) -> str | None:
        """Rows are deleted past the product, and a comparison with a neighbour brings them back."""
        source = self._neighbour(name)
        if source is None or self._depth or name in self.filters or source in self.filters:
            return None
        here, there = self.sites[name], self.sites[source]
        with self._undisturbed():
            self._pull(source, name)
            heads = [
                (key, head)
                for key in self.keys
                for rev, head in sorted(here.state.entry(key).heads.items())
                if rev in there.state.entry(key).heads
            ]
            if not heads:
                return None
            key, head = self.random.choice(heads)
            lost = self.random.choice(("its place among the heads", "the version"))
            here.damaged = True  # nothing that holds of a sound file does, until it is repaired
            self.lost_versions += lost == "the version"
            here.lose(key, head.id, whole=lost == "the version")
            pulled = pull(there.handle, here.handle, reconcile="always")
            here.damaged = False
            here.raise_broken()
            self.truth.look_at_all(name, here.state)
            if head.rev not in here.state.entry(key).heads:
                raise Broken(12, f"{name} lost {head.rev} of {key} ({lost}), and a comparison with {source} left it so")
            if not (pulled.differences or pulled.unexplained):
                raise Broken(12, f"{name} lost {head.rev} of {key} ({lost}), and nobody was alarmed")
        return f"{lost} of {head.rev} of {key}, repaired from {source}: {_moved(pulled)}"

    def rot(self, name: str) -> str | None:
        """A body changes on the disk before anybody has it: a pull parks it, `check` names it; then it is mended."""
        here = self.sites[name]
        targets = [target for source, target in sorted(self.links - self.down) if source == name]
        if self._depth or not targets or self.counts.get("erase") or self.filters.keys() & {name, *targets}:
            return None
        there = self.sites[self.random.choice(targets)]
        if there.name in self.world.time.frozen:
            return None  # by a clock that stands still it is never time to try again
        key = self._any_key()
        with self._undisturbed():
            self._put(name, Write(self._read(name, key), {"n": len(self.trace)}))
            head = max(here.state.entry(key).heads.values(), key=lambda each: each.id)
            if head.body is None or head.rev in there.state.entry(key).versions:
                return None
            rotten = self.random.choice((head.body[:-1] + b"!", head.body[:-1] + b"5}"))
            here.damaged = True
            here.rot(key, head.id, rotten)
            try:
                parked = self._pull(name, there.name)
                if head.rev in there.state.entry(key).heads or not (parked.parked or there.mirror.parked()):
                    raise Broken(20, f"{there.name} took {rotten!r} of {head.rev} of {key} from {name}: {parked}")
                if not any(finding.key == key and finding.rev == head.rev for finding in here.store.check()):
                    raise Broken(0, f"{rotten!r} of {head.rev} of {key} at {name}: check did not notice")
            finally:  # the link may be somebody else's just now
                here.rot(key, head.id, head.body)
                here.damaged = False
            self.world.time.pass_us(10_000_000)
            taken = self._pull(name, there.name)
            if head.rev not in there.state.entry(key).versions:
                raise Broken(3, f"{head.rev} of {key} at {name} was mended, and {there.name} never took it: {taken}")
        return f"{head.rev} of {key} became {rotten!r}, parked at {there.name}, and mended"

    def look_at_view(self, name: str) -> str | None:
        """22: a view is what plain Python makes of the documents, whatever came, went or was taken back."""
        site = self.sites[name]
        with self._undisturbed():
            found = [(row.key, row.id) for row in view(site.docs, "numbers", map=numbers, version=1).rows()]
            site.raise_broken()
        heads = {key: winner_first(entry.heads.values())[:1] for key, entry in site.state.entries.items()}
        wanted = sorted((orjson.loads(head.body or b"")["n"], key) for key in heads for head in heads[key] if head.body)
        if found != wanted:
            raise Broken(22, f"a view of {name} has {found}, and the documents are {wanted}")
        return f"{found}"

    def end_process(self, name: str) -> str | None:
        """The process that has the file open ends, as it should or not, and another begins."""
        site = self.sites[name]
        clean = self.random.random() < 0.5
        if self._depth:
            return None
        if clean:
            site.close()
        else:
            site.kill()
        site.open()
        return "cleanly" if clean else "killed"

    def back_up(self, name: str) -> str | None:
        """A backup of the file is made."""
        self.backups[name] = [*self.backups[name][-2:], self.sites[name].back_up()]
        return ""

    def restore(self, name: str) -> str | None:
        """The file is lost and an older one takes its place."""
        site = self.sites[name]
        same_inode = self.random.random() < 0.5
        site.kill()
        site.restore(self.random.choice(self.backups[name]), same_inode=same_inode, with_proofs=False)
        site.open()
        return f"into {'the same' if same_inode else 'another'} file"

    def copy_file(self, name: str) -> str | None:
        """The file is copied and opened elsewhere as one more replica."""
        if len(self.sites) >= 8 or name in self.filters:
            return None
        backup = self.sites[name].back_up()
        twin = self._add(backup.file)
        twin.original = False
        self.truth.recall(twin.name, backup.received, twin.state)
        self.backups[twin.name] = [twin.back_up()]
        self.links |= {(name, twin.name), (twin.name, name)}
        return f"to {twin.name}"

    def set_back(self, name: str) -> str | None:
        """A disk is set back to a snapshot, with the proofs on it; often somebody has seen what came after that."""
        if self._depth:
            return None
        site = self.sites[name]
        with self._undisturbed():
            snapshot = site.back_up() if self.random.random() < 0.8 else self.random.choice(self.backups[name])
            before = [self.write(name) for _ in range(self.random.choice((0, 1, 1, 2)))]
            witnesses = [target for source, target in sorted(self.links) if source == name]
            witness = self.random.choice(witnesses) if witnesses else name
            if witness != name:
                self._pull(name, witness)
            site.kill()
            site.restore(snapshot, same_inode=True, with_proofs=True)
            site.open()
            after = [self.write(name) for _ in range(self.random.choice((0, 1, 2, 3)))]
        return f"{before} was seen by {witness}, and then {after}"

    def change_clock(self, name: str) -> str | None:
        """The clock on the wall jumps, stands still, or goes on."""
        time = self.world.time
        self.clock_changed = True
        match self.random.choice(("back", "ahead", "far", "frozen", "right")):
            case "back":
                time.skew_us[name] = -self.random.choice((1_000, 60_000_000, 3_600_000_000))
            case "ahead":
                time.skew_us[name] = self.random.choice((1_000, 60_000_000, 3_600_000_000))
            case "far":
                time.skew_us[name] = 20 * 365 * 86_400_000_000
            case "frozen":
                time.frozen[name] = time.wall_us(name)
            case _:
                time.skew_us.pop(name, None)
                time.frozen.pop(name, None)
        return f"{time.skew_us.get(name)} {'frozen' if name in time.frozen else ''}"

    # The end

    def heal(self) -> None:
        """Faults stop, all links sync until nothing moves; then all are equal, and it is the truth."""
        self.down.clear()
        self.healing = True
        self.trace.append("heal")
        self.world.time.frozen.clear()  # by a clock that stands still no lease of one who died would ever end
        if self.lose_one and len(self.sites) > 2 and not self.filters:
            self._lose_one()
        self.world.time.pass_us(60_000_000)
        bound = (3 if not self.resolvers else 6) * len(self.sites) + 3
        for _ in range(bound):
            moved = 0
            for source, name in self._pairs():
                pulled = self._pull(source, name)
                for site in self.sites.values():
                    site.raise_broken()
                moved += pulled.rows + pulled.forgotten + pulled.left
                if pulled.rows:
                    self.trace.append(f"  {name} from {source}: {_moved(pulled)}")
            for name in [name for name in self.resolvers if name in self.sites]:
                settled = self._settler(name).background()
                self.sites[name].raise_broken()
                moved += len(settled.resolved)
                if settled:
                    self.trace.append(f"  {name} settles {settled.resolved}")
            if not moved:
                break
        else:
            raise Broken(14, f"rows still move after {bound} rounds without a write")
        if self.truth.ghosts:
            self._laid()
            return
        self.converged()
        for site in self.sites.values():
            for follower in site.followers:
                follower.read(site.docs, site.state)
            self._is_sound(site)
            if self.has_views:
                self.look_at_view(site.name)
        self._purges_resume()

    def _lose_one(self) -> None:
        """Liveness: a replica is gone for good, and what only it had; the others are the core that has to go on."""
        gone = self._any_name()
        site = self.sites.pop(gone)
        site.destroy()
        self.truth.sites.remove(site)
        self.links = set(permutations(self.sites, 2))
        self.trace.append(f"  {gone} is gone for good")

    def _purges_resume(self) -> None:
        """30: what is deleted is forgotten by all in the end, even if a replica that counted is gone for good.

        Not where a clock was wrong: a delete that was stamped in a far future is
        young for as long, and who is that far ahead believes all others expired.
        Nor where an event is lost for ever, with a file that a backup has
        overwritten or a replica that is gone: what has seen it waits for it.
        """
        deleted = [key for key in self.keys if self._is_deleted(key) and not self._misses_events(key)]
        if not deleted or self.filters or self.clock_changed or self.random.random() < 0.5:
            return
        self.world.time.pass_us(91 * 86_400_000_000)
        for round_ in range(2 * len(self.sites) + 2):
            self.world.time.pass_us(60_000_000)
            for source, name in self._pairs():
                self._pull(source, name)
            for name, site in self.sites.items() if round_ >= len(self.sites) else ():
                self.world.time.where = name
                site.docs.purge(grace_days=0)
            for site in self.sites.values():
                site.raise_broken()
        left = {key for key in deleted if self._is_deleted(key)}
        if left:
            held = {name: site.docs.purge(grace_days=0, dry_run=True) for name, site in self.sites.items()}
            raise Broken(30, f"{left} was deleted long ago, all have heard of it, and somebody keeps it: {held}")

    def _misses_events(self, key: str) -> bool:
        """Whether some write of a document is known to nobody any more."""
        dots = [Dot(*event) for event in self.truth.oracle[key].names]
        return any(dot not in site.state.known(key) for site in self.sites.values() for dot in dots)

    def _is_deleted(self, key: str) -> bool:
        """Whether somebody has a tombstone of a document, and nobody a live version."""
        heads = [head for site in self.sites.values() for head in site.state.entry(key).heads.values()]
        return bool(heads) and all(head.deleted for head in heads)

    def _is_sound(self, site: Site) -> None:
        """`vstore check` finds nothing where nobody deleted rows past the product."""
        if self.lost_versions:
            return  # it would find them
        for finding in site.store.check():
            raise Broken(0, f"check finds damage at {site.name}: {finding}")

    def _laid(self) -> None:
        """All show the same, and nothing that nobody replaced is lost, though dots were used twice."""
        (first, one), *others = self.sites.items()
        for key in self.keys:
            for name, other in others:
                if shown(one, key) != shown(other, key):
                    raise Broken(1, f"{key} is {shown(one, key)} at {first}, {shown(other, key)} at {name}")
            lineage = self.truth.oracle[key]
            lost = lineage.received_anywhere(self.sites).truth - one.state.entry(key).heads.keys()
            if lost - lineage.superseded - self.truth.absorbed:
                raise Broken(3, f"after healing {key} does not show {lost}, which nothing has replaced")

    def converged(self) -> None:
        """1, and 3 to 7 as they must be in the end."""
        (first, one), *others = ((name, site) for name, site in self.sites.items() if name not in self.filters)
        for name, other in others:
            for part in range(self.partitions):
                if one.state.knowledge[part] != other.state.knowledge[part]:
                    raise Broken(
                        1, f"{first} knows {one.state.knowledge[part]}, {name} knows {other.state.knowledge[part]}"
                    )
            for key in self.keys:
                here, there = shown(one, key), shown(other, key)
                if here == there and sorted(one.state.lanes.get(key, [])) != sorted(other.state.lanes.get(key, [])):
                    raise Broken(1, f"{key} is the same at {first} and {name}, and its fingerprints differ")
                gone = self._forgotten(key)  # tombstones that may be purged: whoever still has one, shows no more
                if [head for head in here if head[0] not in gone] != [head for head in there if head[0] not in gone]:
                    raise Broken(1, f"{key} is {here} at {first}, {there} at {name}")
        for key in self.keys:
            self._is_true(key, one)
            for name in self.filters:
                self._is_wanted(name, key, one)

    def _is_true(self, key: str, one: Site) -> None:
        lineage = self.truth.oracle[key]
        everything = lineage.received_anywhere(self.sites)
        heads = set(one.state.entry(key).heads)
        # As in the model: a version that existed only in a file that a backup has overwritten is an excuse for what it
        # had replaced.
        lost = lineage.ancestors.keys() - everything.seen
        for rev in sorted(heads - everything.truth):
            if not any(rev in lineage.ancestors[gone] for gone in lost):
                raise Broken(4, f"after healing {key} shows {rev}, which has been replaced")
        for rev in sorted(everything.truth - heads - self._forgotten(key)):
            if not any(rev in lineage.ancestors[gone] for gone in lost):
                invariant = 6 if rev in lineage.deleted else 3
                raise Broken(invariant, f"after healing {key} does not show {rev}, which nothing has replaced")

    def _is_wanted(self, name: str, key: str, full: Site) -> None:
        """29: a filtered replica shows nothing that is no more, and all that it wants."""
        entry = full.state.entry(key)
        here, there = self.sites[name].state.entry(key).heads, entry.heads
        if not key.startswith(self.filters[name].prefix):
            return  # what an earlier filter brought stays as it was: keys outside of the prefix are not looked at
        strays = here.keys() - there.keys() - self._forgotten(key)
        if strays:
            raise Broken(29, f"{name} wants {_wanted(self.filters[name])}, and still shows {strays} of {key}")
        missing = {rev for rev, head in there.items() if not head.deleted} - here.keys()
        if missing and self._wants(name, key, entry):
            raise Broken(21, f"{name} wants {_wanted(self.filters[name])}, and lacks {missing} of {key}")

    def _wants(self, name: str, key: str, entry: Entry) -> bool:
        """Whether a filtered replica wants a document as it is elsewhere."""
        live = [head for head in entry.heads.values() if not head.deleted]
        return any(self.filters[name].wants(key, orjson.loads(head.body or b"null")) for head in live)

    def _forgotten(self, key: str) -> set[str]:
        """The tombstones of a key that some replica may have purged."""
        lineage = self.truth.oracle[key]
        return set().union(*(within(lineage, site.state.forgets(key), lineage.deleted) for site in self.sites.values()))

    # What the steps are made of

    def _put(self, name: str, write: Write) -> str | None:
        site, read = self.sites[name], write.read
        key = read.key
        lineage = self.truth.oracle[key]
        before, commits = site.state, site.commits
        identity = None if write.value is None else site.docs.content(write.value).identity
        if lineage.forgotten and read.context.revs and lineage.edit(read.context.revs, identity):
            return None  # nobody repeats an edit after the grace time of a purge: see Truth
        self.writes = [*self.writes[1 - MEMORY :], write]
        try:
            if write.value is None:
                site.docs.delete(key, context=read.context)
            else:
                site.docs.put(key, write.value, context=read.context)
        except Unavailable as error:
            if error.outcome_unknown or site.wire.struck:
                raise
            raise
        site.raise_broken()
        rev = lineage.edit(read.context.revs, identity) if read.context.revs else "a root"
        if rev is None:
            raise Broken(3, f"the edit of {read.context.revs} of {key} at {name} was acknowledged, and is not there")
        if commits == site.commits:
            if before.entries != site.state.entries:
                raise Broken(8, f"the repeated put of {rev} at {name} changed something")
            if not read.context.revs:
                raise Broken(3, f"the creation of {key} at {name} was acknowledged, and is not there")
        return f"{_told(write.value)} on {list(read.context.revs)} of {key} is {rev}"

    def _read(self, name: str, key: str) -> Read:
        """A client reads; the token reaches it as text."""
        site = self.sites[name]
        try:
            context = site.docs.read(key, deleted=True, on_conflict="winner").context
        except NotFound:
            context = Context(key)
        if not self._depth and sorted(context.revs) != list(site.state.heads(key)) and not self._moved_on:
            raise Broken(2, f"a read of {key} at {name} gave {context.revs}, and the heads are {site.state.heads(key)}")
        read = Read(key, Context.parse(str(context)))
        self.reads = [*self.reads[1 - MEMORY :], read]
        return read

    def _pull(self, source: str, name: str) -> Pulled:
        self.world.time.where = name
        arrived: list[str] = []
        with self._small_pages():
            pulled = pull(
                self.sites[source].handle,
                self.sites[name].handle,
                filter=self.filters.get(name),
                history=self.histories.get(name, "heads"),
                conflicts=arrived.extend,
                reconcile="always" if self.truth.ghosts and self.healing else "auto",
            )
        if arrived and name in self.resolvers and self.on_arrival:
            self._settler(name).settle(sorted(set(arrived)))
        return pulled

    @contextlib.contextmanager
    def _small_pages(self) -> Iterator[None]:
        with (
            replaced(replication.feed, "PAGE_ROWS", self.batch_rows),
            replaced(replication.feed, "FIRST_ROWS", self.batch_rows),
            replaced(replication.batches, "PAGE_ROWS", self.batch_rows),
            replaced(sys.modules["replication.pull"], "PAGE_ROWS", self.batch_rows),
            replaced(sys.modules["replication.pull"], "RECONCILE_ROWS", self.reconcile_rows),
        ):
            yield

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Nothing goes wrong and nobody gets in meanwhile."""
        suspended = [(site, site.wire.fault, site.wire.between) for site in self.sites.values()]
        for site, _, _ in suspended:
            site.wire.fault = site.wire.between = None
        try:
            yield
        finally:
            for site, fault, between in suspended:
                site.wire.fault, site.wire.between = fault, between

    def _settler(self, name: str) -> Settler:
        return Settler(self.sites[name].docs, self.resolvers[name], seconds=None)

    def _resolver(self) -> Resolver:
        """One of a few characters; `winner` and `lowest` are those that agree with themselves."""
        number = iter(range(1 << 60))

        def lowest(conflict: Siblings) -> Any:
            return min((sibling.value for sibling in conflict.siblings), key=str)

        def moody(conflict: Siblings) -> Any:
            return {"n": 100 + next(number) + 1000 * len(self.trace)}

        def failing(conflict: Siblings) -> Any:
            raise ValueError("no idea")

        def rubbish(conflict: Siblings) -> Any:
            return {"n": {1, 2}}

        return self.random.choice((winner, winner, winner, lowest, moody, failing, rubbish, keep))

    def _filter(self) -> Filter:
        return self.random.choice((Filter(fields={"n": 0}), Filter(fields={"n": 1}), Filter(prefix="k0")))

    def _add(self, file: bytes) -> Site:
        name = f"R{len(self.sites) + 1}"
        site = self.sites[name] = Site(name, self.world, self.truth, file)
        self.backups[name] = [site.back_up()]
        return site

    def filter_one(self) -> None:
        """Makes one replica a filtered one, which hangs on another."""
        name, parent = list(self.sites)[-1], next(iter(self.sites))
        others = [each for each in self.sites if each != name]
        self.links = {pair for pair in self.links if name not in pair} | {(name, parent), (parent, name)}
        self.links |= {pair for a, b in pairwise(others) for pair in ((a, b), (b, a))}
        self.filters[name] = self._filter()
        self.truth.filtered.add(name)

    def make_ghosts(self) -> None:
        """Disks that go back in time with the proofs on them, and what makes promises about that too hard to judge off.

        A client that remembers a dot from before cannot say which of two versions
        it means, and a purge may be proven by what was never seen.
        """
        self.truth.ghosts = True
        self.keys = self.keys[:1]  # of a dot that names versions of two documents, no row of either tells
        self.filters.clear()
        self.truth.filtered.clear()
        off = {self.write_stale, self.repeat, self.purge, self.erase, self.retire, self.damage, self.rot, self.follow}
        self.weights = [0 if kind in off else weight for kind, weight in zip(self.kinds, self.weights, strict=True)]
        self.kinds.append(self.set_back)
        self.weights.append(2)
        self.meanwhile = [self.write, self.pull, self.prune, self.sync]
        self.lose_one = False

    def make_rivals(self) -> None:
        """Replicators that get in between others' statements, and clocks by which no lease ever ends."""
        self.meanwhile = [self.sync]
        self.between_rate = 1.0
        for name in list(self.sites)[1:]:
            self.world.time.frozen[name] = self.world.time.wall_us(name)

    def _any_name(self) -> str:
        return self.random.choice(list(self.sites))

    def _neighbour(self, name: str) -> str | None:
        """Who can be pulled from now."""
        up = [source for source, target in sorted(self.links - self.down) if target == name]
        return self.random.choice(up) if up else None

    def _any_key(self) -> str:
        return self.random.choice(self.keys)

    def _value(self) -> Mapping[str, Any] | None:
        return None if self.random.random() < self.deletes else self.random.choice(BODIES)

    def _pairs(self) -> list[tuple[str, str]]:
        """Who pulls from whom, as (source, target), in random order."""
        return self.random.sample(sorted(self.links), len(self.links))

    def _topology(self) -> set[tuple[str, str]]:
        names = list(self.sites)
        match self.random.choice(("all", "all", "ring", "star", "line", "tree", "one way ring")):
            case "all":
                return set(permutations(names, 2))
            case "ring":
                edges = list(zip(names, [*names[1:], names[0]], strict=True))
            case "one way ring":
                return set(zip(names, [*names[1:], names[0]], strict=True))
            case "star":
                edges = [(names[0], name) for name in names[1:]]
            case "line":
                edges = list(pairwise(names))
            case _:
                edges = [(self.random.choice(names[:n]), names[n]) for n in range(1, len(names))]
        return {pair for a, b in edges for pair in ((a, b), (b, a))}


def shown(site: Site, key: str) -> list[tuple[Any, ...]]:
    """The heads of a key, to compare replicas. Not their stamps, which differ where an edit was born twice."""
    heads = winner_first(site.state.entry(key).heads.values())
    return [(head.rev, head.dots, head.clock, head.body, head.kind) for head in heads]


def numbers(key: str, value: Any) -> Iterator[tuple[int, None]]:
    """The view."""
    yield value["n"], None


def _wanted(filter: Filter) -> str:
    return filter.prefix or str(filter.fields)


def _moved(pulled: Pulled) -> str:
    counted = ((name, getattr(pulled, name)) for name in pulled.__dataclass_fields__)
    return " ".join(f"{name} {count}" for name, count in counted if count) or "nothing"


def _told(value: Mapping[str, Any] | None) -> str:
    return "tombstone" if value is None else str(dict(value))


__all__ = ["PreconditionFailed", "Simulation", "StoreError", "run"]
