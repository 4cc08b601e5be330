"""A path and an algorithm enter, the digest of a whole file that did not change leaves.

One worker thread opens, reads and hashes, because on a dead disk each of these waits.  Between
two pieces it looks whether its asker is still there.
"""

import hashlib
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import trio

from trio_cmd.errors import ChangedWhileRead, TooLarge, Unavailable, from_os_error
from trio_cmd.escape import quote
from trio_cmd.settings import Comphash
from trio_cmd.work.files import open_regular
from trio_cmd.work.limiter import FairLimiter, Limit, LimiterStatistics, WaitingRoom

__all__ = ["Digest", "Hashing", "digest_file"]

# One cancelled hash ends within one piece: 0.2 ms of work, and 1.9 GB/s as with any larger piece.
PIECE_BYTES = 262_144
# Threads that hang in the kernel after their askers were answered; they do not count against the healthy.
MAX_HUNG_THREADS = 16
_MAX_AUTO_THREADS = 4  # more keep the disk no busier, and the event loop waits for the GIL


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest of a file: lower-case hex, and how many bytes were read for it."""

    algorithm: str
    hex: str
    bytes: int


class Hashing:
    """The hashing of files, so many at once.

    Args:
        settings: what it may cost.
        waiting_room: where askers wait for a place.
        limit: keeps the deadline of each piece of work.
    """

    def __init__(
        self,
        settings: Comphash,
        waiting_room: WaitingRoom,
        limit: Limit,
    ) -> None:
        self._settings = settings
        self._limit = limit
        self.max_threads = settings.threads or min(os.cpu_count() or 1, _MAX_AUTO_THREADS)
        self._places = FairLimiter(self.max_threads, waiting_room)
        self._threads = trio.CapacityLimiter(self.max_threads + MAX_HUNG_THREADS)

    async def digest(
        self, path: bytes, algorithm: str, client: Hashable, begun: Callable[[], object] = lambda: None
    ) -> Digest:
        """Hash a file.

        Args:
            path: as asked.
            algorithm: one of ``settings.ALGORITHMS``.
            client: whose turn it takes.
            begun: called when it has its place, before anything is looked at.

        Raises:
            CommandFailed: why there is no digest.

        Cancel: the thread ends within one piece, or, when it hangs in the kernel, with its call.
        """
        async with self._places.place(client):
            begun()
            if self._threads.available_tokens < 1:
                raise Unavailable("too many reads hang in the kernel; see to the disks")
            with self._limit("comphash", self._settings.seconds):
                return await trio.to_thread.run_sync(
                    digest_file,
                    path,
                    algorithm,
                    self._settings.max_bytes,
                    trio.from_thread.check_cancelled,
                    abandon_on_cancel=True,
                    limiter=self._threads,
                )

    def statistics(self) -> LimiterStatistics:
        """Count what runs and what waits."""
        return self._places.statistics()


def digest_file(path: bytes, algorithm: str, max_bytes: int, check: Callable[[], object]) -> Digest:
    """Hash a file in this thread.

    Args:
        path: as asked.
        algorithm: one of ``settings.ALGORITHMS``.
        max_bytes: a larger file is an error.
        check: called between two pieces; what it raises ends the work.

    Raises:
        ChangedWhileRead: its size or times moved; there is no digest of such a file.
        TooLarge: it has more than ``max_bytes``.
        CommandFailed: it cannot be opened or read.
    """
    fd = open_regular(path)
    try:
        before = os.fstat(fd)
        if before.st_size > max_bytes:
            raise TooLarge(f"larger than {max_bytes} bytes: {quote(path)}")
        digest = hashlib.new(algorithm, usedforsecurity=False)
        read = _read_all(fd, digest.update, before.st_size, check)
        if read != before.st_size or _moved(before, os.fstat(fd)):
            raise ChangedWhileRead(path)
        return Digest(algorithm, digest.hexdigest(), read)
    except OSError as error:
        raise from_os_error(error, path) from error
    finally:
        os.close(fd)


def _read_all(fd: int, update: Callable[[memoryview], None], size: int, check: Callable[[], object]) -> int:
    """Feed a file to ``update``; a file that grows is read one piece beyond its size at most."""
    buffer = memoryview(bytearray(min(PIECE_BYTES, size + 1)))
    done = 0
    while done <= size and (count := os.readv(fd, [buffer])):
        update(buffer[:count])
        done += count
        check()
    return done


def _moved(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
