"""`vstore map FILE:FUNCTION [COLLECTION]`: a map function from a file over a collection.

stdout is data, one group per line; stderr is talk. A FILE:FUNCTION that cannot
be used is a mistake in the command line and exits with 2, before the store is
opened; all other errors are left to the command line's main.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import orjson

from mapreduce.engine import run
from mapreduce.reducers import Count, Reducer, Sum
from vstore.cli.functions import loaded
from vstore.cli.options import chosen, json_option, moment, opened, store_option
from vstore.cli.output import counted, flush, out, plain, text

BUILT_IN: dict[str, Callable[[], Reducer]] = {"sum": Sum, "count": Count}


@click.command("map")
@click.argument("function", metavar="FILE:FUNCTION")
@click.argument("collection", required=False)
@click.option("--reduce", "reduce", default="sum", show_default=True, metavar="sum|count|FILE:FUNCTION")
@click.option("--at", "when", metavar="MOMENT", type=moment, help="The documents as they were then.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; by default all cores if it pays.")
@json_option
@store_option
def command(
    function: str,
    collection: str | None,
    reduce: str,
    when: int | None,
    workers: int | None,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """Map documents with a Python function and reduce by key.

    FILE:FUNCTION names a function(key, value) that yields (key, value) pairs. A --reduce function gets (key, values).
    Prints the groups in the order of their keys.
    """
    map_function, reducer = loaded(function, ("key", "value")), reducer_named(reduce)
    with opened(urls) as store:
        documents = chosen(store, collection)
        over = documents if when is None else documents.at(when).items(on_conflict="winner")
        print_groups(over, map_function, reducer, workers, as_json)


def print_groups(over: Any, map_function: Callable[..., Any], reducer: Any, workers: int | None, as_json: bool) -> None:
    """Runs the job and prints its groups in key order, then on stderr what it did."""
    result = run(over=over, map=map_function, reduce=reducer, workers=workers)
    for key, value in result:
        if as_json:
            out(_json({"key": key, "value": value}) + b"\n")
        else:
            text(f"{_plain(key)}\t{_plain(value)}")
    flush()
    counters = result.counters
    click.echo(
        f"{counted(counters.documents, 'document')}, {counted(counters.pairs, 'pair')}, "
        f"{counted(len(result), 'key')} in {counters.seconds:.1f} s",
        err=True,
    )


def reducer_named(name: str) -> Any:
    """The reducer `sum` or `count`, or the function `reduce(key, values)` that FILE:FUNCTION names."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if ":" not in name:
        raise click.UsageError(f"--reduce {name!r} is neither {', '.join(sorted(BUILT_IN))} nor FILE:FUNCTION.")
    return loaded(name, ("key", "values"))


def _plain(value: Any) -> str:
    return plain(value) if isinstance(value, str) else _json(value).decode()


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise click.ClickException(f"a group cannot be printed as JSON: {error}.") from error
