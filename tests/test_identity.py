"""What one client may ask: what is not granted, wrong tokens, and too many errors."""

import itertools
import os
import random
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from conversation import Conversation, conversing
from trio_cmd.commands import COMMANDS, Asker, Command, Surroundings
from trio_cmd.errors import BadArguments, NotFound
from trio_cmd.escape import escape
from trio_cmd.records import flood
from trio_cmd.server import session
from trio_cmd.server.access import Access, Visitor
from trio_cmd.settings import Grant, Limits
from trio_cmd.tokens import digest_token, make_token
from trio_cmd.wire.messages import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = make_token().encode()
WRONG = b"auth " + make_token().encode() + b"\n"
PING = Grant(name="ping-only", commands=("ping",))
STATUS = Grant(name="operators", commands=("status",), token_sha256=digest_token(TOKEN))
NOT_FOUND = b"Command not found.\n"
BAD_TOKEN = b"An error occured : wrong token; ask the operator of this host for one\n"


async def test_what_is_not_granted_is_refused_recorded_and_not_listed(autojump_clock: trio.abc.Clock) -> None:
    """A client gets what it was given, and the operator sees what else was tried."""
    async with conversing(grants=[PING]) as conversation:
        assert await conversation.say(b"status\n") == b"An error occured : status is not allowed here\n"
        assert await conversation.say(b"slow x\n") == b"An error occured : slow is not allowed here\n"
        assert await conversation.say(b"nope\n") == NOT_FOUND
        assert await conversation.say(b"ping\n") == b"pong\n"
        heard = (await conversation.say(b"help\n")).decode().splitlines()
        assert [line.split()[0] for line in heard[1:-1]] == ["help", "ping", "format", "auth", "exit", "quit"]
        assert await conversation.say(b"help status\n") == NOT_FOUND
        assert not conversation.slow.running
    completed = conversation.sink.actions("command-completed")
    assert [(r["command"], r["outcome"], r["level"]) for r in completed[:2]] == [
        ("status", "not-allowed", "warning"),
        ("slow", "not-allowed", "warning"),
    ]


async def test_a_token_adds_what_its_grant_allows(autojump_clock: trio.abc.Clock) -> None:
    """One connection, from nobody to operator."""
    async with conversing(grants=[PING, STATUS]) as conversation:
        assert b"not allowed" in await conversation.say(b"status\n")
        assert await conversation.say(b"auth " + TOKEN + b"\n") == b"Welcome operators.\n"
        assert await conversation.say(b"ping\nstatus\n") == b"pong\nBegin status\nclients: 1\nEnd status\n"
        assert b"\nstatus " in await conversation.say(b"help\n")
        assert await conversation.say(b"format json\n")
        assert b'"ok":true,"result":{"name":"operators"}' in await conversation.say(b"auth " + TOKEN + b"\n")


async def test_a_token_that_is_shown_again_is_not_kept_again(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that repeats its token for ever costs the others no more at the end than at the beginning."""
    kept: list[int] = []
    held = Access.held

    def watched(access: Access, visitor: Visitor, digests: Collection[str] = ()) -> tuple[Grant, ...]:
        kept.append(len(digests))
        return held(access, visitor, digests)

    monkeypatch.setattr(Access, "held", watched)
    other = make_token().encode()
    second = Grant(name="others", commands=("ping",), token_sha256=digest_token(other))
    async with conversing(grants=[STATUS, second]) as conversation:
        for token in (TOKEN, other, TOKEN, TOKEN, other):
            assert (await conversation.say(b"auth " + token + b"\n")).startswith(b"Welcome ")
        assert (await conversation.say(b"ping\nstatus\n")).startswith(b"pong\nBegin status\n")
    assert kept == [0, 1, 2]


async def test_the_third_wrong_token_closes_and_nothing_behind_it_is_run(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Nobody guesses a token in one connection; whoever mistypes once goes on."""
    async with conversing(grants=[PING, STATUS]) as conversation:
        assert await conversation.say(WRONG + b"ping\n" + WRONG) == BAD_TOKEN + b"pong\n" + BAD_TOKEN
        await conversation.client.send_all(WRONG + b"ping\nauth " + TOKEN + b"\nstatus\n")
        assert await conversation.heard_all() == BAD_TOKEN + b"Too many wrong tokens. bye !\n"
    assert conversation.session.reason == "bad-token"


async def test_a_right_token_is_wrong_where_its_grant_is_not(autojump_clock: trio.abc.Clock) -> None:
    """What was stolen elsewhere is of no use here."""
    elsewhere = Grant(name="x", commands=("*",), addresses=("10.0.0.0/8",), token_sha256=digest_token(TOKEN))
    async with conversing(grants=[PING, elsewhere]) as conversation:
        assert await conversation.say(b"auth " + TOKEN + b"\n") == BAD_TOKEN


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"x",
        TOKEN + b"=",
        TOKEN[:-1],
        TOKEN.upper(),
        b"Bearer " + TOKEN,
        TOKEN + b" x",
        TOKEN.removeprefix(b"tcmd_"),
    ],
    ids=["none", "short", "padded", "cut", "capitals", "bearer", "more", "bare"],
)
async def test_what_has_not_the_form_of_a_token_is_not_compared(
    argument: bytes, autojump_clock: trio.abc.Clock
) -> None:
    """A password typed into the wrong window is no attempt, and says how a token looks."""
    async with conversing(grants=[PING, STATUS]) as conversation:
        for _ in range(4):
            assert await conversation.say(b"auth " + argument + b"\n") == (
                b"An error occured : usage: auth TOKEN; a token is tcmd_ and 43 letters, digits, - or _\n"
            )
        assert await conversation.say(b"ping\n") == b"pong\n"


