"""The result of a job: groups in the order of their keys, in memory or in files.

Few groups are held as accumulators and finished as they are read. Many have been
reduced by the workers and lie in segments, which are sorted runs one after the
other; they are read a block at a time. The reader need not know which.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any, Protocol, overload

from mapreduce.collation import Identity, identity
from mapreduce.errors import JobError, ReduceError
from mapreduce.executors import Executor, Kept
from mapreduce.partial import Counted, Partial, Skipped
from mapreduce.runs import Block, Reader, Run, in_order, place
from mapreduce.spills import SpillDirectory
from mapreduce.splits import READ_DOCUMENTS, Batch, Slice
from mapreduce.work import Work
from vstore.reading import Reading

Group = tuple[Any, Any]


@dataclass(frozen=True)
class Counters:
    """How much a job did. What was done again after a worker was lost counts once, except in `retries`."""

    documents: int  # read, skipped ones included
    pairs: int  # yielded by the map function
    bytes: int  # of the bodies read, as stored; 0 for documents that came from no store
    splits: int
    spills: int  # sorted runs written before the merge
    retries: int  # splits and buckets repeated because their worker died
    skipped: int  # documents left out because of an error
    conflicts: int  # documents read that had several live siblings
    seconds: float  # from the call until the result could be read
    split_seconds: tuple[float, ...]  # of work on each split, in the order of the splits

    @classmethod
    def of(cls, total: Counted, split_seconds: Sequence[float], retries: int, seconds: float) -> Counters:
        """What was counted in the splits together, and how long each took."""
        return cls(
            documents=total.documents,
            pairs=total.pairs,
            bytes=total.bytes,
            splits=len(split_seconds),
            spills=total.spills,
            retries=retries,
            skipped=total.skipped,
            conflicts=total.conflicts,
            seconds=seconds,
            split_seconds=tuple(split_seconds),
        )


class Groups(Protocol):
    """Where the groups of a result are."""

    def __len__(self) -> int: ...

    def read(self) -> Iterator[Group]:
        """All of them in order."""

    def backwards(self) -> Iterator[Group]:
        """All of them in reverse order."""

    def find(self, found: Identity) -> tuple[()] | tuple[Any]:
        """The value of a key, if it is there."""

    def has(self, found: Identity) -> bool:
        """Whether a key is there."""

    def slices(self, count: int) -> Sequence[Slice]:
        """About so many parts, for a job over the result."""

    def close(self) -> None:
        """Give up what is held."""


class Result:
    """The (key, value) pairs of a finished job, ordered by key.

    It can be iterated again, and backwards, and looked up by key. A job can be
    run over it: its documents are the pairs. It has no `keys()`, so that
    `dict(result)` takes the pairs; keys that are lists or dicts do not fit into
    a dict.

    A large result lies in files, which are removed when it is closed, or no
    longer used. A small one is in memory, and there the reducer's `finish`, or
    the reduce function, is called for each group as it is read.
    """

    def __init__(self, groups: Groups, counters: Counters, skipped: Sequence[Skipped] = ()) -> None:
        """Made by `run`, not by users."""
        self._held: Groups | None = groups
        self.counters = counters
        self.skipped = list(skipped)

    @property
    def _groups(self) -> Groups:
        if self._held is None:
            raise _closed()
        return self._held

    def __iter__(self) -> Iterator[Group]:
        return self._groups.read()

    def __reversed__(self) -> Iterator[Group]:
        return self._groups.backwards()

    def __getitem__(self, key: Any) -> Any:
        """The reduced value of one key.

        Raises:
            KeyError: no pair had this key.
            ReduceError: the reduce function, or the reducer's `finish`, failed.
        """
        found = self._groups.find(identity(key))
        if not found:
            raise KeyError(key)
        return found[0]

    def get(self, key: Any, default: Any = None) -> Any:
        """The reduced value of one key, or `default` if no pair had it."""
        found = self._groups.find(identity(key))
        return found[0] if found else default

    def __contains__(self, key: Any) -> bool:
        """Whether any pair had this key, as in a mapping."""
        return self._groups.has(identity(key))

    def __len__(self) -> int:
        return len(self._groups)

    def slices(self, count: int) -> Sequence[Slice]:
        """About `count` parts, for a job over this result."""
        return self._groups.slices(count)

    def len_estimate(self) -> int:
        """How many groups there are."""
        return len(self)

    def close(self) -> None:
        """Remove the files, if there are any; the groups cannot be read any more. Closing again does nothing."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        read = f"from {self.counters.documents:,} documents"
        return f"<Result of {len(self):,} keys {read}>" if self._held is not None else f"<Result {read}, closed>"


def _closed() -> JobError:
    return JobError("this result has been closed, and its groups are gone. Its counters are still there.")


