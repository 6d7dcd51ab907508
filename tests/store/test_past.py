"""Any moment of any history is shown exactly; after a prune it is shown exactly or refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vstore
from tests.store.past import Past, siblings
from vstore import Collection, Conflict, Context, HistoryPruned, Store
from vstore.batch import Receive
from vstore.history import version_at
from vstore.reading import Reading
from vstore.retention import Pruned
from vstore.slices import Slice
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

NOON_US = 1_793_534_400_000_000  # 2026-11-01T12:00:00Z

Step = tuple[str, int, str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "\u00e9\U0001f600"]),
        st.sampled_from([0, 1, 1_000]),  # microseconds after the one before
        st.sampled_from(["put", "put", "delete", "blind", "stale", "stale", "stale delete"]),
        st.integers(0, 99),  # which of the older versions a stale writer had read
    ),
    min_size=1,
    max_size=20,
)


@pytest.fixture
def posts(store: Store) -> Collection:
    """An empty collection on each kind of database."""
    return store["posts"]


def replay(posts: Collection, steps: list[Step], past: Past | None = None) -> Past:
    """Random writes from noon on, perhaps after others, and the oracle of what they were."""
    past = past or Past(posts)
    stamp = NOON_US
    for number, (key, after, what, which) in enumerate(steps):
        stamp += after
        known = [index for index, version in enumerate(past.versions) if version.key == key]
        if what == "blind" or not known:
            past.write(key, number, stamp, seen=[])
        elif what.startswith("stale"):
            past.write(key, number, stamp, seen=[known[which % len(known)]], delete="delete" in what)
        else:
            past.write(key, number, stamp, delete=what == "delete")
    return past


def check_every_moment(posts: Collection, past: Past) -> None:
    """Every moment at which anything happened, and those just before and after, for the whole and for each key."""
    stamps = {version.stamp for version in past.versions}
    for moment in sorted({stamp + offset for stamp in stamps for offset in (-1, 0, 1)}):
        expected = past.shown(moment)
        then = posts.at(moment)
        assert siblings(then.documents()) == expected
        assert list(then) == sorted(expected)
        for key in {version.key for version in past.versions}:
            assert (key in then) == (key in expected)
            if key in expected:
                assert {sibling.value for sibling in then.read(key).siblings} == expected[key]
    assert siblings(posts.read(key, on_conflict="winner") for key in posts) == past.shown()
    for key in {version.key for version in past.versions}:
        assert [(v.rev, v.stamp, v.deleted) for v in posts.history(key)] == [
            (v.rev, v.stamp, v.deleted) for v in past.history(key)
        ]


def check_after_prune(posts: Collection, past: Past, keep_last: int) -> None:
    """Each moment is shown exactly, or refused because a version that it needs is gone."""
    posts.prune(keep_last=keep_last)
    kept = {v.rev for key in {v.key for v in past.versions} for v in posts.history(key)}
    for moment in sorted({version.stamp for version in past.versions}):
        expected = past.shown(moment)
        for key in expected:
            needed = [past.versions[index] for index in past.heads(key, moment)]
            if all(version.deleted or version.rev in kept for version in needed):
                assert {sibling.value for sibling in posts.at(moment).read(key).siblings} == expected[key]
            else:
                with pytest.raises(HistoryPruned):
                    posts.at(moment).read(key)
    assert siblings(posts.read(key, on_conflict="winner") for key in posts) == past.shown()


_numbers = itertools.count(1)


@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        ("sqlite", 150),
        pytest.param("postgresql", 15, marks=pytest.mark.postgres),
        pytest.param("mariadb", 15, marks=pytest.mark.mariadb),
    ],
)
def test_any_history_is_shown_exactly_at_any_moment(fresh_url: Callable[[str], str], kind: str, examples: int) -> None:
    """Random writes by readers of anything older, against a replay in plain sets; then the same after a prune."""
    with vstore.open(fresh_url(kind), durability="relaxed") as store:

        @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
        @given(steps=STEPS, keep_last=st.integers(1, 3))
        def check(steps: list[Step], keep_last: int) -> None:
            posts = store[f"c{next(_numbers)}"]
            past = replay(posts, steps)
            check_every_moment(posts, past)
            check_after_prune(posts, past, keep_last)
            store.drop(posts.name)

        check()


def test_every_shard_is_pruned(fresh_url: Callable[[str], str]) -> None:
    """Of a store of three databases."""
    with vstore.open(*(fresh_url("sqlite") for _ in range(3))) as store:
        posts = store["posts"]
        for n in range(3):
            posts.put_many({f"k{m}": n for m in range(100)})

        assert posts.prune(keep_last=2) == Pruned(keys=100, pruned=100, kept=200)
        assert all([version.value for version in posts.history(key)] == [2, 1] for key in posts)


def test_the_full_feed_leaves_out_what_is_pruned_and_the_other_misses_nothing(posts: Collection) -> None:
    """A feed without values for some of its versions would be worse than a shorter one."""
    posts.put_many([("k", 1), ("k", 2), ("j", 1)])
    posts.prune(keep_last=1)

    assert sorted((change.key, change.value) for change in posts.changes(full=True, values=True)) == [
        ("j", 1),
        ("k", 2),
    ]
    assert sorted((change.key, change.value) for change in posts.changes(values=True)) == [("j", 1), ("k", 2)]


@pytest.mark.parametrize(
    "kind",
    [pytest.param("postgresql", marks=pytest.mark.postgres), pytest.param("mariadb", marks=pytest.mark.mariadb)],
)
def test_a_prune_and_a_writer_of_another_process_do_not_miss_each_other(
    fresh_url: Callable[[str], str], kind: str, tmp_path: Path
) -> None:
    """While a prune decides, a writer with an old context waits, so that no base of its sibling goes away.

    Two stores over one database stand for two processes: they share no lock of ours.
    """
    url = fresh_url(kind)
    with vstore.open(url) as store, vstore.open(url, state=tmp_path / "other") as other:
        posts = store.create("posts", partitions=1)
        base = posts.put("k", "base")
        posts["k"] = "edited"
        started: list[Future[None]] = []
        order: list[str] = []
        rows = type(store.shards[0].database.read()).rows

        def watched(connection: object, statement: object, params: Sequence[object] = ()) -> list[object]:
            found = rows(connection, statement, params)  # type: ignore[arg-type]
            if repr(statement) == "<Statement heads of keys>" and not started:
                started.append(pool.submit(write))
                with pytest.raises(TimeoutError):
                    started[0].result(timeout=0.5)
                order.append("decided")
            return found

        def write() -> None:
            other["posts"].put("k", "rival", context=Context("k", base.context.seen, base.context.revs))
            order.append("written")

        with ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(store.shards[0].database.read()), "rows", watched)
            posts.prune(keep_last=1)
            started[0].result(timeout=30)

        assert order == ["decided", "written"]
        assert {sibling.value for sibling in posts.read("k", on_conflict="winner").siblings} == {"edited", "rival"}


# --- in slices -------------------------------------------------------------------------------------------------------


def sliced(parts: Sequence[Slice]) -> dict[str, set[object]]:
    """What slices of a past show, in the oracle's form. No key may come twice."""
    found = [pair for part in parts for batch in part.batches(Reading(versions=True)) for pair in batch]
    assert len({key for key, _document in found}) == len(found)
    return {key: {sibling.value for sibling in document.siblings} for key, document in found}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, later=STEPS, count=st.integers(1, 4), page=st.integers(1, 3))
