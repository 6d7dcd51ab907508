"""What a reader of whole collections may choose, and what it learns about the reading.

A source of documents hands out lists of (key, value). Which of several siblings
is meant, how much of a body is decoded, and what happens to a body that cannot
be decoded are the reader's decisions; it states them once, in a `Reading`, and
the source counts in it as it goes.

Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

OnConflict = Literal["raise", "winner", "skip"]


class Shape(Protocol):
    """A part of each document, decoded instead of the whole: both methods give the same value for the same document."""

    def decode(self, data: bytes) -> Any:
        """The value to hand on, from the JSON text of a body."""

    def convert(self, value: Any) -> Any:
        """The same from a value that some other codec has decoded."""


@dataclass
class Reading:
    """One reading of one part of a source, by one reader.

    `holding` is a hint: a conjunction of alternatives. A body in plain JSON
    which for one of them holds none of its byte strings may be left out. With
    `versions` the values are `vstore.Document`s, with rev and stamp.
    `undecodable` is told (key, rev, error) of a body that cannot be decoded, and
    the document is left out; without it the error is raised.

    The source counts `conflicts`, documents with several live siblings, and
    `body_bytes`.
    """

    on_conflict: OnConflict = "winner"
    shape: Shape | None = None
    holding: tuple[tuple[bytes, ...], ...] = ()
    versions: bool = False
    undecodable: Callable[[str, str, Exception], None] | None = None
    conflicts: int = 0
    body_bytes: int = 0
