"""What a server says, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Progress", "Reply", "Skipped"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is no error.

    Attributes:
        command: the first word of what was asked.
        result: see the tables of ``docs/protocol.md``; texts in it are as the host sent them.
        seconds: from the complete line to the finished answer, as the server tells it.
    """

    command: str
    result: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a hash is: bytes of the file that are done, and all of them."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """In place of that many lines, because this client read them too slowly."""

    lines: int
