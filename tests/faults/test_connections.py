"""A database that goes away in the middle: reads come back, writes are there once or not at all."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.engine import make_url

import vstore
from tests.conftest import SERVERS, administer
from tests.faults.proxy import At, Proxy
from tests.faults.writer import recorded
from vstore import Context, Store, Unavailable, shard
from vstore.sql import dialects
from vstore.sql.database import Connection

SEED = 20261121
SERVER_KINDS = [
    pytest.param("postgresql", marks=pytest.mark.postgres),
    pytest.param("mariadb", marks=pytest.mark.mariadb),
]


@pytest.fixture
def wire(request: pytest.FixtureRequest, fresh_url: Callable[[str], str]) -> Iterator[tuple[Proxy, str]]:
    """A proxy to a blank database of the parameter's kind, and the database's URL by way of it."""
    url = make_url(fresh_url(request.param))
    port = {"postgresql": 5432, "mariadb": 3306}[request.param]
    proxy = Proxy(url.host or "127.0.0.1", url.port or port)
    yield proxy, url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
    proxy.close()


class Line:
    """Something that loses the answer to the next COMMIT, and with it the database if told so."""

    def __init__(self, store: Store, proxy: Proxy | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a proxy; without one, on the driver's connection."""
        self.store = store
        self._proxy = proxy
        self._at: At = ""
        self._gone_after = self._gone = False
        if proxy is None:
            speak = Connection.text

            def text(connection: Connection, sql: str) -> list[Any]:
                if self._gone:
                    connection.broken = True
                    raise Unavailable("gone") from sqlite3.OperationalError("gone")
                if sql == "COMMIT" and self._at:
                    speak(connection, "ROLLBACK" if self._at == "before" else "COMMIT")
                    self._at, self._gone = "", self._gone_after
                    connection.broken = True
                    raise Unavailable("lost") from sqlite3.OperationalError("lost")
                return speak(connection, sql)

            monkeypatch.setattr(Connection, "text", text)

    def lose(self, at: At, *, gone_after: bool = False) -> None:
        """The next COMMIT is lost before it is heard, or after it was done."""
        if self._proxy is None:
            self._at, self._gone_after = at, gone_after
        else:
            self._proxy.at_commit, self._proxy.refuse_after_commit = at, gone_after

    def mend(self) -> None:
        """The database can be asked again."""
        self._gone = False
        if self._proxy is not None:
            self._proxy.refuse = False


