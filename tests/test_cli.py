"""The command line: which program it runs, and what that costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from program import PATIENCE_SECONDS
from trio_cmd.cli import main

Capture = pytest.CaptureFixture[str]

_TELL = """\
import contextlib, os, sys
from trio_cmd.cli import main
with contextlib.suppress(SystemExit):
    main(["ask", "--help"])
"""


def test_ask_is_the_other_end(capsys: Capture) -> None:
    """Its flags are its own, and so are its complaints."""
    with pytest.raises(SystemExit) as caught:
        main(["ask", "web1"], {})
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("trio-cmd ask: no command; ")


def test_ask_is_only_the_first_word(capsys: Capture) -> None:
    """The server's flags come to the server."""
    with pytest.raises(SystemExit) as caught:
        main(["--nope", "ask"], {})
    assert caught.value.code == 2
    assert "trio-cmd: error: unrecognized arguments: --nope ask" in capsys.readouterr().err


def test_asking_does_not_pay_for_the_server() -> None:
    """A script asks a thousand times; three quarters of each start would be the import of the other end."""
    tell = 'print(*sorted({".".join(name.split(".")[:2]) for name in sys.modules}), file=sys.stderr)'
    argv = [sys.executable, "-c", f"{_TELL}{tell}"]
    run = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
    imported = set(run.stderr.split())
    assert "trio_cmd.client" in imported
    assert not imported & {"structlog", "trio_cmd.commands", "trio_cmd.records", "trio_cmd.work"}
    assert "trio_cmd.serving" not in imported


def test_no_connection_becomes_a_closed_standard_output(tmp_path: Path) -> None:
    """What is printed is never sent to a host."""
    told = tmp_path / "told"
    links = 'map(os.readlink, map("/proc/self/fd/{}".format, range(3)))'
    tell = f'open({str(told)!r}, "w").write(" ".join({links}))'
    argv = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, "-c", f"{_TELL}{tell}"]
    subprocess.run(argv, check=True, timeout=PATIENCE_SECONDS)
    assert told.read_text().split() == 3 * [os.devnull]
