"""A server's record in a file is counted as it grows; what is missing in it makes a row void."""

import contextlib
import time
from collections import Counter
from pathlib import Path

SETTLE_SECONDS = 10.0
FORGET_SECONDS = 0.3
LOOK_SECONDS = 0.002

EVENTS = {
    "connected": b"Client connection from ",
    "received": b"Cmd received from ",
    "completed": b"Cmd completed for ",
    "lost": b"Lost client connection. ",
    "said lost": b'"action":"events-lost"',
    "summed": b'"action":"events-summed"',
}
"""What is counted in a record, and how it is told: all servers use the tutorial's sentences."""


class Void(Exception):
    """A row says nothing: an answer was wrong, or a record is missing or said to be lost."""


class Record:
    """The file of a server's events: counted as it grows.

    Args:
        path: of the file, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._counts: Counter[str] = Counter()

    def take(self, **expected: int) -> None:
        """Wait until all that is expected since the last time was recorded.

        Raises:
            Void: it was not, or more was.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while any(self._counts[event] < count for event, count in expected.items()):
            if not self._read() and time.monotonic() > deadline:
                break
        seen, self._counts = self._counts, Counter()
        if +Counter(expected) != +seen:
            raise Void(f"recorded were {dict(seen)}, expected {expected}")

    def forget(self) -> None:
        """Begin anew with what is written from now on, after what is under way."""
        time.sleep(FORGET_SECONDS)
        while self._read():
            pass
        self._counts.clear()

    def _read(self) -> bool:
        """Count what was written since; waits a little when it was nothing."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._at)
            whole, end, _ = file.read().rpartition(b"\n")
            if end:
                self._at += len(whole) + 1
                self._counts += Counter({event: whole.count(sign) for event, sign in EVENTS.items()})
                return True
        time.sleep(LOOK_SECONDS)
        return False
