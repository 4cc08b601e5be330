"""The forms of the answers, each as bytes."""

import json
from collections.abc import Callable
from functools import partial

from outcomes import answer, digest, failure, silence
from trio_cmd.client.fleet import Outcome
from trio_cmd.client.hosts import parse_host
from trio_cmd.client.output import Checksums, Groups, JsonLines, Output, TextLines, Write

HOSTS = [*map(parse_host, ["a", "b", "web1", "web2", "web3", "web4", "db1", "db2"])]


def written(make: Callable[[Write], Output], *outcomes: Outcome) -> str:
    """Show the outcomes to an output, and give what it has written."""
    out: list[bytes] = []
    output = make(out.append)
    for outcome in outcomes:
        output.answered(outcome)
    output.finish()
    return b"".join(out).decode()


def test_text_has_the_host_before_each_line() -> None:
    """Lines of many hosts in one file are told apart by grep."""
    result = {"lines": ["one", "", "two"], "exit_status": 0, "truncated": False}
    shown = written(TextLines, answer("a", "x", result), silence("b"), failure("c", "x"))
    assert shown.splitlines() == [
        *("a: one", "a: ", "a: two"),
        "b: error: connection refused (unreachable)",
        "c: error: no such file (not-found)",
    ]


def test_json_has_the_form_of_the_wire() -> None:
    """A script reads the same keys from one host and from a thousand."""
    shown = written(
        JsonLines,
        answer("a", "comphash /caf\udce9", {"n": 1}, seconds=0.5),
        failure("b", "x", result={"lines": []}),
        failure("b", "x"),
        silence("c"),
    )
    error = {"code": "not-found", "message": "no such file"}
    assert [json.loads(line) for line in shown.splitlines()] == [
        {"host": "a", "command": "comphash /caf\\xe9", "ok": True, "result": {"n": 1}, "seconds": 0.5},
        {"host": "b", "command": "x", "ok": False, "result": {"lines": []}, "error": error, "seconds": 0.002},
        {"host": "b", "command": "x", "ok": False, "error": error, "seconds": 0.002},
        {
            "host": "c",
            "command": None,
            "ok": False,
            "error": {"code": "unreachable", "message": "connection refused"},
        },
    ]


def test_groups_of_one_command_stand_by_their_size() -> None:
    """The host that differs and the one that is down stand below those that are well."""
    outcomes = [digest("web3", "bb" * 20), silence("db1"), silence("db2"), digest("web1"), digest("web2")]
    outcomes.append(digest("web4"))
    assert written(partial(Groups, commands=[b"comphash /etc/hostname"], hosts=HOSTS), *outcomes) == (
        f"3 hosts: web[1-2], web4\n  File hash is : {'aa' * 20}\n"
        "\n2 hosts: db[1-2]\n  error: connection refused (unreachable)\n"
        f"\n1 host: web3\n  File hash is : {'bb' * 20}\n"
    ).replace("web[1-2], web4", "web[1-2,4]")


def test_groups_of_several_commands_have_headings() -> None:
    """Each answer stands below its question, and who has none below all of them."""
    commands = [b"one", b"two\xff"]
    outcomes = [
        answer("a", "one", {"n": 1}),
        answer("b", "one", {"n": 2}),
        answer("a", "two\udcff", {"n": 3}),
        silence("b"),
    ]
    assert written(partial(Groups, commands=commands, hosts=HOSTS), *outcomes).split("\n\n") == [
        "== one ==",
        '1 host: a\n  {"n":1}',
        '1 host: b\n  {"n":2}',
        "== two\\xff ==",
        '1 host: a\n  {"n":3}',
        "== no answer ==",
        "1 host: b\n  error: connection refused (unreachable)\n",
    ]


def test_no_groups_are_nothing() -> None:
    """Ctrl-C before the first answer leaves standard output empty."""
    assert written(partial(Groups, commands=[b"ping"], hosts=HOSTS)) == ""


def test_what_is_no_checksum_is_a_complaint() -> None:
    """A file of checksums has nothing in it that the tools cannot read."""
    complaints: list[str] = []
    outcomes = [
        digest("a"),
        answer("a", "ping", {"pong": True}),
        failure("a", "comphash /x"),
        silence("a"),
    ]
    assert (
        written(partial(Checksums, complain=complaints.append), *outcomes) == f"{'aa' * 20}  /etc/hostname\n"
    )
    assert complaints == [
        "a: no checksum in the answer to ping",
        "a: error: no such file (not-found)",
        "a: error: connection refused (unreachable)",
    ]
