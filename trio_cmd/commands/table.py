"""The rows of the table of commands: dispatch, help and the manual all come from them.

To add a command: write its function and its row, add the row to ``COMMANDS`` in
``commands/__init__.py``, describe it in ``docs/protocol.md``.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trio_cmd.settings import Settings
from trio_cmd.wire.messages import Reply
from trio_cmd.work.followers import Followers
from trio_cmd.work.hashing import Hashing
from trio_cmd.work.logs import LogReader
from trio_cmd.work.runs import Question
from trio_cmd.work.sharing import Shares

__all__ = [
    "Answer",
    "Asker",
    "AtOnce",
    "Command",
    "Identify",
    "Identity",
    "Share",
    "Surroundings",
    "Work",
    "work_shared",
]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What commands need of the rest.

    Attributes:
        settings: all settings.
        hashing: hashes files.
        logs: reads logs.
        statistics: counts for ``status``: name -> value.
        commands: name -> row, of all that may be asked here.
        followers: follows logs.
        sharing: lets those who ask the same under the same settings share one run.
    """

    settings: Settings
    hashing: Hashing
    logs: LogReader
    statistics: Callable[[], Mapping[str, Any]]
    commands: Mapping[bytes, "Command"]
    followers: Followers
    sharing: Shares


class Asker(Protocol):
    """Who waits for the answer of a slow command, as the command sees it.

    Attributes:
        is_shared: whether a run answered others as well; ``None`` when no run answered it.
    """

    is_shared: bool | None

    @property
    def client(self) -> Hashable:
        """Whose turn the work takes; the same for all commands of one client."""

    @property
    def site(self) -> Hashable:
        """Where the client is: what all have in common that one host, or one user of this host, can be."""

    def progress(self, done: int, total: int) -> None:
        """Say how far the work is, in bytes; only said as JSON, and when the answer is the next to leave."""

    async def wait_for_turn(self) -> None:
        """Wait until the answer is the next to leave; from then on it may be streamed."""

    async def wait_for_room(self) -> None:
        """Wait until all that was streamed has left."""

    async def wait_for_end(self) -> None:
        """Wait until the client has sent another line, or the conversation ends."""

    def begin(self, block: str) -> None:
        """Stream the beginning of a block."""

    def show(self, lines: Sequence[str], skipped: int) -> None:
        """Stream lines, and how many are missing before them."""


class Identity(Protocol):
    """Who a client is, as ``auth`` sees it."""

    def check_attempts(self) -> None:
        """See that a token may be shown: asked first, so that whoever must wait is told nothing else.

        Raises:
            TooManyWrongTokens: there were too many wrong ones from where the client is.
        """

    def present(self, token: bytes) -> str:
        """Show a token of the right form; returns the name of the grant it opens.

        Raises:
            BadToken: it opens none.
        """


Answer = Callable[[bytes, Surroundings], Reply]
AtOnce = Callable[[bytes, Surroundings], Reply | None]
Identify = Callable[[bytes, Identity], Reply]
Share = Callable[[bytes, Surroundings, Hashable], Question]
Work = Callable[[bytes, Surroundings, Asker], Awaitable[Reply]]


def work_shared(share: Share) -> Work:
    """Make the work of a command whose answer is that of a shared run; see ``Command.share``."""

    async def work(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        question = share(argument, surroundings, asker.client)
        return await surroundings.sharing.run(question.key, asker, question.work)

    return work


@dataclass(frozen=True, slots=True)
class Command:
    """A row: a command that is answered at once, or one that works for its answer.

    Attributes:
        name: the first word of its line.
        usage: its form, for help; optional parts in brackets.
        summary: what it does, in one line.
        answer: for a quick command; called in the session itself, so it must never wait.
        work: for a slow command; gets also who asks.
        at_once: for a slow command that may be answered without waiting after all; called in the
            session before ``work``.  ``None``, and any error, means that ``work`` must do it.
        share: for a slow command whose answer is that of a shared run; gets also whose turn the work
            takes, and says what is asked.  Called in the session instead of ``work``, so it must never
            wait.  Any error means that ``work`` must do it.
        identify: for a quick command that changes what its client may ask.
        counts: whether its answer tells what was recorded so far, its own line included.
        details: what the command's own help says besides: lines.
    """

    name: str
    usage: str
    summary: str
    answer: Answer | None = None
    work: Work | None = None
    identify: Identify | None = None
    counts: bool = False
    at_once: AtOnce | None = None
    share: Share | None = None
    details: Callable[[Surroundings], Sequence[str]] | None = None
