"""Exact three-way merge of JSON values: any number of siblings at once, path by path.

At each path the siblings that differ from the base have changed it. No change:
the base stays. One distinct change, made by one or by many: it is taken. Several
that are all objects: the same question for each of their fields. Otherwise the
siblings clash there, which is reported and never settled in silence.

    base {"n": 1, "at": "Lyon"}     a sets n to 2 ─┐
                                    b drops "at"  ─┴─► {"n": 2}

The siblings are treated alike: without a clash any order of them gives the same
bytes. At a clash, and nowhere else, the value has the side of the first sibling
that changed the path; callers hand siblings over in winner order.

Out of scope: choosing a side. `vstore.resolvers` does that.
Pure: no input or output, no time, no randomness.
Source: Lindholm (2004), "A three-way merge for XML documents", for merging trees
by path; the rule of one distinct change is that of diff3 (Khanna, Kunal, Pierce 2007).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import zip_longest
from math import copysign
from typing import Any, Final, Literal

from vstore.errors import ConfigurationError

Strictness = Literal["strict", "path", "lenient"]


class Missing(Enum):
    """The type of `MISSING`; an enum, because type checkers, pickle and copy all keep its member unique."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return self.name


MISSING: Final = Missing.MISSING
"""No value: a field that is not there or, as the base of a merge, one that nobody knows."""


@dataclass(frozen=True)
class Clash:
    """Changes to one path that exclude each other.

    `path` is a JSON Pointer (RFC 6901). Inside an array merged item by item it
    names the item by its id as JSON text, since its index differs between
    siblings: `/items/7/title`. `values` has one entry per sibling, in the order
    given to `merge`; it and `base` are `MISSING` where there is no such field.
    """

    path: str
    base: Any
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Merged:
    """The merged value, and the paths where it shows one side of several. No conflicts: it is everybody's."""

    value: Any
    conflicts: tuple[Clash, ...]


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same, exactly: 1 is neither 1.0 nor true, 0.0 is not -0.0.

    The order of an object's keys does not matter. NaN does not occur: codecs refuse it.
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[name]) for name, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a == b and copysign(1.0, a) == copysign(1.0, b)
    return bool(a == b)


def merge(base: Any, values: Sequence[Any], *, strictness: Strictness = "path", arrays: str = "atomic") -> Merged:
    """The siblings' changes to the base in one value, and what could not be brought together.

    Args:
        base: the common ancestor's value; `MISSING` if unknown. What differs then clashes, because a field that only
            some siblings have may be new in these or removed by the others.
        values: one or more siblings, in winner order.
        strictness: what counts as a clash.
            `path`: different changes to one path, of which at least one is not to an object, or removes it.
            `strict`: also different changes to fields of one object, even to different fields, as when `street` and
            `city` only make sense together. Changes to different objects, one inside the other or not, still merge.
            `lenient`: a removal gives way to a change, as if it had not been made; and without a base, a field that
            only some siblings have is kept.
        arrays: how arrays merge that several siblings changed differently.
            `atomic`: they do not; different changes clash.
            `set`: as sets of items. What a sibling added is in, what one removed is out.
            `id:<field>`: item by item, as objects matched by this field. An array with an item that is no object,
            lacks the field or repeats its value is atomic.
            Under the last two, the order of items is no content: the base's first, then new items by their JSON text.

    Returns:
        A value that shares nothing with the arguments. Objects have the base's keys in its order, then the others
        sorted. Unchanged parts and parts with one distinct change are exactly that, whatever the policies.

    Raises:
        ConfigurationError: an unknown strictness, an unknown policy for arrays, or no siblings.

    Compares each part once per level above it and pair of siblings: cost grows with size times depth.
    """
    if not values:
        raise ConfigurationError("merge of no siblings refused: it takes at least one.")
    if strictness not in ("strict", "path", "lenient"):
        raise ConfigurationError(f"strictness={strictness!r} refused: use 'strict', 'path' or 'lenient'.")
    if arrays not in ("atomic", "set") and not arrays.startswith("id:"):
        raise ConfigurationError(f"arrays={arrays!r} refused: use 'atomic', 'set' or 'id:' and the name of a field.")
    run = _Run(known=base is not MISSING, strictness=strictness, arrays=arrays)
    value = run.merged("", base, values)
    return Merged(value, tuple(run.clashes))