@pytest.fixture
def line(engine: str, fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """A store with one document, behind a line, on each kind of database."""
    url = make_url(fresh_url(engine))
    proxy = None
    if engine != "sqlite":
        proxy = Proxy(url.host or "127.0.0.1", url.port or {"postgresql": 5432, "mariadb": 3306}[engine])
        url = url.set(host="127.0.0.1", port=proxy.port)
    with vstore.open(url.render_as_string(hide_password=False)) as store:
        store["posts"]["old"] = 0
        yield Line(store, proxy, monkeypatch)
    if proxy is not None:
        proxy.close()


def blind_root(store: Store) -> None:
    store["posts"].put("new", 1, context=Context("new"))


def plain_root(store: Store) -> None:
    store["posts"]["new"] = 1


def batch(store: Store) -> None:
    store["posts"].put_many({"new": 1, "old": 1, "other": 1})


def plain_edit(store: Store) -> None:
    store["posts"]["old"] = 1


CALLS: dict[Callable[[Store], None], dict[str, list[int]]] = {
    blind_root: {"old": [0], "new": [1]},
    plain_root: {"old": [0], "new": [1]},
    batch: {"old": [0, 1], "new": [1], "other": [1]},
    plain_edit: {"old": [0, 1]},
}


@pytest.mark.parametrize("at", ["before", "after", "late"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_lost_answer_to_commit_is_found_out_by_asking(line: Line, call: Callable[[Store], None], at: At) -> None:
    """The connection is cut at COMMIT, before, after or meanwhile; the call returns, and there is one version."""
    token = line.store["posts"].changes().since

    line.lose(at)
    call(line.store)

    assert recorded(line.store) == CALLS[call]
    assert list(line.store["posts"].conflicts()) == []
    assert len(list(line.store["posts"].changes(token))) >= 1  # the feed is the same: the actors were kept


@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_call_of_unknown_outcome_can_be_repeated(
    line: Line, call: Callable[[Store], None], at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is cut at COMMIT and the database stays away: the caller is told, repeats, and has one version."""
    monkeypatch.setattr(shard, "ASKING_SECONDS", 0.1)

    line.lose(at, gone_after=True)
    with pytest.raises(Unavailable, match="whether the batch was written is not known") as told:
        call(line.store)
    line.mend()
    call(line.store)

    assert told.value.outcome_unknown
    assert recorded(line.store) == CALLS[call]
    assert list(line.store["posts"].conflicts()) == []
    assert list(line.store.check()) == []


def test_a_value_put_again_after_others_wrote_is_wanted_back(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put of unknown outcome took place; somebody else then replaced it; the same value later is a new write."""
    monkeypatch.setattr(shard, "ASKING_SECONDS", 0.1)
    line.lose("after", gone_after=True)
    with pytest.raises(Unavailable):
        plain_edit(line.store)
    line.mend()
    line.store["posts"]["old"] = "theirs"

    plain_edit(line.store)

    assert recorded(line.store) == {"old": [0, 1, "theirs", 1]}


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_transaction_whose_commit_is_lost_is_whole_or_refused(line: Line, at: At) -> None:
    """transaction() asks too. It cannot repeat the caller's block, so what was not written is refused plainly."""
    posts = line.store["posts"]

    def move() -> None:
        with line.store.transaction():
            posts["old"] = 1
            posts["new"] = 1
            line.lose(at)

    if at == "after":
        move()
    else:
        with pytest.raises(Unavailable, match=r"rolled back\. Nothing was written") as refused:
            move()
        assert not refused.value.outcome_unknown

    assert recorded(line.store) == ({"old": [0, 1], "new": [1]} if at == "after" else {"old": [0]})


def test_a_transaction_in_which_a_statement_failed_is_not_committed(store: Store) -> None:
    """The caller swallows the error of a statement: PostgreSQL would then turn COMMIT into a silent ROLLBACK."""
    posts = store["posts"]
    posts["old"] = 0

    def work() -> None:
        with store.transaction():
            posts["old"] = 1
            with contextlib.suppress(vstore.StoreError):
                store.shards[0].database.read().text("SELECT * FROM no_such_table")
            with contextlib.suppress(vstore.StoreError):
                posts["old"] = 2

    with pytest.raises(Unavailable, match=r"statement of this transaction had failed.*Nothing was written"):
        work()

    assert recorded(store) == {"old": [0]}


@pytest.mark.parametrize("wire", SERVER_KINDS, indirect=True)
def test_reads_reconnect(wire: tuple[Proxy, str]) -> None:
    """Every connection is cut, as by a restarted server, before each way to read; and before a write."""
    proxy, url = wire
    with vstore.open(url) as store:
        posts = store["posts"]
        posts.put_many({"a": 1, "b": 2})
        reads: dict[str, Callable[[], Any]] = {
            "get": lambda: posts["a"],
            "read": lambda: posts.read("b").value,
            "in": lambda: "a" in posts,
            "items": lambda: dict(posts.items()),
            "keys": lambda: list(posts.keys(prefix="")),
            "len": lambda: len(posts),
            "get_many": lambda: dict(posts.get_many(["b"])),
            "history": lambda: [version.value for version in posts.history("a")],
            "snapshot": lambda: dict(posts.snapshot()),
            "changes": lambda: sorted(change.key for change in posts.changes()),
            "collections": store.collections,
        }
        found = {}
        for name, read in reads.items():
            others = [threading.Thread(target=lambda: posts.read("a")) for _ in range(3)]
            for other in others:
                other.start()
            for other in others:
                other.join()
            proxy.cut()  # the connections of the ended threads wait in the pool, and are cut too
            found[name] = read()
        proxy.cut()
        posts["c"] = 3

        assert found == {
            "get": 1,
            "read": 2,
            "in": True,
            "items": {"a": 1, "b": 2},
            "keys": ["a", "b"],
            "len": 2,
            "get_many": {"b": 2},
            "history": [1],
            "snapshot": {"a": 1, "b": 2},
            "changes": ["a", "b"],
            "collections": ["posts"],
        }
        assert posts["c"] == 3


@pytest.mark.parametrize("wire", SERVER_KINDS, indirect=True)
def test_a_server_that_refuses_is_unavailable_and_comes_back(wire: tuple[Proxy, str]) -> None:
    """Refused connections are an error at once, for reads and writes, and nothing is left of them."""
    proxy, url = wire
    with vstore.open(url) as store:
        posts = store["posts"]
        posts["a"] = 1
        proxy.refuse = True
        proxy.cut()
        began = time.monotonic()
        for refused in (lambda: posts["a"], lambda: posts.put("a", 2), lambda: posts.put_many({"a": 3, "b": 3})):
            with pytest.raises(Unavailable) as told:
                refused()
            assert not told.value.outcome_unknown
        took = time.monotonic() - began
        proxy.refuse = False

        posts["a"] = 4

        assert took < 10
        assert recorded(store) == {"a": [1, 4]}


@pytest.mark.parametrize("wire", SERVER_KINDS, indirect=True)
def test_a_wire_that_loses_bytes_is_a_server_that_cannot_be_reached(wire: tuple[Proxy, str]) -> None:
    """A store is opened 60 times over it. Whatever message breaks, also one of the driver's own, the error is ours."""
    proxy, url = wire
    vstore.open(url).close()
    proxy.loss = 0.1

    lost = 0
    for _ in range(60):
        try:
            vstore.open(url).close()
        except Unavailable:
            lost += 1

    assert lost > 10


@pytest.mark.parametrize("wire", SERVER_KINDS, indirect=True)
def test_a_server_that_says_nothing_stops_nobody_for_ever(
    wire: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections stay open and nothing comes: after the time allowed, here one second, that is Unavailable."""
    monkeypatch.setattr(dialects, "ANSWER_SECONDS", 1)
    proxy, url = wire
    bounds = "?read_timeout=1&connect_timeout=2" if "mariadb" in url else "?connect_timeout=2"
    with vstore.open(url + bounds) as store:
        posts = store["posts"]
        posts["a"] = 1
        proxy.stall = True
        began = time.monotonic()
        with pytest.raises(Unavailable):
            posts["a"]
        with pytest.raises(Unavailable) as told:
            posts["a"] = 2
        took = time.monotonic() - began
        proxy.stall = False

        posts["a"] = 3

        assert not told.value.outcome_unknown
        assert took < 15
        assert recorded(store) == {"a": [1, 3]}


def test_killed_sessions_are_replaced(fresh_url: Callable[[str], str], engine: str) -> None:
    """An administrator ends every session of the database, as pg_terminate_backend and KILL do."""
    if engine == "sqlite":
        pytest.skip("SQLite has no sessions")
    url = fresh_url(engine)
    name = make_url(url).database
    with vstore.open(url) as store:
        posts = store["posts"]
        posts["a"] = 1
        for n in range(3):
            if engine == "postgresql":
                sessions = f"pg_stat_activity WHERE datname = '{name}'"
                administer(engine, f"SELECT pg_terminate_backend(pid) FROM {sessions}")
            else:
                for session in _sessions(str(name)):
                    administer(engine, f"KILL CONNECTION {session}")
            assert posts["a"] == 1 + n
            posts["a"] = 2 + n

        assert recorded(store) == {"a": [1, 2, 3, 4]}


def _sessions(name: str) -> list[int]:
    from sqlalchemy import create_engine, text

    engine = create_engine(SERVERS["mariadb"])
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT id FROM information_schema.processlist WHERE db = :name"), {"name": name}
        )
        sessions = [row[0] for row in found]
    engine.dispose()
    return sessions


@pytest.mark.parametrize("wire", SERVER_KINDS, indirect=True)
def test_writes_under_a_storm_of_cuts_are_there_once_or_not_at_all(wire: tuple[Proxy, str]) -> None:
    """Three threads write while every connection is cut 25 times; each write is acknowledged or refused, truly."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    proxy, url = wire
    acknowledged: dict[str, list[int]] = defaultdict(list)
    errors: list[BaseException] = []
    ended = threading.Event()

    def write(store: Store, name: str) -> None:
        calm = 0  # writes after the storm
        for n in itertools.count(1):
            calm += ended.is_set()
            if calm > 3:
                return
            try:
                if n % 3:
                    store["posts"][name] = n
                    acknowledged[name].append(n)
                else:
                    store["posts"].put_many({f"{name}-{m}": n for m in range(5)})
                    for m in range(5):
                        acknowledged[f"{name}-{m}"].append(n)
            except Unavailable as error:
                if error.outcome_unknown:
                    errors.append(error)
            except BaseException as error:  # told below
                errors.append(error)

    with vstore.open(url) as store:
        store["posts"]["first"] = 0
        threads = [threading.Thread(target=write, args=(store, f"t{n}")) for n in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(25):
            threading.Event().wait(chance.uniform(0.01, 0.12))
            proxy.cut()
        ended.set()
        for thread in threads:
            thread.join()

        assert errors == []
        stored = recorded(store)
        stored.pop("first")
        assert stored == acknowledged
        assert len(stored) == 18
        assert list(store.check()) == []
