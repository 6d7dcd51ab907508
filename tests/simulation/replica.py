"""A partition replica without a database: how the pure rules are put to work.

`vstore.document` says what one key does with one row. This says the rest, in the
order in which the production code does it inside one transaction: which dot a put
mints, what a feed page holds, what may be skipped, and when knowledge is joined.

    source                                        target
    page(target) ──► rows it lacks, with stubs ──► apply(page)
                     of ancestors it cannot know    receive the rows
                     [at the feed's end: knowledge] then move the checkpoint
                                                    then join the knowledge

A replica is its database file: a backup of it is `copy()`, and a file that is
opened again without proof that it is the same one is `reopened`.

Pure: names, time and randomness come in as arguments. `Rules` exists to turn a
rule off and to see the simulation fail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from vstore import document
from vstore.clock import Knowledge
from vstore.document import Content, Context, Entry, Version


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of replication that are not in `vstore.document`. The defaults are the right ones.

    skip: a row stays at home when its rev, dots and clock are contained in what
        the target has; not when only "rev", or "rev and dots", are.
    join: knowledge is joined when the page reached the "end" of the feed; not
        at "any" page, and not when the page reached the position at which the
        "enumeration" had begun, since heads may have moved behind it.
    restamp_grown: a head whose dots or clock grew enters the feed again.
    one_incarnation: a page is refused by a target that was restored since.
    new_actor: a restored or copied file goes on under a new name.
    """

    skip: Literal["contained", "rev", "rev and dots"] = "contained"
    join: Literal["end", "any", "enumeration"] = "end"
    restamp_grown: bool = True
    one_incarnation: bool = True
    new_actor_after_restore: bool = True
    new_actor_in_copy: bool = True


class Page(NamedTuple):
    """Rows for one incarnation of one target, read in one transaction of the source.

    The rows are the news of the source's feed after `start` up to `end`. A page
    with `feed` "" holds single rows out of turn (read repair): it moves nothing.
    `knowledge` is the source's, if the page may hand it over.
    """

    target: str
    rows: dict[str, tuple[Version, ...]]
    feed: str = ""
    start: int = 0
    end: int = 0
    last: bool = False
    knowledge: Knowledge | None = None


