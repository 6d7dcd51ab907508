"""Views as their users see them: ranges, groups, pages; what changes, fails and conflicts; on all databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vstore
from mapreduce import Collect, Count, F, First, Mean, ReduceError, Row, Sum, drop_view, view, views
from mapreduce.views import build, rows, update
from replication import sync
from vstore import ConfigurationError, InvalidToken, NotFound, Store
from vstore.handle import place_of
from vstore.sql import statements as sql


def tags(key: str, value: Any) -> Iterator[tuple[Any, Any]]:
    for tag in value["tags"]:
        yield tag, 1


def by_place(key: str, value: Any) -> Iterator[tuple[Any, Any]]:
    yield value["place"], value["n"]


PLACES = {
    "a": {"place": ["fr", "paris", 1], "n": 1},
    "b": {"place": ["fr", "paris", 2], "n": 2},
    "c": {"place": ["fr", "lyon"], "n": 4},
    "d": {"place": ["de", "bonn"], "n": 8},
    "e": {"place": ["fr"], "n": 16},
    "f": {"place": "nowhere", "n": 32},
    "g": {"place": None, "n": 64},
}

# --- reading ---------------------------------------------------------------------------------------------------------


def test_rows_come_in_the_order_of_their_keys_and_then_of_documents(store: Store) -> None:
    """Whatever order the documents were written in; a document may yield several rows, or none."""
    store["posts"].put_many({"two": {"tags": ["b", "a"]}, "one": {"tags": ["a"]}, "none": {"tags": []}})

    by_tag = view(store["posts"], "by_tag", map=tags)

    assert list(by_tag.rows()) == [Row("a", 1, "one"), Row("a", 1, "two"), Row("b", 1, "two")]


def test_keys_of_all_types_sort_as_the_collation_says(local: Store) -> None:
    """null < false < true < numbers < strings < arrays < objects; 1 and 1.0 are one key, and each row keeps its own."""
    keys = [None, False, True, -5, 0.5, 1, 1.0, 2**53, 2**53 + 1, "", "A", "a", "é", [], [1], [1, 2], {}, {"a": 1}]
    local["d"].put_many((f"{n:02}", {"k": key}) for n, key in enumerate(reversed(keys)))

    found = list(view(local["d"], "v", map=lambda key, value: [(value["k"], None)]).rows())

    assert [repr(row.key) for row in found if row.key != 1 or row.key is True] == [
        repr(key) for key in keys if key != 1 or key is True
    ]
    assert sorted(repr(row.key) for row in found if row.key == 1 and row.key is not True) == ["1", "1.0"]


@pytest.mark.parametrize(
    ("asked", "documents"),
    [
        ({"key": ["fr", "lyon"]}, "c"),
        ({"key": ["nothing"]}, ""),
        ({"key": None}, "g"),
        ({"keys": ["nowhere", ["fr"], "nowhere"]}, "fef"),
        ({"keys": ["nowhere", ["fr"]], "reverse": True}, "ef"),
        ({"start": ["fr"]}, "ecab"),
        ({"start": ["fr"], "end": ["fr", "paris", 1]}, "eca"),
        ({"start": ["fr"], "end": ["fr", "paris", 1], "inclusive_end": False}, "ec"),
        ({"start": ["fr"], "end": ["fr", {}]}, "ecab"),
        ({"end": None}, "g"),
        ({"end": "nowhere"}, "gf"),
        ({"reverse": True}, "bacedfg"),
        ({"reverse": True, "start": ["fr", "lyon"]}, "cedfg"),
        ({"reverse": True, "start": ["fr", "lyon"], "end": "nowhere"}, "cedf"),
        ({"reverse": True, "start": ["fr", "lyon"], "end": "nowhere", "inclusive_end": False}, "ced"),
        ({"limit": 3}, "gfd"),
        ({"limit": 0}, ""),
        ({"limit": 2, "reverse": True}, "ba"),
    ],
)
def test_a_range_is_what_a_user_of_couchdb_expects(local: Store, asked: dict[str, Any], documents: str) -> None:
    """Both ends are included; reading begins at start, so that of a reversed range it is the upper end."""
    local["d"].put_many(PLACES)

    found = view(local["d"], "v", map=by_place).rows(**asked)

    assert "".join(str(row.id) for row in found) == documents


@pytest.mark.parametrize(
    ("asked", "groups"),
    [
        ({"reduce": True}, [(None, 127)]),
        ({"group_level": 0}, [(None, 127)]),
        (
            {"group": True},
            [
                (None, 64),
                ("nowhere", 32),
                (["de", "bonn"], 8),
                (["fr"], 16),
                (["fr", "lyon"], 4),
                (["fr", "paris", 1], 1),
                (["fr", "paris", 2], 2),
            ],
        ),
        ({"group_level": 1}, [(None, 64), ("nowhere", 32), (["de"], 8), (["fr"], 23)]),
        ({"group_level": 1, "reverse": True}, [(["fr"], 23), (["de"], 8), ("nowhere", 32), (None, 64)]),
        (
            {"group_level": 2, "start": ["de"]},
            [(["de", "bonn"], 8), (["fr"], 16), (["fr", "lyon"], 4), (["fr", "paris"], 3)],
        ),
        ({"group_level": 1, "start": ["fr", "lyon"], "end": ["fr", "paris", 1]}, [(["fr"], 5)]),
        ({"group": True, "keys": [["fr"], None]}, [(["fr"], 16), (None, 64)]),
        ({"reduce": True, "keys": [["fr"], None]}, [(None, 80)]),
        ({"group_level": 1, "limit": 2}, [(None, 64), ("nowhere", 32)]),
        ({"reduce": True, "start": "z", "end": "zz"}, []),
    ],
)
@pytest.mark.parametrize("reduce", [Sum(), "sum", lambda key, values: sum(values)])
def test_groups_are_reduced(local: Store, reduce: Any, asked: dict[str, Any], groups: list[tuple[Any, int]]) -> None:
    """By exact keys, or arrays by their first elements; by a reducer, by its name, and by a plain function."""
    local["d"].put_many(PLACES)

    found = view(local["d"], "v", map=by_place, reduce=reduce).rows(**asked)

    assert list(found) == [Row(key, value, None) for key, value in groups]


def test_the_value_of_a_range_and_of_nothing(local: Store) -> None:
    """What the reducer makes of nothing; a plain function is not called for nothing."""
    local["d"].put_many(PLACES)
    total = view(local["d"], "v", map=by_place, reduce=Sum())
    worst = view(local["d"], "w", map=by_place, reduce=lambda key, values: max(values))

    assert total.value() == 127
    assert total.value(start=["fr"], end=["fr", {}]) == 23
    assert total.value(keys=[None, "nowhere"]) == 96
    assert total.value(key="elsewhere") == 0
    assert (worst.value(), worst.value(key="elsewhere")) == (64, None)


def test_rows_are_read_page_by_page(store: Store) -> None:
    """`after` of one page is where the next one begins: forwards, backwards, for groups, and after changes."""
    store["posts"].put_many((f"{n:03}", {"tags": [f"t{n % 7}"]}) for n in range(100))
    by_tag = view(store["posts"], "by_tag", map=tags, reduce=Count())
    asked: list[dict[str, Any]] = [{}, {"reverse": True}, {"group": True}, {"keys": ["t3", "t1", "t3"]}]

    for question in asked:
        whole = list(by_tag.rows(**question))
        pages = []
        after = None
        while True:
            page = by_tag.rows(**question, limit=3, after=after)
            found = list(page)
            if not found:
                assert page.after == after
                break
            pages += found
            after = page.after
        assert pages == whole

    first = by_tag.rows(limit=1)
    assert [row.id for row in first] == ["000"]
    store["posts"].delete("000")
    assert [row.id for row in by_tag.rows(limit=1, after=first.after)] == ["007"]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"key": 1, "start": 2}, ConfigurationError),
        ({"key": 1, "keys": [2]}, ConfigurationError),
        ({"limit": -1}, ConfigurationError),
        ({"group_level": -2}, ConfigurationError),
        ({"group": True, "reduce": False}, ConfigurationError),
        ({"start": 2, "end": 1}, ConfigurationError),
        ({"start": 1, "end": 2, "reverse": True}, ConfigurationError),
        ({"after": "bad"}, InvalidToken),
        ({"update": "sometimes"}, ConfigurationError),
        ({"key": {1, 2}}, TypeError),
        ({"key": float("nan")}, ValueError),
    ],
)
def test_questions_without_an_answer_are_refused_at_once(
    local: Store, asked: dict[str, Any], error: type[Exception]
) -> None:
    """Before anything is read; the message says what to do."""
    made = view(local["d"], "v", map=by_place, reduce=Sum())

    with pytest.raises(error):
        made.rows(**asked)


def test_a_cursor_belongs_to_its_order(local: Store) -> None:
    """One of the other direction would skip rows."""
    local["d"].put_many(PLACES)
    made = view(local["d"], "v", map=by_place)
    page = made.rows(limit=1)
    list(page)

    with pytest.raises(InvalidToken, match="other order"):
        made.rows(after=page.after, reverse=True)


def test_reductions_of_a_view_without_reduce_are_refused(local: Store) -> None:
    """The message names the cure."""
    local["d"].put_many(PLACES)

    with pytest.raises(ConfigurationError, match="reduce=Count"):
        list(view(local["d"], "v", map=by_place).rows(group=True))


def test_a_reading_shows_one_state_however_long_it_takes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and groups that were begun go on as they were, while documents change and the view is built anew."""
    monkeypatch.setattr(rows, "RESULTS_AHEAD", 10)
    store["posts"].put_many((f"{n:04}", {"tags": [f"t{n % 50:02}"]}) for n in range(1_000))
    by_tag = view(store["posts"], "by_tag", map=tags, reduce=Count())
    expected = list(by_tag.rows()), list(by_tag.rows(group=True))
    begun = by_tag.rows(), by_tag.rows(group=True)
    for reading in begun:
        next(reading)

    store["posts"].put_many((f"{n:04}", {"tags": ["new"]}) for n in range(0, 1_000, 2))
    by_tag.update()
    by_tag.rebuild()

    assert [[first, *rest] for first, rest in zip([each[0] for each in expected], begun, strict=True)] == [
        list(each) for each in expected
    ]


