"""What came of asking, without anybody asked."""

from typing import Any

from trio_cmd.client.answers import Reply
from trio_cmd.client.errors import AskError, CommandError, Unreachable
from trio_cmd.client.fleet import Outcome
from trio_cmd.client.hosts import Host


def answer(host: str, command: str, result: dict[str, Any], seconds: float = 0.001) -> Outcome:
    """A host has answered a command well."""
    reply = Reply(command.split(maxsplit=1)[0], result, seconds)
    return Outcome(Host(host, host), command.encode("utf-8", "surrogateescape"), reply=reply)


def failure(
    host: str,
    command: str,
    code: str = "not-found",
    message: str = "no such file",
    result: dict[str, Any] | None = None,
) -> Outcome:
    """A host has answered a command with an error."""
    error = CommandError(code, message, result, 0.002)
    return Outcome(Host(host, host), command.encode(), error=error)


def silence(host: str, error: AskError | None = None) -> Outcome:
    """A host has not answered."""
    return Outcome(Host(host, host), b"", error=error or Unreachable("connection refused"))


def digest(host: str, hexadecimal: str = "aa" * 20, path: str = "/etc/hostname") -> Outcome:
    """A host has hashed a file."""
    result = {"path": path, "algorithm": "sha1", "digest": hexadecimal, "bytes": 4}
    return answer(host, f"comphash {path}", result)
