"""Building a view anew, while the one before still serves.

    claim      a build row with a lease, and a token: the snapshot it will be of
    map        each slice in one transaction: its sorted runs, and a mark that it is done
    merge      all runs in order, once through, into trees
    switch     one transaction: the new build serves, the old one is old
    sweep      runs and old builds are deleted, some nodes at a time

A build that was killed is taken up again at the same snapshot by whoever asks for
the view next: slices that are marked are not mapped again, and nodes of a merge
that did not end are deleted first. Every transaction checks that the build is
still its owner's.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from mapreduce.executors import Executor, chosen
from mapreduce.progress import ProgressFunction, Teller
from mapreduce.views import lease, tables
from mapreduce.views.definition import Definition
from mapreduce.views.mapping import ERRORS, ROWS, SOURCES, TREES, Mapping, Part, chunked, merged
from mapreduce.views.nodes import WRITE_BYTES, Item, Nodes, Root, opened
from mapreduce.views.states import (
    BUILDING,
    OLD,
    SERVING,
    Build,
    ViewRow,
    build_of,
    drop_build,
    drop_nodes,
    drop_view,
    next_build,
    transacted,
    view_of,
)
from mapreduce.views.tree import PLAIN, Tree
from vstore.errors import ConfigurationError, Corrupt, HistoryPruned, InvalidToken, StoreError
from vstore.sql.database import Connection

MERGED_RUNS = 256
"""How many runs are merged at once; each has some thousand entries in memory."""

WAIT_SECONDS = 0.1


class Stopped(StoreError):
    """The build was told to stop. What is done stays for whoever goes on."""


class Fenced(StoreError):
    """The build is somebody else's by now. What this one wrote is theirs to use."""


