"""The daemon as its users meet it: a process with a configuration file, a socket and signals."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from sqlalchemy.engine import make_url

import replication.daemon.supervisor
import vstore
from replication.daemon.config import Config, Replication, Settings, config_of
from replication.daemon.control import Control, asked
from replication.daemon.logs import Json, Logfmt
from replication.daemon.metrics import Metrics, text_of
from replication.daemon.supervisor import Supervisor
from replication.replicator import Status
from tests.acceptance.command import process, values
from tests.acceptance.command import vstore as command
from tests.faults.proxy import Proxy
from tests.replication.test_replicator import until
from vstore import ConfigurationError, NotFound, Unavailable

pytestmark = [pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")]

END_SECONDS = 10.0
"""What is promised: so long after SIGTERM the process is gone."""


class Daemon:
    """`vstore replicator` as a process of its own, in a folder."""

    def __init__(self, folder: Path, *replications: str, settings: str = "", name: str = "replicator") -> None:
        """Starts it; each of `replications` is the inside of a table."""
        self.config = folder / f"{name}.toml"
        self.socket = Path("/tmp") / f"vstore-{os.getpid()}-{folder.name[-12:]}-{name}.sock"  # a path has 100 bytes
        self._settings = f'[replicator]\nsocket = "{self.socket}"\n{settings}\n'
        self.write(*replications)
        self.running: subprocess.Popen[bytes] | None = None
        self.log = b""

    def write(self, *replications: str) -> None:
        """Writes the file again."""
        tables = (f'[[replication]]\npoll = "50ms"\n{each}\n' for each in replications)
        self.config.write_text(self._settings + "\n".join(tables))

    def start(self) -> Daemon:
        self.running = process("replicator", "--config", str(self.config))
        return self

    def until(self, true: Callable[[dict[str, Any]], Any], name: str = "one") -> dict[str, Any]:
        """Waits until the status of a replication is such, and gives it."""
        found: dict[str, Any] = {}

        def look() -> bool:
            assert self.running is not None
            assert self.running.poll() is None, f"it has ended: {self.end()}"
            try:
                [status] = asked(self.socket, "status", name)
            except (Unavailable, NotFound):  # not yet
                return False
            found.update(status)
            return bool(true(status))

        until(look, 60)
        return found

    def idle(self, name: str = "one") -> dict[str, Any]:
        return self.until(lambda status: status["state"] == "idle", name)

    def signal(self, number: int) -> int:
        """Sends a signal; the exit code, once it has ended in time."""
        assert self.running is not None
        began = time.monotonic()
        self.running.send_signal(number)
        code = self.running.wait(30)
        assert time.monotonic() - began < END_SECONDS
        self.end()
        return code

    def end(self) -> str:
        """Kills what is left, and gives the log."""
        if self.running is not None:
            self.running.kill()
            _out, self.log = self.running.communicate()
            self.running = None
        return self.log.decode()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons; all are gone after the test."""
    made: list[Daemon] = []

    def make(*replications: str, **settings: Any) -> Daemon:
        made.append(Daemon(tmp_path, *replications, **settings))
        return made[-1].start()

    yield make
    for each in made:
        each.end()
        for path in (each.socket, Path(f"{each.socket}.lock")):
            path.unlink(missing_ok=True)


def replication_of(source: str, target: str, more: str = "", name: str = "one") -> str:
    return f'name = "{name}"\nsource = "{source}"\ntarget = "{target}"\n{more}'


@pytest.fixture
def ends(tmp_path: Path) -> tuple[str, str]:
    """The URLs of a source and a target, which are not there yet."""
    return f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/target.db"


def fill(url: str, count: int, name: str = "notes") -> None:
    """Adds documents until there are so many."""
    with vstore.open(url) as store:
        store[name].put_many({f"k{n}": {"n": n} for n in range(len(store[name]), count)})


def count(url: str, name: str = "notes") -> int:
    with vstore.open(url) as store:
        return len(store[name])


# --- from start to end -----------------------------------------------------------------------------------------------


