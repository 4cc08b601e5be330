"""The records that each visit makes: pieces that were made before enter, lines leave.

All but some twenty bytes of them are the same for each connection, for each command of a
connection, or for each command with the same line.  So these pieces are made once, by the ordinary
way (``EventLogger.record`` and ``render_json``), and here they are joined: the bytes are those that
it would have made.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from trio_cmd.records.events import (
    CLIENT_CONNECTED,
    CLIENT_LOST,
    COMMAND_COMPLETED,
    COMMAND_RECEIVED,
    SYSTEM,
    Event,
    lost_event,
)
from trio_cmd.records.render import MAX_LINE_BYTES, render_json, stamp

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
_HEAD = len('{"timestamp":""') + len(stamp(0))
# No text that is safe to show has them; see ``escape``.
_PLACE = "\x01"
_BLANK = "\x02{}\x02"
_BORDER = "\n"  # none is in a record
_LINE_ENDS = '\\u0001",'  # both sentences end with the line
_encode = msgspec.json.Encoder().encode
_FACTS = ',"reason":'
_CLOSED = lost_event("closed")  # what most connections have in common at their end


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
        pieces: of both records; see ``_halve``.
        now: seconds since the epoch.
    """

    __slots__ = ("_completed", "_completed_end", "_received", "_received_end", "now")

    def __init__(self, pieces: str, now: Callable[[], float]) -> None:
        self.now = now
        self._received, self._received_end, self._completed, self._completed_end = pieces.split(_BORDER)

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
        context: the fields that are bound to the connection; in JSON they are pure ASCII.
        blanks: those of their names.
        now: seconds since the epoch.
    """

    __slots__ = ("_blanks", "_client", "_commands", "_context", "_own", "now")

    def __init__(self, context: Mapping[str, Any], blanks: "_Blanks", now: Callable[[], float]) -> None:
        self.now = now
        self._blanks = blanks
        self._context = _spell(context)[1:-1]
        self._own = len('"system":,') + len(_spell(context["system"]))  # what only the system's name is of it
        self._client = _spell(context["client"])[1:-1]
        self._commands: Template | None = None  # many never ask anything

    def size(self) -> int:
        """Tell how long a record is at most, without what comes from a line."""
        return len(self._blanks.commands) + len(self._context) + len(self._client)

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
        if lost_event(reason) != _CLOSED:
            return None
        return (
            f"{self._blanks.lost % (self._stamp(), self._context)}"
            f'"{reason}","seconds":{_spell(seconds)},"requests":{requests},'
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
    return LinePieces(_spell(line)[1:-1], "," + _spell({"command": command, "arguments": arguments})[1:-1])


def spell_facts(facts: Mapping[str, Any]) -> str:
    """Write what the record of a command says besides, as JSON; nothing for none."""
    return "," + _spell(facts)[1:-1] if facts else ""


def make_template(context: Mapping[str, Any], now: Callable[[], float]) -> ConnectionTemplate | None:
    """Make the template of a connection; ``None``: its records need the ordinary way.

    Args:
        context: the fields that are bound to the connection.
        now: seconds since the epoch.
    """
    blanks = _make_blanks(tuple(context))
    if blanks is None or not _spell(context).isascii():
        return None  # other encoders spell such lines
    template = ConnectionTemplate(context, blanks, now)
    if template.size() + _MAX_SPELLED + _MAX_REST > MAX_LINE_BYTES:
        return None  # a certificate with many names: its records may have to be cut
    return template


class _Blanks(NamedTuple):
    """The records of all connections with the same fields, with ``%s`` in place of what is one's own.

    Attributes:
        connected: wants the time, the client, and the fields but for the first.
        commands: the pieces of both records, each wants the client and the fields.
        lost: up to the reason; wants the time and the fields.
    """

    connected: str
    commands: str
    lost: str


@lru_cache(maxsize=16)  # there are few combinations
def _make_blanks(names: tuple[str, ...]) -> _Blanks | None:
    """Make the blanks; ``None``: the fields do not stand together in a record."""
    context = {name: _BLANK.format(name) for name in names}
    connected = _render(CLIENT_CONNECTED, {**context, "system": SYSTEM})
    lost = _render(CLIENT_LOST, context, why=_CLOSED[1]).replace("}\n", _FACTS)
    commands = _BORDER.join([*_halve(COMMAND_RECEIVED, context), *_halve(COMMAND_COMPLETED, context)])
    run = _spell(context)[1:-1]
    own = _spell({"system": context["system"]})[1:-1] + ","
    rest = run.removeprefix(own)
    if rest == run or commands.count(run) != 2:
        return None
    time = '{"timestamp":"%s"'
    return _Blanks(time + _blank(connected, rest), _blank(commands, run), time + _blank(lost, run))


def _blank(text: str, run: str) -> str:
    """Put ``%s`` in place of a run of fields, and of the client."""
    client = _spell(_BLANK.format("client"))[1:-1]
    return text.replace("%", "%%").replace(run, "%s").replace(client, "%s")


def _halve(event: Event, context: Mapping[str, Any]) -> tuple[str, str]:
    """Give what stands in a record between its time and its line, and between its line and its number."""
    record = _render(event, context, line=_PLACE)
    head, found, end = record[: -len("}\n")].partition(_LINE_ENDS)
    assert found
    return head, f'",{end},"request":'


def _render(event: Event, context: Mapping[str, Any], **values: str) -> str:
    """Write a record without fields of its own, from behind its time, in the ordinary way."""
    sentence = event.sentence.format(**{**context, **values})
    fields = {**context, "level": event.level, "action": event.action, "event": sentence}
    return render_json(fields, 0).decode()[_HEAD:]


def _spell(value: object) -> str:
    return _encode(value).decode()


def _spell_seconds(micros: int) -> str:
    return _spell(micros / 1_000_000)


_SECONDS = tuple(map(_spell_seconds, range(1000)))  # hardly a quick command takes longer
