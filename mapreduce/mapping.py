"""The map phase in a worker: one split becomes groups, or sorted runs where they are many.

    slice ─► batches ─► folder.take ─┬─► few groups, sent as they are
                                     └─► past `memory`: a sorted run, and a fresh folder goes on

The documents of a batch are the folder's affair, without a call of ours for
each. Only when a batch fails are its documents looked at one by one, to name the
one at fault; the functions of a job are pure, so it fails again. A job that
leaves such documents out folds each batch by itself first: what is in the groups
by then stays as it is, and of a failing document not one pair gets there.
"""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any

from mapreduce.errors import DeadlineExceeded, JobError, MapError
from mapreduce.garbage import seldom_collected
from mapreduce.partial import SKIPPED_LISTED, Partial, Skipped, join
from mapreduce.reducers import Groups
from mapreduce.runs import Run, written
from mapreduce.sizes import groups_bytes, resident_bytes
from mapreduce.spills import SpillDirectory
from mapreduce.splits import Document, Slice
from mapreduce.work import DocumentFolder, Work

SENT_GROUPS = 20_000  # more than these are cheaper sorted and merged by the workers than sent and merged by one process
SENT_BYTES = 8 * 1024 * 1024
PAIRS_TAKEN = 50_000  # between two looks at the memory, about
FIRST_TAKEN = 64  # documents, before it is known how many pairs each has

Told = Callable[[int], None]


@dataclass
class MapSplit:
    """The function that workers run for each split; a picklable value.

    With `keep`, what would be in files is in bytes: it returns (partial, list of
    runs' contents), and the runs in the partial are without theirs.
    """

    work: Work
    memory: int
    skipping: bool = False
    sent_groups: int | None = SENT_GROUPS  # None: they are not sent anywhere
    spills: SpillDirectory = field(default_factory=SpillDirectory)
    keep: bool = False
    deadline: float | None = None  # of time.monotonic(), which the processes of a machine share
    told: Told | None = None  # how many documents came, for progress in this process

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "told": None}

    def __call__(self, part: Slice) -> Any:
        """The partial of a split.

        Raises:
            MapError: a document could not be decoded, or a function failed on
                it; the original exception is the cause.
            DeadlineExceeded: the time is up.

        An error of the source itself passes through unchanged.
        """
        with seldom_collected():
            result = _Mapping(self, part).result()
        if not self.keep:
            return result
        contents = [run.content for run in result.runs]
        for run in result.runs:
            run.content = None
        return result, contents


class _Mapping:
    """One split on its way."""

    def __init__(self, task: MapSplit, part: Slice) -> None:
        self._task = task
        self._part = part
        self._result = Partial()
        self._folder = self._fresh()
        self._gauge = _Gauge(task.memory)

    def result(self) -> Partial:
        started = perf_counter()
        task, counted = self._task, self._result.counted
        reading = task.work.reading()
        reading.undecodable = self._undecodable
        batches = self._part.batches(reading)
        try:
            for batch in batches:
                counted.documents += len(batch)
                self._take(batch)
                if task.told is not None:
                    task.told(len(batch))
                if task.deadline is not None and monotonic() >= task.deadline:
                    raise DeadlineExceeded(
                        "the deadline of the job passed. Nothing was stored. Allow more time, or more workers."
                    )
        finally:
            if isinstance(batches, Generator):
                batches.close()  # at once and not with the garbage: it may hold a connection
        counted.bytes, counted.conflicts = reading.body_bytes, reading.conflicts
        self._finish()
        self._result.seconds = perf_counter() - started
        return self._result

    def _take(self, batch: list[Document]) -> None:
        step, start = self._gauge.step(len(batch)), 0
        while start < len(batch):
            documents = batch[start : start + step] if start or step < len(batch) else batch
            start += step
            pairs = self._taken(documents)
            self._result.counted.pairs += pairs
            self._gauge.note(pairs, len(documents))
            step = self._gauge.step(len(batch))
            if self._gauge.full(self._folder):
                self._spill(self._folder.groups)
                self._folder = self._fresh()
                self._gauge.emptied()

    def _taken(self, documents: list[Document]) -> int:
        if self._task.skipping:
            return self._folder.take(documents)  # which says itself what is wrong
        try:
            return self._folder.take(documents)
        except Exception as error:
            raise self._fault(documents, error) from error

    def _fresh(self) -> DocumentFolder:
        if self._task.skipping:
            return _Skipping(self._task.work, self._result, self._skip)
        return self._task.work.folder(self._result.identify)

    def _finish(self) -> None:
        result, task = self._result, self._task
        groups = self._folder.groups
        few = task.sent_groups is None or (len(groups) <= task.sent_groups and groups_bytes(groups) <= SENT_BYTES)
        if few and not result.runs:
            result.groups = groups
        elif groups:
            self._spill(groups)

    def _spill(self, groups: Groups) -> None:
        self._result.runs.append(spilled(groups, self._result.names, None if self._task.keep else self._task.spills))
        self._result.counted.spills += 1
        self._result.groups, self._result.names = {}, {}

    def _fault(self, documents: list[Document], error: Exception) -> MapError:
        document = first_failing(self._task.work, documents, error)
        if document is not None:
            return self._map_error(document[0], error, f"the job failed on document {document[0]!r}")
        between = f"{documents[0][0]!r} to {documents[-1][0]!r}"
        return MapError(
            f"the job failed on one of the {len(documents)} documents from {between}: {_text(error)}. Tried again one "
            f"after the other, none failed in this way: a function is not pure (it must not change its documents "
            f"either), or the reducer cannot add what came before to what came now. Nothing was stored; the original "
            f"traceback is in .traceback.",
            traceback=_trace(error),
        )

    def _undecodable(self, key: Any, rev: str, error: Exception) -> None:
        if self._task.skipping:
            self._result.counted.documents += 1
            self._result.counted.skip(Skipped(key, rev or None, _text(error), _trace(error)))
            return
        raise self._map_error(key, error, f"document {key!r} cannot be decoded", rev) from error

    def _skip(self, document: Document, error: Exception) -> None:
        counted = self._result.counted
        rev = self._rev(document[0]) if counted.skipped < SKIPPED_LISTED else None
        counted.skip(Skipped(document[0], rev, _text(error), _trace(error)))

    def _map_error(self, key: Any, error: Exception, what: str, rev: str | None = None) -> MapError:
        rev = rev or self._rev(key)
        version = f", rev {rev}" if rev else ""
        return MapError(
            f"{what}{version}: {_text(error).rstrip('.')}. Nothing was stored; the original traceback is in "
            f".traceback. on_error='skip' leaves such documents out.",
            key=key,
            traceback=_trace(error),
            rev=rev,
        )

    def _rev(self, key: Any) -> str | None:
        rev_of = getattr(self._part, "rev_of", None)
        if rev_of is None:
            return None
        with suppress(Exception):  # it only adds to a message, and the source may be what has failed
            return rev_of(key)  # type: ignore[no-any-return]
        return None


