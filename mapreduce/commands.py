"""`vstore map FILE:FUNCTION [COLLECTION]`: a map function from a file over a collection.

stdout is data, one group per line; stderr is talk. A FILE:FUNCTION that cannot
be used is a mistake in the command line and exits with 2, before the store is
opened; all other errors are left to the command line's main.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import click
import orjson

from mapreduce.engine import run
from mapreduce.reducers import Count, Reducer, Sum
from vstore.errors import NotFound

BUILT_IN: dict[str, Callable[[], Reducer]] = {"sum": Sum, "count": Count}


class Collections(Protocol):
    """What is needed of a store: its collections, by name."""

    def __getitem__(self, name: str, /) -> Any: ...

    def __iter__(self) -> Iterator[str]: ...


def map_command(
    store: Collections,
    collection: str | None,
    map_function: Callable[..., Any],
    reducer: Any,
    workers: int | None,
    as_json: bool,
) -> None:
    """Run the job over one collection, the store's only one if none is named, and print its groups in key order."""
    result = run(over=store[collection or _only(store)], map=map_function, reduce=reducer, workers=workers)
    for key, value in result:
        click.echo(_json({"key": key, "value": value}) if as_json else f"{_plain(key)}\t{_plain(value)}")
    counters = result.counters
    click.echo(
        f"{counters.documents:,} documents, {counters.pairs:,} pairs, {len(result):,} keys in {counters.seconds:.1f} s",
        err=True,
    )


def loaded(place: str, parameters: tuple[str, ...]) -> Any:
    """The function that FILE:FUNCTION names, which must accept these parameters by position.

    The file is imported under its own name from its own folder, as `python FILE`
    would find its neighbours; so worker processes can import it too.

    Raises:
        click.UsageError: there is no such file or function, it cannot be
            imported, or it takes other arguments.
    """
    file, _, name = place.rpartition(":")
    if not file or not name:
        raise click.UsageError(f"{place!r} is not FILE:FUNCTION, such as jobs.py:words.")
    path = Path(file).resolve()
    if not path.is_file() or path.suffix != ".py":
        raise click.UsageError(f"{file} is not a Python file (from {place!r}).")
    function = getattr(_module(path), name, None)
    if not callable(function):
        raise click.UsageError(f"{file} has no function {name!r}.")
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        raise click.UsageError(
            f"{name}{inspect.signature(function)} in {file} cannot be called as {name}({', '.join(parameters)})."
        ) from None
    return function


def reducer_named(name: str) -> Any:
    """The reducer `sum` or `count`, or the function `reduce(key, values)` that FILE:FUNCTION names."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if ":" not in name:
        raise click.UsageError(f"--reduce {name!r} is neither {', '.join(sorted(BUILT_IN))} nor FILE:FUNCTION.")
    return loaded(name, ("key", "values"))


def _module(path: Path) -> Any:
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(path.stem)
    except Exception as error:
        raise click.UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}.") from error
    found = getattr(module, "__file__", None)
    if not found or Path(found).resolve() != path:
        raise click.UsageError(
            f"{path} cannot be imported as {path.stem!r}, since that name is taken by {found or 'a built-in module'}. "
            f"Rename the file."
        )
    return module


def _only(store: Collections) -> str:
    names = sorted(store)
    if len(names) == 1:
        return names[0]
    if not names:
        raise NotFound("the store has no collections yet, so there is nothing to map.")
    raise click.UsageError(f"the store has {len(names)} collections, name one of them: {', '.join(names)}.")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


@click.command("map")
@click.argument("function", metavar="FILE:FUNCTION")
@click.argument("collection", required=False)
@click.option("--store", "urls", multiple=True, metavar="URL", help="Store URL, once per shard; default $VSTORE_STORE.")
@click.option("--reduce", "reduce", default="sum", show_default=True, metavar="sum|count|FILE:FUNCTION")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; by default all cores if it pays.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def command(
    function: str, collection: str | None, urls: tuple[str, ...], reduce: str, workers: int | None, as_json: bool
) -> None:
    """Map a collection's documents with a Python function and reduce the values of each key.

    FILE:FUNCTION names a function(key, value) that yields (key, value) pairs.
    """
    map_function, reducer = loaded(function, ("key", "value")), reducer_named(reduce)
    from vstore.cli.options import opened  # type: ignore[import-not-found]

    with opened(urls) as store:
        map_command(store, collection, map_function, reducer, workers, as_json)
