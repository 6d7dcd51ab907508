"""What an expression means: the operations of queries on plain values.

This is the definition. Generated code, partly decoded documents, prefilters and
worker processes are faster ways to the same answer, and are tested against it.

A path that leads nowhere gives MISSING, which is not null: null is a value that
somebody stored.

| Expression | Value |
|---|---|
| `F.a.b` | the member of an object; MISSING if there is none, or no object |
| `F.a[0]`, `F.a[-1]` | the element of an array; MISSING if there is none, or no array |
| `F.a[:].b` | for an array: the list of all `b` in its elements; else MISSING. `F.a[:].b[:]` is one flat list |
| `F` | the document; inside `any` and `all`, the element |
| `Doc.key`, `.rev`, `.stamp`, `.deleted` | of the document; all but `key` MISSING if it comes from no store |
| `x == y` | same value: 1 is 1.0, but no number is True; arrays and objects member by member |
| `x != y` | both are there, and `x == y` is False |
| `< <= > >=` | null < false < true < numbers (exactly) < strings (by code point) < arrays < objects |
| a comparison with MISSING | False, all six. So `F.x != 3` needs an x, and `~(F.x == 3)` does not |
| `x.between(a, b)` | `a <= x` and `x <= b` |
| `x.isin([...])` | `x ==` one of them |
| `x.startswith(s)`, `x.matches(regex)` | x is a string that starts so, in which `re.search` finds it |
| `x.exists()`, `x.is_null()` | not MISSING; null |
| `x.is_type("string", ...)` | null, boolean, number, integer, string, array, object |
| `x.any(p)`, `x.all(p)` | x is an array, and p holds for one element, for every element (so also for none) |
| `p & q`, `p \\| q`, `~p` | p holds if its value is true and nothing else: `where(F.paid)` leaves out 1 |
| `x + y`, `- * / // %`, `-x` | for numbers (not booleans), as in Python; `+` joins two strings |
| arithmetic on anything else | MISSING; also divided by zero, or with a result that is not finite |
| `x.lower()`, `x.length()` | of a string; of a string, array or object; else MISSING |

Nothing raises. What JSON has no word for, in documents from memory or from a
pickle (dates, sets, NaN), is there, has no type and equals nothing.

Pure: no input or output.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import Enum
from math import isfinite
from typing import Any, Final


class Missing(Enum):
    """The type of MISSING."""

    MISSING = "MISSING"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""What a path that leads nowhere gives. False in a condition, not equal to None, and pickled as itself."""

TYPES = ("null", "boolean", "number", "integer", "string", "array", "object")

_RANKS: dict[type, int] = {type(None): 0, int: 3, float: 3, str: 4, list: 5, tuple: 5, dict: 6}


def rank(value: Any) -> int | None:
    """The place of the value's type in the order of types; None for what is not JSON, MISSING included."""
    found = _RANKS.get(type(value))
    if found is not None:
        return found
    if isinstance(value, bool):
        return 2 if value else 1
    for kind in (int, float, str, list, tuple, dict):
        if isinstance(value, kind):
            return _RANKS[kind]
    return None


def compared(a: Any, b: Any) -> int | None:
    """-1, 0 or 1 as `a` is less than, the same as or greater than `b`; None if one of them is no JSON value."""
    kind, other = rank(a), rank(b)
    if kind is None or other is None:
        return None
    if kind != other:
        return -1 if kind < other else 1
    if kind < 3:
        return 0
    if kind < 5:
        return 0 if a == b else -1 if a < b else 1 if a > b else None  # None: NaN
    if kind == 5:
        return _first_difference(a, b)
    try:
        members, others = sorted(a.items(), key=_name), sorted(b.items(), key=_name)
    except TypeError:  # names that are no strings
        return None
    return _first_difference(
        [part for member in members for part in member], [part for member in others for part in member]
    )


def _name(member: tuple[str, Any]) -> str:
    if not isinstance(member[0], str):
        raise TypeError
    return member[0]


def _first_difference(a: Any, b: Any) -> int | None:
    for one, another in zip(a, b, strict=False):
        if difference := compared(one, another):
            return difference
        if difference is None:
            return None
    return (len(a) > len(b)) - (len(a) < len(b))


def equal(a: Any, b: Any) -> bool:
    """`a == b`"""
    return compared(a, b) == 0


def unequal(a: Any, b: Any) -> bool:
    """`a != b`"""
    return a is not MISSING and b is not MISSING and compared(a, b) != 0


def less(a: Any, b: Any) -> bool:
    """`a < b`"""
    return compared(a, b) == -1


def at_most(a: Any, b: Any) -> bool:
    """`a <= b`"""
    return compared(a, b) in (-1, 0)


def greater(a: Any, b: Any) -> bool:
    """`a > b`"""
    return compared(a, b) == 1


def at_least(a: Any, b: Any) -> bool:
    """`a >= b`"""
    return compared(a, b) in (0, 1)


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": equal,
    "!=": unequal,
    "<": less,
    "<=": at_most,
    ">": greater,
    ">=": at_least,
}


def is_type(value: Any, names: tuple[str, ...]) -> bool:
    """Whether the value has one of the types, named as in TYPES."""
    match rank(value):
        case None:
            return False
        case 3:
            return "number" in names or ("integer" in names and isinstance(value, int))
        case found:
            return ("null", "boolean", "boolean", "", "string", "array", "object")[found] in names


def is_number(value: Any) -> bool:
    """Whether arithmetic takes the value: an int or a float, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}


def calculated(sign: str, a: Any, b: Any) -> Any:
    """`a + b` and the like, or MISSING."""
    if not (is_number(a) and is_number(b)):
        return a + b if sign == "+" and isinstance(a, str) and isinstance(b, str) else MISSING
    try:
        result = OPERATORS[sign](a, b)
    except (ZeroDivisionError, OverflowError):  # the latter: an integer beyond the floats meets a float
        return MISSING
    return result if isinstance(result, int) or isfinite(result) else MISSING


def negative(value: Any) -> Any:
    """`-value`, or MISSING."""
    return calculated("-", 0, value) if isinstance(value, int) else calculated("*", value, -1)


def lower(value: Any) -> Any:
    """The string in lower case, or MISSING."""
    return value.lower() if isinstance(value, str) else MISSING


def length(value: Any) -> Any:
    """The number of characters, elements or members, or MISSING."""
    return len(value) if isinstance(value, str | list | tuple | dict) else MISSING


FUNCTIONS: dict[str, Callable[[Any], Any]] = {"lower": lower, "length": length, "negative": negative}


def member(value: Any, name: str) -> Any:
    """The member of an object, or MISSING."""
    return value.get(name, MISSING) if isinstance(value, dict) else MISSING


def element(value: Any, index: int) -> Any:
    """The element of an array, or MISSING."""
    if isinstance(value, list | tuple) and -len(value) <= index < len(value):
        return value[index]
    return MISSING