def test_slices_of_any_moment_stay_what_they_were(
    store: Store, steps: list[Step], later: list[Step], count: int, page: int
) -> None:
    """Cut, read, and read again after more had arrived that is stamped before, at and after the moments."""
    posts = store.create(f"s{next(_numbers)}", partitions=2)
    past = replay(posts, steps)
    stamps = sorted({version.stamp for version in past.versions})
    moments = [stamps[0] - 1, *stamps]
    expected = [past.shown(moment) for moment in moments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vstore.past, "PAGE_KEYS", page)
        cuts = [posts.at(moment).slices(count) for moment in moments]
        views = [posts.prefixed("a").at(moment).slices(count) for moment in moments]

        before = [sliced(parts) for parts in cuts]
        replay(posts, later, past)
        after = [sliced(parts) for parts in cuts]

        assert before == expected
        assert after == expected
        assert [sliced(parts) for parts in views] == [
            {key[1:]: values for key, values in shown.items() if key.startswith("a")} for shown in expected
        ]
    store.drop(posts.name)


def test_an_iteration_of_the_past_shows_one_state(posts: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives between its pages with an older stamp is in the next one."""
    monkeypatch.setattr(vstore.past, "PAGE_KEYS", 2)
    past = Past(posts)
    for key in "abcdef":
        past.write(key, "first", NOON_US)
    then = posts.at(NOON_US + 10)

    items = iter(then.items(on_conflict="winner"))
    first = [next(items)]
    for key in "abcdefg":
        past.write(key, "late", NOON_US + 5)

    assert first + list(items) == [(key, "first") for key in "abcdef"]
    assert dict(then.items()) == dict.fromkeys("abcdefg", "late")


def test_slices_of_the_past_heed_what_their_reader_says(posts: Collection) -> None:
    """Siblings of then, counted, skipped or raised; and the rev of each document."""
    past = Past(posts)
    past.write("a", 1, NOON_US)
    past.write("b", 1, NOON_US)
    past.write("b", 2, NOON_US, seen=[])
    past.write("c", 1, NOON_US)
    past.write("c", None, NOON_US + 1, delete=True)
    then = posts.at(NOON_US + 1)
    [part] = then.slices(1)
    for key in "abc":
        posts[key] = "later"
    shown, skipped = Reading(), Reading("skip")

    winners = [pair for batch in part.batches(shown) for pair in batch]
    alone = [pair for batch in part.batches(skipped) for pair in batch]

    assert winners == [("a", 1), ("b", then.read("b").value)]
    assert alone == [("a", 1)]
    assert (shown.conflicts, skipped.conflicts) == (1, 1)
    assert shown.body_bytes == 3
    with pytest.raises(Conflict, match=r"'b' in 'posts' had 2 live siblings .* at 2026-11-01T12:00:00"):
        list(part.batches(Reading("raise")))
    assert [part.rev_of(key) for key in "abcd"] == [then.read("a").rev, then.read("b").rev, None, None]


def test_a_body_that_comes_after_a_slice_was_cut_leaves_no_gap_for_a_neighbour(posts: Collection) -> None:
    """The middle version of three was here by name only, so the moment could not be shown; it still cannot.

    Else the first version would be taken for what was shown then.
    """
    past = Past(posts)
    for n in range(3):
        past.write("k", n, NOON_US + n)
    handle = posts.store.handle("posts")
    assert handle is not None
    shard, definition, part = handle.place("k")
    rows = [
        version_of(row[1:]) for row in shard.database.ask(sql.VERSIONS(1), (definition.id, "k"))
    ]  # in no particular order
    bodies = {version.rev: version_at(handle, "k", version.rev) for version in rows}
    first, middle, last = (bodies[version.rev] for version in past.versions)
    other = posts.store.create("other", partitions=posts.store.handle("posts").partitions)  # type: ignore[union-attr]
    there = posts.store.handle("other")
    assert there is not None
    shard, definition, part = there.place("k")
    posts.store.write(there, [(shard, definition, Receive(part, {"k": [first, last, middle.as_stub]}))])
    parts = other.at(NOON_US + 1).slices(1)
    with pytest.raises(HistoryPruned):
        sliced(parts)

    posts.store.write(there, [(shard, definition, Receive(part, {"k": [middle]}))])

    with pytest.raises(HistoryPruned):
        sliced(parts)
    assert sliced(other.at(NOON_US + 1).slices(1)) == {"k": {1}}
