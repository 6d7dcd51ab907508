"""Reducers: how the values of one key become one value.

A reducer is a monoid. Workers fold the values of their split with `add`, the
engine joins the splits with `merge`, always in the order of the splits, and the
reader gets `finish`. So `merge` has to be associative, with `zero` neutral; it
need not be commutative.

    split 1   zero ─ add ─ add ─┐
    split 2   zero ─ add ───────┴ merge ── finish

A plain function `reduce(key, values)` works too: `Collect` keeps every value for
it, so nothing is combined before it crosses the process border.

A `Folder` holds the groups while they are made. The general one calls `add` for
every pair; a reducer may bring its own with a loop without that call, which
would cost more than an addition (measured: 1.2 to 1.5 times the whole job). A
reducer of your own does not need one.

The laws as tests, for reducers of your own too: `mapreduce.reducers.testing`.

Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mapreduce.collation import Identity

Pairs: TypeAlias = Iterable[tuple[Any, Any]]
Groups: TypeAlias = dict[Identity, Any]
Identify: TypeAlias = Callable[[Any], Identity]


@runtime_checkable
class Reducer(Protocol):
    """What a reducer promises; see the module for the laws.

    Accumulators travel between processes, so they must be picklable; a view
    keeps them in its database, for which they must be plain data
    (`mapreduce.accumulators`). `add` and `merge` may change and return their
    first argument and keep parts of both; `finish` may be called more than once
    and must not change its argument.
    """

    def zero(self) -> Any:
        """A fresh accumulator of no values."""

    def add(self, acc: Any, value: Any, /) -> Any:
        """The accumulator with one more value at its end."""

    def merge(self, a: Any, b: Any, /) -> Any:
        """The accumulator of the values of `a` followed by those of `b`."""

    def finish(self, acc: Any, /) -> Any:
        """The value shown to the reader."""


class Folder(Protocol):
    """The groups of some pairs while they are made, in one process.

    A key whose type is str or int is its own identity; every other has to go
    through `identify`, which also notes the key itself.
    """

    def take(self, pairs: Pairs, /) -> int:
        """Fold in every pair, one after the other as they come; how many there were. May be called many times.

        What `pairs`, `identify` or the reducer raise comes out unchanged. The
        pairs before are then folded in, and the folder can go on.
        """

    @property
    def groups(self) -> Groups:
        """Accumulators by identity of key, in order of first sight.

        They are the folder's own. Whoever changes them, as `merge` may, has to
        be done with the folder.
        """

    def __len__(self) -> int:
        """How many distinct keys so far."""


@runtime_checkable
class Folding(Protocol):
    """A reducer that brings its own folder."""

    def folder(self, identify: Identify, /) -> Folder:
        """An empty folder, equal in all it gives to the general one."""


def folder(reducer: Reducer, identify: Identify) -> Folder:
    """An empty folder: the reducer's own if it has one, otherwise one that calls `add` for every pair.

    A class that inherits a folder and has an `add` or `zero` of its own is not
    what that folder was made for.
    """
    if isinstance(reducer, Folding) and not any(_newer(type(reducer), name, "folder") for name in ("add", "zero")):
        return reducer.folder(identify)
    return Adding(reducer, identify)


def _newer(kind: type, name: str, than: str) -> bool:
    """Whether a class gets the one attribute from a class below the one that it gets the other from."""
    places = {each: place for place, base in reversed(list(enumerate(kind.__mro__))) for each in vars(base)}
    return places.get(name, 0) < places.get(than, 0)


class Adding:
    """The folder of any reducer: a call of `add` for every pair."""

    def __init__(self, reducer: Reducer, identify: Identify) -> None:
        self._reducer = reducer
        self._identify = identify
        self.groups: Groups = {}

    def take(self, pairs: Pairs, /) -> int:
        groups, identify = self.groups, self._identify
        zero, add = self._reducer.zero, self._reducer.add
        count = 0
        for key, value in pairs:
            kind = type(key)
            if kind is not str and kind is not int:
                key = identify(key)
            groups[key] = add(groups[key] if key in groups else zero(), value)
            count += 1
        return count

    def __len__(self) -> int:
        return len(self.groups)
