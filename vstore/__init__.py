"""vstore: a document store that never forgets, on the SQL databases you run.

    import vstore

    with vstore.open("sqlite:///app.db") as store:
        posts = store["posts"]
        posts["hello"] = {"title": "Hello"}
        posts.modify("hello", lambda value: {**value, "n": 1})
        for version in posts.history("hello"):
            print(version.rev, version.value)

The public names are here; docs/ explains them. Modules below are for those who
build on vstore.
"""

from typing import Any

from vstore.batch import ABSENT
from vstore.changes import Change, Changes
from vstore.collection import Collection
from vstore.document import Context, Document
from vstore.errors import (
    ClockTooLong,
    CodecError,
    ConfigurationError,
    Conflict,
    Corrupt,
    HistoryPruned,
    InvalidDocument,
    InvalidKey,
    InvalidToken,
    NotFound,
    PartialWrite,
    PreconditionFailed,
    ResolverError,
    SchemaMismatch,
    StaleMap,
    StoreError,
    Unavailable,
    Unwitnessed,
)
from vstore.resolvers import DELETE, KEEP, Resolver, Sibling, Siblings
from vstore.snapshot import Snapshot
from vstore.store import Store

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "DELETE",
    "KEEP",
    "Change",
    "Changes",
    "ClockTooLong",
    "CodecError",
    "Collection",
    "ConfigurationError",
    "Conflict",
    "Context",
    "Corrupt",
    "Document",
    "HistoryPruned",
    "InvalidDocument",
    "InvalidKey",
    "InvalidToken",
    "NotFound",
    "PartialWrite",
    "PreconditionFailed",
    "Resolver",
    "ResolverError",
    "SchemaMismatch",
    "Sibling",
    "Siblings",
    "Snapshot",
    "StaleMap",
    "Store",
    "StoreError",
    "Unavailable",
    "Unwitnessed",
    "open",
]


def open(*urls: str, **settings: Any) -> Store:
    """Opens a store, and makes it if its databases are blank.

    Args:
        urls: one for each shard, in any order, of any mixture of
            `sqlite:///file.db`, `postgresql://user@host/db` and
            `mariadb://user@host/db`. `sqlite://` is a store that is deleted when
            it is closed.
        durability: "full" (the default): what a call has written survives a
            power cut. "relaxed", for SQLite: the last moments before one may be
            lost; a crash of the process loses nothing either way.
        codec: how bodies are encoded: "json" (the default), "zlib+json", "zstd+json", …
        resolver: settles siblings; see `vstore.resolvers`.
        create: False to raise NotFound instead of making a store.
        require_witness: True to refuse writes, with `Unwitnessed`, until a sync
            has asked a peer whether this store was set back. For stores whose
            proofs of actors may be restored together with their databases.
        allow_pickle, max_body_bytes, state: see docs/reference.md.

    Raises:
        ConfigurationError: the URLs are not exactly the shards of one store.
        SchemaMismatch: a database was made by a newer vstore.
        NotFound: there is no store and `create` is False.
        Unavailable: a server cannot be reached; it may help to try again.
        Nothing is changed by a refused call.
    """
    return Store(*urls, **settings)
