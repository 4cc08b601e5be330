"""What stdlib ``logging`` and ``warnings`` say enters, records of the action ``message`` leave.

Libraries speak there, Trio's listeners among them.  The same message is recorded at most once a
second, so that a fault that repeats itself does not drown the record.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trio_cmd.escape import escape, escape_lines
from trio_cmd.records import events
from trio_cmd.records.events import EventLogger, Level

__all__ = ["route_stdlib"]

REPEAT_SECONDS = 1.0
MAX_REMEMBERED = 256  # different messages; beyond it the oldest is forgotten

_Key = tuple[str, str]


class RecordHandler(logging.Handler):
    """A handler of stdlib logging that records."""

    def __init__(self, logger: EventLogger, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.INFO)
        self._logger = logger
        self._now = now
        self._recent: dict[_Key, tuple[float, int]] = {}  # when it was last recorded, and left out since

    def emit(self, record: logging.LogRecord) -> None:
        """Record a message; see ``logging.Handler``."""
        try:
            template, text = str(record.msg), escape(record.getMessage())
        except Exception:  # a slip in a library's log call must not end what called it
            template = text = escape(f"message of {record.pathname}:{record.lineno} that cannot be formatted")
        left_out = self._count_left_out((record.name, template))
        if left_out is None:
            return
        if left_out:
            text += f" ({left_out} more like it)"
        values = {}
        if record.exc_info:
            lines = escape_lines(logging.Formatter().formatException(record.exc_info))
            values["exception"] = "\n".join(lines)
        self._logger.record(
            events.MESSAGE, _level(record.levelno), text=text, logger=escape(record.name), **values
        )

    def _count_left_out(self, key: _Key) -> int | None:
        """Say how many like it were left out before it, or ``None``: leave this one out too."""
        now = self._now()
        last, left_out = self._recent.pop(key, (-REPEAT_SECONDS, 0))
        if now - last < REPEAT_SECONDS:
            self._recent[key] = (last, left_out + 1)
            return None
        if len(self._recent) >= MAX_REMEMBERED:
            self._recent.pop(next(iter(self._recent)))
        self._recent[key] = (now, 0)
        return left_out


@contextmanager
def route_stdlib(logger: EventLogger) -> Iterator[None]:
    """Record what stdlib logging and warnings say, as long as this lasts."""
    root = logging.getLogger()
    handler = RecordHandler(logger)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return "error"
    return "warning" if number >= logging.WARNING else "info"
