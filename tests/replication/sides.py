"""A side of a comparison that is two lists: what the one over SQL is measured against."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from struct import iter_unpack

from replication.differences import Row, Sum
from vstore.ranges import KeyRange, separator


class Memory:
    """A set of elements in the order of keys: a `replication.differences.Side`."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.all = sorted(rows)
        self.keys = [key for key, _ in self.all]
        lanes = (
            zip(*iter_unpack(">4I", b"".join([each for _, each in self.all])), strict=True) if self.all else [()] * 4
        )
        self.totals = [list(accumulate(lane, initial=0)) for lane in lanes]

    def sums(self, ranges: Sequence[KeyRange]) -> list[Sum]:
        places = [self.places(keys) for keys in ranges]
        return [Sum(end - start, *[lane[end] - lane[start] for lane in self.totals]) for start, end in places]

    def rows(self, keys: KeyRange, limit: int) -> list[Row]:
        start, end = self.places(keys)
        return self.all[start : min(end, start + limit)]

    def bounds(self, keys: KeyRange, count: int, pieces: int) -> list[str]:
        start, end = self.places(keys)
        found: list[str] = []
        for n in range(1, pieces):
            at = start + (end - start) * n // pieces
            bound = separator(self.keys[at - 1], self.keys[at])
            if keys.low < bound < keys.high and bound not in found:
                found.append(bound)
        return found

    def places(self, keys: KeyRange) -> tuple[int, int]:
        return bisect_left(self.keys, keys.low), bisect_left(self.keys, keys.high)
