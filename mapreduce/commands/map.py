"""`vstore map FILE:FUNCTION [COLLECTION]`: a map function from a file over a collection.

stdout is data, one group per line; stderr is talk. A FILE:FUNCTION or condition
that cannot be used is a mistake in the command line and exits with 2, before the
store is opened; all other errors are left to the command line's main.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from mapreduce.commands.formats import as_json_text
from mapreduce.commands.options import (
    Documents,
    Running,
    documents_options,
    read,
    running_options,
    traced,
)
from vstore.cli.functions import loaded
from vstore.cli.options import chosen, json_option, opened, store_option
from vstore.cli.output import counted, flush, out, plain, text
from vstore.errors import ConfigurationError


@click.command("map")
@click.argument("function", metavar="FILE:FUNCTION")
@click.argument("collection", required=False)
@click.option("--reduce", "reduce", default="sum", show_default=True, metavar="NAME|FILE:FUNCTION")
@click.option("--fields", metavar="PATH,…", multiple=True, help="The parts of documents it needs; others are not read.")
@click.option("--where", metavar="EXPRESSION", help="Only documents for which this is true; as for `vstore query`.")
@click.option("--into", metavar="COLLECTION", help="Store each group as a document, instead of printing it.")
@documents_options
@running_options
@json_option
@store_option
def command(
    function: str,
    collection: str | None,
    reduce: str,
    fields: tuple[str, ...],
    where: str | None,
    into: str | None,
    documents: Documents,
    running: Running,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """Map documents with a Python function and reduce by key.

    FILE:FUNCTION names a function(key, value) that yields (key, value) pairs. --reduce is sum, count, min, max, mean,
    stats, top:10, collect, distinct, distinct~, quantiles:0.5,0.9, first, last, or a function(key, values) of yours.
    Prints the groups in the order of their keys.
    """
    from mapreduce.query.fields import Path
    from mapreduce.query.language import items, parsed, text_of

    map_function, reducer = loaded(function, ("key", "value")), reducer_named(reduce)
    paths = [item.value for given in fields for item in read(items, given, "--fields")]
    for path in paths:
        if not isinstance(path, Path):
            raise click.UsageError(f"--fields takes paths such as author.name, and {text_of(path)!r} is none.")
    condition = read(parsed, where, "--where") if where is not None else None
    settings = running.settings()
    if paths:
        settings["fields"] = paths
    with opened(urls) as store:
        over = documents.of(chosen(store, collection))
        if condition is not None:
            settings["where"] = condition
        told = partial(_told, running)
        with traced():
            if into is None:
                print_groups(over, map_function, reducer, as_json, told, **settings)
            else:
                stored_groups(over, map_function, reducer, store[into], told, **settings)


def print_groups(
    over: Any,
    map_function: Callable[..., Any],
    reducer: Any,
    as_json: bool,
    told: Callable[[Any], str] = lambda result: "",
    **settings: Any,
) -> None:
    """Runs the job and prints its groups in key order, then on stderr what it did."""
    from mapreduce.engine import run

    with run(over=over, map=map_function, reduce=reducer, progress=True, **settings) as result:
        for key, value in result:
            if as_json:
                out(f"{as_json_text({'key': key, 'value': value})}\n".encode())
            else:
                text(f"{_plain(key)}\t{_plain(value)}")
        flush()
        click.echo(f"{_summary(result)}{told(result)}", err=True)


def stored_groups(
    over: Any,
    map_function: Callable[..., Any],
    reducer: Any,
    into: Any,
    told: Callable[[Any], str],
    **settings: Any,
) -> None:
    """Runs the job and stores its groups, then says on stderr what it did."""
    from mapreduce.engine import run

    with run(over=over, map=map_function, reduce=reducer, progress=True, into=into, **settings) as result:
        click.echo(f"{_summary(result)} into {plain(into.name)!r}{told(result)}", err=True)


def reducer_named(name: str) -> Any:
    """The reducer of that name, or the function `reduce(key, values)` that FILE:FUNCTION names.

    Raises:
        click.UsageError: there is neither.
    """
    from mapreduce.reducers.names import reducer_named

    if ".py:" in name:
        return loaded(name, ("key", "values"))
    try:
        return reducer_named(name)
    except ConfigurationError as error:
        raise click.UsageError(f"--reduce: {error} Or name a function of yours: FILE.py:function.") from None


def _summary(result: Any) -> str:
    counters = result.counters
    return (
        f"{counted(counters.documents, 'document')}, {counted(counters.pairs, 'pair')}, "
        f"{counted(len(result), 'key')} in {counters.seconds:.1f} s"
    )


def _told(running: Running, result: Any) -> str:
    return running.told(result.counters, result.skipped)


def _plain(value: Any) -> str:
    return plain(value) if isinstance(value, str) else as_json_text(value)
