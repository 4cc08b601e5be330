"""Bad input and what it gets: each row of the manual's list, against the program as a process.

What the sizes of the issue take too long for in CI runs with ``TRIO_CMD_FULL=1``.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import StartProgram
from program import (
    PATIENCE_SECONDS,
    SLACK_SECONDS,
    Program,
    free_port,
    iter_pieces,
    read_all,
    reset,
    wait_until,
)

WriteSettings = Callable[[str], str]

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
ONE_MIB = 1 << 20
FLAT_BYTES = 8 * ONE_MIB
"""What memory may grow by when it does not grow with the input."""
RANGE = b"An error occured : expected a number of lines from 1 to 10000: lastlog [LINES] [LOG]\n"
CONTROL = b"An error occured : control characters in the line; send text, blanks and tabs only\n"
NOT_FOUND = b"Command not found.\n"
# Root reads everything but without these.
NO_OVERRIDE = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]


def os_error(number: int, path: bytes) -> bytes:
    return b"An error occured : [Errno %d] %s: '%s'\n" % (number, os.strerror(number).encode(), path)


def peak_bytes(program: Program) -> int:
    """How much memory it has ever taken."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@contextlib.contextmanager
def flat_memory(program: Program, ask: Callable[[bytes], bytes] | None = None) -> Iterator[None]:
    """Fail if the program's memory grows with what is done inside."""
    (ask or program.ask)(b"ping\nnope\n")
    before = peak_bytes(program)
    yield
    assert peak_bytes(program) - before < FLAT_BYTES


# One line, one answer


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        pytest.param(b"rm -rf /", NOT_FOUND, id="unknown word"),
        pytest.param(b"PING", NOT_FOUND, id="the first word is compared exactly"),
        pytest.param(b"p\xc3(ng \xff\xff", NOT_FOUND, id="invalid UTF-8"),
        pytest.param(b"comphash", b"Please provide a path.\n", id="no path"),
        pytest.param(b"comphash \t ", b"Please provide a path.\n", id="blank path"),
        pytest.param(b"comphash /no/such", os_error(2, b"/no/such"), id="missing path"),
        pytest.param(b"comphash /" + b"x" * 4095, os_error(36, b"/" + b"x" * 4095), id="4096 byte path"),
        pytest.param(b"comphash /no\xe9", os_error(2, b"/no\\xe9"), id="path that is not UTF-8"),
        pytest.param(b"comphash sha512 /no", os_error(2, b"/no"), id="missing path after an algorithm"),
        pytest.param(
            b"comphash /it's",
            b'An error occured : [Errno 2] No such file or directory: "/it\'s"\n',
            id="path with a quote",
        ),
        pytest.param(b"lastlog 0", RANGE, id="lastlog 0"),
        pytest.param(b"lastlog -1", RANGE, id="lastlog -1"),
        pytest.param(b"lastlog 1_0", RANGE, id="lastlog 1_0"),
        pytest.param(b"lastlog 1e3", RANGE, id="lastlog 1e3"),
        pytest.param(b"lastlog 10001", RANGE, id="lastlog 10001"),
        pytest.param(b"lastlog 1" + b"0" * 30, RANGE, id="lastlog 10^30"),
        pytest.param(
            "lastlog ٣".encode(),
            "An error occured : no log named '٣'; the logs are: syslog\n".encode(),
            id="lastlog with a digit that is not ASCII",
        ),
        pytest.param(
            b"lastlog /etc/passwd",
            b"An error occured : no log named '/etc/passwd'; the logs are: syslog\n",
            id="lastlog of a path",
        ),
        pytest.param(
            b"lastlog 5 syslog x", b"An error occured : usage: lastlog [LINES] [LOG]\n", id="more words"
        ),
        pytest.param(b"format xml", b"An error occured : usage: format text|json\n", id="unknown form"),
        pytest.param(b"help nope", NOT_FOUND, id="help of an unknown command"),
        pytest.param(b"ping\0", CONTROL, id="NUL"),
        pytest.param(b"comphash /etc/passwd\0x", CONTROL, id="NUL in a path"),
        pytest.param(b"pi\rng", CONTROL, id="CR in mid-line"),
        pytest.param(b"\x1b[2Jping", CONTROL, id="ESC"),
        pytest.param(b"ping\x7f", CONTROL, id="DEL"),
        pytest.param(
            b"comphash /dev/zero", b"An error occured : not a regular file: '/dev/zero'\n", id="device"
        ),
        pytest.param(b"comphash /etc", b"An error occured : not a regular file: '/etc'\n", id="directory"),
        pytest.param(
            b"comphash /proc/self/environ",
            b"An error occured : not a regular file: '/proc/self/environ'\n",
            id="a file that the kernel makes up",
        ),
    ],
)
def test_a_bad_line_gets_one_clear_line_and_the_next_its_answer(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, line: bytes, answer: bytes
) -> None:
    """A slip of the pen costs a line, not the conversation."""
    program = start("--config", write_settings(f'[logs]\nsyslog = {{ file = "{log_file}" }}\n'))
    assert program.ask(line + b"\nping\n") == answer + b"pong\n"
    assert program.wait_for("command-completed", request=1)["outcome"] != "ok"
    assert program.wait_for("client-lost")["requests"] == 2
    assert not program.actions("handler-crashed")


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="no /proc/kmsg here")
def test_the_kernel_log_is_refused_at_once(start: StartProgram) -> None:
    """It looks like a regular file, and reading it waits for ever and steals from syslogd."""
    program = start()
    assert program.ask(b"comphash /proc/kmsg\n") == b"An error occured : not a regular file: '/proc/kmsg'\n"


