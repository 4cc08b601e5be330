"""The beginning of a line enters, the rest leaves that ``tail`` could not see yet."""

import os
import time

import trio

__all__ = ["find_rest"]

# A write becomes visible page by page: the rest of a line that is being written comes within
# microseconds, or, when its writer has to wait for a processor, milliseconds.
_REST_SECONDS = 0.1
_REST_POLL_SECONDS = 0.01
_REST_PIECE_BYTES = 65536


def find_rest(fd: int, end: bytes, max_bytes: int) -> bytes:
    """Read in a worker thread what follows the beginning of a line.

    Args:
        fd: of the log; its offset is where ``tail`` has stopped.
        end: the last that ``tail`` has printed.
        max_bytes: how much can be shown.

    Returns:
        All to the newline; nothing when there is none, or none within what can be shown.

    Raises:
        OSError: the log cannot be read.
        trio.Cancelled: whoever asked has left.
    """
    # The file's offset is shared with tail, and so is where tail stopped.
    start = os.lseek(fd, 0, os.SEEK_CUR)
    if os.pread(fd, len(end), start - len(end)) != end:
        return b""  # not every tail stops where its output ends
    rest = b""
    deadline = time.monotonic() + _REST_SECONDS
    while len(rest) < max_bytes:
        piece = os.pread(fd, _REST_PIECE_BYTES, start + len(rest))
        line, feed, _ = piece.partition(b"\n")
        rest += line + feed
        if feed:
            return rest
        if not piece:
            if time.monotonic() > deadline or not _is_being_written(fd):
                return b""
            time.sleep(_REST_POLL_SECONDS)
        trio.from_thread.check_cancelled()
    return b""


def _is_being_written(fd: int) -> bool:
    """Tell whether a file was written to a moment ago; a clock that was set says no."""
    return abs(time.time() - os.fstat(fd).st_mtime) < _REST_SECONDS
