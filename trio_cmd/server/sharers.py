"""A slow command that waits for a shared run and for nothing else: its answer leaves at the run's end.

Most of what such a command costs beside its run would be a task and a scope that do nothing but
wait.  Here nobody waits: the end of the run calls who asked.
"""

from typing import Protocol

from trio_cmd.commands import Surroundings
from trio_cmd.errors import NotAllowed
from trio_cmd.server.replies import Slot
from trio_cmd.server.trail import Asked
from trio_cmd.server.workers import Unfinished
from trio_cmd.wire.messages import Reply
from trio_cmd.work.runs import Question, Run

__all__ = ["SharingCommand"]


class _Jobs(Protocol):
    """What is needed of the slow commands of a client."""

    def show_progress(self, command: Unfinished, done: int, total: int) -> None: ...

    def answer(self, command: "SharingCommand", reply: Reply) -> None: ...

    def end(self, command: "SharingCommand", run: Run) -> None: ...


class SharingCommand:
    """See ``work.sharing.Sharer``, and ``workers.Unfinished``.

    Args:
        client: all slow commands of the client.
        asked: the line.
        slot: where the answer goes.
        surroundings: in which it was asked.
        question: of the run.
    """

    __slots__ = ("_client", "_run", "_sharing", "asked", "is_shared", "slot")

    def __init__(
        self, client: _Jobs, asked: Asked, slot: Slot, surroundings: Surroundings, question: Question
    ) -> None:
        self._client = client
        self._sharing = surroundings.sharing
        self.asked = asked
        self.slot = slot
        self.is_shared: bool | None = None
        self._run: Run | None = self._sharing.join(question, self, self._end)

    @property
    def name(self) -> bytes:
        """The name of the command."""
        assert self.asked.request is not None
        return self.asked.request.name

    def progress(self, done: int, total: int) -> None:
        """Say how far the work is."""
        self._client.show_progress(self, done, total)

    def dismiss(self) -> None:
        """Answer that it may not be asked any more."""
        self.leave()
        self._client.answer(self, Reply(error=NotAllowed(self.name)))

    def leave(self) -> None:
        """Say that nobody waits for the answer any more."""
        run, self._run = self._run, None
        if run is not None:
            self._sharing.leave(run, self)

    def _end(self, run: Run) -> None:
        self._run = None
        self.is_shared = run.served > 1
        self._client.end(self, run)
