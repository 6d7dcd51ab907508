"""Check finds what was done to rows behind the store's back and names the place; a healthy store has no findings."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, create_engine, delete, insert, select, update
from sqlalchemy.engine import Connection

import vstore
from replication import sync
from vstore import Context, Store
from vstore.check import Finding
from vstore.sql.schema import actor, collection, event, head, knowledge, meta, partition, version

Rows = dict[str, list[Row[Any]]]
Damage = Callable[[Rows], Any]


@pytest.fixture
def posts(store: Store) -> vstore.Collection:
    """A history of four versions, two siblings, a deleted document and twenty others, in two partitions."""
    posts = store.create("posts", partitions=2)
    for n in range(1, 5):
        posts["doc"] = {"n": n}
    posts["rivals"] = {"title": "Hello"}
    seen = posts.read("rivals").context
    posts.put("rivals", {"title": "Hi"}, context=seen)
    posts.put("rivals", {"title": "Yo"}, context=seen)
    posts["gone"] = {"n": 1}
    del posts["gone"]
    posts.put_many((f"k{n}", {"n": n}) for n in range(20))
    return posts


def damaged(url: str, damage: Damage) -> None:
    """Does something to the rows, past vstore. `damage` gets the versions of each key, oldest first."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(damage(rows_of(connection)))
    engine.dispose()


def rows_of(connection: Connection) -> Rows:
    rows: Rows = {}
    for row in connection.execute(select(version).order_by(version.c.id)):
        rows.setdefault(row.key.decode() if isinstance(row.key, bytes) else row.key, []).append(row)
    return rows


def changed(row: Row[Any], **values: Any) -> Any:
    return update(version).where(version.c.id == row.id).values(**values)


def head_of(row: Row[Any]) -> Any:
    return head.c.id == row.id


LANES = {"lane0": 0, "lane1": 0, "lane2": 0, "lane3": 0}


def flipped(body: bytes, at: int) -> bytes:
    """The body with the lowest bit of one byte turned."""
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def counter(row: Row[Any]) -> Any:
    """The counter row of the partition that a version is in."""
    return partition.c.id == row.id >> 40


A = "0123456789abcdef"

