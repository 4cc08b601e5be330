"""``follow [LOG]``: the lines of a log as they are written."""

from dataclasses import dataclass

import trio

from trio_cmd.commands.lastlog import choose_logs, first_there, list_logs
from trio_cmd.commands.table import Asker, Command, Surroundings
from trio_cmd.errors import BadArguments
from trio_cmd.escape import escape_lines
from trio_cmd.settings import Log
from trio_cmd.wire.messages import Reply
from trio_cmd.work.feed import Feed

__all__ = ["COMMAND"]

_USAGE = "follow [LOG]"
# Made safe to show at one turn; as JSON, empty lines become seventy times as much.
_PIECE_BYTES = 8192


@dataclass(slots=True)
class _Counts:
    lines: int = 0
    skipped: int = 0


async def follow(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    """Stream what is written to a log, until another line comes or the conversation ends.

    Raises:
        BadArguments: there is more than a log's name.
        NotFound: there is no such log; the message lists those there are.
        Busy: enough logs are being followed.
        CommandFailed: why it cannot be followed.

    Cancel: the child is gone.
    """
    if len(argument.split()) > 1:
        raise BadArguments(f"usage: {_USAGE}")
    logs = choose_logs(surroundings.settings, argument)
    await asker.wait_for_turn()
    with surroundings.followers.place(asker.site):
        name, log = await first_there(logs, lambda log: _checked(log, surroundings))
        return await _follow(name, log, surroundings, asker)


async def _checked(log: Log, surroundings: Surroundings) -> Log:
    await surroundings.followers.check(log)
    return log


async def _follow(name: str, log: Log, surroundings: Surroundings, asker: Asker) -> Reply:
    """Follow a log that is there.

    Raises:
        CommandFailed: it could not be begun; what fails later is in the reply.

    Cancel: the child is gone.
    """
    feed, counts = Feed(), _Counts()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(surroundings.followers.run, log, feed)
        await feed.wait_until_settled()
        is_begun = not feed.is_ended
        if is_begun:
            asker.begin("follow")
            nursery.start_soon(_pass_on, feed, asker, counts, nursery.cancel_scope)
            await asker.wait_for_end()
        nursery.cancel_scope.cancel()
    if not is_begun:
        assert feed.error is not None
        raise feed.error
    _skip_rest(feed, asker, counts)
    facts = {"log": name, "lines": counts.lines, "skipped": counts.skipped}
    return Reply(block="follow", is_begun=True, error=feed.error, result=facts, record=facts)


async def _pass_on(feed: Feed, asker: Asker, counts: _Counts, following: trio.CancelScope) -> None:
    """Stream what comes, as fast as the client takes it; when nothing more comes, end the following.

    Cancel: what was taken has been streamed.
    """
    while not (feed.is_ended and feed.is_empty):
        await feed.wait()
        await asker.wait_for_room()
        await trio.lowlevel.checkpoint()  # others have their turn, however fast it comes
        skipped, data = feed.take(_PIECE_BYTES)
        if data or skipped:
            lines = escape_lines(data)
            asker.show(lines, skipped)
            counts.lines += len(lines)
            counts.skipped += skipped
    following.cancel()


def _skip_rest(feed: Feed, asker: Asker, counts: _Counts) -> None:
    """Say how many lines were waiting when the end came."""
    skipped = feed.skip_all()
    if skipped:
        asker.show((), skipped)
        counts.skipped += skipped


COMMAND = Command("follow", _USAGE, "stream what is written to a log", work=follow, details=list_logs)
