"""A wire to a database server that can be cut, on this machine only."""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import threading
from typing import Literal

At = Literal["", "before", "after", "late"]

LATE_SECONDS = 0.3


class Proxy:
    """Passes bytes between clients and a server, until told otherwise.

    `refuse` closes new connections at once, `stall` passes nothing on. `at_commit`
    cuts the next connection that sends COMMIT: "before" it reaches the server, or
    "after" the server has answered, so that the client does not hear it, or while
    the COMMIT is under way and arrives "late".

    `latency_seconds` is how long each message is held back. `loss` is the chance
    that a message loses its end: TCP gives no bytes out of order, so a wire that
    has lost some gives none any more, and the connection breaks there.
    """

    def __init__(self, host: str, port: int, *, latency_seconds: float = 0, loss: float = 0, seed: int = 0) -> None:
        """Listens on a free port. The seed decides which messages of which connection lose something."""
        self._server = host, port
        self.latency_seconds = latency_seconds
        self.loss = loss
        self._seeds = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.refuse = False
        self.stall = False
        self.at_commit: At = ""
        self.refuse_after_commit = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends all connections."""
        for pair in list(self._pairs):
            self._end(pair)

    def close(self) -> None:
        """Ends everything."""
        self._open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            try:
                pair = client, socket.create_connection(self._server)
            except OSError:  # the server is down
                client.close()
                continue
            self._pairs.add(pair)
            chance = random.Random(self._seeds.random())
            threading.Thread(target=self._pass_on, args=(pair, chance), daemon=True).start()

    def _pass_on(self, pair: tuple[socket.socket, socket.socket], chance: random.Random) -> None:
        client, server = pair
        swallow = False
        with contextlib.suppress(OSError, ValueError):  # cut by somebody else
            while self._open:
                ready, _, _ = select.select(pair, (), (), 0.05)
                if self.stall:
                    threading.Event().wait(0.01)
                    continue
                for end in ready:
                    data = end.recv(65536)
                    if not data or (end is server and swallow):
                        return self._end(pair)
                    if end is client and self.at_commit and re.search(rb"COMMIT(?!TED)", data):
                        at, self.at_commit = self.at_commit, ""
                        self.refuse = self.refuse_after_commit
                        if at == "before":
                            return self._end(pair)
                        if at == "late":
                            client.shutdown(socket.SHUT_RDWR)
                            threading.Event().wait(LATE_SECONDS)
                        swallow = True
                    if self.latency_seconds:
                        threading.Event().wait(self.latency_seconds)
                    if self.loss and chance.random() < self.loss:
                        (server if end is client else client).sendall(data[: chance.randrange(len(data))])
                        return self._end(pair)
                    (server if end is client else client).sendall(data)
        return self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
