"""Many hosts asked by the program's other end; the servers are real ones, each a process."""

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from bad_hosts import (
    BadHost,
    Behaviour,
    answer_as_text,
    answer_nothing,
    answer_with,
    close_at_once,
    flood,
    greet_as_mail,
    half_close,
    refuse_aloud,
    speak_garbage,
    stay_silent,
    take_greeting,
    tell_progress,
)
from certificates import Certificates
from program import PATIENCE_SECONDS, Program, free_port
from trio_cmd.client import fleet
from trio_cmd.client.answers import Progress
from trio_cmd.client.ask import main
from trio_cmd.client.connection import connect
from trio_cmd.client.fleet import Outcome, Together, Watcher, ask_fleet
from trio_cmd.client.hosts import Host, parse_host
from trio_cmd.client.options import Options
from trio_cmd.tokens import make_token

FULL = os.environ.get("TRIO_CMD_FULL") == "1"

Ask = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    """A server that this host may ask everything."""
    with Program() as program:
        yield program


@pytest.fixture
def name(server: Program) -> str:
    """How that server is asked."""
    return f"127.0.0.1:{server.port}"


@pytest.fixture
def bad() -> Iterator[Callable[[Behaviour], str]]:
    """Let a bad host listen; gives its name."""
    with ExitStack() as stack:
        yield lambda behave: stack.enter_context(BadHost(behave)).name


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> Ask:
    """Run ``ask`` in this process; gives the exit code, and the lines of standard output and error."""

    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        code = main(arguments)
        out, err = capfd.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def test_each_bad_host_has_one_line_and_the_others_their_answers(
    ask: Ask, name: str, bad: Callable[[Behaviour], str]
) -> None:
    """Whatever listens somewhere in the fleet, the others are answered in full."""
    reasons = {
        f"127.0.0.1:{free_port()}": "nobody listens there (Connection refused) (unreachable)",
        "nosuch.invalid": "(unreachable)",
        "unix:/nonexistent/socket": "(unreachable)",
        bad(close_at_once): "(connection-lost)",
        bad(half_close): "(connection-lost)",
        bad(speak_garbage): "(other-protocol)",
        bad(greet_as_mail): "(other-protocol)",
        bad(answer_as_text): "(other-protocol)",
        bad(refuse_aloud): "Too many connections. bye ! (refused)",
        bad(flood): "(answer-too-long)",
    }
    others = [name.replace("127.0.0.1", "localhost"), name]
    code, out, err = ask("--timeout", "30", others[0], *reasons, others[1], "--", "ping")
    assert (code, err) == (1, [])
    lines = dict(line.split(": ", 1) for line in out)
    assert len(lines) == len(out) == len(reasons) + len(others)
    assert [lines.pop(other) for other in others] == ["pong", "pong"]
    for host, reason in reasons.items():
        assert lines[host].startswith("error: "), host
        assert lines[host].endswith(reason), host


def test_hosts_that_never_answer_are_given_up_side_by_side(ask: Ask, bad: Callable[[Behaviour], str]) -> None:
    """A host that hangs costs its time once, whether it says nothing or only that it goes on."""
    hosts = [bad(behave) for behave in (stay_silent, answer_nothing, tell_progress) for _ in range(10)]
    begun = time.monotonic()
    code, out, err = ask("--timeout", "1", *hosts, "--", "ping")
    assert time.monotonic() - begun < 20
    assert (code, err) == (3, [])
    assert sorted(line.split(": ")[0] for line in out) == sorted(hosts)
    assert all(line.endswith(" (no-answer)") for line in out)


def test_a_host_that_does_what_it_should_not_is_made_safe(ask: Ask, bad: Callable[[Behaviour], str]) -> None:
    """What a broken-in host sends must not act on the terminal of whoever asks many."""
    said = "\x1b]0;x\x07\x9b2J\u202eroot"
    host = bad(answer_with({"lines": [said], "exit_status": 0, "truncated": False}))
    shown = "\\x1b]0;x\\x07\\x9b2J\\u202eroot"
    assert ask(host, "--", "uptime")[:2] == (0, [f"{host}: {shown}"])
    assert ask(host, "--output", "groups", "--", "uptime")[1] == [f"1 host: {host}", f"  {shown}"]
    _, (line,), _ = ask(host, "--output", "json", "--", "uptime")
    assert line.isprintable()
    assert json.loads(line)["result"]["lines"] == [said]
    _, out, (line,) = ask(host, "--output", "checksums", "--", "comphash /x")
    assert (out, line.isprintable()) == ([], True)


