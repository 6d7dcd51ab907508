"""Slices: parts of a collection that any process reads, as their reader wants them."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vstore
from vstore import CodecError, Collection, Conflict, Context, Document, HistoryPruned, InvalidToken, Store, scan, slices
from vstore.reading import Reading
from vstore.slices import Slice
from vstore.sql.database import Connection, Database
from vstore.sql.statements import Statement

_names = itertools.count(1)


def pairs(parts: Iterable[Slice], reading: Reading | None = None) -> list[tuple[str, Any]]:
    """All that some slices give, sorted by key."""
    reading = reading or Reading()
    return sorted(
        (pair for part in parts for batch in part.batches(reading) for pair in batch), key=lambda pair: pair[0]
    )


class Titles:
    """A shape: the title of a document; it notes how it was asked."""

    def __init__(self) -> None:
        self.decoded: list[bytes] = []
        self.converted: list[Any] = []

    def decode(self, data: bytes) -> Any:
        self.decoded.append(data)
        return json.loads(data)["title"]

    def convert(self, value: Any) -> Any:
        self.converted.append(value)
        return value["title"]


def damage(store: Store, key: str, body: bytes) -> None:
    """Another body in place of the only version of a key, as a bad disk would leave it."""
    for shard in store.shards:
        place = {"sqlite": "?"}.get(shard.database.dialect.name, "%s")
        connection = shard.database.engine.raw_connection()
        cursor = connection.cursor()
        wanted: str | bytes = key.encode() if shard.database.dialect.name == "mariadb" else key
        cursor.execute(
            f"UPDATE vs_version SET body = {place} WHERE {_column(shard.database)} = {place}", (body, wanted)
        )
        connection.commit()
        connection.close()


def _column(database: Database) -> str:
    return "`key`" if database.dialect.name == "mariadb" else "key"


class Statements:
    """Notes the statements of every connection, with how many rows each gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, int]] = []
        ask = Connection.rows

        def rows(connection: Connection, statement: Statement, params: Sequence[Any] = ()) -> list[Any]:
            found = ask(connection, statement, params)
            self.seen.append((statement.name, len(found)))
            return found

        monkeypatch.setattr(Connection, "rows", rows)

    @property
    def names(self) -> set[str]:
        """Which there were."""
        return {name for name, _rows in self.seen}


# --- what a reader says ----------------------------------------------------------------------------------------------


def test_a_slice_is_a_value_that_gives_the_same_documents_again(store: Store) -> None:
    """Pickled and read by whoever gets it, twice, with everything changed in between."""
    posts = store.create("posts", partitions=4)
    posts.put_many({f"k{n}": n for n in range(10)})
    parts = posts.snapshot().slices(3)
    copies = pickle.loads(pickle.dumps(parts))

    before = pairs(copies)
    posts.put_many({f"k{n}": "later" for n in range(5, 15)})
    posts.delete("k0")
    after = pairs(copies)

    assert len(parts) == 3
    assert before == [(f"k{n}", n) for n in range(10)]
    assert after == before


def test_batches_are_of_two_thousand_at_most(local: Store) -> None:
    """However many a page has, and whatever is asked of them."""
    posts = local["posts"]
    posts.put_many({f"k{n:04}": n for n in range(5_000)})

    for reading in (Reading(), Reading(versions=True)):
        sizes = [len(batch) for batch in posts.slices(1)[0].batches(reading)]

        assert sum(sizes) == 5_000
        assert 0 < max(sizes) <= 2_000


def test_a_shape_decodes_json_itself_and_converts_what_others_decoded(store: Store) -> None:
    """Plain JSON, compressed JSON, and siblings, which are compared whole first."""
    plain, packed = store["posts"], store.collection("posts", codec="zlib+json")
    plain["a"] = {"title": "A"}
    packed["b"] = {"title": "B", "text": "x" * 5_000}
    plain["c"] = {"title": "C"}
    plain.put("c", {"title": "C", "rival": True}, context=Context("c"))
    shape = Titles()
    reading = Reading(shape=shape)

    found = pairs(plain.slices(2), reading)

    assert found == [("a", "A"), ("b", "B"), ("c", "C")]
    assert shape.decoded == [b'{"title":"A"}']
    assert sorted(sorted(value) for value in shape.converted) == [["rival", "title"], ["text", "title"], ["title"]]
    assert reading.conflicts == 1


