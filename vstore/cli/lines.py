"""`import` and `export`: documents as lines of JSON."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial

import click
import orjson

from vstore.cli.options import chosen, json_option, lines_option, moment, opened, store_option
from vstore.cli.output import Talk, counted, flush, line, out, text
from vstore.errors import StoreError
from vstore.ndjson import exports
from vstore.ndjson.imports import Imported, import_lines
from vstore.ndjson.sources import Source
from vstore.store import Store


@click.command("import")
@click.argument("collection")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--key", "key_field", metavar="FIELD", help="Each line is a document; this field of it is the key.")
@click.option("--strict", is_flag=True, help="Refuse objects that have a name twice.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="After a line that cannot be imported.",
)
@click.option("--again", is_flag=True, help="Read lines, too, that an earlier import of the file has done.")
@click.option(
    "--progress",
    type=click.Choice(["text", "json", "none"]),
    default="text",
    show_default=True,
    help="On stderr.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress and no report; errors only.")
@json_option
@store_option
def import_(
    collection: str,
    files: tuple[str, ...],
    key_field: str | None,
    strict: bool,
    on_error: str,
    again: bool,
    progress: str,
    quiet: bool,
    as_json: bool,
    urls: tuple[str, ...],
) -> int:
    """Import documents from lines of JSON.

    FILE is plain, gzip or Zstandard, or - for stdin. A line is {"key": …, "doc": …} for a document as of now; or
    {"at": SECONDS, "key": …, "doc": …} or {"at": SECONDS, "key": …, "deleted": true} for a version of that time,
    which rebuilds history.

    What is there already stays as it is. An import that was interrupted goes on where it was, and one that is
    repeated makes no new versions; except from stdin or with --again, where a key that has several lines without "at"
    goes through their values again. Exit 1 if a line failed.
    """
    failed = False
    talk = Talk(pause_seconds=1.0)
    store: Store | None = None
    with contextlib.ExitStack() as opening:
        for name in files:
            with Source(name) as source:
                if store is None:  # not before the file: a misspelt name leaves no new store behind
                    store = opening.enter_context(opened(urls, create=True))
                begun = time.monotonic()
                result = import_lines(
                    store[collection],
                    source,
                    key_field=key_field,
                    strict=strict,
                    on_error="skip" if on_error == "skip" else "stop",
                    again=again,
                    on_failure=partial(_refused, name, talk),
                    progress=_progress(source, begun, talk, "none" if quiet else progress),
                )
                talk.end()
                if not quiet:
                    _report(name, result, time.monotonic() - begun, as_json)
            failed = failed or result.failed > 0
            if result.stopped_at is not None:
                break
    return int(failed)


@click.command("export")
@click.argument("collection", required=False)
@click.option("--history", is_flag=True, help="Every version with its time, key by key, oldest first.")
@click.option("--at", "when", metavar="MOMENT", type=moment, help="The documents as they were then.")
@lines_option
@store_option
def export(collection: str | None, history: bool, when: int | None, urls: tuple[str, ...]) -> None:
    """Print a collection as lines for `vstore import`.

    Of a document with siblings, the winner; with --history, all versions in order of time. For exact replicas use
    `vstore copy` and `vstore sync`.
    """
    if history and when is not None:
        raise click.UsageError("--history and --at exclude each other.")
    count = exports.Exported()
    with opened(urls) as store:
        documents = chosen(store, collection)
        for each in exports.history(documents, count) if history else exports.documents(documents, count, when):
            out(each)
    if count.conflicts:
        verb = "has" if count.conflicts == 1 else "have"
        how = "their versions are in order of time" if history else "their winner was exported"
        click.echo(f"vstore: {counted(count.conflicts, 'document')} {verb} siblings; {how}", err=True)
    if count.pruned:
        click.echo(f"vstore: {counted(count.pruned, 'version')} left out: pruned", err=True)


def _progress(source: Source, begun: float, talk: Talk, form: str) -> Callable[[Imported], None] | None:
    def show(imported: Imported) -> None:
        seconds = time.monotonic() - begun
        if form == "json":
            if talk.due:
                click.echo(orjson.dumps({**_counts(source.name, imported), "seconds": round(seconds, 1)}), err=True)
            return
        done = imported.inserted + imported.unchanged - imported.known
        words = f"{source.name}: {imported.last_line:,} lines, {done / seconds:,.0f}/s"
        if source.size_bytes:
            words += f", {100 * source.read_bytes // source.size_bytes} %"
        talk.now(words)

    return None if form == "none" else show


def _refused(name: str, talk: Talk, number: int, error: StoreError) -> None:
    talk.end()
    click.echo(f"vstore: {name}, line {number:,}: {error}", err=True)


def _report(name: str, imported: Imported, seconds: float, as_json: bool) -> None:
    if as_json:
        line({**_counts(name, imported), "seconds": round(seconds, 3)})
        flush()
        return
    words = f"{name}: {imported.inserted:,} inserted, {imported.unchanged:,} unchanged, {imported.failed:,} failed"
    text(f"{words} in {seconds:.1f} s")
    if imported.known:
        text(f"  {imported.known:,} of the unchanged were imported before; --again compares them with the store")
    if imported.failed:
        numbers = ", ".join(f"{number}" for number in imported.failed_lines[:20])
        text(f"  failed lines: {numbers}{', …' if imported.failed > 20 else ''}")
    if imported.stopped_at is not None:
        text(f"  stopped at line {imported.stopped_at:,}: what is before it is imported; --on-error skip goes on")
    flush()


def _counts(name: str, imported: Imported) -> dict[str, object]:
    return {
        "file": name,
        "line": imported.last_line,
        "inserted": imported.inserted,
        "unchanged": imported.unchanged,
        "known": imported.known,
        "failed": imported.failed,
        "failed_lines": imported.failed_lines,
        "stopped_at": imported.stopped_at,
    }
