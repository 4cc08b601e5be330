"""``follow`` as a client meets it: the program as a process, its child, and real rotations."""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, SLACK_SECONDS, Program, read_all, reset, wait_until

pytestmark = pytest.mark.usefixtures("no_orphans")

WriteSettings = Callable[[str], str]

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
ROTATIONS = 20 if FULL else 6
CHILD_GONE_SECONDS = 1.0


class Following:
    """A client that follows a log, from its Begin on.

    Args:
        program: asked.
        line: what it sends.
    """

    def __init__(self, program: Program, line: bytes = b"follow\n") -> None:
        self.client = program.connect()
        self.client.sendall(line)
        self.lines = self.client.makefile("rb")
        assert self.next() == b"Begin follow\n"

    def next(self) -> bytes:
        return self.lines.readline()

    def say(self, data: bytes) -> None:
        self.client.sendall(data)

    def rest(self) -> bytes:
        return self.lines.read()

    def close(self) -> None:
        self.lines.close()
        self.client.close()

    def reset(self) -> None:
        self.lines.close()
        reset(self.client)


Follow = Callable[..., Following]


@pytest.fixture
def follow() -> Iterator[Follow]:
    with contextlib.ExitStack() as stack:

        def begin(*args: Any) -> Following:
            return stack.enter_context(contextlib.closing(Following(*args)))

        yield begin


@pytest.fixture
def program(start: StartProgram, log_file: Path) -> Program:
    return start("--log", f"app={log_file}")


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def command_lines(program: Program) -> list[list[str]]:
    """The command lines of its children."""
    found = []
    for pid in program.children():
        with contextlib.suppress(FileNotFoundError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1])
    return found


# The conversation


def test_lines_are_shown_as_they_are_written(program: Program, follow: Follow, log_file: Path) -> None:
    """What an operator watches is what happens now, and nothing of before."""
    following = follow(program)
    for data in (b"one\n", b"\x1b[2J\xff\n", b"two\nthree\n"):
        append(log_file, data)
        for line in data.splitlines():
            assert following.next() == line.replace(b"\x1b", b"\\x1b").replace(b"\xff", b"\\xff") + b"\n"
    following.say(b"exit\n")
    assert following.rest() == b"End follow\n"
    completed = program.wait_for("command-completed", command="follow")
    assert completed["outcome"] == "ok"
    assert (completed["log"], completed["lines"], completed["skipped"]) == ("app", 4, 0)
    assert completed["bytes"] == len("Begin follow\none\n\\x1b[2J\\xff\ntwo\nthree\nEnd follow\n")


def test_tail_is_run_as_the_manual_says_and_ends_with_the_server(
    program: Program, follow: Follow, log_file: Path
) -> None:
    """An operator who finds the child in a list of processes knows whose it is."""
    follow(program)
    (argv,) = command_lines(program)
    assert argv[1:] == ["-n", "0", "-F", f"--pid={program.pid}", "--", str(log_file)]


@pytest.mark.parametrize(
    ("line", "answer"),
    [(b"\n", b""), (b" \r\n", b""), (b"ping\n", b"pong\n"), (b"x\n", b"Command not found.\n")],
)
def test_any_line_ends_it_and_one_that_is_not_empty_is_run(
    line: bytes, answer: bytes, program: Program, follow: Follow, log_file: Path
) -> None:
    """Whoever presses Enter has his prompt back, and whoever types a command its answer."""
    following = follow(program)
    append(log_file, b"seen\n")
    assert following.next() == b"seen\n"
    following.say(line)
    assert following.next() == b"End follow\n"
    wait_until(lambda: not program.children(), "the child is gone")
    following.say(b"exit\n")
    assert following.rest() == answer


def test_line_that_came_before_it_began_ends_it_as_well(program: Program) -> None:
    """A script that sends all its commands at once gets all its answers."""
    answer = program.ask(b"lastlog 1\nfollow\nping\nfollow\n\nfollow\nexit\n").decode().splitlines()
    assert answer[0:3:2] == ["Begin lastlog", "End lastlog"]
    block = ["Begin follow", "End follow"]
    assert answer[3:] == [*block, "pong", *block, *block]


def test_end_of_input_does_not_end_it(program: Program, follow: Follow, log_file: Path) -> None:
    """``nc -N`` closes its side at once, and its user wants to watch all the same."""
    following = follow(program)
    following.client.shutdown(socket.SHUT_WR)
    for number in range(3):
        append(log_file, b"%d\n" % number)
        assert following.next() == b"%d\n" % number
    following.reset()
    began = time.monotonic()
    wait_until(lambda: not program.children(), "the child is gone")
    assert time.monotonic() - began < CHILD_GONE_SECONDS + SLACK_SECONDS
    program.wait_for("command-completed", command="follow", outcome="gone")


