"""The unix socket: a path enters, a listener leaves that only its owner and its group can connect to.

What a killed server has left at the path is replaced; anything else that is there stays, and the
start is refused.  A lock file beside the path sees to it that of several servers that start at
once, one wins and the others are told.
"""

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio

from trio_cmd.errors import ListenError
from trio_cmd.escape import quote

__all__ = ["Credentials", "peer_credentials", "unix_listener"]

SOCKET_UMASK = 0o117  # leaves 0660
LOCK_MODE = 0o600
# O_RDWR: to open a FIFO in its place for reading only would wait for a writer.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_BACKLOG = 65535  # the kernel cuts it to net.core.somaxconn
_UCRED = struct.Struct("iII")  # of Linux: pid, uid, gid
_REMOVE_UNUSED = "remove it when no server uses it"


class Credentials(NamedTuple):
    """Who connected, as the kernel saw it at that moment.

    Attributes:
        uid: the effective user.
        pid: the process; 0 where it lives outside of what the server can see, another container say.
    """

    uid: int
    pid: int


def peer_credentials(sock: trio.socket.SocketType) -> Credentials | None:
    """Ask the kernel who connected a unix socket.

    Returns:
        ``None`` where the kernel does not tell (not Linux).

    Raises:
        OSError: the connection is already gone.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return Credentials(uid, pid)


@contextmanager
def unix_listener(path: str) -> Iterator[trio.SocketListener]:
    """Listen on a path as long as this lasts; then remove the path, close, and unlock it.

    The path is removed only if it is still the socket that was made here.  After a kill nobody
    removes it; the next start finds that nobody answers there, and replaces it.

    Args:
        path: absolute, at most 107 bytes.

    Raises:
        ListenError: the path cannot be listened on; what is there is untouched.
    """
    with _locked(path), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        with _explained(path, path):
            _clear(path)
            _bind(sock, path)
            made = os.lstat(path)
        try:
            sock.listen(_BACKLOG)
            yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        finally:
            _remove(path, made)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock file beside a path.

    The file stays when this ends: if it were removed, one server could lock the file that is
    going and another the one that comes after it, and both would go on.

    Raises:
        ListenError: another holds it, or it cannot be opened.
    """
    lock = path + ".lock"
    with _explained(path, lock):
        fd = os.open(lock, _LOCK_FLAGS, LOCK_MODE)
    try:
        _check_lock(path, lock, fd)
        with _explained(path, lock):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _check_lock(path: str, lock: str, fd: int) -> None:
    """Refuse a lock file that another user can hold at will."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise _refusal(path, f"{quote(lock)} is not a regular file", "remove it")
    _check_owner(path, lock, found)


def _check_owner(path: str, name: str, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise _refusal(path, f"{quote(name)} belongs to another user (uid {found.st_uid})", _REMOVE_UNUSED)


def _clear(path: str) -> None:
    """Remove the socket that a killed server has left.

    Raises:
        ListenError: what is there is something else, another's, or in use.
        OSError: it cannot be looked at or removed.
    """
    try:
        found = os.lstat(path)  # a symbolic link is not followed, here as in bind()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise _refusal(path, f"{quote(path)} is not a socket", "remove it")
    _check_owner(path, path, found)
    if _is_answered(path):
        raise _refusal(path, "another server answers there", "stop that one")
    os.unlink(path)


def _is_answered(path: str) -> bool:
    """Try to connect; only a refusal by the kernel means that nobody is there.

    A server whose backlog is full gives EAGAIN, and one that wants datagrams EPROTOTYPE.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)  # else it would wait for room in the backlog
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:  # in doubt somebody is there
            return True
    return True


def _bind(sock: socket.socket, path: str) -> None:
    """Bind so that the socket has its mode from its first moment.

    A ``chmod`` afterwards would leave a gap.  But the umask is that of the process: nothing else
    may create a file meanwhile.  So this happens before the first client, when there are no
    workers and no children, and without a checkpoint.
    """
    umask = os.umask(SOCKET_UMASK)
    try:
        sock.bind(path)
    finally:
        os.umask(umask)


def _remove(path: str, made: os.stat_result) -> None:
    """Remove our own socket, and nothing that has taken its place."""
    try:
        if os.path.samestat(os.lstat(path), made):
            os.unlink(path)
    except OSError:  # it is gone, or out of reach; what stays is replaced by the next start
        pass


@contextmanager
def _explained(path: str, name: str) -> Iterator[None]:
    """Say why a path cannot be listened on when the system refuses something with a file.

    Raises:
        ListenError: instead of any ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise _refusal(path, *_reason(error, name)) from error


def _reason(error: OSError, name: str) -> tuple[str, str]:
    """Find the reason and the remedy for what the system has against a file."""
    folder = quote(os.path.dirname(name))
    match error.errno:
        case errno.EWOULDBLOCK:
            return f"another server holds {quote(name)}", "stop that one"
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no folder {folder}", "create it"
        case errno.EACCES | errno.EPERM | errno.EROFS if not os.path.lexists(name):
            return f"uid {os.geteuid()} may not write in the folder {folder}", "let it"
        case errno.ELOOP:
            return f"{quote(name)} is a symbolic link", "remove it"
        case _:
            return f"{quote(name)}: {os.strerror(error.errno or 0)}", _REMOVE_UNUSED


def _refusal(path: str, reason: str, remedy: str) -> ListenError:
    text = f"{reason}; {remedy}, or choose another path with --unix-socket"
    return ListenError(f"cannot listen on {quote(path)}: {text}")
