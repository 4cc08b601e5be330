"""A record becomes one line, whatever is in it."""

import json
import re
import string
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_cmd.escape import escape, escape_lines
from trio_cmd.records import LineSink, events, make_logger
from trio_cmd.records import render as render_module
from trio_cmd.records.events import EVENTS, Event
from trio_cmd.records.render import MAX_LINE_BYTES, render_json, render_twisted

NOW = 1795184038.123456
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
TWISTED_LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} \[[^\n]*\] [^\n]*\n")

HOSTILE = [
    '"quoted" \\ {"action":"forged"}',
    "a\r\n2026-11-20 15:13:58+0100 [-] forged",
    "\x1b[31mred\x07\x00\x7f\x9b",
    "\u2028\u2029\u0085\u202e",
    "\ud800\udcff",
    "x" * 8192,
    "\xff" * 8192,
    "\u20ac" * 8192,
    "\U0001f600" * 8192,
    '"' * 8192,
    "\\" * 8192,
    "\x01" * 8192,
]


DIGEST = "f" * 128  # the longest there is
CLIENT = "fe80:1111:2222:3333:4444:5555:6666:7777%enp0s31f6"
THEIRS = ("command", "arguments", "path", "log", "logger", "changed", "restart")


def render(event: Event, text: str, how: Callable[[Mapping[str, Any], float], bytes]) -> bytes:
    """Record an event whose every text that others supply is this one, as the server does: escaped."""
    lines: list[bytes] = []

    class OneSink(LineSink):
        def put(self, line: bytes, action: str) -> None:
            lines.append(line)

    shown = escape(text)
    values: dict[str, Any] = dict.fromkeys(event.fields, 1 << 60)
    values |= {name: shown for name in THEIRS if name in values}
    values |= {"digest": DIGEST} if "digest" in values else {}
    values |= {"exception": "\n".join(escape_lines(text))} if "exception" in values else {}
    in_sentences = {
        "line": shown,
        "why": shown,
        "notice": shown,
        "text": shown,
        "where": shown,
        "what": shown,
        "count": 1,
        "closed": shown,
        "max_clients": 1,
    }
    log = make_logger(OneSink(), how, lambda: NOW)
    log = log.bind(system=f"CmdProtocol,123456789,{CLIENT}", connection=123456789, client=CLIENT, port=53412)
    log.record(event, **{**in_sentences, **values})
    (line,) = lines
    return line


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    render_module._local_second.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    render_module._local_second.cache_clear()


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
@given(ANY_TEXT | st.integers(0, len(HOSTILE) - 1).map(HOSTILE.__getitem__))
def test_json_is_one_short_ascii_line_whatever_is_in_it(event: Event, text: str) -> None:
    """No shipper cuts a record or takes one for two; no parser chokes on one."""
    line = render(event, text, render_json)
    assert len(line) <= MAX_LINE_BYTES
    assert line.isascii()
    assert line.endswith(b"}\n")
    assert len(line.decode().splitlines()) == 1
    assert re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", line) is None
    record = json.loads(line)
    assert record["timestamp"] == "2026-11-20T14:13:58.123456Z"
    assert (record["action"], record["client"]) == (event.action, CLIENT)
    assert record["system"].endswith(CLIENT)
    assert record.get("digest", DIGEST) == DIGEST
    assert list(record)[:5] == ["timestamp", "level", "event", "action", "system"]


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
@given(ANY_TEXT | st.integers(0, len(HOSTILE) - 1).map(HOSTILE.__getitem__))
def test_twisteds_text_forges_nothing(event: Event, text: str) -> None:
    """Only the server begins a line of its log; a client's text cannot."""
    line = render(event, text, render_twisted)
    assert len(line) <= MAX_LINE_BYTES
    assert line.isascii()
    first, *others = line.decode().splitlines(keepends=True)
    assert TWISTED_LINE.fullmatch(first.encode())
    assert all(other.startswith("\t") and other.endswith("\n") for other in others)
    assert "exception" in event.fields or not others
    assert re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", line) is None


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_text_of_any_language_comes_out_of_the_json_as_it_went_in(text: str) -> None:
    """A file's name can be searched for in the record as it is spelled."""
    shown = escape(text)
    record = json.loads(render(events.COMMAND_RECEIVED, text, render_json))
    assert record["arguments"] == shown
    assert record["event"] == f"Cmd received from {CLIENT} : {shown}"
    assert "truncated" not in record


