"""Purge: what may be forgotten, that nothing else is, and that nobody waits in vain."""

from __future__ import annotations

import time
from typing import Any

import pytest

import vstore
from tests.store.test_prune import DAY_US, NOW_US, write_at
from vstore import Collection, ConfigurationError, Context, NotFound, Store, purging, replicas
from vstore.clock import Clock, Dot
from vstore.document import Version
from vstore.handle import Handle
from vstore.plan import forgotten_of
from vstore.purging import Purged, events_of, purge
from vstore.replicas import Note


@pytest.fixture
def posts(store: Store) -> Collection:
    """Deletes of different age, on each kind of database."""
    return with_deletes(store)


@pytest.fixture
def notes(local: Store) -> Collection:
    """The same on SQLite, for what is the same everywhere."""
    return with_deletes(local)


def with_deletes(store: Store) -> Collection:
    """`old` was deleted 30 days ago after two edits, `new` yesterday, `back` too and written again; `live` lives."""
    posts = store["posts"]
    with store.transaction():
        for key, values in {"old": [1, 2, None], "new": [1], "back": [1, None, "again"], "live": ["here"]}.items():
            for days_ago, value in zip((32, 31, 30), values, strict=False):
                write_at(posts, key, value, NOW_US - days_ago * DAY_US)
        write_at(posts, "new", None, NOW_US - DAY_US)
    return posts


def handle_of(posts: Collection) -> Handle:
    handle = posts.store.handle(posts.name)
    assert handle is not None
    return handle


def purged_now(posts: Collection, grace_days: float = 7, **settings: Any) -> Purged:
    """The rule applied at the fixture's present."""
    return purge(handle_of(posts), grace_days=grace_days, now_us=NOW_US, **settings)


def rows_of(posts: Collection, key: str) -> int:
    """How many versions are stored of a key, stubs too."""
    handle = handle_of(posts)
    shard, definition, _part = handle.place(key)
    return len(shard.database.ask(vstore.sql.statements.VERSIONS(1), (definition.id, key)))


def registered(posts: Collection, uid: str, ahead: int = 0, seen: int = NOW_US, role: str = "full") -> None:
    """Notes a replica that knows all that is known here, but for the last events of each actor."""
    handle = handle_of(posts)
    known = replicas.known(handle)
    bases = [{actor: n + ahead for actor, n in part.items() if n + ahead > 0} for part in known]
    notes = [Note(uid, part, role, f"sqlite:///{uid}.db", base, seen) for part, base in enumerate(bases)]
    assert replicas.join(handle, notes, replicas.noted(handle), now_us=max(seen, NOW_US)) == len(notes)


def test_an_old_delete_is_forgotten_with_all_its_history(posts: Collection) -> None:
    """No other replica has been heard of, so what is known here is what all know. Only one delete is old enough."""
    done = purged_now(posts)

    assert done == Purged(keys=2, purged=1, versions=3, young=1)
    assert [rows_of(posts, key) for key in ("old", "new", "back", "live")] == [0, 2, 3, 1]
    with pytest.raises(NotFound):
        list(posts.history("old"))
    assert dict(posts) == {"back": "again", "live": "here"}
    assert list(posts.store.check()) == []


def test_the_grace_time_counts_to_the_microsecond(posts: Collection) -> None:
    """From the stamp of the tombstone, not of what it deleted."""
    assert purged_now(posts, 1 + 1e-6 / 86_400).young == 1
    assert purged_now(posts, 1).purged == 1
    assert posts.store.stats()["posts"] == {
        "documents": 2,
        "tombstones": 0,
        "conflicts": 0,
        "versions": 4,
        "stubs": 0,
        "body_bytes": 1 + 7 + 6,
        "longest_clock": 1,
        "actors": 4,
    }


def test_the_default_grace_is_a_week_of_the_wall_clock(local: Store) -> None:
    """What was deleted a moment ago stays."""
    local["posts"]["a"] = 1
    del local["posts"]["a"]

    assert local["posts"].purge() == Purged(keys=1, young=1)
    assert local["posts"].purge(grace_days=0) == Purged(keys=1, purged=1, versions=2)


