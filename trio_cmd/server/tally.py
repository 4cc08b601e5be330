"""How often each command had which outcome, and how long it took: each completed one enters, counts leave.

The counting is on the path of every command, so it is three additions and hardly more.  What a
client sends makes no row: a word that is no command is counted as ``unknown``.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from trio_cmd.settings import UNKNOWN

__all__ = ["SECONDS", "Row", "Tally"]

# Each about three times the one before: from an answer out of memory to the hash of a large disk.
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
SHORTEST = SECONDS[0]


class Row:
    """Counts of one command.

    Attributes:
        outcomes: outcome -> how many.
        durations: how many took up to each of ``SECONDS`` and longer than the one before; last, the rest.
        seconds: how long all of them took together.
    """

    __slots__ = ("durations", "outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.durations = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0


class Tally:
    """Counts of all commands since the start.

    Args:
        names: of the commands there are, as they are sent.

    Attributes:
        shared: how many answers came from a run that answered others as well.
    """

    __slots__ = ("_rows", "_unknown", "shared")

    def __init__(self, names: Iterable[bytes]) -> None:
        self._rows: dict[bytes | None, Row] = {name: Row() for name in names}
        self._unknown = Row()
        self.shared = 0

    def know(self, names: Iterable[bytes]) -> None:
        """Count also these by their names; those known before stay, and so do their counts."""
        for name in names:
            self._rows.setdefault(name, Row())

    def add(self, name: bytes | None, outcome: str, seconds: float) -> None:
        """Count one that is completed.

        Args:
            name: of the command as it was sent, ``None`` where none could be read.
            outcome: as in its record.
            seconds: how long it took.
        """
        row = self._rows.get(name) or self._unknown
        try:
            row.outcomes[outcome] += 1
        except KeyError:  # the first; a Counter, which does the same, takes four times as long
            row.outcomes[outcome] = 1
        row.durations[0 if seconds <= SHORTEST else bisect_left(SECONDS, seconds)] += 1
        row.seconds += seconds

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Give each command's name and counts; last those of words that are none."""
        for name, row in self._rows.items():
            assert name is not None
            yield name.decode(), row
        yield UNKNOWN, self._unknown

    def outcomes(self) -> Mapping[str, int]:
        """Count the commands with each outcome, in the order of the alphabet."""
        total: Counter[str] = Counter()
        for _, row in self.rows():
            total.update(row.outcomes)
        return dict(sorted(total.items()))
