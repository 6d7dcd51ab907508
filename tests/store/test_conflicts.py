"""Conflicts: seen by every way of reading, listed, and settled by a value, a callback or a resolver of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from replication import sync
from vstore import (
    DELETE,
    KEEP,
    Collection,
    Conflict,
    Context,
    InvalidDocument,
    NotFound,
    Resolver,
    ResolverError,
    Sibling,
    Siblings,
    Store,
)
from vstore.merge import MISSING
from vstore.resolvers import last_write, three_way, winner
from vstore.sql.database import Connection
from vstore.sql.statements import Statement

BASE = {"title": "base", "tags": ["x"]}
ANNS = {"title": "Ann's", "tags": ["x"]}
BOS = {"title": "base", "tags": ["x", "Bo's"]}


def rivals(posts: Collection, key: str, *values: Any) -> None:
    """A document that was BASE, and that several have changed without seeing each other."""
    seen = posts.put(key, BASE).context
    for value in values:
        posts.put(key, value, context=seen)


@pytest.fixture
def posts(store: Store) -> Collection:
    """Ann and Bo have changed `both`; `calm` is at peace."""
    posts = store["posts"]
    posts["calm"] = "calm"
    rivals(posts, "both", ANNS, BOS)
    return posts


@pytest.fixture
def notes(local: Store) -> Collection:
    """The same on SQLite, for what is the same everywhere."""
    notes = local["posts"]
    notes["calm"] = "calm"
    rivals(notes, "both", ANNS, BOS)
    return notes


def resolved_by(posts: Collection, resolver: Resolver) -> Collection:
    """The collection with a resolver."""
    return posts.store.collection(posts.name, resolver=resolver)


def test_every_plain_read_of_a_conflict_raises_it_with_the_siblings(posts: Collection) -> None:
    """The error carries the document; nobody is given one of two values as if it were the only one."""
    ways: list[Callable[[], Any]] = [
        lambda: posts["both"],
        lambda: posts.get("both"),
        lambda: posts.read("both"),
        lambda: posts.read("both", on_conflict="raise"),
        lambda: posts.get_many(["calm", "both"]),
        lambda: dict(posts.items()),
        lambda: list(posts.values(on_conflict="raise")),
        lambda: posts.snapshot()["both"],
        lambda: dict(posts.snapshot().items()),
        lambda: posts.at("9999-12-31")["both"],
        lambda: posts.modify("both", lambda value: value),
        lambda: posts.setdefault("both", 1),
        lambda: posts.pop("both"),
    ]

    for way in ways:
        with pytest.raises(Conflict, match="2 live siblings|several live siblings") as raised:
            way()
        assert raised.value.document is not None
        assert [sibling.value for sibling in raised.value.document.siblings] in ([ANNS, BOS], [BOS, ANNS])
        assert all(sibling.stamp > 0 for sibling in raised.value.document.siblings)

    assert sorted(posts) == ["both", "calm"]
    assert "both" in posts
    assert len(posts) == 2


def test_on_conflict_gives_the_winner_or_skips(posts: Collection) -> None:
    """The winner is the same by every way: the first of the siblings."""
    document = posts.read("both", on_conflict="winner")
    everything = {"calm": "calm", "both": document.siblings[0].value}

    assert document.conflicted
    assert document.value == document.siblings[0].value
    assert dict(posts.items(on_conflict="winner")) == everything
    assert posts.get_many(["both", "calm"], on_conflict="winner") == everything
    assert dict(posts.snapshot().items(on_conflict="winner")) == everything
    assert dict(posts.at("9999-12-31").items(on_conflict="winner")) == everything
    assert dict(posts.items(on_conflict="skip")) == {"calm": "calm"}
    assert list(posts.values(on_conflict="skip")) == ["calm"]
    skipped = posts.get_many(["both", "calm", "none"], on_conflict="skip")
    assert (skipped, skipped.missing) == ({"calm": "calm"}, ["none"])


def test_the_feed_shows_every_sibling_and_a_settlement_replaces_them(notes: Collection) -> None:
    """A consumer of changes sees both versions; after the settlement one that stands for all."""
    feed = notes.changes(values=True)
    first = {(change.key, str(change.value)) for change in feed}

    notes.resolve("both", "settled")
    later = [(change.key, change.value) for change in notes.changes(since=feed.since, values=True)]

    assert first == {("calm", "calm"), ("both", str(ANNS)), ("both", str(BOS))}
    assert later == [("both", "settled")]


def test_a_resolver_of_the_call_comes_before_that_of_the_collection_and_of_the_store(notes: Collection) -> None:
    """Three answers at three places. A read asks, and writes nothing."""
    store = notes.store
    store.resolver = lambda conflict: "store's"
    own = resolved_by(notes, lambda conflict: "collection's")

    assert store["posts"]["both"] == "store's"
    assert own["both"] == own.get("both") == own.read("both").value == "collection's"
    assert own.prefixed("bo")["th"] == "collection's"
    assert dict(own.items()) == {"calm": "calm", "both": "collection's"}
    assert own.get_many(["both"]) == {"both": "collection's"}
    with pytest.raises(Conflict):
        own.read("both", on_conflict="raise")
    assert dict(own.items(on_conflict="skip")) == {"calm": "calm"}
    assert len(list(notes.history("both"))) == 3  # nothing was written so far
    assert own.resolve("both", lambda conflict: "call's").value == "call's"
    rivals(notes, "both", 1, 2)
    assert own.resolve("both").value == "collection's"
    rivals(notes, "both", 1, 2)
    assert store["posts"].resolve("both").value == "store's"


def test_what_a_resolver_answers_is_what_readers_are_shown(notes: Collection) -> None:
    """DELETE is a document that is not there, None is JSON null, KEEP leaves the conflict to the reader."""
    deleting = resolved_by(notes, lambda conflict: DELETE)
    nulling = resolved_by(notes, lambda conflict: None)
    keeping = resolved_by(notes, lambda conflict: KEEP)

    with pytest.raises(NotFound):
        deleting["both"]
    assert dict(deleting.items()) == {"calm": "calm"}
    assert deleting.get_many(["both"]).missing == ["both"]
    assert nulling["both"] is None
    assert dict(nulling.items()) == {"calm": "calm", "both": None}
    with pytest.raises(Conflict):
        keeping["both"]
    with pytest.raises(Conflict):
        dict(keeping.items())


def test_a_resolver_that_fails_leaves_the_siblings_and_says_why(notes: Collection) -> None:
    """It raises; it returns what is no JSON; it returns what JSON cannot keep. Each by a read and by resolve()."""

    def raises(conflict: Siblings) -> Any:
        raise ZeroDivisionError("by accident")

    def returns_sibling(conflict: Siblings) -> Any:
        return conflict.siblings[0]

    def returns_nan(conflict: Siblings) -> Any:
        return {"title": float("nan")}

    before = notes.read("both", on_conflict="winner")

    for resolver, reason in (
        (raises, "ZeroDivisionError: by accident"),
        (returns_sibling, "returned a Sibling for 'both'"),
        (returns_nan, "cannot be stored"),
    ):
        for way in (
            lambda resolver=resolver: notes.resolve("both", resolver),
            lambda resolver=resolver: resolved_by(notes, resolver)["both"],
            lambda resolver=resolver: dict(resolved_by(notes, resolver).items()),
        ):
            with pytest.raises(ResolverError, match=rf"{reason}.*[Ii]ts 2 siblings are as they were"):
                way()

    assert notes.read("both", on_conflict="winner") == before


def test_resolve_stores_a_value_a_delete_or_what_a_resolver_answers(posts: Collection) -> None:
    """Each supersedes both siblings; their versions stay in history."""
    value = posts.resolve("both", {"title": "settled"})
    rivals(posts, "deleted", ANNS, BOS)
    deleted = posts.resolve("deleted", DELETE)
    rivals(posts, "merged", ANNS, BOS)
    merged = posts.resolve("merged", three_way(arrays="set"))

    assert value.value == posts["both"] == {"title": "settled"}
    assert len(value.parents) == 2
    assert [version.value for version in posts.history("both")][1:] in ([BOS, ANNS, BASE], [ANNS, BOS, BASE])
    assert deleted.deleted
    assert "deleted" not in posts
    assert merged.value == {"title": "Ann's", "tags": ["x", "Bo's"]}
    assert list(posts.conflicts()) == []
    assert posts.store.stats()["posts"]["conflicts"] == 0


def test_keep_leaves_everything_as_it_is(notes: Collection) -> None:
    """As an answer and from a resolver: the document comes back with its siblings, and no version was made."""
    before = notes.read("both", on_conflict="winner")

    assert notes.resolve("both", KEEP) == before
    assert notes.resolve("both", lambda conflict: KEEP) == before
    assert notes.resolve("calm", lambda conflict: "never asked").value == "calm"
    assert len(list(notes.history("calm"))) == 1


def test_resolve_says_what_it_lacks(notes: Collection) -> None:
    """No answer and no resolver; no such document; an answer that is no document."""
    with pytest.raises(Conflict, match=r"resolve\('both'\) needs an answer: the collection has no resolver"):
        notes.resolve("both")
    with pytest.raises(NotFound):
        notes.resolve("none", "value")
    with pytest.raises(InvalidDocument):
        notes.resolve("both", {1: "a key that is no text"})
    assert notes.read("both", on_conflict="winner").conflicted


def asked(posts: Collection, key: str) -> Siblings:
    """What a resolver is given."""
    seen: list[Siblings] = []

    def look(conflict: Siblings) -> Any:
        seen.append(conflict)
        return KEEP

    posts.resolve(key, look)
    [conflict] = seen
    return conflict


def test_a_resolver_is_given_the_siblings_in_winner_order_and_their_base(notes: Collection) -> None:
    """The base is the version that both had read, also when more has happened since on one side."""
    base = list(notes.history("both"))[-1]
    rest = notes.read("both", on_conflict="winner")

    conflict = asked(notes, "both")

    assert conflict == Siblings(
        "both",
        tuple(Sibling(each.rev, each.value, False, each.stamp) for each in rest.siblings),
        Sibling(base.rev, BASE, False, base.stamp),
    )
    assert asked(notes.prefixed("bo"), "th") == Siblings("th", conflict.siblings, conflict.base)


def test_what_a_resolver_does_to_its_argument_reaches_nobody(notes: Collection) -> None:
    """It empties every value, the base's too, and keeps what it returned; readers see their own."""
    kept: list[Any] = []

    def vandal(conflict: Siblings) -> Any:
        answer = {"title": "answer"}
        kept.append(answer)
        assert conflict.base is not None
        for each in (*conflict.siblings, conflict.base):
            each.value.clear()
        return answer

    own = resolved_by(notes, vandal)
    shown = own["both"]
    kept[0]["title"] = "changed"

    assert shown == {"title": "answer"}
    assert own["both"] == {"title": "answer"}
    assert {s.value["title"] for s in notes.read("both", on_conflict="winner").siblings} == {"Ann's", "base"}


