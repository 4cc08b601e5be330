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

from trio_cmd.work.files import has_moved, reopen
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
_STATX_WANTED = 0x0001 | 0x1000  # STATX_TYPE, STATX_MNT_ID
_STATX_BYTES = 256
_STATX = struct.Struct("=I24xH114xQ")  # its mask, mode and number of the mount


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
        self._status = ctypes.create_string_buffer(_STATX_BYTES)
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

    def open(self, look: Callable[[], int]) -> LocalFile | None:
        """Open a regular file of a local disk for reading, if nothing has to be waited for.

        Args:
            look: gives an ``O_PATH`` descriptor without waiting; may raise ``OSError``.

        Returns:
            ``None``: go the ordinary way.
        """
        try:
            found = -1 if self.is_off else look()
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

    def read(self, look: Callable[[], int], max_bytes: int) -> memoryview | None:
        """Read a whole file that did not change meanwhile, if nothing has to be waited for.

        Args:
            look: as for ``open``.
            max_bytes: a larger file is left to the ordinary way.

        Returns:
            Its bytes, valid until the next call; ``None``: go the ordinary way.
        """
        file = self.open(look)
        if file is None:
            return None
        try:
            before = os.fstat(file.fd)
            if before.st_size > min(max_bytes, MAX_CACHED_BYTES):
                return None
            if _is_touched(before, file.access_times, time.time()):
                return None
            count = self._read(file)
            is_whole = count == before.st_size and not has_moved(before, os.fstat(file.fd))
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
        assert self._statx is not None
        if self._statx(found, b"", _STATX_FLAGS, _STATX_WANTED, self._status) != 0:
            number = ctypes.get_errno()
            self._note(OSError(number, os.strerror(number)))
            return None
        known, mode, mount = _STATX.unpack_from(self._status)
        is_file = known & _STATX_WANTED == _STATX_WANTED and stat.S_ISREG(mode)
        return int(mount) if is_file else None

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


def _is_touched(status: os.stat_result, access_times: AccessTimes, now: float) -> bool:
    """Tell whether reading a file writes its access time, which may wait for the journal of the disk."""
    if access_times is not AccessTimes.RELATIVE:
        return access_times is AccessTimes.ALWAYS
    is_unread = status.st_atime_ns <= max(status.st_mtime_ns, status.st_ctime_ns)
    return is_unread or now - status.st_atime >= _ACCESS_TIME_SECONDS


def _statx_function() -> "ctypes._NamedFuncPointer | None":
    """Find statx(2)."""
    try:
        function = ctypes.CDLL(None, use_errno=True).statx
    except AttributeError:  # an old C library
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
    return function
