"""The conformance suite of the codec seam: what every codec has to keep.

Bind it by a subclass that says how to make the codec; pytest finds the rest.
Codecs of JSON values use `JsonCodecContract`, others `CodecContract`.

    class TestZlib(JsonCodecContract):
        def make(self, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
            return codec("zlib+json", max_body_bytes=max_body_bytes)
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from vstore.canonical import MAX_BODY_BYTES, canonical
from vstore.codecs import Codec, codec
from vstore.errors import CodecError, InvalidDocument

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    2**64 - 1,
    -(2**63),
    1.0,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    "",
    "\x00 \x7f \u2028 é \U0001f600",
    [],
    {},
    {"b": 1, "a": [1, 1.0, True, None, {"": ""}], "\U0001f600": 2, "\uffff": 3},
    {"lines": [{"sku": f"A-{n}", "n": n, "price": n / 7} for n in range(200)]},  # large enough to be compressed
    "".join(chr(0x20 + n * n % 95) for n in range(999)),
]

UNKEEPABLE: list[tuple[Any, str]] = [
    ({"a": [float("nan")]}, "/a/0"),
    ({"a": (1, 2)}, "/a"),
    ({"a": 2**64}, "/a"),
    ({"a": "\ud800"}, "/a"),
    ({"a": {1: 2}}, "/a"),
]


class CodecContract:
    """Holds for every codec."""

    def make(self, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
        """The codec under test."""
        raise NotImplementedError

    def reader(self, name: str) -> Codec:
        """The codec of a stored name, as a later run of the program finds it."""
        return codec(name, allow_pickle=True)

    @pytest.mark.parametrize("value", VALUES)
    def test_what_goes_in_comes_out(self, value: Any) -> None:
        """Written now, read later by whatever codec the stored name stands for; types, signs and key order included."""
        name, data = self.make().encode(value)

        back = self.reader(name).decode(data)

        assert back == value
        assert repr(back) == repr(value)

    @pytest.mark.parametrize("value", VALUES)
    def test_encoding_and_identity_are_repeatable(self, value: Any) -> None:
        """A second codec, as another process would make it, agrees on both."""
        assert self.make().encode(value) == self.make().encode(value)
        assert self.make().identity(value) == self.make().identity(value)

    def test_different_values_have_different_identities(self) -> None:
        """Among them values that Python takes for equal: True and 1.0, 0 and -0.0."""
        identities = {self.make().identity(value) for value in [*VALUES, 1, 0.0]}

        assert len(identities) == len(VALUES) + 2

    def test_the_name_is_fit_for_every_row(self) -> None:
        """Short, and of characters that no database or shell treats specially."""
        subject = self.make()

        names = {subject.name} | {subject.encode(value)[0] for value in VALUES}

        assert all(re.fullmatch(r"[a-z0-9+]{1,32}", name) for name in names)
        assert {self.reader(name).name for name in names} == names

    def test_damaged_bytes_raise_a_codec_error(self) -> None:
        """A row cut short at any place: never another exception, never a guess."""
        name, data = self.make().encode({"lines": [{"sku": f"A-{n}", "n": n} for n in range(60)]})
        subject = self.reader(name)

        for size in range(len(data)):
            with pytest.raises(CodecError):
                subject.decode(data[:size])

    def test_a_body_over_the_limit_is_refused(self) -> None:
        """The limit is on the body before compression, so what was stored can always be read under it."""
        subject = self.make(max_body_bytes=2_000)

        name, data = subject.encode("x" * 1_900)
        assert self.reader(name).decode(data) == "x" * 1_900
        with pytest.raises(InvalidDocument, match="max_body_bytes is 2,000"):
            subject.encode("x" * 2_000)

    def test_threads_share_a_codec(self) -> None:
        """Eight threads encode and decode at once; a context shared by mistake would mix their bodies."""
        subject = self.make()
        values = [{"n": n, "text": f"{n} " * 1_000} for n in range(64)]

        def there_and_back(value: Any) -> Any:
            name, data = subject.encode(value)
            return subject.decode(data) if name == subject.name else self.reader(name).decode(data)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(there_and_back, values)) == values


class JsonCodecContract(CodecContract):
    """Holds besides for every codec of JSON values."""

    @pytest.mark.parametrize("value", VALUES)
    def test_the_identity_is_the_canonical_form(self, value: Any) -> None:
        """So neither compression nor another setting ever renames a version."""
        name, data = self.make().encode(value)

        assert self.make().identity(value) == canonical(value)
        assert self.make().identity(self.reader(name).decode(data)) == canonical(value)

    @pytest.mark.parametrize(("value", "path"), UNKEEPABLE)
    def test_what_json_cannot_keep_is_refused_by_its_path(self, value: Any, path: str) -> None:
        """Refused before anything is stored, and not at the first read."""
        with pytest.raises(InvalidDocument) as refusal:
            self.make().encode(value)

        assert refusal.value.path == path
