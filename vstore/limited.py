"""A resolver that is waited for only so long.

A thread cannot be stopped. So a call that takes too long is left alone in its own,
and until it has come back the resolver is asked nothing else: one that hangs costs
a process one thread, and whoever asks gets an error at once.
"""

from __future__ import annotations

import threading
from typing import Any

from vstore.errors import ResolverError
from vstore.resolvers import Resolver, Siblings, identity, needs_base

CALL_SECONDS = 5.0
"""How long a resolver may think about one document, where nobody says otherwise."""


class Busy(ResolverError):
    """The resolver was not asked: an earlier call has not come back."""


_abandoned: dict[str, tuple[threading.Thread, str]] = {}
"""By the identity of a resolver: its call that took too long, and for which key. One for the whole process."""

_lock = threading.Lock()


class Limited:
    """A resolver with a limit of time; known by the same `identity` as without."""

    def __init__(self, resolver: Resolver, seconds: float = CALL_SECONDS) -> None:
        self.name = identity(resolver)
        self.needs_base = needs_base(resolver)
        self._resolver = resolver
        self._seconds = seconds

    def __call__(self, conflict: Siblings, /) -> Any:
        """The resolver's answer.

        Raises:
            ResolverError: it took too long, or a call that did is not back yet.
        """
        with _lock:
            thread, key = _abandoned.get(self.name, (None, ""))
            if thread is not None and not thread.is_alive():
                del _abandoned[self.name]
                thread = None
        if thread is not None:
            raise Busy(
                f"resolver {self.name} was not asked about {conflict.key!r}. Nothing was written; its siblings are as "
                f"they were.",
                f"not asked: it is still busy with {key!r}, which takes longer than {self._seconds:g} s",
            )
        outcome: list[Any] = []
        failure: list[BaseException] = []

        def call() -> None:
            try:
                outcome.append(self._resolver(conflict))
            except BaseException as error:  # SystemExit too: it is contained like any other
                failure.append(error)

        thread = threading.Thread(target=call, name=f"resolver {self.name}", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if thread.is_alive():
            with _lock:
                _abandoned[self.name] = thread, conflict.key
            raise ResolverError(
                f"resolver {self.name} took longer than {self._seconds:g} s for {conflict.key!r}. Nothing was "
                f"written; its {len(conflict.siblings)} siblings are as they were.",
                f"took longer than {self._seconds:g} s",
            )
        if failure:
            reason = f"{type(failure[0]).__name__}: {failure[0]}"
            raise ResolverError(
                f"resolver {self.name} failed on {conflict.key!r}: {reason}. Nothing was written; its "
                f"{len(conflict.siblings)} siblings are as they were.",
                reason,
            ) from failure[0]
        return outcome[0]
