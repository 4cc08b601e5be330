"""Records that travel together are counted and cut as if each travelled alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_writer import Narrow

from test_sink import COMMAND, LINE_BYTES, Moody, Small, describe_loss, line
from trio_cmd.records.batch import Batch
from trio_cmd.records.sink import Sink, SinkStatistics
from trio_cmd.records.writer import Writer

LINES = st.lists(st.sampled_from((b"\n", b"a\n", b"bcd\n", b"efghij\n")), min_size=2, max_size=12)


def join(lines: list[bytes]) -> Batch:
    return Batch(b"".join(lines), len(lines))


def make_writer(output: Moody) -> Writer:
    writer = Writer(output, lambda: "")
    writer.complain = lambda _: None
    return writer


@given(LINES, st.integers(0, 80), st.integers(0, 12))
def test_where_a_write_fails_nothing_depends_on_what_travelled_together(
    lines: list[bytes], room: int, cut: int
) -> None:
    """The count of lost records is exact, and no line is written twice or torn unseen."""
    batches = [join(part) for part in (lines[:cut], lines[cut:]) if part]
    alone, together = Narrow(room), Narrow(room)
    assert make_writer(together).write(batches) == make_writer(alone).write([Batch(one) for one in lines])
    assert (together.data, together.is_torn) == (alone.data, alone.is_torn)


@given(LINES, st.data())
def test_a_batch_is_split_between_its_records(lines: list[bytes], data: st.DataObject) -> None:
    """What is kept for the next try begins where the last one ended."""
    count = data.draw(st.integers(1, len(lines) - 1))
    assert join(lines).split(count) == (join(lines[:count]), join(lines[count:]))


def test_one_record_of_more_lines_is_one() -> None:
    """A traceback in Twisted's text of which only a part was written is lost, not written."""
    output = Narrow(room=18)
    assert make_writer(output).write([Batch(b"Unhandled Error\n\tcause\n")]) == 0
    assert output.is_torn


def start(output: Moody, queue_events: int, *, holds: bool = False, queue_bytes: int = 1 << 20) -> Sink:
    sink = Sink(output, queue_events, queue_bytes, holds=holds)
    sink.start(describe_loss, lambda _: None)
    return sink


@pytest.mark.parametrize(("events", "room_bytes"), [(5, 1 << 20), (100, 5 * LINE_BYTES + 1)])
def test_of_records_that_do_not_all_fit_those_are_taken_that_do(events: int, room_bytes: int) -> None:
    """A full queue loses exactly what it has no room for, whoever puts how much at once."""
    output = Moody()
    sink = Sink(output, events, room_bytes)
    sink.put_commands(join([line(number) for number in range(3)]))
    assert sink.statistics() == SinkStatistics(written=0, lost=0, queued=3, is_stalled=False)
    assert sink.is_pressed()
    sink.put_commands(join([line(number) for number in range(3, 11)]))
    assert sink.statistics() == SinkStatistics(written=0, lost=6, queued=5, is_stalled=False)
    sink.start(describe_loss, lambda _: None)
    assert sink.close(10) == 0
    assert output.data == b"".join(map(line, range(5))) + describe_loss(6) + b"closed\n"


def test_held_records_are_written_once_though_a_write_ends_in_the_middle_of_them() -> None:
    """A disk that was full has each record whole and once when it has room again."""
    output = Small()
    output.room = 3 * LINE_BYTES + 10
    sink = Sink(output, 100, 1 << 20, holds=True)
    sink.put_commands(join([line(number) for number in range(4)]))
    sink.put(line(4), COMMAND)
    sink.put_commands(join([line(number) for number in range(5, 9)]))

    def give_room(_: str) -> None:
        output.room = 1 << 20

    sink.start(describe_loss, give_room)
    assert sink.close(10) == 0
    torn = line(3)[:10] + b"\n"
    assert output.data == b"".join([*map(line, range(3)), torn, *map(line, range(3, 9)), b"closed\n"])
    assert sink.statistics() == SinkStatistics(written=9, lost=0, queued=0, is_stalled=False)


def test_what_comes_after_the_end_is_lost_together() -> None:
    """Each of these records counts, also of a client that asked much at once."""
    sink = start(Moody(), 100)
    assert sink.close(10) == 0
    sink.put_commands(join([line(number) for number in range(4)]))
    assert sink.statistics().lost == 4
