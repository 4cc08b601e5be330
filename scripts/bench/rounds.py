"""Servers are asked in turns, round by round, until their ratios stand still; figures leave."""

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from kinds import KINDS, OURS
from load import WrongAnswer
from record import Void
from rows import Figure, Material, Row
from servers import Server

STEADY = 0.03
"""A ratio counts as found when 95 of 100 such measurements would give it this near."""

RESAMPLES = 300


@dataclass(frozen=True)
class Effort:
    """How long it is measured.

    Attributes:
        least: rounds of a workload, at least.
        most: rounds, at most.
        row_seconds: after so long no round begins.
        shorter: each round of a server is so much shorter than its row says.
        startups: how often each is started.
        ping_rounds: in how many turns each is pinged.
        ping_seconds: of each turn.
        idle: how many idle clients, rising.
        gib: of the large file.
        large_rounds: how often it is hashed.
    """

    least: int = 9
    most: int = 60
    row_seconds: float = 60.0
    shorter: float = 1.0
    startups: int = 5
    ping_rounds: int = 3
    ping_seconds: float = 2.0
    idle: tuple[int, ...] = (1000, 10_000)
    gib: float = 4.0
    large_rounds: int = 5


FULL = Effort()
QUICK = Effort(
    least=2,
    most=2,
    shorter=0.25,
    startups=1,
    ping_rounds=1,
    ping_seconds=0.3,
    idle=(1000,),
    gib=0.25,
    large_rounds=1,
)


@dataclass
class Result:
    """What a row gave.

    Attributes:
        row: what was measured.
        figures: server -> a figure of each round; nothing for one that is void.
        void: server -> why nothing is said of it.
    """

    row: Row
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)

    def cpu(self, name: str) -> float:
        """Median of the CPU time of an operation, in microseconds."""
        return statistics.median(figure.cpu for figure in self.figures[name])

    def rate(self, name: str) -> float:
        """Median of operations a second."""
        return statistics.median(figure.rate for figure in self.figures[name])

    def load(self, name: str) -> float:
        """Median share of a core that the load generator took."""
        return statistics.median(figure.load for figure in self.figures[name])

    @property
    def peers(self) -> list[str]:
        """All but ours."""
        return [name for name in self.figures if name != OURS]

    def ratios(self, name: str) -> list[float]:
        """Ours divided by theirs, of each round."""
        pairs = zip(self.figures[OURS], self.figures[name], strict=True)
        return [mine.cpu / other.cpu for mine, other in pairs]

    def ratio(self, name: str) -> float:
        """The median ratio."""
        return statistics.median(self.ratios(name))

    def spread(self, name: str) -> float:
        """How far the ratio may be off, as a share of it."""
        return spread(self.ratios(name))

    @property
    def best(self) -> str:
        """The peer that costs least; nothing when there is none."""
        return min((name for name in self.peers if name in KINDS), key=self.cpu, default="")

    @property
    def is_steady(self) -> bool:
        """Whether all ratios repeat."""
        return all(self.spread(name) <= STEADY for name in self.peers)


def spread(values: Sequence[float]) -> float:
    """Half the width of the interval in which 95 of 100 medians of resamples lie, divided by the median."""
    chosen = random.Random(1)
    medians = sorted(statistics.median(chosen.choices(values, k=len(values))) for _ in range(RESAMPLES))
    low, high = medians[RESAMPLES // 40], medians[-RESAMPLES // 40 - 1]
    return (high - low) / 2 / statistics.median(values)


def measure(row: Row, servers: list[Server], material: Material, effort: Effort) -> Result:
    """Ask the servers in turns; each round begins with another."""
    result = Result(row)
    asked = [server for server in servers if row.is_for_shells or not server.kind.is_shell]
    for server in list(asked):
        warm_up(result, server, material)
    end = time.monotonic() + effort.row_seconds
    for number in range(effort.most):
        if number >= effort.least and (result.is_steady or time.monotonic() > end):
            break
        asked = [server for server in asked if server.name not in result.void]
        turn = number % len(asked)
        for server in asked[turn:] + asked[:turn]:
            take(result, server, material, row.seconds * effort.shorter)
    for name in result.void:
        result.figures.pop(name, None)
    return result


def warm_up(result: Result, server: Server, material: Material) -> None:
    """Ask a little, for nothing: caches fill, threads start."""
    take(result, server, material, 0.02)
    result.figures.pop(server.name, None)


def take(result: Result, server: Server, material: Material, seconds: float) -> None:
    """Ask one server, and note what it gave, or that it gave nothing."""
    try:
        figure = result.row.measure(server, material, seconds)
    except (Void, WrongAnswer, OSError) as error:
        result.void[server.name] = str(error)
        server.record.forget()
    else:
        result.figures.setdefault(server.name, []).append(figure)
