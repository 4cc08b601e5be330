"""What is recorded: events (one table), how they look, where they go.

``open_records`` puts the three together and gives the logger that everything else is handed.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from trio_cmd.records import events
from trio_cmd.records.events import EventLogger
from trio_cmd.records.render import render_json, render_twisted
from trio_cmd.records.sink import Sink
from trio_cmd.settings import Logging

__all__ = ["EventLogger", "Sink", "make_logger", "open_records"]

Render = Callable[[Mapping[str, Any], float], bytes]


def open_records(settings: Logging, fd: int) -> tuple[EventLogger, Sink]:
    """Begin to record.

    Args:
        settings: the form of the records, and how many may wait.
        fd: where they are written; ``auto`` means text at a terminal, else JSON.

    Returns:
        The logger, and the sink it writes to: the caller's to close.
    """
    rendering = _Rendering(settings, fd)
    sink = Sink(fd, settings.queue_events, settings.queue_bytes)
    sink.start(partial(_describe_loss, rendering), rendering.renew)
    return make_logger(sink, rendering), sink


class _Rendering:
    """What makes lines, by the settings in force.

    Args:
        settings: the form of the records.
        fd: where they are written.
    """

    def __init__(self, settings: Logging, fd: int) -> None:
        self._fd = fd
        self.renew(settings)

    def __call__(self, fields: Mapping[str, Any], seconds: float) -> bytes:
        return self._render(fields, seconds)

    def renew(self, settings: Logging) -> None:
        """Make lines of another form from now on."""
        is_text = settings.format == "twisted" or (settings.format == "auto" and os.isatty(self._fd))
        self._render: Render = render_twisted if is_text else render_json


def make_logger(sink: Sink, render: Render, now: Callable[[], float] = time.time) -> EventLogger:
    """Make a logger that renders its records into a sink.

    Args:
        sink: takes lines of bytes.
        render: makes a line of a record's fields.
        now: seconds since the epoch; a parameter for the tests.
    """

    def process(
        _logger: object, _name: str, fields: Mapping[str, Any]
    ) -> tuple[tuple[bytes, str], dict[str, Any]]:
        return (render(fields, now()), fields["action"]), {}

    return EventLogger(sink, [process], {"system": "-"})


def _describe_loss(render: Render, lost: int) -> bytes:
    event = events.EVENTS_LOST
    sentence = event.sentence.format(lost=lost)
    fields = {
        "level": event.level,
        "event": sentence,
        "action": event.action,
        "system": "-",
        "lost": lost,
    }
    return render(fields, time.time())
