"""A host enters, a connection to it leaves, for as long as a block lasts: the way in for Trio programs."""

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

import trio

from trio_cmd.client.answers import Reply, Skipped
from trio_cmd.client.conversation import Conversation, Terms, open_conversation
from trio_cmd.client.errors import AskError, CommandError
from trio_cmd.client.hosts import Host, parse_host
from trio_cmd.client.messages import format_question, read_reply, unasked
from trio_cmd.client.pipeline import OnProgress, Pipeline
from trio_cmd.tokens import is_token

__all__ = ["Connection", "Following", "connect", "open_following"]

MAX_ANSWER_BYTES = 8 * 1024 * 1024
# They change what a connection is: there is another way to do each of them.
_NOT_ASKED = {
    "format": "answers are values here",
    "follow": "follow() does that, on a connection of its own",
    "exit": "leaving the block does that",
    "quit": "leaving the block does that",
}


def connect(
    host: str | Host,
    *,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
    connect_seconds: float = 10,
    answer_seconds: float = 10,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
    max_total_bytes: float = math.inf,
) -> AbstractAsyncContextManager["Connection"]:
    """Connect to a host for as long as a block lasts.

    Args:
        host: where it is; a text is ``NAME``, ``NAME:PORT``, ``[::1]:PORT`` or ``unix:PATH``.
        tls: seals TCP; without it nothing is sealed.
        token: shown to the host, once it is known for a server of this kind.
        connect_seconds: for the name, the connection, TLS, and the first words.
        answer_seconds: for each answer, from when it is the next to come; progress does not prolong it.
        max_answer_bytes: how long an answer may be.
        max_total_bytes: how long all answers on this connection may be together.

    Returns:
        Gives a ``Connection`` to the block.  What goes wrong with the host is told to who asks; an
        error of the block leaves it as it is.

    Raises:
        ValueError: the text is no host, or the token has not the form of one.
        Unreachable, TlsFailed, OtherProtocol, Refused, NoAnswer, ConnectionLost: on entering the
            block, why there is no connection.
        CommandError: on entering the block, the token is wrong.

    Cancel: the connection is closed.
    """
    if token is not None and not is_token(token.encode("utf-8", "replace")):
        raise ValueError("a token is tcmd_ and 43 letters, digits, - or _")
    where = parse_host(host) if isinstance(host, str) else host
    terms = Terms(where, tls, token, connect_seconds, answer_seconds, max_answer_bytes, max_total_bytes)
    return _Connecting(terms)


class Connection:
    """One host, connected; see ``connect``.

    Args:
        pipeline: of its questions.
        terms: how the host is spoken to.
    """

    def __init__(self, pipeline: Pipeline, terms: Terms) -> None:
        self._pipeline = pipeline
        self._terms = terms

    async def ask(self, line: str | bytes, *, on_progress: OnProgress | None = None) -> Reply:
        """Ask a question and wait for its answer.

        Many tasks may ask at once: the lines leave in the order of the calls.

        Args:
            line: a command and its argument, as in ``docs/protocol.md``.
            on_progress: called as a long hash goes on, in the task that asks; when there is more news
                than it takes, with the latest.

        Raises:
            CommandError: the host's own error; others can be asked.
            Refused, ConnectionLost, NoAnswer, AnswerTooLong, OtherProtocol: there is no answer, and
                there will be none on this connection.
            ValueError: it is no line, or one that changes what a connection is.

        Cancel: the question is asked all the same, and its answer thrown away.
        """
        name, data = format_question(line)
        if name in _NOT_ASKED:
            raise ValueError(f"{name} is not asked: {_NOT_ASKED[name]}")
        return await self._pipeline.ask(name, data, on_progress)

    def follow(self, log: str = "") -> AbstractAsyncContextManager["Following"]:
        """Follow a log as long as a block lasts, on a connection of its own under the same terms.

        Args:
            log: its name in the settings of the host; without one, its first.

        Returns:
            Gives the block what to iterate over, see ``Following``.

        Raises:
            ValueError: that is no name.
            AskError: on entering the block, as ``connect``.

        Cancel: the connection is closed.
        """
        return open_following(self._terms, log)


class Following:
    """The lines of a log as they are written, as the host sends them; in place of lost ones ``Skipped``.

    Iterating raises why it ended; it does not end by itself.

    Args:
        conversation: greeted, and asked to follow.
        number: of that question in its connection.
    """

    def __init__(self, conversation: Conversation, number: int) -> None:
        self._conversation = conversation
        self._number = number
        self.has_ended = False

    def __aiter__(self) -> "Following":
        return self

    async def __anext__(self) -> str | Skipped:
        """Wait for the next line.

        Raises:
            CommandError: there is no such log, or it cannot be followed any more.
            Refused, ConnectionLost, AnswerTooLong, OtherProtocol: the connection has ended.

        Cancel: nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        try:
            return await self._next()
        except AskError:
            self.has_ended = True
            raise

    async def _next(self) -> str | Skipped:
        while True:
            said = await self._conversation.hear()
            if said.id != self._number:
                raise unasked()
            if said.event == "line":
                return said.line
            if said.event == "skipped":
                return Skipped(said.lines)
            outcome = read_reply("follow", said)
            if isinstance(outcome, CommandError):
                raise outcome  # else the host says next why it ends


@asynccontextmanager
async def open_following(terms: Terms, log: str = "") -> AsyncIterator[Following]:
    """Follow a log for as long as a block lasts; see ``Connection.follow``."""
    _, data = format_question(f"follow {log}")
    conversation = await open_conversation(terms)
    try:
        await conversation.say(data)
        following = Following(conversation, terms.questions_before + 1)
        yield following
        if not following.has_ended:
            await conversation.leave()
    finally:
        await conversation.abandon()


class _Connecting(AbstractAsyncContextManager[Connection]):
    """A connection with its two tasks.

    The error of a block is none of the tasks': the nursery never sees it, so it is not wrapped.

    Args:
        terms: how the host is spoken to.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._tasks = trio.open_nursery()
        self._nursery: trio.Nursery
        self._conversation: Conversation
        self._pipeline: Pipeline

    async def __aenter__(self) -> Connection:
        self._conversation = await open_conversation(self._terms)
        count, seconds = self._terms.questions_before, self._terms.answer_seconds
        self._pipeline = Pipeline(self._conversation, count, seconds)
        self._nursery = await self._tasks.__aenter__()
        self._nursery.start_soon(self._pipeline.read)
        self._nursery.start_soon(self._pipeline.write)
        return Connection(self._pipeline, self._terms)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Shielded: else a cancellation from outside would come out of here, in place of the block's error.
        self._nursery.cancel_scope.shield = True
        self._nursery.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        is_idle = self._pipeline.is_idle
        self._pipeline.close()
        if is_idle:
            await self._conversation.close(at_once=error is not None)
        else:
            await self._conversation.abandon()
