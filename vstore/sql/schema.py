"""The tables of one shard, one comment per column. docs/storage-format.md gives the columns' texts as a grammar.

Versions are append-only and `id` is their commit order inside a partition; heads
are narrow and are what every read of the present goes through. Keys compare as
bytes on every database: `BINARY` on SQLite, `C` on PostgreSQL, `VARBINARY` on
MariaDB, whose text collations fold case and blanks.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import UserDefinedType

FORMAT = 2
"""The format that this program writes. Higher ones are refused, lower ones migrated."""

SEQ_BITS = 40
"""`version.id` is `partition.id << 40 | seq`: one integer key, clustered by partition and then by commit order."""

LIVE, TOMBSTONE, RIVAL = 0, 1, 2
"""`head.state`: the only live head of its key; a tombstone; one of several live heads."""

EVENTS = {
    "grown": "a head learnt more of its past, and is the same head",
    "moved": "a version that was here as a stub came in full; it stands behind all that were here",
    "erase": "an erasure took bodies of the key's history",
    "filter": "the document left the filter of this replica, which has given it up",
    "revived": "an edit of a forgotten delete arrived, and is kept",
    "purge": "the deleted document was forgotten",
    "purged": "a version of a purged document was here; without its key",
}
"""`event.kind`, and what it tells."""

tables = MetaData()


class _Spelled(UserDefinedType[Any]):
    """A type by its name in SQL. The dialect that has it as a class costs 10 ms at every start, and is not needed."""

    cache_ok = True

    def __init__(self, spelling: str) -> None:
        self.spelling = spelling

    def get_col_spec(self, **_options: Any) -> str:
        return self.spelling


def _ascii(length: int) -> Any:
    """Short text of ours, ASCII only, compared by bytes."""
    return (
        String(length, collation="C")
        .with_variant(String(length), "sqlite")
        .with_variant(String(length, collation="ascii_bin"), "mysql", "mariadb")
    )


_key = (
    Text(collation="C").with_variant(Text(), "sqlite").with_variant(_Spelled("VARBINARY(1024)"), "mysql", "mariadb")
)  # VARBINARY, since 1,024 characters of utf8mb4 exceed the 3,072 bytes of an index
_long = (
    Text(collation="C")
    .with_variant(Text(), "sqlite")
    .with_variant(_Spelled("LONGTEXT COLLATE utf8mb4_nopad_bin"), "mysql", "mariadb")
)
_body = LargeBinary().with_variant(_Spelled("LONGBLOB"), "mysql", "mariadb")

meta = Table(
    "vs_meta",
    tables,
    Column("name", _ascii(64), primary_key=True, comment="format, store, shard, map, identity, canonical, last"),
    Column("value", _long, nullable=False, comment="text; JSON for map; last: ids given out"),
)

collection = Table(
    "vs_collection",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="never reused in this database"),
    Column("name", _key, nullable=False, comment="unique among those not dropped"),
    Column("partitions", Integer, nullable=False, comment="Q, a power of two, the same at every replica"),
    Column("options", _long, nullable=False, comment="JSON: codec, retention; replicated"),
    Column("base", Integer, nullable=False, comment="partition.id of part 0; part p has base + p"),
    UniqueConstraint("name", name="vs_collection_name"),
)

partition = Table(
    "vs_partition",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="the counter row: every write locks it first"),
    Column("collection", Integer, nullable=False, comment="collection.id"),
    Column("part", Integer, nullable=False, comment="0 to Q - 1"),
    Column("actor", _ascii(16), nullable=False, comment="this incarnation of this replica"),
    Column("ctr", BigInteger, nullable=False, comment="n of the actor's last dot"),
    Column("seq", BigInteger, nullable=False, comment="commit order: of the last version or event"),
    Column("epoch", Integer, nullable=False, comment="number of the partition map it was placed by"),
    Column("status", _ascii(16), nullable=False, comment="active; any other refuses writes"),
    Column("feed", _ascii(16), nullable=False, comment="names the order that seq counts; new when it could go back"),
    UniqueConstraint("collection", "part", name="vs_partition_part"),
)

version = Table(
    "vs_version",
    tables,
    Column(
        "id",
        BigInteger().with_variant(Integer(), "sqlite"),  # INTEGER PRIMARY KEY is SQLite's own row id
        primary_key=True,
        autoincrement=False,
        comment="partition.id << 40 | seq at its commit",
    ),
    Column("collection", Integer, nullable=False, comment="collection.id"),
    Column("key", _key, nullable=False, comment="1 to 1,024 bytes"),
    Column("rev", _ascii(48), nullable=False, comment="generation-signature"),
    Column("deleted", SmallInteger, nullable=False, comment="1 for a tombstone"),
    Column("stub", SmallInteger, nullable=False, comment="1 when the body was pruned or never came"),
    Column("parents", _long, nullable=False, comment="revs, winner first; empty for a root"),
    Column("dots", _long, nullable=False, comment="the dot it was born with, and aliases"),
    Column("clock", _long, nullable=False, comment="what its writer had seen, and later its closure"),
    Column("stamp", BigInteger, nullable=False, comment="hybrid time of the write, microseconds since 1970 UTC"),
    Column("codec", _ascii(32), nullable=False, comment="how body is encoded; empty without body"),
    Column("kind", _ascii(64), nullable=False, comment="merge:… made by a resolver; erase: tombstone of an erasure"),
    Column("body", _body, comment="the encoded value; NULL for tombstones and stubs"),  # last: it may be long
    UniqueConstraint("collection", "key", "rev", name="vs_version_rev"),
)

head = Table(
    "vs_head",
    tables,
    Column("collection", Integer, primary_key=True, autoincrement=False, comment="collection.id"),
    Column("key", _key, primary_key=True, comment="as in version"),
    Column("id", BigInteger, primary_key=True, autoincrement=False, comment="version.id; the compacted feed's order"),
    Column("state", SmallInteger, nullable=False, comment="0 live alone, 1 tombstone, 2 live among live rivals"),
    *[
        Column(f"lane{n}", BigInteger, nullable=False, comment=f"bits {32 * n} to {32 * n + 31} of the head's element")
        for n in range(4)
    ],
    # With the state, a scan on SQLite and MariaDB reads the index and the versions only: half the time of the query.
    Index("vs_head_id", "id", "state"),
)
_rivals = Index("vs_head_rival", head.c.collection, head.c.state, head.c.key)

event = Table(
    "vs_event",
    tables,
    Column(
        "id",
        BigInteger().with_variant(Integer(), "sqlite"),
        primary_key=True,
        autoincrement=False,
        comment="partition.id << 40 | seq, from the same counter as version.id",
    ),
    Column("collection", Integer, nullable=False, comment="collection.id"),
    Column("key", _key, nullable=False, comment="as in version"),
    Column("kind", _ascii(16), nullable=False, comment="what happened besides a new head: docs/storage-format.md"),
)

knowledge = Table(
    "vs_knowledge",
    tables,
    Column("partition", Integer, primary_key=True, autoincrement=False, comment="partition.id"),
    Column("actor", _ascii(16), primary_key=True, comment="never the partition's own actor: that is 1 to ctr"),
    Column("lo", BigInteger, primary_key=True, autoincrement=False, comment="first n of a run that is known"),
    Column("hi", BigInteger, nullable=False, comment="last n of the run"),
)

actor = Table(
    "vs_actor",
    tables,
    Column("actor", _ascii(16), primary_key=True, comment="an incarnation of a partition of this database"),
    Column("partition", Integer, nullable=False, comment="partition.id"),
    Column("final", BigInteger, nullable=False, comment="its last n; it will mint no more"),
    Column("retired", BigInteger, nullable=False, comment="when, microseconds since 1970 UTC"),
)

forgotten = Table(
    "vs_forgotten",
    tables,
    Column("partition", Integer, primary_key=True, autoincrement=False, comment="partition.id"),
    Column("actor", _ascii(16), primary_key=True, comment="whose events"),
    Column("base", BigInteger, nullable=False, comment="deleted keys with dots up to here may be purged"),
)

replica = Table(
    "vs_replica",
    tables,
    Column("replica", _ascii(64), primary_key=True, comment="another replica of the collection"),
    Column("partition", Integer, primary_key=True, autoincrement=False, comment="partition.id"),
    Column("role", _ascii(16), nullable=False, comment="full, filtered, retired; only full ones hold back a purge"),
    Column("name", _long, nullable=False, comment="what people call it: its URLs without passwords"),
    Column("known", _long, nullable=False, comment="actor:n …, all events up to n that it has acknowledged"),
    Column("seen", BigInteger, nullable=False, comment="when it did, microseconds since 1970 UTC"),
)

lease = Table(
    "vs_lease",
    tables,
    Column("name", _ascii(255), primary_key=True, comment="for what: sync:…, settle:…"),
    Column("holder", _ascii(255), nullable=False, comment="by whom; empty when it was given back"),
    Column("token", BigInteger, nullable=False, comment="rises with each holder; what an older one writes fails"),
    Column("until", BigInteger, nullable=False, comment="when it ends, microseconds since 1970 UTC"),
)

parked = Table(
    "vs_parked",
    tables,
    Column("collection", Integer, primary_key=True, autoincrement=False, comment="collection.id"),
    Column("kind", _ascii(16), primary_key=True, comment="row: cannot be applied; conflict: not settled"),
    Column("key", _key, primary_key=True, comment="as in version"),
    Column("name", _ascii(255), primary_key=True, comment="of the link, or of the resolver"),
    Column("rev", _ascii(48), nullable=False, comment="which version, or a digest of which siblings"),
    Column("reason", _long, nullable=False, comment="for people"),
    Column("since", BigInteger, nullable=False, comment="when it was first so, microseconds since 1970 UTC"),
    Column("tries", Integer, nullable=False, comment="how often it was tried"),
)

checkpoint = Table(
    "vs_checkpoint",
    tables,
    Column("name", _ascii(255), primary_key=True, comment="whose: sync:…, import:…"),
    Column("value", _long, nullable=False, comment="JSON: how far it has got"),
)


def complete() -> MetaData:
    """The tables with what only one kind of database understands; for making them.

    Apart from the definitions, since SQLAlchemy imports every dialect that is named
    there: 25 ms at every start, for what is needed once in the life of a store.
    """
    for table in tables.tables.values():
        for dialect in ("mysql", "mariadb"):
            table.dialect_options[dialect]["engine"] = "InnoDB"
    for table in (head, knowledge, forgotten):
        table.dialect_options["sqlite"]["with_rowid"] = False
    for dialect in ("sqlite", "postgresql"):  # MariaDB has no partial index and pays for a whole one
        _rivals.dialect_options[dialect]["where"] = head.c.state == RIVAL
    return tables