@pytest.mark.needs("setpriv")
def test_a_file_that_may_not_be_read_is_said_to_be_so(start: StartProgram, tmp_path: Path) -> None:
    """The operator learns that it is a matter of rights, also from a server that runs as root."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0)
    program = start(prefix=NO_OVERRIDE if os.geteuid() == 0 else [])
    assert program.ask(b"comphash %s\n" % bytes(secret)) == os_error(13, bytes(secret))
    assert program.wait_for("command-completed")["outcome"] == "not-permitted"


@pytest.mark.parametrize(
    "name",
    [b"with  two blanks", b'it\'s "quoted"', b"\xfe\xff", b"{0} %s \\x00", "ünï".encode(), b"-n", b"sha1 x"],
)
def test_every_odd_name_can_be_asked_for(start: StartProgram, tmp_path: Path, name: bytes) -> None:
    """Incident responders meet such names where somebody wanted to hide."""
    path = bytes(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).write_bytes(name)
    program = start(cwd=tmp_path)
    answer = b"File hash is : " + hashlib.sha1(name).hexdigest().encode() + b"\n"
    for asked in (path, name) if not name.startswith(b"sha1 ") else (path,):  # else it is an algorithm
        sent = asked.replace(b"\xff", b"\xff\xff")  # as telnet has it
        assert program.ask(b"comphash " + sent + b"\n") == answer


def test_telnet_may_negotiate_wherever_it_likes(start: StartProgram) -> None:
    """An operator with telnet instead of netcat is understood."""
    program = start()
    negotiation = b"\xff\xfd\x03\xff\xfb\x18\xff\xfa\x18\0xterm\xff\xff\xff\xf0\xff\xf1"
    asked = negotiation + b"pi" + negotiation + b"ng\r\nping\r\0\n" + negotiation
    assert program.ask(asked) == b"pong\npong\n"
    assert program.wait_for("client-lost")["requests"] == 2


# Lines that are too long, unfinished or empty


def long_line(client: socket.socket, line: bytes, piece_bytes: int) -> bytes:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(line), piece_bytes):
        client.sendall(line[at : at + piece_bytes])
    return read_all(client)


@pytest.mark.parametrize("piece_bytes", [1 << 20, 2], ids=["one packet", "thousands"])
@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\nping\n"], ids=["unfinished", "LF", "CR LF and more"])
def test_a_line_one_byte_too_long_is_said_to_be_so(
    start: StartProgram, piece_bytes: int, ending: bytes
) -> None:
    """The operator sees why the connection closed, however the line was cut."""
    program = start()
    with flat_memory(program), program.connect() as client:
        sent = b"x" * 8192 + (ending or b"x") if ending == b"" else b"x" * 8193 + ending
        answer = long_line(client, sent, piece_bytes)
    assert answer == b"An error occured : line longer than 8192 bytes\n"
    assert program.wait_for("client-lost", reason="line-too-long")["requests"] == 1


@pytest.mark.parametrize("piece_bytes", [1 << 20, 2], ids=["one packet", "thousands"])
def test_a_line_of_just_the_allowed_length_is_answered(start: StartProgram, piece_bytes: int) -> None:
    """The limit is where the manual says."""
    program = start()
    with program.connect() as client:
        assert long_line(client, b"x" * 8192 + b"\r\nexit\n", piece_bytes) == NOT_FOUND


def test_two_hundred_megabytes_without_a_newline_are_not_taken(start: StartProgram) -> None:
    """Whoever sends a disk image by mistake is told, and takes no memory."""
    program = start()
    with flat_memory(program), program.connect() as client:
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            client.sendall(b"x" * 200 * ONE_MIB)
        assert read_all(client) == b"An error occured : line longer than 8192 bytes\n"
    assert program.wait_for("client-lost", reason="line-too-long")["bytes_in"] <= 2 * 65536


def test_the_end_of_input_in_mid_line_ends_the_line(start: StartProgram) -> None:
    """``printf ping | nc -N`` has no newline, and means it."""
    program = start()
    assert program.ask(b"ping\npin") == b"pong\n" + NOT_FOUND
    assert program.ask(b"ping") == b"pong\n"


def test_a_client_that_is_gone_in_mid_line_leaves_its_place(start: StartProgram) -> None:
    """A netcat that dies while somebody types costs nothing and runs nothing."""
    program = start("--max-clients", "1")
    for number in range(10):
        client = program.connect()
        client.sendall(b"ping\nexi")
        assert client.recv(5) == b"pong\n"
        reset(client)
        assert program.wait_for("client-lost", connection=number)["requests"] == 1
    assert program.ask(b"ping\n") == b"pong\n"


def test_a_million_empty_lines_are_no_questions(start: StartProgram) -> None:
    """A stuck key is no attack."""
    count = 1_000_000 if FULL else 200_000
    program = start()
    with flat_memory(program):
        assert program.ask(b"\n" * count + b" \t\r\n" * (count // 2) + b"ping\n") == b"pong\n"
    assert program.wait_for("client-lost", connection=1)["requests"] == 1


# Other protocols


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n",
        b"POST /\x01 HTTP/1.0\r\n\r\n",
        b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\n",
        b"\x80\x2e\x01\x03\x01\n",
    ],
    ids=["HTTP 1.1", "HTTP with a control character", "HTTP 2", "SSH", "TLS", "SSL 2"],
)
def test_another_protocol_is_closed_and_nothing_of_it_run(start: StartProgram, first: bytes) -> None:
    """A web page that makes a browser send commands here gets nothing done."""
    program = start()
    with program.connect() as client:
        client.sendall(first + b"ping\ncomphash /etc/passwd\n")
        assert read_all(client) == b""
    assert program.wait_for("client-lost")["reason"] == "wrong-protocol"
    assert not program.actions("command-received")


def test_http_later_in_a_conversation_is_only_a_bad_command(start: StartProgram) -> None:
    """Only the first line decides."""
    assert start().ask(b"ping\nGET / HTTP/1.1\nSSH-2.0\nping\n") == b"pong\n" + NOT_FOUND * 2 + b"pong\n"


# Floods


class Flooded:
    """The program, its records read as fast as they come and only counted.

    Attributes:
        port: where it listens.
        counts: action -> records so far.
    """

    def __init__(self, start: StartProgram, *args: str) -> None:
        self._reader, writer = os.pipe()
        self.program: Program = start(*args, stdout=writer)
        os.close(writer)
        self.counts: Counter[bytes] = Counter()
        self._rest = b""
        self.port = 0
        while not self.port:
            self._read()
        self._thread = threading.Thread(target=self._read_all)
        self._thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def ask(self, data: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def status(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.ask(b"format json\nstatus\n").splitlines()[1])["result"]
        return result

    def stop(self) -> None:
        """End it and read its last records."""
        assert self.program.stop() == 0
        self._thread.join(PATIENCE_SECONDS)
        os.close(self._reader)

    def _read(self) -> bool:
        piece = os.read(self._reader, 1 << 20)
        data = self._rest + piece
        self._rest = data[data.rfind(b"\n") + 1 :]
        self.counts.update(ACTION.findall(data, 0, len(data) - len(self._rest)))
        if not self.port and (found := re.search(rb'"port":(\d+)', data)):
            self.port = int(found[1])
        return piece != b""

    def _read_all(self) -> None:
        while self._read():
            pass


ACTION = re.compile(rb'"action":"([a-z-]+)","system"')


def test_a_hundred_thousand_pings_of_a_slow_reader_are_answered_in_order(start: StartProgram) -> None:
    """A client that asks faster than it reads waits for itself, and takes no memory."""
    count = 100_000 if FULL else 20_000
    flooded = Flooded(start)
    with flat_memory(flooded.program, flooded.ask), flooded.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        asked = b"format json\n" + b"ping\n" * count + b"exit\n"
        sender = threading.Thread(target=client.sendall, args=(asked,))
        sender.start()
        answer = b"".join(iter(lambda: client.recv(997), b""))
        sender.join()
    replies = [json.loads(line) for line in answer.splitlines()]
    assert [reply.get("id") for reply in replies[:-1]] == list(range(1, count + 2))
    assert replies[-1] == {"event": "bye", "reason": "exit", "message": ""}
    flooded.stop()
    # Two commands of the look at the memory, and "format" and "exit".
    assert flooded.counts[b"command-received"] == flooded.counts[b"command-completed"] == count + 4


def test_a_client_that_does_not_read_is_not_answered_without_end(start: StartProgram) -> None:
    """What nobody reads is not even made: it waits as questions, in the client's own buffers."""
    count = 40_000
    flooded = Flooded(start)
    with flat_memory(flooded.program, flooded.ask), flooded.connect() as client, flooded.connect() as other:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"format json\n" + b"help\n" * count)
        for _ in range(count // 64 * 2):  # at each of these turns the first client has one of 64 lines
            other.sendall(b"ping\n")
            assert other.recv(5) == b"pong\n"
        status = flooded.status()
        assert status["commands_ok"] < count
        assert status["pending_bytes"] < 4 * ONE_MIB
        reset(client)
    flooded.stop()
    assert flooded.counts[b"command-received"] == flooded.counts[b"command-completed"] < 2 * count


def test_lines_after_exit_do_not_destroy_the_answers_before_it(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path
) -> None:
    """What a client sends too much would else reset the connection while its answer is under way."""
    log = tmp_path / "big"
    log.write_bytes(b"".join(b"%05d %s\n" % (n, b"=" * 90) for n in range(60)))
    program = start("--config", write_settings(f'[logs]\nbig = {{ file = "{log}" }}\n'))
    port = program.port
    with socket.socket() as client:
        # Less than the answer, which fits into the server's own buffer.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(("127.0.0.1", port))
        client.sendall(b"lastlog 60\nexit\n")
        program.wait_for("command-received", command="exit")
        client.sendall(b"ping\n" * 1000)
        wait_until(lambda: not is_established(port, client.getsockname()[1]), "the server closes its end")
        assert read_all(client) == b"Begin lastlog\n" + log.read_bytes() + b"End lastlog\n"
    assert program.wait_for("client-lost")["requests"] == 2


def is_established(port: int, client_port: int) -> bool:
    """Whether the server's end of a connection is open for reading and for writing."""
    ends = f":{port:04X}", f":{client_port:04X}"
    connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any((c[1][-5:], c[2][-5:], c[3]) == (*ends, "01") for c in connections)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("line", "least"),
    [
        (b"ping\n", 2000),
        (("ping " + "éa" * 330 + "\n").encode(), 100),
        (("ping " + "😀a" * 1637 + "\n").encode(), 20),
    ],
    ids=["short", "mixed", "long"],
)
def test_a_flood_of_questions_loses_no_record_and_delays_nobody(
    start: StartProgram, line: bytes, least: int
) -> None:
    """The audit stays whole and the others are served while one client does its worst."""
    seconds, median_seconds = (10.0, 0.02) if FULL else (2.0, 0.2)
    flooded = Flooded(start)
    end = time.monotonic() + seconds

    def flood(client: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while True:
                client.sendall(line * (65536 // len(line)))

    def drain(client: socket.socket) -> None:
        for _ in iter_pieces(client):
            pass

    pings = []
    with flooded.connect() as client, flooded.connect() as other:
        tasks = [threading.Thread(target=task, args=(client,)) for task in (flood, drain)]
        for task in tasks:
            task.start()
        while time.monotonic() < end:
            began = time.monotonic()
            other.sendall(b"ping\n")
            assert other.recv(5) == b"pong\n"
            pings.append(time.monotonic() - began)
            time.sleep(0.01)  # the pause between two pings, not a wait
        flooded.stop()  # what is still under way are millions of lines
        for task in tasks:
            task.join()
    assert flooded.counts[b"command-received"] == flooded.counts[b"command-completed"] > least * seconds
    assert flooded.counts[b"events-lost"] == 0
    assert flooded.counts[b"stopped"] == 1
    assert statistics.median(pings) < median_seconds


@pytest.mark.proof
def test_thousands_of_resets_in_mid_answer_leave_nothing(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path
) -> None:
    """Clients that die while they read cost no place, no descriptor, no child and no memory."""
    count = 5000 if FULL else 300
    log = tmp_path / "big"
    log.write_bytes(b"".join(b"%05d %s\n" % (n, b"=" * 90) for n in range(10_000)))
    flooded = Flooded(start, "--config", write_settings(f'[logs]\nbig = {{ file = "{log}" }}\n'))

    def reset_in_mid_answer() -> None:
        client = flooded.connect()
        client.sendall(b"lastlog 10000\n" * 3)
        assert client.recv(13) == b"Begin lastlog"
        reset(client)

    for _ in range(20):
        reset_in_mid_answer()
    wait_until(lambda: flooded.status()["clients"] == 1, "all places free")
    descriptors, before = flooded.program.descriptors(), peak_bytes(flooded.program)
    for _ in range(count):
        reset_in_mid_answer()
    wait_until(lambda: flooded.status()["clients"] == 1, "all places free")
    assert peak_bytes(flooded.program) - before < 4 * FLAT_BYTES  # a reset is seen a moment later
    wait_until(lambda: flooded.program.descriptors() == descriptors, "all descriptors closed")
    wait_until(lambda: not flooded.program.children(), "all children gone")
    flooded.stop()
    assert flooded.counts[b"command-received"] == flooded.counts[b"command-completed"]
    assert flooded.counts[b"handler-crashed"] == flooded.counts[b"events-lost"] == 0


# The reader of the record


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    try:
        while os.write(pipe, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(pipe, True)


def ask_at(port: int, data: bytes) -> bytes:
    """Ask as soon as it listens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                return read_all(client)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.005)


@pytest.mark.parametrize("stderr", ["pipe", "the same"])
@pytest.mark.parametrize("stdout", ["full pipe", "dead pipe", "/dev/full"])
def test_a_record_that_cannot_be_written_stops_nobody(
    start: StartProgram, write_settings: WriteSettings, stdout: str, stderr: str
) -> None:
    """Clients are served, the loss is counted, and SIGTERM is obeyed, whatever has become of the log."""
    reader, writer = os.pipe()
    if stdout == "full pipe":
        fill(writer)
    elif stdout == "dead pipe":
        os.close(reader)
    else:
        os.dup2(full := os.open("/dev/full", os.O_WRONLY), writer)
        os.close(full)
    port = free_port()
    config = write_settings("[limits]\nstop_seconds = 0.1\n")
    options = {} if stderr == "pipe" else {"stderr": writer}
    program = start("--port", str(port), "--config", config, stdout=writer, **options)
    os.close(writer)
    assert ask_at(port, b"ping\n" * 2000 + b"nope\n") == b"pong\n" * 2000 + NOT_FOUND
    status = json.loads(ask_at(port, b"format json\nstatus\n").splitlines()[1])["result"]
    assert status["records_written"] == 0
    began = time.monotonic()
    assert program.stop() == 0
    assert time.monotonic() - began < 0.1 + 2 + SLACK_SECONDS
    if stderr == "pipe":
        cause = "" if stdout == "full pipe" else "trio-cmd: standard output cannot be written: .*\n"
        end = r"trio-cmd: \d{4} log events could not be written\n"
        assert re.fullmatch(cause + end, program.errors())
    if stdout != "dead pipe":
        os.close(reader)


# Files


def test_a_fifo_keeps_its_bytes(start: StartProgram, tmp_path: Path) -> None:
    """To ask for a FIFO's hash steals nothing from the program that reads it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(end, b"precious")
        answer = start().ask(b"comphash %s\n" % bytes(fifo))
        assert answer == b"An error occured : not a regular file: '%s'\n" % bytes(fifo)
        assert os.read(end, 100) == b"precious"
    finally:
        os.close(end)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 4096)


def replace(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"new")
    path.with_suffix(".new").replace(path)


def is_being_read(program: Program, path: Path) -> bool:
    """Whether it has read a part of the file."""
    for fd in Path(f"/proc/{program.pid}/fd").iterdir():
        try:
            if fd.readlink() == path:
                position = Path(f"/proc/{program.pid}/fdinfo/{fd.name}").read_text().split()[1]
                if int(position) > 0:
                    return True
        except FileNotFoundError:
            pass  # it was closed meanwhile
    return False


@pytest.mark.parametrize("change", [grow, shrink, replace])
def test_a_file_that_changes_while_it_is_hashed_has_no_digest(
    start: StartProgram, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """A digest that is of no file there ever was would be evidence of nothing."""
    path = tmp_path / "moving"
    path.touch()
    os.truncate(path, 400 * ONE_MIB)  # sparse: takes a second to hash and no disk
    program = start()
    with program.connect() as client:
        client.sendall(b"comphash sha3_256 %s\n" % bytes(path))
        wait_until(lambda: is_being_read(program, path), "the file is read")
        change(path)
        client.sendall(b"exit\n")
        assert read_all(client) == b"An error occured : changed while it was read: '%s'; ask again\n" % bytes(
            path
        )
    assert program.wait_for("command-completed", request=1)["outcome"] == "changed-while-read"


# The port


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (
            ["--port", "{taken}"],
            71,
            "trio-cmd: cannot listen on 127.0.0.1 port {taken}: Address already in use; ",
        ),
        (
            ["--host", "0.0.0.0", "--root", "/"],
            78,
            "server.host: 0.0.0.0 can be reached from other hosts; say which ones: --allow NETWORK",
        ),
        (["--port", "65536"], 78, "--port: server.port: expected int <= 65535"),
        (["--port", "9999x"], 78, "--port: server.port: expected int"),
    ],
    ids=["taken port", "every address", "no port", "no number"],
)
def test_an_address_it_cannot_have_is_one_line(
    start: StartProgram, args: list[str], code: int, said: str
) -> None:
    """The operator reads what to do instead of a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        program = start(*(arg.format(taken=taken) for arg in args))
        assert program.wait() == code
    lines = program.errors().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(said.format(taken=taken))