def test_a_dry_run_counts_what_the_real_run_then_does(notes: Collection) -> None:
    """The same counts, and nothing is changed or remembered as forgotten before the real one."""
    before = notes.store.stats()

    foreseen = purged_now(notes, 0, dry_run=True)
    after_dry = notes.store.stats()
    forgotten = [forgotten_at(notes, key) for key in ("old", "new")]
    done = purged_now(notes, 0)

    assert foreseen == done == Purged(keys=2, purged=2, versions=5)
    assert after_dry == before
    assert forgotten == [{}, {}]
    assert all(forgotten_at(notes, key) for key in ("old", "new"))
    assert purged_now(notes, 0) == Purged()


def forgotten_at(posts: Collection, key: str) -> dict[str, int]:
    handle = handle_of(posts)
    shard, definition, part = handle.place(key)
    return forgotten_of(shard.database.read(), definition.base + part)


def test_what_is_forgotten_is_remembered_just_as_far_as_it_went(local: Store) -> None:
    """Later events of the partition are not: who knows the delete, but not those, has nothing to fear."""
    posts = local.create("posts", partitions=1)
    posts["a"] = 1
    del posts["a"]
    posts["b"] = 1

    posts.purge(grace_days=0)

    [(actor, n)] = replicas.known(handle_of(posts))[0].items()
    assert n == 3
    assert forgotten_at(posts, "a") == {actor: 2}


def test_a_purge_tells_the_feed_and_no_place_is_left_empty(posts: Collection) -> None:
    """Whoever follows learns that the keys are gone, and nothing of what they were is left to be read."""
    feeds = [posts.changes(full=full) for full in (False, True)]
    for feed in feeds:
        assert list(feed)

    purged_now(posts, 0)

    for full, feed in zip((False, True), feeds, strict=True):
        told = [(change.key, change.kind, change.deleted) for change in posts.changes(feed.since, full=full)]
        assert sorted(told) == [("new", "purge", True), ("old", "purge", True)]
    assert {version.key for _key, version in posts.history_scan()} == {"back", "live"}
    assert list(posts.store.check()) == []


def test_a_forgotten_key_is_new_when_it_is_written_again(posts: Collection) -> None:
    """A root, of which nothing is known but itself."""
    purged_now(posts, 0)

    document = posts.put("old", "new life", match=vstore.ABSENT)

    assert document.rev.startswith("1-")
    assert [version.value for version in posts.history("old")] == ["new life"]
    assert list(posts.store.check()) == []


def test_a_context_from_before_the_purge_still_writes(local: Store) -> None:
    """Who read the document when it lived, and writes now, makes a live document."""
    posts = local["posts"]
    seen = posts.put("a", 1).context
    del posts["a"]
    posts.purge(grace_days=0)

    posts.put("a", 2, context=seen)

    assert posts["a"] == 2
    assert list(local.check()) == []


def test_a_delete_beside_a_live_sibling_stays(posts: Collection) -> None:
    """Both were made by writers who had not seen each other: the document lives, and the tombstone is needed."""
    posts.put("old", "rival", context=Context("old"))

    done = purged_now(posts, 0)

    assert (done.keys, done.purged) == (1, 1)
    assert posts["old"] == "rival"
    assert rows_of(posts, "old") == 4


def test_deletes_by_several_writers_are_forgotten_together(local: Store) -> None:
    """Two tombstones, neither of which had seen the other."""
    posts = local["posts"]
    seen = posts.put("a", 1).context
    posts.delete("a", context=seen)
    rival = posts.put("a", 2, context=Context("a")).context
    posts.delete("a", context=Context("a", rival.seen, (posts.read("a").rev,)))

    done = posts.purge(grace_days=0)

    assert done.purged == 1
    assert rows_of(posts, "a") == 0


# --- who holds it back -----------------------------------------------------------------------------------------------


def test_a_replica_that_has_not_acknowledged_a_delete_holds_it_back(posts: Collection) -> None:
    """It is named, with how many documents wait for it and how far it is behind."""
    registered(posts, "bo", ahead=-1, seen=NOW_US - 3 * DAY_US)
    registered(posts, "cy")

    done = purged_now(posts, 0)

    assert (done.keys, done.purged, done.held, done.expired) == (2, 0, 2, ())
    [holder] = done.holders
    assert (holder.id, holder.name, holder.keys) == ("bo", "sqlite:///bo.db", 2)
    assert holder.seen == NOW_US - 3 * DAY_US
    assert holder.behind == len([part for part in replicas.known(handle_of(posts)) if part])
    assert rows_of(posts, "old") == 3


