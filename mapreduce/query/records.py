"""Decoding only the declared parts of documents, by msgspec structs made for them.

    "country", "address.city", "lines[*].count"

    class Record: country: Any; address: Record{city: Any} | other; lines: list[Record{count: Any} | other]

The parser skips everything else, without making objects of it: two or three
fields of a document of 500 bytes cost a third of the whole (`reference`: 2.8 to
3.2 against 1.16 million documents a second).

A part that is not of the type its path wants (a string where `address.city` is
declared) stays what it is. Where the structs cannot say what the documents may
hold, the document is decoded whole and cut to the same records: `decode` of a
body equals `convert` of its value, always.

Keeps out: what is done with the records, which is `mapreduce.query.code`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from keyword import iskeyword
from typing import Any, ClassVar, NoReturn
from unicodedata import normalize

import msgspec

from mapreduce.query.fields import Path, path, steps
from mapreduce.query.meaning import MISSING
from vstore.canonical import decoded
from vstore.document import Document


@dataclass(frozen=True)
class Part:
    """What is declared of one place in documents: its members by name, its elements, or all there is.

    A tree of them stands for a set of paths, whatever their order.
    """

    names: tuple[tuple[str, Part], ...] = ()
    elements: Part | None = None
    whole: bool = False

    def member(self, name: str) -> Part:
        """What is declared of a member; all there is, below a place that is declared whole."""
        return WHOLE if self.whole else dict(self.names)[name]

    def element(self) -> Part:
        """What is declared of the elements."""
        return WHOLE if self.whole or self.elements is None else self.elements


WHOLE = Part(whole=True)


def declared(paths: Iterable[Path]) -> Part:
    """The tree of some paths. One that begins like another, shorter path is part of that one."""
    return _part([steps(path) for path in paths])


def _part(below: list[tuple[Any, ...]]) -> Part:
    if not all(below):
        return WHOLE
    names: dict[str, list[tuple[Any, ...]]] = {}
    elements = []
    for first, *rest in below:
        if isinstance(first, str):
            names.setdefault(first, []).append(tuple(rest))
        else:
            elements.append(tuple(rest))
    return Part(
        tuple((name, _part(names[name])) for name in sorted(names)),
        _part(elements) if elements else None,
    )


class Record(msgspec.Struct, frozen=True, gc=False):
    """The declared parts of one object; read-only.

    `record.name` is the part, or MISSING if the document has none; `["name"]`
    raises KeyError then, `get` gives its default, and `in` tells. A part that
    was not declared raises AttributeError or KeyError. Names that are methods
    here, or begin with an underscore, are reached with ["..."] alone.
    """

    __names__: ClassVar[dict[str, str]] = {}  # of the declared parts, and the attributes that hold them
    __part__: ClassVar[Part]

    def __getitem__(self, name: str) -> Any:
        try:
            value = getattr(self, self.__names__[name])
        except KeyError:
            raise KeyError(self._undeclared(name)) from None
        if value is MISSING:
            raise KeyError(name)
        return value

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(self._undeclared(name))

    def _undeclared(self, name: str) -> str:
        return f"{name!r} is not among the declared fields {', '.join(self.__names__)}"

    def get(self, name: str, default: Any = None) -> Any:
        """The part, or the default if the document has none. Raises KeyError for a part that was not declared."""
        try:
            value = getattr(self, self.__names__[name])
        except KeyError:
            raise KeyError(self._undeclared(name)) from None
        return default if value is MISSING else value

    def __contains__(self, name: object) -> bool:
        attribute = self.__names__.get(name)  # type: ignore[call-overload]
        return attribute is not None and getattr(self, attribute) is not MISSING

    def keys(self) -> Iterator[str]:
        """The names of the declared parts that the document has, so that `dict(record)` works."""
        return (name for name, attribute in self.__names__.items() if getattr(self, attribute) is not MISSING)

    def __repr__(self) -> str:
        return f"Record({dict(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made at run time and cannot be found by name, where the record arrives.
        return _restored, (self.__part__, tuple(getattr(self, attribute) for attribute in self.__names__.values()))


def _restored(part: Part, values: tuple[Any, ...]) -> Record:
    return record_type(part)(*values)


@cache
def record_type(part: Part) -> type[Record]:
    """The struct of an object of which these members are declared; the same one each time.

    Its attributes are in `attributes(part)`.
    """
    names = attributes(part)
    made: type[Any] = msgspec.defstruct(
        "Record",
        [(names[name], _annotation(below), MISSING) for name, below in part.names],
        bases=(Record,),
        rename={attribute: name for name, attribute in names.items() if _speakable(name)},
        frozen=True,
        gc=False,
        namespace={"__names__": names, "__part__": part},
    )
    return made


def _speakable(name: str) -> bool:
    """Whether msgspec knows the name: it compares names with the bytes of the body, so none that JSON would escape."""
    return not set('"\\') & set(name) and min(name, default="a") >= " "


def _decodable(part: Part) -> bool:
    """Whether structs can find all declared members in a body."""
    inner = [below for _, below in part.names] + ([part.elements] if part.elements else [])
    return all(_speakable(name) for name, _ in part.names) and all(map(_decodable, inner))


def attributes(part: Part) -> dict[str, str]:
    """The attribute that holds each declared member."""
    found = {}
    for number, (name, _) in enumerate(part.names):
        found[name] = name if _is_attribute(name) else f"_{number}"
    return found


def _is_attribute(name: str) -> bool:
    if not name.isidentifier() or iskeyword(name) or normalize("NFKC", name) != name:  # as Python does with its source
        return False
    return not name.startswith("_") and not hasattr(Record, name)


def _annotation(part: Part) -> Any:
    if part.whole:
        return Any
    # Whatever else may stand here has to be named too: msgspec has no "or anything".
    array: Any = list[_annotation(part.elements)] if part.elements else list[Any]  # type: ignore[misc]
    return record_type(part) | array | str | int | float | bool | None


@dataclass(frozen=True, init=False)
class Fields:
    """The `Shape` of documents of which only some paths are wanted.

    Objects become records; what is no object, the whole document included, stays
    what it is. If the document as such is declared (`F`), so does everything.
    """

    part: Part
    paths: tuple[Path, ...] = field(compare=False)

    def __init__(self, paths: Iterable[Path | str]) -> None:
        found = tuple(path(one) for one in paths)
        object.__setattr__(self, "paths", found)
        object.__setattr__(self, "part", declared(found))

    @property
    def whole(self) -> bool:
        """Whether all of the document is wanted, so that `decode` gives its plain value."""
        return self.part.whole

    @property
    def typed(self) -> bool:
        """Whether `decode` makes the records without decoding the rest."""
        return not self.part.whole and _decodable(self.part)

    @cached_property
    def decode(self) -> Callable[[bytes], Any]:
        """The function from a body to its record.

        It raises CodecError or msgspec.DecodeError for a body that is not JSON;
        damage in parts that are not declared goes unnoticed.
        """
        # The C function itself: a method of ours around it would add a third to what it takes.
        if self.part.whole:
            return decoded
        if self.typed:
            return msgspec.json.Decoder(_annotation(self.part)).decode
        return lambda data: self.convert(decoded(data))

    @cached_property
    def decode_list(self) -> Callable[[bytes], list[Any]]:
        """The function from a JSON array of bodies to their records; there is none if one is not decoded in part."""
        if not self.typed:
            raise AttributeError("decode_list")
        return msgspec.json.Decoder(list[_annotation(self.part)]).decode  # type: ignore[misc]

    def convert(self, value: Any) -> Any:
        """The same from a value that is already decoded, or from the `Document` around it."""
        if isinstance(value, Document):
            return replace(value, value=_cut(value.value, self.part))
        return _cut(value, self.part)

    def __getstate__(self) -> dict[str, Any]:
        return {"part": self.part, "paths": self.paths}  # a decoder cannot travel


def _cut(value: Any, part: Part) -> Any:
    if part.whole:
        return value
    if isinstance(value, dict):
        return record_type(part)(
            *(_cut(value[name], below) if name in value else MISSING for name, below in part.names)
        )
    if isinstance(value, list | tuple) and part.elements:
        return [_cut(item, part.elements) for item in value]
    return value
