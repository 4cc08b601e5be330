"""Lines of bytes enter without waiting; one thread writes them; what is lost is counted and said.

The event loop never writes: a pipe whose reader has stopped would stop every client.  The queue
is bounded, because a reader that stays away would otherwise take all memory.  The records that
clients can cause at will, received and completed commands, have one room; all others have as
much again for themselves.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trio_cmd.records.events import COMMAND_ACTIONS
from trio_cmd.settings import Logging

__all__ = ["Sink", "SinkStatistics"]

# Time given to more records to come, so that many leave in one write.
GATHER_SECONDS = 0.02
GATHER_SECONDS_WHEN_MUCH = 0.002
MUCH = 1000  # records at one turn
WRITE_BYTES = 65536
# A write that lasts longer has no reader: clients are not made to wait for it.
STALLED_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """Counts since the start.

    Attributes:
        written: records written whole.
        lost: records given up, for want of room or because a write failed.
        queued: records that wait now.
        is_stalled: the reader of the records does not read, or is gone.
    """

    written: int
    lost: int
    queued: int
    is_stalled: bool


class _Room:
    """What one kind of record may take of the queue."""

    __slots__ = ("bytes", "events", "max_bytes", "max_events")

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.events = 0
        self.bytes = 0

    def take(self, size: int) -> bool:
        if self.events >= self.max_events or self.bytes + size > self.max_bytes:
            return False
        self.events += 1
        self.bytes += size
        return True

    def is_half_full(self) -> bool:
        return self.events * 2 >= self.max_events or self.bytes * 2 >= self.max_bytes


class Sink:
    """The queue of records and the thread that writes them.

    Args:
        fd: where to; stays open.
        queue_events: how many records may wait, of each of the two kinds.
        queue_bytes: how many bytes they may have, of each kind.
    """

    def __init__(self, fd: int, queue_events: int, queue_bytes: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._queue: deque[tuple[bytes, _Room]] = deque()
        self._rooms = {
            True: _Room(queue_events, queue_bytes),
            False: _Room(queue_events, queue_bytes),
        }
        self._wake = threading.Event()
        self._is_closing = False
        self._describe_loss: Callable[[int], bytes]
        self._renewed: Callable[[Logging], object]
        self._written = 0
        self._lost = 0
        self._lost_said = 0
        self._is_torn = False
        self._has_failed = False
        self._writing_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="trio_cmd records", daemon=True)

    def renew(self, settings: Logging) -> None:
        """Record by other settings: how many may wait, and what lines look like; what waits is written."""
        with self._lock:
            for room in self._rooms.values():
                room.max_events, room.max_bytes = settings.queue_events, settings.queue_bytes
        self._renewed(settings)

    def start(
        self, describe_loss: Callable[[int], bytes], renewed: Callable[[Logging], object] = lambda _: None
    ) -> None:
        """Begin to write.

        Args:
            describe_loss: makes the line that says how many records were lost.
            renewed: told of other settings; see ``renew``.
        """
        self._renewed = renewed
        self._describe_loss = describe_loss
        self._thread.start()

    def put(self, line: bytes, action: str) -> None:
        """Queue a line, or count it as lost; never waits.  Any thread may call it."""
        with self._lock:
            room = self._rooms[action in COMMAND_ACTIONS]
            if self._is_closing or not room.take(len(line)):
                self._lost += 1
            else:
                self._queue.append((line, room))
        if not self._wake.is_set():
            self._wake.set()

    def is_pressed(self) -> bool:
        """Tell whether clients should wait: the room of commands is half full and will be emptied.

        A stalled reader does not make them wait: it may never come back.
        """
        return self._rooms[True].is_half_full() and not self.is_stalled()

    def is_stalled(self) -> bool:
        """Tell whether the writer is stuck in a write, or its last write failed."""
        since = self._writing_since
        return self._has_failed or (since is not None and time.monotonic() - since > STALLED_SECONDS)

    def statistics(self) -> SinkStatistics:
        """Count what was written and lost."""
        return SinkStatistics(self._written, self._lost, len(self._queue), self.is_stalled())

    def close(self, seconds: float) -> int:
        """Write what waits, for so long at most.

        Returns:
            How many records were lost and could not be declared in the record itself: say it elsewhere.
        """
        with self._lock:
            self._is_closing = True
        self._wake.set()
        self._thread.join(seconds)
        with self._lock:
            return self._lost - self._lost_said + len(self._queue)

    def _run(self) -> None:
        while not (self._is_closing and not self._queue):
            self._wake.wait()
            if not self._is_closing:
                time.sleep(GATHER_SECONDS_WHEN_MUCH if len(self._queue) > MUCH else GATHER_SECONDS)
            self._wake.clear()  # before the queue is looked at: what comes later wakes again
            if self._is_closing:
                self._wake.set()
            self._turn()
        if self._lost != self._lost_said:
            self._turn()

    def _turn(self) -> None:
        """Write the whole queue, and say what was lost before."""
        lost = self._lost - self._lost_said
        for piece in _cut(list(self._queue)):
            written = self._write([line for line, _ in piece])
            with self._lock:
                self._forget(len(piece))
                self._written += written
                self._lost += len(piece) - written
        if lost and self._write([self._describe_loss(lost)]):
            self._lost_said += lost

    def _forget(self, count: int) -> None:
        """Take the first lines out of the queue; they stayed there as long as they took room."""
        for _ in range(count):
            line, room = self._queue.popleft()
            room.events -= 1
            room.bytes -= len(line)

    def _write(self, lines: list[bytes]) -> int:
        """Write lines; returns how many went out whole."""
        data = memoryview((b"\n" if self._is_torn else b"") + b"".join(lines))
        start = 1 if self._is_torn else 0
        done = 0
        try:
            while done < len(data):
                self._writing_since = time.monotonic()
                done += self._write_some(data[done:])
            self._has_failed = False
        except OSError:
            self._has_failed = True
        finally:
            self._writing_since = None
        return self._count_whole(lines, done - start if done else 0, started=bool(done))

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
            select.select([], [self._fd], [])
            return 0

    def _count_whole(self, lines: list[bytes], done: int, *, started: bool) -> int:
        whole = 0
        for line in lines:
            if done < len(line):
                break
            done -= len(line)
            whole += 1
        if started:
            self._is_torn = done > 0
        return whole


def _cut(batch: list[tuple[bytes, _Room]]) -> Iterator[list[tuple[bytes, _Room]]]:
    """Cut into pieces of one write each, so that a slow reader is not taken for a stalled one."""
    piece: list[tuple[bytes, _Room]] = []
    size = 0
    for entry in batch:
        piece.append(entry)
        size += len(entry[0])
        if size >= WRITE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
