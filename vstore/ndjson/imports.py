"""Lines into a collection, so that it can be killed at any moment, repeated, and resumed.

    line ─► number, key ─► done before? ─► batch ─► turn ─► in the store already? ─► shards

*Done before*: each shard keeps a checkpoint for the file, and writes it in the
transaction of the lines themselves. So after a crash each shard knows exactly
which lines it has, and a file that was imported to its end is recognised as a
whole. What the checkpoint is of is proven by a digest of all lines up to it: a
file that has grown goes on where it ended, another file of the same name starts
from its beginning.

*In the store already*, asked of every other line: a document that equals the live
one, or a version of the same time and content in the key's history, is unchanged.
Asked and answered in one *turn*: the shards' write transactions, begun before the
first look. Two imports at once take turns batch by batch, and what one has written
the other finds; of the same file, only one goes on.

A line that gives no time says only what is so now. So a key that comes twice with
different values, read again from its first line (from a pipe, or with `again`),
goes through the same values again: new versions, the same end.

Lines take effect in their order, and each supersedes what is there. History is
only appended: a version older than the newest of its key is refused, as `at()`
would show it at moments that had another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vstore.batch import Put, Receive
from vstore.collection import Collection
from vstore.document import Content
from vstore.errors import InvalidDocument, InvalidKey, StoreError, Unavailable
from vstore.handle import Handle
from vstore.hlc import iso
from vstore.ndjson.lines import Line, line_of
from vstore.ndjson.sources import LINE_BYTES, Source, Text
from vstore.scan import bodies_of
from vstore.shard import Definition, Shard
from vstore.sql import statements as sql
from vstore.sql.rows import version_of

BATCH_LINES = 1_000
BATCH_BYTES = 8 * 1024 * 1024
NAMED_LINES = 1_000
"""So many failed lines are kept by number; the rest are counted."""

_NAMING_BYTES = 64 * 1024
_NEVER_US = -(1 << 62)


@dataclass(slots=True)
class Imported:
    """What became of the lines of a file, as far as it was read. Blank lines count nowhere.

    `known` are those of the unchanged that an earlier import of the same file
    had done. `failed_lines` are numbers, the first 1,000; `stopped_at` the line
    that ended the import.
    """

    inserted: int = 0
    unchanged: int = 0
    failed: int = 0
    known: int = 0
    failed_lines: list[int] = field(default_factory=list)
    stopped_at: int | None = None
    last_line: int = 0


@dataclass(frozen=True, slots=True)
class _Mark:
    """A checkpoint: a line, the digest of everything up to its end, and what had not been imported by then."""

    line: int
    digest: str
    blank: int
    failed: int
    failed_lines: Sequence[int]

    @property
    def text(self) -> str:
        """As it is stored."""
        return json.dumps([self.line, self.digest, self.blank, self.failed, list(self.failed_lines)])


@dataclass(frozen=True, slots=True)
class _Item:
    """A line on its way into the store: known there by the shard's checkpoint, or with an error, or with a place."""

    number: int
    digest: Any
    blank: int
    line: Line | None = None
    content: Content | None = None
    place: tuple[Shard, Definition, int] | None = None
    error: StoreError | None = None


@dataclass(slots=True)
class _Outcome:
    """What became of a batch: the last line it is done with, the line that ends the import, the checkpoints written."""

    inserted: int = 0
    unchanged: int = 0
    known: int = 0
    mark: _Item | None = None
    refused: tuple[int, StoreError] | None = None
    stored: dict[Shard, str] = field(default_factory=dict)


class _Pruned:
    """In place of the content of a version that has lost it."""


_PRUNED = _Pruned()


@dataclass(slots=True)
class _State:
    """What is under a key at one point of a batch.

    `identity` is of the live value, None if there is none; several siblings are
    not `settled`. `then` has what was written at the times the batch asks for.
    """

    identity: bytes | None = None
    settled: bool = True
    newest_us: int = _NEVER_US
    then: dict[int, set[bytes | _Pruned | None]] = field(default_factory=dict)


