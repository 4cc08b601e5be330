"""The slow commands of one client: lines that were asked enter, their answers get to their places.

Most clients never ask any.  How many are worked for side by side is the business of ``workers``,
and how an answer is streamed that of ``following``.
"""

from collections.abc import Callable, Hashable
from typing import Protocol

import trio

from trio_cmd.commands import Surroundings, Work
from trio_cmd.errors import CommandFailed, NotAllowed, Stopping
from trio_cmd.server.following import StreamedAnswer
from trio_cmd.server.replies import ReplyQueue
from trio_cmd.server.sending import Sender
from trio_cmd.server.shared import Shared
from trio_cmd.server.trail import Asked, Trail
from trio_cmd.server.workers import Job, Workers
from trio_cmd.wire.messages import Reply, format_event

__all__ = ["Jobs"]


class _Session(Protocol):
    """What is needed of the session."""

    @property
    def site(self) -> Hashable: ...

    def is_over(self, asked_after: int) -> bool: ...

    async def wait_for_change(self) -> None: ...

    def changed(self) -> None: ...

    def count(self, error: CommandFailed) -> None: ...


class Waiting(StreamedAnswer):
    """See ``commands.Asker``: one job of one client.

    Args:
        client: all jobs of the client.
        job: what it waits for.
    """

    __slots__ = ("is_shared",)

    client: "Jobs"

    def __init__(self, client: "Jobs", job: Job) -> None:
        super().__init__(client, job)
        self.is_shared: bool | None = None

    def progress(self, done: int, total: int) -> None:
        """Say how far the work is."""
        self.client.show_progress(self._job, done, total)


class Jobs:
    """The slow commands of one client that are not answered yet.

    Args:
        session: the client's.
        shared: what all sessions have in common.
        replies: where the answers go.
        sender: what lets them leave.
        trail: records what came of each.
        nursery: of the connection; what works runs there.
    """

    __slots__ = ("_nursery", "_replies", "_sender", "_session", "_shared", "_trail", "_workers")

    def __init__(
        self,
        session: _Session,
        shared: Shared,
        replies: ReplyQueue,
        sender: Sender,
        trail: Trail,
        nursery: trio.Nursery,
    ) -> None:
        self._session = session
        self._shared = shared
        self._replies = replies
        self._sender = sender
        self._trail = trail
        self._nursery = nursery
        self._workers = Workers(shared.limits.running_per_client, replies, self._do)

    def begin(self, work: Work, asked: Asked, surroundings: Surroundings, asked_after: int) -> None:
        """Take the next place for an answer, and have it worked for.

        Args:
            work: of the command.
            asked: the line.
            surroundings: in which it is worked for, whatever comes meanwhile.
            asked_after: so many lines of the client, its own included.
        """
        slot = self._replies.reserve()
        slot.asked_after = asked_after
        self._workers.start(Job(asked, work, slot, surroundings, trio.CancelScope()), self._nursery)

    def renew(self, shared: Shared, may_go_on: Callable[[bytes], bool]) -> None:
        """Go on under other settings, without what may not be asked any more."""
        self._shared = shared
        self._workers.max_tasks = shared.limits.running_per_client
        for job in self._workers.unfinished.values():
            if not may_go_on(job.name):
                job.scope.cancel()

    def look_again(self) -> None:
        """Say that answers have left, so that there may be room for more work."""
        self._workers.look_again()

    def refuse(self) -> None:
        """Answer all with ``stopping``; what still works is cancelled by the caller."""
        for asked, job in self._workers.unfinished.items():
            self._replies.finish(job.slot, self._trail.answered(asked, Reply(error=Stopping())))
        self._workers.unfinished.clear()

    def leave(self) -> None:
        """Record that the client left before these answers were ready."""
        for asked in self._workers.unfinished:
            self._trail.unanswered(asked)

    # Working

    async def _do(self, job: Job) -> None:
        """Work for an answer and put it in its place.

        Cancel: the job stays unfinished.
        """
        reply, waiting = Reply(), Waiting(self, job)
        try:
            with job.scope:
                reply = await self._work(job, waiting)
        except* Exception as errors:  # the first net again
            reply = Reply(error=self._trail.fault(errors, job.asked.request))
        if job.scope.cancel_called:
            reply = Reply(block=waiting.block, is_begun=bool(waiting.block), error=NotAllowed(job.name))
        if self._workers.unfinished.pop(job.asked, None) is None:
            return  # it was answered as the server stopped
        answer = self._trail.answered(job.asked, reply, job.slot.streamed_bytes, shared=waiting.is_shared)
        self._replies.finish(job.slot, answer)
        self._sender.flush(self._nursery)
        self._session.changed()
        if reply.error is not None and not job.scope.cancel_called:
            self._session.count(reply.error)

    async def _work(self, job: Job, waiting: Waiting) -> Reply:
        assert job.asked.request is not None
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._shared.budget.check()  # when its turn has come: it may have waited long
            return await job.work(job.asked.request.argument, job.surroundings, waiting)
        except CommandFailed as error:
            # What fails at once costs next to nothing to ask for, and hundreds of tasks that do
            # so side by side would make one pass of the event loop last as long as all of them.
            async with self._shared.failing:
                await trio.lowlevel.checkpoint()
            return Reply(error=error)

    def show_progress(self, job: Job, done: int, total: int) -> None:
        """Say how far a job is, to a client that reads JSON and waits for nothing before it."""
        if job.asked.form == "json" and self.is_next(job):
            values = {"done": done, "total": total}
            self.stream(job, format_event(job.asked.number, job.name, "progress", values))

    # Streaming: see ``following``

    @property
    def site(self) -> Hashable:
        """Where the client is; see ``Visitor.key``."""
        return self._session.site

    def is_next(self, job: Job) -> bool:
        """Whether a job's answer is the next to leave."""
        return self._replies.is_next(job.slot)

    def has_room(self) -> bool:
        """Whether the client has taken all it was sent."""
        return not self._sender.is_waiting

    def is_over(self, job: Job) -> bool:
        """Whether what is streamed should end: by a line behind the job's, or with the conversation."""
        return self._session.is_over(job.slot.asked_after)

    def stream(self, job: Job, data: bytes) -> None:
        """Send what comes before a job's answer, which is the next to leave."""
        self._replies.stream(job.slot, data)
        self._sender.flush(self._nursery)

    async def wait_for_change(self) -> None:
        """Wait until answers are finished or have left, a line was read, or the end has come.

        Cancel: nothing is left behind.
        """
        await self._session.wait_for_change()
