"""Random histories of a replicated partition, each step compared with the truth.

One seed is one history: a few replicas and keys, and some hundred steps that the
seed draws. Clients write on top of what they read just now, long ago, elsewhere
or in part; pages of the feed are delayed, repeated, reordered and lost; bodies
are pruned; processes crash; files are restored from backups and copied.

    run(seed) ──► steps ──► Replica (the rules)     ─┐
                        └─► Oracle (plain sets)     ─┴─► invariants, at every step
              ──► heal  ──► all sync until quiet ──► converged

Each run draws how common every kind of step is, and a quarter of the kinds not
at all: a fault that never happens hides nothing that another one would show.

One thread, no time, no input or output; all randomness is `Random(seed)`.
Source: the simulations of FoundationDB and TigerBeetle, in miniature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from random import Random

from vstore import document
from vstore.document import Context, Version

from .invariants import Checker, converged, shown
from .oracle import Broken, Oracle, View
from .replica import Page, Replica, Rules

STEPS = 200
BODIES = (b"0", b"1")  # few, so that the same edit is often born in two places
MEMORY = 12  # how many old reads, writes and pages stay around


def run(seed: int, *, steps: int = STEPS, replicas: int | None = None, rules: Rules | None = None) -> None:
    """Simulates one history.

    Args:
        replicas: 2 to 5; drawn from the seed if None.

    Raises:
        Broken: an invariant does not hold. The message has the seed and every
            step up to there; the same seed always takes the same steps.
    """
    simulation = Simulation(seed, replicas, rules or Rules())
    try:
        for _ in range(steps):
            simulation.step()
        simulation.heal()
        simulation.settle()
    except Broken as error:
        where = f"seed {seed}, step {len(simulation.trace)}:\n{simulation.story()}"
        raise Broken(error.invariant, f"invariant {error.invariant}: {error}\n{where}") from error


@dataclass(frozen=True, slots=True)
class Read:
    """What a client remembers of a read: the token, and for the oracle the versions it was shown."""

    key: str
    context: Context
    revs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """What a client remembers of a put, to repeat it when it is in doubt."""

    read: Read
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of a file, and what had been received by then."""

    file: Replica
    received: dict[str, View]


