"""The number of a mount enters; what leaves is whether a file there can be read without waiting.

Asking a file system what it is can wait as long as reading from it: a dead network mount answers
neither.  So the table of mounts says it, which is the kernel's own, and the kernel also says when
it is no longer true.  The table is read in a worker thread, and asked in the event loop.
"""

import enum
import os
import select
import threading
import weakref
from collections.abc import Iterator

__all__ = ["AccessTimes", "LocalMounts"]

# What lies on these is on a disk of this host, or in its memory, and reading what is cached is all
# theirs.  Not overlayfs: what lies below it can be anything, and opening a file opens that as well.
_LOCAL = frozenset({b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs"})
_TABLE = "/proc/self/mountinfo"
_PIECE_BYTES = 1 << 16


class AccessTimes(enum.Enum):
    """When reading a file writes its access time, which can wait for the journal of its disk."""

    NEVER = enum.auto()
    RELATIVE = enum.auto()
    ALWAYS = enum.auto()


class LocalMounts:
    """The mounts of local disks, as they are now; holds a descriptor of their table."""

    def __init__(self) -> None:
        self._fd = -1
        self._poll: select.poll | None = None
        self._changes = 0  # that were seen
        self._learned = -1  # so many had been seen when the table was read
        self._table: dict[int, AccessTimes] = {}
        self._lock = threading.Lock()

    def learn(self) -> None:
        """Read the table, unless it is known, in a worker thread.

        Raises:
            OSError: there is none.
        """
        with self._lock:
            changes = self._changes  # what changes from here on makes what is read an old one
            if self._learned != changes:
                self._open()
                self._table = dict(_parse(_read(self._fd)))
                self._learned = changes

    def find(self, mount: int) -> AccessTimes | None:
        """Say of a mount that holds an open file when it writes access times; in the event loop.

        Returns:
            ``None``: it is not local, or nobody knows until the table is read again.
        """
        if self._poll is None:
            return None
        if self._poll.poll(0):
            self._changes += 1
        return self._table.get(mount) if self._learned == self._changes else None

    def forget(self, mount: int) -> None:
        """Take a mount for one that is not local, until the table changes."""
        self._table.pop(mount, None)

    def _open(self) -> None:
        if self._poll is None:
            self._fd = os.open(_TABLE, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd)
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLPRI)  # the kernel's sign of a change


def _read(fd: int) -> bytes:
    """Read a file from its beginning."""
    os.lseek(fd, 0, os.SEEK_SET)
    return b"".join(iter(lambda: os.read(fd, _PIECE_BYTES), b""))


def _parse(table: bytes) -> Iterator[tuple[int, AccessTimes]]:
    """Find the local mounts in the lines of mountinfo, proc_pid_mountinfo(5)."""
    for line in table.splitlines():
        words = line.split(b" ")
        if words[words.index(b"-") + 1] in _LOCAL:
            yield int(words[0]), _access_times(words[5].split(b","))


def _access_times(options: list[bytes]) -> AccessTimes:
    if b"noatime" in options:
        return AccessTimes.NEVER
    return AccessTimes.RELATIVE if b"relatime" in options else AccessTimes.ALWAYS
