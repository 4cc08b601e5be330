"""A folder below a root is exchanged for a link at full speed while others ask for a file in it."""

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, wait_until

SECONDS = 10.0 if os.environ.get("TRIO_CMD_FULL") == "1" else 3.0
CLIENTS = 8
BATCH = 50
INSIDE, OUTSIDE = (hashlib.sha1(text).hexdigest().encode() for text in (b"inside", b"outside"))

# Exchanges two names in one step, for ever: renameat2(2) with RENAME_EXCHANGE.
SWAPPER = """
import ctypes, os, sys
os.chdir(sys.argv[1])
rename = ctypes.CDLL(None, use_errno=True).renameat2
print("ready", flush=True)
while True:
    if rename(-100, b"dir", -100, sys.argv[2].encode(), 2) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
"""
# The server as one would write it without openat2: look where the path leads, then open it.
NAIVE = """
import os, sys
from trio_cmd import cli
from trio_cmd.errors import from_os_error
from trio_cmd.work.roots import Roots
def open_regular(self, path):
    try:
        real = os.path.realpath(path)
        if not real.startswith(self._roots[0].path + b"/"):
            raise OSError(18, "outside")
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise from_os_error(error, path) from error
Roots.open_regular = open_regular
Roots.look_at_once = lambda self, path: -1
sys.exit(cli.main())
"""
# A filter that answers ENOSYS for openat2 (437) and lets all else through.
FILTERED = """
import ctypes, os, struct, sys
from trio_cmd import cli
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(code), ctypes.addressof(filters))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
assert libc.syscall(437, 0, None, None, 0) == -1 and ctypes.get_errno() == 38
sys.exit(cli.main())
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a folder, and links out of it to take the folder's place."""
    top = tmp_path / "root"
    for folder, text in ((top / "dir", "inside"), (tmp_path / "outside", "outside")):
        folder.mkdir(parents=True)
        (folder / "file").write_text(text)
    (top / "absolute").symlink_to(tmp_path / "outside")
    (top / "relative").symlink_to("../outside")
    (top / "through").symlink_to("keep/../../outside")
    (top / "keep").mkdir()
    return top


@contextlib.contextmanager
def swapping(root: Path, link: str) -> Iterator[None]:
    """Exchange the folder and a link while this lasts."""
    swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, root, link], stdout=subprocess.PIPE)
    assert swapper.stdout is not None
    try:
        assert swapper.stdout.readline() == b"ready\n"
        yield
        assert swapper.poll() is None, "it stopped"
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()
    if (root / "dir").is_symlink():  # it was ended in the middle
        (root / "dir").rename(root / "taken")
        (root / link).rename(root / "dir")
        (root / "taken").rename(root / link)


def attack(program: Program, path: Path, seconds: float) -> Counter[bytes]:
    """Let clients ask for the file all the time; returns the answers, counted."""
    answers: Counter[bytes] = Counter()
    question = b"comphash %b\n" % os.fsencode(path) * BATCH
    assert program.port  # from here on it is known to all threads
    deadline = time.monotonic() + seconds

    def ask() -> None:
        while time.monotonic() < deadline:
            answers.update(program.ask(question).splitlines())

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def count(answers: Counter[bytes], digest: bytes) -> int:
    return answers[b"File hash is : " + digest]


@pytest.mark.proof
@pytest.mark.parametrize("script", [None, FILTERED], ids=["openat2", "ENOSYS"])
def test_no_file_outside_a_root_is_read_whatever_is_exchanged_below_it(
    script: str | None, start: StartProgram, root: Path
) -> None:
    """Whoever may write below a root must not learn of files that only the server may read."""
    command = (sys.executable, "-m", "trio_cmd") if script is None else (sys.executable, "-c", script)
    program = start("--root", str(root), command=command)
    for link in ("absolute", "relative", "through"):
        with swapping(root, link):
            answers = attack(program, root / "dir" / "file", SECONDS / 3)
        assert count(answers, OUTSIDE) == 0
        assert count(answers, INSIDE) > 0
        assert any(b"outside the roots" in answer for answer in answers)
    assert program.stop() == 0


@pytest.mark.proof
def test_the_same_attack_reads_files_outside_when_the_path_is_checked_and_then_opened(
    start: StartProgram, root: Path
) -> None:
    """The attack is a real one: without the fence it works."""
    program = start("--root", str(root), command=(sys.executable, "-c", NAIVE))
    escapes = 0

    def has_escaped() -> bool:
        nonlocal escapes
        escapes += count(attack(program, root / "dir" / "file", 0.5), OUTSIDE)
        return escapes > 0

    with swapping(root, "absolute"):
        wait_until(has_escaped, f"an escape within {PATIENCE_SECONDS} s")
    assert program.stop() == 0
