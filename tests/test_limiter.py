import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_cmd.errors import Busy
from trio_cmd.work.limiter import FairLimiter, LimiterStatistics, WaitingRoom

BOUND_SECONDS = 30


class Piece:
    """A piece of work of a client: it asks for a place, holds it until told to finish, or is cancelled."""

    def __init__(self, limiter: FairLimiter, client: str, began: list["Piece"]) -> None:
        self.client = client
        self.is_running = False
        self.is_refused = False
        self.is_over = False
        self._limiter = limiter
        self._began = began
        self._done = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self._scope:
                async with self._limiter.place(self.client):
                    self.is_running = True
                    self._began.append(self)
                    await self._done.wait()
        except Busy:
            self.is_refused = True
        finally:
            self.is_running, self.is_over = False, True

    def finish(self) -> None:
        self._done.set()

    def cancel(self) -> None:
        self._scope.cancel()


class Bench:
    """A limiter, and pieces of work that ask it for places."""

    def __init__(self, nursery: trio.Nursery, places: int = 1, max_waiting: int = 256) -> None:
        self.limiter = FairLimiter(places, WaitingRoom(max_waiting))
        self.began: list[Piece] = []
        self.pieces: list[Piece] = []
        self._nursery = nursery

    async def ask(self, client: str) -> Piece:
        piece = Piece(self.limiter, client, self.began)
        self.pieces.append(piece)
        self._nursery.start_soon(piece.run)
        await wait_all_tasks_blocked()
        return piece

    async def ask_all(self, *clients: str) -> list[Piece]:
        return [await self.ask(client) for client in clients]

    async def finish_all(self) -> str:
        """Finish piece after piece; returns the clients in the order they began."""
        while any(piece.is_running for piece in self.pieces):
            for piece in self.pieces:
                if piece.is_running:
                    piece.finish()
                    break
            await wait_all_tasks_blocked()
        return "".join(piece.client for piece in self.began)


async def test_as_many_run_as_there_are_places(nursery: trio.Nursery) -> None:
    """What the settings allow is used, and not more: the host has other work too."""
    bench = Bench(nursery, places=2)
    first, second, third = await bench.ask_all("a", "b", "c")
    assert [first.is_running, second.is_running, third.is_running] == [True, True, False]
    assert bench.limiter.statistics() == LimiterStatistics(running=2, waiting=1)
    first.finish()
    await wait_all_tasks_blocked()
    assert third.is_running
    assert bench.limiter.statistics() == LimiterStatistics(running=2, waiting=0)
    await bench.finish_all()
    assert bench.limiter.statistics() == LimiterStatistics(running=0, waiting=0)


async def test_free_place_is_taken_without_a_pause(nursery: trio.Nursery) -> None:
    """Where there is no crowd nothing is slower for the fairness."""
    limiter = FairLimiter(1, WaitingRoom(0))
    with trio.fail_after(BOUND_SECONDS):
        async with limiter.place("a"):
            assert limiter.statistics() == LimiterStatistics(running=1, waiting=0)
    assert limiter.statistics() == LimiterStatistics(running=0, waiting=0)


async def test_first_piece_of_each_client_goes_before_the_second_of_another(nursery: trio.Nursery) -> None:
    """A client that asks a hundred things makes nobody wait for a hundred things."""
    bench = Bench(nursery)
    await bench.ask_all("-", *"aaaa", *"bb", "c")
    assert await bench.finish_all() == "-abcabaa"


async def test_who_comes_late_waits_for_one_piece_of_the_others_at_most(nursery: trio.Nursery) -> None:
    """A quick question is answered soon, however much another client has asked for."""
    bench = Bench(nursery)
    await bench.ask_all(*"aaaaa")
    bench.pieces[0].finish()
    await wait_all_tasks_blocked()
    await bench.ask("b")
    assert await bench.finish_all() == "aaabaa"


async def test_work_of_one_client_begins_in_the_order_asked(nursery: trio.Nursery) -> None:
    """Its answers leave in that order: the first must not be the last to begin."""
    bench = Bench(nursery)
    pieces = await bench.ask_all(*"aaaa")
    await bench.finish_all()
    assert bench.began == pieces


async def test_more_than_may_wait_is_refused_at_once(nursery: trio.Nursery) -> None:
    """A queue without end would answer nobody; the client learns to come back later."""
    bench = Bench(nursery, max_waiting=2)
    await bench.ask_all(*"abcd")
    assert [piece.is_refused for piece in bench.pieces] == [False, False, False, True]
    bench.pieces[0].finish()
    await wait_all_tasks_blocked()
    assert not (await bench.ask("e")).is_refused
    assert await bench.finish_all() == "abce"


