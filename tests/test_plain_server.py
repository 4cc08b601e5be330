"""What kills or freezes a plain Trio server, row by row of TRIO.md's first table, does this one no harm."""

import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, SLACK_SECONDS, Program, read_all, reset, wait_until

WriteSettings = Callable[[str], str]

ONE_MIB = 1 << 20
# Root may raise its own limit of descriptors; without this capability it may not.
NO_RESOURCES = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]


def assert_serves(program: Program) -> None:
    """It still answers, and it ends when told to."""
    assert program.ask(b"ping\n") == b"pong\n"
    assert program.stop() == 0


def write_big_log(path: Path) -> None:
    path.write_bytes(b"".join(b"%07d %s\n" % (n, b"=" * 90) for n in range(10_000)))


def start_into_pipe(start: StartProgram, *args: str) -> tuple[Program, int, int]:
    """Start with a pipe for its records; returns also the pipe's reading end, and the port."""
    reader, writer = os.pipe()
    program = start(*args, stdout=writer)
    os.close(writer)
    begin = b""
    while b'"server-started"' not in begin:
        begin += os.read(reader, 65536)
    ports = [record.get("port") for record in map(json.loads, begin.splitlines())]
    return program, reader, next(int(port) for port in ports if port)


def ask(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def test_a_reset_in_the_middle_of_an_answer_is_only_the_end_of_that_client(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path
) -> None:
    """A plain server lets the broken stream's error cut everyone."""
    write_big_log(tmp_path / "big")
    program = start("--config", write_settings(f'[logs]\nbig = {{ file = "{tmp_path}/big" }}\n'))
    with program.connect() as other:
        client = program.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"lastlog 10000\n" * 8)
        assert client.recv(13) == b"Begin lastlog"
        reset(client)
        assert program.wait_for("client-lost", reason="reset")
        other.sendall(b"ping\n")
        assert other.recv(5) == b"pong\n"
    assert_serves(program)
    assert not program.actions("handler-crashed")


def test_a_path_that_is_not_utf8_or_missing_gets_its_error(start: StartProgram) -> None:
    """A plain server ends with a UnicodeDecodeError or a FileNotFoundError."""
    program = start()
    assert program.ask(b"comphash /no\xfe\xff\xff\ncomphash /nope\n") == (
        b"An error occured : [Errno 2] No such file or directory: '/no\\xfe\\xff'\n"
        b"An error occured : [Errno 2] No such file or directory: '/nope'\n"
    )
    assert_serves(program)


def test_a_reset_before_the_handler_ran_is_recorded_and_nothing_more(start: StartProgram) -> None:
    """A plain server ends because getpeername raises an OSError outside every guard."""
    program = start()
    port = program.port
    os.kill(program.pid, signal.SIGSTOP)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for client in clients:
        reset(client)
    os.kill(program.pid, signal.SIGCONT)
    for number in range(20):
        assert program.wait_for("client-lost", connection=number)["reason"] == "reset"
    assert_serves(program)
    assert not program.actions("handler-crashed")


def test_forty_hashes_of_a_fifo_leave_the_forty_first_its_thread(start: StartProgram, tmp_path: Path) -> None:
    """A plain server opens the FIFO, and each asker takes one of forty threads for ever."""
    fifo, file = tmp_path / "fifo", tmp_path / "file"
    os.mkfifo(fifo)
    file.write_bytes(b"lab\n")
    program = start()
    answers = program.ask(b"comphash %s\n" % bytes(fifo) * 40 + b"comphash %s\n" % bytes(file)).splitlines()
    assert answers[:40] == [b"An error occured : not a regular file: '%s'" % bytes(fifo)] * 40
    assert answers[40:] == [b"File hash is : " + hashlib.sha1(b"lab\n").hexdigest().encode()]
    assert_serves(program)


def test_a_reader_of_the_log_that_stops_reading_stops_nobody(
    start: StartProgram, write_settings: WriteSettings
) -> None:
    """A plain server blocks in the write of a record, and does not hear SIGTERM either."""
    config = write_settings("[logging]\nqueue_events = 256\n[limits]\nstop_seconds = 1\n")
    program, reader, port = start_into_pipe(start, "--config", config)
    try:
        assert ask(port, b"ping\n" * 20_000) == b"pong\n" * 20_000
        began = time.monotonic()
        assert ask(port, b"ping\n") == b"pong\n"
        assert time.monotonic() - began < SLACK_SECONDS
        assert program.stop() == 0
        assert time.monotonic() - began < 1 + 2 + SLACK_SECONDS
        assert "log events could not be written" in program.errors()
    finally:
        os.close(reader)