DAMAGES: dict[str, tuple[Damage, str, str]] = {
    # what was done: how, the kind of finding, and the key it has to name
    "a bit flipped in the body of a head": (
        lambda r: changed(r["doc"][3], body=flipped(r["doc"][3].body, 5)),
        "rev",
        "doc",
    ),
    "a bit flipped in an old body": (lambda r: changed(r["doc"][0], body=flipped(r["doc"][0].body, 5)), "rev", "doc"),
    "a body that is JSON no more": (lambda r: changed(r["doc"][3], body=flipped(r["doc"][3].body, 0)), "body", "doc"),
    "a body cut off": (lambda r: changed(r["doc"][3], body=r["doc"][3].body[:-1]), "body", "doc"),
    "a body lost": (lambda r: changed(r["doc"][3], body=None), "body", "doc"),
    "a body where none may be": (lambda r: changed(r["gone"][1], body=b"{}", codec="json"), "body", "gone"),
    "an unknown codec": (lambda r: changed(r["doc"][3], codec="rot13"), "body", "doc"),
    "the first version deleted": (lambda r: delete(version).where(version.c.id == r["doc"][0].id), "gap", ""),
    "a version in the middle deleted": (lambda r: delete(version).where(version.c.id == r["doc"][2].id), "gap", ""),
    "the last version deleted": (lambda r: delete(version).where(version.c.id == r["doc"][3].id), "head", "doc"),
    "the only version deleted": (lambda r: delete(version).where(version.c.id == r["k7"][0].id), "head", "k7"),
    "a head row lost": (lambda r: delete(head).where(head_of(r["doc"][3])), "head", "doc"),
    "a sibling's head row lost": (lambda r: delete(head).where(head_of(r["rivals"][1])), "head", "rivals"),
    "a tombstone's head row lost": (lambda r: delete(head).where(head_of(r["gone"][1])), "head", "gone"),
    "a head row of an old version": (
        lambda r: insert(head).values(collection=1, key=r["doc"][0].key, id=r["doc"][0].id, state=0, **LANES),
        "head",
        "doc",
    ),
    "a head row of another key's version": (
        lambda r: update(head).where(head_of(r["doc"][3])).values(key=r["gone"][0].key),
        "head",
        "gone",
    ),
    "a head row of a key that never was": (
        lambda r: insert(head).values(collection=1, key=_as(r, "zzz"), id=7, state=0, **LANES),
        "head",
        "zzz",
    ),
    "a live head called a tombstone": (
        lambda r: update(head).where(head_of(r["doc"][3])).values(state=1),
        "state",
        "doc",
    ),
    "a tombstone called alive": (lambda r: update(head).where(head_of(r["gone"][1])).values(state=0), "state", "gone"),
    "a sibling called the only one": (
        lambda r: update(head).where(head_of(r["rivals"][1])).values(state=0),
        "state",
        "rivals",
    ),
    "a clock emptied": (lambda r: changed(r["doc"][3], clock=""), "clock", "doc"),
    "an old clock emptied": (lambda r: changed(r["doc"][2], clock=""), "clock", "doc"),
    "a clock that knows the future": (lambda r: changed(r["doc"][3], clock=_clock(r["doc"][3], 1000)), "clock", "doc"),
    "a clock that knows its own version": (
        lambda r: changed(r["doc"][1], clock=_clock(r["doc"][2], 1)),
        "clock",
        "doc",
    ),
    "a clock with another key's event": (
        lambda r: changed(r["k7"][0], clock=_dot_as_clock(r["doc"][0])),
        "clock",
        "k7",
    ),
    "a clock that is no clock": (lambda r: changed(r["doc"][3], clock="what?"), "lineage", "doc"),
    "a clock in disorder": (
        lambda r: changed(r["doc"][3], clock=r["doc"][3].clock + " " + r["doc"][3].clock),
        "lineage",
        "doc",
    ),
    "another rev": (lambda r: changed(r["doc"][3], rev=r["doc"][3].rev[:-1] + "x"), "rev", "doc"),
    "another generation": (lambda r: changed(r["doc"][3], rev="9" + r["doc"][3].rev[1:]), "rev", "doc"),
    "a rev that is none": (lambda r: changed(r["doc"][3], rev="newest"), "lineage", "doc"),
    "other parents": (lambda r: changed(r["doc"][3], parents=r["doc"][0].rev), "rev", "doc"),
    "no parents": (lambda r: changed(r["doc"][3], parents=""), "rev", "doc"),
    "a live version said to be deleted": (lambda r: changed(r["doc"][3], deleted=1), "body", "doc"),
    "a tombstone said to be alive": (lambda r: changed(r["gone"][1], deleted=0), "body", "gone"),
    "a live version said to be a stub": (lambda r: changed(r["doc"][3], stub=1, body=None, codec=""), "head", "doc"),
    "another dot": (lambda r: changed(r["doc"][3], dots=f"{A}:1:0"), "dot", "doc"),
    "a dot that follows another key's": (
        lambda r: changed(r["doc"][3], dots=r["doc"][3].dots.rpartition(":")[0] + ":5"),
        "clock",
        "doc",
    ),
    "no dot": (lambda r: changed(r["doc"][3], dots=""), "dot", "doc"),
    "the dot of another version": (lambda r: changed(r["doc"][3], dots=r["doc"][2].dots), "dot", "doc"),
    "a row moved to another partition": (
        lambda r: changed(r["doc"][3], id=(r["doc"][3].id ^ 3 << 40) + 1000),
        "gap",
        "",
    ),
    "a row moved to a partition that is not there": (lambda r: changed(r["doc"][3], id=77 << 40 | 1), "stray", "doc"),
    "a row of another key": (lambda r: changed(r["doc"][3], key=r["gone"][0].key), "head", "doc"),
    "a row of another collection": (lambda r: changed(r["doc"][3], collection=9), "place", "doc"),
    "a head of a collection that is not there": (
        lambda r: update(head).where(head_of(r["doc"][3])).values(collection=9),
        "stray",
        "doc",
    ),
    "a counter set back": (lambda r: update(partition).where(counter(r["doc"][3])).values(ctr=2), "dot", "doc"),
    "a counter set forward": (lambda r: update(partition).where(counter(r["doc"][3])).values(ctr=999), "dot", ""),
    "a position set back": (lambda r: update(partition).where(counter(r["doc"][3])).values(seq=1), "stray", "doc"),
    "a position set forward": (lambda r: update(partition).where(counter(r["doc"][3])).values(seq=999), "gap", ""),
    "another actor": (lambda r: update(partition).where(counter(r["doc"][3])).values(actor=A), "dot", "doc"),
    "a partition lost": (lambda r: delete(partition).where(counter(r["doc"][3])), "partition", ""),
    "a partition taken for another": (
        lambda r: update(partition).where(counter(r["doc"][3])).values(part=7),
        "partition",
        "",
    ),
    "an event of nothing": (
        lambda r: insert(event).values(id=77 << 40 | 1, collection=1, key=r["doc"][0].key, kind="grown"),
        "stray",
        "doc",
    ),
    "an event behind the last commit": (
        lambda r: insert(event).values(id=r["doc"][3].id + 1000, collection=1, key=r["doc"][0].key, kind="grown"),
        "stray",
        "doc",
    ),
    "knowledge that overlaps": (
        lambda r: insert(knowledge).values(
            [{"partition": r["doc"][3].id >> 40, "actor": A, "lo": lo, "hi": 9} for lo in (1, 5)]
        ),
        "knowledge",
        "",
    ),
    "knowledge of nothing": (lambda r: insert(knowledge).values(partition=77, actor=A, lo=1, hi=2), "knowledge", ""),
    "a retired actor of nothing": (
        lambda r: insert(actor).values(actor=A, partition=77, final=1, retired=1),
        "actor",
        "",
    ),
    "another number of partitions": (lambda r: update(collection).values(partitions=4), "partition", ""),
    "another partition map": (
        lambda r: update(meta).where(meta.c.name == "map").values(value='{"number":1,"shards":["x"]}'),
        "map",
        "",
    ),
    "another shard's name": (lambda r: update(meta).where(meta.c.name == "shard").values(value="x"), "map", ""),
}


