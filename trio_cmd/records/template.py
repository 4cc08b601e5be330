"""The records that each visit makes: pieces that were made before enter, lines leave.

All but some twenty bytes of them are the same for each connection, for each command of a
connection, or for each command with the same line.  So these pieces are made once, by the ordinary
way (``EventLogger.record`` and ``render_json``), and here they are joined: the bytes are those that
it would have made.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trio_cmd.records.blanks import BORDER, CLOSED, Blanks, make_blanks, spell
from trio_cmd.records.events import lost_event
from trio_cmd.records.render import MAX_LINE_BYTES, stamp

__all__ = [
    "MAX_SHOWN",
    "ConnectionTemplate",
    "LinePieces",
    "Template",
    "make_pieces",
    "make_template",
    "spell_facts",
]

MAX_SHOWN = 128  # characters of a line; so a record is never so long that it must be cut
_MAX_SPELLED = 2 * 2 * MAX_SHOWN  # each up to two in JSON, once as it is and once as its words
_MAX_REST = 1024  # stamp, outcome, names of fields, numbers, and the facts about a file


class LinePieces(NamedTuple):
    """What a line adds to its records, as JSON.

    Attributes:
        line: within the sentence.
        words: the fields ``command`` and ``arguments``.
    """

    line: str
    words: str


class Template:
    """What one connection adds to the records of its commands, as JSON.

    Args:
        pieces: of both records; see ``Blanks``.
        now: seconds since the epoch.
    """

    __slots__ = ("_completed", "_completed_end", "_received", "_received_end", "now")

    def __init__(self, pieces: str, now: Callable[[], float]) -> None:
        self.now = now
        self._received, self._received_end, self._completed, self._completed_end = pieces.split(BORDER)

    def join(
        self,
        received: str,
        completed: str,
        pieces: LinePieces,
        request: int,
        micros: int,
        size: int,
        facts: str = "",
    ) -> str:
        """Write the records of a command that was received and completed.

        Args:
            received: the time of the first; see ``stamp``.
            completed: the time of the second.
            pieces: of the line.
            request: its number.
            micros: how long it took, in millionths of a second.
            size: bytes of its answer.
            facts: what else is recorded of it; see ``spell_facts``.
        """
        line, words = pieces
        seconds = _SECONDS[micros] if micros < len(_SECONDS) else _spell_seconds(micros)
        return (
            f'{{"timestamp":"{received}"{self._received}{line}{self._received_end}{request}{words}}}\n'
            f'{{"timestamp":"{completed}"{self._completed}{line}{self._completed_end}{request}{words},'
            f'"outcome":"ok","seconds":{seconds},"bytes":{size}{facts}}}\n'
        )


class ConnectionTemplate:
    """What one connection adds to its records, as JSON.

    Args:
        context: the fields that are bound to the connection.
        blanks: those of their names.
        now: seconds since the epoch.
    """

    __slots__ = ("_blanks", "_client", "_commands", "_context", "_own", "now")

    def __init__(self, context: Mapping[str, Any], blanks: Blanks, now: Callable[[], float]) -> None:
        self.now = now
        self._blanks = blanks
        self._context = spell(context)[1:-1]
        self._own = len('"system":,') + len(spell(context["system"]))  # what only the system's name is of it
        self._client = spell(context["client"])[1:-1]
        self._commands: Template | None = None  # many never ask anything

    def is_plain(self) -> bool:
        """Tell whether no record has to be cut, or to be spelled by another encoder."""
        own = len(self._blanks.commands) + len(self._context) + len(self._client)
        # A certificate with many names makes it long.
        return self._context.isascii() and own + _MAX_SPELLED + _MAX_REST <= MAX_LINE_BYTES

    def connected(self) -> bytes:
        """Write the record of the beginning."""
        blank, rest = self._blanks.connected, self._context[self._own :]
        return (blank % (self._stamp(), self._client, rest)).encode()

    def lost(self, reason: str, seconds: float, requests: int, bytes_in: int, bytes_out: int) -> bytes | None:
        """Write the record of the end; ``None``: it is none of those that are ready.

        Args:
            reason: why it ended.
            seconds: how long it lasted, rounded.
            requests: how many there were.
            bytes_in: what was received.
            bytes_out: what was sent.
        """
        if lost_event(reason) != CLOSED:
            return None
        return (
            f"{self._blanks.lost % (self._stamp(), self._context)}"
            f'"{reason}","seconds":{spell(seconds)},"requests":{requests},'
            f'"bytes_in":{bytes_in},"bytes_out":{bytes_out}}}\n'
        ).encode()

    def commands(self) -> Template:
        """Give what makes the records of commands; the same each time."""
        if self._commands is None:
            own = (self._client, self._context)
            self._commands = Template(self._blanks.commands % (*own, *own), self.now)
        return self._commands

    def _stamp(self) -> str:
        return stamp(int(self.now() * 1_000_000))


def make_pieces(line: str, command: str, arguments: str) -> LinePieces:
    """Make the pieces of a line of printable ASCII.

    Args:
        line: as it is recorded, at most ``MAX_SHOWN`` characters.
        command: its first word, as it is recorded.
        arguments: the rest, as it is recorded.
    """
    return LinePieces(spell(line)[1:-1], "," + spell({"command": command, "arguments": arguments})[1:-1])


def spell_facts(facts: Mapping[str, Any]) -> str:
    """Write what the record of a command says besides, as JSON; nothing for none."""
    return "," + spell(facts)[1:-1] if facts else ""


def make_template(context: Mapping[str, Any], now: Callable[[], float]) -> ConnectionTemplate | None:
    """Make the template of a connection; ``None``: its records need the ordinary way.

    Args:
        context: the fields that are bound to the connection.
        now: seconds since the epoch.
    """
    blanks = make_blanks(tuple(context))
    if blanks is None:
        return None
    template = ConnectionTemplate(context, blanks, now)
    return template if template.is_plain() else None


def _spell_seconds(micros: int) -> str:
    return spell(micros / 1_000_000)


_SECONDS = tuple(map(_spell_seconds, range(1000)))  # hardly a quick command takes longer
