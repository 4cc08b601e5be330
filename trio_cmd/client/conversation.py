"""A stream becomes a conversation in JSON: what is said goes out as lines, what is heard comes as values.

Opening one tells whether the other end is a server of this kind at all.  The token is shown only
to one that is: it is said after the answer to ``format json``.
"""

import contextlib
import math
import ssl
from dataclasses import dataclass, field

import trio

from trio_cmd.client.errors import AnswerTooLong, AskError, CommandError, ConnectionLost, NoAnswer, TlsFailed
from trio_cmd.client.hosts import Host
from trio_cmd.client.messages import (
    Said,
    format_question,
    other_protocol,
    read_line,
    read_other,
    read_reply,
    unasked,
)
from trio_cmd.client.transport import explain_tls, open_stream, reset_when_closed
from trio_cmd.errors import LineTooLong
from trio_cmd.wire.lines import LineReader

__all__ = ["Conversation", "Terms", "open_conversation"]

# Before other tasks get their turn: the smallest events in it are read in a millisecond.
RECEIVE_BYTES = 16384
# Of the first answer: enough for any, and for a look at who else it may be.
GREETING_BYTES = 4096
# A host that does not close its end of TLS meanwhile is not waited for.
CLOSING_SECONDS = 1.0
_EXIT = b"exit\r\n"
ALERT = 0x15  # how TLS begins its answer to whoever does not speak it (RFC 8446, 5.1)
RESET = "the host has reset the connection"
CLOSED = "the host has closed the connection"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a host is spoken to.

    Attributes:
        host: where it is.
        tls: how TCP is sealed, if at all.
        token: shown at the beginning, if any.
        connect_seconds: for all that comes before the first question.
        answer_seconds: for each answer.
        max_answer_bytes: how long a line of an answer may be.
        max_total_bytes: how long all answers of the host together may be.
    """

    host: Host
    tls: ssl.SSLContext | None
    token: str | None = field(repr=False)
    connect_seconds: float
    answer_seconds: float
    max_answer_bytes: int
    max_total_bytes: float = math.inf

    @property
    def questions_before(self) -> int:
        """How many lines the greeting takes."""
        return 1 if self.token is None else 2


class Conversation:
    """What is said to one host, and heard of it; one task at a time may say, and one may hear.

    Args:
        stream: owned, closed with this.
        max_answer_bytes: how long a line may be, once the greeting is over.
        max_total_bytes: how long all answers together may be.
        is_plain: it may be TLS that the host waits for.
    """

    __slots__ = (
        "_first",
        "_is_greeting",
        "_is_plain",
        "_left_bytes",
        "_lines",
        "_max_answer_bytes",
        "_stream",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        max_answer_bytes: int,
        max_total_bytes: float = math.inf,
        *,
        is_plain: bool,
    ) -> None:
        self._left_bytes = max_total_bytes
        self._is_plain = is_plain
        self._stream = stream
        self._max_answer_bytes = max_answer_bytes
        self._lines = LineReader(GREETING_BYTES, takes_telnet=False)  # a server sends none
        self._first = b""  # what was heard first, to tell who it is
        self._is_greeting = True

    async def greet(self, token: str | None) -> None:
        """Agree on JSON, then show the token.

        Raises:
            AskError: it is no server of this kind, it refuses, or the token is wrong.

        Cancel: the conversation can only be ended.
        """
        await self._exchange("format json", 1)
        if token is not None:
            await self._exchange(f"auth {token}", 2)
        self._lines.resize(self._max_answer_bytes)
        self._is_greeting = False

    async def say(self, data: bytes | bytearray) -> None:
        """Send; that the host is gone is told to who hears.

        Cancel: part of it has left, nothing more may be said.
        """
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(data)

    async def hear(self) -> Said:
        """Wait for the next thing the host says.

        Raises:
            AskError: it says goodbye, nothing of this kind, or too much, or is gone.

        Cancel: nothing is lost.
        """
        while (line := self._next_line()) is None:
            data = await self._receive()
            if not data:
                raise self._lost()
            self._first = self._first or data[:GREETING_BYTES]
            if self._first[0] == ALERT:
                raise TlsFailed("it speaks TLS: ask with --tls")
            self._lines.feed(data)
        said = read_line(line)
        if said.ok is not None:
            self._left_bytes -= len(line)
            if self._left_bytes < 0:
                raise AnswerTooLong("its answers together are longer than is kept of one host: ask it less")
        return said

    def overdue(self, seconds: float) -> AskError:
        """Say why there is no answer, when its time has passed.

        Args:
            seconds: that were waited.
        """
        if self._is_greeting and self._first[:1] not in (b"", b"{"):
            return other_protocol(self._first)
        return NoAnswer(f"no answer in {seconds:g} s; what takes long needs a longer --timeout")

    async def close(self, *, at_once: bool = False) -> None:
        """End it when all that was asked is answered.

        Args:
            at_once: not even a cancelled task is kept from going on.

        Cancel: it is closed all the same.
        """
        seconds = 0.0 if at_once else CLOSING_SECONDS
        with trio.CancelScope(deadline=trio.current_time() + seconds, shield=at_once):
            await self._stream.aclose()

    async def leave(self) -> None:
        """Ask the host to end it in the middle of an answer, as far as it does so in time.

        Cancel: it can only be ended.
        """
        with trio.move_on_after(CLOSING_SECONDS), contextlib.suppress(AskError):
            await self.say(_EXIT)
            while True:
                await self.hear()

    async def abandon(self) -> None:
        """End it by a reset, at which the host stops working for it."""
        reset_when_closed(self._stream)
        await self.close(at_once=True)

    async def _exchange(self, line: str, number: int) -> None:
        name, data = format_question(line)
        await self.say(data)
        said = await self.hear()
        if said.ok is None or said.id != number:
            raise unasked()
        reply = read_reply(name, said)
        if isinstance(reply, CommandError):
            raise reply

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except trio.BrokenResourceError as error:
            raise explain_tls(error) or self._gone(RESET) from error

    def _next_line(self) -> bytes | None:
        try:
            return self._lines.next_line()
        except LineTooLong:
            if self._is_greeting:
                raise other_protocol(self._first) from None
            raise AnswerTooLong(f"the answer is longer than {self._max_answer_bytes} bytes") from None

    def _lost(self) -> AskError:
        """Say what an end of input means."""
        self._lines.end()
        rest = self._next_line()
        if rest and not rest.startswith(b"{"):  # that would be an answer cut short
            return read_other(rest)
        return self._gone(CLOSED)

    def _gone(self, how: str) -> ConnectionLost:
        if self._first:
            return ConnectionLost(how)
        hint = "; if it speaks TLS, ask with --tls" if self._is_plain else ""
        return ConnectionLost(f"{how} without a word{hint}")


async def open_conversation(terms: Terms) -> Conversation:
    """Connect and greet.

    Raises:
        AskError: why there is no conversation.

    Cancel: nothing is left.
    """
    deadline = trio.current_time() + terms.connect_seconds
    stream = await open_stream(terms.host, terms.tls, deadline)
    is_plain = terms.tls is None and terms.host.port is not None
    conversation = Conversation(stream, terms.max_answer_bytes, terms.max_total_bytes, is_plain=is_plain)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(conversation.abandon)
        with trio.move_on_at(deadline) as scope:
            await conversation.greet(terms.token)
        if scope.cancelled_caught:
            raise conversation.overdue(terms.connect_seconds)
        stack.pop_all()
    return conversation