class Held:
    """Groups in memory: accumulators, finished as they are read."""

    def __init__(self, work: Work, partial: Partial) -> None:
        self._work = work
        self._partial = partial

    @cached_property
    def _order(self) -> list[Identity]:
        return list(chain.from_iterable(in_order(self._partial.groups)))

    def __len__(self) -> int:
        return len(self._partial.groups)

    def read(self) -> Iterator[Group]:
        return map(self._group, iter(self._order))

    def backwards(self) -> Iterator[Group]:
        return map(self._group, reversed(self._order))

    def find(self, found: Identity) -> tuple[()] | tuple[Any]:
        return (self._group(found)[1],) if found in self._partial.groups else ()

    def has(self, found: Identity) -> bool:
        return found in self._partial.groups

    def slices(self, count: int) -> Sequence[Slice]:
        size = max(1, -(-len(self) // max(1, count)))
        return _Made(-(-len(self) // size), lambda number: Batch(self.part(number * size, (number + 1) * size)))

    def part(self, start: int, end: int) -> list[Group]:
        """The groups in these places."""
        return [self._group(found) for found in self._order[start:end]]

    def close(self) -> None:
        self._partial = Partial()

    def _group(self, found: Identity) -> Group:
        if found not in self._partial.groups:
            raise _closed()  # while it is read
        key = self._partial.key(found)
        try:
            return key, self._work.finish(key, self._partial.groups[found])
        except Exception as error:
            raise ReduceError(
                f"reducing the group {key!r} failed: {type(error).__name__}: {error}. The other groups can still be "
                f"read.",
                key=key,
            ) from error


class _Made(Sequence[Slice]):
    """Slices that are made when they are asked for: one carries its groups, or is a segment that has to be fetched."""

    def __init__(self, count: int, make: Callable[[int], Slice]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Slice: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Slice]: ...
    def __getitem__(self, index: int | slice) -> Slice | Sequence[Slice]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._make(index)


@dataclass
class Segment:
    """A run of finished groups: in a file of this machine, or kept by a worker."""

    run: Run
    kept: Kept | None = None


class Stored:
    """Groups in segments, which follow each other in the order of the keys."""

    def __init__(self, segments: Sequence[Segment], executor: Executor, spills: SpillDirectory) -> None:
        self._segments = [segment for segment in segments if segment.run.groups]
        self._firsts = [place(segment.run.samples[0][0]) for segment in self._segments]
        self._executor = executor
        self._spills = spills
        self._readers: dict[int, Reader] = {}
        self._recent: tuple[tuple[int, int], Block] | None = None

    def __len__(self) -> int:
        return sum(segment.run.groups for segment in self._segments)

    def read(self) -> Iterator[Group]:
        for number in range(len(self._segments)):
            reader = self._reader(number)
            for block in range(len(reader.index)):
                yield from pairs(reader.block(block))

    def backwards(self) -> Iterator[Group]:
        for number in reversed(range(len(self._segments))):
            reader = self._reader(number)
            for block in reversed(range(len(reader.index))):
                yield from reversed(pairs(reader.block(block)))

    def find(self, found: Identity) -> tuple[()] | tuple[Any]:
        wanted = place(found)
        number = bisect_right(self._firsts, wanted) - 1
        if number < 0:
            return ()
        reader = self._reader(number)
        at = bisect_right(reader.index, wanted, key=lambda entry: place(entry.first)) - 1
        block = self._block(number, at, reader)
        if block.rank != wanted[0]:
            return ()
        position = bisect_left(block.keys, found)
        if position == len(block.keys) or block.keys[position] != found:
            return ()
        return (block.values[position],)

    def has(self, found: Identity) -> bool:
        return bool(self.find(found))

    def slices(self, count: int) -> Sequence[Slice]:
        each = max(1, -(-count // max(1, len(self._segments))))
        return _Made(len(self._segments) * each, lambda number: self._piece(number, each))

    def close(self) -> None:
        self._segments, self._readers, self._recent = [], {}, None
        self._spills.remove()

    def _piece(self, index: int, each: int) -> Piece:
        """One of the pieces that each segment is cut into."""
        number, part = divmod(index, each)
        blocks = len(self._reader(number).index)
        return Piece(self._source(number), blocks * part // each, blocks * (part + 1) // each)

    def _source(self, number: int) -> str | bytes:
        """The path of a segment, or its content, which is fetched."""
        segment = self._segments[number]
        if segment.kept is None:
            assert segment.run.path is not None
            return segment.run.path
        return self._executor.fetch(segment.kept)  # type: ignore[no-any-return]

    def _reader(self, number: int) -> Reader:
        if number >= len(self._segments):
            raise _closed()  # while it is read
        if number not in self._readers:
            if self._segments[number].kept is not None:
                self._readers.clear()  # the content of one at a time
            self._readers[number] = Reader(self._source(number))
        return self._readers[number]

    def _block(self, number: int, at: int, reader: Reader) -> Block:
        if self._recent is None or self._recent[0] != (number, at):
            self._recent = (number, at), reader.block(at)
        return self._recent[1]


def pairs(block: Block) -> list[Group]:
    """The groups of a block with their keys as they were yielded."""
    if not block.names:
        return list(zip(block.keys, block.values, strict=True))
    return list(zip(map(block.names.__getitem__, block.keys), block.values, strict=True))


@dataclass(frozen=True)
class Piece:
    """A slice of a result in a file, or of one that is carried along: some blocks of a segment."""

    source: str | bytes
    start: int
    end: int

    def batches(self, reading: Reading) -> Iterator[list[Group]]:
        reader = Reader(self.source)
        for number in range(self.start, self.end):
            groups = iter(pairs(reader.block(number)))
            while batch := list(islice(groups, READ_DOCUMENTS)):
                yield from Batch(batch).batches(reading)

    def __str__(self) -> str:
        return f"blocks {self.start} to {self.end - 1} of a result"
