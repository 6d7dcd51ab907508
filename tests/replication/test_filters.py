"""Filtered replicas: what they take, what leaves them, and what they do not claim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import vstore
from replication import sync
from replication.filters import Filter
from replication.pull import Pulled
from tests.replication.links import Pair, events, pulled
from vstore import ConfigurationError, Store


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """Both with the collection, in 4 partitions."""
    for store in pair:
        store.create("notes", partitions=4)
    return pair


def fill(store: Store) -> None:
    store["notes"].put_many(
        {
            "eu/fr": {"land": "FR", "n": 1, "tags": ["a"]},
            "eu/it": {"land": "IT", "n": 2},
            "us/ny": {"land": "US", "n": 3},
            "us/tx": "no object",
        }
    )


@pytest.mark.parametrize(
    ("chosen", "keys"),
    [
        (Filter(prefix="eu/"), {"eu/fr", "eu/it"}),
        (Filter(fields={"land": "IT"}), {"eu/it"}),
        (Filter(fields={"/land": ["IT", "US"]}), {"eu/it", "us/ny"}),
        (Filter(fields={"/tags/0": "a"}), {"eu/fr"}),
        (Filter(fields={"n": True}), set()),
        (Filter(prefix="us/", predicate=lambda key, value: value == "no object"), {"us/tx"}),
    ],
)
def test_only_what_the_filter_wants_arrives(pair: Pair, chosen: Filter, keys: set[str]) -> None:
    """By prefix, by fields, by a function, and all of them together."""
    a, b = pair
    fill(a)

    report = pulled(a, b, filter=chosen)

    assert set(b["notes"]) == keys
    assert report.rows == len(keys)
    assert pulled(a, b, filter=chosen) == Pulled()


def test_another_filter_scans_again_and_skips_nothing(pair: Pair) -> None:
    """What the first one left out is behind its checkpoint, and comes with the second nevertheless."""
    a, b = pair
    fill(a)
    pulled(a, b, filter=Filter(prefix="eu/"))

    pulled(a, b, filter=Filter(prefix="us/"))
    after_two = set(b["notes"])
    everything = pulled(a, b)

    assert after_two == set(a["notes"])
    assert everything.new == 0
    assert everything.compared == 4


def test_a_changed_function_scans_again(pair: Pair) -> None:
    """Changed is its text, or what it closes over; its name is nothing."""
    a, b = pair
    fill(a)

    def small(bound: int) -> Callable[[str, Any], bool]:
        return lambda _key, value: isinstance(value, dict) and value["n"] <= bound

    pulled(a, b, filter=Filter(predicate=small(1)))
    assert set(b["notes"]) == {"eu/fr"}
    assert pulled(a, b, filter=Filter(predicate=small(1))) == Pulled()

    pulled(a, b, filter=Filter(predicate=small(2)))

    assert set(b["notes"]) == {"eu/fr", "eu/it"}


def test_with_a_version_that_decides_whether_a_function_has_changed(pair: Pair) -> None:
    a, b = pair
    fill(a)
    bounds = [1]

    def small(_key: str, value: Any) -> bool:
        return isinstance(value, dict) and value["n"] <= bounds[0]

    pulled(a, b, filter=Filter(predicate=small, version="1"))
    bounds[0] = 2
    assert pulled(a, b, filter=Filter(predicate=small, version="1")) == Pulled()

    pulled(a, b, filter=Filter(predicate=small, version="2"))

    assert set(b["notes"]) == {"eu/fr", "eu/it"}


def test_a_filtered_replica_does_not_claim_what_it_was_not_given(pair: Pair) -> None:
    """Without the filter all the rest comes: nothing of it was taken for known."""
    a, b = pair
    fill(a)
    pulled(a, b, filter=Filter(prefix="eu/"))

    report = pulled(a, b)

    assert report.new == 2
    assert report.unexplained == report.obsolete == 0
    assert dict(b["notes"]) == dict(a["notes"])


def test_a_document_that_leaves_the_filter_goes_and_the_feed_says_so(pair: Pair) -> None:
    """It is no delete: it is there at the source, and may come back."""
    a, b = pair
    fill(a)
    italy = Filter(fields={"land": "IT"})
    pulled(a, b, filter=italy)
    a["notes"]["eu/it"] = {"land": "SM"}

    left = pulled(a, b, filter=italy)
    gone = set(b["notes"])
    feed = events(b)
    a["notes"]["eu/it"] = {"land": "IT", "n": 5}
    back = pulled(a, b, filter=italy)

    assert left.left == 1
    assert gone == set()
    assert ("eu/it", "filter") in feed
    assert back.unexplained == 0
    assert dict(b["notes"]) == {"eu/it": {"land": "IT", "n": 5}}
    assert list(b.check()) == []


def test_the_same_version_comes_back_when_the_filter_takes_it_in_again(pair: Pair) -> None:
    """The document left under one filter; another one wants just the version that made it leave."""
    a, b = pair
    fill(a)
    pulled(a, b, filter=Filter(fields={"land": "IT"}))
    a["notes"]["eu/it"] = {"land": "SM"}
    pulled(a, b, filter=Filter(fields={"land": "IT"}))

    pulled(a, b, filter=Filter(fields={"land": ["IT", "SM"]}))

    assert dict(b["notes"]) == {"eu/it": {"land": "SM"}}


def test_an_edit_at_the_filtered_replica_outlives_the_leaving(pair: Pair) -> None:
    """It had not been seen by the write that took the document out of the filter, so it stays, and travels back."""
    a, b = pair
    fill(a)
    italy = Filter(fields={"land": "IT"})
    pulled(a, b, filter=italy)
    a["notes"]["eu/it"] = {"land": "SM"}
    b["notes"]["eu/it"] = {"land": "IT", "n": 9}

    pulled(a, b, filter=italy)
    pulled(b, a)

    assert dict(b["notes"]) == {"eu/it": {"land": "IT", "n": 9}}
    siblings = a["notes"].read("eu/it", on_conflict="winner").siblings
    assert sorted(each.value["land"] for each in siblings) == ["IT", "SM"]


def test_a_tombstone_comes_only_to_who_has_something_of_the_document(pair: Pair) -> None:
    """One of two deleted documents is there; nobody needs to hear of the other."""
    a, b = pair
    a["notes"].put_many({"here": {"in": True}, "not": {"in": False}})
    chosen = Filter(fields={"in": True})
    pulled(a, b, filter=chosen)
    del a["notes"]["here"], a["notes"]["not"]

    report = pulled(a, b, filter=chosen)

    assert report.rows == 1
    assert len(b["notes"]) == 0
    assert b["notes"].read("here", deleted=True).deleted


def test_a_document_in_conflict_is_wanted_if_one_sibling_is(pair: Pair) -> None:
    """Then it comes whole, so that whoever settles it there has seen all of it."""
    a, b = pair
    a["notes"]["k"] = {"land": "FR"}
    a["notes"].put("k", {"land": "IT"}, context=vstore.Context("k"))

    pulled(a, b, filter=Filter(fields={"land": "IT"}))

    siblings = b["notes"].read("k", on_conflict="winner").siblings
    assert sorted(each.value["land"] for each in siblings) == ["FR", "IT"]


def test_a_function_that_raises_parks_the_document_and_the_rest_goes_on(pair: Pair) -> None:
    """`us/tx` is no object, which the function did not expect."""
    from replication.parked import parked

    a, b = pair
    fill(a)

    report = pulled(a, b, filter=Filter(predicate=lambda key, value: value["n"] > 1))

    handle = b.handle("notes")
    assert handle is not None
    assert set(b["notes"]) == {"eu/it", "us/ny"}
    assert report.parked == 1
    assert [(each.key, "TypeError" in each.reason) for each in parked(handle)] == [("us/tx", True)]


def test_a_function_may_do_with_the_value_what_it_likes(pair: Pair) -> None:
    """It gets a copy of its own."""
    a, b = pair
    fill(a)

    def greedy(_key: str, value: Any) -> bool:
        return isinstance(value, dict) and value.pop("n") > 1

    report = pulled(a, b, filter=Filter(predicate=greedy))

    assert report.parked == 0
    assert dict(b["notes"]) == {"eu/it": {"land": "IT", "n": 2}, "us/ny": {"land": "US", "n": 3}}


def test_damage_is_found_before_a_filter_is_asked(local: Store, fresh_url: Callable[[str], str]) -> None:
    """A rotten body must not travel because its rotten value happens to be wanted."""
    from replication.parked import parked

    with vstore.open(fresh_url("sqlite")) as target:
        for store in (local, target):
            store.create("notes", partitions=4)
        fill(local)
        local.shards[0].database.read().text(
            "UPDATE vs_version SET body = CAST('{\"land\":\"IT\"}' AS BLOB) WHERE key = 'eu/fr'"
        )

        pulled(local, target, filter=Filter(fields={"land": "IT"}))

        handle = target.handle("notes")
        assert handle is not None
        assert set(target["notes"]) == {"eu/it"}
        assert [each.key for each in parked(handle)] == ["eu/fr"]


def test_a_sync_through_a_filter_goes_both_ways(pair: Pair) -> None:
    """Each side gives what the filter wants of what it has."""
    a, b = pair
    fill(a)
    b["notes"].put_many({"eu/es": {"land": "ES"}, "as/jp": {"land": "JP"}})

    sync(a["notes"], b["notes"], filter=Filter(prefix="eu/"))

    assert set(a["notes"]) == {"eu/fr", "eu/it", "us/ny", "us/tx", "eu/es"}
    assert set(b["notes"]) == {"eu/fr", "eu/it", "eu/es", "as/jp"}


def test_the_past_of_a_document_comes_along_when_it_enters_the_filter(pair: Pair) -> None:
    """With history, what happened before it was wanted as well."""
    a, b = pair
    for n in range(4):
        a["notes"]["k"] = {"n": n}
        pulled(a, b, filter=Filter(fields={"n": 3}), history="all")

    assert [version.value["n"] for version in b["notes"].history("k")] == [3, 2, 1, 0]


def test_a_filter_that_leaves_nothing_out_is_refused() -> None:
    """It would be a full replica that claims to be none."""
    with pytest.raises(ConfigurationError, match="leaves nothing out"):
        Filter()
    with pytest.raises(ConfigurationError, match="as a place"):
        Filter(fields={"": 1})


def test_filters_differ_by_what_they_want_and_not_by_how_it_is_written() -> None:
    """The identity names the checkpoint."""
    same = [Filter(fields={"a": [1, 2]}), Filter(fields={"a": (1, 2)})]
    others = [Filter(fields={"a": 1}), Filter(prefix="a"), Filter(prefix="a", version="2"), Filter(predicate=_wanted)]

    assert same[0].identity == same[1].identity
    assert len({each.identity for each in [*same, *others]}) == 5


def _wanted(_key: str, _value: Any) -> bool:
    return True


def test_an_edit_that_was_made_elsewhere_and_left_the_filter_is_there_already(pair: Pair) -> None:
    """Both make the same edit of the same version, and by it the document leaves: the second finds it made."""
    a, b = pair
    a["notes"]["k"] = {"n": 1}
    wanted = Filter(fields={"/n": 1})
    pulled(a, b, filter=wanted)
    seen = b["notes"].read("k").context
    made = a["notes"].put("k", {"n": 2}, context=a["notes"].read("k").context)
    pulled(a, b, filter=wanted)
    assert "k" not in b["notes"]

    again = b["notes"].put("k", {"n": 2}, context=seen)

    assert (again.rev, again.value) == (made.rev, {"n": 2})
    assert "k" not in b["notes"]
    assert list(b.check()) == []
