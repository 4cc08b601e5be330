"""The other end: ask one server, or a thousand.

For other programs there is ``connect`` and what it gives; the rest of this package is
``trio-cmd ask``.
"""

from trio_cmd.client.answers import Progress, Reply, Skipped
from trio_cmd.client.connection import Connection, connect
from trio_cmd.client.errors import (
    AnswerTooLong,
    AskError,
    CommandError,
    ConnectionLost,
    NoAnswer,
    OtherProtocol,
    Refused,
    TlsFailed,
    Unreachable,
)
from trio_cmd.client.hosts import Host, parse_host

__all__ = [
    "connect",
    "Connection",
    "Host",
    "parse_host",
    "Reply",
    "Progress",
    "Skipped",
    "AskError",
    "CommandError",
    "Unreachable",
    "TlsFailed",
    "OtherProtocol",
    "Refused",
    "ConnectionLost",
    "NoAnswer",
    "AnswerTooLong",
]
