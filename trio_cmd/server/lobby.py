"""Connections enter while nothing more may be recorded; they wait, and too many are turned away.

With ``logging.when_full = "hold"`` nobody is let in, and nobody refused, before that can be recorded.
Who waits has said nothing yet and may be anybody: so only as many wait as there are free places, else
whoever knocks would take all descriptors, and the record could not be opened anew with any.
"""

import time
from collections.abc import Callable

from trio_cmd.records import EventLogger, events
from trio_cmd.server.pressure import wait_while

__all__ = ["Lobby"]

# In the record of those who were turned away; each by itself would be one more that cannot be written.
ANYBODY = "anybody"


class Lobby:
    """Where connections wait before they are looked at.

    Args:
        is_held: tells whether nobody may be let in now.
        count_free: tells how many may wait.
        log: of the server.
    """

    def __init__(self, is_held: Callable[[], bool], count_free: Callable[[], int], log: EventLogger) -> None:
        self._is_held = is_held
        self._count_free = count_free
        self._log = log
        self._waiting = 0
        self._turned_away = 0
        self._began = 0.0

    def is_open(self) -> bool:
        """Tell whether nobody has to ``wait``."""
        if self._is_held():
            return False
        self.tell()
        return True

    async def wait(self) -> bool:
        """Wait until somebody may be let in; no checkpoint where that is so.

        Returns:
            Whether it may go on; else too many wait already.

        Cancel: its place is free.
        """
        if self._is_held() and self._waiting >= self._count_free():
            self._began = self._began if self._turned_away else time.monotonic()
            self._turned_away += 1
            return False
        self._waiting += 1
        try:
            await wait_while(self._is_held)
        finally:
            self._waiting -= 1
        self.tell()
        return True

    def tell(self) -> None:
        """Record how many were turned away since it was last said."""
        if self._turned_away:
            count, self._turned_away = self._turned_away, 0
            seconds = round(time.monotonic() - self._began, 6)
            log = self._log.bind(client=ANYBODY)
            log.record(events.EVENTS_SUMMED, of=events.CLIENT_REFUSED.action, count=count, seconds=seconds)
