"""Logs of the journal, read by the real ``journalctl`` from a journal of the test's own."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import StartProgram
from program import Program, wait_until

WRITER = "/lib/systemd/systemd-journal-remote"
UNIT = "trio-cmd-test.service"
MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

pytestmark = [
    pytest.mark.needs("journalctl", WRITER),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may write a journal"),
]

WriteEntries = Callable[..., None]


@pytest.fixture
def write_entries(tmp_path: Path) -> Iterator[WriteEntries]:
    """Write entries to a journal of this host, one file each time; they are gone with the test."""
    machine = MACHINE_ID.read_text().strip()
    boot = BOOT_ID.read_text().strip().replace("-", "")  # ``journalctl -f`` shows the present boot only
    folder = Path("/run/log/journal") / machine
    made = [path for path in (*reversed(folder.parents), folder) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def write(unit: str, *messages: str) -> None:
        export = tmp_path / "export"
        now, since_boot = time.time_ns() // 1000, time.monotonic_ns() // 1000
        entries = [
            f"__REALTIME_TIMESTAMP={now + n}\n__MONOTONIC_TIMESTAMP={since_boot + n}\n_BOOT_ID={boot}\n"
            f"_MACHINE_ID={machine}\n_HOSTNAME=lab\n_SYSTEMD_UNIT={unit}\nSYSLOG_IDENTIFIER=test\n_PID=7\n"
            f"PRIORITY=6\nMESSAGE={message}\n\n"
            for n, message in enumerate(messages)
        ]
        export.write_text("".join(entries))
        written.append(folder / f"trio-cmd-test-{os.getpid()}-{len(written)}.journal")
        command = [WRITER, "-o", str(written[-1]), str(export)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    yield write
    for path in written:
        path.unlink()
    for path in reversed(made):
        path.rmdir()


@pytest.fixture
def program(start: StartProgram, write_settings: Callable[[str], str]) -> Program:
    logs = f'[logs]\nmine = {{ journal = "{UNIT}" }}\nall = {{ journal = "*" }}\n'
    return start("--config", write_settings(logs))


def lines_of(answer: bytes) -> list[bytes]:
    """The entries of a block, without their times."""
    return [line.split(b" ", 1)[1] for line in answer.splitlines()[1:-1]]


def test_the_newest_entries_of_a_unit_are_shown(program: Program, write_entries: WriteEntries) -> None:
    """On a host without /var/log/syslog the same question has an answer."""
    write_entries("other.service", "somebody else's")
    write_entries(UNIT, "one", "two", "three")
    answer = program.ask(b"lastlog 2 mine\n")
    assert answer.startswith(b"Begin lastlog\n")
    assert lines_of(answer) == [b"lab test[7]: two", b"lab test[7]: three"]
    assert lines_of(program.ask(b"lastlog 10 all\n"))[-1] == b"lab test[7]: three"


def test_a_unit_without_entries_is_an_empty_block(program: Program, write_entries: WriteEntries) -> None:
    """Nothing was written is an answer, and no error."""
    write_entries("other.service", "somebody else's")
    assert program.ask(b"lastlog mine\n") == b"Begin lastlog\nEnd lastlog\n"


def test_entries_are_followed_as_they_are_written(program: Program, write_entries: WriteEntries) -> None:
    """An operator watches a unit while somebody else restarts it."""
    write_entries(UNIT, "before")
    with program.connect() as client, client.makefile("rb") as answers:
        client.sendall(b"follow mine\n")
        assert answers.readline() == b"Begin follow\n"
        write_entries("other.service", "somebody else's")
        write_entries(UNIT, "while watched")
        assert answers.readline().endswith(b" lab test[7]: while watched\n")
        client.sendall(b"exit\n")
        assert answers.readline() == b"End follow\n"
        assert answers.readline() == b""


def test_a_killed_server_leaves_no_journalctl(program: Program, write_entries: WriteEntries) -> None:
    """What is written next finds its reader gone and ends it."""
    write_entries(UNIT, "before")
    with program.connect() as client, client.makefile("rb") as answers:
        client.sendall(b"follow mine\n")
        assert answers.readline() == b"Begin follow\n"
        (child,) = program.children()
        program.process.kill()
        program.wait()
        write_entries(UNIT, "after")
        wait_until(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child), "journalctl has ended")


def is_zombie(pid: int) -> bool:
    """Whether it has ended, and its new parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
