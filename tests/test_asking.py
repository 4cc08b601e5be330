"""What ``docs/asking.md`` shows is really asked, and what it lists is what there is.

Its commands are run by bash on a terminal, and ask real servers.  Two things are not as on the page:
its names are looked up in a table of this test, which leads them to this host; and its ``/usr`` and
``/etc`` are ``./usr`` and ``./etc`` in the folders where servers and clients are started, so that
hosts can differ.
"""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Self, get_args

import pytest
from _pytest.mark.structures import ParameterSet

from certificates import Certificates
from conftest import StartProgram
from program import PATIENCE_SECONDS, Program
from trio_cmd.client import ask, connection, errors, flags, fleet, hosts, sources, verdict, writing

PAGE = (Path(__file__).parent.parent / "docs" / "asking.md").read_text()
SECTION = re.compile(r"^##+ (.*)\n((?:(?!##).*\n)*)", re.MULTILINE)
FILE = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A command, which a backslash continues on the next line, and what is shown behind it.
STEP = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)

# Tool -> what in a command uses it.
TOOLS = {"ansible-inventory": "--inventory", "jq": "jq ", "rlwrap": "rlwrap "}
TOKEN = "tcmd_" + "0123456789" * 4 + "abc"
CONFIG = "PermitRootLogin no\n"
SSHD = {"web": "OpenSSH 9.2\n", "drifted": "OpenSSH 9.2, and something else\n", "sealed": "OpenSSH 9.2\n"}
KEPT = "Nov 20 15:02:03 lab sshd[411]: Server listening on 0.0.0.0 port 22.\n"
NEWS = {
    "web": "Nov 20 15:13:58 lab sshd[702]: Accepted publickey for admin from 10.1.0.9\n",
    "drifted": "Nov 20 15:14:02 lab sshd[811]: Failed password for root from 203.0.113.9\n",
}
SEALED = """\
[[grants]]
name = "lab"
addresses = ["127.0.0.1"]
commands = ["ping"]
[[grants]]
name = "admin"
token_sha256 = "{digest}"
commands = ["*"]
[tls]
certificate = "{certificate}"
key = "{certificate}"
"""
LOOK_UP = """\
import runpy, socket, sys

PORTS = {ports}
look_up = socket.getaddrinfo

def getaddrinfo(name, port, *args, **kwargs):
    if name not in PORTS:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return look_up("127.0.0.1", PORTS[name], *args, **kwargs)

socket.getaddrinfo = getaddrinfo
del sys.argv[0]
if sys.argv[0] != "trio-cmd":
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    from trio_cmd.cli import main
    sys.exit(main())
"""


Meanwhile = Callable[[], object] | None
"""What is done again and again while something is waited for."""


class Screen:
    """A terminal on which bash runs one command.

    Args:
        command: for bash.
        home: where it is run.
        programs: a folder of programs that come before all others.
    """

    def __init__(self, command: str, home: Path, programs: Path) -> None:
        self._fd, its_end = os.openpty()
        termios.tcsetwinsize(its_end, (30, 100))
        self.shown = ""
        environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "dumb"}
        # The terminal is the session's own, so that a Ctrl-C is one.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "bash", "-c", command],
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            cwd=home,
            env=environ,
        )
        os.close(its_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)  # which ends all that is on it
        self.process.kill()
        self.process.wait()

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def look_until(self, is_it: Callable[[str], object], meanwhile: Meanwhile = None) -> None:
        """Look at what is shown until it is so, doing something again and again meanwhile."""
        self._look_on(lambda: is_it(self.shown), meanwhile)
        assert is_it(self.shown), self.shown

    def look_to_the_end(self, meanwhile: Meanwhile = None) -> int:
        """Look at all that is shown; returns the exit code."""
        self._look_on(lambda: False, meanwhile)
        return self.process.wait(PATIENCE_SECONDS)

    def _look_on(self, is_over: Callable[[], object], meanwhile: Meanwhile) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_over() and self._look():
            assert time.monotonic() < deadline, self.shown
            if meanwhile is not None:
                meanwhile()

    def _look(self) -> bool:
        """Take what has come, or nothing for a moment; false: nobody shows anything any more."""
        if select.select([self._fd], [], [], 0.05)[0]:
            try:
                self.shown += os.read(self._fd, 1 << 16).decode().replace("\r\n", "\n")
            except OSError:  # that is how a terminal ends
                return False
        return True


