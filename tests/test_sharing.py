"""Many askers, one run: who joins, who is told what, and what is left behind."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_cmd.errors import Busy, DeadlinePassed, NotFound
from trio_cmd.work import runs
from trio_cmd.work.limiter import FairLimiter, WaitingRoom
from trio_cmd.work.runs import Run
from trio_cmd.work.sharing import YOUNG_SECONDS, Sharing, SharingStatistics, SharingUnder

IDLE = SharingStatistics(running=0, waiting=0, sharers=0)
BOUND_SECONDS = 30


class Question:
    """One asker: what it asked, when, and what it was told."""

    def __init__(self, asked: int) -> None:
        self.asked = asked
        self.is_shared: bool | None = None
        self.told: list[tuple[int, int]] = []
        self.work: Work | None = None  # that answered it
        self.error: BaseException | None = None
        self.is_over = False
        self.scope = trio.CancelScope()

    def progress(self, done: int, total: int) -> None:
        self.told.append((done, total))

    @property
    def is_answered(self) -> bool:
        return self.work is not None or self.error is not None


class Work:
    """One piece of work: the test lets it have its place and end."""

    def __init__(self, bench: "Bench", key: str) -> None:
        self.key = key
        self.run: Run
        self.began: int | None = None
        self.is_over = False
        self.is_cancelled = False
        self.place = trio.Event()
        self._bench = bench
        self._end = trio.Event()
        self.error: Exception | None = None

    async def __call__(self, run: Run) -> "Work":
        self.run = run
        self._bench.works.append(self)
        try:
            if self._bench.has_places_to_wait_for:
                await self.place.wait()
            self._bench.note_beginning(self)
            run.begin()
            await self._end.wait()
        except trio.Cancelled:
            self.is_cancelled = True
            raise
        finally:
            self.is_over = True
        if self.error is not None:
            raise self.error
        return self

    @property
    def is_under_way(self) -> bool:
        return self.began is not None and not self.is_over

    def end(self, error: Exception | None = None) -> None:
        self.error = error
        self._end.set()


class Bench:
    """A ``Sharing``, askers, and the work they caused; the count of steps is the time of what happens."""

    def __init__(self, *, has_places_to_wait_for: bool = False) -> None:
        self.has_places_to_wait_for = has_places_to_wait_for
        self.unclaimed: list[BaseException] = []
        self.sharing = Sharing(self.unclaimed.append)
        self.works: list[Work] = []
        self.questions: list[Question] = []
        self.steps = 0
        self.asking: trio.Nursery

    def ask(self, key: str = "key") -> Question:
        self.steps += 1
        question = Question(self.steps)
        self.questions.append(question)
        self.asking.start_soon(self.answer, question, key)
        return question

    async def asked(self, key: str = "key") -> Question:
        question = self.ask(key)
        await wait_all_tasks_blocked()
        return question

    def note_beginning(self, work: Work) -> None:
        self.steps += 1
        work.began = self.steps

    async def answer(self, question: Question, key: str) -> None:
        try:
            with question.scope:
                question.work = await self.sharing.run(key, question, Work(self, key))
        except Exception as error:
            question.error = error
        finally:
            question.is_over = True


@asynccontextmanager
async def benching(**options: Any) -> AsyncIterator[Bench]:
    """Have a bench; at the end all askers are cancelled, and nothing is left."""
    bench = Bench(**options)
    with trio.fail_after(BOUND_SECONDS):
        async with bench.sharing.open_nursery():
            async with trio.open_nursery() as bench.asking:
                yield bench
                bench.asking.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            left = len(bench.sharing._nursery.child_tasks)
            bench.sharing._nursery.cancel_scope.cancel()  # a test that fails shall not hang
    assert left == 0
    assert_nothing_left(bench.sharing)


def assert_nothing_left(sharing: Sharing) -> None:
    assert sharing.statistics() == IDLE
    assert (sharing._runs, sharing._next, sharing._latest) == (set(), {}, {})
    assert not sharing._nursery.child_tasks


# Who joins


async def test_askers_of_the_same_share_a_run_that_has_not_begun() -> None:
    """Fifty clients that ask the same cost one child, and get one answer."""
    async with benching(has_places_to_wait_for=True) as bench:
        first, second, third = [await bench.asked() for _ in range(3)]
        (work,) = bench.works
        work.place.set()
        work.end()
        await wait_all_tasks_blocked()
        assert first.work is second.work is third.work is work
        assert first.is_shared is second.is_shared is third.is_shared is True


async def test_askers_of_one_moment_share_without_having_to_wait_for_a_place() -> None:
    """What is read in one turn of the event loop is asked at the same time."""
    async with benching() as bench:
        questions = [bench.ask() for _ in range(50)]
        await wait_all_tasks_blocked()
        (work,) = bench.works
        work.end()
        await wait_all_tasks_blocked()
        assert {question.work for question in questions} == {work}


async def test_nobody_joins_a_run_that_has_begun(autojump_clock: MockClock) -> None:
    """An answer that is older than its question would be a lie: the log may have grown."""
    async with benching() as bench:
        early = await bench.asked()
        late = await bench.asked()
        bench.works[0].end()
        await wait_all_tasks_blocked()
        assert early.work is bench.works[0]
        assert not late.is_answered
        bench.works[1].end()
        await wait_all_tasks_blocked()
        assert late.work is bench.works[1]
        assert (early.is_shared, late.is_shared) == (False, False)


async def test_a_run_that_fails_before_it_begins_is_not_joined_either() -> None:
    """Who asks after a refusal gets a try of its own."""
    async with benching() as bench:

        async def refuse(run: Run) -> None:
            raise Busy("full")

        with pytest.raises(Busy):
            await bench.sharing.run("key", Question(0), refuse)
        later = await bench.asked()
        bench.works[0].end()
        await wait_all_tasks_blocked()
        assert later.work is bench.works[0]


async def test_different_questions_have_runs_of_their_own() -> None:
    """A key that is equal is all that makes two questions the same."""
    async with benching() as bench:
        one, other = await bench.asked("one"), await bench.asked("other")
        assert [work.key for work in bench.works] == ["one", "other"]
        for work in bench.works:
            work.end()
        await wait_all_tasks_blocked()
        assert (one.work, other.work) == tuple(bench.works)
        assert (one.is_shared, other.is_shared) == (False, False)


async def test_the_next_run_waits_for_a_young_one_and_is_shared_meanwhile() -> None:
    """Under load one child at a time answers all who asked while the one before it ran."""
    async with benching() as bench:
        await bench.asked()
        meanwhile = [await bench.asked() for _ in range(3)]
        assert len(bench.works) == 1
        assert bench.sharing.statistics() == SharingStatistics(running=1, waiting=1, sharers=4)
        bench.works[0].end()
        await wait_all_tasks_blocked()
        assert len(bench.works) == 2
        bench.works[1].end()
        await wait_all_tasks_blocked()
        assert {question.work for question in meanwhile} == {bench.works[1]}


async def test_the_next_run_waits_only_while_the_one_before_is_young(mock_clock: MockClock) -> None:
    """A run that hangs for half a minute makes nobody wait for it but its own askers."""
    async with benching() as bench:
        await bench.asked()
        second = await bench.asked()
        mock_clock.jump(YOUNG_SECONDS * 0.9)
        await wait_all_tasks_blocked()
        assert len(bench.works) == 1
        mock_clock.jump(YOUNG_SECONDS * 0.2)
        await wait_all_tasks_blocked()
        assert [work.is_under_way for work in bench.works] == [True, True]
        await bench.asked()  # the second is young; the first, older one must not be taken for it
        bench.works[0].end()
        await wait_all_tasks_blocked()
        assert len(bench.works) == 2
        bench.works[1].end()
        await wait_all_tasks_blocked()
        assert len(bench.works) == 3
        assert second.work is bench.works[1]


async def test_a_run_that_waits_for_its_place_can_be_joined_however_long_it_waits(
    mock_clock: MockClock,
) -> None:
    """The busier the host, the more share."""
    places = FairLimiter(1, WaitingRoom(10))
    done = trio.Event()

    async def work(run: Run) -> str:
        async with places.place("client"):
            run.begin()
            return "answer"

    async def hold(place: FairLimiter) -> None:
        async with place.place("other"):
            await done.wait()

    answers: list[str] = []

    async def ask(bench: Bench) -> None:
        answers.append(await bench.sharing.run("key", Question(0), work))

    async with benching() as bench:
        bench.asking.start_soon(hold, places)
        await wait_all_tasks_blocked()
        for _ in range(5):
            bench.asking.start_soon(ask, bench)
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
        assert places.statistics().waiting == 1
        assert bench.sharing.statistics() == SharingStatistics(running=0, waiting=1, sharers=5)
        done.set()
        await wait_all_tasks_blocked()
        assert answers == ["answer"] * 5


# What askers are told


@pytest.mark.parametrize(
    "error", [NotFound("gone"), DeadlinePassed("lastlog", 30), ZeroDivisionError("ours")]
)
async def test_what_a_run_raises_is_raised_to_every_asker(error: Exception) -> None:
    """Each asker learns what went wrong, in the same words; the server lives on."""
    async with benching() as bench:
        questions = [bench.ask() for _ in range(3)]
        await wait_all_tasks_blocked()
        bench.works[0].end(error)
        await wait_all_tasks_blocked()
        assert [question.error for question in questions] == [error] * 3
        assert all(question.is_shared for question in questions)
        again = await bench.asked()
        bench.works[1].end()
        await wait_all_tasks_blocked()
        assert again.work is bench.works[1]
    assert bench.unclaimed == []


async def test_a_fault_keeps_its_way_through_the_run_and_no_other_asker_s() -> None:
    """The traceback in the record leads to the fault, and does not grow with the askers."""

    def depth(error: BaseException) -> list[str]:
        names, traceback = [], error.__traceback__
        while traceback is not None:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        return names

    found: list[list[str]] = []

    async def fail(run: Run) -> None:
        run.begin()
        raise ZeroDivisionError

    async def ask(bench: Bench) -> None:
        try:
            await bench.sharing.run("key", Question(0), fail)
        except ZeroDivisionError as error:
            found.append(depth(error))

    async with benching() as bench:
        for _ in range(5):
            bench.asking.start_soon(ask, bench)
        await wait_all_tasks_blocked()
    assert found == [["ask", "run", "result", "_carry_out", "fail"]] * 5


async def test_a_group_of_faults_stays_one() -> None:
    """What happened at once is told at once; a group of one is its one fault."""
    async with benching() as bench:
        question = await bench.asked()
        bench.works[0].end(ExceptionGroup("two", [ValueError(), KeyError()]))
        await wait_all_tasks_blocked()
        assert isinstance(question.error, ExceptionGroup)
        assert len(question.error.exceptions) == 2
        question = await bench.asked()
        bench.works[1].end(ExceptionGroup("one", [NotFound("x")]))
        await wait_all_tasks_blocked()
        assert isinstance(question.error, NotFound)


async def test_a_run_that_does_not_say_that_it_begins_is_a_fault() -> None:
    """Such a run could be joined after it looked at the file; a programmer learns it in the first test."""

    async def forgetful(run: Run) -> str:
        return "old"

    async with benching() as bench:
        with pytest.raises(AssertionError, match="whoever joined after the work began"):
            await bench.sharing.run("key", Question(0), forgetful)


async def test_progress_is_told_to_all_askers() -> None:
    """Everybody who waits for a long hash sees how far it is."""
    async with benching() as bench:
        one, other, gone = bench.ask(), bench.ask(), bench.ask()
        await wait_all_tasks_blocked()
        gone.scope.cancel()
        await wait_all_tasks_blocked()
        bench.works[0].run.progress(1, 2)
        assert (one.told, other.told, gone.told) == ([(1, 2)], [(1, 2)], [])


# Leaving


async def test_an_asker_that_leaves_takes_nothing_from_the_others() -> None:
    """The first who asked is nobody special: a reset of its connection harms no one."""
    async with benching() as bench:
        first, second = bench.ask(), bench.ask()
        await wait_all_tasks_blocked()
        first.scope.cancel()
        await wait_all_tasks_blocked()
        assert first.is_over
        bench.works[0].end()
        await wait_all_tasks_blocked()
        assert second.work is bench.works[0]
        assert second.is_shared is False, "the other was not served"


async def test_the_last_asker_that_leaves_cancels_the_run() -> None:
    """No child and no thread works for nobody."""
    async with benching() as bench:
        first, second = bench.ask(), bench.ask()
        await wait_all_tasks_blocked()
        first.scope.cancel()
        await wait_all_tasks_blocked()
        assert [work.is_cancelled for work in bench.works] == [False]
        second.scope.cancel()
        await wait_all_tasks_blocked()
        assert [work.is_cancelled for work in bench.works] == [True]
        assert_nothing_left(bench.sharing)


async def test_who_leaves_at_once_has_nothing_begun() -> None:
    """A client that asks and resets in one breath does not cost a child."""
    async with benching() as bench:
        question = bench.ask()
        question.scope.cancel()
        await wait_all_tasks_blocked()
        assert question.is_over
        waiting = await bench.asked()
        assert len(bench.works) == 1
        bench.works[0].end()
        await wait_all_tasks_blocked()
        assert waiting.work is bench.works[0]


async def test_who_joins_is_told_at_the_end_without_waiting() -> None:
    """An asker needs no task; and when all have left, the run is cancelled as ever."""
    async with benching() as bench:
        told: list[Run] = []
        stays, leaves, alone = Question(0), Question(0), Question(0)
        question = runs.Question("key", Work(bench, "key"))
        run = bench.sharing.join(question, stays, told.append)
        assert bench.sharing.join(question, leaves, told.append) is run
        other = bench.sharing.join(runs.Question("other", Work(bench, "other")), alone, told.append)
        await wait_all_tasks_blocked()
        bench.sharing.leave(run, leaves)
        bench.sharing.leave(other, alone)
        await wait_all_tasks_blocked()
        ended = {work.key: work for work in bench.works}
        assert (ended["key"].is_cancelled, ended["other"].is_cancelled) == (False, True)
        ended["key"].end()
        await wait_all_tasks_blocked()
        assert told == [run]
        assert (run.result(), run.served) == (ended["key"], 1)


async def test_who_joins_and_leaves_at_once_has_nothing_begun() -> None:
    """A client that asks and resets in one breath does not cost a child, with or without a task."""
    async with benching() as bench:
        asker = Question(0)
        run = bench.sharing.join(runs.Question("key", Work(bench, "key")), asker, print)
        bench.sharing.leave(run, asker)
        await wait_all_tasks_blocked()
        assert not bench.works


async def test_nobody_is_told_of_a_run_that_was_cancelled() -> None:
    """When the server drops everything there is no answer to give."""
    told: list[Run] = []
    bench = Bench()
    with trio.fail_after(BOUND_SECONDS):
        async with bench.sharing.open_nursery():
            question = runs.Question("key", Work(bench, "key"))
            bench.sharing.join(question, Question(0), told.append)
            await wait_all_tasks_blocked()
            bench.sharing._nursery.cancel_scope.cancel()
    assert not told


async def test_nobody_joins_a_run_that_was_abandoned_before_it_began() -> None:
    """Who asks in the moment in which the last one leaves gets an answer all the same."""
    gone, later = Question(0), Question(0)
    async with benching(has_places_to_wait_for=True) as bench:

        async def ask() -> None:
            await bench.answer(gone, "key")
            await bench.answer(later, "key")  # before the run has taken notice

        bench.asking.start_soon(ask)
        await wait_all_tasks_blocked()
        gone.scope.cancel()
        await wait_all_tasks_blocked()
        assert [work.is_cancelled for work in bench.works] == [True, False]
        bench.works[1].place.set()
        bench.works[1].end()
        await wait_all_tasks_blocked()
        assert later.work is bench.works[1]


async def test_a_run_abandoned_as_it_begins_does_not_close_the_next_one() -> None:
    """Those who share the next run go on sharing it, whatever the one before still does."""
    first = Question(0)
    async with benching(has_places_to_wait_for=True) as bench:

        async def begin_at_last(run: Run) -> None:
            try:
                await trio.sleep_forever()
            finally:
                run.begin()

        async def ask() -> None:
            with scope:
                await bench.sharing.run("key", Question(0), begin_at_last)
            await bench.answer(first, "key")

        scope = trio.CancelScope()
        bench.asking.start_soon(ask)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        second = await bench.asked()
        (work,) = bench.works
        work.place.set()
        work.end()
        await wait_all_tasks_blocked()
        assert first.work is second.work is work


async def test_a_fault_that_nobody_is_left_to_be_told_is_reported() -> None:
    """A bug in the cleaning up is in the record, and does not end the server."""
    async with benching() as bench:

        async def work(run: Run) -> None:
            run.begin()
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError

        bench.asking.start_soon(bench.sharing.run, "key", Question(0), work)
        await wait_all_tasks_blocked()
        bench.asking.cancel_scope.cancel()
    (fault,) = bench.unclaimed
    assert isinstance(fault, ZeroDivisionError)


async def test_a_failure_that_nobody_is_left_to_be_told_is_no_fault() -> None:
    """A deadline that passes as the last client leaves is no news."""
    async with benching() as bench:

        async def work(run: Run) -> None:
            run.begin()
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                raise DeadlinePassed("lastlog", 1) from None

        bench.asking.start_soon(bench.sharing.run, "key", Question(0), work)
        await wait_all_tasks_blocked()
        bench.asking.cancel_scope.cancel()
    assert bench.unclaimed == []


async def test_a_fault_while_everything_is_cancelled_does_not_hide_the_cancellation() -> None:
    """A second SIGTERM ends the server as told, also with a bug in the cleaning up."""
    unclaimed: list[BaseException] = []
    it = Sharing(unclaimed.append)

    async def work(run: Run) -> None:
        run.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError

    with trio.CancelScope() as scope:
        async with it.open_nursery(), trio.open_nursery() as asking:
            asking.start_soon(it.run, "key", Question(0), work)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert_nothing_left(it)
    assert unclaimed


# Any order

KEYS = ("a", "b")
Step = Callable[[Bench, MockClock, int], None]


def ask(bench: Bench, clock: MockClock, number: int) -> None:
    bench.ask(KEYS[number % 2])


def leave(bench: Bench, clock: MockClock, number: int) -> None:
    if bench.questions:
        bench.questions[number % len(bench.questions)].scope.cancel()


def let_begin(bench: Bench, clock: MockClock, number: int) -> None:
    waiting = [work for work in bench.works if not work.place.is_set()]
    if waiting:
        waiting[number % len(waiting)].place.set()


def let_end(bench: Bench, clock: MockClock, number: int) -> None:
    errors = [None, None, NotFound("x"), ZeroDivisionError()]
    running = [work for work in bench.works if work.is_under_way]
    if running:
        running[number % len(running)].end(errors[number % 4])


def wait(bench: Bench, clock: MockClock, number: int) -> None:
    clock.jump((number % 4) * YOUNG_SECONDS / 2)


STEPS: tuple[Step, ...] = (ask, ask, leave, let_begin, let_begin, let_end, wait)
Turn = tuple[Step, int, bool]
turns = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7), st.booleans()), max_size=40)


@settings(max_examples=300)
@given(turns)
def test_whatever_the_order_answers_are_fresh_and_nothing_is_left(
    turns: list[Turn],
) -> None:
    """Clients come, leave, and work ends in any order; some of it in the same turn of the event loop."""
    clock = MockClock()
    trio.run(live_through, turns, clock, clock=clock)


async def live_through(turns: list[Turn], clock: MockClock) -> None:
    async with benching(has_places_to_wait_for=True) as bench:
        for step, number, is_at_once in turns:
            bench.steps += 1
            step(bench, clock, number)
            if is_at_once:
                continue
            await wait_all_tasks_blocked()
            check(bench)
        await wait_all_tasks_blocked()
        check(bench)
        finish_all(bench)
        for _ in range(len(KEYS) * 2):
            clock.jump(YOUNG_SECONDS)
            await wait_all_tasks_blocked()
            finish_all(bench)
        await wait_all_tasks_blocked()
        assert all(question.is_over for question in bench.questions), "somebody waits for ever"
        assert_nothing_left(bench.sharing)


def finish_all(bench: Bench) -> None:
    for work in bench.works:
        work.place.set()
        work.end()


def check(bench: Bench) -> None:
    """Look whether all that was promised holds at this moment."""
    for question in bench.questions:
        by = question.work or next((work for work in bench.works if work.error is question.error), None)
        if question.is_answered:
            assert by is not None
            assert by.began is not None
            assert by.began > question.asked, "the answer is older than the question"
    for key in KEYS:
        works = [work for work in bench.works if work.key == key]
        assert sum(not work.is_over and work.began is None for work in works) <= 1
        young = [work for work in works if work.is_under_way and is_young(work)]
        assert len(young) <= 1, "one run per key while it is young"
    for work in bench.works:
        assert work.is_over or work.run.askers, "it works for nobody"
    waiting = sum(not question.is_over for question in bench.questions)
    assert bench.sharing.statistics().sharers == waiting


def is_young(work: Work) -> bool:
    assert work.run.began is not None
    return trio.current_time() < work.run.began + YOUNG_SECONDS


async def test_a_run_that_waited_for_its_place_asks_the_budget_when_it_begins(
    autojump_clock: MockClock,
) -> None:
    """Work that was asked while there was room does not begin when there is none any more."""
    looked: list[str] = []
    place = trio.Event()

    def check() -> None:
        if place.is_set():
            raise Busy("too many answers wait")

    async def work(run: Run) -> None:
        await place.wait()
        run.begin()
        looked.append("at things")

    sharing, faults = Sharing(print, check), []

    async def ask() -> None:
        try:
            await sharing.run("key", Question(0), work)
        except Busy as error:
            faults.append(error)

    async with sharing.open_nursery(), trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        place.set()
    assert len(faults) == 2
    assert looked == []
    assert sharing.statistics() == IDLE


async def test_nobody_shares_with_who_asked_under_other_settings() -> None:
    """The answer to the same words is another when a log or an algorithm has changed in between."""
    begun: list[int] = []
    answers: list[tuple[int, int, bool | None]] = []
    place, end = trio.Event(), trio.Event()
    sharing = Sharing(lambda error: None)

    async def ask(epoch: int) -> None:
        async def work(run: Run) -> int:
            await place.wait()
            run.begin()
            begun.append(epoch)
            await end.wait()
            return epoch

        asker = Question(0)
        answer = await SharingUnder(sharing, epoch).run("key", asker, work)
        answers.append((epoch, answer, asker.is_shared))

    with trio.fail_after(BOUND_SECONDS):
        async with sharing.open_nursery(), trio.open_nursery() as asking:
            for epoch in (0, 1, 0, 1):
                asking.start_soon(ask, epoch)
            await wait_all_tasks_blocked()
            place.set()
            await wait_all_tasks_blocked()
            end.set()
    assert sorted(begun) == [0, 1]
    assert sorted(answers) == [(0, 0, True)] * 2 + [(1, 1, True)] * 2
