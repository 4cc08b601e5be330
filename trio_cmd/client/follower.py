"""One host that is followed: a connection to its log is opened again and again, its lines leave."""

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import trio

from trio_cmd.client.answers import Skipped
from trio_cmd.client.errors import AskError, ConnectionLost, OurFault, describe_fault
from trio_cmd.client.hosts import Host
from trio_cmd.client.phrases import format_error
from trio_cmd.wire.messages import NOTICES

__all__ = ["Fleet", "Follower", "Pauses"]

# Codes of what trying again does not change.
_FINAL = frozenset(
    {
        "bad-arguments",
        "bad-token",
        "not-allowed",
        "not-found",
        "other-protocol",
        "tls-failed",
        "unknown-command",
    }
)
# Who is refused by address is told so in words, before there are codes.
_NOT_ALLOWED = NOTICES["not-allowed"].partition("{")[0]


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long a lost host is left alone, all in seconds.

    Each pause is twice the one before.  So a host that is restarted is followed again at once,
    and one that is gone costs a try a minute.

    Attributes:
        shortest: the first one, also after it has worked.
        longest: they grow no further.
        spread: the share by which each is longer or shorter, by chance, so that not all come at once.
        settled: a following that lasts this long without a line has worked.
    """

    shortest: float = 1.0
    longest: float = 60.0
    spread: float = 0.2
    settled: float = 2.0

    def after(self, seconds: float) -> float:
        """Say which pause comes after one of so many seconds."""
        return min(self.longest, 2 * seconds)

    def spread_out(self, seconds: float) -> float:
        """Make a pause a little longer or shorter, by chance."""
        return seconds * random.uniform(1 - self.spread, 1 + self.spread)  # noqa: S311 -- no secret


class Fleet(Protocol):
    """What one host needs of those it is one of."""

    def open(self, host: Host) -> AbstractAsyncContextManager[AsyncIterator[str | Skipped]]:
        """Follow the log on a host for as long as a block lasts; see ``Connection.follow``."""

    async def put(self, host: Host, event: str | Skipped) -> None:
        """Let a line of a host leave, or say how many it has left out."""

    async def note(self, host: Host, text: str) -> None:
        """Say what happens to a host; the text is safe to show."""


class Follower:
    """One host: its tries, and what was last said of it.

    Args:
        host: to be followed.
        fleet: those it is one of.
        pauses: between its tries.
        connecting: how many hosts may be connected to at once.

    Attributes:
        has_lines: whether it ever had a line.
    """

    def __init__(self, host: Host, fleet: Fleet, pauses: Pauses, connecting: trio.CapacityLimiter) -> None:
        self.has_lines = False
        self._host = host
        self._fleet = fleet
        self._pauses = pauses
        self._connecting = connecting
        self._has_worked = False  # this time
        self._said: str | None = None  # why it is not followed

    async def run(self, nursery: trio.Nursery) -> None:
        """Try again and again, until it cannot help."""
        pause = self._pauses.shortest
        while True:
            self._has_worked = False
            failure = await self._try(nursery)
            if _is_final(failure):
                await self._fleet.note(self._host, f"{format_error(failure)}; not tried again")
                return
            await self._say_lost(format_error(failure))
            if self._has_worked:
                pause = self._pauses.shortest
            await trio.sleep(self._pauses.spread_out(pause))
            pause = self._pauses.after(pause)

    async def _try(self, nursery: trio.Nursery) -> AskError:
        """Follow for as long as it goes; returns why it does not any more."""
        settling = trio.CancelScope()
        try:
            async with AsyncExitStack() as stack:
                async with self._connecting:
                    events = await stack.enter_async_context(self._fleet.open(self._host))
                nursery.start_soon(self._settle, settling)
                async for event in events:
                    await self._show(event)
        except AskError as error:
            return error
        except Exception as fault:  # the net below one host: the others are followed all the same
            return OurFault(describe_fault(fault))
        finally:
            settling.cancel()
        return ConnectionLost("the server has ended the following")

    async def _show(self, event: str | Skipped) -> None:
        if not self._has_worked:
            await self._say_found()
        self.has_lines = True
        await self._fleet.put(self._host, event)

    async def _settle(self, settling: trio.CancelScope) -> None:
        with settling:
            await trio.sleep(self._pauses.settled)
            await self._say_found()

    async def _say_lost(self, why: str) -> None:
        """Say why it is not followed, once for each reason: the tries may go on for days."""
        if why != self._said:
            self._said = why
            await self._fleet.note(self._host, f"{why}; trying again")

    async def _say_found(self) -> None:
        self._has_worked = True
        if self._said is not None:
            self._said = None
            await self._fleet.note(self._host, "followed again (what was written meanwhile is not shown)")


def _is_final(failure: AskError) -> bool:
    return failure.code in _FINAL or failure.message.startswith(_NOT_ALLOWED)
