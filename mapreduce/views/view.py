"""A view: the rows that a map function makes of a collection, kept up to date and in order.

    by_tag = view(posts, "by_tag", map=tags, reduce=Sum())
    by_tag.rows(key="python")
    by_tag.rows(start=["a"], end=["b"], group_level=1)
    by_tag.value()

A reading first takes in what has changed, so it shows what was committed before
it; `update="never"` shows what is there. Definitions are compared by what the
functions do (`vstore.functions`), and a changed one is built anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mapreduce.progress import ProgressFunction
from mapreduce.views import lease, states, tables
from mapreduce.views.build import build, sweep
from mapreduce.views.definition import Definition
from mapreduce.views.emitted import MapFunction, ViewError
from mapreduce.views.nodes import Nodes
from mapreduce.views.reduction import Reduce, Reduction, described, redescribed
from mapreduce.views.rows import UNSET, Answer, Question, Row, question
from mapreduce.views.source import Lag, Source
from mapreduce.views.states import Build, ViewRow, build_of, view_of
from mapreduce.views.tree import Bounds, Leaf, pieces
from mapreduce.views.update import take_in
from vstore.collection import Collection
from vstore.errors import ConfigurationError, InvalidToken, NotFound
from vstore.functions import fingerprint
from vstore.reading import OnConflict
from vstore.sql.database import Connection, Database
from vstore.store import Store

log = logging.getLogger("mapreduce")

Update: TypeAlias = Literal["before", "after", "never"]
UPDATES = ("before", "after", "never")


@dataclass(frozen=True)
class ViewStatus:
    """How a view is.

    `state` is "absent" (never built), "serving", "building" (the first build),
    "rebuilding" (and the build before serves), or "outdated" (what serves is of
    another definition, or of a collection that was set back). `generation` is
    the number of the build that serves, 0 for none. `pending` commits are not
    taken in yet, the oldest of them for `seconds_behind`. Of a build under way,
    so many of its parts are done.
    """

    name: str
    collection: str
    prefix: str
    state: str
    generation: int
    rows: int
    errors: int
    pending: int
    seconds_behind: float
    parts_done: int = 0
    parts: int = 0
    documents_done: int = 0
    documents_estimate: int = 0


class Rows(Iterator[Row]):
    """Rows of a view as they are read. All are of one state, that at the first one, however slowly they are read."""

    def __init__(self, view: View, asked: Question, update: Update) -> None:
        """For `View.rows`."""
        self._view = view
        self._asked = asked
        self._update = update
        self._answer: Iterator[tuple[Row, Any]] | None = None
        self._cursor = asked.cursor

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> Row:
        if self._answer is None:
            self._answer = iter(self._view._answered(self._asked, self._update))
        row, self._cursor = next(self._answer)
        return row

    @property
    def after(self) -> str | None:
        """The cursor of the last row that was read, to go on from with `rows(after=...)`; None before the first."""
        return None if self._cursor is None else self._cursor.text(self._asked.reverse)


class View:
    """A view of a collection; `mapreduce.view` makes one. Any number of threads and processes may use the same view."""

    def __init__(self, definition: Definition, *, workers: int | None, executor: Any) -> None:
        """For `view`."""
        self._definition = definition
        self._workers = workers
        self._executor = executor
        self._own = not any(definition.database is each.database for each in self.store.shards)
        self._prepared = False
        self._updating = threading.Lock()
        self._afterwards: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<View {self.name!r} of {self.collection!r}>"

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Its name."""
        return self._definition.name

    @property
    def collection(self) -> Collection:
        """The collection that it is of."""
        return self._definition.source.collection

    @property
    def store(self) -> Store:
        """The store of the collection."""
        return self.collection.store

    def close(self) -> None:
        """Ends the connections to a database of its own (`database=`). The view stays; rows that were begun end."""
        if self._own:
            self._definition.database.close()

    # --- reading -----------------------------------------------------------------------------------------------------

    def rows(
        self,
        *,
        key: Any = UNSET,
        keys: Sequence[Any] | None = None,
        start: Any = UNSET,
        end: Any = UNSET,
        inclusive_end: bool = True,
        reverse: bool = False,
        limit: int | None = None,
        after: str | None = None,
        group: bool = False,
        group_level: int | None = None,
        reduce: bool | None = None,
        update: Update = "before",
    ) -> Rows:
        """Rows in the order of their keys; with `group`, `group_level` or `reduce`, groups of them with reduced values.

        Args:
            key: only rows with this key; `keys`: with one of these, key by key
                in this order. None is a key, null.
            start: where reading begins, included; `end`: where it ends. With
                `reverse`, start is the upper one, as in CouchDB.
            inclusive_end: whether rows with the key `end` itself come.
            limit: so many rows or groups at most.
            after: the cursor of an earlier reading of the same question, to go
                on after its last row.
            group: one row for each different key.
            group_level: one row for all arrays that begin with the same so many
                elements; other keys by themselves. 0 is one row for all.
            reduce: True without groups is one row, with the key None.
            update: "before" takes in all changes first; "after" shows what is
                there and takes them in meanwhile, in a thread; "never" only
                shows what is there. If nothing is there yet, "after" waits.

        Raises:
            ConfigurationError: the arguments contradict each other, or groups
                are asked of a view without `reduce`. Nothing was read.
            NotFound: update is "never", and the view has never been built.
            InvalidToken: `after` is no cursor of this question.
            ReduceError: the reducer refuses a value of the group.

        Nothing is read before the first row is asked for; then all rows come
        from one state. A range of rows costs its rows; a reduction O(log n),
        unless `reduce` is a plain function, which is handed all its values.
        """
        asked = question(
            key=key,
            keys=keys,
            start=start,
            end=end,
            inclusive_end=inclusive_end,
            reverse=reverse,
            limit=limit,
            after=after,
            group=group,
            group_level=group_level,
            reduce=reduce,
        )
        if update not in UPDATES:
            raise ConfigurationError(f"update={update!r} refused: one of {', '.join(UPDATES)}. Nothing was read.")
        return Rows(self, asked, update)

    def value(
        self,
        *,
        key: Any = UNSET,
        keys: Sequence[Any] | None = None,
        start: Any = UNSET,
        end: Any = UNSET,
        inclusive_end: bool = True,
        update: Update = "before",
    ) -> Any:
        """The reduced value of all rows, or of a range of them; of no rows, what the reducer makes of nothing.

        The arguments and errors of `rows`. A plain `reduce` function gets the
        key None, and is not called for no rows: the value is None.
        """
        asked = question(key=key, keys=keys, start=start, end=end, inclusive_end=inclusive_end, reduce=True)
        for row in Rows(self, asked, update):
            return row.value
        reduction = self._reduction()
        return None if reduction.function is not None else reduction.finish(None, reduction.reducer.zero())

    def errors(self) -> Iterator[ViewError]:
        """The documents that have no rows because the map function failed, or yielded what no view keeps; by key."""
        found = self._state()
        if found is None:
            return
        low = b""
        while True:
            with self._database.snapshot() as connection:
                view = view_of(connection, found[0].id)
                serving = build_of(connection, view.serving) if view is not None else None
                if serving is None:
                    return
                store = Nodes(connection, serving.id)
                leaf = next(pieces(store, serving.error_root, Bounds(low)), None)
            if leaf is None:
                return
            assert isinstance(leaf, Leaf)
            for position, error, trace in zip(leaf.positions, leaf.keys, leaf.values, strict=True):
                yield ViewError(position.decode(), error, trace)
            low = leaf.positions[-1] + b"\x00"

    def status(self) -> ViewStatus:
        """How the view is, without changing it: what serves, how far behind it is, what is being built."""
        definition = self._definition
        found = self._state()
        if found is None:
            return ViewStatus(self.name, self.collection.name, self.collection.prefix, "absent", 0, 0, 0, 0, 0.0)
        return status_of(found[0], self._database, definition)

    # --- keeping -----------------------------------------------------------------------------------------------------

    def update(
        self,
        *,
        progress: bool | ProgressFunction | None = None,
        stop: threading.Event | None = None,
    ) -> int:
        """Takes in all that has changed, or builds the view; how many changed documents were taken in.

        Args:
            progress: of a build; True prints it on stderr if that is a
                terminal, a function gets `Progress` values.
            stop: ends early when set, with what is done so far.

        Raises:
            ConfigurationError: the view was opened without `map`; or it has to
                be built inside a transaction(). Nothing was done.
            JobError: the map function cannot travel to worker processes, or these failed.
            Unavailable: a database failed. Whatever was committed stays; the same call goes on.
        """
        definition = self._writable()
        if definition.source.handle() is None:
            return 0  # no documents yet
        with self._updating:
            unlike = 0
            while not (stop is not None and stop.is_set()):
                serving = self._serving()
                if serving is None or serving.fingerprint != definition.fingerprint or serving.id == unlike:
                    build(
                        definition,
                        unlike=unlike,
                        workers=self._workers,
                        executor=self._executor,
                        progress=progress,
                        stop=stop,
                    )
                    continue
                if serving.staged:
                    sweep(definition)
                try:
                    return take_in(definition, serving, stop)
                except InvalidToken:
                    unlike = serving.id
            return 0

    def rebuild(self, *, progress: bool | ProgressFunction | None = None) -> None:
        """Builds the view anew from its documents, though nothing asks for it. The old rows serve meanwhile."""
        definition = self._writable()
        with self._updating:
            serving = self._serving()
            build(
                definition,
                unlike=serving.id if serving is not None else 0,
                workers=self._workers,
                executor=self._executor,
                progress=progress,
            )

    def drop(self) -> None:
        """Deletes the view with all its rows. The collection is as it was. Raises NotFound if there is no such view."""
        found = self._state()
        if found is None:
            raise NotFound(f"there is no view {self.name!r} of {self.collection.name!r}. Nothing was changed.")
        states.drop_view(self._database, found[0].id)

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _database(self) -> Database:
        return self._definition.database

    def _writable(self) -> Definition:
        if self._definition.map is None:
            raise ConfigurationError(
                f"the view {self.name!r} was opened without map=, so it can be read with update='never' only. Nothing "
                f"was done. Open it with its functions."
            )
        return self._definition

    def _reduction(self) -> Reduction:
        if self._definition.reduction is not None:
            return self._definition.reduction
        if self._definition.map is None:
            serving = self._serving()
            found = redescribed(serving.reducer) if serving is not None else None
            if found is not None:
                return found
            what = serving.reducer if serving is not None else ""
            raise ConfigurationError(
                f"the view {self.name!r} has {'a reducer of its program' if what else 'no reduce'}, so it has no "
                f"reduced values here. Nothing was read. {'Open it with its functions' if what else 'Read its rows'}."
            )
        raise ConfigurationError(
            f"the view {self.name!r} has no reduce=, so it has rows and no reduced values. Nothing was read. Give it "
            f"one, such as reduce=Count()."
        )

    def _exists(self) -> bool:
        if not self._prepared:
            self._prepared = tables.is_prepared(self._database)
        return self._prepared

    def _state(self) -> tuple[ViewRow, Connection] | None:
        id_ = self._definition.id
        if id_ is None or not self._exists():
            return None
        connection = self._database.read()
        view = view_of(connection, id_)
        return None if view is None else (view, connection)

    def _serving(self) -> Build | None:
        found = self._state()
        return None if found is None else build_of(found[1], found[0].serving)

    def _answered(self, asked: Question, update: Update) -> Iterator[tuple[Row, Any]]:
        """The answer to a question, after the update that it asks for."""
        reduction = self._reduction() if asked.group_level is not None else None
        if self._definition.map is None:
            if update != "never":
                self._writable()
        elif update == "before" or (update == "after" and self._serving() is None):
            self.update()
        if self._definition.id is None:
            return iter(())  # no collection, no documents
        answer = self._answer(asked, reduction)
        if answer is None:
            if update == "never":
                raise self._definition.unbuilt()
            return iter(())
        if update == "after":
            self._update_afterwards()
        return iter(answer)

    def _answer(self, asked: Question, reduction: Reduction | None) -> Answer | None:
        id_ = self._definition.id
        if id_ is None or not self._exists():
            return None
        with self._database.snapshot() as connection:
            view = view_of(connection, id_)
            serving = build_of(connection, view.serving) if view is not None else None
            if serving is None:
                return None
            known = self._definition.map is None or serving.reduction == self._definition.reduction_print
            return Answer(connection, serving.id, serving.row_root, asked, reduction, known)

    def _update_afterwards(self) -> None:
        """Updates in a thread, one at a time; what goes wrong there is logged, and met by the next update."""
        if self._afterwards is not None and self._afterwards.is_alive():
            return

        def update() -> None:
            try:
                self.update()
            except Exception as error:
                log.warning("the view %r could not be updated after it was read: %s", self.name, error)

        self._afterwards = threading.Thread(target=update, name=f"vstore-view-{self.name}", daemon=True)
        self._afterwards.start()


