"""A collection: a mapping from keys to JSON values that keeps every version it ever had.

As a plain dict it never makes siblings: `posts[key] = value` supersedes all that
this store knows of the key. Those who read first and write later hand back what
they had seen, with `context=` to keep a rival as a sibling or with `match=` to be
refused; `modify` does the loop.

Every call is durable when it returns. Nothing that is passed in is changed, and
nothing that is returned is shared.
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
import secrets
import time
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vstore import catalogue, lookup
from vstore.batch import ABSENT, Match, Put, Written
from vstore.changes import Changes
from vstore.clock import Knowledge
from vstore.codecs import Codec
from vstore.conflicts import MERGE, Unsettled, decided, digest_of, forget, keys_in_conflict, note, unsettled_at
from vstore.document import ERASE, Content, Context, Document, Entry, context_of, successor
from vstore.errors import (
    ConfigurationError,
    Conflict,
    InvalidDocument,
    InvalidKey,
    InvalidToken,
    NotFound,
    PreconditionFailed,
    ResolverError,
    StaleMap,
    StoreError,
)
from vstore.handle import Handle, shown, unprefixed
from vstore.history import HistoryScan, history, version_at, versions_of
from vstore.hlc import moment_us
from vstore.keys import Keys
from vstore.partition import check_key
from vstore.past import Past
from vstore.patch import diff
from vstore.purging import GRACE_DAYS, Purged, purge
from vstore.reading import OnConflict
from vstore.replicas import Replica, registered, retire
from vstore.resolvers import DELETE, KEEP, Resolver, identity
from vstore.retention import Pruned, prune
from vstore.slices import Slice
from vstore.snapshot import Items, Snapshot, Values
from vstore.sql.schema import LIVE

if TYPE_CHECKING:
    from vstore.store import Store  # which makes collections; a collection is handed its store

BATCH_ROWS = 1_000

RACES = 10
"""How often a put is prepared together with its merge before the two go one after the other."""

_MISSING: Any = object()
D = TypeVar("D")


class Found(dict[str, Any]):
    """What `get_many` found: values by key in the order asked for, and in `missing` the keys without one."""

    missing: list[str]


class Collection(MutableMapping[str, Any]):
    """Documents under keys. Get one from a store: `store["posts"]`."""

    def __init__(self, store: Store, name: str, *, resolver: Resolver | None, codec: Codec, prefix: str = "") -> None:
        """For stores to call."""
        self._store = store
        self._codec = codec
        self._prefix = prefix
        self.name = name
        self.resolver = resolver

    def __repr__(self) -> str:
        within = f" under {self._prefix!r}" if self._prefix else ""
        return f"<Collection {self.name!r}{within} of {self._store!r}>"

    @property
    def prefix(self) -> str:
        """What the keys of a `prefixed` view begin with in the collection itself; empty for a whole collection."""
        return self._prefix

    @property
    def store(self) -> Store:
        """The store it belongs to."""
        return self._store

    # --- the mapping -------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        """The value, decoded afresh.

        Raises:
            NotFound: nothing live is stored under the key (a KeyError).
            Conflict: it has several live siblings and no resolver settles them.
        """
        value = self._value(key)
        if value is _MISSING:
            raise self._not_found(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default if nothing live is stored under the key. Raises Conflict as `[]` does."""
        value = self._value(key)
        return default if value is _MISSING else value

    def __setitem__(self, key: str, value: Any) -> None:
        """Stores a value; it supersedes all that this store holds of the key, siblings too."""
        self._write(key, self.content(value))

    def __delitem__(self, key: str) -> None:
        """Deletes the document: its history stays, and a tombstone tells replicas. Raises NotFound if there is none."""
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        """Whether a live document is stored under the key; False for what can be no key."""
        handle = self._handle()
        if handle is None or not isinstance(key, str):
            return False
        try:
            return lookup.is_live(handle, self._prefix + key)
        except InvalidKey:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(Keys(self))

    def __len__(self) -> int:
        """How many live documents. Counts the heads in an index: about 30 ms for a million."""
        handle = self._handle()
        if handle is None:
            return 0
        if self._prefix:
            return sum(1 for _ in self.keys(start=""))
        return lookup.count_live(handle)

    def keys(self, prefix: str = "", start: str | None = None, end: str | None = None, reverse: bool = False) -> Keys:
        """The live keys: sorted by bytes if any argument is given, else in the order of `items` and `values`.

        Args:
            prefix: only keys that begin so.
            start: the first key that may come, included.
            end: the end, not included.
            reverse: from the end to the start.

        Streamed in pages, each as it is then: keys written meanwhile may appear.
        """
        return Keys(self, prefix, start, end, reverse)

    def items(self, *, on_conflict: OnConflict | None = None) -> Items:
        """All live documents as (key, value), exactly as they are when the iteration begins, in storage order.

        Args:
            on_conflict: for documents with several live siblings: "raise"
                Conflict (the default, unless the collection has a resolver,
                which then settles what is shown), take the "winner", or "skip".
        """
        return Items(self, on_conflict)

    def values(self, *, on_conflict: OnConflict | None = None) -> Values:
        """The values of `items`, in the same order."""
        return Values(self, on_conflict)

    def clear(self) -> None:
        """Deletes every document; each gets a tombstone and keeps its history. `Store.drop` forgets instead."""
        self.delete_many(self.keys(start=""))

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Stores many documents, as `dict.update`, by `put_many`."""
        if hasattr(other, "keys") and not isinstance(other, Mapping):
            self.put_many((key, other[key]) for key in other.keys())  # noqa: SIM118  # dict.update's own protocol
        else:
            self.put_many(other)
        self.put_many(named)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value; if there is none, stores the default first. Safe among concurrent writers."""
        while True:
            value, seen = self._current(key)
            if value is not _MISSING:
                return value
            with contextlib.suppress(PreconditionFailed):
                return self.put(key, default, match=seen).value

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Deletes the document and returns its value, or the default. Of concurrent callers one gets it."""
        while True:
            value, seen = self._current(key)
            if value is _MISSING:
                if default is _MISSING:
                    raise self._not_found(key)
                return default
            with contextlib.suppress(PreconditionFailed):
                self._put(key, Content(None), None, seen)
                return value

    def popitem(self) -> tuple[str, Any]:
        """Deletes some document and returns its key and value. Of concurrent callers one gets it.

        Raises NotFound if there is none.
        """
        for key in self:
            with contextlib.suppress(NotFound):  # another caller has got it
                return key, self.pop(key)
        raise NotFound(f"popitem() of {self.name!r}: it has no live document.")

    # --- reading and writing with what was seen ----------------------------------------------------------------------

    def read(self, key: str, *, on_conflict: OnConflict | None = None, deleted: bool = False) -> Document:
        """The document with its rev, stamp, siblings and the context to write with.

        Args:
            on_conflict: with several live siblings and no resolver: "raise"
                Conflict, which carries the document (the default), or give the
                "winner", whose `siblings` are all of them.
            deleted: give the tombstone of a deleted document instead of NotFound.

        A resolver is asked for the value to show; nothing is written.
        """
        document = self._document(key)
        if document is None or (document.deleted and not deleted):
            raise self._not_found(key)
        if not document.conflicted or on_conflict == "winner":
            return document
        value = self._settled(document, on_conflict)
        if value is DELETE:
            raise self._not_found(key)
        return replace(document, value=value)

    def put(
        self,
        key: str,
        value: Any,
        *,
        context: Context | str | None = None,
        match: Match | None = None,
        on_conflict: Literal["keep", "resolve"] = "keep",
    ) -> Document:
        """Stores a value as a new version of the document.

        Args:
            context: what the writer had seen, from `read`. Exactly that is
                replaced; what was written meanwhile stays as a sibling. Without
                it, all that this store holds of the key is replaced.
                `Context(key)` is a writer who has seen nothing.
            match: refuse instead, unless the document is still at this rev, has
                nothing that this context has not seen, or (ABSENT) is not there.
            on_conflict: what becomes of siblings that the write leaves: "keep"
                them, or let the collection's resolver "resolve" them at once. The
                version that was put and the merge are one transaction, unless the
                context has seen nothing. A resolver that fails changes nothing
                about the write: the siblings stay, and `unsettled` says why.

        Returns:
            The document as it is now. The same value put again with the same
            context is the version that is there already.

        Raises:
            PreconditionFailed: `match` does not hold; a Conflict that carries
                the document. Nothing was written.
            ConfigurationError: on_conflict="resolve" without a resolver. Nothing was written.
            InvalidDocument, InvalidKey, InvalidToken: with the reason. Nothing was written.
            Unavailable: the database failed; `outcome_unknown` tells whether
                the version may be there. Repeating the call is safe.
        """
        if on_conflict == "resolve":
            return self._put_resolved(key, self.content(value), context, match)
        return self._put(key, self.content(value), context, match)

    def add(self, value: Any) -> str:
        """Stores a new document under a key made for it, and returns the key: 26 characters that sort by time."""
        key = f"{time.time_ns() // 1000:014x}{secrets.token_hex(6)}"
        self.put(key, value, match=ABSENT)
        return key

    def delete(self, key: str, *, context: Context | str | None = None, match: Match | None = None) -> Document:
        """Deletes a document: a tombstone becomes its newest version.

        Args:
            context, match: as in `put`. An edit that the context had not seen survives.

        Returns:
            The tombstone, or the live sibling that survived.

        Raises:
            NotFound: there is no live document (asked only without `context`).
        """
        if context is not None:
            return self._put(key, Content(None), context, match)
        while True:
            document = self._document(key)
            if document is None or document.deleted:
                raise self._not_found(key)
            try:
                return self._put(key, Content(None), None, document.context if match is None else match)
            except PreconditionFailed:
                if match is not None:
                    raise

    def erase(self, key: str) -> Document:
        """Deletes a document for good: a tombstone, and every body of its history is removed. Returns the tombstone.

        It travels like any other version, and at each replica that it reaches
        takes the bodies of all that was written before it; a body that comes
        later than it is not kept either. The place of each version in history
        stays. An edit made elsewhere that the erasure had not seen survives as a
        live document: erase it too.

        What a database has freed may be on its disk for a while. SQLite
        overwrites the bytes, in its log too once no reader is left in it; but a
        page that was split earlier may have a copy in its unused part, and a
        server cleans up when it likes. `Store.vacuum` makes an end of both:
        VACUUM, VACUUM FULL, OPTIMIZE TABLE. Do it at each replica when the
        erasure has come. Backups, a server's logs, and whatever was derived from
        the document elsewhere, are not reached.

        Raises:
            NotFound: there never was such a document.
        """
        if self._document(key) is None:
            raise self._not_found(key)
        handle, written = self._write(key, Content(None, kind=ERASE))
        return self._shown(handle.document(self._full(key), [written.version]))

    def modify(
        self, key: str, change: Callable[[Any], Any], *, default: Any = _MISSING, attempts: int = 100
    ) -> Document:
        """Reads, changes, writes back; and again if someone else was faster. No update is lost.

        Args:
            change: gets the value (its own copy) and returns the new one, or
                DELETE. May be called several times. None is a value, JSON null:
                a function that changes its argument has to return it too.
            default: what `change` gets (its own copy) if there is no live document.

        Raises:
            NotFound: there is no live document, and no default or nothing to delete.
            Conflict: it has siblings that no resolver settles; or
                PreconditionFailed after `attempts` lost races. Nothing was written.
        """
        for attempt in count(1):
            value, seen = self._current(key)
            absent = value is _MISSING
            if absent and default is _MISSING:
                raise self._not_found(key)
            changed = change(copy.deepcopy(default) if absent else value)
            if absent and changed is DELETE:
                raise self._not_found(key)
            try:
                return self._put(key, Content(None) if changed is DELETE else self.content(changed), None, seen)
            except PreconditionFailed:
                if attempt >= attempts:
                    raise
            time.sleep(random.uniform(0, min(0.05, 0.0005 * 2**attempt)))
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def edit(self, key: str, *, default: Any = _MISSING) -> Iterator[Any]:
        """`with posts.edit(key) as value:` writes the changed value back when the block ends without an error.

        For dicts and lists, which can be changed in place. An unchanged value is not written.

        Args:
            default: the value to begin with (a copy) if there is no live document.

        Raises:
            NotFound: there is no live document and no default.
            PreconditionFailed: someone else wrote meanwhile. Nothing was
                written; `modify` repeats instead.
        """
        value, seen = self._current(key)
        before = None
        if value is not _MISSING:
            before = self.content(value).identity
        elif default is _MISSING:
            raise self._not_found(key)
        else:
            value = copy.deepcopy(default)
        yield value
        content = self.content(value)
        if content.identity != before:
            self._put(key, content, None, seen)

    # --- many at once ------------------------------------------------------------------------------------------------

    def put_many(self, items: Mapping[str, Any] | Iterable[tuple[str, Any]], *, batch_rows: int = BATCH_ROWS) -> int:
        """Stores many documents, as `[]` does each; how many.

        Args:
            items: a mapping or an iterable of pairs, read as it goes.
            batch_rows: each batch is one transaction on each shard.

        Raises:
            InvalidDocument, InvalidKey: the message begins with the key. The
                batches before it are stored, nothing of its own.
            PartialWrite: some shards committed a batch and others did not.
        """
        pairs = items.items() if isinstance(items, Mapping) else items
        return self._many(((key, self._named_content(key, value)) for key, value in pairs), batch_rows)

    def delete_many(self, keys: Iterable[str], *, batch_rows: int = BATCH_ROWS) -> int:
        """Deletes the live documents among the keys; how many there were."""
        total = 0
        for batch in _batches(keys, batch_rows):
            handle = self._handle()
            live = lookup.live_among(handle, map(self._full, batch)) if handle is not None else ()
            found = (key for key in dict.fromkeys(batch) if self._full(key) in live)
            total += self._many(((key, Content(None)) for key in found), batch_rows)
        return total

    def get_many(self, keys: Iterable[str], *, on_conflict: OnConflict | None = None) -> Found:
        """The values of many keys in the order asked for; the keys without one are in `missing`.

        Args:
            on_conflict: as in `items`. What is skipped is in neither.

        One query for each shard and some hundred keys; shards one after another.
        """
        handle = self._handle()
        found = Found()
        found.missing = []
        wanted = list(dict.fromkeys(keys))
        if handle is None:
            found.missing = wanted
            return found
        values = lookup.live_values(handle, map(self._full, wanted))
        for key in wanted:
            live = values.get(self._full(key), ())
            if not live:
                found.missing.append(key)
            elif len(live) == 1:
                [(codec_name, body)] = live
                found[key] = handle.codec_named(codec_name).decode(body)
            elif on_conflict != "skip":
                try:
                    found[key] = self.read(key, on_conflict=on_conflict).value
                except NotFound:  # says the resolver, or deleted meanwhile
                    found.missing.append(key)
            else:
                with contextlib.suppress(Conflict, NotFound):  # identical siblings are one
                    found[key] = self.read(key, on_conflict="raise").value
        return found

    # --- history -----------------------------------------------------------------------------------------------------

    def history(self, key: str) -> Iterator[Document]:
        """Every version that still has its body, newest first, each with rev, stamp, value, parents and deleted.

        Raises NotFound if nothing was ever stored under the key.
        """
        handle = self._needed(key)
        return map(self._shown, history(handle, self._full(key)))

    def version(self, key: str, rev: str) -> Document:
        """One version by its rev.

        Raises:
            NotFound: the key has no such version here.
            HistoryPruned: it had, and its body is gone.
        """
        handle = self._needed(key)
        full = self._full(key)
        version = version_at(handle, full, rev)
        return self._shown(shown(full, version, context_of(full, [version]), handle.value(version, full)))

    def diff(self, key: str, old: str, new: str | None = None) -> list[dict[str, Any]]:
        """How to get from one version to another, as a JSON Patch (RFC 6902).

        Args:
            old, new: revs; without `new`, the document as it is. A tombstone is null.
        """
        after = self.version(key, new).value if new else self.read(key, deleted=True).value
        return diff(self.version(key, old).value, after)

    def revert(self, key: str, rev: str) -> Document:
        """Makes the content of an old version the newest one; nothing is undone in history."""
        version = self.version(key, rev)
        return self._put(key, Content(None) if version.deleted else self.content(version.value))

    def at(self, moment: Any, *, start: str | None = None, end: str | None = None) -> Past:
        """The collection, or a range of it, as it was shown at a past moment: a read-only mapping, exact, streamed.

        Args:
            moment: ISO 8601 text, an aware datetime, or a stamp in microseconds.
            start: the first key that may come, included.
            end: the end, not included.

        Raises:
            ValueError, TypeError: it is no moment, or not within the years 1 to 9999.
            NotFound: the collection does not exist.
        """
        return Past(self._needed(), moment_us(moment), self._prefix, start, end)

    def snapshot(self, start: str | None = None, end: str | None = None, *, since: str | None = None) -> Snapshot:
        """The collection as it is now, or a range of it, for reading later or elsewhere while others write.

        Args:
            start: the first key that may come, included.
            end: the end, not included.
            since: the `since` of an earlier snapshot: the same one again, and
                cut into the same slices.

        Raises:
            NotFound: the collection does not exist.
            InvalidToken: `since` is no token of its compacted feed.
        """
        return Snapshot(self._needed(), self._prefix, start, end, since)

    def history_scan(
        self, since: Any = None, until: Any = None, *, start: str | None = None, end: str | None = None
    ) -> HistoryScan:
        """Every version there is now, for jobs over time: pairs of (key, Document), as committed in each partition.

        Args:
            since: a moment, as for `at`: only what was written then or later.
            until: only what was written before it.
            start: the first key that may come, included.
            end: the end of the keys, not included. Every version is looked at all the same.

        Versions that have been pruned are left out; a tombstone has the value None.

            for key, version in posts.history_scan(since="2026-01-01T00:00:00Z"):
                print(key, version.stamp, version.value)

        Raises:
            ValueError, TypeError: since or until is no moment.
            NotFound: the collection does not exist.
        """
        since_us, until_us = (None if moment is None else moment_us(moment) for moment in (since, until))
        return HistoryScan(self._needed(), self._prefix, since_us, until_us, start, end)

    def slices(self, count: int) -> Sequence[Slice]:
        """A snapshot in about `count` parts that other processes can read: for MapReduce."""
        return self.snapshot().slices(count)

    def len_estimate(self) -> int:
        """An upper bound of `len`, at no cost."""
        return self.snapshot().len_estimate()

    def changes(
        self,
        since: str | None = None,
        *,
        follow: bool = False,
        full: bool = False,
        values: bool = False,
        idle_seconds: float | None = None,
    ) -> Changes:
        """What was committed since a token: complete, and in commit order for each partition.

        Args:
            since: the `since` of an earlier feed; None is the beginning. One that was
                taken inside a transaction that was rolled back means nothing.
            follow: wait for more, for ever or until nothing came for `idle_seconds`.
            full: every version instead of the present heads.
            values: with the value of each: None for a tombstone, and of several
                heads every one's own, each in a change of its own.

        Raises:
            InvalidToken: the token belongs to another feed. Nothing was skipped.
        """
        return Changes(
            self._needed(),
            since,
            full=full,
            values=values,
            prefix=self._prefix,
            follow=follow,
            idle_seconds=idle_seconds,
            news=self._store.news,
        )

    def prune(
        self,
        *,
        keep_last: int | None = None,
        keep_days: float | None = None,
        dry_run: bool = False,
        progress: Callable[[Pruned], None] | None = None,
    ) -> Pruned:
        """Drops the bodies of old versions. Heads, tombstones and common ancestors of heads are always kept.

        Args:
            keep_last: the newest versions of each document that stay.
            keep_days: versions younger than this stay. With both, what either keeps.
            progress: called now and then with the counts so far.

        What is left of a pruned version is its place in history: who came
        before whom. Can be interrupted at any time and repeated.
        """
        return prune(
            self._needed(),
            keep_last=keep_last,
            keep_days=keep_days,
            dry_run=dry_run,
            progress=progress,
            prefix=self._prefix,
        )

    def purge(
        self,
        *,
        grace_days: float = GRACE_DAYS,
        expire_days: float | None = None,
        dry_run: bool = False,
        progress: Callable[[Purged], None] | None = None,
    ) -> Purged:
        """Forgets deleted documents with their whole history: only what every registered replica knows to be deleted.

        Args:
            grace_days: deletes younger than this stay, for replicas that nobody
                has registered: filtered ones, and backups that may be restored.
            expire_days: a replica that has not been heard of for so long does
                not count; else the collection's own, 90 if it says nothing.
            dry_run: count only.
            progress: called after each page of keys with the counts so far.

        Returns:
            How many were forgotten, how many wait for whom, and who has expired.

        A document goes with its tombstones, versions and stubs, in one small
        transaction with others. Replicas hear of it with the next sync and forget
        it too. What is forgotten does not come back from a replica that was away,
        expired or restored; an edit that it had made since is kept as a live
        document. Can be interrupted at any time and repeated.

        Raises:
            NotFound: the collection does not exist.
            ConfigurationError: less than no days. Nothing was purged.
        """
        return purge(
            self._needed(),
            grace_days=grace_days,
            expire_days=expire_days,
            dry_run=dry_run,
            progress=progress,
            prefix=self._prefix,
        )

    def replicas(self, *, expire_days: float | None = None) -> list[Replica]:
        """The other replicas that have been heard of: how far each has acknowledged what is known here, and when.

        Args:
            expire_days: as for `purge`.

        A replica appears once it has pulled all of the collection from here, or
        from another that told of it.
        """
        handle = self._handle()
        return [] if handle is None else registered(handle, expire_after_days=expire_days)

    def set_expire_days(self, days: float) -> None:
        """Says after how many days without a word a replica holds back a purge no more. 90 where nobody did.

        Of this store alone. Raises ConfigurationError for less than no days.
        """
        self._needed()
        if not 0 <= days < math.inf:
            raise ConfigurationError(f"{days!r} days refused: give 0 days or more. Nothing was changed.")
        catalogue.set_option(self._store.shards, self.name, "expire_days", days)
        self._store.forget(self.name)

    def retire_replica(self, id: str) -> Replica:
        """Says that a replica is gone for good, so that it no longer holds back a purge; what it had been.

        Args:
            id: as `replicas` tells it, or a beginning that no other has.

        Every registry hears of it with the next syncs. If it comes back after
        all it is registered anew.

        Raises:
            NotFound: no such replica is registered. Nothing was changed.
        """
        return retire(self._needed(), id)

    # --- conflicts ---------------------------------------------------------------------------------------------------

    def conflicts(self) -> Iterator[Document]:
        """Every document with several live siblings that differ, in key order of each shard. O(conflicts)."""
        handle = self._handle()
        if handle is None:
            return
        for key in keys_in_conflict(handle, self._prefix):
            document = self._document(key[len(self._prefix) :])
            if document is not None and document.conflicted:
                yield document

    def unsettled(self, document: Document) -> list[Unsettled]:
        """Why resolvers left the siblings of a document as they are: what each has done, and since when.

        Nothing for siblings that none was asked about, or that have changed
        since. Only what was asked in order to settle it counts, no read.
        """
        handle = self._handle()
        known = [] if handle is None else unsettled_at(handle, self._full(document.key))
        return [each for each in known if each.digest == digest_of(document)]

    def resolve(self, key: str, answer: Any = _MISSING, *, attempts: int = 100) -> Document:
        """Settles a document: one version that supersedes all its siblings.

        Args:
            answer: a resolver, which is given the siblings and their common
                ancestor if there are several; or what it would answer: a value,
                which is stored in any case, DELETE or KEEP. Without it, the
                collection's resolver, which may be the store's.

        Returns:
            The document; unchanged if it was at peace or the answer is KEEP.
            The version that a resolver decides is marked as a merge.

        Raises:
            NotFound: nothing was ever stored under the key.
            Conflict: there is neither an answer nor a resolver. Nothing was written.
            ResolverError: the resolver failed. The siblings are as they were.
        """
        resolver = self.resolver if answer is _MISSING else answer
        if answer is _MISSING and resolver is None:
            raise Conflict(f"resolve({key!r}) needs an answer: the collection has no resolver. Nothing was written.")
        return self._resolve(key, resolver, attempts=attempts, guess=True)

    def leave(self, document: Document, *, by: str, reason: str) -> None:
        """Notes why the siblings of a document were left as they are, for `unsettled`, and changes nothing else.

        Args:
            by: the `identity` of the resolver that was asked.
        """
        handle, full = self._needed(document.key), self._full(document.key)
        note(handle, full, document, by, reason, time.time_ns() // 1000)

    def settle(self, document: Document, answer: Any, *, by: str = "") -> Document:
        """Settles a document as it was read: one version that supersedes the siblings it had then, and no other.

        Args:
            document: from a read of this collection.
            answer: a value or DELETE.
            by: the `identity` of the resolver that decided. It marks the version
                as a merge, at every replica: of several merges of one conflict
                one may be taken without asking, of what people wrote never.

        Raises:
            PreconditionFailed: it has changed since. Nothing was written.
        """
        content = Content(None) if answer is DELETE else self.content(answer)
        if by:
            content = content._replace(kind=f"{MERGE}{by}")
        settled = self._put(document.key, content, document.context, document.context)
        with contextlib.suppress(StoreError):  # a note that is left says nothing of what is there now
            forget(self._needed(document.key), self._full(document.key))
        return settled

    def prefixed(self, prefix: str) -> Collection:
        """The documents whose keys begin so, as a collection of its own whose keys leave the prefix out."""
        return Collection(
            self._store, self.name, resolver=self.resolver, codec=self._codec, prefix=self._prefix + prefix
        )

    # --- inside ------------------------------------------------------------------------------------------------------

    def _handle(self) -> Handle | None:
        return self._store.handle(self.name)

    def _full(self, key: str) -> str:
        """The key in the collection. What is no text stays as it is, for `check_key` to refuse."""
        return self._prefix + key if self._prefix and isinstance(key, str) else key

    def _writable(self, keys: Iterable[str]) -> Handle:
        """The handle for a write of these keys, which creates the collection unless one of them is refused."""
        handle = self._handle()
        if handle is None:
            for key in keys:
                check_key(key)
            handle = self._store.handle(self.name, create=True)
            assert handle is not None
        return handle

    def _needed(self, key: str | None = None) -> Handle:
        handle = self._handle()
        if handle is None:
            raise NotFound(
                f"{key!r}: there is no collection {self.name!r} yet."
                if key is not None
                else f"there is no collection {self.name!r} yet. Its first write creates it."
            )
        return handle

    def content(self, value: Any) -> Content:
        """A value as it is stored. Raises InvalidDocument if it cannot be kept exactly."""
        name, body = self._codec.encode(value)
        return Content(self._codec.identity(value), name, body)

    def _named_content(self, key: str, value: Any) -> Content:
        try:
            return self.content(value)
        except InvalidDocument as error:
            raise InvalidDocument(f"{key!r}: {error}", error.path) from error

    def _value(self, key: str) -> Any:
        """The value of a document, or _MISSING: the path of every plain read."""
        handle = self._handle()
        if handle is None:
            return _MISSING
        rows = lookup.values_at(handle, self._full(key))
        if len(rows) == 1:
            state, codec_name, body = rows[0]
            return handle.codec_named(codec_name).decode(body) if state == LIVE else _MISSING
        if not rows:
            return _MISSING
        try:
            return self.read(key).value
        except NotFound:
            return _MISSING

    def _document(self, key: str) -> Document | None:
        """The document as stored, a tombstone too; None if there never was one."""
        handle = self._handle()
        if handle is None:
            return None
        full = self._full(key)
        heads = lookup.heads_at(handle, full)
        return self._shown(handle.document(full, heads)) if heads else None

    def _current(self, key: str) -> tuple[Any, Context]:
        """The value as `read` shows it, _MISSING if it shows none, and the context of who goes on from there."""
        document = self._document(key)
        if document is None:
            return _MISSING, Context(self._full(key))
        value = _MISSING
        if not document.deleted:
            value = self._settled(document) if document.conflicted else document.value
        return _MISSING if value is DELETE else value, document.context

    def _shown(self, document: Document) -> Document:
        """A document under the key that this view knows it by."""
        return unprefixed(document, len(self._prefix))

    def _put(
        self,
        key: str,
        content: Content,
        context: Context | str | None = None,
        match: Match | None = None,
    ) -> Document:
        """Writes, and shows the document as it is then."""
        handle, written = self._write(key, content, context, match)
        full = self._full(key)
        # Without heads it was made elsewhere before, and has left the filter of this replica.
        heads = written.heads or [written.version]
        whole = lookup.with_bodies(handle, full, heads, written.version, content)
        return self._shown(handle.document(full, whole))

    def _write(
        self,
        key: str,
        content: Content,
        context: Context | str | None = None,
        match: Match | None = None,
    ) -> tuple[Handle, Written]:
        """The way of every single write."""
        full = self._full(key)
        if isinstance(context, str):
            context = Context.parse(context)
        if isinstance(context, Context):
            context = self._own(key, context)
        if isinstance(match, Context):
            match = self._own(key, match)
        for attempt in (1, 2):
            handle = self._writable([full])
            shard, definition, part = handle.place(full)
            try:
                [written] = self._store.write(handle, [(shard, definition, Put(full, part, content, context, match))])
            except StaleMap:
                if attempt == 2:
                    raise
                self._store.forget(self.name)  # dropped and made again by another process
            except PreconditionFailed as error:
                document = self._document(key)
                if attempt == 2 or document is None or document.conflicted or document.rev != match:
                    raise PreconditionFailed(str(error), document) from None
                match = self._own(key, document.context)  # at peace, and its siblings only look alike: match them all
            else:
                return handle, written
        raise AssertionError("unreachable")

    def _put_resolved(self, key: str, content: Content, context: Context | str | None, match: Match | None) -> Document:
        """Writes, and lets the resolver settle what that leaves."""
        resolver = self.resolver
        if resolver is None:
            raise ConfigurationError(
                f"put of {key!r} with on_conflict='resolve' refused: the collection has no resolver. Nothing was "
                f"written. Give it one: store.collection({self.name!r}, resolver=…)."
            )
        if context is not None and match is None:
            merged = self._put_with_merge(key, content, context, resolver)
            if merged is not None:
                return merged
        document = self._put(key, content, context, match)
        if not document.conflicted:
            return document
        try:
            document = self._resolve(key, resolver, attempts=RACES, guess=False)
            reason = "kept them"
        except PreconditionFailed:
            return document  # others are faster each time, and what was put is stored
        except ResolverError as error:
            reason = error.reason
        if document.conflicted:
            with contextlib.suppress(StoreError):  # the write is durable, whatever becomes of this note
                self.leave(document, by=identity(resolver), reason=reason)
        return document

    def _put_with_merge(self, key: str, content: Content, given: Context | str, resolver: Resolver) -> Document | None:
        """A write and the merge of what it leaves in one transaction; None if there is nothing to merge, or no way to.

        The resolver is asked before, about the siblings as they would be, and not
        while others wait for the lock. Should more have come meanwhile, it is
        asked again.
        """
        full = self._full(key)
        context = self._own(key, Context.parse(given) if isinstance(given, str) else given)
        if not context.revs:
            return None  # a root is named after its dot, which only the transaction knows
        for _attempt in range(RACES):
            handle = self._writable([full])
            shard, definition, part = handle.place(full)
            heads = lookup.heads_at(handle, full)
            seen = context_of(full, heads)
            entry = Entry({head.rev: head for head in heads}, versions_of(handle, full))
            entry.versions.update(entry.heads)
            stamp = max([time.time_ns() // 1000, *(head.stamp + 1 for head in heads)])
            _edit, new = successor(entry, context, content, actor="", n=0, stamp=stamp, knowledge=Knowledge)
            document = self._shown(handle.document(full, list(entry.heads.values())))
            if not new or not document.conflicted:
                return None
            try:
                answer = decided(handle, full, document, resolver, self._codec, versions=entry.versions)
            except ResolverError:
                return None
            if answer is KEEP:
                return None
            merge = Content(None) if answer is DELETE else self.content(answer)
            merge = merge._replace(kind=f"{MERGE}{identity(resolver)}")
            works = Put(full, part, content, context, seen), Put(full, part, merge)
            try:
                written = self._store.write(handle, [(shard, definition, work) for work in works])[1]
            except PreconditionFailed:
                continue
            except StaleMap:
                self._store.forget(self.name)
                continue
            whole = lookup.with_bodies(handle, full, written.heads, written.version, merge)
            return self._shown(handle.document(full, whole))
        return None

    def _resolve(self, key: str, answer: Any, *, attempts: int, guess: bool) -> Document:
        """Settles a document by an answer, or by what a resolver answers; again if it changed meanwhile."""
        for attempt in count(1):
            document = self._document(key)
            if document is None:
                raise self._not_found(key)
            answered, by = answer, ""
            if callable(answer):
                by = identity(answer)
                answered = self._decided(document, answer, guess=guess) if document.conflicted else KEEP
            if answered is KEEP:
                return document
            try:
                return self.settle(document, answered, by=by)
            except PreconditionFailed:
                if attempt >= attempts:
                    raise
        raise AssertionError("unreachable")

    def _own(self, key: str, context: Context) -> Context:
        """A context of this key, as the shard knows it."""
        full = self._full(key)
        if context == Context(key):
            return Context(full)  # nothing was seen, so nothing says which view's key it is
        if context.key != full:
            raise InvalidToken(
                f"write of {full!r} refused: the context is of {context.key!r}. Nothing was written. Pass the context "
                f"that read() gave for this key."
            )
        return context

    def _many(self, pairs: Iterable[tuple[str, Content]], batch_rows: int) -> int:
        total = 0
        prefix = self._prefix
        for batch in _batches(pairs, batch_rows):
            for attempt in (1, 2):
                handle = self._writable(self._full(key) for key, _content in batch)
                works = []
                for key, content in batch:
                    full = self._full(key) if prefix else key
                    shard, definition, part = handle.place(full)
                    works.append((shard, definition, Put(full, part, content)))
                try:
                    self._store.write(handle, works, outcomes=False)
                    break
                except StaleMap:
                    if attempt == 2:
                        raise
                    self._store.forget(self.name)
            total += len(batch)
        return total

    def _settled(self, document: Document, on_conflict: OnConflict | None = None) -> Any:
        """What readers of a conflicted document are shown: the resolver's value, or DELETE for nothing.

        Raises:
            Conflict: nobody settles it.
        """
        if self.resolver is not None and on_conflict is None:
            answer = self._decided(document, self.resolver)
            if answer is not KEEP:
                return answer
        raise self._conflict(document)

    def _decided(self, document: Document, resolver: Resolver, *, guess: bool = False) -> Any:
        """What a resolver makes of a conflicted document."""
        handle, full = self._needed(document.key), self._full(document.key)
        return decided(handle, full, document, resolver, self._codec, guess=guess)

    def _not_found(self, key: str) -> NotFound:
        return NotFound(f"{key!r} in {self.name!r}: nothing live is stored under it. history() shows what was.")

    def _conflict(self, document: Document) -> Conflict:
        revs = ", ".join(sibling.rev for sibling in document.siblings)
        return Conflict(
            f"{document.key!r} in {self.name!r} has {len(document.siblings)} live siblings: {revs}. They are in "
            f"error.document.siblings. Settle it with resolve({document.key!r}, …), or give the collection a resolver.",
            document,
        )

    def rows(self, on_conflict: OnConflict | None = None) -> Iterator[tuple[str, Any]]:
        """What `items` iterates over: all live documents of a snapshot taken when it begins."""
        handle = self._handle()
        if handle is None:
            return iter(())
        return Snapshot(handle, self._prefix).rows(on_conflict, self._settled if self.resolver is not None else None)


def _batches(items: Iterable[D], size: int) -> Iterator[list[D]]:
    batch: list[D] = []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
