"""An exception on its way out of a worker.

Exceptions often cannot be pickled, or only seem so and fail when they are read.
So the exception and its cause travel apart, each as far as it can, and the
text of the traceback always does.
"""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass

from mapreduce.errors import TaskError
from mapreduce.executors.shipping import packed, unpacked


@dataclass(frozen=True)
class Failure:
    """What a worker raised, in a form that can always be sent."""

    error: bytes | None
    cause: bytes | None
    summary: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure of the exception that is being handled in this worker."""
        text = "".join(traceback.format_exception(error))
        return cls(
            error=_attempt(error),
            cause=_attempt(error.__cause__) if error.__cause__ else None,
            summary=f"{type(error).__name__}: {error}",
            traceback=f"Worker process {os.getpid()}:\n{text}",
        )

    def exception(self) -> BaseException:
        """The exception to raise here: the worker's own, or a `TaskError` with its text."""
        error = _restored(self.error)
        if error is None:
            error = TaskError(f"a worker raised an exception that cannot be pickled: {self.summary}")
        error.__cause__ = _restored(self.cause)
        error.add_note(self.traceback)
        return error


def _attempt(error: BaseException) -> bytes | None:
    try:
        return packed(error, "an exception")
    except TaskError:
        return None


def _restored(data: bytes | None) -> BaseException | None:
    try:
        error = unpacked(data, "an exception") if data else None
    except TaskError:
        return None
    return error if isinstance(error, BaseException) else None
