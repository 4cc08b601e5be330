"""What slow work needs: how much there may be, and what is counted of it."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import trio

from trio_cmd.errors import Busy
from trio_cmd.server.workshop import Workshop, count_work
from trio_cmd.settings import Comphash, Limits, Program, Settings
from trio_cmd.work.sharing import SharingStatistics

MIB = 1 << 20


def settings(places: int, **others: Any) -> Settings:
    limits = Limits(
        running_programs=places,
        followers=places + 1,
        waiting=places + 2,
        total_pending_bytes=100 * MIB,
    )
    return Settings(limits=limits, comphash=Comphash(threads=places + 3), **others)


def make_workshop(of: Settings) -> Workshop:
    return Workshop(of, lambda command, seconds: nullcontext(), lambda error: None)


async def test_all_places_are_those_of_the_settings_also_of_later_ones() -> None:
    """What an operator changes is in force after a reload, and ``status`` says so."""
    workshop = make_workshop(settings(2))
    assert workshop.places() == {"hashing": 5, "children": 2, "followers": 3, "waiting": 4}
    workshop.resize(settings(7))
    assert workshop.places() == {"hashing": 10, "children": 7, "followers": 8, "waiting": 9}
    assert workshop.limiters() == {
        "hashing": [0, 10],
        "children": [0, 7],
        "followers": [0, 8],
        "waiting": [0, 9],
        "pending_bytes": [0, 93 * MIB],
    }


async def test_room_is_kept_for_what_the_largest_program_may_print() -> None:
    """Answers that are under way have a place in the memory that clients may take."""
    workshop = make_workshop(settings(2))
    workshop.budget.bytes = 97 * MIB
    workshop.budget.check()
    large = Program(argv=["/bin/true"], max_output_bytes=2 * MIB)
    workshop.resize(settings(2, programs={"large": large}))
    with pytest.raises(Busy):
        workshop.budget.check()


async def test_what_works_waits_and_hangs_is_counted(nursery: trio.Nursery) -> None:
    """A report tells what takes the places."""
    workshop = make_workshop(settings(1))
    assert workshop.queues() == {"runs": 0, "runs_waiting": 0, "reads_hung": 0}
    leaving = trio.Event()

    async def take_place(client: str) -> None:
        async with workshop._children.place(client):
            await leaving.wait()

    for client in ("one", "another"):
        nursery.start_soon(partial(take_place, client))
    await trio.testing.wait_all_tasks_blocked()
    now = workshop.statistics()
    assert now.running == {"hashing": 0, "children": 1, "followers": 0}
    assert now.waiting == {"hashing": 0, "children": 1}
    assert (now.hung, now.hashed_bytes, now.sharing) == (0, 0, SharingStatistics(0, 0, 0))
    assert workshop.limiters()["children"] == [1, 1]
    assert workshop.limiters()["waiting"] == [1, 3]
    leaving.set()


def test_descriptors_are_reserved_for_all_kinds_of_work() -> None:
    """Clients are never let in at the cost of what they could ask."""
    assert count_work(settings(4)) == 4 + 5 + 7
