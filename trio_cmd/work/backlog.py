"""Pieces of output enter as fast as they come, whole lines leave as fast as they are taken.

What waits is bounded: the oldest lines give way, and how many is said in their place.
"""

from collections import deque

__all__ = ["Backlog"]

# Shorter pieces than this part of all are joined: each costs memory of its own.
_ITEM_PART = 128


class Backlog:
    """Whole lines that wait for a reader.

    Args:
        max_bytes: of all that waits, line feeds included; a longer line is skipped.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._item_bytes = max_bytes // _ITEM_PART
        self._items: deque[bytes | int] = deque()  # whole lines, or how many are missing here
        self._bytes = 0  # of the whole lines
        self._unfinished = bytearray()
        self._is_oversized = False  # the unfinished line; nothing more of it is kept
        self._skipped = 0  # before the first item

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._items and not self._skipped

    def add(self, piece: bytes) -> None:
        """Add what was printed."""
        first, feed, rest = piece.partition(b"\n")
        self._extend(first)
        if not feed:
            return
        self._end_line()
        end = rest.rfind(b"\n") + 1
        if end:
            self._append(rest[:end])
        self._extend(rest[end:])

    def take(self, max_bytes: int) -> tuple[int, bytes]:
        """Take the oldest lines.

        Args:
            max_bytes: how much; a single line may be longer.

        Returns:
            How many lines are missing before them, and the lines; none when nothing waits.
        """
        while self._items and isinstance(self._items[0], int):
            self._skip_oldest()
        skipped, self._skipped = self._skipped, 0
        if not self._items:
            return skipped, b""
        lines = self._items.popleft()
        assert isinstance(lines, bytes)
        if len(lines) > max_bytes:
            end = (lines.rfind(b"\n", 0, max_bytes) + 1) or (lines.index(b"\n") + 1)
            lines, rest = lines[:end], lines[end:]
            if rest:
                self._items.appendleft(rest)
        self._bytes -= len(lines)
        return skipped, lines

    def skip_all(self) -> int:
        """Forget all that waits; returns how many lines that were, an unfinished one not counted."""
        while self._items:
            self._skip_oldest()
        skipped, self._skipped = self._skipped, 0
        return skipped

    def _extend(self, data: bytes) -> None:
        """Go on with the unfinished line."""
        if self._is_oversized:
            return
        self._unfinished += data
        if len(self._unfinished) >= self._max_bytes:
            self._unfinished.clear()
            self._is_oversized = True

    def _end_line(self) -> None:
        if self._is_oversized:
            self._is_oversized = False
            self._items.append(1)
        else:
            self._append(bytes(self._unfinished) + b"\n")
            self._unfinished.clear()

    def _append(self, lines: bytes) -> None:
        last = self._items[-1] if self._items else 0
        if isinstance(last, bytes) and len(last) + len(lines) <= self._item_bytes:
            self._items[-1] = last + lines
        else:
            self._items.append(lines)
        self._bytes += len(lines)
        while self._bytes > self._max_bytes:
            self._skip_oldest()

    def _skip_oldest(self) -> None:
        item = self._items.popleft()
        if isinstance(item, int):
            self._skipped += item
        else:
            self._skipped += item.count(b"\n")
            self._bytes -= len(item)
