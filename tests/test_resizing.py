"""Limits that change while they are in use: a lower one cuts nobody and holds back what comes."""

import pytest
import trio
from test_limiter import Bench
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_cmd.addresses import parse_address
from trio_cmd.errors import Busy, DeadlinePassed
from trio_cmd.server.admission import Admission
from trio_cmd.server.deadlines import Sweeper
from trio_cmd.server.handshakes import Handshakes, TlsDoor
from trio_cmd.server.replies import Budget
from trio_cmd.work.limiter import FairLimiter, LimiterStatistics, WaitingRoom

FAR = parse_address("192.0.2.1")


async def test_more_places_let_those_in_who_wait(nursery: trio.Nursery) -> None:
    """Raising a limit helps at once, in the order of turns."""
    bench = Bench(nursery, places=1)
    pieces = await bench.ask_all("a", "a", "b", "c")
    bench.limiter.resize(3)
    await wait_all_tasks_blocked()
    assert [piece.is_running for piece in pieces] == [True, True, True, False]
    assert bench.limiter.statistics() == LimiterStatistics(running=3, waiting=1)
    await bench.finish_all()


async def test_fewer_places_end_nothing_and_let_nothing_in(nursery: trio.Nursery) -> None:
    """What runs goes on to its end; the next begins when there is a place by the new count."""
    bench = Bench(nursery, places=3)
    pieces = await bench.ask_all("a", "b", "c", "d")
    bench.limiter.resize(1)
    assert bench.limiter.statistics() == LimiterStatistics(running=3, waiting=1)
    for number, is_fourth_running in ((0, False), (1, False), (2, True)):
        pieces[number].finish()
        await wait_all_tasks_blocked()
        assert pieces[3].is_running is is_fourth_running
    await bench.finish_all()
    assert bench.limiter.statistics() == LimiterStatistics(running=0, waiting=0)


async def test_a_smaller_waiting_room_sends_nobody_away(nursery: trio.Nursery) -> None:
    """Who waits already has been promised an answer."""
    room = WaitingRoom(2)
    limiter = FairLimiter(1, room)
    async with limiter.place("a"):
        done = trio.Event()

        async def wait() -> None:
            async with limiter.place("b"):
                done.set()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        room.max_waiting = 0
        with pytest.raises(Busy):
            async with limiter.place("c"):
                raise AssertionError
    with trio.fail_after(5):
        await done.wait()


def test_fewer_clients_cut_nobody() -> None:
    """Whoever is in stays; the next comes in when enough have left."""
    admission, clients = Admission(3, 3), [object() for _ in range(3)]
    assert all(admission.try_admit(client, FAR) for client in clients)
    admission.resize(1, 3)
    assert (admission.clients, admission.max_clients) == (3, 1)
    newcomer = object()
    for client in clients:
        assert not admission.try_admit(newcomer, FAR)
        admission.leave(client)
    assert admission.try_admit(newcomer, FAR)


def test_more_clients_come_in_at_once() -> None:
    """An address that was full has places again; the last three stay for who is at the host."""
    admission = Admission(1, 1)
    assert admission.try_admit("a", FAR)
    assert not admission.try_admit("b", FAR)
    admission.resize(10, 9)
    assert [admission.try_admit(name, FAR) for name in "bcdefgh"] == [True] * 6 + [False]


def test_the_budget_of_answers_changes_for_what_comes() -> None:
    """Answers that were finished are written, whatever the limit is now."""
    budget = Budget(1000)
    budget.bytes = 800
    budget.check()
    budget.resize(800, 0)
    with pytest.raises(Busy):
        budget.check()
    budget.resize(2000, 100)
    budget.check()


def test_the_number_of_handshakes_follows_the_clients() -> None:
    """A quarter of the clients may shake hands at once, also after a reload."""
    handshakes, door = Handshakes(100), TlsDoor(100)
    handshakes.resize(400)
    door.resize(400)
    assert handshakes.max_in_all == door._handshakes.max_in_all == 100


async def test_the_sweeper_takes_another_pace(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A shorter deadline is kept as exactly as one that was there from the start."""
    sweeper = Sweeper(1)
    nursery.start_soon(sweeper.run)
    sweeper.tick_seconds = 0.05
    await trio.sleep(2)
    began = trio.current_time()
    with pytest.raises(DeadlinePassed), sweeper.limit("it", 0.2):
        await trio.sleep_forever()
    assert trio.current_time() - began < 0.3
    nursery.cancel_scope.cancel()
