"""Reading and writing with what was seen: contexts, conditions, batches, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import vstore
from vstore import (
    ABSENT,
    DELETE,
    Collection,
    ConfigurationError,
    Conflict,
    Context,
    InvalidDocument,
    InvalidKey,
    InvalidToken,
    NotFound,
    PreconditionFailed,
    Store,
)
from vstore.reading import Reading

NOT_DICTS = [None, True, False, 0, -1, 2**64 - 1, 1.5, "", "text \u2028 \U0001f600", [], [None], [[1], {"a": 2}]]


@pytest.fixture
def posts(store: Store) -> Collection:
    """An empty collection on each kind of database."""
    return store["posts"]


@pytest.fixture
def few(tmp_path: Any) -> Iterator[Collection]:
    """A collection whose documents have at most a thousand bytes."""
    with vstore.open(f"sqlite:///{tmp_path}/few.db", max_body_bytes=1_000) as opened:
        yield opened["posts"]


# --- contexts --------------------------------------------------------------------------------------------------------


def test_a_put_without_context_replaces_all_siblings(posts: Collection) -> None:
    """As a plain dict: whatever is there is gone from sight."""
    posts.put("k", 1, context=Context("k"))
    posts.put("k", 2, context=Context("k"))

    document = posts.put("k", 3)

    assert (document.value, document.conflicted) == (3, False)
    assert posts["k"] == 3
    assert document.rev.startswith("2-")
    assert len(document.parents) == 2


def test_a_put_with_a_context_replaces_what_was_read_and_keeps_its_rival(posts: Collection) -> None:
    """Ann and Bob read the same version; Ann writes; Bob, who has not seen that, writes too."""
    posts["k"] = "first"
    ann = posts.read("k")
    bob = posts.read("k")

    after_ann = posts.put("k", "ann's", context=ann.context)
    after_bob = posts.put("k", "bob's", context=bob.context)

    assert not after_ann.conflicted
    assert {sibling.value for sibling in after_bob.siblings} == {"ann's", "bob's"}
    assert after_bob.parents == (ann.rev,)
    with pytest.raises(Conflict) as refused:
        posts["k"]
    assert refused.value.document == posts.read("k", on_conflict="winner")


def test_the_same_put_with_the_same_context_is_one_version(posts: Collection) -> None:
    """A client that did not hear the answer asks again, even after others went on."""
    posts["k"] = 1
    seen = posts.read("k").context
    first = posts.put("k", 2, context=seen)
    assert posts.put("k", 2, context=seen).rev == first.rev

    posts["k"] = 3
    again = posts.put("k", 2, context=seen)

    assert (again.value, again.conflicted) == (3, False)
    assert [version.value for version in posts.history("k")] == [3, 2, 1]


def test_a_context_travels_as_text(posts: Collection) -> None:
    """Through a form in a browser, say."""
    posts["k"] = 1
    token = str(posts.read("k").context)
    posts["k"] = 2

    document = posts.put("k", 3, context=token)

    assert token.isascii()
    assert {sibling.value for sibling in document.siblings} == {2, 3}
    assert posts.put("k", 4, context=str(document.context)).siblings[0].value == 4
    assert not posts.read("k").conflicted


def test_a_context_of_another_key_is_refused(posts: Collection) -> None:
    """Whether as an object or as text, as context or as condition. Nothing is written."""
    posts["a"] = 1
    context = posts.read("a").context

    for refused in (
        lambda: posts.put("b", 2, context=context),
        lambda: posts.put("b", 2, context=str(context)),
        lambda: posts.put("b", 2, match=context),
        lambda: posts.delete("b", context=context),
    ):
        with pytest.raises(InvalidToken, match=r"'b' refused.*'a'"):
            refused()
    assert "b" not in posts


@pytest.mark.parametrize("token", ["", "garbage", "WzEsImsiLFtdXQ", "\u00e9", "1-" + "0" * 32, "e30"])
def test_what_is_no_context_is_refused(local: Store, token: str) -> None:
    """Nothing is written, and the collection is not even made."""
    with pytest.raises(InvalidToken):
        local["posts"].put("k", 1, context=token)

    assert local.collections() == []


def test_a_context_of_another_store_says_what_it_says_there(local: Store, fresh_url: Callable[[str], str]) -> None:
    """It has seen nothing that is only here, so its write becomes a sibling and loses nothing."""
    with vstore.open(fresh_url("sqlite")) as elsewhere:
        elsewhere["posts"]["k"] = "there"
        foreign = elsewhere["posts"].read("k").context
    local["posts"]["k"] = "here"

    document = local["posts"].put("k", "from there", context=foreign)

    assert {sibling.value for sibling in document.siblings} == {"here", "from there"}


def test_an_empty_context_is_a_writer_who_has_seen_nothing(posts: Collection) -> None:
    """Three devices create the same document without knowing of each other."""
    for n in range(3):
        document = posts.put("k", n, context=Context("k"))

    assert sorted(sibling.value for sibling in document.siblings) == [0, 1, 2]
    assert len(posts) == 1


def test_a_context_of_one_sibling_settles_that_one_only(posts: Collection) -> None:
    """Who has seen a part replaces a part."""
    one = posts.put("k", "one", context=Context("k"))
    posts.put("k", "two", context=Context("k"))

    document = posts.put("k", "one, edited", context=posts.version("k", one.rev).context)

    assert {sibling.value for sibling in document.siblings} == {"one, edited", "two"}


def test_siblings_with_equal_values_are_shown_once(posts: Collection) -> None:
    """Two devices came to the same document: there is nothing to choose, so nobody is asked, on any way of reading."""
    posts.put("k", {"a": 1, "b": 2}, context=Context("k"))
    posts.put("k", {"b": 2, "a": 1}, context=Context("k"))

    document = posts.read("k")
    assert not document.conflicted
    assert len(document.context.revs) == 2
    assert posts["k"] == {"a": 1, "b": 2}
    assert list(posts.items()) == [("k", {"a": 1, "b": 2})]
    assert list(posts.items(on_conflict="skip")) == [("k", {"a": 1, "b": 2})]
    assert list(posts.snapshot().values()) == [{"a": 1, "b": 2}]
    assert posts.snapshot()["k"] == {"a": 1, "b": 2}
    assert dict(posts.at(document.stamp + 1)) == {"k": {"a": 1, "b": 2}}
    assert posts.get_many(["k"]) == {"k": {"a": 1, "b": 2}}
    assert posts.get_many(["k"], on_conflict="skip") == {"k": {"a": 1, "b": 2}}
    assert list(posts.conflicts()) == []
    assert len(posts) == 1
    posts.put("k", {"a": 1.0, "b": 2}, context=Context("k"))
    assert len(posts.read("k", on_conflict="winner").siblings) == 2  # 1.0 is not 1


def test_a_live_sibling_is_shown_alone_beside_a_tombstone(posts: Collection) -> None:
    """One deletes, another edits what was there: the edit survives and there is no conflict to settle."""
    posts["k"] = 1
    seen = posts.read("k").context
    posts.put("k", 2, context=seen)

    document = posts.delete("k", context=seen)

    assert (document.value, document.deleted, document.conflicted) == (2, False, False)
    assert posts["k"] == 2
    assert dict(posts.items()) == {"k": 2}
    assert len(posts) == len(list(posts)) == 1
    posts["k"] = 3  # absorbs the tombstone too
    assert len(posts.read("k").context.revs) == 1


def test_a_document_that_was_deleted_can_be_created_again(posts: Collection) -> None:
    """As an heir of the tombstone, so that no replica takes the old delete for a newer one."""
    posts["k"] = 1
    tombstone = posts.delete("k")
    assert "k" not in posts
    assert posts.read("k", deleted=True) == tombstone

    posts["k"] = 2

    assert posts.read("k").parents == (tombstone.rev,)
    assert [(version.value, version.deleted) for version in posts.history("k")] == [
        (2, False),
        (None, True),
        (1, False),
    ]


# --- conditions ------------------------------------------------------------------------------------------------------


def test_match_writes_only_if_the_document_is_still_what_was_read(posts: Collection) -> None:
    """By rev and by context; a refusal carries the document as it is, and writes nothing."""
    first = posts.put("k", 1)
    second = posts.put("k", 2, match=first.rev)
    third = posts.put("k", 3, match=second.context)

    for stale in (first.rev, first.context, ABSENT, "9-" + "0" * 32):
        with pytest.raises(PreconditionFailed, match="Nothing was written") as refused:
            posts.put("k", 4, match=stale)
        assert refused.value.document == third
    assert posts["k"] == 3
    assert len(list(posts.history("k"))) == 3


def test_match_absent_creates_and_never_replaces(posts: Collection) -> None:
    """Also after a delete, which leaves nothing live."""
    posts.put("k", 1, match=ABSENT)
    with pytest.raises(PreconditionFailed):
        posts.put("k", 2, match=ABSENT)
    posts.delete("k")

    assert posts.put("k", 3, match=ABSENT).value == 3


def test_match_with_an_empty_context_is_stricter_than_absent(posts: Collection) -> None:
    """Nothing may be there that was not seen, and a tombstone is something."""
    posts["k"] = 1
    posts.delete("k")

    with pytest.raises(PreconditionFailed) as refused:
        posts.put("k", 2, match=Context("k"))
    assert refused.value.document is not None
    assert refused.value.document.deleted


def test_delete_takes_the_same_conditions(posts: Collection) -> None:
    """A delete that is refused leaves the document; one of nothing says NotFound."""
    first = posts.put("k", 1)
    second = posts.put("k", 2)

    with pytest.raises(PreconditionFailed):
        posts.delete("k", match=first.rev)
    assert posts["k"] == 2
    assert posts.delete("k", match=second.rev).deleted
    with pytest.raises(NotFound):
        posts.delete("k")
    with pytest.raises(NotFound):
        del posts["k"]
    assert len(list(posts.history("k"))) == 3


# --- read, modify, write ---------------------------------------------------------------------------------------------


def test_no_modification_is_lost_among_eight_threads(posts: Collection) -> None:
    """Each adds 1 ten times to one counter that nobody has made before."""

    def work(_: int) -> None:
        for _ in range(10):
            posts.modify("counter", lambda value: value + 1, default=0, attempts=1_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert posts["counter"] == 80
    assert len(list(posts.history("counter"))) == 80


def test_modify_goes_on_from_what_somebody_else_has_just_written(posts: Collection) -> None:
    """The function is called again with the newer value."""
    posts["k"] = {"n": 1}
    seen = []

    def change(value: Any) -> Any:
        seen.append(dict(value))
        if len(seen) == 1:
            posts["k"] = {"n": 10}
        value["n"] += 1
        return value

    assert posts.modify("k", change).value == {"n": 11}
    assert seen == [{"n": 1}, {"n": 10}]


def test_modify_gives_up_when_told_to(posts: Collection) -> None:
    """A rival who is always faster, and two attempts. The rival's work stands."""
    posts["k"] = 0

    def outpaced(value: int) -> int:
        posts["k"] = value + 100
        return value + 1

    with pytest.raises(PreconditionFailed):
        posts.modify("k", outpaced, attempts=2)
    assert posts["k"] == 200


