"""The file of the record: opened, found again when it was moved, and what happens when it is full."""

import fcntl
import json
import os
import re
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import StartLogged
from program import PATIENCE_SECONDS, LoggedProgram, Program, free_port, read_all, wait_until
from trio_cmd.errors import SettingsError
from trio_cmd.records import open_records
from trio_cmd.records.output import CHECK_SECONDS, LogFile
from trio_cmd.settings import Logging

WriteSettings = Callable[[str], str]
FULL = os.environ.get("TRIO_CMD_FULL") == "1"
# Room for all that is recorded in a test: what still waits when there is room again does not fill it anew.
DISK_BYTES = 1 << 20
LOST = re.compile(rb'"action":"events-lost".*"lost":(\d+)')


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def write(log: LogFile, data: bytes) -> int:
    """Write as the sink does."""
    log.prepare()
    return log.write(memoryview(data))


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "record"


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def log(path: Path, clock: Hands) -> Iterator[LogFile]:
    path.parent.mkdir()
    log = LogFile(str(path), clock)
    yield log
    log.close()


# The file itself


def test_the_file_is_only_added_to_and_not_for_everybody(log: LogFile, path: Path) -> None:
    """Two programs by mistake on one file overwrite nothing; other users do not read what was asked."""
    assert log._fd is not None
    flags = fcntl.fcntl(log._fd, fcntl.F_GETFL)
    assert flags & os.O_APPEND
    assert fcntl.fcntl(log._fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~umask
    path.write_bytes(b"another's\n")
    write(log, b"ours\n")
    assert path.read_bytes() == b"another's\nours\n"


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "device"])
def test_only_a_regular_file_is_a_log(kind: str, tmp_path: Path) -> None:
    """A link that somebody put there does not lead the record elsewhere, and a FIFO holds no start."""
    path = tmp_path / "log"
    if kind == "link":
        (tmp_path / "target").touch()
        path.symlink_to(tmp_path / "target")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(OSError, match=r"regular|directory|symbolic") as refused:
        LogFile("/dev/null" if kind == "device" else str(path))
    assert refused.value.strerror


@pytest.mark.parametrize(("before", "is_torn"), [(b"", False), (b"whole\n", False), (b"whole\ntor", True)])
def test_a_torn_end_is_seen(before: bytes, is_torn: bool, tmp_path: Path) -> None:
    """What a killed server left half written does not spoil the first record of the next."""
    path = tmp_path / "log"
    path.write_bytes(before)
    log = LogFile(str(path))
    assert log.is_torn == is_torn
    log.close()


def test_a_file_that_was_renamed_is_left_within_a_second(log: LogFile, path: Path, clock: Hands) -> None:
    """A rotation without a signal is noticed, and not looked for at each record."""
    write(log, b"1\n")
    path.rename(path.with_suffix(".1"))
    write(log, b"2\n")
    assert not path.exists()
    clock.seconds += CHECK_SECONDS
    write(log, b"3\n")
    assert (path.with_suffix(".1").read_bytes(), path.read_bytes()) == (b"1\n2\n", b"3\n")
    clock.seconds += CHECK_SECONDS
    fd = log._fd
    write(log, b"4\n")
    assert log._fd == fd
    assert path.read_bytes() == b"3\n4\n"


def test_a_file_is_opened_anew_when_that_is_asked_for(log: LogFile, path: Path) -> None:
    """After logrotate's signal nothing more goes to the old file."""
    path.rename(path.with_suffix(".1"))
    assert log.reopen()
    write(log, b"1\n")
    assert path.read_bytes() == b"1\n"


def test_a_file_that_was_removed_is_made_anew_before_anything_is_written(log: LogFile, path: Path) -> None:
    """No record goes to a file that nobody can find any more."""
    path.unlink()
    write(log, b"1\n")
    assert path.read_bytes() == b"1\n"


