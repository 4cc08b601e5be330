"""Who has sent wrong tokens enters, whether it must wait before it may send another leaves.

Nobody guesses 256 random bits; but whoever tries should be seen, and should cost next to nothing.
"""

import math
from array import array
from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["WrongTokens"]

MAX_WRONG = 10  # within a window; a person who mistypes is far below, three close the connection anyway
WINDOW_SECONDS = 60.0  # in which they are counted, and for how long nothing is compared afterwards
MAX_ROWS = 65536
# Rows that have ended and are thrown out at a time: more than are added, and never many at once.
_THROWN_OUT = 2


class WrongTokens:
    """The wrong tokens of the last minute, by who sent them.

    Who it is, is a key: an address, of IPv6 the /64, because whoever has one address has all of it.
    On the unix socket it is the user's number: another local user must not lock out all others.

    Each row ends a minute after its newest wrong token, whether it is blocked by then or not; so the
    rows are in the order in which they end, and the first gives way when there are too many.
    ``OrderedDict``, because it finds its first row at once, also behind thousands that are gone.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[Hashable, array[float]] = OrderedDict()  # of each the times, the newest last

    def __len__(self) -> int:
        return len(self._rows)

    def seconds_left(self, key: Hashable, now: float) -> int:
        """Say for how many seconds, rounded up, nothing of its is compared; 0: it may try.

        Args:
            key: who it is.
            now: a clock that never goes back, in seconds.
        """
        times = self._rows.get(key)
        if times is None or len(times) < MAX_WRONG:
            return 0
        return max(0, math.ceil(WINDOW_SECONDS - (now - times[-1])))

    def add(self, key: Hashable, now: float) -> None:
        """Count a wrong token of somebody who may try; see ``seconds_left``."""
        self._throw_out(now)
        times = self._rows.pop(key, None) or array("d")
        while times and _is_over(times[0], now):
            del times[0]
        times.append(now)
        self._rows[key] = times
        if len(self._rows) > MAX_ROWS:
            self._rows.popitem(last=False)

    def _throw_out(self, now: float) -> None:
        for _ in range(_THROWN_OUT):
            if not self._rows or not _is_over(next(iter(self._rows.values()))[-1], now):
                return
            self._rows.popitem(last=False)


def _is_over(time: float, now: float) -> bool:
    return now - time >= WINDOW_SECONDS
