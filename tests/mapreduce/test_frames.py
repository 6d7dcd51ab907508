"""Tables of rows and documents: one type for each column, and every value comes back by the documented rule."""

from __future__ import annotations

import builtins
import gc
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vstore
from mapreduce.errors import JobError
from mapreduce.query import frames
from mapreduce.query.fields import F
from mapreduce.query.frames import arrow_batches, to_arrow, to_pandas, to_polars
from mapreduce.query.query import query
from mapreduce.reducers.sums import Count, Stats
from vstore.errors import ConfigurationError

pytestmark = pytest.mark.timeout(120)

POSTS = {"a": {"title": "A", "n": 1}, "b": {"title": None, "tags": ["x"]}, "c": 7, "d": {"key": "own"}}

NUMBERS = st.integers(-5, 5) | st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**70, 0.5, 1e300])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=3)
NAMES = st.sampled_from(["a", "b", "", "odd name", "ü"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
ALIKE = st.one_of(
    st.integers(-5, 5),
    st.lists(NUMBERS),
    st.dictionaries(NAMES, NUMBERS),
    st.floats(allow_nan=False, allow_infinity=False),
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES | ALIKE, max_size=4), max_size=12)


def types(table: pyarrow.Table) -> dict[str, str]:
    return {field.name: f"{field.type}{' as JSON' if field.metadata else ''}" for field in table.schema}


def back(value: Any, field: pyarrow.Field) -> Any:
    """What a program makes of a cell: JSON is read where the field says so."""
    if value is None:
        return None
    if field.metadata == {b"vstore": b"json"}:
        return json.loads(value)
    if pyarrow.types.is_list(field.type):
        return [back(each, field.type.value_field) for each in value]
    if pyarrow.types.is_struct(field.type):
        return {each.name: back(value[each.name], each) for each in field.type}
    return value


def same(found: Any, given: Any) -> bool:
    """The same value; in an object, null where a name is missing. An integer may come back as the double it equals."""
    if isinstance(found, dict) and isinstance(given, dict):
        return found.keys() >= given.keys() and all(same(found[name], given.get(name)) for name in found)
    if isinstance(found, list) and isinstance(given, list):
        return len(found) == len(given) and all(map(same, found, given))
    return found == given and isinstance(found, bool) == isinstance(given, bool)


# --- kinds -----------------------------------------------------------------------------------------------------------


def test_each_column_has_the_one_type_that_its_values_have_together() -> None:
    """The second row differs from the first in every column."""
    rows = [
        {
            "same": 1,
            "number": 1,
            "mixed": 1,
            "big": 2**53 + 1,
            "null": None,
            "list": [1],
            "object": {"a": 1},
            "flag": True,
        },
        {"same": 2, "number": 2.5, "mixed": "x", "big": 0.5, "list": [0.5], "object": {"b": [{}]}, "flag": 1},
    ]

    table = to_arrow(rows)

    assert types(table) == {
        "same": "int64",
        "number": "double",
        "mixed": "large_string as JSON",
        "big": "large_string as JSON",
        "null": "null",
        "list": "list<item: double>",
        "object": "struct<a: int64, b: list<item: large_string>>",
        "flag": "large_string as JSON",
    }
    assert table.column("mixed").to_pylist() == ["1", '"x"']
    assert table.column("big").to_pylist() == ["9007199254740993", "0.5"]
    assert table.column("object").to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": ["{}"]}]


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(1, 12))
def test_every_value_comes_back_wherever_the_rows_are_cut_into_batches(rows: list[dict[str, Any]], size: int) -> None:
    """Types are of all rows together, so the size of a batch changes nothing."""
    table = to_arrow(rows, batch_rows=size)

    table.validate(full=True)
    found = table.to_pylist()
    if table.num_columns:
        assert len(found) == len(rows)
        assert {name for row in rows for name in row} == set(table.column_names)
    for row, given_row in zip(found, rows, strict=bool(table.num_columns)):
        for field in table.schema:
            assert same(back(row[field.name], field), given_row.get(field.name))
    assert table.equals(to_arrow(rows), check_metadata=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), SCALARS), max_size=6))
