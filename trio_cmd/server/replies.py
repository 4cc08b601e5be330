"""Answers enter in any order, bytes leave in the order asked."""

from trio_cmd.errors import Busy

__all__ = ["Budget", "ReplyQueue", "Slot"]


class Budget:
    """Bytes of finished answers that all clients together have not taken yet.

    Args:
        max_bytes: how many there should be at most.
        running_bytes: how many the work that runs at once may add; at most half is kept for it.
    """

    __slots__ = ("bytes", "enough_bytes")

    def __init__(self, max_bytes: int, running_bytes: int = 0) -> None:
        self.bytes = 0
        self.resize(max_bytes, running_bytes)

    def resize(self, max_bytes: int, running_bytes: int) -> None:
        """Have other limits for what comes."""
        self.enough_bytes = max(max_bytes - running_bytes, max_bytes // 2)

    def check(self) -> None:
        """See whether more slow commands may begin.

        Raises:
            Busy: the clients have to take answers first.
        """
        if self.bytes >= self.enough_bytes:
            raise Busy("too many answers wait for their readers")


class Slot:
    """The place of one answer, or of some finished ones, in the order of answers."""

    __slots__ = ("asked_after", "count", "is_done", "parts", "streamed_bytes")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0  # answers that are done
        self.is_done = False
        self.asked_after = 0  # so many lines of the client, its own included
        self.streamed_bytes = 0  # what came before the answer


class ReplyQueue:
    """The answers of one client that it has not got yet.

    Args:
        max_replies: how many there should be at most, before the reader waits.
        max_bytes: how many bytes finished answers should have at most.
        budget: of all clients together.
    """

    __slots__ = ("_budget", "_leaving", "_max_bytes", "_max_replies", "_slots", "bytes", "pending")

    def __init__(self, max_replies: int, max_bytes: int, budget: Budget) -> None:
        self._max_replies = max_replies
        self._max_bytes = max_bytes
        self._budget = budget
        self._slots: list[Slot] = []  # a list: it is short, and an idle client's costs least
        self._leaving = 0  # answers whose bytes were taken but are not yet written
        self.pending = 0  # answers that are owed, in work or not written
        self.bytes = 0  # of finished answers, not written

    def resize(self, max_replies: int, max_bytes: int) -> None:
        """Have other limits for what comes."""
        self._max_replies = max_replies
        self._max_bytes = max_bytes

    def is_full(self) -> bool:
        """Whether the client should take answers before it asks more."""
        return self.pending >= self._max_replies or self.bytes >= self._max_bytes

    def room(self) -> tuple[int, int]:
        """Say how many answers, and bytes of them, come before it is full."""
        return self._max_replies - self.pending, self._max_bytes - self.bytes

    def has_room_for_work(self) -> bool:
        """Whether another answer may be worked for: finished ones wait behind the head only so far."""
        return self.bytes < self._max_bytes

    def add(self, answer: bytes, count: int = 1) -> None:
        """Put a finished answer behind all others, or so many joined."""
        slots = self._slots
        if not slots or not slots[-1].is_done:
            slots.append(Slot())
            slots[-1].is_done = True
        slots[-1].parts.append(answer)
        slots[-1].count += count
        self.pending += count
        self._spend(len(answer))

    def reserve(self) -> Slot:
        """Take the place for an answer that is not finished."""
        slot = Slot()
        self._slots.append(slot)
        self.pending += 1
        return slot

    def is_next(self, slot: Slot) -> bool:
        """Whether nothing is before a place: what is streamed into it can leave."""
        return bool(self._slots) and self._slots[0] is slot

    def stream(self, slot: Slot, data: bytes) -> None:
        """Give what comes before the answer for a place, which is the next to leave."""
        slot.parts.append(data)
        slot.streamed_bytes += len(data)
        self._spend(len(data))

    def finish(self, slot: Slot, answer: bytes) -> None:
        """Give the answer for a place."""
        slot.parts.append(answer)
        slot.count = 1
        slot.is_done = True
        self._spend(len(answer))

    def take(self) -> bytes:
        """Take all that can leave now, joined; ``written`` must follow when it has left."""
        parts: list[bytes] = []
        done = 0
        for slot in self._slots:
            parts += slot.parts
            if not slot.is_done:
                slot.parts = []
                break
            self._leaving += slot.count
            done += 1
        del self._slots[:done]
        return b"".join(parts)

    def written(self, size: int) -> None:
        """Say that all that was taken has left: so many bytes."""
        self.pending -= self._leaving
        self._leaving = 0
        self._spend(-size)

    def clear(self) -> None:
        """Forget everything: the client is gone."""
        self._slots.clear()
        self.pending = self._leaving = 0
        self._spend(-self.bytes)

    def _spend(self, size: int) -> None:
        self.bytes += size
        self._budget.bytes += size
