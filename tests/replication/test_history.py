"""Pulls with history: every version, or those since a moment, at both ends."""

from __future__ import annotations

import pytest

import vstore
from replication import sync
from replication.pull import Pulled
from tests.replication.links import Pair, handle_of, pulled, versions
from vstore import ConfigurationError, Store


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """Both with the collection, in 4 partitions."""
    for store in pair:
        store.create("notes", partitions=4)
    return pair


def story(store: Store, key: str) -> list[object]:
    """What a document was, newest first; None where it was deleted."""
    return [version.value for version in store["notes"].history(key)]


def test_every_version_comes_with_its_body(pair: Pair) -> None:
    """Edits, a delete and a document made again."""
    a, b = pair
    for value in (1, 2, 3):
        a["notes"]["k"] = value
    del a["notes"]["k"]
    a["notes"]["k"] = 4
    a["notes"]["other"] = "x"

    report = pulled(a, b, history="all")

    assert story(b, "k") == story(a, "k") == [4, None, 3, 2, 1]
    assert report.rows == report.new == 6
    assert pulled(a, b, history="all") == Pulled()
    assert list(b.check()) == []


def test_the_past_is_equal_at_every_moment(pair: Pair) -> None:
    """What `at` shows is a function of the versions."""
    a, b = pair
    moments = []
    for n in range(12):
        a["notes"][f"k{n % 3}"] = n
        moments.append(a["notes"].read(f"k{n % 3}").stamp)

    pulled(a, b, history="all")

    for moment in moments:
        assert dict(a["notes"].at(moment)) == dict(b["notes"].at(moment))


def test_history_fills_what_came_as_stubs_before(pair: Pair) -> None:
    """First the heads alone, then everything: superseded versions get their bodies and stay superseded."""
    a, b = pair
    for value in (1, 2, 3):
        a["notes"]["k"] = value
    pulled(a, b)
    stubs = sum(versions(b, "k").values())

    report = pulled(a, b, history="all")

    assert stubs == 2
    assert story(b, "k") == [3, 2, 1]
    assert b["notes"]["k"] == 3
    assert report.unexplained == 0
    assert list(b.check()) == []


def test_since_a_moment_older_versions_come_as_stubs_and_heads_whole(pair: Pair) -> None:
    """A document that was never edited since is there all the same."""
    a, b = pair
    a["notes"].put_many({"k": 1, "old": "as it was"})
    a["notes"]["k"] = 2
    moment = a["notes"].read("k").stamp
    a["notes"]["k"] = 3

    pulled(a, b, history=moment)

    bodies = [version.rev for version in a["notes"].history("k")]
    assert [versions(b, "k")[rev] for rev in bodies] == [False, False, True]
    assert b["notes"]["old"] == "as it was"
    assert b["notes"]["k"] == 3
    assert pulled(a, b, history=moment) == Pulled()


def test_edits_after_the_first_pull_come_with_all_between(pair: Pair) -> None:
    """Three edits between two pulls are three versions, not a head and two stubs."""
    a, b = pair
    a["notes"]["k"] = 0
    pulled(a, b, history="all")
    for value in (1, 2, 3):
        a["notes"]["k"] = value

    report = pulled(a, b, history="all")

    assert report.rows == 3
    assert story(b, "k") == [3, 2, 1, 0]


def test_both_sides_exchange_their_past(pair: Pair) -> None:
    """Edited apart, settled on one side: the story is one."""
    a, b = pair
    a["notes"]["k"] = {"n": 0}
    sync(a, b, history="all")
    for n in (1, 2):
        a["notes"]["k"] = {"n": 0, "a": n}
        b["notes"]["k"] = {"n": 0, "b": n}

    sync(a, b, vstore.resolvers.json3, history="all")

    assert versions(a, "k") == versions(b, "k")
    assert not any(versions(b, "k").values())
    assert a["notes"]["k"] == b["notes"]["k"] == {"n": 0, "a": 2, "b": 2}


def test_what_the_source_has_pruned_comes_as_a_stub(pair: Pair) -> None:
    """Its place in history is known, its body is nowhere."""
    a, b = pair
    for value in (1, 2, 3):
        a["notes"]["k"] = value
    a["notes"].prune(keep_last=1)

    pulled(a, b, history="all")

    assert versions(b, "k") == versions(a, "k")
    assert b["notes"]["k"] == 3


def test_a_replica_with_the_whole_history_knows_what_one_with_heads_knows(pair: Pair, local: Store) -> None:
    """The present and the knowledge do not depend on how much of the past came."""
    from replication.handshake import standings

    a, b = pair
    local.create("notes", partitions=4)
    for n in range(30):
        a["notes"][f"k{n % 7}"] = n
    del a["notes"]["k3"]

    pulled(a, b, history="all")
    pulled(a, local)

    assert dict(b["notes"]) == dict(local["notes"])
    actors = [each.actor for each in standings(handle_of(a))]
    for one, other in zip(standings(handle_of(b)), standings(handle_of(local)), strict=True):
        assert [one.bases.get(actor) for actor in actors] == [other.bases.get(actor) for actor in actors]


def test_no_history_of_that_name(pair: Pair) -> None:
    """Nothing is moved."""
    a, b = pair
    a["notes"]["k"] = 1

    with pytest.raises(ConfigurationError, match="history='everything'"):
        pulled(a, b, history="everything")

    assert len(b["notes"]) == 0
