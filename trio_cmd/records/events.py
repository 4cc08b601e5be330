"""One table of all that is recorded: action, level, Twisted's sentence, fields.

A record is made from a row of this table and the values of its fields; nothing else is recorded.
"""

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import structlog

from trio_cmd.escape import escape_lines
from trio_cmd.records.batch import Batch

if TYPE_CHECKING:
    from trio_cmd.records.template import ConnectionTemplate, Template

__all__ = ["EVENTS", "SYSTEM", "Event", "EventLogger", "lost_event", "record_fault", "record_quiet_fault"]

Level = Literal["info", "warning", "error"]

SYSTEM = "trio_cmd.Server"
"""The ``system`` of what the server says of itself, and of who comes."""


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the table.

    Attributes:
        action: the stable name of what happened.
        level: how much it matters, unless the occurrence says otherwise.
        sentence: for people, in Twisted's words where it has them; a ``str.format`` template.
        fields: what the record holds besides; other values only serve the sentence.
    """

    action: str
    level: Level
    sentence: str
    fields: tuple[str, ...] = ()


LOG_OPENED = Event("log-opened", "info", "Log opened.", ("version", "pid"))
LISTENING = Event(
    "listening", "info", "trio_cmd.Server starting on {where}", ("host", "port", "path", "inherited")
)
SERVER_STARTED = Event(
    "server-started",
    "info",
    "Starting server <trio_cmd.Server max_clients={max_clients}>",
    ("max_clients", "limits", "grants"),
)
CLIENT_CONNECTED = Event("client-connected", "info", "Client connection from {client}")
CLIENT_REFUSED = Event("client-refused", "warning", "{notice}", ("reason",))
COMMAND_RECEIVED = Event(
    "command-received",
    "info",
    "Cmd received from {client} : {line}",
    ("request", "command", "arguments"),
)
COMMAND_COMPLETED = Event(
    "command-completed",
    "info",
    "Cmd completed for {client} : {line}",
    (
        *("request", "command", "arguments", "outcome", "seconds", "bytes", "shared"),
        *("path", "algorithm", "digest", "size", "matches"),
        *("log", "lines", "exit_status", "skipped"),
    ),
)
CLIENT_LOST = Event(
    "client-lost",
    "info",
    "Lost client connection. Reason: {why}",
    (
        *("reason", "seconds", "requests", "bytes_in", "bytes_out"),
        *("tls", "certificate", "tls_error"),
    ),
)
HANDLER_CRASHED = Event("handler-crashed", "error", "Unhandled Error", ("exception",))
EVENTS_SUMMED = Event(
    "events-summed", "warning", "{count} more of {of} from {client}", ("of", "count", "seconds")
)
EVENTS_LOST = Event("events-lost", "warning", "{lost} log events lost", ("lost",))
MESSAGE = Event("message", "info", "{text}", ("logger", "exception"))
RELOADED = Event("reloaded", "info", "Settings read again, {what}", ("changed", "restart"))
RELOAD_REFUSED = Event(
    "reload-refused", "warning", "Settings read again and refused, the old ones stay: {reason}", ("reason",)
)
REPORT = Event(
    "report",
    "info",
    "Report: {count} tasks, {threads} threads, {descriptors} descriptors",
    ("tasks", "threads", "descriptors", "memory", "limiters", "queues"),
)
STOPPING = Event("stopping", "info", "{closed}", ("reason",))
STOPPED = Event("stopped", "info", "Main loop terminated.", ("reason",))

EVENTS = {event.action: event for event in list(vars().values()) if isinstance(event, Event)}
"""All rows by their action."""

COMMAND_ACTIONS = frozenset((COMMAND_RECEIVED.action, COMMAND_COMPLETED.action))
"""The records that a client can cause at will; only these can fill the queue."""

_CLEAN = "Connection was closed cleanly."
_UNCLEAN = "Connection to the other side was lost in a non-clean fashion: Connection lost."
_QUIET_REASONS = frozenset(("exit", "closed", "idle", "stopping"))


def lost_event(reason: str) -> tuple[Level, str]:
    """Say how much the end of a connection matters, and Twisted's reason for it."""
    level: Level = "info" if reason in _QUIET_REASONS else "error" if reason == "crashed" else "warning"
    return level, _UNCLEAN if reason == "reset" else _CLEAN


def record_fault(log: "EventLogger", error: BaseException) -> None:
    """Record a fault of this program with its traceback."""
    lines = escape_lines("".join(traceback.format_exception(error)))
    log.record(HANDLER_CRASHED, exception="\n".join(lines))


def record_quiet_fault(log: "EventLogger", error: BaseException) -> None:
    """Record where a fault was and of what kind, and not what it says: that may quote a secret."""
    log.record(HANDLER_CRASHED, exception="\n".join(escape_lines(_place(error))))


def _place(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(map(_place, error.exceptions))
    return "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__


class EventLogger(structlog.BoundLoggerBase):
    """A structlog logger that records rows of the table."""

    _template: "ConnectionTemplate | None" = None

    def record(self, event: Event, level: Level | None = None, **values: Any) -> None:
        """Record that something happened.

        Args:
            event: the row.
            level: instead of the row's.
            values: of its fields and of its sentence; text must be safe to show (``escape``).
        """
        context = self._context
        known = {name: values[name] for name in event.fields if name in values}
        # The order is that of the JSON line.
        sentence = event.sentence.format(**{**context, **values})
        level = level or event.level
        process: Any
        (process,) = self._processors
        line = process.render_plain(level, sentence, event.action, context, known)
        if line is not None:
            self._logger.put(line, event.action)
        else:
            self._proxy_to_logger("put", sentence, level=level, action=event.action, **known)

    def connection_template(self) -> "ConnectionTemplate | None":
        """Give what makes the records of a connection; ``None``: ``record`` has to.  Ask anew each time."""
        process: Any
        (process,) = self._processors
        if not process.is_plain():
            return None
        if self._template is None:
            self._template = process.template(self._context)
        return self._template

    def template(self) -> "Template | None":
        """Give what makes the records of quick commands; see ``connection_template``."""
        template = self.connection_template()
        return None if template is None else template.commands()

    def put(self, line: bytes, event: Event) -> None:
        """Record by a line that a template has made."""
        self._logger.put(line, event.action)

    def put_commands(self, lines: str, records: int) -> None:
        """Record commands by lines that a template has made, so many."""
        self._logger.put_commands(Batch(lines.encode("ascii"), records))
