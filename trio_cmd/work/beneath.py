"""A folder's descriptor and a path enter; a descriptor of what lies there leaves, not yet opened.

Whoever may write below the folder can exchange its parts at any moment, so a path that was
checked is no longer the path that is opened.  Here the kernel itself keeps to the folder while
it resolves the path (``openat2``).  Where it cannot (Linux before 5.6) or may not (a container's
filter), the path is walked component by component, and each link is resolved here.
"""

import ctypes
import errno
import functools
import os
import stat

from trio_cmd.work.files import MAX_LINKS, is_proc

__all__ = ["look_beneath", "look_at_once", "look_beneath_at_once"]

# From linux/openat2.h and the table of system calls, which has the same number everywhere.
_OPENAT2 = ctypes.c_long(437)
_NO_MAGIC_LINKS = 0x02
_BENEATH = 0x08
_CACHED = 0x20
_EVERYWHERE_CACHED = _CACHED | _NO_MAGIC_LINKS
_BENEATH_CACHED = _EVERYWHERE_CACHED | _BENEATH
_NO_FOLDER = -1  # an absolute path begins at none
_MAX_PATH_BYTES = 4096  # PATH_MAX, with the zero at its end
# A rename anywhere on the host at the wrong moment makes the kernel say "try again".
_TRIES = 32

_LOOK = getattr(os, "O_PATH", 0) | os.O_CLOEXEC


def look_beneath(folder: int, path: bytes, *, may_leave: bool) -> int:
    """Find what a path names, without opening it; symbolic links are followed.

    Args:
        folder: where the path begins.
        path: relative to the folder; an absolute one when it may leave.
        may_leave: for the folder ``/``, which cannot be left: then absolute links, and ``..`` at
            the top, lead to it.

    Returns:
        An ``O_PATH`` descriptor, the caller's to close.

    Raises:
        OSError: ``EXDEV``: the path leaves the folder; ``ELOOP``: too many links, or one that the
            kernel makes up (``/proc/self/root``); ``EAGAIN``: what it names moves all the time.
    """
    _check_name(path)
    for _ in range(_TRIES):
        try:
            return _look(folder, path, may_leave=may_leave)
        except (BlockingIOError, InterruptedError):
            pass  # a rename or a signal came between
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def look_beneath_at_once(folder: int, path: bytes, *, may_leave: bool) -> int:
    """Find what a path names as ``look_beneath`` does, if all that lies on its way is in memory; never waits.

    Raises:
        OSError: as ``look_beneath``; ``BlockingIOError``: it would have to wait; ``ENOSYS``,
            ``EPERM``, ``EINVAL``: the kernel does not know how to look without waiting, or may not.
    """
    _check_name(path)
    return _openat2(folder, path, _EVERYWHERE_CACHED if may_leave else _BENEATH_CACHED)


def look_at_once(path: bytes) -> int:
    """Find what an absolute path names, and be it a link, if all on its way is in memory; never waits.

    Raises:
        OSError: as ``look_beneath_at_once``.
    """
    _check_name(path)
    return _openat2(_NO_FOLDER, path, _EVERYWHERE_CACHED, _LOOK | os.O_NOFOLLOW)


def _look(folder: int, path: bytes, *, may_leave: bool) -> int:
    try:
        return _openat2(folder, path, _resolve(may_leave=may_leave))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # what filters answer for what they do not know
            raise
    return _walk(folder, path, may_leave=may_leave)


def _check_name(path: bytes) -> None:
    if b"\0" in path:  # it would end there for C; no file has such a name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _resolve(*, may_leave: bool) -> int:
    return _NO_MAGIC_LINKS | (0 if may_leave else _BENEATH)


class _How(ctypes.Structure):
    """The ``open_how`` of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_BYTES = ctypes.c_size_t(ctypes.sizeof(_How))


@functools.cache
def _how(resolve: int, flags: int) -> "ctypes._CArgObject":
    """Say how to resolve; the kernel only reads it, so all threads can share it."""
    return ctypes.byref(_How(flags, 0, resolve))


def _openat2(folder: int, path: bytes, resolve: int, flags: int = _LOOK) -> int:
    """Call openat2(2), which Python's ``os`` does not have.

    Raises:
        OSError: as the kernel says.
    """
    fd: int = _syscall()(_OPENAT2, folder, path, _how(resolve, flags), _HOW_BYTES)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


@functools.cache
def _syscall() -> "ctypes._NamedFuncPointer":
    function = ctypes.CDLL(None, use_errno=True).syscall
    # No ``argtypes``: to ask each for its value takes as long as the call.  What is no int has its type.
    function.restype = ctypes.c_long
    return function


def _walk(folder: int, path: bytes, *, may_leave: bool) -> int:
    """Do what openat2 does, one component after the other."""
    if len(path) >= _MAX_PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    walk = _Walk(folder, may_leave=may_leave)
    try:
        walk.follow(path)
        return os.dup(walk.fd)
    finally:
        walk.close()


class _Walk:
    """A way down from a folder that never follows a link blindly, and goes up only where it came down.

    Args:
        folder: where it begins.
        may_leave: see ``look_beneath``.
    """

    def __init__(self, folder: int, *, may_leave: bool) -> None:
        self._folder = folder
        self._may_leave = may_leave
        self._links = 0
        self.fd = os.dup(folder)
        self._trail = [_identity(self.fd)]  # the folders passed, from the first

    def follow(self, path: bytes) -> None:
        """Walk along a path, and along the links it leads through."""
        to_do = _components(path)
        while to_do:
            target = self._step(to_do.pop())
            if target is not None:
                to_do += _components(target)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)

    def _step(self, name: bytes) -> bytes | None:
        """Take a step; returns where a link leads."""
        if name == b"..":
            self._go_up()
        elif name not in (b"", b"."):
            return self._go_down(name)
        else:
            os.stat(b".", dir_fd=self.fd)  # nothing is behind the slash of a file
        return None

    def _go_up(self) -> None:
        parent = os.open(b"..", _LOOK, dir_fd=self.fd)
        if len(self._trail) == 1:
            os.close(parent)
            self._start_again()
            return
        self._stand_on(parent)
        self._trail.pop()
        if _identity(parent) != self._trail[-1]:  # the folder was moved while we were in it
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _go_down(self, name: bytes) -> bytes | None:
        fd = os.open(name, _LOOK | os.O_NOFOLLOW, dir_fd=self.fd)
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            try:
                return self._read_link(fd)
            finally:
                os.close(fd)
        self._stand_on(fd)
        self._trail.append(_identity(fd))
        return None

    def _read_link(self, fd: int) -> bytes:
        self._links += 1
        if self._links > MAX_LINKS or is_proc(fd):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(b"", dir_fd=fd)
        if target.startswith(b"/"):
            self._start_again()
        return target

    def _start_again(self) -> None:
        """Go to the top, which only ``/`` allows."""
        if not self._may_leave:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self._stand_on(os.dup(self._folder))
        del self._trail[1:]

    def _stand_on(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd


def _components(path: bytes) -> list[bytes]:
    """Cut a path, the first component last."""
    return path.split(b"/")[::-1]


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
