"""Files that hang: on a disk that does not answer, and FIFOs that never would."""

import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, wait_until

SHARED_MEMORY = "/dev/shm"  # a mount point of its own that every user may write to


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Path]:
    """A file on a file system of its own."""
    if not os.path.ismount(SHARED_MEMORY) or os.stat(tmp_path).st_dev == os.stat(SHARED_MEMORY).st_dev:
        pytest.skip("needs a file system beside that of the temporary files")
    folder = Path(tempfile.mkdtemp(dir=SHARED_MEMORY))
    path = folder / "dead"
    path.write_text("never read")
    (folder / "other").write_text("of the same disk")
    yield path
    shutil.rmtree(folder)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie leader whose last thread is held."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


def status_of(program: Program) -> dict[str, int]:
    answer = program.ask(b"format json\nstatus\n").splitlines()[1]
    result: dict[str, int] = json.loads(answer)["result"]
    return result


@pytest.mark.proof
@pytest.mark.needs("strace")
def test_a_dead_disk_costs_its_own_files_and_nothing_else(
    start: StartProgram, write_settings: Callable[[str], str], dead: Path, tmp_path: Path
) -> None:
    """One dead mount must not take the tool away in the hour it is needed, nor keep it from stopping."""
    healthy = tmp_path / "healthy"
    healthy.write_text("lab\n")
    config = write_settings("[comphash]\nthreads = 2\nseconds = 1\n[limits]\nstop_seconds = 2\n")
    inject = "inject=readv,read,pread64:delay_enter=60s"
    prefix = ("strace", "-f", "-qq", "-o", os.devnull, "-P", str(dead), "-e", inject)
    program = start("--config", config, prefix=prefix)
    server = int(program.wait_for("log-opened")["pid"])
    try:
        ask_dead = b"comphash %b\n" % os.fsencode(dead)
        answers = program.ask(ask_dead + b"comphash md5 %b\n" % os.fsencode(dead))  # else they share one read
        assert answers == b"An error occured : comphash not finished in 1 s\n" * 2
        wait_until(lambda: status_of(program)["reads_hung"] == 2, "two hung reads")
        began = time.monotonic()
        other = b"comphash %b\n" % os.fsencode(dead.with_name("other"))
        hung = (
            f"An error occured : reads below '{SHARED_MEMORY}' hang in the kernel; see to its disk\n".encode()
        )
        assert program.ask(ask_dead + other) == hung * 2
        served = program.ask(b"comphash md5 %b\n" % os.fsencode(healthy) * 20 + b"ping\n")
        assert served == b"File hash is : 677d5943122d904f804c6cd01940ac1c\n" * 20 + b"pong\n"
        assert time.monotonic() - began < 10  # nobody waited for the minute of the disk
        with socket.create_connection(("127.0.0.1", program.port), PATIENCE_SECONDS) as waiting:
            waiting.sendall(b"ping\n")
            assert waiting.recv(100) == b"pong\n"
            began = time.monotonic()
            os.kill(server, signal.SIGTERM)
            program.wait_for("stopped")
            wait_until(lambda: has_ended(server), "the end of the server")
            assert time.monotonic() - began < 2 + 2
        assert program.records[-1]["action"] == "stopped"
    finally:
        program.process.kill()  # strace; what it holds goes with it
        if not has_ended(server):
            os.kill(server, signal.SIGKILL)


def test_a_fifo_asked_for_a_hundred_times_keeps_its_bytes_and_no_thread(
    start: StartProgram, tmp_path: Path
) -> None:
    """Forty of them stopped the plain server, and reading one steals what is in it."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    owner = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(owner, b"sixteen bytes ..")
        program = start()
        answers = program.ask(b"comphash %b\n" % os.fsencode(path) * 100)
        assert answers == f"An error occured : not a regular file: '{path}'\n".encode() * 100
        assert os.read(owner, 100) == b"sixteen bytes .."
        status = status_of(program)
        assert (status["hashing_running"], status["hashing_waiting"], status["reads_hung"]) == (0, 0, 0)
        completed = [r for r in program.actions("command-completed") if r["command"] == "comphash"]
        assert {record["outcome"] for record in completed} <= {"not-a-regular-file"}
    finally:
        os.close(owner)


def test_below_a_root_the_program_reads_and_beside_it_nothing(start: StartProgram, tmp_path: Path) -> None:
    """The flag of an afternoon reaches the thread that opens files."""
    for name in ("root", "beside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("lab\n")
    program = start("--root", str(tmp_path / "root"))
    question = f"comphash md5 {tmp_path}/root/file\ncomphash {tmp_path}/beside/file\n"
    assert program.ask(question.encode()).decode().splitlines() == [
        "File hash is : 677d5943122d904f804c6cd01940ac1c",
        f"An error occured : outside the roots: '{tmp_path}/beside/file'; ask below '{tmp_path}/root'",
    ]
    program.wait_for("command-completed", outcome="outside-roots")
