"""Asking in a real terminal: the table that moves, and the answers where it stood."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import StartProgram
from program import wait_until

pytestmark = [pytest.mark.needs("tmux"), pytest.mark.proof]


class Tmux:
    """A terminal of a tmux server of its own.

    Args:
        folder: for the server's socket and its settings.
    """

    def __init__(self, folder: Path) -> None:
        self._environ = {
            name: text
            for name, text in os.environ.items()
            if name not in ("TMUX", "NO_COLOR", "LINES", "COLUMNS")
        } | {"TMUX_TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
        self._settings = folder / "tmux.conf"
        # It goes on after a Ctrl-C that its child has taken, unlike other shells.
        self._settings.write_text("set -g default-shell /bin/bash\nset -g default-terminal screen-256color\n")

    def run(self, *command: str) -> None:
        """Run a program in it; its exit code is printed behind it, and nothing is wiped away."""
        line = f"{shlex.join(command)}; echo exit $?; cat"
        self._tmux("-f", str(self._settings), "new-session", "-d", "-x", "100", "-y", "30", line)

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    @property
    def shown(self) -> str:
        """What stands on it now, without the blanks at the ends of lines."""
        lines = self._tmux("capture-pane", "-p").splitlines()
        return "\n".join(line.rstrip() for line in lines)

    def wait_for(self, is_it: Callable[[str], object], what: str) -> str:
        """Wait until something stands there; returns all that does."""
        seen: list[str] = []

        def look() -> bool:
            seen.append(self.shown)
            return bool(is_it(seen[-1]))

        wait_until(look, what)
        return seen[-1]

    def close(self) -> None:
        self._tmux("kill-server", check=False)

    def _tmux(self, *arguments: str, check: bool = True) -> str:
        run = subprocess.run(
            ["tmux", "-L", "trio-cmd-test", *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            check=check,
            timeout=30,
        )
        return run.stdout


@pytest.fixture
def tmux() -> Iterator[Tmux]:
    """A terminal; its socket has a short path."""
    with tempfile.TemporaryDirectory(prefix="trio-cmd-") as folder:
        tmux = Tmux(Path(folder))
        yield tmux
        tmux.close()


def make_sparse(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def ask(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trio_cmd", "ask", "--timeout", "120", *arguments]


def test_progress_is_seen_and_then_the_groups_stand_in_its_place(
    start: StartProgram, tmux: Tmux, tmp_path: Path
) -> None:
    """Whoever waits for large files sees that something moves, and in the end only answers."""
    big = make_sparse(tmp_path / "big", 1 << 30)
    ports = [start().port for _ in range(2)]
    nobody = "127.0.1.1:1"
    tmux.run(*ask(*(f"127.0.0.1:{port}" for port in ports), nobody, "--", "comphash", "sha3_256", str(big)))
    seen = tmux.wait_for(lambda shown: " of 1.0 GiB " in shown, "progress of a host")
    summary, *rows = seen.splitlines()
    assert re.fullmatch(r"[12] of 3 hosts done, 1 failed, [0-9.]+ [MG]iB hashed, 0:\d\d", summary)
    assert re.match(r"127\.0\.0\.1:\d+ 0:\d\d +\d+ % +[0-9.]+ [KMG]iB of 1\.0 GiB ━+", "\n".join(rows))
    shown = tmux.wait_for(lambda shown: "exit " in shown, "the end")
    first, answer, empty, second, reason, *rest = shown.rstrip().splitlines()
    assert first.startswith("2 hosts: 127.0.0.1:")
    assert re.fullmatch(r"  File hash is : [0-9a-f]{64}", answer)
    assert empty == ""
    assert second == f"1 host: {nobody}"
    assert reason.startswith("  error: ")
    assert rest == ["exit 1"]


def test_ctrl_c_leaves_a_clean_terminal(start: StartProgram, tmux: Tmux, tmp_path: Path) -> None:
    """Whoever has seen enough has a prompt at once, and no half a table above it."""
    big = make_sparse(tmp_path / "big", 60 << 30)
    program = start()
    tmux.run(*ask(f"127.0.0.1:{program.port}", "--", "comphash", "md5", str(big)))
    tmux.wait_for(lambda shown: " of 60.0 GiB " in shown, "progress of the host")
    tmux.press("C-c")
    shown = tmux.wait_for(lambda shown: "exit " in shown, "the end")
    assert "hosts done" not in shown
    assert "GiB" not in shown
    assert "Traceback" not in shown
    assert shown.rstrip().endswith("exit 130")
    program.wait_for("command-completed", outcome="gone")
