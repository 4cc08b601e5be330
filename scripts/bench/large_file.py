"""A large file: the time of its SHA-1 beside that of openssl, the memory for it, and the pings beside it.

Server and ``openssl dgst -sha1`` hash the same file in turns, after both have read it once; so
both find it in the kernel's cache.  While the server hashes, another client pings it every 5 ms.
"""

import os
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from kinds import KINDS, OURS
from latency import slowest_but_one
from load import connect, ping
from rounds import spread
from servers import Server, running

BLOCK_BYTES = 1 << 26
PING_SECONDS = 0.005


@dataclass
class Large:
    """What hashing a large file gave.

    Attributes:
        gib: how large it is.
        ours: seconds of each round.
        openssl: seconds of each round.
        pings: seconds of each ping beside ours.
        memory: bytes of the server, beside ours.
    """

    gib: float
    ours: list[float] = field(default_factory=list)
    openssl: list[float] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours divided by theirs, of each round."""
        return [mine / other for mine, other in zip(self.ours, self.openssl, strict=True)]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> float:
        """How far the ratio may be off, as a share of it."""
        return spread(self.ratios)

    @property
    def ping_seconds(self) -> float:
        """Of a hundred pings the slowest but one."""
        return slowest_but_one(self.pings)


def make_file(path: Path, gib: float) -> None:
    """Write a file of random blocks, none like another."""
    with path.open("wb") as file:
        for _ in range(max(1, int(gib * (1 << 30)) // BLOCK_BYTES)):
            file.write(os.urandom(BLOCK_BYTES))


def measure(folder: Path, syslog: Path, gib: float, rounds: int) -> Large:
    """Hash a file in turns.

    Raises:
        SystemExit: the digests differ.
    """
    path = folder / "large"
    make_file(path, gib)
    found = Large(gib)
    records = folder / "records"
    try:
        with running([KINDS[OURS]], records, syslog) as (server,):
            ask(server, path)
            ask_openssl(path)
            for _ in range(rounds):
                with Beside(server, found):
                    seconds, digest = ask(server, path)
                found.ours.append(seconds)
                seconds, theirs = ask_openssl(path)
                found.openssl.append(seconds)
                if digest != theirs:
                    raise SystemExit(f"the digests differ: {digest} and {theirs}")
    finally:
        path.unlink()
    return found


def ask(server: Server, path: Path) -> tuple[float, str]:
    """Ask for the hash; returns the seconds and the digest."""
    with connect(server.port) as client, client.makefile("r") as lines:
        began = time.perf_counter()
        client.sendall(f"comphash {path}\n".encode())
        answer = lines.readline()
        return time.perf_counter() - began, answer.split()[-1]


def ask_openssl(path: Path) -> tuple[float, str]:
    """Let openssl do it; returns the seconds and the digest."""
    began = time.perf_counter()
    run = subprocess.run(["openssl", "dgst", "-sha1", path], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, run.stdout.split()[-1]


class Beside:
    """Pings the server and looks at its memory, in a thread, while this lasts."""

    def __init__(self, server: Server, found: Large) -> None:
        self._server, self._found = server, found
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        with connect(self._server.port) as client:
            while not self._is_over.wait(PING_SECONDS):
                self._found.pings.append(ping(client))
                self._found.memory.append(self._server.memory_bytes())
