"""Retention: what a rule lets go of, that nothing else goes, and that causality stays as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vstore
from replication import sync
from vstore import Collection, ConfigurationError, Context, HistoryPruned, Store, retention
from vstore.batch import Put
from vstore.clock import NOTHING, Dot
from vstore.document import Version
from vstore.resolvers import three_way
from vstore.retention import Pruned, prunable, prune

DAY_US = 86_400_000_000
NOW_US = 1_767_571_200_000_000  # 2026-01-05T00:00:00Z


@pytest.fixture
def posts(store: Store) -> Collection:
    """Ten days of writes, on each kind of database."""
    return with_ten_days(store)


@pytest.fixture
def notes(local: Store) -> Collection:
    """The same on SQLite, for what is the same everywhere."""
    return with_ten_days(local)


def with_ten_days(store: Store) -> Collection:
    """`a` was written on each of the last ten days, 9 to 0 days ago; `b` once; `c` was deleted yesterday."""
    posts = store["posts"]
    with store.transaction():
        for days_ago in range(9, -1, -1):
            write_at(posts, "a", days_ago, NOW_US - days_ago * DAY_US)
        write_at(posts, "b", "only", NOW_US - 9 * DAY_US)
        write_at(posts, "c", "short", NOW_US - 9 * DAY_US)
        write_at(posts, "c", None, NOW_US - DAY_US)
    return posts


def write_at(posts: Collection, key: str, value: Any, stamp_us: int) -> None:
    """A version of a past time, as an import makes it; None deletes."""
    handle = posts.store.handle(posts.name, create=True)
    assert handle is not None
    content = posts.content(value)
    if value is None:
        content = content._replace(identity=None, codec="", body=None)
    shard, definition, part = handle.place(key)
    posts.store.write(handle, [(shard, definition, Put(key, part, content, stamp=stamp_us))])


def pruned_at_now(posts: Collection, keep_last: int | None = None, keep_days: float | None = None) -> Pruned:
    """The rule applied at the fixture's present."""
    handle = posts.store.handle(posts.name)
    assert handle is not None
    return prune(handle, keep_last=keep_last, keep_days=keep_days, now_us=NOW_US)


def kept(posts: Collection, key: str) -> list[Any]:
    """The values that are still in the history of a document, newest first."""
    return [version.value for version in posts.history(key)]


def test_keep_last_keeps_the_newest_of_each_document(posts: Collection) -> None:
    """Three versions of `a` stay. Of `c` the tombstone is one of the three, so its only body stays too."""
    done = posts.prune(keep_last=3)

    assert done == Pruned(keys=3, pruned=7, kept=5)
    assert kept(posts, "a") == [0, 1, 2]
    assert kept(posts, "b") == ["only"]
    assert kept(posts, "c") == [None, "short"]


def test_keep_days_keeps_what_is_young_and_every_head(posts: Collection) -> None:
    """Four days, to the microsecond. `b` is older and stays as it is the head; what `c` once was goes."""
    done = pruned_at_now(posts, keep_days=4)

    assert done == Pruned(keys=3, pruned=6, kept=6)
    assert kept(posts, "a") == [0, 1, 2, 3, 4]
    assert kept(posts, "b") == ["only"]
    assert kept(posts, "c") == [None]
    assert pruned_at_now(posts, keep_days=4 - 1e-6 / 86_400).pruned == 1  # a microsecond less lets one more go


def test_with_both_rules_stays_what_either_keeps(notes: Collection) -> None:
    """Two by number and five by age are five; then seven by number and none by age."""
    pruned_at_now(notes, keep_last=7, keep_days=1)
    by_number = kept(notes, "a")
    pruned_at_now(notes, keep_last=2, keep_days=4)
    by_age = kept(notes, "a")

    assert by_number == [0, 1, 2, 3, 4, 5, 6]
    assert by_age == [0, 1, 2, 3, 4]


def test_a_dry_run_counts_what_the_real_run_then_does(notes: Collection) -> None:
    """The same counts, at the end and on the way, and nothing is changed before the real one."""
    told: dict[bool, list[Pruned]] = {True: [], False: []}
    before = notes.store.stats()

    foreseen = notes.prune(keep_last=3, dry_run=True, progress=told[True].append)
    after_dry = notes.store.stats()
    done = notes.prune(keep_last=3, progress=told[False].append)

    assert foreseen == done == Pruned(keys=3, pruned=7, kept=5)
    assert told[True] == told[False] == [done]
    assert after_dry == before
    assert kept(notes, "a") == [0, 1, 2]


def test_a_prune_repeated_finds_nothing_to_do(notes: Collection) -> None:
    """The bodies that stayed the first time stay the second time, and a stricter rule goes on from there."""
    notes.prune(keep_last=5)

    again = notes.prune(keep_last=5)
    stricter = notes.prune(keep_last=4)

    assert again == Pruned(keys=3, pruned=0, kept=7)
    assert stricter == Pruned(keys=3, pruned=1, kept=6)
    assert kept(notes, "a") == [0, 1, 2, 3]


