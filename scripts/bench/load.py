"""The load: clients in one process that ask as fast as they are answered, and look at each answer.

All bytes are made before, and a client is a descriptor in one epoll: asking costs four system
calls for each answer, and what it costs is told beside what the server costs.
"""

import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

RECEIVE_BYTES = 1 << 18
PATIENCE_SECONDS = 30.0


class WrongAnswer(Exception):
    """A client read something else than it should have."""


@dataclass(frozen=True)
class Question:
    """What a client sends at once, and what it must read before it sends more.

    Attributes:
        asked: one line or more.
        answered: all their answers.
        commands: how many lines it is.
    """

    asked: bytes
    answered: bytes
    commands: int = 1

    def times(self, count: int) -> "Question":
        """The same, so often at once."""
        return Question(self.asked * count, self.answered * count, self.commands * count)

    def check(self, answer: bytes) -> None:
        """Look at an answer: a server without order may give answers to one batch in any."""
        if answer != self.answered and sorted(answer.split(b"\n")) != sorted(self.answered.split(b"\n")):
            raise WrongAnswer(f"{self.asked[:80]!r} was answered {answer[:300]!r}")


PING = Question(b"ping\n", b"pong\n")


@dataclass(frozen=True)
class Work:
    """What was done.

    Attributes:
        commands: answered.
        seconds: it took.
        cpu_seconds: of this process.
    """

    commands: int
    seconds: float
    cpu_seconds: float


class Client:
    """A connection that is asked one thing after the other."""

    def __init__(self, port: int, questions: Sequence[Question], first: int = 0) -> None:
        self._socket = connect(port)
        self.fd = self._socket.fileno()
        self._questions = questions
        self._at = first
        self._heard: list[bytes] = []
        self.missing = 0
        self.question = questions[0]

    def ask(self) -> None:
        """Send the next question."""
        self.question = self._questions[self._at % len(self._questions)]
        self._at += 1
        self.missing = len(self.question.answered)
        asked = self.question.asked
        if os.write(self.fd, asked) != len(asked):
            raise WrongAnswer("the server does not take what it is asked")

    def hear(self) -> bool:
        """Read what is there; says whether the answer is whole, and looks at it."""
        piece = os.read(self.fd, RECEIVE_BYTES)
        self.missing -= len(piece)
        if self.missing == 0 and not self._heard and piece == self.question.answered:
            return True
        self._heard.append(piece)
        if self.missing > 0 and piece:
            return False
        self.question.check(b"".join(self._heard))
        self._heard = []
        return True

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def connect(port: int) -> socket.socket:
    """Connect to a server on this host."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
    client.settimeout(None)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


class Crowd:
    """Clients that are connected, and ask for a while whenever they are told.

    Args:
        port: where they connect to.
        clients: how many.
        questions: what each asks, one after the other; each begins at another.
    """

    def __init__(self, port: int, clients: int, questions: Sequence[Question]) -> None:
        step = max(1, len(questions) // clients)
        self.clients = [Client(port, questions, number * step) for number in range(clients)]
        self._by_fd = {client.fd: client for client in self.clients}
        self._epoll = select.epoll()
        for client in self.clients:
            self._epoll.register(client.fd, select.EPOLLIN)

    def ask(self, seconds: float) -> Work:
        """Ask for so long; the last answers are waited for."""
        cpu, began = time.process_time(), time.monotonic()
        commands, asking = 0, len(self.clients)
        end = began + seconds
        for client in self.clients:
            client.ask()
        by_fd, now = self._by_fd, began
        while asking:
            happened = self._epoll.poll(PATIENCE_SECONDS)
            if not happened:
                raise WrongAnswer("no answer")
            now = time.monotonic()
            for fd, _ in happened:
                client = by_fd[fd]
                if not client.hear():
                    continue
                commands += client.question.commands
                if now < end:
                    client.ask()
                else:
                    asking -= 1
        return Work(commands, now - began, time.process_time() - cpu)

    def close(self) -> None:
        """Leave, all of them."""
        self._epoll.close()
        for client in self.clients:
            client.close()


def come_and_go(port: int, seconds: float) -> Work:
    """Connect, ask one thing, leave, again and again; an operation is one visit, of two commands."""
    cpu, began = time.process_time(), time.monotonic()
    visits = 0
    while time.monotonic() < began + seconds:
        with connect(port) as client:
            client.send(b"ping\nexit\n")
            heard = b"".join(iter(lambda: client.recv(4096), b""))
        if heard != b"pong\n":
            raise WrongAnswer(f"a visitor read {heard!r}")
        visits += 1
    return Work(visits, time.monotonic() - began, time.process_time() - cpu)


def ping(client: socket.socket) -> float:
    """Ask one ``ping``; returns the seconds until its answer."""
    began = time.perf_counter()
    client.send(b"ping\n")
    if (answer := client.recv(100)) != b"pong\n":
        raise WrongAnswer(f"ping was answered {answer!r}")
    return time.perf_counter() - began
