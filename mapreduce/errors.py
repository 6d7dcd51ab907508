"""Every error a job raises on purpose, one class per situation.

    StoreError
    ├─ InvalidExpression   a text is no expression of the query language (also a ValueError)
    ├─ NotOneRow       a query was to have exactly one row, and has none or more (also a LookupError)
    └─ JobError        the job did not finish; nothing was stored, so it can simply be run again
       ├─ MapError     the map function, or the reducer's `add`, failed on one document; carries its key
       ├─ ReduceError  merging or reducing one group failed; carries the group's key
       ├─ TaskError    a function, a split or a result cannot travel between processes
       ├─ WorkerLost   one split has ended several workers: it is given up as poison
       ├─ StartError   worker processes did not come up
       └─ DeadlineExceeded   the job was not done in the time it was given

An error of the source, such as `Unavailable` or `Conflict`, arrives unchanged.
"""

from __future__ import annotations

from typing import Any

from vstore.errors import StoreError


class InvalidExpression(StoreError, ValueError):
    """A text cannot be read as an expression. Nothing was run.

    The message shows the place. `position` is its offset in `text`, in
    characters.
    """

    def __init__(self, message: str, text: str = "", position: int = 0) -> None:
        super().__init__(message)
        self.text = text
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.text, self.position)


class NotOneRow(StoreError, LookupError):
    """`one()` of a query that has no row, or several. Nothing was changed."""


class JobError(StoreError):
    """The job did not finish. Nothing was stored."""


class MapError(JobError):
    """A user function failed on the document `key`, or the document could not be decoded.

    `rev` is its version, where the source knows it. `traceback` is the text of
    the original traceback, from whichever process it happened in. `__cause__`
    is the original exception; it is None if that exception could not be pickled
    in a worker.
    """

    def __init__(self, message: str, key: Any = None, traceback: str = "", rev: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.traceback = traceback
        self.rev = rev

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.key, self.traceback, self.rev)


class ReduceError(JobError):
    """A reducer's `merge` or `finish`, or the reduce function, failed on the group `key`; the cause is chained."""

    def __init__(self, message: str, key: Any = None) -> None:
        super().__init__(message)
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.key)


class TaskError(JobError):
    """Something could not be pickled on one side of a process border, or not read on the other."""


class WorkerLost(JobError):
    """The same split has ended several workers, so it was not tried again."""


class StartError(JobError):
    """Worker processes could not be started, or did not report in time. No map function has been called."""


class DeadlineExceeded(JobError):
    """The deadline passed before the job was done; its workers have been ended."""
