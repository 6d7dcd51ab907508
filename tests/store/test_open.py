"""Opening: the databases given are exactly one store, or nothing is touched; and making one survives crashes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.schema import CreateTable

import vstore
from vstore import assembly, catalogue
from vstore.sql import schema
from vstore.sql.database import Database

Urls = Callable[[str], str]
MIXED = [["sqlite", "sqlite", "sqlite"], ["sqlite", "postgresql", "mariadb"]]


class Crash(Exception):
    """What a test raises where a process would have died."""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """URLs of three files that are not there yet."""
    return [f"sqlite:///{tmp_path / name}.db" for name in ("a", "b", "c")]


def made(urls: Sequence[str]) -> None:
    """A store with ten documents."""
    with vstore.open(*urls) as store:
        store["posts"].put_many((f"k{n}", n) for n in range(10))


def content(url: str) -> dict[str, list[Any]]:
    """Every row of a file, by table; nothing for a file that is not there."""
    path = url.removeprefix("sqlite:///")
    if not Path(path).exists():
        return {}
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    connection.close()
    return rows


def run(url: str, statement: str) -> None:
    """One statement on a database, past vstore."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


# --- which databases -------------------------------------------------------------------------------------------------


@pytest.mark.new_database
@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
def test_urls_in_another_order_are_the_same_store(kinds: list[str], fresh_url: Urls) -> None:
    """Three shards are opened first as 0 1 2, then as 2 0 1."""
    urls = [fresh_url(kind) for kind in kinds]
    made(urls)

    with vstore.open(urls[2], urls[0], urls[1]) as store:
        found = dict(store["posts"])

    assert found == {f"k{n}": n for n in range(10)}


def test_keys_are_where_they_were_put_whatever_the_order_of_urls(files: list[str]) -> None:
    """Placement is for ever: these keys are in these files, as the hash and the first map say."""
    golden = {"fig": 0, "grape": 0, "apple": 1, "banana": 1, "hazel": 1, "iris": 2}
    with vstore.open(*files) as store:
        store["fruit"].put_many((key, "before") for key in golden)
    with vstore.open(*reversed(files)) as store:
        store["fruit"].put_many((key, "after") for key in golden)

    places = {key: place for place, url in enumerate(files) for _collection, key, *_ in content(url)["vs_head"]}

    assert places == golden


@pytest.mark.parametrize(
    "given", [(0, 1), (2,), (0, 1, 2, 3)], ids=["one missing", "two missing", "a blank one too many"]
)
def test_anything_but_all_shards_is_refused_and_nothing_changes(
    given: tuple[int, ...], files: list[str], tmp_path: Path
) -> None:
    """A store of three shards; some are left out, or a blank database comes along."""
    made(files)
    urls = [*files, f"sqlite:///{tmp_path / 'd.db'}"]
    before = [content(url) for url in urls]

    with pytest.raises(vstore.ConfigurationError, match="has 3 shards"):
        vstore.open(*[urls[place] for place in given])

    assert [content(url) for url in urls] == before


def test_a_blank_database_never_takes_the_place_of_a_shard(files: list[str]) -> None:
    """The file of the second shard is lost; its URL is right, and what was in it must not be forgotten silently."""
    made(files)
    Path(files[1].removeprefix("sqlite:///")).unlink()

    with pytest.raises(vstore.ConfigurationError, match=r"1 missing, and blank: .*b\.db"):
        vstore.open(*files)

    assert content(files[1]) == {}


def test_a_database_of_another_store_is_refused(files: list[str]) -> None:
    """Two stores of one file each are given as if they were one of two."""
    made(files[:1])
    made(files[1:2])

    with pytest.raises(vstore.ConfigurationError, match="2 different stores"):
        vstore.open(files[0], files[1])


