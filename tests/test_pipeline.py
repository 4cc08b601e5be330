"""The questions under way, in memory: when each of them is given up."""

import contextlib
from collections.abc import AsyncIterator

import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from sayings import answer, spell
from trio_cmd.client.answers import Reply
from trio_cmd.client.conversation import Conversation
from trio_cmd.client.errors import AskError, ConnectionLost, NoAnswer
from trio_cmd.client.pipeline import Pipeline

SECONDS = 10


class Host:
    """The other end of a conversation that is greeted already."""

    def __init__(self) -> None:
        near, self.stream = memory_stream_pair()
        self.pipeline = Pipeline(Conversation(near, 1 << 20, is_plain=False), 1, SECONDS)
        self.outcomes: list[tuple[float, Reply | AskError]] = []

    async def ask(self) -> None:
        """Ask, and note when there was an outcome."""
        began = trio.current_time()
        outcome: Reply | AskError
        try:
            outcome = await self.pipeline.ask("ping", b"ping\r\n", None)
        except AskError as error:
            outcome = error
        self.outcomes.append((trio.current_time() - began, outcome))


@contextlib.asynccontextmanager
async def hosting(questions: int) -> AsyncIterator[Host]:
    """Have a host that has been asked, and answers as the block says."""
    host = Host()
    async with trio.open_nursery() as tasks:
        tasks.start_soon(host.pipeline.read)
        tasks.start_soon(host.pipeline.write)
        async with trio.open_nursery() as asking:
            for _ in range(questions):
                asking.start_soon(host.ask)
            await wait_all_tasks_blocked()
            yield host
        tasks.cancel_scope.cancel()


async def test_the_time_for_an_answer_begins_when_it_is_the_next(autojump_clock: MockClock) -> None:
    """Whoever asks a hundred things at once need not allow for all of them."""
    async with hosting(3) as host:
        for number in (2, 3, 4):
            await trio.sleep(SECONDS - 1)
            await host.stream.send_all(answer(number))
    assert [seconds for seconds, _ in host.outcomes] == [9, 18, 27]
    assert all(isinstance(outcome, Reply) for _, outcome in host.outcomes)


async def test_news_do_not_prolong_an_answer(autojump_clock: MockClock) -> None:
    """A host that is always just about to answer is given up like one that is silent."""
    async with hosting(2) as host:
        with contextlib.suppress(trio.BrokenResourceError):  # it is given up
            for _ in range(2 * SECONDS):
                await host.stream.send_all(spell(id=2, event="progress", done=1, total=100))
                await trio.sleep(1)
    assert [seconds for seconds, _ in host.outcomes] == [SECONDS, SECONDS]
    assert all(isinstance(outcome, NoAnswer) for _, outcome in host.outcomes)


async def test_later_questions_do_not_prolong_an_answer(autojump_clock: MockClock) -> None:
    """Whoever asks every second is told by the tenth that nobody is there."""
    async with hosting(1) as host, trio.open_nursery() as nursery:
        await trio.sleep(SECONDS - 1)
        nursery.start_soon(host.ask)
    assert [seconds for seconds, _ in host.outcomes] in ([SECONDS, 1], [1, SECONDS])


async def test_the_time_does_not_run_while_nothing_is_asked(autojump_clock: MockClock) -> None:
    """A connection can be kept for days."""
    async with hosting(1) as host:
        await host.stream.send_all(answer(2))
        await trio.sleep(100 * SECONDS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.ask)
            await trio.sleep(SECONDS - 1)
            await host.stream.send_all(answer(3))
    assert [seconds for seconds, _ in host.outcomes] == [0, SECONDS - 1]


async def test_nobody_waits_on_a_connection_that_has_been_left(autojump_clock: MockClock) -> None:
    """A task that still asks when the block ends is told, and so is one that asks afterwards."""
    async with hosting(2) as host:
        host.pipeline.close()
        await host.ask()
    assert [type(outcome) for _, outcome in host.outcomes] == [ConnectionLost] * 3
