"""The end of the program as a process: signals, exit codes, and that nothing is left behind."""

import contextlib
import fcntl
import json
import os
import pty
import resource
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, SLACK_SECONDS, Program, free_port, read_all, wait_until

WriteSettings = Callable[[str], str]

ONE_MIB = 1 << 20
BYE = b"Server is stopping. bye !\n"
STOPPED = b"An error occured : server is stopping; ask again when it is back\n"


def stop_in(program: Program, seconds: float, number: signal.Signals = signal.SIGTERM) -> None:
    """Stop it and see that it took no longer, and was no error."""
    began = time.monotonic()
    assert program.stop(number) == 0
    assert time.monotonic() - began < seconds + SLACK_SECONDS


def start_hash(client: socket.socket, program: Program, path: Path, mebibytes: int) -> None:
    """Ask for the hash of a large file and wait until it is read."""
    path.touch()
    os.truncate(path, mebibytes * ONE_MIB)  # sparse: it takes no disk
    client.sendall(b"comphash sha3_256 %s\n" % bytes(path))
    wait_until(lambda: is_open(program, path), "the file is open")


def is_open(program: Program, path: Path) -> bool:
    for fd in Path(f"/proc/{program.pid}/fd").iterdir():
        try:
            if fd.readlink() == path:
                return True
        except FileNotFoundError:
            pass  # it was closed meanwhile
    return False


def site(folder: Path, code: str) -> dict[str, str]:
    """Run code as Python starts, before the program; returns the environment for that."""
    (folder / "sitecustomize.py").write_text(code)
    paths = filter(None, [str(folder), os.environ.get("PYTHONPATH")])
    return {"PYTHONPATH": os.pathsep.join(paths)}


def connect_at(port: int) -> socket.socket:
    """Connect as soon as it listens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.005)


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_clients_are_told_that_the_server_stops(start: StartProgram, number: signal.Signals) -> None:
    """Systemd's SIGTERM and an operator's Ctrl-C end it alike, and nobody is cut without a word."""
    program = start()
    text, json_client = program.connect(), program.connect()
    text.sendall(b"ping\nunfini")
    json_client.sendall(b"format json\n")
    assert text.recv(5) == b"pong\n"
    assert json_client.recv(10) == b'{"id":1,"c'
    stop_in(program, 0, number)
    assert read_all(text) == BYE
    said = read_all(json_client).splitlines()[-1]
    assert json.loads(said) == {"event": "bye", "reason": "stopping", "message": "Server is stopping. bye !"}
    text.close()
    json_client.close()
    *_, stopping, first, second, stopped = program.rest()
    assert (stopping["action"], stopping["reason"]) == ("stopping", number.name)
    assert stopping["event"] == f"(TCP Port {program.port} Closed)"
    assert {first["reason"], second["reason"]} == {"stopping"}
    assert (stopped["action"], stopped["event"]) == ("stopped", "Main loop terminated.")
    assert program.errors() == ""


def test_a_busy_client_gets_its_answers_before_the_end(start: StartProgram, tmp_path: Path) -> None:
    """A deployment in the middle of a question does not cost the answer."""
    program = start()
    with program.connect() as client:
        start_hash(client, program, tmp_path / "large", 100)
        client.sendall(b"ping\n")
        program.wait_for("command-received", command="ping")
        stop_in(program, 10)
        digest, pong, bye = read_all(client).splitlines(keepends=True)
        assert digest.startswith(b"File hash is : ")
        assert (pong, bye) == (b"pong\n", BYE)


def test_a_busy_client_that_takes_too_long_is_cancelled_and_told(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path
) -> None:
    """A restart takes as long as the settings say, whatever is asked."""
    program = start("--config", write_settings("[limits]\nstop_seconds = 0.3\n"))
    with program.connect() as client:
        start_hash(client, program, tmp_path / "huge", 60_000)
        client.sendall(b"ping\ncomphash /nope\n")
        program.wait_for("command-received", request=3)
        stop_in(program, 0.3)
        answers = read_all(client).splitlines(keepends=True)
    missing = b"An error occured : [Errno 2] No such file or directory: '/nope'\n"
    assert answers == [STOPPED, b"pong\n", missing, BYE]
    completed = [r["outcome"] for r in program.rest() if r["action"] == "command-completed"]
    assert sorted(completed) == ["not-found", "ok", "stopping"]


def test_a_client_that_does_not_read_holds_the_stop_no_longer_than_allowed(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path
) -> None:
    """A stopped netcat does not hold up a restart."""
    log = tmp_path / "big"
    log.write_bytes(b"".join(b"%05d %s\n" % (n, b"=" * 90) for n in range(10_000)))
    config = write_settings(f'[limits]\nstop_seconds = 0.3\n[logs]\nbig = {{ file = "{log}" }}\n')
    program = start("--config", config)
    with program.connect() as client:
        client.sendall(b"lastlog 10000\n" * 20)
        program.wait_for("command-completed")
        stop_in(program, 0.3)
    assert program.rest()[-2]["reason"] == "stopping"


def test_a_second_signal_means_now(start: StartProgram, tmp_path: Path) -> None:
    """An operator who presses Ctrl-C twice has no patience left."""
    program = start()
    with program.connect() as client:
        start_hash(client, program, tmp_path / "huge", 60_000)
        program.process.send_signal(signal.SIGINT)
        program.wait_for("stopping")
        stop_in(program, 0, signal.SIGINT)
        read_all(client)
    assert [r["outcome"] for r in program.rest() if r["action"] == "command-completed"] == ["gone"]
    assert program.records[-1]["action"] == "stopped"


SURVIVED = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE]


def test_signals_that_do_not_stop_interrupt_nothing(start: StartProgram, tmp_path: Path) -> None:
    """A logrotate's SIGHUP in the middle of work is recorded, and the work goes on."""
    program = start()
    with program.connect() as client:
        start_hash(client, program, tmp_path / "large", 100)
        for number in SURVIVED:
            program.process.send_signal(number)
        client.sendall(b"exit\n")
        assert read_all(client).startswith(b"File hash is : ")
        for action in ("reloaded", "message", "report"):  # Python itself ignores SIGPIPE
            program.wait_for(action)
    stop_in(program, 0)


