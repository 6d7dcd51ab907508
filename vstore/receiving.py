"""What becomes of rows from another replica, and of what it says is gone, inside a transaction of the target.

    rows      `vstore.document.receive` decides; here they get their places, and what should never be is said aloud
    left      documents that have left the filter of this replica are given up, and may come back
    forget    what the sender has purged goes here as well
    purge     deleted documents go for good, by proof

Source: docs/consistency.md, "Sync" and "Forgetting".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from vstore.batch import Arrived, Purge, Purged, Receive
from vstore.clock import LONG, Knowledge
from vstore.document import Entry, Received, Version, ancestors_of, receive
from vstore.errors import Unavailable
from vstore.plan import Held, Partition
from vstore.sql import statements as sql
from vstore.sql.database import Connection
from vstore.sql.statements import chunks

log = logging.getLogger("vstore")


def exposes(work: Receive, partition: Partition) -> bool:
    """Whether the sender has events of this partition's actor that it has not: this database was set back."""
    return (work.knowledge is not None and work.knowledge.highest(partition.actor) > partition.ctr) or any(
        dot.actor == partition.actor and dot.n > partition.ctr
        for rows in work.rows.values()
        for row in rows
        for dot in row.dots
    )


def refuse_moved(connection: Connection, works: Sequence[Receive], database: str) -> None:
    """Accepts receives whose sender is still the one that may write, and goes on from where it thinks.

    Asked once for all works of a transaction, under its locks: who takes over the lease, or moves a checkpoint, later
    than this waits for them.

    Args:
        database: its name, for the message.
    """
    for name, token in {work.fence for work in works if work.fence is not None}:
        if [tuple(row) for row in connection.rows(sql.FENCE, (name,))] != [(token,)]:
            raise Unavailable(
                f"lease {name} in {database} was taken over by another replicator. Nothing of this batch was written. "
                f"It goes on there; or sync again when it has ended."
            )
    found: dict[str, str] = {}
    for chunk in chunks(list({name for work in works for name in work.expects or {}})):
        found.update(connection.rows(sql.CHECKPOINTS_OF(len(chunk)), chunk))
    for work in works:
        for name, expected in (work.expects or {}).items():
            if found.get(name) != expected:
                raise Unavailable(
                    f"checkpoint {name} in {database} has moved: somebody else is syncing the same replicas, or this "
                    f"database was set back meanwhile. Nothing of this batch was written. Sync again."
                )
        found.update(work.checkpoints or {})


def arrive(
    connection: Connection,
    partition: Partition,
    held: Mapping[str, Held],
    work: Receive,
    *,
    observe: Callable[[int], object],
    weigh: Callable[[str, Version], object],
    database: str,
) -> tuple[Arrived, bool]:
    """Takes in what another replica has sent: what became of it, and whether the partition's own actor is in doubt.

    Args:
        held: every key of the work, with all its versions.
        observe: told the stamp of each new version.
        weigh: told of each version whose clock is long, and raises if it is too long.
        database: its name, for the log.
    """
    known = partition.knowledge(connection)
    forgotten = partition.forgotten(connection)
    # Asked under the lock: between the sender's handshake and now somebody may have purged here.
    stale = work.bases is not None and any(n > work.bases.get(actor, 0) for actor, n in forgotten.items())
    outcomes = []
    doubtful: set[str] = set()
    for key, rows in work.rows.items():
        entry = held[key].entry
        stubs = {rev for rev, version in entry.versions.items() if version.stub} if entry.versions else set()
        outcome = receive(entry, rows, known, forgotten=forgotten, stale=stale, history=work.history)
        _place(key, held[key], outcome, stubs, partition)
        for version in outcome.inserted:
            observe(version.stamp)
        for version in (*outcome.inserted, *outcome.grown):
            if version.entries > LONG:
                weigh(key, version)
        if outcome.collided or outcome.unexplained:
            doubtful |= {dot.actor for dot in outcome.collided}
            doubtful |= {dot.actor for row in outcome.unexplained for dot in row.dots}
            _alarm(database, key, outcome)
        outcomes.append(outcome)
    own = partition.own_actors(connection) if work.left or work.forget else set()
    left = sum([_leave(held[key], known, own) for key in work.left])
    gone, given_up = 0, list[Version]()
    for key, revs in work.forget.items():
        before = held[key].entry.versions.copy()
        gone += _forget(held[key], revs, work.forgotten or {})
        given_up += [version for rev, version in before.items() if rev not in held[key].entry.versions]
    _conclude(connection, partition, work, given_up, own)
    arrived = Arrived(
        sum([len(outcome.inserted) for outcome in outcomes]),
        sum([len(outcome.grown) for outcome in outcomes]),
        sum([len(outcome.obsolete) for outcome in outcomes]),
        sum([len(outcome.unexplained) for outcome in outcomes]),
        gone,
        left,
        sum([len(outcome.revived) for outcome in outcomes]),
        len({dot[:2] for outcome in outcomes for dot in outcome.collided}),
        tuple([key for key in work.rows if _is_conflicted(held[key].entry)]),
    )
    return arrived, partition.actor in doubtful


def purge(connection: Connection, partition: Partition, held: Mapping[str, Held], work: Purge) -> Purged:
    """Forgets those of the keys of which it is proven that they may go."""
    keys = []
    for key in work.keys:
        entry = held[key].entry
        dots = (dot for version in entry.versions.values() for dot in version.dots)
        proven = all(dot.n <= work.stable.get(dot.actor, 0) for dot in dots)
        if proven and entry.heads and all(head.deleted for head in entry.heads.values()):
            purge_key(held[key])
            keys.append(key)
    partition.join_forgotten(connection, work.stable)
    return Purged(keys)


