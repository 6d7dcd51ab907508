"""What the simulation of the real code has found, each as a story small enough to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from replication import Filter
from replication.pull import Pulled, _Pull, pull, take
from vstore.clock import Clock, Dot, Knowledge
from vstore.document import ERASE, Context, Entry, Version, receive
from vstore.shard import Shard

from .follower import Follower
from .schedule import replaced
from .site import Site, apply, by_path
from .truth import Truth
from .world import World, blank_stores, installed

Make = Callable[[], Site]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes replicas of a collection with one partition, in a small world with an oracle."""
    files = blank_stores(1)
    with ExitStack() as stack:
        world = World(0)
        stack.callback(world.close)
        stack.enter_context(installed(world))
        stack.enter_context(replaced(Shard, "apply", apply))
        stack.callback(by_path.clear)
        truth = Truth(["deleted", "kept", "other"], 1)
        made: list[Site] = []

        def make() -> Site:
            made.append(Site(f"R{len(made) + 1}", world, truth, files[len(made)]))
            stack.callback(made[-1].destroy)
            return made[-1]

        yield make


def took(source: Site, target: Site, filter: Filter | None = None) -> Pulled:
    """A pull, and whatever the oracle has to say of it."""
    pulled = pull(source.handle, target.handle, filter=filter)
    for site in (source, target):
        site.raise_broken()
    return pulled


def known(site: Site) -> Knowledge:
    return site.state.knowledge[0]


def forget(site: Site) -> int:
    """Purges what is deleted, as if no other replica counted any more; how many documents."""
    site.world.time.pass_us(1_000_000)
    purged = site.docs.purge(grace_days=0, expire_days=0).purged
    site.raise_broken()
    return purged