def test_modify_of_what_is_not_there(posts: Collection) -> None:
    """Needs a default; may delete; and cannot delete nothing."""
    with pytest.raises(NotFound):
        posts.modify("k", lambda value: value)
    with pytest.raises(NotFound):
        posts.modify("k", lambda value: DELETE, default=1)
    assert posts.modify("k", lambda value: [value], default=(1, 2)[0]).value == [1]
    assert posts.modify("k", lambda value: DELETE).deleted
    assert posts.modify("k", lambda value: value + 1, default=1).value == 2


def test_modify_leaves_the_document_when_the_function_fails_or_returns_what_cannot_be_kept(posts: Collection) -> None:
    """Its own error comes through."""
    posts["k"] = {"n": 1}

    with pytest.raises(ZeroDivisionError):
        posts.modify("k", lambda value: 1 / 0)
    with pytest.raises(InvalidDocument):
        posts.modify("k", lambda value: {"n": (1,)})
    assert posts["k"] == {"n": 1}


def test_edit_writes_what_the_block_has_changed(posts: Collection) -> None:
    """Once, at the end; and nothing if nothing changed or the block failed."""
    posts["k"] = {"tags": ["a"]}

    with posts.edit("k") as value:
        value["tags"].append("b")
    with posts.edit("k") as value:
        value["tags"] = list(value["tags"])
    with pytest.raises(RuntimeError), posts.edit("k") as value:
        value.clear()
        raise RuntimeError
    with posts.edit("new", default={}) as value:
        value["n"] = 1

    assert posts["k"] == {"tags": ["a", "b"]}
    assert len(list(posts.history("k"))) == 2
    assert posts["new"] == {"n": 1}
    with pytest.raises(NotFound), posts.edit("none"):
        pass