def test_a_long_reading_is_kept_in_a_file_and_not_in_memory(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past some bytes, what is not read yet waits on disk."""
    monkeypatch.setattr(rows, "RESULTS_AHEAD", 10)
    monkeypatch.setattr(rows, "SPOOL_BYTES", 100)
    local["d"].put_many((f"{n:04}", {"place": n, "n": 1}) for n in range(2_000))

    assert [row.key for row in view(local["d"], "v", map=by_place).rows()] == list(range(2_000))


def test_rows_hold_json_as_it_was_yielded(store: Store) -> None:
    """Tuples are arrays; everything else comes back as it was."""
    store["d"]["x"] = 1
    value = {"a": [None, True, 1, 2**63, -(2**63), 1.0, 0.1, "é\0", {}], "": []}

    [row] = view(store["d"], "v", map=lambda key, _: [((1, "k"), value)]).rows()

    assert row == Row([1, "k"], value, "x")
    assert type(row.value["a"][5]) is float


# --- changes ---------------------------------------------------------------------------------------------------------


def test_a_view_follows_puts_deletes_and_changes_of_keys(store: Store) -> None:
    """Rows of a document that changed are taken out by what was noted of it."""
    posts = store["posts"]
    posts.put_many({"a": {"tags": ["x", "y"]}, "b": {"tags": ["x"]}})
    by_tag = view(posts, "by_tag", map=tags, reduce=Count())
    assert list(by_tag.rows(group=True)) == [Row("x", 2, None), Row("y", 1, None)]

    posts["a"] = {"tags": ["z"]}
    posts.delete("b")
    posts["c"] = {"tags": ["y", "y"]}

    assert list(by_tag.rows()) == [Row("y", 1, "c"), Row("y", 1, "c"), Row("z", 1, "a")]
    assert by_tag.update() == 0  # nothing is left to do


def test_a_value_that_changes_under_the_same_key_is_the_new_one(store: Store) -> None:
    """The position stays, the value does not."""
    store["d"]["a"] = {"place": "p", "n": 1}
    made = view(store["d"], "v", map=by_place, reduce=Sum())
    assert made.value() == 1

    store["d"]["a"] = {"place": "p", "n": 5}

    assert (made.value(), list(made.rows())) == (5, [Row("p", 5, "a")])


def test_never_shows_what_is_there_and_after_brings_it_up_to_date_meanwhile(store: Store) -> None:
    """`after` shows the old state to the one who asks, and the new one to the next."""
    made = view(store["d"], "v", map=by_place, reduce=Sum())
    store["d"]["a"] = {"place": 1, "n": 1}
    with pytest.raises(NotFound, match="not been built"):
        made.value(update="never")
    assert made.value(update="after") == 1  # nothing was there, so it had to wait

    store["d"]["b"] = {"place": 2, "n": 2}

    assert made.value(update="never") == 1
    assert made.value(update="after") == 1
    assert made._afterwards is not None
    made._afterwards.join()
    assert made.value(update="never") == 3


def test_of_siblings_the_winner_counts_until_they_are_settled(store: Store) -> None:
    """And with on_conflict="skip" none, and with "raise" the document is among the errors."""
    posts = store["posts"]
    winner, skip, strict = (
        view(posts, how, map=by_place, on_conflict=how)  # type: ignore[arg-type]
        for how in ("winner", "skip", "raise")
    )
    posts["k"] = {"place": "base", "n": 0}
    seen = posts.read("k").context
    for made in (winner, skip, strict):
        assert [row.key for row in made.rows()] == ["base"]

    posts.put("k", {"place": "ours", "n": 1}, context=seen)
    posts.put("k", {"place": "theirs", "n": 2}, context=seen)

    shown = posts.read("k", on_conflict="winner").value["place"]
    assert [row.key for row in winner.rows()] == [shown]
    assert list(skip.rows()) == list(strict.rows()) == []
    assert [error.id for error in strict.errors()] == ["k"]
    for made in (winner, skip, strict):
        before = list(made.rows()), list(made.errors())
        made.rebuild()  # says the same as the update
        assert (list(made.rows()), list(made.errors())) == before
    posts.resolve("k", {"place": "settled", "n": 3})
    for made in (winner, skip, strict):
        assert [row.key for row in made.rows()] == ["settled"]
        assert list(made.errors()) == []


def test_changes_that_arrive_by_sync_are_followed(store: Store, local: Store) -> None:
    """Versions of another replica, conflicts and tombstones among them."""
    local["posts"].put_many(PLACES)
    made = view(store["posts"], "v", map=by_place, reduce=Sum())
    assert made.value() == 0
    sync(local["posts"], store["posts"])
    assert made.value() == 127

    local["posts"].delete("g")
    store["posts"]["a"] = {"place": "here", "n": 100}
    local["posts"]["a"] = {"place": "there", "n": 200}
    sync(local["posts"], store["posts"])

    expected = sum(value["n"] for value in store["posts"].values(on_conflict="winner"))
    assert made.value() == expected
    assert made.value() == view(local["posts"], "v", map=by_place, reduce=Sum()).value()


def test_a_view_of_a_prefix_has_only_its_documents(store: Store) -> None:
    """Under the keys that they have there; and it is another view than that of the whole."""
    posts = store["posts"]
    posts.put_many({"app/a": {"tags": ["x"]}, "app/b": {"tags": ["y"]}, "other": {"tags": ["z"]}})
    part = view(posts.prefixed("app/"), "by_tag", map=tags)
    whole = view(posts, "by_tag", map=tags)

    posts["app/c"] = {"tags": ["w"]}
    posts["more"] = {"tags": ["v"]}

    assert [(row.key, row.id) for row in part.rows()] == [("w", "c"), ("x", "a"), ("y", "b")]
    posts["app/d"] = {"tags": ["u"]}
    assert [(row.key, row.id) for row in part.rows()] == [("u", "d"), ("w", "c"), ("x", "a"), ("y", "b")]
    assert len(list(whole.rows())) == 6


def test_many_commits_that_are_no_matter_to_a_view_are_not_read_again(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view of a prefix notes where it is, even if none of its documents changed."""
    monkeypatch.setattr(update, "IDLE_COMMITS", 100)
    part = view(local["posts"].prefixed("app/"), "v", map=tags)
    local["posts"]["app/a"] = {"tags": ["x"]}
    part.update()

    local["posts"].put_many((f"other-{n}", {"tags": []}) for n in range(150))
    assert part.status().pending == 150
    part.update()

    assert part.status().pending == 0


def test_a_batch_ends_where_it_gets_large(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By documents or by rows: a change of everything is many transactions, each complete."""
    monkeypatch.setattr(update, "BATCH_DOCUMENTS", 10)
    monkeypatch.setattr(update, "BATCH_ROWS", 25)
    monkeypatch.setattr(update, "VALUES", 5)
    made = view(local["d"], "v", map=lambda key, value: [(value, n) for n in range(3)], reduce=Count())
    local["d"]["x"] = 0
    assert made.value() == 3
    before = made.status()

    local["d"].put_many((f"{n:03}", n) for n in range(200))

    assert made.update() == 200
    assert made.value() == 603
    assert before.generation == made.status().generation  # not built anew


# --- reducers --------------------------------------------------------------------------------------------------------


class Joined:
    """A reducer of a program's own, which does not commute: the texts in order."""

    def zero(self) -> str:
        return ""

    def add(self, acc: str, value: Any, /) -> str:
        return acc + value

    def merge(self, a: str, b: str, /) -> str:
        return a + b

    def finish(self, acc: str, /) -> str:
        return f"<{acc}>"


@pytest.mark.parametrize("reverse", [False, True])
def test_reductions_are_merged_in_the_order_of_keys(local: Store, reverse: bool) -> None:
    """Also of a reversed reading, across nodes, and after changes; by a reducer of one's own."""
    local["d"].put_many((f"{n:04}", {"place": [n % 3, n], "n": f"{n} "}) for n in range(3_000))
    made = view(local["d"], "v", map=by_place, reduce=Joined())
    list(made.rows(limit=1))
    for n in range(0, 3_000, 7):
        local["d"][f"{n:04}"] = {"place": [n % 3, n], "n": f"{n}! "}

    def text(rest: int) -> str:
        return "<" + "".join(f"{n} " if n % 7 else f"{n}! " for n in range(rest, 3_000, 3)) + ">"

    found = [(row.key, row.value) for row in made.rows(group_level=1, reverse=reverse)]

    assert found == [([rest], text(rest)) for rest in ((2, 1, 0) if reverse else (0, 1, 2))]
    assert made.value(start=[0, 30], end=[0, 36]) == "<30 33 36 >"


@pytest.mark.parametrize("reduce", [Collect(), Mean(), Sum(of=F), First()])
def test_partials_of_any_size_and_kind_can_be_kept_or_done_without(local: Store, reduce: Any) -> None:
    """Collect is too large to be kept in every node, Mean is no number, First has pairs: all are right."""
    pair = isinstance(reduce, First)
    local["d"].put_many((f"{n:04}", {"place": n % 10, "n": [n, n] if pair else n}) for n in range(2_000))
    made = view(local["d"], "v", map=by_place, reduce=reduce)
    expected = {Collect: list(range(5, 2_000, 10)), Mean: 1_000.0, Sum: 200_000, First: 5}[type(reduce)]

    assert made.value(key=5) == expected


def test_values_that_the_reducer_refuses_are_rows_and_no_obstacle(store: Store) -> None:
    """The question that needs them says which group it was; ranges without them are answered."""
    store["d"].put_many((f"{n:04}", {"place": n, "n": 1}) for n in range(1_000))
    store["d"]["0500"] = {"place": 500, "n": "one"}
    made = view(store["d"], "v", map=by_place, reduce=Sum())

    with pytest.raises(ReduceError, match="Sum"):
        made.value()
    assert made.value(end=499) == 500
    assert made.value(start=501) == 499
    assert list(made.rows(key=500)) == [Row(500, "one", "0500")]
    store["d"]["0500"] = {"place": 500, "n": 1}
    assert made.value() == 1_000


# --- errors ----------------------------------------------------------------------------------------------------------


def raising(key: str, value: Any) -> Iterator[tuple[Any, Any]]:
    yield key, value["n"]
    yield value["k"], 0


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({}, "KeyError: 'n'"),
        ({"n": 1}, "KeyError: 'k'"),
        ({"n": 1, "k": "x" * 5_000}, "at most 4,096 fit"),
    ],
)
def test_a_document_that_fails_has_no_rows_and_an_error(store: Store, bad: Any, says: str) -> None:
    """Not even those that came before it failed. It is listed with its traceback, until it is mended or deleted."""
    store["d"].put_many({"good": {"n": 1, "k": "a"}, "bad": bad})
    made = view(store["d"], "v", map=raising)

    assert [row.id for row in made.rows()] == ["good", "good"]
    [error] = made.errors()
    assert error.id == "bad"
    assert says in error.error
    assert made.status().errors == 1
    store["d"]["later"] = bad
    made.update()
    assert [each.id for each in made.errors()] == ["bad", "later"]
    store["d"]["bad"] = {"n": 1, "k": "b"}
    store["d"].delete("later")
    made.update()
    assert list(made.errors()) == []
    assert len(list(made.rows())) == 4


