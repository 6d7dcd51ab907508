"""What one partition replica does with one key: writes, receives, heads, ancestors, contexts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstore.clock import NOTHING, Clock, Dot, Knowledge
from vstore.document import (
    NOWHERE,
    Content,
    Context,
    Entry,
    Received,
    Version,
    ancestors_of,
    context_of,
    erase,
    heads_among,
    knows,
    lowest,
    quarantined,
    receive,
    successor,
    united,
    winner_first,
)
from vstore.errors import InvalidToken


@dataclass
class Place:
    """One replica of one key "k", as small as it gets."""

    actor: str
    entry: Entry = field(default_factory=Entry)
    knowledge: Knowledge = field(default_factory=Knowledge)
    n: int = 0

    def put(self, body: str | None, context: Context | None = None, kind: str = "") -> Version:
        """A write on top of what is here, or of the context; None deletes."""
        content = (
            Content(None, kind=kind) if body is None else Content(json.dumps(body).encode(), "json", body.encode())
        )
        version, new = successor(
            self.entry,
            self.context() if context is None else context,
            content,
            actor=self.actor,
            n=self.n + 1,
            stamp=1,
            knowledge=lambda: self.knowledge,
        )
        if new:
            self.n += 1
            self.knowledge.add(self.actor, self.n)
        return version

    def context(self, *revs: str) -> Context:
        """What a reader of all heads has seen, or of some."""
        return context_of("k", [head for rev, head in self.entry.heads.items() if rev in revs or not revs])

    def take(
        self, *rows: Version, forgotten: Mapping[str, int] = NOWHERE, stale: bool = False, history: bool = False
    ) -> Received:
        return receive(self.entry, rows, self.knowledge, forgotten=forgotten, stale=stale, history=history)

    @property
    def heads(self) -> set[str]:
        return set(self.entry.heads)

    @property
    def bodies(self) -> list[str | None]:
        """The bodies of the heads, winner first; None for tombstones."""
        return [None if head.body is None else head.body.decode() for head in winner_first(self.entry.heads.values())]


BLIND = Context("k")


# Writes


def test_a_write_replaces_what_its_writer_had_read() -> None:
    here = Place("a")
    first = here.put("1")

    second = here.put("2")

    assert here.heads == {second.rev}
    assert second.parents == (first.rev,)
    assert second.dots == (Dot("a", 2, 1),)
    assert first.dots[0] in second.clock


def test_a_blind_write_to_a_document_that_exists_becomes_a_sibling() -> None:
    """A client creates a document that another one has created already: neither is lost."""
    here = Place("a")
    one = here.put("1", BLIND)
    other = here.put("2", BLIND)

    assert here.heads == {one.rev, other.rev}
    assert other.parents == ()


def test_two_creations_of_the_same_body_are_two_versions() -> None:
    """Two clients each create "1" and mean two events: deleting one must not take the other along."""
    here = Place("a")
    one = here.put("1", BLIND)
    other = here.put("1", BLIND)
    here.put(None, here.context(one.rev))

    assert one.rev != other.rev
    assert other.rev in here.heads


def test_a_stale_write_becomes_a_sibling_of_what_it_has_not_seen() -> None:
    """Two clients read the same version; both write."""
    here = Place("a")
    here.put("1")
    read = here.context()
    first = here.put("2", read)

    late = here.put("3", read)

    assert here.heads == {first.rev, late.rev}


def test_a_write_on_top_of_all_siblings_settles_them() -> None:
    here = Place("a")
    here.put("1", BLIND)
    here.put("2", BLIND)

    merged = here.put("3")

    assert here.heads == {merged.rev}
    assert len(merged.parents) == 2


def test_a_write_on_top_of_one_sibling_leaves_the_other() -> None:
    here = Place("a")
    one = here.put("1", BLIND)
    other = here.put("2", BLIND)

    third = here.put("3", here.context(one.rev))

    assert here.heads == {third.rev, other.rev}


def test_a_context_is_valid_at_another_replica() -> None:
    """A client reads at one replica and writes at another, which has the version too."""
    here, there = Place("a"), Place("b")
    first = here.put("1")
    there.take(first)

    second = there.put("2", here.context())

    assert there.heads == {second.rev}


def test_a_context_replaces_a_version_that_arrives_later() -> None:
    """The replica written to has not got what the client had read elsewhere. When it comes, it is history."""
    here, there = Place("a"), Place("b")
    first = here.put("1")
    second = there.put("2", here.context())

    there.take(first)

    assert there.heads == {second.rev}
    assert there.entry.versions[first.rev].body == b"1"


def test_a_context_from_a_replica_with_gaps_does_not_claim_the_gaps() -> None:
    """A reader sees the third write of a, as a sibling; the second has not arrived there and must not be lost."""
    here, there = Place("a"), Place("b")
    here.put("1")
    read = here.context()
    second, third = here.put("2", read), here.put("3", read)
    there.take(third)

    merged = there.put("4")
    there.take(second)
    here.take(merged)

    assert there.heads == here.heads == {merged.rev, second.rev}


def test_a_repeated_write_changes_nothing() -> None:
    """The answer to a put got lost; the client sends the same again, even after others have gone on."""
    here = Place("a")
    here.put("1")
    read = here.context()
    second = here.put("2", read)

    assert here.put("2", read) == second
    third = here.put("3")
    assert here.put("2", read) == second
    assert here.heads == {third.rev}
    assert here.n == 3


def test_a_repeated_write_of_a_pruned_version_changes_nothing() -> None:
    here = Place("a")
    here.put("1")
    read = here.context()
    second = here.put("2", read)
    third = here.put("3")
    here.entry.versions[second.rev] = second.as_stub

    assert here.put("2", read).rev == second.rev
    assert here.heads == {third.rev}


def test_the_same_edit_at_two_replicas_is_one_version() -> None:
    """A client repeats a put at another replica, since the first did not answer; it had been written all the same."""
    here, there = Place("a"), Place("b")
    first = here.put("1")
    there.take(first)
    read = here.context()

    second, again = here.put("2", read), there.put("2", read)
    here.take(again)
    there.take(second)

    assert second.rev == again.rev
    assert here.heads == there.heads == {second.rev}
    assert here.entry.heads[second.rev].dots == (Dot("a", 2, 1), Dot("b", 1, 0))


def test_a_version_with_two_dots_is_replaced_by_one_who_saw_either() -> None:
    """The edit was made at a and at b. A client saw it at a only and wrote on; b has it under its own dot."""
    here, there = Place("a"), Place("b")
    there.take(here.put("1"))
    read = here.context()
    here.put("2", read)
    there.put("2", read)

    third = here.put("3")
    there.take(third)

    assert there.heads == {third.rev}


def test_the_same_edit_is_not_made_again_where_a_head_descends_from_it_by_name() -> None:
    """An edit was made elsewhere, and an edit of that; of the first only the name came here, as a parent.

    A client in doubt repeats the first edit here. It has been replaced, so it
    must not come back as a sibling (simulation, seed 768 of an early state).
    """
    here, there = Place("a"), Place("b")
    here.take(there.put("1"))
    read = there.context()
    second = there.put("2", read)
    third = there.put("3")
    here.take(third)

    again = here.put("2", read)

    assert again.rev == second.rev
    assert again.dots == ()  # nothing was written
    assert here.heads == {third.rev}
    assert here.n == 0


def test_a_stale_context_at_the_co_ordinator_compacts_to_a_vector() -> None:
    """Two rows of a came here out of order; what the writer saw is written as one number, since no head is between."""
    here, there = Place("a"), Place("b")
    here.put("1")
    read = here.context()
    second = here.put("2", read)
    third = here.put("3", read)
    fourth = here.put("4", here.context(second.rev))
    there.take(fourth, second, third)
    assert there.heads == {third.rev, fourth.rev}

    last = there.put("5")

    assert there.heads == {last.rev}
    assert last.clock.to_json() == [{"a": 4}, []]


# Deletes


def test_a_delete_is_a_version_like_any_other() -> None:
    here = Place("a")
    here.put("1")
    gone = here.put(None)

    assert here.heads == {gone.rev}
    assert gone.deleted
    assert gone.body is None


def test_an_edit_that_has_not_seen_the_delete_survives_it() -> None:
    """One client deletes while another edits: the edit stays, beside the tombstone, and is what readers see."""
    here = Place("a")
    here.put("1")
    read = here.context()
    gone = here.put(None, read)

    edit = here.put("2", read)

    assert here.heads == {gone.rev, edit.rev}
    assert here.bodies == ["2", None]


def test_the_next_write_absorbs_a_tombstone_beside_a_live_head() -> None:
    here = Place("a")
    here.put("1")
    read = here.context()
    gone = here.put(None, read)
    edit = here.put("2", read)

    last = here.put("3")

    assert here.heads == {last.rev}
    assert set(last.parents) == {gone.rev, edit.rev}
    assert last.parents[0] == edit.rev  # live before deleted


def test_a_deleted_document_is_not_brought_back_by_a_late_copy() -> None:
    here, there = Place("a"), Place("b")
    first = here.put("1")
    there.take(here.put(None))

    there.take(first)
    there.take(first)

    assert there.bodies == [None]


def test_a_document_created_again_after_a_delete_lives() -> None:
    here = Place("a")
    here.put("1")
    here.put(None)

    here.put("1")

    assert here.bodies == ["1"]


# Receives


def test_rows_may_come_in_any_order_and_more_than_once() -> None:
    here, one, other = Place("a"), Place("b"), Place("c")
    rows = [here.put("1"), here.put("2"), here.put("3", BLIND), here.put("4")]

    for row in rows:
        one.take(row)
    other.take(*reversed(rows), rows[1])

    assert one.entry.heads == other.entry.heads
    assert one.heads == {rows[3].rev}
    assert one.knowledge == other.knowledge
    assert not any(one.take(*rows))


def test_what_is_known_and_absent_is_not_taken_back() -> None:
    """The replica got "2", which replaced "1", and knows of "1" without ever having had it."""
    here, there = Place("a"), Place("b")
    first = here.put("1")
    there.take(here.put("2"))
    there.knowledge.add("a", 1)

    outcome = there.take(first)

    assert outcome.obsolete == [first]
    assert there.bodies == ["2"]


def test_a_known_row_that_nothing_here_supersedes_is_kept_and_told() -> None:
    """Its dot was used for another document by a clone of its actor, or the row was lost here: it is news."""
    here, there = Place("a"), Place("b")
    first = here.put("1")
    there.knowledge.add("a", 1)

    outcome = there.take(first)

    assert outcome.unexplained == [first]
    assert there.bodies == ["1"]
    assert not any(there.take(first))


def test_a_row_known_under_one_dot_makes_its_other_dots_known() -> None:
    there = Place("b")
    row = Version("2-x", ("1-x",), False, (Dot("a", 2), Dot("c", 5)), NOTHING, 1, "json", b"2")
    there.knowledge.add("a", 2)

    there.take(row)

    assert knows(there.knowledge, row._replace(dots=(Dot("c", 5),)))


def test_a_pruned_body_is_not_brought_back_by_a_late_row() -> None:
    here, there = Place("a"), Place("b")
    first = here.put("1")
    there.take(first, here.put("2"))
    there.entry.versions[first.rev] = first.as_stub

    assert there.take(first).obsolete == [first]
    assert there.entry.versions[first.rev].stub


def test_a_pruned_body_is_not_brought_back_under_another_dot() -> None:
    """The same edit was made at a and c. b had it from a and pruned it; then c's row comes, with a dot new to b.

    Found by the simulation (seed 499 of an early state).
    """
    here, there, third = Place("a"), Place("b"), Place("c")
    first = here.put("1")
    third.take(first)
    read = here.context()
    second, again = here.put("2", read), third.put("2", read)
    there.take(first, second, here.put("3"))
    there.entry.versions[second.rev] = second.as_stub

    outcome = there.take(again)

    assert outcome.obsolete == [again]
    assert there.entry.versions[second.rev].stub
    assert there.entry.versions[second.rev].dots == (Dot("a", 2, 1), Dot("c", 1, 0))


def test_a_stub_tells_of_descent_without_being_received() -> None:
    """b made an edit that a made too. From a comes an edit of an edit of it, which has seen it under a's dot only.

    The stub between links them; b then knows what it descends from, but not
    that it has received it.
    """
    here, there = Place("a"), Place("b")
    there.take(here.put("1"))
    read = here.context()
    second, own = here.put("2", read), there.put("2", read)
    third, fourth = here.put("3"), here.put("4")

    there.take(fourth)
    assert there.heads == {own.rev, fourth.rev}  # nothing here links them yet

    there.take(third.as_stub, fourth)
    assert second.rev == own.rev
    assert there.heads == {fourth.rev}
    assert third.dots[0] not in there.knowledge


def test_a_full_row_fills_a_stub_that_was_never_received() -> None:
    here, there = Place("a"), Place("b")
    first = here.put("1")
    second = here.put("2")
    there.take(second, first.as_stub)

    there.take(first)

    assert there.entry.versions[first.rev].body == b"1"
    assert there.heads == {second.rev}


def test_a_heads_clock_takes_up_what_is_learnt_of_its_ancestors() -> None:
    """b has an edit of the edit made at a; then comes the news that the first was made at c too."""
    here, there, third = Place("a"), Place("b"), Place("c")
    there.take(here.put("1"))
    third.take(here.entry.versions[next(iter(here.heads))])
    read = here.context()
    there.take(here.put("2", read))
    last = there.put("3")
    assert Dot("c", 1) not in last.clock

    there.take(third.put("2", read))

    assert Dot("c", 1) in there.entry.heads[last.rev].clock


def test_a_heads_clock_takes_up_aliases_of_an_ancestor_known_by_dot_only() -> None:
    """The versions between the head and its ancestor are lost with their file; the dot in the head's clock remains.

    Without it the two replicas would disagree for ever (simulation, seed 613 of
    an early state).
    """
    here, there, third = Place("a"), Place("b"), Place("c")
    there.take(here.put("1"))
    third.take(here.entry.versions[next(iter(here.heads))])
    read = here.context()
    second = here.put("2", read)
    there.take(second)
    here.put("lost")
    last = there.put("3", here.context())
    assert there.heads == {last.rev}
    again = third.put("2", read)

    there.take(again)
    third.take(there.entry.heads[last.rev])

    assert Dot("c", 1) in there.entry.heads[last.rev].clock
    assert third.heads == there.heads == {last.rev}


def cloned() -> tuple[Place, Place, Version, Version]:
    """A database file was copied, and both went on under one actor: two places, and what each wrote under one dot."""
    here = Place("a")
    here.put("1")
    copy = Place("a", Entry(dict(here.entry.heads), dict(here.entry.versions)), here.knowledge.copy(), here.n)
    return here, copy, here.put("2"), copy.put("3")


def test_a_dot_that_names_two_versions_names_neither_any_more() -> None:
    """Both stay as siblings under dots that every replica finds alike, and no context with the old dot ends one."""
    here, copy, mine, theirs = cloned()
    seen_mine = here.context()

    [collided] = here.take(theirs).collided

    assert collided[:2] == ("a", 2)
    assert here.heads == {mine.rev, theirs.rev}
    copy.take(mine)
    assert copy.entry.heads == here.entry.heads
    here.actor, here.n = "b", 0
    merged = here.put("4", seen_mine)
    assert here.heads == {merged.rev, theirs.rev}
    copy.take(merged)
    assert copy.heads == here.heads


def test_a_replica_that_never_met_the_rival_drops_the_dot_when_it_hears_of_it() -> None:
    here, copy, mine, theirs = cloned()
    third = Place("c")
    third.take(mine)
    here.take(theirs)

    third.take(here.entry.heads[mine.rev])

    assert third.entry.heads[mine.rev].dots == here.entry.heads[mine.rev].dots == (quarantined(mine.dots[0], mine.rev),)
    here.take(mine)
    assert here.entry.heads[mine.rev].dots == third.entry.heads[mine.rev].dots
    third.take(theirs, *here.entry.heads.values())
    copy.take(*third.entry.heads.values())
    assert third.entry.heads == here.entry.heads == copy.entry.heads


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_three_versions_under_one_dot_end_alike_in_any_order(order: tuple[int, ...]) -> None:
    _here, _copy, mine, theirs = cloned()
    rows = [mine, theirs, mine._replace(rev="2-third", body=b"5")]
    place, straight = Place("c"), Place("d")
    straight.take(*rows)

    for number in order:
        place.take(rows[number])

    assert place.entry.heads == straight.entry.heads
    assert len(place.heads) == 3


# Erasure and what was forgotten


def test_an_erasure_takes_the_bodies_of_what_it_has_seen_wherever_they_are_and_whenever_they_come() -> None:
    here, there = Place("a"), Place("b")
    first = here.put("1")
    there.take(first)
    second = here.put("2")
    tombstone = here.put(None, kind="erase")

    there.take(tombstone)
    there.take(second, history=True)

    assert there.heads == {tombstone.rev}
    assert all(version.body is None for version in there.entry.versions.values())
    assert [version.rev for version in erase(here.entry)] == [first.rev, second.rev]
    assert erase(here.entry) == []


def test_an_edit_that_an_erasure_had_not_seen_survives_it() -> None:
    here, there = Place("a"), Place("b")
    there.take(here.put("1"))
    edit = there.put("2")
    here.take(there.entry.versions[edit.rev])
    tombstone = there.put(None, kind="erase")
    later = here.put("3")

    there.take(later)

    assert there.heads == {tombstone.rev, later.rev}
    assert there.entry.versions[later.rev].body is not None


def test_what_was_purged_here_is_obsolete_unless_somebody_should_have_purged_it_too() -> None:
    """A stale replica's document stays away; that of a replica that knows of the purge can only mean damage here."""
    here, there = Place("a"), Place("b")
    first = here.put("1")
    there.take(first)
    tombstone = here.put(None)
    here.entry.heads.clear()
    here.entry.versions.clear()
    forgotten = {"a": 2}

    assert here.take(first, forgotten=forgotten, stale=True).obsolete == [first]
    assert here.take(tombstone, forgotten=forgotten).obsolete == [tombstone]
    assert not here.heads
    assert here.take(first, forgotten=forgotten).unexplained == [first]


