"""Connections that come while nothing more may be recorded."""

import trio
from trio.testing import wait_all_tasks_blocked

from conversation import ListSink
from trio_cmd.records import make_logger
from trio_cmd.records.render import render_json
from trio_cmd.server.lobby import Lobby


class Door:
    """A lobby, and what it is told."""

    def __init__(self, free: int) -> None:
        self.sink = ListSink()
        self.is_held = True
        self.let_in: list[bool] = []
        self.lobby = Lobby(lambda: self.is_held, lambda: free, make_logger(self.sink, render_json))

    async def come(self) -> None:
        self.let_in.append(self.lobby.is_open() or await self.lobby.wait())


async def test_as_many_wait_as_there_are_places(nursery: trio.Nursery) -> None:
    """Descriptors that wait are taken from nobody, and what is not recorded one by one is summed up."""
    door = Door(free=2)
    for _ in range(5):
        nursery.start_soon(door.come)
    await wait_all_tasks_blocked()
    assert door.let_in == [False] * 3
    door.is_held = False
    with trio.fail_after(10):
        while len(door.let_in) < 5:
            await trio.lowlevel.checkpoint()
    assert door.let_in[3:] == [True, True]
    (summed,) = door.sink.actions("events-summed")
    assert (summed["of"], summed["count"], summed["client"]) == ("client-refused", 3, "anybody")


async def test_who_was_cancelled_leaves_a_place(nursery: trio.Nursery) -> None:
    """A connection that is cut while it waits keeps nobody else from waiting."""
    door = Door(free=1)
    with trio.move_on_after(0):
        await door.come()
    nursery.start_soon(door.come)
    await wait_all_tasks_blocked()
    assert door.let_in == []
    nursery.cancel_scope.cancel()


async def test_nobody_waits_for_a_place_where_nothing_is_held() -> None:
    """Without `hold`, or while the record is written, the lobby does not exist."""
    door = Door(free=0)
    door.is_held = False
    await door.come()
    assert door.let_in == [True]
    assert door.sink.records == []


async def test_the_first_who_need_not_wait_have_it_told_who_was_turned_away() -> None:
    """What could not be recorded is summed up as soon as it can be."""
    door = Door(free=0)
    await door.come()
    door.is_held = False
    await door.come()
    assert door.let_in == [False, True]
    (summed,) = door.sink.actions("events-summed")
    assert summed["count"] == 1
