"""Running a job: cut the input, let an executor do the splits, join what comes back.

    over ─ cut ─► splits ─ executor ─► partials ─┬─ few groups: merged here, in split order ──────► Result
                                                 └─ many: sorted runs ─ shuffle, in the executor ─► Result

Whatever order the partials arrive in, they are merged in the order of their
splits: so the result does not depend on timing, and reducers need not be
commutative. What arrives before its turn is merged with its neighbours, so only
a few pieces wait at a time. The groups held here are bounded: past the bound
they are written as sorted runs, like those of the workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from contextlib import closing
from itertools import islice
from time import monotonic, perf_counter
from typing import Any, Literal, TypeAlias

from mapreduce.executors import Executor, Kept, Using, chosen
from mapreduce.executors.inline import Inline
from mapreduce.job import MEMORY, CombineFunction, Job, MapFunction, ReduceFunction, WhereFunction, check_limits
from mapreduce.mapping import SENT_GROUPS, MapSplit, spilled
from mapreduce.partial import SKIPPED_LISTED, Counted, Partial, Skipped
from mapreduce.progress import ProgressFunction, Teller
from mapreduce.reducers import Reducer
from mapreduce.result import Counters, Held, Result, Segment, Stored
from mapreduce.runs import Run
from mapreduce.shuffle import Bucket, CutRuns, ReduceBucket, edges, piece, ranges
from mapreduce.sizes import groups_bytes
from mapreduce.spills import SpillDirectory
from mapreduce.splits import Joined, Slice, cut, length_estimate
from mapreduce.work import Work
from vstore.errors import StoreError

MANY_GROUPS = 5_000  # in one split: bringing groups together is then a good part of the work
BUNDLED = 16  # splits at most are one task, since all of it is done again when a worker is lost

OnError: TypeAlias = Literal["raise", "skip"]


def run(
    *,
    over: Any,
    map: MapFunction,
    reduce: Reducer | ReduceFunction,
    combine: CombineFunction | None = None,
    fields: Iterable[Any] | None = None,
    where: Any | WhereFunction | None = None,
    workers: int | None = None,
    executor: Executor | Any = None,
    memory: int = MEMORY,
    deadline: float | None = None,
    on_error: OnError = "raise",
    on_conflict: str = "winner",
    progress: bool | ProgressFunction | None = None,
    into: Any = None,
) -> Result:
    """What `reduce` makes of the values that `map` yields for each key, over all documents.

    The job is done when this returns. A small result is held in memory, and
    `finish`, or the reduce function, is called as it is read; a large one has
    been reduced by the workers and lies in files.

    Args:
        over: a collection, one with a prefix, a snapshot, `posts.at(moment)`, a
            history scan or anything else that is `Sliceable`, another result
            included; a list of such sources; a mapping of documents; or an
            iterable of (key, value) pairs or of `Document`s, which are read here
            and sent to the workers.
        map: `map(key, value)` yields or returns (key, value) pairs. Lambdas and
            closures travel. Keys are JSON values.
        reduce: a reducer, such as `Sum()`, or a function `reduce(key, values)`.
        combine, fields, where: see `Job`.
        workers: processes; 1 runs everything in this one. By default all cores,
            unless the input is so small that starting them would not pay.
        executor: another place for the work, such as `Dask("tcp://…")`.
        memory: bytes of groups that a worker may hold, about; past it they are
            written to disk, sorted. This process holds at most half as many.
        deadline: seconds after which the job is given up.
        on_error, on_conflict: see `Job`.
        progress: True shows it on stderr, if that is a terminal; a function gets
            a `Progress` at the end of each split.
        into: a collection, or one with a prefix, that the result is stored in:
            each group a document whose key is the group's key, as JSON text if
            it is no string. It has to be empty or written by `into=` before; then
            the new result replaces the old. Only what differs is written.

    Raises:
        ConfigurationError: an argument cannot be used; nothing was run.
        MapError: a function failed on a document, or it could not be decoded;
            carries key and rev.
        ReduceError: a function failed on a group; carries its key.
        DeadlineExceeded: the job was not done in time.
        WorkerLost: a split ended its worker repeatedly.
        TaskError: the functions or what they yield cannot travel to or from a
            worker process; `workers=1` needs no travel.
        StartError: worker processes did not start.

    Whatever is raised, Ctrl-C included, the job's workers have been ended and
    its files removed. Reads an exact snapshot if `over` is one or makes one.
    Memory is bounded in every process, except that the values of one key have to
    fit if they are not combined.
    """
    job = Job(map, reduce, combine, fields, where, on_conflict, on_error)
    return job.run(
        over=over,
        workers=workers,
        executor=executor,
        memory=memory,
        deadline=deadline,
        progress=progress,
        into=into,
    )


def execute(
    work: Work,
    over: Any,
    *,
    workers: int | None = None,
    executor: Executor | Any = None,
    memory: int = MEMORY,
    deadline: float | None = None,
    on_error: OnError = "raise",
    progress: bool | ProgressFunction | None = None,
    name: str | None = None,
) -> Result:
    """Any work over some documents; the arguments, and what is raised, are those of `run`."""
    check_limits(memory, deadline)
    estimate = length_estimate(over)
    where = chosen(workers, estimate, executor)
    splits: Iterable[Slice] = cut(over, where.workers)
    if isinstance(where, Inline) and isinstance(splits, Sized) and len(splits) > 1:
        splits = (Joined(tuple(splits)),)  # nothing to divide among workers, so nothing to merge again
    teller = Teller(progress, estimate, len(splits) if isinstance(splits, Sized) else None)
    moment = None if deadline is None else monotonic() + deadline
    execution = _Execution(work, where, memory, moment, on_error == "skip", teller)
    try:
        return execution.result(splits)
    except BaseException as error:
        execution.abandon()
        if name and isinstance(error, StoreError):
            error.add_note(f"The job was {name!r}.")
        raise


class _Execution:
    """One job on its way: what has come back, and what is still awaited."""

    def __init__(
        self, work: Work, executor: Executor, memory: int, deadline: float | None, skipping: bool, teller: Teller
    ) -> None:
        self._started = perf_counter()
        self._work = work
        self._executor = executor
        self._memory = memory
        self._deadline = deadline
        self._skipping = skipping
        self._teller = teller
        self._spills = SpillDirectory()
        self._spans = _Spans(work.reducer)
        self._runs: dict[int, list[Run]] = {}  # by number of split
        self._kept: dict[int, Kept] = {}  # where the contents of a split's runs are, if not in files
        self._total = Counted()
        self._skips: list[tuple[int, Skipped]] = []
        self._seconds: dict[int, float] = {}
        self._sizes: dict[int, int] = {}  # of the tasks that are out: of how many splits
        self._many = False
        self._retries = 0

    def result(self, splits: Iterable[Slice]) -> Result:
        done = False
        try:
            self._map(splits)
            done = True
        finally:
            self._teller.end(done)
        if self._runs:
            self._write_spans()
            segments = self._reduced_here() if self._executor.local else self._reduced_there()
            groups: Any = Stored(segments, self._executor, self._spills)
        else:
            groups = Held(self._work, self._spans.whole())
        seconds = [self._seconds[number] for number in sorted(self._seconds)]
        counters = Counters.of(self._total, seconds, self._retries, perf_counter() - self._started)
        return Result(groups, counters, [skipped for _, skipped in self._skips])

    def abandon(self) -> None:
        self._spills.remove()

    def _map(self, splits: Iterable[Slice]) -> None:
        executor = self._executor
        inline = isinstance(executor, Inline)
        task = MapSplit(
            self._work,
            # In this process both the groups of the split and those that are done are held.
            self._memory // 2 if inline else self._memory,
            self._skipping,
            None if inline else SENT_GROUPS,
            self._spills,
            keep=not executor.local,
            deadline=self._deadline if executor.local else None,
            told=self._teller.read,
        )
        tasks = self._bundled(splits)
        with closing(executor.run(task, tasks, keep=not executor.local, deadline=self._deadline)) as outcomes:
            for outcome in outcomes:
                partial, kept = (outcome.result, None) if executor.local else outcome.result
                self._retries += outcome.attempts - 1
                self._seconds[outcome.number] = partial.seconds
                self._many |= bool(partial.runs) or len(partial.groups) > MANY_GROUPS
                self._count(outcome.number, partial.counted)
                if partial.runs:
                    self._runs[outcome.number] = partial.runs
                    if kept is not None:
                        self._kept[outcome.number] = kept
                else:
                    self._spans.add(outcome.number, partial)
                    if self._spans.bytes > self._memory // 2:
                        self._write_spans()
                self._teller.split(partial.counted.documents, self._sizes.pop(outcome.number))

    def _bundled(self, splits: Iterable[Slice]) -> Iterator[Slice]:
        """The splits, or several at a time once it shows that each has many groups.

        Then most of the work is to bring groups together, and a worker that has
        read more has done more of it. Never so many that at the end one worker
        has something to do and another has not.
        """
        left = len(splits) if isinstance(splits, Sized) else None
        waiting = iter(splits)
        number = 0
        while True:
            size = 1
            if self._many:
                size = BUNDLED if left is None else max(1, min(BUNDLED, left // (2 * self._executor.workers)))
            bundle = tuple(islice(waiting, size))
            if not bundle:
                return
            if left is not None:
                left -= len(bundle)
            self._sizes[number] = len(bundle)
            number += 1
            yield bundle[0] if len(bundle) == 1 else Joined(bundle)

    def _count(self, number: int, counted: Counted) -> None:
        skips, counted.skips = counted.skips, []
        self._total.count(counted)
        if skips:
            self._skips = sorted([*self._skips, *((number, skipped) for skipped in skips)], key=lambda item: item[0])
            del self._skips[SKIPPED_LISTED:]

    def _write_spans(self) -> None:
        for number, partial in self._spans.taken():
            if partial.groups:
                self._runs[number] = [spilled(partial.groups, partial.names, self._spills)]
                self._total.spills += 1

    def _reduced_here(self) -> list[Segment]:
        runs = [run for number in sorted(self._runs) for run in self._runs[number]]
        paths = [run.path for run in runs if run.path is not None]
        buckets = [Bucket(low, high, paths) for low, high in ranges(edges(runs, self._executor.workers))]
        work = ReduceBucket(self._work, self._memory, self._spills, self._deadline)
        segments: dict[int, Segment] = {}
        with closing(self._executor.run(work, buckets, deadline=self._deadline)) as outcomes:
            for outcome in outcomes:
                self._retries += outcome.attempts - 1
                segments[outcome.number] = Segment(outcome.result)
        for path in paths:
            os.unlink(path)
        return [segments[number] for number in sorted(segments)]

    def _reduced_there(self) -> list[Segment]:
        """The same where workers share no disk: runs are cut where they are, and only their pieces move."""
        numbers = sorted(self._runs)
        whole = [run for number in numbers for run in self._runs[number]]
        between = ranges(edges(whole, self._executor.workers, most=max(1, self._memory // 2)))
        cutting = [number for number in numbers if number in self._kept]
        places = {number: place for place, number in enumerate(cutting)}
        pieces: dict[int, Kept] = {}
        cutter = CutRuns([low for low, _ in between if low is not None])
        tasks = (Using(number, (self._kept[number],)) for number in cutting)
        with closing(self._executor.run(cutter, tasks, keep=True, deadline=self._deadline)) as outcomes:
            for outcome in outcomes:
                self._retries += outcome.attempts - 1
                number = cutting[outcome.number]
                pieces[number] = outcome.result[1]
                del self._kept[number]

        def buckets() -> Iterator[Any]:
            for index, (low, high) in enumerate(between):
                sources: list[Any] = []
                for number in numbers:
                    if number in pieces:
                        sources += [(places[number], each) for each in range(len(self._runs[number]))]
                    else:  # groups that came here and grew too many
                        sources += [piece(run.path, low, high) for run in self._runs[number] if run.path is not None]
                yield Using(Bucket(low, high, sources), tuple(pieces[number].part(index) for number in cutting))

        work = ReduceBucket(self._work, self._memory, None)
        segments: dict[int, Segment] = {}
        with closing(self._executor.run(work, buckets(), keep=True, deadline=self._deadline)) as outcomes:
            for outcome in outcomes:
                self._retries += outcome.attempts - 1
                segments[outcome.number] = Segment(*outcome.result)
        return [segments[number] for number in sorted(segments)]


class _Spans:
    """The groups that are held here: one partial for each unbroken span of splits that have come."""

    def __init__(self, reducer: Reducer) -> None:
        self._reducer = reducer
        self._spans: dict[int, tuple[int, Partial]] = {}  # by first split: the one after the last, and the groups
        self._ends: dict[int, int] = {}  # by the one after the last: the first
        self._bytes: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        """About how much memory they take."""
        return sum(self._bytes.values())

    def add(self, number: int, partial: Partial) -> None:
        """The groups of one split; they are merged with those of the splits next to it."""
        start, end = number, number + 1
        if number in self._ends:
            start = self._ends.pop(number)
            _, before = self._spans.pop(start)
            before.absorb(partial, self._reducer)
            partial = before
        if end in self._spans:
            following = end
            end, after = self._spans.pop(following)
            del self._bytes[following]
            partial.absorb(after, self._reducer)
        self._spans[start] = end, partial
        self._ends[end] = start
        self._bytes[start] = groups_bytes(partial.groups)

    def taken(self) -> Iterator[tuple[int, Partial]]:
        """All of them, each with the number of its first split; none is held any more."""
        spans, self._spans, self._ends, self._bytes = self._spans, {}, {}, {}
        for start in sorted(spans):
            yield start, spans[start][1]

    def whole(self) -> Partial:
        """The groups of all splits, when all have come."""
        found = [partial for _, partial in self.taken()]
        assert len(found) <= 1, "splits are missing"
        return found[0] if found else Partial()