def test_signals_that_mean_nothing_do_not_kill_a_server_that_stops(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path
) -> None:
    """Systemd may send SIGHUP right after SIGTERM; the clients keep their time."""
    program = start("--config", write_settings("[limits]\nstop_seconds = 5\n"))
    with program.connect() as client:
        start_hash(client, program, tmp_path / "large", 100)
        program.process.send_signal(signal.SIGTERM)
        program.wait_for("stopping")
        for number in SURVIVED:
            program.process.send_signal(number)
        assert program.wait() == 0
        assert read_all(client).endswith(BYE)
    assert "reloaded" not in [record["action"] for record in program.rest()]


def start_in_window(start: StartProgram) -> tuple[Program, int]:
    """Start it as the session leader of a terminal; returns also the terminal's other end."""
    window, terminal = pty.openpty()
    program = start(
        stdin=terminal, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    )
    os.close(terminal)
    assert program.ask(b"ping\n") == b"pong\n"
    return program, window


def test_a_closed_window_leaves_no_server_behind(start: StartProgram) -> None:
    """Whoever tried it out in a terminal and closed that has no open port left."""
    program, window = start_in_window(start)
    with program.connect() as client:
        client.sendall(b"ping\n")
        assert client.recv(5) == b"pong\n"
        os.close(window)
        assert program.wait() == 0
        assert read_all(client) == BYE
    assert program.rest()[-1]["reason"] == "SIGHUP"


def test_sighup_stops_a_server_at_a_terminal(start: StartProgram) -> None:
    """The window's end is told by this signal, and by nothing else."""
    program, window = start_in_window(start)
    stop_in(program, 0, signal.SIGHUP)
    os.close(window)


# What holds the end


def start_with_stalled_reader(start: StartProgram, config: str) -> tuple[Program, int, int]:
    """Start with a pipe for its records that nobody reads; returns also its reading end, and the port."""
    reader, writer = os.pipe()
    port = free_port()
    program = start("--config", config, "--port", str(port), stdout=writer)
    os.close(writer)
    with connect_at(port) as client:
        client.sendall(b"ping\n" * 4000 + b"exit\n")
        assert read_all(client) == b"pong\n" * 4000
    return program, reader, port


