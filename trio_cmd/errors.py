"""What can go wrong, by whose fault, and the code sent for it.

An error is raised where it is known and becomes a reply in one place, the session.  Each class
has one code, the word for it in JSON replies and in the record, and one line for the operator:
what happened, and what to type instead.
"""

import errno
import os
from collections.abc import Iterable
from typing import ClassVar

from trio_cmd.escape import escape, quote

__all__ = [
    "BadArguments",
    "BadEncoding",
    "BadToken",
    "Busy",
    "ChangedWhileRead",
    "ClientFault",
    "CommandFailed",
    "DeadlinePassed",
    "ForeignLink",
    "HostFault",
    "Internal",
    "LineTooLong",
    "ListenError",
    "NotARegularFile",
    "NotAllowed",
    "NotFound",
    "NotPermitted",
    "OurFault",
    "OutsideRoots",
    "OutputTooLong",
    "PathMissing",
    "ProgramFailed",
    "SettingsError",
    "Stopping",
    "TooLarge",
    "TooManyWrongTokens",
    "Unavailable",
    "UnknownCommand",
    "from_os_error",
]


class CommandFailed(Exception):
    """A command that has no answer but an error.

    Attributes:
        code: the word for it on the wire and in the record.
        prefix: what the text answer begins with; ``message`` follows.
        message: one line, safe to show.
    """

    code: ClassVar[str]
    prefix: ClassVar[str] = "An error occured : "  # the tutorial's spelling

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ClientFault(CommandFailed):
    """The client asked wrongly: typing something else helps."""


class HostFault(CommandFailed):
    """The host cannot give what was asked, and the client could not know."""


class OurFault(CommandFailed):
    """The server cannot answer now; asking later may help."""


class UnknownCommand(ClientFault):
    """The first word is no command."""

    code = "unknown-command"
    prefix = ""

    def __init__(self) -> None:
        super().__init__("Command not found.")


class BadArguments(ClientFault):
    """The command is known, its argument is not of its form."""

    code = "bad-arguments"


class PathMissing(BadArguments):
    """``comphash`` without a path, answered in the tutorial's words."""

    prefix = ""

    def __init__(self) -> None:
        super().__init__("Please provide a path.")


class BadEncoding(ClientFault):
    """The line holds control characters."""

    code = "bad-encoding"

    def __init__(self) -> None:
        super().__init__("control characters in the line; send text, blanks and tabs only")


class LineTooLong(ClientFault):
    """The line is longer than allowed; the stream cannot be read any further."""

    code = "line-too-long"

    def __init__(self, max_line_bytes: int) -> None:
        super().__init__(f"line longer than {max_line_bytes} bytes")


class NotAllowed(ClientFault):
    """The command exists, but no grant of this client names it."""

    code = "not-allowed"

    def __init__(self, name: bytes) -> None:
        super().__init__(f"{escape(name)} is not allowed here")


class BadToken(ClientFault):
    """No grant has such a token, or not for this client."""

    code = "bad-token"

    def __init__(self) -> None:
        super().__init__("wrong token; ask the operator of this host for one")


class NotFound(HostFault):
    """There is no such file or log."""

    code = "not-found"


class NotPermitted(HostFault):
    """The server's user may not read it."""

    code = "not-permitted"


class ForeignLink(NotPermitted):
    """The path of a log is a symbolic link of somebody who must not choose what is shown."""

    def __init__(self, path: bytes) -> None:
        who = "only those of root and the server's user are followed"
        super().__init__(f"a symbolic link of another user: {quote(path)}; {who}")


class NotARegularFile(HostFault):
    """A directory, a FIFO, a device, a socket, or a file the kernel makes up as it is read."""

    code = "not-a-regular-file"

    def __init__(self, path: bytes) -> None:
        super().__init__(f"not a regular file: {quote(path)}")


class OutsideRoots(HostFault):
    """The path leads outside of the roots; nothing is said of what is there, not even whether it is."""

    code = "outside-roots"

    def __init__(self, path: bytes, roots: Iterable[bytes]) -> None:
        super().__init__(f"outside the roots: {quote(path)}; ask below {' or '.join(map(quote, roots))}")


class TooLarge(HostFault):
    """The file is larger than the settings allow."""

    code = "too-large"


class ChangedWhileRead(HostFault):
    """The file was written, truncated or replaced while it was read."""

    code = "changed-while-read"

    def __init__(self, path: bytes) -> None:
        super().__init__(f"changed while it was read: {quote(path)}; ask again")


class ProgramFailed(HostFault):
    """A program that ran for the answer ended with an error."""

    code = "program-failed"

    def __init__(self, program: str, exit_status: int) -> None:
        how = (
            f"exited with status {exit_status}" if exit_status >= 0 else f"was ended by signal {-exit_status}"
        )
        super().__init__(f"{program} {how}")


class OutputTooLong(HostFault):
    """A program printed more than it may; it was ended."""

    code = "output-too-long"

    def __init__(self, program: str, max_bytes: int) -> None:
        super().__init__(f"{program} printed more than {max_bytes} bytes and was ended")


class Unavailable(HostFault):
    """The host cannot give it now: an input/output error, or a disk that does not answer."""

    code = "unavailable"


class Busy(OurFault):
    """All places for such work are taken, and enough already waits."""

    code = "busy"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; try again later")


class TooManyWrongTokens(Busy):
    """There were so many from where this client is that for a while none is compared."""

    def __init__(self, address: str, seconds: int) -> None:
        OurFault.__init__(self, f"Too many wrong tokens from {address}, try again in {seconds} s.")


class DeadlinePassed(OurFault):
    """The work did not end in its time."""

    code = "deadline"

    def __init__(self, command: str, seconds: float) -> None:
        super().__init__(f"{command} not finished in {seconds:g} s")


class Stopping(OurFault):
    """The server stopped before the answer was ready."""

    code = "stopping"

    def __init__(self) -> None:
        super().__init__("server is stopping; ask again when it is back")


class Internal(OurFault):
    """A fault of this program; its traceback is in the record."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("internal error")


class SettingsError(Exception):
    """The settings cannot be used.

    Attributes:
        faults: one line each, all that were found.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class ListenError(Exception):
    """The address cannot be listened on; the message says why and what to do instead."""


_BY_ERRNO: dict[int, type[HostFault]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.ELOOP: NotFound,
    errno.ENAMETOOLONG: NotFound,
    errno.EACCES: NotPermitted,
    errno.EPERM: NotPermitted,
}


def from_os_error(error: OSError, path: bytes) -> HostFault:
    """Say an operating system's error in Python's form, with the path as it was asked.

    The path in ``error`` itself may be that of an inner step and is not shown.
    """
    number = error.errno or 0
    message = f"[Errno {number}] {os.strerror(number)}: {quote(path)}"
    return _BY_ERRNO.get(number, Unavailable)(message)
