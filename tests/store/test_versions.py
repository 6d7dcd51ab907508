"""The versions of one document: listed, found by rev, compared, and gone back to."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.store.past import Past
from vstore import Collection, Conflict, Context, NotFound, Store
from vstore.patch import apply


@pytest.fixture
def posts(store: Store) -> Collection:
    """An empty collection on each kind of database."""
    return store["posts"]


def test_history_has_every_version_newest_first(posts: Collection) -> None:
    """With what each was, when, and what it came from."""
    posts["k"] = {"n": 1}
    posts["k"] = {"n": 2}
    posts.delete("k")
    posts["k"] = None

    versions = list(posts.history("k"))

    assert [(v.value, v.deleted) for v in versions] == [
        (None, False),
        (None, True),
        ({"n": 2}, False),
        ({"n": 1}, False),
    ]
    assert [v.rev.split("-")[0] for v in versions] == ["4", "3", "2", "1"]
    assert [v.parents for v in versions] == [(versions[n].rev,) for n in (1, 2, 3)] + [()]
    assert sorted((v.stamp for v in versions), reverse=True) == [v.stamp for v in versions]
    assert len({v.stamp for v in versions}) == 4
    assert all(v.key == "k" and v.siblings == () for v in versions)


def test_history_says_at_once_that_there_is_none(posts: Collection) -> None:
    """Not when the first version is asked for, which may be elsewhere."""
    with pytest.raises(NotFound, match="'k'"):
        posts.history("k")
    posts["other"] = 1
    with pytest.raises(NotFound, match="'k'"):
        posts.history("k")


def test_history_of_a_thousand_versions_comes_whole(posts: Collection) -> None:
    """More than a page of bodies."""
    posts.put_many(("k", n) for n in range(1_000))

    assert [version.value for version in posts.history("k")] == list(range(999, -1, -1))


def test_a_version_is_found_by_its_rev_and_its_context_is_what_its_writer_knew(posts: Collection) -> None:
    """Whoever goes on from an old version makes a sibling of the present."""
    first = posts.put("k", 1)
    posts["k"] = 2

    old = posts.version("k", first.rev)
    document = posts.put("k", "from the old one", context=old.context)

    assert (old.value, old.stamp, old.rev, old.parents) == (1, first.stamp, first.rev, ())
    assert {sibling.value for sibling in document.siblings} == {2, "from the old one"}
    for key, rev in (("k", "1-" + "0" * 32), ("k", "garbage"), ("j", first.rev)):
        with pytest.raises(NotFound, match="no version"):
            posts.version(key, rev)


def test_diff_turns_one_version_into_the_other(posts: Collection) -> None:
    """As RFC 6902 says; to the present unless told otherwise; a tombstone is null; a conflict has to be settled."""
    values: list[Any] = [{"a": 1, "b": [1, 2]}, {"a": 1.0, "b": [2], "c": None}, None, [1], "x"]
    revs = [posts.put("k", value).rev for value in values]

    assert posts.diff("k", revs[0], revs[0]) == []
    assert posts.diff("k", revs[0]) == [{"op": "replace", "path": "", "value": "x"}]
    for old, new in itertools.permutations(range(5), 2):
        assert apply(values[old], posts.diff("k", revs[old], revs[new])) == values[new]
    deleted = posts.delete("k")
    assert posts.diff("k", revs[4]) == [{"op": "replace", "path": "", "value": None}]
    assert posts.diff("k", deleted.rev, revs[3]) == [{"op": "replace", "path": "", "value": [1]}]
    posts.put("k", 1, context=Context("k"))
    posts.put("k", 2, context=Context("k"))
    with pytest.raises(Conflict):
        posts.diff("k", revs[0])


def test_revert_makes_old_content_the_newest_version(posts: Collection) -> None:
    """History grows by one; a revert to a tombstone deletes; siblings are settled by it."""
    first = posts.put("k", {"n": 1})
    posts["k"] = {"n": 2}
    gone = posts.delete("k")

    back = posts.revert("k", first.rev)
    assert (back.value, back.parents) == ({"n": 1}, (gone.rev,))
    assert posts["k"] == {"n": 1}
    assert posts.revert("k", gone.rev).deleted
    assert "k" not in posts
    posts.put("k", 3, context=Context("k"))
    posts.put("k", 4, context=Context("k"))
    assert not posts.revert("k", first.rev).conflicted
    assert len(list(posts.history("k"))) == 8
    with pytest.raises(NotFound):
        posts.revert("k", "1-" + "0" * 32)


def test_a_context_from_the_past_is_one_of_that_moment(posts: Collection) -> None:
    """To write with it is to write as somebody who has not looked since."""
    past = Past(posts)
    past.write("k", "old", 10)
    past.write("k", "new", 20)

    document = posts.put("k", "late", context=posts.at(15).read("k").context)

    assert {sibling.value for sibling in document.siblings} == {"new", "late"}


def test_a_past_moment_does_not_change_when_the_present_does(posts: Collection) -> None:
    """Not by writes, deletes, conflicts or settlements."""
    posts.put_many({f"k{n}": n for n in range(300)})
    moment = max(version.stamp for version in map(posts.read, posts))
    expected = dict(posts)
    then = posts.at(moment)

    iterator = iter(then.items())
    first = next(iterator)
    posts.put_many({f"k{n}": "changed" for n in range(0, 300, 2)})
    posts.delete_many(f"k{n}" for n in range(1, 300, 3))
    posts.put("k0", "rival", context=Context("k0"))
    posts["new"] = 1

    assert dict([first, *iterator]) == expected
    assert then == expected
    assert list(then) == sorted(expected)
