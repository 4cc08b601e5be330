"""What one client can say, and what it is answered; in memory, under the jumping clock."""

import itertools
import json

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conversation import Conversation, conversing
from trio_cmd.commands import Asker, Command, Surroundings
from trio_cmd.errors import Busy, NotFound
from trio_cmd.settings import Limits
from trio_cmd.wire.messages import Reply
from trio_cmd.work.runs import Run


async def test_answers_to_one_packet_come_in_the_order_asked(autojump_clock: MockClock) -> None:
    """A script sends all its questions at once and matches answers by their order."""
    async with conversing() as c:
        assert await c.say(b"ping\ntest\nping\n") == b"pong\nCommand not found.\npong\n"


async def test_slow_answers_keep_their_place_before_quick_ones(autojump_clock: MockClock) -> None:
    """A quick answer that overtook a slow one would be taken for the slow one's."""
    async with conversing() as c:
        assert await c.say(b"ping\nslow a\nping\nslow b\ntest\n") == b"pong\n"
        assert c.slow.running == ["a", "b"]
        c.slow.finish("b")
        assert await c.heard() == b""
        c.slow.finish("a")
        assert await c.heard() == b"slow a is done\npong\nslow b is done\nCommand not found.\n"


async def test_slow_commands_of_one_client_run_side_by_side_up_to_its_limit(
    autojump_clock: MockClock,
) -> None:
    """One client cannot take all places, and need not wait for one file after the other."""
    async with conversing(Limits(running_per_client=2)) as c:
        await c.say(b"slow a\nslow b\nslow c\n")
        assert c.slow.running == ["a", "b"]
        c.slow.finish("b")
        await c.heard()
        assert c.slow.running == ["a", "c"]


async def test_answers_come_also_after_end_of_input(autojump_clock: MockClock) -> None:
    """``nc -N`` shuts its sending side at once and waits for the answers."""
    async with conversing() as c:
        await c.client.send_all(b"ping\nslow a\nping")
        await c.client.send_eof()
        assert await c.heard() == b"pong\n"
        c.slow.finish("a")
        assert await c.heard_all() == b"slow a is done\npong\n"
        await wait_all_tasks_blocked()
        assert c.session.reason == "closed"


@pytest.mark.parametrize("word", [b"exit", b"quit"])
async def test_exit_waits_for_the_answers_before_it_and_runs_nothing_after_it(
    autojump_clock: MockClock, word: bytes
) -> None:
    """``exit`` at the end of a script does not cut the answers short."""
    async with conversing() as c:
        await c.say(b"slow a\n" + word + b"\nslow never\nping\n")
        assert c.slow.running == ["a"]
        c.slow.finish("a")
        assert await c.heard_all() == b"slow a is done\n"
        await wait_all_tasks_blocked()
        assert c.session.reason == "exit"
        assert [r["command"] for r in c.sink.actions("command-received")] == ["slow", word.decode()]


async def test_every_answer_has_the_form_in_force_when_its_line_was_read(autojump_clock: MockClock) -> None:
    """A client that changes the form can tell from where on to parse JSON."""
    async with conversing() as c:
        await c.say(b"slow a\nformat json\nslow b\nformat text\nping\n")
        c.slow.finish("a")
        c.slow.finish("b")
        first, second, third, fourth, fifth = (await c.heard()).splitlines()
        assert first == b"slow a is done"
        assert json.loads(second)["result"] == {"format": "json"}
        assert json.loads(third)["result"] == {"name": "b"}
        assert fourth == b"Format is : text"
        assert fifth == b"pong"


async def test_json_answers_carry_the_number_of_their_line(autojump_clock: MockClock) -> None:
    """A program that pipelines matches answers by number; empty lines do not count."""
    async with conversing() as c:
        await c.say(b"format json\n")
        answers = [json.loads(line) for line in (await c.say(b"\n  \nping\nnope\nb\x01d\n")).splitlines()]
        assert [(a["id"], a["command"], a["ok"]) for a in answers] == [
            (2, "ping", True),
            (3, "nope", False),
            (4, None, False),
        ]
        assert [a["error"]["code"] for a in answers[1:]] == ["unknown-command", "bad-encoding"]


