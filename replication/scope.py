"""What of a source a target takes: all of it or what a filter wants, its heads alone or their history too.

Pure: no input or output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from replication.filters import Filter
from vstore.errors import ConfigurationError
from vstore.ranges import KeyRange

History = Literal["heads", "all"] | int
"""Heads with stubs of their ancestors; every version that the source still has; or those since a moment.

A moment is a hybrid timestamp in microseconds since 1970 UTC. What is older than it comes as a stub, heads excepted.
"""

_EVERY_KEY = KeyRange()


@dataclass(frozen=True)
class Scope:
    """One choice of filter and history. Links that differ in it have checkpoints of their own."""

    filter: Filter | None = None
    history: History = "heads"

    def __post_init__(self) -> None:
        moment = isinstance(self.history, int) and not isinstance(self.history, bool) and self.history >= 0
        if not moment and self.history not in ("heads", "all"):
            raise ConfigurationError(
                f"history={self.history!r} refused: use 'heads', 'all' or a moment in microseconds since 1970. Nothing "
                f"was moved."
            )

    @property
    def mode(self) -> str:
        """What tells this scope from others in the names of checkpoints; nothing for all heads."""
        words = [self.filter.identity] if self.filter is not None else []
        if self.history != "heads":
            words.append("all" if self.history == "all" else f"since{self.history}")
        return ".".join(words)

    @property
    def keeps_history(self) -> bool:
        """Whether superseded versions come with their bodies."""
        return self.history != "heads"

    @property
    def keys(self) -> KeyRange:
        """The range of keys it is about."""
        return _EVERY_KEY if self.filter is None else self.filter.keys

    def bares(self, stamp: int) -> bool:
        """Whether a version of that time comes without its body, unless it is a head."""
        return isinstance(self.history, int) and stamp < self.history


EVERYTHING = Scope()
