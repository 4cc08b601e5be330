"""One host that is followed: its tries, the pauses between them, and what is said of them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from trio_cmd.client.answers import Skipped
from trio_cmd.client.errors import AskError, CommandError, ConnectionLost, Refused, Unreachable
from trio_cmd.client.follower import Follower, Pauses
from trio_cmd.client.hosts import Host


class ScriptedFleet:
    """Hands out what the test has written down, on a clock that jumps.

    Each try takes one piece: an error, or lines and then an error; a number is a silence of seconds.
    """

    def __init__(self, *tries: list[Any]) -> None:
        self._tries = iter(tries)
        self.tried: list[float] = []
        self.said: list[tuple[float, str]] = []
        self.events: list[str | Skipped] = []

    @asynccontextmanager
    async def open(self, host: Host) -> AsyncIterator[AsyncIterator[str | Skipped]]:
        self.tried.append(trio.current_time())
        steps = next(self._tries)
        if isinstance(steps[0], AskError) and steps[0].code == "unreachable":
            raise steps[0]
        yield self._play(steps)

    async def note(self, host: Host, text: str) -> None:
        self.said.append((trio.current_time(), text))

    async def put(self, host: Host, event: str | Skipped) -> None:
        self.events.append(event)

    async def _play(self, steps: list[Any]) -> AsyncIterator[str | Skipped]:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await trio.sleep(step)
            else:
                yield step


LOST = [ConnectionLost("the connection was lost")]
NOBODY = [Unreachable("nobody listens there")]
BUSY = [0.5, CommandError("busy", "enough logs are being followed")]
FINAL = [CommandError("not-found", "no log named 'x'")]


async def pauses_between(*tries: list[Any], spread: float = 0.0) -> tuple[list[float], ScriptedFleet]:
    """Give the pauses between scripted tries, each from the beginning of one to that of the next."""
    fleet = ScriptedFleet(*tries, FINAL)
    follower = Follower(Host("web1", "127.0.0.1"), fleet, Pauses(spread=spread), trio.CapacityLimiter(1))
    async with trio.open_nursery() as nursery:
        await follower.run(nursery)
        nursery.cancel_scope.cancel()
    return [later - sooner for sooner, later in zip(fleet.tried, fleet.tried[1:], strict=False)], fleet


async def test_pauses_grow_from_a_second_to_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    """A host that is switched off for the night costs a try a minute, and one line."""
    pauses, fleet = await pauses_between(*[NOBODY] * 9)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [text for _, text in fleet.said] == [
        "error: nobody listens there (unreachable); trying again",
        "error: no log named 'x' (not-found); not tried again",
    ]


async def test_after_it_has_worked_the_first_pause_is_short_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A host that is restarted every day is followed again at once every day."""
    worked = ["a line", *LOST]
    pauses, fleet = await pauses_between(NOBODY, NOBODY, NOBODY, worked, NOBODY)
    assert pauses == [1, 2, 4, 1, 2]
    assert fleet.events == ["a line"]
    assert [text for _, text in fleet.said][:3] == [
        "error: nobody listens there (unreachable); trying again",
        "followed again (what was written meanwhile is not shown)",
        "error: the connection was lost (connection-lost); trying again",
    ]


async def test_a_quiet_log_is_followed_again_too(autojump_clock: trio.testing.MockClock) -> None:
    """That a host is back is said although its log has nothing to say."""
    pauses, fleet = await pauses_between(NOBODY, NOBODY, [10.0, *LOST])
    assert pauses == [1, 2, 11]
    assert fleet.said[1] == (fleet.tried[2] + 2, "followed again (what was written meanwhile is not shown)")


async def test_a_host_that_refuses_at_once_has_not_worked(autojump_clock: trio.testing.MockClock) -> None:
    """A server that is full is not asked every second."""
    pauses, fleet = await pauses_between(*[BUSY] * 4)
    assert pauses == [1.5, 2.5, 4.5, 8.5]
    assert [text for _, text in fleet.said][:-1] == [
        "error: enough logs are being followed (busy); trying again"
    ]


async def test_pauses_are_spread(autojump_clock: trio.testing.MockClock) -> None:
    """A thousand followers of a server that was restarted do not come in one moment."""
    pauses, _ = await pauses_between(*[NOBODY] * 40, spread=0.2)
    last = pauses[6:]
    assert len(set(last)) > 20
    assert 48 <= min(last) < max(last) <= 72


async def test_a_following_that_ends_without_a_reason_is_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whatever a server does, the host is said or followed."""
    pauses, fleet = await pauses_between(["a line", Skipped(3)])
    assert pauses == [1]
    assert fleet.events == ["a line", Skipped(3)]
    assert fleet.said[0][1] == "error: the server has ended the following (connection-lost); trying again"


async def test_a_fault_with_one_host_leaves_the_others_alone(autojump_clock: trio.testing.MockClock) -> None:
    """What nobody has thought of ends no other following, and is one line."""
    pauses, fleet = await pauses_between([ValueError("surprise")])
    assert pauses == [1]
    assert re.fullmatch(
        r"error: a fault of trio-cmd itself, .*ValueError: surprise.* \(internal\); trying again",
        fleet.said[0][1],
    )


async def test_an_address_that_may_not_connect_is_not_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What the operator of the other host must change does not change by itself."""
    fleet = ScriptedFleet([Refused("Not allowed from 192.0.2.7. bye !")])
    follower = Follower(Host("web1", "127.0.0.1"), fleet, Pauses(), trio.CapacityLimiter(1))
    async with trio.open_nursery() as nursery:
        await follower.run(nursery)
        nursery.cancel_scope.cancel()
    assert [text for _, text in fleet.said] == [
        "error: Not allowed from 192.0.2.7. bye ! (refused); not tried again"
    ]
