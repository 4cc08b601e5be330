"""A record's fields enter, one line of JSON in the Elastic Common Schema leaves.

The version is the one whose list of fields is kept in ``tests/data``.  What ECS has no field for
is below ``trio_cmd``, under its own name: so a new fact is never put into a field that means
something else.
"""

import ipaddress
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from trio_cmd.records.events import (
    CLIENT_CONNECTED,
    CLIENT_LOST,
    CLIENT_REFUSED,
    COMMAND_COMPLETED,
    COMMAND_RECEIVED,
    HANDLER_CRASHED,
    LISTENING,
    SERVER_STARTED,
    STOPPED,
)
from trio_cmd.records.render import encode, fit, utc

__all__ = ["ECS_VERSION", "EcsRender"]

ECS_VERSION = "9.4.0"

_CATEGORIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    LISTENING.action: ("network", ("info",)),
    SERVER_STARTED.action: ("process", ("start",)),
    CLIENT_CONNECTED.action: ("network", ("connection", "start")),
    CLIENT_REFUSED.action: ("network", ("connection", "denied")),
    COMMAND_RECEIVED.action: ("api", ("start",)),
    COMMAND_COMPLETED.action: ("api", ("end",)),
    CLIENT_LOST.action: ("network", ("connection", "end")),
    STOPPED.action: ("process", ("end",)),
}
_OTHER_CATEGORY = ("process", ("info",))
_FAILURES = frozenset((CLIENT_REFUSED.action, HANDLER_CRASHED.action))
# Field of ours -> field of ECS, where the value is the same.
_SAME: Mapping[str, str] = {
    "client": "client.address",
    "bytes_in": "client.bytes",
    "bytes_out": "server.bytes",
    "bytes": "server.bytes",
    "host": "server.address",
    "reason": "event.reason",
    "path": "file.path",
    "size": "file.size",
    "exit_status": "process.exit_code",
    "version": "service.version",
    "exception": "error.stack_trace",
}
# Handled one by one, or said by other fields.
_SPECIAL = frozenset(
    (
        *("timestamp", "level", "event", "action", "seconds", "outcome", "logger"),
        *("port", "uid", "pid", "arguments", "digest"),
    )
)
_HASHES = frozenset(("md5", "sha1", "sha256", "sha512"))
_NANOSECONDS = 1_000_000_000
_MAX_64 = (1 << 64) - 1
_MAX_128 = (1 << 128) - 1


class EcsRender:
    """Writes records as lines of ECS; see ``render_json``.

    Trace and span identifiers are those of one process: a random number, in which connection and
    request are counted.  So none is given twice, and no record pays for randomness.

    Args:
        seed: the random number, of 128 bits; a parameter for the tests.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = secrets.randbits(128) if seed is None else seed

    def __call__(self, fields: Mapping[str, Any], seconds: float) -> bytes:
        """Write a record as one JSON object."""
        return fit({"timestamp": utc(seconds), **fields}, self._line)

    def _line(self, fields: Mapping[str, Any]) -> bytes:
        line: dict[str, Any] = {
            "@timestamp": fields["timestamp"],
            "log.level": fields["level"],
            "message": fields["event"],
            "ecs.version": ECS_VERSION,
            "event": _event(fields),
        }
        if "logger" in fields:
            line["log.logger"] = fields["logger"]
        for name, value in self._places(fields):
            _put(line, name, value)
        return encode(line)

    def _places(self, fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Say which value goes to which field."""
        places = [
            (_SAME.get(name) or f"trio_cmd.{name}", value)
            for name, value in fields.items()
            if name not in _SPECIAL and value is not None
        ]
        places += _client(fields) if "client" in fields else _server(fields)
        if "command" in fields:
            words = (fields["command"] or "", fields.get("arguments", ""))
            places.append(("process.command_line", " ".join(filter(None, words))))
        if "digest" in fields:
            algorithm = fields.get("algorithm")
            where = f"file.hash.{algorithm}" if algorithm in _HASHES else "trio_cmd.digest"
            places.append((where, fields["digest"]))
        return places + self._identifiers(fields)

    def _identifiers(self, fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
        if "connection" not in fields:
            return []
        connection = fields["connection"]
        trace = ("trace.id", f"{(self._seed + connection) & _MAX_128:032x}")
        if "request" not in fields:
            return [trace]
        counted = (connection << 32) + fields["request"]
        return [trace, ("span.id", f"{((self._seed >> 64) + counted) & _MAX_64:016x}")]


def _event(fields: Mapping[str, Any]) -> dict[str, Any]:
    action = fields["action"]
    category, types = _CATEGORIES.get(action, _OTHER_CATEGORY)
    event: dict[str, Any] = {
        "kind": "event",
        "category": (category,),
        "type": types,
        "action": action,
        "dataset": "trio_cmd.log",
    }
    if action in _FAILURES:
        event["outcome"] = "failure"
    if "outcome" in fields:
        code = fields["outcome"]
        event["outcome"] = {"ok": "success", "gone": "unknown"}.get(code, "failure")
        if code != "ok":
            event["reason"] = code
    if "seconds" in fields:
        event["duration"] = round(fields["seconds"] * _NANOSECONDS)
    return event


def _client(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Say where a client is, and who, where that is known."""
    names = {"port": "client.port", "pid": "trio_cmd.client_pid"}
    places = [(place, fields[name]) for name, place in names.items() if name in fields]
    if _is_ip(fields["client"]):
        places.append(("client.ip", fields["client"]))
    if "uid" in fields:
        places.append(("client.user.id", str(fields["uid"])))
    return places


def _server(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    names = {"port": "server.port", "pid": "process.pid"}
    return [(place, fields[name]) for name, place in names.items() if name in fields]


def _put(line: dict[str, Any], name: str, value: Any) -> None:
    """Put a value into the tables that its dotted name leads to."""
    *tables, last = name.split(".")
    for table in tables:
        line = line.setdefault(table, {})
    line[last] = value


@lru_cache(maxsize=1024)
def _is_ip(client: str) -> bool:
    """Whether Elasticsearch takes an address for one: not "unix", and without a zone."""
    try:
        ipaddress.ip_address(client)
    except ValueError:
        return False
    return "%" not in client