def test_a_stalled_reader_of_standard_output_does_not_hold_the_end(
    start: StartProgram, write_settings: WriteSettings
) -> None:
    """A frozen log shipper does not make systemd kill the server."""
    config = write_settings("[limits]\nstop_seconds = 0.1\n")
    program, reader, port = start_with_stalled_reader(start, config)
    with connect_at(port) as client:
        began = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert read_all(client) == BYE
        assert time.monotonic() - began < 1 + SLACK_SECONDS
        for number in (*SURVIVED, signal.SIGTERM):  # also now, when only the records are left
            program.process.send_signal(number)
        assert program.wait() == 0
        assert time.monotonic() - began < 0.1 + 2 + SLACK_SECONDS
    assert "log events could not be written" in program.errors()
    os.close(reader)


def test_the_last_records_reach_a_reader_that_comes_back(
    start: StartProgram, write_settings: WriteSettings
) -> None:
    """A shipper that is only slow gets the whole record of the end."""
    program, reader, _ = start_with_stalled_reader(start, write_settings("[limits]\nstop_seconds = 0.1\n"))
    program.process.send_signal(signal.SIGTERM)
    pieces = []
    while piece := os.read(reader, 1 << 20):
        pieces.append(piece)
    os.close(reader)
    assert program.wait() == 0
    actions = [json.loads(line)["action"] for line in b"".join(pieces).splitlines()]
    assert actions[-1] == "stopped"
    assert actions.count("command-received") == actions.count("command-completed") == 4001
    assert program.errors() == ""


@pytest.mark.parametrize("stderr", ["read", "full", "dead"])
def test_whatever_holds_the_end_does_not_hold_it_for_ever(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path, stderr: str
) -> None:
    """A dead disk costs an exit code, not a process that cannot be restarted."""
    env = site(tmp_path, "import threading\nthreading.Thread.join = lambda *_: threading.Event().wait()\n")
    reader, writer = os.pipe()
    if stderr == "full":
        os.set_blocking(writer, False)
        with pytest.raises(BlockingIOError):
            list(iter(lambda: os.write(writer, b"x" * 4096), 0))
        os.set_blocking(writer, True)
    config = write_settings("[limits]\nstop_seconds = 0.1\n")
    program = start("--config", config, env=env, stderr=writer)
    os.close(writer)
    assert program.port
    if stderr == "dead":
        os.close(reader)
    began = time.monotonic()
    assert program.stop() == 70
    assert 2 < time.monotonic() - began < 0.1 + 2 + SLACK_SECONDS
    if stderr == "read":
        said = b"trio-cmd: something held the stop for too long; leaving anyway\n"
        assert os.read(reader, 4096) == said
    if stderr != "dead":
        os.close(reader)


# What is left


def test_no_zombie_is_left_while_it_serves(
    start: StartProgram, write_settings: WriteSettings, log_file: Path
) -> None:
    """A year of questions does not fill the table of processes."""
    program = start("--config", write_settings(f'[logs]\nlab = {{ file = "{log_file}" }}\n'))
    assert program.ask(b"lastlog\n" * 20).count(b"End lastlog\n") == 20
    wait_until(lambda: not program.children(), "no children")
    stop_in(program, 0)


def fake_tail(folder: Path, script: str) -> dict[str, str]:
    """Have the server find another ``tail``; returns the environment to start it in."""
    tail = folder / "tail"
    tail.write_text(f"#!/bin/sh\n{script}\n")
    tail.chmod(0o755)
    return site(folder, f"import shutil\nshutil.which = lambda *_, **__: {str(tail)!r}\n")


def test_a_child_that_a_program_forgot_holds_neither_the_answer_nor_lives_on(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, tmp_path: Path
) -> None:
    """A program that leaves something in the background leaves nothing here."""
    env = fake_tail(tmp_path, "trap '' TERM HUP; sleep 60 & echo ready")
    program = start("--config", write_settings(f'[logs]\nlab = {{ file = "{log_file}" }}\n'), env=env)
    assert program.port
    began = time.monotonic()
    assert program.ask(b"lastlog\n") == b"Begin lastlog\nready\nEnd lastlog\n"
    assert time.monotonic() - began < 0.5 + SLACK_SECONDS
    wait_until(lambda: not program.children(), "the forgotten child is gone")
    stop_in(program, 0)


