"""The handshakes under way: how long, how many, and whose is ended."""

import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from certificates import DAY, NOW, Certificates
from trio_cmd.addresses import parse_address
from trio_cmd.server import tls
from trio_cmd.server.handshakes import HANDSHAKE_SECONDS, Handshakes, TlsDoor
from trio_cmd.server.tls import ServerCertificate, read_certificate
from trio_cmd.settings import Tls
from trio_cmd.wire.stream import SocketStream
from trio_cmd.wire.tls import HandshakeFailed


class Crowd:
    """Clients that begin and never finish."""

    def __init__(self, nursery: trio.Nursery, max_clients: int = 100) -> None:
        self.handshakes = Handshakes(max_clients)
        self.under_way: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self._nursery = nursery

    async def begin(self, names: str, address: str) -> None:
        """Have one more begin, or several at once."""
        for name in names.split():
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
AWAY = parse_address("192.0.2.2")
TOO_MANY = "too many unfinished handshakes"


async def test_who_may_no_longer_come_in_need_not_finish(nursery: trio.Nursery) -> None:
    """A grant that was taken away is taken from those at the door too, and from nobody else."""
    crowd = Crowd(nursery)
    await crowd.begin("a b", str(HOME))
    await crowd.begin("c", str(AWAY))
    crowd.handshakes.renew(lambda address: address == HOME)
    await wait_all_tasks_blocked()
    assert crowd.ended == [("c", "no longer allowed")]
    assert crowd.handshakes.count == 2
    nursery.cancel_scope.cancel()


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


@pytest.mark.parametrize("is_pushed_out", [False, True])
async def test_the_reason_that_came_first_holds(autojump_clock: MockClock, is_pushed_out: bool) -> None:
    """A client whose certificate was refused, and that then lingers, was refused for its certificate."""

    async def linger() -> None:
        with Handshakes(100).limited(HOME) as unfinished:
            unfinished.why = "certificate has expired"
            if is_pushed_out:
                unfinished.end(TOO_MANY)
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


async def test_each_one_too_many_of_a_burst_ends_another(autojump_clock: MockClock) -> None:
    """Whoever was told to end takes no place any more, though it has yet to notice."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        for name in "abcd":
            await crowd.begin(name, "192.0.2.1")
        await crowd.begin("e f g", "192.0.2.1")
        assert len(crowd.ended) == 3
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


# The door

Client = trio.SSLStream[trio.SocketStream]


@asynccontextmanager
async def at_the_door(
    certificates: Certificates, certificate: str = ""
) -> AsyncIterator[tuple[Client, SocketStream, TlsDoor, ServerCertificate]]:
    """A client of TLS 1.3 and a door where certificates are asked for; bounded in time."""
    files = Tls(
        certificate=certificates.server_certificate, key=certificates.server_key, client_ca=certificates.ca
    )
    shown = read_certificate(files)
    assert shown is not None
    with trio.fail_after(20):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            sock = await trio.testing.open_stream_to_socket_listener(listener)
            served = SocketStream(await listener.accept())
        client_context = certificates.client_context(certificate, version=ssl.TLSVersion.TLSv1_3)
        async with sock, served:
            client = trio.SSLStream(sock, client_context, server_hostname="localhost")
            yield client, served, TlsDoor(100), shown


async def test_a_refused_client_that_goes_on_sending_is_not_reset(certificates: Certificates) -> None:
    """By TLS 1.3 a client sends before it knows that it was refused; a reset could take its alert away."""
    async with at_the_door(certificates) as (client, served, door, shown), trio.open_nursery() as nursery:

        async def serve() -> None:
            with pytest.raises(HandshakeFailed, match="peer did not return a certificate"):
                await door.open(served, HOME, shown)
            await served.aclose()

        nursery.start_soon(serve)
        await client.do_handshake()
        sock = client.transport_stream.socket
        await trio.lowlevel.wait_readable(sock)  # the alert is there
        for _ in range(3):
            await client.send_all(b"ping\n")
            await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.receive_some()
        assert "ALERT_CERTIFICATE_REQUIRED" in str(caught.value.__cause__)
        await client.transport_stream.send_eof()


async def test_a_refused_client_that_does_not_leave_is_closed(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert is given a second to arrive, and no more."""
    monkeypatch.setattr("trio_cmd.server.handshakes.ALERT_SECONDS", 0.05)
    async with at_the_door(certificates) as (client, served, door, shown), trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        began = trio.current_time()
        with pytest.raises(HandshakeFailed, match="peer did not return a certificate"):
            await door.open(served, HOME, shown)
        assert trio.current_time() - began < HANDSHAKE_SECONDS / 2


async def test_a_refused_client_keeps_its_reason_when_the_server_stops(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says what was wrong with it, not what happened meanwhile."""
    monkeypatch.setattr("trio_cmd.server.handshakes.ALERT_SECONDS", 100)
    async with at_the_door(certificates) as (client, served, door, shown), trio.open_nursery() as nursery:

        async def stop() -> None:
            await client.do_handshake()
            await trio.lowlevel.wait_readable(client.transport_stream.socket)  # the alert is there
            door.stop()

        nursery.start_soon(stop)
        with pytest.raises(HandshakeFailed, match="peer did not return a certificate"):
            await door.open(served, HOME, shown)


async def test_a_certificate_that_ran_out_since_the_first_connection_opens_nothing(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL does not look again at the certificate of a connection that is resumed."""
    certificate = certificates.issue("brief", "client.lab", not_after=NOW + DAY)
    later = time.time() + 2 * DAY.total_seconds()
    monkeypatch.setattr("trio_cmd.server.handshakes.time.time", lambda: later)
    async with (
        at_the_door(certificates, certificate) as (client, served, door, shown),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.do_handshake)
        with pytest.raises(HandshakeFailed, match="certificate has expired"):
            await door.open(served, HOME, shown)


async def test_clients_are_not_remembered_without_end(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that comes back and back, with the longest chain allowed, takes no memory that stays."""
    monkeypatch.setattr(tls, "MAX_REMEMBERED_SESSIONS", 5)
    certificate = read_certificate(
        Tls(certificate=certificates.server_certificate, key=certificates.server_key)
    )
    assert certificate is not None
    client_context = certificates.client_context(version=ssl.TLSVersion.TLSv1_2)
    used: list[ssl.SSLContext] = []
    for _ in range(12):
        context = certificate.context()
        used.append(context)
        shake_in_memory(context, client_context)
    assert [used.count(context) for context in dict.fromkeys(used)] == [5, 5, 2]


def shake_in_memory(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """Hold a whole handshake without a socket, and end it well: only then OpenSSL remembers it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost")
    for end in (client, server, client, server, client):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    with contextlib.suppress(ssl.SSLWantReadError):
        server.unwrap()


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_renewed_files_are_not_read_before_they_are_asked_for(
    has_memory_files: bool, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is being replaced, or has become unreadable, stops no client."""
    if not has_memory_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    files = {"certificate": tmp_path / "certificate", "key": tmp_path / "key", "client_ca": tmp_path / "ca"}
    files["certificate"].write_bytes(Path(certificates.server_certificate).read_bytes())
    files["key"].write_bytes(Path(certificates.server_key).read_bytes())
    files["key"].chmod(0o600)
    files["client_ca"].write_bytes(Path(certificates.ca).read_bytes())
    certificate = read_certificate(Tls(**{name: str(path) for name, path in files.items()}))
    assert certificate is not None
    for path in files.values():
        path.unlink()
    assert certificate._make_context().verify_mode is ssl.CERT_REQUIRED
