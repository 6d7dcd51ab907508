"""Work on a Dask cluster that exists: its scheduler hands out the tasks, its workers read the databases themselves.

    here                 scheduler            workers
      │ ── function, task ──► │ ──────────────► │ work(task)
      │                       │                 ├─► answer, fetched by this process
      │                       │                 └─► kept data, which stays and moves from worker to worker

What Dask does well is left to it: a task of a worker that died is run again,
kept data that died with a worker are made again, and data move only between
workers. What is done here: functions travel by `shipping`, so that they mean the
same on every executor; errors travel as `Failure`; and only as many tasks are
out as the workers need, since a scheduler is not made for millions.

`distributed` is imported when an executor is used, never with this module, which
the workers import.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any
from uuid import uuid4
from weakref import finalize

import vstore
from mapreduce.errors import StartError, TaskError, WorkerLost
from mapreduce.executors import Kept, Outcome, Using, deadline_exceeded, described, late
from mapreduce.executors.failure import Failure
from mapreduce.executors.shipping import Home, living_in, packed, packed_function, unpacked, unpacked_function
from vstore.errors import ConfigurationError

TASKS_PER_THREAD = 2  # one is worked on and one waits at the worker, so that a round trip of some ms costs nothing
PART_BYTES = 4 << 20  # Dask warns of single messages to its scheduler of more than 10 MB
LOOK_SECONDS = 5.0  # between two looks whether the cluster has workers, when nothing comes


class Dask:
    """The workers of a Dask cluster.

    Args:
        address_or_client: the scheduler's address, such as `"tcp://10.0.0.5:8786"`,
            or a `distributed.Client`, which stays the caller's to close.
        workers: how many tasks at a time; by default one for each thread of the
            cluster.
        start_seconds: how long to wait for the scheduler and the first worker.

    With an address, the connection is made when it is first needed and kept for
    further jobs and for reading large results. `close`, leaving a `with`, or
    dropping the object ends it.

    A task that is being worked on cannot be ended from outside, since it is a
    thread of its worker: after a deadline or Ctrl-C nothing new begins, and what
    such tasks come to is thrown away.

    Raises:
        ConfigurationError: the library is missing, or an argument cannot be used.
    """

    def __init__(self, address_or_client: Any, workers: int | None = None, start_seconds: float = 30.0) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise ConfigurationError(
                "Dask needs the library `distributed`. Install it with `pip install 'vstore[dask]'`. Nothing was run."
            ) from error
        given = isinstance(address_or_client, Client)
        if not given and not isinstance(address_or_client, str):
            raise ConfigurationError(
                f"Dask cannot use {type(address_or_client).__name__}: pass the address of a scheduler, such as "
                f"'tcp://10.0.0.5:8786', or a distributed.Client. Nothing was run."
            )
        if given and address_or_client.asynchronous:
            raise ConfigurationError(
                "Dask cannot use an asynchronous distributed.Client: make it with asynchronous=False. Nothing was run."
            )
        if workers is not None and workers < 1:
            raise ConfigurationError(f"workers= is {workers}; at least one is needed. Nothing was run.")
        self._address = None if given else address_or_client
        self._client: Any = address_or_client if given else None
        self._asked = workers
        self._start_seconds = start_seconds
        self._threads = 0
        self._accepted: set[str] = set()  # addresses of workers that have said what they have
        self._lock = Lock()
        self._end: finalize[..., Any] | None = None

    @property
    def workers(self) -> int:
        """As asked, or the threads that the cluster had when a run last began. Connects if nothing has yet.

        Raises:
            StartError: the cluster cannot be used.
        """
        if self._asked is None and not self._threads:
            self._ready(None)
        return self._asked or self._threads

    @property
    def local(self) -> bool:
        """Never: files of this machine are not passed on, even if the workers should be on it."""
        return False

    def run(
        self, work: Callable[..., Any], tasks: Iterable[Any], *, keep: bool = False, deadline: float | None = None
    ) -> Generator[Outcome, None, None]:
        """As for every executor: `Executor.run`. A task is counted as one attempt, however often Dask has tried it.

        Raises:
            StartError: the cluster cannot be used.
            WorkerLost: workers died of a task, or all are gone.
        """
        waiting = enumerate(tasks)
        first = next(waiting, None)
        if first is None:
            return
        flights = _Flights(self._ready(deadline), packed_function(work), keep, self._start_seconds)
        most = self._asked or self._threads * TASKS_PER_THREAD
        finished: list[Outcome] = []
        done = 0
        try:
            flights.start(*first)
            while True:
                while len(flights) < most and (numbered := next(waiting, None)):
                    flights.start(*numbered)
                # Only now, when the workers have new tasks.
                for outcome in finished:
                    done += 1
                    yield outcome
                if not len(flights):
                    return
                finished = flights.landed(deadline, done)
        finally:
            flights.end()

    def fetch(self, kept: Kept) -> Any:
        """The data of a `Kept`, brought here.

        Raises:
            WorkerLost: it was lost with its worker and cannot be made again.
        """
        picked = kept.held.client.submit(_picked, kept.held, kept.index, key=_key(), pure=False)
        try:
            return _restored(picked.result())
        except Exception as error:
            raise _infrastructure("data that a worker had kept", error) from error

    def close(self) -> None:
        """End the connection, if it was made from an address. Large results of its jobs can no longer be read."""
        with self._lock:
            if self._end is not None and self._end.detach():
                client, self._client, self._end = self._client, None, None
                client.close()

    def __enter__(self) -> Dask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Dask({self._address!r})" if self._address else f"Dask({self._client!r})"

    def _ready(self, deadline: float | None) -> Any:
        """The client of a cluster that has workers, all of which can run jobs.

        Raises:
            StartError: there is none within the time.
            DeadlineExceeded: nor before the deadline.
        """
        limit = self._start_seconds if deadline is None else min(self._start_seconds, deadline - monotonic())
        if limit <= 0:
            raise deadline_exceeded(0)
        with self._lock:
            try:
                client = self._client = self._client or self._connected(limit)
                client.wait_for_workers(1, timeout=limit)
                threads: dict[str, int] = client.nthreads()
                new = sorted(threads.keys() - self._accepted)
                if new:
                    # Both are functions of the standard library, which a worker has even if it has nothing of ours.
                    versions = client.run(metadata.version, "vstore", workers=new, on_error="return")
                    pythons = client.run(platform.python_version, workers=new, on_error="return")
            except (OSError, ValueError) as error:  # TimeoutError is an OSError; ValueError: an address that is none
                if late(deadline):
                    raise deadline_exceeded(0) from error
                where = self._address or self._client.scheduler.address
                raise StartError(
                    f"the Dask cluster at {where} cannot be used: {type(error).__name__}: {error}. Nothing was run. "
                    f"Its scheduler has to be reachable from here, and to have a worker, within "
                    f"{self._start_seconds:g} s."
                ) from error
            if new:
                complaint = unfit(versions, pythons)
                if complaint:
                    raise StartError(complaint)
                self._accepted.update(new)
            self._threads = sum(threads.values())
            return client

    def _connected(self, limit: float) -> Any:
        from distributed import Client

        client: Any = Client(self._address, set_as_default=False, timeout=limit)  # type: ignore[no-untyped-call]
        self._end = finalize(self, _close, client)
        self._end.atexit = False  # Dask sees to that itself
        return client


def unfit(versions: Mapping[str, Any], pythons: Mapping[str, Any]) -> str:
    """Why workers cannot run jobs of this program, for a message; empty if all can.

    Args:
        versions: of vstore, by the worker's address; or the error of asking for it.
        pythons: the same of Python.
    """
    here = ".".join(platform.python_version_tuple()[:2])
    for worker in sorted(versions):
        version, python = versions[worker], pythons.get(worker, "")
        if isinstance(version, metadata.PackageNotFoundError):
            return (
                f"worker {worker} of the Dask cluster has no vstore. Nothing was run. Install "
                f"vstore=={vstore.__version__}, with the drivers of your databases, on all workers."
            )
        if isinstance(version, str) and version != vstore.__version__:
            return (
                f"worker {worker} of the Dask cluster has vstore {version}, and this program {vstore.__version__}. "
                f"Nothing was run. Install the same version on both."
            )
        if isinstance(python, str) and python and ".".join(python.split(".")[:2]) != here:
            return (
                f"worker {worker} of the Dask cluster runs Python {python}, and this program {here}: functions cannot "
                f"be sent between them. Nothing was run. Use the same minor version on both."
            )
    return ""


class _Flights:
    """The tasks of one run that are out."""

    def __init__(self, client: Any, function: bytes, keep: bool, patience_seconds: float) -> None:
        self._client = client
        self._keep = keep
        self._patience_seconds = patience_seconds
        self._flying: dict[int, tuple[str, list[Any]]] = {}  # name, and futures: what is awaited, then what it needs
        self._landed: SimpleQueue[int] = SimpleQueue()
        self._function = self._submit(Function, self._sent(function))

    def __len__(self) -> int:
        return len(self._flying)

    def start(self, number: int, task: Any) -> None:
        """Send a task.

        Raises:
            TaskError: it cannot be pickled.
        """
        name = f"split {number}{described(task)}"
        used: list[Any] | None = None
        if isinstance(task, Using):
            # A task for each part, so that only the part moves to where it is needed.
            used = [
                each.held if each.index is None else self._submit(_picked, each.held, each.index) for each in task.kept
            ]
            task = task.task
        sent = self._sent(packed(task, name))
        futures = [self._submit(_worked, self._function, name, sent, used, self._keep)]
        if self._keep:
            futures.insert(0, self._submit(_answer, futures[0]))
        self._flying[number] = name, futures
        futures[0].add_done_callback(lambda _future: self._landed.put(number))

    def landed(self, deadline: float | None, done: int) -> list[Outcome]:
        """The outcomes that have come; waits for one.

        Raises:
            DeadlineExceeded: the time for the job is up.
            WorkerLost: a task has ended several workers, or there are none left.
            Exception: what the work raised.
        """
        numbers = [self._next(deadline, done)]
        with suppress(Empty):
            while True:
                numbers.append(self._landed.get_nowait())
        flights = [self._flying[number] for number in numbers]
        for name, futures in flights:
            if futures[0].status == "error":
                raise _infrastructure(name, futures[0].exception()) from futures[0].exception()
        try:
            answers = self._client.gather([futures[0] for _, futures in flights])
        except Exception as error:  # a worker may have died since, and all those that tried again
            raise _infrastructure(" or ".join(name for name, _ in flights), error) from error
        outcomes = []
        for number, (name, futures), answer in zip(numbers, flights, answers, strict=True):
            succeeded, value, seconds = unpacked(answer, f"the result of {name}")
            if not succeeded:
                raise value.exception()
            result = (value, Kept(futures[1])) if self._keep else value
            outcomes.append(Outcome(number, result, seconds=seconds))
        for number in numbers:  # only now that none has failed: what has not been handed on is to be let go
            del self._flying[number]
        return outcomes

    def end(self) -> None:
        """Let go of all that is still out, and of the function; an error's traceback may refer to them for long."""
        self._function = None
        futures = [future for _, futures in self._flying.values() for future in futures]
        self._flying.clear()
        if futures:
            with suppress(Exception):  # the cluster is gone, and they with it
                self._client.cancel(futures, force=True)

    def _next(self, deadline: float | None, done: int) -> int:
        alone_since: float | None = None
        while True:
            left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - monotonic())
            with suppress(Empty):
                return self._landed.get(timeout=max(0.0, left))
            if late(deadline):
                raise deadline_exceeded(done)  # those under way go on, as no one can end them
            threads: Any = None
            with suppress(OSError):  # not connected at the moment; should it stay so, Dask gives all futures up
                threads = self._client.nthreads()
            if threads == {}:
                alone_since = alone_since or monotonic()
                if monotonic() - alone_since > self._patience_seconds:
                    raise WorkerLost(
                        f"the Dask cluster has had no worker for {self._patience_seconds:g} s; {done} splits were "
                        f"done. Nothing was stored. Start workers and run the job again."
                    )
            else:
                alone_since = None

    def _sent(self, data: bytes) -> Any:
        """Data as an argument of a task: itself, or futures of its parts if it is large."""
        if len(data) <= PART_BYTES:
            return data
        # As tasks and not by `scatter`: what is scattered is lost with its worker, a task is run again.
        return [self._submit(bytes, data[start : start + PART_BYTES]) for start in range(0, len(data), PART_BYTES)]

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._client.submit(function, *arguments, key=_key(), pure=False)


