"""The table of all that is recorded."""

import json
import string
from typing import Any

import pytest

from trio_cmd.escape import escape
from trio_cmd.records import EventLogger, LineSink, events, make_logger
from trio_cmd.records.events import COMMAND_ACTIONS, EVENTS, Event, lost_event, record_fault
from trio_cmd.records.render import render_json, render_twisted


class ListSink(LineSink):
    """Keeps lines in a list instead of writing them."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.actions: list[str] = []

    def put(self, line: bytes, action: str) -> None:
        self.lines.append(line)
        self.actions.append(action)

    def last(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.lines[-1])
        return record


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def log(sink: ListSink) -> EventLogger:
    """A logger of JSON at a time that does not move."""
    return make_logger(sink, render_json, lambda: 1795184038.123456)


def test_a_record_has_the_form_of_the_manual(log: EventLogger, sink: ListSink) -> None:
    """A shipper set up from the manual parses every record."""
    client = log.bind(system="CmdProtocol,0,127.0.0.1", connection=0, client="127.0.0.1", port=53412)
    client.record(events.COMMAND_RECEIVED, request=1, command="test", arguments="", line="test")
    (line,) = sink.lines
    assert line == (
        b'{"timestamp":"2026-11-20T14:13:58.123456Z","level":"info",'
        b'"event":"Cmd received from 127.0.0.1 : test","action":"command-received",'
        b'"system":"CmdProtocol,0,127.0.0.1","connection":0,"client":"127.0.0.1","port":53412,'
        b'"request":1,"command":"test","arguments":""}\n'
    )
    assert sink.actions == ["command-received"]


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_each_row_can_be_recorded_with_its_fields(event: Event, log: EventLogger, sink: ListSink) -> None:
    """No event fails at the moment it happens for a field its sentence wants."""
    wanted = {name for _, name, _, _ in string.Formatter().parse(event.sentence) if name}
    values: dict[str, Any] = dict.fromkeys([*event.fields, *wanted], 7)
    log.bind(client="127.0.0.1", port=5).record(event, **values)
    record = sink.last()
    assert record["action"] == event.action
    assert record["level"] == event.level
    assert record["system"] == "-"
    assert {*event.fields} <= {*record}
    assert {*record} <= {*event.fields, "timestamp", "level", "event", "action", "system", "client", "port"}
    assert "{" not in record["event"]


@pytest.mark.parametrize(
    ("event", "values", "sentence"),
    [
        (events.LOG_OPENED, {}, "Log opened."),
        (events.LISTENING, {"where": 9999}, "trio_cmd.Server starting on 9999"),
        (events.SERVER_STARTED, {"max_clients": 3}, "Starting server <trio_cmd.Server max_clients=3>"),
        (events.CLIENT_CONNECTED, {"client": "::1"}, "Client connection from ::1"),
        (events.CLIENT_REFUSED, {"notice": "Too many connections. bye !"}, "Too many connections. bye !"),
        (events.COMMAND_RECEIVED, {"client": "::1", "line": "a {b}"}, "Cmd received from ::1 : a {b}"),
        (events.COMMAND_COMPLETED, {"client": "::1", "line": "a"}, "Cmd completed for ::1 : a"),
        (events.CLIENT_LOST, {"why": "Because."}, "Lost client connection. Reason: Because."),
        (events.HANDLER_CRASHED, {}, "Unhandled Error"),
        (events.EVENTS_LOST, {"lost": 3}, "3 log events lost"),
        (events.STOPPING, {"closed": "(TCP Port 9999 Closed)"}, "(TCP Port 9999 Closed)"),
        (events.STOPPED, {}, "Main loop terminated."),
    ],
)
def test_sentences_are_twisteds(
    event: Event, values: dict[str, Any], sentence: str, log: EventLogger, sink: ListSink
) -> None:
    """Who searched the old server's log finds the same sentences."""
    log.record(event, **values)
    assert sink.last()["event"] == sentence


def test_only_the_fields_of_the_row_are_recorded(log: EventLogger, sink: ListSink) -> None:
    """What serves only the sentence is not a field that readers come to rely on."""
    log.record(events.LISTENING, port=9999, where=9999, host="::1", color="red")
    assert "color" not in sink.last()


def test_an_occurrence_may_matter_more_than_its_row(log: EventLogger, sink: ListSink) -> None:
    """An alert on warnings sees a client's mistake, also where the row says info."""
    log.record(events.MESSAGE, "warning", text="x")
    assert sink.last()["level"] == "warning"


def test_clients_can_cause_only_two_events_at_will() -> None:
    """A client that asks without end can fill only the room of commands."""
    assert frozenset({"command-received", "command-completed"}) == COMMAND_ACTIONS
    assert {*EVENTS} >= COMMAND_ACTIONS


@pytest.mark.parametrize(
    ("reason", "level"),
    [
        ("exit", "info"),
        ("closed", "info"),
        ("idle", "info"),
        ("stopping", "info"),
        ("reset", "warning"),
        ("slow-reader", "warning"),
        ("too-many-clients", "warning"),
        ("wrong-protocol", "warning"),
        ("crashed", "error"),
    ],
)
def test_the_end_of_a_connection_matters_as_much_as_its_reason(reason: str, level: str) -> None:
    """An alert on errors fires for our faults, not for clients that leave."""
    assert lost_event(reason)[0] == level


def test_only_a_reset_was_not_clean() -> None:
    """The sentence for a lost connection is the old server's."""
    unclean = "Connection to the other side was lost in a non-clean fashion: Connection lost."
    assert lost_event("reset")[1] == unclean
    assert {lost_event(reason)[1] for reason in ("exit", "closed", "idle", "crashed")} == {
        "Connection was closed cleanly."
    }


def test_a_fault_is_recorded_with_its_traceback_and_forges_nothing(sink: ListSink) -> None:
    """Whoever repairs it sees where it was, and no client text in it becomes a record of its own."""
    log = make_logger(sink, render_twisted)
    with pytest.raises(ZeroDivisionError) as caught:
        str(1 // 0)
    caught.value.add_note("2026-11-20 15:13:58+0100 [-] forged\r\x1b[31m\u2028\udcff")
    record_fault(log, caught.value)
    first, *others = sink.lines[0].decode("ascii").splitlines()
    assert first.endswith("[-] Unhandled Error")
    assert any("test_events.py" in line for line in others)
    assert all(line.startswith("\t") for line in others)
    assert others[-1] == "\t" + escape("2026-11-20 15:13:58+0100 [-] forged\r\x1b[31m\u2028\udcff")


def test_nothing_a_client_sends_is_taken_for_a_template(log: EventLogger, sink: ListSink) -> None:
    """Braces and percent signs in a line are text."""
    line = "{client} {0} %s {line}"
    log.bind(client="::1").record(events.COMMAND_RECEIVED, request=1, command=line, arguments="", line=line)
    assert sink.last()["event"] == f"Cmd received from ::1 : {line}"