def import_lines(
    collection: Collection,
    source: Source,
    *,
    key_field: str | None = None,
    strict: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    again: bool = False,
    on_failure: Callable[[int, StoreError], None] | None = None,
    progress: Callable[[Imported], None] | None = None,
) -> Imported:
    """Imports every line of a source that is not there yet.

    Args:
        key_field, strict: how a line is read; see `line_of`.
        on_error: after a line that cannot be imported, stop, or skip it and go on.
            The lines before it are imported in either case.
        again: read lines, too, that an earlier import of the file has done.
        on_failure: told the number of each such line, and why.
        progress: told how far it is, after each batch.

    Raises:
        CodecError: the file itself is damaged. Lines before are imported.
        Unavailable: a database failed, or somebody else imports the same file
            at the same time. The batch may be there in some shards; calling again
            goes on exactly where each of them is.

    Memory is that of a batch, 1,000 lines or 8 MiB. One transaction for each
    batch and shard, which other writers of these shards wait for.
    """
    importing = _Import(collection, source, key_field, strict, on_failure)
    return importing.run(stop=on_error == "stop", again=again, progress=progress)


class _Import:
    """The work of one call of `import_lines`."""

    def __init__(
        self,
        collection: Collection,
        source: Source,
        key_field: str | None,
        strict: bool,
        on_failure: Callable[[int, StoreError], None] | None,
    ) -> None:
        handle = collection.store.handle(collection.name, create=True)
        assert handle is not None
        self._handle: Handle = handle
        self._collection = collection
        self._source = source
        self._key_field = key_field
        self._strict = strict
        self._on_failure = on_failure
        self._done = Imported()
        self._name = self._checkpoint_name() if source.repeatable else None
        self._stored: dict[Shard, str | None] = {}  # the checkpoints as this import has last read or written them

    def run(self, *, stop: bool, again: bool, progress: Callable[[Imported], None] | None) -> Imported:
        reached, lines = self._resumed(again)
        done = self._done
        batch: list[_Item] = []
        size = blank = 0
        text = None
        if reached:
            blank = self._take_over(min(reached.values(), key=lambda mark: mark.line))
        behind = done.last_line
        for text in lines:
            if text.number <= behind:
                continue
            if not text.too_long and not text.text.strip():
                blank += 1
                continue
            item = self._item(text, blank, reached)
            batch.append(item)
            size += len(text.text)
            if len(batch) >= BATCH_LINES or size >= BATCH_BYTES or (stop and item.error is not None):
                self._write(batch, stop)
                if progress is not None:
                    progress(done)
                if done.stopped_at is not None:
                    return done
                batch, size = [], 0
        self._write(batch, stop)
        if done.stopped_at is None and text is not None and text.number > behind:
            done.last_line = text.number
            self._finish(self._mark(text.number, text.digest, blank))
        return done

    # --- what an earlier import has done -----------------------------------------------------------------------------

    def _checkpoint_name(self) -> str:
        """The same for a file that begins alike and is read alike, under whatever name and compression."""
        reading = json.dumps([self._key_field, self._strict]).encode()
        digest = hashlib.sha256(reading + b"\n" + self._source.beginning(_NAMING_BYTES))
        return f"import:{self._handle.uid}:{digest.hexdigest()}"

    def _resumed(self, again: bool) -> tuple[dict[Shard, _Mark], Iterator[Text]]:
        """The checkpoint of each shard if all have one of this very file, and the lines behind the first of them."""
        lines = self._source.lines()
        if self._name is None:
            return {}, lines
        self._stored = {run[0]: self._checkpoint(run[0]) for run in self._handle.runs()}
        if again:
            return {}, lines
        reached = {
            shard: _Mark(*json.loads(stored)) if stored is not None else _Mark(0, "", 0, 0, ())
            for shard, stored in self._stored.items()
        }
        expected = {mark.line: mark.digest for mark in reached.values() if mark.line}
        proven = {0}
        if expected:
            for text in lines:
                if text.number in expected and text.digest.hexdigest() == expected[text.number]:
                    proven.add(text.number)
                if text.number >= max(expected):
                    break
        valid = {shard: mark if mark.line in proven else _Mark(0, "", 0, 0, ()) for shard, mark in reached.items()}
        if expected and {mark.line for mark in valid.values()} != {max(expected)}:
            lines = self._source.lines()  # some shard is behind: from the beginning, and each takes what it lacks
        return valid, lines

    def _take_over(self, mark: _Mark) -> int:
        """Counts the lines up to a checkpoint as they were counted then; how many of them were blank."""
        self._done.last_line = mark.line
        self._done.unchanged = self._done.known = mark.line - mark.blank - mark.failed
        self._done.failed = mark.failed
        self._done.failed_lines = list(mark.failed_lines)
        return mark.blank

    def _mark(self, line: int, digest: Any, blank: int) -> _Mark:
        return _Mark(line, digest.hexdigest(), blank, self._done.failed, self._done.failed_lines)

    def _finish(self, mark: _Mark) -> None:
        """Tells shards that got nothing from the last batches, too, that they are through."""
        if self._name is not None:
            with self._turn({run[0]: set() for run in self._handle.runs()}):
                for shard, definition, _first, _end in self._handle.runs():
                    shard.apply(definition, [], {self._name: mark.text})

    def _checkpoint(self, shard: Shard) -> str | None:
        assert self._name is not None
        rows = shard.database.ask(sql.CHECKPOINT, (self._name,))
        return rows[0][0] if rows else None

    @contextlib.contextmanager
    def _turn(self, wanted: Mapping[Shard, set[int]]) -> Iterator[None]:
        """One transaction in each of these shards, begun before anything is read and committed at the end.

        Args:
            wanted: the counter rows of the partitions that may be written.

        Raises:
            Unavailable: somebody else has imported some of the same file meanwhile.
        """
        firsts = {shard: definition.base + first for shard, definition, first, _end in self._handle.runs()}
        with contextlib.ExitStack() as turn:
            for shard in sorted(wanted, key=lambda shard: shard.id):  # in one order: two imports cannot deadlock
                turn.enter_context(shard.transaction())
                # The first row whatever the batch writes: of two imports of one file, it stops the second at its look
                # at the checkpoint. SQLite lets only one in anyway.
                for chunk in sql.chunks(sorted({firsts[shard], *wanted[shard]})):
                    shard.database.ask(sql.LOCK_PARTITIONS(len(chunk)), chunk)
                if self._name is not None and self._checkpoint(shard) != self._stored[shard]:
                    raise Unavailable(
                        f"{self._source.name} is being imported by somebody else at the same time, who goes on. This "
                        f"import has ended after line {self._done.last_line:,}. Import it again when the other is "
                        f"done: what is there will not come twice."
                    )
            yield

    # --- lines and batches -------------------------------------------------------------------------------------------

    def _item(self, text: Text, blank: int, reached: dict[Shard, _Mark]) -> _Item:
        item = _Item(text.number, text.digest.copy(), blank)
        try:
            if text.too_long:
                raise InvalidDocument(f"it is longer than {LINE_BYTES:,} bytes. Is there one document on each line?")
            line = line_of(text.text, self._key_field, strict=self._strict)
            place = self._handle.place(line.key)
            mark = reached.get(place[0])
            if mark is not None and text.number <= mark.line:
                return item
            content = Content(None) if line.deleted else self._collection.content(line.value)
            return replace(item, line=line, content=content, place=place)
        except (InvalidDocument, InvalidKey) as error:
            return replace(item, error=error)

    def _write(self, batch: list[_Item], stop: bool) -> None:
        """Stores what of the batch is new, up to the line that ends the import; the mark goes with it."""
        wanted: dict[Shard, set[int]] = {}
        for item in batch:
            if item.place is not None:
                shard, definition, part = item.place
                wanted.setdefault(shard, set()).add(definition.base + part)
        with self._turn(wanted):
            outcome = self._judge_and_write(batch, stop)
        self._stored.update(outcome.stored)
        self._done.inserted += outcome.inserted
        self._done.unchanged += outcome.unchanged + outcome.known
        self._done.known += outcome.known
        if outcome.mark is not None:
            self._done.last_line = outcome.mark.number
        if outcome.refused is not None:
            self._fail(*outcome.refused)
            self._done.stopped_at = outcome.refused[0]

    def _judge_and_write(self, batch: list[_Item], stop: bool) -> _Outcome:
        """Inside the turn: decides on every line, and writes those that are new with the checkpoint."""
        states = self._states(batch)
        works: dict[Shard, list[tuple[Shard, Definition, Put | Receive]]] = {}
        outcome = _Outcome()
        for item in batch:
            error = item.error
            if item.line is None or item.content is None or item.place is None:
                outcome.known += error is None
            else:
                state = states[item.line.key]
                verdict = _judged(item.line, item.content.identity, state)
                if isinstance(verdict, InvalidDocument):
                    error = verdict
                elif verdict:
                    shard, definition, part = item.place
                    put = Put(item.line.key, part, item.content, stamp=item.line.stamp_us)
                    works.setdefault(shard, []).append((shard, definition, put))
                    _note(item.line, item.content.identity, state)
                    outcome.inserted += 1
                else:
                    outcome.unchanged += 1
            if error is not None and stop:
                outcome.refused = item.number, error  # counted after the mark, which is of the line before
                break
            if error is not None:
                self._fail(item.number, error)
            outcome.mark = item
        mark = outcome.mark
        for shard, group in works.items():
            assert mark is not None
            checkpoint = {}
            if self._name is not None:
                outcome.stored[shard] = checkpoint[self._name] = self._mark(mark.number, mark.digest, mark.blank).text
            self._collection.store.write(self._handle, group, checkpoint, outcomes=False)
        return outcome

    def _fail(self, number: int, error: StoreError) -> None:
        self._done.failed += 1
        if len(self._done.failed_lines) < NAMED_LINES:
            self._done.failed_lines.append(number)
        if self._on_failure is not None:
            self._on_failure(number, error)

    # --- what is there -----------------------------------------------------------------------------------------------

    def _states(self, batch: Iterable[_Item]) -> dict[str, _State]:
        """What the store has under each key of a batch, and at the times that the batch gives for it."""
        placed: dict[tuple[Shard, int], dict[str, set[int]]] = {}
        for item in batch:
            if item.line is not None and item.place is not None:
                stamps = placed.setdefault((item.place[0], item.place[1].id), {}).setdefault(item.line.key, set())
                if item.line.stamp_us is not None:
                    stamps.add(item.line.stamp_us)
        states: dict[str, _State] = {}
        for (shard, definition), keys in placed.items():
            states |= self._present(shard, definition, list(keys))
            # A version is younger than all it descends from, so only these can be there already.
            asked = {
                key: stamps
                for key, given in keys.items()
                if (stamps := {stamp for stamp in given if stamp <= states[key].newest_us})
            }
            if asked:
                self._add_past(shard, definition, asked, states)
        return states

    def _present(self, shard: Shard, definition: int, keys: list[str]) -> dict[str, _State]:
        states = {key: _State() for key in keys}
        for chunk in sql.chunks(keys):
            for key, body, *lineage in shard.database.ask(sql.HEADS_WITH_BODY(len(chunk)), [definition, *chunk]):
                head = version_of(lineage, body)
                state = states[key]
                state.newest_us = max(state.newest_us, head.stamp)
                if not head.deleted:
                    state.settled = state.identity is None
                    state.identity = self._identity(head.codec, head.body)
        return states

    def _add_past(self, shard: Shard, definition: int, asked: dict[str, set[int]], states: dict[str, _State]) -> None:
        low = min(min(stamps) for stamps in asked.values())
        high = max(max(stamps) for stamps in asked.values())
        for chunk in sql.chunks(list(asked)):
            with shard.database.snapshot() as connection:
                found = connection.rows(sql.STAMPED(len(chunk)), [definition, low, high, *chunk])
                rows = [row for row in found if row[1] in asked[row[0]]]
                bodies = bodies_of(connection, [row[5] for row in rows if not row[2] and not row[3]])
            for key, stamp, deleted, _stub, codec, id_ in rows:
                content: bytes | _Pruned | None = None
                if not deleted:
                    body = bodies.get(id_)
                    content = _PRUNED if body is None else self._identity(codec, body)
                states[key].then.setdefault(stamp, set()).add(content)

    def _identity(self, codec_name: str, body: bytes | None) -> bytes:
        codec = self._handle.codec_named(codec_name)
        assert body is not None
        return codec.identity(codec.decode(body))


def _judged(line: Line, identity: bytes | None, state: _State) -> bool | InvalidDocument:
    """Whether a line is news to its key; an error if it cannot be put where it belongs."""
    if line.stamp_us is None:
        return not (state.settled and state.identity == identity)
    if line.stamp_us > state.newest_us:
        return True
    then = state.then.get(line.stamp_us, set())
    if identity in then or _PRUNED in then:
        return False
    if line.stamp_us == state.newest_us:
        return True
    return InvalidDocument(
        f"its time is {iso(line.stamp_us)}, and {line.key!r} has a version of {iso(state.newest_us)} already. History "
        f"is only appended: sort the lines by time, or import them into a new collection."
    )


def _note(line: Line, identity: bytes | None, state: _State) -> None:
    """Makes the state what it will be when the line has been written."""
    state.identity, state.settled = identity, True
    if line.stamp_us is None:
        state.newest_us = max(state.newest_us, time.time_ns() // 1000)
    else:
        state.newest_us = line.stamp_us
        state.then.setdefault(line.stamp_us, set()).add(identity)
