"""How far a job is, for a terminal and for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TextIO, TypeAlias

from vstore.errors import ConfigurationError

ONCE_PER_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """How far the reading is; what follows it, merging and reducing, is usually short."""

    documents: int
    estimate: int | None  # about how many there are; None if only reading them tells
    splits_done: int
    splits: int | None
    seconds: float

    @property
    def rate(self) -> float:
        """Documents per second, so far."""
        return self.documents / self.seconds if self.seconds else 0.0

    @property
    def remaining_seconds(self) -> float | None:
        """About how long the rest will take, if it goes on like this; None if nothing tells."""
        if self.splits is not None and self.splits_done == self.splits:
            return 0.0
        if not self.estimate or not self.rate:
            return None
        return max(0, self.estimate - self.documents) / self.rate

    def __str__(self) -> str:
        of = f" of about {self.estimate:,}" if self.estimate else ""
        text = f"{self.documents:,}{of} documents, {self.rate:,.0f}/s"
        remaining = self.remaining_seconds
        return text if not remaining else f"{text}, {duration(remaining)} left"


ProgressFunction: TypeAlias = Callable[[Progress], object]


def duration(seconds: float) -> str:
    """A time span for people: 0:07, 12:34, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Teller:
    """Counts what is done, and tells at the end of each split and ten times a second in between."""

    def __init__(
        self,
        told: bool | ProgressFunction | None,
        estimate: int | None,
        splits: int | None,
        stream: TextIO | None = None,
    ) -> None:
        """For `progress=`: True prints a line on stderr, if that is a terminal; a function gets `Progress` values.

        Raises:
            ConfigurationError: it is neither.
        """
        if told is not None and not isinstance(told, bool) and not callable(told):
            raise ConfigurationError(f"progress= is {told!r}; pass True or a function of a Progress. Nothing was run.")
        self._line: _Line | None = None
        self._tell: ProgressFunction | None = None if isinstance(told, bool) else told
        if told is True:
            stream = stream or sys.stderr
            if stream is not None and stream.isatty():
                self._line = _Line(stream)
                self._tell = self._line.show
        self._estimate = estimate
        self._splits = splits
        self._started = perf_counter()
        self._last = 0.0
        self._documents = 0
        self._ahead = 0  # of the split that is being read in this process
        self._done = 0

    def read(self, documents: int) -> None:
        """So many more documents of a split in this process."""
        self._ahead += documents
        if self._tell and perf_counter() - self._last >= ONCE_PER_SECONDS:
            self._say(self._documents + self._ahead)

    def split(self, documents: int, splits: int = 1) -> None:
        """A split is done, or several at once."""
        self._documents += documents
        self._ahead = 0
        self._done += splits
        if self._tell and (self._line is None or perf_counter() - self._last >= ONCE_PER_SECONDS):
            self._say(self._documents)

    def end(self, done: bool) -> None:
        """No more will come: everything is read, or the job has failed."""
        if done:
            self._splits = self._done
            if self._tell:
                self._say(self._documents)
        if self._line:
            self._line.end()

    def _say(self, documents: int) -> None:
        assert self._tell is not None
        self._last = perf_counter()
        self._tell(Progress(documents, self._estimate, self._done, self._splits, self._last - self._started))


class _Line:
    """One line of a terminal, written over again and again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = 0

    def show(self, progress: Progress) -> None:
        text = str(progress)
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def end(self) -> None:
        if self._width:
            self._stream.write("\n")
            self._stream.flush()