def view(
    collection: Collection,
    name: str,
    map: MapFunction | None = None,
    reduce: Reduce | str | None = None,
    *,
    version: str | int | None = None,
    database: str | None = None,
    on_conflict: OnConflict = "winner",
    workers: int | None = None,
    executor: Any = None,
) -> View:
    """A view of a collection, or of the keys with a prefix (`posts.prefixed(...)`).

    Args:
        name: what it is called, among the views of the collection.
        map: `map(key, value)` yields (key, value) pairs, JSON values; the rows.
            It must depend on its arguments alone. Without it, what was built
            before can be read, with update="never".
        reduce: a reducer such as `Sum()`, its name (`"sum"`), or a function
            `reduce(key, values)`.
        version: what tells one definition from the next. Without it, the
            functions' code, and the values they refer to, do.
        database: the URL of a database to keep it in; by default, the first of
            the store's shards.
        on_conflict: of documents with several live siblings take the "winner",
            or none ("skip"), or list them among the errors ("raise").
        workers, executor: for builds, as in `run`.

    Raises:
        ConfigurationError: an argument cannot be used; or it cannot be told
            whether the functions have changed, and `version` is not given.

    Nothing is written or read before it is used. A view whose definition has
    changed is built again, and the old one serves those with update="never"
    until then; two programs with different definitions under one name would do
    so in turn.
    """
    if not name or "\x00" in name:
        raise ConfigurationError(f"a view cannot be called {name!r}. Nothing was done.")
    if map is not None and not callable(map):
        raise ConfigurationError(f"map= is {map!r}; pass a function map(key, value) that yields pairs.")
    if on_conflict not in ("winner", "skip", "raise"):
        raise ConfigurationError(f"on_conflict={on_conflict!r} refused: winner, skip or raise. Nothing was done.")
    reduction = None if reduce is None else Reduction(reduce)
    print_, reduction_print = "", ""
    if map is not None:
        reduction_print = fingerprint("reduce", None if reduction is None else reduction.given)
        if version is not None:
            print_ = fingerprint("version", version, on_conflict)
            reduction_print = fingerprint("version", version)
        else:
            print_ = fingerprint("map", map, on_conflict, reduction_print)
    definition = Definition(
        name,
        Source(collection, on_conflict),
        kept_in(collection.store, database),
        map,
        reduction,
        print_,
        reduction_print,
        described(reduction),
    )
    return View(definition, workers=workers, executor=executor)


