"""The close that cuts no answer, on real sockets of the loopback."""

import os
import socket

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from test_stream import ANSWER, tcp
from trio_cmd.wire.closing import LINGER_BYTES, linger
from trio_cmd.wire.stream import PlainStream


async def test_an_answer_arrives_whole_though_the_client_has_sent_more() -> None:
    """A client that has sent commands behind ``exit`` still gets the answers before it."""
    async with tcp() as (client, served):
        received = 0

        async def serve() -> None:
            await served.send_all(ANSWER)
            await linger(served, 10)
            await served.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await client.send_all(b"never read\n" * 1000)
            async for piece in client:
                received += len(piece)
                if received == len(ANSWER):
                    break
            assert await client.receive_some() == b""
            await client.aclose()
        assert received == len(ANSWER)


async def test_a_quiet_client_is_not_waited_for() -> None:
    """With nothing unread and nothing unconfirmed a close destroys nothing."""
    async with tcp() as (client, served):
        served.send_nowait(b"pong\n")
        await client.receive_some()
        while served.waiting_bytes() != (0, 0):
            await trio.sleep(0.001)
        await linger(served, 1000)
        with pytest.raises(trio.WouldBlock):
            raise_if_ended(client)


def raise_if_ended(client: trio.SocketStream) -> None:
    """Raise ``WouldBlock`` while the other side has not shut its sending side."""
    try:
        os.read(client.socket.fileno(), 1)
    except BlockingIOError:
        raise trio.WouldBlock from None


async def test_whoever_has_ended_its_input_is_not_waited_for() -> None:
    """Nothing can be unread then."""
    async with tcp() as (client, served):
        await client.send_all(b"unread")
        await linger(served, 1000, is_ended=True)


async def test_lingering_is_bounded_in_bytes() -> None:
    """A client that sends for ever is not listened to for ever."""
    async with tcp() as (client, served), trio.open_nursery() as nursery:

        async def send_for_ever() -> None:
            while True:
                await client.send_all(b"x" * LINGER_BYTES)

        nursery.start_soon(send_for_ever)
        while served.waiting_bytes()[0] == 0:
            await trio.sleep(0.001)
        await linger(served, 1000)
        nursery.cancel_scope.cancel()


async def test_lingering_is_bounded_in_time(autojump_clock: MockClock) -> None:
    """A client that never closes is not waited for for ever."""
    _client, end = memory_stream_pair()
    began = trio.current_time()
    await linger(PlainStream(end), 2)
    assert trio.current_time() - began == 2


async def test_lingering_for_a_client_that_resets_ends_quietly() -> None:
    """Whoever does not wait for the rest has chosen so."""
    async with tcp() as (client, served):
        await client.send_all(b"unread")
        while served.waiting_bytes()[0] == 0:
            await trio.sleep(0.001)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(linger, served, 1000)
            await trio.testing.wait_all_tasks_blocked()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await client.aclose()


async def test_whoever_was_interrupted_may_go_on_sending_for_a_while() -> None:
    """A netcat that meets a reset while it sends leaves without showing why it was closed."""
    async with tcp() as (client, served), trio.open_nursery() as nursery:

        async def close() -> None:
            served.send_nowait(b"line too long\n")
            while served.waiting_bytes() != (0, 0):
                await trio.sleep(0.001)
            await linger(served, 1000, is_sending=True)
            await served.aclose()

        nursery.start_soon(close)
        assert await client.receive_some() == b"line too long\n"
        assert await client.receive_some() == b""
        for _ in range(3):
            await client.send_all(b"the rest of the line\n")
            await wait_all_tasks_blocked()
        await client.aclose()
