"""Pages whose bodies the database joins and which are decoded at once: what does not fit is read row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.store.test_slices import damage, pairs
from vstore import Context, Store
from vstore.errors import CodecError
from vstore.reading import Reading


class Titles:
    """A shape that decodes lists; it counts them."""

    lists = 0

    def decode(self, data: bytes) -> Any:
        return json.loads(data)["title"]

    def decode_list(self, data: bytes) -> list[Any]:
        self.lists += 1
        return [value["title"] for value in json.loads(data)]

    def convert(self, value: Any) -> Any:
        return value["title"]


def test_a_page_is_decoded_at_once_and_what_is_no_plain_document_is_left_to_others(local: Store) -> None:
    """Ten documents; one deleted, and one with two siblings, which do not keep the others from being joined."""
    posts = local["posts"]
    posts.put_many({f"k{n}": {"title": n} for n in range(10)})
    posts.delete("k1")
    posts.put("k2", {"title": 2, "rival": True}, context=Context("k2"))
    shape = Titles()
    reading = Reading(shape=shape)

    found = pairs(posts.slices(1), reading)

    assert found == [(f"k{n}", n) for n in range(10) if n != 1]
    assert shape.lists == 1
    assert reading.conflicts == 1
    assert reading.body_bytes == 8 * len('{"title":0}') + len('{"title":2}') + len('{"rival":true,"title":2}')


@pytest.mark.parametrize(
    "prepare",
    [
        lambda store: store["posts"].put("a\nb", {"title": "newline"}),
        lambda store: store.collection("posts", codec="zlib+json").put("z", {"title": "z", "text": "x" * 5_000}),
        lambda store: store["posts"].put("long", {"title": "long", "text": "x" * 300_000}),
    ],
)
def test_what_cannot_be_joined_comes_all_the_same(local: Store, prepare: Callable[[Store], Any]) -> None:
    """A newline in a key, another codec, a body of 300 kB: the page with it is read row by row."""
    local["posts"].put_many({f"k{n}": {"title": n} for n in range(3)})
    prepare(local)
    posts = local["posts"]
    expected = sorted((key, posts[key]["title"]) for key in posts)

    assert pairs(posts.slices(1), Reading(shape=Titles())) == expected
    assert len(expected) == 4


def test_a_body_that_cannot_be_decoded_is_named_and_the_rest_of_its_page_is_read(local: Store) -> None:
    """The page fails as a whole first, and is then read row by row."""
    posts = local["posts"]
    posts.put_many({f"k{n}": {"title": n} for n in range(4)})
    damage(local, "k2", b'{"title": 2')
    told: list[str] = []

    found = pairs(posts.slices(1), Reading(shape=Titles(), undecodable=lambda key, rev, error: told.append(key)))

    assert found == [("k0", 0), ("k1", 1), ("k3", 3)]
    assert told == ["k2"]
    with pytest.raises(CodecError, match="k2"):
        pairs(posts.slices(1))