@pytest.mark.parametrize(
    ("yielded", "says"),
    [
        ("abc", "no (key, value) pair"),
        ((1, {1, 2}), "type set"),
        ((float("nan"), 1), "nan"),
        ((1, float("inf")), "inf"),
        ((2**70, 1), "71 bits"),
        ((1, [2**64]), "65 bits"),
        ((1, {2: 3}), "no string"),
        (("\ud800", 1), "surrogate"),
        ((1, b"bytes"), "type bytes"),
    ],
)
def test_what_json_would_not_keep_is_refused(local: Store, yielded: Any, says: str) -> None:
    """Nothing is rounded or dropped without a word."""
    local["d"]["x"] = 1
    made = view(local["d"], "v", map=lambda key, value: [yielded])

    assert list(made.rows()) == []
    assert says in next(made.errors()).error


def test_the_traceback_of_an_error_begins_in_the_program(local: Store) -> None:
    """Our own frames tell nobody anything."""
    local["d"]["x"] = {}
    made = view(local["d"], "v", map=raising)
    made.update()

    [error] = made.errors()

    assert "in raising" in error.traceback
    assert "emitted.py" not in error.traceback


# --- definitions -----------------------------------------------------------------------------------------------------


def test_a_changed_map_is_built_anew_while_the_old_rows_serve(store: Store) -> None:
    """Those who ask with update="never" get them, until the new build is done."""
    store["d"].put_many({"a": 1, "b": 2})
    old = view(store["d"], "v", map=lambda key, value: [(value, "old")])
    assert [row.value for row in old.rows()] == ["old", "old"]
    new = view(store["d"], "v", map=lambda key, value: [(-value, "new")])

    assert [row.value for row in new.rows(update="never")] == ["old", "old"]
    assert new.status().state == "outdated"
    assert [row.key for row in new.rows()] == [-2, -1]
    assert new.status().generation == 2
    assert [row.key for row in old.rows(update="never")] == [-2, -1]


