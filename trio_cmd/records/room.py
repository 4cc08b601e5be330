"""The room of one kind of record in the queue: batches enter and leave, how full it is is told."""

from trio_cmd.records.batch import Batch

__all__ = ["Room"]


class Room:
    """What one kind of record may take of the queue, and more of it when nothing may be lost.

    Args:
        max_events: records.
        max_bytes: of their lines.
        is_bounded: no more is taken; else it only tells when it is half full.
    """

    __slots__ = ("bytes", "events", "is_bounded", "max_bytes", "max_events")

    def __init__(self, max_events: int, max_bytes: int, *, is_bounded: bool) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.is_bounded = is_bounded
        self.events = 0
        self.bytes = 0

    def take(self, batch: Batch) -> bool:
        """Take room for records; returns whether there was."""
        events, size = self.events + batch.records, self.bytes + len(batch.lines)
        if self.is_bounded and (events > self.max_events or size > self.max_bytes):
            return False
        self.events, self.bytes = events, size
        return True

    def give_back(self, batch: Batch) -> None:
        """Give the room of records back."""
        self.events -= batch.records
        self.bytes -= len(batch.lines)

    def is_half_full(self) -> bool:
        """Tell whether clients should wait before they cause more."""
        return self.events * 2 >= self.max_events or self.bytes * 2 >= self.max_bytes
