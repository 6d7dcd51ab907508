"""Which of two values comes first, for reducers that keep some of what they see.

Values rank by the collation. Where it makes no difference, as between 1 and 1.0
or between objects whose members stand in another order, the one that is shorter
in writing comes first: so which of them is kept depends neither on the order of
the input nor on where it was split.

Pure: no input or output.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from mapreduce.collation import sort_key


def rank(value: Any, reducer: str) -> tuple[Any, ...]:
    """The value's sort key.

    Raises:
        TypeError, ValueError: it is no JSON value; `reducer` says in the message who was given it.
    """
    try:
        return sort_key(value)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{reducer} compares JSON values (None, finite numbers, bool, str, list, tuple, dict), and was given "
            f"{value!r} of type {type(value).__name__}"
        ) from error


def ranked(value: Any, reducer: str) -> Any:
    """The value, once it is known to have a rank. Raises as `rank` does."""
    kind = type(value)
    if not (kind is str or kind is int or (kind is float and isfinite(value))):
        rank(value, reducer)
    return value


def ahead(one: Any, other: Any, reducer: str, *, highest: bool) -> bool:
    """Whether to keep `one` instead of `other`, where the lowest or the highest is kept.

    `other` has a rank. Raises as `rank` does.
    """
    kind = type(one)
    if kind is type(other) and (kind is str or kind is int or (kind is float and isfinite(one))):
        if one != other:
            return (other < one) is highest
        if one or kind is not float:
            return False
    first, second = rank(one, reducer), rank(other, reducer)
    if first != second:
        return (second < first) is highest
    return form(one) < form(other)


def form(value: Any) -> tuple[int, str]:
    """A sort key among values of equal rank: the shorter in writing first."""
    written = repr(value)
    return len(written), written
