"""The canonical form of documents and versions, and what can be kept exactly.

A value is stored as the JSON that orjson prints for it, and only if reading
that JSON gives an equal value back. orjson alone does not promise this: NaN
becomes null, a tuple a list, a date a string. So `encoded` reads back what it
has written, at C speed, and a slow walk names the offending place only when
something is wrong.

A version is named after its content. Two replicas must compute the same name
for ever, so the form that is hashed is ours, has a version of its own
("c1"), and is this grammar (| alternatives, [ ] optional, LF one byte 0x0A):

    value   = null | true | false | integer | float | string | array | object
    array   = "[" [value *("," value)] "]"
    object  = "{" [string ":" value *("," string ":" value)] "}"
              keys unique, in code point order (not UTF-16 order: U+FFFF
              comes before U+1F600)
    string  = UTF-8 between quotes; escaped are only " and backslash, each by
              a backslash, and U+0000 to U+001F, as \\b \\t \\n \\f \\r or
              else \\u00xx in lower case
    integer = decimal, -2^63 to 2^64-1
    float   = the fewest digits that read back as the same double; plain with
              at least one decimal (1.0, -0.0) while the decimal exponent is
              -5 to 15, else as 1e-6, 2.5e+16: exponent signed, not padded
    no blanks, at most 200 arrays and objects inside one another

    version = header [LF body]
    header  = value: ["c1", deleted, parents, null]
                  or ["c1", deleted, [], [actor, n]] for a version without parents
    parents = revs, each once, in code point order
    body    = value, or the bytes of a codec for values that JSON has not;
              left out for a tombstone
    rev     = generation "-" first 32 lower-case hex digits of SHA-256(version)

A header has no LF, so it ends at the first one and no two versions share a form.

Pure: no input or output, no clock, no randomness.
Source: RFC 8259 (JSON), RFC 6901 (paths in errors). RFC 8785 (JCS) was the
alternative for the form; it turns 1.0 into 1 and refuses integers above 2^53.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NoReturn

import orjson
from orjson import OPT_PASSTHROUGH_SUBCLASS, OPT_SORT_KEYS, dumps, loads

from vstore.errors import CodecError, InvalidDocument

VERSION = "c1"
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_NESTING = 200  # orjson writes 254 levels and reads 1024: what we accept must be readable and writable by any reader

_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19  # -2^63 has 19 digits, and orjson rounds the next integer below it

_ADVICE: dict[str, str] = {
    "tuple": "use a list",
    "bytes": "use text, for instance Base64",
    "bytearray": "use text, for instance Base64",
    "memoryview": "use text, for instance Base64",
    "set": "use a sorted list",
    "frozenset": "use a sorted list",
    "datetime": "use .isoformat()",
    "date": "use .isoformat()",
    "time": "use .isoformat()",
    "UUID": "use str()",
    "Decimal": "use str()",
}


def encoded(value: Any, max_body_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The JSON of a value, keys in the caller's order, if that keeps the value exactly.

    Exactly means: `decoded` of the result equals `value` and has the same
    JSON types. Subclasses of dict, list, str and int, and members of enums that
    equal their value (IntEnum, StrEnum), are kept as the plain value that they
    equal.

    Raises:
        InvalidDocument: a part of `value` would be changed or lost, arrays and
            objects nest deeper than 200, or the JSON exceeds `max_body_bytes`.
            `path` names the part; for a key, the object that has it.

    About 2 µs for a plain document of 500 bytes; a refusal, and a document with
    instances of such subclasses, some µs per part.
    """
    try:
        # A subclass may define == as it likes, so only plain containers are believed; with this option orjson leaves
        # subclasses to the walk, which looks at what they hold and not at what they say.
        data = dumps(value, option=OPT_PASSTHROUGH_SUBCLASS)
        exact = bool(loads(data) == value)
    except (TypeError, ValueError):  # what orjson raises on writing and, for an orjson.Fragment, on reading
        exact = False
    if not exact:
        _check(value, "", ())
        data = dumps(value)
    if len(data) > max_body_bytes:
        raise InvalidDocument(
            f"document refused: it has {len(data):,} bytes as JSON, and max_body_bytes is {max_body_bytes:,}. It was "
            f"not stored. Split it, keep the large part elsewhere, or open the store with a larger max_body_bytes."
        )
    if data.count(b"[") + data.count(b"{") > MAX_NESTING and _too_deep(value):
        _check(value, "", ())
    return data


