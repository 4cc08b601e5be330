"""What is summed up, when, and that nothing a client says gets into a sum."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conversation import ListSink, conversing
from trio_cmd.records import make_logger
from trio_cmd.records.events import CLIENT_REFUSED, COMMAND_RECEIVED
from trio_cmd.records.render import render_json
from trio_cmd.server.flooding import Flooding
from trio_cmd.settings import Grant


class Flooded:
    """A flood on Trio's clock, and the records of its sums."""

    def __init__(self) -> None:
        self.sink = ListSink()
        self.flooding = Flooding(make_logger(self.sink, render_json), trio.current_time)

    def happen(self, count: int, client: str = "192.0.2.1") -> int:
        """Let clients be refused; returns how many are recorded."""
        return sum(self.flooding.is_recorded(CLIENT_REFUSED, client) for _ in range(count))

    def sums(self) -> list[int]:
        return [record["count"] for record in self.sink.actions("events-summed")]


async def test_a_sum_is_recorded_each_second(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """An operator sees a flood while it lasts, one line a second of each address."""
    flooded = Flooded()
    nursery.start_soon(flooded.flooding.run)
    assert flooded.happen(1000) == 10
    await trio.sleep(1.1)
    (record,) = flooded.sink.records
    assert record["event"] == "990 more of client-refused from 192.0.2.1"
    assert record["level"] == "warning"
    assert (record["of"], record["client"], record["count"]) == ("client-refused", "192.0.2.1", 990)
    assert record["seconds"] == 1
    assert flooded.happen(11) == 10
    await trio.sleep(5)
    assert flooded.sums() == [990, 1]
    nursery.cancel_scope.cancel()


async def test_the_summing_sleeps_while_there_is_nothing_to_sum_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A quiet server wakes nobody."""
    flooded = Flooded()
    nursery.start_soon(flooded.flooding.run)
    for _ in range(2):
        assert flooded.happen(3) == 3
        await trio.sleep(2.5)
        await wait_all_tasks_blocked()
        assert flooded.flooding._has_rows.statistics().tasks_waiting == 1
    assert flooded.sums() == []
    nursery.cancel_scope.cancel()


async def test_a_second_that_began_later_ends_later(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Each address has its own second, also while others flood."""
    flooded = Flooded()
    nursery.start_soon(flooded.flooding.run)
    flooded.happen(11, "192.0.2.1")
    await trio.sleep(0.5)
    flooded.happen(12, "192.0.2.2")
    await trio.sleep(0.6)
    assert flooded.sums() == [1]
    await trio.sleep(1)
    assert flooded.sums() == [1, 2]
    nursery.cancel_scope.cancel()


async def test_what_is_left_at_the_end_is_summed_up(autojump_clock: MockClock) -> None:
    """The record is whole also when the server stops in the middle of a flood."""
    flooded = Flooded()
    flooded.happen(25, "192.0.2.1")
    flooded.happen(5, "192.0.2.2")
    flooded.happen(30, "2001:db8::/64")
    flooded.flooding.close()
    flooded.flooding.close()
    assert flooded.sums() == [15, 20]


async def test_unknown_commands_of_one_address_are_summed_up(autojump_clock: MockClock) -> None:
    """Who mistypes a thousand times is answered each time, and counted once."""
    async with conversing() as c:
        c.session._errors = -100  # else it would be closed
        assert await c.say(b"canary x\n" * 25 + b"ping\n") == b"Command not found.\n" * 25 + b"pong\n"
        assert c.tally.outcomes() == {"unknown-command": 25, "ok": 1}
        for action in ("command-received", "command-completed"):
            assert [r["request"] for r in c.sink.actions(action)] == [*range(1, 11), 26]
        c.flooding.close()
        (record,) = c.sink.actions("events-summed")
        assert (record["of"], record["client"], record["count"]) == (COMMAND_RECEIVED.action, "127.0.0.1", 15)
        assert "canary" not in str(record)


async def test_a_summed_command_has_its_number_and_its_form(autojump_clock: MockClock) -> None:
    """A JSON client that mistypes in a loop gets its objects, and is closed like any other."""
    async with conversing() as c:
        heard = (await c.say(b"format json\n" + b"nope\n" * 25)).splitlines()
        assert len(heard) == 1 + 20 + 1
        assert heard[20].startswith(b'{"id":21,"command":"nope","ok":false,"error":{"code":"unknown-command"')
        assert b'"reason":"too-many-errors"' in heard[21]
        await wait_all_tasks_blocked()
        assert c.session.requests == 21


async def test_known_commands_are_never_summed_up(autojump_clock: MockClock) -> None:
    """What somebody did is recorded, each time."""
    async with conversing() as c:
        await c.say(b"ping\n" * 200 + b"help nope\n" * 15)
        c.flooding.close()
        assert len(c.sink.actions("command-received")) == 215
        assert c.sink.actions("events-summed") == []


async def test_what_is_not_granted_is_never_summed_up(autojump_clock: MockClock) -> None:
    """Whoever tries what it may not have is found in the record, each time."""
    async with conversing(grants=[Grant(name="lab", commands=("ping",))]) as c:
        await c.say(b"status\n" * 15)
        c.flooding.close()
        assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["not-allowed"] * 15
        assert c.sink.actions("events-summed") == []
