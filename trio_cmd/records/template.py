"""The two records of a command that went well: pieces that were made before enter, lines leave.

All but some twenty bytes of them are the same for each command of a connection, or for each
command with the same line.  So these pieces are made once, by the ordinary way
(``EventLogger.record`` and ``render_json``), and here they are joined: the bytes are those that it
would have made.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from trio_cmd.records.events import COMMAND_COMPLETED, COMMAND_RECEIVED, Event
from trio_cmd.records.render import MAX_LINE_BYTES, render_json, stamp

__all__ = ["MAX_SHOWN", "LinePieces", "Template", "make_pieces", "make_template", "spell_facts"]

MAX_SHOWN = 128  # characters of a line; so a record is never so long that it must be cut
_MAX_SPELLED = 2 * 2 * MAX_SHOWN  # each up to two in JSON, once as it is and once as its words
_MAX_REST = 1024  # stamp, outcome, names of fields, numbers, and the facts about a file
_HEAD = len('{"timestamp":""') + len(stamp(0))
# No text that is safe to show has it; see ``escape``.
_PLACE = "\x01"
_BLANK = "\x02{}\x02"
_BORDER = "\n"  # none is in a record
_LINE_ENDS = '\\u0001",'  # both sentences end with the line
_encode = msgspec.json.Encoder().encode


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
        context: the fields that are bound to the connection.
        now: seconds since the epoch.
    """

    __slots__ = ("_completed", "_completed_end", "_received", "_received_end", "now")

    def __init__(self, context: Mapping[str, Any], now: Callable[[], float]) -> None:
        self.now = now
        pieces = _fill(context)
        self._received, self._received_end, self._completed, self._completed_end = pieces

    def size(self) -> int:
        """Tell how long these pieces are, of the longer record."""
        return len(self._completed) + len(self._completed_end)

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


def make_template(context: Mapping[str, Any], now: Callable[[], float]) -> Template | None:
    """Make the template of a connection; ``None``: its records need the ordinary way.

    Args:
        context: the fields that are bound to the connection.
        now: seconds since the epoch.
    """
    if not all(str(value).isascii() for value in context.values()):
        return None  # other encoders spell such lines
    template = Template(context, now)
    if template.size() + _MAX_SPELLED + _MAX_REST > MAX_LINE_BYTES:
        return None  # a certificate with many names: its records may have to be cut
    return template


def _fill(context: Mapping[str, Any]) -> list[str]:
    """Give the pieces of ``_cut`` for one connection."""
    blank = _blank(tuple(context), tuple(map(type, context.values())))
    spelled = {name: _spell(value) for name, value in context.items()}
    texts = {name: text[1:-1] if text[0] == '"' else text for name, text in spelled.items()}
    return (blank % texts).split(_BORDER)


@lru_cache(maxsize=16)  # there are few combinations
def _blank(names: tuple[str, ...], types: tuple[type, ...]) -> str:
    """Write the pieces of all connections, with ``%(NAME)s`` in place of what is bound to one."""
    text = _BORDER.join(_cut({name: _BLANK.format(name) for name in names})).replace("%", "%%")
    for name, kind in zip(names, types, strict=True):
        place = _spell(_BLANK.format(name))
        text = text.replace(place[1:-1] if kind is str else place, f"%({name})s")
    return text


def _cut(context: Mapping[str, Any]) -> list[str]:
    return [*_halve(COMMAND_RECEIVED, context), *_halve(COMMAND_COMPLETED, context)]


def _halve(event: Event, context: Mapping[str, Any]) -> tuple[str, str]:
    """Give what stands in a record between its time and its line, and between its line and its number."""
    sentence = event.sentence.format(**{**context, "line": _PLACE})
    fields = {**context, "level": event.level, "action": event.action, "event": sentence}
    record = render_json(fields, 0).decode()[_HEAD : -len("}\n")]
    head, found, end = record.partition(_LINE_ENDS)
    assert found
    return head, f'",{end},"request":'


def _spell(value: object) -> str:
    return _encode(value).decode()


def _spell_seconds(micros: int) -> str:
    return _spell(micros / 1_000_000)


_SECONDS = tuple(map(_spell_seconds, range(1000)))  # hardly a quick command takes longer