def views(store: Store, *, database: str | None = None) -> list[ViewStatus]:
    """The views of a store that are kept in one database, by collection and name; by default in its first shard.

    Also those of collections that have been dropped: state "orphaned". `drop_view` deletes one.
    """
    place = kept_in(store, database)
    if not tables.is_prepared(place):
        return []
    names = {handle.uid: name for name in store.collections() if (handle := store.handle(name)) is not None}
    found = []
    for row in place.ask(tables.VIEWS, (store.id,)):
        each = ViewRow(*row)
        if each.collection not in names:
            found.append(ViewStatus(each.name, each.called, each.prefix, "orphaned", each.serving, 0, 0, 0, 0.0))
            continue
        collection = store[names[each.collection]]
        if each.prefix:
            collection = collection.prefixed(each.prefix)
        found.append(
            status_of(each, place, Definition(each.name, Source(collection, "winner"), place, None, None, "", "", ""))
        )
    return sorted(found, key=lambda status: (status.collection, status.prefix, status.name))


def drop_view(store: Store, collection: str, name: str, *, prefix: str = "", database: str | None = None) -> None:
    """Deletes a view, that of a dropped collection too. Raises NotFound if there is none."""
    place = kept_in(store, database)
    rows = place.ask(tables.VIEWS, (store.id,)) if tables.is_prepared(place) else []
    ids = [each.id for row in rows if (each := ViewRow(*row)) and _is_called(store, each, collection, prefix, name)]
    if not ids:
        raise NotFound(f"there is no view {name!r} of {collection!r} in {place.name}. Nothing was changed.")
    for id_ in ids:
        states.drop_view(place, id_)


