"""From many sorted runs to one: the keys are cut into buckets, and each bucket is merged and reduced by itself.

    run 1  a…………z ─┐   bucket a…g ─ merge, finish ─► segment ─┐
    run 2  a…………z ─┼─► bucket g…p ─ merge, finish ─► segment ─┼─► Result, in order
    run 3  a…………z ─┘   bucket p…z ─ merge, finish ─► segment ─┘

Where to cut follows from the runs' own indexes, so buckets are of one size,
however the keys are spread. A reduce task reads only the blocks of its bucket.
It loads blocks in the order of their first keys until they are as much as it may
hold; every key before the first of the next block is then complete. So the
memory it needs does not depend on the size of the bucket.

Runs are merged in the order of their splits. A key's accumulators meet in a
dictionary, and what is sorted are pieces that are sorted already: both happen
without a call of ours for each key.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from time import monotonic
from typing import Any

from mapreduce.collation import Identity
from mapreduce.errors import DeadlineExceeded, JobError, ReduceError
from mapreduce.partial import join
from mapreduce.reducers import Groups, Reducer
from mapreduce.runs import Block, Place, Reader, Run, Writer, in_order, place
from mapreduce.spills import SpillDirectory
from mapreduce.work import Work

BUCKETS_PER_WORKER = 4


@dataclass(frozen=True)
class Bucket:
    """The keys from `low` to before `high`, and the runs they are in, in the order of their splits.

    A run is a path, a content, or the number of a piece of kept data.
    """

    low: Place | None
    high: Place | None
    runs: Sequence[str | bytes | tuple[int, int]] = field(repr=False)

    def __str__(self) -> str:
        return f"reducing the keys from {self.low[1]!r}" if self.low else "reducing the first keys"


@dataclass
class ReduceBucket:
    """The function that workers run for each bucket; a picklable value. Gives a run of finished values."""

    work: Work
    memory: int
    spills: SpillDirectory | None  # None: the run is in bytes and stays with the worker, `(run, content)`
    deadline: float | None = None  # of time.monotonic()

    def __call__(self, bucket: Bucket, data: Sequence[Sequence[bytes]] = ()) -> Any:
        """The segment of a bucket.

        Raises:
            ReduceError: `merge`, `finish` or the reduce function failed on a group.
        """
        sources = [data[run[0]][run[1]] if isinstance(run, tuple) else run for run in bucket.runs]
        if self.spills is None:
            run = self._reduced(Writer(io.BytesIO()), sources, bucket)
            content, run.content = run.content, None
            return run, content
        file, path = self.spills.file()
        try:
            with file:
                return self._reduced(Writer(file, path), sources, bucket)
        except OSError as error:
            raise JobError(
                f"the groups of a bucket could not be written to {path}: {error}. Nothing was stored, and the job's "
                f"files are removed. Set TMPDIR to a directory with room."
            ) from error

    def _reduced(self, writer: Writer, sources: Sequence[str | bytes], bucket: Bucket) -> Run:
        finish = self.work.finish
        readers = [Reader(source) for source in sources]
        for keys, groups, names in merged(readers, bucket.low, bucket.high, self.work.reducer, self.memory // 3):
            values = []
            for found in keys:
                try:
                    values.append(finish(names[found] if type(found) is tuple else found, groups[found]))
                except Exception as error:
                    raise reduce_error(names[found] if type(found) is tuple else found, error) from error
            writer.write(keys, values, names)
            if self.deadline is not None and monotonic() >= self.deadline:
                raise DeadlineExceeded(
                    "the deadline of the job passed. Nothing was stored. Allow more time, or more workers."
                )
        return writer.done()


@dataclass(frozen=True)
class CutRuns:
    """The function that cuts the kept runs of one map task by buckets; the pieces stay with the worker."""

    edges: Sequence[Place]

    def __call__(self, _task: Any, data: Sequence[Sequence[bytes]]) -> tuple[None, list[list[bytes]]]:
        """Nothing to tell, and for each bucket the pieces of all runs of the task."""
        return None, [[piece(run, low, high) for run in data[0]] for low, high in ranges(self.edges)]


def piece(run: str | bytes, low: Place | None, high: Place | None) -> bytes:
    """The part of a run's content that one bucket needs."""
    return Reader(run).part(low, high)


