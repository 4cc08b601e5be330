"""What ``ask`` is told: every slip is one line that says what to do instead, before anybody is asked."""

import contextlib
import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certificates import Certificates
from trio_cmd.client.hosts import Host
from trio_cmd.client.manifest import Expected
from trio_cmd.client.options import Options, parse_options
from trio_cmd.tokens import make_token

Capture = pytest.CaptureFixture[str]
Write = Callable[[str, str], str]

WEB1 = (Host("web1", "web1", 9999),)
TOKEN = "tcmd_" + "S3cret_-" * 5 + "abc"
SHA256 = "a" * 64


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of a name; returns its path."""

    def write_file(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    return write_file


def parse(line: str) -> Options:
    return parse_options(line.split())


def complaint_of(arguments: list[str], capsys: Capture) -> str:
    """Have arguments refused; returns the line that is said."""
    with pytest.raises(SystemExit) as caught:
        parse_options(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return str(err[:-1]).removeprefix("trio-cmd ask: ")


# What is good


def test_a_host_and_a_command_are_enough() -> None:
    """The everyday question is short."""
    assert parse("web1 -- ping") == Options(hosts=WEB1, commands=(b"ping",))


def test_all_is_kept(write: Write, certificates: Certificates) -> None:
    """What was said is what is done, wherever it stands before the dashes."""
    token = make_token()
    files = f"--token-file {write('token', token)} --ca {certificates.ca} --cert {certificates.client}"
    options = parse(f"-j 5 web1 --timeout 2.5 {files} web[2-3] --output groups --expect-same -- lastlog 5")
    assert [host.name for host in options.hosts] == ["web1", "web2", "web3"]
    assert options.commands == (b"lastlog 5",)
    assert (options.at_once, options.timeout_seconds) == (5, 2.5)
    assert options.token == token
    assert isinstance(options.tls, ssl.SSLContext)
    assert (options.output, options.expect_same) == ("groups", True)
    assert (options.manifest, options.follow) == (None, None)


def test_a_path_is_asked_for_byte_by_byte() -> None:
    """Also one that is not UTF-8, or looks like an option; the shell has split it, so blanks join it."""
    words = ["web1", "--", "comphash", "sha256", "--tls", os.fsdecode(b"/tmp/\xff  b"), "--"]
    assert parse_options(words).commands == (b"comphash sha256 --tls /tmp/\xff  b --",)


@pytest.mark.parametrize(("log", "name"), [("", ""), (" syslog", "syslog")])
def test_following_is_no_command_among_others(log: str, name: str) -> None:
    """It goes another way, and has no answer."""
    options = parse(f"web1 -- follow{log}")
    assert (options.follow, options.commands) == (name, ())
    assert parse("web1 --output json -- follow").output == "json"


def test_hosts_come_from_everywhere(write: Write) -> None:
    """In the order in which they are named, files behind the command line."""
    files = f"--hosts-file {write('a', 'web2')} --hosts-file {write('b', 'unix:/run/x y')}"
    options = parse(f"{files} web1 -- ping")
    assert [host.name for host in options.hosts] == ["web1", "web2", "unix:/run/x y"]


@pytest.mark.needs("ansible-inventory")
def test_hosts_come_from_an_inventory(write: Write) -> None:
    """Those of some groups, or all."""
    path = write("hosts.ini", "[web]\nweb[1:2]\n[db]\ndb1\ndb2\n[mail]\nmx1\n")
    options = parse(f"web1 --inventory {path} --limit db,mx1 --limit web2 -- ping")
    assert [host.name for host in options.hosts] == ["web1", "db1", "db2", "mx1", "web2"]


def test_commands_come_from_a_file(write: Write) -> None:
    """Many questions to each host, on one connection."""
    path = write("c", "ping\n#\nstatus")
    assert parse(f"web1 --commands {path}").commands == (b"ping", b"status")


def test_a_followed_log_may_come_from_a_file(write: Write) -> None:
    """A file of one line is that line."""
    path = write("c", "follow syslog\n")
    assert parse(f"web1 --commands {path}").follow == "syslog"


def test_a_manifest_is_read(write: Write) -> None:
    """It is asked in place of a command."""
    path = write("m", f"{SHA256}  /bin/sh\n")
    options = parse(f"web1 --manifest {path}")
    assert options.manifest == (Expected("sha256", SHA256, b"/bin/sh"),)
    assert options.commands == ()


@pytest.mark.parametrize(
    ("flag", "text", "rest"),
    [("--hosts-file", "web1\n", ["--", "ping"]), ("--commands", "ping\n", ["web1"])],
)
def test_a_dash_is_standard_input(flag: str, text: str, rest: list[str], write: Write) -> None:
    """Another program may say whom to ask, and what."""
    with open(write("input", text), "rb") as file:
        before = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            options = parse_options([flag, "-", *rest])
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert options == Options(hosts=WEB1, commands=(b"ping",))


def test_tls_is_for_those_who_ask_for_it(certificates: Certificates) -> None:
    """And whoever names a certificate does not mean to send in clear."""
    assert parse("web1 -- ping").tls is None
    for flags in ("--tls", f"--ca {certificates.ca}", f"--cert {certificates.client}"):
        assert parse(f"{flags} web1 -- ping").tls is not None


def test_checksums_of_one_host_may_be_wanted(write: Write) -> None:
    """Of one file or many."""
    assert parse("web1 --output checksums -- comphash /bin/sh").output == "checksums"
    path = write("c", "comphash /a\ncomphash sha256 /b\n")
    assert parse(f"web1 --output checksums --commands {path}").output == "checksums"


# What is said


def test_a_host_that_is_named_twice_is_asked_once(capsys: Capture) -> None:
    """Ranges overlap; the operator is told, and the answers are not counted twice."""
    options = parse("web[1-6] web[2-6] web1:9999 [::1] ::1 -- ping")
    assert [host.name for host in options.hosts] == [*(f"web{n}" for n in range(1, 7)), "[::1]"]
    expected = "named more than once, asked once: web2, web3, web4 and 4 more"
    assert capsys.readouterr() == ("", f"trio-cmd ask: {expected}\n")
    parse("web1:9999 web1 -- ping")
    assert capsys.readouterr().err.endswith(" asked once: web1 (as web1:9999)\n")


def test_one_port_is_not_another() -> None:
    """Two servers of one host are two."""
    assert len(parse("web1 web1:9998 unix:web1 -- ping").hosts) == 3


def test_nobody_needs_to_read_what_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Where standard error is full or closed, the answers come all the same, and nothing else with them."""
    with contextlib.suppress(OSError), open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stderr", full)
        assert parse("web1 web1 -- ping").hosts == WEB1
    assert sys.stderr is None, "nothing is left to be written at the end, and to fail"
    assert parse("web1 web1 -- ping").hosts == WEB1
    assert capsys.readouterr().out == ""


