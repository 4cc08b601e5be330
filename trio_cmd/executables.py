"""The path of a program enters; whether only root and the server's user can replace it leaves.

What clients may run is chosen by who writes the settings, and by nobody else: a program that
others own or may write, or one of whose folders they may, is theirs.
"""

import os
import stat

from trio_cmd.escape import quote

__all__ = ["check_executable"]


def check_executable(path: str) -> None:
    """Check a program before it is offered.

    Raises:
        ValueError: what is wrong with it, in one line.
    """
    if not path.startswith("/"):
        raise ValueError("expected the absolute path of a program")
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK):
            raise ValueError("expected a program; the file is not executable")
        _refuse_others(path, status)
        _check_folders(path)
    except OSError as error:
        raise ValueError(f"no program can be run there: {error.strerror}") from error


def _check_folders(path: str) -> None:
    """Look at the folder of the program, all above it, and those of each symbolic link on the way to it."""
    folder = above = os.path.realpath(os.path.dirname(path))
    _refuse_others(folder, os.stat(folder))
    while above != os.sep:
        above = os.path.dirname(above)
        status = os.stat(above)
        if not status.st_mode & stat.S_ISVTX:  # there nobody can rename what is another's, as in /tmp
            _refuse_others(above, status)
    if os.path.islink(path):
        _check_folders(os.path.join(folder, os.readlink(path)))


def _refuse_others(path: str, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"{quote(path)} belongs to another user; chown it to root")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"others than its owner may write {quote(path)}; chmod go-w it")
