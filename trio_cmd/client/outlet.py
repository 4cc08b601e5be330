"""Lines of many on their way to one reader that may be slow: lines enter, one descriptor gets them."""

import trio

from trio_cmd.client.writing import write_all

__all__ = ["Outlet"]

# Many lines for one hop to a thread, and little to lose when all is ended.
_MOST_BYTES = 1 << 18


class Outlet:
    """Gathers lines while the descriptor is not ready for more, and no more than a bound of them.

    Whoever puts a line waits while the bound is reached, so that a reader that does not read
    holds back the hosts themselves.  What is put by one task keeps its order.

    Args:
        fd: standard output or standard error; it may block.
        most_bytes: what may wait, beside one line of each task that puts and what is being written.
    """

    def __init__(self, fd: int, most_bytes: int = _MOST_BYTES) -> None:
        self._fd = fd
        self._most_bytes = most_bytes
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._changed = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._is_closed = False
        self._limiter = trio.CapacityLimiter(1)  # threads that hang elsewhere must not hold back what is said

    async def put(self, line: bytes) -> None:
        """Hand over a line, with its ending, when there is room.

        Cancel: the line is not handed over.
        """
        while self._waiting_bytes >= self._most_bytes:
            await self._room.park()
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        self._changed.set()
        # A host that is always ready must leave the others their turns.
        await trio.lowlevel.cancel_shielded_checkpoint()

    def close(self) -> None:
        """Nothing is put any more: ``run`` ends when all is written."""
        self._is_closed = True
        self._changed.set()

    async def run(self) -> None:
        """Write what is put, until closed.

        Raises:
            OSError: it cannot be written; BrokenPipeError: nobody reads it any more.

        Cancel: a write under way goes on in its thread, what waits is lost.
        """
        while self._waiting or not self._is_closed:
            await self._changed.wait()
            self._changed = trio.Event()
            while self._waiting:
                data = b"".join(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
                self._room.unpark_all()
                await trio.to_thread.run_sync(
                    write_all, self._fd, data, abandon_on_cancel=True, limiter=self._limiter
                )
