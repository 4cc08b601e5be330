"""Bytes enter in any pieces, complete lines leave; telnet's commands are taken out on the way.

The state is the bytes of the unfinished line and nothing more: a line feed always ends a line,
so telnet commands never reach beyond one, and where the packets were cut changes nothing.
"""

import re
from typing import TypeVar

from trio_cmd.errors import LineTooLong

__all__ = ["LineReader", "without_ending"]

_Bytes = TypeVar("_Bytes", bytes, bytearray)

_ENDINGS = (b"\r\0", b"\r")  # telnet sends a carriage return alone as CR NUL (RFC 854)

# IAC IAC is the byte 255; WILL, WONT, DO, DONT take one option; SB runs to IAC SE; others stand alone.
_TELNET_COMMAND = re.compile(
    rb"\xff(?:\xff|[\xfb-\xfe].?|\xfa(?:[^\xff]|\xff[^\xf0])*(?:\xff\xf0|\xff?\Z)|.?)", re.DOTALL
)


class LineReader:
    """Cuts a stream of bytes into lines.

    Args:
        max_line_bytes: how long a line may be without its ending, telnet commands included.
        takes_telnet: whether telnet's commands are taken out.  Looking for them takes a hundred times
            the memory of a line that is made for it: only where lines are short.
    """

    __slots__ = ("_lines", "_max", "_max_later", "_tail", "_takes_telnet", "taken")

    def __init__(self, max_line_bytes: int, *, takes_telnet: bool = True) -> None:
        self._takes_telnet = takes_telnet
        self._max = max_line_bytes
        self._max_later = max_line_bytes  # when all that has been received is taken
        self._lines: list[bytes] = []  # complete but for checks, the next one last
        self._tail = bytearray()  # of the unfinished line; grown in place, never searched again
        self.taken = 0  # lines given out so far

    def resize(self, max_line_bytes: int) -> None:
        """Allow lines of another length; one that is on its way keeps what it began with, if that is more."""
        self._max_later = max_line_bytes
        if max_line_bytes > self._max or not (self._lines or self._tail):
            self._max = max_line_bytes

    @property
    def has_lines(self) -> bool:
        """Whether ``next_line`` gives a line or an error without more input."""
        return bool(self._lines) or (bool(self._tail) and self._is_tail_too_long())

    @property
    def is_unfinished(self) -> bool:
        """Whether a line has begun that has not ended."""
        return bool(self._tail)

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        if b"\n" not in data:
            self._tail += data
            return
        lines = data.split(b"\n")
        rest = lines.pop()
        if self._tail:
            lines[0] = bytes(self._tail) + lines[0]
            self._tail.clear()
        self._tail += rest
        lines.reverse()
        self._lines = lines + self._lines if self._lines else lines

    def end(self) -> None:
        """Say that no more input comes: what is left without an ending is a line too."""
        if self._tail:
            self._lines.insert(0, bytes(self._tail))
            self._tail.clear()

    def next_line(self) -> bytes | None:
        """Take the next complete line.

        Returns:
            The line without its ending and without telnet commands, or ``None``: feed more first.

        Raises:
            LineTooLong: the next line is, or already cannot but become, longer than allowed; nothing
                more can be taken from this stream.
        """
        if not self._lines:
            if not self._tail:
                self._max = self._max_later
            elif self._is_tail_too_long():
                raise LineTooLong(self._max)
            return None
        line = self._lines[-1]
        if len(line) > self._max and len(without_ending(line)) > self._max:
            raise LineTooLong(self._max)
        self._lines.pop()
        self.taken += 1
        if self._takes_telnet and 0xFF in line:
            line = _TELNET_COMMAND.sub(_spell_telnet, line)
        return without_ending(line)

    def upcoming(self, count: int) -> list[bytes]:
        """Look at the next complete lines, so many at most, as they were sent but for their line feeds.

        Nothing is said of them: one may be too long, or hold telnet commands.
        """
        return self._lines[: -count - 1 : -1]

    def skip(self, count: int) -> None:
        """Take so many of them."""
        del self._lines[-count:]
        self.taken += count

    def _is_tail_too_long(self) -> bool:
        # An ending that is still incomplete may be among these bytes: it does not count.
        return len(self._tail) > self._max and len(without_ending(self._tail)) > self._max


def without_ending(line: _Bytes) -> _Bytes:
    """Take off what stands between a line and its line feed."""
    for ending in _ENDINGS:
        if line.endswith(ending):
            return line[: -len(ending)]
    return line


def _spell_telnet(match: re.Match[bytes]) -> bytes:
    return b"\xff" if match[0] == b"\xff\xff" else b""
