"""What a server counts, as status shows it."""

import pytest

from trio_cmd.server.statistics import LastReload, digest_settings
from trio_cmd.settings import Grant, Layer, Log, Program, ServerSettings, Settings, load

UPTIME, DF = Program(argv=["/usr/bin/uptime"]), Program(argv=["/usr/bin/df"])
SYSLOG, AUTH = Log(file="/var/log/syslog"), Log(file="/var/log/auth.log")


def test_equal_settings_have_one_digest() -> None:
    """Two hosts that should be alike are compared by one short word."""
    first = Settings(programs={"uptime": UPTIME, "df": DF}, logs={"syslog": SYSLOG})
    second = Settings(logs={"syslog": SYSLOG}, programs={"df": DF, "uptime": UPTIME})
    assert digest_settings(first) == digest_settings(second)
    assert len(digest_settings(first)) == 12
    assert digest_settings(Settings()) == digest_settings(Settings(server=ServerSettings()))
    grants = Grant(name="a", commands=("ping",)), Grant(name="b", commands=("ping",))
    assert digest_settings(Settings(grants=grants)) == digest_settings(Settings(grants=grants[::-1]))


def test_a_default_that_is_written_down_keeps_the_digest() -> None:
    """The output of --print-config, used as the settings file, is no other settings."""
    written = load([Layer("t.toml", {"limits": {"idle_seconds": 300}})])
    assert digest_settings(written) == digest_settings(Settings())


def test_another_order_of_arguments_has_another_digest() -> None:
    """The same line of a client means something else on the two hosts."""
    say = [Program(argv=["/bin/echo"], arguments=dict.fromkeys(order, "[a-z]+")) for order in ("ab", "ba")]
    first, second = (digest_settings(Settings(programs={"say": each})) for each in say)
    assert first != second


@pytest.mark.parametrize(
    "other",
    [
        Settings(server=ServerSettings(port=9998)),
        Settings(programs={"uptime": UPTIME}),
        Settings(grants=(Grant(name="monitoring", commands=("ping",)),)),
        Settings(logs={"auth": AUTH, "syslog": SYSLOG}),
    ],
)
def test_whatever_differs_is_seen(other: Settings) -> None:
    """Of logs also the order: the first is what `lastlog` shows."""
    settings = Settings(logs={"syslog": SYSLOG, "auth": AUTH})
    assert digest_settings(other) != digest_settings(settings) != digest_settings(Settings())


@pytest.mark.parametrize(
    ("reload", "text"),
    [
        (LastReload(), "never"),
        (LastReload(1_800_000_000.9), "2027-01-15T08:00:00Z succeeded"),
        (LastReload(1_800_000_000.0, succeeded=False), "2027-01-15T08:00:00Z refused"),
    ],
)
def test_the_last_reload_is_said_in_a_word(reload: LastReload, text: str) -> None:
    """After `systemctl reload` an operator sees whether the new settings are in force."""
    assert str(reload) == text
