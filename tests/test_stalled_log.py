"""The program whose record cannot be written for a while, dropping or holding; and killed in the middle."""

import json
import os
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import StartLogged, StartProgram
from program import PATIENCE_SECONDS, Program, Record, free_port, read_all, wait_until

WriteSettings = Callable[[str], str]

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
STALL_SECONDS = 60.0 if FULL else 10.0
KILLS = 10 if FULL else 3
BATCHES_PER_SECOND = 10
EVENTS_PER_SECOND = 1000
BATCH = EVENTS_PER_SECOND // BATCHES_PER_SECOND // 2  # a command has two events
PONG = b"pong\n"
BYE = b"Server is stopping. bye !\n"
HOLD = '[logging]\nwhen_full = "hold"\nqueue_events = 256\n[limits]\nstop_seconds = 0.5\n'


class Pipe:
    """Standard output of a program: read when the test says so."""

    def __init__(self) -> None:
        self._read_fd, self.fd = os.pipe()
        self._data = bytearray()
        self._may_read = threading.Event()
        self._may_read.set()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def given_to_the_program(self) -> None:
        os.close(self.fd)

    def stall(self) -> None:
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    def records(self) -> list[Record]:
        """All records that arrived whole, when the program has ended."""
        self.resume()
        self._thread.join(PATIENCE_SECONDS)
        return [json.loads(line) for line in self._data.split(b"\n")[:-1]]

    def _read(self) -> None:
        while self._may_read.wait() and (piece := os.read(self._read_fd, 1 << 16)):
            self._data += piece
        os.close(self._read_fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.resume()


def start_on(pipe: Pipe, start: StartProgram, config: str) -> tuple[Program, int]:
    port = free_port()
    program = start("--port", str(port), "--config", config, stdout=pipe.fd)
    pipe.given_to_the_program()
    wait_until(lambda: can_connect(port), "it listens")
    return program, port


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


class Asker:
    """A client that asks a batch ten times a second, and each time once alone, timed."""

    def __init__(self, port: int) -> None:
        self._client = connect(port)
        self._client.settimeout(STALL_SECONDS + PATIENCE_SECONDS)
        self._is_over = threading.Event()
        self.asked = 0
        self.seconds: list[float] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_SECONDS)
        self._client.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_over.wait(max(0.0, due - time.monotonic())):
            due += 1 / BATCHES_PER_SECOND
            self._ask(BATCH - 1)
            began = time.monotonic()
            self._ask(1)
            self.seconds.append(time.monotonic() - began)

    def _ask(self, count: int) -> None:
        self._client.sendall(b"ping\n" * count)
        missing = count * len(PONG)
        while missing:
            missing -= len(self._client.recv(1 << 16))
        self.asked += count


def count_of(records: list[Record], action: str) -> int:
    return sum(record["action"] == action for record in records)


@pytest.mark.proof
def test_no_client_notices_a_reader_that_stalls_and_every_event_is_written_or_declared(
    pipe: Pipe, start: StartProgram, write_settings: WriteSettings
) -> None:
    """A log shipper that hangs is the shipper's trouble, and afterwards the gap has its exact size."""
    program, port = start_on(pipe, start, write_settings("[logging]\nqueue_events = 500\n"))
    asker = Asker(port)
    wait_until(lambda: len(asker.seconds) >= BATCHES_PER_SECOND, "a second without trouble")
    pipe.stall()
    begun = len(asker.seconds)
    wait_until_for(lambda: len(asker.seconds) >= begun + STALL_SECONDS * BATCHES_PER_SECOND)
    stalled = asker.seconds[begun:]
    pipe.resume()
    resumed = len(asker.seconds)
    wait_until(lambda: len(asker.seconds) >= resumed + BATCHES_PER_SECOND, "a second afterwards")
    asker.end()
    assert program.stop() == 0
    print(f"median of pings while stalled: {statistics.median(stalled) * 1000:.2f} ms")
    assert statistics.median(stalled) < 0.1
    records = pipe.records()
    lost = sum(record["lost"] for record in records if record["action"] == "events-lost")
    written = count_of(records, "command-received") + count_of(records, "command-completed")
    assert lost > 0
    assert written + lost == 2 * asker.asked
    assert program.errors() == ""


def wait_until_for(is_true: Callable[[], bool]) -> None:
    """Wait for something that takes as long as the stall."""
    deadline = time.monotonic() + STALL_SECONDS + PATIENCE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "clients wait though nobody is held"
        time.sleep(0.01)


@pytest.mark.proof
def test_held_clients_wait_for_a_reader_that_stalls_and_nothing_is_lost(
    pipe: Pipe, start: StartProgram, write_settings: WriteSettings
) -> None:
    """Who must have every record gets every record, and pays with waiting."""
    program, port = start_on(pipe, start, write_settings(HOLD))
    asker = Asker(port)
    wait_until(lambda: len(asker.seconds) >= BATCHES_PER_SECOND, "a second without trouble")
    pipe.stall()
    asked = -1
    while asked != asker.asked:  # until nothing is answered for a while
        asked = asker.asked
        time.sleep(0.5)
    with connect(port) as late:
        late.settimeout(STALL_SECONDS)
        late.sendall(b"ping\n")
        with pytest.raises(TimeoutError):
            late.recv(1)
        assert asker.asked == asked
        late.settimeout(PATIENCE_SECONDS)
        late_port, resumed = late.getsockname()[1], datetime.now(UTC)
        pipe.resume()
        assert late.recv(5) == PONG
    wait_until(lambda: asker.asked > asked + 10 * BATCH, "all go on")
    asker.end()
    assert program.stop() == 0
    records = pipe.records()
    assert count_of(records, "command-received") == count_of(records, "command-completed") == asker.asked + 1
    assert count_of(records, "events-lost") == 0
    (admitted,) = [r for r in records if r["action"] == "client-connected" and r["port"] == late_port]
    assert datetime.fromisoformat(admitted["timestamp"]) >= resumed
    assert program.errors() == ""