# Too many errors


async def fail(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    """A slow command whose argument is never good."""
    raise BadArguments("usage: fail")


FAIL = {b"fail": Command("fail", "fail", "fail", work=fail)}


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"nope\n", NOT_FOUND),
        (
            b"a\x01b\n",
            b"An error occured : control characters in the line; send text, blanks and tabs only\n",
        ),
        (b"format x\n", b"An error occured : usage: format text|json\n"),
        (b"status\n", b"An error occured : status is not allowed here\n"),
        (b"fail\n", b"An error occured : usage: fail\n"),
    ],
    ids=["unknown-command", "bad-encoding", "bad-arguments", "not-allowed", "slow bad-arguments"],
)
async def test_twenty_errors_of_form_close_the_connection(
    line: bytes, answer: bytes, autojump_clock: trio.abc.Clock
) -> None:
    """A program that asks at random is not answered for ever; a person never comes so far."""
    grants = [Grant(name="g", commands=("ping", "fail"))]
    async with conversing(more_commands=FAIL, grants=grants) as conversation:
        for _ in range(19):
            assert await conversation.say(b"ping\n" + line) == b"pong\n" + answer
        assert await conversation.say(b"ping\n") == b"pong\n"
        await conversation.client.send_all(line + (b"" if line == b"fail\n" else b"ping\n"))
        assert await conversation.heard_all() == answer + b"Too many errors. bye !\n"
    assert conversation.session.reason == "too-many-errors"
    assert sum(count for outcome, count in conversation.tally.outcomes().items() if outcome != "ok") == 20


async def test_what_was_asked_before_the_last_error_is_still_answered(autojump_clock: trio.abc.Clock) -> None:
    """The end is a goodbye, not a cut: no answer that is owed is lost."""
    async with conversing() as conversation:
        await conversation.client.send_all(b"slow a\n" + b"nope\n" * 25 + b"slow b\n")
        assert await conversation.heard() == b""
        conversation.slow.finish("a")
        assert await conversation.heard_all() == (
            b"slow a is done\n" + NOT_FOUND * 20 + b"Too many errors. bye !\n"
        )
    assert conversation.session.requests == 21


async def test_the_goodbye_is_json_to_a_client_of_json(autojump_clock: trio.abc.Clock) -> None:
    """A program reads why it was closed."""
    async with conversing() as conversation:
        await conversation.client.send_all(b"format json\n" + b"nope\n" * 20)
        heard = await conversation.heard_all()
        assert heard.endswith(
            b'{"event":"bye","reason":"too-many-errors","message":"Too many errors. bye !"}\n'
        )


