"""A path and a function that may wait for its disk enter; the function's result leaves, or the asker does.

A read that waits for a dead disk can be neither interrupted nor hurried: its thread is left
behind.  Here such threads are counted, by the mount point of their paths, so that one dead disk
costs a few threads and an honest error, and the reading of all others goes on.
"""

import functools
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import trio

from trio_cmd.errors import Unavailable
from trio_cmd.escape import quote

__all__ = ["DiskThreads"]

# Threads that hang, before all that would read there is refused: one could be a single bad sector.
MAX_HUNG_PER_MOUNT = 2
MAX_HUNG = 16
# A healthy thread ends within a piece of work after its asker has left; this is a thousand times that.
HUNG_SECONDS = 1.0
_DOUBT_POLL_SECONDS = 0.02
_OCTAL = re.compile(rb"\\([0-7]{3})")

_T = TypeVar("_T")


class DiskThreads:
    """Threads that may wait for a disk, of all that share this, and the counting of those that hang."""

    def __init__(self) -> None:
        self._left: list[_LeftThread] = []

    async def run(self, path: bytes, function: Callable[[], _T]) -> _T:
        """Run a function in a worker thread.

        Args:
            path: of the file it reads.
            function: it should look now and then whether its asker is still there
                (``trio.from_thread.check_cancelled``).

        Raises:
            Unavailable: too many threads hang already, there or in all.

        Cancel: at once; the thread is left behind, and its result is dropped.
        """
        while self._is_doubtful(path):
            await trio.sleep(_DOUBT_POLL_SECONDS)
        ticket = trio.CapacityLimiter(1)  # of this thread alone: it is given back when the thread ends
        try:
            return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=ticket)
        finally:
            if ticket.borrowed_tokens:
                self._left.append(_LeftThread(path, ticket))

    def unfinished(self) -> int:
        """Count the threads whose askers have left."""
        if self._left:
            self._left = [thread for thread in self._left if not thread.has_ended()]
        return len(self._left)

    def hung(self) -> int:
        """Count those that have not ended long after."""
        return sum(thread.is_hung() for thread in self._left)

    def _is_doubtful(self, path: bytes) -> bool:
        """Tell whether it will only be seen in a moment if there is too much that hangs.

        Without this wait, whoever asks and leaves in a loop could leave any number behind in that moment.

        Raises:
            Unavailable: there is.
        """
        if not self.unfinished():
            return False
        mount = _mount_point(path)
        there = [thread for thread in self._left if thread.mount == mount]
        if sum(thread.is_hung() for thread in there) >= MAX_HUNG_PER_MOUNT:
            raise Unavailable(f"reads below {quote(mount)} hang in the kernel; see to its disk")
        if self.hung() >= MAX_HUNG:
            raise Unavailable("too many reads hang in the kernel; see to the disks")
        return len(there) >= MAX_HUNG_PER_MOUNT or len(self._left) >= MAX_HUNG


class _LeftThread:
    """A thread whose asker has left.

    Args:
        path: of the file it reads.
        ticket: borrowed until it ends.
    """

    def __init__(self, path: bytes, ticket: trio.CapacityLimiter) -> None:
        self._path = path
        self._ticket = ticket
        self._since = time.monotonic()

    @functools.cached_property
    def mount(self) -> bytes:
        """The mount point of its file."""
        return _mount_point(self._path)

    def has_ended(self) -> bool:
        return self._ticket.borrowed_tokens == 0

    def is_hung(self) -> bool:
        return not self.has_ended() and time.monotonic() - self._since > HUNG_SECONDS


def _mount_point(path: bytes) -> bytes:
    """Find the mount point of a path by its name alone: to look at the file could hang as well."""
    try:
        path = os.path.join(os.getcwdb(), path)
        with open("/proc/self/mountinfo", "rb") as table:
            return _find_mount_point(path, table)
    except FileNotFoundError:  # no /proc here, or the working folder was removed
        return b"/"


def _find_mount_point(path: bytes, table: Iterable[bytes]) -> bytes:
    """Find the longest mount point that a path lies below, in lines of mountinfo, proc_pid_mountinfo(5)."""
    points = [_OCTAL.sub(_unescape, line.split()[4]) for line in table]
    above = [point for point in points if path == point or path.startswith(point.rstrip(b"/") + b"/")]
    return max(above, key=len, default=b"/")


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
