"""Telling how far long work is."""

import gc
import os
import weakref
from pathlib import Path

import pytest
import trio
from test_hashing import SPARSE_BYTES, make_hashing
from trio.testing import MockClock

from program import PATIENCE_SECONDS
from trio_cmd.work import progress
from trio_cmd.work.progress import ProgressTeller

Told = list[tuple[float, int, int]]


def teller_of(told: Told) -> progress.Tell:
    began = trio.current_time()
    return lambda done, total: told.append((round(trio.current_time() - began), done, total))


async def test_long_work_is_told_each_second(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A client that waits for ten gigabytes sees that something moves."""
    teller, told = ProgressTeller(), list[tuple[float, int, int]]()
    nursery.start_soon(teller.run)
    await trio.sleep(0.77)
    with teller.telling(teller_of(told)) as work:
        for second in range(4):
            work.done, work.total = second * 10, 100
            await trio.sleep(0.9)
    assert told == [(1, 10, 100), (2, 20, 100), (3, 30, 100)]
    await trio.sleep(5)
    assert len(told) == 3


async def test_short_work_is_not_told(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Nine hundred small files are not nine hundred events."""
    teller, told = ProgressTeller(), list[tuple[float, int, int]]()
    nursery.start_soon(teller.run)
    for _ in range(5):
        with teller.telling(teller_of(told)) as work:
            work.done, work.total = 1, 2
            await trio.sleep(0.99)
    assert told == []


async def test_work_of_which_nothing_is_known_yet_is_not_told(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A dead disk says no size."""
    teller, told = ProgressTeller(), list[tuple[float, int, int]]()
    nursery.start_soon(teller.run)
    with teller.telling(teller_of(told)):
        await trio.sleep(5)
    assert told == []


async def test_without_work_the_teller_sleeps(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """An idle server wakes up for nothing."""
    teller, told = ProgressTeller(), list[tuple[float, int, int]]()
    nursery.start_soon(teller.run)
    with teller.telling(teller_of(told)):
        await trio.sleep(0.5)
    await trio.sleep(0.5)
    assert not teller._has_work.is_set()


async def test_work_that_has_ended_is_not_remembered(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Its folder, from settings of long ago, could not be given back until something else is hashed."""
    teller = ProgressTeller()
    nursery.start_soon(teller.run)
    asker = set[int]()
    left = weakref.ref(asker)
    with teller.telling(lambda done, total, asker=asker: asker.add(done)):  # type: ignore[misc]  # mypy infers no default
        await trio.sleep(0.5)
    del asker
    await trio.sleep(0.5)
    gc.collect()
    assert left() is None


async def test_a_long_hash_tells_how_far_it_is(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers are those of the thread that reads, and they are told in the event loop."""
    monkeypatch.setattr(progress, "SECONDS", 0.05)
    path = tmp_path / "big"
    path.touch()
    os.truncate(path, SPARSE_BYTES)
    hasher, told = make_hashing(), list[tuple[int, int]]()
    nursery.start_soon(hasher.run)
    enough = trio.Event()

    def tell(done: int, total: int) -> None:
        assert trio.lowlevel.in_trio_task()
        told.append((done, total))
        if len(told) == 3:
            enough.set()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as asking:
            asking.start_soon(hasher.digest, os.fsencode(path), "sha1", "client", tell)
            await enough.wait()
            asking.cancel_scope.cancel()
    assert [total for _, total in told] == [SPARSE_BYTES] * 3
    assert 0 < told[0][0] < told[1][0] < told[2][0] < SPARSE_BYTES
