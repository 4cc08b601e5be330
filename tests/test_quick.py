"""A run of quick commands: what is answered and recorded is what the ordinary way would."""

import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from conversation import Conversation, conversing
from trio_cmd.commands import Asker, Command, Surroundings
from trio_cmd.errors import BadArguments
from trio_cmd.records.events import EventLogger
from trio_cmd.server.at_once import AT_ONCE_PER_TURN
from trio_cmd.server.session import LINES_PER_TURN
from trio_cmd.settings import Grant, Limits
from trio_cmd.wire.messages import Reply

TOKEN = b"tcmd_" + b"a" * 43
LINES = [
    *(b"ping", b"ping x", b" ping ", b"ping\r", b"p\xff\xf1ing", b"ping \xc3\xa9", b"help", b"help ping"),
    *(b"help nope", b"status", b"format json", b"format text", b"format x", b"nope", b"Ping", b"", b" "),
    *(b"auth " + TOKEN, b"ping " + TOKEN, b"ping\x07", b"oops", b"fail", b"told", b"exit"),
    *(b"now oops", b"now error"),
    *(b"ping " + b"x" * 600, b"GET / HTTP/1.1", b"SSH-2.0-x"),
]
QUICK = [*LINES[:4], b"now", b"now x"]


def _oops(argument: bytes, surroundings: Surroundings) -> Reply:
    raise RuntimeError("broken on purpose")


def _fail(argument: bytes, surroundings: Surroundings) -> Reply:
    return Reply(error=BadArguments("usage: nothing"))


def _told(argument: bytes, surroundings: Surroundings) -> Reply:
    return Reply(("told",), result={}, record={"path": "/x"})


def _now(argument: bytes, surroundings: Surroundings) -> Reply:
    if argument == b"oops":
        raise RuntimeError("broken on purpose")
    if argument == b"fail":
        raise BadArguments("usage: nothing")
    if argument == b"error":
        return Reply(error=BadArguments("usage: nothing"))
    return Reply(("now",), result={}, record={"path": 'a "\\', "size": 7})


async def _work(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    return _now(argument, surroundings)


MORE = {
    b"now": Command("now", "now", "answer without waiting", work=_work, at_once=_now),
    b"oops": Command("oops", "oops", "fail", answer=_oops),
    b"fail": Command("fail", "fail", "fail without raising", answer=_fail),
    b"told": Command("told", "told", "say more in the record", answer=_told),
}


class Stopped:
    """Clocks that stand still, so that nothing depends on how long something took."""

    @staticmethod
    def perf_counter() -> float:
        return 0.0


@pytest.fixture
def _stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_cmd.server.quick.perf_counter_ns", lambda: 0)
    monkeypatch.setattr("trio_cmd.server.session.time", Stopped)
    monkeypatch.setattr("trio_cmd.server.trail.time", Stopped)


def converse(pieces: Sequence[bytes], limits: Limits, grants: Sequence[Grant]) -> tuple[Any, ...]:
    """Hold a conversation; returns what was answered, recorded and counted."""

    async def hold() -> tuple[Any, ...]:
        c = Conversation(limits, MORE, grants)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(c.run)
            nursery.start_soon(c.listen)
            try:
                for piece in pieces:
                    await c.client.send_all(piece)
                await c.client.send_eof()
            except trio.BrokenResourceError:
                pass  # it was ended before
            answers = await c.heard_all()
        for record in c.sink.records:
            del record["timestamp"]
            record.pop("exception", None)  # where it was called from
        outcomes = {name: row.outcomes for name, row in c.tally.rows()}
        records = list(map(json.dumps, c.sink.records))
        return answers, records, outcomes, c.session.requests, c.session.reason, c.budget.bytes

    return trio.run(hold, clock=MockClock(autojump_threshold=0))


@pytest.mark.usefixtures("_stopped")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(LINES) | st.sampled_from(QUICK), max_size=90),
    st.integers(1, 200),
    st.sampled_from(([], ["ping"], ["ping", "told", "oops"])),
    st.sampled_from((Limits(), Limits(pending_replies=2), Limits(pending_bytes=4096))),
)
@example([b"ping"] * 200, 4096, [], Limits())
@example([b"now"] * 200, 4096, [], Limits())
@example([b"help"] * 100, 4096, [], Limits(pending_bytes=4096))
@example([b"now error"], 4096, [], Limits())
@example([b"exit"], 4096, [], Limits())
@example([b"ping", b"exit x", b"ping"], 4096, [], Limits(pending_replies=2))
@example([b"format json", b"ping", b"exit"], 4096, [], Limits())
@example([b"oops", b"fail", b"told", b"format json", b"ping", b"told", b"exit", b"ping"], 4096, [], Limits())
def test_a_conversation_is_the_same_in_haste_and_in_the_ordinary_way(
    lines: list[bytes], piece: int, commands: list[str], limits: Limits
) -> None:
    """Answers, records, counts and the end are the same, whatever is asked and however it is cut."""
    data = b"\n".join([*lines, b""])
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    grants = [Grant(name="some", addresses=("127.0.0.1",), commands=tuple(commands))] if commands else []
    hasty = converse(pieces, limits, grants)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventLogger, "template", lambda self: None)
        ordinary = converse(pieces, limits, grants)
    assert hasty == ordinary


