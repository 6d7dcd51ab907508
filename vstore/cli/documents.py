"""`put`, `get`, `delete`, `keys`: documents as they are now."""

from __future__ import annotations

from itertools import islice

import click

from vstore.cli.options import chosen, json_option, lines_option, match_of, opened, rev_of, store_option, value_of
from vstore.cli.output import line, plain, text, version, written
from vstore.document import Document
from vstore.errors import NotFound

_CONTEXT = "What was seen, from `get --meta`: exactly that is replaced, and what came since stays as a sibling."
_MATCH = "Refuse (exit 4) unless the document is at this rev or context, or is not there (absent)."


@click.command("put")
@click.argument("collection")
@click.argument("key")
@click.argument("value")
@click.option("--context", metavar="CONTEXT", help=_CONTEXT)
@click.option("--match", metavar="REV|CONTEXT|absent", help=_MATCH)
@store_option
def put(collection: str, key: str, value: str, context: str | None, match: str | None, urls: tuple[str, ...]) -> None:
    """Store a document: a new version under KEY.

    VALUE is JSON, or @FILE that holds it, or - for stdin; an object with a name twice is refused. Without --context
    it replaces all that is there. Prints the rev that the document is at.
    """
    content, condition = value_of(value), match_of(match)
    with opened(urls, create=True) as store:
        written(store[collection].put(key, content, context=context, match=condition))


@click.command("get")
@click.argument("collection")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--meta", is_flag=True, help="Print rev, time, context and siblings with the value; never a conflict.")
@click.option("--rev", metavar="REV", help="An old version, by its rev or the beginning of it.")
@lines_option
@store_option
def get(collection: str, keys: tuple[str, ...], meta: bool, rev: str | None, urls: tuple[str, ...]) -> None:
    """Print a document's value as one line of JSON.

    With several KEYs, a line {"key": …, "doc": …} for each. Exit 3 if one is not there, 4 if it has siblings.
    """
    missing = None
    with opened(urls) as store:
        documents = chosen(store, collection)
        for key in keys:
            try:
                if rev is not None:
                    document = documents.version(key, rev_of(documents, key, rev))
                elif meta:
                    document = documents.read(key, on_conflict="winner", deleted=True)
                else:
                    document = documents.read(key)
            except NotFound as error:
                if len(keys) == 1:
                    raise
                click.echo(f"vstore: {error}", err=True)
                missing = error
                continue
            if meta:
                line(_meta(document))
            else:
                line(document.value if len(keys) == 1 else {"key": key, "doc": document.value})
    if missing is not None:
        raise NotFound("not all documents are there; those that are have been printed.")


@click.command("delete")
@click.argument("collection")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--context", metavar="CONTEXT", help=_CONTEXT)
@click.option("--match", metavar="REV|CONTEXT", help=_MATCH)
@store_option
def delete(
    collection: str, keys: tuple[str, ...], context: str | None, match: str | None, urls: tuple[str, ...]
) -> None:
    """Delete documents. Their history stays, and a tombstone tells replicas."""
    if len(keys) > 1 and (context or match):
        raise click.UsageError("--context and --match are of one document. Give one KEY.")
    condition = match_of(match)
    with opened(urls) as store:
        documents = chosen(store, collection)
        for key in keys:
            written(documents.delete(key, context=context, match=condition))


@click.command("keys")
@click.argument("collection", required=False)
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--start", help="The first key that may come, included.")
@click.option("--end", help="The end, not included.")
@click.option("--reverse", is_flag=True, help="From the end to the start.")
@click.option("--limit", type=click.IntRange(min=0), help="So many at most.")
@json_option
@store_option
def keys(
    collection: str | None,
    prefix: str,
    start: str | None,
    end: str | None,
    reverse: bool,
    limit: int | None,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """List the keys of live documents, sorted by their bytes."""
    with opened(urls) as store:
        found = chosen(store, collection).keys(prefix, start or "", end, reverse)
        for key in islice(found, limit):
            if as_json:
                line(key)
            else:
                text(plain(key))


def _meta(document: Document) -> dict[str, object]:
    siblings = [
        {name: value for name, value in version(sibling).items() if name not in ("key", "deleted")}
        for sibling in document.siblings
    ]
    return {**version(document), "context": str(document.context), "siblings": siblings}
