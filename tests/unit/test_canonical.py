"""The canonical form: golden vectors, an independent oracle, and every refusal with its path."""

from __future__ import annotations

import enum
import random
import struct
from collections import OrderedDict, defaultdict
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.canonical import canonical_text
from vstore.canonical import (
    MAX_NESTING,
    canonical,
    decoded,
    encoded,
    generation,
    parsed,
    revision,
    winner_key,
)
from vstore.errors import CodecError, InvalidDocument

JSON_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON_VALUES = st.recursive(
    JSON_LEAVES, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6)
)

GOLDEN: list[tuple[Any, bytes]] = [
    (None, b"null"),
    (True, b"true"),
    (False, b"false"),
    ({}, b"{}"),
    ([], b"[]"),
    ("", b'""'),
    ([[], {}, [[]]], b"[[],{},[[]]]"),
    (0, b"0"),
    (-1, b"-1"),
    (2**53 + 1, b"9007199254740993"),
    (2**63, b"9223372036854775808"),
    (2**64 - 1, b"18446744073709551615"),
    (-(2**63), b"-9223372036854775808"),
    (1.0, b"1.0"),
    (0.0, b"0.0"),
    (-0.0, b"-0.0"),
    (0.1 + 0.2, b"0.30000000000000004"),
    (1e15, b"1000000000000000.0"),
    (9007199254740993.0, b"9007199254740992.0"),
    (1e16, b"1e+16"),
    (-1.25e16, b"-1.25e+16"),
    (1e100, b"1e+100"),
    (1e-5, b"0.00001"),
    (1e-6, b"1e-6"),
    (1e-7, b"1e-7"),
    (1.5e-7, b"1.5e-7"),
    (5e-324, b"5e-324"),
    (2.2250738585072014e-308, b"2.2250738585072014e-308"),
    (1.7976931348623157e308, b"1.7976931348623157e+308"),
    ('"\\/', b'"\\"\\\\/"'),
    ("\b\t\n\f\r", b'"\\b\\t\\n\\f\\r"'),
    ("\x00\x01\x0b\x1f", b'"\\u0000\\u0001\\u000b\\u001f"'),
    ("\x7f\x80\x9f", b'"\x7f\xc2\x80\xc2\x9f"'),
    ("\u2028\u2029", b'"\xe2\x80\xa8\xe2\x80\xa9"'),
    ("é\uffff\U0001f600", b'"\xc3\xa9\xef\xbf\xbf\xf0\x9f\x98\x80"'),
    ({"b": 1, "a": 2, "": 3, "B": 4, "aa": 5}, b'{"":3,"B":4,"a":2,"aa":5,"b":1}'),
    # U+1F600 is D83D DE00 in UTF-16 and would come first there
    ({"\U0001f600": 1, "\uffff": 2, "\ue000": 3}, b'{"\xee\x80\x80":3,"\xef\xbf\xbf":2,"\xf0\x9f\x98\x80":1}'),
    ({"z": {"y": [{"b": 1.0, "a": None}]}}, b'{"z":{"y":[{"a":null,"b":1.0}]}}'),
]


def nested(levels: int) -> Any:
    """[[…1…]] with this many arrays."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(("value", "expected"), GOLDEN)
def test_the_canonical_form_never_changes(value: Any, expected: bytes) -> None:
    """Revs of every store ever written rest on these bytes. If a new orjson fails here, do not change the vectors:
    write the form without it, or give the form a new version."""
    assert canonical(value) == expected
    assert canonical_text(value).encode() == expected  # the oracle is held to the same


@given(JSON_VALUES)
def test_the_canonical_form_is_what_an_independent_writer_makes_of_the_grammar(value: Any) -> None:
    """Random JSON values, against forty lines of Python that share nothing with vstore or orjson."""
    assert canonical(value) == canonical_text(value).encode()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_doubles_print_as_the_independent_writer_prints_them(seed: int) -> None:
    """Random bit patterns reach every exponent; moderate sizes reach the change between the two notations."""
    source = random.Random(seed)
    patterns = [struct.unpack(">d", source.randbytes(8))[0] for _ in range(5_000)]
    moderate = [source.uniform(-1, 1) * 10.0 ** source.randint(-10, 20) for _ in range(5_000)]
    numbers = [number for number in patterns + moderate if number - number == 0]  # neither NaN nor infinite

    printed = [canonical(number).decode() for number in numbers]

    assert printed == [canonical_text(number) for number in numbers]
    assert [decoded(text.encode()) for text in printed] == numbers


@given(JSON_VALUES)
def test_what_is_encoded_comes_back_exactly(value: Any) -> None:
    """Equality alone would take 1 for 1.0 and True, so the printed forms are compared too: order, types and signs."""
    back = decoded(encoded(value))

    assert back == value
    assert repr(back) == repr(value)


@given(JSON_VALUES)
def test_stored_bytes_and_canonical_bytes_tell_the_same_value(value: Any) -> None:
    """The rev may be computed from the value at hand or from the value read back."""
    assert canonical(decoded(encoded(value))) == canonical(value)
    assert parsed(encoded(value)) == value


def test_the_caller_s_key_order_is_stored_and_does_not_count() -> None:
    """Two clients send the same fields in different order."""
    one, other = {"b": 1, "a": {"d": 2, "c": 3}}, {"a": {"c": 3, "d": 2}, "b": 1}

    assert encoded(one) == b'{"b":1,"a":{"d":2,"c":3}}'
    assert encoded(other) == b'{"a":{"c":3,"d":2},"b":1}'
    assert canonical(one) == canonical(other)


def test_one_is_neither_true_nor_one_point_zero() -> None:
    """Python's == takes them for equal, so the exactness check could not see a change between them."""
    assert encoded([1, 1.0, True, 0, 0.0, -0.0, False]) == b"[1,1.0,true,0,0.0,-0.0,false]"


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


