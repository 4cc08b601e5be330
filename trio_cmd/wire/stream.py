"""The stream of one client: bytes in, bytes out, half-close; ``closing`` has the close that cuts no answer.

The session knows one kind of stream, ``ClientStream``.  ``SocketStream`` is the fast path of a
TCP or unix socket: the read or write is tried at once and costs one system call.  ``PlainStream``
lends the same face to any other stream of Trio (memory).  ``tls`` has the one that seals.
"""

import abc
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable

import trio
from trio.abc import HalfCloseableStream
from trio.lowlevel import checkpoint, wait_readable, wait_writable

__all__ = ["ClientStream", "PlainStream", "SocketStream"]

RECEIVE_BYTES = 65536
# Small enough that a write deadline sees progress, large enough to cost nothing.
PLAIN_SEND_BYTES = 16384

_SIOCINQ = termios.FIONREAD
_SIOCOUTQ = termios.TIOCOUTQ


class ClientStream(HalfCloseableStream):
    """A stream that can also be written without waiting.

    Attributes:
        says_end: ``say_end`` sends something.
    """

    says_end = False
    # Received, or met, by a stream that cannot wait without receiving.
    _ahead: bytes | trio.BrokenResourceError | None = None

    @abc.abstractmethod
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what is there, nothing at the end of input; see ``trio.abc.ReceiveStream``."""

    def wait_for_input(self) -> Awaitable[None]:
        """Wait until ``receive_nowait`` should be tried; it may find nothing all the same.

        Cancel: nothing is lost.
        """
        return self._receive_ahead()

    def receive_nowait(self) -> bytes | None:
        """Read what is there already; nothing at the end of input.

        Returns:
            The bytes, or ``None``: wait for them.

        Raises:
            trio.BrokenResourceError: the client is gone.
        """
        data, self._ahead = self._ahead, None
        if isinstance(data, trio.BrokenResourceError):
            raise data
        return data

    async def _receive_ahead(self) -> None:
        try:
            self._ahead = await self.receive_some()
        except trio.BrokenResourceError as error:
            self._ahead = error

    @abc.abstractmethod
    def send_nowait(self, data: bytes) -> int:
        """Write what can be written at once.

        Returns:
            How many bytes were taken, also none.

        Raises:
            trio.BrokenResourceError: the client is gone.
        """

    @abc.abstractmethod
    async def send_some(self, data: memoryview) -> int:
        """Wait until something can be written and write it.

        Returns:
            How many bytes were taken, at least one.

        Raises:
            trio.BrokenResourceError: the client is gone.

        Cancel: none or some of the bytes were written; nothing may be written any more.
        """

    @abc.abstractmethod
    def fileno(self) -> int | None:
        """The descriptor to watch for a reset, or ``None`` where there is none."""

    @abc.abstractmethod
    def waiting_bytes(self) -> tuple[int, int]:
        """How much the client sent that was not read, and did not yet confirm of what it was sent."""

    async def say_end(self) -> None:
        """Say that nothing more comes, where that is a message of its own; nothing may be sent afterwards.

        Raises:
            trio.BrokenResourceError: the client is gone.
        """

    def confirm(self) -> None:
        """Confirm what was received at once, where the kernel would wait for something to send with it."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all; see ``trio.abc.SendStream``."""
        rest = memoryview(data)
        while rest:
            rest = rest[await self.send_some(rest) :]

    async def wait_send_all_might_not_block(self) -> None:
        """See ``trio.abc.SendStream``; nothing here needs it."""
        await checkpoint()


class SocketStream(ClientStream):
    """The fast path of a connected socket.

    Args:
        stream: Trio's stream of the socket; owned, closed with this one.
    """

    __slots__ = ("_fd", "_stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._fd = stream.socket.fileno()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what is there; see ``trio.abc.ReceiveStream``."""
        data = None
        while data is None:
            await wait_readable(self._fd)
            data = self.receive_nowait(max_bytes or RECEIVE_BYTES)
        return data

    def wait_for_input(self) -> Awaitable[None]:
        """See ``ClientStream``; an async function of our own would take memory of each idle client."""
        return wait_readable(self._fd)  # noqa: ASYNC105 - the caller awaits it

    def receive_nowait(self, max_bytes: int = RECEIVE_BYTES) -> bytes | None:
        """See ``ClientStream``."""
        try:
            return os.read(self._fd, max_bytes)
        except BlockingIOError:  # what made it readable may be gone, as a failed checksum does
            return None
        except OSError as error:
            raise trio.BrokenResourceError from error

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See ``ClientStream``."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def send_some(self, data: memoryview) -> int:
        """See ``ClientStream``."""
        while True:
            await wait_writable(self._fd)
            if sent := self.send_nowait(data):
                return sent

    async def send_eof(self) -> None:
        """Shut the sending side; a client that is gone already is none the worse for it."""
        await checkpoint()
        try:
            self._stream.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise trio.BrokenResourceError from error

    def close(self) -> None:
        """Close the socket; nothing waits for that."""
        self._stream.socket.close()

    async def aclose(self) -> None:
        """Close the socket, also when cancelled; ``close`` saves a pass of the event loop."""
        await self._stream.aclose()

    def fileno(self) -> int:
        """See ``ClientStream``."""
        return self._fd

    def confirm(self) -> None:
        """See ``ClientStream``; only Linux can be told."""
        option = getattr(socket, "TCP_QUICKACK", None)
        if option is not None and self._stream.socket.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # it is gone already
                self._stream.socket.setsockopt(socket.IPPROTO_TCP, option, 1)

    def waiting_bytes(self) -> tuple[int, int]:
        """Ask the kernel."""
        return _queued(self._fd, _SIOCINQ), _queued(self._fd, _SIOCOUTQ)


class PlainStream(ClientStream):
    """Any stream of Trio as a client's.

    Args:
        stream: owned, closed with this one.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: HalfCloseableStream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what is there; see ``trio.abc.ReceiveStream``."""
        return bytes(await self._stream.receive_some(max_bytes or RECEIVE_BYTES))

    def send_nowait(self, data: bytes) -> int:
        """Such streams only know how to wait."""
        return 0

    async def send_some(self, data: memoryview) -> int:
        """See ``ClientStream``."""
        piece = data[:PLAIN_SEND_BYTES]
        await self._stream.send_all(piece)
        return len(piece)

    async def send_eof(self) -> None:
        """Shut the sending side."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream, also when cancelled."""
        await self._stream.aclose()

    def fileno(self) -> None:
        """There is none."""
        return

    def waiting_bytes(self) -> tuple[int, int]:
        """Nothing is known, so take it that there is something."""
        return 1, 1


def _queued(fd: int, request: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, request, b"\0" * 4))[0])