def test_an_edit_of_a_forgotten_delete_is_kept_and_marked() -> None:
    here, there = Place("a"), Place("b")
    there.take(here.put("1"), here.put(None))
    edit = there.put("2")
    here.entry.heads.clear()
    here.entry.versions.clear()

    assert here.take(edit, forgotten={"a": 2}).revived == [edit]
    assert here.heads == {edit.rev}


def test_history_is_kept_when_it_is_asked_for_and_never_is_a_head() -> None:
    here, there = Place("a"), Place("b")
    first, second = here.put("1"), here.put("2")
    there.take(second)
    there.knowledge.join(here.knowledge)
    twin = Place("c")
    twin.take(first.as_stub, second)
    twin.knowledge.join(here.knowledge)

    there.take(first, history=True)
    twin.take(first, history=True)

    for place in (there, twin):
        assert place.heads == {second.rev}
        assert place.entry.versions[first.rev].body == b"1"


def test_two_copies_of_a_version_unite_to_all_that_either_tells() -> None:
    stub = Version("2-x", ("1-x",), False, (Dot("b", 1),), Clock({"a": 1}), 7, stub=True)
    full = Version("2-x", ("1-x", "1-y"), False, (Dot("a", 2),), Clock({"c": 1}), 8, "json", b"2")

    both = united(stub, full)

    assert both.dots == (Dot("a", 2), Dot("b", 1))
    assert both.clock == Clock({"a": 1, "c": 1})
    assert both.parents == ("1-x", "1-y")
    assert (both.stub, both.codec, both.body) == (False, "json", b"2")
    assert united(full, stub)._replace(stamp=7) == both._replace(parents=("1-x", "1-y"))