async def test_exit_in_json_is_answered_by_its_notice(autojump_clock: MockClock) -> None:
    """A JSON client sees why the connection closes."""
    async with conversing() as c:
        await c.client.send_all(b"format json\nexit\n")
        await c.client.send_eof()
        lines = (await c.heard_all()).splitlines()
        assert [json.loads(line) for line in lines[1:]] == [{"event": "bye", "reason": "exit", "message": ""}]


async def test_empty_lines_by_the_thousand_are_ignored(autojump_clock: MockClock) -> None:
    """A stuck return key costs nothing but the reading."""
    async with conversing() as c:
        assert await c.say(b"\r\n" * 5000 + b" \t \nping\n") == b"pong\n"
        assert c.session.requests == 1


async def test_a_line_too_long_is_answered_and_ends_the_connection(autojump_clock: MockClock) -> None:
    """The client is told the limit, and nothing behind the line is run."""
    async with conversing(Limits(line_bytes=512)) as c:
        await c.client.send_all(b"ping\n" + b"x" * 513 + b"\nping\n")
        assert await c.heard_all() == b"pong\nAn error occured : line longer than 512 bytes\n"
        await wait_all_tasks_blocked()
        assert c.session.reason == "line-too-long"
        assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["ok", "line-too-long"]


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x02\n", b"\x80\x2e\n"]
)
async def test_another_protocol_is_closed_without_an_answer(autojump_clock: MockClock, first: bytes) -> None:
    """A browser or a scanner that lands here runs nothing, not even by accident."""
    async with conversing() as c:
        await c.client.send_all(b"\n" * (first[0] < 0x80 and first[0] > 0x20) + first + b"ping\n")
        assert await c.heard_all() == b""
        await wait_all_tasks_blocked()
        assert c.session.reason == "wrong-protocol"
        assert c.sink.actions("command-received") == []


async def test_only_the_first_line_decides_the_protocol(autojump_clock: MockClock) -> None:
    """A path that ends like a request line can be asked for once the conversation has begun."""
    async with conversing() as c:
        assert await c.say(b"ping\nnope HTTP/1.1\n") == b"pong\nCommand not found.\n"


async def test_an_idle_client_is_told_and_closed(autojump_clock: MockClock) -> None:
    """A forgotten terminal does not hold a place for ever."""
    async with conversing(Limits(idle_seconds=5)) as c:
        assert await c.say(b"ping\n") == b"pong\n"
        began = trio.current_time()
        assert await c.heard_all() == b"Idle for 5 s. bye !\n"
        assert 5 <= trio.current_time() - began < 6
        await wait_all_tasks_blocked()
        assert c.session.reason == "idle"


async def test_a_client_that_waits_for_its_answer_is_not_idle(autojump_clock: MockClock) -> None:
    """A long hash is not cut by the idle limit."""
    async with conversing(Limits(idle_seconds=5)) as c:
        await c.say(b"slow a\n")
        await trio.sleep(60)
        c.slow.finish("a")
        assert await c.heard() == b"slow a is done\n"
        assert c.session.reason is None


async def test_an_unfinished_line_is_cut_whatever_trickles_in(autojump_clock: MockClock) -> None:
    """A byte a second does not hold a place for ever."""
    async with conversing(Limits(request_seconds=5)) as c:
        began = trio.current_time()
        while c.session.reason is None:
            await c.client.send_all(b"x")
            await trio.sleep(1)
        assert await c.heard_all() == b"Line not finished in 5 s. bye !\n"
        assert trio.current_time() - began < 8
        assert c.session.reason == "slow-line"


async def test_a_notice_is_json_after_format_json(autojump_clock: MockClock) -> None:
    """A JSON client never reads a line that is no JSON."""
    async with conversing(Limits(idle_seconds=5)) as c:
        await c.say(b"format json\n")
        notice = json.loads(await c.heard_all())
        assert notice == {"event": "bye", "reason": "idle", "message": "Idle for 5 s. bye !"}


