"""Conflicts of a collection: which documents they are, what a resolver is given of one, and why it was not settled.

Keys with several live heads have an index of their own, so finding them costs
what there are of them. What a resolver gets is put together here, for every way
of asking one: on reads, by `resolve`, at a write, and by a replicator.

What a resolver did not settle is noted beside the documents, one row for each
conflict and resolver. The note names the siblings by a digest: it is about these,
and once there are others it says nothing. It is local, no part of any document.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from vstore.backoff import waited_seconds
from vstore.codecs import Codec
from vstore.document import Document, Version, ancestors_of, lowest
from vstore.errors import HistoryPruned, InvalidDocument, NotFound, ResolverError, StoreError
from vstore.handle import Handle
from vstore.history import version_at, versions_of
from vstore.resolvers import DELETE, KEEP, Resolver, Sibling, Siblings, decide, needs_base, winner_order
from vstore.sql import statements as sql

PAGE_KEYS = 1_000

MERGE = "merge:"
"""The kind of a version that a resolver made begins so; the resolver's `identity` follows."""

RETRY_SECONDS = 60.0
LONGEST_SECONDS = 86_400.0
"""How long after it was first asked a resolver is asked again about the same siblings, and each time twice as long."""

REASON_LENGTH = 1_000
"""How much of a reason is kept: an exception may say anything."""

