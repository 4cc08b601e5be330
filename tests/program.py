"""The program as a process: started with arguments, asked over a socket, its records read as they come."""

import contextlib
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import trio

PATIENCE_SECONDS = 30.0
"""How long anything is waited for; ten times what it takes on a busy machine."""

SLACK_SECONDS = 2.0
"""What a busy machine may take beyond the promised seconds."""

Record = dict[str, Any]


class Program:
    """``python -m trio_cmd`` on a free port, recording JSON to a pipe that a thread reads.

    Args:
        args: more arguments.
        env: more variables.
        cwd: where it is started.
        prefix: a program to start it with (setpriv, strace, prlimit).
        command: what to start instead of this Python and the package.
        options: of ``subprocess.Popen``; with ``stdout`` given, no records are read.
    """

    def __init__(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
        command: Sequence[str] = (sys.executable, "-m", "trio_cmd"),
        **options: Any,
    ) -> None:
        command = [*prefix, *command, "--port", "0", "--log-format", "json", *args]
        environ = {name: text for name, text in os.environ.items() if not name.startswith("TRIO_CMD_")}
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        }
        self.process = subprocess.Popen(command, env={**environ, **(env or {})}, cwd=cwd, **options)
        self.records: list[Record] = []
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._reader: threading.Thread | None = None
        if options["stdout"] == subprocess.PIPE:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self._end()
        self.process.wait()
        if self._reader is not None:
            self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr, self.process.stdin):
            if pipe is not None:
                pipe.close()

    @property
    def port(self) -> int:
        """The port it listens on; waits until it does."""
        return int(self.wait_for("listening")["port"])

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, action: str, **fields: Any) -> Record:
        """Wait for a record with these fields, also one that came before."""
        return self.wait_until(
            lambda r: r["action"] == action and fields.items() <= r.items(), f"{action} {fields}"
        )

    def wait_until(self, is_it: Callable[[Record], bool], what: str = "record") -> Record:
        """Wait for a record that fulfils a condition, also one that came before."""
        for record in self.records:
            if is_it(record):
                return record
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (latest := self._next_record(deadline, what)) is not None:
            if is_it(latest):
                return latest
        raise AssertionError(f"the program ended without {what}; it recorded {self.records[-5:]}")

    def rest(self) -> list[Record]:
        """All records, when the program has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._next_record(deadline, "its end") is not None:
            pass
        return self.records

    def actions(self, action: str) -> list[Record]:
        """The records of an action read so far."""
        return [record for record in self.records if record["action"] == action]

    def connect(self) -> socket.socket:
        """Connect to it; the socket's time is bounded."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def ask(self, data: bytes) -> bytes:
        """Send all, shut the sending side, and read all there is, on a connection of its own."""
        with self.connect() as client:
            sender = threading.Thread(target=self._send, args=(client, data))
            sender.start()
            answer = read_all(client)
            sender.join()
            return answer

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(PATIENCE_SECONDS)

    def errors(self) -> str:
        """What it said on standard error, when it has ended."""
        assert self.process.stderr is not None
        return str(self.process.stderr.read().decode())

    def children(self) -> list[int]:
        """The processes whose parent it is."""
        return sorted(children_of(self.pid))

    def resident_bytes(self) -> int:
        """How much memory it takes now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _end(self) -> None:
        """End it with all it has started: told twice, by two signals, it cancels everything at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.process.send_signal(number)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()

    @staticmethod
    def _send(client: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a server that has read enough closes
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _next_record(self, deadline: float, what: str) -> Record | None:
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"no {what} in time; the last records: {self.records[-5:]}") from None
        if line is None:
            self._lines.put(None)
            return None
        record: Record = json.loads(line)
        self.records.append(record)
        return record


class LoggedProgram(Program):
    """The program as a process that records to a file.

    Args:
        log: the file.
        args: more arguments.
        options: of ``Program``.
    """

    def __init__(self, log: Path, *args: str, **options: Any) -> None:
        super().__init__("--log-file", str(log), *args, **options)
        self._log = log
        self._port: int | None = None

    @property
    def port(self) -> int:
        """The port it listens on; waits until it does, and reads it in the file as it is then."""
        if self._port is None:
            wait_until(lambda: self._listening() is not None or self.process.poll() is not None, "it listens")
            listening = self._listening()
            assert listening is not None, self.errors()
            self._port = int(listening.get("port") or listening["server"]["port"])
        return self._port

    def _listening(self) -> Record | None:
        """Find its last record of that; the file may have those of earlier programs."""
        lines = self._log.read_bytes().split(b"\n") if self._log.exists() else []
        mine = b'"pid":%d' % self.pid
        begun = next((n for n, line in enumerate(lines) if mine in line), len(lines))
        found = [line for line in lines[begun:-1] if b"trio_cmd.Server starting on" in line]
        return json.loads(found[0]) if found else None


def children_of(parent: int) -> set[int]:
    """The processes whose parent another is."""
    lists = Path(f"/proc/{parent}/task").glob("*/children")  # each thread has those it started
    found: set[int] = set()
    for children in lists:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            found |= set(map(int, children.read_text().split()))
    return found


def read_all(client: socket.socket) -> bytes:
    """Read until the end; a reset ends it too."""
    return b"".join(iter_pieces(client))


def iter_pieces(client: socket.socket) -> Iterator[bytes]:
    """Yield what is received until the end."""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(1 << 16):
            yield piece


def reset(client: socket.socket) -> None:
    """Close a connection with a reset, as a client that dies does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Wait for something that no event tells of."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)


def free_port() -> int:
    """Find a port that nobody listens on.

    Below those the kernel gives to clients: between this look and its use no connection of another
    test can get it.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


async def wait_for(is_true: Callable[[], bool]) -> None:
    """Wait for what happens in another thread or process, while the event loop goes on."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not is_true():
            await trio.sleep(0.002)


def count_descriptors() -> int:
    """How many descriptors this process has open; those of threads that earlier tests left behind too."""
    return len(os.listdir("/proc/self/fd"))
