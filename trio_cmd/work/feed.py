"""What a child prints enters in pieces, whole lines leave, on their way to one client.

What is printed since the log was perhaps replaced is kept back until somebody has looked at it.
"""

import trio

from trio_cmd.errors import CommandFailed, Unavailable
from trio_cmd.work.backlog import Backlog

__all__ = ["MAX_WAITING_BYTES", "Feed"]

MAX_WAITING_BYTES = 1 << 20


class Feed:
    """What one child prints, on its way to one client."""

    def __init__(self) -> None:
        self._backlog = Backlog(MAX_WAITING_BYTES)
        self._unchecked: list[bytes] | None = None  # printed since the file was perhaps replaced
        self._unchecked_bytes = 0
        self._changed = trio.Event()
        self._settled = trio.Event()
        self.error: CommandFailed | None = None
        self.is_ended = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return self._backlog.is_empty

    def add(self, piece: bytes) -> None:
        """Add what was printed."""
        if self._unchecked is None:
            self._backlog.add(piece)
            self._tell()
            return
        self._unchecked.append(piece)
        self._unchecked_bytes += len(piece)
        if self._unchecked_bytes > MAX_WAITING_BYTES:
            raise Unavailable("the log was replaced, and its disk does not answer")

    def hold(self) -> None:
        """Keep back what is printed from now on."""
        self._unchecked = self._unchecked or []

    def release(self) -> None:
        """Let through what was kept back."""
        pieces, self._unchecked = self._unchecked or [], None
        self._unchecked_bytes = 0
        for piece in pieces:
            self.add(piece)

    def end(self, error: CommandFailed) -> None:
        """Say that nothing more comes, and why."""
        self.error = error
        self.is_ended = True
        self.settle()
        self._tell()

    def settle(self) -> None:
        """Say that whatever is written from now on will be printed."""
        self._settled.set()

    async def wait_until_settled(self) -> None:
        """Wait for that, or the end."""
        await self._settled.wait()

    def take(self, max_bytes: int) -> tuple[int, bytes]:
        """Take the oldest lines; see ``Backlog``."""
        return self._backlog.take(max_bytes)

    def skip_all(self) -> int:
        """Forget all that waits; returns how many lines that were."""
        return self._backlog.skip_all()

    async def wait(self) -> None:
        """Wait until there is something to take, or the end.

        Cancel: nothing is left behind.
        """
        while self.is_empty and not self.is_ended:
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
