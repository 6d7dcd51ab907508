"""`vstore sync` and `vstore replicate`: this store and another, both ways or one way."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from vstore.cli.functions import loaded, resolver_of
from vstore.cli.options import chosen, json_option, moment, opened, store_option
from vstore.cli.output import Talk, counted, flush, line, plain, text
from vstore.errors import NotFound
from vstore.hlc import iso
from vstore.store import Store

if TYPE_CHECKING:
    from replication.filters import Filter
    from replication.parked import Parked
    from replication.pulled import Progress
    from replication.replicator import Replicator, Status
    from replication.scope import History
    from replication.sync import Report


def _history(given: str) -> History:
    words: dict[str, History] = {"heads": "heads", "all": "all"}
    return words[given] if given in words else moment(given)


def _what_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which documents, and what of their past; for `_filter_of`."""
    for option in (
        click.option("--prefix", default="", metavar="TEXT", help="Only documents whose keys begin so."),
        click.option(
            "--field",
            "fields",
            multiple=True,
            metavar="PLACE=VALUE",
            help="Only documents that have this value there; for one place repeated, one of them.",
        ),
        click.option(
            "--filter",
            "predicate",
            metavar="FILE.py:FUNCTION",
            help="Only documents for which function(key, value) is true.",
        ),
        click.option(
            "--history",
            type=_history,
            default="heads",
            show_default=True,
            metavar="heads|all|MOMENT",
            help="The present, every version, or those since then.",
        ),
    ):
        command = option(command)
    return command