def test_who_holds_back_most_is_named_first(notes: Collection) -> None:
    """One knows nothing; the other all but the last event of the partition of `new`."""
    registered(notes, "bo", ahead=-100)
    registered(notes, "cy")
    write_at(notes, "new", 1, NOW_US - 9 * DAY_US)
    write_at(notes, "new", None, NOW_US - 8 * DAY_US)

    done = purged_now(notes)

    assert [(holder.id, holder.keys) for holder in done.holders] == [("bo", 2), ("cy", 1)]
    assert done.held == 2


def test_once_all_have_acknowledged_it_goes(posts: Collection) -> None:
    """The newer note of a replica takes the place of the older one."""
    registered(posts, "bo", ahead=-1, seen=NOW_US - DAY_US)
    held = purged_now(posts)
    registered(posts, "bo", seen=NOW_US)

    assert held.purged == 0
    assert purged_now(posts).purged == 1


@pytest.mark.parametrize(("days_ago", "purged"), [(89.9, 0), (90.1, 1)])
def test_a_replica_that_has_not_been_heard_of_for_long_expires(notes: Collection, days_ago: float, purged: int) -> None:
    """After 90 days, unless said otherwise; and the report says that it was not asked."""
    registered(notes, "bo", ahead=-1, seen=NOW_US - round(days_ago * DAY_US))

    done = purged_now(notes)

    assert (done.purged, done.expired) == (purged, ("sqlite:///bo.db",) if purged else ())


def test_expiry_is_an_option_of_the_collection_and_of_the_call(notes: Collection) -> None:
    """The call wins."""
    registered(notes, "bo", ahead=-1, seen=NOW_US - 10 * DAY_US)
    notes.set_expire_days(9)

    longer = purged_now(notes, expire_days=11, dry_run=True)
    own = purged_now(notes)

    assert (longer.purged, longer.expired) == (0, ())
    assert (own.purged, own.expired) == (1, ("sqlite:///bo.db",))


def test_a_filtered_replica_never_holds_anything_back(posts: Collection) -> None:
    """It claims nothing, so there is nothing to wait for."""
    registered(posts, "bo", ahead=-100, role="filtered")

    assert purged_now(posts).purged == 1