class _Skipping:
    """A folder that leaves out documents on which a function fails, with all of their pairs."""

    def __init__(self, work: Work, into: Partial, skip: Callable[[Document, Exception], None]) -> None:
        self._work = work
        self._into = into
        self._skip = skip

    def take(self, documents: list[Document], /) -> int:
        """Fold in the documents that can be; a pair of one that cannot is not in the groups and not counted."""
        aside = Partial()
        folder = self._work.folder(aside.identify)
        try:
            pairs = folder.take(documents)
        except Exception as error:
            if len(documents) == 1:
                self._skip(documents[0], error)
                return 0
            # Half of them at a time, down to the ones at fault: one in a batch costs a dozen tries, not two thousand.
            middle = len(documents) // 2
            return self.take(documents[:middle]) + self.take(documents[middle:])
        join(self._into.groups, self._into.names, folder.groups, aside.names, self._work.reducer)
        return pairs

    @property
    def groups(self) -> Groups:
        return self._into.groups

    def __len__(self) -> int:
        return len(self._into.groups)


def first_failing(work: Work, documents: list[Document], error: Exception) -> Document | None:
    """The first of these documents that a folder cannot take after those before it, if it fails with such an error."""
    folder = work.folder(Partial().identify)
    for document in documents:
        try:
            folder.take([document])
        except Exception as again:
            return document if type(again) is type(error) else None
    return None


def spilled(groups: Groups, names: dict[Any, Any], spills: SpillDirectory | None) -> Run:
    """The sorted run of these groups, in a file, or in bytes if there is no directory.

    Raises:
        JobError: the disk is full or the like.
        TaskError: an accumulator cannot be pickled.
    """
    if spills is None:
        return written(io.BytesIO(), None, groups, names)
    file, path = spills.file()
    try:
        with file:
            return written(file, path, groups, names)
    except OSError as error:
        raise JobError(
            f"a sorted run of {len(groups):,} groups could not be written to {path}: {error}. Nothing was stored, and "
            f"the job's files are removed. Set TMPDIR to a directory with room, or give the job more memory=."
        ) from error


class _Gauge:
    """When the groups of a folder take more memory than they may."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._base = resident_bytes()
        self._alarm = self._base + limit + limit // 2
        self._per_document = PAIRS_TAKEN / FIRST_TAKEN
        self.emptied()

    def emptied(self) -> None:
        """The folder is a fresh one."""
        self._pairs = self._look_at = self._takes = 0
        self._mean = 0.0
        # Freed memory does not all go back to the system at once. What is above the alarm is no reason to spill again
        # before something new has come.
        self._alarm = max(self._alarm, resident_bytes() + self._limit // 4)

    def step(self, documents: int) -> int:
        """How many documents to take at a time."""
        if self._per_document * documents <= PAIRS_TAKEN:
            return documents
        return int(PAIRS_TAKEN // self._per_document) + 1

    def note(self, pairs: int, documents: int) -> None:
        """So many pairs came from so many documents."""
        self._pairs += pairs
        self._takes += 1
        self._per_document = pairs / documents

    def full(self, folder: DocumentFolder) -> bool:
        """Whether it is time to empty the folder."""
        count = len(folder)
        if self._pairs >= self._look_at:
            size = groups_bytes(folder.groups)
            self._mean = size / max(count, 1)
            # Asking for the groups may cost a copy, so it is done as they grow by a part of themselves.
            self._look_at = self._pairs * 2 if size < self._limit // 4 else self._pairs + self._pairs // 4
        if self._mean * count > self._limit:
            return True
        return self._takes % 8 == 0 and resident_bytes() > self._alarm


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
