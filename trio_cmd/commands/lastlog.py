"""``lastlog [LINES] [LOG]``: the newest lines of a log."""

import os
import re
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from trio_cmd.commands.table import Command, Surroundings, work_shared
from trio_cmd.errors import BadArguments, NotFound, ProgramFailed
from trio_cmd.escape import quote
from trio_cmd.settings import Log, Settings
from trio_cmd.wire.messages import Reply
from trio_cmd.work.logs import LogReader, NewestLines
from trio_cmd.work.runs import Begun, Question, Run

__all__ = ["COMMAND", "DEFAULT_LOGS", "choose_logs", "first_there", "list_logs"]

DEFAULT_LINES = 10
MAX_LINES = 10_000

# Where distributions keep the system log; used when the settings name no log.
DEFAULT_LOGS: Mapping[str, Log] = {
    "syslog": Log(file="/var/log/syslog"),
    "messages": Log(file="/var/log/messages"),
    "journal": Log(journal="*"),
}

_T = TypeVar("_T")
_USAGE = "lastlog [LINES] [LOG]"
_LINES_BEGIN = re.compile(rb"[0-9+-]")
_LINES = re.compile(rb"0*([1-9][0-9]{0,4})")


def lastlog(argument: bytes, surroundings: Surroundings, client: Hashable) -> Question:
    """Say what shows the newest lines of a log, or raises why it cannot be read.

    Raises:
        BadArguments: the number of lines is none from 1 to 10000, or there is more than a log's name.
        NotFound: there is no such log; the message lists those there are.
    """
    lines, name = _parse(argument)
    logs = choose_logs(surroundings.settings, name)

    async def work(run: Run) -> Reply:
        def look(log: Log) -> Awaitable[NewestLines]:
            return _read(surroundings.logs, log, lines, client, run.begin)

        return _reply(*await first_there(logs, look))

    return Question(("lastlog", tuple(logs), lines), work)


async def first_there(logs: Mapping[str, Log], look: Callable[[Log], Awaitable[_T]]) -> tuple[str, _T]:
    """Look at one log after the other until one is there.

    Returns:
        Its name, and what was found.

    Raises:
        NotFound: none is; of several, it says what was tried.
        CommandFailed: what ``look`` raises for one that is there.
    """
    for name, log in logs.items():
        try:
            return name, await look(log)
        except NotFound:
            if len(logs) == 1:
                raise
    tried = ", ".join(log.file or "journalctl" for log in logs.values())
    remedy = "name one with --log NAME=PATH, or in the settings under [logs]"
    raise NotFound(f"no system log: tried {tried}; {remedy}")


async def _read(reader: LogReader, log: Log, lines: int, client: Hashable, begun: Begun) -> NewestLines:
    if log.file is not None:
        return await reader.newest(os.fsencode(log.file), lines, client, begun)
    assert log.journal is not None
    return await reader.newest_of_journal(log.journal, lines, client, begun)


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


def choose_logs(settings: Settings, name: bytes) -> Mapping[str, Log]:
    """Find a log by its name; without one, the first, or all places of the system log to try.

    Raises:
        NotFound: there is no such log; the message lists those there are.
    """
    logs = settings.logs or DEFAULT_LOGS
    if not name:
        return dict([next(iter(logs.items()))]) if settings.logs else logs
    for known, log in logs.items():
        if known.encode() == name:
            return {known: log}
    raise NotFound(f"no log named {quote(name)}; the logs are: {', '.join(logs)}")


def _reply(log: str, newest: NewestLines) -> Reply:
    marker = [f"{newest.skipped} lines skipped"] if newest.skipped else []
    return Reply(
        marker + newest.lines,
        block="lastlog",
        result={"log": log, "lines": newest.lines, "truncated": newest.skipped > 0},
        error=ProgramFailed(newest.program, newest.exit_status) if newest.exit_status else None,
        record={"log": log, "lines": len(newest.lines), "exit_status": newest.exit_status},
    )


def list_logs(surroundings: Surroundings) -> Sequence[str]:
    """Say for help which logs there are."""
    logs = surroundings.settings.logs
    which = "the first is the default" if logs else "the first that is there is the default"
    return (f"the logs are: {', '.join(logs or DEFAULT_LOGS)}; {which}",)


COMMAND = Command(
    "lastlog",
    _USAGE,
    "show the newest lines of a log",
    work=work_shared(lastlog),
    share=lastlog,
    details=list_logs,
)
