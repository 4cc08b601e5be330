"""The children of this process enter; those that a program left behind are ended and reaped.

A process that has called ``setsid`` or ``setpgid`` is in no group that could be ended.  But when
its parent ends it becomes a child of this process, a subreaper, and can be found among the
others.  All children of this process are started by ``processes.run_program``, which says so
here: what is a child, was born since the first of them began, and is none of them, is a stray.
"""

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

__all__ = ["Run", "Strays"]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Since when the kernel counts the births of processes.
_BIRTH_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(eq=False, slots=True)
class Run:
    """One run of a program, from before its start until it was waited for.

    Attributes:
        leader: its process; ``None``: it may be starting just now, as a child nobody knows yet.
    """

    leader: int | None = None


class _Status(NamedTuple):
    """What is told of a process: its group, and its birth in clock ticks."""

    group: int
    born: int


@dataclass(frozen=True, slots=True)
class _Sighting:
    """A child that may be a stray: its group now, when it is killed, and the starts it could be instead."""

    group: int
    kill_at: float
    starts: frozenset[Run]


class Strays:
    """Finds and ends what programs left behind, wherever it has gone."""

    def __init__(self) -> None:
        self._runs: set[Run] = set()
        self._seen: dict[int, _Sighting] = {}
        self._since = float("inf")  # nobody is a stray before the first program

    def begin(self, *, is_first: bool) -> Run:
        """Say that a program is about to be started.

        Args:
            is_first: nothing of earlier runs is left: who is older than this one is no stray.
        """
        if is_first and not self._runs:
            self._since = math.floor(time.clock_gettime(_BIRTH_CLOCK) * _TICKS_PER_SECOND)
        run = Run()
        self._runs.add(run)
        return run

    def end(self, run: Run) -> None:
        """Say that a program was waited for, or could not be started."""
        self._runs.discard(run)

    def sweep(self, now: float, grace: float) -> bool:
        """Reap the dead, and kill those whose grace is over.

        Args:
            now: on any clock; infinity: all are killed.
            grace: for those that are seen for the first time, in seconds.

        Returns:
            Whether any are left.
        """
        self._seen = dict(self._look(now + grace))
        for pid, sighting in list(self._seen.items()):
            if self._may_be_starting(sighting):
                continue
            if _is_reaped(pid):
                del self._seen[pid]
            elif now >= sighting.kill_at:
                _kill(pid, sighting.group)
        return bool(self._seen)

    def _look(self, kill_at: float) -> Iterator[tuple[int, _Sighting]]:
        """Find the children that no run of ours accounts for."""
        leaders = {run.leader for run in self._runs}
        starts = frozenset(run for run in self._runs if run.leader is None)
        for pid in _children():
            status = None if pid in leaders else _status(pid)
            if status is not None and status.group not in leaders and status.born >= self._since:
                first = self._seen.get(pid) or _Sighting(status.group, kill_at, starts)
                # It may have been seen on its way to a group of its own.
                yield pid, replace(first, group=status.group)

    def _may_be_starting(self, sighting: _Sighting) -> bool:
        """Whether one of the starts under way when it was seen has not told yet which child is its own."""
        return any(run in self._runs and run.leader is None for run in sighting.starts)


def _children() -> list[int]:
    """List the children of this process, whichever thread started them; none where the kernel has no list."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", "rb") as children:
                found += map(int, children.read().split())
    return found


def _status(pid: int) -> _Status | None:
    """Look at a process; ``None``: it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name is in parentheses, and may hold blanks and parentheses itself.
            fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Status(group=int(fields[2]), born=int(fields[19]))


def _is_reaped(pid: int) -> bool:
    """Reap a child if it is dead; a living one is left alone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _kill(pid: int, group: int) -> None:
    """Kill a living child of ours with its group, which can be our own: then alone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or it runs as somebody else
        if group == os.getpgrp():
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(group, signal.SIGKILL)
