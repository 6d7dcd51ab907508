"""Taking the changes of a collection into a view, a batch in one transaction.

    changes since the token ─► values ─► map ─┐   no lock is held so far
                                              ▼
    lock the view ─ is the token still that? ─ old rows out, new rows in ─ new token

What a document had in the view is noted under its key, so only the changed
documents cost. Values are read after their place in the feed: one that is newer
than its place comes again, and ends up the same. Whoever finds the token moved has
lost to another process that did the same work, and goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mapreduce.views import lease
from mapreduce.views.definition import Definition
from mapreduce.views.emitted import error_of, rows_of, source_of
from mapreduce.views.nodes import Item, Nodes
from mapreduce.views.source import Changed
from mapreduce.views.states import Build, build_of, transacted, view_of
from mapreduce.views.tree import PLAIN, Tree, values_at
from vstore.errors import Unavailable
from vstore.sql.database import Connection

BATCH_DOCUMENTS = 1_000
BATCH_ROWS = 50_000
VALUES = 200
"""A batch ends with so many documents or rows; values are read so many at a time."""

IDLE_COMMITS = 1_000
"""After so many commits that were no change of the view's documents, it notes where it is."""

Outcome = list[Item] | Item
"""The rows of a document, or the entry of its error."""


def take_in(definition: Definition, build: Build, stop: threading.Event | None = None) -> int:
    """Takes in all that had changed when it was called; how many documents that were, by this process.

    Raises:
        InvalidToken: the collection was restored, moved or set back: the view has to be built again.
    """
    total = 0
    changed = definition.source.changes(build.token)
    upto = changed.reached
    while True:
        for token, batch in _batches(definition, changed):
            if stop is not None and stop.is_set():
                return total
            found = _written(definition, build, token, batch)
            if found is None:
                return total  # another build serves by now, and that is newer
            build = found
            if build.token != token:
                break
            total += len(batch)
        else:
            return total
        changed = definition.source.changes(build.token, upto)


def _batches(definition: Definition, changed: Changed) -> Iterator[tuple[str, dict[str, Outcome]]]:
    """What the changed documents contribute now, and the token after each batch."""
    batch: dict[str, Outcome] = {}
    rows = 0
    for page in changed.pages(VALUES):
        for key, outcome in _mapped(definition, list(dict.fromkeys(page))).items():
            batch[key] = outcome
            rows += len(outcome) if isinstance(outcome, list) else 1
        if len(batch) >= BATCH_DOCUMENTS or rows >= BATCH_ROWS:
            yield changed.since, batch
            batch, rows = {}, 0
    if batch or changed.passed >= IDLE_COMMITS:
        yield changed.since, batch


def _mapped(definition: Definition, keys: list[str]) -> dict[str, Outcome]:
    """What documents contribute now: nothing for those that are not there."""
    assert definition.map is not None
    values, failed = definition.source.values(keys)
    found: dict[str, Outcome] = {}
    for key in keys:
        if key in failed:
            found[key] = error_of(key, failed[key])
        elif key in values:
            try:
                found[key] = rows_of(definition.map, key, values[key])
            except Exception as error:  # whatever a user's function raises
                found[key] = error_of(key, error)
        else:
            found[key] = []
    return found


def _written(definition: Definition, build: Build, token: str, batch: Mapping[str, Outcome]) -> Build | None:
    """The build after the batch, or as somebody else has left it; None if it serves no more."""

    def write(connection: Connection) -> Build | None:
        view = view_of(connection, build.view, lock=True)
        current = build_of(connection, build.id)
        if view is None or current is None or view.serving != current.id:
            return None
        if current.token != build.token:
            return current
        store = Nodes(connection, current.id, current.nodes)
        _apply(definition, store, current, batch)
        store.flush(connection)
        current.nodes, current.token, current.updated_us = store.last, token, lease.now_us()
        current.save(connection)
        view.save(connection)
        return current

    try:
        return transacted(definition.database, write)
    except Unavailable as error:
        if not error.outcome_unknown:
            raise
    return build_of(definition.database.read(), build.id)  # written or not: its token says it


def _apply(definition: Definition, store: Nodes, build: Build, batch: Mapping[str, Outcome]) -> None:
    places = {key.encode(): key for key in batch}
    keys = sorted(places)
    sources: dict[bytes, Sequence[bytes]] = values_at(store, build.source_root, keys)
    errors: dict[bytes, Any] = values_at(store, build.error_root, keys)
    gone: list[bytes] = []
    new: list[Item] = []
    gone_sources: list[bytes] = []
    new_sources: list[Item] = []
    new_errors: list[Item] = []
    for place in keys:
        outcome = batch[places[place]]
        rows = outcome if isinstance(outcome, list) else []
        if isinstance(outcome, tuple):
            new_errors.append(outcome)
        before = sources.get(place, ())
        source = source_of(places[place], rows)
        gone += before
        new += rows
        if list(before) != source[3]:
            if before:
                gone_sources.append(place)
            if rows:
                new_sources.append(source)
    gone.sort()
    new.sort(key=lambda item: item[0])
    build.row_root = Tree(store, definition.reduction or PLAIN).changed(build.row_root, gone, new)
    plain = Tree(store)
    build.source_root = plain.changed(build.source_root, gone_sources, new_sources)
    build.error_root = plain.changed(build.error_root, sorted(errors), new_errors)
