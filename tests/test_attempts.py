"""Whoever sends wrong tokens must wait; nobody else does, and a table of them stays small and fast."""

import time
from collections.abc import Hashable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_cmd.server import attempts
from trio_cmd.server.attempts import MAX_ROWS, MAX_WRONG, WINDOW_SECONDS, WrongTokens

STEPS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from((0.0, 0.1, 1.0, 6.5, 20.0, 59.9, 60.0))), max_size=120
)


class Naive:
    """All wrong tokens there ever were, looked through each time."""

    def __init__(self) -> None:
        self._wrong: list[tuple[Hashable, float]] = []

    def seconds_left(self, key: Hashable, now: float) -> int:
        times = [when for who, when in self._wrong if who == key]
        for last in range(MAX_WRONG - 1, len(times)):
            is_blocked = times[last] - times[last - MAX_WRONG + 1] < WINDOW_SECONDS
            left = WINDOW_SECONDS - (now - times[last])
            if is_blocked and left > 0:
                return int(left) + (left != int(left))
        return 0

    def add(self, key: Hashable, now: float) -> None:
        self._wrong.append((key, now))


@given(STEPS)
@example([(0, 0.0)] * 25)
@example([(0, 6.0)] * 40)
@example([(0, 7.0)] * 40)
@example([(0, 0.0)] * 9 + [(0, 60.0), (0, 0.0)])
@example([(0, 0.0)] * 9 + [(0, 59.9), (0, 0.1), (0, 0.0), (0, 59.9), (0, 0.0)])
@example([(0, 0.1)] * 10 + [(0, 59.9), (0, 0.1)] + [(0, 1.0)] * 20)
def test_who_must_wait_and_how_long_is_what_counting_by_hand_gives(steps: list[tuple[int, float]]) -> None:
    """The rule of the manual is what happens: ten within a minute, then a minute of waiting."""
    wrong, naive, now = WrongTokens(), Naive(), 0.0
    for key, seconds in steps:
        now += seconds
        for other in range(5):
            assert wrong.seconds_left(other, now) == naive.seconds_left(other, now)
        if not wrong.seconds_left(key, now):
            wrong.add(key, now)
            naive.add(key, now)


@given(STEPS, st.integers(1, 4))
def test_the_row_that_ends_first_goes(steps: list[tuple[int, float]], max_rows: int) -> None:
    """Whoever has many addresses makes the table forget, but the newest last, and never grow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "MAX_ROWS", max_rows)
        wrong, newest, now = WrongTokens(), dict[int, float](), 0.0
        for key, seconds in steps:
            now += seconds
            if not wrong.seconds_left(key, now):
                wrong.add(key, now)
                newest.pop(key, None)
                newest[key] = now
            known = list(newest)[-max_rows:]
            assert [row for row in known if now - newest[row] < WINDOW_SECONDS] == [
                row for row in wrong._rows if now - wrong._rows[row][-1] < WINDOW_SECONDS
            ]
            assert len(wrong) <= max_rows


def test_the_wait_is_told_in_whole_seconds_and_never_as_none() -> None:
    """A client that waits as long as it was told is not told to wait again."""
    wrong, now = WrongTokens(), 1e9 / 3
    for _ in range(MAX_WRONG):
        assert wrong.seconds_left("10.0.0.1", now) == 0
        wrong.add("10.0.0.1", now)
    assert wrong.seconds_left("10.0.0.1", now) == 60
    assert wrong.seconds_left("10.0.0.1", now + 0.5) == 60
    assert wrong.seconds_left("10.0.0.1", now + 59.99) == 1
    assert wrong.seconds_left("10.0.0.1", now + 60) == 0
    assert wrong.seconds_left("10.0.0.2", now) == 0


def test_rows_that_have_ended_are_thrown_out() -> None:
    """An attack of yesterday takes no memory today."""
    wrong = WrongTokens()
    for number in range(100):
        wrong.add(number, 0.0)
    for number in range(100):
        wrong.add(-1 - number % 2, 60.0 + number)
    assert len(wrong) == 2


def test_more_addresses_than_rows_do_not_make_it_slow() -> None:
    """Who has a million addresses costs the server no more by each than who has one."""
    wrong, slowest = WrongTokens(), 0.0
    began = time.process_time()
    for number in range(3 * MAX_ROWS):
        wrong.add(number, number / 2000)  # more in a minute than there are rows
    seconds = time.process_time() - began
    assert len(wrong) == MAX_ROWS
    # After a pause all have ended: not all of them are thrown out at once.
    for number in range(1000):
        before = time.process_time()
        wrong.add(-number, 1e6)
        slowest = max(slowest, time.process_time() - before)
    assert seconds / (3 * MAX_ROWS) < 50e-6
    assert slowest < 10e-3
