"""``--print-config``: the settings as TOML that loads again, each with where it came from."""

import os
import re
import tomllib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_cmd import preparation
from trio_cmd.cli import main
from trio_cmd.serving import EXIT_OK, EXIT_SETTINGS
from trio_cmd.settings import ALGORITHMS, Layer, Settings, load, read_file, write_toml

WriteSettings = Callable[[str], str]
Capture = pytest.CaptureFixture[str]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
PATH = TEXT.map("/".__add__)
NAME = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name != "metrics")
SECONDS = st.floats(0.05, 86400) | st.integers(1, 86400)
LOG = st.fixed_dictionaries({"file": PATH}) | st.fixed_dictionaries(
    {"journal": st.sampled_from(["*", "a@b.service"])}
)
PATTERN = st.sampled_from(["[a-z0-9@.-]+", "[\\]\\\\a\"']{1,3}", "[é\u2028]+"]) | st.lists(
    st.from_regex(r"[!-~]{1,9}", fullmatch=True), min_size=1, max_size=3
)
PROGRAM = st.builds(
    lambda words, argument, rest: {
        "argv": ["/bin/true", *words, *(["{name}"] if argument else [])],
        **({"arguments": {"name": argument}} if argument else {}),
        **rest,
    },
    st.lists(TEXT.filter(lambda text: "{" not in text), max_size=3),
    st.none() | PATTERN,
    st.fixed_dictionaries({}, optional={"summary": TEXT, "seconds": SECONDS}),
)
GRANT = st.fixed_dictionaries(
    {"commands": st.lists(st.sampled_from(["*", "ping", "status"]), min_size=1, max_size=2)},
    optional={
        "addresses": st.lists(st.sampled_from(["127.0.0.0/8", "::1", "unix"]), max_size=2),
        "token_sha256": st.sampled_from(["", "aB" * 32]),
    },
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "server": st.fixed_dictionaries(
            {},
            optional={
                "host": st.sampled_from(["127.0.0.1", "::1", "localhost"]),
                "port": st.integers(0, 65535),
                "unix_socket": PATH,
            },
        ),
        "limits": st.fixed_dictionaries({}, optional={"idle_seconds": SECONDS, "waiting": st.integers(0, 9)}),
        "logging": st.fixed_dictionaries({"format": st.sampled_from(["auto", "json", "twisted"])}),
        "logs": st.dictionaries(NAME, LOG, max_size=3),
        "comphash": st.fixed_dictionaries(
            {},
            optional={
                "roots": st.lists(PATH, min_size=1, max_size=3),
                "algorithm": st.sampled_from(ALGORITHMS),
            },
        ),
        "programs": st.dictionaries(NAME, PROGRAM, max_size=2),
        "grants": st.dictionaries(NAME, GRANT, max_size=3).map(
            lambda grants: [{"name": name, **grant} for name, grant in grants.items()]
        ),
        "tls": st.fixed_dictionaries({"certificate": PATH, "key": PATH}, optional={"client_ca": PATH}),
    },
)


@pytest.fixture(autouse=True)
def no_default_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the host's own settings file out of the tests."""
    monkeypatch.setattr(preparation, "DEFAULT_PATH", "/nowhere/trio-cmd.toml")


@given(VALUES)
@settings(max_examples=60)
def test_what_is_printed_loads_to_the_same_settings(values: dict[str, Any]) -> None:
    """A printed file can be put in place of the flags and variables it was made of."""
    made = load([Layer("file", values)], ["ping", "status"])
    printed = write_toml(made, {})
    again = load([Layer("printed", tomllib.loads(printed.decode()))], ["ping", "status"])
    assert again == made
    assert list(again.logs) == list(made.logs)


def test_each_value_is_printed_with_where_it_came_from(write_settings: WriteSettings, capfd: Capture) -> None:
    """An operator sees why a line of the file has no effect."""
    path = write_settings(
        """
[server]
port = 1
max_clients = 5
[programs.echo]
argv = ["/bin/echo", "{word}"]
[programs.echo.arguments]
word = ["a", "b"]
[[grants]]
name = "monitoring"
addresses = ["127.0.0.1"]
commands = ["ping"]
"""
    )
    flags = ["--print-config", "--config", path, "--port", "3", "--log", "x=/x"]
    assert main([*flags, "--allow", "::1"], {"TRIO_CMD_LOG_FORMAT": "json"}) == EXIT_OK
    out, err = capfd.readouterr()
    assert err == ""
    for line in (
        "port = 3  # --port",
        f"max_clients = 5  # {path}",
        'host = "127.0.0.1"  # default',
        'format = "json"  # TRIO_CMD_LOG_FORMAT',
        'x = { file = "/x" }  # --log',
        f'argv = ["/bin/echo", "{{word}}"]  # {path}',
        "seconds = 60  # default",
        f'word = ["a", "b"]  # {path}',
        f'name = "monitoring"  # {path}',
        'certificate = ""  # default',
        'addresses = ["::1"]  # --allow',
    ):
        assert line in out.splitlines()
    pairs = [line for line in out.splitlines() if not line.startswith("[")]
    assert all(re.search(r"  # (default|--[a-z-]+|TRIO_CMD_[A-Z_]+|/.*\.toml)$", line) for line in pairs)


def test_the_printed_file_is_the_servers_own(write_settings: WriteSettings, capfd: Capture) -> None:
    """What is printed, put into a file, is what a start with that file alone has in force."""
    assert main(["--print-config", "--max-clients", "7"], {}) == EXIT_OK
    layer = read_file(write_settings(capfd.readouterr().out))
    assert load([layer]) == msgspec.structs.replace(
        Settings(), server=msgspec.structs.replace(Settings().server, max_clients=7)
    )


def test_bad_settings_are_told_and_not_printed(write_settings: WriteSettings, capfd: Capture) -> None:
    """Half of the settings could be taken for all of them."""
    path = write_settings("[server]\nport = -1\n")
    assert main(["--print-config", "--config", path], {}) == EXIT_SETTINGS
    assert capfd.readouterr() == ("", f"{path}: server.port: expected int >= 0\n")


def test_a_path_that_is_not_utf8_cannot_be_printed(capfd: Capture) -> None:
    """TOML is UTF-8; a file with another name in it would be another root."""
    flags = ["--print-config", "--root", os.fsdecode(b"/\xff")]
    assert main(flags, {}) == EXIT_SETTINGS
    said = "--print-config: a path is not UTF-8, and TOML has no form for it\n"
    assert capfd.readouterr() == ("", said)