def test_a_retired_replica_is_waited_for_no_more(notes: Collection) -> None:
    """Said by an operator, who knows that it was thrown away."""
    registered(notes, "bo", ahead=-1, seen=time.time_ns() // 1000)

    gone = notes.retire_replica("bo")

    assert (gone.id, gone.holds_back) == ("bo", True)
    assert notes.replicas() == []
    assert purged_now(notes).purged == 1


def test_a_replica_that_is_ahead_proves_no_more_than_is_known_here(notes: Collection) -> None:
    """What it knows and this replica does not is not stable."""
    registered(notes, "bo", ahead=100)

    done = purged_now(notes)

    assert done.purged == 1
    assert all(n <= 100 for n in forgotten_at(notes, "old").values())


def test_events_that_only_a_clock_remembers_have_to_be_stable_too() -> None:
    """What a tombstone has seen, and which is not here as a row, could arrive late elsewhere and pass for new."""
    tombstone = Version("2-b", ("1-a",), True, (Dot("a", 7), Dot("b", 2)), Clock({"c": 5}, {("d", 9): 3}), 0, id=1)
    stub = Version("1-a", (), False, (Dot("a", 9),), Clock(), 0, stub=True, id=2)

    assert events_of([tombstone, stub]) == {"a": 9, "b": 2, "c": 5, "d": 9}


# --- the run ---------------------------------------------------------------------------------------------------------


def test_an_interrupted_purge_keeps_what_it_did_and_can_be_continued(
    posts: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is one key here. Whoever watches the progress stops it after the first."""
    monkeypatch.setattr(purging, "PAGE_KEYS", 1)
    told: list[Purged] = []

    def watch(done: Purged) -> None:
        told.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purged_now(posts, 0, progress=watch)
    in_the_middle = [rows_of(posts, key) for key in ("new", "old")]
    continued = purged_now(posts, 0)

    assert told == [Purged(keys=1, purged=1, versions=2)]
    assert in_the_middle == [0, 3]
    assert continued == Purged(keys=1, purged=1, versions=3)
    assert list(posts.store.check()) == []


def test_pages_end_in_the_middle_of_anything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keys at a time, of a view whose keys begin and end in the middle of pages."""
    monkeypatch.setattr(purging, "PAGE_KEYS", 2)
    posts = store["posts"]
    keys = ["a", "m", "m/", "m/1", "m/2", "m/3", "m0", "z"]
    posts.put_many((key, 1) for key in keys)
    posts.delete_many(keys)

    done = posts.prefixed("m/").purge(grace_days=0)

    assert done == Purged(keys=4, purged=4, versions=8)
    assert [key for key in keys if rows_of(posts, key) == 0] == ["m/", "m/1", "m/2", "m/3"]


def test_a_document_that_comes_back_while_it_is_looked_at_stays(
    notes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule is asked again under the lock."""
    look = purging._deleted

    def and_write(*args: Any) -> Any:
        found = look(*args)
        notes["old"] = "back in time"
        return found

    monkeypatch.setattr(purging, "_deleted", and_write)
    done = purged_now(notes)

    assert done.purged == 0
    assert notes["old"] == "back in time"
    assert list(notes.store.check()) == []


def test_several_shards_are_purged_alike(fresh_url: Any, engine: str) -> None:
    """Each key on its own shard, of two kinds of database."""
    with vstore.open(fresh_url(engine), fresh_url("sqlite")) as store:
        posts = store["posts"]
        posts.put_many((f"k{n}", n) for n in range(100))
        posts.delete_many(f"k{n}" for n in range(0, 100, 2))

        done = posts.purge(grace_days=0)

        assert done == Purged(keys=50, purged=50, versions=100)
        assert len(posts) == 50
        assert list(store.check()) == []


@pytest.mark.parametrize("grace_days", [-1, float("nan"), float("inf")])
def test_a_grace_time_without_sense_is_refused(notes: Collection, grace_days: float) -> None:
    with pytest.raises(ConfigurationError, match="give 0 days or more. Nothing was purged"):
        notes.purge(grace_days=grace_days)
    with pytest.raises(ConfigurationError, match="0 days or more. Nothing was changed"):
        notes.purge(grace_days=0, expire_days=-1)
    with pytest.raises(ConfigurationError, match="0 days or more. Nothing was changed"):
        notes.set_expire_days(float("inf"))
    assert rows_of(notes, "old") == 3


def test_a_collection_that_is_not_there_cannot_be_purged(local: Store) -> None:
    with pytest.raises(NotFound, match="no collection 'posts'"):
        local["posts"].purge()
    assert local["posts"].replicas() == []


def test_the_space_comes_back_with_a_vacuum(tmp_path: Any) -> None:
    """A file of ten megabytes is a small one afterwards, and goes on as it was."""
    path = tmp_path / "a.db"
    with vstore.open(f"sqlite:///{path}") as store:
        posts = store["posts"]
        posts.put_many((f"k{n}", "x" * 10_000) for n in range(1_000))
        posts["stays"] = 1
        posts.delete_many(f"k{n}" for n in range(1_000))
        actors = [part.keys() for part in replicas.known(handle_of(posts))]
        posts.purge(grace_days=0)
        before = path.stat().st_size

        store.vacuum()

        assert before > 10_000_000
        assert path.stat().st_size < 1_000_000
        posts["goes on"] = 2
        assert dict(posts) == {"stays": 1, "goes on": 2}
        assert list(store.check()) == []
        now = [part.keys() for part in replicas.known(handle_of(posts))]
        assert all(old <= new for old, new in zip(actors, now, strict=True))


def test_a_vacuum_works_on_each_database_and_not_within_a_transaction(posts: Collection) -> None:
    """What there is stays as it is."""
    purged_now(posts, 0)
    with posts.store.transaction(), pytest.raises(ConfigurationError, match="Nothing was done"):
        posts.store.vacuum()

    posts.store.vacuum()

    assert dict(posts) == {"back": "again", "live": "here"}
    assert list(posts.store.check()) == []
