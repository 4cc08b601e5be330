"""Clients of the manual's list of what a bad client can do; what they are told is known as well."""

import trio

from soaking.caller import Caller, Unheard, World, WrongAnswer
from soaking.questions import MAX_LINES, PREFIX, Answer, Question, ask_big_lastlog, ask_ping, failure

__all__ = ["BAD"]

HELD_SECONDS = 4.5
SMALL_BYTES = 4096
BIG = b"lastlog %d big\n" % MAX_LINES
NOT_FOUND = b"Command not found.\n"


async def say_nothing(world: World) -> None:
    """Be silent until told."""
    async with await world.connect() as caller:
        await caller.expect_rest(b"Idle for 4 s. bye !\n")


async def send_byte_by_byte(world: World) -> None:
    """Never finish a line, but look alive."""
    async with await world.connect() as caller, trio.open_nursery() as nursery:
        nursery.start_soon(_drip, caller)
        await caller.expect_rest(b"Line not finished in 3 s. bye !\n")
        nursery.cancel_scope.cancel()


async def _drip(caller: Caller) -> None:
    while await caller.try_send(b"x"):
        await trio.sleep(0.1)


async def send_without_end(world: World) -> None:
    """Send a line without end."""
    async with await world.connect() as caller:
        await caller.try_send(b"x" * world.rng.choice((9_000, 70_000, 1_000_000)))
        await caller.expect_rest(b"An error occured : line longer than 8192 bytes\n", b"")


async def never_read(world: World) -> None:
    """Ask for megabytes and read nothing."""
    async with await world.connect(receive_bytes=SMALL_BYTES) as caller:
        with trio.move_on_after(HELD_SECONDS):
            await caller.try_send(BIG * 12)
            await trio.sleep_forever()
        caller.reset()


async def read_slowly(world: World) -> None:
    """Take a large answer in small pieces; all of it comes."""
    async with await world.connect(receive_bytes=SMALL_BYTES) as caller:
        await caller.send(b"lastlog 2000 big\nexit\n")
        heard = b""
        while piece := await caller.receive(8192):
            heard += piece
            await trio.sleep(0.001)
        lines = heard.decode().splitlines()
        is_other = lines[:1] == ["Too many connections. bye !"] or "try again later" in "".join(lines[:1])
        if lines and lines[1:-1] != world.place.big()[-2000:] and not is_other:
            raise WrongAnswer(f"a slow reader got {len(lines)} lines: {heard[:100]!r}...{heard[-100:]!r}")


async def type_what_is_no_command(world: World) -> None:
    """Make more errors of form than a person does."""
    async with await world.connect("127.0.0.1") as caller:
        await caller.try_send(b"nope\n" * world.rng.randint(20, 60))
        await caller.expect_rest(NOT_FOUND * 20 + b"Too many errors. bye !\n")


async def guess_tokens(world: World) -> None:
    """Guess three tokens: each is wrong, or not looked at any more."""
    async with await world.connect("127.0.0.4") as caller:
        await caller.send(b"".join(b"auth tcmd_%s\n" % (letter * 43) for letter in (b"a", b"b", b"c")))
        await caller.end()
        said = [await caller.line(), *(await caller.rest()).decode().splitlines()]
        wrong = [
            line for line in said if line == PREFIX + "wrong token; ask the operator of this host for one"
        ]
        later = [line for line in said if line.startswith(PREFIX + "Too many wrong tokens from 127.0.0.4, ")]
        is_ended = said[-1:] == ["Too many wrong tokens. bye !"]
        if len(wrong) + len(later) + is_ended != len(said) or is_ended != (len(wrong) == 3):
            raise WrongAnswer(f"wrong tokens were answered {said}")


async def speak_another_protocol(world: World) -> None:
    """Speak HTTP, SSH or TLS, with commands behind it."""
    first = world.rng.choice((b"GET / HTTP/1.1\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x02\0\n"))
    async with await world.connect() as caller:
        await caller.try_send(first + b"ping\ncomphash /etc/passwd\n")
        if (heard := await caller.rest()) not in {b"", b"Too many connections. bye !\n"}:
            raise WrongAnswer(f"{first!r} was answered {heard!r}")


async def negotiate(world: World) -> None:
    """Be a telnet that negotiates wherever it likes."""
    telnet = b"\xff\xfd\x03\xff\xfb\x18\xff\xfa\x18\0xterm\xff\xff\xff\xf0\xff\xf1"
    async with await world.connect() as caller:
        await caller.send(telnet + b"pi" + telnet + b"ng\r\nping\r\0\n" + telnet)
        await caller.end()
        await caller.expect_rest(b"pong\npong\n")


async def reset_in_mid_answer(world: World) -> None:
    """Ask for much, take a little, die."""
    async with await world.connect(receive_bytes=SMALL_BYTES) as caller:
        await caller.try_send(
            world.rng.choice((BIG * 3, b"ping\n" * 500, b"follow growing\n", b"status\n" * 40))
        )
        await caller.receive(100)
        caller.reset()


async def leave_at_once(world: World) -> None:
    """Connect and die, or leave, with or without a word."""
    async with await world.connect(world.rng.choice(("unix", "127.0.0.1"))) as caller:
        await caller.try_send(world.rng.choice((b"", b"pin", b"ping\n" * 20, b"hang\n")))
        if world.rng.random() < 0.7:
            caller.reset()


