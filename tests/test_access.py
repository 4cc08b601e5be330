"""Who may connect and who may run what: every kind of client against every kind of grant."""

import itertools
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.addresses import parse_address
from trio_cmd.commands import COMMANDS, Command
from trio_cmd.server.access import ALWAYS_ALLOWED, Access, Visitor, allowed
from trio_cmd.settings import Grant
from trio_cmd.tokens import digest_token, make_token

TOKEN, OTHER = make_token().encode(), make_token().encode()
LOCAL = ("127.0.0.1", "::1", "unix")
ADDRESSES = [*LOCAL, "10.1.2.3", "::ffff:10.1.2.3", "11.1.2.3", "2001:db8::5", "fe80::1%eth0"]
CERTIFICATES = [frozenset[str](), frozenset({"mon.example"}), frozenset({"spiffe://x/mon", "MON.example"})]


def grant(commands: str = "ping", **conditions: object) -> Grant:
    return Grant(name="g", commands=tuple(commands.split()), **conditions)  # type: ignore[arg-type]  # by name


def visitor(address: str = "127.0.0.1", certificate: frozenset[str] = frozenset()) -> Visitor:
    return Visitor(parse_address(address), certificate)


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_grants_this_host_may_run_everything_and_nobody_else_anything(address: str) -> None:
    """A server that nobody has set up is of use at once, and of none to others."""
    access, who = Access(()), visitor(address)
    is_here = address in LOCAL
    assert access.is_admitted(who) is is_here
    assert access.is_admissible(who.address) is is_here
    assert bool(access.held(who)) is is_here
    if is_here:
        assert allowed(access.held(who), COMMANDS) == COMMANDS


def test_a_grant_takes_the_place_of_what_holds_without_any() -> None:
    """Who names one has named all: this host too is asked for its grant."""
    access = Access([grant(addresses=("10.0.0.0/8",))])
    assert not access.is_admitted(visitor("127.0.0.1"))
    assert access.is_admitted(visitor("10.1.2.3"))


def test_somebody_of_whom_nothing_is_known_is_let_in_by_no_grant() -> None:
    """A connection that was gone before it was looked at has no address to be named by."""
    access = Access([grant("*", addresses=("0.0.0.0/0", "::/0", "unix"))])
    assert not access.is_admitted(Visitor(None))
    assert not access.is_admissible(None)
    assert access.held(Visitor(None)) == ()


@pytest.mark.parametrize(
    ("networks", "inside"),
    [
        ((), {"127.0.0.1", "::1", "unix"}),
        (("unix",), {"unix"}),
        (("127.0.0.1",), {"127.0.0.1"}),
        (("10.0.0.0/8",), {"10.1.2.3", "::ffff:10.1.2.3"}),
        (("::ffff:10.0.0.0/104",), {"10.1.2.3", "::ffff:10.1.2.3"}),
        (("10.1.2.3", "unix"), {"10.1.2.3", "::ffff:10.1.2.3", "unix"}),
        (("0.0.0.0/0",), {"127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3", "11.1.2.3"}),
        (("::/0",), {"::1", "2001:db8::5", "fe80::1%eth0"}),
        (("fe80::/10",), {"fe80::1%eth0"}),
        (("2001:db8::/64", "11.0.0.0/8"), {"2001:db8::5", "11.1.2.3"}),
    ],
)
def test_a_grant_holds_for_its_addresses_and_no_others(networks: tuple[str, ...], inside: set[str]) -> None:
    """A rule for one network is passed by nobody from another, whatever the dress."""
    access = Access([grant(addresses=networks)])
    assert {address for address in ADDRESSES if access.is_admitted(visitor(address))} == inside
    assert {address for address in ADDRESSES if access.held(visitor(address))} == inside
    assert {address for address in ADDRESSES if access.is_admissible(parse_address(address))} == inside


@pytest.mark.parametrize(
    ("wanted", "shown", "holds"),
    [
        ("mon.example", {"mon.example"}, True),
        ("MON.Example", {"mon.example"}, True),
        ("mon.example", {"MON.EXAMPLE", "other.example"}, True),
        ("mon.example", {"amon.example"}, False),
        ("mon.example", {"*.example"}, False),
        ("*.example", {"mon.example"}, False),
        ("mon.example", set(), False),
        ("kiosk.example", {"\u212aiosk.example"}, False),
        ("k\xfcche.example", {"k\xfcche.example"}, True),
        ("spiffe://x/mon", {"spiffe://x/mon"}, True),
        ("spiffe://x/mon", {"spiffe://x/MON"}, False),
    ],
)
def test_a_certificate_is_compared_as_a_whole(wanted: str, shown: set[str], holds: bool) -> None:
    """A name that only resembles the one that was granted is another client's."""
    access = Access([grant(certificate=wanted)])
    who = visitor(certificate=frozenset(shown))
    assert access.is_admitted(who) is holds
    assert bool(access.held(who)) is holds
    assert access.is_admissible(who.address), "the certificate comes later"


