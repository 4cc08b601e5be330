"""Names of what is bound to a connection enter, its records leave with blanks for the values.

They are made by the ordinary way (``render_json``), once for all connections; ``template`` fills
them in.
"""

from collections.abc import Mapping
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
from trio_cmd.records.render import render_json, stamp

__all__ = ["BORDER", "CLOSED", "Blanks", "make_blanks", "spell"]

BORDER = "\n"  # between pieces; none is in a record
CLOSED = lost_event("closed")  # what most connections have in common at their end

_HEAD = len('{"timestamp":""') + len(stamp(0))
_TIME = '{"timestamp":"%s"'
# No text that is safe to show has them; see ``escape``.
_PLACE = "\x01"
_BLANK = "\x02{}\x02"
_LINE_ENDS = '\\u0001",'  # both sentences end with the line
_FACTS = ',"reason":'
_encode = msgspec.json.Encoder().encode


def spell(value: object) -> str:
    """Write a value as JSON."""
    return _encode(value).decode()


class Blanks(NamedTuple):
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
def make_blanks(names: tuple[str, ...]) -> Blanks | None:
    """Make the blanks; ``None``: the fields do not stand together in a record.

    Args:
        names: of the fields that are bound to a connection, ``system`` first.
    """
    context = {name: _BLANK.format(name) for name in names}
    connected = _render(CLIENT_CONNECTED, {**context, "system": SYSTEM})
    lost = _render(CLIENT_LOST, context, why=CLOSED[1]).replace("}\n", _FACTS)
    commands = BORDER.join([*_halve(COMMAND_RECEIVED, context), *_halve(COMMAND_COMPLETED, context)])
    run = spell(context)[1:-1]
    rest = run.removeprefix(spell({"system": context["system"]})[1:-1] + ",")
    if commands.count(run) != 2:
        return None
    return Blanks(_TIME + _blank(connected, rest), _blank(commands, run), _TIME + _blank(lost, run))


def _blank(text: str, run: str) -> str:
    """Put ``%s`` in place of a run of fields, and of the client."""
    client = spell(_BLANK.format("client"))[1:-1]
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