def purge_key(held: Held) -> None:
    """Everything of a key goes, heads and what is below them alike: what was left could look like a head again."""
    held.purged += [version.id for version in held.entry.versions.values()]
    held.entry.heads.clear()
    held.entry.versions.clear()
    held.inserted.clear()
    held.grown.clear()
    held.bared.clear()
    held.events.append("purge")


def _place(key: str, held: Held, outcome: Received, stubs: set[str], partition: Partition) -> None:
    """Gives new versions their places in the feed, and notes what is to be written of the others.

    `stubs` are those that were stubs before.
    """
    entry = held.entry
    for version in outcome.inserted:
        _append(held, version, partition)
    for version in outcome.grown:
        fresh = next((n for n, other in enumerate(held.inserted) if other.rev == version.rev), None)
        if fresh is not None:
            held.inserted[fresh] = version  # of this transaction: it is not written yet
        elif version.rev in stubs and not version.stub:  # it moves to the feed's end, where readers find it
            held.moved.append(version.id)
            _append(held, entry.versions[version.rev], partition)
        else:
            held.grown[version.rev] = version
    for version in outcome.revived:
        log.info("%s of %r is an edit of a document that was forgotten here, and is kept", version.rev, key)
    held.bared += [version.id for version in outcome.erased]
    held.events += ["erase"] * bool(outcome.erased) + ["revived"] * bool(outcome.revived)


def _append(held: Held, version: Version, partition: Partition) -> None:
    placed = held.entry.versions[version.rev] = version._replace(id=partition.place())
    if version.rev in held.entry.heads:
        held.entry.heads[version.rev] = placed
    held.inserted.append(placed)


def _alarm(database: str, key: str, outcome: Received) -> None:
    """Says aloud what should never be."""
    for version in outcome.unexplained:
        log.warning(
            "%s: the dot of %s of %r was known and the version was not here: an actor was cloned, or rows were lost. "
            "It is kept. Run `vstore check` on both replicas.",
            database,
            version.rev,
            key,
        )
    for dot in outcome.collided:
        log.error(
            "%s: dot (%s, %d) names two versions of %r: a database file was copied or restored while its original "
            "lived on. Both versions are kept. Make replicas with `vstore copy`.",
            database,
            dot.actor,
            dot.n,
            key,
        )


def _leave(held: Held, known: Knowledge, own: Container[str]) -> bool:
    """Gives up the heads that a stub supersedes, as if they had never come: they may come back. Says if any."""
    entry = held.entry
    stubs = [version for version in entry.versions.values() if version.stub]
    below = set().union(*(ancestors_of(stub.rev, entry.versions) for stub in stubs))
    gone = [
        head for head in entry.heads.values() if head.rev in below or any(stub.clock.sees(head.dots) for stub in stubs)
    ]
    for head in gone:
        del entry.heads[head.rev]
        entry.versions[head.rev] = head.as_stub._replace(id=head.id)
        held.bared.append(head.id)
        for dot in [dot for dot in head.dots if dot.actor not in own]:
            known.remove(dot.actor, dot.n)
    held.events += ["filter"] * bool(gone) + ["grown"] * bool(gone and entry.heads)
    return bool(gone)


def _forget(held: Held, revs: Iterable[str], forgotten: Mapping[str, int]) -> bool:
    """Gives up heads that another replica has forgotten, and a key that has no other; says if the key is gone."""
    entry = held.entry
    named = [entry.heads[rev] for rev in revs if rev in entry.heads]
    gone = [head for head in named if all(dot.n <= forgotten.get(dot.actor, 0) for dot in head.dots)]
    if not gone:
        return False
    if len(gone) == len(entry.heads):
        purge_key(held)
        return True
    # What was below these alone goes with them: with nothing above it, it would look like a head.
    for rev in _closed(gone, entry) - _closed([head for head in entry.heads.values() if head not in gone], entry):
        entry.heads.pop(rev, None)
        held.purged.append(entry.versions.pop(rev).id)
    held.events.append("grown")  # who follows the feed has to look again at what is left
    return False


def _closed(heads: Iterable[Version], entry: Entry) -> set[str]:
    """The revs of some heads of a key, of what they supersede, and of what that superseded."""
    found: set[str] = set()
    frontier = list(heads)
    while frontier:
        version = frontier.pop()
        found.add(version.rev)
        below = ancestors_of(version.rev, entry.versions)
        frontier += [
            other
            for rev, other in entry.versions.items()
            if rev not in found and (rev in below or version.clock.sees(other.dots))
        ]
    return found


def _conclude(
    connection: Connection, partition: Partition, work: Receive, given_up: Sequence[Version], own: Container[str]
) -> None:
    """What the partition knows, and may have forgotten, after the work. `own` are the actors that it has had."""
    known = partition.knowledge(connection)
    given = sorted([dot for version in given_up for dot in version.dots])
    if work.knowledge is not None:
        known.join(work.knowledge)
        partition.join_forgotten(connection, work.forgotten or {})
        # What was given up may have been born here once more since the sender forgot it: then it is forgotten here too.
        partition.join_forgotten(connection, {dot.actor: dot.n for dot in given if dot.n <= known.base(dot.actor)})
    else:
        # What was given up has to be explained, even if the rest of the pull never comes: it is known no more, as if
        # it had never come. What is forgotten there becomes so here only with the rest of what is known there.
        for dot in [dot for dot in given if dot.actor not in own]:
            known.remove(dot.actor, dot.n)
        partition.join_forgotten(connection, {dot.actor: dot.n for dot in given if dot.actor in own})


def _is_conflicted(entry: Entry) -> bool:
    return len(entry.heads) > 1 and sum(not head.deleted for head in entry.heads.values()) > 1
