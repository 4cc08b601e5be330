"""The limits of clients, and refusing aloud: nobody is turned away without being told why."""

from collections import Counter
from typing import TYPE_CHECKING

import trio

from trio_cmd.addresses import Address, address_key, is_local
from trio_cmd.server.descriptors import LINGERING_REFUSALS
from trio_cmd.wire.closing import linger
from trio_cmd.wire.messages import format_notice
from trio_cmd.wire.stream import ClientStream

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Admission"]

# Why a client is refused; all are shown from the start, also while there is none.
REFUSALS = ("not-allowed", "too-many-clients")
# A refused client has nothing to wait for but its one line.
LINGER_SECONDS = 1.0
# Of one address, so that whoever knocks all the time does not take all of them.
LINGERING_PER_ADDRESS = 8
# The last places are for whoever sits at the host and looks why it is full ...
KEPT_PLACES = 3
# ... but not where they would be a third of all.
KEPT_FROM_PLACES = 10


class _Places:
    """Places, of which one address gets only so many; clients on this host are not counted by address.

    Args:
        places: how many there are.
        per_address: how many of them one address gets.
        kept: how many are only for clients on this host.
    """

    def __init__(self, places: int, per_address: int, kept: int = 0) -> None:
        self.limiter = trio.CapacityLimiter(places)
        self._per_address = per_address
        self._kept = kept
        self._taken: Counter[Hashable] = Counter()  # by address
        self._keys: dict[object, Hashable] = {}  # of those who are counted

    def resize(self, places: int, per_address: int, kept: int) -> None:
        """Have another number of places; nobody loses one."""
        self.limiter.total_tokens = places
        self._per_address = per_address
        self._kept = kept

    def take(self, client: object, address: Address) -> bool:
        """Give a client a place, which ``leave`` gives back, if there is one for its address."""
        key = None if is_local(address) else address_key(address)
        kept = 0 if key is None else self._kept
        if self.limiter.available_tokens <= kept or self._taken[key] >= self._per_address:
            return False
        self.limiter.acquire_on_behalf_of_nowait(client)
        if key is not None:
            self._taken[key] += 1
            self._keys[client] = key
        return True

    def leave(self, client: object) -> None:
        """Give a client's place back."""
        self.limiter.release_on_behalf_of(client)
        key = self._keys.pop(client, None)
        if key is not None:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


class Admission:
    """The places for clients.

    Args:
        max_clients: how many at once; the last three are only for clients on this host.
        max_per_address: how many of one address, but for clients on this host.

    Attributes:
        refused: how many were refused so far, by reason.
    """

    def __init__(self, max_clients: int, max_per_address: int) -> None:
        self._clients = _Places(max_clients, max_per_address, _count_kept(max_clients))
        self._lingering = _Places(LINGERING_REFUSALS, LINGERING_PER_ADDRESS)
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))

    def resize(self, max_clients: int, max_per_address: int) -> None:
        """Let another number of clients in from now on; whoever is in stays."""
        self._clients.resize(max_clients, max_per_address, _count_kept(max_clients))

    @property
    def max_clients(self) -> int:
        """How many clients there may be."""
        return int(self._clients.limiter.total_tokens)

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return self._clients.limiter.borrowed_tokens

    def try_admit(self, client: object, address: Address) -> bool:
        """Give a client a place, which ``leave`` gives back, if there is one for its address."""
        return self._clients.take(client, address)

    def leave(self, client: object) -> None:
        """Give a client's place back."""
        self._clients.leave(client)

    async def refuse(self, stream: ClientStream, reason: str, address: Address) -> int:
        """Tell a client why it is refused; the caller closes the stream.

        The line arrives also when the client has already sent commands, as long as not too many
        refusals wait at once.

        Returns:
            How many bytes it was sent.

        Raises:
            trio.BrokenResourceError: it was gone already.

        Cancel: nothing is left behind.
        """
        sent = stream.send_nowait(format_notice(reason, "text", address=address))
        if not self._lingering.take(stream, address):
            await trio.lowlevel.checkpoint()
            return sent
        try:
            await linger(stream, LINGER_SECONDS)
        finally:
            self._lingering.leave(stream)
        return sent


def _count_kept(max_clients: int) -> int:
    return KEPT_PLACES if max_clients >= KEPT_FROM_PLACES else 0
