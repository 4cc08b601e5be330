"""Outcomes enter, bytes for standard output leave, in one of four forms."""

from collections.abc import Callable, Iterator, Sequence

from trio_cmd.client.checksums import format_checksum
from trio_cmd.client.errors import CommandError
from trio_cmd.client.fleet import Outcome, Watcher
from trio_cmd.client.folding import fold_names
from trio_cmd.client.grouping import Group, Grouping
from trio_cmd.client.hosts import Host
from trio_cmd.client.phrases import encode_json, format_error, format_outcome
from trio_cmd.escape import escape

__all__ = ["Checksums", "Groups", "JsonLines", "Output", "TextLines"]

Write = Callable[[bytes], None]
"""Takes what is to be written, and never waits."""


class Output(Watcher):
    """A watcher that writes.

    Args:
        write: takes whole lines.
    """

    def __init__(self, write: Write) -> None:
        self._write = write

    def finish(self) -> None:
        """Write what could only be written when all is known, or all that will be."""


class TextLines(Output):
    """``HOST: LINE``, as the hosts answer."""

    def answered(self, outcome: Outcome) -> None:
        """Write all lines of one answer together."""
        name = outcome.host.name
        self._write("".join(f"{name}: {line}\n" for line in format_outcome(outcome)).encode())


class JsonLines(Output):
    """An object for each answer, as the hosts answer, in the form of the wire."""

    def answered(self, outcome: Outcome) -> None:
        """Write one object."""
        self._write(encode_json(_describe(outcome)).encode() + b"\n")


def _describe(outcome: Outcome) -> dict[str, object]:
    """Say what came of a question in the words of the wire; ``command`` is null for a host's own reason."""
    command = escape(outcome.command) if outcome.is_answer else None
    described: dict[str, object] = {"host": outcome.host.name, "command": command}
    if outcome.reply is not None:
        return described | {"ok": True, "result": outcome.reply.result, "seconds": outcome.reply.seconds}
    error = outcome.error
    assert error is not None
    described["ok"] = False
    if isinstance(error, CommandError) and error.result is not None:
        described["result"] = error.result
    described["error"] = {"code": error.code, "message": error.message}
    return described | ({"seconds": error.seconds} if isinstance(error, CommandError) else {})


class Groups(Output):
    """The same answer once, with its hosts, when all have answered.

    Args:
        write: takes whole lines.
        commands: as asked; where there are several, each has a heading.
        hosts: that are asked.
    """

    def __init__(self, write: Write, commands: Sequence[bytes], hosts: Sequence[Host]) -> None:
        super().__init__(write)
        self._commands = list(dict.fromkeys(commands))
        self._grouping = Grouping(self._commands, hosts)

    def answered(self, outcome: Outcome) -> None:
        """Keep one."""
        self._grouping.add(outcome)

    def finish(self) -> None:
        """Write all groups."""
        self._write("\n".join(self._blocks()).encode())

    def _blocks(self) -> Iterator[str]:
        if len(self._commands) == 1:  # whoever has not answered stands among those that have
            yield from map(self._block, self._grouping.of(self._commands[0], b""))
            return
        for command in [*self._commands, b""]:
            for number, group in enumerate(self._grouping.of(command)):
                yield _heading(command) * (number == 0) + self._block(group)

    def _block(self, group: Group) -> str:
        count = f"{len(group.hosts)} host" + ("s" if len(group.hosts) > 1 else "")
        names = ", ".join(fold_names(self._grouping.names(group)))
        return f"{count}: {names}\n" + "".join(f"  {line}\n" for line in group.lines)


def _heading(command: bytes) -> str:
    return f"== {escape(command) or 'no answer'} ==\n\n"


class Checksums(Output):
    """Lines that ``sha256sum -c`` and its like read; what is no checksum is a complaint.

    Args:
        write: takes whole lines.
        complain: takes one line without its ending, for standard error.
    """

    def __init__(self, write: Write, complain: Callable[[str], object]) -> None:
        super().__init__(write)
        self._complain = complain

    def answered(self, outcome: Outcome) -> None:
        """Write one line, or complain."""
        checksum = None if outcome.reply is None else format_checksum(outcome.command, outcome.reply.result)
        if checksum is not None:
            self._write(checksum)
            return
        for line in _reasons(outcome):
            self._complain(f"{outcome.host.name}: {line}")


def _reasons(outcome: Outcome) -> Sequence[str]:
    if outcome.error is not None:
        return [format_error(outcome.error)]
    return [f"no checksum in the answer to {escape(outcome.command)}"]
