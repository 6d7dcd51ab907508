"""A collection as a mapping: what a dict promises, on every kind of database."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import tempfile
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vstore
from vstore import Collection, InvalidKey, NotFound, Store

try:
    from test import mapping_tests  # type: ignore[import-not-found]
except ImportError:  # some distributions of Python leave their own tests out
    mapping_tests = None

SAME_EVERYWHERE = [  # in the order of their bytes
    " lead",
    "A",
    "Z",
    "a",
    "a\t",
    "a ",
    "a  ",
    "ab",
    "e\u0301",  # two characters that look like the one below
    "z",
    "\u00df",
    "\u00e9",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0001f600",
    "\U0010ffff",
]


@pytest.fixture
def posts(store: Store) -> Collection:
    """An empty collection on each kind of database."""
    return store["posts"]


if mapping_tests is None:

    def test_the_mapping_tests_of_the_standard_library() -> None:
        """Not here."""
        message = "this Python comes without its package `test`, so its mapping tests cannot run"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

else:

    class TestAsTheStandardLibraryTestsMappings(mapping_tests.BasicTestMappingProtocol):  # type: ignore[misc]
        """CPython's own tests of the mapping protocol, with values that JSON has."""

        store: ClassVar[Store]
        folder: ClassVar[tempfile.TemporaryDirectory[str]]

        @classmethod
        def setUpClass(cls) -> None:
            """One store for all, with a new collection for each mapping."""
            cls.folder = tempfile.TemporaryDirectory()
            cls.store = vstore.open(f"sqlite:///{cls.folder.name}/mapping.db", state=Path(cls.folder.name, "state"))

        @classmethod
        def tearDownClass(cls) -> None:
            """Closes and deletes it."""
            cls.store.close()
            cls.folder.cleanup()

        def _reference(self) -> dict[str, Any]:
            return {"1": "2", "key1": "value1", "key2": [1, 2, 3]}

        def _empty_mapping(self) -> Collection:
            return self.store[secrets.token_hex(8)]


def test_it_is_a_mutable_mapping_and_its_views_are_views(posts: Collection) -> None:
    """So code that asks for these takes it."""
    posts["a"] = 1

    assert isinstance(posts, MutableMapping)
    assert isinstance(posts.keys(), KeysView)
    assert isinstance(posts.items(), ItemsView)
    assert isinstance(posts.values(), ValuesView)
    assert isinstance(posts.snapshot(), Mapping)
    assert isinstance(posts.at(0), Mapping)


def test_it_equals_a_dict_of_the_same_documents(posts: Collection) -> None:
    """And so do its snapshot and its present as of now."""
    posts.update({"a": {"n": 1}, "b": [None, True, 1.5, "x"]})

    expected = {"a": {"n": 1}, "b": [None, True, 1.5, "x"]}
    assert posts == expected
    assert expected == posts
    assert posts.snapshot() == expected
    assert posts.at(posts.read("b").stamp + 1) == expected
    assert posts != {"a": {"n": 1}}


def test_it_makes_no_unions_as_no_mutable_mapping_does(posts: Collection) -> None:
    """`|` would have to load everything into a dict; `dict(posts) | other` says so."""
    posts["a"] = 1

    with pytest.raises(TypeError):
        posts | {"b": 2}  # type: ignore[operator]
    assert dict(posts) | {"b": 2} == {"a": 1, "b": 2}


def test_a_collection_that_nobody_wrote_is_empty_and_is_not_made_by_reading(store: Store) -> None:
    """Looking creates nothing, nor does a write that is refused."""
    posts = store["posts"]

    assert dict(posts) == {}
    assert (len(posts), list(posts), list(posts.keys(prefix="a")), "k" in posts, posts.get("k", 7)) == (
        0,
        [],
        [],
        False,
        7,
    )
    assert list(posts.conflicts()) == []
    assert posts.get_many(["k"]).missing == ["k"]
    assert posts.delete_many(["k"]) == 0
    for refused in (
        lambda: posts["k"],
        lambda: posts.read("k"),
        lambda: posts.pop("k"),
        lambda: posts.delete("k"),
        lambda: posts.history("k"),
        lambda: posts.at(0),
        posts.popitem,
    ):
        with pytest.raises(NotFound):
            refused()
    with pytest.raises(vstore.InvalidDocument):
        posts["k"] = {1, 2}
    with pytest.raises(InvalidKey):
        posts[""] = 1
    with pytest.raises(InvalidKey):
        posts.put_many([("ok", 1), ("n\0l", 2)])
    assert store.collections() == []


