"""A stream with answers under way enters; it can be closed when its client has had time to read them.

Closing a socket with unread input resets the connection, and a reset can destroy an answer that is
still under way.  So input is read and thrown away until the client closes.
"""

import trio

from trio_cmd.wire.stream import ClientStream

__all__ = ["LINGER_BYTES", "drain", "linger"]

LINGER_BYTES = 65536


async def linger(
    stream: ClientStream, seconds: float, *, is_ended: bool = False, is_sending: bool = False
) -> None:
    """Close the sending side and give the client the time to read what was sent.

    Args:
        stream: stays open; the caller closes it.
        seconds: how long at most; at most 64 KiB are read.
        is_ended: the client's end of input was already read.
        is_sending: the client was interrupted, and more is to come though nothing has come yet.

    Cancel: nothing is left behind.
    """

    def is_quiet() -> bool:
        return is_ended or not (is_sending or any(stream.waiting_bytes()))

    if not stream.says_end and is_quiet():
        return  # as most are: they need no clock
    try:
        with trio.move_on_after(seconds):
            await stream.say_end()
            if not is_quiet():
                await drain(stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client was faster


async def drain(stream: ClientStream) -> None:
    """Close the sending side, then read and throw away until the client closes, at most 64 KiB.

    Raises:
        trio.BrokenResourceError: the client is gone.

    Cancel: nothing is left behind.
    """
    await stream.send_eof()
    left = LINGER_BYTES
    while left > 0 and (data := await stream.receive_some(left)):
        left -= len(data)
