"""One run that many may have asked for: what is asked enters, what came of it leaves; see ``sharing``."""

from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import trio

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Begun", "Question", "Run", "Sharer", "Told"]

Begun = Callable[[], object]
"""Called when work has its place, before it looks at anything."""


class Sharer(Protocol):
    """Who waits for a run.

    Attributes:
        is_shared: set before the answer is given: whether the run answered others as well.
    """

    is_shared: bool | None

    def progress(self, done: int, total: int) -> None:
        """Say how far the work is."""


class Question(NamedTuple):
    """What is asked.

    Attributes:
        key: all that decides the answer.
        work: finds it; must call ``Run.begin`` before it looks at anything.
    """

    key: Hashable
    work: "Callable[[Run], Awaitable[Any]]"


Told = Callable[["Run"], object]
"""Called at the end of a run, in the task that did the work: must neither wait nor raise."""


class Run:
    """One piece of work, as who does it and who waits for it see it.

    Args:
        key: what was asked.
        begun: called with it when the work begins.
    """

    __slots__ = (
        "_begun",
        "askers",
        "began",
        "ended",
        "error",
        "is_answered",
        "key",
        "scope",
        "served",
        "traceback",
        "value",
    )

    def __init__(self, key: Hashable, begun: Callable[["Run"], None]) -> None:
        self.key = key
        self._begun = begun
        self.askers: dict[Sharer, Told] = {}
        self.scope = trio.CancelScope()
        self.began: float | None = None  # on Trio's clock
        self.ended = trio.Event()
        self.served = 0  # askers that were there at the end
        self.is_answered = False  # else it was cancelled
        self.value: Any = None
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None

    def begin(self) -> None:
        """Say that the work has its place and is about to look at things: nobody can join any more.

        Raises:
            CommandFailed: it must not begin after all.
        """
        self.began = trio.current_time()
        self._begun(self)

    def progress(self, done: int, total: int) -> None:
        """Say to all askers how far the work is."""
        for asker in self.askers:
            asker.progress(done, total)

    def result(self) -> Any:
        """Give what came of it.

        Raises:
            Exception: what the work raised; every asker sees the way it took in the run.
        """
        if self.error is not None:
            raise self.error.with_traceback(self.traceback)
        return self.value
