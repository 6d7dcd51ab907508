"""Codecs: how the value of a version becomes the bytes of its row.

The seam is `Codec`; `codec` finds one by name. A name is a chain, read from the
outside in: "zlib+json" is JSON, then zlib. Each row stores the name that wrote
it, for ever, so the setting of a collection may change at any time and old rows
still open. An unknown name is an error and never a guess.

    json            vstore.codecs.json_codec      any JSON value, the default
    pickle          vstore.codecs.pickle_codec    any Python value; only when allowed
    zlib+…, zstd+…  vstore.codecs.compression     around any codec

The conformance suite is `vstore.codecs.testing`.
"""

from __future__ import annotations

from typing import Any, Protocol

from vstore.canonical import MAX_BODY_BYTES
from vstore.errors import CodecError

__all__ = ["Codec", "codec"]


class Codec(Protocol):
    """Turns values into bytes and back, without loss.

    - What `decode` makes of the bytes of `encode` equals the value, exactly; a
      value for which this cannot hold is refused by `encode`.
    - `encode` says under which name its bytes are to be stored. Mostly that is
      `name`; it is a cheaper name when the extra work did not pay.
    - `decode` reads what was written under `name`, by any version of the program.
    - `identity` goes into the rev of the version. It depends on the value alone.
    - Any number of threads may use one codec at once.
    """

    @property
    def name(self) -> str:
        """At most 32 characters of a-z, 0-9 and +. It is in every row, so its meaning never changes."""

    def encode(self, value: Any) -> tuple[str, bytes]:
        """The name to store, and the bytes.

        Raises:
            InvalidDocument: the value cannot be kept exactly, or is too large.
        """

    def decode(self, data: bytes) -> Any:
        """The value that `encode` was given.

        Raises:
            CodecError: `data` was not written under `name`, or is damaged.
        """

    def identity(self, value: Any) -> bytes:
        """The bytes that stand for a value which `encode` accepts, whatever codec stores it."""


def codec(name: str, allow_pickle: bool = False, max_body_bytes: int = MAX_BODY_BYTES) -> Codec:
    """The codec of a name such as "json", "zlib+json" or "zstd+json".

    Args:
        name: a setting, or the name stored with a row.
        allow_pickle: whether the name may end in pickle. Reading a pickle runs
            code that its writer chose.
        max_body_bytes: how large a body may be before compression, in writing
            and, for compressed bodies, in reading.

    Raises:
        CodecError: the name is unknown, needs a package that is not installed,
            or asks for pickle without permission.

    Builds a new one: callers keep it. Modules are imported when first asked for.
    """
    outer, chained, inner = name.partition("+")
    match outer, bool(chained):
        case "json", False:
            from vstore.codecs.json_codec import JsonCodec

            return JsonCodec(max_body_bytes)
        case "pickle", False:
            if not allow_pickle:
                raise CodecError(
                    "codec 'pickle' refused: reading a pickle runs code chosen by whoever wrote it. Nothing was read "
                    "or written. Pass allow_pickle=True if every writer of this store is trusted."
                )
            from vstore.codecs.pickle_codec import PickleCodec

            return PickleCodec(max_body_bytes)
        case "zlib", True:
            from vstore.codecs.compression import CompressedCodec, Zlib

            return CompressedCodec(Zlib(max_body_bytes), codec(inner, allow_pickle, max_body_bytes))
        case "zstd", True:
            from vstore.codecs.compression import CompressedCodec, Zstd

            return CompressedCodec(Zstd(max_body_bytes), codec(inner, allow_pickle, max_body_bytes))
    raise CodecError(
        f"codec {name!r} is unknown: names are json or pickle, with zlib+ or zstd+ before them if compressed. Nothing "
        f"was read or written. A stored name that is missing here was written by a newer vstore, or is damaged."
    )