async def test_busy_says_what_to_do() -> None:
    """The operator reads why there is no answer."""
    limiter = FairLimiter(1, WaitingRoom(0))
    async with limiter.place("a"):
        with pytest.raises(Busy, match=r"^too much work is waiting already; try again later$"):
            async with limiter.place("b"):
                pytest.fail("nobody may wait")


async def test_waiting_room_is_shared_by_limiters(nursery: trio.Nursery) -> None:
    """The bound is for all work of the server, whatever its kind."""
    room = WaitingRoom(1)
    logs, hashes = FairLimiter(1, room), FairLimiter(1, room)
    async with logs.place("a"), hashes.place("a"):
        waiting = Piece(logs, "b", [])
        nursery.start_soon(waiting.run)
        await wait_all_tasks_blocked()
        with pytest.raises(Busy):
            async with hashes.place("c"):
                pytest.fail("the only chair is taken")
        waiting.cancel()
        await wait_all_tasks_blocked()
        room.enter()  # raises if the chair was not given back


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_who_is_cancelled_while_waiting_is_forgotten(which: int, nursery: trio.Nursery) -> None:
    """A client that leaves takes nobody's turn and nobody's chair."""
    bench = Bench(nursery, max_waiting=3)
    pieces = await bench.ask_all("-", *"aab")
    pieces[1 + which].cancel()
    await wait_all_tasks_blocked()
    assert bench.limiter.statistics() == LimiterStatistics(running=1, waiting=2)
    assert not (await bench.ask("c")).is_refused
    assert await bench.finish_all() == ("-abc", "-abc", "-aca")[which]
    assert bench.limiter.statistics() == LimiterStatistics(running=0, waiting=0)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("first", ["cancelled", "handed over"])
async def test_place_handed_to_a_client_that_leaves_in_this_moment_goes_on(
    first: str, others: int, nursery: trio.Nursery
) -> None:
    """Else each such moment would cost the server a place for ever."""
    bench = Bench(nursery, max_waiting=2)
    is_time = trio.Event()

    async def hold() -> None:
        async with bench.limiter.place("holder"):
            await is_time.wait()
            if first == "cancelled":
                leaving.cancel()
        if first == "handed over":
            leaving.cancel()  # in either case the task that waits has not run between the two

    nursery.start_soon(hold)
    await wait_all_tasks_blocked()
    leaving, *_ = await bench.ask_all("leaves", *["stays"] * others)
    is_time.set()
    await wait_all_tasks_blocked()
    assert leaving.is_over
    assert bench.limiter.statistics() == LimiterStatistics(running=others, waiting=0)
    await bench.finish_all()
    assert bench.limiter.statistics() == LimiterStatistics(running=0, waiting=0)


PLACES, MAX_WAITING = 2, 3

Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "finish", "cancel", "settle"]), st.integers(0, 5)), max_size=40
)


async def take_steps(steps: list[Step]) -> None:
    """Ask, finish and cancel as told, and look at the limiter whenever everybody is at rest."""
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, PLACES, MAX_WAITING)
        for step, number in [*steps, ("settle", 0)]:
            alive = [piece for piece in bench.pieces if not piece.is_over]
            chosen = alive[number % len(alive)] if alive else None
            if step == "ask":
                await wait_all_tasks_blocked()
                has_room = sum(not piece.is_over for piece in bench.pieces) < PLACES + MAX_WAITING
                assert (await bench.ask("abc"[number % 3])).is_refused is not has_room
            elif step == "settle":
                await wait_all_tasks_blocked()
                check_at_rest(bench)
            elif chosen is not None:
                (chosen.finish if step == "finish" else chosen.cancel)()
        for piece in bench.pieces:
            piece.cancel()
        await wait_all_tasks_blocked()
        check_at_rest(bench)
        again = await bench.ask_all(*"abcab")
        assert not any(piece.is_refused for piece in again), "a place or a chair was lost"
        assert sum(piece.is_running for piece in again) == PLACES
        nursery.cancel_scope.cancel()


def check_at_rest(bench: Bench) -> None:
    """No place stands empty while somebody waits, and nobody overtakes himself."""
    alive = [piece for piece in bench.pieces if not piece.is_over]
    running = min(PLACES, len(alive))
    assert bench.limiter.statistics() == LimiterStatistics(running, len(alive) - running)
    assert sum(piece.is_running for piece in alive) == running
    for client in "abc":
        is_running = [piece.is_running for piece in alive if piece.client == client]
        assert is_running == sorted(is_running, reverse=True), "a later piece began before an earlier one"


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_no_order_of_asking_finishing_and_leaving_loses_a_place(steps: list[Step]) -> None:
    """The server runs for months: a place lost once a day is a server that stops working."""
    trio.run(take_steps, steps)
