"""History and time travel, against a replay that knows for each write exactly which writes it had seen."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vstore.conflicts
import vstore.history
from vstore import Collection, Conflict, Context, HistoryPruned, InvalidKey, NotFound, Store
from vstore.batch import Put
from vstore.conflicts import presented
from vstore.document import Version, context_of
from vstore.resolvers import json3

KEYS = ("a/1", "a/2", "a/é", "b")
SECOND_US = 1_000_000
MONDAY_US = 1_767_571_200_000_000  # 2026-01-05T00:00:00Z

_names = itertools.count(1)


@dataclass(frozen=True)
class Write:
    """One write of a random history. `seen` is None, or how many writes of its key ago its context was read."""

    key: str
    deleted: bool
    seen: int | None
    later_us: int


@dataclass(frozen=True)
class Event:
    """What the replay knows of a write: which writes of the key it descends from, exactly."""

    stamp_us: int
    value: int | None
    seen: frozenset[int]


class Replay:
    """The independent oracle: plain sets of writes, no clocks, no revs, no database."""

    def __init__(self) -> None:
        self.events: dict[str, dict[int, Event]] = {key: {} for key in KEYS}
        self.contexts: dict[str, list[frozenset[int]]] = {key: [frozenset()] for key in KEYS}

    def write(self, n: int, write: Write, stamp_us: int) -> None:
        """Notes the n-th write of the history, and what a reader has seen just after it."""
        read = self.contexts[write.key]
        seen = read[-1] if write.seen is None else read[max(0, len(read) - 1 - write.seen)]
        event = Event(stamp_us, None if write.deleted else n, seen)
        # Who deletes again what was deleted after just these writes repeats an edit: it is there already, as it was.
        if not (
            write.deleted and seen and (None, seen) in {(e.value, e.seen) for e in self.events[write.key].values()}
        ):
            self.events[write.key][n] = event
        read.append(frozenset(self.events[write.key]))

    def heads(self, key: str, moment_us: int) -> list[int | None]:
        """The values at a moment: of the writes stamped by then those that no other of them had seen."""
        then = {n: event for n, event in self.events[key].items() if event.stamp_us <= moment_us}
        return [event.value for n, event in then.items() if not any(n in other.seen for other in then.values())]

    @property
    def moments(self) -> list[int]:
        """Before the first write, at each, a microsecond before each, and long after the last."""
        stamps = {event.stamp_us for events in self.events.values() for event in events.values()}
        return sorted(stamps | {stamp_us - 1 for stamp_us in stamps} | {max(stamps) + 10**15})


def replayed(store: Store, writes: Sequence[Write]) -> tuple[Collection, Replay]:
    """A new collection with a history, each version under its own stamp, and the replay of the same."""
    posts = store.create(f"posts{next(_names)}", partitions=2)
    handle = store.handle(posts.name)
    assert handle is not None
    replay = Replay()
    contexts: dict[str, list[Context]] = {key: [Context(key)] for key in KEYS}
    stamp_us = MONDAY_US
    with store.transaction():
        for n, write in enumerate(writes):
            stamp_us += write.later_us
            read = contexts[write.key]
            context = None if write.seen is None else read[max(0, len(read) - 1 - write.seen)]
            shard, definition, part = handle.place(write.key)
            content = posts.content(n)._replace(identity=None, codec="", body=None) if write.deleted else None
            put = Put(write.key, part, content or posts.content(n), context, stamp=stamp_us)
            [written] = store.write(handle, [(shard, definition, put)])
            read.append(context_of(write.key, written.heads))
            replay.write(n, write, stamp_us)
    return posts, replay


def histories(seen: st.SearchStrategy[int | None]) -> st.SearchStrategy[list[Write]]:
    """Writes to a few keys; the stamps of some are equal, as on a clock that stands still."""
    write = st.builds(
        Write,
        key=st.sampled_from(KEYS),
        deleted=st.sampled_from([False, False, False, True]),
        seen=seen,
        later_us=st.sampled_from([0, 1, 2, SECOND_US]),
    )
    return st.lists(write, min_size=1, max_size=18)


LINEAR = histories(st.none())
BRANCHING = histories(st.none() | st.integers(0, 4))
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(writes=LINEAR | BRANCHING)
def test_every_key_at_every_moment_is_what_the_replay_says(store: Store, writes: list[Write]) -> None:
    """Random histories, linear and branching; looked at before, at, between and after all their stamps."""
    posts, replay = replayed(store, writes)

    for moment_us in replay.moments:
        past = posts.at(moment_us)
        for key in KEYS:
            heads = replay.heads(key, moment_us)
            live = sorted(value for value in heads if value is not None)
            if not heads:
                with pytest.raises(NotFound, match="nothing had been stored under it by"):
                    past.read(key)
            else:
                assert sorted(sibling.value for sibling in past.read(key).siblings) == live
                assert past.read(key).deleted == (not live)
            assert (key in past) == bool(live)
            if len(live) == 1:
                assert past[key] == live[0]
            else:
                with pytest.raises(Conflict if live else NotFound):
                    past[key]


@few
@given(writes=BRANCHING)
def test_the_whole_collection_and_a_prefix_of_it_at_every_moment(store: Store, writes: list[Write]) -> None:
    """The same histories, read as a mapping; the keys of a prefix view leave the prefix out."""
    posts, replay = replayed(store, writes)

    for moment_us in replay.moments:
        live = {
            key: found
            for key in KEYS
            if (found := sorted(value for value in replay.heads(key, moment_us) if value is not None))
        }
        for prefix in ("", "a/"):
            past = posts.prefixed(prefix).at(moment_us)
            inside = {key.removeprefix(prefix): found for key, found in live.items() if key.startswith(prefix)}
            peaceful = {key: found[0] for key, found in inside.items() if len(found) == 1}
            documents = list(past.documents())
            assert {each.key: sorted(s.value for s in each.siblings) for each in documents} == inside
            assert [each.key for each in documents] == list(past) == sorted(inside)
            assert len(past) == len(inside)
            assert dict(past.items(on_conflict="skip")) == peaceful
            assert list(past.values(on_conflict="skip")) == list(peaceful.values())
            assert set(past.items(on_conflict="winner")) >= set(peaceful.items())
            assert [key for key, _ in past.items(on_conflict="winner")] == sorted(inside)
            if peaceful == {key: found[0] for key, found in inside.items()}:
                assert dict(past) == peaceful
            else:
                with pytest.raises(Conflict, match="Say on_conflict='winner' or 'skip', or use documents"):
                    dict(past.items())


@few
@given(writes=LINEAR | BRANCHING)
def test_history_lists_every_write_newest_first_with_its_stamp(store: Store, writes: list[Write]) -> None:
    """As many versions as there were writes; of equal stamps the later commit comes first."""
    posts, replay = replayed(store, writes)

    for key in KEYS:
        expected = [(event.stamp_us, event.value) for event in reversed(replay.events[key].values())]
        if not expected:
            with pytest.raises(NotFound, match="nothing was ever stored under it"):
                posts.history(key)
            continue
        found = list(posts.history(key))
        assert [(each.stamp, each.value) for each in found] == expected
        assert [each.deleted for each in found] == [value is None for _, value in expected]
        for each in found:
            assert posts.version(key, each.rev) == each
            assert set(each.parents) <= {other.rev for other in found}


@pytest.fixture
def posts(store: Store) -> Collection:
    """One document with a past of three days, on each kind of database."""
    return with_a_past(store)


@pytest.fixture
def notes(local: Store) -> Collection:
    """The same on SQLite, for what is the same everywhere."""
    return with_a_past(local)


def with_a_past(store: Store) -> Collection:
    """A document written on Monday, changed a second later, deleted on Tuesday, and back on Wednesday."""
    posts = store["posts"]
    write_at(posts, "2026/hello", {"n": 1}, MONDAY_US)
    write_at(posts, "2026/hello", {"n": 2, "tags": ["x"]}, MONDAY_US + SECOND_US)
    write_at(posts, "2026/hello", None, MONDAY_US + 86_400 * SECOND_US)
    write_at(posts, "2026/hello", {"n": 3}, MONDAY_US + 2 * 86_400 * SECOND_US)
    return posts


def write_at(posts: Collection, key: str, value: Any, stamp_us: int, context: Context | None = None) -> Version:
    """A version of a past time, as an import makes it; None deletes."""
    handle = posts.store.handle(posts.name, create=True)
    assert handle is not None
    content = posts.content(value)
    if value is None:
        content = content._replace(identity=None, codec="", body=None)
    shard, definition, part = handle.place(key)
    put = Put(key, part, content, context, stamp=stamp_us)
    [written] = posts.store.write(handle, [(shard, definition, put)])
    version: Version = written.version
    return version


def test_a_moment_is_text_or_a_datetime_or_a_stamp(notes: Collection) -> None:
    """One moment in all its forms: the second version was a second old, the first one gone."""
    forms = [
        "2026-01-05T00:00:02Z",
        "2026-01-05T01:00:02+01:00",
        "2026-01-05T00:00:02",
        datetime(2026, 1, 5, 0, 0, 2, tzinfo=UTC),
        datetime(2026, 1, 4, 19, 0, 2, tzinfo=timezone(timedelta(hours=-5))),
        1_767_571_202_000_000,
        1_767_571_202.0,
    ]

    pasts = [notes.at(form) for form in forms]

    assert [past.moment_us for past in pasts] == [1_767_571_202_000_000] * 7
    assert [past["2026/hello"] for past in pasts] == [{"n": 2, "tags": ["x"]}] * 7
    assert repr(pasts[0]) == "<'posts' at 2026-01-05T00:00:02.000000Z>"
    with pytest.raises(ValueError, match="has no time zone"):
        notes.at(datetime(2026, 1, 5))
    with pytest.raises(ValueError, match="is not a moment"):
        notes.at("yesterday")
    with pytest.raises(TypeError, match="is not a moment"):
        notes.at(None)


def test_a_version_is_there_from_its_own_microsecond_on(posts: Collection) -> None:
    """A microsecond before, nothing had been stored; at Tuesday's delete, it is gone, and its tombstone tells."""
    before, first = posts.at(MONDAY_US - 1), posts.at(MONDAY_US)
    deleted = posts.at("2026-01-06")

    assert dict(before) == {}
    assert "2026/hello" not in before
    assert dict(first) == {"2026/hello": {"n": 1}}
    assert dict(deleted) == {}
    assert deleted.read("2026/hello").deleted
    assert deleted.get("2026/hello", "gone") == "gone"
    with pytest.raises(NotFound, match="'2026/hello' in 'posts': nothing had been stored under it by 2026-01-04T23:59"):
        before["2026/hello"]
    with pytest.raises(NotFound, match=r"was deleted at 2026-01-06T00:00:00\.000000Z"):
        deleted["2026/hello"]
    assert posts.at("9999-12-31")["2026/hello"] == {"n": 3}


