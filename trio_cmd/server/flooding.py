"""What clients do at will enters, sums of it leave, one record a second and client: see ``records.flood``."""

import time
from collections.abc import Callable

import trio

from trio_cmd.records import EventLogger, events
from trio_cmd.records.events import Event
from trio_cmd.records.flood import SECOND, Floods, Sum

__all__ = ["Flooding"]


class Flooding:
    """Decides what is recorded by itself, and records the sums of the rest.

    Args:
        log: of the server.
        now: seconds on a clock that never goes back; a parameter for the tests.
    """

    def __init__(self, log: EventLogger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._floods = Floods(self._record)
        self._has_rows = trio.Event()

    def is_recorded(self, event: Event, client: str) -> bool:
        """Count an occurrence of a client, by its address; ``False``: a sum will tell of it."""
        if not self._has_rows.is_set():
            self._has_rows.set()
        return self._floods.count(event, client, self._now())

    async def run(self) -> None:
        """Sum up each second, until cancelled; sleeps while there is nothing to sum up.

        Cancel: what is left is summed up by ``close``.
        """
        while True:
            await self._has_rows.wait()
            await trio.sleep(SECOND)
            self._floods.end(self._now())
            if not self._floods:
                self._has_rows = trio.Event()

    def close(self) -> None:
        """Sum up what is left."""
        self._floods.end(self._now(), 0)

    def _record(self, summed: Sum) -> None:
        self._log.bind(client=summed.client).record(
            events.EVENTS_SUMMED,
            of=summed.of.action,
            count=summed.more,
            seconds=round(summed.seconds, 6),
        )
