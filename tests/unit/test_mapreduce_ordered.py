"""Keys as bytes: their order, and the way back."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from math import inf, nan, nextafter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mapreduce.collation import sort_key
from mapreduce.ordered import decode, descending, encode, upper

EDGES = [
    n + d for e in (0, 7, 8, 31, 52, 53, 54, 63, 64, 70, 1023, 1024, 1025) for n in (2**e, -(2**e)) for d in (-1, 0, 1)
]
LARGEST = 1.7976931348623157e308
NUMBERS = (
    st.integers()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*EDGES, 0.0, -0.0, 5e-324, -5e-324, LARGEST, -LARGEST, int(LARGEST), int(LARGEST) + 1])
    | st.integers(0, 1023).map(lambda e: float(2**e))
    | st.integers(-(2**1100), 2**1100)
)
TEXT = st.text(max_size=4) | st.text("\x00\x01\x02a\xff\ud800\U0010ffff", max_size=4)
KEYS = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("\x00ab", max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


def compared(one: Any, other: Any) -> int:
    return bool(one > other) - bool(one < other)


@given(KEYS, KEYS)
@example(2**53, float(2**53))
@example(-(2**53) - 1, -(2**53) - 2)
@example(2**1024, LARGEST)
@example(int(LARGEST) + 1, LARGEST)
@example(["a"], ["a\x00"])
def test_bytes_compare_as_the_keys_do(one: Any, other: Any) -> None:
    """Below, above and equal; an integer and a float that are the same number have the same bytes."""
    assert compared(encode(one), encode(other)) == compared(sort_key(one), sort_key(other))


@given(NUMBERS, NUMBERS)
def test_the_bytes_of_numbers_compare_as_the_numbers_do(one: float, other: float) -> None:
    assert compared(encode(one), encode(other)) == compared(one, other)


@given(NUMBERS, st.integers(-2, 2))
def test_the_bytes_of_neighbouring_numbers_compare_as_they_do(number: float, step: int) -> None:
    near = int(number) + step

    assert compared(encode(near), encode(number)) == compared(near, number)


def test_types_sort_in_one_fixed_order() -> None:
    ascending: list[Any] = [
        *(None, False, True),
        *(-(10**400), -(2**1024), -LARGEST, -(10**30), -(2**53) - 1, -(2**53), -1.5, -1, -5e-324),
        *(0, 5e-324, 0.5, 1, 255, 256, 2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**64, 2**64 + 1, 1e300),
        *(LARGEST, int(LARGEST) + 1, 2**1024, 10**400, 10**10_000),
        *("", "\x00", "\x00\x00", "\x00a", "\x01", "A", "a", "a\x00", "a\x00b", "a\x01", "aa", "b"),
        *("é", "\ud800", "\uffff", "\U0001f600"),
        *([], [None], [1], [1, 0], [1, "a"], [2], ["a"], ["a", 1], ["a\x00"], [[]], [[], 0], [[0]], [{}]),
        *({}, {"": 0}, {"a": 1}, {"a": 1, "b": 0}, {"a": 2}, {"a\x00": 0}, {"b": 0}),
    ]

    encoded = [encode(key) for key in ascending]

    assert [(a, b) for a, b in pairwise(encoded) if a >= b] == []


@given(KEYS)
def test_a_key_comes_back(key: Any) -> None:
    back = decode(encode(key))

    assert sort_key(back) == sort_key(key)
    assert encode(back) == encode(key)


@pytest.mark.parametrize(
    ("key", "back"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (1.5, "1.5"),
        ((1, 2), "[1, 2]"),
        ({"b": 1, "a": (None,)}, "{'a': [None], 'b': 1}"),
        (2**53 + 1, "9007199254740993"),
        (-(2**63), "-9223372036854775808"),
        (1e300, "1e+300"),
        (2**64, "1.8446744073709552e+19"),
        (2**64 + 1, "18446744073709551617"),
        (10**30, "1000000000000000000000000000000"),
        (True, "True"),
        ("a\x00\ud800", repr("a\x00\ud800")),
    ],
)
def test_the_form_in_which_a_key_comes_back(key: Any, back: str) -> None:
    """Integral numbers as int, unless they are large and exactly a float; arrays as lists; members sorted."""
    assert repr(decode(encode(key))) == back


def test_the_bytes_themselves_are_part_of_the_format() -> None:
    """Views keep them: a change here needs a new version of the views' tables."""
    assert encode(None).hex() == "01"
    assert encode(False).hex() == "02"
    assert encode(True).hex() == "03"
    assert encode(0).hex() == "048000000000000000"
    assert encode(1.5).hex() == "04bff8000000000000"
    assert encode(-1).hex() == "04400fffffffffffff"
    assert encode(2**53).hex() == "04c34000000000000000"
    assert encode(2**53 + 1).hex() == "04c3400000000000000101"
    assert encode(-(2**53) - 1).hex() == "043cbffffffffffffe0101"
    assert encode(2**1024).hex() == "04fff00000000000000081" + "01" + "00" * 128
    assert encode(-(2**1024)).hex() == "04000fffffffffffffff7e" + "fe" + "ff" * 128
    assert encode("a\x00é").hex() == "05610001c3a90000"
    assert encode([1, "a"]).hex() == "0604bff00000000000000561000000"
    assert encode({"b": None, "a": []}).hex() == "070561000006000562000001" + "00"


