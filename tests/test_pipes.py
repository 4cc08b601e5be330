"""The way of a program's output: who reads it when, and that nothing else is ever read."""

import fcntl
import os
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from program import PATIENCE_SECONDS, count_descriptors
from trio_cmd.work import pipes
from trio_cmd.work.pipes import Pipe, Readers


class Refused(Exception):
    pass


class Output:
    """Takes pieces, or refuses the next."""

    def __init__(self) -> None:
        self.data = b""
        self.refuses = False

    def take(self, piece: bytes) -> None:
        if self.refuses:
            raise Refused
        self.data += piece


async def forbid() -> None:
    """Be called by nobody."""
    raise AssertionError("nothing was refused")


async def test_what_waits_for_the_end_of_a_program_is_read_then() -> None:
    """A program that ends soon needs no task."""
    output = Output()
    pipe = Pipe(output.take)
    os.write(pipe.write_fd, bytes(65_536))
    pipe.give()
    assert pipe.read_last()
    assert output.data == bytes(65_536)
    pipe.close()


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="only on Linux a pipe can be widened")
async def test_pipe_holds_all_that_is_kept_of_most_programs() -> None:
    """The newest thousand lines of a log come as fast as the newest ten: nobody waits for a reader."""
    output = Output()
    pipe = Pipe(output.take)
    os.set_blocking(pipe.write_fd, False)
    assert os.write(pipe.write_fd, bytes(1 << 20)) == 1 << 20
    pipe.give()
    assert pipe.read_last()
    assert len(output.data) == 1 << 20
    pipe.close()


@pytest.mark.parametrize("is_known", [True, False])
async def test_pipe_that_cannot_be_widened_does_as_well(
    monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    """A user with very many pipes, and other systems, get the usual one."""

    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(fcntl, "F_SETPIPE_SZ", 1031 if is_known else None, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    output = Output()
    pipe = Pipe(output.take)
    os.write(pipe.write_fd, b"all")
    pipe.give()
    assert pipe.read_last()
    assert output.data == b"all"
    pipe.close()


async def test_pipe_that_is_still_held_is_not_at_its_end() -> None:
    """What the children of a program print is waited for a little: see ``run_program``."""
    output = Output()
    pipe = Pipe(output.take)
    os.write(pipe.write_fd, b"first ")
    assert not pipe.read_last()
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.wait_for_end)
            await wait_all_tasks_blocked()
            os.write(pipe.write_fd, b"last")
            pipe.give()
    assert output.data == b"first last"
    pipe.close()


async def test_child_that_prints_for_ever_does_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a program is not waited for in one breath."""
    output = Output()
    pipe = Pipe(output.take)

    def print_more(piece: bytes) -> None:
        output.take(piece)
        os.write(pipe.write_fd, b"more")

    pipe._take = print_more
    os.write(pipe.write_fd, b"more")
    assert not pipe.read_last()
    assert len(output.data) < 100
    pipe.close()


async def test_only_programs_that_run_for_longer_get_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what it was made for; and with the last of them the watch for them ends as well."""
    monkeypatch.setattr(pipes, "LATE_SECONDS", 0.001)
    readers = Readers()
    short, long = Output(), Output()
    ended, runs = Pipe(short.take), Pipe(long.take)
    for pipe in (ended, runs):
        os.write(pipe.write_fd, b"printed")
        readers.watch(pipe, forbid)
    readers.forget(ended)
    with trio.fail_after(PATIENCE_SECONDS):
        while not long.data:
            await trio.sleep(0.001)
        assert short.data == b""
        runs.give()
        await runs.wait_for_end()
        while readers._is_watching:
            await trio.sleep(0.001)
    for pipe in (ended, runs):
        pipe.close()


async def test_young_program_has_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that begins as another is looked at."""
    monkeypatch.setattr(pipes, "LATE_SECONDS", 3600.0)
    readers, output = Readers(), Output()
    pipe = Pipe(output.take)
    os.write(pipe.write_fd, b"printed")
    readers.watch(pipe, forbid)
    await wait_all_tasks_blocked()
    assert output.data == b""
    pipe.close()


async def test_output_that_is_refused_is_not_read_on(nursery: trio.Nursery) -> None:
    """The error is kept for the runner, the program is ended, and nothing more is taken."""
    output = Output()
    pipe = Pipe(output.take)
    refused = trio.Event()

    async def refuse() -> None:
        refused.set()
        await trio.sleep_forever()  # until the program has ended

    pipe.start(nursery, refuse)
    output.refuses = True
    os.write(pipe.write_fd, b"too much")
    with trio.fail_after(PATIENCE_SECONDS):
        await refused.wait()
        await pipe.wait_for_end()
        error = pipe.error
        assert isinstance(error, Refused)
        os.write(pipe.write_fd, b"more")
        assert pipe.read_last()
        assert pipe.error is error
        pipe.close()
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks


async def test_pipe_closed_before_its_task_begins_is_not_read(nursery: trio.Nursery) -> None:
    """A program may end in any moment, also in the one in which it has run for long."""
    pipe = Pipe(Output().take)
    before = count_descriptors()
    pipe.start(nursery, forbid)
    pipe.close()
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks
    assert count_descriptors() == before - 2


async def test_nothing_is_read_from_another_file_with_the_same_number(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Between the news that there is something to read and the reading a pipe may be closed."""
    (tmp_path / "secret").write_bytes(b"secret")
    for _ in range(20):  # which of the two tasks runs first is chance
        output = Output()
        pipe = Pipe(output.take)
        read_fd = pipe._read_fd
        pipe.start(nursery, forbid)
        await wait_all_tasks_blocked()
        other = os.dup(read_fd)
        os.write(pipe.write_fd, b"printed")
        await trio.lowlevel.wait_readable(other)
        pipe.close()
        secret = os.open(tmp_path / "secret", os.O_RDONLY)
        assert secret <= read_fd, "the number was not given again"
        os.dup2(secret, read_fd)
        await wait_all_tasks_blocked()
        assert output.data in (b"", b"printed")
        for fd in {other, secret, read_fd}:
            os.close(fd)
