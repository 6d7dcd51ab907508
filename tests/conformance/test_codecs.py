"""Every codec against the conformance suite, and what is particular to each."""

from __future__ import annotations

import sys
import tracemalloc
import zlib
from random import Random
from typing import Any

import pytest

from vstore.canonical import MAX_BODY_BYTES
from vstore.codecs import Codec, codec
from vstore.codecs.testing import CodecContract, JsonCodecContract
from vstore.errors import CodecError, InvalidDocument


class TestJson(JsonCodecContract):
    def make(self, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
        return codec("json", max_body_bytes=max_body_bytes)


class TestZlibJson(JsonCodecContract):
    def make(self, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
        return codec("zlib+json", max_body_bytes=max_body_bytes)


class TestZstdJson(JsonCodecContract):
    def make(self, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
        return codec("zstd+json", max_body_bytes=max_body_bytes)


class TestPickle(CodecContract):
    def make(self, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
        return codec("pickle", allow_pickle=True, max_body_bytes=max_body_bytes)


class TestZlibPickle(CodecContract):
    def make(self, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
        return codec("zlib+pickle", allow_pickle=True, max_body_bytes=max_body_bytes)


class TestZstdZlibJson(JsonCodecContract):
    """A chain of three has no use, but a name may say it, so it has to work."""

    def make(self, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
        return codec("zstd+zlib+json", max_body_bytes=max_body_bytes)


@pytest.mark.parametrize(
    "name", ["", "yaml", "JSON", "json+zlib", "json+", "+json", "zlib", "zlib+", "zlib+yaml", "lz4+json"]
)
def test_an_unknown_name_is_an_error_and_never_a_guess(name: str) -> None:
    """A row of a newer program, or a damaged one."""
    with pytest.raises(CodecError, match="is unknown"):
        codec(name)


@pytest.mark.parametrize("name", ["pickle", "zlib+pickle", "zstd+pickle"])
def test_pickle_is_refused_unless_allowed(name: str) -> None:
    """A replica could otherwise send a row that runs its code here."""
    with pytest.raises(CodecError, match="allow_pickle=True"):
        codec(name)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """zstandard is optional; the error says what to install."""
    monkeypatch.setitem(sys.modules, "zstandard", None)

    with pytest.raises(CodecError, match=r"pip install 'vstore\[zstd\]'") as failure:
        codec("zstd+json")
    assert isinstance(failure.value.__cause__, ImportError)


@pytest.mark.parametrize("prefix", ["zlib", "zstd"])
def test_only_what_shrinks_is_stored_compressed(prefix: str) -> None:
    """Small bodies and dense ones keep the inner name, and so cost nothing to read."""
    subject = codec(f"{prefix}+json")

    assert subject.encode({"a": "x" * 900}) == ("json", b'{"a":"' + b"x" * 900 + b'"}')
    assert codec(f"{prefix}+pickle", allow_pickle=True).encode(Random(1).randbytes(2_000))[0] == "pickle"
    name, data = subject.encode({"a": "x" * 2_000})
    assert name == f"{prefix}+json"
    assert len(data) < 100


def zlib_bomb(size: int) -> bytes:
    return zlib.compress(b" " * size, 9)


def zstd_bomb(size: int, sized: bool = True) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=3, write_content_size=sized).compress(b" " * size)


@pytest.mark.parametrize(
    ("name", "bomb"),
    [("zlib+json", zlib_bomb(10_000_000)), ("zstd+json", zstd_bomb(10_000_000))],
)
def test_a_body_that_would_expand_beyond_the_limit_is_refused(name: str, bomb: bytes) -> None:
    """Ten kilobytes of a hostile row must not take ten megabytes of memory, or ten thousand."""
    subject = codec(name, max_body_bytes=100_000)

    tracemalloc.start()
    with pytest.raises(CodecError, match=r"more than max_body_bytes \(100,000\)"):
        subject.decode(bomb)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 2_000_000


def test_a_zstd_frame_that_hides_its_size_is_refused() -> None:
    """Ours always say it; without it nothing bounds the work."""
    with pytest.raises(CodecError, match="does not say how large"):
        codec("zstd+json").decode(zstd_bomb(10_000, sized=False))


@pytest.mark.parametrize("prefix", ["zlib", "zstd"])
def test_a_body_of_just_the_limit_is_read_and_bytes_after_its_end_are_not(prefix: str) -> None:
    """Both ends of the limit, and a row with something appended."""
    value = "x" * 9_998  # and two quotes
    name, data = codec(f"{prefix}+json", max_body_bytes=10_000).encode(value)

    assert name == f"{prefix}+json"
    assert codec(name, max_body_bytes=10_000).decode(data) == value
    with pytest.raises(CodecError, match="more than max_body_bytes"):
        codec(name, max_body_bytes=9_999).decode(data)
    with pytest.raises(CodecError, match="cannot be expanded"):
        codec(name).decode(data + b"x")


@pytest.mark.parametrize("value", [(1, 2), {1: {2, 3}}, b"bytes", 2**100, float("inf"), complex(1, 2)])
def test_pickle_keeps_what_json_has_not(value: Any) -> None:
    """That is what it is for."""
    subject = codec("pickle", allow_pickle=True)

    name, data = subject.encode(value)

    back = subject.decode(data)
    assert (name, back, type(back)) == ("pickle", value, type(value))


def test_the_identity_of_a_pickled_value_is_its_pickle_at_protocol_5() -> None:
    """Literal bytes: they are in revs, so they cannot move with Python's default protocol."""
    assert codec("zlib+pickle", allow_pickle=True).identity((1,)) == b"\x80\x05\x95\x05\0\0\0\0\0\0\0K\x01\x85\x94."


def test_a_value_that_cannot_be_pickled_is_refused() -> None:
    """A lambda has no name to find it by."""
    with pytest.raises(InvalidDocument, match="cannot be pickled"):
        codec("pickle", allow_pickle=True).encode(lambda: 1)
