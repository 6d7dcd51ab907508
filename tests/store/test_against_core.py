"""The store on SQL against the pure rules: after every step both hold exactly the same.

The model is `vstore.document` on plain dicts, one `Entry` for each key, and counts
what a partition counts. Two stores write, delete, prune and send each other rows;
whatever the databases hold afterwards (versions in commit order, heads and their
states, counters, knowledge, events, the feed) is compared with it. So a shortcut
of the SQL side, such as reading just the heads of a key, cannot change an outcome.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import vstore
from vstore import ABSENT, Collection, PreconditionFailed, Store
from vstore.batch import Match, Put, Receive
from vstore.changes import Changes
from vstore.clock import Knowledge
from vstore.document import (
    Content,
    Context,
    Entry,
    Version,
    ancestors_of,
    context_of,
    receive,
    successor,
    winner_first,
)
from vstore.handle import place_of, seq_of
from vstore.partition import part_of
from vstore.plan import knowledge_of
from vstore.retention import prunable
from vstore.sql import statements as sql
from vstore.sql.rows import version_of
from vstore.sql.schema import LIVE, RIVAL, TOMBSTONE

PARTITIONS = 2
KEYS = ("a", "b", "c", "é\U0001f600 ")
EVERYTHING = 1 << 39

_names = itertools.count(1)


class ModelPartition:
    """What a partition counts and knows."""

    def __init__(self, actor: str) -> None:
        self.actor = actor
        self.ctr = 0
        self.seq = 0
        self.known = Knowledge()
        self.places: dict[tuple[str, str], int] = {}  # (key, rev): when it was committed
        self.events: list[tuple[str, str]] = []  # (key, kind)


class Model:
    """A replica of a collection in plain Python."""

    def __init__(self, actors: Sequence[str]) -> None:
        self.parts = [ModelPartition(actor) for actor in actors]
        self.entries: defaultdict[str, Entry] = defaultdict(Entry)

    def apply(self, part: int, works: Sequence[Put | Receive]) -> None:
        """What one transaction does."""
        here = self.parts[part]
        before = {key: dict(entry.heads) for key, entry in self.entries.items()}
        places = dict(here.places)
        grown: set[tuple[str, str]] = set()
        for work in works:
            if isinstance(work, Put):
                self._put(here, work)
                continue
            for key, rows in work.rows.items():
                versions = self.entries[key].versions
                stubs = {rev for rev, version in versions.items() if version.stub and (key, rev) in places}
                outcome = receive(self.entries[key], rows, here.known)
                filled = [version for version in outcome.grown if version.rev in stubs and not version.stub]
                for version in [*outcome.inserted, *filled]:  # a body that came later is news to readers of the feed
                    here.seq += 1
                    if (key, version.rev) in here.places:
                        here.events.append((key, "moved"))
                    here.places[key, version.rev] = here.seq
                grown |= {(key, version.rev) for version in outcome.grown}
            if work.knowledge is not None:
                here.known.join(work.knowledge)
        for key, heads in before.items():
            for rev in heads:
                if rev in self.entries[key].heads and (key, rev) in grown:
                    here.seq += 1
                    here.events.append((key, "grown"))

    def _put(self, here: ModelPartition, put: Put) -> None:
        entry = self.entries[put.key]
        assert put.stamp is not None
        version, new = successor(
            entry,
            context_of(put.key, entry.heads.values()) if put.context is None else put.context,
            put.content,
            actor=here.actor,
            n=here.ctr + 1,
            stamp=put.stamp,
            knowledge=lambda: here.known,
        )
        if new:
            here.ctr += 1
            here.seq += 1
            here.known.add(here.actor, here.ctr)
            here.places[put.key, version.rev] = here.seq

    def matches(self, key: str, match: Match) -> bool:
        """What `match=` promises, in the words of its documentation."""
        heads = self.entries[key].heads.values()
        live = [head.rev for head in heads if not head.deleted]
        if match is ABSENT:
            return not live
        if isinstance(match, Context):
            return all(head.rev in match.revs or match.seen.sees(head.dots) for head in heads)
        return live == [match] or (not live and match in self.entries[key].heads)

    def place(self, key: str, rev: str) -> int:
        """When a version was committed: an order that is the same in every run, unlike that of revs."""
        return self.parts[part_of(key, PARTITIONS)].places[key, rev]

    def revs(self, key: str) -> list[str]:
        """Every rev that the key has, oldest first."""
        return sorted(self.entries[key].versions, key=lambda rev: self.place(key, rev))

    def prune(self, keep_last: int) -> int:
        """How many versions a prune takes the body from."""
        count = 0
        for key, entry in self.entries.items():
            here = self.parts[part_of(key, PARTITIONS)]
            placed = {rev: version._replace(id=here.places[key, rev]) for rev, version in entry.versions.items()}
            for version in prunable(placed, set(entry.heads), keep_last, None):
                entry.versions[version.rev] = version.as_stub
                count += 1
        return count


class Side:
    """A store, a fresh collection in it, and its model."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.posts: Collection = store.create(f"c{next(_names)}", partitions=PARTITIONS)
        handle = store.handle(self.posts.name)
        assert handle is not None
        self.handle = handle
        rows = store.shards[0].database.read().rows(sql.PARTITIONS_OF, (handle.definitions[0].id,))
        self.model = Model([row[3] for row in rows])
        self.follower: dict[tuple[str, str], bool] = {}  # what a reader of the feed has heard of: (key, rev): deleted
        self.since: str | None = None

    def put(self, key: str, content: Content, context: Context | None, match: Match | None, stamp: int) -> None:
        """A put through the store, with the model's word on whether it may be."""
        work = Put(key, part_of(key, PARTITIONS), content, context, match, stamp)
        if match is not None and not self.model.matches(key, match):
            with pytest.raises(PreconditionFailed):
                self.write(work)
            return
        self.write(work)
        self.model.apply(work.part, [work])
        document = self.posts.read(key, on_conflict="winner", deleted=True)
        winner = winner_first(self.model.entries[key].heads.values())[0]
        assert (document.rev, document.deleted) == (winner.rev, winner.deleted)

    def write(self, work: Put) -> None:
        """A put of a given stamp, the way of those that a collection makes."""
        self.store.write(self.handle, [(self.store.shards[0], self.handle.definitions[0], work)])

    def apply(self, part: int, works: Sequence[Put | Receive]) -> None:
        """Works of one partition in one transaction."""
        self.store.shards[0].apply(self.handle.definitions[0], works)
        self.model.apply(part, works)

    def versions(self, part: int) -> list[tuple[str, Version]]:
        """Every row of a partition, in commit order."""
        partition = self.handle.definitions[0].base + part
        rows = (
            self.store.shards[0]
            .database.read()
            .rows(sql.VERSIONS_BY_ID, (place_of(partition, 0), place_of(partition, EVERYTHING), 100_000))
        )
        return [(key, version_of(lineage, body)) for key, body, *lineage in rows]

    def compare(self) -> None:
        """Every table against the model."""
        definition = self.handle.definitions[0]
        connection = self.store.shards[0].database.read()
        counters = connection.rows(sql.PARTITIONS_OF, (definition.id,))
        for part, model in enumerate(self.model.parts):
            partition, _collection, _part, actor, ctr, seq, _epoch, _status, _feed = counters[part]
            assert (actor, ctr, seq) == (model.actor, model.ctr, model.seq)
            assert knowledge_of(connection, partition, actor, ctr) == model.known
            expected = sorted(
                (place, key, self.model.entries[key].versions[rev]) for (key, rev), place in model.places.items()
            )
            assert [(seq_of(v.id), key, v._replace(id=0)) for key, v in self.versions(part)] == [
                (place, key, version._replace(id=0)) for place, key, version in expected
            ]
            events = connection.rows(
                sql.EVENTS_BY_ID, (place_of(partition, 0), place_of(partition, EVERYTHING), 100_000)
            )
            assert sorted((key, kind) for _id, key, kind in events) == sorted(model.events)
            places = [*model.places.values(), *(seq_of(row[0]) for row in events)]
            assert sorted(places) == list(range(1, model.seq + 1))  # none is empty, so readers know what they missed
        heads = {
            (key, self.model.place(key, rev)): _state(head, entry)
            for key, entry in self.model.entries.items()
            for rev, head in entry.heads.items()
        }
        stored = connection.rows(sql.ALL_HEADS, (definition.id, "", 100_000))
        assert {(key, seq_of(id_)): state for key, id_, state in stored} == heads

    def compare_reads(self) -> None:
        """What users see against the model."""
        live = {
            key: winner_first(head for head in entry.heads.values() if not head.deleted)
            for key, entry in self.model.entries.items()
            if any(not head.deleted for head in entry.heads.values())
        }
        shown = {key: int(heads[0].body or b"") for key, heads in live.items()}
        values = {key: {head.body for head in heads} for key, heads in live.items()}
        assert dict(self.posts.items(on_conflict="winner")) == shown
        assert list(self.posts.keys(start="")) == sorted(shown)
        assert set(self.posts) == shown.keys()
        assert len(self.posts) == len(shown)
        assert self.posts.get_many(KEYS, on_conflict="winner") == shown
        conflicted = {key for key, found in values.items() if len(found) > 1}
        assert {document.key for document in self.posts.conflicts()} == conflicted
        for key in KEYS:
            assert (key in self.posts) == (key in shown)

    def follow(self) -> None:
        """Reads on from where the feed was left: nothing that is a head now may have been missed."""
        feed: Changes = self.posts.changes(self.since)
        for change in feed:
            self.follower[change.key, change.rev] = change.deleted
        self.since = feed.since
        for key, entry in self.model.entries.items():
            for head in entry.heads.values():
                assert self.follower[key, head.rev] == head.deleted