def test_what_can_be_no_key_was_never_there(notes: Collection) -> None:
    """As in the collection itself: `in` says no, and a read says why."""
    for past in (notes.at("2026-01-05"), notes.prefixed("2026/").at("2026-01-05")):
        assert 5 not in past  # type: ignore[comparison-overlap]
        assert "a\0b" not in past
        with pytest.raises(InvalidKey, match="a key is a str"):
            past.read(5)  # type: ignore[arg-type]


def test_siblings_of_a_moment_raise_conflict_and_are_shown(store: Store) -> None:
    """Two write on Monday without seeing each other; on Tuesday it is settled. Monday stays as it was."""
    posts = store["posts"]
    write_at(posts, "a", "Ann's", MONDAY_US, Context("a"))
    write_at(posts, "a", "Bo's", MONDAY_US, Context("a"))
    write_at(posts, "a", "both", MONDAY_US + 86_400 * SECOND_US)

    monday = posts.at("2026-01-05")
    with pytest.raises(Conflict, match=r"'a' in 'posts' had 2 live siblings at 2026-01-05T00:00:00\.0") as refused:
        monday["a"]

    assert refused.value.document == monday.read("a")
    assert {sibling.value for sibling in monday.read("a").siblings} == {"Ann's", "Bo's"}
    assert "a" in monday
    assert posts.at("2026-01-06")["a"] == posts["a"] == "both"