def test_a_command_that_a_server_does_not_know_is_its_answer(ask: Ask, name: str) -> None:
    """An old server in the fleet is told from one that is down."""
    assert ask(name, "--", "nosuch") == (1, [f"{name}: error: Command not found. (unknown-command)"], [])


def test_a_wrong_token_is_said_of_each_host(ask: Ask, name: str, tmp_path: Path) -> None:
    """Whoever has an old token learns that, and not that all hosts are down."""
    path = tmp_path / "token"
    path.write_text(make_token())
    path.chmod(0o600)
    code, out, _ = ask("--token-file", str(path), name, "--", "ping")
    assert code == 3
    assert out == [f"{name}: error: wrong token; ask the operator of this host for one (bad-token)"]


def test_a_wrong_token_with_an_answer_beside_it_is_a_reason_like_others(
    ask: Ask, name: str, bad: Callable[[Behaviour], str], tmp_path: Path
) -> None:
    """What a host makes of the token is no answer to the command, whatever it sends along."""
    path = tmp_path / "token"
    path.write_text(make_token())
    path.chmod(0o600)

    def behave(client: socket.socket) -> None:
        next(take_greeting(client))
        error = {"code": "bad-token", "message": "no"}
        answer = {"id": 2, "command": "auth", "ok": False, "error": error, "result": {"lines": ["x"]}}
        client.sendall(json.dumps(answer).encode() + b"\n")
        stay_silent(client)

    host = bad(behave)
    for form in ("text", "groups", "json", "checksums"):
        code, out, err = ask("--token-file", str(path), "--output", form, host, "--", "comphash /x")
        assert code == 3
        assert "no (bad-token)" in "".join([*out, *err]) or form == "json"


def test_tls_on_one_side_only_is_a_reason(
    ask: Ask, name: str, certificates: Certificates, tmp_path: Path
) -> None:
    """A host that was forgotten when TLS came is named, and the others are asked."""
    path = tmp_path / "trio-cmd.toml"
    path.write_text(certificates.settings())
    path.chmod(0o600)
    with Program("--config", str(path)) as sealed:
        other = f"127.0.0.1:{sealed.port}"
        code, out, _ = ask("--ca", certificates.ca, name, other, "--", "ping")
        assert (code, len(out)) == (1, 2)
        assert f"{other}: pong" in out
        (reason,) = set(out) - {f"{other}: pong"}
        assert reason.startswith(f"{name}: error: ")
        assert reason.endswith(" (tls-failed)")
        code, out, _ = ask(name, other, "--", "ping")
        assert (code, len(out)) == (1, 2)
        assert f"{name}: pong" in out
        (reason,) = set(out) - {f"{name}: pong"}
        assert reason.startswith(f"{other}: error: ")


def test_a_host_named_twice_is_asked_once(ask: Ask, name: str) -> None:
    """A slip in a list of hosts doubles no answer."""
    code, out, (note,) = ask(name, name, "--", "ping")
    assert (code, out) == (0, [f"{name}: pong"])
    assert note.endswith(f"asked once: {name}")


def test_answers_of_a_host_come_in_the_order_asked(ask: Ask, name: str, tmp_path: Path) -> None:
    """What stands in the third line of a file of commands is answered third."""
    commands = tmp_path / "commands"
    words = [f"comphash /nonexistent/{number}" if number % 3 else "ping" for number in range(200)]
    commands.write_text("\n".join(words))
    code, out, _ = ask(name, "--commands", str(commands), "--output", "json")
    answers = [json.loads(line) for line in out]
    assert code == 1
    assert [answer["command"] for answer in answers] == words
    assert {answer["host"] for answer in answers} == {name}
    assert all(list(answer) == ["host", "command", "ok", "result", "seconds"] for answer in answers[::3])
    assert answers[0]["result"] == {"pong": True}
    assert all(answer["error"]["code"] == "not-found" for answer in answers[1::3])


