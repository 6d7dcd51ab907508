"""Data on stdout: one JSON value on each line, or columns for people.

Everything goes out as UTF-8 bytes, whatever the locale says, and is flushed line
by line only for a reader who is waiting. Text for people never has control
characters that came from a document.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click
import orjson

from vstore.document import Document
from vstore.hlc import iso


def out(data: bytes) -> None:
    """Writes bytes to stdout."""
    sys.stdout.buffer.write(data)


def line(value: Any) -> None:
    """A value as one line of JSON."""
    out(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))


def text(words: str) -> None:
    """A line for people."""
    out(f"{words}\n".encode())


def flush() -> None:
    """Lets a reader see what has been written."""
    sys.stdout.flush()


def plain(value: str) -> str:
    """A key or name as people read it; as JSON text if it has characters that would act on a terminal."""
    return value if value.isprintable() else orjson.dumps(value).decode()


def short(value: Any, width: int = 60) -> str:
    """The beginning of a value as JSON."""
    whole = orjson.dumps(value).decode()
    return whole if len(whole) <= width else f"{whole[: width - 1]}…"


def counted(number: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under their names: numbers to the right, text to the left."""
    rows = list(rows)
    cells = [[f"{cell:,}" if isinstance(cell, int) else plain(str(cell)) for cell in row] for row in rows]
    right = [any(isinstance(row[column], int) for row in rows) for column in range(len(names))]
    widths = [max(len(row[column]) for row in ([*names], *cells)) for column in range(len(names))]
    for row in ([*names], *cells):
        columns = zip(row, widths, right, strict=True)
        text("  ".join(cell.rjust(width) if to else cell.ljust(width) for cell, width, to in columns).rstrip())


def version(document: Document) -> dict[str, Any]:
    """All that is known of a version, for JSON. `stamp` is microseconds since 1970 UTC, `time` the same for people."""
    return {
        "key": document.key,
        "rev": document.rev,
        "time": iso(document.stamp),
        "stamp": document.stamp,
        "parents": document.parents,
        "deleted": document.deleted,
        "value": document.value,
    }


def written(document: Document) -> None:
    """What a command that wrote a document says: its rev now, and how many siblings it has."""
    line({"key": document.key, "rev": document.rev, "deleted": document.deleted, "siblings": len(document.siblings)})


class Talk:
    """How far a command is, on stderr: one line that is written over if that is a terminal."""

    def __init__(self, pause_seconds: float = 0.0) -> None:
        """`pause_seconds` is the least time between two lines where it is no terminal; 0 for none at all."""
        self.terminal = sys.stderr.isatty()
        self._pause_seconds = 0.1 if self.terminal else pause_seconds
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for another line. True once for each."""
        now = time.monotonic()
        if not self._pause_seconds or now - self._last < self._pause_seconds:
            return False
        self._last = now
        return True

    def now(self, words: str) -> None:
        """Says how far it is, if it is time to."""
        if self.due:
            click.echo(f"\r\x1b[K{words}" if self.terminal else words, nl=not self.terminal, err=True)

    def end(self) -> None:
        """Leaves an empty line for what comes next."""
        if self.terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
