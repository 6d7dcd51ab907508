"""The checkers find what they are for: each is shown a good history, and the same with one thing wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.replication.ring.checkers import forked, lost, resurrected, stale_reads
from tests.replication.ring.records import Journal, Operation, Outcome, operations


def added(element: str, outcome: Outcome = "ok", key: str = "set") -> Operation:
    return Operation("w1", "a", "add", key, element, outcome=outcome)


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    """Two adds were acknowledged; one of them is in the set."""
    history = [added("x"), added("y")]

    assert lost(history, {"set": {"x", "y"}}) == []
    assert lost(history, {"set": {"x"}}) == ["lost: y of set, acknowledged to w1 as "]
    assert len(lost(history, {})) == 2


def test_what_was_refused_must_not_be_there_and_what_is_unknown_may() -> None:
    """A writer that is told "nothing was written" relies on it."""
    history = [added("x", "failed"), added("y", "unknown")]

    assert lost(history, {}) == []
    assert lost(history, {"set": {"y"}}) == []
    assert lost(history, {"set": {"x"}}) == ["present: x of set, though w1 was told that it failed"]


def test_what_nobody_wrote_comes_from_nowhere() -> None:
    """An element of another document, say."""
    assert lost([added("x")], {"set": {"x", "z"}, "other": {"u"}}) == [
        "from nowhere: u of other",
        "from nowhere: z of set",
    ]


def test_a_deleted_document_that_is_back_is_found() -> None:
    """Its add is not missed; a delete of unknown outcome proves nothing."""
    gone = Operation("w1", "a", "delete", "k", "x", outcome="ok", rev="2-ff")
    history = [added("x", key="k"), gone, Operation("w1", "a", "purge", "", "", outcome="ok")]

    assert lost(history, {}) == []
    assert resurrected(history, {}) == []
    assert resurrected(history, {"k": {"x"}}) == ["back: k, whose delete was acknowledged to w1 as 2-ff"]
    assert resurrected([Operation("w1", "a", "delete", "k", "x")], {"k": {"x"}}) == []


def swapped(before: str, rev: str, replica: str = "a", outcome: Outcome = "ok", key: str = "k") -> Operation:
    return Operation("w1", replica, "cas", key, rev, outcome=outcome, before=before, rev=rev)


def test_two_successes_from_one_version_at_one_replica_are_a_fork() -> None:
    """The second compare-and-set was stale, and should have been refused. Creation counts too."""
    chain = [swapped("", "1-a"), swapped("1-a", "2-a"), swapped("2-a", "3-a")]

    assert forked(chain) == []
    assert forked([*chain, swapped("1-a", "2-b")]) == [
        "forked: k at a, 1-a was replaced 2 times, by 2-a (w1) and 2-b (w1)"
    ]
    assert forked([*chain, swapped("", "1-b")]) == [
        "forked: k at a, absent was replaced 2 times, by 1-a (w1) and 1-b (w1)"
    ]


def test_other_replicas_other_keys_and_refusals_are_no_fork() -> None:
    """Two replicas may each replace the same version: that is a conflict, and no error."""
    chain = [swapped("1-a", "2-a")]

    assert forked([*chain, swapped("1-a", "2-b", replica="b")]) == []
    assert forked([*chain, swapped("1-a", "2-b", key="l")]) == []
    assert forked([*chain, swapped("1-a", "2-b", outcome="failed"), swapped("1-a", "2-c", outcome="unknown")]) == []


def reader(element: str, began: float, ended: float, *seen: str, replica: str = "a") -> Operation:
    return Operation("w1", replica, "union", "k", element, began, ended, "ok", seen=frozenset(seen))


def test_a_read_that_misses_what_was_acknowledged_before_it_began_is_stale() -> None:
    """x was acknowledged at 2; whoever begins at 3 sees it, whoever begins at 1 may or may not."""
    x = reader("x", 0, 2)

    assert stale_reads([x, reader("y", 1, 4), reader("z", 3, 5, "x")]) == []
    assert stale_reads([x, reader("y", 3, 4)]) == [
        "stale: w1 read k at a for y and did not see x, acknowledged there before"
    ]
    assert stale_reads([x, reader("y", 3, 4, replica="b")]) == []


def test_a_journal_is_read_back_whole_up_to_the_kill(tmp_path: Path) -> None:
    """Three operations: acknowledged, refused, and one under way when the writer was killed in its last line."""
    path = tmp_path / "w1.jsonl"
    journal = Journal(path)
    about = {"writer": "w1", "replica": "a", "kind": "cas", "key": "k"}
    journal.begin(**about, element="x", before="1-a", seen=["u", "v"])
    journal.end("ok", "2-a")
    journal.begin(**about, element="y")
    journal.end("failed")
    journal.begin(**about, element="z")
    journal.close()
    with path.open("a") as file:
        file.write('{"outcome": "o')

    with path.open() as file:
        found = operations(file)

    assert [(each.element, each.outcome, each.rev) for each in found] == [
        ("x", "ok", "2-a"),
        ("y", "failed", ""),
        ("z", "unknown", ""),
    ]
    assert found[0].seen == {"u", "v"}
    assert found[0].began <= found[0].ended <= found[1].began
    assert found[2].ended == float("inf")


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_history_is_good(count: int) -> None:
    """As is one without reads."""
    history = [added("x")] * count

    assert lost(history, {"set": {"x"}} if count else {}) == []
    assert forked(history) == stale_reads(history) == resurrected(history, {"set": {"x"}}) == []