def test_reset_ends_the_child_at_once(program: Program, follow: Follow) -> None:
    """A hundred laptops closed in the evening leave no hundred children."""
    following = follow(program)
    assert len(program.children()) == 1
    began = time.monotonic()
    following.reset()
    wait_until(lambda: not program.children(), "the child is gone")
    assert time.monotonic() - began < CHILD_GONE_SECONDS + SLACK_SECONDS


def test_killed_server_leaves_no_tail(program: Program, follow: Follow) -> None:
    """What nobody can end any more ends by itself."""
    follow(program)
    (pid,) = program.children()
    program.process.kill()
    program.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), "tail has ended")


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.parametrize("is_input_ended", [False, True])
def test_stopping_ends_it_at_once(is_input_ended: bool, program: Program, follow: Follow) -> None:
    """A restart does not wait ten seconds for somebody who watches."""
    following = follow(program)
    if is_input_ended:
        following.client.shutdown(socket.SHUT_WR)
    began = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    goodbye = b"" if is_input_ended else b"Server is stopping. bye !\n"
    assert following.rest() == b"End follow\n" + goodbye
    assert program.wait() == 0
    assert time.monotonic() - began < 5
    assert program.rest()[-1]["action"] == "stopped"


def test_as_json_each_line_is_an_event_and_the_end_is_the_answer(program: Program, log_file: Path) -> None:
    """A program can tell the lines of the log from those of the server."""
    with program.connect() as client, client.makefile("rb") as lines:
        client.sendall(b"format json\nfollow app\n")
        lines.readline()
        wait_until(lambda: bool(program.children()), "the child is there")
        # There is no Begin in JSON: write until something is seen.
        written = 0
        client.settimeout(0.5)
        events: list[dict[str, Any]] = []
        while not events:
            append(log_file, b"End follow %d\n" % written)
            written += 1
            with contextlib.suppress(TimeoutError):
                events.append(json.loads(client.recv(1 << 16).splitlines()[0]))
        client.settimeout(PATIENCE_SECONDS)
        client.sendall(b"\nexit\n")
        rest = [json.loads(line) for line in read_all(client).splitlines()]
    assert {**events[0], "line": ""} == {"id": 2, "command": "follow", "event": "line", "line": ""}
    assert events[0]["line"].startswith("End follow ")
    final = next(answer for answer in rest if answer.get("id") == 2 and "ok" in answer)
    assert final["ok"] is True
    assert final["result"]["log"] == "app"
    assert final["result"]["skipped"] == 0
    assert final["result"]["lines"] >= 1


def test_follower_is_not_idle(
    start: StartProgram, follow: Follow, log_file: Path, write_settings: WriteSettings
) -> None:
    """A quiet log is watched for hours."""
    config = write_settings("[limits]\nidle_seconds = 0.3\n")
    program = start("--config", config, "--log", f"app={log_file}")
    following = follow(program)
    with program.connect() as other:  # this one is idle, and told so later than the follower would be
        assert read_all(other) == b"Idle for 0.3 s. bye !\n"
    append(log_file, b"still there\n")
    assert following.next() == b"still there\n"


# Which logs


@pytest.mark.parametrize("line", [b"follow app more", b"follow 5 app"])
def test_words_too_many_are_answered_with_the_usage(line: bytes, program: Program) -> None:
    """``follow`` has no number of lines: it shows what comes."""
    assert program.ask(line + b"\n") == b"An error occured : usage: follow [LOG]\n"


