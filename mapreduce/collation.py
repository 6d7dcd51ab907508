"""The order of map keys, and when two of them are the same group.

    null < false < true < numbers < strings < arrays < objects

Numbers compare by exact value: 1 and 1.0 are one key, 2**53 and 2**53 + 1 are
two, and True is not 1. Strings compare by code point, which is the order of
their UTF-8 bytes. Arrays (lists and tuples alike) compare element by element, a
prefix first; objects as the array of their members in the order of their names.

Two keys are the same exactly if neither sorts before the other, so one tuple
serves as sort key and as identity.

Pure: no input or output.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, TypeAlias

Identity: TypeAlias = Any
"""A hashable stand-in for a key: a string or number is its own, every other key has a tuple."""


def sort_key(key: Any) -> tuple[Any, ...]:
    """A tuple that compares with the tuples of other keys as the keys do.

    Raises:
        TypeError: something in `key` is no JSON value.
        ValueError: a number in `key` is NaN or infinite.
    """
    # The types of ordinary keys first. bool before int, because True is an int to isinstance. The tag keeps types
    # apart, so payloads always compare.
    kind = type(key)
    if kind is str:
        return (4, key)
    if kind is int:
        return (3, key)
    if key is None:
        return (0,)
    if isinstance(key, bool):
        return (2,) if key else (1,)
    if isinstance(key, int):
        return (3, key)
    if isinstance(key, float):
        if not isfinite(key):
            raise ValueError(f"a map key cannot be {key!r}: keys are JSON values, whose numbers are finite")
        return (3, key)
    if isinstance(key, str):
        return (4, key)
    if isinstance(key, (list, tuple)):
        return (5, *map(sort_key, key))
    if isinstance(key, dict):
        if not all(isinstance(name, str) for name in key):
            raise TypeError(f"an object as map key has names that are no strings: {key!r}")
        return (6, *((name, sort_key(key[name])) for name in sorted(key)))
    raise TypeError(
        f"a map key cannot be of type {type(key).__name__}: keys are JSON values "
        f"(None, bool, int, float, str, list, tuple, dict); convert it, for example with str()"
    )


def identity(key: Any) -> Identity:
    """What to group `key` by: equal and hashed equally exactly for keys that are the same.

    Raises as `sort_key` does. Strings and numbers come back as they are, which
    keeps the dictionaries of ordinary jobs plain.
    """
    kind = type(key)
    if kind is str or kind is int:
        return key
    if isinstance(key, (str, int, float)) and not isinstance(key, bool):
        if isinstance(key, float) and not isfinite(key):
            return sort_key(key)  # which refuses it
        return key
    return sort_key(key)
