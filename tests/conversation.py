"""A session in memory: no sockets, threads or processes, so the jumping clock may be used.

Commands that work for their answers are fakes that the test itself finishes.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import trio
import trio.testing
from trio.abc import HalfCloseableStream
from trio.testing import memory_stream_pair

from trio_cmd.addresses import parse_address
from trio_cmd.commands import COMMANDS, Asker, Command, Surroundings
from trio_cmd.errors import CommandFailed
from trio_cmd.records import LineSink, make_logger
from trio_cmd.records.render import render_json
from trio_cmd.server.access import Access, Visitor
from trio_cmd.server.attempts import WrongTokens
from trio_cmd.server.deadlines import Sweeper
from trio_cmd.server.flooding import Flooding
from trio_cmd.server.hangups import Hangups
from trio_cmd.server.identity import ClientIdentity, Tables
from trio_cmd.server.replies import Budget
from trio_cmd.server.session import Session
from trio_cmd.server.shared import Shared
from trio_cmd.server.tally import Tally
from trio_cmd.settings import Grant, Limits, Settings
from trio_cmd.wire.messages import Reply, parse_request
from trio_cmd.wire.stream import PlainStream
from trio_cmd.work.sharing import Sharing

Record = dict[str, Any]


class ListSink(LineSink):
    """Keeps records in a list instead of writing them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.pressed = False

    def put(self, line: bytes, action: str) -> None:
        record = json.loads(line)
        assert record["action"] == action
        self.records.append(record)

    def is_pressed(self) -> bool:
        return self.pressed

    def is_held(self) -> bool:
        return False

    def actions(self, action: str) -> list[Record]:
        return [record for record in self.records if record["action"] == action]


class SlowWork:
    """The command ``slow NAME``: runs until the test finishes it by its name."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.askers: dict[str, Asker] = {}
        self.cancelled: list[str] = []
        self._replies: dict[str, trio.Event] = {}
        self._answers: dict[str, Reply | Exception] = {}

    async def work(self, argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        name = argument.decode()
        self.running.append(name)
        self.askers[name] = asker
        try:
            await self._event(name).wait()
        except trio.Cancelled:
            self.cancelled.append(name)
            raise
        finally:
            self.running.remove(name)
        answer = self._answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def finish(self, name: str, answer: Reply | Exception | None = None) -> None:
        """Let one end, by default with ``slow NAME is done``."""
        self._answers[name] = answer or Reply((f"slow {name} is done",), result={"name": name})
        self._event(name).set()

    def _event(self, name: str) -> trio.Event:
        return self._replies.setdefault(name, trio.Event())


class PacedStream(PlainStream):
    """A stream whose client reads, or does not, or vanishes, as the test says."""

    def __init__(self, stream: HalfCloseableStream) -> None:
        super().__init__(stream)
        self.is_read = True
        self._turn = trio.Event()
        self._receiving: trio.CancelScope

    def take(self) -> None:
        """Let one write through."""
        self._turn.set()

    def vanish(self) -> None:
        """Let the waiting read fail."""
        self._receiving.cancel()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with trio.CancelScope() as self._receiving:
            return await super().receive_some(max_bytes)
        raise trio.BrokenResourceError

    async def send_some(self, data: memoryview) -> int:
        if not self.is_read:
            await self._turn.wait()
            self._turn = trio.Event()
        return await super().send_some(data)


class Conversation:
    """One client and its session.

    Args:
        limits: of the client.
        more_commands: beside those there are, and ``slow``.
        grants: what the client, of 127.0.0.1, may ask; none: everything.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        more_commands: Mapping[bytes, Command] | None = None,
        grants: Sequence[Grant] = (),
    ) -> None:
        self.limits = limits or Limits()
        self.sink = ListSink()
        self.slow = SlowWork()
        self.unclaimed: list[BaseException] = []  # faults of runs that no asker was left to be told
        self.budget = Budget(self.limits.total_pending_bytes)
        self.client, server_end = memory_stream_pair()
        self._heard = bytearray()
        self._has_heard_all = trio.Event()
        slow = Command("slow", "slow NAME", "wait for the test", work=self.slow.work)
        self.sharing = Sharing(self.unclaimed.append)
        commands = {**COMMANDS, b"slow": slow, **(more_commands or {})}
        surroundings = Surroundings(
            Settings(limits=self.limits),
            cast("Any", None),  # nothing here hashes or reads logs
            cast("Any", None),
            lambda: {"clients": 1},
            commands,
            followers=cast("Any", None),
            sharing=self.sharing,
        )
        sink = cast("Any", self.sink)
        self.hangups = Hangups()
        self.tally = Tally(commands)
        log = make_logger(sink, render_json)
        self.flooding = Flooding(log)
        shared = Shared(self.limits, sink, self.hangups, self.budget, self.tally, self.flooding)
        visitor = Visitor(parse_address("127.0.0.1"))
        self.attempts = WrongTokens()
        self.identity = ClientIdentity(
            visitor, Access(grants), Tables(surroundings), self.attempts, trio.current_time
        )
        own_log = log.bind(system="CmdProtocol,0,127.0.0.1", client="127.0.0.1")
        self.stream = PacedStream(server_end)
        self.session = Session(self.stream, own_log, shared, self.identity)

    async def run(self, tick_seconds: float = 0.05) -> None:
        """Hold the conversation, with its deadlines, until it ends."""
        async with trio.open_nursery() as nursery:
            sweeper = Sweeper(tick_seconds)
            sweeper.watch(self.session)
            nursery.start_soon(sweeper.run)
            async with self.sharing.open_nursery(), self.stream:
                await self.session.run()
            sweeper.forget(self.session)
            nursery.cancel_scope.cancel()
        self.hangups.close()

    def renew(self, limits: Limits | None = None, grants: Sequence[Grant] = ()) -> None:
        """Put other settings in force, as a reload does."""
        shared = replace(self.session._shared, limits=limits or self.limits)
        self.session.renew(shared, Access(grants), Tables(self.identity._tables.whole))

    async def listen(self) -> None:
        """Be the client's ear until the connection ends."""
        async for piece in self.client:
            self._heard += piece
        self._has_heard_all.set()

    async def say(self, data: bytes) -> bytes:
        """Send something, and take what is answered to it at once."""
        await self.client.send_all(data)
        return await self.heard()

    async def heard(self) -> bytes:
        """Take what has been answered so far."""
        await trio.testing.wait_all_tasks_blocked()
        heard = bytes(self._heard)
        self._heard.clear()
        return heard

    async def heard_all(self) -> bytes:
        """Take all answers until the connection ends."""
        await self._has_heard_all.wait()
        return await self.heard()


