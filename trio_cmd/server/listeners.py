"""Where the server listens: its settings enter, connections leave to their handler."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, cast

import trio

from trio_cmd.errors import ListenError
from trio_cmd.escape import escape, quote
from trio_cmd.records import EventLogger, events
from trio_cmd.server.inherited import Inherited
from trio_cmd.server.unix_socket import unix_listener
from trio_cmd.settings import ServerSettings

__all__ = ["Listeners", "explain"]


class Listeners:
    """The listeners of a server: over TCP, on a path, or both; or those it was given.

    Args:
        settings: where to listen.
        log: records each listener.
        handle: serves one connection.
        inherited: what is listened on instead, if there are any.

    Attributes:
        closed: what Twisted says of each listener at its end.
    """

    def __init__(
        self,
        settings: ServerSettings,
        log: EventLogger,
        handle: Callable[[trio.SocketStream], Awaitable[object]],
        inherited: Sequence[Inherited] = (),
    ) -> None:
        self._settings = settings
        self._log = log
        self._handle = handle
        self._inherited = inherited
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
        handlers = cast("trio.Nursery", Handlers(connections))  # any object that has a start_soon will do
        path = "" if self._inherited else self._settings.unix_socket
        # The path first, because no thread may be at work yet; and last to go, when nobody listens there.
        with unix_listener(path) if path else nullcontext() as unix:
            async with trio.open_nursery() as nursery:
                yield await self._listen(nursery, handlers, unix)
                nursery.cancel_scope.cancel()

    async def _listen(
        self, nursery: trio.Nursery, connections: trio.Nursery, unix: trio.SocketListener | None
    ) -> int | None:
        """Listen wherever it is said; returns the first port."""
        if self._inherited:
            return await self._listen_inherited(nursery, connections)
        port = await self._listen_tcp(nursery, connections) if self._settings.host else None
        if unix is not None:
            await self._listen_unix(nursery, connections, unix)
        return port

    async def _listen_inherited(self, nursery: trio.Nursery, connections: trio.Nursery) -> int | None:
        """Serve what somebody else has bound, and holds on to; its path is not ours to remove."""
        listeners = [
            trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=each.fd)))
            for each in self._inherited
        ]
        serve = partial(trio.serve_listeners, self._handle, listeners, handler_nursery=connections)
        await nursery.start(serve)
        for each in self._inherited:
            if each.port:
                self._record_tcp(each.host, each.port, inherited=each.name)
            else:
                self._record_unix(each.path, inherited=each.name)
        return next((each.port for each in self._inherited if each.port), None)

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
            self._record_tcp(address, port)
        return int(places[0][1])

    async def _listen_unix(
        self, nursery: trio.Nursery, connections: trio.Nursery, listener: trio.SocketListener
    ) -> None:
        serve = partial(trio.serve_listeners, self._handle, [listener], handler_nursery=connections)
        await nursery.start(serve)
        self._record_unix(self._settings.unix_socket)

    def _record_tcp(self, host: str, port: int, **fields: Any) -> None:
        self._log.record(events.LISTENING, host=host, port=port, where=port, **fields)
        self._note("TCP", port)

    def _record_unix(self, path: str, **fields: Any) -> None:
        self._log.record(events.LISTENING, host="unix", path=escape(path), where=quote(path), **fields)
        self._note("UNIX", quote(path))

    def _note(self, kind: str, where: object) -> None:
        self.closed = f"{self.closed} ({kind} Port {where} Closed)".lstrip()


class Handlers:
    """Starts the handlers of connections, which close their stream themselves.

    Trio would put a function around each that closes the stream once more, by force: a frame for as
    long as the connection lasts, and a pass of the event loop at its end.

    Args:
        nursery: where the handlers run.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(self, run: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start the handler of a stream that was accepted; see ``trio.serve_listeners``.

        Args:
            run: Trio's function around the handler.
            args: the stream and the handler; a Trio that gives others gets its own way.
        """
        if len(args) == 2 and isinstance(args[0], trio.SocketStream):
            self._nursery.start_soon(args[1], args[0])
        else:
            self._nursery.start_soon(run, *args)


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
