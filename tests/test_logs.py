import contextlib
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from program import PATIENCE_SECONDS, wait_for
from trio_cmd.errors import Busy, DeadlinePassed, NotARegularFile, NotFound, NotPermitted, Unavailable
from trio_cmd.server.deadlines import Sweeper
from trio_cmd.work import files, logs, torn_line
from trio_cmd.work.limiter import FairLimiter, Limit, LimiterStatistics, WaitingRoom
from trio_cmd.work.logs import MAX_OUTPUT_BYTES, LogReader, NewestLines
from trio_cmd.work.output import escape_in_pieces
from trio_cmd.work.processes import GroupReaper

IDLE = LimiterStatistics(running=0, waiting=0)


@contextlib.contextmanager
def no_limit(command: str, seconds: float) -> Iterator[None]:
    """Keep no deadline."""
    yield


def make_reader(places: int = 2, max_waiting: int = 256, limit: Limit = no_limit) -> LogReader:
    return LogReader(FairLimiter(places, WaitingRoom(max_waiting)), GroupReaper(), limit)


async def newest(path: Path, lines: int, reader: LogReader | None = None) -> NewestLines:
    with trio.fail_after(PATIENCE_SECONDS):
        return await (reader or make_reader()).newest(os.fsencode(path), lines, "client")


def is_open(path: Path) -> bool:
    """Tell whether this process has a file open."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{fd}") == str(path):
                return True
    return False


def children() -> set[int]:
    """The children of this process, whichever of its threads started them."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.fixture
def fake_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a program of one's own in the place of ``tail``."""

    def put(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "tail").write_text(script)
        (folder / "tail").chmod(0o755)
        monkeypatch.setattr(logs, "_DIRECTORIES", str(folder))

    return put


# Reading


@pytest.mark.parametrize("lines", [1, 10, 20, 10_000])
async def test_newest_lines_of_a_log_are_read(lines: int, log_file: Path) -> None:
    """The end of a log is what an operator wants, as many lines as asked."""
    expected = log_file.read_text().splitlines()[-lines:]
    assert await newest(log_file, lines) == NewestLines(expected, skipped=0, exit_status=0)
    assert not is_open(log_file)


async def test_empty_log_has_no_lines(tmp_path: Path) -> None:
    """A log that was just rotated is no error."""
    (tmp_path / "log").touch()
    assert await newest(tmp_path / "log", 10) == NewestLines([], skipped=0, exit_status=0)


async def test_last_line_without_its_newline_is_shown(tmp_path: Path) -> None:
    """A program that died in the middle of its last line wrote the line that matters."""
    (tmp_path / "log").write_bytes(b"one\ntwo\nthr")
    assert (await newest(tmp_path / "log", 2)).lines == ["two", "thr"]


async def test_control_characters_of_a_log_do_not_reach_a_terminal(tmp_path: Path) -> None:
    """Who can write to a log must not be able to steer the operator's terminal."""
    (tmp_path / "log").write_bytes(b"\x1b[2J\r\0\xff\ttab \xe2\x80\xae\n\n")
    assert (await newest(tmp_path / "log", 10)).lines == ["\\x1b[2J\\x0d\\x00\\xff\ttab \\u202e", ""]


async def test_more_than_a_mebibyte_keeps_the_newest_whole_lines(tmp_path: Path) -> None:
    """The end of the log is wanted: what does not fit is left out at the other end, and counted."""
    written = [f"{number:07} {'x' * 991}" for number in range(5000)]  # of 1,000 bytes each
    (tmp_path / "log").write_text("\n".join(written) + "\n")
    read = await newest(tmp_path / "log", 4000)
    fitting = MAX_OUTPUT_BYTES // 1000
    assert read.lines == written[-fitting:]
    assert read.skipped == 4000 - fitting


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_one_line_larger_than_all_that_fits_is_left_out(end: bytes, tmp_path: Path) -> None:
    """Ten megabytes without a newline neither fill the memory nor the terminal."""
    (tmp_path / "log").write_bytes(b"before\n" + bytes(10_000_000) + end)
    assert await newest(tmp_path / "log", 2) == NewestLines([], skipped=2, exit_status=0)