def test_history_diff_and_revert_work_in_a_prefix_view_too(posts: Collection) -> None:
    """A view knows the document by the rest of its key; what it writes is in the collection."""
    view = posts.prefixed("2026/")
    newest, deleted, second, first = view.history("hello")

    patch = view.diff("hello", first.rev, second.rev)
    back = view.revert("hello", second.rev)

    assert [each.key for each in (newest, deleted, second, first)] == ["hello"] * 4
    assert [each.value for each in (newest, deleted, second, first)] == [
        {"n": 3},
        None,
        {"n": 2, "tags": ["x"]},
        {"n": 1},
    ]
    assert second.parents == (first.rev,)
    assert {step["path"]: (step["op"], step["value"]) for step in patch} == {
        "/n": ("replace", 2),
        "/tags": ("add", ["x"]),
    }
    assert view.diff("hello", first.rev) == patch  # against the document as it is
    assert view.diff("hello", first.rev, deleted.rev) == [{"op": "replace", "path": "", "value": None}]
    assert back.parents == (newest.rev,)
    assert posts["2026/hello"] == {"n": 2, "tags": ["x"]}
    assert len(list(posts.history("2026/hello"))) == 5  # nothing was undone in history


def test_reverting_to_a_tombstone_deletes_again(notes: Collection) -> None:
    """The content of a deleted version is that there is none."""
    deleted = next(each for each in notes.history("2026/hello") if each.deleted)

    back = notes.revert("2026/hello", deleted.rev)

    assert back.deleted
    assert "2026/hello" not in notes


