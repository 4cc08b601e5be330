"""TLS around the stream of one client: sealed bytes on the socket, plain ones for the session.

Python's ``ssl`` seals and opens in memory, and what it has sealed is written as everything else
is: at once as far as the client takes it.  Trio's own stream cannot do that.  It also sends no
alert to a client it refuses, and cannot answer one that has just shut its sending side.
"""

import contextlib
import ssl
from collections.abc import Mapping
from typing import Any

import trio
from trio.lowlevel import checkpoint, wait_writable

from trio_cmd.escape import escape
from trio_cmd.wire.stream import PLAIN_SEND_BYTES, RECEIVE_BYTES, ClientStream

__all__ = ["HandshakeFailed", "TlsStream"]

HANDSHAKE_RECORD = 0x16  # RFC 8446, 5.1: how each client hello begins
# A client can make TLS itself answer (RFC 8446, 4.6.3); who does not read that is not waited for.
MAX_UNREAD_BYTES = 65536


class HandshakeFailed(Exception):
    """There is no TLS with this client; the message says why, safe to show."""


class TlsStream(ClientStream):
    """The server's end of a TLS connection.

    The end of the client's input is its ``close_notify`` as well as a bare end of the socket's
    input, which is how netcats say it; both leave the way to the client open.

    Args:
        stream: the socket's; owned, closed with this one.
        context: the server's.
    """

    __slots__ = (
        "_fd",
        "_incoming",
        "_is_cut",
        "_is_ended",
        "_is_open",
        "_left",
        "_outgoing",
        "_sealed",
        "_stream",
        "_tls",
    )

    says_end = True

    def __init__(self, stream: ClientStream, context: ssl.SSLContext) -> None:
        self._stream = stream
        fd = stream.fileno()
        assert fd is not None
        self._fd: int = fd
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._left = b""  # sealed and not written
        self._sealed = 0  # bytes that are sealed, of which the socket has not yet taken all
        self._is_open = False  # the handshake is done, and nothing has been said to end it
        self._is_ended = False  # the client's end of input was read
        self._is_cut = False  # the last write was not taken whole

    async def handshake(self) -> None:
        """Agree on keys; comes before everything else.

        Raises:
            HandshakeFailed: the client does not speak TLS, not a good one, or is not who it should be;
                the alert that tells it has been sent.
            trio.BrokenResourceError: the client is gone.

        Cancel: the stream can only be closed.
        """
        data = await self._receive_sealed()
        if data and data[0] != HANDSHAKE_RECORD:
            # OpenSSL would send an alert: bytes that mean nothing to who does not speak TLS.
            raise HandshakeFailed("the client does not speak TLS")
        while not self._try_handshake():
            await self._send_sealed()
            if not await self._receive_sealed():
                raise HandshakeFailed("the client has left")
        await self._send_sealed()
        # A client of TLS 1.3 has said the last word, and with Nagle's algorithm it says the next one
        # only when that is confirmed: 40 ms later, by itself.
        self._stream.confirm()
        self._is_open = True

    def version(self) -> str:
        """Name the protocol's version, after the handshake: ``TLSv1.3``."""
        return self._tls.version() or ""

    def peer_certificate(self) -> Mapping[str, Any]:
        """Give the client's verified certificate as ``ssl`` spells it, after the handshake; empty: none."""
        return self._tls.getpeercert() or {}

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what is there, nothing at the end of input; see ``trio.abc.ReceiveStream``."""
        data = self._open_sealed(max_bytes or RECEIVE_BYTES)
        if data or self._is_ended:
            await checkpoint()
        while not data and not self._is_ended:
            await self._receive_sealed()
            data = self._open_sealed(max_bytes or RECEIVE_BYTES)
        return data

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See ``ClientStream``; what was not taken must be the next that is sent.

        A piece counts as taken when the socket has taken all of it.
        """
        taken = 0
        while self._flush():
            taken, self._sealed = taken + self._sealed, 0
            if taken == len(data):
                break
            self._seal(memoryview(data)[taken:][:PLAIN_SEND_BYTES])
        self._is_cut = taken < len(data)
        return taken

    async def send_some(self, data: memoryview) -> int:
        """See ``ClientStream``."""
        while True:
            await wait_writable(self._fd)
            if sent := self.send_nowait(data):
                return sent

    async def say_end(self) -> None:
        """Send ``close_notify``; a client that gets none knows that its answer was cut."""
        if self._is_open and not self._is_cut:
            self._shut()
            await self._send_sealed()

    async def send_eof(self) -> None:
        """Shut the sending side of the socket too."""
        await self.say_end()
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the socket, also when cancelled; ``close_notify`` is sent if nothing has to be waited for."""
        if self._is_open and not self._is_cut:
            self._shut()
            with contextlib.suppress(trio.BrokenResourceError):
                self._flush()
        await self._stream.aclose()

    def fileno(self) -> int:
        """See ``ClientStream``."""
        return self._fd

    def waiting_bytes(self) -> tuple[int, int]:
        """Ask the kernel; what it holds is sealed."""
        return self._stream.waiting_bytes()

    def _try_handshake(self) -> bool:
        """Go as far as what was received allows; returns whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            with contextlib.suppress(trio.BrokenResourceError):
                self._flush()  # the alert
            raise HandshakeFailed(_explain(error)) from error
        return True

    async def _receive_sealed(self) -> bytes:
        """Wait for more from the socket; returns it as well, nothing at the end of input."""
        data = await self._stream.receive_some()
        self._incoming.write(data)
        self._is_ended = not data
        return data

    def _open_sealed(self, max_bytes: int) -> bytes:
        """Open what was received.

        Returns:
            At most so many bytes, as one piece; none: more must be received, or the client has
            said that nothing follows.

        Raises:
            trio.BrokenResourceError: it was not sealed by the client, or the client gives up.
        """
        pieces: list[bytes] = []
        left = max_bytes
        try:
            while left and (piece := self._tls.read(left)):
                pieces.append(piece)
                left -= len(piece)
            self._is_ended = self._is_ended or left > 0
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._flush()  # the alert
            raise trio.BrokenResourceError from error
        self._answer_for_tls()
        return b"".join(pieces)

    def _answer_for_tls(self) -> None:
        """Write what TLS itself has to say, as when the client has new keys."""
        if not self._flush() and len(self._left) + self._outgoing.pending > MAX_UNREAD_BYTES:
            raise trio.BrokenResourceError

    def _seal(self, piece: memoryview) -> None:
        try:
            self._sealed = self._tls.write(piece)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error

    def _shut(self) -> None:
        """Seal a ``close_notify``."""
        self._is_open = False
        with contextlib.suppress(ssl.SSLError):  # that the client's has not come yet
            self._tls.unwrap()

    def _flush(self) -> bool:
        """Write what is sealed as far as the socket takes it; returns whether that was all.

        Raises:
            trio.BrokenResourceError: the client is gone.
        """
        while data := self._left or self._outgoing.read():
            self._left = data[self._stream.send_nowait(data) :]
            if self._left:
                return False
        return True

    async def _send_sealed(self) -> None:
        """Write all that is sealed.

        Cancel: part of it has left.
        """
        while not self._flush():
            await wait_writable(self._fd)


def _explain(error: ssl.SSLError) -> str:
    """Say OpenSSL's reason in its own words, without its numbers and places."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return escape(error.verify_message)
    return escape((error.reason or str(error)).lower().replace("_", " "))
