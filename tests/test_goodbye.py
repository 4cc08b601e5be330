"""The last words of a conversation, and how long they may take to be read."""

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_cmd.addresses import parse_address
from trio_cmd.server.goodbye import INTERRUPTING, format_goodbye, hurry, wait_for_reader
from trio_cmd.settings import Limits
from trio_cmd.wire.stream import PlainStream

HERE = parse_address("192.0.2.1")


@pytest.mark.parametrize(("reason", "seconds"), [("exit", 2), ("stopping", 0.5), ("wrong-protocol", 0)])
async def test_how_long_a_reader_is_waited_for(
    reason: str, seconds: float, autojump_clock: MockClock
) -> None:
    """A stop is not held up by clients, and whoever speaks another protocol has nothing to read."""
    _client, end = memory_stream_pair()
    began = trio.current_time()
    await wait_for_reader(PlainStream(end), reason, is_ended=False)
    assert trio.current_time() - began == seconds


class Quiet(PlainStream):
    """A client that has sent nothing, and has all that it was sent."""

    def waiting_bytes(self) -> tuple[int, int]:
        return 0, 0


@pytest.mark.parametrize("reason", ["exit", *sorted(INTERRUPTING)])
async def test_whoever_was_interrupted_is_waited_for_though_nothing_has_come(
    reason: str, autojump_clock: MockClock
) -> None:
    """It is in the middle of what it says, and a reset would take the reason away."""
    _client, end = memory_stream_pair()
    began = trio.current_time()
    await wait_for_reader(Quiet(end), reason, is_ended=False)
    assert trio.current_time() - began == (2 if reason in INTERRUPTING else 0)


def test_last_words_name_the_limit_or_the_address() -> None:
    """Whoever is closed knows what to do otherwise."""
    limits = Limits(idle_seconds=300, request_seconds=20)
    assert format_goodbye("idle", "text", limits, HERE) == b"Idle for 300 s. bye !\n"
    assert format_goodbye("slow-line", "text", limits, HERE) == b"Line not finished in 20 s. bye !\n"
    assert format_goodbye("not-allowed", "text", limits, HERE) == b"Not allowed from 192.0.2.1. bye !\n"
    assert format_goodbye("exit", "text", limits, HERE) == b""


async def test_an_end_that_is_near_already_is_not_put_off(autojump_clock: MockClock) -> None:
    """A server that stops is not held up by a reload in the same moment."""
    near, far = (trio.CancelScope(deadline=trio.current_time() + seconds) for seconds in (0.1, 100))
    before = near.deadline
    await hurry(near)
    await hurry(far)
    assert near.deadline == before
    assert far.deadline < trio.current_time() + 1
