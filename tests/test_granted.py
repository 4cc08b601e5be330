"""Grants in the settings, and exposing that is said aloud."""

import msgspec
import pytest

from trio_cmd.errors import SettingsError
from trio_cmd.settings import Grant, Layer, Settings, from_allow_flags, from_environment, from_flags, load

COMMANDS = ["ping", "status", "lastlog"]
DIGEST = "ab" * 32
OPEN = {"server": {"host": "*"}, "comphash": {"roots": ["/srv"]}}


def grant(**values: object) -> dict[str, object]:
    return {"name": "monitoring", "commands": ["ping"], **values}


def load_values(*grants: object, **sections: object) -> Settings:
    return load([Layer("x", {"grants": list(grants), **sections})], COMMANDS)


def faults_of(*grants: object, **sections: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_values(*grants, **sections)
    return caught.value.faults


def test_a_grant_is_what_its_table_says() -> None:
    """Every key of it, and what is left out is not asked for."""
    whole = grant(addresses=["10.0.0.0/8", "unix"], token_sha256=DIGEST, commands=["ping", "*"])
    tls = {"certificate": "/c", "key": "/k", "client_ca": "/ca"}
    settings = load_values(whole, grant(name="b", certificate="mon.example"), tls=tls)
    assert settings.grants[0] == Grant(
        name="monitoring", addresses=("10.0.0.0/8", "unix"), token_sha256=DIGEST, commands=("ping", "*")
    )
    assert settings.grants[1] == Grant(name="b", certificate="mon.example", commands=("ping",))
    assert load([Layer("x", msgspec.to_builtins(settings))], COMMANDS) == settings


def test_programs_can_be_granted_too() -> None:
    """A name in a grant is a command or a program that is offered."""
    programs = {"uptime": {"argv": ["/bin/sh"]}}
    assert load_values(grant(commands=["uptime"]), programs=programs).grants[0].commands == ("uptime",)


NO_NETWORK = 'expected an address, a network like 10.0.0.0/8, or "unix"'
NO_NAME = "expected a name of a-z, 0-9 and -, beginning with a letter, at most 32"
NO_DIGEST = "expected the 64 hex digits that `trio-cmd token NAME` prints"


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (5, "x: grants.0: expected a table, [[grants]]"),
        (grant(addresses=["10.0.0.0/8,"]), f"x: grants.monitoring.addresses: {NO_NETWORK}"),
        (grant(addresses=["mon.example"]), f"x: grants.monitoring.addresses: {NO_NETWORK}"),
        (
            grant(addresses=["10.0.0.1/8"]),
            (
                "x: grants.monitoring.addresses: 10.0.0.1/8 has bits behind the network; "
                "write 10.0.0.0/8 or 10.0.0.1"
            ),
        ),
        (grant(addresses="10.0.0.0/8"), "x: grants.monitoring.addresses: expected a list of networks"),
        (grant(addresses=[5]), "x: grants.monitoring.addresses: expected a list of networks"),
        (grant(name="Monitoring"), f"x: grants.0.name: {NO_NAME}"),
        (grant(name=""), f"x: grants.0.name: {NO_NAME}"),
        (grant(name=5), f"x: grants.0.name: {NO_NAME}"),
        ({"commands": ["ping"]}, "x: grants.0.name: expected this key"),
        ({"name": "a"}, "x: grants.a.commands: expected this key"),
        (grant(commands=[]), 'x: grants.monitoring.commands: expected a list of commands, or ["*"]'),
        (grant(token_sha256="tcmd_" + "A" * 43), f"x: grants.monitoring.token_sha256: {NO_DIGEST}"),
        (grant(token_sha256="ab"), f"x: grants.monitoring.token_sha256: {NO_DIGEST}"),
        (grant(adresses=["unix"]), "x: grants.monitoring.adresses: unknown key; did you mean addresses?"),
        (
            grant(commands=["pingg"]),
            "grants.monitoring.commands: there is no command pingg; did you mean ping?",
        ),
        (grant(commands=["\x1b"]), "grants.monitoring.commands: there is no command \\x1b"),
    ],
)
def test_each_kind_of_fault_is_one_line(table: object, fault: str) -> None:
    """The start is refused with the grant, the key and what was expected there."""
    assert faults_of(table) == [fault]


def test_grants_must_be_tables() -> None:
    """``[grants]`` instead of ``[[grants]]`` is the likeliest slip."""
    with pytest.raises(SettingsError) as caught:
        load([Layer("x", {"grants": {"name": "a"}})])
    assert caught.value.faults == ["x: grants: expected tables, [[grants]]"]


def test_two_grants_of_one_name_are_a_fault() -> None:
    """The name stands in the record and in the welcome: it must say which."""
    assert faults_of(grant(), grant()) == [
        "x: grants.monitoring.name: there are two grants of this name; choose another"
    ]


def test_a_grant_of_a_later_layer_takes_the_place_of_its_namesake_only() -> None:
    """``--allow`` adds to the file, and a flag wins over the variable."""
    file = Layer("x", {"grants": [grant()]})
    environment = from_environment({"TRIO_CMD_ALLOW": "10.0.0.0/8"})
    both = load([file, environment, from_allow_flags(["11.0.0.0/8", "12.0.0.0/8"])], COMMANDS)
    assert [(one.name, one.addresses) for one in both.grants] == [
        ("monitoring", ()),
        ("allow", ("11.0.0.0/8", "12.0.0.0/8")),
    ]
    assert both.grants[1].commands == ("*",)


