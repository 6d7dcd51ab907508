"""Reads everything that is stored and names every broken invariant.

Two passes, each in pages under a short snapshot, so memory stays flat and writers
go on meanwhile:

    by partition, in commit order   every row by itself: its place, key, rev, body,
                                    dots and clock, and that no place is empty
    by key                          the heads are just the versions that no other
                                    supersedes, and have seen their ancestors

A position is taken first, and only what is at or below it is expected; what two
tables say of each other is read in one snapshot. So a finding is damage, and not
somebody else's write.

A rev proves the body, the parents and whether the version is a tombstone. Nothing
proves a stamp, nor which events of other stores a clock has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vstore import catalogue
from vstore.canonical import generation, revision
from vstore.clock import NOTHING, Dot, Knowledge
from vstore.codecs import Codec
from vstore.document import Version, ancestors_of, heads_among, is_marked, quarantined
from vstore.errors import CodecError, Corrupt, InvalidDocument, InvalidKey, NotFound, Unavailable
from vstore.handle import partition_of, place_of, seq_of
from vstore.pages import PAGE_ROWS, page_end
from vstore.partition import check_key, part_of
from vstore.plan import forgotten_of, knowledge_of
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.database import Connection
from vstore.sql.migrate import meta_of
from vstore.sql.rows import clock_text, dots_text, element_of, version_of
from vstore.sql.schema import EVENTS, LIVE, RIVAL, TOMBSTONE

if TYPE_CHECKING:
    from vstore.store import Store

PAGE_KEYS = 200
STRAYS = 100
"""How many rows that belong nowhere are named one by one, for each table and gap."""

Said = tuple[str, str]
"""The kind of a finding, and its sentence."""

_REV = re.compile("[1-9][0-9]*-[0-9a-f]{32}")

_UNREADABLE = (Corrupt, ValueError, TypeError, AttributeError, LookupError)
"""What reading a text or number raises that vstore did not write."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken invariant: where, and what is wrong. `kind` is a word for programs, `what` a sentence for people."""

    kind: str
    what: str
    shard: str
    collection: str = ""
    key: str = ""
    rev: str = ""

    def __str__(self) -> str:
        place = [self.collection, self.key and repr(self.key), self.rev]
        return f"{' '.join([self.shard, *filter(None, place)])}: {self.what}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A collection on one shard, and what its rows are checked against."""

    shard: Shard
    definition: Definition
    owned: Collection[int]
    codec_named: Callable[[str], Codec]

    def finding(self, kind: str, what: str, key: str = "", rev: str = "") -> Finding:
        return Finding(kind, what, self.shard.database.name, self.definition.name, key, rev)


@dataclass(slots=True)
class _Partition:
    """A counter row as it was read, and what its rows must agree with."""

    id: int
    part: int
    actor: str
    ctr: int
    seq: int
    finals: Mapping[str, int]
    known: Knowledge
    forgotten: Mapping[str, int]
    met: Knowledge = field(default_factory=Knowledge)
    marked: list[Version] = field(default_factory=list)  # that have lost a dot, since it named two versions


def check(
    store: Store, collections: Collection[str] | None = None, progress: Callable[[int, int], None] | None = None
) -> Iterator[Finding]:
    """Every broken invariant of a store; see `Store.check`.

    Raises:
        NotFound: there is no collection of a name in `collections`.
    """
    absent = sorted(set(collections or ()) - set(store.collections()))
    if absent:
        raise NotFound(f"there is no collection {absent[0]!r}. It has: {', '.join(store.collections()) or 'none'}.")
    return _findings(store, collections, progress or (lambda done, total: None))


def _findings(
    store: Store, collections: Collection[str] | None, progress: Callable[[int, int], None]
) -> Iterator[Finding]:
    for shard in store.shards:
        yield from _readable(shard, _check_database(store, shard))
    places = []
    for index, shard in enumerate(store.shards):
        try:
            on_shard = catalogue.definitions(shard)
        except _UNREADABLE as error:
            yield Finding("definition", f"the collections cannot be read: {error}", shard.database.name)
            continue
        for definition in on_shard.values():
            if not catalogue.is_dropped(definition) and (collections is None or definition.name in collections):
                parts = range(definition.partitions)
                owned = {part for part in parts if store.map.shard_of(part, definition.partitions) == index}
                places.append(_Place(shard, definition, owned, store.codec_named))
    yield from _readable(store.shards[0], _check_definitions(store, places))
    total = sum(sum(_positions(place).values()) for place in places)
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, max(done, total))

    for place in places:
        for id_ in _positions(place):
            yield from _readable(place.shard, _check_partition(place, id_, advance))
        yield from _readable(place.shard, _check_keys(place))


