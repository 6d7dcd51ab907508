"""The tables of views, their statements, and the one module of this package that knows SQL.

They are made where a view lives when the first one comes: in a shard of the store,
or in any other database. Everything a view holds is in nodes: blobs of some
hundred entries under a number, which are never changed. So one SQL row stands for
a hundred rows of a view (a million rows are ten thousand inserts instead of two
million), no index limits the length of a key, and an update reads and writes by
number, in a few statements however many keys it touches.

    vs_view        1 ─── n  vs_view_build    one serves, one may be under way, others wait to be deleted
    vs_view_build  1 ─── n  vs_view_node     number = build << 40 | n
    vs_view_build  1 ─── n  vs_view_part     of a build under way: the parts that are done

Keeps out: what is in a node (`mapreduce.views.nodes`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from vstore.errors import ConfigurationError, SchemaMismatch, StoreError, Unavailable
from vstore.sql import schema
from vstore.sql.database import Connection, Database
from vstore.sql.statements import Statement

FORMAT = 1
"""The format of these tables and of the nodes. Views of another one are refused: they can be built again elsewhere."""

NODE_BITS = 40

tables = MetaData()

_word = schema.meta.c.name.type  # short text of ours, compared by bytes
_long = schema.meta.c.value.type
_number = BigInteger().with_variant(Integer(), "sqlite")  # INTEGER PRIMARY KEY is SQLite's own row id

meta = Table(
    "vs_view_meta",
    tables,
    Column("name", _word, primary_key=True, comment="format; last: number of the last build"),
    Column("value", _long, nullable=False, comment="text"),
)

view = Table(
    "vs_view",
    tables,
    Column("id", _word, primary_key=True, comment="hash of store, collection, prefix and name"),
    Column("store", _word, nullable=False, comment="id of the store that it reads"),
    Column("collection", _word, nullable=False, comment="uid of the collection that it reads"),
    Column("called", _long, nullable=False, comment="name of the collection when the view was made"),
    Column("prefix", _long, nullable=False, comment="what the keys of its documents begin with"),
    Column("name", _long, nullable=False, comment="its name"),
    Column("serving", BigInteger, nullable=False, comment="build.id whose rows are read; 0 for none"),
    Column("building", BigInteger, nullable=False, comment="build.id of the build under way; 0 for none"),
    Column("changed", BigInteger, nullable=False, comment="counts the commits of this view: tells one state from next"),
)

build = Table(
    "vs_view_build",
    tables,
    Column("id", _number, primary_key=True, autoincrement=False, comment="never reused in this database"),
    Column("view", _word, nullable=False, comment="view.id"),
    Column("state", _word, nullable=False, comment="building, serving or old"),
    Column("fingerprint", _word, nullable=False, comment="of map, reduce and version"),
    Column("reduction", _word, nullable=False, comment="of reduce alone: whose partial reductions the nodes hold"),
    Column("reducer", _long, nullable=False, comment="JSON of a built-in reducer, function or other if it is none"),
    Column("token", _long, nullable=False, comment="the rows are those of the collection at this place of its feed"),
    Column("row_root", _word, nullable=False, comment="root of the rows: node.id and count"),
    Column("source_root", _word, nullable=False, comment="root of the documents' positions: node.id and count"),
    Column("error_root", _word, nullable=False, comment="root of the documents' errors: node.id and count"),
    Column("nodes", BigInteger, nullable=False, comment="n of the last node given out"),
    Column(
        "staged", BigInteger, nullable=False, comment="nodes up to this n are sorted runs; to be deleted afterwards"
    ),
    Column("slices", BigInteger, nullable=False, comment="how many parts the snapshot was cut into"),
    Column("estimate", BigInteger, nullable=False, comment="about how many documents there were"),
    Column("owner", _word, nullable=False, comment="who builds: machine, process and a random word"),
    Column("lease_us", BigInteger, nullable=False, comment="until when, microseconds since 1970 UTC"),
    Column("began_us", BigInteger, nullable=False, comment="when the build began"),
    Column("updated_us", BigInteger, nullable=False, comment="when the rows last took in changes"),
    Index("vs_view_build_view", "view"),
)

part = Table(
    "vs_view_part",
    tables,
    Column("build", BigInteger, primary_key=True, autoincrement=False, comment="build.id"),
    Column(
        "part", BigInteger, primary_key=True, autoincrement=False, comment="number of the slice; done if it is here"
    ),
    Column("documents", BigInteger, nullable=False, comment="documents mapped"),
    Column("runs", _long, nullable=False, comment="JSON: sorted runs as [tree, first node, last node]"),
)

node = Table(
    "vs_view_node",
    tables,
    Column("id", _number, primary_key=True, autoincrement=False, comment="build.id << 40 | n"),
    Column("data", schema.version.c.body.type, nullable=False, comment="entries; docs/storage-format.md, Views"),
)

_p = bindparam

META = Statement("meta of views", select(meta.c.name, meta.c.value))
LOCK_META = Statement("lock views", select(meta.c.value).where(meta.c.name == _p("n")).with_for_update(), "n")
ADD_META = Statement("add meta of views", insert(meta), "name", "value")
SET_META = Statement("set meta of views", update(meta).where(meta.c.name == _p("n")).values(value=_p("v")), "v", "n")

VIEW = Statement("a view", select(*view.c).where(view.c.id == _p("i")), "i")
LOCK_VIEW = Statement("lock a view", select(*view.c).where(view.c.id == _p("i")).with_for_update(), "i")
VIEWS = Statement("views of a store", select(*view.c).where(view.c.store == _p("s")).order_by(view.c.id), "s")
ADD_VIEW = Statement("add a view", insert(view), *view.c.keys())
SET_VIEW = Statement(
    "set a view",
    update(view).where(view.c.id == _p("i")).values(serving=_p("s"), building=_p("b"), changed=_p("c")),
    "s",
    "b",
    "c",
    "i",
)
DROP_VIEW = Statement("drop a view", delete(view).where(view.c.id == _p("i")), "i")

BUILD = Statement("a build", select(*build.c).where(build.c.id == _p("i")), "i")
BUILDS = Statement("builds of a view", select(*build.c).where(build.c.view == _p("v")).order_by(build.c.id), "v")
OLD_BUILDS = Statement("old builds", select(build.c.id).where(build.c.state == "old").order_by(build.c.id))
ADD_BUILD = Statement("add a build", insert(build), *build.c.keys())
SET_BUILD = Statement(
    "set a build",
    update(build).where(build.c.id == _p("i")).values({name: _p(f"v_{name}") for name in build.c.keys()[2:]}),
    *(f"v_{name}" for name in build.c.keys()[2:]),
    "i",
)
LEASE = Statement(
    "renew a lease",
    update(build)
    .where(build.c.id == _p("i"), build.c.owner == _p("o"), build.c.state == "building")
    .values(lease_us=_p("u")),
    "u",
    "i",
    "o",
)
DROP_BUILD = Statement("drop a build", delete(build).where(build.c.id == _p("i")), "i")

PARTS = Statement(
    "parts of a build",
    select(part.c.part, part.c.documents, part.c.runs).where(part.c.build == _p("b")).order_by(part.c.part),
    "b",
)
PART_COUNT = Statement(
    "parts done", select(func.count(), func.sum(part.c.documents)).where(part.c.build == _p("b")), "b"
)
ADD_PART = Statement("add a part", insert(part), *part.c.keys())
DROP_PARTS = Statement("drop parts", delete(part).where(part.c.build == _p("b")), "b")


def _sized(make: Callable[[int, list[Any]], Statement]) -> Callable[[int], Statement]:
    @cache
    def statement(size: int) -> Statement:
        return make(size, [_p(f"i{n}") for n in range(size)])

    return statement


NODES = _sized(
    lambda size, items: Statement(
        "nodes", select(node.c.id, node.c.data).where(node.c.id.in_(items)), *(f"i{n}" for n in range(size))
    )
)
DROP_NODES = _sized(
    lambda size, items: Statement(
        "drop nodes", delete(node).where(node.c.id.in_(items)), *(f"i{n}" for n in range(size))
    )
)
ADD_NODE = Statement("add a node", insert(node), "id", "data")
NODE_IDS = Statement(
    "numbers of nodes",
    select(node.c.id).where(node.c.id >= _p("a"), node.c.id <= _p("b")).order_by(node.c.id).limit(_p("n")),
    "a",
    "b",
    "n",
)
DROP_NODES_BETWEEN = Statement(
    "drop a range of nodes", delete(node).where(node.c.id >= _p("a"), node.c.id <= _p("b")), "a", "b"
)

_EXISTS = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'vs_view_meta'",
    "postgresql": "SELECT 1 FROM pg_class WHERE relname = 'vs_view_meta' AND pg_table_is_visible(oid)",
    "mariadb": "SELECT 1 FROM information_schema.tables WHERE table_name='vs_view_meta' AND table_schema=DATABASE()",
}
_LOCK = "SELECT GET_LOCK(CONCAT('vstore.', MD5(DATABASE())), 60)"
_UNLOCK = "SELECT RELEASE_LOCK(CONCAT('vstore.', MD5(DATABASE())))"
_ALONE = {
    "sqlite": ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"),
    "postgresql": ("BEGIN", "COMMIT", "ROLLBACK"),
    "mariadb": (_LOCK, _UNLOCK, _UNLOCK),  # DDL ends transactions there
}


def is_prepared(database: Database) -> bool:
    """Whether the tables are there.

    Raises:
        SchemaMismatch: they are of another format.
    """
    connection = database.read()
    if not connection.text(_EXISTS[database.dialect.name]):
        return False
    found = dict(connection.rows(META)).get("format")
    if found is not None and int(found) != FORMAT:
        raise SchemaMismatch(
            f"the views in {database.name} have format {found}, this program reads {FORMAT}. Nothing was changed. Keep "
            f"the views in another database (database=), or upgrade the program that is older."
        )
    return found is not None


def prepare(database: Database) -> None:
    """Makes the tables where they are missing.

    Raises:
        ConfigurationError: a transaction() is open, and this database would commit it. Nothing was changed.
        Unavailable: another process has been at it for a minute. Nothing was changed.
    """
    if is_prepared(database):
        return
    kind = database.dialect.name
    connection = database.read()
    if database.in_transaction:
        if kind == "mariadb":
            raise ConfigurationError(
                f"the first view in {database.name} needs tables, and MariaDB would commit the open transaction() to "
                f"make them. Nothing was done. Read the view once before the transaction."
            )
        _create(database, connection)
        return
    begin, end, give_up = _ALONE[kind]
    if [tuple(row) for row in connection.text(begin)] == [(0,)]:
        raise Unavailable(f"another process is at the tables of {database.name}. Nothing was changed. Try again.")
    try:
        _create(database, connection)
    except BaseException:
        with contextlib.suppress(StoreError):
            connection.text(give_up)
        raise
    connection.text(end)


def _create(database: Database, connection: Connection) -> None:
    kind = database.dialect.name
    if kind == "postgresql":
        connection.text("SELECT pg_advisory_xact_lock(7670735)")  # two CREATE TABLE IF NOT EXISTS at once fail there
    if is_prepared(database):  # by another process, while we waited
        return
    for table in tables.sorted_tables:
        for dialect in ("mysql", "mariadb"):
            table.dialect_options[dialect]["engine"] = "InnoDB"
        connection.text(str(CreateTable(table, if_not_exists=True).compile(dialect=database.engine.dialect)))
        for index in table.indexes:
            connection.text(str(CreateIndex(index, if_not_exists=True).compile(dialect=database.engine.dialect)))
    if kind == "postgresql":
        connection.text("ALTER TABLE vs_view_node ALTER COLUMN data SET STORAGE EXTERNAL")  # not worth compressing
    connection.run_many(ADD_META, [("last", "0"), ("format", str(FORMAT))])