@pytest.mark.parametrize(
    ("layer", "source"),
    [(from_allow_flags(["ten"]), "--allow"), (from_environment({"TRIO_CMD_ALLOW": "ten"}), "TRIO_CMD_ALLOW")],
)
def test_a_fault_of_the_short_way_is_told_with_where_it_came_from(layer: Layer, source: str) -> None:
    """The operator knows whether to look at what was typed, or in the unit file."""
    with pytest.raises(SettingsError) as caught:
        load([layer])
    assert caught.value.faults == [f"{source}: grants.allow.addresses: {NO_NETWORK}"]


# Exposing


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"])
def test_what_other_hosts_can_reach_says_which_ones_and_below_which_folders(host: str) -> None:
    """Nobody exposes a host by one flag: the start is refused with both remedies."""
    where = f"server.host: {host} can be reached from other hosts"
    with pytest.raises(SettingsError) as caught:
        load([from_flags({"host": host})])
    assert caught.value.faults == [
        f"{where}; say which ones: --allow NETWORK, or [[grants]] with addresses",
        f"{where}; say which folders may be hashed: --root DIR, or comphash.roots",
    ]
    settings = load([from_flags({"host": host, "root": ["/"]}), from_allow_flags(["10.0.0.0/8"])])
    assert settings.server.host == host


def test_a_grant_without_addresses_names_nobody_on_other_hosts() -> None:
    """It is for this host only, so it does not say who else may come."""
    (fault,) = faults_of(grant(), **OPEN)
    assert fault.endswith("say which ones: --allow NETWORK, or [[grants]] with addresses")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9", ""])
def test_what_only_this_host_can_reach_needs_no_grant(host: str) -> None:
    """The first try needs no settings, and neither does a host of its own with a unix socket."""
    settings = load([from_flags({"host": host, "unix-socket": "/run/trio-cmd.sock"})])
    assert settings.grants == ()


def test_there_must_be_something_to_listen_on() -> None:
    """A server that nobody can reach is a slip."""
    with pytest.raises(SettingsError) as caught:
        load([from_flags({"host": ""})])
    assert caught.value.faults == ["server.host: nothing to listen on; set server.host or server.unix_socket"]


TLS = {"certificate": "/c", "key": "/k"}


@pytest.mark.parametrize(
    ("addresses", "tls", "is_fault"),
    [
        (["10.0.0.0/8"], {}, True),
        (["126.0.0.0/7"], {}, True),
        (["127.0.0.1", "::/0"], {}, True),
        (["10.0.0.0/8"], TLS, False),
        (["127.0.0.0/8", "::1", "unix"], {}, False),
        ([], {}, False),
    ],
)
def test_a_token_beyond_this_host_needs_tls(addresses: list[str], tls: object, is_fault: bool) -> None:
    """A token that crosses a network in plain text is everybody's."""
    table = grant(addresses=addresses, token_sha256=DIGEST)
    if is_fault:
        assert faults_of(table, tls=tls) == [
            (
                "grants.monitoring.token_sha256: a token from other hosts needs TLS; "
                "set tls.certificate and tls.key"
            )
        ]
    else:
        assert load_values(table, tls=tls).grants[0].token_sha256 == DIGEST


def test_a_certificate_can_be_granted_only_where_it_is_asked_for() -> None:
    """A grant that can never hold is a slip, and one that holds unasked a hole."""
    assert faults_of(grant(certificate="mon.example"), tls=TLS) == [
        "grants.monitoring.certificate: no client is asked for its certificate; set tls.client_ca"
    ]


def test_a_pattern_is_no_name_of_a_certificate() -> None:
    """It would match nobody, and its author would go on to look for the fault elsewhere."""
    assert faults_of(grant(certificate="*.example")) == [
        (
            "x: grants.monitoring.certificate: expected one DNS name or URI; "
            "it is compared as a whole, so a * matches nothing"
        )
    ]


def test_every_bad_address_of_a_grant_is_told() -> None:
    """All faults at once: nobody starts five times for five slips."""
    assert faults_of(grant(addresses=["ten", "10.0.0.0/8", "10.0.0.1/8"])) == [
        f"x: grants.monitoring.addresses: {NO_NETWORK}",
        (
            "x: grants.monitoring.addresses: 10.0.0.1/8 has bits behind the network; "
            "write 10.0.0.0/8 or 10.0.0.1"
        ),
    ]


@pytest.mark.parametrize("tls", [{"certificate": "/c"}, {"key": "/k"}])
def test_a_certificate_and_its_key_belong_together(tls: object) -> None:
    """Half of it would be no TLS at all."""
    assert faults_of(tls=tls) == [
        "tls: a certificate and its key belong together; set tls.certificate and tls.key"
    ]


def test_client_certificates_need_tls() -> None:
    """Nobody shows a certificate in plain text."""
    assert faults_of(tls={"client_ca": "/ca"}) == [
        "tls.client_ca: needs a server certificate; set tls.certificate and tls.key"
    ]
