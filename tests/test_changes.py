"""Old settings and new ones: what differs, what waits for a restart, and by what it is judged."""

from typing import Any

import pytest

from trio_cmd.errors import SettingsError
from trio_cmd.settings import (
    Grant,
    Layer,
    Limits,
    Log,
    Program,
    ServerSettings,
    Settings,
    changed_keys,
    find_origins,
    from_allow_flags,
    from_environment,
    from_flags,
    keep_listeners,
    load,
)

HERE = Settings(server=ServerSettings(host="127.0.0.1", port=9999, unix_socket="/run/socket"))
EVERYWHERE = Settings(server=ServerSettings(host="*"))
TRUE = Program(argv=["/bin/true"])


def test_what_is_equal_has_not_changed() -> None:
    """A reload for a rotated log says that nothing else has happened."""
    assert changed_keys(Settings(), Settings()) == []


def test_what_changed_is_named_by_its_key_and_named_things_by_their_name() -> None:
    """The record of a reload says what an auditor would ask for."""
    old = Settings(
        limits=Limits(waiting=1),
        logs={"a": Log(file="/a"), "b": Log(file="/b")},
        programs={"gone": TRUE},
        grants=(Grant(name="x", commands=("ping",)), Grant(name="same", commands=("*",))),
    )
    new = Settings(
        limits=Limits(waiting=2),
        logs={"a": Log(file="/other"), "b": Log(file="/b")},
        programs={"come": TRUE},
        grants=(Grant(name="same", commands=("*",)), Grant(name="x", commands=("status",))),
    )
    assert changed_keys(old, new) == [
        "limits.waiting",
        "logs.a",
        "programs.gone",
        "grants.x",
        "programs.come",
    ]


def test_another_default_log_is_a_change() -> None:
    """``lastlog`` shows another file, though the same logs are named."""
    old = Settings(logs={"a": Log(file="/a"), "b": Log(file="/b")})
    new = Settings(logs={"b": Log(file="/b"), "a": Log(file="/a")})
    assert changed_keys(old, new) == ["logs"]


def test_another_order_of_arguments_is_a_change() -> None:
    """A client that goes on giving them in the old order would be told nothing."""
    old = Program(argv=["/bin/echo", "{a}", "{b}"], arguments={"a": "[a-z]+", "b": "[a-z]+"})
    new = Program(argv=["/bin/echo", "{a}", "{b}"], arguments={"b": "[a-z]+", "a": "[a-z]+"})
    assert changed_keys(Settings(programs={"say": old}), Settings(programs={"say": new})) == ["programs.say"]


def test_listeners_in_force_stay_and_all_else_is_as_wanted() -> None:
    """A socket is bound once; the limits of clients beside it in the file change at once."""
    wanted = Settings(server=ServerSettings(host="*", port=1, max_clients=7), limits=Limits(waiting=3))
    kept = keep_listeners(wanted, HERE)
    assert kept == Settings(
        server=ServerSettings(host="127.0.0.1", port=9999, unix_socket="/run/socket", max_clients=7),
        limits=Limits(waiting=3),
    )
    assert keep_listeners(kept, HERE) == kept


def faults_of(values: dict[str, Any], in_force: Settings) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load([Layer("file", values)], (), in_force)
    return caught.value.faults


NO_GRANT = (
    "server.host: * can be reached from other hosts;"
    " say which ones: --allow NETWORK, or [[grants]] with addresses"
)
NO_ROOTS = (
    "server.host: * can be reached from other hosts;"
    " say which folders may be hashed: --root DIR, or comphash.roots"
)


@pytest.mark.parametrize(
    ("values", "in_force"),
    [
        pytest.param({}, EVERYWHERE, id="the file says loopback, but the server listens everywhere"),
        pytest.param({"server": {"host": "*"}}, HERE, id="the next start would be refused"),
        pytest.param({"server": {"host": "*"}}, EVERYWHERE, id="both, said once"),
    ],
)
def test_what_is_exposed_is_judged_by_the_listener_in_force_and_by_the_wanted_one(
    values: dict[str, Any], in_force: Settings
) -> None:
    """No reload brings a server into a state in which it would not have been started."""
    assert faults_of(values, in_force) == [NO_GRANT, NO_ROOTS]


def test_a_good_file_is_loaded_with_the_listeners_it_wants() -> None:
    """Who compares knows what needs a restart."""
    assert load([Layer("file", {"server": {"port": 5}})], (), HERE).server.port == 5


def test_each_key_has_the_place_it_came_from() -> None:
    """Whoever wonders why a setting has no effect sees which place won."""
    file = Layer(
        "/etc/x.toml",
        {
            "server": {"port": 1, "max_clients": 5},
            "programs": {"up": {"argv": ["/bin/true"]}},
            "logs": {"a": {"file": "/a"}},
            "grants": [
                {"name": "allow", "addresses": ["10.0.0.0/8"], "commands": ["ping"], "certificate": "x"},
                {"name": "other", "commands": ["*"]},
            ],
        },
    )
    variables = from_environment({"TRIO_CMD_PORT": "2", "TRIO_CMD_LOG": "b=/b"})
    layers = [file, variables, from_flags({"port": "3", "host": "::1"}), from_allow_flags(["10.0.0.0/8"])]
    assert find_origins(layers) == {
        "server.port": "--port",
        "server.host": "--host",
        "server.max_clients": "/etc/x.toml",
        "programs.up.argv": "/etc/x.toml",
        "logs.a": "/etc/x.toml",
        "logs.b": "TRIO_CMD_LOG",
        "grants.other.name": "/etc/x.toml",
        "grants.other.commands": "/etc/x.toml",
        "grants.allow.name": "--allow",
        "grants.allow.addresses": "--allow",
        "grants.allow.commands": "--allow",
    }