def test_partials_of_another_reducer_are_not_used(local: Store) -> None:
    """While the old build serves, a new reducer is answered from its rows."""
    local["d"].put_many((f"{n:04}", n) for n in range(1_000))
    view(local["d"], "v", map=lambda key, value: [(value, value)], reduce=Sum()).update()

    counted = view(local["d"], "v", map=lambda key, value: [(value, value)], reduce=Count())

    assert counted.value(update="never") == 1_000
    assert counted.value() == 1_000


def test_a_version_says_what_is_the_same(local: Store) -> None:
    """With the same version another function changes nothing; with another one the same function is built anew."""
    local["d"]["a"] = 1
    first = view(local["d"], "v", map=lambda key, value: [(1, 1)], version=1)
    assert [row.key for row in first.rows()] == [1]

    assert [row.key for row in view(local["d"], "v", map=lambda key, value: [(2, 2)], version=1).rows()] == [1]
    assert [row.key for row in view(local["d"], "v", map=lambda key, value: [(2, 2)], version=2).rows()] == [2]


def test_a_view_is_read_without_its_functions(store: Store) -> None:
    """As it was last kept; reduced if the reducer is a built-in one."""
    store["d"].put_many(PLACES)
    view(store["d"], "v", map=by_place, reduce=Sum()).update()
    view(store["d"], "w", map=by_place, reduce=Joined()).update()

    reader = view(store["d"], "v")

    assert reader.value(update="never") == 127
    assert len(list(reader.rows(update="never"))) == 7
    with pytest.raises(ConfigurationError, match="without map="):
        reader.value()
    with pytest.raises(ConfigurationError, match="reducer of its program"):
        view(store["d"], "w").value(update="never")
    assert len(list(view(store["d"], "w").rows(update="never"))) == 7


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"map": 1}, "map="),
        ({"reduce": Sum}, "instance"),
        ({"reduce": 1}, "reduce="),
        ({"reduce": "sums"}, "no reducer"),
        ({"on_conflict": "perhaps"}, "on_conflict"),
        ({"name": ""}, "called"),
    ],
)
def test_definitions_that_cannot_be_used_are_refused(local: Store, wrong: dict[str, Any], says: str) -> None:
    """Before anything is opened or built."""
    with pytest.raises(ConfigurationError, match=says):
        view(**{"collection": local["d"], "name": "v", "map": by_place, **wrong})  # type: ignore[arg-type]


