"""Commands that share a run without a task of their own: the same answers and records, and nothing left."""

import json
from collections.abc import Hashable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from conversation import Record, conversing
from trio_cmd.commands import Command, Surroundings
from trio_cmd.commands.table import work_shared
from trio_cmd.errors import BadArguments, NotFound
from trio_cmd.settings import Grant, Limits
from trio_cmd.wire.messages import Reply
from trio_cmd.work.runs import Question, Run
from trio_cmd.work.sharing import SharingStatistics

IDLE = SharingStatistics(running=0, waiting=0, sharers=0)
PING = Grant(name="x", addresses=("127.0.0.1",), commands=("ping",))


class Shared:
    """The command ``share WORD``: its runs end when the test says so, or at once.

    Args:
        is_held: the test lets them end.
        has_tasks: in the ordinary way, each asker has a task.
    """

    def __init__(self, *, is_held: bool = False, has_tasks: bool = False) -> None:
        self.gate = trio.Event()
        if not is_held:
            self.gate.set()
        share = None if has_tasks else self.share
        row = Command("share", "share WORD", "answer it", work=work_shared(self.share), share=share)
        self.rows = {b"share": row}
        self.cancelled = 0

    def share(self, argument: bytes, _: Surroundings, client: Hashable) -> Question:
        if argument == b"bad":
            raise BadArguments("usage: share WORD")
        if argument == b"broken":
            raise LookupError("in the asking")
        return Question(argument, self.work)

    async def work(self, run: Run) -> Reply:
        word = run.key.decode()  # type: ignore[attr-defined]  # it is bytes
        run.begin()
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if word == "missing":
            raise NotFound("nothing there")
        if word == "fault":
            raise LookupError("in the run")
        run.progress(1, 2)
        return Reply((word,), block="share", result={"word": word}, record={"lines": 1})


# The same, with and without tasks

WORDS = st.sampled_from(
    [
        b"share a",
        b"share b",
        b"share missing",
        b"share fault",
        b"share bad",
        b"share broken",
        b"ping",
        b"nope",
    ]
)


async def talk(lines: list[bytes], form: bytes, limits: Limits, shared: Shared) -> tuple[Any, Any]:
    """Ask all at once; returns what was answered, and what was recorded of each request."""
    async with conversing(limits, shared.rows) as c:
        heard = await c.say(b"\n".join([b"format " + form, *lines, b"exit\n"]))
        assert c.sharing.statistics() == IDLE
        assert (c.budget.bytes, c.session._replies.pending) == (0, 0)
    # Progress is shown of what is next to leave, and that is a question of time.
    answers = [read_answer(line) for line in heard.splitlines() if b'"progress"' not in line]
    return answers, sorted(map(normalise, c.sink.records), key=str)


def read_answer(line: bytes) -> Any:
    if not line.startswith(b"{"):
        return line
    return {name: value for name, value in json.loads(line).items() if name != "seconds"}


def normalise(record: Record) -> Record:
    """Leave out what no two conversations have in common: times, who met whom, and the way of a fault."""
    left_out = {"timestamp", "seconds", "exception", "shared", "bytes", "bytes_out"}
    return {name: value for name, value in record.items() if name not in left_out}


@given(
    lines=st.lists(WORDS, max_size=30),
    form=st.sampled_from([b"text", b"json"]),
    running=st.integers(min_value=1, max_value=5),
)
def test_answers_and_records_are_those_of_the_ordinary_way(
    lines: list[bytes], form: bytes, running: int
) -> None:
    """That nobody waits in a task can be told from nothing but the time it takes."""
    limits = Limits(running_per_client=running)

    async def both() -> None:
        ordinary = await talk(lines, form, limits, Shared(has_tasks=True))
        assert await talk(lines, form, limits, Shared()) == ordinary

    trio.run(both, clock=MockClock(autojump_threshold=0))


async def test_the_record_says_whether_an_answer_was_shared(autojump_clock: MockClock) -> None:
    """An auditor can tell from the record that fewer children ran than answers were given."""
    async with conversing(more_commands=Shared().rows) as c:
        await c.say(b"share a\nshare a\nshare b\nshare missing\n")
        shared = [(r["arguments"], r["shared"]) for r in c.sink.actions("command-completed")]
        assert sorted(shared) == [("a", True), ("a", True), ("b", False), ("missing", False)]


async def test_nobody_waits_in_a_task(autojump_clock: MockClock) -> None:
    """It is what it was made for: fifty askers cost one run, and no task beside it."""
    shared = Shared(is_held=True)
    async with conversing(Limits(running_per_client=50), shared.rows) as c:
        await c.say(b"share a\n" * 50)
        assert c.sharing.statistics() == SharingStatistics(running=1, waiting=0, sharers=50)
        assert not c.session._nursery.child_tasks
        shared.gate.set()
        assert await c.heard() == b"Begin share\na\nEnd share\n" * 50


