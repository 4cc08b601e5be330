"""Addresses and networks: what is read, what is the same, what is refused."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.addresses import (
    address_key,
    is_local,
    is_local_network,
    parse_address,
    parse_network,
    show_site,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", IPv4Address("10.0.0.1")),
        ("::ffff:10.0.0.1", IPv4Address("10.0.0.1")),
        ("::ffff:a00:1", IPv4Address("10.0.0.1")),
        ("2001:db8::1", IPv6Address("2001:db8::1")),
        ("fe80::1%eth0", IPv6Address("fe80::1")),
        ("unix", "unix"),
    ],
)
def test_an_address_is_the_same_however_it_is_dressed(text: str, address: object) -> None:
    """A rule for 10.0.0.0/8 holds on a listener of both families too."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", IPv4Network("10.0.0.0/8")),
        ("10.0.0.1", IPv4Network("10.0.0.1/32")),
        ("0.0.0.0/0", IPv4Network("0.0.0.0/0")),
        ("2001:db8::/32", IPv6Network("2001:db8::/32")),
        ("::1", IPv6Network("::1/128")),
        ("::/0", IPv6Network("::/0")),
        ("::ffff:10.0.0.0/104", IPv4Network("10.0.0.0/8")),
        ("::ffff:10.0.0.1", IPv4Network("10.0.0.1/32")),
        ("::ffff:0:0/96", IPv4Network("0.0.0.0/0")),
        ("unix", "unix"),
    ],
)
def test_a_network_is_read_as_it_is_meant(text: str, network: object) -> None:
    """One spelling of a rule is as good as another."""
    assert parse_network(text) == network


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "*", "all", "localhost", "example.org", "Unix", "unix ", "10.0.0.0/8,", ",10.0.0.0/8"),
        *("10.0.0.0/8 ", " 10.0.0.0/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/", "/8", "10/8"),
        *(
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/0.255.255.255",
            "010.0.0.1",
            "10.0.0.256",
            "167772160",
            "0x0a000001",
        ),
        *(
            "fe80::1%eth0",
            "[::1]",
            "10.0.0.1:9999",
            "\u0661\u0660.0.0.1",
            "10.0.0.0/\u0668",
            "10.0.0.0/8\n",
            "!10.0.0.1",
        ),
        *("10.0.0.1-10.0.0.9", "10.0.0.*", "10.0.0.0/8/8", "\0"),
    ],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    """A rule that is read in another way than it was meant lets in who was not named."""
    with pytest.raises(ValueError, match=r'^expected an address, a network like 10.0.0.0/8, or "unix"$'):
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("10.0.0.1/8", "write 10.0.0.0/8 or 10.0.0.1"),
        ("2001:db8::1/32", "write 2001:db8::/32 or 2001:db8::1"),
    ],
)
def test_bits_behind_the_network_are_a_fault(text: str, remedy: str) -> None:
    """Nobody knows whether one host or all were meant, so the operator is asked."""
    with pytest.raises(ValueError, match=f"^{text} has bits behind the network; {remedy}$"):
        parse_network(text)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "unix"])
def test_loopback_and_unix_are_local(text: str) -> None:
    """They are the clients of this host, whatever is exposed."""
    assert is_local(parse_address(text))
    assert is_local_network(parse_network(text))


@pytest.mark.parametrize("text", ["10.0.0.1", "0.0.0.0", "::", "::2", "fe80::1", "128.0.0.1"])
def test_other_addresses_are_not_local(text: str) -> None:
    """Who is let in without a grant must be on this host for certain."""
    assert not is_local(parse_address(text))
    assert not is_local_network(parse_network(text))


def test_a_host_of_ipv6_has_one_key_whichever_of_its_addresses_it_takes() -> None:
    """A host has 2**64 addresses for nothing; a limit for each of them would be none."""
    assert address_key(parse_address("2001:db8::1")) == address_key(parse_address("2001:db8::ffff:1"))
    assert address_key(parse_address("2001:db8::1")) != address_key(parse_address("2001:db8:0:1::1"))
    assert address_key(parse_address("::ffff:10.0.0.1")) == address_key(parse_address("10.0.0.1"))
    assert address_key(parse_address("10.0.0.1")) != address_key(parse_address("10.0.0.2"))
    assert address_key("unix") == "unix"


@given(st.ip_addresses(), st.integers(0, 128))
def test_every_address_is_in_the_network_it_is_cut_to(address: object, bits: int) -> None:
    """What is written into the settings is what matches."""
    text = str(address)
    bits = min(bits, ip_address(text).max_prefixlen)
    network = (IPv4Network if "." in text and ":" not in text else IPv6Network)((text, bits), strict=False)
    parsed = parse_network(str(network))
    seen = parse_address(text)
    assert not isinstance(seen, str)
    assert not isinstance(parsed, str)
    if seen.version == parsed.version:
        assert seen in parsed
    else:  # an IPv4 address in the dress of IPv6 is not found through a network that is wider than the dress
        assert bits < 96


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("127.0.0.2", "127.0.0.2"),
        ("unix", "unix"),
    ],
)
def test_what_is_counted_as_one_is_shown_as_one(text: str, shown: str) -> None:
    """A record of many addresses names what they have in common."""
    assert show_site(parse_address(text)) == shown
