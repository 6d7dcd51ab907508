"""The change feed: whoever reads it, from wherever, misses nothing and sees each partition's commits in order.

What was committed is read from the version rows themselves, and when each write
began and ended is noted by its writer. A token is good for its own feed only.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import pytest

import vstore
from tests.lives import LIVES
from vstore import Change, Collection, Context, InvalidToken, NotFound, PreconditionFailed, Store, changes
from vstore.batch import Receive
from vstore.changes import Changes, News
from vstore.clock import Clock as Seen
from vstore.handle import Handle, partition_of, seq_of
from vstore.history import version_at
from vstore.sql import statements as sql
from vstore.sql.database import Connection
from vstore.sql.rows import version_of

SEED = 20261123
WRITES = 20
"""How many writes each writer attempts."""

Place = tuple[int, int, str, str]
"""Part, seq, key and rev of a version."""
Wrote = tuple[str, int, int]
"""The value of an acknowledged write, and when it began and ended: nanoseconds of the machine's one clock."""


# --- what was committed ----------------------------------------------------------------------------------------------


def committed(store: Store, *, heads: bool = False) -> dict[Place, Any]:
    """Every version row of the one collection of a store, or those that are heads, in order; and its value."""
    found = {}
    for shard, definition in zip(store.shards, handle(store).definitions, strict=True):
        shown = {row[1] for row in shard.database.ask(sql.ALL_HEADS, (definition.id, "", 1_000_000))}
        for _collection, key, body, *lineage in shard.database.ask(sql.ROWS_BY_ID, (0, 1 << 62, 1_000_000)):
            version = version_of(lineage, body)
            if not heads or version.id in shown:
                part = partition_of(version.id) - definition.base
                value = None if version.deleted else json.loads(bytes(body))
                found[part, seq_of(version.id), key, version.rev] = value
    return dict(sorted(found.items()))


def handle(store: Store) -> Any:
    """The collection as services see it."""
    return store.handle("posts")


def place(change: Change) -> Place:
    """Where a change is in the feed."""
    return change.part, change.seq, change.key, change.rev


def positions(token: str) -> list[int]:
    """What a token says of each partition."""
    return list(json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))[3])


def assert_ordered(seen: Sequence[Change], since: Sequence[int]) -> None:
    """In each partition seq rises, and is never at or below what was handed out."""
    reached = dict(enumerate(since))
    for change in seen:
        assert change.seq > reached[change.part], f"{change} after {reached[change.part]}"
        reached[change.part] = change.seq


# --- the stress ------------------------------------------------------------------------------------------------------


def write(store: Store, name: str, seed: int) -> list[Wrote]:
    """Puts, stale puts, deletes, batches and transactions, half of them refused or rolled back, at random moments."""
    posts = store["posts"]
    chance = random.Random(seed)
    told: list[Wrote] = []
    for n in range(WRITES):
        threading.Event().wait(chance.uniform(0, 0.004))
        key, value = f"{chance.choice('xy')}/{chance.randrange(12)}", f"{name}.{n}"
        kind, values = chance.randrange(7), [value]
        began = time.monotonic_ns()
        if kind <= 1:
            posts[key] = value
        elif kind == 2:
            posts.put(key, value, context=Context(key))
        elif kind == 3:
            values = []
            with contextlib.suppress(NotFound):
                posts.delete(key)
        elif kind == 4:
            values = []
            with contextlib.suppress(PreconditionFailed):
                posts.put(key, "never", match="1-00000000000000000000000000000000")
        else:
            values = [f"{value} a", f"{value} b"] if kind == 5 else []
            with contextlib.suppress(ZeroDivisionError), store.transaction(shard=store.shard_of("posts", key)):
                for each in values or ["never", "never again"]:
                    posts[key] = each
                    threading.Event().wait(chance.uniform(0, 0.002))
                if not values:
                    raise ZeroDivisionError
        told += [(value, began, time.monotonic_ns()) for value in values]
    return told


