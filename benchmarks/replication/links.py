"""A store of many documents and its replica: the first sync, later ones, and comparing the two in full.

In a line with a raw column, raw is what the parentheses say.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import vstore
from benchmarks.databases import Fresh
from benchmarks.replication.worker import measured
from benchmarks.report import Line
from replication import sync
from replication.reconcile import reconcile
from vstore import Collection, Store
from vstore.sql.database import Connection

KIB = 1024
SYNC_RATIO = 2
MEMORY_MIB = 300
IDLE_MS = 50
IDLE_STATEMENTS = 10
CHEAP_ROUNDS = 3
"""How often at least is done what takes seconds only."""

CHANGES = 100, 1_000, 10_000
DIFFERENCES: dict[int, int | None] = {0: None, 1: 4 * KIB, 100: 150 * KIB, 1_000: None}
"""How many documents differ, and how many bytes may be exchanged for it."""


def lines(name: str, source: Fresh, target: Fresh, count: int, rounds: int) -> Iterator[Line]:
    """Every line about one kind of source and one of target."""
    urls = _url(source), _url(target)
    yield from _first(name, urls, source, target, count, rounds)
    with vstore.open(urls[0]) as one, vstore.open(urls[1]) as other:
        yield from _later(name, one, other, count, rounds)
        yield from _idle(name, one, other, rounds)
        yield from _compared(name, one["orders"], other["orders"], count)


def _url(fresh: Fresh) -> str:
    return fresh().render_as_string(hide_password=False)


def _first(name: str, urls: tuple[str, str], source: Fresh, target: Fresh, count: int, rounds: int) -> Iterator[Line]:
    """A new replica, beside putting the same documents into a store of the target's kind.

    Each in a process of its own, in turns. The last round's stores are those that the other lines go on with.
    """
    wrote, moved, few = [], [], max(1, count // 10)
    for number in reversed(range(rounds)):
        one, other = urls if number == 0 else (_url(source), _url(target))
        use = measured("put_many", one, str(count))
        wrote.append(use if _kind(one) == _kind(other) else measured("put_many", _url(target), str(count)))
        moved.append(measured("sync", one, other))
    small = _url(source), _url(target)
    measured("put_many", small[0], str(few))
    flat = measured("sync", *small)
    ratio = median(b.seconds / a.seconds for a, b in zip(wrote, moved, strict=True))
    yield Line(
        f"{name}: new replica of {count:,} (raw: put_many)",
        median(each.seconds for each in wrote),
        median(each.seconds for each in moved),
        "s",
        f"{ratio:.2f} ×",
        f"≤ {SYNC_RATIO} ×",
        ratio <= SYNC_RATIO,
    )
    peak = max(each.peak_mib for each in moved)
    work = f"{name}: memory, a replica of {count:,} (raw: {few:,})"
    yield Line(work, flat.peak_mib, peak, "MiB", f"{peak:.0f} MiB", f"≤ {MEMORY_MIB} MiB", peak <= MEMORY_MIB)


def _later(name: str, one: Store, other: Store, count: int, rounds: int) -> Iterator[Line]:
    """Changes of old documents at the source: ten times as many may take ten times as long."""
    chance = random.Random(count)
    sync(one, other)  # the second compares what the first has moved; from then on it is only news
    times: dict[int, list[float]] = {}
    for _ in range(max(CHEAP_ROUNDS, rounds)):
        for changes in CHANGES:
            changed = min(changes, count)
            _edit(one["orders"], count, changed, chance)
            times.setdefault(changes, []).append(_timed(lambda: sync(one, other)))
    for fewer, changes in itertools.pairwise(CHANGES):
        ratio = median(b / a for a, b in zip(times[fewer], times[changes], strict=True))
        left, right = (median(times[each]) * 1e3 for each in (fewer, changes))
        work = f"{name}: sync of {changes:,} changes (raw: of {fewer:,})"
        yield Line(work, left, right, "ms", f"{ratio:.2f} ×", "≤ 10 ×", ratio <= 10)


def _idle(name: str, one: Store, other: Store, rounds: int) -> Iterator[Line]:
    """Nothing to do: once in a while it is asked, mostly it is so."""
    sync(one, other)
    took_ms = median(_timed(lambda: sync(one, other)) for _ in range(max(CHEAP_ROUNDS, rounds))) * 1e3
    yield Line(
        f"{name}: sync with nothing to do",
        None,
        took_ms,
        "ms",
        f"{took_ms:.0f} ms",
        f"< {IDLE_MS} ms",
        took_ms < IDLE_MS,
    )
    with _counted() as asked:
        sync(one, other)
    most = max(asked.values(), default=0)
    work = f"{name}: the same, statements of the shard with most"
    yield Line(work, None, most, "", f"{most} ×", f"< {IDLE_STATEMENTS}", most < IDLE_STATEMENTS)


def _compared(name: str, one: Collection, other: Collection, count: int) -> Iterator[Line]:
    """Both are compared in full, by fingerprints of ranges, though the feeds would tell; what differs is repaired."""
    chance = random.Random(-count)
    for differences, most in DIFFERENCES.items():
        changed = min(differences, count)
        _edit(one, count, changed, chance)
        source, target = one.store.handle(one.name), other.store.handle(other.name)
        assert source is not None
        assert target is not None
        gc.collect()
        began = time.perf_counter()
        found = reconcile(source, target)
        seconds = time.perf_counter() - began
        assert found.theirs == changed, f"{found.theirs} of {changed} differences found"
        yield Line(
            f"{name}: compared in full, {differences:,} differ",
            None,
            seconds * 1e3,
            "ms",
            f"{found.frame_bytes:,} B",
            "" if most is None else f"≤ {most // KIB} KiB",
            None if most is None else found.frame_bytes <= most,
        )


def _edit(orders: Collection, count: int, changes: int, chance: random.Random) -> None:
    keys = [f"order-{number:09d}" for number in chance.sample(range(count), changes)]
    found = orders.get_many(keys)
    orders.put_many({key: {**found[key], "note": f"changed {chance.random()}"} for key in keys})


def _kind(url: str) -> str:
    return url.partition(":")[0].partition("+")[0]


def _timed(work: Callable[[], Any]) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextlib.contextmanager
def _counted() -> Iterator[Counter[str]]:
    """How many statements each database is sent; those that begin and end transactions among them."""
    counter: Counter[str] = Counter()
    originals = {name: getattr(Connection, name) for name in ("rows", "run", "run_many", "text")}

    def counting(name: str) -> Callable[..., Any]:
        def counted(connection: Connection, *given: Any) -> Any:
            counter[connection._database.address] += 1
            return originals[name](connection, *given)

        return counted

    for name in originals:
        setattr(Connection, name, counting(name))
    try:
        yield counter
    finally:
        for name, original in originals.items():
            setattr(Connection, name, original)