async def cancel_a_hash(world: World) -> None:
    """Ask for the digest of a large file, and leave."""
    async with await world.connect(world.rng.choice(("unix", "127.0.0.1"))) as caller:
        await caller.try_send(b"comphash sha256 %s\n" % bytes(world.place.large))
        await trio.sleep(world.rng.random() * 0.03)
        caller.reset()


async def run_what_hangs(world: World) -> None:
    """Run a program that never ends, and one that prints without end, until they are ended."""
    message = "hang not finished in 1 s"
    late = Question(b"hang", (failure("deadline", message),))
    async with await world.connect() as caller:
        await caller.send(b"hang\nprint\n")
        lines = await caller.text_answer()
        if lines != [*late.answers[0].lines] and "try again later" not in lines[0]:
            raise WrongAnswer(f"hang was answered {lines[:3]}")
        printed = await caller.text_answer()
        last = PREFIX + "print printed more than 65536 bytes and was ended"
        if printed[-2:] != [last, "End print"] and "try again later" not in printed[0]:
            raise WrongAnswer(f"print was answered {printed[:2]}...{printed[-2:]}")


async def follow_slowly(world: World) -> None:
    """Follow and read nothing for a while; then shut the sending side and die."""
    async with await world.connect(receive_bytes=SMALL_BYTES) as caller:
        await caller.try_send(b"follow growing\n")
        await trio.sleep(world.rng.random() * 2)
        await caller.line()
        await caller.end()
        await trio.sleep(world.rng.random())
        caller.reset()


async def come_as_a_crowd(world: World) -> None:
    """Take many places at once, and ask once each."""
    async with trio.open_nursery() as nursery:
        for _ in range(world.rng.randint(20, 50)):
            nursery.start_soon(_hold_a_place, world)


async def _hold_a_place(world: World) -> None:
    """Be let in, or be told that there are too many; a refused client sends nothing."""
    try:
        caller = await world.connect()
    except Unheard:
        world.ledger.met["closed without a word"] += 1
        return
    async with caller:
        with trio.move_on_after(0.3) as waiting:
            await caller.expect_rest(b"Too many connections. bye !\n")
            world.ledger.met["too-many-clients"] += 1
        if waiting.cancelled_caught:
            await caller.send(b"ping\n")
            await caller.expect(ask_ping(""))


async def come_unnamed(world: World) -> None:
    """Come from where nobody is named."""
    try:
        async with await world.connect("127.0.0.5") as caller:
            await caller.expect_rest(b"Not allowed from 127.0.0.5. bye !\n", b"")
    except Unheard:  # with TLS no word could be read
        world.ledger.met["not-allowed"] += 1


async def come_and_be_dismissed(world: World) -> None:
    """Come from an address that the settings name now and then."""
    try:
        await _ask_until_dismissed(world)
    except Unheard:
        world.ledger.met["not-allowed"] += 1


async def _ask_until_dismissed(world: World) -> None:
    bye = "Not allowed from 127.0.0.3. bye !"
    async with await world.connect("127.0.0.3") as caller:
        for _ in range(world.rng.randint(1, 40)):
            if not await caller.try_send(b"ping\n"):
                return
            line = await caller.line()
            if line == bye:
                world.ledger.met["not-allowed"] += 1
                return
            if line != "pong":
                raise WrongAnswer(f"whoever is named now and then got {line!r}")
            await trio.sleep(0.02)


async def shut_and_stay(world: World) -> None:
    """Shut the sending side, take the answers, and forget to close."""
    async with await world.connect() as caller:
        await caller.send(b"ping\n")
        await caller.end()
        await caller.expect_rest(b"pong\n")
        await trio.sleep(world.rng.random())


async def ask_too_much(world: World) -> None:
    """Ask for three hundred slow things at once; each is answered, or there is too much to do."""
    async with await world.connect() as caller:
        count = world.rng.randint(50, 300)
        await caller.send(b"".join(b"say n-%d\n" % number for number in range(count)))
        ended = {"exit_status": 0, "truncated": False}
        for number in range(count):
            lines = ("Begin say", f"said n-{number}", "End say")
            right = Answer(lines, {"lines": [lines[1]], **ended})
            busy = failure("busy", "too much work is waiting already; try again later")
            await caller.expect(Question(b"say", (right, busy)))


async def take_a_large_answer(world: World) -> None:
    """Ask for more than an answer holds: the newest lines that fit come."""
    async with await world.connect() as caller:
        await caller.send(BIG)
        await caller.expect(ask_big_lastlog(world.place))


BAD = {
    say_nothing: 1,
    send_byte_by_byte: 1,
    send_without_end: 2,
    never_read: 1,
    read_slowly: 1,
    type_what_is_no_command: 2,
    guess_tokens: 1,
    speak_another_protocol: 3,
    negotiate: 2,
    reset_in_mid_answer: 4,
    leave_at_once: 5,
    cancel_a_hash: 3,
    run_what_hangs: 2,
    follow_slowly: 1,
    come_as_a_crowd: 1,
    come_unnamed: 2,
    come_and_be_dismissed: 2,
    shut_and_stay: 2,
    ask_too_much: 1,
    take_a_large_answer: 1,
}
"""What bad clients do, and how often beside the others."""
