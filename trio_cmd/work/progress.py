"""How far long work is enters, now and then, from any thread; each second it is told, in the event loop.

Work that ends within a second pays for nothing but its place in a table: there is one task for
all, and it sleeps while there is none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

__all__ = ["Progress", "ProgressTeller", "Tell"]

SECONDS = 1.0
_TICK_SECONDS = 0.1

Tell = Callable[[int, int], object]
"""Told how many bytes are done, of how many; called in the event loop."""


class Progress:
    """How far a piece of work is; its thread writes it.

    Attributes:
        done: bytes so far.
        total: bytes in all.
    """

    __slots__ = ("_next", "_tell", "done", "total")

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._next = trio.current_time() + SECONDS
        self.done = 0
        self.total = 0

    def tell_if_due(self, now: float) -> None:
        """Tell, if it was begun or told a second ago, and anything is known."""
        if now >= self._next and self.total:
            self._next += SECONDS
            self._tell(self.done, self.total)


class ProgressTeller:
    """Tells of all long work how far it is, as long as ``run`` runs."""

    def __init__(self) -> None:
        self._working: dict[Progress, None] = {}
        self._has_work = trio.Event()

    @contextmanager
    def telling(self, tell: Tell) -> Iterator[Progress]:
        """Tell how far a piece of work is while this lasts, each second from the first on."""
        progress = Progress(tell)
        self._working[progress] = None
        self._has_work.set()
        try:
            yield progress
        finally:
            del self._working[progress]

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._has_work.wait()
            await trio.sleep(_TICK_SECONDS)
            self._tell()
            if not self._working:
                self._has_work = trio.Event()

    def _tell(self) -> None:
        # Not in the loop of the task: it would refer to the last work until there is other work.
        now = trio.current_time()
        for progress in list(self._working):
            progress.tell_if_due(now)
