"""Clients that are bad at TLS, of the same list; nothing of what they say outside of it is run."""

import trio

from soaking.caller import World, WrongAnswer
from soaking.questions import ask_ping

__all__ = ["BAD_AT_TLS"]

ALERT = b"\x15\x03"  # RFC 8446, 5.1


async def speak_plainly(world: World) -> None:
    """Speak plain text, or something that begins like TLS, where TLS is spoken: nothing of it is run."""
    words = (b"ping\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0" + b"\xff" * 600, b"\x80ping\n")
    async with await world.connect_plainly() as caller:
        await caller.try_send(world.rng.choice(words))
        heard = await caller.rest()
        if heard and not heard.startswith(ALERT):
            raise WrongAnswer(f"plain text was answered {heard[:100]!r}")


async def stop_in_the_handshake(world: World) -> None:
    """Be silent where a handshake is expected, or begin one; leave, die, or wait until it is over."""
    async with await world.connect_plainly() as caller:
        await caller.try_send(world.rng.choice((b"", b"\x16", b"\x16\x03\x01\x02\0\x01")))
        match world.rng.randrange(3):
            case 0:
                await trio.sleep(world.rng.random())
                caller.reset()
            case 1:
                await caller.end()
                await caller.rest()
            case _:
                await caller.rest()


async def break_the_seal(world: World) -> None:
    """Go on in plain text behind a good handshake: no answer comes to it."""
    async with await world.connect() as caller:
        await caller.send(b"ping\n")
        await caller.expect(ask_ping(""))
        await caller.break_seal(b"ping\nping\n")
        await caller.expect_rest(b"")


BAD_AT_TLS = {speak_plainly: 2, stop_in_the_handshake: 1, break_the_seal: 2}
"""What bad clients do where TLS is spoken."""
