"""Whether the load generator is the bottleneck: how fast it asks a bare echo, and whether two of it matter.

What a server costs for each operation could depend on how its work comes: a slow generator wakes
the server for each line, a fast one hands it many.  So the same fifty clients are also spread over
two generators, and the server should cost the same.
"""

import multiprocessing
import select
import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection  # noqa: TC003 - as plain as the others

from load import PING, Crowd, Question
from rounds import spread
from servers import Server

CLIENTS = 50
fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Split:
    """What two generators change.

    Attributes:
        ratio: the server's CPU time for an operation with two generators, divided by that with one.
        spread: how far the ratio may be off, as a share of it.
    """

    ratio: float
    spread: float


def measure_bare(seconds: float) -> dict[str, float]:
    """Ask a bare echo; returns commands a second: what the generator can ask at most."""
    with bare_echo() as port:
        found = {}
        for title, clients, question in (
            ("50 clients in turn", CLIENTS, PING),
            ("10 clients, 100 at once", 10, PING.times(100)),
        ):
            crowd = Crowd(port, clients, [question])
            crowd.ask(seconds / 4)
            work = crowd.ask(seconds)
            crowd.close()
            found[title] = work.commands / work.seconds
        return found


@contextmanager
def bare_echo() -> Iterator[int]:
    """Have a process that answers each line with ``pong`` and does nothing else; gives its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener:
        process = fork.Process(target=echo, args=(listener,), daemon=True)
        process.start()
        yield int(listener.getsockname()[1])
        process.terminate()
        process.join()


def echo(listener: socket.socket) -> None:
    """Answer until ended."""
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                epoll.register(client, select.EPOLLIN)
            elif asked := clients[fd].recv(1 << 16):
                clients[fd].send(b"pong\n" * asked.count(b"\n"))
            else:
                clients.pop(fd).close()


def measure_split(server: Server, seconds: float, rounds: int) -> Split:
    """Let one and two generators ask a server, in turns."""
    ratios = []
    for _ in range(rounds):
        one, two = (cost(server, generators, seconds) for generators in (1, 2))
        ratios.append(two / one)
    return Split(statistics.median(ratios), spread(ratios))


def cost(server: Server, generators: int, seconds: float) -> float:
    """Let fifty clients of so many generators ask; returns the server's CPU seconds for an operation."""
    helpers = [Helper(server.port, CLIENTS // generators) for _ in range(generators - 1)]
    crowd = Crowd(server.port, CLIENTS // generators, [PING])
    server.record.take(connected=CLIENTS)
    before = server.cpu_seconds()
    for helper in helpers:
        helper.begin(seconds)
    commands = crowd.ask(seconds).commands + sum(helper.end() for helper in helpers)
    server.record.take(received=commands, completed=commands)
    spent = server.cpu_seconds() - before
    crowd.close()
    for helper in helpers:
        helper.close()
    server.record.take(lost=CLIENTS)
    return spent / commands


class Helper:
    """Another load generator, in a process of its own."""

    def __init__(self, port: int, clients: int, question: Question = PING) -> None:
        self._pipe, other = fork.Pipe()
        self._process = fork.Process(target=help_asking, args=(other, port, clients, question), daemon=True)
        self._process.start()

    def begin(self, seconds: float) -> None:
        """Let it ask for so long."""
        self._pipe.send(seconds)

    def end(self) -> int:
        """Wait until it has asked; returns how many commands were answered."""
        return int(self._pipe.recv())

    def close(self) -> None:
        """Let it leave."""
        self._pipe.send(0.0)
        self._process.join()


def help_asking(pipe: "Connection[int, float]", port: int, clients: int, question: Question) -> None:
    """Ask whenever told, until told to leave."""
    crowd = Crowd(port, clients, [question])
    while seconds := pipe.recv():
        pipe.send(crowd.ask(seconds).commands)
    crowd.close()