# Ancestors


def shared(here: Place, *versions: Version) -> list[str]:
    """The lowest of what versions have in common."""
    pasts = [{version.rev} | ancestors_of(version.rev, here.entry.versions) for version in versions]
    return lowest(set.intersection(*pasts), here.entry.versions)


def test_the_base_of_a_merge_is_the_lowest_common_ancestor() -> None:
    here = Place("a")
    here.put("0")
    base = here.put("1")
    read = here.context()
    one, other = here.put("2", read), here.put("3", read)

    assert shared(here, one, other) == [base.rev]
    assert ancestors_of(one.rev, here.entry.versions) == {base.rev, *base.parents}


def test_an_ancestor_of_the_other_is_its_own_base() -> None:
    here = Place("a")
    first, second = here.put("1"), here.put("2")

    assert shared(here, first, second) == [first.rev]


def test_a_criss_cross_has_two_bases() -> None:
    """Two siblings are merged twice, differently: both merges descend from both, and neither sibling is lower."""
    here = Place("a")
    here.put("1")
    read = here.context()
    here.put("2", read)
    here.put("3", read)
    both = here.context()
    one, other = here.put("4", both), here.put("5", both)

    assert shared(here, one, other) == sorted(both.revs)


def test_independent_creations_have_no_base_and_pruned_ancestors_are_known_by_name() -> None:
    here = Place("a")
    one, other = here.put("1", BLIND), here.put("2", BLIND)
    assert shared(here, one, other) == []

    base = here.put("3")
    read = here.context()
    one, other = here.put("4", read), here.put("5", read)
    del here.entry.versions[base.rev]
    assert shared(here, one, other) == [base.rev]