@dataclass
class _Run:
    """One merge under way: its rules, and the clashes met so far."""

    known: bool
    strictness: Strictness
    arrays: str
    clashes: list[Clash] = field(default_factory=list)

    def merged(self, path: str, base: Any, values: Sequence[Any]) -> Any:
        changes = self._changes(base, values)
        if len(changes) < 2:
            return _ordered(changes[0] if changes else base, base)
        old, *new = (self._parts(side) for side in (base, *changes))
        kinds = {type(change) for change in changes} | ({type(base)} - {Missing})
        if len(kinds) == 1 and None not in new and (old is not None or base is MISSING):
            # A sibling without parts here has either left a missing base alone or, if lenient, lost its removal.
            old = old or {}
            sides = [old if value is MISSING else self._parts(value) or {} for value in values]
            if self.strictness != "strict" or not self._share_an_object(old, sides):
                parts = self._merged_parts(path, old, sides)
                return list(parts.values()) if list in kinds else parts
        self.clashes.append(Clash(path, base, tuple(values)))
        return _ordered(changes[0], base)

    def _changes(self, base: Any, values: Sequence[Any]) -> list[Any]:
        """The distinct changes to the base; without one, the distinct values."""
        distinct: list[Any] = []
        for value in values:
            if not (self.known and same(value, base)) and not any(same(value, other) for other in distinct):
                distinct.append(value)
        if self.strictness == "lenient" and len(distinct) > 1:
            return [value for value in distinct if value is not MISSING]
        return distinct

    def _parts(self, value: Any) -> dict[str, Any] | None:
        """What merges one by one inside the value, by name; None if it is taken as a whole."""
        if isinstance(value, dict):
            return value
        if not isinstance(value, list) or self.arrays == "atomic":
            return None
        if self.arrays == "set":
            return {_text(item): item for item in value}
        name = self.arrays.removeprefix("id:")
        if not all(isinstance(item, dict) and name in item for item in value):
            return None
        items = {_text(item[name]): item for item in value}
        return items if len(items) == len(value) else None

    def _merged_parts(self, path: str, old: dict[str, Any], sides: list[dict[str, Any]]) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for name in _names(old, *sides):
            inside = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
            part = self.merged(inside, old.get(name, MISSING), [side.get(name, MISSING) for side in sides])
            if part is not MISSING:
                parts[name] = part
        return parts

    def _share_an_object(self, old: dict[str, Any], sides: list[dict[str, Any]]) -> bool:
        """Whether siblings changed the object's own fields differently; a change inside a field's object is not one."""
        own: list[dict[str, Any]] = []
        for side in sides:
            changed: dict[str, Any] = {}
            for name in _names(old, side):
                before, after = old.get(name, MISSING), side.get(name, MISSING)
                below = type(before) is type(after) and self._parts(before) is not None
                if not below and not same(before, after):
                    changed[name] = after
            if changed and not any(same(changed, other) for other in own):
                own.append(changed)
        return len(own) > 1


def _names(base: Mapping[str, Any], *others: Mapping[str, Any]) -> list[str]:
    """Every name: the base's in its order, then the others sorted, so that nothing tells who added them."""
    return [*base, *sorted(set().union(*others) - base.keys())]


def _ordered(value: Any, base: Any) -> Any:
    """A copy with the names of objects in the order of `_names`: equal siblings become equal bytes."""
    if isinstance(value, dict):
        known = base if isinstance(base, dict) else {}
        return {name: _ordered(value[name], known.get(name)) for name in _names(known, value) if name in value}
    if isinstance(value, list):
        known_items = base[: len(value)] if isinstance(base, list) else []
        return [_ordered(item, known_item) for item, known_item in zip_longest(value, known_items)]
    return value


def _text(value: Any) -> str:
    """Canonical JSON text: equal texts for `same` values, and only for these."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
