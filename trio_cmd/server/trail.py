"""The audit trail of one connection: what was asked and what came of it enter, records leave."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from trio_cmd.errors import ClientFault, CommandFailed, Internal
from trio_cmd.escape import escape
from trio_cmd.records import EventLogger, events
from trio_cmd.records.events import Level, record_fault
from trio_cmd.wire.messages import Form, Reply, Request, format_reply

__all__ = ["Asked", "Trail"]


class Asked(NamedTuple):
    """One line on its way to its answer.

    Attributes:
        number: of the request in its connection, from 1.
        request: what was asked, ``None`` when it could not be read.
        line: as sent, safe to show.
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
        outcomes: how many commands of all clients had which outcome; added to.
    """

    __slots__ = ("_log", "_outcomes")

    def __init__(self, log: EventLogger, outcomes: dict[str, int]) -> None:
        self._log = log
        self._outcomes = outcomes

    def received(self, asked: Asked) -> None:
        """Record that a line was received."""
        command, arguments = _spell(asked.request)
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
        self._completed(asked, outcome, _level(reply.error), seconds, streamed_bytes + len(answer), facts)
        return answer

    def unanswered(self, asked: Asked) -> None:
        """Record that the asker left before the answer was ready."""
        self._completed(asked, "gone", "info", time.perf_counter() - asked.began, 0, {})

    def fault(self, error: BaseException) -> Internal:
        """Record a fault of ours with its traceback; returns what the client is told."""
        record_fault(self._log, error)
        return Internal()

    def _completed(
        self, asked: Asked, outcome: str, level: Level, seconds: float, size: int, facts: Mapping[str, Any]
    ) -> None:
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        command, arguments = _spell(asked.request)
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


def _spell(request: Request | None) -> tuple[str | None, str]:
    """Give a request's command and arguments safe to show."""
    return (None, "") if request is None else (escape(request.name), escape(request.argument))


def _level(error: CommandFailed | None) -> Level:
    if isinstance(error, Internal):
        return "error"
    return "warning" if isinstance(error, ClientFault) else "info"
