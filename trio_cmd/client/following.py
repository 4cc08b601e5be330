"""``follow`` on many hosts: hosts and the name of a log enter, their lines leave as they come.

Standard output gets the lines, standard error gets what happens to the hosts.
"""

import json
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import trio

from trio_cmd.client.answers import Skipped
from trio_cmd.client.connection import MAX_ANSWER_BYTES, open_following
from trio_cmd.client.conversation import Terms
from trio_cmd.client.follower import Follower, Pauses
from trio_cmd.client.hosts import Host
from trio_cmd.client.options import Options
from trio_cmd.client.outlet import Outlet
from trio_cmd.escape import escape

__all__ = ["follow_fleet"]

# What was read is written before the end, unless nobody takes it.
_FLUSH_SECONDS = 1.0

_SOME_FAILED = 1
_NONE_ANSWERED = 3


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
        self._followers = [Follower(host, self, pauses, connecting) for host in options.hosts]
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
