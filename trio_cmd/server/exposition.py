"""The statistics of a server enter, what Prometheus scrapes leaves; needs the extra ``metrics``.

Every series is made of the statistics at the moment it is asked for, by one collector over one
registry: nothing is counted here.  Labels come from fixed lists and from the table of commands,
never from what a client has sent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trio_cmd.server.statistics import Statistics
from trio_cmd.server.tally import SECONDS, Row, Tally
from trio_cmd.settings import UNKNOWN

__all__ = ["Exposition"]

# Series that are there from the start: a rule sees the first occurrence only if it has seen the zero.
_ALWAYS_SHOWN = ("ok", "internal")
_SHOWN_OF_UNKNOWN = ("unknown-command",)


class Exposition:
    """What is scraped.

    Args:
        statistics: gives those of this moment.
    """

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Statistics(statistics))

    def render(self) -> bytes:
        """Write all series as they are now."""
        return generate_latest(self._registry)


class _Statistics(Collector):
    """See ``prometheus_client.registry.Collector``."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: nothing else is in the registry."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give all series."""
        now = self._statistics()
        results = {"admitted": now.admitted, **now.gone, **now.refused}
        yield _counters("connections", "Connections, by what came of them.", "result", results)
        yield _gauge("connections_active", "Clients that are connected.", now.clients)
        yield from _commands(now.tally)
        yield _counter("hashed_bytes", "Bytes of all files that have got a digest.", now.work.hashed_bytes)
        running = {**now.work.running, "hung": now.work.hung}
        yield _gauges("running", "Work under way, and reads that hang.", running)
        yield _gauges("waiting", "Work that waits for a place.", now.work.waiting)
        yield _counter("shared", "Commands answered by a run that answered others as well.", now.tally.shared)
        yield _counter("events_lost", "Records that were lost.", now.records.lost)
        succeeded = now.last_reload.succeeded
        yield _gauge("reload_success", "Whether the settings last read are in force.", int(succeeded))
        build = GaugeMetricFamily("trio_cmd_build_info", "The version.", labels=["version"])
        build.add_metric([now.version], 1)
        yield build


def _commands(tally: Tally) -> Iterator[Metric]:
    commands = CounterMetricFamily(
        "trio_cmd_commands", "Completed commands, by outcome.", labels=["command", "outcome"]
    )
    seconds = HistogramMetricFamily(
        "trio_cmd_command_seconds", "How long commands took, from line to answer.", labels=["command"]
    )
    for name, row in tally.rows():
        shown = _SHOWN_OF_UNKNOWN if name == UNKNOWN else _ALWAYS_SHOWN
        for outcome, count in {**dict.fromkeys(shown, 0), **row.outcomes}.items():
            commands.add_metric([name, outcome], count)
        seconds.add_metric([name], _buckets(row), row.seconds)
    yield commands
    yield seconds


def _buckets(row: Row) -> list[tuple[str, float]]:
    """Count those that took up to so long, longer ones of a shorter bound included."""
    bounds = [*map(str, SECONDS), "+Inf"]
    return list(zip(bounds, accumulate(row.durations), strict=True))


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"trio_cmd_{name}", text, value=value)


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"trio_cmd_{name}", text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"trio_cmd_{name}", text, labels=[label])
    for kind, value in values.items():
        family.add_metric([kind], value)
    return family


def _gauges(name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"trio_cmd_{name}", text, labels=["kind"])
    for kind, value in values.items():
        family.add_metric([kind], value)
    return family
