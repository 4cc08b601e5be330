"""Records that systemd's journal reads: each line with its priority."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from test_stalled_log import can_connect

from program import PATIENCE_SECONDS, free_port, wait_until
from trio_cmd.records import events, open_records
from trio_cmd.records.journal import is_journal, with_priority
from trio_cmd.records.render import render_json, render_twisted
from trio_cmd.settings import Logging

NOW = 1795184038.123456


def stream_of(fd: int) -> str:
    found = os.fstat(fd)
    return f"{found.st_dev}:{found.st_ino}"


@pytest.mark.parametrize(("level", "priority"), [("info", b"<6>"), ("warning", b"<4>"), ("error", b"<3>")])
def test_the_level_is_the_journals_priority(level: str, priority: bytes) -> None:
    """`journalctl -p warning` shows warnings and errors, and nothing else."""
    fields = {"level": level, "event": "e", "system": "-", "action": "a"}
    assert with_priority(render_json)(fields, NOW) == priority + render_json(fields, NOW)


def test_each_line_of_a_traceback_has_the_priority() -> None:
    """The journal takes the lines of Twisted's text for entries of their own."""
    fields = {"level": "error", "event": "Unhandled Error", "system": "-", "exception": "Trace\nValueError"}
    lines = with_priority(render_twisted)(fields, NOW).splitlines(keepends=True)
    assert len(lines) == 3
    assert all(line.startswith(b"<3>") and line.endswith(b"\n") for line in lines)


def test_only_the_descriptor_that_systemd_named_is_the_journal() -> None:
    """Output that was redirected into a file has no numbers before its JSON."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert is_journal(ours.fileno(), stream_of(ours.fileno()))
        assert not is_journal(theirs.fileno(), stream_of(ours.fileno()))
        assert not is_journal(ours.fileno(), "")


def read_all(fd: int, data: bytearray) -> None:
    """Read until the end."""
    while piece := os.read(fd, 1 << 16):
        data += piece


@pytest.mark.parametrize("schema", ["plain", "ecs"])
def test_a_loss_has_its_priority_too(schema: str) -> None:
    """The one record that the logger does not make is no exception."""
    read_fd, write_fd = os.pipe()
    settings = Logging(queue_events=256, schema="ecs" if schema == "ecs" else "plain")
    log, sink = open_records(settings, write_fd, journal_stream=stream_of(write_fd))
    for _ in range(2000):
        log.record(events.STOPPED, reason="x")
    wait_until(lambda: sink.statistics().lost > 0, "a loss")
    data = bytearray()
    reader = threading.Thread(target=read_all, args=(read_fd, data))
    reader.start()
    wait_until(lambda: b"log events lost" in data, "the loss is said")
    assert sink.close(10) == 0
    os.close(write_fd)
    reader.join(PATIENCE_SECONDS)
    os.close(read_fd)
    for line in bytes(data).splitlines():
        assert line[:3] == (b"<4>" if b"log events lost" in line else b"<6>")
        json.loads(line[3:])


def test_the_program_knows_the_journal_and_writes_json(tmp_path: object) -> None:
    """Under systemd nothing has to be set for `journalctl -p` to work."""
    ours, theirs = socket.socketpair()
    port = free_port()
    command = (sys.executable, "-m", "trio_cmd", "--port", str(port))
    with (
        ours,
        subprocess.Popen(
            command,
            stdout=theirs.fileno(),
            env={**os.environ, "JOURNAL_STREAM": stream_of(theirs.fileno())},
        ) as process,
    ):
        theirs.close()
        wait_until(lambda: can_connect(port), "it listens")
        process.terminate()
        assert process.wait(30) == 0
        with ours.makefile("rb") as lines:
            records = [(line[:3], json.loads(line[3:])) for line in lines]
    priorities = {"info": b"<6>", "warning": b"<4>", "error": b"<3>"}
    assert all(prefix == priorities[record["level"]] for prefix, record in records)
    assert records[-1][1]["action"] == "stopped"
