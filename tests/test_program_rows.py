"""The row of an offered program, asked without a server."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from conversation import Alone, ask_alone
from program import PATIENCE_SECONDS
from trio_cmd.commands.programs import program_rows
from trio_cmd.errors import BadArguments, DeadlinePassed, OutputTooLong, ProgramFailed, Unavailable
from trio_cmd.server.deadlines import Sweeper
from trio_cmd.settings import Program
from trio_cmd.wire.messages import Reply, format_reply
from trio_cmd.work.limiter import FairLimiter, Limit, LimiterStatistics, WaitingRoom
from trio_cmd.work.output import _ONE_AT_A_TIME
from trio_cmd.work.processes import GroupReaper
from trio_cmd.work.programs import Programs
from trio_cmd.work.sharing import Sharing

IDLE = LimiterStatistics(running=0, waiting=0)


@contextmanager
def no_limit(command: str, seconds: float) -> Iterator[None]:
    """Keep no deadline."""
    yield


class Bench:
    """One offered program named ``x``, and the places it runs in."""

    def __init__(self, argv: Sequence[str], limit: Limit = no_limit, **keys: Any) -> None:
        self.places = FairLimiter(1, WaitingRoom(256))
        programs = Programs(self.places, GroupReaper(), limit)
        self.row = program_rows({"x": Program(argv=list(argv), **keys)}, programs)[b"x"]

    async def ask(self, argument: bytes = b"") -> Reply:
        surroundings = SimpleNamespace(commands={b"x": self.row}, sharing=Sharing(print))
        with trio.fail_after(PATIENCE_SECONDS):
            reply = await ask_alone(b"x " + argument, cast("Any", surroundings))
        assert self.places.statistics() == IDLE
        return reply


def shell(script: str, limit: Limit = no_limit, **keys: Any) -> Bench:
    return Bench(["/bin/sh", "-c", script], limit, **keys)


def text_of(reply: Reply) -> str:
    return format_reply(reply, "text", 1, b"x", 0.0).decode()


def json_of(reply: Reply) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(format_reply(reply, "json", 1, b"x", 0.0))
    return answer


def test_row_says_what_to_type_and_why() -> None:
    """Help is made from the settings."""
    arguments: dict[str, Any] = {"first": "[a]+", "last": ["b"]}
    row = Bench(["/x", "{last}{first}"], arguments=arguments, summary="do\x1b it").row
    assert (row.name, row.usage, row.summary) == ("x", "x FIRST LAST", "do\\x1b it")
    assert Bench(["/x"]).row.summary == "run a program of this host"


async def test_what_a_program_prints_is_its_answer() -> None:
    """In both forms, and counted in the record."""
    reply = await shell("echo one; echo two >&2").ask()
    assert text_of(reply) == "Begin x\none\ntwo\nEnd x\n"
    assert json_of(reply)["result"] == {"lines": ["one", "two"], "exit_status": 0, "truncated": False}
    assert reply.record == {"lines": 2, "exit_status": 0}


async def test_arguments_reach_their_places() -> None:
    """What does not fit reaches nobody."""
    bench = Bench(["/bin/echo", "{a}", "<{b}>"], arguments={"a": ["one"], "b": "[a-z ]+"})
    assert (await bench.ask(b"one two  three")).lines == ["one <two  three>"]
    with pytest.raises(BadArguments):
        await bench.ask(b"two three")


async def test_failure_is_told_behind_the_output() -> None:
    """What was printed before the end is not thrown away."""
    reply = await shell("echo half; exit 3").ask()
    assert isinstance(reply.error, ProgramFailed)
    assert text_of(reply) == "Begin x\nhalf\nAn error occured : x exited with status 3\nEnd x\n"
    assert reply.record == {"lines": 1, "exit_status": 3}


async def test_too_much_output_is_cut() -> None:
    """It is the newest that is left out, and JSON says that there was more."""
    reply = await shell("while :; do echo 123; done", max_output_bytes=10).ask()
    assert isinstance(reply.error, OutputTooLong)
    assert json_of(reply)["result"] == {"lines": ["123", "123"], "exit_status": None, "truncated": True}
    assert reply.record == {"lines": 2}


async def test_program_beyond_its_time_is_ended() -> None:
    """The asker gets what there is, and the place is free for the next."""
    sweeper = Sweeper(0.02)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeper.run)
        reply = await shell("echo one; printf two; sleep 30", sweeper.limit, seconds=0.3).ask()
        nursery.cancel_scope.cancel()
    assert isinstance(reply.error, DeadlinePassed)
    assert text_of(reply) == "Begin x\none\nAn error occured : x not finished in 0.3 s\nEnd x\n"
    assert json_of(reply)["result"] == {"lines": ["one"], "exit_status": None, "truncated": False}


async def test_the_wait_for_a_place_does_not_count() -> None:
    """The time is the program's own, however busy the server is."""
    begun: list[tuple[str, float, int]] = []

    @contextmanager
    def limit(command: str, seconds: float) -> Iterator[None]:
        begun.append((command, seconds, bench.places.statistics().running))
        yield

    bench = shell("exit 0", limit, seconds=7)
    await bench.ask()
    assert begun == [("x", 7, 1)]


async def test_program_that_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    """It was removed after the server had started."""
    with pytest.raises(Unavailable) as caught:
        await Bench([str(tmp_path / "gone")]).ask()
    assert caught.value.message == "x cannot be started: No such file or directory"


async def test_clients_that_ask_the_same_program_share_one_run(tmp_path: Path) -> None:
    """Fifty operators who look at one host at the same moment start one program."""
    counted = tmp_path / "counted"
    bench = Bench(["/bin/sh", "-c", f"echo x >>{counted}; echo $0", "{name}"], arguments={"name": "[a-z]+"})
    surroundings = cast("Any", SimpleNamespace(commands={b"x": bench.row}, sharing=Sharing(print)))
    askers = [Alone() for _ in range(6)]
    lines: list[Sequence[str]] = []

    async def ask(asker: Alone, argument: bytes) -> None:
        assert bench.row.work is not None
        lines.append((await bench.row.work(argument, surroundings, asker)).lines)

    with trio.fail_after(PATIENCE_SECONDS):
        async with (
            surroundings.sharing.open_nursery(),
            trio.open_nursery() as nursery,
            bench.places.place("another"),
        ):
            for asker, argument in zip(askers, (b"a", b"a", b"b") * 2, strict=True):
                nursery.start_soon(ask, asker, argument)
            await trio.testing.wait_all_tasks_blocked()
    assert sorted(map(list, lines)) == [["a"]] * 4 + [["b"]] * 2
    assert counted.read_text() == "x\n" * 2
    assert all(asker.is_shared for asker in askers)


async def test_a_place_is_held_until_the_output_is_an_answer() -> None:
    """What programs print faster than it can be made safe to show does not pile up in memory."""
    bench = shell("head -c 200000 /dev/zero | tr '\\0' x")
    replies: list[Reply] = []

    async def ask() -> None:
        replies.append(await bench.ask())

    async with trio.open_nursery() as nursery, _ONE_AT_A_TIME:
        nursery.start_soon(ask)
        with trio.fail_after(PATIENCE_SECONDS):
            while not _ONE_AT_A_TIME.statistics().tasks_waiting:
                await trio.sleep(0.002)
        assert bench.places.statistics().running == 1
        assert replies == []
    assert [len(line) for line in replies[0].lines] == [200_000]