def test_edit_is_refused_when_somebody_wrote_meanwhile(posts: Collection) -> None:
    """Also when the document was made, or deleted, meanwhile."""
    posts["k"] = {"n": 1}

    with pytest.raises(PreconditionFailed), posts.edit("k") as value:
        posts["k"] = {"n": 5}
        value["n"] += 1
    with pytest.raises(PreconditionFailed), posts.edit("new", default={}) as value:
        posts["new"] = {"n": 6}
    with pytest.raises(PreconditionFailed), posts.edit("k") as value:
        del posts["k"]
        value["n"] += 1

    assert dict(posts) == {"new": {"n": 6}}


# --- many at once ----------------------------------------------------------------------------------------------------


def test_put_many_takes_a_mapping_or_a_stream_of_pairs(posts: Collection) -> None:
    """A key that comes twice gets two versions, in order, as by `[]`."""
    assert posts.put_many({"a": 1, "b": 2}) == 2
    assert posts.put_many((f"k{n}", n) for n in range(2_500)) == 2_500
    assert posts.put_many([("a", "x"), ("a", "y")]) == 2
    assert posts.put_many([]) == 0

    assert len(posts) == 2_502
    assert [version.value for version in posts.history("a")] == ["y", "x", 1]


def test_put_many_stops_at_what_cannot_be_kept_and_says_where(posts: Collection) -> None:
    """The batches before are stored; of its own, nothing. The message has the key, the error the path."""
    documents = [(f"k{n:02d}", {"n": n}) for n in range(25)]
    documents[17] = ("k17", {"n": [1, {2, 3}]})  # type: ignore[dict-item]

    with pytest.raises(InvalidDocument, match=r"^'k17': .*/n/1") as refused:
        posts.put_many(documents, batch_rows=10)
    with pytest.raises(InvalidKey, match="1,025 bytes"):
        posts.put_many([("fine", 1), ("x" * 1025, 2)])

    assert refused.value.path == "/n/1"
    assert sorted(posts) == [f"k{n:02d}" for n in range(10)]