class Count(int):
    pass


class Ratio(float):
    pass


class Shade(enum.Enum):
    DARK = 1


class Agreeable(dict[str, Any]):
    """A class whose == says yes to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"colour": Colour.RED}, b'{"colour":"red"}'),
        ({"level": Level.HIGH}, b'{"level":3}'),
        (Name("Ada"), b'"Ada"'),
        ([Count(7)], b"[7]"),
        (OrderedDict(b=1, a=[Name("x")]), b'{"b":1,"a":["x"]}'),
        (defaultdict(list, a=[1]), b'{"a":[1]}'),
        (Agreeable(a=1), b'{"a":1}'),
    ],
)
def test_subclasses_are_kept_as_the_plain_value_they_equal(value: Any, expected: bytes) -> None:
    """Documents are often built from an OrderedDict, a defaultdict or enums; nothing of their content is lost."""
    assert encoded(value) == expected
    assert canonical(value) == canonical(decoded(expected))


CYCLE: list[Any] = [1]
CYCLE.append({"again": CYCLE})

REFUSED: list[tuple[Any, str, str]] = [
    ({"n": 2**64}, "/n", "an integer of 65 bits"),
    ({"n": -(2**63) - 1}, "/n", "an integer of 64 bits"),
    ({"n": 10**5000}, "/n", "an integer of 16610 bits"),
    ({"lines": [0, 1, 2, {"price": float("nan")}]}, "/lines/3/price", "is nan"),
    ([float("inf")], "/0", "is inf"),
    ([-float("inf")], "/0", "is -inf"),
    (float("nan"), "", "the value itself is nan"),
    (Agreeable(a=float("nan")), "/a", "is nan"),
    (Agreeable(a=(1,)), "/a", "use a list"),
    ({"a": "ok", "b": "bad\ud800"}, "/b", "a lone surrogate at 3"),
    ({"a": {"\udfff": 1}}, "/a", "the key '\\udfff', which has a lone surrogate"),
    ({"a": [{1: "x"}]}, "/a/0", "the key 1, of type int and not str"),
    ({None: 1}, "", "the key None, of type NoneType"),
    ({Name("k"): 1}, "", "of type Name and not str"),
    (
        {"a": (1, 2)},
        "/a",
        "is of type tuple, which JSON would not give back as it was. It was not stored. Instead, use a",
    ),
    ({"a": b"x"}, "/a", "use text, for instance Base64"),
    ({"a": {1, 2}}, "/a", "use a sorted list"),
    ({"a": datetime(2026, 11, 1)}, "/a", "use .isoformat()"),
    ({"a": date(2026, 11, 1)}, "/a", "use .isoformat()"),
    ({"a": UUID(int=1)}, "/a", "is of type UUID"),
    ({"a": Decimal("1.1")}, "/a", "use str()"),
    ({"a": Shade.DARK}, "/a", "is of type Shade"),
    ({"a": Ratio(1.5)}, "/a", "use float()"),
    ({"a": object()}, "/a", "is of type object"),
    ({"a": orjson.Fragment(b'{"not json')}, "/a", "is of type Fragment"),
    ({"a": orjson.Fragment(b"1")}, "/a", "is of type Fragment"),
    ({"a~b": {"c/d": [(), 1]}}, "/a~0b/c~1d/0", "is of type tuple"),
    ({"": {"": ()}}, "//", "is of type tuple"),
    (nested(201), "/0" * 200, "more than 200 levels"),
    ({"a": nested(200)}, "/a" + "/0" * 199, "more than 200 levels"),
    (nested(5000), "/0" * 200, "more than 200 levels"),
    (CYCLE, "/1/again", "contains itself"),
]


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED)
def test_a_value_that_json_would_change_is_refused_by_its_path(value: Any, path: str, reason: str) -> None:
    """orjson would write null for NaN, a list for a tuple, text for a date: read back, they would be other values."""
    with pytest.raises(InvalidDocument) as refusal:
        encoded(value)

    assert refusal.value.path == path
    assert reason in str(refusal.value)


def test_two_hundred_levels_are_kept() -> None:
    """The limit itself is allowed, also next to so many brackets that depth has to be counted."""
    deep, wide = nested(MAX_NESTING), [[n] for n in range(1_000)]

    assert decoded(encoded(deep)) == deep
    assert decoded(encoded(wide)) == wide
    assert parsed(encoded([nested(199), "[" * 500])) == [nested(199), "[" * 500]


def test_the_same_list_twice_is_no_cycle() -> None:
    """A shared part is written twice; only a part inside itself has no end. The tuple sends it through the walk."""
    shared = [1]

    assert encoded([shared, shared]) == b"[[1],[1]]"
    with pytest.raises(InvalidDocument) as refusal:
        encoded([shared, shared, ()])
    assert refusal.value.path == "/2"


def test_a_document_over_the_limit_is_refused_with_both_sizes() -> None:
    """The limit counts the bytes of the JSON."""
    assert encoded("é" * 4, max_body_bytes=10) == '"éééé"'.encode()

    with pytest.raises(InvalidDocument, match=r"has 11 bytes as JSON, and max_body_bytes is 10"):
        encoded("é" * 4 + "x", max_body_bytes=10)


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":1', b"\x80", b"NaN"])
def test_stored_bytes_that_are_no_json_raise_a_codec_error_from_the_original(data: bytes) -> None:
    """A damaged row must not look like a bug in orjson."""
    with pytest.raises(CodecError) as failure:
        decoded(data)

    assert isinstance(failure.value.__cause__, orjson.JSONDecodeError)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"18446744073709551616", ""),
        (b'{"a":[1,{"b":-9223372036854775809}]}', "/a/1/b"),
        (b'{"ok":18446744073709551615,"id":100000000000000000000000000000}', "/id"),
        (b"[" * 201 + b"]" * 201, "/0" * 200),
    ],
)
def test_foreign_text_is_refused_where_it_would_be_rounded(text: bytes, path: str) -> None:
    """orjson reads 2^64 as the double 1.8446744073709552e+19 and says nothing."""
    with pytest.raises(InvalidDocument) as refusal:
        parsed(text)

    assert refusal.value.path == path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a":1,}', "line 1 column 7"),
        (b'{"a":\n  NaN}', "line 2 column 3"),
        (b"1e400", "number is infinity"),
        (b"-1e400", "number is infinity"),
        (b"9" * 5000, "number is infinity"),
        (b'"\\ud800"', "surrogate"),
        (b"\xff", "UTF-8"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
        (b"", "line 1 column 1"),
    ],
)
def test_foreign_text_that_is_no_json_is_refused_with_its_position(text: bytes, reason: str) -> None:
    """The person who imports a file wants to know where to look."""
    with pytest.raises(InvalidDocument, match=reason) as refusal:
        parsed(text)

    assert refusal.value.path == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"18446744073709551615", 18446744073709551615),
        (b"-9223372036854775808", -9223372036854775808),
        (b'["12345678901234567890123", 1]', ["12345678901234567890123", 1]),
        (b"0.12345678901234567890123", 0.12345678901234568),
        (b"12345678901234567890.5", 1.2345678901234567e19),
        (b"1" + b"0" * 5000 + b"e-5000", 1.0),
        (b'{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_long_digits_that_are_no_large_integer_are_read(text: bytes, expected: Any) -> None:
    """The screen for long integers sees only digits; text and fractions pass the second look."""
    value = parsed(text)

    assert value == expected
    assert type(value) is type(expected)


@given(st.recursive(st.integers(-(2**70), 2**70), lambda inner: st.lists(inner, max_size=4)))
def test_foreign_integers_come_through_exactly_or_not_at_all(value: Any) -> None:
    """Random integers on both sides of the limits."""
    text = canonical_text(value).encode()

    try:
        read = parsed(text)
    except InvalidDocument as refusal:
        part = value
        for step in refusal.path.split("/")[1:]:
            part = part[int(step)]
        assert not -(2**63) <= part < 2**64
    else:
        assert repr(read) == repr(value)
        assert decoded(encoded(read)) == value


PARENT, RIVAL = "1-11111111111111111111111111111111", "2-22222222222222222222222222222222"

REVISIONS: list[tuple[tuple[Any, ...], str]] = [
    ((1, False, [], b'{"title":"Hello"}', ("a1", 1)), "1-efc2c3f5763a520034470fa48773c5a2"),
    ((1, False, [], b'{"title":"Hello"}', ("a1", 2)), "1-ef7d5d2ef7e59e38b1c3b798596c9320"),
    ((1, True, [], None, ("a1", 1)), "1-ad023d375a1195bfc8e8166e2ed31c96"),
    ((2, False, [PARENT], b'{"title":"Hi"}'), "2-c1c23e5da9f0722d741ec743fc76ee22"),
    ((2, True, [PARENT], None), "2-cd81ac1b401881a83fd8c7d2929a5af7"),
    ((3, False, [RIVAL, PARENT], b'{"title":"Hi"}', ("a1", 3)), "3-f26b115a355f43019177d2df34e36f0f"),
    ((2, False, [PARENT], b"\x80\x05N."), "2-beb99c1ebe96fd6ccf97713a344bafc8"),
]


@pytest.mark.parametrize(("version", "expected"), REVISIONS)
def test_revs_never_change(version: tuple[Any, ...], expected: str) -> None:
    """Replicas that run different programs must name a version alike, for ever. The first was made by
    `printf '["c1",false,[],["a1",1]]\\n{"title":"Hello"}' | sha256sum | cut -c1-32`, the others likewise."""
    assert revision(*version) == expected


def test_an_actor_may_have_any_name_without_making_a_rev_ambiguous() -> None:
    """A line feed in the name is escaped, so the header still ends at the first one in the form."""
    assert revision(1, True, [], None, ("a\n1", 7)) != revision(1, True, [], b"1", ("a", 7))
    assert revision(1, True, [], None, ('a",1],"', 7)) == "1-818af065eb519c14c147aabd38c25f7a"


def test_the_same_edit_of_the_same_parents_is_the_same_version_everywhere() -> None:
    """Two replicas resolve a conflict alike; their dots and the order of the parents differ."""
    here = revision(3, False, [PARENT, RIVAL], b"{}", ("a1", 9))
    there = revision(3, False, [RIVAL, PARENT, RIVAL], b"{}", ("b1", 4))

    assert here == there == revision(3, False, [PARENT, RIVAL], b"{}")


def test_two_creations_of_equal_documents_are_two_versions() -> None:
    """Otherwise a tombstone that returns after a purge would delete the new document."""
    assert revision(1, False, [], b"{}", ("a1", 1)) != revision(1, False, [], b"{}", ("b1", 1))


def test_every_part_of_a_version_counts_in_its_rev() -> None:
    """A deletion, a deletion with a body, null and nothing are four different things."""
    revs = {
        revision(2, deleted, parents, body)
        for deleted in (False, True)
        for parents in ([PARENT], [RIVAL], [PARENT, RIVAL])
        for body in (None, b"", b"null", b"{}")
    }

    assert len(revs) == 24


def test_a_version_without_parents_and_dot_has_no_rev() -> None:
    """It is a mistake of the caller, not of the data."""
    with pytest.raises(ValueError, match="pass the dot"):
        revision(1, False, [], b"{}")


def test_the_winner_is_live_then_longer_then_larger_by_signature() -> None:
    """Generations compare as numbers: 10 is more than 9."""
    siblings = [(True, "12-f"), (False, "9-f"), (False, "10-a"), (False, "10-b"), (True, "11-a")]

    assert sorted(siblings, key=lambda sibling: winner_key(*sibling), reverse=True) == [
        (False, "10-b"),
        (False, "10-a"),
        (False, "9-f"),
        (True, "12-f"),
        (True, "11-a"),
    ]
    assert winner_key(False, "10-b") == (True, 10, "b")


@pytest.mark.parametrize("rev", ["", "x", "3", "-abc", "+3-abc", "a-b", " 3-a", "1_0-a"])
def test_text_that_is_no_rev_has_no_generation(rev: str) -> None:
    """match= hands on what users type."""
    assert generation("17-00ff") == 17

    with pytest.raises(ValueError, match="is not a rev"):
        generation(rev)
