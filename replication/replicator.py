"""`Replicator`: keeps a target up to a source, once or for as long as it runs.

    bootstrapping ──► catching up ──► idle ──► catching up …
          └────────────────┴───────────┴─────► failing ──► (tries again) …        paused, stopped

A turn is one pass over the collections, or as much of it as there is time for;
between turns it waits for commits of this process, or until it is time to ask.
It remembers nothing that matters: how far it has got is noted at the target, in
the transaction that wrote the data, so whoever comes next goes on from there.

Pull is run near the target, and the source only has to be readable. Push is the
same thing run near the source, for targets that cannot dial out: what differs is
where the process is and who connects to whom, and nothing else.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal

from replication import route
from replication.filters import Filter
from replication.lease import LeaseHeld, new_holder, now_us
from replication.pulled import Pulled
from replication.route import Pair
from replication.scope import History, Scope
from vstore.collection import Collection
from vstore.errors import ConfigurationError, NotFound, StaleMap, StoreError, Unavailable
from vstore.resolvers import Resolver
from vstore.store import Store

log = logging.getLogger("replication")

POLL_SECONDS = 1.0
"""How long commits of other processes wait at most. Those of this process are seen at once."""

RECONCILE_SECONDS = 6 * 3600.0
"""How often both ends are compared in full, though nothing is in doubt."""

BACKGROUND_SECONDS = 600.0
"""How often conflicts are looked for that were not settled when they arrived."""

BACK_OFF_SECONDS = 1.0, 60.0
"""How long it waits after an end did not answer: at first, and at most. Twice as long each time."""

LEASE_WAIT_SECONDS = 5.0
"""How long it waits while another replicator of the same link is at work."""

LOOK_SECONDS = 30.0
"""How long a collection is left alone that has not been written: until then, a poll asks it for its positions alone."""

SHOWN_SECONDS = 0.2
"""How often a turn that is under way counts what is left; less often where counting takes long."""

COUNTED_SECONDS = 5.0
"""How often a paused replication does."""

REPEAT_SECONDS = 600.0
"""After how long the same error is worth another line in the log."""

State = Literal["bootstrapping", "catching up", "idle", "failing", "paused", "stopped"]

End = Store | Collection | Callable[[], AbstractContextManager[Store]]
"""A store, one collection of it, or a function that lends a store for a turn."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a replication stands.

    `since`, `error_at` and `caught_up_at` are microseconds since 1970 UTC, the
    last being the beginning of the last pass that took everything. `error` is
    what went wrong, empty once a pass has succeeded since.

    `pending` counts commits of the source that the target has not taken, None if
    that is not known. `progress` is the part of the first pass that is done, 0
    to 1. `lag_seconds` is how old the oldest commit may be that the target has
    not taken: 0 when idle, else the time since it had everything.

    The others count since the replicator was made: `rows` and `bytes` taken,
    `new` versions among them, documents `resolved`. But `conflicts` and `parked`
    are how many the target has now. `differences` were found by comparing in full
    what should have been equal, `collided` are versions of a cloned actor,
    `unexplained` rows that the target ought to have had, and `ghosts` partitions
    that had been set back: all four should be 0.
    """

    name: str
    source: str = ""
    target: str = ""
    state: State = "stopped"
    since: int = 0
    error: str = ""
    error_at: int | None = None
    pending: int | None = None
    progress: float = 0.0
    lag_seconds: float = 0.0
    caught_up_at: int | None = None
    turns: int = 0
    errors: int = 0
    rows: int = 0
    bytes: int = 0
    new: int = 0
    resolved: int = 0
    conflicts: int = 0
    parked: int = 0
    differences: int = 0
    collided: int = 0
    unexplained: int = 0
    ghosts: int = 0
    revived: int = 0
    forgotten: int = 0
    left: int = 0


class Replicator:
    """One replication, which threads may ask and tell at any time. A context manager: `start`, and `stop` at the end.

    with Replicator(laptop, office, live=True) as replicator:
        …
        print(replicator.status)
    """

    def __init__(
        self,
        source: End,
        target: End,
        *,
        live: bool = False,
        both: bool = False,
        filter: Filter | None = None,
        resolver: Resolver | None = None,
        history: History = "heads",
        collections: Sequence[str] | None = None,
        name: str = "",
        poll_seconds: float = POLL_SECONDS,
        reconcile_seconds: float | None = RECONCILE_SECONDS,
        wake: Callable[[], None] | None = None,
    ) -> None:
        """Begins nothing yet.

        Args:
            source, target: two stores or two collections. Or functions that lend
                a store for a turn, such as `lambda: vstore.open(url)`: one that
                is not there is then tried again later.
            live: go on until `stop`, instead of ending when the target has all.
            both: take from the target to the source as well. Else the source is
                only read, but for a line that says who has taken how much.
            filter: only documents that it wants; the target then makes no claim
                to be complete.
            resolver: settles conflicts at the target, as they arrive and now and
                then; without one, siblings stay.
            history: "heads", the present; "all", every version; or the moment in
                microseconds since 1970 UTC from which on versions are taken.
            collections: names, of two stores; else all that the source has, those
                that it gets later as well.
            name: for the log and the status.
            reconcile_seconds: how often both ends are compared in full, about;
                None for never, but at the first contact and after any doubt.
            wake: called, from any thread, when the next turn ought to come
                early; for those who call `turn` themselves.

        Raises:
            ConfigurationError: the ends are not two of a kind, or are one.
        """
        self.name = name
        self.live = live
        self._ends = source, target
        self._both = both
        self._resolver = resolver
        self._scope = Scope(filter, history)
        self._collections = None if collections is None else tuple(collections)
        self._poll_seconds = poll_seconds
        self._reconcile_seconds = reconcile_seconds
        if isinstance(source, Store | Collection) and isinstance(target, Store | Collection):
            route.check(source, target)
        elif isinstance(source, Collection) or isinstance(target, Collection):
            raise ConfigurationError(
                "a collection and a function that lends a store cannot be the two ends of a replication. Nothing was "
                "done. Lend both stores, and name it in collections=."
            )

        self.heard_at = time.monotonic()
        """When the turn under way last got anywhere, on the clock of `time.monotonic`."""
        self._lock = threading.RLock()
        self._turns = threading.Lock()  # one at a time
        self._halt = threading.Event()  # the turn under way ends after its batch
        self._woken = threading.Event()
        self._wake = wake or self._woken.set
        self._stopping = self._paused = False
        self._holder = new_holder()
        self._thread: threading.Thread | None = None

        self._failures = 0
        self._logged = ("", 0.0)
        self._complete = False  # a pass has reached the end since this was made
        self._met = False  # or did before
        self._changed = False
        self._count_at = 0.0
        self._background_at = 0.0
        self._over: set[str] = set()  # collections that the pass, begun at _began_at, has been over
        self._began_at = 0
        self._met_ends: tuple[Any, Any] = (None, None)
        self._quiet: dict[str, tuple[Sequence[route.Position], float]] = {}  # where collections stood, and until when
        self._unreconciled: set[str] = set()
        self._reconcile_at = time.monotonic() + (reconcile_seconds or 0) * random.uniform(0.1, 1)
        self._made_at = now_us()
        self._status = Status(name, _words(source), _words(target), since=self._made_at)

    def __repr__(self) -> str:
        return f"<Replicator {self.name or ''} {self._status.source} → {self._status.target}: {self._status.state}>"

    def __enter__(self) -> Replicator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def status(self) -> Status:
        """How it stands at this moment. Asks no database."""
        with self._lock:
            status = self._status
        if status.state == "idle":
            return status
        seconds = max(0, now_us() - (status.caught_up_at or self._made_at)) / 1_000_000
        return replace(status, lag_seconds=round(seconds, 3))

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self) -> Status:
        """One pass, to its end; live, turn after turn until `stop`.

        Raises:
            StoreError: if it is not live: what went wrong. What was taken before
                stays; run it again. Live, it is shown in the status instead.
        """
        with self._lock:
            self._stopping = False
        if self.live:
            self._go_on()
        else:
            try:
                while not self._turn(lambda: False) and not (self._stopping or self._paused):
                    pass
            except Exception as error:
                self._note(error)
                raise
        return self.status

    def start(self) -> None:
        """Does that in a thread of its own. What goes wrong is in the status and in the log."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                self._stopping = False  # if it was about to end, it goes on instead
                return
            self._stopping = False
            self._thread = threading.Thread(
                target=self._go_on if self.live else self.turn, name=f"replication {self.name}".strip(), daemon=True
            )
            self._thread.start()

    def stop(self, timeout: float | None = 10.0) -> bool:
        """Ends it after the batch that is under way; at most so many seconds later it returns.

        Returns:
            Whether it has ended. If not, it still will, as soon as its database
            answers; and the process may end at any time, since a batch is
            written as a whole or not at all.
        """
        with self._lock:
            self._stopping = True
            self._halt.set()
            thread = self._thread
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                return False
        for end in self._ends:
            if isinstance(end, Store | Collection):
                _store_of(end).news.unlisten(self._on_news)
        self._enter("stopped")
        return True

    def pause(self) -> None:
        """Takes nothing more after the batch under way, until `resume`. Lasts as long as this replicator."""
        with self._lock:
            self._paused = True
            self._halt.set()
            if self._status.state != "stopped":
                self._enter("paused")
        self._wake()

    def resume(self) -> None:
        """Goes on after `pause`; after an error, tries again at once."""
        with self._lock:
            self._paused = False
            self._failures = 0
            if self._status.state == "paused":
                self._enter("catching up" if self._met else "bootstrapping")
        self._wake()

    def turn(self, enough: Callable[[], bool] = lambda: False) -> float:
        """One pass, for those who have many replicators and few threads; what goes wrong is in the status.

        Args:
            enough: asked after each batch whether others want the thread; what is
                left is then for the next turn.

        Returns:
            After how many seconds the next turn is due, unless `wake` is called.
        """
        with self._lock:
            if self._stopping:
                return self._poll_seconds
            if self._paused:
                self._enter("paused")
        if self._paused:
            return self._look_on()
        try:
            complete = self._turn(enough)
        except Exception as error:  # of any kind: it is to be there when the reason has gone
            return self._note(error)
        if self._paused:
            return 0.0
        return self._poll_seconds * random.uniform(0.9, 1.1) if complete else 0.0

    # --- inside ------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        while not self._stopping:
            wait = self.turn()
            if not self._stopping:
                self._woken.wait(wait)
                self._woken.clear()
        self._enter("stopped")

    def _on_news(self) -> None:
        if not (self._failures or self._paused or self._stopping):
            self._wake()

    def _turn(self, enough: Callable[[], bool]) -> bool:
        """One pass; whether it got to the end."""
        with self._turns:
            with self._lock:
                self._halt.clear()
                if self._stopping or self._paused:
                    return False
            self.heard_at = time.monotonic()
            if not self._over:
                self._began_at = now_us()
            with ExitStack() as lent:
                source, target = (lent.enter_context(_lent(end)) for end in self._ends)
                for end in (source, target) if self._both else (source,):
                    _store_of(end).news.listen(self._on_news)
                route.check(source, target)
                if source is not self._met_ends[0] or target is not self._met_ends[1]:
                    self._quiet.clear()  # opened anew: they may not be what they were
                    self._met_ends = source, target
                pairs = route.pairs(source, target, self._collections, both=self._both)
                self._plan(pairs)
                if not self._complete:
                    self._count(pairs)
                if self._status.state != "idle":
                    self._enter("catching up" if self._met else "bootstrapping")
                self._show(source=_words(source), target=_words(target), turns=self._status.turns + 1)
                if not self._take(pairs, enough):
                    self._count(pairs)
                    return False
                self._tidy(pairs)
            with self._lock:
                if self._status.error:  # and not the failures, which `resume` counts anew
                    log.info("%s: it works again", self._title, extra={"replication": self.name})
                elif not self._complete:
                    log.info("%s: the target has everything", self._title, extra={"replication": self.name})
                self._failures, self._logged = 0, ("", 0.0)
                self._complete = self._met = True
                self._over.clear()
                self._show(error="", pending=0, progress=1.0, caught_up_at=self._began_at)
                if not (self._stopping or self._paused):
                    self._enter("idle")
            return True

    def _take(self, pairs: Sequence[Pair], enough: Callable[[], bool]) -> bool:
        """Takes what the ends lack; whether it got to the end. A collection that fails does not keep up the others."""
        failed: Exception | None = None

        def told(moved: Pulled) -> None:
            self.heard_at = time.monotonic()
            if moved != Pulled():
                if self._status.state == "idle":
                    self._enter("catching up")
                self._add(moved)
                if enough():
                    self._halt.set()
            if time.monotonic() >= self._count_at and self._status.state != "idle":
                self._count(pairs)

        def go(pair: Pair, arrived: list[str]) -> None:
            route.take(
                pair,
                scope=self._scope,
                both=self._both,
                reconcile=pair.name in self._unreconciled,
                told=told,
                halt=self._halt,
                holder=self._holder,
                conflicts=arrived.extend,
            )

        for pair in pairs:
            if pair.name in self._over:
                continue
            arrived: list[str] = []
            self.heard_at = time.monotonic()
            try:
                positions = route.positions(pair, both=self._both)
                if self._is_quiet(pair, positions):
                    self._over.add(pair.name)
                    continue
                go(pair, arrived)
            except Exception as error:
                self._background_at = 0.0 if arrived else self._background_at
                if isinstance(error, Unavailable) and not isinstance(error, LeaseHeld):
                    raise  # the others would only wait as long for the same
                failed = error if failed is None or isinstance(failed, LeaseHeld) else failed
                continue
            if self._stopping:
                self._background_at = 0.0 if arrived else self._background_at  # a resolver may take its time
            elif arrived and self._resolver is not None:
                resolved = route.settle(pair, self._resolver, list(dict.fromkeys(arrived)))
                self._resolved(resolved)
                if resolved and self._both and not self._halt.is_set():
                    go(pair, [])  # the source has not heard of it
            if self._halt.is_set():
                return False
            self._over.add(pair.name)
            self._unreconciled.discard(pair.name)
            self._quiet[pair.name] = positions, time.monotonic() + LOOK_SECONDS
        if failed is not None:
            raise failed
        return True

    def _is_quiet(self, pair: Pair, positions: Sequence[route.Position]) -> bool:
        """Whether nothing was written since all was taken, so that it is too early to ask again for more than that."""
        before, until = self._quiet.get(pair.name, (None, 0.0))
        waits = pair.name in self._unreconciled or self._status.parked
        return positions == before and time.monotonic() < until and not waits

    def _plan(self, pairs: Sequence[Pair]) -> None:
        """Whether it is time to compare both ends in full."""
        if self._reconcile_seconds is not None and time.monotonic() >= self._reconcile_at:
            self._reconcile_at = time.monotonic() + self._reconcile_seconds * random.uniform(0.75, 1.25)
            self._unreconciled = {pair.name for pair in pairs}

    def _tidy(self, pairs: Sequence[Pair]) -> None:
        """Settles, now and then, what was not settled when it arrived; counts what is left after changes."""
        now = time.monotonic()
        if now >= self._background_at:
            self._background_at = now + BACKGROUND_SECONDS
            self._changed = True
            if self._resolver is not None:
                for pair in pairs:
                    self._resolved(route.settle(pair, self._resolver, stop=self._halt))
        if self._changed:
            self._show(conflicts=route.conflicts(pairs), parked=route.parked(pairs))
            self._changed = False

    def _resolved(self, keys: Sequence[str]) -> None:
        self._show(resolved=self._status.resolved + len(keys))
        self._changed = self._changed or bool(keys)

    def _look_on(self) -> float:
        """Counts what waits while nothing is taken."""
        if time.monotonic() >= self._count_at:
            try:
                with ExitStack() as lent:
                    source, target = (lent.enter_context(_lent(end)) for end in self._ends)
                    self._count(route.pairs(source, target, self._collections, both=self._both))
            except StoreError:
                self._show(pending=None)
            self._count_at = time.monotonic() + COUNTED_SECONDS
        return COUNTED_SECONDS

    def _count(self, pairs: Sequence[Pair]) -> None:
        began = time.monotonic()
        pending = route.pending(pairs, self._scope, both=self._both)
        with self._lock:
            self._met = self._met or pending.met
            done = 1.0 if self._met or not pending.of else 1 - pending.commits / pending.of
            self._show(pending=pending.commits, progress=round(done, 4))
        ended = time.monotonic()
        self._count_at = ended + max(SHOWN_SECONDS, 20 * (ended - began))

    def _add(self, moved: Pulled) -> None:
        with self._lock:
            status = self._status
            self._show(
                rows=status.rows + moved.rows,
                bytes=status.bytes + moved.body_bytes,
                new=status.new + moved.new,
                differences=status.differences + moved.differences,
                collided=status.collided + moved.collided,
                unexplained=status.unexplained + moved.unexplained,
                ghosts=status.ghosts + moved.ghosts,
                revived=status.revived + moved.revived,
                forgotten=status.forgotten + moved.forgotten,
                left=status.left + moved.left,
            )
            self._changed = self._changed or bool(moved.rows)

    def _note(self, error: Exception) -> float:
        """Shows an error; after how long to try again."""
        first, most = BACK_OFF_SECONDS
        if isinstance(error, LeaseHeld):
            self._show(pending=None)
            log.debug("%s: %s", self._title, error, extra={"replication": self.name})
            return LEASE_WAIT_SECONDS * random.uniform(0.5, 1)
        with self._lock:
            self._failures += 1
            self._over.clear()
            self._quiet.clear()
            passing = isinstance(error, Unavailable | NotFound | StaleMap | OSError)
            longest = min(most, first * 2.0 ** min(self._failures - 1, 30)) if passing else most
            wait = longest * random.uniform(0.5, 1)
            words = str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
            self._show(error=words, error_at=now_us(), errors=self._status.errors + 1)
            if not (self._stopping or self._paused):
                self._enter("failing")
            told, told_at = self._logged
            again = words == told and time.monotonic() - told_at < REPEAT_SECONDS
            if not again:
                self._logged = words, time.monotonic()
        log.log(
            logging.DEBUG if again else logging.WARNING,
            "%s: %s%s",
            self._title,
            words,
            f" Next try in {wait:.0f} s." if self.live else "",
            extra={"replication": self.name, "failures": self._failures},
            exc_info=None if isinstance(error, StoreError | OSError) or again else error,
        )
        return wait

    @property
    def _title(self) -> str:
        return self.name or f"{self._status.source} → {self._status.target}"

    def _enter(self, state: State) -> None:
        with self._lock:
            if (self._stopping or self._paused) and state not in ("paused", "stopped"):
                return  # a turn under way has still something to say
            if self._status.state != state:
                log.debug("%s: %s", self._title, state, extra={"replication": self.name})
                self._status = replace(self._status, state=state, since=now_us())

    def _show(self, **changes: Any) -> None:
        with self._lock:
            self._status = replace(self._status, **changes)


def _lent(end: End) -> AbstractContextManager[Store | Collection]:
    return nullcontext(end) if isinstance(end, Store | Collection) else end()


def _store_of(end: Store | Collection) -> Store:
    return end.store if isinstance(end, Collection) else end


def _words(end: End) -> str:
    """An end for people, without passwords; empty if it is not known yet."""
    if isinstance(end, Collection):
        return f"{_words(end.store)} {end.name}"
    return " ".join(shard.database.name for shard in end.shards) if isinstance(end, Store) else ""
