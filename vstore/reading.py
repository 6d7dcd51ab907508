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
    """A part of each document, decoded instead of the whole: both methods give the same value for the same document.

    A shape may also have `decode_list(data)`, which gives the values of a JSON
    array of bodies: with it a whole page is decoded at once, in half the time.
    """

    def decode(self, data: bytes) -> Any:
        """The value to hand on, from the JSON text of a body."""

    def convert(self, value: Any) -> Any:
        """The same from a value that some other codec has decoded."""


@dataclass
class Reading:
    """One reading of one part of a source, by one reader.

    `holding` is a hint: a conjunction of alternatives. A body in plain JSON
    which for one of them holds none of its byte strings may be left out. With
    `versions` the values are `vstore.Document`s, with rev, stamp and siblings.
    `undecodable` is told (key, rev, error) of a body that cannot be decoded, and
    the document is left out; without it the error is raised, a CodecError that
    names both.

    The source counts `conflicts`, documents with several live siblings that
    differ, and `body_bytes`, what it has read of bodies as they are stored.
    """

    on_conflict: OnConflict = "winner"
    shape: Shape | None = None
    holding: tuple[tuple[bytes, ...], ...] = ()
    versions: bool = False
    undecodable: Callable[[str, str, Exception], None] | None = None
    conflicts: int = 0
    body_bytes: int = 0
