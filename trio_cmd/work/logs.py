"""The name of a log file and a number enter, its newest lines leave.

The file is opened here, and looked at first; ``tail`` gets it as its standard input and never
learns a name.  ``tail`` is what knows how to find the end of a large file that is being written.
"""

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import trio

from trio_cmd.errors import NotFound, NotPermitted, Unavailable
from trio_cmd.work.beneath import look_at_once
from trio_cmd.work.cached import CachedFiles
from trio_cmd.work.files import open_regular
from trio_cmd.work.journal import JOURNAL_PATH, check_journal, journal_arguments
from trio_cmd.work.limiter import FairLimiter, Limit
from trio_cmd.work.newest import Newest
from trio_cmd.work.output import escape_in_pieces
from trio_cmd.work.permission import name_group
from trio_cmd.work.processes import GroupReaper, run_program
from trio_cmd.work.threads import DiskThreads
from trio_cmd.work.torn_line import find_rest

__all__ = ["LogReader", "NewestLines", "find_program", "open_log"]

MAX_OUTPUT_BYTES = 1 << 20
# To find the end of a log takes milliseconds; a disk that needs longer is as good as dead.
SECONDS = 30.0
_DIRECTORIES = "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin"


@dataclass(frozen=True, slots=True)
class NewestLines:
    """The newest lines of a log that fit, safe to show, and how many older ones did not."""

    lines: list[str]
    skipped: int
    exit_status: int
    program: str = "tail"


class LogReader:
    """The reading of logs, so many at once.

    Args:
        places: for children; other work may share them.
        reaper: sees to what a child leaves behind.
        limit: keeps the deadline of each piece of work.
        threads: where logs are opened; others may share them.
        cached: opens logs without waiting, where it may; others may share it.
    """

    def __init__(
        self,
        places: FairLimiter,
        reaper: GroupReaper,
        limit: Limit,
        threads: DiskThreads | None = None,
        cached: CachedFiles | None = None,
    ) -> None:
        self._places = places
        self._threads = threads or DiskThreads()
        self._cached = cached
        self._reaper = reaper
        self._limit = limit

    async def newest(
        self, path: bytes, lines: int, client: Hashable, begun: Callable[[], object] = lambda: None
    ) -> NewestLines:
        """Read the newest lines of a log.

        Args:
            path: of a regular file; a link to it must be root's or our own.
            lines: how many at most.
            client: whose turn it takes.
            begun: called when it has its place, before anything is looked at.

        Raises:
            CommandFailed: why they cannot be read.

        Cancel: the child and the descriptor are gone.
        """
        async with self._places.place(client):
            begun()
            with self._limit("lastlog", SECONDS):
                output, opened = Newest(MAX_OUTPUT_BYTES), deque[int]()
                try:
                    await self._open(opened, path)
                    exit_status = await self._run("tail", ["-n", str(lines)], output, stdin=opened[0])
                    if output.end:
                        output.add(await self._threads.run(path, partial(_read_rest, opened, output.end)))
                finally:
                    _close_all(opened)
                return await _newest_lines("tail", output, exit_status)

    async def newest_of_journal(
        self, unit: str, lines: int, client: Hashable, begun: Callable[[], object] = lambda: None
    ) -> NewestLines:
        """Read the newest entries of the journal; see ``newest``.

        Args:
            unit: whose; ``*`` for all.
            lines: how many entries at most; one can have several lines.
            client: whose turn it takes.
            begun: called when it has its place, before anything is looked at.
        """
        async with self._places.place(client):
            begun()
            with self._limit("lastlog", SECONDS):
                await self.run_in_thread(JOURNAL_PATH, check_journal)
                output = Newest(MAX_OUTPUT_BYTES)
                exit_status = await self._run("journalctl", journal_arguments(unit, lines), output)
                return await _newest_lines("journalctl", output, exit_status)

    async def run_in_thread(self, path: bytes, look: Callable[[], None]) -> None:
        """Look at a log in a worker thread.

        Raises:
            CommandFailed: what the looking found, or too many threads hang.

        Cancel: the thread ends when its disk answers.
        """
        await self._threads.run(path, look)

    async def _open(self, opened: deque[int], path: bytes) -> None:
        """Open a log and put its descriptor into a box, which the caller empties.

        Whoever takes the descriptor out of the box closes it, or puts it back.

        Cancel: if the thread still waits for its disk, it closes the file itself when it has it.
        """
        if not self._open_at_once(opened, path):
            await self.run_in_thread(path, lambda: self._open_in_thread(opened, path))

    def _open_at_once(self, opened: deque[int], path: bytes) -> bool:
        """Open a log that is no link, if nothing has to be waited for; returns whether it is open."""
        if self._cached is None or self._threads.unfinished():
            return False
        file = self._cached.open(look_at_once, path)
        if file is None:
            return False
        opened.append(file.fd)
        return True

    def _open_in_thread(self, opened: deque[int], path: bytes) -> None:
        _put(opened, open_log(path))
        if self._cached is not None:
            self._cached.learn()

    async def _run(
        self, name: str, arguments: Sequence[str], output: Newest, stdin: int = subprocess.DEVNULL
    ) -> int:
        """Run ``tail`` or ``journalctl``; returns its exit status."""
        program = find_program(name)
        try:
            return await run_program([program, *arguments], output.add, self._reaper, stdin=stdin)
        except OSError as error:
            raise Unavailable(f"{name} cannot be started: {error.strerror}") from error


def find_program(name: str) -> str:
    """Find ``tail`` or ``journalctl``.

    Raises:
        Unavailable: there is no such program, ``tail``.
        NotFound: there is no such program, and so no journal.
    """
    program = _where(name, _DIRECTORIES)
    if program is None or not os.access(program, os.X_OK):  # it came or went
        _where.cache_clear()
        program = _where(name, _DIRECTORIES)
    if program is not None:
        return program
    if name == "tail":
        raise Unavailable("there is no tail on this host; install coreutils")
    raise NotFound(f"there is no {name} on this host; name a log file instead")


@lru_cache(maxsize=8)
def _where(name: str, directories: str) -> str | None:
    return shutil.which(name, path=directories)


def open_log(path: bytes) -> int:
    """Open a log in a worker thread; see ``open_regular``.

    Raises:
        NotPermitted: also says which group to join, when the file tells.
    """
    try:
        return open_regular(path, only_own_links=True)
    except NotPermitted as error:
        raise name_group(error, path) from None


async def _newest_lines(program: str, output: Newest, exit_status: int) -> NewestLines:
    data, skipped = output.finish()
    return NewestLines(await escape_in_pieces(data), skipped, exit_status, program)


def _read_rest(opened: deque[int], end: bytes) -> bytes:
    """Read in a worker thread the rest of a line of which ``tail`` saw only the beginning.

    Args:
        opened: the box with the descriptor that ``tail`` has read from.
        end: the last that ``tail`` has printed.

    Returns:
        All to the newline; nothing when there is none, or none within what can be shown.
    """
    fd = opened.pop()
    try:
        return find_rest(fd, end, MAX_OUTPUT_BYTES)
    except OSError:
        return b""  # what tail has printed is still an answer
    finally:
        _put(opened, fd)


def _put(opened: deque[int], fd: int) -> None:
    """Put a descriptor into the box that a thread shares with its asker; close it if he has left."""
    opened.append(fd)
    try:
        trio.from_thread.check_cancelled()
    except trio.Cancelled:
        _close_all(opened)
        raise


def _close_all(descriptors: deque[int]) -> None:
    while True:
        try:
            os.close(descriptors.pop())
        except IndexError:
            return
