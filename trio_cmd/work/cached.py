"""What a path names enters; an open file, or its bytes, leave at once if nothing has to be waited for.

A worker thread for a file of a few pages costs ten times what reading and hashing it does.  Here
the event loop itself opens and reads, by calls of which each says "it would have to wait" instead
of waiting, and only from disks of this host.  Whatever is unusual, an error also, is left to the
ordinary way (``hashing``), which does all from the start; so answers and errors are its.
"""

import contextlib
import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from trio_cmd.work.files import reopen
from trio_cmd.work.mounts import AccessTimes, LocalMounts

__all__ = ["MAX_CACHED_BYTES", "CachedFiles", "LocalFile"]

MAX_CACHED_BYTES = 65_536  # to hash so many takes 35 us
# What kernels and filters answer that do not know a call, or one of its flags.
_UNKNOWN = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})
# With "relatime" the time is written when it is a day old; the clocks need not agree to the second.
_ACCESS_TIME_SECONDS = 86_000
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)

# statx(2), which Python's ``os`` does not have: with this flag a network file system is not asked.
_STATX_FLAGS = 0x1000 | 0x4000  # AT_EMPTY_PATH, AT_STATX_DONT_SYNC
_STATX_NEEDED = 0x0001 | 0x0040 | 0x0080 | 0x0200 | 0x1000  # STATX_TYPE, _MTIME, _CTIME, _SIZE, _MNT_ID
_STATX_WANTED = _STATX_NEEDED | 0x0020  # STATX_ATIME; not every file system keeps it
_STATX_BYTES = 256
_PLACE = struct.Struct("=I24xH114xQ")  # its mask, mode and number of the mount
_MARKS = struct.Struct("=40xQ16xqI20xqI4xqI")  # size; when read, changed, written: seconds and nanoseconds


class LocalFile(NamedTuple):
    """A regular file that is open for reading.

    Attributes:
        fd: the caller's to close.
        mount: the number of its mount.
        access_times: when reading it writes one.
    """

    fd: int
    mount: int
    access_times: AccessTimes


class CachedFiles:
    """Reads small files that are in memory, in the event loop; holds nothing but the table of mounts."""

    def __init__(self) -> None:
        self._mounts = LocalMounts()
        self._statx = _statx_function() if _NO_WAIT else None
        self._status = bytearray(_STATX_BYTES)  # what statx said last
        self._status_place = ctypes.byref((ctypes.c_char * _STATX_BYTES).from_buffer(self._status))
        self._buffer = memoryview(bytearray(MAX_CACHED_BYTES + 1))

    @property
    def is_off(self) -> bool:
        """Whether this host cannot read without waiting."""
        return self._statx is None

    def learn(self) -> None:
        """Learn what has changed among the mounts, in a worker thread."""
        if not self.is_off:
            with contextlib.suppress(OSError):  # no /proc: then nothing is known to be local
                self._mounts.learn()

    def open(self, look: Callable[[bytes], int], path: bytes) -> LocalFile | None:
        """Open a regular file of a local disk for reading, if nothing has to be waited for.

        Args:
            look: gives an ``O_PATH`` descriptor without waiting; may raise ``OSError``.
            path: what it is to look for.

        Returns:
            ``None``: go the ordinary way.
        """
        try:
            found = -1 if self.is_off else look(path)
        except OSError as error:
            self._note(error)
            return None
        if found < 0:
            return None
        try:
            return self._open_found(found)
        except OSError:
            return None
        finally:
            os.close(found)

    def read(self, look: Callable[[bytes], int], path: bytes, max_bytes: int) -> memoryview | None:
        """Read a whole file that did not change meanwhile, if nothing has to be waited for.

        Args:
            look: as for ``open``.
            path: what it is to look for.
            max_bytes: a larger file is left to the ordinary way.

        Returns:
            Its bytes, valid until the next call; ``None``: go the ordinary way.
        """
        file = self.open(look, path)
        if file is None:
            return None
        try:
            before = bytes(self._status)
            marks = _MARKS.unpack_from(before)
            size = marks[0]
            if size > min(max_bytes, MAX_CACHED_BYTES):
                return None
            if _is_touched(marks, file.access_times, time.time()):
                return None
            count = self._read(file)
            is_whole = count == size and self._ask(file.fd) and self._status == before
            return self._buffer[:count] if is_whole else None
        finally:
            os.close(file.fd)

    def _open_found(self, found: int) -> LocalFile | None:
        """Open what lies on a local disk and is a regular file; nothing else is touched."""
        mount = self._mount_of(found)
        access_times = None if mount is None else self._mounts.find(mount)
        if mount is None or access_times is None:
            return None
        return LocalFile(reopen(found), mount, access_times)

    def _mount_of(self, found: int) -> int | None:
        """Give the number of the mount that a regular file lies on; ``None`` for what is none."""
        if not self._ask(found):
            return None
        known, mode, mount = _PLACE.unpack_from(self._status)
        is_file = known & _STATX_NEEDED == _STATX_NEEDED and stat.S_ISREG(mode)
        return int(mount) if is_file else None

    def _ask(self, fd: int) -> bool:
        """Have statx say what it knows of a descriptor; returns whether it did."""
        assert self._statx is not None
        if self._statx(fd, b"", _STATX_FLAGS, _STATX_WANTED, self._status_place) == 0:
            return True
        number = ctypes.get_errno()
        self._note(OSError(number, os.strerror(number)))
        return False

    def _read(self, file: LocalFile) -> int:
        """Read into the buffer; returns how many bytes came, negative when it would have to wait."""
        try:
            return os.preadv(file.fd, [self._buffer], 0, _NO_WAIT)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self._mounts.forget(file.mount)
            self._note(error)
            return -1

    def _note(self, error: OSError) -> None:
        """Switch off for good when the kernel does not know how, or a filter forbids it."""
        if error.errno in _UNKNOWN:
            self._statx = None


def _is_touched(marks: tuple[int, ...], access_times: AccessTimes, now: float) -> bool:
    """Tell whether reading a file writes its access time, which may wait for the journal of the disk.

    Args:
        marks: of the file; see ``_MARKS``.
        access_times: those of its mount.
        now: in seconds.
    """
    if access_times is not AccessTimes.RELATIVE:
        return access_times is AccessTimes.ALWAYS
    _, read, read_ns, changed, changed_ns, written, written_ns = marks
    is_unread = (  # so, and not by pairs, because it is asked for each file
        read < changed
        or read < written
        or (read == changed and read_ns <= changed_ns)
        or (read == written and read_ns <= written_ns)
    )
    return is_unread or now - read >= _ACCESS_TIME_SECONDS


def _statx_function() -> "ctypes._NamedFuncPointer | None":
    """Find statx(2)."""
    try:
        # No ``argtypes``: to ask each for its value takes as long as the call, and all are ints or addresses.
        return ctypes.CDLL(None, use_errno=True).statx
    except AttributeError:  # an old C library
        return None
