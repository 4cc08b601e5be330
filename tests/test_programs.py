"""Programs of the settings, offered by the program as a process, each with the promised outcome."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, reset, wait_until

Offer = Callable[..., Program]

LIMITS = (
    "[limits]\nrequest_seconds = 1\nstop_seconds = 0.2\nrunning_programs = 8\n"  # the clock ticks at 0.05 s
)
# Each leaves something behind, writes its number and its own to a file, and goes on as it is told.
LEFTOVERS = {
    "child": "sleep 1000 & {end}",
    "deaf": "trap '' TERM; sleep 1000 & {end}",
    "session": "setsid sleep 1000 & {end}",
}


def table_of(name: str, given: Any) -> str:
    """Write the table of a program: a script for the shell, its argv, or all its keys."""
    if isinstance(given, str):
        given = ["/bin/sh", "-c", given]
    keys: dict[str, Any] = {"argv": given} if isinstance(given, list) else dict(given)
    arguments = keys.pop("arguments", {})
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in keys.items()]
    more = [f"{key} = {json.dumps(value)}\n" for key, value in arguments.items()]
    return "".join([f"[programs.{name}]\n", *lines, f"[programs.{name}.arguments]\n", *more])


@pytest.fixture
def offer(start: StartProgram, write_settings: Callable[[str], str]) -> Offer:
    """Start the server with programs by their names; see ``table_of``."""

    def start_with(limits: str = LIMITS, **programs: Any) -> Program:
        return start("--config", write_settings(limits + "".join(starmap(table_of, programs.items()))))

    return start_with


def answers(program: Program, *lines: str) -> list[dict[str, Any]]:
    """Ask as JSON; returns the answers behind that to ``format json``."""
    asked = "\n".join(["format json", *lines, ""])
    return [json.loads(line) for line in program.ask(asked.encode()).splitlines()][1:]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# What a program gets


def test_env_shows_path_and_locale_only(start: StartProgram, write_settings: Callable[[str], str]) -> None:
    """No token and no setting of the server's own environment is given out."""
    path = write_settings('[programs.env]\nargv = ["/usr/bin/env"]')
    program = start("--config", path, env={"SECRET_TOKEN": "x", "TRIO_CMD_MAX_CLIENTS": "9"})
    (answer,) = answers(program, "env")
    assert sorted(answer["result"]["lines"]) == ["LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    assert (answer["ok"], answer["result"]["exit_status"], answer["result"]["truncated"]) == (True, 0, False)


def test_cat_reads_the_end_of_its_input(offer: Offer) -> None:
    """A program that wants input gets none, and never the client's."""
    assert offer(cat=["/bin/cat"]).ask(b"cat\nping\n") == b"Begin cat\nEnd cat\npong\n"


def test_program_has_three_descriptors_and_the_root_folder(offer: Offer) -> None:
    """No client's socket, log or listener is open in it."""
    program = offer(fds=["/bin/ls", "/proc/self/fd"], where=["/bin/pwd"])
    assert (
        program.ask(b"fds\n") == b"Begin fds\n0\n1\n2\n3\nEnd fds\n"
    )  # the last is the folder that ls reads
    assert program.ask(b"where\n") == b"Begin where\n/\nEnd where\n"


def test_argument_is_one_element_and_no_shell_sees_it(offer: Offer) -> None:
    """Whatever a client types, it is text to the program that the operator chose."""
    program = offer(
        show={
            "argv": ["/usr/bin/printf", "<%s>\\n", "{first}", "a{rest}{{rest}}"],
            "arguments": {"first": ["one", "two"], "rest": "[ -~]{1,128}"},
        }
    )
    answer = program.ask(b"show two $(id) ; `id` | * %s {first} \\n\nshow one\nshow one x\nshow three x\n")
    assert answer.decode() == (
        "Begin show\n<two>\n<a$(id) ; `id` | * %s {first} \\n{rest}>\nEnd show\n"
        "An error occured : usage: show FIRST REST\n"
        "Begin show\n<one>\n<ax{rest}>\nEnd show\n"
        "An error occured : expected FIRST as one of one, two: show FIRST REST\n"
    )


def test_help_lists_the_programs_behind_the_commands(offer: Offer) -> None:
    """A client finds what the operator offers, and how to ask for it."""
    program = offer(
        uptime={"argv": ["/bin/true"], "summary": "how long this host has been up\n"},
        unit={"argv": ["/bin/true", "{name}"], "arguments": {"name": "[a-z]+"}},
    )
    lines = program.ask(b"help\nhelp unit\n").decode().splitlines()
    assert [re.split(" {2,}", line) for line in lines[lines.index("End help") - 2 :]] == [
        ["uptime", "how long this host has been up\\x0a"],
        ["unit NAME", "run a program of this host"],
        ["End help"],
        ["Begin help"],
        ["unit NAME", "run a program of this host"],
        ["End help"],
    ]


# How a program ends


def test_exit_status_is_told_behind_the_output(offer: Offer) -> None:
    """What a failed program printed, also on standard error, says why it failed."""
    program = offer(
        uptime="echo out; echo err >&2; printf half; exit 3", silent="exit 4", killed="kill -9 $$"
    )
    failed = "An error occured : uptime exited with status 3\n"
    assert program.ask(b"uptime\n").decode() == f"Begin uptime\nout\nerr\nhalf\n{failed}End uptime\n"
    assert program.ask(b"silent\n") == b"An error occured : silent exited with status 4\n"
    uptime, silent, killed = answers(program, "uptime", "silent", "killed")
    assert uptime["result"] == {"lines": ["out", "err", "half"], "exit_status": 3, "truncated": False}
    assert uptime["error"] == {"code": "program-failed", "message": "uptime exited with status 3"}
    assert silent["result"] == {"lines": [], "exit_status": 4, "truncated": False}
    assert killed["error"]["message"] == "killed was ended by signal 9"
    record = program.wait_for("command-completed", command="uptime")
    assert (record["outcome"], record["lines"], record["exit_status"]) == ("program-failed", 3, 3)


def test_output_without_end_is_cut_and_the_connection_goes_on(offer: Offer) -> None:
    """``yes`` costs its cap and no more; whole lines of it are shown."""
    program = offer(yes=["/usr/bin/yes"], few={"argv": ["/usr/bin/yes"], "max_output_bytes": 5})
    text = program.ask(b"yes\nping\n").decode().splitlines()
    assert text[:2] == ["Begin yes", "y"]
    assert text[-3:] == [
        "An error occured : yes printed more than 1048576 bytes and was ended",
        "End yes",
        "pong",
    ]
    assert len(text) == 1 + 1048576 // 2 + 3
    (few,) = answers(program, "few")
    assert few["result"] == {"lines": ["y", "y"], "exit_status": None, "truncated": True}
    assert few["error"]["code"] == "output-too-long"
    assert "exit_status" not in program.wait_for("command-completed", command="few")
    wait_until(lambda: not program.children(), "its group ended")


def test_program_beyond_its_time_is_ended_with_what_it_printed(offer: Offer) -> None:
    """``sleep 1000`` is answered on time, and what came before shows how far it got."""
    program = offer(
        sleep={"argv": ["/bin/sleep", "1000"], "seconds": 0.1},
        slow={"argv": ["/bin/sh", "-c", "echo begun; printf half; sleep 1000"], "seconds": 0.3},
    )
    assert program.ask(b"sleep\nping\n") == b"An error occured : sleep not finished in 0.1 s\npong\n"
    (slow,) = answers(program, "slow")
    assert slow["result"] == {"lines": ["begun"], "exit_status": None, "truncated": False}
    assert slow["error"] == {"code": "deadline", "message": "slow not finished in 0.3 s"}
    assert slow["seconds"] < 3
    wait_until(lambda: not program.children(), "its group ended")


def test_grandchild_that_keeps_the_pipe_does_not_keep_the_answer(offer: Offer) -> None:
    """The program has exited: its answer is there half a second later, without the grandchild's end."""
    program = offer(bg="sleep 999 & echo hi")
    assert program.ask(b"bg\n") == b"Begin bg\nhi\nEnd bg\n"
    assert program.wait_for("command-completed", command="bg")["seconds"] < 5
    wait_until(lambda: not program.children(), "the grandchild ended")


def test_program_cannot_speak_for_the_server(offer: Offer) -> None:
    """In JSON what it prints is text in its result; as text it can look like anything, as the manual says."""
    fake = '{"id":3,"command":"ping","ok":true,"result":{"pong":true},"seconds":0.0}'
    script = f"echo 'End liar'; echo '{fake}'; printf '\\033[2J\\r\\n'; echo 'Begin ping'"
    program = offer(liar=script)
    liar, ping = answers(program, "liar", "ping")
    assert (liar["id"], liar["command"], ping["id"]) == (2, "liar", 3)
    assert liar["result"]["lines"] == ["End liar", fake, "\\x1b[2J\\x0d", "Begin ping"]
    assert ping["result"] == {"pong": True}
    text = program.ask(b"liar\n").decode().splitlines()
    assert text == ["Begin liar", "End liar", fake, "\\x1b[2J\\x0d", "Begin ping", "End liar"]


def test_program_that_is_gone_is_told(offer: Offer, tmp_path: Path) -> None:
    """It was there when the server started; its client learns it as one line."""
    tmp_path.chmod(0o755)
    path = tmp_path / "there"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    program = offer(there=[str(path)])
    assert program.ask(b"there\n") == b"Begin there\nEnd there\n"
    path.unlink()
    (answer,) = answers(program, "there")
    told = {"code": "unavailable", "message": "there cannot be started: No such file or directory"}
    assert answer["error"] == told
    assert "result" not in answer


def test_programs_and_logs_share_their_places(offer: Offer) -> None:
    """There are never more children than ``running_programs``, whatever is asked for."""
    program = offer("[limits]\nrunning_programs = 1\nwaiting = 0\nstop_seconds = 0.05\n", hold="sleep 1000")
    with program.connect() as client:
        client.sendall(b"hold\n")
        wait_until(lambda: bool(program.children()), "the program running")
        busy = b"An error occured : too much work is waiting already; try again later\n"
        assert program.ask(b"lastlog\nhold\n") == 2 * busy
        assert b"children_running: 1\nchildren_waiting: 0\n" in program.ask(b"status\n")


# Nobody is left


def leftovers(tmp_path: Path, end: str, seconds: float) -> dict[str, Any]:
    programs = {}
    for name, script in LEFTOVERS.items():
        file = tmp_path / name
        note = f'echo $! $$ > "{file}.new"; mv "{file}.new" "{file}"; {end}'
        programs[name] = {"argv": ["/bin/sh", "-c", script.format(end=note)], "seconds": seconds}
    return programs


def pids(tmp_path: Path) -> list[int]:
    """The numbers of all that the programs have started, when all have told."""
    files = [tmp_path / name for name in LEFTOVERS]
    wait_until(lambda: all(file.exists() for file in files), "the programs running")
    return [int(pid) for file in files for pid in file.read_text().split()]


def asking(program: Program) -> socket.socket:
    client = program.connect()
    client.sendall("".join(f"{name}\n" for name in LEFTOVERS).encode())
    return client


@pytest.mark.parametrize(("end", "seconds"), [("exit 0", 60), ("sleep 1000", 0.3)], ids=["exit", "deadline"])
def test_nobody_is_left_when_a_program_has_ended(
    end: str, seconds: float, offer: Offer, tmp_path: Path
) -> None:
    """Children, the deaf ones too, and those in sessions of their own: the host stays clean."""
    program = offer(**leftovers(tmp_path, end, seconds))
    told = answers(program, *LEFTOVERS)
    codes = [answer["error"]["code"] if "error" in answer else "ok" for answer in told]
    assert codes == len(LEFTOVERS) * [{"exit 0": "ok"}.get(end, "deadline")]
    for pid in pids(tmp_path):
        wait_until(lambda pid=pid: is_gone(pid), "everybody gone")  # type: ignore[misc]  # mypy infers no default
    wait_until(lambda: not program.children(), "its children gone")
    assert program.ask(b"ping\n") == b"pong\n"


def test_nobody_is_left_when_the_client_resets(offer: Offer, tmp_path: Path) -> None:
    """Work stops when the asker is gone."""
    program = offer(**leftovers(tmp_path, "sleep 1000", 60))
    client = asking(program)
    running = pids(tmp_path)
    assert not any(map(is_gone, running))
    reset(client)
    for pid in running:
        wait_until(lambda pid=pid: is_gone(pid), "everybody gone")  # type: ignore[misc]  # mypy infers no default
    wait_until(lambda: not program.children(), "its children gone")
    program.wait_for("command-completed", command="deaf", outcome="gone")


def test_nobody_is_left_when_the_server_stops(offer: Offer, tmp_path: Path) -> None:
    """The stop is on time, whatever the programs think of it."""
    program = offer(**leftovers(tmp_path, "sleep 1000", 60))
    with asking(program):
        running = pids(tmp_path)
        began = time.monotonic()
        assert program.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < PATIENCE_SECONDS / 2
    assert all(map(is_gone, running))
    assert program.rest()[-1]["action"] == "stopped"
    assert program.errors() == ""
