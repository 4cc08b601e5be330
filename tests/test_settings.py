"""Settings: file, environment and flags become one value, or every fault is told."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.errors import SettingsError
from trio_cmd.settings import (
    ALGORITHMS,
    FLAGS,
    Layer,
    Limits,
    Log,
    Settings,
    from_environment,
    from_flags,
    from_log_flags,
    load,
    read_file,
)

EXPECTED_LOG = 'logs.sys: expected { file = "/absolute/path" } or { journal = "UNIT" }'

WriteSettings = Callable[[str], str]


def faults_of(*layers: Layer) -> list[str]:
    """What is told about layers that cannot be used."""
    with pytest.raises(SettingsError) as caught:
        load(layers)
    return caught.value.faults


@pytest.fixture
def told(write_settings: WriteSettings) -> Callable[[str], list[str]]:
    """The faults of a settings file, without its name before each."""

    def tell(text: str) -> list[str]:
        path = write_settings(text)
        faults = faults_of(read_file(path))
        assert all(fault.startswith(f"{path}: ") for fault in faults)
        return [fault.removeprefix(f"{path}: ") for fault in faults]

    return tell


Told = Callable[[str], list[str]]


def test_without_any_settings_all_have_the_defaults_of_the_manual() -> None:
    """The program runs without a settings file, for this host only."""
    settings = load([])
    assert settings == Settings()
    assert (settings.server.host, settings.server.port, settings.server.max_clients) == (
        "127.0.0.1",
        9999,
        100,
    )
    assert settings.limits == Limits(
        line_bytes=8192,
        request_seconds=30,
        idle_seconds=300,
        write_seconds=30,
        stop_seconds=10,
        pending_replies=64,
        pending_bytes=4194304,
        total_pending_bytes=268435456,
        running_per_client=4,
        running_programs=0,
        waiting=256,
    )
    assert (settings.logging.format, settings.logging.queue_events) == ("auto", 10000)
    assert settings.logging.queue_bytes == 16777216
    assert (settings.comphash.algorithm, settings.comphash.threads) == ("sha1", 0)
    assert (settings.comphash.seconds, settings.comphash.max_bytes) == (600, 68719476736)
    assert not settings.logs
    assert ALGORITHMS == ("sha1", "md5", "sha256", "sha512", "sha3_256", "blake2b")


def test_the_defaults_are_within_their_own_ranges() -> None:
    """A file that spells out every default is accepted."""
    values = msgspec.to_builtins(Settings())
    assert load([Layer("x", values)]) == Settings()


def test_a_file_sets_everything_it_names(write_settings: WriteSettings) -> None:
    """What the file says holds, and the rest keeps its default."""
    path = write_settings(
        """
        [server]
        host = "::1"
        port = 0
        [limits]
        idle_seconds = 0.5
        stop_seconds = 3
        [logging]
        format = "json"
        [logs]
        mail = { file = "/var/log/mail.log" }
        app = { file = "/srv/a b/\u00e4.log" }
        [comphash]
        algorithm = "sha3_256"
        max_bytes = 1
        """
    )
    settings = load([read_file(path)])
    assert (settings.server.host, settings.server.port, settings.server.max_clients) == ("::1", 0, 100)
    assert (settings.limits.idle_seconds, settings.limits.stop_seconds) == (0.5, 3)
    assert settings.logging.format == "json"
    assert list(settings.logs.items()) == [
        ("mail", Log(file="/var/log/mail.log")),
        ("app", Log(file="/srv/a b/ä.log")),
    ]
    assert (settings.comphash.algorithm, settings.comphash.max_bytes) == ("sha3_256", 1)


# Which layer wins


def test_flags_win_over_variables_and_variables_over_the_file(write_settings: WriteSettings) -> None:
    """What is typed for this one run counts most."""
    file = read_file(write_settings("[server]\nhost='::1'\nport=1\nmax_clients=1\n[logs]\na={file='/a'}\n"))
    environment = from_environment({"TRIO_CMD_PORT": "2", "TRIO_CMD_MAX_CLIENTS": "2"})
    settings = load([file, environment, from_flags({"max-clients": "3"})])
    assert (settings.server.host, settings.server.port, settings.server.max_clients) == ("::1", 2, 3)
    assert settings.logs == {"a": Log(file="/a")}


def test_an_empty_variable_counts_as_not_set() -> None:
    """A unit file that passes on variables nobody set starts all the same."""
    assert load([from_environment(dict.fromkeys(("TRIO_CMD_HOST", "TRIO_CMD_PORT"), ""))]) == Settings()


def test_each_everyday_flag_has_its_variable_and_others_are_ignored() -> None:
    """A variable is named like its flag; what else begins with TRIO_CMD_ is not ours to judge."""
    settings = load(
        [
            from_environment(
                {
                    "TRIO_CMD_HOST": "localhost",
                    "TRIO_CMD_PORT": "0",
                    "TRIO_CMD_MAX_CLIENTS": "7",
                    "TRIO_CMD_LOG_FORMAT": "twisted",
                    "TRIO_CMD_LOG_FILE": "/var/log/x",
                    "TRIO_CMD_ROOT": "/srv",
                    "TRIO_CMD_UNIX_SOCKET": "/run/x",
                    "TRIO_CMD_REQUIRE_TOOLS": "1",
                    "PORT": "5",
                }
            )
        ]
    )
    assert (settings.server.host, settings.server.port, settings.server.max_clients) == ("localhost", 0, 7)
    assert (settings.logging.format, settings.logging.file) == ("twisted", "/var/log/x")
    assert settings.comphash.roots == ("/srv",)
    assert settings.server.unix_socket == "/run/x"
    assert len(FLAGS) == 7


@pytest.mark.parametrize("flag", FLAGS)
def test_a_fault_is_told_with_the_flag_or_variable_it_came_from(flag: str) -> None:
    """The operator knows where to look: at what was typed, or in the unit file."""
    variable = "TRIO_CMD_" + flag.upper().replace("-", "_")
    (fault,) = faults_of(from_flags({flag: "\x1b?"}))
    assert fault.startswith(f"--{flag}: {FLAGS[flag]}: expected ")
    (fault,) = faults_of(from_environment({variable: "?"}))
    assert fault.startswith(f"{variable}: {FLAGS[flag]}: expected ")


@given(st.sampled_from(list(FLAGS)), st.text(st.characters(codec=None)))
def test_any_text_in_a_flag_is_a_setting_or_one_fault_line(flag: str, text: str) -> None:
    """No argument ends in a traceback."""
    faults = []
    try:
        load([from_flags({flag: text})])
    except SettingsError as error:
        faults = error.faults
    assert len(faults) <= 1
    assert all(fault.isprintable() for fault in faults)


# Faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[limits]\nline_bytes = 10", "limits.line_bytes: expected int >= 512"),
        ("[limits]\nline_bytes = 2000000", "limits.line_bytes: expected int <= 1048576"),
        ("[limits]\nline_bytes = 1.5", "limits.line_bytes: expected int, got float"),
        ("[limits]\nline_bytes = '8192'", "limits.line_bytes: expected int, got str"),
        ("[limits]\nline_bytes = [1]", "limits.line_bytes: expected int, got array"),
        ("[limits]\nidle_seconds = '5'", "limits.idle_seconds: expected number, got str"),
        ("[limits]\nidle_seconds = true", "limits.idle_seconds: expected number, got bool"),
        ("[limits]\nidle_seconds = 0", "limits.idle_seconds: expected number >= 0.05"),
        ("[server]\nport = true", "server.port: expected int, got bool"),
        ("[server]\nport = 65536", "server.port: expected int <= 65535"),
        ("[server]\nport = -1", "server.port: expected int >= 0"),
        ("[server]\nport = 1979-05-27", "server.port: expected int, got date"),
        ("[server]\nmax_clients = 0", "server.max_clients: expected int >= 1"),
        ("[server]\nhost = 5", "server.host: expected str, got int"),
        ("[logging]\nformat = 'xml'", "logging.format: expected auto or json or twisted"),
        ("[logging]\nformat = 5", "logging.format: expected auto or json or twisted"),
        (
            "[comphash]\nalgorithm = 'sha3'",
            "comphash.algorithm: expected sha1 or md5 or sha256 or sha512 or sha3_256 or blake2b",
        ),
        ("[limits]\nline_byte = 1", "limits.line_byte: unknown key; did you mean line_bytes?"),
        ("[limits]\nzzz = 1", "limits.zzz: unknown key"),
        ("[limmits]", "limmits: unknown key; did you mean limits?"),
        ("[log]", "log: unknown key; did you mean logs?"),
        ("port = 5", "port: unknown key"),
        ("[server]\nunix_sockets = ''", "server.unix_sockets: unknown key; did you mean unix_socket?"),
        ("[server]\nunix_socket = 'x'", "server.unix_socket: expected an absolute path"),
        ('[server]\nunix_socket = "/x\\u0000"', "server.unix_socket: expected an absolute path"),
        (
            f"[server]\nunix_socket = '/{'x' * 107}'",
            "server.unix_socket: expected a path of at most 107 bytes",
        ),
        ("[server]\nmax_clients_per_address = 0", "server.max_clients_per_address: expected int >= 1"),
        ('"a\\u001bb" = 5', "a\\x1bb: unknown key"),
        ('[limits]\n"a\\nb" = 5', "limits.a\\x0ab: unknown key"),
        ("server = 5", "server: expected a table, [server]"),
        ("[[server]]", "server: expected a table, [server]"),
        ("logs = 5", "logs: expected a table, [logs]"),
        (
            "[logs]\nSys = {file='/x'}",
            "logs.Sys: expected a name of a-z, 0-9 and -, beginning with a letter, at most 32",
        ),
        ("[logs]\nsys = '/x'", EXPECTED_LOG),
        ("[logs]\nsys = {}", EXPECTED_LOG),
        ("[logs]\nsys = {file='/x', journal='y'}", EXPECTED_LOG),
        ("[logs]\nsys = {journal='a b'}", 'logs.sys.journal: expected the name of a unit, or "*"'),
        ("[logs]\nsys = {journal='ssh*'}", 'logs.sys.journal: expected the name of a unit, or "*"'),
        ("[logs]\nsys = {journal=''}", 'logs.sys.journal: expected the name of a unit, or "*"'),
        ("[limits]\nfollowers = -1", "limits.followers: expected int >= 0"),
        ("[logs]\nsys = {file='x'}", "logs.sys.file: expected an absolute path"),
        ("[logs]\nsys = {file=5}", "logs.sys.file: expected an absolute path"),
        ('[logs]\nsys = {file="/x\\u0000"}', "logs.sys.file: expected an absolute path"),
        ("[logs]\nsys = {file='/x', fil='/y'}", "logs.sys.fil: unknown key; did you mean file?"),
    ],
)
def test_each_kind_of_fault_is_one_line_that_says_what_to_type(text: str, fault: str, told: Told) -> None:
    """The start is refused with the key and what was expected there."""
    assert told(text) == [fault]


@pytest.mark.parametrize("number", ["nan", "-nan", "inf", "-inf", "1e400"])
def test_numbers_that_are_none_are_refused(number: str, told: Told) -> None:
    """A deadline of NaN seconds would never pass, and nobody would notice."""
    (fault,) = told(f"[limits]\nidle_seconds = {number}")
    assert fault.startswith("limits.idle_seconds: expected number ")


def test_a_log_may_be_the_journal_of_a_unit_or_of_all(write_settings: WriteSettings) -> None:
    """Many services of today write no file at all."""
    text = "[logs]\nsshd = {journal='ssh.service'}\nroot = {journal='-.mount'}\nall = {journal='*'}\n"
    assert load([read_file(write_settings(text))]).logs == {
        "sshd": Log(journal="ssh.service"),
        "root": Log(journal="-.mount"),
        "all": Log(journal="*"),
    }


def test_logs_named_by_flag_come_first_and_those_of_the_file_stay(write_settings: WriteSettings) -> None:
    """Who names a log as the server starts wants to see it at a bare lastlog, and the others too."""
    file = read_file(write_settings("[logs]\na = {file='/a'}\nb = {file='/b'}\n"))
    layers = [file, from_environment({"TRIO_CMD_LOG": "c=/c"}), from_log_flags(["d=/d=d", "b=/other"])]
    logs = load(layers).logs
    assert list(logs) == ["d", "b", "c", "a"]
    assert {name: log.file for name, log in logs.items()} == {
        "d": "/d=d",
        "b": "/other",
        "c": "/c",
        "a": "/a",
    }


def test_log_named_wrongly_by_flag_is_told_with_the_flag() -> None:
    """A slip on the command line is found at the start, not at night."""
    given = from_log_flags(["app", "B=/b", "c=c"])
    assert faults_of(from_environment({"TRIO_CMD_LOG": "/x"}), given) == [
        "TRIO_CMD_LOG: logs./x: expected a name of a-z, 0-9 and -, beginning with a letter, at most 32",
        "--log: logs.app.file: expected an absolute path",
        "--log: logs.B: expected a name of a-z, 0-9 and -, beginning with a letter, at most 32",
        "--log: logs.c.file: expected an absolute path",
    ]
    assert load([from_environment({"TRIO_CMD_LOG": ""})]).logs == {}


@pytest.mark.parametrize("field", msgspec.structs.fields(Limits), ids=lambda field: field.name)
def test_no_limit_can_be_zero_below_or_without_bound_by_a_slip(
    field: msgspec.structs.FieldInfo, told: Told
) -> None:
    """One key too many in a number does not switch a fence off."""
    assert told(f"[limits]\n{field.name} = -1") != []
    assert told(f"[limits]\n{field.name} = 1{'0' * 30}") != []


def test_all_faults_of_all_layers_are_told_at_once(write_settings: WriteSettings) -> None:
    """The operator repairs the settings in one go."""
    path = write_settings(
        "[server]\nport=-1\nhst='x'\n[limits]\nline_bytes='x'\nidle_seconds=nan\n[logs]\nA={}\n[x]\n"
    )
    faults = faults_of(
        read_file(path),
        from_environment({"TRIO_CMD_PORT": "x"}),
        from_flags({"log-format": "x", "port": "70000"}),
    )
    assert len(faults) == 9
    assert faults[-3:] == [
        "TRIO_CMD_PORT: server.port: expected int",
        "--log-format: logging.format: expected auto or json or twisted",
        "--port: server.port: expected int <= 65535",
    ]


def test_a_stronger_layer_does_not_hide_a_weaker_ones_fault(write_settings: WriteSettings) -> None:
    """A broken file is found while a flag happens to cover it, not on the day the flag goes."""
    path = write_settings("[server]\nport='x'\n")
    assert faults_of(read_file(path), from_flags({"port": "5"})) == [
        f"{path}: server.port: expected int, got str"
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "0:0:0:0:0:0:0:1", "localhost"])
def test_loopback_addresses_may_be_listened_on(host: str) -> None:
    """This host may talk to itself by any of its names."""
    assert load([from_flags({"host": host})]).server.host == host


@pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "127.1", "10.0.0.0/8", "eth0"])
def test_a_name_cannot_be_listened_on(host: str) -> None:
    """No name is ever looked up: who answers for it would decide where the server listens."""
    expected = '--host: server.host: expected an address of this host, "*" for all, or "" for none'
    assert faults_of(from_flags({"host": host})) == [expected]


# The file itself


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o660])
def test_a_file_that_others_may_write_is_refused(mode: int, write_settings: WriteSettings) -> None:
    """Who may not administer the server cannot change what it gives out."""
    path = write_settings("")
    os.chmod(path, mode)
    with pytest.raises(SettingsError) as caught:
        read_file(path)
    assert caught.value.faults == [f"{path}: others than its owner may write it; chmod go-w '{path}'"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o755])
def test_a_file_that_others_may_only_read_is_accepted(mode: int, write_settings: WriteSettings) -> None:
    """Settings hold no secret by themselves."""
    path = write_settings("[server]\nport = 5\n")
    os.chmod(path, mode)
    assert load([read_file(path)]).server.port == 5


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """A slip in --config is told as such."""
    for path, why in ((tmp_path / "no\x1b", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError) as caught:
            read_file(str(path))
        shown = str(path).replace("\x1b", "\\x1b")
        assert caught.value.faults == [f"{shown}: {why}; name a settings file that can be read"]


@pytest.mark.parametrize(
    "data",
    [
        b"[server",
        b"port = \xff",
        b"a\0",
        b"a = 1\na = 2",
        b"a = " + b"9" * 5000,
        b"a = " + b"[" * 5000,
        b"\x1b",
    ],
    ids=["open", "not-utf-8", "nul", "twice", "5000-digits", "5000-brackets", "control"],
)
def test_what_is_not_toml_is_one_line(data: bytes, write_settings: WriteSettings) -> None:
    """A half-written or foreign file gives a line and no traceback."""
    path = write_settings("")
    Path(path).write_bytes(data)
    with pytest.raises(SettingsError) as caught:
        read_file(path)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}: not TOML: ")
    assert fault.isprintable()


TOML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "server",
    "limits",
    "logging",
    "logs",
    "comphash",
    "port",
    "host",
    "idle_seconds",
    "file",
    "algorithm",
    "a",
]


@given(
    st.dictionaries(
        st.sampled_from(KEYS) | st.text(), TOML_VALUES | st.dictionaries(st.sampled_from(KEYS), TOML_VALUES)
    )
)
def test_any_values_are_settings_or_faults_and_never_a_traceback(values: dict[str, object]) -> None:
    """Whatever a file holds, the operator gets lines to act on."""
    faults = []
    try:
        settings = load([Layer("file", values)])
    except SettingsError as error:
        faults = error.faults
    else:
        assert 0.05 <= settings.limits.idle_seconds <= 86400
    assert all(fault.startswith("file: ") for fault in faults)
    assert all(len(fault.splitlines()) == 1 for fault in faults)


def test_a_settings_file_that_is_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    """The start never waits for somebody to write settings into it."""
    fifo = tmp_path / "trio-cmd.toml"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(SettingsError) as caught:
        read_file(str(fifo))
    assert caught.value.faults == [f"{fifo}: not a regular file; name a settings file that can be read"]


def test_a_file_that_is_no_settings_is_not_read_into_memory(tmp_path: Path) -> None:
    """A reload that is given a disk image by mistake costs the clients of a running server nothing."""
    image = tmp_path / "trio-cmd.toml"
    image.touch(0o600)
    os.truncate(image, 1 << 40)  # of holes
    with pytest.raises(SettingsError) as caught:
        read_file(str(image))
    assert caught.value.faults == [f"{image}: not TOML: longer than 4194304 bytes"]


# The roots


def test_roots_come_from_the_file_a_variable_or_repeated_flags(write_settings: WriteSettings) -> None:
    """A folder for one afternoon is a flag, those of the site stand in the file."""
    file = read_file(write_settings('[comphash]\nroots = ["/srv", "/var/www"]\n'))
    assert load([]).comphash.roots == ("/",)
    assert load([file]).comphash.roots == ("/srv", "/var/www")
    environment = from_environment({"TRIO_CMD_ROOT": "/1"})
    assert load([file, environment]).comphash.roots == ("/1",)
    flags = from_flags({"root": ["/a", "/b"]})
    assert load([file, environment, flags]).comphash.roots == ("/a", "/b")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("[]", "expected array of length >= 1"),
        ('"/srv"', "expected array, got str"),
        ('["srv"]', "expected absolute paths of folders"),
        ('["/srv", "."]', "expected absolute paths of folders"),
        ('["/s\\u0000rv"]', "expected absolute paths of folders"),
    ],
)
def test_roots_that_mean_nothing_are_told(value: str, fault: str, write_settings: WriteSettings) -> None:
    """A fence that stands somewhere else than it was meant to is none."""
    path = write_settings(f"[comphash]\nroots = {value}\n")
    assert faults_of(read_file(path)) == [f"{path}: comphash.roots: {fault}"]


def test_a_relative_root_of_a_flag_is_told_with_its_flag() -> None:
    """What ``--root .`` means would depend on who starts the server where."""
    assert faults_of(from_flags({"root": ["."]})) == [
        "--root: comphash.roots: expected absolute paths of folders"
    ]
