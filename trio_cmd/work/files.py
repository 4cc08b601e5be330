"""A path enters, a descriptor of a regular file leaves, or a clear error; nothing else is opened.

Opening is not harmless: opening a FIFO waits for a writer, reading one steals its data, opening
a device can rewind a tape or arm a watchdog.  So the path is first resolved to the file itself,
without opening it (``O_PATH``), the file is looked at, and only a regular one is opened.  What
was looked at is what is opened, whatever happens to the path meanwhile.

Everything here may wait for a disk: call it in a worker thread.
"""

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from trio_cmd.errors import ForeignLink, NotARegularFile, from_os_error

__all__ = ["HAS_O_PATH", "MAX_LINKS", "has_moved", "is_proc", "open_regular", "reopen", "reopen_regular"]

_PROC = 0x9FA0
# File systems whose files are made up by the kernel as they are read: reading one can wait for
# ever (/proc/kmsg), have an effect, or give different bytes each time.  Magic numbers of statfs(2).
_PSEUDO_FILE_SYSTEMS = frozenset(
    {
        "anon_inode": 0x09041934,
        "binder": 0x6C6F6F70,
        "binfmt_misc": 0x42494E4D,
        "bpf": 0xCAFE4A11,
        "cgroup": 0x27E0EB,
        "cgroup2": 0x63677270,
        "configfs": 0x62656570,
        "debugfs": 0x64626720,
        "devpts": 0x1CD1,
        "efivarfs": 0xDE5E81E4,
        "fusectl": 0x65735543,
        "mqueue": 0x19800202,
        "nfsd": 0x6E667364,
        "nsfs": 0x6E736673,
        "openprom": 0x9FA1,
        "pidfs": 0x50494446,
        "pipefs": 0x50495045,
        "proc": _PROC,
        "pstore": 0x6165676C,
        "resctrl": 0x7655821,
        "rpc_pipefs": 0x67596969,
        "securityfs": 0x73636673,
        "selinuxfs": 0xF97CFF8C,
        "smackfs": 0x43415D53,
        "sockfs": 0x534F434B,
        "sysfs": 0x62656572,
        "tracefs": 0x74726163,
        "xenfs": 0xABBA1974,
    }.values()
)
_TMPFS = 0x01021994
MAX_LINKS = 40  # as the kernel's own

_O_PATH = getattr(os, "O_PATH", 0)
HAS_O_PATH = _O_PATH != 0
# O_NONBLOCK: nobody waits for the holder of a lease on the file.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def open_regular(path: bytes, *, only_own_links: bool = False) -> int:
    """Open a regular file for reading.

    Args:
        path: as asked; relative to the working directory.
        only_own_links: a symbolic link in the last component is followed only when root or this
            process' user owns it, so that nobody else chooses the file.

    Returns:
        A descriptor, the caller's to close.

    Raises:
        NotARegularFile: it is something else, or the kernel makes it up.
        NotFound, NotPermitted, Unavailable: the operating system's error.
    """
    try:
        with _resolved(path, only_own_links=only_own_links) as fd:
            return reopen_regular(fd, path)
    except OSError as error:
        raise from_os_error(error, path) from error


def reopen_regular(fd: int, path: bytes) -> int:
    """Open for reading what a descriptor names, if it is a regular file.

    Args:
        fd: of what was found, not opened (``O_PATH``); it stays the caller's.
        path: as asked.

    Returns:
        A descriptor, the caller's to close.

    Raises:
        NotARegularFile: it is something else, or the kernel makes it up.
        OSError: it may not be read, or cannot.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode) or _is_pseudo(fd):
        raise NotARegularFile(path)
    return reopen(fd)


def has_moved(before: os.stat_result, after: os.stat_result) -> bool:
    """Tell whether a file was changed between two looks: its size, or one of its times."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def is_proc(fd: int) -> bool:
    """Tell whether something lies in ``/proc``, where a link can lead anywhere."""
    return _file_system_type(fd) == _PROC


@contextmanager
def _resolved(path: bytes, *, only_own_links: bool) -> Iterator[int]:
    """Hold a descriptor of the file that a path names, without having opened the file."""
    fd = _resolve_own_links(path) if only_own_links else _look_at(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _look_at(path: bytes, flags: int = 0) -> int:
    if not _O_PATH:  # no Linux: look first, then open without waiting; a race is possible here
        if not stat.S_ISREG(os.stat(path, follow_symlinks=not flags).st_mode):
            raise NotARegularFile(path)
        return os.open(path, _READ | flags)
    return os.open(path, _O_PATH | os.O_CLOEXEC | flags)


def _resolve_own_links(path: bytes) -> int:
    """Follow symbolic links in the last component one by one, each looked at before it is followed."""
    asked = path
    for _ in range(MAX_LINKS + 1):  # the last is the file itself
        fd = _look_at(path, os.O_NOFOLLOW)
        status = os.fstat(fd)
        if not stat.S_ISLNK(status.st_mode):
            return fd
        try:
            if status.st_uid not in (0, os.geteuid()):
                raise ForeignLink(asked)
            # The empty path is the link that was looked at, also when the path has another by now.
            path = os.path.join(os.path.dirname(path), os.readlink(b"", dir_fd=fd))
        finally:
            os.close(fd)
    raise OSError(errno.ELOOP, "too many symbolic links")


def reopen(fd: int) -> int:
    """Open for reading what a descriptor names, which must be a regular file; it stays the caller's."""
    if not _O_PATH:
        return os.dup(fd)
    return os.open(f"/proc/self/fd/{fd}", _READ)


def _is_pseudo(fd: int) -> bool:
    kind = _file_system_type(fd)
    return kind in _PSEUDO_FILE_SYSTEMS or (kind == _TMPFS and _is_devtmpfs(os.fstat(fd).st_dev))


def _file_system_type(fd: int) -> int:
    """Ask statfs(2), which Python's ``os.statvfs`` does not give: the type is its first field."""
    statfs = _statfs_function()
    if statfs is None:
        return 0
    buffer = ctypes.create_string_buffer(256)  # the structure has 120 bytes at most
    if statfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF


@functools.cache
def _statfs_function() -> "ctypes._NamedFuncPointer | None":
    """Find fstatfs(2); only Linux has the type as a number."""
    if not _O_PATH:
        return None
    return ctypes.CDLL(None, use_errno=True).fstatfs


def _is_devtmpfs(device: int) -> bool:
    """Tell devtmpfs from tmpfs: both give the same number, the table of mounts gives the name."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            return any(_is_devtmpfs_line(line.split(), number) for line in mounts)
    except FileNotFoundError:  # no /proc here; then nothing of devtmpfs can be told either
        return False


def _is_devtmpfs_line(words: list[bytes], device: bytes) -> bool:
    return words[2] == device and words[words.index(b"-") + 1] == b"devtmpfs"