def build(
    definition: Definition,
    *,
    unlike: int = 0,
    workers: int | None = None,
    executor: Any = None,
    progress: bool | ProgressFunction | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Returns when a build of this definition serves, made here or by another process.

    Args:
        unlike: a build that does not count, though it be of this definition.
        stop: when set, this ends soon; what is done stays.

    Raises:
        ConfigurationError: a transaction() is open here. Nothing was done.
        JobError: the map function cannot travel, or worker processes failed.
            What is done stays, and the next build goes on from there.
    """
    if definition.database.in_transaction:
        raise ConfigurationError(
            f"the view {definition.name!r} has to be built, and that cannot be done inside a transaction(). Nothing "
            f"was done. Read it once before, or give update='never'."
        )
    tables.prepare(definition.database)
    with lease.owner() as owner:
        while not (stop is not None and stop.is_set()):
            claimed = _claim(definition, owner, unlike)
            if claimed is None:
                return
            if claimed.owner != owner:
                time.sleep(WAIT_SECONDS)
                continue
            try:
                with lease.renewed(definition.database, claimed.id, owner):
                    _Builder(definition, claimed, workers, executor, progress, stop).run()
            except (InvalidToken, HistoryPruned):
                _give_up(definition, claimed)  # the snapshot cannot be read any more: another one
            except Fenced:
                continue
            except Stopped:
                _release(definition, claimed)
                return
            except Corrupt:
                if _is_ours(definition, claimed):
                    _release(definition, claimed)
                    raise
                continue  # whoever took over has swept what was read here
            except BaseException:
                _release(definition, claimed)
                raise
            sweep(definition)
            _forget_orphans(definition)


def _claim(definition: Definition, owner: str, unlike: int) -> Build | None:
    """The build to wait for or, if it has this owner, to do. None if one of this definition serves."""
    token, estimate, slices = definition.source.now()

    def claim(connection: Connection) -> Build | None:
        view = _locked(connection, definition)
        serving = build_of(connection, view.serving)
        if serving is not None and serving.fingerprint == definition.fingerprint and serving.id != unlike:
            return None
        under_way = build_of(connection, view.building)
        if under_way is not None:
            if lease.is_held(under_way.owner, under_way.lease_us):
                return under_way
            if under_way.fingerprint == definition.fingerprint:
                under_way.owner, under_way.lease_us = owner, lease.until_us()
                under_way.save(connection)
                return under_way
            under_way.state = OLD
            under_way.save(connection)
        fresh = Build(
            next_build(connection),
            view.id,
            BUILDING,
            definition.fingerprint,
            definition.reduction_print,
            definition.reducer,
            token,
            slices=slices,
            estimate=estimate,
            owner=owner,
            lease_us=lease.until_us(),
            began_us=lease.now_us(),
        )
        fresh.add(connection)
        view.building = fresh.id
        view.save(connection)
        return fresh

    return transacted(definition.database, claim)


def _locked(connection: Connection, definition: Definition) -> ViewRow:
    """The view's row, made if it is missing."""
    id_ = definition.needed_id
    view = view_of(connection, id_, lock=True)
    if view is not None:
        return view
    connection.rows(tables.LOCK_META, ("last",))  # one maker at a time
    view = view_of(connection, id_, lock=True)
    if view is None:
        collection = definition.source.collection
        uid = definition.source.needed().uid
        view = ViewRow(id_, collection.store.id, uid, collection.name, collection.prefix, definition.name)
        view.add(connection)
    return view


def _release(definition: Definition, build: Build) -> None:
    """Lets others go on at once with a build that failed here."""
    try:
        definition.database.read().run(tables.LEASE, (0, build.id, build.owner))
    except StoreError:
        return  # the lease ends by itself


def _is_ours(definition: Definition, build: Build) -> bool:
    current = build_of(definition.database.read(), build.id)
    return current is not None and (current.state, current.owner) == (BUILDING, build.owner)


def _give_up(definition: Definition, build: Build) -> None:
    def give_up(connection: Connection) -> None:
        view = view_of(connection, build.view, lock=True)
        current = build_of(connection, build.id)
        if view is not None and current is not None and current.owner == build.owner:
            current.state = OLD
            current.save(connection)
            view.building = 0
            view.save(connection)

    transacted(definition.database, give_up)


def sweep(definition: Definition) -> None:
    """Deletes what no view reads any more: old builds, and the runs that builds were made of."""
    database = definition.database
    for (id_,) in database.ask(tables.OLD_BUILDS):
        drop_build(database, id_)
    view = view_of(database.read(), definition.needed_id)
    serving = build_of(database.read(), view.serving) if view is not None else None
    if serving is None or not serving.staged:
        return
    base = serving.id << tables.NODE_BITS
    drop_nodes(database, base, base + serving.staged)

    def swept(connection: Connection) -> None:
        view_of(connection, serving.view, lock=True)
        current = build_of(connection, serving.id)
        if current is not None:
            connection.run(tables.DROP_PARTS, (current.id,))
            current.staged = 0
            current.save(connection)

    transacted(database, swept)


def _forget_orphans(definition: Definition) -> None:
    """Deletes views of this name whose collection was dropped before this one was created under its name."""
    collection = definition.source.collection
    uids = {handle.uid for name in collection.store.collections() if (handle := collection.store.handle(name))}
    for row in definition.database.ask(tables.VIEWS, (collection.store.id,)):
        view = ViewRow(*row)
        same = (view.called, view.prefix, view.name) == (collection.name, collection.prefix, definition.name)
        if same and view.collection not in uids:
            drop_view(definition.database, view.id)


class _Builder:
    """One build, from its claim to its switch."""

    def __init__(
        self,
        definition: Definition,
        build: Build,
        workers: int | None,
        executor: Any,
        progress: bool | ProgressFunction | None,
        stop: threading.Event | None,
    ) -> None:
        assert definition.map is not None
        self._definition = definition
        self._database = definition.database
        self._build = build
        self._executor: Executor = chosen(workers, build.estimate, executor)
        self._progress = progress
        self._stop = stop
        self._mapping = Mapping(definition.map, definition.source.on_conflict)

    def run(self) -> None:
        """All of it, or what is left."""
        self._clear()
        self._map()
        runs = self._runs()
        while len(runs) > MERGED_RUNS:
            runs = self._fewer(runs)
        self._trees(runs)

    def _fence(self, connection: Connection) -> ViewRow:
        """Locks the view, and makes sure that the build is this one's and shall go on."""
        if self._stop is not None and self._stop.is_set():
            raise Stopped(f"the build of {self._definition.name!r} was stopped.")
        view = view_of(connection, self._build.view, lock=True)
        current = build_of(connection, self._build.id)
        if view is None or current is None or view.building != current.id or current.owner != self._build.owner:
            raise Fenced(f"the build of {self._definition.name!r} was taken over by another process.")
        self._build.lease_us = lease.until_us()
        return view

    def _clear(self) -> None:
        """Deletes what a builder before had written and not marked."""
        base = self._build.id << tables.NODE_BITS
        drop_nodes(self._database, base + self._build.nodes + 1, base + (1 << tables.NODE_BITS) - 1)

    # --- map ---------------------------------------------------------------------------------------------------------

    def _map(self) -> None:
        slices = self._definition.source.slices(self._build.token, self._build.slices)
        done = {row[0]: row[1] for row in self._database.ask(tables.PARTS, (self._build.id,))}
        if -1 in done:
            return  # merged once already
        teller = Teller(self._progress, self._build.estimate, len(slices))
        for documents in done.values():
            teller.split(documents)
        tasks = [(number, part) for number, part in enumerate(slices) if number not in done]
        ended = False
        try:
            with closing(self._executor.run(self._mapping, tasks)) as outcomes:
                for outcome in outcomes:
                    self._note(outcome.result)
                    teller.split(outcome.result.documents)
            ended = True
        finally:
            teller.end(ended)

    def _note(self, part: Part) -> None:
        """Writes a part, and that it is done."""

        def write(connection: Connection) -> None:
            self._fence(connection)
            store = Nodes(connection, self._build.id, self._build.nodes)
            runs = []
            for tree, blobs in part.runs:
                first = store.last + 1
                for data in blobs:
                    store.add(data)
                runs.append((tree, first, store.last))
            store.flush(connection)
            connection.run(tables.ADD_PART, (self._build.id, part.number, part.documents, json.dumps(runs)))
            self._save(connection, store.last)

        transacted(self._database, write)

    def _save(self, connection: Connection, nodes: int) -> None:
        self._build.nodes = nodes
        self._build.save(connection)

    # --- merge -------------------------------------------------------------------------------------------------------

    def _runs(self) -> list[tuple[int, int, int]]:
        rows = self._database.ask(tables.PARTS, (self._build.id,))
        return [tuple(run) for row in rows for run in json.loads(row[2])]

    def _run(self, first: int, last: int, values: bool) -> Iterator[list[Item]]:
        """The entries of a run; the connection is asked for each time, since a transaction may be open in between."""
        for number in range(first, last + 1):
            store = Nodes(self._database.read(), self._build.id)
            _level, columns = opened(store.load([number])[0], values=values)
            yield list(zip(*columns, strict=True))

    def _merged(self, runs: list[tuple[int, int, int]], tree: int) -> Iterator[list[Item]]:
        return merged([self._run(first, last, tree == ROWS) for of, first, last in runs if of == tree])

    def _fewer(self, runs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """Merges runs into longer ones, which take the place of all parts."""
        store = Nodes(self._database.read(), self._build.id, self._build.nodes, patient=True)
        found = []
        for tree in TREES:
            own = [run for run in runs if run[0] == tree]
            for start in range(0, len(own), MERGED_RUNS):
                first = store.last + 1
                for items in merged([self._run(a, b, False) for _, a, b in own[start : start + MERGED_RUNS]]):
                    for data in chunked(items):
                        store.add(data)
                    self._flush(store)
                found.append((tree, first, store.last))

        def exchange(connection: Connection) -> None:
            self._fence(connection)
            store.flush(connection)
            documents = sum(row[1] for row in connection.rows(tables.PARTS, (self._build.id,)))
            connection.run(tables.DROP_PARTS, (self._build.id,))
            connection.run(tables.ADD_PART, (self._build.id, -1, documents, json.dumps(found)))
            self._save(connection, store.last)

        transacted(self._database, exchange)
        return found

    def _trees(self, runs: list[tuple[int, int, int]]) -> None:
        """The trees of all runs, and then the switch."""
        staged = self._build.nodes
        store = Nodes(self._database.read(), self._build.id, staged, patient=True)
        roots = {tree: Root() for tree in TREES}
        for tree in TREES:
            made = Tree(store, (self._definition.reduction or PLAIN) if tree == ROWS else PLAIN)
            for root in made.built(self._merged(runs, tree)):
                roots[tree] = root
                self._flush(store)

        def switch(connection: Connection) -> None:
            view = self._fence(connection)
            store.flush(connection)
            before = build_of(connection, view.serving)
            if before is not None:
                before.state = OLD
                before.save(connection)
            replace(
                self._build,
                row_root=roots[ROWS],
                source_root=roots[SOURCES],
                error_root=roots[ERRORS],
                state=SERVING,
                nodes=store.last,
                staged=staged,
                updated_us=self._build.began_us,
                owner="",
                lease_us=0,
            ).save(connection)
            view.serving, view.building = self._build.id, 0
            view.save(connection)

        transacted(self._database, switch)

    def _flush(self, store: Nodes) -> None:
        """Writes nodes that wait, in a transaction of the build's owner, if they are many."""
        if store.waiting_bytes < WRITE_BYTES:
            return

        def write(connection: Connection) -> None:
            self._fence(connection)
            store.flush(connection)

        transacted(self._database, write)
        store.settle()
