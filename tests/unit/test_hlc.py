"""Stamps rise whatever the wall clock does, and stay near it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstore.hlc import MAX_AHEAD_US, HybridClock, iso, moment_us

NOON = 1_793_534_400_000_000  # 2026-11-01T12:00:00Z


def test_a_stamp_is_wall_time_when_nothing_speaks_against_it() -> None:
    """The usual case: some time has passed between two writes."""
    clock = HybridClock()

    assert clock.tick(NOON) == NOON
    assert clock.tick(NOON + 50) == NOON + 50


def test_stamps_rise_when_the_wall_clock_stands_or_steps_back() -> None:
    """Two writes in one microsecond, then a correction of an hour."""
    clock = HybridClock()

    assert [clock.tick(NOON), clock.tick(NOON), clock.tick(NOON - 3_600_000_000)] == [NOON, NOON + 1, NOON + 2]


def test_a_stamp_is_larger_than_those_of_the_versions_it_replaces() -> None:
    """The replaced version came from a replica a second ahead; the clock follows it."""
    clock = HybridClock()

    assert clock.tick(NOON, floor_us=NOON + 1_000_000) == NOON + 1_000_001
    assert clock.tick(NOON) == NOON + 1_000_002


def test_one_document_from_a_wrong_clock_does_not_move_the_stamps_of_others() -> None:
    """Its version is stamped in 2099. An edit of it must come after it; an edit of another document is of today."""
    clock = HybridClock()
    far = NOON + 73 * 365 * 86_400_000_000

    assert clock.tick(NOON, floor_us=far) == far + 1
    assert clock.tick(NOON) == NOON


def test_a_foreign_stamp_moves_the_clock_up_to_two_minutes_ahead() -> None:
    """Two minutes are followed, a microsecond more is flagged."""
    clock = HybridClock()

    assert clock.observe(NOON + MAX_AHEAD_US, NOON) is True
    assert clock.tick(NOON) == NOON + 120_000_001
    assert clock.observe(NOON + MAX_AHEAD_US + 1, NOON) is False
    assert clock.tick(NOON) == NOON + 120_000_002


def test_an_old_foreign_stamp_does_not_move_the_clock_back() -> None:
    """Most rows of a first sync are old."""
    clock = HybridClock()
    clock.tick(NOON)

    assert clock.observe(NOON - 1_000_000, NOON) is True
    assert clock.tick(NOON) == NOON + 1


@given(st.lists(st.tuples(st.sampled_from(["tick", "observe"]), st.integers(0, 2**40), st.integers(0, 2**40))))
def test_no_order_of_events_makes_stamps_fall(events: list[tuple[str, int, int]]) -> None:
    """Random wall times, floors and foreign stamps, many of them hours apart."""
    clock, last = HybridClock(), 0

    for kind, now_us, other_us in events:
        near = other_us <= now_us + MAX_AHEAD_US
        if kind == "observe":
            assert clock.observe(other_us, now_us) is near
            last = max(last, other_us) if near else last
        else:
            stamp = clock.tick(now_us, other_us)
            assert stamp > other_us
            assert stamp >= now_us
            if near or stamp != other_us + 1:
                assert stamp > last
                last = stamp


def test_threads_never_get_the_same_stamp() -> None:
    """Eight threads, one frozen wall clock."""
    clock = HybridClock()

    with ThreadPoolExecutor(8) as pool:
        stamps = list(pool.map(lambda _: clock.tick(NOON), range(4_000)))

    assert sorted(stamps) == list(range(NOON, NOON + 4_000))


@pytest.mark.parametrize(
    "when",
    [
        NOON,
        1_793_534_400.0,
        "2026-11-01T12:00:00Z",
        "2026-11-01T12:00:00",
        "2026-11-01 12:00",
        "2026-11-01T14:00:00+02:00",
        "2026-11-01T12:00:00.000000Z",
        "20261101T120000Z",
        datetime(2026, 11, 1, 12, tzinfo=UTC),
        datetime(2026, 11, 1, 7, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_a_moment_may_be_written_in_many_ways(when: Any) -> None:
    """All of them noon UTC of the same day."""
    assert moment_us(when) == NOON


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("1970-01-01", 0),
        ("2026-11-01", NOON - 43_200_000_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-11-01T12:00:00.123456Z", NOON + 123_456),
        ("0001-01-01", -62_135_596_800_000_000),
        (0, 0),
        (0.0000015, 2),
        (-1.5, -1_500_000),
    ],
)
def test_moments_are_exact_to_the_microsecond(when: Any, expected: int) -> None:
    """Whole days, fractions, and both sides of 1970."""
    assert moment_us(when) == expected


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("yesterday", "write it as"),
        ("", "write it as"),
        ("2026-13-01", "write it as"),
        (datetime(2026, 11, 1, 12), "no time zone"),
        (float("nan"), "not a moment"),
        (float("inf"), "not a moment"),
    ],
)
def test_what_is_not_one_moment_is_refused(when: Any, reason: str) -> None:
    """A naive datetime is mostly local time that was meant as something else."""
    with pytest.raises(ValueError, match=reason):
        moment_us(when)


@pytest.mark.parametrize("when", [True, None, b"2026-11-01", date(2026, 11, 1)])
def test_other_types_are_not_guessed_at(when: Any) -> None:
    """True is an int to Python and no moment to anyone."""
    with pytest.raises(TypeError, match="is not a moment"):
        moment_us(when)


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_a_stamp_survives_its_text(stamp_us: int) -> None:
    """Every microsecond of the years 1 to 9999."""
    assert moment_us(iso(stamp_us)) == stamp_us


def test_the_text_of_stamps_sorts_by_time() -> None:
    """Always six decimals, always Z."""
    assert iso(NOON) == "2026-11-01T12:00:00.000000Z"
    assert iso(NOON + 5) == "2026-11-01T12:00:00.000005Z"
    assert iso(-1) == "1969-12-31T23:59:59.999999Z"


@pytest.mark.parametrize("stamp_us", [2**63, -(2**63), 253_402_300_800_000_000])
def test_a_stamp_outside_the_calendar_has_no_text(stamp_us: int) -> None:
    """Only a damaged or hostile row has one."""
    with pytest.raises(ValueError, match="outside the years 1 to 9999"):
        iso(stamp_us)
