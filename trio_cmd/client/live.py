"""How far the asking of many hosts is: what happens enters, a table of a terminal shows it.

The table is drawn by a thread of its own, a few times a second, from what stands here: however
much the hosts send, and however slowly the terminal takes it, the asking goes on.  It stands on
standard error and is wiped away before the answers are printed.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from trio_cmd.client.answers import Progress
    from trio_cmd.client.fleet import Outcome, Watcher
    from trio_cmd.client.hosts import Host

__all__ = ["HostView", "LiveWatcher", "is_live_terminal", "watch_live"]

# What a host tells is believed only as far as a file can be long.
_MOST_BYTES = 1 << 63


@dataclass(frozen=True, slots=True)
class HostView:
    """A host that is being asked.

    Attributes:
        since: when its asking began, on the watcher's clock.
        done: bytes of the file that are hashed, as last told.
        total: bytes of that file; 0: no progress was told.
    """

    since: float
    done: int = 0
    total: int = 0


class LiveWatcher:
    """Counts what happens; a watcher of ``ask_fleet`` that only remembers what is to be shown.

    One thread calls the watcher's methods, another may read the attributes meanwhile.

    Args:
        total: how many hosts there are.
        clock: seconds, from anywhere.

    Attributes:
        done: how many hosts have ended.
        hashed_bytes: of the files that have been hashed.
        running: the hosts being asked, the longest first.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self.hashed_bytes = 0
        self.running: dict[Host, HostView] = {}
        self._failed: set[Host] = set()
        self._clock = clock
        self._begun = clock()

    @property
    def failed(self) -> int:
        """How many hosts have not answered everything well, so far."""
        return len(self._failed)

    @property
    def elapsed_seconds(self) -> float:
        """Since the watching began."""
        return self._clock() - self._begun

    def seconds_of(self, view: HostView) -> float:
        """Since when a host is being asked."""
        return self._clock() - view.since

    def began(self, host: "Host") -> None:
        """A host is being asked from now on."""
        self.running[host] = HostView(self._clock())

    def progressed(self, host: "Host", progress: "Progress") -> None:
        """A host has told how far a hash is."""
        view = self.running.get(host)
        if view is not None and 0 <= progress.done <= progress.total < _MOST_BYTES:
            self.running[host] = HostView(view.since, progress.done, progress.total)

    def answered(self, outcome: "Outcome") -> None:
        """There is an answer, or the reason why there is none."""
        view = self.running.get(outcome.host)
        if view is not None and view.total:
            self.running[outcome.host] = HostView(view.since)
        if not outcome.is_ok:
            self._failed.add(outcome.host)
        if outcome.reply is not None:
            hashed = outcome.reply.result.get("bytes")
            if type(hashed) is int and 0 <= hashed < _MOST_BYTES:
                self.hashed_bytes += hashed

    def ended(self, host: "Host") -> None:
        """All that was asked of a host has its outcome."""
        self.running.pop(host, None)
        self.done += 1


def is_live_terminal(stream: TextIO) -> bool:
    """Whether a stream leads to a terminal on which lines can be drawn anew."""
    try:
        return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    except ValueError:  # it is closed
        return False


@contextmanager
def watch_live(watcher: LiveWatcher, stream: TextIO | None) -> "Iterator[Watcher]":
    """Show on a terminal what a watcher knows, until the block ends; then nothing is left of it.

    Without ``rich`` (the extra ``client``), or where nothing can be drawn, nothing is shown.

    Args:
        watcher: what is given back, to be handed to ``ask_fleet``.
        stream: standard error, if there is one; only its descriptor is written to.
    """
    if stream is None or not is_live_terminal(stream):
        yield watcher
        return
    try:
        # Late: it takes longer to import than to ask a host, and it is an extra.
        from trio_cmd.client.drawing import draw  # noqa: PLC0415
    except ImportError:
        yield watcher
        return
    with draw(watcher, stream):
        yield watcher