# --- places ----------------------------------------------------------------------------------------------------------


def test_a_view_may_live_in_another_database(engine: str, fresh_url: Callable[[str], str], local: Store) -> None:
    """Nothing of it is in the store then; and it can be read where it is."""
    place = fresh_url(engine)
    local["d"].put_many(PLACES)
    with view(local["d"], "v", map=by_place, reduce=Sum(), database=place) as made:
        assert made.value() == 127
        local["d"]["h"] = {"place": 0, "n": 128}
        assert made.value() == 255

    assert views(local) == []
    [status] = views(local, database=place)
    assert (status.name, status.rows, status.state) == ("v", 8, "serving")


def test_a_view_spans_the_shards_of_its_store(engine: str, fresh_url: Callable[[str], str]) -> None:
    """Two databases, one view in the first of them."""
    with vstore.open(fresh_url(engine), fresh_url("sqlite")) as store:
        store["d"].put_many((f"{n:03}", {"place": n % 5, "n": n}) for n in range(300))
        made = view(store["d"], "v", map=by_place, reduce=Sum())
        assert made.value() == sum(range(300))

        store["d"].delete_many(f"{n:03}" for n in range(0, 300, 2))

        assert made.value() == sum(range(1, 300, 2))


def test_the_url_of_a_shard_is_that_shard(local: Store) -> None:
    """So that a transaction of it does not wait for itself."""
    url = local.shards[0].database.url.render_as_string(hide_password=False)
    made = view(local["d"], "v", map=by_place, reduce=Sum(), database=url)
    made.update()
    local["d"]["a"] = {"place": 1, "n": 1}
    assert made.value() == 1

    with local.transaction():
        local["d"]["b"] = {"place": 2, "n": 2}
        assert made.value() == 3

    assert made.value(update="never") == 3


