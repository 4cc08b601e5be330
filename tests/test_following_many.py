"""A log followed on many hosts: real servers, one of them killed and started again, and slow readers."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, free_port, wait_for
from trio_cmd.client.answers import Skipped
from trio_cmd.client.follower import Pauses
from trio_cmd.client.following import _format_json, _format_text, follow_fleet
from trio_cmd.client.hosts import Host
from trio_cmd.client.options import Options

pytestmark = pytest.mark.usefixtures("no_orphans")

SOON = Pauses(shortest=0.02, longest=0.1, settled=0.05)


class Reader:
    """Reads a pipe line by line in a thread, from when it is told to."""

    def __init__(self) -> None:
        self.reading, self.fd = os.pipe()
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        os.close(self.fd)
        if self._thread.ident is None:
            os.close(self.reading)
        else:
            self._thread.join(PATIENCE_SECONDS)

    def leave(self) -> None:
        """Be gone without having read."""
        os.close(self.reading)
        self.reading = os.open("/dev/null", os.O_RDONLY)

    def _read(self) -> None:
        with open(self.reading, encoding="utf-8", newline="\n") as file:
            for line in file:
                self.lines.append(line.removesuffix("\n"))


class Followed:
    """``follow_fleet`` under way: its lines, its notes, and in the end its exit code."""

    def __init__(self) -> None:
        self.stdout = Reader()
        self.stderr = Reader()
        self.stderr.start()
        self.code: int | None = None
        self.error: OSError | None = None

    @property
    def lines(self) -> list[str]:
        return self.stdout.lines

    @property
    def notes(self) -> list[str]:
        return self.stderr.lines

    async def run(self, options: Options, pauses: Pauses) -> None:
        try:
            self.code = await follow_fleet(
                options, stdout=self.stdout.fd, stderr=self.stderr.fd, pauses=pauses
            )
        except OSError as error:
            self.error = error

    async def ended(self) -> None:
        await wait_for(lambda: self.code is not None or self.error is not None)

    async def noted(self, note: str, count: int = 1) -> None:
        """Wait until something was said so often."""
        await wait_for(lambda: self.notes.count(note) >= count)

    def of(self, host: str) -> list[str]:
        """The lines of a host that the test has not written to see whether it is followed."""
        mine = [line.removeprefix(f"{host}: ") for line in self.lines if line.startswith(f"{host}: ")]
        return [line for line in mine if line != "poke"]


@asynccontextmanager
async def following(
    *hosts: Host, is_read: bool = True, pauses: Pauses = SOON, **options: Any
) -> AsyncIterator[Followed]:
    """Follow in the background; it is cancelled if it does not end before."""
    followed = Followed()
    if is_read:
        followed.stdout.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.run, Options(hosts, **{"follow": "", **options}), pauses)
        try:
            yield followed
        finally:
            nursery.cancel_scope.cancel()
    followed.stdout.close()
    followed.stderr.close()


def write(log: Path, *lines: str) -> None:
    with log.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


async def poke(log: Path, is_seen: Callable[[], bool]) -> None:
    """Write to a log until it is seen: from when on a host follows, nothing tells."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not is_seen():
            write(log, "poke")
            with trio.move_on_after(0.05):
                await wait_for(is_seen)


async def poked(followed: Followed, name: str, log: Path) -> None:
    """Wait until a host is followed, and what was written before has been read."""
    seen = len(followed.lines)
    await poke(log, lambda: f"{name}: poke" in followed.lines[seen:])
    write(log, "followed")
    await wait_for(lambda: f"{name}: followed" in followed.lines[seen:])


def count_read(io: Path) -> int:
    """How many bytes a process has read."""
    return int(io.read_text().split()[1])