def _as(rows: Rows, key: str) -> Any:
    """A key as the driver gives it: bytes on MariaDB."""
    return key.encode() if isinstance(rows["doc"][0].key, bytes) else key


def _clock(row: Row[Any], more: int) -> str:
    """The clock of a row, its one entry so many events further on."""
    name, _, n = row.clock.partition(":")
    return f"{name}:{int(n) + more}"


def _dot_as_clock(row: Row[Any]) -> str:
    return row.dots.rpartition(":")[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("done", DAMAGES)
def test_damage_is_found_and_named(done: str, posts: vstore.Collection, url: str) -> None:
    """One thing is done to a healthy store, and check says which document or place has become wrong, and how."""
    damage, kind, key = DAMAGES[done]
    assert list(posts.store.check()) == []

    damaged(url, damage)
    findings = list(posts.store.check())

    assert (kind, key) in {(finding.kind, finding.key) for finding in findings}, [*map(str, findings)]
    assert {finding.shard for finding in findings} == {posts.store.shards[0].database.name}


def test_a_gap_is_named_by_its_place(posts: vstore.Collection, url: str) -> None:
    """The third version of the document is deleted by hand."""
    place: list[int] = []

    def third(rows: Rows) -> Any:
        place.append(rows["doc"][2].id & ((1 << 40) - 1))
        return delete(version).where(version.c.id == rows["doc"][2].id)

    damaged(url, third)

    [gap] = [finding for finding in posts.store.check() if finding.kind == "gap"]
    assert f"place {place[0]} is empty in partition" in gap.what
    assert "a version or event was deleted" in gap.what
    assert gap.collection == "posts"


def test_a_finding_reads_as_a_sentence() -> None:
    """Where, which document, which version, and what."""
    finding = Finding("state", "its head has state 1, and 0 is right", "sqlite:///a.db", "posts", "doc", "1-00")

    assert str(finding) == "sqlite:///a.db posts 'doc' 1-00: its head has state 1, and 0 is right"
    assert str(Finding("map", "it has no map", "sqlite:///a.db")) == "sqlite:///a.db: it has no map"


def test_a_damaged_file_is_reported_and_the_rest_is_checked(local: Store) -> None:
    """A key's bytes are UTF-8 no more, so its page cannot be read; the damage in another collection is found too."""
    for name in ("first", "second"):
        local.create(name, partitions=1)["doc"] = {"n": 1}
    path = local.shards[0].database.path
    assert path is not None
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE vs_version SET key = CAST(x'ff' AS TEXT) WHERE collection = 1")
        connection.exec_driver_sql("UPDATE vs_version SET body = NULL WHERE collection = 2")
    engine.dispose()

    findings = {(finding.kind, finding.collection) for finding in local.check()}

    assert ("unreadable", "") in findings
    assert ("body", "second") in findings


def test_only_the_named_collections_are_checked(posts: vstore.Collection, url: str) -> None:
    """A damaged collection beside a healthy one; a name that is not there is an error."""
    store = posts.store
    store["notes"]["a"] = 1
    damaged(url, lambda rows: changed(rows["doc"][3], body=None))

    assert list(store.check(["notes"])) == []
    assert {finding.collection for finding in store.check(["posts", "notes"])} == {"posts"}
    with pytest.raises(vstore.NotFound, match="no collection 'ghost'"):
        store.check(["ghost"])


def test_progress_counts_up_to_all_versions(posts: vstore.Collection) -> None:
    """29 versions: 4 of the document, 3 of the rivals, 2 of what is gone, and 20."""
    seen: list[tuple[int, int]] = []

    assert list(posts.store.check(progress=lambda done, total: seen.append((done, total)))) == []

    assert seen[-1] == (29, 29)
    assert seen == sorted(seen)


def test_a_shard_that_lost_a_collection_is_named(tmp_path: Path) -> None:
    """Two files; the second one's definition is deleted by hand."""
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("a", "b")]
    with vstore.open(*urls) as store:
        store["posts"].put_many((f"k{n}", n) for n in range(20))
        damaged_tables(urls[1], [delete(collection)])

        findings = [finding for finding in store.check() if finding.kind == "definition"]

    assert [(finding.shard, finding.collection) for finding in findings] == [(urls[1], "posts")]