def test_inside_a_transaction_a_view_is_updated_with_it_and_not_built(store: Store) -> None:
    """What is rolled back was never in the view."""
    made = view(store["d"], "v", map=by_place, reduce=Sum())
    store["d"]["a"] = {"place": 1, "n": 1}
    with pytest.raises(ConfigurationError, match="inside a transaction"), store.transaction():
        made.value()
    assert made.value() == 1

    with pytest.raises(ZeroDivisionError), store.transaction():
        store["d"]["b"] = {"place": 2, "n": 2}
        assert made.value() == 3
        raise ZeroDivisionError

    assert made.value(update="never") == 1
    assert made.value() == 1


def test_several_views_of_one_collection_do_not_meet(store: Store) -> None:
    """Each has its rows, its state, and its end."""
    store["d"].put_many(PLACES)
    one, two = view(store["d"], "one", map=by_place, reduce=Sum()), view(store["d"], "two", map=by_place)
    one.update()
    two.update()
    assert [status.name for status in views(store)] == ["one", "two"]

    one.drop()

    assert [status.name for status in views(store)] == ["two"]
    assert len(list(two.rows(update="never"))) == 7
    with pytest.raises(NotFound):
        one.drop()
    assert one.value() == 127  # and it is made again when it is asked for


def test_a_view_of_a_collection_that_does_not_exist_is_empty(local: Store) -> None:
    """As the collection would be."""
    made = view(local["nothing"], "v", map=by_place, reduce=Sum())

    assert (list(made.rows()), made.value(), made.update()) == ([], 0, 0)
    assert made.status().state == "absent"
    assert "nothing" not in local