def test_keys_items_and_values_agree_in_their_order(posts: Collection) -> None:
    """As in a dict, so that zip() of them is meaningful."""
    posts.put_many((f"k{n}", n) for n in range(300))
    del posts["k7"]
    posts["k8"] = "again"

    assert list(zip(posts.keys(), posts.values(), strict=True)) == list(posts.items())
    assert list(posts) == [key for key, _ in posts.items()]
    assert dict(posts.items()) == {**{f"k{n}": n for n in range(300) if n != 7}, "k8": "again"}


def test_keys_in_a_range_are_sorted_by_bytes_on_every_database(posts: Collection) -> None:
    """Case, accents, trailing blanks and characters beyond the BMP: each key is another one, and the order is one."""
    posts.put_many({key: index for index, key in enumerate(SAME_EVERYWHERE)})

    assert list(posts.keys(start="")) == SAME_EVERYWHERE
    assert list(posts.keys(reverse=True)) == SAME_EVERYWHERE[::-1]
    assert [posts[key] for key in SAME_EVERYWHERE] == list(range(len(SAME_EVERYWHERE)))
    assert len(posts) == len(SAME_EVERYWHERE)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("prefix", ["", "a", "\ud7ff", "\U0010ffff", "q", "a\0"])
@pytest.mark.parametrize("start", ["", "a", "a\0", "ab", "\ue000", "\U0010ffff"])
def test_a_range_of_keys_is_what_filtering_all_of_them_gives(
    local: Store, prefix: str, start: str, reverse: bool
) -> None:
    """Prefix, start and end together, bounds that are no keys among them, such as `last + "\\0"` for the next page."""
    posts = local["posts"]
    posts.put_many(dict.fromkeys(SAME_EVERYWHERE, 0))

    for end in (None, "", "a\0", "b", "\ue000", "\U0010ffff"):
        expected = [
            key for key in SAME_EVERYWHERE if key.startswith(prefix) and key >= start and (end is None or key < end)
        ]
        found = posts.keys(prefix, start, end, reverse)
        assert list(found) == (expected[::-1] if reverse else expected)
        assert [key for key in SAME_EVERYWHERE if key in found] == expected
        assert len(found) == len(expected)


def test_bounds_with_a_nul_work_on_every_database(posts: Collection) -> None:
    """PostgreSQL takes no NUL in text, yet `last + "\\0"` is how one asks for what follows."""
    posts.put_many(dict.fromkeys(["a", "a\x01", "b"], 0))

    assert list(posts.keys(start="a\0")) == ["a\x01", "b"]
    assert list(posts.keys(end="a\0")) == ["a"]
    assert list(posts.keys(prefix="a\0")) == []


def test_ranges_of_more_than_a_page_come_whole(posts: Collection) -> None:
    """2,500 keys in pages of 1,000, forwards and backwards."""
    names = [f"{n:05d}" for n in range(2_500)]
    posts.put_many(dict.fromkeys(names, 0))

    assert list(posts.keys(start="")) == names
    assert list(posts.keys(reverse=True)) == names[::-1]
    assert list(posts.keys(start="00990", end="02010")) == names[990:2010]
    assert list(posts.keys(start="00990", end="02010", reverse=True)) == names[990:2010][::-1]


def test_the_keys_of_a_range_are_a_set_like_the_views_of_a_dict(posts: Collection) -> None:
    """len, in, and the set operations."""
    posts.put_many(dict.fromkeys(["a", "b", "c", "d"], 0))
    keys = posts.keys(start="b")

    assert len(keys) == 3
    assert "b" in keys
    assert "a" not in keys
    assert "\0" not in keys
    assert 7 not in keys  # type: ignore[comparison-overlap]
    assert keys == {"b", "c", "d"}  # type: ignore[comparison-overlap]
    assert keys & {"a", "b"} == {"b"}
    assert keys | {"x"} == {"b", "c", "d", "x"}
    assert keys - {"b"} == {"c", "d"}
    assert posts.keys() ^ {"a", "x"} == {"b", "c", "d", "x"}
    assert posts.keys() >= keys
    assert keys.isdisjoint({"a"})
    assert ("a", 0) in posts.items()
    assert ("a", 1) not in posts.items()
    assert 0 in posts.values()


