"""What a difference between two replicas means, case by case: which is damage, and which is only not there yet."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from replication.verdicts import Look, Verdict, of_ours, of_theirs
from vstore.clock import NOTHING, Clock, Dot, Knowledge
from vstore.document import Version

A1 = Version("1-a", (), False, (Dot("a", 1, 0),), NOTHING, 0)
A1_TWICE = A1._replace(dots=(Dot("a", 1, 0), Dot("b", 1, 0)))
A1_DELETED = A1._replace(deleted=True)
A2 = Version("2-a", ("1-a",), False, (Dot("a", 2, 1),), Clock({"a": 1}), 0)
B1 = Version("1-b", (), False, (Dot("b", 1, 0),), NOTHING, 0)


def look(*heads: Version, known: Mapping[str, int] | None = None, forgotten: Mapping[str, int] | None = None) -> Look:
    """One side that has these heads and nothing else, and knows events from the first up to these."""
    knowledge = Knowledge({actor: [(1, n)] for actor, n in (known or {}).items()})
    found = {head.rev: head for head in heads}
    return Look(found, found, knowledge, forgotten or {})


@pytest.mark.parametrize(
    ("version", "here", "there", "verdict"),
    [
        (A1, look(), look(A1), Verdict.MISSED),
        (A1, look(B1, known={"b": 1}), look(A1), Verdict.MISSED),
        (A1, look(known={"a": 1}), look(A1), Verdict.LOST),
        (A1, look(A2, known={"a": 2}), look(A1), Verdict.NOTHING),
        (A1, look(A1, known={"a": 1}), look(A1), Verdict.NOTHING),
        (A1_TWICE, look(A1, known={"a": 1}), look(A1_TWICE), Verdict.MISSED),
        (A1, look(A1_TWICE, known={"a": 1, "b": 1}), look(A1), Verdict.NOTHING),
        (A1_DELETED, look(known={"a": 1}, forgotten={"a": 1}), look(A1_DELETED, known={"a": 1}), Verdict.NOTHING),
        (A1, look(known={"a": 1}, forgotten={"a": 1}), look(A1), Verdict.NOTHING),
        (A1, look(known={"a": 2}, forgotten={"a": 2}), look(A1, known={"a": 2}), Verdict.LOST),
    ],
    ids=[
        "never heard of",
        "never heard of, beside another",
        "known, and nothing in its place",
        "replaced",
        "there",
        "there, without a name of it",
        "there, with another name of it",
        "a tombstone that was purged here",
        "purged here, and the source does not know",
        "live below what was purged here, as the source knows",
    ],
)
def test_a_head_of_the_source(version: Version, here: Look, there: Look, verdict: Verdict) -> None:
    """Each was there before the feed was pulled for the last time."""
    assert of_theirs(version, here, there, seen=True) is verdict


@pytest.mark.parametrize("here", [look(), look(A1, known={"a": 1})], ids=["never heard of", "less of it"])
def test_what_has_come_since_the_feed_was_pulled_is_not_missing_yet(here: Look) -> None:
    """It is on its way."""
    assert of_theirs(A1_TWICE, here, look(A1_TWICE), seen=False) is Verdict.NOTHING


@pytest.mark.parametrize(
    ("version", "here", "there", "verdict"),
    [
        (A1, look(A1, known={"a": 1}), look(), Verdict.NOTHING),
        (A1, look(A1, known={"a": 1}), look(A1, known={"a": 1}), Verdict.NOTHING),
        (A1, look(A1, known={"a": 1}), look(A2, known={"a": 2}), Verdict.NOTHING),
        (A1, look(A1, known={"a": 1}), look(known={"a": 1}), Verdict.LOST_THERE),
        (A1, look(A1, known={"a": 1}), look(known={"a": 2}, forgotten={"a": 2}), Verdict.FORGET),
        (A1, look(A1, known={"a": 2}), look(known={"a": 2}, forgotten={"a": 2}), Verdict.LOST_THERE),
        (A1_DELETED, look(A1_DELETED, known={"a": 2}), look(known={"a": 2}, forgotten={"a": 2}), Verdict.NOTHING),
        (
            A1_TWICE,
            look(A1_TWICE, known={"a": 1, "b": 1}),
            look(known={"a": 2}, forgotten={"a": 2}),
            Verdict.LOST_THERE,
        ),
    ],
    ids=[
        "the source never heard of it",
        "there as well",
        "replaced there",
        "known there, and nothing in its place",
        "purged there, and not known here",
        "live below what was purged there, as is known here",
        "a tombstone that was purged there",
        "purged there under one of its names only",
    ],
)
def test_a_head_that_only_the_target_has(version: Version, here: Look, there: Look, verdict: Verdict) -> None:
    """It was there before the source was looked at."""
    assert of_ours(version, here, there) is verdict
