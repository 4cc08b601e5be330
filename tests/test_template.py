"""Records joined of pieces are those that the ordinary way makes, byte for byte."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_cmd.records import LineSink, events, make_logger, open_records
from trio_cmd.records.batch import Batch
from trio_cmd.records.events import EventLogger
from trio_cmd.records.render import MAX_LINE_BYTES, render_json, render_twisted, stamp
from trio_cmd.records.template import MAX_SHOWN, make_pieces
from trio_cmd.server.visit import Peer, Visit
from trio_cmd.settings import Logging

NOW = 1795184038.123456
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=MAX_SHOWN)
CLIENTS: list[Mapping[str, Any]] = [
    {"client": "127.0.0.1", "port": 53412},
    {"client": "fe80:1111:2222:3333:4444:5555:6666:7777%enp0s31f6", "port": 1},
    {"client": "unix", "uid": 0, "pid": 4194304},
    {"client": "unknown", "port": 0},
    {"client": "10.1.2.3", "port": 65535, "certificate": 'CN="a", {b}\\u0001 %s'},
]


class BytesSink(LineSink):
    """Keeps records as they are written."""

    def __init__(self) -> None:
        self.data = b""

    def put(self, line: bytes, action: str) -> None:
        self.data += line

    def put_commands(self, batch: Batch) -> None:
        assert batch.lines.count(b"\n") == batch.records
        self.data += batch.lines


def make_log(sink: LineSink, client: Mapping[str, Any], number: int = 0, now: float = NOW) -> EventLogger:
    log = make_logger(sink, render_json, lambda: now)
    return log.bind(system=f"CmdProtocol,{number},{client['client']}", connection=number, **client)


@given(
    *(PLAIN, st.sampled_from(CLIENTS), st.integers(0, 1 << 40), st.integers(1, 1 << 40)),
    *(st.integers(0, 10_000_000), st.integers(0, 1 << 40), st.floats(0, 4e9)),
)
@example('"' * MAX_SHOWN, CLIENTS[1], 1 << 60, 1 << 60, 1, 1 << 60, NOW)
@example("ping", CLIENTS[0], 0, 1, 999, 5, 1795184038.9999996)
@example("ping", CLIENTS[0], 0, 1, 1000, 5, 0.0)
def test_joined_records_are_those_of_the_ordinary_way(
    line: str, client: Mapping[str, Any], number: int, request: int, micros: int, size: int, now: float
) -> None:
    """Whoever reads the log cannot tell which commands were answered in haste."""
    command, _, arguments = line.partition(" ")
    ordinary, joined = BytesSink(), BytesSink()
    log = make_log(ordinary, client, number, now)
    asked: dict[str, Any] = {"request": request, "command": command, "arguments": arguments, "line": line}
    log.record(events.COMMAND_RECEIVED, **asked)
    log.record(events.COMMAND_COMPLETED, **asked, outcome="ok", seconds=round(micros / 1e6, 6), bytes=size)
    log = make_log(joined, client, number, now)
    template = log.template()
    assert template is not None
    at = stamp(int(template.now() * 1_000_000))
    pieces = make_pieces(line, command, arguments)
    log.put_commands(template.join(at, at, pieces, request, micros, size), 2)
    assert joined.data == ordinary.data


@given(st.integers(0, MAX_LINE_BYTES), st.sampled_from('x"'))
@example(MAX_LINE_BYTES - 1100, "x")
def test_a_record_that_might_have_to_be_cut_is_not_joined(size: int, char: str) -> None:
    """A certificate with a hundred names makes no line that a log reader cuts."""
    sink = BytesSink()
    log = make_log(sink, {"client": "::1", "port": 1, "certificate": char * size}, 1 << 60)
    template = log.template()
    if template is not None:
        pieces = make_pieces('"' * MAX_SHOWN, '"' * MAX_SHOWN, "")
        log.put_commands(template.join(stamp(0), stamp(0), pieces, 1 << 60, 1 << 60, 1 << 60), 2)
        assert max(map(len, sink.data.splitlines(keepends=True))) <= MAX_LINE_BYTES
    assert template is not None or size > 1000


def test_a_name_that_is_not_ascii_is_not_joined() -> None:
    """Such a record is spelled by another encoder, which writes numbers in another way."""
    log = make_log(BytesSink(), {"client": "::1", "port": 1, "certificate": "b\u00fccher.example"})
    assert log.template() is None


REASONS = ["exit", "closed", "idle", "stopping", "reset", "slow-reader", "crashed"]


def make_visit(client: Mapping[str, Any], reason: str, tls: dict[str, str] | None, now: float) -> bytes:
    """Let a visit begin and end; returns its records."""
    sink = BytesSink()
    log = make_log(sink, {**client, **(tls or {})}, 7, now)
    visit = Visit(Peer(client["client"], client.get("port", 0)), make_log(sink, client, 7, now))
    visit.reason, visit.tls, visit.began = (
        reason,
        tls,
        time.monotonic() - 1e9,
    )  # the fraction is not looked at
    visit.requests, visit.bytes_in, visit.bytes_out = 2, 10, 1 << 40
    visit.begin(log)
    visit.end()
    return re.sub(rb'"seconds":[^,]*', b'"seconds":0', sink.data)


@given(
    st.sampled_from(CLIENTS),
    st.sampled_from(REASONS),
    st.sampled_from([None, {"tls": "TLSv1.3"}, {"tls_error": "no certificate"}, {"certificate": '"a" %s'}]),
    st.floats(0, 4e9),
)
def test_the_records_of_a_visit_are_those_of_the_ordinary_way(
    client: Mapping[str, Any], reason: str, tls: dict[str, str] | None, now: float
) -> None:
    """Whoever reads the log cannot tell which connections were recorded in haste."""
    hasty = make_visit(client, reason, tls, now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventLogger, "connection_template", lambda self: None)
        assert make_visit(client, reason, tls, now) == hasty
    assert hasty.count(b"\n") == 2


@given(st.integers(0, 1 << 50), st.sampled_from(REASONS[:4]))
@example(1, "exit")
@example(10_000_000, "exit")
def test_the_duration_of_a_visit_is_spelled_as_in_the_ordinary_way(micros: int, reason: str) -> None:
    """A tool that adds up durations reads them all."""
    seconds = round(micros / 1e6, 6)
    template = make_log(BytesSink(), CLIENTS[0]).connection_template()
    assert template is not None
    ordinary = BytesSink()
    counts = {"seconds": seconds, "requests": 1, "bytes_in": 2, "bytes_out": 3}
    level, why = events.lost_event(reason)
    make_log(ordinary, CLIENTS[0]).record(events.CLIENT_LOST, level, why=why, reason=reason, **counts)
    assert template.lost(reason, seconds, 1, 2, 3) == ordinary.data


def test_an_end_that_is_not_a_quiet_one_is_recorded_in_the_ordinary_way() -> None:
    """Its level and its sentence are others."""
    template = make_log(BytesSink(), CLIENTS[0]).connection_template()
    assert template is not None
    assert [template.lost(reason, 0.0, 0, 0, 0) is None for reason in REASONS] == [False] * 4 + [True] * 3


@pytest.mark.parametrize("first", ["client", "certificate"])
def test_fields_that_do_not_stand_together_are_not_joined(first: str) -> None:
    """Whoever binds them in another order gets the same records, in a little more time."""
    log = make_logger(BytesSink(), render_json)
    names = {"client": "::1", "certificate": "a.lab"}
    own = log.bind(**{first: names.pop(first)}).bind(**names, connection=1)
    assert own.template() is None


def test_another_form_is_not_joined() -> None:
    """Twisted's text stays Twisted's text."""
    assert make_logger(BytesSink(), render_twisted).template() is None


def test_a_connection_has_one_template() -> None:
    """It is made at its first quick command, and never again."""
    log = make_log(BytesSink(), CLIENTS[0])
    assert log.template() is log.template()


def test_a_reload_with_another_form_ends_the_joining_and_one_back_begins_it_again() -> None:
    """Each record has the form that the settings name, on connections that were there before as well."""
    fd = os.open(os.devnull, os.O_WRONLY)
    log, sink = open_records(Logging(format="json"), fd)
    own = log.bind(**CLIENTS[0])
    assert own.template() is not None
    for other in (Logging(format="twisted"), Logging(schema="ecs")):
        sink.renew(other)
        assert own.template() is None
        sink.renew(Logging(format="json"))
        assert own.template() is not None
    assert sink.close(10) == 0
    os.close(fd)