class Replica:
    """One partition: entries, the counter of its actor, knowledge, the feed of heads, and checkpoints in others'."""

    forgotten: Mapping[str, int] = MappingProxyType({})  # the model purges nothing

    def __init__(self, actor: str, feed: str, rules: Rules) -> None:
        self.rules = rules
        self.actor = actor
        self.counter = 0
        self.entries: defaultdict[str, Entry] = defaultdict(Entry)
        self.knowledge = Knowledge()
        self.feed = feed
        self.seq = 0
        self.stamps: dict[tuple[str, str], int] = {}  # (key, rev) of each head: the seq at which it last changed
        self.checkpoints: dict[str, int] = {}
        self.enumerations: dict[str, tuple[int, Knowledge]] = {}  # for the rule join="enumeration" only

    def copy(self) -> Replica:
        """An independent copy of the file. To open it beside the original, `reopen` it."""
        twin = Replica(self.actor, self.feed, self.rules)
        twin.counter, twin.seq = self.counter, self.seq
        for key, entry in self.entries.items():
            twin.entries[key] = Entry(dict(entry.heads), dict(entry.versions))
        twin.knowledge = self.knowledge.copy()
        twin.stamps = dict(self.stamps)
        twin.checkpoints = dict(self.checkpoints)
        twin.enumerations = dict(self.enumerations)
        return twin

    def reopen(self, actor: str | None, feed: str) -> None:
        """The file is opened without proof of continuity: new feed and, as nobody may use a dot twice, new actor."""
        self.feed = feed
        if actor is not None:
            self.actor, self.counter = actor, 0

    def read(self, key: str, revs: Iterable[str] | None = None) -> Context:
        """What a reader has seen: all heads, or some of them only."""
        heads = self.entries[key].heads
        return document.context_of(key, [heads[rev] for rev in (heads if revs is None else revs)])

    def conflicted(self, key: str) -> bool:
        """Whether there are siblings to resolve."""
        return len(self.entries[key].heads) > 1

    def put(self, key: str, body: bytes | None, context: Context, stamp: int) -> tuple[Version, bool]:
        """A write by someone who had seen `context`; None deletes. Says whether the version is new here."""
        entry = self.entries[key]
        before = dict(entry.heads)
        version, new = document.successor(
            entry,
            context,
            Content(body, "json" if body is not None else "", body),
            actor=self.actor,
            n=self.counter + 1,
            stamp=stamp,
            knowledge=lambda: self.knowledge,
        )
        if new:
            self.counter += 1
            self.knowledge.add(self.actor, self.counter)
            self._restamp(key, before)
        return version, new

    def page(self, target: Replica, limit: int) -> Page:
        """The next rows of this feed for the target, at most `limit` heads.

        Knowledge may be handed over when the page ends where the feed ends:
        then the target will have all heads that exist now, hence whatever this
        replica knows is there, or obsolete there too. Not earlier, even if the
        page passes the position where the enumeration began: a head of that
        time may have moved behind it. The target would call it obsolete without
        having what replaced it, and if this replica is lost, for ever.
        """
        start = target.checkpoints.get(self.feed, 0)
        due = sorted((seq, key, rev) for (key, rev), seq in self.stamps.items() if seq > start)
        last = len(due) <= limit
        due = due[:limit]
        end = self.seq if last else due[-1][0]
        knowledge = self.knowledge.copy() if last or self.rules.join == "any" else None
        if self.rules.join == "enumeration":
            stated, known = target.enumerations.setdefault(self.feed, (self.seq, self.knowledge.copy()))
            knowledge = known if end >= stated else None
        rows = self._rows([(key, self.entries[key].heads[rev]) for _, key, rev in due], target)
        return Page(target.actor, rows, self.feed, start, end, last, knowledge)

    def heads_of(self, key: str, revs: Iterable[str], target: Replica) -> Page:
        """Some heads of one key, out of turn."""
        return Page(target.actor, self._rows([(key, self.entries[key].heads[rev]) for rev in revs], target))

    def accepts(self, page: Page) -> bool:
        """Whether the page was made for this incarnation: its stubs were chosen for what the file knew then."""
        return page.target == self.actor or not self.rules.one_incarnation

    def apply(self, page: Page) -> bool:
        """Rows, checkpoint and knowledge in one transaction; says whether anything was news.

        Late, repeated and out of turn pages do no harm. A page of a position
        that this replica has not reached (one before was lost) brings its rows,
        but neither checkpoint nor knowledge.
        """
        news = False
        for key, rows in page.rows.items():
            entry = self.entries[key]
            before = dict(entry.heads)
            received = document.receive(entry, rows, self.knowledge)
            news |= bool(received.inserted or received.grown)
            self._restamp(key, before)
        if page.feed and page.start <= self.checkpoints.get(page.feed, 0):
            if page.knowledge is not None:
                news |= self.knowledge.join(page.knowledge)
                self.enumerations.pop(page.feed, None)
            self.checkpoints[page.feed] = max(page.end, self.checkpoints.get(page.feed, 0))
        return news

    def prune(self, key: str, rev: str) -> None:
        """Drops the body of a superseded version; its ancestry stays as a stub."""
        entry = self.entries[key]
        entry.versions[rev] = entry.versions[rev].as_stub

    def _rows(self, heads: list[tuple[str, Version]], target: Replica) -> dict[str, tuple[Version, ...]]:
        """The heads that the target lacks, each with the stubs of its ancestors."""
        rows: dict[str, dict[str, Version]] = {}
        for key, head in heads:
            if not self._skipped(head, target.entries[key].versions.get(head.rev)):
                batch = rows.setdefault(key, {})
                batch.update(self._stubs(key, head, target.knowledge))
                batch[head.rev] = head
        return {key: tuple(batch.values()) for key, batch in rows.items()}

    def _skipped(self, head: Version, theirs: Version | None) -> bool:
        if theirs is None:
            return False
        if self.rules.skip == "rev":
            return True
        contained = set(head.dots) <= set(theirs.dots)
        return contained and (self.rules.skip == "rev and dots" or head.clock <= theirs.clock)

    def _stubs(self, key: str, head: Version, known: Knowledge) -> dict[str, Version]:
        """The ancestors that have a dot outside `known`, walking from the head until everything is covered."""
        versions = self.entries[key].versions
        stubs: dict[str, Version] = {}
        frontier = list(head.parents)
        while frontier:
            rev = frontier.pop()
            ancestor = versions.get(rev)
            if rev not in stubs and ancestor is not None and not all(dot in known for dot in ancestor.dots):
                stubs[rev] = ancestor.as_stub
                frontier.extend(ancestor.parents)
        return stubs

    def _restamp(self, key: str, before: dict[str, Version]) -> None:
        """Puts every head that is new, or whose dots or clock grew, at the end of the feed."""
        heads = self.entries[key].heads
        for rev in before:
            if rev not in heads:
                del self.stamps[key, rev]
        for rev, head in heads.items():
            earlier = before.get(rev)
            if earlier is None or (self.rules.restamp_grown and earlier is not head and earlier != head):
                self.seq += 1
                self.stamps[key, rev] = self.seq