def _state(head: Version, entry: Entry) -> int:
    if head.deleted:
        return TOMBSTONE
    return LIVE if sum(not other.deleted for other in entry.heads.values()) == 1 else RIVAL


class Machine(RuleBasedStateMachine):
    """Two stores and all that may happen to them."""

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__()
        self.sides = [Side(store) for store in stores]
        self.contexts: list[Context] = []
        self.stamps = itertools.count(1)
        self.dirty = set(self.sides)

    which = st.integers(0, 1)
    keys = st.sampled_from(KEYS)
    contents = st.none() | st.integers(0, 3)  # few values: the same edit is made in several places

    def _side(self, side: int) -> Side:
        self.dirty.add(self.sides[side])
        return self.sides[side]

    def _content(self, side: Side, value: int | None) -> Content:
        return Content(None) if value is None else side.posts.content(value)

    @rule(side=which, key=keys, value=contents)
    def put(self, side: int, key: str, value: int | None) -> None:
        """Supersedes all that is here."""
        here = self._side(side)
        here.put(key, self._content(here, value), None, None, next(self.stamps))

    @rule(side=which, key=keys, value=contents)
    def put_blind(self, side: int, key: str, value: int | None) -> None:
        """A writer who has seen nothing."""
        here = self._side(side)
        here.put(key, self._content(here, value), Context(key), None, next(self.stamps))

    @rule(side=which, key=keys, data=st.data())
    def read(self, side: int, key: str, data: st.DataObject) -> None:
        """Somebody takes the context of all heads, or of some, and may use it much later and elsewhere."""
        here = self.sides[side]
        heads = sorted(here.model.entries[key].heads.values(), key=lambda head: here.model.place(key, head.rev))
        if heads:
            some = data.draw(st.lists(st.sampled_from(heads), min_size=1, unique_by=lambda head: head.rev))
            whole = data.draw(st.booleans())
            self.contexts.append(context_of(key, heads if whole else some))

    @rule(side=which, value=contents, data=st.data())
    def put_with_context(self, side: int, value: int | None, data: st.DataObject) -> None:
        """With a context that may be old, of another store, or of one sibling only."""
        if self.contexts:
            here = self._side(side)
            context = data.draw(st.sampled_from(self.contexts))
            here.put(context.key, self._content(here, value), context, None, next(self.stamps))

    @rule(side=which, key=keys, value=contents, data=st.data())
    def put_if(self, side: int, key: str, value: int | None, data: st.DataObject) -> None:
        """Only if something holds, which mostly it does not."""
        here = self._side(side)
        choices: list[Match] = [ABSENT, Context(key), *here.model.revs(key)]
        choices += [context for context in self.contexts if context.key == key]
        here.put(key, self._content(here, value), None, data.draw(st.sampled_from(choices)), next(self.stamps))

    @rule(side=which, part=st.integers(0, PARTITIONS - 1), data=st.data())
    def batch(self, side: int, part: int, data: st.DataObject) -> None:
        """Several writes in one transaction, some to one key, some with a context from before the transaction."""
        here = self._side(side)
        keys = [key for key in KEYS if part_of(key, PARTITIONS) == part]
        works = []
        for _ in range(data.draw(st.integers(1, 4))):
            key = data.draw(st.sampled_from(keys))
            known = [None, Context(key), *(context for context in self.contexts if context.key == key)]
            content = self._content(here, data.draw(self.contents))
            works.append(Put(key, part, content, data.draw(st.sampled_from(known)), None, next(self.stamps)))
        here.apply(part, works)

    @rule(side=which, data=st.data())
    def transaction(self, side: int, data: st.DataObject) -> None:
        """Writes to any keys in a transaction, which one time in three is rolled back."""
        here = self._side(side)
        works = [
            Put(key, part_of(key, PARTITIONS), self._content(here, value), None, None, next(self.stamps))
            for key, value in data.draw(st.lists(st.tuples(self.keys, self.contents), max_size=4))
        ]
        fails = data.draw(st.sampled_from([True, False, False]))
        try:
            with here.store.transaction():
                for work in works:
                    here.write(work)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            return
        for work in works:
            here.model.apply(work.part, [work])

    @rule(side=which, key=keys, data=st.data())
    def receive_some(self, side: int, key: str, data: st.DataObject) -> None:
        """Some rows of a key from the other store: heads or old ones, in any order, perhaps twice or in two pages.

        Each comes with stubs of some of what it descends from. A stub never comes
        without a descendant that has its body, which is a rule of replication.
        """
        here, there = self._side(side), self.sides[1 - side]
        part = part_of(key, PARTITIONS)
        theirs = {version.rev: version for name, version in there.versions(part) if name == key}
        full = [version for version in theirs.values() if not version.stub]
        if full:
            chosen = data.draw(st.lists(st.sampled_from(full), min_size=1, max_size=3))
            above = set[str]().union(*(ancestors_of(row.rev, theirs) for row in chosen))
            past = [rev for rev in theirs if rev in above]
            if past:
                chosen += [theirs[rev].as_stub for rev in data.draw(st.lists(st.sampled_from(past), max_size=4))]
            rows = data.draw(st.permutations(chosen))
            cut = data.draw(st.integers(0, len(rows)))
            pages = [Receive(part, {key: page}) for page in (rows[:cut], rows[cut:]) if page]
            here.apply(part, pages)

    @rule(side=which, part=st.integers(0, PARTITIONS - 1))
    def receive_all(self, side: int, part: int) -> None:
        """A whole partition from the other store: every head with the stubs of its past, and what the source knows."""
        here, there = self._side(side), self.sides[1 - side]
        rows: defaultdict[str, list[Version]] = defaultdict(list)
        for key, version in there.versions(part):
            head = version.rev in there.model.entries[key].heads
            rows[key].append(version if head else version.as_stub)
        here.apply(part, [Receive(part, dict(rows), there.model.parts[part].known.copy())])

    @rule(side=which, keep_last=st.integers(1, 2))
    def prune(self, side: int, keep_last: int) -> None:
        """Retention, as at the end of a day."""
        here = self._side(side)
        assert here.posts.prune(keep_last=keep_last).pruned == here.model.prune(keep_last)

    @rule(side=which)
    def follow(self, side: int) -> None:
        """A reader of the feed looks what is new."""
        self.sides[side].follow()

    @invariant()
    def same(self) -> None:
        """Both stores hold and show what their models do."""
        for side in self.dirty:
            side.compare()
            side.compare_reads()
        self.dirty = set()

    def teardown(self) -> None:
        """The collections go, so that the next example begins with empty tables."""
        for side in self.sides:
            side.follow()
            side.store.drop(side.posts.name)


def run(urls: Sequence[str], examples: int, steps: int) -> None:
    """The machine over two stores of these URLs."""
    with vstore.open(urls[0], durability="relaxed") as one, vstore.open(urls[1], durability="relaxed") as other:
        run_state_machine_as_test(
            lambda: Machine([one, other]),  # type: ignore[arg-type]  # a factory does as well as a class
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                report_multiple_bugs=False,
                derandomize=True,  # a failure on one machine is a failure on every machine
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_sqlite_does_exactly_what_the_rules_say(fresh_url: Callable[[str], str]) -> None:
    """Three hundred random lives of two stores, compared after each of up to fifty steps."""
    run([fresh_url("sqlite"), fresh_url("sqlite")], examples=300, steps=50)


@pytest.mark.parametrize(
    "kind",
    [pytest.param("postgresql", marks=pytest.mark.postgres), pytest.param("mariadb", marks=pytest.mark.mariadb)],
)
def test_a_database_server_does_exactly_what_the_rules_say(fresh_url: Callable[[str], str], kind: str) -> None:
    """The same against a server, which exchanges rows with an SQLite file."""
    run([fresh_url(kind), fresh_url("sqlite")], examples=40, steps=30)