@given(st.lists(KEYS, min_size=2, max_size=2), st.lists(KEYS, min_size=2, max_size=2), st.booleans(), st.booleans())
def test_joined_keys_compare_part_by_part(one: list[Any], other: list[Any], first: bool, second: bool) -> None:
    """As an order by two columns does, each of them ascending or descending."""
    turned = (first, second)

    def joined(keys: list[Any]) -> bytes:
        return b"".join(
            descending(encode(key)) if down else encode(key) for key, down in zip(keys, turned, strict=True)
        )

    expected = 0
    for a, b, down in zip(one, other, turned, strict=True):
        expected = expected or compared(sort_key(a), sort_key(b)) * (-1 if down else 1)

    assert compared(joined(one), joined(other)) == expected


@given(KEYS, KEYS)
def test_no_key_is_the_beginning_of_another(one: Any, other: Any) -> None:
    assert encode(one) == encode(other) or not encode(other).startswith(encode(one))


@given(KEYS)
def test_descending_twice_is_ascending(key: Any) -> None:
    assert descending(descending(encode(key))) == encode(key)


@given(st.lists(KEYS, max_size=2), st.lists(KEYS, max_size=3), KEYS)
def test_the_upper_bound_of_a_prefix_is_above_its_arrays_and_no_others(
    prefix: list[Any], rest: list[Any], key: Any
) -> None:
    bound = upper(prefix)

    assert encode([*prefix, *rest]) < bound
    if sort_key(key) > sort_key(prefix) and sort_key(key)[: len(prefix) + 1] != sort_key(prefix):
        assert encode(key) > bound
    if sort_key(key) < sort_key(prefix):
        assert encode(key) < encode(prefix) < bound


def test_upper_bounds_of_nested_prefixes_lie_around_each_other() -> None:
    assert encode(["a"]) < encode(["a", {"z": 1}]) < upper(["a"]) < encode(["a\x00"]) < encode(["b"])
    assert upper(["a", 1]) < upper(["a"]) < upper([]) < encode({})


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (nan, ValueError, "numbers are finite"),
        (inf, ValueError, "numbers are finite"),
        ([-inf], ValueError, "numbers are finite"),
        (b"bytes", TypeError, "cannot be of type bytes"),
        ({1: "a"}, TypeError, "names that are no strings"),
        ({"set"}, TypeError, "cannot be of type set"),
    ],
)
def test_a_key_that_cannot_be_encoded_is_refused(key: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encode(key)


def test_integers_have_65_535_bytes_at_most() -> None:
    largest = (1 << 8 * 65_535) - 1

    assert decode(encode(largest)) == largest
    assert decode(encode([-largest, "next"])) == [-largest, "next"]
    assert encode(-largest) < encode(1 - largest)
    for beyond in (largest + 1, -largest - 1):
        with pytest.raises(ValueError, match="of 65,536 bytes cannot be an encoded map key: at most 65,535 fit"):
            encode(beyond)


def test_subclasses_of_text_and_numbers_are_encoded_as_what_they_are() -> None:
    class Name(str):
        pass

    class Level(int):
        pass

    class Metre(float):
        pass

    assert encode([Name("a"), Level(5), Metre(1.5)]) == encode(["a", 5, 1.5])
    assert encode(Metre(nextafter(1, 2))) == encode(1.0000000000000002)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x09",
        b"\xff",
        encode("a")[:-1],
        encode("a")[:-2],
        b"\x05a\x00\x05",
        encode("a") + b"\x00",
        encode(1)[:-1],
        b"\x04",
        encode(2**53)[:-1],
        encode(2**53 + 1)[:-1],
        encode(2**1024)[:-1],
        encode(2**1024)[:10],
        encode([1])[:-1],
        encode([1, 2])[:-3],
        b"\x06",
        encode({"a": 1})[:-1],
        b"\x07\x06\x00\x01\x00",
        b"\x07\x06a\x00\x00\x01\x00",
        b"\x05\xc3\x00\x00",
    ],
)
def test_bytes_that_are_no_key_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="is no encoded map key"):
        decode(data)


@given(st.binary(max_size=24) | st.lists(st.sampled_from([*range(8), 0x7F, 0x80, 0xFF]), max_size=24).map(bytes))
def test_damaged_bytes_raise_one_error_at_most(data: bytes) -> None:
    with suppress(ValueError):
        decode(data)


def test_bytes_that_nest_without_end_are_refused_in_few_words() -> None:
    with pytest.raises(ValueError, match="100,000 bytes, is no encoded map key") as caught:
        decode(b"\x06" * 100_000)

    assert len(str(caught.value)) < 300
