"""Codecs as a store uses them: named for a store or a collection, and noted in every row."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vstore
from vstore import CodecError, Context, InvalidDocument, Store
from vstore.sql.statements import VALUES

JSON_CODECS = ("json", "zlib+json", "zstd+json")
TEXT = {"text": "the same words again and again " * 400}


def codec_of(store: Store, key: str) -> str:
    """The name that the row of the document's one head has."""
    handle = store.handle("posts")
    assert handle is not None
    shard, definition, _part = handle.place(key)
    [(_key, _state, codec, _body)] = shard.database.ask(VALUES(1), (definition.id, key))
    return str(codec)


def test_each_codec_keeps_documents_small_and_large(store: Store) -> None:
    """A body below 1 KiB is not worth compressing and stays JSON under its own name."""
    values = {"small": {"a": 1}, "large": TEXT, "null": None, "text": "é\U0001f600"}

    for name in JSON_CODECS:
        posts = store.collection("posts", codec=name).prefixed(f"{name}/")
        posts.put_many(values)

        assert dict(posts) == values
        assert posts.get_many(values) == values
        assert next(posts.history("large")).value == TEXT
        assert posts.at("9999-12-31")["large"] == TEXT
        assert {change.key: change.value for change in posts.changes(values=True)} == values
        assert (codec_of(store, f"{name}/small"), codec_of(store, f"{name}/large")) == ("json", name)

    assert list(store.check()) == []


def test_a_store_that_changes_its_codec_reads_its_old_rows(url: str) -> None:
    """One document under each codec, then all of them read, by plain reads and by history, under each."""
    for name in JSON_CODECS:
        with vstore.open(url, codec=name) as store:
            store["posts"][name] = TEXT
            store["posts"]["all"] = [name, TEXT]

    for name in JSON_CODECS:
        with vstore.open(url, codec=name) as store:
            assert {key: store["posts"][key] for key in JSON_CODECS} == dict.fromkeys(JSON_CODECS, TEXT)
            assert [codec_of(store, key) for key in JSON_CODECS] == list(JSON_CODECS)
            assert [version.value[0] for version in store["posts"].history("all")] == ["zstd+json", "zlib+json", "json"]


def test_equal_content_has_an_equal_rev_under_every_codec(store: Store) -> None:
    """The same edit of the same version, written under each codec: one version, as it was the first time."""
    posts = store["posts"]
    seen = posts.put("a", "first").context

    revs = {store.collection("posts", codec=name).put("a", TEXT, context=seen).rev for name in JSON_CODECS}

    assert len(revs) == 1
    assert len(list(posts.history("a"))) == 2
    assert codec_of(store, "a") == "json"


def test_identical_siblings_of_two_codecs_are_one(store: Store) -> None:
    """Two creations of one value are two versions; a reader has nothing to choose between."""
    store.collection("posts", codec="zlib+json").put("a", TEXT, context=Context("a"))
    store.collection("posts", codec="json").put("a", TEXT, context=Context("a"))

    posts = store["posts"]
    assert posts["a"] == TEXT
    assert not posts.read("a").conflicted
    assert list(posts.conflicts()) == []


def test_pickle_keeps_what_json_has_not_where_it_is_named_and_allowed(url: str) -> None:
    """A set and a tuple come back as they were; beside them JSON goes on."""
    value = {"tags": {"a", "b"}, "at": (1, 2), 3: b"bytes"}
    with vstore.open(url, allow_pickle=True) as store:
        pickled = store.collection("posts", codec="pickle")
        pickled["a"] = value
        pickled["large"] = [value] * 1_000
        store.collection("posts", codec="zlib+pickle")["compressed"] = list(range(5_000))
        store["posts"]["b"] = {"plain": 1}

        assert store["posts"]["a"] == value
        assert store["posts"].get_many(["a", "b"]) == {"a": value, "b": {"plain": 1}}
        assert len(dict(store["posts"].items())) == 4
        assert [codec_of(store, key) for key in ("a", "b", "compressed")] == ["pickle", "json", "zlib+pickle"]
        with pytest.raises(InvalidDocument, match="cannot be pickled"):
            pickled["c"] = lambda: None
        with pytest.raises(InvalidDocument):
            store["posts"]["c"] = value  # allowed, but not named
        assert "c" not in store["posts"]