def test_a_child_that_ignores_sigterm_is_killed_when_the_time_is_over(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, tmp_path: Path
) -> None:
    """A stubborn program holds the stop for a second, and no longer."""
    env = fake_tail(tmp_path, f"trap '' TERM; echo >{tmp_path}/began; while :; do sleep 0.2; done")
    config = write_settings(f'[limits]\nstop_seconds = 0.1\n[logs]\nlab = {{ file = "{log_file}" }}\n')
    program = start("--config", config, env=env)
    with program.connect() as client:
        client.sendall(b"lastlog\n" * 4)
        wait_until((tmp_path / "began").exists, "the program runs")
        children = program.children()
        assert children
        stop_in(program, 0.1 + 1.5)
        assert read_all(client) == STOPPED * 4 + BYE
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.proof
def test_a_thousand_idle_clients_are_all_told_within_two_seconds(start: StartProgram) -> None:
    """A restart of a crowded server is as quick as that of an empty one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    program = start("--max-clients", "2000")
    program.ask(b"ping\n")
    before = program.resident_bytes()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(program.connect()) for _ in range(1000)]
        program.wait_for("client-connected", connection=1000)
        assert program.resident_bytes() - before < 1000 * 10 * 1024
        clients[500].sendall(b"ping\n")
        assert clients[500].recv(5) == b"pong\n"
        began = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert [read_all(client) for client in clients] == [BYE] * 1000
        assert program.wait() == 0
        assert time.monotonic() - began < 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Descriptors


def with_closed(closed: Sequence[int]) -> list[str]:
    """A shell that closes descriptors and becomes the program."""
    return ["sh", "-c", 'exec "$@" ' + " ".join(f"{fd}>&-" for fd in closed), "sh"]


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)], ids=str)
def test_a_descriptor_closed_at_start_never_becomes_a_clients(
    start: StartProgram, log_file: Path, write_settings: WriteSettings, closed: Sequence[int]
) -> None:
    """Else the record of everybody would be sent to the first client."""
    port = free_port()
    config = write_settings(f'[logs]\nlab = {{ file = "{log_file}" }}\n')
    program = start("--config", config, "--port", str(port), prefix=with_closed(closed))
    with connect_at(port) as client:
        client.sendall(b"nope\ncomphash /nope\nlastlog 1\nexit\n")
        ends = {fd: str(Path(f"/proc/{program.pid}/fd/{fd}").readlink()) for fd in (0, 1, 2)}
        assert read_all(client) == (
            b"Command not found.\nAn error occured : [Errno 2] No such file or directory: '/nope'\n"
            b"Begin lastlog\n" + log_file.read_bytes().splitlines()[-1] + b"\nEnd lastlog\n"
        )
    assert not any("socket" in end for end in ends.values())
    assert all(ends[fd] == "/dev/null" for fd in closed)
    stop_in(program, 0)
    assert (program.rest() != []) == (1 not in closed)  # each line was read as JSON
    said = "trio-cmd: standard output is closed: nothing is recorded\n"
    assert program.errors() == (said if 1 in closed and 2 not in closed else "")


def test_what_is_said_without_standard_error_is_not_said_in_the_record(start: StartProgram) -> None:
    """A shipper that parses every line is not given one for people."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = start("--port", str(server.getsockname()[1]), prefix=with_closed([2]))
        assert program.wait() == 71
    assert [record["action"] for record in program.rest()] == ["log-opened", "stopped"]


# Exit codes


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["--check-config"], 0),
        (["--nope"], 2),
        (["more"], 2),
        (["--max-clients", "0"], 78),
        (["--config", "/no/such/file"], 78),
        (["--config", "/dev/null/x", "--check-config"], 78),
    ],
    ids=str,
)
def test_the_exit_code_says_whose_fault_it_was(start: StartProgram, args: list[str], code: int) -> None:
    """A unit file can tell what to restart after."""
    assert start(*args, stdout=subprocess.DEVNULL).wait() == code


def test_a_fault_of_the_program_itself_is_recorded_and_its_exit_code_70(
    start: StartProgram, tmp_path: Path
) -> None:
    """Systemd starts it again, and the traceback is in the record."""
    program = start(env=site(tmp_path, "import gc\ngc.freeze = lambda: 1 / 0\n"))
    assert program.wait() == 70
    crash = program.wait_for("handler-crashed")
    assert "ZeroDivisionError" in crash["exception"]
    assert program.rest()[-1]["reason"] == "crashed"
    assert program.errors() == "trio-cmd: the server has crashed; the record says where\n"