def is_readable(fd: int) -> bool:
    """Look whether something waits in a pipe."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    """Two empty logs."""
    paths = [tmp_path / "log1", tmp_path / "log2"]
    for path in paths:
        path.touch()
    return paths


def host_of(name: str, program: Program) -> Host:
    return Host(name, "127.0.0.1", program.port)


async def test_lines_of_all_hosts_are_merged_and_each_keeps_its_order(
    start: StartProgram, logs: list[Path]
) -> None:
    """One window for a fleet: what happens on two hosts at once is seen together."""
    hosts = [host_of(f"web{n}", start("--log", f"syslog={log}")) for n, log in enumerate(logs)]
    async with following(*hosts) as followed:
        for host, log in zip(hosts, logs, strict=True):
            await poked(followed, host.name, log)
        expected: list[str] = []
        for number in range(100):
            expected.append(f"line {number}")
            for log in logs:
                write(log, f"line {number}")
        write(logs[0], "\x1b[31mred\x9b \u202e")
        await wait_for(lambda: all(len(followed.of(host.name)) > 100 for host in hosts))
        await wait_for(lambda: len(followed.of("web0")) > 101)
        assert followed.of("web0")[1:] == [*expected, r"\x1b[31mred\x9b \u202e"]
        assert followed.of("web1")[1:] == expected
        assert not followed.notes
        assert followed.code is None


async def test_a_server_that_is_killed_is_said_and_followed_again(
    start: StartProgram, logs: list[Path]
) -> None:
    """Whoever watches a restart sees the host go and come, and need not start anew."""
    port = free_port()
    arguments = ("--port", str(port), "--log", f"syslog={logs[0]}")
    program = start(*arguments)
    other = host_of("other", start("--log", f"syslog={logs[1]}"))
    assert program.port == port
    async with following(Host("web1", "127.0.0.1", port), other) as followed:
        await poked(followed, "web1", logs[0])
        await poked(followed, "other", logs[1])
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        await wait_for(lambda: len(followed.notes) >= 2)  # lost, and then: nobody listens there
        write(logs[1], "meanwhile")
        await wait_for(lambda: "other: meanwhile" in followed.lines)
        assert all(note.startswith("web1: ") and note.endswith("; trying again") for note in followed.notes)
        assert len(followed.notes) == len(set(followed.notes)) == 2  # however often it was tried
        assert start(*arguments).port == port
        await followed.noted("web1: followed again (what was written meanwhile is not shown)")
        await poked(followed, "web1", logs[0])
        assert len(followed.notes) == 3


async def test_what_trying_again_does_not_change_is_final(start: StartProgram, logs: list[Path]) -> None:
    """A slip in the name of a log ends the program instead of filling the screen."""
    program = start("--log", f"auth={logs[0]}")
    async with following(host_of("web1", program), follow="nope") as followed:
        await followed.ended()
        assert followed.code == 3
    assert followed.notes == [
        "web1: error: no log named 'nope'; the logs are: auth (not-found); not tried again"
    ]
    assert not followed.lines


async def test_when_some_had_lines_the_exit_code_says_so(start: StartProgram, logs: list[Path]) -> None:
    """A script can tell a fleet that it has seen nothing of from one that it has lost."""
    port = str(free_port())
    program = start("--port", port, "--log", f"syslog={logs[0]}")
    host = host_of("web1", program)
    async with following(host, follow="syslog") as followed:
        await poked(followed, "web1", logs[0])
        program.stop()
        await followed.noted("web1: error: Server is stopping. bye ! (refused); trying again")
        start("--port", port, "--log", f"auth={logs[0]}")
        await followed.ended()
        assert followed.code == 1
    assert followed.notes[-1].endswith("; not tried again")


async def test_lines_are_json_on_demand(start: StartProgram, logs: list[Path]) -> None:
    """A program that reads the lines of many hosts need not guess where the name ends."""
    program = start("--log", f"syslog={logs[0]}")
    async with following(host_of("web1", program), output="json") as followed:
        await poke(logs[0], lambda: bool(followed.lines))
        write(logs[0], 'a "line" \x1b é')
        await wait_for(lambda: "line" in followed.lines[-1] and "poke" not in followed.lines[-1])
    program.wait_for("client-lost")
    assert len(program.actions("client-connected")) == 1  # a follower takes one place
    assert followed.lines[-1].isascii()
    assert json.loads(followed.lines[-1]) == {
        "host": "web1",
        "event": "line",
        "line": 'a "line" \\x1b é',
    }


def test_what_a_host_sends_is_shown_safely() -> None:
    """A server that has been taken over does not get at the terminal of whoever watches it."""
    assert _format_text(Host("web1", "127.0.0.1"), "\x1b[31mred\x9b\nweb2: x") == (
        "web1: \\x1b[31mred\\x9b\\x0aweb2: x\n"
    )


def test_left_out_lines_are_told_as_json_too() -> None:
    """A program sees the gap where it is."""
    line = _format_json(Host("web1", "127.0.0.1"), Skipped(7))
    assert json.loads(line) == {"host": "web1", "event": "skipped", "lines": 7}


async def test_for_a_slow_reader_the_server_leaves_out_lines_and_says_how_many(
    start: StartProgram, logs: list[Path]
) -> None:
    """A pager that does not read costs neither end memory, and what is missing is told in its place."""
    program = start("--log", f"syslog={logs[0]}")
    count = 30_000
    async with following(host_of("web1", program), is_read=False) as followed:
        await poke(logs[0], lambda: is_readable(followed.stdout.reading))
        (tail,) = (Path(f"/proc/{pid}/io") for pid in program.children())
        before = count_read(tail)
        write(logs[0], *(f"{number} {'x' * 1000}" for number in range(count)))
        await wait_for(lambda: count_read(tail) > before + 1000 * count)
        followed.stdout.start()
        write(logs[0], "the end")
        await wait_for(lambda: "web1: the end" in followed.lines)
        told = [line for line in followed.of("web1") if line != "the end"]
    skipped = [int(line.split()[0]) for line in told if line.endswith(" lines skipped")]
    numbers = [int(line.split()[0]) for line in told if line.endswith("x")]
    assert skipped
    assert sum(skipped) + len(numbers) == count
    assert numbers == sorted(numbers)


@contextmanager
def ask_to_follow(program: Program) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program that people use, from its command line; it ends with the block at the latest."""
    command = [sys.executable, "-m", "trio_cmd", "ask", f"127.0.0.1:{program.port}", "--", "follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        try:
            yield asking
        finally:
            asking.kill()


async def test_ctrl_c_ends_it_in_order(start: StartProgram, logs: list[Path]) -> None:
    """The usual end leaves no traceback, and the lines that were read are there."""
    program = start("--log", f"syslog={logs[0]}")
    with ask_to_follow(program) as asking:
        assert asking.stdout is not None
        output = asking.stdout.fileno()
        await poke(logs[0], lambda: is_readable(output))
        asking.send_signal(signal.SIGINT)
        stdout, stderr = asking.communicate(timeout=PATIENCE_SECONDS)
    assert asking.returncode == 130
    assert set(stdout.splitlines()) == {b"127.0.0.1:%d: poke" % program.port}
    assert not stderr


async def test_ctrl_c_ends_it_although_nobody_reads(start: StartProgram, logs: list[Path]) -> None:
    """A pager that was stopped does not keep it alive."""
    program = start("--log", f"syslog={logs[0]}")
    with ask_to_follow(program) as asking:
        assert asking.stdout is not None
        output = asking.stdout.fileno()
        await poke(logs[0], lambda: is_readable(output))
        write(logs[0], *["x" * 1000] * 1000)
        (tail,) = (Path(f"/proc/{pid}/io") for pid in program.children())
        await wait_for(lambda: count_read(tail) > 1_000_000)
        asking.send_signal(signal.SIGINT)
        await wait_for(lambda: asking.poll() is not None)
    assert asking.returncode == 130


async def test_a_reader_that_is_gone_ends_it(start: StartProgram, logs: list[Path]) -> None:
    """Behind ``| head`` nothing goes on in the background."""
    program = start("--log", f"syslog={logs[0]}")
    async with following(host_of("web1", program), is_read=False) as followed:
        followed.stdout.leave()
        await poke(logs[0], lambda: followed.error is not None)
        assert isinstance(followed.error, BrokenPipeError)


async def test_a_lost_standard_error_takes_only_notes_with_it(start: StartProgram, logs: list[Path]) -> None:
    """A closed window of complaints does not end what writes to a file."""
    program = start("--log", f"syslog={logs[0]}")
    nobody = Host("web2", "127.0.0.1", free_port())
    reading, writing = os.pipe()
    os.close(reading)
    stdout = Reader()
    stdout.start()
    options = Options((nobody, host_of("web1", program)), follow="")
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            await follow_fleet(options, stdout=stdout.fd, stderr=writing, pauses=SOON)

        nursery.start_soon(follow)
        await poke(logs[0], lambda: "web1: poke" in stdout.lines)
        nursery.cancel_scope.cancel()
    os.close(writing)
    stdout.close()
