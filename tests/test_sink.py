"""Records are written by one thread, and every one that is not is counted."""

import errno
import fcntl
import json
import os
import re
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from program import wait_until
from trio_cmd.records import events, open_records
from trio_cmd.records.batch import Batch
from trio_cmd.records.output import Descriptor
from trio_cmd.records.sink import WRITE_BYTES, Sink, SinkStatistics
from trio_cmd.settings import Logging

COMMAND = events.COMMAND_RECEIVED.action
OTHER = events.CLIENT_CONNECTED.action
PAGE = 4096
LINE_BYTES = 100
LOSS = re.compile(rb'\{"lost":(\d+)\}')


def line(number: int) -> bytes:
    """A line of ``LINE_BYTES``."""
    return b"%099d\n" % number


def describe_loss(lost: int) -> bytes:
    return b'{"lost":%d}\n' % lost


def bytes_in(fd: int) -> int:
    """How much waits in a pipe."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])


class Reader:
    """The other end of the pipe: reads when the test says so."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.data = b""
        self._thread: threading.Thread | None = None

    def read(self, count: int) -> None:
        self.data += os.read(self.fd, count)

    def read_to_the_end(self) -> None:
        """Read in a thread until all writers are gone."""
        self._thread = threading.Thread(target=self._read_all)
        self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join(10)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def numbers(self) -> list[int]:
        """The numbers of the lines that arrived whole."""
        return [int(piece) for piece in self.data.split(b"\n") if re.fullmatch(rb"\d{99}", piece)]

    def said_lost(self) -> int:
        """How many lines the record itself says were lost."""
        return sum(int(number) for number in LOSS.findall(self.data))

    def _read_all(self) -> None:
        while piece := os.read(self.fd, 1 << 16):
            self.data += piece


class Log:
    """A sink that writes to a pipe of one page, and the pipe's other end."""

    def __init__(
        self,
        queue_events: int,
        queue_bytes: int = 1 << 24,
        *,
        path: Path | None = None,
        holds: bool = False,
    ) -> None:
        if path is None:
            read_fd, self.fd = os.pipe()
        else:
            read_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            self.fd = os.open(path, os.O_WRONLY)
            os.set_blocking(read_fd, True)
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, PAGE)
        self.reader = Reader(read_fd)
        self.sink = Sink(Descriptor(self.fd), queue_events, queue_bytes, holds=holds)
        self.sent = 0
        self.complaints: list[str] = []
        self._is_started = False

    def start(self) -> None:
        self._is_started = True
        self.sink.start(describe_loss, self.complaints.append)

    def put(self, count: int, action: str = COMMAND) -> None:
        for _ in range(count):
            self.sink.put(line(self.sent), action)
            self.sent += 1

    def start_stalled(self) -> None:
        """Start with more than the pipe takes, and wait until the writer is stuck."""
        self.put(100)
        self.start()
        wait_until(self.sink.is_stalled, "a stuck writer")

    def close(self) -> int:
        """End the sink and the pipe, in this order; returns what the sink could not say."""
        unsaid = self.sink.close(10) if self._is_started else 0
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
        return unsaid


MakeLog = Callable[..., Log]


@pytest.fixture
def make_log() -> Iterator[MakeLog]:
    """Make a sink on a pipe; ended with the test, also when its writer is stuck."""
    logs: list[Log] = []

    def make(*args: int, path: Path | None = None, holds: bool = False) -> Log:
        logs.append(Log(*args, path=path, holds=holds))
        return logs[-1]

    yield make
    for log in logs:
        if log.reader._thread is None:
            log.reader.close()  # sets a stuck writer free
        log.close()
        log.reader.close()


def test_all_records_arrive_in_order(make_log: MakeLog) -> None:
    """The log tells what happened in the order it happened, to the last record."""
    log = make_log(5000)
    log.start()
    log.reader.read_to_the_end()
    log.put(1500, COMMAND)
    log.put(1500, OTHER)
    assert log.close() == 0
    log.reader.close()
    assert log.reader.data == b"".join(map(line, range(3000)))
    assert log.sink.statistics() == SinkStatistics(written=3000, lost=0, queued=0, is_stalled=False)


