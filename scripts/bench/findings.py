"""All that one run has found, and what of it is aimed at."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from generator import Split
from idle import Idle
from kinds import OURS
from large_file import Large
from rounds import Result
from rows import BEST
from startup import Startup

LARGE_TARGET = 1.05
IDLE_TARGET_BYTES = 8192


class Target(NamedTuple):
    """What is aimed at, and what was found.

    Attributes:
        title: of the workload.
        against: what it is compared with.
        most: it may be, a ratio or a size.
        found: it is.
        spread: how far it may be off, as a share of it; 0: not known.
    """

    title: str
    against: str
    most: float
    found: float
    spread: float

    @property
    def is_met(self) -> bool:
        """Whether it is not more than it may be."""
        return self.found <= self.most


@dataclass
class Findings:
    """What was found; what was not measured is empty.

    Attributes:
        results: of the workloads.
        startups: by name.
        bare: commands a second of a bare echo, by workload.
        splits: by name.
        latencies: situation -> name -> seconds; ``None``: no answer.
        idles: by name.
        large: of the large file.
    """

    results: list[Result] = field(default_factory=list)
    startups: dict[str, Startup] = field(default_factory=dict)
    bare: dict[str, float] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    latencies: dict[str, dict[str, float | None]] = field(default_factory=dict)
    idles: dict[str, list[Idle]] = field(default_factory=dict)
    large: Large | None = None

    def targets(self) -> Iterator[Target]:
        """List what is aimed at, as far as it was measured."""
        for result in self.results:
            if OURS in result.figures:
                yield from targets_of(result)
        if self.large is not None:
            title = f"{self.large.gib:g} GiB file, wall time"
            yield Target(title, "`openssl dgst -sha1`", LARGE_TARGET, self.large.ratio, self.large.spread)
        for idle in self.idles.get(OURS, []):
            title = f"memory of an idle client, of {idle.clients:,}"
            yield Target(title, "bytes", IDLE_TARGET_BYTES, idle.bytes_each, 0)


def targets_of(result: Result) -> Iterator[Target]:
    """List what is aimed at in one workload."""
    for name, most in result.row.targets.items():
        peer = result.best if name == BEST else name
        if peer in result.figures:
            against = f"the best of all, {peer}" if name == BEST else peer
            yield Target(result.row.title, against, most, result.ratio(peer), result.spread(peer))