def test_heads_at_a_moment_of_the_past_are_those_nothing_of_that_time_replaced() -> None:
    here = Place("a")
    first = here.put("1")
    read = here.context()
    one, other = here.put("2", read), here.put("3", read)
    last = here.put("4")

    def heads(*versions: Version) -> list[str]:
        return [version.rev for version in heads_among({version.rev: version for version in versions})]

    assert heads() == []
    assert heads(first) == [first.rev]
    assert heads(first, one, other) == [version.rev for version in winner_first([one, other])]
    assert heads(first, one, other, last) == [last.rev]
    assert heads(one, last) == [last.rev]  # the versions between may have been pruned away


def test_the_winner_is_live_then_longest_then_highest_signature() -> None:
    def version(rev: str, deleted: bool = False) -> Version:
        return Version(rev, (), deleted, (), NOTHING, 0)

    order = winner_first(
        [version("9-f", True), version("2-f"), version("10-a"), version("10-b"), version("11-0", True)]
    )

    assert [each.rev for each in order] == ["10-b", "10-a", "2-f", "11-0", "9-f"]


# Contexts

REVS = st.from_regex(r"[1-9][0-9]{0,2}-[0-9a-f]{32}", fullmatch=True)
DOTS = st.builds(
    lambda actor, n, back: Dot(actor, n, max(0, n - back)), st.text(max_size=3), st.integers(1, 99), st.integers(1, 99)
)
CONTEXTS = st.builds(
    Context,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.lists(DOTS.filter(lambda dot: dot.actor.isprintable()), max_size=5).map(NOTHING.with_dots),
    st.lists(REVS, max_size=3).map(tuple),
)