class Lab:
    """The servers that the page asks, and the folder in which it does.

    Args:
        folder: for all of it.
        certificates: where that of the server comes from which speaks TLS.
        stack: ends the servers.
    """

    def __init__(self, folder: Path, certificates: Certificates, stack: ExitStack) -> None:
        self._folder = folder
        self._certificates = certificates
        self._stack = stack
        self._servers = {name: self._start(name) for name in NEWS}
        self._closed = stack.enter_context(socket.socket())
        self._closed.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        self._home = self._lay_out("home", SSHD["web"])
        self._lay_out_home()

    @property
    def port(self) -> int:
        """Of a server of this host."""
        return self._servers["web"].port

    def show(self, command: str) -> Screen:
        """Run a command of the page on a terminal."""
        for name in NEWS:
            self._log(name).write_text(KEPT)
        return Screen(command, self._home, self._folder / "bin")

    def write_news(self) -> None:
        """Let something happen on all hosts."""
        for name, line in NEWS.items():
            with self._log(name).open("a") as log:
                log.write(line)

    def use_tls(self) -> None:
        """Start the server that speaks TLS, and wants a token."""
        if "sealed" not in self._servers:
            certificate = self._certificates.issue("db01", "db01")
            config = self._folder / "sealed.toml"
            config.write_text(
                SEALED.format(certificate=certificate, digest=sha256(TOKEN.encode()).hexdigest())
            )
            config.chmod(0o600)
            self._servers["sealed"] = self._start("sealed", "--config", str(config))
        self._write_programs()

    def _start(self, name: str, *args: str) -> Program:
        logs = () if name not in NEWS else ("--log", f"auth={self._log(name)}")
        program = Program(*args, *logs, cwd=self._lay_out(name, SSHD[name]))
        return self._stack.enter_context(program)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _lay_out(self, name: str, sshd: str) -> Path:
        folder = self._folder / name
        for path, text in (("usr/sbin/sshd", sshd), ("etc/ssh/sshd_config", CONFIG)):
            file = folder / path
            file.parent.mkdir(parents=True)
            file.write_text(text)
        return folder

    def _lay_out_home(self) -> None:
        for name, text in FILE.findall(PAGE):
            (self._home / name).write_text(localize(text))
        (self._home / "ca.pem").write_text(Path(self._certificates.ca).read_text())
        token = self._home / "token"
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o600)
        (self._folder / "bin").mkdir()
        self._write_programs()

    def _write_programs(self) -> None:
        """Write the programs of the page, for which its names mean something."""
        ports = {f"web{number:02}": self._servers["web"].port for number in range(1, 19)}
        ports |= dict.fromkeys(("web19", "web20"), self._servers["drifted"].port)
        ports["db02"] = self._closed.getsockname()[1]
        if "sealed" in self._servers:
            ports["db01"] = self._servers["sealed"].port
        look_up = self._folder / "look_up.py"
        look_up.write_text(LOOK_UP.format(ports=ports))
        for name, word in (("trio-cmd", "trio-cmd"), ("python3", "")):
            program = self._folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{look_up}" {word} "$@"\n')
            program.chmod(0o755)


def localize(text: str) -> str:
    """Name the files of the page as they are named in the folders of this test."""
    return re.sub("(?<![.a-z])/(usr|etc)/(?!bin)", r"./\1/", text)


def settle(text: str) -> list[str]:
    """Name files as on the page, and make the same what differs from run to run.

    The lines of many hosts come as the hosts answer.
    """
    text = re.sub(r"(?<![.a-z])\./(usr|etc)/", r"/\1/", text)
    text = re.sub(r'"seconds":[0-9.e-]+', '"seconds":S', text)
    return [
        line
        for is_of_host, run in groupby(text.splitlines(), key=is_line_of_host)
        for line in (sorted(run) if is_of_host else run)
    ]


def is_line_of_host(line: str) -> bool:
    return re.match(r'[a-z]+[0-9]+: |\{"host":', line) is not None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Lab]:
    """The servers of the page."""
    with ExitStack() as stack:
        yield Lab(tmp_path_factory.mktemp("lab"), certificates, stack)


def sections() -> list[ParameterSet]:
    """List the sections of the page that show commands."""
    found = []
    for title, text in SECTION.findall(PAGE):
        steps = [step for console in CONSOLE.findall(text) for step in STEP.findall(console)]
        tools = [tool for tool, word in TOOLS.items() if any(word in step[0] for step in steps)]
        if steps and "rlwrap" not in tools:
            marks = (pytest.mark.proof, pytest.mark.needs("setsid", *tools))
            found.append(pytest.param(steps, id=title, marks=marks))
    return found


