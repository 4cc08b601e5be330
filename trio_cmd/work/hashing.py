"""A path and an algorithm enter, the digest of a whole file that did not change leaves.

One worker thread opens, reads and hashes, because on a dead disk each of these waits.  Between
two pieces it looks whether its asker is still there.
"""

import copy
import errno
import hashlib
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import trio
from msgspec import Struct

from trio_cmd.errors import ChangedWhileRead, TooLarge, from_os_error
from trio_cmd.escape import quote
from trio_cmd.settings import ALGORITHMS, Comphash
from trio_cmd.work.cached import CachedFiles
from trio_cmd.work.files import has_moved, open_regular
from trio_cmd.work.limiter import FairLimiter, Limit, LimiterStatistics, WaitingRoom
from trio_cmd.work.progress import Progress, ProgressTeller, Tell
from trio_cmd.work.roots import Roots
from trio_cmd.work.threads import DiskThreads

__all__ = ["Digest", "Hashing", "Report", "count_threads", "digest_file"]

# One cancelled hash ends within one piece: 0.2 ms of work, and 1.9 GB/s as with any larger piece.
PIECE_BYTES = 262_144
# Found by their names once: ``hashlib.new`` looks for them each time.
_CONSTRUCTORS = {name: getattr(hashlib, name) for name in ALGORITHMS}
_MAX_AUTO_THREADS = 4  # more keep the disk no busier, and the event loop waits for the GIL

Report = Callable[[int, int], object]
"""Told between two pieces how many bytes are done, of how many; what it raises ends the work."""


class Digest(Struct, frozen=True):
    """The digest of a file: lower-case hex, and how many bytes were read for it."""

    algorithm: str
    hex: str
    bytes: int


def count_threads(settings: Comphash) -> int:
    """Say how many files may be hashed at once."""
    return settings.threads or min(os.cpu_count() or 1, _MAX_AUTO_THREADS)


def _find_nothing(path: bytes) -> int:
    """Find no file without waiting."""
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _tell_nobody(done: int, total: int) -> None:
    """Keep to oneself how far it is."""


@dataclass(slots=True)
class _Count:
    """What is counted for all settings together."""

    bytes: int = 0


