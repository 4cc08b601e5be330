"""The server as a program, called in this process."""

import hashlib
import json
import os
import signal
import socket
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_cmd import __version__, preparation, serving
from trio_cmd.cli import main
from trio_cmd.errors import ListenError, SettingsError
from trio_cmd.flags import parse_flags
from trio_cmd.records import EventLogger, LineSink, make_logger
from trio_cmd.records.render import render_json
from trio_cmd.server import signals
from trio_cmd.server.signals import EXIT_CRASHED, note_signals
from trio_cmd.serving import EXIT_CANNOT_LISTEN, EXIT_OK, EXIT_SETTINGS, EXIT_USAGE
from trio_cmd.settings import ServerSettings, Settings
from trio_cmd.tokens import is_token

WriteSettings = Callable[[str], str]
Capture = pytest.CaptureFixture[str]
TOKEN = "tcmd_" + "S3cret_-" * 5 + "abc"


class ListSink(LineSink):
    """Keeps records in a list instead of writing them."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def put(self, line: bytes, action: str) -> None:
        self.records.append(json.loads(line))


class FakeServer:
    """Listens, then does what the test wants."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self.stop_seconds = 1.0
        self.stop_reason: str | None = None

    def stop(self, reason: str) -> None:
        self.stop_reason = reason

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        self._then()


@pytest.fixture(autouse=True)
def no_default_settings_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Leave the host's own settings file out of the tests; returns the path looked for instead."""
    path = str(tmp_path_factory.mktemp("etc") / "trio-cmd.toml")
    monkeypatch.setattr(preparation, "DEFAULT_PATH", path)
    return path


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def log(sink: ListSink) -> EventLogger:
    return make_logger(sink, render_json)


def run(log: EventLogger, then: Callable[[], None]) -> tuple[int, FakeServer]:
    """Run the event loop with a fake server; returns the exit code and the server."""
    server = FakeServer(then)
    with note_signals() as noted:
        return serving._run(server, log, noted), server  # type: ignore[arg-type]  # a fake


# Checking, and what is wrong


def test_settings_can_be_checked_without_starting(write_settings: WriteSettings, capfd: Capture) -> None:
    """A change is tried before the service is restarted with it."""
    path = write_settings("[server]\nport = 5\n")
    assert main(["--check-config", "--config", path], {}) == EXIT_OK == 0
    assert capfd.readouterr() == ("the settings are good\n", "")


def test_every_fault_gets_its_line_on_standard_error(write_settings: WriteSettings, capsys: Capture) -> None:
    """The operator sees all there is to repair, and a script sees it by the exit code."""
    path = write_settings("[server]\nport = -1\n[limits]\nidle = 5\n")
    code = main(["--config", path, "--check-config", "--host", "here"], {"TRIO_CMD_MAX_CLIENTS": "many"})
    assert code == EXIT_SETTINGS == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(err.splitlines()) == sorted(
        [
            f"{path}: server.port: expected int >= 0",
            f"{path}: limits.idle: unknown key; did you mean idle_seconds?",
            "TRIO_CMD_MAX_CLIENTS: server.max_clients: expected int",
            '--host: server.host: expected an address of this host, "*" for all, or "" for none',
        ]
    )


@pytest.mark.parametrize("is_root", [True, False])
def test_root_is_not_exposed_unless_that_is_said(
    is_root: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Whoever runs a service as root by habit does not show every file to a network."""
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    exposed = ["--check-config", "--host", "*", "--allow", "10.0.0.0/8", "--root", "/tmp"]
    local = ["--check-config", "--host", "127.0.0.1", "--root", "/tmp"]
    code = main(exposed, {})
    said = "server.host: * can be reached from other hosts, and this is root"
    remedy = "start as another user, or say --allow-root"
    assert (code, capsys.readouterr().err) == ((78, f"{said}; {remedy}\n") if is_root else (0, ""))
    assert main([*exposed, "--allow-root"], {}) == 0
    assert main(local, {}) == 0


def test_faults_stop_a_start_as_they_stop_a_check(capsys: Capture) -> None:
    """A server never runs with settings other than those that were given."""
    assert main(["--port", "70000"], {}) == EXIT_SETTINGS
    assert capsys.readouterr() == ("", "--port: server.port: expected int <= 65535\n")


def test_the_version_is_told(capsys: Capture) -> None:
    """A bug report can name it."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"], {})
    assert caught.value.code == EXIT_OK
    assert capsys.readouterr().out == f"trio-cmd {__version__}\n"


