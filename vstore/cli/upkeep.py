"""`init`, `collections`, `stats`, `prune`, `check`, `copy`: the store itself."""

from __future__ import annotations

from dataclasses import asdict

import click

from vstore.cli.options import chosen, json_option, opened, store_option, urls_or_default
from vstore.cli.output import Talk, counted, flush, line, plain, table, text
from vstore.cli.program import DAMAGE
from vstore.store import PARTITIONS, Store


@click.command("init")
@store_option
def init(urls: tuple[str, ...]) -> None:
    """Make a store of the databases given, each a shard. One that is there stays as it is."""
    places = urls_or_default(urls)
    with Store(*places) as store:
        line({"store": store.id, "shards": [shard.database.name for shard in store.shards]})


@click.group("collections", invoke_without_command=True)
@json_option
@store_option
@click.pass_context
def collections(ctx: click.Context, as_json: bool, urls: tuple[str, ...]) -> None:
    """List collections; or create, rename or drop one."""
    if ctx.invoked_subcommand is None:
        with opened(urls) as store:
            for name in store.collections():
                if as_json:
                    line({"collection": name, "documents": len(store[name])})
                else:
                    text(plain(name))


@collections.command("create")
@click.argument("name")
@click.option("--partitions", default=PARTITIONS, show_default=True, help="A power of two, for ever.")
@store_option
def create(name: str, partitions: int, urls: tuple[str, ...]) -> None:
    """Create a collection. The first write does it too; replicas need equal partitions."""
    with opened(urls, create=True) as store:
        store.create(name, partitions=partitions)


@collections.command("rename")
@click.argument("old")
@click.argument("new")
@store_option
def rename(old: str, new: str, urls: tuple[str, ...]) -> None:
    """Give a collection another name. Its documents and history stay as they are."""
    with opened(urls) as store:
        store.rename(old, new)


@collections.command("drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
def drop(name: str, yes: bool, urls: tuple[str, ...]) -> None:
    """Delete a collection with its documents and all their history, here. There is no way back."""
    with opened(urls) as store:
        documents = chosen(store, name)
        if not yes:
            question = f"Drop {plain(name)!r} with {counted(len(documents), 'document')} and all their history?"
            click.confirm(question, abort=True, err=True)
        store.drop(name)


@click.command("stats")
@click.argument("collection", required=False)
@json_option
@store_option
def stats(collection: str | None, as_json: bool, urls: tuple[str, ...]) -> None:
    """Count documents, versions and bytes of each collection, the entries of its longest clock, and its actors."""
    with opened(urls) as store:
        found = store.stats()
        if collection is not None:
            found = {collection: found[chosen(store, collection).name]}
    if as_json:
        for name, counts in found.items():
            line({"collection": name, **counts})
        return
    names = ["documents", "tombstones", "conflicts", "versions", "stubs", "body_bytes", "longest_clock", "actors"]
    rows = [[name, *(counts[each] for each in names)] for name, counts in found.items()]
    table(["collection", *(name.replace("_", " ") for name in names)], rows)


@click.command("prune")
@click.argument("collection", required=False)
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="The newest versions of each document stay.")
@click.option("--keep-days", type=click.FloatRange(min=0), metavar="N", help="Versions younger than this stay.")
@click.option("--dry-run", is_flag=True, help="Count only.")
@json_option
@store_option
def prune(
    collection: str | None,
    keep_last: int | None,
    keep_days: float | None,
    dry_run: bool,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """Drop the bodies of old versions. With both options, what either keeps.

    Current versions, tombstones and common ancestors of siblings always stay, and every version keeps its place in
    history.
    """
    if keep_last is None and keep_days is None:
        raise click.UsageError("give --keep-last or --keep-days.")
    talk = Talk()
    with opened(urls) as store:
        done = chosen(store, collection).prune(
            keep_last=keep_last,
            keep_days=keep_days,
            dry_run=dry_run,
            progress=lambda so_far: talk.now(f"{so_far.keys:,} documents"),
        )
    talk.end()
    if as_json:
        line({"keys": done.keys, "pruned": done.pruned, "kept": done.kept, "dry_run": dry_run})
        return
    verb = "would be pruned" if dry_run else "pruned"
    text(f"{counted(done.pruned, 'version')} of {counted(done.keys, 'document')} {verb}, {done.kept:,} kept")


@click.command("check")
@click.argument("names", metavar="[COLLECTION]...", nargs=-1)
@json_option
@store_option
def check(names: tuple[str, ...], as_json: bool, urls: tuple[str, ...]) -> int:
    """Read everything again and name every broken invariant. Exit 5 if there is one."""
    found = 0
    talk = Talk()
    with opened(urls) as store:
        for finding in store.check(names or None, progress=lambda done, total: talk.now(f"{done:,} of {total:,} rows")):
            found += 1
            if as_json:
                line(asdict(finding))
            else:
                text(str(finding))
            flush()
    talk.end()
    if not as_json:
        click.echo(counted(found, "finding") if found else "no damage found", err=True)
    return DAMAGE if found else 0


@click.command("copy")
@click.option("--to", "targets", multiple=True, required=True, metavar="URL", help="Repeat for the copy's shards.")
@json_option
@store_option
def copy(targets: tuple[str, ...], as_json: bool, urls: tuple[str, ...]) -> None:
    """Make a replica with the whole history. It can be written, and synced.

    The target may have another number of shards, of other databases. Copying the files instead makes two stores that
    cannot be told apart.
    """
    talk = Talk()
    with opened(urls) as store:
        copied = store.copy(*targets, progress=lambda done: talk.now(f"{done.versions:,} versions"))
    talk.end()
    if as_json:
        line(asdict(copied))
    else:
        text(
            f"{counted(copied.versions, 'version')} copied, {counted(copied.body_bytes, 'byte')}; both can be written, "
            f"and synced"
        )
