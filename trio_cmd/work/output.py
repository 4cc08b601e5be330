"""What a program prints enters in pieces; as much as fits, as lines that are safe to show, leaves."""

import trio

from trio_cmd.errors import OutputTooLong
from trio_cmd.escape import escape_lines
from trio_cmd.tokens import redact

__all__ = ["Output", "escape_in_pieces"]

_ESCAPE_BYTES = 65536  # at one turn
# A character of UTF-8 has at most so many bytes behind its first.
_MAX_CONTINUATION_BYTES = 3
_LINE_FEED = 0x0A
# Lines take up to twenty times the memory of their bytes.  One event loop makes all of them, so side
# by side they would not be made sooner, only more of them would be half made.
_ONE_AT_A_TIME = trio.Lock()


class Output:
    """Keeps the first bytes that a program prints.

    Args:
        program: its name, for what is told.
        max_bytes: that are kept.
    """

    def __init__(self, program: str, max_bytes: int) -> None:
        self._program = program
        self._max_bytes = max_bytes
        self._data = bytearray()

    def add(self, piece: bytes) -> None:
        """Keep a piece as far as it fits.

        Raises:
            OutputTooLong: it does not fit whole.
        """
        room = self._max_bytes - len(self._data)
        self._data += piece[:room]
        if len(piece) > room:
            raise OutputTooLong(self._program, self._max_bytes)

    async def lines(self, *, is_whole: bool) -> list[str]:
        """Give the lines, safe to show; nothing is kept.

        Args:
            is_whole: whether the program printed all it wanted to; else a last line without a
                newline is left out, because nobody knows how it goes on.
        """
        end = len(self._data) if is_whole else self._data.rfind(b"\n") + 1
        data, self._data = self._data, bytearray()
        del data[end:]
        whole = bytes(data)
        del data  # what is printed is there once
        return await escape_in_pieces(whole)


async def escape_in_pieces(data: bytes) -> list[str]:
    """Make lines safe to show, and let others run between two pieces: a hostile megabyte takes 40 ms.

    What has more than one piece waits until no other such is in work.

    Cancel: nothing is left behind.
    """
    if len(data) > _ESCAPE_BYTES:
        async with _ONE_AT_A_TIME:
            return await _escape_in_pieces(data)
    return await _escape_in_pieces(data)


async def _escape_in_pieces(data: bytes) -> list[str]:
    data = redact(data)  # whole: a token across a cut would not be found
    lines: list[str] = []
    begun: list[str] = []  # the pieces of a line that is not complete yet
    start = 0
    while start < len(data):
        end = _find_cut(data, start)
        first, *others = escape_lines(data[start:end])
        begun.append(first)
        if others or data[end - 1] == _LINE_FEED or end == len(data):
            lines += ["".join(begun), *others]
            # A last one that is not complete goes on in the next piece.
            begun = [] if data[end - 1] == _LINE_FEED or end == len(data) else [lines.pop()]
        start = end
        if start < len(data):
            await trio.lowlevel.checkpoint()
    return lines


def _find_cut(data: bytes, start: int) -> int:
    """Find where a piece ends: behind a line, else in a line that is too long, never in a character."""
    limit = start + _ESCAPE_BYTES
    if limit >= len(data):
        return len(data)
    end = data.rfind(b"\n", start, limit) + 1
    if end:
        return end
    for cut in range(limit, limit - _MAX_CONTINUATION_BYTES - 1, -1):
        if data[cut] & 0xC0 != 0x80:
            return cut
    return limit