_KIND = "conflict"


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Why a resolver left the siblings of a document as they are.

    `since_us` is when it first was asked about these, in microseconds since 1970
    UTC, `tries` how often it was; `digest` names the siblings.
    """

    resolver: str
    reason: str
    since_us: int
    tries: int
    digest: str

    def is_due(self, now_us: int) -> bool:
        """Whether it is time to ask again about the same siblings."""
        return now_us >= self.since_us + waited_seconds(self.tries, RETRY_SECONDS, LONGEST_SECONDS) * 1_000_000


def keys_in_conflict(handle: Handle, prefix: str = "") -> Iterator[str]:
    """The keys with several live heads, which may turn out to have the same content; in order for each shard."""
    for shard, definition, _first, _end in handle.runs():
        after = ""
        while True:
            keys = [row[0] for row in shard.database.ask(sql.RIVALS, (definition.id, after, PAGE_KEYS))]
            yield from (key for key in keys if key.startswith(prefix))
            if len(keys) < PAGE_KEYS:
                break
            after = keys[-1]


# --- what a resolver is given ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Case:
    """What a resolver is to decide about.

    `lacking` says why there is no base where there ought to be one. `kept` says
    that it has kept a part of the siblings already, and so keeps them all.
    `asked` is whether it had to be asked to come so far.
    """

    siblings: Siblings
    lacking: str = ""
    kept: str = ""
    asked: bool = False


def decided(
    handle: Handle,
    key: str,
    document: Document,
    resolver: Resolver,
    codec: Codec,
    *,
    versions: Mapping[str, Version] | None = None,
    guess: bool = False,
) -> Any:
    """What a resolver makes of a conflicted document: DELETE, KEEP, or a value as it would be read once stored.

    Args:
        as of `presented`; `codec` is that of the collection.
        guess: ask a resolver that needs a base though the base is not here. Else
            it keeps them: a counter would count from 0, and nobody would notice.

    Raises:
        ResolverError: it raised, or returned what cannot be stored.
    """
    case = presented(handle, key, document, resolver, versions=versions)
    if case.kept or (case.lacking and not guess and needs_base(resolver)):
        return KEEP
    answer = decide(resolver, case.siblings)
    if answer is DELETE or answer is KEEP:
        return answer
    try:
        name, body = codec.encode(answer)
    except InvalidDocument as error:
        raise ResolverError(
            f"the resolver's answer for {document.key!r} in {handle.name!r} cannot be stored: {error} Its "
            f"{len(document.siblings)} siblings are as they were.",
            f"returned what cannot be stored: {error}",
        ) from error
    return handle.codec_named(name).decode(body)  # the resolver may keep what it returned, and change it


def presented(
    handle: Handle,
    key: str,
    document: Document,
    resolver: Resolver,
    *,
    versions: Mapping[str, Version] | None = None,
    others: Sequence[tuple[Handle, str]] = (),
) -> Case:
    """What a resolver is given of a conflicted document.

    Siblings that share no more with each other than with all the rest are given
    together. Else some of them have merged what others have too, and to compare
    all with one base would count that more than once: then they are merged one
    after another, each pair with a base of its own, and the last pair is given.

    Args:
        key: the document's key in the collection; its own may be that of a view.
        resolver: asked on the way, for all pairs but the last, and for the base
            if there are several ancestors since the same versions were merged twice.
        versions: of the key, if they are at hand.
        others: replicas, and the key there, that are asked for a base that is not here.

    Raises:
        ResolverError: as `decide`.
    """
    if versions is None:
        versions = versions_of(handle, key)
    lineage = _Lineage(document.key, [(handle, key), *others], versions, resolver)
    tips = [
        _Tip(Sibling(each.rev, each.value, False, each.stamp), lineage.past_of(each.rev)) for each in document.siblings
    ]
    return lineage.case(tips)


@dataclass(frozen=True, slots=True)
class _Tip:
    """A version, or what several would become together: its value, and all that is in it."""

    sibling: Sibling
    past: set[str]


@dataclass(slots=True)
class _Lineage:
    """The past of one document: finds what versions of it have in common.

    Exact for a resolver that counts: the value of a version is the sum over its
    past, and that of a merge the sum over the union. What two of them share is
    again a past, of which the lowest versions are known, and merged it is their base.
    """

    key: str
    places: Sequence[tuple[Handle, str]]
    versions: Mapping[str, Version]
    resolver: Resolver
    asked: bool = False

    def past_of(self, rev: str) -> set[str]:
        """The version and all its ancestors."""
        return {rev} | ancestors_of(rev, self.versions)

    def case(self, tips: Sequence[_Tip]) -> Case:
        """What the resolver is to decide about when it merges these."""
        shared = set.intersection(*(tip.past for tip in tips))
        together = len(set().union(*(tip.past for tip in tips)))
        if not needs_base(self.resolver) or together - len(shared) == sum(len(tip.past) - len(shared) for tip in tips):
            return self._all(tips, shared)
        merged, *rest = tips
        for tip in rest[:-1]:
            case = self._all([merged, tip], merged.past & tip.past)
            if case.lacking:
                return Case(self._siblings(tips, None), case.lacking, asked=self.asked)
            answer = self._ask(case.siblings)
            if answer is KEEP:
                return Case(case.siblings, kept="kept some of them", asked=True)
            if answer is DELETE:
                return self._all(tips, shared)
            stamp = max(merged.sibling.stamp, tip.sibling.stamp)
            merged = _Tip(Sibling(merged.sibling.rev, answer, False, stamp), merged.past | tip.past)
        return self._all([merged, rest[-1]], merged.past & rest[-1].past)

    def _all(self, tips: Sequence[_Tip], shared: set[str]) -> Case:
        base, lacking = self._base(shared)
        return Case(self._siblings(tips, base), lacking, asked=self.asked)

    def _base(self, shared: set[str]) -> tuple[Sibling | None, str]:
        """What is in all of them as one value; and if there ought to be one, why there is none."""
        found = []
        for rev in lowest(shared, self.versions):
            sibling = self._sibling(rev)
            if sibling is None:
                return None, f"their common ancestor {rev} is not here: it was pruned, or only heads were taken"
            found.append(sibling)
        live = sorted((each for each in found if not each.deleted), key=winner_order, reverse=True)
        if len(live) < 2:
            return next(iter(live or found), None), ""
        case = self.case([_Tip(each, self.past_of(each.rev)) for each in live])
        if case.lacking:
            return None, case.lacking
        answer = KEEP if case.kept else self._ask(case.siblings)
        if answer is KEEP:
            return None, f"it does not merge their common ancestors either: {', '.join(each.rev for each in live)}"
        deleted = answer is DELETE
        return Sibling("", None if deleted else answer, deleted, max(each.stamp for each in live)), ""

    def _ask(self, siblings: Siblings) -> Any:
        self.asked = True
        return decide(self.resolver, siblings)

    def _siblings(self, tips: Iterable[_Tip], base: Sibling | None) -> Siblings:
        return Siblings(self.key, tuple(tip.sibling for tip in tips), base)

    def _sibling(self, rev: str) -> Sibling | None:
        """A version with its value, from wherever it still has one."""
        for handle, key in self.places:
            try:
                version = version_at(handle, key, rev)
                return Sibling(rev, handle.value(version, key), version.deleted, version.stamp)
            except (NotFound, HistoryPruned):
                continue
            except StoreError:
                if handle is self.places[0][0]:
                    raise
                continue  # another replica that is away is one that cannot help
        return None


def is_merge(versions: Mapping[str, Version], rev: str) -> bool:
    """Whether a resolver made this version, as far as is known here."""
    version = versions.get(rev)
    return version is not None and version.kind.startswith(MERGE)


def agreed(revs: Sequence[str], versions: Mapping[str, Version]) -> list[str]:
    """Of the live heads, those with everything that users wrote, if resolvers made all of them; else none.

    Such siblings come of resolvers that do not answer alike: one that is random,
    or two versions of one. Asking again would only make more of them, so one of
    these few is taken. A sibling that somebody wrote is never passed over.
    """
    if not all(is_merge(versions, rev) for rev in revs):
        return []
    written = {rev: {each for each in ancestors_of(rev, versions) if not is_merge(versions, each)} for rev in revs}
    everything = set().union(*written.values())
    return [rev for rev in revs if written[rev] == everything]


# --- why it was not settled ------------------------------------------------------------------------------------------


def digest_of(document: Document) -> str:
    """A name for just these siblings."""
    return sha256(" ".join(sorted(sibling.rev for sibling in document.siblings)).encode()).hexdigest()[:32]


def unsettled(handle: Handle, prefix: str = "") -> dict[str, list[Unsettled]]:
    """All notes by key, of documents that have been settled since too. One statement for each shard."""
    found: defaultdict[str, list[Unsettled]] = defaultdict(list)
    for shard, definition, _first, _end in handle.runs():
        for key, name, rev, reason, since, tries in shard.database.ask(sql.PARKED, (definition.id, _KIND)):
            if key.startswith(prefix):
                found[key].append(Unsettled(name, reason, since, tries, rev))
    return dict(found)


def unsettled_at(handle: Handle, key: str) -> list[Unsettled]:
    """The notes of one document."""
    shard, definition, _part = handle.place(key)
    rows = shard.database.ask(sql.PARKED_AT, (definition.id, _KIND, key))
    return [Unsettled(name, reason, since, tries, rev) for name, rev, reason, since, tries in rows]


def noted(handle: Handle, key: str, document: Document, by: str) -> Unsettled | None:
    """What is noted of a resolver and just these siblings."""
    digest = digest_of(document)
    known = (each for each in unsettled_at(handle, key) if (each.resolver, each.digest) == (by, digest))
    return next(known, None)


def note(
    handle: Handle, key: str, document: Document, by: str, reason: str, now_us: int, *, asked: bool = True
) -> None:
    """Notes why the resolver called `by` left the siblings of a document. What would say the same is not written.

    It replaces what was noted of another version of the resolver, and of other siblings.

    Args:
        asked: whether the resolver was asked: then the pause before the next time grows.
    """
    before = noted(handle, key, document, by)
    tries = (0 if before is None else before.tries) + asked
    since_us = now_us if before is None else before.since_us
    one = Unsettled(by, reason[:REASON_LENGTH], since_us, tries, digest_of(document))
    if one == before:
        return
    shard, definition, _part = handle.place(key)
    with shard.transaction():
        connection = shard.database.read()
        of_key = definition.id, _KIND, key
        for name, digest, *_rest in connection.rows(sql.PARKED_AT, of_key):
            if digest != one.digest or name.partition("@")[0] == by.partition("@")[0]:
                connection.run(sql.UNPARK, (*of_key, name))
        connection.run(sql.PARK, (*of_key, by, one.digest, one.reason, one.since_us, one.tries))


def forget(handle: Handle, key: str) -> None:
    """Removes the notes of a document that is settled, if there are any."""
    known = unsettled_at(handle, key)
    if not known:
        return
    shard, definition, _part = handle.place(key)
    with shard.transaction():
        shard.database.read().run_many(sql.UNPARK, [(definition.id, _KIND, key, each.resolver) for each in known])
