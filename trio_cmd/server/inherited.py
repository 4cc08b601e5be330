"""Sockets that systemd holds for the server: its variables enter, checked sockets leave.

Whoever started the server has bound them and listens; so a restart refuses nobody: while no
server is there, connections wait in the kernel.  They take the place of every address of the
settings, and what is exposed by them is judged in the same way.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trio_cmd.addresses import is_local, parse_address
from trio_cmd.errors import ListenError
from trio_cmd.escape import escape
from trio_cmd.settings import Layer

__all__ = ["Inherited", "inherited_sockets", "settings_of"]

# Of sd_listen_fds(3): the first is always this descriptor, the others follow.
FIRST_FD = 3
# One for each address of a host, and a path; more is a mistake of whoever started the server.
MAX_SOCKETS = 16
_SOURCE = "LISTEN_FDS"
_TCP = (socket.AF_INET, socket.AF_INET6)


class Inherited(NamedTuple):
    """A socket that listens already.

    Attributes:
        fd: its descriptor; no child inherits it.
        name: what ``FileDescriptorName=`` calls it; for the record, safe to show.
        host: the address, or ``unix``.
        port: of TCP; else 0.
        path: of a unix socket; else empty.
    """

    fd: int
    name: str
    host: str
    port: int = 0
    path: str = ""


def inherited_sockets(variables: Mapping[str, str]) -> tuple[Inherited, ...]:
    """Take the sockets that the variables tell of.

    Args:
        variables: ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES``, where they are set.

    Returns:
        None, or all of them, in the order in which they were given.

    Raises:
        ListenError: they are meant for another process, or one is none that can be served.
    """
    if not variables.get("LISTEN_PID") and not variables.get(_SOURCE):
        return ()
    if variables.get("LISTEN_PID") != str(os.getpid()):
        raise _refusal("LISTEN_PID is not this process", "let whoever sets it start this program itself")
    fds = range(FIRST_FD, FIRST_FD + _count(variables.get(_SOURCE, "")))
    names = _names(variables.get("LISTEN_FDNAMES", ""), len(fds))
    return tuple(map(_inherit, fds, names))


def settings_of(sockets: Sequence[Inherited]) -> Layer:
    """Say inherited sockets as settings: the strongest layer, so that they are judged like all others.

    Of several addresses the settings hold one: if any can be reached from other hosts, such a one.
    """
    tcp = [each for each in sockets if each.port]
    tcp.sort(key=lambda each: is_local(parse_address(each.host)))
    host, port = (tcp[0].host, tcp[0].port) if tcp else ("", 0)
    path = next((each.path for each in sockets if each.path), "")
    return Layer(_SOURCE, {"server": {"host": host, "port": port, "unix_socket": path}})


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= MAX_SOCKETS):
        raise _refusal(f"LISTEN_FDS is {escape(text)!r}", f"pass 1 to {MAX_SOCKETS} sockets")
    return int(text)


def _names(text: str, count: int) -> Sequence[str]:
    """Read the names; older managers give none."""
    names = escape(text).split(":") if text else ["unknown"] * count
    if len(names) != count:
        raise _refusal(f"LISTEN_FDNAMES has {len(names)} names for {count} sockets", "name each")
    return names


def _inherit(fd: int, name: str) -> Inherited:
    """Look at a descriptor, and keep it from children."""
    try:
        os.set_inheritable(fd, False)  # noqa: FBT003 - has no name
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise _unfit(fd, error.strerror or "no socket") from error
    try:
        return Inherited(fd, name, **_place(sock))
    finally:
        sock.detach()


def _place(sock: socket.socket) -> dict[str, Any]:
    """Tell where a socket listens."""
    if sock.family not in (*_TCP, socket.AF_UNIX):
        raise _unfit(sock.fileno(), "neither TCP nor a unix socket")
    if sock.type != socket.SOCK_STREAM:
        raise _unfit(sock.fileno(), "not a stream")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise _unfit(sock.fileno(), "it does not listen")
    address = sock.getsockname()
    if sock.family in _TCP:
        return {"host": str(parse_address(address[0])), "port": address[1]}
    if not address or isinstance(address, bytes):  # none, or one of the abstract namespace
        raise _unfit(sock.fileno(), "it has no path, so no mode keeps anybody out")
    return {"host": "unix", "path": address}


def _unfit(fd: int, reason: str) -> ListenError:
    remedy = "pass stream sockets that listen: ListenStream= and Accept=no"
    return _refusal(f"descriptor {fd}: {reason}", remedy)


def _refusal(reason: str, remedy: str) -> ListenError:
    return ListenError(f"cannot listen on the inherited sockets: {reason}; {remedy}")
