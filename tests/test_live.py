"""The table of a terminal: what is counted, what a frame shows, and that nothing of it harms the asking."""

import contextlib
import io
import os
import pty
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

import pytest
from rich.console import Console

from program import PATIENCE_SECONDS, wait_until
from trio_cmd.client.answers import Progress, Reply
from trio_cmd.client.drawing import FRAMES_PER_SECOND, format_bytes, format_seconds, render
from trio_cmd.client.errors import CommandError, Unreachable
from trio_cmd.client.fleet import Outcome
from trio_cmd.client.hosts import Host
from trio_cmd.client.live import LiveWatcher, is_live_terminal, watch_live

WEB1, WEB2, WEB3 = (Host(f"web{n}", f"127.0.1.{n}") for n in (1, 2, 3))


class Clock:
    """Seconds that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class PtyTerminal:
    """A terminal whose other end a thread reads."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        self._pieces: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def shown(self) -> str:
        """All that was written to it."""
        return b"".join(self._pieces).decode()

    def close(self) -> None:
        self.stream.close()
        self._reader.join(PATIENCE_SECONDS)
        os.close(self.master)

    def _read(self) -> None:
        try:
            while piece := os.read(self.master, 1 << 16):
                self._pieces.append(piece)
        except OSError:
            pass  # the terminal is closed


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[PtyTerminal]:
    """A terminal on which lines can be drawn anew."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = PtyTerminal()
    yield terminal
    terminal.close()


def show(watcher: LiveWatcher, columns: int = 80, lines: int = 24) -> str:
    """Give one frame as plain text."""
    file = io.StringIO()
    console = Console(file=file, width=columns, height=lines, force_terminal=True, color_system=None)
    console.print(render(watcher, columns, lines))
    return file.getvalue()


def verified(host: Host, result: dict[str, object]) -> Outcome:
    return Outcome(host, b"verify x y", reply=Reply("verify", result, 0.1))


def test_hosts_that_are_done_and_failed_are_counted() -> None:
    """One sees at a glance how much is left, and whether something is wrong."""
    clock = Clock()
    watcher = LiveWatcher(3, clock)
    for host in (WEB1, WEB2, WEB3):
        watcher.began(host)
    watcher.answered(verified(WEB1, {"matches": True, "bytes": 3 << 20}))
    watcher.ended(WEB1)
    watcher.answered(verified(WEB2, {"matches": False, "bytes": 1 << 20}))
    watcher.answered(Outcome(WEB2, b"x", error=CommandError("not-found", "no such file")))
    watcher.ended(WEB2)
    clock.seconds += 67
    first, *rest = show(watcher).splitlines()
    assert first == "2 of 3 hosts done, 1 failed, 4.0 MiB hashed, 1:07"
    assert [line.split() for line in rest] == [["web3", "1:07"]]


def test_a_host_that_was_never_reached_counts_as_done_and_failed() -> None:
    """The numbers add up, whatever became of a host."""
    watcher = LiveWatcher(1, Clock())
    watcher.answered(Outcome(WEB1, b"", error=Unreachable("nobody listens there")))
    watcher.ended(WEB1)
    assert show(watcher) == "1 of 1 hosts done, 1 failed, 0:00\n"


def test_a_hash_that_is_under_way_shows_how_far_it_is() -> None:
    """A large file on a slow disk is not taken for a host that hangs."""
    watcher = LiveWatcher(2, Clock())
    watcher.began(WEB1)
    watcher.began(WEB2)
    watcher.progressed(WEB2, Progress(3 << 30, 4 << 30))
    summary, _, row = show(watcher).splitlines()
    assert summary == "0 of 2 hosts done, 3.0 GiB hashed, 0:00"
    assert row.startswith("web2 0:00 75 % 3.0 GiB of 4.0 GiB ━━━")
    watcher.answered(verified(WEB2, {"matches": True, "bytes": 4 << 30}))
    summary, _, row = show(watcher).splitlines()
    assert summary == "0 of 2 hosts done, 4.0 GiB hashed, 0:00"
    assert row.split() == ["web2", "0:00"]


@pytest.mark.parametrize(
    ("done", "total"), [(-1, 10), (11, 10), (0, -1), (1, 1 << 70), (1 << 70, 1 << 70), (0, 0)]
)
def test_progress_that_cannot_be_is_not_shown(done: int, total: int) -> None:
    """A host that sends nonsense spoils nobody's table."""
    watcher = LiveWatcher(1, Clock())
    watcher.began(WEB1)
    watcher.progressed(WEB1, Progress(done, total))
    watcher.progressed(WEB2, Progress(1, 2))  # was never begun
    assert [line.split() for line in show(watcher).splitlines()[1:]] == [["web1", "0:00"]]
    for count in ("4", 4.0, None, True, -4, 1 << 80):
        watcher.answered(verified(WEB1, {"matches": True, "bytes": count}))
    assert show(watcher).splitlines()[0] == "0 of 1 hosts done, 0:00"


@pytest.mark.parametrize(
    ("columns", "lines"), [(100, 30), (80, 24), (40, 8), (20, 5), (10, 4), (3, 2), (1, 1)]
)
def test_a_frame_is_never_larger_than_the_terminal(columns: int, lines: int) -> None:
    """What is larger cannot be wiped away again, and would scroll by four times a second."""
    watcher = LiveWatcher(500, Clock())
    for number in range(100):
        host = Host(f"[2001:db8::{number}]:9999", f"2001:db8::{number}")
        watcher.began(host)
        watcher.progressed(host, Progress(1 << 40, 1 << 41))
    frame = show(watcher, columns, lines).splitlines()
    assert len(frame) < max(lines, 2)
    assert max(map(len, frame)) <= columns