def test_a_host_that_is_lost_on_the_way_keeps_its_answers_and_has_one_reason(
    ask: Ask, bad: Callable[[Behaviour], str], tmp_path: Path
) -> None:
    """What was answered before a host went down is worth having; ten times the same reason is not."""
    commands = tmp_path / "commands"
    commands.write_text("one\ntwo\n" * 20)
    host = bad(answer_with({"n": 1}, answers=2))
    code, out, _ = ask(host, "--commands", str(commands), "--output", "json")
    answers = [json.loads(line) for line in out]
    assert code == 1
    assert [answer["command"] for answer in answers] == ["one", "two", None]
    reason = answers[-1]["error"]
    assert reason["code"] == "connection-lost"
    code, out, _ = ask(host, "--commands", str(commands), "--output", "groups")
    assert code == 1
    block = ["", f"1 host: {host}", '  {"n":1}', ""]
    assert out == [
        *("== one ==", *block),
        *("== two ==", *block),
        *("== no answer ==", "", f"1 host: {host}", f"  error: {reason['message']} (connection-lost)"),
    ]


@pytest.mark.parametrize(("behave", "code"), [(flood, "answer-too-long"), (answer_nothing, "no-answer")])
def test_a_host_has_one_reason_however_many_commands_it_leaves_unanswered(
    ask: Ask, bad: Callable[[Behaviour], str], tmp_path: Path, behave: Behaviour, code: str
) -> None:
    """The first reason is the one that tells something, and it is waited for once."""
    commands = tmp_path / "commands"
    commands.write_text("ping\n" * 100)
    host = bad(behave)
    begun = time.monotonic()
    _, out, _ = ask("--timeout", "0.5", host, "--commands", str(commands))
    assert time.monotonic() - begun < 20
    (reason,) = out
    assert reason.startswith(f"{host}: error: ")
    assert reason.endswith(f" ({code})")


@pytest.mark.parametrize("fault", [RuntimeError("by the test"), ValueError("\x1b[2J")])
def test_a_fault_of_our_own_costs_one_host(
    ask: Ask, name: str, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """A mistake in this program that one host brings to light does not hide what the others say."""

    def fail_for_some(host: Host, **options: Any) -> Any:
        if host.address == "localhost":
            raise fault
        return connect(host, **options)

    monkeypatch.setattr(fleet, "connect", fail_for_some)
    other = name.replace("127.0.0.1", "localhost")
    code, out, err = ask(name, other, "--", "ping")
    assert (code, err) == (1, [])
    (reason,) = set(out) - {f"{name}: pong"}
    assert reason.startswith(
        f"{other}: error: a fault of trio-cmd itself, please report it: {type(fault).__name__}: "
    )
    assert reason.endswith(" (internal)")
    assert "\x1b" not in reason


def test_nobody_who_answers_has_an_exit_code(ask: Ask, bad: Callable[[Behaviour], str]) -> None:
    """A cut cable is told from a drifted host."""
    assert ask(bad(close_at_once), bad(greet_as_mail), "--", "ping")[0] == 3


def test_hosts_that_differ_have_an_exit_code_when_asked_for(
    ask: Ask, name: str, bad: Callable[[Behaviour], str]
) -> None:
    """Drift is found by a timer, without anybody who reads."""
    other = bad(answer_with({"version": "0"}))
    assert ask(name, other, "--expect-same", "--", "status")[0] == 4
    assert ask(name, other, "--", "status")[0] == 0


@pytest.mark.parametrize("tool", ["sha1sum", "sha256sum"])
def test_checksums_are_checked_by_the_tools(ask: Ask, name: str, tmp_path: Path, tool: str) -> None:
    """The digests of one host are a file with which another one is checked."""
    path = tmp_path / "a \\ b"
    path.write_bytes(b"something")
    algorithm = tool.removesuffix("sum")
    code, out, err = ask(name, "--output", "checksums", "--", f"comphash {algorithm} {path}")
    assert (code, err) == (0, [])
    done = subprocess.run([tool, "-c", "--strict"], input=f"{out[0]}\n", capture_output=True, text=True)
    assert done.returncode == 0, (out, done)
    code, out, err = ask(name, "--output", "checksums", "--", "comphash /nonexistent")
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"trio-cmd ask: {name}: error: [Errno 2]")


