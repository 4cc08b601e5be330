"""Lines of bytes enter without waiting; one thread writes them; what is lost is counted and said.

The event loop never writes: a pipe whose reader has stopped would stop every client.  The queue
is bounded, because a reader that stays away would otherwise take all memory.  The records that
clients can cause at will, received and completed commands, have one room; all others have as
much again for themselves.

What happens when lines cannot be written is the operator's choice.  Dropping, they are counted as
lost.  Holding, they stay, clients wait, and nothing is ever lost before the end.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trio_cmd.records.batch import Batch
from trio_cmd.records.events import COMMAND_ACTIONS
from trio_cmd.records.output import Output
from trio_cmd.records.room import Room
from trio_cmd.records.writer import Writer
from trio_cmd.settings import Logging

__all__ = ["Sink", "SinkStatistics"]

# Time given to more records to come, so that many leave in one write.
GATHER_SECONDS = 0.02
GATHER_SECONDS_WHEN_MUCH = 0.002
MUCH = 1000  # records at one turn
WRITE_BYTES = 65536
# Between two tries to write what could not be written, or to say what was lost.
RETRY_SECONDS = 1.0


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


class Sink:
    """The queue of records and the thread that writes them.

    Args:
        output: where to; closed with the sink.
        queue_events: how many records may wait, of each of the two kinds.
        queue_bytes: how many bytes they may have, of each kind.
        holds: when lines cannot be written they are kept, and clients wait.  The queue is then
            bounded by what is under way when they begin to.
    """

    def __init__(self, output: Output, queue_events: int, queue_bytes: int, *, holds: bool = False) -> None:
        self._output = output
        self._writer = Writer(output, self._describe_failure)
        self._holds = holds
        self._lock = threading.Lock()
        self._queue: deque[tuple[Batch, Room]] = deque()
        self._commands, self._others = self._rooms = tuple(
            Room(queue_events, queue_bytes, is_bounded=not holds) for _ in range(2)
        )
        self._wake = threading.Event()
        self._is_closing = False  # beside the event: `put` asks for every record
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self._describe_loss: Callable[[int], bytes]
        self._renewed: Callable[[Logging], object]
        self._written = 0
        self._lost = 0
        self._lost_said = 0
        self._thread = threading.Thread(target=self._run, name="trio_cmd records", daemon=True)

    def renew(self, settings: Logging) -> None:
        """Record by other settings: how many may wait, what then, and what lines look like."""
        with self._lock:
            self._holds = settings.when_full == "hold"
            for room in self._rooms:
                room.max_events, room.max_bytes = settings.queue_events, settings.queue_bytes
                room.is_bounded = not self._holds
        self._renewed(settings)

    def start(
        self,
        describe_loss: Callable[[int], bytes],
        complain: Callable[[str], object],
        renewed: Callable[[Logging], object] = lambda _: None,
    ) -> None:
        """Begin to write.

        Args:
            describe_loss: makes the line that says how many records were lost.
            complain: says elsewhere, from the writer's thread, that the record cannot be written.
            renewed: told of other settings; see ``renew``.
        """
        self._renewed = renewed
        self._describe_loss = describe_loss
        self._writer.complain = complain
        self._thread.start()

    def put(self, line: bytes, action: str) -> None:
        """Queue a line, or count it as lost; never waits.  Any thread may call it."""
        room = self._commands if action in COMMAND_ACTIONS else self._others
        with self._lock:
            self._lost += not self._queue_up(Batch(line), room)
        self._wake_writer()

    def put_commands(self, batch: Batch) -> None:
        """Queue records of commands together; where there is no room for all, those that fit."""
        with self._lock:
            if not self._queue_up(batch, self._commands):
                singles = map(Batch, batch.lines.splitlines(keepends=True))
                self._lost += sum(not self._queue_up(single, self._commands) for single in singles)
        self._wake_writer()

    def _queue_up(self, batch: Batch, room: Room) -> bool:
        if self._is_closing or not room.take(batch):
            return False
        self._queue.append((batch, room))
        return True

    def _wake_writer(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    def reopen(self) -> bool:
        """Let the file be opened anew, soon; returns whether there is one.  Never waits."""
        is_file = self._output.reopen()
        self._wake.set()
        return is_file

    def is_pressed(self) -> bool:
        """Tell whether clients should wait: the room of commands is half full and will be emptied.

        A stalled reader does not make them wait, because it may never come back; unless the
        operator would rather have them wait than lose a record.
        """
        if self._holds:
            return self.is_held()
        return self._commands.is_half_full() and not self.is_stalled()

    def is_held(self) -> bool:
        """Tell whether nobody should be let in: nothing may be lost, and half of a room is full."""
        return self._holds and any(room.is_half_full() for room in self._rooms)

    def is_stalled(self) -> bool:
        """Tell whether the writer is stuck in a write, or its last write failed."""
        return self._writer.is_stalled()

    def statistics(self) -> SinkStatistics:
        """Count what was written and lost."""
        return SinkStatistics(self._written, self._lost, self._count_queued(), self.is_stalled())

    def close(self, seconds: float) -> int:
        """Write what waits, for so long at most.

        Returns:
            How many records were lost and could not be declared in the record itself: say it elsewhere.
        """
        with self._lock:
            self._give_up_at = time.monotonic() + seconds
            self._is_closing = True
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)
        with self._lock:
            return self._lost - self._lost_said + self._count_queued()

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait(RETRY_SECONDS if self._has_unsaid() or (self._holds and self._queue) else None)
            self._closing.wait(self._pause_seconds())
            self._wake.clear()  # before the queue is looked at: what comes later wakes again
            self._turn()
        while self._queue and time.monotonic() < self._give_up_at:
            self._turn()
            time.sleep(GATHER_SECONDS if self._queue else 0)
        if self._has_unsaid():
            self._turn()
        self._output.close()

    def _pause_seconds(self) -> float:
        if self._holds and self._writer.has_failed:
            return RETRY_SECONDS
        return GATHER_SECONDS_WHEN_MUCH if self._count_queued() > MUCH else GATHER_SECONDS

    def _count_queued(self) -> int:
        return sum(room.events for room in self._rooms)

    def _has_unsaid(self) -> bool:
        return self._lost != self._lost_said

    def _turn(self) -> None:
        """Write the whole queue, and say what was lost before."""
        lost = self._lost
        # An empty piece: also when nothing is to be written the file may have to be opened anew.
        for piece in list(_cut([batch for batch, _ in list(self._queue)])) or [[]]:
            count = sum(batch.records for batch in piece)
            written = self._writer.write(piece) if self._says_gap() else 0
            gone = written if self._holds else count
            with self._lock:
                self._forget(gone)
                self._written += written
                self._lost += gone - written
            if gone < count:
                break
        self._say_lost(lost)

    def _says_gap(self) -> bool:
        """After a write that failed say the loss first: the room that came back may not last for more.

        Returns:
            Whether other lines may be written now; while the loss cannot be said none is tried.
        """
        return not self._writer.has_failed or self._say_lost(self._lost)

    def _say_lost(self, lost: int) -> bool:
        """Say what was lost, so much since the start; returns whether nothing of it is left to say."""
        unsaid = lost - self._lost_said
        if unsaid > 0 and self._writer.write([Batch(self._describe_loss(unsaid))]):
            self._lost_said = lost
        return self._lost_said >= lost

    def _forget(self, count: int) -> None:
        """Take the first records out of the queue; they stayed there as long as they took room."""
        while count:
            batch, room = self._queue.popleft()
            if batch.records > count:  # a write failed in the middle of it
                batch, rest = batch.split(count)
                self._queue.appendleft((rest, room))
            room.give_back(batch)
            count -= batch.records

    def _describe_failure(self) -> str:
        """Say what follows when lines cannot be written."""
        return "clients wait until it can" if self._holds else "records are lost until it can"


def _cut(batches: list[Batch]) -> Iterator[list[Batch]]:
    """Cut into pieces of one write each, so that a slow reader is not taken for a stalled one."""
    piece: list[Batch] = []
    size = 0
    for batch in batches:
        size += len(batch.lines)
        if piece and size > WRITE_BYTES:
            yield piece
            piece, size = [], len(batch.lines)
        piece.append(batch)
    if piece:
        yield piece
