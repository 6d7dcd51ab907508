"""The feeds of partitions of a source, page by page, less what the target has.

    heads     the present heads in the order of their commits, with stubs of the ancestors that the target lacks
    history   every version in the order of its commit

First come rows without bodies, with their sizes: what they tell of lineage says
what the target lacks, and only the bodies of that are read. So a row that went
round a ring costs a comparison, and a page holds as many bytes as it may. Events
come along: heads that learnt more of their past, keys that were purged.

The source's knowledge is read with the page that reaches the end of the feed:
only who was given everything may claim to know everything.

Partitions in which little has changed are read together, in one snapshot and by
one statement for all of them: on a long line it is the round trips that cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from replication.handshake import Place
from replication.integrity import damage
from replication.scope import Scope
from vstore.clock import Knowledge
from vstore.codecs import Codec
from vstore.document import Version, knows
from vstore.errors import CodecError, NotFound
from vstore.handle import Handle, partition_of, place_of
from vstore.plan import forgotten_of, forgotten_of_each, knowledge_of_each
from vstore.sql import statements as sql
from vstore.sql.database import Connection
from vstore.sql.lineages import heads_of, versions_of
from vstore.sql.rows import version_of
from vstore.sql.schema import LIVE
from vstore.sql.statements import Statement, chunks

PAGE_ROWS = 1_000
PAGE_BYTES = 4 * 1024 * 1024
FIRST_ROWS = 256
PRESENT_KEYS = 500
"""A page compares at most 1,000 rows and moves at most 4 MiB of bodies, or one; the first is smaller."""

TOGETHER = 1, 8, 64
"""How many partitions are read at once: the fewest of these that there are."""


@dataclass(slots=True)
class Page:
    """A stretch of a partition's feed, as the target needs it.

    `last` is the id up to which it goes. `spoilt` are rows that must not be
    given to anybody: key, row and reason. `claimed` and `forgotten` are what the
    source knows and may have forgotten; the first only if the feed ended here.
    `held` has, of keys that were asked for, what the source has of each.
    """

    last: int
    compared: int = 0
    rows: dict[str, list[Version]] = field(default_factory=dict)
    spoilt: list[tuple[str, Version, str]] = field(default_factory=list)
    forget: dict[str, list[str]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    claimed: Knowledge | None = None
    forgotten: Mapping[str, int] = field(default_factory=dict)
    held: dict[str, dict[str, Version]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Its rows."""
        return sum(map(len, self.rows.values()))

    @property
    def body_bytes(self) -> int:
        """Its bytes of bodies."""
        return sum(len(row.body) for rows in self.rows.values() for row in rows if row.body is not None)


class Candidate(NamedTuple):
    """A row of the source without its body, and where in the feed it was met."""

    place: int
    state: int
    key: str
    size: int
    version: Version


class _Standing(NamedTuple):
    """A partition of the source in the snapshot of a page; `top` is the id of its last commit."""

    actor: str
    ctr: int
    top: int
    feed: str