def test_pickle_is_refused_with_the_reason_unless_it_is_allowed(tmp_path: Path) -> None:
    """Named for a store, for a collection, and inside a compressed one: nothing is opened or written."""
    url = f"sqlite:///{tmp_path}/a.db"
    reason = "reading a pickle runs code chosen by whoever wrote it"

    with pytest.raises(CodecError, match=reason):
        vstore.open(url, codec="pickle")
    with vstore.open(url) as store:
        for name in ("pickle", "zlib+pickle"):
            with pytest.raises(CodecError, match=rf"{reason}.*Pass allow_pickle=True"):
                store.collection("posts", codec=name)
        assert store.collections() == []


def test_a_pickled_row_is_not_read_by_a_store_that_does_not_allow_it(url: str, tmp_path: Path) -> None:
    """Its bytes would make a file when they are read. Every way to them refuses, and other documents can be read."""
    trace = tmp_path / "it ran"
    with vstore.open(url, allow_pickle=True) as store:
        store.collection("posts", codec="pickle")["bad"] = Touches(trace)
        store["posts"]["good"] = 1

    with vstore.open(url) as store:
        posts = store["posts"]
        ways: list[Callable[[], Any]] = [
            lambda: posts["bad"],
            lambda: posts.get("bad"),
            lambda: posts.read("bad"),
            lambda: posts.get_many(["bad"]),
            lambda: dict(posts.items()),
            lambda: list(posts.history("bad")),
            lambda: posts.at("9999-12-31")["bad"],
            lambda: dict(posts.snapshot()),
            lambda: list(posts.changes(values=True)),
            lambda: posts.modify("bad", lambda value: value),
        ]
        for way in ways:
            with pytest.raises(CodecError, match="codec 'pickle' refused"):
                way()
        assert posts["good"] == 1
        assert sorted(posts) == ["bad", "good"]
        posts["bad"] = "replaced without being read"
        assert posts["bad"] == "replaced without being read"
    assert not trace.exists()


class Touches:
    """A value whose pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_the_pickle_of_the_last_test_would_have_run(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    pickle.loads(pickle.dumps(Touches(tmp_path / "it ran")))

    assert (tmp_path / "it ran").exists()


def test_an_unknown_codec_is_refused_before_anything_is_opened(url: str) -> None:
    """A typing error in the settings is found at once, and the database stays blank."""
    with pytest.raises(CodecError, match="codec 'gzip.json' is unknown: names are json or pickle, with zlib"):
        vstore.open(url, codec="gzip+json")
    with pytest.raises(vstore.NotFound):
        vstore.open(url, create=False)


def test_a_document_of_five_megabytes_is_kept(store: Store) -> None:
    """In one piece, on every kind of database; beside small ones in a batch."""
    large = {"lines": [f"line {n} of a long text" for n in range(200_000)]}

    for name in ("json", "zstd+json"):
        store.collection("posts", codec=name).put_many({f"{name} a": 1, f"{name} large": large, f"{name} z": 2})

    assert store["posts"]["json large"] == large
    assert store["posts"]["zstd+json large"] == large
    assert len(store["posts"]) == 6


@pytest.mark.parametrize("name", JSON_CODECS)
def test_the_limit_of_a_body_counts_before_compression_and_to_the_byte(tmp_path: Path, name: str) -> None:
    """1,000 bytes of JSON are accepted, 1,001 are refused with both numbers; a batch with one stores nothing."""
    with vstore.open(f"sqlite:///{tmp_path}/a.db", codec=name, max_body_bytes=1_000) as store:
        posts = store["posts"]
        posts["fits"] = "x" * 998

        with pytest.raises(InvalidDocument, match=r"1,001 bytes.*1,000"):
            posts["over"] = "x" * 999
        with pytest.raises(InvalidDocument, match="^'over': .*1,001 bytes"):
            posts.put_many({"small": 1, "over": "x" * 999})
        with pytest.raises(InvalidDocument, match="1,001 bytes"):
            posts.modify("fits", lambda value: value + "y")

        assert dict(posts) == {"fits": "x" * 998}
        assert len(list(posts.history("fits"))) == 1


def test_a_row_written_under_a_larger_limit_says_so_when_it_is_compressed(tmp_path: Path) -> None:
    """What is expanded is bounded when reading, too; a plain body has its size already and is read."""
    url = f"sqlite:///{tmp_path}/a.db"
    with vstore.open(url, codec="zlib+json") as store:
        store["posts"]["compressed"] = TEXT
        store.collection("posts", codec="json")["plain"] = TEXT

    with vstore.open(url, max_body_bytes=1_000) as store:
        assert store["posts"]["plain"] == TEXT
        with pytest.raises(CodecError, match=r"max_body_bytes \(1,000\).*open the store with that limit"):
            store["posts"]["compressed"]
