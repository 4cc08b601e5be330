"""``lastlog [LINES] [LOG]``: the newest lines of a log."""

import os
import re
from collections.abc import Mapping

from trio_cmd.commands.table import Asker, Command, Surroundings
from trio_cmd.errors import BadArguments, NotFound, ProgramFailed
from trio_cmd.escape import quote
from trio_cmd.settings import Log
from trio_cmd.wire.messages import Reply
from trio_cmd.work.logs import NewestLines
from trio_cmd.work.sharing import Run

__all__ = ["COMMAND", "DEFAULT_LOGS"]

DEFAULT_LINES = 10
MAX_LINES = 10_000

# Where distributions keep the system log; used when the settings name no log.
DEFAULT_LOGS: Mapping[str, Log] = {
    "syslog": Log(file="/var/log/syslog"),
    "messages": Log(file="/var/log/messages"),
}

_USAGE = "lastlog [LINES] [LOG]"
_LINES_BEGIN = re.compile(rb"[0-9+-]")
_LINES = re.compile(rb"0*([1-9][0-9]{0,4})")


async def lastlog(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    """Show the newest lines of a log.

    Raises:
        BadArguments: the number of lines is none from 1 to 10000, or there is more than a log's name.
        NotFound: there is no such log; the message lists those there are.
        CommandFailed: why it cannot be read.

    Cancel: the reading ends, unless others asked for the same.
    """
    lines, name = _parse(argument)
    logs = _choose(
        surroundings.settings.logs or DEFAULT_LOGS,
        name,
        has_defaults=not surroundings.settings.logs,
    )
    for log, settings in logs.items():
        try:
            return await _read(log, settings, lines, surroundings, asker)
        except NotFound:
            if len(logs) == 1:
                raise
    tried = ", ".join(log.file for log in logs.values())
    raise NotFound(f"no system log: tried {tried}; name one in the settings under [logs]")


async def _read(log: str, settings: Log, lines: int, surroundings: Surroundings, asker: Asker) -> Reply:
    async def work(run: Run) -> Reply:
        path = os.fsencode(settings.file)
        return _reply(log, await surroundings.logs.newest(path, lines, asker.client, run.begin))

    return await surroundings.sharing.run(("lastlog", log, lines), asker, work)


def _parse(argument: bytes) -> tuple[int, bytes]:
    """Read the number of lines and the name of the log, empty when there is none."""
    words = argument.split()
    lines = DEFAULT_LINES
    if words and _LINES_BEGIN.match(words[0]):
        lines = _parse_lines(words.pop(0))
    if len(words) > 1:
        raise BadArguments(f"usage: {_USAGE}")
    return lines, words[0] if words else b""


def _parse_lines(word: bytes) -> int:
    match = _LINES.fullmatch(word)
    lines = int(match[1]) if match else 0
    if not 1 <= lines <= MAX_LINES:
        raise BadArguments(f"expected a number of lines from 1 to {MAX_LINES}: {_USAGE}")
    return lines


def _choose(logs: Mapping[str, Log], name: bytes, *, has_defaults: bool) -> Mapping[str, Log]:
    """Find the log by its name; without one, the first, or all places of the system log to try."""
    if not name:
        return logs if has_defaults else dict([next(iter(logs.items()))])
    for log, settings in logs.items():
        if log.encode() == name:
            return {log: settings}
    raise NotFound(f"no log named {quote(name)}; the logs are: {', '.join(logs)}")


def _reply(log: str, newest: NewestLines) -> Reply:
    marker = [f"{newest.skipped} lines skipped"] if newest.skipped else []
    return Reply(
        marker + newest.lines,
        block="lastlog",
        result={"log": log, "lines": newest.lines, "truncated": newest.skipped > 0},
        error=ProgramFailed("tail", newest.exit_status) if newest.exit_status else None,
        record={"log": log, "lines": len(newest.lines), "exit_status": newest.exit_status},
    )


COMMAND = Command("lastlog", _USAGE, "show the newest lines of a log", work=lastlog)
