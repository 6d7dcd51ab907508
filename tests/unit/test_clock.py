"""Clocks and knowledge against plain sets of events: two state machines, and the laws of a join."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from vstore.clock import NOTHING, Clock, Dot, Knowledge

# The events of one key: what each actor wrote there, with holes where it wrote to other keys in between. Each `prev` is
# the actor's event before, as for a key whose writers see each other; `tests/simulation` has all the other cases.
NUMBERS = {"a": [1, 2, 3, 7, 8, 20], "b": [4, 5, 9, 11], "c": [6, 10]}
EVENTS = [Dot(actor, n, prev) for actor, numbers in NUMBERS.items() for prev, n in pairwise([0, *numbers])]

some_events = st.frozensets(st.sampled_from(EVENTS))
clocks = some_events.map(NOTHING.with_dots)


def events_of(clock: Clock) -> set[Dot]:
    return {event for event in EVENTS if event in clock}


class ClocksAreSets(RuleBasedStateMachine):
    """Clocks made in any way hold just the events of the set that is made the same way, and have one form for it."""

    made: Any = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[frozenset[Dot], Clock] = {}

    def keep(self, clock: Clock, events: frozenset[Dot]) -> tuple[Clock, frozenset[Dot]]:
        assert events_of(clock) == events
        known = self.forms.setdefault(events, clock)
        assert clock == known
        assert hash(clock) == hash(known)
        assert clock.to_json() == known.to_json()
        return clock, events

    @initialize(target=made)
    def nothing(self) -> tuple[Clock, frozenset[Dot]]:
        return self.keep(Clock(), frozenset())

    @rule(target=made, one=made, events=some_events)
    def with_dots(self, one: tuple[Clock, frozenset[Dot]], events: frozenset[Dot]) -> tuple[Clock, frozenset[Dot]]:
        return self.keep(one[0].with_dots(events), one[1] | events)

    @rule(target=made, one=made, other=made)
    def join(
        self, one: tuple[Clock, frozenset[Dot]], other: tuple[Clock, frozenset[Dot]]
    ) -> tuple[Clock, frozenset[Dot]]:
        return self.keep(one[0] | other[0], one[1] | other[1])

    @rule(target=made, one=made)
    def written_and_read(self, one: tuple[Clock, frozenset[Dot]]) -> tuple[Clock, frozenset[Dot]]:
        return self.keep(Clock.from_json(one[0].to_json()), one[1])

    @rule(one=made, other=made)
    def order(self, one: tuple[Clock, frozenset[Dot]], other: tuple[Clock, frozenset[Dot]]) -> None:
        assert (one[0] <= other[0]) == (one[1] <= other[1])
        assert (one[0] == other[0]) == (one[1] == other[1])

    @rule(one=made, events=some_events)
    def sees(self, one: tuple[Clock, frozenset[Dot]], events: frozenset[Dot]) -> None:
        assert one[0].sees(events) == (not one[1].isdisjoint(events))
        assert bool(one[0]) == bool(one[1])


class KnowledgeIsASet(RuleBasedStateMachine):
    """Two knowledges grow event by event and run by run, each beside a set of (actor, n)."""

    actors = st.sampled_from("ab")
    which = st.booleans()

    def __init__(self) -> None:
        super().__init__()
        self.known = [Knowledge(), Knowledge()]
        self.sets: list[set[tuple[str, int]]] = [set(), set()]

    @rule(which=which, actor=actors, n=st.integers(1, 24))
    def add(self, which: bool, actor: str, n: int) -> None:
        assert self.known[which].add(actor, n) == ((actor, n) not in self.sets[which])
        self.sets[which].add((actor, n))

    @rule(which=which, actor=actors, lo=st.integers(1, 24), length=st.integers(1, 8))
    def add_run(self, which: bool, actor: str, lo: int, length: int) -> None:
        run = {(actor, n) for n in range(lo, lo + length)}
        assert self.known[which].add(actor, lo, lo + length - 1) == (not run <= self.sets[which])
        self.sets[which] |= run

    @rule(which=which)
    def join(self, which: bool) -> None:
        assert self.known[which].join(self.known[not which]) == (not self.sets[not which] <= self.sets[which])
        self.sets[which] |= self.sets[not which]

    @rule(which=which, actor=actors, n=st.integers(1, 24))
    def a_copy_is_independent(self, which: bool, actor: str, n: int) -> None:
        twin = self.known[which].copy()
        assert twin == self.known[which]
        twin.add(actor, n)
        assert (Dot(actor, n) in self.known[which]) == ((actor, n) in self.sets[which])

    @invariant()
    def equal_the_sets(self) -> None:
        for known, events in zip(self.known, self.sets, strict=True):
            for actor in "ab":
                numbers = [n for n in range(1, 40) if (actor, n) in events]
                assert [n for n in range(1, 40) if Dot(actor, n) in known] == numbers
                assert known.highest(actor) == max(numbers, default=0)
                assert known.base(actor) == next(n for n in range(40) if (actor, n + 1) not in events)
            assert Knowledge({actor: [(n, n)] for actor, n in events if (actor, n - 1) not in events}) <= known
        assert (self.known[0] <= self.known[1]) == (self.sets[0] <= self.sets[1])
        assert (self.known[0] == self.known[1]) == (self.sets[0] == self.sets[1])

    @invariant()
    def runs_are_sorted_disjoint_and_not_adjacent(self) -> None:
        for known in self.known:
            for runs in known.runs.values():
                assert all(lo <= hi for lo, hi in runs)
                assert all(hi + 1 < lo for (_, hi), (lo, _) in pairwise(runs))


TestClocksAreSets = ClocksAreSets.TestCase
TestKnowledgeIsASet = KnowledgeIsASet.TestCase
TestClocksAreSets.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestKnowledgeIsASet.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


@given(clocks, clocks, clocks)
def test_join_is_idempotent_commutative_and_associative(a: Clock, b: Clock, c: Clock) -> None:
    assert a | a == a
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a | NOTHING == a == NOTHING | a


@given(clocks, clocks)
def test_join_is_the_least_clock_above_both(a: Clock, b: Clock) -> None:
    assert a <= a | b
    assert b <= a | b
    assert events_of(a | b) == events_of(a) | events_of(b)


@given(clocks, st.permutations(EVENTS))
def test_events_may_come_one_by_one_in_any_order(clock: Clock, order: list[Dot]) -> None:
    rebuilt = NOTHING
    for event in order:
        if event in clock:
            rebuilt = rebuilt.with_dots([event])

    assert rebuilt == clock
    assert rebuilt.to_json() == clock.to_json()


def test_an_event_ahead_of_the_vector_waits_in_the_cloud_until_the_one_before_it_is_there() -> None:
    """A reader sees the third write of a on this key, a7, and later the first two, a2 and a5."""
    a2, a5, a7 = Dot("a", 2, 0), Dot("a", 5, 2), Dot("a", 7, 5)

    ahead = NOTHING.with_dots([a2, a7])
    assert ahead.to_json() == [{"a": 2}, [["a", 7, 5]]]
    assert a5 not in ahead

    whole = ahead.with_dots([a5])
    assert whole.to_json() == [{"a": 7}, []]
    assert len(whole) == 1


def test_a_clock_is_not_changed_by_what_is_made_from_it() -> None:
    clock = NOTHING.with_dots([Dot("a", 1)])

    assert clock.with_dots([Dot("a", 2, 1)]) != clock
    assert clock | NOTHING.with_dots([Dot("b", 1)]) != clock
    assert clock.to_json() == [{"a": 1}, []]
    assert NOTHING.to_json() == [{}, []]


@given(clocks, some_events, st.dictionaries(st.sampled_from("abc"), st.integers(1, 25)))
def test_compaction_keeps_every_event_and_claims_neither_a_head_nor_what_is_not_known(
    clock: Clock, heads: frozenset[Dot], bases: dict[str, int]
) -> None:
    """It may add events: known at this replica, and heads of nothing here."""
    knowledge = Knowledge({actor: [(1, base)] for actor, base in bases.items()})

    compact = clock.compacted(knowledge, heads)

    claimed = events_of(compact) - events_of(clock)
    assert clock <= compact
    assert claimed.isdisjoint(heads)
    assert all(event in knowledge for event in claimed)
    assert len(compact) <= len(clock)
    assert compact.compacted(knowledge, heads) == compact


def test_compaction_empties_the_cloud_where_all_before_it_is_known_and_obsolete() -> None:
    """The writer saw a7 without a5. Here a5 is known and no head, so a version that claims it loses nothing."""
    clock = NOTHING.with_dots([Dot("a", 2, 0), Dot("a", 7, 5)])

    assert clock.compacted(Knowledge({"a": [(1, 7)]}), [Dot("a", 7, 5)]).to_json() == [{"a": 7}, []]
    assert clock.compacted(Knowledge({"a": [(1, 4), (6, 7)]}), []) == clock  # a5 may still come
    assert clock.compacted(Knowledge({"a": [(1, 7)]}), [Dot("a", 5, 2)]) == clock  # a5 is a sibling


def test_knowledge_of_a_full_feed_is_one_run_whatever_the_order() -> None:
    knowledge = Knowledge()
    for n in (3, 1, 5, 2, 4):
        knowledge.add("a", n)

    assert list(knowledge) == [("a", 1, 5)]
    assert knowledge.base("a") == knowledge.highest("a") == 5


def test_a_hole_in_knowledge_is_kept_open() -> None:
    """Event 3 was parked: it must not be taken for known when 4 comes."""
    knowledge = Knowledge({"a": [(1, 2)]})
    knowledge.add("a", 4)

    assert list(knowledge) == [("a", 1, 2), ("a", 4, 4)]
    assert Dot("a", 3) not in knowledge
    assert knowledge.base("a") == 2
    assert knowledge.highest("a") == 4