def test_a_version_that_never_was_is_not_found(notes: Collection) -> None:
    """By a rev of nobody, of another key, and in a collection that does not exist."""
    rev = next(notes.history("2026/hello")).rev
    notes["other"] = 1

    with pytest.raises(NotFound, match=f"'other' in 'posts' has no version {rev} here. history.. lists"):
        notes.version("other", rev)
    with pytest.raises(NotFound):
        notes.revert("2026/hello", "9-" + "0" * 32)
    with pytest.raises(NotFound, match="there is no collection 'none' yet"):
        notes.store["none"].history("a")
    with pytest.raises(NotFound, match="there is no collection 'none' yet"):
        notes.store["none"].at("2026-01-05")
    assert notes["2026/hello"] == {"n": 3}


def test_what_the_past_returns_is_nobody_elses(notes: Collection) -> None:
    """A caller changes everything that it was given; the next one is given the same as the first."""
    second = next(each for each in notes.history("2026/hello") if each.stamp == MONDAY_US + SECOND_US)
    past = notes.at(MONDAY_US + SECOND_US)

    for value in (
        second.value,
        notes.version("2026/hello", second.rev).value,
        past["2026/hello"],
        past.read("2026/hello").value,
        next(iter(past.values())),
        next(past.documents()).value,
    ):
        assert value == {"n": 2, "tags": ["x"]}
        value["tags"].append("mine")