def test_what_was_given_up_is_explained_even_if_the_pull_ends_there(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 72: R2 was away when R1 forgot a deletion. Its pull from R1 gives up the document, and dies.

    R2 must not claim to know a document that it has no more, before it knows that
    it was forgotten: R3, which has it still, would bring it back as something
    that was lost here. It comes back as something new, until R2 has heard R1 out.
    """
    one, two, three = make(), make(), make()
    one.docs["deleted"] = {"n": 1}
    took(one, two)
    took(one, three)
    one.docs.delete("deleted")
    assert forget(one) == 1
    one.docs["other"] = {"n": 2}

    def dying(work: _Pull, feed: object, *args: object) -> None:
        give_up(work, feed, *args)  # type: ignore[arg-type]
        work._batches.flush()
        raise KeyboardInterrupt

    give_up = _Pull._forget
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Pull, "_forget", dying)
        took(one, two)
    two.raise_broken()
    assert "deleted" not in two.docs

    pulled = took(three, two)
    assert (pulled.new, pulled.unexplained) == (1, 0)
    took(one, two)
    took(two, three)

    assert "deleted" not in two.docs
    assert "deleted" not in three.docs
    assert known(three) == known(two) == known(one)


def test_a_filtered_replica_gives_up_what_was_forgotten_and_claims_nothing_of_it(make: Make) -> None:
    """Seed 16: what it knows has gaps, so that it was forgotten cannot be noted; then it is known no more."""
    one, two = make(), make()
    wanted = Filter(prefix="deleted")
    one.docs["kept"] = {"n": 0}
    one.docs["deleted"] = {"n": 1}
    took(one, two, wanted)
    one.docs.delete("deleted")
    assert forget(one) == 1

    took(one, two, wanted)

    assert "deleted" not in two.docs
    assert two.state.entry("deleted").heads == {}


def test_knowledge_that_came_without_a_row_is_handed_on(make: Make) -> None:
    """Seed 563: R2 learns from R1 that what R1 did first is obsolete; nothing is written, so its feed does not move.

    R3 had taken all of R2's feed before. It must learn that too, or it would
    hold back every purge that needs those events until somebody writes.
    """
    one, two, three = make(), make(), make()
    one.docs["kept"] = {"n": 1}
    one.docs["kept"] = {"n": 2}
    take(one.handle, two.handle, ["kept"])
    took(two, three)
    seq = two.state.counters[0].seq
    took(one, two)
    assert (two.state.counters[0].seq, known(two)) == (seq, known(one))

    took(two, three)

    assert known(three) == known(two)


def test_a_repeated_creation_after_a_purge_is_a_new_document(make: Make) -> None:
    """Roots are salted with their dot: an old tombstone of an identical document does not kill the new one."""
    one, two = make(), make()
    one.docs["deleted"] = {"n": 1}
    took(one, two)
    one.docs.delete("deleted")
    took(one, two)
    took(two, one)
    assert forget(one) == 1

    one.docs.put("deleted", {"n": 1}, context=Context("deleted"))
    took(two, one)
    took(one, two)

    assert one.docs["deleted"] == two.docs["deleted"] == {"n": 1}


def test_an_edit_of_a_deleted_document_that_was_forgotten_elsewhere_is_kept(make: Make) -> None:
    """R2 edits what R1 has deleted and forgotten meanwhile: a concurrent edit, so the document lives."""
    one, two = make(), make()
    one.docs["deleted"] = {"n": 1}
    took(one, two)
    one.docs.delete("deleted")
    assert forget(one) == 1
    two.docs["deleted"] = {"n": 2}

    revived = took(two, one).revived
    took(one, two)

    assert revived == 1
    assert one.docs["deleted"] == two.docs["deleted"] == {"n": 2}


def test_readers_hear_of_a_sibling_that_is_given_up(make: Make) -> None:
    """R2 has two siblings; one of them was deleted and forgotten at R1. Whoever follows R2's feed has to look again."""
    one, two = make(), make()
    one.docs["deleted"] = {"n": 1}
    took(one, two)
    one.docs.delete("deleted")
    assert forget(one) == 1
    two.docs.put("deleted", {"n": 2}, context=Context("deleted"))
    reader = Follower("a reader of R2", full=False)
    reader.read(two.docs, two.state)

    took(one, two)

    assert two.docs["deleted"] == {"n": 2}
    assert reader.read(two.docs, two.state) == 1


def test_a_head_keeps_its_body_until_what_replaced_it_is_here() -> None:
    """Seed 833: a page ends with a stub of an erasure's tombstone, and what was written on top of that comes later."""
    first = Version("1-a", (), False, (Dot("a", 1),), Clock(), 1, "json", b"1")
    erasure = Version("2-b", ("1-a",), True, (Dot("a", 2, 1),), Clock({"a": 1}), 2, kind=ERASE)
    again = Version("3-c", ("2-b",), False, (Dot("a", 3, 2),), Clock({"a": 2}), 3, "json", b"3")
    entry, knowledge = Entry(), Knowledge()

    receive(entry, [first], knowledge)
    receive(entry, [erasure.as_stub], knowledge)
    assert entry.heads["1-a"].body == b"1"
    receive(entry, [again], knowledge)

    assert list(entry.heads) == ["3-c"]
    assert entry.versions["1-a"].body is None


def rotten(site: Site, key: str) -> Version:
    """Spoils the body of a document's head on the disk; the version as it was."""
    [head] = site.state.entry(key).heads.values()
    site.rot(key, head.id, b"!")
    return head


def test_what_a_parked_row_has_replaced_is_not_claimed_either(make: Make) -> None:
    """Seed 61012: R3 cannot take R2's rotten edit. R1 still has what was edited, and R3 must not refuse it as known."""
    one, two, three = make(), make(), make()
    one.docs["kept"] = {"n": 1}
    took(one, two)
    two.docs["kept"] = {"n": 2}
    rotten(two, "kept")
    took(two, three)
    assert three.mirror.parked()

    took(one, three)

    assert three.docs["kept"] == {"n": 1}


def test_what_a_first_comparison_has_parked_is_not_claimed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 61004: R1 and R2 meet with documents of their own, and one is rotten. Once it is mended it has to come."""
    monkeypatch.setattr("replication.pull.RECONCILE_ROWS", 0)
    one, two = make(), make()
    one.docs["kept"] = {"n": 1}
    two.docs["other"] = {"n": 2}
    head = rotten(one, "kept")
    assert took(one, two).parked == 1
    assert "kept" not in two.docs

    assert head.body is not None
    one.rot("kept", head.id, head.body)
    one.world.time.pass_us(10_000_000)
    took(one, two)

    assert two.docs["kept"] == {"n": 1}


def test_what_was_absorbed_under_a_dot_of_two_versions_is_back_once_they_have_met() -> None:
    """Seed 37 with ghosts: a2 was minted twice. What had seen the one comes first and takes the other for it."""
    first = Version("1-a", (), False, (Dot("a", 1),), Clock(), 1, "json", b"1")
    seen = Version("2-a", ("1-a",), False, (Dot("a", 2, 1),), Clock({"a": 1}), 2, "json", b"2")
    ghost = Version("2-b", ("1-a",), False, (Dot("a", 2, 1),), Clock({"a": 1}), 2, "json", b"3")
    above = Version("3-c", ("2-a",), False, (Dot("c", 1),), Clock({"a": 2}), 3, "json", b"4")
    entry, knowledge = Entry(), Knowledge()

    receive(entry, [first, ghost, above], knowledge)
    assert list(entry.heads) == ["3-c"]
    receive(entry, [seen.as_stub], knowledge)

    assert sorted(entry.heads) == ["2-b", "3-c"]


def test_what_was_absorbed_and_pruned_is_back_with_its_body() -> None:
    """Seed 600060: as above, but it was pruned before they met. A replica that kept the body brings it back."""
    first = Version("1-a", (), False, (Dot("a", 1),), Clock(), 1, "json", b"1")
    seen = Version("2-a", ("1-a",), False, (Dot("a", 2, 1),), Clock({"a": 1}), 2, "json", b"2")
    ghost = Version("2-b", ("1-a",), False, (Dot("a", 2, 1),), Clock({"a": 1}), 2, "json", b"3")
    above = Version("3-c", ("2-a",), False, (Dot("c", 1),), Clock({"a": 2}), 3, "json", b"4")
    entry, knowledge = Entry(), Knowledge()

    receive(entry, [first, ghost, above], knowledge)
    entry.versions["2-b"] = ghost.as_stub
    receive(entry, [seen.as_stub], knowledge)
    assert list(entry.heads) == ["3-c"]
    receive(entry, [ghost], knowledge)

    assert sorted(entry.heads) == ["2-b", "3-c"]
