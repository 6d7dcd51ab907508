"""A store: collections over one or several SQL databases, its shards.

Which databases make a store is found out by `vstore.assembly`, and which
collections it has is kept by `vstore.catalogue`.

A batch is cut by shard, the shards work in parallel, each in one transaction.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vstore import catalogue
from vstore.assembly import assembled, server_identity
from vstore.batch import Put, Receive
from vstore.canonical import MAX_BODY_BYTES
from vstore.changes import News
from vstore.check import Finding, check
from vstore.codecs import Codec
from vstore.collection import Collection
from vstore.copying import Copied, copy
from vstore.errors import ConfigurationError, NotFound, PartialWrite, StoreError, Unavailable
from vstore.handle import Handle
from vstore.identity import Proof, file_identity, state_directory
from vstore.partition import MAX_PARTITIONS, check_key
from vstore.plan import set_checkpoint
from vstore.resolvers import Resolver
from vstore.shard import Definition, Shard
from vstore.slices import Decoders
from vstore.sql import statements as sql
from vstore.sql.database import Database
from vstore.sql.migrate import meta_of

PARTITIONS = 64
"""Q of a new collection. Replicas made apart can sync only if they agree, so rarely change it."""

DEFINITION_SECONDS = 1.0
"""How long the definition of a collection is believed before it is read again."""


class Store:
    """An open store. A mapping from names to collections, and a context manager. Threads and forks may share it."""

    def __init__(
        self,
        *urls: str,
        durability: str = "full",
        codec: str = "json",
        resolver: Resolver | None = None,
        allow_pickle: bool = False,
        max_body_bytes: int = MAX_BODY_BYTES,
        create: bool = True,
        state: str | Path | None = None,
        require_witness: bool = False,
    ) -> None:
        """Opens the databases; see `vstore.open`."""
        if durability not in ("full", "relaxed"):
            raise ConfigurationError(
                f"durability={durability!r} is not known. Nothing was opened. Use 'full' or 'relaxed'."
            )
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.resolver = resolver
        self._codec = codec
        self._decoders = Decoders(allow_pickle, max_body_bytes)
        self._codec_settings = {"allow_pickle": allow_pickle, "max_body_bytes": max_body_bytes}
        self._durability = durability
        self._handles: dict[str, tuple[Handle, float]] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self.news = News()
        self._decoders.named(codec)  # an unknown name is refused now and not at the first put
        databases = [Database(self._url(url), durability=durability) for url in urls or ("sqlite:///vstore.db",)]
        try:
            self.id, self.map, shards = assembled(databases, create=create)
            self._state = Path(state) if state is not None else state_directory()
            self.shards = tuple(self._shard(database, shard_id, self._state) for shard_id, database in shards)
            if require_witness:
                for shard in self.shards:
                    shard.require_witness()
        except BaseException:
            for database in databases:
                database.close()
            raise
        _open_stores.add(self)

    def __repr__(self) -> str:
        return f"<Store {' '.join(shard.database.name for shard in self.shards)}>"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes every connection. Everything acknowledged is durable already."""
        if self._pool is not None:
            self._pool.shutdown()
        for shard in self.shards:
            if self._durability == "relaxed" and shard.database.path:
                with contextlib.suppress(StoreError):  # so that a clean end proves what the notes say
                    shard.database.read().text("PRAGMA wal_checkpoint(TRUNCATE)")
            shard.database.close()
            shard.proof.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    # --- collections -------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Collection:
        """The collection of that name; it is created by its first write."""
        return self.collection(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.collections())

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def __len__(self) -> int:
        return len(self.collections())

    def collection(self, name: str, *, resolver: Resolver | None = None, codec: str | None = None) -> Collection:
        """The collection of that name, with settings of this caller.

        Args:
            resolver: settles documents with several siblings when they are read
                and by `resolve`; else the store's.
            codec: how new versions are encoded; else the store's.

        Raises:
            InvalidKey: `name` is none; the rules are those of keys.
            CodecError: the codec is unknown, not installed or not allowed.

        Nothing is created or read before it is used. The first write creates it.
        """
        check_key(name)
        return Collection(
            self, name, resolver=resolver or self.resolver, codec=self._decoders.named(codec or self._codec)
        )

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        return catalogue.names(self.shards)

    def create(self, name: str, *, partitions: int = PARTITIONS) -> Collection:
        """Creates a collection.

        Args:
            partitions: Q, a power of two, for ever. Replicas sync only with
                equal Q, so leave it unless you know better.

        Raises:
            ConfigurationError: it exists, or `partitions` is no power of two up to 65,536.
        """
        check_key(name)
        if partitions not in {1 << bits for bits in range(MAX_PARTITIONS.bit_length())}:
            raise ConfigurationError(f"partitions={partitions!r} refused: use a power of two, 1 to {MAX_PARTITIONS:,}.")
        if not catalogue.create(self.shards, name, partitions):
            raise ConfigurationError(
                f"collection {name!r} exists already. Nothing was changed. store[{name!r}] opens it."
            )
        return self.collection(name)

    def rename(self, old: str, new: str) -> None:
        """Gives a collection another name. Its documents, history and feeds stay as they are.

        Raises:
            NotFound: there is no collection `old`.
            ConfigurationError: there is one called `new`.
        """
        check_key(new)
        if not catalogue.rename(self.shards, old, new):
            raise NotFound(f"there is no collection {old!r}. It has: {', '.join(self.collections()) or 'none'}.")
        self.forget(old)

    def drop(self, name: str) -> None:
        """Deletes a collection with its documents and all their history, here. There is no way back.

        Replicas keep theirs. Raises NotFound if there is none.
        """
        if not catalogue.drop(self.shards, name):
            raise NotFound(f"there is no collection {name!r}. It has: {', '.join(self.collections()) or 'none'}.")
        self.forget(name)

    def handle(self, name: str, *, create: bool = False) -> Handle | None:
        """What the services need to know of a collection; None if there is none and it shall not be created.

        Definitions are read again after a second, since another process may
        have dropped or renamed a collection.
        """
        found, read_at = self._handles.get(name, (None, 0.0))
        if found is None or time.monotonic() - read_at > DEFINITION_SECONDS:
            found = self._load(name)
            if found is None and create:
                catalogue.create(self.shards, name, PARTITIONS)
                found = self._load(name)
        return found

    def forget(self, name: str) -> None:
        """Reads the collection's definition again at the next use: another process may have dropped it."""
        with self._lock:
            self._handles.pop(name, None)

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(
        self,
        handle: Handle,
        works: Sequence[tuple[Shard, Definition, Put | Receive]],
        checkpoints: Mapping[str, str] | None = None,
        *,
        outcomes: bool = True,
    ) -> list[Any]:
        """Sends each work to its shard, in one transaction for each shard; durable when it returns.

        Args:
            checkpoints: JSON texts by name; each shard that gets a work writes
                them in the transaction of its works.
            outcomes: False for a caller who does not look at them, which is faster.

        Returns:
            Their outcomes, in the order of `works`; anything if they are not wanted.

        Raises:
            PartialWrite: some shards committed and others did not.
            StoreError: as `Shard.apply`; nothing was written.
        """
        groups: dict[int, list[int]] = {}
        for n, (shard, _definition, _work) in enumerate(works):
            groups.setdefault(id(shard), []).append(n)
        if len(groups) == 1:
            shard, definition, _work = works[0]
            self._only_shard(shard)
            return shard.apply(definition, [work for _, _, work in works], checkpoints, outcomes=outcomes)
        found: list[Any] = [None] * len(works)  # wanted by PartialWrite in any case
        failed: dict[int, StoreError] = {}

        def send(places: list[int]) -> None:
            shard, definition, _work = works[places[0]]
            try:
                results = shard.apply(definition, [works[n][2] for n in places], checkpoints)
            except StoreError as error:
                failed.update(dict.fromkeys(places, error))
            else:
                for n, result in zip(places, results, strict=True):
                    found[n] = result

        for places in groups.values():
            self._only_shard(works[places[0]][0])
        list(self._threads().map(send, groups.values()))
        if failed:
            self._raise_partial(handle, works, found, failed)
        return found

    @contextlib.contextmanager
    def transaction(self, shard: int | None = None) -> Iterator[None]:
        """All writes of this thread in the block, in one transaction: all or nothing, seen by nobody else before.

        Args:
            shard: the index of the shard they go to; may be left out if there is one.

        Raises:
            ConfigurationError: a write goes to another shard, or there are
                several and none was named. Nothing was written.

        Other writers of the shard wait until the block has ended.
        """
        if shard is None:
            if len(self.shards) > 1:
                raise ConfigurationError(
                    f"transaction() of a store with {len(self.shards)} shards refused: a transaction is of one shard. "
                    f"Nothing was written. Name it: transaction(shard=…), and store.shard_of(collection, key) tells it."
                )
            shard = 0
        with self.shards[shard].transaction():
            outer = getattr(self._local, "shard", None)
            self._local.shard = self.shards[shard]
            try:
                yield
            finally:
                self._local.shard = outer

    def shard_of(self, collection: str, key: str) -> int:
        """The index of the shard that holds a key."""
        handle = self.handle(collection, create=True)
        assert handle is not None
        return self.shards.index(handle.place(key)[0])

    # --- the whole ---------------------------------------------------------------------------------------------------

    def checkpoint(self, name: str) -> Any:
        """How far a consumer had got, as it last said with `set_checkpoint`; None if it never did."""
        rows = self.shards[0].database.ask(sql.CHECKPOINT, (name,))
        return json.loads(rows[0][0]) if rows else None

    def set_checkpoint(self, name: str, value: Any) -> None:
        """Notes how far a consumer has got. Durable when it returns.

        It is on the first shard: in a `transaction` of that one it commits with
        the data, in one of another it is refused.
        """
        self._only_shard(self.shards[0])
        with self.shards[0].transaction():
            set_checkpoint(self.shards[0].database.read(), name, json.dumps(value))

    def check(
        self, collections: Iterable[str] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Iterator[Finding]:
        """Reads everything and names every broken invariant; an iterator that ends without one when all is well.

        Args:
            collections: the names of those to check; all of them if None.
            progress: called now and then with how many versions have been read, and of how many.

        Raises:
            NotFound: there is no collection of such a name.
            Unavailable: a database server did not answer.

        Streamed, memory stays flat, others may write meanwhile. Nothing is
        changed. Some ten thousand versions a second.
        """
        return check(self, None if collections is None else set(collections), progress)

    def copy(self, *urls: str, progress: Callable[[Copied], None] | None = None) -> Copied:
        """Makes a second replica of the whole store, with full history, in blank databases.

        Args:
            urls: its shards, of any number and mixture.
            progress: called after each batch with the counts so far.

        Returns:
            The counts, and the id of the new store: it has new actors and feeds
            of its own, so both may be written, and `sync` them from then on.

        Raises:
            ConfigurationError: the databases are not blank. Nothing was changed.
            Unavailable: a database failed. What was copied stays: the same call
                goes on from there.

        Both may be written meanwhile; such versions come along or stay for the
        first sync. Memory stays flat.
        """
        with Store(*urls, durability=self._durability, codec=self._codec, state=self._state) as target:
            return copy(self, target, progress or (lambda copied: None))

    def vacuum(self) -> None:
        """Gives back the space of what was pruned, purged and erased, and leaves nothing of it in the files.

        SQLite writes the file anew, a server its table of versions: PostgreSQL
        with VACUUM FULL, MariaDB with OPTIMIZE TABLE. That takes as long as
        copying it, as much free space, and writers wait meanwhile.

        Raises:
            ConfigurationError: a transaction is open. Nothing was done.
            Unavailable: a database refused, or others held their locks too
                long. Nothing was lost.
        """
        if any(shard.database.in_transaction for shard in self.shards):
            raise ConfigurationError("vacuum() inside transaction() refused. Nothing was done. Do it afterwards.")
        for shard in self.shards:
            shard.database.vacuum()

    def codec_named(self, name: str) -> Codec:
        """The codec that wrote rows under a name, with this store's permissions and limits."""
        return self._decoders.named(name)

    def stats(self) -> dict[str, Any]:
        """For each collection how many documents, tombstones, conflicts, versions, stubs and bytes of bodies it has.

        And how many entries the longest clock has, about as many actors have
        written one document; and of how many actors its partitions know, each
        by itself. Reads every row.
        """
        found: dict[str, Any] = {}
        for name in self.collections():
            handle = self.handle(name)
            assert handle is not None
            kinds = "documents", "tombstones", "conflicts", "versions", "stubs", "body_bytes", "longest_clock", "actors"
            total = dict.fromkeys(kinds, 0)
            for shard, definition, first, end in handle.runs():
                with shard.database.snapshot() as c:
                    actors = c.rows(sql.COUNT_ACTORS, (definition.base + first, definition.base + end))[0][0]
                    states = dict(c.rows(sql.COUNT_HEADS, (definition.id,)))
                    rivals = c.rows(sql.COUNT_RIVALS, (definition.id,))[0][0]
                    versions, stubs, size, blanks = c.rows(sql.COUNT_VERSIONS, (definition.id,))[0]
                total["documents"] += states.get(0, 0) + rivals
                total["tombstones"] += states.get(1, 0)
                total["conflicts"] += rivals
                total["versions"] += versions
                total["stubs"] += int(stubs or 0)
                total["body_bytes"] += int(size or 0)
                total["actors"] += actors
                if blanks is not None:
                    total["longest_clock"] = max(total["longest_clock"], int(blanks) + 1)
            found[name] = total
        return found

    # --- inside ------------------------------------------------------------------------------------------------------

    def _url(self, url: str) -> str:
        """`sqlite://` is a store for as long as it is open: a file of its own, deleted at the end."""
        if url in ("sqlite://", "sqlite:///:memory:"):
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="vstore-")
            return f"sqlite:///{self._temporary.name}/{secrets.token_hex(4)}.db"
        return url

    def _shard(self, database: Database, shard_id: str, directory: Path) -> Shard:
        if self._temporary is not None and Path(database.path or "").parent == Path(self._temporary.name):
            directory = Path(self._temporary.name)  # nobody will open it again: the proof is deleted with it
        if database.path is not None:
            identity, distrusted = file_identity(database.path), False  # a file proves itself by the notes alone
        else:
            identity = server_identity(database)
            distrusted = not identity or meta_of(database).get("identity") != identity  # one that hides proves nothing
        exact = database.path is not None
        proof = Proof(directory, shard_id, identity, exact=exact, durable=self._durability == "full" or not exact)
        shard = Shard(database, shard_id, proof, distrusted=distrusted, identity=identity)
        shard.on_commit = lambda: self.news.tell()  # after a fork it is another one
        return shard

    def _only_shard(self, shard: Shard) -> None:
        only = getattr(self._local, "shard", None)
        if only is not None and only is not shard:
            raise ConfigurationError(
                f"this write goes to {shard.database.name}, and the open transaction is of {only.database.name}. "
                f"Nothing of the transaction was written. A transaction is of one shard: see store.shard_of()."
            )

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(len(self.shards), thread_name_prefix="vstore-shard")
            return self._pool

    def _raise_partial(
        self,
        handle: Handle,
        works: Sequence[tuple[Shard, Definition, Put | Receive]],
        outcomes: Sequence[Any],
        failed: Mapping[int, StoreError],
    ) -> None:
        unknown = [error for error in failed.values() if isinstance(error, Unavailable) and error.outcome_unknown]
        first = unknown[0] if unknown else next(iter(failed.values()))
        if len(failed) == len(works):
            raise first
        keys = {n: work.key for n, (_, _, work) in enumerate(works) if isinstance(work, Put)}
        written = {
            keys[n]: handle.document(keys[n], [outcome.version])
            for n, outcome in enumerate(outcomes)
            if outcome is not None and n in keys
        }
        raise PartialWrite(
            f"{len(written)} of {len(works)} writes to {handle.name!r} are durable, {len(failed)} are not"
            f"{f', or it is not known for {len(unknown)} of them' if unknown else ''}: {first} "
            f"Repeat the call: what is there already stays as it is or gets an equal version.",
            written,
            {keys[n]: error for n, error in failed.items() if n in keys},
        ) from first

    def _load(self, name: str) -> Handle | None:
        definitions = catalogue.found(self.shards, name)
        for shard in self.shards:
            if shard.database.path is None:  # a dump may be restored under an open store
                shard.recognise(server_identity(shard.database))
        if definitions is None:
            self.forget(name)
            return None
        handle = Handle(
            name,
            catalogue.uid_of(definitions[0]),
            definitions[0].partitions,
            self.map,
            self.shards,
            tuple(definitions),
            self._decoders.named,
            self._codec_settings,
        )
        if not any(shard.database.in_transaction for shard in self.shards):  # what is not committed may never be
            with self._lock:
                self._handles[name] = handle, time.monotonic()
        return handle


_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_open_stores):
        if store._temporary is not None:
            store._temporary._finalizer.detach()  # type: ignore[attr-defined]  # the parent's to delete
            store._temporary = None
        store._pool = None
        store._lock = threading.Lock()
        store._local = threading.local()
        store.news = News()
        for shard in store.shards:
            shard.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
