"""A connected socket enters; from then on the kernel finds out when its other end is gone."""

import socket
from functools import lru_cache

import trio

__all__ = ["set_socket_options", "set_tcp_options"]

# A lost client is found in 60 s, long before a home router forgets the connection.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
# The sweeper looks each second at least: it is to tell first that a client does not read.
_SWEEPER_SECONDS = 3


def set_socket_options(sock: trio.socket.SocketType, write_seconds: float) -> None:
    """Make a TCP connection find out that its client is gone.

    Args:
        sock: a connected socket; one that is not TCP is left as it is.
        write_seconds: how long the sweeper lets sent bytes stay unconfirmed; the kernel does a little longer.

    Raises:
        OSError: the connection is already gone.
    """
    if sock.family != getattr(socket, "AF_UNIX", None):
        set_tcp_options(sock, write_seconds)


def set_tcp_options(sock: trio.socket.SocketType, write_seconds: float) -> None:
    """Do the same with a socket that is known to be one of TCP."""
    for level, option, value in _options(write_seconds):
        sock.setsockopt(level, option, value)


@lru_cache(maxsize=4)  # there are those of the settings in force, and of a client
def _options(write_seconds: float) -> tuple[tuple[int, int, int], ...]:
    """List what is set: level, option, value."""
    wanted = {**_KEEPALIVE, "TCP_USER_TIMEOUT": int((write_seconds + _SWEEPER_SECONDS) * 1000)}
    known = ((getattr(socket, name, None), value) for name, value in wanted.items())
    # Linux has all, macOS some.
    tcp = ((socket.IPPROTO_TCP, option, value) for option, value in known if option is not None)
    return (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *tcp