def test_help_names_every_flag(capsys: Capture) -> None:
    """The everyday flags can be found without the manual."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"], {})
    assert caught.value.code == EXIT_OK
    out = capsys.readouterr().out
    for flag in ("host", "port", "max-clients", "log-format", "config", "check-config", "version"):
        assert f"--{flag}" in out


def test_help_fits_a_screen(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has scrolled away on a terminal of 24 lines and 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"], {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 23, "with the prompt after it, that is 24"
    assert max(map(len, lines)) <= 80
    options = [line for line in lines if line.startswith("  -")]
    assert len(options) == lines.index("", lines.index(options[0])) - lines.index(options[0]), "one line each"


@pytest.mark.parametrize(
    "argv", [["--nope"], ["extra"], ["--port"], ["--max", "5"], ["--check"], ["-p", "5"]]
)
def test_what_is_no_flag_is_a_usage_error(argv: list[str], capsys: Capture) -> None:
    """A slip is not taken for something else: flags are not abbreviated."""
    with pytest.raises(SystemExit) as caught:
        main(argv, {})
    assert caught.value.code == EXIT_USAGE == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: trio-cmd ")


def test_complaints_to_nobody_are_not_made_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Without a standard error, what is wrong is not mixed into the record on standard output."""
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["--port", "x"], {}) == EXIT_SETTINGS
    assert capsys.readouterr().out == ""


# Tokens


def test_a_token_is_printed_once_with_the_grant_that_holds_its_digest(capfd: Capture) -> None:
    """The operator gives the first line away and pastes the rest; the server never has the token."""
    assert main(["token", "monitoring"], {}) == EXIT_OK
    out, err = capfd.readouterr()
    token, _, grant = out.partition("\n")
    assert is_token(token.encode())
    assert token not in grant
    assert tomllib.loads(grant)["grants"] == [
        {
            "name": "monitoring",
            "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
            "commands": ["ping", "status", "lastlog"],
        }
    ]
    assert err == ""


def test_all_that_was_printed_is_no_settings_file(capfd: Capture) -> None:
    """Whoever appends it whole is told at the next start, and the token does not stay there unseen."""
    main(["token", "x"], {})
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(capfd.readouterr().out)


@pytest.mark.parametrize(
    "argv", [["token"], ["token", "Big"], ["token", "a" * 33], ["token", "a", "b"], ["token", ""]]
)
def test_a_token_needs_the_name_of_its_grant(argv: list[str], capfd: Capture) -> None:
    """The welcome and the record call the client by it."""
    with pytest.raises(SystemExit) as caught:
        main(argv, {})
    assert caught.value.code == EXIT_USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("usage: trio-cmd token ")
    assert err.count("\n") == 2


