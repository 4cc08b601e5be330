"""What a process costs, with all that it has started: CPU time and memory, asked of the kernel."""

import contextlib
import ctypes
import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def adopt_orphans() -> None:
    """Become the parent of what servers leave behind: prctl(2), PR_SET_CHILD_SUBREAPER."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def family(pid: int, generations: int = 9) -> list[int]:
    """List a process and its descendants that live, the elder first."""
    pids, parents = [pid], [pid]
    for _ in range(generations):
        parents = [child for parent in parents for child in children_of(parent)]
        pids += parents
    return pids


def children_of(pid: int) -> list[int]:
    """List the children of all threads of a process."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it, or a thread, has ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process to the nanosecond, and of the children it has waited for to a clock tick."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        # The process' clock, whose number clock_getcpuclockid(3) would compute.
        return time.clock_gettime((~pid << 3) | 2) + (int(stat[13]) + int(stat[14])) / TICKS
    except (OSError, ProcessLookupError):
        return 0.0  # it has ended: its parent has its time


def memory_bytes(pid: int) -> int:
    """Its share of memory."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
