"""One write of the record: what of it is whole, and when it is known that lines can be written."""

import errno
import os

from test_sink import Moody
from trio_cmd.records.batch import Batch
from trio_cmd.records.writer import Writer

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def make_writer(output: Moody) -> tuple[Writer, list[str]]:
    said: list[str] = []
    writer = Writer(output, lambda: "somebody waits")
    writer.complain = said.append
    return writer, said


def test_what_follows_a_failure_is_said_with_it() -> None:
    """The operator reads what is wrong, and what it does to the clients."""
    output = Moody()
    output.fault = FULL
    writer, said = make_writer(output)
    assert writer.write([Batch(b"a\n")]) == 0
    assert said == ["'/log' cannot be written: No space left on device; somebody waits"]
    assert writer.is_stalled()


def test_only_lines_that_went_out_show_that_lines_go_out() -> None:
    """To have opened a file on a full disk does not make clients wait for it again."""
    output = Moody()
    output.fault = FULL
    writer, _ = make_writer(output)
    writer.write([Batch(b"a\n")])
    output.fault = None
    assert writer.write([]) == 0
    assert writer.is_stalled()
    assert writer.write([Batch(b"b\n"), Batch(b"c\n")]) == 2
    assert not writer.is_stalled()
    assert output.data == b"b\nc\n"


class Narrow(Moody):
    """An output that takes some bytes and then fails."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: memoryview) -> int:
        if not self.room:
            raise FULL
        taken, self.room = min(len(data), self.room), 0
        return super().write(data[:taken])


def test_a_torn_line_is_ended_before_the_next_one() -> None:
    """A shipper loses one line, not two that have become one."""
    output = Narrow(room=4)
    writer, _ = make_writer(output)
    assert writer.write([Batch(b"a\n"), Batch(b"bcd\n")]) == 1
    assert output.is_torn
    output.room = 100
    assert writer.write([Batch(b"e\n")]) == 1
    assert output.data == b"a\nbc\ne\n"
    assert not output.is_torn
