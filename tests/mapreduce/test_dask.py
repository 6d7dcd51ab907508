"""Jobs on a Dask cluster: a real scheduler and two worker processes, which this module starts and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from distributed import Client

import vstore
from mapreduce import Count, Dask, F, StartError, Sum, query, run
from mapreduce.executors import Executor, dask, shipping
from mapreduce.executors.dask import unfit
from mapreduce.executors.testing import TravelSuite, is_running
from vstore.errors import ConfigurationError

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("dask")]


@contextmanager
def processes(*commands: list[str], log: Path) -> Iterator[None]:
    """Runs these commands, each in a process group of its own, and ends all of it."""
    # So that a task may end two workers, and not four, before it is given up.
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    started = []
    try:
        with log.open("wb") as output:
            for command in commands:
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *command],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        env=environment,
                        cwd=log.parent,
                    )
                )
        yield
    finally:
        for process in reversed(started):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # a nanny ends its worker, which has a group of its own
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def scheduler(port: int) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    return ["distributed.cli.dask_scheduler", *where, "--idle-timeout", "120s"]  # should pytest be killed


def connected(address: str) -> Any:
    return Client(address, set_as_default=False, timeout=30)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a scheduler with two workers of one thread each, under nannies that restart them."""
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    workers = [
        "distributed.cli.dask_worker",
        url,
        "--nworkers",
        "2",
        "--nthreads",
        "1",
        "--no-dashboard",
        "--death-timeout",
        "60",
    ]
    folder = tmp_path_factory.mktemp("cluster")
    with processes(scheduler(port), workers, log=folder / "log"):
        with connected(url) as client:
            client.wait_for_workers(2, timeout=30)
        yield url


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with connected(address) as client:
        yield client


@pytest.fixture
def cluster(client: Client) -> Dask:
    """The cluster with all of its workers, whatever the test before did to them."""
    client.wait_for_workers(2, timeout=30)
    return Dask(client)


class TestDask(TravelSuite):
    """The contract of all executors."""

    @pytest.fixture(autouse=True)
    def _use(self, cluster: Dask) -> None:
        self.cluster = cluster

    def executor(self) -> Executor:
        return self.cluster


# jobs


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def orders(request: pytest.FixtureRequest, fresh_url: Callable[[str], str]) -> Iterator[Any]:
    """3,000 documents in a database that the workers can reach."""
    with vstore.open(fresh_url(request.param)) as store:
        posts = store["orders"]
        posts.put_many((f"o{n:04}", {"shop": f"s{n % 3}", "cents": n, "words": f"w{n} w{n % 7}"}) for n in range(3000))
        yield posts


def test_workers_read_the_database_themselves(orders: Any, address: str) -> None:
    """A job on a collection by the address of a cluster, with functions that travel; this process maps nothing."""
    factor = 2

    def by_shop(key: str, order: Any) -> Iterator[tuple[str, int]]:
        import os

        yield order["shop"], factor * order["cents"]
        yield f"process {os.getpid()}", 1

    with Dask(address) as executor:
        found = dict(run(over=orders, map=by_shop, reduce=Sum(), executor=executor))

    processes = {key: found.pop(key) for key in list(found) if key.startswith("process")}
    assert found == {"s0": 2_997_000, "s1": 2_999_000, "s2": 3_001_000}
    assert f"process {os.getpid()}" not in processes
    assert sum(processes.values()) == 3000


def test_a_query_runs_on_the_cluster(orders: Any, client: Client) -> None:
    rows = query(orders, executor=client).where(F.cents >= 2990).select(F.shop, F.cents)
    sums = query(orders, executor=client).group_by(F.shop).aggregate(n=Count(), sum=Sum(F.cents)).order_by("shop")

    assert sorted(row["cents"] for row in rows) == list(range(2990, 3000))
    assert list(sums) == [
        {"shop": "s0", "n": 1000, "sum": 1_498_500},
        {"shop": "s1", "n": 1000, "sum": 1_499_500},
        {"shop": "s2", "n": 1000, "sum": 1_500_500},
    ]