def test_documents_that_share_no_past_have_no_base(notes: Collection) -> None:
    """Two creations."""
    for value in ("Ann's", "Bo's"):
        notes.put("new", value, context=Context("new"))

    assert asked(notes, "new").base is None


def test_a_base_that_was_deleted_says_so(notes: Collection) -> None:
    """Two bring a deleted document back; what it was before is no state that both have changed."""
    notes["back"] = BASE
    seen = notes.delete("back").context
    for value in (ANNS, BOS):
        notes.put("back", value, context=seen)

    base = asked(notes, "back").base

    assert base is not None
    assert base.deleted
    assert base.value is None


def test_the_base_of_a_criss_cross_is_what_the_resolver_makes_of_the_ancestors(notes: Collection) -> None:
    """Ann and Bo each merge the same two siblings, each in another way. If the resolver cannot, there is no base.

    base ─┬─► a ─┬─► a+b, Ann's way
          └─► b ─┴─► a+b, Bo's way
    """
    document = notes.read("both", on_conflict="winner")
    for way in ("Ann's way", "Bo's way"):
        notes.put("both", way, context=document.context)
    given: list[Siblings] = []

    def look(answer: Any) -> list[Siblings]:
        given.clear()
        notes.resolve("both", lambda conflict: given.append(conflict) or (KEEP if len(given) == 2 else answer))
        return given

    below, above = look("both ways")
    assert {sibling.rev for sibling in below.siblings} == set(document.context.revs)
    assert below.base_value == BASE
    assert {sibling.value for sibling in above.siblings} == {"Ann's way", "Bo's way"}
    assert above.base == Sibling("", "both ways", False, max(sibling.stamp for sibling in below.siblings))
    assert look(KEEP)[1].base is None
    assert look(DELETE)[1].base_value is MISSING


