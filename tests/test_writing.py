import errno
import os
import select
import threading

import pytest
import trio
import trio.testing

from program import PATIENCE_SECONDS, wait_for
from trio_cmd.client.writing import Writer, write_all

MUCH = b"x" * (1 << 20)  # more than a pipe holds


async def test_a_slow_reader_stops_nobody_and_gets_everything() -> None:
    """Whoever pages through the answers does not make the other hosts late."""
    read, write = os.pipe()
    writer = Writer(write)
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            with open(read, "rb") as pipe:  # closed before a writer that waits for it is waited for
                nursery.start_soon(writer.run)
                for _ in range(4):
                    writer.put(MUCH)
                await writer.wait_for_room()
                writer.put(b"y")
                heard = await trio.to_thread.run_sync(pipe.read, 4 * len(MUCH) + 1)
                nursery.cancel_scope.cancel()
    os.close(write)
    assert heard == 4 * MUCH + b"y"


async def test_no_more_is_begun_while_too_much_waits() -> None:
    """The answers of ten thousand hosts do not pile up in memory behind a reader that sleeps."""
    read, write = os.pipe()
    writer = Writer(write)
    has_room = trio.Event()

    async def wait() -> None:
        await writer.wait_for_room()
        has_room.set()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            with open(read, "rb") as pipe:  # closed before a writer that waits for it is waited for
                nursery.start_soon(writer.run)
                for _ in range(5):
                    writer.put(MUCH)
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                assert not has_room.is_set()
                await trio.to_thread.run_sync(pipe.read, 5 * len(MUCH))
                await has_room.wait()
                nursery.cancel_scope.cancel()
    os.close(write)


async def test_the_writing_waits_for_no_look_up() -> None:
    """Forty names that no name server answers for do not hold back what is known."""
    read, write = os.pipe()
    writer = Writer(write)
    others = trio.to_thread.current_default_thread_limiter()
    for _ in range(int(others.total_tokens)):
        others.acquire_on_behalf_of_nowait(object())
    with trio.fail_after(PATIENCE_SECONDS), open(read, "rb") as pipe:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.put(b"known")
            await wait_for(lambda: bool(select.select([pipe], [], [], 0)[0]))
            nursery.cancel_scope.cancel()
        assert pipe.read1() == b"known"
    os.close(write)


def test_what_is_left_is_written_in_the_end() -> None:
    """The groups come when nothing is asked any more."""
    read, write = os.pipe()
    writer = Writer(write)
    writer.put(b"one ")
    writer.put(b"two")
    writer.flush()
    os.close(write)
    with open(read, "rb") as pipe:
        assert pipe.read() == b"one two"


async def test_a_reader_that_is_gone_ends_the_writing() -> None:
    """What nobody will read is not gathered."""
    read, write = os.pipe()
    os.close(read)
    writer = Writer(write)
    writer.put(b"x")
    with trio.fail_after(PATIENCE_SECONDS):
        await writer.run()
    assert writer.error is not None
    assert writer.error.errno == errno.EPIPE
    writer.put(MUCH * 8)
    await writer.wait_for_room()
    writer.flush()
    os.close(write)


def test_a_descriptor_that_does_not_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour may have left the terminal in a state in which a plain write fails."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    waits, poll = threading.Event(), select.poll

    def note_waiting() -> select.poll:
        waits.set()
        return poll()

    monkeypatch.setattr(select, "poll", note_waiting)
    with open(read, "rb") as pipe:
        thread = threading.Thread(target=write_all, args=(write, MUCH))
        thread.start()
        assert waits.wait(PATIENCE_SECONDS)
        assert pipe.read(len(MUCH)) == MUCH
        thread.join(PATIENCE_SECONDS)
    os.close(write)


def test_what_waits_behind_what_cannot_be_written_is_dropped() -> None:
    """A reader that is gone is not written to again and again."""
    read, write = os.pipe()
    os.close(read)
    writer = Writer(write)
    for _ in range(3):
        writer.put(MUCH)
    writer.flush()
    os.close(write)
    assert writer.error is not None