def test_a_grant_that_wants_a_token_lets_in_and_gives_nothing_until_it_is_shown() -> None:
    """Whoever has a token must be able to say so."""
    access = Access([grant("ping", token_sha256=digest_token(TOKEN).upper())])
    who = visitor()
    assert access.is_admitted(who)
    assert access.held(who) == ()
    assert set(allowed(access.held(who), COMMANDS)) == {name.encode() for name in ALWAYS_ALLOWED}
    assert access.find_token(who, OTHER) is None
    found = access.find_token(who, TOKEN)
    assert found is not None
    assert access.held(who, [digest_token(TOKEN)]) == (found,)


def test_a_token_opens_nothing_from_where_its_grant_is_not() -> None:
    """A token that was stolen is of no use on another host."""
    access = Access(
        [
            grant("ping", addresses=("10.0.0.0/8",), token_sha256=digest_token(TOKEN)),
            grant("status", addresses=("127.0.0.1",)),
        ]
    )
    assert access.find_token(visitor(), TOKEN) is None
    assert [held.commands for held in access.held(visitor(), [digest_token(TOKEN)])] == [("status",)]


def test_one_token_opens_all_its_grants() -> None:
    """A client may run the union over its grants."""
    digest = digest_token(TOKEN)
    grants = [
        Grant(name="a", commands=("ping",), token_sha256=digest),
        Grant(name="b", commands=("status",), token_sha256=digest),
        Grant(name="c", commands=("lastlog",), addresses=("10.0.0.0/8",), token_sha256=digest),
    ]
    access = Access(grants)
    assert access.find_token(visitor(), TOKEN) == grants[0]
    assert access.held(visitor(), [digest]) == tuple(grants[:2])
    rows = allowed(access.held(visitor(), [digest]), COMMANDS)
    assert {name.decode() for name in rows} == ALWAYS_ALLOWED | {"ping", "status"}


def conditions() -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Every kind of grant: with and without addresses, a certificate, a token."""
    return itertools.product(
        [(), ("10.0.0.0/8",), ("unix", "2001:db8::/32")], ["", "mon.example"], ["", digest_token(TOKEN)]
    )


def test_every_kind_of_client_has_exactly_what_its_grants_give() -> None:
    """The whole table: each grant of every kind, alone and in pairs, against each client of every kind."""
    grants = [
        Grant(
            name=f"g{number}",
            commands=(name,),
            addresses=addresses,
            certificate=certificate,
            token_sha256=token,
        )
        for number, ((addresses, certificate, token), name) in enumerate(
            zip(conditions(), itertools.cycle(["ping", "status", "lastlog"]), strict=False)
        )
    ]
    clients = list(itertools.product(ADDRESSES, CERTIFICATES, [(), (digest_token(TOKEN),)]))
    for count in (1, 2):
        for chosen in itertools.combinations(grants, count):
            access = Access(chosen)
            for address, certificate, tokens in clients:
                who = visitor(address, certificate)
                expected = {
                    one.commands[0]
                    for one in chosen
                    if expect(one, address, certificate) and (not one.token_sha256 or tokens)
                }
                rows = allowed(access.held(who, tokens), COMMANDS)
                assert {name.decode() for name in rows} == ALWAYS_ALLOWED | expected
                assert access.is_admitted(who) is any(expect(one, address, certificate) for one in chosen)


def expect(one: Grant, address: str, certificate: frozenset[str]) -> bool:
    """Say by hand whether a grant holds, but for its token."""
    places = {
        (): {"127.0.0.1", "::1", "unix"},
        ("10.0.0.0/8",): {"10.1.2.3", "::ffff:10.1.2.3"},
        ("unix", "2001:db8::/32"): {"unix", "2001:db8::5"},
    }
    is_named = not one.certificate or one.certificate in {name.lower() for name in certificate}
    return address in places[one.addresses] and is_named


NAMES = [name.decode() for name in COMMANDS]


@given(
    st.lists(st.sampled_from([*NAMES, "*"]), unique=True, max_size=4), st.sampled_from(["127.0.0.1", "unix"])
)
def test_rows_are_those_that_were_granted_in_the_order_of_the_table(
    commands: list[str], address: str
) -> None:
    """Help lists what can be asked, and nothing else can."""
    held = Access([Grant(name="g", commands=tuple(commands) or ("ping",))]).held(visitor())
    rows = cast("dict[bytes, Command]", allowed(held, COMMANDS))
    granted = NAMES if "*" in commands else ALWAYS_ALLOWED.union(commands or ["ping"])
    assert [name.decode() for name in rows] == [name for name in NAMES if name in granted]
