"""What is recorded: events (one table), how they look, where they go.

``open_records`` puts the three together and gives the logger that everything else is handed.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from trio_cmd.errors import SettingsError
from trio_cmd.escape import quote
from trio_cmd.records import events
from trio_cmd.records.ecs import EcsRender
from trio_cmd.records.events import EventLogger
from trio_cmd.records.journal import is_journal, with_priority
from trio_cmd.records.output import Descriptor, LogFile, Output
from trio_cmd.records.render import Render, render_json, render_twisted
from trio_cmd.records.sink import Sink
from trio_cmd.settings import Logging

__all__ = ["EventLogger", "LineSink", "Render", "Sink", "make_logger", "open_records"]


class LineSink(Protocol):
    """Where a logger puts its lines: a ``Sink``, or what a test looks into."""

    def put(self, line: bytes, action: str) -> None:
        """Take the line of a record, and its action."""


def open_records(
    settings: Logging,
    fd: int,
    *,
    journal_stream: str = "",
    complain: Callable[[str], object] = lambda _: None,
) -> tuple[EventLogger, Sink]:
    """Begin to record.

    Args:
        settings: the form of the records, where they go, and how many may wait.
        fd: where they are written without a file; ``auto`` means text at a terminal, else JSON.
        journal_stream: ``$JOURNAL_STREAM``, by which systemd's journal is known.
        complain: says elsewhere, from a thread, that the record cannot be written; by default nothing does.

    Returns:
        The logger, and the sink it writes to: the caller's to close.

    Raises:
        SettingsError: the file cannot be opened.
    """
    rendering = _Rendering(settings, fd, journal_stream)
    holds = settings.when_full == "hold"
    sink = Sink(_open_output(settings, fd), settings.queue_events, settings.queue_bytes, holds=holds)
    sink.start(partial(_describe_loss, rendering), complain, rendering.renew)
    return make_logger(sink, rendering), sink


class _Rendering:
    """What makes lines, by the settings in force.

    Args:
        settings: the form of the records.
        fd: where they are written without a file.
        journal_stream: ``$JOURNAL_STREAM``.
    """

    def __init__(self, settings: Logging, fd: int, journal_stream: str) -> None:
        self._fd = fd
        self._journal_stream = journal_stream
        self._ecs = EcsRender()  # one for ever: a connection keeps its trace
        self.renew(settings)

    def __call__(self, fields: Mapping[str, Any], seconds: float) -> bytes:
        return self._render(fields, seconds)

    def renew(self, settings: Logging) -> None:
        """Make lines of another form from now on."""
        self._render = self._choose(settings)

    def _choose(self, settings: Logging) -> Render:
        is_terminal = not settings.file and os.isatty(self._fd)
        render: Render = self._ecs if settings.schema == "ecs" else render_json
        if settings.format == "twisted" or (settings.format == "auto" and is_terminal):
            render = render_twisted
        is_at_journal = not settings.file and is_journal(self._fd, self._journal_stream)
        return with_priority(render) if is_at_journal else render


def _open_output(settings: Logging, fd: int) -> Output:
    if not settings.file:
        return Descriptor(fd)
    try:
        return LogFile(settings.file)
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        reason = "it is a link" if is_link else error.strerror
        fault = f"logging.file: {quote(settings.file)}: {reason}; name a file that can be written"
        raise SettingsError([fault]) from error


def make_logger(sink: LineSink, render: Render, now: Callable[[], float] = time.time) -> EventLogger:
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
