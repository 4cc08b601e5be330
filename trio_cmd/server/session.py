"""One client's conversation: lines come in, answers leave in the order asked.

The connection's own task reads, and goes on reading while commands work, so that a lost client
is seen at once.  There are two ways to end: ``_end`` stops the reading, lets what was asked be
answered, and says goodbye; ``lose`` drops everything.

No socket is touched here, and on the path of a quick command no deadline, scope or task: see
``deadlines`` and ``sending``.  What is slow is in ``jobs``.
"""

import contextlib
import time
from collections.abc import Hashable

import trio

from trio_cmd.commands import Command
from trio_cmd.errors import (
    BadEncoding,
    ClientFault,
    CommandFailed,
    LineTooLong,
    NotAllowed,
    UnknownCommand,
)
from trio_cmd.records import EventLogger, events
from trio_cmd.server.access import Access
from trio_cmd.server.at_once import AT_ONCE_PER_TURN, answer_at_once
from trio_cmd.server.deadlines import Clock
from trio_cmd.server.goodbye import format_goodbye, hurry, wait_for_reader
from trio_cmd.server.identity import ClientIdentity, Tables
from trio_cmd.server.jobs import Jobs
from trio_cmd.server.pressure import wait_while
from trio_cmd.server.quick import QuickAnswers
from trio_cmd.server.replies import ReplyQueue
from trio_cmd.server.sending import Sender
from trio_cmd.server.shared import Shared
from trio_cmd.server.trail import Asked, Trail, show_line
from trio_cmd.wire.lines import LineReader
from trio_cmd.wire.messages import (
    Form,
    Reply,
    Request,
    format_notice,
    is_binary,
    is_other_protocol,
    parse_request,
)
from trio_cmd.wire.stream import ClientStream

__all__ = ["Session"]

# Of one client, before the others get their turn.
LINES_PER_TURN = 64
BYTES_PER_TURN = 16384
# A person does not make so many before reading the manual, a program never stops by itself.
MAX_ERRORS = 20