def test_a_full_pipe_never_holds_who_records_and_every_loss_is_counted_and_said(make_log: MakeLog) -> None:
    """A log shipper that stops reading stops no client; afterwards its operator knows what is missing."""
    log = make_log(300)
    log.start_stalled()
    began = time.monotonic()
    log.put(1000)
    assert time.monotonic() - began < 5
    statistics = log.sink.statistics()
    assert (statistics.lost, statistics.queued, statistics.written) == (800, 300, 0)
    log.reader.read_to_the_end()
    wait_until(lambda: log.sink.statistics().queued == 0, "the queue written")
    log.put(5)
    assert log.close() == 0
    log.reader.close()
    statistics = log.sink.statistics()
    assert log.sent == statistics.written + statistics.lost == 1105
    assert log.reader.numbers() == [*range(300), *range(1100, 1105)]
    assert log.reader.said_lost() == statistics.lost == 800


@pytest.mark.parametrize("kind", ["a dead pipe", "/dev/full"])
def test_a_log_that_cannot_be_written_costs_nothing_but_its_records(kind: str, make_log: MakeLog) -> None:
    """A full disk or a dead log shipper does not end the server; the count at the end is exact."""
    log = make_log(300)
    if kind == "/dev/full":
        full = os.open(kind, os.O_WRONLY)
        os.dup2(full, log.fd)
        os.close(full)
    log.reader.close()
    log.start()
    for _ in range(5):
        log.put(20)
        wait_until(lambda: log.sink.statistics().queued == 0, "the queue given up")
    statistics = log.sink.statistics()
    assert (statistics.written, statistics.lost) == (0, 100)
    assert statistics.is_stalled
    log.put(200)
    assert not log.sink.is_pressed()  # nobody waits for a log that never comes back
    assert log.close() == log.sent


def test_a_torn_line_stands_alone_when_the_log_comes_back(make_log: MakeLog, tmp_path: Path) -> None:
    """A log reader that restarts on a named pipe gets whole records again, and knows how many it missed."""
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    log = make_log(300, path=fifo)
    log.put(200)
    log.start()
    for _ in range(2):  # 8192 bytes leave: 81 lines and a piece
        wait_until(lambda: bytes_in(log.fd) == PAGE, "the pipe full")
        if not log.reader.data:
            log.reader.read(PAGE)
    log.reader.close()
    wait_until(lambda: log.sink.statistics().lost == 119, "the rest lost")
    log.put(1)  # still nobody there: the torn line stays torn
    wait_until(lambda: log.sink.statistics().lost == 120, "one more lost")
    log.reader.fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(log.reader.fd, True)
    log.reader.read_to_the_end()
    log.put(3)
    wait_until(lambda: log.sink.statistics().written == 84, "whole records again")
    log.put(2)
    assert log.close() == 0
    log.reader.close()
    assert log.reader.numbers() == [*range(81), *range(201, 206)]
    assert b"\n\n" not in log.reader.data
    torn = line(81)[: 2 * PAGE - 81 * LINE_BYTES]
    assert log.reader.data.startswith(b"".join(map(line, range(81))) + torn + b"\n")
    statistics = log.sink.statistics()
    assert (statistics.written, statistics.lost) == (86, 120)
    assert log.reader.said_lost() == 120
    assert not statistics.is_stalled


def test_a_descriptor_that_does_not_block_loses_nothing(make_log: MakeLog) -> None:
    """Somebody who shares the terminal or pipe and made it non-blocking costs no record."""
    log = make_log(5000)
    os.set_blocking(log.fd, False)
    log.start()
    log.put(3000)
    wait_until(lambda: bytes_in(log.reader.fd) == PAGE, "the pipe full")
    log.reader.read_to_the_end()
    assert log.close() == 0
    log.reader.close()
    assert log.reader.numbers() == list(range(3000))


def test_a_stuck_reader_of_a_descriptor_that_does_not_block_is_seen(make_log: MakeLog) -> None:
    """Also there no client waits for a log that nobody reads."""
    log = make_log(5000)
    os.set_blocking(log.fd, False)
    log.start_stalled()
    assert log.sink.is_stalled()