def test_help_fits_a_screen(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has scrolled away on a terminal of 24 lines and 80 columns, and every option has its line."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        parse_options(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) <= 23, "with the prompt after it, that is 24"
    assert max(map(len, lines)) <= 80
    options = [line for line in lines if line.startswith("  -")]
    assert len(options) == lines.index("", lines.index(options[0])) - lines.index(options[0]), "one line each"
    assert out.startswith("usage: trio-cmd ask [OPTION ...] HOST ... -- COMMAND\n")


def test_two_hosts_of_one_name_are_told_apart(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an inventory calls web1 need not be what the command line does: neither hides the other."""
    there = [Host("web1", "192.0.2.7", 9)]
    monkeypatch.setattr("trio_cmd.client.options.read_inventory", lambda *_: there)
    options = parse("web1 --inventory x -- ping")
    assert [host.name for host in options.hosts] == ["web1", "web1 (192.0.2.7 9)"]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]:9", "localhost", "unix:/run/x"])
def test_a_token_is_shown_to_this_machine_as_it_is(host: str, write: Write) -> None:
    """Nobody listens between the two."""
    assert parse(f"{host} --token-file {write('token', TOKEN)} -- ping").token == TOKEN


# What is refused


@pytest.mark.parametrize("host", ["web1", "192.0.2.7", "[2001:db8::7]:9", "localhost.example"])
def test_a_token_leaves_this_machine_only_sealed(host: str, write: Write, capsys: Capture) -> None:
    """Whoever forgets --tls does not tell everybody on the way; no server of ours wants it unsealed."""
    arguments = ["127.0.0.1", host, "--token-file", write("token", TOKEN), "--", "ping"]
    assert complaint_of(arguments, capsys) == f"--token-file: {host} is another machine, ask it with --tls"


USAGE = "trio-cmd ask [OPTION ...] HOST ... -- COMMAND"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", f"no command; put it behind the hosts and two dashes: {USAGE}"),
        ("web1 ping", f"no command; put it behind the hosts and two dashes: {USAGE}"),
        ("web1 --", "the command is empty; ping asks whether a server is there"),
        ("-- ping", "no host: name some, or --hosts-file FILE, or --inventory FILE"),
        ("web1 --colour -- ping", "unknown option --colour; trio-cmd ask --help lists them"),
        ("web1 -x -- ping", "unknown option -x; trio-cmd ask --help lists them"),
        ("web1 --host -- ping", "unknown option --host; trio-cmd ask --help lists them"),
        ("web1 -j 0 -- ping", "argument -j: expected a number from 1 to 10000"),
        ("web1 -j -1 -- ping", "argument -j: expected a number from 1 to 10000"),
        ("web1 -j 10001 -- ping", "argument -j: expected a number from 1 to 10000"),
        ("web1 -j many -- ping", "argument -j: expected a number from 1 to 10000"),
        ("web1 -j -- ping", "argument -j: expected one argument"),
        ("web1 --timeout 0 -- ping", "argument --timeout: expected seconds, more than 0 and at most 86400"),
        ("web1 --timeout -5 -- ping", "argument --timeout: expected seconds, more than 0 and at most 86400"),
        ("web1 --timeout nan -- ping", "argument --timeout: expected seconds, more than 0 and at most 86400"),
        ("web1 --timeout inf -- ping", "argument --timeout: expected seconds, more than 0 and at most 86400"),
        ("web1 --timeout 5s -- ping", "argument --timeout: expected seconds, more than 0 and at most 86400"),
        (
            "web1 --limit db -- ping",
            "--limit: chooses from an inventory; name that as well: --inventory FILE",
        ),
        (
            "web1 --inventory i --limit a,,b -- ping",
            "argument --limit: expected groups or hosts, with commas between them",
        ),
        ("web1 --commands f -- ping", "a command and --commands: give one of them"),
        ("web1 --manifest f -- ping", "a command and --manifest: give one of them"),
        ("web1 --commands f --manifest f", "--commands and --manifest: give one of them"),
        (
            "--hosts-file - --commands -",
            "standard input can be read once; name a file in place of one -",
        ),
        (
            "--hosts-file - --hosts-file - -- ping",
            "standard input can be read once; name a file in place of one -",
        ),
        ("web[2-1] -- ping", "'web[2-1]': 2-1 counts down; write 1-2"),
        ("web[1-9999] db[1-2] -- ping", "more than 10000 hosts; ask in several turns"),
        ("web1 -- format json", "format is not asked: the form is chosen here, by --output FORMAT"),
        ("web1 -- exit", "exit is not asked: the connection is closed when all is answered; leave it out"),
        (
            f"web1 -- auth {TOKEN}",
            "auth is said by itself: give the token in a file, --token-file FILE",
        ),
        ("web1 -- follow /x", "follow takes the name of a log, of a-z, 0-9 and -: /x"),
        (
            "web1 --expect-same -- follow",
            "--expect-same: compares answers, and here are none to compare; leave it out",
        ),
        ("web1 --output groups -- follow", "--output groups: follow has no end; use text or json"),
        ("web1 --output checksums -- follow", "--output checksums: follow has no end; use text or json"),
        (
            "web1 --output checksums -- verify sha1:x /a",
            "--output checksums: shows the answers of comphash; ask comphash, or use text",
        ),
        (
            "web[1-2] --output checksums -- comphash /a",
            "--output checksums: is for one host; use groups to compare many",
        ),
        ("web1 --key k -- ping", "--key: belongs to a certificate; name that as well: --cert FILE"),
        (
            "web1 --ca no -- ping",
            "--ca: 'no': No such file or directory; name a file in PEM form that can be read",
        ),
        ("web1 --inventory no -- ping", "--inventory: 'no': no such file or folder"),
        ("--hosts-file no -- ping", "'no': No such file or directory; name a file that can be read"),
        (
            "web1 --token-file no -- ping",
            "--token-file: 'no': No such file or directory; name a file that can be read",
        ),
    ],
)
def test_a_slip_is_told_in_one_line(
    line: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The operator reads what to type instead, and no host was asked."""
    monkeypatch.chdir(tmp_path)
    assert complaint_of(line.split(), capsys) == complaint


@pytest.mark.parametrize(
    "flag", ["--hosts-file", "--inventory", "--commands", "--manifest", "--token-file", "--ca", "--cert"]
)
def test_an_empty_name_of_a_file_is_no_file_that_was_not_named(flag: str, capsys: Capture) -> None:
    """A variable of a script that is not set does not ask other hosts, without a token or without TLS."""
    command = [] if flag in ("--commands", "--manifest") else ["--", "ping"]
    assert "o such file or" in complaint_of(["web1", flag, "", *command], capsys)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no command in it; write one in each line"),
        ("ping\nfollow\n", "follow ends only when it is interrupted: ask it alone"),
        ("follow a\nfollow b\n", "follow ends only when it is interrupted: ask it alone"),
        ("ping\nformat text\n", "2: format is not asked: the form is chosen here, by --output FORMAT"),
    ],
)
def test_a_slip_in_a_file_of_commands_is_told(
    text: str, complaint: str, write: Write, capsys: Capture
) -> None:
    """With its line, where it is one line's."""
    said = complaint_of(["web1", "--commands", write("c", text)], capsys)
    assert said.endswith(complaint)