async def test_stopping_lets_what_was_asked_be_answered(autojump_clock: MockClock) -> None:
    """A restart of the server does not cut the hash that is about to finish."""
    async with conversing() as c:
        await c.say(b"slow a\n")
        c.session.stop()
        await c.client.send_all(b"ping\n")
        await wait_all_tasks_blocked()
        c.slow.finish("a")
        assert await c.heard_all() == b"slow a is done\nServer is stopping. bye !\n"
        assert c.session.reason == "stopping"


async def test_a_client_gone_before_its_answer_leaves_nothing_running(autojump_clock: MockClock) -> None:
    """Work nobody waits for any more stops, and the record says so."""
    async with conversing(Limits(running_per_client=2)) as c:
        await c.say(b"slow a\nslow b\nslow c\nping\n")
        c.stream.vanish()
        await wait_all_tasks_blocked()
        assert sorted(c.slow.cancelled) == ["a", "b"]
        assert c.session.reason == "reset"
        outcomes = {r["arguments"]: r["outcome"] for r in c.sink.actions("command-completed")}
        assert outcomes == {"a": "gone", "b": "gone", "c": "gone", "": "ok"}
        assert c.budget.bytes == 0


async def test_a_slow_reader_is_closed_when_it_makes_no_progress(autojump_clock: MockClock) -> None:
    """A client that never reads gives its place back."""
    async with conversing(Limits(write_seconds=5)) as c:
        c.stream.is_read = False
        await c.client.send_all(b"ping\n")
        await trio.sleep(7)
        assert c.session.reason == "slow-reader"
        assert c.budget.bytes == 0


async def test_a_slow_reader_that_makes_progress_is_left_alone(autojump_clock: MockClock) -> None:
    """A thin line is no crime."""
    async with conversing(Limits(write_seconds=5)) as c:
        c.stream.is_read = False
        c.slow.finish("a", Reply(("x" * 100_000,)))
        await c.client.send_all(b"slow a\n")
        for _ in range(10):
            await trio.sleep(3)
            c.stream.take()
        assert c.session.reason is None
        assert await c.heard() != b""


async def test_the_reader_waits_while_too_many_answers_are_owed(autojump_clock: MockClock) -> None:
    """A client that asks and never reads is slowed down by TCP, and takes no memory."""
    async with conversing(Limits(pending_replies=2)) as c:
        c.stream.is_read = False
        await c.client.send_all(b"ping\n" * 5)
        await wait_all_tasks_blocked()
        assert c.session.requests == 2
        for _ in range(10):
            c.stream.take()
            await wait_all_tasks_blocked()
        assert c.session.requests == 5
        assert await c.heard() == b"pong\n" * 5


async def test_work_waits_while_finished_answers_wait_behind_the_head(autojump_clock: MockClock) -> None:
    """Sixty-four answers of a megabyte do not pile up behind one slow hash."""
    async with conversing(Limits(pending_bytes=65536, running_per_client=2)) as c:
        await c.say(b"slow head\nslow big\nslow next\nslow last\n")
        c.slow.finish("big", Reply(("x" * 70_000,)))
        assert await c.heard() == b""
        assert c.slow.running == ["head"]
        c.slow.finish("head")
        assert (await c.heard()).startswith(b"slow head is done\nxxx")
        assert c.slow.running == ["next", "last"]


async def test_slow_commands_are_busy_while_all_clients_owe_too_much(autojump_clock: MockClock) -> None:
    """Readers that do not read cannot take the memory of the host."""
    async with conversing() as c:
        c.budget.bytes = c.budget.enough_bytes
        answer = await c.say(b"slow a\nping\n")
        assert (
            answer == b"An error occured : too many answers wait for their readers; try again later\npong\n"
        )
        outcomes = {r["command"]: r["outcome"] for r in c.sink.actions("command-completed")}
        assert outcomes == {"slow": "busy", "ping": "ok"}


async def test_the_budget_is_asked_when_the_turn_of_the_work_has_come(autojump_clock: MockClock) -> None:
    """Commands that were pipelined while there was room do not pass a budget that is spent since."""
    async with conversing(Limits(running_per_client=1)) as c:
        await c.say(b"slow a\nslow b\n")
        c.budget.bytes = c.budget.enough_bytes
        c.slow.finish("a")
        assert (await c.heard()).startswith(b"slow a is done\nAn error occured : too many answers wait")


