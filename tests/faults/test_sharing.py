"""Threads, processes and forks share a store: nothing is lost, and nobody's trouble becomes another's."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import vstore
from tests.faults.writer import recorded
from vstore import PreconditionFailed, StaleMap, Store, Unavailable
from vstore.batch import Put
from vstore.document import Content
from vstore.shard import Definition
from vstore.sql import database
from vstore.sql.database import Connection
from vstore.sql.statements import Statement

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def together(*works: Callable[[], Any]) -> list[Any]:
    """Runs each in a thread; their results, or what they raised."""
    outcomes: list[Any] = [None] * len(works)

    def run(place: int) -> None:
        try:
            outcomes[place] = works[place]()
        except BaseException as error:  # for the caller to look at
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "somebody waits for ever"
    return outcomes


def count_and_collect(store: Store, name: str, times: int) -> None:
    """Counts up with modify(), and adds to a set with put(context=), merging the siblings it reads."""
    posts = store["posts"]
    for n in range(times):
        posts.modify(f"counter-{n % 2}", lambda value: value + 1, default=0)
        try:
            seen = posts.read("set", on_conflict="winner")
            context, members = seen.context, [member for each in seen.siblings for member in each.value]
        except vstore.NotFound:
            context, members = vstore.Context("set"), []
        posts.put("set", sorted({*members, f"{name}-{n}"}), context=context)


def collected(store: Store) -> set[str]:
    """What is in the set, whatever siblings it has."""
    return {member for each in store["posts"].read("set", on_conflict="winner").siblings for member in each.value}


def in_another_process(url: str, state: str, name: str, times: int) -> None:
    """What `count_and_collect` does, in a process of its own."""
    with vstore.open(url, state=state) as store:
        count_and_collect(store, name, times)


def test_eight_threads_lose_no_update(store: Store) -> None:
    """Two counters and a set, eight threads, twelve rounds each."""
    outcomes = together(*(lambda name=f"t{n}": count_and_collect(store, name, 12) for n in range(8)))

    assert outcomes == [None] * 8
    assert [store["posts"]["counter-0"], store["posts"]["counter-1"]] == [48, 48]
    assert collected(store) == {f"t{n}-{m}" for n in range(8) for m in range(12)}
    assert list(store.check()) == []


def test_four_processes_lose_no_update(url: str) -> None:
    """Two that were spawned and two that were forked, on a store that all of them find blank."""
    state = os.environ["VSTORE_STATE"]
    vstore.open(url).close()
    processes = [
        multiprocessing.get_context(method).Process(  # type: ignore[attr-defined]
            target=in_another_process, args=(url, state, f"{method}-{n}", 10)
        )
        for method in ("spawn", "fork")
        for n in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    with vstore.open(url) as store:
        assert [store["posts"]["counter-0"], store["posts"]["counter-1"]] == [20, 20]
        names = [f"{method}-{n}" for method in ("spawn", "fork") for n in range(2)]
        assert collected(store) == {f"{name}-{m}" for name in names for m in range(10)}
        assert list(store.check()) == []


@contextlib.contextmanager
def forked(work: Callable[[], None]) -> Iterator[None]:
    """Does the work in a fork of this process, beside the block; fails if it fails or takes a minute."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        try:
            work()
        except BaseException as error:
            os.write(2, f"in the fork: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    try:
        yield
    finally:
        assert os.waitpid(child, 0)[1] == 0


def test_a_fork_in_the_middle_goes_on_beside_its_parent(url: str) -> None:
    """A store with open connections and four threads that write is forked three times; all go on writing."""
    with vstore.open(url) as store:
        posts = store["posts"]
        posts["counter-0"] = posts["counter-1"] = 0
        store["posts"].put("set", [], context=vstore.Context("set"))

        def fork_and_write() -> None:
            with contextlib.ExitStack() as children:
                for n in range(3):
                    children.enter_context(forked(partial(count_and_collect, store, f"child{n}", 6)))
                    count_and_collect(store, f"parent{n}", 4)

        outcomes = together(
            fork_and_write, *(lambda name=f"t{n}": count_and_collect(store, name, 10) for n in range(4))
        )

        assert outcomes == [None] * 5
        assert posts["counter-0"] + posts["counter-1"] == 3 * 6 + 3 * 4 + 4 * 10
        assert len(collected(store)) == 3 * 6 + 3 * 4 + 4 * 10
        assert list(store.check()) == []


def test_a_fork_keeps_what_it_wrote_when_its_parent_has_closed(url: str) -> None:
    """SQLite deletes its log with what it takes for the last connection: the parent's, had the child inherited some."""
    store = vstore.open(url)
    store["posts"]["before"] = 0
    assert store["posts"]["before"] == 0
    closed, close = os.pipe()
    opened, open_ = os.pipe()

    def write_before_and_after() -> None:
        store["posts"].put_many({f"early-{n}": n for n in range(50)})
        os.write(open_, b".")
        os.read(closed, 1)
        store["posts"].put_many({f"late-{n}": n for n in range(50)})

    with forked(write_before_and_after):
        os.read(opened, 1)
        store.close()
        os.write(close, b".")

    for end in (closed, close, opened, open_):
        os.close(end)
    with vstore.open(url) as again:
        assert len(again["posts"]) == 101
        assert list(again.check()) == []


def test_a_fork_inside_a_transaction_leaves_it_to_the_parent(url: str) -> None:
    """The child leaves the block too, which must not commit, and is refused clearly where it cannot work."""
    with vstore.open(url) as store:
        store["posts"]["a"] = 0
        with store.transaction():
            store["posts"]["a"] = 1
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
                try:
                    _leave(store)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            store["posts"]["b"] = 1

        assert recorded(store) == {"a": [0, 1], "b": [1]}


def _leave(store: Store) -> None:
    transaction = store.shards[0].database
    assert not transaction.in_transaction
    if transaction.path is not None:
        with pytest.raises(Unavailable, match="forked while its parent was in the middle of a transaction"):
            store["posts"]["c"] = 1
    else:
        assert store["posts"]["a"] == 0  # what the parent has not committed is not there
    os._exit(0)


def test_plain_writes_never_make_siblings(store: Store) -> None:
    """Eight threads assign the same key, without having read it."""
    posts = store["posts"]

    def assign(name: int) -> None:
        for n in range(10):
            posts["key"] = [name, n]

    outcomes = together(*(lambda name=n: assign(name) for n in range(8)))

    assert outcomes == [None] * 8
    assert list(posts.conflicts()) == []
    written = recorded(store)["key"]
    assert sorted(written) == [[name, n] for name in range(8) for n in range(10)]
    assert [m for name, m in written if name == 3] == list(range(10))


def test_a_transaction_is_seen_whole_or_not_at_all(store: Store) -> None:
    """Two keys always hold the same number; every third transaction raises; a reader and another writer look on."""
    posts = store["posts"]
    posts.put_many({"a": 0, "b": 0})
    ended = threading.Event()

    def move() -> None:
        try:
            for n in range(1, 31):
                with contextlib.suppress(LookupError), store.transaction():
                    posts["a"] = n
                    posts["b"] = n
                    assert dict(posts.get_many(["a", "b"])) == {"a": n, "b": n}
                    if n % 3 == 0:
                        raise LookupError
        finally:
            ended.set()

    def look() -> set[tuple[int, int]]:
        seen = set()
        while not ended.is_set():
            found = posts.get_many(["a", "b"])
            seen.add((found["a"], found["b"]))
        return seen

    def write_beside() -> None:
        for n in range(20):
            posts["c"] = n

    moved, seen, written = together(move, look, write_beside)

    assert (moved, written) == (None, None)
    assert all(a == b and (a % 3 or not a) for a, b in seen)
    kept = [0, *(n for n in range(31) if n % 3)]
    assert recorded(store) == {"a": kept, "b": kept, "c": list(range(20))}
    assert list(store.check()) == []


class Queue:
    """The line of writers of a store: held up until all have joined it, then let go."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self._shard = store.shards[0]
        self.begun: list[str] = []
        speak = Connection.text

        def text(connection: Connection, sql: str) -> list[Any]:
            if sql in self._shard.database.dialect.begin_write:
                self.begun.append(sql)
            return speak(connection, sql)

        monkeypatch.setattr(Connection, "text", text)

    def together(self, *works: Callable[[], Any]) -> list[Any]:
        """The outcomes of works that all waited when the first was begun, in this order."""
        ready = threading.Event()

        def release() -> None:
            with self._shard._writer:
                for n, work in enumerate(works):
                    thread = threading.Thread(target=lambda n=n, work=work: run(n, work))
                    threads.append(thread)
                    thread.start()
                    while len(self._shard._queue) <= n:
                        ready.wait(0.001)
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive(), "somebody waits for ever"

        def run(place: int, work: Callable[[], Any]) -> None:
            try:
                found[place] = work()
            except BaseException as error:  # for the caller to look at
                found[place] = error

        threads: list[threading.Thread] = []
        found: dict[int, Any] = {}
        self._shard._queue.clear()
        self.begun.clear()
        release()
        return [found[n] for n in range(len(works))]


def test_writers_that_wait_share_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads wait for a ninth; their eight writes are one transaction."""
    posts = store["posts"]
    posts["first"] = 0
    queue = Queue(store, monkeypatch)

    outcomes = queue.together(*(lambda n=n: posts.put(f"key-{n}", n).value for n in range(8)))

    assert outcomes == list(range(8))
    assert len(queue.begun) == 1
    assert len(posts) == 9


def test_a_request_that_fails_does_not_disturb_the_others_of_its_group(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost race, a partition that is gone and a number that no database takes, between four good writes."""
    posts = store["posts"]
    posts["taken"] = 0
    shard = store.shards[0]
    [(_, definition, *_)] = store.handle("posts").runs()  # type: ignore[union-attr]
    gone = Definition(999, "gone", 64, {}, 1_000_000)
    too_long = Put("late", 0, Content(b"1", "json", b"1"), stamp=1 << 70)
    queue = Queue(store, monkeypatch)

    outcomes = queue.together(
        lambda: posts.put("a", 1).value,
        lambda: posts.put("taken", 1, match=vstore.ABSENT),
        lambda: posts.put("b", 2).value,
        lambda: shard.apply(gone, [Put("x", 0, Content(b"1", "json", b"1"))]),
        lambda: posts.put("c", 3).value,
        lambda: shard.apply(definition, [too_long]),
        lambda: posts.put_many({"d": 4, "e": 5}),
    )

    assert [outcomes[n] for n in (0, 2, 4, 6)] == [1, 2, 3, 2]
    assert isinstance(outcomes[1], PreconditionFailed)
    assert isinstance(outcomes[3], StaleMap)
    assert isinstance(outcomes[5], Exception)
    assert recorded(store) == {"taken": [0], "a": [1], "b": [2], "c": [3], "d": [4], "e": [5]}
    assert list(store.check()) == []


@pytest.mark.parametrize("when", ["before", "at", "after"])
def test_an_interrupted_leader_leaves_nobody_waiting(store: Store, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Ctrl-C hits the thread that writes for six: while it writes, before its COMMIT, or when that was done."""
    posts = store["posts"]
    posts["first"] = 0
    queue = Queue(store, monkeypatch)
    hits = [KeyboardInterrupt()]
    speak, write = Connection.text, Connection.run_many

    def text(connection: Connection, sql: str) -> list[Any]:
        if sql == "COMMIT" and when == "at" and hits:
            raise hits.pop()
        found = speak(connection, sql)
        if sql == "COMMIT" and when == "after" and hits:
            raise hits.pop()
        return found

    def run_many(connection: Connection, statement: Statement, rows: Any) -> None:
        write(connection, statement, rows)
        if when == "before" and hits:
            raise hits.pop()

    monkeypatch.setattr(Connection, "text", text)
    monkeypatch.setattr(Connection, "run_many", run_many)

    outcomes = queue.together(*(lambda n=n: posts.put(f"key-{n}", n).value for n in range(6)))

    interrupted = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, KeyboardInterrupt)]
    others = [n for n in range(6) if n not in interrupted]
    assert len(interrupted) == 1
    assert [outcomes[n] for n in others] == others
    stored = recorded(store)
    assert [stored[f"key-{n}"] for n in others] == [[n] for n in others]
    assert stored[f"key-{interrupted[0]}"] == ([interrupted[0]] if when == "after" else [])
    assert list(store.check()) == []


def test_a_fork_waits_for_other_threads_only_so_long(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread stays in a transaction; the fork goes on without it, and its child is told why it cannot write."""
    monkeypatch.setattr(database, "FORK_SECONDS", 0.1)
    local["posts"]["a"] = 0
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with local.transaction():
            local["posts"]["a"] = 1
            inside.set()
            leave.wait(30)

    def be_refused() -> None:
        with pytest.raises(Unavailable, match="Fork outside of transactions, or spawn"):
            local["posts"]["b"] = 1

    def fork() -> None:
        inside.wait(30)
        try:
            with forked(be_refused):
                pass
        finally:
            leave.set()

    outcomes = together(stay, fork)

    assert outcomes == [None, None]
    assert recorded(local) == {"a": [0, 1]}