def test_a_collection_that_is_dropped_and_made_again_has_a_new_view(store: Store) -> None:
    """The old one's rows are never shown for it; it is an orphan until it is dropped or the name is reused."""
    store["d"]["a"] = {"place": 1, "n": 1}
    made = view(store["d"], "v", map=by_place, reduce=Sum())
    assert made.value() == 1

    store.drop("d")
    assert [status.state for status in views(store)] == ["orphaned"]
    assert made.value() == 0
    store["d"]["b"] = {"place": 2, "n": 2}

    assert made.value() == 2
    assert [status.state for status in views(store)] == ["serving"]


def test_the_view_of_a_dropped_collection_can_be_dropped(store: Store) -> None:
    """By its name and the collection's, since nothing else is left."""
    store["d"]["a"] = {"place": 1, "n": 1}
    view(store["d"], "v", map=by_place).update()
    store.drop("d")

    drop_view(store, "d", "v")

    assert views(store) == []
    with pytest.raises(NotFound):
        drop_view(store, "d", "v")


def test_a_renamed_collection_keeps_its_views(store: Store) -> None:
    """They are of the collection, not of its name."""
    store["d"]["a"] = {"place": 1, "n": 1}
    view(store["d"], "v", map=by_place, reduce=Sum()).update()

    store.rename("d", "e")

    assert view(store["e"], "v", map=by_place, reduce=Sum()).value(update="never") == 1


