"""`conflicts` and `resolve`: documents that several writers changed at once."""

from __future__ import annotations

from typing import Any

import click

from vstore.cli.functions import resolver_of
from vstore.cli.options import chosen, json_option, opened, rev_of, store_option, value_of
from vstore.cli.output import counted, line, plain, short, text, version, written
from vstore.errors import Conflict, ResolverError
from vstore.hlc import iso
from vstore.limited import Limited
from vstore.resolvers import DELETE, identity


@click.command("conflicts")
@click.argument("collection", required=False)
@json_option
@store_option
def conflicts(collection: str | None, as_json: bool, urls: tuple[str, ...]) -> None:
    """List documents with several live siblings, the siblings, and why a resolver did not settle them."""
    with opened(urls) as store:
        documents = chosen(store, collection)
        for document in documents.conflicts():
            left = documents.unsettled(document)
            if as_json:
                siblings = [
                    {name: value for name, value in version(sibling).items() if name not in ("key", "deleted")}
                    for sibling in document.siblings
                ]
                why = [
                    {"resolver": each.resolver, "reason": each.reason, "since": iso(each.since_us), "tries": each.tries}
                    for each in left
                ]
                line({"key": document.key, "context": str(document.context), "siblings": siblings, "unsettled": why})
                continue
            text(plain(document.key))
            for sibling in document.siblings:
                text(f"  {iso(sibling.stamp)}  {sibling.rev}  {short(sibling.value)}")
            for each in left:
                text(f"  {each.resolver}: {plain(each.reason)} (since {iso(each.since_us)})")


@click.command("resolve")
@click.argument("collection")
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--rev", metavar="REV", help="Take the value of this sibling.")
@click.option("--delete", "delete", is_flag=True, help="Delete the document.")
@click.option("--resolver", metavar="NAME|FILE.py:FUNCTION", help="Let a function decide.")
@click.option("--all", "every", is_flag=True, help="All documents with siblings. Needs --resolver.")
@store_option
def resolve(
    collection: str,
    key: str | None,
    value: str | None,
    rev: str | None,
    delete: bool,
    resolver: str | None,
    every: bool,
    urls: tuple[str, ...],
) -> None:
    """Settle a document that has siblings.

    One version replaces them all: by VALUE (JSON, @FILE or -), by the --rev of a sibling, by --delete, or by a
    --resolver: keep, winner, last_write, json3 (three-way merge), or a function(conflict) of yours that returns a
    value, DELETE or KEEP, within 5 seconds. Exit 4 if siblings are left; `vstore conflicts` then says why.
    """
    if sum([value is not None, rev is not None, delete, resolver is not None]) != 1:
        raise click.UsageError("give one of VALUE, --rev, --delete and --resolver.")
    if every != (key is None) or (every and resolver is None):
        raise click.UsageError("give a KEY, or --all with a --resolver.")
    answer: Any = Limited(resolver_of(resolver)) if resolver is not None else DELETE if delete else None
    if value is not None:
        answer = value_of(value)
    kept = failed = 0
    with opened(urls) as store:
        documents = chosen(store, collection)
        for each in [key] if key is not None else (document.key for document in documents.conflicts()):
            if rev is not None:
                answer = documents.version(each, rev_of(documents, each, rev)).value
            try:
                document = documents.resolve(each, answer)
            except ResolverError as error:
                if not every:
                    raise
                failed += 1
                click.echo(f"vstore: {error}", err=True)
                document = documents.read(each, on_conflict="winner", deleted=True)
                documents.leave(document, by=identity(answer), reason=error.reason)
                continue
            if document.conflicted:
                kept += 1
                documents.leave(document, by=identity(answer), reason="kept them")
            written(document)
    if kept or failed:
        did = "kept or failed on" if kept and failed else "kept" if kept else "failed on"
        raise Conflict(
            f"{counted(kept + failed, 'document')} left with siblings: the resolver {did} them. Nothing was lost."
        )