def test_pandas_and_polars_have_the_same_cells(rows: list[dict[str, Any]]) -> None:
    table = to_arrow(rows)

    assert to_polars(rows).to_dict(as_series=False) == table.to_pydict()
    frame = to_pandas(rows)
    for name in table.column_names:
        cells = [None if missing else cell for cell, missing in zip(frame[name], frame[name].isna(), strict=True)]
        assert cells == table.column(name).to_pylist()


def test_integers_stay_exact_in_pandas_where_some_are_null() -> None:
    """Its plain integers would turn into floats, and lose the last digit."""
    frame = to_pandas([{"n": 2**53 + 1, "b": True}, {}])

    assert (frame["n"][0], str(frame["n"].dtype), str(frame["b"].dtype)) == (2**53 + 1, "Int64", "boolean")


def test_arrays_and_objects_are_python_values_in_pandas() -> None:
    """So integers in them are exact, too, where a null stands beside them."""
    frame = to_pandas([{"a": 1, "n": [2**53 + 1, None], "o": {"x": 2**53 + 1}}, {"o": {"y": [True, None]}}, {}])

    assert list(frame.columns) == ["a", "n", "o"]
    assert frame["n"].tolist() == [[2**53 + 1, None], None, None]
    assert frame["o"].tolist() == [{"x": 2**53 + 1, "y": None}, {"x": None, "y": [True, None]}, None]
    assert repr(frame["n"][0]) == "[9007199254740993, None]"


def test_names_with_a_nul_are_kept_apart() -> None:
    """Arrow hands names to polars as strings of C, which end at a NUL: two columns would be one."""
    rows = [{"o": {"a": 1, "a\0b": 2}, "l": [{"\0": 1}]}]

    assert to_polars(rows).to_dicts() == [{"o": '{"a":1,"a\\u0000b":2}', "l": ['{"\\u0000":1}']}]
    assert types(to_arrow(rows))["o"] == "large_string as JSON"
    assert to_arrow([{"a": 1, "a\0b": 2}]).to_pylist() == [{"a": 1, "a\0b": 2}]
    with pytest.raises(JobError, match=r"polars cannot have a column 'a\\x00b'.*No table was made. Name it"):
        to_polars([{"a": 1, "a\0b": 2}])


def test_objects_whose_names_are_data_and_deep_nests_are_json() -> None:
    wide = [{"depends": {f"package-{row}-{n}": n for n in range(60)}} for row in range(4)]
    deep: Any = 1
    for _ in range(40):
        deep = [deep]

    table = to_arrow(wide, batch_rows=1)
    assert table.equals(to_arrow(wide))
    column = to_arrow([{"deep": deep}]).column("deep")

    assert types(table) == {"depends": "large_string as JSON"}
    assert json.loads(table.column("depends")[3].as_py()) == wide[3]["depends"]
    assert str(column.type).count("list") == 31
    assert str(column.type).count("large_string") == 1


def test_a_float_that_is_not_finite_is_null_in_json() -> None:
    """Beside an integer of any size, too."""
    rows = [{"n": "x", "l": [10**30, math.inf]}, {"n": math.nan, "l": [math.nan]}]

    assert to_arrow(rows).to_pydict() == {
        "n": ['"x"', "null"],
        "l": [["1000000000000000000000000000000", "null"], ["null"]],
    }
    assert to_arrow([*rows, {"l": 1}])["l"].to_pylist() == ["[1000000000000000000000000000000,null]", "[null]", "1"]


def test_a_value_that_json_has_no_word_for_is_named() -> None:
    with pytest.raises(JobError, match=r"a table cannot hold \{1, 2\}.*No table was made"):
        to_arrow([{"set": {1, 2}}])


