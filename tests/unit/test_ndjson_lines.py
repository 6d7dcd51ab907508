"""Lines of an import: what they mean, and that writing and reading them are inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstore.errors import InvalidDocument
from vstore.ndjson.lines import Line, line_of, seconds, text_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
STAMPS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b'{"key":"a","doc":{"n":1}}', Line("a", {"n": 1}, False, None)),
        (b'{"doc":null,"key":"a"}\r\n', Line("a", None, False, None)),
        (b'{"key":"a","deleted":true}', Line("a", None, True, None)),
        (b'{"at":1602179021,"key":"a","doc":1}', Line("a", 1, False, 1_602_179_021_000_000)),
        (b'{"at":1602179021.25,"key":"a","deleted":true}', Line("a", None, True, 1_602_179_021_250_000)),
        (b'{"at":-1,"key":"a","doc":1}', Line("a", 1, False, -1_000_000)),
        (b'{"at":"2020-10-08T17:43:41Z","key":"a","doc":1}', Line("a", 1, False, 1_602_179_021_000_000)),
    ],
)
def test_the_forms_of_a_line(text: bytes, line: Line) -> None:
    assert line_of(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b'{"id":"x","n":1}', Line("x", {"id": "x", "n": 1}, False, None)),
        (b'{"id":-17}', Line("-17", {"id": -17}, False, None)),
        (b'{"id":"x","key":"k","doc":2}', Line("x", {"id": "x", "key": "k", "doc": 2}, False, None)),
    ],
)
def test_with_a_key_field_the_line_is_the_document(text: bytes, line: Line) -> None:
    """Whatever other fields it has, those of the other forms too."""
    assert line_of(text, "id") == line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"key":"a","doc":', "no JSON document"),
        (b"[1]", "it is an array and not an object"),
        (b'{"id":"a","n":1}', "it has the fields 'id', 'n'.*--key"),
        (b"{}", r"it has the fields \(none\)"),
        (b'{"key":"a"}', "it has the fields 'key'"),
        (b'{"key":"a","doc":1,"deleted":true}', "it has the fields"),
        (b'{"key":7,"doc":1}', 'its "key" is a number and not text'),
        (b'{"key":"a","deleted":false}', 'its "deleted" is not true'),
        (b'{"at":true,"key":"a","doc":1}', 'its "at" is True'),
        (b'{"at":"soon","key":"a","doc":1}', "its \"at\" is 'soon'"),
        (b'{"at":1602179021000,"key":"a","doc":1}', "outside the years 1 to 9999.*milliseconds"),
        (b'{"at":1e300,"key":"a","doc":1}', "outside the years"),
        (b'{"key":"a","doc":18446744073709551616}', "integer of 65 bits"),
    ],
)
def test_what_is_no_line_is_refused_with_the_reason(text: bytes, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason):
        line_of(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"n":1}', "it has no field 'id' for the key; it has 'n'"),
        (b'{"id":1.5}', "its field 'id' is a number"),
        (b'{"id":true}', "its field 'id' is true or false"),
        (b'{"id":null}', "its field 'id' is null"),
    ],
)
def test_a_document_without_a_usable_key_field_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason):
        line_of(text, "id")


def test_a_name_twice_in_an_object_counts_the_last_time_unless_reading_is_strict() -> None:
    """RFC 8259 leaves it open; every common reader takes the last."""
    text = b'{"key":"a","doc":{"n":1,"n":2}}'

    assert line_of(text).value == {"n": 2}
    with pytest.raises(InvalidDocument, match="the name 'n' twice"):
        line_of(text, strict=True)


@given(st.text(min_size=1), JSON, st.none() | STAMPS, st.booleans())
def test_a_line_that_was_written_is_read_back_as_it_was(
    key: str, value: object, stamp: int | None, deleted: bool
) -> None:
    line = Line(key, None if deleted else value, deleted, stamp)

    assert line_of(text_of(line)) == line


def test_a_time_is_written_in_the_shortest_exact_way() -> None:
    assert seconds(1_602_179_021_000_000) == 1602179021
    assert seconds(1_602_179_021_000_001) == 1602179021.000001
    assert seconds(253_402_300_799_999_999) == "9999-12-31T23:59:59.999999Z"  # a double has not so many digits
