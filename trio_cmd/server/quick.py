"""A run of lines whose commands are answered at once: lines enter, their answers leave, all recorded.

Only what needs no care is done here: plain lines, commands that are allowed and answer well.  The
first line that needs some ends the run and is taken in the ordinary way; so is every line while
the record has another form.  What a run does is what the ordinary way would do, in less time.
"""

from time import perf_counter_ns

from trio_cmd.commands import Command, Surroundings
from trio_cmd.records import EventLogger
from trio_cmd.records.render import stamp
from trio_cmd.records.template import spell_facts
from trio_cmd.server.at_once import AT_ONCE_PER_TURN
from trio_cmd.server.plain_lines import PlainLine, PlainLines
from trio_cmd.server.replies import Budget
from trio_cmd.server.tally import Tally
from trio_cmd.wire.messages import Form, Reply, format_reply

__all__ = ["QuickAnswers"]

_MICRO = 1_000_000
_NOT_SHARED = spell_facts({"shared": False})


class QuickAnswers:
    """Answers runs of lines of one client.

    Args:
        log: bound to the connection.
        tally: counts the commands of all clients.
        plain_lines: that were asked before.
        budget: of all unwritten answers.

    Attributes:
        at_once: how many slow commands were answered without waiting, in all runs.
        has_tried: whether the line that ended the last run is a slow command that would have to wait.
    """

    __slots__ = ("_budget", "_log", "_plain_lines", "_tally", "at_once", "has_tried")

    def __init__(self, log: EventLogger, tally: Tally, plain_lines: PlainLines, budget: Budget) -> None:
        self.at_once = 0
        self.has_tried = False
        self._budget = budget
        self._log = log
        self._tally = tally
        self._plain_lines = plain_lines

    def answer(
        self, lines: list[bytes], surroundings: Surroundings, form: Form, requests: int, max_bytes: int
    ) -> tuple[int, bytes, bool]:
        """Answer the first lines, as far as all is plain, and record them.

        Args:
            lines: the next ones, with their endings.
            surroundings: with the commands that are allowed.
            form: of the answers.
            requests: how many there were before.
            max_bytes: behind which no further answer is made.

        Returns:
            How many were taken, their answers, and whether the conversation ends behind them.
        """
        template = self._log.template()
        if template is None:  # the record has a form that cannot be made in haste
            return 0, b"", False
        answers: list[bytes] = []
        records: list[str] = []
        recall, join, count = self._plain_lines.recall, template.join, self._tally.add
        start, micros = perf_counter_ns(), int(template.now() * _MICRO)
        began, received, closes = 0, stamp(micros), False
        for line in lines:
            if self.at_once >= AT_ONCE_PER_TURN:
                break
            if (plain := recall(line)) is None or (found := self._ask(plain, surroundings)) is None:
                break
            reply, facts = found
            requests += 1
            ended = (perf_counter_ns() - start) // 1000
            took, completed = ended - began, stamp(micros + ended)
            seconds = took / _MICRO
            answer = (
                reply.text() if form == "text" else format_reply(reply, form, requests, plain.name, seconds)
            )
            count(plain.name, "ok", seconds)
            records.append(join(received, completed, plain.pieces, requests, took, len(answer), facts))
            answers.append(answer)
            max_bytes -= len(answer)
            closes = reply.closes
            if closes or max_bytes <= 0:
                break
            began, received = ended, completed
        if records:
            self._log.put_commands("".join(records), 2 * len(records))
        return len(answers), b"".join(answers), closes

    def _ask(self, plain: PlainLine, surroundings: Surroundings) -> tuple[Reply, str] | None:
        """Get the answer, and what its record says besides, unless it needs care."""
        command = surroundings.commands.get(plain.name)
        if command is None or command.counts:  # what a run answers is recorded behind it
            return None
        try:
            if command.answer is not None:
                reply = command.answer(plain.argument, surroundings)
                return None if reply.record or _needs_care(reply) else (reply, "")
            return self._ask_at_once(command, plain, surroundings)
        except Exception:  # it is asked again in the ordinary way, which tells of it
            return None

    def _ask_at_once(
        self, command: Command, plain: PlainLine, surroundings: Surroundings
    ) -> tuple[Reply, str] | None:
        """Get the answer of a slow command that takes no waiting; see ``at_once``."""
        if command.at_once is None:
            return None
        self._budget.check()
        reply = command.at_once(plain.argument, surroundings)
        if reply is None:
            self.has_tried = True
            return None
        if _needs_care(reply):
            return None
        self.at_once += 1
        return reply, _NOT_SHARED + spell_facts(reply.record)


def _needs_care(reply: Reply) -> bool:
    return reply.error is not None or reply.form is not None
