"""The result of a job: groups in key order, finished as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mapreduce.collation import Identity, identity, sort_key
from mapreduce.errors import ReduceError
from mapreduce.job import Job
from mapreduce.partial import Partial


@dataclass(frozen=True)
class Counters:
    """How much a job did. What was done again after a worker was lost counts once, except in `retries`."""

    documents: int  # given to the map function
    pairs: int  # yielded by it
    splits: int
    retries: int  # splits repeated because their worker died
    seconds: float  # from the call until the last split was merged


class Result:
    """The (key, value) pairs of a finished job, ordered by key.

    Iterating calls the reducer's `finish`, or the reduce function, for one key at
    a time; it can be iterated again. It has no `keys()`, so that `dict(result)`
    takes the pairs; keys that are lists or dicts do not fit into a dict.
    """

    def __init__(self, job: Job, groups: Partial, counters: Counters) -> None:
        self._job = job
        self._groups = groups
        self.counters = counters

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for found in self._order:
            yield self._groups.key(found), self._value(found)

    def __getitem__(self, key: Any) -> Any:
        """The reduced value of one key.

        Raises:
            KeyError: no pair had this key.
            ReduceError: the reduce function, or the reducer's `finish`, failed.
        """
        found = identity(key)
        if found not in self._groups.groups:
            raise KeyError(key)
        return self._value(found)

    def get(self, key: Any, default: Any = None) -> Any:
        """The reduced value of one key, or `default` if no pair had it."""
        found = identity(key)
        return self._value(found) if found in self._groups.groups else default

    def __contains__(self, key: Any) -> bool:
        """Whether any pair had this key, as in a mapping."""
        return identity(key) in self._groups.groups

    def __len__(self) -> int:
        return len(self._groups.groups)

    def __repr__(self) -> str:
        return f"<Result of {len(self):,} keys from {self.counters.documents:,} documents>"

    @cached_property
    def _order(self) -> list[Identity]:
        groups = self._groups.groups
        if all(type(found) is str for found in groups):
            return sorted(groups)  # strings alone are their own sort keys
        return sorted(groups, key=lambda found: sort_key(self._groups.key(found)))

    def _value(self, found: Identity) -> Any:
        try:
            return self._job.finish(self._groups.key(found), self._groups.groups[found])
        except Exception as error:
            key = self._groups.key(found)
            raise ReduceError(
                f"reducing the group {key!r} failed: {type(error).__name__}: {error}. The other groups can still be "
                f"read.",
                key=key,
            ) from error
