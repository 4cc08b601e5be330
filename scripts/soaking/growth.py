"""Samples of a server enter, what has grown leaves."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Sample", "find_growth", "find_memory_growth", "slope_bytes_an_hour"]

HOUR = 3600.0
# Below three hours a slope is that of warming up.
MIN_HOURS = 3
MAX_BYTES_AN_HOUR = 2_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """What a server is made of at a moment.

    Attributes:
        seconds: since the start.
        descriptors: that it has open.
        threads: that it has.
        children: processes it has started.
        tasks: of Trio.
        pss_bytes: memory, without the share of others.
        open_files: what the descriptors are of.
    """

    seconds: float
    descriptors: int
    threads: int
    children: int
    tasks: int
    pss_bytes: int
    open_files: tuple[str, ...] = ()


COUNTED = ("descriptors", "threads", "children", "tasks")
"""What must not grow at all."""


def find_growth(first: Sample, later: Sample) -> list[str]:
    """Say what there is more of at a quiet point than at the first; one line each."""
    more = Counter(later.open_files) - Counter(first.open_files)
    grown = [
        f"{name} grew from {before} to {now} after {later.seconds:.0f} s"
        for name in COUNTED
        if (now := getattr(later, name)) > (before := getattr(first, name))
    ]
    return [*grown, f"more are open: {dict(more)}"] if grown and more else grown


def find_memory_growth(samples: Sequence[Sample]) -> list[str]:
    """Say whether the hourly minimum of memory rises by more than 2 MB an hour, over three hours or more.

    Args:
        samples: of the whole run, in their order; an hour that is not over does not count.
    """
    slope = slope_bytes_an_hour(samples)
    if slope is None or slope <= MAX_BYTES_AN_HOUR:
        return []
    return [f"the hourly minimum of memory rises by {slope / 1e6:.1f} MB an hour"]


def slope_bytes_an_hour(samples: Sequence[Sample]) -> float | None:
    """Give how much the hourly minimum rises; ``None`` for less than three hours."""
    minima = _hourly_minima(samples)
    if len(minima) < MIN_HOURS:
        return None
    return (minima[-1] - minima[0]) / (len(minima) - 1)


def _hourly_minima(samples: Sequence[Sample]) -> list[int]:
    """Give the least memory of each hour that is over."""
    whole = int(samples[-1].seconds // HOUR) if samples else 0
    minima: dict[int, int] = {}
    for sample in samples:
        hour = int(sample.seconds // HOUR)
        if hour < whole:
            minima[hour] = min(minima.get(hour, sample.pss_bytes), sample.pss_bytes)
    return list(minima.values())
