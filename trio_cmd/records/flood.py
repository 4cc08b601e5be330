"""Occurrences enter, one by one; what is more than ten a second of one client leaves as a sum.

Whoever knocks or mistypes a thousand times a second would fill the record with it, and hide what
matters.  So the first ten of a client's second are recorded each, and the others counted: what
was recorded and what was summed up are together all there was, whatever happens in between.
"""

from collections.abc import Callable
from typing import NamedTuple

from trio_cmd.records.events import Event

__all__ = ["Floods", "Sum"]

MAX_RECORDED = 10  # of one action of one client in its second; a person does not reach it
SECOND = 1.0
# A row takes half a kibibyte: all of them two megabytes, whoever knocks from wherever.
MAX_ROWS = 4096


class Sum(NamedTuple):
    """What happened besides what was recorded.

    Attributes:
        of: the row of the table of events that stands for each of them.
        client: where the client is.
        more: how many, at least one.
        seconds: how long it took.
    """

    of: Event
    client: str
    more: int
    seconds: float


class _Row:
    """One client's second: when it began, and how often which event happened in it."""

    __slots__ = ("began", "counts")

    def __init__(self, began: float) -> None:
        self.began = began
        self.counts: dict[Event, int] = {}


class Floods:
    """The clients of the last second, at most ``MAX_ROWS``.

    Args:
        say: gets each sum, as soon as it is complete.
    """

    def __init__(self, say: Callable[[Sum], None]) -> None:
        self._say = say
        self._rows: dict[str, _Row] = {}  # in the order in which their seconds began, and so end

    def __len__(self) -> int:
        return len(self._rows)

    def count(self, event: Event, client: str, now: float) -> bool:
        """Count an occurrence.

        Args:
            event: what happened.
            client: where it is; all of one address count together.
            now: seconds on a clock that never goes back.

        Returns:
            Whether it is to be recorded; else it will be in a sum.
        """
        row = self._rows.get(client)
        if row is None or now - row.began >= SECOND:
            row = self._begin(client, now)
        row.counts[event] = count = row.counts.get(event, 0) + 1
        return count <= MAX_RECORDED

    def end(self, now: float, seconds: float = SECOND) -> None:
        """Sum up, and forget, the rows that are so many seconds old; with 0 all."""
        for client, row in list(self._rows.items()):
            if now - row.began < seconds:
                return
            self._close(client, now)

    def _begin(self, client: str, now: float) -> _Row:
        """Make a client's row; when all are taken, the one whose second ends first gives way."""
        if client in self._rows:
            self._close(client, now)
        elif len(self._rows) >= MAX_ROWS:
            self._close(next(iter(self._rows)), now)
        row = self._rows[client] = _Row(now)
        return row

    def _close(self, client: str, now: float) -> None:
        row = self._rows.pop(client)
        for event, count in row.counts.items():
            if count > MAX_RECORDED:
                self._say(Sum(event, client, count - MAX_RECORDED, now - row.began))