@given(CONTEXTS)
def test_a_context_survives_being_text(context: Context) -> None:
    token = str(context)

    assert Context.parse(token) == context
    assert token.isascii()
    assert token.replace("-", "").replace("_", "").isalnum()  # fit for a URL and a header


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_garbage_is_no_context(text: str) -> None:
    with pytest.raises(InvalidToken):
        Context.parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)


@given(st.tuples(st.just(1) | JSON, st.just("k") | JSON, st.just([]) | JSON, st.tuples(JSON, JSON) | JSON))
def test_json_that_looks_like_a_context_is_one_or_is_refused(parts: tuple[object, ...]) -> None:
    """Whatever is accepted is what `str` would have written, so it cannot break a put later."""
    token = base64.urlsafe_b64encode(
        json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    )
    text = token.decode().rstrip("=")
    try:
        context = Context.parse(text)
    except InvalidToken:
        return
    assert str(context) == text
    assert all(type(n) is int for n in context.seen.vector.values())


@given(CONTEXTS, st.data())
def test_a_context_that_was_cut_short_or_altered_is_another_one_or_is_refused(
    context: Context, data: st.DataObject
) -> None:
    token = str(context)
    at = data.draw(st.integers(0, len(token) - 1))
    altered = data.draw(
        st.sampled_from([token[:at], token[:at] + data.draw(st.sampled_from("aZ9-_=! ")) + token[at + 1 :]])
    )
    try:
        other = Context.parse(altered)
    except InvalidToken:
        return
    assert str(other) == altered


