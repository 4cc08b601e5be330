"""``follow`` on many hosts: hosts and the name of a log enter, their lines leave as they come.

Standard output gets the lines, standard error gets what happens to the hosts.  A host that is
lost is tried again for as long as trying can help.
"""

import json
import math
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import trio

from trio_cmd.client.answers import Skipped
from trio_cmd.client.connection import MAX_ANSWER_BYTES, open_following
from trio_cmd.client.conversation import Terms
from trio_cmd.client.errors import AskError, ConnectionLost, OurFault, describe_fault
from trio_cmd.client.hosts import Host
from trio_cmd.client.options import Options
from trio_cmd.client.outlet import Outlet
from trio_cmd.client.phrases import format_error
from trio_cmd.escape import escape
from trio_cmd.wire.messages import NOTICES

__all__ = ["Pauses", "follow_fleet"]

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

# What was read is written before the end, unless nobody takes it.
_FLUSH_SECONDS = 1.0

_SOME_FAILED = 1
_NONE_ANSWERED = 3


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


async def follow_fleet(
    options: Options, *, stdout: int = 1, stderr: int = 2, pauses: Pauses | None = None
) -> int:
    """Follow a log on all hosts, until none is left that could have lines.

    Args:
        options: with ``follow`` set; ``at_once`` bounds how many hosts are being connected to.
        stdout: the descriptor for the lines, ``HOST: LINE`` or as JSON.
        stderr: the descriptor for what happens to the hosts.
        pauses: between the tries of a host.

    Returns:
        The exit code: 3 if no host ever had lines to follow, else 1.

    Raises:
        OSError: standard output takes nothing more; BrokenPipeError when its reader is gone.

    Cancel: all connections are closed; what was read is written, unless that takes over a second.
    """
    return await _Fleet(options, Outlet(stdout), Outlet(stderr), pauses or Pauses()).run()


class _Fleet:
    """All that are followed, and the two ways out.

    The ways out are shielded: what was read before the end is written after it.
    """

    def __init__(self, options: Options, lines: Outlet, notes: Outlet, pauses: Pauses) -> None:
        self._options = options
        self._lines = lines
        self._notes = notes
        connecting = trio.CapacityLimiter(options.at_once)
        self._followers = [_Follower(host, self, pauses, connecting) for host in options.hosts]
        self._following = trio.CancelScope()
        self._writing = trio.CancelScope(shield=True)
        self._noting = trio.CancelScope(shield=True)
        self._broken: OSError | None = None

    async def run(self) -> int:
        """Follow until nobody is left to be followed; returns the exit code."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_lines)
            nursery.start_soon(self._write_notes)
            is_interrupted = True
            try:
                await self._follow_all()
                is_interrupted = self._broken is not None
            finally:
                self._close(trio.current_time() + _FLUSH_SECONDS if is_interrupted else math.inf)
        if self._broken is not None:
            raise self._broken
        return _SOME_FAILED if any(follower.has_lines for follower in self._followers) else _NONE_ANSWERED

    async def put(self, host: Host, event: str | Skipped) -> None:
        """Let a line of a host leave, or say how many it has left out."""
        form = _format_json if self._options.output == "json" else _format_text
        await self._lines.put(form(host, event).encode())

    async def note(self, host: Host, text: str) -> None:
        """Say what happens to a host; the text is safe to show."""
        await self._notes.put(f"{host.name}: {text}\n".encode())

    def open(self, host: Host) -> AbstractAsyncContextManager[AsyncIterator[str | Skipped]]:
        """Follow the log on a host for as long as a block lasts; see ``Connection.follow``."""
        options = self._options
        assert options.follow is not None
        seconds = options.timeout_seconds
        terms = Terms(host, options.tls, options.token, seconds, seconds, MAX_ANSWER_BYTES)
        return open_following(terms, options.follow)

    async def _follow_all(self) -> None:
        with self._following:
            async with trio.open_nursery() as nursery:
                for follower in self._followers:
                    nursery.start_soon(follower.run, nursery)

    def _close(self, deadline: float) -> None:
        """Write what there is, until a point in time."""
        self._lines.close()
        self._notes.close()
        self._writing.deadline = self._noting.deadline = deadline

    async def _write_lines(self) -> None:
        try:
            with self._writing:
                await self._lines.run()
        except OSError as error:
            self._broken = error
            self._following.cancel()

    async def _write_notes(self) -> None:
        with self._noting:
            while True:
                try:
                    return await self._notes.run()
                except OSError:
                    continue  # a lost standard error takes only notes with it


class _Follower:
    """One host: its tries, and what was last said of it."""

    def __init__(self, host: Host, fleet: _Fleet, pauses: Pauses, connecting: trio.CapacityLimiter) -> None:
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


def _format_text(host: Host, event: str | Skipped) -> str:
    shown = f"{event.lines} lines skipped" if isinstance(event, Skipped) else escape(event)
    return f"{host.name}: {shown}\n"


def _format_json(host: Host, event: str | Skipped) -> str:
    """In the form of the wire, and all ASCII: nothing of it moves a terminal."""
    told: dict[str, str | int] = {"host": host.name}
    if isinstance(event, Skipped):
        told |= {"event": "skipped", "lines": event.lines}
    else:
        told |= {"event": "line", "line": event}
    return json.dumps(told, separators=(",", ":")) + "\n"
