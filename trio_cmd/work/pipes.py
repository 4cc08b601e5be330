"""What a program prints enters a pipe; it leaves in pieces, to whoever takes them.

Most programs print little and end soon: what they have printed waits in the pipe for their end,
and nobody needs to watch it.  A task that reads, with what holds it, is a tenth of all that such a
program costs.  So only a program that runs for longer gets one, before it has to wait for long.
"""

import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable

import trio

__all__ = ["LATE_SECONDS", "Pipe", "Readers"]

# A program that runs for longer than this, at most twice as long, has its output read as it comes.
LATE_SECONDS = 0.02
_PIECE_BYTES = 65_536
# As much as is kept of most programs, and as anybody may have on Linux: who prints so much, and is
# quick, never waits for a reader.
_PIPE_BYTES = 1 << 20
# What is left when a program has ended is as much as a pipe holds, and then its end.
_LAST_PIECES = _PIPE_BYTES // _PIECE_BYTES + 2


Refuse = Callable[[], Awaitable[None]]
"""Ends a program whose output is not wanted any more; cancelled when it has ended."""


class Pipe:
    """The way of a program's output.

    Args:
        take: gets it in pieces; when it raises, no more is read.

    Attributes:
        write_fd: the program's end; see ``give``.
        error: what ``take`` has raised.
    """

    __slots__ = ("_read_fd", "_reading", "_take", "_was_read", "error", "write_fd")

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        _widen(self.write_fd)
        self._reading: trio.CancelScope | None = None  # of the task that reads
        self._was_read = trio.Event()
        self.error: Exception | None = None

    def give(self) -> None:
        """Say that the program has its end, so that nobody else holds it."""
        os.close(self.write_fd)
        self.write_fd = -1

    def close(self) -> None:
        """Read no more; the program has ended, or there is none."""
        if self.write_fd >= 0:
            self.give()
        fd, self._read_fd = self._read_fd, -1
        if self._reading is not None:
            self._reading.cancel()  # at once: nobody waits for the descriptor any more
        os.close(fd)

    def start(self, nursery: trio.Nursery, refuse: Refuse) -> None:
        """Have a task read until the end of output, or until it is closed.

        Args:
            nursery: of the task.
            refuse: called when ``take`` has raised.
        """
        self._reading = trio.CancelScope()
        nursery.start_soon(self._read_in, self._reading, refuse)

    def read_last(self) -> bool:
        """Read what is left of a program that has ended; returns whether that was all.

        Else children of it still hold the pipe, perhaps for ever.
        """
        return self.error is not None or any(self._read_piece() for _ in range(_LAST_PIECES))

    async def wait_for_end(self) -> None:
        """Read, or wait until the task that reads has read, to the end of output.

        Cancel: what was not read stays in the pipe.
        """
        if self._reading is None:
            await self._read()
        else:
            await self._was_read.wait()

    async def _read_in(self, reading: trio.CancelScope, refuse: Refuse) -> None:
        with reading:
            await self._read()
            self._was_read.set()
            if self.error is not None:
                await refuse()

    async def _read(self) -> None:
        # It may be closed before this begins, and between something to read and the reading.
        while self._read_fd >= 0:
            await trio.lowlevel.wait_readable(self._read_fd)
            if self._read_fd < 0 or self._read_piece():
                return

    def _read_piece(self) -> bool:
        """Read once; returns whether no more is to be read."""
        try:
            piece = os.read(self._read_fd, _PIECE_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            return True
        try:
            self._take(piece)
        except Exception as error:  # it is the runner's to raise: see ``run_program``
            self.error = error
        return self.error is not None


class Readers:
    """The tasks that read what programs print which run for longer; there are none while none do."""

    def __init__(self) -> None:
        self._pipes: dict[Pipe, Refuse] = {}  # that no task reads
        self._is_watching = False

    def watch(self, pipe: Pipe, refuse: Refuse) -> None:
        """See to it that a pipe is read if its program runs for long; see ``Pipe.start``."""
        self._pipes[pipe] = refuse
        if not self._is_watching:
            self._is_watching = True
            trio.lowlevel.spawn_system_task(self._watch)

    def forget(self, pipe: Pipe) -> None:
        """Say that a program has ended, or that there is none."""
        self._pipes.pop(pipe, None)

    async def _watch(self) -> None:
        """Find the pipes of programs that run for longer, as long as any run."""
        async with trio.open_nursery() as nursery:
            known: set[Pipe] = set()
            while self._pipes:
                for pipe in known & self._pipes.keys():
                    pipe.start(nursery, self._pipes.pop(pipe))
                known = set(self._pipes)
                await trio.sleep(LATE_SECONDS)
            self._is_watching = False


def _widen(fd: int) -> None:
    """Let a pipe hold much, where that is possible: of a user with very many pipes it holds little."""
    option = getattr(fcntl, "F_SETPIPE_SZ", None)  # of Linux
    if option is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, option, _PIPE_BYTES)