def test_a_folder_that_was_removed_is_told_and_found_again(log: LogFile, path: Path, clock: Hands) -> None:
    """A record that cannot be kept is never counted as written."""
    path.unlink()
    path.parent.rmdir()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            write(log, b"1\n")
    path.parent.mkdir()
    clock.seconds += CHECK_SECONDS
    write(log, b"2\n")
    assert path.read_bytes() == b"2\n"
    assert log.trouble is None


def test_a_renamed_file_is_written_on_while_no_new_one_can_be_opened(
    log: LogFile, path: Path, clock: Hands
) -> None:
    """A slip of rights after a rotation costs no record, and is told."""
    old = path.with_suffix(".1")
    path.rename(old)
    path.mkdir()
    clock.seconds += CHECK_SECONDS
    write(log, b"1\n")
    assert isinstance(log.trouble, IsADirectoryError)
    path.rmdir()
    clock.seconds += CHECK_SECONDS
    write(log, b"2\n")
    assert (old.read_bytes(), path.read_bytes()) == (b"1\n", b"2\n")


def test_trouble_is_over_when_the_file_is_back_in_its_place(log: LogFile, path: Path, clock: Hands) -> None:
    """Moving the file back is a remedy too."""
    old = path.with_suffix(".1")
    path.rename(old)
    path.mkdir()
    clock.seconds += CHECK_SECONDS
    write(log, b"1\n")
    path.rmdir()
    old.rename(path)
    clock.seconds += CHECK_SECONDS
    write(log, b"2\n")
    assert log.trouble is None
    assert path.read_bytes() == b"1\n2\n"


def test_a_torn_line_is_ended_before_its_file_is_left(log: LogFile, path: Path) -> None:
    """The reader of the old file does not wait for the rest of a line that never comes."""
    write(log, b"torn")
    log.is_torn = True
    path.rename(path.with_suffix(".1"))
    log.reopen()
    write(log, b"1\n")
    assert path.with_suffix(".1").read_bytes() == b"torn\n"
    assert not log.is_torn


# The program


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("missing", "No such file or directory"), ("link", "it is a link"), ("fifo", "not a regular file")],
)
def test_a_file_that_cannot_be_opened_is_a_fault_of_the_settings(
    kind: str, reason: str, tmp_path: Path
) -> None:
    """Whoever starts it reads in one line which key is wrong, and why."""
    path = tmp_path / "log"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = tmp_path / "missing" / "log"
    with pytest.raises(SettingsError) as refused:
        open_records(Logging(file=str(path)), 1)
    assert refused.value.faults == [f"logging.file: '{path}': {reason}; name a file that can be written"]


def test_a_server_that_nobody_could_watch_does_not_start(tmp_path: Path) -> None:
    """A slip in a unit's environment is told at the start, not found missing after an incident."""
    command = (sys.executable, "-m", "trio_cmd", "--port", "0")
    environ = {**os.environ, "TRIO_CMD_LOG_FILE": str(tmp_path)}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (78, "")
    assert ended.stderr == f"logging.file: '{tmp_path}': Is a directory; name a file that can be written\n"


def test_a_signal_opens_the_file_anew(start_logged: StartLogged, path: Path) -> None:
    """Logrotate moves the file, sends its signal, and may compress what it moved."""
    path.parent.mkdir()
    program = start_logged(path)
    moved = []
    for number in (signal.SIGHUP, signal.SIGUSR1):
        assert program.ask(b"ping\n") == b"pong\n"
        wait_until(lambda: b"client-lost" in path.read_bytes(), "all written")
        moved.append(path.with_suffix(f".{number.name}"))
        path.rename(moved[-1])
        program.process.send_signal(number)
        wait_until(path.exists, "a new file")
    assert program.ask(b"ping\n") == b"pong\n"
    assert program.stop() == 0
    actions = [[json.loads(line)["action"] for line in lines_of(each)] for each in (*moved, path)]
    assert [each.count("command-completed") for each in actions] == [1, 1, 1]
    assert ("reloaded" in actions[1], "message" in actions[2]) == (True, True)  # the signals
    assert (actions[0][0], actions[-1][-1]) == ("log-opened", "stopped")