@click.command("sync")
@click.argument("collections", metavar="[COLLECTION]...", nargs=-1)
@click.option("--with", "others", multiple=True, required=True, metavar="URL", help="The other store; for its shards.")
@click.option("--resolver", metavar="NAME|FILE.py:FUNCTION", help="Settle documents that both sides have changed.")
@_what_options
@json_option
@store_option
def sync_command(
    collections: tuple[str, ...],
    others: tuple[str, ...],
    resolver: str | None,
    prefix: str,
    fields: tuple[str, ...],
    predicate: str | None,
    history: History,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """Bring this store and another to the same state, both ways.

    All collections, or those named. Afterwards both have the same documents. Those that both have changed keep the
    versions as siblings, unless a --resolver settles them: winner, last_write, json3 (three-way merge), or a
    function(conflict) of yours. A store that is not there yet is made.
    """
    from replication.route import check
    from replication.sync import one_by_one, sync

    settle = resolver_of(resolver) if resolver is not None else None
    wanted = _filter_of(prefix, fields, predicate)
    talk = Talk(pause_seconds=1.0)
    with opened(urls, create=True) as here, Store(*others) as there:
        check(here, there)
        known = sorted({*here.collections(), *there.collections()})
        absent = [name for name in collections if name not in known]
        if absent or not known:
            raise NotFound(
                f"neither store has {f'a collection {absent[0]!r}' if absent else 'any collection'}. Nothing was moved."
            )

        def sync_collection(name: str) -> None:
            report = sync(
                here[name], there[name], settle, filter=wanted, history=history, on_batch=_counting(name, talk)
            )
            talk.end()
            waiting = len(_waiting(here, name)) + len(_waiting(there, name))
            if as_json:
                line({"collection": name, **asdict(report), "parked": waiting})
            else:
                text(f"{plain(name)}: {_words(report, waiting)}")
            flush()

        names = collections or known
        if len(names) == 1:
            sync_collection(names[0])  # its own error has words and an exit code of its own
        else:
            one_by_one(names, sync_collection)


@click.command("replicate")
@click.argument("collections", metavar="[COLLECTION]...", nargs=-1)
@click.option("--to", "targets", multiple=True, required=True, metavar="URL", help="The target; for its shards.")
@click.option("--live", is_flag=True, help="Go on with what is written from now on, until interrupted.")
@click.option("--both", is_flag=True, help="Take from the target into this store as well.")
@click.option("--resolver", metavar="NAME|FILE.py:FUNCTION", help="Settle conflicts that this makes at the target.")
@_what_options
@json_option
@store_option
def replicate_command(
    collections: tuple[str, ...],
    targets: tuple[str, ...],
    live: bool,
    both: bool,
    resolver: str | None,
    prefix: str,
    fields: tuple[str, ...],
    predicate: str | None,
    history: History,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """Take into another store what it lacks of this one; unless --both is said, this one is only read.

    All collections, or those named. It goes on where an earlier run has ended. With --live an end that goes away is
    waited for; an interrupt ends it after the batch under way. A target that is not there yet is made.
    """
    from replication.replicator import Replicator

    settle = resolver_of(resolver) if resolver is not None else None
    wanted = _filter_of(prefix, fields, predicate)
    with opened(urls) as source, Store(*targets) as target:
        absent = sorted({*collections} - {*source.collections(), *(target.collections() if both else ())})
        if absent and not live:
            raise NotFound(f"the store has no collection {absent[0]!r}. Nothing was moved.")
        replicator = Replicator(
            source,
            target,
            live=live,
            both=both,
            filter=wanted,
            resolver=settle,
            history=history,
            collections=collections or None,
            name="replicate",
        )
        with _told(replicator):
            status = replicator.run()
        if as_json:
            line(asdict(status))
        else:
            words = f"{counted(status.rows, 'row')} taken, {status.new:,} new, {counted(status.bytes, 'byte')}"
            if status.forgotten:
                words += f", {counted(status.forgotten, 'deleted document')} forgotten after a purge"
            if status.left:
                words += f", {counted(status.left, 'document')} left the filter"
            if status.resolved:
                words += f", settled {counted(status.resolved, 'conflict')}"
            if status.conflicts:
                words += f", {counted(status.conflicts, 'conflict')} at the target"
            text(f"{words}, {counted(status.parked, 'row')} parked" if status.parked else words)


def _counting(name: str, talk: Talk) -> Callable[[Progress], None]:
    """Progress of a collection on stderr, while rows move."""

    def count(progress: Progress) -> None:
        if not progress.pending and (progress.of or not progress.pulled.rows):
            return  # the way that has nothing to do, or is done: the report follows
        done = f", {100 * (1 - progress.pending / progress.of):.0f} %" if progress.of else ""
        talk.now(f"{plain(name)}: {counted(progress.pulled.rows, 'row')}{done}")

    return count


@contextmanager
def _told(replicator: Replicator) -> Iterator[None]:
    """Progress on stderr inside the block; an interrupt ends the replicator after its batch."""
    talk = Talk(pause_seconds=1.0)
    ended = threading.Event()
    shown = ""

    def talk_on() -> None:
        nonlocal shown
        while not ended.wait(0.2):
            words = _now(replicator.status)
            if words != shown:
                talk.now(words)
                shown = words

    def stop(number: int, frame: object) -> None:
        threading.Thread(target=replicator.stop, daemon=True).start()  # it may be this thread that holds its lock

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    thread = threading.Thread(target=talk_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        ended.set()
        thread.join()
        talk.end()


def _now(status: Status) -> str:
    if status.state == "failing":
        return f"failing: {status.error}"
    words = f"{status.state}: {counted(status.rows, 'row')}"
    if status.state == "bootstrapping":
        words += f", {100 * status.progress:.0f} %"
    return f"{words}, {status.pending:,} pending" if status.pending else words


def _filter_of(prefix: str, fields: tuple[str, ...], predicate: str | None) -> Filter | None:
    if not (prefix or fields) and predicate is None:
        return None
    from replication.filters import Filter

    wanted: dict[str, list[Any]] = {}
    for each in fields:
        place, equals, value = each.partition("=")
        if not place or not equals:
            raise click.UsageError(f"--field {each!r} is not PLACE=VALUE, such as open=true or author.country=FR.")
        wanted.setdefault(place, []).append(_json_or_text(value))
    return Filter(prefix, wanted or None, loaded(predicate, ("key", "value")) if predicate is not None else None)


def _json_or_text(given: str) -> Any:
    """What JSON text means, or the text itself: true, 7, "7", Oslo."""
    try:
        return json.loads(given)
    except ValueError:
        return given


@click.command("parked")
@click.argument("collections", metavar="[COLLECTION]...", nargs=-1)
@json_option
@store_option
def parked_command(collections: tuple[str, ...], as_json: bool, urls: tuple[str, ...]) -> None:
    """List versions that this store could not take from another, and why.

    Nothing has to be done with them here: each sync tries those again that have waited long enough, and takes them once
    the reason is gone. The rest of what the other store has is here.
    """
    with opened(urls) as store:
        for name in collections or store.collections():
            for each in _waiting(store, chosen(store, name).name):
                if as_json:
                    line({"collection": name, **asdict(each)})
                else:
                    where = f"{plain(name)}: {plain(each.key)} {each.rev}"
                    text(f"{where}, {counted(each.tries, 'attempt')} since {iso(each.since_us)}: {plain(each.reason)}")


def _waiting(store: Store, name: str) -> list[Parked]:
    from replication.parked import parked

    handle = store.handle(name)
    return [] if handle is None else parked(handle)


def _words(report: Report, waiting: int) -> str:
    """A report for people, from this side's point of view."""
    words = _moved(report)
    if report.unsettled:
        key, reason = next(iter(report.unsettled.items()))
        words += f" (the resolver did not settle {plain(key)}: {plain(reason)})"
    if report.conflicts:
        words += ": see `vstore conflicts`"
    return f"{words}, {counted(waiting, 'version')} could not be taken: see `vstore parked`" if waiting else words


def _moved(report: Report) -> str:
    forgotten = report.to_a.forgotten + report.to_b.forgotten
    if not (report or report.conflicts or forgotten):
        return "nothing to do"
    words = f"sent {counted(report.to_b.rows, 'row')}, received {report.to_a.rows:,}"
    if forgotten:
        words += f", {counted(forgotten, 'deleted document')} forgotten after a purge"
    if report.resolved:
        words += f", settled {counted(len(report.resolved), 'conflict')}"
    return f"{words}, {counted(report.conflicts, 'conflict')} left" if report.conflicts else words
