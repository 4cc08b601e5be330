"""What is asked: a line as typed enters, a line that can be sent leaves, or what to say instead."""

from collections.abc import Mapping, Sequence

from trio_cmd.client.sources import Source
from trio_cmd.errors import BadEncoding
from trio_cmd.escape import escape
from trio_cmd.settings.values import NAME
from trio_cmd.tokens import is_auth
from trio_cmd.wire.messages import BLANKS, Request, parse_request

__all__ = ["check_question", "followed_log", "read_questions"]

_CLOSES = "the connection is closed when all is answered; leave it out"
_INSTEAD: Mapping[bytes, str] = {
    b"format": "the form is chosen here, by --output FORMAT",
    b"exit": _CLOSES,
    b"quit": _CLOSES,
}
"""What this program does by itself: first word -> what to do instead of asking it."""


def check_question(line: bytes) -> bytes:
    """Check a command, and take off the blanks around it.

    Raises:
        ValueError: it cannot be asked; what to do instead, in one line.
    """
    line = line.strip(BLANKS)
    if is_auth(line):  # first of all, so that no complaint shows a token
        raise ValueError("auth is said by itself: give the token in a file, --token-file FILE")
    request = _parse(line)
    if request.name in _INSTEAD:
        raise ValueError(f"{escape(request.name)} is not asked: {_INSTEAD[request.name]}")
    return line


def followed_log(question: bytes) -> str | None:
    """Tell which log a checked command follows.

    Returns:
        Its name, empty for the default one, or ``None``: the command is no ``follow``.

    Raises:
        ValueError: that is no name of a log.
    """
    request = _parse(question)
    if request.name != b"follow":
        return None
    log = request.argument.decode("ascii", "replace")
    if log and not NAME.fullmatch(log):
        raise ValueError(f"follow takes the name of a log, of a-z, 0-9 and -: {escape(request.argument)}")
    return log


def read_questions(source: Source) -> list[bytes]:
    """Read a file of commands: one in a line; empty ones, and those that begin with ``#``, are for people.

    Raises:
        ValueError: what is wrong, with its file and line, or that there is no command in it.
    """

    def parse(line: bytes) -> Sequence[bytes]:
        line = line.strip(BLANKS)
        return (check_question(line),) if line and not line.startswith(b"#") else ()

    return source.read_each(parse, "no command in it; write one in each line")


def _parse(line: bytes) -> Request:
    if b"\n" in line:
        raise ValueError("a command is one line; put several into a file: --commands FILE")
    try:
        request = parse_request(line)
    except BadEncoding:
        raise ValueError("a command has no control characters; such a file cannot be asked for") from None
    if request is None:
        raise ValueError("the command is empty; ping asks whether a server is there")
    return request
