"""Lines of many on their way to one reader that may be slow, or gone."""

import os
import threading
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from program import PATIENCE_SECONDS, wait_until
from trio_cmd.client.outlet import Outlet

PIPE_BYTES = 65536  # what a pipe takes that nobody reads


class Pipe:
    """A pipe; the test is its reader."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def close_reading(self) -> None:
        os.close(self.reading)
        self.reading = -1

    def close_writing(self) -> None:
        os.close(self.writing)
        self.writing = -1

    async def read_all(self) -> bytes:
        """Read until the writing end is closed."""
        return await trio.to_thread.run_sync(
            lambda: b"".join(iter(lambda: os.read(self.reading, 1 << 20), b""))
        )

    def close(self) -> None:
        """Close both ends; not the writing one while a thread may still write to its number."""
        if self.reading >= 0:
            self.close_reading()
        wait_until(lambda: not any("write_all" in t.name for t in threading.enumerate()), "nobody writes")
        if self.writing >= 0:
            self.close_writing()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


async def put_many(outlet: Outlet, name: str, count: int) -> None:
    for number in range(count):
        await outlet.put(f"{name} {number}\n".encode())


async def test_everything_is_written_and_each_keeps_its_order(pipe: Pipe) -> None:
    """What one host has written first is read first."""
    outlet = Outlet(pipe.writing, most_bytes=100)
    read: list[bytes] = []

    async def write() -> None:
        await outlet.run()
        pipe.close_writing()

    async def listen() -> None:
        read.append(await pipe.read_all())

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(write)
            async with trio.open_nursery() as putting:
                for name in "abc":
                    putting.start_soon(put_many, outlet, name, 200)
            outlet.close()
    lines = read[0].decode().splitlines()
    assert len(lines) == 600
    for name in "abc":
        assert [line for line in lines if line[0] == name] == [f"{name} {number}" for number in range(200)]


async def test_a_reader_that_does_not_read_holds_back_those_who_put(pipe: Pipe) -> None:
    """A pager that is left open over lunch costs no memory."""
    outlet = Outlet(pipe.writing, most_bytes=100_000)
    line = b"x" * 999 + b"\n"
    put = 0

    async def flood() -> None:
        nonlocal put
        while True:
            await outlet.put(line)
            put += len(line)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.run)
            nursery.start_soon(flood)
            while True:
                before = put
                await trio.testing.wait_all_tasks_blocked(0.05)  # the thread writes to the pipe meanwhile
                if put == before > PIPE_BYTES:
                    break
            assert put <= PIPE_BYTES + 2 * 100_000 + len(line)
            nursery.cancel_scope.cancel()


async def test_who_floods_leaves_the_others_their_turns(pipe: Pipe) -> None:
    """The quiet host is read beside the one that logs in a loop."""
    outlet = Outlet(pipe.writing)
    has_begun = trio.Event()

    async def be_loud() -> None:
        has_begun.set()
        await put_many(outlet, "loud", 1000)

    async def be_quiet() -> None:
        await has_begun.wait()
        await put_many(outlet, "quiet", 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_loud)
        nursery.start_soon(be_quiet)
    outlet.close()
    await outlet.run()
    assert os.read(pipe.reading, 1 << 20).decode().splitlines().index("quiet 0") < 10


async def test_a_reader_that_is_gone_is_told(pipe: Pipe) -> None:
    """Behind ``| head`` nobody goes on following for nobody."""
    outlet = Outlet(pipe.writing)
    pipe.close_reading()
    await outlet.put(b"line\n")
    with pytest.raises(BrokenPipeError):
        await outlet.run()


async def test_cancelling_does_not_wait_for_the_reader(pipe: Pipe) -> None:
    """Ctrl-C ends it, also while the pager does not read."""
    outlet = Outlet(pipe.writing)
    await outlet.put(b"x" * (PIPE_BYTES + 1))
    with trio.move_on_after(0.1) as scope, trio.fail_after(PATIENCE_SECONDS):
        await outlet.run()
    assert scope.cancelled_caught
    assert os.read(pipe.reading, PIPE_BYTES)  # the thread goes on, and its end is seen
    assert os.read(pipe.reading, 1) == b"x"
