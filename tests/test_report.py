"""SIGUSR2: the server records what it is doing, and with what."""

import os
import signal
from typing import Any

import pytest
import trio

from conftest import StartProgram
from trio_cmd.records import LineSink, events, make_logger
from trio_cmd.records.render import MAX_LINE_BYTES, render_json
from trio_cmd.server import report
from trio_cmd.server.report import make_report


def test_a_signal_has_the_server_report(start: StartProgram) -> None:
    """Whoever wonders where memory or descriptors have gone asks the process itself, without a debugger."""
    program = start()
    with program.connect() as client:
        client.sendall(b"ping\n")
        assert client.recv(5) == b"pong\n"
        program.process.send_signal(signal.SIGUSR2)
        record = program.wait_for("report")
        assert record["level"] == "info"
        assert record["tasks"]["count"] == sum(record["tasks"].values()) - record["tasks"]["count"] > 5
        assert record["tasks"]["server.reception.Reception.handle"] == 1
        assert record["threads"] >= 2  # the loop's, and the writer's of the record
        assert abs(record["descriptors"] - program.descriptors()) <= 2
        assert record["limiters"]["clients"] == [1, 100]
        assert 0 < record["memory"]["pss_bytes"] <= record["memory"]["rss_bytes"] < 1 << 30
        assert record["queues"].keys() == {"records", "runs", "runs_waiting", "reads_hung"}
        client.sendall(b"ping\n")
        assert client.recv(5) == b"pong\n"


async def test_a_report_is_one_whole_line_whatever_runs(nursery: trio.Nursery) -> None:
    """No shipper cuts it, however many kinds of tasks there are."""
    for number in range(200):
        nursery.start_soon(trio.sleep_forever, name=f"{number:03}" + "x" * 500)
    made = make_report(
        {str(n) * 10: [1 << 40, 1 << 40] for n in range(8)}, {str(n) * 10: 1 << 40 for n in range(8)}
    )
    assert made["tasks"]["count"] >= 200
    lines: list[bytes] = []

    class OneSink(LineSink):
        def put(self, line: bytes, action: str) -> None:
            lines.append(line)

    log = make_logger(OneSink(), render_json)
    log.record(events.REPORT, count=made["tasks"]["count"], **made)
    assert len(lines[0]) <= MAX_LINE_BYTES
    assert b'"truncated"' not in lines[0]
    nursery.cancel_scope.cancel()


async def test_what_the_system_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hardened kernel hides some of it; the rest is reported."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(report, "open", refuse, raising=False)
    made = make_report({}, {})
    assert (made["descriptors"], made["memory"]) == (None, {})
