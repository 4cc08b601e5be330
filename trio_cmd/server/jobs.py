"""The slow commands of one client: lines that were asked enter, their answers get to their places.

Most clients never ask any.  How many are worked for side by side is the business of ``workers``,
and how an answer is streamed that of ``following``.
"""

from collections.abc import Callable, Hashable
from typing import Protocol

import trio

from trio_cmd.commands import Command, Share, Surroundings
from trio_cmd.errors import CommandFailed, NotAllowed, Stopping
from trio_cmd.server.following import StreamedAnswer
from trio_cmd.server.replies import ReplyQueue, Slot
from trio_cmd.server.sending import Sender
from trio_cmd.server.shared import Shared
from trio_cmd.server.sharers import SharingCommand
from trio_cmd.server.trail import Asked, Trail
from trio_cmd.server.workers import Job, Unfinished, Workers
from trio_cmd.wire.messages import Reply, format_event
from trio_cmd.work.runs import Run

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

    def begin(self, command: Command, asked: Asked, surroundings: Surroundings, asked_after: int) -> None:
        """Take the next place for an answer, and have it worked for.

        Args:
            command: its row.
            asked: the line.
            surroundings: in which it is worked for, whatever comes meanwhile.
            asked_after: so many lines of the client, its own included.
        """
        slot = self._replies.reserve()
        slot.asked_after = asked_after
        if command.share is None or not self._share(command.share, asked, slot, surroundings):
            assert command.work is not None
            self._workers.start(
                Job(asked, command.work, slot, surroundings, trio.CancelScope()), self._nursery
            )

    def _share(self, share: Share, asked: Asked, slot: Slot, surroundings: Surroundings) -> bool:
        """Have a command wait for a shared run without a task, if it can begin at once; else do nothing.

        What goes wrong is left to the ordinary way.
        """
        assert asked.request is not None
        if not self._workers.has_turn():
            return False
        try:
            self._shared.budget.check()
            question = share(asked.request.argument, surroundings, self)
        except Exception:
            return False
        self._workers.begin(SharingCommand(self, asked, slot, surroundings, question))
        return True

    def renew(self, shared: Shared, may_go_on: Callable[[bytes], bool]) -> None:
        """Go on under other settings, without what may not be asked any more."""
        self._shared = shared
        self._workers.max_tasks = shared.limits.running_per_client
        for command in list(self._workers.unfinished.values()):
            if not may_go_on(command.name):
                command.dismiss()

    def look_again(self) -> None:
        """Say that answers have left, so that there may be room for more work."""
        self._workers.look_again()

    def refuse(self) -> None:
        """Answer all with ``stopping``; what still works is cancelled by the caller."""
        for asked, command in self._workers.unfinished.items():
            command.leave()
            self._replies.finish(command.slot, self._trail.answered(asked, Reply(error=Stopping())))
        self._workers.unfinished.clear()

    def leave(self) -> None:
        """Record that the client left before these answers were ready."""
        for asked, command in self._workers.unfinished.items():
            command.leave()
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
        self._give(job, reply, shared=waiting.is_shared)
        if reply.error is not None and not job.scope.cancel_called:
            self._session.count(reply.error)

    def _give(self, command: Unfinished, reply: Reply, *, shared: bool | None) -> None:
        """Put an answer in its place, from where it leaves in its turn."""
        slot = command.slot
        answer = self._trail.answered(command.asked, reply, slot.streamed_bytes, shared=shared)
        self._replies.finish(slot, answer)
        self._sender.flush(self._nursery)
        self._session.changed()

    async def _work(self, job: Job, waiting: Waiting) -> Reply:
        assert job.asked.request is not None
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._shared.budget.check()  # when its turn has come: it may have waited long
            return await job.work(job.asked.request.argument, job.surroundings, waiting)
        except CommandFailed as error:
            await self._take_turn_to_fail()
            return Reply(error=error)

    # Sharing: see ``sharers``

    def end(self, command: SharingCommand, run: Run) -> None:
        """Answer a command at the end of its run; who is being cancelled gets no answer."""
        if self._nursery.cancel_scope.cancel_called:
            return
        try:
            if run.error is None:
                self.answer(command, run.value)
            else:
                self._nursery.start_soon(self._fail, command, run.error.with_traceback(run.traceback))
        except Exception as error:  # it shall cost this connection, not the run, which may have others
            self._nursery.start_soon(_raise, error)

    def answer(self, command: SharingCommand, reply: Reply) -> None:
        """Put the answer of a command in its place, if it has none."""
        if self._workers.end(command, self._nursery):
            self._give(command, reply, shared=command.is_shared)
            if reply.error is not None and not isinstance(reply.error, NotAllowed):
                self._session.count(reply.error)

    async def _fail(self, command: SharingCommand, error: Exception) -> None:
        await self._take_turn_to_fail()
        if not isinstance(error, CommandFailed):
            error = self._trail.fault(error, command.asked.request)
        self.answer(command, Reply(error=error))

    async def _take_turn_to_fail(self) -> None:
        # What fails at once costs next to nothing to ask for, and hundreds of tasks that do so side
        # by side would make one pass of the event loop last as long as all of them.
        async with self._shared.failing:
            await trio.lowlevel.checkpoint()

    def show_progress(self, job: Unfinished, done: int, total: int) -> None:
        """Say how far a job is, to a client that reads JSON and waits for nothing before it."""
        if job.asked.form == "json" and self.is_next(job):
            values = {"done": done, "total": total}
            self.stream(job, format_event(job.asked.number, job.name, "progress", values))

    # Streaming: see ``following``

    @property
    def site(self) -> Hashable:
        """Where the client is; see ``Visitor.key``."""
        return self._session.site

    def is_next(self, job: Unfinished) -> bool:
        """Whether a job's answer is the next to leave."""
        return self._replies.is_next(job.slot)

    def has_room(self) -> bool:
        """Whether the client has taken all it was sent."""
        return not self._sender.is_waiting

    def is_over(self, job: Job) -> bool:
        """Whether what is streamed should end: by a line behind the job's, or with the conversation."""
        return self._session.is_over(job.slot.asked_after)

    def stream(self, job: Unfinished, data: bytes) -> None:
        """Send what comes before a job's answer, which is the next to leave."""
        self._replies.stream(job.slot, data)
        self._sender.flush(self._nursery)

    async def wait_for_change(self) -> None:
        """Wait until answers are finished or have left, a line was read, or the end has come.

        Cancel: nothing is left behind.
        """
        await self._session.wait_for_change()


async def _raise(error: Exception) -> None:
    raise error
