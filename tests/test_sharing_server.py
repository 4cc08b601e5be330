"""Clients of one server that ask the same: one child, one answer, each its own record."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conversation import ListSink
from program import PATIENCE_SECONDS
from trio_cmd.records import make_logger
from trio_cmd.records.render import render_json
from trio_cmd.records.sink import SinkStatistics
from trio_cmd.server.replies import ReplyQueue
from trio_cmd.server.server import Server
from trio_cmd.settings import Comphash, Limits, Log, ServerSettings, Settings
from trio_cmd.work import hashing, logs, sharing
from trio_cmd.work.hashing import Digest, Hashing, digest_file
from trio_cmd.work.limiter import FairLimiter, WaitingRoom
from trio_cmd.work.logs import LogReader
from trio_cmd.work.processes import GroupReaper, run_program
from trio_cmd.work.roots import Roots

ROOT = Path(__file__).parent.parent
Record = dict[str, Any]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run stay young for long: on a busy machine a tenth of a second is nothing."""
    monkeypatch.setattr(sharing, "YOUNG_SECONDS", PATIENCE_SECONDS)


class CountingSink(ListSink):
    """Keeps records in a list, and counts them as the real sink does."""

    def statistics(self) -> SinkStatistics:
        return SinkStatistics(len(self.records), 0, 0, is_stalled=False)

    async def wait_for(self, action: str, count: int) -> list[Record]:
        while len(self.actions(action)) < count:
            await trio.sleep(0.002)
        return self.actions(action)


class Children:
    """Stands before ``run_program``: counts, and lets no child end before the gate is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = self.running = self.most = self.ended = self.cancelled = 0
        self.gate = trio.Event()
        monkeypatch.setattr(logs, "run_program", self._run)

    async def _run(self, *args: Any, **options: Any) -> int:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            status = await run_program(*args, **options)
            self.ended += 1
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return status

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        while not is_true():
            await trio.sleep(0.002)


class Running:
    """A server that runs with one log."""

    def __init__(self, log_file: Path, **limits: Any) -> None:
        self.sink = CountingSink()
        sink = cast("Any", self.sink)
        settings = Settings(
            server=ServerSettings(port=0),
            limits=Limits(**limits),
            logs={"lab": Log(file=str(log_file)), "other": Log(file=os.devnull)},
            comphash=Comphash(threads=1),
        )
        self.server = Server(settings, make_logger(sink, render_json), sink, "1.2.3", Roots(("/",)))
        self.port = 0
        self.clients = AsyncExitStack()

    async def connect(self) -> trio.SocketStream:
        return await self.clients.enter_async_context(await trio.open_tcp_stream("127.0.0.1", self.port))

    async def asked(self, count: int) -> None:
        """Wait until so many commands were received and wait for what is theirs."""
        await self.sink.wait_for("command-received", count)
        await wait_all_tasks_blocked(0.01)

    def status(self) -> tuple[int, int, int]:
        counts = self.server.status()
        return counts["runs"], counts["runs_waiting"], counts["sharers"]


@asynccontextmanager
async def running(log_file: Path, **limits: Any) -> AsyncIterator[Running]:
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            it = Running(log_file, **limits)
            it.port = await nursery.start(it.server.serve)
            async with it.clients:
                yield it
            it.server.stop("the end of the test")


async def read_all(client: trio.SocketStream) -> bytes:
    return b"".join([bytes(piece) async for piece in client])


def block(text: str) -> bytes:
    return b"Begin lastlog\n" + text.encode() + b"End lastlog\n"


async def test_clients_that_ask_the_same_cost_one_child(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty monitors that ask in one second do not start twenty children; each has its own record."""
    children = Children(monkeypatch)
    async with running(log_file) as it:
        clients = [await it.connect() for _ in range(20)]
        await clients[0].send_all(b"lastlog 3\nexit\n")
        await children.wait_until(lambda: children.running == 1)
        for client in clients[1:]:
            await client.send_all(b"lastlog 3\nexit\n")
        await it.asked(40)
        children.gate.set()
        newest = block("".join(log_file.read_text().splitlines(keepends=True)[-3:]))
        assert [await read_all(client) for client in clients] == [newest] * 20
        assert children.started == 2
        done = [r for r in it.sink.actions("command-completed") if r["command"] == "lastlog"]
        assert [r["shared"] for r in done].count(True) >= 18
        assert len({r["connection"] for r in done}) == 20
        assert len({r["seconds"] for r in done}) > 1
        assert all("shared" not in r for r in it.sink.actions("command-completed") if r["command"] == "exit")


