"""What a target has lost, or has still to forget, mended where no feed would ever tell it.

    forget     heads that the source has purged go here too
    unearth    rows that are stored and are no heads, though they should be, become heads again
    discard    heads that have lost their row go, so that they can be taken anew

Rows come in through `Shard.apply`, where the rules of `vstore.document` decide
once more. Each transaction passes the fence of the link's lease.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from replication.handshake import link_of
from replication.heads import looks
from replication.lease import Lease
from replication.pulled import Pulled
from replication.verdicts import Look
from vstore.batch import Arrived, Receive
from vstore.document import Version, united
from vstore.handle import Handle
from vstore.shard import Shard
from vstore.sql import statements as sql
from vstore.sql.rows import version_of
from vstore.sql.statements import chunks


class Repair:
    """The repairs of one target by one source.

    Each is durable when it returns, and raises LeaseHeld if somebody else
    replicates the link, or Unavailable: then nothing of it was done, or what was
    done in the other shards stays.
    """

    def __init__(self, source: Handle, target: Handle, lease: Lease | None) -> None:
        """Does nothing yet.

        Args:
            lease: of the link, kept by the caller; else one is taken for each repair.
        """
        self._source = source
        self._target = target
        self._lease = lease

    def forget(self, purged: Mapping[str, Sequence[str]], theirs: Mapping[str, Look]) -> Pulled:
        """Lets the target forget heads that the source has purged.

        Args:
            purged: by key, the revs.
            theirs: what the source has of these keys, and has forgotten.
        """
        works: dict[int, list[Receive]] = defaultdict(list)
        for part, keys in self._target.by_part(purged).items():
            forgotten = theirs[keys[0]].forgotten
            work = Receive(part, {}, forgotten=forgotten, forget={key: purged[key] for key in keys})
            works[self._target.owners[part]].append(work)
        done = Pulled()
        for owner, some in works.items():
            shard = self._target.shards[owner]
            with self._fence(shard) as fence:
                fenced = [replace(work, fence=fence) for work in some]
                for arrived in shard.apply(self._target.definitions[owner], fenced):
                    done.forgotten += arrived.forgotten
        return done

    def unearth(self, key: str, revs: Sequence[str]) -> Pulled:
        """Makes heads again of rows that ought to be and are not, as what they are at the source.

        What is stored here may have names that the source has not heard of yet. So it goes, since a row that stays is
        taken for superseded, and in the same transaction it comes anew with all its names, united with the source's.
        """
        there = self._source.place(key)
        rows = there[0].database.ask(sql.HEADS_WITH_BODY(1), (there[1].id, key))
        theirs = [version_of(lineage, body) for _key, body, *lineage in rows]
        with self._locked(key) as take_in:
            here = looks(self._target, [key])[key]
            found: dict[int, Version] = {}
            for version in theirs:
                stored = here.versions.get(version.rev)
                if version.rev not in revs or version.rev in here.heads or stored is None:
                    continue
                # Its body is the source's, as its own may be pruned, or lost with what is lost here.
                whole = united(stored.as_stub, version)
                purged = version.deleted and any(dot.n <= here.forgotten.get(dot.actor, 0) for dot in whole.dots)
                if not (version.stub or purged or here.replaces(whole)):
                    found[stored.id] = whole
            self._drop(key, list(found))
            arrived = take_in(list(found.values()))
        return Pulled(
            rows=len(found),
            new=arrived.inserted,
            unexplained=arrived.unexplained,
            collided=arrived.collided,
            body_bytes=sum(len(version.body or b"") for version in found.values()),
        )

    def discard(self, key: str, ids: Sequence[int]) -> None:
        """Removes heads of a key that have lost their row, by place. Take them anew afterwards."""
        with self._locked(key):
            self._drop(key, ids)

    @contextmanager
    def _locked(self, key: str) -> Iterator[Callable[[Sequence[Version]], Arrived]]:
        """A transaction of the target with the partition of a key locked; it is given what takes in rows of the key.

        Only while the lease of the link is ours: else somebody else repairs the same, and nothing is written.
        """
        shard, definition, part = self._target.place(key)
        with self._fence(shard) as fence, shard.transaction():

            def take_in(rows: Sequence[Version]) -> Arrived:
                work = Receive(part, {key: rows} if rows else {}, fence=fence)
                [arrived] = shard.apply(definition, [work])
                assert isinstance(arrived, Arrived)
                return arrived

            take_in([])
            yield take_in

    @contextmanager
    def _fence(self, shard: Shard) -> Iterator[tuple[str, int]]:
        """The lease that a transaction has to have, and gives back unless it is the caller's."""
        lease = self._lease or Lease(link_of(self._source, self._target))
        try:
            yield lease.fence(shard)
        finally:
            if self._lease is None:
                lease.release()

    def _drop(self, key: str, ids: Sequence[int]) -> None:
        """Removes rows by place. An event says that they have moved, so that no place of the feed is empty."""
        shard, definition, _part = self._target.place(key)
        connection = shard.database.read()
        for chunk in chunks(ids):
            connection.run(sql.DROP_HEADS_AT(len(chunk)), chunk)
            connection.run(sql.DROP_VERSIONS_AT(len(chunk)), chunk)
        empty = [id_ for id_ in ids if not connection.rows(sql.EVENTS_BY_ID, (id_ - 1, id_, 1))]
        connection.run_many(sql.ADD_EVENT, [(id_, definition.id, key, "moved") for id_ in empty])