async def test_lines_after_one_that_is_too_large_are_shown(tmp_path: Path) -> None:
    """One giant line must not hide what came after it."""
    (tmp_path / "log").write_bytes(b"x" * 10_000_000 + b"\nafter\n")
    assert await newest(tmp_path / "log", 10) == NewestLines(["after"], skipped=1, exit_status=0)


async def test_log_that_is_written_at_full_speed_is_read(tmp_path: Path) -> None:
    """A log is most wanted when its program goes wild; the reading must end all the same."""
    path = tmp_path / "log"
    path.touch()
    is_enough, has_begun = threading.Event(), threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for number in range(500_000):
                file.write(b"%09d\n" % number)
                if number == 1000:
                    has_begun.set()
                if is_enough.is_set():
                    break

    writer = threading.Thread(target=write)
    writer.start()
    try:
        await wait_for(has_begun.is_set)
        for _ in range(10):
            read = await newest(path, 100)
            numbers = [int(line) for line in read.lines]
            assert len(numbers) >= 100
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert read.skipped == 0
    finally:
        is_enough.set()
        writer.join()


# A line that is being written while it is read


@pytest.fixture
def torn_log(tmp_path: Path, fake_tail: Callable[[str], None]) -> Path:
    """A log that ``tail`` reads when two bytes of its second line are there."""
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    fake_tail("#!/bin/sh\nexec head -c 6\n")
    return path


def hold_clock_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing happen because time has passed."""
    monkeypatch.setattr(torn_line, "_REST_SECONDS", 10 * PATIENCE_SECONDS)


def call_when_looked_at(monkeypatch: pytest.MonkeyPatch, function: Callable[[], object]) -> None:
    """Call a function when the end of a log was found without a newline, for the first time."""
    is_being_written = torn_line._is_being_written
    calls = iter([function])

    def call_and_tell(fd: int) -> bool:
        next(calls, lambda: None)()
        return is_being_written(fd)

    monkeypatch.setattr(torn_line, "_is_being_written", call_and_tell)


async def test_rest_of_a_line_that_is_there_when_tail_has_ended_is_shown(torn_log: Path) -> None:
    """A write becomes visible page by page: half a number is another number."""
    torn_log.write_bytes(b"one\ntwo hundred\nthree\n")
    assert await newest(torn_log, 10) == NewestLines(["one", "two hundred"], skipped=0, exit_status=0)
    assert not is_open(torn_log)


async def test_rest_of_a_line_that_is_just_being_written_is_waited_for(
    torn_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program that writes it may have to wait for a processor."""

    def write() -> None:
        with torn_log.open("ab") as file:
            file.write(b"o hundred\nthree\n")

    hold_clock_still(monkeypatch)
    call_when_looked_at(monkeypatch, write)
    assert (await newest(torn_log, 10)).lines == ["one", "two hundred"]


