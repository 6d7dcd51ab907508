"""Which documents a filtered replica takes: those under a prefix, with certain fields, or that a function wants.

    Filter(prefix="2026/", fields={"author.country": ["FR", "IT"], "/draft": False})
    Filter(predicate=lambda key, value: value["size"] < 1000, version="2")

All that is given must hold. It is asked where the source is read, so what it
leaves out never travels; a prefix is a range of the source's index. A document
is wanted if any of its live siblings is, and then comes with all of them.

Whose checkpoint it is that a filter has got to, its `identity` says. Another
filter begins anew and so skips nothing; what an earlier one brought and it does
not want stays as it is, until the document changes. A function is another one
when its code is, or what it closes over or refers to (`vstore.functions`). Whoever
wants to decide that himself gives a `version`: then name and version tell.

Pure: no input or output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

from vstore.errors import ConfigurationError
from vstore.functions import fingerprint
from vstore.ranges import KeyRange, key_range

_NOWHERE = object()


@dataclass(frozen=True)
class Filter:
    """What of a collection a replica takes; see the module.

    Attributes:
        prefix: what keys begin with.
        fields: by place, the value that a document must have there, or a list of
            values of which it must have one. A place is a JSON Pointer
            ("/author/name", RFC 6901) or the same with dots ("author.name").
            A place that a document does not have equals nothing.
        predicate: a function of the key and the value that says whether the
            document is wanted; it must give the same answer each time. Where it
            raises, the document is parked with the reason.
        version: tells whether the function has changed, in place of its code.
    """

    prefix: str = ""
    fields: Mapping[str, Any] | None = None
    predicate: Callable[[str, Any], bool] | None = None
    version: str = ""
    _places: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.prefix or self.fields or self.predicate):
            raise ConfigurationError(
                "a Filter without prefix, fields or predicate refused: it leaves nothing out. Pass filter=None."
            )
        places = []
        for place, wanted in (self.fields or {}).items():
            values = tuple(wanted) if isinstance(wanted, list | tuple) else (wanted,)
            places.append((_steps(place), values))
        object.__setattr__(self, "_places", tuple(places))

    @cached_property
    def identity(self) -> str:
        """What tells this filter from others: 16 hexadecimal digits, the same in every process.

        Raises:
            ConfigurationError: a value among the fields is none that JSON has, or
                whether the function has changed cannot be told; give a version.
        """
        named = None
        if self.predicate is not None and self.version:
            kind = type(self.predicate)
            module = getattr(self.predicate, "__module__", kind.__module__)
            named = f"{module}.{getattr(self.predicate, '__qualname__', kind.__qualname__)}"
        elif self.predicate is not None:
            named = fingerprint(self.predicate)
        fields = None if self.fields is None else [[place, list(values)] for place, values in self._places]
        try:
            text = json.dumps([self.prefix, fields, named, self.version], sort_keys=True)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"fields of a Filter refused: {error}. Use values that JSON has.") from error
        return blake2b(text.encode(), digest_size=8).hexdigest()

    @cached_property
    def keys(self) -> KeyRange:
        """The range of keys that the prefix stands for."""
        return key_range(self.prefix)

    @property
    def needs_values(self) -> bool:
        """Whether keys alone do not decide."""
        return bool(self._places) or self.predicate is not None

    def wants(self, key: str, value: Any) -> bool:
        """Whether a document with this live value is wanted. What the predicate raises goes through."""
        if not key.startswith(self.prefix):
            return False
        for steps, values in self._places:
            found = _at(value, steps)
            if not any(_same(found, each) for each in values):
                return False
        return self.predicate is None or bool(self.predicate(key, value))


def _steps(place: str) -> tuple[str, ...]:
    if not isinstance(place, str) or not place:
        raise ConfigurationError(
            f"{place!r} as a place in a Filter refused: use a JSON Pointer such as '/author/name', or 'author.name'."
        )
    if place.startswith("/"):
        return tuple(step.replace("~1", "/").replace("~0", "~") for step in place[1:].split("/"))
    return tuple(place.split("."))


def _at(value: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            if step not in value:
                return _NOWHERE
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _NOWHERE
    return value


def _same(found: Any, wanted: Any) -> bool:
    """Equal as JSON: True is no 1."""
    return found is not _NOWHERE and isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)