def test_conflicts_are_counted_and_shown_skipped_or_raised(store: Store) -> None:
    """Siblings that look alike are none."""
    posts = store["posts"]
    posts.put_many({"a": 1, "b": 1, "c": 1})
    for key, value in [("b", 2), ("c", 1)]:
        posts.put(key, value, context=Context(key))
    winner = posts.read("b", on_conflict="winner").value
    shown, skipped = Reading("winner"), Reading("skip")

    assert pairs(posts.slices(1), shown) == [("a", 1), ("b", winner), ("c", 1)]
    assert pairs(posts.slices(1), skipped) == [("a", 1), ("c", 1)]
    assert (shown.conflicts, skipped.conflicts) == (1, 1)
    with pytest.raises(Conflict, match=r"'b' in 'posts' has 2 live siblings") as caught:
        pairs(posts.slices(1), Reading("raise"))
    assert caught.value.document is not None
    assert sorted(sibling.value for sibling in caught.value.document.siblings) == [1, 2]


def test_the_bytes_that_were_read_are_counted(store: Store) -> None:
    """Of bodies: those of rivals too."""
    posts = store["posts"]
    posts.put_many({"a": "x" * 98, "b": "x" * 98})
    posts.put("b", "y" * 98, context=Context("b"))

    for versions in (False, True):
        reading = Reading(versions=versions)
        pairs(posts.slices(2), reading)

        assert reading.body_bytes >= 300


def test_versions_are_documents_with_rev_and_stamp(store: Store) -> None:
    """As `read` shows them, siblings too; with the value in the reader's shape."""
    posts = store["posts"]
    posts.put_many({"a": {"title": "A"}, "b": {"title": "B"}})
    posts.put("b", {"title": "B2"}, context=Context("b"))
    posts.put_many({"gone": 1})
    posts.delete("gone")

    found = dict(pairs(posts.slices(2), Reading(versions=True)))
    titles = dict(pairs(posts.slices(2), Reading(versions=True, shape=Titles())))

    assert found == {"a": posts.read("a"), "b": posts.read("b", on_conflict="winner")}
    assert {key: document.rev for key, document in titles.items()} == {key: each.rev for key, each in found.items()}
    assert titles["a"].value == "A"
    assert {sibling.value for sibling in titles["b"].siblings} == {"B", "B2"}
    assert titles["b"].value == titles["b"].siblings[0].value


@pytest.mark.parametrize("versions", [False, True])
@pytest.mark.parametrize("codec", ["json", "zlib+json"])
def test_a_body_that_cannot_be_decoded_is_told_and_the_rest_goes_on(store: Store, codec: str, versions: bool) -> None:
    """By key and rev; who does not want to be told gets an error that says as much."""
    posts = store.collection("posts", codec=codec)
    posts.put_many({f"k{n}": {"title": "x" * 2_000} for n in range(5)})
    rev = posts.read("k3").rev
    damage(store, "k3", b"{no json")
    told: list[tuple[str, str, Exception]] = []

    found = pairs(posts.slices(2), Reading(versions=versions, undecodable=lambda *what: told.append(what)))

    assert [key for key, _value in found] == ["k0", "k1", "k2", "k4"]
    assert [(key, of, type(error)) for key, of, error in told] == [("k3", rev, CodecError)]
    with pytest.raises(CodecError, match=f"'k3' in 'posts' at {rev} cannot be decoded"):
        pairs(posts.slices(2), Reading(versions=versions))
    with pytest.raises(CodecError, match=f"'k3' in 'posts' at {rev} cannot be decoded"):
        list(posts.items())


