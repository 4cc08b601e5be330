"""What a server counts, as one value: its parts are asked, ``status`` and the metrics show it.

Whatever is counted is counted once, by the part that knows; nothing here is on a client's path.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from trio_cmd.records.sink import SinkStatistics
from trio_cmd.server.tally import Tally
from trio_cmd.server.workshop import WorkStatistics
from trio_cmd.settings import Settings

__all__ = ["LastReload", "Statistics", "digest_settings", "show_status"]

# Enough to tell the settings of a thousand hosts apart.
_DIGEST_DIGITS = 12


@dataclass(frozen=True, slots=True)
class LastReload:
    """The last time the settings were read again.

    Attributes:
        seconds: when, since the epoch; ``None``: never.
        succeeded: whether what was read is in force; those of the start always are.
    """

    seconds: float | None = None
    succeeded: bool = True

    def __str__(self) -> str:
        if self.seconds is None:
            return "never"
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.seconds))
        return f"{when} {'succeeded' if self.succeeded else 'refused'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts of a server, now or since its start.

    Attributes:
        version: of the program.
        settings: see ``digest_settings``.
        uptime_seconds: since the start.
        last_reload: of the settings.
        clients: there now.
        admitted: connections that became a conversation; with ``gone`` and ``refused`` all there were.
        gone: connections that ended before that by themselves, by reason.
        refused: connections that were refused, by reason.
        tally: of commands.
        work: slow work under way and done.
        places: what is limited -> how much of it there may be.
        pending_bytes: written answers that no client has taken yet.
        records: what became of the records.
    """

    version: str
    settings: str
    uptime_seconds: int
    last_reload: LastReload
    clients: int
    admitted: int
    gone: Mapping[str, int]
    refused: Mapping[str, int]
    tally: Tally
    work: WorkStatistics
    places: Mapping[str, int]
    pending_bytes: int
    records: SinkStatistics


def digest_settings(settings: Settings) -> str:
    """Give a short digest of the settings in force: the same as long as they mean the same.

    It is one of all values, defaults included, so it tells nothing of any of them.
    """
    grants = tuple(sorted(settings.grants, key=lambda grant: grant.name))  # their order means nothing
    # A default may be written 30 where a file's value is 30.0; converted, both are.
    same = msgspec.convert({**msgspec.to_builtins(settings), "grants": msgspec.to_builtins(grants)}, Settings)
    # Of logs the order counts, the first is the default; so does that of a program's arguments.
    orders = [
        list(settings.logs),
        *([name, *settings.programs[name].arguments] for name in sorted(settings.programs)),
    ]
    values = [msgspec.to_builtins(same), orders]
    encoded = msgspec.json.encode(values, order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:_DIGEST_DIGITS]


def show_status(statistics: Statistics) -> Mapping[str, Any]:
    """Write the counts as ``status`` shows them: name -> number or text."""
    records, work, sharing = statistics.records, statistics.work, statistics.work.sharing
    return {
        "version": statistics.version,
        "settings": statistics.settings,
        "uptime_seconds": statistics.uptime_seconds,
        "last_reload": str(statistics.last_reload),
        "clients": statistics.clients,
        **{f"max_{what}": count for what, count in statistics.places.items()},
        "admitted": statistics.admitted,
        "refused": sum(statistics.refused.values()),
        **_named("refused_", statistics.refused),
        **_named("commands_", statistics.tally.outcomes()),
        "commands_shared": statistics.tally.shared,
        "hashing_running": work.running["hashing"],
        "hashing_waiting": work.waiting["hashing"],
        "children_running": work.running["children"],
        "children_waiting": work.waiting["children"],
        "followers": work.running["followers"],
        "reads_hung": work.hung,
        "hashed_bytes": work.hashed_bytes,
        "runs": sharing.running,
        "runs_waiting": sharing.waiting,
        "sharers": sharing.sharers,
        "pending_bytes": statistics.pending_bytes,
        "records_written": records.written,
        "records_lost": records.lost,
        "records_queued": records.queued,
    }


def _named(prefix: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {prefix + name: count for name, count in sorted(counts.items())}