class Simulation:
    """The replicas, the clients and the network of one run."""

    def __init__(self, seed: int, replicas: int | None, rules: Rules) -> None:
        self.random = random = Random(seed)
        self.rules = rules
        self.names = 0
        self.replicas: dict[str, Replica] = {}
        self.oracle = Oracle([f"k{i}" for i in range(random.choice((1, 1, 2, 3)))])
        self.checker = Checker(self.oracle)
        self.reads: list[Read] = []
        self.writes: list[Write] = []
        self.network: list[tuple[str, Page]] = []
        self.backups: dict[str, list[Backup]] = {}
        self.log: list[tuple[str, Version]] = []
        self.trace: list[str] = []
        for _ in range(replicas or random.randint(2, 5)):
            name = self._name("R")
            self.replicas[name] = Replica(self._name("a"), self._name("feed"), rules)
            self.backups[name] = [Backup(self.replicas[name].copy(), self.oracle.remembered(name))]
        self.links = self._topology()
        kinds: dict[Callable[[str], str | None], float] = {
            self.write: 6,
            self.write_blind: 1,
            self.write_stale: 3,
            self.write_partial: 2,
            self.repeat: 2,
            self.resolve: 1,
            self.sync: 4,
            self.fetch: 5,
            self.fetch_some: 4,
            self.deliver: 9,
            self.prune: 1,
            self.crash: 1,
            self.back_up: 1,
            self.restore: 0.6,
            self.copy_file: 0.25,
            self.shuffle: 0.4,
        }
        essential = (self.write, self.sync, self.deliver, self.shuffle)
        self.kinds = list(kinds)
        self.weights = [
            weight * (1 if kind in essential else random.choice((0, 0.5, 1, 3))) for kind, weight in kinds.items()
        ]
        self.deletes = random.choice((0, 0.1, 0.3))
        self.loss = random.choice((0, 0.1, 0.4))
        self.repeats = random.choice((0, 0.1, 0.4))

    def step(self) -> None:
        """One random step."""
        kind = self.random.choices(self.kinds, self.weights)[0]
        name = self._any_name()
        self.trace.append(f"{kind.__name__} {name}")  # in case it raises
        told = kind(name)
        if told is None:
            self.trace.pop()
        else:
            self.trace[-1] = f"{kind.__name__} {name}: {told}"

    def story(self) -> str:
        """The steps taken, one per line."""
        return "\n".join(f"{number:4} {line}" for number, line in enumerate(self.trace, 1))

    # Clients

    def write(self, name: str) -> str | None:
        """A client reads here and writes on top of it."""
        key = self._any_key()
        return self._put(name, Write(self._read(name, key), self._body()))

    def write_blind(self, name: str) -> str | None:
        """A client writes without having read."""
        key = self._any_key()
        return self._put(name, Write(Read(key, Context(key), ()), self._body()))

    def write_stale(self, name: str) -> str | None:
        """A client writes on top of what it read some time ago, perhaps at another replica."""
        return self._put(name, Write(self.random.choice(self.reads), self._body())) if self.reads else None

    def write_partial(self, name: str) -> str | None:
        """A client writes on top of some of the siblings only."""
        key = self._any_key()
        heads = list(self.replicas[name].entries[key].heads)
        if len(heads) < 2:
            return None
        some = self.random.sample(heads, self.random.randint(1, len(heads) - 1))
        return self._put(name, Write(self._read(name, key, some), self._body()))

    def repeat(self, name: str) -> str | None:
        """A client repeats a put whose outcome it does not know, perhaps at another replica."""
        return self._put(name, self.random.choice(self.writes)) if self.writes else None

    def resolve(self, name: str) -> str | None:
        """A resolver settles the siblings that are seen here."""
        key = self._any_key()
        return self._resolve(name, key) if self.replicas[name].conflicted(key) else None

    def crash(self, name: str) -> str | None:
        """A process dies in the middle of a put: nothing was committed, and what it was fetching is lost."""
        key = self._any_key()
        self.replicas[name].copy().put(key, self._body(), self.replicas[name].read(key), 0)
        self.network = [(target, page) for target, page in self.network if target != name]
        return ""

    # Network

    def sync(self, name: str) -> str | None:
        """The replica pulls the whole feed of another, page by page."""
        source, limit = self._other_name(name), self.random.choice((1, 3, 100))
        self._pull(source, name, limit)
        return f"from {source} by {limit}"

    def fetch(self, name: str) -> str | None:
        """The replica asks another for the next page of its feed; it is under way."""
        source = self._other_name(name)
        self._send(name, self.replicas[source].page(self.replicas[name], self.random.choice((1, 2, 100))))
        return f"from {source}"

    def fetch_some(self, name: str) -> str | None:
        """Some heads of one key are sent out of turn, as read repair does."""
        source, key = self._other_name(name), self._any_key()
        heads = sorted(self.replicas[source].entries[key].heads)
        some = self.random.sample(heads, self.random.randint(0, len(heads)))
        self._send(name, self.replicas[source].heads_of(key, some, self.replicas[name]))
        return f"{some} of {key} from {source}"

    def deliver(self, _: str) -> str | None:
        """Any page that is under way arrives; some are lost, some stay and arrive again."""
        if not self.network:
            return None
        at = self.random.randrange(len(self.network))
        target, page = self.network[at]
        luck = self.random.random()
        if luck >= self.repeats:
            del self.network[at]
        if self.random.random() < self.loss:
            return "lost"
        self._apply(target, page)
        return f"to {target}: {_told(page)}"

    # Operators

    def prune(self, name: str) -> str | None:
        """Retention drops the bodies of some superseded versions."""
        key = self._any_key()
        entry = self.replicas[name].entries[key]
        old = sorted(rev for rev, version in entry.versions.items() if rev not in entry.heads and not version.stub)
        if not old:
            return None
        some = self.random.sample(old, self.random.randint(1, len(old)))
        for rev in some:
            self.replicas[name].prune(key, rev)
        self.checker.entry(name, self.replicas[name], key)
        return f"{some} of {key}"

    def back_up(self, name: str) -> str | None:
        """A backup of the file is made."""
        backup = Backup(self.replicas[name].copy(), self.oracle.remembered(name))
        self.backups[name] = [*self.backups[name][-2:], backup]
        return ""

    def restore(self, name: str) -> str | None:
        """The file is lost and an older one takes its place; it has no proof that it is the same."""
        backup = self.random.choice(self.backups[name])
        replica = self.replicas[name] = backup.file.copy()
        replica.reopen(self._name("a") if self.rules.new_actor_after_restore else None, self._name("feed"))
        self.oracle.recall(name, backup.received)
        self.checker.knowledge(name, replica)
        return f"as {replica.actor}"

    def copy_file(self, name: str) -> str | None:
        """The file is copied and opened elsewhere as one more replica."""
        if len(self.replicas) >= 6:
            return None
        twin = self._name("R")
        replica = self.replicas[twin] = self.replicas[name].copy()
        replica.reopen(self._name("a") if self.rules.new_actor_in_copy else None, self._name("feed"))
        received = self.oracle.remembered(name)
        self.oracle.recall(twin, received)
        self.backups[twin] = [Backup(replica.copy(), received)]
        self.links |= {(name, twin), (twin, name)}
        return f"to {twin}, actor {replica.actor}"

    # Laws

    def shuffle(self, name: str) -> str | None:
        """Rows from anywhere reach two copies of the file, in different order, grouping and number: same result."""
        if not self.log:
            return None
        rows = self.random.choices(self.log, k=self.random.randint(1, 8))
        one, other = (self._received(name, rows) for _ in range(2))
        for key in self.oracle:
            # Clocks may differ: what an obsolete row tells of its past is kept only if a stub of it came first.
            heads, again = ([head[:2] for head in shown(twin, key)] for twin in (one, other))
            if heads != again:
                raise Broken(9, f"{key} at {name} depends on the order of rows: {heads} or {again}")
        if one.knowledge != other.knowledge:
            raise Broken(9, f"knowledge at {name} depends on the order of rows: {one.knowledge}, {other.knowledge}")
        return f"{len(rows)} rows"

    def heal(self) -> None:
        """Faults stop, all sync until nothing moves; then all are equal, and a second look moves nothing."""
        self.network.clear()
        for _ in range(3 * len(self.replicas)):
            self.trace.append("heal: every link syncs")
            moved = [self._pull(source, name, 100) for source, name in self._pairs()]
            if not any(moved):
                break
        else:
            raise Broken(14, "rows still move between replicas that have long stopped to change")
        converged(self.replicas, self.oracle)
        for source, name in self._pairs():
            self.replicas[name].checkpoints.pop(self.replicas[source].feed, None)
            again = self.replicas[source].page(self.replicas[name], 1000)
            if again.rows:
                raise Broken(14, f"{source} and {name} are equal, but a new enumeration sends {_told(again)}")

    def settle(self) -> None:
        """Every replica resolves what conflicts it sees, all in lock step, until there are none; that must not last."""
        for _ in range(2 + 2 * len(self.replicas)):
            conflicts = [
                (name, key) for name, replica in self.replicas.items() for key in self.oracle if replica.conflicted(key)
            ]
            if not conflicts:
                return self.heal()
            for name, key in conflicts:
                self.trace.append(f"settle {name}: {self._resolve(name, key)}")
            names = list(self.replicas)  # a ring, so that different replicas see different conflicts
            pages = [
                (name, self.replicas[source].page(self.replicas[name], 1000))
                for source, name in zip(names, [*names[1:], names[0]], strict=True)
            ]
            for name, page in pages:
                self.trace.append(f"settle {name}: {_told(page)}")
                self._apply(name, page)
        raise Broken(14, "merge storm: replicas that resolve alike do not come to an end")

    # What the steps are made of

    def _put(self, name: str, write: Write) -> str:
        replica, read = self.replicas[name], write.read
        key = read.key
        lineage = self.oracle[key]
        before = dict(replica.entries[key].heads)
        counter, seq = replica.counter, replica.seq
        version, new = replica.put(key, write.body, read.context, self.random.randrange(1000))
        if new:
            self.oracle.write(key, version.rev, (replica.actor, replica.counter), read.revs, write.body)
            self.oracle[key].receive(name, version.rev)
            phantoms = before.keys() - replica.entries[key].heads - lineage.ancestors[version.rev] - lineage.superseded
            if phantoms:
                raise Broken(5, f"the put of {version.rev} at {name} removed {phantoms}, which its writer had not read")
            self.checker.entry(name, replica, key)
            self.writes = [*self.writes[1 - MEMORY :], write]
        elif (counter, seq, before) != (replica.counter, replica.seq, replica.entries[key].heads):
            raise Broken(8, f"the repeated put of {version.rev} at {name} changed something")
        elif lineage.edit(read.revs, write.body) != version.rev:
            raise Broken(3, f"a new edit of {read.revs} at {name} was taken for {version.rev} and not written")
        if read.revs:
            again, new_again = replica.put(key, write.body, read.context, 0)
            if new_again or again.rev != version.rev:
                raise Broken(8, f"the put of {version.rev} at {name} was repeated and not recognised")
        body = "tombstone" if write.body is None else write.body.decode()
        return f"{body} on {list(read.revs)} of {key} is {version.rev}{'' if new else ' as before'}"

    def _resolve(self, name: str, key: str) -> str:
        """The winner's body on top of all heads: a resolver whose result depends on the heads alone."""
        winner = document.winner_first(self.replicas[name].entries[key].heads.values())[0]
        return self._put(name, Write(self._read(name, key), winner.body))

    def _read(self, name: str, key: str, revs: list[str] | None = None) -> Read:
        """A client reads; the token reaches it as text."""
        replica = self.replicas[name]
        context = Context.parse(str(replica.read(key, revs)))
        read = Read(key, context, tuple(replica.entries[key].heads if revs is None else revs))
        self.reads = [*self.reads[1 - MEMORY :], read]
        return read

    def _pull(self, source: str, name: str, limit: int) -> bool:
        """The feed to its end; says whether anything moved."""
        moved = False
        while True:
            page = self.replicas[source].page(self.replicas[name], limit)
            moved |= bool(page.rows)
            moved |= self._apply(name, page)
            if page.last:
                return moved

    def _send(self, name: str, page: Page) -> None:
        self.network = [*self.network[1 - MEMORY :], (name, page)]

    def _apply(self, name: str, page: Page) -> bool:
        """A page arrives; says whether it was news."""
        replica = self.replicas[name]
        if not replica.accepts(page):
            return False
        arrived = [(key, row) for key, rows in page.rows.items() for row in rows]
        self.log = [*self.log, *arrived][-3 * MEMORY :]
        pruned = []
        for key, row in arrived:
            stored = replica.entries[key].versions.get(row.rev)
            if stored is not None and stored.stub and not row.stub and row.rev in self.oracle[key].view(name).seen:
                pruned.append((key, row.rev))
        knowledge = replica.knowledge.copy() if page.knowledge is not None else None
        news = replica.apply(page)
        for key, row in arrived:
            if not row.stub:
                self.oracle[key].receive(name, row.rev)
        for key, rev in pruned:
            if not replica.entries[key].versions[rev].stub:
                raise Broken(6, f"{name} had pruned {rev} of {key}, and a late row brought its body back")
        for key in page.rows if knowledge == replica.knowledge or page.knowledge is None else self.oracle:
            self.checker.entry(name, replica, key)
        if self.random.random() < 0.1:
            seq, known = replica.seq, replica.knowledge.copy()
            if replica.apply(page) or (seq, known) != (replica.seq, replica.knowledge):
                raise Broken(8, f"{name} received the same page twice, and it was news twice: {_told(page)}")
        return news

    def _received(self, name: str, rows: list[tuple[str, Version]]) -> Replica:
        """A copy of the file that received the rows in some order and grouping, some of them more than once."""
        twin = self.replicas[name].copy()
        rows = [*rows, *self.random.sample(rows, self.random.randint(0, len(rows)))]
        self.random.shuffle(rows)
        while rows:
            cut = self.random.randint(1, len(rows))
            batch, rows = rows[:cut], rows[cut:]
            for key in self.oracle:
                document.receive(twin.entries[key], [row for at, row in batch if at == key], twin.knowledge)
        return twin

    def _name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def _any_name(self) -> str:
        return self.random.choice(list(self.replicas))

    def _other_name(self, name: str) -> str:
        return self.random.choice([source for source, target in sorted(self.links) if target == name])

    def _any_key(self) -> str:
        return self.random.choice(list(self.oracle))

    def _body(self) -> bytes | None:
        return None if self.random.random() < self.deletes else self.random.choice(BODIES)

    def _pairs(self) -> list[tuple[str, str]]:
        """Who pulls from whom, as (source, target), in random order."""
        return self.random.sample(sorted(self.links), len(self.links))

    def _topology(self) -> set[tuple[str, str]]:
        """Every pair, or only as many as it takes to connect all: then rows and knowledge travel by relay."""
        if self.random.random() < 0.5:
            return set(permutations(self.replicas, 2))
        links = set()
        connected, *others = self.replicas
        reached = [connected]
        for name in others:
            neighbour = self.random.choice(reached)
            links |= {(name, neighbour), (neighbour, name)}
            reached.append(name)
        return links


def _told(page: Page) -> str:
    """A page in the words of the trace."""
    rows = ", ".join(
        f"{key}: {' '.join(row.rev + '*' * row.stub for row in rows)}" for key, rows in sorted(page.rows.items())
    )
    return f"{page.feed or 'single rows'} {page.start} to {page.end} [{rows}]{' + knowledge' * bool(page.knowledge)}"
