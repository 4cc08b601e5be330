"""Where the server listens: its settings enter, connections leave to their handler."""

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import trio

from trio_cmd.errors import ListenError
from trio_cmd.escape import escape, quote
from trio_cmd.records import EventLogger, events
from trio_cmd.server.unix_socket import unix_listener
from trio_cmd.settings import ServerSettings

__all__ = ["Listeners", "explain"]


class Listeners:
    """The listeners of a server: over TCP, on a path, or both.

    Args:
        settings: where to listen.
        log: records each listener.
        handle: serves one connection.

    Attributes:
        closed: what Twisted says of each listener at its end.
    """

    def __init__(
        self,
        settings: ServerSettings,
        log: EventLogger,
        handle: Callable[[trio.SocketStream], Awaitable[object]],
    ) -> None:
        self._settings = settings
        self._log = log
        self._handle = handle
        self.closed = ""

    @asynccontextmanager
    async def open(self, connections: trio.Nursery) -> AsyncIterator[int | None]:
        """Accept connections as long as this lasts.

        Args:
            connections: where their handlers run; they go on when this ends.

        Yields:
            The first TCP port, or ``None``: there is none.

        Raises:
            ListenError: a place cannot be listened on.

        Cancel: the listeners are closed, the path of the unix socket is gone.
        """
        path = self._settings.unix_socket
        # The path first, because no thread may be at work yet; and last to go, when nobody listens there.
        with unix_listener(path) if path else nullcontext() as unix:
            async with trio.open_nursery() as nursery:
                port = await self._listen_tcp(nursery, connections) if self._settings.host else None
                if unix is not None:
                    await self._listen_unix(nursery, connections, unix)
                yield port
                nursery.cancel_scope.cancel()

    async def _listen_tcp(self, nursery: trio.Nursery, connections: trio.Nursery) -> int:
        """Listen on each address of the host; returns the first port."""
        host, port = self._settings.host, self._settings.port
        address = None if host == "*" else host
        serve = partial(trio.serve_tcp, self._handle, port, host=address, handler_nursery=connections)
        try:
            opened: list[trio.SocketListener] = await nursery.start(serve)
        except OSError as error:
            raise ListenError(explain(error, host, port)) from error
        places = [listener.socket.getsockname()[:2] for listener in opened]
        for address, port in places:
            self._log.record(events.LISTENING, host=address, port=port, where=port)
            self._note("TCP", port)
        return int(places[0][1])

    async def _listen_unix(
        self, nursery: trio.Nursery, connections: trio.Nursery, listener: trio.SocketListener
    ) -> None:
        serve = partial(trio.serve_listeners, self._handle, [listener], handler_nursery=connections)
        await nursery.start(serve)
        path = self._settings.unix_socket
        self._log.record(events.LISTENING, host="unix", path=escape(path), where=quote(path))
        self._note("UNIX", quote(path))

    def _note(self, kind: str, where: object) -> None:
        self.closed = f"{self.closed} ({kind} Port {where} Closed)".lstrip()


def explain(error: OSError, host: str, port: int, host_key: str = "--host", port_key: str = "--port") -> str:
    """Say why an address cannot be listened on, and what to do instead with which settings."""
    remedies = {
        errno.EADDRINUSE: f"stop what uses it, or choose another port with {port_key}",
        errno.EACCES: f"choose a port above 1023 with {port_key}",
        errno.EADDRNOTAVAIL: f"this host has no such address; choose another with {host_key}",
    }
    reason = os.strerror(error.errno) if error.errno in remedies else str(error)
    remedy = remedies.get(error.errno or 0, f"choose another address with {host_key} and {port_key}")
    return f"cannot listen on {host} port {port}: {reason}; {remedy}"
