"""The ring, what goes wrong in it, and what must hold when it has healed.

        laptop ── SQLite, two shards, two writers
        /    \\
    daemon   daemon          each way to a server is a wire of its own, which can be slow, lossy, stalled or cut
      /        \\
    office ── daemon ── plant
    PostgreSQL          MariaDB          two writers on each

While the storm lasts, daemons and writers are killed or held, servers are killed
and started again, wires fail. Then everything is mended, the writers end, and
within HEAL_SECONDS the three are to be equal, whole, and hold what was
acknowledged.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import make_url

import vstore
from replication import sync
from tests.faults.proxy import Proxy
from tests.replication.ring import resolver
from tests.replication.ring.checkers import forked, lost, resurrected, stale_reads
from tests.replication.ring.records import Operation, operations
from tests.replication.ring.servers import Server
from tests.replication.ring.writer import COLLECTIONS
from tests.replication.states import heads_of, knowledge_of
from vstore import Store

SITES = "laptop", "office", "plant"
WRITERS = 2  # at each site
PARTITIONS = 8
HEAL_SECONDS = 120
EXIT_SECONDS = 20
ALARMS = (
    "Traceback",
    "level=error",
    "although its feed had been pulled",  # a full comparison found what no feed had told
    "was known and the version was not here",
    "is put aside",
)
DAEMON = [sys.executable, "-m", "vstore", "replicator", "--config"]
ROOT = Path(__file__).parents[3]


@dataclass
class Outcome:
    """How it went: what must not be, and how much there was to go wrong."""

    findings: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    heal_seconds: float = 0


class Process:
    """A process of ours that is started again and again."""

    def __init__(self, name: str, command: Callable[[int], list[str]], log: Path) -> None:
        """`command` is given the number of the life."""
        self.name = name
        self.log = log
        self._command = command
        self._lives = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._held = False

    def start(self) -> None:
        """Begins a life, if there is none."""
        if self._process is None:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(self._command(next(self._lives)), cwd=ROOT, stdout=log, stderr=log)

    def hold(self) -> None:
        """Stops it where it is, as a machine that is put to sleep."""
        self._signal(signal.SIGSTOP)
        self._held = True

    def go_on(self) -> None:
        """Wakes it."""
        if self._held:
            self._signal(signal.SIGCONT)
            self._held = False

    def kill(self) -> None:
        """Ends it in the middle of whatever it does."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._process, self._held = None, False

    def end(self) -> str:
        """Asks it to end, waits; what was wrong with how it ended."""
        if self._process is None:
            return ""
        self.go_on()
        self._signal(signal.SIGTERM)
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"{self.name} had not ended {EXIT_SECONDS} s after SIGTERM; {self._said()}"
        self._process = None
        return "" if code in (0, -signal.SIGTERM) else f"{self.name} ended with {code} at SIGTERM; {self._said()}"

    def ended_by_itself(self) -> str:
        """What there is to say of it if it has; it is started again."""
        if self._process is None or self._process.poll() is None:
            return ""
        code = self._process.returncode
        self._process = None
        self.start()
        return f"{self.name} ended by itself with {code}; {self._said()}"

    def alarms(self) -> str:
        """What it has said that must not be, whatever broke: errors of no class of ours, and alarms."""
        said = self.log.read_text(errors="replace").splitlines()
        found = [line for line in said if any(alarm in line for alarm in ALARMS)]
        return f"{self.name} raised {len(found)} alarms, such as {found[0][:2000]}" if found else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _said(self) -> str:
        return f"it said: {self.log.read_text(errors='replace')[-1500:]}"


