"""A path as it was asked enters; a descriptor of a regular file below one of the roots leaves.

Below is decided on the bytes asked, component by component: nothing is normalised, because what
a path means after that can be something else than what was asked.  What the path leads through,
links above all, is the kernel's to follow, and it keeps to the root (``beneath``).
"""

import errno
import os
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from trio_cmd.errors import OutsideRoots, SettingsError, from_os_error
from trio_cmd.escape import quote
from trio_cmd.work.beneath import look_beneath, look_beneath_at_once
from trio_cmd.work.files import HAS_O_PATH, open_regular, reopen_regular

__all__ = ["Roots"]

_EVERYWHERE = b"/"


class _Root(NamedTuple):
    """A folder: its path, without a slash at the end, how paths below it begin, and a descriptor of it."""

    path: bytes
    beginning: bytes
    fd: int


class _Look(Protocol):
    """``look_beneath``, or what does the same."""

    def __call__(self, folder: int, path: bytes, /, *, may_leave: bool) -> int: ...


class Roots:
    """The folders below which files may be named, each opened once.

    A context manager that gives their descriptors back.  They are also given back when nobody refers
    to it any more: after other settings have come, that is the last who began under the old ones,
    and perhaps a thread that hangs in a dead disk.

    Args:
        paths: absolute; ``/`` is every regular file of the host.

    Raises:
        SettingsError: with a line for each that is no folder, or may not be searched.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        faults: list[str] = []
        self._roots: list[_Root] = []
        for path in paths:
            try:
                self._roots.append(_open_root(os.fsencode(path)))
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                faults.append(f"comphash.roots: {quote(path)}: {reason}; name a folder that is there")
        weakref.finalize(self, _close_all, self._roots)
        self._roots.sort(key=lambda root: len(root.path), reverse=True)
        if faults:
            self.close()
            raise SettingsError(faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptors back; nothing can be opened any more."""
        _close_all(self._roots)

    def take(self) -> "Roots":
        """Give the folders to a new owner; here none are left."""
        taken = Roots(())
        taken._roots += self._roots
        self._roots.clear()
        return taken

    def open_regular(self, path: bytes) -> int:
        """Open a regular file for reading.  It may wait for a disk: call it in a worker thread.

        Args:
            path: as asked; relative to the folder the server was started in.

        Returns:
            A descriptor, the caller's to close.

        Raises:
            OutsideRoots: the path, or a link on its way, leads out of its root.
            NotARegularFile: it is something else, or the kernel makes it up.
            NotFound, NotPermitted, Unavailable: the operating system's error.
        """
        try:
            return self._open(path)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise self._outside(path) from error
            raise from_os_error(error, path) from error

    def look_at_once(self, path: bytes) -> int:
        """Find what a path names, if all on its way is in memory, without opening it; never waits.

        Args:
            path: as for ``open_regular``.

        Returns:
            An ``O_PATH`` descriptor of anything below one of the roots, the caller's to close.

        Raises:
            OSError: it is not there, would have to be waited for, or leads out of its root.
        """
        root, asked = self._find_root(path)
        return _look(root, asked, look_beneath_at_once)

    def _open(self, path: bytes) -> int:
        root, asked = self._find_root(path)
        if not HAS_O_PATH:
            return open_regular(asked)
        fd = _look(root, asked, look_beneath)
        try:
            return reopen_regular(fd, path)
        finally:
            os.close(fd)

    def _find_root(self, path: bytes) -> tuple[_Root, bytes]:
        """Find the root that a path lies below, the longest; returns it and the whole path.

        Raises:
            OSError: ``EXDEV``: it lies below none; or there is no working folder any more.
        """
        asked = path if path.startswith(b"/") else os.path.join(os.getcwdb(), path)
        for root in self._roots:
            if asked.startswith(root.beginning) or asked == root.path:
                return root, asked
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def _outside(self, path: bytes) -> OutsideRoots:
        return OutsideRoots(path, [root.path for root in self._roots])


def _close_all(roots: list[_Root]) -> None:
    while roots:
        os.close(roots.pop().fd)


def _open_root(path: bytes) -> _Root:
    path = path.rstrip(b"/") or _EVERYWHERE
    if path != _EVERYWHERE and not HAS_O_PATH:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))  # only Linux can keep to a folder
    flags = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
    return _Root(path, path.rstrip(b"/") + b"/", os.open(path, flags))


def _look(root: _Root, path: bytes, look: _Look) -> int:
    """Find what a path below a root names, without opening it.

    Raises:
        OSError: ``EXDEV``: it leaves the root.
    """
    if root.path == _EVERYWHERE:
        return look(root.fd, path, may_leave=True)
    rest = path[len(root.path) :].lstrip(b"/") or b"."
    if b".." in rest.split(b"/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return look(root.fd, rest, may_leave=False)