def test_a_token_that_cannot_be_printed_is_told(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    """A grant is not put into the settings for a token that nobody has seen."""
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(serving, "STANDARD_OUTPUT", full.fileno())
        assert main(["token", "x"], {}) == EXIT_CRASHED
    told = "trio-cmd: the token cannot be printed: No space left on device; make another\n"
    assert capfd.readouterr() == ("", told)


@pytest.mark.parametrize(
    "argv", [["--port", TOKEN], [TOKEN], [f"--{TOKEN}"], ["token", TOKEN], ["--log", TOKEN]]
)
def test_a_token_typed_in_the_wrong_place_is_not_shown(argv: list[str], capfd: Capture) -> None:
    """What is wrong is told, and may be pasted into a ticket."""
    code: object
    try:
        code = main(argv, {})
    except SystemExit as leaving:
        code = leaving.code
    assert code in {EXIT_USAGE, EXIT_SETTINGS}
    out, err = capfd.readouterr()
    assert out == ""
    assert "S3cret" not in err


def test_no_line_on_standard_error_shows_a_token(capfd: Capture) -> None:
    """Also what a later complaint quotes is safe to paste."""
    assert serving._complain(EXIT_CRASHED, f"cannot read {TOKEN}") == EXIT_CRASHED
    assert capfd.readouterr() == ("", "trio-cmd: cannot read tcmd_***\n")


# Where the settings file is


def check_port(argv: list[str], environ: dict[str, str]) -> int:
    """Which port the settings give that these arguments and variables lead to."""
    args = parse_flags(argv)
    return preparation.load_settings(args, environ)[0].server.port


def test_the_settings_file_is_the_flags_then_the_variables_then_the_hosts(
    no_default_settings_file: str, write_settings: WriteSettings
) -> None:
    """One run can have its own settings without touching the host's."""
    assert check_port([], {}) == 9999
    host_file = no_default_settings_file
    with open(host_file, "w") as file:
        file.write("[server]\nport = 1\n")
    os.chmod(host_file, 0o600)
    assert check_port([], {}) == 1
    assert check_port([], {"TRIO_CMD_CONFIG": ""}) == 1
    other = write_settings("[server]\nport = 2\n")
    assert check_port([], {"TRIO_CMD_CONFIG": other}) == 2
    assert check_port(["--config", other], {"TRIO_CMD_CONFIG": "/nope"}) == 2
    assert check_port(["--config", other], {"TRIO_CMD_PORT": "3"}) == 3
    assert check_port(["--config", other, "--port", "4"], {"TRIO_CMD_PORT": "3"}) == 4


def test_a_settings_file_that_was_named_must_be_there(capsys: Capture) -> None:
    """A typing error in --config does not start the server with the defaults."""
    for argv, environ in ((["--config", "/nope"], {}), ([], {"TRIO_CMD_CONFIG": "/nope"})):
        assert main(argv, environ) == EXIT_SETTINGS
        told = "/nope: No such file or directory; name a settings file that can be read\n"
        assert capsys.readouterr() == ("", told)


def test_faults_of_all_places_are_told_at_once(capsys: Capture) -> None:
    """A settings file that cannot be read does not hide a slip in a flag."""
    assert main(["--config", "/nope", "--port", "1e3"], {"TRIO_CMD_MAX_CLIENTS": "0"}) == EXIT_SETTINGS
    assert capsys.readouterr().err.splitlines() == [
        "/nope: No such file or directory; name a settings file that can be read",
        "TRIO_CMD_MAX_CLIENTS: server.max_clients: expected int >= 1",
        "--port: server.port: expected int",
    ]


# Ends that nobody asked for


def test_a_port_that_is_taken_is_one_line(capfd: Capture) -> None:
    """The operator reads what to do instead of a traceback; the record begins and ends as always."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port), "--log-format", "json"], {}) == EXIT_CANNOT_LISTEN == 71
    out, err = capfd.readouterr()
    assert len(err.splitlines()) == 1
    assert err.startswith("trio-cmd: ")
    assert str(port) in err
    actions = [json.loads(line)["action"] for line in out.splitlines()]
    assert (actions[0], actions[-1]) == ("log-opened", "stopped")
    assert json.loads(out.splitlines()[-1])["reason"] == "cannot-listen"
    assert "handler-crashed" not in actions


def test_a_crash_of_the_server_is_recorded_and_said(
    log: EventLogger, sink: ListSink, capsys: Capture
) -> None:
    """A supervisor sees the exit code and restarts it; the record holds what to repair."""

    def crash() -> None:
        raise ZeroDivisionError("the cause")

    code, _ = run(log, crash)
    assert code == EXIT_CRASHED == 70
    assert capsys.readouterr().err == "trio-cmd: the server has crashed; the record says where\n"
    (record,) = sink.records
    assert (record["action"], record["level"]) == ("handler-crashed", "error")
    assert "ZeroDivisionError: the cause" in record["exception"]


def test_a_port_that_is_taken_does_not_hide_a_crash(log: EventLogger, sink: ListSink) -> None:
    """Of two faults the one nobody can know of is told."""
    both = ExceptionGroup("both", [ListenError("taken"), ExceptionGroup("in it", [ValueError("the cause")])])
    assert serving._explain_crash(both, log) == EXIT_CRASHED
    assert "the cause" in sink.records[0]["exception"]


def test_a_server_that_ends_by_itself_ends_well(log: EventLogger, sink: ListSink) -> None:
    """The exit code of an ordered end is 0."""
    assert run(log, lambda: None)[0] == EXIT_OK
    assert sink.records == []


def test_an_interrupt_before_the_signals_are_ours_is_an_ordered_end(
    log: EventLogger, sink: ListSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the first moment ends the server like Ctrl-C later: no traceback, no crash."""

    class Terminal:
        def isatty(self) -> bool:
            """Interrupt whoever asks: it is what is asked just before the signals are taken over."""
            os.kill(os.getpid(), signal.SIGINT)
            return False

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(signals, "_end_at_last", lambda seconds: None)  # it would end this process
    code, server = run(log, lambda: None)
    assert (code, server.stop_reason, sink.records) == (EXIT_OK, "SIGINT", [])


def test_a_root_that_is_not_there_stops_the_start_and_the_check(tmp_path: Path, capsys: Capture) -> None:
    """The fence is looked at before anybody relies on it."""
    for more in (["--check-config"], []):
        argv = ["--root", str(tmp_path), "--root", f"{tmp_path}/nope", *more]
        assert main(argv, {}) == EXIT_SETTINGS
        assert capsys.readouterr().err == (
            f"comphash.roots: '{tmp_path}/nope': No such file or directory; name a folder that is there\n"
        )
    assert main(["--root", str(tmp_path), "--check-config"], {}) == EXIT_OK


@pytest.mark.parametrize("is_root", [True, False])
def test_a_reload_is_judged_by_where_the_server_listens(
    is_root: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file for the loopback must not open to other hosts what listens everywhere."""
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    everywhere = Settings(server=ServerSettings(host="*"))
    args = parse_flags(["--allow", "10.0.0.0/8", "--root", "/tmp"])
    if is_root:
        with pytest.raises(SettingsError, match="and this is root"):
            preparation.prepare(args, {}, (), everywhere)
    else:
        with preparation.prepare(args, {}, (), everywhere).roots:
            pass
    for flags, fault in ((["--root", "/tmp"], "say which ones"), (["--allow", "::1"], "say which folders")):
        with pytest.raises(SettingsError, match=fault):
            preparation.prepare(parse_flags(flags), {}, (), everywhere)