class Feed:
    """Partitions of a source as one target reads them. For one pull, by one thread."""

    def __init__(self, source: Handle, there: Place, here: Place, scope: Scope) -> None:
        """Reads nothing yet.

        Args:
            there, here: a partition at both ends; the others that are read are in the same two shards.
        """
        self._source = source
        self._there = there
        self._here = here
        self._scope = scope
        self._known = Knowledge()
        self._codecs: dict[str, Codec | None] = {}

    def pages(
        self, starts: Mapping[int, tuple[str, int]], most: Callable[[], int] = lambda: PAGE_ROWS
    ) -> Iterator[tuple[int, Page]]:
        """The pages of each partition after a position in its feed, one partition after the other.

        A partition ends early if the source becomes somebody else there meanwhile.

        Args:
            starts: by partition, its feed and the position.
            most: asked before each reading how many rows it may compare.

        Raises:
            NotFound: the collection was dropped at the source.
            Unavailable: a database failed.
        """
        limit = FIRST_ROWS
        base = self._there.definition.base
        after = {part: place_of(base + part, seq) for part, (_feed, seq) in sorted(starts.items())}
        while after:
            limit = max(1, min(limit, most(), PAGE_ROWS))
            some = list(after)[: TOGETHER[-1]]
            self._learn(some)
            with self._there.shard.database.snapshot() as connection:
                standing = self._standing(connection, some)
                for part in [part for part in some if standing[part].feed != starts[part][0]]:
                    del after[part]
                spans = _together({part: (after[part], standing[part].top) for part in some if part in after}, limit)
                if not spans:
                    continue
                page, parts = self._page(connection, list(spans.values()), limit)
                ended = _ended(spans, page.last)
                counted = {base + part: (standing[part].actor, standing[part].ctr) for part in ended}
                claimed = knowledge_of_each(connection, counted)
                forgotten = {}
                if ended or page.forget:
                    forgotten = forgotten_of_each(connection, [base + part for part in spans])
            cut = len(ended) < len(spans)
            # As many as the last one moved, and more while there is room: a page that was cut for its bytes says how
            # many go into one.
            limit = max(16, 2 * page.compared if cut and page.compared < limit else 4 * limit)
            pages = _split(page, parts)
            for part, (start, top) in spans.items():
                if page.last <= start and page.last < top:
                    break  # the page was full before
                mine = pages.get(part) or Page(0)
                mine.last = after[part] = min(page.last, top)
                mine.compared, page.compared = page.compared, 0  # of all of them, told once
                mine.claimed = claimed.get(base + part)
                mine.forgotten = forgotten.get(base + part, {})
                if part in ended:
                    del after[part]
                yield part, mine

    def _standing(self, connection: Connection, parts: Sequence[int]) -> dict[int, _Standing]:
        base = self._there.definition.base
        found = {}
        for ids in chunks([base + part for part in parts]):
            for row in connection.rows(sql.PARTITIONS_IN(len(ids)), ids):
                id_, _collection, _part, actor, ctr, seq, _epoch, _status, feed = row
                found[id_ - base] = _Standing(actor, ctr, place_of(id_, seq), feed)
        if len(found) < len(parts):
            raise NotFound(f"collection {self._source.name!r} was dropped at the source while it was pulled.")
        return found

    def present(self, keys: Sequence[str], *, forget: bool = False) -> Iterator[Page]:
        """The present heads of some keys, whatever their place in the feed; pages have no position.

        Args:
            forget: also what the target holds of them and the source has forgotten.
        """
        self._learn([self._there.part])
        left = list(dict.fromkeys(keys))
        read = self._versions_of if self._scope.keeps_history else self._heads_of
        while left:
            done = left[:PRESENT_KEYS]
            with self._there.shard.database.snapshot() as connection:
                found = read(connection, done)
                size = 0
                for n, key in enumerate(done):
                    size += sum(each.size for each in found.get(key, ()))
                    if n and size > PAGE_BYTES:
                        done = done[:n]
                        break
                candidates = [
                    Candidate(n, each.state, key, each.size, each.version)
                    for n, key in enumerate(done)
                    for each in found.get(key, ())
                ]
                page = self._compared(connection, candidates, len(done))
                page.held = {key: {each.version.rev: each.version for each in found.get(key, ())} for key in done}
                page.forgotten = forgotten_of(connection, self._there.partition)
                if forget:
                    page.forget = self._forgettable(connection, done, page.forgotten)
            left = left[len(done) :]
            yield page

    def held(self, keys: Sequence[str]) -> dict[str, dict[str, Version]]:
        """What the source has of some keys that a target of this scope would take, without bodies."""
        if not keys:
            return {}
        read = self._versions_of if self._scope.keeps_history else self._heads_of
        with self._there.shard.database.snapshot() as connection:
            found = read(connection, keys)
        return {key: {each.version.rev: each.version for each in found.get(key, ())} for key in keys}

    def forgotten(self, keys: Sequence[str]) -> Iterator[Page]:
        """What the source has forgotten of some keys, and the target has not."""
        if not keys:
            return
        with self._there.shard.database.snapshot() as connection:
            forgotten = forgotten_of(connection, self._there.partition)
            found = self._forgettable(connection, keys, forgotten)
        if found:
            yield Page(0, forget=found, forgotten=forgotten)

    def _learn(self, parts: Sequence[int]) -> None:
        """Reads what the target knows. What arrives there later is not in it, and is then compared once too often."""
        base = self._here.definition.base
        database = self._here.shard.database
        ids = [base + part for part in parts]
        rows = [row for chunk in chunks(ids) for row in database.ask(sql.PARTITIONS_IN(len(chunk)), chunk)]
        known = knowledge_of_each(database.read(), {row[0]: row[3:5] for row in rows})
        self._known = Knowledge()
        for each in known.values():
            self._known.join(each)  # no two partitions have an actor in common

    # --- one page ----------------------------------------------------------------------------------------------------

    def _page(
        self, connection: Connection, spans: Sequence[tuple[int, int]], limit: int
    ) -> tuple[Page, dict[str, int]]:
        """One page of stretches of several partitions, or of a longer one; and the partition of each key in it."""
        keys = self._scope.keys
        ranged = () if keys.whole else (keys.low, keys.high)
        last = spans[-1][1]
        if len(spans) == 1:
            [(after, top)] = spans
            lean = sql.LEAN_VERSIONS if self._scope.keeps_history else sql.LEAN_HEADS
            rows = connection.rows(lean[not keys.whole], (after, top, *ranged, limit))
            candidates = [_candidate(row) for row in rows]
            last = candidates[-1].place if len(candidates) == limit else top
            events = connection.rows(sql.EVENTS_BY_ID, (after, last, PAGE_ROWS))
            if len(events) == PAGE_ROWS:
                last = min(last, events[-1][0])
        else:
            size = next(size for size in TOGETHER if size >= len(spans))
            bounds = [*chain.from_iterable(spans), *(0, 0) * (size - len(spans))]
            some = sql.LEAN_VERSIONS_IN if self._scope.keeps_history else sql.LEAN_HEADS_IN
            candidates = [_candidate(row) for row in connection.rows(some[not keys.whole](size), [*bounds, *ranged])]
            events = sorted(connection.rows(sql.EVENTS_IN(size), bounds))
        candidates = [each for each in candidates if each.place <= last]
        events = [event for event in events if event[0] <= last and event[1] and event[1] in keys]
        candidates += self._regrown(connection, events, candidates, last)
        base = self._there.definition.base
        parts = {each.key: partition_of(each.place) - base for each in candidates}
        parts |= {key: partition_of(id_) - base for id_, key, _kind in events}
        page = self._compared(connection, candidates, last)
        purged = [key for id_, key, kind in events if kind == "purge" and id_ <= page.last]
        if purged:
            by_part: dict[int, list[str]] = {}
            for key in dict.fromkeys(purged):
                by_part.setdefault(parts[key], []).append(key)
            for part, some_keys in by_part.items():
                page.forget |= self._forgettable(connection, some_keys, forgotten_of(connection, base + part))
        return page, parts

    def _regrown(
        self, connection: Connection, events: Sequence[Any], candidates: Sequence[Candidate], last: int
    ) -> list[Candidate]:
        """Heads that learnt more of their past: the same versions, with more dots or larger clocks."""
        places = {key: id_ for id_, key, kind in events if kind not in ("purge", "filter", "erase")}
        if not places:
            return []
        met = {(each.key, each.version.rev) for each in candidates}
        found = self._heads_of(connection, list(places))
        return [
            Candidate(places[key], each.state, key, each.size, each.version)
            for key, heads in found.items()
            for each in heads
            if each.version.id <= last and (key, each.version.rev) not in met  # else it comes by itself
        ]

    def _compared(self, connection: Connection, candidates: list[Candidate], last: int) -> Page:
        """What of the candidates the target lacks, up to so many bytes."""
        candidates.sort(key=lambda each: each.place)
        chosen = self._scope.filter
        sound: set[int] = set()
        spoilt: list[tuple[str, Version, str]] = []
        bodies: dict[int, bytes | None] = {}
        if chosen is not None and chosen.needs_values:
            candidates, last = _cut(candidates, last)
        if chosen is None:
            inside, outside = {each.key for each in candidates}, set[str]()
            if isinstance(self._scope.history, int):
                candidates = self._bared(connection, candidates)
        else:
            candidates, inside, outside = self._filtered(connection, candidates, bodies, sound, spoilt)
        known = self._known
        # Of a key that has no past and no dot that is known there, the target holds nothing it could be compared with.
        held = self._held([each.key for each in candidates if each.version.parents or knows(known, each.version)])
        lacking = []
        left = []
        for each in candidates:
            stored = held.get(each.key, {})
            if each.key in inside:
                if not _has(stored, each.version):
                    lacking.append(each)
            elif each.key in outside:
                if any(not version.stub for version in stored.values()):
                    lacking.append(Candidate(each.place, each.state, each.key, 0, each.version.as_stub))
                    left.append(each.key)
            elif stored and not _has(stored, each.version):  # deleted: only who has something of it needs to hear
                lacking.append(each)
        if chosen is None or not chosen.needs_values:
            lacking, last = _cut(lacking, last)
        page = Page(last, sum(each.place <= last for each in candidates))
        page.left = [key for key in dict.fromkeys(left) if any(each.key == key for each in lacking)]
        bodies.update(self._bodies(connection, [each for each in lacking if each.version.id not in bodies]))
        refused = {(key, version.rev) for key, version, _reason in spoilt}
        for each in lacking:
            if (each.key, each.version.rev) in refused:
                continue
            version = each.version
            if not version.stub:
                version = _with_body(version, bodies.get(version.id))
                reason = None if version.id in sound else damage(version, self._codec(version.codec))
                if reason is not None:
                    spoilt.append((each.key, version, reason))
                    continue
            page.rows.setdefault(each.key, []).append(version)
        page.spoilt = spoilt
        if not self._scope.keeps_history or page.left:
            self._add_stubs(connection, page)
        return page

    def _filtered(
        self,
        connection: Connection,
        candidates: list[Candidate],
        bodies: dict[int, bytes | None],
        sound: set[int],
        spoilt: list[tuple[str, Version, str]],
    ) -> tuple[list[Candidate], set[str], set[str]]:
        """All that is to be known of the candidates' keys, and which are inside and outside; the rest are deleted."""
        chosen = self._scope.filter
        assert chosen is not None
        heads = _by_key(candidates)
        # Of a key with one live head that head decides. Of the others all heads do.
        unclear = [key for key, found in heads.items() if any(each.state != LIVE for each in found)]
        for key, found in self._heads_of(connection, unclear).items():
            heads[key] = [Candidate(heads[key][0].place, e.state, key, e.size, e.version) for e in found]
        if chosen.needs_values:
            alive = [each for found in heads.values() for each in found if not each.version.deleted]
            bodies.update(self._bodies(connection, alive))
        inside: set[str] = set()
        outside: set[str] = set()
        for key, found in heads.items():
            for each in found:
                if each.version.deleted or key in inside:
                    continue
                value = None
                try:
                    if chosen.needs_values:
                        value = self._value(each.version, bodies[each.version.id])
                        # Before the filter is asked: it may do with the value what it likes.
                        whole = _with_body(each.version, bodies[each.version.id])
                        reason = damage(whole, self._codec(whole.codec), value)
                        if reason is not None:
                            spoilt.append((key, each.version, reason))
                            continue
                        sound.add(whole.id)
                    wanted = chosen.wants(key, value)
                except Exception as error:  # of the predicate: any; it must not stop the rest
                    spoilt.append((key, each.version, f"{type(error).__name__}: {error}"))
                    continue
                (inside if wanted else outside).add(key)
        outside -= inside
        if self._scope.keeps_history:
            # The past of a document that comes in lies behind us in the feed, so it comes as a whole.
            wanted_keys = [key for key in heads if key in inside]
            for key, rows in self._versions_of(connection, wanted_keys).items():
                known = {other.version.rev for other in heads[key]}
                heads[key] += [
                    Candidate(heads[key][0].place, each.state, key, each.size, each.version)
                    for each in rows
                    if each.version.rev not in known
                ]
        found = [each for rows in heads.values() for each in rows]
        found.sort(key=lambda each: each.place)
        return self._bared(connection, found), inside, outside

    def _bared(self, connection: Connection, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates, as stubs if they are older than the scope reaches and superseded."""
        old = [each for each in candidates if not each.version.stub and self._scope.bares(each.version.stamp)]
        if not old:
            return candidates
        heads = self._heads_of(connection, list(dict.fromkeys(each.key for each in old)))
        kept = {each.version.id for found in heads.values() for each in found}
        bare = {each.version.id for each in old} - kept
        return [
            Candidate(each.place, each.state, each.key, 0, each.version.as_stub) if each.version.id in bare else each
            for each in candidates
        ]

    def _add_stubs(self, connection: Connection, page: Page) -> None:
        """The ancestors of the page's rows that the target has a dot of to learn."""
        with_past = [key for key, rows in page.rows.items() if any(row.parents for row in rows)]
        for key, found in versions_of(connection.rows, self._there.definition.id, with_past).items():
            page.rows[key] = stubs(page.rows[key], found, self._known) + page.rows[key]

    def _forgettable(
        self, connection: Connection, keys: Sequence[str], forgotten: Mapping[str, int]
    ) -> dict[str, list[str]]:
        """For each key, heads of the target that lie in what the source has forgotten, and are not at the source."""
        heads = heads_of(self._here.shard.database.ask, self._here.definition.id, keys)
        covered = {
            key: [rev for rev, head in found.items() if all(dot.n <= forgotten.get(dot.actor, 0) for dot in head.dots)]
            for key, found in heads.items()
        }
        asked = [key for key, revs in covered.items() if revs]
        stored = versions_of(connection.rows, self._there.definition.id, asked)
        gone = {key: [rev for rev in covered[key] if rev not in stored[key]] for key in asked}
        return {key: revs for key, revs in gone.items() if revs}

    # --- rows --------------------------------------------------------------------------------------------------------

    def _heads_of(self, connection: Connection, keys: Sequence[str]) -> dict[str, list[Candidate]]:
        return self._candidates(connection, sql.LEAN_HEADS_OF, keys)

    def _versions_of(self, connection: Connection, keys: Sequence[str]) -> dict[str, list[Candidate]]:
        return self._candidates(connection, sql.LEAN_VERSIONS_OF, keys)

    def _candidates(
        self, connection: Connection, statement: Callable[[int], Statement], keys: Sequence[str]
    ) -> dict[str, list[Candidate]]:
        rows: list[Candidate] = []
        for chunk in chunks(keys):
            found = connection.rows(statement(len(chunk)), [self._there.definition.id, *chunk])
            rows += [_candidate(row) for row in found]
        return _by_key(rows)

    def _bodies(self, connection: Connection, candidates: Iterable[Candidate]) -> dict[int, bytes | None]:
        ids = [each.version.id for each in candidates if not each.version.stub and not each.version.deleted]
        found: dict[int, bytes | None] = {}
        for chunk in chunks(ids):
            found.update(connection.rows(sql.BODIES(len(chunk)), chunk))
        return found

    def _held(self, keys: Iterable[str]) -> dict[str, dict[str, Version]]:
        """What the target holds of some keys."""
        return versions_of(self._here.shard.database.ask, self._here.definition.id, list(dict.fromkeys(keys)))

    def _codec(self, name: str) -> Codec | None:
        """The codec of a name; None if it is not known or not allowed here: then bodies pass as they are."""
        if name not in self._codecs:
            try:
                self._codecs[name] = self._source.codec_named(name)
            except CodecError:
                self._codecs[name] = None
        return self._codecs[name]

    def _value(self, version: Version, body: bytes | None) -> Any:
        codec = self._codec(version.codec)
        if codec is None or body is None:
            raise CodecError(f"codec {version.codec!r} cannot be read here, so the filter cannot be asked")
        return codec.decode(body)


def stubs(heads: Sequence[Version], versions: Mapping[str, Version], known: Knowledge) -> list[Version]:
    """The ancestors of heads as stubs, as far down as the target has a dot of them to learn. Oldest first."""
    found: dict[str, Version] = {}
    frontier = [parent for head in heads for parent in head.parents]
    while frontier:
        version = versions.get(frontier.pop())
        if version is None or version.rev in found or all(dot in known for dot in version.dots):
            continue
        found[version.rev] = version.as_stub
        frontier.extend(version.parents)
    given = {head.rev for head in heads}
    return [version for rev, version in reversed(found.items()) if rev not in given]


def _together(stretches: Mapping[int, tuple[int, int]], most: int) -> dict[int, tuple[int, int]]:
    """The first of some stretches by partition: one, or as many as surely have no more rows than that."""
    found: dict[int, tuple[int, int]] = {}
    for part, (after, top) in stretches.items():
        most -= top - after
        if found and most < 0:
            break
        found[part] = after, top
    return found


def _ended(spans: Mapping[int, tuple[int, int]], last: int) -> list[int]:
    """The partitions whose stretches lie wholly before the end of a page."""
    return [part for part, (_after, top) in spans.items() if top <= last]


def _split(page: Page, parts: Mapping[str, int]) -> dict[int, Page]:
    """A page by partition; of what belongs to a key only."""
    found: dict[int, Page] = {}

    def of(key: str) -> Page:
        part = parts[key]
        if part not in found:
            found[part] = Page(0)
        return found[part]

    for key, rows in page.rows.items():
        of(key).rows[key] = rows
    for key, revs in page.forget.items():
        of(key).forget[key] = revs
    for key in page.left:
        of(key).left.append(key)
    for spoilt in page.spoilt:
        of(spoilt[0]).spoilt.append(spoilt)
    return found


def _candidate(row: Sequence[Any]) -> Candidate:
    version = version_of(row[3:])
    return Candidate(version.id, row[0], row[1], row[2] or 0, version)


def _with_body(version: Version, body: bytes | None) -> Version:
    return Version(*version[:7], body, *version[8:])  # a third of the time of _replace, and this is for each row


def _by_key(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for each in candidates:
        found.setdefault(each.key, []).append(each)
    return found


def _cut(candidates: list[Candidate], last: int) -> tuple[list[Candidate], int]:
    """As many as one page may hold, at least one place, and the id up to which the page then goes."""
    total = 0
    for n, each in enumerate(candidates):
        total += each.size
        if total > PAGE_BYTES and n and each.place > candidates[n - 1].place:
            return candidates[:n], candidates[n - 1].place
    return candidates, last


def _has(held: Mapping[str, Version], row: Version) -> bool:
    """Whether a row would teach the target nothing: neither a version, nor a dot, nor a part of its past."""
    stored = held.get(row.rev)
    return (
        stored is not None
        and (row.stub or not stored.stub)
        and set(row.dots) <= set(stored.dots)
        and row.clock <= stored.clock
        and stored.stamp <= row.stamp
    )
