"""One sweeper per server keeps all deadlines, with a coarse clock.

A cancel scope around every read and write would cost more than the read and the write.  Instead
the sweeper looks at every client now and then: it asks what the client is waiting for, and since
when only the sweeper knows.  So the conversation itself never touches a clock, and a deadline
comes at most one tick late and never early.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import trio

from trio_cmd.errors import DeadlinePassed
from trio_cmd.settings import Limits

__all__ = ["Clock", "Sweeper", "Watched", "tick_seconds"]


class Clock(NamedTuple):
    """Something that may last only so long.

    Attributes:
        state: what is waited for; when it changes, the clock starts again.
        seconds: how long one state may last.
        reason: why the connection ends then.
    """

    state: Hashable
    seconds: float
    reason: str


class Watched(Protocol):
    """A client as the sweeper sees it."""

    def clocks(self) -> tuple[Clock | None, Clock | None]:
        """Tell what is waited for in reading and in writing, ``None`` where nothing is."""

    def expire(self, reason: str) -> None:
        """End for a reason of one of the clocks."""


class _Seen(NamedTuple):
    """A clock that runs: its state, and since when."""

    state: Hashable
    since: float


class _Watch:
    """What the sweeper remembers of one client: since when its two clocks run.

    Thousands of idle clients have one each, so it keeps as little as it can.
    """

    __slots__ = ("_reading", "_writing")

    def __init__(self) -> None:
        self._reading: _Seen | None = None
        self._writing: _Seen | None = None

    def expired(self, clocks: tuple[Clock | None, Clock | None], now: float) -> str | None:
        """Compare with the last time; returns the reason of a clock that has run out."""
        self._reading = _see(clocks[0], self._reading, now)
        self._writing = _see(clocks[1], self._writing, now)
        for clock, seen in zip(clocks, (self._reading, self._writing), strict=True):
            if clock is not None and seen is not None and now - seen.since >= clock.seconds:
                return clock.reason
        return None


def _see(clock: Clock | None, seen: _Seen | None, now: float) -> _Seen | None:
    """Look at a clock; it starts again with another state."""
    if clock is None:
        return None
    return seen if seen is not None and seen.state == clock.state else _Seen(clock.state, now)


class Sweeper:
    """Keeps the deadlines of clients and of work.

    Args:
        tick_seconds: between two looks; may be changed, from the next look on.
    """

    def __init__(self, tick_seconds: float) -> None:
        self.tick_seconds = tick_seconds
        self._watches: dict[Watched, _Watch] = {}
        self._scopes: dict[trio.CancelScope, float] = {}

    def watch(self, client: Watched) -> None:
        """Keep a client's deadlines from now on."""
        self._watches[client] = _Watch()

    def forget(self, client: Watched) -> None:
        """Stop doing so."""
        del self._watches[client]

    @contextmanager
    def limit(self, command: str, seconds: float) -> Iterator[None]:
        """Cancel what is done inside after so many seconds.

        Raises:
            DeadlinePassed: it was.
        """
        with trio.CancelScope() as scope:
            self._scopes[scope] = trio.current_time() + seconds
            try:
                yield
            finally:
                del self._scopes[scope]
        if scope.cancelled_caught:
            raise DeadlinePassed(command, seconds)

    async def run(self) -> None:
        """Look at everybody, again and again, until cancelled."""
        while True:
            await trio.sleep(self.tick_seconds)
            await self.sweep()

    async def sweep(self) -> None:
        """Look at everybody once."""
        now = trio.current_time()
        for scope, deadline in list(self._scopes.items()):
            if now >= deadline:
                scope.cancel()
        for client, watch in list(self._watches.items()):
            if client not in self._watches:
                continue  # it went while others were ended, and its descriptor may be another's by now
            reason = watch.expired(client.clocks(), now)
            if reason is not None:
                client.expire(reason)
                await trio.lowlevel.checkpoint()  # a thousand goodbyes are not said in one breath


def tick_seconds(limits: Limits) -> float:
    """Choose how often to look: a twentieth of the shortest deadline, between 0.05 and 1 s."""
    shortest = min(limits.request_seconds, limits.idle_seconds, limits.write_seconds)
    return min(1.0, max(0.05, shortest / 20))
