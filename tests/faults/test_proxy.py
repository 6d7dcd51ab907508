"""The wire that the other tests cut: what it does to what goes over it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def said(proxy: Proxy, words: bytes) -> bytes:
    """What comes back before the connection ends, or all of it has."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        heard = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(words)
            while len(heard) < len(words) and (data := connection.recv(65536)):
                heard += data
        return heard


def test_a_message_is_held_back_for_the_latency_each_way(echo: int) -> None:
    """There and back again is twice the latency."""
    proxy = Proxy("127.0.0.1", echo, latency_seconds=0.05)

    began = time.monotonic()
    heard = said(proxy, b"hello")
    took = time.monotonic() - began

    proxy.close()
    assert heard == b"hello"
    assert took >= 0.1


def test_a_wire_that_loses_bytes_breaks_there(echo: int) -> None:
    """What arrives is a beginning of what was sent, and never something with a hole in it."""
    proxy = Proxy("127.0.0.1", echo, loss=0.3, seed=7)
    words = bytes(range(200))

    heard = [said(proxy, words) for _ in range(60)]
    proxy.loss = 0
    mended = said(proxy, words)

    proxy.close()
    assert all(words.startswith(each) for each in heard)
    assert 10 < sum(each == words for each in heard) < 50
    assert any(0 < len(each) < len(words) for each in heard)
    assert mended == words


def test_a_server_that_is_down_is_a_refused_connection_until_it_is_back(echo: int) -> None:
    """The wire itself survives it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    proxy = Proxy("127.0.0.1", nobody)

    refused = said(proxy, b"hello")
    proxy._server = "127.0.0.1", echo

    assert refused == b""
    assert said(proxy, b"hello") == b"hello"
    proxy.close()
