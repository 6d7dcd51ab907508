"""What a database can tell of a condition: the range of keys, and the bytes that a body must hold.

    Doc.key.startswith("app/") & (F.size > 3)          →    the keys from "app/" up to "app0"
    (F.name == "Ann") & F.tags.any().isin(["x", "y"])    →    b'"Ann"'  and  (b'"x"' or b'"y"')

Both are necessary and not sufficient: what passes is looked at. A string has one
form in JSON as orjson writes it, so a body without these bytes cannot have the
string as a value, and need be neither decoded nor even fetched. Numbers are no
help (1 is 1.0), nor is what a negation says.

Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import chain
from typing import Any, TypeAlias

import orjson

from mapreduce.query.fields import (
    ALL,
    SWAPPED,
    About,
    Comparison,
    Exists,
    Expression,
    IsIn,
    Literal,
    Logic,
    Path,
    Quantified,
    StartsWith,
    steps,
)
from vstore.errors import ConfigurationError
from vstore.ranges import KeyRange, key_range, next_key

Holding: TypeAlias = tuple[tuple[bytes, ...], ...]
"""A conjunction of alternatives, as in `Reading.holding`."""

# Each search through a body of 500 bytes costs the database about 0.1 µs, and decoding a few fields 0.5.
ALTERNATIVES = 8
CONDITIONS = 3


def holding(condition: Expression | None) -> Holding:
    """What every body has for which `condition` holds, the longest first; () if nothing is certain."""
    found = _necessary(condition) if condition is not None else []
    unique = dict.fromkeys(tuple(dict.fromkeys(alternatives)) for alternatives in found)
    useful = [alternatives for alternatives in unique if len(alternatives) <= ALTERNATIVES and all(alternatives)]
    return tuple(sorted(useful, key=_weakness)[:CONDITIONS])


def keys(condition: Expression | None) -> KeyRange:
    """A range that has the keys of all documents for which `condition` holds; the whole one if nothing is certain."""
    try:
        return _keys(condition)
    except ConfigurationError:  # a bound with half a character, which no key has
        return KeyRange()


def _keys(condition: Expression | None) -> KeyRange:
    match condition:
        case Logic(sign):
            each = [_keys(joined) for joined in condition._operands()]
            if sign == "&":
                return reduce(KeyRange.__and__, each)
            return KeyRange(min(one.low for one in each), max(one.high for one in each))
        case Comparison(sign, Literal(str() as bound), About("key")):
            return _beside(SWAPPED[sign], bound)
        case Comparison(sign, About("key"), Literal(str() as bound)):
            return _beside(sign, bound)
        case IsIn(About("key"), values):
            each = [_beside("==", value) for value in values if isinstance(value, str)]
            return KeyRange(min(one.low for one in each), max(one.high for one in each)) if each else KeyRange()
        case StartsWith(About("key"), prefix):
            return key_range(prefix)
    return KeyRange()


def _beside(sign: str, bound: str) -> KeyRange:
    """The keys that are less than, the same as, ... the bound; perhaps with the bound itself."""
    above = key_range(start=bound)
    return {
        "==": KeyRange(above.low, next_key(bound)),
        "<": KeyRange(high=above.low),
        "<=": KeyRange(high=next_key(bound)),
        ">": above,
        ">=": above,
        "!=": KeyRange(),
    }[sign]


def _necessary(condition: Expression) -> Sequence[tuple[bytes, ...]]:
    match condition:
        case Logic(sign):
            each = [_necessary(joined) for joined in condition._operands()]
            if sign == "&":
                return list(chain.from_iterable(each))
            # Of (a and b) or (c and d), "a or c" is kept: the strongest of each side.
            strongest = [min(one, key=_weakness) for one in each if one]
            return [tuple(chain.from_iterable(strongest))] if len(strongest) == len(each) else []
        case Comparison("==", Path() as subject, Literal(value)) | Comparison("==", Literal(value), Path() as subject):
            return _one_of([value]) if _single(subject) else []
        case IsIn(Path() as subject, values):
            return _one_of(values) if _single(subject) else []
        case StartsWith(Path() as subject, prefix):
            written = _written(prefix)
            return [(written[:-1],)] if written and prefix and _single(subject) else []
        case Exists(Path() as subject):
            return (
                [(written + b":",) for step in steps(subject) if (written := _written(step))]
                if _single(subject)
                else []
            )
        case Quantified(Path(), predicate, False):
            return _necessary(predicate)  # one element, and it is written inside the body
    return []


def _single(subject: Path) -> bool:
    """Whether the path leads to one place; a wildcard gives a list, which equals no string and is there when empty."""
    return ALL not in steps(subject)


def _one_of(values: Iterable[Any]) -> list[tuple[bytes, ...]]:
    written = [_written(value) for value in values]
    return [tuple(text for text in written if text)] if written and all(written) else []


def _written(value: Any) -> bytes | None:
    """The bytes of a string in a body; None for other values."""
    if not isinstance(value, str):
        return None
    try:
        return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except TypeError:  # a lone surrogate, which no body has, or a subclass
        return None


def _weakness(alternatives: tuple[bytes, ...]) -> tuple[int, int]:
    """Sorts the condition that leaves out most to the front: few alternatives, long ones."""
    return len(alternatives), -min(map(len, alternatives), default=0)