def write_elsewhere(urls: Sequence[str], state: str, name: str, seed: int, told: Pipe) -> None:
    """Another process with two writers."""
    with vstore.open(*urls, state=state) as store:
        told.send(write_here(store, name, seed, 2))


def write_here(store: Store, name: str, seed: int, writers: int) -> list[Wrote]:
    """Some writers, each in a thread; what they wrote, when all are done."""
    told: list[list[Wrote]] = []
    threads = [
        threading.Thread(target=lambda n=n: told.append(write(store, f"{name}{n}", seed + n))) for n in range(writers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == writers, "a writer failed"
    return [wrote for each in told for wrote in each]


class Reader:
    """Somebody who reads the feed in a thread of his own."""

    def __init__(self, posts: Collection, done: threading.Event, full: bool, follow: bool, since: str | None) -> None:
        """Begins to read."""
        self.full, self.since = full, since
        self.seen: list[Change] = []
        self.token: str | None = since
        self.failed: Exception | None = None
        self._posts, self._done, self._follow = posts, done, follow
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def ended(self) -> Reader:
        """Waits for the end."""
        self._thread.join()
        if self.failed is not None:
            raise self.failed
        return self

    def _read(self) -> None:
        try:
            while True:
                last = self._done.is_set()  # before looking
                feed = self._posts.changes(
                    self.token, full=self.full, follow=self._follow, idle_seconds=0.1 if self._follow else None
                )
                for n, change in enumerate(feed):
                    self.seen.append(change)
                    if n == 30 and not self._follow:
                        break  # polls may be left half way
                else:
                    if last:
                        return
                self.token = feed.since
        except Exception as error:  # told to the test
            self.failed = error


@pytest.mark.parametrize(
    "kinds",
    [
        ["sqlite"],
        pytest.param(["postgresql"], marks=pytest.mark.postgres),
        pytest.param(["mariadb"], marks=pytest.mark.mariadb),
        pytest.param(["sqlite", "postgresql", "sqlite"], marks=pytest.mark.postgres),
    ],
    ids="+".join,
)
def test_readers_miss_nothing_of_eight_writers(
    kinds: list[str], fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads, twice, and two processes of two write and roll back; some poll or follow, some begin half way."""
    print(f"seed {SEED}")
    monkeypatch.setattr(changes, "PAGE_ROWS", 7)
    monkeypatch.setattr(changes, "POLL_SECONDS", 0.02)
    urls = [fresh_url(kind) for kind in kinds]
    with vstore.open(*urls) as store:
        posts = store.create("posts", partitions=4)
        done = threading.Event()
        pipes, processes = [], []
        for n in range(2):
            mine, theirs = LIVES.Pipe(duplex=False)
            arguments = urls, os.environ["VSTORE_STATE"], f"process{n}.", SEED + 10 * n, theirs
            process = LIVES.Process(target=write_elsewhere, args=arguments)
            process.start()
            theirs.close()
            pipes.append(mine)
            processes.append(process)
        forms = [(full, follow) for full in (True, False) for follow in (True, False)]
        readers = [Reader(posts, done, full, follow, None) for full, follow in forms]
        try:
            told = write_here(store, "thread", SEED + 100, 4)
            late = [Reader(posts, done, each.full, True, each.token) for each in readers if each.token]
            told += write_here(store, "again", SEED + 200, 4)
            told += [wrote for pipe in pipes for wrote in pipe.recv()]
        finally:
            done.set()
            for process in processes:
                process.join()
        readers = [reader.ended() for reader in readers + late]
        versions, heads = committed(store), committed(store, heads=True)
        values = {place(change): change.value for change in posts.changes(full=True, values=True)}

    assert values == versions
    stored = list(versions.values())
    assert "never" not in stored
    assert all(stored.count(value) == 1 for value, _began, _ended in told)
    assert len(told) > 6 * WRITES  # of 12 * WRITES attempts
    assert len(readers) > 4  # some began in the middle
    assert_commit_order(versions, told)
    for reader in readers:
        since = [0] * 4 if reader.since is None else positions(reader.since)
        assert_ordered(reader.seen, since)
        seen = [place(change) for change in reader.seen]
        wanted = [each for each in (versions if reader.full else heads) if each[1] > since[each[0]]]
        if reader.full:
            assert sorted(seen) == wanted
        else:
            assert set(wanted) <= set(seen)


def assert_commit_order(versions: dict[Place, Any], told: Sequence[Wrote]) -> None:
    """Whoever ended before another began is before it, in every partition."""
    when = {value: (began, ended) for value, began, ended in told}
    latest: dict[int, int] = defaultdict(int)  # for each part: the last beginning of those up to here
    for (part, *_), value in versions.items():
        if value in when:
            began, ended = when[value]
            assert ended > latest[part], f"{value} is behind one that began after its end"
            latest[part] = max(latest[part], began)


# --- what a feed shows -----------------------------------------------------------------------------------------------


def test_the_compacted_feed_shows_what_is_there_and_the_full_one_all_that_was(store: Store) -> None:
    """One partition: a changed, a deleted, a rivalled and a pruned document."""
    posts = store.create("posts", partitions=1)
    posts["changed"] = 1
    posts["deleted"] = 2
    posts["rivals"] = 3
    posts["changed"] = 4
    posts.put("rivals", 5, context=Context("rivals"))
    del posts["deleted"]

    compacted = [(change.key, change.seq, change.deleted, change.value) for change in posts.changes(values=True)]
    full = [(change.key, change.seq, change.deleted, change.value) for change in posts.changes(full=True, values=True)]

    assert compacted == [
        ("rivals", 3, False, 3),
        ("changed", 4, False, 4),
        ("rivals", 5, False, 5),
        ("deleted", 6, True, None),
    ]
    assert full == [
        ("changed", 1, False, 1),
        ("deleted", 2, False, 2),
        ("rivals", 3, False, 3),
        ("changed", 4, False, 4),
        ("rivals", 5, False, 5),
        ("deleted", 6, True, None),
    ]
    assert all(change.value is None for change in posts.changes())
    posts.prune(keep_last=1)
    assert [change.seq for change in posts.changes(full=True, values=True)] == [3, 4, 5, 6]


def test_a_rival_that_falls_without_a_new_head_is_in_the_feed(store: Store) -> None:
    """A sync teaches one of two heads that its writer had seen the other: the winner is another, and no version is new.

    Who keeps what the feed told would show the old winner for ever.
    """
    posts = store.create("posts", partitions=2)
    posts.put_many({"a": "alone", "k": "first"})
    posts.put("k", "second", context=Context("k"))
    winner, loser = posts.read("k", on_conflict="winner").siblings
    token = posts.snapshot().since
    handle = store.handle("posts")
    assert handle is not None
    shard, definition, part = handle.place("k")
    heads = {each.rev: each for each in (version_at(handle, "k", rev) for rev in (winner.rev, loser.rev))}
    [(actor, n, _prev)] = heads[winner.rev].dots
    taught = heads[loser.rev]._replace(clock=Seen({actor: n}))

    store.write(handle, [(shard, definition, Receive(part, {"k": [taught]}))])

    assert posts["k"] == loser.value
    [change] = posts.changes(token, values=True)
    assert (change.key, change.rev, change.value, change.part) == ("k", loser.rev, loser.value, part)
    assert {each.key for each in posts.changes()} == {"a", "k"}
    after = posts.changes(token)
    assert [each.rev for each in after] == [loser.rev]
    assert list(posts.changes(after.since)) == []
    posts["k"] = "later"
    assert [(each.key, each.value) for each in posts.changes(token, values=True)] == [("k", "later")]


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("prefix", ["", "x/"])
def test_a_feed_left_anywhere_goes_on_from_its_token(
    full: bool, prefix: str, fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two shards, pages of three rows: after each number of changes the rest is asked for by the token."""
    monkeypatch.setattr(changes, "PAGE_ROWS", 3)
    with vstore.open(fresh_url("sqlite"), fresh_url("sqlite")) as store:
        posts = store.create("posts", partitions=4).prefixed(prefix)
        for value in range(3):
            store["posts"].put_many({f"{letter}/{n}": value for letter in "xy" for n in range(8)})
        whole = list(posts.changes(full=full, values=True))
        assert len(whole) == (3 if full else 1) * (8 if prefix else 16)

        for taken in range(len(whole) + 1):
            feed = posts.changes(full=full, values=True)
            first = [next(feed) for _ in range(taken)]

            assert first + list(posts.changes(feed.since, full=full, values=True)) == whole
        assert list(posts.changes(feed.since, full=full)) == []
        store["posts"].put_many({"x/8": 9, "y/8": 9})
        keys = [change.key for change in posts.changes(feed.since, full=full)]
        assert sorted(keys) == (["8"] if prefix else ["x/8", "y/8"])


# --- following -------------------------------------------------------------------------------------------------------


class Queries:
    """Counts the queries that each thread sends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on."""
        self.of: dict[int, int] = defaultdict(int)
        ask = Connection.rows

        def rows(connection: Connection, *arguments: Any) -> list[Any]:
            self.of[threading.get_ident()] += 1
            return ask(connection, *arguments)

        monkeypatch.setattr(Connection, "rows", rows)


def test_a_commit_of_the_same_process_wakes_a_follower_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls are an hour apart. A put, a batch, a transaction and a delete arrive all the same, and nothing is asked."""
    monkeypatch.setattr(changes, "POLL_SECONDS", 3600.0)
    posts = store.create("posts", partitions=1)
    waiting, arrived = threading.Semaphore(0), threading.Semaphore(0)
    wait = News.wait

    def announced(news: News, number: int, seconds: float) -> None:
        waiting.release()
        wait(news, number, seconds)

    monkeypatch.setattr(News, "wait", announced)
    queries = Queries(monkeypatch)
    seen: list[Change] = []
    asked: list[int] = []

    def follow() -> None:
        for change in posts.changes(follow=True):
            seen.append(change)
            asked.append(queries.of[threading.get_ident()])
            arrived.release()
            if change.deleted:
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()

    def transaction() -> None:
        with store.transaction():
            posts["c"] = 1

    for act in (lambda: posts.put("a", 1), lambda: posts.put_many({"b": 1}), transaction, lambda: posts.delete("a")):
        assert waiting.acquire(timeout=5)
        act()
        assert arrived.acquire(timeout=5), "not woken"
    follower.join(5)

    assert [(change.key, change.deleted) for change in seen] == [("a", False), ("b", False), ("c", False), ("a", True)]
    # For each commit: one query that looks, two that read, one that looks again before the next wait.
    assert [count - asked[0] for count in asked] == [0, 4, 8, 12]


def test_a_commit_between_a_look_and_the_wait_is_not_slept_through(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody commits right after the follower saw that there is nothing: the news it then waits for are there."""
    posts = local.create("posts", partitions=2)
    feed = posts.changes(follow=True)
    look = Handle.positions
    looks = []

    def seen_too_early(handle: Handle) -> list[tuple[str, int]]:
        found = look(handle)
        looks.append(found)
        if len(looks) == 1:
            posts["a"] = 1
        return found

    def at_once(news: News, number: int, _seconds: float) -> None:
        assert news.number != number, "it would have slept"

    monkeypatch.setattr(Handle, "positions", seen_too_early)
    monkeypatch.setattr(News, "wait", at_once)

    assert next(feed).key == "a"
    assert len(looks) == 2


def write_one(urls: Sequence[str], state: str) -> None:
    """In another process."""
    with vstore.open(*urls, state=state) as store:
        store["posts"]["theirs"] = 1


def test_a_follower_hears_of_another_process_at_the_next_poll(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No news are told here, so the wait ends by itself."""
    monkeypatch.setattr(changes, "POLL_SECONDS", 0.05)
    with vstore.open(url) as store:
        posts = store.create("posts", partitions=4)
        feed = posts.changes(follow=True, idle_seconds=6)
        process = LIVES.Process(target=write_one, args=([url], os.environ["VSTORE_STATE"]))
        process.start()

        assert next(feed).key == "theirs"
        process.join()


class Clock:
    """Stands for the module `time`; it passes only while somebody waits for news."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Instead of the real one. `meanwhile` is called in each wait."""
        self.now = 100.0
        self.waits: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

        def wait(_news: News, _number: int, seconds: float) -> None:
            self.waits.append(seconds)
            assert len(self.waits) < 1_000, "it waits for ever"
            self.now += seconds
            self.meanwhile()

        monkeypatch.setattr(changes, "time", self)
        monkeypatch.setattr(News, "wait", wait)

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


def test_an_idle_follower_asks_once_for_each_poll_and_ends(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten quiet seconds at a poll each 0.5 s: 20 waits, one query before each and one at the end."""
    posts = local.create("posts", partitions=64)
    clock, feed = Clock(monkeypatch), posts.changes(follow=True, idle_seconds=10.25)
    queries = Queries(monkeypatch)

    assert list(feed) == []

    assert clock.waits == [0.5] * 20 + [0.25]
    assert queries.of[threading.get_ident()] == 22


def test_idle_seconds_count_from_the_last_change(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change comes after four of five seconds; the feed ends five seconds after it."""
    posts = local.create("posts", partitions=2)
    clock = Clock(monkeypatch)
    clock.meanwhile = lambda: posts.put("late", 1) if clock.now == 104.0 else None

    assert [change.key for change in posts.changes(follow=True, idle_seconds=5)] == ["late"]

    assert clock.now == 109.0


def test_idle_seconds_of_a_view_end_although_others_write_beside_it(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each wait somebody writes a key outside of the view: nothing of that is a change to this reader."""
    posts = local.create("posts", partitions=2)
    clock = Clock(monkeypatch)

    def beside() -> None:
        assert clock.now < 200, "it does not end"
        posts["y/1"] = clock.now

    clock.meanwhile = beside

    assert list(posts.prefixed("x/").changes(follow=True, idle_seconds=5)) == []

    assert clock.now == 105.0


# --- tokens ----------------------------------------------------------------------------------------------------------


def forged(*parts: Any) -> str:
    """A text that looks like a token."""
    return urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def garbage(token: str) -> Iterator[str]:
    """What is no token, or not as it was given out."""
    yield from ("", "x", "é", "!!", token[:-2], token + "x", token + "=", " " + token, "A" * 10_000)
    form, full, feeds, where = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    yield forged(form + 1, full, feeds, where)
    yield forged(form, float("inf"), feeds, where)
    yield forged(form, True, feeds, where)
    yield forged(form, full, feeds, [-1, *where[1:]])
    yield forged(form, full, feeds, [float(where[0]), *where[1:]])
    yield forged(form, full, feeds, [str(where[0]), *where[1:]])
    yield forged(form, full, feeds, where[1:])
    yield forged(form, full, feeds, [*where, 0])
    yield forged(form, full, feeds, {})
    yield forged(form, full, None, where)
    yield forged(form, full, feeds)
    yield forged(form)


def refused(posts: Collection, token: str, *, full: bool = False) -> str:
    """The message with which a token is refused."""
    with pytest.raises(InvalidToken) as caught:
        posts.changes(token, full=full)
    return str(caught.value)


def test_texts_that_no_feed_gave_are_refused(local: Store) -> None:
    """Cut, lengthened, re-encoded, with other numbers, or of another kind altogether."""
    posts = local.create("posts", partitions=2)
    posts["a"] = 1
    feed = posts.changes()
    list(feed)

    for text in garbage(feed.since):
        refused(posts, text)
    assert refused(posts, str(posts.read("a").context)).startswith("since=")
    assert list(posts.changes(feed.since)) == []


def test_tokens_of_other_feeds_are_refused(store: Store, tmp_path: Path) -> None:
    """Of the other form, of another collection, and of another store."""
    for name in ("posts", "notes"):
        store.create(name, partitions=2)["a"] = 1
    feeds = {(name, full): store[name].changes(full=full) for name in ("posts", "notes") for full in (True, False)}
    tokens = {which: (list(feed), feed.since)[1] for which, feed in feeds.items()}

    assert "of the full feed" in refused(store["posts"], tokens["posts", True])
    assert "of the compacted feed" in refused(store["posts"], tokens["posts", False], full=True)
    assert "belongs to another feed" in refused(store["posts"], tokens["notes", False])
    with vstore.open(f"sqlite:///{tmp_path / 'other.db'}") as other:
        other.create("posts", partitions=2)["a"] = 1
        assert "belongs to another feed" in refused(other["posts"], tokens["posts", False])


def test_a_token_ahead_of_a_database_that_was_set_back_is_refused(tmp_path: Path) -> None:
    """A backup is put back: its feed ends before the token, and once written it is another feed."""
    path = tmp_path / "a.db"
    with vstore.open(f"sqlite:///{path}") as store:
        store.create("posts", partitions=1)["a"] = 1
        early = store["posts"].changes()
        list(early)
    shutil.copyfile(path, tmp_path / "backup.db")
    with vstore.open(f"sqlite:///{path}") as store:
        store["posts"]["b"] = 2
        late = store["posts"].changes(early.since)
        assert [change.key for change in late] == ["b"]
    shutil.copyfile(tmp_path / "backup.db", path)

    with vstore.open(f"sqlite:///{path}") as store:
        posts = store["posts"]
        assert "ahead of this feed" in refused(posts, late.since)
        assert list(posts.changes(early.since)) == []
        posts["c"] = 3  # takes the place that b had
        assert "belongs to another feed" in refused(posts, late.since)
        assert "belongs to another feed" in refused(posts, early.since)
        assert [change.key for change in posts.changes()] == ["a", "c"]


def test_a_token_is_good_for_a_copied_file_until_one_is_written(tmp_path: Path) -> None:
    """The copy shows the same; its first write makes it a feed of its own, and the original goes on."""
    urls = [f"sqlite:///{tmp_path / name}" for name in ("a.db", "copy.db")]
    with vstore.open(urls[0]) as store:
        store.create("posts", partitions=2).put_many({"a": 1, "b": 2, "c": 3})
        feed = store["posts"].changes()
        next(feed)
    shutil.copyfile(tmp_path / "a.db", tmp_path / "copy.db")

    with vstore.open(urls[0]) as store, vstore.open(urls[1]) as copied:
        rest = [change.key for change in store["posts"].changes(feed.since)]
        assert [change.key for change in copied["posts"].changes(feed.since)] == rest
        copied["posts"]["theirs"] = 1
        store["posts"]["ours"] = 1
        assert "belongs to another feed" in refused(copied["posts"], feed.since)
        assert sorted(change.key for change in store["posts"].changes(feed.since)) == sorted([*rest, "ours"])


def test_a_follower_is_told_when_its_feed_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits, the actor changes, or the counter goes back: it ends with an error instead of a gap."""
    path = tmp_path / "a.db"
    with vstore.open(f"sqlite:///{path}") as store:
        posts = store.create("posts", partitions=1)
        posts.put_many({"a": 1, "b": 2})
        clock = Clock(monkeypatch)

        def run(statement: str) -> None:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute(statement)
                connection.commit()

        for statement in ("UPDATE vs_partition SET feed = 'x'", "UPDATE vs_partition SET seq = 1"):
            feed = posts.changes(follow=True)
            assert [next(feed).key, next(feed).key] == ["a", "b"]
            clock.meanwhile = partial(run, statement)
            with pytest.raises(InvalidToken, match="was replaced while it was read"):
                next(feed)


def test_a_collection_that_was_dropped_and_made_again_is_another_feed(local: Store) -> None:
    """The old token is refused, and so is who follows."""
    posts = local.create("posts", partitions=2)
    posts["a"] = 1
    feed: Changes = posts.changes(follow=True)
    next(feed)
    local.drop("posts")
    local.create("posts", partitions=2)["b"] = 1

    with pytest.raises(InvalidToken):
        next(feed)
    refused(posts, feed.since)