async def test_files_that_are_missing_do_not_count(autojump_clock: trio.abc.Clock) -> None:
    """A script that looks through a thousand paths finds most of them missing, and goes on."""

    async def missing(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        raise NotFound("there is none")

    row = {b"missing": Command("missing", "missing", "fail", work=missing)}
    async with conversing(more_commands=row) as conversation:
        for _ in range(30):
            assert b"An error occured" in await conversation.say(b"missing\n")
        assert await conversation.say(b"ping\n") == b"pong\n"


async def test_a_line_that_was_held_back_is_not_run_after_the_end(autojump_clock: trio.abc.Clock) -> None:
    """What ends the conversation while the reader waits ends it before the next line."""
    limits = Limits(pending_replies=2)
    async with conversing(limits, more_commands=FAIL) as conversation:
        await conversation.client.send_all(b"slow a\nslow b\nping\n")
        assert await conversation.heard() == b""
        conversation.session._end("idle")
        conversation.slow.finish("a")
        conversation.slow.finish("b")
        assert await conversation.heard_all() == b"slow a is done\nslow b is done\nIdle for 300 s. bye !\n"
    assert conversation.session.requests == 2


# What was judged is what ran


# Of each line 10,000 in full, else 1,000.
VARIANTS = 60_000 if os.environ.get("TRIO_CMD_FULL") == "1" else 6_000
LINES = [b"ping", b"status", b"show /etc/hostname", b"help ping", b"format text", b"list a,b"]


def _replace(letter: bytes, other: bytes, line: bytes) -> bytes:
    return line.replace(letter, other)


def vary(line: bytes, random_: random.Random) -> bytes:
    """Write a line in another way, as somebody does who wants to get past a judge."""
    look_alikes = {b"i": "і".encode(), b"o": "о".encode(), b"a": "а".encode(), b"/": "∕".encode()}  # noqa: RUF001 - on purpose
    ways: list[Callable[[bytes], bytes]] = [
        lambda s: s.upper(),
        lambda s: s.title(),
        lambda s: s.swapcase(),
        lambda s: s + b",",
        lambda s: b"," + s,
        lambda s: s.replace(b" ", b"  "),
        lambda s: s.replace(b" ", b"\t"),
        lambda s: s.replace(b" ", b"\xc2\xa0"),
        lambda s: s.replace(b" ", b""),
        lambda s: b" " * random_.randrange(5) + s + b"\t" * random_.randrange(5),
        lambda s: b'"' + s + b'"',
        lambda s: b"'" + s + b"'",
        lambda s: s.replace(b"/", b"//"),
        lambda s: s.replace(b"/", b"/./"),
        lambda s: s.replace(b"/", b"/../"),
        lambda s: s.replace(b"/", b"%2f"),
        lambda s: s.replace(b"e", b"%65"),
        lambda s: s.replace(b"h", b"%2e%2e/h"),
        lambda s: s + b";secret",
        lambda s: s + b"&&secret x",
        lambda s: s + b"|secret",
        lambda s: b"secret " + s,
        lambda s: s + b" secret",
        lambda s: s + b"\r",
        lambda s: s + b"\0",
        lambda s: s.replace(b"i", b"i\xe2\x80\x8b"),
        lambda s: s.replace(b"s", b"\\s"),
        lambda s: s.replace(b"p", b"\xff\xf1p"),
        lambda s: s[: random_.randrange(len(s)) + 1],
        lambda s: s + s,
        *(partial(_replace, letter, other) for letter, other in look_alikes.items()),
    ]
    for way in random_.choices(ways, k=random_.randrange(1, 4)):
        line = way(line)
    return line.replace(b"\n", b"")


async def test_what_was_judged_is_what_ran(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of ways to write what is allowed: none runs anything else than was looked at and recorded."""
    monkeypatch.setattr(session, "MAX_ERRORS", 1_000_000)
    monkeypatch.setattr(flood, "MAX_RECORDED", 1_000_000)
    ran: list[tuple[str, bytes]] = []

    def spy(name: str) -> Command:
        def answer(argument: bytes, surroundings: Surroundings) -> Reply:
            ran.append((name, argument))
            return Reply((f"ran {name}",))

        return Command(name, name, name, answer=answer)

    allowed = ("ping", "status", "show", "list", "help", "format", "auth", "exit", "quit")
    rows = {name.encode(): spy(name) for name in ("secret", *allowed, *map(bytes.decode, COMMANDS))}
    random_ = random.Random(4)
    lines = [vary(line, random_) for line in itertools.islice(itertools.cycle(LINES), VARIANTS)]
    grants = [Grant(name="g", commands=("ping", "status", "show", "list"))]
    conversation = Conversation(more_commands=rows, grants=grants)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conversation.run)
        nursery.start_soon(conversation.listen)
        for line in lines:
            await conversation.client.send_all(line + b"\n")
        await conversation.heard()
        nursery.cancel_scope.cancel()
    received = {record["request"]: record for record in conversation.sink.actions("command-received")}
    judged = [
        (received[record["request"]]["command"], record["outcome"])
        for record in conversation.sink.actions("command-completed")
    ]
    assert len(judged) == sum(bool(line.strip(b" \t\r\xff\xf1")) for line in lines) > 0.9 * VARIANTS
    assert [name for name, _ in ran] == [name for name, outcome in judged if outcome == "ok"]
    assert {name for name, outcome in judged if outcome == "ok"} <= set(allowed)
    assert {name for name, _ in judged} >= {"PING", "secret", "Status", '"ping"'}
    assert all(outcome == "not-allowed" for name, outcome in judged if name == "secret")
    recorded = [
        received[record["request"]]["arguments"]
        for record in conversation.sink.actions("command-completed")
        if record["outcome"] == "ok"
    ]
    assert len(ran) > 0.1 * VARIANTS
    assert [escape(argument) for _, argument in ran] == recorded