@pytest.mark.parametrize("key", ["", "\0", "a\0b", "\ud800", "x" * 1025, "\u00e9" * 513, 7, None, b"k", ("a",)])
def test_what_is_no_key_is_refused_and_never_in_it(local: Store, key: Any) -> None:
    """1 to 1,024 bytes of UTF-8 without NUL. Asking whether it is there is a fair question with a plain answer."""
    for posts in (local["posts"], local["posts"].prefixed("p/")):
        local["posts"]["p/"] = local["posts"]["k"] = 1
        if key == "":
            continue  # in a view it is the key that its prefix is
        assert key not in posts
        with pytest.raises(InvalidKey):
            posts[key]
        with pytest.raises(InvalidKey):
            posts[key] = 1
        with pytest.raises(InvalidKey):
            posts.put_many({key: 1})
        with pytest.raises(InvalidKey):
            posts.delete(key)
        with pytest.raises(InvalidKey):
            posts.get_many([key])
        with pytest.raises(InvalidKey):
            posts.history(key)
    assert dict(local["posts"]) == {"p/": 1, "k": 1}


@pytest.mark.parametrize("key", ["x" * 1024, "\u00e9" * 512, "\U0001f600" * 256])
def test_a_key_may_have_1024_bytes(posts: Collection, key: str) -> None:
    """Every way to it works."""
    posts[key] = 1
    posts[key] = 2

    assert posts[key] == 2
    assert list(posts.keys(prefix=key[:-1])) == [key]
    assert [version.value for version in posts.history(key)] == [2, 1]
    assert dict(posts.at(posts.read(key).stamp)) == {key: 2}
    assert posts.prefixed(key[:-1])[key[-1]] == 2


def test_what_is_iterated_is_what_was_there_at_the_beginning(store: Store) -> None:
    """While it goes on, others change, delete, create, and make and settle siblings. A snapshot shows none of it."""
    posts = store.create("few", partitions=1)
    posts.put_many({f"k{n:04d}": n for n in range(4_100)})  # more than two chunks
    expected = dict(posts.items())

    def disturbed(iterator: Iterator[Any]) -> Iterator[Any]:
        for index, item in enumerate(iterator):
            if index == 10:
                posts.put_many({f"k{n:04d}": "changed" for n in range(0, 4_100, 7)})
                posts.delete_many(f"k{n:04d}" for n in range(3, 4_100, 7))
                posts.put_many({f"new{n}": n for n in range(50)})
                posts.put("k4000", "rival", context=vstore.Context("k4000"))
            if index == 2_500:
                posts["k4000"] = "settled"
                posts.put_many({f"k{n:04d}": "again" for n in range(0, 4_100, 7)})
            yield item

    snapshot = posts.snapshot()
    assert dict(disturbed(iter(posts.items()))) == expected
    assert dict(snapshot) == expected
    assert sorted(snapshot) == sorted(expected)
    assert len(snapshot) == 4_100
    assert posts["k4000"] == "settled"


def test_deleting_all_while_iterating_over_the_keys_reaches_all(posts: Collection) -> None:
    """What a dict refuses, works here."""
    posts.put_many({f"k{n}": n for n in range(50)})

    for key in posts:
        del posts[key]

    assert list(posts) == []
    posts.put_many({f"k{n}": n for n in range(50)})
    posts.clear()
    assert len(posts) == 0
    assert next(posts.history("k7")).deleted


def test_update_takes_what_a_dict_takes(posts: Collection) -> None:
    """Mappings, pairs, names, and things with `keys`; a key may be called `self`."""

    class Keyed:
        def keys(self) -> list[str]:
            return ["c"]

        def __getitem__(self, key: str) -> str:
            return f"of {key}"

    posts.update({"a": 1})
    posts.update([("b", 2)])
    posts.update(Keyed())
    posts.update({"d": 4}, e=5, self=6)
    posts.update(other for other in [("f", 7)])
    posts.update()

    assert posts == {"a": 1, "b": 2, "c": "of c", "d": 4, "e": 5, "self": 6, "f": 7}