@asynccontextmanager
async def conversing(*args: Any, **options: Any) -> AsyncIterator[Conversation]:
    """Hold a conversation in the background; it is cancelled if the test does not end it."""
    conversation = Conversation(*args, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conversation.run)
        nursery.start_soon(conversation.listen)
        await trio.testing.wait_all_tasks_blocked()
        yield conversation
        nursery.cancel_scope.cancel()
    conversation.hangups.close()


class Alone:
    """An asker of whom a command knows only whose turn its work takes."""

    client = "a client"
    site = "127.0.0.1"

    def __init__(self) -> None:
        self.is_shared: bool | None = None
        self.told: list[tuple[int, int]] = []
        self.streamed: list[str] = []

    def progress(self, done: int, total: int) -> None:
        self.told.append((done, total))

    async def wait_for_turn(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_for_room(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_for_end(self) -> None:
        await trio.sleep_forever()

    def begin(self, block: str) -> None:
        self.streamed.append(f"Begin {block}")

    def show(self, lines: Sequence[str], skipped: int) -> None:
        self.streamed += [f"{skipped} lines skipped"] if skipped else []
        self.streamed += lines


async def ask_alone(line: bytes, surroundings: Surroundings) -> Reply:
    """Have a slow command work for a line, as for a client that nobody shares with.

    Raises:
        CommandFailed: why there is no answer.
    """
    request = parse_request(line)
    assert request is not None
    work = surroundings.commands[request.name].work
    assert work is not None
    failed: CommandFailed | None = None
    assert isinstance(surroundings.sharing, Sharing)
    async with surroundings.sharing.open_nursery():
        try:
            return await work(request.argument, surroundings, Alone())
        except CommandFailed as error:  # a nursery would make a group of it
            failed = error
    raise failed