def test_records_go_to_the_file_as_json_and_begin_on_a_line_of_their_own(
    start_logged: StartLogged, path: Path
) -> None:
    """The flag is all a shipper needs, and one torn line is all that a `kill -9` before can cost it."""
    path.parent.mkdir()
    path.write_bytes(b'{"whole":1}\n{"torn')
    program = start_logged(path, "--log-format", "auto")
    assert program.ask(b"ping\n") == b"pong\n"
    assert program.stop() == 0
    first, torn, *others = lines_of(path)
    assert (first, torn) == (b'{"whole":1}', b'{"torn')
    records = [json.loads(line) for line in others]
    assert (records[0]["action"], records[-1]["action"]) == ("log-opened", "stopped")
    assert [record["command"] for record in records if record["action"] == "command-completed"] == ["ping"]
    assert program.rest() == []
    assert program.errors() == ""


def complaint_of(program: Program) -> str:
    """Wait for the next thing it says on standard error."""
    assert program.process.stderr is not None
    assert select.select([program.process.stderr], [], [], PATIENCE_SECONDS)[0], "nothing is said"
    return str(program.process.stderr.readline().decode())


def flood(port: int, count: int) -> int:
    """Ask so many pings; returns how many were answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        sender = threading.Thread(target=Program._send, args=(client, b"ping\n" * count))
        sender.start()
        answers = read_all(client).count(b"pong\n")
        sender.join()
    return answers


def sent_by(connections: int, commands: int) -> int:
    """How many records clients cause."""
    return 2 * connections + 2 * commands


def account(data: bytes) -> tuple[int, int]:
    """Count the events of clients that are there, and those declared as lost; all else is JSON too."""
    records = [json.loads(line) for line in data.splitlines() if line.endswith(b"}")]
    ours = {"client-connected", "client-lost", "command-received", "command-completed"}
    written = sum(record["action"] in ours for record in records)
    return written, sum(record["lost"] for record in records if record["action"] == "events-lost")


def test_a_deleted_folder_costs_records_that_are_counted_and_nothing_else(
    start_logged: StartLogged, path: Path
) -> None:
    """Whoever cleans up too much finds the server serving, is told, and has the log back within seconds."""
    path.parent.mkdir()
    program = start_logged(path)
    assert program.ask(b"ping\n") == b"pong\n"
    wait_until(lambda: b"client-lost" in path.read_bytes(), "all written")
    before = path.read_bytes()
    path.unlink()
    path.parent.rmdir()
    assert flood(program.port, 500) == 500
    said = "cannot be written: No such file or directory; records are lost until it can"
    assert complaint_of(program) == f"trio-cmd: '{path}' {said}\n"
    path.parent.mkdir()
    began = time.monotonic()
    wait_until(path.exists, "the file again")
    assert time.monotonic() - began < 5
    wait_until(lambda: LOST.search(path.read_bytes()) is not None, "the loss said")
    assert flood(program.port, 10) == 10
    assert program.stop() == 0
    written, lost = account(before + path.read_bytes())
    assert written + lost == sent_by(3, 511)
    assert lost > 0
    assert program.errors() == ""


@pytest.mark.parametrize("when_full", ["drop", "hold"])
def test_a_file_that_may_not_grow_is_like_a_full_disk(
    when_full: str, start_logged: StartLogged, path: Path, write_settings: WriteSettings
) -> None:
    """What there is no room for is counted, or waited for; the line that was torn stands alone."""
    path.parent.mkdir()
    text = f'[logging]\nwhen_full = "{when_full}"\nqueue_events = 256\n'
    program = start_logged(path, "--config", write_settings(text))
    assert program.port
    _, hard = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (path.stat().st_size + 1000, hard))
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(flood(program.port, 500)))
    asking.start()
    result = "clients wait until it can" if when_full == "hold" else "records are lost until it can"
    assert complaint_of(program) == f"trio-cmd: '{path}' cannot be written: File too large; {result}\n"
    if when_full == "drop":
        asking.join(30)
        assert answers == [500]
    else:
        asking.join(0.3)
        assert asking.is_alive()
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (hard, hard))
    began = time.monotonic()
    size = path.stat().st_size
    wait_until(lambda: path.stat().st_size > size, "it is written again")
    assert time.monotonic() - began < 5
    asking.join(30)
    assert answers == [500]
    if when_full == "drop":
        wait_until(lambda: LOST.search(path.read_bytes()) is not None, "the loss said")
    assert program.stop() == 0
    written, lost = account(path.read_bytes())
    assert written + lost == sent_by(1, 500)
    assert (lost > 0) == (when_full == "drop")
    assert sum(not line.endswith(b"}") for line in lines_of(path)) <= 1
    assert program.errors() == ""


def has_room_of_its_own() -> bool:
    """Whether this user may mount something in a namespace of its own."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def mounted(start_logged: StartLogged, path: Path) -> tuple[LoggedProgram, Path]:
    """The program with its log on a small disk of its own, and the log's folder as we see it."""
    if not has_room_of_its_own():
        pytest.skip("nothing can be mounted here")
    path.parent.mkdir()
    mount = f'mount -t tmpfs -o size={DISK_BYTES} none "$1" && shift && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(path.parent)]
    program = start_logged(path, "--port", str(free_port()), prefix=prefix)
    program._log = Path(f"/proc/{program.pid}/root{path}")
    return program, program._log


