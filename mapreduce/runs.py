"""Sorted runs: groups on disk, or in bytes, in the order of their keys.

A run is a sequence of blocks and an index of them at its end:

    block │ block │ … │ index: first key, offset, length, count, weight of each │ offset of the index

A block holds keys of one class, sorted, and a value for each. So inside a block
keys compare natively, without a call of ours for each: a job of 20 million keys
has no time for those. Plain keys and numbers are written by `marshal`, four
times as fast as pickle; everything else by pickle, which keeps its type.

The *weight* of a block is about what its groups take in memory when they are
read. Whoever merges runs loads blocks by weight.
"""

from __future__ import annotations

import io
import marshal
import os
import pickle
import struct
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from mapreduce.collation import Identity
from mapreduce.errors import JobError, TaskError
from mapreduce.sizes import GROUP_BYTES, mean_bytes

BLOCK_WEIGHT = 256 * 1024
BLOCKS_AT_LEAST = 64  # in a run with so many groups that it pays: whoever wants a part of its keys reads little else
BLOCK_GROUPS = 128  # fewer than so many in a block would make the index large instead
SAMPLES = 64  # of a run's keys, with their weights, are told to whoever plans the merge

PLAIN_KEYS = frozenset((str, int, float))
PLAIN_VALUES = frozenset((int, float))
_END = struct.Struct("<Q")

Place = tuple[int, Identity]
"""A key's class and identity: comparable with any other."""


def rank(identity: Identity) -> int:
    """The class of a key, in their order: null and booleans, numbers, strings, arrays and objects."""
    if type(identity) is tuple:
        return 0 if identity[0] < 3 else 3
    return 2 if isinstance(identity, str) else 1


def place(identity: Identity) -> Place:
    """What to compare keys of any class by."""
    return rank(identity), identity


def in_order(identities: Iterable[Identity]) -> list[list[Identity]]:
    """Identities sorted by collation, as one sorted list for each class; the stable order of equal ones is kept."""
    whole = list(identities)
    kinds = set(map(type, whole))
    if (len(kinds) < 2 and tuple not in kinds) or kinds <= {int, float}:
        whole.sort()
        return [whole] if whole else []
    classes: list[list[Identity]] = [[], [], [], []]
    for identity in whole:
        classes[rank(identity)].append(identity)
    for members in classes:
        members.sort()
    return [members for members in classes if members]


class Entry(NamedTuple):
    """A block in the index."""

    first: Identity
    offset: int
    length: int
    groups: int
    weight: int


@dataclass
class Run:
    """Where a run is, and enough of its index to plan with."""

    groups: int
    samples: list[tuple[Identity, int]]  # a key, and the weight from there to the next
    path: str | None = None
    content: bytes | None = field(default=None, repr=False)

    @property
    def weight(self) -> int:
        """About how much memory its groups take."""
        return sum(weight for _, weight in self.samples)


class Block(NamedTuple):
    """Groups of one class in order."""

    rank: int
    keys: Sequence[Identity]
    values: Sequence[Any]
    names: Mapping[Identity, Any]  # the keys themselves, for those whose identity is a tuple


