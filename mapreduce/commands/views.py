"""`vstore views` and `vstore view NAME`: what views there are and how fresh, and what is in one.

stdout is data; stderr is talk. A view is read with the functions of a file that
declares it (--views), or without any as it was last kept.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import orjson

from vstore.cli.options import json_option, opened, store_option
from vstore.cli.output import counted, flush, line, out, plain, table, text
from vstore.errors import ConfigurationError, NotFound, StoreError
from vstore.store import Store

if TYPE_CHECKING:
    from mapreduce.views.declared import Declaration
    from mapreduce.views.fresh import Kept
    from mapreduce.views.view import View, ViewStatus


def _views_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--views",
        "file",
        metavar="FILE",
        help="Python or TOML file that declares views. [$VSTORE_VIEWS]",
        envvar="VSTORE_VIEWS",
    )(command)


def _database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--database", metavar="URL", help="Where the views are kept; else the first shard.")(command)


@click.command("views")
@click.argument("collection", required=False)
@_views_option
@click.option("--update", is_flag=True, help="Build the declared views, and take in what has changed.")
@click.option("--follow", is_flag=True, help="Go on taking in changes, until interrupted.")
@click.option("--drop", metavar="NAME", help="Delete a view; the COLLECTION has to be given.")
@click.option("--prefix", default="", help="With --drop: the prefix that the view is of.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes of a build; by default all cores if it pays.")
@_database_option
@json_option
@store_option
def views_command(
    collection: str | None,
    file: str | None,
    update: bool,
    follow: bool,
    drop: str | None,
    prefix: str,
    workers: int | None,
    database: str | None,
    as_json: bool,
    urls: tuple[str, ...],
) -> int:
    """List the views, how far behind they are, and what is being built.

    With --views also those that a file declares, and whether what is kept is of that definition. --update and
    --follow need it: they run its functions. Exit 1 if one could not be updated.
    """
    from mapreduce.views.view import drop_view

    if (update or follow) and file is None:
        raise click.UsageError("--update and --follow run the functions of views. Name their file: --views FILE.")
    if drop is not None and collection is None:
        raise click.UsageError("--drop needs the COLLECTION that the view is of.")
    declared = [each for each in _declared(file) if collection is None or each.collection == collection]
    failed = False
    with opened(urls) as store:
        if drop is not None and collection is not None:
            drop_view(store, collection, drop, prefix=prefix, database=database)
            return 0
        if update:
            for each in declared:
                failed = not _updated(each, store, workers) or failed
        if follow:
            _follow(store, declared, workers)
            return 0
        statuses = _statuses(store, declared, database)
    shown = [status for status in statuses if collection is None or status.collection == collection]
    if as_json:
        for status in shown:
            line(asdict(status))
    elif shown:
        names = ("view", "collection", "prefix", "state", "rows", "errors", "pending", "behind", "build")
        table(names, [_cells(status) for status in shown])
    return int(failed)


@click.command("view")
@click.argument("name")
@click.argument("collection", required=False)
@_views_option
@click.option("--key", metavar="JSON", help="Only rows with this key.")
@click.option("--keys", metavar="JSON", multiple=True, help="Only rows with these keys, in this order; repeat.")
@click.option("--start", metavar="JSON", help="Where reading begins, included.")
@click.option("--end", metavar="JSON", help="Where it ends, included.")
@click.option("--exclusive-end", is_flag=True, help="The end itself does not come.")
@click.option("--reverse", is_flag=True, help="From the last key to the first; --start is then the upper one.")
@click.option("--group", is_flag=True, help="One row for each key, reduced.")
@click.option("--group-level", type=click.IntRange(min=0), help="One for all arrays that begin with the same so many.")
@click.option("--reduce/--no-reduce", default=None, help="All in one row; or rows even so.")
@click.option("--limit", type=click.IntRange(min=0), help="So many rows at most.")
@click.option("--after", metavar="CURSOR", help="Go on behind the rows of an earlier --limit.")
@click.option(
    "--update",
    type=click.Choice(["before", "after", "never"]),
    help="Take in changes before or after. By default before with --views, else never.",
)
@click.option("--errors", is_flag=True, help="Instead of rows, the documents that failed, and why.")
@_database_option
@json_option
@store_option
def view_command(
    name: str,
    collection: str | None,
    file: str | None,
    key: str | None,
    keys: tuple[str, ...],
    start: str | None,
    end: str | None,
    exclusive_end: bool,
    reverse: bool,
    group: bool,
    group_level: int | None,
    reduce: bool | None,
    limit: int | None,
    after: str | None,
    update: str | None,
    errors: bool,
    database: str | None,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """Print the rows of a view in the order of their keys, or groups of them.

    A key is JSON, or a text as it is: --key python, --start '["a", 2020]'. Without --views, the view is read as it was
    last kept; groups then need one of the built-in reducers. With --limit, the cursor for --after comes last: with
    --json as a line {"after": …} on stdout, else on stderr.
    """
    from mapreduce.views.rows import UNSET as OPEN

    asked: dict[str, Any] = {
        "key": OPEN if key is None else _key(key),
        "keys": [_key(each) for each in keys] if keys else None,
        "start": OPEN if start is None else _key(start),
        "end": OPEN if end is None else _key(end),
        "inclusive_end": not exclusive_end,
        "reverse": reverse,
        "limit": limit,
        "after": after,
        "group": group,
        "group_level": group_level,
        "reduce": reduce,
    }
    declared = _declared(file)
    with ExitStack() as open_:
        store = open_.enter_context(opened(urls))
        found = open_.enter_context(_found(store, name, collection, declared, database))
        if errors:
            for each in found.errors():
                if as_json:
                    line(each._asdict())
                else:
                    text(f"{plain(each.id)}\t{plain(each.error)}")
            return
        asked["update"] = update or ("before" if declared else "never")
        rows = found.rows(**asked)
        for row in rows:
            if as_json:
                shown = {"key": row.key, "value": row.value, "id": row.id}
                out(_json(shown if row.id is not None else {"key": row.key, "value": row.value}) + b"\n")
            else:
                text("\t".join([_plain(row.key), _plain(row.value)] + ([] if row.id is None else [plain(row.id)])))
        if limit is not None and rows.after is not None:
            if as_json:
                line({"after": rows.after})
            else:
                flush()
                click.echo(f"after {rows.after}", err=True)


# --- which views -----------------------------------------------------------------------------------------------------


def _declared(file: str | None) -> list[Declaration]:
    if file is None:
        return []
    from mapreduce.views.declared import declarations

    try:
        return declarations(file)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def _found(
    store: Store, name: str, collection: str | None, declared: list[Declaration], database: str | None
) -> Iterator[View]:
    """The view of that name: declared, or as it is kept.

    Raises:
        NotFound: there is none.
        click.UsageError: there are several.
    """
    from mapreduce.views.view import view, views

    if declared:
        own = [each for each in declared if each.name == name and collection in (None, each.collection)]
        with _one(own, name, collection, [each.name for each in declared]).of(store) as made:
            yield made
        return
    kept = views(store, database=database)
    one = _one(
        [each for each in kept if each.name == name and collection in (None, each.collection)],
        name,
        collection,
        [each.name for each in kept],
    )
    documents = store[one.collection]
    if one.prefix:
        documents = documents.prefixed(one.prefix)
    with view(documents, name, database=database) as made:
        yield made


def _one(found: list[Any], name: str, collection: str | None, known: list[str]) -> Any:
    if len(found) > 1:
        of = ", ".join(sorted(f"{each.collection}/{each.prefix}" if each.prefix else each.collection for each in found))
        raise click.UsageError(f"there are several views {name!r}, of {of}. Name the COLLECTION.")
    if not found:
        of = f" of {collection!r}" if collection is not None else ""
        raise NotFound(f"there is no view {name!r}{of}. There are: {', '.join(sorted(set(known))) or 'none'}.")
    return found[0]


def _statuses(store: Store, declared: list[Declaration], database: str | None) -> list[ViewStatus]:
    from mapreduce.views.view import views

    found = {(each.collection, each.prefix, each.name): each for each in views(store, database=database)}
    for each in declared:
        with each.of(store) as made:
            found[each.collection, each.prefix, each.name] = made.status()
    return [found[place] for place in sorted(found)]


# --- keeping them ----------------------------------------------------------------------------------------------------


def _updated(declaration: Declaration, store: Store, workers: int | None) -> bool:
    try:
        with declaration.of(store, workers=workers) as made:
            documents = made.update(progress=True)
            rows = made.status().rows
    except StoreError as error:
        click.echo(f"vstore: {declaration.name}: {error}", err=True)
        return False
    took = f"{counted(documents, 'changed document')}, " if documents else ""
    click.echo(f"{declaration.name}: {took}{counted(rows, 'row')}", err=True)
    return True


def _follow(store: Store, declared: list[Declaration], workers: int | None) -> None:
    from mapreduce.views.fresh import keep_fresh

    def told(kept: Kept) -> None:
        if kept.error is not None:
            click.echo(f"vstore: {kept.view.name}: {kept.error}", err=True)
        else:
            words = f"{kept.view.name}: {counted(kept.documents, 'changed document')} in {kept.seconds:.2f} s"
            click.echo(words, err=True)

    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    try:
        keep_fresh(store, declared, stop=stop, told=told, workers=workers)
    finally:
        signal.signal(signal.SIGTERM, before)


# --- how they look ---------------------------------------------------------------------------------------------------


def _cells(status: ViewStatus) -> tuple[Any, ...]:
    pending = status.pending if status.generation else ""
    behind = f"{status.seconds_behind:.1f} s" if status.pending else ""
    build = f"{status.parts_done}/{status.parts}" if status.parts else ""
    return (
        status.name,
        status.collection,
        status.prefix,
        status.state,
        status.rows,
        status.errors,
        pending,
        behind,
        build,
    )


def _key(given: str) -> Any:
    try:
        return orjson.loads(given)
    except orjson.JSONDecodeError:
        if given[:1] in '[{"':
            raise click.UsageError(
                f"{given!r} is no JSON. Write a key as JSON, or a text that does not look so."
            ) from None
        return given


def _plain(value: Any) -> str:
    return plain(value) if isinstance(value, str) else _json(value).decode()


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise click.ClickException(f"a row cannot be printed as JSON: {error}.") from error
