"""Compression around any codec, by zlib or, with the extra vstore[zstd], by zstd.

Measured on JSON documents of 450 bytes, neither saves a third of the space, and
zlib costs ten times the encoding. So a small body, and one that does not
shrink, is stored as the inner codec wrote it, under the inner codec's name.

What is read may be damaged or hostile: nothing is expanded beyond
`max_body_bytes`.
"""

from __future__ import annotations

import zlib
from threading import local
from typing import TYPE_CHECKING, Any, Protocol

from vstore.errors import CodecError

if TYPE_CHECKING:
    from vstore.codecs import Codec

SMALL_BODY_BYTES = 1024  # below it stored raw; a dictionary shared by documents would change that


class Method(Protocol):
    """A way to compress bytes, under the prefix that names it."""

    prefix: str

    def compress(self, data: bytes) -> bytes: ...

    def expand(self, data: bytes) -> bytes:
        """What `compress` was given.

        Raises:
            CodecError: damaged, or larger than the method's limit.
        """


class CompressedCodec:
    """An inner codec whose larger bodies are stored compressed."""

    __slots__ = ("_inner", "_method", "identity", "name")

    def __init__(self, method: Method, inner: Codec) -> None:
        self._method = method
        self._inner = inner
        self.name = f"{method.prefix}+{inner.name}"
        self.identity = inner.identity  # compression never changes what a version is called

    def encode(self, value: Any) -> tuple[str, bytes]:
        name, data = self._inner.encode(value)
        if len(data) < SMALL_BODY_BYTES:
            return name, data
        compressed = self._method.compress(data)
        return (f"{self._method.prefix}+{name}", compressed) if len(compressed) < len(data) else (name, data)

    def decode(self, data: bytes) -> Any:
        return self._inner.decode(self._method.expand(data))


class Zlib:
    """zlib of the standard library, level 6: a third of zstd's speed, and nothing to install."""

    __slots__ = ("_max_body_bytes",)

    prefix = "zlib"

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes

    def compress(self, data: bytes) -> bytes:
        return zlib.compress(data, 6)

    def expand(self, data: bytes) -> bytes:
        stream = zlib.decompressobj()
        try:
            # One byte more than allowed: a body of just the limit then still reaches the end of its stream.
            body = stream.decompress(data, self._max_body_bytes + 1)
        except zlib.error as error:
            raise _unreadable(self.prefix, data, str(error)) from error
        if len(body) > self._max_body_bytes:
            raise _too_large(self.prefix, data, self._max_body_bytes)
        if not stream.eof or stream.unused_data:
            raise _unreadable(self.prefix, data, "it ends too early" if not stream.eof else "more bytes follow its end")
        return body


class Zstd:
    """zstd level 3 in standard frames that carry the size of their content.

    Any zstd library reads them. `zstandard` was chosen over backports.zstd, of a
    tenth its size, because its contexts can be used again: 0.6 µs to read a small
    body, not 9. A context serves one thread, so each thread has its own.
    """

    __slots__ = ("_contexts", "_max_body_bytes", "_zstandard")

    prefix = "zstd"

    def __init__(self, max_body_bytes: int) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise CodecError(
                "codec 'zstd' needs the package zstandard, which is not installed. Nothing was read or written. "
                "Install it with: pip install 'vstore[zstd]'"
            ) from error
        self._zstandard = zstandard
        self._max_body_bytes = max_body_bytes
        self._contexts = local()

    def compress(self, data: bytes) -> bytes:
        try:
            compressor = self._contexts.compressor
        except AttributeError:
            compressor = self._contexts.compressor = self._zstandard.ZstdCompressor(level=3)
        return bytes(compressor.compress(data))

    def expand(self, data: bytes) -> bytes:
        try:
            decompressor = self._contexts.decompressor
        except AttributeError:
            decompressor = self._contexts.decompressor = self._zstandard.ZstdDecompressor()
        try:
            # The library allocates what the frame claims, whatever limit it is given, so the claim is read first.
            # A frame without one (-1) is not ours.
            content_bytes = self._zstandard.frame_content_size(data)
            if content_bytes > self._max_body_bytes:
                raise _too_large(self.prefix, data, self._max_body_bytes)
            if content_bytes < 0:
                raise _unreadable(self.prefix, data, "its frame does not say how large its content is")
            return bytes(decompressor.decompress(data, allow_extra_data=False))
        except self._zstandard.ZstdError as error:
            raise _unreadable(self.prefix, data, str(error)) from error


def _unreadable(prefix: str, data: bytes, reason: str) -> CodecError:
    return CodecError(
        f"stored body of {len(data):,} bytes cannot be expanded by {prefix}: {reason}. Nothing was changed. "
        f"Run `vstore check` to list every such body."
    )


def _too_large(prefix: str, data: bytes, max_body_bytes: int) -> CodecError:
    return CodecError(
        f"stored body of {len(data):,} bytes expands by {prefix} to more than max_body_bytes ({max_body_bytes:,}). "
        f"Nothing was changed. If it was written under a larger limit, open the store with that limit."
    )