def test_delete_many_deletes_what_is_there(posts: Collection) -> None:
    """And counts only that: not what never was, nor what is deleted, nor what is named twice."""
    posts.put_many({f"k{n}": n for n in range(30)})
    del posts["k0"]

    assert posts.delete_many(["k0", "k1", "k1", "k2", "never", *(f"k{n}" for n in range(3, 20))]) == 19
    assert len(posts) == 10
    assert len(list(posts.history("k0"))) == 2


def test_get_many_keeps_the_order_asked_for_and_reports_misses(posts: Collection) -> None:
    """Also null values, repeated keys, and more keys than fit in one query."""
    posts.put_many({f"k{n}": n for n in range(1_200)})
    posts["null"] = None
    del posts["k5"]

    found = posts.get_many(["k7", "nope", "null", "k5", "k1199", "k7", *(f"k{n}" for n in range(1_100, 0, -1))])

    assert list(found)[:3] == ["k7", "null", "k1199"]
    assert found["null"] is None
    assert found.missing == ["nope", "k5"]
    assert len(found) == 1_101
    assert list(found.items())[3:6] == [("k1100", 1_100), ("k1099", 1_099), ("k1098", 1_098)]


def test_get_many_treats_conflicts_as_it_is_told(posts: Collection) -> None:
    """Raise, the winner, or leave out."""
    posts["peace"] = 0
    posts.put("war", 1, context=Context("war"))
    winner = posts.put("war", 2, context=Context("war")).value

    with pytest.raises(Conflict):
        posts.get_many(["peace", "war"])
    assert posts.get_many(["peace", "war"], on_conflict="winner") == {"peace": 0, "war": winner}
    skipped = posts.get_many(["peace", "war"], on_conflict="skip")
    assert (skipped, skipped.missing) == ({"peace": 0}, [])


