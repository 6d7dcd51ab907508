"""What a document contributes to a view: rows with their positions, or an error.

    position = ordered.encode(key) + document key + 00 + ordinal in four bytes

Positions sort by map key, then document, then the order of yielding; none is the
beginning of another. The same bytes are noted for the document, so that an update
can take its rows out again.

Keys and values have to be JSON, since they are read by other programs; what JSON
would change is refused. A document that fails, in the map function or by what it
yields, has no rows and an error, and the view goes on.

Pure: no input or output.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, NamedTuple, TypeAlias

from mapreduce.ordered import encode
from mapreduce.views.nodes import Item
from vstore.errors import StoreError

KEY_BYTES = 4 * 1024
"""The longest encoded key of a row: some of them are in every node."""

TRACE_CHARACTERS = 2_000

MapFunction: TypeAlias = Callable[[Any, Any], Iterable[tuple[Any, Any]]]

_FIRST = b"\x00\x00\x00\x00\x00"
_LAST = -5  # where the document's key ends in a position


class ViewError(NamedTuple):
    """Why a document has no rows in a view: its key, what was raised, and where."""

    id: str
    error: str
    traceback: str


class Refused(StoreError):
    """A map function yielded what a view cannot keep."""


def rows_of(map: MapFunction, key: str, value: Any) -> list[Item]:
    """The rows of a document, in the order yielded. Raises whatever the map function raises, or Refused."""
    document = key.encode()
    found: list[Item] = []
    for ordinal, pair in enumerate(map(key, value)):
        try:
            row_key, row_value = pair
        except (TypeError, ValueError):
            raise Refused(f"the map function yielded {pair!r}, which is no (key, value) pair") from None
        position = encode(row_key)
        cut = len(position)
        if cut > KEY_BYTES:
            raise Refused(f"the map function yielded a key of {cut:,} bytes; at most {KEY_BYTES:,} fit into a view")
        if type(row_key) is not int or not -(2**63) <= row_key < 2**63:
            _require_plain(row_key)
        if type(row_value) is not int or not -(2**63) <= row_value < 2**63:
            _require_plain(row_value)
        if ordinal:
            position += document + b"\x00" + ordinal.to_bytes(4)
        else:
            position += document + _FIRST
        found.append((position, cut, row_key, row_value))
    return found


def error_of(key: str, error: Exception) -> Item:
    """The entry of a document that failed."""
    if isinstance(error, StoreError):  # says what it has to say
        return key.encode(), 0, str(error), ""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("mapreduce.views."):
        place = place.tb_next  # the user's own part is what tells
    text = "".join(traceback.format_exception(error.with_traceback(place))).encode("utf-8", "replace").decode()
    said = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    return key.encode(), 0, said[:TRACE_CHARACTERS], text[-TRACE_CHARACTERS:]


def source_of(key: str, rows: list[Item]) -> Item:
    """The entry that says which rows a document has."""
    return key.encode(), 0, None, [row[0] for row in rows]


def document_of(position: bytes, cut: int) -> str:
    """The key of the document that a row is of."""
    return position[cut:_LAST].decode()


def _require_plain(value: Any) -> None:
    """Accepts what JSON keeps, tuples as arrays.

    Raises:
        Refused: it would be changed or lost.
    """
    kind = type(value)
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Refused(f"the map function yielded {value!r}, which has a lone surrogate") from None
    elif kind is float:
        if not isfinite(value):
            raise Refused(f"the map function yielded {value!r}, which JSON cannot say")
    elif kind is int:
        if not -(2**63) <= value < 2**64:
            raise Refused(f"the map function yielded an integer of {value.bit_length()} bits; a view keeps 64")
    elif kind is list or kind is tuple:
        for each in value:
            _require_plain(each)
    elif kind is dict:
        for name, each in value.items():
            if type(name) is not str:
                raise Refused(f"the map function yielded an object with the name {name!r}, which is no string")
            _require_plain(name)
            _require_plain(each)
    elif value is not None and kind is not bool:
        raise Refused(
            f"the map function yielded {value!r} of type {kind.__name__}; keys and values of a view are JSON: None, "
            f"bool, int, float, str, list, tuple, dict"
        )
