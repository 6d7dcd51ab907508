"""What two replicas say to each other about ranges of keys, as bytes.

A frame is a list of items in the order of keys, none of which overlap:

    Sums     for neighbouring ranges: the fingerprint of what the sender has there
    Listed   for one range: every element that the sender has there
    Wanted   for one range: elements whose keys the sender asks for
    Found    for one range: elements that the other lacks, with their keys, and
             those of its list that are not here

Keys are written as how many characters they share with the one before and what
follows, since neighbours begin alike. `upto` in an answer says up to which key
the question has been answered; the rest is to be asked again.

Reading believes nothing: a frame that this module has not written, or that was
cut, is refused as a whole. Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, NoReturn

import msgspec

from vstore.errors import InvalidToken
from vstore.ranges import ABOVE

VERSION = 1
"""Of the protocol. Another one is refused."""

FRAME_BYTES = 64 * 1024
"""How large a frame is at most, unless one item alone is larger: the siblings of a key are never cut."""

MOST_BYTES = 1024 * 1024
"""What is refused unread, and never sent."""

FINGERPRINT_BYTES = 12
ELEMENT_BYTES = 16

_BOUND_BYTES = len(ABOVE.encode())
_SUMS, _LISTED, _WANTED, _FOUND = range(4)


class Sums(NamedTuple):
    """Fingerprints of neighbouring ranges: of that from `bounds[n]` up to `bounds[n + 1]`, `prints[n]`."""

    bounds: tuple[str, ...]
    prints: tuple[bytes, ...]

    @property
    def low(self) -> str:
        return self.bounds[0]

    @property
    def high(self) -> str:
        return self.bounds[-1]


class Listed(NamedTuple):
    """Every element that the sender has in a range."""

    low: str
    high: str
    elements: tuple[bytes, ...]


class Wanted(NamedTuple):
    """Elements of the other's list that the sender lacks: it asks for their keys."""

    low: str
    high: str
    elements: tuple[bytes, ...]


class Found(NamedTuple):
    """`lacking` are elements that the other lacks, by key; `surplus` those of its list that are not in the range."""

    low: str
    high: str
    lacking: tuple[tuple[str, bytes], ...]
    surplus: tuple[bytes, ...] = ()


Item = Sums | Listed | Wanted | Found


class _Item(msgspec.Struct, array_like=True, forbid_unknown_fields=True, omit_defaults=True):
    """Any item. `shared` and `rest` are its bounds and then its keys, each against the one before."""

    kind: int
    shared: bytes
    rest: list[str]
    data: bytes
    more: bytes = b""


class _Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    upto: str
    items: list[msgspec.Raw]


class _Whole(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    upto: str
    items: list[_Item]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Whole).decode


class Writer:
    """A frame that is being filled."""

    def __init__(self, limit: int = FRAME_BYTES) -> None:
        self._limit = min(limit, MOST_BYTES)
        self._items: list[msgspec.Raw] = []
        self._size = _BOUND_BYTES + 16  # what is not items
        self._last = ""

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, item: Item) -> bool:
        """Adds an item that lies behind all others; False if it would make the frame too large. The first never does.

        Raises:
            InvalidToken: the item alone is larger than any frame may be.
        """
        raw = _encode(_packed(item, self._last))
        if self._size + len(raw) > MOST_BYTES and not self._items:
            raise InvalidToken(
                f"documents from {item.low[:60]!r} on have so many siblings that their list takes {len(raw):,} bytes, "
                f"and a frame has at most {MOST_BYTES:,}. Nothing was compared there. Resolve their conflicts first."
            )
        if self._size + len(raw) > self._limit and self._items:
            return False
        self._items.append(msgspec.Raw(raw))
        self._size += len(raw)
        self._last = item.high
        return True

    def frame(self, upto: str = "") -> bytes:
        """The frame. `upto` is how far the question was answered, empty if to its end."""
        return _encode(_Frame(VERSION, upto, self._items))