def test_siblings_with_the_same_content_are_shown_once_and_folded_by_the_next_write(posts: Collection) -> None:
    """Two create the same document. Nobody is bothered with it; the next version descends from both."""
    for _ in ("Ann", "Bo"):
        posts.put("same", {"a": 1, "b": 2}, context=Context("same"))

    document = posts.read("same")
    asked_by_resolve = posts.resolve("same", lambda conflict: "never asked")
    counted = posts.get_many(["same"], on_conflict="skip")
    listed = [each.key for each in posts.conflicts()]
    after = posts.put("same", {"a": 2}, context=document.context)

    assert document.value == {"a": 1, "b": 2}
    assert len(document.siblings) == 1
    assert asked_by_resolve.value == {"a": 1, "b": 2}
    assert counted == {"same": {"a": 1, "b": 2}}
    assert listed == ["both"]
    assert after.value == posts["same"] == {"a": 2}
    assert len(after.parents) == 2


def test_an_edit_survives_a_delete_that_had_not_seen_it(posts: Collection) -> None:
    """The tombstone beside the live version is no conflict; the next write takes both in."""
    seen = posts.put("a", BASE).context
    posts.put("a", ANNS, context=seen)

    survivor = posts.delete("a", context=seen)
    after = posts.put("a", BOS)

    assert survivor.value == ANNS
    assert not survivor.conflicted
    assert len(survivor.siblings) == 1
    assert len(survivor.context.revs) == 2
    assert len(after.parents) == 2
    assert [each.key for each in posts.conflicts()] == ["both"]


