"""Stores of every format that was ever released can be opened, read, checked and written: format 1."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import vstore
from vstore import Store

FOLDER = Path(__file__).parents[1] / "fixtures" / "format-1"
SHARDS = ["first.db", "second.db"]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Store]:
    """The store of `tests/fixtures/make_format_1.py`, its files copied so that they stay as they are."""
    for name in SHARDS:
        shutil.copy(FOLDER / name, tmp_path / name)
    with vstore.open(*[f"sqlite:///{tmp_path / name}" for name in reversed(SHARDS)], create=False) as store:
        yield store


def test_its_documents_are_what_they_were(old: Store) -> None:
    """Twelve posts, of which three were changed by others, and five documents with a story."""
    posts = old["posts"]

    assert old.collections() == ["notes", "posts"]
    assert dict(posts.items(on_conflict="skip")) == {
        **{f"post-{n}": {"title": f"Post {n}", "n": n} for n in (0, *range(4, 12))},
        "post-2": {"title": "Post 2", "n": "here after there"},
        "from-elsewhere": {"n": 1},
        "edited": {"text": "final"},
        "Ünïcödé 🌍": {
            "text": "keys are compared by bytes",
            "numbers": [0, -1, 1.5, 18446744073709551615],
            "null": None,
        },
    }
    assert old["notes"]["compressed"] == {"text": "many words " * 200}
    assert old.checkpoint("import:posts") == {"line": 12}


def test_its_history_is_what_it_was(old: Store) -> None:
    """Three drafts, a tombstone, a version that a sync replaced, and two versions left of four."""
    posts = old["posts"]

    assert [version.value for version in posts.history("edited")] == [
        {"text": "final"},
        {"text": "better"},
        {"text": "draft"},
    ]
    assert [version.deleted for version in posts.history("deleted")] == [True, False]
    assert [version.value["n"] for version in posts.history("post-2")] == ["here after there", "there", 2]
    assert [version.value for version in old["notes"].history("pruned")] == [{"n": 3}, {"n": 2}]
    assert old.stats()["notes"]["stubs"] == 2
    draft = list(posts.history("edited"))[2]
    assert posts.at(draft.stamp)["edited"] == {"text": "draft"}


def test_its_siblings_are_what_they_were(old: Store) -> None:
    """One conflict made here, and one that a sync brought."""
    found = {
        document.key: sorted(str(list(sibling.value.values())[-1]) for sibling in document.siblings)
        for document in old["posts"].conflicts()
    }

    assert found == {"rivals": ["one", "other"], "post-1": ["here", "there"]}
    assert old["posts"].resolve("rivals", {"text": "both"}).value == {"text": "both"}
    assert [document.key for document in old["posts"].conflicts()] == ["post-1"]


def test_its_keys_are_where_they_were(old: Store) -> None:
    """The hash, the number of partitions and the map decide, and none of them may ever change."""
    golden = {"edited": 0, "rivals": 0, "post-1": 0, "Ünïcödé 🌍": 1}

    assert {key: old.shard_of("posts", key) for key in golden} == golden


def test_it_is_whole_and_can_be_written(old: Store) -> None:
    """A check finds nothing, before and after writes by the new actors that a copied file gets."""
    before = {row[0] for shard in old.shards for row in shard.database.read().text("SELECT actor FROM vs_partition")}
    assert list(old.check()) == []

    old["posts"]["edited"] = {"text": "today"}
    old["posts"].put_many((f"new-{n}", n) for n in range(50))
    del old["notes"]["compressed"]
    after = {row[0] for shard in old.shards for row in shard.database.read().text("SELECT actor FROM vs_partition")}

    assert [version.value["text"] for version in old["posts"].history("edited")] == [
        "today",
        "final",
        "better",
        "draft",
    ]
    assert len(after - before) >= 4
    assert list(old.check()) == []
