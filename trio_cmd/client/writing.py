"""Standard output: bytes enter at once, and leave as fast as their reader takes them."""

import os
import select
from collections import deque

import trio

__all__ = ["Writer", "write_all"]

# While more waits, only the hosts under way go on answering: no further one is asked.
_ROOM_BYTES = 1 << 22
_PIECE_BYTES = 1 << 18


class Writer:
    """Writes in a thread, so that a reader that pauses (``less``) does not make hosts late.

    Args:
        fd: where to.

    Attributes:
        error: why no more can be written, when that is so; what is put then is dropped.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: deque[bytes] = deque()  # its ends may be used by two threads at once
        self._waiting_bytes = 0
        self._put = trio.Event()
        self._written = trio.Event()
        self._limiter = trio.CapacityLimiter(1)  # look-ups of names that hang have the default one
        self.error: OSError | None = None

    def put(self, data: bytes) -> None:
        """Take what is to be written; never waits."""
        if self.error is None:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._put.set()

    async def wait_for_room(self) -> None:
        """Wait while too much waits to be written.

        Cancel: nothing is left behind.
        """
        while self._waiting_bytes > _ROOM_BYTES:
            await self._written.wait()

    async def run(self) -> None:
        """Write what is put; returns only when no more can be written.

        Cancel: what is being written in this moment is written first; the rest is left for ``flush``.
        """
        while self.error is None:
            await self._put.wait()
            self._put = trio.Event()
            while self._waiting:
                self._waiting_bytes -= await trio.to_thread.run_sync(self._write_piece, limiter=self._limiter)
                self._written.set()
                self._written = trio.Event()

    def flush(self) -> None:
        """Write what is left, waiting for the reader; for when the event loop has ended."""
        while self._waiting:
            self._waiting_bytes -= self._write_piece()

    def _write_piece(self) -> int:
        """Write some of what waits, or drop it where it cannot be written; returns how many bytes."""
        data = self._take_piece()
        if self.error is None:
            try:
                write_all(self._fd, data)
            except OSError as error:
                self.error = error
        return len(data)

    def _take_piece(self) -> bytes:
        """Take what waits, as far as one write is worth a copy of it."""
        parts: list[bytes] = []
        size = 0
        while self._waiting and size < _PIECE_BYTES:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    """Write everything to a descriptor, waiting for its reader.

    Raises:
        OSError: it cannot be written; BrokenPipeError: nobody reads it any more.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # whoever shares the terminal with us has made it one that does not wait
            poll = select.poll()  # select.select takes no descriptor above 1023
            poll.register(fd, select.POLLOUT)
            poll.poll()