def test_commands_cannot_take_the_room_of_other_records(make_log: MakeLog) -> None:
    """Connections, refusals and errors are recorded also while a client floods the log with commands."""
    log = make_log(50)
    log.put(200, COMMAND)
    log.put(50, OTHER)
    log.put(7, OTHER)
    assert log.sink.statistics().lost == 150 + 7
    log.start()
    log.reader.read_to_the_end()
    assert log.close() == 0
    log.reader.close()
    assert log.reader.numbers() == [*range(50), *range(200, 250)]
    assert log.reader.said_lost() == 157


def test_the_queue_is_bounded_in_bytes_too(make_log: MakeLog) -> None:
    """Long records do not take more memory than the settings say."""
    log = make_log(1000, 10 * LINE_BYTES)
    log.put(25)
    assert log.sink.statistics() == SinkStatistics(written=0, lost=15, queued=10, is_stalled=False)
    log.start()
    log.reader.read_to_the_end()
    wait_until(lambda: log.sink.statistics().queued == 0, "the queue written")
    log.put(10)  # its room is free again
    assert log.close() == 0
    log.reader.close()
    assert len(log.reader.numbers()) == 20


@pytest.mark.parametrize(("events_", "bytes_"), [(20, 1 << 20), (1000, 20 * LINE_BYTES)])
def test_clients_wait_from_half_of_the_queue_on(events_: int, bytes_: int, make_log: MakeLog) -> None:
    """A healthy log loses nothing to a client that is faster than it."""
    log = make_log(events_, bytes_)
    log.put(9)
    log.put(20, OTHER)
    assert not log.sink.is_pressed()
    log.put(1)
    assert log.sink.is_pressed()
    log.start()
    log.reader.read_to_the_end()
    wait_until(lambda: not log.sink.is_pressed(), "room again")


def test_a_stuck_reader_is_one_that_takes_nothing_for_half_a_second(make_log: MakeLog) -> None:
    """A pause of the log's reader holds clients briefly; an end of it not for ever."""
    log = make_log(100)
    began = time.monotonic()
    log.put(100)
    log.start()
    wait_until(lambda: bytes_in(log.reader.fd) == PAGE, "the pipe full")
    assert log.sink.is_pressed() or time.monotonic() - began > 0.5
    wait_until(log.sink.is_stalled, "a stuck writer")
    assert time.monotonic() - began > 0.5
    assert not log.sink.is_pressed()
    log.reader.read_to_the_end()
    wait_until(lambda: not log.sink.is_stalled(), "the writer free")


def test_a_reader_that_is_only_slow_is_not_taken_for_a_stuck_one(make_log: MakeLog) -> None:
    """Records are written in pieces: what a slow shipper has taken is written, whatever still waits."""
    log = make_log(5000)
    log.put(2000)
    log.start()
    read = 0
    while read < 2 * WRITE_BYTES:
        log.reader.read(PAGE)
        read = len(log.reader.data)
    written = log.sink.statistics().written
    assert WRITE_BYTES // LINE_BYTES <= written < 2000


def test_close_waits_only_as_long_as_it_may_for_a_stuck_reader(make_log: MakeLog) -> None:
    """The server ends in its time whatever became of its log, and says what could not be written."""
    log = make_log(500)
    log.put(200)
    log.start()
    wait_until(lambda: bytes_in(log.reader.fd) == PAGE, "the pipe full")
    began = time.monotonic()
    unsaid = log.sink.close(0.2)
    assert 0.15 < time.monotonic() - began < 5
    in_the_pipe = PAGE // LINE_BYTES
    assert log.sent - in_the_pipe <= unsaid <= log.sent


def test_what_comes_after_the_end_is_counted(make_log: MakeLog) -> None:
    """A thread that still speaks while the server ends breaks nothing, and its records count as lost."""
    log = make_log(500)
    log.start()
    log.put(3)
    assert log.sink.close(10) == 0
    log.put(2)
    assert log.sink.statistics().lost == 2
    assert log.sink.close(0) == 2


def test_a_loss_at_the_very_end_is_still_said_in_the_record(make_log: MakeLog) -> None:
    """The last line of a log that lost records says so."""
    log = make_log(10)
    log.put(15)
    log.start()
    log.reader.read_to_the_end()
    assert log.close() == 0
    log.reader.close()
    assert log.reader.data.endswith(b'{"lost":5}\n')


