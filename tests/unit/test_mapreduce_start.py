"""Worker processes start, and end, however the program was started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mapreduce.errors import StartError
from mapreduce.executors import pool
from mapreduce.executors.processes import Processes
from mapreduce.executors.testing import is_running

pytestmark = [pytest.mark.timeout(60), pytest.mark.skipif(sys.platform == "win32", reason="needs a fork server")]

# Everything a script defines for itself, and no main guard; each print would come twice if a worker ran the script.
SCRIPT = """
import json
from dataclasses import dataclass
from mapreduce import Sum, run

FACTOR = 10

@dataclass
class Seen:
    n: int

class Widest:
    def zero(self): return Seen(0)
    def add(self, acc, value): return Seen(max(acc.n, value))
    def merge(self, a, b):
        assert type(a) is type(b) is Seen
        return Seen(max(a.n, b.n))
    def finish(self, acc): return acc

def depth(value): return deeper(value) if isinstance(value, list) else 0
def deeper(value): return 1 + max(map(depth, value), default=0)
def by_depth(key, value): yield depth(value), FACTOR * key

print("start")
documents = [(n, json.loads("[" * (n % 3) + "]" * (n % 3) or "0")) for n in range(60)]
print(list(run(over=documents, map=by_depth, reduce=Sum(), workers=2)))
print(run(over=documents, map=lambda key, value: [("key", key)], reduce=Widest(), workers=2)["key"] == Seen(59))
"""
PRINTED = "start\n[(0, 5700), (1, 5900), (2, 6100)]\nTrue\n"
IN_A_THREAD = """
import threading
def job():
    from mapreduce import Sum, run
    print(dict(run(over=[("a", 1), ("b", 2)], map=lambda key, value: [("n", value)], reduce=Sum(), workers=2)))
thread = threading.Thread(target=job, daemon=True)
thread.start()
thread.join()
"""


def python(*arguments: str, text: str = "", folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], input=text, capture_output=True, text=True, timeout=50, cwd=folder, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)

    assert python("script.py", folder=tmp_path) == PRINTED
    assert python("-m", "script", folder=tmp_path) == PRINTED


def test_a_program_read_from_stdin_works(tmp_path: Path) -> None:
    assert python("-", text=SCRIPT, folder=tmp_path) == PRINTED


def test_a_program_given_as_an_argument_works(tmp_path: Path) -> None:
    assert python("-c", SCRIPT, folder=tmp_path) == PRINTED


def test_a_daemon_thread_works(tmp_path: Path) -> None:
    assert python("-c", IN_A_THREAD, folder=tmp_path) == "{'n': 3}\n"


def test_workers_see_the_environment_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork server was started before the variable was set."""

    def work(name: str) -> str | None:
        import os

        return os.environ.get(name)

    list(Processes(1).run(work, ["MAPREDUCE_TEST"]))
    monkeypatch.setenv("MAPREDUCE_TEST", "set since")

    assert [outcome.result for outcome in Processes(1).run(work, ["MAPREDUCE_TEST"])] == ["set since"]


def test_a_worker_that_does_not_report_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    list(Processes(1).run(lambda n: n, [1]))  # so that the fork server itself is up
    pool.close_workers()
    monkeypatch.setattr(pool, "serve", lambda connection, idle_seconds: connection.recv_bytes())

    with pytest.raises(StartError, match="did not report in time"):
        list(Processes(1, start_seconds=0.3).run(lambda n: n, [1]))


def test_a_worker_that_ends_before_it_reports_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pool.close_workers()
    monkeypatch.setattr(pool, "serve", lambda connection, idle_seconds: None)

    with pytest.raises(StartError, match=r"ended before it was ready \(with exit code 0\)"):
        list(Processes(1).run(lambda n: n, [1]))


def test_a_worker_has_no_workers_of_its_own() -> None:
    """A job inside a map function runs inline by default, and says why it cannot do otherwise."""

    def work(workers: int | None) -> list[object]:
        from mapreduce import StartError, Sum, run

        try:
            return list(run(over=[("a", 1)], map=lambda key, value: [(key, value)], reduce=Sum(), workers=workers))
        except StartError as error:
            return [str(error)]

    default, explicit = [outcome.result for outcome in Processes(1).run(work, [None, 2])]

    assert default == [("a", 1)]
    assert "Use workers=1" in explicit[0]


@pytest.mark.parametrize(
    ("send", "number"), [(os.kill, signal.SIGINT), (os.killpg, signal.SIGINT), (os.kill, signal.SIGKILL)]
)
def test_workers_end_with_their_program(tmp_path: Path, send: Callable[[int, int], None], number: int) -> None:
    """Ctrl-C to the program alone, or to its whole process group as a terminal sends it; and a kill."""
    program = """
from mapreduce import Sum, run
def endless(key, value):
    import os, time
    os.write(1, b"%d\\n" % os.getpid())
    while True: time.sleep(1)
    yield
run(over=[(1, 1), (2, 2)], map=endless, reduce=Sum(), workers=2)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    )
    with owner:
        try:
            assert owner.stdout is not None
            workers = {int(owner.stdout.readline()), int(owner.stdout.readline())}  # both are busy now
            send(owner.pid, number)
            _, complaint = owner.communicate(timeout=20)  # its pipes end when the last worker has ended
        finally:
            with suppress(ProcessLookupError):
                os.killpg(owner.pid, signal.SIGKILL)

    assert owner.returncode == -number
    assert complaint.count("KeyboardInterrupt") == (number == signal.SIGINT)
    assert len(workers) == 2
    assert [worker for worker in workers if is_running(worker)] == []
