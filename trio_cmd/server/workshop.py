"""What slow work needs: settings enter, the surroundings of commands and counts of what goes on leave.

One workshop per server; its places, children and threads outlive all settings, which only resize it.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import trio

from trio_cmd.commands import COMMANDS, Surroundings
from trio_cmd.commands.programs import program_rows
from trio_cmd.server.replies import Budget
from trio_cmd.settings import Settings
from trio_cmd.work.cached import CachedFiles
from trio_cmd.work.followers import Followers
from trio_cmd.work.hashing import Hashing, count_threads
from trio_cmd.work.limiter import FairLimiter, Limit, WaitingRoom
from trio_cmd.work.logs import MAX_OUTPUT_BYTES, LogReader
from trio_cmd.work.processes import GroupReaper
from trio_cmd.work.programs import Programs
from trio_cmd.work.roots import Roots
from trio_cmd.work.sharing import Sharing, SharingStatistics, SharingUnder
from trio_cmd.work.threads import DiskThreads

__all__ = ["WorkStatistics", "Workshop", "count_work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStatistics:
    """Counts of slow work.

    Attributes:
        running: work under way, by kind.
        waiting: work that waits for a place, by kind.
        hung: reads that hang in the kernel.
        hashed_bytes: of all files that have got a digest.
        sharing: runs, and who waits for them.
    """

    running: Mapping[str, int]
    waiting: Mapping[str, int]
    hung: int
    hashed_bytes: int
    sharing: SharingStatistics


class Workshop:
    """Where slow commands are worked on.

    Args:
        settings: checked.
        limit: keeps the deadline of each piece of work.
        report: gets what a run raised that no asker is left to be told.

    Attributes:
        budget: of all unwritten answers; while it is spent, no work begins.
    """

    def __init__(self, settings: Settings, limit: Limit, report: Callable[[BaseException], None]) -> None:
        limits = settings.limits
        self.budget = Budget(limits.total_pending_bytes, _running_bytes(settings))
        self._reaper = GroupReaper()
        self._waiting_room = WaitingRoom(limits.waiting)
        self._threads, cached = DiskThreads(), CachedFiles()
        self._children = FairLimiter(_count_children(settings), self._waiting_room)
        self._hashing = Hashing(settings.comphash, self._waiting_room, limit, self._threads, cached)
        self._logs = LogReader(self._children, self._reaper, limit, self._threads, cached)
        self._followers = Followers(limits.followers, self._logs, self._reaper, limit)
        self._programs = Programs(self._children, self._reaper, limit)
        self._sharing = Sharing(report, self.budget.check)

    def start(self, helpers: trio.Nursery) -> None:
        """Start what sees to children and hashes, until it is cancelled; see ``close``."""
        helpers.start_soon(self._reaper.run)
        helpers.start_soon(self._hashing.run)

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold the nursery of shared runs; whoever asks must be inside.

        Cancel: the runs end.
        """
        return self._sharing.open_nursery()

    async def close(self, seconds: float) -> None:
        """Kill what is left of children, and wait for its end so long at most."""
        await self._reaper.close(seconds)

    def surroundings(
        self,
        settings: Settings,
        number: int,
        roots: Roots,
        status: Callable[[], Mapping[str, Any]],
    ) -> Surroundings:
        """Give what commands need that are asked under some settings.

        Args:
            settings: checked.
            number: of the settings since the start.
            roots: below which files may be named.
            status: counts for ``status``.
        """
        return Surroundings(
            settings,
            self._hashing.under(settings.comphash, roots),
            self._logs,
            status,
            {**COMMANDS, **program_rows(settings.programs, self._programs)},
            followers=self._followers,
            sharing=SharingUnder(self._sharing, number),
        )

    def resize(self, settings: Settings) -> None:
        """Change how much there may be; what is above a lower limit goes on to its end."""
        limits = settings.limits
        self._waiting_room.max_waiting = limits.waiting
        self._hashing.resize(count_threads(settings.comphash))
        self._children.resize(_count_children(settings))
        self._followers.places = limits.followers
        self.budget.resize(limits.total_pending_bytes, _running_bytes(settings))

    def statistics(self) -> WorkStatistics:
        """Count what ``status`` and the metrics show."""
        hashing, children = self._hashing.statistics(), self._children.statistics()
        return WorkStatistics(
            running={
                "hashing": hashing.running,
                "children": children.running,
                "followers": self._followers.running,
            },
            waiting={"hashing": hashing.waiting, "children": children.waiting},
            hung=self._threads.hung(),
            hashed_bytes=self._hashing.hashed_bytes,
            sharing=self._sharing.statistics(),
        )

    def places(self) -> dict[str, int]:
        """Tell how much work there may be, and wait: by kind."""
        return {
            "hashing": self._hashing.max_threads,
            "children": self._children.places,
            "followers": self._followers.places,
            "waiting": self._waiting_room.max_waiting,
        }

    def limiters(self) -> dict[str, list[int]]:
        """Count what has a limit: name -> how many there are, how many may be."""
        now = self.statistics()
        counts = {**now.running, "waiting": sum(now.waiting.values())}
        return {
            **{kind: [counts[kind], places] for kind, places in self.places().items()},
            "pending_bytes": [self.budget.bytes, self.budget.enough_bytes],
        }

    def queues(self) -> dict[str, int]:
        """Count runs, those that wait, and reads that hang."""
        now = self.statistics()
        return {"runs": now.sharing.running, "runs_waiting": now.sharing.waiting, "reads_hung": now.hung}


def count_work(settings: Settings) -> int:
    """Count the children, threads and follows there may be at once."""
    return _count_children(settings) + count_threads(settings.comphash) + settings.limits.followers


def _count_children(settings: Settings) -> int:
    return settings.limits.running_programs or 2 * (os.cpu_count() or 1)


def _running_bytes(settings: Settings) -> int:
    """Say how much programs may print while it is decided whether the next may begin."""
    largest = max([MAX_OUTPUT_BYTES, *(program.max_output_bytes for program in settings.programs.values())])
    return _count_children(settings) * largest