def test_a_sibling_that_cannot_be_decoded_is_named_by_its_own_rev(store: Store) -> None:
    """And not by the winner's."""
    posts = store["posts"]
    posts["k"] = {"title": "A"}
    other = posts.put("k", {"title": "B"}, context=Context("k"))
    loser = other.siblings[1]
    for shard in store.shards:
        connection = shard.database.engine.raw_connection()
        place = {"sqlite": "?"}.get(shard.database.dialect.name, "%s")
        connection.cursor().execute(f"UPDATE vs_version SET body = {place} WHERE rev = {place}", (b"{", loser.rev))
        connection.commit()
        connection.close()
    told: list[tuple[str, str]] = []

    assert pairs(posts.slices(1), Reading(undecodable=lambda key, rev, _error: told.append((key, rev)))) == []
    assert told == [("k", loser.rev)]


def test_what_a_shape_cannot_take_is_undecodable_too(local: Store) -> None:
    """A document without the field that the shape insists on."""
    posts = local["posts"]
    posts.put_many({"a": {"title": "A"}, "b": {}})
    told: list[tuple[str, str]] = []
    reading = Reading(shape=Titles(), undecodable=lambda key, rev, _error: told.append((key, rev)))

    assert pairs(posts.slices(1), reading) == [("a", "A")]
    assert told == [("b", posts.read("b").rev)]


def test_the_rev_of_a_document_is_that_of_the_slice(store: Store) -> None:
    """The winner's, then; none for what was deleted, was not there, or is in another slice."""
    posts = store.create("posts", partitions=4)
    view = posts.prefixed("x/")
    view.put_many({f"k{n}": n for n in range(4)})
    view.put("k1", "rival", context=Context("x/k1"))
    view["gone"] = 1
    view.delete("gone")
    revs = {f"k{n}": view.read(f"k{n}", on_conflict="winner").rev for n in range(4)}
    parts = view.slices(2)
    view.put_many({f"k{n}": "later" for n in range(4)})

    for key, rev in revs.items():
        holders = [part for part in parts if key in dict(pairs([part]))]
        assert [part.rev_of(key) for part in holders] == [rev]
    assert {part.rev_of("gone") for part in parts} == {part.rev_of("never") for part in parts} == {None}


def test_a_body_that_was_pruned_since_is_not_replaced_by_a_neighbours(store: Store) -> None:
    """The slice says so."""
    posts = store["posts"]
    posts["k"] = 1
    parts = posts.slices(1)
    posts["k"] = 2
    posts.prune(keep_last=1)

    with pytest.raises(HistoryPruned, match="'k' in 'posts'"):
        pairs(parts)


# --- what a database may leave out -----------------------------------------------------------------------------------

TEXTS = st.text("ab\"\\%_'é\u2028\U0001f600", max_size=6)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=12),
    rivals=st.sets(st.integers(0, 11)),
    packed=st.sets(st.integers(0, 11)),
    holding=st.lists(st.lists(TEXTS.filter(bool), max_size=2), max_size=2),
)
def test_only_what_holds_none_of_the_bytes_is_left_out(
    store: Store, texts: list[str], rivals: set[int], packed: set[int], holding: list[list[str]]
) -> None:
    """Against Python's `in`, on each database. What is not plain JSON, or has rivals, comes whatever it holds."""
    name = f"c{next(_names)}"
    posts, small = store.collection(name), store.collection(name, codec="zlib+json")
    expected = {}
    alternatives = tuple(tuple(text.encode() for text in texts) for texts in holding)
    for n, text in enumerate(texts):
        value = [text, "x" * 2_000 * (n in packed)]
        (small if n in packed else posts)[f"k{n}"] = value
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        holds = all(any(part in body for part in parts) for parts in alternatives if parts)
        if n in rivals:
            posts.put(f"k{n}", [text, "rival"], context=Context(f"k{n}"))
        if holds or n in rivals or n in packed:
            expected[f"k{n}"] = text

    found = pairs(posts.slices(2), Reading(holding=alternatives))

    assert {key: value[0] for key, value in found} == expected
    store.drop(name)


