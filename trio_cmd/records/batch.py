"""Lines of the record that travel together: joined where they are made, cut only where a write failed."""

from typing import NamedTuple

__all__ = ["Batch"]


class Batch(NamedTuple):
    """One record, or the records of many commands.

    Attributes:
        lines: each with its line feed.  Only one that is alone may have others within it, as Twisted's
            text and the journal's have.
        records: how many they are.
    """

    lines: bytes
    records: int = 1

    def count_whole(self, size: int) -> tuple[int, int]:
        """Tell how many records lie whole in the first bytes, and how many bytes these have.

        Args:
            size: fewer than all.
        """
        if self.records == 1:
            return 0, 0
        end = self.lines.rfind(b"\n", 0, size) + 1
        return self.lines.count(b"\n", 0, end), end

    def split(self, count: int) -> tuple["Batch", "Batch"]:
        """Split behind the first records, of which there are more than so many."""
        end = 0
        for _ in range(count):
            end = self.lines.index(b"\n", end) + 1
        return Batch(self.lines[:end], count), Batch(self.lines[end:], self.records - count)