class Function:
    """The function of a run, on a worker: read once by each process, and gone when Dask lets go of it after the run."""

    def __init__(self, data: bytes | list[bytes]) -> None:
        self._data = data if isinstance(data, bytes) else b"".join(data)
        self._home = Home()
        self._work: Callable[..., Any] | None = None
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Function, (self._data,)  # to another worker, which reads it anew

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + len(self._data)

    @contextmanager
    def at_home(self) -> Iterator[Callable[..., Any]]:
        """The function, and what is unpacked inside finds itself in its home.

        Raises:
            TaskError: a module that it needs cannot be imported.
        """
        with living_in(self._home):
            with self._lock:
                self._work = self._work or unpacked_function(self._data)
            yield self._work


def _worked(
    function: Function, name: str, task: bytes | list[bytes], used: list[Any] | None, keep: bool
) -> bytes | tuple[bytes, Any]:
    """The answer, and what is kept. That is packed, of a list each element by itself, since parts may be asked for."""
    data: Any = None
    try:
        with function.at_home() as work:
            argument = unpacked(task if isinstance(task, bytes) else b"".join(task), "a task")
            arguments = (argument,) if used is None else (argument, [_restored(_picked(each, None)) for each in used])
            started = perf_counter()
            result = work(*arguments)
            seconds = perf_counter() - started
            if keep:
                result, made = result
                what = f"what {name} keeps"
                data = [packed(each, what) for each in made] if type(made) is list else packed(made, what)
            answer = packed((True, result, seconds), f"the result of {name}")
    except BaseException as error:  # SystemExit too, which would end the worker for all its users
        answer, data = packed((False, Failure.of(error), 0.0), "a failure"), None
    return (answer, data) if keep else answer


