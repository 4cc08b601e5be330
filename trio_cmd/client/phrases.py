"""What came of a question becomes lines of text, as a netcat would show them.

Only what the manual of the wire describes has a text form; any other result is shown as JSON.
All lines are safe to show.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from trio_cmd.client.errors import AskError, CommandError
from trio_cmd.client.fleet import Outcome
from trio_cmd.escape import escape
from trio_cmd.tokens import redact

__all__ = ["encode_json", "explain", "format_error", "format_outcome", "format_result"]

NO_LINES = "(no lines)"
"""Stands where an answer has none, so that each host has its line."""

Result = Mapping[str, Any]
_Scalar = str | int | float | bool | None


class _Pong(msgspec.Struct):
    pong: Literal[True]


class _Digest(msgspec.Struct):
    digest: str


class _Verified(_Digest):
    matches: bool


class _Newest(msgspec.Struct):
    lines: list[str]
    truncated: bool = False


class _Printed(msgspec.Struct, forbid_unknown_fields=True):
    """Strict, because under any name there can be a command of a server newer than this client."""

    lines: list[str]
    exit_status: int | None
    truncated: bool


class _Described(msgspec.Struct):
    usage: str
    summary: str


class _Help(msgspec.Struct):
    commands: list[_Described]
    details: list[str] = []


def format_outcome(outcome: Outcome) -> Sequence[str]:
    """Write the lines of what came of a question; there is at least one."""
    if outcome.reply is not None:
        return format_result(outcome.reply.command, outcome.reply.result) or [NO_LINES]
    error = outcome.error
    assert error is not None
    lines: Sequence[str] = ()
    if outcome.is_answer and isinstance(error, CommandError) and error.result is not None:
        name = outcome.command.split(None, 1)[0].decode("utf-8", "replace")
        lines = format_result(name, error.result)
    return [*lines, format_error(error)]


def format_error(error: AskError) -> str:
    """Write why there is no answer, instead of one."""
    return f"error: {explain(error)}"


def explain(error: AskError) -> str:
    """Say why there is no answer: in words, and in the word for it."""
    return f"{error.message} ({error.code})"


def format_result(command: str, result: Result) -> Sequence[str]:
    """Write the lines of a result.

    Args:
        command: the first word of what was asked.
        result: as the host sent it.

    Returns:
        As many lines as it has: none, where a log or the output of a program is empty.
    """
    try:
        lines = _FORMS.get(command, _show_printed)(result)
    except msgspec.ValidationError:
        lines = [encode_json(result)]
    return [escape(line) for line in lines]


# What escape does not let through to a terminal, in JSON's own spelling: nothing is lost.
_SPELLED = {
    number: f"\\u{number:04x}"
    for number in range(0x2070)
    if not chr(number).isprintable() and escape(chr(number)) != chr(number)
}


def encode_json(value: object) -> str:
    """Write a value as JSON on one line, safe to show; what reads it gets what was there."""
    # Outside of strings there are only printable characters: what is spelled here is in a string.
    return redact(msgspec.json.encode(value).decode().translate(_SPELLED))


def _show_pong(result: Result) -> Sequence[str]:
    msgspec.convert(result, _Pong)
    return ["pong"]


def _show_digest(result: Result) -> Sequence[str]:
    return [f"File hash is : {msgspec.convert(result, _Digest).digest}"]


def _show_verified(result: Result) -> Sequence[str]:
    verified = msgspec.convert(result, _Verified)
    return ["File hash matches." if verified.matches else f"File hash differs : {verified.digest}"]


def _show_newest(result: Result) -> Sequence[str]:
    newest = msgspec.convert(result, _Newest)
    return ["older lines skipped", *newest.lines] if newest.truncated else newest.lines


def _show_printed(result: Result) -> Sequence[str]:
    return msgspec.convert(result, _Printed).lines  # where they are truncated, an error says so


def _show_help(result: Result) -> Sequence[str]:
    listed = msgspec.convert(result, _Help)
    width = max((len(row.usage) for row in listed.commands), default=0)
    return [f"{row.usage:{width}}  {row.summary}" for row in listed.commands] + listed.details


def _show_status(result: Result) -> Sequence[str]:
    values = msgspec.convert(result, dict[str, _Scalar])
    return [f"{name}: {_show_value(value)}" for name, value in values.items()]


def _show_value(value: _Scalar) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


_FORMS: Mapping[str, Callable[[Result], Sequence[str]]] = {
    "comphash": _show_digest,
    "help": _show_help,
    "lastlog": _show_newest,
    "ping": _show_pong,
    "status": _show_status,
    "verify": _show_verified,
}
