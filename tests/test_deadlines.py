"""One sweeper keeps all deadlines: never early, at most a tick late."""

import pytest
import trio
from trio.testing import MockClock

from trio_cmd.errors import DeadlinePassed
from trio_cmd.server.deadlines import Clock, Sweeper, tick_seconds
from trio_cmd.settings import Limits


class Client:
    """Waits for whatever the test says."""

    def __init__(self, reading: Clock | None = None, writing: Clock | None = None) -> None:
        self.reading = reading
        self.writing = writing
        self.ended: list[tuple[float, str]] = []

    def clocks(self) -> tuple[Clock | None, Clock | None]:
        return self.reading, self.writing

    def expire(self, reason: str) -> None:
        self.ended.append((trio.current_time(), reason))


async def sweep_for(sweeper: Sweeper, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await sweeper.run()


async def test_a_deadline_comes_at_most_two_ticks_late_and_never_early(autojump_clock: MockClock) -> None:
    """A client gets all the time it was promised."""
    sweeper, client = Sweeper(0.25), Client(Clock("idle", 5, "idle"))
    began = trio.current_time()
    sweeper.watch(client)
    await sweep_for(sweeper, 5.6)
    assert client.ended[0][1] == "idle"
    assert 5 <= client.ended[0][0] - began <= 5.5


async def test_a_clock_starts_again_when_its_state_changes(autojump_clock: MockClock) -> None:
    """Who asks something in time is not idle."""
    sweeper, client = Sweeper(0.25), Client()
    sweeper.watch(client)
    for state in range(10):
        client.reading = Clock(state, 5, "idle")
        await sweep_for(sweeper, 4)
    assert client.ended == []


async def test_a_clock_that_stood_still_starts_again(autojump_clock: MockClock) -> None:
    """Time in which the server did not read is not the client's."""
    sweeper, client = Sweeper(0.25), Client()
    sweeper.watch(client)
    for clock in (Clock("line", 5, "slow-line"), None) * 5:
        client.reading = clock
        await sweep_for(sweeper, 4)
    assert client.ended == []


async def test_reading_and_writing_have_their_own_clocks(autojump_clock: MockClock) -> None:
    """A client that goes on asking and never reads is closed all the same."""
    sweeper, client = Sweeper(0.25), Client(writing=Clock("stuck", 5, "slow-reader"))
    sweeper.watch(client)
    for state in range(3):
        client.reading = Clock(state, 5, "idle")
        await sweep_for(sweeper, 2)
    assert client.ended[0][1] == "slow-reader"


async def test_a_forgotten_client_is_left_alone(autojump_clock: MockClock) -> None:
    """Who has gone is not ended again."""
    sweeper, client = Sweeper(0.25), Client(Clock("idle", 1, "idle"))
    sweeper.watch(client)
    sweeper.forget(client)
    await sweep_for(sweeper, 5)
    assert client.ended == []


class Leaving(Client):
    """Has gone when somebody else is ended."""

    def __init__(self, sweeper: Sweeper, other: Client) -> None:
        super().__init__(Clock("idle", 1, "idle"))
        self._sweeper = sweeper
        self._other = other

    def expire(self, reason: str) -> None:
        super().expire(reason)
        self._sweeper.forget(self._other)


class Closed(Client):
    """Has no descriptor that could be asked."""

    def __init__(self) -> None:
        super().__init__(Clock("idle", 1, "idle"))
        self.looks = 0

    def clocks(self) -> tuple[Clock | None, Clock | None]:
        self.looks += 1
        return super().clocks()


async def test_who_goes_while_others_are_ended_is_not_looked_at_any_more(autojump_clock: MockClock) -> None:
    """Whoever resets in that moment does not end the server: its descriptor is closed, or another's."""
    sweeper, closed = Sweeper(0.25), Closed()
    leaving = Leaving(sweeper, closed)
    sweeper.watch(leaving)
    sweeper.watch(closed)
    await sweeper.sweep()
    await trio.sleep(2)
    await sweeper.sweep()
    assert [reason for _, reason in leaving.ended] == ["idle"]
    assert closed.looks == 1
    assert closed.ended == []


async def test_others_run_between_the_ends_of_two_clients(autojump_clock: MockClock) -> None:
    """A thousand clients that time out at once do not stall the others."""
    sweeper = Sweeper(0.25)
    clients = [Client(Clock("idle", 1, "idle")) for _ in range(100)]
    for client in clients:
        sweeper.watch(client)
    await sweeper.sweep()
    await trio.sleep(2)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await sweeper.sweep()
        nursery.cancel_scope.cancel()
    assert all(client.ended for client in clients)
    assert turns > 50


async def test_work_has_its_deadline_too(autojump_clock: MockClock) -> None:
    """A hash of a dead disk is answered in time."""
    sweeper = Sweeper(0.25)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeper.run)
        began = trio.current_time()
        with (
            pytest.raises(DeadlinePassed, match=r"comphash not finished in 2\.5 s"),
            sweeper.limit("comphash", 2.5),
        ):
            await trio.sleep_forever()
        assert 2.5 <= trio.current_time() - began <= 2.75
        with sweeper.limit("comphash", 2.5):
            await trio.sleep(2)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("shortest", "tick"), [(0.05, 0.05), (2, 0.1), (30, 1.0), (3600, 1.0)])
def test_the_tick_is_a_twentieth_of_the_shortest_deadline(shortest: float, tick: float) -> None:
    """Short deadlines are kept exactly enough, long ones cost nothing."""
    limits = Limits(request_seconds=shortest, idle_seconds=3600, write_seconds=3600)
    assert tick_seconds(limits) == tick
