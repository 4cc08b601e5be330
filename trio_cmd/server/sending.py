"""The one way out: what is ready at the head of the replies is written at once.

``flush`` never waits; only when the client does not take all of it, a writer task is started for
the rest, and lives until the queue has nothing more that is ready.  So no reader is ever held
in a write, and cancelling a reader cuts no answer.
"""

from typing import Protocol

import trio

from trio_cmd.server.replies import ReplyQueue
from trio_cmd.wire.stream import ClientStream

__all__ = ["Client", "Sender"]


class Client(Protocol):
    """Whose replies are written, as the sender sees it."""

    def changed(self) -> None:
        """Be told that something has been written after waiting."""

    def lose(self) -> None:
        """Be told that the client turns out to be gone."""


class Sender:
    """Writes one client's replies.

    Args:
        stream: the client's; not owned.
        replies: what is to be written.
        client: told what comes of it.
    """

    __slots__ = ("_client", "_replies", "_stream", "bytes_out", "is_waiting")

    def __init__(self, stream: ClientStream, replies: ReplyQueue, client: Client) -> None:
        self._stream = stream
        self._replies = replies
        self._client = client
        self.is_waiting = False  # a writer task waits for the client to take what it was sent
        self.bytes_out = 0

    def flush(self, nursery: trio.Nursery) -> None:
        """Write what is ready, as far as the client takes it now; a task in the nursery writes the rest."""
        if self.is_waiting:
            return
        data = self._replies.take()
        if not data:
            return
        try:
            sent = self._stream.send_nowait(data)
        except trio.BrokenResourceError:
            self._client.lose()
            return
        self.bytes_out += sent
        if sent == len(data):
            self._replies.written(sent)
        else:
            self.is_waiting = True
            nursery.start_soon(self._write, data, sent)

    def part(self) -> None:
        """Let go of the client at its end: only a garbage collector finds two that refer to each other."""
        del self._client

    def progress(self) -> tuple[int, int]:
        """Tell how far the client is; while it takes anything, this changes."""
        return self.bytes_out, self._stream.waiting_bytes()[1]

    async def _write(self, data: bytes, sent: int) -> None:
        """Write the rest of the data, then all that is ready by then.

        Cancel: part of an answer has left; nothing more may be written (``is_waiting`` stays true).
        """
        try:
            while data:
                rest = memoryview(data)[sent:]
                while rest:
                    count = await self._stream.send_some(rest)
                    self.bytes_out += count
                    rest = rest[count:]
                self._replies.written(len(data))
                self._client.changed()
                data, sent = self._replies.take(), 0
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._client.lose()
            return
        self.is_waiting = False
        self._client.changed()