def test_many_keys_do_not_pass_through_this_process(
    orders: Any, cluster: Dask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted runs stay with the workers and move between them; what is fetched are the segments of the result, as
    they are read."""
    arrived: list[int] = []
    fetched: list[int] = []

    def measured(data: bytes, what: str) -> Any:
        arrived.append(len(data))
        return shipping.unpacked(data, what)

    monkeypatch.setattr(dask, "unpacked", measured)
    fetch = Dask.fetch

    def counted(self: Dask, kept: Any) -> Any:
        fetched.append(1)
        return fetch(self, kept)

    monkeypatch.setattr(Dask, "fetch", counted)

    def words(key: str, order: Any) -> Iterator[tuple[str, int]]:
        for word in order["words"].split():
            for n in range(20):
                yield f"{word}/{n}", 1

    expected = Counter(f"{word}/{n}" for i in range(3000) for word in (f"w{i}", f"w{i % 7}") for n in range(20))
    with run(over=orders, map=words, reduce=Sum(), executor=cluster, memory=400_000) as result:
        on_the_way = sum(arrived)
        assert fetched == []
        found = list(result)

    assert result.counters.spills > 2
    assert found == sorted(expected.items())
    assert len(fetched) > 1
    assert sum(arrived) - on_the_way > 3 * on_the_way


def test_a_job_survives_a_killed_worker(orders: Any, cluster: Dask, tmp_path: Path) -> None:
    """SIGKILL in the middle of a split: it is done again elsewhere, and nothing is counted twice."""
    marker = str(tmp_path / "killed")

    def fatal_once(key: str, order: Any) -> Iterator[tuple[str, int]]:
        import os
        import signal

        if key == "o1500" and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        yield order["shop"], 1

    found = dict(run(over=orders, map=fatal_once, reduce=Count(), executor=cluster))

    assert os.path.exists(marker)
    assert found == {"s0": 1000, "s1": 1000, "s2": 1000}


def test_kept_data_that_died_with_its_worker_is_made_again(cluster: Dask) -> None:
    """Even after the run is over, and its function needed no more."""

    def work(n: int) -> tuple[int, list[int]]:
        import os

        return os.getpid(), [n, n * 10]

    ((process, kept),) = [outcome.result for outcome in cluster.run(work, [7], keep=True)]
    os.kill(process, signal.SIGKILL)

    assert cluster.fetch(kept.part(1)) == 70
    assert not is_running(process)


def test_nothing_stays_on_the_cluster(cluster: Dask, client: Client) -> None:
    """Functions and tasks are let go when their run ends, is closed or fails, and kept data when nobody has it."""
    before = set(_keys_on(client))  # a test that has failed may hold some by its traceback
    list(cluster.run(lambda n: n, range(5)))
    kept = [outcome.result[1] for outcome in cluster.run(lambda n: (n, [n]), range(3), keep=True)]
    with pytest.raises(ZeroDivisionError) as caught:  # whose traceback refers to the run
        list(cluster.run(lambda n: 1 // n, [1, 1, 0, 1]))
    closed = cluster.run(lambda n: n, range(50))
    next(closed)
    closed.close()
    del kept

    deadline = monotonic() + 20
    while left := set(_keys_on(client)) - before:
        assert monotonic() < deadline, left
        sleep(0.02)
    assert caught.value


def _keys_on(client: Any) -> list[str]:
    return client.run_on_scheduler(_keys)  # type: ignore[no-any-return]


def _keys(dask_scheduler: Any) -> list[str]:
    return [str(key) for key in dask_scheduler.tasks if str(key).startswith("mapreduce-")]


def test_the_function_is_packed_once(cluster: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    packings: list[Any] = []

    def counted(work: Any) -> bytes:
        packings.append(work)
        return shipping.packed_function(work)

    monkeypatch.setattr(dask, "packed_function", counted)

    list(cluster.run(lambda n: n, range(20)))

    assert len(packings) == 1


# what cannot be used


def test_workers_bounds_the_tasks_that_are_out(client: Client) -> None:
    taken: list[int] = []

    def supply() -> Iterator[int]:
        for n in range(10):
            taken.append(n)
            yield n

    outcomes = Dask(client, workers=1).run(lambda n: n, supply())
    assert next(outcomes).result == 0
    assert len(taken) == 2  # the next one is sent before the outcome is given
    outcomes.close()


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    where = f"tcp://127.0.0.1:{free_port()}"

    with pytest.raises(StartError, match=rf"{where} cannot be used.*Nothing was run"):
        list(Dask(where, start_seconds=0.5).run(lambda n: n, [1]))


def test_a_cluster_without_workers_is_refused_in_time(tmp_path: Path) -> None:
    port = free_port()

    with (
        processes(scheduler(port), log=tmp_path / "log"),
        Dask(f"tcp://127.0.0.1:{port}", start_seconds=4) as executor,
        pytest.raises(StartError, match=r"cannot be used.*have a worker, within 4 s"),
    ):
        list(executor.run(lambda n: n, [1]))


@pytest.mark.parametrize(
    ("version", "python", "complaint"),
    [
        (vstore.__version__, "3.{minor}.99", ""),
        (PackageNotFoundError("vstore"), "3.{minor}.1", "has no vstore. Nothing was run. Install vstore=="),
        ("0.0.7", "3.{minor}.1", f"has vstore 0.0.7, and this program {vstore.__version__}. Nothing was run."),
        (vstore.__version__, "3.4.1", "runs Python 3.4.1, and this program 3."),
        (OSError("it has just died"), "3.{minor}.1", ""),
    ],
)
def test_workers_need_the_same_versions(version: Any, python: str, complaint: str) -> None:
    found = unfit({"tcp://w:1": version}, {"tcp://w:1": python.format(minor=sys.version_info.minor)})

    assert complaint in found
    assert bool(found) == bool(complaint)


def test_unfit_workers_are_refused(cluster: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vstore.__version__", "99")

    with pytest.raises(StartError, match=r"worker tcp://\S+ of the Dask cluster has vstore \S+, and this program 99"):
        list(cluster.run(lambda n: n, [1]))


def test_a_closed_executor_connects_again(address: str) -> None:
    executor = Dask(address)
    first = [outcome.result for outcome in executor.run(lambda n: n, [1])]
    executor.close()
    executor.close()

    with executor:
        assert first == [outcome.result for outcome in executor.run(lambda n: n, [1])] == [1]


def test_a_client_that_was_given_is_not_closed(client: Client) -> None:
    with Dask(client) as executor:
        list(executor.run(lambda n: n, [1]))

    assert client.status == "running"


def test_what_is_no_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="Dask cannot use int"):
        Dask(8786)
    with pytest.raises(ConfigurationError, match="workers= is 0"):
        Dask("tcp://127.0.0.1:1", workers=0)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"vstore\[dask\]"):
        Dask("tcp://127.0.0.1:1")
