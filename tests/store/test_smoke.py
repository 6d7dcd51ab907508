"""The minute of use from the README, on every kind of database."""

from __future__ import annotations

import pytest

import vstore
from vstore import Store


def test_a_document_lives_through_siblings_settlement_and_history(store: Store) -> None:
    """Two writers read the first version; each writes without the other; a third settles it."""
    posts = store["posts"]
    posts["hello"] = {"title": "Hello"}
    seen = posts.read("hello").context

    posts.put("hello", {"title": "Hi"}, context=seen)
    posts.put("hello", {"title": "Yo"}, context=seen)
    with pytest.raises(vstore.Conflict) as refused:
        posts["hello"]
    posts.resolve("hello", {"title": "Hi, yo"})

    assert {sibling.value["title"] for sibling in refused.value.document.siblings} == {"Hi", "Yo"}
    assert posts["hello"] == {"title": "Hi, yo"}
    assert [version.value["title"] for version in posts.history("hello")] == ["Hi, yo", "Yo", "Hi", "Hello"]
    assert list(posts.conflicts()) == []