async def test_an_answer_holds_what_was_written_before_its_question(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks after the line was written sees the line, also while an older run is on its way."""
    children = Children(monkeypatch)
    async with running(log_file) as it:
        early, late = await it.connect(), await it.connect()
        await early.send_all(b"lastlog 1\nexit\n")
        await children.wait_until(lambda: children.ended == 1)
        with log_file.open("a") as file:
            file.write("the intruder\n")
        await late.send_all(b"lastlog 1\nexit\n")
        await it.asked(4)
        children.gate.set()
        assert b"the intruder" in await read_all(late)
        assert b"the intruder" not in await read_all(early)


async def test_status_shows_runs_sharers_and_what_waits(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator sees whether many wait for few runs, or each for its own."""
    children = Children(monkeypatch)
    async with running(log_file, running_programs=1) as it:
        clients = [await it.connect() for _ in range(4)]
        await clients[0].send_all(b"lastlog 1\n")
        await children.wait_until(lambda: children.running == 1)
        for client in clients[1:]:
            await client.send_all(b"lastlog 2\n")
        await clients[0].send_all(b"lastlog 3\n")
        await it.asked(5)
        assert it.status() == (1, 2, 5)
        assert it.server.status()["children_waiting"] == 2
        children.gate.set()
        await it.sink.wait_for("command-completed", 5)
        await wait_all_tasks_blocked(0.01)
        assert it.status() == (0, 0, 0)


async def test_a_client_that_leaves_takes_nothing_from_the_others_and_the_last_ends_the_child(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first who asked may go; when all have gone nothing works for them any more."""
    children = Children(monkeypatch)
    async with running(log_file, running_programs=1) as it:
        holder, first, second = [await it.connect() for _ in range(3)]
        await holder.send_all(b"lastlog 9\n")
        await children.wait_until(lambda: children.running == 1)
        for client in (first, second):
            await client.send_all(b"lastlog 1\n")
        await it.asked(3)
        await reset(first)
        await it.sink.wait_for("client-lost", 1)
        assert it.status() == (1, 1, 2)
        await reset(holder)
        await children.wait_until(lambda: children.started == 2)
        assert children.cancelled == 1
        children.gate.set()
        assert (await second.receive_some()).endswith(b"End lastlog\n")
        completed = await it.sink.wait_for("command-completed", 3)
        assert {r["connection"]: (r["outcome"], r.get("shared")) for r in completed} == {
            0: ("gone", None),
            1: ("gone", None),
            2: ("ok", False),
        }


async def reset(client: trio.SocketStream) -> None:
    client.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await client.aclose()


async def test_logs_are_not_mixed_up(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for another log at the same time gets that one."""
    children = Children(monkeypatch)
    async with running(log_file, running_programs=1) as it:
        holder, lab, other = [await it.connect() for _ in range(3)]
        await holder.send_all(b"lastlog 1\n")
        await children.wait_until(lambda: children.running == 1)
        await lab.send_all(b"lastlog 2 lab\nexit\n")
        await other.send_all(b"lastlog 2 other\nexit\n")
        await it.asked(5)
        children.gate.set()
        assert (await read_all(lab)).startswith(b"Begin lastlog\n")
        assert await read_all(other) == b"An error occured : not a regular file: '/dev/null'\n"


async def test_a_failure_reaches_all_who_share_it(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is gone is gone for everybody, and said to everybody."""
    log_file.unlink()
    children = Children(monkeypatch)
    async with running(log_file) as it:
        clients = [await it.connect() for _ in range(5)]
        for client in clients:
            await client.send_all(b"lastlog\nexit\n")
        answers = [await read_all(client) for client in clients]
        assert set(answers) == {
            f"An error occured : [Errno 2] No such file or directory: '{log_file}'\n".encode()
        }
        assert children.started == 0
        completed = [r for r in await it.sink.wait_for("command-completed", 10) if r["command"] == "lastlog"]
        assert [r["outcome"] for r in completed] == ["not-found"] * 5


async def test_a_fault_in_a_run_costs_its_askers_one_answer_each(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours is answered, recorded, and stops neither server nor connections."""
    async with running(log_file) as it:
        clients = [await it.connect() for _ in range(3)]
        with monkeypatch.context() as patch:
            patch.setattr(logs, "run_program", lambda *_, **__: 1 / 0)
            for client in clients:
                await client.send_all(b"lastlog\n")
                assert await client.receive_some() == b"An error occured : internal error\n"
        for client in clients:
            await client.send_all(b"lastlog 1\nexit\n")
            assert (await read_all(client)).startswith(b"Begin lastlog\n")
        assert len(it.sink.actions("handler-crashed")) == 3


async def test_never_more_children_than_running_programs(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty clients with questions of their own do not fill the host with children."""
    children = Children(monkeypatch)
    children.gate.set()
    async with running(log_file, running_programs=2) as it:

        async def ask(number: int) -> None:
            client = await it.connect()
            await client.send_all(b"lastlog %d\nlastlog 3\nlastlog %d\nexit\n" % (number, number + 50))
            assert (await read_all(client)).count(b"End lastlog\n") == 3

        async with trio.open_nursery() as asking:
            for number in range(1, 51):
                asking.start_soon(ask, number)
    assert children.most == 2
    assert children.started >= 90  # nearly each has a run of its own


async def test_clients_in_a_loop_cost_few_children(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fifty clients ask again and again is answered by one child after the other."""
    children = Children(monkeypatch)
    children.gate.set()
    async with running(log_file) as it:

        async def ask() -> None:
            client = await it.connect()
            for _ in range(10):
                await client.send_all(b"lastlog 1\n")
                assert (await client.receive_some()).endswith(b"End lastlog\n")

        async with trio.open_nursery() as asking:
            for _ in range(50):
                asking.start_soon(ask)
    assert children.started < 500 / 4


async def test_runs_can_begin_as_long_as_there_are_clients(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops still answers what was asked, also what has not begun."""
    children = Children(monkeypatch)
    async with running(log_file, running_per_client=1) as it:
        client = await it.connect()
        await client.send_all(b"lastlog 1\nlastlog 2\n")
        await children.wait_until(lambda: children.running == 1)
        await it.asked(2)
        it.server.stop("SIGTERM")
        await it.sink.wait_for("stopping", 1)
        await wait_all_tasks_blocked(0.01)
        children.gate.set()
        answer = await read_all(client)
        assert answer.count(b"End lastlog\n") == 2
        assert answer.endswith(b"Server is stopping. bye !\n")


# Hashing


class Hashes:
    """Stands before ``digest_file``: notes what is hashed, and waits for the gate in its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[bytes, str]] = []
        self.gate = threading.Event()
        monkeypatch.setattr(hashing, "digest_file", self._digest)

    def _digest(self, path: bytes, algorithm: str, *args: Any) -> Digest:
        self.done.append((path, algorithm))
        self.gate.wait(PATIENCE_SECONDS)
        return digest_file(path, algorithm, *args)


async def test_one_file_and_one_algorithm_is_one_hash(
    log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A playbook that asks from ten places reads a file twice at most; what differs is not mixed up."""
    (tmp_path / "f").write_bytes(b"lab\n")
    monkeypatch.chdir(tmp_path)
    whole = os.fsencode(tmp_path / "f")
    questions = [b"f", b"f", b"sha1 f", b"sha256 f", b"sha256 f", whole, whole]
    hashes = Hashes(monkeypatch)
    async with running(log_file) as it:
        holder = await it.connect()
        await holder.send_all(b"comphash md5 f\n")  # takes the one thread
        while not hashes.done:
            await trio.sleep(0.002)
        clients = [await it.connect() for _ in questions]
        for client, question in zip(clients, questions, strict=True):
            await client.send_all(b"format json\ncomphash " + question + b"\nexit\n")
        await it.asked(1 + 3 * len(questions))
        hashes.gate.set()
        answers = [(await read_all(client)).splitlines()[1] for client in clients]
        sha1, sha256 = (hashlib.new(name, b"lab\n").hexdigest().encode() for name in ("sha1", "sha256"))
        digests = [sha1, sha1, sha1, sha256, sha256, sha1, sha1]
        assert all(digest in answer for digest, answer in zip(digests, answers, strict=True))
        paths = [b'"path":"f"'] * 5 + [b'"path":"' + whole + b'"'] * 2
        assert all(path in answer for path, answer in zip(paths, answers, strict=True))
    expected = [(b"f", "sha1"), (b"f", "sha256"), (whole, "sha1")]
    assert sorted(hashes.done[1:]) == sorted(expected)


# The answer and the deadline


async def test_all_askers_send_the_same_bytes(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte that fifty clients asked for is one megabyte of memory."""
    finished: list[bytes] = []
    finish = ReplyQueue.finish

    def note(queue: ReplyQueue, slot: Any, answer: bytes) -> None:
        finished.append(answer)
        finish(queue, slot, answer)

    monkeypatch.setattr(ReplyQueue, "finish", note)
    children = Children(monkeypatch)
    async with running(log_file, running_programs=1) as it:
        clients = [await it.connect() for _ in range(4)]
        await clients[0].send_all(b"lastlog 1\nexit\n")
        await children.wait_until(lambda: children.running == 1)
        for client in clients[1:]:
            await client.send_all(b"lastlog 2\nexit\n")
        await it.asked(8)
        children.gate.set()
        for client in clients:
            await read_all(client)
    assert len(finished) == 4
    assert len({id(answer) for answer in finished}) == 2


async def test_the_deadline_runs_from_the_start_of_the_run(log_file: Path) -> None:
    """Who waited long for a place still has all the time there is."""
    happened: list[str] = []

    @contextmanager
    def limit(command: str, seconds: float) -> Iterator[None]:
        happened.append("clock started")
        yield

    room = WaitingRoom(9)
    reader = LogReader(FairLimiter(1, room), GroupReaper(), limit)
    hasher = Hashing(Comphash(threads=1), room, limit)
    path = os.fsencode(log_file)
    for work, places in (
        (partial(reader.newest, path, 1), reader._places),
        (partial(hasher.digest, path, "sha1"), hasher._places),
    ):
        happened.clear()
        async with trio.open_nursery() as nursery, places.place("another"):
            nursery.start_soon(partial(work, "me", begun=lambda: happened.append("begun")))
            await wait_all_tasks_blocked()
            assert happened == []
        assert happened == ["begun", "clock started"]


@pytest.mark.proof
def test_sharing_brings_what_is_promised() -> None:
    """Fifty clients in a loop get four times the answers, and never more children than allowed."""
    options = [] if os.environ.get("TRIO_CMD_FULL") == "1" else ["--rounds", "1", "--ratio", "1"]
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "sharing.py"), *options]
    env = {**os.environ, "PYTHONSAFEPATH": ""}  # the program imports its neighbour
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VOID" not in done.stdout
