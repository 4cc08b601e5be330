"""Records as lines of the Elastic Common Schema."""

import csv
import ipaddress
import json
import re
import string
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_render import ANY_TEXT, HOSTILE, NOW, render

from conftest import StartLogged
from trio_cmd.records import EventLogger, LineSink, events, make_logger
from trio_cmd.records.ecs import ECS_VERSION, EcsRender
from trio_cmd.records.events import EVENTS, Event
from trio_cmd.records.render import MAX_LINE_BYTES

DATA = Path(__file__).parent / "data"
SEED = (7 << 64) + 5

Line = dict[str, Any]


def read_table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


FIELDS = {row["field"]: row for row in read_table("ecs-fields.csv")}
EXPECTED_TYPES = {
    row["category"]: set(row["expected_event_types"].split()) for row in read_table("ecs-categories.csv")
}


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name all values by dotted names; what is ours is one value."""
    for name, value in table.items():
        if isinstance(value, dict) and name != "trio_cmd":
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def check(line: Mapping[str, Any]) -> None:
    """See that every field is in the list, of its type, and every value allowed."""
    for name, value in flatten(line):
        if name == "trio_cmd":
            continue
        assert name in FIELDS, f"{name} is no field of ECS {ECS_VERSION}"
        field = FIELDS[name]
        assert isinstance(value, list) == (field["is_array"] == "yes"), name
        for each in value if isinstance(value, list) else [value]:
            check_type(field["type"], each, name)
            assert not field["allowed_values"] or each in field["allowed_values"].split(), (name, each)
    (category,) = line["event"]["category"]
    assert set(line["event"]["type"]) <= EXPECTED_TYPES[category]


def check_type(kind: str, value: Any, name: str) -> None:
    if kind == "long":
        assert type(value) is int, name
        assert abs(value) < 1 << 63, name
    elif kind == "date":
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value), name
    elif kind == "ip":
        ipaddress.ip_address(value)
    else:
        assert kind in ("keyword", "wildcard", "match_only_text"), name
        assert isinstance(value, str), name


class OneSink(LineSink):
    """Keeps the last line."""

    line = b""

    def put(self, line: bytes, action: str) -> None:
        self.line = line

    def last(self) -> Line:
        line: Line = json.loads(self.line)
        check(line)
        return line


@pytest.fixture
def sink() -> OneSink:
    return OneSink()


@pytest.fixture
def log(sink: OneSink) -> EventLogger:
    return make_logger(sink, EcsRender(SEED), lambda: NOW)


# As the server fills them: text where it is not a number.
VALUES: dict[str, Any] = {
    "version": "0.1",
    "pid": 7,
    "host": "127.0.0.1",
    "limits": {"line_bytes": 512},
    "grants": ["a", "b"],
    "reason": "idle",
    "command": "ping",
    "arguments": "now",
    "outcome": "not-found",
    "seconds": 0.25,
    "path": "/etc/hostname",
    "algorithm": "sha1",
    "digest": "f" * 40,
    "matches": True,
    "shared": False,
    "log": "syslog",
    "logger": "trio",
    "exception": "ValueError",
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
@pytest.mark.parametrize("is_client", [True, False])
def test_every_event_has_only_fields_and_values_of_the_schema(
    event: Event, is_client: bool, log: EventLogger, sink: OneSink
) -> None:
    """An index with the mappings of ECS takes every record, and its dashboards understand it."""
    wanted = {name for _, name, _, _ in string.Formatter().parse(event.sentence) if name}
    values = {name: VALUES.get(name, 7) for name in (*event.fields, *wanted)}
    client = {"client": "127.0.0.1", "port": 5, "connection": 3} if is_client else {}
    log.bind(**client).record(event, **{**values, **client})
    line = sink.last()
    assert line["event"]["action"] == event.action
    assert line["log.level"] == event.level
    assert list(line)[:4] == ["@timestamp", "log.level", "message", "ecs.version"]
    # Nothing of the record is lost on the way.
    shown = sink.line.decode()
    assert all(str(VALUES[name]) in shown for name in event.fields if isinstance(VALUES.get(name), str))


def test_the_version_is_that_of_the_list() -> None:
    """Whoever raises the version has to check the names again."""
    assert {row["ecs_version"] for row in FIELDS.values()} == {ECS_VERSION}


def test_a_command_has_the_fields_of_the_manual(log: EventLogger, sink: OneSink) -> None:
    """What is set up from the manual finds what it looks for."""
    client = log.bind(system="CmdProtocol,3,10.0.0.1", connection=3, client="10.0.0.1", port=53412)
    client.record(
        events.COMMAND_COMPLETED,
        request=2,
        command="comphash",
        arguments="/etc/hostname",
        line="comphash /etc/hostname",
        outcome="ok",
        seconds=0.000433,
        bytes=57,
        path="/etc/hostname",
        algorithm="sha1",
        digest="a" * 40,
        size=4,
    )
    assert sink.last() == {
        "@timestamp": "2026-11-20T14:13:58.123456Z",
        "log.level": "info",
        "message": "Cmd completed for 10.0.0.1 : comphash /etc/hostname",
        "ecs.version": ECS_VERSION,
        "event": {
            "kind": "event",
            "category": ["api"],
            "type": ["end"],
            "action": "command-completed",
            "dataset": "trio_cmd.log",
            "outcome": "success",
            "duration": 433_000,
        },
        "client": {"address": "10.0.0.1", "port": 53412, "ip": "10.0.0.1"},
        "server": {"bytes": 57},
        "process": {"command_line": "comphash /etc/hostname"},
        "file": {"path": "/etc/hostname", "size": 4, "hash": {"sha1": "a" * 40}},
        "trace": {"id": f"{SEED + 3:032x}"},
        "span": {"id": f"{7 + (3 << 32) + 2:016x}"},
        "trio_cmd": {
            "system": "CmdProtocol,3,10.0.0.1",
            "connection": 3,
            "request": 2,
            "command": "comphash",
            "algorithm": "sha1",
        },
    }


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [("ok", ("success", None)), ("gone", ("unknown", "gone")), ("not-found", ("failure", "not-found"))],
)
def test_an_outcome_is_one_of_three_and_its_code_the_reason(
    outcome: str, shown: tuple[str, str | None], log: EventLogger, sink: OneSink
) -> None:
    """A dashboard counts failures without knowing our codes, and whoever knows them finds them."""
    log.record(events.COMMAND_COMPLETED, client="::1", line="x", command=None, arguments="", outcome=outcome)
    event = sink.last()["event"]
    assert (event["outcome"], event.get("reason")) == shown


@pytest.mark.parametrize(
    ("algorithm", "is_known"), [("sha512", True), ("sha3_256", False), ("blake2b", False)]
)
def test_a_digest_is_in_the_field_of_its_algorithm(
    algorithm: str, is_known: bool, log: EventLogger, sink: OneSink
) -> None:
    """A search for a hash of malware never meets one of another kind."""
    log.record(events.COMMAND_COMPLETED, client="::1", line="x", algorithm=algorithm, digest="f" * 64)
    line = sink.last()
    if is_known:
        assert line["file"] == {"hash": {algorithm: "f" * 64}}
    else:
        assert "file" not in line
        assert line["trio_cmd"] == {"system": "-", "algorithm": algorithm, "digest": "f" * 64}


@pytest.mark.parametrize(
    ("client", "is_ip"), [("unix", False), ("fe80::1%eth0", False), ("2001:db8::1", True)]
)
def test_only_what_is_an_address_is_in_the_field_of_addresses(
    client: str, is_ip: bool, log: EventLogger, sink: OneSink
) -> None:
    """Elasticsearch refuses a whole record for one field of the wrong type."""
    log.bind(client=client, uid=1000, pid=77).record(events.CLIENT_CONNECTED)
    line = sink.last()
    assert line["client"].get("ip") == (client if is_ip else None)
    assert line["client"]["address"] == client
    assert line["client"]["user"] == {"id": "1000"}
    assert line["trio_cmd"]["client_pid"] == 77
    assert "process" not in line


def test_traces_and_spans_are_told_apart() -> None:
    """Whoever follows one connection or one command meets no other, of this start or of another."""
    renders = [EcsRender(), EcsRender(), EcsRender((1 << 128) - 1)]
    fields = {"level": "info", "event": "e", "action": "command-received"}
    traces, spans = set(), set()
    for how in renders:
        for connection in range(20):
            for request in range(1, 21):
                line = json.loads(how({**fields, "connection": connection, "request": request}, NOW))
                traces.add(line["trace"]["id"])
                spans.add(line["span"]["id"])
    assert (len(traces), len(spans)) == (3 * 20, 3 * 400)
    assert {len(trace) for trace in traces} == {32}
    assert {len(span) for span in spans} == {16}
    assert all(re.fullmatch("[0-9a-f]+", found) for found in traces | spans)


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
@settings(max_examples=40)  # the cutting is that of the plain lines, which are tried more often
@given(ANY_TEXT | st.integers(0, len(HOSTILE) - 1).map(HOSTILE.__getitem__))
def test_a_line_is_one_short_ascii_line_whatever_is_in_it(event: Event, text: str) -> None:
    """No shipper cuts a record or takes one for two; what was cut says so."""
    line = render(event, text, EcsRender(SEED))
    assert len(line) <= MAX_LINE_BYTES
    assert line.isascii()
    assert re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", line) is None
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    record = json.loads(line)
    assert (record["event"]["action"], record["log.level"]) == (event.action, event.level)
    if len(text) > 8000 and "arguments" in event.fields:
        assert record["trio_cmd"]["truncated"] is True


@pytest.mark.needs("jq")
def test_jq_finds_the_client_where_the_schema_says(start_logged: StartLogged, tmp_path: Path) -> None:
    """What is written about ECS elsewhere works here."""
    path = tmp_path / "log"
    config = tmp_path / "trio-cmd.toml"
    config.write_text('[logging]\nschema = "ecs"\n')
    config.chmod(0o600)
    program = start_logged(path, "--config", str(config))
    assert program.ask(b"ping\nverify nope\n").startswith(b"pong\n")
    assert program.stop() == 0
    query = 'select(.event.action == "command-completed") | [.client.address, .event.outcome] | join(" ")'
    found = subprocess.run(["jq", "-r", query, str(path)], capture_output=True, text=True, timeout=30)
    assert found.stderr == ""
    assert found.stdout.splitlines() == ["127.0.0.1 success", "127.0.0.1 failure"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        check(line)
    received = [line for line in lines if line["event"]["action"] == "command-received"]
    completed = [line for line in lines if line["event"]["action"] == "command-completed"]
    assert [line["span"] for line in received] == [line["span"] for line in completed]
    assert len({line["trace"]["id"] for line in lines if "trace" in line}) == 1
