"""What must follow from a history of operations and the state at the end. Each gives its findings; none means good.

    lost            set-add: what was acknowledged is there, what failed is not, and nothing comes from nowhere
    resurrected     a document whose delete was acknowledged is not there
    forked          compare-and-set: no two took the place of the same version at one replica
    stale_reads     whoever reads at a replica sees what had been acknowledged there before it began

Jepsen's set and register tests with what is known of ours: elements are unique, a
document only ever gains elements, and a replica is one database, so what it
acknowledges is there for the next reader. Replicas among each other promise
nothing before they have synced.

Pure: no input or output.
Source: Kingsbury, Alvaro (2020), "Elle: Inferring Isolation Anomalies from Experimental Observations",
arXiv:2003.10554: why unique elements in growing lists tell so much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

from tests.replication.ring.records import Operation


def lost(operations: Iterable[Operation], final: Mapping[str, Set[str]]) -> list[str]:
    """Adds against the state at the end, a set of elements for each key. Deleted documents are left out of both."""
    tried: defaultdict[str, dict[str, Operation]] = defaultdict(dict)
    gone = set()
    for operation in operations:
        if operation.kind == "delete":
            gone |= {operation.key} if operation.outcome != "failed" else set()
        elif operation.kind != "purge":
            tried[operation.key][operation.element] = operation
    findings = []
    for key in sorted((tried.keys() | final.keys()) - gone):
        there = final.get(key, frozenset())
        for element, operation in tried[key].items():
            if operation.outcome == "ok" and element not in there:
                findings.append(f"lost: {element} of {key}, acknowledged to {operation.writer} as {operation.rev}")
            if operation.outcome == "failed" and element in there:
                findings.append(f"present: {element} of {key}, though {operation.writer} was told that it failed")
        findings += [f"from nowhere: {element} of {key}" for element in sorted(there - tried[key].keys())]
    return findings


def resurrected(operations: Iterable[Operation], final: Mapping[str, Set[str]]) -> list[str]:
    """Deletes of documents that nobody but the deleter writes."""
    return [
        f"back: {operation.key}, whose delete was acknowledged to {operation.writer} as {operation.rev}"
        for operation in operations
        if operation.kind == "delete" and operation.outcome == "ok" and operation.key in final
    ]


def forked(operations: Iterable[Operation]) -> list[str]:
    """Compare-and-sets of one key at one replica make one chain: what was replaced once is current no more."""
    successors: defaultdict[tuple[str, str, str], list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.kind == "cas" and operation.outcome == "ok":
            successors[operation.replica, operation.key, operation.before].append(operation)
    return [
        f"forked: {key} at {replica}, {before or 'absent'} was replaced {len(found)} times, "
        f"by {' and '.join(f'{each.rev} ({each.writer})' for each in found)}"
        for (replica, key, before), found in successors.items()
        if len(found) > 1
    ]


def stale_reads(operations: Iterable[Operation]) -> list[str]:
    """Every operation that reads before it writes, against what had been acknowledged at its replica when it began."""
    by_place: defaultdict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.kind in ("union", "cas"):
            by_place[operation.replica, operation.key].append(operation)
    return [finding for found in by_place.values() for finding in _stale(found)]


def _stale(operations: Sequence[Operation]) -> list[str]:
    findings = []
    acknowledged = sorted((each for each in operations if each.outcome == "ok"), key=lambda each: each.ended)
    due: set[str] = set()
    taken = 0
    for reader in sorted(operations, key=lambda each: each.began):
        while taken < len(acknowledged) and acknowledged[taken].ended < reader.began:
            due.add(acknowledged[taken].element)
            taken += 1
        if missing := due - reader.seen:
            findings.append(
                f"stale: {reader.writer} read {reader.key} at {reader.replica} for {reader.element} and did not see "
                f"{', '.join(sorted(missing)[:3])}, acknowledged there before"
            )
    return findings
