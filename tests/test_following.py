"""Streaming in memory: when a streamed answer begins, when it ends, and which clocks run meanwhile."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from conversation import Conversation, conversing
from trio_cmd.addresses import parse_address
from trio_cmd.commands import Asker, Command, Surroundings
from trio_cmd.server.access import Visitor
from trio_cmd.settings import Limits
from trio_cmd.wire.messages import Reply


class Streams:
    """The command ``stream NAME``: streams what the test says, until it should end."""

    def __init__(self) -> None:
        self.askers: dict[str, Asker] = {}
        self.ended: list[str] = []
        self.cancelled: list[str] = []

    async def work(self, argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        name = argument.decode()
        await asker.wait_for_turn()
        self.askers[name] = asker
        asker.begin("stream")
        try:
            await asker.wait_for_end()
        except trio.Cancelled:
            self.cancelled.append(name)
            raise
        self.ended.append(name)
        return Reply(block="stream", is_begun=True, result={"name": name})

    @property
    def command(self) -> dict[bytes, Command]:
        return {b"stream": Command("stream", "stream NAME", "stream", work=self.work)}


@pytest.fixture
def streams() -> Streams:
    return Streams()


async def test_streamed_lines_leave_at_once(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """What is watched is seen as it comes, and what is missing in its place."""
    async with conversing(more_commands=streams.command) as conversation:
        assert await conversation.say(b"stream a\n") == b"Begin stream\n"
        streams.askers["a"].show(["one", "two"], 0)
        assert await conversation.heard() == b"one\ntwo\n"
        streams.askers["a"].show(["three"], 5)
        assert await conversation.heard() == b"5 lines skipped\nthree\n"
        streams.askers["a"].show([], 2)
        assert await conversation.heard() == b"2 lines skipped\n"
        assert await conversation.say(b"\n") == b"End stream\n"
        (completed,) = conversation.sink.actions("command-completed")
        sent = b"Begin stream\none\ntwo\n5 lines skipped\nthree\n2 lines skipped\nEnd stream\n"
        assert completed["bytes"] == len(sent)


async def test_as_json_there_are_events_and_one_answer(
    streams: Streams, autojump_clock: trio.abc.Clock
) -> None:
    """A program can tell what is streamed from the answer."""
    async with conversing(more_commands=streams.command) as conversation:
        await conversation.say(b"format json\n")
        assert await conversation.say(b"stream a\n") == b""
        streams.askers["a"].show(["one", "two"], 7)
        head: dict[str, Any] = {"id": 2, "command": "stream"}
        assert list(map(json.loads, (await conversation.heard()).splitlines())) == [
            {**head, "event": "skipped", "lines": 7},
            {**head, "event": "line", "line": "one"},
            {**head, "event": "line", "line": "two"},
        ]
        answer = json.loads(await conversation.say(b"\n"))
        assert (answer["ok"], answer["result"]) == (True, {"name": "a"})


async def test_it_begins_when_its_answer_is_the_next_to_leave(
    streams: Streams, autojump_clock: trio.abc.Clock
) -> None:
    """What is streamed must not come between the lines of another answer."""
    async with conversing(more_commands=streams.command) as conversation:
        assert await conversation.say(b"slow 1\nping\nstream a\n") == b""
        assert not streams.askers
        conversation.slow.finish("1")
        assert await conversation.heard() == b"slow 1 is done\npong\nBegin stream\n"


@pytest.mark.parametrize("line", [b"\n", b"ping\n", b"\x01\n", b"exit\n", b"x" * 600 + b"\n"])
async def test_any_line_behind_it_ends_it(
    line: bytes, streams: Streams, autojump_clock: trio.abc.Clock
) -> None:
    """Also an empty one, one that cannot be read, and one too long."""
    limits = Limits(line_bytes=512)
    async with conversing(limits, more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\n")
        assert not streams.ended
        heard = await conversation.say(line)
        assert heard.startswith(b"End stream\n")
        assert streams.ended == ["a"]


async def test_lines_sent_together_end_each_other(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """A line that was read before it began is a line behind it all the same."""
    block = b"Begin stream\nEnd stream\n"
    async with conversing(more_commands=streams.command) as conversation:
        assert await conversation.say(b"stream a\nstream b\n\nping\nstream c\n") == (
            block * 2 + b"pong\nBegin stream\n"
        )
        assert streams.ended == ["a", "b"]


async def test_end_of_input_does_not_end_it_and_stopping_does(
    streams: Streams, autojump_clock: trio.abc.Clock
) -> None:
    """``nc -N`` may watch, but not hold up a restart."""
    async with conversing(more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\n")
        await conversation.client.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        streams.askers["a"].show(["still there"], 0)
        assert await conversation.heard() == b"still there\n"
        conversation.session.stop()
        with trio.fail_after(60):
            heard = await conversation.heard_all()
        assert heard == b"End stream\n"
        assert conversation.session.reason == "closed"


async def test_stopping_ends_it_and_says_goodbye(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """Who watches learns why there is nothing more to see."""
    async with conversing(more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\n")
        conversation.session.stop()
        with trio.fail_after(60):
            heard = await conversation.heard_all()
        assert heard == b"End stream\nServer is stopping. bye !\n"


async def test_lost_client_ends_it(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """The work for nobody is cancelled."""
    async with conversing(more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\n")
        conversation.stream.vanish()
        await trio.testing.wait_all_tasks_blocked()
        assert streams.cancelled == ["a"]


async def test_client_that_watches_is_not_idle(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """A quiet log is watched for hours."""
    async with conversing(Limits(idle_seconds=5), more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\n")
        await trio.sleep(100)
        assert await conversation.say(b"\n") == b"End stream\n"


async def test_line_that_does_not_end_ends_it(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """The clock of an unfinished line runs as ever."""
    async with conversing(Limits(request_seconds=5), more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\nx")
        with trio.fail_after(60):
            heard = await conversation.heard_all()
        assert heard == b"End stream\nLine not finished in 5 s. bye !\n"


async def test_room_is_waited_for_until_all_has_left(
    streams: Streams, autojump_clock: trio.abc.Clock
) -> None:
    """Only what the client takes is given on, so that what waits can be bounded elsewhere."""
    async with conversing(more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\n")
        conversation.stream.is_read = False
        asker = streams.askers["a"]
        asker.show(["one"], 0)
        with trio.move_on_after(1) as waiting:
            await asker.wait_for_room()
        assert waiting.cancelled_caught
        conversation.stream.take()
        await asker.wait_for_room()
        assert await conversation.heard() == b"one\n"


async def test_reader_that_takes_nothing_is_cut(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """Who does not read for so long does not watch."""
    conversation: Conversation
    async with conversing(Limits(write_seconds=5), more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\n")
        conversation.stream.is_read = False
        streams.askers["a"].show(["one"], 0)
        await trio.sleep(10)
        assert conversation.session.reason == "slow-reader"
        assert streams.cancelled == ["a"]


async def test_asker_knows_where_the_client_is(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """Places are counted by address."""
    async with conversing(more_commands=streams.command) as conversation:
        conversation.identity.visitor = Visitor(parse_address("10.0.0.1"))
        await conversation.say(b"stream a\n")
        assert streams.askers["a"].site == parse_address("10.0.0.1")


async def test_two_may_wait_for_a_change_at_once(streams: Streams, autojump_clock: trio.abc.Clock) -> None:
    """The reader that waits for room must not forget the streamed answer that waits for its end."""
    limits = Limits(pending_replies=2)
    async with conversing(limits, more_commands=streams.command) as conversation:
        await conversation.say(b"stream a\n")
        assert await conversation.say(b"slow 1\nslow 2\nslow 3\n") == b"End stream\n"
        for name in "123":
            conversation.slow.finish(name)
        assert (await conversation.heard()).count(b"is done") == 3
