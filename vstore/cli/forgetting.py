"""`purge`, `erase`, `vacuum`, `replicas`: what is to be gone for good, and who has to know first."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from vstore.cli.options import chosen, json_option, opened, store_option
from vstore.cli.output import Talk, counted, flush, line, plain, table, text, written
from vstore.errors import NotFound
from vstore.hlc import iso
from vstore.purging import GRACE_DAYS, Purged
from vstore.replicas import DAY_US, FULL, Replica
from vstore.store import Store


@click.command("purge")
@click.argument("collection", required=False)
@click.option(
    "--grace-days",
    type=click.FloatRange(min=0),
    default=GRACE_DAYS,
    show_default=True,
    metavar="N",
    help="Deletes younger than this stay.",
)
@click.option(
    "--expire-days",
    type=click.FloatRange(min=0),
    metavar="N",
    help="Replicas unheard of for so long do not count. [the collection's, else 90]",
)
@click.option("--dry-run", is_flag=True, help="Count only.")
@json_option
@store_option
def purge(
    collection: str | None,
    grace_days: float,
    expire_days: float | None,
    dry_run: bool,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """Forget deleted documents and their history, once every replica knows that they are deleted.

    Says who has to hear of it first. `vstore replicas` lists all of them.
    """
    talk = Talk()
    with opened(urls) as store:
        done = chosen(store, collection).purge(
            grace_days=grace_days,
            expire_days=expire_days,
            dry_run=dry_run,
            progress=lambda so_far: talk.now(f"{so_far.keys:,} deleted documents"),
        )
    talk.end()
    if as_json:
        line({**asdict(done), "dry_run": dry_run})
        return
    for words in _told(done, dry_run, grace_days):
        text(words)


@click.command("erase")
@click.argument("collection")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--vacuum/--no-vacuum",
    default=True,
    help="Write SQLite files anew, so that no copy is left in them. [--vacuum]",
)
@store_option
def erase(collection: str, keys: tuple[str, ...], yes: bool, vacuum: bool, urls: tuple[str, ...]) -> None:
    """Delete documents and remove their content from all of their history, here and at every replica.

    There is no way back. The other replicas follow with their next sync; an edit made there meanwhile stays.
    """
    with opened(urls) as store:
        documents = chosen(store, collection)
        if not yes:
            question = f"Erase {counted(len(keys), 'document')} of {plain(documents.name)!r} with all history?"
            click.confirm(question, abort=True, err=True)
        touched = set()
        for key in keys:
            written(documents.erase(key))
            flush()
            touched.add(store.shard_of(documents.name, key))
        left = []
        for shard in (store.shards[index] for index in sorted(touched)):
            if vacuum and shard.database.path is not None:
                shard.database.vacuum()
            else:
                left.append(shard.database.name)
        if left:
            click.echo(
                f"vstore: what {', '.join(left)} freed may be on its disk for a while. `vstore vacuum` makes an end of "
                f"it.",
                err=True,
            )


@click.command("vacuum")
@store_option
def vacuum(urls: tuple[str, ...]) -> None:
    """Give the space of what was pruned, purged and erased back, and leave nothing of it in the files.

    Takes as long as copying the databases, and as much free space. Writers wait meanwhile.
    """
    with opened(urls) as store:
        store.vacuum()


@click.command("replicas")
@click.argument("collection", required=False)
@click.option("--retire", metavar="ID", help="This one is gone for good: wait for it no more.")
@click.option(
    "--expire-days",
    type=click.FloatRange(min=0),
    metavar="N",
    help="From now on, wait no longer than this for one that is not heard of.",
)
@json_option
@store_option
def replicas(
    collection: str | None, retire: str | None, expire_days: float | None, as_json: bool, urls: tuple[str, ...]
) -> None:
    """List the other replicas: how far each is, when it was last heard of, and who holds back `vstore purge`.

    BEHIND counts the events that one has not acknowledged. All collections, or the one named.
    """
    with opened(urls) as store:
        names = [chosen(store, collection).name] if collection is not None else store.collections()
        if expire_days is not None:
            for name in names:
                store[name].set_expire_days(expire_days)
        if retire is not None:
            name, gone = _retired(store, names, retire)
            _list([(name, gone)], as_json)
            return
        _list([(name, each) for name in names for each in store[name].replicas()], as_json)


def _retired(store: Store, names: list[str], id: str) -> tuple[str, Replica]:
    fitting = [name for name in names if any(each.id.startswith(id) for each in store[name].replicas())]
    if len(fitting) != 1:
        problem = f"is registered in {len(fitting)} collections" if fitting else "is no replica that is registered"
        raise NotFound(f"{id!r} {problem}. Nothing was changed. `vstore replicas` lists them with their ids.")
    return fitting[0], store[fitting[0]].retire_replica(id)


def _list(found: list[tuple[str, Replica]], as_json: bool) -> None:
    if as_json:
        for name, each in found:
            line(
                {
                    "collection": name,
                    "replica": each.id,
                    "name": each.name,
                    "role": each.role,
                    "seen": each.seen,
                    "time": iso(each.seen),
                    "behind": each.behind if each.role == FULL else None,
                    "expired": each.expired,
                    "holds_back": each.holds_back,
                }
            )
        return
    if not found:
        click.echo("no other replica has been heard of", err=True)
        return
    now_us = time.time_ns() // 1000
    rows = [
        [
            name,
            each.id,
            each.role,
            f"{max(0, now_us - each.seen) / DAY_US:.1f} days ago",
            each.behind if each.role == FULL else "",
            "expired" if each.expired else "holds back purge" if each.holds_back else "",
            each.name,
        ]
        for name, each in found
    ]
    table(["collection", "replica", "role", "seen", "behind", "", "where"], rows)


def _told(done: Purged, dry_run: bool, grace_days: float) -> list[str]:
    verb = "would be forgotten" if dry_run else "forgotten"
    words = [f"{counted(done.purged, 'deleted document')} {verb}, {counted(done.versions, 'version')}"]
    if done.young:
        words.append(f"{done.young:,} younger than {grace_days:g} days stay")
    if done.held:
        words.append(f"{done.held:,} wait for replicas:")
    for each in done.holders:
        if each.id:
            since = iso(each.seen)[:19].replace("T", " ")
            words.append(
                f"  {each.keys:,} for {plain(each.name)}, {each.behind:,} events behind, seen {since}, id {each.id}"
            )
        else:
            words.append(f"  {each.keys:,} for this one: it has not received all that their history names")
    words += [f"expired, not waited for: {plain(name)}" for name in done.expired]
    return words
