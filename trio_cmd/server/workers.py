"""The slow commands of one client: they run side by side, their answers keep their places.

At most so many tasks work for one client, each takes the next job itself: five hundred commands
in one packet are four tasks.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import trio

from trio_cmd.commands import Surroundings, Work
from trio_cmd.server.replies import ReplyQueue, Slot
from trio_cmd.server.trail import Asked

__all__ = ["Job", "Unfinished", "Workers"]


class Unfinished(Protocol):
    """A slow command whose answer is not there yet: a ``Job``, or one that shares a run."""

    @property
    def asked(self) -> Asked:
        """What was asked."""

    @property
    def slot(self) -> Slot:
        """Where the answer goes."""

    @property
    def name(self) -> bytes:
        """The name of the command."""

    def dismiss(self) -> None:
        """Have it answered that it may not be asked any more."""

    def leave(self) -> None:
        """Say that nobody waits for the answer any more."""


class Job(NamedTuple):
    """A slow command: what was asked, what does it, where its answer goes, and with what it is done.

    Attributes:
        surroundings: those in which it was asked; later settings do not touch it.
        scope: around the work; cancelled when its client may not ask it any more.
    """

    asked: Asked
    work: Work
    slot: Slot
    surroundings: Surroundings
    scope: trio.CancelScope

    @property
    def name(self) -> bytes:
        """The name of the command."""
        assert self.asked.request is not None, "what cannot be read is not worked for"
        return self.asked.request.name

    def dismiss(self) -> None:
        """See ``Unfinished``."""
        self.scope.cancel()

    def leave(self) -> None:
        """See ``Unfinished``: whoever leaves cancels the tasks."""


class Workers:
    """Runs one client's jobs.

    Args:
        max_tasks: how many run side by side; may be changed, and what runs goes on.
        replies: where the answers go; while too much waits there, no further job is begun.
        do: does a job to its end.
    """

    __slots__ = ("_do", "_jobs", "_replies", "_room", "_tasks", "max_tasks", "unfinished")

    def __init__(self, max_tasks: int, replies: ReplyQueue, do: Callable[[Job], Awaitable[None]]) -> None:
        self.max_tasks = max_tasks
        self._replies = replies
        self._do = do
        self._tasks = 0
        self._jobs: deque[Job] = deque()
        self._room: trio.Event | None = None
        self.unfinished: dict[Asked, Unfinished] = {}  # in the order asked

    def start(self, job: Job, nursery: trio.Nursery) -> None:
        """Have a job done."""
        self.unfinished[job.asked] = job
        self._jobs.append(job)
        if self._tasks < self.max_tasks:
            self._tasks += 1
            nursery.start_soon(self._work)

    def has_turn(self) -> bool:
        """Whether another command may begin at once, without a task."""
        return self._tasks < self.max_tasks and not self._jobs and self._replies.has_room_for_work()

    def begin(self, command: Unfinished) -> None:
        """Say that a command has begun that is no job; ``end`` must follow."""
        self.unfinished[command.asked] = command
        self._tasks += 1

    def end(self, command: Unfinished, nursery: trio.Nursery) -> bool:
        """Give its turn to a job that waits; returns whether it was still unfinished."""
        if self.unfinished.pop(command.asked, None) is None:
            return False
        self._tasks -= 1
        if self._jobs and self._tasks < self.max_tasks:
            self._tasks += 1
            nursery.start_soon(self._work)
        return True

    def look_again(self) -> None:
        """Say that answers have left, so that there may be room for more work."""
        if self._room is not None and self._replies.has_room_for_work():
            self._room.set()
            self._room = None

    async def _work(self) -> None:
        """Do jobs as long as there are any.

        Cancel: what was not done stays in ``unfinished``.
        """
        while self._jobs and self._tasks <= self.max_tasks:
            if not self._replies.has_room_for_work():
                await self._wait_for_room()
                continue
            await self._do(self._jobs.popleft())
        self._tasks -= 1

    async def _wait_for_room(self) -> None:
        # Jobs begin in the order asked: all before the waiting ones is in work or done, so it will leave.
        if self._room is None:
            self._room = trio.Event()
        await self._room.wait()
