"""TLS around a client's stream, on real sockets of the loopback, against Python's own TLS."""

import os
import select
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from certificates import Certificates
from trio_cmd.wire.closing import linger
from trio_cmd.wire.stream import SocketStream
from trio_cmd.wire.tls import MAX_UNREAD_BYTES, HandshakeFailed, TlsStream

ANSWER = os.urandom(4 << 20)
VERSIONS = [
    pytest.param(ssl.TLSVersion.TLSv1_2, id="TLS 1.2"),
    pytest.param(ssl.TLSVersion.TLSv1_3, id="TLS 1.3"),
]


def server_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    return context


@asynccontextmanager
async def connected(certificates: Certificates) -> AsyncIterator[tuple[trio.SocketStream, TlsStream]]:
    """Connect a client's socket and the stream that serves it, before the handshake; bounded in time."""
    with trio.fail_after(20):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            client = await trio.testing.open_stream_to_socket_listener(listener)
            served = TlsStream(SocketStream(await listener.accept()), server_context(certificates))
        async with client, served:
            yield client, served


@asynccontextmanager
async def sealed(
    certificates: Certificates, version: ssl.TLSVersion | None = None
) -> AsyncIterator[tuple[trio.SSLStream[trio.SocketStream], TlsStream]]:
    """Connect and shake hands."""
    async with connected(certificates) as (sock, served):
        client = trio.SSLStream(
            sock, certificates.client_context(version=version), server_hostname="localhost"
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            await served.handshake()
        yield client, served


async def read_all(client: trio.SSLStream[trio.SocketStream]) -> bytes:
    """Read until ``close_notify``; an end without it is an error."""
    received = bytearray()
    await read_into(received, client)
    return bytes(received)


async def read_into(received: bytearray, client: trio.SSLStream[trio.SocketStream]) -> None:
    async for piece in client:
        received += piece


@pytest.mark.parametrize("version", VERSIONS)
async def test_bytes_go_both_ways_and_the_end_is_said(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """The session sees what it sees without TLS."""
    async with sealed(certificates, version) as (client, served):
        assert served.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version]
        assert served.peer_certificate() == {}
        assert served.fileno() > 2
        await client.send_all(b"ping\n")
        assert await served.receive_some() == b"ping\n"
        assert served.send_nowait(b"pong\n") == 5
        assert await client.receive_some() == b"pong\n"
        await served.send_eof()
        assert await client.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            served.send_nowait(b"too late\n")


@pytest.mark.parametrize("version", VERSIONS)
async def test_whoever_says_the_end_still_gets_its_answers(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """``close_notify`` ends one direction only, as a half-close does."""
    async with sealed(certificates, version) as (client, served):
        await client.send_all(b"ping\n")
        client._ssl_object.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            client._ssl_object.unwrap()
        await client.transport_stream.send_all(client._outgoing.read())
        heard = b""
        while piece := await served.receive_some():
            heard += piece
        assert heard == b"ping\nlast"
        assert await served.receive_some() == b""  # and it stays so
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.send_all, ANSWER)
            received = 0
            while received < len(ANSWER):
                client._incoming.write(await client.transport_stream.receive_some())
                try:
                    while piece := client._ssl_object.read(1 << 16):
                        received += len(piece)
                except ssl.SSLWantReadError:
                    pass


@pytest.mark.parametrize("version", VERSIONS)
async def test_whoever_shuts_the_socket_without_a_word_still_gets_its_answers(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """Netcats end their input so, and wait for what was asked."""
    async with sealed(certificates, version) as (client, served):
        await client.send_all(b"ping\n")
        await client.transport_stream.send_eof()
        assert await served.receive_some() == b"ping\n"
        assert await served.receive_some() == b""
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await served.send_all(ANSWER)
                await linger(served, 10, is_ended=True)
                await served.aclose()

            nursery.start_soon(answer)
            assert await read_all(client) == ANSWER


async def test_a_write_takes_what_fits_and_the_rest_waits_for_the_client(certificates: Certificates) -> None:
    """A large answer to a slow client holds nobody up, and no byte is sent twice."""
    async with sealed(certificates) as (client, served):
        sent = 0
        while count := served.send_nowait(ANSWER[sent:]):
            sent += count
        assert 0 < sent < len(ANSWER)
        assert served.waiting_bytes()[1] > 0
        async with trio.open_nursery() as nursery:

            async def send_rest() -> None:
                await served.send_all(memoryview(ANSWER)[sent:])
                await served.say_end()

            nursery.start_soon(send_rest)
            assert await read_all(client) == ANSWER


async def test_a_write_that_finds_no_room_waits_again(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket with room for a few bytes has none for a whole piece."""
    async with sealed(certificates) as (_, served):
        rooms = iter((0, 5))
        monkeypatch.setattr(served, "send_nowait", lambda data: next(rooms))
        assert await served.send_some(memoryview(b"pong\n")) == 5
        monkeypatch.undo()


async def test_nothing_is_written_after_a_write_that_was_cut(certificates: Certificates) -> None:
    """A client can tell an answer that was cut from one that ended: it is not told that this is the end."""
    async with sealed(certificates) as (client, served):
        with trio.move_on_after(0.05):
            await served.send_all(ANSWER)
        received = bytearray()
        while not select.select([], [served.fileno()], [], 0)[1]:  # there is no room yet
            received += await client.receive_some()
        await served.aclose()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await read_into(received, client)
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert ANSWER.startswith(received)
        assert len(received) < len(ANSWER)


async def test_a_whole_answer_is_followed_by_the_end_also_when_it_is_closed_at_once(
    certificates: Certificates,
) -> None:
    """A client that checks for a cut answer is never alarmed without reason."""
    async with sealed(certificates) as (client, served):
        assert served.send_nowait(b"pong\n") == 5
        await served.aclose()
        assert await read_all(client) == b"pong\n"


async def test_the_end_waits_for_room(certificates: Certificates) -> None:
    """Also the last word of TLS finds the client's buffers full, and is not lost for that."""
    async with sealed(certificates) as (client, served):
        sock = served._stream
        while sock.send_nowait(b""):
            pass
        async with trio.open_nursery() as nursery:
            await served.send_all(b"x" * 1000)
            served._left = seal_until_full(served)
            nursery.start_soon(partial(linger, served, 10, is_ended=True))
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(nursery.child_tasks) == 1
            assert (await read_all(client)).strip(b"x") == b""


def seal_until_full(served: TlsStream) -> bytes:
    """Send until nothing more fits; returns the sealed rest."""
    while True:
        served._tls.write(b"x" * 16384)
        data = served._outgoing.read()
        sent = served._stream.send_nowait(data)
        if sent < len(data):
            return data[sent:]


async def test_a_client_that_makes_tls_talk_and_does_not_listen_is_cut(certificates: Certificates) -> None:
    """New keys, asked for again and again, must not fill the memory with answers."""
    async with sealed(certificates) as (client, served):
        served._left = seal_until_full(served)
        served._outgoing.write(b"x" * MAX_UNREAD_BYTES)
        await client.send_all(b"ping\n")
        with pytest.raises(trio.BrokenResourceError):
            await served.receive_some()


async def test_bytes_that_the_client_did_not_seal_end_the_connection(certificates: Certificates) -> None:
    """Whoever sits in the middle can break a connection, and never add to it."""
    async with sealed(certificates) as (client, served):
        await client.send_all(b"pi")
        await client.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"ng\n" + b"x" * 29)
        with pytest.raises(trio.BrokenResourceError):
            assert await served.receive_some() == await served.receive_some()  # whether it came in one or two
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.receive_some()
        assert "bad record mac" in str(caught.value.__cause__).lower().replace("_", " ")


async def test_a_client_that_is_gone_breaks_the_stream(certificates: Certificates) -> None:
    """The session learns by one kind of error that it talks to nobody."""
    async with sealed(certificates) as (client, served):
        sock = client.transport_stream
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await sock.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await served.receive_some()
        await served.aclose()  # no error: nobody is there to be told


async def test_a_reader_that_is_called_off_loses_nothing(certificates: Certificates) -> None:
    """The server stops a reading now and then, also in the middle of what was sealed as one."""
    async with sealed(certificates) as (client, served):
        client._ssl_object.write(b"ping\n")
        data = client._outgoing.read()
        await client.transport_stream.send_all(data[:7])
        with trio.move_on_after(0.02):
            await served.receive_some()
        await client.transport_stream.send_all(data[7:])
        assert await served.receive_some(2) == b"pi"
        assert await served.receive_some() == b"ng\n"


async def test_what_is_plain_is_no_handshake_and_gets_no_bytes(certificates: Certificates) -> None:
    """An operator who forgot TLS sees a closed connection, not bytes that disturb the terminal."""
    async with connected(certificates) as (client, served):
        await client.send_all(b"ping\n")
        with pytest.raises(HandshakeFailed, match="does not speak TLS"):
            await served.handshake()
        await served.aclose()
        assert await client.receive_some() == b""


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
async def test_a_client_that_leaves_in_the_handshake_is_said_to_have_left(
    certificates: Certificates, begun: bytes
) -> None:
    """A probe of the port is told from a certificate that was refused."""
    async with connected(certificates) as (client, served):
        await client.send_all(begun)
        await client.send_eof()
        with pytest.raises(HandshakeFailed, match="the client has left"):
            await served.handshake()


async def test_what_begins_like_tls_and_is_not_gets_openssls_reason(certificates: Certificates) -> None:
    """Whatever comes, it ends in one line."""
    async with connected(certificates) as (client, served):
        await client.send_all(b"\x16\x03\x01\x00\x05hello")
        with pytest.raises(HandshakeFailed, match="unexpected message"):
            await served.handshake()
        assert (await client.receive_some())[0] == 0x15  # the alert


async def test_a_client_that_resets_in_the_handshake_is_gone(certificates: Certificates) -> None:
    """It is not said to have failed in anything."""
    async with connected(certificates) as (client, served):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await served.handshake()


async def test_lingering_reads_on_behind_the_end(certificates: Certificates) -> None:
    """What a client sends behind ``exit`` resets nothing, though nobody opens it any more."""
    async with sealed(certificates) as (client, served), trio.open_nursery() as nursery:
        await client.send_all(b"never read\n" * 1000)

        async def serve() -> None:
            await served.send_all(ANSWER)
            await linger(served, 10)
            await served.aclose()

        nursery.start_soon(serve)
        assert await read_all(client) == ANSWER
        await client.transport_stream.aclose()
