"""Why a conversation ended enters, the last words to the client leave, and are given time to be read."""

import trio

from trio_cmd.addresses import Address
from trio_cmd.settings import Limits
from trio_cmd.wire.closing import linger
from trio_cmd.wire.messages import Form, format_notice
from trio_cmd.wire.stream import ClientStream

__all__ = ["format_goodbye", "hurry", "wait_for_reader"]

LINGER_SECONDS = 2.0
STOPPING_LINGER_SECONDS = 0.5
# Within a second whoever may no longer be here is gone, whatever it does.
DISMISS_SECONDS = 0.8
# Reasons that end a conversation in the middle of what the client says.
INTERRUPTING = frozenset(("line-too-long", "slow-line", "too-many-errors", "bad-token"))


def format_goodbye(reason: str, form: Form, limits: Limits, address: Address | None) -> bytes:
    """Write the last words; nothing where nothing is said."""
    seconds = {"idle": limits.idle_seconds, "slow-line": limits.request_seconds}.get(reason, 0)
    return format_notice(reason, form, seconds=seconds, address=address)


async def wait_for_reader(stream: ClientStream, reason: str, *, is_ended: bool) -> None:
    """Give the client the time to read what it was sent; see ``linger``.

    Args:
        stream: stays open; the caller closes it.
        reason: why the conversation ended.
        is_ended: the client's end of input was already read.

    Cancel: nothing is left behind.
    """
    if reason != "wrong-protocol":
        seconds = STOPPING_LINGER_SECONDS if reason == "stopping" else LINGER_SECONDS
        await linger(stream, seconds, is_ended=is_ended, is_sending=reason in INTERRUPTING)


async def hurry(scope: trio.CancelScope) -> None:
    """Have an end of a conversation soon: counted from when all clients are judged, however many there are.

    Args:
        scope: of the conversation.
    """
    scope.deadline = min(scope.deadline, trio.current_time() + DISMISS_SECONDS)
    await trio.lowlevel.checkpoint()
