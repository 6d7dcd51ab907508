"""Documents, their versions, and which versions are heads: the rules of the store, without a database.

A *version* is one immutable row, named by its `rev`. A *head* is a version that
no other supersedes; several heads of a key are *siblings*. Two functions change
what a partition replica holds under a key, and both work on an `Entry`:

    successor   a write here: mints a dot, supersedes what the writer had seen
    receive     rows from elsewhere, in any order, repeated or partly lost

Both end in the same rule: a version is superseded when a head has seen one of
its dots, or descends from its rev. Three things make that exact when rows travel
alone and the same edit is born in two places under two dots:

    aliases     a version's dots are united wherever two copies of it meet
    closure     a head's clock holds the dots and clocks of its known ancestors
    knowledge   a row whose dot is known and which is not here is obsolete

Pure: no input or output, no time, no randomness. Bodies are opaque bytes here.
Source: reference model of the project (docs/consistency.md, "Causality"), after
Riak's dotted version vectors and the knowledge vectors of WinFS and DottedDB.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

from vstore.canonical import generation, revision, winner_key
from vstore.clock import FAR, NOTHING, Clock, Dot, Knowledge
from vstore.errors import InvalidToken
from vstore.tokens import content_of, text_of


class Version(NamedTuple):
    """One row: what was written, and what its writer had seen.

    `parents` are revs, winner first. `dots` are sorted; there is more than one
    where the same version was born in several places. `body` is encoded by
    `codec`, None for a tombstone. A `stub` keeps the ancestry of a version whose
    body is not here. `id` is the commit order at this replica, 0 if not stored.
    `kind` tells apart what a resolver made ("merge:" and its id) and the tombstone
    of an erasure (ERASE) from what users write, which has none.

    rev, parents, deleted and body never change. dots and clock may grow, and the
    stamp becomes the earliest where copies with different ones meet.
    """

    rev: str
    parents: tuple[str, ...]
    deleted: bool
    dots: tuple[Dot, ...]
    clock: Clock
    stamp: int
    codec: str = ""
    body: bytes | None = None
    stub: bool = False
    id: int = 0
    kind: str = ""

    @property
    def entries(self) -> int:
        """How many entries its clock and its dots have: what the clock of the next version begins with."""
        return len(self.clock) + len(self.dots)

    @property
    def as_stub(self) -> Version:
        """The same version without its body."""
        return self if self.stub else self._replace(stub=True, body=None, codec="", id=0)


NOWHERE: Mapping[str, int] = MappingProxyType({})
"""For each actor up to where something holds: nowhere."""

_MARK = "q"

ERASE = "erase"
"""The kind of a tombstone that takes the bodies of all that it has seen with it, at every replica."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a reader has seen of one document; hand it back on `put`. Opaque: keep it whole, look at nothing.

    It is valid at every replica, however old. As text it is `str(context)`, and
    `Context.parse` reads that back.
    """

    key: str
    seen: Clock = NOTHING
    revs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return text_of([1, self.key, self.revs, self.seen.to_json()])

    @classmethod
    def parse(cls, token: str) -> Context:
        """The context that `str` wrote.

        Raises:
            InvalidToken: the text is no context of this version of vstore.
        """
        try:
            form, key, revs, seen = content_of(token)
            context = cls(key, Clock.from_json(seen), tuple(revs))
            for rev in revs:
                generation(rev)
            # The rest is checked by writing it again: there is one text for a context, so what `str` would not have
            # written is not ours. Types need a look of their own, as 1 == 1.0 == True and numbers have bounds.
            numbers = [*seen[0].values(), *(number for _, *pair in seen[1] for number in pair)]
            if not isinstance(key, str) or not all(type(number) is int and 0 <= number < FAR for number in numbers):
                raise ValueError("not the parts of a context")
            if form != 1 or str(context) != token:
                raise ValueError("not the text of a context")
            return context
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise InvalidToken(
                f"{token[:60]!r} is not a context. Nothing was done. Pass the context of the document as it was read."
            ) from error


@dataclass(frozen=True, slots=True)
class Document:
    """What a reader gets: one version of a document, its siblings, and the context to write with.

    `value` is decoded afresh for each reader, so changing it changes nothing
    else; it is None for a tombstone. `stamp` is the time of the write in
    microseconds since 1970 UTC, for display and never for causality. `siblings`
    are the live versions that nobody has settled yet, winner first, this one
    included; a document at peace has just one.
    """

    key: str
    value: Any
    rev: str
    parents: tuple[str, ...]
    deleted: bool
    stamp: int
    context: Context
    siblings: tuple[Document, ...] = field(default=(), repr=False)

    @property
    def conflicted(self) -> bool:
        """Whether several live versions wait to be settled."""
        return len(self.siblings) > 1


@dataclass(slots=True)
class Entry:
    """What one partition replica holds under one key: versions by rev, and those of them that are heads.

    An entry may be partial: `successor` needs only the heads when the parents are
    just the heads, or none; `receive` needs every version.
    """

    heads: dict[str, Version] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)


def winner_first(versions: Iterable[Version]) -> list[Version]:
    """The versions in winner order: live before deleted, then generation, then signature, highest first.

    The order that CouchDB shows, and equal at every replica. A display order,
    not a resolution; time is never used for it.
    """
    found = list(versions)
    if len(found) > 1:  # of most documents there is one head, and a key costs 1 µs
        found.sort(key=lambda version: winner_key(version.deleted, version.rev), reverse=True)
    return found


def context_of(key: str, heads: Iterable[Version]) -> Context:
    """What a reader of these heads has seen: tombstones too, so that the next write absorbs them."""
    ordered = winner_first(heads)
    seen = NOTHING
    for head in ordered:
        seen = (seen | head.clock).with_dots(head.dots)
    return Context(key, seen, tuple(head.rev for head in ordered))


class Content(NamedTuple):
    """What a writer wants to store: `identity` is what the rev is made of, None for a tombstone."""

    identity: bytes | None
    codec: str = ""
    body: bytes | None = None
    kind: str = ""


def successor(
    entry: Entry,
    context: Context,
    content: Content,
    *,
    actor: str,
    n: int,
    stamp: int,
    knowledge: Callable[[], Knowledge],
    id: int = 0,
) -> tuple[Version, bool]:
    """A write at this replica by someone who had seen `context`; `entry` then holds the result.

    Args:
        actor, n, id: the dot and the place that are used if the version is new here.
        knowledge: asked only when the context has a cloud to compact.

    Returns:
        The version, and whether it is new. The same edit of the same parents
        is the same version, so a repeated call finds the first one's (perhaps
        as a stub, perhaps superseded since, perhaps known here by name only:
        a stub without dots) and changes nothing.
    """
    heads = entry.heads
    parents = context.revs
    dot = Dot(actor, n, max([d.n for head in heads.values() for d in head.dots if d.actor == actor], default=0))
    rev = revision(
        generation(parents[0]) + 1 if parents else 1,
        content.identity is None,
        parents,
        content.identity,
        None if parents else (actor, n),
    )
    known = entry.versions.get(rev)
    if known is not None:
        return known, False
    if parents and heads.keys() != set(parents) and any(rev in ancestors_of(head, entry.versions) for head in heads):
        # The same edit was made elsewhere and replaced since. Only its name came here: a head descends from it.
        return Version(rev, parents, content.identity is None, (), context.seen, stamp, stub=True), False
    clock = context.seen
    if clock.cloud:
        clock = clock.compacted(knowledge(), (d for head in heads.values() for d in head.dots))
    deleted = content.identity is None
    version = Version(rev, parents, deleted, (dot,), clock, stamp, content.codec, content.body, False, id, content.kind)
    if entry.versions:  # a new key, the common case of a batch, has nothing to close over or to supersede
        entry.versions[rev] = version
        ancestors, clock = _ancestry(version, entry.versions)
        if clock != version.clock:
            version = version._replace(clock=clock)
        for head in list(heads.values()):
            if head.rev in ancestors or clock.sees(head.dots):
                del heads[head.rev]
    entry.versions[rev] = heads[rev] = version
    return version, True


class Received(NamedTuple):
    """What `receive` did to an entry.

    Rows to insert, rows whose dots or clock grew, rows found obsolete; of the
    first those that ought to have been here, since their dots were known, and
    those that are edits of something that was purged here; dots that named two
    versions; versions that lost their body to an erasure.
    """

    inserted: list[Version]
    grown: list[Version]
    obsolete: list[Version]
    unexplained: list[Version]
    revived: list[Version]
    collided: list[Dot]
    erased: list[Version]


def receive(
    entry: Entry,
    rows: Sequence[Version],
    knowledge: Knowledge,
    *,
    forgotten: Mapping[str, int] = NOWHERE,
    stale: bool = False,
    history: bool = False,
) -> Received:
    """Rows of this key from another replica, full or stubs, in any order; `entry` and `knowledge` then hold them.

    Idempotent, commutative and associative: any order, grouping or repetition
    of the same rows leaves the same heads.

    A row whose dot is known and which is not here is obsolete if something here
    supersedes it, or if it may have been purged here. If neither, the dot is that
    of another version, because an actor was cloned, or rows were lost here: the
    row is kept as it is new.

    Args:
        forgotten: for each actor up to which of its events deleted keys may have
            been purged here.
        stale: the other replica does not know all of these, so what it still
            has of them was purged here; from one that does know them only a
            tombstone can be that.
        history: keep the bodies of what is superseded here.

    A dot that names two versions of this key (an actor was cloned) is taken from
    both, and each gets one that follows from the dot and its rev, the same at
    every replica. Neither absorbs the other.
    """
    versions = entry.versions
    if not versions and len(rows) == 1:
        [row] = rows
        if not (row.stub or row.parents or knows(knowledge, row)):  # a new document, the common case of a bootstrap
            for dot in row.dots:
                knowledge.add(dot.actor, dot.n)
            versions[row.rev] = entry.heads[row.rev] = row = row._replace(id=0)
            return Received([row], [], [], [], [], [], [])
    touched: dict[str, Version] = {}
    inserted: set[str] = set()
    obsolete: list[Version] = []
    absent: list[Version] = []
    revived: list[Version] = []
    collided: list[Dot] = []
    candidates = dict(entry.heads)
    empty = not versions
    for row in rows:
        row, renamed = _unmixed(row, versions, collided)
        for version in renamed:
            versions[version.rev] = touched[version.rev] = version
            if not version.stub:
                # Perhaps no head: what had seen only the other version has absorbed it, before anybody could tell.
                candidates[version.rev] = version
                for dot in version.dots:
                    knowledge.add(dot.actor, dot.n)
        stored = versions.get(row.rev)
        filling = False
        if not row.stub:
            # By any name: a row may bring a dot that is new here for a version that was pruned under another.
            known = knows(knowledge, row) or (stored is not None and knows(knowledge, stored))
            for dot in row.dots:
                knowledge.add(dot.actor, dot.n)
            if known and stored is None:
                absent.append(row)
                continue
            if known and stored is not None and stored.stub:
                if history:
                    filling = True  # it was superseded here, and stays that
                else:
                    obsolete.append(row)  # pruned here
                    row = row.as_stub  # what it tells of its ancestry is still true
            if empty and not known and row.parents and not row.deleted and _was_forgotten(row.clock, forgotten):
                revived.append(row)
        if stored is None:
            merged = row._replace(id=0)
            inserted.add(row.rev)
        else:
            merged = united(stored, row)
            if merged == stored:
                continue
        versions[row.rev] = touched[row.rev] = merged
        fresh = not merged.stub and (stored is None or stored.stub) and not filling
        if row.rev in candidates or fresh:
            candidates[row.rev] = merged
    if touched:
        _settle(entry, candidates, touched)
    unexplained: list[Version] = []
    for row in absent:
        superseded = any(row.rev in revs or clock.sees(row.dots) for revs, clock in _pasts(entry))
        if superseded and history:
            inserted.add(row.rev)
            versions[row.rev] = touched[row.rev] = row._replace(id=0)
        elif superseded or ((stale or history or row.deleted) and _is_forgotten(row.dots, forgotten)):
            obsolete.append(row)
        else:
            unexplained.append(row)
            inserted.add(row.rev)
            versions[row.rev] = touched[row.rev] = row._replace(id=0)
    if unexplained:
        _settle(entry, {**entry.heads, **{row.rev: versions[row.rev] for row in unexplained}}, touched)
    erased = erase(entry) if touched else []
    return Received(
        [versions[rev] for rev in touched if rev in inserted],
        [versions[rev] for rev in touched if rev not in inserted],
        obsolete,
        unexplained,
        [row for row in revived if row.rev in entry.heads],
        collided,
        [version for version in erased if version.rev not in inserted],
    )


def erase(entry: Entry) -> list[Version]:
    """Takes the bodies of all that a tombstone of an erasure has seen; which versions had one."""
    bared = []
    for tombstone in [version for version in entry.versions.values() if version.kind == ERASE]:
        below, clock = _ancestry(tombstone, entry.versions)
        for rev, version in entry.versions.items():
            seen = rev in below or clock.sees(version.dots)
            # A head keeps it until what replaced it is here: a page may end between a stub of the tombstone and that.
            if seen and rev not in entry.heads and not version.stub and not version.deleted:
                bare = version.as_stub._replace(id=version.id)
                entry.versions[rev] = bare
                bared.append(bare)
    return bared


def quarantined(dot: Dot, rev: str) -> Dot:
    """The dot that a version gets for one that names another too: it follows from both, so all replicas agree on it.

    Its actor is no actor's name, which are hexadecimal: so it tells for ever that the other dot is void.
    """
    return Dot(_MARK + sha256(f"{dot.actor} {dot.n} {rev}".encode()).hexdigest()[:15], 1)


def is_marked(version: Version) -> bool:
    """Whether the version has lost a dot that named another one too."""
    return any(dot.actor[0] == _MARK for dot in version.dots)


def _unmixed(row: Version, versions: Mapping[str, Version], collided: list[Dot]) -> tuple[Version, list[Version]]:
    """The row without dots that name other versions too, and those of the versions here that lose a dot with it.

    A dot is void once two versions have it, or one has what it got in its place.
    """
    others = [version for version in versions.values() if version.rev != row.rev]
    stored = versions.get(row.rev)
    copies = [row] if stored is None else [row, stored]
    theirs = {dot[:2] for version in copies for dot in version.dots}
    void = {dot for version in others for dot in version.dots if dot[:2] in theirs}
    collided += void
    marked = [version for version in [*others, *copies] if is_marked(version)]
    if marked:
        dots = {dot for version in [*others, *copies] for dot in version.dots if dot.actor[0] != _MARK}
        void |= {dot for dot in dots if any(quarantined(dot, each.rev) in each.dots for each in marked)}
    if not void:
        return row, []
    names = {dot[:2] for dot in void}
    cleaned = [_renamed(version, names) for version in versions.values()]
    return _renamed(row, names), [version for version in cleaned if version != versions[version.rev]]


def _renamed(version: Version, void: Container[tuple[str, int]]) -> Version:
    dots = {quarantined(dot, version.rev) if dot[:2] in void else dot for dot in version.dots}
    return version._replace(dots=tuple(sorted(dots)))


def _is_forgotten(dots: Iterable[Dot], forgotten: Mapping[str, int]) -> bool:
    return any(dot.n <= forgotten.get(dot.actor, 0) for dot in dots)


def _was_forgotten(clock: Clock, forgotten: Mapping[str, int]) -> bool:
    """Whether a writer had seen an event that was forgotten here: what it wrote on is not here any more."""
    return any(n <= forgotten.get(actor, 0) for actor, n in [*clock.vector.items(), *clock.cloud])


def _pasts(entry: Entry) -> Iterator[tuple[set[str], Clock]]:
    """What each head descends from, and has seen."""
    for head in entry.heads.values():
        yield _ancestry(head, entry.versions)


def knows(knowledge: Knowledge, row: Version) -> bool:
    """Whether a replica with this knowledge has met the row under any of its names."""
    return any(dot in knowledge for dot in row.dots)


def united(stored: Version, row: Version) -> Version:
    """Two copies of one version made one: all dots, all that either had seen, and the body if either has it."""
    dots = stored.dots if stored.dots == row.dots else tuple(sorted({*stored.dots, *row.dots}))
    parents = stored.parents if stored.parents == row.parents else tuple(dict.fromkeys(stored.parents + row.parents))
    # The same edit may be made twice at different times: it was made when it was first made, at every replica.
    stamp = min(stored.stamp, row.stamp)
    kind = stored.kind if stored.kind == row.kind else _kind_of(stored.kind, row.kind)
    merged = stored._replace(dots=dots, parents=parents, clock=stored.clock | row.clock, stamp=stamp, kind=kind)
    if stored.stub and not row.stub:
        merged = merged._replace(stub=False, codec=row.codec, body=row.body)
    return merged


def _kind_of(one: str, other: str) -> str:
    return ERASE if ERASE in (one, other) else max(one, other)


def heads_among(versions: Mapping[str, Version]) -> list[Version]:
    """The versions of one key that no other of them supersedes, in winner order.

    For looking at the past: "what were the heads when only these existed".
    Never for the present, whose heads are stored: a purge may leave nothing
    that supersedes a row, and then this would resurrect it.
    """
    parents = {parent for version in versions.values() for parent in version.parents}
    everything = NOTHING
    for version in versions.values():
        everything |= version.clock
    return winner_first(
        version
        for rev, version in versions.items()
        if rev not in parents and not _seen_by_another(version, everything, versions.values())
    )


def ancestors_of(rev: str, versions: Mapping[str, Version]) -> set[str]:
    """Every rev that the version descends from, as far as the rows here tell."""
    found: set[str] = set()
    frontier = [rev]
    while frontier:
        version = versions.get(frontier.pop())
        if version is not None:
            frontier.extend(parent for parent in version.parents if parent not in found)
            found.update(version.parents)
    return found


def lowest(revs: Collection[str], versions: Mapping[str, Version]) -> list[str]:
    """Of revs with all their ancestors those that none of the others descends from; sorted.

    Of what several versions have in common it is the base of their merge if it is
    one. There are several after a criss-cross, when the same versions were merged
    more than once. Some may be known by name only, and have no row in `versions`.
    """
    # What lies between two of them is one of them too, so whoever has a descendant here has a child here.
    return sorted(set(revs) - {parent for rev in revs if rev in versions for parent in versions[rev].parents})


def _ancestry(version: Version, versions: Mapping[str, Version]) -> tuple[set[str], Clock]:
    """The revs a version descends from, and its clock closed over their dots and clocks."""
    revs = ancestors_of(version.rev, versions)
    clock = version.clock
    for rev in revs:
        ancestor = versions.get(rev)
        if ancestor is not None:
            clock = (clock | ancestor.clock).with_dots(ancestor.dots)
    return revs, _with_aliases(clock, version, versions)


def _with_aliases(clock: Clock, version: Version, versions: Mapping[str, Version]) -> Clock:
    """The clock with all dots of every version that it sees under one of them.

    An ancestor may be known by dot alone, where the revs between are lost; then
    this is all that tells a replica which has it under another dot. Versions
    with one dot have no other name to add.
    """
    aliased = [other for other in versions.values() if len(other.dots) > 1 and other.rev != version.rev]
    before = None
    while aliased and clock != before:
        before = clock
        for other in aliased:
            if clock.sees(other.dots):
                clock = (clock | other.clock).with_dots(other.dots)
    return clock


def _settle(entry: Entry, candidates: dict[str, Version], touched: dict[str, Version]) -> None:
    """Closes the candidates' clocks and keeps as heads those that no other supersedes."""
    ancestors: set[str] = set()
    for version in list(candidates.values()):
        revs, clock = _ancestry(version, entry.versions)
        ancestors |= revs
        if clock != version.clock:
            grown = version._replace(clock=clock)
            entry.versions[version.rev] = candidates[version.rev] = touched[version.rev] = grown
    everything = NOTHING
    for version in candidates.values():
        everything |= version.clock
    entry.heads = {
        rev: version
        for rev, version in candidates.items()
        if rev not in ancestors and not _seen_by_another(version, everything, candidates.values())
    }


def _seen_by_another(version: Version, everything: Clock, others: Iterable[Version]) -> bool:
    """Whether a version other than itself had seen it; `everything` is the join of all their clocks."""
    # A clock may hold an alias of its own version, which supersedes nothing: ask one by one before believing the join.
    return everything.sees(version.dots) and any(
        other.clock.sees(version.dots) for other in others if other is not version
    )
