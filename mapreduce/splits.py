"""Splits: the pieces of the input that workers take one at a time.

A source of documents cuts itself into slices. A slice is a small picklable
description, and whoever reads it opens its own connection; so the documents
never pass through the process that started the job.

    source ── slices(8) ──► slice ─► worker ─► batches(reading)
                            slice ─► worker ─► batches(reading)

An iterable of (key, value) pairs, or a mapping, has nothing to open elsewhere:
it is cut into batches, which are slices that carry their documents along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

from vstore.document import Document as VersionedDocument
from vstore.errors import ConfigurationError
from vstore.reading import Reading

Document: TypeAlias = tuple[Any, Any]

SPLIT_DOCUMENTS = 20_000  # beyond it a longer split saves nothing, and a lost worker or an uneven end costs more
SPLITS = 2_000  # beyond it the splits of a huge source grow instead: each has a description, and may leave a sorted run
BATCH_DOCUMENTS = 1_000  # about 0.5 MB of ordinary documents through a pipe
SPLITS_PER_WORKER = 4  # so that workers that are done early find more to do
READ_DOCUMENTS = 2_000  # of those that are at hand; what other sources hand out at most


class Slice(Protocol):
    """One part of a source at one exact moment.

    Picklable, and small unless it carries the documents itself. Reading it again
    gives the same documents in the same order, in any process and however much
    was written meanwhile: a worker that dies is replaced and its slice read once
    more. If its class defines `__str__`, that names it in error messages.

    It may have a method `rev_of(key) -> str | None` that tells which version of
    a document it has; error messages then say so.
    """

    def batches(self, reading: Reading) -> Iterator[list[Document]]:
        """The documents of this part as (key, value), in lists of at most some thousands, in the cheapest order.

        What the reader wants of them, and what it is told, is in `reading`.
        Opens what it needs and closes it when the iterator ends or is closed.
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

    def batches(self, reading: Reading) -> Iterator[list[Document]]:
        pairs = iter(self.pairs)
        while batch := list(islice(pairs, READ_DOCUMENTS)):
            yield batch if reading.shape is None else list(_shaped(batch, reading))

    def __str__(self) -> str:
        if not isinstance(self.pairs, list):
            return "the documents given"
        if not self.pairs:
            return "no documents"
        return f"batch of {len(self.pairs)} documents from {self.pairs[0][0]!r} to {self.pairs[-1][0]!r}"


def _shaped(batch: list[Document], reading: Reading) -> Iterator[Document]:
    assert reading.shape is not None
    for key, value in batch:
        try:
            yield key, reading.shape.convert(value)
        except Exception as error:
            if reading.undecodable is None:
                raise
            reading.undecodable(key, "", error)


@dataclass(frozen=True)
class Joined:
    """Several slices read as one, in their order."""

    slices: tuple[Slice, ...]

    def batches(self, reading: Reading) -> Iterator[list[Document]]:
        for part in self.slices:
            batches = part.batches(reading)
            try:
                yield from batches
            finally:
                close = getattr(batches, "close", None)
                if close:
                    close()

    def rev_of(self, key: Any) -> str | None:
        """The rev of a document, from the first slice that knows it."""
        for part in self.slices:
            rev_of = getattr(part, "rev_of", None)
            if rev_of and (rev := rev_of(key)) is not None:
                return rev  # type: ignore[no-any-return]
        return None

    def __str__(self) -> str:
        # Only what names itself: a generated repr could show the password of a URL.
        first, last = (str(part) if type(part).__str__ is not object.__str__ else "one" for part in self._ends)
        return f"{len(self.slices)} slices, from {first} to {last}"

    @property
    def _ends(self) -> tuple[Slice, Slice]:
        return self.slices[0], self.slices[-1]


def length_estimate(over: Any) -> int | None:
    """About how many documents `over` has; None if only reading it would tell."""
    if isinstance(over, Sliceable):
        return over.len_estimate()
    if several(over):
        lengths: list[int] = [source.len_estimate() for source in over]
        return sum(lengths)
    return len(over) if isinstance(over, Sized) else None


def several(over: Any) -> bool:
    """Whether `over` is a list or tuple of sources, to be read one after the other."""
    return isinstance(over, list | tuple) and bool(over) and all(isinstance(source, Sliceable) for source in over)


def cut(over: Any, workers: int) -> Sequence[Slice] | Iterator[Slice]:
    """The splits of a job in order, more of them than workers; those of an iterable are made as they are taken.

    Raises:
        ConfigurationError: `over` is no source of documents.
    """
    wanted = workers * SPLITS_PER_WORKER if workers > 1 else 1
    if isinstance(over, Sliceable):
        return _slices(over, over.len_estimate(), wanted)
    if several(over):
        lengths = [source.len_estimate() for source in over]
        whole = max(1, sum(lengths))
        parts = [_slices(source, n, -(-wanted * n // whole)) for source, n in zip(over, lengths, strict=True)]
        return list(chain.from_iterable(parts))
    length = length_estimate(over)
    pairs = _pairs(over)
    if workers == 1:
        return (Batch(pairs),)
    size = BATCH_DOCUMENTS if length is None else max(1, min(BATCH_DOCUMENTS, -(-length // wanted)))
    return _batches(pairs, size)


def _slices(source: Sliceable, length: int, wanted: int) -> Sequence[Slice]:
    return source.slices(max(1, wanted, min(-(-length // SPLIT_DOCUMENTS), SPLITS)))


def _batches(pairs: Iterator[Document], size: int) -> Iterator[Slice]:
    while batch := list(islice(pairs, size)):
        yield Batch(batch)


def _pairs(over: Any) -> Iterator[Document]:
    if isinstance(over, Mapping):
        return iter(over.items())
    if isinstance(over, str | bytes) or not isinstance(over, Iterable):
        raise ConfigurationError(
            f"over= cannot be {type(over).__name__}: pass a collection, a snapshot, a list of them, a mapping of "
            f"documents or an iterable of (key, value) pairs. Nothing was run."
        )
    pairs = iter(over)
    for first in pairs:
        if isinstance(first, VersionedDocument):  # from history(), conflicts() and the like
            return ((document.key, document) for document in chain((first,), pairs))
        # Bare documents are the usual mistake, and a document of two fields would even unpack like a pair. One look at
        # the first tells; a look at each would slow the scan.
        if not isinstance(first, tuple | list) or len(first) != 2:
            instead = (
                "Several sources are passed as a list, with nothing else in it."
                if isinstance(first, Sliceable)
                else "For documents without keys pass enumerate(documents)."
            )
            raise ConfigurationError(
                f"over= holds {type(first).__name__} where a (key, value) pair was expected. Nothing was run. {instead}"
            )
        return chain((first,), pairs)
    return iter(())
