"""Answers enter in any order, bytes leave in the order asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.errors import Busy
from trio_cmd.server.replies import Budget, ReplyQueue, Slot


def make_queue(max_replies: int = 4, max_bytes: int = 100) -> tuple[ReplyQueue, Budget]:
    budget = Budget(1000)
    return ReplyQueue(max_replies, max_bytes, budget), budget


@given(st.data())
def test_answers_leave_in_the_order_asked_whatever_order_they_were_ready_in(data: st.DataObject) -> None:
    """The third answer is that to the third line, and nothing is left on the account."""
    queue, budget = make_queue()
    asked: list[bytes] = []
    waiting: list[tuple[Slot, bytes]] = []
    left = b""
    leaving: int | None = None
    for what in data.draw(st.lists(st.sampled_from(["add", "reserve", "finish", "take", "written"]))):
        answer = f"{len(asked)};".encode()
        if what == "add":
            queue.add(answer)
            asked.append(answer)
        elif what == "reserve":
            waiting.append((queue.reserve(), answer))
            asked.append(answer)
        elif what == "finish" and waiting:
            queue.finish(*waiting.pop(data.draw(st.integers(0, len(waiting) - 1))))
        elif what == "take" and leaving is None:
            taken = queue.take()
            left += taken
            leaving = len(taken)
        elif what == "written" and leaving is not None:
            queue.written(leaving)
            leaving = None
        assert b"".join(asked).startswith(left)
        assert queue.pending >= len(waiting)
        assert budget.bytes == queue.bytes == _finished(asked, waiting) - len(left) + (leaving or 0)
    for slot, answer in waiting:
        queue.finish(slot, answer)
    left += queue.take()
    queue.written(queue.bytes)
    assert left == b"".join(asked)
    assert (queue.pending, queue.bytes, budget.bytes) == (0, 0, 0)


def _finished(asked: list[bytes], waiting: list[tuple[Slot, bytes]]) -> int:
    return sum(map(len, asked)) - sum(len(answer) for _, answer in waiting)


def test_an_answer_behind_an_unfinished_one_waits() -> None:
    """A quick answer never overtakes a slow one."""
    queue, _ = make_queue()
    slot = queue.reserve()
    queue.add(b"pong\n")
    assert queue.take() == b""
    queue.finish(slot, b"hash\n")
    assert queue.take() == b"hash\npong\n"


def test_the_queue_is_full_by_number_until_answers_have_left() -> None:
    """A client that asks without reading waits; it costs a bounded number of answers."""
    queue, _ = make_queue(max_replies=2)
    queue.add(b"a")
    assert not queue.is_full()
    slot = queue.reserve()
    assert queue.is_full()
    queue.finish(slot, b"b")
    assert queue.take() == b"ab"
    assert queue.is_full()  # taken, but not yet in the network
    queue.written(2)
    assert not queue.is_full()


def test_the_queue_is_full_by_bytes_and_no_more_work_is_begun() -> None:
    """A client that asks for long answers without reading costs a bounded number of bytes."""
    queue, _ = make_queue(max_bytes=100)
    queue.add(b"x" * 99)
    assert not queue.is_full()
    assert queue.has_room_for_work()
    queue.add(b"x")
    assert queue.is_full()
    assert not queue.has_room_for_work()


def test_all_clients_share_one_budget() -> None:
    """A hundred clients that do not read cost no more memory than the settings say."""
    budget = Budget(10)
    one, other = ReplyQueue(4, 100, budget), ReplyQueue(4, 100, budget)
    one.add(b"x" * 5)
    budget.check()
    other.add(b"x" * 5)
    with pytest.raises(Busy, match="too many answers wait for their readers"):
        budget.check()
    one.clear()
    budget.check()


@pytest.mark.parametrize(("running", "enough"), [(30, 70), (80, 50)])
def test_the_budget_keeps_room_for_what_runs_already(running: int, enough: int) -> None:
    """What was begun while there was room does not lead beyond the limit; small budgets still allow work."""
    budget = Budget(100, running)
    budget.bytes = enough - 1
    budget.check()
    budget.bytes = enough
    with pytest.raises(Busy):
        budget.check()


def test_a_lost_client_gives_back_what_it_took_also_what_was_leaving() -> None:
    """Clients that vanish in the middle of answers do not eat up the budget of all."""
    queue, budget = make_queue()
    queue.add(b"taken")
    assert queue.take() == b"taken"
    queue.add(b"waiting")
    queue.reserve()
    queue.clear()
    assert (queue.pending, queue.bytes, budget.bytes) == (0, 0, 0)
    assert queue.take() == b""
