"""Rows of a scan as its reader wants them: decoded, in the reader's shape, with what it said about siblings.

Whatever reads many documents, of now, of a snapshot or of the past, makes rows;
what becomes of them is decided here, once. Nearly all rows are of one live
version in plain JSON, and a page of nothing else is one loop over the decoder.

    (id, LIVE, key, codec, body)        the only live version of its key
    (id, HEADS, key, versions, None)    heads with their bodies, from which a document is made
    (id, ALONE, key, version, None)     a version for itself, perhaps a tombstone: always a Document

A page may also come joined to one text in the database; `plain` decodes it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from orjson import loads

from vstore.codecs import Codec
from vstore.document import Document, Version, context_of
from vstore.errors import CodecError, Conflict, HistoryPruned
from vstore.handle import document_of, shown, unprefixed
from vstore.reading import Reading
from vstore.resolvers import DELETE
from vstore.sql import statements as sql
from vstore.sql.database import Database
from vstore.sql.schema import LIVE

HEADS, ALONE = 2, 3

BATCH_ROWS = 128
"""Few enough that documents are gone before the garbage collector looks for them: 2,000 take 1.5 times as long."""

Row = tuple[int, int, str, Any, Any]
Pair = tuple[str, Any]


class Plain(list[Pair]):
    """A page that is decoded already: keys with their prefix, and values as the reading wants them."""


def plain(reading: Reading, count: int, keys: str, bodies: bytes) -> Plain | None:
    """A page of so many documents, from keys joined by newlines and bodies in plain JSON joined by commas.

    None if it has to be read row by row: a key has a newline in it, or a body
    cannot be decoded.
    """
    decode = loads if reading.shape is None else reading.shape.decode_list  # type: ignore[attr-defined]
    names = keys.split("\n")
    if len(names) != count:
        return None
    try:
        values = decode(b"[%b]" % bodies)
    except Exception:  # one by one, and the one that it was will be named
        return None
    return Plain(zip(names, values, strict=True)) if len(values) == count else None


class Decoding:
    """Turns rows into pairs of (key without the prefix, value) and counts the conflicts among them."""

    def __init__(
        self,
        reading: Reading,
        database: Database,
        name: str,
        codec_named: Callable[[str], Codec],
        prefix: str = "",
        moment: str = "",
        settle: Callable[[Document], Any] | None = None,
    ) -> None:
        """Of a collection `name`.

        Args:
            database: where the rows come from; asked only to name a version in an error.
            moment: the past moment that the rows are of, for messages.
            settle: gives the value of a document with several live siblings
                instead of raising Conflict, or DELETE to leave it out.
        """
        self._reading = reading
        self._database = database
        self._name = name
        self._codec_named = codec_named
        self._cut = len(prefix)
        self._moment = moment
        self._settle = settle
        self._of_json = loads if reading.shape is None else reading.shape.decode

    def batches(self, pages: Iterable[Sequence[Row] | Plain]) -> Iterator[list[Pair]]:
        """The pairs of all rows, in their order, in lists of at most `BATCH_ROWS`, or of a page that is decoded.

        Raises:
            Conflict: several live siblings, and the reading says so.
            HistoryPruned: a body has been pruned since the moment that is read.
            CodecError: a body cannot be decoded; names its key and rev.
        """
        cut = self._cut
        for page in pages:
            if isinstance(page, Plain):
                yield [(key[cut:], value) for key, value in page] if cut else page
                continue
            for start in range(0, len(page), BATCH_ROWS):
                yield self._batch(page[start : start + BATCH_ROWS])

    def _batch(self, rows: Sequence[Row]) -> list[Pair]:
        cut, of_json = self._cut, self._of_json
        if not [1 for row in rows if row[3] != "json"]:
            try:
                if cut:
                    return [(row[2][cut:], of_json(row[4])) for row in rows]
                return [(row[2], of_json(row[4])) for row in rows]
            except Exception:  # one by one, and the one that it was will be named
                pass
        return [pair for row in rows for pair in self._pairs(row)]

    def _pairs(self, row: Row) -> tuple[Pair, ...]:
        """The pair of one row; none if the reading leaves the document out."""
        id_, kind, key, writer, body = row
        key = key[self._cut :]
        try:
            if kind == LIVE:
                return ((key, self._value(id_, key, writer, body)),)
            if kind == ALONE:
                return ((key, self._alone(key, writer)),)
            document = self._document(row[2], writer)
        except HistoryPruned:
            raise
        except Exception as error:
            self._undecodable(row, error)
            return ()
        if document.deleted:
            return ()
        if document.conflicted:
            self._reading.conflicts += 1
            if self._reading.on_conflict == "skip":
                return ()
            if self._settle is not None:
                value = self._settle(document)
                return () if value is DELETE else ((key, value),)
            if self._reading.on_conflict != "winner":
                revs = ", ".join(sibling.rev for sibling in document.siblings)
                siblings = f"{len(document.siblings)} live siblings ({revs})"
                raise Conflict(
                    f"{key!r} in {self._name!r} had {siblings} at {self._moment}. Say on_conflict='winner' or 'skip', "
                    f"or use documents()."
                    if self._moment
                    else f"{key!r} in {self._name!r} has {siblings}. Settle it with resolve(), or say "
                    f"on_conflict='winner' or 'skip'.",
                    document,
                )
        return ((key, document if self._reading.versions else document.value),)

    def _value(self, id_: int, key: str, codec: str, body: bytes | None) -> Any:
        if body is None:
            raise HistoryPruned(
                f"the version of {key!r} in {self._name!r} that was there at the moment being read has been pruned "
                f"since. Nothing was changed. Read the present, or raise the retention to keep more from now on."
            )
        shape = self._reading.shape
        if shape is not None and codec == "json":
            return shape.decode(body)
        value = self._codec_named(codec).decode(body)
        return value if shape is None else shape.convert(value)

    def _alone(self, key: str, version: Version) -> Document:
        value = None if version.deleted else self._value(version.id, key, version.codec, version.body)
        return shown(key, version, context_of(key, [version]), value)

    def _document(self, key: str, heads: Sequence[Version]) -> Document:
        if len(heads) == 1 and not heads[0].deleted:
            alone = self._alone(key, heads[0])
            return unprefixed(replace(alone, siblings=(alone,)), self._cut)
        # Whole values first: siblings are compared by their content.
        document = unprefixed(document_of(key, heads, self._name, self._codec_named), self._cut)
        shape = self._reading.shape
        if shape is None or document.deleted:
            return document
        siblings = tuple([replace(sibling, value=shape.convert(sibling.value)) for sibling in document.siblings])
        return replace(document, value=siblings[0].value, siblings=siblings)

    def _undecodable(self, row: Row, error: Exception) -> None:
        """Tells the reader of a body that cannot be decoded, or raises."""
        id_, kind, key, writer, _body = row
        key = key[self._cut :]
        if kind == LIVE:
            with self._database.snapshot() as connection:
                rev = dict(connection.rows(sql.REVS_AT(1), (id_,))).get(id_, "")
        else:
            rev = (writer if kind == ALONE else next(filter(self._fails, writer), writer[0])).rev
        if self._reading.undecodable is None:
            raise CodecError(f"{key!r} in {self._name!r} at {rev} cannot be decoded: {error}") from error
        self._reading.undecodable(key, rev, error)

    def _fails(self, version: Version) -> bool:
        try:
            self._value(version.id, "", version.codec, version.body)
        except Exception:
            return not version.deleted
        return False