def test_a_store_that_was_set_back_has_its_views_built_anew(tmp_path: Path) -> None:
    """A view in another database is then ahead of its collection."""
    import shutil

    path, copy, place = tmp_path / "a.db", tmp_path / "copy.db", f"sqlite:///{tmp_path / 'views.db'}"
    with vstore.open(f"sqlite:///{path}") as store:
        store["d"].put_many(PLACES)
    shutil.copy(path, copy)
    with vstore.open(f"sqlite:///{path}") as store:
        store["d"]["h"] = {"place": 0, "n": 128}
        with view(store["d"], "v", map=by_place, reduce=Sum(), database=place) as made:
            assert made.value() == 255

    shutil.copy(copy, path)
    for left in tmp_path.glob("a.db-*"):
        left.unlink()

    with vstore.open(f"sqlite:///{path}") as store:
        store["d"]["i"] = {"place": 0, "n": 1_000}
        with view(store["d"], "v", map=by_place, reduce=Sum(), database=place) as made:
            assert made.status().state == "outdated"
            assert made.value() == 1_127
            assert made.status().generation == 2


# --- lag -------------------------------------------------------------------------------------------------------------


def test_the_status_says_how_far_behind_a_view_is(store: Store) -> None:
    """Commits that wait, and for how long; nothing when it is fresh."""
    made = view(store["d"], "v", map=by_place)
    assert made.status().state == "absent"
    store["d"]["a"] = {"place": 1, "n": 1}
    made.update()
    fresh = made.status()
    assert (fresh.state, fresh.rows, fresh.pending, fresh.seconds_behind) == ("serving", 1, 0, 0.0)

    store["d"].put_many(PLACES)

    late = made.status()
    assert late.pending == 7
    assert 0 <= late.seconds_behind < 60


def test_a_head_that_learnt_more_of_its_past_is_a_change(store: Store) -> None:
    """It may have ended a rival, and then the winner is another one though no version is new."""
    store["d"]["a"] = {"place": 1, "n": 1}
    made = view(store["d"], "v", map=by_place)
    made.update()
    handle = store.handle("d")
    assert handle is not None
    shard, definition, part = handle.place("a")
    with shard.transaction():
        connection = shard.database.read()
        [(id_, _collection, _part, _actor, ctr, seq, *_rest)] = connection.rows(
            sql.LOCK_PARTITIONS(1), (definition.base + part,)
        )
        connection.run(sql.ADD_EVENT, (place_of(id_, seq + 1), definition.id, "a", "grown"))
        connection.run(sql.ADVANCE(1), (id_, ctr, seq + 1))

    assert made.status().pending == 1
    assert made.update() == 1


# --- several at once -------------------------------------------------------------------------------------------------


def test_threads_that_update_one_view_at_once_count_every_change_once(store: Store) -> None:
    """Writers and readers, each reader with a View of its own, as processes would have."""
    made = view(store["d"], "v", map=by_place, reduce=Sum())
    store["d"]["start"] = {"place": 0, "n": 0}
    made.update()
    problems: list[BaseException] = []

    def write(name: str) -> None:
        for n in range(30):
            store["d"][f"{name}-{n}"] = {"place": [name, n], "n": 1}

    def read() -> None:
        try:
            own = view(store["d"], "v", map=by_place, reduce=Sum())
            last = 0
            for _ in range(10):
                value = own.value()
                assert value >= last
                last = value
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert made.value() == 60
    assert len(list(made.rows())) == 61


def test_one_build_however_many_ask(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for it, and then read what it made."""
    store["d"].put_many((f"{n:03}", {"place": n, "n": 1}) for n in range(200))
    built: list[int] = []
    real = build._Builder.run

    def counted(self: Any) -> None:
        built.append(1)
        real(self)

    monkeypatch.setattr(build._Builder, "run", counted)
    values: list[int] = []

    def read() -> None:
        values.append(view(store["d"], "v", map=by_place, reduce=Sum()).value())

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert values == [200] * 4
    assert built == [1]
