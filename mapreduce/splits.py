"""Splits: the pieces of the input that workers take one at a time.

A source of documents cuts itself into slices. A slice is a small picklable
description, and whoever reads it opens its own connection; so the documents
never pass through the process that started the job.

    source ── slices(8) ──► slice ─► worker ─► documents(...)
                            slice ─► worker ─► documents(...)

An iterable of (key, value) pairs, or a mapping, has nothing to open elsewhere:
it is cut into batches, which are slices that carry their documents along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

from vstore.errors import ConfigurationError

Document: TypeAlias = tuple[Any, Any]

SPLIT_DOCUMENTS = 20_000  # beyond it a longer split saves nothing, and a lost worker or an uneven end costs more
BATCH_DOCUMENTS = 1_000  # about 0.5 MB of ordinary documents through a pipe
SPLITS_PER_WORKER = 4  # so that workers that are done early find more to do


class Slice(Protocol):
    """One part of a source at one exact moment.

    Picklable, and small unless it carries the documents itself. Reading it again
    gives the same documents in the same order, in any process and however much
    was written meanwhile: a worker that dies is replaced and its slice read once
    more. If its class defines `__str__`, that names it in error messages.
    """

    def documents(self, on_conflict: str) -> Iterator[Document]:
        """The live documents of this part as (key, value), in the order that is cheapest to read.

        Opens what it needs and closes it when the iterator ends or is closed.
        A document with several live siblings: "winner" gives the deterministic
        winner's value, "skip" leaves the document out, "raise" raises `Conflict`.
        """


@runtime_checkable
class Sliceable(Protocol):
    """A source that can be read in parts, by several processes at once."""

    def slices(self, count: int) -> Sequence[Slice]:
        """About `count` slices of similar size that together hold every document exactly once.

        All describe one moment, whose positions they carry inside, so that all
        workers see one exact snapshot. An empty source may give none.
        """

    def len_estimate(self) -> int:
        """About how many documents there are, cheaply; used to choose how to run and how finely to cut."""


@dataclass(frozen=True)
class Batch:
    """A slice that carries its documents: in a list, or in an iterable that stays in this process and is read once."""

    pairs: Iterable[Document]

    def documents(self, on_conflict: str) -> Iterator[Document]:
        return iter(self.pairs)

    def __str__(self) -> str:
        if not isinstance(self.pairs, list):
            return "the documents given"
        return f"batch of {len(self.pairs)} documents from {self.pairs[0][0]!r} to {self.pairs[-1][0]!r}"


def length_estimate(over: Any) -> int | None:
    """About how many documents `over` has; None if only reading it would tell."""
    if isinstance(over, Sliceable):
        return over.len_estimate()
    return len(over) if isinstance(over, Sized) else None


def cut(over: Any, workers: int) -> Iterator[Slice]:
    """The splits of a job in order, more of them than workers; made as they are taken.

    Raises:
        ConfigurationError: `over` is no source of documents.
    """
    length = length_estimate(over)
    wanted = workers * SPLITS_PER_WORKER if workers > 1 else 1
    if isinstance(over, Sliceable):
        return iter(over.slices(max(wanted, -(-(length or 0) // SPLIT_DOCUMENTS))))
    pairs = _pairs(over)
    if workers == 1:
        return iter((Batch(pairs),))
    size = BATCH_DOCUMENTS if length is None else max(1, min(BATCH_DOCUMENTS, -(-length // wanted)))
    return _batches(pairs, size)


def _batches(pairs: Iterator[Document], size: int) -> Iterator[Slice]:
    while batch := list(islice(pairs, size)):
        yield Batch(batch)


def _pairs(over: Any) -> Iterator[Document]:
    if isinstance(over, Mapping):
        return iter(over.items())
    if isinstance(over, str | bytes) or not isinstance(over, Iterable):
        raise ConfigurationError(
            f"over= cannot be {type(over).__name__}: pass a collection, a snapshot, a mapping of documents or an "
            f"iterable of (key, value) pairs. Nothing was run."
        )
    pairs = iter(over)
    for first in pairs:
        # Bare documents are the usual mistake, and a document of two fields would even unpack like a pair. One look at
        # the first tells; a look at each would slow the scan.
        if not isinstance(first, tuple | list) or len(first) != 2:
            raise ConfigurationError(
                f"over= holds {type(first).__name__} where a (key, value) pair was expected. Nothing was run. For "
                f"documents without keys pass enumerate(documents)."
            )
        return chain((first,), pairs)
    return iter(())