async def test_a_turn_is_bounded_in_bytes_too(autojump_clock: MockClock) -> None:
    """Long lines cost more than short ones; the others are served all the same."""
    async with conversing() as c:
        c.session._lines.feed(b"".join(b"%08000d\n" % number for number in range(8)))
        c.session._turn()
        assert c.session.requests == 3


async def test_nothing_is_taken_while_the_record_is_half_full(autojump_clock: MockClock) -> None:
    """No client can ask faster than it is recorded."""
    async with conversing() as c:
        c.sink.pressed = True
        await c.client.send_all(b"ping\n")
        await trio.sleep(10)
        assert c.sink.records == []
        c.sink.pressed = False
        await trio.sleep(1)
        assert await c.heard() == b"pong\n"


async def test_who_has_waited_longest_for_the_record_goes_on_first(autojump_clock: MockClock) -> None:
    """Ninety clients that flood do not make a ping wait for seconds while each of them has its turns."""
    async with conversing() as first, conversing() as second:
        room = 0
        records = [first.sink.records, second.sink.records]
        shared = first.session._shared
        first.sink.is_pressed = lambda: sum(map(len, records)) >= room  # type: ignore[method-assign]
        second.session._shared = shared
        await first.client.send_all(b"ping\n")
        await trio.sleep(1.01)  # by itself it would now look four times a second
        await second.client.send_all(b"ping\n")
        await trio.sleep(0.01)
        for room in (2, 4):
            await trio.sleep(1)
            assert [len(each) for each in records] == [2, room - 2]


async def test_the_clocks_of_a_client_stand_still_while_the_server_does_not_read(
    autojump_clock: MockClock,
) -> None:
    """A client is not blamed for the server's waiting."""
    async with conversing(Limits(idle_seconds=5, request_seconds=5)) as c:
        c.sink.pressed = True
        await c.client.send_all(b"ping\npi")
        await trio.sleep(60)
        c.sink.pressed = False
        await trio.sleep(3)
        assert c.session.reason is None
        await trio.sleep(3)
        assert c.session.reason == "slow-line"


async def test_an_error_is_one_line_and_its_code_is_recorded(autojump_clock: MockClock) -> None:
    """An operator sees what is wrong, a program its code."""
    async with conversing() as c:
        c.slow.finish("a", NotFound("nothing there"))
        assert await c.say(b"slow a\n") == b"An error occured : nothing there\n"
        assert c.sink.actions("command-completed")[0]["outcome"] == "not-found"
        assert c.tally.outcomes() == {"not-found": 1}


def _crash(argument: bytes, surroundings: Surroundings) -> Reply:
    raise RuntimeError("a fault of ours")


