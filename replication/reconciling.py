"""`vstore reconcile`: this store compared with another, document by document, and repaired."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vstore.cli.options import json_option, opened, store_option
from vstore.cli.output import Talk, counted, flush, line, plain, text
from vstore.cli.program import DAMAGE
from vstore.errors import NotFound
from vstore.handle import Handle
from vstore.ranges import ABOVE
from vstore.store import Store

if TYPE_CHECKING:
    from replication.reconcile import Reconciled


@click.command("reconcile")
@click.argument("collections", metavar="[COLLECTION]...", nargs=-1)
@click.option("--with", "others", multiple=True, required=True, metavar="URL", help="The other store; for its shards.")
@click.option("--dry-run", is_flag=True, help="Compare only. Nothing is written, and nothing is pulled before.")
@json_option
@store_option
def command(
    collections: tuple[str, ...], others: tuple[str, ...], dry_run: bool, as_json: bool, urls: tuple[str, ...]
) -> int:
    """Compare this store with another, and repair what this one has lost.

    A sync goes by what changed. This compares what is there, so it also finds rows that were lost or deleted by hand.
    The feed is pulled first, so what differs then is damage at one of the two: documents that this store has lost are
    taken from the other, those that the other has lost are named. It reads every head of both: 1 million in a second.
    With --dry-run, exit 5 if there is damage.
    """
    from replication.route import check  # other commands need not wait for it

    talk = Talk(pause_seconds=1.0)
    damaged = 0
    with opened(urls) as here, Store(*others, create=False) as there:
        check(there, here)
        known = sorted({*here.collections()} & {*there.collections()})
        absent = [name for name in collections if name not in known]
        if absent or not known:
            raise NotFound(
                f"not both stores have {f'a collection {absent[0]!r}' if absent else 'any collection'}. Nothing was "
                f"changed. `vstore sync` brings what is missing altogether."
            )
        for name in collections or known:
            source, target = there.handle(name), here.handle(name)
            if source is None or target is None:
                raise NotFound(f"collection {name!r} was dropped meanwhile. Nothing was changed.")
            done = _reconciled(source, target, dry_run, talk)
            talk.end()
            damaged += done.differences
            if as_json:
                line({"collection": name, **_shown(done)})
            else:
                text(f"{plain(name)}: {_words(done, dry_run)}")
            flush()
    return DAMAGE if dry_run and damaged else 0


def _reconciled(source: Handle, target: Handle, dry_run: bool, talk: Talk) -> Reconciled:
    from replication.pull import pull
    from replication.reconcile import reconcile

    def told(done: Reconciled) -> None:
        if done.after < ABOVE:
            talk.now(f"{plain(target.name)}: compared up to {plain(done.after[:60])}")

    def catch_up() -> None:
        pull(source, target, reconcile="never")

    if not dry_run:
        catch_up()
    return reconcile(
        source,
        target,
        catch_up=None if dry_run else catch_up,
        dry_run=dry_run,
        on_batch=told,
    )


def _shown(done: Reconciled) -> dict[str, object]:
    found = asdict(done)
    for name in ("began", "after", "finished"):
        del found[name]
    return found


def _words(done: Reconciled, dry_run: bool) -> str:
    """A report for people, from this side's point of view."""
    if not done.differences:
        ahead = f", {done.theirs + done.ours:,} heads are on their way" if done.theirs + done.ours else ""
        return f"nothing was lost{ahead}"
    named = ", ".join(map(plain, done.keys)) + (", …" if done.differences > len(done.keys) else "")
    words = f"{counted(done.differences, 'document')} differed ({named})"
    return words if dry_run else f"{words}, {counted(done.repaired.rows, 'row')} taken"