def _readable(shard: Shard, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of a pass; damage that ends it is one more, and the passes after it go on."""
    try:
        yield from findings
    except _UNREADABLE as error:
        yield Finding("unreadable", f"rows cannot be read, so the rest was not checked: {error}", shard.database.name)
    except Unavailable as error:
        # A file has no server that could have gone away: what SQLite refuses to read, such as text that is no UTF-8, is
        # damaged. From a server it is an outage, and says nothing of the data.
        if shard.database.path is None or shard.database.is_busy(error):
            raise
        yield Finding("unreadable", f"rows cannot be read, so the rest was not checked: {error}", shard.database.name)


# --- the database and its collections --------------------------------------------------------------------------------


def _check_database(store: Store, shard: Shard) -> Iterator[Finding]:
    name = shard.database.name
    if shard.database.path is not None:
        for (line,) in shard.database.read().text(f"PRAGMA integrity_check({STRAYS})"):
            if line != "ok":
                yield Finding("database", f"SQLite finds its file damaged: {line}", name)
    meta = meta_of(shard.database)
    if meta.get("map") != store.map.to_json():
        yield Finding("map", f"its partition map is {meta.get('map')}, others have {store.map.to_json()}", name)
    if meta.get("store") != store.id or meta.get("shard") != shard.id:
        yield Finding("map", f"it says it is {meta.get('shard')} of store {meta.get('store')}, not {shard.id}", name)
    with shard.database.snapshot() as connection:
        partitions = [row[0] for row in connection.rows(sql.ALL_PARTITIONS)]
        yield from _check_strays(connection, name, partitions)
        yield from _check_actors(connection, name, set(partitions))


def _check_strays(connection: Connection, name: str, partitions: Sequence[int]) -> Iterator[Finding]:
    """Rows between and beyond the partitions there are, and heads of collections that there are not."""
    edges = [0, *(edge for id_ in partitions for edge in (id_, id_ + 1)), 1 << 23]
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        if first == end:
            continue
        bounds = place_of(first, 0) - 1, place_of(end, 0) - 1, STRAYS
        for _collection, key, _body, id_, rev, *_ in connection.rows(sql.ROWS_BY_ID, bounds):
            yield Finding(
                "stray", f"a version is in partition {partition_of(id_)}, which does not exist", name, "", key, rev
            )
        for id_, key, _kind in connection.rows(sql.EVENTS_BY_ID, bounds):
            yield Finding("stray", f"an event is in partition {partition_of(id_)}, which does not exist", name, "", key)
    for collection, key, _id in connection.rows(sql.LOST_HEADS, (STRAYS,)):
        yield Finding("stray", f"a head is of collection number {collection}, which does not exist", name, "", key)


def _check_actors(connection: Connection, name: str, partitions: set[int]) -> Iterator[Finding]:
    live: dict[str, int] = {}
    for id_, _collection, _part, actor, *_ in connection.rows(sql.ALL_PARTITIONS):
        if live.setdefault(actor, id_) != id_:
            yield Finding("actor", f"partitions {live[actor]} and {id_} have one actor, {actor}", name)
    for actor, partition, final, _retired in connection.rows(sql.ACTORS):
        if partition not in partitions or actor in live or final < 1:
            yield Finding("actor", f"retired actor {actor} of partition {partition} is in use, or was never used", name)
    for (partition,) in connection.rows(sql.KNOWING):
        if partition not in partitions:
            yield Finding("knowledge", f"knowledge of partition {partition}, which does not exist", name)


def _check_definitions(store: Store, places: Sequence[_Place]) -> Iterator[Finding]:
    """Every shard has the same collections, each with all its partitions."""
    by_uid: dict[str, list[_Place]] = {}
    for place in places:
        by_uid.setdefault(catalogue.uid_of(place.definition), []).append(place)
    first = store.shards[0]
    for found in by_uid.values():
        if found[0].shard is not first:
            if any(_positions(found[0]).values()):
                yield found[0].finding("definition", f"{first.database.name} does not know this collection")
            continue  # without documents it is being made, or was half made when a process ended
        for shard in store.shards:
            if not any(place.shard is shard for place in found) and catalogue.found(
                store.shards[:1], found[0].definition.name
            ):
                yield Finding(
                    "definition", "the collection is missing here", shard.database.name, found[0].definition.name
                )
        if len({place.definition.partitions for place in found}) > 1:
            counts = ", ".join(str(place.definition.partitions) for place in found)
            yield found[0].finding("definition", f"its numbers of partitions differ from shard to shard: {counts}")
    for place in places:
        rows = place.shard.database.ask(sql.PARTITIONS_OF, (place.definition.id,))
        wanted = [(place.definition.base + part, part) for part in range(place.definition.partitions)]
        if rows and [(row[0], row[2]) for row in rows] != wanted:  # no rows: it was dropped meanwhile
            yield place.finding(
                "partition", f"of {len(wanted)} partitions {len(rows)} are here, or not in their places"
            )


def _positions(place: _Place) -> dict[int, int]:
    """The partitions there are, and how many commits each has had."""
    return {row[0]: row[5] for row in place.shard.database.ask(sql.PARTITIONS_OF, (place.definition.id,))}


# --- by partition, in commit order -----------------------------------------------------------------------------------


def _check_partition(place: _Place, id_: int, advance: Callable[[int], None]) -> Iterator[Finding]:
    """Every version and event of a partition, and that none is missing."""
    with place.shard.database.snapshot() as connection:
        found = connection.rows(sql.PARTITION, (id_,))
        if not found:
            return  # the collection was dropped meanwhile
        partition = _partition_of(connection, found[0])
        yield from _check_runs(place, partition, connection.rows(sql.KNOWLEDGE, (id_,)))
    status = found[0][7]
    if status != "active" or not 0 <= partition.ctr <= partition.seq:
        counts = f"{partition.ctr} events in {partition.seq} places"
        yield place.finding(
            "partition", f"partition {partition.part} is {status}, not active, or counts wrongly: {counts}"
        )
    if partition.seq and partition.part not in place.owned:
        yield place.finding("map", f"partition {partition.part} has rows here, and the map places it on another shard")
    expected, after, top = 1, place_of(id_, 0), place_of(id_, partition.seq)
    while after < top:
        with place.shard.database.snapshot() as connection:
            now = connection.rows(sql.PARTITION, (id_,))
            if not now:
                return
            end = page_end(connection, after, top)
            events = connection.rows(sql.EVENTS_BY_ID, (after, end, PAGE_ROWS))
            if len(events) == PAGE_ROWS:
                end = min(end, events[-1][0])
            rows = connection.rows(sql.ROWS_BY_ID, (after, end, PAGE_ROWS))
            latest = _partition_of(connection, now[0])  # rows may have learnt dots since the first look
        for row in rows:
            for kind, what in _row_findings(place, partition, latest, row):
                yield place.finding(kind, what, row[1], row[4])
        events = [event for event in events if event[0] <= end]
        for event_id, key, kind in events:
            if kind not in EVENTS or (_misplaced(place, partition, key) if kind != "purged" else key):
                yield place.finding(
                    "event", f"event {seq_of(event_id)} is of kind {kind!r}, or not in its partition", key
                )
        for taken in sorted([seq_of(row[3]) for row in rows] + [seq_of(event[0]) for event in events]):
            if taken != expected:
                yield _gap(place, partition, expected, taken - 1)
            expected = taken + 1
        advance(len(rows) + len(events))
        after = end
    if expected <= partition.seq:
        yield _gap(place, partition, expected, partition.seq)
    yield from _check_own_dots(place, partition)
    yield from _check_beyond(place, id_)


def _partition_of(connection: Connection, row: Sequence[Any]) -> _Partition:
    id_, _collection, part, actor, ctr, seq, *_ = row
    finals = {name: final for name, partition, final, _ in connection.rows(sql.ACTORS) if partition == id_}
    known = knowledge_of(connection, id_, actor, ctr)
    return _Partition(id_, part, actor, ctr, seq, finals, known, forgotten_of(connection, id_))


def _check_runs(place: _Place, partition: _Partition, runs: Sequence[Sequence[Any]]) -> Iterator[Finding]:
    before: tuple[str, int] = ("", 0)
    for actor, lo, hi in runs:
        if not 1 <= lo <= hi or (actor == before[0] and lo <= before[1] + 1) or actor == partition.actor:
            yield place.finding(
                "knowledge", f"run {lo} to {hi} of {actor} in partition {partition.part} is out of order"
            )
        before = actor, hi
    for actor, final in partition.finals.items():
        if partition.known.base(actor) < final:
            yield place.finding(
                "knowledge", f"partition {partition.part} does not know its own actor {actor} to {final}"
            )


def _gap(place: _Place, partition: _Partition, first: int, last: int) -> Finding:
    if last < first:
        return place.finding("gap", f"place {last + 1} of partition {partition.part} is taken twice")
    where = f"place {first} is" if first == last else f"places {first} to {last} are"
    return place.finding(
        "gap", f"{where} empty in partition {partition.part}, which has {partition.seq}: a version or event was deleted"
    )


def _check_own_dots(place: _Place, partition: _Partition) -> Iterator[Finding]:
    for actor, last in [(partition.actor, partition.ctr), *partition.finals.items()]:
        runs = partition.met.runs.get(actor, [])
        purged = partition.forgotten.get(actor, 0)  # what may have gone for good, and of which no version tells
        lost = [n for lo, hi in _complement(runs, last) for n in range(max(lo, purged + 1), hi + 1)]
        lost = [n for n in lost if not _is_void((actor, n), partition.marked)]
        if lost:
            yield place.finding("dot", f"the version of dot ({actor}, {lost[0]}) is gone; {actor} had written {last}")


def _is_void(event: tuple[str, int], marked: Sequence[Version]) -> bool:
    """Whether a dot was taken from a version because it named two."""
    return any(quarantined(Dot(*event), version.rev) in version.dots for version in marked)


def _complement(runs: Sequence[tuple[int, int]], last: int) -> Iterator[tuple[int, int]]:
    """The runs of 1 to `last` that are not in `runs`."""
    expected = 1
    for lo, hi in runs:
        if lo > expected and expected <= last:
            yield expected, min(lo - 1, last)
        expected = hi + 1
    if expected <= last:
        yield expected, last


def _check_beyond(place: _Place, id_: int) -> Iterator[Finding]:
    """Rows behind the last commit."""
    with place.shard.database.snapshot() as connection:
        for row in connection.rows(sql.PARTITION, (id_,)):
            bounds = place_of(id_, row[5]), place_of(id_ + 1, 0) - 1, STRAYS
            for _collection, key, _body, _id, rev, *_ in connection.rows(sql.ROWS_BY_ID, bounds):
                yield place.finding("stray", f"a version is behind the last commit of partition {row[2]}", key, rev)
            for _id, key, _kind in connection.rows(sql.EVENTS_BY_ID, bounds):
                yield place.finding("stray", f"an event is behind the last commit of partition {row[2]}", key)


# --- one row ---------------------------------------------------------------------------------------------------------


def _row_findings(place: _Place, partition: _Partition, latest: _Partition, row: Sequence[Any]) -> Iterator[Said]:
    collection, key, body, *lineage = row
    if collection != place.definition.id:
        yield "place", f"it is of collection number {collection}, in a partition of number {place.definition.id}"
    misplaced = _misplaced(place, partition, key)
    if misplaced:
        yield "place", misplaced
    try:
        version = version_of(lineage, body)
        gen = generation(version.rev)
        older = [generation(parent) for parent in version.parents]
    except _UNREADABLE as error:
        yield "lineage", f"rev, parents, dots or clock cannot be read: {error.__cause__ or error}"
        return
    texts = " ".join(version.parents), dots_text(sorted(version.dots)), clock_text(version.clock)
    if texts != tuple(lineage[4:7]) or not all(map(_REV.fullmatch, [version.rev, *version.parents])):
        yield "lineage", "rev, parents, dots or clock are not as vstore writes them"
    if not all(flag in (0, 1) for flag in lineage[2:4]) or type(version.stamp) is not int:
        yield "lineage", f"deleted={lineage[2]!r}, stub={lineage[3]!r} or stamp={version.stamp!r} is impossible"
    if gen != (older[0] + 1 if older else 1):
        yield "rev", f"its generation does not follow from its first parent, {version.parents[0] if older else 'none'}"
    yield from _body_findings(place, version)
    yield from _dot_findings(partition, latest, version)


def _misplaced(place: _Place, partition: _Partition, key: str) -> str:
    try:
        check_key(key)
    except InvalidKey as error:
        return str(error)
    part = part_of(key, place.definition.partitions)
    return "" if part == partition.part else f"it is in partition {partition.part}, and its key belongs to {part}"


def _body_findings(place: _Place, version: Version) -> Iterator[Said]:
    """That there is a body where one has to be, and that the rev is the name of just this content."""
    bare = version.deleted or version.stub
    if bare and (version.body is not None or version.codec):
        yield "body", f"a {'tombstone' if version.deleted else 'stub'} has a body"
        return
    identity = None
    if not bare:
        if version.body is None:
            yield "body", "its body is gone, and it is neither a tombstone nor a stub"
            return
        try:
            codec = place.codec_named(version.codec)
            identity = codec.identity(codec.decode(bytes(version.body)))
        except (CodecError, InvalidDocument) as error:
            yield "body", f"its body cannot be read: {error}"
            return
    if version.stub and not version.deleted:
        return  # without its body nothing tells what it should be called
    gen = generation(version.rev)
    salts = [None] if version.parents else [(dot.actor, dot.n) for dot in version.dots]
    if not version.parents and is_marked(version):
        return  # the dot that it was salted with is void, and was taken from it
    if all(revision(gen, version.deleted, version.parents, identity, salt) != version.rev for salt in salts):
        yield "rev", "its content has another rev: body, parents, dots or whether it is deleted were changed"


def _dot_findings(partition: _Partition, latest: _Partition, version: Version) -> Iterator[Said]:
    if not version.dots:
        yield "dot", "it has no dot"
        return
    if is_marked(version):
        partition.marked.append(version)
    # A stub may be all that was given of a version, or of another name of it: so one name that is known is enough.
    if not version.stub and not any(dot in latest.known for dot in version.dots):
        named = " ".join(f"({dot.actor}, {dot.n})" for dot in version.dots)
        yield "dot", f"dot {named} is not in the knowledge of partition {partition.part}"
    for dot in version.dots:
        if not partition.met.add(dot.actor, dot.n):
            yield "dot", f"dot ({dot.actor}, {dot.n}) names another version too"
        if not 0 <= dot.prev < dot.n:
            yield "dot", f"dot ({dot.actor}, {dot.n}) follows {dot.prev}"
    if all(dot in version.clock for dot in version.dots):
        yield "clock", "its clock says that its writer had seen this version itself"
    if version.clock.vector.get(latest.actor, 0) > latest.ctr or any(
        actor == latest.actor and n > latest.ctr for actor, n in version.clock.cloud
    ):
        yield "clock", f"its clock has events of {latest.actor} that are still to come after {latest.ctr}"


# --- by key ----------------------------------------------------------------------------------------------------------


def _check_keys(place: _Place) -> Iterator[Finding]:
    """The heads of every key, those without versions too."""
    after = ""
    while True:
        with place.shard.database.snapshot() as connection:
            bounds = place.definition.id, after, PAGE_KEYS
            pages = [
                [row[0] for row in connection.rows(statement, bounds)]
                for statement in (sql.VERSION_KEYS, sql.HEAD_KEYS)
            ]
            # A full page may go on behind its last key, which therefore bounds what is compared now.
            ends = [page[-1] for page in pages if len(page) == PAGE_KEYS]
            keys = sorted({key for page in pages for key in page if not ends or key <= min(ends)})
            versions: dict[str, list[Version]] = {key: [] for key in keys}
            heads: dict[str, dict[int, int]] = {key: {} for key in keys}
            lanes: dict[int, Sequence[int]] = {}
            unreadable: set[str] = set()
            # The actors of this store, and how many events each has written: all of them are here.
            partitions = connection.rows(sql.PARTITIONS_OF, (place.definition.id,))
            own = {row[3]: row[4] for row in partitions}
            own.update({actor: final for actor, _partition, final, _retired in connection.rows(sql.ACTORS)})
            purged = dict(
                connection.rows(sql.ALL_FORGOTTEN, (place.definition.base, place.definition.base + len(partitions)))
            )
            for chunk in sql.chunks(keys):
                for key, *lineage in connection.rows(sql.VERSIONS(len(chunk)), [place.definition.id, *chunk]):
                    try:
                        versions[key].append(version_of(lineage))
                        generation(versions[key][-1].rev)
                    except _UNREADABLE:  # the first pass has named it, and without it nothing can be said of the key
                        unreadable.add(key)
                for key, id_, state, *found in connection.rows(
                    sql.HEAD_ROWS(len(chunk)), [place.definition.id, *chunk]
                ):
                    heads[key][id_] = state
                    lanes[id_] = found
        for key in keys:
            if key in unreadable:
                continue
            for kind, what, rev in _head_findings(versions[key], heads[key]):
                yield place.finding(kind, what, key, rev)
            for rev, what in _clock_findings(versions[key], heads[key], own, purged):
                yield place.finding("clock", what, key, rev)
            for version in versions[key]:
                if version.id in heads[key] and tuple(lanes[version.id]) != element_of(key, version):
                    yield place.finding("element", "its head has another version's element", key, version.rev)
        if not ends:
            return
        after = min(ends)


def _head_findings(versions: Sequence[Version], heads: Mapping[int, int]) -> Iterator[tuple[str, str, str]]:
    by_id = {version.id: version for version in versions}
    for id_ in heads.keys() - by_id.keys():
        yield "head", f"a head names version {id_}, which is not one of this key", ""
    found = {version.rev: version for version in versions}
    full = {rev: version for rev, version in found.items() if not version.stub}
    current = {by_id[id_].rev for id_ in heads if id_ in by_id}
    # What no row supersedes must be a head, and what a full one supersedes must not. Between them is what only stubs
    # supersede: they came ahead of the version that they lead to, or it was lost on the way.
    must = {version.rev for version in heads_among(found) if not version.stub}
    for rev in must - current:
        yield "head", "no version supersedes it, and it is not among the heads", rev
    for rev in current & found.keys():
        if found[rev].stub:
            yield "head", "a head has lost its body", rev
        elif _superseded(rev, found, full):
            yield "head", "it is among the heads, and another version supersedes it", rev
    live = [rev for rev in current if not found[rev].deleted]
    for id_, state in heads.items():
        if id_ in by_id:
            wanted = TOMBSTONE if by_id[id_].deleted else LIVE if len(live) == 1 else RIVAL
            if state != wanted:
                yield "state", f"its head has state {state}, and {wanted} is right", by_id[id_].rev


def _superseded(rev: str, versions: Mapping[str, Version], full: Mapping[str, Version]) -> bool:
    return any(
        other.clock.sees(versions[rev].dots) or rev in ancestors_of(other.rev, versions)
        for other in full.values()
        if other.rev != rev
    )


def _clock_findings(
    versions: Sequence[Version], heads: Mapping[int, int], own: Mapping[str, int], purged: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """That clocks hold what they must of the ancestors, and of this store's own events only those on this key."""
    found = {version.rev: version for version in versions}
    events = {(dot.actor, dot.n) for version in versions for dot in version.dots}
    marked = [version for version in versions if is_marked(version)]

    def is_strange(event: tuple[str, int]) -> bool:
        """Whether an event of this store is of another key: nothing here has it, and it is neither purged nor void."""
        actor, n = event
        return purged.get(actor, 0) < n <= own.get(actor, 0) and event not in events and not _is_void(event, marked)

    for version in versions:
        foreign = [event for event in [*version.clock.vector.items(), *version.clock.cloud] if is_strange(event)]
        if foreign:
            yield version.rev, f"its clock has event {foreign[0]}, which is not of this key"
        for actor, n, prev in version.dots:
            if prev and actor in own and is_strange((actor, prev)):
                yield version.rev, f"its dot ({actor}, {n}) follows {prev}, which is not of this key"
        seen = NOTHING
        if version.id in heads:  # heads are closed over all that they descend from, whenever that arrived
            for rev in ancestors_of(version.rev, found) & found.keys():
                seen = (seen | found[rev].clock).with_dots(found[rev].dots)
        else:  # of the others only this is certain: who wrote here had seen a parent that was born here before
            born = {dot.actor: dot.n for dot in version.dots if dot.actor in own}
            for parent in [found[rev] for rev in version.parents if rev in found]:
                if len(parent.dots) == 1 and parent.dots[0].n < born.get(parent.dots[0].actor, 0):
                    seen = seen.with_dots(parent.dots)
        if not seen <= version.clock:
            yield version.rev, "its clock lacks what its ancestors had seen"
