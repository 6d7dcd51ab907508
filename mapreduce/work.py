"""What is to be done with documents: the seam between the engine and those who define work.

A `Job` is work; so is the aggregate of a query. The engine asks it how documents
are read, for a folder to put them in, and what a group finally shows.

    slice ── reading ──► documents ── folder.take ──► groups ─► merge ─► finish

Work is a value: it travels to the workers once and has no state of its own.

Pure: no input or output.
"""

from __future__ import annotations

from typing import Any, Protocol

from mapreduce.reducers import Groups, Identify, Reducer
from mapreduce.splits import Document
from vstore.reading import Reading


class DocumentFolder(Protocol):
    """The groups of some documents while they are made."""

    def take(self, documents: list[Document], /) -> int:
        """Fold in what these documents yield, and say how many pairs it was. May be called many times.

        Whatever goes wrong is raised as it is; the engine then finds out which
        document it was, and no longer uses this folder.
        """

    @property
    def groups(self) -> Groups:
        """Accumulators by identity of key."""

    def __len__(self) -> int:
        """How many distinct keys so far."""


class Work(Protocol):
    """What the engine runs. Picklable, by `shipping` if not plainly; its functions are pure."""

    @property
    def reducer(self) -> Reducer:
        """How accumulators of one key from several splits are joined."""

    def reading(self) -> Reading:
        """How a slice is to be read; a fresh one each time, since the slice counts in it."""

    def folder(self, identify: Identify, /) -> DocumentFolder:
        """An empty folder. Keys that are neither str nor int have to go through `identify`."""

    def finish(self, key: Any, acc: Any, /) -> Any:
        """What the reader of the result sees of a group. Does not change `acc`."""
