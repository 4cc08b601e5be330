"""Why there is no answer: each error has one code and one line that says whose fault it is.

The line is for whoever asks, safe to show, and does not name the host: that is known to whoever
asked it, and stands before the line where there are many.
"""

from collections.abc import Mapping
from typing import Any

from trio_cmd.escape import escape

__all__ = [
    "AnswerTooLong",
    "AskError",
    "CommandError",
    "ConnectionLost",
    "NoAnswer",
    "OtherProtocol",
    "OurFault",
    "Refused",
    "TlsFailed",
    "Unreachable",
    "describe_fault",
]


# A reason is one line, and a path in it has 4096 bytes at most, each of which may be four characters.
_MOST_CHARACTERS = 1 << 15


class AskError(Exception):
    """An answer that was asked for and is not there.

    Attributes:
        code: the word for it, of the server or one of this module's.
        message: one line, safe to show.
    """

    code: str

    def __init__(self, message: str) -> None:
        self.message = _cut(escape(message))
        super().__init__(self.message)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "..."


class Unreachable(AskError):
    """The name means nothing, nobody listens there, or no connection came about in time."""

    code = "unreachable"


class TlsFailed(AskError):
    """There is no TLS with this host: it speaks none, is not who it should be, or wants a certificate."""

    code = "tls-failed"


class OtherProtocol(AskError):
    """What listens there is no server of this kind, or too old to speak JSON."""

    code = "other-protocol"


class Refused(AskError):
    """The server has said why it closes the connection; the message is what it said."""

    code = "refused"


class ConnectionLost(AskError):
    """The connection ended before the answer was there."""

    code = "connection-lost"


class NoAnswer(AskError):
    """The answer was not there in time."""

    code = "no-answer"


class AnswerTooLong(AskError):
    """The host sends more than one answer may be."""

    code = "answer-too-long"


class OurFault(AskError):
    """The program that asks has a fault; the message says where."""

    code = "internal"


class CommandError(AskError):
    """The server has answered that the command failed.

    Attributes:
        code: of ``docs/protocol.md``, like ``not-found``.
        result: what there is in spite of it, like the lines of a program that failed.
        seconds: how long the server took.
    """

    def __init__(
        self, code: str, message: str, result: Mapping[str, Any] | None = None, seconds: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = escape(code)
        self.result = result
        self.seconds = seconds


def describe_fault(fault: BaseException) -> str:
    """Say of a fault of this program what its programmer must know, in one line, safe to show."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    place = fault.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" ({place.tb_frame.f_code.co_qualname}, line {place.tb_lineno})"
    return escape(f"a fault of trio-cmd itself, please report it: {type(fault).__name__}: {fault}{where}")