def damaged_tables(url: str, statements: Sequence[Any]) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    engine.dispose()


# --- nothing is found where nothing is wrong -------------------------------------------------------------------------


def used(stores: Sequence[Store], seed: int, steps: int) -> Iterator[int]:
    """Random use of replicas: puts of all kinds, deletes, siblings, resolving, pruning and syncs between them."""
    choice = random.Random(seed)
    posts = [store["posts"] for store in stores]
    contexts: dict[str, Context] = {}
    for step in range(steps):
        here, key, action = choice.choice(posts), f"k{choice.randrange(12)}", choice.randrange(20)
        try:
            if action < 8:
                here[key] = {"n": step}
            elif action < 10:
                contexts[key] = here.read(key, on_conflict="winner", deleted=True).context
            elif action < 13:
                here.put(key, {"n": choice.randrange(4)}, context=contexts.get(key, Context(key)))
            elif action < 15:
                del here[key]
            elif action < 16:
                here.resolve(key, {"n": -1})
            elif action < 17:
                here.prune(keep_last=choice.randrange(1, 4))
            elif len(stores) > 1:
                sync(*choice.sample(posts, 2))
        except (vstore.NotFound, vstore.Conflict):
            pass
        yield step


def test_replicas_in_random_use_have_no_findings(engine: str, fresh_url: Callable[[str], str], tmp_path: Path) -> None:
    """Three replicas, one of them on two files; checked every fifty steps."""
    seed = 4711
    with (
        vstore.open(fresh_url(engine)) as one,
        vstore.open(f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db") as two,
        vstore.open(f"sqlite:///{tmp_path}/c.db") as three,
    ):
        for step in used([one, two, three], seed, 300):
            if step % 50 == 49:
                for store in (one, two, three):
                    assert list(map(str, store.check())) == [], f"seed {seed}, step {step}"


def test_a_copied_file_that_went_on_with_new_actors_has_no_findings(local: Store, tmp_path: Path) -> None:
    """The copy's first write retires the old actors; what they did stays theirs."""
    local["posts"].put_many((f"k{n}", n) for n in range(50))
    original = Path(str(local.shards[0].database.path))
    local.close()
    shutil.copy(original, tmp_path / "copy.db")

    with vstore.open(f"sqlite:///{tmp_path}/copy.db") as store:
        store["posts"].put_many((f"k{n}", -n) for n in range(20, 70))

        assert list(store.check()) == []


def test_a_check_finds_nothing_while_others_write(store: Store) -> None:
    """Four threads put, delete and make siblings, and a fifth creates and drops collections, during ten checks."""
    ended = threading.Event()
    failed: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            while not ended.is_set():
                for _ in used([store], seed, 20):
                    pass
        except BaseException as error:
            failed.append(error)

    def create_and_drop() -> None:
        try:
            while not ended.is_set():
                store.create("brief", partitions=4).put_many((f"k{n}", n) for n in range(50))
                store.drop("brief")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    threads.append(threading.Thread(target=create_and_drop))
    for thread in threads:
        thread.start()
    try:
        findings = [str(finding) for _ in range(10) for finding in store.check()]
    finally:
        ended.set()
        for thread in threads:
            thread.join()

    assert failed == []
    assert findings == []
    assert list(store.check()) == []


def test_a_check_needs_little_memory_whatever_is_stored(local: Store) -> None:
    """Sixty documents of a megabyte, of which eight are held at a time."""
    local.create("large", partitions=1).put_many(((f"k{n}", "x" * 1_000_000) for n in range(60)), batch_rows=5)

    tracemalloc.start()
    findings = list(local.check())
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert findings == []
    assert peak < 30_000_000


# --- whatever is done ------------------------------------------------------------------------------------------------

SILENT = {"stamp", "epoch", "feed", "kind"}
"""Columns that nothing else tells of: a change of them alone leaves the store as consistent as it was."""


def leaves_no_trace(table: str, column: str, row: Any, new: Any) -> bool:
    """Whether the rest of the store agrees with the change as it did with what was there before."""
    if table == "vs_partition":
        return column == "actor" and row[4] == 0  # which has not written yet
    if table == "vs_head":
        return False
    deleted, stub, dots = row[4], row[5], row[7]
    return (
        (stub and column in ("rev", "parents"))  # the body that they were made of is gone
        or (deleted and column == "stub" and new == 1)  # neither has a body
        or (column == "dots" and [dot.rpartition(":")[0] for dot in str(new).split()] == [dots.rpartition(":")[0]])
    )


def done_at_random(connection: Any, choice: random.Random) -> str:
    """Changes one column of one row, or deletes a row; says what."""
    while True:
        table = choice.choice(["vs_version"] * 6 + ["vs_head"] * 3 + ["vs_partition"])
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()
        row = choice.choice(rows)
        keys = {"vs_version": ["id"], "vs_head": ["collection", "key", "id"], "vs_partition": ["id"]}[table]
        where = " AND ".join(f"{key} = ?" for key in keys)
        identity = [row[columns.index(key)] for key in keys]
        if choice.random() < 0.2:
            connection.execute(f"DELETE FROM {table} WHERE {where}", identity)
            return f"deleted {row} of {table}"
        column = choice.choice([column for column in columns if column not in SILENT])
        value = row[columns.index(column)]
        other = choice.choice(rows)[columns.index(column)]
        new = choice.choice([other, mutated(value, choice)])
        if new == value or leaves_no_trace(table, column, row, new):
            continue
        try:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", [new, *identity])
        except Exception:  # the database itself refuses it: no damage then
            continue
        return f"set {column} of {row} in {table} to {new!r}"


def mutated(value: Any, choice: random.Random) -> Any:
    if isinstance(value, int):
        return value + choice.choice([-1, 1, 1000])
    if isinstance(value, bytes):
        return flipped(value, choice.randrange(len(value)))
    if isinstance(value, str) and value:
        at = choice.randrange(len(value))
        return value[:at] + choice.choice(["", "0", "9", "a", ":"]) + value[at + 1 :]
    return value


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_done_to_a_row_is_found(seed: int, aged: Path, tmp_path: Path) -> None:
    """One random change of a random row in a store that has been in use for a while; the seed is the test's number."""
    path = tmp_path / "damaged.db"
    shutil.copy(aged, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        done = done_at_random(connection, random.Random(seed))

    with vstore.open(f"sqlite:///{path}") as store:
        assert list(store.check()) != [], f"seed {seed}: {done}"


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store after two hundred random steps."""
    folder = tmp_path_factory.mktemp("aged")
    with vstore.open(f"sqlite:///{folder}/a.db", state=folder / "state") as store:
        for _ in used([store], 1, 200):
            pass
    return folder / "a.db"
