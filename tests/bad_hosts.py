"""Hosts that are no servers of ours, or bad ones: each listens, and does one thing to whoever connects."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Self

from program import PATIENCE_SECONDS

Behaviour = Callable[[socket.socket], None]


class BadHost:
    """Listens on an address of this host; each client gets a thread that behaves badly to it.

    Args:
        behave: what it does to a client; the socket is closed behind it.
        address: where it listens.

    Attributes:
        name: how it is asked.
        left: is set when a client has been dealt with.
    """

    def __init__(self, behave: Behaviour, address: str = "127.0.0.1") -> None:
        self._behave = behave
        self._listener = socket.create_server((address, 0))
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.name = f"{address}:{self._listener.getsockname()[1]}"
        self.left = threading.Event()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread that waits for a client; a close would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(PATIENCE_SECONDS)
                self._clients.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            self._behave(client)
        self.left.set()


def stay_silent(client: socket.socket) -> None:
    """Take what comes, and say nothing."""
    while client.recv(1 << 16):
        pass


def close_at_once(client: socket.socket) -> None:
    """Say goodbye before anything was asked."""


def half_close(client: socket.socket) -> None:
    """End the sending side, and go on listening."""
    client.shutdown(socket.SHUT_WR)
    stay_silent(client)


def speak_garbage(client: socket.socket) -> None:
    """Send bytes that are no text."""
    client.sendall(bytes(range(256)) * 4)
    stay_silent(client)


def greet_as_mail(client: socket.socket) -> None:
    """Be a server of another kind, which speaks first."""
    client.sendall(b"220 mail.example ESMTP\r\n")
    stay_silent(client)


def answer_as_text(client: socket.socket) -> None:
    """Be a server of lines that knows nothing."""
    for _ in _lines(client):
        client.sendall(b"Command not found.\n")


def refuse_aloud(client: socket.socket) -> None:
    """Refuse as a full server does."""
    client.sendall(b"Too many connections. bye !\n")
    client.shutdown(socket.SHUT_WR)
    stay_silent(client)


def flood(client: socket.socket) -> None:
    """Answer with a line of a hundred megabytes."""
    next(take_greeting(client))
    client.sendall(b'{"id":2,"command":"ping","ok":true,"result":{"pong":"')
    for _ in range(1600):
        client.sendall(b"x" * (1 << 16))


def tell_progress(client: socket.socket) -> None:
    """Say as fast as possible how far it is, and never be done."""
    next(take_greeting(client))
    event = b'{"id":2,"command":"ping","event":"progress","done":1,"total":2}\n'
    while True:
        client.sendall(event * 1000)


def answer_nothing(client: socket.socket) -> None:
    """Greet well, and answer no question."""
    take_greeting(client)
    stay_silent(client)


def answer_with(result: dict[str, Any], answers: int = 1 << 30) -> Behaviour:
    """Answer every question with the same result, and end after so many."""

    def behave(client: socket.socket) -> None:
        for number, line in enumerate(islice(take_greeting(client), answers), 2):
            answer = {"id": number, "command": line.split()[0].decode(), "ok": True, "result": result}
            client.sendall(json.dumps({**answer, "seconds": 0.001}).encode() + b"\n")
        half_close(client)  # closed with lines unread, the kernel could destroy the answers

    return behave


def take_greeting(client: socket.socket) -> Iterator[bytes]:
    """Take the choice of JSON; returns the lines behind it."""
    lines = _lines(client)
    assert next(lines) == b"format json"
    client.sendall(b'{"id":1,"command":"format","ok":true,"result":{"format":"json"},"seconds":0.0}\n')
    return lines


def _lines(client: socket.socket) -> Iterator[bytes]:
    with client.makefile("rb") as lines:
        for line in lines:
            yield line.rstrip(b"\r\n")