def _is_called(store: Store, row: ViewRow, collection: str, prefix: str, name: str) -> bool:
    handle = store.handle(collection)
    of = row.collection == handle.uid if handle is not None else row.called == collection
    return (of or row.called == collection) and row.prefix == prefix and row.name == name


def status_of(row: ViewRow, database: Database, definition: Definition) -> ViewStatus:
    """How a view is; without functions in the definition, it is not asked whether it is outdated."""
    connection = database.read()
    serving, under_way = build_of(connection, row.serving), build_of(connection, row.building)
    state = "serving" if serving is not None else "absent"
    lag = Lag()
    if serving is not None:
        try:
            lag = definition.source.changes(serving.token).lag()
        except (InvalidToken, NotFound):
            state = "outdated"
        if definition.fingerprint and serving.fingerprint != definition.fingerprint:
            state = "outdated"
    done = documents = 0
    if under_way is not None:
        if lease.is_held(under_way.owner, under_way.lease_us):
            state = "rebuilding" if serving is not None else "building"
        done, documents = connection.rows(tables.PART_COUNT, (under_way.id,))[0]
    collection = definition.source.collection
    return ViewStatus(
        row.name,
        collection.name,
        row.prefix,
        state,
        row.serving,
        serving.row_root.count if serving is not None else 0,
        serving.error_root.count if serving is not None else 0,
        lag.pending,
        lag.seconds,
        int(done),
        max(under_way.slices, 1) if under_way is not None else 0,
        int(documents or 0),
        under_way.estimate if under_way is not None else 0,
    )


def kept_in(store: Store, url: str | None) -> Database:
    """The database that views are kept in: a shard of the store, or one of its own."""
    if url is None:
        return store.shards[0].database
    made = Database(url, durability=store.shards[0].database.durability)
    for shard in store.shards:
        if shard.database.url == made.url:
            made.close()
            return shard.database
    return made