def test_a_database_given_twice_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """The second URL goes round by a symbolic link."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")

    with pytest.raises(vstore.ConfigurationError, match="given twice"):
        vstore.open(f"sqlite:///{tmp_path}/data/a.db", f"sqlite:///{tmp_path}/link/a.db")

    assert list((tmp_path / "data").iterdir()) == []


def test_a_copied_file_beside_its_original_is_refused(files: list[str]) -> None:
    """One of two files is a copy of the other."""
    made(files[:1])
    Path(files[1].removeprefix("sqlite:///")).write_bytes(Path(files[0].removeprefix("sqlite:///")).read_bytes())

    with pytest.raises(vstore.ConfigurationError, match="are the same shard: one is a copy of the other"):
        vstore.open(files[0], files[1])


@pytest.mark.new_database
def test_a_store_that_is_not_there_is_not_made_when_that_is_not_wanted(url: str) -> None:
    """`create=False` on a blank database; afterwards it is still blank."""
    for _ in range(2):
        with pytest.raises(vstore.NotFound, match="there is no store at"):
            vstore.open(url, create=False)


def test_a_store_that_is_half_there_is_not_completed_when_that_is_not_wanted(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making it ended after the first database; then it is opened with `create=False`."""
    crash_at(monkeypatch, files[1])
    with pytest.raises(Crash):
        vstore.open(*files)

    with pytest.raises(vstore.ConfigurationError, match="2 missing"):
        vstore.open(*files, create=False)

    assert content(files[1]) == {}


def test_no_database_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    """A text file and a path into nowhere are refused, each for what it is, and stay as they are."""
    notes = tmp_path / "notes.db"
    notes.write_text("Dear diary, " * 100)

    with pytest.raises(vstore.ConfigurationError, match="is a file, and no SQLite database"):
        vstore.open(f"sqlite:///{notes}")
    with pytest.raises(vstore.ConfigurationError, match="there is no folder for it"):
        vstore.open(f"sqlite:///{tmp_path}/nowhere/a.db")

    assert notes.read_text() == "Dear diary, " * 100
    assert not (tmp_path / "nowhere").exists()


def test_a_database_from_the_future_is_refused_and_left_alone(url: str) -> None:
    """Its format says 99; when it says 2 again, everything is as it was."""
    made([url])
    run(url, "UPDATE vs_meta SET value = '99' WHERE name = 'format'")

    with pytest.raises(vstore.SchemaMismatch, match="has format 99, this vstore reads up to 2"):
        vstore.open(url)

    run(url, "UPDATE vs_meta SET value = '2' WHERE name = 'format'")
    with vstore.open(url) as store:
        assert len(store["posts"]) == 10


def test_a_temporary_store_is_gone_when_it_is_closed() -> None:
    """`sqlite://` has no file that anyone would have to name or delete."""
    with vstore.open("sqlite://") as store:
        store["posts"]["hello"] = 1
        path = Path(str(store.shards[0].database.path))
        assert path.exists()

    assert not path.exists()
    with vstore.open("sqlite://") as another:
        assert list(another) == []


# --- making a store --------------------------------------------------------------------------------------------------


def crash_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """From here on the making of a store dies at this database."""
    prepare = assembly.prepare

    def dying(database: Any, first_meta: Any) -> Any:
        if database.url.database == vstore_database(url):
            raise Crash
        return prepare(database, first_meta)

    monkeypatch.setattr(assembly, "prepare", dying)


def vstore_database(url: str) -> str:
    return url.removeprefix("sqlite:///") if url.startswith("sqlite") else url.rpartition("/")[2]


