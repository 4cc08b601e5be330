"""A connection enters, TLS with a known client leaves: within a time, and not too many at once.

Who never finishes a handshake has said nothing yet that it could be known by.  So there are few
places for the unfinished, and whoever has most of them loses the oldest: a flood pushes out its
own, and a client that finishes, in a few milliseconds, is hardly ever met.
"""

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import trio

from trio_cmd.addresses import Address, address_key, is_local
from trio_cmd.server.tls import ServerCertificate, is_in_time
from trio_cmd.wire.closing import drain
from trio_cmd.wire.stream import ClientStream
from trio_cmd.wire.tls import HandshakeFailed, TlsStream

__all__ = ["Handshakes", "TlsDoor"]

# Two round trips and a signature; ten times the way to the other end of the world on a bad line.
HANDSHAKE_SECONDS = 5.0
# A refused client has nothing to wait for but its alert.
ALERT_SECONDS = 1.0
# More than one program of a host begins in the same moment, but not many.
PER_ADDRESS = 4
# A server for four clients must still let two of them begin at once.
MIN_IN_ALL = 4


class Unfinished:
    """A handshake under way.

    Args:
        address: the client's.

    Attributes:
        why: it has failed; nothing as long as it has not.
    """

    __slots__ = ("address", "scope", "why")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.scope = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_SECONDS)
        self.why = ""

    def end(self, why: str) -> None:
        """Cancel it; the first reason holds."""
        self.why = self.why or why
        self.scope.cancel()


class Handshakes:
    """The handshakes under way, by address.

    Args:
        max_clients: of the server; a quarter of these may be under way.
    """

    def __init__(self, max_clients: int) -> None:
        self.resize(max_clients)
        self.count = 0
        self._by_address: dict[Hashable, dict[Unfinished, None]] = {}  # the oldest first
        self._is_stopping = False

    def resize(self, max_clients: int) -> None:
        """Allow another number from now on."""
        self.max_in_all = max(MIN_IN_ALL, max_clients // 4)

    @contextmanager
    def limited(self, address: Address) -> Iterator[Unfinished]:
        """Limit what is done inside in time, and in number with all others.

        Args:
            address: the client's.

        Yields:
            What is counted.

        Raises:
            HandshakeFailed: it was ended: by its deadline, for a newer one, or because of ``stop``.
        """
        key, unfinished = address_key(address), Unfinished(address)
        self._by_address.setdefault(key, {})[unfinished] = None
        self.count += 1
        self._make_room(address, key)
        try:
            with unfinished.scope:
                yield unfinished
        finally:
            self._forget(key, unfinished)
        if unfinished.scope.cancelled_caught:
            raise HandshakeFailed(unfinished.why or f"not finished in {HANDSHAKE_SECONDS:g} s")

    def renew(self, is_admissible: Callable[[Address], bool]) -> None:
        """End those of whoever would not be let in any more."""
        for others in self._by_address.values():
            for unfinished in others:
                if not is_admissible(unfinished.address):
                    unfinished.end("no longer allowed")

    def stop(self) -> None:
        """End all there are, and all to come."""
        self._is_stopping = True
        for key in list(self._by_address):
            for unfinished in self._by_address[key]:
                unfinished.end("server is stopping")

    def _make_room(self, address: Address, key: Hashable) -> None:
        """End the oldest of whoever has most, if one has too many or all have together."""
        if self._is_stopping:
            self.stop()
        elif len(self._by_address[key]) > PER_ADDRESS and not is_local(address):
            self._end_oldest(key)
        elif self.count > self.max_in_all:
            self._end_oldest(max(self._by_address, key=lambda other: len(self._by_address[other])))

    def _end_oldest(self, key: Hashable) -> None:
        oldest = next(iter(self._by_address[key]))
        oldest.end("too many unfinished handshakes")
        self._forget(key, oldest)  # it takes no place any more, though it has yet to notice

    def _forget(self, key: Hashable, unfinished: Unfinished) -> None:
        others = self._by_address.get(key, {})
        if unfinished in others:
            del others[unfinished]
            self.count -= 1
            if not others:
                del self._by_address[key]


class TlsDoor:
    """Makes TLS connections of plain ones.

    Args:
        max_clients: of the server.
    """

    def __init__(self, max_clients: int) -> None:
        self._handshakes = Handshakes(max_clients)

    def resize(self, max_clients: int) -> None:
        """Allow another number of handshakes at once from now on."""
        self._handshakes.resize(max_clients)

    async def open(self, stream: ClientStream, address: Address, certificate: ServerCertificate) -> TlsStream:
        """Shake hands with a client.

        Args:
            stream: the client's; the caller closes it if this fails, else the new one owns it.
            address: the client's.
            certificate: what the server shows.

        Raises:
            HandshakeFailed: why; the client has been sent its alert.
            trio.BrokenResourceError: the client is gone.

        Cancel: the stream can only be closed.
        """
        tls = TlsStream(stream, certificate.context())
        with self._handshakes.limited(address) as unfinished:
            try:
                await tls.handshake()
            except HandshakeFailed as error:
                unfinished.why = str(error)
                await _let_read(stream)
                raise
        if not is_in_time(tls.peer_certificate(), time.time()):
            raise HandshakeFailed("certificate has expired")
        return tls

    def renew(self, is_admissible: Callable[[Address], bool]) -> None:
        """End the handshakes of whoever would not be let in any more."""
        self._handshakes.renew(is_admissible)

    def stop(self) -> None:
        """End the handshakes under way; whoever comes now is closed."""
        self._handshakes.stop()


async def _let_read(stream: ClientStream) -> None:
    """Give a client the time to read its alert; one of TLS 1.3 may be sending already."""
    with trio.move_on_after(ALERT_SECONDS), contextlib.suppress(trio.BrokenResourceError):
        await drain(stream)
