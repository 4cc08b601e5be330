"""The path of a program enters; whether it is one that only its owner and root can replace leaves.

What clients may run is chosen by who writes the settings, and by nobody else: a program that
others may write, or whose folder they may, is theirs.
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
        _refuse_writable(path, status.st_mode)
        _check_folders(path)
    except OSError as error:
        raise ValueError(f"no program can be run there: {error.strerror}") from error


def _check_folders(path: str) -> None:
    """Look at the folder of the program, and of each symbolic link on the way to it."""
    folder = os.path.realpath(os.path.dirname(path))
    _refuse_writable(folder, os.stat(folder).st_mode)
    if os.path.islink(path):
        _check_folders(os.path.join(folder, os.readlink(path)))


def _refuse_writable(path: str, mode: int) -> None:
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"others than its owner may write {quote(path)}; chmod go-w it")
