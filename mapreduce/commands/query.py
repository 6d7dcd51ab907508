"""`vstore query EXPRESSION [COLLECTION]`: which documents, what of them, and what they come to.

What an option says is read before the store is opened, so that a slip of the
pen costs nothing and exits with 2.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import click

from mapreduce.commands.formats import Format, Row, chosen_format, format_options, printed
from mapreduce.commands.options import Documents, Running, documents_options, read, running_options
from vstore.cli.options import chosen, opened, store_option
from vstore.cli.output import counted, flush, plain, text
from vstore.hlc import iso


def _many(name: str, metavar: str, help: str) -> Callable[..., Any]:
    return click.option(name, metavar=metavar, multiple=True, help=help)


@click.command("query")
@click.argument("expression", required=False)
@click.argument("collection", required=False)
@_many("--select", "ITEM,…", "Columns: paths and calculations; `price * 2 as double`. Of groups, their columns.")
@_many("--group-by", "ITEM,…", "One row for each value of these.")
@click.option("--count", is_flag=True, help="How many documents, in each group.")
@_many("--sum", "ITEM,…", "The sum of this, in each group.")
@_many("--mean", "ITEM,…", "The mean.")
@_many("--min", "ITEM,…", "The least.")
@_many("--max", "ITEM,…", "The largest.")
@_many("--aggregate", "FIGURE,…", "Any other: `best = top(3, score), median = quantiles(0.5, age)`.")
@_many("--order-by", "COLUMN,…", "Sort by columns or items; with - before one from its end.")
@click.option("--limit", type=click.IntRange(min=0), help="So many rows at most.")
@click.option("--offset", type=click.IntRange(min=0), help="Leave out so many rows first.")
@click.option("--after", metavar="CURSOR", help="Go on behind the rows of an earlier query of the same --order-by.")
@click.option("--explain", is_flag=True, help="Say how it would run, and run nothing.")
@documents_options
@running_options
@format_options
@store_option
def command(
    expression: str | None,
    collection: str | None,
    select: tuple[str, ...],
    group_by: tuple[str, ...],
    count: bool,
    sum: tuple[str, ...],
    mean: tuple[str, ...],
    min: tuple[str, ...],
    max: tuple[str, ...],
    aggregate: tuple[str, ...],
    order_by: tuple[str, ...],
    limit: int | None,
    offset: int | None,
    after: str | None,
    explain: bool,
    documents: Documents,
    running: Running,
    format: Format | None,
    as_json: bool,
    as_csv: bool,
    urls: tuple[str, ...],
) -> None:
    """Ask documents a question.

    \b
        vstore query 'section == "games" and installed_size > 10000' packages
        vstore query --group-by section --count --order-by -count packages

    EXPRESSION is a condition: paths such as author.name and lines[0].price, == != < <= > >=, in, between, startswith,
    matches, is null, is missing, any(lines, price > 3), and, or, not. Prints the documents for which it is true; of
    all, without it. A single argument is the COLLECTION if there is one of that name.
    """
    from mapreduce.query.fields import Path
    from mapreduce.query.language import figures, items, parsed

    format = chosen_format(format, as_json, as_csv)
    groups = [item for given in group_by for item in read(items, given, "--group-by")]
    wanted = [item for given in (("count()",) if count else ()) for item in figures(given)]
    for name, values in (("sum", sum), ("mean", mean), ("min", min), ("max", max)):
        wanted += [item for given in values for item in read(partial(_figured, name), given, f"--{name}")]
    wanted += [item for given in aggregate for item in read(figures, given, "--aggregate")]
    if groups and not wanted:
        raise click.UsageError("--group-by wants a figure for each group: --count, --sum, --aggregate, …")
    made = _different([item.name for item in (*groups, *wanted)])
    selected = [item for given in select for item in read(partial(_selected, made), given, "--select")]
    columns = _different([item.name for item in selected]) or made
    order = [each for given in order_by for each in read(partial(_order, [*columns, *made]), given, "--order-by")]
    if wanted:
        _only_columns("--select", [item.value for item in selected], made)
        _only_columns("--order-by", order, made)
    if after is not None and not order:
        raise click.UsageError("--after goes on in an order: give the --order-by of the earlier query.")

    with opened(urls) as store:
        names, condition = store.collections(), None
        if expression is not None and collection is not None and expression in names and collection not in names:
            raise click.UsageError(f"the expression comes first: vstore query {shlex.quote(collection)} {expression}")
        if expression is not None and (collection is not None or expression not in names):
            condition = read(parsed, expression)
            if collection is None and isinstance(condition, Path):
                name = plain(expression)
                click.echo(
                    f"vstore: there is no collection {name!r}; read as a condition: where {name} is true", err=True
                )
        elif expression is not None:
            collection = expression
        over = documents.of(chosen(store, collection))
        asked = _query(over, condition, running, streams=not (wanted or order))
        if groups:
            asked = asked.group_by(**{item.name: item.value for item in groups})
        if wanted:
            asked = asked.aggregate(**{item.name: item.value for item in wanted})
        if selected:
            asked = asked.select(**{item.name: item.value for item in selected})
        if order:
            asked = asked.order_by(*order)
        if after is not None:
            asked = asked.after(after)
        if offset is not None:
            asked = asked.offset(offset)
        if limit is not None:
            asked = asked.limit(limit)
        if explain:
            text(str(asked.explain()))
            return
        with closing(iter(asked)) as rows:
            number = printed(_rows(rows), columns or _columns(documents), format)
        flush()
        counters = asked.counters
        if counters is None:  # not one row was asked for
            click.echo("0 rows; nothing was read", err=True)
            return
        click.echo(
            f"{counted(counters.documents, 'document')}, {counted(number, 'row')} in {counters.seconds:.1f} s"
            f"{running.told(counters, asked.skipped)}",
            err=True,
        )
        if number and number == limit and asked.cursor is not None:
            click.echo(f"vstore: the next rows: --after {asked.cursor}", err=True)


def _query(over: Any, condition: Any, running: Running, *, streams: bool) -> Any:
    from mapreduce.query.query import query

    # Rows that come while documents are still read would be written into the line that says how far it is.
    silent = streams and sys.stdout.isatty()
    asked = query(over, progress=not silent, **running.settings())
    return asked if condition is None else asked.where(condition)


def _figured(name: str, given: str) -> list[Any]:
    """The figures of that name over some items; one is named as the item is, if that was given a name."""
    from mapreduce.query.figures import figure
    from mapreduce.query.language import Item, items

    return [
        Item(item.name if item.given else f"{name}({item.name})", figure(name, [item.value])) for item in items(given)
    ]


def _different(columns: list[str]) -> list[str]:
    """The columns, once it is known that no two have one name."""
    for name in columns:
        if columns.count(name) > 1:
            raise click.UsageError(f"there are two columns {name!r}. Give one another name: `… as name`.")
    return columns


def _selected(made: Sequence[str], given: str) -> list[Any]:
    """What to show: columns of groups by their names, and else items."""
    from mapreduce.query.fields import Path
    from mapreduce.query.language import Item, items, named

    for names in ([given], [each.strip() for each in given.split(",")]):
        if all(name in made for name in names):
            return [Item(name, Path((name,))) for name in names]
    chosen = items(given)
    return [replace(each, value=Path((named(each.value),))) if named(each.value) in made else each for each in chosen]


def _order(columns: Sequence[str], given: str) -> list[Any]:
    """What to sort by: columns by their names, and expressions where there are none of that name; - is from the end."""
    from mapreduce.query.language import orders

    # The name of a figure, such as sum(price), is no expression; one that has a comma goes into an option of its own.
    for names in ([given], [each.strip() for each in given.split(",")]):
        if all(name.removeprefix("-") in columns for name in names):
            return list(names)
    return list(orders(given))


def _only_columns(option: str, given: Sequence[Any], columns: Sequence[str]) -> None:
    """Refuses what groups have not."""
    from mapreduce.query.fields import about, paths, steps

    for each in given:
        if isinstance(each, str):
            continue
        if marks := about(each):
            raise click.UsageError(f"{option}: groups are no documents and have no @{min(marks)}.")
        for path in paths(each):
            if steps(path)[:1] and steps(path)[0] not in columns:
                hint = f" In calculations it is written `{path}`." if str(path) in columns else ""
                raise click.UsageError(f"{option}: groups have no column '{path}', but {', '.join(columns)}.{hint}")


def _columns(documents: Documents) -> list[str]:
    return ["key", "rev", "time", "deleted", "doc"] if documents.history else ["key", "doc"]


def _rows(rows: Iterator[Any]) -> Iterator[Row]:
    """Rows as dicts; whole documents as other commands print them."""
    from vstore.document import Document

    for row in rows:
        if isinstance(row, dict):
            yield row
            continue
        key, value = row
        if isinstance(value, Document):
            yield {
                "key": key,
                "rev": value.rev,
                "time": iso(value.stamp),
                "stamp": value.stamp,
                "deleted": value.deleted,
                **({} if value.deleted else {"doc": value.value}),
            }
        else:
            yield {"key": key, "doc": value}
