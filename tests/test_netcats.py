"""Real netcats: whatever client an operator has at hand, it gets the whole answer."""

import hashlib
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program

WriteSettings = Callable[[str], str]

# Each is given the port and reads what it sends from its standard input.
NETCATS = [
    pytest.param("nc.openbsd -N 127.0.0.1 {port}", id="nc.openbsd -N", marks=pytest.mark.needs("nc.openbsd")),
    pytest.param(
        "nc.openbsd -q 1 127.0.0.1 {port}", id="nc.openbsd -q 1", marks=pytest.mark.needs("nc.openbsd")
    ),
    pytest.param("nc.openbsd 127.0.0.1 {port}", id="nc.openbsd", marks=pytest.mark.needs("nc.openbsd")),
    pytest.param(
        "nc.traditional -q 1 127.0.0.1 {port}",
        id="nc.traditional -q 1",
        marks=pytest.mark.needs("nc.traditional"),
    ),
    pytest.param(
        "nc.traditional 127.0.0.1 {port}", id="nc.traditional", marks=pytest.mark.needs("nc.traditional")
    ),
    pytest.param("ncat 127.0.0.1 {port}", id="ncat", marks=pytest.mark.needs("ncat")),
    pytest.param("socat -t 5 - TCP:127.0.0.1:{port}", id="socat -t 5", marks=pytest.mark.needs("socat")),
    pytest.param("curl -s telnet://127.0.0.1:{port}", id="curl telnet://", marks=pytest.mark.needs("curl")),
    pytest.param(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; cat >&3; cat <&3",
        id="bash /dev/tcp",
        marks=pytest.mark.needs("bash"),
    ),
]

# These shut their sending side at the end of their input, and need no exit to get their answers.
HALF_CLOSING = [netcat for netcat in NETCATS if netcat.id in ("nc.openbsd -N", "ncat", "socat -t 5")]


def converse(netcat: str, port: int | str, asked: bytes) -> bytes:
    """Send through a netcat to a port or a path, as a shell's pipe does; returns all it printed."""
    line = netcat.format(port=port)
    done = subprocess.run(["bash", "-c", line], input=asked, capture_output=True, timeout=PATIENCE_SECONDS)
    assert done.stderr == b""
    return done.stdout


def start_with_log(start: StartProgram, write_settings: WriteSettings, log: Path) -> Program:
    return start("--config", write_settings(f'[logs]\nsyslog = {{ file = "{log}" }}\n'))


def block(lines: Sequence[bytes]) -> bytes:
    return b"\n".join([b"Begin lastlog", *lines, b"End lastlog", b""])


@pytest.mark.parametrize("netcat", NETCATS)
def test_the_same_conversation_gives_the_same_full_answer(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, tmp_path: Path, netcat: str
) -> None:
    """An operator may use whatever netcat the host has: no answer depends on it."""
    hashed = tmp_path / "a file"
    hashed.write_bytes(b"lab\n" * 100_000)
    program = start_with_log(start, write_settings, log_file)
    answer = converse(netcat, program.port, b"test\nlastlog\ncomphash %s\nexit\n" % bytes(hashed))
    digest = hashlib.sha1(hashed.read_bytes()).hexdigest().encode()
    lines = log_file.read_bytes().splitlines()[-10:]
    assert answer == b"Command not found.\n" + block(lines) + b"File hash is : " + digest + b"\n"
    assert program.wait_for("client-lost")["reason"] == "exit"


@pytest.mark.parametrize("netcat", NETCATS)
def test_a_big_answer_arrives_whole(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path, netcat: str
) -> None:
    """A long log is not cut where a socket's buffer ends."""
    log = tmp_path / "big"
    lines = [b"Nov 20 15:02:00 lab kernel: %06d " % n + b"=" * 60 for n in range(10_000)]
    log.write_bytes(b"\n".join([*lines, b""]))
    program = start_with_log(start, write_settings, log)
    answer = converse(netcat, program.port, b"lastlog 10000\nexit\nping\n")
    assert len(answer) > 900_000
    assert answer == block(lines)


@pytest.mark.parametrize("netcat", HALF_CLOSING)
def test_the_end_of_input_is_not_the_end_of_the_answers(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, netcat: str
) -> None:
    r"""``printf 'lastlog\nping' | nc -N`` is how scripts ask, without exit and without a last newline."""
    program = start_with_log(start, write_settings, log_file)
    answer = converse(netcat, program.port, b"lastlog 2\nping")
    assert answer == block(log_file.read_bytes().splitlines()[-2:]) + b"pong\n"
    assert program.wait_for("client-lost")["reason"] == "closed"


@pytest.mark.needs("nc.openbsd")
def test_one_client_too_many_reads_why_in_its_netcat(start: StartProgram) -> None:
    """An operator who is refused sees the reason, also when the netcat has sent commands already."""
    program = start("--max-clients", "1")
    with program.connect() as first:
        first.sendall(b"ping\n")
        assert first.recv(100) == b"pong\n"
        answer = converse("nc.openbsd -N 127.0.0.1 {port}", program.port, b"lastlog\n" * 1000)
        assert answer == b"Too many connections. bye !\n"


@pytest.mark.needs("nc.openbsd")
def test_netcat_is_told_that_the_server_stops(start: StartProgram) -> None:
    """Whoever sits at an idle netcat learns why it ends."""
    program = start()
    with subprocess.Popen(
        ["nc.openbsd", "127.0.0.1", str(program.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as netcat:
        assert netcat.stdin is not None
        netcat.stdin.write(b"ping\n")
        netcat.stdin.flush()
        program.wait_for("command-completed")
        assert program.stop() == 0
        assert netcat.communicate(timeout=PATIENCE_SECONDS)[0] == b"pong\nServer is stopping. bye !\n"