@pytest.mark.parametrize(
    "parts",
    [
        [2, "k", [], [{}, []]],
        [1, 7, [], [{}, []]],
        [1, "k", ["no rev"], [{}, []]],
        [1, "k", [1], [{}, []]],
        [1, "k", "1-a", [{}, []]],
        [1, "k", [], [{"a": "1"}, []]],
        [1, "k", [], [{"a": 1.0}, []]],
        [1, "k", [], [{"a": True}, []]],
        [1, "k", [], [{"a": -1}, []]],
        [1, "k", [], [{"a": 1 << 70}, []]],
        [1, "k", [], [{}, [["a", 2, 0]]]],  # no cloud: it would have been folded
        [1, "k", [], [{}, [["a", 2]]]],
        [1, "k", []],
        {"form": 1},
    ],
)
def test_a_context_with_wrong_parts_is_refused(parts: object) -> None:
    token = base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")

    with pytest.raises(InvalidToken, match=r"is not a context\. Nothing was done"):
        Context.parse(token)


def test_a_context_nested_without_end_is_refused() -> None:
    token = base64.urlsafe_b64encode(b"[" * 100_000).decode().rstrip("=")

    with pytest.raises(InvalidToken):
        Context.parse(token)


def test_a_context_holds_tombstones_too_and_names_the_winner_first() -> None:
    here = Place("a")
    here.put("1")
    read = here.context()
    gone, edit = here.put(None, read), here.put("2", read)

    context = here.context()

    assert context.revs == (edit.rev, gone.rev)
    assert context.seen.sees(gone.dots)
    assert context.seen.sees(edit.dots)
