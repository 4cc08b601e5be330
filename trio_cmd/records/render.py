"""A record's fields enter, one line of bytes leaves: JSON, or the text of Twisted's log.

Whatever the fields hold, the line is pure ASCII, at most ``MAX_LINE_BYTES`` long, and one line
for its reader: the shippers in use cut longer ones and then pass on broken JSON.
"""

import bisect
import json
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

__all__ = [
    "MAX_LINE_BYTES",
    "Render",
    "encode",
    "fit",
    "render_at_once",
    "render_json",
    "render_twisted",
    "stamp",
    "utc",
]

Render = Callable[[Mapping[str, Any], float], bytes]
"""Makes a line of a record's fields and its time, in seconds since the epoch."""

MAX_LINE_BYTES = 4096  # with the line feed; rsyslog's own limit is 8096
_HEAD = ("level", "event", "action", "system", "connection", "client", "port")
_KEEPS_ITS_END = "exception"  # the last lines of a traceback say what went wrong
# Short, and wrong if cut: half a digest is that of another algorithm.
_KEPT_WHOLE = frozenset(("timestamp", "level", "action", "system", "client", "digest"))
# How many characters texts may have: a character takes up to twelve bytes.  With the last, any record fits.
_CUTS = (3500, 2500, 1750, 1250, 900, 640, 450, 320, 230, 160, 110, 64, 32, 16)

_DIGITS = tuple(f"{number:03d}" for number in range(1000))  # to look them up takes half the time

_encode_any = msgspec.json.Encoder().encode


def render_json(fields: Mapping[str, Any], seconds: float) -> bytes:
    """Write a record as one JSON object.

    Args:
        fields: of the record, ``event``, ``level``, ``action`` and ``system`` among them.
        seconds: since the epoch.
    """
    ordered = {"timestamp": utc(seconds)}
    ordered.update((name, fields[name]) for name in _HEAD if name in fields)
    ordered.update(fields)
    return fit(ordered, encode)


def render_at_once(
    seconds: float,
    level: str,
    sentence: str,
    action: str,
    context: Mapping[str, Any],
    fields: Mapping[str, Any],
) -> bytes | None:
    """Write the same line as ``render_json``, of fields that are in its order already.

    Args:
        seconds: since the epoch.
        level: of the record.
        sentence: its ``event``.
        action: of the record.
        context: the fields bound to the logger.
        fields: the others.

    Returns:
        ``None``: they are not, or the line has to be cut, so it needs the ordinary way.
    """
    if not _is_in_order((*context, *fields)):
        return None
    ordered = {
        "timestamp": utc(seconds),
        "level": level,
        "event": sentence,
        "action": action,
        **context,
        **fields,
    }
    line = encode(ordered)
    return line if len(line) <= MAX_LINE_BYTES else None


@lru_cache(maxsize=256)  # there are few combinations
def _is_in_order(names: tuple[str, ...]) -> bool:
    head = [name for name in _HEAD if name in names]
    return list(names[: len(head)]) == head


def render_twisted(fields: Mapping[str, Any], seconds: float) -> bytes:
    """Write a record as Twisted's log does; more lines of one record begin with a tab."""
    return fit({"timestamp": _local(seconds), **fields}, _twisted_line)


def encode(fields: Mapping[str, Any]) -> bytes:
    """Write a line of JSON, pure ASCII."""
    line = _encode_any(fields)
    if not line.isascii():  # msgspec leaves such characters as they are; what it writes is the same otherwise
        line = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return line + b"\n"


def _twisted_line(fields: Mapping[str, Any]) -> bytes:
    text = f"{fields['event']}\n{fields['exception']}" if "exception" in fields else fields["event"]
    mark = " (truncated)" if "truncated" in fields else ""
    line = f"{fields['timestamp']} [{fields['system']}] " + text.replace("\n", "\n\t") + mark
    return line.encode("ascii", "backslashreplace") + b"\n"


def fit(fields: dict[str, Any], write: Callable[[Mapping[str, Any]], bytes]) -> bytes:
    """Cut the longest texts as little as makes the line short enough.

    Args:
        fields: of the record; a ``truncated`` is added where something was cut.
        write: makes a line of them, of any form.
    """
    line = write(fields)
    if len(line) <= MAX_LINE_BYTES:
        return line

    def cut(limit: int) -> bytes:
        return write({**fields, **_cut_texts(fields, limit), "truncated": True})

    # A search by halves: clients send such lines on purpose, and each try costs.
    index = bisect.bisect_left(_CUTS, -MAX_LINE_BYTES, hi=len(_CUTS) - 1, key=lambda limit: -len(cut(limit)))
    return cut(_CUTS[index])


def _cut_texts(fields: Mapping[str, Any], limit: int) -> dict[str, str]:
    return {
        name: text[-limit:] if name == _KEEPS_ITS_END else text[:limit]
        for name, text in fields.items()
        if isinstance(text, str) and len(text) > limit and name not in _KEPT_WHOLE
    }


def utc(seconds: float) -> str:
    """Write a time as every log reader takes it: with six digits and a ``Z``."""
    return stamp(int(seconds * 1_000_000))


def stamp(micros: int) -> str:
    """Write a time in millionths of a second; see ``utc``."""
    whole, micro = divmod(micros, 1_000_000)
    return f"{_utc_second(whole)}.{_DIGITS[micro // 1000]}{_DIGITS[micro % 1000]}Z"


@lru_cache(maxsize=2)  # many records fall into one second
def _utc_second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def _local(seconds: float) -> str:
    return _local_second(int(seconds))


@lru_cache(maxsize=2)
def _local_second(whole: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(whole))
