"""Where a key lives: its partition, and the shard that holds the partition.

A collection has Q partitions, a power of two fixed for ever. A key belongs to
the partition that the top bits of its hash name, so this never changes either.
Only the placement of partitions on shards does, and each placement is a
numbered map:

    key ──hash──► part 0 … Q-1 ──map 7──► shard "s2"

Taking the top bits keeps each partition, and each shard, one contiguous range
of hashes.

Pure: no input or output. Names no table and no URL; a shard is an id here.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import orjson

from vstore.errors import Corrupt, InvalidKey

MAX_KEY_BYTES = 1024
MAX_PARTITIONS = 65536

_SHIFT_OF = {1 << bits: 64 - bits for bits in range(MAX_PARTITIONS.bit_length())}


def hash_of(key: str) -> int:
    """The 64-bit hash that places a key: BLAKE2b with 8 bytes of digest over its UTF-8, read big-endian.

    The same in every process, program version and language. `hash()` is salted
    per process; a CRC is no faster from Python and spreads similar keys less well.
    """
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")


def part_of(key: str, partitions: int) -> int:
    """The partition of a key, from 0 to `partitions` - 1.

    Args:
        key: one that `check_key` accepts.
        partitions: Q of the collection, a power of two from 1 to 65,536.

    Raises:
        ValueError: `partitions` is none of these.
    """
    try:
        return hash_of(key) >> _SHIFT_OF[partitions]
    except KeyError:
        raise ValueError(f"{partitions!r} partitions: the number must be a power of two from 1 to 65,536") from None


def check_key(key: str) -> None:
    """Accepts a str of 1 to 1,024 bytes as UTF-8 without NUL.

    Raises:
        InvalidKey: anything else, whatever its type.
    """
    if not isinstance(key, str):
        raise InvalidKey(f"key {key!r} refused: it is {type(key).__name__}, a key is a str. Nothing was written.")
    try:
        key_bytes = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(
            f"key {key!r} refused: it has a lone surrogate at {error.start}, which UTF-8 cannot say. Nothing was "
            f"written. Decode the text it came from as what it is."
        ) from error
    if not 0 < key_bytes <= MAX_KEY_BYTES:
        raise InvalidKey(
            f"key {key[:40]!r}{'…' if len(key) > 40 else ''} refused: it has {key_bytes:,} bytes as UTF-8, a key has "
            f"1 to {MAX_KEY_BYTES:,}. Nothing was written."
        )
    if "\0" in key:
        raise InvalidKey(
            f"key {key!r} refused: it has a NUL, which PostgreSQL cannot store in text. Nothing was written."
        )


@dataclass(frozen=True, slots=True)
class PartitionMap:
    """Which shard holds which partition. A changed placement is a new map with a larger number.

    `number` counts maps from 1; `shards` are the ids of the shards in order.
    """

    number: int
    shards: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.number < 1 or not self.shards or len(set(self.shards)) < len(self.shards):
            raise ValueError(
                f"no partition map: number {self.number} must be at least 1, and shards {self.shards} one or more, "
                f"each once"
            )

    def shard_of(self, part: int, partitions: int) -> int:
        """The index in `shards` of the shard that holds a partition.

        Shards hold contiguous ranges of nearly equal size; with more shards than
        partitions, some hold none.

        Raises:
            ValueError: `part` is not one of 0 to `partitions` - 1.
        """
        if not 0 <= part < partitions:
            raise ValueError(f"partition {part} of {partitions} does not exist: they count from 0 to {partitions - 1}")
        return part * len(self.shards) // partitions

    def to_json(self) -> str:
        """The map as JSON text, the form that every shard stores."""
        return orjson.dumps({"number": self.number, "shards": self.shards}).decode()

    @classmethod
    def from_json(cls, text: str) -> PartitionMap:
        """The map that `to_json` wrote.

        Raises:
            Corrupt: `text` is no such map.
        """
        try:
            match orjson.loads(text):
                case {"number": int(number), "shards": [*shards]} if all(isinstance(shard, str) for shard in shards):
                    return cls(number, tuple(shards))
            raise ValueError("number and shards expected")
        except ValueError as error:
            raise Corrupt(
                f"stored partition map {text[:200]!r} cannot be read: {error}. Nothing was changed. Run `vstore check`."
            ) from error