def test_pop_and_setdefault_do_as_those_of_a_dict(posts: Collection) -> None:
    """With and without a default, None among the values."""
    assert posts.setdefault("a", [1]) == [1]
    assert posts.setdefault("a", [2]) == [1]
    assert posts.setdefault("n") is None
    assert posts.setdefault("n", 5) is None
    assert posts.pop("n", 5) is None
    assert posts.pop("n", 5) == 5
    with pytest.raises(KeyError, match="'n'"):
        posts.pop("n")
    assert posts.pop("a") == [1]
    assert posts.setdefault("a", "again") == "again"
    assert posts.popitem() == ("a", "again")
    with pytest.raises(KeyError, match="no live document"):
        posts.popitem()


@pytest.mark.parametrize("take", ["pop", "popitem"])
def test_each_document_is_popped_once_however_many_try(local: Store, take: str) -> None:
    """Eight threads empty a collection of 60 documents together."""
    posts = local["posts"]
    posts.put_many({f"k{n}": n for n in range(60)})

    def work(_: int) -> list[int]:
        if take == "pop":
            return [value for value in (posts.pop(f"k{n}", -1) for n in range(60)) if value != -1]
        got = []
        with contextlib.suppress(NotFound):
            while True:
                got.append(posts.popitem()[1])
        return got

    with ThreadPoolExecutor(8) as pool:
        popped = list(itertools.chain.from_iterable(pool.map(work, range(8))))

    assert sorted(popped) == list(range(60))


def test_one_of_many_concurrent_setdefaults_wins(local: Store) -> None:
    """And all of them are given what it stored."""
    posts = local["posts"]

    with ThreadPoolExecutor(8) as pool:
        given = set(pool.map(lambda n: posts.setdefault("k", n), range(8)))

    assert given == {posts["k"]}
    assert len(list(posts.history("k"))) == 1


def test_add_makes_keys_that_sort_by_time(posts: Collection) -> None:
    """26 characters each, never the same."""
    keys = [posts.add({"n": n}) for n in range(30)]

    assert {len(key) for key in keys} == {26}
    assert len(set(keys)) == 30
    assert [key[:14] for key in keys] == sorted(key[:14] for key in keys)
    assert [posts[key]["n"] for key in keys] == list(range(30))


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": [1, {"b": [2]}]},
        lambda: [[1], {"b": 2}],
    ],
)
def test_nothing_that_is_passed_in_or_returned_is_shared(local: Store, make: Callable[[], Any]) -> None:
    """Arguments are torn apart after the call and results after they came: the store and other readers see nothing."""
    posts = local["posts"]

    def ruin(value: Any) -> None:
        for part in list(value.values() if isinstance(value, dict) else value):
            if isinstance(part, dict | list):
                ruin(part)
        value.clear()

    argument = make()
    posts["k"] = argument
    ruin(argument)
    argument = make()
    ruin(posts.put("p", argument).value)
    assert argument == make()
    argument = {"m": make()}
    posts.put_many(argument)
    ruin(argument)
    default = make()
    ruin(posts.setdefault("d", default))
    assert default == make()
    ruin(posts.modify("d2", lambda value: value, default=default).value)
    assert default == make()
    with posts.edit("d3", default=default) as value:
        value.clear()
    assert default == make()
    for copy in (
        posts["k"],
        posts.get("k"),
        posts.read("k").value,
        next(posts.history("k")).value,
        posts.version("k", posts.read("k").rev).value,
        dict(posts.items())["k"],
        posts.get_many(["k"])["k"],
        posts.snapshot()["k"],
        posts.at(posts.read("k").stamp)["k"],
        next(change.value for change in posts.changes(values=True) if change.key == "k"),
        next(iter(posts.prefixed("k").values())),
    ):
        assert copy == make()
        ruin(copy)
    for key in ("k", "p", "m", "d", "d2"):
        assert posts[key] == make()