def test_a_loss_while_the_server_ends_is_still_said_in_the_record(make_log: MakeLog) -> None:
    """Also what was lost behind the last record that could be written is declared."""
    log = make_log(50)
    log.put(50)
    log.start()
    wait_until(lambda: bytes_in(log.reader.fd) == PAGE, "the pipe full")
    log.put(3)  # no room: the writer still holds it
    assert log.sink.close(0.01) > 3
    log.reader.read_to_the_end()
    assert log.close() == 0
    log.reader.close()
    assert log.reader.numbers() == list(range(50))
    assert log.reader.data.endswith(b'{"lost":3}\n')


def test_many_threads_may_record_and_the_counts_stay_exact(make_log: MakeLog) -> None:
    """What hash threads and libraries say is neither lost nor counted twice."""
    log = make_log(100)
    log.start()
    log.reader.read_to_the_end()

    def speak(number: int) -> None:
        for _ in range(500):
            log.sink.put(line(number), COMMAND)

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert log.close() == 0
    log.reader.close()
    statistics = log.sink.statistics()
    assert statistics.written + statistics.lost == 4000
    assert (len(log.reader.numbers()), log.reader.said_lost()) == (statistics.written, statistics.lost)


# Holding: clients wait, and nothing is lost


def test_held_records_stay_until_the_reader_is_back(make_log: MakeLog) -> None:
    """Who asked for no gap has none, however long the log's reader was away."""
    log = make_log(100, holds=True)
    log.start_stalled()
    log.put(1000)
    assert log.sink.is_pressed()
    assert log.sink.is_held()
    log.reader.read_to_the_end()
    wait_until(lambda: not log.sink.is_held(), "room again")
    assert log.close() == 0
    log.reader.close()
    assert log.reader.numbers() == list(range(1100))
    assert log.sink.statistics() == SinkStatistics(written=1100, lost=0, queued=0, is_stalled=False)


@pytest.mark.parametrize("action", [COMMAND, OTHER])
def test_half_of_any_room_holds_everybody(action: str, make_log: MakeLog) -> None:
    """A crowd that only connects must not fill the queue either."""
    log = make_log(20, holds=True)
    log.put(9, action)
    assert not log.sink.is_held()
    log.put(1, action)
    assert log.sink.is_held()
    assert log.sink.is_pressed()


def test_nobody_is_kept_out_for_records_that_may_be_dropped(make_log: MakeLog) -> None:
    """Admission waits only for those who asked for it."""
    log = make_log(20)
    log.put(100)
    assert not log.sink.is_held()


def test_held_records_survive_a_dead_reader_and_go_to_the_next(make_log: MakeLog, tmp_path: Path) -> None:
    """A log reader that is restarted on a named pipe finds every record, the torn one whole again."""
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    log = make_log(50, path=fifo, holds=True)
    log.put(60)
    log.start()
    wait_until(lambda: bytes_in(log.fd) == PAGE, "the pipe full")
    log.reader.close()
    wait_until(log.sink.is_stalled, "the reader missed")
    log.put(10)
    assert log.sink.is_held()
    result = "cannot be written: Broken pipe; clients wait until it can"
    wait_until(lambda: log.complaints == [f"standard output {result}"], "it is said")
    log.reader.fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(log.reader.fd, True)
    log.reader.read_to_the_end()
    wait_until(lambda: log.sink.statistics().queued == 0, "all written")
    assert log.close() == 0
    log.reader.close()
    assert log.reader.numbers() == list(range(70))
    assert log.sink.statistics() == SinkStatistics(written=70, lost=0, queued=0, is_stalled=False)


def test_held_records_that_cannot_be_written_are_given_up_at_the_end(make_log: MakeLog) -> None:
    """The server ends in its time, and says how many records it takes with it."""
    log = make_log(50, holds=True)
    log.reader.close()
    log.start()
    log.put(70)
    wait_until(log.sink.is_stalled, "the reader missed")
    assert log.sink.statistics().lost == 0
    began = time.monotonic()
    assert log.sink.close(0.1) == 70
    assert time.monotonic() - began < 5
    wait_until(lambda: not log.sink._thread.is_alive(), "the writer's end")


# Saying it elsewhere


