"""Every error vstore raises on purpose, one class per situation.

    StoreError
    ├─ NotFound              nothing live under this key, or nothing yet at that moment (also a KeyError)
    ├─ Conflict              several live siblings, or someone else has written; carries the siblings
    │  └─ PreconditionFailed `match=` was given and does not hold; nothing was written
    ├─ InvalidKey            not a key: 1 to 1,024 bytes of UTF-8, no NUL (also a ValueError)
    ├─ InvalidDocument       a value that cannot be kept exactly; carries its path (also a ValueError)
    ├─ InvalidToken          a context or `since` token that is not ours, or belongs to another feed (also a ValueError)
    ├─ ClockTooLong          a document was written by more actors than a clock may list; nothing was written
    ├─ CodecError            stored bytes name a codec that is unknown, missing or not allowed
    ├─ HistoryPruned         retention has removed what the answer needs
    ├─ ResolverError         a resolver raised or returned something that is no document
    ├─ Corrupt               stored rows break an invariant; run `vstore check`
    ├─ SchemaMismatch        the database has another format version than this program
    ├─ ConfigurationError    settings or URLs are missing, unknown or contradict what is stored
    ├─ StaleMap              the partition is not (or no longer) written here
    ├─ Unwitnessed           require_witness was given, and no peer has been asked yet; nothing was written
    ├─ PartialWrite          some shards committed and some did not; carries which
    └─ Unavailable           the database did not answer; may succeed if tried again

A message says what was refused, the values, what still holds, and the next
step. Driver errors become these in one place, `vstore.sql.database`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vstore.document import Document


class StoreError(Exception):
    """The root: catch it to catch everything vstore raises on purpose."""


class NotFound(StoreError, KeyError):
    """Nothing live is stored under this key, or nothing was yet at that moment."""

    __str__ = Exception.__str__  # KeyError would print the repr of the message


class Conflict(StoreError):
    """The document has versions that the caller has to choose between.

    `document` shows them: its `siblings` in winner order, and the `context`
    that a settling `put` hands back.
    """

    def __init__(self, message: str, document: Document | None = None) -> None:
        super().__init__(message)
        self.document = document

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.document)


class PreconditionFailed(Conflict):
    """`match=` was given and the document is at another version. Nothing was written."""


class InvalidKey(StoreError, ValueError):
    """A key is 1 to 1,024 bytes of UTF-8 without NUL. Nothing was written."""


class InvalidDocument(StoreError, ValueError):
    """The value cannot be kept exactly. `path` is the JSON Pointer (RFC 6901) of the offending part."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.path)


class InvalidToken(StoreError, ValueError):
    """A context or `since` token that vstore did not make, or that belongs to another document or feed."""


class ClockTooLong(StoreError):
    """A version was refused: its clock and dots would have more entries than `vstore.clock.MAX_ENTRIES`.

    Nothing was written. Nothing is cut off either, since a shortened clock loses
    updates. A tombstone is never refused: a document that was deleted and purged
    begins with an empty clock again.
    """


class CodecError(StoreError):
    """Stored bytes name a codec that is unknown, not installed, not allowed, or cannot read them."""


class HistoryPruned(StoreError):
    """Retention has removed a version that the answer needs."""


class ResolverError(StoreError):
    """A resolver raised or returned something that cannot be stored. The siblings are still there.

    `reason` says in a few words what it did.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.reason)


class Corrupt(StoreError):
    """Stored rows break an invariant. `vstore check` lists every such place."""


class SchemaMismatch(StoreError):
    """The database was made by another format version than this program reads."""


class ConfigurationError(StoreError):
    """A setting or URL is missing, unknown, or contradicts what is stored."""


class StaleMap(StoreError):
    """The partition is not active in this database: reload the partition map and try again."""


class Unwitnessed(StoreError):
    """The store was opened with `require_witness`, and no peer has been asked about the collection since.

    Nothing was written. The same call succeeds once a sync has met a peer.
    """


class Unavailable(StoreError):
    """The database did not answer or refused for now; the same call may succeed if tried again.

    `outcome_unknown` is true when the connection was lost at COMMIT and the
    store could not find out whether the write is there. The same call with the
    same context is then safe to repeat: a version already stored stays one.
    """

    def __init__(self, message: str, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.outcome_unknown)


class PartialWrite(StoreError):
    """Some shards committed their part of a batch and others did not.

    `written` maps the keys that are durable to their documents, `failed` the
    others to the error of their shard. Repeating the call completes it.
    """

    def __init__(self, message: str, written: Mapping[str, Document], failed: Mapping[str, StoreError]) -> None:
        super().__init__(message)
        self.written = written
        self.failed = failed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.written, self.failed)