def test_log_that_cannot_be_followed_is_one_clear_error(
    start: StartProgram, tmp_path: Path, log_file: Path
) -> None:
    """``tail -F`` of a FIFO, a folder or nothing would wait for ever, with a child each."""
    os.mkfifo(tmp_path / "fifo")
    logs = {"gone": tmp_path / "gone", "folder": tmp_path, "fifo": tmp_path / "fifo", "ok": log_file}
    program = start(*(arg for name, path in logs.items() for arg in ("--log", f"{name}={path}")))
    answer = program.ask(b"follow\nfollow folder\nfollow fifo\nfollow nope\nfollow ok\n\n").decode()
    assert answer.splitlines() == [
        f"An error occured : [Errno 2] No such file or directory: '{tmp_path}/gone'",
        f"An error occured : not a regular file: '{tmp_path}'",
        f"An error occured : not a regular file: '{tmp_path}/fifo'",
        "An error occured : no log named 'nope'; the logs are: gone, folder, fifo, ok",
        "Begin follow",
        "End follow",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a link to another user")
def test_link_of_another_user_is_refused_also_when_it_replaces_the_log(
    program: Program, follow: Follow, log_file: Path, tmp_path: Path
) -> None:
    """A daemon that may write in its log folder must not show /etc/shadow through ours."""
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    following = follow(program)
    append(log_file, b"before\n")
    assert following.next() == b"before\n"
    link = tmp_path / "link"
    link.symlink_to(secret)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    link.rename(log_file)
    denied = (
        f"An error occured : a symbolic link of another user: '{log_file}'; "
        "only those of root and the server's user are followed\n"
    ).encode()
    assert following.next() == denied
    assert following.next() == b"End follow\n"
    following.say(b"follow\n")
    assert following.next() == denied
    completed = program.wait_for("command-completed", command="follow")
    assert completed["outcome"] == "not-permitted"


def test_followers_are_limited_in_all_and_from_one_address(
    start: StartProgram, follow: Follow, log_file: Path, write_settings: WriteSettings
) -> None:
    """Nobody can fill a host with children, and one laptop not take all places."""
    log = ("--log", f"app={log_file}")
    program = start(*log)
    first = [follow(program) for _ in range(4)]
    busy = b"An error occured : 4 logs are being followed from your address already; try again later\n"
    assert program.ask(b"follow\n") == busy
    assert b"\nfollowers: 4\n" in program.ask(b"status\n")
    first[0].say(b"\n")
    assert first[0].next() == b"End follow\n"
    follow(program)
    assert program.ask(b"follow\n") == busy
    few = start("--config", write_settings("[limits]\nfollowers = 2\n"), *log)
    assert [follow(few), follow(few)]
    assert few.ask(b"follow\n") == (
        b"An error occured : 2 logs are being followed already; try again later\n"
    )


def test_followers_do_not_take_the_places_of_other_commands(
    start: StartProgram, follow: Follow, log_file: Path, write_settings: WriteSettings
) -> None:
    """Who watches a log hinders nobody who asks for one."""
    config = write_settings("[limits]\nrunning_programs = 1\n")
    program = start("--config", config, "--log", f"app={log_file}")
    assert [follow(program) for _ in range(4)]
    assert program.ask(b"lastlog 1\n").startswith(b"Begin lastlog\n")


# Slow readers, large lines, fast writers


def test_slow_reader_misses_the_older_lines_and_is_told_how_many(
    program: Program, follow: Follow, log_file: Path
) -> None:
    """Who reads slowly sees the newest, and exactly where the gap is."""
    following = follow(program)
    lines, line = 30_000, b"x" * 990
    with log_file.open("ab") as file:
        for number in range(lines):
            file.write(b"%09d %s\n" % (number, line))
    before = program.resident_bytes()
    tail = program.children()[0]
    wait_until(lambda: _position(tail, log_file) == log_file.stat().st_size, "tail has printed all")
    append(log_file, b"last\n")
    expected = 0
    gaps = 0
    while (read := following.next()) != b"last\n":
        if read.endswith(b" lines skipped\n"):
            expected += int(read.split()[0])
            gaps += 1
        else:
            assert int(read[:9]) == expected
            expected += 1
    assert expected == lines
    assert gaps >= 1
    assert program.resident_bytes() - before < 20_000_000


def _position(pid: int, path: Path) -> int:
    """How far a process has read a file."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if fd.readlink() == path:
                return int(Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split()[1])
    return -1


def _is_at_start(pid: int, path: Path) -> bool:
    return _position(pid, path) == 0


def test_reader_that_takes_nothing_is_a_slow_reader_and_its_child_ends(
    start: StartProgram, follow: Follow, log_file: Path, write_settings: WriteSettings
) -> None:
    """A terminal that was stopped with Ctrl-S holds nothing for ever."""
    config = write_settings("[limits]\nwrite_seconds = 0.5\n")
    program = start("--config", config, "--log", f"app={log_file}")
    follow(program)
    append(log_file, (b"x" * 999 + b"\n") * 20_000)
    program.wait_for("client-lost", reason="slow-reader")
    wait_until(lambda: not program.children(), "the child is gone")


def test_line_of_ten_megabytes_is_counted_and_those_around_it_are_shown(
    program: Program, follow: Follow, log_file: Path
) -> None:
    """One mad line neither fills the memory nor ends the watching."""
    following = follow(program)
    append(log_file, b"before\n" + b"x" * 10_000_000 + b"\nafter\n")
    assert [following.next() for _ in range(3)] == [b"before\n", b"1 lines skipped\n", b"after\n"]
    append(log_file, b"y" * 900_000)
    append(log_file, b"y" * 100_000 + b"\n")
    assert following.next() == b"y" * 1_000_000 + b"\n"


WRITER = """
import sys, time
with open(sys.argv[1], "ab") as file:
    began = time.monotonic()
    for turn in range(int(sys.argv[2]) * 100):
        numbers = range(turn * 1000, turn * 1000 + 1000)
        file.write(b"".join(b"%09d of a log that is written fast\\n" % n for n in numbers))
        file.flush()
        time.sleep(max(0, began + (turn + 1) / 100 - time.monotonic()))
"""


def test_log_that_is_written_at_100000_lines_a_second_is_shown_in_whole_lines(
    program: Program, follow: Follow, log_file: Path
) -> None:
    """A service gone wild is the one that is watched; and asked for its newest lines at the same time."""
    following = follow(program)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(log_file), "2"])
    try:
        numbers = []
        wait_until(lambda: log_file.stat().st_size > 100_000, "the writer writes")
        for _ in range(5):
            began = time.monotonic()
            answer = program.ask(b"lastlog 100\n").splitlines()
            assert time.monotonic() - began < 5
            assert len(answer) >= 102
        expected = skipped = 0
        while expected < 200_000:
            line = following.next()
            if line.endswith(b" lines skipped\n"):
                skipped += int(line.split()[0])
                expected += int(line.split()[0])
                continue
            assert line == b"%09d of a log that is written fast\n" % expected
            numbers.append(expected)
            expected += 1
    finally:
        assert writer.wait(PATIENCE_SECONDS) == 0
    assert len(numbers) + skipped == 200_000


# Rotation


class Beside:
    """A real ``tail -F`` of the same log."""

    def __init__(self, path: Path) -> None:
        argv = ["tail", "-n", "0", "-F", "--", str(path)]
        self.tail = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.lines: list[bytes] = []
        stat = Path(f"/proc/{self.tail.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "tail waits")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.tail.stdout is not None
        self.lines.extend(self.tail.stdout)

    def stop(self) -> list[bytes]:
        self.tail.terminate()
        self.tail.wait()
        self._reader.join()
        assert self.tail.stdout is not None
        self.tail.stdout.close()
        return self.lines


def rename(path: Path) -> None:
    """Rotate as logrotate does with ``create``."""
    path.rename(path.with_suffix(".1"))
    path.touch()


def rename_and_create_later(path: Path) -> None:
    """Rotate as logrotate does with ``nocreate``: the writer makes the new file."""
    path.rename(path.with_suffix(".1"))


def truncate(path: Path) -> None:
    """Rotate as logrotate does with ``copytruncate``."""
    os.truncate(path, 0)


@pytest.mark.parametrize("rotate", [rename, rename_and_create_later, truncate])
def test_rotation_loses_and_repeats_nothing_that_tail_does_not(
    rotate: Callable[[Path], None], program: Program, follow: Follow, log_file: Path
) -> None:
    """The night of the incident is also the night of the rotation."""
    beside = Beside(log_file)
    following = follow(program)
    seen: list[bytes] = []

    def write(number: int) -> None:
        for line in range(100):
            append(log_file, b"%03d %03d of this run\n" % (number, line))

    try:
        for number in range(ROTATIONS):
            write(number)
            while not (seen and seen[-1].startswith(b"%03d 099" % number)):
                seen.append(following.next())
            wait_until(lambda: len(beside.lines) >= len(seen), "tail has printed it too")
            rotate(log_file)
            if rotate is truncate:  # a file that has grown again before tail looks was never truncated for it
                tails = (program.children()[0], beside.tail.pid)
                for pid in tails:
                    wait_until(functools.partial(_is_at_start, pid, log_file), "both saw it")
    finally:
        printed = beside.stop()
    assert seen == printed
    assert seen == [b"%03d %03d of this run\n" % (n, m) for n in range(ROTATIONS) for m in range(100)]


def test_what_tail_says_itself_is_no_line_of_the_log(
    program: Program, follow: Follow, log_file: Path
) -> None:
    """An operator must not take ``file truncated`` for a line somebody wrote."""
    following = follow(program)
    os.truncate(log_file, 0)
    append(log_file, b"after\n")
    assert following.next() == b"after\n"
    log_file.unlink()
    log_file.write_bytes(b"new\n")
    assert following.next() == b"new\n"
    following.say(b"\n")
    assert following.next() == b"End follow\n"


@pytest.mark.waits
@pytest.mark.proof
def test_client_that_closed_silently_is_found_within_two_minutes(program: Program, follow: Follow) -> None:
    """With a quiet log nothing is ever sent that could fail: keepalive finds it."""
    following = follow(program)
    began = time.monotonic()
    following.close()
    while program.children():
        assert time.monotonic() - began < 120
        time.sleep(1)
