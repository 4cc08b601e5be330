"""Who is asked: names, addresses, sockets, and ranges of them."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.client.hosts import MAX_HOSTS, Host, expand_hosts, parse_host, read_hosts
from trio_cmd.client.sources import Source
from trio_cmd.escape import escape

# All that means something to the parser, and what has meant something to others.
PIECES = [
    "web",
    "1",
    "01",
    "20",
    "[",
    "]",
    "-",
    ",",
    ":",
    "::",
    "unix:",
    "/",
    ".",
    "%",
    "_",
    " ",
    "\n",
    "é",
    "\0",
]


def complaint_of(text: str) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        expand_hosts(text)
    return str(caught.value)


def hosts_or_complaint(read: Callable[[], list[Host]]) -> list[Host] | str:
    try:
        return read()
    except ValueError as error:
        if type(error) is not ValueError:  # of some function beneath, which says nothing of hosts
            raise
        return str(error)


def names(text: str) -> list[str]:
    return [host.name for host in expand_hosts(text)]


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("web1", "web1", 9999),
        ("web-1.lab.example.", "web-1.lab.example.", 9999),
        ("my_container", "my_container", 9999),
        ("web1:80", "web1", 80),
        ("web1:65535", "web1", 65535),
        ("192.0.2.7:9998", "192.0.2.7", 9998),
        ("::1", "::1", 9999),
        ("[::1]", "::1", 9999),
        ("[::1]:9998", "::1", 9998),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7", 9999),
        ("2001:db8::7:9998", "2001:db8::7:9998", 9999),
        ("fe80::1%eth0", "fe80::1%eth0", 9999),
        ("[fe80::1%eth0.7]:1", "fe80::1%eth0.7", 1),
        ("unix:/run/trio-cmd.sock", "/run/trio-cmd.sock", None),
        ("unix:beside me:9999", "beside me:9999", None),
        ("unix:/run/[1-3].sock", "/run/[1-3].sock", None),
    ],
)
def test_a_host_is_read(text: str, address: str, port: int | None) -> None:
    """The operator writes a host as everywhere else; the text stands before its lines."""
    assert parse_host(text) == Host(text, address, port)
    assert expand_hosts(text) == [Host(text, address, port)]


def test_what_is_shown_of_a_socket_cannot_change_the_terminal() -> None:
    """A path can have any bytes, also those that are not UTF-8."""
    assert parse_host("unix:/tmp/\x1b[2J\udcff") == Host(r"unix:/tmp/\x1b[2J\xff", "/tmp/\x1b[2J\udcff", None)


def test_a_list_of_names_can_be_given_again_as_it_was_printed() -> None:
    """Hosts that stand together are asked the next question by copying their line."""
    assert expand_hosts("web[1-2],") == expand_hosts("web[1-2]")
    assert expand_hosts("web1,") == [parse_host("web1")]
    assert expand_hosts("unix:/a,") == [parse_host("unix:/a,")]


EXPECTED = "expected NAME, NAME:PORT, [IPV6]:PORT, unix:PATH or a range like web[01-20]"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", f"'': {EXPECTED}"),
        ("-j", f"'-j': {EXPECTED}"),
        ("web 1", f"'web 1': {EXPECTED}"),
        ("web1,web2", f"'web1,web2': {EXPECTED}"),
        ("web1\n", rf"'web1\x0a': {EXPECTED}"),
        ("münchen.example", f"'münchen.example': {EXPECTED}"),
        ("web1:80:90", f"'web1:80:90': no IPv6 address; {EXPECTED}"),
        ("http://web1:80/", "'http://web1:80/': no URL is needed; write NAME or NAME:PORT"),
        (
            "10.0.0.0/24",
            "'10.0.0.0/24': a network cannot be asked, only hosts: write a range, 10.0.0.[1-254]",
        ),
        ("web1:", "'web1:': expected a port from 1 to 65535 behind the colon"),
        ("web1:0", "'web1:0': expected a port from 1 to 65535 behind the colon"),
        ("web1:65536", "'web1:65536': expected a port from 1 to 65535 behind the colon"),
        ("web1:+80", "'web1:+80': expected a port from 1 to 65535 behind the colon"),
        ("web1:٣", "'web1:٣': expected a port from 1 to 65535 behind the colon"),
        ("[::1]:x", "'[::1]:x': expected a port from 1 to 65535 behind the colon"),
        ("9999", "'9999': expected four numbers from 0 to 255, or a name"),
        ("10.0.0.256", "'10.0.0.256': expected four numbers from 0 to 255, or a name"),
        ("[web1]:80", "'[web1]:80': expected numbers in the brackets, like [01-20] or [1,3,5-7]"),
        ("[1::2::3]:80", f"'[1::2::3]:80': no IPv6 address; {EXPECTED}"),
        ("1::2::3", f"'1::2::3': no IPv6 address; {EXPECTED}"),
        ("fe80::1%", f"'fe80::1%': no IPv6 address; {EXPECTED}"),
        ("unix:", "'unix:': expected the path of a socket behind unix:"),
        ("unix:/a\0b", r"'unix:/a\x00b': expected the path of a socket behind unix:"),
        ("unix:\ud800", r"'unix:\ud800': expected the path of a socket behind unix:"),
        ("unix:" + 54 * "é", f"'unix:{54 * 'é'}': the path of a socket has at most 107 bytes"),
        ("x" * 254, f"'{'x' * 80}...': {EXPECTED}"),
    ],
)
def test_what_is_no_host_is_told_in_one_line(text: str, complaint: str) -> None:
    """The operator sees what was typed and what was expected, and nothing is looked up."""
    assert complaint_of(text) == complaint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web[08-11].example", ["web08.example", "web09.example", "web10.example", "web11.example"]),
        ("web[8-11]", ["web8", "web9", "web10", "web11"]),
        ("web[1,3,5-7]", ["web1", "web3", "web5", "web6", "web7"]),
        ("web[0-1]", ["web0", "web1"]),
        ("web[007]", ["web007"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
        ("10.0.[0-1].[9-10]:80", ["10.0.0.9:80", "10.0.0.10:80", "10.0.1.9:80", "10.0.1.10:80"]),
        ("web1:[9998-9999]", ["web1:9998", "web1:9999"]),
        ("[1-2].example", ["1.example", "2.example"]),
    ],
)
def test_a_range_is_many_hosts(text: str, expected: list[str]) -> None:
    """Twenty hosts are as quickly written as one, in the order of their numbers and with their zeros."""
    assert names(text) == expected


@given(st.integers(0, 999), st.integers(0, 50), st.integers(4, 6) | st.just(0))
def test_a_range_counts_like_its_numbers(first: int, more: int, digits: int) -> None:
    """No host of a range is missed, none is made up, and none has lost a zero."""
    numbers = [f"{number:0{digits}}" for number in range(first, first + more + 1)]
    assert names(f"web[{numbers[0]}-{numbers[-1]}]") == [f"web{number}" for number in numbers]


NUMBERS = "expected numbers in the brackets, like [01-20] or [1,3,5-7]"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("web[]", f"'web[]': {NUMBERS}"),
        ("web[a-f]", f"'web[a-f]': {NUMBERS}"),
        ("web[1,]", f"'web[1,]': {NUMBERS}"),
        ("web[1-2-3]", f"'web[1-2-3]': {NUMBERS}"),
        ("web[٣-٣]", f"'web[٣-٣]': {NUMBERS}"),
        ("web[1-9999999999]", f"'web[1-9999999999]': {NUMBERS}"),
        ("web[1:3]", f"'web[1:3]': {EXPECTED}"),
        ("web[1-3", f"'web[1-3': {EXPECTED}"),
        ("web1-3]", f"'web1-3]': {EXPECTED}"),
        ("web[20-01]", "'web[20-01]': 20-01 counts down; write 01-20"),
        ("web[01-100]", "'web[01-100]': 01-100 has zeros at one end; write as many digits at both ends"),
        ("web[1-020]", "'web[1-020]': 1-020 has zeros at one end; write as many digits at both ends"),
        ("web[1-2]:x", "'web1:x': expected a port from 1 to 65535 behind the colon"),
        (
            "2001:db8::[1-2]:99",
            "'2001:db8::[1-2]:99': an IPv6 address has no ranges; name each, as [IPV6]:PORT",
        ),
        ("[fe80::[1-2]]:9", "'[fe80::[1-2]]:9': an IPv6 address has no ranges; name each, as [IPV6]:PORT"),
    ],
)
def test_what_is_no_range_is_told_in_one_line(text: str, complaint: str) -> None:
    """A slip in a range asks no host, rather than the wrong ones."""
    assert complaint_of(text) == complaint


def test_a_range_has_a_bound_and_costs_nothing_beyond_it() -> None:
    """A slip of the pen does not fill the memory: what is too much is counted, not made."""
    assert len(expand_hosts("w[1-100]x[1-100]")) == MAX_HOSTS == 10_000
    assert (
        complaint_of("w[1-101]x[1-100]") == "'w[1-101]x[1-100]': more than 10000 hosts; ask in several turns"
    )
    assert "more than 10000 hosts" in complaint_of("w" + 50 * "[0-999999999]")


@given(st.text(st.characters()) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_gives_hosts_or_one_line(text: str) -> None:
    """Whatever an inventory or a slip makes of a host, there is no traceback, and no control character."""
    hosts = hosts_or_complaint(lambda: expand_hosts(text))
    if isinstance(hosts, str):
        assert hosts == escape(hosts)
        return
    assert 1 <= len(hosts) <= MAX_HOSTS
    for host in hosts:
        assert host.name == escape(host.name)
        assert (host.port is None) == text.startswith("unix:")
        assert "[" not in host.address or host.port is None


# Files of hosts


def test_a_file_has_a_host_or_a_range_in_each_line() -> None:
    """Comments, empty lines, blanks and the line ends of Windows are for people and their editors."""
    data = b"\xef\xbb\xbf# front\r\nweb[1-2]  # two\r\n\r\n\tdb1 \n#db2\nunix:/tmp/a#b c\n[::1]:7"
    hosts = read_hosts(Source("hosts", data))
    assert [host.name for host in hosts] == ["web1", "web2", "db1", "unix:/tmp/a#b c", "[::1]:7"]


def test_a_fault_in_a_file_is_told_with_its_line() -> None:
    """Of a thousand lines the one to mend is named."""
    with pytest.raises(ValueError, match=r"\Ahosts:3: '10.0.0.1 web1': expected NAME, ") as caught:
        read_hosts(Source("hosts", b"web1\n\n10.0.0.1 web1\n"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\n", b"# nobody\n \t\n"])
def test_a_file_without_a_host_is_refused(data: bytes) -> None:
    """An empty list is a mistake of whatever made it, not an answer of all hosts."""
    with pytest.raises(ValueError, match=r"\Ahosts: no host in it; write one in each line\Z"):
        read_hosts(Source("hosts", data))


def test_a_file_has_a_bound() -> None:
    """Many ranges in many lines are no way around it."""
    with pytest.raises(ValueError, match=r"\Ahosts:2: more than 10000 hosts; ask in several turns\Z"):
        read_hosts(Source("hosts", b"a[1-9999]\nb[1-2]\n" + 1000 * b"c[1-9999]\n"))


@given(st.binary() | st.lists(st.sampled_from(PIECES)).map(lambda pieces: "".join(pieces).encode()))
def test_any_file_gives_hosts_or_one_line(data: bytes) -> None:
    """A file that is none of hosts is no traceback."""
    hosts = hosts_or_complaint(lambda: read_hosts(Source("hosts", data)))
    assert hosts
    assert not isinstance(hosts, str) or hosts == escape(hosts)
