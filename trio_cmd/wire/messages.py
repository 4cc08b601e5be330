"""A line becomes a ``Request``; a ``Reply`` becomes bytes, as text or as JSON.

The phrases of the conversation are the tutorial's.  What a reply says is decided by the
commands; how it looks, only here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from trio_cmd.errors import BadEncoding, CommandFailed
from trio_cmd.escape import escape
from trio_cmd.tokens import redact

__all__ = [
    "NOTICES",
    "Form",
    "Reply",
    "Request",
    "format_begin",
    "format_event",
    "format_notice",
    "format_reply",
    "format_streamed",
    "is_other_protocol",
    "parse_request",
]

Form = Literal["text", "json"]

BLANKS = b" \t"
MAX_NAME_BYTES = 64  # of an unknown command's name in its answer
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_OTHER_PROTOCOL = re.compile(rb"SSH-|.* HTTP/(?:1\.0|1\.1|2\.0)\Z", re.DOTALL)
_BINARY_FIRST_BYTES = (0x16, 0x80)  # a TLS hello, an SSL 2 hello

NOTICES: Mapping[str, str] = {
    "exit": "",
    "idle": "Idle for {seconds:g} s. bye !",
    "slow-line": "Line not finished in {seconds:g} s. bye !",
    "too-many-clients": "Too many connections. bye !",
    "not-allowed": "Not allowed from {address}. bye !",
    "too-many-errors": "Too many errors. bye !",
    "bad-token": "Too many wrong tokens. bye !",
    "stopping": "Server is stopping. bye !",
    "crashed": "An error occured : internal error",
}
"""What is said last when a connection ends for a reason; nothing is said for the others."""


class Request(NamedTuple):
    """What a client asks.

    Attributes:
        name: the first word, as sent.
        argument: the rest without the blanks around it, as sent.
    """

    name: bytes
    argument: bytes


class Reply(Struct, frozen=True, eq=False):
    """An answer in no form yet.

    Attributes:
        lines: of the text form, each safe to show.
        block: the name after ``Begin`` and ``End``, or empty: the lines stand alone.
        result: of the JSON form.
        error: why there is no result; with a block, it follows the lines.
        record: what the record of the outcome says besides.
        form: the form that later answers have, and already this one.
        closes: whether the connection ends behind it.
        is_begun: whether the beginning of the block has been streamed already.

    Many clients can get one answer; each of its forms is written once, by the first who needs it.
    """

    lines: Sequence[str] = ()
    block: str = ""
    result: Mapping[str, Any] | None = None
    error: CommandFailed | None = None
    record: Mapping[str, Any] = {}
    form: Form | None = None
    closes: bool = False
    is_begun: bool = False
    _text: bytes | None = None
    _result: msgspec.Raw | None = None

    def text(self) -> bytes:
        """Give the text form: the same object each time."""
        text = self._text
        if text is None:
            text = _format_text(self)
            force_setattr(self, "_text", text)
        return text

    def encoded_result(self) -> msgspec.Raw:
        """Give the result as JSON: the same object each time."""
        result = self._result
        if result is None:
            result = msgspec.Raw(msgspec.json.encode(self.result))
            force_setattr(self, "_result", result)
        return result


def is_other_protocol(line: bytes) -> bool:
    """Tell whether the first line of a conversation is that of HTTP or SSH: no command of ours."""
    return _OTHER_PROTOCOL.match(line) is not None


def is_binary(data: bytes) -> bool:
    """Tell whether the first bytes of a conversation cannot be the beginning of a line."""
    return data[:1] != b"" and data[0] in _BINARY_FIRST_BYTES


def parse_request(line: bytes) -> Request | None:
    """Read a line.

    Returns:
        The request, or ``None`` for a line that is empty or blank.

    Raises:
        BadEncoding: there are control characters in it.
    """
    if _CONTROL.search(line):
        raise BadEncoding
    words = line.split(None, 1)
    if not words:
        return None
    return Request(words[0], words[1].rstrip(BLANKS) if len(words) == 2 else b"")


def format_reply(reply: Reply, form: Form, request_id: int, name: bytes | None, seconds: float) -> bytes:
    """Write an answer.

    Args:
        reply: the answer.
        form: ``text`` or ``json``.
        request_id: the number of the request in its connection, from 1.
        name: the command as sent, ``None`` when none could be read.
        seconds: from the complete line to the finished answer.
    """
    if form == "text":
        return reply.text()
    # Redacted first: of a token that is cut, a piece would be left that nobody knows for one.
    shown = None if name is None else escape(redact(name)[:MAX_NAME_BYTES])
    head = {"id": request_id, "command": shown}
    return _format_json(head, reply, seconds)


def format_event(request_id: int, name: bytes, event: str, values: Mapping[str, Any]) -> bytes:
    """Write what comes before the answer of a command; there is only a JSON form.

    Args:
        request_id: the number of the request in its connection, from 1.
        name: the command as sent.
        event: what it is.
        values: what it says.
    """
    return _encode({"id": request_id, "command": escape(name), "event": event, **values})


def format_begin(block: str, form: Form) -> bytes:
    """Write the beginning of a block that is streamed; JSON has none."""
    return f"Begin {block}\n".encode() if form == "text" else b""


def format_streamed(
    request_id: int, name: bytes, form: Form, lines: Sequence[str], skipped: int = 0
) -> bytes:
    """Write lines of a block as they come.

    Args:
        request_id: the number of the request in its connection, from 1.
        name: the command as sent.
        form: ``text`` or ``json``.
        lines: each safe to show.
        skipped: how many are missing before them.
    """
    if form == "text":
        missing = (f"{skipped} lines skipped",) if skipped else ()
        return "\n".join([*missing, *lines, ""]).encode()
    events = [format_event(request_id, name, "skipped", {"lines": skipped})] if skipped else []
    events += [format_event(request_id, name, "line", {"line": line}) for line in lines]
    return b"".join(events)


def format_notice(reason: str, form: Form, **values: object) -> bytes:
    """Write what is said last for the reason a connection ends; empty where nothing is.

    Args:
        reason: see ``NOTICES``.
        form: ``text`` or ``json``.
        values: what the notice names: ``seconds``, ``address``.
    """
    template = NOTICES.get(reason)
    if template is None:
        return b""
    message = template.format(**values)
    if form == "json":
        return _encode({"event": "bye", "reason": reason, "message": message})
    return (message + "\n").encode() if message else b""


def _format_text(reply: Reply) -> bytes:
    error = () if reply.error is None else (reply.error.prefix + reply.error.message,)
    lines = [*reply.lines, *error]
    if reply.block and (reply.is_begun or reply.lines or not error):
        begin = () if reply.is_begun else (f"Begin {reply.block}",)
        lines = [*begin, *lines, f"End {reply.block}"]
    return "\n".join([*lines, ""]).encode() if lines else b""


def _format_json(head: Mapping[str, Any], reply: Reply, seconds: float) -> bytes:
    if reply.closes:  # the notice is its answer
        return b""
    answer: dict[str, Any] = {**head, "ok": reply.error is None}
    if reply.result is not None:
        answer["result"] = reply.encoded_result()
    if reply.error is not None:
        answer["error"] = {"code": reply.error.code, "message": reply.error.message}
    return _encode({**answer, "seconds": round(seconds, 6)})


def _encode(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
