"""The limit of clients, and refusing aloud: nobody is turned away without being told why."""

import trio

from trio_cmd.server.descriptors import LINGERING_REFUSALS
from trio_cmd.wire.messages import format_notice
from trio_cmd.wire.stream import ClientStream, linger

__all__ = ["Admission"]

# A refused client has nothing to wait for but its one line.
LINGER_SECONDS = 1.0


class Admission:
    """The places for clients.

    Args:
        max_clients: how many at once.
    """

    def __init__(self, max_clients: int) -> None:
        self._limiter = trio.CapacityLimiter(max_clients)
        self._lingering = trio.CapacityLimiter(LINGERING_REFUSALS)
        self.refused = 0

    @property
    def max_clients(self) -> int:
        """How many clients there may be."""
        return int(self._limiter.total_tokens)

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return self._limiter.borrowed_tokens

    def try_admit(self, client: object) -> bool:
        """Give a client a place, which ``leave`` gives back, or count it as refused."""
        try:
            self._limiter.acquire_on_behalf_of_nowait(client)
        except trio.WouldBlock:
            self.refused += 1
            return False
        return True

    def leave(self, client: object) -> None:
        """Give a client's place back."""
        self._limiter.release_on_behalf_of(client)

    async def refuse(self, stream: ClientStream, reason: str, address: str) -> int:
        """Tell a client why it is refused; the caller closes the stream.

        The line arrives also when the client has already sent commands, as long as not too many
        refusals wait at once.

        Returns:
            How many bytes it was sent.

        Raises:
            trio.BrokenResourceError: it was gone already.

        Cancel: nothing is left behind.
        """
        notice = format_notice(reason, "text", address=address)
        sent = stream.send_nowait(notice)
        try:
            self._lingering.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.lowlevel.checkpoint()
            return sent
        try:
            await linger(stream, LINGER_SECONDS)
        finally:
            self._lingering.release_on_behalf_of(stream)
        return sent
