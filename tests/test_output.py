"""What a program prints: as much as fits, safe to show, and never at the cost of other clients."""

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from trio_cmd.errors import OutputTooLong
from trio_cmd.escape import escape_lines
from trio_cmd.work import output
from trio_cmd.work.output import Output, escape_in_pieces


async def test_output_that_just_fits_is_whole() -> None:
    """The cap is a number of bytes that may be printed, not one that may not."""
    kept = Output("x", 6)
    kept.add(b"one\n")
    kept.add(b"tw")
    assert await kept.lines(is_whole=True) == ["one", "tw"]


async def test_output_beyond_the_cap_is_told_and_cut_at_a_line() -> None:
    """What was collected is not thrown away, and no half line is taken for a whole one."""
    kept = Output("yes", 6)
    with pytest.raises(OutputTooLong) as caught:
        kept.add(b"one\ntwo\n")
    assert caught.value.message == "yes printed more than 6 bytes and was ended"
    assert await kept.lines(is_whole=False) == ["one"]


@pytest.mark.parametrize(("data", "lines"), [(b"", []), (b"half", []), (b"one\n\n", ["one", ""])])
async def test_unfinished_line_of_an_ended_program_is_left_out(data: bytes, lines: list[str]) -> None:
    """Nobody knows how it would have gone on."""
    kept = Output("x", 100)
    kept.add(data)
    assert await kept.lines(is_whole=False) == lines


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode), st.integers(1, 9))
@example(b"\n\n", 1)
@example(b"ab\ncdefgh", 1)
@example("\u20ac\U0001f600".encode() * 5, 5)
@example(b"\x80" * 20, 4)
@example(b"a\xf0\x9f\x98b\x80\x80\x80\x80\x80", 4)
def test_pieces_give_the_lines_of_the_whole(data: bytes, size: int) -> None:
    """Where a cut falls, in a line or beside a character, changes nothing of what is shown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "_ESCAPE_BYTES", size + 3)
        assert trio.run(escape_in_pieces, data) == escape_lines(data)


async def test_a_hostile_line_without_an_end_lets_others_run() -> None:
    """Control characters cost most, and nobody else waits for all of them."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        lines = await escape_in_pieces(b"\x01" * 1_000_000)
        nursery.cancel_scope.cancel()
    assert lines == ["\\x01" * 1_000_000]
    assert turns >= 10


@given(st.integers(0, 90), st.integers(1, 60))
def test_a_token_across_a_cut_is_hidden(before: int, size: int) -> None:
    """Where a long line is cut says nothing of a token in it."""
    token = b"tcmd_" + b"Aa0_-" * 9
    data = b"x" * before + b" " + token + b" y"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "_ESCAPE_BYTES", size + 3)
        assert trio.run(escape_in_pieces, data) == ["x" * before + " tcmd_*** y"]


async def test_one_large_output_is_made_safe_at_a_time_and_small_ones_do_not_wait() -> None:
    """Half-made answers of many programs do not take the memory of the host."""
    large, made = b"x\n" * 50_000, []

    async def make() -> None:
        made.append(len(await escape_in_pieces(large)))

    async with trio.open_nursery() as nursery, output._ONE_AT_A_TIME:
        nursery.start_soon(make)
        await trio.testing.wait_all_tasks_blocked()
        assert await escape_in_pieces(b"small\n") == ["small"]
        assert made == []
    assert made == [50_000]
