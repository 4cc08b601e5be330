"""Questions enter, answers leave in the order asked: many tasks may ask at once on one conversation.

A question only joins what is to be sent, and waits: one task says, one hears.  So a question that
is cancelled takes nothing from the others, and its answer is thrown away when it comes.
"""

import math
from collections import deque
from collections.abc import Callable

import trio

from trio_cmd.client.answers import Progress, Reply
from trio_cmd.client.conversation import Conversation
from trio_cmd.client.errors import AnswerTooLong, AskError, ConnectionLost
from trio_cmd.client.messages import Said, read_reply, unasked

__all__ = ["OnProgress", "Pipeline"]

OnProgress = Callable[[Progress], None]


class _Question:
    """What was asked, and where its answer goes.

    Args:
        number: of the line in its connection.
        name: the first word.
        is_told: whether somebody wants to know how far it is.
    """

    __slots__ = ("_is_told", "changed", "name", "number", "outcome", "progress")

    def __init__(self, number: int, name: str, *, is_told: bool) -> None:
        self.number = number
        self.name = name
        self._is_told = is_told
        self.changed = trio.Event()
        self.progress: Progress | None = None  # the latest that was not taken
        self.outcome: Reply | AskError | None = None

    def tell(self, said: Said) -> None:
        """Say how far it is."""
        if self._is_told and said.event == "progress":
            self.progress = Progress(said.done, said.total)
            self.changed.set()

    def end(self, outcome: Reply | AskError) -> None:
        """Give it its answer, or why there is none."""
        self.outcome = outcome
        self.changed.set()

    def take_progress(self) -> Progress:
        """Take the latest news, and wait for more."""
        assert self.progress is not None
        progress, self.progress = self.progress, None
        if self.outcome is None:
            self.changed = trio.Event()
        return progress


class Pipeline:
    """The questions under way on one conversation.

    Args:
        conversation: greeted; the caller ends it.
        count: how many lines the greeting took.
        answer_seconds: for each answer, from when it is the next to come.
    """

    def __init__(self, conversation: Conversation, count: int, answer_seconds: float) -> None:
        self._conversation = conversation
        self._count = count
        self._answer_seconds = answer_seconds
        self._asked: deque[_Question] = deque()  # and not answered
        self._outgoing = bytearray()
        self._has_outgoing = trio.Event()
        self._clock = trio.CancelScope()  # of the next answer
        self._failure: AskError | None = None  # why nothing can be asked any more

    async def ask(self, name: str, data: bytes, on_progress: OnProgress | None) -> Reply:
        """See ``Connection.ask``.

        Args:
            name: the first word of the question.
            data: what is sent.
            on_progress: told how far it is, or not.
        """
        if self._failure is not None:
            raise _again(self._failure)
        question = self._send(name, data, is_told=on_progress is not None)
        while question.outcome is None:
            await question.changed.wait()
            if on_progress is not None and question.progress is not None:
                on_progress(question.take_progress())
        if isinstance(question.outcome, AskError):
            raise question.outcome
        return question.outcome

    @property
    def is_idle(self) -> bool:
        """Whether all that was asked has been answered, and more can be asked."""
        return not self._asked and self._failure is None

    def close(self) -> None:
        """Tell all who still wait, and all who ask from now on, that nobody reads any more."""
        if self._failure is None:
            self._fail(ConnectionLost("the block of the connection has been left"))

    async def write(self) -> None:
        """Send what is asked.

        Cancel: the conversation can only be ended.
        """
        while True:
            await self._has_outgoing.wait()
            self._has_outgoing = trio.Event()
            data, self._outgoing = self._outgoing, bytearray()
            await self._conversation.say(data)

    async def read(self) -> None:
        """Hand out the answers, until there are no more.

        Cancel: nothing is handed out any more.
        """
        try:
            with self._clock:
                while True:
                    self._take(await self._conversation.hear())
        except AskError as error:
            self._fail(error)
        if self._clock.cancelled_caught:
            self._fail(self._conversation.overdue(self._answer_seconds))
        await self._conversation.abandon()

    def _send(self, name: str, data: bytes, *, is_told: bool) -> _Question:
        self._count += 1
        question = _Question(self._count, name, is_told=is_told)
        self._asked.append(question)
        if len(self._asked) == 1:
            self._restart_clock()
        self._outgoing += data
        self._has_outgoing.set()
        return question

    def _take(self, said: Said) -> None:
        """Hand out what the host says; it is about the oldest question."""
        if not self._asked or self._asked[0].number != said.id:
            raise unasked()
        question = self._asked[0]
        if said.ok is None:
            question.tell(said)
            return
        self._asked.popleft()
        self._restart_clock()
        question.end(read_reply(question.name, said))

    def _restart_clock(self) -> None:
        seconds = self._answer_seconds if self._asked else math.inf
        self._clock.deadline = trio.current_time() + seconds

    def _fail(self, error: AskError) -> None:
        """Tell all who wait, and all who will ask."""
        self._failure = error
        if isinstance(error, AnswerTooLong):
            self._failure = ConnectionLost("given up, because an answer before was too long")
        for question in self._asked:
            question.end(_again(error))
            error = self._failure
        self._asked.clear()


def _again(error: AskError) -> AskError:
    """Make the same error once more: each who is told raises one of their own."""
    return type(error)(error.message)