class Moody:
    """An output that fails as the test says."""

    name = "'/log'"

    def __init__(self) -> None:
        self.is_torn = False
        self.trouble: OSError | None = None
        self.fault: OSError | None = None
        self.data = b""

    def prepare(self) -> None:
        if self.fault is not None:
            raise self.fault

    def write(self, data: memoryview) -> int:
        self.data += data
        return len(data)

    def reopen(self) -> bool:
        return True

    def close(self) -> None:
        self.data += b"closed\n"


def test_trouble_is_said_once_when_it_begins_and_not_at_each_of_many_beginnings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that is almost full fills neither standard error nor the journal."""
    output, said = Moody(), list[str]()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    sink = Sink(output, 100, 1 << 20)
    sink.start(describe_loss, said.append)

    def put_during(fault: OSError | None) -> None:
        output.fault = fault
        seen = sink.statistics().lost + sink.statistics().written
        sink.put(line(1), COMMAND)
        wait_until(lambda: sink.statistics().lost + sink.statistics().written > seen, "a turn")

    for fault in (full, full, None, full, None):
        put_during(fault)
    one = "'/log' cannot be written: No space left on device; records are lost until it can"
    assert said == [one]
    monkeypatch.setattr("trio_cmd.records.writer.COMPLAINT_SECONDS", 0)
    put_during(full)
    assert said == [one, one]
    output.trouble = OSError(errno.EROFS, os.strerror(errno.EROFS))
    put_during(None)
    put_during(None)
    assert said == [one, one]  # it is one trouble that goes on
    output.trouble = None
    put_during(None)
    output.trouble = OSError(errno.EROFS, os.strerror(errno.EROFS))
    put_during(None)
    assert said[2:] == [
        "'/log' cannot be opened anew: Read-only file system; the record goes on in the old file"
    ]
    assert sink.close(10) == 0
    assert output.data.endswith(b"closed\n")


def test_what_was_lost_is_said_within_seconds_though_nothing_else_happens() -> None:
    """An idle night does not hide that the evening's records are missing."""
    output = Moody()
    output.fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    sink = Sink(output, 100, 1 << 20)
    sink.start(describe_loss, list[str]().append)
    sink.put(line(1), COMMAND)
    wait_until(lambda: sink.statistics().lost == 1, "a loss")
    output.fault = None
    wait_until(lambda: output.data == describe_loss(1), "it is said")
    wait_until(lambda: not sink.is_stalled(), "and the trouble is over")
    assert sink.close(10) == 0


class Small(Moody):
    """A disk that is full, and then has some room."""

    def __init__(self) -> None:
        super().__init__()
        self.room = 0

    def write(self, data: memoryview) -> int:
        done = min(self.room, len(data))
        if not done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= done
        return super().write(data[:done])


def test_the_loss_is_the_first_to_be_said_when_a_little_room_comes_back() -> None:
    """What waits may fill the disk again at once, and the gap has been declared all the same."""
    output = Small()
    sink = Sink(output, 10_000, 1 << 24)
    lines_in_a_piece = WRITE_BYTES // LINE_BYTES
    for number in range(3 * lines_in_a_piece):
        sink.put(line(number), COMMAND)

    def give_room(_: str) -> None:
        output.room = 10 * LINE_BYTES

    sink.start(describe_loss, give_room)  # the writer itself gives it: in the middle of its turn
    wait_until(lambda: sink.statistics().queued == 0, "the queue given up")
    first, *_ = output.data.splitlines(keepends=True)
    assert first == describe_loss(lines_in_a_piece)
    unsaid = sink.close(10)
    statistics = sink.statistics()
    assert statistics.written + statistics.lost == 3 * lines_in_a_piece
    assert unsaid == statistics.lost - lines_in_a_piece