@pytest.mark.needs("unshare")
def test_a_full_disk_costs_only_records_and_they_are_counted(
    mounted: tuple[LoggedProgram, Path], path: Path
) -> None:
    """A disk that is full is no outage, and when there is room so is there a record."""
    program, inside = mounted
    assert flood(program.port, 1) == 1
    ballast = inside.with_name("ballast")
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, DISK_BYTES - 16 * 1024)
    assert flood(program.port, 500) == 500
    said = "cannot be written: No space left on device; records are lost until it can"
    assert complaint_of(program) == f"trio-cmd: '{path}' {said}\n"
    assert flood(program.port, 1) == 1
    ballast.unlink()
    began = time.monotonic()
    wait_until(lambda: LOST.search(inside.read_bytes()) is not None, "the loss said")
    assert time.monotonic() - began < 5
    assert flood(program.port, 5) == 5
    # The disk goes with the program: what is on it is read before.
    sent = sent_by(4, 507)
    wait_until(lambda: sum(account(inside.read_bytes())) == sent, "all written or declared")
    assert program.stop() == 0
    assert program.errors() == ""


@pytest.mark.needs("unshare", "nsenter")
def test_a_folder_that_became_read_only_is_told_and_costs_nothing_while_the_file_is_open(
    mounted: tuple[LoggedProgram, Path], path: Path
) -> None:
    """What can still be written is written, and whoever looks after the disk is told in time."""
    program, inside = mounted
    assert flood(program.port, 1) == 1

    def run(*command: str) -> None:
        enter = ["nsenter", f"--target={program.pid}", "--user", "--preserve-credentials", "--mount"]
        subprocess.run([*enter, *command], check=True, timeout=30)

    run("mount", "-t", "tmpfs", "-o", "ro", "none", str(path.parent))
    program.process.send_signal(signal.SIGUSR1)
    assert flood(program.port, 100) == 100
    what = "cannot be opened anew: Read-only file system; the record goes on in the old file"
    assert complaint_of(program) == f"trio-cmd: '{path}' {what}\n"
    run("umount", str(path.parent))
    wait_until(lambda: inside.read_bytes().count(b'"client-lost"') == 2, "all written")
    assert LOST.search(inside.read_bytes()) is None
    assert program.stop() == 0
    assert program.errors() == ""
