"""What a database says of a view: its row, its builds, and transactions on them.

Every change of a view is one transaction that first locks its row, so a view's
commits have an order; `changed` counts them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from mapreduce.views import tables
from mapreduce.views.nodes import Root
from vstore.errors import Unavailable
from vstore.sql.database import Connection, Database

T = TypeVar("T")

ATTEMPTS = 8

BUILDING, SERVING, OLD = "building", "serving", "old"


@dataclass
class ViewRow:
    """A row of vs_view."""

    id: str
    store: str
    collection: str
    called: str
    prefix: str
    name: str
    serving: int = 0
    building: int = 0
    changed: int = 0

    def add(self, connection: Connection) -> None:
        """Writes it for the first time."""
        connection.run(tables.ADD_VIEW, tuple(getattr(self, each.name) for each in fields(self)))

    def save(self, connection: Connection) -> None:
        """Writes what may change, in the transaction that has locked it."""
        self.changed += 1
        connection.run(tables.SET_VIEW, (self.serving, self.building, self.changed, self.id))


@dataclass
class Build:
    """A row of vs_view_build."""

    id: int
    view: str
    state: str
    fingerprint: str
    reduction: str
    reducer: str
    token: str
    row_root: Root = field(default_factory=Root)
    source_root: Root = field(default_factory=Root)
    error_root: Root = field(default_factory=Root)
    nodes: int = 0
    staged: int = 0
    slices: int = 0
    estimate: int = 0
    owner: str = ""
    lease_us: int = 0
    began_us: int = 0
    updated_us: int = 0

    @classmethod
    def parse(cls, row: Any) -> Build:
        """From the columns."""
        made = cls(*row)
        made.row_root, made.source_root, made.error_root = (
            Root.parse(str(text)) for text in (made.row_root, made.source_root, made.error_root)
        )
        return made

    def columns(self) -> tuple[Any, ...]:
        """As it is written."""
        return tuple(
            str(value) if isinstance(value, Root) else value
            for value in [getattr(self, each.name) for each in fields(self)]
        )

    def add(self, connection: Connection) -> None:
        """Writes it for the first time."""
        connection.run(tables.ADD_BUILD, self.columns())

    def save(self, connection: Connection) -> None:
        """Writes it again, in the transaction that has locked its view."""
        connection.run(tables.SET_BUILD, (*self.columns()[2:], self.id))


def view_of(connection: Connection, id_: str, *, lock: bool = False) -> ViewRow | None:
    """The row of a view, locked until the transaction ends if told so; None if there is none."""
    rows = connection.rows(tables.LOCK_VIEW if lock else tables.VIEW, (id_,))
    return ViewRow(*rows[0]) if rows else None


def build_of(connection: Connection, id_: int) -> Build | None:
    """A build; None if there is none."""
    rows = connection.rows(tables.BUILD, (id_,)) if id_ else []
    return Build.parse(rows[0]) if rows else None


def transacted(database: Database, work: Callable[[Connection], T]) -> T:
    """What `work` returns, in one write transaction; repeated if it lost locks to others.

    Raises:
        Unavailable: the database failed. With `outcome_unknown`, look what became of it.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with database.transaction() as connection:
                return work(connection)
        except Unavailable as error:
            if error.outcome_unknown or database.in_transaction or attempt == ATTEMPTS or not database.is_busy(error):
                raise
        time.sleep(random.uniform(0, 0.002 * 2**attempt))  # jitter, not a secret
    raise AssertionError("unreachable")


def drop_build(database: Database, build: int, part: Callable[[], None] = lambda: None) -> None:
    """Deletes a build that is read by nobody, some nodes at a time; `part` is called after each. May be repeated."""
    low, high = build << tables.NODE_BITS, (build + 1 << tables.NODE_BITS) - 1
    drop_nodes(database, low, high, part)

    def rest(connection: Connection) -> None:
        connection.run(tables.DROP_PARTS, (build,))
        connection.run(tables.DROP_BUILD, (build,))

    transacted(database, rest)


def drop_view(database: Database, id_: str) -> None:
    """Deletes a view: at once for its readers, and then its nodes."""

    def drop(connection: Connection) -> list[int]:
        view_of(connection, id_, lock=True)
        builds = [Build.parse(row) for row in connection.rows(tables.BUILDS, (id_,))]
        for each in builds:
            each.state = OLD
            each.save(connection)
        connection.run(tables.DROP_VIEW, (id_,))
        return [each.id for each in builds]

    for build_id in transacted(database, drop):
        drop_build(database, build_id)


def drop_nodes(database: Database, low: int, high: int, part: Callable[[], None] = lambda: None) -> None:
    """Deletes the nodes of a range, some at a time."""
    while ids := [row[0] for row in database.ask(tables.NODE_IDS, (low, high, 2_000))]:
        bounds = low, ids[-1]
        transacted(database, lambda connection, bounds=bounds: connection.run(tables.DROP_NODES_BETWEEN, bounds))  # type: ignore[misc]
        part()


def next_build(connection: Connection) -> int:
    """A number for a new build."""
    last = int(connection.rows(tables.LOCK_META, ("last",))[0][0]) + 1
    connection.run(tables.SET_META, (str(last), "last"))
    return last