def test_a_search_without_a_find_is_many_short_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks at a page of heads, so that a reader can be stopped between them."""
    posts = store.create("posts", partitions=2)
    posts.put_many({f"k{n:03}": n for n in range(100)})
    monkeypatch.setattr(scan, "CHUNK_ROWS", 10)
    statements = Statements(monkeypatch)

    found = pairs(posts.slices(1), Reading(holding=((b"nothing",),)))

    assert found == []
    assert [name for name, _rows in statements.seen].count("live values in feed order that hold some bytes") >= 10


# --- ranges of keys --------------------------------------------------------------------------------------------------

KEYS = st.text("ab/\u00e9\uffff\U0001f600", min_size=1, max_size=4)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(KEYS, min_size=1, max_size=25, unique=True),
    rivals=st.sets(st.integers(0, 24)),
    gone=st.sets(st.integers(0, 24)),
    prefix=st.sampled_from(["", "a", "a/", "\U0001f600", "\U0010ffff"]),
    start=st.none() | KEYS,
    end=st.none() | KEYS,
    count=st.integers(1, 5),
)
def test_a_range_has_the_keys_that_python_would_choose(
    store: Store,
    keys: list[str],
    rivals: set[int],
    gone: set[int],
    prefix: str,
    start: str | None,
    end: str | None,
    count: int,
) -> None:
    """Read through the index of keys or not, whole or in slices, with rivals and tombstones among them."""
    name = f"c{next(_names)}"
    posts = store.create(name, partitions=4)
    posts.put_many({key: key for key in keys})
    for n, key in enumerate(keys):
        if n in gone:
            posts.delete(key)
        if n in rivals:
            posts.put(key, key, context=Context(key))
            posts.put(key, "rival", context=Context(key))
    live = {key for n, key in enumerate(keys) if n not in gone or n in rivals}
    expected = sorted(
        key[len(prefix) :]
        for key in live
        if key.startswith(prefix) and (start or "") <= key[len(prefix) :] and (end is None or key[len(prefix) :] < end)
    )

    for cost in (1, 1_000):  # by key wherever it can be, and never
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scan, "BY_KEY_COST", cost)
            patch.setattr(scan, "CHUNK_ROWS", 3)
            part = posts.prefixed(prefix).snapshot(start, end)
            assert sorted(part) == expected
            assert [key for key, _value in part.items(on_conflict="winner")] == list(part)
            assert [key for key, _value in pairs(part.slices(count))] == expected
            assert [key for key, _value in pairs(part.slices(count), Reading(versions=True))] == expected
            assert part.len_estimate() >= len(expected)
    store.drop(name)


def test_a_small_part_is_read_through_the_index_and_a_large_one_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of a thousand documents are not worth a thousand rows; half of them are, however many versions each has."""
    posts = store.create("posts", partitions=4)
    for _ in range(4):
        posts.put_many({f"{'few' if n % 100 == 0 else 'half' if n % 2 else 'rest'}/{n:03}": n for n in range(1_000)})
    statements = Statements(monkeypatch)

    few = list(posts.prefixed("few/").items())
    by_key = statements.names
    statements.seen.clear()
    half = list(posts.prefixed("half/").items())

    assert few == [(f"{n:03}", n) for n in range(0, 1_000, 100)]
    assert ("live values in key order" in by_key, "live values in feed order" in by_key) == (True, False)
    assert len(half) == 500
    assert "live values in key order" not in statements.names


def test_slices_of_a_range_are_about_equally_large(store: Store) -> None:
    """Cut at keys, by counting heads."""
    posts = store.create("posts", partitions=4)
    posts.put_many({f"{'few' if n % 10 == 0 else 'rest'}/{n:04}": n for n in range(2_000)})

    sizes = [len(pairs([part])) for part in posts.prefixed("few/").slices(4)]

    assert sizes == [50, 50, 50, 50]


def test_a_range_is_of_text(local: Store) -> None:
    """Anything else is refused and named."""
    posts = local["posts"]
    posts["a"] = 1

    with pytest.raises(vstore.ConfigurationError, match="from 3 to None refused"):
        posts.snapshot(start=3)  # type: ignore[arg-type]


