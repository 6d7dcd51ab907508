"""Rows that a target cannot take: put aside with the reason, while the rest goes on, and taken once they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import replication.parked
import vstore
from replication.filters import Filter
from replication.handshake import standings
from replication.parked import Parked, parked
from replication.pull import Pulled, pull
from tests.replication.links import Pair, handle_of, pulled
from vstore import Store, Unavailable
from vstore.shard import Shard

POISON = "k13"

REFUSE = {
    "sqlite": [
        "CREATE TRIGGER poison BEFORE INSERT ON vs_version WHEN NEW.key = 'k13' AND NEW.stub = 0 "
        "BEGIN SELECT RAISE(ABORT, 'no thirteens'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.key = 'k13' AND NEW.stub = 0 THEN RAISE EXCEPTION 'no thirteens'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER poison BEFORE INSERT ON vs_version FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
    "mariadb": [
        "CREATE TRIGGER poison BEFORE INSERT ON vs_version FOR EACH ROW "
        "IF NEW.`key` = 'k13' AND NEW.stub = 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no thirteens'; END IF"
    ],
}
ACCEPT = {
    "sqlite": "DROP TRIGGER poison",
    "postgresql": "DROP TRIGGER poison ON vs_version",
    "mariadb": "DROP TRIGGER poison",
}


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """A source on SQLite, and a target on each kind of database in turn."""
    target, source = pair
    for store in pair:
        store.create("notes", partitions=2)
    return source, target


def spoil(store: Store) -> None:
    """The database refuses one key from now on."""
    database = store.shards[0].database
    for text in REFUSE[database.dialect.name]:
        database.read().text(text)


def mend(store: Store) -> None:
    """It takes the key again."""
    database = store.shards[0].database
    database.read().text(ACCEPT[database.dialect.name])


def waiting(store: Store) -> list[Parked]:
    """What is parked there."""
    return parked(handle_of(store))


def known(store: Store, other: Store) -> list[bool]:
    """For each partition, whether a store knows all that another's own actors did."""
    pairs = zip(standings(handle_of(store)), standings(handle_of(other)), strict=True)
    return [ours.covers({theirs.actor: theirs.ctr}) for ours, theirs in pairs]


def test_a_row_that_is_refused_is_parked_and_the_rest_goes_on(pair: Pair) -> None:
    """Thirty documents, of which the target's database refuses one."""
    source, target = pair
    source["notes"].put_many({f"k{n}": n for n in range(30)})
    spoil(target)

    report = pulled(source, target)

    assert (report.new, report.parked) == (29, 1)
    assert dict(target["notes"]) == {f"k{n}": n for n in range(30) if n != 13}
    [each] = waiting(target)
    assert (each.key, each.tries, "no thirteens" in each.reason) == (POISON, 1, True)
    assert sorted(known(target, source)) == [False, True]
    assert list(target.check()) == []


