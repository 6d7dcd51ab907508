"""Sources and an executor for tests of the engine."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from time import monotonic
from typing import Any

from mapreduce.executors import Kept, Outcome, Using
from mapreduce.executors.shipping import Home, living_in, packed, packed_function, unpacked, unpacked_function
from mapreduce.splits import Batch, Document, Slice
from vstore.reading import Reading


@dataclass
class Parts:
    """A source that is cut as it says."""

    parts: Sequence[Slice]

    def slices(self, count: int) -> Sequence[Slice]:
        return self.parts

    def len_estimate(self) -> int:
        return 0


def parts_of(documents: Sequence[Document], edges: Iterable[int]) -> Parts:
    """The documents, cut at these places."""
    places = [0, *sorted(min(edge, len(documents)) for edge in edges), len(documents)]
    return Parts([Batch(list(documents[start:end])) for start, end in pairwise(places)])


@dataclass(frozen=True)
class Numbers:
    """A slice of documents (n, n) that are made as they are read, in batches of ten."""

    start: int
    end: int

    def batches(self, reading: Reading) -> Iterator[list[Document]]:
        for first in range(self.start, self.end, 10):
            yield [(n, n) for n in range(first, min(first + 10, self.end))]

    def rev_of(self, key: int) -> str:
        return f"1-{key}"

    def __str__(self) -> str:
        return f"numbers from {self.start}"


def numbers(count: int, each: int) -> Parts:
    """The documents (0, 0) to (count - 1, count - 1), `each` in a slice."""
    return Parts([Numbers(start, min(count, start + each)) for start in range(0, count, each)])


@dataclass
class Apart:
    """An executor as far away as can be in one process: everything travels, and no file is common.

    Data that is kept is pickled bytes by number, as in a worker. `fetched` says how much came back.
    """

    workers: int = 2
    backwards: bool = True  # outcomes come in the reverse order of each dozen
    local: bool = False
    held: dict[int, bytes] = field(default_factory=dict)
    fetched: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    numbers: Any = field(default_factory=count)

    def run(
        self, work: Callable[..., Any], tasks: Iterable[Any], *, keep: bool = False, deadline: float | None = None
    ) -> Generator[Outcome, None, None]:
        shipped = packed_function(work)
        waiting: list[Outcome] = []
        for number, task in enumerate(tasks):
            assert deadline is None or monotonic() < deadline
            with living_in(Home()):
                function = unpacked_function(shipped)
                if isinstance(task, Using):
                    data = [self._used(kept) for kept in task.kept]
                    result = function(self._sent(task.task), data)
                else:
                    result = function(self._sent(task))
                answer = packed(result[0] if keep else result, "a result")
            if keep:
                place = next(self.numbers)
                self.held[place] = pickle.dumps(result[1])
                waiting.append(Outcome(number, (unpacked(answer, "a result"), Kept(place))))
            else:
                waiting.append(Outcome(number, unpacked(answer, "a result")))
            if len(waiting) == 12:
                yield from reversed(waiting) if self.backwards else waiting
                waiting = []
        yield from reversed(waiting) if self.backwards else waiting

    def fetch(self, kept: Kept) -> Any:
        self.fetched.append(len(self.held[kept.held]))
        return self._used(kept)

    def _sent(self, task: Any) -> Any:
        data = packed(task, "a task")
        self.sent.append(len(data))
        return unpacked(data, "a task")

    def _used(self, kept: Kept) -> Any:
        data = pickle.loads(self.held[kept.held])
        return data if kept.index is None else data[kept.index]
