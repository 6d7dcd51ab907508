"""The socket by which a running daemon is asked and told: JSON lines, for this user only.

    {"do": "status"}                            → one line for each replication, then {"ok": true}
    {"do": "pause", "replication": "notes"}     → {"ok": true}; without a name, all of them. `resume` alike
    {"do": "reload"}                            → {"ok": true}
    {"do": "stop"}                              → {"ok": true}, and the end of the line when the daemon has ended
    what cannot be done                         → {"error": …}

Who has the socket is told by a lock on a file beside it, which ends with its
process, however that ends. So the socket of a daemon that was killed is taken over, and that
of a living one never is.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from replication.replicator import Status
from vstore.errors import ConfigurationError, NotFound, StoreError, Unavailable

try:
    import fcntl
except ImportError:  # where there are no such sockets either
    fcntl = None  # type: ignore[assignment]

REQUEST_BYTES = 64 * 1024
ANSWER_SECONDS = 15.0
"""How long a daemon may take to answer, and to end."""


class Daemon(Protocol):
    """What can be asked and told."""

    def statuses(self, name: str | None = None) -> list[Status]: ...

    def pause(self, name: str | None = None) -> None: ...

    def resume(self, name: str | None = None) -> None: ...

    def reload(self) -> None: ...


class Control:
    """The daemon's end of the socket."""

    def __init__(self, path: Path, daemon: Daemon, stop: Callable[[], None]) -> None:
        """Takes the socket, and begins to listen. Call it before there are threads.

        Raises:
            ConfigurationError: another daemon has it, or it cannot be made.
                Nothing was done.
        """
        self.path = path
        self._daemon = daemon
        self._stop = stop
        self._waiting: list[socket.socket] = []
        self._lock = -1
        if fcntl is None or not hasattr(socket, "AF_UNIX"):
            raise ConfigurationError("the daemon needs Unix sockets, which this system has not. Nothing was done.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take()
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            before = os.umask(0o177)  # of the process, so there may be no other thread yet
            try:
                self._listener.bind(str(path))
            finally:
                os.umask(before)
            self._listener.listen(8)
        except OSError as error:
            self._drop()
            raise ConfigurationError(
                f"the socket {path} cannot be made: {error.strerror or error}. Nothing was done. Set another one with "
                f"socket = … in [replicator]."
            ) from error
        except BaseException:
            self._drop()
            raise
        threading.Thread(target=self._serve, name="replication-control", daemon=True).start()

    def close(self) -> None:
        """Gives the socket up. Those who asked for the end learn of it when the process has ended."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self._listener.close()

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another daemon listens at {self.path}. Nothing was done. Stop it with `vstore replicator stop "
                f"--socket {self.path}`, or set another socket in [replicator]."
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise ConfigurationError(
                    f"{self.path} is there, and is no socket. Nothing was done. Remove it, or set another socket in "
                    f"[replicator]."
                )
            os.unlink(self.path)  # of a daemon that was killed

    def _drop(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            connection.settimeout(2.0)  # one who does not speak does not keep up the others
            kept = False
            try:
                kept = self._answer(connection)
            except (OSError, ValueError):
                pass
            finally:
                if not kept:
                    connection.close()

    def _answer(self, connection: socket.socket) -> bool:
        """Answers one request; whether the connection is to stay open until the process ends."""
        line = b""
        while not line.endswith(b"\n") and len(line) < REQUEST_BYTES:
            part = connection.recv(4096)
            if not part:
                break
            line += part
        try:
            request = json.loads(line)
            lines, stops = self._done(request["do"], request.get("replication"))
        except StoreError as error:  # before KeyError, which NotFound is as well
            lines, stops = [{"error": str(error), "missing": isinstance(error, NotFound)}], False
        except (ValueError, KeyError, TypeError):
            lines, stops = [{"error": 'not a request: send {"do": "status"} and a line feed.'}], False
        connection.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in lines))
        if stops:
            self._waiting.append(connection)
            self._stop()
        return stops

    def _done(self, what: str, name: str | None) -> tuple[list[dict[str, Any]], bool]:
        found: list[dict[str, Any]] = []
        match what:
            case "status":
                found = [asdict(status) for status in self._daemon.statuses(name)]
            case "pause":
                self._daemon.pause(name)
            case "resume":
                self._daemon.resume(name)
            case "reload":
                self._daemon.reload()
            case "stop":
                pass
            case _:
                return [{"error": f"{what!r} cannot be done: status, pause, resume, reload, stop."}], False
        return [*found, {"ok": True}], what == "stop"


def asked(path: Path, what: str, name: str | None = None) -> list[dict[str, Any]]:
    """Asks the daemon at a socket; what it answers. `stop` returns when it has ended.

    Raises:
        NotFound: it has no replication of that name.
        Unavailable: there is no daemon, or it does not answer.
    """
    request = {"do": what} if name is None else {"do": what, "replication": name}
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            while part := connection.recv(65536):
                answer += part
    except (FileNotFoundError, ConnectionRefusedError):
        raise Unavailable(
            f"no daemon listens at {path}. Nothing was done. Start one with `vstore replicator --config FILE`, or name "
            f"its socket with --socket or its file with --config."
        ) from None
    except TimeoutError:
        raise Unavailable(
            f"the daemon at {path} has not {'ended' if what == 'stop' else 'answered'} within {ANSWER_SECONDS:.0f} s."
        ) from None
    except ConnectionResetError:
        pass  # its process has ended
    except OSError as error:
        raise Unavailable(f"the daemon at {path} cannot be asked: {error.strerror or error}.") from error
    lines: list[dict[str, Any]] = [json.loads(line) for line in answer.splitlines()]
    if not lines:
        raise Unavailable(f"the daemon at {path} ended before it answered.")
    if "error" in lines[-1]:
        raise (NotFound if lines[-1].get("missing") else StoreError)(lines[-1]["error"])
    return lines[:-1]