class Hashing:
    """The hashing of files, so many at once.

    Args:
        settings: what it may cost.
        waiting_room: where askers wait for a place.
        limit: keeps the deadline of each piece of work.
        threads: where the reading is done; others may share them.
        cached: reads without waiting; others may share it.
        open_file: opens a regular file where files may be named, in a worker thread.
        look_at_once: finds what lies there without waiting, in the event loop; see ``Roots``.
    """

    def __init__(
        self,
        settings: Comphash,
        waiting_room: WaitingRoom,
        limit: Limit,
        threads: DiskThreads | None = None,
        cached: CachedFiles | None = None,
        open_file: Callable[[bytes], int] = open_regular,
        look_at_once: Callable[[bytes], int] = _find_nothing,
    ) -> None:
        self._settings = settings
        self._limit = limit
        self._open_file = open_file
        self._look_at_once = look_at_once
        self._cached = cached or CachedFiles()
        self._places = FairLimiter(count_threads(settings), waiting_room)
        self._threads = threads or DiskThreads()
        self._progress = ProgressTeller()
        self._hashed = _Count()

    @property
    def hashed_bytes(self) -> int:
        """How many bytes of files have got a digest, under all settings together."""
        return self._hashed.bytes

    @property
    def max_threads(self) -> int:
        """How many files are hashed at once."""
        return self._places.places

    def under(self, settings: Comphash, roots: Roots) -> "Hashing":
        """Give the same hashing, on the same threads, by other settings; what is under way keeps its own."""
        other = copy.copy(self)
        other._settings = settings  # noqa: SLF001 - of our own kind
        other._open_file, other._look_at_once = roots.open_regular, roots.look_at_once  # noqa: SLF001
        return other

    def resize(self, threads: int) -> None:
        """Hash another number of files at once, of all settings together."""
        self._places.resize(threads)

    async def run(self) -> None:
        """Tell how far long work is, until cancelled."""
        await self._progress.run()

    async def digest(
        self,
        path: bytes,
        algorithm: str,
        client: Hashable,
        tell: Tell = _tell_nobody,
        begun: Callable[[], object] = lambda: None,
    ) -> Digest:
        """Hash a file.

        Args:
            path: as asked.
            algorithm: one of ``settings.ALGORITHMS``.
            client: whose turn it takes.
            tell: told each second how far it is, while ``run`` runs.
            begun: called when it has its place, before anything is looked at.

        Raises:
            CommandFailed: why there is no digest.

        Cancel: the thread ends within one piece, or, when it hangs in the kernel, with its call.
        """
        async with self._places.place(client):
            begun()
            with self._limit("comphash", self._settings.seconds), self._progress.telling(tell) as progress:
                digest = await self._threads.run(path, lambda: self._digest(path, algorithm, progress))
        self._hashed.bytes += digest.bytes
        return digest

    def digest_at_once(self, path: bytes, algorithm: str) -> Digest | None:
        """Hash a small file that is in memory, without waiting for anything.

        Args:
            path: as asked.
            algorithm: one of ``settings.ALGORITHMS``.

        Returns:
            ``None``: ``digest`` must do it, and say why when there is none.
        """
        if self._threads.unfinished():
            return None  # perhaps they hang; then what they hang on may refuse others
        data = self._cached.read(self._look_at_once, path, self._settings.max_bytes)
        if data is None:
            return None
        self._hashed.bytes += len(data)
        digest = _CONSTRUCTORS[algorithm](data, usedforsecurity=False)
        return Digest(algorithm, digest.hexdigest(), len(data))

    def statistics(self) -> LimiterStatistics:
        """Count what runs and what waits."""
        return self._places.statistics()

    def _digest(self, path: bytes, algorithm: str, progress: Progress) -> Digest:
        """Hash a file in a worker thread, as long as somebody waits for it."""

        def report(done: int, total: int) -> None:
            trio.from_thread.check_cancelled()
            progress.done, progress.total = done, total

        digest = digest_file(path, algorithm, self._settings.max_bytes, report, self._open_file)
        self._cached.learn()
        return digest


def digest_file(
    path: bytes,
    algorithm: str,
    max_bytes: int,
    report: Report,
    open_file: Callable[[bytes], int] = open_regular,
) -> Digest:
    """Hash a file in this thread.

    Args:
        path: as asked.
        algorithm: one of ``settings.ALGORITHMS``.
        max_bytes: a larger file is an error.
        report: called between two pieces.
        open_file: opens a regular file where files may be named.

    Raises:
        ChangedWhileRead: its size or times moved; there is no digest of such a file.
        TooLarge: it has more than ``max_bytes``.
        CommandFailed: it cannot be opened or read.
    """
    fd = open_file(path)
    try:
        before = os.fstat(fd)
        if before.st_size > max_bytes:
            raise TooLarge(f"larger than {max_bytes} bytes: {quote(path)}")
        digest = hashlib.new(algorithm, usedforsecurity=False)
        read = _read_all(fd, digest.update, before.st_size, report)
        if read != before.st_size or has_moved(before, os.fstat(fd)):
            raise ChangedWhileRead(path)
        return Digest(algorithm, digest.hexdigest(), read)
    except OSError as error:
        raise from_os_error(error, path) from error
    finally:
        os.close(fd)


def _read_all(fd: int, update: Callable[[memoryview], None], size: int, report: Report) -> int:
    """Feed a file to ``update``; a file that grows is read one piece beyond its size at most."""
    buffer = memoryview(bytearray(min(PIECE_BYTES, size + 1)))
    done = 0
    while done <= size and (count := os.readv(fd, [buffer])):
        update(buffer[:count])
        done += count
        report(done, size)
    return done