# --- what can be kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", NOT_DICTS, ids=repr)
def test_a_document_may_be_any_json_value(local: Store, value: Any) -> None:
    """On every way in and out; above all null, which is a live document whose value is None."""
    posts = local["posts"]
    posts["k"] = value
    first = posts.read("k")

    assert "k" in posts
    assert posts["k"] == value
    assert posts.get("k", "default") == value
    assert repr(first.value) == repr(value)
    assert not first.deleted
    assert posts.pop("k") == value
    assert posts.setdefault("k", value) == value
    posts.put_many({"m": value})
    assert dict(posts) == {"k": value, "m": value}
    assert posts.get_many(["k"]) == {"k": value}
    assert posts.modify("m", lambda given: [given]).value == [value]
    assert posts.modify("m", lambda given: given[0]).value == value
    assert [(version.value, version.deleted) for version in posts.history("k")] == [
        (value, False),
        (None, True),
        (value, False),
    ]
    assert posts.version("k", first.rev).value == value
    assert posts.at(first.stamp)["k"] == value
    assert {change.key: change.value for change in posts.changes(values=True)} == {"k": value, "m": value}
    posts.put("c", value, context=Context("c"))
    conflicted = posts.put("c", {"other": 1}, context=Context("c"))
    assert {repr(sibling.value) for sibling in conflicted.siblings} == {repr(value), "{'other': 1}"}
    assert [document.key for document in posts.conflicts()] == ["c"]
    assert posts.resolve("c", value).value == value
    assert posts.revert("c", conflicted.rev).rev.startswith("3-")
    assert posts.snapshot()["k"] == value
    assert posts.prefixed("k")[""] == value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [0, float("nan")]}, "/a/1"),
        ({"a": {"b/c": {"d~e": {1, 2}}}}, "/a/b~1c/d~0e"),
        ({"a": 2**64}, "/a"),
        ({"a": -(2**63) - 1}, "/a"),
        ({"a": (1, 2)}, "/a"),
        ({"a": "\ud800"}, "/a"),
        ({"a": {1: 2}}, "/a"),
        (b"bytes", ""),
        (float("-inf"), ""),
    ],
    ids=repr,
)
def test_what_cannot_be_kept_exactly_is_refused_with_its_path(local: Store, value: Any, path: str) -> None:
    """By every call that writes, before anything is written."""
    posts = local["posts"]
    posts["k"] = {"before": 1}
    seen = posts.read("k")

    for write in (
        lambda: posts.put("k", value),
        lambda: posts.put("k", value, context=seen.context),
        lambda: posts.put("k", value, match=seen.rev),
        lambda: posts.add(value),
        lambda: posts.put_many({"new": 1, "k": value}),
        lambda: posts.update(k=value),
        lambda: posts.setdefault("new", value),
        lambda: posts.modify("k", lambda _: value),
        lambda: posts.resolve("k", value),
    ):
        with pytest.raises(InvalidDocument) as refused:
            write()
        assert refused.value.path == path
    with pytest.raises(InvalidDocument), posts.edit("k") as document:
        document["more"] = value
    assert dict(posts) == {"k": {"before": 1}}
    assert len(list(posts.history("k"))) == 1


