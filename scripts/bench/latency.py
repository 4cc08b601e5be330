"""How long a ``ping`` takes while the server has other things to do, of a hundred the slowest but one.

One client pings every other millisecond; the others are in a process of their own.
"""

import contextlib
import hashlib
import itertools
import math
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kinds import Kind
from load import Crowd, Question, connect, ping
from rows import Material
from servers import Server, running

PAUSE_SECONDS = 0.002
LEAST_PINGS = 10
HASHED_BYTES = 1 << 27
STALL_SECONDS = 2.0
UNREAD_PINGS = 1500
"""Their records are more than a pipe holds."""
FOREVER = 1e9

fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Situation:
    """What else goes on.

    Attributes:
        title: in tables.
        questions: what each of the other clients asks, over and over.
    """

    title: str
    questions: Sequence[Sequence[Question]] = ()


STALLED = "while the log's reader is stalled"


def make_situations(material: Material, folder: Path) -> list[Situation]:
    """List what may go on; writes the files that are hashed."""
    hashed = [[make_large_question(folder / f"large-{number}")] for number in range(2)]
    return [
        Situation("nothing else"),
        Situation("while two cores hash", hashed),
        Situation("while 50 ask `lastlog`", [[material.lastlog]] * 50),
    ]


def make_large_question(path: Path) -> Question:
    """Write a large file; returns the question for its hash."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(HASHED_BYTES // len(block)):
            file.write(block)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha1").hexdigest()
    return Question(f"comphash {path}\n".encode(), f"File hash is : {digest}\n".encode())


def measure(servers: list[Server], situation: Situation, seconds: float, rounds: int) -> dict[str, float]:
    """Ping the servers in turns; returns by name the seconds within which 99 of 100 were answered."""
    took: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(rounds):
        turn = number % len(servers)
        for server in servers[turn:] + servers[:turn]:
            with busy(server.port, situation.questions), connect(server.port) as client:
                took[server.name] += iter_pings(client, seconds)
            server.record.forget()
    return {name: slowest_but_one(times) for name, times in took.items()}


def slowest_but_one(times: list[float]) -> float:
    """The 99th percentile."""
    return sorted(times)[math.ceil(0.99 * len(times)) - 1]


@contextlib.contextmanager
def busy(port: int, questions: Sequence[Sequence[Question]]) -> Iterator[None]:
    """Have other clients ask meanwhile."""
    if not questions:
        yield
        return
    others = fork.Process(target=keep_asking, args=(port, questions), daemon=True)
    others.start()
    time.sleep(0.1)
    yield
    others.terminate()
    others.join()


def keep_asking(port: int, questions: Sequence[Sequence[Question]]) -> None:
    """Ask until this process is ended."""
    Crowd(port, len(questions), [question for each in questions for question in each]).ask(FOREVER)


def measure_stalled(kind: Kind, folder: Path, syslog: Path, seconds: float) -> float | None:
    """Ping a server whose records nobody reads; ``None``: it stops answering."""
    unread, record = os.pipe()
    with (
        running([kind], folder, syslog, stdout=record) as (server,),
        os.fdopen(unread, "rb"),  # closed first, which lets the server end
        connect(server.port) as client,
    ):
        os.close(record)
        client.settimeout(STALL_SECONDS)
        try:
            for _ in range(UNREAD_PINGS):
                ping(client)
            return slowest_but_one(list(iter_pings(client, seconds)))
        except TimeoutError:
            return None


def iter_pings(client: socket.socket, seconds: float) -> Iterator[float]:
    """Ping for so long, and a few times at least."""
    end = time.monotonic() + seconds
    for number in itertools.count():
        if number >= LEAST_PINGS and time.monotonic() > end:
            break
        yield ping(client)
        time.sleep(PAUSE_SECONDS)
