"""Pauses double, up to a longest one."""

from __future__ import annotations

import pytest

from vstore.backoff import waited_seconds


@pytest.mark.parametrize(
    ("tries", "seconds"),
    [(0, 0), (1, 1), (2, 1 + 2), (4, 1 + 2 + 4 + 8), (5, 1 + 2 + 4 + 8 + 10), (1_000_005, 15 + 1_000_001 * 10)],
)
def test_each_pause_is_twice_the_one_before_up_to_the_longest(tries: int, seconds: float) -> None:
    """The first pause is a second, the longest ten."""
    assert waited_seconds(tries, 1, 10) == seconds


def test_who_does_not_wait_at_first_never_waits() -> None:
    """Twice nothing is nothing."""
    assert waited_seconds(7, 0, 10) == 0