class Ring:
    """Three replicas, three daemons, six writers, and someone who breaks them."""

    def __init__(self, folder: Path, servers: Mapping[str, Server], seed: int) -> None:
        """Makes the stores; nothing runs yet. VSTORE_STATE must be set, for the processes too."""
        self._folder = folder
        self._servers = servers
        self._chance = random.Random(seed)
        self._wires: dict[str, Proxy] = {}
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._urls = {
            "laptop": [f"sqlite:///{folder / f'laptop-{n}.db'}" for n in range(2)],
            "office": [servers["postgresql"].database()],
            "plant": [servers["mariadb"].database()],
        }
        for site in SITES:
            with vstore.open(*self._urls[site]) as store:
                for name in COLLECTIONS:
                    store.create(name, partitions=PARTITIONS)
        self.started = time.monotonic()
        self.outcome = Outcome()
        self.writers = [self._writer(f"{site}{n}", site) for site in SITES for n in range(1, WRITERS + 1)]
        self.daemons = [self._daemon(one, other) for one, other in zip(SITES, SITES[1:] + SITES[:1], strict=True)]

    def run(self, seconds: float) -> Outcome:
        """The storm, the mending, and the judgement."""
        try:
            for process in [*self.daemons, *self.writers]:
                process.start()
            self._storm(seconds)
            self._mend()
            self._judge()
        finally:
            for process in [*self.daemons, *self.writers]:
                process.kill()
            for wire in self._wires.values():
                wire.close()
        return self.outcome

    # --- the processes -----------------------------------------------------------------------------------------------

    def _writer(self, name: str, site: str) -> Process:
        urls = self._by_wire(site, f"the writers of {site}")

        def command(life: int) -> list[str]:
            settings = {
                "urls": urls,
                "journal": str(self._folder / f"{name}.{life}.journal"),
                "name": f"{name}.{life}",
                "replica": site,
                "seed": self._chance.randrange(1 << 32),
                "started": self.started,
            }
            return [sys.executable, "-m", "tests.replication.ring.writer", json.dumps(settings)]

        return Process(name, command, self._folder / f"{name}.log")

    def _daemon(self, one: str, other: str) -> Process:
        name = f"{one}-{other}"
        source, target = (self._by_wire(site, f"the daemon {name} to {site}") for site in (one, other))
        config = self._folder / f"{name}.toml"
        config.write_text(
            f'[replicator]\nsocket = "{name}.sock"\n\n'
            f'[[replication]]\nname = "{name}"\nsource = {json.dumps(source)}\ntarget = {json.dumps(target)}\n'
            f'both = true\npoll = "100ms"\nreconcile = "5s"\nresolver = "{Path(resolver.__file__)}:members"\n'
        )
        return Process(f"daemon {name}", lambda _life: [*DAEMON, str(config)], self._folder / f"{name}.log")

    def _by_wire(self, site: str, name: str) -> list[str]:
        """The URLs of a site over a wire of its own; a file needs none."""
        if site == "laptop":
            return self._urls[site]
        server = self._servers["postgresql" if site == "office" else "mariadb"]
        wire = self._wires[name] = Proxy(server.host, server.port, seed=self._chance.randrange(1 << 32))
        return [
            make_url(url).set(host="127.0.0.1", port=wire.port).render_as_string(hide_password=False)
            for url in self._urls[site]
        ]

    # --- the storm ---------------------------------------------------------------------------------------------------

    def _storm(self, seconds: float) -> None:
        faults = [
            (6, self._kill_daemon),
            (6, self._kill_writer),
            (3, self._hold_process),
            (5, self._cut),
            (4, self._lose),
            (4, self._slow),
            (2, self._stall),
            (3, self._refuse),
            (3, self._crash),
        ]
        until = time.monotonic() + seconds
        self._pass(2)  # something to break
        while time.monotonic() < until:
            [fault] = self._chance.choices([fault for _, fault in faults], [weight for weight, _ in faults])
            fault()
            self._pass(self._chance.uniform(0.1, 1.0))

    def _pass(self, seconds: float) -> None:
        """Lets time pass, and mends what is due to be mended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            while self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()
            for process in [*self.daemons, *self.writers]:
                if said := process.ended_by_itself():
                    self.outcome.findings.append(said)
            time.sleep(0.02)

    def _for(self, least: float, most: float, mend: Callable[[], None]) -> None:
        due = time.monotonic() + self._chance.uniform(least, most)
        heapq.heappush(self._later, (due, next(self._numbers), mend))

    def _kill_daemon(self) -> None:
        self._kill(self._chance.choice(self.daemons), "daemon killed")

    def _kill_writer(self) -> None:
        self._kill(self._chance.choice(self.writers), "writer killed")

    def _kill(self, process: Process, what: str) -> None:
        self.outcome.faults[what] += 1
        process.kill()
        self._for(0.1, 2, process.start)

    def _hold_process(self) -> None:
        self.outcome.faults["process held"] += 1
        process = self._chance.choice([*self.daemons, *self.writers])
        process.hold()
        self._for(0.5, 3, process.go_on)

    def _cut(self) -> None:
        self.outcome.faults["wire cut"] += 1
        self._wire().cut()

    def _lose(self) -> None:
        wire = self._wire()
        self.outcome.faults["bytes lost"] += 1
        wire.loss = self._chance.uniform(0.001, 0.05)
        self._for(0.5, 3, lambda: setattr(wire, "loss", 0))

    def _slow(self) -> None:
        wire = self._wire()
        self.outcome.faults["wire slow"] += 1
        wire.latency_seconds = self._chance.uniform(0.002, 0.05)
        self._for(0.5, 3, lambda: setattr(wire, "latency_seconds", 0))

    def _stall(self) -> None:
        wire = self._wire()
        self.outcome.faults["wire stalled"] += 1
        wire.stall = True
        self._for(0.5, 3, lambda: setattr(wire, "stall", False))

    def _refuse(self) -> None:
        wire = self._wire()
        self.outcome.faults["wire gone"] += 1
        wire.refuse = True
        wire.cut()
        self._for(0.5, 3, lambda: setattr(wire, "refuse", False))

    def _crash(self) -> None:
        kind = self._chance.choice(sorted(self._servers))
        self.outcome.faults[f"{kind} killed"] += 1
        self._servers[kind].kill()
        self._for(0.2, 2, self._servers[kind].start)

    def _wire(self) -> Proxy:
        return self._wires[self._chance.choice(sorted(self._wires))]

    # --- afterwards --------------------------------------------------------------------------------------------------

    def _mend(self) -> None:
        while self._later:
            heapq.heappop(self._later)[2]()
        for process in [*self.writers, *self.daemons]:
            process.go_on()
        for process in self.writers:
            self._find(process.end())
        for process in self.daemons:  # at once, and not when its back-off is over
            process.kill()
            process.start()

    def _judge(self) -> None:
        history = list(self._history())
        self.outcome.operations.update(f"{each.kind} {each.outcome}" for each in history)
        purged = (int(each.rev.split()[0]) for each in history if each.kind == "purge" and each.outcome == "ok")
        self.outcome.operations["documents purged"] = sum(purged)
        with ExitStack() as stack:
            stores = [stack.enter_context(vstore.open(*self._urls[site])) for site in SITES]
            self._converge(stores)
            for process in self.daemons:
                self._find(process.end())
                self._find(process.alarms())
            for site, store in zip(SITES, stores, strict=True):
                self.outcome.findings += [f"check of {site}: {finding}" for finding in store.check()]
                final = members_of(store)
                for finding in [*lost(history, final), *resurrected(history, final)]:
                    self._find(f"{site}: {finding}")
            for one, other in itertools.combinations(range(len(SITES)), 2):
                if report := sync(stores[one], stores[other]):
                    self._find(f"{SITES[one]} and {SITES[other]} were equal, and a sync moved: {report}")
        self.outcome.findings += forked(history)
        self.outcome.findings += stale_reads(history)

    def _converge(self, stores: Sequence[Store]) -> None:
        began = time.monotonic()
        while problem := self._difference(stores):
            if time.monotonic() - began > HEAL_SECONDS:
                self._find(f"not equal {HEAL_SECONDS} s after all was mended: {problem}")
                break
            self._pass(0.3)
        self.outcome.heal_seconds = time.monotonic() - began

    def _difference(self, stores: Sequence[Store]) -> str:
        """The first thing in which the stores differ, or that is not settled."""
        first, *others = [heads_of(store) for store in stores]
        for site, other in zip(SITES[1:], others, strict=True):
            keys = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
            if keys:
                key = keys[0]
                return (
                    f"{len(keys)} keys differ between {SITES[0]} and {site}, such as {key}: "
                    f"{sorted(first.get(key, ()))} and {sorted(other.get(key, ()))}"
                )
        for site, store in zip(SITES, stores, strict=True):
            unsettled = [document.key for name in COLLECTIONS for document in store[name].conflicts()]
            if unsettled:
                return f"{len(unsettled)} conflicts at {site}, such as {unsettled[0]}"
        known, *rest = [knowledge_of(store) for store in stores]
        for site, there in zip(SITES[1:], rest, strict=True):
            if there != known:
                place = next(place for place in known if known[place] != there.get(place))
                return f"{SITES[0]} and {site} know different events of {place}: {known[place]} and {there.get(place)}"
        return ""

    def _history(self) -> Iterator[Operation]:
        for path in sorted(self._folder.glob("*.journal")):
            with path.open(encoding="utf-8") as lines:
                yield from operations(lines)

    def _find(self, finding: str) -> None:
        if finding:
            self.outcome.findings.append(finding)


def members_of(store: Store) -> dict[str, frozenset[str]]:
    """What is in every live document."""
    found: dict[str, frozenset[str]] = {}
    for name in COLLECTIONS:
        for key, value in store[name].items(on_conflict="winner"):
            found[key] = frozenset(value["members"])
    return found