@pytest.mark.parametrize("size", [900, 3500, 8192, 1 << 20])
@pytest.mark.parametrize("char", ["x", "\xe9", "\U0001f600", '"'])
def test_long_texts_are_cut_and_said_to_be(size: int, char: str) -> None:
    """A reader knows that it does not see all, and sees as much as fits."""
    line = render_json({"event": "e", "action": "a", "arguments": char * size, "request": 7}, NOW)
    record = json.loads(line)
    assert record["request"] == 7
    assert set(record["arguments"]) == {char}
    if len(record["arguments"]) < size:
        assert record["truncated"] is True
        assert len(line) > MAX_LINE_BYTES // 2
    else:
        assert "truncated" not in record


def test_a_line_of_exactly_the_limit_is_not_cut() -> None:
    """The limit is that of the manual, with the line feed."""
    empty = len(render_json({"event": ""}, NOW))
    fits = render_json({"event": "x" * (MAX_LINE_BYTES - empty)}, NOW)
    over = render_json({"event": "x" * (MAX_LINE_BYTES - empty + 1)}, NOW)
    assert len(fits) == MAX_LINE_BYTES
    assert "truncated" not in json.loads(fits)
    assert json.loads(over)["truncated"] is True


def test_only_the_longest_texts_are_cut() -> None:
    """A long argument does not cost the name of the command."""
    record = json.loads(render_json({"event": "x" * 9000, "arguments": "y" * 9000, "command": "z" * 64}, NOW))
    assert record["command"] == "z" * 64
    assert record["event"][0] == "x"
    assert record["arguments"][0] == "y"


@pytest.mark.parametrize("how", [render_json, render_twisted])
def test_a_traceback_keeps_its_end(how: Callable[[Mapping[str, Any], float], bytes]) -> None:
    """What went wrong stands in a traceback's last lines."""
    exception = "Traceback\n" + "  deep\n" * 2000 + "ValueError: the cause"
    line = how({"event": "Unhandled Error", "system": "-", "exception": exception}, NOW)
    assert b"ValueError: the cause" in line
    assert b"Unhandled Error" in line
    assert len(line) <= MAX_LINE_BYTES


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (NOW, "2026-11-20T14:13:58.123456Z"),
        (1795184038, "2026-11-20T14:13:58.000000Z"),
        (1795184038.9999996, "2026-11-20T14:13:58.999999Z"),
        (0.0, "1970-01-01T00:00:00.000000Z"),
    ],
)
def test_times_are_utc_with_six_digits(seconds: float, shown: str) -> None:
    """Every log reader's time format parses them, and no record is from the next second."""
    assert json.loads(render_json({"event": "e"}, seconds))["timestamp"] == shown


def test_twisteds_text_has_the_tutorials_form(in_berlin: None) -> None:
    """The log reads as the old server's, in local time, summer and winter."""
    fields = {"event": "Cmd received from 127.0.0.1 : test", "system": "CmdProtocol,0,127.0.0.1"}
    assert render_twisted(fields, NOW) == (
        b"2026-11-20 15:13:58+0100 [CmdProtocol,0,127.0.0.1] Cmd received from 127.0.0.1 : test\n"
    )
    assert render_twisted(fields, NOW + 182 * 86400).startswith(b"2027-05-21 16:13:58+0200 ")


VALUES = st.one_of(
    st.none(), st.integers(0, 1 << 40), st.floats(0, 1e6), st.text(max_size=60), st.just("\u00e9" * 5000)
)
CONTEXTS: list[dict[str, Any]] = [
    {"system": "-"},
    {"system": "CmdProtocol,3,::1", "connection": 3, "client": "::1", "port": 5},
    {"system": "CmdProtocol,3,unix", "connection": 3, "client": "unix", "uid": 0, "pid": 7},
    {"system": "trio_cmd.Server", "client": "anybody"},
    {"port": 5, "client": "in another order"},
]


@given(
    st.sampled_from(sorted(events.EVENTS)),
    st.sampled_from(CONTEXTS),
    st.dictionaries(st.sampled_from(sorted({f for e in events.EVENTS.values() for f in e.fields})), VALUES),
)
@example("listening", CONTEXTS[0], {"host": "::1", "port": 9999})
def test_a_record_made_at_once_is_that_of_the_ordinary_way(
    action: str, context: dict[str, Any], values: dict[str, Any]
) -> None:
    """A connection's records are made without copies on the way, and nobody can tell."""
    event = events.EVENTS[action]
    words = {name: "x" for _, name, *_ in string.Formatter().parse(event.sentence) if name}
    lines: list[bytes] = []
    put = SimpleNamespace(put=lambda line, _: lines.append(line))
    for render in (render_json, partial(render_json)):
        log = make_logger(cast("Any", put), render, lambda: 1.5)
        log.bind(**context).record(event, "warning", **{"client": "y", **words, **values})
    assert lines[0] == lines[1]
