import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from trio_cmd.commands import COMMANDS, Surroundings
from trio_cmd.errors import BadArguments, CommandFailed, UnknownCommand
from trio_cmd.settings import ALGORITHMS, Comphash, Settings
from trio_cmd.wire.messages import Reply, format_reply, parse_request
from trio_cmd.work.followers import Followers
from trio_cmd.work.hashing import Hashing
from trio_cmd.work.limiter import FairLimiter, WaitingRoom
from trio_cmd.work.logs import LogReader
from trio_cmd.work.processes import GroupReaper
from trio_cmd.work.sharing import Sharing

NAMES = [
    *("lastlog", "follow", "comphash", "verify"),
    *("help", "ping", "status", "format", "auth", "exit", "quit"),
]


@contextmanager
def no_limit(command: str, seconds: float) -> Iterator[None]:
    """Keep no deadline."""
    yield


def ask(line: bytes, statistics: Mapping[str, Any] | None = None) -> Reply:
    """Ask as a client does, from the line on."""
    request = parse_request(line)
    assert request is not None
    room = WaitingRoom(1)
    surroundings = Surroundings(
        Settings(),
        Hashing(Comphash(), room, no_limit),
        reader := LogReader(FairLimiter(1, room), GroupReaper(), no_limit),
        lambda: statistics or {},
        COMMANDS,
        followers=Followers(1, reader, GroupReaper(), no_limit),
        sharing=Sharing(print),
    )
    answer = COMMANDS[request.name].answer
    assert answer is not None
    return answer(request.argument, surroundings)


def text_of(reply: Reply) -> str:
    return format_reply(reply, "text", 1, b"name", 0.0).decode()


def result_of(reply: Reply) -> Any:
    answer = json.loads(format_reply(reply, "json", 1, b"name", 0.0))
    assert answer["ok"] is True
    return answer["result"]


def fault(line: bytes) -> CommandFailed:
    with pytest.raises(CommandFailed) as caught:
        ask(line)
    return caught.value


def test_table_has_every_command_once_and_each_can_be_done() -> None:
    """Dispatch, help and the manual come from one table: a row without a function would be a crash."""
    assert [name.decode() for name in COMMANDS] == NAMES
    for name, row in COMMANDS.items():
        assert row.name.encode() == name
        assert row.usage.split()[0] == row.name
        assert row.summary
        assert [row.answer, row.work, row.identify].count(None) == 2


@pytest.mark.parametrize("line", [b"ping", b"ping   with words"])
def test_ping_is_answered_with_pong(line: bytes) -> None:
    """A monitoring system sees that the server lives."""
    assert text_of(ask(line)) == "pong\n"
    assert result_of(ask(line)) == {"pong": True}


def test_help_lists_every_command() -> None:
    """An operator who knows nothing but netcat learns the rest."""
    lines = text_of(ask(b"help")).splitlines()
    assert (lines[0], lines[-1]) == ("Begin help", "End help")
    assert [line.split()[0] for line in lines[1:-1]] == NAMES
    columns = {line.index(row.summary) for line, row in zip(lines[1:-1], COMMANDS.values(), strict=True)}
    assert len(columns) == 1, "the summaries stand below each other"


def test_help_in_json_is_a_list() -> None:
    """A client can learn what a server offers."""
    commands = result_of(ask(b"help"))["commands"]
    assert [command["name"] for command in commands] == NAMES
    assert commands[0] == {
        "name": "lastlog",
        "usage": "lastlog [LINES] [LOG]",
        "summary": "show the newest lines of a log",
    }


@pytest.mark.parametrize("name", NAMES)
def test_help_describes_one_command(name: str) -> None:
    """Who has forgotten an argument need not read everything."""
    row = COMMANDS[name.encode()]
    reply = ask(b"help " + name.encode())
    logs = "the logs are: syslog, messages, journal; the first that is there is the default\n"
    details = logs if name in ("lastlog", "follow") else ""
    assert text_of(reply) == f"Begin help\n{row.usage}  {row.summary}\n{details}End help\n"
    assert [command["name"] for command in result_of(reply)["commands"]] == [name]


def test_help_of_comphash_names_the_algorithms() -> None:
    """Nobody has to guess how an algorithm is spelled."""
    assert " ".join(ALGORITHMS) in text_of(ask(b"help comphash"))


@pytest.mark.parametrize("line", [b"help nope", b"help PING", b"help ping status", b"help \xff"])
def test_help_for_what_there_is_not_is_told(line: bytes) -> None:
    """The answer is that of the unknown command itself."""
    error = fault(line)
    assert isinstance(error, UnknownCommand)
    assert error.prefix + error.message == "Command not found."


def test_status_is_a_line_for_each_value() -> None:
    """It can be read by eye and by ``grep``."""
    values = {"version": "1\x1b", "clients": 3, "load": 0.5, "is_stopping": False, "is_full": True}
    reply = ask(b"status now", values)
    assert text_of(reply) == (
        "Begin status\nversion: 1\\x1b\nclients: 3\nload: 0.5\nis_stopping: no\nis_full: yes\nEnd status\n"
    )
    assert result_of(reply) == values


def test_form_is_chosen_and_already_that_of_the_answer() -> None:
    """A client that asks for JSON need not understand one line of text."""
    chosen = ask(b"format json")
    assert (chosen.form, result_of(chosen)) == ("json", {"format": "json"})
    chosen = ask(b"format text")
    assert (chosen.form, text_of(chosen)) == ("text", "Format is : text\n")


@pytest.mark.parametrize(
    "line", [b"format", b"format xml", b"format JSON", b"format json text", b"format \xff"]
)
def test_unknown_form_is_answered_with_the_usage(line: bytes) -> None:
    """The form stays as it was, and the client knows."""
    error = fault(line)
    assert isinstance(error, BadArguments)
    assert error.message == "usage: format text|json"


@pytest.mark.parametrize("line", [b"exit", b"quit", b"exit 0", b"quit now"])
def test_exit_closes_and_says_nothing(line: bytes) -> None:
    """The plain netcat never ends its input: this is how it leaves."""
    reply = ask(line)
    assert reply.closes
    assert text_of(reply) == ""
