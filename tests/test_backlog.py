import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.work.backlog import Backlog


def drain(backlog: Backlog, max_bytes: int = 100) -> list[bytes | int]:
    """Take all that waits: lines, and the numbers of those that are missing."""
    taken: list[bytes | int] = []
    while not backlog.is_empty:
        skipped, lines = backlog.take(max_bytes)
        taken += [skipped] if skipped else []
        taken += [line + b"\n" for line in lines.split(b"\n")[:-1]]
    return taken


@given(st.lists(st.binary(max_size=20)))
def test_any_cut_of_the_output_gives_the_same_lines(pieces: list[bytes]) -> None:
    """How a program happens to write must not change what is shown."""
    backlog = Backlog(10_000)
    for piece in pieces:
        backlog.add(piece)
    whole = b"".join(pieces).split(b"\n")[:-1]
    assert drain(backlog, 7) == [line + b"\n" for line in whole]
    assert backlog.take(7) == (0, b"")


def test_line_is_held_back_until_it_is_whole() -> None:
    """Half a line would be taken for a line."""
    backlog = Backlog(100)
    backlog.add(b"one\ntw")
    assert drain(backlog) == [b"one\n"]
    assert backlog.is_empty
    backlog.add(b"o\n")
    assert drain(backlog) == [b"two\n"]


@given(st.lists(st.integers(1, 30), max_size=200))
def test_no_line_is_lost_without_being_counted_and_no_more_waits_than_allowed(sizes: list[int]) -> None:
    """The reader knows exactly how much is missing, and the memory is bounded whatever is written."""
    backlog = Backlog(100)
    for size in sizes:
        backlog.add(b"x" * (size - 1) + b"\n")
    taken = drain(backlog)
    lines = [line for line in taken if isinstance(line, bytes)]
    skipped = sum(count for count in taken if isinstance(count, int))
    assert len(lines) + skipped == len(sizes)
    assert [len(line) for line in lines] == sizes[skipped:]
    assert sum(map(len, lines)) <= 100
    assert not skipped or taken[0] == skipped


def test_older_lines_give_way_and_are_counted_before_those_that_stay() -> None:
    """A slow reader sees the newest, and where the gap is."""
    backlog = Backlog(9000)
    for number in range(4):
        backlog.add(b"%04095d\n" % number)
    assert drain(backlog) == [2, b"%04095d\n" % 2, b"%04095d\n" % 3]


@pytest.mark.parametrize("cuts", [1, 7, 100, 500])
def test_line_that_is_too_long_is_counted_where_it_stood(cuts: int) -> None:
    """Ten megabytes without a newline fill nothing, and the lines around them are shown."""
    backlog = Backlog(1000)
    data = b"before\n" + b"x" * 5000 + b"\nafter\n" + b"y" * 999 + b"\n" + b"z" * 1000 + b"\n"
    for start in range(0, len(data), cuts):
        backlog.add(data[start : start + cuts])
        taken = backlog._bytes + len(backlog._unfinished)
        assert taken <= 2000 or cuts > 2000
    # The long line of y fills all there is, so what waited before gave way to it.
    assert drain(backlog) == [3, b"y" * 999 + b"\n", 1]


def test_line_too_long_between_others_is_counted_between_them() -> None:
    """The gap stands in its place."""
    backlog = Backlog(100)
    for data in (b"a\n", b"x" * 500 + b"\n", b"b\n", b"x" * 500, b"x\nc\n"):
        backlog.add(data)
    assert drain(backlog) == [b"a\n", 1, b"b\n", 1, b"c\n"]


def test_what_waits_can_be_forgotten_and_is_counted() -> None:
    """Who stops reading is told how much was still to come."""
    backlog = Backlog(100)
    for data in (b"a\nb\n", b"x" * 500 + b"\n", b"c\nunfinished"):
        backlog.add(data)
    assert backlog.skip_all() == 4
    assert backlog.is_empty
    assert backlog.skip_all() == 0


def test_only_so_much_is_taken_at_once_and_the_rest_stays() -> None:
    """Others have their turn between two pieces."""
    backlog = Backlog(100)
    backlog.add(b"first\na\nb\nc\n")
    assert [backlog.take(5)[1] for _ in range(3)] == [b"first\n", b"a\nb\n", b"c\n"]
    assert backlog.is_empty


def test_skipped_line_alone_is_told_without_lines() -> None:
    """A log of one mad line says so."""
    backlog = Backlog(100)
    backlog.add(b"x" * 500 + b"\n")
    assert not backlog.is_empty
    assert backlog.take(10) == (1, b"")
    assert backlog.is_empty


def test_one_line_is_taken_whole_even_if_it_is_longer_than_asked_for() -> None:
    """A line is never cut."""
    backlog = Backlog(100)
    backlog.add(b"x" * 50 + b"\ny\n")
    assert backlog.take(10) == (0, b"x" * 50 + b"\n")
    assert backlog.take(10) == (0, b"y\n")


def test_short_lines_written_one_by_one_cost_little_more_than_their_bytes() -> None:
    """A million tiny pieces would each cost an object of fifty bytes."""
    backlog = Backlog(1 << 20)
    for _ in range(10_000):
        backlog.add(b"a\n")
    assert len(backlog._items) < 10
