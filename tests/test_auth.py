"""``auth``: what a token adds, what a wrong one costs, and who must wait after ten."""

import hashlib
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from conftest import StartProgram
from conversation import Conversation, conversing
from trio_cmd.addresses import parse_address
from trio_cmd.cli import main
from trio_cmd.server.access import Visitor
from trio_cmd.server.attempts import MAX_WRONG
from trio_cmd.settings import Grant

TOKEN, OTHER, WRONG = (b"tcmd_" + byte * 43 for byte in (b"T", b"O", b"W"))
GRANTS = [
    Grant(name="everybody", commands=("status",)),
    Grant(name="monitor", commands=("ping",), token_sha256=hashlib.sha256(TOKEN).hexdigest().upper()),
    Grant(name="other", commands=("lastlog",), token_sha256=hashlib.sha256(OTHER).hexdigest()),
]
NOT_ALLOWED = b"An error occured : ping is not allowed here\n"
BAD_TOKEN = b"An error occured : wrong token; ask the operator of this host for one\n"


async def test_a_token_adds_its_grant_from_its_line_on(autojump_clock: MockClock) -> None:
    """A client gets what its token is for, and keeps what it had."""
    async with conversing(grants=GRANTS) as c:
        assert await c.say(b"ping\nauth " + TOKEN + b"\nping\n") == NOT_ALLOWED + b"Welcome monitor.\npong\n"
        assert await c.say(b"auth " + OTHER + b"\nping\n") == b"Welcome other.\npong\n"
        assert (await c.say(b"status\n")).startswith(b"Begin status")


async def test_the_third_wrong_token_ends_the_connection(autojump_clock: MockClock) -> None:
    """Whoever guesses must connect again each time; whoever mistypes may try again."""
    async with conversing(grants=GRANTS) as c:
        assert await c.say(b"auth " + WRONG + b"\n") == BAD_TOKEN
        assert await c.say(b"auth hunter2\n" * 3) == 3 * (
            b"An error occured : usage: auth TOKEN; a token is tcmd_ and 43 letters, digits, - or _\n"
        )
        answer = await c.say(b"auth " + WRONG + b"\nauth " + WRONG + b"\nauth " + TOKEN + b"\n")
        assert answer == 2 * BAD_TOKEN + b"Too many wrong tokens. bye !\n"


def block(conversation: Conversation) -> None:
    """Let other clients of its address have sent ten wrong tokens just now."""
    for _ in range(MAX_WRONG):
        conversation.attempts.add(conversation.identity.visitor.key(), trio.current_time())


async def test_after_ten_wrong_tokens_none_is_compared_for_a_minute(autojump_clock: MockClock) -> None:
    """Even the right one learns nothing but when to come back; the connection stays."""
    async with conversing(grants=GRANTS) as c:
        block(c)
        busy = "An error occured : Too many wrong tokens from 127.0.0.1, try again in {} s.\n"
        for _ in range(5):
            assert await c.say(b"auth " + TOKEN + b"\n") == busy.format(60).encode()
        assert await c.say(b"auth hunter2\n") == busy.format(60).encode()
        await trio.sleep(58.5)
        assert await c.say(b"auth " + WRONG + b"\n") == busy.format(2).encode()
        await trio.sleep(1.4)
        assert await c.say(b"auth " + TOKEN + b"\n") == busy.format(1).encode()
        await trio.sleep(0.1)
        assert await c.say(b"auth " + TOKEN + b"\nping\n") == b"Welcome monitor.\npong\n"
        outcomes = [record["outcome"] for record in c.sink.actions("command-completed")]
        assert outcomes == ["busy"] * 8 + ["ok", "ok"]


async def test_who_is_in_stays_in(autojump_clock: MockClock) -> None:
    """Guessers on the same host cut nobody off."""
    async with conversing(grants=GRANTS) as c:
        await c.say(b"auth " + TOKEN + b"\n")
        block(c)
        assert await c.say(b"ping\n") == b"pong\n"


def test_who_must_wait_is_a_host_or_a_user_of_this_one() -> None:
    """Nobody escapes by another address of its network, and no user locks out the others."""

    def key(address: str, uid: int | None = None) -> object:
        return Visitor(parse_address(address), uid=uid).key()

    assert key("10.0.0.1") == key("::ffff:10.0.0.1") != key("10.0.0.2")
    assert key("2001:db8::1") == key("2001:db8::2") != key("2001:db8:0:1::1")
    assert key("unix", 1000) == key("unix", 1000) != key("unix", 0)
    assert key("unix") != key("127.0.0.1")


def test_the_grant_that_is_printed_lets_its_token_in(
    start: StartProgram, write_settings: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Two lines of the manual are enough: make a token, paste the grant."""
    assert main(["token", "monitor"], {}) == 0
    token, _, grant = capfd.readouterr().out.partition("\n")
    program = start("--config", write_settings(grant))
    assert program.ask(b"ping\nauth %b\nping\n" % token.encode()) == NOT_ALLOWED + b"Welcome monitor.\npong\n"
    wrong = b"auth " + WRONG + b"\n"
    answers = b"".join(program.ask(3 * wrong) for _ in range(4))
    assert answers.count(BAD_TOKEN) == MAX_WRONG
    assert answers.count(b"Too many wrong tokens. bye !\n") == 3
    assert answers.count(b"Too many wrong tokens from 127.0.0.1, try again in ") == 2
    assert program.stop() == 0
    assert token[5:] not in str(program.rest())
