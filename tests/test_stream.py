"""The stream of one client, on real sockets of the loopback."""

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair

from program import read_all, reset
from trio_cmd.wire.socket_options import set_socket_options
from trio_cmd.wire.stream import (
    ClientStream,
    PlainStream,
    SocketStream,
)

ANSWER = b"x" * (8 << 20)


@asynccontextmanager
async def tcp() -> AsyncIterator[tuple[trio.SocketStream, SocketStream]]:
    """Connect a client and the stream that serves it; bounded in time."""
    with trio.fail_after(20):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            client = await trio.testing.open_stream_to_socket_listener(listener)
            served = SocketStream(await listener.accept())
        async with client, served:
            yield client, served


async def test_bytes_go_both_ways_and_end() -> None:
    """What one end writes the other reads, to the end of input."""
    async with tcp() as (client, served):
        await client.send_all(b"ping\n")
        assert await served.receive_some() == b"ping\n"
        assert served.send_nowait(b"pong\n") == 5
        assert await client.receive_some() == b"pong\n"
        await client.send_eof()
        assert await served.receive_some() == b""
        await served.send_eof()
        assert await client.receive_some() == b""


async def test_a_write_takes_what_fits_and_the_rest_waits_for_the_client() -> None:
    """A large answer to a slow client holds nobody up."""
    async with tcp() as (client, served):
        sent = served.send_nowait(ANSWER)
        assert 0 < sent < len(ANSWER)
        while served.send_nowait(ANSWER[:1]):
            sent += 1
        assert served.waiting_bytes()[1] > 0
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.send_all, memoryview(ANSWER)[sent:])
            while received < len(ANSWER):
                received += len(await client.receive_some())
        await served.wait_send_all_might_not_block()


async def test_a_client_that_is_gone_breaks_the_stream() -> None:
    """The session learns by one kind of error that it talks to nobody."""
    async with tcp() as (client, served):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await served.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            served.send_nowait(b"x")
        await served.send_eof()  # no error: nobody is there to miss anything


async def test_an_unexpected_error_in_shutting_breaks_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the kernel says, it is one kind of error."""
    async with tcp() as (_, served):

        def fail(_how: int) -> None:
            raise OSError(errno.EIO, "on purpose")

        monkeypatch.setattr(served._stream.socket, "shutdown", fail)
        with pytest.raises(trio.BrokenResourceError):
            await served.send_eof()


async def test_a_read_that_finds_nothing_waits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may call a socket readable whose packet then fails its checksum."""
    async with tcp() as (client, served):
        read, reads = os.read, []

        def read_nothing_first(fd: int, size: int) -> bytes:
            reads.append(fd)
            if len(reads) == 1:
                raise BlockingIOError
            return read(fd, size)

        monkeypatch.setattr("trio_cmd.wire.stream.os.read", read_nothing_first)
        await client.send_all(b"ping\n")
        assert await served.receive_some() == b"ping\n"


async def test_what_is_there_is_read_without_waiting() -> None:
    """Most clients have asked by the time they are accepted."""
    async with tcp() as (client, served):
        assert served.receive_nowait() is None
        await client.send_all(b"ping\n")
        await served.wait_for_input()
        assert served.receive_nowait() == b"ping\n"
        await client.send_eof()
        await served.wait_for_input()
        assert served.receive_nowait() == b""
    async with tcp() as (client, served):
        reset(client.socket)  # type: ignore[arg-type]  # it is a socket for that
        await served.wait_for_input()
        with pytest.raises(trio.BrokenResourceError):
            served.receive_nowait()


async def test_a_write_that_finds_no_room_waits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's bytes may have taken it."""
    async with tcp() as (_, served):
        rooms = iter((0, 5))
        monkeypatch.setattr(served, "send_nowait", lambda data: next(rooms))
        assert await served.send_some(memoryview(b"pong\n")) == 5


async def test_a_stream_is_closed_at_once() -> None:
    """A client that has its answers is not kept until others had their turn."""
    async with tcp() as (client, served):
        served.close()
        with trio.fail_after(5):
            assert await client.receive_some() == b""
        served.close()
        await served.aclose()


async def test_a_lost_client_is_found_by_keepalive_and_by_unconfirmed_bytes() -> None:
    """A laptop that was closed does not hold a place for two hours."""
    async with tcp() as (_, served):
        sock = served._stream.socket
        set_socket_options(sock, 30)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        options = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
        assert options == [30, 10, 3, 33_000]


async def test_options_a_platform_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others than Linux know only some of them."""
    user_timeout = socket.TCP_USER_TIMEOUT
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    async with tcp() as (_, served):
        sock = served._stream.socket
        before = sock.getsockopt(socket.IPPROTO_TCP, user_timeout)
        set_socket_options(sock, 29.5)  # not one that is remembered
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, user_timeout) == before


async def test_a_unix_socket_needs_no_options() -> None:
    """Its kernel knows at once who is gone."""
    one, two = socket.socketpair()
    with one, trio.socket.from_stdlib_socket(two) as sock:
        set_socket_options(sock, 30)


async def test_any_stream_of_trio_can_be_a_clients() -> None:
    """The session knows one kind of stream."""
    client, end = memory_stream_pair()
    served: ClientStream = PlainStream(end)
    await client.send_all(b"ping\n")
    assert await served.receive_some() == b"ping\n"
    assert served.send_nowait(b"pong\n") == 0
    await served.send_all(b"pong\n")
    await served.send_eof()
    assert await client.receive_some() == b"pong\n"
    assert await client.receive_some() == b""
    assert served.fileno() is None
    await served.aclose()


def test_reset_is_what_the_tests_mean_by_it() -> None:
    """The other tests rest on this helper."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        reset(client)
        with served:
            assert read_all(served) == b""


async def test_only_tcp_can_be_told_to_confirm() -> None:
    """A unix socket has nothing to confirm, and is none the worse for being asked."""
    one, two = trio.socket.socketpair()
    with two:
        async with SocketStream(trio.SocketStream(one)) as stream:
            stream.confirm()
            await two.send(b"x")
            assert await stream.receive_some() == b"x"