async def test_who_may_run_only_one_at_a_time_runs_one_at_a_time(autojump_clock: MockClock) -> None:
    """The limit of children of one client holds, whichever way they are waited for."""
    shared = Shared(is_held=True)
    async with conversing(Limits(running_per_client=1), shared.rows) as c:
        await c.say(b"share a\nshare b\nslow c\n")
        assert (c.sharing.statistics().sharers, c.slow.running) == (1, [])
        shared.gate.set()
        assert await c.heard() == b"Begin share\na\nEnd share\nBegin share\nb\nEnd share\n"
        assert c.slow.running == ["c"]
        c.slow.finish("c")
        assert await c.heard() == b"slow c is done\n"


async def test_progress_is_shown(autojump_clock: MockClock) -> None:
    """Whoever reads JSON sees how far the work is."""
    async with conversing(more_commands=Shared().rows) as c:
        heard = await c.say(b"format json\nshare a\n")
        assert b'{"id":2,"command":"share","event":"progress","done":1,"total":2}\n' in heard


async def test_nothing_is_begun_while_too_many_answers_wait(autojump_clock: MockClock) -> None:
    """The memory of the server is bounded, whichever way an answer comes."""
    async with conversing(more_commands=Shared(is_held=True).rows) as c:
        c.budget.bytes += c.limits.total_pending_bytes
        assert (await c.say(b"share a\n")).startswith(b"An error occured : ")
        assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["busy"]
        assert c.sharing.statistics() == IDLE
        c.budget.bytes -= c.limits.total_pending_bytes


# Leaving


async def test_a_client_that_vanishes_ends_the_run_and_is_recorded(autojump_clock: MockClock) -> None:
    """No child works for nobody, and every received has its completed."""
    shared = Shared(is_held=True)
    async with conversing(more_commands=shared.rows) as c:
        await c.say(b"share a\n")
        c.stream.vanish()
        await wait_all_tasks_blocked()
        assert (shared.cancelled, c.sharing.statistics()) == (1, IDLE)
        assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["gone"]


async def test_a_run_that_ends_as_its_client_is_lost_answers_nobody(autojump_clock: MockClock) -> None:
    """In the moment between the loss and its consequences nothing is sent, and one outcome is recorded."""
    for word in (b"a", b"missing"):
        shared = Shared(is_held=True)
        async with conversing(more_commands=shared.rows) as c:
            await c.say(b"share %s\n" % word)
            shared.gate.set()
            c.session.lose()
            assert await c.heard_all() == b""
            assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["gone"]
            assert c.sharing.statistics() == IDLE


async def test_what_is_no_longer_granted_is_told_at_once(autojump_clock: MockClock) -> None:
    """A grant that was taken away shows nothing more, and its client has made no error."""
    shared = Shared(is_held=True)
    async with conversing(Limits(running_per_client=30), shared.rows) as c:
        await c.say(b"share a\n" * 30)
        c.renew(grants=[PING])
        assert await c.heard() == b"An error occured : share is not allowed here\n" * 30
        assert (shared.cancelled, c.sharing.statistics()) == (1, IDLE)
        assert await c.say(b"ping\n") == b"pong\n"


async def test_what_has_failed_and_is_no_longer_granted_is_told_once(autojump_clock: MockClock) -> None:
    """Between the end of a run and its answer a reload can come; there is one answer all the same."""
    shared = Shared(is_held=True)
    async with conversing(more_commands=shared.rows) as c:
        await c.say(b"share missing\n")
        async with c.session._shared.failing:  # whoever fails waits for this turn
            shared.gate.set()
            await wait_all_tasks_blocked()
            c.renew(grants=[PING])
        assert await c.heard() == b"An error occured : share is not allowed here\n"
        assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["not-allowed"]


async def test_stopping_server_says_so_and_cancels_the_run(autojump_clock: MockClock) -> None:
    """Whoever waits when the patience is over is told why there is no answer."""
    shared = Shared(is_held=True)
    async with conversing(more_commands=shared.rows) as c:
        await c.say(b"share a\n")
        c.session.stop()
        c.session.cancel()
        assert await c.heard_all() == b""  # this stream cannot write without waiting
        assert (shared.cancelled, c.sharing.statistics()) == (1, IDLE)
        assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["stopping"]


async def test_a_fault_in_the_answering_costs_one_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on to tell the others."""
    shared = Shared(is_held=True)
    async with conversing(more_commands=shared.rows) as c:
        await c.say(b"share a\n")
        monkeypatch.setattr(c.session._replies.__class__, "finish", lambda *_: 1 // 0)
        shared.gate.set()
        await c.heard_all()
        assert c.session.reason == "crashed"
        assert "ZeroDivisionError" in c.sink.actions("handler-crashed")[0]["exception"]
        assert not shared.cancelled