@pytest.mark.new_database
@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
def test_an_interrupted_first_opening_is_finished_by_the_next(
    kinds: list[str], fresh_url: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at each of three databases in turn, and the last opening gives them in another order."""
    urls = [fresh_url(kind) for kind in kinds]
    for url in urls:
        with monkeypatch.context() as patch:
            crash_at(patch, url)
            with pytest.raises(Crash):
                vstore.open(*urls)

    with vstore.open(*reversed(urls)) as store:
        store["posts"]["hello"] = 1

    with vstore.open(*urls) as store:
        assert dict(store["posts"]) == {"hello": 1}
        assert len(store.shards) == 3
        assert list(store.check()) == []


def test_an_interrupted_first_opening_is_not_finished_with_another_database(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second opening has a slip of the pen in one URL; the right database may be a shard already."""
    crash_at(monkeypatch, files[2])
    with pytest.raises(Crash):
        vstore.open(*files)
    monkeypatch.undo()
    monkeypatch.setenv("VSTORE_STATE", str(tmp_path / "state"))

    with pytest.raises(vstore.ConfigurationError, match=r"blank: .*cc\.db"):
        vstore.open(files[0], files[1], f"sqlite:///{tmp_path / 'cc'}.db")

    vstore.open(*files).close()


@pytest.mark.new_database
def test_tables_that_a_crash_left_half_made_are_finished(url: str) -> None:
    """MariaDB commits each CREATE TABLE by itself: two tables and some rows are there, and the format is not."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for table in (schema.meta, schema.collection):
            connection.execute(CreateTable(table))
        connection.execute(schema.meta.insert().values(name="store", value="of nobody"))
    engine.dispose()

    with vstore.open(url) as store:
        store["posts"]["hello"] = 1
        assert store.id != "of nobody"

    with vstore.open(url) as again:
        assert again.id == store.id
        assert dict(again["posts"]) == {"hello": 1}


START = """
import sys, vstore
sys.stdin.readline()
with vstore.open(*sys.argv[2:]) as store:
    for n in range(20):
        store["posts"][f"{sys.argv[1]}-{n}"] = n
    print(store.id, *store.map.shards)
"""


def processes(urls: Sequence[str], count: int, program: str = START) -> list[str]:
    """Starts processes that run the program on a store at the same moment; what each prints."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(n), *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(count)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in running]
    for process, (_out, errors) in zip(running, ends, strict=True):
        assert process.returncode == 0, errors
    return [out.strip() for out, _errors in ends]


@pytest.mark.new_database
def test_processes_that_open_a_blank_database_at_once_get_one_store(url: str) -> None:
    """Four processes make the store, and its collection, at the same moment; each writes twenty documents."""
    printed = processes([url], 4)

    assert len(set(printed)) == 1
    with vstore.open(url) as store:
        assert len(store["posts"]) == 80
        assert list(store.check()) == []


@pytest.mark.new_database
def test_threads_that_open_a_blank_database_at_once_get_one_store(url: str) -> None:
    """Four threads meet at a barrier, and each opens a store of its own."""
    barrier = threading.Barrier(4)

    def opened(n: int) -> str:
        barrier.wait()
        with vstore.open(url) as store:
            store["posts"][f"k{n}"] = n
            return store.id

    with ThreadPoolExecutor(4) as threads:
        ids = set(threads.map(opened, range(4)))

    with vstore.open(url) as store:
        assert ids == {store.id}
        assert dict(store["posts"]) == {"k0": 0, "k1": 1, "k2": 2, "k3": 3}
        assert list(store.check()) == []


@pytest.mark.new_database
def test_processes_that_open_blank_shards_at_once_get_one_store(fresh_url: Urls) -> None:
    """Three kinds of database, three processes."""
    urls = [fresh_url(kind) for kind in ("sqlite", "postgresql", "mariadb")]

    printed = processes(urls, 3)

    assert len(set(printed)) == 1
    with vstore.open(*urls) as store:
        assert len(store["posts"]) == 60
        assert list(store.check()) == []


# --- collections -----------------------------------------------------------------------------------------------------


def shards_of(fresh_url: Urls, engine: str) -> list[str]:
    return [fresh_url(engine) for _ in range(3)]


def test_reading_a_collection_that_nobody_wrote_finds_nothing_and_makes_nothing(store: vstore.Store) -> None:
    """Every kind of read; afterwards there is still no collection."""
    ghost = store["ghost"]

    assert dict(ghost) == {}
    assert len(ghost) == 0
    assert "hello" not in ghost
    assert ghost.get("hello", 7) == 7
    assert list(ghost.keys("h")) == list(ghost.conflicts()) == []
    with pytest.raises(vstore.NotFound):
        ghost["hello"]
    with pytest.raises(vstore.NotFound, match="no collection 'ghost' yet"):
        ghost.snapshot()
    assert list(store) == []


def test_collections_are_created_listed_renamed_and_dropped(fresh_url: Urls, engine: str) -> None:
    """The life of two collections on three shards; each step is seen by a second store that is open all the time."""
    urls = shards_of(fresh_url, engine)
    with vstore.open(*urls) as store, vstore.open(*urls) as other:
        store.create("posts", partitions=8)["a"] = 1
        store["notes"]["a"] = 2
        with pytest.raises(vstore.ConfigurationError, match="'posts' exists already"):
            other.create("posts")
        with pytest.raises(vstore.ConfigurationError, match="'notes' exists already"):
            other.rename("posts", "notes")
        with pytest.raises(vstore.NotFound, match=r"no collection 'ghost'\. It has: notes, posts"):
            other.drop("ghost")

        other.rename("posts", "letters")
        assert store.collections() == ["letters", "notes"]
        assert dict(store["letters"]) == {"a": 1}

        other.drop("letters")
        assert list(store) == ["notes"]
        assert len(store) == 1
        assert "letters" not in store
        assert list(store.check()) == []


def test_a_name_that_another_process_dropped_and_used_again_is_noticed(fresh_url: Urls, engine: str) -> None:
    """This store still believes in the old collection; what it writes goes to the new one, and into no other."""
    urls = shards_of(fresh_url, engine)
    with vstore.open(*urls) as store, vstore.open(*urls) as other:
        store["posts"].put_many((f"k{n}", "old") for n in range(10))
        other.drop("posts")
        other["letters"].put_many((f"k{n}", "letter") for n in range(10))
        other["posts"].put_many((f"k{n}", "new") for n in range(10))

        store["posts"].put_many((f"k{n}", "mine") for n in range(5))

        assert dict(other["letters"]) == {f"k{n}": "letter" for n in range(10)}
        assert dict(other["posts"]) == {f"k{n}": "mine" if n < 5 else "new" for n in range(10)}
        assert dict(store["posts"]) == dict(other["posts"])
        assert list(store.check()) == []


def crash_in(monkeypatch: pytest.MonkeyPatch, name: str, place: int) -> None:
    """From here on a step of the catalogue dies when it is called for the nth time."""
    step = getattr(catalogue, name)
    calls = [0]

    def dying(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] > place:
            raise Crash
        return step(*arguments)

    monkeypatch.setattr(catalogue, name, dying)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_creation_that_died_halfway_is_as_if_it_had_not_begun(
    place: int, fresh_url: Urls, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies at the first, second or third shard; the next one creates it, with another number of partitions."""
    with vstore.open(*shards_of(fresh_url, engine)) as store:
        with monkeypatch.context() as patch:
            crash_in(patch, "_define", place)
            with pytest.raises(Crash):
                store.create("posts", partitions=16)
        assert list(store) == []
        assert list(store.check()) == []

        store.create("posts", partitions=8).put_many((f"k{n}", n) for n in range(10))

        assert len(store["posts"]) == 10
        assert list(store.check()) == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_drop_that_died_halfway_is_finished_by_the_next_change(
    place: int, fresh_url: Urls, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees the collection any more; its rows go when a collection is created, of the same name even."""
    with vstore.open(*shards_of(fresh_url, engine)) as store:
        store["posts"].put_many((f"k{n}", n) for n in range(10))
        with monkeypatch.context() as patch:
            crash_in(patch, "_drop", place)
            with pytest.raises(Crash):
                store.drop("posts")
        store.forget("posts")
        assert list(store) == []
        assert dict(store["posts"]) == {}

        store["posts"]["new"] = 1

        assert dict(store["posts"]) == {"new": 1}
        assert sum(store.stats()["posts"][kind] for kind in ("documents", "versions")) == 2
        assert list(store.check()) == []


@pytest.mark.parametrize("place", [1, 2])
def test_a_rename_that_died_halfway_leaves_one_name_and_every_document(
    place: int, fresh_url: Urls, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards the old name is taken by a new collection: no shard may mistake one for the other."""
    with vstore.open(*shards_of(fresh_url, engine)) as store:
        store["old"].put_many((f"k{n}", n) for n in range(10))
        with monkeypatch.context() as patch:
            crash_in(patch, "_call", place)
            with pytest.raises(Crash):
                store.rename("old", "new")
        store.forget("old")
        assert list(store) == ["new"]

        store["old"]["other"] = 1

        assert dict(store["new"]) == {f"k{n}": n for n in range(10)}
        assert dict(store["old"]) == {"other": 1}
        assert list(store.check()) == []


def test_two_processes_that_create_many_collections_at_once_get_each_of_them_once(fresh_url: Urls, engine: str) -> None:
    """Both create the same ten names on three shards, each in its own order."""
    urls = shards_of(fresh_url, engine)
    vstore.open(*urls).close()

    processes(
        urls,
        2,
        """
import sys, vstore
who = int(sys.argv[1])
sys.stdin.readline()
with vstore.open(*sys.argv[2:]) as store:
    for n in range(10):
        store[f"c{(n * (3 if who else 7)) % 10}"][f"{who}"] = n
""",
    )

    with vstore.open(*urls) as store:
        assert list(store) == [f"c{n}" for n in range(10)]
        assert [sorted(store[name]) for name in store] == [["0", "1"]] * 10
        assert list(store.check()) == []


def test_a_collection_is_not_created_inside_a_transaction_of_one_shard_of_several(files: list[str]) -> None:
    """If the transaction were rolled back, one shard would be without it."""
    with vstore.open(*files) as store:
        with pytest.raises(vstore.ConfigurationError, match="inside transaction"), store.transaction(shard=1):
            store["posts"]["hello"] = 1

        assert list(store) == []


def test_a_shard_that_was_restored_from_before_a_collection_does_not_cost_the_others_theirs(
    files: list[str], tmp_path: Path
) -> None:
    """The first shard's backup knows no collection; the documents of the other shards are still wanted."""
    vstore.open(*files).close()
    first = Path(files[0].removeprefix("sqlite:///"))
    backup = first.read_bytes()
    made(files)
    first.write_bytes(backup)

    with vstore.open(*files) as store, pytest.raises(vstore.ConfigurationError, match="restored from an older backup"):
        store["posts"]["hello"] = 1

    assert len(content(files[1])["vs_version"]) + len(content(files[2])["vs_version"]) > 0


# --- actors ----------------------------------------------------------------------------------------------------------


def actors(store: vstore.Store) -> set[str]:
    """Who writes in the first shard."""
    return {row[0] for row in store.shards[0].database.read().text("SELECT actor FROM vs_partition")}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("postgresql", marks=pytest.mark.postgres),
        pytest.param("mariadb", marks=pytest.mark.mariadb),
    ],
)
def test_a_restored_database_gets_new_actors_whatever_its_first_change_is(kind: str, fresh_url: Urls) -> None:
    """A dump is restored on another server; a collection and a checkpoint are written there, and then a document."""
    url = fresh_url(kind)
    made([url])
    run(url, "UPDATE vs_meta SET value = 'another server' WHERE name = 'identity'")

    with vstore.open(url) as store:
        before = actors(store)
        store.create("notes", partitions=1)
        store.set_checkpoint("import:posts", 10)
        store["posts"]["k1"] = "after the restore"

        assert actors(store).isdisjoint(before)
        assert list(store.check()) == []


def test_a_checkpoint_inside_a_transaction_does_not_cost_the_actor(local: vstore.Store) -> None:
    """Document, checkpoint, document in one transaction; the next write goes on with the same actor."""
    local.create("posts", partitions=1)["a"] = 1
    before = actors(local)

    with local.transaction():
        local["posts"]["b"] = 2
        local.set_checkpoint("import:posts", 2)
        local["posts"]["c"] = 3
    local["posts"]["d"] = 4

    assert actors(local) == before
    assert local.checkpoint("import:posts") == 2
    assert dict(local["posts"]) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_a_new_file_that_another_turns_into_a_wal_at_the_same_moment_is_waited_for(tmp_path: Path) -> None:
    """SQLite says "locked" to one of the two at once, whatever time-out it was given."""
    told = []

    class Busy:
        def execute(self, text: str) -> None:
            told.append(text)
            if len(told) < 3:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorname = "SQLITE_BUSY"
                raise error

    Database(f"sqlite:///{tmp_path}/new.db")._set_up(Busy(), "PRAGMA journal_mode=WAL")

    assert told == ["PRAGMA journal_mode=WAL"] * 3