def test_the_space_comes_back_and_the_versions_stay(posts: Collection) -> None:
    """Each body of `a` has one byte, "only" and "short" have quotes; ten of them go with one."""
    before = posts.store.stats()["posts"]
    posts.prune(keep_last=1)
    after = posts.store.stats()["posts"]

    counts = {
        "documents": 2,
        "tombstones": 1,
        "conflicts": 0,
        "versions": 13,
        "longest_clock": 1,
        "actors": 3,  # each of the three keys is in a partition of its own
    }
    assert before == {**counts, "stubs": 0, "body_bytes": 10 + 6 + 7}
    assert after == {**counts, "stubs": 10, "body_bytes": 1 + 6}
    assert list(posts.store.check()) == []


def test_an_interrupted_prune_keeps_what_it_did_and_can_be_continued(
    posts: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is one key here. Whoever watches the progress stops it after the second; later it is run again."""
    monkeypatch.setattr(retention, "PAGE_KEYS", 1)
    told: list[Pruned] = []

    def watch(done: Pruned) -> None:
        told.append(done)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        posts.prune(keep_last=1, progress=watch)
    in_the_middle = kept(posts, "a"), kept(posts, "c")
    continued = posts.prune(keep_last=1, progress=told.append)

    assert told[:2] == [Pruned(keys=1, pruned=9, kept=1), Pruned(keys=2, pruned=9, kept=2)]
    assert in_the_middle == ([0], [None, "short"])
    assert continued == told[-1] == Pruned(keys=3, pruned=1, kept=2)
    assert [done.keys for done in told[2:]] == [1, 2, 3]
    assert (kept(posts, "a"), kept(posts, "c")) == ([0], [None])
    posts["a"] = "the store goes on"
    assert list(posts.store.check()) == []


def test_a_prefix_view_prunes_its_own_documents_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two keys, so that the view's keys begin and end in the middle of pages."""
    monkeypatch.setattr(retention, "PAGE_KEYS", 2)
    posts = store["posts"]
    keys = ["a", "m", "m/1", "m/2", "m/3", "m0", "z"]
    for value in ("old", "new"):
        posts.put_many((key, value) for key in keys)

    done = posts.prefixed("m/").prune(keep_last=1)

    assert done == Pruned(keys=3, pruned=3, kept=3)
    assert [key for key in keys if kept(posts, key) == ["new"]] == ["m/1", "m/2", "m/3"]


@pytest.mark.parametrize(
    "rule",
    [
        {"keep_last": 0},
        {"keep_last": -1},
        {"keep_days": -0.5},
        {"keep_days": float("nan")},
        {"keep_days": float("inf")},
        {"keep_last": 3, "keep_days": -1},
    ],
    ids=str,
)
def test_a_rule_without_sense_is_refused(local: Store, rule: dict[str, Any]) -> None:
    """Keeping less than nothing, or for so long that it is no number of days."""
    posts = local["posts"]
    for n in range(3):
        posts["a"] = n

    with pytest.raises(ConfigurationError, match="keep at least 1 version, and 0 days or more. Nothing was pruned"):
        posts.prune(**rule)
    with pytest.raises(ConfigurationError, match="needs keep_last= or keep_days=. Nothing was pruned"):
        posts.prune()
    assert kept(posts, "a") == [2, 1, 0]


def test_the_base_of_a_conflict_stays_until_it_is_settled(store: Store) -> None:
    """Two edit the third of four versions; the merge needs that one. Afterwards it is as any other."""
    posts = store["posts"]
    for n in range(4):
        seen = posts.put("a", {"n": n, "x": 0, "y": 0}).context
    posts.put("a", {"n": 3, "x": 1, "y": 0}, context=seen)
    posts.put("a", {"n": 3, "x": 0, "y": 1}, context=seen)

    done = posts.prune(keep_last=1)
    merged = posts.resolve("a", three_way())
    later = posts.prune(keep_last=1)

    assert done == Pruned(keys=1, pruned=3, kept=3)
    assert merged.value == {"n": 3, "x": 1, "y": 1}
    assert later == Pruned(keys=1, pruned=3, kept=1)


def test_a_stale_context_means_the_same_after_a_prune(local: Store) -> None:
    """One who read the first version long ago writes: a rival of the present one, pruned or not. Once more: no change.

    The very write that made a version which is a stub now, repeated, is that version still.
    """
    heads = {}
    for name in ("whole", "pruned"):
        posts = local[name]
        first = posts.put("a", 0)
        for n in (1, 2, 3):
            posts["a"] = n
        if name == "pruned":
            posts.prune(keep_last=1)
        repeated = posts.put("a", 1, context=first.context)
        posts.put("a", "late", context=first.context)
        posts.put("a", "late", context=first.context)
        shown = posts.read("a", on_conflict="winner")
        heads[name] = [sibling.value for sibling in shown.siblings]
        assert repeated.value == 3  # nothing new: the document as it is

    assert heads["whole"] == heads["pruned"] == [3, "late"]
    assert local.stats()["pruned"] == {**local.stats()["whole"], "stubs": 3, "body_bytes": 1 + 6}


def test_a_replica_that_was_pruned_still_agrees_with_one_that_was_not(store: Store, tmp_path: Any) -> None:
    """Ann prunes and Bo does not; then both edit. Each gets the other's edit, and neither's old bodies move."""
    with vstore.open(f"sqlite:///{tmp_path / 'bo.db'}") as bo:
        for n in range(5):
            store["posts"]["a"] = {"n": n}
            sync(store, bo)
        seen = bo["posts"].read("a").context

        store["posts"].prune(keep_last=1)
        idle = sync(store, bo)
        store["posts"]["a"] = {"n": 4, "ann": 1}
        bo["posts"].put("a", {"n": 4, "bo": 1}, context=seen)
        report = sync(store, bo)

        assert not idle
        assert report.conflicts == 1
        values = [s.value for s in store["posts"].read("a", on_conflict="winner").siblings]
        assert values == [s.value for s in bo["posts"].read("a", on_conflict="winner").siblings]
        assert sorted(map(str, values)) == ["{'n': 4, 'ann': 1}", "{'n': 4, 'bo': 1}"]
        assert [version.value["n"] for version in bo["posts"].history("a")] == [4, 4, 4, 3, 2, 1, 0]
        assert [version.value["n"] for version in store["posts"].history("a")] == [4, 4, 4]
        assert not sync(store, bo)


def test_a_snapshot_taken_before_a_prune_says_what_it_lost(store: Store) -> None:
    """Its document was replaced and pruned since: refused, and not another version's value."""
    posts = store["posts"]
    posts["a"] = "then"
    snapshot = posts.snapshot()
    posts["a"] = "now"

    posts.prune(keep_last=1)

    with pytest.raises(HistoryPruned, match="'a' in 'posts'"):
        dict(snapshot.items())
    assert posts["a"] == "now"


# --- the rule itself, against a slow reading of its words ------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Version]:
    """The versions of one key: some roots, edits and merges, tombstones, stubs, and parents that are not here."""
    versions: dict[str, Version] = {}
    stamp_us = 0
    for n in range(1, draw(st.integers(1, 9)) + 1):
        revs = sorted(versions)
        parents = draw(st.lists(st.sampled_from(revs), max_size=3, unique=True)) if revs else []
        if draw(st.integers(0, 9)) == 0:
            parents.append(f"{n}-lost")
        stamp_us += draw(st.sampled_from([0, 1, 5]))
        deleted = draw(st.integers(0, 5)) == 0
        stub = not deleted and draw(st.integers(0, 5)) == 0
        body = None if deleted or stub else b"0"
        version = Version(f"{n}-{n:x}", tuple(parents), deleted, (Dot("a", n),), NOTHING, stamp_us, "", body, stub, n)
        versions[version.rev] = version
    return versions


def ancestors(rev: str, versions: Mapping[str, Version]) -> frozenset[str]:
    """Every rev that a version descends from, by the definition."""
    parents = versions[rev].parents if rev in versions else ()
    return frozenset(parents).union(*(ancestors(parent, versions) for parent in parents))


def bases(heads: Sequence[str], versions: Mapping[str, Version]) -> set[str]:
    """What a merge of any two or more of the heads may need: their common ancestors of which no other is a child."""
    found: set[str] = set()
    for size in range(2, len(heads) + 1):
        for group in combinations(heads, size):
            shared = frozenset.intersection(*(ancestors(rev, versions) for rev in group))
            found |= {rev for rev in shared if not any(rev in ancestors(other, versions) for other in shared)}
    return found


@settings(max_examples=400, deadline=None)
@given(
    versions=graphs(),
    keep_last=st.none() | st.integers(1, 6),
    oldest_us=st.none() | st.integers(0, 20),
)
def test_the_rule_lets_go_of_exactly_what_its_words_say(
    versions: dict[str, Version], keep_last: int | None, oldest_us: int | None
) -> None:
    """Random ancestries: old by both rules, no head, no tombstone, no base of a merge, and not gone already."""
    replaced = {parent for version in versions.values() for parent in version.parents}
    heads = sorted(versions.keys() - replaced)

    gone = {version.rev for version in prunable(versions, set(heads), keep_last, oldest_us)}

    needed = bases(heads, versions)
    expected = set()
    for rev, version in versions.items():
        newer = [v for v in versions.values() if (v.stamp, v.id) > (version.stamp, version.id)]
        old = (keep_last is None or len(newer) >= keep_last) and (oldest_us is None or version.stamp < oldest_us)
        if old and version.body is not None and rev not in heads and rev not in needed:
            expected.add(rev)
    assert gone == expected


def test_a_writer_who_saw_nothing_keeps_no_base(local: Store) -> None:
    """Two documents of one key that share no past: nothing but the heads is needed."""
    posts = local["posts"]
    for n in range(3):
        posts["a"] = n
    posts.put("a", "stranger", context=Context("a"))

    done = posts.prune(keep_last=1)

    assert done == Pruned(keys=1, pruned=2, kept=2)
