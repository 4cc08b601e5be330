"""An answer that is streamed, as its command sees it; between ``commands.Asker`` and its job."""

from collections.abc import Hashable, Sequence
from typing import Protocol

from trio_cmd.server.workers import Job
from trio_cmd.wire.messages import format_begin, format_streamed

__all__ = ["StreamedAnswer"]


class _Jobs(Protocol):
    """What is needed of the jobs of a client."""

    @property
    def site(self) -> Hashable: ...

    def is_next(self, job: Job) -> bool: ...

    def has_room(self) -> bool: ...

    def is_over(self, job: Job) -> bool: ...

    async def wait_for_change(self) -> None: ...

    def stream(self, job: Job, data: bytes) -> None: ...


class StreamedAnswer:
    """The part of an asker that streams: see ``commands.Asker``.

    Args:
        client: all jobs of the client.
        job: what is waited for.
    """

    __slots__ = ("_job", "block", "client")

    def __init__(self, client: _Jobs, job: Job) -> None:
        self.client = client
        self._job = job
        self.block = ""  # that was begun

    @property
    def site(self) -> Hashable:
        """Where the client is; see ``Visitor.key``."""
        return self.client.site

    async def wait_for_turn(self) -> None:
        """Wait until the answer is the next to leave."""
        while not self.client.is_next(self._job):
            await self.client.wait_for_change()

    async def wait_for_room(self) -> None:
        """Wait until all that was streamed has left."""
        while not self.client.has_room():
            await self.client.wait_for_change()

    async def wait_for_end(self) -> None:
        """Wait until the client has sent another line, or the conversation ends."""
        while not self.client.is_over(self._job):
            await self.client.wait_for_change()

    def begin(self, block: str) -> None:
        """Stream the beginning of a block."""
        self.block = block
        self.client.stream(self._job, format_begin(block, self._job.asked.form))

    def show(self, lines: Sequence[str], skipped: int) -> None:
        """Stream lines, and how many are missing before them."""
        asked, name = self._job.asked, self._job.name
        self.client.stream(self._job, format_streamed(asked.number, name, asked.form, lines, skipped))
