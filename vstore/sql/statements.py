"""Every statement that vstore sends, built once and named for what it does.

A statement is SQLAlchemy Core; `vstore.sql.database` compiles it once for each
database and then speaks to the driver, since building or even looking up a
`select()` for each document costs 15 times the query. Parameters are given by
position, in the order that `Statement.params` names.

Lists of keys come in a few fixed sizes (`SIZES`), padded with the last key, so
that each size is compiled and planned once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    ClauseElement,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    collate,
    delete,
    exists,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from vstore.sql.rows import LINEAGE
from vstore.sql.schema import (
    LIVE,
    RIVAL,
    TOMBSTONE,
    actor,
    checkpoint,
    collection,
    event,
    forgotten,
    head,
    knowledge,
    lease,
    meta,
    parked,
    partition,
    replica,
    version,
)

T = TypeVar("T")

SIZES = (1, 10, 50, 100, 500)


class Statement:
    """A statement and the order of its parameters.

    `listed`, if there is one, says the same for PostgreSQL, with all parameters
    after the first `scalars` as one array called `keys`. `texts` are those it has
    been compiled to so far, by the kind of database, for all that a process opens:
    half a millisecond each, thirty of them for a store and its first document.
    """

    __slots__ = ("clause", "listed", "name", "params", "scalars", "texts")

    def __init__(
        self, name: str, clause: ClauseElement, *params: str, listed: ClauseElement | None = None, scalars: int = 0
    ) -> None:
        self.name = name
        self.clause = clause
        self.params = params
        self.listed = listed
        self.scalars = scalars
        self.texts: dict[Any, tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]] | None]] = {}

    def __repr__(self) -> str:
        return f"<Statement {self.name}>"


class as_text(FunctionElement[str]):  # noqa: N801  # reads as an SQL function
    """A key column in a result: the bytes that MariaDB stores, read as text."""

    inherit_cache = True
    name = "as_text"


@compiles(as_text)
def _plain(element: as_text, compiler: Any, **options: Any) -> str:
    return compiler.process(list(element.clauses)[0], **options)  # type: ignore[no-any-return]  # noqa: RUF015


@compiles(as_text, "mysql")
@compiles(as_text, "mariadb")
def _converted(element: as_text, compiler: Any, **options: Any) -> str:
    return f"CONVERT({_plain(element, compiler, **options)} USING utf8mb4)"


class place_in(FunctionElement[int]):  # noqa: N801  # reads as an SQL function
    """Where bytes begin in a body, counted from 1; 0 if they are not in it. Of (body, bytes)."""

    inherit_cache = True
    name = "place_in"


@compiles(place_in)
def _instr(element: place_in, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(place_in, "postgresql")
def _position(element: place_in, compiler: Any, **options: Any) -> str:
    body, part = [compiler.process(clause, **options) for clause in element.clauses]
    return f"position({part} IN {body})"


def chunks(items: Sequence[T]) -> Iterator[list[T]]:
    """The items in lists of the fixed sizes, the last one padded with its last item."""
    start = 0
    while start < len(items):
        left = len(items) - start
        size = next((size for size in SIZES if size >= left), SIZES[-1])
        chunk = list(items[start : start + size])
        chunk += [chunk[-1]] * (size - len(chunk))
        yield chunk
        start += size


def _sized(build: Callable[[int, list[Any]], Statement]) -> Callable[[int], Statement]:
    """A statement for each size of list: `build` gets the size and its parameters."""

    @cache
    def statement(size: int) -> Statement:
        return build(size, [bindparam(f"i{n}") for n in range(size)])

    return statement


def _items(size: int) -> list[str]:
    return [f"i{n}" for n in range(size)]


def _of_keys(name: str, rows: Select[Any], table: Table, *params: str) -> Callable[[int], Statement]:
    """A query for those rows that belong to some keys: parameters are the collection, `params`, and the keys.

    Asked for a list of keys, PostgreSQL reads the whole collection while it has
    no statistics of a young table (168 µs for each document of a put_many into
    10,000). So it gets an array, and a subquery that OFFSET 0 keeps apart, which
    leaves it nothing but to look up each key in the index (2 µs).
    """

    def build(size: int, items: list[Any]) -> Statement:
        here = rows.where(table.c.collection == bindparam("c"))
        keys = select(func.unnest(bindparam("keys", type_=ARRAY(Text))).label("key")).distinct().subquery("wanted")
        found = here.where(table.c.key == collate(keys.c.key, "C")).offset(literal_column("0")).lateral("found")
        listed = select(*found.c).select_from(keys.join(found, true())) if size > 1 else None
        clause = here.where(table.c.key.in_(items))
        return Statement(name, clause, "c", *params, *_items(size), listed=listed, scalars=1 + len(params))

    return _sized(build)


_p = bindparam
_lineage = [version.c[name] for name in LINEAGE]
_joined = head.join(version, version.c.id == head.c.id)

# --- the shard itself ------------------------------------------------------------------------------------------------

META = Statement("meta", select(meta.c.name, meta.c.value))
SET_META = Statement("set meta", insert(meta), "name", "value")
CHANGE_META = Statement("change meta", update(meta).where(meta.c.name == _p("n")).values(value=_p("v")), "v", "n")
LOCK_META = Statement("lock meta", select(meta.c.value).where(meta.c.name == _p("n")).with_for_update(), "n")
CLEAR_META = Statement("clear meta", delete(meta))

COLLECTIONS = Statement(
    "collections",
    select(
        collection.c.id, as_text(collection.c.name), collection.c.partitions, collection.c.options, collection.c.base
    ).order_by(collection.c.name),
)
ADD_COLLECTION = Statement("add collection", insert(collection), "id", "name", "partitions", "options", "base")
RENAME_COLLECTION = Statement(
    "rename collection", update(collection).where(collection.c.id == _p("c")).values(name=_p("n")), "n", "c"
)
SET_OPTIONS = Statement(
    "set options", update(collection).where(collection.c.id == _p("c")).values(options=_p("o")), "o", "c"
)

_partition_columns = [
    partition.c.id,
    partition.c.collection,
    partition.c.part,
    partition.c.actor,
    partition.c.ctr,
    partition.c.seq,
    partition.c.epoch,
    partition.c.status,
    partition.c.feed,
]
ADD_PARTITION = Statement("add partition", insert(partition), *partition.c.keys())
PARTITIONS_OF = Statement(
    "partitions of a collection",
    select(*_partition_columns).where(partition.c.collection == _p("c")).order_by(partition.c.part),
    "c",
)
PARTITIONS_IN = _sized(
    lambda size, items: Statement(
        "partitions", select(*_partition_columns).where(partition.c.id.in_(items)), *_items(size)
    )
)
PARTITION = Statement("a partition", select(*_partition_columns).where(partition.c.id == _p("p")), "p")
ALL_PARTITIONS = Statement("all partitions", select(*_partition_columns).order_by(partition.c.id))
LOCK_ALL_PARTITIONS = Statement(
    "lock all partitions", select(*_partition_columns).order_by(partition.c.id).with_for_update()
)
LOCK_PARTITIONS = _sized(
    lambda size, items: Statement(
        "lock partitions",
        # Always in the order of ids: two writers that need the same rows cannot deadlock.
        select(*_partition_columns).where(partition.c.id.in_(items)).order_by(partition.c.id).with_for_update(),
        *_items(size),
    )
)


@_sized
def ADVANCE(size: int, items: list[Any]) -> Statement:  # noqa: N802  # a statement, as the others
    """Counters of partitions: the ids, and after them a `ctr` for each, and after these a `seq`.

    One statement: PyMySQL sends one for each row of an executemany that is no insert, and a batch may have 64.
    """
    counters: dict[str, list[Any]] = {name: [_p(f"{name}{n}") for n in range(size)] for name in ("ctr", "seq")}
    values = {
        name: case(*[(partition.c.id == item, new) for item, new in zip(items, each, strict=True)])
        if size > 1
        else each[0]
        for name, each in counters.items()
    }
    names = [f"{name}{n}" for name in counters for n in range(size)]
    clause = update(partition).where(partition.c.id.in_(items)).values(values)
    return Statement("advance partitions", clause, *_items(size), *names)


REINCARNATE = Statement(
    "give a partition a new actor",
    update(partition).where(partition.c.id == _p("p")).values(actor=_p("a"), ctr=_p("n"), feed=_p("f")),
    "a",
    "n",
    "f",
    "p",
)
RETIRE_ACTOR = Statement("retire an actor", insert(actor), "actor", "partition", "final", "retired")
ACTORS_OF = Statement(
    "retired actors of a partition",
    select(actor.c.actor, actor.c.final).where(actor.c.partition == _p("p")),
    "p",
)
ACTORS = Statement("retired actors", select(actor.c.actor, actor.c.partition, actor.c.final, actor.c.retired))

KNOWLEDGE = Statement(
    "knowledge",
    select(knowledge.c.actor, knowledge.c.lo, knowledge.c.hi)
    .where(knowledge.c.partition == _p("p"))
    .order_by(knowledge.c.actor, knowledge.c.lo),
    "p",
)
KNOWLEDGE_OF = _sized(
    lambda size, items: Statement(
        "knowledge of partitions",
        select(knowledge.c.partition, knowledge.c.actor, knowledge.c.lo, knowledge.c.hi)
        .where(knowledge.c.partition.in_(items))
        .order_by(knowledge.c.partition, knowledge.c.actor, knowledge.c.lo),
        *_items(size),
    )
)
FORGET_RUN = Statement(
    "forget a run",
    delete(knowledge).where(knowledge.c.partition == _p("p"), knowledge.c.actor == _p("a"), knowledge.c.lo == _p("l")),
    "p",
    "a",
    "l",
)
ADD_RUN = Statement("add a run", insert(knowledge), "partition", "actor", "lo", "hi")

FORGOTTEN_OF = _sized(
    lambda size, items: Statement(
        "what may be forgotten of partitions",
        select(forgotten.c.partition, forgotten.c.actor, forgotten.c.base).where(forgotten.c.partition.in_(items)),
        *_items(size),
    )
)
ALL_FORGOTTEN = Statement(
    "what may be forgotten of a collection",
    select(forgotten.c.actor, forgotten.c.base).where(
        forgotten.c.partition >= _p("a"), forgotten.c.partition < _p("b")
    ),
    "a",
    "b",
)
DROP_FORGOTTEN = Statement(
    "drop what may be forgotten of an actor",
    delete(forgotten).where(forgotten.c.partition == _p("p"), forgotten.c.actor == _p("a")),
    "p",
    "a",
)
ADD_FORGOTTEN = Statement("add what may be forgotten", insert(forgotten), "partition", "actor", "base")
FENCE = Statement("the token of a lease", select(lease.c.token).where(lease.c.name == _p("n")), "n")

CHECKPOINT = Statement("checkpoint", select(checkpoint.c.value).where(checkpoint.c.name == _p("n")), "n")
CHECKPOINTS_OF = _sized(
    lambda size, items: Statement(
        "checkpoints by name",
        select(checkpoint.c.name, checkpoint.c.value).where(checkpoint.c.name.in_(items)),
        *_items(size),
    )
)
DROP_CHECKPOINTS = _sized(
    lambda size, items: Statement(
        "drop checkpoints", delete(checkpoint).where(checkpoint.c.name.in_(items)), *_items(size)
    )
)
DROP_CHECKPOINT = Statement("drop a checkpoint", delete(checkpoint).where(checkpoint.c.name == _p("n")), "n")
ADD_CHECKPOINT = Statement("add a checkpoint", insert(checkpoint), "name", "value")

# --- one document, or some -------------------------------------------------------------------------------------------

VALUE = Statement(
    "the value of a document",
    select(head.c.state, version.c.codec, version.c.body)
    .select_from(_joined)
    .where(head.c.collection == _p("c"), head.c.key == _p("k")),
    "c",
    "k",
)
STATE = Statement(
    "whether a document lives",
    select(head.c.state).where(head.c.collection == _p("c"), head.c.key == _p("k")),
    "c",
    "k",
)
HEADS = _of_keys("heads of keys", select(as_text(head.c.key), head.c.state, *_lineage).select_from(_joined), head)
HEADS_WITH_BODY = _of_keys(
    "heads of keys, with bodies",
    select(as_text(head.c.key), version.c.body, *_lineage).select_from(_joined),
    head,
)
VALUES = _of_keys(
    "values of keys",
    select(as_text(head.c.key), head.c.state, version.c.codec, version.c.body).select_from(_joined),
    head,
)
STATES = _of_keys("states of keys", select(as_text(head.c.key), head.c.state), head)
VERSIONS = _of_keys("all versions of keys", select(as_text(version.c.key), *_lineage), version)
STAMPED = _of_keys(
    "versions of keys with a stamp in a range",
    select(as_text(version.c.key), *[version.c[name] for name in ("stamp", "deleted", "stub", "codec", "id")]).where(
        version.c.stamp >= _p("a"), version.c.stamp <= _p("b")
    ),
    version,
    "a",
    "b",
)
VERSION = Statement(
    "one version",
    select(version.c.body, *_lineage).where(
        version.c.collection == _p("c"), version.c.key == _p("k"), version.c.rev == _p("r")
    ),
    "c",
    "k",
    "r",
)
REVS_AT = _sized(
    lambda size, items: Statement(
        "revs in places", select(version.c.id, version.c.rev).where(version.c.id.in_(items)), *_items(size)
    )
)
BODIES = _sized(
    lambda size, items: Statement(
        "bodies", select(version.c.id, version.c.body).where(version.c.id.in_(items)), *_items(size)
    )
)

# --- writing ---------------------------------------------------------------------------------------------------------

ADD_VERSION = Statement("add a version", insert(version), *version.c.keys())
MOVE_VERSION = Statement("move a version", delete(version).where(version.c.id == _p("i")), "i")
GROW_LINEAGE = Statement(
    "grow a version's lineage",
    update(version)
    .where(version.c.id == _p("i"))
    .values(parents=_p("p"), dots=_p("d"), clock=_p("k"), stamp=_p("s"), kind=_p("m")),
    "p",
    "d",
    "k",
    "s",
    "m",
    "i",
)
_LANES = ("lane0", "lane1", "lane2", "lane3")
ADD_HEAD = Statement("add a head", insert(head), "collection", "key", "id", "state", *_LANES)
DROP_HEADS_AT = _sized(
    # By lists: PyMySQL sends a statement for each row of executemany unless it inserts, 75 µs each.
    lambda size, items: Statement("drop heads at", delete(head).where(head.c.id.in_(items)), *_items(size))
)
SET_STATE = Statement(
    "set a head's state",
    update(head).where(head.c.collection == _p("c"), head.c.key == _p("k"), head.c.id == _p("i")).values(state=_p("t")),
    "t",
    "c",
    "k",
    "i",
)
SET_LANES = Statement(
    "set a head's element",
    update(head)
    .where(head.c.collection == _p("c"), head.c.key == _p("k"), head.c.id == _p("i"))
    .values({name: _p(f"n_{name}") for name in _LANES}),
    *[f"n_{name}" for name in _LANES],
    "c",
    "k",
    "i",
)
ADD_EVENT = Statement("add an event", insert(event), "id", "collection", "key", "kind")
DROP_VERSIONS_AT = _sized(
    lambda size, items: Statement("drop versions at", delete(version).where(version.c.id.in_(items)), *_items(size))
)
PRUNE_BODY = Statement(
    "prune a body", update(version).where(version.c.id == _p("i")).values(stub=1, codec="", body=None), "i"
)

# --- scanning --------------------------------------------------------------------------------------------------------

POSITIONS = Statement(
    "positions of partitions",
    select(partition.c.id, partition.c.seq, partition.c.feed)
    .where(partition.c.id >= _p("a"), partition.c.id < _p("b"))
    .order_by(partition.c.id),
    "a",
    "b",
)
# The key of the version and not of the head: then an index has all that is wanted of a head, and a row is read once and
# not twice. A scan takes half the time (1 M documents on SQLite).
HEADS_BY_ID = Statement(
    "heads in feed order",
    select(head.c.state, as_text(version.c.key), version.c.body, *_lineage)
    .select_from(_joined)
    .where(head.c.id > _p("a"), head.c.id <= _p("b"))
    .order_by(head.c.id)
    .limit(_p("n")),
    "a",
    "b",
    "n",
)
LIVE_BY_ID = Statement(
    "live values in feed order",
    select(head.c.id, head.c.state, as_text(version.c.key), version.c.codec, version.c.body)
    .select_from(_joined)
    .where(head.c.id > _p("a"), head.c.id <= _p("b"))
    .order_by(head.c.id)
    .limit(_p("n")),
    "a",
    "b",
    "n",
)
WINDOW = Statement(
    "how many heads follow an id, up to so many, and the last of them",
    select(func.count(), func.max(literal_column("id"))).select_from(
        select(head.c.id)
        .where(head.c.id > _p("a"), head.c.id <= _p("b"))
        .order_by(head.c.id)
        .limit(_p("n"))
        .subquery("some")
    ),
    "a",
    "b",
    "n",
)
# A row costs the driver as much as the decoder, and here there is one for a whole page: 1 M documents in 0.4 s and not
# in 0.7. A newline may be in a key; then there are more parts than rows. The limit of a body keeps a page of
# them below what a database may return as one value.
JOINED = Statement(
    "live values in plain JSON, joined by SQLite",
    select(
        func.count(),
        func.group_concat(version.c.key, literal_column("'\n'")),
        cast(func.group_concat(version.c.body, literal_column("','")), LargeBinary),
    )
    .select_from(_joined)
    .where(head.c.id > _p("a"), head.c.id <= _p("b"), head.c.state == literal_column(str(LIVE)))
    .where(version.c.codec == literal_column("'json'"), func.length(version.c.body) < literal_column(str(256 * 1024))),
    "a",
    "b",
)
OTHERS_BY_ID = Statement(
    "heads that are not the only live one of their key, in feed order",
    select(head.c.id, head.c.state, as_text(head.c.key))
    .where(head.c.id > _p("a"), head.c.id <= _p("b"), head.c.state != literal_column(str(LIVE)))
    .order_by(head.c.id),
    "a",
    "b",
)


@cache
def LIVE_HOLDING(sizes: tuple[int, ...]) -> Statement:  # noqa: N802  # a statement, as the others
    """LIVE_BY_ID of those that hold, for each alternative of so many byte strings, one of them.

    What is not plain JSON of an only head comes whatever it holds. Parameters
    are the bounds and then the byte strings in order.
    """
    parts = [[f"h{n}_{m}" for m in range(size)] for n, size in enumerate(sizes)]
    held = and_(*[or_(*[place_in(version.c.body, _p(name, type_=LargeBinary)) > 0 for name in part]) for part in parts])
    clause = (
        select(head.c.id, head.c.state, as_text(version.c.key), version.c.codec, version.c.body)
        .select_from(_joined)
        .where(head.c.id > _p("a"), head.c.id <= _p("b"))
        .where(or_(held, version.c.codec != literal_column("'json'"), head.c.state != literal_column(str(LIVE))))
        .order_by(head.c.id)
    )
    return Statement("live values in feed order that hold some bytes", clause, "a", "b", *chain.from_iterable(parts))


KEYS_BY_ID = Statement(
    "keys in feed order",
    select(head.c.id, head.c.state, as_text(head.c.key))
    .where(head.c.id > _p("a"), head.c.id <= _p("b"))
    .order_by(head.c.id)
    .limit(_p("n")),
    "a",
    "b",
    "n",
)


def _by_key(name: str, rows: Select[Any]) -> Statement:
    clause = rows.where(head.c.collection == _p("c"), head.c.key >= _p("a"), head.c.key < _p("b"))
    return Statement(name, clause.order_by(head.c.key, head.c.id).limit(_p("n")), "c", "a", "b", "n")


HEADS_BY_KEY = _by_key("heads in key order", select(head.c.id, head.c.state, as_text(head.c.key)))
LIVE_BY_KEY = _by_key(
    "live values in key order",
    select(head.c.id, head.c.state, as_text(head.c.key), version.c.codec, version.c.body).select_from(_joined),
)
VERSIONS_BY_KEY = _by_key(
    "heads in key order, with bodies",
    select(head.c.state, as_text(head.c.key), version.c.body, *_lineage).select_from(_joined),
)
KEY_AT = Statement(
    "the key so many heads further on",
    select(as_text(head.c.key))
    .where(head.c.collection == _p("c"), head.c.key >= _p("a"), head.c.key < _p("b"))
    .order_by(head.c.key, head.c.id)
    .limit(1)
    .offset(_p("n")),
    "c",
    "a",
    "b",
    "n",
)
COUNT_KEYS = Statement(
    "heads in a range of keys, up to so many",
    select(func.count()).select_from(
        select(head.c.id)
        .where(head.c.collection == _p("c"), head.c.key >= _p("a"), head.c.key < _p("b"))
        .limit(_p("n"))
        .subquery("some")
    ),
    "c",
    "a",
    "b",
    "n",
)
COUNT_IDS = Statement(
    "heads in a range of ids, up to so many",
    select(func.count()).select_from(
        select(head.c.id).where(head.c.id > _p("a"), head.c.id <= _p("b")).limit(_p("n")).subquery("some")
    ),
    "a",
    "b",
    "n",
)
FIRST_CHANGES = Statement(
    "keys with versions after a position, and the first of each",
    select(as_text(version.c.key), func.min(version.c.id))
    .where(version.c.id > _p("a"), version.c.id <= _p("b"))
    .group_by(version.c.key),
    "a",
    "b",
)
EVENTS_BY_ID = Statement(
    "events in feed order",
    select(event.c.id, as_text(event.c.key), event.c.kind)
    .where(event.c.id > _p("a"), event.c.id <= _p("b"))
    .order_by(event.c.id)
    .limit(_p("n")),
    "a",
    "b",
    "n",
)
VERSIONS_BY_ID = Statement(
    "versions in commit order",
    select(as_text(version.c.key), version.c.body, *_lineage)
    .where(version.c.id > _p("a"), version.c.id <= _p("b"))
    .order_by(version.c.id)
    .limit(_p("n")),
    "a",
    "b",
    "n",
)


def _keys(name: str, order: Any) -> Statement:
    clause = select(as_text(head.c.key)).where(head.c.collection == _p("c"), head.c.state != TOMBSTONE)
    clause = clause.where(head.c.key >= _p("a"), head.c.key < _p("b"))
    return Statement(name, clause.group_by(head.c.key).order_by(order).limit(_p("n")), "c", "a", "b", "n")


KEYS = _keys("live keys in order", head.c.key)
KEYS_BACK = _keys("live keys backwards", head.c.key.desc())

COUNT_LIVE = Statement(
    "live documents without rivals",
    select(func.count()).select_from(head).where(head.c.collection == _p("c"), head.c.state == 0),
    "c",
)
COUNT_RIVALS = Statement(
    "documents with rivals",
    select(func.count(head.c.key.distinct())).where(
        head.c.collection == _p("c"), head.c.state == literal_column(str(RIVAL))
    ),
    "c",
)
RIVALS = Statement(
    "keys with rivals",
    # The state is written out, so that SQLite and PostgreSQL see that the partial index answers.
    select(as_text(head.c.key))
    .where(head.c.collection == _p("c"), head.c.state == literal_column(str(RIVAL)), head.c.key > _p("a"))
    .group_by(head.c.key)
    .order_by(head.c.key)
    .limit(_p("n")),
    "c",
    "a",
    "n",
)


def _version_keys(name: str, bound: Any) -> Statement:
    clause = select(as_text(version.c.key)).where(version.c.collection == _p("c"), bound)
    return Statement(name, clause.group_by(version.c.key).order_by(version.c.key).limit(_p("n")), "c", "a", "n")


VERSION_KEYS = _version_keys("keys ever written, after", version.c.key > _p("a"))
VERSION_KEYS_FROM = _version_keys("keys ever written, from", version.c.key >= _p("a"))
VERSION_KEYS_BETWEEN = Statement(
    "keys ever written, in a range",
    select(as_text(version.c.key))
    .where(version.c.collection == _p("c"), version.c.key >= _p("a"), version.c.key < _p("b"))
    .group_by(version.c.key)
    .order_by(version.c.key)
    .limit(_p("n")),
    "c",
    "a",
    "b",
    "n",
)
COUNT_VERSIONS = Statement(
    "versions, stubs, bytes, blanks in the longest clock (-1 if all are empty)",
    select(
        func.count(),
        func.sum(version.c.stub),
        func.sum(func.length(version.c.body)),
        func.max(
            case(
                (version.c.clock == literal_column("''"), literal_column("-1")),
                else_=func.length(version.c.clock)
                - func.length(func.replace(version.c.clock, literal_column("' '"), literal_column("''"))),
            )
        ),
    ).where(version.c.collection == _p("c")),
    "c",
)
COUNT_ACTORS = Statement(
    "actors that partitions know",
    select(func.count()).select_from(
        union_all(
            select(knowledge.c.partition, knowledge.c.actor)
            .where(knowledge.c.partition >= _p("a"), knowledge.c.partition < _p("b"))
            .distinct(),
            select(partition.c.id, partition.c.actor).where(
                partition.c.id >= _p("a"), partition.c.id < _p("b"), partition.c.ctr > literal_column("0")
            ),
        ).subquery()
    ),
    "a",
    "b",
)
COUNT_HEADS = Statement(
    "heads by state",
    select(head.c.state, func.count()).where(head.c.collection == _p("c")).group_by(head.c.state),
    "c",
)
ALL_HEADS = Statement(
    "all heads of a collection in key order",
    select(as_text(head.c.key), head.c.id, head.c.state)
    .where(head.c.collection == _p("c"), head.c.key > _p("a"))
    .order_by(head.c.key, head.c.id)
    .limit(_p("n")),
    "c",
    "a",
    "n",
)

# --- pulling ---------------------------------------------------------------------------------------------------------

STANDINGS = Statement(
    "where partitions stand",
    select(partition.c.id, partition.c.actor, partition.c.ctr, partition.c.seq, partition.c.feed)
    .where(partition.c.id >= _p("a"), partition.c.id < _p("b"))
    .order_by(partition.c.id),
    "a",
    "b",
)
KNOWN_IN = Statement(
    "how far partitions know each actor, without a gap and at all; and, without the last, what they may have forgotten",
    union_all(
        select(
            knowledge.c.partition,
            knowledge.c.actor,
            func.max(case((knowledge.c.lo == 1, knowledge.c.hi), else_=0)),
            func.max(knowledge.c.hi),
        )
        .where(knowledge.c.partition >= _p("a"), knowledge.c.partition < _p("b"))
        .group_by(knowledge.c.partition, knowledge.c.actor),
        select(forgotten.c.partition, forgotten.c.actor, forgotten.c.base, null()).where(
            forgotten.c.partition >= _p("a"), forgotten.c.partition < _p("b")
        ),
    ),
    "a",
    "b",
)
CHECKPOINTS_AMONG = Statement(
    "checkpoints in a range of names",
    select(checkpoint.c.name, checkpoint.c.value).where(checkpoint.c.name >= _p("a"), checkpoint.c.name < _p("b")),
    "a",
    "b",
)


def _lean(name: str, rows: Select[Any], id_: Any, *, by_key: bool) -> Statement:
    """Rows in commit order with the sizes of their bodies in place of them, perhaps only those of a range of keys."""
    clause = rows.where(id_ > _p("a"), id_ <= _p("b"))
    if by_key:
        clause = clause.where(version.c.key >= _p("l"), version.c.key < _p("h"))
    return Statement(name, clause.order_by(id_).limit(_p("n")), "a", "b", *("l", "h") * by_key, "n")


def _in_ranges(name: str, rows: Select[Any], id_: Any, *, by_key: bool = False) -> Callable[[int], Statement]:
    """Rows in so many ranges of ids, in no order: the bounds of each, and then perhaps those of a range of keys."""

    @cache
    def statement(size: int) -> Statement:
        parts = [rows.where(id_ > _p(f"a{n}"), id_ <= _p(f"b{n}")) for n in range(size)]
        if by_key:
            parts = [part.where(version.c.key >= _p("l"), version.c.key < _p("h")) for part in parts]
        bounds = chain.from_iterable((f"a{n}", f"b{n}") for n in range(size))
        clause = union_all(*parts) if size > 1 else parts[0]
        return Statement(name, clause, *bounds, *("l", "h") * by_key)

    return statement


_size = func.length(version.c.body).label("size")
_lean_heads = select(head.c.state, as_text(version.c.key), _size, *_lineage).select_from(_joined)
_lean_versions = select(literal_column("-1").label("state"), as_text(version.c.key), _size, *_lineage)
LEAN_HEADS = {by_key: _lean("heads to compare", _lean_heads, head.c.id, by_key=by_key) for by_key in (False, True)}
LEAN_VERSIONS = {
    by_key: _lean("versions to compare", _lean_versions, version.c.id, by_key=by_key) for by_key in (False, True)
}
LEAN_HEADS_IN = {
    by_key: _in_ranges("heads of partitions to compare", _lean_heads, head.c.id, by_key=by_key)
    for by_key in (False, True)
}
LEAN_VERSIONS_IN = {
    by_key: _in_ranges("versions of partitions to compare", _lean_versions, version.c.id, by_key=by_key)
    for by_key in (False, True)
}
EVENTS_IN = _in_ranges("events of partitions", select(event.c.id, as_text(event.c.key), event.c.kind), event.c.id)
LEAN_HEADS_OF = _of_keys("heads of keys to compare", _lean_heads, head)
LEAN_VERSIONS_OF = _of_keys("versions of keys to compare", _lean_versions, version)

LOCK_LEASE = Statement(
    "lock a lease",
    select(lease.c.holder, lease.c.token, lease.c.until).where(lease.c.name == _p("n")).with_for_update(),
    "n",
)
ADD_LEASE = Statement("add a lease", insert(lease), "name", "holder", "token", "until")
SET_LEASE = Statement(
    "give or renew a lease",
    update(lease).where(lease.c.name == _p("n")).values(holder=_p("h"), token=_p("t"), until=_p("u")),
    "h",
    "t",
    "u",
    "n",
)

PARKED = Statement(
    "what is parked",
    select(as_text(parked.c.key), parked.c.name, parked.c.rev, parked.c.reason, parked.c.since, parked.c.tries)
    .where(parked.c.collection == _p("c"), parked.c.kind == _p("k"))
    .order_by(parked.c.key, parked.c.name),
    "c",
    "k",
)
UNPARK = Statement(
    "unpark",
    delete(parked).where(
        parked.c.collection == _p("c"), parked.c.kind == _p("k"), parked.c.key == _p("y"), parked.c.name == _p("n")
    ),
    "c",
    "k",
    "y",
    "n",
)
PARK = Statement("park", insert(parked), *parked.c.keys())

# --- reconciliation --------------------------------------------------------------------------------------------------

_in_range = (head.c.collection == _p("c"), head.c.key >= _p("a"), head.c.key < _p("b"))


@cache
def SUMS(size: int) -> Statement:  # noqa: N802  # a statement, as the others
    """For each of so many ranges of keys its number, how many heads it has, and the sums of their lanes.

    A head is read once. Of 1 M on SQLite, in sixteen ranges: 0.25 s; with one CASE over all of them 0.84 s, and with a
    window function that finds the ranges as well 2.7 s.
    """
    sums = [func.sum(head.c[name]) for name in _LANES]
    parts: list[Any] = [
        select(literal_column(str(n)).label("range"), func.count().label("heads"), *sums).where(
            head.c.collection == _p("c"), head.c.key >= _p(f"a{n}"), head.c.key < _p(f"b{n}")
        )
        for n in range(size)
    ]
    bounds = chain.from_iterable((f"a{n}", f"b{n}") for n in range(size))
    return Statement("sums of ranges", union_all(*parts) if size > 1 else parts[0], "c", *bounds)


ELEMENTS = Statement(
    "elements of a range of keys",
    select(as_text(head.c.key), *[head.c[name] for name in _LANES])
    .where(*_in_range)
    .order_by(head.c.key, head.c.id)
    .limit(_p("n")),
    "c",
    "a",
    "b",
    "n",
)
COUNT_RANGE = Statement("heads in a range of keys", select(func.count()).where(*_in_range), "c", "a", "b")
NEIGHBOURS_AT = Statement(
    "two keys so many heads further on",
    select(as_text(head.c.key)).where(*_in_range).order_by(head.c.key, head.c.id).limit(2).offset(_p("n")),
    "c",
    "a",
    "b",
    "n",
)
# In the order of ids, in which an index has the heads and a table their versions: 1 M on SQLite in 0.3 s, in that of
# keys in 8 s.
BARE_HEADS = Statement(
    "heads whose version is gone",
    select(as_text(head.c.key))
    .where(head.c.id > _p("a"), head.c.id <= _p("b"), ~exists().where(version.c.id == head.c.id))
    .order_by(head.c.id)
    .limit(_p("n")),
    "a",
    "b",
    "n",
)
BARE_ELEMENTS = _of_keys(
    "elements of heads whose version is gone",
    select(as_text(head.c.key), head.c.id, *[head.c[name] for name in _LANES]).where(
        ~exists().where(version.c.id == head.c.id)
    ),
    head,
)

# --- resolving -------------------------------------------------------------------------------------------------------

PARKED_AT = Statement(
    "what is parked of a key",
    select(parked.c.name, parked.c.rev, parked.c.reason, parked.c.since, parked.c.tries)
    .where(parked.c.collection == _p("c"), parked.c.kind == _p("k"), parked.c.key == _p("y"))
    .order_by(parked.c.name),
    "c",
    "k",
    "y",
)

# --- every row, for check and copy -----------------------------------------------------------------------------------

SIZES_BY_ID = Statement(
    "sizes of bodies in commit order",
    select(version.c.id, func.length(version.c.body))
    .where(version.c.id > _p("a"), version.c.id <= _p("b"))
    .order_by(version.c.id)
    .limit(_p("n")),
    "a",
    "b",
    "n",
)
ROWS_BY_ID = Statement(
    "whole rows in commit order",
    select(version.c.collection, as_text(version.c.key), version.c.body, *_lineage)
    .where(version.c.id > _p("a"), version.c.id <= _p("b"))
    .order_by(version.c.id)
    .limit(_p("n")),
    "a",
    "b",
    "n",
)
HEAD_KEYS = Statement(
    "keys with heads, after",
    select(as_text(head.c.key))
    .where(head.c.collection == _p("c"), head.c.key > _p("a"))
    .group_by(head.c.key)
    .order_by(head.c.key)
    .limit(_p("n")),
    "c",
    "a",
    "n",
)
HEAD_ROWS = _of_keys(
    "head rows of keys",
    select(as_text(head.c.key), head.c.id, head.c.state, *[head.c[name] for name in _LANES]),
    head,
)
HEAD_TEXTS = Statement(
    "what the elements of heads are made of",
    select(
        head.c.id,
        head.c.collection,
        as_text(head.c.key),
        *[version.c[name] for name in ("rev", "dots", "clock", "kind")],
    )
    .select_from(_joined)
    .where(head.c.id > _p("a"))
    .order_by(head.c.id)
    .limit(_p("n")),
    "a",
    "n",
)
LOST_HEADS = Statement(
    "heads of no collection",
    select(head.c.collection, as_text(head.c.key), head.c.id)
    .where(~exists().where(collection.c.id == head.c.collection))
    .limit(_p("n")),
    "n",
)
KNOWING = Statement("partitions that know of others", select(knowledge.c.partition).distinct())

# --- dropping a collection -------------------------------------------------------------------------------------------

DROP_HEADS = Statement("drop heads", delete(head).where(head.c.collection == _p("c")), "c")
DROP_VERSIONS = Statement("drop versions", delete(version).where(version.c.collection == _p("c")), "c")
DROP_EVENTS = Statement("drop events", delete(event).where(event.c.collection == _p("c")), "c")
DROP_KNOWLEDGE = Statement(
    "drop knowledge",
    delete(knowledge).where(knowledge.c.partition >= _p("a"), knowledge.c.partition < _p("b")),
    "a",
    "b",
)
DROP_ACTORS = Statement(
    "drop retired actors",
    delete(actor).where(actor.c.partition >= _p("a"), actor.c.partition < _p("b")),
    "a",
    "b",
)
DROP_ALL_FORGOTTEN = Statement(
    "drop what may be forgotten",
    delete(forgotten).where(forgotten.c.partition >= _p("a"), forgotten.c.partition < _p("b")),
    "a",
    "b",
)
DROP_REPLICAS = Statement(
    "drop the registry of replicas",
    delete(replica).where(replica.c.partition >= _p("a"), replica.c.partition < _p("b")),
    "a",
    "b",
)
BLOT_PARKED = Statement(
    "blot out the reasons of what is parked of a key",
    update(parked).where(parked.c.collection == _p("c"), parked.c.key == _p("k")).values(reason=_p("r")),
    "r",
    "c",
    "k",
)
DROP_PARKED = Statement("drop what is parked", delete(parked).where(parked.c.collection == _p("c")), "c")
DROP_PARTITIONS = Statement("drop partitions", delete(partition).where(partition.c.collection == _p("c")), "c")
DROP_COLLECTION = Statement("drop a collection", delete(collection).where(collection.c.id == _p("c")), "c")

# --- replicas and purging --------------------------------------------------------------------------------------------

_replica_columns = [
    replica.c.replica,
    replica.c.partition,
    replica.c.role,
    replica.c.name,
    replica.c.known,
    replica.c.seen,
]
REPLICAS = Statement(
    "replicas of a collection",
    select(*_replica_columns)
    .where(replica.c.partition >= _p("a"), replica.c.partition < _p("b"))
    .order_by(replica.c.partition, replica.c.replica),
    "a",
    "b",
)
DROP_REPLICA = Statement(
    "drop what a replica acknowledged of a partition",
    delete(replica).where(replica.c.replica == _p("r"), replica.c.partition == _p("p")),
    "r",
    "p",
)
ADD_REPLICA = Statement("note what a replica acknowledged", insert(replica), *replica.c.keys())
COUNTERS = Statement(
    "actors and counters of partitions",
    select(partition.c.id, partition.c.actor, partition.c.ctr)
    .where(partition.c.id >= _p("a"), partition.c.id < _p("b"))
    .order_by(partition.c.id),
    "a",
    "b",
)
BASES = Statement(
    "up to where partitions know everything of others",
    select(knowledge.c.partition, knowledge.c.actor, knowledge.c.hi).where(
        knowledge.c.partition >= _p("a"), knowledge.c.partition < _p("b"), knowledge.c.lo == 1
    ),
    "a",
    "b",
)


def _tombstones(name: str, bound: Any) -> Statement:
    clause = select(as_text(head.c.key)).where(head.c.collection == _p("c"), head.c.state == TOMBSTONE, bound)
    return Statement(name, clause.group_by(head.c.key).order_by(head.c.key).limit(_p("n")), "c", "a", "n")


TOMBSTONES = _tombstones("keys with tombstones, after", head.c.key > _p("a"))
TOMBSTONES_FROM = _tombstones("keys with tombstones, from", head.c.key >= _p("a"))
