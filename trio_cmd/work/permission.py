"""The path of a file that may not be read enters; which group to join leaves, when the file tells.

Everything here may wait for a disk: call it in a worker thread.
"""

import grp
import os
import stat
from collections.abc import Iterator

from trio_cmd.errors import NotPermitted
from trio_cmd.escape import quote

__all__ = ["name_group"]


def name_group(error: NotPermitted, path: bytes) -> NotPermitted:
    """Add to an error which group may read a file; the error as it is when none is known."""
    group = _group_that_may(path)
    if group is None:
        return error
    return NotPermitted(f"{error.message}; add the server's user to the group {quote(group)}")


def _group_that_may(path: bytes) -> str | None:
    """Find the first thing on a path that is closed to us, and the group it is open to."""
    try:
        for name, mode, bit in _steps(path):
            if not os.access(name, mode, effective_ids=os.access in os.supports_effective_ids):
                return _group_of(os.stat(name), bit)
    except OSError:  # a link into a closed folder: nothing can be told
        return None
    return None


def _steps(path: bytes) -> Iterator[tuple[bytes, int, int]]:
    """List what must be open: (name, what for, the bit of the group that opens it)."""
    for index, byte in enumerate(path):
        if byte == ord("/"):
            yield path[: index + 1], os.X_OK, stat.S_IXGRP
    yield path, os.R_OK, stat.S_IRGRP


def _group_of(status: os.stat_result, bit: int) -> str | None:
    """Name the group; root's own is nobody's to join, and one we have does not help."""
    if not status.st_mode & bit or status.st_gid in (0, os.getegid(), *os.getgroups()):
        return None
    try:
        return grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        return str(status.st_gid)
