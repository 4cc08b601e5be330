"""The handshakes under way: how long, how many, and whose is ended."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_cmd.addresses import parse_address
from trio_cmd.server.handshakes import HANDSHAKE_SECONDS, Handshakes
from trio_cmd.wire.tls import HandshakeFailed


class Crowd:
    """Clients that begin and never finish."""

    def __init__(self, nursery: trio.Nursery, max_clients: int = 100) -> None:
        self.handshakes = Handshakes(max_clients)
        self.under_way: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self._nursery = nursery

    async def begin(self, name: str, address: str) -> None:
        """Have one more begin."""
        self._nursery.start_soon(self._stall, name, address)
        await wait_all_tasks_blocked()

    async def _stall(self, name: str, address: str) -> None:
        try:
            with self.handshakes.limited(parse_address(address)):
                self.under_way.append(name)
                await trio.sleep_forever()
        except HandshakeFailed as error:
            self.under_way.remove(name)
            self.ended.append((name, str(error)))


HOME = parse_address("192.0.2.1")
TOO_MANY = "too many unfinished handshakes"


async def test_a_handshake_that_is_done_takes_no_place() -> None:
    """Only the unfinished count."""
    handshakes = Handshakes(100)
    for _ in range(100):
        with handshakes.limited(HOME):
            assert handshakes.count == 1
    assert handshakes.count == 0


async def test_a_handshake_ends_by_its_deadline(autojump_clock: MockClock) -> None:
    """Whoever connects and says nothing holds no place for long."""
    began = trio.current_time()
    with pytest.raises(HandshakeFailed, match="not finished in 5 s"), Handshakes(100).limited(HOME):
        await trio.sleep_forever()
    assert trio.current_time() - began == HANDSHAKE_SECONDS


async def test_the_reason_that_came_first_holds(autojump_clock: MockClock) -> None:
    """A client whose certificate was refused, and that then lingers, was refused for its certificate."""

    async def linger() -> None:
        with Handshakes(100).limited(HOME) as unfinished:
            unfinished.why = "certificate has expired"
            await trio.sleep_forever()

    with pytest.raises(HandshakeFailed, match="expired"):
        await linger()


@pytest.mark.parametrize(
    ("first", "fifth"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", id="IPv4"),
        pytest.param("192.0.2.1", "::ffff:192.0.2.1", id="IPv4 within IPv6"),
        pytest.param("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", id="one /64"),
        pytest.param("fe80::1%eth0", "fe80::2%eth0", id="with a zone"),
    ],
)
async def test_the_fifth_of_an_address_ends_its_oldest(first: str, fifth: str) -> None:
    """One host cannot keep the places from others, and its newest try is the one that counts."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        for name in "abcd":
            await crowd.begin(name, first)
        assert crowd.ended == []
        await crowd.begin("e", fifth)
        assert crowd.ended == [("a", TOO_MANY)]
        assert crowd.under_way == list("bcde")
        assert crowd.handshakes.count == 4
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("other", ["192.0.2.2", "2001:db8:0:2::1"])
async def test_other_addresses_are_not_counted_together(other: str) -> None:
    """A neighbour's flood costs nobody his place."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        for name in "abcd":
            await crowd.begin(name, "192.0.2.1" if "." in other else "2001:db8:0:1::1")
        await crowd.begin("e", other)
        assert crowd.ended == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("loopback", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
async def test_the_loopback_is_limited_only_with_all_others(loopback: str) -> None:
    """Behind a forwarded port there are many people with one address; even they are not without end."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery, max_clients=40)
        for number in range(10):
            await crowd.begin(str(number), loopback)
        assert crowd.ended == []
        await crowd.begin("10", loopback)
        assert crowd.ended == [("0", TOO_MANY)]
        nursery.cancel_scope.cancel()


async def test_above_the_limit_of_all_whoever_has_most_loses_its_oldest() -> None:
    """A flood pushes out its own, not the one that came before it."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery, max_clients=16)
        await crowd.begin("innocent", "192.0.2.1")
        for name in "abc":
            await crowd.begin(name, "192.0.2.66")
        await crowd.begin("another", "192.0.2.2")
        assert crowd.ended == [("a", TOO_MANY)]
        await crowd.begin("d", "192.0.2.66")
        assert [name for name, _ in crowd.ended] == ["a", "b"]
        assert crowd.under_way == ["innocent", "c", "another", "d"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("max_clients", "in_all"), [(1, 4), (16, 4), (100, 25), (100_000, 25_000)])
def test_a_quarter_of_the_clients_may_be_under_way(max_clients: int, in_all: int) -> None:
    """Stalled handshakes never take the places of those who talk; a few can always begin together."""
    assert Handshakes(max_clients).max_in_all == in_all


async def test_stopping_ends_all_and_all_to_come(autojump_clock: MockClock) -> None:
    """A client without keys cannot be told goodbye, and is not waited for."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        await crowd.begin("a", "192.0.2.1")
        await crowd.begin("b", "192.0.2.2")
        began = trio.current_time()
        crowd.handshakes.stop()
        await crowd.begin("late", "192.0.2.1")
        assert sorted(crowd.ended) == [(name, "server is stopping") for name in ("a", "b", "late")]
        assert trio.current_time() == began
        assert crowd.handshakes.count == 0