def decoded(data: bytes) -> Any:
    """The value that `encoded` was given.

    Raises:
        CodecError: `data` is not JSON, so `encoded` did not write it.
    """
    try:
        return loads(data)
    except orjson.JSONDecodeError as error:
        raise CodecError(
            f"stored body of {len(data):,} bytes cannot be read as JSON: {error}. Nothing was changed. "
            f"Run `vstore check` to list every such body."
        ) from error


def parsed(text: bytes) -> Any:
    """The value of JSON text that comes from elsewhere, such as an import file.

    What it returns, `encoded` accepts (its size aside). A number with a fraction
    or an exponent becomes the nearest double, as in every reader; an integer
    never does. Of a key that an object has twice the last value counts.

    Raises:
        InvalidDocument: not JSON in UTF-8, or a number beyond the doubles (the
            message has line and column); an integer outside -2^63 to 2^64-1 or
            nesting over 200 (`path` names the place).

    1.9 µs for 500 bytes, twice `orjson.loads`; text with 19 digits in a row is
    read a second time, by the standard library, and takes 5 to 40 µs.
    """
    try:
        value = loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidDocument(f"text refused: it is no JSON document that can be kept exactly: {error}.") from error
    if text.count(b"[") + text.count(b"{") > MAX_NESTING and _too_deep(value):
        _check(value, "", ())
    # orjson turns an integer beyond 64 bits into a double without a word. Reading everything with the standard library
    # instead would cost three times as much, for numbers that few files have.
    if _LONG_NUMBER in text.translate(_DIGITS_TO_ZERO):
        _check(json.loads(text), "", ())
    return value


def canonical(value: Any) -> bytes:
    """The canonical bytes of a value that `encoded` has accepted: equal values have equal bytes.

    It checks nothing: given NaN it would print null. 0.4 µs for 500 bytes.
    """
    return dumps(value, option=OPT_SORT_KEYS)


def revision(
    gen: int, deleted: bool, parents: Sequence[str], body: bytes | None, dot: tuple[str, int] | None = None
) -> str:
    """The name of a version: its generation, and a signature of what it says.

    A version without parents is salted with its dot: two creations of equal
    documents are two events. Were they one, a tombstone returning from a stale
    replica would delete the document that was created again after a purge.

    A version with parents is not salted, and `dot` is ignored: the same edit of
    the same parents is the same version on every replica. So a retry after an
    unknown outcome adds nothing, and replicas that settle a conflict alike agree
    at once; salted, each would answer the other's merge with one more, for ever.

    Args:
        gen: 1 + the generation of the winning parent, or 1. Not hashed.
        deleted: whether the version is a tombstone.
        parents: revs in any order.
        body: `Codec.identity` of the value; None when there is none.
        dot: (actor, n) of the write.

    Raises:
        ValueError: neither parents nor a dot.

    About 1 µs for 500 bytes. Definition: docs/consistency.md, "Version identity".
    """
    if parents:
        header = dumps([VERSION, deleted, sorted(set(parents)), None])
    elif dot is not None:
        actor, n = dot
        header = dumps([VERSION, deleted, [], [actor, n]])
    else:
        raise ValueError("a version without parents has no rev without its dot: pass the dot of the write that made it")
    form = header if body is None else header + b"\n" + body
    return f"{gen}-{sha256(form).hexdigest()[:32]}"