@pytest.mark.parametrize("row", [{"a": "\ud800"}, {"\ud800": 1}, {"a": {"\ud800": 1}}, {"a": ["\ud800", 1]}, {5: 1}])
def test_text_that_no_document_of_a_store_has_is_named(row: dict[Any, Any]) -> None:
    """Half a surrogate pair, or a name that is no text: documents in memory may have them."""
    with pytest.raises(JobError, match=r"a table cannot hold ('\\ud800'|'\[?\"\\ud800|5).*No table was made"):
        to_arrow([row])


# --- columns and batches ---------------------------------------------------------------------------------------------


def test_only_the_columns_asked_for_in_their_order() -> None:
    table = to_arrow([{"a": 1, "b": 2, "c": 3}, {"a": 4}], ["c", "nowhere", "a"])

    assert table.to_pydict() == {"c": [3, None], "nowhere": [None, None], "a": [1, 4]}


def test_one_column_is_a_list_of_one() -> None:
    """A string would be taken for its letters."""
    with pytest.raises(ConfigurationError, match=r"columns= is 'ab'; pass a list of names. Nothing was read."):
        to_arrow([{"ab": 1}], "ab")


def test_a_table_of_thousands_of_columns_is_refused() -> None:
    rows = ({str(number): number} for number in range(5_001))

    with pytest.raises(ConfigurationError, match="more than 5,000 columns. No table was made. Name those"):
        to_arrow(rows)


def test_batches_are_made_one_at_a_time_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """All have one schema, which the last row had a part in; the rows themselves are gone by then."""
    monkeypatch.setattr(frames, "IN_MEMORY_BYTES", 1000)

    class Cell(str):
        __slots__ = ("__weakref__",)

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(950):
            yield {"n": number, "text": "x" * 10}
        yield {"n": "the last"}

    reader = arrow_batches(rows(), batch_rows=100)
    gc.collect()
    first = reader.read_next_batch()
    rest = list(reader)

    assert types(reader) == {"n": "large_string as JSON", "text": "large_string"}
    assert first.column("n").to_pylist()[:2] == ["0", "1"]
    assert [batch.num_rows for batch in [first, *rest]] == [100] * 9 + [51]
    assert rest[-1].column("n").to_pylist()[-1] == '"the last"'


def test_no_rows_make_an_empty_table() -> None:
    assert to_arrow([]).shape == (0, 0)
    assert to_arrow(iter(()), ["a"]).shape == (0, 1)
    assert to_pandas([], ["a"]).shape == to_polars([], ["a"]).shape == (0, 1)


def test_a_batch_without_rows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="batch_rows= is 0"):
        to_arrow([], batch_rows=0)


# --- documents -------------------------------------------------------------------------------------------------------


def test_documents_have_their_key_and_a_column_for_each_name() -> None:
    """One that is no object, and one with a field named key, get columns of their own."""
    table = to_arrow(POSTS, batch_rows=2)

    assert types(table) == {
        "key": "large_string",
        "title": "large_string",
        "n": "int64",
        "tags": "list<item: large_string>",
        "doc": "int64",
        "doc.key": "large_string",
    }
    assert table.to_pylist()[2:] == [
        {"key": "c", "title": None, "n": None, "tags": None, "doc": 7, "doc.key": None},
        {"key": "d", "title": None, "n": None, "tags": None, "doc": None, "doc.key": "own"},
    ]
    assert to_arrow(POSTS.items()).equals(to_arrow(POSTS))
    both = {"a": {"doc.key": 1, "key": 2, "doc.doc.key": 3}}
    assert to_arrow(both).to_pylist() == [{"key": "a", "doc.key": 1, "doc.doc.doc.key": 2, "doc.doc.key": 3}]


