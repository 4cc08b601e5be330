"""Clients in the middle of a conversation while other settings come; in memory, under the jumping clock."""

import json

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conversation import Conversation, conversing
from trio_cmd.commands import Asker, Command, Surroundings
from trio_cmd.errors import NotFound
from trio_cmd.server.goodbye import DISMISS_SECONDS
from trio_cmd.settings import Grant, Limits, Settings
from trio_cmd.tokens import digest_token, make_token
from trio_cmd.wire.messages import Reply

ALL = Grant(name="all", addresses=("127.0.0.1",), commands=("*",))
PING = Grant(name="ping", addresses=("127.0.0.1",), commands=("ping",))
ELSEWHERE = Grant(name="elsewhere", addresses=("10.0.0.0/8",), commands=("*",))
GOODBYE = b"Not allowed from 127.0.0.1. bye !\n"


def outcomes(c: Conversation) -> list[str]:
    return [record["outcome"] for record in c.sink.actions("command-completed")]


async def stream(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    """Stream lines until it is ended."""
    await asker.wait_for_turn()
    asker.begin("stream")
    asker.show(["one"], 0)
    await asker.wait_for_end()
    return Reply(block="stream", is_begun=True, result={})


STREAM = {b"stream": Command("stream", "stream", "stream lines", work=stream)}


async def test_whoever_is_still_allowed_notices_nothing(autojump_clock: MockClock) -> None:
    """Settings are changed in the middle of the day, not at night."""
    async with conversing() as c:
        await c.say(b"slow a\nping\n")
        c.renew(grants=[ALL])
        assert await c.heard() == b""
        c.slow.finish("a")
        assert await c.heard() == b"slow a is done\npong\n"
        assert await c.say(b"ping\n") == b"pong\n"
        assert c.session.reason is None


async def test_later_commands_are_judged_by_the_new_grants(autojump_clock: MockClock) -> None:
    """What was taken away is gone with the reload, not with the connection."""
    async with conversing() as c:
        assert await c.say(b"ping\n") == b"pong\n"
        c.renew(grants=[Grant(name="x", addresses=("127.0.0.1",), commands=("slow",))])
        assert await c.say(b"ping\n") == b"An error occured : ping is not allowed here\n"
        c.renew(grants=[PING])
        assert await c.say(b"ping\n") == b"pong\n"


async def test_work_that_is_no_longer_granted_is_cancelled_and_told(autojump_clock: MockClock) -> None:
    """A grant that was taken away shows nothing more, also of what was begun under it."""
    async with conversing(Limits(running_per_client=1)) as c:
        await c.say(b"slow a\nslow b\nping\n")
        assert c.slow.running == ["a"]
        c.renew(grants=[PING])
        refused = b"An error occured : slow is not allowed here\n"
        assert await c.heard() == refused * 2 + b"pong\n"
        assert (c.slow.cancelled, c.slow.running) == (["a"], [])
        assert sorted(outcomes(c)) == ["not-allowed", "not-allowed", "ok"]
        assert await c.say(b"ping\n") == b"pong\n"


async def test_what_is_taken_away_is_no_error_of_its_client(autojump_clock: MockClock) -> None:
    """A client with many questions under way is not thrown out for having asked them in good time."""
    async with conversing() as c:
        await c.say(b"".join(b"slow %d\n" % number for number in range(40)))
        c.renew(grants=[PING])
        assert (await c.heard()).count(b"not allowed here") == 40
        assert await c.say(b"ping\n") == b"pong\n"


async def test_an_answer_that_was_ready_in_the_same_moment_is_not_shown(autojump_clock: MockClock) -> None:
    """Between the reload and the sending nothing slips through."""
    async with conversing() as c:
        await c.say(b"slow a\n")
        c.slow.finish("a")  # its task runs only after this one
        c.renew(grants=[PING])
        assert await c.heard() == b"An error occured : slow is not allowed here\n"


async def test_a_program_that_is_no_longer_offered_runs_to_its_end(autojump_clock: MockClock) -> None:
    """A command in progress keeps the settings it began with, as long as the grant stays."""
    async with conversing() as c:
        await c.say(b"slow a\n")
        whole = c.identity._tables.whole
        del whole.commands[b"slow"]  # type: ignore[attr-defined]  # a dict
        c.renew(grants=[ALL])
        c.slow.finish("a")
        assert await c.heard() == b"slow a is done\n"
        assert await c.say(b"slow b\n") == b"Command not found.\n"


@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_stream_that_is_no_longer_granted_ends_with_the_reason(
    autojump_clock: MockClock, form: str
) -> None:
    """A follow goes on for days; taking its grant away must end it."""
    async with conversing(more_commands=STREAM) as c:
        await c.say(b"format %s\nstream\n" % form.encode())
        c.renew(grants=[PING])
        heard = await c.heard()
        if form == "text":
            assert heard == b"An error occured : stream is not allowed here\nEnd stream\n"
        else:
            assert json.loads(heard)["error"] == {
                "code": "not-allowed",
                "message": "stream is not allowed here",
            }
        assert await c.say(b"ping\n") != b""
        assert c.session.reason is None


async def test_a_client_without_any_grant_is_told_and_closed(autojump_clock: MockClock) -> None:
    """Whoever was let in and should not be here any more is gone at once, and knows why."""
    async with conversing() as c:
        await c.say(b"slow a\nslow b\n")
        began = trio.current_time()
        c.renew(grants=[ELSEWHERE])
        assert await c.heard_all() == b"An error occured : slow is not allowed here\n" * 2 + GOODBYE
        await wait_all_tasks_blocked()
        assert trio.current_time() - began < 1
        assert c.session.reason == "not-allowed"
        assert outcomes(c) == ["not-allowed"] * 2


async def test_a_client_is_told_also_when_it_takes_seconds_to_judge_all_others(
    autojump_clock: MockClock,
) -> None:
    """The first of thousands would otherwise be out of time before it is its turn."""
    async with conversing() as c:
        c.renew(grants=[ELSEWHERE])
        autojump_clock.jump(2)
        assert await c.heard_all() == GOODBYE


async def test_a_client_without_any_grant_that_does_not_read_is_closed_as_well(
    autojump_clock: MockClock,
) -> None:
    """To stop reading is no way to stay."""
    async with conversing() as c:
        c.stream.is_read = False
        await c.client.send_all(b"help\n" * 3)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        c.renew(grants=[ELSEWHERE])
        await c.heard_all()
        assert trio.current_time() - began == pytest.approx(DISMISS_SECONDS)
        assert c.session.reason == "not-allowed"


async def test_answers_after_end_of_input_are_not_waited_for_without_a_grant(
    autojump_clock: MockClock,
) -> None:
    """``nc -N`` has said all it had to say; what it still waits for is taken away as well."""
    async with conversing() as c:
        await c.client.send_all(b"slow a\n")
        await c.client.send_eof()
        await wait_all_tasks_blocked()
        assert c.session.reason == "closed"
        c.renew(grants=[ELSEWHERE])
        assert await c.heard_all() == b"An error occured : slow is not allowed here\n" + GOODBYE
        await wait_all_tasks_blocked()
        assert c.session.reason == "not-allowed"


@pytest.mark.parametrize("why", ["stopping", "gone", "wrong-protocol", "goodbye"])
async def test_whoever_is_leaving_leaves_for_its_own_reason(autojump_clock: MockClock, why: str) -> None:
    """The record says why a connection ended, not what happened in its last moment."""
    async with conversing() as c:
        if why == "stopping":
            await c.say(b"slow a\n")
            c.session.stop()
            c.renew(grants=[ELSEWHERE])
            reason = "stopping"
        elif why == "gone":
            c.session.lose()
            c.renew(grants=[ELSEWHERE])
            reason = "reset"
        elif why == "wrong-protocol":
            await c.client.send_all(b"GET / HTTP/1.1\r\n")
            c.session._end("wrong-protocol")
            c.renew(grants=[ELSEWHERE])
            reason = "wrong-protocol"
        else:
            c.stream.is_read = False
            await c.client.send_all(b"exit\n")
            c.session._is_parting = True
            c.session.reason = reason = "exit"
            c.renew(grants=[ELSEWHERE])
        assert c.session.reason == reason


async def test_a_token_that_was_presented_stays_presented(autojump_clock: MockClock) -> None:
    """Nobody has to log in again because a limit was changed; a digest that is gone opens nothing."""
    token, other = make_token(), make_token()
    grant = Grant(
        name="t",
        addresses=("127.0.0.1",),
        token_sha256=digest_token(token.encode()),
        commands=("ping",),
    )
    async with conversing(grants=[grant]) as c:
        assert await c.say(b"auth %s\nping\n" % token.encode()) == b"Welcome t.\npong\n"
        c.renew(grants=[ELSEWHERE, grant])
        assert await c.say(b"ping\n") == b"pong\n"
        changed = Grant(
            name="t",
            addresses=("127.0.0.1",),
            token_sha256=digest_token(other.encode()),
            commands=("ping",),
        )
        c.renew(grants=[changed])  # it could still show the new one, so it stays
        assert await c.say(b"ping\n") == b"An error occured : ping is not allowed here\n"
        assert await c.say(b"auth %s\nping\n" % other.encode()) == b"Welcome t.\npong\n"


async def test_a_command_keeps_the_surroundings_it_was_asked_in(autojump_clock: MockClock) -> None:
    """Also one that waits behind others is done by the settings of its moment, and by all of them."""
    seen: list[float] = []

    async def look(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        seen.append(surroundings.settings.limits.waiting)
        raise NotFound("nothing")

    commands = {b"look": Command("look", "look", "look at the settings", work=look)}
    async with conversing(Limits(running_per_client=1, waiting=1), commands) as c:
        await c.say(b"slow a\nlook\n")
        whole = c.identity._tables.whole
        changed = Settings(limits=Limits(running_per_client=1, waiting=2))
        c.identity._tables.whole = type(whole)(
            changed,
            whole.hashing,
            whole.logs,
            whole.statistics,
            whole.commands,
            followers=whole.followers,
            sharing=whole.sharing,
        )
        c.renew(changed.limits)
        await c.say(b"look\n")
        assert seen == []
        c.slow.finish("a")
        await c.heard()
        assert seen == [1, 2]


async def test_limits_of_a_client_change_for_what_comes(autojump_clock: MockClock) -> None:
    """Higher ones help those who wait, lower ones cut nobody."""
    async with conversing(Limits(running_per_client=1, pending_replies=2, idle_seconds=300)) as c:
        await c.say(b"slow a\nslow b\nslow c\n")
        assert len(c.sink.actions("command-received")) == 2
        c.renew(Limits(running_per_client=3, pending_replies=9, idle_seconds=5))
        await c.say(b"slow d\n")
        assert len(c.sink.actions("command-received")) == 4
        assert len(c.slow.running) == 3
        c.renew(Limits(running_per_client=1, pending_replies=2, idle_seconds=5))
        for name in "abcd":
            c.slow.finish(name)
        heard = await c.heard()
        assert heard == b"".join(b"slow %c is done\n" % name for name in b"abcd")
        assert await c.heard_all() == b"Idle for 5 s. bye !\n"


async def test_fewer_side_by_side_hold_back_what_has_not_begun(autojump_clock: MockClock) -> None:
    """What runs goes on; the next begins when there is a place by the new count."""
    async with conversing(Limits(running_per_client=2)) as c:
        await c.say(b"slow a\nslow b\nslow c\nslow d\n")
        c.renew(Limits(running_per_client=1))
        assert c.slow.running == ["a", "b"]
        c.slow.finish("a")
        await c.heard()
        assert c.slow.running == ["b"]
        c.slow.finish("b")
        await c.heard()
        assert c.slow.running == ["c"]


async def test_a_line_that_has_begun_keeps_its_length(autojump_clock: MockClock) -> None:
    """A shorter limit of lines cuts nobody who was typing; the next line is held to it."""
    async with conversing(Limits(line_bytes=1000)) as c:
        await c.client.send_all(b"ping " + b"x" * 800)
        await wait_all_tasks_blocked()
        c.renew(Limits(line_bytes=512))
        assert await c.say(b"x\n") == b"pong\n"
        assert (
            await c.say(b"ping " + b"x" * 600 + b"\n") == b"An error occured : line longer than 512 bytes\n"
        )


async def test_a_longer_line_is_allowed_at_once(autojump_clock: MockClock) -> None:
    """A limit that was too low is raised without anybody connecting again."""
    async with conversing(Limits(line_bytes=512)) as c:
        c.renew(Limits(line_bytes=1000))
        assert await c.say(b"ping " + b"x" * 600 + b"\n") == b"pong\n"
        c.renew(Limits(line_bytes=512))
        assert (
            await c.say(b"ping " + b"x" * 600 + b"\n") == b"An error occured : line longer than 512 bytes\n"
        )
