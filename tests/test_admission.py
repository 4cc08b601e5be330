"""The places for clients: so many in all, so many of one address, and the last for whoever is at the host."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_cmd.addresses import Address, parse_address
from trio_cmd.server.admission import Admission
from trio_cmd.wire.stream import PlainStream

HERE: Address = parse_address("127.0.0.1")


def far(number: int) -> Address:
    """Another host."""
    return parse_address(f"192.0.2.{number}")


class Refused:
    """Clients that were refused, have sent something, and do not close."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._places = Admission(1, 10)
        self._clients: list[trio.abc.Stream] = []
        self.waiting = 0

    async def wait_at(self, address: Address, count: int) -> int:
        """Refuse some more of an address; returns how many of them are given the time to read why."""
        before = self.waiting
        for _ in range(count):
            client, end = memory_stream_pair()
            self._clients.append(client)
            self._nursery.start_soon(self._refuse, PlainStream(end), address)
        await wait_all_tasks_blocked()
        return self.waiting - before

    async def _refuse(self, stream: PlainStream, address: Address) -> None:
        self.waiting += 1
        try:
            await self._places.refuse(stream, "too-many-clients", address)
        finally:
            self.waiting -= 1


def fill(places: Admission, addresses: list[Address]) -> list[bool]:
    """Let one client of each address try."""
    return [places.try_admit(object(), address) for address in addresses]


@pytest.mark.parametrize(
    "address", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::7"], ids=["IPv4", "mapped", "IPv6"]
)
def test_one_address_gets_only_so_many_places(address: str) -> None:
    """One host that goes wild leaves places for the others."""
    places = Admission(100, 10)
    clients = [object() for _ in range(10)]
    assert all(places.try_admit(client, parse_address(address)) for client in clients)
    assert fill(places, [parse_address(address)]) == [False]
    assert fill(places, [parse_address("198.51.100.1")]) == [True]
    places.leave(clients[3])
    assert fill(places, [parse_address(address)] * 2) == [True, False]
    assert places.clients == 11


def test_all_addresses_of_one_ipv6_network_are_one() -> None:
    """A host has a /64 to choose its addresses from, and gains nothing by it."""
    places = Admission(100, 2)
    same = [parse_address(text) for text in ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:1::3")]
    assert fill(places, same) == [True, True, False]
    assert fill(places, [parse_address("2001:db8:0:2::1")]) == [True]


@pytest.mark.parametrize("address", [HERE, parse_address("::1"), "unix"], ids=str)
def test_clients_on_this_host_are_not_counted_by_address(address: Address) -> None:
    """A proxy or a monitor here may hold as many connections as there are places."""
    places = Admission(20, 2)
    assert fill(places, [address] * 21) == [True] * 20 + [False]


def test_the_last_three_places_are_for_whoever_is_at_the_host() -> None:
    """An operator gets in to see why the server is full, by loopback and by the unix socket."""
    places = Admission(10, 10)
    assert fill(places, [far(n) for n in range(8)]) == [True] * 7 + [False]
    assert fill(places, [HERE, "unix", parse_address("::1"), HERE]) == [True] * 3 + [False]


def test_places_taken_from_here_count_for_all() -> None:
    """The limit of clients is that of all; only who gets the last of them is settled."""
    places = Admission(10, 10)
    assert fill(places, [HERE] * 5) == [True] * 5
    assert fill(places, [far(n) for n in range(3)]) == [True, True, False]


def test_no_place_is_kept_where_there_are_few() -> None:
    """A server for nine clients is one for nine clients, wherever they are."""
    places = Admission(9, 10)
    assert fill(places, [far(n) for n in range(10)]) == [True] * 9 + [False]


def test_what_is_known_of_addresses_goes_with_their_clients() -> None:
    """A year of visitors takes no memory."""
    places = Admission(100, 10)
    for number in range(1000):
        client = object()
        assert places.try_admit(client, parse_address(f"2001:db8:{number:x}::1"))
        places.leave(client)
    assert places.clients == 0
    assert not places._clients._taken
    assert not places._clients._keys


@pytest.fixture
async def refused(nursery: trio.Nursery) -> AsyncIterator[Refused]:
    """The refusals that wait; each ends when the test does."""
    yield Refused(nursery)
    nursery.cancel_scope.cancel()


async def test_refusals_of_one_address_do_not_take_the_time_of_the_others(
    refused: Refused, autojump_clock: MockClock
) -> None:
    """Whoever knocks all the time does not cost another the line that says why it is refused."""
    assert await refused.wait_at(far(1), 12) == 8
    assert await refused.wait_at(far(2), 3) == 3
    assert await refused.wait_at(HERE, 60) == 53  # 64 in all
    assert await refused.wait_at(far(3), 1) == 0


async def test_a_refusal_waits_a_second_and_no_longer(refused: Refused, autojump_clock: MockClock) -> None:
    """Who is refused and stays holds a descriptor for a second, whatever it sends or reads."""
    await refused.wait_at(far(1), 8)
    await trio.sleep(1.1)
    assert refused.waiting == 0
    assert await refused.wait_at(far(1), 1) == 1
