"""What the program records of its clients: the tutorial's log in its words, and JSON for the shippers."""

import hashlib
import json
import os
import re
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, SLACK_SECONDS, Program, Record, read_all, reset, wait_until

WriteSettings = Callable[[str], str]

ONE_MIB = 1 << 20
CLEAN = "Connection was closed cleanly."
UNCLEAN = "Connection to the other side was lost in a non-clean fashion: Connection lost."
# Root may raise its own limit of descriptors; without this capability it may not.
NO_RESOURCES = (
    ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"] if os.geteuid() == 0 else []
)


def large_file(path: Path, mebibytes: int = 60_000) -> Path:
    """A sparse file: it takes a minute to hash and no disk."""
    path.touch()
    os.truncate(path, mebibytes * ONE_MIB)
    return path


def outcomes(program: Program) -> dict[int, str]:
    return {record["request"]: record["outcome"] for record in program.actions("command-completed")}


# In Twisted's text


def test_the_log_of_the_tutorials_conversation_reads_as_in_the_tutorial(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, tmp_path: Path
) -> None:
    """Who knows the tutorial, or has scripts for its log, finds the same sentences here."""
    record, hashed = tmp_path / "record", tmp_path / "hashed"
    hashed.write_bytes(b"lab\n")
    config = write_settings(f'[logs]\nsyslog = {{ file = "{log_file}" }}\n')
    with record.open("wb") as output:
        args = ["--log-format", "twisted", "--max-clients", "1", "--config", config]
        program = start(*args, stdout=output, env={"TZ": "CET-1"})
    wait_until(lambda: "Starting server" in record.read_text(), "the start")
    found = re.search(r"starting on (\d+)", record.read_text())
    assert found is not None
    port = int(found[1])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(b"test\n")
        assert client.recv(100) == b"Command not found.\n"
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as refused:
            assert read_all(refused) == b"Too many connections. bye !\n"
        wait_until(lambda: "[CmdProtocol,1,127.0.0.1]" in record.read_text(), "the end of the refused client")
        for line in (b"lastlog\n", b"comphash\n", b"comphash %s\n" % bytes(hashed)):
            client.sendall(line)
            assert client.recv(10_000).endswith(b"\n")
        client.sendall(b"exit\n")
        assert read_all(client) == b""
    wait_until(lambda: "[CmdProtocol,0,127.0.0.1] Lost" in record.read_text(), "the end of the client")
    assert program.stop() == 0
    lines = [line for line in record.read_text().splitlines() if "running as root" not in line]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+0100 \[", line) for line in lines)
    assert [line.split(" ", 2)[2] for line in lines] == [
        "[-] Log opened.",
        f"[-] trio_cmd.Server starting on {port}",
        "[-] Starting server <trio_cmd.Server max_clients=1>",
        "[trio_cmd.Server] Client connection from 127.0.0.1",
        "[CmdProtocol,0,127.0.0.1] Cmd received from 127.0.0.1 : test",
        "[CmdProtocol,0,127.0.0.1] Cmd completed for 127.0.0.1 : test",
        "[trio_cmd.Server] Client connection from 127.0.0.1",
        "[trio_cmd.Server] Too many connections. bye !",
        f"[CmdProtocol,1,127.0.0.1] Lost client connection. Reason: {CLEAN}",
        "[CmdProtocol,0,127.0.0.1] Cmd received from 127.0.0.1 : lastlog",
        "[CmdProtocol,0,127.0.0.1] Cmd completed for 127.0.0.1 : lastlog",
        "[CmdProtocol,0,127.0.0.1] Cmd received from 127.0.0.1 : comphash",
        "[CmdProtocol,0,127.0.0.1] Cmd completed for 127.0.0.1 : comphash",
        f"[CmdProtocol,0,127.0.0.1] Cmd received from 127.0.0.1 : comphash {hashed}",
        f"[CmdProtocol,0,127.0.0.1] Cmd completed for 127.0.0.1 : comphash {hashed}",
        "[CmdProtocol,0,127.0.0.1] Cmd received from 127.0.0.1 : exit",
        "[CmdProtocol,0,127.0.0.1] Cmd completed for 127.0.0.1 : exit",
        f"[CmdProtocol,0,127.0.0.1] Lost client connection. Reason: {CLEAN}",
        f"[-] (TCP Port {port} Closed)",
        "[-] Main loop terminated.",
    ]


# As JSON


def without(record: Record, *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def test_the_records_of_a_conversation_are_complete(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, tmp_path: Path
) -> None:
    """Who asked what, when, from where, and what came of it: an auditor needs no other source."""
    hashed = tmp_path / "hashed"
    hashed.write_bytes(b"lab\n")
    digest = hashlib.sha256(b"lab\n").hexdigest()
    program = start("--config", write_settings(f'[logs]\nlab = {{ file = "{log_file}" }}\n'))
    asked = [
        b"test  a\tb ",
        b"lastlog 3",
        b"comphash sha256 %s" % bytes(hashed),
        b"comphash /nope",
        b"\1",
        b"exit",
    ]
    with program.connect() as client:
        port = client.getsockname()[1]
        sent, got = 0, 0
        for line in asked:  # one by one: the records come in the order of what happens
            client.sendall(line + b"\n")
            sent += len(line) + 1
            if line != b"exit":
                got += len(answer := client.recv(10_000))
                assert answer.endswith(b"\n")
        assert read_all(client) == b""
    program.wait_for("client-lost")
    assert program.stop() == 0
    records = program.rest()
    head = ["timestamp", "level", "event", "action", "system"]
    assert all(list(record)[:5] == head for record in records)
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
    assert all(stamp.fullmatch(record["timestamp"]) for record in records)
    assert [r["timestamp"] for r in records] == sorted(r["timestamp"] for r in records)
    mine = [without(record, "timestamp") for record in records if record.get("connection") == 0]
    who = {"connection": 0, "client": "127.0.0.1", "port": port}
    connected, *commands, lost = mine
    assert connected == {
        "level": "info",
        "event": "Client connection from 127.0.0.1",
        "action": "client-connected",
        "system": "trio_cmd.Server",
        **who,
    }
    who["system"] = "CmdProtocol,0,127.0.0.1"
    assert without(lost, "seconds") == {
        "level": "info",
        "event": f"Lost client connection. Reason: {CLEAN}",
        "action": "client-lost",
        **who,
        "reason": "exit",
        "requests": 6,
        "bytes_in": sent,
        "bytes_out": got,
    }
    expected: list[tuple[str, str | None, str, str, dict[str, Any]]] = [
        ("test  a\tb ", "test", "a\tb", "warning", {"outcome": "unknown-command"}),
        (
            "lastlog 3",
            "lastlog",
            "3",
            "info",
            {"outcome": "ok", "shared": False, "log": "lab", "lines": 3, "exit_status": 0},
        ),
        (
            f"comphash sha256 {hashed}",
            "comphash",
            f"sha256 {hashed}",
            "info",
            {
                "outcome": "ok",
                "shared": False,
                "path": str(hashed),
                "algorithm": "sha256",
                "digest": digest,
                "size": 4,
            },
        ),
        ("comphash /nope", "comphash", "/nope", "info", {"outcome": "not-found", "shared": False}),
        ("\\x01", None, "", "warning", {"outcome": "bad-encoding"}),
        ("exit", "exit", "", "info", {"outcome": "ok"}),
    ]
    assert len(commands) == 2 * len(expected)
    assert sum(record["bytes"] for record in commands[1::2]) == got
    for number, (shown, command, arguments, level, facts) in enumerate(expected, 1):
        what = {**who, "request": number, "command": command, "arguments": arguments}
        assert commands[2 * number - 2] == {
            "level": "info",
            "event": f"Cmd received from 127.0.0.1 : {shown}",
            "action": "command-received",
            **what,
        }
        completed = commands[2 * number - 1]
        assert 0 <= completed["seconds"] < PATIENCE_SECONDS
        assert without(completed, "seconds", "bytes") == {
            "level": level,
            "event": f"Cmd completed for 127.0.0.1 : {shown}",
            "action": "command-completed",
            **what,
            **facts,
        }


def test_the_records_of_start_and_end_say_what_runs(start: StartProgram) -> None:
    """From the record alone one knows the version, the address and the limits in force."""
    program = start("--max-clients", "7")
    program.wait_for("server-started")
    assert program.stop() == 0
    records = [record for record in program.rest() if "running as root" not in record["event"]]
    opened, listening, started, stopping, stopped = records
    assert (opened["action"], opened["pid"]) == ("log-opened", program.pid)
    assert re.fullmatch(r"\d+\.\d+\.\d+", opened["version"])
    assert (listening["action"], listening["host"]) == ("listening", "127.0.0.1")
    assert started["max_clients"] == 7
    assert started["limits"]["line_bytes"] == 8192
    assert stopping["reason"] == stopped["reason"] == "SIGTERM"
    assert {record["system"] for record in program.records} == {"-"}


def test_a_refused_client_is_recorded_with_a_number_of_its_own(start: StartProgram) -> None:
    """Who was turned away is as much a part of the audit as who was let in."""
    program = start("--max-clients", "1")
    with program.connect() as client:
        client.sendall(b"ping\n")
        assert client.recv(5) == b"pong\n"
        assert program.ask(b"ping\n") == b"Too many connections. bye !\n"
        lost = program.wait_for("client-lost", connection=1)
    assert (lost["reason"], lost["requests"], lost["level"]) == ("too-many-clients", 0, "warning")
    actions = [record["action"] for record in program.records if record.get("connection") == 1]
    assert actions == ["client-connected", "client-refused", "client-lost"]
    refused = program.wait_for("client-refused")
    assert refused["event"] == "Too many connections. bye !"
    assert (refused["level"], refused["reason"]) == ("warning", "too-many-clients")


@pytest.mark.parametrize(
    ("number", "reason", "level", "why"),
    [(0, "closed", "info", CLEAN), (1, "reset", "warning", UNCLEAN), (2, "wrong-protocol", "warning", CLEAN)],
)
def test_the_end_of_a_connection_has_its_reason(
    start: StartProgram, number: int, reason: str, level: str, why: str
) -> None:
    """A dead client, a polite one and a port scanner can be told from each other."""
    program = start()
    with program.connect() as closing:
        closing.sendall(b"ping\n")
        assert closing.recv(5) == b"pong\n"
    program.wait_for("client-lost", connection=0)
    reset(program.connect())
    program.wait_for("client-lost", connection=1)
    program.ask(b"SSH-2.0-scan\r\n")
    lost = program.wait_for("client-lost", connection=number)
    assert (lost["reason"], lost["level"]) == (reason, level)
    assert lost["event"] == f"Lost client connection. Reason: {why}"


def test_the_longest_lines_are_recorded_short_and_ascii(start: StartProgram) -> None:
    """No shipper cuts a record in two, and none has to know an encoding."""
    program = start()
    program.ask(
        b"x " + "ü\N{RIGHT-TO-LEFT OVERRIDE}\N{PILE OF POO}".encode() * 900 + b"\n" + b"\\" * 8192 + b"\n"
    )
    program.wait_for("client-lost")
    received = program.actions("command-received")
    assert [record["truncated"] for record in received] == [True, True]
    assert received[0]["arguments"].startswith("ü\\u202e\N{PILE OF POO}ü")
    assert received[1]["command"] == received[1]["command"][0] * len(received[1]["command"])
    assert all(len(json.dumps(record, separators=(",", ":"))) < 4096 for record in program.records)


# Work that nobody waits for any more


def test_every_received_command_has_its_completed_one_also_when_the_asker_left(
    start: StartProgram, tmp_path: Path
) -> None:
    """A question whose asker died is not left open in the audit."""
    program = start()
    client = program.connect()
    client.sendall(b"ping\n" + b"comphash %s\n" % bytes(large_file(tmp_path / "large")) * 3 + b"ping\n")
    assert client.recv(5) == b"pong\n"
    program.wait_for("command-received", request=5)
    reset(client)
    program.wait_for("client-lost", reason="reset")
    assert outcomes(program) == {1: "ok", 2: "gone", 3: "gone", 4: "gone", 5: "ok"}
    assert {record["request"] for record in program.actions("command-received")} == {1, 2, 3, 4, 5}
    gone = program.wait_for("command-completed", outcome="gone")
    assert (gone["bytes"], gone["level"]) == (0, "info")


@pytest.mark.parametrize("has_ended", [False, True], ids=["reset", "reset after the end of input"])
def test_the_work_of_a_client_that_is_reset_ends_within_a_second(
    start: StartProgram, tmp_path: Path, has_ended: bool
) -> None:
    """A hundred commands in flight cost the host nothing once their asker is gone."""
    program = start()
    client = program.connect()
    client.sendall(b"comphash %s\n" % bytes(large_file(tmp_path / "large")) * 100)
    if has_ended:
        client.shutdown(socket.SHUT_WR)
    received = program.wait_for("command-received", request=64)  # so many may be pending
    assert received["command"] == "comphash"
    began = time.monotonic()
    reset(client)
    lost = program.wait_for("client-lost", reason="reset")
    assert time.monotonic() - began < 1 + SLACK_SECONDS
    assert lost["requests"] == 64
    assert outcomes(program) == dict.fromkeys(range(1, 65), "gone")
    wait_until(lambda: not is_open(program, tmp_path / "large"), "the threads have let go of the file")
    assert time.monotonic() - began < 1 + SLACK_SECONDS
    status = program.ask(b"status\n").decode().splitlines()
    assert {"hashing_running: 0", "hashing_waiting: 0", "clients: 1", "pending_bytes: 0"} <= set(status)
    assert "commands_gone: 64" in status


def is_open(program: Program, path: Path) -> bool:
    for fd in Path(f"/proc/{program.pid}/fd").iterdir():
        try:
            if fd.readlink() == path:
                return True
        except FileNotFoundError:
            pass  # it was closed meanwhile
    return False


# Descriptors


@pytest.mark.needs("prlimit", "setpriv")
def test_too_few_descriptors_lower_the_limit_of_clients_and_say_so(start: StartProgram) -> None:
    """The operator reads in the record what to raise, before a client is refused."""
    program = start("--max-clients", "1000", prefix=["prlimit", "--nofile=400:400", *NO_RESOURCES])
    lowered = program.wait_until(lambda record: "lowered" in record["event"], "that the limit is lowered")
    said = re.fullmatch(
        r"max_clients lowered to (\d+): too few descriptors; raise the limit \(ulimit -n\)", lowered["event"]
    )
    assert said is not None
    assert lowered["level"] == "warning"
    max_clients = int(said[1])
    assert 100 <= max_clients <= 400 - 128
    assert program.wait_for("server-started")["max_clients"] == max_clients
    clients = [program.connect() for _ in range(max_clients)]
    for client in clients:
        client.sendall(b"ping\n")
    assert [client.recv(5) for client in clients] == [b"pong\n"] * max_clients
    refused = [program.connect() for _ in range(80)]
    for client in refused:
        client.sendall(b"ping\n")
    assert [read_all(client) for client in refused[:64]] == [b"Too many connections. bye !\n"] * 64
    for client in clients + refused:
        client.close()
    assert program.stop() == 0
    program.rest()
    assert not [record for record in program.actions("message") if "open files" in record["event"]]
    assert not program.actions("handler-crashed")


def test_a_soft_limit_is_raised_to_what_is_needed(start: StartProgram) -> None:
    """The usual soft limit of 1024 is no reason to turn clients away."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = start("--max-clients", "500", prefix=["prlimit", f"--nofile=256:{hard}"])
    assert program.wait_for("server-started")["max_clients"] == 500
    assert resource.prlimit(program.pid, resource.RLIMIT_NOFILE)[0] >= 500 + 128
    assert not [record for record in program.actions("message") if "lowered" in record["event"]]


def test_without_descriptors_there_is_one_record_a_second(start: StartProgram, tmp_path: Path) -> None:
    """The record of a host in trouble stays readable, and those who are in are served."""
    program = start()
    first = program.connect()
    first.sendall(b"ping\n")
    assert first.recv(5) == b"pong\n"
    _, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (program.descriptors(), hard))
    began = time.monotonic()
    others = [program.connect() for _ in range(5)]
    path = bytes(tmp_path / "file")
    (tmp_path / "file").write_text("lab\n")
    for count in (1, 2, 3):
        wait_until_said(program, count)
        first.sendall(b"comphash %s\n" % path)
        assert first.recv(1000) == b"An error occured : [Errno 24] Too many open files: '%s/file'\n" % bytes(
            tmp_path
        )
    seconds = time.monotonic() - began
    assert seconds >= 2
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (hard, hard))
    for client in others:
        client.sendall(b"ping\n")
        assert client.recv(5) == b"pong\n"
    for client in (first, *others):
        client.close()
    assert program.stop() == 0
    program.rest()
    said = [r for r in program.actions("message") if "open files" in r["event"]]
    assert 3 <= len(said) <= seconds + 2
    assert "more like it)" in said[1]["event"]
    assert said[0]["level"] == "error"
    assert not program.actions("handler-crashed")


def wait_until_said(program: Program, count: int) -> None:
    seen: int = 0

    def is_it(record: Record) -> bool:
        nonlocal seen
        seen += int(record["action"] == "message" and "open files" in record["event"])
        return seen == count

    program.wait_until(is_it, f"message number {count}")


def test_what_libraries_say_is_recorded_and_not_printed(start: StartProgram, tmp_path: Path) -> None:
    """A warning deep in a library reaches the operator in the one place that is read."""
    code = "import gc, logging, warnings\ndef freeze():\n    warnings.warn('old\\nway')\n"
    code += "    logging.getLogger('lib').error('two\\nlines')\ngc.freeze = freeze\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    paths = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    program = start(env={"PYTHONPATH": os.pathsep.join(paths)})
    warned = program.wait_for("message", logger="py.warnings")
    assert "UserWarning: old\\x0away" in warned["event"]
    assert warned["level"] == "warning"
    assert program.wait_for("message", logger="lib")["event"] == "two\\x0alines"
    assert program.stop() == 0
    assert program.errors() == ""
