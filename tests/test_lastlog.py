import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from conversation import ask_alone
from program import PATIENCE_SECONDS
from trio_cmd.commands import COMMANDS, Surroundings, lastlog
from trio_cmd.errors import BadArguments, CommandFailed, NotFound, NotPermitted
from trio_cmd.settings import Comphash, Log, Settings
from trio_cmd.wire.messages import Reply, format_reply
from trio_cmd.work import logs
from trio_cmd.work.followers import Followers
from trio_cmd.work.hashing import Hashing
from trio_cmd.work.limiter import FairLimiter, WaitingRoom
from trio_cmd.work.logs import LogReader
from trio_cmd.work.processes import GroupReaper
from trio_cmd.work.sharing import Sharing

REMEDY = "name one with --log NAME=PATH, or in the settings under [logs]"
OUT_OF_RANGE = "expected a number of lines from 1 to 10000: lastlog [LINES] [LOG]"


@contextmanager
def no_limit(command: str, seconds: float) -> Iterator[None]:
    """Keep no deadline."""
    yield


def surroundings_of(logs: Mapping[str, Path]) -> Surroundings:
    room = WaitingRoom(256)
    return Surroundings(
        Settings(logs={name: Log(file=str(path)) for name, path in logs.items()}),
        Hashing(Comphash(threads=1), room, no_limit),
        reader := LogReader(FairLimiter(2, room), GroupReaper(), no_limit),
        dict,
        COMMANDS,
        followers=Followers(1, reader, GroupReaper(), no_limit),
        sharing=Sharing(print),
    )


async def ask(line: bytes, logs: Mapping[str, Path]) -> Reply:
    """Ask as a client does, from the line on."""
    with trio.fail_after(PATIENCE_SECONDS):
        return await ask_alone(line, surroundings_of(logs))


async def fault(line: bytes, logs: Mapping[str, Path]) -> CommandFailed:
    """Ask for what cannot be answered; returns why."""
    with pytest.raises(CommandFailed) as caught:
        await ask(line, logs)
    return caught.value


def text_of(reply: Reply) -> str:
    return format_reply(reply, "text", 1, b"lastlog", 0.0).decode()


def json_of(reply: Reply) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(format_reply(reply, "json", 1, b"lastlog", 0.0))
    return answer


