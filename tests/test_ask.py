"""``ask`` as a process: how it ends, and with what it gets along."""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from bad_hosts import BadHost, answer_with, stay_silent
from program import PATIENCE_SECONDS, Program, free_port, wait_until
from trio_cmd.client import ask as asking

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
ASK = (sys.executable, "-m", "trio_cmd", "ask")


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    """A server that this host may ask everything."""
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def silent() -> Iterator[BadHost]:
    """A host that takes what comes and says nothing."""
    with BadHost(stay_silent) as host:
        yield host


@contextmanager
def running(*arguments: str, **options: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``ask``; it is ended with the block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen([*ASK, *arguments], **pipes) as process:  # type: ignore[call-overload]  # by name
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Wait for the end; gives the exit code and what is left of standard output and error."""
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out or b"", err  # none, where the test has the other end


def end_interrupted(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Wait for the end of what was asking two hosts; standard error says how far it was."""
    code, out, err = end(process)
    # A host is done when its connection is closed, a little behind its answers.
    assert re.fullmatch(b"trio-cmd ask: interrupted: [01] of 2 hosts are done\n", err)
    return code, out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_all_at_once(server: Program, silent: BadHost, number: signal.Signals, code: int) -> None:
    """Whoever has seen enough is not kept by the hosts that say nothing, and keeps what there is."""
    name = f"127.0.0.1:{server.port}"
    with running("--timeout", "600", silent.name, name, "--", "ping") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{name}: pong\n".encode()
        process.send_signal(number)
        assert end_interrupted(process) == (code, b"")


def test_ctrl_c_shows_the_groups_there_are(silent: BadHost) -> None:
    """The answers of a hundred hosts are not lost because one has none."""
    with BadHost(answer_with({"pong": True}, answers=1)) as host:
        arguments = ("--timeout", "600", "--output", "groups", silent.name, host.name, "--", "ping")
        with running(*arguments) as process:
            assert host.left.wait(PATIENCE_SECONDS)
            process.send_signal(signal.SIGINT)
            assert end_interrupted(process) == (130, f"1 host: {host.name}\n  pong\n".encode())


def test_ctrl_c_that_was_ignored_before_stays_so(server: Program, silent: BadHost) -> None:
    """A shell starts what runs in the background so: Ctrl-C is meant for what is in front."""
    name = f"127.0.0.1:{server.port}"
    ask = (*ASK, "--timeout", "600", silent.name, name, "--", "ping")
    with subprocess.Popen(
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *ask], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{name}: pong\n".encode()
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            assert end_interrupted(process) == (143, b"")
        finally:
            process.kill()


def test_nothing_is_waited_for_where_all_signals_are_ignored(server: Program) -> None:
    """Whoever starts it so wants the answers, and no more."""
    ask = (*ASK, f"127.0.0.1:{server.port}", "--", "ping")
    run = subprocess.run(["sh", "-c", "trap '' INT TERM; exec \"$@\"", "sh", *ask], timeout=PATIENCE_SECONDS)
    assert run.returncode == 0


def test_ctrl_c_before_the_first_host_is_quiet(tmp_path: Path) -> None:
    """Nor does it leave a traceback while it waits for the list of hosts."""
    hosts = tmp_path / "hosts"
    os.mkfifo(hosts)
    with running("--hosts-file", str(hosts), "--", "ping") as process, ExitStack() as stack:
        wait_until(lambda: open_for_writing(hosts, stack), "it reads its hosts")
        process.send_signal(signal.SIGINT)
        assert end(process) == (-signal.SIGINT, b"", b"")  # which a shell tells as 130


def open_for_writing(fifo: Path, stack: ExitStack) -> bool:
    """Open a FIFO as soon as somebody reads it."""
    try:
        stack.callback(os.close, os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_a_second_ctrl_c_ends_it_where_nobody_reads_its_output(silent: BadHost) -> None:
    """A pager that was stopped cannot hold what writes to it."""
    lines = {"lines": ["x" * 100] * 5000, "exit_status": 0, "truncated": False}
    with (
        BadHost(answer_with(lines)) as host,
        running("--timeout", "600", silent.name, host.name, "--", "x") as process,
    ):
        assert process.stdout is not None
        wait_until(partial(is_full, process.stdout), "the pipe is full")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not catches(process.pid, signal.SIGINT), "the first one is taken")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGINT


def is_full(pipe: IO[bytes]) -> bool:
    """Whether a pipe takes nothing more."""
    held = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
    return bool(held == fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ))


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process does something by itself when it gets a signal."""
    (mask,) = re.findall(r"^SigCgt:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_reader_that_has_read_enough_ends_it_quietly(server: Program, silent: BadHost) -> None:
    """`| head -1` gets its line, and says nothing of a broken pipe."""
    read, write = os.pipe()
    os.close(read)
    with running(
        "--timeout", "600", silent.name, f"127.0.0.1:{server.port}", "--", "ping", stdout=write
    ) as process:
        os.close(write)
        assert end(process) == (128 + signal.SIGPIPE, b"", b"")


def test_a_full_disk_is_said_in_one_line(server: Program, silent: BadHost) -> None:
    """A file of answers that is not whole is not taken for one."""
    with open("/dev/full", "wb") as full:
        arguments = ("--timeout", "600", silent.name, f"127.0.0.1:{server.port}", "--", "ping")
        with running(*arguments, stdout=full) as process:
            said = b"trio-cmd ask: the answers cannot be written: No space left on device\n"
            assert end(process) == (74, b"", said)


def test_on_a_terminal_the_groups_come_when_all_is_known(server: Program) -> None:
    """Whoever looks at a terminal sees who differs, and nothing is left of what was shown meanwhile."""
    name = f"127.0.0.1:{server.port}"
    master, terminal = os.openpty()
    arguments = (name, "--", "ping")
    with (
        open(master, "rb", buffering=0) as screen,
        running(*arguments, stdout=terminal, stderr=terminal) as process,
    ):
        os.close(terminal)
        shown = read_screen(screen)
        assert process.wait(PATIENCE_SECONDS) == 0
    assert shown.endswith(f"1 host: {name}\r\n  pong\r\n".encode())


def read_screen(screen: IO[bytes]) -> bytes:
    """Read what a terminal shows until nobody has it open any more."""
    pieces = []
    with contextlib.suppress(OSError):  # that is how a terminal ends
        while piece := screen.read(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


def test_a_log_is_followed_until_ctrl_c(tmp_path: Path) -> None:
    """The lines of all hosts come as they are written, and end when nobody wants them."""
    log = tmp_path / "log"
    log.touch()
    with Program("--log", f"syslog={log}") as program:
        name = f"127.0.0.1:{program.port}"
        with running(name, "--", "follow") as process:
            assert process.stdout is not None
            shown = process.stdout.fileno()
            write_until(log, lambda: bool(select.select([shown], [], [], 0)[0]))
            assert process.stdout.readline() == f"{name}: new\n".encode()
            process.send_signal(signal.SIGINT)
            assert end(process)[0] == 130


def test_following_ends_quietly_with_its_reader(tmp_path: Path) -> None:
    """`follow | grep -m 1` is over when the line was found."""
    log = tmp_path / "log"
    log.touch()
    read, write = os.pipe()
    os.close(read)
    with (
        Program("--log", f"syslog={log}") as program,
        running(f"127.0.0.1:{program.port}", "--", "follow", stdout=write) as process,
    ):
        os.close(write)
        write_until(log, lambda: process.poll() is not None)
        assert end(process) == (128 + signal.SIGPIPE, b"", b"")


def write_until(log: Path, is_true: Callable[[], bool]) -> None:
    """Write lines to a log until something is seen of them."""

    def write() -> bool:
        with open(log, "ab") as file:
            file.write(b"new\n")
        return is_true()

    wait_until(write, "a line of the log")


def test_more_logs_than_descriptors_are_not_begun() -> None:
    """Following has no turns: who would wait for ever is told before."""
    arguments = ("prlimit", "--nofile=256", "--", *ASK, "web[1-300]", "--", "follow")
    done = subprocess.run(arguments, capture_output=True, timeout=PATIENCE_SECONDS)
    said = b"trio-cmd ask: too many hosts to follow: raise the limit of descriptors (ulimit -n)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", said)


def test_a_fault_of_the_program_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever reports it says where it was; nobody has to read a traceback."""

    def fail(_: object) -> None:
        raise ZeroDivisionError("by the test")

    monkeypatch.setattr(asking, "parse_options", fail)
    assert asking.main([]) == 70
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(
        "trio-cmd ask: a fault of trio-cmd itself, please report it: ZeroDivisionError: by the test ("
    )
    assert err.count("\n") == 1