def test_what_has_been_pruned_is_refused_and_never_guessed(posts: Collection) -> None:
    """Only the newest body stays. Monday's documents cannot be shown; Tuesday's tombstone and today can."""
    first = list(posts.history("2026/hello"))[-1]

    posts.prune(keep_last=1)

    message = (
        f"'2026/hello' in 'posts' was at {first.rev} at 2026-01-05T00:00:00.000000Z, which has been pruned. Nothing "
        f"was changed. Raise the retention to keep more from now on."
    )
    past = posts.at("2026-01-05")
    for look in (lambda: past["2026/hello"], lambda: past.read("2026/hello"), lambda: dict(past), lambda: len(past)):
        with pytest.raises(HistoryPruned) as refused:
            look()
        assert str(refused.value) == message
    for reach in (posts.version, posts.diff, posts.revert):
        with pytest.raises(HistoryPruned, match=f"version {first.rev} of '2026/hello' in 'posts' has been pruned"):
            reach("2026/hello", first.rev)
    assert dict(posts.at("2026-01-06")) == {}
    assert dict(posts.at("2026-01-08")) == {"2026/hello": {"n": 3}}
    assert [each.value for each in posts.history("2026/hello")] == [{"n": 3}, None]


def test_history_leaves_out_what_a_prune_takes_away_while_it_is_read(store: Store) -> None:
    """A reader has the list of 150 versions and one of them in hand when the others lose their bodies."""
    posts = store["posts"]
    with store.transaction():
        for n in range(150):
            posts["a"] = n

    listed = posts.history("a")
    newest = next(listed)
    posts.prune(keep_last=30)
    rest = list(listed)

    # The first page of 100 was read before the prune, the second one after it.
    assert newest.value == 149
    assert [each.value for each in rest] == list(range(148, 49, -1))
    assert [each.value for each in posts.history("a")] == list(range(149, 119, -1))


def test_a_base_that_a_prune_takes_away_while_it_is_fetched_is_none(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between finding the common ancestor and reading its body, another process settles the siblings and prunes."""
    posts = local["posts"]
    context = posts.put("a", "base").context
    posts.put("a", "mine", context=context)
    document = posts.put("a", "yours", context=context)
    handle = local.handle("posts")
    assert handle is not None
    find = vstore.conflicts.lowest

    def found_and_then_pruned(*args: Any) -> list[str]:
        found = find(*args)
        posts["a"] = "settled"
        posts.prune(keep_last=1)
        return found

    before = presented(handle, "a", document, json3)
    monkeypatch.setattr(vstore.conflicts, "lowest", found_and_then_pruned)
    after = presented(handle, "a", document, json3)

    assert before.siblings.base_value == "base"
    assert after.siblings.base is None
    assert "is not here: it was pruned" in after.lacking


def test_a_past_is_read_in_a_bounded_piece_of_memory(local: Store) -> None:
    """Four times as many documents of 2 KB, two versions each, take no more memory to read."""
    with local.transaction():
        for count in (1_000, 4_000):
            for text in ("a", "b"):
                local[f"of {count}"].put_many((f"{n:05}", {"text": text * 2_000}) for n in range(count))
    moment_us = MONDAY_US + 10**16
    assert sum(1 for _ in local["of 1000"].at(moment_us).values()) == 1_000  # so that caches are warm

    peaks = {count: peak_bytes(local[f"of {count}"].at(moment_us).items()) for count in (1_000, 4_000)}

    assert peaks[4_000] < 1.3 * peaks[1_000] + 200_000
    assert peaks[4_000] < 4_000_000  # of 8 MB of documents


def test_a_long_history_is_read_in_pages(local: Store) -> None:
    """1,000 versions of 10 KB each: not all of their bodies are in memory at once."""
    posts = local["posts"]
    with local.transaction():
        for n in range(1_000):
            posts["a"] = [n, "x" * 10_000]

    assert peak_bytes(posts.history("a")) < 5_000_000


def peak_bytes(rows: Iterator[Any] | Any) -> int:
    """How much memory walking through the rows takes at most."""
    tracemalloc.start()
    try:
        for _ in rows:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
