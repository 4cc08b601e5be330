"""Sees that a client has reset its connection while nobody reads from it.

A session that waits for its own answers does not read, so it would not learn that nobody wants
them any more.  One epoll for all clients asks for nothing but errors and hang-ups, which the
kernel always reports: a reset is seen at once, without polling and without reading.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

__all__ = ["Hangups"]


class Hangups:
    """The watching of all connections nobody reads from.

    Must outlive them.  Where there is no epoll (not Linux) nothing is watched, and a reset is
    seen at the next write.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._lost: dict[int, Callable[[], None]] = {}

    @contextmanager
    def watched(self, fd: int | None, lost: Callable[[], None]) -> Iterator[None]:
        """Call ``lost`` if the connection is reset while this lasts.

        Args:
            fd: the connection, or ``None``: it cannot be watched.
            lost: called once, in the event loop.
        """
        if fd is None or self._epoll is None:
            yield
            return
        self._epoll.register(fd, 0)
        self._lost[fd] = lost
        try:
            yield
        finally:
            if self._lost.pop(fd, None) is not None:
                self._epoll.unregister(fd)

    async def run(self) -> None:
        """Watch until cancelled."""
        if self._epoll is None:
            await trio.sleep_forever()
        else:
            await self._run(self._epoll)

    async def _run(self, epoll: select.epoll) -> None:
        while True:
            await trio.lowlevel.wait_readable(epoll.fileno())
            for fd, _ in epoll.poll(0):
                epoll.unregister(fd)  # it would be reported for ever
                self._lost.pop(fd)()  # no variable: it would refer to the last client until another resets

    def close(self) -> None:
        """Give the descriptor back."""
        if self._epoll is not None:
            self._epoll.close()
