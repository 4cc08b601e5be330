"""A line of a host becomes what it says, and a question becomes a line.  No I/O.

What comes back is typed: whatever is of another type, nested more deeply or no UTF-8 has not been
said by a server of this kind.
"""

from typing import Annotated

import msgspec

from trio_cmd.client.answers import Reply
from trio_cmd.client.errors import CommandError, ConnectionLost, OtherProtocol, Refused
from trio_cmd.escape import quote
from trio_cmd.tokens import redact
from trio_cmd.wire.messages import BLANKS, NOTICES

__all__ = ["Said", "format_question", "other_protocol", "read_line", "read_other", "read_reply", "unasked"]

# Enough to know what it is.
SHOWN_BYTES = 80
_GOODBYE = " bye !"
_UNKNOWN_COMMAND = "Command not found."
# With the carriage return, one at the end of a question stays part of it: it alone is taken off.
_ENDING = b"\r\n"

_POSITIVE = msgspec.Meta(ge=0)

_Scalar = str | int | float | bool | None
_Item = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Value = _Scalar | list[_Item] | dict[str, _Item]


class Fault(msgspec.Struct, frozen=True):
    """Why a command failed."""

    code: str
    message: str


class Said(msgspec.Struct, frozen=True):
    """One object of a host: an answer, which has ``ok``, or an event; see ``docs/protocol.md``."""

    id: int = 0
    ok: bool | None = None
    result: dict[str, _Value] | None = None
    error: Fault | None = None
    seconds: Annotated[float, _POSITIVE] = 0.0
    event: str = ""
    message: str = ""
    done: Annotated[int, _POSITIVE] = 0
    total: Annotated[int, _POSITIVE] = 0
    line: str = ""
    lines: Annotated[int, _POSITIVE] = 0


_DECODER = msgspec.json.Decoder(Said)


def format_question(line: str | bytes) -> tuple[str, bytes]:
    """Make a line of a question.

    Args:
        line: without its ending; a text's bytes are those of a path that ``os.fsdecode`` gave.

    Returns:
        The first word, and what is sent.

    Raises:
        ValueError: it is no line, or empty.
    """
    data = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line
    if b"\n" in data:
        raise ValueError("a question is one line, without a line feed")
    words = data.split(None, 1)
    if not data.strip(BLANKS):
        raise ValueError("a question has at least one word")
    name = words[0] if words else data
    return name.decode("ascii", "replace"), data.replace(b"\xff", b"\xff\xff") + _ENDING


def read_line(line: bytes) -> Said:
    """Read what a host says.

    Raises:
        Refused: it is a goodbye.
        ConnectionLost: it is a goodbye without a word.
        OtherProtocol: it is nothing that a server of this kind says.
    """
    try:
        said = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise read_other(line) from None
    if said.event == "bye":
        raise Refused(said.message) if said.message else ConnectionLost("the host has ended the conversation")
    if (said.ok is None and not said.event) or (said.ok is False and said.error is None):
        raise other_protocol(line)
    return said


def read_reply(name: str, said: Said) -> Reply | CommandError:
    """Make the outcome of a question of an answer.

    Args:
        name: the first word of the question.
        said: the answer.
    """
    if said.error is not None:
        return CommandError(said.error.code, said.error.message, said.result, said.seconds)
    return Reply(name, said.result or {}, said.seconds)


def other_protocol(line: bytes) -> OtherProtocol:
    """Say what was read instead of what a server of this kind says.

    Args:
        line: or more, of which the first is shown.
    """
    line = line.partition(b"\n")[0].rstrip(b"\r")
    shown = redact(line)[:SHOWN_BYTES]
    more = "..." if len(line) > SHOWN_BYTES else ""
    return OtherProtocol(f"it is no server of this kind, it says {quote(shown)}{more}")


def unasked() -> OtherProtocol:
    """Say that something was answered which was not asked."""
    return OtherProtocol("it is no server of this kind, it answers what was not asked")


def read_other(line: bytes) -> OtherProtocol | Refused:
    """Tell the notices, which are text until JSON is agreed on, from what others say.

    Args:
        line: that is no JSON of a server of this kind.
    """
    text = line.decode("utf-8", "replace")
    if text == _UNKNOWN_COMMAND:
        return OtherProtocol("an old server, which does not speak JSON: ask it by netcat")
    if len(line) <= 4 * SHOWN_BYTES and (text.endswith(_GOODBYE) or text == NOTICES["crashed"]):
        return Refused(text)
    return other_protocol(line)