class Session:
    """One client's conversation.

    Args:
        stream: the client's; the caller closes it.
        log: records what happens, bound to this connection.
        shared: what all sessions have in common.
        identity: who the client is, and what it may ask.
    """

    __slots__ = (
        "_change",
        "_errors",
        "_form",
        "_identity",
        "_is_ended",
        "_is_held",
        "_is_parting",
        "_is_reading",
        "_is_stopping",
        "_jobs",
        "_lines",
        "_nursery",
        "_quick",
        "_reading",
        "_replies",
        "_sender",
        "_shared",
        "_stream",
        "_trail",
        "bytes_in",
        "reason",
        "requests",
    )

    def __init__(
        self, stream: ClientStream, log: EventLogger, shared: Shared, identity: ClientIdentity
    ) -> None:
        limits = shared.limits
        self._identity = identity
        self._stream = stream
        self._shared = shared
        self._trail = Trail(log, shared.tally)
        self._lines = LineReader(limits.line_bytes)
        self._replies = ReplyQueue(limits.pending_replies, limits.pending_bytes, shared.budget)
        self._sender = Sender(stream, self._replies, self)
        self._quick = QuickAnswers(log, shared.tally, shared.plain_lines, shared.budget)
        self._jobs: Jobs | None = None  # most clients never need any
        self._form: Form = "text"
        self._nursery: trio.Nursery
        self._reading: trio.CancelScope | None = None  # around the waiting for more
        self._change: trio.Event | None = None  # set when answers are finished or have left
        self._is_reading = True
        self._is_held = False  # the server does not read for now
        self._is_ended = False  # the client's end of input was read
        self._is_parting = False  # what is said last has been said
        self._is_stopping = False  # the server stops, perhaps after the client's end of input
        self._errors = 0  # that the client could have known of
        self.reason: str | None = None
        self.bytes_in = 0
        self.requests = 0

    @property
    def site(self) -> Hashable:
        """Where the client is; see ``Visitor.key``."""
        return self._identity.visitor.key()

    @property
    def bytes_out(self) -> int:
        """How much the client was sent."""
        return self._sender.bytes_out

    async def run(self) -> None:
        """Hold the conversation; afterwards ``reason`` says why it ended.

        Cancel: what was asked and not answered is recorded as such; no task or child is left.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._begin():
                    with trio.CancelScope() as self._reading:  # cancelled, no answer is lost
                        if self._lines.has_lines:
                            await trio.lowlevel.checkpoint()  # the others have their turn
                        await self._take_lines()
                        while self.reason is None:
                            # Awaited here: each function between would take memory of each idle client.
                            await self._stream.wait_for_input()
                            self._receive()
                            await self._take_lines()
                await self._finish()
        except* Exception as errors:
            self._crash(errors)
        finally:
            self.reason = self.reason or "stopping"  # whoever cancels from outside stops the server
            self._part()

    def stop(self) -> None:
        """Let what was asked be answered, then say that the server is stopping."""
        self._is_stopping = True
        self._end("stopping")

    def cancel(self) -> None:
        """Stop now: tell the client as far as it reads, and drop everything."""
        if self._jobs is not None:
            self._jobs.refuse()
        if self._replies.pending:  # else goodbye has been said
            self._replies.add(format_notice("stopping", self._form))
            self._sender.flush(self._nursery)
        self.lose("stopping")

    def renew(self, shared: Shared, access: Access, tables: Tables) -> None:
        """Go on under other settings; what was asked keeps those it was asked under.

        Who would not be let in any more is told so and closed; what may not be asked any more is
        cancelled.
        """
        self._shared = shared
        limits = shared.limits
        self._lines.resize(limits.line_bytes)
        self._replies.resize(limits.pending_replies, limits.pending_bytes)
        if not self._identity.renew(access, tables):
            self._dismiss()
        if self._jobs is not None:
            self._jobs.renew(shared, self._identity.may_go_on)
        self.changed()

    def clocks(self) -> tuple[Clock | None, Clock | None]:
        """See ``deadlines.Watched``."""
        limits = self._shared.limits
        writing = None
        if self._sender.is_waiting:
            writing = Clock(self._sender.progress(), limits.write_seconds, "slow-reader")
        if not self._is_reading or self._is_held:
            return None, writing  # it is not the client that is waited for
        if self._lines.is_unfinished:
            return Clock(("line", self._lines.taken), limits.request_seconds, "slow-line"), writing
        if self._replies.pending:
            return None, writing
        return Clock(self.bytes_in, limits.idle_seconds, "idle"), writing

    def expire(self, reason: str) -> None:
        """See ``deadlines.Watched``."""
        if reason == "slow-reader":
            self.lose(reason)
        else:
            self._end(reason)

    # Reading

    def _begin(self) -> bool:
        """Take a first turn of what has come already: most clients ask at once, and many leave at once.

        Returns:
            Whether the conversation goes on.
        """
        if self.reason is None:
            self._receive()
        if self.reason is None and self._lines.has_lines and not self._shared.sink.is_pressed():
            self._turn()
            self._sender.flush(self._nursery)
        return self.reason is None

    def _receive(self) -> None:
        """Take what has come, if there is anything."""
        try:
            data = self._stream.receive_nowait()
        except trio.BrokenResourceError:
            self.lose()
            return
        if data is not None:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Take what was received; nothing is the end of input."""
        if not data:
            self._is_ended = True
            self._lines.end()
        elif self.bytes_in == 0 and is_binary(data):
            self._end("wrong-protocol")
        self.bytes_in += len(data)
        self._lines.feed(data)

    async def _take_lines(self) -> None:
        """Take what was received, in turns with the others.

        Cancel: no answer is lost, they are the sender's.
        """
        while self.reason is None and self._lines.has_lines:
            if self._replies.is_full() or self._shared.sink.is_pressed():
                await self._hold()
                continue  # the end may have come meanwhile
            self._turn()
            self._sender.flush(self._nursery)
            if self._lines.has_lines:
                await trio.lowlevel.checkpoint()
        if self._is_ended:
            self._end("closed")

    async def _hold(self) -> None:
        """Wait until the client has taken answers and the record has room; TCP slows the client down."""
        self._is_held = True
        try:
            with self._shared.hangups.watched(self._stream.fileno(), self.lose):
                while self._replies.is_full():
                    await self.wait_for_change()
                async with self._shared.pressed:  # else who has waited longest looks most seldom
                    await wait_while(self._shared.sink.is_pressed)
        finally:
            self._is_held = False

    def _turn(self) -> None:
        """Take as many lines as one client may at once."""
        self._quick.at_once = 0
        end = self._lines.taken + LINES_PER_TURN
        size = 0
        while self._lines.taken < end and size < BYTES_PER_TURN:
            self._take_quick(end - self._lines.taken)
            if self._lines.taken == end or self._is_turn_over():
                return
            try:
                line = self._lines.next_line()
            except LineTooLong as error:
                self._answer_unread(error, "")
                self._end("line-too-long")
                return
            if line is None:
                return
            size += len(line)
            self._take(line)
            if self._is_turn_over():
                return

    def _is_turn_over(self) -> bool:
        if self.reason is not None:
            return True
        return self._replies.is_full() or self._quick.at_once >= AT_ONCE_PER_TURN

    def _take_quick(self, max_lines: int) -> None:
        """Answer the next lines as far as that is done at once; so many of them have few bytes."""
        self._quick.has_tried = False
        if self._change is not None:
            return  # the first line ends what is streamed
        max_answers, max_bytes = self._replies.room()
        lines = self._lines.upcoming(min(max_lines, max_answers))
        if not lines:
            return
        surroundings = self._identity.surroundings
        count, answers, closes = self._quick.answer(lines, surroundings, self._form, self.requests, max_bytes)
        if count:
            self.requests += count
            self._lines.skip(count)
            self._replies.add(answers, count - closes)  # what closes has no answer
        if closes:
            self._end("exit")

    def _take(self, line: bytes) -> None:
        """Answer a line, or begin to work for its answer."""
        if self._change is not None:
            self.changed()  # a line ends what is streamed
        if self.requests == 0 and is_other_protocol(line):
            self._end("wrong-protocol")
            return
        try:
            request = parse_request(line)
        except BadEncoding as error:
            self._answer_unread(error, show_line(line))
            return
        if request is None:
            return
        command = self._identity.surroundings.commands.get(request.name)
        if command is None and self._is_summed(request.name):
            self._answer_summed(request)
            return
        asked = self._note(request, show_line(line))
        if command is not None and command.work is not None:
            self._work(command, asked)
        else:
            self._answer(asked, self._ask(command, request))

    # Answering

    def _note(self, request: Request | None, line: str) -> Asked:
        self.requests += 1
        asked = Asked(self.requests, request, line, self._form, time.perf_counter())
        self._trail.received(asked)
        return asked

    def _answer_unread(self, error: CommandFailed, line: str) -> None:
        self._answer(self._note(None, line), Reply(error=error))

    def _ask(self, command: Command | None, request: Request) -> Reply:
        """Get the answer of a quick command, or of none."""
        try:
            if command is not None and command.answer is not None:
                return command.answer(request.argument, self._identity.surroundings)
            if command is not None and command.identify is not None:
                return command.identify(request.argument, self._identity)
            exists = self._identity.exists(request.name)
            return Reply(error=NotAllowed(request.name) if exists else UnknownCommand())
        except CommandFailed as error:
            return Reply(error=error)
        except Exception as error:  # the first net: a fault in a command costs one answer
            return Reply(error=self._trail.fault(error, request))

    def _is_summed(self, name: bytes) -> bool:
        """Count what is no allowed command; whether it is one unknown too many to be recorded by itself."""
        if self._identity.exists(name):
            return False
        return not self._shared.flooding.is_recorded(
            events.COMMAND_RECEIVED, self._identity.visitor.shown_site()
        )

    def _answer_summed(self, request: Request) -> None:
        """Answer an unknown command that only a sum will tell of."""
        self.requests += 1
        asked = Asked(self.requests, request, "", self._form, time.perf_counter())
        reply = Reply(error=UnknownCommand())
        self._give(self._trail.answered_summed(asked, reply), reply)

    def _answer(self, asked: Asked, reply: Reply) -> None:
        self._give(self._trail.answered(asked, reply), reply)

    def _give(self, answer: bytes, reply: Reply) -> None:
        if answer:
            self._replies.add(answer)
        self._form = reply.form or self._form
        if reply.closes:
            self._end("exit")
        elif reply.error is not None:
            self.count(reply.error)

    def count(self, error: CommandFailed) -> None:
        """End the conversation of a client that goes on asking what has no answer."""
        if isinstance(error, ClientFault):
            self._errors += 1
            if self._identity.is_suspect():
                self._end("bad-token")
            elif self._errors >= MAX_ERRORS:
                self._end("too-many-errors")

    def _work(self, command: Command, asked: Asked) -> None:
        """Answer a slow command at once when that takes no waiting; else begin to work for its answer."""
        surroundings, budget = self._identity.surroundings, self._shared.budget
        reply = None
        if not self._quick.has_tried:
            reply = answer_at_once(command, asked, surroundings, budget, self._trail)
        if reply is None:
            self._begin_work(command, asked)
            return
        self._quick.at_once += 1
        self._give(self._trail.answered(asked, reply, shared=False), reply)

    def _begin_work(self, command: Command, asked: Asked) -> None:
        if self._jobs is None:
            self._jobs = Jobs(self, self._shared, self._replies, self._sender, self._trail, self._nursery)
        self._jobs.begin(command, asked, self._identity.surroundings, self._lines.taken)

    # Ending

    def _end(self, reason: str) -> None:
        """Stop reading; what was asked is still answered."""
        if self.reason is None:
            self.reason = reason
            if self._reading is not None:
                self._reading.cancel()
        self.changed()  # what is streamed ends as well

    def lose(self, reason: str = "reset") -> None:
        """Drop everything: nobody reads the answers any more."""
        self.reason = reason
        self._nursery.cancel_scope.cancel()

    def _dismiss(self) -> None:
        """Say goodbye to a client that no grant is left for, and have an end of it soon."""
        scope = self._nursery.cancel_scope
        if self._is_stopping or self._is_parting or scope.cancel_called or self.reason == "wrong-protocol":
            return  # it is on its way out already
        self._end("not-allowed")
        self.reason = "not-allowed"  # also of one whose answers were waited for
        self._nursery.start_soon(hurry, scope)

    async def _finish(self) -> None:
        """Wait until all is answered and written, say goodbye, and let the client read it.

        Cancel: the rest is not said.
        """
        self._is_reading = False
        if self._replies.pending:
            await self._wait_until_written()
        self._say_goodbye()
        if self._replies.pending:
            await self._wait_until_written()
        assert self.reason is not None
        await wait_for_reader(self._stream, self.reason, is_ended=self._is_ended)

    def _say_goodbye(self) -> None:
        assert self.reason is not None
        self._is_parting = True
        address = self._identity.visitor.address
        notice = format_goodbye(self.reason, self._form, self._shared.limits, address)
        if notice:
            self._replies.add(notice)
            self._sender.flush(self._nursery)

    def _crash(self, errors: BaseExceptionGroup[BaseException]) -> None:
        """The second net: a fault of ours costs this connection, not the server."""
        self.reason = "crashed"
        self._trail.fault(errors)
        if not self._sender.is_waiting:  # else the client has part of an answer
            with contextlib.suppress(trio.BrokenResourceError):  # the client may be gone as well
                self._stream.send_nowait(format_notice("crashed", self._form))

    def _part(self) -> None:
        """Let go of everything: without slow commands nothing is left for Python's garbage collector."""
        if self._jobs is not None:
            self._jobs.leave()
            self._jobs = None
        self._replies.clear()
        self._sender.part()

    # Waiting

    def changed(self) -> None:
        """Say that an answer is finished or that answers have left."""
        if self._jobs is not None:
            self._jobs.look_again()
        if self._change is not None:
            self._change.set()
            self._change = None

    async def _wait_until_written(self) -> None:
        with self._shared.hangups.watched(self._stream.fileno(), self.lose):
            while self._replies.pending:
                await self.wait_for_change()

    def is_over(self, asked_after: int) -> bool:
        """Whether what is streamed should end: by another line than so many, or with the conversation."""
        is_left = self.reason not in (None, "closed") or self._is_stopping
        return is_left or self._lines.taken > asked_after

    async def wait_for_change(self) -> None:
        """Wait until answers are finished or have left, a line was read, or the end has come.

        Cancel: nothing is left behind.
        """
        if self._change is None:
            self._change = trio.Event()
        await self._change.wait()
