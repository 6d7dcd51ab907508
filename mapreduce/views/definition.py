"""A view as its program defines it: of which documents, by which functions, kept where."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from mapreduce.views.emitted import MapFunction
from mapreduce.views.reduction import Reduction
from mapreduce.views.source import Source
from vstore.collection import Collection
from vstore.errors import NotFound
from vstore.sql.database import Database


@dataclass(frozen=True)
class Definition:
    """What makes and keeps a view. Without `map` it can be read only, and its fingerprints are empty."""

    name: str
    source: Source
    database: Database
    map: MapFunction | None
    reduction: Reduction | None
    fingerprint: str
    reduction_print: str
    reducer: str

    @property
    def id(self) -> str | None:
        """The view's id in its database: of this collection and no other of its name. None without a collection."""
        handle = self.source.handle()
        return None if handle is None else view_id(self.source.collection, handle.uid, self.name)

    @property
    def needed_id(self) -> str:
        """The same. Raises NotFound without a collection."""
        return view_id(self.source.collection, self.source.needed().uid, self.name)

    def unbuilt(self) -> NotFound:
        """The error of a reader who would not wait for a build."""
        return NotFound(
            f"the view {self.name!r} of {self.source.collection.name!r} has not been built yet. Nothing was read. "
            f"Build it: update(), rows() without update='never', or `vstore views --update`."
        )


def view_id(collection: Collection, uid: str, name: str) -> str:
    """The id of a view of a collection, of all of it or of a prefix."""
    parts = collection.store.id, uid, collection.prefix, name
    return blake2b(b"\x00".join(part.encode() for part in parts), digest_size=16).hexdigest()