async def _crash_slowly(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    async with trio.open_nursery():
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(
    "command", [Command("oops", "", "", answer=_crash), Command("oops", "", "", work=_crash_slowly)]
)
async def test_a_fault_in_a_command_costs_one_answer(autojump_clock: MockClock, command: Command) -> None:
    """The connection survives, the client sees no traceback, the record has it."""
    async with conversing(more_commands={b"oops": command}) as c:
        assert await c.say(b"oops\nping\n") == b"An error occured : internal error\npong\n"
        (crash,) = c.sink.actions("handler-crashed")
        assert "a fault of ours" in crash["exception"]
        completed = c.sink.actions("command-completed")
        assert {(r["command"], r["outcome"], r["level"]) for r in completed} == {
            ("oops", "internal", "error"),
            ("ping", "ok", "info"),
        }


async def test_a_fault_in_the_conversation_costs_one_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours never takes the server down; whoever it hits gets no traceback."""
    async with conversing() as c:
        monkeypatch.setattr("trio_cmd.server.session.parse_request", _break)
        await c.client.send_all(b"nope\n")
        await c.heard_all()
        await wait_all_tasks_blocked()
        assert c.session.reason == "crashed"
        assert "broken on purpose" in c.sink.actions("handler-crashed")[0]["exception"]


def _break(line: bytes) -> None:
    raise RuntimeError("broken on purpose")


async def test_a_cancelled_server_ends_the_conversation_as_stopping() -> None:
    """A second signal cuts everybody, and what was not answered is recorded."""
    c = Conversation()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(c.run)
        await c.say(b"slow a\n")
        nursery.cancel_scope.cancel()
    assert c.session.reason == "stopping"
    assert c.sink.actions("command-completed")[0]["outcome"] == "gone"
    c.hangups.close()


async def test_stopping_answers_what_is_unfinished_and_says_goodbye(autojump_clock: MockClock) -> None:
    """Who still waits when the time to stop has passed is told that there will be no answer."""
    async with conversing() as c:
        await c.say(b"slow a\nformat json\nslow b\n")
        c.session.stop()
        c.session.cancel()
        first, *others = (await c.heard_all()).splitlines() or [b""]
        assert c.session.reason == "stopping"
        assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["ok", "stopping", "stopping"]
        assert c.slow.running == []
        assert (first, others) == (b"", [])  # this stream cannot write without waiting


async def test_a_conversation_that_is_over_is_not_ended_again(autojump_clock: MockClock) -> None:
    """Whoever closes a sealed connection as the server loses patience does no harm."""
    c = Conversation()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(c.run)
        await c.client.send_all(b"slow one\nping\n")
        await wait_all_tasks_blocked()
        c.session.lose()
    recorded = len(c.sink.records)
    c.session.stop()
    c.session.cancel()
    c.session.expire("slow-reader")
    assert len(c.sink.records) == recorded


async def test_an_answer_ready_as_the_server_stops_is_not_given_twice(
    autojump_clock: MockClock,
) -> None:
    """Every received has exactly one completed, also in that moment."""
    async with conversing() as c:
        await c.say(b"slow a\n")
        c.slow.finish("a")  # its task is woken, and has not run yet
        c.session.cancel()
        await wait_all_tasks_blocked()
        assert [r["outcome"] for r in c.sink.actions("command-completed")] == ["stopping"]


async def test_goodbye_is_not_said_twice_when_it_is_on_its_way(autojump_clock: MockClock) -> None:
    """A client that lingers when the time to stop has passed has read its notice."""
    async with conversing() as c:
        c.session.stop()
        assert await c.heard() == b"Server is stopping. bye !\n"
        c.session.cancel()
        assert await c.heard_all() == b""


async def test_a_crash_in_mid_answer_adds_nothing_to_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an answer is not followed by a notice that would look like its end."""
    async with conversing() as c:
        c.stream.is_read = False
        await c.say(b"ping\n")
        monkeypatch.setattr("trio_cmd.server.session.parse_request", _break)
        await c.client.send_all(b"nope\n")
        assert await c.heard_all() == b""
        assert c.session.reason == "crashed"


async def test_a_client_that_is_gone_when_it_is_answered_is_a_reset(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails tells as much as a read that fails."""

    def fail(data: bytes) -> int:
        raise trio.BrokenResourceError

    async with conversing() as c:
        monkeypatch.setattr(c.stream, "send_nowait", fail)
        await c.client.send_all(b"ping\n")
        await wait_all_tasks_blocked()
        assert c.session.reason == "reset"


async def test_a_quick_command_can_refuse_its_argument(autojump_clock: MockClock) -> None:
    """The form that is not known changes nothing."""
    async with conversing() as c:
        assert await c.say(b"format xml\nping\n") == b"An error occured : usage: format text|json\npong\n"


async def test_the_first_reason_to_end_is_the_one_recorded(autojump_clock: MockClock) -> None:
    """A client that had said goodbye itself was not sent away."""
    async with conversing() as c:
        await c.say(b"slow a\nexit\n")
        c.session.stop()
        c.slow.finish("a")
        assert await c.heard_all() == b"slow a is done\n"
        assert c.session.reason == "exit"


async def test_progress_is_said_as_json_when_the_answer_is_next_to_leave(
    autojump_clock: MockClock,
) -> None:
    """A program that waits for a large file sees it move, and can match it by number."""
    async with conversing() as c:
        await c.say(b"slow text\nformat json\nslow a\nslow b\n")
        for name in ("text", "a", "b"):
            c.slow.askers[name].progress(1, 4)
        assert await c.heard() == b""
        c.slow.finish("text")
        await c.heard()
        for name in ("a", "b"):
            c.slow.askers[name].progress(2, 4)
        assert [json.loads(line) for line in (await c.heard()).splitlines()] == [
            {"id": 3, "command": "slow", "event": "progress", "done": 2, "total": 4}
        ]
        c.slow.finish("a")
        c.slow.finish("b")
        assert [json.loads(line)["id"] for line in (await c.heard()).splitlines()] == [3, 4]
        assert (c.budget.bytes, c.session._replies.pending) == (0, 0)


async def test_the_record_says_whether_an_answer_was_shared(autojump_clock: MockClock) -> None:
    """An auditor can tell from the record that fewer children ran than answers were given."""

    async def work(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        async def begin(run: Run) -> Reply:
            run.begin()
            if argument == b"fails":
                raise NotFound("nothing there")
            return Reply((argument.decode(),))

        return await surroundings.sharing.run(argument, asker, begin)

    row = Command("share", "share WORD", "answer it", work=work)
    async with conversing(more_commands={b"share": row}) as c:
        heard = await c.say(b"share a\nshare a\nshare b\nshare fails\nping\n")
        assert heard == b"a\na\nb\nAn error occured : nothing there\npong\n"
        shared = [(r["arguments"], r.get("shared")) for r in c.sink.actions("command-completed")]
        assert sorted(shared, key=str) == [
            ("", None),
            ("a", True),
            ("a", True),
            ("b", False),
            ("fails", False),
        ]
        keys = list(c.sink.actions("command-completed")[-1])
        assert keys.index("bytes") + 1 == keys.index("shared")


@pytest.mark.parametrize(
    "line", [b"auth hunter2", b" auth\thunter2", b"AUTH hunter2", b"auth hunter2\x01", b"auth\0hunter2"]
)
async def test_what_follows_auth_is_not_recorded(autojump_clock: MockClock, line: bytes) -> None:
    """A password sent in the place of a token is in no log, however the line was written."""
    async with conversing() as talk:
        await talk.say(b"format json\n" + line + b"\nping\n")
    received, completed = (talk.sink.actions(f"command-{what}") for what in ("received", "completed"))
    assert received[1]["event"] == "Cmd received from 127.0.0.1 : auth ***"
    assert completed[1]["event"] == "Cmd completed for 127.0.0.1 : auth ***"
    assert received[2]["command"] == "ping"
    assert "hunter2" not in str(talk.sink.records)


async def test_a_fault_in_auth_quotes_nothing(autojump_clock: MockClock) -> None:
    """Where the fault is can be found; what the client sent cannot."""

    def answer(argument: bytes, surroundings: Surroundings) -> Reply:
        raise LookupError(argument)

    async def work(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        await trio.lowlevel.checkpoint()
        raise LookupError(argument)

    for row in (Command("auth", "", "", answer=answer), Command("auth", "", "", work=work)):
        async with conversing(more_commands={b"auth": row}) as talk:
            assert await talk.say(b"auth hunter2\n") == b"An error occured : internal error\n"
        (crashed,) = talk.sink.actions("handler-crashed")
        assert "raise LookupError(argument)" in crashed["exception"]
        assert crashed["exception"].endswith("\nLookupError")
        assert "hunter2" not in str(talk.sink.records)


async def test_hundreds_that_fail_at_once_take_turns(autojump_clock: MockClock) -> None:
    """Work that fails without waiting for anything holds nobody up, however much of it is asked."""

    async def fail(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        raise Busy("too much work")

    passes: list[int] = []

    async def count_passes(c: Conversation) -> None:
        while True:
            passes.append(c.tally.outcomes().get("busy", 0))
            await trio.lowlevel.checkpoint()

    rows = {b"fail": Command("fail", "fail", "fail at once", work=fail)}
    async with conversing(Limits(running_per_client=32), rows) as c, trio.open_nursery() as nursery:
        nursery.start_soon(count_passes, c)
        await c.client.send_all(b"fail\n" * 60)
        while c.tally.outcomes().get("busy", 0) < 60:
            await trio.lowlevel.checkpoint()
        passes.append(60)
        nursery.cancel_scope.cancel()
    assert max(later - earlier for earlier, later in itertools.pairwise(passes)) <= 2