def read(frame: bytes) -> tuple[list[Item], str]:
    """The items of a frame, and up to where it answers: empty if everything.

    Raises:
        InvalidToken: it is no frame of this protocol, or not a whole one.
    """
    if len(frame) > MOST_BYTES:
        _refuse(frame, f"it is longer than {MOST_BYTES:,} bytes")
    try:
        whole = _decode(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _refuse(frame, str(error))
    if whole.version != VERSION:
        _refuse(frame, f"it is of version {whole.version} of the protocol, and this is version {VERSION}")
    items: list[Item] = []
    last = ""
    for packed in whole.items:
        try:
            item = _unpacked(packed, last)
        except ValueError as error:
            _refuse(frame, str(error))
        if items and item.low < items[-1].high:
            _refuse(frame, "its ranges overlap")
        items.append(item)
        last = item.high
    if whole.upto and not _is_bound(whole.upto):
        _refuse(frame, "it ends at what is no key")
    return items, whole.upto


def _packed(item: Item, last: str) -> _Item:
    if isinstance(item, Sums):
        return _Item(_SUMS, *_written(item.bounds, last), b"".join(item.prints))
    bounds = (item.low, item.high)
    if isinstance(item, Found):
        keys = [key for key, _ in item.lacking]
        shared, rest = _written((*bounds, *keys), last)
        return _Item(_FOUND, shared, rest, b"".join([each for _, each in item.lacking]), b"".join(item.surplus))
    return _Item(_WANTED if isinstance(item, Wanted) else _LISTED, *_written(bounds, last), b"".join(item.elements))


def _unpacked(packed: _Item, last: str) -> Item:
    texts = _texts(packed, last)
    if packed.kind == _SUMS:
        bounds = (texts[0], *[text or ABOVE for text in texts[1:]])
        _require(len(bounds) > 1 and all(a < b for a, b in pairwise(bounds)), "its ranges are not in order")
        prints = tuple(_cut(packed.data, FINGERPRINT_BYTES))
        _require(len(prints) == len(bounds) - 1 and not packed.more, "it has not one fingerprint for each range")
        return Sums(bounds, prints)
    low, high, keys = texts[0], texts[1] or ABOVE, texts[2:]
    _require(low < high, "a range ends before it begins")
    elements = tuple(_cut(packed.data, ELEMENT_BYTES))
    if packed.kind == _FOUND:
        _require(len(keys) == len(elements), "it has not one key for each element")
        _require(keys == sorted(keys) and all(low <= key < high and key for key in keys), "a key is not in its range")
        return Found(low, high, tuple(zip(keys, elements, strict=True)), tuple(_cut(packed.more, ELEMENT_BYTES)))
    _require(not keys and not packed.more, "an item has parts that belong to another kind")
    if packed.kind == _LISTED:
        return Listed(low, high, elements)
    _require(packed.kind == _WANTED, f"it has an item of an unknown kind, {packed.kind}")
    return Wanted(low, high, elements)


def _written(texts: Sequence[str], last: str) -> tuple[bytes, list[str]]:
    """Texts against the one before each. `ABOVE` is written as nothing: no range ends before the first key."""
    shared, rest = bytearray(), []
    for text in texts:
        if text == ABOVE:
            text = ""
        count = _in_common(last, text)
        shared.append(count)
        rest.append(text[count:])
        last = text
    return bytes(shared), rest


def _texts(packed: _Item, last: str) -> list[str]:
    _require(len(packed.shared) == len(packed.rest) >= 2, "an item has no range")
    last = "" if last == ABOVE else last
    found = []
    for count, rest in zip(packed.shared, packed.rest, strict=True):
        _require(count <= len(last), "a key shares more than the one before it has")
        last = last[:count] + rest
        _require(not last or _is_bound(last), "a key is none")
        found.append(last)
    return found


def _in_common(one: str, other: str) -> int:
    """How many characters two texts begin with alike, as far as a byte can say."""
    most = min(len(one), len(other), 255)
    return next((n for n in range(most) if one[n] != other[n]), most)


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    _require(len(data) % size == 0, "a list is cut in the middle")
    return (data[at : at + size] for at in range(0, len(data), size))


def _is_bound(text: str) -> bool:
    return "\0" not in text and len(text.encode("utf-8", "surrogatepass")) <= _BOUND_BYTES


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _refuse(frame: bytes, problem: str) -> NoReturn:
    raise InvalidToken(
        f"a frame of {len(frame):,} bytes from the peer cannot be read: {problem}. Nothing was changed because of it. "
        f"Compare again; if it recurs, see that both sides run the same version of vstore."
    )
