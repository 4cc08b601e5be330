"""The audit trail of one connection: what was asked and what came of it enter, records leave."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from trio_cmd.errors import ClientFault, CommandFailed, Internal
from trio_cmd.escape import escape
from trio_cmd.records import EventLogger, events
from trio_cmd.records.events import Level, record_fault, record_quiet_fault
from trio_cmd.server.tally import Tally
from trio_cmd.tokens import AUTH_SHOWN, is_auth
from trio_cmd.wire.messages import Form, Reply, Request, format_reply

__all__ = ["Asked", "Trail", "show_line"]

_AUTH_COMMAND, _AUTH_ARGUMENTS = AUTH_SHOWN.split(" ")


class Asked(NamedTuple):
    """One line on its way to its answer.

    Attributes:
        number: of the request in its connection, from 1.
        request: what was asked, ``None`` when it could not be read.
        line: as sent, safe to record; see ``show_line``.
        form: of its answer.
        began: when the line was complete, in seconds of ``time.perf_counter``.
    """

    number: int
    request: Request | None
    line: str
    form: Form
    began: float


class Trail:
    """Records the requests of one connection; each received has its completed.

    Args:
        log: bound to the connection.
        tally: counts the commands of all clients.
    """

    __slots__ = ("_log", "_tally")

    def __init__(self, log: EventLogger, tally: Tally) -> None:
        self._log = log
        self._tally = tally

    def received(self, asked: Asked) -> None:
        """Record that a line was received."""
        command, arguments = _spell(asked)
        self._log.record(
            events.COMMAND_RECEIVED,
            request=asked.number,
            command=command,
            arguments=arguments,
            line=asked.line,
        )

    def answered(
        self, asked: Asked, reply: Reply, streamed_bytes: int = 0, *, shared: bool | None = None
    ) -> bytes:
        """Write the answer to a line and record its outcome.

        Args:
            asked: the line.
            reply: its answer.
            streamed_bytes: what was sent before the answer.
            shared: whether a run answered others as well; ``None`` when no run answered it.

        Returns:
            The answer's bytes; none where nothing is said.
        """
        seconds = time.perf_counter() - asked.began
        name = None if asked.request is None else asked.request.name
        answer = format_reply(reply, reply.form or asked.form, asked.number, name, seconds)
        outcome = "ok" if reply.error is None else reply.error.code
        facts = reply.record if shared is None else {"shared": shared, **reply.record}
        if shared:
            self._tally.shared += 1
        self._completed(asked, outcome, _level(reply.error), seconds, streamed_bytes + len(answer), facts)
        return answer

    def answered_summed(self, asked: Asked, reply: Reply) -> bytes:
        """Write the answer to a line that only a sum of the record tells of; its outcome is counted."""
        assert asked.request is not None
        assert reply.error is not None
        seconds = time.perf_counter() - asked.began
        self._tally.add(asked.request.name, reply.error.code, seconds)
        return format_reply(reply, asked.form, asked.number, asked.request.name, seconds)

    def unanswered(self, asked: Asked) -> None:
        """Record that the asker left before the answer was ready."""
        self._completed(asked, "gone", "info", time.perf_counter() - asked.began, 0, {})

    def fault(self, error: BaseException, request: Request | None = None) -> Internal:
        """Record a fault of ours with its traceback; returns what the client is told.

        Args:
            error: the fault.
            request: what was being answered; nothing is quoted of what follows ``auth``.
        """
        is_secret = request is not None and is_auth(request.name)
        record = record_quiet_fault if is_secret else record_fault
        record(self._log, error)
        return Internal()

    def _completed(
        self, asked: Asked, outcome: str, level: Level, seconds: float, size: int, facts: Mapping[str, Any]
    ) -> None:
        self._tally.add(None if asked.request is None else asked.request.name, outcome, seconds)
        command, arguments = _spell(asked)
        self._log.record(
            events.COMMAND_COMPLETED,
            level,
            request=asked.number,
            command=command,
            arguments=arguments,
            line=asked.line,
            outcome=outcome,
            seconds=round(seconds, 6),
            bytes=size,
            **facts,
        )


def show_line(line: bytes) -> str:
    """Make a line safe to record: what follows ``auth`` never is, whatever it is."""
    return AUTH_SHOWN if is_auth(line) else escape(line)


def _spell(asked: Asked) -> tuple[str | None, str]:
    """Give a request's command and arguments safe to record."""
    request = asked.request
    if request is None:
        return None, ""
    if asked.line == AUTH_SHOWN:
        return _AUTH_COMMAND, _AUTH_ARGUMENTS
    return escape(request.name), escape(request.argument)


def _level(error: CommandFailed | None) -> Level:
    if isinstance(error, Internal):
        return "error"
    return "warning" if isinstance(error, ClientFault) else "info"
