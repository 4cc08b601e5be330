"""The table of a terminal: what a watcher knows enters, lines drawn anew leave; needs ``rich``."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from trio_cmd.client.hosts import Host
    from trio_cmd.client.live import HostView, LiveWatcher

__all__ = ["Terminal", "draw", "format_bytes", "format_seconds", "make_console", "render"]

FRAMES_PER_SECOND = 4
# More would push what stood there before out of sight.
_MOST_ROWS = 10
# A bar is worth its place only beside a name that can be read.
_BAR_COLUMNS = 60


class Terminal:
    """A file for ``rich`` whose writes never fail.

    A terminal that goes away takes its table with it, and nothing else.  Nothing is kept in a
    buffer that the end of the program would flush.
    """

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self.encoding = stream.encoding
        self._fd = stream.fileno()
        self._text: list[str] = []

    def write(self, text: str) -> int:
        """Keep a piece until the frame is whole."""
        self._text.append(text)
        return len(text)

    def flush(self) -> None:
        """Write what was kept; what cannot be written is forgotten."""
        data = memoryview("".join(self._text).encode(self.encoding, "backslashreplace"))
        self._text.clear()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            pass  # the next frame may be luckier, and the answers do not depend on it


class _Console(Console):
    """A console that never hides the cursor: nobody would show it again if this program is killed."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: FBT001, FBT002 -- rich's own form
        return False


def make_console(stream: TextIO) -> Console:
    """Make what draws on a terminal."""
    return _Console(file=Terminal(stream), force_terminal=True, force_jupyter=False, highlight=False)  # type: ignore[arg-type]  # a file as far as rich needs


@contextmanager
def draw(watcher: "LiveWatcher", stream: TextIO) -> Iterator[None]:
    """Draw a table a few times a second, in a thread of its own; it is wiped away in the end."""
    console = make_console(stream)
    table = Live(
        console=console,
        refresh_per_second=FRAMES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        get_renderable=lambda: render(watcher, console.width, console.height),
    )
    with table:
        yield


def render(watcher: "LiveWatcher", columns: int, lines: int) -> RenderableType:
    """Make one frame: a line that sums up, and a line for each host that is asked the longest."""
    running = list(watcher.running.copy().items())  # another thread goes on writing there
    room = max(0, min(_MOST_ROWS, lines - 3))  # below the summary, above what is left out and the cursor
    table = Table.grid(padding=(0, 1), expand=False)
    table.add_column(no_wrap=True, overflow="crop", ratio=None)
    for _ in range(4):
        table.add_column(no_wrap=True, overflow="crop", justify="right")
    for host, view in running[:room]:
        table.add_row(*_cells(host, view, watcher.seconds_of(view), columns))
    hidden = len(running) - room
    more = [_line(f"and {hidden} more")] if hidden > 0 and room else []
    return Group(_line(_sum_up(watcher)), *([table] if room and running else []), *more)


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="crop")


def _sum_up(watcher: "LiveWatcher") -> str:
    failed = f", {watcher.failed} failed" if watcher.failed else ""
    hashed_bytes = watcher.hashed_bytes + sum(view.done for view in watcher.running.copy().values())
    hashed = f", {format_bytes(hashed_bytes)} hashed" if hashed_bytes else ""
    seconds = format_seconds(watcher.elapsed_seconds)
    return f"{watcher.done} of {watcher.total} hosts done{failed}{hashed}, {seconds}"


def _cells(host: "Host", view: "HostView", seconds: float, columns: int) -> list[RenderableType]:
    """The cells of a host: its name, and as far as it has told, a bar, a share and bytes."""
    name = Text(host.name)  # not a plain string: rich would take [::1] for a mark of its own
    elapsed = Text(format_seconds(seconds))
    if not view.total:
        return [name, elapsed]
    share = Text(f"{100 * view.done // view.total} %")
    if columns < _BAR_COLUMNS:
        return [name, elapsed, share]
    size = Text(f"{format_bytes(view.done)} of {format_bytes(view.total)}")
    return [name, elapsed, share, size, ProgressBar(total=view.total, completed=view.done, width=16)]


def format_bytes(count: int) -> str:
    """Show a count of bytes in at most nine characters, like ``1.5 GiB``."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        size /= 1024
        if size < 1000:
            return f"{size:.1f} {unit}" if size < 100 else f"{size:.0f} {unit}"
    return f"{size / 1024:.0f} EiB"


def format_seconds(seconds: float) -> str:
    """Show a time as ``0:07``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