def test_a_manifest_is_asked_of_every_host(
    ask: Ask, name: str, bad: Callable[[Behaviour], str], tmp_path: Path
) -> None:
    """A list of what every file should be is all that is needed to find the ones that are not."""
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "drifted").write_bytes(b"bad")
    digest = hashlib.sha256(b"good").hexdigest()
    manifest = tmp_path / "manifest"
    manifest.write_text("".join(f"{digest}  {tmp_path}/{file}\n" for file in ("good", "drifted", "missing")))
    lost = bad(close_at_once)
    arguments = ("--manifest", str(manifest), name, lost)
    code, out, err = ask(*arguments)
    assert (code, err) == (1, [])
    assert f"{name}: {tmp_path}/drifted: FAILED" in out
    code, grouped, err = ask("--output", "groups", *arguments)
    assert (code, err) == (1, [])
    assert grouped[-1] == out[-1]
    assert f"  {tmp_path}/drifted: FAILED" in grouped
    code, objects, err = ask("--output", "json", *arguments)
    assert [json.loads(line).get("result", {}).get("matches") for line in objects if name in line] == [
        True,
        False,
        None,
    ]


class Diary(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def began(self, host: Host) -> None:
        self.told.append(("began", host.name))

    def progressed(self, host: Host, progress: Progress) -> None:
        self.told.append(("progressed", host.name, progress))

    def answered(self, outcome: Outcome) -> None:
        self.told.append(("answered", outcome.host.name, outcome.command, outcome.is_ok))

    def ended(self, host: Host) -> None:
        self.told.append(("ended", host.name))


async def test_all_watchers_are_told_of_everything(name: str) -> None:
    """What the table shows and what the answers say is the same."""
    one, other = Diary(), Diary()
    hosts = (parse_host(name), parse_host(f"127.0.0.1:{free_port()}"))
    watcher = Together(one, Watched(), other)
    await ask_fleet(Options(hosts, (b"ping", b"help"), at_once=1), watcher)
    watcher.progressed(hosts[0], Progress(1, 2))
    assert one.told == other.told
    assert one.told == [
        ("began", hosts[0].name),
        ("answered", hosts[0].name, b"ping", True),
        ("answered", hosts[0].name, b"help", True),
        ("ended", hosts[0].name),
        ("began", hosts[1].name),
        ("answered", hosts[1].name, b"", False),
        ("ended", hosts[1].name),
        ("progressed", hosts[0].name, Progress(1, 2)),
    ]


async def test_nobody_is_asked_while_there_is_no_room_for_answers(name: str) -> None:
    """A pager that is not scrolled does not fill the memory."""
    diary, room = Diary(), trio.Event()
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            options = Options((parse_host(name),), (b"ping",))
            nursery.start_soon(ask_fleet, options, diary, room.wait)
            await trio.testing.wait_all_tasks_blocked()
            assert diary.told == []
            room.set()
    assert len(diary.told) == 3


async def test_a_host_is_asked_no_further_while_there_is_no_room(name: str) -> None:
    """One host with many long answers does not fill it either; what is under way is taken."""
    diary, room, asked = Diary(), trio.Event(), 0

    async def wait_for_room() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await room.wait()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            options = Options((parse_host(name),), (b"ping",) * 100)
            nursery.start_soon(ask_fleet, options, diary, wait_for_room)
            while len(diary.told) < 33:  # it began, and 32 answers
                await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert len(diary.told) == 33
            room.set()
    assert len(diary.told) == 102


class Watched(Watcher):
    """Passes over everything."""
