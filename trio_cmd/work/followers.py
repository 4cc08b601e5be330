"""A log enters, the lines that are written to it leave as they come, until nobody wants them.

``tail -F`` and ``journalctl -f`` do the following.  ``tail`` must know the file's name, so that it
finds the new file after a rotation; what is checked of that name, and when, is in docs/design.md.
"""

import functools
import os
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress

import trio

from trio_cmd.errors import Busy, CommandFailed, NotFound, Unavailable
from trio_cmd.settings import Log
from trio_cmd.work.feed import Feed
from trio_cmd.work.journal import JOURNAL_PATH, check_journal, journal_arguments
from trio_cmd.work.limiter import Limit
from trio_cmd.work.logs import SECONDS, LogReader, find_program, open_log
from trio_cmd.work.processes import GroupReaper, run_program
from trio_cmd.work.standard_error import StandardError

__all__ = ["Followers"]

PLACES_PER_ADDRESS = 4
# A child that sleeps has opened its log and waits for lines; one that never does is not waited for.
_SETTLE_SECONDS = 2.0
_SETTLE_POLL_SECONDS = 0.002


class Followers:
    """All follows of a server, so many at once.

    Args:
        places: how many there may be; may be changed, and those that are there go on.
        logs: looks at files.
        reaper: sees to what a child leaves behind.
        limit: keeps the deadline of a look.
    """

    def __init__(self, places: int, logs: LogReader, reaper: GroupReaper, limit: Limit) -> None:
        self.places = places
        self._logs = logs
        self._reaper = reaper
        self._limit = limit
        self._running: Counter[Hashable] = Counter()  # by where their clients are

    @property
    def running(self) -> int:
        """How many there are."""
        return self._running.total()

    @contextmanager
    def place(self, site: Hashable) -> Iterator[None]:
        """Hold a place for a follow.

        Raises:
            Busy: there is none, or none for this address.
        """
        if self.running >= self.places:
            raise Busy(f"{self.places} logs are being followed already")
        if self._running[site] >= PLACES_PER_ADDRESS:
            raise Busy(f"{PLACES_PER_ADDRESS} logs are being followed from your address already")
        self._running[site] += 1
        try:
            yield
        finally:
            self._running[site] -= 1
            if not self._running[site]:
                del self._running[site]

    async def check(self, log: Log) -> None:
        """See that a log is there and may be shown.

        Raises:
            CommandFailed: why not.

        Cancel: the thread ends when its disk answers.
        """
        with self._limit("follow", SECONDS):
            await self._logs.run_in_thread(_path(log), functools.partial(_check, log))

    async def run(self, log: Log, feed: Feed) -> None:
        """Follow a checked log until cancelled; ``feed`` gets what it prints, or why it ended by itself.

        Cancel: the child and all descriptors are gone.
        """
        try:
            feed.end(await self._run(log, feed))
        except* CommandFailed as group:
            feed.end(_first(group))

    async def _run(self, log: Log, feed: Feed) -> CommandFailed:
        name, arguments = _command(log)
        argv = [find_program(name), *arguments]
        with StandardError(feed) as errors:
            async with trio.open_nursery() as nursery:

                def take(piece: bytes) -> None:
                    errors.read()  # what was said before it was printed is there by now
                    feed.add(piece)

                def settle(pid: int) -> None:
                    nursery.start_soon(_settle, pid, feed)

                nursery.start_soon(errors.run)
                nursery.start_soon(self._recheck, log, feed, errors)
                try:
                    status = await run_program(
                        argv, take, self._reaper, stderr=errors.write_fd, started=settle
                    )
                except OSError as error:
                    raise Unavailable(f"{name} cannot be started: {error.strerror}") from error
                nursery.cancel_scope.cancel()
            return errors.explain(name, status)

    async def _recheck(self, log: Log, feed: Feed, errors: StandardError) -> None:
        """Look at the log again whenever the child says something: it may have another file now."""
        while True:
            await errors.wait()
            with suppress(NotFound):  # it may come back
                await self.check(log)
            if not errors.has_news:
                feed.release()


def _command(log: Log) -> tuple[str, list[str]]:
    """Name the program that follows a log, and its arguments."""
    if log.file is not None:
        # --pid: it ends with this server, also when that is killed.
        return "tail", ["-n", "0", "-F", f"--pid={os.getpid()}", "--", log.file]
    assert log.journal is not None
    return "journalctl", ["-f", *journal_arguments(log.journal, 0)]


def _path(log: Log) -> bytes:
    """Say below which mount point a log lies."""
    return JOURNAL_PATH if log.file is None else os.fsencode(log.file)


def _check(log: Log) -> None:
    """See in a worker thread that a log is there and may be shown."""
    if log.file is None:
        check_journal()
    else:
        os.close(open_log(os.fsencode(log.file)))


async def _settle(pid: int, feed: Feed) -> None:
    """Wait until the child has opened its log: what is written from then on is not missed."""
    with trio.move_on_after(_SETTLE_SECONDS):
        while feed.is_empty and not _is_asleep(pid):
            await trio.sleep(_SETTLE_POLL_SECONDS)  # there is no event for it
    feed.settle()


def _is_asleep(pid: int) -> bool:
    """Tell whether a process waits for something that is not a disk; where there is no /proc, it does."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"S"
    except FileNotFoundError:
        return not os.path.exists("/proc/self/stat")


def _first(group: BaseExceptionGroup[CommandFailed]) -> CommandFailed:
    """Take one cause out of the groups that nurseries make."""
    error: CommandFailed | BaseExceptionGroup[CommandFailed] = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