async def test_log_that_ends_without_a_newline_is_answered_at_once(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to wait for where nobody writes."""
    hold_clock_still(monkeypatch)
    log_file.write_bytes(b"one\ntw")
    os.utime(log_file, (0, 0))
    assert (await newest(log_file, 10)).lines == ["one", "tw"]


async def test_program_that_never_ends_its_line_is_not_waited_for(
    torn_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that prints dots holds no client."""
    torn_log.write_bytes(b"one\ntw......")
    monkeypatch.setattr(torn_line, "_is_being_written", lambda fd: True)
    assert (await newest(torn_log, 10)).lines == ["one", "tw"]


async def test_rest_of_a_line_larger_than_all_that_fits_is_left_where_it_is(torn_log: Path) -> None:
    """Ten megabytes without a newline are not read for the two bytes before them."""
    torn_log.write_bytes(b"one\ntw" + b"o" * 10_000_000 + b"\n")
    assert await newest(torn_log, 10) == NewestLines(["one", "tw"], skipped=0, exit_status=0)


async def test_tail_that_does_not_stop_where_its_output_ends_is_taken_at_its_word(
    log_file: Path, fake_tail: Callable[[str], None]
) -> None:
    """Another system's tail may map the file: what stands at its offset is no rest of its line."""
    fake_tail("#!/bin/sh\nread line; printf last\n")
    assert (await newest(log_file, 10)).lines == ["last"]


async def test_tail_that_does_not_read_at_all_is_taken_at_its_word(
    log_file: Path, fake_tail: Callable[[str], None]
) -> None:
    """The beginning of a log is no rest of its last line."""
    fake_tail("#!/bin/sh\nprintf last\n")
    assert (await newest(log_file, 10)).lines == ["last"]


async def test_disk_that_fails_behind_what_tail_could_read_takes_nothing_back(
    torn_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be read of a broken disk is worth more than an error."""

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    call_when_looked_at(monkeypatch, fail)
    assert (await newest(torn_log, 10)).lines == ["one", "tw"]
    assert not is_open(torn_log)


async def test_asker_that_leaves_while_a_line_is_waited_for_leaves_neither_thread_nor_file(
    torn_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has the file meanwhile, and closes it when nobody else will."""
    reader = make_reader()
    is_waiting = threading.Event()
    hold_clock_still(monkeypatch)
    call_when_looked_at(monkeypatch, is_waiting.set)
    async with trio.open_nursery() as asking:
        asking.start_soon(newest, torn_log, 10, reader)
        await wait_for(is_waiting.is_set)
        assert is_open(torn_log)
        asking.cancel_scope.cancel()
    assert reader._places.statistics() == IDLE
    await wait_for(lambda: reader._threads.unfinished() == 0)
    assert not is_open(torn_log)


# What cannot be read


async def test_missing_log_is_not_found_and_costs_no_place(tmp_path: Path) -> None:
    """A typing error in the settings is one line, as often as it is asked for."""
    reader = make_reader()
    for _ in range(3):
        with pytest.raises(NotFound):
            await newest(tmp_path / "missing", 10, reader)
    assert reader._places.statistics() == IDLE
    assert reader._threads.unfinished() == 0


async def test_log_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """``tail`` of a FIFO takes its bytes and waits for ever."""
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(fd, b"not yours")
        with pytest.raises(NotARegularFile):
            await newest(tmp_path / "fifo", 10)
        assert os.read(fd, 100) == b"not yours"
    finally:
        os.close(fd)
    with pytest.raises(NotARegularFile):
        await newest(Path("/proc/kmsg"), 10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a link to another user")
async def test_link_of_another_user_is_refused_and_our_own_followed(log_file: Path, tmp_path: Path) -> None:
    """A daemon that may write into its log folder must not show /etc/shadow through ours."""
    link = tmp_path / "link"
    link.symlink_to(log_file)
    assert len((await newest(link, 5)).lines) == 5
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(NotPermitted):
        await newest(link, 5)


async def test_host_without_tail_says_what_to_install(
    log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare container is no crash."""
    monkeypatch.setattr(logs, "_DIRECTORIES", str(tmp_path))
    with pytest.raises(Unavailable) as caught:
        await newest(log_file, 10)
    assert caught.value.message == "there is no tail on this host; install coreutils"
    assert not is_open(log_file)


async def test_tail_that_cannot_be_started_is_told(log_file: Path, fake_tail: Callable[[str], None]) -> None:
    """The operator reads why, not the name of an inner step."""
    fake_tail("\1\2\3")
    with pytest.raises(Unavailable) as caught:
        await newest(log_file, 10)
    assert caught.value.message == "tail cannot be started: Exec format error"
    assert not is_open(log_file)


async def test_tail_that_fails_gives_its_status_and_what_it_printed(
    log_file: Path, fake_tail: Callable[[str], None]
) -> None:
    """Half an answer must be known as half an answer."""
    fake_tail("#!/bin/sh\necho got $*\nread line; echo $line\necho broken >&2\nexit 3\n")
    first = log_file.read_text().splitlines()[0]
    assert await newest(log_file, 7) == NewestLines(["got -n 7", first, "broken"], skipped=0, exit_status=3)


# Leaving


class Gate:
    """Holds whoever opens a log until it is let through."""

    def __init__(self) -> None:
        self.is_free = threading.Event()
        self.waiting = 0

    def open_regular(self, path: bytes, *, only_own_links: bool) -> int:
        self.waiting += 1
        assert self.is_free.wait(PATIENCE_SECONDS)
        return files.open_regular(path, only_own_links=only_own_links)


@pytest.fixture
async def gate(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(logs, "open_regular", gate.open_regular)
    yield gate
    gate.is_free.set()


async def test_asker_does_not_wait_for_a_dead_disk_and_the_late_file_is_closed(
    gate: Gate, log_file: Path
) -> None:
    """The client is let go at once; when the disk comes back, the thread closes what nobody wants."""
    reader = make_reader()
    async with trio.open_nursery() as asking:
        asking.start_soon(newest, log_file, 10, reader)
        await wait_for(lambda: gate.waiting == 1)
        asking.cancel_scope.cancel()
    assert reader._places.statistics() == IDLE
    assert reader._threads.unfinished() == 1
    gate.is_free.set()
    await wait_for(lambda: reader._threads.unfinished() == 0)
    assert not is_open(log_file)


async def test_asker_that_leaves_when_the_file_has_just_been_opened_closes_it(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is through, its result on the way: now the asker's side has to close the file."""
    reader = make_reader()
    check = trio.from_thread.check_cancelled
    is_checked = threading.Event()
    was_open: list[bool] = []
    token = trio.lowlevel.current_trio_token()

    def check_and_tell() -> None:
        check()
        is_checked.set()

    def leave() -> None:  # in the event loop, which cannot take the thread's result meanwhile
        assert is_checked.wait(PATIENCE_SECONDS)
        was_open.append(is_open(log_file))
        asking.cancel_scope.cancel()

    def open_and_call(path: bytes, *, only_own_links: bool) -> int:
        fd = files.open_regular(path, only_own_links=only_own_links)
        token.run_sync_soon(leave)
        return fd

    monkeypatch.setattr(trio.from_thread, "check_cancelled", check_and_tell)
    monkeypatch.setattr(logs, "open_regular", open_and_call)
    async with trio.open_nursery() as asking:
        asking.start_soon(newest, log_file, 10, reader)
    assert was_open == [True]
    assert not is_open(log_file)
    assert reader._places.statistics() == IDLE
    await wait_for(lambda: reader._threads.unfinished() == 0)
    assert not is_open(log_file)


async def test_asker_that_leaves_while_tail_runs_leaves_neither_child_nor_file(
    log_file: Path, fake_tail: Callable[[str], None]
) -> None:
    """A hundred commands and a reset must not leave a hundred children."""
    before = children()
    fake_tail("#!/bin/sh\nexec sleep 30\n")
    reader = make_reader(places=1)
    async with trio.open_nursery() as asking:
        asking.start_soon(newest, log_file, 10, reader)
        asking.start_soon(newest, log_file, 10, reader)
        await wait_for(lambda: len(children() - before) == 1)
        assert reader._places.statistics() == LimiterStatistics(running=1, waiting=1)
        assert is_open(log_file)
        asking.cancel_scope.cancel()
    assert reader._places.statistics() == IDLE
    assert children() == before
    assert not is_open(log_file)


async def test_deadline_ends_the_reading(
    log_file: Path, fake_tail: Callable[[str], None], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that needs longer than half a minute for the end of a log is as good as dead."""
    before = children()
    fake_tail("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(logs, "SECONDS", 0.1)
    sweeper = Sweeper(0.05)
    nursery.start_soon(sweeper.run)
    with pytest.raises(DeadlinePassed) as caught:
        await newest(log_file, 10, make_reader(limit=sweeper.limit))
    assert caught.value.message == "lastlog not finished in 0.1 s"
    assert children() == before


async def test_more_askers_than_places_wait_and_then_are_refused(gate: Gate, log_file: Path) -> None:
    """So many children and no more, whatever is asked."""
    reader = make_reader(places=1, max_waiting=1)
    async with trio.open_nursery() as asking:
        for _ in range(2):
            asking.start_soon(newest, log_file, 10, reader)
        await wait_for(lambda: gate.waiting == 1)
        await wait_all_tasks_blocked()
        assert reader._places.statistics() == LimiterStatistics(running=1, waiting=1)
        with pytest.raises(Busy):
            await newest(log_file, 10, reader)
        gate.is_free.set()
    assert gate.waiting == 2
    assert reader._places.statistics() == IDLE


async def test_a_hostile_megabyte_lets_others_run_between_its_pieces() -> None:
    """Somebody who writes control characters to a log cannot stall the other clients."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    data = (b"\x01" * 99 + b"\n") * 10_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        lines = await escape_in_pieces(data)
        nursery.cancel_scope.cancel()
    assert lines == ["\\x01" * 99] * 10_000
    assert turns >= 10
