"""Views that a file declares, so that the command line and daemons can keep them without the program.

A Python file, with decorated functions, in the order they stand in:

    from mapreduce import declare_view

    @declare_view("posts", reduce="sum")
    def by_tag(key, value):
        for tag in value["tags"]:
            yield tag, 1

Or a TOML file that names functions, with paths from its own folder:

    [by_tag]
    collection = "posts"
    map = "functions.py:by_tag"
    reduce = "sum"

Loading has no effect on any store.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from mapreduce.reducers.names import reducer_named
from mapreduce.views.emitted import MapFunction
from mapreduce.views.reduction import Reduce, Reduction
from mapreduce.views.view import View, view
from vstore.cli.functions import loaded
from vstore.errors import ConfigurationError
from vstore.reading import OnConflict
from vstore.store import Store

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__declared_views__"
_TEXTS = ("collection", "map", "reduce", "name", "prefix", "version", "database", "on_conflict")


@dataclass(frozen=True)
class Declaration:
    """A view as a file declares it. `place` says where."""

    name: str
    collection: str
    map: MapFunction
    reduce: Reduce | str | None = None
    prefix: str = ""
    version: str | int | None = None
    database: str | None = None
    on_conflict: OnConflict = "winner"
    place: str = ""

    def of(self, store: Store, *, workers: int | None = None) -> View:
        """The view in a store. Raises ConfigurationError as `view` does, with the place."""
        documents = store[self.collection]
        if self.prefix:
            documents = documents.prefixed(self.prefix)
        try:
            return view(
                documents,
                self.name,
                map=self.map,
                reduce=self.reduce,
                version=self.version,
                database=self.database,
                on_conflict=self.on_conflict,
                workers=workers,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.place}: {error}") from error


def declare_view(
    collection: str,
    *,
    name: str | None = None,
    reduce: Reduce | str | None = None,
    prefix: str = "",
    version: str | int | None = None,
    database: str | None = None,
    on_conflict: OnConflict = "winner",
) -> Callable[[F], F]:
    """Marks a map function as a view, for files that declare views. The function itself stays as it is.

    Args:
        collection: its name.
        name: of the view; by default the function's.
        prefix: only documents whose keys begin so; the function gets the rest of the key.
        reduce, version, database, on_conflict: as for `view`.
    """

    def mark(function: F) -> F:
        code = getattr(function, "__code__", None)
        place = f"{code.co_filename}, line {code.co_firstlineno}" if code is not None else ""
        made = Declaration(
            name or function.__name__, collection, function, reduce, prefix, version, database, on_conflict, place
        )
        setattr(function, _MARK, (*getattr(function, _MARK, ()), made))
        return function

    return mark


def declarations(file: str | Path) -> list[Declaration]:
    """The views that a file declares, `.py` or `.toml`.

    Raises:
        ConfigurationError: there is no such file, it cannot be read, declares
            nothing or something wrong; with the line where that can be told.
    """
    path = Path(file)
    if not path.is_file() or path.suffix not in (".py", ".toml"):
        raise ConfigurationError(f"{file} is no file that declares views. Nothing was done. Name a .py or .toml file.")
    found = _of_python(path) if path.suffix == ".py" else _of_toml(path)
    if not found:
        raise ConfigurationError(f"{file} declares no views. Nothing was done. Decorate functions with @declare_view.")
    seen: dict[tuple[str, str, str], Declaration] = {}
    for each in found:
        other = seen.setdefault((each.collection, each.prefix, each.name), each)
        if other is not each:
            raise ConfigurationError(
                f"{each.place}: the view {each.name!r} of {each.collection!r} is declared already, at {other.place}. "
                f"Nothing was done. Give one of them another name."
            )
        _check(each)
    return found


def _of_python(path: Path) -> list[Declaration]:
    from vstore.cli.functions import module_of

    try:
        module = module_of(path)
    except click.UsageError as error:
        raise ConfigurationError(f"{error.message} Nothing was done.") from error
    found: dict[int, Declaration] = {}
    for value in vars(module).values():
        for each in getattr(value, _MARK, ()):
            found[id(each)] = each
    return list(found.values())


def _of_toml(path: Path) -> list[Declaration]:
    text = path.read_text(encoding="utf-8")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}. Nothing was done.") from error
    return [_of_table(path, text, label, table) for label, table in tables.items()]


def _of_table(path: Path, text: str, label: str, table: Any) -> Declaration:
    def refuse(key: str, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{_place(path, text, label, key)}: {problem} Nothing was done.")

    if not isinstance(table, dict):
        raise refuse("", f"{label!r} is no table. A view is a table: [{label}].")
    for key, value in table.items():
        if key not in _TEXTS:
            raise refuse(key, f"{key!r} is no setting of a view; known are {', '.join(_TEXTS)}.")
        if not isinstance(value, str) and not (key == "version" and type(value) is int):
            raise refuse(key, f"{key} is {value!r}; write a text.")
    for key in ("collection", "map"):
        if key not in table:
            raise refuse("", f"the view {label!r} has no {key}.")
    try:
        map_function = loaded(str(path.parent / table["map"]), ("key", "value"))
    except click.UsageError as error:
        raise refuse("map", error.message) from error
    reduce: Any = table.get("reduce")
    if reduce is not None and ".py:" in reduce:
        try:
            reduce = loaded(str(path.parent / reduce), ("key", "values"))
        except click.UsageError as error:
            raise refuse("reduce", error.message) from error
    elif reduce is not None:
        try:
            reduce = reducer_named(reduce)
        except ConfigurationError as error:
            raise refuse("reduce", str(error)) from error
    return Declaration(
        table.get("name", label),
        table["collection"],
        map_function,
        reduce,
        table.get("prefix", ""),
        table.get("version"),
        table.get("database"),
        table.get("on_conflict", "winner"),
        _place(path, text, label, ""),
    )


def _check(each: Declaration) -> None:
    """Refuses what `view` would refuse, before any store is opened."""
    if each.on_conflict not in ("winner", "skip", "raise"):
        raise ConfigurationError(
            f"{each.place}: on_conflict is {each.on_conflict!r}; it is winner, skip or raise. Nothing was done."
        )
    if each.reduce is not None:
        try:
            Reduction(each.reduce)
        except ConfigurationError as error:
            raise ConfigurationError(f"{each.place}: {error}") from error


def _place(path: Path, text: str, label: str, key: str) -> str:
    """Where a setting stands in a TOML file: of its table, if it is not found by itself."""
    at = None
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[\s*(?:\"([^\"]*)\"|'([^']*)'|([^\]\s]*))\s*\]", line)
        if head:
            inside = label in head.groups()
            at = number if inside else at
        elif inside and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            at = number
    return f"{path}, line {at}" if at else str(path)


def views_in(store: Store, found: Sequence[Declaration], *, workers: int | None = None) -> list[View]:
    """The declared views in a store."""
    return [each.of(store, workers=workers) for each in found]