class Measured(Moody):
    """An output that remembers how large the writes were."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def write(self, data: memoryview) -> int:
        self.sizes.append(len(data))
        return super().write(data)


def test_batches_that_are_too_much_together_leave_in_writes_of_their_own() -> None:
    """A slow shipper is not taken for a stuck one because commands came many at a time."""
    output = Measured()
    sink = Sink(output, 10_000, 1 << 24)
    size = WRITE_BYTES // LINE_BYTES * 2 // 3
    for _ in range(3):
        sink.put_commands(Batch(b"".join(map(line, range(size))), size))
    sink.start(describe_loss, list[str]().append)
    assert sink.close(10) == 0
    assert output.sizes == [size * LINE_BYTES] * 3


# open_records: events, rendering and sink together


def test_records_are_json_unless_a_person_looks_at_them() -> None:
    """A shipper gets JSON and a terminal text without anybody having to say so."""
    master, terminal = os.openpty()
    read_fd, write_fd = os.pipe()
    shown = []
    for fd, other_end in ((terminal, master), (write_fd, read_fd)):
        log, sink = open_records(Logging(), fd)
        log.record(events.STOPPED, reason="SIGTERM")
        assert sink.close(10) == 0
        shown.append(os.read(other_end, PAGE))
    for fd in (master, terminal, read_fd, write_fd):
        os.close(fd)
    text, record = shown
    assert text.endswith(b" [-] Main loop terminated.\r\n")
    assert json.loads(record)["event"] == "Main loop terminated."


@pytest.mark.parametrize("form", ["json", "twisted"])
def test_the_form_can_be_chosen_and_a_loss_is_said_in_it(form: str) -> None:
    """The sentence about lost records can be searched for like any other record."""
    read_fd, write_fd = os.pipe()
    settings = Logging(format="json" if form == "json" else "twisted", queue_events=256)
    reader = Reader(read_fd)
    log, sink = open_records(settings, write_fd)
    for _ in range(3000):
        log.record(events.STOPPED, reason="x" * 100)
    wait_until(lambda: sink.statistics().lost > 0, "a loss")
    reader.read_to_the_end()
    assert sink.close(10) == 0
    os.close(write_fd)
    reader.close()
    lines = reader.data.splitlines()
    assert len(lines) >= sink.statistics().written
    if form == "twisted":
        said = [int(match[1]) for match in re.finditer(rb" \[-\] (\d+) log events lost\n", reader.data)]
    else:
        records = [json.loads(text) for text in lines]
        losses = [record for record in records if record["action"] == "events-lost"]
        assert all(loss["event"] == f"{loss['lost']} log events lost" for loss in losses)
        assert {(loss["level"], loss["system"]) for loss in losses} == {("warning", "-")}
        said = [loss["lost"] for loss in losses]
    assert sum(said) == sink.statistics().lost
    assert sum(said) + sink.statistics().written == 3000


def test_the_form_and_the_room_change_while_records_are_written() -> None:
    """A reload gives the record another form at a line's end, and loses nothing that waits."""
    read_fd, write_fd = os.pipe()
    reader = Reader(read_fd)
    log, sink = open_records(Logging(format="json"), write_fd)
    own = log.bind(system="own")  # a connection's, bound before
    log.record(events.STOPPED, reason="x")
    sink.renew(Logging(format="twisted", queue_events=256))
    own.record(events.STOPPED, reason="x")
    for _ in range(3000):
        log.record(events.STOPPED, reason="x")
    assert sink.statistics().lost > 0
    sink.renew(Logging(format="json", queue_events=100_000))
    lost = sink.statistics().lost
    for _ in range(3000):
        own.record(events.STOPPED, reason="x")
    assert sink.statistics().lost == lost
    reader.read_to_the_end()
    assert sink.close(10) == 0
    os.close(write_fd)
    reader.close()
    lines = reader.data.splitlines()
    assert json.loads(lines[0])["action"] == "stopped"
    assert lines[1].endswith(b" [own] Main loop terminated.")
    assert json.loads(lines[-1])["action"] in ("stopped", "events-lost")


def test_a_reload_can_have_clients_wait_rather_than_lose_a_record() -> None:
    """Whoever finds records lost changes that without a restart."""
    read_fd, write_fd = os.pipe()
    log, sink = open_records(Logging(), write_fd)
    sink.renew(Logging(when_full="hold", queue_events=256))
    for _ in range(3000):
        log.record(events.STOPPED, reason="x" * 100)
    assert sink.is_held()
    assert sink.statistics().lost == 0
    reader = Reader(read_fd)
    reader.read_to_the_end()
    assert sink.close(10) == 0
    os.close(write_fd)
    reader.close()
    assert reader.data.count(b"\n") == 3000