@pytest.fixture
def two_logs(log_file: Path, tmp_path: Path) -> dict[str, Path]:
    """Two logs as the settings name them; the first is the default."""
    (tmp_path / "auth").write_text("one\ntwo\nthree\n")
    return {"syslog": log_file, "auth": tmp_path / "auth"}


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Where the system log is looked for when the settings name none; neither is there."""
    places = {"syslog": tmp_path / "default-syslog", "messages": tmp_path / "default-messages"}
    monkeypatch.setattr(lastlog, "DEFAULT_LOGS", {name: Log(file=str(path)) for name, path in places.items()})
    return places


async def test_ten_newest_lines_of_the_first_log_are_shown(two_logs: dict[str, Path]) -> None:
    """Without a word more than ``lastlog`` the operator sees what just happened."""
    written = two_logs["syslog"].read_text().splitlines()
    reply = await ask(b"lastlog", two_logs)
    assert text_of(reply) == "\n".join(["Begin lastlog", *written[-10:], "End lastlog", ""])
    assert json_of(reply) == {
        "id": 1,
        "command": "lastlog",
        "ok": True,
        "result": {"log": "syslog", "lines": written[-10:], "truncated": False},
        "seconds": 0.0,
    }
    assert reply.record == {"log": "syslog", "lines": 10, "exit_status": 0}


@pytest.mark.parametrize(
    ("line", "log", "count"),
    [
        (b"lastlog 3", "syslog", 3),
        (b"lastlog 003", "syslog", 3),
        (b"lastlog " + b"0" * 5000 + b"3", "syslog", 3),
        (b"lastlog 10000", "syslog", 20),
        (b"lastlog auth", "auth", 3),
        (b"lastlog 2 auth", "auth", 2),
        (b"lastlog\t 2 \t auth ", "auth", 2),
    ],
)
async def test_lines_and_log_are_chosen(line: bytes, log: str, count: int, two_logs: dict[str, Path]) -> None:
    """Both may be given or left out."""
    reply = await ask(line, two_logs)
    assert reply.lines == two_logs[log].read_text().splitlines()[-count:]
    assert reply.record == {"log": log, "lines": count, "exit_status": 0}


@pytest.mark.parametrize(
    "word",
    [
        b"0",
        b"00",
        b"-1",
        b"-0",
        b"+5",
        b"1_0",
        b"1e3",
        b"1.0",
        b"0x10",
        b"10001",
        b"99999",
        b"100000",
        b"1" + b"0" * 30,
        b"9" * 5000,
        b"0" * 5000,
        b"-",
        b"+",
        b"5x",
        "1\u0663".encode(),
        b"-n",
        b"--help",
        b"-f",
    ],
    ids=lambda word: word[:12].decode(),
)
@pytest.mark.parametrize("after", [b"", b" auth", b" nope"])
async def test_number_out_of_range_is_one_clear_line(
    word: bytes, after: bytes, two_logs: dict[str, Path]
) -> None:
    """What Python or ``tail`` would make of such a number nobody wants to learn at night."""
    error = await fault(b"lastlog " + word + after, two_logs)
    assert isinstance(error, BadArguments)
    assert error.message == OUT_OF_RANGE


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"lastlog nope", "'nope'"),
        (b"lastlog 5 nope", "'nope'"),
        (b"lastlog SYSLOG", "'SYSLOG'"),
        (b"lastlog sys", "'sys'"),
        (b"lastlog ../../etc/passwd", "'../../etc/passwd'"),
        (b"lastlog /etc/passwd", "'/etc/passwd'"),
        ("lastlog \u0663".encode(), "'\u0663'"),
        (b"lastlog \xff", "'\\xff'"),
        (b"lastlog it's", '"it\'s"'),
    ],
)
async def test_unknown_log_lists_those_there_are(line: bytes, name: str, two_logs: dict[str, Path]) -> None:
    """The operator learns what to type instead; a path is no name, a digit of another script no number."""
    error = await fault(line, two_logs)
    assert isinstance(error, NotFound)
    assert error.message == f"no log named {name}; the logs are: syslog, auth"


@pytest.mark.parametrize("line", [b"lastlog syslog 5", b"lastlog 5 syslog more", b"lastlog syslog auth"])
async def test_words_too_many_are_answered_with_the_usage(line: bytes, two_logs: dict[str, Path]) -> None:
    """Nothing that was typed is silently left out."""
    error = await fault(line, two_logs)
    assert isinstance(error, BadArguments)
    assert error.message == "usage: lastlog [LINES] [LOG]"


async def test_log_named_in_the_settings_that_is_missing_is_told(tmp_path: Path) -> None:
    """It is told by its path; no other log is shown in its place."""
    other = tmp_path / "other"
    other.write_text("other\n")
    error = await fault(b"lastlog", {"missing": tmp_path / "missing", "other": other})
    assert isinstance(error, NotFound)
    assert error.message == f"[Errno 2] No such file or directory: '{tmp_path}/missing'"


@pytest.mark.parametrize("there", ["syslog", "messages"])
async def test_without_settings_the_system_log_is_found(there: str, defaults: dict[str, Path]) -> None:
    """Debian and Red Hat call it differently; either works out of the box."""
    defaults[there].write_text("found\n")
    reply = await ask(b"lastlog", {})
    assert reply.lines == ["found"]
    assert reply.result == {"log": there, "lines": ["found"], "truncated": False}
    assert (await ask(b"lastlog " + there.encode(), {})).lines == ["found"]


async def test_host_without_any_log_says_what_to_do(defaults: dict[str, Path]) -> None:
    """A host that logs to the journal only has no such file; the operator learns the remedy."""
    error = await fault(b"lastlog", {})
    assert isinstance(error, NotFound)
    tried = ", ".join(str(path) for path in defaults.values())
    assert error.message == f"no system log: tried {tried}; {REMEDY}"
    named = await fault(b"lastlog messages", {})
    assert named.message == f"[Errno 2] No such file or directory: '{defaults['messages']}'"
    unknown = await fault(b"lastlog nope", {})
    assert unknown.message == "no log named 'nope'; the logs are: syslog, messages"


async def test_system_log_that_may_not_be_read_is_not_passed_over(
    defaults: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old /var/log/messages must not be taken for the log while the true one is forbidden."""
    defaults["syslog"].write_text("forbidden\n")
    defaults["messages"].write_text("stale\n")

    def forbid(path: bytes, *, only_own_links: bool) -> int:
        assert path == os.fsencode(defaults["syslog"])
        raise NotPermitted("forbidden")

    monkeypatch.setattr(logs, "open_regular", forbid)
    assert isinstance(await fault(b"lastlog", {}), NotPermitted)