class Gone:
    """A standard error whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stderr", [None, Gone()])
def test_a_lost_standard_error_changes_no_exit_code(
    monkeypatch: pytest.MonkeyPatch, stderr: Gone | None
) -> None:
    """What nobody can read is not said, and a script decides by the exit code as ever."""
    monkeypatch.setattr(sys, "stderr", stderr)
    assert asking._complain("a line", 7) == 7
    assert sys.stderr is None


def everywhere(path: Path, release: str, log: Path) -> tuple[str, ...]:
    """Write the settings of a server on all addresses of the loopback; gives its arguments."""
    log.write_text(f"{release}\n")
    path.write_text(
        f"""\
server.host = "0.0.0.0"
server.max_clients = 2000
server.max_clients_per_address = 2000
comphash.roots = ["/etc"]
logs.release = {{ file = "{log}" }}
[[grants]]
name = "this-host"
addresses = ["127.0.0.0/8"]
commands = ["*"]
"""
    )
    path.chmod(0o600)
    return ("--config", str(path), "--allow-root")


@pytest.mark.proof
def test_two_hundred_hosts_are_asked_in_the_time_of_the_slowest(tmp_path: Path) -> None:
    """Those that differ stand out, those that are not there are named, and nobody is waited for twice."""
    timeout_seconds = 10 if FULL else 6
    with ExitStack() as stack:
        releases = ["6.1.0"] * 9 + ["6.1.9"]
        programs = [
            stack.enter_context(Program(*everywhere(tmp_path / f"{n}.toml", release, tmp_path / f"{n}.log")))
            for n, release in enumerate(releases)
        ]
        silent = [stack.enter_context(socket.create_server((f"127.0.2.{n}", 0))) for n in range(1, 6)]
        ports = [program.port for program in programs]
        good = [f"127.0.1.{n}:{ports[n % 9]}" for n in range(1, 186)]
        drifted = [f"127.0.1.{n}:{ports[9]}" for n in range(186, 191)]
        unanswering = [f"127.0.2.{n}:{sock.getsockname()[1]}" for n, sock in enumerate(silent, 1)]
        refusing = [f"127.0.3.{n}:{free_port()}" for n in range(1, 6)]
        hosts = tmp_path / "hosts"
        hosts.write_text("\n".join([*good, *drifted, *refusing, *unanswering]))
        begun = time.monotonic()
        arguments = ("--hosts-file", str(hosts), "--timeout", str(timeout_seconds), "--output", "groups")
        with running(*arguments, "--", "lastlog 1 release") as process:
            code, out, err = end(process)
        seconds = time.monotonic() - begun
    assert (code, err) == (1, b"")
    assert seconds < timeout_seconds + (1 if FULL else 20)
    groups = [block.splitlines() for block in out.decode().split("\n\n")]
    assert [group[0].partition(":")[0] for group in groups] == ["185 hosts", "5 hosts", "5 hosts", "5 hosts"]
    assert groups[0][1:] == ["  6.1.0"]
    others = {tuple(group[1:]): sorted(group[0].partition(": ")[2].split(", ")) for group in groups[1:]}
    assert others[("  6.1.9",)] == [f"127.0.1.[186-190]:{ports[9]}"]
    assert others[("  error: nobody listens there (Connection refused) (unreachable)",)] == sorted(refusing)
    (reason,) = (lines for lines, names in others.items() if names == sorted(unanswering))
    assert reason[0].endswith(" (no-answer)")


@pytest.mark.parametrize(
    ("hosts", "limit"), [(200, 72), pytest.param(1000, 256, marks=pytest.mark.proof)], ids=["few", "many"]
)
def test_more_hosts_than_descriptors_are_asked_in_turns(tmp_path: Path, hosts: int, limit: int) -> None:
    """A fleet that outgrows the limits of an operator's shell is asked all the same, and all of it."""
    log = tmp_path / "log"
    with Program(*everywhere(tmp_path / "trio-cmd.toml", "6.1.0", log)) as program:
        names = tmp_path / "hosts"
        names.write_text(f"127.1.[1-{hosts // 100}].[1-100]:{program.port}\n")
        prefix = ("prlimit", f"--nofile={limit}", "--")
        arguments = ("-j", "1000", "--hosts-file", str(names), "--output", "json", "--", "ping")
        done = subprocess.run([*prefix, *ASK, *arguments], capture_output=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0
    remedy = "for more, raise the limit of descriptors (ulimit -n)"
    assert done.stderr.decode() == f"trio-cmd ask: only {(limit - 32) // 2} hosts at once: {remedy}\n"
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({answer["host"] for answer in answers}) == len(answers) == hosts
    assert all(answer["result"] == {"pong": True} for answer in answers)