# --- the token -------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_made_again_from_its_token(store: Store) -> None:
    """With the same slices: a part that was read before a crash need not be read again."""
    posts = store.create("posts", partitions=8)
    posts.put_many({f"x/{n}": n for n in range(20)} | {f"y/{n}": n for n in range(200)})
    for collection in (posts.prefixed("x/"), posts):
        token = collection.snapshot().since
        before = [pairs([part]) for part in collection.snapshot(since=token).slices(3)]
        posts.put_many({f"x/{n}": "later" for n in range(15, 400)})

        again = [pairs([part]) for part in collection.snapshot(since=token).slices(3)]

        assert again == before
        assert collection.snapshot(since=token).since == token
        posts.delete_many(list(posts.keys(prefix="x/")))
        posts.put_many({f"x/{n}": n for n in range(20)})
    with pytest.raises(InvalidToken):
        posts.snapshot(since=posts.changes(full=True).since)
    with pytest.raises(InvalidToken):
        posts.snapshot(since="nonsense")


# --- where a slice is read -------------------------------------------------------------------------------------------


def test_a_slice_never_shows_the_password_of_its_database(fresh_url: Callable[[str], str]) -> None:
    """Neither as text nor in its repr; it says what it is."""
    with vstore.open(fresh_url("sqlite")) as store:
        posts = store.create("posts", partitions=4)
        posts["a"] = 1
        [part] = posts.snapshot().slices(1)
    secret = Slice("postgresql://me:secret@host/db", "postgresql://me:***@host/db", "posts", part.part, {}, "x/")

    assert str(secret).endswith(" of 'posts' under 'x/' in postgresql://me:***@host/db")
    assert "secret" not in str(secret) + repr(secret)


def connections(part: Slice) -> int:
    """How many connections of this process are open for slices of that database."""
    pool: Any = slices._databases[part.url].database.engine.pool
    return int(pool.checkedin() + pool.checkedout())


def test_a_process_that_has_read_its_slices_holds_no_connection(store: Store) -> None:
    """While some are being read their connections are kept for each other; with the last one they are closed."""
    posts = store.create("posts", partitions=2)
    posts.put_many({f"k{n:04}": n for n in range(1_000)})
    first, second = posts.slices(2)

    one: Iterator[Any] = first.batches(Reading())
    next(one)
    pairs([second])
    during = connections(first)
    list(one)

    assert during > 0
    assert connections(first) == 0
    assert pairs([first, second]) == [(f"k{n:04}", n) for n in range(1_000)]


def test_a_slice_of_a_document_that_a_reader_changes_is_not_changed(local: Store) -> None:
    """What is handed out is decoded for each reader."""
    posts = local["posts"]
    posts["a"] = {"tags": []}
    part = posts.slices(1)[0]
    pairs([part])[0][1]["tags"].append("mine")

    assert pairs([part]) == [("a", {"tags": []})]


def test_documents_of_versions_are_documents(local: Store) -> None:
    """Of every kind of source."""
    posts: Collection = local["posts"]
    posts["a"] = 1
    for source in (posts, posts.snapshot(), posts.at(posts.read("a").stamp), posts.history_scan()):
        [(key, found)] = pairs(source.slices(1), Reading(versions=True))

        assert isinstance(found, Document)
        assert (key, found.key, found.value, found.rev) == ("a", "a", 1, posts.read("a").rev)


def test_threads_read_slices_of_one_database_beside_each_other(store: Store) -> None:
    """Some begin while others end: none loses its connection to them."""
    posts = store.create("posts", partitions=8)
    posts.put_many({f"k{n:04}": n for n in range(2_000)})
    parts = posts.slices(8)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: pairs([parts[n % 8]]), range(40)))

    assert sorted(itertools.chain.from_iterable(found[:8])) == [(f"k{n:04}", n) for n in range(2_000)]
    assert all(found[n] == found[n % 8] for n in range(40))
    assert connections(parts[0]) == 0


def test_a_slice_of_a_relative_path_is_read_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stores of one name in two folders; workers may stand in either, and the place of a slice is no folder's."""
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with vstore.open("sqlite:///shop.db") as store:
            store["things"]["a"] = name
            parts = pickle.loads(pickle.dumps(store["things"].slices(1)))
        monkeypatch.chdir(tmp_path)
        found.append(pairs(parts))

    assert found == [[("a", "one")], [("a", "two")]]
