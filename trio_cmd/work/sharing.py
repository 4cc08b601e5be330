"""Questions enter, the same answer leaves for all who asked the same before the work for it began.

A client may share a run that has not begun when it asks, never one that has: that answer would
be older than the question.  And while a young run of the same question is under way the next one
waits for its end, so that all who ask meanwhile share that: fifty clients in a loop are one child.

Nothing here knows what is asked; a key holds all that decides the answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import trio

from trio_cmd.errors import CommandFailed
from trio_cmd.work.runs import Question, Run, Sharer, Told

__all__ = ["Shares", "Sharing", "SharingStatistics", "SharingUnder"]

# So long a run keeps the next one of its key waiting.  Who asks is then hardly slower, and a run
# that hangs keeps nobody from another.
YOUNG_SECONDS = 0.1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SharingStatistics:
    """Counts: runs that have begun, runs that have not, and the askers of both."""

    running: int
    waiting: int
    sharers: int


class Shares(Protocol):
    """What lets askers of the same share one run."""

    def join(self, question: Question, asker: Sharer, told: Told) -> Run:
        """See ``Sharing.join``."""

    def leave(self, run: Run, asker: Sharer) -> None:
        """See ``Sharing.leave``."""

    async def run(self, key: Hashable, asker: Sharer, work: Callable[[Run], Awaitable[_T]]) -> _T:
        """See ``Sharing.run``."""


class Sharing:
    """Lets askers of the same share one run.

    Args:
        report: gets what a run raised that no asker is left to be told.
        check: called as a run is about to begin; what it raises, the askers are told instead.
    """

    def __init__(
        self, report: Callable[[BaseException], None], check: Callable[[], object] = lambda: None
    ) -> None:
        self._report = report
        self._check = check
        self._nursery: trio.Nursery
        self._runs: set[Run] = set()  # that have not ended
        self._next: dict[Hashable, Run] = {}  # of each key, the one that has not begun
        self._latest: dict[Hashable, Run] = {}  # of each key, the last that has begun and not ended

    @asynccontextmanager
    async def open_nursery(self) -> AsyncIterator[None]:
        """Hold the nursery of the runs; whoever asks must be inside.

        Cancel: the runs end.
        """
        async with trio.open_nursery() as self._nursery:
            yield

    async def run(self, key: Hashable, asker: Sharer, work: Callable[[Run], Awaitable[_T]]) -> _T:
        """Get the answer of a run that begins after this call, of one that waits already or of a new one.

        Args:
            key: all that decides the answer; who asks with an equal key asks the same.
            asker: who asks; is told the progress.
            work: does it, when no run waits; must call ``Run.begin`` before it looks at anything.

        Raises:
            CommandFailed, Exception: what the work raised.

        Cancel: the other askers get their answer; without others the run is cancelled.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # who has already left has nothing begun
        run = self.join(Question(key, work), asker, lambda _: None)
        try:
            await run.ended.wait()
        finally:
            self.leave(run, asker)
        asker.is_shared = run.served > 1
        value: _T = run.result()
        return value

    def join(self, question: Question, asker: Sharer, told: Told) -> Run:
        """Ask for a run that begins after this call, one that waits already or a new one; never waits.

        Args:
            question: who asks with an equal key asks the same.
            asker: who asks; is told the progress, and must leave when it does not want the answer any more.
            told: called when there is an answer.
        """
        run = self._next.get(question.key) or self._make(*question)
        run.askers[asker] = told
        return run

    def leave(self, run: Run, asker: Sharer) -> None:
        """Say that an asker is gone, or has its answer; a run without askers is cancelled."""
        del run.askers[asker]
        if not run.askers:
            self._abandon(run)

    def statistics(self) -> SharingStatistics:
        """Count what runs, what waits, and for how many."""
        running = sum(run.began is not None for run in self._runs)
        sharers = sum(len(run.askers) for run in self._runs)
        return SharingStatistics(running, len(self._next), sharers)

    def _make(self, key: Hashable, work: Callable[[Run], Awaitable[Any]]) -> Run:
        run = self._next[key] = Run(key, self._begin)
        self._runs.add(run)
        self._nursery.start_soon(self._carry_out, run, work)
        return run

    async def _carry_out(self, run: Run, work: Callable[[Run], Awaitable[Any]]) -> None:
        """Do the work and give its askers what came of it.

        Cancel: its askers are cancelled too, they are further in.
        """
        try:
            with run.scope:
                await self._wait_for_turn(run.key)
                run.value = await work(run)
                assert run.began is not None, "whoever joined after the work began has an old answer"
                run.is_answered = True
        except* Exception as errors:  # a fault in a run costs its askers an answer, not the server
            self._fail(run, errors.exceptions[0] if len(errors.exceptions) == 1 else errors)
        finally:
            self._end(run)

    async def _wait_for_turn(self, key: Hashable) -> None:
        """Wait while a young run of the same key is under way.

        Cancel: nothing is left behind.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # all who asked may have left already
        latest = self._latest.get(key)
        if latest is not None and latest.began is not None:
            with trio.move_on_at(latest.began + YOUNG_SECONDS):
                await latest.ended.wait()

    def _begin(self, run: Run) -> None:
        self._check()
        self._latest[run.key] = run
        self._close(run)

    def _close(self, run: Run) -> None:
        """Let nobody join any more."""
        if self._next.get(run.key) is run:  # else it was abandoned, and the next is another's
            del self._next[run.key]

    def _abandon(self, run: Run) -> None:
        self._close(run)
        run.scope.cancel()

    def _fail(self, run: Run, error: Exception) -> None:
        run.error, run.traceback = error, error.__traceback__
        run.is_answered = True
        if not run.askers and not isinstance(error, CommandFailed):
            self._report(error)

    def _end(self, run: Run) -> None:
        self._close(run)
        self._runs.discard(run)
        if self._latest.get(run.key) is run:  # else a later one began when this was no longer young
            del self._latest[run.key]
        run.served = len(run.askers)
        run.ended.set()
        if run.is_answered:
            for told in list(run.askers.values()):
                told(run)


class SharingUnder:
    """The sharing of those who asked under the same settings.

    Args:
        sharing: of all.
        epoch: the number of the settings.
    """

    def __init__(self, sharing: Sharing, epoch: int) -> None:
        self._sharing = sharing
        self._epoch = epoch

    def join(self, question: Question, asker: Sharer, told: Told) -> Run:
        """See ``Sharing.join``."""
        return self._sharing.join(Question((self._epoch, question.key), question.work), asker, told)

    def leave(self, run: Run, asker: Sharer) -> None:
        """See ``Sharing.leave``."""
        self._sharing.leave(run, asker)

    async def run(self, key: Hashable, asker: Sharer, work: Callable[[Run], Awaitable[_T]]) -> _T:
        """See ``Sharing.run``."""
        return await self._sharing.run((self._epoch, key), asker, work)