async def test_lines_left_out_are_counted_in_the_first_line(tmp_path: Path) -> None:
    """The operator must know that there is more than what is shown."""
    (tmp_path / "log").write_text(("x" * 999 + "\n") * 2000)
    reply = await ask(b"lastlog 2000", {"log": tmp_path / "log"})
    lines = text_of(reply).splitlines()
    assert lines[:3] == ["Begin lastlog", "952 lines skipped", "x" * 999]
    assert len(lines) == 2 + 1 + 1048
    result = json_of(reply)["result"]
    assert result["truncated"] is True
    assert len(result["lines"]) == 1048


async def test_empty_log_is_an_empty_block(tmp_path: Path) -> None:
    """An answer without lines is told from no answer."""
    (tmp_path / "log").touch()
    reply = await ask(b"lastlog", {"log": tmp_path / "log"})
    assert text_of(reply) == "Begin lastlog\nEnd lastlog\n"
    assert json_of(reply)["result"] == {"log": "log", "lines": [], "truncated": False}


@pytest.fixture
def failing_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def put(script: str) -> None:
        (tmp_path / "tail").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "tail").chmod(0o755)
        monkeypatch.setattr(logs, "_DIRECTORIES", str(tmp_path))

    return put


async def test_failure_of_tail_is_told_after_what_it_printed(
    log_file: Path, failing_tail: Callable[[str], None]
) -> None:
    """What could be read is not thrown away, and is not taken for all."""
    failing_tail("echo half; exit 3")
    reply = await ask(b"lastlog", {"log": log_file})
    assert text_of(reply) == (
        "Begin lastlog\nhalf\nAn error occured : tail exited with status 3\nEnd lastlog\n"
    )
    answer = json_of(reply)
    assert answer["ok"] is False
    assert answer["error"] == {"code": "program-failed", "message": "tail exited with status 3"}
    assert answer["result"]["lines"] == ["half"]
    assert reply.record == {"log": "log", "lines": 1, "exit_status": 3}


async def test_failure_of_tail_without_output_is_its_one_line(
    log_file: Path, failing_tail: Callable[[str], None]
) -> None:
    """An error alone needs no block around it."""
    failing_tail("kill -9 $$")
    reply = await ask(b"lastlog", {"log": log_file})
    assert text_of(reply) == "An error occured : tail was ended by signal 9\n"


def test_places_of_the_system_log_are_those_of_the_distributions() -> None:
    """Debian's comes first, and the journal where there is neither."""
    assert list(lastlog.DEFAULT_LOGS.values()) == [
        Log(file="/var/log/syslog"),
        Log(file="/var/log/messages"),
        Log(journal="*"),
    ]