def test_names_are_shown_as_they_are() -> None:
    """An IPv6 address in brackets is no mark of colour."""
    watcher = LiveWatcher(1, Clock())
    watcher.began(Host("[fe80::1]:9999", "fe80::1"))
    assert show(watcher).splitlines()[1].split() == ["[fe80::1]:9999", "0:00"]


def test_the_hosts_that_take_longest_are_shown() -> None:
    """The one that everybody waits for is among ten of a thousand."""
    watcher = LiveWatcher(1000, Clock())
    for number in range(64):
        watcher.began(Host(f"web{number}", "127.0.0.1"))
    for number in range(1, 40):
        watcher.ended(Host(f"web{number}", "127.0.0.1"))
    frame = show(watcher).splitlines()
    assert [line.split()[0] for line in frame[1:4]] == ["web0", "web40", "web41"]
    assert frame[-1].strip() == "and 15 more"


def test_sizes_and_times_have_a_short_form() -> None:
    """A row stays a row."""
    assert list(map(format_bytes, (0, 1023, 1024, 99 << 20, 1000 << 20, 7 << 30, 3 << 50, 5 << 60))) == [
        *("0 B", "1023 B", "1.0 KiB", "99.0 MiB", "1.0 GiB", "7.0 GiB", "3.0 PiB", "5 EiB")
    ]
    assert format_bytes(999 << 10) == "999 KiB"
    assert list(map(format_seconds, (0, 59.9, 754, 3723))) == ["0:00", "0:59", "12:34", "1:02:03"]


def test_a_few_frames_a_second_whatever_the_hosts_send(terminal: PtyTerminal) -> None:
    """A host that sends progress each microsecond costs the asker no time for drawing."""
    watcher = LiveWatcher(1)
    begun = time.monotonic()
    with watch_live(watcher, terminal.stream):
        watcher.began(WEB1)
        sent = 0
        while time.monotonic() < begun + PATIENCE_SECONDS and terminal.shown.count("hosts done") < 3:
            watcher.progressed(WEB1, Progress(sent % 1000, 1000))
            sent += 1
    frames = terminal.shown.count("hosts done")
    seconds = time.monotonic() - begun
    assert 3 <= frames <= FRAMES_PER_SECOND * seconds + 2  # the first and the last are beside the clock
    assert sent > 100 * frames


def test_when_the_block_ends_the_table_is_wiped_away(terminal: PtyTerminal) -> None:
    """The answers stand where the table stood; also after Ctrl-C, which comes as an exception."""
    watcher = LiveWatcher(1)
    watcher.began(WEB1)
    threads = threading.active_count()
    with contextlib.suppress(KeyboardInterrupt), watch_live(watcher, terminal.stream):
        wait_until(lambda: "web1" in terminal.shown, "a frame")
        raise KeyboardInterrupt
    terminal.stream.write("the answers")
    terminal.stream.flush()
    wait_until(lambda: terminal.shown.endswith("the answers"), "the answers")
    wiped = terminal.shown.rpartition("web1")[2]
    assert wiped.count("\x1b[2K") == 2  # each line of the frame is erased
    wait_until(lambda: threading.active_count() == threads, "nobody draws any more")


def test_the_cursor_is_never_hidden(terminal: PtyTerminal) -> None:
    """Whoever kills the program has a terminal that is as it was."""
    with watch_live(LiveWatcher(1), terminal.stream):
        wait_until(lambda: "hosts done" in terminal.shown, "a frame")
    assert "\x1b[?25" not in terminal.shown


def test_a_terminal_that_goes_away_takes_only_the_table_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed window does not end what runs under nohup."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    watcher = LiveWatcher(1)
    with open(slave, "w", encoding="utf-8") as stream, watch_live(watcher, stream):
        watcher.began(WEB1)
        assert os.read(master, 100)
        os.close(master)
        with pytest.raises(OSError, match="Input/output"):
            os.write(slave, b"somebody else notices")
        drawn = watcher.elapsed_seconds + 2 / FRAMES_PER_SECOND
        wait_until(lambda: watcher.elapsed_seconds > drawn, "more frames")
        watcher.ended(WEB1)
    assert watcher.done == 1


@pytest.mark.parametrize("term", ["dumb", "unknown", None])
def test_on_a_dumb_terminal_there_is_no_table(
    term: str | None, terminal: PtyTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor's shell window shows answers, and no marks that it does not understand."""
    if term is None:
        monkeypatch.delenv("TERM")
    else:
        monkeypatch.setenv("TERM", term)
    watcher = LiveWatcher(1)
    with watch_live(watcher, terminal.stream) as watched:
        assert watched is watcher
    terminal.stream.write("the answers")
    terminal.stream.flush()
    wait_until(lambda: terminal.shown == "the answers", "the answers alone")


def test_what_is_no_terminal_gets_no_table() -> None:
    """A file of complaints holds complaints."""
    file = io.StringIO()
    with watch_live(LiveWatcher(1), file):
        pass
    assert file.getvalue() == ""
    file.close()
    assert not is_live_terminal(file)


def test_without_rich_there_is_no_table_and_all_else_works(
    terminal: PtyTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is an extra: asking needs nothing that the server does not need."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "trio_cmd.client.drawing")
    watcher = LiveWatcher(1)
    with watch_live(watcher, terminal.stream) as watched:
        assert watched is watcher
    terminal.stream.write("the answers")
    terminal.stream.flush()
    wait_until(lambda: terminal.shown == "the answers", "the answers alone")
