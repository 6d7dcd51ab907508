"""Hybrid logical time: the stamps on versions.

A stamp is microseconds since 1970-01-01 UTC, as the wall clock has it, but
never twice and never backwards: after a step back of the wall clock, or two
writes in one microsecond, it counts on from the last stamp. It moves with the
stamps of replicas that are ahead, so that a version is not stamped earlier than
one it has seen.

Stamps are for display, time travel, retention and the last-write resolver.
Causality is in `vstore.clock`; a wrong clock can mislead a reader of stamps and
cannot lose a write. So a replica whose clock is far ahead is not followed: it
would drag every other clock into its future, and nothing leads back.

Pure: the wall time is an argument.
Source: Kulkarni, Demirbas, Madappa, Avva, Leone (2014), "Logical Physical
Clocks", OPODIS. Theirs has a wall part and a counter; with microseconds one
number serves for both.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from threading import Lock

MAX_AHEAD_US = 2 * 60 * 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class HybridClock:
    """Gives out stamps that rise, close to wall time. Any number of threads may share one."""

    __slots__ = ("_last_us", "_lock")

    def __init__(self) -> None:
        self._last_us = 0
        self._lock = Lock()

    def tick(self, now_us: int, floor_us: int = 0) -> int:
        """A new stamp, larger than `floor_us` and at least `now_us`.

        Larger too than every stamp this clock gave or observed before. The one
        exception are floors more than two minutes ahead of `now_us`: such a
        stamp follows its floor alone and leaves the clock where it was, so one
        document from a wrong clock does not move the stamps of all others.

        Args:
            now_us: wall time.
            floor_us: the largest stamp among the versions this one replaces.
        """
        with self._lock:
            stamp_us = max(now_us, self._last_us + 1)
            if floor_us < stamp_us:
                self._last_us = stamp_us
                return stamp_us
            if floor_us <= now_us + MAX_AHEAD_US:
                self._last_us = floor_us + 1
            return floor_us + 1

    def observe(self, stamp_us: int, now_us: int) -> bool:
        """Moves the clock up to a stamp from elsewhere; False when the stamp is too far ahead to follow.

        A stamp more than two minutes ahead of `now_us` is to be flagged. The
        version that has it is as good as any other and is to be accepted.
        """
        if stamp_us > now_us + MAX_AHEAD_US:
            return False
        with self._lock:
            self._last_us = max(self._last_us, stamp_us)
        return True


def moment_us(when: str | int | float | datetime) -> int:
    """A moment in microseconds since 1970-01-01 UTC.

    Args:
        when: ISO 8601 text ("2026-11-01T00:00:00Z", "2026-11-01" for its first
            moment; without a zone it is UTC), an aware datetime, an int of
            microseconds such as a version's stamp, or a float of seconds such
            as `time.time()`. A fraction finer than a microsecond is rounded for
            floats and cut off in text.

    Raises:
        ValueError: not ISO 8601; a datetime without a zone, whose author may
            have meant local time; NaN or an infinity.
        TypeError: none of these types. A date or a bool is not guessed at.
    """
    match when:
        case bool():
            pass
        case int():
            return when
        case float():
            if not math.isfinite(when):
                raise ValueError(f"{when!r} is not a moment: pass seconds since 1970-01-01 UTC as time.time() has them")
            return round(when * 1_000_000)
        case str():
            try:
                parsed = datetime.fromisoformat(when)
            except ValueError as error:
                raise ValueError(
                    f"{when!r} is not a moment ({error}): write it as 2026-11-01T00:00:00Z or 2026-11-01"
                ) from error
            return ((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
        case datetime():
            if when.utcoffset() is None:
                raise ValueError(
                    f"{when!r} has no time zone, so it is not one moment: use datetime.now(UTC), "
                    f"or .replace(tzinfo=UTC) or .astimezone() if you know which zone was meant"
                )
            return (when - _EPOCH) // _MICROSECOND
    raise TypeError(
        f"{when!r} is not a moment: pass ISO 8601 text, an aware datetime, "
        f"an int of microseconds or a float of seconds since 1970-01-01 UTC"
    )


def iso(stamp_us: int) -> str:
    """A stamp as ISO 8601 in UTC with six decimals, so that text order is time order.

    `moment_us` of it is the stamp again.

    Raises:
        ValueError: not within the years 1 to 9999.
    """
    try:
        moment = _EPOCH + timedelta(microseconds=stamp_us)
    except OverflowError as error:
        raise ValueError(f"stamp {stamp_us} is outside the years 1 to 9999") from error
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