@pytest.mark.parametrize("steps", sections())
def test_what_the_manual_shows_is_what_is_seen(lab: Lab, steps: Sequence[tuple[str, str]]) -> None:
    """Whoever types what stands there sees what stands there."""
    if any("db01" in command for command, _ in steps):
        lab.use_tls()
    code = 0
    for command, expected in steps:
        shown, code = run(lab, command, expected, code)
        assert settle(shown) == settle(expected), command


def run(lab: Lab, command: str, expected: str, code: int) -> tuple[str, int]:
    """Run a command behind one that has ended with a code; returns what is shown, and its own code."""
    with lab.show(f"(exit {code})\n{localize(command)}") as screen:
        if expected.endswith("^C\n"):
            awaited = set(expected.splitlines()) - {"^C"}
            screen.look_until(lambda shown: awaited <= set(shown.splitlines()), lab.write_news)
            screen.press("\x03")
        code = screen.look_to_the_end(lab.write_news if "python3" in command else None)
        return tidy(screen.shown), code


def tidy(shown: str) -> str:
    """Show once what a log was written again and again, and the Ctrl-C behind what had come before it."""
    if "^C" not in shown:
        return shown
    return "\n".join([*dict.fromkeys(shown.replace("^C", "").splitlines()), "^C"])


@pytest.mark.needs("setsid", "rlwrap", "nc")
def test_rlwrap_gives_a_netcat_a_line_with_history(start: StartProgram, tmp_path: Path) -> None:
    """Whoever talks to one host need not type the same path twice."""
    (command,) = re.findall(r"^\$ (rlwrap .*)$", PAGE, re.MULTILINE)
    local = command.replace("web01 9999", f"127.0.0.1 {start().port}")
    with Screen(f"RLWRAP_HOME={tmp_path} TERM=vt100 {local}", tmp_path, tmp_path) as screen:
        screen.press("ping\n")
        screen.look_until(lambda shown: "pong" in shown)
        screen.press("\x1b[A\n")  # the key up
        screen.look_until(lambda shown: shown.count("pong") == 2)


def rows(first_cell: str) -> list[str]:
    """Read the first cells of a table of the page."""
    table = PAGE.split(f"| {first_cell} |", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| ([^|]*?) \|", table, re.MULTILINE)


def test_every_code_of_who_asks_is_in_the_manual() -> None:
    """A script that meets a code finds what it means, and what to do."""
    kinds = set(errors.AskError.__subclasses__()) - {errors.CommandError}
    assert rows("code") == [*(f"`{kind.code}`" for kind in sorted_as_written(kinds)), "any other"]


def sorted_as_written(kinds: Iterable[type[errors.AskError]]) -> list[type[errors.AskError]]:
    """Sort classes as they stand in their module."""
    return sorted(kinds, key=list(vars(errors).values()).index)


def test_every_exit_code_is_in_the_manual() -> None:
    """A script that decides by an exit code can rely on the table."""
    codes = {value for module in (ask, verdict) for name, value in vars(module).items() if "EXIT_" in name}
    ended = {ask.EXIT_BY_SIGNAL + number for number in (*ask._SIGNALS, signal.SIGPIPE)}
    assert rows("exit code") == [str(code) for code in sorted(codes - {ask.EXIT_BY_SIGNAL} | ended)]


def test_every_option_and_form_is_in_the_manual() -> None:
    """Whoever reads the page to its end knows all that can be done."""
    assert [flag for flag in flags._HELP if f"{flag}" not in PAGE] == []
    assert sorted(rows("`--output`")) == sorted(
        f"`{form}`" for form in get_args(flags.Output) if form != "auto"
    )


@pytest.mark.parametrize(
    "said",
    [
        f"`-j N`: {flags.DEFAULT_AT_ONCE} hosts at once",
        f"`--timeout SECONDS`: {flags.DEFAULT_TIMEOUT_SECONDS:g} for connecting",
        f"{connection.MAX_ANSWER_BYTES >> 20} MiB for one answer",
        f"{fleet.MAX_HOST_BYTES >> 20} MiB for all answers of one host",
        f"{hosts.MAX_HOSTS} hosts in one run",
        f"{sources.MAX_FILE_BYTES >> 20} MiB for a file",
        f"{writing._ROOM_BYTES >> 20} MiB that wait",
    ],
)
def test_the_limits_of_the_manual_are_those_of_the_program(said: str) -> None:
    """Whoever plans for a large fleet can reckon with them."""
    assert said in PAGE.split("\n## Limits\n")[1].split("\n## ")[0]
