"""What users write, for a strict type checker: never run, only checked (tests/store/test_public_surface.py).

`assert_type` pins what a call gives back, so a signature cannot lose its type unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, assert_type

import vstore
from mapreduce import Count, Result, Sum, run
from replication import Report, sync
from vstore import (
    ABSENT,
    DELETE,
    KEEP,
    Change,
    Changes,
    Collection,
    Conflict,
    Context,
    Document,
    Resolver,
    Siblings,
    Snapshot,
    Store,
)
from vstore.resolvers import json3, three_way


def reads_and_writes(posts: Collection) -> None:
    """A mapping, and the calls that hand back what was seen."""
    posts["a"] = {"title": "Hello"}
    del posts["a"]
    assert_type(posts.get("a"), Any)
    assert_type("a" in posts, bool)
    assert_type(len(posts), int)
    for key in posts:
        assert_type(key, str)
    for key, _value in posts.items(on_conflict="winner"):
        assert_type(key, str)
    document = assert_type(posts.read("a", on_conflict="winner"), Document)
    assert_type(document.context, Context)
    assert_type(document.siblings, tuple[Document, ...])
    assert_type(posts.put("a", [1, 2.5, None], context=document.context), Document)
    posts.put("a", "text", context=str(document.context))
    posts.put("a", 1, match=document.rev)
    posts.put("a", 1, match=ABSENT)
    assert_type(posts.add({"n": 1}), str)
    assert_type(posts.delete("a", match=document.rev), Document)
    posts.modify("a", lambda value: {**value, "n": 1}, default={})
    with posts.edit("a", default={}) as value:
        value["n"] = 2
    assert_type(posts.put_many((str(n), n) for n in range(3)), int)
    found = posts.get_many(["a", "b"])
    assert_type(found.missing, list[str])
    assert_type(sorted(posts.keys(prefix="a", reverse=True)), list[str])
    assert_type(posts.prefixed("2026/"), Collection)


def the_past(posts: Collection) -> None:
    """History and time travel."""
    for version in posts.history("a"):
        assert_type(version, Document)
        assert_type(posts.diff("a", version.rev), list[dict[str, Any]])
        assert_type(posts.revert("a", version.rev), Document)
    past = posts.at(datetime(2026, 1, 5, tzinfo=UTC))
    assert_type(past.read("a"), Document)
    assert_type(past.documents(), Iterator[Document])
    assert_type(posts.snapshot(), Snapshot)
    assert_type(posts.prune(keep_last=3, keep_days=1.5, dry_run=True).pruned, int)


def settles(store: Store) -> None:
    """Resolvers: functions and the built-in ones."""

    def longest(conflict: Siblings) -> Any:
        if conflict.base is None:
            return KEEP
        return max((sibling.value for sibling in conflict.siblings), key=len, default=DELETE)

    resolvers: list[Resolver] = [longest, json3, three_way(on_clash="winner"), lambda conflict: DELETE]
    posts = store.collection("posts", resolver=resolvers[0], codec="zlib+json")
    for document in posts.conflicts():
        assert_type(posts.resolve(document.key, longest), Document)
    try:
        posts["a"]
    except Conflict as error:
        assert_type(error.document, Document | None)


def follows(posts: Collection) -> str:
    """The change feed."""
    feed = assert_type(posts.changes(follow=True, idle_seconds=1.0, values=True), Changes)
    for change in feed:
        assert_type(change, Change)
    return assert_type(feed.since, str)


def words(key: str, value: Any) -> Iterator[tuple[str, int]]:
    """A map function."""
    for word in value["text"].split():
        yield word, 1


def main() -> None:
    """Stores, jobs and replicas."""
    with vstore.open("sqlite:///a.db", durability="relaxed", resolver=json3) as store, vstore.open() as other:
        assert_type(store, Store)
        assert_type(store["posts"], Collection)
        assert_type(store.collections(), list[str])
        with store.transaction():
            reads_and_writes(store["posts"])
        assert_type(run(over=store["posts"], map=words, reduce=Sum(), workers=2), Result)
        run(over=store["posts"].snapshot(), map=lambda key, value: [(value["section"], 1)], reduce=Count())
        assert_type(sync(store, other, resolver=json3), Report)
        assert_type(sync(store["posts"], other["posts"]).conflicts, int)
        for finding in store.check():
            print(finding)