def test_a_collection_its_past_and_its_history(tmp_path: Path) -> None:
    """Versions have their rev, stamp and whether they are a deletion; of fields with these names, `doc.` tells them."""
    with vstore.open(f"sqlite:///{tmp_path / 'app.db'}") as store:
        posts = store["posts"]
        posts.update({"a": {"n": 1}, "b": {"n": 2.5, "rev": "x"}})
        moment = posts.read("b").stamp
        del posts["a"]

        now = to_arrow(posts)
        several = to_arrow([posts, posts.snapshot(start="a", end="b")])
        then = to_arrow(posts.at(moment)).sort_by("key")
        history = to_arrow(posts.history_scan()).sort_by([("key", "ascending"), ("stamp", "ascending")])

    assert now.to_pydict() == {"key": ["b"], "n": [2.5], "rev": ["x"]}
    assert several.equals(now)
    assert then.to_pydict() == {"key": ["a", "b"], "n": [1.0, 2.5], "rev": [None, "x"]}
    assert history.column("deleted").to_pylist() == [False, True, False]
    assert history.column("n").to_pylist() == [1.0, None, 2.5]
    assert history.column("doc.rev").to_pylist() == [None, None, "x"]
    assert history.column("rev").to_pylist()[2].startswith("1-")


def test_conflicts_are_read_as_told(tmp_path: Path) -> None:
    with vstore.open(f"sqlite:///{tmp_path / 'app.db'}") as store:
        posts = store["posts"]
        posts.update({"a": {"n": 1}, "b": {"n": 1}})
        posts.put("a", {"n": 2}, context=vstore.Context("a"))

        assert to_arrow(posts).num_rows == 2
        assert to_arrow(posts, on_conflict="skip").column("key").to_pylist() == ["b"]
        with pytest.raises(vstore.Conflict):
            to_arrow(posts, on_conflict="raise")


def test_a_query_has_its_columns_in_their_order_whatever_is_missing() -> None:
    """Figures that are made of several have a field for each."""
    rows = query(POSTS).select("n", "nowhere", t=F.title)
    figures = query(POSTS).aggregate(stats=Stats(F.n), n=Count())

    assert to_arrow(rows).to_pydict() == {
        "n": [1, None, None, None],
        "nowhere": [None] * 4,
        "t": ["A", None, None, None],
    }
    assert rows.to_arrow().equals(to_arrow(rows))
    assert to_arrow(rows, ["t"]).column_names == ["t"]
    assert to_arrow(query(POSTS).where(F.n == 99).select("n")).schema.names == ["n"]
    assert to_arrow(figures).to_pylist()[0]["stats"]["count"] == 1
    assert figures.to_pandas()["n"].tolist() == [4]
    assert query(POSTS).select("n").to_polars().shape == (4, 1)


def test_a_query_for_documents_is_spread_like_a_collection() -> None:
    found = query(POSTS).where(F.n == 1)

    assert to_arrow(found).to_pylist() == found.to_arrow().to_pylist() == [{"key": "a", "title": "A", "n": 1}]


# --- libraries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "library", "complaint"),
    [
        (to_arrow, "pyarrow", r"to_arrow\(\) needs pyarrow, .*'vstore\[arrow\]'"),
        (arrow_batches, "pyarrow", r"arrow_batches\(\) needs pyarrow, .*'vstore\[arrow\]'"),
        (to_pandas, "pandas", r"to_pandas\(\) needs pandas, .*'vstore\[pandas\]'"),
        (to_pandas, "pyarrow", r"to_pandas\(\) needs pyarrow, .*'vstore\[pandas\]'"),
        (to_polars, "polars", r"to_polars\(\) needs polars, .*'vstore\[polars\]'"),
        (to_polars, "pyarrow", r"to_polars\(\) needs pyarrow, .*'vstore\[polars\]'"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    make: Any, library: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **named: Any) -> Any:
        if name == library:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)

    with pytest.raises(ConfigurationError, match=complaint):
        make([{"a": 1}])
