"""The lines of a file or a pipe, one at a time, plain or compressed.

What it is compressed with shows in its first bytes; no name is believed. A file
can be read again from its beginning, which is what resuming an import needs; a
pipe cannot. Lines are numbered from 1 as an editor does, blank ones too.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from vstore.errors import CodecError, ConfigurationError

LINE_BYTES = 64 * 1024 * 1024
"""A longer line is no document, and is refused without being read into memory."""

_BUFFER_BYTES = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"


class Text(NamedTuple):
    """One line as it was read. `digest` is of everything up to its end; copy it to ask for it."""

    number: int
    text: bytes
    digest: Any
    too_long: bool = False


class Source:
    """A file of lines, or the standard input for "-". A context manager."""

    def __init__(self, name: str) -> None:
        """Opens it.

        Raises:
            ConfigurationError: it cannot be read.
        """
        self.name = name
        self._file: IO[bytes]
        if name == "-":
            self._file = sys.stdin.buffer
        else:
            try:
                self._file = Path(name).open("rb")  # noqa: SIM115  # closed by __exit__
            except OSError as error:
                raise ConfigurationError(f"{name} cannot be read: {error.strerror}. Nothing was imported.") from error
        # A named pipe can be opened by name and still not be read twice.
        self.repeatable = name != "-" and self._file.seekable()
        self.size_bytes = os.fstat(self._file.fileno()).st_size if self.repeatable else None

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.name != "-":
            self._file.close()

    @property
    def read_bytes(self) -> int:
        """How much of `size_bytes` has been read so far."""
        return self._file.tell() if self.repeatable else 0

    def beginning(self, count: int) -> bytes:
        """The first bytes, decompressed, or as many as can be read. For a repeatable source."""
        found = b""
        with contextlib.suppress(*_damage()):
            stream = self._decompressed()
            while part := stream.read1(count - len(found)):
                found += part
        return found

    def lines(self) -> Iterator[Text]:
        """Every line from the beginning; a pipe can be read only once.

        Raises:
            CodecError: the file is cut off or damaged, at a line that is named,
                or needs a library that is missing.
        """
        number = 0
        digest = hashlib.sha256()
        try:
            stream = self._decompressed()
            while text := stream.readline(LINE_BYTES):
                number += 1
                digest.update(text)
                too_long = len(text) == LINE_BYTES and not text.endswith(b"\n")
                if too_long:
                    while (rest := stream.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                        digest.update(rest)
                    digest.update(rest)
                    text = b""
                elif number == 1:
                    text = text.removeprefix(_BOM)
                yield Text(number, text, digest, too_long)
        except _damage() as error:
            raise CodecError(
                f"{self.name} is damaged after line {number}: {error}. The lines before are as reported."
            ) from error

    def _decompressed(self) -> io.BufferedReader:
        if self.repeatable:
            self._file.seek(0)
        raw: Any = self._file if hasattr(self._file, "peek") else io.BufferedReader(self._file)
        magic = raw.peek(4)[:4]
        if magic.startswith(_GZIP):
            return io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES)
        if magic == _ZSTD:
            return io.BufferedReader(_zstd_reader(raw), _BUFFER_BYTES)
        return raw  # type: ignore[no-any-return]


def _zstd_reader(raw: IO[bytes]) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise CodecError(
            "the file is compressed with Zstandard, and its library is not installed. Nothing was imported. Install "
            "it: pip install 'vstore[zstd]', or pipe the file: zstd -dc FILE | vstore import COLLECTION -"
        ) from error
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False)


def _damage() -> tuple[type[Exception], ...]:
    """What reading raises when a compressed file is cut off or changed."""
    zstandard = sys.modules.get("zstandard")  # if a file has asked for it
    return EOFError, zlib.error, gzip.BadGzipFile, *([] if zstandard is None else [zstandard.ZstdError])
