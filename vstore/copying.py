"""A second replica of a whole store: all its versions under new actors, so that both may be written from then on.

A copied file has the actors of its original, and must give them up before it
writes. A replica made here never had them: rows arrive as from any other replica,
through `Shard.apply`, and bring their dots, parents, clocks and stamps along.

    for each partition   what the source knows ─► its rows, in commit order
                         the last batch joins the knowledge, and notes "done"

The source's knowledge is read before its rows and joined after them: only who was
given everything may claim to know everything. What is written meanwhile may or may
not come along; `replication.sync` brings the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vstore.batch import Receive
from vstore.document import Version
from vstore.errors import ConfigurationError, NotFound
from vstore.handle import Handle, place_of
from vstore.pages import PAGE_ROWS, page_end
from vstore.plan import forgotten_of, knowledge_of
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

if TYPE_CHECKING:
    from vstore.store import Store

BATCH_ROWS = 1_000
BATCH_BYTES = 8 * 1024 * 1024
"""How much one transaction takes: it ends with the page that reaches either."""

MARK = "copy"
"""The checkpoint that says in the target whose copy it is going to be. The last thing a copy does is to delete it."""


@dataclass(slots=True)
class Copied:
    """What a copy has done: the id of the new store, and the versions and bytes of bodies that were sent there."""

    store: str
    versions: int = 0
    body_bytes: int = 0


def copy(source: Store, target: Store, progress: Callable[[Copied], None]) -> Copied:
    """Copies a store into an empty one, or goes on with a copy of it that was interrupted; see `Store.copy`.

    Partitions that are noted as done in the target are left out, others are
    sent from their beginning: what is there already changes nothing.
    """
    _claim(source, target)
    pairs = [_pair(source, target, name) for name in source.collections()]
    strangers = sorted(set(target.collections()) - {here.name for here, _ in pairs})
    if strangers:
        raise ConfigurationError(
            f"{target!r} is an unfinished copy with a collection {strangers[0]!r}, which its original has no more. "
            f"Nothing was copied. Delete those databases and begin again."
        )
    copied = Copied(target.id)
    for here, there in pairs:
        _copy_collection(here, there, copied, progress)
    for shard in target.shards:
        with shard.transaction():
            notes = [(_note(here, part),) for here, _ in pairs for part in range(here.partitions)]
            shard.database.read().run_many(sql.DROP_CHECKPOINT, notes)
    with target.shards[0].transaction():
        target.shards[0].database.read().run(sql.DROP_CHECKPOINT, (MARK,))
    return copied


def _claim(source: Store, target: Store) -> None:
    """Makes the target our copy, unless it is something else already."""
    mark = target.checkpoint(MARK)
    if target.id == source.id:
        problem = "is the store that was to be copied"
    elif mark not in (None, source.id):
        problem = f"is an unfinished copy of store {mark}, and this is {source.id}"
    elif mark is None and target.collections():
        problem = f"is a store with {len(target.collections())} collections already"
    else:
        target.set_checkpoint(MARK, source.id)
        return
    raise ConfigurationError(
        f"copy refused: {target!r} {problem}. Nothing was changed. Give blank databases; sync() brings stores together "
        f"that exist."
    )


def _pair(source: Store, target: Store, name: str) -> tuple[Handle, Handle]:
    """A collection here and there, where it is created if need be."""
    here = source.handle(name)
    if here is None:
        raise NotFound(f"collection {name!r} was dropped while the store was being copied. Copy it again.")
    there = target.handle(name)
    if there is None:
        target.create(name, partitions=here.partitions)
        there = target.handle(name)
    assert there is not None
    if there.partitions != here.partitions:
        raise ConfigurationError(
            f"the unfinished copy has {there.partitions} partitions in collection {name!r}, and its original has "
            f"{here.partitions}. Nothing was copied. Delete those databases and begin again."
        )
    return here, there


def _copy_collection(here: Handle, there: Handle, copied: Copied, progress: Callable[[Copied], None]) -> None:
    for batch in _batches(here, there):
        for owner in dict.fromkeys(owner for owner, _ in batch):  # one transaction for each shard of the target
            _send(there, owner, [receive for each, receive in batch if each == owner])
        versions = [version for _, receive in batch for found in receive.rows.values() for version in found]
        copied.versions += len(versions)
        copied.body_bytes += sum(len(version.body or b"") for version in versions)
        progress(copied)


def _batches(here: Handle, there: Handle) -> Iterator[list[tuple[int, Receive]]]:
    """Everything that is not noted as done, each with the index of the shard it goes to."""
    batch: list[tuple[int, Receive]] = []
    rows = size = 0
    for part in range(here.partitions):
        owner = there.owners[part]
        if there.shards[owner].database.ask(sql.CHECKPOINT, (_note(here, part),)):
            continue
        for receive in _partition(here, part):
            batch.append((owner, receive))
            rows += sum(map(len, receive.rows.values()))
            size += sum(len(version.body or b"") for found in receive.rows.values() for version in found)
            if rows >= BATCH_ROWS or size >= BATCH_BYTES:
                yield batch
                batch, rows, size = [], 0, 0
    if batch:
        yield batch


def _send(there: Handle, owner: int, receives: list[Receive]) -> None:
    there.shards[owner].apply(there.definitions[owner], receives)


def _note(here: Handle, part: int) -> str:
    """The checkpoint that says in the target that a partition is there."""
    return f"{MARK}:{here.uid}:{part}"


def _partition(here: Handle, part: int) -> Iterator[Receive]:
    """All rows of a partition in batches; the last one, perhaps empty, has the knowledge and the note."""
    owner = here.owners[part]
    database, id_ = here.shards[owner].database, here.definitions[owner].base + part
    with database.snapshot() as connection:
        found = connection.rows(sql.PARTITION, (id_,))
        if not found:
            raise NotFound(f"collection {here.name!r} was dropped while it was being copied. Copy the store again.")
        [(_id, _collection, _part, actor, ctr, seq, *_)] = found
        known = knowledge_of(connection, id_, actor, ctr)
    after, top = place_of(id_, 0), place_of(id_, seq)
    while True:
        with database.snapshot() as connection:
            end = page_end(connection, after, top)
            page = connection.rows(sql.VERSIONS_BY_ID, (after, end, PAGE_ROWS))
            # Read with the last rows and not with the knowledge: of what was purged meanwhile the copy got nothing.
            forgotten = forgotten_of(connection, id_) if end == top else {}
        rows: dict[str, list[Version]] = {}
        for key, body, *lineage in page:
            rows.setdefault(key, []).append(version_of(lineage, body))
        if end == top:
            bases = known.bases()
            forgotten = {actor: min(n, bases[actor]) for actor, n in forgotten.items() if actor in bases}
            yield Receive(part, rows, known, {_note(here, part): "true"}, forgotten=forgotten)
            return
        yield Receive(part, rows)
        after = end
