"""A stream enters in pieces, its newest whole lines that fit leave."""

from collections import deque

__all__ = ["Newest"]


class Newest:
    """Keeps the newest whole lines of a stream that fit, and counts the others.

    Args:
        max_bytes: of the lines that are kept, line feeds included.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: deque[bytes] = deque()
        self._kept_bytes = 0
        self._dropped_lines = 0

    def add(self, piece: bytes) -> None:
        """Add what comes next."""
        self._pieces.append(piece)
        self._kept_bytes += len(piece)
        # More than fits is always kept, so that it can be seen whether the first line is whole.
        while self._kept_bytes - len(self._pieces[0]) > self._max_bytes:
            dropped = self._pieces.popleft()
            self._kept_bytes -= len(dropped)
            self._dropped_lines += dropped.count(b"\n")

    @property
    def end(self) -> bytes:
        """The last of a stream that does not end with a whole line; empty when it does."""
        last = self._pieces[-1] if self._pieces else b""
        return b"" if last.endswith(b"\n") else last

    def finish(self) -> tuple[bytes, int]:
        """Give the lines that fit, and how many did not."""
        data = b"".join(self._pieces)
        excess = len(data) - self._max_bytes
        start = 0 if excess <= 0 else data.find(b"\n", excess - 1) + 1 or len(data)
        left_out = data[:start]
        skipped = self._dropped_lines + left_out.count(b"\n") + (left_out[-1:] not in (b"", b"\n"))
        return data[start:], skipped
