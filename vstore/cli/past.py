"""`history`, `diff`, `revert`, `at`: documents as they were."""

from __future__ import annotations

from itertools import islice

import click

from vstore.cli.options import chosen, json_option, lines_option, moment, opened, rev_of, store_option
from vstore.cli.output import counted, line, out, plain, short, text, version, written
from vstore.errors import NotFound
from vstore.hlc import iso
from vstore.ndjson import exports


@click.command("history")
@click.argument("collection")
@click.argument("key")
@click.option("--limit", type=click.IntRange(min=0), help="So many at most.")
@json_option
@store_option
def history(collection: str, key: str, limit: int | None, as_json: bool, urls: tuple[str, ...]) -> None:
    """List a document's versions, newest first."""
    with opened(urls) as store:
        for each in islice(chosen(store, collection).history(key), limit):
            if as_json:
                line(version(each))
            else:
                text(f"{iso(each.stamp)}  {each.rev}  {'deleted' if each.deleted else short(each.value)}")


@click.command("diff")
@click.argument("collection")
@click.argument("key")
@click.argument("old", metavar="[REV]", required=False)
@click.argument("new", metavar="[REV]", required=False)
@json_option
@store_option
def diff(collection: str, key: str, old: str | None, new: str | None, as_json: bool, urls: tuple[str, ...]) -> None:
    """Show how a document changed between two versions.

    From one REV to another, or to now; without REV, what its last version changed. A REV may be given by its
    beginning, or by its generation. With --json as one JSON Patch (RFC 6902).
    """
    with opened(urls) as store:
        documents = chosen(store, collection)
        if old is None:
            newest = list(islice(documents.history(key), 2))
            if len(newest) < 2:
                raise NotFound(f"{key!r} in {documents.name!r} has one version here, so there is nothing to compare.")
            before, after = newest[1], newest[0]
        else:
            before = documents.version(key, rev_of(documents, key, old))
            if new is None:
                after = documents.read(key, deleted=True)
            else:
                after = documents.version(key, rev_of(documents, key, new))
        if as_json:
            line(documents.diff(key, before.rev, after.rev))
            return
        from vstore.patch import lines

        for number, words in enumerate(lines(before.value, after.value)):
            if number < 2:  # the two lines that name the sides
                side, each = ("---", before) if number == 0 else ("+++", after)
                words = f"{side} {plain(key)} {each.rev} {iso(each.stamp)}"
            text(words)


@click.command("revert")
@click.argument("collection")
@click.argument("key")
@click.argument("rev")
@store_option
def revert(collection: str, key: str, rev: str, urls: tuple[str, ...]) -> None:
    """Make the content of an old version the newest one. Nothing is undone in history."""
    with opened(urls) as store:
        documents = chosen(store, collection)
        written(documents.revert(key, rev_of(documents, key, rev)))


@click.command("at")
@click.argument("collection")
@click.argument("when", metavar="MOMENT", type=moment)
@click.argument("key", required=False)
@lines_option
@store_option
def at(collection: str, when: int, key: str | None, urls: tuple[str, ...]) -> None:
    """Print a document or a collection as it was at a MOMENT.

    MOMENT is ISO 8601 such as 2026-11-01T12:00:00Z or 2026-11-01 (UTC), or a stamp in microseconds. Without KEY, a
    line {"key": …, "doc": …} for each document, in key order.
    """
    with opened(urls) as store:
        documents = chosen(store, collection)
        if key is not None:
            line(documents.at(when)[key])
            return
        count = exports.Exported()
        for each in exports.documents(documents, count, when):
            out(each)
        if count.conflicts:
            click.echo(f"vstore: {counted(count.conflicts, 'document')} had siblings; their winner is shown", err=True)
