import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcomes import answer, failure, silence
from trio_cmd.client.phrases import encode_json, format_outcome
from trio_cmd.escape import escape

DIGEST = {"path": "/x", "algorithm": "sha1", "digest": "ab", "bytes": 4}
PRINTED = {"lines": ["up", "", "up"], "exit_status": 0, "truncated": False}


@pytest.mark.parametrize(
    ("command", "result", "lines"),
    [
        ("ping", {"pong": True}, ["pong"]),
        ("comphash /x", DIGEST, ["File hash is : ab"]),
        ("verify sha1:ab /x", {**DIGEST, "matches": True}, ["File hash matches."]),
        ("verify sha1:ab /x", {**DIGEST, "matches": False}, ["File hash differs : ab"]),
        ("lastlog", {"log": "syslog", "lines": ["one", "two"], "truncated": False}, ["one", "two"]),
        (
            "lastlog",
            {"log": "syslog", "lines": ["two"], "truncated": True},
            ["older lines skipped", "two"],
        ),
        ("lastlog", {"log": "syslog", "lines": [], "truncated": False}, ["(no lines)"]),
        ("uptime", PRINTED, ["up", "", "up"]),
        (
            "status",
            {"version": "1", "clients": 2, "last": None, "tls": True, "hung": False},
            ["version: 1", "clients: 2", "last: none", "tls: yes", "hung: no"],
        ),
        (
            "help",
            {
                "commands": [
                    {"name": "ping", "usage": "ping", "summary": "pong"},
                    {"name": "follow", "usage": "follow [LOG]", "summary": "lines"},
                ]
            },
            ["ping          pong", "follow [LOG]  lines"],
        ),
        (
            "help ping",
            {"commands": [{"name": "p", "usage": "p", "summary": "s"}], "details": ["more"]},
            ["p  s", "more"],
        ),
    ],
)
def test_results_have_the_phrases_of_the_wire(command: str, result: dict[str, Any], lines: list[str]) -> None:
    """Whoever knows the answers from netcat reads the same ones here."""
    assert list(format_outcome(answer("a", command, result))) == lines


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("ping", {"pong": "no"}),
        ("comphash /x", {"digest": 7}),
        ("verify sha1:ab /x", DIGEST),
        ("lastlog", {"lines": "none"}),
        ("help", {"commands": [{"usage": "ping"}]}),
        ("status", {"clients": {"here": 1}}),
        ("uptime", {"lines": [1], "exit_status": 0, "truncated": False}),
        ("disk", {**PRINTED, "free": 7}),
        ("disk", {}),
    ],
)
def test_a_result_of_another_shape_is_shown_as_json(command: str, result: dict[str, Any]) -> None:
    """A newer server, or one that lies, is shown as it is instead of with half of what it said."""
    (line,) = format_outcome(answer("a", command, result))
    assert json.loads(line) == result


def test_what_a_host_says_cannot_steer_the_terminal() -> None:
    """A line of somebody's log must not move the cursor of whoever looks at it."""
    said = "\x1b[2J\n\x9b\u202eroot\x7f"
    shown = "\\x1b[2J\\x0a\\x9b\\u202eroot\\x7f"
    result = {"lines": [said], "exit_status": 0, "truncated": False}
    assert list(format_outcome(answer("a", "uptime", result))) == [shown]
    assert list(format_outcome(answer("a", "comphash /x", {"digest": said}))) == [f"File hash is : {shown}"]
    assert list(format_outcome(answer("a", "status", {said: said}))) == [f"{shown}: {shown}"]
    (line,) = format_outcome(answer("a", "new", {said: said}))
    assert line.isprintable()
    assert json.loads(line) == {said: said}
    assert list(format_outcome(failure("a", "new", said, said))) == [f"error: {shown} ({shown})"]


def test_an_error_stands_behind_what_was_printed_before_it() -> None:
    """The output of a program that failed says more than its exit status."""
    outcome = failure("a", "unit ssh", "program-failed", "unit exited with status 3", PRINTED)
    assert list(format_outcome(outcome)) == [
        *("up", "", "up"),
        "error: unit exited with status 3 (program-failed)",
    ]


def test_a_host_without_answer_has_its_reason() -> None:
    """Nobody need guess why a host is missing."""
    assert list(format_outcome(silence("a"))) == ["error: connection refused (unreachable)"]


@settings(max_examples=40)
@given(st.text())
def test_json_is_safe_and_loses_nothing(text: str) -> None:
    """What is piped into a program is what the host sent, and what is looked at does no harm."""
    text = text.replace("tcmd_", "").encode("utf-8", "ignore").decode()
    line = encode_json({"text": text})
    assert escape(line) == line
    assert "\t" not in line
    assert json.loads(line) == {"text": text}


def test_json_hides_tokens() -> None:
    """A token that stands in a log is not copied into a file of answers."""
    assert encode_json(["tcmd_" + "a" * 43]) == '["tcmd_***"]'
