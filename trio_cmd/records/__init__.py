"""What is recorded: events (one table), how they look, where they go.

``open_records`` puts the three together and gives the logger that everything else is handed.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from typing import Any, Protocol

from trio_cmd.errors import SettingsError
from trio_cmd.escape import quote
from trio_cmd.records import events
from trio_cmd.records.batch import Batch
from trio_cmd.records.ecs import EcsRender
from trio_cmd.records.events import EventLogger
from trio_cmd.records.journal import is_journal, with_priority
from trio_cmd.records.output import Descriptor, LogFile, Output
from trio_cmd.records.render import Render, render_at_once, render_json, render_twisted
from trio_cmd.records.sink import Sink
from trio_cmd.records.template import ConnectionTemplate, make_template
from trio_cmd.settings import Logging

__all__ = ["EventLogger", "LineSink", "Render", "Sink", "make_logger", "open_records"]


_COMMANDS = (events.COMMAND_RECEIVED, events.COMMAND_COMPLETED)


class LineSink(Protocol):
    """Where a logger puts its lines: a ``Sink``, or what a test looks into."""

    def put(self, line: bytes, action: str) -> None:
        """Take the line of a record, and its action."""

    def put_commands(self, batch: Batch) -> None:
        """Take records of commands: of each that it was received, then that it was completed."""
        for line, event in zip(batch.lines.splitlines(keepends=True), cycle(_COMMANDS), strict=False):
            self.put(line, event.action)


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

    def is_plain(self) -> bool:
        """Tell whether lines have the form that ``render_json`` gives them."""
        return self._render is render_json

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
    return EventLogger(sink, [_Process(render, now)], {"system": "-"})


class _Process:
    """The only processor of structlog's: makes a line of a record's fields; see ``make_logger``."""

    def __init__(self, render: Render, now: Callable[[], float]) -> None:
        self._render = render
        self._now = now
        own = render.is_plain if isinstance(render, _Rendering) else None
        self.is_plain: Callable[[], bool] = own or (lambda: render is render_json)

    def __call__(
        self, _logger: object, _name: str, fields: Mapping[str, Any]
    ) -> tuple[tuple[bytes, str], dict[str, Any]]:
        return (self._render(fields, self._now()), fields["action"]), {}

    def render_plain(
        self, level: str, sentence: str, action: str, context: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> bytes | None:
        """Make the line of a record without the copies on the ordinary way; see ``render_at_once``."""
        if not self.is_plain():
            return None
        return render_at_once(self._now(), level, sentence, action, context, fields)

    def template(self, context: Mapping[str, Any]) -> ConnectionTemplate | None:
        """Make the template of a connection; see ``make_template``."""
        return make_template(context, self._now)


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