def test_it_replicates_until_it_is_told_to_stop(daemon: Callable[..., Daemon], ends: tuple[str, str]) -> None:
    """`stop` comes back when the process has ended; nothing of it is left but the lock."""
    source, target = ends
    fill(source, 100)
    one = daemon(replication_of(*ends))
    one.idle()
    with vstore.open(source) as store:
        store["notes"]["later"] = 1
    one.until(lambda status: status["new"] == 101 and status["state"] == "idle")

    stopped = command("replicator", "stop", "--socket", str(one.socket))

    assert stopped.exit_code == 0, stopped.output
    assert one.running is not None
    assert one.running.wait(1) == 0
    assert not one.socket.exists()
    assert count(target) == 101
    with pytest.raises(Unavailable, match="no daemon listens at"):
        asked(one.socket, "status")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_bootstrap_ends_it_and_the_next_goes_on(
    daemon: Callable[..., Daemon], ends: tuple[str, str], number: int
) -> None:
    """The batch under way is finished, and nothing of it comes again."""
    source, target = ends
    fill(source, 30_000)
    one = daemon(replication_of(*ends))
    middle = one.until(lambda status: status["rows"] > 2_000 and status["progress"])

    code = one.signal(number)
    taken = count(target)
    one.start()
    end = one.idle()

    assert code == 0
    assert middle["state"] == "bootstrapping"
    assert 0 < middle["progress"] < 1
    assert 2_000 < taken < 30_000
    assert end["new"] == 30_000 - taken
    assert end["rows"] == end["new"]
    assert count(target) == 30_000


def test_killed_in_the_middle_it_goes_on_where_it_was(daemon: Callable[..., Daemon], ends: tuple[str, str]) -> None:
    """Nothing is lost and nothing is there twice; the socket of the dead is taken over."""
    source, target = ends
    fill(source, 30_000)
    one = daemon(replication_of(*ends))
    one.until(lambda status: status["rows"] > 2_000)
    assert one.running is not None
    one.running.kill()
    one.end()
    taken = count(target)
    assert one.socket.exists()

    one.start()
    end = one.idle()
    one.signal(signal.SIGTERM)

    assert 2_000 < taken < 30_000
    assert end["new"] == 30_000 - taken
    with vstore.open(target) as store:
        assert len(store["notes"]) == 30_000
        assert list(store.check()) == []


def test_a_source_that_is_missing_at_the_start_is_waited_for(
    daemon: Callable[..., Daemon], ends: tuple[str, str]
) -> None:
    """It is not made by the daemon. Once it is there, everything comes."""
    source, target = ends
    one = daemon(replication_of(*ends))
    status = one.until(lambda status: status["state"] == "failing")
    assert "there is no store at" in status["error"]
    assert status["error_at"]
    assert not Path(source.removeprefix("sqlite:///")).exists()

    fill(source, 10)
    asked(one.socket, "resume")  # else it would come within a minute
    status = one.idle()

    assert (status["new"], status["error"], status["pending"]) == (10, "", 0)
    assert count(target) == 10