def edges(runs: Iterable[Run], workers: int, most: int | None = None) -> list[Place]:
    """Where to cut the keys into buckets of about the same weight, so that all workers have some.

    Args:
        runs: all of them.
        workers: how many buckets are worked on at a time.
        most: what a bucket may weigh; by default any weight, since a reduce task need not hold its bucket.
    """
    samples = sorted((place(key), weight) for run in runs for key, weight in run.samples)
    whole = sum(weight for _, weight in samples)
    count = workers * BUCKETS_PER_WORKER if workers > 1 else 1
    if most is not None:
        count = max(count, -(-whole // most))
    before = list(accumulate((weight for _, weight in samples), initial=0))
    found: list[Place] = []
    for number in range(1, count):
        at = bisect_left(before, whole * number // count)
        if 0 < at < len(samples) and samples[at][0] > samples[0][0] and (not found or samples[at][0] > found[-1]):
            found.append(samples[at][0])
    return found


def ranges(edges: Sequence[Place]) -> list[tuple[Place | None, Place | None]]:
    """The buckets between the edges."""
    return list(zip([None, *edges], [*edges, None], strict=True))


def merged(
    readers: Sequence[Reader], low: Place | None, high: Place | None, reducer: Reducer, weight: int
) -> Iterator[tuple[list[Identity], Groups, dict[Identity, Any]]]:
    """The groups of all runs from `low` to before `high`: (keys of one class in order, accumulators, names), by and by.

    Args:
        weight: how much of the runs may be in memory at a time, about, beside a block of each run.
    """
    blocks = sorted(
        (place(reader.index[number].first), order, number)
        for order, reader in enumerate(readers)
        for number in reader.between(low, high)
    )
    waiting: dict[int, list[Block]] = {}  # by reader: what is loaded and not yet merged, in order
    at = 0
    while at < len(blocks) or waiting:
        loaded = 0
        while at < len(blocks) and (not loaded or loaded < weight):
            first, order, number = blocks[at]
            block = readers[order].block(number)
            if low is not None and first < low:
                block = _cut(block, low)[1]
            if block.keys:
                waiting.setdefault(order, []).append(block)
            loaded += readers[order].index[number].weight
            at += 1
        bound = blocks[at][0] if at < len(blocks) else high
        for complete in _complete(waiting, bound):
            groups: Groups = {}
            names: dict[Identity, Any] = {}
            for block in complete:
                later = dict(zip(block.keys, block.values, strict=True))
                if groups:
                    join(groups, names, later, {**block.names}, reducer)
                else:
                    groups, names = later, {**block.names}
            (keys,) = in_order(groups)
            yield keys, groups, names
        if at >= len(blocks):
            return


def _complete(waiting: dict[int, list[Block]], bound: Place | None) -> list[list[Block]]:
    """Takes what comes before `bound` out of the waiting blocks: for each class in order, by reader."""
    classes: list[list[Block]] = [[], [], [], []]
    for order in sorted(waiting):
        left = []
        for block in waiting[order]:
            before, after = (block, None) if bound is None else _cut(block, bound)
            if before.keys:
                classes[block.rank].append(before)
            if after is not None and after.keys:
                left.append(after)
        if left:
            waiting[order] = left
        else:
            del waiting[order]
    return [blocks for blocks in classes if blocks]


def _cut(block: Block, bound: Place) -> tuple[Block, Block]:
    """What of a block comes before a place, and the rest."""
    if block.rank != bound[0]:
        at = len(block.keys) if block.rank < bound[0] else 0
    else:
        at = bisect_left(block.keys, bound[1])
    return (
        block._replace(keys=block.keys[:at], values=block.values[:at]),
        block._replace(keys=block.keys[at:], values=block.values[at:]),
    )


def reduce_error(key: Any, error: Exception) -> ReduceError:
    """The error of a group."""
    return ReduceError(
        f"reducing the group {key!r} failed: {type(error).__name__}: {error}. Nothing was stored.", key=key
    )
