"""The hosts to ask: text enters, hosts leave; no name is looked up.

``web1``, ``web1:9998``, ``192.0.2.7``, ``::1``, ``[::1]:9998``, ``unix:/run/trio-cmd.sock``; and
ranges of them, ``web[01-20].example``.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trio_cmd.client.ranges import expand_ranges, has_ranges
from trio_cmd.client.sources import Source
from trio_cmd.escape import escape, quote

__all__ = ["DEFAULT_PORT", "MAX_HOSTS", "Host", "expand_hosts", "parse_host", "parse_port", "read_hosts"]

DEFAULT_PORT = 9999
MAX_HOSTS = 10_000
"""Of one question: beyond it a slip in a range is likelier than a wish."""

UNIX = "unix:"
MAX_UNIX_PATH_BYTES = 107  # sun_path of unix(7) without its NUL
_MAX_PORT = 65_535
_MAX_SHOWN = 80  # characters of a text in a complaint of it
# RFC 1123, 2.1, and the underscore, which names of containers have; 253: RFC 1035, 2.3.4.
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NUMBERS = re.compile(r"[0-9.]+")
_NETWORK = re.compile(r"[0-9a-fA-F.:]+/[0-9]+")
# IPv6 with its zone, the name of an interface: RFC 4007, 11.
_IPV6 = re.compile(r"[0-9a-fA-F.]*:[0-9a-fA-F.]*:[0-9a-fA-F.:]*(?:%[A-Za-z0-9_.-]{1,15})?")
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?")
_PORT = re.compile(r"[0-9]{1,5}")
_EXPECTED = "expected NAME, NAME:PORT, [IPV6]:PORT, unix:PATH or a range like web[01-20]"


@dataclass(frozen=True, slots=True)
class Host:
    """Where a server listens.

    Attributes:
        name: what stands before its lines, safe to show.
        address: a name, an address, or the path of a unix socket.
        port: from 1; ``None`` for a unix socket.
    """

    name: str
    address: str
    port: int | None = DEFAULT_PORT

    @property
    def is_here(self) -> bool:
        """Whether what is said to it leaves this machine for certain nowhere; no name is looked up."""
        if self.port is None or self.address == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.address.partition("%")[0]).is_loopback
        except ValueError:
            return False


def parse_host(text: str) -> Host:
    """Read one host; its name is the text itself.

    Raises:
        ValueError: what was expected, in one line.
    """
    shown = escape(text)
    if text.startswith(UNIX):
        return Host(shown, _unix_path(text), None)
    _check_form(text)
    if bracketed := _BRACKETED.fullmatch(text):
        address, port = bracketed.groups()
        return Host(shown, _ipv6(address, text), _port(port, text))
    if text.count(":") > 1:
        return Host(shown, _ipv6(text, text))
    name, colon, port = text.partition(":")
    return Host(shown, _name(name, text), _port(port if colon else None, text))


def _check_form(text: str) -> None:
    """Tell whoever thinks of another notation what this one is.

    Raises:
        ValueError: it is a URL, or a network.
    """
    if "://" in text:
        raise ValueError(f"{_shown(text)}: no URL is needed; write NAME or NAME:PORT")
    if _NETWORK.fullmatch(text):
        raise ValueError(
            f"{_shown(text)}: a network cannot be asked, only hosts: write a range, 10.0.0.[1-254]"
        )


def parse_port(text: str) -> int:
    """Read a port.

    Raises:
        ValueError: what was expected, in one line.
    """
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= _MAX_PORT:
        raise ValueError(f"expected a port from 1 to {_MAX_PORT}")
    return int(text)


def expand_hosts(text: str) -> list[Host]:
    """Read one host, or several by a range.

    For ranges see ``expand_ranges``; the path of a unix socket has none.
    A comma behind a name is left out: so the list above a group can be given again as it is.

    Raises:
        ValueError: what was expected, in one line.
    """
    if text.startswith(UNIX):
        return [parse_host(text)]
    text = text.removesuffix(",")
    if not has_ranges(text):
        return [parse_host(text)]
    try:
        names = expand_ranges(text, MAX_HOSTS)
    except ValueError as error:
        raise ValueError(f"{_shown(text)}: {error}") from None
    hosts = [parse_host(name) for name in names]
    if any(_IPV6.fullmatch(host.address) for host in hosts):
        # Of 2001:db8::[1-2]:9999 nobody can say whether its end is a port.
        raise ValueError(f"{_shown(text)}: an IPv6 address has no ranges; name each, as [IPV6]:PORT")
    return hosts


def read_hosts(source: Source) -> list[Host]:
    """Read a file of hosts: one in a line, or a range; what stands behind a ``#`` is for people.

    Raises:
        ValueError: what is wrong, with its file and line, or that there is no host in it.
    """
    count = 0

    def parse(line: bytes) -> Sequence[Host]:
        nonlocal count
        text = os.fsdecode(_without_comment(line))
        hosts = expand_hosts(text) if text else ()
        count += len(hosts)
        if count > MAX_HOSTS:
            raise ValueError(f"more than {MAX_HOSTS} hosts; ask in several turns")
        return hosts

    return source.read_each(parse, "no host in it; write one in each line")


def _without_comment(line: bytes) -> bytes:
    """Take the comment off a line: a ``#`` at its beginning or behind a blank, and what follows."""
    return re.split(rb"(?:^|[ \t])#", line, maxsplit=1)[0].strip(b" \t")


def _unix_path(text: str) -> str:
    """Check the path of a unix socket.

    Raises:
        ValueError: there can be no such socket.
    """
    path = text[len(UNIX) :]
    try:
        data = os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(f"{_shown(text)}: expected the path of a socket behind unix:") from None
    if not data or b"\0" in data:
        raise ValueError(f"{_shown(text)}: expected the path of a socket behind unix:")
    if len(data) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"{_shown(text)}: the path of a socket has at most {MAX_UNIX_PATH_BYTES} bytes")
    return path


def _ipv6(address: str, text: str) -> str:
    try:
        if _IPV6.fullmatch(address):
            ipaddress.IPv6Address(address)
            return address
    except ValueError:
        pass  # told below, with what was expected
    raise ValueError(f"{_shown(text)}: no IPv6 address; {_EXPECTED}")


def _name(name: str, text: str) -> str:
    """Check a name, or an address of IPv4."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{_shown(text)}: {_EXPECTED}")
    if _NUMBERS.fullmatch(name):
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            raise ValueError(f"{_shown(text)}: expected four numbers from 0 to 255, or a name") from None
    return name


def _port(port: str | None, text: str) -> int:
    if port is None:
        return DEFAULT_PORT
    try:
        return parse_port(port)
    except ValueError as error:
        raise ValueError(f"{_shown(text)}: {error} behind the colon") from None


def _shown(text: str) -> str:
    """Show what was given, or the beginning of it."""
    shown = escape(text)
    return quote(shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "...")