def test_a_target_whose_folder_is_missing_is_waited_for(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """A disk that is not mounted, say."""
    fill(f"sqlite:///{tmp_path}/a.db", 10)
    one = daemon(replication_of(f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/disk/b.db"))
    status = one.until(lambda status: status["state"] == "failing")
    assert "there is no folder" in status["error"]

    (tmp_path / "disk").mkdir()
    asked(one.socket, "resume")
    one.idle()

    assert count(f"sqlite:///{tmp_path}/disk/b.db") == 10


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("postgresql", marks=pytest.mark.postgres),
        pytest.param("mariadb", marks=pytest.mark.mariadb),
    ],
)
def test_a_target_that_is_cut_off_for_a_while_is_caught_up_with(
    daemon: Callable[..., Daemon], ends: tuple[str, str], fresh_url: Callable[[str], str], kind: str
) -> None:
    """In the middle of a bootstrap its connections are cut, and new ones are refused."""
    source, _ = ends
    fill(source, 5_000)
    url = make_url(fresh_url(kind))
    wire = Proxy(url.host or "127.0.0.1", url.port or {"postgresql": 5432, "mariadb": 3306}[kind])
    try:
        by_wire = url.set(host="127.0.0.1", port=wire.port).render_as_string(hide_password=False)
        one = daemon(replication_of(source, by_wire))
        one.until(lambda status: status["rows"] > 0)
        wire.refuse = True
        wire.cut()
        failing = one.until(lambda status: status["state"] == "failing")
        fill(source, 5_100)
        wire.refuse = False

        end = one.idle()

        assert failing["error"]
        assert end["errors"] >= 1
        assert end["lag_seconds"] == 0
        assert one.signal(signal.SIGTERM) == 0
    finally:
        wire.close()
    assert count(url.render_as_string(hide_password=False)) == 5_100


@pytest.mark.postgres
def test_a_database_that_says_nothing_any_more_does_not_keep_it_from_ending(
    daemon: Callable[..., Daemon], ends: tuple[str, str], fresh_url: Callable[[str], str]
) -> None:
    """A thread waits for an answer that never comes. What it had sent is there as a whole or not at all."""
    source, _ = ends
    fill(source, 20_000)
    url = make_url(fresh_url("postgresql"))
    wire = Proxy(url.host or "127.0.0.1", url.port or 5432)
    try:
        one = daemon(replication_of(source, url.set(host="127.0.0.1", port=wire.port).render_as_string(False)))
        one.until(lambda status: status["rows"] > 0)
        wire.stall = True

        code = one.signal(signal.SIGTERM)

        assert code == 0
        assert "does not answer" in one.end()
        wire.stall = False
    finally:
        wire.close()
    with vstore.open(url.render_as_string(False)) as store:
        assert list(store.check()) == []


def test_a_file_that_is_replaced_under_it_is_opened_anew(daemon: Callable[..., Daemon], ends: tuple[str, str]) -> None:
    """A target that was deleted gets everything again, and not the file that is gone."""
    source, target = ends
    fill(source, 10)
    one = daemon(replication_of(*ends))
    one.idle()
    path = Path(target.removeprefix("sqlite:///"))
    for file in path.parent.glob("target.db*"):
        file.unlink()

    until(path.exists)
    one.until(lambda status: status["new"] == 20 and status["state"] == "idle")

    assert count(target) == 10


# --- asking and telling ----------------------------------------------------------------------------------------------


def test_status_pause_and_resume_by_the_command(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """All replications or one, found by the socket or by the file."""
    for name in "ab":
        fill(f"sqlite:///{tmp_path}/{name}.db", 5)
    one = daemon(
        *(
            replication_of(f"sqlite:///{tmp_path}/{name}.db", f"sqlite:///{tmp_path}/to-{name}.db", name=name)
            for name in "ab"
        )
    )
    for name in "ab":
        one.idle(name)

    def states() -> dict[str, str]:
        found = values(command("replicator", "status", "--json", "--config", str(one.config)))
        return {each["name"]: each["state"] for each in found}

    assert command("replicator", "pause", "a", "--socket", str(one.socket)).exit_code == 0
    assert states() == {"a": "paused", "b": "idle"}
    fill(f"sqlite:///{tmp_path}/a.db", 8)
    one.until(lambda status: status["pending"] == 3, "a")
    assert command("replicator", "--config", str(one.config), "resume").exit_code == 0
    one.until(lambda status: status["new"] == 8 and status["state"] == "idle", "a")
    assert command("replicator", "pause", "--socket", str(one.socket)).exit_code == 0
    assert states() == {"a": "paused", "b": "paused"}

    shown = command("replicator", "status", "--socket", str(one.socket)).stdout.splitlines()
    assert shown[0].split() == ["replication", "state", "pending", "lag", "rows", "conflicts", "parked", "error"]
    assert [line.split()[:2] for line in shown[1:]] == [["a", "paused"], ["b", "paused"]]
    whole = command("replicator", "status", "a", "--socket", str(one.socket)).stdout
    assert re.search(rf"^target +sqlite:///{tmp_path}/to-a.db$", whole, re.MULTILINE)
    unknown = command("replicator", "pause", "nobody", "--socket", str(one.socket))
    assert unknown.exit_code == 3
    assert "there is no replication 'nobody'. There are: a, b." in unknown.stderr


def test_only_its_user_can_speak_with_it_and_it_survives_nonsense(
    daemon: Callable[..., Daemon], ends: tuple[str, str]
) -> None:
    one = daemon(replication_of(*ends))
    one.until(lambda status: True)

    assert stat.S_IMODE(one.socket.stat().st_mode) == 0o600
    for nonsense in (b"nonsense\n", b'{"do": "explode"}\n', b"[]\n", b'{"do": 1}\n', b"\xff\n", b"", b"{" * 100_000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as speaking:
            speaking.connect(str(one.socket))
            speaking.settimeout(10)
            try:
                speaking.sendall(nonsense)
                speaking.shutdown(socket.SHUT_WR)
                answer = speaking.recv(65536)
            except (BrokenPipeError, ConnectionResetError):
                continue
        assert b'"error"' in answer
    one.until(lambda status: True)


def test_a_second_daemon_with_the_same_socket_is_refused(daemon: Callable[..., Daemon], ends: tuple[str, str]) -> None:
    """While the first lives."""
    one = daemon(replication_of(*ends))
    one.until(lambda status: True)

    with process("replicator", "--config", str(one.config)) as second:
        _out, complaint = second.communicate(timeout=30)

    assert second.returncode == 1
    assert f"another daemon listens at {one.socket}. Nothing was done." in complaint.decode()
    one.until(lambda status: True)


def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")

    with pytest.raises(ConfigurationError, match="is there, and is no socket"):
        Control(path, Supervisor(Config(path, Settings(path), ())), lambda: None)

    assert path.read_text() == "precious"


def test_a_signal_to_reload_begins_what_is_new_and_ends_what_is_gone(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """A file with mistakes changes nothing."""
    for name in "abc":
        fill(f"sqlite:///{tmp_path}/{name}.db", 5)

    def to(name: str, more: str = "") -> str:
        return replication_of(f"sqlite:///{tmp_path}/{name}.db", f"sqlite:///{tmp_path}/to-{name}.db", more, name)

    one = daemon(to("a"), to("b"))
    one.idle("a")
    before = one.idle("b")
    one.write(to("b"), to("c"), to("a", 'collections = ["none"]'))
    assert one.running is not None
    one.running.send_signal(signal.SIGHUP)
    one.idle("c")
    changed, kept = one.idle("a"), one.idle("b")
    one.write(to("b", "mistake = 1"))
    one.running.send_signal(signal.SIGHUP)
    fill(f"sqlite:///{tmp_path}/c.db", 6)
    one.until(lambda status: status["new"] == 6, "c")
    refused = command("replicator", "reload", "--socket", str(one.socket))

    assert refused.exit_code == 1
    assert "no setting 'mistake'" in refused.stderr
    assert [each["name"] for each in asked(one.socket, "status")] == ["b", "c", "a"]
    assert kept["turns"] > before["turns"]  # it went on
    assert changed["new"] == 0
    one.signal(signal.SIGTERM)
    assert "no setting 'mistake'" in one.log.decode()


def test_what_waits_for_its_first_turn_is_not_shown_as_stopped(tmp_path: Path, ends: tuple[str, str]) -> None:
    """An end may take its time to be opened, and whoever asks meanwhile would think that nothing is done."""
    file = tmp_path / "r.toml"
    file.write_text(f"[[replication]]\n{replication_of(*ends)}")
    supervisor = Supervisor(config_of(file))

    [waiting] = supervisor.statuses()
    supervisor.stop(0)
    [ended] = supervisor.statuses()

    assert (waiting.state, ended.state) == ("catching up", "stopped")


def test_the_command_to_reload_is_as_good_as_the_signal(daemon: Callable[..., Daemon], ends: tuple[str, str]) -> None:
    """When it returns, the daemon goes by the new file."""
    one = daemon(replication_of(*ends))
    one.until(lambda status: True)
    one.write(replication_of(*ends, name="other"))

    done = command("replicator", "reload", "--config", str(one.config))

    assert done.exit_code == 0
    assert [each["name"] for each in asked(one.socket, "status")] == ["other"]


def test_what_is_wrong_with_the_file_is_said_at_once(tmp_path: Path) -> None:
    """Before anything is opened, with exit code 1; no file at all is a mistake of usage."""
    file = tmp_path / "r.toml"
    file.write_text("[[replication]]\nname = 'a'\nsource = 'sqlite:///a.db'\ntarget = 'sqlite:///b.db'\npol = 1\n")

    for words in (["replicator"], ["replicator", "check"]):
        refused = command(*words, "--config", str(file))
        assert refused.exit_code == 1
        assert "line 5: the replication 'a' has no setting 'pol'. Did you mean 'poll'?" in refused.stderr
    assert command("replicator").exit_code == 2
    assert command("replicator", "check").exit_code == 2
    assert not (tmp_path / "a.db").exists()


# --- many, and more than one -----------------------------------------------------------------------------------------


def test_two_daemons_on_one_link_do_not_interleave(daemon: Callable[..., Daemon], ends: tuple[str, str]) -> None:
    """Whoever has the lease works, the other waits: between them each document is taken once."""
    source, target = ends
    fill(source, 20_000)
    one, two = daemon(replication_of(*ends)), daemon(replication_of(*ends), name="other")
    one.idle()
    two.idle()
    fill(source, 20_500)
    until(lambda: count(target) == 20_500)
    first, second = one.idle(), two.idle()

    assert first["new"] + second["new"] == 20_500
    assert first["rows"] + second["rows"] == 20_500
    assert first["state"] == second["state"] == "idle"
    assert first["errors"] == second["errors"] == 0
    with vstore.open(target) as store:
        assert list(store.check()) == []


def test_fifty_replications_share_four_threads(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """From fifty stores into one, all come to rest, and a later change of any arrives."""
    for n in range(50):
        fill(f"sqlite:///{tmp_path}/s{n}.db", 20, f"c{n}")
    target = f"sqlite:///{tmp_path}/target.db"
    one = daemon(
        *(replication_of(f"sqlite:///{tmp_path}/s{n}.db", target, name=f"r{n}") for n in range(50)),
        settings="threads = 4",
    )
    for n in range(50):
        one.idle(f"r{n}")
    fill(f"sqlite:///{tmp_path}/s49.db", 21, "c49")
    one.until(lambda status: status["new"] == 21, "r49")

    assert one.running is not None
    threads = re.search(r"^Threads:\s*(\d+)", Path(f"/proc/{one.running.pid}/status").read_text(), re.MULTILINE)
    assert threads
    assert int(threads[1]) < 10
    assert one.signal(signal.SIGTERM) == 0
    with vstore.open(target) as store:
        assert len(store.collections()) == 50
        assert sum(len(store[name]) for name in store) == 50 * 20 + 1


def supervised(tmp_path: Path, threads: int, *replications: Replication) -> Supervisor:
    return Supervisor(Config(tmp_path / "r.toml", Settings(tmp_path / "s", threads=threads), replications))


def test_a_long_bootstrap_does_not_keep_up_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one thread; the small one has its turn while the large one is under way."""
    monkeypatch.setattr(replication.daemon.supervisor, "TURN_SECONDS", 0.05)
    large, small = f"sqlite:///{tmp_path}/large.db", f"sqlite:///{tmp_path}/small.db"
    fill(large, 20_000)
    fill(small, 10)
    supervisor = supervised(
        tmp_path,
        1,
        Replication("large", (large,), (f"sqlite:///{tmp_path}/a.db",)),
        Replication("small", (small,), (f"sqlite:///{tmp_path}/b.db",)),
    )
    supervisor.start()

    until(lambda: supervisor.statuses("small")[0].state == "idle")
    between = supervisor.statuses("large")[0]
    until(lambda: supervisor.statuses("large")[0].state == "idle")

    assert supervisor.stop(5)
    assert between.state == "bootstrapping"
    assert supervisor.statuses("large")[0].new == 20_000


def test_replications_that_wait_for_an_answer_never_hold_all_threads(tmp_path: Path) -> None:
    """Six lead to places that take long to say no, and two threads; the seventh does not notice."""
    silent = socket.create_server(("127.0.0.1", 0))  # connects, and says nothing
    try:
        port = silent.getsockname()[1]
        good = f"sqlite:///{tmp_path}/good.db"
        fill(good, 10)
        supervisor = supervised(
            tmp_path,
            2,
            *(
                Replication(f"bad{n}", (f"postgresql://127.0.0.1:{port}/db{n}",), (f"sqlite:///{tmp_path}/{n}.db",))
                for n in range(6)
            ),
            Replication("good", (good,), (f"sqlite:///{tmp_path}/to.db",), poll_seconds=0.05),
        )
        for job in supervisor._jobs.values():
            job.failing = job.definition.name.startswith("bad")  # as they are once each has had its first turn
        supervisor.start()

        until(lambda: supervisor.statuses("good")[0].state == "idle")
        fill(good, 11)
        until(lambda: supervisor.statuses("good")[0].new == 11)
        began = time.monotonic()

        assert not supervisor.stop(0.2)
        assert time.monotonic() - began < 5
    finally:
        silent.close()


def test_what_is_not_enabled_does_not_run(tmp_path: Path) -> None:
    supervisor = supervised(tmp_path, 1, Replication("a", ("sqlite:///a.db",), ("sqlite:///b.db",), enabled=False))

    assert supervisor.statuses() == []
    with pytest.raises(NotFound):
        supervisor.statuses("a")


# --- what it says ----------------------------------------------------------------------------------------------------


def metrics_in(text: str) -> dict[tuple[str, str], float]:
    """The samples of a text in Prometheus's format, each checked to have its HELP and TYPE before it."""
    kinds: dict[str, str] = {}
    found = {}
    for line in text.splitlines():
        if told := re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (.+)", line):
            if told[1] == "TYPE":
                assert told[3] in ("counter", "gauge")
                kinds[told[2]] = told[3]
        else:
            sample = re.fullmatch(r"([a-z_]+)\{((?:[a-z]+=\"(?:[^\"\\]|\\.)*\",?)+)\} (\S+)", line)
            assert sample, line
            assert sample[1] in kinds
            assert sample[1].endswith("_total") == (kinds[sample[1]] == "counter")
            found[sample[1], sample[2]] = float(sample[3])
    return found


def test_metrics_are_served_where_the_file_says(daemon: Callable[..., Daemon], ends: tuple[str, str]) -> None:
    """On this machine only; under one address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fill(ends[0], 12)
    one = daemon(replication_of(*ends), settings=f"metrics = {port}")
    one.idle()

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        kind, text = answer.headers["Content-Type"], answer.read().decode()
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
    refused.value.close()
    found = metrics_in(text)

    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert refused.value.code == 404
    assert found["vstore_replication_new_total", 'replication="one"'] == 12
    assert found["vstore_replication_pending", 'replication="one"'] == 0
    assert found["vstore_replication_lag_seconds", 'replication="one"'] == 0
    assert found["vstore_replication_state", 'replication="one",state="idle"'] == 1
    assert found["vstore_replication_state", 'replication="one",state="catching_up"'] == 0


def test_metrics_of_any_status_are_well_formed() -> None:
    """What is not known is left out, and names are escaped."""
    found = metrics_in(text_of([Status('a"b\\c\n', pending=None, error_at=1_500_000), Status("b", pending=3)]))

    assert found["vstore_replication_last_error_timestamp_seconds", 'replication="a\\"b\\\\c\\n"'] == 1.5
    assert ("vstore_replication_pending", 'replication="a\\"b\\\\c\\n"') not in found
    assert found["vstore_replication_pending", 'replication="b"'] == 3
    assert metrics_in(text_of([])) == {}


def test_a_port_that_is_taken_is_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match="metrics cannot be served"),
    ):
        Metrics("127.0.0.1", taken.getsockname()[1], list)


@pytest.mark.parametrize("form", ["json", "logfmt"])
def test_the_log_is_lines_that_programs_can_read(
    daemon: Callable[..., Daemon], ends: tuple[str, str], form: str
) -> None:
    one = daemon(replication_of(*ends), settings=f'log_format = "{form}"')
    one.until(lambda status: status["errors"])
    one.signal(signal.SIGTERM)

    lines = one.log.decode().splitlines()
    assert len(lines) >= 4
    for line in lines:
        if form == "json":
            fields = json.loads(line)
        else:
            fields = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)(?: |$)', line))
            assert re.fullmatch(r'(\w+=("(?:[^"\\]|\\.)*"|[^" ]*)( |$))+', line)
        assert {"time", "level", "logger", "message"} <= set(fields)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields["time"])
    assert any("there is no store at" in line and "replication" in line for line in lines)


def test_a_log_line_has_what_it_was_given_and_the_traceback() -> None:
    try:
        raise ValueError('with "quotes"\nand lines')
    except ValueError:
        record = logging.getLogger("n").makeRecord(
            "n", logging.ERROR, "f", 1, "%s %d", ("two words", 3), sys.exc_info(), extra={"replication": "a=b"}
        )

    json_fields = json.loads(Json().format(record))
    line = Logfmt().format(record)

    assert (json_fields["message"], json_fields["replication"]) == ("two words 3", "a=b")
    assert 'ValueError: with "quotes"' in json_fields["traceback"]
    assert 'replication="a=b" message="two words 3"' in line
    assert "\n" not in line


# --- what it costs others --------------------------------------------------------------------------------------------


def test_other_commands_do_not_wait_for_the_daemon_to_load(tmp_path: Path) -> None:
    """`vstore get` knows nothing of replication; help does, and still not of what the daemon is made of."""
    url = f"sqlite:///{tmp_path}/a.db"
    fill(url, 1)
    program = f"""
import sys
from vstore.cli import main
main(["get", "notes", "k0", "--store", {url!r}], standalone_mode=False)
assert not [name for name in sys.modules if name.startswith("replication")]
main(["--help"], standalone_mode=False)
assert "replication.daemon.commands" in sys.modules
heavy = {{"replication." + name for name in ("replicator", "daemon.config", "daemon.supervisor")}} | {{"http.server"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert threading.active_count() < 50  # and nothing above has left its threads behind


@pytest.mark.postgres
def test_ends_that_fall_silent_hold_up_nobody_else_and_are_told_of(
    tmp_path: Path, fresh_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three replications go to a server that keeps its connections and says nothing; there are two threads."""
    monkeypatch.setattr(replication.daemon.supervisor, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(replication.daemon.supervisor, "WATCH_SECONDS", 0.1)
    local, far = f"sqlite:///{tmp_path}/source.db", make_url(fresh_url("postgresql"))
    other = f"sqlite:///{tmp_path}/other.db"
    fill(local, 5)
    fill(other, 5, "more")
    wire = Proxy(far.host or "127.0.0.1", far.port or 5432)
    silent = far.set(host="127.0.0.1", port=wire.port).render_as_string(hide_password=False)
    file = tmp_path / "replicator.toml"
    targets = {"a": silent, "b": silent, "near": f"sqlite:///{tmp_path}/near.db"}
    file.write_text(
        "[replicator]\nthreads = 2\n"
        + "".join(
            f'[[replication]]\npoll = "50ms"\n{replication_of(other if name == "b" else local, to, name=name)}'
            for name, to in targets.items()
        )
    )
    supervisor = Supervisor(config_of(file))
    supervisor.start()

    def states() -> dict[str, str]:
        return {status.name: status.state for status in supervisor.statuses()}

    try:
        until(lambda: set(states().values()) == {"idle"}, 60)
        wire.stall = True
        fill(local, 10)
        fill(other, 10, "more")
        until(lambda: states() == {"a": "failing", "b": "failing", "near": "idle"}, 60)
        fill(local, 15)
        until(lambda: count(targets["near"]) == 15, 60)
        assert "nothing heard for" in supervisor.statuses("a")[0].error

        wire.stall = False
        until(lambda: set(states().values()) == {"idle"} and count(targets["a"]) == 15, 60)
        until(lambda: len(supervisor._threads) == 2, 60)  # those that stepped in have gone
    finally:
        wire.stall = False
        assert supervisor.stop()
        wire.close()
