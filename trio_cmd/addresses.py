"""Addresses and networks as text enter, values that can be compared leave; no name is ever looked up.

An IPv4 address can come dressed as one of IPv6, ``::ffff:10.0.0.1``: a rule for IPv4 that does
not know it is passed by it.  Here such an address, and such a network, is the IPv4 one.
"""

import ipaddress
import re
from collections.abc import Hashable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

__all__ = [
    "Address",
    "Network",
    "address_key",
    "is_local",
    "is_local_host",
    "is_local_network",
    "parse_address",
    "parse_network",
    "show_site",
]

Unix = Literal["unix"]
Address = IPv4Address | IPv6Address | Unix
"""Where a client is; every client of the unix socket is at the one address ``unix``."""
Network = IPv4Network | IPv6Network | Unix

KNOWN_ADDRESSES = 1024
_MAPPED_BITS = 96  # of ::ffff:0:0/96
_IPV6_SITE_BITS = 64  # one host can have any address of its /64
_IPV6_HOST_BITS = 128 - _IPV6_SITE_BITS
# One address, or one and the number of its bits: a mask would be read in two ways.
_FORM = re.compile(r"[0-9a-fA-F.:]+(?:/[0-9]{1,3})?")
_EXPECTED = 'expected an address, a network like 10.0.0.0/8, or "unix"'


@lru_cache(maxsize=KNOWN_ADDRESSES)
def parse_address(text: str) -> Address:
    """Read the address of a client, as the kernel gives it; the zone of a link-local one is left out.

    The same address comes again and again, so the last ones are remembered.

    Raises:
        ValueError: it is none.
    """
    if text == "unix":
        return "unix"
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def parse_network(text: str) -> Network:
    """Read a network or a single address of the settings, or the word ``unix``.

    Raises:
        ValueError: what was expected, in one line.
    """
    if text == "unix":
        return "unix"
    if not _FORM.fullmatch(text):
        raise ValueError(_EXPECTED)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    address = ipaddress.ip_interface(text).ip
    if address != network.network_address:
        raise ValueError(f"{text} has bits behind the network; write {network} or {address}")
    return _unmapped(network)


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def is_local(address: Address) -> bool:
    """Tell whether a client is on this host: at a loopback address or at the unix socket."""
    return isinstance(address, str) or address.is_loopback


def is_local_network(network: Network) -> bool:
    """Tell whether only clients on this host are in a network."""
    return network == "unix" or network.is_loopback


def is_local_host(host: str) -> bool:
    """Tell whether only clients on this host reach a listener of the settings: an address, or a word."""
    return host in ("", "localhost") or (host != "*" and ipaddress.ip_address(host).is_loopback)


def address_key(address: Address) -> Hashable:
    """Give what all addresses that one host can choose from have in common: of IPv6, the /64."""
    if isinstance(address, IPv6Address):
        return int(address) >> _IPV6_HOST_BITS
    return address


def show_site(address: Address) -> str:
    """Show what ``address_key`` takes for one: of IPv6 the /64, but ``::1``."""
    if is_local(address) or not isinstance(address, IPv6Address):
        return str(address)
    return str(IPv6Network((int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS, _IPV6_SITE_BITS)))
