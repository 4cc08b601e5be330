"""What it takes to start: seconds until it listens, CPU time, and memory after the first answer."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from idle import wake
from kinds import Kind
from servers import Server


@dataclass(frozen=True)
class Startup:
    """What starting costs, as medians.

    Attributes:
        seconds: until it listens.
        cpu_seconds: until then.
        memory_bytes: after the first answer.
    """

    seconds: float
    cpu_seconds: float
    memory_bytes: float


def measure(kinds: list[Kind], folder: Path, syslog: Path, rounds: int) -> dict[str, Startup]:
    """Start each in turns, so often; returns by name what it takes."""
    found: dict[str, list[Startup]] = {kind.name: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            found[kind.name].append(start(kind, folder, syslog))
    return {name: median(startups) for name, startups in found.items()}


def start(kind: Kind, folder: Path, syslog: Path) -> Startup:
    """Start one, ask it once, end it."""
    began = time.monotonic()
    server = Server(kind, folder, syslog)
    try:
        server.wait()
        seconds, cpu = time.monotonic() - began, server.cpu_seconds()
        wake(server)
        return Startup(seconds, cpu, server.memory_bytes())
    finally:
        server.stop()


def median(startups: list[Startup]) -> Startup:
    """The median of each figure."""
    return Startup(
        statistics.median(one.seconds for one in startups),
        statistics.median(one.cpu_seconds for one in startups),
        statistics.median(one.memory_bytes for one in startups),
    )
