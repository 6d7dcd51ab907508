"""What two replicas compare: 128 bits for each head, of all that a sync could still teach about it.

An element covers the key, the rev, all dots, the clock and the kind. So two
replicas hold the same elements exactly when neither has anything to tell the
other, and a head that only learnt more of its past is another element.

It is kept as four lanes of 32 bits, so that SQL can add up a range of them: a sum
of a million lanes fits into 64 bits on every database, and sums of ranges, also
over several shards, add up exactly. Sums and never XOR, under which two equal
elements would vanish.

Pure. Source: Meyer (2022), "Range-Based Set Reconciliation", arXiv:2212.13567.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from struct import Struct

_LANES = Struct(">4I")

Lanes = tuple[int, int, int, int]


def element(key: str, rev: str, dots: str, clock: str, kind: str) -> Lanes:
    """The element of a head; `dots` and `clock` as `vstore.sql.rows` writes them."""
    text = f"{len(key)} {key}{rev}\n{dots}\n{clock}\n{kind}"
    return _LANES.unpack_from(sha256(text.encode("utf-8", "surrogatepass")).digest())


def element_bytes(lanes: Sequence[int]) -> bytes:
    """The 16 bytes that the lanes stand for."""
    return _LANES.pack(*lanes)


def lanes_of(data: bytes) -> Lanes:
    """The lanes that 16 bytes stand for."""
    return _LANES.unpack(data)
