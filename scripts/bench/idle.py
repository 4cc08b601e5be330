"""What clients that say nothing cost: memory for each, and a ``ping`` among them."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from kinds import Kind
from load import Client, Question, connect, ping
from servers import Server, running

AT_ONCE = 50
"""So many connect before it is looked whether all were accepted: fewer than any queue of a listener."""
PINGS = 200
QUESTION = Question(b"ping\n", b"pong\n")


@dataclass(frozen=True)
class Idle:
    """What idle clients cost a server.

    Attributes:
        clients: how many there were.
        bytes_each: memory for each.
        ping_seconds: median of the pings of one more among them.
        cpu_seconds: of the server for each ping.
    """

    clients: int
    bytes_each: float
    ping_seconds: float
    cpu_seconds: float


def measure(kind: Kind, folder: Path, syslog: Path, counts: tuple[int, ...]) -> list[Idle]:
    """Let more and more clients connect to a fresh server, and say nothing.

    Args:
        kind: of server.
        folder: for its record.
        syslog: the log it would show.
        counts: how many clients, rising.
    """
    with running([kind], folder, syslog) as (server,):
        wake(server)
        before = server.memory_bytes()
        clients: list[Client] = []
        found = []
        try:
            for count in counts:
                while len(clients) < count:
                    clients += connect_some(server, min(AT_ONCE, count - len(clients)))
                time.sleep(0.2)  # what was written for their records is given back
                memory = server.memory_bytes() - before
                found.append(Idle(count, memory / count, *ping_among(server)))
        finally:
            for client in clients:
                client.close()
        return found


def wake(server: Server) -> None:
    """Have everything loaded that a first client needs."""
    with connect(server.port) as client:
        ping(client)
    server.record.take(connected=1, received=1, completed=1, lost=1)


def connect_some(server: Server, count: int) -> list[Client]:
    """Let some connect, and wait until the server has recorded them."""
    clients = [Client(server.port, [QUESTION]) for _ in range(count)]
    server.record.take(connected=count)
    return clients


def ping_among(server: Server) -> tuple[float, float]:
    """Ping; returns the median of the seconds it took, and the server's CPU time for each."""
    with connect(server.port) as client:
        server.record.take(connected=1)
        before = server.cpu_seconds()
        took = [ping(client) for _ in range(PINGS)]
        server.record.take(received=PINGS, completed=PINGS)
        cpu = server.cpu_seconds() - before
    server.record.take(lost=1)
    return statistics.median(took), cpu / PINGS
