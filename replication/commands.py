"""`vstore sync`: this store and others, brought to the same state."""

from __future__ import annotations

from dataclasses import asdict

import click

from replication.sync import Report, sync
from vstore.cli.functions import resolver_of
from vstore.cli.options import json_option, opened, store_option
from vstore.cli.output import counted, flush, line, plain, text
from vstore.errors import NotFound
from vstore.store import Store


@click.command("sync")
@click.argument("collections", metavar="[COLLECTION]...", nargs=-1)
@click.option("--with", "others", multiple=True, required=True, metavar="URL", help="The other store; for its shards.")
@click.option("--resolver", metavar="NAME|FILE.py:FUNCTION", help="Settle documents that both sides have changed.")
@json_option
@store_option
def command(
    collections: tuple[str, ...],
    others: tuple[str, ...],
    resolver: str | None,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """Bring this store and another to the same state, both ways.

    All collections, or those named. Afterwards both have the same documents. Those that both have changed keep the
    versions as siblings, unless a --resolver settles them: winner, last_write, json3 (three-way merge), or a
    function(conflict) of yours. A store that is not there yet is made.
    """
    settle = resolver_of(resolver) if resolver is not None else None
    with opened(urls, create=True) as here, Store(*others) as there:
        known = sorted({*here.collections(), *there.collections()})
        absent = [name for name in collections if name not in known]
        if absent or not known:
            raise NotFound(f"neither store has {f'a collection {absent[0]!r}' if absent else 'any collection'}.")
        for name in collections or known:
            report = sync(here[name], there[name], settle)
            if as_json:
                line({"collection": name, **asdict(report)})
            else:
                text(f"{plain(name)}: {_words(report)}")
            flush()


def _words(report: Report) -> str:
    """A report for people, from this side's point of view."""
    if not report and not report.conflicts:
        return "nothing to do"
    words = f"sent {counted(report.to_b.rows, 'row')}, received {report.to_a.rows:,}"
    if report.resolved:
        words += f", settled {counted(len(report.resolved), 'conflict')}"
    return f"{words}, {counted(report.conflicts, 'conflict')} left" if report.conflicts else words