def test_nesting_beyond_200_levels_and_circles_are_refused(local: Store) -> None:
    """200 are kept."""

    def nested(levels: int) -> Any:
        value: Any = []
        for _ in range(levels - 1):
            value = [value]
        return value

    circle: list[Any] = []
    circle.append(circle)

    local["posts"]["deep"] = nested(200)
    for value in (nested(201), circle):
        with pytest.raises(InvalidDocument):
            local["posts"]["k"] = value

    assert local["posts"]["deep"] == nested(200)


def test_a_body_may_have_16_mib_and_no_more(posts: Collection) -> None:
    """On every database, except for a MariaDB server that accepts no packet for it: the refusal says what to set."""
    largest = "x" * (16 * 1024 * 1024 - 2)  # with its quotes, just the limit

    with pytest.raises(InvalidDocument, match="max_body_bytes"):
        posts["k"] = largest + "x"
    database = posts.store.shards[0].database
    if database.dialect.packet and database.read().text(database.dialect.packet)[0][0] < 2 * len(largest):
        with pytest.raises(ConfigurationError, match="max_allowed_packet is .*Nothing of this batch was written"):
            posts["k"] = largest
        largest = largest[: 7 * 1024 * 1024]

    posts["k"] = largest

    assert posts["k"] == largest
    assert len(list(posts.history("k"))) == 1


def test_the_limit_of_a_body_is_a_setting_of_the_store(few: Collection) -> None:
    """Here a thousand bytes."""
    few["k"] = "x" * 998

    with pytest.raises(InvalidDocument, match="1,000"):
        few["k"] = "x" * 999
    assert len(few["k"]) == 998


# --- snapshots and views of a part -----------------------------------------------------------------------------------


def test_a_snapshot_stays_what_it_was(posts: Collection) -> None:
    """Long after everything changed, for keys, values, single documents, and slices for other processes."""
    posts.put_many({f"k{n}": n for n in range(20)})
    posts.put("war", 1, context=Context("war"))
    posts.put("war", 2, context=Context("war"))
    del posts["k3"]
    snapshot = posts.snapshot()
    expected = dict(posts.items(on_conflict="skip"))

    posts.put_many({f"k{n}": "changed" for n in range(10)})
    posts.delete_many([f"k{n}" for n in range(10, 15)])
    posts.resolve("war", "over")
    posts["new"] = 1

    assert dict(snapshot.items(on_conflict="skip")) == expected
    assert sorted(snapshot) == sorted([*expected, "war"])
    assert snapshot["k1"] == 1
    assert {sibling.value for sibling in snapshot.read("war").siblings} == {1, 2}
    assert [slice_.name for slice_ in snapshot.slices(3)] == ["posts"] * 3
    read = {
        key: value
        for part in snapshot.slices(3)
        for batch in part.batches(Reading(on_conflict="skip"))
        for key, value in batch
    }
    assert read == expected
    with pytest.raises(NotFound):
        snapshot["new"]
    with pytest.raises(NotFound):
        snapshot["k3"]
    with pytest.raises(Conflict) as refused:
        list(snapshot.items())
    assert refused.value.document == snapshot.read("war")


