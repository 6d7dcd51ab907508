"""The lines of the budget (docs/performance.md) that concern the store."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy.engine import URL

import vstore
from benchmarks.databases import Fresh
from benchmarks.documents import documents
from benchmarks.raw import Raw
from benchmarks.report import Line, faster, lasting, slower

BATCH = 1_000
THREADS = 8
DEPTH = 20
READ = """
import sys, vstore
print(vstore.open(sys.argv[1], create=False)["orders"][sys.argv[2]])
"""
RAW_READ = """
import sys, sqlite3, orjson
rows = sqlite3.connect(sys.argv[1]).execute("SELECT body FROM raw WHERE key = ?", sys.argv[2:])
print(orjson.loads(rows.fetchone()[0]))
"""


@dataclass(frozen=True)
class Sizes:
    """How much is measured: all other numbers follow from these."""

    documents: int
    memory_documents: int
    rounds: int

    @property
    def share(self) -> int:
        """Documents of one round."""
        return max(1, self.documents // self.rounds)

    @property
    def calls(self) -> int:
        """Calls in one round of what costs a durable transaction."""
        return max(THREADS, self.share // 20)


def lines(fresh: Fresh, sizes: Sizes) -> Iterator[Line]:
    """Every line, measured one after another."""
    raw_url, url = fresh(), fresh()
    with closing(Raw(raw_url)) as raw, vstore.open(text(url)) as store:
        yield from _writes_and_reads(raw, store["orders"], sizes)
    yield from _depth(fresh, sizes)
    yield from _start(raw_url, url, sizes.rounds)
    yield from _memory(fresh, sizes)


def text(url: URL) -> str:
    """A URL as vstore takes it."""
    return url.render_as_string(hide_password=False)


def _writes_and_reads(raw: Raw, ours: vstore.Collection, sizes: Sizes) -> Iterator[Line]:
    made = list(documents(sizes.share * sizes.rounds))
    rounds, share, calls = sizes.rounds, sizes.share, sizes.calls

    def many(write: Callable[[Sequence[tuple[str, object]]], object]) -> Callable[[int], int]:
        def work(number: int) -> int:
            for start in range(number * share, (number + 1) * share, BATCH):
                write(made[start : min(start + BATCH, (number + 1) * share)])
            return share

        return work

    yield slower(f"put_many, batches of {BATCH:,}", many(raw.put_many), many(ours.put_many), rounds, 4)

    numbers = iter(range(len(made), 10**9, calls))

    def single(put: Callable[[str, object], object]) -> Callable[[int], int]:
        def work(_number: int) -> int:
            for key, value in documents(calls, first=next(numbers)):
                put(key, value)
            return calls

        return work

    yield slower("put of a new document, a durable transaction each", single(raw.put), single(ours.put), rounds, 1.5)

    def again(put: Callable[[str, object], object]) -> Callable[[int], int]:
        def work(number: int) -> int:
            for key, value in made[number * share :][:calls]:
                put(key, {**value, "round": number})
            return calls

        return work

    yield slower("put of a new version of one (raw: replaced)", again(raw.replace), again(ours.put), rounds)

    with ThreadPoolExecutor(THREADS) as threads:

        def together(_number: int) -> int:
            new = list(documents(calls, first=next(numbers)))
            list(threads.map(lambda n: [ours.put(*each) for each in new[n::THREADS]], range(THREADS)))
            return calls

        yield faster(f"put by {THREADS} threads (raw: vstore, one thread)", single(ours.put), together, rounds, 4)

    chance = random.Random(1)
    keys = [chance.choice(made)[0] for _ in range(share)]

    def gets(get: Callable[[str], object]) -> Callable[[int], int]:
        return lambda _number: len([get(key) for key in keys])

    yield slower("get", gets(raw.get), gets(ours.__getitem__), rounds, 4)
    yield slower("items() of everything", _all(raw.items), _all(ours.items), rounds, 1.5)


def _depth(fresh: Fresh, sizes: Sizes) -> Iterator[Line]:
    """Reading documents with a long history, which was written in random order so that no two heads are neighbours."""
    made = list(documents(max(1, sizes.documents // DEPTH)))
    writes = made * DEPTH
    random.Random(2).shuffle(writes)
    chance = random.Random(3)
    keys = [chance.choice(made)[0] for _ in range(sizes.share)]
    with vstore.open(text(fresh())) as one, vstore.open(text(fresh())) as many:
        shallow, deep = one["orders"], many["orders"]
        shallow.put_many(made)
        deep.put_many((key, {**value, "write": number}) for number, (key, value) in enumerate(writes))

        def gets(collection: vstore.Collection) -> Callable[[int], int]:
            return lambda _number: len([collection[key] for key in keys])

        yield slower(f"get, {DEPTH} versions each (raw: vstore, 1)", gets(shallow), gets(deep), sizes.rounds, 1.2)
        yield slower(
            f"items(), {DEPTH} versions each (raw: vstore, 1)",
            _all(shallow.items),
            _all(deep.items),
            sizes.rounds,
            1.5,
        )


def _all(items: Callable[[], Iterable[tuple[str, object]]]) -> Callable[[int], int]:
    return lambda _number: sum(1 for _ in items())


def _start(raw_url: URL, url: URL, rounds: int) -> Iterator[Line]:
    """Opening what is there, in this process and in new ones."""
    key = next(iter(documents(1)))[0]

    def opened(_number: int) -> int:
        vstore.open(text(url), create=False).close()
        return 1

    def raw_opened(_number: int) -> int:
        Raw(raw_url).close()
        return 1

    def process(*arguments: str) -> Callable[[int], int]:
        def work(_number: int) -> int:
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            return 1

        return work

    yield lasting("open of an existing store", raw_opened, opened, rounds * 3, 50)
    raw_process = process("-c", RAW_READ, str(raw_url.database), key) if raw_url.drivername == "sqlite" else None
    script = process("-c", READ, text(url), key)
    yield lasting("import, open, first read, in a new process", raw_process, script, rounds * 2, 250)
    command = process("-m", "vstore", "get", "orders", key, "--store", text(url))
    yield lasting("vstore get, as a command", raw_process, command, rounds * 2, 250)


def _memory(fresh: Fresh, sizes: Sizes) -> Iterator[Line]:
    """The peak of a process that does nothing else; once for a tenth of the documents to show whether it grows."""
    few, many = max(1, sizes.memory_documents // 10), sizes.memory_documents
    small, large = text(fresh()), text(fresh())
    for work in ("put_many", "items"):
        left, right = _peak_mib(work, small, few), _peak_mib(work, large, many)
        yield Line(
            f"memory, {work} of {many:,} documents (raw: {few:,})",
            left,
            right,
            "MiB",
            f"{right:.0f} MiB",
            "≤ 300 MiB",
            right <= 300,
        )


def _peak_mib(work: str, url: str, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", work, url, str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)