class Writer:
    """A run while it is written, block by block in the order of the keys."""

    def __init__(self, file: IO[bytes], path: str | None = None) -> None:
        self._file = file
        self._path = path
        self._index: list[Entry] = []
        self._offset = 0

    def write(self, keys: Sequence[Identity], values: Sequence[Any], names: Mapping[Identity, Any]) -> None:
        """Append groups of one class that come after all written so far."""
        size = GROUP_BYTES + mean_bytes(keys) + mean_bytes(values)
        step = max(1, min(BLOCK_WEIGHT // size, max(BLOCK_GROUPS, len(keys) // BLOCKS_AT_LEAST)))
        for start in range(0, len(keys), step):
            block = keys[start : start + step]
            data = _packed(block, values[start : start + step], names)
            self._file.write(data)
            weight = max(size * len(block), 2 * len(data))
            self._index.append(Entry(block[0], self._offset, len(data), len(block), weight))
            self._offset += len(data)

    def done(self) -> Run:
        """The run. The file is closed, unless it is in memory: then the run has its content."""
        index = pickle.dumps([tuple(entry) for entry in self._index], 5)
        self._file.write(index)
        self._file.write(_END.pack(self._offset))
        run = Run(sum(entry.groups for entry in self._index), _samples(self._index), self._path)
        if isinstance(self._file, io.BytesIO):
            run.content = self._file.getvalue()
        self._file.close()
        return run


def _samples(index: list[Entry]) -> list[tuple[Identity, int]]:
    step = max(1, -(-len(index) // SAMPLES))
    return [
        (index[start].first, sum(entry.weight for entry in index[start : start + step]))
        for start in range(0, len(index), step)
    ]


class Reader:
    """A run that can be read. It holds the index, and no open file: runs may be more than files can be open."""

    def __init__(self, source: str | bytes) -> None:
        """Of the file at a path, or of the content."""
        self._source = source
        size = len(source) if isinstance(source, bytes) else _size(source)
        (start,) = _END.unpack(self._read(size - _END.size, _END.size))
        self.index = [Entry(*entry) for entry in pickle.loads(self._read(start, size - _END.size - start))]

    def _read(self, offset: int, length: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[offset : offset + length]
        try:
            handle = os.open(self._source, os.O_RDONLY)  # 6 µs with the closing, and a block takes hundreds to unpack
        except FileNotFoundError as error:
            raise _gone(error) from error
        try:
            return os.pread(handle, length, offset)
        finally:
            os.close(handle)

    def between(self, low: Place | None, high: Place | None) -> range:
        """The numbers of the blocks that may have keys from `low` to before `high`."""
        start = 0 if low is None else max(0, bisect_left(self.index, low, key=_place) - 1)
        if low is not None and start + 1 < len(self.index) and _place(self.index[start + 1]) == low:
            start += 1
        end = len(self.index) if high is None else bisect_left(self.index, high, key=_place)
        return range(start, max(start, end))

    def block(self, number: int) -> Block:
        """One block."""
        entry = self.index[number]
        return _unpacked(self.raw(number), rank(entry.first))

    def raw(self, number: int) -> bytes:
        """One block as it lies there."""
        entry = self.index[number]
        return self._read(entry.offset, entry.length)

    def part(self, low: Place | None, high: Place | None) -> bytes:
        """The blocks that may have keys from `low` to before `high`, as a run of their own."""
        numbers = self.between(low, high)
        found = io.BytesIO()
        index = []
        for number in numbers:
            index.append(tuple(self.index[number]._replace(offset=found.tell())))
            found.write(self.raw(number))
        end = found.tell()
        found.write(pickle.dumps(index, 5))
        found.write(_END.pack(end))
        return found.getvalue()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError as error:
        raise _gone(error) from error


def _gone(error: FileNotFoundError) -> JobError:
    return JobError(
        f"a file of groups is not there: {error.filename}. The result it belongs to has been closed or is no longer "
        f"used, which a copy in another process does not prevent; or its directory has been removed; or this is "
        f"another machine. Run the job again, and keep its result open for as long as it is read."
    )


def _place(entry: Entry) -> Place:
    return place(entry.first)


def written(file: IO[bytes], path: str | None, groups: Mapping[Identity, Any], names: Mapping[Identity, Any]) -> Run:
    """The run of these groups."""
    writer = Writer(file, path)
    for keys in in_order(groups):
        writer.write(keys, list(map(groups.__getitem__, keys)), names)
    return writer.done()


def _packed(keys: Sequence[Identity], values: Sequence[Any], names: Mapping[Identity, Any]) -> bytes:
    # Exact types only: marshal takes some others for what they are not, and is wrong about them without a word.
    if PLAIN_KEYS.issuperset(map(type, keys)):
        if PLAIN_VALUES.issuperset(map(type, values)):
            return marshal.dumps((list(keys), list(values)), 2)
        return marshal.dumps((list(keys), _pickled(values)), 2)
    found = {key: names[key] for key in keys if key in names}
    return _pickled((keys, values, found))


def _unpacked(data: bytes, rank: int) -> Block:
    if data[:1] == b"\x80":
        return Block(rank, *_restored(data))
    keys, values = marshal.loads(data)
    return Block(rank, keys, _restored(values) if type(values) is bytes else values, {})


def _pickled(values: Any) -> bytes:
    # By `shipping`, for the sake of values that are of a class of the user's main module, which a worker does not run.
    from mapreduce.executors.shipping import packed

    try:
        return packed(values, "a group")
    except TaskError as error:
        raise TaskError(
            f"groups past the memory of the job cannot be written to disk: {error.__cause__}. Nothing was stored. Use "
            f"plain data or objects of importable classes, or give the job more memory=."
        ) from error


def _restored(data: bytes) -> Any:
    from mapreduce.executors.shipping import unpacked

    return unpacked(data, "a group on disk")
