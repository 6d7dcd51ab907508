"""Map keys as bytes that sort as the keys do, for databases and sorted files.

The order is that of `mapreduce.collation`; two keys that are the same there have
equal bytes. No encoding is the beginning of another, so encodings of several
keys can be joined and still compare part by part, each part ascending or, after
`descending`, the other way round.

    null      01
    false     02
    true      03
    number    04, its double (below), and from 2**53 on an exact tail
    string    05, UTF-8 with each 00 written as 00 01, 00 00
    array     06, the elements, 00
    object    07, for each member in the order of names: name as a string, value; 00

A double is its eight bytes, first bit inverted if it is positive, all bits if it
is negative: these compare as the numbers do. From 2**53 on, where doubles leave
out integers, it is the largest double that is not above the number, followed by
the distance to the number: one byte that says in how many bytes, and those. An
integer beyond the range of doubles is an infinity, the number of bytes of its
magnitude in two bytes, and those; all inverted if it is negative.

Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite, isinf, nextafter
from struct import Struct
from struct import error as struct_error
from typing import Any

NULL, FALSE, TRUE = b"\x01", b"\x02", b"\x03"
NUMBER, STRING, ARRAY, OBJECT = b"\x04", b"\x05", b"\x06", b"\x07"
END = b"\x00"  # of an array or object; below every tag, so that a prefix sorts first
STRING_END = b"\x00\x00"
ABOVE = b"\xff"  # above every tag

EXACT = 2**53  # up to here every integer is a double
INTEGER_BYTES = 65_535  # the magnitude of the largest integer that can be a key
DOUBLE = Struct(">d")
INVERTED = bytes(range(255, -1, -1))
CONSTANTS = {NULL: None, FALSE: False, TRUE: True}


def encode(key: Any) -> bytes:
    """The key's bytes; see the module.

    Raises:
        TypeError: something in `key` is no JSON value.
        ValueError: a number in `key` is NaN or infinite, or an integer of more
            than 65,535 bytes.
    """
    # The types of ordinary keys first: this is called for every row of a view.
    kind = type(key)
    if kind is str:
        return _string(key)
    if kind is int or kind is float:
        return _number(key)
    if key is None:
        return NULL
    if isinstance(key, bool):
        return TRUE if key else FALSE
    if isinstance(key, (list, tuple)):
        return b"".join((ARRAY, *map(encode, key), END))
    if isinstance(key, dict):
        if not all(isinstance(name, str) for name in key):
            raise TypeError(f"an object as map key has names that are no strings: {key!r}")
        return b"".join((OBJECT, *(_string(name) + encode(key[name]) for name in sorted(key)), END))
    if isinstance(key, str):
        return _string(key)
    if isinstance(key, (int, float)):
        return _number(key)
    raise TypeError(
        f"a map key cannot be of type {type(key).__name__}: keys are JSON values "
        f"(None, bool, int, float, str, list, tuple, dict); convert it, for example with str()"
    )


def decode(data: bytes) -> Any:
    """A key that is the same as the one encoded.

    Arrays come back as lists and members of objects in the order of their names.
    1 and 1.0 have equal bytes: a number comes back as an int if it is integral
    and below 2**64, or has no exact double; else as a float.

    Raises:
        ValueError: `data` is not the encoding of one key, or nests deeper than
            Python's recursion limit.
    """
    try:
        key, end = _decoded(data, 0)
        if end != len(data):
            raise ValueError(f"it ends at byte {end:,}")
    except (IndexError, ValueError, struct_error, RecursionError) as error:
        shown = f"{data[:40]!r}{' …' if len(data) > 40 else ''}, {len(data):,} bytes,"
        raise ValueError(f"{shown} is no encoded map key: {error}") from error
    return key


def descending(encoded: bytes) -> bytes:
    """The same key or joined keys for an order the other way round. Applied twice, it gives the argument back."""
    return encoded.translate(INVERTED)


def upper(elements: Iterable[Any]) -> bytes:
    """A bound above every array that begins with these elements, and below all that sorts after those arrays.

    With no elements: above all arrays. The bound below them is the encoding of
    the array of these elements itself.

    Raises as `encode` does.
    """
    return b"".join((ARRAY, *map(encode, elements), ABOVE))


def _string(text: str) -> bytes:
    # Lone surrogates, which Python's strings may have and UTF-8 has not, sort by code point like all others.
    data = text.encode("utf-8", "surrogatepass")
    if b"\x00" in data:
        data = data.replace(b"\x00", b"\x00\x01")
    return STRING + data + STRING_END


def _number(number: float) -> bytes:
    if -EXACT < number < EXACT:
        # The double of -x is that of x with its first bit inverted. Adding 0.0 makes 0.0 of -0.0 and a float of an int.
        return NUMBER + (DOUBLE.pack(-(number + 0.0)) if number >= 0 else DOUBLE.pack(number).translate(INVERTED))
    if isinstance(number, float) and not isfinite(number):
        raise ValueError(f"a map key cannot be {number!r}: keys are JSON values, whose numbers are finite")
    exact = int(number)
    try:
        below = float(exact)
    except OverflowError:
        return _wide(exact)
    if below > exact:
        below = nextafter(below, -inf)
        if isinf(below):
            return _wide(exact)
    rest = exact - int(below)
    length = (rest.bit_length() + 7) // 8
    head = DOUBLE.pack(-below) if below > 0 else DOUBLE.pack(below).translate(INVERTED)
    return NUMBER + head + bytes((length,)) + rest.to_bytes(length)


def _wide(number: int) -> bytes:
    """An integer beyond the range of doubles."""
    magnitude = abs(number)
    length = (magnitude.bit_length() + 7) // 8
    if length > INTEGER_BYTES:
        raise ValueError(
            f"an integer of {length:,} bytes cannot be an encoded map key: at most {INTEGER_BYTES:,} fit; convert it, "
            f"for example with hex()"
        )
    tail = length.to_bytes(2) + magnitude.to_bytes(length)
    if number > 0:
        return NUMBER + DOUBLE.pack(-inf) + tail
    return NUMBER + DOUBLE.pack(-inf).translate(INVERTED) + tail.translate(INVERTED)


def _decoded(data: bytes, at: int) -> tuple[Any, int]:
    """The key whose encoding begins at `at`, and where it ends."""
    tag = data[at : at + 1]
    at += 1
    if tag == STRING:
        return _text(data, at)
    if tag == NUMBER:
        return _numeral(data, at)
    if tag == ARRAY:
        elements = []
        while data[at] != END[0]:
            element, at = _decoded(data, at)
            elements.append(element)
        return elements, at + 1
    if tag == OBJECT:
        members = {}
        while data[at] != END[0]:
            if data[at] != STRING[0]:
                raise ValueError(f"no name of a member begins at byte {at}")
            name, at = _text(data, at + 1)
            members[name], at = _decoded(data, at)
        return members, at + 1
    if tag in CONSTANTS:
        return CONSTANTS[tag], at
    raise ValueError(f"no key begins at byte {at - 1}")


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    while data[end + 1] == 1:  # a NUL of the text, not its end
        end = data.index(0, end + 2)
    if data[end + 1] != 0:
        raise ValueError(f"a NUL at byte {end} neither ends a string nor is escaped")
    text = data[at:end]
    if b"\x00" in text:
        text = text.replace(b"\x00\x01", b"\x00")
    return text.decode("utf-8", "surrogatepass"), end + 2


def _numeral(data: bytes, at: int) -> tuple[int | float, int]:
    head = data[at : at + 8]
    at += 8
    positive = head[0] >= 0x80
    double: float = -DOUBLE.unpack(head)[0] if positive else DOUBLE.unpack(head.translate(INVERTED))[0]
    if -EXACT < double < EXACT:
        return int(double) if double.is_integer() else double, at
    if isinf(double):
        tail = data[at:] if positive else data[at:].translate(INVERTED)
        end = 2 + int.from_bytes(tail[:2])
        magnitude = int.from_bytes(tail[2:end])
        return magnitude if positive else -magnitude, at + end
    end = at + 1 + data[at]
    rest = int.from_bytes(data[at + 1 : end])
    return int(double) + rest if rest or abs(double) < 2**64 else double, end
