"""Lines that were asked before, already read: bytes enter, what they ask and their record's pieces leave.

Monitoring asks the same few lines for ever.  Only plain ones are kept, of printable ASCII and
short; one that may hold a secret never is.
"""

import re
from typing import NamedTuple

from trio_cmd.records.template import MAX_SHOWN, LinePieces, make_pieces
from trio_cmd.tokens import PREFIX, is_auth
from trio_cmd.wire.lines import without_ending
from trio_cmd.wire.messages import is_other_protocol, parse_request

__all__ = ["PlainLine", "PlainLines"]

MAX_LINES = 512
_PLAIN = re.compile(rb"[ -~]*[!-~][ -~]*\Z")
_SECRET = PREFIX.encode()


class PlainLine(NamedTuple):
    """A line that needs no care.

    Attributes:
        name: the first word.
        argument: the rest without the blanks around it.
        pieces: of its records.
    """

    name: bytes
    argument: bytes
    pieces: LinePieces


class PlainLines:
    """Remembers plain lines of all clients; one that is new makes the oldest give way."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, PlainLine] = {}

    def recall(self, line: bytes) -> PlainLine | None:
        """Read a line that still has its ending; ``None``: it is not plain.

        Args:
            line: without its line feed.
        """
        return self._known.get(line) or self._learn(line)

    def _learn(self, line: bytes) -> PlainLine | None:
        plain = _read(without_ending(line))
        if plain is not None:
            if len(self._known) >= MAX_LINES:
                del self._known[next(iter(self._known))]
            self._known[line] = plain
        return plain


def _read(line: bytes) -> PlainLine | None:
    if len(line) > MAX_SHOWN or not _PLAIN.match(line):
        return None
    if is_auth(line) or _SECRET in line or is_other_protocol(line):
        return None
    request = parse_request(line)
    assert request is not None
    name, argument = request
    return PlainLine(name, argument, make_pieces(line.decode(), name.decode(), argument.decode()))
