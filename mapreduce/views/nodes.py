"""Nodes: the entries of a view's trees as blobs, and reading and writing them.

    leaf    [0, positions, cuts, keys, values]                a row each
    inner   [level, firsts, cuts, numbers, counts, partials]  a node below each

A position is what entries are sorted by; its first `cut` bytes are the sort key
of a map key, the rest says whose row it is. An inner node has for each node below
the first position in it, its number, how many rows are under it, and their
partial reduction if there is one.

Blobs are MessagePack, column by column: to decode a hundred rows costs about
10 µs. A partial is a number or text as it is, or the bytes of
`mapreduce.accumulators`; None is none.

A node is never changed. Whoever changes an entry writes new nodes from there up
to the root, under numbers that were not used before, and drops the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from msgspec import Raw, msgpack

from mapreduce.views import tables
from vstore.errors import Corrupt
from vstore.sql.database import Connection
from vstore.sql.statements import chunks

LEAF_ROWS = 128
FANOUT = 128
NODE_BYTES = 64 * 1024
"""A node has at most so many entries, and at most so many bytes unless it has one entry only."""

WRITE_BYTES = 4 * 1024 * 1024

Item: TypeAlias = tuple[Any, ...]
"""(position, cut, key, value): a row of a leaf."""

Columns: TypeAlias = list[list[Any]]
"""The columns of a node, in the order of the module's picture."""

_pack = msgpack.Encoder().encode
_unpack = msgpack.Decoder().decode
_apart = msgpack.Decoder(list[Raw]).decode
_raw = msgpack.Decoder(list[Raw]).decode


@dataclass(frozen=True, slots=True)
class Root:
    """Where a tree begins, and how many rows it has. Node 0 is the empty tree."""

    node: int = 0
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> Root:
        """From a column."""
        node, count = text.split()
        return cls(int(node), int(count))

    def __str__(self) -> str:
        return f"{self.node} {self.count}"


def packed(level: int, columns: Sequence[Sequence[Any]]) -> bytes:
    """A node as bytes."""
    return _pack((level, *columns))


def unpacked(data: bytes) -> tuple[int, Columns]:
    """The level and the columns of a node."""
    level, *columns = _unpack(data)
    return level, columns


def opened(data: bytes, *, values: bool) -> tuple[int, Columns]:
    """The same for one who only passes on what is in a leaf: keys stay packed, and values too unless they are wanted.

    Half the time of `unpacked` for most leaves.
    """
    head, *rest = _apart(data)
    level = _unpack(head)
    if level:
        return level, [_unpack(column) for column in rest]
    positions, cuts, keys, kept = rest
    return 0, [_unpack(positions), _unpack(cuts), _raw(keys), _unpack(kept) if values else _raw(kept)]


def plain(value: Any) -> Any:
    """A key or value that may be packed still, as it is."""
    return _unpack(value) if type(value) is Raw else value


class Nodes:
    """The nodes of one build, over a connection. What is added is written by `flush`, and by itself if it gets much."""

    def __init__(self, connection: Connection, build: int, last: int = 0, *, patient: bool = False) -> None:
        """With the n of the last node that was given out. A patient one writes when it is told to and not before."""
        self._connection = connection
        self._base = build << tables.NODE_BITS
        self._patient = patient
        self.last = last
        self._added: dict[int, bytes] = {}
        self._added_bytes = 0
        self._dropped: list[int] = []

    def load(self, numbers: Sequence[int]) -> list[bytes]:
        """The blobs of nodes, in the order asked for.

        Raises:
            Corrupt: one is missing.
        """
        found = {number: self._added[number] for number in numbers if number in self._added}
        missing = [number for number in numbers if number not in found]
        for chunk in chunks([self._base + number for number in missing]):
            for id_, data in self._connection.rows(tables.NODES(len(chunk)), chunk):
                found[id_ - self._base] = bytes(data)
        try:
            return [found[number] for number in numbers]
        except KeyError as error:
            raise Corrupt(
                f"node {error} of a view is missing. Nothing was changed. rebuild() makes the view anew from its "
                f"documents."
            ) from None

    def add(self, data: bytes) -> int:
        """A new node; its number."""
        self.last += 1
        self._added[self.last] = data
        self._added_bytes += len(data)
        if self._added_bytes > WRITE_BYTES and not self._patient:
            self.flush(self._connection)
        return self.last

    def drop(self, numbers: Iterable[int]) -> None:
        """Nodes that nothing refers to any more."""
        for number in numbers:
            if number in self._added:  # made and replaced in one transaction
                self._added_bytes -= len(self._added.pop(number))
            else:
                self._dropped.append(self._base + number)

    @property
    def waiting_bytes(self) -> int:
        """How much waits to be written."""
        return self._added_bytes

    def flush(self, connection: Connection) -> None:
        """Writes what was added and deletes what was dropped. A patient one keeps it, for when this is rolled back."""
        connection.run_many(tables.ADD_NODE, [(self._base + number, data) for number, data in self._added.items()])
        for chunk in chunks(self._dropped):
            connection.run(tables.DROP_NODES(len(chunk)), chunk)
        if not self._patient:
            self.settle()

    def settle(self) -> None:
        """Forgets what was written: it is committed."""
        self._added, self._added_bytes, self._dropped = {}, 0, []