def test_a_prefixed_view_is_a_collection_of_its_own(posts: Collection) -> None:
    """All that it does, it does to keys that begin so, and shows them without. What is outside stays as it is."""
    outside = {"2025/x": "old", "2026": "no slash", "2026/\U0010ffff!": "in", "2027/x": "new"}
    posts.put_many(outside)
    view = posts.prefixed("2026/")

    view["a"] = {"n": 1}
    view.put_many({"b": 2, "c": 3, "d/e": 4})
    first = view.read("a")
    assert posts["2026/a"] == {"n": 1}
    assert (first.key, [sibling.key for sibling in first.siblings]) == ("a", ["a"])
    assert dict(view) == {"a": {"n": 1}, "b": 2, "c": 3, "d/e": 4, "\U0010ffff!": "in"}
    assert len(view) == 5
    assert list(view.keys(start="b")) == ["b", "c", "d/e", "\U0010ffff!"]
    assert list(view.keys(reverse=True, end="d")) == ["c", "b", "a"]
    assert list(view.keys(prefix="d/")) == ["d/e"]
    assert view.get_many(["b", "x"]) == {"b": 2}
    assert view.get_many(["b", "x"]).missing == ["x"]
    assert view.put("a", {"n": 2}, context=first.context).key == "a"
    assert view.modify("a", lambda value: {"n": value["n"] + 1}).key == "a"
    with view.edit("a") as value:
        value["m"] = 0
    assert [version.key for version in view.history("a")] == ["a"] * 4
    assert view.version("a", first.rev).key == "a"
    assert len(view.diff("a", first.rev)) == 2
    assert view.revert("a", first.rev).value == {"n": 1}
    assert view.at(first.stamp).read("a").key == "a"
    assert dict(view.at(view.read("a").stamp)) == dict(view)
    assert [document.key for document in view.at(first.stamp).documents()] == ["a", "\U0010ffff!"]
    assert view.snapshot().read("a").key == "a"
    assert dict(view.snapshot()) == dict(view)
    assert {key for part in view.slices(4) for batch in part.batches(Reading()) for key, _ in batch} == set(view)
    assert {change.key for change in view.changes()} == set(view)
    view.put("w", 1, context=Context("w"))
    assert view.put("w", 2, context=Context("2026/w")).conflicted
    assert [document.key for document in view.conflicts()] == ["w"]
    with pytest.raises(Conflict, match="'w'"):
        list(view.values())
    assert view.resolve("w", lambda conflict: conflict.key).value == "w"
    assert view.prefixed("d/")["e"] == view.prefixed("d").prefixed("/")["e"] == 4
    added = view.add("mine")
    assert posts[f"2026/{added}"] == "mine"
    assert view.pop("b") == 2
    assert view.setdefault("b", 5) == 5
    assert view.prune(keep_last=1).keys == 7
    assert view.delete_many(["c", "2026/c"]) == 1
    with pytest.raises(NotFound):
        view.delete("c")
    view.clear()
    assert dict(view) == {}
    del outside["2026/\U0010ffff!"]
    assert dict(posts) == outside


def test_a_view_whose_prefix_is_a_key_has_that_document_under_the_empty_key(posts: Collection) -> None:
    """So that a view and its collection have the same documents."""
    posts.put_many({"a": 1, "ab": 2})

    assert dict(posts.prefixed("a")) == {"": 1, "b": 2}
    assert posts.prefixed("a")[""] == 1
    assert dict(posts.prefixed("")) == {"a": 1, "ab": 2}


def test_two_collections_of_a_store_know_nothing_of_each_other(store: Store) -> None:
    """Same keys, other documents, histories, feeds and moments."""
    one, other = store["one"], store["other"]
    one["k"] = 1
    other["k"] = 2
    other["k"] = 3
    one["only"] = 1

    assert (dict(one), dict(other)) == ({"k": 1, "only": 1}, {"k": 3})
    assert [version.value for version in one.history("k")] == [1]
    assert {change.key for change in one.changes()} == {"k", "only"}
    assert dict(other.at(other.read("k").stamp)) == {"k": 3}
    other.clear()
    store.drop("other")
    assert dict(one) == {"k": 1, "only": 1}


# --- small things ----------------------------------------------------------------------------------------------------


def test_a_collection_says_where_it_is(local: Store) -> None:
    """In a debugger, without any password."""
    assert repr(local["posts"]).startswith("<Collection 'posts' of <Store sqlite:///")
    assert "under 'a/'" in repr(local["posts"].prefixed("a/"))
    assert local["posts"].store is local


def test_errors_are_found_by_their_place_in_the_tree(local: Store) -> None:
    """`except KeyError` around a mapping works, and so does one `except StoreError` around all."""
    posts = local["posts"]
    with pytest.raises(KeyError):
        posts["k"]
    with pytest.raises(ValueError, match="refused"):
        posts["k"] = {1}
    with pytest.raises(vstore.StoreError):
        posts["k"]
    with pytest.raises(ConfigurationError):
        posts.put("k", 1) and posts.prune()