def test_whoever_knocks_while_the_record_is_held_cannot_keep_it_from_being_opened(
    start_logged: StartLogged, tmp_path: Path, write_settings: WriteSettings
) -> None:
    """Else a hundred connections, of whomever, would make a removed log file the end of the service."""
    folder = tmp_path / "log"
    folder.mkdir()
    config = write_settings(HOLD + "[server]\nmax_clients = 4\n")
    limit = ("prlimit", "--nofile=256:256")  # takes 300 connections for an attack
    program = start_logged(folder / "log", "--config", config, prefix=limit)
    with connect(program.port) as client, ExitStack() as stack:
        shutil.rmtree(folder)
        client.sendall(b"ping\n" * 200)
        wait_until(lambda: says(program.port) == b"", "the record is held")
        knocking = [stack.enter_context(connect(program.port)) for _ in range(300)]
        assert read_all(knocking[-1]) == b"Too many connections. bye !\n"
        folder.mkdir()
        wait_until((folder / "log").exists, "the file is back")
        for other in knocking:
            other.close()
        assert client.recv(5) == PONG
    program.stop()
    records = [json.loads(line) for line in (folder / "log").read_bytes().splitlines()]
    summed = [record["count"] for record in records if record["action"] == "events-summed"]
    one_by_one = [record for record in records if record["action"] == "client-connected"]
    assert sum(summed) + len(one_by_one) >= 300


def says(port: int) -> bytes:
    """What a new client is told at once; nothing when it has to wait."""
    with connect(port) as client:
        client.settimeout(0.2)
        client.sendall(b"ping\n")
        with suppress(TimeoutError):
            return client.recv(100)
    return b""


@pytest.mark.proof
def test_a_server_that_holds_stops_in_time_and_says_what_is_not_written(
    pipe: Pipe, start: StartProgram, write_settings: WriteSettings
) -> None:
    """A restart does not hang on the reader of the log, and what it cost is known."""
    program, port = start_on(pipe, start, write_settings(HOLD))
    pipe.stall()
    with connect(port) as asker, connect(port) as late:
        sender = threading.Thread(target=Program._send, args=(asker, b"ping\n" * 5000))
        sender.start()
        answers = 0
        while (piece := receive(asker, 0.7)) is not None:
            answers += piece.count(b"\n")
        assert 0 < answers < 5000
        with connect(port) as never_admitted:
            never_admitted.sendall(b"ping\n")
            assert receive(never_admitted, 0.3) is None
            late.sendall(b"ping\n")
            assert receive(late, 0.3) is None
            began = time.monotonic()
            assert program.stop() == 0
            assert time.monotonic() - began < 0.5 + 2 + 5
            assert read_all(late) == BYE
            assert read_all(never_admitted) == BYE
        sender.join()
    *_, last = program.errors().splitlines()
    said, rest = last.split(" ", 2)[1:]
    assert rest == "log events could not be written"
    records = pipe.records()
    assert count_of(records, "events-lost") == 0
    # What did not arrive was said; so may be what had gone into the pipe when it ended.
    missing = 2 * answers + 2 * len(("asker", "late", "never admitted")) - len(records)
    assert 0 < missing <= int(said)


def receive(client: socket.socket, seconds: float) -> bytes | None:
    """Take what comes, or ``None``: nothing did in time."""
    client.settimeout(seconds)
    try:
        return client.recv(1 << 16)
    except TimeoutError:
        return None
    finally:
        client.settimeout(PATIENCE_SECONDS)


@pytest.mark.proof
def test_a_killed_server_is_back_at_once_and_has_torn_one_line_at_most(
    start_logged: StartLogged, tmp_path: Path
) -> None:
    """After the worst end the log can still be read, and so can the service."""
    log, port = tmp_path / "log", free_port()
    took = []
    for _ in range(KILLS):
        began = time.monotonic()
        program = start_logged(log, "--port", str(port))
        wait_until(lambda: can_connect(port), "it listens")
        took.append(time.monotonic() - began)
        clients = [connect(port) for _ in range(8)]
        senders = [
            threading.Thread(target=Program._send, args=(client, b"ping\n" * 20_000)) for client in clients
        ]
        readers = [threading.Thread(target=read_all, args=(client,)) for client in clients]
        for thread in (*senders, *readers):
            thread.start()
        size = log.stat().st_size
        wait_until(lambda size=size: log.stat().st_size > size + 500_000, "a log under load")  # type: ignore[misc]  # mypy infers no default
        program.process.kill()
        program.wait()
        for thread in (*senders, *readers):
            thread.join(PATIENCE_SECONDS)
        for client in clients:
            client.close()
    last = start_logged(log, "--port", str(port))
    assert last.ask(b"ping\n") == PONG
    assert last.stop() == 0
    print(f"listening after {max(took):.2f} s at most")
    assert max(took) < 10
    starts, torn = 0, 0
    for line in log.read_bytes().splitlines():
        try:
            starts += json.loads(line)["action"] == "log-opened"
        except ValueError:
            torn += 1
    assert starts == KILLS + 1
    assert torn <= KILLS