def test_a_manifest_is_shown_and_judged_in_its_own_way(write: Write, capsys: Capture) -> None:
    """What a file should be is in the manifest, not in the other hosts' answers."""
    path = write("m", f"{SHA256}  /bin/sh\n")
    said = complaint_of(["web1", "--manifest", path, "--expect-same"], capsys)
    assert said == "--expect-same: compares answers, and here are none to compare; leave it out"
    said = complaint_of(["web1", "--manifest", path, "--output", "checksums"], capsys)
    assert said == "--output checksums: shows the answers of comphash; ask comphash, or use text"


def test_a_newline_in_a_command_is_refused(capsys: Capture) -> None:
    """It would be two questions with one answer."""
    said = complaint_of(["web1", "--", "comphash", "/tmp/a\nb"], capsys)
    assert said == "a command is one line; put several into a file: --commands FILE"


@pytest.mark.parametrize("arguments", [[TOKEN], ["--token", TOKEN], ["-j", TOKEN], [f"--{TOKEN}\x1b[2J\n"]])
def test_a_complaint_shows_no_token_and_changes_no_terminal(arguments: list[str], capsys: Capture) -> None:
    """What was typed in the wrong place may be a secret, and comes back to a screen or a log."""
    said = complaint_of([*arguments, "--", "exit"], capsys)
    assert TOKEN not in said
    assert "\x1b" not in said


WORDS = st.sampled_from(
    [
        "web1",
        "web[1-2]",
        "--",
        "-j",
        "5",
        "--timeout",
        "--tls",
        "--output",
        "text",
        "--expect-same",
        "ping",
        "-",
    ]
) | st.text(st.characters(exclude_categories=()), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(WORDS, max_size=8))
def test_any_arguments_give_options_or_one_line(arguments: list[str], capsys: Capture) -> None:
    """Whatever a script makes of them, there is no traceback."""
    code: object = 0
    try:
        assert parse_options(arguments).hosts
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert code == (2 if err and "asked once" not in err.splitlines()[-1] else 0)
    assert all(line.startswith("trio-cmd ask: ") for line in err.splitlines())
    assert not out or out.startswith("usage: "), "only of -h"