def generation(rev: str) -> int:
    """The generation in a rev.

    Raises:
        ValueError: `rev` does not begin with a generation.
    """
    gen, dash, _ = rev.partition("-")
    if not (dash and gen.isdecimal()):
        raise ValueError(f"{rev!r} is not a rev: it should look like 3-0123456789abcdef0123456789abcdef")
    return int(gen)


def winner_key(deleted: bool, rev: str) -> tuple[bool, int, str]:
    """The place of a sibling in winner order; of several, the one with the largest key is shown.

    Live before deleted, then the longer history, then the signature: arbitrary,
    but the same on every replica. Time plays no part, so no clock can be wrong.
    """
    return not deleted, generation(rev), rev.partition("-")[2]


def _too_deep(value: Any) -> bool:
    """Whether arrays and objects nest deeper than allowed, level by level; `value` has no reference cycles."""
    level = [value]
    for _ in range(MAX_NESTING):
        level = [
            child
            for container in level
            if isinstance(container, (dict, list))
            for child in (container.values() if isinstance(container, dict) else container)
        ]
    return any(isinstance(child, (dict, list)) for child in level)


def _check(value: Any, path: str, outer: tuple[Any, ...]) -> None:
    """Walks a value and raises InvalidDocument at the first part that JSON would not keep.

    `outer` holds the arrays and objects around `value`. It asks orjson about
    single leaves only, so that what is refused here is what is refused there.
    """
    if not isinstance(value, (dict, list)):
        if not _kept(value):
            _refuse(path, *_offence(value))
        return
    if any(value is container for container in outer):
        _refuse(path, "is an array or object that contains itself", "refer to it by a key or an id instead")
    if len(outer) == MAX_NESTING:
        _refuse(path, f"is nested more than {MAX_NESTING} levels deep", "flatten it, or store it as several documents")
    outer = (*outer, value)
    # The unbound methods show what a subclass holds, as orjson sees it, whatever its own methods say.
    if isinstance(value, list):
        for index, child in enumerate(list.__iter__(value)):
            _check(child, f"{path}/{index}", outer)
        return
    for key, child in dict.items(value):
        if type(key) is not str:
            _refuse(path, f"has the key {key!r}, of type {type(key).__name__} and not str", "use str(key)")
        if not _kept(key):
            _refuse(path, f"has the key {key!r}, which has a lone surrogate", "remove it, or replace it by U+FFFD")
        _check(child, f"{path}/{key.replace('~', '~0').replace('/', '~1')}", outer)


def _kept(leaf: Any) -> bool:
    try:
        return bool(loads(dumps(leaf)) == leaf)
    except (TypeError, ValueError):
        return False


def _offence(leaf: Any) -> tuple[str, str]:
    """What is wrong with a leaf that JSON would not keep, and what to use instead."""
    if isinstance(leaf, int):
        return f"is an integer of {leaf.bit_length()} bits; JSON here holds -2^63 to 2^64-1", "use str(), or split it"
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return f"is {float(leaf)!r}, which JSON cannot say", "use None, or leave it out"
    if isinstance(leaf, float):
        return f"is of type {type(leaf).__name__}, which would come back as a plain float", "use float()"
    if isinstance(leaf, str):
        place = next(index for index, character in enumerate(leaf) if "\ud800" <= character <= "\udfff")
        return f"has a lone surrogate at {place}, which UTF-8 cannot say", "remove it, or replace it by U+FFFD"
    name = type(leaf).__name__
    return (
        f"is of type {name}, which JSON would not give back as it was",
        _ADVICE.get(name, "turn it into a dict, list, str, int, float, bool or None"),
    )


def _refuse(path: str, offence: str, advice: str) -> NoReturn:
    raise InvalidDocument(
        f"document refused: {path or 'the value itself'} {offence}. It was not stored. Instead, {advice}.", path
    )