def test_standard_output_that_is_full_stops_nobody(start: StartProgram) -> None:
    """A plain server ends with the OSError of its log call when the disk of the log is full."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with open("/dev/full", "wb") as full:
        program = start("--port", str(port), stdout=full)
    wait_until(lambda: is_listening(port), "listening")
    assert ask(port, b"nope\nping\n") == b"Command not found.\npong\n"
    assert program.stop() == 0
    assert "log events could not be written" in program.errors()


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_reader_of_the_log_that_died_stops_nobody(start: StartProgram) -> None:
    """A plain server ends with BrokenPipeError when its log shipper is restarted."""
    program, reader, port = start_into_pipe(start)
    os.close(reader)
    assert ask(port, b"nope\nping\n") == b"Command not found.\npong\n"
    assert ask(port, b"ping\n") == b"pong\n"
    assert program.stop() == 0
    assert "log events could not be written" in program.errors()


def test_text_of_a_client_forges_no_record(start: StartProgram) -> None:
    """A plain server formats what a client sends into its log, and the client writes the log."""
    program = start()
    forged = b'x","action":"stopped"}\r{"action":"stopped"}\x1b[2J\xe2\x80\xa8{"action":"stopped"}\\'
    program.ask(forged + b'\nx\'"}{ \xe2\x80\xa8 \\"\n')
    first = program.wait_for("command-received", request=1)
    assert first["event"].startswith('Cmd received from 127.0.0.1 : x","action":"stopped"}\\x0d{')
    assert "\\x1b[2J\\u2028" in first["event"]
    second = program.wait_for("command-received", request=2)
    assert (second["command"], second["arguments"]) == ("x'\"}{", '\\u2028 \\"')
    assert_serves(program)
    assert [record["action"] for record in program.rest()].count("stopped") == 1


def fake_tail(folder: Path, script: str) -> dict[str, str]:
    """Have the server find another ``tail``; returns the environment to start it in."""
    tail = folder / "tail"
    tail.write_text(f"#!/bin/sh\n{script}\n")
    tail.chmod(0o755)
    (folder / "sitecustomize.py").write_text(
        f"import shutil\nshutil.which = lambda *_, **__: {str(tail)!r}\n"
    )
    paths = filter(None, [str(folder), os.environ.get("PYTHONPATH")])
    return {"PYTHONPATH": os.pathsep.join(paths)}


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("ignores", ["", "trap '' TERM; "], ids=["ends", "ignores SIGTERM"])
def test_no_child_of_a_child_outlives_sigterm(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, tmp_path: Path, ignores: str
) -> None:
    """A plain server ends only its direct child, and what that one started runs on as an orphan."""
    script = f"{ignores}sleep 30 & echo $! >{tmp_path}/orphan.new; mv {tmp_path}/orphan.new {tmp_path}/orphan"
    config = write_settings(f'[limits]\nstop_seconds = 0.1\n[logs]\nlab = {{ file = "{log_file}" }}\n')
    program = start("--config", config, env=fake_tail(tmp_path, script + "; sleep 30"))
    with program.connect() as client:
        client.sendall(b"lastlog\n")
        wait_until((tmp_path / "orphan").exists, "the child of the child")
        children = [int((tmp_path / "orphan").read_text()), *program.children()]
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 0.1 + 2 + SLACK_SECONDS
        assert not any(map(is_running, children))
        assert read_all(client) == (
            b"An error occured : server is stopping; ask again when it is back\nServer is stopping. bye !\n"
        )


def test_a_line_without_end_takes_no_memory(start: StartProgram) -> None:
    """A plain server keeps the whole of it, and searches it again with every packet."""
    program = start()
    program.ask(b"ping\n")
    before = program.resident_bytes()
    for number in range(1, 9):
        with program.connect() as client, pytest.raises(OSError, match=r"reset|[Bb]roken"):
            client.sendall(b"x" * 64 * ONE_MIB)
        program.wait_for("client-lost", connection=number, reason="line-too-long")
    assert program.resident_bytes() - before < 4 * ONE_MIB
    assert_serves(program)


@pytest.mark.needs("prlimit", "setpriv")
def test_the_limit_of_descriptors_is_one_record_a_second(start: StartProgram) -> None:
    """A plain server lets new clients hang and writes ten tracebacks a second."""
    prefix = ["prlimit", "--nofile=24:24", *(NO_RESOURCES if os.geteuid() == 0 else [])]
    program = start(prefix=prefix)
    with program.connect() as first:
        first.sendall(b"ping\n")
        assert first.recv(5) == b"pong\n"
        began = time.monotonic()
        others = [program.connect() for _ in range(40)]
        for client in others:
            client.sendall(b"ping\n")  # one who has asked is given a second to read why it is refused
        assert [read_all(client) for client in others] == [b"Too many connections. bye !\n"] * 40
        seconds = time.monotonic() - began
        first.sendall(b"ping\n")
        assert first.recv(5) == b"pong\n"
        for client in others:
            client.close()
    program.wait_for("client-lost", connection=0)
    assert_serves(program)
    full = [record for record in program.actions("message") if "Too many open files" in record["event"]]
    assert 1 <= len(full) <= seconds + 1
    assert not program.actions("handler-crashed")


@pytest.mark.parametrize(
    ("name", "action"),
    [("SIGHUP", "reloaded"), ("SIGUSR1", "message"), ("SIGUSR2", "report"), ("SIGPIPE", "")],
)
def test_signals_of_other_programs_do_not_end_the_server(start: StartProgram, name: str, action: str) -> None:
    """A plain server dies of a logrotate or a closed ssh that sends it SIGHUP."""
    program = start()
    assert program.ask(b"ping\n") == b"pong\n"
    program.process.send_signal(signal.Signals[name])
    if action:  # Python itself ignores SIGPIPE
        program.wait_for(action)
    assert_serves(program)


def test_no_socket_is_left_when_it_has_ended(start: StartProgram) -> None:
    """It can be started again on the same port at once."""
    program = start()
    port = program.port
    with program.connect() as client:
        client.sendall(b"ping\n")
        assert client.recv(5) == b"pong\n"
        assert program.stop() == 0
    again = start("--port", str(port))
    assert again.port == port
