"""Placement never changes: a key found by one program version is found by all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstore.errors import Corrupt, InvalidKey
from vstore.partition import PartitionMap, check_key, hash_of, part_of


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a", 0x40F89E395B66422F),
        ("hello", 0xA7B6EDA801E5347D),
        ("order-000123", 0x128F72565D94CF3A),
        ("é", 0xCB1ABF8BEFF3192F),
        ("\U0001f600", 0xF5F08BEBE22AE770),
        ("x" * 1024, 0xA4246765365B13AB),
    ],
)
def test_the_hash_of_a_key_never_changes(key: str, expected: int) -> None:
    """`printf hello | b2sum -l 64` prints the same digits."""
    assert hash_of(key) == expected


@pytest.mark.parametrize(
    ("key", "parts"),
    [("hello", {1: 0, 2: 1, 64: 41, 65536: 42934}), ("order-000123", {1: 0, 2: 0, 64: 4, 65536: 4751})],
)
def test_the_partition_of_a_key_never_changes(key: str, parts: dict[int, int]) -> None:
    """A store written years ago looks for its keys where they are."""
    assert {partitions: part_of(key, partitions) for partitions in parts} == parts


@given(st.text(min_size=1), st.integers(0, 15))
def test_the_partition_is_the_top_bits_of_the_hash(key: str, bits: int) -> None:
    """So a partition is a contiguous range of hashes, and halves nest in it."""
    part = part_of(key, 1 << bits)

    assert part == hash_of(key) * (1 << bits) // 2**64
    assert part_of(key, 2 << bits) // 2 == part


def test_keys_that_differ_little_spread_evenly() -> None:
    """64,000 numbered keys over 64 partitions: about 1,000 each, standard deviation 31."""
    counts = Counter(part_of(f"order-{n:06}", 64) for n in range(64_000))

    assert len(counts) == 64
    assert 850 < min(counts.values()) <= max(counts.values()) < 1_150


@pytest.mark.parametrize("partitions", [0, -1, 3, 63, 65537, 131072])
def test_the_number_of_partitions_is_a_power_of_two_up_to_65536(partitions: int) -> None:
    """Anything else could not be the top bits of a hash."""
    with pytest.raises(ValueError, match="power of two"):
        part_of("a", partitions)


@pytest.mark.parametrize("key", ["a", " ", "/", "é" * 512, "\U0001f600" * 256, "x" * 1024, "\n", "\x7f"])
def test_a_key_is_1_to_1024_bytes_of_utf8(key: str) -> None:
    """Any text is fine, also at the limit."""
    check_key(key)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "0 bytes"),
        ("x" * 1025, "1,025 bytes"),
        ("é" * 513, "1,026 bytes"),
        ("a\0b", "NUL"),
        ("é\0", "NUL"),
        ("a\ud800", "lone surrogate at 1"),
        (b"a", "it is bytes"),
        (1, "it is int"),
        (None, "it is NoneType"),
        (("a",), "it is tuple"),
    ],
)
def test_anything_else_is_no_key(key: Any, reason: str) -> None:
    """Each would be stored differently by some database, or by none."""
    with pytest.raises(InvalidKey, match=reason):
        check_key(key)


@pytest.mark.parametrize(
    ("shards", "partitions", "placed"),
    [
        (1, 4, [0, 0, 0, 0]),
        (2, 4, [0, 0, 1, 1]),
        (3, 8, [0, 0, 0, 1, 1, 1, 2, 2]),
        (3, 2, [0, 1]),
    ],
)
def test_shards_hold_contiguous_ranges_of_nearly_equal_size(shards: int, partitions: int, placed: list[int]) -> None:
    """With more shards than partitions the last ones stay empty."""
    placement = PartitionMap(1, tuple(f"s{n}" for n in range(shards)))

    assert [placement.shard_of(part, partitions) for part in range(partitions)] == placed


@pytest.mark.parametrize("part", [-1, 4])
def test_a_partition_that_does_not_exist_is_on_no_shard(part: int) -> None:
    """An index from the end would quietly be another shard."""
    with pytest.raises(ValueError, match="does not exist"):
        PartitionMap(1, ("s0", "s1")).shard_of(part, 4)


def test_a_map_survives_its_json() -> None:
    """The text is in the database of every shard, so it is spelled out here."""
    placement = PartitionMap(7, ("s1", "s2"))

    assert placement.to_json() == '{"number":7,"shards":["s1","s2"]}'
    assert PartitionMap.from_json('{"number":7,"shards":["s1","s2"]}') == placement


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"number":1}',
        '{"number":"1","shards":["s1"]}',
        '{"number":1,"shards":[1]}',
        '{"number":0,"shards":["s1"]}',
        '{"number":1,"shards":[]}',
        '{"number":1,"shards":["s1","s1"]}',
    ],
)
def test_a_damaged_map_is_corrupt(text: str) -> None:
    """Guessing a placement would write keys where nobody looks for them."""
    with pytest.raises(Corrupt, match="vstore check"):
        PartitionMap.from_json(text)


@pytest.mark.parametrize(("number", "shards"), [(0, ("s1",)), (1, ()), (1, ("s1", "s1"))])
def test_a_map_has_a_number_and_each_shard_once(number: int, shards: tuple[str, ...]) -> None:
    """A shard named twice would count its documents twice."""
    with pytest.raises(ValueError, match="no partition map"):
        PartitionMap(number, shards)