def _answer(made: tuple[bytes, Any]) -> bytes:
    return made[0]


def _picked(made: Any, index: int | None) -> Any:
    """The packed data of a kept result, or a part of it; a part that was picked already is what it is."""
    data = made[1] if isinstance(made, tuple) else made
    return data if index is None else data[index]


def _restored(data: bytes | list[bytes]) -> Any:
    if isinstance(data, list):
        return [unpacked(each, "kept data") for each in data]
    return unpacked(data, "kept data")


def _infrastructure(name: str, error: BaseException) -> BaseException:
    """What to raise when it was not the work that failed but the way there."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return WorkerLost(
            f"{name} was given to {error.allowed_failures + 1} workers of the Dask cluster that died, the last one at "
            f"{error.last_worker.address}. Nothing was stored. A crash in compiled code or a lack of memory are the "
            f"usual reasons, in this split or in one that was there with it; workers=1 with a debugger shows the place."
        )
    if isinstance(error, ImportError):
        return StartError(
            f"a worker of the Dask cluster could not read {name}: {type(error).__name__}: {error}. Nothing was stored. "
            f"Install vstore=={vstore.__version__} on all workers."
        )
    if isinstance(error, TaskError):
        return error
    return WorkerLost(
        f"{name} was lost by the Dask cluster: {type(error).__name__}: {error}. Nothing was stored. Was the scheduler "
        f"stopped, or its tasks cancelled? If not, run the job again."
    )


def _key() -> str:
    return f"mapreduce-{uuid4().hex}"


def _close(client: Any) -> None:
    # Whoever drops the executor may be the client's own thread, which cannot wait for itself.
    with suppress(RuntimeError):  # the program is ending, and the connection with it
        Thread(target=client.close, daemon=True).start()
