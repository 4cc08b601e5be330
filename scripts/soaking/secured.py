"""TLS over a socket: what the socket of a client can do, sealed."""

import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

import trio

__all__ = ["Secured"]

READ_BYTES = 1 << 16
_Result = TypeVar("_Result")


class Secured:
    """A client's end of a connection with TLS.

    One task may receive while another sends.

    Args:
        client: connected; closed with this.
        context: says whom to believe.
        is_polite: whether it says that it has no more to send, as OpenSSL does; else it only shuts
            its sending side, as ncat does.
    """

    def __init__(self, client: trio.socket.SocketType, context: ssl.SSLContext, *, is_polite: bool) -> None:
        self._client = client
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._is_polite = is_polite

    async def shake_hands(self) -> None:
        """Agree on keys.

        Raises:
            OSError: the server has closed, or does not want to.
        """
        await self._drive(self._tls.do_handshake)

    async def recv(self, size: int) -> bytes:
        """Take what comes; nothing is the end.

        Raises:
            ConnectionError: it ended in the middle.
        """
        try:
            return await self._drive(lambda: self._tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            raise ConnectionResetError(str(error)) from None

    async def send(self, data: bytes | memoryview) -> int:
        """Send all; returns how many bytes that were.

        Cancel: the connection is only good for closing.
        """
        count = self._tls.write(data)
        await self._flush()
        return count

    async def send_unsealed(self, data: bytes) -> None:
        """Send what is none of TLS; little enough to go at once."""
        await self._client.send(data)

    async def send_eof(self) -> None:
        """Say that there is no more; what comes is still taken."""
        # With something to read before it, OpenSSL would give it up.
        if self._is_polite and not self._incoming.pending and not self._tls.pending():
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                await self._flush()
        else:
            self._client.shutdown(socket.SHUT_WR)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Set an option of the socket."""
        self._client.setsockopt(level, option, value)

    def close(self) -> None:
        """Close without a word."""
        self._client.close()

    async def _drive(self, do: Callable[[], _Result]) -> _Result:
        """Do what needs bytes until it has them."""
        while True:
            try:
                result = do()
            except ssl.SSLWantReadError:
                await self._flush()
                self._feed(await self._client.recv(READ_BYTES))
            else:
                await self._flush()
                return result

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        view = memoryview(self._outgoing.read())
        while view:
            view = view[await self._client.send(view) :]
