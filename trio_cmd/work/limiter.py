"""Work enters, as much as there are places runs, the rest waits its turn fairly or is refused.

Trio's ``CapacityLimiter`` lets everybody wait, first come, first served: one client that asks a
hundred things makes all others wait for all of them.  Here each client's first piece of work
goes before another's second, and only so much may wait at all.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass

import trio

from trio_cmd.errors import Busy

__all__ = ["Limit", "FairLimiter", "LimiterStatistics", "WaitingRoom"]


Limit = Callable[[str, float], AbstractContextManager[None]]
"""Bounds what is done inside: a command's name and seconds; raises ``DeadlinePassed`` after them."""


@dataclass(frozen=True, slots=True)
class LimiterStatistics:
    """Counts of one limiter: pieces of work now running, and now waiting."""

    running: int
    waiting: int


class WaitingRoom:
    """How much work may wait, of all limiters that share it.

    Args:
        max_waiting: pieces of work; may be changed, and whoever waits already goes on waiting.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self._waiting = 0

    def enter(self) -> None:
        """Take a chair.

        Raises:
            Busy: all are taken.
        """
        if self._waiting >= self.max_waiting:
            raise Busy("too much work is waiting already")
        self._waiting += 1

    def leave(self) -> None:
        """Give the chair back."""
        self._waiting -= 1


class FairLimiter:
    """Places for work of one kind.

    Args:
        places: how many pieces run at once.
        waiting_room: where the others wait.
    """

    def __init__(self, places: int, waiting_room: WaitingRoom) -> None:
        self._free = places
        self.places = places
        self._waiting_room = waiting_room
        # One queue per client, and the clients in the order of their turns.
        self._queues: OrderedDict[Hashable, deque[trio.Event]] = OrderedDict()

    def place(self, client: Hashable) -> AbstractAsyncContextManager[None]:
        """Hold a place, after waiting for it if need be.

        Args:
            client: whose turn it takes.

        Raises:
            Busy: too much waits already.

        Cancel: the place, or the place in the queue, is given back.
        """
        return _Place(self, client)

    def resize(self, places: int) -> None:
        """Have another number of places; what runs where there is none any more runs on."""
        self._free += places - self.places
        self.places = places
        self._hand_over()

    def statistics(self) -> LimiterStatistics:
        """Count what runs and what waits."""
        return LimiterStatistics(self.places - self._free, sum(map(len, self._queues.values())))

    async def acquire(self, client: Hashable) -> None:
        """Wait for a place; see ``place``."""
        if self._free > 0:
            self._free -= 1
            return
        self._waiting_room.enter()
        turn = trio.Event()
        self._queues.setdefault(client, deque()).append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():  # cancelled in the moment the place was handed over
                self.release()
            else:
                self._forget(client, turn)
            raise
        finally:
            self._waiting_room.leave()

    def release(self) -> None:
        """Give a place back."""
        self._free += 1
        self._hand_over()

    def _hand_over(self) -> None:
        """Give what is free to the clients whose turn it is."""
        while self._free > 0 and self._queues:
            self._free -= 1
            client, queue = self._queues.popitem(last=False)
            queue.popleft().set()
            if queue:
                self._queues[client] = queue  # at the end: the others come first

    def _forget(self, client: Hashable, turn: trio.Event) -> None:
        queue = self._queues[client]
        queue.remove(turn)
        if not queue:
            del self._queues[client]


class _Place:
    """See ``FairLimiter.place``: a class, because a generator costs three times as much."""

    __slots__ = ("_client", "_limiter")

    def __init__(self, limiter: FairLimiter, client: Hashable) -> None:
        self._limiter = limiter
        self._client = client

    async def __aenter__(self) -> None:
        await self._limiter.acquire(self._client)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.release()
