"""A reset is seen while nobody reads."""

import socket
import weakref

import pytest
import trio

from program import reset
from trio_cmd.server.hangups import Hangups


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


async def test_a_reset_is_seen_at_once_also_behind_unread_input() -> None:
    """Work stops when its asker is gone, though nobody reads from it."""
    hangups, lost = Hangups(), trio.Event()
    client, served = tcp_pair()
    with trio.fail_after(10), served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hangups.run)
            client.sendall(b"unread")
            with hangups.watched(served.fileno(), lost.set):
                await trio.testing.wait_all_tasks_blocked()
                assert not lost.is_set()
                reset(client)
                await lost.wait()
            nursery.cancel_scope.cancel()
    hangups.close()


class Asker:
    """A client that is told of its end."""

    def __init__(self) -> None:
        self.is_lost = trio.Event()

    def lose(self) -> None:
        self.is_lost.set()


async def test_who_has_reset_is_not_remembered() -> None:
    """The last that reset keeps no memory, and no folder of settings that were in force then."""
    hangups, asker = Hangups(), Asker()
    client, served = tcp_pair()
    with trio.fail_after(10), served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hangups.run)
            with hangups.watched(served.fileno(), asker.lose):
                reset(client)
                await asker.is_lost.wait()
            gone = weakref.ref(asker)
            del asker
            await trio.testing.wait_all_tasks_blocked()
            assert gone() is None
            nursery.cancel_scope.cancel()
    hangups.close()


async def test_end_of_input_is_no_hangup() -> None:
    """``nc -N`` shuts its side and still waits for the answer."""
    hangups = Hangups()
    client, served = tcp_pair()
    with client, served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hangups.run)
            with hangups.watched(served.fileno(), lambda: pytest.fail("that was no reset")):
                client.shutdown(socket.SHUT_WR)
                await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    hangups.close()


async def test_a_reset_afterwards_is_nobodys() -> None:
    """Who reads again learns of it by reading."""
    hangups = Hangups()
    client, served = tcp_pair()
    with served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hangups.run)
            with hangups.watched(served.fileno(), lambda: pytest.fail("not watched any more")):
                pass
            reset(client)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    hangups.close()


async def test_without_epoll_or_descriptor_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux a reset is seen at the next write."""
    hangups = Hangups()
    with hangups.watched(None, lambda: pytest.fail("nothing to watch")):
        hangups.close()
    monkeypatch.delattr("select.epoll")
    hangups = Hangups()
    with trio.move_on_after(0) as scope, hangups.watched(0, lambda: pytest.fail("nothing to watch")):
        await hangups.run()
    assert scope.cancelled_caught
    hangups.close()
