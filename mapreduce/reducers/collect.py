"""Collect: the values themselves.

Pure: no input or output.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from mapreduce.collation import Identity
from mapreduce.reducers import Groups, Identify, Pairs


@dataclass(frozen=True)
class Collect:
    """Every value, in order: what a plain function `reduce(key, values)` is given. Nothing is combined."""

    of: Any = None

    def zero(self) -> list[Any]:
        return []

    def add(self, acc: list[Any], value: Any, /) -> list[Any]:
        acc.append(value)
        return acc

    def merge(self, a: list[Any], b: list[Any], /) -> list[Any]:
        a += b
        return a

    def finish(self, acc: list[Any], /) -> list[Any]:
        return list(acc)  # a copy: the function may sort or empty it, and the result can be read again

    def folder(self, identify: Identify, /) -> Collecting:
        return Collecting(identify)


class Collecting:
    """The folder of Collect."""

    def __init__(self, identify: Identify) -> None:
        self._identify = identify
        self._lists: defaultdict[Identity, list[Any]] = defaultdict(list)

    def take(self, pairs: Pairs, /) -> int:
        lists, identify = self._lists, self._identify
        count = 0
        for key, value in pairs:
            kind = type(key)
            if kind is not str and kind is not int:
                key = identify(key)
            lists[key].append(value)
            count += 1
        return count

    @property
    def groups(self) -> Groups:
        return dict(self._lists)

    def __len__(self) -> int:
        return len(self._lists)