def test_it_arrives_once_it_is_accepted_and_the_knowledge_is_whole(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else has to change at the source for that."""
    monkeypatch.setattr(replication.parked, "RETRY_SECONDS", 0.0)
    source, target = pair
    source["notes"].put_many({f"k{n}": n for n in range(30)})
    spoil(target)
    pulled(source, target)
    again = pulled(source, target)
    tries = [each.tries for each in waiting(target)]
    mend(target)

    report = pulled(source, target)

    assert again.new == 0
    assert tries == [2]
    assert (report.new, report.unexplained) == (1, 0)
    assert waiting(target) == []
    assert known(target, source) == [True, True]
    assert dict(target["notes"]) == dict(source["notes"])
    assert pulled(source, target) == Pulled()


def test_it_is_tried_again_at_growing_distances() -> None:
    """After 1, 3, 7, … seconds, later each hour."""

    def is_due(tries: int, seconds: float) -> bool:
        return Parked("k", "1-x", "", 0, tries, "").is_due(int(seconds * 1_000_000))

    due = [next(t for t in range(12_000) if is_due(n, t)) for n in (1, 2, 3, 13)]

    assert not is_due(1, 0.999)
    assert due == [1, 3, 7, 4095 + 3600]


def test_until_it_is_due_nothing_is_asked_of_the_source(pair: Pair) -> None:
    """A pull with nothing new is as cheap as ever."""
    source, target = pair
    source["notes"][POISON] = 1
    spoil(target)
    pulled(source, target)

    assert pulled(source, target) == Pulled()
    assert [each.tries for each in waiting(target)] == [1]


def test_a_row_that_was_replaced_at_the_source_is_waited_for_no_more(pair: Pair) -> None:
    """Its successor is refused too, until it is not; then the target has what the source has."""
    source, target = pair
    source["notes"][POISON] = "first"
    spoil(target)
    pulled(source, target)
    source["notes"][POISON] = "second"
    pulled(source, target)
    revs = [each.rev for each in waiting(target)]
    mend(target)
    source["notes"][POISON] = "third"

    pulled(source, target)

    assert revs == [next(iter(source["notes"].history(POISON))).parents[0]]
    assert waiting(target) == []
    assert target["notes"][POISON] == "third"
    assert known(target, source) == [True, True]
    assert list(target.check()) == []


def test_damage_at_the_source_does_not_spread(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit has rotted in a body: it is JSON still, and not what its rev stands for."""
    monkeypatch.setattr(replication.parked, "RETRY_SECONDS", 0.0)
    source, target = pair
    source["notes"].put_many({"good": {"n": 1}, "bad": {"n": 1}, "gone": {"n": 1}})
    rot = source.shards[0].database.read().text
    rot("UPDATE vs_version SET body = CAST('{\"n\":3}' AS BLOB) WHERE key = 'bad'")
    rot("UPDATE vs_version SET body = CAST('{\"n\"' AS BLOB) WHERE key = 'gone'")

    report = pulled(source, target)
    reasons = {each.key: each.reason for each in waiting(target)}
    rot("UPDATE vs_version SET body = CAST('{\"n\":1}' AS BLOB) WHERE key = 'bad'")
    pulled(source, target)

    assert report.parked == 2
    assert "is not what rev" in reasons["bad"]
    assert "cannot be read as JSON" in reasons["gone"]
    assert dict(target["notes"]) == {"good": {"n": 1}, "bad": {"n": 1}}
    assert [each.key for each in waiting(target)] == ["gone"]


def test_a_failure_of_the_database_parks_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused for want of space, or because the server is not there, is not the fault of a row."""
    source, target = pair
    source["notes"].put_many({f"k{n}": n for n in range(30)})

    def failing(*_args: object, **_options: object) -> list[object]:
        raise Unavailable("the database went away", outcome_unknown=True) from OSError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Shard, "apply", failing)
        with pytest.raises(Unavailable, match="went away"):
            pulled(source, target)

    assert waiting(target) == []
    assert pulled(source, target).new == 30


@pytest.mark.mariadb
def test_a_body_that_the_server_cannot_be_sent_is_parked(fresh_url: Callable[[str], str]) -> None:
    """MariaDB hangs up on a packet above its limit; the neighbours arrive."""
    with vstore.open(fresh_url("sqlite")) as source, vstore.open(fresh_url("mariadb")) as target:
        for store in (source, target):
            store.create("notes", partitions=1)
        [(packet_bytes,)] = target.shards[0].database.read().text("SELECT @@max_allowed_packet")
        if packet_bytes > 24 * 1024 * 1024:
            pytest.skip("this server takes packets larger than any body")
        source["notes"].put_many({f"k{n}": n for n in range(20)})
        source["notes"]["large"] = "x" * (packet_bytes // 2 + 1_000_000)
        source["notes"].put_many({f"l{n}": n for n in range(20)})

        report = pulled(source, target)

        assert (report.new, report.parked) == (40, 1)
        [each] = waiting(target)
        assert each.key == "large"
        assert "max_allowed_packet" in each.reason


def test_what_another_filter_left_waiting_is_forgotten_once_it_has_come(
    local: Store, fresh_url: Callable[[str], str]
) -> None:
    """A function that failed is mended, which makes another filter of it; the note of the old one says nothing now."""
    local["notes"].put_many({"a": {"n": 0}, "b": {"n": 1}})

    def failing(_key: str, value: Any) -> bool:
        return bool(1 / value["n"])

    with vstore.open(fresh_url("sqlite")) as target:
        target.create("notes")
        there, here = local.handle("notes"), target.handle("notes")
        assert there is not None
        assert here is not None
        pull(there, here, filter=Filter(predicate=failing))
        assert [each.key for each in parked(here)] == ["a"]

        pull(there, here, filter=Filter(predicate=lambda _key, value: "n" in value))

        assert set(target["notes"]) == {"a", "b"}
        assert parked(here) == []


def test_an_erasure_takes_what_a_reason_quotes_along(local: Store, fresh_url: Callable[[str], str]) -> None:
    """A filter's function has failed, and its message has the document in it."""
    local["notes"]["a"] = {"secret": "4711"}

    def telling(_key: str, value: Any) -> bool:
        raise ValueError(value)

    with vstore.open(fresh_url("sqlite")) as target:
        target.create("notes")
        there, here = local.handle("notes"), target.handle("notes")
        assert there is not None
        assert here is not None
        pull(there, here, filter=Filter(predicate=telling))
        assert "4711" in parked(here)[0].reason

        local["notes"].erase("a")
        pull(there, here)

        assert parked(here) == []
