"""Bytes of the record enter, and lie in a file or have gone down a descriptor: where the sink writes.

Everything here is called by the writer thread alone, but ``reopen``: a disk that does not answer
holds that thread and nobody else.
"""

import contextlib
import errno
import os
import select
import stat
import time
from collections.abc import Callable
from typing import Protocol

from trio_cmd.escape import quote

__all__ = ["Descriptor", "LogFile", "Output"]

# Between two looks at whether the file is still in its place, and two tries to open it.
CHECK_SECONDS = 1.0
# O_RDWR: whether the last line is whole can only be read; a FIFO opened so does not wait either.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o640


class Output(Protocol):
    """Where the record goes.

    Attributes:
        name: safe to show.
        is_torn: what was written last is no whole line: a line feed has to come first.
        trouble: what the operator should know though it can be written, else ``None``.
    """

    name: str
    is_torn: bool
    trouble: OSError | None

    def prepare(self) -> None:
        """Get ready for the next lines.

        Raises:
            OSError: they cannot be written now.
        """

    def write(self, data: memoryview) -> int:
        """Write as much as goes; returns how many bytes.

        Raises:
            OSError: nothing can be written now.
        """

    def reopen(self) -> bool:
        """Ask for the file to be opened anew, from any thread; returns whether there is one."""

    def close(self) -> None:
        """Give back what was opened."""


class Descriptor:
    """A descriptor of somebody else's, which stays open: standard output.

    Args:
        fd: where to.
        name: what to call it.
    """

    def __init__(self, fd: int, name: str = "standard output") -> None:
        self._fd = fd
        self.name = name
        self.is_torn = False
        self.trouble: OSError | None = None

    def prepare(self) -> None:
        """Find it as it was."""

    def write(self, data: memoryview) -> int:
        """See ``Output``."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
            select.select([], [self._fd], [])
            return 0

    def reopen(self) -> bool:
        """Do nothing: it has no name to be found by."""
        return False

    def close(self) -> None:
        """Leave it open."""


class LogFile:
    """A file that is only ever added to, and found again after somebody has moved it away.

    A file that was renamed is left for a new one of its name; while none can be opened, it is
    written on.  One that was removed cannot be: nobody would read it.

    Args:
        path: of the file, made where it is missing; no link.
        now: seconds that never go back; a parameter for the tests.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._is_asked = False
        self._looked = now()
        self.name = quote(path)
        self.trouble: OSError | None = None
        self._fd: int | None = _open_regular(path)
        self.is_torn = _is_torn(self._fd)

    def reopen(self) -> bool:
        """See ``Output``."""
        self._is_asked = True
        return True

    def prepare(self) -> None:
        """Open the file anew where it was asked for, moved or removed.

        Raises:
            OSError: there is no file to write to.
        """
        is_asked, self._is_asked = self._is_asked, False
        is_removed = self._fd is not None and os.fstat(self._fd).st_nlink == 0
        if is_removed:
            self.close()
        now = self._now()
        if is_asked or is_removed or now - self._looked >= CHECK_SECONDS:
            self._looked = now
            self._find(is_asked=is_asked)
        if self._fd is None:
            assert self.trouble is not None
            raise self.trouble

    def write(self, data: memoryview) -> int:
        """See ``Output``."""
        assert self._fd is not None
        return os.write(self._fd, data)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _find(self, *, is_asked: bool) -> None:
        """Open the file of this name, unless it is the one that is open."""
        if not is_asked and self._is_in_place():
            self.trouble = None
            return
        try:
            fd = _open_regular(self._path)
        except OSError as error:
            self.trouble = error
            return
        if self.is_torn and self._fd is not None:
            with contextlib.suppress(OSError):  # a full disk: its last line stays torn
                os.write(self._fd, b"\n")
        self.close()
        self._fd, self.is_torn, self.trouble = fd, _is_torn(fd), None

    def _is_in_place(self) -> bool:
        if self._fd is None:
            return False
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._fd))


def _open_regular(path: str) -> int:
    fd = os.open(path, _FLAGS, _MODE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


def _is_torn(fd: int) -> bool:
    """Whether a file ends in the middle of a line: whoever wrote it was killed, or its disk was full."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"
