"""With any rule turned off, the simulation fails: each rule is needed, and the simulation would notice its loss.

The rules are those of docs/consistency.md, and what the simulation has taught
since. A rule that is code in `vstore` is taken out of that code by monkeypatch;
the others are `Rules` of the test's replica.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from vstore import clock, document
from vstore.canonical import revision
from vstore.clock import Clock, Dot, Knowledge
from vstore.document import Context, Entry, Version, winner_first

from .oracle import Broken
from .replica import Replica, Rules
from .simulator import run

Patch = Callable[[pytest.MonkeyPatch], None]

RIGHT = Rules()
SEEDS = 1_500  # the rarest fault shows at every some hundredth seed

ancestry = document._ancestry
compacted = Clock.compacted
settle = document._settle


def plain_vectors(patch: pytest.MonkeyPatch) -> None:
    """A clock says "all events up to n" as soon as it has n."""

    def folded(vector: dict[str, int], cloud: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        for actor, n in cloud:
            vector[actor] = max(n, vector.get(actor, 0))
        return {}

    patch.setattr(clock, "_folded", folded)


def prev_always_0(patch: pytest.MonkeyPatch) -> None:
    """A dot does not tell which event of its actor came before it on this key."""
    patch.setattr(document, "Dot", lambda actor, n, prev: Dot(actor, n, 0))


def no_union(patch: pytest.MonkeyPatch) -> None:
    """A second copy of a version brings neither dots nor clock."""

    def united(stored: Version, row: Version) -> Version:
        filled = stored.stub and not row.stub
        return stored._replace(stub=False, codec=row.codec, body=row.body) if filled else stored

    patch.setattr(document, "united", united)


def no_closure(patch: pytest.MonkeyPatch) -> None:
    """A head's clock does not take up what is learnt of its ancestors later."""
    patch.setattr(document, "_ancestry", lambda version, versions: (ancestry(version, versions)[0], version.clock))


def no_closure_over_aliases(patch: pytest.MonkeyPatch) -> None:
    """It does, but not of ancestors that are known by dot only."""
    patch.setattr(document, "_with_aliases", lambda clock, version, versions: clock)


def no_rev_test(patch: pytest.MonkeyPatch) -> None:
    """A head is not superseded by descent, only by dots; nor is its clock closed, which would add those dots."""
    patch.setattr(document, "_ancestry", lambda version, versions: (set(), version.clock))


def known_rows_are_taken(patch: pytest.MonkeyPatch) -> None:
    """A row that is known and absent is stored all the same."""
    patch.setattr(document, "knows", lambda knowledge, row: False)


def heads_computed_anew(patch: pytest.MonkeyPatch) -> None:
    """After a receive the heads are derived from all versions, instead of from the heads before."""

    def settled(entry: Entry, candidates: dict[str, Version], touched: dict[str, Version]) -> None:
        settle(entry, candidates, touched)
        entry.heads = {version.rev: version for version in document.heads_among(entry.versions)}

    patch.setattr(document, "_settle", settled)


def compaction_without_knowledge(patch: pytest.MonkeyPatch) -> None:
    """A put compacts its clock as if the replica knew every event."""
    patch.setattr(Knowledge, "base", lambda knowledge, actor: 1 << 60)


def compaction_without_heads(patch: pytest.MonkeyPatch) -> None:
    """A put compacts its clock across versions that are still heads."""
    patch.setattr(Clock, "compacted", lambda clock, knowledge, heads: compacted(clock, knowledge, ()))


def salted_edits(patch: pytest.MonkeyPatch) -> None:
    """The same edit of the same parents is another version wherever it is made."""
    minted = iter(range(1 << 60))
    patch.setattr(
        document,
        "revision",
        lambda gen, deleted, parents, body, dot: revision(gen, deleted, parents, b"%d" % next(minted), dot),
    )


def unsalted_roots(patch: pytest.MonkeyPatch) -> None:
    """Two creations of the same body are one version."""
    patch.setattr(
        document,
        "revision",
        lambda gen, deleted, parents, body, dot: revision(gen, deleted, parents, body, ("", 0)),
    )


def nothing(patch: pytest.MonkeyPatch) -> None:
    """`vstore` stays as it is."""