def test_conflicts_lists_each_document_with_differing_live_siblings_in_key_order(posts: Collection) -> None:
    """Not those at peace, of equal siblings, beside a tombstone, or settled; a view lists its own."""
    for key in ("z", "n/2", "n/1"):
        rivals(posts, key, ANNS, BOS)
    rivals(posts, "settled", ANNS, BOS)
    posts["settled"] = BASE
    for _ in range(2):
        posts.put("equal", 1, context=Context("equal"))

    documents = list(posts.conflicts())

    assert [each.key for each in documents] == ["both", "n/1", "n/2", "z"]
    assert documents[0] == posts.read("both", on_conflict="winner")
    assert [each.key for each in posts.prefixed("n/").conflicts()] == ["1", "2"]
    assert list(posts.store["none"].conflicts()) == []

    for each in documents:
        posts.resolve(each.key, winner)
    assert list(posts.conflicts()) == []


def test_listing_conflicts_costs_what_there_are_and_not_what_the_collection_holds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three conflicts among ten documents and among 3,000: the same number of statements and of rows."""
    read: list[int] = []
    rows = Connection.rows

    def counted(self: Connection, statement: Statement, params: Sequence[Any] = ()) -> list[Any]:
        found = rows(self, statement, params)
        read.append(len(found))
        return found

    costs = {}
    for count in (10, 3_000):
        posts = store[f"of {count}"]
        posts.put_many((f"calm {n:05}", n) for n in range(count))
        for key in ("a", "calm 00005 too", "z"):
            rivals(posts, key, ANNS, BOS)
        store.handle(posts.name)
        monkeypatch.setattr(Connection, "rows", counted)
        assert len(list(posts.conflicts())) == 3
        monkeypatch.setattr(Connection, "rows", rows)
        costs[count] = len(read), sum(read)
        read.clear()

    assert costs[10] == costs[3_000] == (4, 9)  # one statement that finds three keys, then two heads for each


def test_replicas_that_resolve_for_themselves_agree(store: Store, local: Store) -> None:
    """Ann and Bo settle the same siblings with the same resolver before they meet again: one version, one rev."""
    store["posts"]["a"] = BASE
    sync(store, local)
    store["posts"]["a"] = ANNS
    local["posts"]["a"] = BOS
    sync(store, local)

    at_ann = store["posts"].resolve("a", last_write)
    at_bo = local["posts"].resolve("a", last_write)
    report = sync(store, local)

    assert at_ann.rev == at_bo.rev
    assert report.conflicts == 0
    assert store["posts"]["a"] == local["posts"]["a"]