@pytest.mark.parametrize(
    ("line", "limits", "taken"),
    [
        (b"ping", Limits(), LINES_PER_TURN),
        (b"ping", Limits(pending_replies=10), 10),
        (b"ping", Limits(pending_bytes=50), 10),
        (b"help ping", Limits(pending_bytes=30), 1),
        (b"now", Limits(), AT_ONCE_PER_TURN),
    ],
)
async def test_a_run_takes_no_more_than_a_turn_may(line: bytes, limits: Limits, taken: int) -> None:
    """Who sends ten thousand pings at once holds nobody else, and fills no memory."""
    c = Conversation(limits, MORE)
    c.session._lines.feed((line + b"\n") * 1000)
    c.session._turn()
    assert c.session.requests == c.session._replies.pending == taken
    assert len(c.sink.actions("command-completed")) == taken


async def test_who_asks_and_leaves_in_one_packet_is_served_by_one_run() -> None:
    """A probe that comes each second costs no more than it must."""
    c = Conversation()
    c.session._lines.feed(b"ping\nexit\nping\n")
    c.session._take_quick(LINES_PER_TURN)
    assert (c.session.requests, c.session.reason) == (2, "exit")
    assert (c.session._replies.pending, c.session._replies.take()) == (1, b"pong\n")
    assert [record["command"] for record in c.sink.actions("command-completed")] == ["ping", "exit"]


@pytest.mark.parametrize("line", [b"wait", b"wait " + b"x" * 600])
async def test_what_has_to_be_waited_for_is_tried_at_once_only_once(line: bytes) -> None:
    """A file that is not in memory is not looked for twice before a thread reads it."""
    tried: list[bytes] = []

    def try_at_once(argument: bytes, surroundings: Surroundings) -> None:
        tried.append(argument)

    row = Command("wait", "wait", "wait for it", work=_work, at_once=try_at_once)
    async with conversing(more_commands={b"wait": row}) as c:
        for count in (1, 2, 3):
            assert await c.say(line + b"\n") == b"now\n"
            assert len(tried) == count


async def test_what_counts_the_record_counts_all_that_was_asked_before_it(autojump_clock: MockClock) -> None:
    """Whoever compares the numbers of ``status`` with the record finds them equal."""
    told: list[int] = []

    def count(argument: bytes, surroundings: Surroundings) -> Reply:
        told.append(len(c.sink.records))
        return Reply(["counted"])

    row = Command("count", "count", "count the records", answer=count, counts=True)
    async with conversing(more_commands={b"count": row}) as c:
        for _ in range(2):  # the second time the lines are known
            await c.say(b"ping\ncount\nping\n")
    assert told == [3, 9]


async def test_a_run_tells_when_each_was_received_and_how_long_it_took(autojump_clock: MockClock) -> None:
    """Times in the record go forward, and the durations are those between them."""
    async with conversing() as c:
        await c.say(b"ping\n" * 50)
        times = [datetime.fromisoformat(record["timestamp"]) for record in c.sink.records]
        assert times == sorted(times)
        completed = c.sink.actions("command-completed")
        for record, begun, ended in zip(completed, times[::2], times[1::2], strict=True):
            assert (ended - begun) / timedelta(seconds=1) == record["seconds"]
        assert any(record["seconds"] for record in completed)
        assert abs(times[0].timestamp() - time.time()) < 60