@dataclass(frozen=True)
class Mutation:
    """A rule turned off, and the invariants of which one breaks first.

    `seed` is known to fail and so is tried first: the schedules before it need not be simulated in every run.
    """

    patch: Patch
    breaks: set[int]
    rules: Rules = RIGHT
    seed: int = 0


MUTATIONS = {
    "plain version vectors": Mutation(plain_vectors, {3, 5, 10, 12}),
    "prev always 0": Mutation(prev_always_0, {3, 5, 10, 12}),
    "no union of dots and clocks": Mutation(no_union, {1, 10}),
    "no closure": Mutation(no_closure, {1}, seed=91),
    "no closure over aliases": Mutation(no_closure_over_aliases, {1}, seed=387),
    "no closure, rows skipped by rev and dots": Mutation(no_closure, {1, 10}, Rules(skip="rev and dots"), seed=91),
    "rows skipped by rev": Mutation(nothing, {1, 10}, Rules(skip="rev")),
    "rows skipped by rev and dots": Mutation(nothing, {1, 10}, Rules(skip="rev and dots")),
    "no test by rev": Mutation(no_rev_test, {1, 2, 4}),
    "known but absent rows taken": Mutation(known_rows_are_taken, {6}),
    "compaction without knowledge": Mutation(compaction_without_knowledge, {2, 10}),
    "compaction without heads": Mutation(compaction_without_heads, {5, 10, 12}),
    "salted edits": Mutation(salted_edits, {8}),
    "unsalted roots": Mutation(unsalted_roots, {3}),
    "knowledge joined at any page": Mutation(nothing, {12}, Rules(join="any")),
    "knowledge joined at the position where the enumeration began": Mutation(nothing, {12}, Rules(join="enumeration")),
    "grown heads not in the feed": Mutation(nothing, {1}, Rules(restamp_grown=False)),
    "pages for an earlier incarnation taken": Mutation(nothing, {12}, Rules(one_incarnation=False), seed=34),
    "same actor after a restored backup": Mutation(nothing, {11, 12}, Rules(new_actor_after_restore=False)),
    "same actor in a copied file": Mutation(nothing, {11}, Rules(new_actor_in_copy=False)),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_without_the_rule_the_simulation_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own way to break: an invariant that breaks for another reason would prove nothing."""
    mutation = MUTATIONS[name]
    mutation.patch(monkeypatch)

    broken = first_failure(mutation)

    assert broken is not None, f"{SEEDS} schedules pass without the rule"
    assert broken.invariant in mutation.breaks, broken


def test_the_test_by_rev_alone_is_implied_by_closure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head has its row, so closure puts its dots into the clocks of its descendants: then dots tell the same.

    The test stays in the code, since it is what closure is derived from, and it
    costs nothing. Without both the simulation fails, see "no test by rev".
    """
    monkeypatch.setattr(document, "_ancestry", lambda version, versions: (set(), ancestry(version, versions)[1]))

    for seed in range(100):
        run(seed)


def first_failure(mutation: Mutation) -> Broken | None:
    """What the first seed that fails says."""
    for seed in (mutation.seed, *range(SEEDS)):
        try:
            run(seed, rules=mutation.rules)
        except Broken as broken:
            return broken
    return None


# The stories behind some of the rules, small enough to read


@pytest.mark.parametrize("size", [3, 5])
def test_resolvers_in_lock_step_agree_on_one_merge(size: int) -> None:
    """Each replica has a write of its own; all exchange what they have, then all resolve at once, again and again."""
    assert merge_rounds(size) == 1


@pytest.mark.parametrize("size", [3, 5])
def test_salted_merges_would_storm_for_ever(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every replica answers the others' merges with one more of its own."""
    salted_edits(monkeypatch)

    assert merge_rounds(size, limit=20) == 20


def merge_rounds(size: int, limit: int = 20) -> int:
    """After how many rounds of exchange and resolution no replica has siblings; at most `limit`."""
    replicas = [Replica(f"a{i}", f"feed{i}", RIGHT) for i in range(size)]
    for number, replica in enumerate(replicas):
        replica.put("key", b"%d" % number, Context("key"), stamp=0)
    for number in range(limit):
        pages = [(target, source.page(target, 100)) for source in replicas for target in replicas if target != source]
        for target, page in pages:
            target.apply(page)
        if not any(replica.conflicted("key") for replica in replicas):
            return number
        for replica in replicas:
            winner = winner_first(replica.entries["key"].heads.values())[0]
            replica.put("key", winner.body, replica.read("key"), stamp=0)
    return limit


@pytest.mark.parametrize("anew", [False, True])
def test_heads_computed_anew_would_bring_back_what_a_purge_left(anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge forgot a deleted document but for some history of it; then a row of the same key arrives.

    The simulation has no purge yet, and without one it makes no difference:
    whatever superseded a version stays, as a row or as a stub.
    """
    replica, peer = Replica("a", "feed a", RIGHT), Replica("b", "feed b", RIGHT)
    replica.put("key", b"1", Context("key"), stamp=0)
    old = replica.entries["key"].heads.copy()
    replica.put("key", None, replica.read("key"), stamp=0)
    replica.entries["key"] = Entry(heads={}, versions=old)
    peer.put("key", b"2", Context("key"), stamp=0)
    if anew:
        heads_computed_anew(monkeypatch)

    replica.apply(peer.page(replica, 100))

    assert (old.keys() <= replica.entries["key"].heads.keys()) == anew


def test_a_dot_that_a_restored_backup_uses_again_is_never_absorbed() -> None:
    """A peer has seen a2 as "lost"; the restored file kept its actor and mints a2 again, for another document.

    The peer has a2 already, and nothing that replaces the other document. So it
    keeps it, instead of taking it for something that was replaced long ago.
    """
    peer, replica = Replica("b", "feed b", RIGHT), Replica("a", "feed a", RIGHT)
    replica.put("key", b"1", Context("key"), stamp=0)
    backup = replica.copy()
    replica.put("lost", b"2", Context("lost"), stamp=0)
    peer.apply(replica.page(peer, 100))

    backup.reopen(None, "feed c")
    backup.put("new", b"3", Context("new"), stamp=0)
    peer.apply(backup.page(peer, 100))
    assert [head.body for head in peer.entries["new"].heads.values()] == [b"3"]

    backup.reopen("d", "feed d")
    backup.put("newer", b"4", Context("newer"), stamp=0)
    peer.apply(backup.page(peer, 100))
    assert peer.entries["newer"].heads  # what a new actor writes is news everywhere


def test_a_copied_file_that_kept_its_actor_is_found_out_where_both_wrote_one_key() -> None:
    """The original and its copy both write a2 under one key; a peer that gets both keeps both, under other dots."""
    original, peer = Replica("a", "feed a", RIGHT), Replica("b", "feed b", RIGHT)
    original.put("key", b"1", Context("key"), stamp=0)
    copy = original.copy()
    copy.reopen(None, "feed c")
    original.put("key", b"2", original.read("key"), stamp=0)
    copy.put("key", b"3", copy.read("key"), stamp=0)

    peer.apply(original.page(peer, 100))
    peer.apply(copy.page(peer, 100))
    original.apply(peer.page(original, 100))

    for replica in (peer, original):
        heads = replica.entries["key"].heads.values()
        assert sorted(head.body or b"" for head in heads) == [b"2", b"3"]
        assert all(dot.actor != "a" for head in heads for dot in head.dots)


@pytest.mark.parametrize("join", ["end", "enumeration"])
def test_a_version_that_is_known_and_was_never_given_is_taken_from_another_replica(
    join: Literal["end", "enumeration"],
) -> None:
    """A head moves behind the position that an enumeration is to reach, and its file is lost before it is fetched.

    The target has enumerated all positions that there were at the start, and
    joins the knowledge of then. So it claims to know "2", which was a head then,
    but was handed neither "2" nor "3" that replaced it. "3" is lost; "2" lives on
    at a third replica, and the target takes it from there: knowledge joined at
    the feed's end makes no such claim, and a claim with nothing to show for it is
    not believed.
    """
    rules = Rules(join=join)
    source, target, third = (Replica(name, f"feed {name}", rules) for name in "abc")
    for key, body in (("first", b"1"), ("moving", b"2"), ("last", b"4")):
        source.put(key, body, Context(key), stamp=0)
    third.apply(source.page(third, 100))
    target.apply(source.page(target, 1))

    source.put("moving", b"3", source.read("moving"), stamp=0)
    target.apply(source.page(target, 1))
    target.apply(third.page(target, 100))

    assert [head.body for head in target.entries["moving"].heads.values()] == [b"2"]
